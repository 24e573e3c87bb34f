"""Few unknowns a pixel, each pixel by itself: logarithms and the likelihood of counts, with error bars.

A model has `areal` `(material, y, x)`, `attenuation` `(view, material)`, `flats`, `darks`, `signal(views)`,
`weight(views)`, `beside_flats(views, values, weight)` and `information(views)`, as `diffrecon.models.KEdge` has.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["fisher_deviation", "fisher_scoring", "log_subtraction"]


def log_subtraction(model: Any, counts: Any) -> Float[Array, "material y x"]:
    """Solve the logarithms of all energies for the materials, pixel by pixel, with the weights of their photons.

    With as many energies as materials it is the exact inverse of the 2 x 2 (n x n) table, whatever the weights.
    """
    seen = jnp.maximum(jnp.asarray(counts).astype(model.areal.dtype) - model.darks, 0.5)
    flats = jnp.maximum(model.flats, 1e-3)
    depth = -jnp.log(seen / flats)
    table = np.asarray(model.attenuation, float)
    if table.shape[0] == table.shape[1]:
        inverse = jnp.asarray(np.linalg.inv(table), depth.dtype)
        return jnp.einsum("mv,vyx->myx", inverse, depth, precision="highest")
    weight = seen**2 / (seen + model.darks)
    normal = jnp.einsum("vyx,vm,vn->yxmn", weight, model.attenuation, model.attenuation, precision="highest")
    right = jnp.einsum("vyx,vm->yxm", weight * depth, model.attenuation, precision="highest")
    return jnp.moveaxis(_solved(normal, right), -1, 0)


@partial(jax.jit, static_argnames=("steps",))
def fisher_scoring(model: Any, counts: Float[Array, "view y x"], steps: int = 12) -> Float[Array, "material y x"]:
    """Find the areal densities of largest Poisson likelihood, pixel by pixel, by Fisher scoring from the model's own.

    A step is `F^-1 gradient`; steps of more than one unit of optical depth are cut, so that pixels without a photon
    stay finite.
    """
    views = jnp.arange(counts.shape[0])
    n = counts.astype(model.areal.dtype)

    def step(areal: Array, _: Any) -> tuple[Array, None]:
        now = model.replace(areal=areal)
        signal = now.signal(views)
        pull = signal * (1 - n / jnp.maximum(signal + model.darks, 1e-3))
        pull = model.beside_flats(views, pull, now.weight(views))
        gradient = jnp.einsum("vyx,vm->yxm", pull, model.attenuation, precision="highest")
        move = jnp.moveaxis(_solved(now.information(views), gradient), -1, 0)
        depth = jnp.einsum("vm,myx->vyx", model.attenuation, move)
        return areal + move / jnp.maximum(jnp.max(jnp.abs(depth), 0), 1.0), None

    return jax.lax.scan(step, model.areal, length=steps)[0]


def _solved(matrix: Float[Array, "y x m m"], right: Float[Array, "y x m"]) -> Float[Array, "y x m"]:
    """Solve the symmetric systems of all pixels, scaled to a diagonal of one first; zero where nothing was seen."""
    size = jnp.sqrt(jnp.maximum(jnp.diagonal(matrix, axis1=-2, axis2=-1), 1e-20))
    unit = matrix / (size[..., :, None] * size[..., None, :]) + 1e-7 * jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    return jnp.linalg.solve(unit, (right / size)[..., None])[..., 0] / size


def fisher_deviation(model: Any, views: int) -> Float[Array, "material y x"]:
    """Give the standard deviation of every areal density by photon noise [g/cm^2]: the root of the diagonal of F^-1.

    Noise of the flats is in it where the model knows it (`KEdge.flats_variance`).
    """
    matrix = model.information(jnp.arange(views))
    size = jnp.sqrt(jnp.maximum(jnp.diagonal(matrix, axis1=-2, axis2=-1), 1e-20))
    inverse = jnp.linalg.inv(matrix / (size[..., :, None] * size[..., None, :]))
    return jnp.moveaxis(jnp.sqrt(jnp.maximum(jnp.diagonal(inverse, axis1=-2, axis2=-1), 0)) / size, -1, 0)
