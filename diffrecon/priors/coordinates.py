"""White coordinates: unknowns of which every frequency and every number has curvature about one.

Gradient steps are then Newton steps, conjugate gradients need few products, and a prior costs nothing. `Coordinates` is
the one abstraction for all methods. A subclass says with `put` how its maps enter the model, and with `prior` what is
known of them; a solver sees an ordinary pytree, whose unknowns are `white` and `numbers`:

    start = MyCoordinates.about(model, curvature, scales, ...)
    solution = levenberg_marquardt(residual, start, data, prior=MyCoordinates.prior, unknowns=("white", "numbers"))
    model = solution.value.solution()
"""

from typing import Any, Self

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, Inexact, PyTree

__all__ = ["Coordinates", "filtered", "mixed", "whitening"]


_FEW = 3  # maps
_SINGULAR = 1e-6  # added to a curvature, in units of it: maps that one hologram cannot tell apart leave it singular


class Coordinates(eqx.Module):
    """Describe a model by white unknowns.

    **Fields:** `white` `(map, ...)`: maps of the model, divided by the root of their curvature; `kernels`, which take
    them back: as in `filtered`; `numbers`: changes of numeric fields of the model by name, in units of `scales`, whose
    zeros hold a number fixed; `model`, about which.

    ```python
    class Image(Coordinates):
        def put(self, model, maps):
            return maps[0]

    kernels, inverse = whitening(jnp.full((1, 1, 8, 5), 4.0))
    image = Image(filtered(jnp.ones((1, 8, 8)), inverse), kernels, {}, {}, None)
    assert jnp.allclose(image.white, 2.0, atol=1e-4) and jnp.allclose(image.solution(), 1.0, atol=1e-4)
    ```
    """

    white: Inexact[Array, "map *space"]
    kernels: Float[Array, "..."]
    numbers: dict[str, Array]
    scales: dict[str, Array]
    model: Any

    def put(self, model: Any, maps: Inexact[Array, "map *space"]) -> Any:
        """Put maps into a model: a subclass says how."""
        raise NotImplementedError

    def prior(self) -> PyTree:
        """Compute what is known beforehand as residuals; nothing by default."""
        return {}

    def maps(self, white: Array | None = None) -> Inexact[Array, "map *space"]:
        """Compute the maps of the model from their white coordinates (or of others, such as an error of them)."""
        return filtered(self.white if white is None else white, self.kernels)

    def solution(self) -> Any:
        """Make the model with these unknowns."""
        fields = {name: getattr(self.model, name) + self.scales[name] * value for name, value in self.numbers.items()}
        return self.put(self.model.replace(**fields) if fields else self.model, self.maps())

    def at(self, white: Inexact[Array, "map *space"]) -> Self:
        """Make these coordinates at other white maps."""
        return eqx.tree_at(lambda c: c.white, self, white)


def filtered(maps: Inexact[Array, "map *space"], kernels: Float[Array, "..."]) -> Inexact[Array, "map *space"]:
    """Multiply maps by kernels frequency by frequency, periodically.

    **Arguments:** `kernels` `(map, *f)`, one a map, or `(map, map, *f)`, which mix them, for the frequencies of `rfftn`
    (of `fftn` where the maps are complex); `(map, map, 1, 1)` is one matrix for all pixels and needs no transform.
    """
    shape, axes = maps.shape[1:], tuple(range(1, maps.ndim))
    forward, back = (jnp.fft.fftn, jnp.fft.ifftn) if jnp.iscomplexobj(maps) else (jnp.fft.rfftn, jnp.fft.irfftn)
    mixing = kernels.ndim == maps.ndim + 1
    product = (lambda values: mixed(kernels, values)) if mixing else (lambda values: kernels * values)
    if all(n == 1 for n in kernels.shape[-len(shape) :]):
        return product(maps)
    return back(product(forward(maps, axes=axes)), s=shape, axes=axes)


def mixed(kernels: Float[Array, "map map ..."], values: Inexact[Array, "map ..."]) -> Inexact[Array, "map ..."]:
    """Multiply spectra of maps by a matrix at every frequency: what `filtered` does between its transforms.

    ```python
    assert jnp.allclose(mixed(2 * jnp.ones((1, 1, 4, 3)), jnp.ones((1, 4, 3))), 2.0)
    ```
    """
    if len(values) > _FEW:
        return jnp.einsum("mn...,n...->m...", kernels, values, precision="highest")
    # Of few maps term by term: a product of 2 x 2 matrices is a loop.
    return jnp.stack([sum(kernel * value for kernel, value in zip(row, values, strict=True)) for row in kernels])


def whitening(curvature: Float[Array, "map map *f"]) -> tuple[Float[Array, "map map *f"], Float[Array, "map map *f"]]:
    """Factorise the curvature of maps at every frequency into kernels of `filtered` and their inverses.

    **Returns:** the kernels that take white maps to those of the model, and those that take them back: inverse and
    transpose of the Cholesky factor.
    """
    if len(curvature) <= 2:
        return _whitening_of_few(curvature)
    front = lambda a: jnp.moveaxis(a, (-2, -1), (0, 1))
    matrix = jnp.moveaxis(curvature, (0, 1), (-2, -1))
    unit = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    transposed = jnp.swapaxes(jnp.linalg.cholesky(matrix * (1 + _SINGULAR * unit)), -1, -2)
    inverse = solve_triangular(transposed, jnp.broadcast_to(unit, matrix.shape))
    return front(inverse), front(transposed)


def _whitening_of_few(curvature: Array) -> tuple[Array, Array]:
    """Factorise for one or two maps in closed form, for all frequencies at once."""
    root = jnp.sqrt(curvature[0, 0] * (1 + _SINGULAR))
    if len(curvature) == 1:
        return (1 / root)[None, None], root[None, None]
    side, zero = curvature[0, 1] / root, jnp.zeros_like(root)
    other = jnp.sqrt(curvature[1, 1] * (1 + _SINGULAR) - side**2)
    matrix = lambda a, b, d: jnp.stack([jnp.stack([a, b]), jnp.stack([zero, d])])
    return matrix(1 / root, -side / (root * other), 1 / other), matrix(root, side, other)
