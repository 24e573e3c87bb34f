"""A phase from its gradients, or from itself modulo 2 pi: least squares in Fourier space, weighted."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ...errors import InputError
from ..conjugate_gradients import conjugate_gradients

__all__ = ["integrate_gradients", "unwrap_phase"]


def integrate_gradients(
    down: Float[Array, "y x"], right: Float[Array, "y x"], *, weight: Any = None, steps: int = 100
) -> Float[Array, "y x"]:
    """Integrate slopes along rows and columns [1/pixel] to an image without its mean, by least squares.

    The frame is mirrored with the slopes across each mirror reversed, as those of a mirrored image are (Bon 2012): a
    sample that leaves the frame does no harm, where the periodic solution of Frankot & Chellappa (1988) bends the whole
    image. White noise of the slopes becomes noise of the image whose power falls as `1 / f^2`: its slow waves are the
    uncertain part, whatever the algorithm.

    **Arguments:** `weight` `(y, x)`, one over the variance of each pixel's slopes, 0 for those that are not known;
    their values do not matter. Then at most `steps` of conjugate gradients, preconditioned by the unweighted one.

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
    # Beyond what rounding leaves of the residual, steps are noise and grow.
    found = conjugate_gradients(normal, rest, precondition=_inverse_laplacian, steps=steps, tolerance=1e-5)[0]
    return found - found.mean()


def unwrap_phase(
    phase: Float[Array, "y x"], weight: Any = None, *, rounds: int = 6, steps: int = 60
) -> tuple[Float[Array, "y x"], Int[Array, ""]]:
    """Take the jumps of `2 pi` out of a phase that is known modulo `2 pi` [rad].

    Steps between neighbours, each taken as the smallest one that the phases allow, are integrated by least squares
    whose weights fall where they contradict one another (an approximate L1 norm; D. C. Ghiglia & L. A. Romero, J. Opt.
    Soc. Am. A 13, 1999 (1996)); each pixel is then moved by whole turns next to that. What no algorithm can tell: a
    constant, and the turns across a line along which the phase changes by more than `pi` from pixel to pixel.

    **Arguments:** `weight` `(y, x)`, one over the variance, 0 where nothing is known.

    **Returns:** the phase, its median between `-pi` and `pi`, and the number of places where four neighbours
    contradict one another: where there are any, whole turns around them are a guess.

    **Cost:** `rounds * steps` times three FFTs of twice the height and width.

    ```python
    y, x = np.mgrid[:40, :50].astype(np.float32)
    true = 12 * np.exp(-((x - 25) ** 2 + (y - 18) ** 2) / 150)
    found, contradictions = unwrap_phase(jnp.angle(jnp.exp(1j * true)))
    assert np.abs(found - true - (found - true)[0, 0]).max() < 1e-3 and contradictions == 0
    ```
    """
    if phase.ndim != 2 or min(phase.shape) < 2:
        raise InputError(f"unwrap_phase: a phase of shape {phase.shape}; expected an image")
    weight = jnp.ones_like(phase) if weight is None else jnp.asarray(weight, phase.dtype)
    if weight.shape != phase.shape:
        raise InputError(f"unwrap_phase: weights of shape {weight.shape}, a phase of {phase.shape}")
    return _unwrapped(jnp.where(weight > 0, phase, 0), weight, rounds, steps)


@partial(jax.jit, static_argnums=(2, 3))
def _unwrapped(phase: Array, weight: Array, rounds: int, steps: int) -> tuple[Array, Array]:
    turn = 2 * jnp.pi
    wrapped = lambda a: a - turn * jnp.round(a / turn)
    jumps = [wrapped(d) for d in _differences(phase)]
    weight = weight / jnp.maximum(weight.max(), 1e-30)
    known = jnp.minimum(weight[1:], weight[:-1]), jnp.minimum(weight[:, 1:], weight[:, :-1])
    around = jumps[1][:-1] + jumps[0][:, 1:] - jumps[1][1:] - jumps[0][:, :-1]
    corners = jnp.minimum(known[0][:, 1:], known[0][:, :-1])
    contradictions = ((jnp.abs(around) > jnp.pi) & (corners > 0)).sum()

    def once(_: Any, image: Array) -> Array:
        left = [jnp.abs(d - j) for d, j in zip(_differences(image), jumps, strict=True)]
        trust = [k / (0.1 + a) for k, a in zip(known, left, strict=True)]
        normal = lambda a: _divergence(*(t * d for t, d in zip(trust, _differences(a), strict=True)))
        right = _divergence(*(t * j for t, j in zip(trust, jumps, strict=True)))
        found = conjugate_gradients(normal, right, precondition=_inverse_laplacian, steps=steps, tolerance=1e-4)[0]
        return found - found.mean()

    smooth = jax.lax.fori_loop(0, rounds, once, _inverse_laplacian(_divergence(*jumps)))
    # All pixels share one constant: the one that puts most of them on whole turns.
    rest = (jnp.where(weight > 0, jnp.exp(1j * (phase - smooth)), 0)).sum()
    smooth = smooth + jnp.angle(rest)
    found = phase + turn * jnp.round((smooth - phase) / turn)
    found = found - turn * jnp.round(jnp.nanmedian(jnp.where(weight > 0, found, jnp.nan)) / turn)
    return jnp.where(weight > 0, found, smooth), contradictions


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
