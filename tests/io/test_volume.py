"""Volumes written slab by slab: NeXus, TIFF, OME-Zarr; whole or not at all; resumed."""

import errno
import json
import os
import shutil
import types
from typing import Any

import h5py
import numpy as np
import pytest

from diffrecon._result import Quantity, Result
from diffrecon.errors import InputError, MissingPackage
from diffrecon.io import VolumeWriter, check_output, open_volume, process, read_result, write
from diffrecon.io.writers import volume as _volume
from diffrecon.io.writers.ome import halved, pyramid
from diffrecon.scan import Scan

SHAPE = (7, 40, 33)
VOLUME = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
RESULT = Result(
    "tomography",
    {},
    {"relative_residual": 0.25, "history": np.arange(3.0), "bad": np.nan},
    ("as it is",),
    {"solver": {"name": "fbp"}},
)
PATHS = {"a.h5": "h5py", "a.tif": "tifffile", "s/slice_###.tif": "tifffile", "a.ome.zarr": "zarr"}


@pytest.fixture(params=PATHS)
def path(request, tmp_path):
    pytest.importorskip(PATHS[request.param])
    return tmp_path / request.param


def opened(path, **said) -> VolumeWriter:
    return open_volume(path, SHAPE, pixel_size=6.5e-7, units="1/m", long_name="attenuation coefficient", **said)


def stored(path):
    """The volume, by the libraries that others read it with."""
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            data: Any = file["entry/volume/data"]
            return data[()]
    if path.suffix == ".zarr":
        return pytest.importorskip("zarr").open_group(str(path), mode="r")["0"][:]
    files = sorted(path.parent.glob(path.name.replace("#", "[0-9]")))
    return pytest.importorskip("tifffile").imread(files if len(files) > 1 else files[0])


def left(folder):
    return sorted(p.name for p in folder.rglob("*") if p.name.startswith("."))


def test_slabs_in_any_order(path):
    writer = opened(path, first=100)
    for first, last in ((4, 7), (0, 1), (1, 4)):
        writer.write(100 + first, VOLUME[first:last].astype(np.float64))
    assert writer.done() == set(range(100, 107)) and not path.exists()
    assert writer.close(RESULT) == path
    np.testing.assert_array_equal(stored(path), VOLUME)
    assert not left(path.parent)


def test_resume(path):
    writer = opened(path)
    writer.write(2, VOLUME[2:5])
    writer.abort()
    assert not path.exists() and left(path.parent)
    writer = opened(path, resume=True)
    assert writer.done() == {2, 3, 4}
    with pytest.raises(InputError, match="4 of 7 slices have not been written, the first is 0"):
        writer.close()
    writer.write(0, VOLUME[:2])
    writer.write(5, VOLUME[5:])
    writer.close(None)
    np.testing.assert_array_equal(stored(path), VOLUME)
    assert not left(path.parent)


def test_nothing_stays_of_what_is_not_kept(path):
    writer = opened(path)
    writer.write(2, VOLUME[2:5])
    writer.abort(keep=False)
    assert not left(path.parent)
    opened(path).abort()  # not one slice is done
    assert not left(path.parent)
    opened(path, resume=True).abort()  # nothing to go on with
    assert not left(path.parent)


def test_another_volume_is_not_gone_on_with(path):
    writer = opened(path)
    writer.write(2, VOLUME[2:5])
    writer.abort()
    with pytest.raises(InputError, match="of another volume"):
        open_volume(path, (8, 40, 33), pixel_size=6.5e-7, units="1/m", resume=True)
    for other, differs in (
        ({"settings": {"solver": {"name": "cgls"}}}, "solver.name"),
        ({"first": 1}, r"first \(0 then, 1 now\)"),
        ({"method": "dynamics"}, "method"),
        ({"scan": Scan.from_arrays(np.ones((3, 7, 33)))}, "the frames"),
    ):
        with pytest.raises(InputError, match=differs):
            opened(path, resume=True, **other)
    opened(path).abort(keep=False)  # without resume it starts anew
    assert not left(path.parent)


@pytest.mark.parametrize(
    "first, slab, match",
    [
        (0, np.zeros((2, 40, 32)), "does not fit"),
        (6, np.zeros((2, 40, 33)), "does not fit"),
        (-1, np.zeros((1, 40, 33)), "does not fit"),
        (0, np.zeros((40, 33)), "does not fit"),
        (0, np.zeros((1, 40, 33), complex), "real part"),
    ],
)
def test_slabs_that_do_not_fit(tmp_path, first, slab, match):
    writer = opened(tmp_path / "a.h5")
    with pytest.raises(InputError, match=match):
        writer.write(first, slab)
    writer.abort()


@pytest.mark.parametrize(
    "name, said, match",
    [
        ("a.png", {}, r"written as \.h5.*\.png is none"),
        ("a", {}, "no suffix"),
        ("no/a.h5", {}, "there is no folder"),
        ("no/way/s_###.tif", {}, "there is no folder"),
        ("s_#.tif", {"shape": (11, 2, 2)}, "too few # to number 11"),
        ("s_#_#.tif", {}, "one run of #"),
        ("a.h5", {"shape": (4, 4)}, "three axes"),
        ("a.h5", {"shape": (0, 4, 4)}, "one voxel or more"),
        ("a.h5", {"dtype": np.complex64}, "floats"),
        ("a.h5", {"dtype": np.uint16, "value_range": (0, 1)}, "needs a TIFF"),
        ("a.tif", {"dtype": np.uint16}, "value_range"),
        ("a.tif", {"dtype": np.uint16, "value_range": (1, 1)}, "smaller and a larger"),
        ("a.tif", {"value_range": (0, 1)}, "for uint8 and uint16"),
        ("folder.tif", {}, "is a folder"),
        ("folder.zarr", {}, "not written by diffrecon"),
    ],
)
def test_volumes_that_cannot_be_are_refused(tmp_path, name, said, match):
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "folder.zarr").mkdir()
    with pytest.raises(InputError, match=match) as caught:
        open_volume(tmp_path / name, **{"shape": SHAPE, **said})
    assert "\n" not in str(caught.value)


def test_outputs_are_checked_before_a_solve(path):
    assert check_output(path) == path and not path.parent.joinpath("x").exists()
    writer = opened(path)
    writer.write(0, VOLUME)
    writer.close()
    if "#" in path.name:
        with pytest.raises(InputError, match="are there already"):
            check_output(path)
    else:
        assert check_output(path) == path  # to be replaced
    with pytest.raises(InputError, match="there is no folder"):
        check_output(path.parent / "no" / "way" / path.name)


def test_space_is_checked_before(path, monkeypatch):
    monkeypatch.setattr(_volume.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"needs 3\.7e-05|needs 4\.22e-05 GB, the disk has 1e-06 GB free"):
        opened(path)
    assert not left(path.parent)


@pytest.mark.parametrize("name", ["a.h5", "a.tif"])
def test_a_full_disk_keeps_what_is_done(tmp_path, name, monkeypatch):
    """The failure in plain words; the slices before it are gone on with."""
    pytest.importorskip(PATHS[name])
    writer = opened(tmp_path / name)
    writer.write(0, VOLUME[:2])
    real = writer._store._file

    class Full:
        seek, close = real.seek, real.close

        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer._store, "_file", Full())
    with pytest.raises(InputError, match="no space left"):
        writer.write(2, VOLUME[2:])
    writer.abort()
    again = opened(tmp_path / name, resume=True)
    assert again.done() == {0, 1}
    again.write(2, VOLUME[2:])
    again.close()
    np.testing.assert_array_equal(stored(tmp_path / name), VOLUME)


def test_an_old_volume_stays_until_the_new_one_is_whole(path):
    if "#" in path.name:
        pytest.skip("slices of one name are not overwritten")
    writer = opened(path)
    writer.write(0, VOLUME)
    writer.close()
    writer = opened(path)
    writer.write(0, 2 * VOLUME)
    np.testing.assert_array_equal(stored(path), VOLUME)
    writer.close()
    np.testing.assert_array_equal(stored(path), 2 * VOLUME)
    assert not left(path.parent)


# ---------------------------------------------------------------------- NeXus
def test_nexus_is_a_result(tmp_path):
    """The same groups and attributes that `write` makes, read back by `read_result`."""
    quantity = Quantity(VOLUME, "1/m", ("z", "y", "x"), 6.5e-7, "attenuation coefficient", "volume")
    sinogram = Quantity(np.ones((4, 33)), "", ("view", "x"), 6.5e-7, "line integrals", "sinogram")
    quantities = {"volume": quantity, "sinogram": sinogram}
    whole = Result("tomography", quantities, RESULT.quality, RESULT.verdict, RESULT.settings)
    write(tmp_path / "whole.h5", whole)
    writer = opened(tmp_path / "slabs.h5")
    writer.write(0, VOLUME)
    writer.close(Result("tomography", {"sinogram": sinogram}, RESULT.quality, RESULT.verdict, RESULT.settings))

    def layout(path):
        found = {}
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item: found.update(
                    {name: (getattr(item, "shape", None), {k: np.asarray(v).tolist() for k, v in item.attrs.items()})}
                )
            )
            found["/"] = {k: str(v) for k, v in file.attrs.items()}
        return found

    assert layout(tmp_path / "slabs.h5") == layout(tmp_path / "whole.h5")
    again = read_result(tmp_path / "slabs.h5")
    np.testing.assert_array_equal(again["volume"], VOLUME)
    assert (
        again.verdict == RESULT.verdict
        and again.settings == RESULT.settings
        and list(again.quantities) == list(quantities)
    )
    assert process(tmp_path / "slabs.h5")["program"] == "diffrecon"


def test_file_of_a_killed_run_is_readable_as_far_as_it_is_done(tmp_path):
    """No call of HDF5 stands between slab and disk: a process that dies takes nothing with it."""
    writer = opened(tmp_path / "a.h5")
    writer.write(3, VOLUME[3:5])
    shutil.copytree(tmp_path, tmp_path / "after")  # as if the power failed now
    writer.abort()
    again = opened(tmp_path / "after" / "a.h5", resume=True)
    assert again.done() == {3, 4}
    again.write(0, VOLUME[:3])
    again.write(5, VOLUME[5:])
    np.testing.assert_array_equal(stored(again.close()), VOLUME)


# ---------------------------------------------------------------------- TIFF
def test_tiff_says_pixel_and_units(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    for name in ("a.tif", "s_##.tif"):
        writer = opened(tmp_path / name)
        writer.write(0, VOLUME)
        writer.close(RESULT)
    for path, pages in ((tmp_path / "a.tif", 7), (tmp_path / "s_06.tif", 1)):
        with tifffile.TiffFile(path) as file:
            assert file.is_bigtiff == (pages == 7) and len(file.pages) == pages
            top, bottom = file.pages[0].tags["XResolution"].value
            assert top / bottom * 6.5e-7 == pytest.approx(0.01, rel=1e-5)
            assert file.pages[0].tags["ResolutionUnit"].value == 3  # centimetre
            assert file.shaped_metadata[0]["units"] == "1/m"
            assert file.series[0].axes == ("ZYX" if pages == 7 else "YX")
    for name in ("a.tif.json", "s.json"):
        said = json.loads((tmp_path / name).read_text())
        assert said["quality"] == {"relative_residual": 0.25, "history": [0, 1, 2], "bad": "nan"}
        assert said["verdict"] == ["as it is"] and said["process"]["program"] == "diffrecon"
    with pytest.raises(InputError, match=r"s_0\d\.tif: slices of this name are there already"):
        opened(tmp_path / "s_##.tif")


@pytest.mark.parametrize("dtype, top", [(np.uint8, 255), (np.uint16, 65535)])
def test_integers_have_a_stated_range(tmp_path, dtype, top):
    tifffile = pytest.importorskip("tifffile")
    values = np.clip(VOLUME, -2, 3)
    values[0, 0, :4] = [-2, 3, 7, np.nan]
    writer = open_volume(tmp_path / "a.tif", SHAPE, dtype, value_range=(-2, 3))
    writer.write(0, values)
    writer.close()
    codes = tifffile.imread(tmp_path / "a.tif")
    assert codes.dtype == dtype and codes[0, 0, :4].tolist() == [0, top, top, 0]
    inside = np.ones(SHAPE, bool)
    inside[0, 0, 2:4] = False
    assert np.abs(codes[inside] * (5 / top) - 2 - values[inside]).max() <= 5 / top / 2 * 1.01
    said = json.loads((tmp_path / "a.tif.json").read_text())
    assert (said["value_of_0"], said[f"value_of_{top}"], said["clipped_voxels"]) == (-2, 3, 2)


# ---------------------------------------------------------------------- OME-Zarr
def test_ome_zarr_metadata(tmp_path):
    """What version 0.5 of the specification asks for, item by item."""
    zarr = pytest.importorskip("zarr")
    volume = np.random.default_rng(1).normal(size=(5, 300, 520)).astype(np.float32)
    writer = open_volume(tmp_path / "a.zarr", volume.shape, pixel_size=2e-6, units="1/m")
    for first in range(0, 5, 2):
        writer.write(first, volume[first : first + 2])
    writer.close(RESULT)
    said = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())
    assert said["zarr_format"] == 3 and said["node_type"] == "group"
    ome = said["attributes"]["ome"]
    assert ome["version"] == "0.5"
    (image,) = ome["multiscales"]
    assert image["axes"] == [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")
    shapes = [group[d["path"]].shape for d in image["datasets"]]
    assert shapes == [(5, 300, 520), (3, 150, 260), (2, 75, 130)]
    for dataset, factor in zip(image["datasets"], (1, 2, 4), strict=True):
        scale, shift = dataset["coordinateTransformations"]
        assert scale == {"type": "scale", "scale": [2.0 * factor] * 3}
        # The centre of a coarse voxel lies between those of its fine ones.
        assert shift == {"type": "translation", "translation": [(factor - 1) / 2 * 2.0] * 3}
        assert group[dataset["path"]].metadata.dimension_names == ("z", "y", "x")
        assert group[dataset["path"]].dtype == np.float32
    np.testing.assert_array_equal(group["0"][:], volume)
    np.testing.assert_allclose(group["1"][:2], volume[:4].reshape(2, 2, 150, 2, 260, 2).mean((1, 3, 5)), atol=1e-6)
    np.testing.assert_allclose(group["1"][2], volume[4].reshape(150, 2, 260, 2).mean((1, 3)), atol=1e-6)
    assert group.attrs["diffrecon"]["quality"]["relative_residual"] == 0.25


def test_pyramid_keeps_thin_and_odd_axes():
    assert pyramid((1, 1024, 3)) == [(1, 1024, 3), (1, 512, 2), (1, 256, 1)]
    block = np.arange(15.0).reshape(1, 5, 3)
    np.testing.assert_allclose(halved(block)[0], [[2, 3.5], [8, 9.5], [12.5, 14]])


def test_ome_zarr_without_pixel_size_has_no_unit(tmp_path):
    zarr = pytest.importorskip("zarr")
    writer = open_volume(tmp_path / "a.zarr", (1, 2, 2))
    writer.write(0, np.ones((1, 2, 2)))
    writer.close()
    image = zarr.open_group(str(tmp_path / "a.zarr"), mode="r").attrs["ome"]["multiscales"][0]
    assert image["axes"][0] == {"name": "z", "type": "space"} and image["datasets"][0]["coordinateTransformations"][0][
        "scale"
    ] == [1, 1, 1]


def test_zarr_is_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(MissingPackage, match=r"diffrecon\[zarr\]"):
        opened(tmp_path / "a.zarr")


# ---------------------------------------------------------------------- by `write`
@pytest.mark.parametrize("name", ["a.tif", "s_#.tif", "a.zarr"])
def test_write_chooses_by_suffix(tmp_path, name):
    pytest.importorskip("zarr" if name.endswith("zarr") else "tifffile")
    quantities = {
        "slice": Quantity(VOLUME[0], "", ("y", "x")),
        "mu": Quantity(VOLUME, "1/m", ("z", "y", "x"), 1e-6, "attenuation", "volume"),
    }
    path = write(tmp_path / name, Result("tomography", quantities, {"figure": 1.5}))
    np.testing.assert_array_equal(stored(path), VOLUME)
    assert not left(tmp_path)
    with pytest.raises(InputError, match=r"no volume \(slice\); write it as \.h5"):
        write(tmp_path / f"b{path.suffix}", Result("holography", {"slice": quantities["slice"]}))
