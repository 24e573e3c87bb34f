"""A folder of images, or one file of many pages: frames, flats and darks by name, angles from a table beside them.

Folders of the ESRF's EDF scans are known too: `<scan>0000.edf`, `refHST0000.edf` (flats by the view before which they
were taken), `dark.edf`, and the `.info` file with range, energy, distance and pixel.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .._images import ImageStack, images_in, is_image
from .._tables import load_table
from ..source import Source

_FLAT = r"flat|white|(?<![a-z])ref(?![a-df-z])|refhst|(?<![a-z])ob(?![a-z])"
_DARK = r"dark"


def probe(source: Source) -> bool:
    """Tell whether this is an image file or a folder with some."""
    if source.path.is_dir():
        return any(is_image(p) for p in source.path.iterdir())
    return is_image(source.path)


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Read frames (lazy); flats, darks and angles from files and folders of these names."""
    if source.path.is_file():
        return {"counts": ImageStack([source.path])} | _angles(source, source.path.parent, source.path.stem)
    frames = [p for p in images_in(source.path) if not re.search(f"{_FLAT}|{_DARK}", p.name, re.IGNORECASE)]
    if not frames:
        raise InputError(f"{source.path}: no image besides flats and darks")
    info = _info(source)
    views = int(info.get("tomo_n", len(frames)))
    if 0 < views < len(frames):
        source.say(f"the last {len(frames) - views} of {len(frames)} images (after the scan) are left out")
        frames = frames[:views]
    source.say(f"{len(frames)} images from {frames[0].name} to {frames[-1].name}, in the order of their numbers")
    found: dict[str, Any] = {"counts": ImageStack(frames), **_of_info(info, len(frames))}
    for key, pattern in (("flats", _FLAT), ("darks", _DARK)):
        files = _of_kind(source.path, pattern)
        if files and key not in given:
            parts = [np.asarray(ImageStack([p])) for p in files]
            found[key] = np.concatenate(parts)
            source.say(f"{key} from {files[0].relative_to(source.path)}" + (" ..." if len(files) > 1 else ""))
            times = [re.search(r"refHST(\d+)", p.name) for p in files]
            if all(times):
                found["flat_views"] = np.repeat([float(t[1]) for t in times if t], [len(p) for p in parts])
    return found | _angles(source, source.path, "")


def _of_kind(folder: Path, pattern: str) -> list[Path]:
    """Images of the folder, and of subfolders, whose name says so; of the ESRF's the averages where there are some."""
    named = lambda path: re.search(pattern, path.name, re.IGNORECASE)
    inner = [d for d in sorted(folder.iterdir()) if d.is_dir() and named(d)]
    files = [p for p in images_in(folder) if named(p)] + [p for d in inner for p in images_in(d)]
    averages = [p for p in files if re.match(r"(refHST\d+|dark)\.edf", p.name)]
    return averages or files


def _angles(source: Source, folder: Path, stem: str) -> dict[str, Any]:
    """The table of angles in a folder, or that beside a file whose name begins like the file's."""
    for path in sorted(folder.iterdir()):
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
    if "tomo_n" in found:
        source.say(f"range, energy [keV], distance [mm] and pixel [um] from {files[0].name}")
    return found if "tomo_n" in found else {}


def _of_info(info: dict[str, float], views: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if info.get("scanrange"):
        found["angles"], found["angle_unit"] = np.arange(views) * info["scanrange"] / info["tomo_n"], "deg"
    for key, name, scale in (
        ("energy", "energy", 1e3),
        ("sample_to_detector", "distance", 1e-3),
        ("detector_pixel", "pixelsize", 1e-6),
    ):
        if info.get(name, 0) > 0:
            found[key] = info[name] * scale
    return found
