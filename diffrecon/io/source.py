"""`Source`: the input as every reader sees it, with HDF5 access that answers in plain words."""

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .. import physics
from ..errors import InputError
from ..frames import Frames, live_hdf5, need_filters, open_hdf5

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class Source(contextlib.AbstractContextManager["Source"]):
    """A file or folder, opened when it is HDF5; collects the messages of its reader.

    **Raises:** `InputError` when it does not exist, cannot be read, is empty or is a damaged HDF5 file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.name = self.path.name
        self.messages: list[str] = []
        self.file_units: dict[str, str] = {}  # of arrays that came from files beside this one
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
            self.file = open_hdf5(self.path)
        except OSError as error:
            if "already open for" in str(error):
                raise InputError(
                    f"{self.path}: another program is writing this file without letting others read (SWMR mode); wait "
                    "until it has finished (if it has crashed: h5clear -s)"
                ) from error
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
        """Note something the reader decided and the user should know."""
        self.messages.append(message)

    # ------------------------------------------------------------------ HDF5
    @property
    def live(self) -> bool:
        """Tell whether another program is writing the file (SWMR)."""
        return self.file is not None and bool(self.file.swmr_mode)

    def follow_live_links(self) -> None:
        """Open the file anew so that links into files that are being written lead there."""
        self.file.close()
        self.file = live_hdf5(self.path)

    def has(self, name: str) -> bool:
        """Tell whether a group, a dataset or an attribute (`path@name`) is there and its links lead somewhere."""
        path, _, attribute = name.partition("@")
        found = None if self.file is None else self.file.get(path or "/")
        return found is not None and (not attribute or attribute in found.attrs)

    def dataset(self, name: str, what: str) -> Any:
        """Give a dataset of the file.

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
        """Read a dataset, or an attribute (`path@name`), as a whole.

        **Raises:** `InputError` as `dataset`, or when its data cannot be read.
        """
        if "@" in name:
            return self._attribute(name, what)
        stored = self.dataset(name, what)
        need_filters(stored)
        try:
            return np.asarray(stored[()])
        except OSError as error:
            raise InputError(
                f"{self.name}: {name} cannot be read, the file is damaged or incomplete ({str(error).splitlines()[0]})"
            ) from error

    def _attribute(self, name: str, what: str) -> np.ndarray:
        path, _, attribute = name.partition("@")
        owner = self.file.get(path or "/")
        if owner is None:
            raise InputError(f"{self.name}: there is no {path} ({what}); datasets: {self.listing()}")
        if attribute not in owner.attrs:
            there = ", ".join(owner.attrs) or "none"
            raise InputError(f"{self.name}: {path} has no attribute {attribute} ({what}); attributes: {there}")
        return np.asarray(owner.attrs[attribute])

    def frames(self, name: str) -> Any:
        """Give a dataset of frames (view, y, x), in the file; a single frame (y, x) as a stack of one, in memory."""
        stored = self.dataset(name, "frames")
        return self.array(name, "frames")[None] if stored.ndim == 2 else Frames(self.path, name)

    def number(self, name: str, what: str, unit: str = "") -> float:
        """Read a scalar dataset in the base unit `unit`, by its `units` attribute where it has one.

        **Raises:** `InputError` when it is not one number.
        """
        values = np.ravel(self.array(name, what))
        if values.size != 1 or values.dtype.kind not in "iuf":
            raise InputError(f"{self.name}: {name} ({what}) is not one number but {values.size} of type {values.dtype}")
        written = self.units(name)
        return float(values[0]) * (physics.unit_scale(written, unit) if written and unit else 1.0)

    def units(self, name: str) -> str | None:
        """Read the `units` attribute of a dataset, `None` without one."""
        if "@" in name:
            return None
        for key in ("units", "unit"):
            value = self.file[name].attrs.get(key)
            if value is not None:
                return text(value)
        return None

    def datasets(self, most: int = 10_000) -> list[Any]:
        """List every dataset inside this file, in order (external links are not followed)."""
        import h5py

        found: list[Any] = []

        def visit(_: str, item: Any) -> bool | None:
            if isinstance(item, h5py.Dataset):
                found.append(item)
            return True if len(found) >= most else None

        self.file.visititems(visit)
        return found

    def listing(self, most: int = 8) -> str:
        """List the biggest datasets with their shapes, for messages."""
        found = sorted(self.datasets(), key=lambda d: -d.size)
        said = [f"{d.name} {tuple(d.shape)}" for d in found[:most]]
        return ", ".join(said) + (", ..." if len(found) > most else "") if said else "none"


def _raised_by_h5py(trace: TracebackType | None) -> bool:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and "h5py" in trace.tb_frame.f_code.co_filename


def text(value: Any) -> str:
    """Read a text attribute or dataset, however it was stored."""
    value = value[0] if isinstance(value, np.ndarray) and value.size == 1 else value
    return value.decode(errors="replace").strip() if isinstance(value, bytes) else str(value).strip()


def _parent_exists(file: Any, name: str) -> bool:
    parent = name.rstrip("/").rpartition("/")[0]
    return not parent or file.get(parent) is not None
