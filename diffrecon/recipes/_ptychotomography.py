"""Ptycho-tomography: a first look at the volume, where the air is, then everything jointly, judged on views of every
angle that were never fitted."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from .. import losses, operators, prepare, quality, solvers
from .._console import Console
from .._model import Batch
from .._result import Result
from ..errors import InputError
from ..models import PtychoProjections, PtychoTomography, frames_by_angle
from ..motion import fix_gauge
from ..scan import Scan
from ..solvers import Solution, minimise
from ..solvers.alignment import align
from ._views import held_out_figures, matched, well_lit

Settings = Mapping[str, Mapping[str, Any]]

DEFAULTS: dict[str, dict[str, Any]] = {
    "model": {
        "modes": 1,  # incoherent probe modes
        "margin": 4,  # detector pixels around the scanned field
        "size": None,  # side of a slice [object pixel]; larger than a projection where the sample leaves the field
        "oversampling": 1,  # object pixels along a detector pixel (near field)
        "border": 0,  # detector pixels of the beam's window beyond the frame (near field)
        "air": "auto",  # voxels outside the sample are held at zero once it is seen; false where it fills the field
        "positive": None,  # delta not below zero; where air is assumed, unless true or false is said
        "delta": True,
        "beta": True,
        "probe": True,
        "positions": True,
        "shifts": True,
        "centre": True,
        "background": True,
        "gain": False,  # what is solved for
    },
    "loss": {"function": None},  # a function (model, batch) -> scalar; amplitudes by default
    "optimiser": {
        "name": "adam",  # any optax optimiser that takes a learning rate
        "learning_rate": 0.003,  # of delta [rad/pixel]; those below are in units of their own
        "beta": 3e-5,  # [1/pixel]
        "probe": 0.02,  # of the probe's amplitude
        "positions": 0.04,  # [pixel]
        "shifts": 0.04,  # [pixel]
        "centre": 0.04,  # [pixel]
        "background": 0.05,  # [sqrt(counts)]
        "gain": 0.01,
        "constant": 0.3,  # fraction of the steps before the step size decays (cosine) to 1/50
    },
    "solver": {
        "start": "volume",  # an empty one; or "projections": every angle by itself, aligned, back-projected
        "first": 120,  # steps of the first look, or of the reconstruction of the projections
        "steps": 400,
        "batch_size": 4,  # angles a step
        "seed": 0,
    },
    "quality": {"held_out": 0.1, "halves": False, "seed": 0},
}


def defaults(method: str) -> Mapping[str, Mapping[str, Any]]:
    """Every setting by section."""
    return DEFAULTS


def reconstruct(scan: Scan, settings: Settings, console: Console, method: str) -> Result:
    """delta and beta, probe, rotation axis, shifts and positions of ptychographic scans at many angles."""
    nominal = first_guess(scan, settings, console)
    data = frames_by_angle(scan)
    parts = Parts.split(data, settings["quality"])
    start, train = parts.of_model(nominal, parts.train), parts.of_data(data, parts.train)
    if _start(settings) == "projections":
        start, _ = two_step(start, train, settings, console)
    else:
        start = joint(start, train, settings, console, settings["solver"]["first"], label="first look").value
    sample, said = _sample(start, settings["model"])
    console.say(said)
    start = start.replace(sample=sample)
    solution = joint(start, train, settings, console, settings["solver"]["steps"], checkpoint=console.checkpoint)
    model, judged = fit_held_out(parts.into(nominal, solution.value), data, parts)
    model = centred(model, nominal)
    figures, verdict = _judge(scan, model, judged, settings)
    figures["history"] = solution.history
    if settings["quality"]["halves"]:
        verdict += _halves(model, data, settings, console, figures)
    ending = () if solution.ending.finished else (solution.result,)
    return Result(method, model.quantities(scan), figures, (*ending, *verdict, said), settings)


# ---------------------------------------------------------------------------------------------------- prepare
def _whole(chosen: Mapping[str, Any]) -> bool:
    """Whether the scan is taken to see all of the sample and air around it."""
    return chosen["air"] is True or (chosen["air"] == "auto" and chosen["size"] is None)


def _start(settings: Settings) -> str:
    given = settings["solver"]["start"]
    if given not in ("volume", "projections"):
        raise InputError(f'solver.start: {given!r} is neither "volume" nor "projections"')
    return given


def first_guess(scan: Scan, settings: Settings, console: Console) -> PtychoTomography:
    """The empty model of a scan, and what is said about it."""
    chosen = settings["model"]
    model = PtychoTomography.from_scan(
        scan,
        chosen["modes"],
        margin=chosen["margin"],
        size=chosen["size"],
        oversampling=chosen["oversampling"],
        border=chosen["border"],
    )
    if not chosen["background"]:
        model = eqx.tree_at(lambda m: m.optics.background, model, jnp.zeros_like(model.optics.background))
    angles, views = model.gain.shape
    optics, pixel = model.optics, float(model.optics.pixel_size or 0) * 1e9
    console.say(
        f"{angles} angles with {views} views of {scan.frame_shape[0]} x {scan.frame_shape[1]}, pixel "
        f"{pixel:.2f} nm; volume {' x '.join(map(str, model.delta.shape))}, projections "
        f"{optics.object.shape[0]} x {optics.object.shape[1]}; probe power set to the mean frame, "
        f"{float(jnp.sum(jnp.abs(optics.probe) ** 2)):.4g} counts"
    )
    console.say(
        f"rotation axis in the middle of a view at column {model.rotation_centre(scan):.2f} pixel "
        + ("as given" if scan.rotation_centre is not None else "(the middle of the scan), to be refined")
    )
    return model


class Parts(eqx.Module):
    """Views of each angle that are fitted, `train`, and that never are, `held`: `(angle, view)`."""

    train: np.ndarray
    held: np.ndarray

    @classmethod
    def split(cls, data: Mapping[str, np.ndarray], chosen: Mapping[str, Any]) -> "Parts":
        """The same number at every angle, by seed; none for fewer than six views an angle."""
        angles, views = data["seen"].shape
        wanted = views >= 6 and chosen["held_out"]
        count = int(np.clip(round(views * chosen["held_out"]), 1, views // 3)) if wanted else 0
        rng = np.random.default_rng(chosen["seed"])
        order = np.stack([rng.permutation(views) for _ in range(angles)])
        return cls(np.sort(order[:, count:], 1), np.sort(order[:, :count], 1))

    def of_data(self, data: Mapping[str, np.ndarray], part: np.ndarray) -> dict[str, np.ndarray]:
        rows = np.arange(part.shape[0])[:, None]
        return {k: v if k == "mask" else v[rows, part] for k, v in data.items()}

    def of_model(self, model: PtychoTomography, part: np.ndarray) -> PtychoTomography:
        rows = np.arange(part.shape[0])[:, None]
        return model.replace(positions=model.positions[rows, part], gain=model.gain[rows, part])

    def into(self, nominal: PtychoTomography, found: PtychoTomography) -> PtychoTomography:
        """All views: those never fitted start where the others of their angle were found on average."""
        rows = np.arange(self.train.shape[0])[:, None]
        moved = jnp.mean(found.positions - nominal.positions[rows, self.train], axis=1, keepdims=True)
        positions = (nominal.positions + moved).at[rows, self.train].set(found.positions)
        return found.replace(positions=positions, gain=nominal.gain.at[rows, self.train].set(found.gain))


# ---------------------------------------------------------------------------------------------------- solve
def amplitude_cost(model: Any, batch: Batch) -> jax.Array:
    """The default cost functional: amplitudes, because their noise is the same in bright and dark pixels."""
    return losses.amplitude(model(batch.views), batch.counts, batch.mask & batch.seen[..., None, None])


def joint(
    model: PtychoTomography,
    data: Mapping[str, np.ndarray],
    settings: Settings,
    console: Console,
    steps: int,
    unknowns: Mapping[str, float] | None = None,
    label: str = "ptycho-tomography",
    checkpoint: str | None = None,
) -> Solution:
    """Descend in all unknowns at once, a few angles a step."""
    positive = settings["model"]["positive"]
    positive = _whole(settings["model"]) if positive is None else positive
    return minimise(
        settings["loss"]["function"] or amplitude_cost,
        model,
        data,
        _rule(settings["optimiser"], steps),
        steps=steps,
        batch_size=settings["solver"]["batch_size"],
        unknowns=unknowns or _unknowns(model, settings),
        seed=settings["solver"]["seed"],
        project=_positive if positive else None,
        console=console,
        label=f"{label}: step",
        checkpoint=checkpoint,
        resume=console.resume and checkpoint is not None,
    )


def _positive(model: PtychoTomography) -> PtychoTomography:
    return model.replace(delta=jnp.maximum(model.delta, 0))


def _rule(chosen: Mapping[str, Any], steps: int) -> optax.GradientTransformation:
    """Steps that grow to full size, which the unknowns' own factors multiply, then half a cosine down to a fiftieth."""
    if not hasattr(optax, chosen["name"]):
        raise InputError(f"optimiser.name: optax has no optimiser {chosen['name']!r}")
    warm, flat = min(20, steps // 4), max(int(steps * chosen["constant"]), steps // 4)
    parts = [
        optax.linear_schedule(0.02, 1.0, warm),
        optax.constant_schedule(1.0),
        optax.cosine_decay_schedule(1.0, max(steps - flat, 1), 0.02),
    ]
    return getattr(optax, chosen["name"])(optax.join_schedules(parts, [warm, flat]))


def _unknowns(model: Any, settings: Settings) -> dict[str, float]:
    """Names of what is solved for, each with its step."""
    chosen, rates = settings["model"], settings["optimiser"]
    amplitude = operators.beam_amplitude(model.optics.probe)
    pixel = model.optics.oversampling
    steps = {
        "delta": rates["learning_rate"],
        "beta": rates["beta"],
        "optics.probe": rates["probe"] * amplitude,
        "positions": rates["positions"] * pixel,
        "shifts": rates["shifts"] * pixel,
        "centre": rates["centre"] * pixel,
        "optics.background": rates["background"],
        "gain": rates["gain"],
    }
    return {name: step for name, step in steps.items() if chosen[name.removeprefix("optics.")]}


# ------------------------------------------------------------------------------------------------ two steps
def two_step(
    model: PtychoTomography, data: Mapping[str, np.ndarray], settings: Settings, console: Console
) -> tuple[PtychoTomography, PtychoProjections]:
    """Each projection by itself (the probe is shared), flattened, aligned, back-projected: the usual way.

    **Returns:** the model with the volume, centre and shifts that were found, and the projections.
    """
    steps = settings["solver"]["first"]
    unknowns = _unknowns(model, settings) | {"images": 0.04}
    for name in ("delta", "beta", "shifts", "centre"):
        unknowns.pop(name, None)
    # A few views of every angle a step: all images move in all steps.
    fields = {k: v if k == "mask" else np.swapaxes(v, 0, 1) for k, v in data.items()}
    angles = np.arange(model.shifts.shape[0])

    def cost(model: PtychoProjections, batch: Batch) -> jax.Array:
        counts = jnp.swapaxes(model(angles, batch.views), 0, 1)
        return losses.amplitude(counts, batch.counts, batch.mask & batch.seen[..., None, None])

    images = minimise(
        cost,
        model.separate(),
        fields,
        _rule(settings["optimiser"], steps),
        steps=steps,
        batch_size=4,
        unknowns=unknowns,
        seed=settings["solver"]["seed"],
        console=console,
        label="projections: step",
    ).value
    return _back_project(model, images, settings["model"], console), images


def _back_project(
    model: PtychoTomography, images: PtychoProjections, chosen: Mapping[str, Any], console: Console
) -> PtychoTomography:
    rows, columns = seen_field(images)
    whole = _whole(chosen)
    delta, beta = (
        flattened(part[:, rows, columns], whole)
        for part in (-np.asarray(images.images.real), np.asarray(images.images.imag))
    )
    angles, side = np.asarray(model.projector.angles), model.delta.shape[-1]
    centre, shifts = float(model.centre) - columns.start, np.zeros((angles.size, 2))
    if chosen["centre"] and not whole:
        # The alignment lets the volume beyond the field explain a wrong centre; the double wedge does not.
        try:
            found = prepare.find_rotation_centre(delta, angles)
            console.say(found.message)
            centre = found.centre
        except InputError as error:  # angles too far apart for it
            console.say(f"rotation axis left where it was: {error}")
    unknowns = [name for name in ("centre", "shifts") if chosen[name] and (whole or name == "shifts")]
    if unknowns:
        found = align(delta, angles, unknowns=unknowns, centre=centre, size=side, cg_steps=15, console=console)
        for line in found.messages:
            console.say(line)
        centre = float(found.motion.centre)
        shifts = shifts if found.motion.shifts is None else np.asarray(found.motion.shifts)
    wide = columns.stop - columns.start
    projector = operators.ParallelProjector(angles, (side, side), wide, centre=centre)
    volumes = []
    for stack in (delta, beta):
        still = operators.move_images(jnp.asarray(stack, jnp.float32), stack.shape[1:], shifts=-jnp.asarray(shifts))
        volume = solvers.fbp(projector, still, pad="zero" if whole else "smooth")
        volumes.append(jnp.zeros_like(model.delta).at[rows].set(volume.astype(model.delta.dtype)))
    return model.replace(
        delta=volumes[0],
        beta=volumes[1],
        optics=model.optics.replace(probe=images.optics.probe, background=images.optics.background),
        positions=images.positions,
        shifts=jnp.asarray(shifts, model.shifts.dtype),
        centre=jnp.asarray(centre + columns.start, model.centre.dtype),
    )


def seen_field(model: Any) -> tuple[slice, slice]:
    """Rows and columns of projections, about their middle, that are well lit at nearly all angles."""
    shape = model.optics.object.shape[-2:]
    places = model.places(np.arange(model.shifts.shape[0])).reshape(-1, 2)
    light = operators.coverage(model.optics.probe, places, shape)
    lit = np.asarray(well_lit(light))
    cut = []
    for axis, size in enumerate(shape):
        line = lit[:, size // 2] if axis == 0 else lit[size // 2]
        dark = np.flatnonzero(~line)
        reach = size // 2 if not dark.size else int(np.abs(dark - (size - 1) / 2).min())
        cut.append(slice(size // 2 - max(reach, 4), size // 2 + max(reach, 4)))
    return cut[0], cut[1]


def flattened(images: Float[np.ndarray, "view y x"], air: bool, share: float = 0.12) -> np.ndarray:
    """Without the constant and, where the outer columns show air, the slope along columns that they have.

    Without air all get the same mean, so large that nothing is negative (a mass of zero would have no centre).
    """
    count = max(int(share * images.shape[2]), 2)
    if not air:
        level = images - images.mean((1, 2), keepdims=True)
        return level - level.min()
    left, right = (np.median(part, axis=(1, 2)) for part in (images[..., :count], images[..., -count:]))
    way = (np.arange(images.shape[2]) - (count - 1) / 2) / (images.shape[2] - count)
    return images - left[:, None, None] - (right - left)[:, None, None] * way


# ---------------------------------------------------------------------------------------------------- the air
def _sample(model: PtychoTomography, chosen: Mapping[str, Any]) -> tuple[Array | None, str]:
    """Voxels that may hold matter, all but the air, and what is said about it."""
    unknown = "delta is known up to a constant and a slow bend"
    if not _whole(chosen):
        return None, f"no air is assumed anywhere: {unknown}"
    box = seen_box(model)
    smooth = np.asarray(_blurred(model.delta, 1.5))
    sample, inner = np.zeros(smooth.shape, bool), smooth[box]
    sample[box] = inner > _threshold(inner)
    sample = _grown(sample, 3)
    share = float(sample[box].mean())
    if share > 0.7:
        return None, f"the sample fills {share:.0%} of the scanned field: no air is assumed, {unknown}"
    return jnp.asarray(sample), f"air, held at zero: all but {share:.0%} of the scanned field"


def seen_box(model: PtychoTomography) -> tuple[slice, slice, slice]:
    """The part of the volume about the axis that all angles see."""
    rows, columns = seen_field(model)
    side = model.delta.shape[-1]
    out = max((side - (columns.stop - columns.start) + 1) // 2, 0)
    return rows, slice(out, side - out), slice(out, side - out)


def _blurred(volume: Array, width: float) -> Array:
    """By a Gaussian of that standard deviation [voxel] along all axes."""
    planes = operators.blur_frames(volume, width)
    return jnp.swapaxes(operators.blur_frames(jnp.swapaxes(planes, 0, 1), jnp.asarray([width, 1e-3])), 0, 1)


def _threshold(values: np.ndarray) -> float:
    """Between two classes of values, where their variance between is largest (Otsu 1979)."""
    counts, edges = np.histogram(values, 256)
    middle = (edges[1:] + edges[:-1]) / 2
    below, total = np.cumsum(counts), counts.sum()
    mean = np.cumsum(counts * middle)
    between = (mean[-1] * below - mean * total) ** 2 / np.maximum(below * (total - below), 1)
    return float(middle[between.argmax()])


def _grown(mask: np.ndarray, times: int) -> np.ndarray:
    """Dilated by so many voxels along each axis in turn."""
    for axis in list(range(mask.ndim)) * times:
        padded = np.pad(mask, [(1, 1) if a == axis else (0, 0) for a in range(mask.ndim)])
        mask = np.max(np.lib.stride_tricks.sliding_window_view(padded, 3, axis), axis=-1)
    return mask


# ---------------------------------------------------------------------------------------------------- judge
def fit_held_out(
    model: PtychoTomography, data: Mapping[str, np.ndarray], parts: Parts
) -> tuple[PtychoTomography, tuple[np.ndarray, np.ndarray, np.ndarray] | None]:
    """Two coordinates of each view never fitted, which no reconstruction can know; nothing else moves.

    **Returns:** the model, and counts, prediction and mask of these views.
    """
    if not parts.held.size:
        return model, None
    rows, fields = np.arange(parts.held.shape[0])[:, None], parts.of_data(data, parts.held)
    # Their projections do not change: they are made once.
    images = model.projections(np.arange(rows.size))
    part = parts.of_model(model, parts.held)
    still = PtychoProjections(part.optics, part.positions, part.gain, part.shifts, part.centre, images)

    def cost(model: PtychoProjections, batch: Batch) -> jax.Array:
        return losses.amplitude(
            matched(model(batch.views), batch.counts, batch.mask),
            batch.counts,
            batch.mask & batch.seen[..., None, None],
        )

    rule = optax.adam(optax.cosine_decay_schedule(0.1 * model.optics.oversampling, 40, 0.05))
    still = minimise(cost, still, fields, rule, steps=40, unknowns=("positions",)).value
    predicted = matched(still(np.arange(rows.size)), jnp.asarray(fields["counts"]), jnp.asarray(data["mask"]))
    predicted = np.asarray(predicted, float)
    keep = fields["seen"].ravel()
    flat = lambda a: np.reshape(a, (-1, *a.shape[2:]))[keep]
    return (
        model.replace(positions=model.positions.at[rows, parts.held].set(still.positions)),
        (flat(fields["counts"]), flat(predicted), data["mask"]),
    )


def centred(model: PtychoTomography, nominal: PtychoTomography) -> PtychoTomography:
    """The same places, told once: what all views of an angle have moved by is its shift, and what all angles have moved
    by along columns, next to a sine of the angle, is the centre."""
    common = jnp.mean(model.positions - nominal.positions, axis=1)
    shifts, constant = fix_gauge(model.shifts - common, model.projector.angles)
    return model.replace(positions=model.positions - common[:, None], shifts=shifts, centre=model.centre + constant)


def _judge(
    scan: Scan, model: PtychoTomography, judged: Any, settings: Settings
) -> tuple[dict[str, Any], tuple[str, ...]]:
    figures: dict[str, Any] = {"rotation_centre": model.rotation_centre(scan)}
    verdict: list[str] = []
    if judged is not None:
        counts, predicted, mask = judged
        which = f"{len(counts)} views of all angles"
        found, verdict = held_out_figures(counts, predicted, mask, settings["quality"]["seed"], which)
        figures |= found
    shifts = np.asarray(model.shifts)
    spread = shifts.std(0) / model.optics.oversampling
    verdict.append(
        f"rotation axis in the middle of a view at column {figures['rotation_centre']:.2f} pixel; from "
        f"angle to angle the sample moved by {spread[0]:.2f} (rows) and {spread[1]:.2f} (columns) pixel rms"
    )
    return figures, tuple(verdict)


def _halves(
    model: PtychoTomography,
    data: Mapping[str, np.ndarray],
    settings: Settings,
    console: Console,
    figures: dict[str, Any],
) -> tuple[str, ...]:
    """Shell correlation of two volumes, of the even and the odd angles, in the geometry and light that were found."""
    order = np.argsort(np.asarray(model.projector.angles), kind="stable")
    unknowns = {k: v for k, v in _unknowns(model, settings).items() if k in ("delta", "beta")}
    found = []
    for part in (order[::2], order[1::2]):
        half = model.replace(
            delta=jnp.zeros_like(model.delta),
            beta=jnp.zeros_like(model.beta),
            projector=model.projector.subset(part),
            **{name: getattr(model, name)[part] for name in ("positions", "gain", "shifts")},
        )
        fields = {k: v if k == "mask" else v[part] for k, v in data.items()}
        found.append(joint(half, fields, settings, console, settings["solver"]["steps"], unknowns, "half").value)
    cut = seen_box(model)
    curve = quality.shell_correlation(*(np.asarray(h.delta)[cut] for h in found), pixel_size=model.optics.pixel_size)
    figures["shell_correlation"] = curve.as_quality()
    return (f"even against odd angles: {curve}",)
