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

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import quality
from .._console import Console
from .._model import Batch
from .._result import Quantity, Result
from ..models import Holography
from ..priors import PowerLaw, radial_frequency
from ..scan import Scan
from ..solvers import Ending, levenberg_marquardt, minimise
from ._hologram_start import (
    check_settings,
    first_guess,
    first_model,
    lit,
    outlier_threshold,
    registered,
    relit,
    say_start,
    to_refine,
    with_unknowns,
    without_outliers,
)
from ._journal import Journal
from ._marginal import drawn, marginal_residual
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
    vacuum_weights,
)

_RELATIVE = ("shifts", "rotations", "stretch")  # to the first frame, which says where the object is
_BLURS = {"source_blur", "detector_blur"}  # by marginal likelihood: the most probable object explains any blur away

_DEFAULTS: dict[str, dict[str, Any]] = {
    "prepare": {
        # Pixels that stand out from those around by so many standard deviations are left out; 0 keeps all.
        "outliers": 10.0,
    },
    "model": {
        "delta_beta": None,  # delta / beta of the main material; by default that of light organic matter
        "material": None,  # instead of it: formula and density [g/cm^3], such as "SiO2, 2.2" (needs xraydb)
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
        # Wave of the empty beam; by default flats divide. "flats": one complex wave at the object, from
        # the flats of all distances; "refine": and again from flats and holograms, in turn with the object. For beams
        # with strong structure of their own.
        "probe": None,
        "register": None,  # find the shifts between frames; by default where none are given
    },
    "loss": {
        "function": None,  # a function (model, batch) -> scalar for the data; amplitudes by default
        "negative": 0.25,  # weight of phases above vacuum, which X-rays do not make, in units of the flux
        "tv": 1.0,  # strength of the total variation, in units of photon noise; 0 for none
        # Weight of squares where nothing was found, in units of photon noise: an isolated object lies in vacuum. 0 for
        # none.
        "vacuum": 0.1,
    },
    "solver": {
        "damping": [1.0, 0.1],  # of the rounds of one material where the phase is strong, in units of the flux
        "rounds": 2,  # with everything to be solved for; one where the phase is weak
        "tv_rounds": 2,
        "steps": 4,  # Gauss-Newton steps a round
        "cg_steps": 20,  # conjugate gradients a step (fewer in the rounds of one material)
    },
    "quality": {
        "error_bar": True,  # of the phase, from photon noise
        # Two more solves and their Fourier ring correlation: of halves of the photons ("photons", or true) or of every
        # other distance ("distances").
        "halves": None,
        "seed": 0,
    },
}


def defaults(method: str) -> Mapping[str, Mapping[str, Any]]:
    """Every setting by section."""
    return _DEFAULTS


def reconstruct(scan: Scan, settings: Mapping[str, Mapping[str, Any]], console: Console, method: str) -> Result:
    """Phase and attenuation of an isolated object from its holograms at one or several distances."""
    chosen = settings["model"]
    check_settings(settings)
    model, named = first_model(scan, chosen)
    mask = np.ones(scan.frame_shape, bool) if scan.mask is None else scan.mask
    data = {"counts": np.asarray(scan.counts), "mask": mask}
    messages = [say_start(scan, model, console)]
    data = without_outliers(model, data, outlier_threshold(settings), console, messages)
    scan = scan.replace(**data)  # a hot pixel would pull what is fitted to flats and holograms, too
    model = lit(scan, model, chosen, console)
    model, settled = registered(scan, model, data, chosen, console, messages)
    refine = to_refine(chosen, settled)
    model = with_unknowns(model, refine)

    solve = _Solve(data, settings, console, Journal(console, data["counts"], settings))
    found = _retrieved(solve, model, len(named) > 1, refine, settled)
    for _ in range(2 if chosen["probe"] == "refine" else 0):
        if not solve.interrupted:
            model = _without_object(relit(scan, found.model, console))
            found = _retrieved(solve, model, len(named) > 1, refine, settled)
    figures = _judge(found.model, data, settings["quality"]["seed"])
    figures |= {"history": np.concatenate(solve.history), "prior_slope": found.priors[0].slope}
    figures |= _geometry_found(found.model, refine)
    verdict = [] if solve.ending.finished else [solve.ending.value]
    thickness, message = _thicknesses(found.model, named)
    verdict += _judged(figures, found.model, refine) + [m for m in (*messages, message) if m]
    quantities = found.model.quantities() | thickness
    if not solve.interrupted:
        verdict += _uncertainty(solve, found, settings["quality"], quantities, figures)
    return Result(method, quantities, figures, tuple(verdict), settings)


# ------------------------------------------------------------------------------------------ rounds
@dataclasses.dataclass(frozen=True)
class _Found:
    """A model with what its last round took for granted."""

    model: Holography
    maps: Maps
    priors: list[PowerLaw]
    curvature: Curvature
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    def vacuum(self, strength: float) -> np.ndarray | None:
        """Weights where the maps are taken for vacuum."""
        if not strength > 0:
            return None
        known, lowest = self.curvature.of_maps(self.maps), first_maximum(self.model)
        return np.stack(
            [
                vacuum_weights(image, known[..., i, i], lowest, strength)
                for i, image in enumerate(self.maps.read(self.model))
            ]
        )

    def variation(self, strength: float) -> Variation:
        """Weights of the total variation of the phase."""
        known = self.curvature.of_maps(self.maps)[..., 0, 0]
        return Variation.of(self.model.total_phase(), self.priors[0], known, first_maximum(self.model), strength)


def _retrieved(
    solve: "_Solve", model: Holography, several: bool, refine: Sequence[str], settled: bool, sharp: bool = True
) -> _Found:
    """One material first, then all there is to be solved for, then (`sharp`) the details.

    `several` materials are named; the shifts are `settled` by registration.
    """
    solver, loss = solve.settings["solver"], solve.settings["loss"]
    curvature = Curvature.of_transfer(model)
    model, prior = first_guess(model, solve.data)
    strong = float(jnp.ptp(model.phase)) > 1.0
    solve.console.say(f"first guess by the contrast transfer function; power of the phase falls as f^{prior.slope:.2g}")
    found = _one_material(solve, _Found(model, Maps.of(model, attenuation=False), [prior], curvature), strong)
    # A wrong geometry must not pass for attenuation: its numbers come first, unless registration has just found them.
    if refine and not (settled and set(refine) == {"shifts"}):
        found = _geometry_first(solve, found, refine, strong)
    found = _opened(solve, found, several)
    for index in range(int(solver["rounds"]) if strong else 1):
        curvature = measured_curvature(found.model, index) if strong else found.curvature
        found = dataclasses.replace(found, curvature=curvature, details={"vacuum": found.vacuum(loss["vacuum"])})
        found = solve.round(found, 0.0, solver["steps"], solver["cg_steps"], "all", refine)
    for _ in range(int(solver["tv_rounds"]) if sharp and loss["tv"] > 0 else 0):
        details = {"vacuum": found.vacuum(loss["vacuum"]), "variation": found.variation(loss["tv"])}
        found = solve.round(dataclasses.replace(found, details=details), 0.0, 2, solver["cg_steps"], "details")
    return found


def _without_object(model: Holography) -> Holography:
    return model.replace(phase=jnp.zeros_like(model.phase), attenuation=jnp.zeros_like(model.attenuation))


def _one_material(solve: "_Solve", found: _Found, strong: bool) -> _Found:
    """The rounds of one material."""
    if strong:  # linear theory does not hold: what it says of the lowest frequencies is worse than nothing
        found = dataclasses.replace(found, model=found.model.replace(phase=jnp.zeros_like(found.model.phase)))
    for damping in solve.settings["solver"]["damping"] if strong else [0.01]:
        found = solve.round(found, damping, 3, 8, "one material")
        if strong:  # what the first guess said of the power was as wrong as its phase
            found = _with_prior_refined(found, found.curvature)
    return found


def _geometry_first(solve: "_Solve", found: _Found, refine: Sequence[str], strong: bool) -> _Found:
    """The numbers of the geometry, with one material. Blurs come in rounds: each takes a share of what is left, and
    lets the object and its prior follow."""
    known = lambda model, index: measured_curvature(model, index) if strong else Curvature.of_transfer(model)
    blurred = bool(_BLURS & set(refine))
    for index in range(6 if blurred else 1):
        found = dataclasses.replace(found, curvature=known(found.model, index))
        steps, searches = 3 if blurred else 12, solve.settings["solver"]["cg_steps"]
        found = solve.round(found, 0.0, steps, searches, "geometry", refine)
        if blurred:
            found = _with_prior_refined(found, found.curvature if strong else known(found.model, index))
    return found


def _with_prior_refined(found: _Found, curvature: Curvature) -> _Found:
    known = curvature.of_maps(Maps.of(found.model, attenuation=False))[..., 0, 0]
    return dataclasses.replace(
        found,
        priors=[
            found.priors[0].refined(found.model.phase, known, radial_frequency(found.model.phase.shape)),
            *found.priors[1:],
        ],
    )


def _opened(solve: "_Solve", found: _Found, several: bool) -> _Found:
    """With attenuation too, where one material does not explain the data or several are named."""
    chosen, scale = (solve.settings["model"][name] for name in ("attenuation", "attenuation_scale"))
    excess = solve.excess(found.model)
    more = (several or excess > 1.05) if chosen is None else bool(chosen)
    solve.console.say(
        f"residual of one material: {excess:.3f} times photon noise"
        + ("; solving for attenuation too" if more and chosen is None else "")
    )
    if not more:
        return found
    prior = found.priors[0]
    # Small dense details: their power falls more slowly by one power of the frequency; their size is relative to the
    # phase where phase contrast is best.
    other = PowerLaw(prior.level * float(scale) ** 2 / (2 * first_maximum(found.model)), prior.slope + 1)
    return dataclasses.replace(found, maps=Maps.of(found.model, attenuation=True), priors=[prior, other])


class _Solve:
    """Rounds of the solve on one set of data; after an interruption the others are skipped."""

    def __init__(
        self,
        data: Mapping[str, np.ndarray],
        settings: Mapping[str, Mapping[str, Any]],
        console: Console,
        journal: Journal | None = None,
        label: str = "holography",
    ):
        self.data, self.settings, self.console, self.journal, self.label = data, settings, console, journal, label
        self.history: list[np.ndarray] = [np.zeros(0)]
        self.ending, self.number = Ending.DONE, -1
        # One cost for all rounds, so that they share compiled programs.
        self.cost = None if settings["loss"]["function"] is None else _own_cost(settings["loss"]["function"])

    @property
    def interrupted(self) -> bool:
        """Whether a round was stopped by the user."""
        return self.ending is Ending.INTERRUPTED

    def round(
        self, found: _Found, raised: float, steps: int, searches: int, label: str, refine: Sequence[str] = ()
    ) -> _Found:
        """The model after some Gauss-Newton steps, or as an earlier run left it."""
        if self.interrupted:
            return found
        self.number += 1
        names = (*found.maps.names, *refine)
        done = None if self.journal is None else self.journal.read(self.number)
        if done is not None:
            self.console.say(f"{self.label}, {label}: done before")
            values = {name: jnp.asarray(done[name], getattr(found.model, name).dtype) for name in names}
            return dataclasses.replace(found, model=found.model.replace(**values))
        model = self._solved(self.start(found, raised, refine), steps, searches, f"{self.label}, {label}: step", refine)
        if self.journal is not None and not self.interrupted:
            self.journal.write(self.number, {name: getattr(model, name) for name in names})
        return dataclasses.replace(found, model=model)

    def start(self, found: _Found, raised: float = 0.0, refine: Sequence[str] = ()) -> Whitened:
        """The white coordinates of a round."""
        scales = {name: _scale_of(found.model, name) for name in refine}
        return Whitened.of(
            found.model,
            found.maps,
            found.priors,
            found.curvature,
            raised=raised,
            scales=scales,
            negative=float(self.settings["loss"]["negative"]),
            **found.details,
        )

    def _solved(self, start: Whitened, steps: int, searches: int, label: str, refine: Sequence[str]) -> Holography:
        names = ("white", *(("geometry",) if refine else ()))
        if self.cost is not None:
            rule = optax.lbfgs(memory_size=8, linesearch=optax.scale_by_zoom_linesearch(8))
            solution = minimise(
                self.cost,
                start,
                self.data,
                rule,
                steps=4 * int(steps),
                unknowns=names,
                chunk=4,
                console=self.console,
                label=label,
            )
        else:
            rows, data = residual, self.data
            if _BLURS & set(refine):
                rows, data = marginal_residual, {**data, "spread": drawn(start, data, jnp.asarray(self.number))}
            solution = levenberg_marquardt(
                rows,
                start,
                data,
                prior=prior_rows,
                steps=int(steps),
                cg_steps=int(searches),
                unknowns=names,
                damping=0.03,
                tolerance=2e-5,
                block_size=len(start.model.pixels),
                probes=0,
                console=self.console,
                label=label,
            )
        self.history.append(solution.history)
        self.ending = solution.ending
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


# ------------------------------------------------------------------------------------------ geometry, materials
def _scale_of(model: Holography, name: str) -> jax.Array:
    """Units in which a number of the geometry has curvature one; zero for what stays."""
    scale = column_norms(model, name)
    return scale.at[0].set(0) if name in _RELATIVE else scale


def _thicknesses(model: Holography, named: Mapping[str, tuple[float, float]]) -> tuple[dict[str, Quantity], str]:
    """Thicknesses of one or two named materials, and what has to be said of more."""
    if not named:
        return {}, ""
    if len(named) > 2:
        return {}, (
            f"{len(named)} materials are named: phase and attenuation are two numbers a pixel and tell the "
            "thicknesses of two materials, not of more"
        )
    per_length = 2 * np.pi / model.wavelength * np.array(list(named.values())).T  # (delta, beta) x material
    maps = {name: quantity.data for name, quantity in model.quantities().items()}
    if len(named) == 1:
        thickness = [-maps["phase"] / per_length[0, 0]]
    else:
        thickness = np.tensordot(np.linalg.inv(per_length), np.stack([-maps["phase"], maps["attenuation"]]), 1)
    return {
        f"thickness_{name}": Quantity(
            np.asarray(t, np.float32), "m", ("y", "x"), model.pixel_size, f"thickness of {name}", "image"
        )
        for name, t in zip(named, thickness, strict=True)
    }, ""


# ------------------------------------------------------------------------------------------ judge
def _judge(model: Holography, data: Mapping[str, np.ndarray], seed: int) -> dict[str, Any]:
    prediction = np.asarray(eqx.filter_jit(lambda m: m(np.arange(len(m.pixels))))(model), float)
    pairs = list(zip(data["counts"], prediction, strict=True))
    found = np.array([quality.deviance(n, p, data["mask"]) for n, p in pairs])
    floor = np.array([quality.noise_floor(p, data["mask"], metric=quality.deviance, seed=seed) for _, p in pairs])
    return {"deviance": found, "noise_floor_deviance": floor}


def _geometry_found(model: Holography, refine: Sequence[str]) -> dict[str, Any]:
    """Numbers of the geometry that were refined; blurs enter squared, so that their sign means nothing."""
    values = {name: np.asarray(getattr(model, name), float) for name in refine}
    return {name: np.abs(value) if name in _BLURS else value for name, value in values.items()}


def _judged(figures: Mapping[str, Any], model: Holography, refine: Sequence[str]) -> list[str]:
    ratios = figures["deviance"] / figures["noise_floor_deviance"]
    said = ", ".join(f"{r:.3f}" for r in ratios)
    lines = [
        f"Poisson deviance over photon noise alone, for each hologram: {said}"
        + ("" if ratios.max() < 1.1 else "; above 1.1 the model misses something: drift, blur, flux or distance")
    ]
    lines.append(f"phase down to {float(jnp.min(model.total_phase())):.3f} rad")
    if "shifts" in refine:
        lines.append(
            "shifts of the frames [their pixels]: "
            + ", ".join(f"({y:.2f}, {x:.2f})" for y, x in np.asarray(model.shifts, float))
        )
    return lines


# ------------------------------------------------------------------------------------------ uncertainty
def _uncertainty(
    solve: _Solve, found: _Found, chosen: Mapping[str, Any], quantities: dict[str, Quantity], figures: dict[str, Any]
) -> list[str]:
    """Error bar and halves, as far as they are asked for; what there is to say of them."""
    said = []
    if chosen["error_bar"]:
        excess = float((figures["deviance"] / figures["noise_floor_deviance"]).max())
        bar = error_bar(solve.start(found), solve.data, excess, int(chosen["seed"]))
        seen = found.model.replace(phase=jnp.asarray(bar)).quantities()["phase"]  # on the part that is written
        bar, quantities["phase_error"] = seen.data, dataclasses.replace(seen, long_name="error bar of the phase")
        said.append(f"error bar of the phase: {np.median(bar):.2g} rad in the median, from photon noise")
    if chosen["halves"]:
        kind = "photons" if chosen["halves"] is True else str(chosen["halves"])
        correlation = _halves(solve, found.model, kind)
        figures |= correlation.as_quality()
        said.append(f"two halves of the {kind}, without total variation: {correlation}")
    return said


def error_bar(
    unknowns: Whitened, data: Mapping[str, np.ndarray], excess: float, seed: int, draws: int = 4
) -> np.ndarray:
    """Standard deviation `(y, x)` [rad] by which the phase of repeated measurements would scatter from photon noise.

    Root mean square of the solution's answer to noise, averaged over a neighbourhood; with the model as it was found.
    Where the model misses something the bar grows by the root of the residual's `excess` over photon noise. It says
    nothing of what the prior holds back: details below the noise, and the lowest frequencies.
    """
    maps = unknowns.maps
    total, width = np.zeros(unknowns.white.shape[1:]), 3.0
    for draw in range(draws):
        error = drawn(unknowns, data, jnp.asarray(seed * draws + draw), 12, prior=False)[0]
        total += np.tensordot(maps.a, np.asarray(unknowns.spread(error), float), 1) ** 2
    fy, fx = np.fft.fftfreq(total.shape[0]), np.fft.rfftfreq(total.shape[1])
    smooth = np.exp(-2 * (np.pi * width) ** 2 * (fy[:, None] ** 2 + fx[None] ** 2))
    variance = np.maximum(np.fft.irfft2(np.fft.rfft2(total / draws) * smooth, s=total.shape), 0)
    return np.sqrt(variance * max(excess, 1.0)).astype(np.float32)


def _halves(solve: _Solve, model: Holography, kind: str) -> quality.RingCorrelation:
    """Ring correlation of the phases from two halves of the data, by the same rounds without total variation, which
    would sharpen both halves alike; the geometry is the one that was found."""
    seed = int(solve.settings["quality"]["seed"])
    numbers = iter(("first", "second"))

    def phase(part: Holography, counts: np.ndarray) -> np.ndarray:
        data = {**solve.data, "counts": counts}
        half = _Solve(data, solve.settings, solve.console, label=f"holography, {next(numbers)} half")
        return np.asarray(_retrieved(half, _without_object(part), False, (), True, sharp=False).model.total_phase())

    if kind == "distances":
        take = lambda views: phase(model.of_views(views), solve.data["counts"][views])
        return quality.distance_halves(take, np.asarray(model.distances).mean(1), pixel_size=model.pixel_size)
    # Halves come times two: undone, so that their noise is that of counts.
    dim = model.replace(flux=0.5 * model.flux, dark=0.5 * model.dark)
    return quality.photon_halves(
        lambda counts: phase(dim, 0.5 * counts), solve.data["counts"], seed=seed, pixel_size=model.pixel_size
    )
