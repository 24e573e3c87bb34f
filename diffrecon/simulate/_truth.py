"""What every simulation keeps beside the measurement: its truth, and the setup that it can be made from again."""

import dataclasses
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..io import atomically, edit_hdf5, write_scan
from ..scan import Scan


def write_with_truth(path: str | Path, scan: Scan, truth: dict[str, np.ndarray], setup: Any = None) -> None:
    """Write a scan in diffrecon's own layout, with the truth, and the fields of a setup, under `/truth`."""
    fields = {} if setup is None else dataclasses.asdict(setup)
    with atomically(Path(path)) as temporary:
        write_scan(temporary, scan)
        with edit_hdf5(temporary) as file:
            for name, value in (truth | {f"setup_{k}": v for k, v in fields.items()}).items():
                file[f"truth/{name}"] = value


def read_truth(path: str | Path, *names: str) -> list[np.ndarray]:
    """Read what `write_with_truth` kept."""
    with h5py.File(path, "r") as file:
        return [np.asarray(file[f"truth/{name}"]) for name in names]


def read_setup(path: str | Path, like: Any) -> Any:
    """Make the setup that `write_with_truth` kept, of the type and with the kinds of numbers of another."""
    kinds = {name: type(value) for name, value in dataclasses.asdict(like).items()}
    values = read_truth(path, *(f"setup_{name}" for name in kinds))
    return type(like)(**{name: kind(value) for (name, kind), value in zip(kinds.items(), values, strict=True)})
