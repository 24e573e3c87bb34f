"""A group in which every image is a dataset of its own."""

import functools
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .._hdf5 import native, need_filters, open_hdf5
from ..errors import InputError
from ._lazy import PerView
from .source import Source

_FEWEST = 3  # images that make a stack
_WORDS = {"darks": re.compile(r"drk|dark", re.IGNORECASE), "flats": re.compile(r"bak|flat|white", re.IGNORECASE)}


def kinds_of_group(group: Any) -> dict[str, list[str]]:
    """Tell the images of a group apart by their names: counts, flats and darks."""
    kinds: dict[str, list[str]] = {"counts": [], "flats": [], "darks": []}
    names = [str(key) for key in group]
    # The file's own name before the number may hold any word: that of most images says nothing.
    telling = {kind: word for kind, word in _WORDS.items() if sum(map(bool, map(word.search, names))) < len(names) / 2}
    for name in names:
        kinds[next((kind for kind, word in telling.items() if word.search(name)), "counts")].append(name)
    return kinds


def images_of_group(source: Source, name: str, names: list[str] | None = None) -> PerView | None:
    """Give the images of a group (all of them, or those named) as frames in the order of their numbers; `None` where it
    is no group of images of one shape.

    Axes of length 1 before the rows are left out.
    """
    import h5py

    group: Any = source.file.get(name)
    if not isinstance(group, h5py.Group):
        return None
    inner: dict[str, Any] = {str(key): group.get(key) for key in (group if names is None else names)}
    images = {key: item for key, item in inner.items() if _shape(item) is not None}
    if len(images) < (_FEWEST if names is None else 1):
        return None
    shapes = {_shape(item) for item in images.values()}
    types = {native(item.dtype) for item in images.values()}
    if len(shapes) > 1 or len(types) > 1:
        raise InputError(
            f"{source.name}: the images of {name} differ in shape or type ({sorted(map(str, shapes | types))}); "
            "put those of one scan into a group of their own"
        )
    order = sorted(images, key=by_number)
    files = [(images[key].file.filename, images[key].name) for key in order]
    return PerView(functools.partial(_images, files), len(order), shapes.pop() or (), types.pop())


def by_number(name: str) -> list[tuple[bool, int, str]]:
    """Sort `image_9` before `image_10`."""
    return [(t.isdigit(), int(t) if t.isdigit() else 0, t) for t in re.split(r"(\d+)", name)]


def _shape(item: Any) -> tuple[int, ...] | None:
    shape = getattr(item, "shape", None)
    if shape is None or len(shape) < 2 or any(n != 1 for n in shape[:-2]) or item.dtype.kind not in "iuf":
        return None
    return tuple(shape[-2:])


def _images(files: list[tuple[str, str]], wanted: np.ndarray) -> Iterator[np.ndarray]:
    for path, views in itertools.groupby(wanted, lambda view: files[view][0]):
        name = files[0][1]
        try:
            with open_hdf5(path) as file:
                for view in views:
                    name = files[view][1]
                    stored = file[name]
                    need_filters(stored)
                    yield np.asarray(stored[()]).reshape(stored.shape[-2:])
        except (OSError, KeyError) as error:
            said = str(error).splitlines()[0]
            raise InputError(
                f"{Path(path).name}: {name} cannot be read, the file is damaged or incomplete ({said})"
            ) from error
