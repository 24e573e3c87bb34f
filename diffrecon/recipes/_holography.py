"""Holography: shifts by registration, contrast transfer function as first guess, then the full model by Gauss-Newton
steps, with priors learnt from the data.

The cost is the residual of amplitudes plus a Gaussian prior: the spectrum of every map falls as a power of the
frequency. The powers are fitted to what the data have determined, so that no regularisation weight is left to choose
(type-II maximum likelihood; MacKay, Neural Comput. 4, 415 (1992)); details are then kept sharp by the logarithm of the
total variation, which needs no weight either. One material comes first; at its beginning the curvature is raised by
`damping`: the lowest frequencies, which holograms show least, wait until the details that scatter into them are right.
Where one material leaves a residual, attenuation of its own or the other named materials follow, and the numbers of the
geometry that are to be refined go along.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import operators, prepare, quality
from .._console import Console
from .._model import Batch
from .._result import Quantity, Result
from ..errors import InputError
from ..models import Holography
from ..models._holography import refraction
from ..scan import Scan
from ..solvers import ctf_response, levenberg_marquardt, minimise
from ..solvers._regularisation import PowerLaw
from ._whitened import (
    Curvature,
    Maps,
    Variation,
    Whitened,
    column_norms,
    first_maximum,
    measured_curvature,
    prior_rows,
    residual,
)

GEOMETRY = ("shifts", "rotations", "stretch", "distances", "source_blur", "detector_blur", "flux")
_RELATIVE = ("shifts", "rotations", "stretch")  # to the first frame, which says where the object is

_DEFAULTS: dict[str, dict[str, Any]] = {
    "model": {
        "delta_beta": None,      # delta / beta of the main material; by default that of light organic matter
        "material": None,        # instead of it: formula and density [g/cm^3], such as "SiO2, 2.2" (needs xraydb)
        # Instead of it: several by name, {resin = "C5H8O2, 1.19", gold = "Au, 19.3"}. The one of largest delta / beta
        # is the main one; of one or two the thicknesses come out.
        "materials": None,
        # Solve for attenuation that delta_beta does not explain. By default where one material leaves a residual above
        # photon noise.
        "attenuation": None,
        "attenuation_scale": 0.15,  # size of that attenuation to begin with, in units of the phase
        # Numbers of the geometry to solve for, of: shifts, rotations, stretch, distances, source_blur, detector_blur,
        # flux. By default shifts where they had to be registered.
        "refine": None,
        "register": None,        # find the shifts between frames; by default where none are given
    },
    "loss": {
        "function": None,        # a function (model, batch) -> scalar for the data; amplitudes by default
        "negative": 0.25,        # weight of phases above vacuum, which X-rays do not make, in units of the flux
        "tv": 1.0,               # strength of the total variation, in units of photon noise; 0 for none
    },
    "solver": {
        "damping": [1.0, 0.1],   # of the rounds of one material where the phase is strong, in units of the flux
        "rounds": 2,             # with everything to be solved for; one where the phase is weak
        "tv_rounds": 3,
        "steps": 4,              # Gauss-Newton steps a round
        "cg_steps": 20,          # conjugate gradients a step (fewer in the rounds of one material)
    },
    "quality": {"seed": 0},
}


def defaults(method: str) -> Mapping[str, Mapping[str, Any]]:
    """Every setting by section."""
    return _DEFAULTS


def reconstruct(scan: Scan, settings: Mapping[str, Mapping[str, Any]], console: Console, method: str) -> Result:
    """Phase and attenuation of an isolated object from its holograms at one or several distances."""
    chosen = settings["model"]
    _check(settings)
    model, named = _first_model(scan, chosen)
    mask = np.ones(scan.frame_shape, bool) if scan.mask is None else scan.mask
    data = {"counts": np.asarray(scan.counts), "mask": mask}
    messages = [_say_start(scan, model, console)]
    model = _lit(scan, model, console)
    model, registered = _registered(scan, model, data, chosen, console, messages)
    refine = _refined(chosen, registered)
    model = _with_unknowns(model, refine)
    curvature = Curvature.of_transfer(model)
    model, prior = first_guess(model, data, curvature)
    strong = float(jnp.ptp(model.phase)) > 1.0
    console.say(f"first guess by the contrast transfer function; power of the phase falls as f^{prior.slope:.2g}")

    solve = _Solve(data, settings, console)
    one = Maps.of(model, attenuation=False)
    if strong:  # linear theory does not hold: what it says of the lowest frequencies is worse than nothing
        model = model.replace(phase=jnp.zeros_like(model.phase))
    for damping in settings["solver"]["damping"] if strong else [0.01]:
        model = solve.round(model, one, [prior], curvature, damping, 3, 8, "one material")
        if strong:  # what the first guess said of the power was as wrong as its phase
            prior = prior.refined(model.phase, curvature.of_maps(one)[..., 0, 0])
    maps = _opened(model, named, solve.excess(model), settings, console)
    priors = [prior, _other(prior, model, float(chosen["attenuation_scale"]))][: len(maps.names)]
    steps, searches = settings["solver"]["steps"], settings["solver"]["cg_steps"]
    for index in range(int(settings["solver"]["rounds"]) if strong else 1):
        curvature = measured_curvature(model, index) if strong else curvature
        model = solve.round(model, maps, priors, curvature, 0.0, steps, searches, "all", refine)
    for _ in range(int(settings["solver"]["tv_rounds"]) if settings["loss"]["tv"] > 0 else 0):
        main = curvature.of_maps(maps)[..., 0, 0]
        variation = Variation.of(model.total_phase(), priors[0], main, first_maximum(model), settings["loss"]["tv"])
        model = solve.round(model, maps, priors, curvature, 0.0, 2, searches, "details", (), variation)
    figures = _judge(model, data, settings["quality"]["seed"])
    figures |= {"history": np.concatenate(solve.history), "prior_slope": priors[0].slope}
    verdict = [] if solve.ending.startswith(("done", "converged")) else [solve.ending]
    thicknesses, message = _thicknesses(model, named)
    verdict += _judged(figures, model, refine) + [m for m in (*messages, message) if m]
    return Result(method, model.quantities() | thicknesses, figures | _geometry_found(model, refine), tuple(verdict),
                  settings)


class _Solve:
    """Rounds of the solve on one set of data; after an interruption the others are skipped."""

    def __init__(self, data: Mapping[str, np.ndarray], settings: Mapping[str, Mapping[str, Any]], console: Console):
        self.data, self.settings, self.console = data, settings, console
        self.history: list[np.ndarray] = [np.zeros(0)]
        self.ending = "done"
        # One cost for all rounds, so that they share compiled programs.
        self.cost = None if settings["loss"]["function"] is None else _own_cost(settings["loss"]["function"])

    def round(
        self, model, maps, priors, curvature, raised, steps, searches, label, refine=(), variation=None
    ) -> Holography:
        """The model after some Gauss-Newton steps."""
        if self.ending.startswith("interrupted"):
            return model
        scales = {name: _scale_of(model, name) for name in refine}
        start = Whitened.of(model, maps, priors, curvature, raised=raised, variation=variation, scales=scales,
                            negative=float(self.settings["loss"]["negative"]))
        names, label = ("white", *(("geometry",) if refine else ())), f"holography, {label}: step"
        if self.cost is not None:
            rule = optax.lbfgs(memory_size=8, linesearch=optax.scale_by_zoom_linesearch(8))
            solution = minimise(self.cost, start, self.data, rule, steps=4 * int(steps), unknowns=names, chunk=4,
                                console=self.console, label=label)
        else:
            solution = levenberg_marquardt(
                residual, start, self.data, prior=prior_rows, steps=int(steps), cg_steps=int(searches), unknowns=names,
                damping=0.03, tolerance=2e-5, block_size=len(model.pixels), probes=0, console=self.console, label=label,
            )
        self.history.append(solution.history)
        self.ending = solution.result
        return solution.value.found()

    def excess(self, model: Holography) -> float:
        """Largest deviance of a hologram over that of photon noise alone."""
        figures = _judge(model, self.data, self.settings["quality"]["seed"])
        return float((figures["deviance"] / figures["noise_floor_deviance"]).max())


def _own_cost(function):
    """A user's cost of the data with the prior: a mean over the counts, as amplitudes would give it."""
    def cost(unknowns: Whitened, batch: Batch) -> jax.Array:
        prior = sum(jnp.sum(rows**2) for rows in jax.tree.leaves(prior_rows(unknowns)))
        return function(unknowns.found(), batch) + 0.5 * prior / batch.counts.size

    return cost


# ------------------------------------------------------------------------------------------ prepare
def _check(settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse what cannot be before anything is computed."""
    for name in settings["model"]["refine"] or ():
        if name not in GEOMETRY:
            raise InputError(f"model.refine: {name!r} is none of {', '.join(GEOMETRY)}")
    if settings["loss"]["tv"] < 0:
        raise InputError(f"loss.tv = {settings['loss']['tv']} is negative; 0 is none")


def _first_model(scan: Scan, chosen: Mapping[str, Any]) -> tuple[Holography, Mapping[str, tuple[float, float]]]:
    """Vacuum of the main material, and the named materials (delta, beta), the one of largest delta/beta first."""
    place = scan.require("geometry", "the geometry (energy, distances)", "a file with geometry")
    said = chosen["materials"] or {}
    if said and not isinstance(said, Mapping):
        raise InputError(f'model.materials = {said!r} is no table of names, such as {{resin = "C5H8O2, 1.19"}}')
    named = {name: refraction(text, f"model.materials.{name}", place.energy) for name, text in said.items()}
    named = dict(sorted(named.items(), key=lambda item: -item[1][0] / item[1][1]))
    if named:
        delta, beta = next(iter(named.values()))
        return Holography.from_scan(scan, delta_beta=delta / beta), named
    return Holography.from_scan(scan, delta_beta=_delta_beta(scan, chosen)), {}


def _delta_beta(scan: Scan, model: Mapping[str, Any]) -> float:
    """delta / beta to start from."""
    ratio, material = model["delta_beta"], model["material"]
    if material is not None:
        energy = scan.require("geometry", "the geometry (energy, distances)", "a file with geometry").energy
        delta, beta = refraction(str(material), "model.material", energy)
        ratio = delta / beta
    ratio = _light_matter(scan) if ratio is None else float(ratio)
    if not ratio > 0:
        raise InputError(f"model.delta_beta = {ratio:g} is to be positive (inf for a pure phase object)")
    return ratio


def _light_matter(scan: Scan) -> float:
    """delta / beta of light organic matter, `8.8 (E / keV)^2`: 2500 at 17 keV. delta falls as E^-2, photoelectric beta
    as E^-4; above some 25 keV, where scattering takes over, it is an overestimate that does little harm."""
    energy = scan.require("geometry", "the geometry (energy, distances)", "a file with geometry").energy
    return 1000.0 if energy is None else 8.8 * (float(energy) / 1e3) ** 2


def _lit(scan: Scan, model: Holography, console: Console) -> Holography:
    """The model with the empty beam of each frame as the best combination of the flats, where there are several."""
    if scan.flats is None or len(scan.flats) < 3:
        return model
    combined = prepare.combine_flats(scan.counts, scan.flats, scan.darks)
    console.say(combined.message)
    return model.replace(flux=jnp.asarray(combined.light, model.flux.dtype))


def _registered(scan, model, data, chosen, console, messages) -> tuple[Holography, bool]:
    """The model with shifts between the frames found, where none were given."""
    wanted = "shifts" not in scan.extra if chosen["register"] is None else bool(chosen["register"])
    if not wanted or scan.views < 2:
        return model, False
    shifts, report = prepare.register_distances(
        data["counts"], np.asarray(model.flux, float), pixels=np.asarray(model.pixels),
        distances=np.asarray(model.distances, float), wavelength=model.wavelength, dark=np.asarray(model.dark, float),
        delta_beta=float(model.delta_beta), mask=data["mask"], start=np.asarray(model.shifts, float),
    )
    console.say(report.message)
    if "WARNING" in report.message:
        messages.append(report.message)
    return model.replace(shifts=jnp.asarray(shifts, model.shifts.dtype)), True


def _refined(chosen: Mapping[str, Any], registered: bool) -> tuple[str, ...]:
    if chosen["refine"] is not None:
        return tuple(chosen["refine"])
    return ("shifts",) if registered else ()


def _scale_of(model: Holography, name: str) -> jax.Array:
    """Units in which a number of the geometry has curvature one; zero for what stays."""
    scale = column_norms(model, name)
    return scale.at[0].set(0) if name in _RELATIVE else scale


def _with_unknowns(model: Holography, refine: Sequence[str]) -> Holography:
    """Fields that are to be refined must be there; a blur must not begin at zero, where it has no slope."""
    views = len(model.pixels)
    if "rotations" in refine and model.rotations is None:
        model = model.replace(rotations=jnp.zeros(views, model.phase.dtype))
    if "stretch" in refine and model.stretch is None:
        model = model.replace(stretch=jnp.ones((views, 2), model.phase.dtype))
    if "detector_blur" in refine and float(model.detector_blur) == 0:
        model = model.replace(detector_blur=jnp.full_like(model.detector_blur, 0.3))
    if "source_blur" in refine and float(model.source_blur) == 0:
        model = model.replace(source_blur=jnp.full_like(model.source_blur, 0.5 * model.pixel_size))
    return model


def _opened(model, named, excess, settings, console) -> Maps:
    """The maps to go on with: attenuation too, where one material does not explain the data or several are named."""
    chosen = settings["model"]["attenuation"]
    more = (len(named) > 1 or excess > 1.05) if chosen is None else bool(chosen)
    console.say(f"residual of one material: {excess:.3f} times photon noise" +
                ("; solving for attenuation too" if more and chosen is None else ""))
    return Maps.of(model, attenuation=more)


def _thicknesses(model: Holography, named: Mapping[str, tuple[float, float]]) -> tuple[dict[str, Quantity], str]:
    """Thicknesses of one or two named materials, and what has to be said of more."""
    if not named:
        return {}, ""
    if len(named) > 2:
        return {}, (f"{len(named)} materials are named: phase and attenuation are two numbers a pixel and tell the "
                    "thicknesses of two materials, not of more")
    per_length = 2 * np.pi / model.wavelength * np.array(list(named.values())).T  # (delta, beta) x material
    maps = {name: quantity.data for name, quantity in model.quantities().items()}
    if len(named) == 1:
        thickness = [-maps["phase"] / per_length[0, 0]]
    else:
        thickness = np.tensordot(np.linalg.inv(per_length), np.stack([-maps["phase"], maps["attenuation"]]), 1)
    return {
        f"thickness_{name}": Quantity(np.asarray(t, np.float32), "m", ("y", "x"), model.pixel_size,
                                      f"thickness of {name}", "image")
        for name, t in zip(named, thickness, strict=True)
    }, ""


def _other(prior: PowerLaw, model: Holography, scale: float) -> PowerLaw:
    """Prior of the attenuation: small dense details, whose power falls more slowly by one power of the
    frequency; of a size relative to the phase where phase contrast is best."""
    return PowerLaw(prior.level * scale**2 / (2 * first_maximum(model)), prior.slope + 1, prior.frequency)


def _say_start(scan: Scan, model: Holography, console: Console) -> str:
    """Tell the geometry; returns what is wrong with the sampling, or nothing."""
    distances, pixels = (np.asarray(v, float).mean(1) for v in (model.distances, model.pixels))
    console.say(f"{scan.views} holograms of {model.frame[0]} x {model.frame[1]}, pixels " +
                ", ".join(f"{p * 1e9:.4g}" for p in pixels) + " nm, effective distances " +
                ", ".join(f"{d * 1e3:.4g}" for d in distances) +
                f" mm; object {model.phase.shape[0]} x {model.phase.shape[1]} of {model.pixel_size * 1e9:.4g} nm")
    reports = [
        operators.sampling(model.grid, pixel_size=model.pixel_size, wavelength=model.wavelength, distance=float(d))
        for d in distances
    ]
    console.say(f"padded to {model.grid[0]} x {model.grid[1]}: {reports[int(np.argmax(distances))].message}")
    return next((r.message for r in reports if not r.enough), "")


# ------------------------------------------------------------------------------------------ first guess
def first_guess(
    model: Holography, data: Mapping[str, np.ndarray], curvature: Curvature
) -> tuple[Holography, PowerLaw]:
    """Phase by the contrast transfer function of one material with Wiener's regularisation, and the prior it was taken
    from."""
    shape = (model.phase.shape[0], model.phase.shape[1])
    spectra = np.fft.rfft2(on_object_pixels(model, data), norm="ortho")
    numbers = [model.pixel_size**2 / (model.wavelength * float(d)) for d in np.asarray(model.distances).mean(1)]
    sine, cosine = ctf_response(shape, numbers)
    weights = np.asarray(model.flux, float).mean((1, 2)) * model.pixel_size**2 / np.prod(model.pixels, axis=1)
    seen = np.einsum("j,jyx,jyx->yx", weights, sine + cosine / float(model.delta_beta), spectra)
    one = curvature.of_maps(Maps.of(model.replace(thickness=None, refraction=None), attenuation=False))[..., 0, 0]
    # Power of the data less that of photon noise, undone by the transfer: noisy, but free of bias.
    safe = np.maximum(one, 1e-9 * one.max())
    trust = (safe / (safe + 1e-3 * safe.max())) ** 2
    power = (np.abs(seen) ** 2 - safe) / safe**2
    prior = PowerLaw.fit(power * trust, np.ones_like(power), shape)
    prior = PowerLaw.fit(power * trust + (1 - trust) * prior.spectrum, np.ones_like(power), shape)
    phase = np.fft.irfft2(seen / (one + 1 / prior.spectrum), s=shape, norm="ortho")
    return model.replace(phase=jnp.asarray(phase, model.phase.dtype)), prior


def on_object_pixels(model: Holography, data: Mapping[str, np.ndarray]) -> np.ndarray:
    """Contrast `counts / empty beam - 1` of every view on the object's window by cubic interpolation; zero where
    nothing was seen."""
    flux = np.maximum(np.asarray(model.flux, float), 1e-6)
    contrast = (np.asarray(data["counts"], float) - np.asarray(model.dark, float)) / flux - 1
    contrast = np.where(data["mask"], contrast, 0.0)
    shifts = np.asarray(model.shifts, float)
    images = []
    for view, image in enumerate(contrast):
        rows, columns = (
            _cubic(model.phase.shape[a], model.frame[a], model.pixel_size / model.pixels[view][a], shifts[view, a])
            for a in (0, 1)
        )
        images.append(rows @ image @ columns.T)
    return np.stack(images)


def _cubic(size: int, count: int, ratio: float, shift: float) -> np.ndarray:
    """Matrix of cubic convolution (Keys 1981) from `count` detector pixels to `size` object pixels about the same
    centre."""
    place = (np.arange(size) - (size - 1) / 2) * ratio + (count - 1) / 2 - shift
    d = np.abs(place[:, None] - np.arange(count)[None])
    return np.where(d < 1, 1.5 * d**3 - 2.5 * d**2 + 1, np.where(d < 2, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2, 0))


# ------------------------------------------------------------------------------------------ judge
def _judge(model: Holography, data: Mapping[str, np.ndarray], seed: int) -> dict[str, Any]:
    prediction = np.asarray(eqx.filter_jit(lambda m: m(np.arange(len(m.pixels))))(model), float)
    pairs = list(zip(data["counts"], prediction, strict=True))
    found = np.array([quality.deviance(n, p, data["mask"]) for n, p in pairs])
    floor = np.array([quality.noise_floor(p, data["mask"], metric=quality.deviance, seed=seed) for _, p in pairs])
    return {"deviance": found, "noise_floor_deviance": floor}


def _geometry_found(model: Holography, refine: Sequence[str]) -> dict[str, Any]:
    return {name: np.asarray(getattr(model, name), float) for name in refine}


def _judged(figures: Mapping[str, Any], model: Holography, refine: Sequence[str]) -> list[str]:
    ratios = figures["deviance"] / figures["noise_floor_deviance"]
    said = ", ".join(f"{r:.3f}" for r in ratios)
    lines = [f"Poisson deviance over photon noise alone, for each hologram: {said}" +
             ("" if ratios.max() < 1.1 else "; above 1.1 the model misses something: drift, blur, flux or distance")]
    lines.append(f"phase down to {float(jnp.min(model.total_phase())):.3f} rad")
    if "shifts" in refine:
        lines.append("shifts of the frames [their pixels]: " +
                     ", ".join(f"({y:.2f}, {x:.2f})" for y, x in np.asarray(model.shifts, float)))
    return lines
