"""Colours of phases and directions, equally light and equally spaced to the eye."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    pass


def complex_colours(values: np.ndarray) -> np.ndarray:
    """Colour complex values: hue = phase, brightness = modulus relative to its maximum (a percentile against hot
    pixels)."""
    modulus = np.abs(values)
    bright = np.clip(modulus / max(float(np.percentile(modulus, 99.9)), np.finfo(float).tiny), 0, 1)
    # The largest circle of hues that a screen can show; the lightness at which it is largest.
    return _oklch(0.74 * bright, 0.123 * bright, np.angle(values))


def axis_colours(plane: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Colour directions by their components (across, down, through), with alpha: hue turns once in half a turn of the
    axis."""
    across, down, through = np.moveaxis(plane, -1, 0)
    seen = np.isfinite(across)
    across, down, through = (np.where(seen, c, 0) for c in (across, down, through))
    flat = np.sqrt(np.clip(1 - through**2, 0, 1))
    light = (0.97 - 0.25 * flat) * weight
    colours = _oklch(light, 0.12 * flat * weight, 2 * np.arctan2(down, across))
    return np.concatenate([colours, seen[..., None].astype(float)], -1)


def _oklch(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """Oklab in polar form (Ottosson 2020, bottosson.github.io/posts/oklab) to sRGB in 0..1."""
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        -1,
    )
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
