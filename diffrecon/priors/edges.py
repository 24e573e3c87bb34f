"""Edges and vacuum: what objects have that a power law does not know, as weights of squares.

Both are made from a solution, and held fixed while the next is solved for; everything stays on the device.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..operators.fourier import blur, radial_frequency
from .power_law import PowerLaw

__all__ = ["Variation", "detail_gradient", "vacuum_weights"]

_BORDER = 0.06  # of the window, where an isolated object is not
_FAINT = 0.03  # of the largest values: what is fainter may be vacuum


def detail_gradient(image: Float[Array, "y x"], high_pass: Float[Array, "y half"]) -> Float[Array, "2 y x"]:
    """Compute differences (down, right) of an image without its lowest frequencies; periodic."""
    detail = jnp.fft.irfft2(jnp.fft.rfft2(image) * high_pass, s=image.shape)
    return jnp.stack([jnp.roll(detail, -1, axis) - detail for axis in (0, 1)])


class Variation(NamedTuple):
    """Hold details sharp by their total variation, as squares with lagged weights.

    **Fields:** `high_pass` `(y, x//2 + 1)`, the details; `edges`: weights `(y, x)` of their squared differences;
    `inverse_power` `(y, x//2 + 1)`: what is left of one over the power law, which the variation takes the place of
    above the first maximum of contrast.
    """

    high_pass: Float[Array, "y half"]
    edges: Float[Array, "y x"]
    inverse_power: Float[Array, "y half"]

    @classmethod
    def about(
        cls,
        image: Float[Array, "y x"],
        prior: PowerLaw,
        curvature: Float[Array, "y half"],
        first_maximum: Float[Array, ""] | float,
        strength: Float[Array, ""] | float = 1.0,
    ) -> "Variation":
        """Weigh the differences of a solution.

        The weight is `strength / sigma`, sigma the photon noise of a pixel: differences of `strength sigma` are
        noise, whatever the object is. Frequencies below `first_maximum` [cycles/pixel], where contrast is best, and
        those that the data know a hundred times better than the prior are left out: a variation would shrink them.
        `curvature` is that of the data's half square.
        """
        frequency = radial_frequency(image.shape, xp=jnp)
        power = prior(frequency)
        high_pass = 1 / (1 + 1e-2 * power * curvature) / (1 + (first_maximum / frequency) ** 4)
        steps, sigma = detail_gradient(image, high_pass), 1 / jnp.sqrt(jnp.mean(curvature))
        edges = strength / sigma / jnp.sqrt(jnp.sum(steps**2, 0) + (0.1 * sigma) ** 2)
        return cls(high_pass, edges, 1 / power / (1 + (frequency / first_maximum) ** 4))


def vacuum_weights(
    image: Float[Array, "y x"],
    curvature: Float[Array, "y half"],
    first_maximum: Float[Array, ""] | float,
    strength: Float[Array, ""] | float = 0.1,
) -> Float[Array, "y x"]:
    """Weigh the squares that hold an image at zero where nothing is: the surroundings of an isolated object.

    Vacuum is where the neighbourhood, an eighth of the period `1 / first_maximum` of best contrast, stays below three
    times what is there along the border of the window, and below 3 % of the object. There a value weighs `strength`
    over the variance of a pixel's photon noise. It settles the lowest frequencies, which holograms hardly show: those
    that would spill over the object's edge.

    **Arguments:** `first_maximum` [cycles/pixel]; `curvature` of the data's half square at every frequency.
    """
    shape = image.shape
    width = jnp.maximum(1 / (8 * first_maximum), 1.0)
    square = blur(image, width) ** 2
    power = jnp.maximum(blur(square, width), square)
    border = np.ones(shape, bool)
    border[tuple(slice(round(_BORDER * n), n - round(_BORDER * n)) for n in shape)] = False
    around = jnp.median(power.ravel()[np.flatnonzero(border)])
    limit = jnp.minimum(3 * jnp.sqrt(around), _FAINT * jnp.sqrt(jnp.percentile(power, 99)))
    weights = strength * jnp.mean(curvature) / (1 + (power / jnp.maximum(limit, 1e-30) ** 2) ** 4)
    return jnp.where(limit > 0, weights, 0)
