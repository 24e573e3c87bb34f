"""One pass over frames: figures by row against NumPy on the whole, and how often packed frames are unpacked."""

import h5py
import numpy as np
import pytest

from diffrecon import frames, open_scan
from diffrecon._summary import summary_of
from diffrecon.cli import main

RNG = np.random.default_rng(0)
MASK = np.ones((5, 7), bool)
MASK[1:3, 2] = MASK[4] = False


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, bool])
def test_figures_are_those_of_the_whole(mask, dtype, monkeypatch):
    counts = RNG.integers(-3 if dtype == np.int32 else 0, 4, (6, 5, 7)).astype(dtype)
    counts[3] = 0
    if dtype == np.float32:
        counts[1, 0, 3], counts[2, 2, 2], counts[0, 1] = np.nan, np.inf, np.nan
    if dtype == np.uint8:
        counts[2, 3, :4] = 255
    monkeypatch.setattr(frames, "TILE_BYTES", 2 * 35 * counts.itemsize)  # several tiles
    found, used = summary_of(counts, mask), np.broadcast_to(True if mask is None else mask, counts.shape)
    finite = counts[used & np.isfinite(counts)]
    assert found.lowest.min() == finite.min() and found.highest.max() == finite.max()
    assert found.total.sum() == finite.sum() and found.values.sum() == used.sum()
    assert found.zeros.sum() == (finite == 0).sum()
    assert found.not_finite.sum() == (used & ~np.isfinite(counts)).sum()
    assert found.full.sum() == (0 if found.ceiling is None else (finite == found.ceiling).sum())
    np.testing.assert_array_equal(found.lit.any(1), ((counts != 0) & np.isfinite(counts) & used).any((1, 2)))


@pytest.mark.parametrize(("marked", "times"), [(0, 1), (1, 2)])
def test_packed_sinograms_are_unpacked_once(tmp_path, monkeypatch, capsys, marked, times):
    """All views of two rows in a chunk; a second time where the detector has marked pixels."""
    counts = RNG.poisson(300, (120, 8, 16)).astype(np.uint32)
    counts[:, 3, :marked] = 2**32 - 1
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("exchange/data", data=counts, chunks=(120, 2, 16), compression="gzip")
        file["exchange/theta"] = np.arange(120) * 1.5
    read, was = [], frames._read_run
    monkeypatch.setattr(frames, "_read_run", lambda *a: read.append(a[2][0]) or was(*a))
    monkeypatch.setattr(frames, "TILE_BYTES", 2 * 120 * 16 * 4)
    assert main(["inspect", str(tmp_path / "a.h5")]) == 0
    assert f"mean {counts[counts < 2**31].mean():.5g}" in capsys.readouterr().out
    assert len(read) == 4 * times
    read.clear()
    scan = open_scan(tmp_path / "a.h5")
    assert len(read) == 4 * times and (scan.counts[:, 3:4, :marked] == 0).all()
