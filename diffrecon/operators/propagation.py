"""Free-space propagation of a wave: Fresnel, band-limited angular spectrum, Fraunhofer.

Convention: exp(+ikz) travels forward, so that the Fresnel transfer function is `exp(-i pi lambda D f^2)` (P. Cloetens'
lecture). Transfer functions are in unshifted FFT order, zero frequency at index (0, 0).

Phases are computed in float64 and reduced modulo one turn before they are cast, because a hard X-ray phase of hundreds
of radians loses its digits in float32; a traced distance, wavelength or pixel enters through the dimensionless
`lambda D / pixel^2` alone.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex

from ..errors import InputError

__all__ = [
    "Sampling",
    "fraunhofer",
    "fresnel_transfer",
    "propagate",
    "propagate_in_vacuum",
    "sampling",
]

Shape = tuple[int, int]


def propagate(
    wave: Complex[Array, "*batch y x"], transfer: Complex[Array, "*#batch y x"]
) -> Complex[Array, "*batch y x"]:
    """A wave times a transfer function in Fourier space; periodic borders.

    Back-propagation is the same with `jnp.conj(transfer)`. Cost: two 2-D FFTs a wave.

    ```python
    transfer = fresnel_transfer((64, 64), pixel_size=1e-7, wavelength=1e-10, distance=1e-3)
    wave = propagate(jnp.ones((64, 64), jnp.complex64), transfer)
    assert jnp.allclose(wave, 1.0, atol=1e-5)
    ```
    """
    return jnp.fft.ifft2(jnp.fft.fft2(wave) * transfer)


def propagate_in_vacuum(
    wave: Complex[Array, "*batch y x"], transfer: Complex[Array, "Y X"], background: Any = 1.0
) -> Complex[Array, "*batch y x"]:
    """A wave that is `background` (vacuum) outside its window: `background + P(wave - background)`.

    The window is zero-padded to the shape of `transfer` and cropped back, so that padding with vacuum is exact whatever
    the phase of the window's border is not; at zero object the result is the background to the last bit.

    **Arguments:** `transfer` on the padded grid `(Y, X)`, `Y >= y`, `X >= x`.

    ```python
    transfer = fresnel_transfer((96, 96), pixel_size=1e-7, wavelength=1e-10, distance=1e-3)
    assert propagate_in_vacuum(jnp.ones((64, 64), jnp.complex64), transfer).shape == (64, 64)
    ```
    """
    *_, rows, columns = wave.shape
    tall, wide = transfer.shape[-2:]
    if tall < rows or wide < columns:
        raise InputError(f"the transfer function {transfer.shape} is smaller than the wave {wave.shape}")
    # FFT with `s` pads at the end; the shift of the window is the same before and after, so it cancels.
    spectrum = jnp.fft.fft2(wave - background, s=(tall, wide)) * transfer
    return background + jnp.fft.ifft2(spectrum)[..., :rows, :columns]


def fresnel_transfer(
    shape: Shape,
    *,
    pixel_size: Any,
    wavelength: Any,
    distance: Any,
    dtype: Any = jnp.complex64,
) -> Complex[Array, "y x"]:
    """Fresnel transfer function `exp(-i pi lambda D f^2)`.

    **Arguments:** `pixel_size` [m], `wavelength` [m], `distance` [m]: numbers, or pairs (vertical, horizontal) of pixel
    and distance for an astigmatic beam. Each may be a traced jax value and is differentiable.

    ```python
    transfer = fresnel_transfer((64, 64), pixel_size=1e-7, wavelength=1e-10, distance=(1e-3, 1.1e-3))
    ```
    """
    vertical, horizontal = _inverse_fresnel_numbers(pixel_size, wavelength, distance)
    rows = _phase_factor(np.fft.fftfreq(shape[0]) ** 2, -np.pi, vertical, dtype)
    columns = _phase_factor(np.fft.fftfreq(shape[1]) ** 2, -np.pi, horizontal, dtype)
    return rows[:, None] * columns[None, :]


def _inverse_fresnel_numbers(pixel_size: Any, wavelength: Any, distance: Any) -> tuple[Any, Any]:
    """`lambda D / pixel^2` along both axes, in float64 where everything is a plain number."""
    values = (pixel_size, wavelength, distance)
    lib = jnp if any(isinstance(v, jax.Array) for v in jax.tree.leaves(values)) else np
    as_pair = lambda v: lib.broadcast_to(lib.stack([lib.asarray(e) for e in v]) if isinstance(v, tuple) else v, (2,))
    pixel, path = as_pair(pixel_size), as_pair(distance)
    # In this order no factor leaves the range of float32: lambda / pixel is about 1e-3, D / pixel about 1e5.
    ratio = (wavelength / pixel) * (path / pixel)
    return ratio[0], ratio[1]


def _phase_factor(frequency_part: np.ndarray, factor: float, ratio: Any, dtype: Any) -> Array:
    """`exp(i factor ratio frequency_part)`; reduced modulo one turn in float64 when `ratio` is a plain number."""
    if isinstance(ratio, jax.Array):
        real = jnp.zeros((), dtype).real.dtype
        return jnp.exp(1j * (jnp.asarray(factor * frequency_part, real) * ratio.astype(real))).astype(dtype)
    return jnp.asarray(np.exp(1j * np.remainder(factor * float(ratio) * frequency_part, 2 * np.pi)), dtype)


def fraunhofer(wave: Complex[Array, "*batch y x"]) -> Complex[Array, "*batch y x"]:
    """Far field by the orthonormal FFT: `sum |wave|^2` is the number of counts in the frame; zero frequency at index
    (0, 0).
    """
    return jnp.fft.fft2(wave, norm="ortho")


# ---------------------------------------------------------------------------------------------------- sampling in words
@dataclasses.dataclass(frozen=True)
class Sampling:
    """Whether a Fresnel propagation on a grid is sampled well, per axis (vertical, horizontal).

    **Fields:** `fresnel_number` of a pixel, `pixels` needed for an alias-free transfer function (`1 / fresnel_number`;
    Voelz & Roggemann 2009), `aperture` = highest frequency that reaches the detector within the field [cycles/pixel],
    `enough`, and `message`, the same in words.
    """

    fresnel_number: tuple[float, float]
    pixels: tuple[int, int]
    aperture: tuple[float, float]
    enough: bool
    message: str


def sampling(shape: Shape, *, pixel_size: Any, wavelength: Any, distance: Any) -> Sampling:
    """Check the sampling of a Fresnel propagation and say what padding would cure it.

    **Arguments:** `shape` of the (padded) grid; `pixel_size`, `wavelength`, `distance` [m].

    ```python
    print(sampling((512, 512), pixel_size=5e-8, wavelength=7.3e-11, distance=0.02).message)
    ```
    """
    numbers = [1 / abs(float(r)) if r else np.inf for r in _inverse_fresnel_numbers(pixel_size, wavelength, distance)]
    needed = [int(np.ceil(1 / f)) if np.isfinite(f) else 1 for f in numbers]
    aperture = [min(0.5, 0.5 * f * n) for f, n in zip(numbers, shape, strict=True)]
    lines: dict[str, list[str]] = {}  # what is said of an axis, and the axes of which it is true
    for axis, n, f, need, reach in zip(("vertically", "horizontally"), shape, numbers, needed, aperture, strict=True):
        if n < need:
            said = (
                f"the Fresnel kernel is undersampled: {n} pixels at a Fresnel number of {f:.3g} carry frequencies "
                f"up to {reach:.3g} cycles/pixel only; pad to {need} pixels ({need / n:.2g} times) or use smaller "
                "pixels"
            )
            lines.setdefault(said, []).append(axis)
    enough = not lines
    both = {said: "" if len(axes) == 2 else f"{axes[0]} " for said, axes in lines.items()}
    message = (
        "; ".join(axis + said for said, axis in both.items())
        if lines
        else (f"well sampled: Fresnel number {numbers[0]:.3g}, {max(needed)} pixels needed, {min(shape)} there")
    )
    pair = lambda values: (values[0], values[1])
    return Sampling(pair(numbers), pair(needed), pair(aperture), enough, message)
