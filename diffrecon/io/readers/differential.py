"""Differential phase contrast: stacks `reference` and `sample` at the root, and the setup in the file's attributes.

Frames of many angles have one angle a frame in `angles`, or one each of frames (angle, position, y, x).

A layout of many scripts of speckle, grating, edge and analyser imaging; what the setup was stands in attributes whose
names end in their unit (`energy_keV`, `pixel_m`, `sample_to_detector_m`).
"""

from typing import Any

import numpy as np

from ..source import Source, text

_METHODS = {
    "speckle": "speckle",
    "grating": "grating",
    "edge": "edge-illumination",
    "edge-illumination": "edge-illumination",
    "analyser": "analyser",
    "interferometer": "interferometer",
}
# key of `open_scan`: attributes that hold it, with the factor to its unit
_NUMBERS = {
    "energy": (("energy_keV", 1e3), ("energy_eV", 1.0)),
    "detector_pixel": (("pixel_m", 1.0), ("pixel_um", 1e-6)),
    "sample_to_detector": (
        ("sample_to_detector_m", 1.0), ("sample_to_g2_m", 1.0), ("sample_mask_to_detector_mask_m", 1.0),
    ),
    "focus_to_sample": (("source_to_sample_m", 1.0), ("focus_to_sample_m", 1.0)),
    "period": (("g2_period_m", 1.0), ("period_m", 1.0)),
    "detector_blur": (("psf_sigma_px", 1.0),),
}  # fmt: skip
_STEPS = {
    "steps": ("step_nominal", "mask_position_sample_m", "analyser_angle_nominal_rad"),
    "reference_steps": ("step_nominal", "mask_position_reference_m", "analyser_angle_nominal_rad"),
}


def probe(source: Source) -> bool:
    """Tell whether the file has a stack with the sample and one without."""
    return source.has("sample") and source.has("reference") and _stack(source, "sample") and _stack(source, "reference")


def _stack(source: Source, name: str) -> bool:
    return getattr(source.file[name], "ndim", 0) in (2, 3, 4)


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Read both stacks, a flat field where there is one, and the setup."""
    found: dict[str, Any] = {"counts": source.frames("sample")}
    if "reference" not in given:
        found["reference"] = source.numbers("reference", "reference")
    for key, names in {"flats": ("flat", "flats"), "darks": ("dark", "darks"), "mask": ("mask",)}.items():
        name = next((n for n in names if source.has(n)), None)
        if name is not None and key not in given:
            found[key] = source.numbers(name, key)
    name = next((n for n in ("angles", "theta") if source.has(n)), None)
    if name is not None and "angles" not in given:
        found["angles"], found["angle_unit"] = source.numbers(name, "angles").astype(float).ravel(), source.units(name)
    attributes = source.file.attrs
    for key, candidates in _NUMBERS.items():
        name, factor = next(((n, f) for n, f in candidates if n in attributes), ("", 1.0))
        if name:
            found[key] = source.one(f"/@{name}", name) * factor
    for key, names in _STEPS.items():
        name = next((n for n in names if n in attributes), None)
        if name is not None:
            found[key] = np.asarray(source.numbers(f"/@{name}", "steps", finite=True), float)
    kind = text(attributes["kind"]) if "kind" in attributes else ""
    if kind in _METHODS:
        found["method"] = _METHODS[kind]
    return found
