"""TIFF: a folder of frames, or one file of many pages, with angles in a text file beside them."""

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np

from .._optional import require
from ..errors import InputError
from ._lazy import PerView
from ._source import Source

_SUFFIXES = (".tif", ".tiff")


def probe(source: Source) -> bool:
    """Whether this is a TIFF file or a folder with some."""
    if source.path.is_dir():
        return any(p.suffix.lower() in _SUFFIXES for p in source.path.iterdir())
    return source.path.suffix.lower() in _SUFFIXES


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Frames (lazy); flats, darks and angles from files and folders of these names."""
    require("tifffile", "tiff")
    if source.path.is_file():
        return {"counts": _pages(source.path)}
    frames = [p for p in tiff_files(source.path) if not re.search(r"flat|dark|white", p.name, re.IGNORECASE)]
    if not frames:
        raise InputError(f"{source.path}: no TIFF frames besides flats and darks")
    found: dict[str, Any] = {"counts": _pages(frames[0]) if len(frames) == 1 else _files(frames)}
    source.say(f"{len(frames)} TIFF files from {frames[0].name} to {frames[-1].name}, in the order of their numbers")
    for key, pattern in (("flats", r"flat|white"), ("darks", r"dark")):
        files = [p for p in _besides(source.path) if re.search(pattern, p.name, re.IGNORECASE)]
        if files:
            found[key] = np.concatenate([np.asarray(_pages(p)) for p in files])
            source.say(f"{key} from {files[0].relative_to(source.path)}" + (" ..." if len(files) > 1 else ""))
    angles = [
        p
        for p in sorted(source.path.iterdir())
        if p.suffix.lower() in (".txt", ".csv", ".dat", ".npy") and re.search(r"angle|theta|rot", p.name, re.IGNORECASE)
    ]
    if angles:
        found["angles"] = load_table(angles[0])
        source.say(f"angles from {angles[0].name}")
    return found


def tiff_files(folder: Path) -> list[Path]:
    """TIFF files of a folder, `frame_9` before `frame_10`."""
    return sorted((p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES), key=_by_number)


def _by_number(path: Path) -> list[tuple[bool, int, str]]:
    return [(t.isdigit(), int(t) if t.isdigit() else 0, t) for t in re.split(r"(\d+)", path.name)]


def load_table(path: Path) -> np.ndarray:
    """Numbers of a text file (columns by spaces or commas, lines with # left out) or of a .npy file.

    **Raises:** `InputError` when it holds something else.
    """
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        lines = path.read_text().replace(",", " ").replace(";", " ").splitlines()
        return np.loadtxt(lines, ndmin=1)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a table of numbers ({str(error).splitlines()[0]})") from error


def _besides(folder: Path) -> list[Path]:
    """TIFF files of the folder and of its subfolders of flats and darks (whose name then counts)."""
    inner = [d for d in sorted(folder.iterdir()) if d.is_dir() and re.search(r"flat|dark|white", d.name, re.IGNORECASE)]
    return tiff_files(folder) + [p for d in inner for p in tiff_files(d)]


def _files(paths: list[Path]) -> PerView:
    first = _image(paths[0])
    if first.ndim != 2:
        raise InputError(f"{paths[0]}: a TIFF of shape {first.shape} in a folder of frames; expected one image a file")
    return PerView(functools.partial(_one_of, paths, first.shape), len(paths), first.shape, first.dtype)


def _one_of(paths: list[Path], shape: tuple[int, ...], view: int) -> np.ndarray:
    image = _image(paths[view])
    if image.shape != shape:
        raise InputError(f"{paths[view]}: shape {image.shape} where the first frame has {shape}")
    return image


def _image(path: Path) -> np.ndarray:
    try:
        return require("tifffile", "tiff").imread(path)
    except Exception as error:  # tifffile, zlib and imagecodecs each raise their own
        raise InputError(f"{path}: the TIFF file cannot be read ({str(error).splitlines()[0]})") from error


def _pages(path: Path) -> np.ndarray:
    image = _image(path)
    return image[None] if image.ndim == 2 else image
