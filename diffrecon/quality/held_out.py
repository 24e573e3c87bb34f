"""Views that are never fitted: which they are, and what they say of a model."""

from typing import Any

import numpy as np

from ..errors import InputError
from .residual import deviance, held_out_residual, noise_floor

__all__ = ["held_out_figures", "split_views", "unexplained"]

_UNEXPLAINED, _MISFIT = 3.0, 0.1  # times what photon noise leaves, and of the amplitudes: more is no right model


def split_views(views: int, rules: Any, *, spread: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Choose the views that are fitted and those that never are; none are left out of fewer than ten.

    **Arguments:** `rules`: a section of settings with any of `held_out` (fraction), `held_out_views` (these instead),
    `seed`; without `held_out` none are left out. `spread`: evenly over the views, at a place by seed, as angles want
    it; else at random.

    **Raises:** `InputError` for views that are not there, or all of them.
    """
    named = getattr(rules, "held_out_views", None)
    if named is not None:
        held = np.unique(np.asarray(named))
        if held.size and (held.dtype.kind not in "iu" or held.min() < 0 or held.max() >= views or held.size >= views):
            raise InputError(f"quality.held_out_views: whole numbers from 0 to {views - 1}, and not all of them")
        return np.setdiff1d(np.arange(views), held), held.astype(int)
    fraction, generator = getattr(rules, "held_out", 0.0), np.random.default_rng(getattr(rules, "seed", 0))
    count = int(round(views * fraction)) if views >= 10 else 0
    if spread and fraction and views >= 10:
        count = int(np.clip(count, 1, views // 4))
        held = np.unique(((np.arange(count) + generator.random()) * views / count).astype(int))
    else:
        held = np.sort(generator.permutation(views)[:count])
    return np.setdiff1d(np.arange(views), held), held


def held_out_figures(
    counts: np.ndarray, prediction: np.ndarray, mask: Any, seed: int, which: str
) -> tuple[dict[str, float], list[str]]:
    """Give residual and deviance of frames that were never fitted beside those of photon noise, and the same in words.

    **Arguments:** `which` says how many of what they are.
    """
    mask = np.broadcast_to(mask, counts.shape)
    figures = {}
    for name, metric in (("residual", held_out_residual), ("deviance", deviance)):
        figures[f"held_out_{name}"] = metric(counts, prediction, mask)
        figures[f"noise_floor_{name}"] = noise_floor(prediction, mask, metric=metric, seed=seed)
    residual, floor = figures["held_out_residual"], figures["noise_floor_residual"]
    return figures, [
        f"held-out residual R = {residual:.4f} ({which}; photon noise alone {floor:.4f}, ratio {residual / floor:.2f})",
        f"held-out Poisson deviance a pixel {figures['held_out_deviance']:.3f} (photon noise alone "
        f"{figures['noise_floor_deviance']:.3f})",
        *unexplained(residual, floor),
    ]


def unexplained(residual: float, floor: float) -> list[str]:
    """Warn of unseen data that a model misses by far more than photon noise does; nothing where it does not.

    ```python
    assert unexplained(0.06, 0.05) == [] and unexplained(0.3, 0.05)[0].startswith("WARNING: unseen data are missed 6.0")
    ```
    """
    if not residual > max(_UNEXPLAINED * floor, _MISFIT):
        return []
    return [
        f"WARNING: unseen data are missed {residual / max(floor, 1e-30):.1f} times as far as by photon noise: order of "
        "frames and positions, marks and saturated pixels (data.mask), the zero frequency, distances, light of "
        "single frames"
    ]
