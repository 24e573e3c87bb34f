"""Direct phase retrieval from in-line holograms: Paganin's filter and the contrast transfer function (CTF).

Images are intensities divided by the empty beam, about 1, all on one pixel. Phase is negative in matter,
`phase = -(2 pi/lambda) int delta dz` [rad], and `attenuation = (2 pi/lambda) int beta dz`, so that the transmission is
`exp(-attenuation + i phase)`. Filters are built in float64 and cast.

What lies outside the image decides the low frequencies. `outside="mirror"` continues it by reflection (nothing is
assumed, and no edge is made); `outside="vacuum"` continues it by 1, which is right, and better, where the sample is
isolated. Repeating the border pixels is not offered: at high delta/beta it is wrong by several hundred per cent.
"""

from collections.abc import Sequence
from functools import partial
from math import erf
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InputError

__all__ = ["ctf", "ctf_response", "paganin"]


def paganin(
    images: Float[Array, "... y x"] | np.ndarray,
    *,
    pixel_size: float,
    wavelength: float,
    distance: float,
    delta_beta: float,
    outside: str = "mirror",
    generalised: bool = False,
) -> Float[Array, "... y x"]:
    """Phase of an object of one material from one hologram (Paganin et al., J. Microsc. 206, 33 (2002), eq. 10).

    `phase = (delta_beta / 2) ln F^-1[ F(I) / (1 + pi wavelength distance delta_beta f^2) ]`: exact for small phase
    gradients (transport of intensity), strong attenuation allowed. The thickness is `-phase wavelength / (2 pi delta)`.

    **Arguments:** `images` divided by the empty beam; `pixel_size`, `wavelength`, `distance` [m] (effective ones in a
    cone beam); `delta_beta` = delta/beta of the material; `outside`: see the module; `generalised=True` replaces `f^2`
    by the symbol of the discrete Laplacian (Paganin et al., J. Opt. 22, 115607 (2020), eq. 14), which is sharper near
    Nyquist.

    **Returns:** phase [rad]. **Cost:** two FFTs of twice the image's size along each axis.

    **Raises:** `InputError` for a `delta_beta` that is not positive and finite.

    ```python
    phase = paganin(jnp.ones((64, 64)), pixel_size=1e-6, wavelength=1e-10, distance=0.1, delta_beta=500.0)
    assert jnp.allclose(phase, 0.0, atol=1e-3)
    ```
    """
    if not 0 < delta_beta < np.inf:
        raise InputError(f"paganin needs a positive, finite delta/beta, not {delta_beta}; ctf does pure phase objects")
    images = _real(images)
    shape = _padded_shape(images.shape[-2:])
    fy, fx = (np.fft.fftfreq(n) for n in shape)
    if generalised:
        square = (2 - np.cos(2 * np.pi * fy)[:, None] - np.cos(2 * np.pi * fx)[None]) / (2 * np.pi**2)
    else:
        square = fy[:, None] ** 2 + fx[None] ** 2
    number = pixel_size**2 / (wavelength * distance)
    low_pass = 1 / (1 + np.pi * delta_beta / number * square[:, : shape[1] // 2 + 1])
    # The filter keeps the mean, so that filtering I - 1 is the same and loses no digits.
    contact = 1 + _filtered(images - 1, jnp.asarray(low_pass, images.dtype), _is_mirror(outside))
    return 0.5 * delta_beta * jnp.log(jnp.maximum(contact, jnp.finfo(images.dtype).tiny))


def ctf(
    images: Float[Array, "... distance y x"] | np.ndarray,
    *,
    pixel_size: float,
    wavelength: float,
    distances: Sequence[float] | np.ndarray,
    delta_beta: float | None = None,
    regularisation: tuple[float, float] = (1e-4, 1e-1),
    outside: str = "mirror",
) -> tuple[Float[Array, "... y x"], Float[Array, "... y x"]]:
    """Phase and attenuation from holograms at several distances, by least squares on the contrast transfer functions.

    The linear model is `F(I_j - 1) = 2 sin(chi_j) phase - 2 cos(chi_j) attenuation`, `chi_j = pi wavelength distance_j
    f^2` (Cloetens et al., Appl. Phys. Lett. 75, 2912 (1999)): right for weak attenuation and slowly varying phase.
    With `delta_beta`, `attenuation = -phase / delta_beta` leaves one unknown (Turner et al., Opt. Express 12, 2960
    (2004)); `inf` is a pure phase object. Without it both maps are solved for, which needs at least two distances and
    leaves the phase noisy at low frequencies.

    **Arguments:** `images` divided by the empty beam, all on one pixel; `pixel_size`, `wavelength`, `distances` [m];
    `regularisation` = the numbers `(low, high)` added to `sum_j (2 sin chi_j + ...)^2` below and above the first
    maximum of phase contrast (two levels joined by an error function: Yu et al., Opt. Express 26, 11110 (2018), eq.
    8): about noise variance over power of the object there; `outside`: see the module.

    **Returns:** `(phase [rad], attenuation)`. **Cost:** one FFT an image and one or two back, of twice the size along
    each axis.

    **Raises:** `InputError` when the number of images is not that of the distances, or one distance is to give two
    maps.

    ```python
    images = jnp.ones((2, 64, 64))
    phase, attenuation = ctf(images, pixel_size=5e-8, wavelength=7e-11, distances=(0.02, 0.03), delta_beta=500.0)
    assert jnp.allclose(phase, 0.0, atol=1e-5)
    ```
    """
    images, count = _real(images), len(distances)
    if images.ndim < 3 or images.shape[-3] != count:
        raise InputError(f"ctf: images of shape {images.shape} for {count} distances; expected (distance, y, x)")
    if delta_beta is None and count < 2:
        raise InputError("ctf: one distance cannot give phase and attenuation; give delta_beta (inf for a pure phase "
                         "object)")
    shape = _padded_shape(images.shape[-2:])
    numbers = [pixel_size**2 / (wavelength * d) for d in distances]
    sine, cosine = ctf_response(shape, numbers)
    floor = _two_levels(shape, float(np.mean(numbers)), regularisation)
    if delta_beta is None:
        filters = _two_unknowns(sine, cosine, floor)
    else:
        response = sine + cosine / delta_beta
        filters = (response / (np.sum(response**2, 0) + floor))[None]
    kernels = jnp.asarray(filters, images.dtype)
    maps = _summed(images - 1, kernels, _is_mirror(outside))
    if delta_beta is None:
        return maps[..., 0, :, :], maps[..., 1, :, :]
    phase = maps[..., 0, :, :]
    return phase, -phase / delta_beta


def ctf_response(shape: tuple[int, int], fresnel_numbers: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """`2 sin(chi_j)` and `2 cos(chi_j)` on the half plane of `rfft2`, float64 `(distance, y, x//2 + 1)`.

    Contrast of a weak phase is `+ 2 sin(chi) phase`, of weak attenuation `- 2 cos(chi) attenuation`.
    """
    fy, fx = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    square = fy[:, None] ** 2 + fx[None] ** 2
    chi = np.stack([np.pi / f * square for f in fresnel_numbers])
    return 2 * np.sin(chi), 2 * np.cos(chi)


def _two_levels(shape: tuple[int, int], fresnel_number: float, levels: tuple[float, float]) -> np.ndarray:
    low, high = levels
    fy, fx = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    f = np.sqrt(fy[:, None] ** 2 + fx[None] ** 2)
    first_maximum = np.sqrt(fresnel_number / 2)
    share = 0.5 - 0.5 * np.vectorize(erf)((f / first_maximum - 1) * 4)
    return low * share + high * (1 - share)


def _two_unknowns(sine: np.ndarray, cosine: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Regularised 2 x 2 normal equations of every frequency, solved for phase and attenuation."""
    a, b, c = np.sum(sine * cosine, 0), np.sum(sine**2, 0) + floor, np.sum(cosine**2, 0) + floor
    determinant = b * c - a**2
    return np.stack([(c * sine - a * cosine) / determinant, (a * sine - b * cosine) / determinant])


# ---------------------------------------------------------------------------------------------------- filtering
def _real(images: Any) -> Array:
    images = jnp.asarray(images)
    return images if jnp.issubdtype(images.dtype, jnp.floating) else images.astype(jnp.float32)


def _is_mirror(outside: str) -> bool:
    if outside not in ("mirror", "vacuum"):
        raise InputError(f"outside = {outside!r} is neither mirror nor vacuum")
    return outside == "mirror"


def _padded_shape(shape: Sequence[int]) -> tuple[int, int]:
    return 2 * shape[0], 2 * shape[1]


def _spectrum(contrast: Array, mirror: bool) -> Array:
    rows, columns = contrast.shape[-2:]
    if mirror:
        border = [(0, 0)] * (contrast.ndim - 2) + [(0, rows), (0, columns)]
        return jnp.fft.rfft2(jnp.pad(contrast, border, mode="symmetric"))
    return jnp.fft.rfft2(contrast, s=(2 * rows, 2 * columns))


@partial(jax.jit, static_argnames=("mirror",))
def _filtered(contrast: Array, kernel: Array, mirror: bool) -> Array:
    rows, columns = contrast.shape[-2:]
    return jnp.fft.irfft2(_spectrum(contrast, mirror) * kernel, s=(2 * rows, 2 * columns))[..., :rows, :columns]


@partial(jax.jit, static_argnames=("mirror",))
def _summed(contrast: Array, kernels: Array, mirror: bool) -> Array:
    """Images `(distance, y, x)` through kernels `(map, distance, y, x)`, summed over distances."""
    rows, columns = contrast.shape[-2:]
    spectrum = jnp.einsum("...dyx,mdyx->...myx", _spectrum(contrast, mirror), kernels)
    return jnp.fft.irfft2(spectrum, s=(2 * rows, 2 * columns))[..., :rows, :columns]
