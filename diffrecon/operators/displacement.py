"""A reference pattern as a sample shows it: displaced, dimmed, blurred and locally brightened.

What a refracting sample does to speckles, fringes or beamlets behind it. Displacements are (row, column) [pixel] at the
place where the ray lands: pixel y of the sample image shows what the reference has at `y - displacement(y)`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InputError

__all__ = [
    "along_rays", "displaced", "displaced_with_slopes", "displacement_coefficients", "fringe_transfer",
    "saturated_loss", "slopes_of", "slopes_transposed", "thin_closed",
]  # fmt: skip

_NODES = (66.0, 26.0, 1.0)  # of the quintic B-spline at 0, 1, 2, times 120
_BORDER = 12  # pixels of mirrored margin around coefficients


def displacement_coefficients(
    images: Float[Array, "view y x"], shifts: Any = None, transfer: Any = None, border: int = _BORDER
) -> Float[Array, "Y X view"]:
    """Coefficients of quintic B-splines through images, which `displaced` looks up between the pixels.

    A quintic spline is the pattern itself up to 0.8 of the Nyquist frequency: no shift is pulled towards whole pixels,
    as by linear or cubic interpolation of speckles two or three pixels wide.

    **Arguments:** `shifts` `(view, 2)` [pixel] moves every image to higher rows and columns beforehand, by Fourier
    interpolation; `transfer` `(Y, X / 2 + 1)` filters them, on the frequencies of `rfft2` of the images with `border`
    mirrored pixels on every side.

    ```python
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 24, 20)), jnp.float32)
    coefficients = displacement_coefficients(images)
    assert jnp.allclose(displaced(coefficients, jnp.zeros((2, 24, 20))), images, atol=1e-4)
    ```
    """
    padded = jnp.pad(images, ((0, 0), (border, border), (border, border)), mode="reflect")
    spectrum = jnp.fft.rfft2(padded)
    fy, fx = np.fft.fftfreq(padded.shape[1]), np.fft.rfftfreq(padded.shape[2])
    nodes = lambda f: (_NODES[0] + 2 * _NODES[1] * np.cos(2 * np.pi * f) + 2 * _NODES[2] * np.cos(4 * np.pi * f)) / 120
    gain = jnp.asarray(1 / (nodes(fy)[:, None] * nodes(fx)[None]), images.dtype)
    spectrum = spectrum * (gain if transfer is None else gain * transfer)
    if shifts is not None:
        turn = lambda f, s: jnp.exp(-2j * jnp.pi * jnp.asarray(f, images.dtype) * s)
        shifts = jnp.asarray(shifts, images.dtype)
        spectrum = spectrum * turn(fy[:, None], shifts[:, 0, None, None]) * turn(fx[None], shifts[:, 1, None, None])
    return jnp.moveaxis(jnp.fft.irfft2(spectrum, s=padded.shape[1:]), 0, -1)


def displaced(coefficients: Float[Array, "Y X view"], displacement: Float[Array, "2 y x"]) -> Float[Array, "view y x"]:
    """Images at `place - displacement`, from their coefficients; linear in these, differentiable in both.

    Beyond the margin of the coefficients the border is repeated.

    ```python
    ramp = jnp.broadcast_to(jnp.arange(20.0), (1, 24, 20))
    moved = displaced(displacement_coefficients(ramp), jnp.full((2, 24, 20), 0.25))
    assert jnp.allclose(moved[0, 10, 5:15], jnp.arange(5, 15) - 0.25, atol=1e-2)
    ```
    """
    return jnp.moveaxis(displaced_with_slopes(coefficients, displacement)[0], -1, 0)


def displaced_with_slopes(
    coefficients: Float[Array, "Y X view"], displacement: Float[Array, "2 y x"]
) -> tuple[Float[Array, "y x view"], Float[Array, "y x view"], Float[Array, "y x view"]]:
    """Displaced images and their slopes along rows and columns [1/pixel], the view last: 36 products each.

    ```python
    ramp = jnp.broadcast_to(jnp.arange(20.0), (1, 24, 20))
    _, down, right = displaced_with_slopes(displacement_coefficients(ramp), jnp.zeros((2, 24, 20)))
    assert jnp.allclose(right[10, 5:15], 1.0, atol=2e-2) and jnp.allclose(down[10, 5:15], 0.0, atol=1e-3)
    ```
    """
    height, width = displacement.shape[1:]
    border = (coefficients.shape[0] - height) // 2
    place = lambda d, axis, size, whole: jnp.clip(
        jnp.arange(size, dtype=d.dtype).reshape((-1, 1) if axis == 0 else (1, -1)) - d + border, 2.0, whole - 4.01
    )
    rows = place(displacement[0], 0, height, coefficients.shape[0])
    columns = place(displacement[1], 1, width, coefficients.shape[1])
    top, left = jnp.floor(rows).astype(jnp.int32), jnp.floor(columns).astype(jnp.int32)
    down, right = rows - top, columns - left
    flat = coefficients.reshape(-1, coefficients.shape[-1])
    corner = top * coefficients.shape[1] + left

    def row(j: Any, sums: Any) -> Any:
        value, along = jnp.zeros((), flat.dtype), jnp.zeros((), flat.dtype)
        for k in range(-2, 4):
            tap = flat[corner + j * coefficients.shape[1] + k]
            value = value + _spline(right - k)[..., None] * tap
            along = along + _spline_slope(right - k)[..., None] * tap
        weight, slope = _spline(down - j)[..., None], _spline_slope(down - j)[..., None]
        return sums[0] + weight * value, sums[1] + slope * value, sums[2] + weight * along

    zero = jnp.zeros((height, width, coefficients.shape[-1]), jnp.promote_types(flat.dtype, displacement.dtype))
    add = lambda sums, j: (row(j, sums), None)
    return jax.lax.scan(add, (zero, zero, zero), jnp.arange(-2, 4))[0]


def _spline(x: Array) -> Array:
    """The quintic B-spline."""
    x = jnp.abs(x)
    power = lambda edge: jnp.maximum(edge - x, 0) ** 5
    return (power(3) - 6 * power(2) + 15 * power(1)) / 120


def _spline_slope(x: Array) -> Array:
    power = lambda edge: jnp.maximum(edge - jnp.abs(x), 0) ** 4
    return -jnp.sign(x) * (power(3) - 6 * power(2) + 15 * power(1)) / 24


# ---------------------------------------------------------------------------------------------------- a potential
def slopes_of(potential: Float[Array, "*batch y x"]) -> Float[Array, "2 *batch y x"]:
    """Slopes along rows and columns [1/pixel] of a periodic image, by central differences of sixth order: within 1 %
    to half of the Nyquist frequency, and without the wiggles of a Fourier derivative beside steps.

    ```python
    wave = jnp.sin(2 * jnp.pi * jnp.arange(32) / 8) * jnp.ones((32, 1))
    assert jnp.allclose(slopes_of(wave)[1, 0, 0], 2 * jnp.pi / 8, rtol=5e-3)
    ```
    """
    return jnp.stack([_slope(potential, -2), _slope(potential, -1)])


def slopes_transposed(slopes: Float[Array, "2 *batch y x"]) -> Float[Array, "*batch y x"]:
    """Apply the exact adjoint of `slopes_of`.

    ```python
    assert slopes_transposed(jnp.ones((2, 8, 8))).shape == (8, 8)
    ```
    """
    return -_slope(slopes[0], -2) - _slope(slopes[1], -1)


def _slope(image: Array, axis: int) -> Array:
    across = lambda k: jnp.roll(image, -k, axis) - jnp.roll(image, k, axis)
    return (45 * across(1) - 9 * across(2) + across(3)) / 60


def fringe_transfer(shape: tuple[int, ...], spread: float | None, blur: float = 0.0) -> Float[np.ndarray, "y half"]:
    """Transfer function from the potential of a displacement [pixel^2] to the logarithm of the intensity.

    Rays that part leave less light: `-laplacian`, what a transport equation says. With the wavelength it is the
    contrast of free propagation, `2 sin(chi) phase` (Guigay 1977), `chi = spread f^2`: fringes.

    **Arguments:** `spread` = `pi wavelength distance / pixel^2`, 0 for rays alone, `None` for none at all; `blur` of
    the detector, standard deviation [pixel], besides its square pixels.

    ```python
    transfer = fringe_transfer((32, 32), 0.0)
    assert abs(transfer[0, 1] - (2 * np.pi / 32) ** 2) < 1e-3 * transfer[0, 1] + 1e-4
    ```
    """
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    if spread is None:
        return np.zeros(np.broadcast_shapes(fy.shape, fx.shape))
    square = fy**2 + fx**2
    seen = np.exp(-2 * (np.pi * blur) ** 2 * square) * np.sinc(fy) * np.sinc(fx)
    return 4 * np.pi**2 * square * np.sinc(spread * square / np.pi) * seen


def saturated_loss(square: Any, saturation: Any) -> Any:
    """Loss of the logarithm of a visibility at a squared frequency, over that at frequency one.

    A random phase of variance s and correlation C takes `s (1 - C(wavelength distance frequency))` (Yashiro 2010,
    Strobl 2014), here with `C(x) = exp(-x^2 / (2 L^2))`: a blur, the square itself, where the grains are large, and
    one and the same loss at all frequencies where they are small.

    **Arguments:** `saturation`, `x^2 / (2 L^2)` at frequency one; at 0 the variance of the scattering angles is all
    that counts, and at b that variance is `b / (1 - exp(-b))` times what the loss at frequency one means at 0.

    ```python
    assert np.allclose(saturated_loss(jnp.array([0.0, 1.0, 4.0]), 1e-6), [0.0, 1.0, 4.0], rtol=1e-3)
    assert np.allclose(saturated_loss(jnp.array([1.0, 4.0]), 20.0), 1.0)
    ```
    """
    saturation = jnp.maximum(saturation, 1e-6)
    return jnp.expm1(-saturation * square) / jnp.expm1(-saturation)


def thin_closed(image: Float[Array, "y x"], width: int = 9) -> Float[Array, "y x"]:
    """Fill dark lines narrower than `width` [pixel], and leave dark areas (a grey closing).

    In a visibility such lines are rims of the object, and areas microstructure: hence the default.

    ```python
    line = jnp.ones((16, 16)).at[:, 5].set(0.0)
    assert jnp.allclose(thin_closed(line, 5), 1.0)
    ```
    """
    along = lambda a, start, rule, window: jax.lax.reduce_window(a, start, rule, window, (1, 1), "SAME")
    slide = lambda a, start, rule: along(along(a, start, rule, (width, 1)), start, rule, (1, width))
    return slide(slide(image, -jnp.inf, jax.lax.max), jnp.inf, jax.lax.min)


def along_rays(
    displacement: Float[np.ndarray, "2 y x"], maps: Float[np.ndarray, "map y x"], rounds: int = 8
) -> tuple[Float[np.ndarray, "2 y x"], Float[np.ndarray, "map y x"]]:
    """Carry maps from where rays land back to where they left the sample, with the displacement itself.

    A displacement known at the detector, D, is at the sample d(x) = D(x + d(x)), found by a fixed point.

    **Raises:** `InputError` for maps of another shape.

    ```python
    moved, (image,) = along_rays(np.full((2, 16, 16), 0.5), np.ones((1, 16, 16)))
    assert np.allclose(moved, 0.5) and np.allclose(image, 1.0)
    ```
    """
    if maps.shape[1:] != displacement.shape[1:]:
        raise InputError(f"along_rays: maps of shape {maps.shape} with a displacement of shape {displacement.shape}")
    single = lambda a: jnp.asarray(a, jnp.result_type(float))
    found, carried = _carried(single(displacement), single(maps), rounds)
    return np.asarray(found, float), np.asarray(carried, float)


@partial(jax.jit, static_argnames=("rounds",))
def _carried(displacement: Array, maps: Array, rounds: int) -> tuple[Array, Array]:
    moved, carried = (displacement_coefficients(a) for a in (displacement, maps))
    found = jax.lax.fori_loop(0, rounds, lambda _, found: displaced(moved, -found), displacement)
    return found, displaced(carried, -found)
