"""The classical readers of displaced patterns, for comparison and for a first look in seconds: each pixel by itself.

All of them are biased where displacements are below a third of a pixel, as those of soft matter are; how much stands
with each. `solvers.fit_maps` has no such bias, and one phase for both directions.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import InputError
from .tracking import local_mean

__all__ = ["ReadPattern", "read_by_correlation", "read_by_windows", "read_linear"]


class ReadPattern(NamedTuple):
    """What a classical reader says at every pixel of the sample's frames.

    **Fields:** `displacement` `(2, y, x)` [pixel], towards higher rows and columns; `transmission`; `visibility` over
    that of the reference; `match`, the larger the better.
    """

    displacement: Float[Array, "2 y x"]
    transmission: Float[Array, "y x"]
    visibility: Float[Array, "y x"]
    match: Float[Array, "y x"]


@partial(jax.jit, static_argnames=("reach",))
def read_by_correlation(
    sample: Float[Array, "view y x"], reference: Float[Array, "view y x"], *, reach: int = 4, window: float = 2.0
) -> ReadPattern:
    """Displacement of the largest normalised correlation of a window, between whole pixels by a parabola.

    XST for one position, XSVT for many (Berujon & Ziegler, Phys. Rev. Applied 5, 044014, 2016, equation 3), here with
    all positions and a window together. **Bias:** displacements below a third of a pixel come out 0.85 to
    0.89 of the truth on simulated scans (the parabola locks to whole pixels).

    **Arguments:** `reach`, largest displacement [pixel]; `window`, standard deviation of the Gaussian window [pixel].
    **Cost:** `(2 reach + 1)^2` products of the stacks, and as many images in memory.

    ```python
    pattern = jax.random.normal(jax.random.key(0), (3, 40, 40)) * 0.1 + 1.0
    found = read_by_correlation(0.8 * jnp.roll(pattern, 2, 2), pattern)
    assert jnp.allclose(found.displacement[1, 8:-8, 8:-8], 2.0, atol=0.1) and found.transmission.std() < 0.1
    ```
    """
    mean = partial(local_mean, width=window)
    level = lambda frames: mean(frames.mean(0))
    still = reference / local_mean(reference, 5.0) - 1
    moved = sample / local_mean(sample, 5.0) - 1
    power = mean((moved**2).sum(0))

    def compare(there: Array) -> tuple[Array, Array]:
        product, own = mean((moved * there).sum(0)), mean((there**2).sum(0))
        return product / jnp.sqrt(jnp.maximum(own * power, 1e-12)), product / jnp.maximum(own, 1e-12)

    alike, contrast = _at_shifts(compare, still, reach)
    displacement, best, match = _between(alike, reach)
    transmission = level(sample) / level(reference)
    return ReadPattern(displacement, transmission, _at(contrast, best), match)


@partial(jax.jit, static_argnames=("reach",))
def read_by_windows(
    sample: Float[Array, "view y x"], reference: Float[Array, "view y x"], *, reach: int = 4, window: float = 2.0
) -> ReadPattern:
    """Displacement, transmission T and visibility V that leave the smallest squares in a window.

    `sum w [I_s(x) - T (<I_r> + V (I_r(x - u) - <I_r>))]^2` over positions and window, with T and T V solved for each
    whole u and a parabola through the squares (the model of UMPA: Zdora et al., Phys. Rev. Lett. 118, 203903, 2017,
    equations 1 to 3). **Bias:** displacements below a third of a pixel come out 0.72 to 0.76 of the truth on simulated
    scans, and V falls between whole pixels where nothing scatters.

    **Arguments, cost:** as for `read_by_correlation`.

    ```python
    pattern = jax.random.normal(jax.random.key(0), (3, 40, 40)) * 0.1 + 1.0
    found = read_by_windows(0.8 * jnp.roll(pattern, 2, 2), pattern)
    assert jnp.allclose(found.displacement[1, 8:-8, 8:-8], 2.0, atol=0.1) and abs(found.visibility[20, 20] - 1) < 0.02
    ```
    """
    mean = partial(local_mean, width=window)
    light = mean((sample**2).sum(0))

    def solve(there: Array) -> tuple[Array, Array, Array]:
        plain = mean(there)
        a, b, c = mean((plain**2).sum(0)), mean((plain * there).sum(0)), mean((there**2).sum(0))
        p, q = mean((plain * sample).sum(0)), mean((there * sample).sum(0))
        determinant = jnp.maximum(a * c - b * b, 1e-9 * a * c)
        flat, sharp = (c * p - b * q) / determinant, (a * q - b * p) / determinant
        passed = flat + sharp
        return -(light - flat * p - sharp * q) / light, passed, sharp / jnp.maximum(passed, 1e-6)

    left, passed, visibility = _at_shifts(solve, reference, reach)
    displacement, best, match = _between(left, reach)
    return ReadPattern(displacement, _at(passed, best), _at(visibility, best), match)


@jax.jit
def read_linear(
    sample: Float[Array, "view y x"], reference: Float[Array, "view y x"], *, window: float = 2.0
) -> ReadPattern:
    """Displacement u, transmission T and diffusion D of the linearised pattern, by one solve a pixel.

    `I_s = T [I_r - u . grad I_r + D lap I_r]` over positions and window: conservation of light (LCS: Quenot et al.,
    Optica 8, 1412, 2021, equation 7) with a diffusion (MIST: Pavlov et al., J. Opt. 22, 125604, 2020). No search; for
    displacements well below the grain of the pattern. **Bias:** those below a third of a pixel come out 1.06 to 1.09 of
    the truth on simulated scans: central differences of fine speckles are too small, and noise in them lowers it again.

    **Arguments:** `window`, standard deviation of the Gaussian window [pixel].

    **Raises:** `InputError` for fewer than two positions without a window.

    ```python
    x, y, view = jnp.arange(40.0), jnp.arange(40.0)[:, None], jnp.arange(4.0)[:, None, None]
    pattern = lambda moved: 1 + 0.1 * jnp.cos((x - moved) / 3 + view) * jnp.cos(y / 4 + 2 * view)
    down, right = read_linear(pattern(0.2), pattern(0.0)).displacement[:, 8:-8, 8:-8]      # [pixel]
    assert jnp.allclose(right, 0.2, atol=0.01) and jnp.allclose(down, 0, atol=0.01)
    ```
    """
    if sample.shape != reference.shape:
        raise InputError(f"read_linear: sample of shape {sample.shape}, reference of shape {reference.shape}")
    slope = lambda image, axis: jnp.asarray(jnp.gradient(image, axis=axis))
    down, right = slope(reference, 1), slope(reference, 2)
    bend = slope(down, 1) + slope(right, 2)
    basis = jnp.stack([reference, -down, -right, bend])
    mean = partial(local_mean, width=window)
    normal = mean(jnp.einsum("avyx,bvyx->abyx", basis, basis))
    told = mean(jnp.einsum("avyx,vyx->ayx", basis, sample))
    size = jnp.sqrt(jnp.stack([normal[i, i].mean() for i in range(4)]))
    scaled = jnp.moveaxis(normal / size[:, None, None, None] / size[None, :, None, None], (0, 1), (-2, -1))
    right_side = jnp.moveaxis(told / size[:, None, None], 0, -1)[..., None]
    found = jnp.linalg.solve(scaled + 1e-5 * jnp.eye(4), right_side)[..., 0] / size
    passed = jnp.maximum(found[..., 0], 1e-3)
    displacement = jnp.moveaxis(found[..., 1:3] / passed[..., None], -1, 0)
    contrast = reference - local_mean(reference, 5.0)
    squared_frequency = (down**2 + right**2).mean() / jnp.maximum((contrast**2).mean(), 1e-12)
    visibility = jnp.exp(-found[..., 3] / passed * squared_frequency)
    left = mean(((sample - jnp.einsum("yxa,avyx->vyx", found, basis)) ** 2).sum(0)) / mean((sample**2).sum(0))
    return ReadPattern(displacement, passed, visibility, -left)


# ---------------------------------------------------------------------------------------------------- parts
def _at_shifts(compare: Any, still: Array, reach: int) -> tuple[Array, ...]:
    """Compare with the pattern at every whole displacement: images `(shift, y, x)`."""
    side = 2 * reach + 1
    padded = jnp.pad(still, ((0, 0), (reach, reach), (reach, reach)), mode="edge")

    def one(index: Array) -> tuple[Array, ...]:
        corner = (jnp.zeros_like(index), 2 * reach - index // side, 2 * reach - index % side)
        return compare(jax.lax.dynamic_slice(padded, corner, still.shape))

    return jax.lax.map(one, jnp.arange(side * side, dtype=jnp.int32))


def _at(images: Array, index: Array) -> Array:
    return jnp.take_along_axis(images, index[None], 0)[0]


def _between(score: Array, reach: int) -> tuple[Array, Array, Array]:
    """Largest score, between whole displacements by a parabola along each axis; its index and itself."""
    side = 2 * reach + 1
    index = jnp.argmax(score, 0).astype(jnp.int32)
    best = _at(score, index)
    row, column = jnp.clip(index // side, 1, side - 2), jnp.clip(index % side, 1, side - 2)
    at = lambda i, j: _at(score, (row + i) * side + column + j)
    middle = at(0, 0)

    def vertex(before: Array, after: Array) -> Array:
        bent = before - 2 * middle + after
        return jnp.clip(jnp.where(bent < 0, 0.5 * (before - after) / jnp.minimum(bent, -1e-12), 0.0), -1.0, 1.0)

    down = row + vertex(at(-1, 0), at(1, 0)) - reach
    right = column + vertex(at(0, -1), at(0, 1)) - reach
    return jnp.stack([down, right]), index, best
