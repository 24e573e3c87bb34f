"""What transforms have in common: sizes, frequencies, the half plane of real images, Gaussians."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

__all__ = ["blur", "gaussian", "good_size", "half_plane_weights", "is_smooth", "radial_frequency", "twice_as_fine"]


def good_size(least: float, *, factors: Sequence[int] = (2, 3, 5), parity: int = 0) -> int:
    """Find the next size of a parity (even by default) whose prime factors are all among `factors`: its FFT is fast.

    ```python
    assert good_size(97) == 100 and good_size(97, parity=1) == 125
    ```
    """
    n = math.ceil(least)
    n += (n - parity) % 2
    while not is_smooth(n, factors):
        n += 2
    return n


def is_smooth(n: int, factors: Sequence[int]) -> bool:
    """Tell whether all prime factors of a number are among `factors`."""
    for factor in factors:
        while n % factor == 0:
            n //= factor
    return n == 1


def radial_frequency(shape: tuple[int, ...], zero: float = 1.0, xp: Any = np) -> Float[Any, "..."]:
    """Compute |f| [cycles/pixel] on the half space of `rfftn`; the zero frequency counts as `zero` of the first.

    `xp` is the array module, `np` for float64 or `jnp` for float32 on the device.

    ```python
    assert radial_frequency((4, 4)).shape == (4, 3)
    ```
    """
    axes = [np.fft.fftfreq(n) for n in shape[:-1]] + [np.fft.rfftfreq(shape[-1])]
    rows = [f.reshape([-1 if a == i else 1 for a in range(len(shape))]) ** 2 for i, f in enumerate(axes)]
    square = sum(xp.asarray(row, float if xp is np else xp.float32) for row in rows)
    return xp.maximum(xp.sqrt(square), zero / max(shape))


def half_plane_weights(columns: int) -> Float[np.ndarray, " half"]:
    """Count how many frequencies of a real image each column of its `rfftn` stands for: one or two.

    ```python
    assert half_plane_weights(4).tolist() == [1.0, 2.0, 1.0]
    ```
    """
    frequency = np.fft.rfftfreq(columns)
    return np.where((frequency == 0) | (frequency == 0.5), 1.0, 2.0)


def gaussian(frequency: Any, width: Any) -> Any:
    """Compute the transform of a Gaussian of unit sum and standard deviation `width` [pixel], at `frequency`
    [cycles/pixel]; of NumPy arrays and numbers in NumPy.

    ```python
    assert gaussian(0.0, 3.0) == 1.0
    ```
    """
    xp = jnp if isinstance(frequency, Array) or isinstance(width, Array) else np
    return xp.exp(-2 * (np.pi * width * frequency) ** 2)


def blur(values: Inexact[Array, "..."], width: Any, axes: Sequence[int] = (-2, -1)) -> Inexact[Array, "..."]:
    """Convolve with a periodic Gaussian of standard deviation `width` [pixel], one number or one for each of `axes`.

    ```python
    spot = jnp.zeros((32, 32)).at[5, 5].set(1.0)
    assert abs(blur(spot, 2.0)[5, 5] - 1 / (2 * np.pi * 2.0**2)) < 1e-6
    ```
    """
    axes, real = tuple(axes), jnp.finfo(values.dtype).dtype
    forward, back = (jnp.fft.fftn, jnp.fft.ifftn) if jnp.iscomplexobj(values) else (jnp.fft.rfftn, jnp.fft.irfftn)
    spectrum = forward(values, axes=axes)
    for axis, one in zip(axes, jnp.broadcast_to(jnp.asarray(width, real), (len(axes),)), strict=True):
        size, axis = values.shape[axis], axis % values.ndim
        frequency = jnp.asarray(np.fft.fftfreq(size)[: spectrum.shape[axis]], real)
        spectrum = spectrum * gaussian(frequency, one).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    return back(spectrum, s=[values.shape[axis] for axis in axes], axes=axes)


def twice_as_fine(image: Float[Array, "y x"]) -> Float[Array, "2*y 2*x"]:
    """Interpolate a periodic image by Fourier series on pixels half as large, whose pairs lie about the old ones.

    ```python
    assert jnp.allclose(twice_as_fine(jnp.ones((4, 6))), jnp.ones((8, 12)), atol=1e-6)
    ```
    """
    for axis in (0, 1):
        size = image.shape[axis]
        k = np.arange(size // 2 + 1)
        turn = np.where(k < size / 2, np.exp(-0.5j * np.pi * k / size), 0)  # a quarter of an old pixel
        turn = jnp.asarray(turn, jnp.result_type(image.dtype, jnp.complex64)).reshape((-1, 1) if axis == 0 else (1, -1))
        spectrum = jnp.fft.rfft(image, axis=axis)
        halves = [jnp.fft.irfft(spectrum * t, n=size, axis=axis) for t in (turn, jnp.conj(turn))]
        image = jnp.stack(halves, axis + 1).reshape(*(n * (2 if a == axis else 1) for a, n in enumerate(image.shape)))
    return image
