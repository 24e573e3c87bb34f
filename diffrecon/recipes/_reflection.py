"""Where an analyser crystal's reflection comes from: a depth that displaces the image by a part of a pixel."""

from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np

__all__ = ["image_lag"]

_CERTAIN = 4.0  # standard deviations, from which on the frames tell which way the image is displaced
_LEAST = 0.03  # of what a perfect crystal displaces, that the frames must tell


def image_lag(
    model: Any, counts: np.ndarray, good: np.ndarray, width: float, wavelength: float, pixel: float
) -> tuple[float, float]:
    """Measure how far the image lies at lower columns than the sample [pixel], 0 where frames do not tell which way,
    and what a perfect crystal does, without its sign.

    A crystal reflects `|r| exp(i phi)` of a wave that comes at an angle; its slope displaces the light by
    `wavelength / (2 pi) dphi/dangle`, nowhere more than about the middle of the curve (Darwin's, Authier 2001). Which
    way is a matter of the side on which the crystal stands. Frames on the slopes and feet of the curve are displaced
    less than those at its top, which tells the side: nothing else of the method is odd in x. How far is known better
    by the width of the curve.

    **Arguments:** `width` of a step of the positions [rad]; `wavelength`, `pixel` [m].
    """
    views, fields = jnp.arange(len(model.place)), model.fields()
    predicted, moved = np.asarray(model(views), float), np.asarray(fields[1], float)
    turn = 2 * np.pi / model.period * np.arange(len(model.spectrum))
    mean = np.asarray(model.spectrum)[:, good].mean(1)
    at = np.linspace(0, (model.period - 1) / 2, 2000)
    curve = (np.exp(1j * at[:, None] * turn) @ mean).real
    top = at[np.argmax(curve)]
    half = np.ptp(at[curve > (curve.max() + curve.min()) / 2]) * width  # [rad]
    angle, reflected, depth = _perfect_curves()
    unit = np.ptp(angle[reflected > reflected.max() / 2])  # the same width in halves of Darwin's flat top
    away = (np.asarray(model.place, float)[:, None, None] - model.scale * moved - top) * width / half * unit
    lag = np.interp(away, angle, depth) * wavelength / (2 * np.pi) * unit / half / pixel
    usual = float((lag * predicted).sum() / predicted.sum())
    inside = (slice(None), slice(4, -4), slice(4, -4))
    weight = (np.asarray(model.trust, float) * good / np.maximum(predicted, 1))[inside]
    slope = ((lag - usual) * np.gradient(predicted, axis=2))[inside]
    told = float((weight * slope**2).sum())
    share = float((weight * slope * (counts - predicted)[inside]).sum()) / max(told, 1e-12)
    certain = abs(share) > max(_CERTAIN / np.sqrt(max(told, 1e-12)), _LEAST)
    return (float(np.sign(share)) * usual if certain else 0.0), usual


@cache
def _perfect_curves() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give the angles between two perfect crystals in halves of their flat top, what both reflect, and the displacement
    behind the second in units of `wavelength / (2 pi)` over that half.
    """
    angle = np.linspace(-40, 40, 8001)
    eta = angle + 1e-3j
    root = np.sqrt(eta**2 - 1)
    wave = np.where(np.abs(eta + root) < 1, eta + root, eta - root)
    light, deep = np.abs(wave) ** 2, np.abs(np.gradient(np.unwrap(np.angle(wave)), angle))
    both, depth = (np.convolve(a, light, "same") for a in (light, light * deep))
    return angle, both, depth / both
