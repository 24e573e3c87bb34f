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
    same, note = _same_frames(options.first, options.second)
    if note:
        print(note)
    kind = "ring" if first.ndim == 2 else "shell"
    size = "" if found.resolution is None else f" = {found.resolution * 1e9:.4g} nm"
    limited = " (up to Nyquist: the pixel limits)" if found.crossing >= 0.5 else ""
    if (found.correlation < found.half_bit)[: max(len(found.frequency) // 8, 2)].all():
        raise InputError(
            f"{options.first} and {options.second} have nothing in common: their Fourier {kind} correlation is below "
            "the half-bit curve from the lowest frequencies on; are they of one sample, in one orientation?"
        )
    what = "repeatable down to a half period of" if same else "half period"
    print(
        f"{name} {' x '.join(map(str, first.shape))}: {what} {found.half_period:.4g} pixels{size} "
        f"where the Fourier {kind} correlation meets the half-bit curve{limited}"
    )
    for frequency, value, half, one in _rows(found):
        print(f"  {frequency:.3f} cycles/pixel   correlation {value:6.3f}   half-bit {half:.3f}   one-bit {one:.3f}")
    if any(abs(s) > 0.01 for s in found.shift):
        print(f"  shift taken out: {', '.join(f'{s:.2f}' for s in found.shift)} pixels")
    return 0


def _same_frames(first: str, second: str) -> tuple[bool, str]:
    """Tell by the record of two results whether they were made from the same frames, and what is to be said of that."""
    inputs = [_input(path) for path in (first, second)]
    if any(not found[0] for found in inputs):
        return False, "note: a file does not say which frames it is from; two of the same frames share their noise"
    if inputs[0][0] != inputs[1][0]:
        return False, ""
    (_, *one), (_, *other) = inputs
    if one == other:
        return True, (
            "WARNING: both are from the same frames (one SHA-256), with the same noise: this is repeatability, not "
            "resolution. For that use quality.halves=true, two scans, or data.views=::2 and 1::2"
        )
    return (
        False,
        f"note: both are from one file, views {one[0] or 'all'} and {other[0] or 'all'}; shared ones share noise",
    )


def _input(path: str) -> tuple[str, str, str]:
    """Read the checksum of the input of a result, which views of it were taken by name, and how many."""
    import tomllib

    from ..io import results

    if path.endswith((".npy", ".tif", ".tiff")):
        return "", "", ""
    record = results.process(path)
    chosen = tomllib.loads(record.get("config", "")).get("data", {}).get("views", "")
    return record.get("input", {}).get("sha256", ""), str(chosen), record.get("scan", {}).get("views", "")


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
