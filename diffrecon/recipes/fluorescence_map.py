"""Fluorescence maps: areal masses of elements from the counts of their lines over a raster, with error bars and limits.

Closed form, point by point: counts of a line = photons * live fraction * solid angle * production * detection *
areal mass * share that a slab of known composition lets through.
"""

import re
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import physics
from .._console import Console
from .._model import Model as AnyModel
from .._result import Quantity
from ..errors import InputError
from ..modality import Modality, Outcome, Problem, Run, Stage, Work
from ..models import LINE_TABLES
from ..scan import Scan
from ..settings import section, setting
from . import looks
from ._map_points import Areas, areas_of, check_lines
from ._sample import Sample, areal_mass
from ._sensitivity import (
    Beam,
    Detector,
    Exposure,
    Sensitivity,
    Tables,
    energy_of,
    exposure_of,
    file_production,
    lines_of,
    sensitivities,
)
from ._spectra import Spectrum, fitted

DETECTION, QUANTIFICATION = 3.0, 10.0  # standard deviations of the blank (IUPAC; Currie, Anal. Chem. 40, 586, 1968)


@dataclass(frozen=True)
class Results:
    """What is written."""

    units: str = setting(
        "g/cm2",
        "areal masses, or counts corrected for monitor and live time, which need no calibration",
        choices=("g/cm2", "counts"),
    )


@dataclass(frozen=True)
class Settings:
    """Every setting of the method."""

    beam: Beam = section(Beam)
    detector: Detector = section(Detector)
    sample: Sample = section(Sample)
    spectrum: Spectrum = section(Spectrum)
    tables: Tables = section(Tables)
    result: Results = section(Results)

    def checked(self) -> "Settings":
        """Refuse what has no effect on counts.

        **Raises:** `InputError` naming the section.
        """
        idle = [name for name, part in (("detector", Detector()), ("sample", Sample())) if getattr(self, name) != part]
        if self.result.units == "counts" and idle:
            raise InputError(f"[{idle[0]}] has no effect with result.units = counts; leave it out, or ask for g/cm2")
        return self


class ElementMaps(AnyModel):
    """Expected counts of every line, without background: areal masses times what one of them gives."""

    areal: Float[Array, "view y x line"]
    gain: Float[Array, "view y x line"]

    def __call__(self, views: Any) -> Array:
        """Counts of some views."""
        return self.areal[views] * self.gain[views]


@dataclass(frozen=True)
class Maps(Problem):
    """The problem with what is known of lines and points."""

    lines: tuple[Sensitivity, ...] = ()
    names: tuple[str, ...] = ()
    areas: Areas | None = None
    exposure: Exposure | None = None
    table: str = ""
    words: tuple[str, ...] = ()


class FluorescenceMap(looks.FluorescenceMap, Modality):
    """Areal masses [g/cm^2] of elements from a raster of counts."""

    settings = Settings

    def start(self, scan: Scan, settings: Settings, console: Console) -> Maps:
        """Find what an areal mass gives in every point."""
        check_lines(scan)
        fitting: list[str] = []
        if not scan.extra["lines"]:
            scan, fitting = fitted(scan, settings.spectrum, energy_of(scan))
        masses = settings.result.units == "g/cm2"
        exposure = exposure_of(scan, settings.beam, masses, settings.detector.sensitivity is not None)
        lines, words = lines_of(scan, energy_of(scan), settings.tables.lines)
        table = LINE_TABLES[next(iter(lines.values())).table]
        if masses:
            produced, table, warnings = file_production(scan, lines, settings.tables.lines)
            found, said = sensitivities(scan, lines, produced, settings.detector, settings.sample)
            words = [*words, *said, f"table of lines: {table}", *warnings]
        else:
            found = {c: Sensitivity(line, 1.0, 1.0) for c, line in lines.items()}
            words.append("counts at the mean light and full live time; no absorption is undone")
        amount = exposure.amount
        if not masses and (lit := np.isfinite(amount) & (amount > 0)).any():
            amount = amount / np.mean(amount[lit])  # counts at the mean light, whatever it is in
        given = amount * exposure.live
        areas = areas_of(scan, lines, given)
        words = [*fitting, *exposure.words, *words, *areas.words]
        for line in words:
            console.say(line)
        gain = given[..., None] * np.array([s.counts for s in found.values()])
        gain = np.where(areas.valid, gain, 0).astype(np.float32)
        model = ElementMaps(jnp.zeros(gain.shape, jnp.float32), jnp.asarray(gain))
        return Maps(
            model, {"counts": areas.counts, "variance": areas.variance}, _no_cost, {"areal": 1.0},
            per_view=("areal", "gain"), lines=tuple(found.values()), names=_named(found), areas=areas,
            exposure=exposure, table=table, words=tuple(words),
        )  # fmt: skip

    def stages(self, problem: Maps, settings: Settings, console: Console) -> Work:
        """Divide."""
        yield Stage("fluorescence: areal masses", _divided)

    def verdict(self, problem: Maps, scan: Scan, settings: Settings) -> tuple[dict[str, Any], list[str]]:
        """Say of every element how much there is, how well it is known, and its limits."""
        figures: dict[str, Any] = {"table": problem.table}
        lines, unit = list(problem.words), settings.result.units
        area = spot_area(scan, settings.beam, settings.sample)
        for channel, (name, line) in enumerate(zip(problem.names, problem.lines, strict=True)):
            found, words = _of_element(problem, channel, unit, area, _step_area(scan))
            if unit == "g/cm2" and settings.sample.composition is not None and found:
                found["mass_fraction"] = found["mean"] / areal_mass(settings.sample)
                words += f"; mean mass fraction in the slab {found['mass_fraction']:.4g}"
            figures[name] = found
            lines.append(f"{line.line}: {words}")
            if unit == "g/cm2" and line.escapes < 0.5:
                lines.append(
                    f"WARNING: only {line.escapes:.0%} of {line.line} leaves the slab; its mass is as uncertain as "
                    "thickness and composition are"
                )
        return figures, lines

    def quantities(self, problem: Maps, scan: Scan, settings: Settings) -> dict[str, Quantity]:
        """Give the areal mass of every element with its error bar; points without a value are NaN."""
        areal, bars = _results(problem)
        pixel = None if scan.pixel_size is None else float(np.mean(scan.pixel_size))
        unit, single = settings.result.units, scan.views == 1
        axes = ("y", "x") if single else ("view", "y", "x")
        what = "areal mass" if unit == "g/cm2" else "counts"
        shaped = lambda values: values[0] if single else values
        found = {
            name: Quantity(shaped(areal[..., c]), unit, axes, pixel, f"{what} of {name}", "element")
            for c, (name, line) in enumerate(zip(problem.names, problem.lines, strict=True))
        }
        found |= {
            f"{name}_error": Quantity(shaped(bars[..., c]), unit, axes, pixel, f"error bar of {line.line}", "data")
            for c, (name, line) in enumerate(zip(problem.names, problem.lines, strict=True))
        }
        if single:
            return found
        middle, first = areal.shape[1] // 2, problem.lines[0].line
        sinogram = Quantity(areal[:, middle, :, 0], unit, ("view", "x"), pixel, f"{what} of {first}", "image")
        return found | {"sinogram": sinogram}


# ---------------------------------------------------------------------------------------------------- solve
def _divided(problem: Maps, run: Run) -> Outcome:
    gain = np.asarray(problem.model.gain, float)
    areal = np.where(gain > 0, problem.data["counts"] / np.where(gain > 0, gain, 1), 0)
    model = problem.model.replace(areal=jnp.asarray(areal, jnp.float32))
    return Outcome(problem.replace(model=model), np.zeros(0))


def _results(problem: Maps) -> tuple[np.ndarray, np.ndarray]:
    """Areal masses and their error bars, NaN where there is no value."""
    gain = np.asarray(problem.model.gain, float)
    seen, safe = gain > 0, np.where(gain > 0, gain, 1)
    bars = np.sqrt(problem.data["variance"]) / safe
    return tuple(np.where(seen, v, np.nan).astype(np.float32) for v in (np.asarray(problem.model.areal), bars))  # pyright: ignore


def _no_cost(model: ElementMaps, batch: Any) -> Array:
    return jnp.zeros(())


def _named(found: dict[int, Sensitivity]) -> tuple[str, ...]:
    """Name every line after its element, and with its line where the element has several."""
    names: list[str] = []
    for sensitivity in found.values():
        line = sensitivity.line
        names.append(line.element if line.element not in names else f"{line.element}_{line.name}")
    return tuple(re.sub(r"\W+", "_", name) for name in names)


# ---------------------------------------------------------------------------------------------------- words
def spot_area(scan: Scan | None, beam: Beam, sample: Sample) -> float | None:
    """Area of the surface that one point lights [cm^2]: the beam's, longer where it grazes, else a step of the scan
    squared; `None` where neither is known."""
    high, wide = beam.height or beam.width, beam.width or beam.height
    return _step_area(scan) if high is None or wide is None else 1e4 * high * wide / float(np.sin(sample.incidence))


def _step_area(scan: Scan | None) -> float | None:
    steps = None if scan is None else scan.pixel_size
    return None if steps is None else 1e4 * float(np.prod(np.broadcast_to(steps, 2)))


def _of_element(
    problem: Maps, channel: int, unit: str, spot: float | None, step: float | None
) -> tuple[dict[str, float], str]:
    """Figures of one element, and the same in words."""
    areal, bars = (values[..., channel].astype(float) for values in _results(problem))
    assert problem.areas is not None
    gain, blank, how = np.asarray(problem.model.gain, float)[..., channel], problem.areas.blank, problem.areas.how
    blank = blank[..., channel]
    seen = gain > 0
    if not seen.any():
        return {}, "no point has a value"
    limit = DETECTION * float(np.median(blank[seen] / gain[seen]))
    figures = {
        "mean": float(areal[seen].mean()),
        "median_error": float(np.median(bars[seen])),
        "detection_limit": limit,
        "quantification_limit": limit * QUANTIFICATION / DETECTION,
        "above_detection_limit": float((areal[seen] > limit).mean()),
        "points": int(seen.sum()),
    }
    shown = "g/cm^2" if unit == "g/cm2" else unit
    shares = figures["above_detection_limit"], figures["quantification_limit"]
    words = [
        f"mean {figures['mean']:.4g} {shown}, error bar of a point {figures['median_error']:.2g} {shown}",
        f"limit of detection {limit:.2g} {shown}{how}, which {shares[0]:.0%} of the points exceed, of quantification "
        f"{shares[1]:.2g}",
    ]
    if unit == "g/cm2" and spot is not None:
        atoms = limit * spot / physics.molar_mass(problem.lines[channel].line.element) * physics.AVOGADRO
        figures |= {"detection_limit_grams": limit * spot, "detection_limit_atoms": atoms}
        figures |= {
            "quantification_limit_grams": figures["quantification_limit"] * spot,
            "quantification_limit_atoms": atoms * QUANTIFICATION / DETECTION,
        }
        words.append(f"detected in the spot of {spot * 1e8:.3g} um^2: {limit * spot:.2g} g, {atoms:.2g} atoms")
    if unit == "g/cm2" and step is not None:
        figures["mass"] = float(areal[seen].sum()) * step
        words.append(f"{figures['mass']:.4g} g in the map")
    return figures, "; ".join(words)
