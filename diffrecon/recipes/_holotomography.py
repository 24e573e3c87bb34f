"""Holotomography: two steps (phase of each angle, back-projection, places of the frames), then one cost from the volume
to the raw frames of all distances and angles, judged on angles that were never fitted.

The cost is the residual of amplitudes plus a Gaussian prior: the power of delta falls as a power of the frequency, law
and level of which are measured in the projections, so that no weight is left to choose. The volume is solved for in
coordinates that are whitened by the curvature which contrast transfer functions, the density of angles in Fourier space
and the prior give to every frequency; L-BFGS then needs some ten steps.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from .. import losses, physics, prepare, quality, sharding
from .._console import Console
from .._model import Batch
from .._result import Quantity, Result
from ..errors import InputError, nearest
from ..frames import Entries
from ..models import HoloTomography, hologram_table, holograms_by_angle
from ..priors import PowerLaw, radial_frequency
from ..scan import Scan
from ..solvers import minimise
from ._two_step import (
    agreed,
    centred,
    information,
    over_angles,
    place_frames,
    projections_of,
    transfer,
    two_step,
)
from ._views import held_out_figures

Settings = Mapping[str, Mapping[str, Any]]

DEFAULTS: dict[str, dict[str, Any]] = {
    "prepare": {
        # Pixels that stand out from those around by so many standard deviations, in most frames, are left out; 0 keeps
        # all.
        "outliers": 10.0,
    },
    "model": {
        "delta_beta": None,  # delta / beta of the sample; by default that of light organic matter
        "material": None,  # instead of it: formula and density [g/cm^3], such as "C5H8O2, 1.19" (needs xraydb)
        "beta": False,  # a volume of absorption that delta_beta does not explain
        "beta_scale": 0.01,  # size of that absorption beside delta, before the data are seen
        "size": None,  # pixels of a slice along x and y; the finest field of view by default
        "height": None,  # slices; the finest field of view by default
        "flats": "mean",  # of all flats; or "distance": they come in equal groups, one a distance
        "shifts": True,
        "centre": True,
        "gain": False,  # of the frames, what is solved for
        "register": False,  # frames of an angle on one another first: needed where they are pixels out of place
        "refine_delta_beta": False,
        "quantity": "delta",  # also delta, density (with material), electron-density: one more volume
    },
    "loss": {
        "function": None,  # a function (model, batch) -> scalar for the data; amplitudes by default
        "negative": 1.0,  # weight of values below vacuum, which X-rays do not see, against the data
        "prior": 1.0,  # weight of the prior; 1 is what the data say
    },
    "solver": {
        "name": "joint",  # or "two-step", which stops there
        "second": "fbp",  # of the two steps: fbp, cgls
        "filter": "ramp",  # of fbp
        "cgls_steps": 8,
        "align": 3,  # rounds of placing the frames in two steps
        "slab": None,  # two-step: slices at a time; by default what the memory holds, 0 = all at once
        "steps": 15,  # L-BFGS steps of the joint descent
        "memory": 8,
        "batch_size": None,  # angles a step: momentum steps instead of L-BFGS, for scans that memory does not hold
        "epochs": 12,  # of these
        "seed": 0,
    },
    "quality": {"held_out": 0.1, "halves": False, "seed": 0},
}


def defaults(method: str) -> Mapping[str, Mapping[str, Any]]:
    """Every setting by section."""
    return DEFAULTS


def reconstruct(scan: Scan, settings: Settings, console: Console, method: str) -> Result:
    """delta and beta, rotation axis and places of the frames, from holograms at several distances and many angles."""
    _check(settings)
    model = first_guess(scan, settings, console)
    data = good_pixels(model, holograms_by_angle(scan), settings, console)
    train, held = split(model.gain.shape[0], settings["quality"])
    model, prior = two_step(model, data, train, settings, console)
    history, ending = np.zeros(0), ""
    if settings["solver"]["name"] == "joint":
        console.say(f"prior: power of delta falls as f^{prior.slope:.2g}")
        model, history, ending = joint(model, data, train, prior, settings, console, checkpoint=console.checkpoint)
    model = centred(model)
    model, figures, verdict = judge(model, data, held, settings)
    figures["history"] = history
    if settings["quality"]["halves"]:
        verdict += _halves(model, data, settings, console, figures)
    quantities = model.quantities() | _wanted(model, scan, settings)
    first = (ending,) if ending else ()
    return Result(method, quantities, figures, (*first, *verdict), settings)


def wants_slabs(scan: Scan, settings: Settings) -> bool:
    """Whether two steps go through the volume in slabs: as said, or where phases and volume would take more than half
    of the free memory."""
    if settings["solver"]["name"] != "two-step" or settings["model"]["beta"]:
        return False
    if settings["solver"]["slab"] is not None:
        return int(settings["solver"]["slab"]) > 0
    height, columns = scan.frame_shape
    side, slices = int(settings["model"]["size"] or columns), int(settings["model"]["height"] or height)
    angles = len(hologram_table(scan)[0])
    # float32: phases and volume, each in work and as result
    needed = 8.0 * slices * side * (angles + 2 * side)
    return bool(agreed(needed > 0.5 * sharding.free_memory(jax.local_devices()[0])))


def reconstruct_slabs(
    scan: Scan, settings: Settings, console: Console, method: str, writer: Callable[..., Any]
) -> Result:
    """Two steps from file to file, for volumes that memory does not hold: see `_holotomography_slabs`."""
    from ._holotomography_slabs import in_slabs

    _check(settings)
    return in_slabs(scan, settings, console, method, writer)


# ---------------------------------------------------------------------------------------------------- prepare
def _check(settings: Settings) -> None:
    for section, name, known in (
        ("solver", "name", ("joint", "two-step")),
        ("solver", "second", ("fbp", "cgls")),
        ("model", "quantity", ("delta", "density", "electron-density")),
    ):
        if settings[section][name] not in known:
            raise InputError(
                f"{section}.{name}: {settings[section][name]!r} is none of {', '.join(known)}"
                f"{nearest(settings[section][name], known)}"
            )
    if settings["model"]["quantity"] == "density" and settings["model"]["material"] is None:
        raise InputError('model.quantity=density needs the composition: give model.material, such as "C5H8O2, 1.19"')
    if settings["solver"]["slab"] and settings["solver"]["name"] != "two-step":
        raise InputError("solver.slab: slabs of slices are for solver.name=two-step; joint needs the whole volume")
    share = settings["quality"]["held_out"]
    if not 0 <= share < 0.5:
        raise InputError(f"quality.held_out = {share:g} is to be a share of the angles below one half")


def first_guess(scan: Scan, settings: Settings, console: Console, *, volume: bool = True) -> HoloTomography:
    """The empty model of a scan, and what is said about it; without `volume` memory holds none."""
    chosen = settings["model"]
    energy = scan.require("geometry", "the geometry (energy, distances)", "a file with geometry").energy
    model = HoloTomography.from_scan(
        scan,
        delta_beta=physics.delta_beta_ratio(energy, chosen["delta_beta"], chosen["material"]),
        beta=chosen["beta"],
        size=chosen["size"],
        height=chosen["height"],
        flats=chosen["flats"],
        volume=volume,
    )
    angles, distances = model.gain.shape
    console.say(
        f"{angles} angles with {distances} holograms of {model.frame[0]} x {model.frame[1]}, pixels "
        + ", ".join(f"{p[0] * 1e9:.4g}" for p in model.pixels)
        + " nm, effective distances "
        + ", ".join(f"{d[0] * 1e3:.4g}" for d in np.asarray(model.distances))
        + f" mm; volume {' x '.join(map(str, model.delta.shape))} of {model.pixel_size * 1e9:.4g} nm, delta/beta "
        f"{float(model.delta_beta):.4g}"
    )
    return model


def good_pixels(model: HoloTomography, data: dict[str, Any], settings: Settings, console: Console) -> dict[str, Any]:
    """The data with a mask that leaves out pixels that stand out from those around in most of nine angles' frames."""
    threshold, angles = settings["prepare"]["outliers"], data["counts"].shape[0]
    if threshold < 0:
        raise InputError(f"prepare.outliers = {threshold} is negative; give standard deviations, or 0 to keep all")
    if not threshold:
        return data
    some, often = np.unique(np.linspace(0, angles - 1, 9).astype(int)), np.zeros(model.frame)
    light = np.broadcast_to(np.asarray(model.flux, float), (model.gain.shape[1], *model.frame))
    for angle in some:
        frames = np.asarray(data["counts"][np.array([angle])], float)[0] - np.asarray(model.dark, float)
        for frame, beam in zip(frames, light, strict=True):  # one at a time: the search takes seventeen times its size
            which, _ = prepare.find_outliers(frame[None], jnp.asarray(beam[None]), threshold=threshold)
            often += np.asarray(which[0]) / (some.size * len(frames))
    mask, message = prepare.leave_out(often > 0.5, data["mask"])
    if message:
        console.say(message)
    return data | {"mask": mask}


def split(angles: int, chosen: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Choose the angles that are fitted and those that never are: evenly spread by seed, none for fewer than eight."""
    count = int(np.clip(round(angles * chosen["held_out"]), 1, angles // 4)) if chosen["held_out"] else 0
    if angles < 8 or not count:
        return np.arange(angles), np.zeros(0, int)
    start = np.random.default_rng(chosen["seed"]).random()
    held = np.unique(((np.arange(count) + start) * angles / count).astype(int))
    return np.setdiff1d(np.arange(angles), held), held


# ---------------------------------------------------------------------------------------------------- what is known
def curvature(model: HoloTomography, angles: int) -> tuple[np.ndarray, np.ndarray]:
    """Curvature of the data term (half a squared standard deviation) for each frequency of `rfftn(volume,
    norm="ortho")` of delta, and of beta: contrast transfer functions times the number of angles whose planes cut a
    frequency."""
    shape = model.delta.shape
    fz, fy, fx = np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[1]), np.fft.rfftfreq(shape[2])
    across = np.hypot(fy[:, None], fx[None])
    size = int(np.ceil(shape[1] / 2)) * 4
    # Transfer along a radial grid: rows of the z frequencies, columns fine in |f|.
    radial = np.linspace(0, np.sqrt(2) / 2, size)
    sine, cosine, weights = _radial_transfer(model, fz, radial)
    delta, beta = ((weights * t**2).sum(0) for t in (sine + cosine / float(model.delta_beta), cosine))
    planes = angles / np.maximum(np.pi * shape[1] * across, 1.0) * shape[1]
    place = across.ravel()
    out = []
    for table in (delta, beta):
        rows = np.stack([np.interp(place, radial, row) for row in table])
        out.append(rows.reshape(shape[0], *across.shape) * planes)
    return _seen_through(out[0], shape), _seen_through(out[1], shape)


def window(shape: tuple[int, ...]) -> np.ndarray:
    """Where matter may be: the cylinder that all angles see, with an edge that is soft over an eighth of its radius."""
    along, across = _windows(shape)
    return along[:, None, None] * across


def _windows(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    soft = lambda depth, width: 0.5 - 0.5 * np.cos(np.pi * np.clip(depth / max(width, 1.0), 0, 1))
    z, y, x = (np.abs(np.arange(n) - (n - 1) / 2) for n in shape)
    radius = min(shape[1:]) / 2
    return soft(shape[0] / 2 - z, shape[0] / 16), soft(radius - np.hypot(y[:, None], x), radius / 8)


def _seen_through(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A curvature as it is for waves that the window cuts off: smoothed by the power of the window's transform.

    A low frequency alone is hardly seen; with the edge of a window on it is.
    """
    along, across = _windows(shape)
    first = np.fft.irfft(np.abs(np.fft.rfft(along, 2 * shape[0])) ** 2, 2 * shape[0])
    both = np.fft.irfft2(np.abs(np.fft.rfft2(across, [2 * n for n in shape[1:]])) ** 2, [2 * n for n in shape[1:]])
    lags = [np.fft.fftfreq(n, 1 / n).astype(int) for n in shape]
    overlap = first[lags[0]][:, None, None] * both[np.ix_(lags[1], lags[2])]
    kernel = np.fft.irfftn(values, s=shape, axes=(0, 1, 2)) * (overlap / overlap[0, 0, 0])
    return np.maximum(np.fft.rfftn(kernel).real, values.min())


def _radial_transfer(model: HoloTomography, fz: np.ndarray, radial: np.ndarray) -> tuple[np.ndarray, ...]:
    """`2 sin(chi)`, `2 cos(chi)` with the pixel's transfer at (fz, radial), and weights, as in `transfer`."""
    pixels, distances = np.asarray(model.pixels), np.asarray(model.distances, float)
    _, _, weights = transfer(model, (2, 2))
    chi = np.stack(
        [
            np.pi * model.wavelength * d.mean() / model.pixel_size**2 * (fz[:, None] ** 2 + radial[None] ** 2)
            for d in distances
        ]
    )
    ratio = pixels / model.pixel_size
    box = np.sinc(ratio[:, 0, None] * fz)[:, :, None] * np.sinc(ratio[:, 1, None] * radial)[:, None]
    return 2 * np.sin(chi) * box, 2 * np.cos(chi) * box, weights


# ---------------------------------------------------------------------------------------------------- solve
class Whitened(eqx.Module):
    """The model in coordinates in which every frequency has curvature about 1; the prior goes along.

    delta is a window times a filtered field: `delta = window F^-1[kernel F[field]]`.
    """

    delta: Float[Array, "z y x"]
    beta: Float[Array, "z y x"] | None
    shifts: Float[Array, "angle distance 2"]
    gain: Float[Array, "angle distance"]
    ratio: Float[Array, ""]
    kernels: tuple[Array, Array | None]
    shares: tuple[Array, Array | None]  # of the curvature of each frequency, what the prior adds
    scales: tuple[Array, Array, Array]
    negative: Array
    window: Array
    size: float = eqx.field(static=True)
    model: HoloTomography

    @classmethod
    def of(
        cls,
        model: HoloTomography,
        prior: PowerLaw,
        size: float,
        told: np.ndarray,
        loss: Mapping[str, Any],
        beta_scale: float,
    ) -> "Whitened":
        """Coordinates about a model; `size` is the number of counts, over which the cost is a mean; `told`, what
        each frame tells of its shifts and gain (`information`)."""
        cast = lambda a: jnp.asarray(a, model.delta.dtype)
        data = curvature(model, model.gain.shape[0])
        power = prior(radial_frequency(model.delta.shape, zero=0.5))
        inverse = [float(loss["prior"]) / power, float(loss["prior"]) / beta_scale**2 / power]
        kernels = [np.sqrt(size / (h + p)) for h, p in zip(data, inverse, strict=True)]
        shares = [p / (h + p) for h, p in zip(data, inverse, strict=True)]
        begin = lambda volume, i: _filter(volume, cast((1 - shares[i]) / kernels[i]))
        pair = lambda a: (cast(a[0]), None if model.beta is None else cast(a[1]))
        bright = float(transfer(model, (2, 2))[2].sum()) * float(jnp.sum(_projected(model) ** 2))
        scales = (
            np.sqrt(size / told[..., :2]),
            np.sqrt(size / told[..., 2]),
            np.sqrt(size / (4 * bright * model.gain.shape[0] + 1)),
        )
        return cls(
            begin(model.delta, 0),
            None if model.beta is None else begin(model.beta, 1),
            jnp.zeros_like(model.shifts),
            jnp.zeros_like(model.gain),
            cast(0.0),
            pair(kernels),
            pair(shares),
            (cast(scales[0]), cast(scales[1]), cast(scales[2])),
            cast(float(loss["negative"]) * np.median(data[0])),
            cast(window(model.delta.shape)),
            size,
            model,
        )

    def model_of_unknowns(self) -> HoloTomography:
        shift, gain, ratio = self.scales
        beta = None
        if self.beta is not None and self.kernels[1] is not None:
            beta = self.window * _filter(self.beta, self.kernels[1])
        return self.model.replace(
            delta=self.window * _filter(self.delta, self.kernels[0]),
            beta=beta,
            shifts=self.model.shifts + shift * self.shifts,
            gain=self.model.gain * (1 + gain * self.gain),
            # The cost is quadratic in beta / delta, which must not become negative.
            delta_beta=1 / jnp.maximum(1 / self.model.delta_beta + ratio * self.ratio, 1e-6),
        )

    def regularisation(self, model: HoloTomography) -> Array:
        """Minus the logarithm of the prior, and the penalty on values below vacuum, over the number of counts."""
        columns = model.delta.shape[2]
        twice = np.full(columns // 2 + 1, 2.0)  # the half space of rfftn stands for the whole one
        twice[0] = 1
        twice[-1] = 1 if columns % 2 == 0 else 2
        energy = self.negative / self.size * jnp.sum(jnp.minimum(model.delta, 0) ** 2)
        for field, share in zip((self.delta, self.beta), self.shares, strict=True):
            if field is not None and share is not None:
                spectrum = jnp.fft.rfftn(field, norm="ortho")
                energy += jnp.sum(jnp.asarray(twice, field.dtype) * jnp.real(spectrum * jnp.conj(spectrum)) * share)
        return 0.5 * energy


def _projected(model: HoloTomography) -> Array:
    """The first angle's line integrals of delta."""
    return model.projector(model.delta, jnp.arange(1))


def _filter(volume: Array, kernel: Array) -> Array:
    return jnp.fft.irfftn(jnp.fft.rfftn(volume) * kernel, s=volume.shape)


def amplitude_cost(model: HoloTomography, batch: Batch) -> Array:
    """The default data term: `2 (sqrt n - sqrt p)^2`, half a squared standard deviation of Poisson noise.

    Angle after angle, each propagated anew for the gradient: memory holds the projections and a few angles' frames.
    """
    views = jnp.asarray(batch.views)

    @jax.checkpoint
    def of_angle(item: Any) -> Array:
        projection, view, counts = item
        frames = model.frames(projection[None], view[None])[0]
        return 2 * losses.amplitude(frames, counts, batch.mask, floor=0.375)

    return jnp.mean(jax.lax.map(of_angle, (model.projections(views), views, batch.counts), batch_size=4))


def _cost(settings: Settings):
    data_term = settings["loss"]["function"] or amplitude_cost

    def cost(whitened: Whitened, batch: Batch) -> Array:
        model = whitened.model_of_unknowns()
        return data_term(model, batch) + whitened.regularisation(model)

    return cost


def joint(
    model: HoloTomography,
    data: Mapping[str, Any],
    angles: np.ndarray,
    prior: PowerLaw,
    settings: Settings,
    console: Console,
    *,
    geometry: bool = True,
    label: str = "holotomography",
    checkpoint: str | None = None,
) -> tuple[HoloTomography, np.ndarray, str]:
    """Descend in all unknowns at once from a model, on some angles; in the volume alone without `geometry`.

    **Returns:** the model, the cost of every step, how it ended.
    """
    chosen, solver = settings["model"], settings["solver"]
    known = {
        "shifts": chosen["shifts"] or chosen["centre"],
        "gain": chosen["gain"],
        "ratio": chosen["refine_delta_beta"],
    }
    names = ["delta", *(["beta"] if model.beta is not None else []), *(n for n in known if known[n] and geometry)]
    part = of_angles(model, angles)
    fields = {"counts": Entries(data["counts"], angles), "mask": data["mask"]}
    size, told = float(np.sum(data["mask"])) * part.gain.size, information(model, data, angles)
    start = Whitened.of(part, prior, size, told, settings["loss"], float(chosen["beta_scale"]))
    options: dict[str, Any] = {
        "console": console,
        "label": f"{label}: step",
        "checkpoint": checkpoint,
        "resume": console.resume and checkpoint is not None,
        "seed": solver["seed"],
    }
    batch, cost = solver["batch_size"], _cost(settings)
    if batch is None or batch >= angles.size:
        solution = minimise(
            cost, start, fields, _lbfgs(solver["memory"]), steps=solver["steps"], unknowns=names, chunk=5, **options
        )
    else:
        steps = int(solver["epochs"]) * -(-angles.size // int(batch))
        solution = minimise(
            cost,
            start,
            fields,
            _descent(steps, batch / angles.size),
            steps=steps,
            batch_size=int(batch),
            unknowns=names,
            **options,
        )
    ending = "" if solution.ending.finished else solution.result
    return into_whole(model, solution.value.model_of_unknowns(), angles), solution.history, ending


def _lbfgs(memory: int) -> optax.GradientTransformation:
    return optax.lbfgs(memory_size=memory, linesearch=optax.scale_by_zoom_linesearch(8, initial_guess_strategy="one"))


def _descent(steps: int, share: float) -> optax.GradientTransformation:
    """Plain steps. Whitened coordinates have curvature 1 for all angles together; what one batch alone tells of, its
    plane of Fourier space and its frames, has 1 / share. Steps end where noise does."""
    return optax.sgd(optax.cosine_decay_schedule(0.5 * share, steps, 0.05))


def of_angles(model: HoloTomography, angles: np.ndarray) -> HoloTomography:
    """The model of some of the angles."""
    return model.replace(projector=model.projector.subset(angles), shifts=model.shifts[angles], gain=model.gain[angles])


def into_whole(model: HoloTomography, part: HoloTomography, angles: np.ndarray) -> HoloTomography:
    """What a model of some angles has found, in the model of all, where the process can work on it by itself."""
    part = jax.tree.map(lambda a: jnp.asarray(np.asarray(a)) if isinstance(a, jax.Array) else a, part)
    return model.replace(
        delta=part.delta,
        beta=part.beta,
        delta_beta=part.delta_beta,
        shifts=model.shifts.at[angles].set(part.shifts),
        gain=model.gain.at[angles].set(part.gain),
    )


# ---------------------------------------------------------------------------------------------------- judge
def judge(
    model: HoloTomography,
    data: Mapping[str, Any],
    held: np.ndarray,
    settings: Settings,
    *lines: Any,
    edge: float | None = None,
) -> tuple[HoloTomography, dict[str, Any], list[str]]:
    """Figures and verdict; frames of angles never fitted get the places (and gain) that fit them best, where these are
    unknown: no reconstruction can know them.

    `lines`, line integrals of delta (angle, z, x), stand for the volume where that is not in memory; and `edge`, its
    mean modulus at the border over its largest.
    """
    figures: dict[str, Any] = {"rotation_centre": model.rotation_centre(), "delta_beta": float(model.delta_beta)}
    verdict: list[str] = []
    chosen = settings["model"]
    if held.size:
        model, counts, predicted = predict_held(model, data, held, chosen, *lines)
        found, verdict = held_out_figures(
            counts,
            predicted,
            np.asarray(data["mask"]),
            settings["quality"]["seed"],
            f"{held.size} whole angles, {len(counts)} holograms",
        )
        figures |= found
    if edge is None:
        delta = np.asarray(model.refractive_index()[0])
        edge = float(np.abs(_border(delta)).mean() / max(float(np.abs(delta).max()), 1e-30))
    if edge > 0.05:
        verdict.append(
            "the volume is not empty at its border: the sample may be wider than the finest field of view "
            "(model.size, model.height)"
        )
    spread = np.asarray(model.shifts).std((0, 1))
    verdict.append(
        f"rotation axis at column {model.rotation_centre():.2f} of the finest frames; frames moved by "
        f"{spread[0]:.2f} (rows) and {spread[1]:.2f} (columns) pixel rms"
    )
    return model, figures, verdict


def predict_held(
    model: HoloTomography, data: Mapping[str, Any], held: np.ndarray, chosen: Mapping[str, Any], *lines: Any
) -> tuple[HoloTomography, np.ndarray, np.ndarray]:
    """The model with the frames of these angles placed, their counts and predictions `(hologram, y, x)`."""
    if chosen["shifts"] or chosen["gain"]:
        model = place_frames(model, data, held, *lines, shifts=chosen["shifts"], gain=chosen["gain"], rounds=4)
    flat = lambda a: np.asarray(a, float).reshape(-1, *model.frame)
    return model, flat(data["counts"][held]), flat(over_angles(_predict, model, data, held, *lines))


def _predict(model: HoloTomography, angles: Array, counts: Array, mask: Array, *lines: Array) -> Array:
    return model.frames(projections_of(model, angles, lines), angles)


def _border(volume: np.ndarray) -> np.ndarray:
    """Values in the outermost layers of the cylinder that all angles see."""
    axis = np.arange(volume.shape[1]) - (volume.shape[1] - 1) / 2
    radius = np.hypot(axis[:, None], axis[None])
    side = volume[:, (radius > 0.94 * axis[-1]) & (radius <= axis[-1])]
    return np.concatenate([side.ravel(), volume[[0, -1]][:, radius <= axis[-1]].ravel()])


def _halves(
    model: HoloTomography, data: Mapping[str, Any], settings: Settings, console: Console, figures: dict[str, Any]
) -> list[str]:
    """Shell correlation of two volumes, of the even and the odd angles, in the geometry that was found."""
    order = np.argsort(np.asarray(model.projector.angles), kind="stable")
    fixed = {**settings, "model": {**settings["model"], "centre": False, "shifts": False, "gain": False}}
    found = []
    for part in (order[::2], order[1::2]):
        half, prior = two_step(model, data, part, fixed, Console(quiet=True))
        if settings["solver"]["name"] == "joint":
            half = joint(half, data, part, prior, settings, console, geometry=False, label="half")[0]
        found.append(np.asarray(half.delta))
    curve = quality.shell_correlation(*found, pixel_size=model.pixel_size)
    figures["shell_correlation"] = curve.as_quality()
    return [f"even against odd angles: {curve}"]


def _wanted(model: HoloTomography, scan: Scan, settings: Settings) -> dict[str, Quantity]:
    """The volume as density, where it is asked for."""
    said, material = settings["model"]["quantity"], settings["model"]["material"]
    if said == "delta":
        return {}
    delta, pixel, axes = np.asarray(model.refractive_index()[0]), model.pixel_size, ("z", "y", "x")
    if said == "electron-density":
        electrons = 1e-30 * physics.electron_density(delta, model.wavelength)
        return {
            "electron_density": Quantity(
                electrons.astype(np.float32), "1/angstrom^3", axes, pixel, "electron density", "volume"
            )
        }
    energy = float(physics.wavelength_to_energy(model.wavelength))
    density = physics.density_from_delta(delta, str(material), energy)
    return {
        "density": Quantity(np.asarray(density, np.float32), "g/cm^3", axes, pixel, f"density as {material}", "volume")
    }
