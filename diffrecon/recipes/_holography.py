"""Holography: contrast transfer function as first guess, then the full model, with a prior learnt from the data.

The cost is the residual of amplitudes plus a Gaussian prior: the spectrum of phase and attenuation falls as a power of
the frequency. Both powers are fitted to what the data have determined, so that no regularisation weight is left to
choose (type-II maximum likelihood; MacKay, Neural Comput. 4, 415 (1992)). The unknowns are whitened by the curvature
that the contrast transfer function and the prior give to every frequency: L-BFGS then converges in some ten steps. At
first the curvature is raised by `damping`: the lowest frequencies, which holograms show least, wait until the details
that scatter into them are right.
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from .. import losses, operators, physics, quality
from .._console import Console
from .._model import Batch
from .._result import Result
from ..errors import InputError
from ..models import Holography
from ..models._holography import refraction
from ..scan import Scan
from ..solvers import minimise
from ..solvers._phase import ctf_response

_DEFAULTS: dict[str, dict[str, Any]] = {
    "model": {
        "delta_beta": None,      # delta / beta of the main material; by default that of light organic matter
        "material": None,        # instead of it: formula and density [g/cm^3], such as "SiO2, 2.2" (needs xraydb)
        # Solve for delta_beta, and for attenuation that it does not explain. By default where one material leaves a
        # residual above photon noise (and delta_beta was not given): low frequencies hardly tell the two apart.
        "attenuation": None, "refine_delta_beta": None,
        "attenuation_scale": 0.05,  # size of that attenuation to begin with, in units of the phase
    },
    "loss": {
        "function": None,        # a function (model, batch) -> scalar for the data; amplitudes by default
        "negative": 0.25,        # weight of phases above vacuum, which X-rays do not make, in units of the flux
    },
    "solver": {
        "damping": [1.0, 0.01, 0.001],  # of the rounds, in units of the flux; the prior is fitted anew before each
        "steps": [14, 12, 10],   # L-BFGS steps of the rounds
        "memory": 8,
    },
    "quality": {"seed": 0},
}


def defaults(method: str) -> Mapping[str, Mapping[str, Any]]:
    """Every setting by section."""
    return _DEFAULTS


def reconstruct(scan: Scan, settings: Mapping[str, Mapping[str, Any]], console: Console, method: str) -> Result:
    """Phase and attenuation of an isolated object from its holograms at one or several distances."""
    ratio = _delta_beta(scan, settings["model"])
    model = Holography.from_scan(scan, delta_beta=ratio)
    mask = np.ones(scan.frame_shape, bool) if scan.mask is None else scan.mask
    data = {"counts": np.asarray(scan.counts), "mask": mask}
    message = _say_start(scan, model, console)
    curvature = _Curvature.of(model)
    model, prior = first_guess(model, data, curvature, settings["model"]["attenuation_scale"])
    console.say(f"first guess by the contrast transfer function; power of the phase falls as f^{prior[0].slope:.2g}")

    history: list[np.ndarray] = []
    ending, names = "done", ["phase"]
    rounds = list(zip(settings["solver"]["damping"], settings["solver"]["steps"], strict=False))
    # One cost and one optimiser for all rounds, so that they share compiled programs.
    cost, optimiser = _cost(settings["loss"]), _lbfgs(settings["solver"]["memory"])
    for index, (damping, steps) in enumerate(rounds):
        if index:
            names = _unknowns(model, data, settings, console) if index == 1 else names
            main = prior[0].refined(model.phase, curvature.phase)
            other = prior[1].refined(model.attenuation, curvature.attenuation, main.slope) if index > 1 else prior[1]
            prior = (main, other if "attenuation" in names else prior[1])
        start = _Whitened.of(model, prior, curvature, damping, data["counts"].size)
        solution = minimise(cost, start, data, optimiser, steps=int(steps), unknowns=tuple(names), chunk=5,
                            console=console, label=f"holography, round {index + 1} of {len(rounds)}: step")
        model, ending = solution.value.model_of_unknowns(), solution.result
        history.append(solution.history)
        if not ending.startswith("done"):
            break
    figures = _judge(model, data, settings["quality"]["seed"])
    figures |= {"history": np.concatenate(history) if history else np.zeros(0), "delta_beta": float(model.delta_beta)}
    figures |= {"prior_slope": prior[0].slope}
    verdict = [] if ending.startswith("done") else [ending]
    verdict += _judged(figures, model, "ratio" in names) + ([message] if message else [])
    return Result(method, model.quantities(), figures, tuple(verdict), settings)


# ------------------------------------------------------------------------------------------ prepare
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


def _unknowns(
    model: Holography, data: Mapping[str, np.ndarray], settings: Mapping[str, Any], console: Console
) -> list[str]:
    """What to solve for after the first round: more than the phase where one material leaves a residual above photon
    noise."""
    chosen = settings["model"]
    figures = _judge(model, data, settings["quality"]["seed"])
    excess = float((figures["deviance"] / figures["noise_floor_deviance"]).max())
    more = excess > 1.05
    console.say(f"residual of one material: {excess:.3f} times photon noise" +
                ("; solving for attenuation too" if more and chosen["attenuation"] is None else ""))
    given = chosen["delta_beta"] is not None or chosen["material"] is not None
    attenuation = more if chosen["attenuation"] is None else bool(chosen["attenuation"])
    refine = (more and not given) if chosen["refine_delta_beta"] is None else bool(chosen["refine_delta_beta"])
    return ["phase", *(["attenuation"] if attenuation else []), *(["ratio"] if refine else [])]


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


# ------------------------------------------------------------------------------------------ what the data tell
class _Curvature(eqx.Module):
    """Curvature of the data term for each frequency of the window, by the contrast transfer functions: `(phase,
    attenuation)`."""

    sine: np.ndarray
    cosine: np.ndarray
    weights: np.ndarray
    phase: np.ndarray
    attenuation: np.ndarray

    @classmethod
    def of(cls, model: Holography) -> "_Curvature":
        numbers = [model.pixel_size**2 / (model.wavelength * float(d)) for d in np.asarray(model.distances).mean(1)]
        sine, cosine = ctf_response((model.phase.shape[0], model.phase.shape[1]), numbers)
        flux = np.asarray(model.flux, float).mean((1, 2))
        # Counts of each view on one pixel of the object.
        weights = (flux * (model.pixel_size**2 / np.prod(model.pixels, axis=1)))[:, None, None]
        sine = sine + cosine / float(model.delta_beta)
        return cls(sine, cosine, weights, (weights * sine**2).sum(0), (weights * cosine**2).sum(0))

    def __iter__(self):
        return iter((self.phase, self.attenuation))


class _Power(eqx.Module):
    """Prior power of a map: `level * f^slope` for each frequency f [cycles/pixel] of `rfft2(map, norm="ortho")`."""

    level: float
    slope: float
    frequency: np.ndarray

    @property
    def spectrum(self) -> np.ndarray:
        return self.level * self.frequency**self.slope

    @classmethod
    def fit(cls, power: np.ndarray, known: np.ndarray, shape: tuple[int, int], slope: float | None = None) -> "_Power":
        """A power law through ring means of `power`, over the rings whose share `known` exceeds a third; of a given
        slope or not."""
        fy, fx = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
        frequency = np.maximum(np.hypot(fy[:, None], fx[None]), 1 / max(shape))
        edges = np.geomspace(frequency.min() * 0.999, frequency.max() * 1.001, 25)
        ring = np.digitize(frequency, edges).ravel()
        count = np.bincount(ring, minlength=26)
        mean = lambda a: np.bincount(ring, a.ravel(), 26) / np.maximum(count, 1)
        centre, level, share = mean(frequency), mean(power), mean(known)
        usable = (count > 0) & (level > 0) & (share > 1 / 3)
        holes = np.flatnonzero((count > 0) & ~usable)
        if holes.size and usable[: holes[0]].sum() >= 4:
            usable[holes[0]:] = False  # beyond the first ring that is not known, what looks known is chance
        weight = np.sqrt(np.minimum(count, 50) * usable)
        rows = np.stack([np.log(np.maximum(centre, 1e-9)), np.ones(26)], 1)
        values = np.log(np.maximum(level, 1e-30))
        if slope is None:
            fitted = np.linalg.lstsq(rows * weight[:, None], values * weight, rcond=None)[0][0]
            slope = float(np.clip(fitted if usable.sum() >= 3 else -3.5, -6.0, -1.5))
        height = np.average(values - slope * rows[:, 0], weights=weight**2) if usable.any() else np.log(1e-6)
        return cls(float(np.exp(height)), slope, frequency)

    def refined(self, image: Array, curvature: np.ndarray, slope: float | None = None) -> "_Power":
        """The law refitted to a solution: its power over the share that the data know (MacKay 1992, eq. 4.8), where
        they know at least a third."""
        power = np.abs(np.fft.rfft2(np.asarray(image, float), norm="ortho")) ** 2
        total = curvature + 1 / self.spectrum
        known = curvature / total
        # Where no ring is known the level stays.
        if not known.max() > 1 / 3:
            return self
        return _Power.fit(power / np.maximum(known, 1e-3), known, (image.shape[0], image.shape[1]), slope)


def first_guess(
    model: Holography, data: Mapping[str, np.ndarray], curvature: _Curvature, scale: float = 0.01
) -> tuple[Holography, tuple[_Power, _Power]]:
    """Phase by the contrast transfer function of one material with Wiener's regularisation, and the priors it was
    taken from."""
    shape = (model.phase.shape[0], model.phase.shape[1])
    spectra = np.fft.rfft2(on_object_pixels(model, data), norm="ortho")
    seen = (curvature.weights * curvature.sine * spectra).sum(0)
    # Power of the data less that of photon noise, undone by the transfer: noisy, but free of bias.
    safe = np.maximum(curvature.phase, 1e-9 * curvature.phase.max())
    trust = (safe / (safe + 1e-3 * safe.max())) ** 2
    power = (np.abs(seen) ** 2 - safe) / safe**2
    prior = _Power.fit(power * trust, np.ones_like(power), shape)
    prior = _Power.fit(power * trust + (1 - trust) * prior.spectrum, np.ones_like(power), shape)
    phase = np.fft.irfft2(seen / (curvature.phase + 1 / prior.spectrum), s=shape, norm="ortho")
    other = _Power(prior.level * scale**2, prior.slope, prior.frequency)
    return eqx.tree_at(lambda m: m.phase, model, jnp.asarray(phase, model.phase.dtype)), (prior, other)


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


# ------------------------------------------------------------------------------------------ solve
class _Whitened(eqx.Module):
    """The model in coordinates in which every frequency has curvature about 1; the prior goes along."""

    phase: Float[Array, "y x"]
    attenuation: Float[Array, "y x"]
    ratio: Float[Array, ""]
    kernels: tuple[Array, Array]
    inverse_powers: tuple[Array, Array]
    ratio_scale: Array
    size: int = eqx.field(static=True)
    model: Holography

    @classmethod
    def of(cls, model: Holography, prior: Any, curvature: _Curvature, damping: float, size: int) -> "_Whitened":
        """Coordinates about a model; `size` is the number of counts, over which the cost is a mean."""
        cast = lambda a: jnp.asarray(a, model.phase.dtype)
        inverse = tuple(cast(1 / p.spectrum) for p in prior)
        raised = damping * float(curvature.weights.mean())
        kernels = tuple(
            cast(np.sqrt(size / (h + 1 / p.spectrum + raised))) for h, p in zip(curvature, prior, strict=True)
        )
        bright = 4 * curvature.weights.sum() * float(jnp.sum(model.phase**2))
        phase, attenuation = (_filter(m, 1 / k) for m, k in zip((model.phase, model.attenuation), kernels, strict=True))
        return cls(
            phase, attenuation, jnp.zeros((), model.phase.dtype), (kernels[0], kernels[1]), (inverse[0], inverse[1]),
            cast(np.sqrt(size / (bright + 1))), size, model,
        )

    def model_of_unknowns(self) -> Holography:
        maps = (_filter(self.phase, self.kernels[0]), _filter(self.attenuation, self.kernels[1]))
        # The cost is quadratic in beta / delta, which must not become negative.
        ratio = 1 / jnp.maximum(1 / self.model.delta_beta + self.ratio * self.ratio_scale, 1e-6)
        return eqx.tree_at(lambda m: (m.phase, m.attenuation, m.delta_beta), self.model, (*maps, ratio))

    def prior(self, model: Holography) -> Array:
        """Minus the logarithm of the prior, over the number of counts."""
        columns = model.phase.shape[1]
        twice = np.full(columns // 2 + 1, 2.0)  # the half plane of rfft2 stands for the whole one
        twice[0] = 1
        twice[-1] = 1 if columns % 2 == 0 else 2
        energy = jnp.zeros((), model.phase.dtype)
        for image, inverse in zip((model.phase, model.attenuation), self.inverse_powers, strict=True):
            spectrum = jnp.fft.rfft2(image, norm="ortho")
            energy += 0.5 * jnp.sum(jnp.asarray(twice, image.dtype) * jnp.real(spectrum * jnp.conj(spectrum)) * inverse)
        return energy / self.size


def _filter(image: Array, kernel: Array) -> Array:
    return jnp.fft.irfft2(jnp.fft.rfft2(image) * kernel, s=image.shape)


def _cost(settings: Mapping[str, Any]):
    """Data, prior and the penalty on phases above vacuum; 1/2 a count for a model that is right."""
    data_term = settings["function"] or amplitude_cost
    negative = float(settings["negative"])

    def cost(whitened: _Whitened, batch: Batch) -> Array:
        model = whitened.model_of_unknowns()
        above = jnp.sum(jnp.maximum(model.phase, 0) ** 2) * jnp.mean(model.flux) / whitened.size
        return data_term(model, batch) + whitened.prior(model) + 0.5 * negative * above

    return cost


def amplitude_cost(model: Holography, batch: Batch) -> Array:
    """The default data term: `2 (sqrt n - sqrt p)^2`, half a squared standard deviation of Poisson noise."""
    return 2 * losses.amplitude(model(batch.views), batch.counts, batch.mask, floor=0.375)


def _lbfgs(memory: int) -> optax.GradientTransformation:
    search = optax.scale_by_zoom_linesearch(8, initial_guess_strategy="one")
    return optax.lbfgs(memory_size=memory, linesearch=search)


# ------------------------------------------------------------------------------------------ judge
def _judge(model: Holography, data: Mapping[str, np.ndarray], seed: int) -> dict[str, Any]:
    prediction = np.asarray(eqx.filter_jit(lambda m: m(np.arange(len(m.pixels))))(model), float)
    pairs = list(zip(data["counts"], prediction, strict=True))
    found = np.array([quality.deviance(n, p, data["mask"]) for n, p in pairs])
    floor = np.array([quality.noise_floor(p, data["mask"], metric=quality.deviance, seed=seed) for _, p in pairs])
    return {"deviance": found, "noise_floor_deviance": floor}


def _judged(figures: Mapping[str, Any], model: Holography, refine: bool) -> list[str]:
    ratios = figures["deviance"] / figures["noise_floor_deviance"]
    said = ", ".join(f"{r:.3f}" for r in ratios)
    lines = [f"Poisson deviance over photon noise alone, for each hologram: {said}" +
             ("" if ratios.max() < 1.1 else "; above 1.1 the model misses something: drift, blur, flux or distance")]
    lines.append(f"phase down to {float(jnp.min(model.phase)):.3f} rad; delta/beta {float(model.delta_beta):.4g}" +
                 (" (fitted)" if refine else ""))
    return lines
