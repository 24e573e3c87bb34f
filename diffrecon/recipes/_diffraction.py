"""Coherent diffraction imaging: one pattern, many random starts at once, projections, refinement, judgement."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
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
from ..models import Diffraction, diffraction_pattern, oversampling_ratio
from ..scan import Scan
from ..solvers import (
    DiffractionSets,
    RandomStarts,
    Shrinking,
    minimise,
    onto_positive,
    onto_real,
    onto_support,
    random_starts,
)

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
        background=settings["model"]["background"],
        coherence=settings["model"]["coherence"],
    )
    _say_start(start, counts, mask, console)
    found = _from_starts(start, counts, used, settings, console)
    model = _refined(
        start.replace(object=found.average, support=jnp.asarray(found.support)), counts, used, settings, console
    )
    figures, verdict = _judge(model, found, counts, used, held, settings)
    return Result(method, model.centred().quantities(), figures, tuple(verdict), settings)


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
def _from_starts(
    model: Diffraction,
    counts: np.ndarray,
    used: np.ndarray,
    settings: Mapping[str, Mapping[str, Any]],
    console: Console,
) -> RandomStarts:
    """Random phases, projections with a shrinking support, the best of them averaged."""
    solver = settings["solver"]
    background = 0.0 if model.background is None else np.asarray(model.background) ** 2
    low, high = map(float, np.broadcast_to(solver["shrink_threshold"], 2))
    first, last = solver["shrink_width"]
    bound = True if settings["model"]["support"] is None else model.support
    return random_starts(
        DiffractionSets.of(counts, model.support, used, background),
        _KNOWN[settings["model"]["object"]],
        starts=solver["starts"],
        rule=solver["rule"],
        beta=solver["beta"],
        steps=solver["steps"],
        shrinking=Shrinking(solver["shrink_every"], (first, last), (low, high), bound),
        keep=solver["keep"],
        predict=eqx.Partial(_pattern, model),
        seed=solver["seed"],
        console=console,
    )


def _pattern(model: Diffraction, obj: Complex[Array, "*space"]) -> Float[Array, "*space"]:
    """The pattern of an object that is limited by itself."""
    return model.replace(object=obj, support=jnp.ones_like(model.support))(jnp.arange(1))[0]


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
    found: RandomStarts,
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
