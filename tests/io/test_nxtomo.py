"""NXtomo: groups of flats in time, what is recorded with every frame, entries, and files that are being written."""

import subprocess
import sys
from typing import Any

import h5py
import numpy as np
import pytest

from diffrecon import io
from diffrecon.errors import InputError

open_scan: Any = io.open_scan
KEY = np.array([2, 2, 1, 1, 0, 0, 0, 1, 0, 0, 3, 0, 1, 2])


def nxtomo(path, *, entry="entry0000", key=KEY, change=None):
    values = {
        "instrument/detector/image_key": key,
        "instrument/detector/data": (100 + np.arange(len(key))[:, None, None] * np.ones((1, 4, 6))).astype(np.uint16),
        "instrument/detector/x_pixel_size": (6.5, "um"),
        "instrument/detector/distance": (50.0, "mm"),
        "sample/rotation_angle": (np.arange(len(key)) * 10.0, "deg"),
        "beam/incident_energy": (19.0, "keV"),
    } | (change or {})
    with h5py.File(path, "a") as file:
        for name, value in values.items():
            value, unit = value if isinstance(value, tuple) else (value, None)
            file[f"{entry}/{name}"] = value
            if unit:
                file[f"{entry}/{name}"].attrs["units"] = unit
    return path


def messages(scan):
    return " | ".join(scan.provenance.messages)


def test_times_of_flats_and_darks(tmp_path):
    """Counted in projections: before the first, after the third, after the last."""
    path = nxtomo(tmp_path / "a.nxs")
    scan = open_scan(path)
    assert scan.views == 6 and scan.flats[:, 0, 0].tolist() == [102, 103, 107, 112]
    assert scan.extra["flat_views"].tolist() == [0, 0, 3, 6] and scan.extra["dark_views"].tolist() == [0, 0, 6]
    assert np.degrees(scan.angles) == pytest.approx([40, 50, 60, 80, 90, 110])
    assert scan.pixel_size == pytest.approx(6.5e-6) and scan.geometry.distance == pytest.approx(0.05)
    half = open_scan(path, views="::2")
    assert half.extra["flat_views"].tolist() == [0, 0, 1.5, 3]
    assert "flat_views" not in open_scan(path, views=[3, 1]).extra
    # The user's own flats have no times, or the user's.
    assert "flat_views" not in open_scan(path, flats=np.ones((1, 4, 6))).extra
    assert open_scan(path, flats=np.ones((1, 4, 6)), flat_views=[2]).extra["flat_views"].tolist() == [2]


def test_half_acquisition(tmp_path):
    """The sample's motion, the monitor, and where the axis stands; an ambiguous number only as a remark."""
    moved = np.linspace(-1, 1, len(KEY))
    path = nxtomo(
        tmp_path / "a.nxs",
        change={
            "sample/x_translation": (moved, "mm"),
            "sample/z_translation": (2 * moved, "um"),
            "control/data": np.arange(14.0),
            "instrument/detector/field_of_view": "Half",
            "instrument/detector/x_rotation_axis_pixel_position": -931.5,
        },
    )
    scan = open_scan(path)
    views = KEY == 0
    expected = np.stack([moved[views] * 1e-3, 0 * moved[views], 2e-6 * moved[views]], 1)
    np.testing.assert_allclose(scan.extra["sample_translation"], expected)
    assert scan.extra["monitor"].tolist() == [4, 5, 6, 8, 9, 11] and scan.extra["field_of_view"] == "half"
    assert scan.rotation_centre is None and "-931.5 pixels is not used" in messages(scan)
    part = open_scan(path, views="4:")
    np.testing.assert_allclose(part.extra["sample_translation"], expected[4:])
    np.testing.assert_allclose(scan.subset([5, 0]).extra["monitor"], [11, 4])


def test_mirrored_camera(tmp_path):
    """A camera that mirrors is named with the setting that undoes it, for frames, flats and masks alike."""
    random = np.random.default_rng(0)
    stored = random.integers(50, 90, (len(KEY), 4, 6)).astype(np.uint16)
    path = nxtomo(tmp_path / "a.nxs", change={"instrument/detector/data": stored})
    with h5py.File(path, "r+") as file:
        turn = file["entry0000/instrument/detector"].create_dataset("transformations/rx", data=180.0)
        turn.attrs.update(transformation_type="rotation", units="deg", vector=[1, 0, 0])
    mask = random.random((4, 6)) < 0.9
    for how, axes in (("none", ()), ("up-down", (1,)), ("left-right", (2,)), ("both", (1, 2))):
        scan = open_scan(path, flip=how, mask=mask)
        expected = np.flip(stored, axes)
        np.testing.assert_array_equal(scan.counts, expected[KEY == 0])
        np.testing.assert_array_equal(scan.counts[2, 1:3, 4:], expected[KEY == 0][2, 1:3, 4:])
        np.testing.assert_array_equal(scan.flats, expected[KEY == 1])
        np.testing.assert_array_equal(scan.mask, np.flip(mask, [a - 1 for a in axes]))
        assert "data.flip" not in messages(scan)
    assert "data.flip=up-down mirrors them" in messages(open_scan(path))
    in_memory = open_scan(path, flip="up-down", rows="0:1", counts=stored[KEY == 0])
    np.testing.assert_array_equal(in_memory.counts, stored[KEY == 0][:, -1:])


def test_entries_are_listed(tmp_path):
    for entry in ("entry0000", "entry0001"):
        nxtomo(tmp_path / "a.nxs", entry=entry)
    with pytest.raises(InputError, match=r"entry0000/instrument/detector: 14 frames, entry0001.*data\.entry="):
        open_scan(tmp_path / "a.nxs")
    assert open_scan(tmp_path / "a.nxs", entry="/entry0001").views == 6
    with pytest.raises(InputError, match="no entry 'entry7'.*entry0001"):
        open_scan(tmp_path / "a.nxs", entry="entry7")


@pytest.mark.parametrize(
    "change, match",
    [
        ({"instrument/detector/image_key": 0 * KEY + 1}, "marks no projection"),
        ({"instrument/detector/data": np.ones(14)}, "not a stack"),
        ({"instrument/detector/image_key": np.array(["flat"] * 14, object)}, "image key.* text"),
    ],
)
def test_files_that_are_wrong(tmp_path, change, match):
    with pytest.raises(InputError, match=match):
        open_scan(nxtomo(tmp_path / "a.nxs", change=change))


# ---------------------------------------------------------------------- while it is being written
WRITER = """
import sys, h5py, numpy as np
mode, path, angles = sys.argv[1:]
file = h5py.File(path, "w", libver="latest")
frames = file.create_dataset("entry/data", (4, 3, 8), maxshape=(None, 3, 8), chunks=(1, 3, 8), dtype="u2")
frames[:] = 7 + np.arange(4)[:, None, None]
if angles == "yes":
    key = np.array([2, 1] + [0] * 8)
    file["nx/instrument/detector/image_key"] = key
    file["nx/instrument/detector/data"] = h5py.SoftLink("/entry/data")
    theta = file.create_dataset("nx/sample/rotation_angle", (3,), maxshape=(None,), chunks=(10,))
    theta[:] = [0, 10, 20]
file.flush()
if mode == "swmr":
    file.swmr_mode = True
print("ready", flush=True)
for line in sys.stdin:
    n = frames.shape[0]
    frames.resize(n + 2, 0)
    frames[n:] = 50
    frames.flush()
    print("ready", flush=True)
"""


@pytest.fixture
def writer(tmp_path):
    """A program that holds a file open for writing; `next()` makes it add two frames."""
    running = []

    def start(mode, path, angles="no"):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, mode, str(path), angles],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout.readline() == "ready\n"

        def step():
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "ready\n"

        return step

    yield start
    for process in running:
        process.communicate()


def test_file_that_is_being_written(tmp_path, writer):
    step = writer("swmr", tmp_path / "a.h5", "yes")
    scan = open_scan(tmp_path / "a.h5")
    # Four frames and three angles are there: a dark, a flat, a view.
    assert scan.views == 1 and scan.counts[0, 0, 0] == 9 and scan.flats[0, 0, 0] == 8
    assert "still being written: the first 3 frames" in messages(scan)
    step()
    assert scan.counts[0, 0, 0] == 9
    again = open_scan(tmp_path / "a.h5", counts="/entry/data", angles="0..50 deg", entry="nx")
    assert again.views == 6 and again.counts[5, 0, 0] == 50


def test_link_into_a_file_that_is_being_written(tmp_path, writer):
    writer("swmr", tmp_path / "detector.h5")
    change = {"instrument/detector/data": h5py.ExternalLink("detector.h5", "/entry/data")}
    scan = open_scan(nxtomo(tmp_path / "a.nxs", key=np.r_[2, 1, np.zeros(12, int)], change=change))
    assert scan.views == 2 and scan.counts[1, 0, 0] == 10


def test_writer_that_lets_nobody_read(tmp_path, writer):
    writer("alone", tmp_path / "a.h5")
    with pytest.raises(InputError, match=r"a\.h5: another program is writing"):
        open_scan(tmp_path / "a.h5", counts="/entry/data")


def test_reading_never_locks(tmp_path):
    """Who writes next is not kept out by a reader, and a file that is open here already can be read."""
    path = nxtomo(tmp_path / "a.nxs")
    with h5py.File(path, "r"):
        assert open_scan(path).views == 6
    counts = open_scan(path).counts
    with h5py.File(path, "r+") as file:
        frames: Any = file["entry0000/instrument/detector/data"]
        frames[4] = 1
    assert (counts[0] == 1).all()
