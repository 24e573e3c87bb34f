"""`Source`: the input as every reader sees it, with HDF5 access that answers in plain words."""

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .. import physics
from ..errors import InputError
from ..scan import need_filters

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class Source(contextlib.AbstractContextManager["Source"]):
    """A file or folder, opened when it is HDF5; collects the messages of its reader.

    **Raises:** `InputError` when it does not exist, cannot be read, is empty or is a damaged HDF5 file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.name = self.path.name
        self.messages: list[str] = []
        self.file: Any = None
        if not self.path.exists():
            raise InputError(f"{path}: no such file or folder")
        if self.path.is_file():
            self._open()

    def _open(self) -> None:
        import h5py

        try:
            with open(self.path, "rb") as file:
                head = file.read(8)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror}") from error
        if not head:
            raise InputError(f"{self.path}: the file is empty")
        if not (head == HDF5_SIGNATURE or h5py.is_hdf5(self.path)):
            return
        try:
            self.file = h5py.File(self.path, "r")
        except OSError as error:
            raise InputError(
                f"{self.path}: the HDF5 file is damaged or incomplete ({str(error).splitlines()[0]}); copy it again"
            ) from error

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.file is not None:
            with contextlib.suppress(RuntimeError, OSError):
                self.file.close()
        # A file with damaged inner tables opens, and then fails anywhere and in many ways, all of them inside h5py.
        if isinstance(error, Exception) and not isinstance(error, InputError | ImportError) and _raised_by_h5py(trace):
            said = " ".join(str(error).split())[:150]
            raise InputError(f"{self.path}: the HDF5 file is damaged or incomplete ({said}); copy it again") from error

    def say(self, message: str) -> None:
        """Something the reader decided and the user should know."""
        self.messages.append(message)

    # ------------------------------------------------------------------ HDF5
    def has(self, name: str) -> bool:
        """Whether a group or dataset is there and its links lead somewhere."""
        return self.file is not None and self.file.get(name) is not None

    def dataset(self, name: str, what: str) -> Any:
        """A dataset of the file.

        **Raises:** `InputError` when it is missing, when its external link leads nowhere, or when it is a group.
        """
        import h5py

        found = self.file.get(name)
        if isinstance(found, h5py.Dataset):
            return found
        link = self.file.get(name, getlink=True) if found is None and _parent_exists(self.file, name) else None
        if isinstance(link, h5py.ExternalLink):
            raise InputError(
                f"{self.name}: {name} ({what}) is a link to {link.filename}:{link.path}, which is not there; "
                "put that file beside this one"
            )
        if found is not None:
            raise InputError(f"{self.name}: {name} ({what}) is a group, not a dataset")
        raise InputError(f"{self.name}: there is no dataset {name} ({what}); datasets: {self.listing()}")

    def array(self, name: str, what: str) -> np.ndarray:
        """A dataset, read whole.

        **Raises:** `InputError` as `dataset`, or when its data cannot be read.
        """
        stored = self.dataset(name, what)
        need_filters(stored)
        try:
            return np.asarray(stored[()])
        except OSError as error:
            raise InputError(
                f"{self.name}: {name} cannot be read, the file is damaged or incomplete ({str(error).splitlines()[0]})"
            ) from error

    def number(self, name: str, what: str, unit: str = "") -> float:
        """A scalar dataset in the base unit `unit`, by its `units` attribute where it has one.

        **Raises:** `InputError` when it is not one number.
        """
        values = np.ravel(self.array(name, what))
        if values.size != 1 or values.dtype.kind not in "iuf":
            raise InputError(f"{self.name}: {name} ({what}) is not one number but {values.size} of type {values.dtype}")
        written = self.units(name)
        return float(values[0]) * (physics.unit_scale(written, unit) if written and unit else 1.0)

    def units(self, name: str) -> str | None:
        """The `units` attribute of a dataset, `None` without one."""
        for key in ("units", "unit"):
            value = self.file[name].attrs.get(key)
            if value is not None:
                return text(value)
        return None

    def datasets(self, most: int = 10_000) -> list[Any]:
        """Every dataset inside this file, in order (external links are not followed)."""
        import h5py

        found: list[Any] = []

        def visit(_: str, item: Any) -> bool | None:
            if isinstance(item, h5py.Dataset):
                found.append(item)
            return True if len(found) >= most else None

        self.file.visititems(visit)
        return found

    def listing(self, most: int = 8) -> str:
        """The biggest datasets with their shapes, for messages."""
        found = sorted(self.datasets(), key=lambda d: -d.size)
        said = [f"{d.name} {tuple(d.shape)}" for d in found[:most]]
        return ", ".join(said) + (", ..." if len(found) > most else "") if said else "none"


def _raised_by_h5py(trace: TracebackType | None) -> bool:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and "h5py" in trace.tb_frame.f_code.co_filename


def text(value: Any) -> str:
    """A text attribute or dataset, however it was stored."""
    value = value[0] if isinstance(value, np.ndarray) and value.size == 1 else value
    return value.decode(errors="replace").strip() if isinstance(value, bytes) else str(value).strip()


def _parent_exists(file: Any, name: str) -> bool:
    parent = name.rstrip("/").rpartition("/")[0]
    return not parent or file.get(parent) is not None
