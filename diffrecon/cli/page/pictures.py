"""Arrays of a result as the viewer takes them: 16-bit numbers with their range, packed."""

import base64
import dataclasses
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..._result import Quantity, Result

_MOST_VOXELS = 6_000_000  # of all volumes together: 12 MB, 16 in base 64, before they are packed
_MOST_PIXELS = 1024  # of a picture, along its longer side
_MOST_MODES = 4
# Anchors of colour tables, red, green and blue; the viewer is linear between them (cividis, twilight of matplotlib).
_ANCHORS = {
    "grey": "000000 ffffff",
    "cividis": "00224e 123570 3b496c 575d6d 707173 8a8678 a59c74 c3b369 e1cc55 fee838",
    "twilight": "e2d9e2 9ebbc9 6785be 5e43a5 421257 2f1436 591a43 972c50 c06b64 d4b1a1 e2d9e2",
    "diverging": "1f4e9c 6f9bd1 c9dbee f5f5f5 f3cdb9 d9825f a3301f",
}


def colour_tables() -> dict[str, list[str]]:
    """Colours from the lowest to the highest value, by name; all are told apart with every kind of colour vision."""
    return {name: anchors.split() for name, anchors in _ANCHORS.items()}


def panes(result: Result) -> list[dict[str, Any]]:
    """Describe every picture: name, unit, shape, pixel, range, colours and packed values."""
    volumes = sum(_is_volume(q) for q in result.quantities.values())
    found, phase = [], result.quantities.get("phase")
    for name, quantity in result.quantities.items():
        if quantity.kind == "complex" and phase is not None and np.shape(phase.data) == np.shape(quantity.data):
            # The result's own phase, none where the object was not seen, says where the modulus means something.
            seen = np.where(np.isfinite(phase.data), np.abs(quantity.data), np.nan)
            quantity = dataclasses.replace(quantity, data=seen, kind="image", long_name="modulus")
        for title, data, unit, colours in _parts(name, quantity):
            found.append(_pane(title, data, unit, colours, quantity, _MOST_VOXELS // max(volumes, 1)))
    return found


def _is_volume(quantity: Quantity) -> bool:
    return quantity.kind == "volume" and np.ndim(quantity.data) == 3


def _parts(name: str, quantity: Quantity) -> Iterator[tuple[str, np.ndarray, str, str]]:
    """Yield title, real values, unit and colours of what can be seen as pictures."""
    data, title = np.asarray(quantity.data), quantity.long_name or name.replace("_", " ")
    if data.dtype.kind not in "fiucb" or data.ndim < 2 or min(data.shape[-2:]) < 4:
        return
    if quantity.kind in ("positions", "data", "orientation", "direction"):
        return
    if quantity.kind == "modes" and data.ndim == 3:
        for index, mode in enumerate(data[:_MOST_MODES]):
            yield f"{title} {index}, modulus", np.abs(mode), quantity.units, "cividis"
            yield f"{title} {index}, phase", np.angle(mode), "rad", "twilight"
    elif np.iscomplexobj(data) and data.ndim in (2, 3):
        yield f"{title}, modulus", np.abs(data), quantity.units, "cividis"
        yield f"{title}, phase", np.angle(data), "rad", "twilight"
    elif data.ndim == 2 or _is_volume(quantity):
        yield title, data.astype(np.float32), quantity.units, "grey"


def _pane(title: str, data: np.ndarray, unit: str, colours: str, quantity: Quantity, voxels: int) -> dict[str, Any]:
    step = _step(data.shape, voxels)
    small, known = _binned(data, step)
    inside = small[known]
    low, high = (float(inside.min()), float(inside.max())) if inside.size else (0.0, 1.0)
    scale = (high - low) or 1.0
    counts = np.where(known, 1 + np.round((np.nan_to_num(small) - low) / scale * 65534), 0).astype("<u2")
    start, end = np.percentile(inside[:: max(1, inside.size // 200_000)], (0.5, 99.5)) if inside.size else (0.0, 1.0)
    if colours == "twilight":  # once around
        start, end = -np.pi, np.pi
    pixel = None if quantity.pixel_size is None else step * float(np.mean(np.asarray(quantity.pixel_size, float)))
    note = f"mean of {step} x {step}{f' x {step}' if data.ndim == 3 else ''} pixels" if step > 1 else ""
    return {
        "title": title, "unit": unit, "axes": list(quantity.axes[-data.ndim :]), "colours": colours,
        "shape": list(counts.shape), "pixel": pixel, "step": step, "note": note, "low": low, "high": high,
        "start": float(start), "end": float(end) if end > start else high,
        "values": base64.b64encode(zlib.compress(counts.tobytes(), 1)).decode(),
    }  # fmt: skip


def _step(shape: tuple[int, ...], voxels: int) -> int:
    if len(shape) == 2:
        return -(-max(shape) // _MOST_PIXELS)
    step = 1
    while np.prod([-(-n // step) for n in shape]) > voxels:
        step += 1
    return step


def _binned(data: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Average what is known in blocks of `step` along every axis; say which blocks are known by more than half.

    The last blocks hold what is left.
    """
    values = np.asarray(data, np.float32)
    known = np.isfinite(values)
    if step == 1:
        return values, known
    total, count, size = np.where(known, values, 0), known.astype(np.float32), np.ones((), np.float32)
    for axis, length in enumerate(data.shape):
        starts = np.arange(0, length, step)
        total, count = (np.add.reduceat(a, starts, axis=axis) for a in (total, count))
        size = np.multiply.outer(size, np.diff(np.append(starts, length)))
    return total / np.maximum(count, 1), count > 0.5 * size
