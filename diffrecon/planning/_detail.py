"""Who sees a detail: the one rule by which photons become resolution, whatever the method.

A method measures projections, and tells a map of *projected relative density* t(x) [m] (the thickness of solid
material in the beam) with a Fisher information F(f) for each spatial frequency. A detail is a round Gaussian of full
width at half maximum `a` whose density differs by the share c. The best estimate of c has the signal-to-noise ratio

    SNR^2 = c^2 (2 pi s^2)^3 integral exp(-4 pi^2 s^2 f^2) F(f) 2 pi f df,     s = a / 2.355

(matched filter). The same holds for a tomogram with the sum of F over its views in place of F: by the Fourier slice
theorem M views over a half turn hold M / (pi f) samples of a plane's spectrum, which cancels the 2 pi f of the plane
against the 2 pi f of the projection (dose fractionation: Hegerl & Hoppe, Z. Naturforsch. 31a, 1717 (1976)).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..regimes import sampled_share

FWHM = 2 * np.sqrt(2 * np.log(2))
CRITERION = 5.0
"""Standard deviations at which a detail counts as seen (Rose, J. Opt. Soc. Am. 38, 196 (1948))."""

_NODES = 768  # of the integral
_SIZES = 64  # tried for the smallest one seen
_SPAN = 1e4  # largest over smallest of them

Information = Callable[[Array], Array]


def detail_ratio(information: Information, size: Float[Array, ""], views: Float[Array, ""]) -> Float[Array, ""]:
    """Compute the signal-to-noise ratio of a detail that differs from its surroundings by their whole density.

    **Arguments:** `information` F(f) [1/m^4] of frequencies [1/m] in one view; `size` [m] = full width at half maximum.
    """
    deviation = size / FWHM
    # In units of the spectrum's width; it has fallen to exp(-18) at the end.
    nodes = (jnp.arange(_NODES) + 0.5) / _NODES * 3 / (np.pi * np.sqrt(2))
    weight = jnp.exp(-4 * (np.pi * nodes) ** 2) * 2 * np.pi * nodes * (nodes[1] - nodes[0]) / deviation**2
    return jnp.sqrt(views * (2 * np.pi * deviation**2) ** 3 * jnp.sum(weight * information(nodes / deviation)))


def smallest_detail(
    information: Information, difference: Array | float, views: Array, finest: Float[Array, ""]
) -> Float[Array, ""]:
    """Find the size [m] at which a detail of some relative `difference` is seen; infinite where none is.

    **Arguments:** `finest` = about the finest half period [m] of the instrument: details from a tenth of it are tried.
    """
    start = jax.lax.stop_gradient(finest) / 10
    sizes = start * jnp.geomspace(1.0, _SPAN, _SIZES)
    ratios = difference * jax.vmap(lambda size: detail_ratio(information, size, views))(sizes)
    # Larger details are seen better; a blind frequency must not make the curve fold back.
    rising = jax.lax.cummax(jnp.log(jnp.maximum(ratios, 1e-30))) + 1e-9 * jnp.arange(_SIZES)
    found = jnp.exp(jnp.interp(jnp.log(CRITERION), rising, jnp.log(sizes)))
    return jnp.where(rising[-1] < jnp.log(CRITERION), jnp.inf, found)


def scanned(point: Array, spot: float, step: Array | float) -> Information:
    """Give the information [1/m^4] of a raster on the projected relative density, from that of a `point` [1/m^2].

    **Arguments:** `spot` [m] = full width at half maximum of the beam; `step` [m] between points, along both axes.
    """

    def information(f: Array) -> Array:
        blurred = jnp.exp(-4 * (np.pi * spot / FWHM * f) ** 2)
        return point / step**2 * blurred * sampled_share(jnp, f, jnp.reshape(jnp.asarray(step), (1,)))[0]

    return information
