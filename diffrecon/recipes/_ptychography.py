"""Ptychography, near and far field: scale, guess, descend with a decaying step, judge on views never fitted."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import losses, operators, quality
from .._console import Console
from .._model import Batch
from .._result import Quantity, Result
from ..errors import InputError
from ..models import Ptychography
from ..scan import Scan
from ..solvers import minimise

_COMMON: dict[str, dict[str, Any]] = {
    "model": {
        "modes": 1,  # incoherent probe modes
        "margin": 8,  # detector pixels around the scanned area
        "oversampling": 1,  # object pixels along a detector pixel (near field): 2 where the light is finer than a pixel
        "object": True,
        "probe": True,
        "positions": True,
        "background": True,
        "gain": False,  # what is solved for
    },
    "loss": {"function": None},  # a function (model, batch) -> scalar; amplitudes by default
    "optimiser": {
        "name": "adam",  # any optax optimiser that takes a learning rate
        "learning_rate": 0.04,  # of the object; the factors below multiply it
        "probe": 1.0,  # in units of the probe's amplitude
        "positions": 1.0,  # [pixel]
        "background": 2.0,  # [sqrt(counts)]
        "gain": 0.1,
        "constant": 0.3,  # fraction of the steps before the step size decays (cosine) to 1/50
    },
    "solver": {
        "steps": 600,  # or ten epochs, where those are more
        "epochs": None,  # exactly so many instead
        "batch_size": 10,  # views a step; small batches stay in the processor's cache
        "seed": 0,
    },
    "quality": {"held_out": 0.1, "seed": 0},
}

_NEAR = {"optimiser": {"positions": 2.0, "background": 10.0},
         "solver": {"steps": 2000}}
_FAR = {"model": {"background": False}}


def defaults(method: str) -> Mapping[str, Mapping[str, Any]]:
    """Every setting by section."""
    special = _NEAR if method.startswith("near") else _FAR
    return {section: values | special.get(section, {}) for section, values in _COMMON.items()}


def reconstruct(scan: Scan, settings: Mapping[str, Mapping[str, Any]], console: Console, method: str) -> Result:
    """Object, probe modes, positions and background of a ptychographic scan."""
    scan = scan.replace(method=method)
    start = Ptychography.from_scan(scan, settings["model"]["modes"], margin=settings["model"]["margin"],
                                   oversampling=settings["model"]["oversampling"])
    if not settings["model"]["background"]:
        start = eqx.tree_at(lambda m: m.background, start, jnp.zeros_like(start.background))
    data = _data(scan)
    _say_start(scan, start, console)

    held = held_out_views(scan.views, settings["quality"]["held_out"], settings["quality"]["seed"])
    solution = _descend(start, data, held, settings, console)
    model = place_unseen(solution.value, start.positions, held)
    model, judged = _fit_held_out(model, data, held)
    model = remove_ambiguities(model)
    figures, verdict = _judge(model, judged, data, held, settings)
    figures["history"] = solution.history
    # Positions as in the file would hide what the curve of the held-out views is about.
    if not settings["model"]["positions"]:
        figures["held_out_history"] = solution.held_out
    verdict = (solution.result, *verdict) if not solution.result.startswith("done") else verdict
    return Result(method, _quantities(model, scan), figures, verdict, settings)


# ---------------------------------------------------------------------------------------------------- prepare
def _data(scan: Scan) -> dict[str, Any]:
    scan = scan.in_fft_order()
    return {
        "counts": np.asarray(scan.counts),
        "mask": np.ones(scan.frame_shape, bool) if scan.mask is None else scan.mask,
    }


def _say_start(scan: Scan, model: Ptychography, console: Console) -> None:
    pixel = "unknown pixel size" if model.pixel_size is None else f"pixel {model.pixel_size * 1e9:.2f} nm"
    counts = float(jnp.sum(jnp.abs(model.probe) ** 2))
    console.say(
        f"{scan.views} views of {scan.frame_shape[0]} x {scan.frame_shape[1]}, {pixel}, object "
        f"{model.object.shape[0]} x {model.object.shape[1]}; probe power set to the mean frame, {counts:.4g} counts"
    )
    if not model.far:
        report = operators.sampling(
            (model.probe.shape[-2], model.probe.shape[-1]),
            pixel_size=model.pixel_size,
            wavelength=model.wavelength,
            distance=model.distance,
        )
        console.say(f"effective distance {float(model.distance) * 1e3:.4g} mm; {report.message}")


def held_out_views(views: int, fraction: float, seed: int) -> np.ndarray:
    """The views that are never fitted, chosen by seed; none for fewer than ten views."""
    count = int(round(views * fraction)) if views >= 10 else 0
    return np.sort(np.random.default_rng(seed).permutation(views)[:count])


# ---------------------------------------------------------------------------------------------------- solve
def amplitude_cost(model: Ptychography, batch: Batch) -> jax.Array:
    """The default cost functional: amplitudes, because their noise is the same in bright and dark pixels."""
    return losses.amplitude(model(batch.views), batch.counts, batch.mask)


def _descend(
    start: Ptychography, data: dict, held: np.ndarray, settings: Mapping[str, Mapping[str, Any]], console: Console
):
    optimiser, solver = settings["optimiser"], settings["solver"]
    train = data["counts"].shape[0] - held.size
    per_epoch = -(-train // min(solver["batch_size"], train))
    steps = solver["epochs"] * per_epoch if solver["epochs"] else max(solver["steps"], 10 * per_epoch)
    schedule = decaying(optimiser["learning_rate"], steps, optimiser["constant"])
    weight = jnp.abs(start.probe) ** 2
    # The amplitude where the light is: the root of the intensity's own weighted mean.
    scale = float(jnp.sqrt(jnp.sum(weight**2) / jnp.sum(weight)))
    factors = {"object": 1.0, "probe": scale * optimiser["probe"]}
    factors |= {name: optimiser[name] for name in ("positions", "background", "gain")}
    factors["positions"] *= start.oversampling
    unknowns = {name: factor for name, factor in factors.items() if settings["model"][name]}
    if not hasattr(optax, optimiser["name"]):
        raise InputError(f"optimiser.name: optax has no optimiser {optimiser['name']!r}")
    return minimise(
        settings["loss"]["function"] or amplitude_cost, start, data, getattr(optax, optimiser["name"])(schedule),
        steps=steps, batch_size=solver["batch_size"], unknowns=unknowns, held_out=held, seed=solver["seed"],
        checkpoint=console.checkpoint, resume=console.resume, console=console, label="ptychography: step",
    )


def decaying(rate: float, steps: int, constant: float) -> optax.Schedule:
    """A constant rate for a fraction of the steps, then half a cosine down to a fiftieth: noise of the batches averages
    out.
    """
    flat = int(steps * constant)
    return optax.join_schedules(
        [optax.constant_schedule(rate), optax.cosine_decay_schedule(rate, max(steps - flat, 1), 0.02)], [flat]
    )


# ---------------------------------------------------------------------------------------------------- judge
def place_unseen(model: Ptychography, nominal: jax.Array, held: np.ndarray) -> Ptychography:
    """Start held-out views where their neighbours in time were found: position errors drift smoothly."""
    if not held.size:
        return model
    views = np.arange(nominal.shape[0])
    seen = np.setdiff1d(views, held)
    moved = np.asarray(model.positions - nominal, float)
    found = np.stack([np.interp(held, seen, moved[seen, axis]) for axis in (0, 1)], -1)
    positions = model.positions.at[held].set(nominal[held] + jnp.asarray(found, nominal.dtype))
    return eqx.tree_at(lambda m: m.positions, model, positions)


def _fit_held_out(model: Ptychography, data: dict, held: np.ndarray) -> tuple[Ptychography, jax.Array | None]:
    """Two coordinates and a gain of each held-out view, which no reconstruction can know; nothing else moves."""
    if not held.size:
        return model, None
    fields = {"counts": data["counts"][held], "mask": data["mask"]}
    pick = lambda m: eqx.tree_at(lambda q: (q.positions, q.gain), m, (m.positions[held], m.gain[held]))

    def cost(model: Ptychography, batch: Batch):
        return losses.amplitude(_matched(model(batch.views), batch), batch.counts, batch.mask)

    fitted = minimise(
        cost,
        pick(model),
        fields,
        optax.adam(decaying(0.1 * model.oversampling, 60, 0.3)),
        steps=60,
        unknowns=("positions",),
    ).value
    batch = Batch(np.arange(held.size), {k: jnp.asarray(v) for k, v in fields.items()})
    model = eqx.tree_at(lambda m: m.positions, model, model.positions.at[held].set(fitted.positions))
    return model, _matched(fitted(batch.views), batch)


def _matched(prediction: jax.Array, batch: Batch) -> jax.Array:
    """The prediction with the gain that matches the sum of counts, view by view."""
    total = lambda a: jnp.sum(jnp.where(batch.mask, a, 0), (-2, -1), dtype=prediction.dtype)
    return prediction * (total(batch.counts) / jnp.maximum(total(prediction), 1e-6))[:, None, None]


def _judge(model, judged, data, held, settings) -> tuple[dict[str, Any], tuple[str, ...]]:
    figures: dict[str, Any] = {}
    verdict: list[str] = []
    if judged is not None:
        counts, mask = np.asarray(data["counts"][held]), np.broadcast_to(data["mask"], judged.shape)
        prediction = np.asarray(judged)
        residual, deviance = (f(counts, prediction, mask) for f in (quality.held_out_residual, quality.deviance))
        seed = settings["quality"]["seed"]
        floor, floor_deviance = (quality.noise_floor(prediction, mask, metric=f, seed=seed)
                                 for f in (quality.held_out_residual, quality.deviance))
        figures |= {"held_out_views": held, "held_out_residual": residual, "held_out_deviance": deviance,
                    "noise_floor_residual": floor, "noise_floor_deviance": floor_deviance}
        verdict.append(f"held-out residual R = {residual:.4f} ({held.size} views; photon noise alone {floor:.4f}, "
                       f"ratio {residual / floor:.2f})")
        verdict.append(f"held-out Poisson deviance a pixel {deviance:.3f} (photon noise alone {floor_deviance:.3f})")
    seen = np.asarray(well_seen(model))
    figures["well_seen_fraction"] = float(seen.mean())
    power = np.asarray(jnp.sum(jnp.abs(model.probe) ** 2, (1, 2)))
    figures["mode_power"] = power / power.sum()
    verdict.append(f"{seen.mean():.0%} of the object's field is seen well; probe modes carry "
                   + ", ".join(f"{p:.1%}" for p in figures["mode_power"]))
    return figures, tuple(verdict)


def well_seen(model: Ptychography) -> jax.Array:
    """Object pixels that got at least a tenth of the 95th percentile of the light."""
    light = operators.coverage(model.probe, model.positions, (model.object.shape[0], model.object.shape[1]), model.gain)
    return light > 0.1 * jnp.percentile(light, 95)


# ---------------------------------------------------------------------------------------------------- out
def remove_ambiguities(model: Ptychography) -> Ptychography:
    """Fix what the data cannot tell, so that the predicted frames stay as they are: amplitude, phase and phase ramp
    between object and probe, and the order and mixture of the modes (orthogonal, strongest first)."""
    probe = operators.orthogonal_modes(model.probe)
    light = operators.coverage(probe, model.positions, (model.object.shape[0], model.object.shape[1]), model.gain)
    weight = jnp.where(light > 0.1 * jnp.percentile(light, 95), light, 0.0)
    obj = model.object
    obj, probe = _remove_ramp(obj, probe, weight)
    level = jnp.sqrt(jnp.sum(weight * jnp.abs(obj) ** 2) / jnp.sum(weight))
    phase = jnp.exp(1j * jnp.angle(jnp.sum(weight * obj)))
    return eqx.tree_at(lambda m: (m.object, m.probe), model, (obj / (level * phase), probe * (level * phase)))


def _remove_ramp(obj: jax.Array, probe: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Move the mean phase gradient of the object into the probe, which leaves their product as it is.

    Where light reaches the border of the probe's window only ramps of whole periods keep the sub-pixel shifts exact.
    """
    light = jnp.sum(jnp.abs(probe) ** 2, 0)
    inner = jnp.sum(light[2:-2, 2:-2])
    spills = float((jnp.sum(light) - inner) / jnp.sum(light)) > 1e-3
    slopes = []
    for axis in (0, 1):
        step = obj * jnp.conj(jnp.roll(obj, 1, axis)) * jnp.minimum(weight, jnp.roll(weight, 1, axis))
        slope = float(jnp.angle(jnp.sum(step)))
        period = 2 * np.pi / probe.shape[1 + axis]
        slopes.append(round(slope / period) * period if spills else slope)
    ramp = lambda shape: jnp.exp(
        1j * (slopes[0] * jnp.arange(shape[0])[:, None] + slopes[1] * jnp.arange(shape[1])[None])
    )
    return obj * jnp.conj(ramp(obj.shape)), probe * ramp(probe.shape[-2:])


def _quantities(model: Ptychography, scan: Scan) -> dict[str, Quantity]:
    found = model.quantities(scan)
    seen = np.asarray(well_seen(model))
    phase = np.where(seen, found["phase"].data, np.nan)
    return found | {
        "phase": Quantity(phase, "rad", ("y", "x"), model.pixel_size, "phase where seen well", "image"),
    }
