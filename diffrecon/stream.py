"""Volumes larger than the memory: slabs of slices from file to device to file, with reading, computing and writing
overlapped.

In a parallel beam a slice needs its own detector row only. So a reader thread prepares the rows of the next slab while
the device works on this one and a writer thread saves the last one; two slabs at most wait at either side. One compiled
program serves all slabs: the last one is filled up.
"""

import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from . import sharding
from ._console import Console
from .errors import InputError
from .operators.projection import ParallelProjector
from .sharding import free_memory
from .solvers import fbp

__all__ = [
    "Report",
    "Scratch",
    "SlabWriter",
    "each_slice",
    "memory_needed",
    "share",
    "slab_size",
    "stream",
    "tomography_slabs",
]

Rows = Callable[[int, int], Any]  # (first, last) -> (view, last - first, u), line integrals of these detector rows
Solve = Callable[[ParallelProjector, Array], Array]  # projector, (view, z, u) -> (z, y, x)

_SHARE_OF_MEMORY = 0.5  # of what is free: the page cache and the user's other programs want some
_GRIDS = 256 << 20  # bytes of the grids of a block of slices at most, see operators.projection
_WAITING = 1  # slabs in a queue; one more is in the hands of the thread that fills it
_WORKING = 5  # times its sinogram that a slice takes while FBP works on it
_SLABS = 4  # at least, or nothing overlaps


@runtime_checkable
class SlabWriter(Protocol):
    """What slabs are written to."""

    def write(self, first: int, slab: np.ndarray, /) -> None:
        """Save slices `first`, `first + 1`, ...; they count as done when it returns."""
        ...

    def close(self, result: Any = None, /) -> None:
        """All is written: give the volume its final name."""
        ...

    def abort(self) -> None:
        """Stop; nothing appears under the final name, finished slices stay for a run that resumes."""
        ...

    def done(self) -> set[int]:
        """Slices that an earlier run has finished."""
        ...


class Report(NamedTuple):
    """How a run went.

    **Fields:** `slices` computed now, `kept` from an earlier run; `seconds` in all, and how long the reader, the device
    and the writer were busy: well overlapped, the first is little more than the largest of the three.
    """

    slices: int
    kept: int
    seconds: float
    reading: float
    computing: float
    writing: float

    @property
    def message(self) -> str:
        """One line for the user."""
        kept = f", {self.kept} kept from an earlier run" if self.kept else ""
        return (
            f"{self.slices} slices in {self.seconds:.1f} s{kept} (reading {self.reading:.1f} s, computing "
            f"{self.computing:.1f} s, writing {self.writing:.1f} s, overlapped)"
        )


def tomography_slabs(
    projector: ParallelProjector,
    rows: Rows,
    writer: SlabWriter,
    *,
    slices: tuple[int, int],
    available: tuple[int, int] | None = None,
    solve: Solve = fbp,
    slab: int | None = None,
    halo: int = 0,
    scale: float = 1.0,
    mesh: Mesh | None = None,
    console: Console | None = None,
    result: Any = None,
) -> Report:
    """Reconstruct a parallel-beam volume slab by slab.

    **Arguments:**

    - `projector`: of one slice; the same for all.
    - `rows(first, last)`: line integrals (view, z, u) of these detector rows, such as `Preparation.rows`. Called in a
      thread of its own.
    - `writer`: a `SlabWriter`. Slices that it says are `done()` are left out, which is how a run resumes.
    - `slices`: (first, last) detector row, as in Python's slices.
    - `available`: (first, last) row that may be read for the halo; `slices` by default.
    - `solve(projector, sinogram) -> volume`: `fbp`, a `functools.partial` of it, or any solver of slabs. The result
      does not depend on the slabs when it treats every slice by itself: see `each_slice`.
    - `slab`: slices at a time; by default what half the free memory holds, by the compiler's own account of `solve`.
    - `halo`: further rows on both sides that the solver sees and that are not kept (`PhaseFilter.reach`, a
      three-dimensional penalty). Where there are none they are mirrored.
    - `scale`: factor of the result (1/pixel size for 1/m).
    - `mesh`: the slices of a slab are split over its devices (`sharding.slice_mesh()`); one device by default.
    - `result`: handed to `writer.close`.

    **Returns:** a `Report`.

    **Raises:** `InputError` for ranges that make no sense, slices that are not finite, files that cannot be read or
    written; whatever is raised, the writer is told to `abort()`. Ctrl-C too: slabs that are computed are saved first.

    ```python
    A = ParallelProjector(np.linspace(0, np.pi, 90, endpoint=False), (64, 64), 64)
    class Keep(dict):
        write, close, abort, done = dict.__setitem__, lambda self, result: None, dict.clear, lambda self: set()
    slabs = Keep()
    rows = lambda first, last: np.ones((90, last - first, 64), "f4")
    report = tomography_slabs(A, rows, slabs, slices=(0, 10), slab=4)
    assert slabs[8].shape == (2, 64, 64)
    ```
    """
    if mesh is not None and halo:
        raise InputError(
            "stream: a halo needs whole slabs on one device; leave the mesh out, or give each process "
            "its share of the slices"
        )
    program, factor = _program(solve, mesh), np.float32(scale)
    if slab is None:
        slab = slab_size(projector, slices[1] - slices[0], mesh=mesh, halo=halo)
        slab = _as_compiled(program, projector, slab, halo, mesh)
    slab = -(-slab // _size(mesh)) * _size(mesh)

    def compute(sinogram: Array) -> tuple[Array, Array]:
        return program(projector, sinogram, factor)

    return stream(
        rows,
        compute,
        writer,
        slices=slices,
        available=available,
        slab=slab,
        halo=halo,
        console=console,
        result=result,
        place=lambda block: sharding.shard_slices(block, mesh),
    )


def each_slice(solve: Solve) -> Solve:
    """A solver that treats every slice of a slab by itself: step lengths, norms and stops are those of the slice.

    So that the result depends neither on the slab nor on the number of devices. Costs what the solver costs on the
    slab.

    ```python
    from diffrecon.solvers import cgls
    solve = each_slice(lambda A, sinogram: cgls(A, sinogram, steps=5).x)
    ```
    """
    return lambda A, sinogram: jax.vmap(lambda b: solve(A, b), in_axes=1)(sinogram)


def stream(
    rows: Rows,
    compute: Callable[[Any], tuple[Any, Any]],
    writer: SlabWriter,
    *,
    slices: tuple[int, int],
    slab: int,
    available: tuple[int, int] | None = None,
    halo: int = 0,
    place: Callable[[np.ndarray], Any] = jnp.asarray,
    console: Console | None = None,
    label: str = "slice",
    result: Any = None,
) -> Report:
    """The engine of `tomography_slabs`, for any solver: `compute(slab) -> (slices, are they all finite)`.

    `place(block)` brings a block (view, slab + 2 halo, u) onto the device, in the reader's thread.
    """
    console = console or Console(quiet=True)
    first, last = slices
    available = available or slices
    if not (available[0] <= first < last <= available[1]) or slab < 1 or halo < 0:
        raise InputError(
            f"stream: cannot take slices {first}:{last} of rows {available[0]}:{available[1]} in slabs of "
            f"{slab} with a halo of {halo}"
        )
    kept = {s for s in writer.done() if first <= s < last}
    jobs = list(_slabs(sorted(set(range(first, last)) - kept), slab))
    line = _Line(rows, place, writer, available, slab, halo)
    progress = console.progress(last - first, label)
    progress.first = len(kept)
    start = time.perf_counter()
    try:
        computing = _run(line, compute, jobs, lambda count: progress.update(len(kept) + count))
        writer.close(result)
    except BaseException:
        writer.abort()
        raise
    seconds = time.perf_counter() - start
    return Report(last - first - len(kept), len(kept), seconds, line.reading, computing, line.writing)


# ---------------------------------------------------------------------------------------------------- between
class Scratch:
    """Line integrals `(view, z, u)` in a file: written view by view and read row by row, or the other way round.

    For what is made view by view (phases) and used slice by slice. Bytes go past no memory map: nothing stays in the
    process. Views that were never written are zero.

    **Arguments:** `path` of the file, which is gone on with where it has the right size; without it a temporary file
    that vanishes with the process.

    **Raises:** `InputError` when the file cannot be made.

    ```python
    lines = Scratch((90, 10, 64))
    lines[np.arange(2)] = np.ones((2, 10, 64), "f4")
    assert lines.rows(3, 5).shape == (90, 2, 64) and lines[np.array([1])].mean() == 1
    ```
    """

    def __init__(self, shape: tuple[int, int, int], path: str | Path | None = None):
        self.shape, self.dtype, self.path = tuple(int(n) for n in shape), np.dtype(np.float32), path
        self._frame = self.shape[1] * self.shape[2] * 4
        try:
            if path is None:
                self._file: Any = tempfile.TemporaryFile(buffering=0)
            else:
                self._file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)
            self.found = os.fstat(self._file.fileno()).st_size == self.shape[0] * self._frame
            os.truncate(self._file.fileno(), self.shape[0] * self._frame)
        except OSError as error:
            raise InputError(
                f"{path or tempfile.gettempdir()}: no file for {self.shape[0] * self._frame / 1e9:.3g} GB "
                f"of line integrals: {error.strerror}"
            ) from error

    def __getitem__(self, views: Any) -> np.ndarray:
        """Whole views, `(view, z, u)`."""
        return np.stack([self._read(view, 0, self.shape[1]) for view in np.arange(self.shape[0])[views]])

    def __setitem__(self, views: Any, lines: np.ndarray) -> None:
        for view, image in zip(np.arange(self.shape[0])[views], lines, strict=True):
            self._write(view, 0, image)

    def rows(self, first: int, last: int, views: Any = ...) -> Float[np.ndarray, "view z u"]:
        """Some rows of all (or some) views."""
        return np.stack([self._read(view, first, last) for view in np.arange(self.shape[0])[views]])

    def put_rows(self, first: int, lines: Float[np.ndarray, "view z u"], views: Any = ...) -> None:
        """Replace rows `first`, `first + 1`, ... of all (or some) views."""
        for view, image in zip(np.arange(self.shape[0])[views], lines, strict=True):
            self._write(view, first, image)

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
        if self.path is not None:
            Path(self.path).unlink(missing_ok=True)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()  # after an interruption: what is in the file stays

    def _read(self, view: int, first: int, last: int) -> np.ndarray:
        row, fd = self.shape[2] * 4, self._file.fileno()
        image = np.empty((last - first, self.shape[2]), np.float32)
        space, done = image.data.cast("B"), 0
        while done < len(space):
            count = os.preadv(fd, [space[done:]], int(view) * self._frame + first * row + done)
            if not count:
                raise OSError(5, "the file of line integrals has become shorter")
            done += count
        return image

    def _write(self, view: int, first: int, image: np.ndarray) -> None:
        data, fd = np.ascontiguousarray(image, np.float32).data.cast("B"), self._file.fileno()
        place = int(view) * self._frame + first * self.shape[2] * 4
        while data:
            count = os.pwrite(fd, data, place)
            data, place = data[count:], place + count


# ---------------------------------------------------------------------------------------------------- sizes
def slab_size(
    projector: ParallelProjector,
    slices: int,
    *,
    mesh: Mesh | None = None,
    halo: int = 0,
    memory: float | None = None,
) -> int:
    """Slices a slab so that half of the free memory holds all that FBP has in flight; four slabs at least.

    **Arguments:** `memory` [byte] is that of one device; by default what it says is free (a CPU: of the machine or of
    the job's limit).

    **Raises:** `InputError` where not even one slice and its halo fit.
    """
    budget = _budget(mesh, memory)
    fixed, each = memory_needed(projector)
    fits = int((budget - fixed) // each) - 2 * halo
    if fits < 1:
        wanted = fixed + (1 + 2 * halo) * each
        raise InputError(
            f"one slice{f' with {halo} on either side' if halo else ''} and the projector's tables need "
            f"{wanted / 2**30:.2g} GiB, half of the free memory is {budget / 2**30:.2g} GiB: bin the data "
            "(data.binning), or take a machine with more"
        )
    return max(1, min(fits * _size(mesh), -(-slices // _SLABS)))


def _as_compiled(program: Any, projector: ParallelProjector, slab: int, halo: int, mesh: Mesh | None) -> int:
    """A slab that also fits where the solver needs more than FBP does, as the compiler finds."""
    devices = _size(mesh)
    shape = (projector.angles.shape[0], -(-slab // devices) * devices + 2 * halo, projector.detector)
    sinogram = jax.ShapeDtypeStruct(shape, projector.centre.dtype, sharding=sharding.place_of_slices(mesh))
    stats = program.lower(projector, sinogram, np.float32(1)).compile().memory_analysis()
    needed = 0 if stats is None else stats.temp_size_in_bytes
    fixed, each = memory_needed(projector)
    waiting = fixed + (each - _WORKING * sinogram.dtype.itemsize * shape[0] * shape[2]) * shape[1] / devices
    share = (_budget(mesh, None) - waiting) / needed if needed else 1.0
    return slab if share >= 1 else max(1, int(slab * max(share, 0)))


def _budget(mesh: Mesh | None, memory: float | None) -> float:
    """Bytes that the slabs of one device may take."""
    device = (jax.local_devices() if mesh is None else list(mesh.local_devices))[0]
    shares = _size(mesh) if device.platform == "cpu" else 1  # CPU devices share one memory
    return _SHARE_OF_MEMORY * (free_memory(device) if memory is None else memory) / shares


def _size(mesh: Mesh | None) -> int:
    return 1 if mesh is None else mesh.size


def memory_needed(projector: ParallelProjector) -> tuple[int, int]:
    """Bytes of the projector's tables, and bytes that every slice in flight adds, by FBP (measured: docs/scaling.md).

    A slice is there as counts, as line integrals in three places (being prepared, waiting, in work), five times while
    it is filtered and gridded, and as a volume in three places. Grids are those of the slices that are transformed
    together: eight of them, twice, up to what the projector allows itself.
    """
    tables = sum(leaf.nbytes for leaf in jax.tree.leaves(projector) if eqx.is_array(leaf))
    size = projector.centre.dtype.itemsize
    sinogram = projector.angles.shape[0] * projector.detector * size
    one = projector.plan.grid_x * projector.plan.grid_y * size
    grid = max(4 * one, min(16 * one, 2 * _GRIDS))
    return tables + grid, int((3.5 + _WORKING) * sinogram + 3 * projector.shape[0] * projector.shape[1] * size)


def share(slices: tuple[int, int], processes: int, index: int) -> tuple[int, int]:
    """The slices of one of several processes that do not talk to each other: even, contiguous.

    ```python
    assert share((0, 10), 4, 3) == (7, 10)
    ```
    """
    count = slices[1] - slices[0]
    if not 0 <= index < processes or count < processes:
        raise InputError(f"stream: {count} slices cannot be shared by {processes} processes (this one is {index})")
    cut = lambda i: slices[0] + count * i // processes
    return cut(index), cut(index + 1)


def _slabs(missing: list[int], slab: int) -> Iterator[tuple[int, int]]:
    """Runs of neighbouring slices, at most `slab` of them each."""
    while missing:
        run = next((i for i in range(1, len(missing)) if missing[i] != missing[i - 1] + 1), len(missing))
        run = min(run, slab)
        yield missing[0], missing[0] + run
        missing = missing[run:]


# ---------------------------------------------------------------------------------------------------- compute
def _program(solve: Solve, mesh: Mesh | None) -> Any:
    """Solve, scale, and look whether all is finite, as one compiled program; on a mesh every device its slices."""

    def whole(projector: ParallelProjector, sinogram: Float[Array, "view z u"], factor: Array):
        volume = solve(projector, sinogram)
        return volume * factor.astype(volume.dtype), jnp.all(jnp.isfinite(volume))

    if mesh is None:
        return jax.jit(whole)
    split = sharding.on_slices(lambda A, b, f: whole(A, b, f)[0], mesh, axes=(None, 1, None), out=0)

    @jax.jit
    def joined(projector: ParallelProjector, sinogram: Array, factor: Array):
        volume = split(projector, sinogram, factor)
        return volume, jnp.all(jnp.isfinite(volume))

    return joined


# ---------------------------------------------------------------------------------------------------- threads
class _Line:
    """The two threads beside the device, and what they share."""

    def __init__(
        self, rows: Rows, place: Callable, writer: SlabWriter, available: tuple[int, int], slab: int, halo: int
    ):
        self.rows, self.place, self.writer = rows, place, writer
        self.available, self.slab, self.halo = available, slab, halo
        self.read: queue.Queue = queue.Queue(_WAITING)
        self.solved: queue.Queue = queue.Queue(_WAITING)
        self.stop = threading.Event()  # no more slabs
        self.error: BaseException | None = None
        self.reading = self.writing = 0.0
        self.written = 0

    def reader(self, jobs: Iterable[tuple[int, int]]) -> None:
        """Rows of every slab, prepared and on the device."""
        for first, last in jobs:
            start = time.perf_counter()
            block = self.place(self._block(first, last))
            self.reading += time.perf_counter() - start
            if not self.put(self.read, (first, last, block)):
                return
        self.put(self.read, None)

    def _block(self, first: int, last: int) -> np.ndarray:
        """The rows of a slab with its halo; where there are none, mirrored."""
        low, high = first - self.halo, first + self.slab + self.halo
        inside = max(low, self.available[0]), min(last + self.halo, self.available[1])
        block = np.asarray(self.rows(*inside))
        if block.ndim != 3 or block.shape[1] != inside[1] - inside[0]:
            raise InputError(
                f"stream: rows({inside[0]}, {inside[1]}) gave {block.shape}, expected (view, "
                f"{inside[1] - inside[0]}, u)"
            )
        missing = (inside[0] - low, high - inside[1])
        return np.pad(block, ((0, 0), missing, (0, 0)), mode="symmetric") if any(missing) else block

    def writer_(self, tell: Callable[[int], None]) -> None:
        """Slabs from the device to the file, until `None` comes."""
        broken = False
        while (item := self.solved.get()) is not None:
            if broken:
                continue  # only empties the queue, so that nobody waits
            try:
                self._save(*item)
                tell(self.written)
            except BaseException as error:
                broken = True
                self.fail(error, "written")

    def _save(self, first: int, last: int, volume: Any, finite: Any) -> None:
        start = time.perf_counter()
        if not bool(finite):
            raise InputError(
                f"slices {first} to {last - 1}: the reconstruction is not finite; check the flats and "
                "darks of these rows"
            )
        self.writer.write(first, np.asarray(volume)[self.halo : self.halo + last - first])
        self.written += last - first
        self.writing += time.perf_counter() - start

    def fail(self, error: BaseException, what: str) -> None:
        """Keep the first error, in plain words, and end all threads."""
        if isinstance(error, OSError) and not isinstance(error, InputError):
            said = error.strerror or str(error).splitlines()[0]
            plain = InputError(f"the slabs could not be {what}: {said}")
            plain.__cause__ = error
            error = plain
        self.error = self.error or error
        self.stop.set()

    def put(self, where: queue.Queue, item: Any) -> bool:
        """Wait for a place in a queue; `False` when the run has ended meanwhile."""
        while not self.stop.is_set():
            try:
                where.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def get(self, where: queue.Queue) -> Any:
        """Wait for an item; `None` when the run has ended meanwhile."""
        while not self.stop.is_set():
            try:
                return where.get(timeout=0.1)
            except queue.Empty:
                continue
        return None


def _run(line: _Line, compute: Callable, jobs: list[tuple[int, int]], tell: Callable[[int], None]) -> float:
    """The device's part, in this thread, between the other two; seconds that the device was busy."""

    def read() -> None:
        try:
            line.reader(jobs)
        except BaseException as error:
            line.fail(error, "read")

    reader = threading.Thread(target=read, name="reader", daemon=True)
    writer = threading.Thread(target=line.writer_, args=(tell,), name="writer", daemon=True)
    reader.start()
    writer.start()
    busy = 0.0
    try:
        while (item := line.get(line.read)) is not None:
            first, last, block = item
            start = time.perf_counter()
            volume, finite = jax.block_until_ready(compute(block))
            busy += time.perf_counter() - start
            del block, item
            line.put(line.solved, (first, last, volume, finite))
    finally:
        # also after Ctrl-C: what is solved is saved
        line.stop.set()
        line.solved.put(None)
        writer.join()
        reader.join()
    if line.error is not None:
        raise line.error
    return busy
