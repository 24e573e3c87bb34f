"""Which files frames may come from: the one named, those in a folder, those behind links and virtual datasets."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..scan import InputFile
from .source import Source

__all__ = ["input_files"]

_OBJECTS = 20_000  # of an HDF5 file that are looked through for links
_FILES = 10_000


def input_files(source: Source) -> tuple[InputFile, ...]:
    """Look at every file that frames of this source may come from, the named one first; others are said.

    A link that leads nowhere is left to whoever follows it.

    **Cost:** one pass over files up to 64 MiB, 16 MiB of each larger one.

    **Raises:** `InputError` for a file that cannot be read.
    """
    if source.path.is_dir():
        paths = sorted(p for p in source.path.iterdir() if p.is_file())[:_FILES]
    else:
        paths = [source.path, *_behind(source)]
    paths += [path for path in source.beside if path.is_file() and path not in paths]
    found = []
    for path in paths:
        try:
            found.append(InputFile.of(path))
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return tuple(found)


def _behind(source: Source) -> list[Path]:
    """Follow external links, virtual datasets and external storage, also from file to file."""
    import h5py

    if source.file is None:
        return []
    seen, found = {source.path.resolve()}, []
    waiting = list(_named(source.file, source.path.parent))
    while waiting and len(found) < _FILES:
        path = waiting.pop(0)
        if path.resolve() in seen or not path.is_file():
            continue
        seen.add(path.resolve())
        found.append(path)
        with contextlib.suppress(OSError), h5py.File(path, "r", locking=False) as file:  # raw storage is no HDF5
            waiting += _named(file, path.parent)
    if found:
        names = ", ".join(path.name for path in found[:4]) + (", ..." if len(found) > 4 else "")
        source.say(f"links lead into {len(found)} further file{'s' * (len(found) > 1)}: {names}")
    return found


def _named(file: Any, folder: Path) -> Iterator[Path]:
    """Name the files that an HDF5 file refers to, as they lie from its folder."""
    from h5py import h5d, h5l, h5o  # pyright: ignore[reportAttributeAccessIssue]

    groups, count, seen = [file], 0, set()
    while groups:
        group = groups.pop()
        with contextlib.suppress(RuntimeError, OSError, KeyError):  # damage is told by whoever reads there
            for name in group:
                count += 1
                if count > _OBJECTS:
                    return
                # Opening an object takes ten times as long as asking what it is.
                kind = group.id.links.get_info(name.encode()).type
                if kind == h5l.TYPE_EXTERNAL:
                    yield folder / group.get(name, getlink=True).filename
                if kind != h5l.TYPE_HARD:
                    continue
                there = h5o.get_info(group.id, name.encode())
                if there.addr in seen:
                    continue
                seen.add(there.addr)
                if there.type == h5o.TYPE_GROUP:
                    groups.append(group[name])
                elif there.type == h5o.TYPE_DATASET:
                    made = h5d.open(group.id, name.encode()).get_create_plist()
                    if made.get_layout() == h5d.VIRTUAL or made.get_external_count():
                        yield from (folder / name for name in _sources(group[name]))


def _sources(dataset: Any) -> Iterator[str]:
    if dataset.is_virtual:
        yield from dict.fromkeys(s.file_name for s in dataset.virtual_sources() if s.file_name != ".")
    for name, *_ in dataset.external or ():
        yield name.decode() if isinstance(name, bytes) else name
