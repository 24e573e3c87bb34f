"""Measured against predicted counts of views that were not fitted, noise left and noise to expect; wraps of a phase."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError


def held_out_residual(counts: ArrayLike, prediction: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Compute the amplitude residual `R = sum |sqrt I - sqrt p| / sum sqrt I` of predicted against measured counts.

    Meant for views that the solver never saw. **Arguments:** `counts`, `prediction` `(view, y, x)`; `mask` `(y, x)`,
    True = measured.
    """
    measured, expected = _kept(counts, prediction, mask)
    amplitude = np.sqrt(np.maximum(measured, 0))
    return float(
        np.abs(amplitude - np.sqrt(np.maximum(expected, 0))).sum() / max(amplitude.sum(), np.finfo(float).tiny)
    )


def deviance(counts: ArrayLike, prediction: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Compute the Poisson deviance a pixel, `mean 2 (p - I + I ln(I / p))`: about 1 where only the noise of many counts
    is left."""
    return float(np.mean(deviances(counts, prediction, mask)))


def deviances(counts: ArrayLike, prediction: ArrayLike, mask: ArrayLike | None = None) -> np.ndarray:
    """Compute the Poisson deviance of each measured pixel `(pixel,)`, whose mean `deviance` is.

    ```python
    assert np.allclose(deviances([4.0, 0.0], [4.0, 1.5]), [0.0, 3.0])
    ```
    """
    measured, expected = _kept(counts, prediction, mask)
    expected = np.maximum(expected, 1e-12)
    logarithm = np.where(measured > 0, measured * np.log(np.maximum(measured, 1e-300) / expected), 0.0)
    return 2 * (expected - measured + logarithm)


def noise_floor(
    prediction: ArrayLike, mask: ArrayLike | None = None, metric: Any = held_out_residual, seed: int = 0
) -> float:
    """Compute the figure that photon noise alone leaves: `metric` of Poisson draws from the prediction against it."""
    expected = np.maximum(np.asarray(prediction, float), 0)
    return float(metric(np.random.default_rng(seed).poisson(expected), expected, mask))


def _kept(counts: ArrayLike, prediction: ArrayLike, mask: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    measured, expected = np.asarray(counts, float), np.asarray(prediction, float)
    if measured.shape != expected.shape:
        raise InputError(f"counts have shape {measured.shape}, the prediction {expected.shape}")
    if mask is None:
        return measured, expected
    keep = np.broadcast_to(np.asarray(mask, bool), measured.shape)
    return measured[keep], expected[keep]


def line_integral_variance(counts: ArrayLike, flat: ArrayLike, dark: ArrayLike = 0.0, flats: int = 0) -> np.ndarray:
    """Compute the variance of `-ln((I - dark) / (flat - dark))` from photon noise, to first order: `I / (I - dark)^2`.

    **Arguments:** `counts` `(view, y, x)` [photons]; `flat` and `dark`, means of the frames of the empty and of no
    beam, that broadcast to it; `flats` = number of flats averaged, whose noise `flat / (flats (flat - dark)^2)` is
    added (0: none). Where the light is not above the dark the variance is infinite.

    ```python
    assert line_integral_variance([100.0], 400.0) == 0.01
    ```
    """
    counts, flat, dark = (np.asarray(v, float) for v in (counts, flat, dark))

    def relative(values: np.ndarray) -> np.ndarray:
        light = values - dark
        return np.where(light > 0, np.maximum(values, 0) / np.where(light > 0, light, 1) ** 2, np.inf)

    noise = relative(counts)
    return np.asarray(noise + relative(flat) / flats if flats else noise)


@dataclasses.dataclass(frozen=True)
class PhaseJumps:
    """Where neighbouring pixels of a phase differ by more than pi.

    **Fields:** `count` of such pairs, `residues` = points about which the wrapped steps do not add up to zero,
    `steepest` = largest step [rad], `message` in words.
    """

    count: int
    residues: int
    steepest: float
    message: str


def phase_jumps(phase: ArrayLike) -> PhaseJumps:
    """Check that a phase `(..., y, x)` [rad] has no wraps.

    A phase that is the integral of the refractive index (as in `models.Holography`) never wraps, so that none has to be
    undone. A step of more than pi from pixel to pixel is then an edge that the pixel does not resolve; in a phase taken
    from the angle of a wave it is a wrap. Wraps come in closed lines unless there are residues, vortices of the wave
    about which no unwrapping is right.

    **Raises:** `InputError` for values that are not finite or not real.

    ```python
    ramp = np.linspace(0, 30, 64) * np.ones((64, 1))
    assert phase_jumps(ramp).count == 0 and phase_jumps(np.angle(np.exp(1j * ramp))).count > 0
    ```
    """
    values = np.asarray(phase)
    if np.iscomplexobj(values) or values.ndim < 2 or not np.isfinite(values).all():
        raise InputError(
            f"phase_jumps: shape {values.shape}, type {values.dtype}; expected a finite, real phase (..., y, x)"
        )
    steps = [np.diff(values.astype(float), axis=axis) for axis in (-2, -1)]
    wrapped = [s - 2 * np.pi * np.rint(s / (2 * np.pi)) for s in steps]
    circulation = (np.diff(wrapped[0], axis=-1) - np.diff(wrapped[1], axis=-2)) / (2 * np.pi)
    residues = int(np.count_nonzero(np.rint(circulation)))
    count = int(sum(np.count_nonzero(np.abs(s) > np.pi) for s in steps))
    steepest = float(max((np.abs(s).max(initial=0.0) for s in steps), default=0.0))
    text = f"steps from pixel to pixel up to {steepest:.2f} rad; "
    text += "no wraps" if not count else f"WARNING: {count} of them above pi: wraps, or edges that are not resolved"
    return PhaseJumps(count, residues, steepest, text + (f"; {residues} residues" if residues else ""))
