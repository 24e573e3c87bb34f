"""Holotomography in two steps from file to file: no more than a block of angles, or a slab of slices, is in memory.

Frames are read in blocks of angles; the phases of a block go to a scratch file, from which slabs of rows are
back-projected. To place the frames each slab is projected again at once, into the place of its phases: a round needs no
volume. The last pass writes the volume, and projections at the angles that were held out, by which it is judged.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import physics, sharding, solvers, stream
from .._console import Console
from .._result import Quantity, Result
from ..errors import InputError
from ..models import HoloTomography, holograms_by_angle
from ..scan import Scan
from ._holotomography import first_guess, good_pixels, judge, split
from ._journal import Journal
from ._two_step import (
    PhaseRetrieval,
    agreed,
    blocks,
    centred,
    everywhere,
    place_frames,
    registered,
    retrieved,
    say_moved,
    with_axis,
)

Settings = Mapping[str, Mapping[str, Any]]
_JUDGED = 2**30  # bytes of frames that were held out, in memory to be judged


def in_slabs(scan: Scan, settings: Settings, console: Console, method: str, writer: Callable[..., Any]) -> Result:
    """As `reconstruct` with `solver.name=two-step`; delta (or what `model.quantity` says) goes to a `SlabWriter`.

    With `console.checkpoint` a run that was interrupted goes on after its last finished round, in the last one after
    its last finished slab; phases are then kept beside the checkpoint.
    """
    if settings["model"]["beta"] or settings["quality"]["halves"]:
        raise InputError("slabs: model.beta and quality.halves need the whole volume at once (solver.slab=0)")
    model = first_guess(scan, settings, console, volume=False)
    sharding.wait_for_all()  # the first process keeps the rounds, all read them
    data = good_pixels(model, holograms_by_angle(scan), settings, console)
    journal = Journal(console, scan.counts[:1], settings)
    train, held = split(model.gain.shape[0], settings["quality"])
    lines = stream.Scratch((model.gain.shape[0], model.delta.shape[0], model.delta.shape[2]), _scratch_path(console))
    model, number = _rounds(model, data, train, lines, settings, console, journal)
    if not (journal.read(number) and agreed(lines.found)):
        _phases(model, data, train, lines)
        if jax.process_index() == 0:
            journal.write(number, {"phases": True})
    factor, units, long_name = _unit(model, settings)
    slabs = _Slabs(model, train, held, lines, settings, factor)
    name = "delta" if settings["model"]["quantity"] == "delta" else settings["model"]["quantity"].replace("-", "_")
    target = writer(model.delta.shape, units, model.pixel_size, long_name, name=name)
    last = _Last(target, lines, held, partial(_result, slabs, data, settings, method, (units, long_name)))
    report = slabs.run(last, console)
    lines.close()
    return Result(method, last.result.quantities, last.result.quality, (*last.result.verdict, report.message), settings)


def _scratch_path(console: Console) -> Path | None:
    """Beside the checkpoint; every process has one of its own."""
    if console.checkpoint is None:
        return None
    path = Path(console.checkpoint)
    path = path.with_name(f"{path.name}.phases{jax.process_index() or ''}")
    if not console.resume:
        path.unlink(missing_ok=True)
    return path


# ---------------------------------------------------------------------------------------------------- rounds
def _rounds(
    model: HoloTomography,
    data: Mapping[str, Any],
    train: np.ndarray,
    lines: stream.Scratch,
    settings: Settings,
    console: Console,
    journal: Journal,
) -> tuple[HoloTomography, int]:
    """Axis and places of the frames; how many rounds the journal has."""
    chosen = settings["model"]
    stages: list[Callable[[HoloTomography], HoloTomography]] = []
    if chosen["register"]:
        stages.append(lambda model: registered(model, data, console))
    if chosen["centre"]:
        stages.append(lambda model: with_axis(model, data, train, 0.0, console))
    count = settings["solver"]["align"] if chosen["shifts"] or chosen["centre"] else 0
    for number in range(count):
        stages.append(
            partial(_round, data=data, train=train, lines=lines, settings=settings, console=console, number=number + 1)
        )
    for number, stage in enumerate(stages):
        found = journal.read(number)
        if found is None:
            model = stage(model)
            if jax.process_index() == 0:
                journal.write(number, {name: getattr(model, name) for name in ("shifts", "gain", "centre")})
        else:
            model = model.replace(**{name: jnp.asarray(value) for name, value in found.items()})
    return model, len(stages)


def _round(
    model: HoloTomography,
    *,
    data: Mapping[str, Any],
    train: np.ndarray,
    lines: stream.Scratch,
    settings: Settings,
    console: Console,
    number: int,
) -> HoloTomography:
    """Phases, slab by slab their projections in their place, and the frames placed on these."""
    _phases(model, data, train, lines)
    _Slabs(model, train, train, lines, settings, 1.0).run(_Projected(lines, train), Console(quiet=True))
    placed = centred(place_frames(model, data, train, lines, gain=settings["model"]["gain"], quiet=True))
    say_moved(model, placed, train, number, console)
    return placed


def _phases(model: HoloTomography, data: Mapping[str, Any], angles: np.ndarray, lines: stream.Scratch) -> None:
    """Line integrals of delta of these angles, block after block into the file."""
    retrieval = PhaseRetrieval.of(model, data, angles, 0.0)
    for part, found in blocks(retrieved, (retrieval, model), data, angles):
        lines[part] = found[:, 0]


# ---------------------------------------------------------------------------------------------------- slabs
class _Slabs:
    """Rows of phases to slices [`factor` per rad/pixel] and to their projections at some angles."""

    def __init__(
        self,
        model: HoloTomography,
        train: np.ndarray,
        seen: np.ndarray,
        lines: stream.Scratch,
        settings: Settings,
        factor: float,
    ):
        self.model, self.train, self.seen, self.lines, self.factor = model, train, seen, lines, np.float32(factor)
        solver = settings["solver"]
        self.slab, self.mesh = solver["slab"], sharding.slice_mesh()
        self.how = (solver["second"], solver["filter"], solver["cgls_steps"])
        self.back: Any = model.projector.subset(train)
        self.forth: Any = self.back  # tables of a projector are large
        if seen is not train:
            self.forth = model.projector.subset(seen) if seen.size else None

    def run(self, writer: Any, console: Console) -> stream.Report:
        """All slabs that the writer lacks."""
        slices = self.model.delta.shape[0]
        slab = self.slab or int(agreed(stream.slab_size(self.back, slices, mesh=self.mesh)))
        devices = 1 if self.mesh is None else self.mesh.size
        return stream.stream(
            lambda first, last: self.lines.rows(first, last, self.train),
            self.compute,
            writer,
            slices=(0, slices),
            slab=-(-int(slab) // devices) * devices,
            console=console,
            place=lambda block: sharding.shard_slices(block, self.mesh),
        )

    def compute(self, block: Array) -> tuple[np.ndarray, bool]:
        """`(z, side + angles, side)`: slices, and below each its projections."""
        found = everywhere(_slab(self.back, self.forth, block, self.factor, self.how, self.mesh))
        return found, bool(np.isfinite(found).all())


@eqx.filter_jit
def _slab(back: Any, forth: Any, block: Array, factor: Any, how: tuple[Any, ...], mesh: Any) -> Array:
    """`how` is what the settings say: second step, filter, steps."""
    second, name, steps = how
    solve: Any = partial(solvers.fbp, filter=name)
    if second == "cgls":
        solve = stream.each_slice(lambda A, b: solvers.cgls(A, b, steps=steps).x)
    split = solve if mesh is None else sharding.on_slices(solve, mesh, axes=(None, 1), out=0)
    volume = split(back, block)
    if forth is None:
        return volume * factor
    return jnp.concatenate([volume * factor, jnp.moveaxis(sharding.OverSlices(forth, mesh)(volume), 0, 1)], 1)


class _Projected:
    """Projections of slabs take the place of the phases of these."""

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
    """The volume into its file; projections at angles that were held out, which have no phases, into their places."""

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
        return set(np.flatnonzero(agreed(there)).tolist())


# ---------------------------------------------------------------------------------------------------- judge
def _result(slabs: _Slabs, data: Mapping[str, Any], settings: Settings, method: str, named: tuple[str, str]) -> Result:
    """Middle slice, places of the frames, figures and verdict."""
    model, held, lines = slabs.model, slabs.seen, slabs.lines
    frame = 24.0 * np.prod(model.frame, dtype=float) * len(model.pixels)
    most = max(1, int(_JUDGED // frame))
    some = held[np.unique(np.linspace(0, held.size - 1, min(most, held.size)).astype(int))] if held.size else held
    middle, devices = model.delta.shape[0] // 2, 1 if slabs.mesh is None else slabs.mesh.size
    block = sharding.shard_slices(np.repeat(lines.rows(middle, middle + 1, slabs.train), devices, 1), slabs.mesh)
    image = slabs.compute(block)[0][0, : lines.shape[2]]
    axis = np.arange(image.shape[0]) - (image.shape[0] - 1) / 2
    radius = np.hypot(axis[:, None], axis[None])
    ring = (radius > 0.94 * axis[-1]) & (radius <= axis[-1])
    edge = float(np.abs(image[ring]).mean() / max(float(np.abs(image).max()), 1e-30))
    model, figures, verdict = judge(model, data, some, settings, lines, edge=edge)
    pixel, (units, long_name) = model.pixel_size, named
    quantities = {
        "middle_slice": Quantity(image, units, ("y", "x"), pixel, long_name, "image"),
        "phase": Quantity(-lines[slabs.train[:1]][0], "rad", ("y", "x"), pixel, "phase of the first angle fitted"),
    }
    return Result(method, quantities | model.places(), figures, tuple(verdict), settings)


def _unit(model: HoloTomography, settings: Settings) -> tuple[float, str, str]:
    """What rad/pixel is multiplied by, and what it is then."""
    said, delta = settings["model"]["quantity"], model.wavelength / (2 * np.pi * model.pixel_size)
    if said == "delta":
        return delta, "", "refractive index decrement delta"
    if said == "electron-density":
        return 1e-30 * float(physics.electron_density(delta, model.wavelength)), "1/angstrom^3", "electron density"
    material = str(settings["model"]["material"])
    density = physics.density_from_delta(delta, material, float(physics.wavelength_to_energy(model.wavelength)))
    return float(density), "g/cm^3", f"density as {material}"
