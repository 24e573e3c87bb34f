"""A folder of images, or one file of many pages: frames, flats and darks by name, angles from a table beside them.

Folders of the ESRF's EDF scans are known too: `<scan>0000.edf`, `refHST0000.edf` (flats by the view before which they
were taken), `dark.edf`, and the `.info` file with range, energy, distance and pixel.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .._images import ImageStack, images_in, is_image, pixel_of
from .._tables import load_table
from ..source import Source

# Words in the names of flats and darks.
_FLAT = ("flat", "white", "(?<![a-z])ref(?![a-df-z])", "refhst", "(?<![a-z])ob(?![a-z])")
_DARK = ("dark", "drk")


def probe(source: Source) -> bool:
    """Tell whether this is an image file or a folder with some."""
    if source.path.is_dir():
        return any(is_image(p) for p in source.path.iterdir())
    return is_image(source.path)


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Read frames (lazy); flats, darks and angles from files and folders of these names."""
    if source.path.is_file():
        found = {"counts": ImageStack([source.path])} | _pixel(source, source.path)
        return found | _angles(source, source.path.parent, source.path.stem)
    files = images_in(source.path)
    flat, dark = _telling(files)
    frames = [p for p in files if not _says(p, flat) and not _says(p, dark)]
    if not frames:
        raise InputError(f"{source.path}: no image besides flats and darks")
    info = _info(source)
    frames, ids = _numbered(source, frames, int(info.get("tomo_n", 0)))
    source.say(f"{len(frames)} images from {frames[0].name} to {frames[-1].name}, in the order of their numbers")
    found: dict[str, Any] = {"counts": ImageStack(frames), **_of_info(info), **_pixel(source, frames[0])}
    if ids is not None:
        found["frame_numbers"] = ids
    for key, words, every, other in (("flats", flat, _FLAT, dark), ("darks", dark, _DARK, flat)):
        files = _of_kind(source.path, words, lambda d, e=every, o=other: _says(d, e) and not _says(d, o))
        if files and key not in given:
            parts = [np.asarray(ImageStack([p])) for p in files]
            _refuse_unlike(files, parts)
            found[key] = np.concatenate(parts)
            source.say(f"{key} from {files[0].relative_to(source.path)}" + (" ..." if len(files) > 1 else ""))
            times = [re.search(r"refHST(\d+)", p.name) for p in files]
            if all(times):
                found["flat_views"] = np.repeat([float(t[1]) for t in times if t], [len(p) for p in parts])
    return _by_numbers(found | _angles(source, source.path, ""))


def _says(path: Path, words: Sequence[str]) -> bool:
    return bool(words) and re.search("|".join(words), path.name, re.IGNORECASE) is not None


def _telling(files: list[Path]) -> tuple[list[str], list[str]]:
    """The words that tell flats and darks from projections: one that is in the name of the sample says nothing."""
    flat: list[str] = [*_FLAT]
    dark: list[str] = [*_DARK]
    count = lambda word: sum(_says(p, [word]) for p in files)
    while files and all(_says(p, flat) or _says(p, dark) for p in files):
        common = max([*flat, *dark], key=count)
        if count(common) < len(files) / 2:
            break
        (flat if common in flat else dark).remove(common)
    return flat, dark


def _numbered(source: Source, frames: list[Path], planned: int) -> tuple[list[Path], np.ndarray | None]:
    """The frames of the scan and their numbers, where every name has one; what was taken after it is left out."""
    found = [re.findall(r"\d+", p.stem.partition(".")[0]) for p in frames]
    alike = {len(numbers) for numbers in found}
    ids = np.array([int(numbers[-1]) for numbers in found]) if len(alike) == 1 and alike != {0} else None
    if ids is not None and (np.diff(ids) <= 0).any():
        ids = None
    inside = np.arange(len(frames)) < planned if ids is None else ids < planned
    if planned and 0 < inside.sum() < len(frames):
        source.say(f"the last {int((~inside).sum())} of {len(frames)} images (after the scan) are left out")
        frames = [p for p, good in zip(frames, inside, strict=True) if good]
        ids = None if ids is None else ids[inside]
    return frames, ids


def _by_numbers(found: dict[str, Any]) -> dict[str, Any]:
    """Numbers of the frames, where some were dropped or angles are planned (then counted from 0)."""
    ids, planned, angles = found.pop("frame_numbers", None), found.pop("planned", False), found.get("angles")
    if ids is None or not isinstance(angles, np.ndarray) or len(angles) <= len(ids):
        return found
    if planned:
        return found | {"frame_ids": ids, "frame_base": 0}
    return found | ({"frame_ids": ids} if ids[-1] - ids[0] + 1 > len(ids) else {})


def _refuse_unlike(files: list[Path], parts: list[np.ndarray]) -> None:
    for path, part in zip(files, parts, strict=True):
        if part.shape[1:] != parts[0].shape[1:]:
            raise InputError(f"{path}: shape {part.shape[1:]} where {files[0].name} has {parts[0].shape[1:]}")
        if part.dtype != parts[0].dtype:
            raise InputError(f"{path}: numbers of type {part.dtype} where {files[0].name} has {parts[0].dtype}")


def _pixel(source: Source, path: Path) -> dict[str, Any]:
    pixel = pixel_of(path)
    if pixel is None:
        return {}
    source.say(f"pixel {pixel:.4g} m by ImageJ's tags in {path.name}")
    return {"detector_pixel": pixel}


def _of_kind(folder: Path, words: Sequence[str], likely: Callable[[Path], bool]) -> list[Path]:
    """Images of the folder, and of subfolders, whose name says so; of the ESRF's the averages where there are some."""
    folders = [d for d in sorted(folder.iterdir()) if d.is_dir() and not d.name.startswith(".")]
    inner = [d for d in folders if _says(d, words)] or [d for d in folders if likely(d)]
    files = [p for p in images_in(folder) if _says(p, words)] + [p for d in inner for p in images_in(d)]
    averages = [p for p in files if re.match(r"(refHST\d+|dark)\.edf", p.name)]
    return averages or files


def _angles(source: Source, folder: Path, stem: str) -> dict[str, Any]:
    """The table of angles in a folder, or that beside a file whose name begins like the file's."""
    for path in sorted(p for p in folder.iterdir() if not p.name.startswith(".")):
        own = path.name.startswith(stem) and re.search(r"angle|theta|rot", path.name[len(stem) :], re.IGNORECASE)
        if own and path.suffix.lower() in (".txt", ".csv", ".dat", ".npy"):
            values, unit = load_table(path, "angle|theta|rot")
            source.say(f"angles from {path.name}" + (f", in {unit} as it says" if unit else ""))
            return {"angles": values} | ({"angle_unit": unit} if unit else {})
    return {}


# ---------------------------------------------------------------------- the ESRF's .info
def _info(source: Source) -> dict[str, float]:
    """Numbers of the one `.info` file of the folder, by small-letter names."""
    files = sorted(source.path.glob("*.info"))
    if len(files) != 1:
        return {}
    found = {}
    for line in files[0].read_text(errors="replace").splitlines():
        name, _, value = line.partition("=")
        try:
            found[name.strip().lower()] = float(value)
        except ValueError:
            continue
    if not 1 <= found.get("tomo_n", np.nan) < 1e7:
        found.pop("tomo_n", None)
    if "tomo_n" in found:
        source.say(f"range, energy [keV], distance [mm] and pixel [um] from {files[0].name}")
    return found if "tomo_n" in found else {}


def _of_info(info: dict[str, float]) -> dict[str, Any]:
    """Angles of all views that were planned, and the geometry."""
    found: dict[str, Any] = {}
    if info.get("scanrange") and np.isfinite(info["scanrange"]):
        found["angles"], found["angle_unit"] = (
            np.arange(int(info["tomo_n"])) * info["scanrange"] / info["tomo_n"],
            "deg",
        )
        found["planned"] = True
    for key, name, scale in (
        ("energy", "energy", 1e3),
        ("sample_to_detector", "distance", 1e-3),
        ("detector_pixel", "pixelsize", 1e-6),
    ):
        if info.get(name, 0) > 0:
            found[key] = info[name] * scale
    return found
