"""A reference pattern behind a sample: one phase, transmission and visibility for all its frames."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..operators.displacement import displaced_with_slopes, displacement_coefficients, fringe_transfer
from ..solvers.refraction import Information, sum_up
from ._refracting import RefractingSample

__all__ = ["DisplacedReference"]


class DisplacedReference(RefractingSample):
    """Expected counts of speckle frames behind a sample, one view a position of the membrane.

    `flux exp(a) (smooth + V structure)`, with beam and structure of the reference at `place - displacement`. The
    displacement is the slope of one potential, which also leaves its fringes in the logarithm of the intensity, a.

    **Fields:** `maps`, the unknown images (`solvers.RefractionMaps`); `flux` `(view,)` and `drift` `(view, 2)` [pixel]
    of the membrane between reference and sample; `smooth`, `structure` `(view, y, x)` (`prepare.split_patterns`);
    `deviation`, variance of a value over the mean value, `share` of it that the reference adds; `trust` `(y, x)`,
    weight of each pixel besides its noise; `spread` and `blur` of the fringes
    (`operators.fringe_transfer`), `None` for none.
    """

    flux: Float[Array, " view"]
    drift: Float[Array, "view 2"]
    smooth: Float[Array, "view y x"]
    structure: Float[Array, "view y x"]
    trust: Float[Array, "y x"]
    deviation: Float[Array, ""] | float
    share: Float[Array, ""] | float
    spread: float | None = eqx.field(static=True, default=0.0)
    blur: float = eqx.field(static=True, default=0.0)

    unknowns: ClassVar[tuple[str, ...]] = ("maps", "flux", "drift")

    @property
    def transfer(self) -> Float[np.ndarray, "Y half"]:
        """Give what takes the potential to the logarithm of the intensity."""
        return fringe_transfer(self.maps.potential.shape, self.spread, self.blur)

    def information(self, counts: Float[Array, "view y x"]) -> tuple[Information, "DisplacedReference"]:
        """Sum up what all frames say of the fields; flux and drift of single frames are refined by the way.

        The noise of the reference counts beside that of the sample. Mean flux and mean drift stay as they are: they are
        the transmission's and the displacement's.
        """
        fields, frames = self.fields(), jnp.moveaxis(jnp.asarray(counts, self.flux.dtype), 0, -1)
        predicted, slopes = self._predict(jnp.arange(len(self.flux)), fields)
        residual = frames - predicted
        level = jnp.maximum(frames.mean(-1), 1e-3 * frames.mean())
        transmission = jnp.minimum(jnp.exp(fields[2]), 2.0)
        weight = (self.trust / (self.deviation * level * (1 + transmission * self.share)))[..., None]
        found = sum_up(residual, slopes, weight, fields)
        return found, self._refined(residual, slopes, weight)

    def _predict(self, views: Any, fields: Array) -> tuple[Array, list[Array]]:
        coefficients = displacement_coefficients(self.structure[views], self.drift[views])
        pattern, down, right = displaced_with_slopes(coefficients, fields[:2])
        beam = self.smooth[views]
        tilts = jnp.gradient(beam, axis=(1, 2))
        last = lambda a: jnp.moveaxis(a, 0, -1)
        beam, tilts = last(beam), [last(t) for t in tilts]
        beam = beam - fields[0][..., None] * tilts[0] - fields[1][..., None] * tilts[1]
        light = self.flux[views] * jnp.exp(fields[2])[..., None]
        seen = fields[3][..., None]
        predicted = light * (beam + seen * pattern)
        moved = [-light * (seen * s + t) for s, t in zip((down, right), tilts, strict=True)]
        return predicted, [*moved, predicted, light * pattern]

    def _refined(self, residual: Array, slopes: list[Array], weight: Array) -> "DisplacedReference":
        over = lambda a: (weight * a).sum((0, 1))
        down, right, predicted, _ = slopes
        flux = self.flux * (1 + over(predicted * residual) / over(predicted**2))
        flux = flux * jnp.exp(jnp.log(self.flux).mean() - jnp.log(flux).mean())
        a, b, c = over(down * down), over(down * right), over(right * right)
        p, q = over(down * residual), over(right * residual)
        step = jnp.stack([c * p - b * q, a * q - b * p], -1) / jnp.maximum(a * c - b * b, 1e-12 * a * c)[:, None]
        drift = self.drift + jnp.clip(step - step.mean(0), -0.5, 0.5)
        return self.replace(flux=flux, drift=drift)
