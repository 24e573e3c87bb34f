"""One image laid over another: shift to a fraction of a pixel, phase ramp, constant phase."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

# Of the range of the phase about a pixel. Within one bar are 0.65 to 0.74 of the errors of seven scans (150 to 5000
# counts, motors off by 0 to 1 pixel; `benchmarks/coverage.py`), where 0.29 to 0.61 were without it.
_EDGE = 0.08


def align(reference: ArrayLike, image: ArrayLike, rounds: int = 3) -> tuple[np.ndarray, tuple[float, ...]]:
    """Lay `image` over `reference`: sub-pixel shift and, for complex images, phase ramp and constant phase removed.

    **Returns:** the aligned image and the shift [pixel] by which it was moved.
    """
    a, b = np.asarray(reference), np.asarray(image)
    if not np.iscomplexobj(a) and not np.iscomplexobj(b):
        shift = register(a - a.mean(), b - b.mean())
        return shift_image(b, shift), tuple(float(s) for s in shift)
    # A ramp adds a constant to the phase gradients: with their mean removed they show the shift alone.
    total = register(_phase_gradients(a), _phase_gradients(b), channels=True)
    window = cosine_window(a.shape, 0.25)
    moved = b
    for _ in range(rounds):
        moved = _without_ramp(a, shift_image(b, total), window)
        total = total + register(
            window * (a - np.sum(window * a) / window.sum()), window * (moved - np.sum(window * moved) / window.sum())
        )
    moved = _without_ramp(a, shift_image(b, total), window)
    return moved, tuple(float(s) for s in total)


def scale_error(
    wave: Complex[np.ndarray, "*slice Y X"],
    places: Float[np.ndarray, "view 2"],
    nominal: Float[np.ndarray, "view 2"],
    middle: tuple[float, float],
) -> Float[np.ndarray, "*slice Y X"]:
    """Estimate how far the phase [rad] of each pixel of a scanned object may be off as scale and shear of the scan are.

    Curvature that goes from the object into the probe stretches the scan, and frames hardly tell: places that were
    refined (view, (row, column)) [pixel] differ from the motors' by a stretch of which either may be the right one. A
    detail lies elsewhere by that stretch times its distance from the middle (row, column) of the scanned area, and the
    phase is off by this distance times the length of its gradient. A rotation moves frames and is not counted.

    ```python
    ramp = np.exp(0.1j * np.arange(9.0)) * np.ones((9, 1))
    motors = np.array([[0.0, 0.0], [0.0, 8.0], [8.0, 0.0], [8.0, 8.0]])
    assert abs(scale_error(ramp, 1.01 * motors, motors, (4.0, 4.0))[4, 8] - 0.1 * 0.01 * 4) < 1e-6
    ```
    """
    offsets = nominal - nominal.mean(0)
    moved = places - nominal
    affine = np.linalg.lstsq(offsets, moved - moved.mean(0), rcond=None)[0]
    stretch = (affine + affine.T) / 2
    rows, columns = (np.arange(n) - m for n, m in zip(wave.shape[-2:], middle, strict=True))
    shift = [stretch[0, i] * rows[:, None] + stretch[1, i] * columns for i in (0, 1)]
    return np.hypot(*shift) * np.hypot(_slope(wave, -2), _slope(wave, -1))


def edge_error(wave: Complex[np.ndarray, "*slice Y X"], missed: float) -> Float[np.ndarray, "*slice Y X"]:
    """Estimate how far the phase [rad] of each pixel of a scanned object may be off where it changes within pixels.

    What a model of pixels and places misses (edges finer than a pixel, places that are a little off, drift within an
    exposure) it misses there. `missed` is the deviance of views that were never fitted over that of photon noise: what
    is above one grows as the square of the error. The error of a pixel is taken as 0.08 of the range of the phase
    within the pixels around it, times the root of that excess; the number is from simulated scans of hard edges.

    ```python
    step = np.exp(1j * np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])) * np.ones((3, 1))
    assert np.allclose(edge_error(step, 2.0)[1], [0, 0, 0.08, 0.08, 0, 0]) and not edge_error(step, 0.9).any()
    ```
    """
    wave = np.asarray(wave)
    rim = [(0, 0)] * (wave.ndim - 2) + [(1, 1)] * 2
    padded, (rows, columns) = np.pad(wave, rim, mode="edge"), wave.shape[-2:]
    low, high = np.zeros(wave.shape), np.zeros(wave.shape)
    for y, x in np.ndindex(3, 3):
        step = np.angle(padded[..., y : y + rows, x : x + columns] * wave.conj())  # of phases that may be wrapped
        low, high = np.minimum(low, step), np.maximum(high, step)
    return _EDGE * np.sqrt(max(missed - 1, 0.0)) * (high - low)


def _slope(wave: np.ndarray, axis: int) -> np.ndarray:
    """Take the gradient of a phase that may be wrapped [rad/pixel]: the mean of the steps on either side."""
    a = np.moveaxis(np.asarray(wave), axis, -1)
    step = np.angle(a[..., 1:] * a[..., :-1].conj())
    before, after = (np.concatenate(parts, -1) for parts in ((step[..., :1], step), (step, step[..., -1:])))
    return np.moveaxis((before + after) / 2, -1, axis)


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


def shift_image(image: np.ndarray, shift: Sequence[float] | np.ndarray) -> np.ndarray:
    """Move an image by `shift` [pixel] (band-limited, periodic)."""
    spectrum = np.fft.fftn(image)
    for axis, (length, step) in enumerate(zip(image.shape, np.asarray(shift, float), strict=True)):
        phase = np.exp(-2j * np.pi * np.fft.fftfreq(length) * step)
        spectrum = spectrum * phase.reshape([-1 if i == axis else 1 for i in range(image.ndim)])
    moved = np.fft.ifftn(spectrum)
    return moved if np.iscomplexobj(image) else moved.real


def _phase_gradients(image: np.ndarray) -> np.ndarray:
    gradients = []
    window = cosine_window(image.shape, 0.25)
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


def cosine_window(shape: tuple[int, ...], taper: float) -> np.ndarray:
    """Make a window that falls to zero by a cosine over a share `taper` of each side."""
    window = np.ones(())
    for length in shape:
        edge = np.minimum(np.arange(length) + 0.5, length - np.arange(length) - 0.5) / max(taper * length, 1e-9)
        window = window[..., None] * np.sin(0.5 * np.pi * np.clip(edge, 0, 1)) ** 2
    return window
