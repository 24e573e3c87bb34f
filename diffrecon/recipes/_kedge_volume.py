"""Densities of named materials from tomograms at several energies: from raw counts to the problem, and what is said."""

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import losses, physics, prepare
from .._console import Console
from .._model import Batch
from .._result import Quantity
from ..errors import InputError
from ..modality import Outcome, Problem, Run
from ..models import KEdgeTomography, attenuation_spectra
from ..scan import Scan
from ..solvers import DensityPrior, DensitySetup, density_round, density_samples, fbp
from . import looks

__all__ = ["Densities", "Rounds", "direct_densities", "error_bars", "notes_of", "quantities", "start", "verdict"]

_FIXED = 3  # rounds before brightness, pixels and moves are free
_VARIATION = 0.6  # share of the rounds before edges turn cheap
_TV = 0.35  # weight of total variation in units of the noise, where none is given
_TURNING = 6.0  # units of noise: an edge beyond costs hardly more
_STEADY = 0.02  # brightness of a view about what air and flats say
_UNKNOWN = 0.1  # where there is no air
_NEAR = 0.01  # of an edge: where the bandwidth of a monochromator matters
_SAMPLES = 6
_UNEXPLAINED = 1.5  # of the noise, from which on residuals are no noise
_ROWS = 6  # from which on a move along the rows is seen


class Rays(NamedTuple):
    """Logarithms of all views, what they weigh, and what is known beside the sample."""

    lines: np.ndarray
    brightness: np.ndarray
    steady: float
    said: str


@dataclass(frozen=True)
class Densities(Problem):
    """The problem with what its prior is made of."""

    materials: dict[str, str] = field(default_factory=dict)
    energies: Any = None
    setup: Any = None
    prior: Any = None
    axis: float = 0.0
    lines: tuple[str, ...] = ()

    def prior_at(self, number: int, rounds: int) -> DensityPrior:
        """Give the prior of a round: total variation first, then edges that cost hardly more the larger they are."""
        late = number >= round(rounds * _VARIATION)
        changed = (
            jnp.asarray(self.data["brightness"], jnp.float32), max(3 * 0.6**number, 0.1), _TURNING if late else 0.0,
            float(number >= _FIXED),
        )  # fmt: skip
        where = lambda p: (p.brightness, p.rounding, p.turning, p.nuisance)
        return eqx.tree_at(where, self.prior, tuple(jnp.asarray(value, jnp.float32) for value in changed))


def start(scan: Scan, settings: Any, materials: dict[str, str], energies: np.ndarray, console: Console) -> Densities:
    """Put nothing into the beam of every energy; find axis, brightness of the views, and where matter may be.

    **Arguments:** `energies` of all views [eV].
    """
    _check(scan, settings)
    scan, energies, left_out = _lit(scan, energies)
    several, energy_of = np.unique(energies, return_inverse=True)
    table, shares = _spectra(materials, several, settings)
    beam, dark, flats, noise, mask, references = _beam(scan, energy_of)
    counts = np.asarray(scan.counts, np.float32)
    hot = prepare.brighter_than_beam(counts, beam, dark, energy_of, flats.min(), noise[0]) & mask
    mask = mask & ~hot
    left_out += [f"{hot.sum()} pixels brighter than the empty beam in nearly every view: hot, left out"] * bool(
        hot.any()
    )
    rays = _rays(counts, beam, dark, mask, energy_of)
    angles = np.asarray(scan.angles, float)
    centre, columns, said = _axis(scan, rays.lines, angles, energy_of)
    shape = (*scan.frame_shape, scan.frame_shape[1])
    pixel = 100 * float(np.mean(scan.pixel_size))
    model = KEdgeTomography.empty(
        shape, angles, energy_of, table, shares, pixel, centre=centre, columns=columns, beam=beam, darks=dark,
        noise=noise,
    )  # fmt: skip
    model = model.replace(drift=jnp.asarray(rays.brightness, jnp.float32))
    setup = DensitySetup.of(model)
    prior = _prior(model, setup, settings, rays, flats, mask, angles)
    lines = (*references, *left_out, *notes_of(materials, several, settings.model.bandwidth), said, rays.said)
    lines = (*lines, looks.TWO_BEAMS) if scan.flats is not None and scan.flux is not None else lines
    for line in lines:
        console.say(line)
    data = {"counts": counts, "mask": mask, "brightness": rays.brightness.astype(np.float32)}
    return Densities(
        model, data, _cost, {"density": 1.0, "gain": 1.0, "moves": 1.0},
        per_view=("drift", "turn", "energy_of"), nuisance={"drift": 0.003}, materials=materials, energies=several,
        setup=setup, prior=prior, axis=centre, lines=lines, shared=("mask",),
    )  # fmt: skip


def _cost(model: KEdgeTomography, batch: Batch) -> Array:
    return losses.poisson(model(batch.views), batch.counts, batch.mask)


# ---------------------------------------------------------------------------------------------------- what was measured
def _check(scan: Scan, settings: Any) -> None:
    if scan.pixel_size is None:
        raise InputError(
            f"{scan.name}: densities in g/cm^3 need the pixel in the sample: --set geometry.pixel_size='10 um'"
        )
    if scan.flats is None and scan.flux is None:
        raise InputError(f"{scan.name}: k-edge needs the empty beam of every energy: data.flats, or data.flux")
    for name in ("bandwidth", "harmonics"):
        if settings.model.attenuation is not None and getattr(settings.model, name):
            raise InputError(f"model.attenuation holds for one energy each: with model.{name} the tables are needed")


def _lit(scan: Scan, energies: np.ndarray) -> tuple[Scan, np.ndarray, list[str]]:
    """Leave out views without light, with their energies."""
    unlit, said = prepare.unlit_views(scan, energies)
    views = np.setdiff1d(np.arange(scan.views), unlit)
    return (scan.subset(views) if unlit.size else scan), energies[views], said


def _spectra(materials: dict[str, str], energies: np.ndarray, settings: Any) -> tuple[np.ndarray, np.ndarray]:
    measured = settings.model.attenuation
    if measured is None:
        return attenuation_spectra(materials, energies, settings.model.bandwidth, settings.model.harmonics)
    table = np.asarray(measured, float)
    return table[:, None], np.ones((len(energies), 1))


def _beam(scan: Scan, energy_of: np.ndarray) -> Any:
    """Give the empty beam of every energy, the dark, the relative variance of the flats, the noise of a count (variance
    over signal, variance of the readout), where there is light, and what is to be said."""
    beams = prepare.energy_beams(scan, energy_of)
    mask = np.ones(scan.frame_shape, bool) if scan.mask is None else np.array(scan.mask, bool)
    mask &= (beams.light > 0).all(0)
    if not mask.any():
        raise InputError(f"{scan.name}: the empty beam is nowhere above the dark: are flats and darks exchanged?")
    noise, light = (beams.gain, beams.read_noise**2), np.maximum(beams.light, 1)
    variance = np.maximum((noise[0] * light + noise[1]) / beams.flats[:, None, None] / light**2, 1e-10)
    return np.where(mask, beams.light, 1.0), beams.dark, variance, noise, mask, beams.lines


def _rays(counts: np.ndarray, beam: np.ndarray, dark: np.ndarray, mask: np.ndarray, energy_of: np.ndarray) -> Rays:
    """Take logarithms, and the brightness of every view from the air beside the sample."""
    light = np.where(mask, np.maximum(counts - dark, 0.5) / beam[energy_of], 1.0)
    bands = prepare.find_air(light[:: max(1, len(light) // 64)])
    if not bands:
        said = "no air beside the sample: the brightness of the views is told by flats and the sample itself"
        return Rays(-np.log(light), np.zeros(len(light)), 1 / _UNKNOWN**2, said)
    air = np.concatenate([light[:, r0:r1, c0:c1].reshape(len(light), -1) for r0, r1, c0, c1 in bands], 1)
    brightness = np.log(np.mean(air, 1))
    said = f"brightness of the views by {air.shape[1]} pixels of air: {np.exp(brightness.min()):.4f} to "
    said += f"{np.exp(brightness.max()):.4f} of the flats"
    return Rays(-np.log(light) + brightness[:, None, None], brightness, 1 / _STEADY**2, said)


def _axis(scan: Scan, lines: np.ndarray, angles: np.ndarray, energy_of: np.ndarray) -> tuple[float, np.ndarray, str]:
    """Find the axis at the first energy, and by how many columns the picture at the others has moved."""
    first = energy_of == 0
    if scan.rotation_centre is not None:
        centre, said = float(scan.rotation_centre), f"rotation centre {scan.rotation_centre:.2f} as given"
    elif np.ptp(angles[first]) < np.radians(170):
        centre, said = (lines.shape[2] - 1) / 2, "views of less than half a turn: the axis starts from the middle"
    else:
        found = prepare.find_rotation_centre(lines[first], angles[first])
        centre, said = found.centre, found.message
    places = [_mass_axis(lines[energy_of == e], angles[energy_of == e]) for e in range(energy_of.max() + 1)]
    first_place = places[0]
    columns = np.array([0.0 if p is None or first_place is None else p - first_place for p in places])
    if np.abs(columns).max() > 0.05:
        said += "; the sample has moved between energies by columns " + ", ".join(f"{c:+.2f}" for c in columns)
    return centre, columns, said


def _mass_axis(lines: np.ndarray, angles: np.ndarray) -> float | None:
    """Give the column that the centre of mass goes round; `None` where mass leaves the detector."""
    profile = lines.astype(float).sum(1)
    total = profile.sum(1)
    if (total <= 0).any() or np.ptp(total) > 0.2 * total.mean():
        return None
    middle = profile @ np.arange(profile.shape[1]) / total
    basis = np.stack([np.ones_like(angles), np.cos(angles), np.sin(angles)], 1)
    return float(np.linalg.lstsq(basis, middle, rcond=None)[0][0])


# ---------------------------------------------------------------------------------------------------- the prior
def _prior(
    model: KEdgeTomography, setup: DensitySetup, settings: Any, rays: Rays, flats: np.ndarray, mask: np.ndarray,
    angles: np.ndarray,
) -> DensityPrior:  # fmt: skip
    solver, count = settings.solver, len(model.shares)
    real = lambda a: jnp.asarray(a, jnp.float32)
    weight = np.asarray(model.beam, float)[np.asarray(model.energy_of)] * np.exp(-rays.lines)
    _, slope = model.attenuated(jnp.zeros((len(angles), model.density.shape[0], 1, 1)), jnp.arange(len(angles)))
    slope = np.asarray(slope, float)[..., 0, 0]
    information = np.einsum("vm,v,vm->m", slope, weight[:, mask].mean(1), slope) / len(angles)
    unit = 1 / (np.sqrt(information / float(model.noise[0])) * setup.step_noise())
    rows = model.density.shape[1]
    free = np.zeros((count, 4))
    if solver.align != "none":
        free[:, 0], free[1:, 1:3], free[1:, 3] = 1, solver.align == "sample", rows >= _ROWS
    inside = _inside(model, rays, mask)
    return DensityPrior(
        real(_TV if solver.tv is None else solver.tv), real(unit), real(3.0), real(0.0), real(inside),
        real(float(solver.positive)), real(rays.brightness), real(rays.steady), real(flats), real(free), real(0.0),
    )  # fmt: skip


def _inside(model: KEdgeTomography, rays: Rays, mask: np.ndarray) -> np.ndarray:
    """Find where matter may be: voxels whose rays are dimmed in nearly every view, and two voxels around."""
    width = rays.lines.shape[2]
    padded = np.pad(rays.lines, ((0, 0), (0, 0), (2, 2)), mode="edge")
    smooth = sum(padded[..., i : i + width] for i in range(5)) / 5
    noise = np.sqrt(1.0 / (5 * np.asarray(model.beam)[np.asarray(model.energy_of)]))
    dimmed = jnp.asarray((smooth > 4 * noise) | ~mask, jnp.float32)
    seen = np.asarray(model.projector.adjoint(jnp.ones_like(dimmed)))
    share = np.asarray(model.projector.adjoint(dimmed)) / np.maximum(seen, 1e-3)
    return prepare.dilate((share > 0.95) | (seen < 0.1 * seen.max()), 2)


def notes_of(materials: dict[str, str], energies: np.ndarray, bandwidth: float) -> tuple[str, ...]:
    """Say where an energy is so near an edge that the bandwidth matters, and materials without an edge in between."""
    elements = {element for composition in materials.values() for element in _elements(composition)}
    edges = [(element, edge) for element in sorted(elements) for edge in physics.edges(element)]
    said = []
    if not any(energies.min() < edge < energies.max() for _, edge in edges):
        said.append(
            "WARNING: no absorption edge of the materials lies between the energies: they are told apart by the slopes "
            "of their attenuation alone, and noise grows accordingly"
        )
    near = [(e, n, abs(e / edge - 1)) for e in energies for n, edge in edges if abs(e / edge - 1) < _NEAR]
    if near and not bandwidth:
        energy, name, off = min(near, key=lambda row: row[2])
        said.append(
            f"{energy / 1e3:.5g} keV is {off:.2%} off an edge of {name}: with a spectrum wider than that say its "
            "relative full width at half maximum, --set model.bandwidth=0.01; without it densities come out too low"
        )
    return tuple(said)


def _elements(composition: str) -> list[str]:
    return re.findall("[A-Z][a-z]?", physics.material(composition).formula)


# ---------------------------------------------------------------------------------------------------- solve
class Rounds:
    """Rounds of Gauss-Newton: total variation first, then edges that cost hardly more the larger they are."""

    def __init__(self, rounds: int):
        self.rounds = rounds

    def __call__(self, problem: Densities, run: Run) -> Outcome:
        """Solve."""
        counts, mask = (jnp.asarray(problem.data[n], jnp.float32) for n in ("counts", "mask"))
        model, setup, history = problem.model, problem.setup, []
        progress = run.console.progress(self.rounds, "k-edge, densities: round")
        for number in range(self.rounds):
            prior = problem.prior_at(number, self.rounds)
            model, misfit = density_round(model, counts, mask, setup, prior, 12, 4.0 if number > 1 else 1e9)
            history.append(float(misfit))
            progress.update(number + 1, misfit=history[-1])
        return Outcome(problem.replace(model=model), np.array(history))


def direct_densities(problem: Densities, run: Run) -> Outcome:
    """Back-project the logarithms of every energy, and solve the equations of the materials voxel by voxel."""
    model, counts = problem.model, np.asarray(problem.data["counts"])
    energy_of = np.asarray(model.energy_of)
    light = np.maximum(counts - np.asarray(model.darks), 0.5) / np.asarray(model.beam)[energy_of]
    lines = np.where(problem.data["mask"], problem.data["brightness"][:, None, None] - np.log(light), 0)
    images = []
    for energy in range(len(problem.energies)):
        of = np.flatnonzero(energy_of == energy)
        images.append(np.asarray(fbp(model.projector.subset(of), jnp.asarray(lines[of], jnp.float32))))
    table = np.einsum("ekm,ek->em", np.asarray(model.coefficients, float), np.asarray(model.shares, float))
    found = np.einsum("me,ezyx->mzyx", np.linalg.pinv(table), np.stack(images)) / float(model.pixel)
    return Outcome(problem.replace(model=model.replace(density=jnp.asarray(found, jnp.float32))), np.zeros(0))


# ---------------------------------------------------------------------------------------------------- what is said
def verdict(problem: Densities) -> tuple[dict[str, Any], list[str]]:
    """Give the mass of every material, how well the counts are explained, and what else was found."""
    model, lines, figures = problem.model, list(problem.lines), {}
    voxel = float(model.pixel) ** 3
    for name, density in zip(problem.materials, np.asarray(model.density, float), strict=True):
        figures[f"{name}_mass"] = float(density.sum() * voxel)
        lines.append(f"{name}: {density.sum() * voxel:.4g} g, at most {density.max():.3g} g/cm^3")
    expected, counts = problem.predict(np.arange(problem.views)).astype(float), np.asarray(problem.data["counts"])
    noise, mask = np.asarray(model.noise, float), np.broadcast_to(problem.data["mask"], counts.shape)
    variance = noise[0] * np.maximum(expected - np.asarray(model.darks), 1) + noise[1]
    misfit = np.where(mask, (counts - expected) ** 2 / variance, 0).sum((1, 2)) / mask.sum((1, 2))
    energy_of = np.asarray(model.energy_of)
    each = [float(misfit[energy_of == e].mean()) for e in range(len(problem.energies))]
    figures["misfit"] = np.array(each)
    dark = (counts <= np.asarray(model.darks)) & mask
    if dark.any():
        figures["clipped_fraction"] = float(dark.sum() / mask.sum())
    lines.append(
        "residuals over their noise (mean square): "
        + ", ".join(f"{e / 1e3:.5g} keV {m:.3f}" for e, m in zip(problem.energies, each, strict=True))
        + "; well above 1 a material is missing, or the spectrum is another"
    )
    if max(each) > _UNEXPLAINED:
        lines.append(
            f"WARNING: the counts are explained {max(each):.1f} times worse than their noise: angles or their order, "
            "energies, what is in the beam, or motion"
        )
    for name, amount in zip(problem.materials, np.asarray(model.density, float), strict=True):
        if amount.sum() < -0.1 * np.abs(amount).sum():
            lines.append(
                f"WARNING: {name} is below zero on the whole, as no matter is: check the rotation axis, flats, darks "
                "and the order of the energies; or another material is missing"
            )
    moves = np.asarray(model.moves, float)
    figures |= {"axis": problem.axis + moves[0, 0], "moves": moves, "brightness": np.exp(np.asarray(model.drift))}
    lines.append(f"rotation axis at column {problem.axis + moves[0, 0]:.2f}")
    rest = np.abs(moves[1:] - np.r_[moves[0, :1], 0, 0, 0]).max(initial=0.0)
    if rest > 0.05:
        told = "; ".join(
            f"{e / 1e3:.5g} keV {m[0] - moves[0, 0]:+.2f} columns, {m[3]:+.2f} rows"
            for e, m in zip(problem.energies[1:], moves[1:], strict=True)
        )
        lines.append(f"moved against the first energy: {told}")
    far = np.abs(np.asarray(model.gain)) > 5 * np.sqrt(np.asarray(problem.prior.flats))
    if far.any():
        lines.append(f"{int(far.any(0).sum())} pixels have another gain than in the flats: fitted")
    return figures, lines


def quantities(problem: Densities, scan: Scan) -> dict[str, Quantity]:
    """Give the density of every material."""
    pixel = float(np.mean(scan.pixel_size))
    return {
        name: Quantity(density, "g/cm3", ("z", "y", "x"), pixel, f"density of {composition}", "volume")
        for (name, composition), density in zip(
            reversed(problem.materials.items()), np.asarray(problem.model.density)[::-1], strict=True
        )
    }


def error_bars(problem: Densities, scan: Scan, rounds: int, seed: int) -> tuple[dict[str, Quantity], list[str]]:
    """Give what noise of counts and flats leaves uncertain, by solutions for noise alone, and limits of detection."""
    counts, mask = (jnp.asarray(problem.data[n], jnp.float32) for n in ("counts", "mask"))
    prior = problem.prior_at(rounds - 1, rounds)
    # Steps below the noise of a step are flat: with this the bars are the errors found in simulations, edges included;
    # the last rounds' own rounding, ten times finer, gives the scatter in flat regions, half as large.
    prior = eqx.tree_at(lambda p: p.rounding, prior, jnp.ones(()))
    samples = density_samples(problem.model, counts, mask, problem.setup, prior, jax.random.key(seed), _SAMPLES)
    variance = np.asarray(jnp.mean(samples**2, 0), float)
    padded = np.pad(variance, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = variance.shape[2:]
    bars = np.sqrt(sum(padded[..., i : i + height, j : j + width] for i in range(3) for j in range(3)) / 9)
    inside, pixel = np.asarray(prior.inside) > 0, float(np.mean(scan.pixel_size))
    found, limits, masses = {}, [], []
    totals = np.asarray(jnp.sum(samples, (2, 3, 4)), float) * float(problem.model.pixel) ** 3
    for name, bar, total in zip(problem.materials, bars, totals.T, strict=True):
        masses.append(f"{name} {np.sqrt(np.mean(total**2)):.2g}")
        found[f"{name}_error"] = Quantity(
            np.where(inside, bar, 0).astype(np.float32), "g/cm3", ("z", "y", "x"), pixel, f"error bar of {name}", "data"
        )
        limits.append(f"{name} {3e3 * np.median(bar[inside]):.3g}")
    return found, [
        f"limit of detection in a voxel, 3 sigma: {', '.join(limits)} mg/cm^3",
        f"standard deviation of the masses: {', '.join(masses)} g",
        f"error bars: noise of counts and flats through {_SAMPLES} solutions; not those of tables and spectrum",
    ]
