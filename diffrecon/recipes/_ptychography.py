"""Ptychography, near and far field: check the scan, guess, solve in stages, judge on views never fitted."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import losses, operators, penalties, quality, uncertainty
from .._console import Console
from .._model import Batch
from .._result import Quantity, Result
from ..errors import InputError
from ..frames import pick_views
from ..models import Ptychography, check_orientation
from ..physics import quantity as in_units
from ..prepare import check_frames
from ..scan import Scan
from ..solvers import Solution, decaying, minimise, run_stages
from ._views import held_out_figures, matched, well_lit

_COMMON: dict[str, dict[str, Any]] = {
    "model": {
        "check": "auto",  # flipped or swapped positions are mended ("auto"), named ("report") or not looked for ("no")
        "modes": 1,  # incoherent probe modes
        "margin": 8,  # detector pixels around the scanned area
        "oversampling": None,  # object pixels along a detector pixel (near field): 2 where light is finer than a pixel
        "border": 0,  # detector pixels of the beam beyond each edge of the frame (near field)
        "refractive": False,  # the object as phase and attenuation, without wraps
        "slices": 1,  # of a thick object
        "variations": 0,  # ways in which the first probe mode may change along the scan
        "air": None,  # [first row, last, first column, last] of the object that is empty: its phase is zero there
        "drift": 0,  # knots of a drift of the scan, linear in time between them
        # Solved for or not:
        "object": True,
        "probe": True,
        "positions": True,
        "background": True,
        "gain": False,
        # None (or false): not in the model, or as in the file; a value: fixed at it; true: solved for.
        "distance": None,  # effective [m] (near field)
        "astigmatism": None,  # vertical minus horizontal effective distance [m] (near field)
        "tilt": None,  # of the scan plane, [rows, columns] [rad] (near field)
        "scan_matrix": None,  # scale, rotation, shear of the positions, [[., .], [., .]]
        "travel": None,  # path of a fly scan during an exposure, [rows, columns] [pixel]
        "source_blur": None,  # standard deviation of the beam's wandering on the sample [pixel]
        "detector_blur": None,  # standard deviation of the detector's point spread [detector pixel]
        "slice_spacing": None,  # distance between slices [m]
        "refine_spacing": False,  # whether it is solved for
    },
    "loss": {
        "function": None,  # a function (model, batch) -> scalar; amplitudes by default
        "tv": None,  # weight of the total variation of the object [1/step]; 0: none; by default from the object
        "position_prior": None,  # standard deviation of the motors' errors [detector pixel]; none by default
        "saturation": None,  # counts from which on a pixel only says "at least so many"
    },
    "optimiser": {
        "name": "adam",  # any optax optimiser that takes a learning rate
        "learning_rate": 0.04,  # of the object; the factors below multiply it
        "probe": 1.0,  # in units of the probe's amplitude
        "positions": 1.0,  # [pixel]
        "background": 2.0,  # [sqrt(counts)]
        "gain": 0.1,
        "geometry": 1.0,  # on the steps of distance, blur and the like
        "constant": 0.3,  # fraction of the steps before the step size decays (cosine) to 1/50
    },
    "solver": {
        "stages": None,  # engines one after another, such as ["dm:60", "lsqml:30"]; the optimiser above by default
        "steps": 600,  # or ten epochs, where those are more
        "epochs": None,  # exactly so many instead
        "batch_size": 10,  # views a step; small batches stay in the processor's cache
        "seed": 0,
    },
    "quality": {
        "held_out": 0.1,  # fraction of the views that are never fitted
        "held_out_views": None,  # these instead
        "seed": 0,
        "error_bar": True,  # of the phase, from the photon noise
        "halves": False,  # two more reconstructions, of the even and odd views, and their Fourier ring correlation
    },
}

_NEAR = {"optimiser": {"positions": 2.0, "background": 10.0}, "solver": {"steps": 2000}}
_FAR = {"model": {"background": False}, "optimiser": {"learning_rate": 0.08, "constant": 0.2}}

# Photon noise in a frame's spectrum is white; where the power at the finest frequencies exceeds it so many times, the
# light is finer than a detector pixel.
_FINE_LIGHT = 30.0

# Pixels of the waves that are in memory at once while held-out views are placed.
_HELD_PIXELS = 2**23

# Variance of the root of a photon count.
_NOISE_OF_AMPLITUDES = 0.25

# Steps of the transmission between neighbouring pixels below this count as flat.
_SMALL_STEP = 1e-2


def defaults(method: str) -> Mapping[str, Mapping[str, Any]]:
    """Every setting by section."""
    special = _NEAR if method.startswith("near") else _FAR
    return {section: values | special.get(section, {}) for section, values in _COMMON.items()}


def reconstruct(scan: Scan, settings: Mapping[str, Mapping[str, Any]], console: Console, method: str) -> Result:
    """Object, probe modes, positions and background of a ptychographic scan."""
    asked = settings
    scan, settings, views, whole = _usable(scan.replace(method=method), settings, console)
    start, data, held = _prepared(scan, settings, console)
    solution = _solve(start, data, held, settings, console)
    model = place_unseen(solution.value, start.positions, held)
    model, judged = _fit_held_out(model, data, held)
    if judged is not None and settings["loss"]["saturation"] is not None:
        level = settings["loss"]["saturation"]
        judged = np.asarray(losses.saturated(jnp.asarray(judged), jnp.asarray(data["counts"][held]), level))
    air = _air(settings["model"]["air"], model)
    model = remove_ambiguities(model, bool(settings["model"]["gain"]), air)
    figures, verdict = _judge(model, judged, data, held, settings)
    figures["history"] = solution.history
    # Positions as in the file would hide what the curve of the held-out views is about.
    if not settings["model"]["positions"]:
        figures["held_out_history"] = solution.held_out
    finished = solution.ending.finished
    verdict = verdict if finished else (solution.result, *verdict)
    if settings["quality"]["halves"] and finished:
        correlation = _halves(start, data, held, settings, console)
        figures |= correlation.as_quality()
        verdict = (*verdict, f"two halves of the views: {correlation}")
    found = _quantities(model, air)
    if settings["quality"]["error_bar"]:
        found["phase_error"] = _error_bar(model, data, held, found["phase"])
        bar = np.nanmedian(found["phase_error"].data)
        verdict = (
            *verdict,
            f"error bar of the phase by photon noise, probe and positions taken as known: {bar:.2g} "
            "rad (median where seen well)",
        )
    if views.size < whole.views:
        figures |= {"views": views, "held_out_views": views[held]}
        found |= _of_all_views(found, whole, start, views)
    return Result(method, found, figures, verdict, asked)


# ---------------------------------------------------------------------------------------------------- prepare
def _prepared(
    scan: Scan, settings: Mapping[str, Mapping[str, Any]], console: Console
) -> tuple[Ptychography, dict[str, Any], np.ndarray]:
    """The first guess with the geometry that was asked for, the data, and the views that are never fitted."""
    chosen = settings["model"]
    data = _data(scan)
    spacing = chosen["slice_spacing"]
    spacing = None if spacing is None else in_units(spacing, "m", "model.slice_spacing")
    sampling = chosen["oversampling"] or (2 if not scan.far_field and light_is_fine(data) else 1)
    start = Ptychography.from_scan(
        scan,
        chosen["modes"],
        margin=chosen["margin"],
        oversampling=int(sampling),
        border=chosen["border"],
        slices=chosen["slices"],
        slice_spacing=spacing,
        refractive=chosen["refractive"],
        variations=chosen["variations"],
    )
    if not chosen["background"] and scan.darks is None:
        start = start.replace(background=jnp.zeros_like(start.background))
    start = _with_geometry(start, settings)
    _say_start(scan, start, chosen["oversampling"] is None, console)
    data["nominal"] = np.asarray(start.positions)
    return start, data, _held_out(scan.views, settings["quality"])


def _usable(
    scan: Scan, settings: Mapping[str, Mapping[str, Any]], console: Console
) -> tuple[Scan, Mapping[str, Mapping[str, Any]], np.ndarray, Scan]:
    """The scan without frames and pixels that would spoil it, settings that fit what is left, which views are left, and
    all of them; positions as the data say they are meant."""
    report = check_frames(scan)
    for line in report.messages:
        console.say(line)
    loss, judged = settings["loss"], settings["quality"]
    if loss["saturation"] is None:
        loss = {**loss, "saturation": report.saturation if scan.saturation is None else scan.saturation}
    if judged["held_out_views"] is not None and report.views.size < scan.views:
        held = _held_out(scan.views, judged)
        judged = {**judged, "held_out_views": np.flatnonzero(np.isin(report.views, held)).tolist()}
    good = report.apply(scan)
    turned = _orientation(good, settings["model"]["check"], console)
    return turned(good), {**settings, "loss": loss, "quality": judged}, report.views, turned(scan)


def _orientation(scan: Scan, check: str, console: Console) -> Callable[[Scan], Scan]:
    """What mends flipped or swapped positions."""
    if check not in ("auto", "report", "no"):
        raise InputError(f'model.check: {check!r} is none of "auto", "report", "no"')
    if check == "no" or scan.positions is None:
        return lambda scan: scan
    report = check_orientation(scan)
    console.say(report.message)
    return report.apply if check == "auto" else lambda scan: scan


def _of_all_views(
    found: Mapping[str, Quantity], scan: Scan, start: Ptychography, views: np.ndarray
) -> dict[str, Quantity]:
    """Positions and gain of all views of the file: a view that was left out lies where its neighbours in time say, and
    has no gain."""
    kept, pixel = found["positions"].data, found["positions"].pixel_size or 1.0
    written = np.asarray(scan.positions, float)
    nominal = np.empty_like(written)
    for axis in (0, 1):
        slope, shift = np.polyfit(written[views, axis], np.asarray(start.positions[:, axis]) * pixel, 1)
        moved = kept[:, axis] - np.asarray(start.positions[:, axis]) * pixel
        nominal[:, axis] = slope * written[:, axis] + shift + np.interp(np.arange(scan.views), views, moved)
    nominal[views] = kept
    gain = np.zeros(scan.views, found["gain"].data.dtype)
    gain[views] = found["gain"].data
    return {
        name: dataclasses.replace(found[name], data=values) for name, values in (("positions", nominal), ("gain", gain))
    }


def _data(scan: Scan) -> dict[str, Any]:
    scan = scan.in_fft_order()
    return {
        "counts": scan.counts,  # read as they are needed, where they lie in a file
        "mask": np.ones(scan.frame_shape, bool) if scan.mask is None else scan.mask,
    }


def light_is_fine(data: Mapping[str, Any], views: int = 64) -> bool:
    """Whether frames have structure finer than a pixel, which appears at the highest frequencies that they can show."""
    rows, columns = data["counts"].shape[1:]
    corner = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None]) > 0.5
    power, light = 0.0, 0.0
    for view in range(max(1, min(views, data["counts"].shape[0], 2**24 // (rows * columns)))):
        frame = np.where(data["mask"], data["counts"][view], 0).astype(np.float32)
        power += float(np.mean(abs(np.fft.fft2(frame))[corner] ** 2))
        light += float(frame.sum(dtype=float))
    return power > _FINE_LIGHT * light


# Unknown geometry starts here where it is to be solved for; a derivative that vanishes at zero needs a start beside it.
_STARTS: dict[str, Any] = {
    "astigmatism": 0.0,
    "tilt": np.zeros(2),
    "scan_matrix": np.eye(2),
    "source_blur": np.full(2, 0.5),
    "detector_blur": 0.5,
}
_NEAR_ONLY = ("distance", "astigmatism", "tilt")
GEOMETRY = ("distance", "astigmatism", "tilt", "scan_matrix", "travel", "source_blur", "detector_blur")


def _with_geometry(model: Ptychography, settings: Mapping[str, Mapping[str, Any]]) -> Ptychography:
    """The model with what the settings say about the geometry."""
    fields: dict[str, Any] = {}
    for name in GEOMETRY:
        said = settings["model"][name]
        if said is None or said is False:
            continue
        if model.far and name in _NEAR_ONLY:
            raise InputError(f"model.{name}: frames of the far field do not depend on it; leave it out")
        if said is not True:
            fields[name] = _given_geometry(name, said, model)
        elif name == "travel":
            fields[name] = _path(np.asarray(model.positions, float))
        elif name != "distance":
            fields[name] = _STARTS[name]
    if settings["model"]["drift"]:
        fields["drift"] = np.zeros((max(int(settings["model"]["drift"]), 2), 2))
    return model.replace(**{name: jnp.asarray(value, jnp.float32) for name, value in fields.items()})


def _given_geometry(name: str, said: Any, model: Ptychography) -> np.ndarray:
    """A value of the settings, in the model's units and shape."""
    shapes = {"tilt": (2,), "scan_matrix": (2, 2), "travel": (1, 2), "source_blur": (2,)}
    try:
        value = np.asarray(in_units(said, "m", f"model.{name}") if isinstance(said, str) else said, float)
        value = value.reshape(1, 2) if name == "travel" else np.broadcast_to(value, shapes.get(name, value.shape))
    except (TypeError, ValueError):
        value = np.asarray(np.nan)
    if not np.isfinite(value).all():
        raise InputError(
            f"model.{name}: {said!r} is neither true, false nor a value of shape {shapes.get(name, 'one number')}"
        )
    return value * model.oversampling if name in ("travel", "source_blur") else value


def _path(positions: np.ndarray) -> np.ndarray:
    """Where a continuous scan moves during an exposure: half way from the last point to half way to the next; nowhere
    at the jumps between lines."""
    path = np.gradient(positions, axis=0)
    length = np.linalg.norm(path, axis=1)
    return np.where((length > 2 * np.median(length))[:, None], 0.0, path)


def _say_start(scan: Scan, model: Ptychography, chosen: bool, console: Console) -> None:
    pixel = "unknown pixel size" if model.pixel_size is None else f"pixel {model.pixel_size * 1e9:.2f} nm"
    counts = float(jnp.sum(jnp.abs(model.probe) ** 2))
    console.say(
        f"{scan.views} views of {scan.frame_shape[0]} x {scan.frame_shape[1]}, {pixel}, object "
        f"{model.object.shape[-2]} x {model.object.shape[-1]}; probe power set to the mean frame, {counts:.4g} counts"
    )
    if chosen and model.oversampling > 1:
        console.say(
            "the light is finer than a detector pixel: object on pixels half as large (model.oversampling=1 to "
            "keep the detector's)"
        )
    if not model.far:
        report = operators.sampling(
            (model.probe.shape[-2], model.probe.shape[-1]),
            pixel_size=model.pixel_size,
            wavelength=model.wavelength,
            distance=model.distance,
        )
        console.say(f"effective distance {float(model.distance) * 1e3:.4g} mm; {report.message}")


def _held_out(views: int, said: Mapping[str, Any]) -> np.ndarray:
    """The views that are never fitted."""
    if said["held_out_views"] is None:
        return held_out_views(views, said["held_out"], said["seed"])
    held = np.unique(np.asarray(said["held_out_views"]))
    if held.size and (held.dtype.kind not in "iu" or held.min() < 0 or held.max() >= views or held.size >= views):
        raise InputError(f"quality.held_out_views: whole numbers from 0 to {views - 1}, and not all of them")
    return held.astype(int)


def held_out_views(views: int, fraction: float, seed: int) -> np.ndarray:
    """The views that are never fitted, chosen by seed; none for fewer than ten views."""
    count = int(round(views * fraction)) if views >= 10 else 0
    return np.sort(np.random.default_rng(seed).permutation(views)[:count])


# ---------------------------------------------------------------------------------------------------- solve
@functools.lru_cache(maxsize=16)
def cost_functional(
    variation: Callable[[jax.Array], jax.Array] | None, position_prior: float | None, saturation: float | None
) -> Callable[..., jax.Array]:
    """Amplitudes of the counts, variation of the object and how far motors miss. Cached: one cost, one program."""

    def cost(model: Ptychography, batch: Batch) -> jax.Array:
        prediction = model(batch.views)
        if saturation is not None:
            prediction = losses.saturated(prediction, batch.counts, saturation)
        value = losses.amplitude(prediction, batch.counts, batch.mask)
        if variation is not None:
            # What the model cannot explain counts as noise: then the data weigh less against the prior.
            noise = jnp.clip(jax.lax.stop_gradient(value) / _NOISE_OF_AMPLITUDES, 1, 4)
            value = value + noise * variation(model.transmission())
        if position_prior is not None:
            moved = (model.positions[batch.views] - batch.nominal) / (position_prior * model.oversampling)
            # A mean over pixels of half the log-likelihood, as the amplitudes are: 1/4 for every unit of variance.
            value = value + jnp.sum(moved**2) / (4 * batch.counts.size)
        return value

    return cost


@functools.lru_cache(maxsize=16)
def variation_prior(weight: float | None, seen: int, measured: int) -> Callable[[jax.Array], jax.Array] | None:
    """Minus the logarithm of the prior of an object with sparse edges, in units of the mean amplitude cost, which is
    half the log-likelihood's a measured number.

    Steps d between neighbouring pixels have the density `weight^2 exp(-weight |d|) / 2 pi`. A weight that is not given
    is taken out at its most likely value, 2 / mean |d|: the prior becomes `2 pixels log(mean |d|)`, which knows no
    scale. `seen` object pixels count, against `measured` numbers.
    """
    if weight == 0:
        return None

    def prior(transmission: jax.Array) -> jax.Array:
        planes = transmission.size / (transmission.shape[-1] * transmission.shape[-2])
        total = penalties.tv(transmission, eps=_SMALL_STEP, axes=(-2, -1)) * transmission.size
        if weight is not None:
            return weight * total / (2 * measured)
        mean = total / (seen * planes)
        return seen * planes / measured * jnp.log(mean + _SMALL_STEP)

    return prior


def _solve(
    start: Ptychography,
    data: Mapping[str, Any],
    held: np.ndarray,
    settings: Mapping[str, Mapping[str, Any]],
    console: Console,
    label: str = "ptychography",
) -> Solution:
    """The stages on the views that are not held out.

    Where positions are unknown, held-out views stay away from the solver: their cost at places that nobody refines
    would rise while everything gets better, and the state kept at Ctrl-C would be an early one.
    """
    train = np.setdiff1d(np.arange(start.positions.shape[0]), held)
    if held.size and settings["model"]["positions"] and start.drift is None:
        part = {key: value if key == "mask" else pick_views(value, train) for key, value in data.items()}
        found = _solve(_of_views(start, train), part, np.zeros(0, int), settings, console, label)
        return dataclasses.replace(found, value=_put_back(found.value, start, train))
    optimiser, solver, loss = settings["optimiser"], settings["solver"], settings["loss"]
    per_epoch = -(-train.size // min(solver["batch_size"], train.size))
    epochs = solver["epochs"] or max(10, -(-solver["steps"] // per_epoch))
    measured = int(train.size * np.mean(data["mask"]) * np.prod(data["counts"].shape[1:]))
    prior = variation_prior(loss["tv"], int(jnp.sum(well_seen(start))), measured)
    cost = loss["function"] or cost_functional(prior, loss["position_prior"], loss["saturation"])
    return run_stages(
        start,
        data,
        solver["stages"] or [f"{optimiser['name']}:{epochs}"],
        unknowns=_unknowns(start, settings),
        cost=cost,
        held_out=held,
        learning_rate=optimiser["learning_rate"],
        constant=optimiser["constant"],
        batch_size=solver["batch_size"],
        seed=solver["seed"],
        console=console,
        label=label,
    )


def _unknowns(model: Ptychography, settings: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """What is solved for, with its step in units of the object's."""
    chosen, optimiser = settings["model"], settings["optimiser"]
    factors = {"object": 1.0} | {name: optimiser[name] for name in ("probe", "positions", "background", "gain")}
    factors = {name: factor for name, factor in factors.items() if chosen[name]}
    distance = 0.0 if model.distance is None else abs(float(model.distance))
    reach = (model.pixel_size or 1.0) * max(float(jnp.ptp(model.positions)), 1.0) / 2
    steps = {
        "distance": 2e-3 * distance,
        "astigmatism": 2e-3 * distance,
        "tilt": 2e-3 * distance / reach,
        "scan_matrix": 5e-3,
        "travel": 1.0,
        "source_blur": 0.5,
        "detector_blur": 0.2,
    }
    factors |= {name: step * optimiser["geometry"] for name, step in steps.items() if chosen[name] is True}
    if chosen["drift"]:
        factors["drift"] = optimiser["positions"] * model.oversampling
    if chosen["variations"]:
        factors |= {"probe_variations": optimiser["probe"], "variation_weights": 0.5}
    if chosen["refine_spacing"] and model.slice_spacing is not None:
        factors["slice_spacing"] = 5e-3 * abs(float(model.slice_spacing)) * optimiser["geometry"]
    return factors


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
    return model.replace(positions=positions)


def _fit_held_out(
    model: Ptychography, data: Mapping[str, Any], held: np.ndarray
) -> tuple[Ptychography, np.ndarray | None]:
    """Two coordinates and a gain of each held-out view, which no reconstruction can know; nothing else moves."""
    if not held.size:
        return model, None
    model, predicted = _settled(model), []
    size = max(1, _HELD_PIXELS // int(np.prod(model.probe.shape)))
    for part in (held[start : start + size] for start in range(0, held.size, size)):
        found, prediction = _fit_places(_of_views(model, part), np.asarray(data["counts"][part]), data["mask"])
        model = model.replace(positions=model.positions.at[part].set(found))
        predicted.append(np.asarray(prediction))
    return model, np.concatenate(predicted)


def _fit_places(model: Ptychography, counts: np.ndarray, mask: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Positions of a few views, and what they predict with the gain that fits best."""
    fields = {"counts": counts, "mask": mask}
    rule = optax.adam(decaying(0.1 * model.oversampling, 60, 0.3))
    fitted = minimise(_cost_of_places, model, fields, rule, steps=60, unknowns=("positions",)).value
    return fitted.positions, matched(fitted(np.arange(counts.shape[0])), jnp.asarray(counts), jnp.asarray(mask))


def _cost_of_places(model: Ptychography, batch: Batch) -> jax.Array:
    return losses.amplitude(matched(model(batch.views), batch.counts, batch.mask), batch.counts, batch.mask)


def _settled(model: Ptychography) -> Ptychography:
    """A drift added to the positions, where it can no longer depend on the order of the views."""
    if model.drift is None:
        return model
    flat = model.replace(scan_matrix=None)
    places = flat.places(jnp.arange(model.positions.shape[0]))
    if model.scan_matrix is not None:
        # The drift comes after the scan matrix.
        places = model.positions + (places - model.positions) @ jnp.linalg.inv(model.scan_matrix).T
    return model.replace(positions=places, drift=None)


def _judge(model, judged, data, held, settings) -> tuple[dict[str, Any], tuple[str, ...]]:
    figures: dict[str, Any] = {}
    verdict: list[str] = []
    if judged is not None:
        counts, seed = np.asarray(data["counts"][held]), settings["quality"]["seed"]
        found, verdict = held_out_figures(counts, judged, data["mask"], seed, f"{held.size} views")
        figures |= {"held_out_views": held} | found
    seen = np.asarray(well_seen(model))
    if _matter_upside_down(model):
        verdict.append(
            "the object advances the phase where it absorbs, as no matter does: the sign of the distance or "
            "the direction of the detector's axes is probably wrong"
        )
    figures |= {name: value for name, value in model.geometry().items() if settings["model"].get(name) is True}
    for name in GEOMETRY:
        if settings["model"][name] is True and name != "travel":
            verdict.append(f"{name} found: {np.array2string(np.asarray(getattr(model, name)), precision=5)}")
    figures |= {"oversampling": model.oversampling, "border": model.border}
    figures["well_seen_fraction"] = float(seen.mean())
    power = np.asarray(jnp.sum(jnp.abs(model.probe) ** 2, (1, 2)))
    figures["mode_power"] = power / power.sum()
    verdict.append(
        f"{seen.mean():.0%} of the object's field is seen well; probe modes carry "
        + ", ".join(f"{p:.1%}" for p in figures["mode_power"])
    )
    return figures, tuple(verdict)


def _matter_upside_down(model: Ptychography) -> bool:
    """Whether phase and attenuation contradict each other: delta and beta of matter are positive, so that both the
    phase and the logarithm of the amplitude fall where there is more of it.
    """
    if model.object.ndim > 2:
        return False
    values = np.asarray(model.transmission())[np.asarray(well_seen(model))]
    phase, amplitude = np.angle(values), np.log(np.maximum(abs(values), 1e-3))
    return bool(values.size > 100 and np.corrcoef(phase, amplitude)[0, 1] < -0.5)


def well_seen(model: Ptychography) -> jax.Array:
    """Object pixels that got at least a tenth of the 95th percentile of the light."""
    return well_lit(_light(model))


def _light(model: Ptychography) -> jax.Array:
    """Photons that fell on each pixel of the object."""
    places = model.places(jnp.arange(model.positions.shape[0]))
    shape = (model.object.shape[-2], model.object.shape[-1])
    return operators.coverage(model.probe, places, shape, model.gain)


# ---------------------------------------------------------------------------------------------------- halves
def _halves(
    start: Ptychography,
    data: Mapping[str, Any],
    held: np.ndarray,
    settings: Mapping[str, Mapping[str, Any]],
    console: Console,
) -> quality.RingCorrelation:
    """Fourier ring correlation of the phases reconstructed from every other view.

    Without the prior of sparse edges: it sharpens both halves alike and would raise the correlation beyond what the
    light has measured.
    """
    settings = {**settings, "loss": {**settings["loss"], "tv": 0}}
    views = np.setdiff1d(np.arange(start.positions.shape[0]), held)
    found = []
    for name, half in (("even", views[::2]), ("odd", views[1::2])):
        part = {key: value if key == "mask" else pick_views(value, half) for key, value in data.items()}
        model = _solve(_of_views(start, half), part, np.zeros(0, int), settings, console, f"{name} views").value
        found.append(remove_ambiguities(model, bool(settings["model"]["gain"])))
    part = well_seen_rectangle(*found)
    images = [np.asarray(m.transmission())[(..., *part)] for m in found]
    first, second = (image.prod(0) if image.ndim == 3 else image for image in images)
    second, _ = quality.align(first, second)
    return quality.ring_correlation(np.angle(first), np.angle(second), pixel_size=start.pixel_size, realign=False)


def _by_view(model: Ptychography) -> list[str]:
    """Fields that have one entry for each view."""
    names = [n for n in ("positions", "gain", "variation_weights", "travel") if getattr(model, n) is not None]
    return [n for n in names if getattr(model, n).shape[0] == model.positions.shape[0]]


def _of_views(model: Ptychography, views: np.ndarray) -> Ptychography:
    """The model of some views only."""
    return model.replace(**{name: getattr(model, name)[views] for name in _by_view(model)})


def _put_back(found: Ptychography, whole: Ptychography, views: np.ndarray) -> Ptychography:
    """A model of some views as one of all; the others are as they were in `whole`."""
    return found.replace(**{name: getattr(whole, name).at[views].set(getattr(found, name)) for name in _by_view(whole)})


def well_seen_rectangle(*models: Ptychography) -> tuple[slice, slice]:
    """The middle of the field, as far as all models have seen nearly all of it."""
    seen = np.logical_and.reduce([np.asarray(well_seen(model)) for model in models])
    rows, columns = (np.flatnonzero(seen.any(1 - axis)) for axis in (0, 1))
    within = lambda a, shrink: slice(int(a[0] + shrink * a.size), int(a[-1] + 1 - shrink * a.size))
    parts = [(within(rows, shrink), within(columns, shrink)) for shrink in np.linspace(0, 0.45, 46)]
    return next((part for part in parts if seen[part].mean() > 0.995), parts[-1])


# ---------------------------------------------------------------------------------------------------- out
def _air(said: Any, model: Ptychography) -> np.ndarray | None:
    """Where the object is known to be empty, of its shape."""
    if said is None:
        return None
    rows, columns = model.object.shape[-2:]
    try:
        first, last, left, right = (int(n) for n in said)
    except (TypeError, ValueError) as error:
        raise InputError(f"model.air: {said!r} is not [first row, last, first column, last]") from error
    air = np.zeros((rows, columns), bool)
    air[first:last, left:right] = True
    if min(first, left) < 0 or not (air & np.asarray(well_seen(model))).any():
        raise InputError(
            f"model.air: rows {first} to {last}, columns {left} to {right} hold nothing that was seen "
            f"of an object of {rows} x {columns} pixels"
        )
    return air


def remove_ambiguities(model: Ptychography, gain: bool = False, air: np.ndarray | None = None) -> Ptychography:
    """Fix what the data cannot tell, so that the predicted frames stay as they are: amplitude, phase and phase ramp
    between object and probe, and the order and mixture of the modes (orthogonal, strongest first).

    Phase and amplitude of the object are those of its mean, or of the `air` where some is known. With `gain` an
    unknown, its mean goes into the probe too. Refractive objects keep their ramp, thick ones and those of probes that
    vary their phase too: there the product is not the object's alone.
    """
    if gain:
        level = jnp.mean(model.gain)
        model = model.replace(gain=model.gain / level, probe=model.probe * jnp.sqrt(level))
    if model.probe_variations is not None or model.object.ndim > 2:
        return model
    probe = operators.orthogonal_modes(model.probe)
    weight = jnp.where(well_seen(model) if air is None else well_seen(model) & air, _light(model), 0.0)
    obj = model.transmission()
    if not model.refractive:
        obj, probe = _remove_ramp(obj, probe, weight)
    level = jnp.sqrt(jnp.sum(weight * jnp.abs(obj) ** 2) / jnp.sum(weight))
    level = level * jnp.exp(1j * jnp.angle(jnp.sum(weight * obj)))
    stored = model.object + 1j * jnp.log(level) if model.refractive else obj / level
    return model.replace(object=stored, probe=probe * level)


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


def _error_bar(model: Ptychography, data: Mapping[str, Any], held: np.ndarray, phase: Quantity) -> Quantity:
    """Standard deviation of the phase by photon noise, from the Fisher information's diagonal."""
    views = np.setdiff1d(np.arange(model.positions.shape[0]), held)
    bar = uncertainty.phase_error_image(model, views, mask=data["mask"], probes=8)
    return dataclasses.replace(
        phase, data=np.where(np.isfinite(phase.data), bar, np.nan), long_name="error bar of the phase"
    )


def _quantities(model: Ptychography, air: np.ndarray | None) -> dict[str, Quantity]:
    """What is written; the phase where it was seen well, without what is left of a ramp in the air."""
    found, seen = model.quantities(), np.asarray(well_seen(model))
    phase = np.where(seen, found["phase"].data, np.nan)
    if air is not None and phase.ndim == 2:
        rows, columns = np.nonzero(air & seen)
        plane = np.stack([np.ones(rows.size), rows, columns], 1)
        offset, down, right = np.linalg.lstsq(plane, phase[rows, columns], rcond=None)[0]
        phase -= offset + down * np.arange(phase.shape[0])[:, None] + right * np.arange(phase.shape[1])
    return found | {"phase": dataclasses.replace(found["phase"], data=phase, long_name="phase where seen well")}
