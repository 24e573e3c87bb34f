"""`Source`: the input as every reader sees it, with HDF5 access that answers in plain words."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .. import physics
from .._hdf5 import live_hdf5, native, need_filters, need_sources, open_hdf5
from ..errors import InputError
from ..frames import Frames

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path) -> bool:
    """Tell an HDF5 file by its first bytes.

    **Raises:** `InputError` when it is empty or cannot be read.
    """
    import h5py

    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if not head:
        raise InputError(f"{path}: the file is empty")
    return head == HDF5_SIGNATURE or bool(h5py.is_hdf5(path))


class Source(contextlib.AbstractContextManager["Source"]):
    """A file or folder, opened when it is HDF5; collects the messages of its reader.

    **Raises:** `InputError` when it does not exist, cannot be read, is empty or is a damaged HDF5 file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.name = self.path.name
        self.messages: list[str] = []
        self.file_units: dict[str, str] = {}  # of arrays that came from files beside this one
        self.beside: list[Path] = []  # other files that were read
        self.file: Any = None
        if not self.path.exists():
            raise InputError(f"{path}: no such file or folder")
        if self.path.is_file():
            self._open()

    def _open(self) -> None:
        if not is_hdf5(self.path):
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

    def linked(self, name: str) -> bool:
        """Tell whether there is such a dataset, or a link to one that may be missing."""
        if self.file is None:
            return False
        return self.has(name) or (_parent_exists(self.file, name) and self.file.get(name, getlink=True) is not None)

    def dataset(self, name: str, what: str) -> Any:
        """Give a dataset of the file.

        **Raises:** `InputError` when it is missing, when its external link leads nowhere, or when it is a group.
        """
        import h5py

        found = self.file.get(name)
        if isinstance(found, h5py.Dataset):
            if found.shape is None:
                raise InputError(f"{self.name}: {name} ({what}) is an empty dataset, without any value")
            need_sources(found)
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
            values = np.asarray(stored[()])
        except OSError as error:
            raise InputError(
                f"{self.name}: {name} cannot be read, the file is damaged or incomplete ({str(error).splitlines()[0]})"
            ) from error
        return values.astype(native(values.dtype), copy=False)

    def _attribute(self, name: str, what: str) -> np.ndarray:
        path, _, attribute = name.partition("@")
        owner = self.file.get(path or "/")
        if owner is None:
            raise InputError(f"{self.name}: there is no {path} ({what}); datasets: {self.listing()}")
        if attribute not in owner.attrs:
            there = ", ".join(owner.attrs) or "none"
            raise InputError(f"{self.name}: {path} has no attribute {attribute} ({what}); attributes: {there}")
        return np.asarray(owner.attrs[attribute])

    def frames(self, name: str, what: str = "frames") -> Any:
        """Give a dataset of frames (view, y, x), in the file; one of two axes in memory."""
        stored = self.dataset(name, what)
        if stored.dtype.kind not in "iuf":
            raise InputError(f"{self.name}: {name} ({what}) is of type {stored.dtype}, not numbers")
        if stored.ndim < 2:
            raise InputError(f"{self.name}: {name} ({what}) has shape {stored.shape}; expected (view, y, x)")
        return self.array(name, what) if stored.ndim == 2 else Frames(self.path, name)

    def numbers(
        self, name: str, what: str, shape: tuple[int | None, ...] | None = None, finite: bool = False
    ) -> np.ndarray:
        """Read an array of numbers.

        **Arguments:** `shape` that it must have, `None` for an axis of any length; `finite`: no NaN, no infinity.

        **Raises:** `InputError` as `array`, for text, another shape, numbers that are not finite.
        """
        values = self.array(name, what)
        if values.dtype.kind not in "iufb":
            raise InputError(f"{self.name}: {name} ({what}) holds {_kind(values)}, not numbers")
        if shape is not None and (
            values.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, values.shape, strict=True))
        ):
            expected = ", ".join("any" if n is None else str(n) for n in shape)
            raise InputError(f"{self.name}: {name} ({what}) has shape {values.shape}; expected ({expected})")
        if finite and not (values.size and np.isfinite(values).all()):
            raise InputError(f"{self.name}: {name} ({what}) holds numbers that are not finite, or none")
        return values

    def names(self, name: str, what: str) -> list[str]:
        """Read a list of different texts.

        **Raises:** `InputError` as `array`, and for anything else.
        """
        values = self.array(name, what)
        texts = values.ndim == 1 and values.dtype.kind in "SUO"
        found = [text(value) for value in values] if texts else []
        if not found or not all(found) or len(set(found)) < len(found):
            held = f"{', '.join(found[:4])}" if found else f"{_kind(values)} of shape {values.shape}"
            raise InputError(f"{self.name}: {name} ({what}) holds {held}; expected a list of different names")
        return found

    def one(self, name: str, what: str, positive: bool = False) -> float:
        """Read a single finite number, a dataset or an attribute.

        **Raises:** `InputError` as `numbers`, for several, and for one that is to be `positive` and is not.
        """
        values = np.ravel(self.numbers(name, what))
        if values.size != 1 or not np.isfinite(values).all():
            said = f"{values[0]}" if values.size == 1 else f"{values.size} values"
            raise InputError(f"{self.name}: {name} ({what}) is {said}; expected one finite number")
        if positive and not values[0] > 0:
            raise InputError(f"{self.name}: {name} is {values[0]:g}; expected a number above zero")
        return float(values[0])

    def words(self, name: str) -> str:
        """Read a text; an empty one where there is none, or something else."""
        try:
            values = self.array(name, "text")
        except InputError:
            return ""
        return text(values.ravel()[0]) if values.size == 1 and values.dtype.kind in "SUO" else ""

    def maybe_numbers(self, name: str, what: str) -> np.ndarray | None:
        """Read an array of numbers that is not needed; what cannot be used is left out with a message."""
        if not self.has(name):
            return None
        try:
            return self.numbers(name, what)
        except InputError as error:
            self.say(f"{str(error).removeprefix(f'{self.name}: ')}: not used")
            return None

    def number(self, name: str, what: str, unit: str = "") -> float | None:
        """Read one number in the base unit `unit`, by its `units` attribute where it has one; as many equal ones are
        one.

        What cannot be used (text, none, a number that is not finite, several, an unknown unit) is left out with a
        message that names file and dataset: the user can say the value, and not every method needs it.
        """
        if not self.has(name):
            return None
        try:
            return self._number(name, what, unit)
        except InputError as error:
            self.say(f"{name} ({what}) is not used: {str(error).removeprefix(f'{self.name}: ')}")
            return None

    def _number(self, name: str, what: str, unit: str) -> float:
        values, written = np.ravel(self.array(name, what)), self.units(name)
        if values.dtype.kind in "SUO" and values.size == 1:
            said = text(values)
            return physics.quantity(f"{said} {written}" if written and _is_number(said) else said, unit)
        if values.dtype.kind not in "iuf":
            raise InputError(f"it holds {_kind(values)}, not a number")
        finite = values[np.isfinite(values)].astype(float)
        if not finite.size:
            raise InputError("it holds no finite number")
        if np.ptp(finite) > 1e-3 * np.abs(finite).max():
            raise InputError(f"it holds {values.size} different numbers from {finite.min():g} to {finite.max():g}")
        return float(np.mean(finite)) * (physics.unit_scale(written, unit) if written and unit else 1.0)

    def energy(self, *names: str) -> float | None:
        """Read the photon energy [eV] from the first of these datasets that is there; one that is no X-ray energy is
        left out with a message."""
        name = next((n for n in names if self.has(n)), None)
        value = None if name is None else self.number(name, "photon energy")
        if name is None or value is None:
            return None
        try:
            energy, message = physics.plausible_energy(value, self.units(name))
        except InputError as error:
            self.say(f"{name} (photon energy) is not used: {error}")
            return None
        self.say(message + (", which looks like a value that nobody has filled in" if value == 1 else ""))
        return energy

    def units(self, name: str) -> str | None:
        """Read the `units` attribute of a dataset, `None` without one; words after it, as `(row, column)`, are left."""
        if "@" in name:
            return None
        for key in ("units", "unit"):
            try:
                value = self.file[name].attrs.get(key)
            except (KeyError, OSError, TypeError):  # a type that NumPy does not know
                continue
            if value is not None:
                return re.split(r"\s\(|;", text(value))[0].strip() or None
        return None

    def walk(self, group: str = "/", depth: int = 8, most: int = 20_000) -> Iterator[tuple[str, Any]]:
        """Go through everything below a group, in order and through links of every kind: path and object.

        Links that lead nowhere are passed over, and those that lead back to where one comes from are not followed.
        """
        import h5py

        start = None if self.file is None else self.file.get(group)
        waiting = [] if start is None else [(group.strip("/"), start, (identity(start),))]
        for _ in range(most):
            if not waiting:
                return
            path, item, way = waiting.pop()
            if path:
                yield path, item
            if not isinstance(item, h5py.Group) or len(way) > depth:
                continue
            inner = [(f"{path}/{key}".lstrip("/"), _follow(item, str(key))) for key in item]
            waiting += [
                (name, found, (*way, identity(found)))
                for name, found in reversed(inner)
                if found is not None and identity(found) not in way
            ]

    def datasets(self, most: int = 10_000) -> list[tuple[str, Any]]:
        """List every dataset and its path, those behind links too."""
        import h5py

        return [(name, item) for name, item in self.walk(most=most) if isinstance(item, h5py.Dataset)]

    def listing(self, most: int = 8) -> str:
        """List the biggest datasets with their shapes, for messages."""
        found = sorted(self.datasets(), key=lambda pair: -(pair[1].size or 0))
        said = [f"/{name} {tuple(stored.shape or ())}" for name, stored in found[:most]]
        return ", ".join(said) + (", ..." if len(found) > most else "") if said else "none"


def _raised_by_h5py(trace: TracebackType | None) -> bool:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and "h5py" in trace.tb_frame.f_code.co_filename


def _follow(group: Any, key: str) -> Any:
    try:
        return group.get(key)
    except (OSError, RuntimeError):  # a link into a file that is no HDF5
        return None


def identity(item: Any) -> tuple[str, int]:
    """Tell objects of HDF5 files apart, whatever the links that lead to them."""
    import h5py.h5o

    # Not the number of the file: it changes when a file behind a link is opened again.
    return item.file.filename, h5py.h5o.get_info(item.id).addr


def _kind(values: np.ndarray) -> str:
    return "text" if values.dtype.kind in "SUO" else f"values of type {values.dtype}"


def _is_number(said: str) -> bool:
    try:
        float(said)
    except ValueError:
        return False
    return True


def text(value: Any) -> str:
    """Read a text attribute or dataset, however it was stored."""
    value = value[0] if isinstance(value, np.ndarray) and value.size == 1 else value
    return value.decode(errors="replace").strip() if isinstance(value, bytes) else str(value).strip()


def _parent_exists(file: Any, name: str) -> bool:
    import h5py

    parent = name.rstrip("/").rpartition("/")[0]
    return not parent or isinstance(file.get(parent), h5py.Group)
