"""Writing HDF5 so that the file appears whole or not at all, also when the disk fills up."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from ._lock import mine


def check_file(path: str | Path) -> Path:
    """Find out whether a file can be written as `path`.

    **Raises:** `InputError` when it is a folder, its folder is missing, or nothing can be written there.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is not an ordinary file")
    return check_place(path)


def check_place(path: Path) -> Path:
    """Find out whether something, a file or a folder, can be written under this name.

    **Raises:** `InputError` when its folder is missing or nothing can be written there.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise InputError(f"{path}: no permission to write there")
    return path


@contextlib.contextmanager
def in_plain_words(path: Path) -> Iterator[None]:
    """Turn failures of the disk into `InputError` about `path`."""
    try:
        yield
    except OSError as error:
        raise InputError(_words(path, error)) from error


@contextlib.contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """Give a temporary name in the same folder, renamed at the end; removed when anything goes wrong.

    **Raises:** `InputError` in plain words for every failure of the disk.
    """
    check_file(path)
    with in_plain_words(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.{mine()}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with in_plain_words(path):
            yield temporary
            temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
            settle(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def settle(temporary: Path, path: Path) -> None:
    """Bring a file to the disk, and then to its final name."""
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


@contextlib.contextmanager
def new_hdf5(path: str | Path) -> Iterator[Any]:
    """Give an `h5py.File` to fill, which becomes `path` when all went well.

    **Raises:** `InputError` in plain words for every failure of the disk; nothing is left behind then.
    """
    with atomically(Path(path)) as temporary, edit_hdf5(temporary, "w") as file:
        yield file


@contextlib.contextmanager
def edit_hdf5(path: Path, mode: str = "r+") -> Iterator[Any]:
    """Open an `h5py.File` to write, whose failures are those of the disk.

    **Raises:** `OSError`.
    """
    import h5py

    disk = _Disk(path, mode)
    try:
        with h5py.File(disk, mode) as file:
            yield file
    except Exception:
        # What HDF5 makes of a failed write is less telling than the failure.
        if disk.error is None:
            raise
    finally:
        disk.close()
    if disk.error is not None:
        raise disk.error


class _Disk:
    """A file for HDF5 that keeps the first error to itself.

    HDF5 cannot recover from a full disk: objects fail to close, and the process may crash at its end. So a write that
    fails is remembered and reported as done, and the whole file is thrown away afterwards.
    """

    def __init__(self, path: Path, mode: str):
        self._file = open(path, "w+b" if mode == "w" else "r+b", buffering=0)
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view) and self.error is None:
                done += self._file.write(view[done:]) or 0
        except OSError as error:
            self.error = error
        if self.error is not None:
            self._file.seek(len(view) - done, os.SEEK_CUR)
        return len(view)

    def read(self, size: int = -1) -> bytes:
        """Read bytes: h5py asks for it, HDF5 itself reads by `readinto`."""
        return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        read = self._file.readinto(view) or 0
        view[read:] = bytes(len(view) - read)
        return len(view)

    def truncate(self, size: int) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        """Do nothing: HDF5 calls it, and the file is not buffered."""

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            self.error = self.error or error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _words(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"{path}: no space left on the disk; nothing was written"
    if error.errno == errno.EDQUOT:
        return f"{path}: the disk quota is used up; nothing was written"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path}: no permission to write there"
    return f"{path}: could not be written ({(error.strerror or str(error)).splitlines()[0]})"
