"""What lies under the name of an output: a result of the same run may be replaced, nothing else without being asked."""

import json
from pathlib import Path
from typing import Any

from .._identity import Identity, difference
from ..errors import InputError

__all__ = ["refuse_other_result"]


def refuse_other_result(path: str | Path, identity: Identity) -> None:
    """Refuse to replace a file that is no result of this input by these settings (the version does not count).

    **Raises:** `InputError` that says what differs.
    """
    path = Path(path)
    if not path.exists():
        return
    advice = "give the new one another name with -o, or replace it with --force"
    kept = _kept(path)
    if kept is None:
        raise InputError(f"{path}: is there already, and is no result of which the settings are known; {advice}")
    if differs := difference(kept, identity):
        raise InputError(f"{path}: holds a result that differs in {differs}; {advice}")


def _kept(path: Path) -> dict[str, str] | None:
    """Read what a result was made of, in each format that says it."""
    try:
        if path.is_dir():  # OME-Zarr
            made = json.loads((path / "zarr.json").read_text())["attributes"]["diffrecon"]["process"]
        elif path.suffix.lower() in (".tif", ".tiff"):
            made = json.loads(path.with_name(f"{path.name}.json").read_text())["process"]
        else:
            made = _of_hdf5(path)
        return dict(json.loads(made["identity"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _of_hdf5(path: Path) -> dict[str, Any]:
    import h5py

    with h5py.File(path, "r") as file:
        entry: Any = file.get("entry", file.get("entry_1"))
        groups = [] if entry is None else [entry, *(g for g in entry.values() if isinstance(g, h5py.Group))]
        made = [group[name] for group in groups for name in ("process", "process_1") if name in group]
        said = [group["identity"][()] for group in made if "identity" in group]
        return {"identity": said[0]} if said else {}
