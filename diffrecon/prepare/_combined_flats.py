"""The empty beam of each hologram: the combination of its flats that fits the frame best.

Mirrors and multilayers drift between the flats and the frame, so that no flat is that of the frame, nor is their mean.
The drifts span few dimensions: principal components of the flats above their noise, with weights fitted to each frame.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..errors import InputError
from ._empty_beam import fit_eigen_weights
from ._references import eigen_flats

__all__ = ["CombinedFlats", "combine_flats", "flat_components"]


@dataclasses.dataclass(frozen=True)
class CombinedFlats:
    """The empty beam of each frame.

    **Fields:** `light` `(view, y, x)`, counts of the empty beam without the dark; `dark` `(y, x)`; `weights`, for each
    view the weights of its components (in standard deviations of the flats); `gains` `(view,)`: light of each frame
    over that of its flats, 1 where `outside` was not given; `message` in words.
    """

    light: np.ndarray
    dark: np.ndarray
    weights: tuple[np.ndarray, ...]
    gains: np.ndarray
    message: str


def combine_flats(
    counts: Float[Any, "view y x"],
    flats: Float[Any, "*#view flat y x"],
    darks: Float[Any, "dark y x"] | None = None,
    *,
    outside: np.ndarray | None = None,
    seed: int = 0,
) -> CombinedFlats:
    """Empty beam of each frame as the best combination of its flats (Van Nieuwenhove et al. 2015).

    `mean + sum_k w_k component_k`: components by principal component analysis of the flats, their number by parallel
    analysis (none where the flats differ by noise alone: then it is their mean); weights by least total variation of
    the logarithm of frame over flat, robustly, so that edges and fringes of the object count little.

    **Arguments:** raw `counts`; `flats` `(flat, y, x)` for all frames, or `(view, flat, y, x)`: those of each distance;
    `darks` `(dark, y, x)` or `(y, x)`; `outside` `(y, x)`, True where there is no object and hardly a fringe: the
    brightness of each frame is fitted there (the ring current falls between flats and frame), otherwise it is that of
    the flats.

    **Returns:** `CombinedFlats`; `light` is `flux` of `models.Holography`.

    **Cost:** 20 Gram matrices of the flats and 25 passes over each frame at half its resolution.

    **Raises:** `InputError` for shapes that do not fit, flats that are not above the darks or not finite.

    ```python
    random = np.random.default_rng(0)
    beams = combine_flats(random.poisson(1000, (2, 32, 32)), random.poisson(1000, (5, 32, 32)))
    assert abs(beams.light.mean() - 1000) < 5
    ```
    """
    frames, sets, dark = _checked(counts, flats, darks)
    light, weights = np.empty(frames.shape, np.float32), []
    shared = len(sets) == 1
    for at, own in enumerate(sets):
        views = slice(None) if shared else slice(at, at + 1)
        basis = eigen_flats(own, seed)
        found, scores = _combined(frames[views], own, basis)
        light[views] = found
        weights += list(scores)
    gains = np.ones(len(frames))
    if outside is not None:
        where = np.broadcast_to(np.asarray(outside, bool), frames.shape[1:])
        if not where.any():
            raise InputError("combine_flats: `outside` holds no pixel; leave it away where nothing is empty")
        gains = frames[:, where].sum(1) / light[:, where].sum(1, dtype=float)
        light *= gains[:, None, None].astype(np.float32)
    kept = sorted({len(w) for w in weights})
    text = f"{sets[0].shape[0]} flats, {' or '.join(map(str, kept))} principal components above noise for each frame"
    text += "" if outside is None else f"; brightness {gains.min():.4f} to {gains.max():.4f} of the flats"
    return CombinedFlats(light, dark, tuple(weights), gains, text)


def flat_components(flats: Float[Any, "flat y x"], dark: Any, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Give mean and principal components of flats above their noise [counts], those that `combine_flats` weighs."""
    light = np.asarray(flats, float) - dark
    mean = light.mean(0)
    return mean, np.tensordot(eigen_flats(light, seed), light - mean, 1).reshape(-1, *mean.shape)


def _combined(frames: np.ndarray, flats: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Light of each frame, and the weights of the components."""
    mean = flats.mean(0)
    if not len(basis):
        return np.broadcast_to(mean, frames.shape), np.zeros((len(frames), 0))
    components = np.tensordot(basis, flats - mean, 1)
    cast = lambda values: jnp.asarray(values[..., None, :, :], jnp.float32)
    weights = np.asarray(fit_eigen_weights(cast(frames), cast(mean), cast(components)), float)
    # Never darker than a hundredth of the mean: the light divides.
    return np.maximum(mean + np.tensordot(weights, components, 1), 0.01 * mean.mean()), weights


def _checked(counts: Any, flats: Any, darks: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames and flats `(set, flat, y, x)` without the dark, and the dark."""
    frames, flats = np.asarray(counts, float), np.asarray(flats, float)
    if frames.ndim != 3:
        raise InputError(f"combine_flats: counts of shape {frames.shape}; expected (view, y, x)")
    flats = flats[None] if flats.ndim == 3 else flats
    if flats.ndim != 4 or flats.shape[-2:] != frames.shape[-2:] or flats.shape[0] not in (1, len(frames)):
        raise InputError(
            f"combine_flats: flats of shape {flats.shape} for counts {frames.shape}; expected (flat, y, "
            "x) or (view, flat, y, x)"
        )
    dark = np.zeros(frames.shape[-2:])
    if darks is not None:
        darks = np.asarray(darks, float)
        if darks.shape[-2:] != frames.shape[-2:]:
            raise InputError(f"combine_flats: darks of shape {darks.shape} for counts {frames.shape}")
        dark = darks.reshape(-1, *frames.shape[-2:]).mean(0)
    if not (np.isfinite(frames).all() and np.isfinite(flats).all() and np.isfinite(dark).all()):
        raise InputError("combine_flats: counts, flats or darks are not finite; remove bad pixels first")
    flats = flats - dark
    if flats.mean() <= 0:
        raise InputError("combine_flats: the flats are not above the darks; are they exchanged?")
    return frames - dark, flats, dark
