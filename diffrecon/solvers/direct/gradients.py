"""A phase from its gradients: least squares in Fourier space, weighted where pixels differ."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...errors import InputError
from ..conjugate_gradients import conjugate_gradients

__all__ = ["integrate_gradients"]


def integrate_gradients(
    down: Float[Array, "y x"], right: Float[Array, "y x"], *, weight: Any = None, steps: int = 100
) -> Float[Array, "y x"]:
    """Integrate slopes along rows and columns [1/pixel] to an image without its mean, by least squares.

    The frame is mirrored with the slopes across each mirror reversed, as those of a mirrored image are (Bon 2012): a
    sample that leaves the frame does no harm, where the periodic solution of Frankot & Chellappa (1988) bends the whole
    image. White noise of the slopes becomes noise of the image whose power falls as `1 / f^2`: its slow waves are the
    uncertain part, whatever the algorithm.

    **Arguments:** `weight` `(y, x)`, one over the variance of each pixel's slopes, 0 for those that are not known;
    their values do not matter. Then `steps` of conjugate gradients, preconditioned by the unweighted solution.

    **Cost:** three FFTs of twice the height and width, times `steps` with weights.

    **Raises:** `InputError` for images of different shapes.

    ```python
    y, x = np.mgrid[:40, :50] / 10.0
    image = np.sin(x) * np.cos(y) + 0.3 * x
    down, right = -0.1 * np.sin(x) * np.sin(y), 0.1 * np.cos(x) * np.cos(y) + 0.03
    found = integrate_gradients(jnp.asarray(down, jnp.float32), jnp.asarray(right, jnp.float32))
    assert np.abs(np.asarray(found) - (image - image.mean())).max() < 0.02
    ```
    """
    if down.shape != right.shape or down.ndim != 2 or min(down.shape) < 2:
        raise InputError(f"integrate_gradients: slopes of shapes {down.shape} and {right.shape}; expected two images")
    if weight is None:
        return _mirrored_solution(down, right)
    if np.shape(weight) != down.shape:
        raise InputError(f"integrate_gradients: weights of shape {np.shape(weight)}, slopes of {down.shape}")
    weight = jnp.asarray(weight, down.dtype) / jnp.maximum(jnp.max(jnp.asarray(weight, down.dtype)), 1e-30)
    known = lambda a: jnp.where(weight > 0, a, 0)
    pair = _between(known(down), known(right))
    weights = _between(weight, weight)
    normal = lambda image: _divergence(*(w * g for w, g in zip(weights, _differences(image), strict=True)))
    rest = _divergence(*(w * g for w, g in zip(weights, pair, strict=True)))
    found = conjugate_gradients(normal, rest, precondition=_inverse_laplacian, steps=steps)[0]
    return found - found.mean()


def _between(down: Array, right: Array) -> tuple[Array, Array]:
    """Slopes half way between neighbours."""
    return (down[1:] + down[:-1]) / 2, (right[:, 1:] + right[:, :-1]) / 2


def _differences(image: Array) -> tuple[Array, Array]:
    return jnp.diff(image, axis=0), jnp.diff(image, axis=1)


def _divergence(down: Array, right: Array) -> Array:
    """Adjoint of the differences."""
    rows = jnp.pad(down, ((1, 0), (0, 0))) - jnp.pad(down, ((0, 1), (0, 0)))
    return rows + jnp.pad(right, ((0, 0), (1, 0))) - jnp.pad(right, ((0, 0), (0, 1)))


def _mirrored_solution(down: Array, right: Array) -> Array:
    return _inverse_laplacian(_divergence(*_between(down, right)))


def _inverse_laplacian(image: Array) -> Array:
    """Invert minus the Laplacian of differences on the mirrored frame (a cosine transform)."""
    height, width = image.shape
    mirrored = jnp.concatenate([image, image[::-1]])
    mirrored = jnp.concatenate([mirrored, mirrored[:, ::-1]], 1)
    fy, fx = np.fft.fftfreq(2 * height)[:, None], np.fft.rfftfreq(2 * width)[None]
    gain = 4 * np.sin(np.pi * fy) ** 2 + 4 * np.sin(np.pi * fx) ** 2
    gain[0, 0] = np.inf
    solved = jnp.fft.irfft2(jnp.fft.rfft2(mirrored) * jnp.asarray(1 / gain, image.dtype), s=mirrored.shape)
    return solved[:height, :width]
