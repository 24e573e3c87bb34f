"""Sum, centre and spread of far-field frames: what a scanning-transmission microscope sees."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from ..errors import InputError

__all__ = ["FrameMoments", "frame_moments"]


class FrameMoments(NamedTuple):
    """Moments of frames about their coordinates [detector pixel], one entry a frame; NaN where there is no light.

    **Fields:** `total` counts; `centre` `(2, frame)` along rows and columns; `variance` about it, the mean of both
    axes [pixel^2]; `fourth`, mean fourth power of the distance from the origin over 4 [pixel^4], by which photon noise
    of the variance is known.
    """

    total: Float[np.ndarray, " frame"]
    centre: Float[np.ndarray, "2 frame"]
    variance: Float[np.ndarray, " frame"]
    fourth: Float[np.ndarray, " frame"]


def frame_moments(
    blocks: Iterable[Shaped[np.ndarray, "frame y x"]],
    *,
    good: Shaped[np.ndarray, "y x"] | None = None,
    dark: Float[np.ndarray, "y x"] | float = 0.0,
    corner: bool = False,
    origin: tuple[float, float] = (0.0, 0.0),
    callback: Callable[[int], None] | None = None,
) -> FrameMoments:
    """Compute sum, centre and spread of frames that come in blocks (`frames.frame_blocks`), in float64.

    **Arguments:** `good`, pixels that measured; `dark`, subtracted; `corner`: the zero frequency is at index (0, 0) and
    frames wrap around, else the middle of the frame is the origin; `origin` (row, column) [pixel] from there, near the
    beam, about which sums are precise; `callback` is told how many frames are done.

    **Cost:** one pass over the frames, five multiplications a pixel.

    **Raises:** `InputError` for a mask of another shape.

    ```python
    spot = np.zeros((1, 8, 8))
    spot[0, 4, 6] = 100.0
    assert np.allclose(frame_moments([spot]).centre[:, 0], [0.5, 2.5])
    ```
    """
    sums, weights, done = [], None, 0
    for block in blocks:
        if weights is None:
            weights = _weights(block.shape[1:], good, corner, origin)
        flat = np.asarray(block, np.float64) - dark
        sums.append(flat.reshape(len(block), -1) @ weights)
        done += len(block)
        if callback is not None:
            callback(done)
    total, down, right, square, fourth = np.concatenate(sums).T
    light = np.where(total > 0, total, np.nan)
    y, x = down / light, right / light
    centre = np.stack([y + origin[0], x + origin[1]])
    return FrameMoments(total, centre, (square / light - y**2 - x**2) / 2, fourth / light / 4)


def _weights(shape: tuple[int, ...], good: np.ndarray | None, corner: bool, origin: tuple[float, float]) -> np.ndarray:
    good = np.ones(shape, bool) if good is None else np.asarray(good, bool)
    if good.shape != tuple(shape):
        raise InputError(f"the mask has shape {good.shape}, the frames {tuple(shape)}")
    axes = [np.fft.fftfreq(n) * n if corner else np.arange(n) - (n - 1) / 2 for n in shape]
    y, x = np.meshgrid(axes[0] - origin[0], axes[1] - origin[1], indexing="ij")
    square = y**2 + x**2
    return (np.stack([np.ones(shape), y, x, square, square**2], -1) * good[..., None]).reshape(-1, 5)
