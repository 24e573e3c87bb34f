"""Valid small files with one thing broken in each: one clear line, or the right scan, or a message. Never a traceback,
never another number without a word."""

import dataclasses
import shutil
import warnings
from typing import Any

import h5py
import make_files
import newer_files
import numpy as np
import pytest

from diffrecon import io, prepare
from diffrecon.errors import InputError
from diffrecon.io import write_scan
from diffrecon.recipes._tomogram_points import measured_points

open_scan: Any = io.open_scan
NEAR = {"focus_to_sample": make_files.Z1}


# ---------------------------------------------------------------------------------------------------- valid files
def native(path):
    scan = open_scan(make_files.dxchange(path.with_suffix(".dx")), energy="17 keV", detector_pixel="2 um")
    write_scan(path, scan)
    return path


def nxtomo(path):
    path = make_files.nxtomo(path)
    with h5py.File(path, "r+") as file, h5py.File(path.parent / "frames" / "detector.h5") as raw:
        detector = file["entry/instrument/detector"]
        del detector["data"]
        detector["data"] = raw["entry/data"][()]
        for name, value in (("x_pixel_size", 2.0), ("y_pixel_size", 2.0), ("distance", 5e4)):
            detector[name] = value
            detector[name].attrs["units"] = "um"
    return path


def npz(path):
    frames = {"flats": np.full((2, 3, 16), 1000), "darks": np.full((2, 3, 16), 10), "mask": np.ones((3, 16), bool)}
    counts = np.random.default_rng(0).poisson(500, (12, 3, 16)).astype(np.uint16)
    said = {"angles": np.arange(12) * 15.0, "angle_unit": "deg", "energy": 17e3, "detector_pixel": 2e-6}
    np.savez(path, counts=counts, rotation_centre=7.5, **frames, **said)  # type: ignore[arg-type]
    return path


FILES = {
    # name: (how to write it, what to say about it)
    "a.cxi": (make_files.cxi, NEAR),
    "a.h5": (make_files.dxchange, {}),
    "a.nxs": (nxtomo, {}),
    "mumott.h5": (make_files.mumott, {}),
    "a.ptyd": (make_files.ptyd, {}),
    "native.h5": (native, {}),
    "paths.h5": (make_files.holograms, {**make_files.HOLOGRAMS, "shifts": "/shifts"}),
    "a.npz": (npz, {}),
    "lines.h5": (newer_files.lines, {}),
    "joint.h5": (newer_files.joint, {}),
    "edges.h5": (newer_files.edges, {}),
    "powder.h5": (newer_files.powder, {}),
    "displaced.h5": (newer_files.displaced, {}),
}


# ---------------------------------------------------------------------------------------------------- what is broken
def first(value):
    return lambda a: np.concatenate([np.full(1, value, float), a.ravel()[1:].astype(float)]).reshape(a.shape)


CHANGES = {
    "text": lambda a: np.full(a.shape, b"none", "S4"),
    "one text": lambda a: np.bytes_("17 furlongs"),
    "one NaN": first(np.nan),
    "one infinite": first(np.inf),
    "all NaN": lambda a: np.full(a.shape, np.nan),
    "zero": lambda a: np.zeros_like(a),
    "negative": lambda a: -np.abs(a.astype(float)) - 1e-9,
    "one huge": first(1e30),
    "huge": lambda a: a.astype(float) * 1e12,
    "transposed": np.transpose,
    "half": lambda a: a[: len(a) // 2] if a.ndim else np.zeros(0, a.dtype),
    "twice": lambda a: np.concatenate([a, a]) if a.ndim else np.stack([a, a * 3]),
    "axis before": lambda a: a[None],
    "axis behind": lambda a: a[..., None],
    "one axis": np.ravel,
    "one number": lambda a: a.ravel()[0],
    "nothing": lambda a: np.zeros((0, *a.shape[1:]), a.dtype),
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "complex": lambda a: a.astype(complex),
    "boolean": lambda a: a.astype(bool),
}  # fmt: skip
OF_HDF5 = ("removed", "group", "null", "unit furlong", "dangling")


def break_hdf5(path, name, change):
    with h5py.File(path, "r+") as file:
        stored = file[name]
        value, attrs = stored[()], dict(stored.attrs)
        if change == "unit furlong":
            stored.attrs["units"] = "furlong"
            return
        if change in CHANGES:
            value = CHANGES[change](np.asarray(value))
        del file[name]
        if change == "group":
            file.create_group(name)["inside"] = 1
        elif change == "dangling":
            file[name] = h5py.SoftLink("/nowhere")
        elif change == "null":
            file[name] = h5py.Empty(stored_type(value))
        elif change != "removed":
            file[name] = value
        if name in file and change != "dangling":
            file[name].attrs.update(attrs)


def stored_type(value):
    kind = np.asarray(value).dtype
    return kind if kind.kind in "iuf" else np.float32


def names(path):
    if path.suffix == ".npz":
        with np.load(path) as file:
            return list(file.files)
    found: list[str] = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return [n for n in found if not n.startswith("projections/") or n.startswith("projections/1/")]


# ---------------------------------------------------------------------------------------------------- what came of it
def content(scan):
    """The numbers of a scan, as they would enter a reconstruction."""
    place = {} if scan.geometry is None else dataclasses.asdict(scan.geometry)
    fields = ("positions", "angles", "flats", "darks", "mask", "probe", "weights", "transmission", "flux")
    found = {name: getattr(scan, name) for name in fields} | {"counts": np.asarray(scan.counts)} | place
    extra = numbers_of(scan.extra)
    if scan.tensor_geometry is not None:
        extra |= {"rotations": scan.tensor_geometry.rotations, "offsets": scan.tensor_geometry.offsets}
    found |= extra | {"rotation_centre": scan.rotation_centre, "method": scan.method}
    return {name: value for name, value in found.items() if value is not None}


def numbers_of(extra, before=""):
    """All that is in `Scan.extra`, tables within too, under one name each; not what tells nothing beside numbers."""
    found = {}
    for name, value in extra.items():
        if isinstance(value, dict):
            found |= numbers_of(value, f"{before}{name}.")
        elif isinstance(value, str | tuple) or getattr(np.asarray(value).dtype, "kind", "O") in "iufbc":
            found[before + name] = value
    return found


def same(one, other):
    if set(one) != set(other):
        return sorted(set(one) ^ set(other))
    unlike = []
    for name in one:
        a, b = np.asarray(one[name]), np.asarray(other[name])
        equal = a.shape == b.shape and (
            np.array_equal(a, b) if a.dtype.kind not in "fc" else np.allclose(a, b, 1e-6, equal_nan=True)
        )
        unlike += [] if equal else [name]
    return unlike


# NaN means "not known" there, or is refused with the views once these are chosen.
_HOLES = ("monitor", "powder.monitor", "element_counts", "elements.line", "emission.production")


def finite(found):
    numbers = (np.asarray(value) for name, value in found.items() if name not in _HOLES)
    return all(np.isfinite(v).all() for v in numbers if v.dtype.kind in "fc")


def opened(path, say):
    scan = open_scan(path, **say)
    if scan.method == "tomography":
        prepare.References.from_scan(scan, "auto")
    if "ptychography" in str(scan.method):
        report = prepare.check_frames(scan)
        note = dataclasses.replace(scan.provenance, messages=(*scan.provenance.messages, *report.messages))
        scan = report.apply(scan).replace(provenance=note)
        scan = scan.replace(counts=np.where(scan.mask, scan.counts, 0))
    if scan.method == "fluorescence-tomography":
        counts, _, words = measured_points(scan, tuple(scan.extra["lines"]))
        note = dataclasses.replace(scan.provenance, messages=(*scan.provenance.messages, *words))
        scan = scan.replace(counts=counts[..., : scan.counts.shape[-1]].astype(scan.counts.dtype), provenance=note)
    return scan


def unknowable(name, change):
    """Numbers that are as good as those they replace: other counts, angles, weights ... of the same form."""
    values = (
        "negative",
        "zero",
        "one huge",
        "huge",
        "boolean",
        "big-endian",
        "one number",
        "twice",
        "half",
        "transposed",
    )
    if name in ("formula", "materials"):  # compositions are understood, or refused, by the method
        return True
    return change in values and not name.endswith(("distance", "pixel_size", "energy", "psize", "pixel"))


EVERY = 3  # 1 tries all, some 1400


@pytest.mark.parametrize("kind", FILES)
def test_broken_files(kind, tmp_path):
    """One in three of the changes of all datasets, other ones for each: some 460."""
    write, say = FILES[kind]
    (tmp_path / "valid").mkdir()
    valid = write(tmp_path / "valid" / kind)
    truth = opened(valid, say)
    expected, known = content(truth), set(truth.provenance.messages)
    path, bad, tried = tmp_path / kind, [], 0
    changes = (*CHANGES, *(OF_HDF5 if valid.suffix != ".npz" else ("removed",)))
    for number, name in enumerate(names(valid)):
        for change in changes[number % EVERY :: EVERY]:
            shutil.copy(valid, path)
            try:
                write_broken(path, name, change)
            except (ValueError, TypeError, IndexError, OverflowError):
                continue  # a change that this dataset cannot have
            tried += 1
            said = judged(path, say, expected, known)
            if said is not None and not (said.startswith("silent") and unknowable(name, change)):
                bad.append(f"{name}, {change}: {said}")
    assert tried > 90 / EVERY and not bad, f"{len(bad)} of {tried}:\n" + "\n".join(bad)


def write_broken(path, name, change):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.suffix != ".npz":
            return break_hdf5(path, name, change)
        with np.load(path) as file:
            arrays = dict(file)
        if change == "removed":
            del arrays[name]
        else:
            arrays[name] = CHANGES[change](arrays[name])
        np.savez(path, **arrays)


def judged(path, say, expected, known):
    """What is wrong with the answer; `None` for a right one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scan = opened(path, say)
        found = content(scan)
    except InputError as error:
        return None if "\n" not in str(error) and len(str(error)) > 20 else f"unclear: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if not finite(found) and finite(expected):
        return "not finite"
    unlike = [name for name in same(found, expected) if name not in _HOLES]
    absent = [name for name in expected if name not in found]  # said as missing by who needs it
    if unlike == absent or (set(unlike) <= {*absent, "method"} and scan.method is None):
        return None
    return None if not unlike or set(scan.provenance.messages) - known else f"silent: {unlike}"


IMAGES = {
    # what is written in place of one of the images; None removes it
    "removed": lambda image: None,
    "shape": lambda image: image[:, :-1],
    "transposed": lambda image: image.T,
    "32 bits": lambda image: image.astype(np.uint32) * 70000,
    "signed": lambda image: image.astype(np.int16),
    "float": lambda image: image.astype(np.float32),
    "NaN": lambda image: np.full(image.shape, np.nan, np.float32),
    "colours": lambda image: np.stack([image] * 3, -1),
    "pages": lambda image: np.stack([image] * 2),
    "big-endian": lambda image: image.astype(">u2"),
    "nothing": lambda image: b"",
    "text": lambda image: b"not an image, just words",
    "half": lambda image: "half",
}


@pytest.mark.parametrize("which", ["0003.tif", "flat/1.tif", "dark/0.tif"])
def test_broken_folders(which, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    random, bad = np.random.default_rng(0), []

    def fill(folder):
        for kind, count, mean in (("", 12, 500), ("flat", 3, 1000), ("dark", 2, 10)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                image = random.poisson(mean, (5, 16)).astype(np.uint16)
                tifffile.imwrite(folder / kind / (f"{i}.tif" if kind else f"{i:04d}.tif"), image)
        np.savetxt(folder / "angles.txt", np.arange(12) * 15.0, header="theta [deg]")

    fill(tmp_path / "valid")
    expected = opened(tmp_path / "valid", {})
    for name, change in IMAGES.items():
        folder = tmp_path / "broken" / "scan"
        shutil.rmtree(folder.parent, ignore_errors=True)
        shutil.copytree(tmp_path / "valid", folder)
        image = tifffile.imread(folder / which)
        value = change(image)
        (folder / which).unlink()
        if isinstance(value, bytes):
            (folder / which).write_bytes(value)
        elif isinstance(value, str):
            whole = (tmp_path / "valid" / which).read_bytes()
            (folder / which).write_bytes(whole[: len(whole) // 2])
        elif value is not None:
            tifffile.imwrite(folder / which, value)
        said = judged(folder, {}, content(expected), set(expected.provenance.messages))
        # A flat less, or one more, is as good as the others.
        if said is not None and not (said.startswith("silent") and "/" in which and name in ("removed", "pages")):
            bad.append(f"{name}: {said}")
    assert not bad, "\n".join(bad)
