"""Distances that show most of an object for the same dose, found by gradient."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from .. import physics
from ..errors import InputError
from ..geometry import ConeBeam, ParallelBeam
from ._survey import metres
from ._transfer import FWHM, contrast_curves, field_share, sampled_share

_FARTHEST = 5.0
MERITS = ("error", "mean", "worst")


@dataclasses.dataclass(frozen=True)
class Design:
    """Distances for a near-field experiment and how they compare.

    **Fields:** `distances` = focus-sample (cone beam) or sample-detector (parallel) [m], increasing; `figure` = the
    figure of merit, smaller is better; `merit` says which; `sets` = distances of every set in the comparison by name;
    `figures` = `{set: {"error", "mean", "worst"}}`; `geometry` = the instrument with the distances put in;
    `range` that was allowed [m]; `history` = figure of merit of the best start at every step.
    """

    distances: np.ndarray
    figure: float
    merit: str
    sets: dict[str, np.ndarray]
    figures: dict[str, dict[str, float]]
    geometry: ConeBeam | ParallelBeam
    range: tuple[float, float]
    history: np.ndarray

    def lines(self) -> list[str]:
        """Give the comparison as a table."""
        head = f"{'set':<18} {'expected error':>14} {'mean variance':>14} {'worst variance':>15}  distances"
        rows = [
            f"{name:<18} {self.figures[name]['error']:>14.4f} {self.figures[name]['mean']:>14.4g} "
            f"{self.figures[name]['worst']:>15.4g}  {', '.join(metres(d) for d in values)}"
            for name, values in self.sets.items()
        ]
        return [head, *rows, *self.warnings()]

    def warnings(self) -> list[str]:
        """Say what the optimum leans on."""
        low, high = self.range
        end = [
            name
            for name, value, other in (("nearest", low, self.distances[0]), ("farthest", high, self.distances[-1]))
            if abs(other / value - 1) < 1e-3
        ]
        found = [f"the optimum uses the {name} distance allowed: a wider range would show more" for name in end]
        best = min(self.figures, key=lambda name: self.figures[name][self.merit])
        if self.figures[best][self.merit] < 0.999 * self.figure:
            found.append(f"{best} is better by the unsmoothed figure")
        return found


@dataclasses.dataclass(frozen=True)
class _Instrument:
    """Everything that is fixed, in units of the finest pixel; hashable, hence compiled in."""

    cone: bool
    focus_to_detector: float  # [m]
    first_pixel: float  # pixel at the nearest end of the range [m]
    low: float
    high: float  # [m]
    wavelength: float  # [m]
    source: float  # full width at half maximum [m]
    source_distance: float
    detector_blur: float  # [detector pixel]
    bandwidth: float
    frame: int | None
    counts: float  # on a finest pixel, all distances together
    inverse_ratio: float | None  # beta / delta; None: attenuation is an unknown of its own
    slope: float
    rms: float
    band: tuple[float, float]  # [cycles / finest pixel]


def design_distances(
    energy: float,
    *,
    detector_pixel: float,
    nearest: float,
    farthest: float,
    focus_to_detector: float | None = None,
    count: int = 4,
    source_size: float = 0.0,
    source_distance: float | None = None,
    detector_blur: float = 0.0,
    bandwidth: float = 0.0,
    frame: int | None = 2048,
    counts: float = 1000.0,
    delta_beta: float | None = None,
    slope: float = -3.5,
    phase_rms: float = 0.3,
    finest: float | None = None,
    coarsest: float | None = None,
    merit: str = "error",
    starts: int = 16,
    steps: int = 150,
    seed: int = 0,
) -> Design:
    """Find the distances of the flattest transfer: the figure of merit is minimised over them by gradient, from many
    starts, the customary sets among them.

    The data are `count` holograms that share a dose equally. Their Fisher information on the spectra of phase and
    attenuation follows from the transfer functions (`phase_information`), with blur, bandwidth, pixels that grow with
    the focus-sample distance, and the share of scattered light that leaves the field of view.

    **Arguments:**

    - `energy` [eV]; `detector_pixel` [m]; `nearest`, `farthest` = range [m] of the focus-sample distance with
      `focus_to_detector` [m] (cone beam), of the sample-detector distance without (parallel beam); `count` of
      distances.
    - `source_size`, `source_distance`, `detector_blur`, `bandwidth`: full widths as in `Setup.of`; `frame` [pixel].
    - `counts`: on a finest pixel in all holograms together.
    - `delta_beta` = delta / beta of an object of one material, `inf` = pure phase; `None` = both maps are unknown.
    - `slope`, `phase_rms` [rad]: the power of the object's phase falls as `f^slope` and adds up to `phase_rms^2`; an
      attenuation of its own is taken as a tenth of it.
    - `finest`, `coarsest` = ends of the wanted band as half periods [m]: by default a pixel, and a quarter of the
      field.
    - `merit`: `"error"` = expected error of the phase over its size when it is reconstructed with that prior (Wiener);
      `"mean"` = mean over the band, all octaves alike, of the variance of the phase's spectrum, `"worst"` its largest
      value, both over that of a perfect transfer.
    - `starts` besides the customary sets, `steps`: of the search (Adam; all at once); `seed`.

    **Returns:** a `Design`, with customary sets beside it. **Cost:** about three CPU seconds.

    **Raises:** `InputError` for a range, number or merit that make no sense.

    ```python
    found = design_distances(17e3, detector_pixel=3e-6, focus_to_detector=1.28, nearest=21.3e-3, farthest=60e-3,
                             count=2, delta_beta=np.inf, frame=256, starts=4, steps=5)
    ```
    """
    if merit not in MERITS:
        raise InputError(f"design: merit = {merit!r} is none of {', '.join(MERITS)}")
    tool = _instrument(
        energy,
        detector_pixel,
        nearest,
        farthest,
        focus_to_detector,
        count,
        source_size,
        source_distance,
        detector_blur,
        bandwidth,
        frame,
        counts,
        delta_beta,
        slope,
        phase_rms,
        finest,
        coarsest,
    )
    frequency, weight = _frequencies(tool)
    sets = customary_distances(nearest, farthest, count, cone=tool.cone)
    start = np.random.default_rng(seed).normal(0.0, 1.5, (max(starts, 1), count))
    start = np.concatenate([[_place(values, tool) for values in sets.values()], start])
    places, history = _search(jnp.asarray(start, jnp.float32), frequency, weight, tool, merit, steps)
    best = int(np.nanargmin(np.asarray(history)[-1]))
    distances = np.sort(np.asarray(_distances(places[best], tool), float))
    sets = {"optimised": distances, **sets}
    table = {name: _figures(values, frequency, weight, tool) for name, values in sets.items()}
    geometry = _placed(tool, energy, detector_pixel, distances)
    return Design(
        distances,
        table["optimised"][merit],
        merit,
        sets,
        table,
        geometry,
        (nearest, farthest),
        np.asarray(history)[:, best],
    )


def customary_distances(nearest: float, farthest: float, count: int = 4, *, cone: bool = True) -> dict[str, np.ndarray]:
    """List sets in use: equally spaced, geometric, all holograms at one end, and for four distances the ratios 1 :
    1.041 : 1.214 : 1.556 of focus-sample distances (21.33, 22.2, 25.9 and 33.2 mm), as at projection microscopes.

    Those of a cone beam begin at the `nearest` distance, where the pixel is finest; in a parallel beam the ratios end
    at the `farthest`, where fringes are strongest. Lengths [m].
    """
    sets = {
        "equally spaced": np.linspace(nearest, farthest, count),
        "geometric": np.geomspace(nearest, farthest, count),
        "all at the far end": np.full(count, farthest),
    }
    if count == 4:
        ratios = np.array([21.333333, 22.2, 25.9, 33.2]) / 21.333333
        scaled = nearest * ratios if cone else farthest * ratios / ratios[-1]
        sets |= {"customary ratios": np.clip(scaled, nearest, farthest)}
    return sets


# ---------------------------------------------------------------------------------------------------- the problem
def _instrument(
    energy: float,
    detector_pixel: float,
    nearest: float,
    farthest: float,
    focus_to_detector: float | None,
    count: int,
    source_size: float,
    source_distance: float | None,
    detector_blur: float,
    bandwidth: float,
    frame: int | None,
    counts: float,
    delta_beta: float | None,
    slope: float,
    phase_rms: float,
    finest: float | None,
    coarsest: float | None,
) -> _Instrument:
    if not 0 < nearest < farthest:
        raise InputError(f"design: the range {nearest:g} to {farthest:g} m must be positive and increasing")
    if focus_to_detector is not None and not farthest < focus_to_detector:
        raise InputError(
            f"design: the sample at {farthest:g} m would stand behind the detector at {focus_to_detector:g} m"
        )
    if count < 1 or not (counts > 0 and phase_rms > 0 and detector_pixel > 0 and energy > 0):
        raise InputError("design: number of distances, counts, phase_rms, pixel and energy must be positive")
    if delta_beta is None and count < 2:
        raise InputError(
            "design: one distance cannot tell phase from attenuation; give delta_beta (inf for a pure "
            "phase object) or more distances"
        )
    cone = focus_to_detector is not None
    if source_size and not cone and not source_distance:
        raise InputError("design: the source of a parallel beam blurs by its size over its distance; give the latter")
    pixel = detector_pixel * nearest / focus_to_detector if focus_to_detector else detector_pixel
    highest = 0.5 if finest is None else 0.5 * pixel / finest
    lowest = 2.0 / (frame or 2048) if coarsest is None else 0.5 * pixel / coarsest
    if not 0 < lowest < highest <= 0.5:
        raise InputError(
            f"design: the band from {lowest:g} to {highest:g} cycles a pixel must be increasing and end "
            f"at half a cycle, a half period of one pixel ({metres(pixel)})"
        )
    return _Instrument(
        cone,
        focus_to_detector or 0.0,
        pixel,
        nearest,
        farthest,
        float(physics.energy_to_wavelength(energy)),
        source_size,
        source_distance or 1.0,
        detector_blur,
        bandwidth,
        frame,
        counts,
        None if delta_beta is None else 1 / delta_beta,
        slope,
        phase_rms,
        (lowest, highest),
    )


def _frequencies(tool: _Instrument) -> tuple[Array, Array]:
    """Frequencies of the band [cycles / finest pixel], closer at its low end, and the width of each."""
    ends = np.array([tool.low, tool.high])
    longest = float(np.max(ends * (1 - ends / tool.focus_to_detector) if tool.cone else ends))
    turns = tool.wavelength * longest * (tool.band[1] / tool.first_pixel) ** 2
    number = int(np.clip(12 * turns, 512, 4000))
    # Evenly in the square root: halfway between even spacing and even octaves, and chi is resolved to the end.
    edges = np.linspace(np.sqrt(tool.band[0]), np.sqrt(tool.band[1]), number + 1) ** 2
    middle, width = 0.5 * (edges[1:] + edges[:-1]), np.diff(edges)
    return jnp.asarray(middle, jnp.float32), jnp.asarray(width, jnp.float32)


def _distances(place: Float[Array, " distance"], tool: _Instrument) -> Float[Array, " distance"]:
    """Map the whole line into the range, evenly in the logarithm [m]."""
    ends = 1 / (1 + np.exp([_FARTHEST, -_FARTHEST]))  # reached, so that an optimum at an end is found there
    share = (jax.nn.sigmoid(place) - ends[0]) / (ends[1] - ends[0])
    return tool.low * (tool.high / tool.low) ** share


def _place(distances: np.ndarray, tool: _Instrument) -> np.ndarray:
    """The inverse of `_distances`."""
    ends = 1 / (1 + np.exp([_FARTHEST, -_FARTHEST]))
    share = np.clip(np.log(distances / tool.low) / np.log(tool.high / tool.low), 0, 1) * (ends[1] - ends[0]) + ends[0]
    return np.log(share / (1 - share))


def _information(distances: Array, frequency: Array, tool: _Instrument) -> tuple[Array, Array, Array]:
    """Fisher information on phase, on attenuation, and across, over that of a perfect transfer of the whole dose."""
    if tool.cone:
        pixel = distances / tool.low
        effective = distances * (1 - distances / tool.focus_to_detector)
        penumbra = tool.source * (1 - distances / tool.focus_to_detector)
    else:
        pixel = jnp.ones_like(distances)
        effective, penumbra = distances, tool.source * distances / tool.source_distance
    blur = jnp.hypot(penumbra / tool.first_pixel + 1e-12, tool.detector_blur * pixel) / FWHM
    # In units of the finest pixel wavelength D becomes 1 / Fresnel number, which float32 holds.
    scale = effective * (tool.wavelength / tool.first_pixel) / tool.first_pixel
    sine, cosine = contrast_curves(jnp, frequency, 1.0, scale, pixel, blur, tool.bandwidth / FWHM)
    share = sampled_share(jnp, frequency, pixel) / distances.shape[0]
    if tool.frame is not None:
        share = share * field_share(jnp, frequency, 1.0, scale, tool.frame * pixel)
    if tool.inverse_ratio is not None:
        sine = sine + tool.inverse_ratio * cosine
    mean = lambda a: jnp.sum(share * a, 0) / 4
    return mean(sine**2), mean(cosine**2), mean(-sine * cosine)


def _merits(distances: Array, frequency: Array, width: Array, tool: _Instrument) -> Mapping[str, Array]:
    """The three figures of merit; sharp forms."""
    phase, attenuation, across = _information(distances, frequency, tool)
    power = frequency**tool.slope
    power = tool.rms**2 * power / jnp.sum(power * 2 * jnp.pi * frequency * width)
    dose = 4 * tool.counts
    posterior = _variance(dose * phase, dose * attenuation, dose * across, power, tool)
    annulus = frequency * width
    floor = 1e-4  # a frequency that is not seen at all counts as ten thousand perfect ones, not as infinity
    free = _variance(phase, attenuation, across, jnp.full_like(power, 1 / floor), tool)
    octave = width / frequency
    return {
        "error": jnp.sqrt(jnp.sum(posterior * annulus) / jnp.sum(power * annulus)),
        "mean": jnp.sum(free * octave) / jnp.sum(octave),
        "worst": jnp.max(free),
        "soft worst": (jnp.sum(free**8 * octave) / jnp.sum(octave)) ** (1 / 8),
    }


def _variance(phase: Array, attenuation: Array, across: Array, power: Array, tool: _Instrument) -> Array:
    """Find the variance of the phase's spectrum after a measurement with that information and prior power."""
    if tool.inverse_ratio is not None:
        return 1 / (phase + 1 / power)
    # A tenth of the phase: one per cent of its power.
    known = attenuation + 100 / power
    return 1 / (phase + 1 / power - across**2 / known)


@partial(jax.jit, static_argnames=("tool", "merit", "steps"))
def _search(start: Array, frequency: Array, width: Array, tool: _Instrument, merit: str, steps: int):
    """Adam from every start at once: the best place of each `(start, distance)`, and what it had reached at every step
    `(step, start)`."""
    aim = "soft worst" if merit == "worst" else merit
    rule = optax.adam(optax.cosine_decay_schedule(0.15, steps, 0.05))

    def cost(place: Array) -> Array:
        return jnp.log(_merits(_distances(place, tool), frequency, width, tool)[aim])

    def step(carry, _):
        place, state, least, best = carry
        value, gradient = jax.vmap(jax.value_and_grad(cost))(place)
        better = value < least
        least, best = jnp.where(better, value, least), jnp.where(better[:, None], place, best)
        update, state = rule.update(gradient, state, place)
        moved = jnp.clip(jnp.asarray(optax.apply_updates(place, update)), -_FARTHEST, _FARTHEST)
        return (moved, state, least, best), jnp.exp(least)

    first = (start, rule.init(start), jnp.full(start.shape[0], jnp.inf), start)
    (_, _, _, best), history = jax.lax.scan(step, first, length=steps)
    return best, history


def _figures(distances: np.ndarray, frequency: Array, width: Array, tool: _Instrument) -> dict[str, float]:
    found = _merits(jnp.asarray(distances, jnp.float32), frequency, width, tool)
    return {name: float(found[name]) for name in MERITS}


def _placed(tool: _Instrument, energy: float, detector_pixel: float, distances: np.ndarray) -> Any:
    if tool.cone:
        return ConeBeam(energy, distances, tool.focus_to_detector, detector_pixel)
    return ParallelBeam(detector_pixel, energy, distances)
