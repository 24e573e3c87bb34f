"""Fringes that the detector resolves as carriers: where they are in the spectrum, and what a sample does to them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..errors import InputError
from ._patterns import mean_around

__all__ = ["Carriers", "demodulate", "find_carriers"]

_LOWEST = 4  # fringes across the frame, at least
_BEAM = 2.5  # waves across the frame, below which the beam itself is uneven
_CLEAR = 30.0  # times the median power that a carrier's peak is, at least
_SHARP = 20.0  # times the power about it; the highest peak of a random pattern is ten times that
_SECOND = 0.03  # of the power of the strongest carrier that a second one has, at least
_APART = np.sin(np.deg2rad(30))  # between two carriers
_ALONE = 0.6  # of the power of a periodic pattern, without its noise, is in the peaks of its carriers, at least
_NOISE = 0.4  # cycles a pixel, above which there is little else
_WINDOW = 0.64  # periods of a carrier, standard deviation: what is left of the other carriers is 3e-4


class Carriers(NamedTuple):
    """Wave vectors of fringes.

    **Fields:** `waves` `(carrier, 2)` (row, column) [cycles/pixel], the strongest first, one or two, each with its
    larger part positive; `share` of the pattern's power that is in their peaks.
    """

    waves: Float[np.ndarray, "carrier 2"]
    share: float

    @property
    def periods(self) -> Float[np.ndarray, " carrier"]:
        """Periods [pixel]."""
        return 1 / np.hypot(*self.waves.T)


def find_carriers(frames: Float[np.ndarray, "view y x"]) -> Carriers:
    """Find the fringes of one or two directions in frames of a grating, from the peaks of their spectrum.

    **Returns:** no carriers where nothing is periodic.

    **Raises:** `InputError` for frames smaller than 32 pixels.

    ```python
    y, x = np.mgrid[:64, :64]
    found = find_carriers(1 + 0.3 * np.cos(2 * np.pi * (x + 0.1 * y) / 5.3)[None])
    assert len(found.waves) == 1 and np.allclose(found.waves[0], [0.1 / 5.3, 1 / 5.3], atol=1e-3)
    ```
    """
    if frames.ndim != 3 or min(frames.shape[1:]) < 32:
        raise InputError(f"frames of shape {frames.shape}: 32 x 32 pixels at least are needed to tell fringes")
    shape = frames.shape[1:]
    window = np.hanning(shape[0])[:, None] * np.hanning(shape[1])[None]
    level = frames.mean((1, 2), keepdims=True)
    power = (np.abs(np.fft.fft2((frames / level - 1) * window)) ** 2).sum(0)
    fy, fx = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")
    fringes = np.hypot(fy, fx) >= _LOWEST / min(shape)
    floor, found = float(np.median(power[fringes])), []
    noise = float(np.median(power[np.hypot(fy, fx) > _NOISE])) / np.log(2)  # whose power is exponential
    pattern = np.hypot(fy, fx) >= _BEAM / min(shape)
    total = max(float(power[pattern].sum()) - noise * pattern.sum(), 1e-30)
    half, inside = fringes & ((fx > 0) | ((fx == 0) & (fy > 0))), 0.0
    for _ in range(2):
        free = half if not found else half & _across(fy, fx, found[0][0])
        at = np.unravel_index(np.argmax(np.where(free, power, 0)), shape)
        strong = found[0][1] * _SECOND if found else 0.0
        near = np.roll(power, (5 - at[0], 5 - at[1]), (0, 1))[:11, :11]
        around = float(np.median(np.concatenate([near[:2].ravel(), near[-2:].ravel(), *near[:, [0, 1, -2, -1]]])))
        if not power[at] > max(_CLEAR * floor, _SHARP * around, strong, 1e-12):
            break
        found.append((_refined(power, at), float(power[at])))
        inside += 2 * float(near[3:-3, 3:-3].sum())
    share = inside / total
    if not found or share < _ALONE:
        return Carriers(np.zeros((0, 2)), share)
    return Carriers(np.array([wave * np.sign(wave[np.argmax(np.abs(wave))]) for wave, _ in found]), share)


def demodulate(
    frames: Float[np.ndarray, "view y x"], waves: Float[np.ndarray, "carrier 2"]
) -> tuple[np.ndarray, Float[np.ndarray, "view y x"]]:
    """Take frames apart into the complex amplitudes of their carriers and the light without them.

    A frame is `light (1 + sum_j Re a_j exp(2 pi i wave_j . place))`; a pattern that is moved by D has
    `a_j exp(-2 pi i wave_j . D)` (Fourier analysis of fringes: M. Takeda et al., J. Opt. Soc. Am. 72, 156 (1982); of
    two directions: H. Wen et al., Opt. Lett. 35, 1932 (2010)).

    **Returns:** the amplitudes `(carrier, view, y, x)`, and the light; resolved to about one period.

    ```python
    y, x = np.mgrid[:64, :64]
    (a,), light = demodulate(1 + 0.3 * np.cos(2 * np.pi * (x - 0.5) / 5)[None], np.array([[0.0, 0.2]]))
    assert np.allclose(np.angle(a[0, 8:-8, 8:-8]), -0.2 * np.pi, atol=1e-2) and np.allclose(light, 1, atol=0.05)
    ```
    """
    y, x = np.indices(frames.shape[1:])
    width = _WINDOW * float((1 / np.hypot(*waves.T)).max())
    light = np.maximum(mean_around(frames, width), 1e-12)
    pattern = frames / light - 1
    parts = [pattern * np.exp(-2j * np.pi * (down * y + right * x)) for down, right in waves]
    return np.stack([2 * (mean_around(p.real, width) + 1j * mean_around(p.imag, width)) for p in parts]), light


def _across(fy: np.ndarray, fx: np.ndarray, wave: np.ndarray) -> np.ndarray:
    """Frequencies of another direction than that of a wave."""
    length = np.hypot(fy, fx) * np.hypot(*wave)
    return np.abs(fy * wave[1] - fx * wave[0]) > _APART * np.maximum(length, 1e-12)


def _refined(power: np.ndarray, at: tuple) -> np.ndarray:
    """Frequency of a peak, by a parabola through the logarithms along each axis."""
    found = []
    for axis, n in enumerate(power.shape):
        line = np.log(np.roll(np.take(power, at[1 - axis], 1 - axis), 1 - at[axis])[:3] + 1e-30)
        bend = line[0] - 2 * line[1] + line[2]
        found.append(np.fft.fftfreq(n)[at[axis]] + (0.5 * (line[0] - line[2]) / bend if bend < 0 else 0.0) / n)
    return np.array(found)
