"""Part of a scan: rows, columns, region, views and binning, of everything that belongs to the frames."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import make_files
import numpy as np
import pytest

from diffrecon import io
from diffrecon.errors import InputError
from diffrecon.frames import Excerpt, Frames, LazyFrames

open_scan: Any = io.open_scan


@pytest.fixture(scope="module")
def tomogram(tmp_path_factory):
    """A described file with everything that belongs to rows and columns, and its arrays."""
    random = np.random.default_rng(3)
    arrays = {
        "counts": random.poisson(500, (9, 7, 11)).astype(np.uint16),
        "flats": random.poisson(900, (4, 7, 11)).astype(np.uint16),
        "darks": random.poisson(9, (3, 7, 11)).astype(np.uint16),
        "mask": random.uniform(size=(7, 11)) > 0.1,
        "weights": random.uniform(1, 2, (9, 7, 11)),
        "angles": np.linspace(0, 3, 9),
        "shifts": random.normal(size=(9, 2)),
    }
    path = tmp_path_factory.mktemp("partial") / "a.h5"
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file[f"data/{name}"] = value.astype(np.uint8) if name == "mask" else value
        file["data/angles"].attrs["units"] = "rad"
        file["data/flat_views"] = [0.0, 0, 9, 9]
    return path, arrays


SAID = {"energy": 2e4, "detector_pixel": 1e-6, "rotation_centre": 5.0, "flux": 100.0, "method": "tomography"}


def binned(array, b, axis):
    """Written out by loops over the places within a bin."""
    y, x = (n // b * b for n in array.shape[axis : axis + 2])
    cut = array[(slice(None),) * axis + (slice(y), slice(x))].astype(float)
    return sum(cut[(slice(None),) * axis + (slice(i, None, b), slice(j, None, b))] for i in range(b) for j in range(b))


@pytest.mark.parametrize(
    "said, rows, columns",
    [
        ({"rows": "2:5"}, (2, 5), (0, 11)),
        ({"columns": "-4:"}, (0, 7), (7, 11)),
        ({"rows": 3}, (3, 4), (0, 11)),
        ({"region": [1, 6, 3, 10]}, (1, 6), (3, 10)),
        ({"region": "[1, 6, 3, 10]"}, (1, 6), (3, 10)),
    ],
)
def test_region_cuts_everything_that_belongs_to_it(tomogram, said, rows, columns):
    path, arrays = tomogram
    scan = open_scan(path, **SAID, **said)
    part = (slice(*rows), slice(*columns))
    assert isinstance(scan.counts, LazyFrames) and scan.counts.dtype == np.uint16
    for name in ("counts", "flats", "darks", "weights"):
        np.testing.assert_array_equal(np.asarray(getattr(scan, name)), arrays[name][(slice(None), *part)])
    np.testing.assert_array_equal(scan.mask, arrays["mask"][part])
    assert scan.rotation_centre == 5 - columns[0] and scan.pixel_size == 1e-6 and scan.flux == 100
    assert scan.window.rows == rows and scan.window.columns == columns
    assert f"columns {columns[0]}:{columns[1]} of 11" in " ".join(scan.provenance.messages)


@pytest.mark.parametrize("b", [2, 3])
def test_binning_sums_counts_and_rescales_everything(tomogram, b):
    path, arrays = tomogram
    scan = open_scan(path, **SAID, binning=b)
    for name, kind in (("counts", np.uint32), ("flats", np.uint32), ("darks", np.uint32), ("weights", float)):
        values = np.asarray(getattr(scan, name))
        assert values.dtype == kind
        np.testing.assert_allclose(values, binned(arrays[name], b, 1))
    np.testing.assert_array_equal(scan.mask, binned(arrays["mask"], b, 0) == b * b)
    assert scan.pixel_size == b * 1e-6 and scan.flux == 100 * b * b
    # The axis at column 5 of the detector: by the centres of the binned pixels.
    centres = np.arange(11 // b * b).reshape(-1, b).mean(1)
    assert np.interp(scan.rotation_centre, np.arange(len(centres)), centres) == pytest.approx(5)
    assert scan.window.whole_column(scan.rotation_centre) == pytest.approx(5)
    np.testing.assert_allclose(scan.extra["shifts"], arrays["shifts"] / b)
    assert "left out" in " ".join(scan.provenance.messages)


def test_region_views_and_binning_together_stay_lazy(tomogram):
    path, arrays = tomogram
    scan = open_scan(path, **SAID, views="1::3", region=[1, 6, 2, 9], binning=2)
    expected = binned(arrays["counts"][1::3, 1:6, 2:9], 2, 1)
    assert scan.counts.shape == (3, 2, 3)
    np.testing.assert_array_equal(scan.counts[:], expected)
    whole = slice(None)
    for index in (1, (whole, 1), ([2, 0], whole, slice(1, 3)), (..., -1), (0, 1, 2), slice(None, None, -1)):
        np.testing.assert_array_equal(scan.counts[index], expected[index])
    np.testing.assert_array_equal(np.concatenate(list(scan.counts.blocks(2))), expected)
    np.testing.assert_allclose(scan.angles, arrays["angles"][1::3])
    np.testing.assert_allclose(scan.extra["flat_views"], [-1 / 3, -1 / 3, 8 / 3, 8 / 3])
    assert scan.rotation_centre == (5 - 2 - 0.5) / 2


def test_transmission_survives_binning(tomogram):
    """Lines integrals of binned counts are those of binned light: flats and darks are summed alike."""
    path, arrays = tomogram
    scan = open_scan(path, **SAID, binning=2)
    dark = binned(arrays["darks"], 2, 1).mean(0)
    light = (binned(arrays["counts"], 2, 1) - dark) / (binned(arrays["flats"], 2, 1).mean(0) - dark)
    flat, dark = (np.mean(np.asarray(getattr(scan, k), float), 0) for k in ("flats", "darks"))
    np.testing.assert_allclose((np.asarray(scan.counts) - dark) / (flat - dark), light)


def test_a_single_row_is_binned_along_its_columns(tomogram):
    path, arrays = tomogram
    scan = open_scan(path, **SAID, rows="3:4", binning=2)
    assert scan.counts.shape == (9, 1, 5) and scan.window.binning == (1, 2) and scan.flux == 200
    row = arrays["counts"][:, 3:4, :10].astype(int)
    np.testing.assert_array_equal(scan.counts[:], row[..., ::2] + row[..., 1::2])


@pytest.mark.parametrize("dtype, value", [(np.uint32, 2**31), (np.int32, 2**30), (np.int64, 2**33)])
def test_sums_that_do_not_fit_are_refused(tmp_path, dtype, value):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = np.full((2, 4, 4), value, dtype)
    with pytest.raises(InputError, match="32 bits"):
        open_scan(tmp_path / "a.h5", counts="/raw", angles=[0, 1], binning=2)


@pytest.mark.parametrize(
    "said, match",
    [
        ({"rows": "9:12"}, r"data\.rows: '9:12' selects none of 7"),
        ({"rows": "0:6:2"}, r"data\.rows.*range"),
        ({"columns": "a:b"}, r"data\.columns.*does not select"),
        ({"region": [0, 5, 0]}, "four whole numbers"),
        ({"region": [0, 5, 0, 2.5]}, "four whole numbers"),
        ({"region": "all"}, "four whole numbers"),
        ({"region": [0, 8, 0, 5]}, r"does not lie within 7 rows and 11 columns"),
        ({"region": [3, 3, 0, 5]}, "does not lie within"),
        ({"region": [0, 5, 0, 5], "rows": "0:2"}, "already"),
        ({"binning": 0}, "whole number"),
        ({"binning": 1.5}, "whole number"),
        ({"binning": "two"}, "whole number"),
        ({"binning": 8}, "leaves nothing"),
        ({"bining": 2}, "did you mean binning"),
        ({"colums": "0:2"}, "did you mean columns"),
        ({"mask": np.ones((3, 11)), "rows": "0:3"}, "whole frames"),
        ({"flats": np.ones((2, 4, 11)), "binning": 2}, "whole frames"),
        ({"flat_views": [0, 1]}, "one finite number for each of the 4 frames"),
    ],
)
def test_parts_that_cannot_be(tomogram, said, match):
    with pytest.raises(InputError, match=match) as caught:
        open_scan(tomogram[0], **SAID, **said)
    assert "\n" not in str(caught.value)


def test_arrays_in_memory_are_cut_at_once(tmp_path):
    path = make_files.npz(tmp_path / "a.npz")
    whole, part = open_scan(path), open_scan(path, region=[4, 28, 4, 28], views="0:9")
    assert isinstance(part.counts, np.ndarray)
    np.testing.assert_array_equal(part.counts, whole.counts[:9, 4:28, 4:28])
    assert part.probe is None and "probe is of whole frames" in " ".join(part.provenance.messages)
    with pytest.raises(InputError, match="positions in metres"):
        open_scan(path, binning=2)


def test_part_of_a_saxs_raster(tmp_path):
    """Rays of the scan points that remain do not move; they are no detector pixels to bin."""
    pytest.importorskip("diffrecon.operators.scattering")
    path = make_files.mumott(tmp_path / "a.h5")
    whole, part = open_scan(path), open_scan(path, region=[1, 4, 2, 5])
    assert part.weights.shape == part.counts.shape == (4, 3, 3, 3) and part.transmission.shape == (4, 3, 3)
    place = lambda scan, k, axis: k + 0.5 - scan.frame_shape[axis] / 2 + scan.tensor_geometry.offsets[:, axis]
    np.testing.assert_allclose(place(part, 0, 0), place(whole, 1, 0))
    np.testing.assert_allclose(place(part, 0, 1), place(whole, 2, 1))
    with pytest.raises(InputError, match="scan points"):
        open_scan(path, binning=2)


def test_binned_pixel_of_the_sample(tmp_path):
    """A pixel given in the sample grows with the bins, except in the far field, where it follows from the angle."""
    path = make_files.dxchange(tmp_path / "a.h5")
    assert open_scan(path, pixel_size=1e-6, columns="0:15", binning=3).pixel_size == pytest.approx(3e-6)
    frames = np.ones((2, 8, 8), np.uint16)
    np.savez(tmp_path / "b.npz", counts=frames)
    scan = open_scan(tmp_path / "b.npz", method="cdi", pixel_size=1e-8, dc="centre", binning=2)
    assert scan.pixel_size == pytest.approx(1e-8)


# ---------------------------------------------------------------------- what is read from the disk
READER = """
import sys
from diffrecon.frames import Frames
def count():
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])
for name in ("whole", "chunked"):
    frames = Frames(sys.argv[1], name)
    for index in sys.argv[2:]:
        before = count()
        eval(f"frames[{index}]")
        print(count() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count bytes")
def test_only_what_is_asked_for_is_read(tmp_path):
    frames = np.zeros((20, 256, 512), np.uint16)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["whole"] = frames
        file.create_dataset("chunked", data=frames + 1, chunks=(1, 256, 512))
    asked = ["7", "::4", "[3, 17, 5]", ":, 96:160"]
    command = [sys.executable, "-c", READER, str(tmp_path / "a.h5"), *asked]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, slack = frames[0].nbytes, 50_000
    # Rows of frames in one piece: HDF5 reads 64 KiB at a time.
    for read, needed in zip(map(int, done.stdout.split()), 2 * (one, 5 * one, 3 * one, 5 * one), strict=True):
        assert needed <= read < needed + slack + (20 * 2**16 if needed == 5 * one else 0)


def test_memory_of_binning_is_bounded(tmp_path, monkeypatch):
    """Unbinned frames are read in blocks, however many views are asked for."""

    frames = np.arange(12 * 8 * 8, dtype=np.uint16).reshape(12, 8, 8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = frames
    largest = []
    read = Frames._read
    monkeypatch.setattr(Excerpt, "_BLOCK", 3 * frames[0].nbytes)
    monkeypatch.setattr(
        Frames,
        "_read",
        lambda self, views, rows, columns: (largest.append(len(views)), read(self, views, rows, columns))[1],
    )
    scan = open_scan(tmp_path / "a.h5", counts="/raw", angles=np.linspace(0, 3, 12), binning=2, check=False)
    largest.clear()
    np.testing.assert_array_equal(np.asarray(scan.counts), binned(frames, 2, 1))
    assert max(largest) == 3
