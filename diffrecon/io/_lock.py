"""One run on one output: a lock beside it, taken over from processes that are dead.

The lock is a hidden file `.<name>.lock` that says host and process. On the same host the process is asked for; from
another host it counts as alive while it touches its lock, by the clock of the file server.
"""

import atexit
import contextlib
import errno
import glob
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from ..errors import InputError

__all__ = ["OutputLock", "mine", "remove_leftovers"]

_BEAT = 60.0  # seconds between two touches
_DEAD = 900.0  # seconds after which a lock that nobody touches is that of a dead process
_held: dict[Path, int] = {}
_beating = threading.Event()


class OutputLock(contextlib.AbstractContextManager["OutputLock"]):
    """Hold the lock of an output until `release`, the end of the block or of the process; a process may hold it twice.

    **Raises:** `InputError` that names the run which holds it.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        self.file = path.parent.resolve() / f".{path.name}.lock"
        self._holds = path.parent.is_dir()
        if not self._holds:
            return
        if self.file not in _held:
            _take(self.file, path)
            remove_leftovers(path)
        _held[self.file] = _held.get(self.file, 0) + 1
        _beat()

    def release(self) -> None:
        """Let others write there."""
        if not self._holds:
            return
        self._holds = False
        _held[self.file] -= 1
        if not _held[self.file]:
            del _held[self.file]
            self.file.unlink(missing_ok=True)

    def __exit__(self, *_: object) -> None:
        self.release()


def mine() -> str:
    """Name this process in a file name."""
    return f"{socket.gethostname()}-{os.getpid()}"


def remove_leftovers(path: Path) -> None:
    """Remove what processes of this host that are dead have left of writing `path`."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        host, _, number = left.name.removeprefix(f".{path.name}.").split(".part")[0].rpartition(".")[0].rpartition("-")
        if host == socket.gethostname() and number.isdigit() and not _started(int(number)):
            with contextlib.suppress(OSError):
                left.unlink()


# ---------------------------------------------------------------------------------------------------- the file
def _take(file: Path, path: Path) -> None:
    said = {"host": socket.gethostname(), "process": os.getpid(), "started": _started(os.getpid())}
    said["since"] = time.strftime("%Y-%m-%d %H:%M:%S")
    for _ in range(10):
        try:
            now = _create(file, json.dumps(said))
        except OSError as error:
            raise InputError(f"{path}: could not be locked ({error.strerror})") from error
        if now is None:
            return
        holder, touched = _read(file)
        if holder is None:
            continue  # gone meanwhile
        if _alive(holder, now - touched):
            raise InputError(
                f"{path}: another run writes it (process {holder.get('process')} on {holder.get('host')}, since "
                f"{holder.get('since')}): wait for it or give another name; if no such run exists, remove {file}"
            )
        _put_aside(file, holder)
    raise InputError(f"{path}: several runs begin to write it at once; give each a name of its own")


def _create(file: Path, said: str) -> float | None:
    """Make the lock with its content at once; if it is there already, give the time of the file server."""
    own = file.with_name(f"{file.name}.{mine()}.{threading.get_ident()}")
    try:
        own.write_text(said)
        now = own.stat().st_mtime
        try:
            os.link(own, file)
            return None
        except FileExistsError:
            return now
        except OSError:  # a file system without hard links
            return _create_alone(file, said, now)
    finally:
        own.unlink(missing_ok=True)


def _create_alone(file: Path, said: str, now: float) -> float | None:
    try:
        handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except OSError as error:
        if error.errno == errno.EEXIST:
            return now
        raise
    with open(handle, "w") as stream:
        stream.write(said)
    return None


def _read(file: Path) -> tuple[dict[str, Any] | None, float]:
    try:
        return dict(json.loads(file.read_text())), file.stat().st_mtime
    except FileNotFoundError:
        return None, 0.0
    except (OSError, ValueError, TypeError):
        with contextlib.suppress(OSError):
            return {}, file.stat().st_mtime  # half of it: its time tells
        return None, 0.0


def _alive(holder: dict[str, Any], silent: float) -> bool:
    if holder.get("host") == socket.gethostname() and isinstance(holder.get("process"), int):
        if holder["process"] == os.getpid():
            return False  # a lock of this process that it does not hold: a copy
        started = _started(holder["process"])
        return bool(started) and started == holder.get("started")
    return silent < _DEAD


def _put_aside(file: Path, holder: dict[str, Any]) -> None:
    """Take a dead lock away; one that another process has taken over meanwhile is put back."""
    aside = file.with_name(f"{file.name}.{mine()}.dead")
    with contextlib.suppress(OSError):
        os.replace(file, aside)
        if _read(aside)[0] != holder:
            os.link(aside, file)
        aside.unlink()


def _started(process: int) -> str:
    """Tell when a process of this host began, in the kernel's ticks where it has them; nothing for one that is dead."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass  # it is another user's
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return "alive"


# ---------------------------------------------------------------------------------------------------- alive
def _beat() -> None:
    if not _beating.is_set():
        _beating.set()
        threading.Thread(target=_touch, daemon=True, name="diffrecon lock").start()


def _touch() -> None:
    while True:
        time.sleep(_BEAT)
        for file in list(_held):
            with contextlib.suppress(OSError):
                os.utime(file)


@atexit.register
def _release_all() -> None:
    for file in list(_held):
        with contextlib.suppress(OSError):
            file.unlink()
