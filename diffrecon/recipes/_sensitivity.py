"""How many counts an areal mass gives: photons of every point, production, detection and absorption of every line.

The choice of the table of lines is here for every method that counts fluorescence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import physics
from ..errors import InputError, MissingMetadata, MissingPackage
from ..models import LINE_TABLES, Line, detection_efficiency, emission_line, line_table, split_line
from ..scan import Scan
from ..settings import setting
from ._sample import Sample, areal_mass, slab_shares
from ._secondary import enhancements

_ODD_TABLE = 0.03  # of a K line, by which a file's production may differ from ours without a word


@dataclass(frozen=True)
class Tables:
    """Where numbers of lines come from."""

    lines: str = setting(
        "auto",
        "production of lines: the file's where it has one, else of xraylib where it is installed, else of xraydb with "
        "yields of Bambynek",
        choices=("auto", "file", "xraylib", "xraydb"),
    )


@dataclass(frozen=True)
class Beam:
    """The light."""

    monitor_per_photon: float | None = setting(
        None, "what the monitor counts for one photon; photons of a point = monitor / this", above=0
    )
    flux: float | None = setting(
        None, "photons a second at the mean monitor; photons of a point = flux times data.dwell", above=0
    )
    height: float | None = setting(
        None, "of the beam, for limits in grams and atoms; by default a step of the scan", unit="m", above=0
    )
    width: float | None = setting(None, "of the beam; by default its height", unit="m", above=0)


@dataclass(frozen=True)
class Detector:
    """What sees the lines."""

    solid_angle: float | None = setting(
        None, "[sr]; of a disc of area A at distance d about A / d^2", above=0, at_most=4 * np.pi
    )
    chip: float | None = setting(None, "thickness of the silicon; by default it absorbs every line", unit="m", above=0)
    filters: dict | None = setting(None, 'in front of it: {Be = "8 um", air = "5 mm", "C10H8O4, 1.4" = "6 um"}')
    sensitivity: dict | None = setting(
        None,
        'of a thin standard instead of a solid angle: {"Fe Ka" = 1.2e4} counts for 1 g/cm^2 and one photon (one unit '
        "of the monitor, one second or one point where photons are not known); other lines follow by production and "
        "detection",
    )


class Exposure(NamedTuple):
    """What every scan point was given.

    **Fields:** `amount` `(view, y, x)` in units of `unit` (`"photon"`, ...); `live` fraction; `words` that say so.
    """

    amount: np.ndarray
    live: np.ndarray
    unit: str
    words: tuple[str, ...]


class Sensitivity(NamedTuple):
    """What one line gives.

    **Fields:** `line`; `counts` for 1 g/cm^2 and one unit of exposure; `escapes`, share that the slab lets through.
    """

    line: Line
    counts: float
    escapes: float


# ---------------------------------------------------------------------------------------------------- exposure
def exposure_of(scan: Scan, beam: Beam, calibrated: bool, standard: bool) -> Exposure:
    """Photons, or what stands for them, and live fraction of every point.

    **Arguments:** `calibrated`: masses are wanted; `standard`: by a standard, which needs no photons.

    **Raises:** `InputError` where masses are wanted and photons are not known.
    """
    points, extra = tuple(scan.counts.shape[:3]), scan.extra
    monitor, dwell = (None if extra.get(n) is None else np.asarray(extra[n], float) for n in ("monitor", "dwell"))
    dwell = dwell if dwell is not None else None if extra.get("real_time") is None else np.asarray(extra["real_time"])
    if dwell is not None and not (np.isfinite(dwell) & (dwell > 0)).any():
        raise InputError(f"{scan.name}: the dwell, or real time, is nowhere above zero (data.dwell, data.real_time)")
    live, words = _live_fraction(scan, dwell)
    usual = lambda values: float(np.mean(values[np.isfinite(values) & (values > 0)]))
    relative = lambda values: values / usual(values)
    if monitor is not None and not (np.isfinite(monitor) & (monitor > 0)).any():
        raise InputError(f"{scan.name}: the monitor is nowhere above zero; name the right dataset (data.monitor)")
    if beam.flux is not None and beam.monitor_per_photon is not None:
        raise InputError("beam.flux and beam.monitor_per_photon say the same twice: give one of them")
    if beam.monitor_per_photon is not None:
        if monitor is None:
            raise InputError(f"{scan.name}: beam.monitor_per_photon needs a monitor: --set data.monitor=/path")
        return Exposure(monitor / beam.monitor_per_photon, live, "photon", (*words, "photons by the monitor"))
    if beam.flux is not None:
        if dwell is None:
            raise InputError(f'{scan.name}: beam.flux needs the time of a point: --set data.dwell="0.1 s" or /path')
        photons = beam.flux * (dwell if monitor is None else usual(dwell) * relative(monitor))
        said = "photons by flux and dwell" + ("" if monitor is None else ", shared out by the monitor")
        return Exposure(photons, live, "photon", (*words, said))
    if extra.get("photons") is not None:
        return Exposure(np.asarray(extra["photons"], float), live, "photon", (*words, "photons by the file's monitor"))
    if calibrated and not standard:
        raise InputError(
            f"{scan.name}: how many photons did a point get? Give --set beam.flux=1e9 (photons a second) with "
            "data.dwell, or --set beam.monitor_per_photon=... with data.monitor; or a standard (detector.sensitivity); "
            "--set result.units=counts writes corrected counts"
        )
    if monitor is not None:
        unit = "unit of the monitor" if standard else "point at the mean monitor"
        return Exposure(monitor if standard else relative(monitor), live, unit, (*words, "light by the monitor"))
    if dwell is not None and standard:
        return Exposure(dwell * np.ones(points), live, "second", (*words, "no monitor: light by the dwell"))
    return Exposure(np.ones(points), live, "point", (*words, "no monitor: every point is taken to get the same light"))


def _live_fraction(scan: Scan, real: np.ndarray | None) -> tuple[np.ndarray, tuple[str, ...]]:
    points, extra = tuple(scan.counts.shape[:3]), scan.extra
    if extra.get("live_fraction") is not None:
        fraction = np.asarray(extra["live_fraction"], float) * np.ones(points)
    elif extra.get("live_time") is None:
        return np.ones(points), ("no live time: counts are taken to be corrected for dead time",)
    elif real is None:
        raise InputError(f"{scan.name}: the live time needs the real time beside it: data.real_time or data.dwell")
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            fraction = np.asarray(extra["live_time"], float) / real * np.ones(points)
    if np.mean(fraction > 1.001) > 0.5:
        raise InputError(
            f"{scan.name}: the live time is longer than the real time ({np.nanmedian(fraction):.4g} times); are the "
            "two exchanged, or in different units?"
        )
    return fraction, (f"live for {100 * np.nanmedian(fraction):.3g} % of the time (median)",)


# ---------------------------------------------------------------------------------------------------- lines
def with_table(scan: Scan, source: str) -> tuple[Scan, list[str]]:
    """Put the chosen production of lines into the cross sections of a tomogram; say where the file's is odd.

    **Raises:** `InputError` for a file that does not say its own production, where another is chosen.
    """
    stated, tables = scan.extra.get("emission"), dict(scan.extra["cross_sections"])
    if stated is None:
        if source in ("auto", "file"):
            return scan, []
        raise InputError(f"{scan.name}: this layout does not say which lines were counted: tables.lines = file")
    try:
        lines, said = lines_of(scan, energy_of(scan), source if source in LINE_TABLES else "auto")
    except MissingPackage:
        if source in LINE_TABLES:
            raise
        return scan, []
    dark = [word.removeprefix("left out: ") for word in said if word.startswith("left out: ")]
    if dark:
        raise InputError(f"{scan.name}: {'; '.join(dark)}: is the energy of the beam wrong? --set geometry.energy=...")
    produced, table, words = file_production(scan, lines, source)
    if produced:
        return scan, words
    emission = np.array(tables["emission"], float)
    for channel, line in lines.items():
        column = tables["components"].index(line.element)
        seen = stated["solid_angle"] * stated["efficiency"][channel]
        emission[channel, column] = seen * float(line.production.sum())
    tables |= {"emission": emission, "table": f"lines: {table}; attenuation: {tables['table']}"}
    return scan.replace(extra={**scan.extra, "cross_sections": tables}), words


def lines_of(
    scan: Scan, energy: float, source: str, look_up: Callable[..., Line] = emission_line
) -> tuple[dict[int, Line], list[str]]:
    """Look up the line of every channel that is one of an element: by channel, and what is to be said.

    The production is the file's where that is the table chosen; none is looked up by `excited_line`.

    **Raises:** `InputError` where the beam excites none of them.
    """
    names, found, words = tuple(scan.extra["lines"]), {}, []
    table = line_table("auto" if source == "file" else source)
    for channel, name in enumerate(names):
        if split_line(name) is None:
            words.append(f"{name}: no line of an element, left out")
            continue
        try:
            found[channel] = look_up(name, energy, table)
        except MissingPackage:
            raise
        except InputError as error:
            words.append(f"left out: {error}")
    if not found:
        raise InputError(f"{scan.name}: no line is left: {'; '.join(words)}")
    said = lambda c, line: str(line) if names[c] == str(line) else f"{names[c]} (taken as {line})"
    words.append("; ".join(f"{said(c, line)} {_kilo(line)} keV" for c, line in found.items()))
    return found, words


def _kilo(line: Line) -> str:
    return ", ".join(f"{e / 1e3:.2f}" for e in line.energies)


def file_production(scan: Scan, lines: Mapping[int, Line], source: str) -> tuple[dict[int, float], str, list[str]]:
    """Give the file's production of the lines where it is to be used, the name of the table used, and warnings.

    **Raises:** `InputError` where the file's is asked for and there is none.
    """
    stated = scan.extra.get("emission") or {}
    written = np.asarray(stated["production"], float) if stated else np.full(scan.counts.shape[-1], np.nan)
    said = {c: float(written[c]) for c in lines if np.isfinite(written[c])}
    ours = LINE_TABLES[next(iter(lines.values())).table]
    if source == "file" and len(said) < len(lines):
        lacks = next(line for c, line in lines.items() if c not in said)
        raise InputError(f"{scan.name}: the file says no production of {lacks}; choose tables.lines = auto")
    if source not in ("auto", "file") or len(said) < len(lines):
        return {}, ours, []
    ratios = [(line, said[c] / float(line.production.sum())) for c, line in lines.items() if line.name[0] == "K"]
    odd = ", ".join(f"{line} {r:.3g}" for line, r in ratios if abs(r - 1) > _ODD_TABLE)
    words = [
        f"WARNING: the file's production of lines is not that of {ours.partition(' ')[0]} but so many times it: {odd}; "
        "masses are off by as much where the file's table is wrong, as Elam's yields are (tables.lines = xraylib, or "
        "xraydb)"
    ] if odd else []  # fmt: skip
    return said, str(stated.get("table", "the file's")), words


def sensitivities(
    scan: Scan, lines: Mapping[int, Line], produced: Mapping[int, float], detector: Detector, sample: Sample
) -> tuple[dict[int, Sensitivity], list[str]]:
    """Counts for 1 g/cm^2 of surface and one unit of exposure, of every line.

    **Raises:** `InputError` where neither solid angle nor standard is known, or the slab is not told whole.
    """
    stated, words = scan.extra.get("emission") or {}, []
    found: dict[int, Sensitivity] = {}
    leaves = [slab_shares(line, energy_of(scan), sample) for line in lines.values()]
    excited, said_of = enhancements(list(lines.values()), energy_of(scan), sample)
    for (channel, line), share, more in zip(lines.items(), leaves, excited, strict=True):
        parts = line.production * _detected(stated, channel, line, detector)
        if not parts.sum() > 0:
            raise InputError(f"{scan.name}: nothing of {line} is detected; look at detector.filters and detector.chip")
        if channel in produced and not produced[channel] > 0:
            raise InputError(
                f"{scan.name}: the file's production of {line} is {produced[channel]:g}: tables.lines = xraydb"
            )
        if channel in produced:
            parts = parts * produced[channel] / line.production.sum()
        escapes = more * share
        oblique = 1 / np.sin(sample.incidence)
        found[channel] = Sensitivity(line, float(parts @ escapes) * oblique, float(parts @ escapes / parts.sum()))
    scale, said = _scale(scan, found, detector)
    if sample.composition is not None:
        shares = ", ".join(f"{s.line} {s.escapes:.3g}" for s in found.values())
        words.append(f"slab of {1e3 * areal_mass(sample):.4g} mg/cm^2 lets through: {shares}")
    words += said_of
    if not stated and detector.chip is None and detector.filters is None and detector.sensitivity is None:
        words.append("every photon that meets the detector is taken to be counted (detector.chip, detector.filters)")
    return {c: s._replace(counts=s.counts * scale) for c, s in found.items()}, [said, *words]


def _detected(stated: Mapping[str, Any], channel: int, line: Line, detector: Detector) -> np.ndarray:
    """Share of the photons of each part of a line that is counted once it meets the detector."""
    if detector.chip is None and detector.filters is None:
        known = float(stated["efficiency"][channel]) if stated else np.nan
        return np.full(len(line.energies), known if np.isfinite(known) else 1.0)
    filters = {}
    for what, thickness in (detector.filters or {}).items():
        filters[what] = physics.quantity(thickness, "m", f"detector.filters: {what}")
        if not 0 <= filters[what] < 3:
            raise InputError(f'detector.filters: {what} of {filters[what]:g} m; give it with its unit, as "8 um"')
    return detection_efficiency(line.energies, detector.chip, filters)


def energy_of(scan: Scan) -> float:
    """Give the energy [eV] of the beam.

    **Raises:** `MissingMetadata` where it is not known; `InputError` for several.
    """
    energy = None if scan.geometry is None else scan.geometry.energy
    if energy is None:
        raise MissingMetadata("geometry.energy", "the energy of the beam", scan.name, "17 keV")
    if np.size(energy) != 1:
        raise InputError(f"{scan.name}: {np.size(energy)} energies; a map is of one (geometry.energy)")
    return float(np.ravel(energy)[0])


def _scale(scan: Scan, found: Mapping[int, Sensitivity], detector: Detector) -> tuple[float, str]:
    """Find what turns production times detection into counts: the share of the sphere, or what standards say."""
    stated = scan.extra.get("emission") or {}
    if detector.sensitivity:
        ratios = []
        for name, value in detector.sensitivity.items():
            said = split_line(name)
            match = [s for s in found.values() if said and s.line.element == said[0] and said[1] in ("", s.line.name)]
            if not match or not float(value) > 0:
                have = ", ".join(str(s.line) for s in found.values())
                raise InputError(f"detector.sensitivity: {name} = {value!r}: give a positive number for one of {have}")
            thin = match[0].counts / match[0].escapes  # a standard is a thin film
            ratios.append(float(value) / thin)
        spread = "" if len(ratios) < 2 else f", which differ by {np.ptp(ratios) / np.mean(ratios):.1%} from the table"
        return float(np.mean(ratios)), f"sensitivity by {len(ratios)} standard{'s' * (len(ratios) > 1)}{spread}"
    if detector.solid_angle is not None:
        alive, whole = scan.extra.get("detector_elements", (1, 1))
        said = f" of {whole} elements, {alive} of which count" if alive < whole else ""
        return detector.solid_angle * alive / whole / (4 * np.pi), f"solid angle {detector.solid_angle:.4g} sr{said}"
    if stated.get("solid_angle") is not None:
        return float(
            stated["solid_angle"]
        ), f"solid angle {4 * np.pi * float(stated['solid_angle']):.4g} sr (the file's)"
    raise InputError(
        f"{scan.name}: how much does the detector see? Give --set detector.solid_angle=0.3 (sr), or what a standard "
        "gives (detector.sensitivity); --set result.units=counts writes corrected counts"
    )
