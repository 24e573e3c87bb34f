"""Secondary excitation: lines of a slab that excite others in it, by fisx where it is installed."""

import functools
import importlib.util
from typing import Any

import numpy as np

from .._optional import require
from ..errors import InputError
from ..models import Line, emission_line, mass_fractions
from ._sample import Sample, areal_mass, layers_of

_LEAST = 0.01  # share of an element in the slab, below which it is not asked for


def enhancement(line: Line, energy: float, sample: Sample) -> float:
    """Total over primary excitation of a line spread evenly in the slab, by fisx.

    **Raises:** `MissingPackage` without fisx.

    **Source:** T. Schoonjans and V. A. Sole, fisx; Mantler, X-Ray Spectrom. 15, 263 (1986).
    """
    assert sample.composition is not None and sample.takeoff is not None
    stack: list[tuple[Any, float, float]] = [
        (one.material, one.density, one.thickness) for one in layers_of(sample.window, "window")
    ]
    place = len(stack)
    stack.append((sample.composition, 1.0, areal_mass(sample)))  # only density times thickness counts
    stack += [(one.material, one.density, one.thickness) for one in layers_of(sample.support, "support")]
    layers = tuple((tuple(sorted(mass_fractions(what).items())), *numbers) for what, *numbers in stack)
    angles = float(np.degrees(sample.incidence)), float(np.degrees(sample.takeoff))
    family = line.name if len(line.name) == 1 else line.name[:1]
    return _enhancement(f"{line.element} {family}", energy / 1e3, layers, place, angles)


@functools.cache
def _enhancement(family: str, energy: float, layers: tuple, place: int, angles: tuple[float, float]) -> float:
    fisx, elements = require("fisx", "fluorescence"), _elements()
    stack = []
    for number, (fractions, density, thickness) in enumerate(layers):
        name = f"layer {number} of diffrecon"
        material = fisx.Material(name, density, thickness)
        material.setComposition(dict(fractions))
        elements.addMaterial(material, 0)
        stack.append([name, density, thickness])
    beam = fisx.XRF()
    beam.setBeam(energy)
    beam.setSample(stack)
    beam.setGeometry(*angles)
    lines = beam.getMultilayerFluorescence([family], elements, secondary=1)[family][place].values()
    primary = sum(one["primary"] for one in lines)
    return 1.0 if not primary > 0 else 1 + sum(one["secondary"] for one in lines) / primary


@functools.cache
def _elements() -> Any:
    elements = require("fisx", "fluorescence").Elements()
    elements.initializeAsPyMca()
    return elements


def enhancements(lines: list[Line], energy: float, sample: Sample) -> tuple[list[float], list[str]]:
    """Total over primary excitation of every line, and what is to be said; ones where it is not computed.

    **Raises:** `MissingPackage` where it is asked for without fisx; `InputError` for a detector behind the slab.
    """
    ones = [1.0] * len(lines)
    if sample.composition is None or sample.secondary == "off":
        return ones, []
    installed = bool(importlib.util.find_spec("fisx"))
    behind = sample.takeoff is not None and sample.takeoff < 0
    if sample.secondary == "on" and behind:
        raise InputError("sample.secondary = on is for a detector on the beam's side of the slab, not behind it")
    if sample.secondary == "on" or (installed and not behind):
        found = [enhancement(line, energy, sample) for line in lines]
        much = ", ".join(f"{line} {f:.3f}" for line, f in zip(lines, found, strict=True) if f > 1.005)
        said = f"secondary excitation multiplies: {much}" if much else "secondary excitation adds less than 0.5 %"
        return found, [f"{said} (fisx)"]
    return ones, [word for line in lines if (word := _warning(line, energy, sample, behind))]


def _warning(line: Line, energy: float, sample: Sample, behind: bool) -> str:
    """Say so where elements of the slab send out lines that excite this one."""
    assert sample.composition is not None
    around = [*layers_of(sample.window, "window"), *layers_of(sample.support, "support")]
    shares = dict(mass_fractions(sample.composition))
    for layer in around:
        for element, share in mass_fractions(layer.material).items():
            shares[element] = max(share, shares.get(element, 0.0))
    edge = max(line.energies) * 1.08  # an absorption edge lies above its lines
    causes = []
    for element, share in shares.items():
        if share < _LEAST or element == line.element:
            continue
        try:
            sent = emission_line(element, energy, line.table)
        except InputError:
            continue
        if max(sent.energies) > edge and max(sent.energies) < 4 * edge and share > _LEAST:
            causes.append(element)
    if not causes:
        return ""
    why = "it is not computed behind a slab" if behind else 'pip install "diffrecon[fluorescence]" computes it'
    return (
        f"WARNING: lines of {', '.join(causes)} in the specimen excite {line.element}, too: without this its mass "
        f"comes out too large, by up to half; {why}"
    )
