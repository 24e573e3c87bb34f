"""Fringes of a grating interferometer, stepped or moved: one phase, transmission and visibility for all steps."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..operators.displacement import fringe_transfer
from ..solvers.refraction import Information, Transfer, sum_up
from ._refracting import RefractingSample, held_together

__all__ = ["SteppedFringes", "fit_fringes"]

_ARRIVED = 1e-6  # change of doses and steps [periods], far below their noise


class SteppedFringes(RefractingSample):
    """Expected counts of phase stepping behind a sample, one view a step of the grating.

    `flux exp(a) mean (1 + V visibility cos(phase + turn D - 2 pi step))`, with D the displacement along x [pixel] of
    which the potential has the slope; `turn` = 2 pi pixel / period [rad/pixel].

    **Fields:** `maps`, the unknown images (`solvers.RefractionMaps`); `flux`, `step` `(view,)` [periods]; `mean`,
    `amplitude`, `phase` `(y, x)` of the reference (`fit_fringes`); `trust` `(y, x)`; `deviation`, variance of a value
    over the mean value; `share`, variance that the reference adds, over that of the sample; `spread` and `blur` of
    the propagation fringes (`operators.fringe_transfer`), `None` for none; `shear` [pixel] between the points of the
    sample that are compared, wavelength distance / period.
    """

    flux: Float[Array, " view"]
    step: Float[Array, " view"]
    mean: Float[Array, "y x"]
    amplitude: Float[Array, "y x"]
    phase: Float[Array, "y x"]
    trust: Float[Array, "y x"]
    deviation: Float[Array, ""] | float
    share: Float[Array, ""] | float
    turn: float = eqx.field(static=True)
    spread: float | None = eqx.field(static=True, default=0.0)
    blur: float = eqx.field(static=True, default=0.0)
    shear: float = eqx.field(static=True, default=0.0)

    unknowns: ClassVar[tuple[str, ...]] = ("maps",)

    @property
    def transfer(self) -> Transfer:
        """Say how frames see the images: blurred, the phase as a difference over the shear, and all else twice, from
        both of its ends.
        """
        shape = self.maps.potential.shape
        fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
        twice = np.cos(np.pi * self.shear * fx)
        fringes = fringe_transfer(shape, self.spread, self.blur) * twice
        moved = np.exp(-2 * (np.pi * self.blur) ** 2 * (fy**2 + fx**2)) * np.sinc(self.shear * fx)
        return Transfer(fringes, moved) if self.shear else Transfer(fringes)

    @property
    def sharp(self) -> Transfer:
        """Say how a camera sees the images without gratings."""
        return Transfer(fringe_transfer(self.maps.potential.shape, self.spread, self.blur))

    def information(self, counts: Float[Array, "view y x"]) -> tuple[Information, "SteppedFringes"]:
        """Sum up what all steps say of the fields. Flux and steps stay as `fit_fringes` has found them."""
        fields, frames = self.fields(), jnp.moveaxis(jnp.asarray(counts, self.flux.dtype), 0, -1)
        predicted, slopes = self._predict(jnp.arange(len(self.flux)), fields)
        residual = frames - predicted
        level = jnp.maximum(frames.mean(-1), 1e-3 * frames.mean())
        weight = (self.trust / (self.deviation * level * (1 + jnp.exp(fields[2]) * self.share)))[..., None]
        found = sum_up(residual, slopes, weight, fields)
        return held_together(found, fields, self.maps.tilt), self

    def _predict(self, views: Any, fields: Array) -> tuple[Array, list[Any]]:
        angle = (self.phase + self.turn * fields[1])[..., None] - 2 * jnp.pi * self.step[views]
        light = self.flux[views] * jnp.exp(fields[2])[..., None] * self.mean[..., None]
        wave = light * self.amplitude[..., None]
        seen = wave * jnp.cos(angle)
        predicted = light + fields[3][..., None] * seen
        return predicted, [None, -self.turn * fields[3][..., None] * wave * jnp.sin(angle), predicted, seen]


def fit_fringes(
    frames: Float[np.ndarray, "view y x"],
    step: Float[np.ndarray, " view"],
    *,
    rounds: int = 6,
    dose_error: float = 0.01,
    step_error: float = 0.05,
) -> tuple[Float[np.ndarray, "3 y x"], Float[np.ndarray, " view"], Float[np.ndarray, " view"]]:
    """Fit mean, visibility and phase of every pixel, with the step and the flux of every frame.

    Errors of steps and doses are told from the sample because they are common to all pixels (Wang & Han 2004, for the
    steps). Gauss-Newton for them, the pixels eliminated. Frames of unknown steps and doses are `flux n . p`, with null
    vectors `n = (1, cos, sin)`: any Lorentz boost of all n and p explains them equally well, whatever the number of
    steps and the moire, and puts a false moire into all images. So how much doses and steps may err is part of the
    question; the smallest errors by this measure win. Fewer than four steps are taken at their word. In float64 NumPy.

    **Arguments:** `step` as planned [periods]; `dose_error`, relative, and `step_error` [periods], standard deviations.

    **Returns:** `(mean, visibility, phase [rad])`, the flux about one, the steps [periods].

    ```python
    phase = np.linspace(0, 12, 1600).reshape(40, 40)
    step = np.arange(6) / 6 + np.array([0.0, 0.02, -0.03, 0.01, 0.0, 0.0])
    frames = 1e4 * (1 + 0.4 * np.cos(phase - 2 * np.pi * step[:, None, None]))
    (mean, visibility, found), flux, steps = fit_fringes(frames, np.arange(6) / 6, dose_error=1e-4)
    assert np.allclose(visibility, 0.4, atol=2e-3) and np.allclose(steps - steps.mean(), step - step.mean(), atol=1e-3)
    ```
    """
    frames, planned = np.asarray(frames, float), np.asarray(step, float)
    views = len(frames)
    flux, step, flat = np.ones(views), planned.copy(), frames.reshape(views, -1)
    some = flat[:, :: max(1, flat.shape[1] // 6000)]
    some = some[:, some.mean(0) > 0.1 * some.mean()]
    precision = np.repeat([1 / dose_error**2, 1 / step_error**2], views)
    for _ in range(rounds if views > 3 else 0):
        basis = _fringe_basis(flux, step)
        # Bright frames are noisier: with equal weights, fringes of one phase everywhere would bend to their noise.
        plain = basis @ (np.linalg.pinv(basis) @ some)
        weight = 1 / np.maximum(plain, 0.1 * some.mean(0))
        solve = np.linalg.inv(np.einsum("ka,kb,ki->iab", basis, basis, weight))
        values = np.einsum("iab,kb,ki,ki->ai", solve, basis, weight, some)
        predicted = basis @ values
        angle = 2 * np.pi * step[:, None]
        turned = 2 * np.pi * flux[:, None] * (values[2] * np.cos(angle) - values[1] * np.sin(angle))
        slopes = weight * np.stack([predicted, turned])
        told = np.einsum("aki,kb->iakb", slopes, basis).reshape(some.shape[1], 2 * views, 3)
        curvature = np.einsum("aki,bki->akb", slopes, slopes / weight)
        curvature = np.einsum("akb,kl->akbl", curvature, np.eye(views)).reshape(2 * views, 2 * views)
        curvature = curvature - np.einsum("ima,iab,inb->mn", told, solve, told, optimize=True) + np.diag(precision)
        away = np.concatenate([np.log(flux), step - planned])
        change = np.linalg.solve(
            curvature, np.einsum("aki,ki->ak", slopes, some - predicted).ravel() - precision * away
        )
        flux, step = flux * np.exp(np.clip(change[:views], -0.2, 0.2)), step + np.clip(change[views:], -0.05, 0.05)
        if np.abs(change).max() < _ARRIVED:
            break
    values = np.linalg.pinv(_fringe_basis(flux, step)) @ flat
    mean = np.maximum(values[0], 1e-12)
    found = np.stack([mean, np.hypot(values[1], values[2]) / mean, np.arctan2(values[2], values[1])])
    return found.reshape(3, *frames.shape[1:]), flux, step


def _fringe_basis(flux: np.ndarray, step: np.ndarray) -> np.ndarray:
    angle = 2 * np.pi * step
    return flux[:, None] * np.stack([np.ones(len(step)), np.cos(angle), np.sin(angle)], 1)
