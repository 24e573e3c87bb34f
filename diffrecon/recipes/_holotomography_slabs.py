"""Holotomography in two steps from file to file: no more than a block of angles, or a slab of slices, is in memory.

Frames are read in blocks of angles; the phases of a block go to a scratch file, from which slabs of rows are
back-projected. To place the frames each slab is projected again at once, into the place of its phases: a round needs no
volume. The last pass writes the volume, and projections at the angles that were held out, by which it is judged.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import sharding, solvers, stream
from .._console import Console
from .._result import Quantity, Result
from ..errors import InputError
from ..frames import Entries, spread
from ..modality import Modality, Outcome, Problem, Stage, Work
from ..quality import failures
from ..scan import Scan
from ..settings import as_dict
from ..solvers.journal import Journal
from ._run import identity, solve

_JUDGED = 2**30  # bytes of frames that were held out, in memory to be judged


def in_slabs(
    modality: Any, scan: Scan, settings: Any, console: Console, writer: Callable[..., Any], placement: Any
) -> Result:
    """Reconstruct delta (or what `model.quantity` says) into a `SlabWriter`, with `solver.name=two-step`.

    With `console.checkpoint` a run that was interrupted goes on after its last finished round, in the last one after
    its last finished slab; phases are then kept beside the checkpoint. `placement` is that of the recipe.
    """
    if settings.model.beta or settings.quality.halves:
        raise InputError("slabs: model.beta and quality.halves need the whole volume at once (solver.slab=0)")
    whole = modality.start(scan, settings, console, volume=False)
    sharding.wait_for_all()  # the first process keeps the rounds, all read them
    fitted, held = modality.split(whole, settings)
    model = whole.model
    lines = stream.Scratch((whole.views, model.delta.shape[0], model.delta.shape[2]), _scratch_path(console))
    rounds = _Rounds(lines, fitted, placement)
    part = whole.of(fitted)
    journal = Journal(console.checkpoint, identity(modality, part, scan, settings), console.resume)
    part = solve(rounds, part, settings, console, journal).problem
    if not (rounds.fresh or sharding.agree(lines.found)):
        rounds.retrieve(part)
    whole = whole.into(part, fitted)
    factor, units, long_name = model.unit(settings.model.quantity, settings.model.material)
    forth = whole.model.projector.subset(held) if held.size else None
    slabs = _Slabs(part.model, forth, fitted, lines, settings, factor)
    name = settings.model.quantity.replace("-", "_")
    target = writer(model.delta.shape, units, model.pixel_size, long_name, name=name)
    judged = partial(_result, modality, scan, whole, held, slabs, settings, (units, long_name))
    last = _Last(target, lines, held, judged)
    report = slabs.run(last, console)
    lines.close()
    result = last.result
    return Result(modality.name, result.quantities, result.quality, (*result.verdict, report.message), result.settings)


def _scratch_path(console: Console) -> Path | None:
    """Name the scratch file, beside the checkpoint; every process has one of its own."""
    if console.checkpoint is None:
        return None
    path = Path(console.checkpoint)
    path = path.with_name(f"{path.name}.phases{jax.process_index() or ''}")
    if not console.resume:
        path.unlink(missing_ok=True)
    return path


class _Rounds(Modality):
    """The stages that place the frames, with line integrals in a file in the place of the volume, and the phases."""

    def __init__(self, lines: stream.Scratch, fitted: np.ndarray, placement: Callable[..., Work]):
        self.lines, self.fitted, self.placement, self.fresh = lines, fitted, placement, False

    def stages(self, problem: Any, settings: Any, console: Console) -> Work:
        """Place the frames round after round, then retrieve the phases for the last pass."""

        def look(problem: Any) -> tuple[Any, tuple[Any, ...]]:
            self.retrieve(problem)
            slabs = _Slabs(problem.model, problem.model.projector, self.fitted, self.lines, settings, 1.0)
            slabs.run(_Projected(self.lines, self.fitted), Console(quiet=True))
            return problem, (Entries(self.lines, self.fitted),)

        def phases(problem: Problem, run: Any) -> Outcome:
            self.retrieve(problem)
            self.fresh = True
            return Outcome(problem, np.zeros(0))

        yield from self.placement(problem, settings, look)
        yield Stage("phases", phases, ("shifts", "gain", "centre"))

    def retrieve(self, problem: Problem) -> None:
        """Put line integrals of delta of the fitted angles into the file, block after block."""
        retrieval = solvers.PhaseRetrieval.of(problem.model, problem.data)
        for angles, maps in retrieval.by_blocks(problem.model, problem.data):
            self.lines[self.fitted[angles]] = np.asarray(maps[:, 0])


# ---------------------------------------------------------------------------------------------------- slabs
class _Slabs:
    """Rows of phases to slices [`factor` per rad/pixel] and, with a projector `forth`, to their projections."""

    def __init__(self, model: Any, forth: Any, fitted: np.ndarray, lines: stream.Scratch, settings: Any, factor: float):
        self.back, self.forth, self.fitted, self.lines = model.projector, forth, fitted, lines
        self.slices, self.factor, self.mesh = model.delta.shape[0], np.float32(factor), sharding.slice_mesh()
        solver = settings.solver
        self.slab, self.how = solver.slab, (solver.second, solver.filter, solver.cgls_steps)

    def run(self, writer: Any, console: Console) -> stream.Report:
        """Compute all slabs that the writer lacks."""
        slab = self.slab or int(sharding.agree(stream.slab_size(self.back, self.slices, mesh=self.mesh)))
        devices = 1 if self.mesh is None else self.mesh.size
        return stream.stream(
            lambda first, last: self.lines.rows(first, last, self.fitted),
            self.compute,
            writer,
            slices=(0, self.slices),
            slab=-(-int(slab) // devices) * devices,
            console=console,
            place=lambda block: sharding.shard_slices(block, self.mesh),
        )

    def compute(self, block: Array) -> tuple[np.ndarray, bool]:
        """Give `(z, side + angles, side)`, slices and below each its projections, and whether all is finite."""
        values = np.asarray(sharding.gather(_slab(self.back, self.forth, block, self.factor, self.how, self.mesh)))
        return values, bool(np.isfinite(values).all())

    def middle(self) -> Float[np.ndarray, "y x"]:
        """Compute the middle slice."""
        row, devices = self.slices // 2, 1 if self.mesh is None else self.mesh.size
        block = np.repeat(self.lines.rows(row, row + 1, self.fitted), devices, 1)
        return self.compute(sharding.shard_slices(block, self.mesh))[0][0, : self.lines.shape[2]]


@eqx.filter_jit
def _slab(back: Any, forth: Any, block: Array, factor: Any, how: tuple[Any, ...], mesh: Any) -> Array:
    """Compute a slab; `how` is what the settings say: second step, filter, steps."""
    second, name, steps = how
    method: Any = partial(solvers.fbp, filter=name)
    if second == "cgls":
        method = stream.each_slice(lambda A, b: solvers.cgls(A, b, steps=steps).x)
    split = method if mesh is None else sharding.on_slices(method, mesh, axes=(None, 1), out=0)
    volume = split(back, block)
    if forth is None:
        return volume * factor
    return jnp.concatenate([volume * factor, jnp.moveaxis(sharding.OverSlices(forth, mesh)(volume), 0, 1)], 1)


class _Projected:
    """Put projections of slabs in the place of the phases of these angles."""

    def __init__(self, lines: stream.Scratch, angles: np.ndarray):
        self.lines, self.angles, self.side = lines, angles, lines.shape[2]

    def write(self, first: int, slab: Float[np.ndarray, "z more x"]) -> None:
        self.lines.put_rows(first, np.moveaxis(slab[:, self.side :], 1, 0), self.angles)

    def close(self, result: Any = None) -> None:
        """They are in the file."""

    def abort(self) -> None:
        """The round is done again."""

    def done(self) -> set[int]:
        return set()


class _Last(_Projected):
    """Write the volume into its file, and projections at angles that were held out, which have no phases, into their
    places."""

    def __init__(self, target: Any, lines: stream.Scratch, held: np.ndarray, judged: Callable[[], Result]):
        super().__init__(lines, held)
        self.target, self.judged = target, judged
        self.abort = target.abort

    def write(self, first: int, slab: Float[np.ndarray, "z more x"]) -> None:
        super().write(first, slab)  # a slice that counts as done has both
        self.target.write(first, slab[:, : self.side])

    def close(self, result: Any = None) -> None:
        self.result = self.judged()
        self.target.close(self.result)

    def done(self) -> set[int]:
        there = np.zeros(self.lines.shape[1], bool)
        there[list(self.target.done())] = True
        return set(np.flatnonzero(sharding.agree(there)).tolist())


# ---------------------------------------------------------------------------------------------------- judge
def _result(
    modality: Any, scan: Scan, whole: Any, held: np.ndarray, slabs: _Slabs, settings: Any, named: tuple[str, str]
) -> Result:
    """Give middle slice, places of the frames, figures and verdict."""
    figures: dict[str, Any] = {}
    words: list[str] = []
    if held.size:
        frames = 24.0 * np.prod(whole.model.frame, dtype=float) * len(whole.model.pixels)
        some = min(max(1, int(_JUDGED // frames)), held.size)
        some = held[spread(held.size, some)]
        whole = whole.placed(some, slabs.lines)
        figures, words = modality.judge(whole.of(some), settings, Entries(slabs.lines, some))
    whole = whole.replace(model=whole.gauge(whole.model))
    model = whole.model
    image = slabs.middle()
    more, lines = modality.verdict(whole, scan, settings, jnp.asarray(image[None]))
    pixel, (units, long_name) = model.pixel_size, named
    quantities = {
        "middle_slice": Quantity(image, units, ("y", "x"), pixel, long_name, "image"),
        "phase": Quantity(
            -slabs.lines[slabs.fitted[:1]][0], "rad", ("y", "x"), pixel, "phase of the first angle fitted"
        ),
    }
    figures |= more
    said = (*failures(figures), *words, *lines)
    return Result(modality.name, quantities | model.places(), figures, said, as_dict(settings))
