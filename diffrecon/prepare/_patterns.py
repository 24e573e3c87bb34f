"""Reference patterns of speckle imaging, free of what is noise in them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..errors import InputError
from ..operators.fourier import gaussian

__all__ = ["Patterns", "mean_around", "split_patterns"]

_RINGS = 24  # of frequencies, by which the spectrum is told from its noise


class Patterns(NamedTuple):
    """References taken apart into beam, pattern and noise.

    **Fields:** `smooth` `(view, y, x)`, the beam; `structure` `(view, y, x)`, what remains, filtered to what the noise
    leaves of it (Wiener); `contrast`, its standard deviation over the mean; `gain`, variance of a value over the value
    (1 for photons); `share` of that variance that is left in the structure; `grain`, the size of the speckles [pixel];
    `rings` `(2, ring)`, frequencies [1/pixel] and the share of the pattern's power about each.
    """

    smooth: Float[np.ndarray, "view y x"]
    structure: Float[np.ndarray, "view y x"]
    contrast: float
    gain: float
    share: float
    grain: float
    rings: Float[np.ndarray, "2 ring"]


def split_patterns(reference: Float[np.ndarray, "view y x"], smooth: float = 6.0) -> Patterns:
    """Take reference frames apart: the beam, its pattern, and noise, whose level the highest frequencies tell.

    The regression of a sample's frames on the filtered pattern is unbiased although the references are noisy (an error
    of Berkson's kind), and averages of exposures, which are no photon counts, find their gain here.

    **Arguments:** `smooth`, standard deviation of what is beam and not pattern [pixel].

    **Raises:** `InputError` for frames too small to tell.

    ```python
    counts = np.random.default_rng(0).poisson(1000.0, (2, 64, 64)).astype(np.float32)
    found = split_patterns(counts)
    assert found.contrast < 0.01 and abs(found.gain - 1) < 0.2
    ```
    """
    if reference.ndim != 3 or min(reference.shape[1:]) < 32:
        raise InputError(f"references of shape {reference.shape}: 32 x 32 pixels at least are needed to tell a pattern")
    beam = _filtered(reference, lambda f: gaussian(f, smooth))
    spectrum, frequency = _spectrum(reference / beam - 1)
    ring = lambda f: np.minimum((f / 0.7072 * _RINGS).astype(int), _RINGS - 1)
    members = np.bincount(ring(frequency).ravel(), minlength=_RINGS)
    power = np.bincount(ring(frequency).ravel(), spectrum.ravel(), _RINGS) / members
    noise = float((power * members)[-4:].sum() / members[-4:].sum())
    kept = np.clip(1 - noise / np.maximum(power, 1e-30), 0, 1)
    middles = (np.arange(_RINGS) + 0.5) / _RINGS * 0.7072
    structure = _filtered(reference - beam, lambda f: np.interp(f, middles, kept))
    signal = np.clip(power - noise, 0, None) * members
    contrast = float(np.sqrt(signal.sum() / members.sum()))
    slope = float(np.sqrt((signal * (2 * np.pi * middles) ** 2).sum() / max(signal.sum(), 1e-30)))
    share = float((kept * members).sum() / members.sum())
    return Patterns(
        beam.astype(np.float32), structure.astype(np.float32), contrast, noise * float(reference.mean()), share,
        2.0 / max(slope, 1e-6), np.stack([middles, signal * kept / max((signal * kept).sum(), 1e-30)]),
    )  # fmt: skip


def mean_around(frames: Float[np.ndarray, "*frame y x"], width: float) -> Float[np.ndarray, "*frame y x"]:
    """Mean with a Gaussian weight of standard deviation `width` [pixel], over a mirrored border; in NumPy.

    ```python
    assert np.allclose(mean_around(np.ones((9, 9)), 2.0), 1.0)
    ```
    """
    return _filtered(frames, lambda f: gaussian(f, width))


def _spectrum(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean power of all frames, such that white noise of variance v has the power v; frequencies [cycles/pixel]."""
    window = np.hanning(frames.shape[1])[:, None] * np.hanning(frames.shape[2])[None]
    power = sum(np.abs(np.fft.fft2(frame * window)) ** 2 for frame in frames) / len(frames) / (window**2).sum()
    fy, fx = (np.fft.fftfreq(n) for n in frames.shape[1:])
    return power, np.hypot(fy[:, None], fx[None])


def _filtered(frames: np.ndarray, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Filter over a mirrored border by a function of the frequency."""
    border = min(24, *(n - 1 for n in frames.shape[-2:]))
    padded = np.pad(frames, [(0, 0)] * (frames.ndim - 2) + [(border, border)] * 2, mode="reflect")
    fy, fx = np.fft.fftfreq(padded.shape[-2]), np.fft.rfftfreq(padded.shape[-1])
    response = gain(np.hypot(fy[:, None], fx[None]))
    inside = slice(border, -border)
    return np.fft.irfft2(np.fft.rfft2(padded) * response, s=padded.shape[-2:])[..., inside, inside]
