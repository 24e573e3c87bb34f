"""The ramp of an image that no measurement tells: what a power law expects of it beside all that is seen.

Where frames at several distances have moved by unknown shifts, a ramp `g x` of the phase is no more than further
shifts: a wave `exp(i g x)` times another travels sideways by `wavelength distance g / 2 pi` and is the same otherwise
(the shift theorem of Fresnel propagation). The Fisher information along it is zero, exactly; what is left is what is
known of the image beforehand, given the rest of the image.
"""

import numpy as np
from jaxtyping import Float

from .power_law import PowerLaw

__all__ = ["unseen_ramp"]

_SAMPLES = 16  # along an edge of what is seen: a ramp is smooth
_DOMAIN = 4  # times what is seen, over which the law reaches: at twice that the ramp is larger by a tenth


def unseen_ramp(law: PowerLaw, field: tuple[int, int], seen: tuple[float, float]) -> Float[np.ndarray, "2"]:
    """Compute the standard deviation that a power law leaves of a ramp, all else that is seen being known exactly.

    That is a bound from below of the error of a ramp, for images of that law: a Gaussian field, conditioned on all of
    itself over what is seen but mean and ramp.

    **Arguments:** `law` of the image [image^2]; `field` (rows, columns) [pixels], over which the ramp is meant; `seen`
    (rows, columns) [pixels], at least the field.

    **Returns:** root mean square over the field of the ramps along rows and columns, in units of the image.

    **Cost:** a tenth of a second, whatever the size. **Source:** conditional Gaussians, Rasmussen & Williams, Gaussian
    Processes for Machine Learning (2006), eq. A.6.

    ```python
    ramps = unseen_ramp(PowerLaw(1e-4, -3.0), field=(64, 64), seen=(96, 96))
    assert np.allclose(unseen_ramp(PowerLaw(4e-4, -3.0), (64, 64), (96, 96)), 2 * ramps)
    ```
    """
    step, size = np.asarray(seen, float) / _SAMPLES, _SAMPLES * _DOMAIN
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(size, s) for s in step), indexing="ij"))
    power = np.where(frequency > 0, law(np.maximum(frequency, 1e-12)), 0.0)
    lags = np.fft.ifft2(power).real / step.prod()
    index = np.arange(_SAMPLES)
    lag = (index[:, None] - index) % size
    covariance = lags[lag[:, None, :, None], lag[None, :, None, :]].reshape(2 * (_SAMPLES**2,))
    places = (index - (_SAMPLES - 1) / 2) * step[:, None]
    y, x = (part.ravel() for part in np.meshgrid(*places, indexing="ij"))
    inside = (np.abs(y) <= field[0] / 2) & (np.abs(x) <= field[1] / 2)
    ramps = np.stack([inside * place / (inside * place**2).sum() for place in (y, x)])
    ramps *= np.asarray(field, float)[:, None] / np.sqrt(12)
    told = np.linalg.qr(np.stack([np.ones_like(y), y, x], 1), mode="complete")[0][:, 3:]
    known = told.T @ covariance @ told
    known += 1e-9 * np.trace(known) / len(known) * np.eye(len(known))
    mixed = ramps @ covariance @ told
    left = ramps @ covariance @ ramps.T - mixed @ np.linalg.solve(known, mixed.T)
    return np.sqrt(np.maximum(np.diag(left), 0))
