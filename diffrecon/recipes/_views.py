"""What recipes of scans share: gains of views, light on the object, figures of views that were never fitted."""

import numpy as np

from .. import quality
from ..losses import matched
from ..operators import well_lit

__all__ = ["held_out_figures", "matched", "well_lit"]


def held_out_figures(
    counts: np.ndarray, prediction: np.ndarray, mask: np.ndarray, seed: int, which: str
) -> tuple[dict[str, float], list[str]]:
    """Residual and deviance of frames that were never fitted beside those of photon noise alone, and the same in words;
    `which` says how many of what."""
    mask = np.broadcast_to(mask, counts.shape)
    figures = {}
    for name, metric in (("residual", quality.held_out_residual), ("deviance", quality.deviance)):
        figures[f"held_out_{name}"] = metric(counts, prediction, mask)
        figures[f"noise_floor_{name}"] = quality.noise_floor(prediction, mask, metric=metric, seed=seed)
    residual, floor = figures["held_out_residual"], figures["noise_floor_residual"]
    return figures, [
        f"held-out residual R = {residual:.4f} ({which}; photon noise alone {floor:.4f}, ratio {residual / floor:.2f})",
        f"held-out Poisson deviance a pixel {figures['held_out_deviance']:.3f} (photon noise alone "
        f"{figures['noise_floor_deviance']:.3f})",
    ]
