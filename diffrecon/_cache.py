"""Compiled programs kept from one run to the next, in the user's cache folder.

Most of a short run is compiling, and jax can keep what it has compiled in files. It is switched on when a recipe or
a solver first needs it: never by `import diffrecon`, and never where the user has a cache of jax's own or has switched
it off. `DIFFRECON_CACHE=off` goes without; `DIFFRECON_CACHE=/a/folder` keeps the files there.
"""

import hashlib
import os
import platform
import sys
import warnings
from collections.abc import Hashable, Iterator
from pathlib import Path

__all__ = ["bound_programs", "keep_compiled_programs"]

_LARGEST = 2**28  # bytes of all programs together; a reconstruction has 1 to 5 MB of them
_state = {"asked": False}
_SHAPES = 6  # of measurements whose programs a process holds; those of one take some 40 MB
_held: set[Hashable] = set()


def keep_compiled_programs() -> Path | None:
    """Let jax keep compiled programs in files, once a process; later calls do nothing.

    Every program is kept, however small: a recipe has some sixty, few of which take a second to compile. Entries that
    cannot be read or written (a full disk, another process at work on the same one) are compiled as without a cache.

    **Returns:** the folder, or `None` where this call has not switched it on.
    """
    if _state["asked"]:
        return None
    _state["asked"] = True
    import jax

    users = [getattr(jax.config, f"jax_{name}") for name in ("enable_compilation_cache", "compilation_cache_dir")]
    if users != [True, None]:
        return None
    try:
        root = _root()
        if root is None:
            return None
        folder = root / _machine()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # its programs are run: nobody else may write here
        if not os.access(folder, os.W_OK):
            return None
        _remove_oldest(root, _LARGEST)
    except (OSError, RuntimeError):  # no home, no right to write
        return None
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache", UserWarning)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def bound_programs(shape: Hashable) -> None:
    """Let go of jax's compiled programs in memory, before those of one more shape of measurement join six others.

    A program is of one shape: a process that goes through scans of many sizes would hold the programs of all of them.
    Those that are needed again come from the folder of `keep_compiled_programs`.
    """
    if shape in _held:
        return
    if len(_held) >= _SHAPES:
        import jax

        jax.clear_caches()
        _held.clear()
    _held.add(shape)


def _root() -> Path | None:
    """Return the folder of all machines' programs as the environment says, `None` for none."""
    wish = os.environ.get("DIFFRECON_CACHE", "")
    if wish.lower() in ("off", "0", "no", "false"):
        return None
    if wish:
        return Path(wish).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "diffrecon" / "programs"


def _machine() -> str:
    """Name what a program was compiled by and for: versions, flags, and what the processor can do.

    A home folder is often shared by machines whose processors differ; a program for one may crash the other.
    """
    from jaxlib import version

    parts = (version.__version__, platform.machine(), _processor(), os.environ.get("XLA_FLAGS", ""))
    return f"jaxlib-{version.__version__}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _remove_oldest(root: Path, largest: int) -> None:
    """Bring the files below a number of bytes, by those that were not read for longest."""
    files = sorted(_files(root), reverse=True)
    total = 0
    for _, size, path in files:
        total += size
        if total > largest:
            Path(path).unlink(missing_ok=True)


def _files(folder: str | Path) -> Iterator[tuple[float, int, str]]:
    """Yield time of the last use, size [bytes] and path of every file below a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path)
            else:
                status = entry.stat(follow_symlinks=False)
                yield max(status.st_atime, status.st_mtime), status.st_size, entry.path
