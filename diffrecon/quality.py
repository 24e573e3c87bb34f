"""Figures that judge a reconstruction without its truth: resolution, edge width, held-out residual, noise floor.

Pure functions of arrays (NumPy inside, float64).
"""

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .errors import InputError

__all__ = [
    "EdgeFit",
    "RingCorrelation",
    "align",
    "deviance",
    "edge_width",
    "held_out_residual",
    "noise_floor",
    "register",
    "ring_correlation",
    "shift_image",
]


# ---------------------------------------------------------------------- Fourier ring and shell correlation
@dataclasses.dataclass(frozen=True)
class RingCorrelation:
    """Fourier ring (2-D) or shell (3-D) correlation of two images.

    **Fields:** `frequency` [cycles/pixel] of each ring, `correlation`, thresholds `half_bit` and `one_bit`, `samples` =
    effective number of Fourier samples of each ring; `crossing` [cycles/pixel] where the correlation falls below
    half-bit (0.5 where it never does: then the pixel limits); `shift` [pixel] that was taken out; `pixel_size` [m] or
    `None`.
    """

    frequency: np.ndarray
    correlation: np.ndarray
    half_bit: np.ndarray
    one_bit: np.ndarray
    samples: np.ndarray
    crossing: float
    shift: tuple[float, ...]
    pixel_size: float | None = None

    @property
    def half_period(self) -> float:
        """Resolution [pixel]: half the period at the crossing."""
        return 0.5 / self.crossing

    @property
    def resolution(self) -> float | None:
        """Resolution [m], half period; `None` where the pixel size is not known."""
        return None if self.pixel_size is None else self.half_period * self.pixel_size

    def as_quality(self) -> dict[str, Any]:
        """As written to `/entry/quality`."""
        named = {
            "frequency": self.frequency,
            "correlation": self.correlation,
            "half_bit": self.half_bit,
            "one_bit": self.one_bit,
            "crossing": self.crossing,
            "half_period_pixels": self.half_period,
        }
        return named if self.resolution is None else named | {"resolution_m": self.resolution}


def ring_correlation(
    first: ArrayLike,
    second: ArrayLike,
    *,
    pixel_size: float | None = None,
    realign: bool | None = None,
    taper: float = 0.25,
) -> RingCorrelation:
    """Fourier ring or shell correlation of two independent reconstructions of one object, real or complex.

    `C(r) = Re sum F1 F2* / sqrt(sum |F1|^2 sum |F2|^2)` over rings one frequency sample wide. Thresholds of van Heel &
    Schatz, J. Struct. Biol. 151, 250 (2005): half-bit `(0.2071 + 1.9102 / sqrt n) / (1.2071 + 0.9102 / sqrt n)`,
    one-bit `(0.5 + 2.4142 / sqrt n) / (1.5 + 1.4142 / sqrt n)`, n = the ring's own samples (2-D as in 3-D) times
    the window's effective share `(sum w^2)^2 / (N sum w^4)`.

    **Arguments:** images of one shape `(y, x)` or `(z, y, x)`; `pixel_size` [m]; `realign=True` removes shift
    (sub-pixel), constant phase and phase ramp first (done for complex images by default); `taper` = share of each
    side that the window lowers to zero by a cosine (0 = no window, only right for periodic images).

    **Raises:** `InputError` for different shapes or other dimensions.

    ```python
    frc = dr.quality.ring_correlation(half_a, half_b, pixel_size=20e-9)
    print(f"{frc.resolution * 1e9:.0f} nm")
    ```
    """
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape or a.ndim not in (2, 3):
        raise InputError(f"ring correlation needs two images or volumes of one shape, not {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("ring correlation of images with values that are not finite; cut them out first")
    if min(a.shape) < 8:
        raise InputError(f"ring correlation of {a.shape}: too small to have rings")
    shift = (0.0,) * a.ndim
    if realign or (realign is None and np.iscomplexobj(a)):
        b, shift = align(a, b)
    window = _window(a.shape, taper)
    spectra = [np.fft.fftn(window * (x - np.sum(window * x) / np.sum(window))) for x in (a, b)]
    ring, count = _rings(a.shape)
    sums = [
        np.bincount(ring.ravel(), v.ravel(), count + 1)[:count]
        for v in (
            (spectra[0] * spectra[1].conj()).real,
            np.abs(spectra[0]) ** 2,
            np.abs(spectra[1]) ** 2,
            np.ones(a.shape),
        )
    ]
    correlation = sums[0] / np.maximum(np.sqrt(sums[1] * sums[2]), np.finfo(float).tiny)
    share = (window**2).sum() ** 2 / (window.size * (window**4).sum())
    samples = np.maximum(sums[3] * share, 1.0)
    frequency = np.arange(count) / min(a.shape)
    half_bit = threshold(samples, 0.5)
    return RingCorrelation(
        frequency[1:],
        correlation[1:],
        half_bit[1:],
        threshold(samples, 1.0)[1:],
        samples[1:],
        _crossing(frequency[1:], correlation[1:] - half_bit[1:]),
        shift,
        pixel_size,
    )


def threshold(samples: ArrayLike, bits: float) -> Any:
    """Correlation at which a ring of so many samples carries `bits` of information (van Heel & Schatz 2005, eq. 17).

    `bits = 0.5` and `1` are the half-bit and the one-bit curve. With the signal-to-noise ratio `s = 2^bits - 1` of the
    mean of both images, halved for each: `(s/2 + (2 sqrt(s/2) + 1)/sqrt n) / (1 + s/2 + 2 sqrt(s/2)/sqrt n)`.
    """
    ratio = (2.0**bits - 1) / 2
    root = np.sqrt(np.asarray(samples, float))
    return (ratio + (2 * math.sqrt(ratio) + 1) / root) / (1 + ratio + 2 * math.sqrt(ratio) / root)


def _window(shape: tuple[int, ...], taper: float) -> np.ndarray:
    window = np.ones(())
    for length in shape:
        edge = np.minimum(np.arange(length) + 0.5, length - np.arange(length) - 0.5) / max(taper * length, 1e-9)
        window = window[..., None] * np.sin(0.5 * np.pi * np.clip(edge, 0, 1)) ** 2
    return window


def _rings(shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """Index of the ring of each Fourier sample, one sample of the shortest axis wide; `count` rings reach Nyquist."""
    square = np.zeros(())
    for length in shape:
        square = square[..., None] + np.fft.fftfreq(length) ** 2
    count = min(shape) // 2 + 1
    return np.minimum(np.rint(np.sqrt(square) * min(shape)).astype(int), count), count


def _crossing(frequency: np.ndarray, above: np.ndarray) -> float:
    """First frequency at which the curve falls below zero and stays there for two rings, interpolated."""
    below = above < 0
    stays = below & np.append(below[1:], True)
    # The first rings hold too few samples for their threshold to mean much.
    stays[:2] = False
    if not stays.any():
        return 0.5
    at = int(stays.argmax())
    before, after = above[at - 1], above[at]
    share = before / (before - after) if before > 0 else 0.0
    return float(frequency[at - 1] + share * (frequency[at] - frequency[at - 1]))


# ---------------------------------------------------------------------- registration
def align(reference: ArrayLike, image: ArrayLike, rounds: int = 3) -> tuple[np.ndarray, tuple[float, ...]]:
    """`image` laid over `reference`: sub-pixel shift and, for complex images, phase ramp and constant phase removed.

    **Returns:** the aligned image and the shift [pixel] by which it was moved.
    """
    a, b = np.asarray(reference), np.asarray(image)
    if not np.iscomplexobj(a) and not np.iscomplexobj(b):
        shift = register(a - a.mean(), b - b.mean())
        return shift_image(b, shift), tuple(float(s) for s in shift)
    # A ramp adds a constant to the phase gradients: with their mean removed they show the shift alone.
    total = register(_phase_gradients(a), _phase_gradients(b), channels=True)
    window = _window(a.shape, 0.25)
    moved = b
    for _ in range(rounds):
        moved = _without_ramp(a, shift_image(b, total), window)
        total = total + register(
            window * (a - np.sum(window * a) / window.sum()), window * (moved - np.sum(window * moved) / window.sum())
        )
    moved = _without_ramp(a, shift_image(b, total), window)
    return moved, tuple(float(s) for s in total)


def register(reference: np.ndarray, image: np.ndarray, upsampling: int = 100, channels: bool = False) -> np.ndarray:
    """Shift [pixel] that lays `image` over `reference`: peak of their cross-correlation to 1/`upsampling` of a pixel.

    By a matrix Fourier transform around the peak (Guizar-Sicairos, Thurman & Fienup, Opt. Lett. 33, 156 (2008)). With
    `channels` the first axis holds images whose correlations are added.
    """
    a, b = (np.asarray(x) if channels else np.asarray(x)[None] for x in (reference, image))
    axes = tuple(range(1, a.ndim))
    product = (np.fft.fftn(a, axes=axes) * np.fft.fftn(b, axes=axes).conj()).sum(0)
    shape = product.shape
    peak = np.array(np.unravel_index(np.abs(np.fft.ifftn(product)).argmax(), shape), float)
    peak = (peak + np.array(shape) // 2) % shape - np.array(shape) // 2
    for fineness in (10, upsampling):
        steps = np.arange(-15, 16) / fineness
        places = [p + steps for p in peak]
        local = product
        for length, place in zip(shape, places, strict=True):
            # Contracts the first axis and appends the fine one at the end, so that the order of the axes is kept.
            local = np.tensordot(local, np.exp(2j * np.pi * np.outer(np.fft.fftfreq(length), place)), (0, 0))
        at = np.unravel_index(np.abs(local).argmax(), local.shape)
        peak = np.array([place[i] for place, i in zip(places, at, strict=True)])
    return peak


def shift_image(image: np.ndarray, shift: ArrayLike) -> np.ndarray:
    """An image moved by `shift` [pixel] (band-limited, periodic)."""
    spectrum = np.fft.fftn(image)
    for axis, (length, step) in enumerate(zip(image.shape, np.asarray(shift, float), strict=True)):
        phase = np.exp(-2j * np.pi * np.fft.fftfreq(length) * step)
        spectrum = spectrum * phase.reshape([-1 if i == axis else 1 for i in range(image.ndim)])
    moved = np.fft.ifftn(spectrum)
    return moved if np.iscomplexobj(image) else moved.real


def _phase_gradients(image: np.ndarray) -> np.ndarray:
    gradients = []
    window = _window(image.shape, 0.25)
    for axis in range(image.ndim):
        step = image * np.roll(image, 1, axis).conj()
        weight = np.abs(step)
        angle = np.angle(step * np.exp(-1j * np.angle(step.sum())))
        gradients.append(window * np.sqrt(weight) * (angle - np.sum(weight * angle) / weight.sum()))
    return np.stack(gradients)


def _without_ramp(reference: np.ndarray, image: np.ndarray, window: np.ndarray) -> np.ndarray:
    """`image` times the plane phase wave that lays its phase over that of `reference`."""
    ratio = window * reference * image.conj()
    # Coarse: the wave is the brightest sample of the spectrum of the ratio; fine: the same by interpolation.
    shape = np.array(ratio.shape)
    spectrum = np.abs(np.fft.fftn(ratio))
    peak = np.array(np.unravel_index(spectrum.argmax(), ratio.shape), float)
    peak = (peak + shape // 2) % shape - shape // 2
    for fineness in (5, 50, 500):
        places = [p + np.arange(-5, 6) / fineness for p in peak]
        local = ratio
        for length, place in zip(ratio.shape, places, strict=True):
            local = np.tensordot(local, np.exp(-2j * np.pi * np.outer(np.arange(length), place) / length), (0, 0))
        at = np.unravel_index(np.abs(local).argmax(), local.shape)
        peak = np.array([place[i] for place, i in zip(places, at, strict=True)])
    wave = np.ones((), complex)
    for length, frequency in zip(ratio.shape, peak, strict=True):
        wave = wave[..., None] * np.exp(2j * np.pi * frequency * np.arange(length) / length)
    constant = np.sum(ratio * wave.conj())
    return image * wave * (constant / max(abs(constant), np.finfo(float).tiny))


# ---------------------------------------------------------------------- edges
@dataclasses.dataclass(frozen=True)
class EdgeFit:
    """An error function fitted to an edge: `width` = 10-90 % distance ([m] with a pixel size, else [pixel]), `centre`
    [pixel], the two levels, and the rms `residual` relative to the step."""

    width: float
    centre: float
    low: float
    high: float
    residual: float


def edge_width(profile: ArrayLike, pixel_size: float | None = None) -> EdgeFit:
    """Sharpness of an edge: least-squares fit of `low + (high - low) (1 + erf((x - centre) / (sqrt 2 sigma))) / 2`.

    The 10-90 % width is 2.563 sigma.

    **Arguments:** `profile` across one edge, at least 6 pixels; `pixel_size` [m].

    **Raises:** `InputError` when there are too few pixels or no edge.

    ```python
    assert edge_width([0, 0, 0, 0, 1, 1, 1, 1]).width < 1
    ```
    """
    values = np.asarray(profile, float)
    if values.ndim != 1 or values.size < 6 or not np.isfinite(values).all():
        raise InputError(f"an edge profile needs at least six finite numbers in a row, not shape {values.shape}")
    ends = max(values.size // 5, 1)
    low, high = values[:ends].mean(), values[-ends:].mean()
    if abs(high - low) <= 1e-12 * max(abs(high), abs(low), 1e-300):
        raise InputError("the profile has no edge: both ends are equal")
    relative = (values - low) / (high - low)
    centre = float(np.interp(0.5, np.maximum.accumulate(relative), np.arange(values.size)))
    parameters = _fit_edge(values, np.array([low, high, centre, 1.0]))
    low, high, centre, sigma = parameters
    error = values - _edge(parameters, np.arange(values.size))[0]
    width = 2 * 1.2815515655446004 * abs(sigma) * (1.0 if pixel_size is None else pixel_size)
    return EdgeFit(width, float(centre), float(low), float(high), float(np.sqrt(np.mean(error**2)) / abs(high - low)))


def _edge(parameters: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The model and its derivatives by (low, high, centre, sigma)."""
    low, high, centre, sigma = parameters
    scaled = (x - centre) / sigma
    step = 0.5 * (1 + np.array([math.erf(s / math.sqrt(2)) for s in scaled]))
    slope = (high - low) * np.exp(-0.5 * scaled**2) / math.sqrt(2 * math.pi) / sigma
    return low + (high - low) * step, np.stack([1 - step, step, -slope, -slope * scaled], -1)


def _fit_edge(values: np.ndarray, parameters: np.ndarray, rounds: int = 100) -> np.ndarray:
    """Levenberg-Marquardt; sigma is kept above a twentieth of a pixel, below which samples say nothing."""
    x = np.arange(values.size)
    damping = 1e-3
    model, jacobian = _edge(parameters, x)
    for _ in range(rounds):
        normal = jacobian.T @ jacobian
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), jacobian.T @ (values - model))
        trial = parameters + step
        trial[3] = np.clip(abs(trial[3]), 0.05, values.size)
        new_model, new_jacobian = _edge(trial, x)
        if np.sum((values - new_model) ** 2) <= np.sum((values - model) ** 2):
            done = np.abs(trial - parameters).max() < 1e-10 * max(1.0, np.abs(parameters).max())
            parameters, model, jacobian, damping = trial, new_model, new_jacobian, damping / 3
            if done:
                break
        else:
            damping *= 4
    return parameters


# ---------------------------------------------------------------------- residuals
def held_out_residual(counts: ArrayLike, prediction: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Amplitude residual `R = sum |sqrt I - sqrt p| / sum sqrt I` of predicted against measured counts.

    Meant for views that the solver never saw. **Arguments:** `counts`, `prediction` `(view, y, x)`; `mask` `(y, x)`,
    True = measured.
    """
    measured, expected = _kept(counts, prediction, mask)
    amplitude = np.sqrt(np.maximum(measured, 0))
    return float(
        np.abs(amplitude - np.sqrt(np.maximum(expected, 0))).sum() / max(amplitude.sum(), np.finfo(float).tiny)
    )


def deviance(counts: ArrayLike, prediction: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Poisson deviance a pixel, `mean 2 (p - I + I ln(I / p))`: about 1 where only the noise of many counts is left."""
    measured, expected = _kept(counts, prediction, mask)
    expected = np.maximum(expected, 1e-12)
    logarithm = np.where(measured > 0, measured * np.log(np.maximum(measured, 1e-300) / expected), 0.0)
    return float(2 * np.mean(expected - measured + logarithm))


def noise_floor(
    prediction: ArrayLike, mask: ArrayLike | None = None, metric: Any = held_out_residual, seed: int = 0
) -> float:
    """The same figure when only photon noise is left: `metric` of Poisson draws from the prediction against it."""
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
