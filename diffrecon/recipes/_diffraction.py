"""Coherent diffraction imaging: one pattern, many random starts at once, projections, refinement, judgement."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Complex, Float

from .. import losses, quality
from .._console import Console
from .._model import Batch
from .._result import Result
from ..errors import InputError
from ..models import Diffraction, diffraction_pattern, oversampling_ratio, shrink_wrap
from ..models._diffraction import onto_counts, onto_positive, onto_real, onto_support
from ..scan import Scan
from ..solvers import minimise, set_projections

# Fraction of the pixels that tell how loose the support is.
_FREE = 0.02

_KNOWN = {"complex": onto_support, "real": onto_real, "positive": onto_positive}

DEFAULTS: dict[str, dict[str, Any]] = {
    "model": {
        "object": "complex",  # "real", or "positive" (real and not negative)
        "support": None,  # bound of the object: an array, or sides of a box [pixel]; the autocorrelation by default
        "three_dimensional": None,  # several frames: true = one pattern in 3-D (the default), false = add them up
        "background": None,  # counts in every pixel that are not the object's
        "coherence": 0.29,  # blur of the pattern in the refinement [detector pixel], one number or one for each axis;
        # 0.29 is the pixel's own width
    },
    "solver": {
        "starts": 16,  # random starts, all at once
        "rule": "hio",  # er, hio, raar, dm
        "beta": None,  # of the rule; its own default
        "steps": 600,  # projections, of which the last tenth is error reduction
        "shrink_every": 20,  # steps between two looks at the support, within the bound; 0 keeps the first support
        "shrink_width": [3.0, 1.0],  # blur of the modulus that defines it [pixel], at the beginning and in the end
        "shrink_threshold": [0.05, 0.2],  # of the blurred modulus' maximum; of two, what lies between is tried first
        "keep": 0.25,  # fraction of the starts, the best ones, that are averaged
        "refine": 100,  # steps of the likelihood's gradient from the average, with what blurs the pattern
        "seed": 0,
    },
    "quality": {
        "held_out": 0.02,  # fraction of the measured pixels that are never used
        "seed": 0,
    },
}


def defaults(method: str) -> Mapping[str, Mapping[str, Any]]:
    """Every setting by section."""
    return DEFAULTS


def reconstruct(scan: Scan, settings: Mapping[str, Mapping[str, Any]], console: Console, method: str) -> Result:
    """A complex object from its diffraction pattern."""
    _checked(settings)
    counts, mask = diffraction_pattern(scan, settings["model"]["three_dimensional"])
    used, held = _held_out(mask, settings["quality"])
    start = Diffraction.from_scan(
        scan,
        three_dimensional=counts.ndim == 3,
        support=settings["model"]["support"],
        positive=settings["model"]["object"] == "positive",
    )
    start = _with_geometry(start, settings)
    _say_start(start, counts, mask, console)
    found = _from_starts(start, counts, used, settings, console)
    model = _refined(
        start.replace(object=found.average, support=jnp.asarray(found.support)), counts, used, settings, console
    )
    figures, verdict = _judge(model, found, counts, used, held, settings)
    return Result(method, _centred(model).quantities(), figures, tuple(verdict), settings)


# ---------------------------------------------------------------------------------------------------- prepare
def _checked(settings: Mapping[str, Mapping[str, Any]]) -> None:
    model, solver = settings["model"], settings["solver"]
    if model["object"] not in _KNOWN:
        raise InputError(f"model.object: {model['object']!r} is none of {', '.join(_KNOWN)}")
    if solver["starts"] < 1 or solver["steps"] < 1 or solver["refine"] < 0 or solver["shrink_every"] < 0:
        raise InputError(
            "solver.starts and solver.steps must be at least 1, solver.refine and solver.shrink_every not negative"
        )
    threshold = np.atleast_1d(solver["shrink_threshold"])
    if len(solver["shrink_width"]) != 2 or min(solver["shrink_width"]) <= 0:
        raise InputError("solver.shrink_width is two widths in pixels, at the beginning and in the end")
    if threshold.size not in (1, 2) or not ((threshold > 0) & (threshold < 1)).all():
        raise InputError("solver.shrink_threshold is a number between 0 and 1, or two to try what lies between")
    if not 0 < solver["keep"] <= 1 or not 0 <= settings["quality"]["held_out"] < 0.5:
        raise InputError("solver.keep lies between 0 and 1, quality.held_out between 0 and 0.5")


def _held_out(mask: Bool[np.ndarray, "*z y x"], said: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Where pixels are used, and where they are kept to judge by: a few drawn by seed."""
    held = mask & (np.random.default_rng(said["seed"]).uniform(size=mask.shape) < said["held_out"])
    return mask & ~held, held


def _with_geometry(model: Diffraction, settings: Mapping[str, Mapping[str, Any]]) -> Diffraction:
    background, coherence = settings["model"]["background"], settings["model"]["coherence"]
    if background is not None and (isinstance(background, bool) or not np.all(np.asarray(background, float) >= 0)):
        raise InputError("model.background: counts in every pixel, zero or more")
    widths = _widths(coherence, model.object.shape)
    return model.replace(
        background=None if not np.any(background) else jnp.sqrt(jnp.asarray(background, jnp.float32)),
        coherence=jnp.asarray(widths, jnp.float32) if widths.any() else None,
    )


def _widths(said: Any, shape: tuple[int, ...]) -> Float[np.ndarray, " axis"]:
    """The blur along each axis: one number is that of the detector's two, a rocking curve is sampled at points."""
    given = np.atleast_1d(np.asarray(0.0 if said is None else said, float))
    if given.size not in (1, len(shape)) or not ((given >= 0) & (given < 0.25 * min(shape))).all():
        raise InputError(f"model.coherence: {said} is no blur in detector pixels, one number or {len(shape)}")
    return given if given.size > 1 else np.where(np.arange(len(shape)) < len(shape) - 2, 0.0, given)


def _say_start(model: Diffraction, counts: np.ndarray, mask: np.ndarray, console: Console) -> None:
    ratio = oversampling_ratio(model.support)
    pixel = "unknown pixel size" if model.pixel_size is None else f"pixel {model.pixel_size * 1e9:.2f} nm"
    size = " x ".join(map(str, counts.shape))
    console.say(
        f"pattern of {size}, {counts.sum():.4g} counts, {1 - mask.mean():.1%} unmeasured; object on {size}, "
        f"{pixel}; first support of {int(model.support.sum())} pixels, {ratio:.1f} data for each"
    )
    if ratio < 2:
        console.say(
            "fewer than 2 data for each pixel of this support: if the object is as large, the pattern is not "
            "sampled finely enough (move the detector away, or give a smaller model.support)"
        )


# ---------------------------------------------------------------------------------------------------- solve
@dataclasses.dataclass(frozen=True)
class _Found:
    """What the random starts gave: the kept ones aligned, their average, its support, everybody's residual."""

    kept: Complex[np.ndarray, "start *space"]
    average: Complex[Array, "*z y x"]
    support: Bool[np.ndarray, "*z y x"]
    residuals: Float[np.ndarray, " start"]
    gap: Float[np.ndarray, "step start"]


def _from_starts(
    model: Diffraction,
    counts: np.ndarray,
    used: np.ndarray,
    settings: Mapping[str, Mapping[str, Any]],
    console: Console,
) -> _Found:
    """Random phases, projections with a shrinking support, the best of them averaged."""
    solver = settings["solver"]
    threshold = _threshold(model, counts, used, settings, console)
    data = _data(model, counts, used, solver["starts"])
    value, gap = _projected(model, data, np.full(solver["starts"], threshold), solver["seed"], settings, console)
    return _best_of(value, data, gap, solver["keep"])


def _threshold(
    model: Diffraction,
    counts: np.ndarray,
    used: np.ndarray,
    settings: Mapping[str, Mapping[str, Any]],
    console: Console,
) -> float:
    """How much of the modulus belongs to the support: as said, or as pixels say that are left out for it.

    A round of starts has all thresholds of a range. What counts is how well each predicts the free pixels (the free
    likelihood of Favre-Nicolin, Leake & Chushkin 2020), which too loose and too tight supports do badly. Of thresholds
    that are equal within the statistical error of that figure it is the highest: less freedom.
    """
    solver = settings["solver"]
    low, high = map(float, np.broadcast_to(solver["shrink_threshold"], 2))
    fitted, free = _held_out(used, {"held_out": _FREE, "seed": solver["seed"] + 1})
    if low == high or not solver["shrink_every"] or not free.any():
        return float(np.sqrt(low * high))
    thresholds = np.geomspace(low, high, solver["starts"])
    data = _data(model, counts, fitted, solver["starts"])
    value, _ = _projected(model, data, thresholds, solver["seed"] + 1, settings, console)
    patterns = np.asarray(_predicted(model, jnp.asarray(value)), float)
    deviances = np.array([quality.deviances(counts, pattern, free) for pattern in patterns])
    figure = np.nan_to_num(deviances.mean(1), nan=np.inf)
    best = figure.argmin()
    error = np.nan_to_num(deviances[best].std()) / np.sqrt(deviances.shape[1])
    chosen = float(thresholds[figure <= figure[best] + error].max())
    console.say(
        f"support above {chosen:.3f} of the modulus' maximum: predicts pixels that are left out best, to a "
        f"deviance of {figure[best]:.2f}"
    )
    return chosen


def _projected(
    model: Diffraction,
    data: dict[str, Any],
    thresholds: np.ndarray,
    seed: int,
    settings: Mapping[str, Mapping[str, Any]],
    console: Console,
) -> tuple[Complex[np.ndarray, "start *space"], Float[np.ndarray, "step start"]]:
    """Random starts after all projections, and their gaps; each support goes into `data`."""
    solver, dimensions = settings["solver"], model.object.ndim
    state = value = _random_starts(data, solver["starts"], seed)
    known = _KNOWN[settings["model"]["object"]]
    bound = model.support if settings["model"]["support"] is not None else jnp.ones_like(model.support)
    above = jnp.asarray(thresholds, jnp.float32).reshape(-1, *(1,) * dimensions)
    gaps, progress = [], console.progress(solver["steps"], "projections")
    for rule, steps, width in _schedule(solver):
        beta = None if rule == "er" else solver["beta"]
        found = set_projections(state, onto_counts, known, data, rule=rule, beta=beta, steps=steps, batched=True)
        state, value = found.state, found.value
        gaps.append(found.gap)
        if width is not None:
            data |= {"support": bound & shrink_wrap(value, width, above, dimensions)}
        progress.update(sum(map(len, gaps)), gap=float(np.nanmin(found.gap[-1])))
        if not found.ending.finished:
            console.say(found.result)
            break
    return np.asarray(value), np.concatenate(gaps)


@jax.jit
def _predicted(model: Diffraction, objects: Complex[Array, "start *space"]) -> Float[Array, "start *space"]:
    """The pattern of each object."""
    everywhere = jnp.ones_like(model.support)
    return jax.vmap(lambda obj: model.replace(object=obj, support=everywhere)(jnp.arange(1))[0])(objects)


def _best_of(
    objects: Complex[np.ndarray, "start *space"], data: dict[str, Any], gap: np.ndarray, share: float
) -> _Found:
    """The starts with the smallest residuals, aligned and averaged within the support of the very best."""
    residual = np.asarray(_residuals(jnp.asarray(objects), data))
    finite = np.flatnonzero(np.isfinite(residual))
    if not finite.size:
        raise InputError(
            "every random start broke down: try fewer solver.steps before the support shrinks "
            "(solver.shrink_every=0), or give model.support"
        )
    best = finite[np.argsort(residual[finite])][: max(1, round(share * len(objects)))]
    kept = _aligned(objects[best])
    support = np.asarray(data["support"])[best[0]]
    return _Found(kept, jnp.asarray(np.where(support, kept.mean(0), 0), jnp.complex64), support, residual, gap)


def _data(model: Diffraction, counts: np.ndarray, used: np.ndarray, starts: int) -> dict[str, Any]:
    """What the projections are handed: modulus without background, where it counts, a support for each start."""
    background = 0.0 if model.background is None else np.asarray(model.background, float) ** 2
    modulus = np.sqrt(np.maximum(np.asarray(counts, float) - background, 0))
    return {
        "modulus": jnp.asarray(np.where(used, modulus, 0), jnp.float32),
        "measured": jnp.asarray(used),
        "support": jnp.broadcast_to(model.support, (starts, *counts.shape)),
    }


def _random_starts(data: Mapping[str, Any], starts: int, seed: int) -> Complex[Array, "start *space"]:
    """The measured modulus with random phases, within the support."""
    shape = (starts, *data["modulus"].shape)
    phases = np.random.default_rng(seed).uniform(-np.pi, np.pi, shape)
    objects = np.fft.ifftn(np.asarray(data["modulus"]) * np.exp(1j * phases), axes=range(1, len(shape)), norm="ortho")
    return jnp.where(data["support"], jnp.asarray(objects, jnp.complex64), 0)


def _schedule(solver: Mapping[str, Any]) -> list[tuple[str, int, float | None]]:
    """Rule, steps and the width of the shrink-wrap after them: pieces of the rule, then error reduction at the end."""
    last = min(max(solver["steps"] // 10, 1), solver["steps"])
    first = solver["steps"] - last
    reduction: list[tuple[str, int, float | None]] = [("er", last, None)]
    if not solver["shrink_every"]:
        return [(solver["rule"], first, None)] * (first > 0) + reduction
    every = solver["shrink_every"]
    pieces = [min(every, first - done) for done in range(0, first, every)]
    begin, end = solver["shrink_width"]
    # Half of the pieces to shrink in, at an even ratio; the rest at the final width.
    ratio = np.minimum(np.arange(len(pieces)) / max(len(pieces) // 2, 1), 1)
    widths = begin * (end / begin) ** ratio
    return [(solver["rule"], n, float(w)) for n, w in zip(pieces, widths, strict=True)] + reduction


@jax.jit
def _residuals(objects: Complex[Array, "start *space"], data: dict[str, Any]) -> Float[Array, " start"]:
    """`sum |sqrt I - |FFT|| / sum sqrt I` of each start over the pixels that were used."""
    axes = tuple(range(1, objects.ndim))
    power = jnp.abs(jnp.fft.fftn(objects, axes=axes, norm="ortho")) ** 2
    off = jnp.abs(jnp.sqrt(power) - data["modulus"])
    return jnp.sum(jnp.where(data["measured"], off, 0), axes) / jnp.sum(data["modulus"])


def _aligned(objects: Complex[np.ndarray, "start *space"]) -> Complex[np.ndarray, "start *space"]:
    """All laid over the first: what a pattern cannot tell (shift, twin, constant phase) removed."""
    first, kept = objects[0], [objects[0]]
    axes = tuple(range(first.ndim))
    for other in objects[1:]:
        pairs = []
        for one in (other, np.conj(np.flip(other, axes))):
            moved = quality.shift_image(one, quality.register(first, one))
            overlap = np.vdot(moved, first)
            pairs.append((abs(overlap), moved * np.exp(1j * np.angle(overlap))))
        kept.append(max(pairs, key=lambda pair: pair[0])[1])
    return np.stack(kept)


def _cost(model: Diffraction, batch: Batch) -> jax.Array:
    """Half the Poisson deviance, nearly: with 3/8 added the roots of counts have the same variance down to a few."""
    return losses.amplitude(model(batch.views), batch.counts, batch.mask, floor=0.375)


def _real_cost(model: Diffraction, batch: Batch) -> jax.Array:
    return _cost(model.replace(object=jnp.real(model.object)), batch)


def _refined(
    model: Diffraction,
    counts: np.ndarray,
    used: np.ndarray,
    settings: Mapping[str, Mapping[str, Any]],
    console: Console,
) -> Diffraction:
    """The object of highest likelihood near the one found, within its support: gradients with momentum.

    The curvature of the mean cost is at most `2 / pixels`, and a step of its inverse is one of error reduction.
    """
    steps = settings["solver"]["refine"]
    if steps == 0:
        return model
    cost = _cost if settings["model"]["object"] == "complex" else _real_cost
    solution = minimise(
        cost,
        model,
        {"counts": _narrow(counts)[None], "mask": used},
        optax.sgd(0.5 * used.sum(), momentum=0.9, nesterov=True),
        steps=steps,
        console=console,
        label="refinement: step",
    )
    obj = solution.value.inside()
    return solution.value.replace(object=obj if settings["model"]["object"] == "complex" else jnp.real(obj) + 0j)


def _narrow(counts: np.ndarray) -> np.ndarray:
    """In a type that jax has without 64 bits."""
    return counts.astype(np.float32) if counts.max() >= 2**31 or counts.dtype.kind == "f" else counts.astype(np.int32)


# ---------------------------------------------------------------------------------------------------- judge
def _judge(
    model: Diffraction,
    found: _Found,
    counts: np.ndarray,
    used: np.ndarray,
    held: np.ndarray,
    settings: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Any], list[str]]:
    prediction = np.asarray(model(jnp.arange(1))[0], float)
    figures: dict[str, Any] = {"residual": quality.held_out_residual(counts, prediction, used)}
    lines = []
    if held.any():
        figures |= {
            "held_out_residual": quality.held_out_residual(counts, prediction, held),
            "held_out_deviance": quality.deviance(counts, prediction, held),
            "noise_floor": quality.noise_floor(prediction, held),
            "deviance_floor": quality.noise_floor(prediction, held, metric=quality.deviance),
        }
        lines.append(
            f"pixels held out: R {figures['held_out_residual']:.4f} (photon noise alone {figures['noise_floor']:.4f}), "
            f"deviance {figures['held_out_deviance']:.2f} (photon noise alone {figures['deviance_floor']:.2f}); pixels "
            f"fitted: R {figures['residual']:.4f}"
        )
    ratio = oversampling_ratio(found.support)
    figures |= {"oversampling_ratio": ratio, "start_residuals": found.residuals, "history": np.nanmin(found.gap, 1)}
    lines.append(
        f"support of {int(found.support.sum())} pixels, {ratio:.1f} data for each pixel of the object"
        + (
            ": fewer than 2 do not determine a complex object; a larger detector distance or a smaller object is needed"
            if ratio < 2
            else ""
        )
    )
    good = int(np.sum(found.residuals < 1.1 * np.nanmin(found.residuals)))
    figures["agreeing_starts"] = good / found.residuals.size
    lines.append(
        f"{good} of {found.residuals.size} random starts end within 10 % of the best residual "
        f"({np.nanmin(found.residuals):.4f}); {len(found.kept)} are averaged"
    )
    if len(found.kept) > 1:
        transfer = quality.phase_transfer(found.kept, counts, used, model.pixel_size)
        figures |= transfer.as_quality()
        lines.append(str(transfer))
    return figures, lines


def _centred(model: Diffraction) -> Diffraction:
    """The support's centre of mass in the array's middle, and the mean phase zero: neither is measured."""
    support, obj = np.asarray(model.support), np.asarray(model.inside())
    moves = []
    for axis, length in enumerate(support.shape):
        weight = support.sum(tuple(i for i in range(support.ndim) if i != axis))
        centre = np.angle(np.sum(weight * np.exp(2j * np.pi * np.arange(length) / length))) * length / (2 * np.pi)
        moves.append(round(length // 2 - centre))
    roll = lambda a: np.roll(a, moves, tuple(range(support.ndim)))
    mean = np.angle(np.sum(obj * abs(obj)))
    return model.replace(
        object=jnp.asarray(roll(obj * np.exp(-1j * mean)), model.object.dtype), support=jnp.asarray(roll(support))
    )
