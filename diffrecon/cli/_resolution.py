"""`diffrecon resolution A B`: Fourier ring or shell correlation of two independent results."""

import argparse
from typing import Any

import numpy as np

from ..errors import InputError, nearest


def resolution(options: argparse.Namespace) -> int:
    """Print the resolution of what two files have in common."""
    from .. import quality

    (name, first, pixel), (_, second, other) = (
        _image(path, options.quantity) for path in (options.first, options.second)
    )
    if pixel is not None and other is not None and abs(pixel / other - 1) > 1e-3:
        raise InputError(f"the pixels differ: {pixel:.4g} m in {options.first}, {other:.4g} m in {options.second}")
    first, second = _common(first, second)
    if options.region:
        first, second = _region(first, options.region), _region(second, options.region)
    found = quality.ring_correlation(first, second, pixel_size=pixel)
    kind = "ring" if first.ndim == 2 else "shell"
    size = "" if found.resolution is None else f" = {found.resolution * 1e9:.4g} nm"
    limited = " (up to Nyquist: the pixel limits)" if found.crossing >= 0.5 else ""
    print(
        f"{name} {' x '.join(map(str, first.shape))}: half period {found.half_period:.4g} pixels{size} "
        f"where the Fourier {kind} correlation meets the half-bit curve{limited}"
    )
    for frequency, value, half, one in _rows(found):
        print(f"  {frequency:.3f} cycles/pixel   correlation {value:6.3f}   half-bit {half:.3f}   one-bit {one:.3f}")
    if any(abs(s) > 0.01 for s in found.shift):
        print(f"  shift taken out: {', '.join(f'{s:.2f}' for s in found.shift)} pixels")
    return 0


def _rows(found: Any) -> zip:
    every = slice(None, None, max(len(found.frequency) // 16, 1))
    return zip(
        found.frequency[every], found.correlation[every], found.half_bit[every], found.one_bit[every], strict=True
    )


def _image(path: str, wanted: str | None) -> tuple[str, np.ndarray, float | None]:
    """The quantity to compare: that of the name, or the first picture of the file."""
    if path.endswith((".npy", ".tif", ".tiff")):
        return path, _array(path), None
    from .. import io

    result = io.read_result(path)
    if wanted is not None and wanted not in result.quantities:
        raise InputError(f"{path} has no quantity {wanted!r}{nearest(wanted, result.quantities)}")
    name = wanted or next((n for n, q in result.quantities.items() if q.data.ndim in (2, 3)), None)
    if name is None:
        raise InputError(f"{path}: no image or volume among {', '.join(result.quantities)}")
    quantity = result.quantities[name]
    return name, _plane(np.asarray(quantity.data)), quantity.pixel_size


def _array(path: str) -> np.ndarray:
    from ..io import open_scan

    return _plane(np.asarray(open_scan(path, check=False).counts))


def _plane(data: np.ndarray) -> np.ndarray:
    """Thin volumes are compared slice by slice of their first: a shell needs depth."""
    if data.ndim == 4:
        data = data[..., 0]
    return data[0] if data.ndim == 3 and data.shape[0] < 8 else data


def _common(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both cropped around their middle to the shape they share; without the border a ptychography object may lack."""
    if first.ndim != second.ndim:
        raise InputError(f"the files hold an array of {first.ndim} and one of {second.ndim} dimensions")
    shape = tuple(min(a, b) for a, b in zip(first.shape, second.shape, strict=True))
    return _middle(first, shape), _middle(second, shape)


def _middle(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return image[tuple(slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(image.shape, shape, strict=True))]


def _region(image: np.ndarray, said: str) -> np.ndarray:
    try:
        parts = [slice(*(int(n) if n.strip() else None for n in part.split(":", 1))) for part in said.split(",")]
    except ValueError:
        parts = []
    if len(parts) != image.ndim or 0 in image[tuple(parts)].shape:
        raise InputError(f"--region {said}: write first:last for each of the {image.ndim} axes, inside {image.shape}")
    return image[tuple(parts)]
