"""What all pixels of a powder slice share: the shape of the peaks, the smooth pattern, and the empty beam.

They are refined together with what rings that overlap tie to them: the total of every phase, its mean lattice, and how
much of it lies where the amorphous is. At the end once more with the amounts of every ray free, so that what is known
beforehand of the slice bends neither peaks nor mean lattices.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..models import PowderBasis, PowderTomography
from ..solvers import GridPrior, poisson_cost
from ._powder_peaks import bends
from ._powder_start import Setup

_SMALL = 0.02  # change by which derivatives of the peaks are taken
_WIDER = 1.5  # times as many patterns span a phase with all these changes
_FARTHEST = 0.3  # relative change of a width or an amount in one step, and of half of it of the share of Lorentz
_SIZES = 0.7  # how far sizes of crystallites are from those of the phases, as a logarithm, typically
_RIDGES = 1e-3, 1e-5  # of the diagonal: of the peaks, whose widths and sizes are hardly told apart, and the rest
_LENGTHS = (1.0, 0.4, 0.1)
_INDEPENDENT = 1e-4  # of its length, that a column of a ray must have beside the others


class _Equations(NamedTuple):
    """Fisher information of what is shared, and the slope of the likelihood; `beam`: of the empty beam's channels."""

    normal: Any  # (one, other)
    slope: Any  # (one,)
    cross: Any  # (one, channel)
    beam: Any  # (channel, channel)
    beam_slope: Any  # (channel,)


def refined_shape(
    model: PowderTomography, counts: Array, setup: Setup, prior: GridPrior, peaks: bool = True
) -> tuple[PowderTomography, Setup]:
    """Take one step of Gauss-Newton in everything that the pixels share, the shape of the `peaks` or all else.

    **Returns:** the model and what it was made of, as they were where no step lowers the cost.
    """
    found = _equations_of(model, counts, setup, free=False)
    wanted = np.arange(len(found.slope)) >= (0 if peaks else 2 + len(setup.phases))
    step, beam, _ = _solved(found, model, setup, wanted)
    best, cost = (model, setup), _cost(model, counts, prior, setup)
    for length in _LENGTHS:
        trial = _moved(model, setup, length * step, length * beam)
        after = _cost(trial[0], counts, prior, setup)
        if after < cost:
            return trial
    return best


def shape_by_rays(
    model: PowderTomography, counts: Array, setup: Setup, peaks: bool = True
) -> tuple[PowderTomography, Setup, Float[np.ndarray, " phase"]]:
    """Take one step of Gauss-Newton in mean lattices and the shape of the `peaks`, whatever amounts each ray has.

    Sparse edges make grains too flat where photons are few, and shape and lattices, fitted to the same counts, make up
    for it. With free amounts of everything in every ray they cannot (the profile likelihood; Murphy & van der Vaart
    2000), and the photons leave hardly more open: in dim frames a tenth more of the mean lattices.

    **Returns:** the model, what it was made of, and the standard deviation of the mean lattice of every phase [1e-3].
    """
    found, count = _equations_of(model, counts, setup, free=True), len(setup.phases)
    shape, lattices = np.zeros((2, len(found.slope)), bool)
    shape[: 2 + count] = lattices[2 + 2 * count : 2 + 3 * count] = True
    smooth = np.arange(len(found.slope)) >= 2 + 4 * count
    found.normal[lattices, lattices] += (1e3 * setup.largest) ** -2.0  # where next to nothing tells
    step, _, deviation = _solved(found, model, setup, shape | lattices | smooth)
    step = np.where(lattices | (shape & peaks), step, 0)
    return *_moved(model, setup, step, np.zeros_like(found.beam_slope)), deviation[lattices]


def _equations_of(model: PowderTomography, counts: Array, setup: Setup, free: bool) -> _Equations:
    basis, columns = _directions(setup)
    found = _equations(model.replace(basis=basis), counts, jnp.asarray(columns, jnp.float32), jnp.float32(free))
    return _Equations(*(np.array(a, float) for a in found))


def _cost(model: PowderTomography, counts: Array, prior: GridPrior, setup: Setup) -> float:
    away = np.asarray(model.background, float) - setup.data.background
    known = setup.data.background_variance
    beam = 0.0 if known is None else 0.5 * float((away**2 / known).sum())
    return float(poisson_cost(model, counts, prior)) + beam


def _directions(setup: Setup) -> tuple[PowderBasis, Float[np.ndarray, "one map channel"]]:
    """Patterns that span the phases whatever their peaks, and what a unit of every parameter changes them by.

    The first third of the maps are the amounts of these patterns, then come their derivatives by the lattice, and what
    they are with as much of every phase as there is of the amorphous.
    """
    peaks, count = setup.peaks, len(setup.phases)
    sized = lambda n: tuple(s * (1 + _SMALL * (n == m)) for m, s in enumerate(peaks.sizes))
    trials = [peaks, dataclasses.replace(peaks, width=peaks.width * (1 + _SMALL))]
    trials.append(dataclasses.replace(peaks, lorentz=peaks.lorentz + _SMALL))
    trials += [dataclasses.replace(peaks, sizes=sized(n)) for n in range(count)]
    bases = [setup.basis(trial) for trial in trials]
    weights, patterns = _common(bases)  # (phase, order, depth, rank), (trial, phase, rank, channel)
    rank, channels = patterns.shape[2:]
    maps = count * rank + len(setup.amorphous)
    smooth = setup.splines if setup.splines is not None else np.zeros((0, channels))
    columns = np.zeros((len(trials) - 1 + 3 * count + len(smooth), 3 * maps, channels))
    at = len(trials) - 1
    columns[:at, : count * rank] = ((patterns[1:] - patterns[0]) / _SMALL).reshape(at, -1, channels)
    for number in range(count):
        own = slice(number * rank, (number + 1) * rank)
        columns[at + number, own] = patterns[0, number]
        columns[at + count + number, maps:][own] = patterns[0, number]
        columns[at + 2 * count + number, 2 * maps :][own] = patterns[0, number] * bool(len(setup.amorphous))
    columns[at + 3 * count :, maps - 1] = smooth * _unit(setup) * setup.step
    cast = lambda a: jnp.asarray(a, jnp.float32)
    return PowderBasis(cast(patterns[0]), cast(weights), bases[0].amorphous, bases[0].largest), columns


def _unit(setup: Setup) -> float:
    return float(np.mean(setup.amorphous)) if len(setup.amorphous) else 0.0


def _common(bases: list[PowderBasis]) -> tuple[np.ndarray, np.ndarray]:
    """Weights that several bases share, by singular values, and the patterns of each."""
    full = np.stack(
        [np.einsum("pabr,prk->pabk", *(np.asarray(a, float) for a in (b.weights, b.patterns))) for b in bases]
    )
    trials, count, orders, depths, channels = full.shape
    rank = min(int(_WIDER * bases[0].patterns.shape[1]), orders * depths)
    weights, patterns = [], []
    for table in np.moveaxis(full, 1, 0):
        flat = table.reshape(trials, orders * depths, channels)
        left = np.linalg.svd(np.moveaxis(flat, 0, 1).reshape(orders * depths, -1), full_matrices=False)[0][:, :rank]
        weights.append(left.reshape(orders, depths, rank))
        patterns.append(np.einsum("or,tok->trk", left, flat))
    return np.stack(weights), np.stack(patterns, 1)


@jax.jit
def _equations(model: PowderTomography, counts: Array, columns: Float[Array, "one map channel"], free: Array) -> Any:
    """View by view, so that the changes of one view are held at a time; `free`: 1 leaves the amounts of a ray open."""

    def of_view(view: Array) -> _Equations:
        part = model.of_view(view)
        like = jnp.broadcast_to(part.fractions[-1:], part.strains.shape)
        rays = lambda strains: part.projector(part.replace(strains=strains).maps())[0]
        here, moved = jax.jvp(rays, (part.strains,), (jnp.ones_like(part.strains),))
        spread = part.replace(fractions=jnp.concatenate([like, part.fractions[len(like) :]]))
        maps = jnp.concatenate([here, moved, part.projector(spread.maps())[0]], -1)
        light, seen = part.light[0], counts[view]
        expected = light * (part.scattered()[0] + model.background)
        root = 1 / jnp.sqrt(jnp.maximum(expected, 1.0))
        own = free * _directions_of_rays(_of_rays(part) * (light * root)[:, None])
        without = lambda a: a - jnp.einsum("ukm,ulm,...ul->...uk", own, own, a, precision="high")
        changes = without(light * root * jnp.einsum("jum,jk,cmk->cuk", maps, model.between, columns))
        left, beam = without(root * (seen - expected)), root * light
        seen_of_own = jnp.einsum("ukm,uk->umk", own, beam)
        return _Equations(
            jnp.einsum("auk,buk->ab", changes, changes), jnp.einsum("auk,uk->a", changes, left),
            jnp.einsum("auk,uk->ak", changes, beam),
            jnp.diag((beam**2).sum(0)) - jnp.einsum("umk,uml->kl", seen_of_own, seen_of_own), (left * beam).sum(0),
        )  # fmt: skip

    views = jnp.arange(len(model.light))
    first = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(of_view, views[0]))
    return jax.lax.scan(lambda total, view: (jax.tree.map(jnp.add, total, of_view(view)), None), first, views)[0]


def _of_rays(part: PowderTomography) -> Float[Array, "u component channel"]:
    """Give what every ray of one view sees of each component, with a little of it everywhere."""
    patterns, usual = part.basis.patterns, jnp.abs(part.fractions).mean(-1, keepdims=True)
    rays = part.projector(part.replace(fractions=part.fractions + 0.1 * usual).maps())[0]
    count = patterns.shape[0] * patterns.shape[1]
    phases = rays[..., :count].reshape(*rays.shape[:-1], *patterns.shape[:2])
    seen = jnp.einsum("jupr,jk,prk->upk", phases, part.between, patterns)
    return jnp.concatenate(
        [seen, jnp.einsum("jua,jk,ak->uak", rays[..., count:], part.between, part.basis.amorphous)], 1
    )


def _directions_of_rays(columns: Float[Array, "u component channel"]) -> Float[Array, "u channel component"]:
    """Make an orthonormal set of the columns of every ray, zero for one that is none beside the others."""
    size = jnp.linalg.norm(columns, axis=-1, keepdims=True)
    set_, beside = jnp.linalg.qr(jnp.moveaxis(columns / jnp.maximum(size, 1e-30), -1, -2))
    alone = jnp.abs(jnp.diagonal(beside, axis1=-2, axis2=-1)) > _INDEPENDENT
    return set_ * (alone & (size[..., 0] > _INDEPENDENT * size.max()))[:, None]


def _solved(
    found: _Equations, model: PowderTomography, setup: Setup, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solve for the step in what is `wanted`, the empty beam eliminated where it is not known exactly.

    **Returns:** the step, that of the empty beam, and the standard deviations.
    """
    normal, slope, count = found.normal.copy(), found.slope.copy(), len(setup.phases)
    sizes = slice(2, 2 + count)
    normal[sizes, sizes] += np.eye(count) / _SIZES**2
    slope[sizes] -= np.log(setup.peaks.sizes) / _SIZES**2
    if setup.splines is not None:
        stiff = bends(setup.splines).T @ bends(setup.splines)
        now = np.linalg.lstsq(setup.splines.T, setup.amorphous[0] / _unit(setup), rcond=None)[0]
        normal[-len(now) :, -len(now) :] += stiff
        slope[-len(now) :] -= stiff @ now
    scale = np.sqrt(np.diag(normal)) + 1e-30
    beam = _beam(found, model, setup)
    normal -= found.cross @ beam[:, :-1]
    slope -= found.cross @ beam[:, -1]
    scaled = normal / scale / scale[:, None]
    scaled += np.diag(np.where(np.arange(len(scale)) < 2 + count, *_RIDGES))
    scaled = np.where(wanted & wanted[:, None], scaled, np.eye(len(scale)))
    most = np.full(len(scale), np.inf)
    most[: 2 + count] = _FARTHEST * np.r_[1, 0.5, np.ones(count)]
    step = _within(scaled, np.where(wanted, slope / scale, 0), most * scale) / scale
    others = np.abs(step[2 + count : 2 + 4 * count]) / np.r_[np.ones(count), 3 * np.ones(count), np.ones(count)]
    step = step * min(1.0, _FARTHEST / max(float(others.max()), 1e-30))
    return step, beam[:, -1] - beam[:, :-1] @ step, np.sqrt(np.diag(np.linalg.inv(scaled))) / scale


def _beam(found: _Equations, model: PowderTomography, setup: Setup) -> Float[np.ndarray, "channel one"]:
    """Give what the empty beam does for every unit of the parameters, and, last, by its own slope."""
    known = setup.data.background_variance
    if known is None:
        return np.zeros((len(found.beam), len(found.slope) + 1))
    pull = found.beam_slope + (setup.data.background - np.asarray(model.background, float)) / known
    size = np.sqrt(np.diag(found.beam) + 1 / known)
    own = (found.beam + np.diag(1 / known)) / size / size[:, None]
    return np.linalg.solve(own, np.c_[found.cross.T, pull] / size[:, None]) / size[:, None]


def _within(normal: np.ndarray, slope: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Minimise a quadratic in a box: what leaves it is held at its wall, and the rest solved again."""
    step, free = np.zeros_like(slope), np.ones(len(slope), bool)
    while free.any():
        right = slope[free] - normal[np.ix_(free, ~free)] @ step[~free]
        step[free] = np.linalg.solve(normal[np.ix_(free, free)], right)
        out = np.abs(step) > most * (1 + 1e-9)
        if not out.any():
            break
        step[out] = np.sign(step[out]) * most[out]
        free &= ~out
    return step


def _moved(model: PowderTomography, setup: Setup, step: np.ndarray, beam: np.ndarray) -> tuple[PowderTomography, Setup]:
    peaks, total, count = setup.peaks, setup.amorphous, len(setup.phases)
    part = np.split(step, np.cumsum([2, count, count, count, count]))
    cast = lambda a: jnp.asarray(a, jnp.float32)[:, None]
    old, others = model.fractions[..., :count, :], model.fractions[..., count:, :]
    amounts = old * cast(np.exp(part[2])) + cast(part[4]) * (others[..., -1:, :] if others.shape[-2] else 0)
    amounts = jnp.maximum(amounts, jnp.minimum(old, 0))
    sizes = tuple(float(np.clip(s * np.exp(f), 0.05, 20)) for s, f in zip(peaks.sizes, part[1], strict=True))
    peaks = dataclasses.replace(
        peaks,
        width=peaks.width * float(np.exp(step[0])),
        lorentz=float(np.clip(peaks.lorentz + step[1], 0, 1)),
        sizes=sizes,
    )
    if setup.splines is not None:
        total = np.maximum(total + _unit(setup) * part[5] @ setup.splines, 0.02 * total)
    setup = dataclasses.replace(setup, peaks=peaks, amorphous=total)
    return model.replace(
        basis=setup.basis(), fractions=jnp.concatenate([amounts, others], -2),
        strains=model.within(model.strains + cast(part[3])),
        background=jnp.maximum(model.background + jnp.asarray(beam, jnp.float32), 0),
    ), setup  # fmt: skip
