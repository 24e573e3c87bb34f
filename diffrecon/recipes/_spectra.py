"""From spectra of a raster to areas of lines: the energy axis checked, then PyMca's fit."""

from dataclasses import dataclass

import numpy as np

from .. import prepare
from ..errors import InputError
from ..frames import at_ceiling
from ..models import emission_line
from ..scan import Scan
from ..settings import setting

_OFF = 0.006  # of the beam's energy, by which the elastic peak may be off without a word


@dataclass(frozen=True)
class Spectrum:
    """How spectra become areas of lines."""

    elements: tuple[str, ...] | str | None = setting(
        None, 'lines to fit, as PyMca groups them: ["Ca", "Fe K", "Pb L3"]; "Ca" is the deepest family excited'
    )
    zero: float | None = setting(None, "energy of channel 0, instead of the file's", unit="eV")
    gain: float | None = setting(None, "energy from channel to channel, instead of the file's", unit="eV", above=0)
    check: bool = setting(True, "refuse an energy axis that the elastic peak of the beam contradicts")


def fitted(scan: Scan, rules: Spectrum, energy: float) -> tuple[Scan, list[str]]:
    """Make the scan of areas of lines from a scan of spectra, and say what was found.

    **Raises:** `InputError` for spectra without an energy axis, or with one that cannot be true.
    """
    spectra, configuration = np.asarray(scan.counts), scan.extra.get("fit_configuration")
    names, energies = _lines(scan, rules, energy, configuration)
    total = np.nansum(np.maximum(spectra, 0), (0, 1, 2), dtype=float)
    zero, gain, words = _axis(scan, rules, energy, energies, total)
    channels, angle = np.arange(total.size), None
    if configuration is None:
        found = prepare.check_energy_axis(total, zero + gain * channels, energy, energies)
        words += _judged(scan, rules, energy, found, zero, gain)
        angle = found.angle
    fit = prepare.fit_spectra(
        spectra, names, energy, zero=zero, gain=gain, lowest=float(energies.min()), angle=angle,
        configuration=configuration,
    )  # fmt: skip
    if configuration is not None:
        zero, gain = fit.zero, fit.gain
        found = prepare.check_energy_axis(total, zero + gain * channels, energy, energies)
        words += _judged(scan, rules, energy, found, zero, gain)
    words.append(
        f"spectra fitted by PyMca: {', '.join(fit.lines)}; zero {fit.zero:.0f} eV, gain {fit.gain:.3f} eV a channel, "
        f"lines {fit.width:.0f} eV wide at 5.9 keV"
    )
    noise = prepare.counting_noise(spectra)
    if noise < 1:
        words.append(
            f"values scatter as means of {1 / noise:.0f} counts do: error bars are {np.sqrt(noise):.2g} times those of "
            "counts"
        )
    bad = ~np.isfinite(spectra).all(-1, keepdims=True) | (spectra < 0).any(-1, keepdims=True)
    if (full := at_ceiling(spectra)).any():
        words.append(f"{int(full.any(-1).sum())} spectra are left out: channels at the largest {spectra.dtype}")
        bad |= full.any(-1, keepdims=True)
    extra = {**scan.extra, "lines": fit.lines, "area_errors": np.sqrt(noise) * fit.errors}
    extra |= {"area_backgrounds": noise * fit.blanks, "count_size": noise}
    return scan.replace(counts=np.where(bad, np.nan, fit.areas), extra=extra), words


def odd_axis(scan: Scan, energy: float) -> list[str]:
    """Say so where the elastic peak contradicts the file's energies of the channels; what `inspect` shows."""
    if "channel_energy" not in scan.extra:
        return ["energies of the channels: data.channel_energy, or spectrum.zero and spectrum.gain"]
    total = np.nansum(np.maximum(np.asarray(scan.counts), 0), (0, 1, 2), dtype=float)
    found = prepare.check_energy_axis(total, np.asarray(scan.extra["channel_energy"]), energy, np.zeros(0))
    if found.good is not False or found.elastic is None:
        return []
    return [
        f"the energy axis seems to be wrong: the last strong peak stands at {found.elastic / 1e3:.2f} keV, the elastic "
        f"peak of the beam belongs to {energy / 1e3:.5g} keV (times {found.factor:.4g})"
    ]


def _lines(scan: Scan, rules: Spectrum, energy: float, configuration: str | None) -> tuple[list[str], np.ndarray]:
    """Name the lines to fit, and the energy of the strongest part of each."""
    said = rules.elements
    if configuration is not None:
        if said is not None:
            raise InputError("spectrum.elements and data.fit_configuration both name lines: give one of them")
        return [], np.array([energy])
    if said is None:
        raise InputError(f'{scan.name}: which elements are in the spectra? --set \'spectrum.elements=["Ca", "Fe"]\'')
    said = [part.strip() for part in said.split(",")] if isinstance(said, str) else list(said)
    found = [emission_line(name, energy) for name in said]
    return [str(line) for line in found], np.array([line.energies[np.argmax(line.production)] for line in found])


def _axis(
    scan: Scan, rules: Spectrum, energy: float, lines: np.ndarray, total: np.ndarray
) -> tuple[float, float, list[str]]:
    """Zero and gain [eV] of the channels; of a configuration of PyMca they are its own."""
    stored = scan.extra.get("channel_energy")
    if scan.extra.get("fit_configuration") is not None:
        if rules.gain is not None or rules.zero is not None:
            raise InputError(
                "data.fit_configuration has the energies of the channels: leave spectrum.gain and zero out"
            )
        return 0.0, 1.0, []
    if rules.gain is not None:
        return rules.zero or 0.0, rules.gain, [] if stored is None else ["spectrum.gain instead of the file's energies"]
    if stored is not None:
        stored = np.asarray(stored, float)
        gain, zero = np.polyfit(np.arange(stored.size), stored, 1)
        bent = float(np.abs(stored - zero - gain * np.arange(stored.size)).max())
        words = [] if bent < gain else [f"energies of channels are no straight line (by up to {bent:.0f} eV)"]
        return (float(zero) if rules.zero is None else rules.zero), float(gain), words
    guess = 1.5 * energy / total.size
    found = prepare.check_energy_axis(total, guess * np.arange(total.size), energy, lines)
    likely = "" if found.elastic is None or (found.asked and not found.lines) else (
        f"; if channel {found.elastic / guess:.0f} is the elastic peak and channel 0 is 0 eV, "
        f"--set spectrum.gain={energy / found.elastic * guess:.4g} ({found.lines} of {found.asked} lines agree)"
    )  # fmt: skip
    raise InputError(
        f"{scan.name}: the spectra have no energy axis: --set data.channel_energy=/path, or spectrum.zero and "
        f"spectrum.gain in eV{likely}"
    )


def _judged(
    scan: Scan, rules: Spectrum, energy: float, found: prepare.EnergyAxis, zero: float, gain: float
) -> list[str]:
    """Say how the axis agrees with the elastic peak.

    **Raises:** `InputError` where it cannot be true.
    """
    kilo = energy / 1e3
    if found.good is None or found.elastic is None:
        return [f"WARNING: no elastic peak of {kilo:.5g} keV is seen: the energy axis is not checked by it"]
    if found.good:
        off = found.elastic / energy - 1
        words = f"elastic peak at {found.elastic / 1e3:.2f} keV ({kilo:.5g} expected)"
        words += "" if found.angle is None else f", Compton peak as at {found.angle:.0f} degrees"
        much = abs(off) > _OFF
        return [f"{words}: the energy axis is {f'{off:+.1%} off there, which the fit mends' if much else 'right'}"]
    said = (
        f"the energy axis cannot be true: the elastic peak of the {kilo:.5g} keV beam stands at "
        f"{found.elastic / 1e3:.2f} keV on it; times {found.factor:.4g} it is right"
        + (f", and {found.lines} of {found.asked} lines are where they belong" if found.asked else "")
    )
    if rules.check:
        raise InputError(
            f"{scan.name}: {said}: --set spectrum.gain={gain * found.factor:.5g} "
            f"--set spectrum.zero={zero * found.factor:.4g} (eV), or spectrum.check=false"
        )
    return [f"WARNING: {said}"]
