"""A reference pattern behind a sample: one phase, transmission and visibility for all its frames."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..operators.displacement import displaced_with_slopes, displacement_coefficients, fringe_transfer
from ..operators.fourier import blur
from ..solvers.refraction import Information, Transfer, sum_up
from ._refracting import RefractingSample, held_together

__all__ = ["DisplacedReference"]


_LOOSE = 0.02  # of what lines tell is said by air along them: single frames tell little
_FIRM = 1e-3  # of the mean curvature, towards one visibility for all directions


class DisplacedReference(RefractingSample):
    """Expected counts of speckle frames behind a sample, one view a position of the membrane.

    `flux exp(a) (smooth + V structure)`, with beam and structure of the reference at `place - displacement`. The
    displacement is the slope of one potential, which also leaves its fringes in the logarithm of the intensity, a.

    **Fields:** `maps`, the unknown images (`solvers.RefractionMaps`); `flux` `(view,)` and `drift` `(view, 2)` [pixel]
    of the membrane between reference and sample; `smooth`, `structure` `(view, y, x)` (`prepare.split_patterns`);
    `deviation`, variance of a value over the mean value, `share` of it that the reference adds; `trust` `(y, x)`,
    weight of each pixel besides its noise; `spread` and `blur` of the fringes
    (`operators.fringe_transfer`), `None` for none; `across` (row, column), the direction of unit length that a pattern
    of straight lines tells, `None` for a pattern that tells both.
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
    across: tuple[float, float] | None = eqx.field(static=True, default=None)

    unknowns: ClassVar[tuple[str, ...]] = ("maps", "flux", "drift")

    @property
    def transfer(self) -> Transfer:
        """Say how frames see the images: the pattern itself has been blurred as they are."""
        return Transfer(fringe_transfer(self.maps.potential.shape, self.spread, self.blur))

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
        if self.across is None:
            return sum_up(residual, slopes, weight, fields), self._refined(residual, slopes, weight)
        down, right = self.across
        told = down * slopes[0] + right * slopes[1]
        slopes = [down * told, right * told, *slopes[2:]]
        found = held_together(sum_up(residual, slopes, weight, fields), fields, self.maps.tilt, self.across, _LOOSE)
        return found, self._refined(residual, slopes, weight)

    def visibility_tensor(self, counts: Float[Array, "view y x"], window: float) -> Float[Array, "3 y x"]:
        """Read how the visibility depends on direction: `V(e) = e' V e` for patterns that vary along e, as xx, xy, yy.

        Weighted least squares over a Gaussian `window` (standard deviation [pixel]), by the
        pattern and its parts by direction, where the fit has put them.
        """
        fields, frames = self.fields(), jnp.moveaxis(jnp.asarray(counts, self.flux.dtype), 0, -1)
        views = jnp.arange(len(self.flux))
        predicted, slopes = self._predict(views, fields)
        # All of the pattern, since the visibility of single pixels has taken up some of what depends on direction.
        pattern = frames - predicted + fields[3][..., None] * slopes[3]
        weight = (self.trust / (self.deviation * jnp.maximum(frames.mean(-1), 1e-3 * frames.mean())))[..., None]
        # V(e) = mean + half the difference times cos 2t + xy sin 2t, with t the angle of e.
        parts = [self.replace(structure=part)._predict(views, fields)[1][3] for part in _by_direction(self.structure)]
        basis = jnp.stack([slopes[3], *parts])
        edge = int(np.ceil(3 * window))
        near = lambda image: blur(jnp.pad(image, edge), window)[edge:-edge, edge:-edge]
        sums = [[near((weight * a * b).sum(-1)) for b in basis] for a in basis]
        right = jnp.stack([near((weight * a * pattern).sum(-1)) for a in basis], -1)
        normal = jnp.moveaxis(jnp.asarray(sums), (0, 1), (-2, -1))
        firm = normal + _FIRM * jnp.eye(3, dtype=normal.dtype) * jnp.trace(normal, axis1=-2, axis2=-1)[..., None, None]
        mean, difference, mixed = jnp.moveaxis(jnp.linalg.solve(firm, right[..., None])[..., 0], -1, 0)
        return jnp.stack([mean + difference, mixed, mean - difference])

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
        if self.across is None:
            step = jnp.stack([c * p - b * q, a * q - b * p], -1) / jnp.maximum(a * c - b * b, 1e-12 * a * c)[:, None]
        else:  # slopes of one direction: a step of it
            step = jnp.stack([p, q], -1) / jnp.maximum(a + c, 1e-30)[:, None]
        drift = self.drift + jnp.clip(step - step.mean(0), -0.5, 0.5)
        return self.replace(flux=flux, drift=drift)


def _by_direction(structure: Array) -> tuple[Array, Array]:
    """Patterns with every frequency times cos 2t and sin 2t of its direction t, over a mirrored border."""
    border = 12
    padded = jnp.pad(structure, ((0, 0), (border, border), (border, border)), mode="reflect")
    fy, fx = np.fft.fftfreq(padded.shape[1])[:, None], np.fft.rfftfreq(padded.shape[2])[None]
    square = np.maximum(fy**2 + fx**2, 1e-12)
    spectrum, inside = jnp.fft.rfft2(padded), (slice(None), slice(border, -border), slice(border, -border))
    turned = lambda gain: jnp.fft.irfft2(spectrum * jnp.asarray(gain, structure.dtype), s=padded.shape[1:])[inside]
    return turned((fx**2 - fy**2) / square), turned(2 * fx * fy / square)
