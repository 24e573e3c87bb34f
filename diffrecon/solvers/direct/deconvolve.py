"""Deconvolution with a known transfer function: Wiener's filter with the object's power learnt from the image."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...errors import InputError
from ...priors.power_law import PowerLaw, fit_power_law

__all__ = ["deconvolve"]


def deconvolve(
    image: Float[Array, "y x"] | np.ndarray, transfer: Any, *, noise: float
) -> tuple[Float[Array, "y x"], Float[np.ndarray, " ring"]]:
    """The map x of `image = F^-1[transfer F(x)] + white noise` of least expected square error.

    Where the transfer is strong it is divided out, where it is weak the object's power decides: a power law through the
    rings in which the image's power, less the noise, is above twice the noise (at least three of them).

    **Arguments:** `image`, a contrast about zero, `(y, x)`; `transfer` of the same shape, FFT order, such as one of
    `ZonePlateMicroscope.transfer`; `noise` = standard deviation of a pixel, `1 / sqrt(counts)` for a contrast.

    **Returns:** the map, and the share of each ring that came from the data and not from the prior, from zero to
    Nyquist. Borders are periodic: taper the image where they differ. **Cost:** two FFTs.

    **Raises:** `InputError` for shapes that differ, or noise that is not positive.

    ```python
    found, known = deconvolve(jnp.zeros((32, 32)), jnp.ones((32, 32)), noise=0.1)
    ```
    """
    values, kernel = np.asarray(image, float), np.asarray(transfer)
    if values.shape != kernel.shape or not noise > 0:
        raise InputError(
            f"deconvolve: an image of {values.shape} and a transfer function of {kernel.shape}; noise "
            f"{noise} must be positive"
        )
    spectrum = np.fft.fft2(values, norm="ortho")
    strength, variance = np.abs(kernel) ** 2, noise**2
    f = np.hypot(np.fft.fftfreq(values.shape[0])[:, None], np.fft.fftfreq(values.shape[1]))
    f = np.maximum(f, 1 / max(values.shape))
    prior = _power_law(f, np.abs(spectrum) ** 2, strength, variance)
    share = strength / (strength + variance / prior)
    found = np.fft.ifft2(np.conj(kernel) * spectrum / (strength + variance / prior), norm="ortho").real
    ring = np.minimum((f * min(values.shape)).astype(int), min(values.shape) // 2).ravel()
    known = np.bincount(ring, share.ravel()) / np.maximum(np.bincount(ring), 1)
    return jnp.asarray(found, jnp.result_type(jnp.asarray(image), jnp.float32)), known


def _power_law(f: np.ndarray, power: np.ndarray, strength: np.ndarray, variance: float) -> np.ndarray:
    edges = np.geomspace(f.min() * 0.999, 0.7072, 25)
    ring = np.digitize(f, edges).ravel()
    count = np.bincount(ring, minlength=26)
    mean = lambda a: np.bincount(ring, a.ravel(), 26) / np.maximum(count, 1)
    # Unbiased, and each frequency weighted by what it tells.
    signal = mean(power - variance) / np.maximum(mean(strength), 1e-12)
    good = (count > 0) & (mean(power) > 3 * variance) & (mean(strength) > 1e-6)
    if good.sum() < 3:
        return np.full(f.shape, max(float((power - variance).mean() / max(strength.mean(), 1e-12)), 1e-6 * variance))
    return PowerLaw(*fit_power_law(mean(f), signal, np.minimum(count, 50) * good, np))(f)
