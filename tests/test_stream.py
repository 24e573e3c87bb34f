"""Slabs from rows to file: the same volume however it is cut, errors and Ctrl-C of any thread, resuming."""

import os
import threading
import time
from functools import partial

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon import stream
from diffrecon.errors import InputError
from diffrecon.operators import ParallelProjector
from diffrecon.solvers import PhaseFilter, cgls, fbp

VIEWS, SLICES, COLUMNS = 40, 11, 24


@pytest.fixture(scope="module")
def projector():
    return ParallelProjector(
        np.linspace(0, np.pi, VIEWS, endpoint=False), (COLUMNS, COLUMNS), COLUMNS, dtype=jnp.float32
    )


@pytest.fixture(scope="module")
def sinogram(projector):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:COLUMNS, :COLUMNS] - (COLUMNS - 1) / 2
    volume = rng.uniform(size=(SLICES, COLUMNS, COLUMNS)) * (np.hypot(x, y) < 10)
    return np.asarray(projector(jnp.asarray(volume, jnp.float32)))


class Kept:
    """A writer that keeps slabs in memory and notes what happens to it."""

    def __init__(self, finished=(), slow=0.0):
        self.slices, self.events, self.finished, self.slow = {}, [], set(finished), slow

    def write(self, first, slab):
        time.sleep(self.slow)
        assert slab.dtype == np.float32 and slab.shape[1:] == (COLUMNS, COLUMNS)
        for i, image in enumerate(slab):
            assert first + i not in self.slices
            self.slices[first + i] = np.array(image)

    def close(self, result=None):
        self.events.append(("close", result))

    def abort(self):
        self.events.append(("abort",))

    def done(self):
        return self.finished

    def volume(self):
        return np.stack([self.slices[i] for i in sorted(self.slices)])


class Counted:
    """Rows of a sinogram that note which were read."""

    def __init__(self, sinogram):
        self.sinogram, self.calls = sinogram, []

    def __call__(self, first, last):
        self.calls.append((first, last))
        return self.sinogram[:, first:last]


@pytest.mark.parametrize("slab", [1, 4, 11, 30])
def test_the_same_volume_in_any_slabs(projector, sinogram, slab):
    writer, rows = Kept(), Counted(sinogram)
    report = stream.tomography_slabs(projector, rows, writer, slices=(0, SLICES), slab=slab, scale=2.0, result="R")
    np.testing.assert_allclose(writer.volume(), 2 * fbp(projector, sinogram), atol=1e-5)
    assert writer.events == [("close", "R")]
    assert report.slices == SLICES and report.kept == 0 and "11 slices" in report.message
    assert rows.calls == [(i, min(i + slab, SLICES)) for i in range(0, SLICES, slab)]


def test_any_solver_slice_by_slice(projector, sinogram):
    """The result of a slice does not depend on the others, nor on the zeros that fill the last slab."""
    alone = [cgls(projector, jnp.asarray(sinogram[:, i]), steps=3).x for i in (0, 7, 10)]
    writer = Kept()
    solve = stream.each_slice(lambda A, b: cgls(A, b, steps=3).x)
    stream.tomography_slabs(projector, Counted(sinogram), writer, slices=(0, SLICES), slab=4, solve=solve)
    np.testing.assert_allclose(writer.volume()[[0, 7, 10]], alone, atol=2e-4)


def test_one_program_for_all_slabs(projector, sinogram):
    traced = []

    def solve(A, b):
        traced.append(b.shape)
        return fbp(A, b)

    stream.tomography_slabs(projector, Counted(sinogram), Kept(), slices=(0, SLICES), slab=4, solve=solve)
    assert traced == [(VIEWS, 4, COLUMNS)]


def test_part_of_the_rows_with_a_halo(projector, sinogram):
    """The phase filter mixes rows: with its reach as halo slabs give what the whole stack gives."""
    phase = PhaseFilter(1e-6, 1e-10, 0.01, 2.0)
    assert 1 < phase.reach < 6
    solve = partial(fbp, phase=phase)
    whole = np.asarray(solve(projector, sinogram))
    writer, rows = Kept(), Counted(sinogram)
    stream.tomography_slabs(
        projector, rows, writer, slices=(2, 9), available=(0, SLICES), slab=3, solve=solve, halo=phase.reach
    )
    assert sorted(writer.slices) == list(range(2, 9))
    assert rows.calls[0] == (max(0, 2 - phase.reach), min(SLICES, 5 + phase.reach))
    np.testing.assert_allclose(writer.volume(), whole[2:9], atol=1.5e-3 * np.abs(whole).max())
    without = Kept()
    stream.tomography_slabs(projector, Counted(sinogram), without, slices=(2, 9), slab=3, solve=solve)
    assert np.abs(without.volume() - whole[2:9]).max() > 10 * np.abs(writer.volume() - whole[2:9]).max()


def test_finished_slices_are_left_out(projector, sinogram):
    writer, rows = Kept(finished={0, 1, 2, 5, 40}), Counted(sinogram)
    report = stream.tomography_slabs(projector, rows, writer, slices=(0, SLICES), slab=4)
    assert rows.calls == [(3, 5), (6, 10), (10, 11)]
    assert sorted(writer.slices) == [3, 4, 6, 7, 8, 9, 10]
    assert (report.slices, report.kept) == (7, 4) and "4 kept" in report.message
    np.testing.assert_allclose(writer.volume(), np.asarray(fbp(projector, sinogram))[sorted(writer.slices)], atol=1e-5)


def test_nothing_to_do_still_closes(projector, sinogram):
    writer, rows = Kept(finished=range(SLICES)), Counted(sinogram)
    assert stream.tomography_slabs(projector, rows, writer, slices=(0, SLICES), slab=4).slices == 0
    assert rows.calls == [] and writer.events == [("close", None)]


# ------------------------------------------------------------------------------------------------ what goes wrong
def threads():
    return {t.name for t in threading.enumerate()} & {"reader", "writer"}


def test_a_file_that_cannot_be_read(projector, sinogram):
    def rows(first, last):
        if first >= 8:
            raise OSError(5, "Input/output error")
        return sinogram[:, first:last]

    writer = Kept()
    with pytest.raises(InputError, match="could not be read: Input/output error"):
        stream.tomography_slabs(projector, rows, writer, slices=(0, SLICES), slab=2)
    assert writer.events == [("abort",)] and not threads()


def test_a_disk_that_is_full(projector, sinogram):
    class Full(Kept):
        def write(self, first, slab):
            if first >= 4:
                raise OSError(28, "No space left on device")
            super().write(first, slab)

    writer = Full()
    with pytest.raises(InputError, match="could not be written: No space left"):
        stream.tomography_slabs(projector, Counted(sinogram), writer, slices=(0, SLICES), slab=2)
    assert writer.events == [("abort",)] and sorted(writer.slices) == [0, 1, 2, 3] and not threads()


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda b: np.full_like(b, np.nan), "slices 4 to 7: the reconstruction is not finite"),
        (lambda b: b[:, 1:], "expected"),
        (lambda b: b[..., 0], "expected"),
    ],
)
def test_rows_that_cannot_be_used(projector, sinogram, spoil, message):
    def rows(first, last):
        return spoil(sinogram[:, first:last]) if first == 4 else sinogram[:, first:last]

    writer = Kept()
    with pytest.raises(InputError, match=message):
        stream.tomography_slabs(projector, rows, writer, slices=(0, SLICES), slab=4)
    assert writer.events == [("abort",)] and not threads()


def test_a_fault_in_the_solver_is_not_hidden(projector, sinogram):
    def solve(A, b):
        raise ZeroDivisionError("a fault")

    writer = Kept()
    with pytest.raises(ZeroDivisionError, match="a fault"):
        stream.tomography_slabs(projector, Counted(sinogram), writer, slices=(0, SLICES), slab=4, solve=solve)
    assert writer.events == [("abort",)] and not threads()


def test_interrupt_keeps_what_is_solved():
    """Ctrl-C in the device's thread: slabs that are solved are saved, the run can go on from there."""
    writer = Kept(slow=0.05)
    blocks = np.zeros((2, 20, COLUMNS), np.float32)
    solved = []

    def compute(block):
        if len(solved) == 3:
            raise KeyboardInterrupt
        solved.append(1)
        return np.zeros((2, COLUMNS, COLUMNS), np.float32), True

    with pytest.raises(KeyboardInterrupt):
        stream.stream(Counted(blocks), compute, writer, slices=(0, 20), slab=2)
    assert sorted(writer.slices) == list(range(6)) and writer.events == [("abort",)] and not threads()
    again = Kept(finished=writer.slices)
    stream.stream(
        Counted(blocks), lambda b: (np.zeros((2, COLUMNS, COLUMNS), np.float32), True), again, slices=(0, 20), slab=2
    )
    assert sorted(again.slices) == list(range(6, 20)) and again.events == [("close", None)]


@pytest.mark.parametrize(
    "bad",
    [
        {"slices": (3, 3)},
        {"slices": (-1, 4)},
        {"slices": (0, 4), "available": (1, 9)},
        {"slices": (0, 4), "halo": -1},
        {"slices": (0, 4), "slab": 0},
    ],
)
def test_ranges_that_make_no_sense(bad):
    options = {"slab": 2, "available": (0, 9)} | bad
    with pytest.raises(InputError, match="stream"):
        stream.stream(Counted(np.zeros((1, 9, 4))), lambda b: (b, True), Kept(), **options)


# ------------------------------------------------------------------------------------------------ overlap and memory
def test_no_more_than_three_slabs_are_read_ahead():
    """One in work, one waiting, one in the reader's hands; so the memory is bounded when the solver is slow."""
    rows = Counted(np.zeros((1, 40, COLUMNS), np.float32))
    ahead = []

    def compute(block):
        time.sleep(0.02)
        ahead.append(len(rows.calls) - len(ahead))
        return np.zeros((1, COLUMNS, COLUMNS), np.float32), True

    stream.stream(rows, compute, Kept(), slices=(0, 40), slab=1)
    assert max(ahead) <= 3 and min(ahead[1:-3]) >= 2


def test_stages_work_at_the_same_time():
    """Not a time: reader and writer are seen inside their stage while the device is in its own."""
    inside, seen = set(), set()

    def stage(name, result):
        inside.add(name)
        time.sleep(0.01)
        seen.add(frozenset(inside))
        inside.discard(name)
        return result

    class Slow(Kept):
        def write(self, first, slab):
            stage("write", None)

    slab = np.zeros((1, COLUMNS, COLUMNS), np.float32)
    stream.stream(
        lambda first, last: stage("read", np.zeros((1, 1, 4), np.float32)),
        lambda block: stage("compute", (slab, True)),
        Slow(),
        slices=(0, 30),
        slab=1,
    )
    assert frozenset({"read", "compute", "write"}) in seen


def test_slab_size_follows_the_memory(projector):
    fixed, each = stream.memory_needed(projector)
    assert fixed > 0 and each > 8 * VIEWS * COLUMNS * 4
    assert stream.slab_size(projector, 1000, memory=2 * (fixed + 10.5 * each)) == 10
    # at least four slabs, for otherwise nothing overlaps
    assert stream.slab_size(projector, 16, memory=1e12) == 4
    assert stream.slab_size(projector, 1) == 1
    assert stream.slab_size(projector, 1000, memory=2 * (fixed + 10.5 * each), halo=2) == 6
    with pytest.raises(InputError, match="half of the free memory"):
        stream.slab_size(projector, 16, memory=fixed)


def test_slabs_of_a_solver_that_needs_more_are_smaller(projector, sinogram, monkeypatch):
    """By the compiler's account: no slab is chosen that would run out of memory."""
    fixed, each = stream.memory_needed(projector)
    monkeypatch.setattr(stream, "free_memory", lambda device: 2 * (fixed + 2.5 * each))

    def greedy(A, b):
        copies = jax.lax.sort(b[None] * jnp.linspace(0.5, 1.5, 60)[:, None, None, None], dimension=0)
        return A.adjoint(jnp.max(copies, 0))

    slabs = {}
    for name, solve in (("fbp", fbp), ("greedy", greedy)):
        rows = Counted(sinogram)
        stream.tomography_slabs(projector, rows, Kept(), slices=(0, SLICES), solve=solve)
        slabs[name] = max(last - first for first, last in rows.calls)
    assert slabs == {"fbp": 2, "greedy": 1}


@pytest.mark.parametrize("processes", [1, 3, 8])
def test_shares_cover_every_slice_once(processes):
    parts = [stream.share((5, 27), processes, i) for i in range(processes)]
    assert [s for first, last in parts for s in range(first, last)] == list(range(5, 27))
    assert max(b - a for a, b in parts) - min(b - a for a, b in parts) <= 1
    with pytest.raises(InputError):
        stream.share((0, 2), 3, 0)


def test_from_a_file_to_a_file(projector, sinogram, tmp_path):
    """HDF5 in partial reads, HDF5 out."""
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["line_integrals"] = sinogram

    def rows(first, last):
        with h5py.File(tmp_path / "in.h5") as file:
            return file["line_integrals"][:, first:last]

    class Out(Kept):
        def __init__(self):
            super().__init__()
            self.file = h5py.File(tmp_path / "out.part", "w")
            self.data = self.file.create_dataset("volume", (SLICES, COLUMNS, COLUMNS), "f4")

        def write(self, first, slab):
            self.data[first : first + len(slab)] = slab

        def close(self, result=None):
            self.file.close()
            os.replace(tmp_path / "out.part", tmp_path / "out.h5")

    stream.tomography_slabs(projector, rows, Out(), slices=(0, SLICES), slab=3)
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_allclose(file["volume"], fbp(projector, sinogram), atol=1e-5)
