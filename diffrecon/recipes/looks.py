"""What the methods of the package need of a scan, and what they find odd about one: what `inspect` shows.

A recipe is its look and the rest. Looks import no jax, so that an inspection is over before jax would be imported.
"""

from typing import Any

import numpy as np

from .. import prepare
from .._look import REGISTERED, Look
from ..errors import InputError
from ..scan import Scan
from ._monitor import monitor_at
from ._scan_facts import wave_number
from ._stepping import planned_steps

_ANGLES = ("the rotation angle of each view", "/path/of/angles")
_POSITIONS = ("positions of the views", "/path/of/positions")
_GEOMETRY = ("the geometry (energy, distances)", "a file with geometry")
_DISPLACED = ("flats", "darks", "mask", "saturation", "reference")  # used of a displaced pattern
_STEPS = ("steps", "reference_steps")

SAY_ENERGIES = '--set \'model.energies=["8.25 keV", "8.42 keV"]\''
TWO_BEAMS = "data.flux is not used: the flats say how bright the empty beam is"
NO_BEAM = (
    "k-edge needs the empty beam of every energy: data.flats, or data.flux in counts a pixel, one number or one a view"
)


# ---------------------------------------------------------------------------------------------------- tomography
class Tomography(Look):
    """Of tomography."""

    name, needs = "tomography", {"angles": _ANGLES}
    wishes = ("flats", "darks")
    uses = ("flats", "darks", "mask", "flat_views", "dark_views", "monitor", "shifts", "sample_translation", "times")

    def look_at(self, scan: Scan) -> list[str]:
        """Refuse frames that flats and darks cannot correct."""
        prepare.References.from_scan(scan, "auto")
        return super().look_at(scan)


class Laminography(Look):
    """Of laminography."""

    name, needs = "laminography", {"angles": _ANGLES}
    uses = ("flats", "darks", "mask", "flat_views", "dark_views", "monitor")


class DiffractionTomography(Look):
    """Of powder diffraction tomography."""

    name, needs = "diffraction-tomography", {"angles": _ANGLES}
    uses = ("mask", "monitor", "times")


class FluorescenceTomography(Look):
    """Of fluorescence tomography."""

    name, needs = "fluorescence-tomography", {"angles": _ANGLES}
    uses = ("transmission", "saturation")

    def recognises(self, scan: Scan) -> bool:
        """Tell by the cross sections."""
        return "cross_sections" in scan.extra and scan.angles is not None


class TensorSaxs(Look):
    """Of tensor SAXS."""

    name, uses, wishes = "saxs-tensor-tomography", ("weights",), ("transmission",)


# ---------------------------------------------------------------------------------------------------- near field
class Holography(Look):
    """Of holography."""

    name, needs = "holography", {"geometry": _GEOMETRY}
    wishes = ("flux",)
    uses = ("flats", "darks", "mask", "flux", "flat_views", "shifts")


class Holotomography(Look):
    """Of holotomography."""

    name, needs = "holotomography", {"geometry": _GEOMETRY, "angles": _ANGLES}
    uses = ("flats", "darks", "mask", "flux", "shifts")


# ---------------------------------------------------------------------------------------------------- ptychography
class NearFieldPtychography(Look):
    """Of ptychography in the near field."""

    name, needs = "near-field-ptychography", {"positions": _POSITIONS}
    uses = ("darks", "mask", "probe", "saturation", "flats")

    def look_at(self, scan: Scan) -> list[str]:
        """Say which frames and pixels will be left out."""
        return [*super().look_at(scan), *prepare.check_frames(scan).messages]


class FarFieldPtychography(NearFieldPtychography):
    """Of ptychography in the far field."""

    name, uses = "far-field-ptychography", ("darks", "mask", "probe", "saturation")


class Cdi(Look):
    """Of coherent diffraction imaging."""

    name, uses = "cdi", ("mask",)


class PtychoTomography(Look):
    """Of ptycho-tomography."""

    name, uses = "ptycho-tomography", ("darks", "mask", "probe", "flats")
    needs = {"positions": ("the position of each view", "/path/of/positions"), "angles": _ANGLES}


class FluorescencePtychography(NearFieldPtychography):
    """Of fluorescence and ptychography at once."""

    needs = {"positions": _POSITIONS, "pixel_size": ("the pixel of the object", "12 nm")}
    name, uses = "fluorescence-ptychography", ("darks", "mask", "probe", "monitor")

    def recognises(self, scan: Scan) -> bool:
        """Tell by the counts of elements beside frames."""
        return "element_counts" in scan.extra

    def look_at(self, scan: Scan) -> list[str]:
        """Say which frames and counts will be left out."""
        lines = super().look_at(scan)
        elements_of(scan)
        return [*lines, *counted(scan)[1]]


def elements_of(scan: Scan) -> dict[str, Any]:
    table = scan.extra.get("elements")
    if table is None or "element_counts" not in scan.extra:
        raise InputError(
            f"{scan.name}: no counts of elements beside the frames (xrf/counts); -m far-field-ptychography needs none"
        )
    return dict(table)


def counted(scan: Scan) -> tuple[dict[str, np.ndarray], list[str]]:
    """Counts (view, element) where something was counted, and what is left out, in words."""
    names = elements_of(scan)["names"]
    counts = np.asarray(scan.extra["element_counts"], float)
    if counts.shape != (scan.views, len(names)):
        raise InputError(
            f"{scan.name}: counts of elements have shape {counts.shape}, expected {(scan.views, len(names))}: one for "
            "each view and element"
        )
    if scan.window is not None:
        raise InputError(
            f"{scan.name}: a part of far-field frames, or binned ones, has another pixel than the positions of the "
            "file: leave data.region, rows, columns and binning out"
        )
    seen, lines = np.isfinite(counts) & (counts >= 0), []
    for column, name in enumerate(names):
        lacking = int(np.sum(~seen[:, column]))
        if lacking == scan.views:
            raise InputError(
                f"{scan.name}: {name} has no count in any view (NaN or negative); leave it out of the file"
            )
        if lacking:
            lines.append(
                f"{name}: {lacking} of {scan.views} views without a count (NaN or negative) give their frame only"
            )
    monitor = scan.extra.get("monitor")
    if monitor is not None:
        monitor_at(scan, monitor, (scan.views,))
    return {"counts": np.where(seen, counts, 0).astype(np.float32), "seen": seen}, lines


# ---------------------------------------------------------------------------------------------------- maps and others
class FluorescenceMap(Look):
    """Of fluorescence maps."""

    name, uses = "fluorescence-map", ("saturation", "monitor", "live_time", "real_time", "dwell")

    def look_at(self, scan: Scan) -> list[str]:
        """Say which lines are not excited, which points are left out, and what masses still need."""
        from ..models import excited_line
        from ._map_points import areas_of, check_lines
        from ._sensitivity import energy_of, lines_of
        from ._spectra import odd_axis

        check_lines(scan)
        if not scan.extra["lines"]:
            return ["lines to fit: spectrum.elements, or data.fit_configuration", *odd_axis(scan, energy_of(scan))]
        lines, words = lines_of(scan, energy_of(scan), "auto", excited_line)
        words = [w for w in words if "left out" in w] + list(
            areas_of(scan, lines, np.ones(scan.counts.shape[:3])).words
        )
        if scan.extra.get("photons") is None:
            words.append("photons of a point: beam.flux with data.dwell, or beam.monitor_per_photon with data.monitor")
        if (scan.extra.get("emission") or {}).get("solid_angle") is None:
            words.append("what the detector sees: detector.solid_angle [sr], or a standard (detector.sensitivity)")
        return words


class Stxm(Look):
    """Of scanning transmission."""

    name = "stxm"
    uses = ("flats", "darks", "mask", "flux", "monitor", "transmission", "moments_y", "moments_x", "quadrants")

    def look_at(self, scan: Scan) -> list[str]:
        """Refuse scans whose points or monitor do not fit."""
        from ._scan_points import points_of

        points_of(scan)
        return super().look_at(scan)


class AzimuthalIntegration(Look):
    """Of azimuthal integration."""

    name, uses = "azimuthal-integration", ("mask", "monitor")


class Speckle(Look):
    """Of speckle imaging."""

    name, uses = "speckle", _DISPLACED


class Grating(Look):
    """Of gratings."""

    name, uses = "grating", (*_DISPLACED, *_STEPS)


class EdgeIllumination(Look):
    """Of edge illumination."""

    name, uses = "edge-illumination", (*_DISPLACED, *_STEPS)


class Analyser(Look):
    """Of analyser crystals."""

    name, uses = "analyser", (*_DISPLACED, *_STEPS)


class Interferometer(Look):
    """Of crystal interferometers."""

    name, uses = "interferometer", (*_DISPLACED, *_STEPS)

    def look_at(self, scan: Scan) -> list[str]:
        """Refuse scans without pixel, energy, or three steps."""
        wave_number(scan)
        if not at_angles(scan):
            planned_steps(scan, scan.views, "steps")
        return super().look_at(scan)


class KEdge(Look):
    """Of K-edge subtraction."""

    name, uses = "k-edge", ("flats", "darks", "mask", "flux")
    asks = {"model.materials": ("what is in the beam", '["Ni", "SiO2"]')}

    def look_at(self, scan: Scan) -> list[str]:
        """Say what of energies and empty beam is missing; which setting names them."""
        lines, stored = super().look_at(scan), None if scan.geometry is None else scan.geometry.energy
        if (stored is None or np.size(stored) != scan.views) and not at_angles(scan):
            lines.append(f"the energy of every view is asked for: {SAY_ENERGIES}")
        return lines if scan.flats is not None or scan.flux is not None else [*lines, NO_BEAM]


def at_angles(scan: Scan) -> bool:
    """Tell tomograms from radiographs."""
    return scan.angles is not None and bool(np.ptp(scan.angles) > 0)


_OF_THE_PACKAGE = (
    NearFieldPtychography, FarFieldPtychography, Tomography, Holography, Holotomography, Laminography, KEdge,
    AzimuthalIntegration, DiffractionTomography, FluorescenceTomography, FluorescenceMap, FluorescencePtychography, Cdi,
    PtychoTomography, Speckle, Grating, EdgeIllumination, Analyser, Interferometer, Stxm, TensorSaxs,
)  # fmt: skip
LOOKS = {look.name: look for look in _OF_THE_PACKAGE}


def look_of(name: str) -> Look:
    """Give what a method says of a scan; the package's own methods are not loaded for it.

    **Raises:** `InputError` for an unknown method.
    """
    if name in LOOKS and isinstance(REGISTERED.get(name), str):
        return LOOKS[name]()
    from ..modality import find

    return find(name)
