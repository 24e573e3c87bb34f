"""What `inspect` shows of a powder scan: its mean pattern, the phases that explain it, and rings that none explains."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._result import Quantity, Result
from ..errors import InputError
from ..frames import spread
from ..operators import Bins
from ..scan import Scan
from ..settings import build
from ._powder_peaks import first_peaks, phase_parts, with_axes
from ._powder_rings import Rings, patterns_of, phases_of
from ._powder_settings import Looked
from .looks import DiffractionTomography

_FRAMES = 60  # of a long scan that are looked at
_SIGMAS, _SHARE, _BESIDE = 6.0, 0.02, 0.3  # a ring is above its noise, the strongest, and what phases have there
_MOST = 6  # rings that are named


def mean_pattern(scan: Scan, given: Mapping[str, Any]) -> Result:
    """Explain the mean pattern by the phases of file or settings, as a result that can be drawn.

    **Raises:** `InputError` where energy, geometry or phases are missing or wrong.
    """
    settings = build(Looked, given, DiffractionTomography.name)
    file = dict(scan.extra.get("powder", {}))
    wavelength = None if scan.geometry is None else scan.geometry.wavelength
    if wavelength is None:
        raise InputError(f'{scan.name}: the rings of phases need the energy: --set geometry.energy="30 keV"')
    data, _ = patterns_of(*_some(scan, file), settings.integration, Bins.of)
    rules = settings.model
    phases = with_axes(phases_of(rules.phases, file, scan, float(data.two_theta[-1])), rules.c_change or {})
    setup = Rings(data, float(wavelength), phases, largest=rules.lattice_change)
    setup = first_peaks(setup, file.get("amorphous") if rules.amorphous else None, rules.amorphous)
    mean, parts = setup.mean_pattern(), phase_parts(setup)
    fitted = sum(parts.values())
    curve = lambda values, text, kind="data": Quantity(values, "1/sr", ("two_theta",), None, text, kind)
    found = {
        "mean_pattern": curve(mean, "mean pattern", "pattern"),
        "fitted_pattern": curve(fitted, "sum of the phases"),
    }
    found |= {f"{name}_pattern": curve(part, name, "phase_pattern") for name, part in parts.items() if name in phases}
    found["reflections"] = Quantity(setup.reflections(), "", ("ring", "phase_and_degree"), None, "reflections", "data")
    found["two_theta"] = Quantity(np.degrees(data.two_theta), "deg", ("two_theta",), None, "scattering angle", "data")
    return Result(DiffractionTomography.name, found, {}, tuple(_words(setup, mean, parts)))


def _some(scan: Scan, file: dict[str, Any]) -> tuple[Scan, dict[str, Any]]:
    """Some frames of many, as a grid of one view, with their light; patterns as they are."""
    if "two_theta" in file or "two_theta" in scan.extra:
        return scan, file
    chosen = spread(scan.views, _FRAMES)
    extra = dict(scan.extra)
    for place in (file, extra):
        if "monitor" in place and np.size(place["monitor"]) == scan.views:
            place["monitor"] = np.ravel(place["monitor"])[chosen][None]
    file |= {"grid": (1, len(chosen))}
    return scan.replace(counts=np.asarray(scan.counts[chosen]), angles=None, extra=extra), file


def _words(setup: Rings, mean: np.ndarray, parts: Mapping[str, np.ndarray]) -> list[str]:
    sharp = {name: float(parts[name].sum()) for name in setup.phases}
    total = sum(sharp.values())
    rings = _unexplained(setup, mean, parts)
    said = []
    if total > 0:
        shares = sorted(sharp.items(), key=lambda item: -item[1])
        said.append("rings of " + ", ".join(f"{name} {share / total:.0%}" for name, share in shares))
    elif not sharp:
        said.append('no phase is known: name them in model.phases={ceria = "CeO2.cif"}')
    if rings:
        places = ", ".join(f"{angle:.2f} (d {spacing:.3f} A)" for angle, spacing in rings)
        said.append(f"rings that no phase explains, in degrees: {places}")
    elif total > 0:
        said.append("every ring in the mean pattern belongs to a phase")
    return said


def _unexplained(setup: Rings, mean: np.ndarray, parts: Mapping[str, np.ndarray]) -> list[tuple[float, float]]:
    """Angle [degree] and spacing [angstrom] of the strongest rings that are left, in the order of their angle."""
    data, width = setup.data, max(int(setup.peaks.width / np.diff(setup.data.two_theta).mean()), 1)
    light = data.light.sum((0, 1))
    counts = np.maximum(data.counts.sum((0, 1), dtype=float), 1)
    noise = np.where(light > 0, np.sqrt(counts) / np.where(light > 0, light, 1), np.inf)
    fitted = sum(parts.values())
    left = np.convolve(np.nan_to_num(mean - fitted), np.ones(width) / width, "same")
    strongest = float(np.nanmax(mean - parts[""]))
    near = lambda i, values: values[max(i - 2 * width, 0) : i + 2 * width + 1]
    peaks = [i for i in range(width, len(left) - width) if left[i] == near(i, left).max()]
    known = fitted - parts[""]
    least = lambda i: max(_SIGMAS * noise[i] / np.sqrt(width), _SHARE * strongest, _BESIDE * near(i, known).max())
    ring = [i for i in peaks if left[i] > least(i)]
    ring = sorted(sorted(ring, key=lambda i: -left[i])[:_MOST])
    spacing = lambda angle: setup.wavelength * 1e10 / (2 * np.sin(angle / 2))
    return [(float(np.degrees(a)), float(spacing(a))) for a in data.two_theta[ring]]
