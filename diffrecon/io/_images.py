"""Image files as frames: TIFF (by tifffile), EDF (by fabio), PNG and JPEG (by Pillow), read page by page."""

import contextlib
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import physics
from .._hdf5 import native
from .._optional import require
from ..errors import InputError
from ..frames import LazyFrames
from ._datasets import by_number

TIFF = (".tif", ".tiff")
EDF = (".edf", ".edf.gz", ".ehf")
PILLOW = (".png", ".jpg", ".jpeg", ".bmp")


def is_image(path: Path) -> bool:
    """Tell whether the name is that of an image file; names that begin with a dot are other programs' notes."""
    return path.name.lower().endswith((*TIFF, *EDF, *PILLOW)) and not path.name.startswith(".")


def images_in(folder: Path) -> list[Path]:
    """List the image files of a folder, `frame_9` before `frame_10`; PNG and JPEG only where there are no others.

    **Raises:** `InputError` when TIFF and EDF files are mixed.
    """
    found = [p for p in folder.iterdir() if is_image(p)]
    frames = [p for p in found if not p.name.lower().endswith(PILLOW)] or found
    if len({p.name.lower().endswith(TIFF) for p in frames}) > 1:
        raise InputError(f"{folder}: holds both TIFF and EDF files; put those of one scan into a folder of their own")
    return sorted(frames, key=lambda path: by_number(path.name))


def stack_of_images(path: Path) -> LazyFrames:
    """Open the frames of one image file, or of all image files of a folder.

    **Raises:** `InputError` when there is none, or when it cannot be read.
    """
    files = images_in(path) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: a folder without TIFF, EDF or PNG files")
    return ImageStack(files)


def pixel_of(path: Path) -> float | None:
    """Give the pixel [m] that ImageJ wrote into a TIFF file, `None` where there is none.

    A resolution without ImageJ's unit is that of a printer.
    """
    if not path.name.lower().endswith(TIFF):
        return None
    with require("tifffile", "tiff").TiffFile(path) as file:
        unit = str((file.imagej_metadata or {}).get("unit", "")).replace("\\u00B5", "u")
        tag = file.pages[0].tags.get("XResolution")
        if tag is None or not unit or not all(tag.value):
            return None
        try:
            return physics.unit_scale(unit, "m") * tag.value[1] / tag.value[0]
        except InputError:  # inches of a printer, pixels
            return None


class ImageStack(LazyFrames):
    """Frames `(view, y, x)` of the pages of one file, or of many files of one page each.

    Pages that are not packed are read in part when only some rows are wanted.

    **Raises:** `InputError` for files that cannot be read, are no grey images or differ in shape.
    """

    def __init__(self, files: Sequence[Path]):
        self._files = tuple(files)
        with _opened(self._files[0]) as image:
            pages, frame, self.dtype = image.pages, image.frame_shape, image.dtype
        if len(files) > 1 and pages > 1:
            raise InputError(f"{files[0]}: {pages} images in one of {len(files)} files; expected one image a file")
        self.shape = (pages if len(files) == 1 else len(files), *frame)

    def _read(self, views: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        values = np.empty((len(views), rows.stop - rows.start, columns.stop - columns.start), self.dtype)
        if len(self._files) == 1:
            with _opened(self._files[0]) as image:
                for place, view in enumerate(views):
                    values[place] = image.page(int(view), rows, columns)
            return values
        for place, view in enumerate(views):
            with _opened(self._files[view]) as image:
                if image.pages != 1 or image.frame_shape != self.shape[1:]:
                    raise InputError(
                        f"{self._files[view]}: shape {image.frame_shape} where the first frame has {self.shape[1:]}"
                    )
                if image.dtype != self.dtype:
                    raise InputError(
                        f"{self._files[view]}: numbers of type {image.dtype} where the first frame has {self.dtype}; "
                        "the frames of a scan are of one type"
                    )
                values[place] = image.page(0, rows, columns)
        return values


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    lower = path.name.lower()
    kind, name = (
        (_Tiff, "TIFF") if lower.endswith(TIFF) else (_Edf, "EDF") if lower.endswith(EDF) else (_Pillow, "image")
    )
    with contextlib.ExitStack() as stack:
        try:
            image = kind(path, stack)
            if image.pages == 0:
                raise ValueError("no image in it")
            yield image
        except (InputError, ImportError):
            raise
        except Exception as error:  # tifffile, fabio, zlib and imagecodecs each raise their own
            raise InputError(f"{path}: the {name} file cannot be read ({str(error).splitlines()[0]})") from error


class _Tiff:
    def __init__(self, path: Path, stack: contextlib.ExitStack):
        tifffile = require("tifffile", "tiff")
        file = stack.enter_context(tifffile.TiffFile(path))
        _refuse_broken_chain(file)
        self._series = file.series[0]
        shape = tuple(self._series.shape)
        if len(shape) not in (2, 3) or self._series.keyframe.samplesperpixel != 1:
            raise InputError(f"{path}: a TIFF of shape {shape}; expected grey images")
        self.pages, self.frame_shape = (1 if len(shape) == 2 else shape[0]), shape[-2:]
        self.dtype = np.dtype(self._series.dtype).newbyteorder("=")
        self._path, self._stored = path, np.dtype(file.byteorder + self._series.dtype.char)

    def page(self, index: int, rows: slice, columns: slice) -> np.ndarray:
        if self._series.dataoffset is None:  # packed, or in strips here and there
            return self._series.pages[index].asarray()[rows, columns]
        height, width = self.frame_shape
        first = self._series.dataoffset + (index * height + rows.start) * width * self._stored.itemsize
        count = rows.stop - rows.start
        return np.fromfile(self._path, self._stored, count * width, offset=first).reshape(count, width)[:, columns]


def _refuse_broken_chain(file: Any) -> None:
    """Refuse a file whose last pages are missing; tifffile takes those before without a word."""
    form, last = file.tiff, file.pages[-1].offset
    file.filehandle.seek(last)
    (tags,) = struct.unpack(form.tagnoformat, file.filehandle.read(form.tagnosize))
    file.filehandle.seek(last + form.tagnosize + tags * form.tagsize)
    (following,) = struct.unpack(form.offsetformat, file.filehandle.read(form.offsetsize))
    if following:
        raise ValueError(f"it ends after {len(file.pages)} of its pages; copy it again")


class _Edf:
    def __init__(self, path: Path, stack: contextlib.ExitStack):
        self._image = require("fabio", "edf").open(str(path))
        stack.callback(self._image.close)
        if getattr(self._image, "incomplete_file", False):  # fabio fills up with zeros
            raise ValueError("the last image is incomplete; copy it again")
        self.pages = int(self._image.nframes)
        first = np.asarray(self._image.data)
        if first.ndim != 2:
            raise InputError(f"{path}: an EDF of shape {first.shape}; expected one image")
        self.frame_shape, self.dtype = first.shape, first.dtype.newbyteorder("=")

    def page(self, index: int, rows: slice, columns: slice) -> np.ndarray:
        return self._image.get_frame(index).data[rows, columns]


class _Pillow:
    def __init__(self, path: Path, stack: contextlib.ExitStack):
        from PIL import Image

        self._image = stack.enter_context(Image.open(path))
        self.pages = int(getattr(self._image, "n_frames", 1))
        first = self._grey(path)
        self.frame_shape, self.dtype = first.shape, native(first.dtype)

    def _grey(self, path: Path | None = None) -> np.ndarray:
        values = np.asarray(self._image)
        if values.ndim == 3 and (values[..., :3] == values[..., :1]).all():
            values = values[..., 0]
        if values.ndim != 2 or values.dtype.kind not in "iuf":
            raise InputError(
                f"{path or 'image'}: a picture of shape {values.shape}, {values.dtype}; expected grey images"
            )
        return values

    def page(self, index: int, rows: slice, columns: slice) -> np.ndarray:
        self._image.seek(index)
        return self._grey()[rows, columns]
