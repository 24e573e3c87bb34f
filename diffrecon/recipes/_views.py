"""What recipes of scans share: gains of views, light on the object, figures of views that were never fitted."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import quality

__all__ = ["held_out_figures", "matched", "well_lit"]


def matched(prediction: jax.Array, counts: Any, mask: Any) -> jax.Array:
    """The prediction `(..., y, x)` with the gain that matches the sum of measured counts, frame by frame."""
    total = lambda a: jnp.sum(jnp.where(mask, a, 0), (-2, -1), dtype=prediction.dtype)
    return prediction * (total(counts) / jnp.maximum(total(prediction), 1e-6))[..., None, None]


def well_lit(light: Any) -> Any:
    """Pixels that got at least a tenth of the 95th percentile of the light."""
    return light > 0.1 * jnp.percentile(light, 95)


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
