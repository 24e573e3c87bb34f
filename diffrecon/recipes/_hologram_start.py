"""From a holography scan to the model that a solve starts from: geometry, empty beam, shifts, first guess."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .. import operators, physics, prepare
from .._console import Console
from ..errors import InputError
from ..models import Holography
from ..priors import PowerLaw
from ..scan import Scan
from ..solvers import ctf
from ..solvers.direct.regularisation import LearntPower
from ._illumination import flats_of_views, illuminated_window, illumination_from_flats

__all__ = [
    "GEOMETRY",
    "check_settings",
    "first_guess",
    "first_model",
    "lit",
    "on_object_pixels",
    "outlier_threshold",
    "registered",
    "relit",
    "say_start",
    "to_refine",
    "with_unknowns",
    "without_outliers",
]

GEOMETRY = ("shifts", "rotations", "stretch", "distances", "source_blur", "detector_blur", "flux")


def check_settings(settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse what cannot be before anything is computed."""
    for name in to_refine(settings["model"], False):
        if name not in GEOMETRY:
            raise InputError(f"model.refine: {name!r} is none of {', '.join(GEOMETRY)}")
    if settings["model"]["probe"] not in (False, None, "flats", "refine"):
        raise InputError(f'model.probe = {settings["model"]["probe"]!r} is none of false, "flats", "refine"')
    if settings["quality"]["halves"] not in (False, None, True, "photons", "distances"):
        raise InputError(
            f'quality.halves = {settings["quality"]["halves"]!r} is none of false, true, "photons", "distances"'
        )
    outlier_threshold(settings)
    for name in ("negative", "tv", "vacuum"):
        if not settings["loss"][name] >= 0:
            raise InputError(f"loss.{name} = {settings['loss'][name]} is negative; 0 is none")


def first_model(scan: Scan, chosen: Mapping[str, Any]) -> tuple[Holography, Mapping[str, tuple[float, float]]]:
    """Vacuum of the main material, and the named materials (delta, beta), the one of largest delta/beta first."""
    place = scan.require("geometry", "the geometry (energy, distances)", "a file with geometry")
    said = chosen["materials"] or {}
    if said and not isinstance(said, Mapping):
        raise InputError(f'model.materials = {said!r} is no table of names, such as {{resin = "C5H8O2, 1.19"}}')
    named = {name: physics.refraction(text, place.energy, f"model.materials.{name}") for name, text in said.items()}
    named = dict(sorted(named.items(), key=lambda item: -item[1][0] / item[1][1]))
    shape = illuminated_window(scan) if chosen["probe"] else None
    if named:
        delta, beta = next(iter(named.values()))
        return Holography.from_scan(scan, delta_beta=delta / beta, shape=shape), named
    ratio = physics.delta_beta_ratio(place.energy, chosen["delta_beta"], chosen["material"])
    return Holography.from_scan(scan, delta_beta=ratio, shape=shape), {}


def lit(scan: Scan, model: Holography, chosen: Mapping[str, Any], console: Console) -> Holography:
    """The model with the empty beam of each frame: its wave, or the best combination of the flats where there are
    several."""
    if chosen["probe"]:
        return illumination_from_flats(model, flats_of_views(scan), scan.darks, mask=scan.mask, console=console)
    if scan.flats is None or len(scan.flats) < 3:
        return model
    combined = prepare.combine_flats(scan.counts, scan.flats, scan.darks)
    console.say(combined.message)
    return model.replace(flux=jnp.asarray(combined.light, model.flux.dtype))


def relit(scan: Scan, model: Holography, console: Console) -> Holography:
    """The model with the wave of the empty beam from flats and holograms, the object as it is."""
    return illumination_from_flats(
        model, flats_of_views(scan), scan.darks, counts=np.asarray(scan.counts), mask=scan.mask, console=console
    )


def outlier_threshold(settings: Mapping[str, Mapping[str, Any]]) -> float:
    """`prepare.outliers`, for holograms of one angle or of many."""
    threshold = settings["prepare"]["outliers"]
    if not threshold >= 0:
        raise InputError(f"prepare.outliers = {threshold} is negative; give standard deviations, or 0 to keep all")
    return float(threshold)


def without_outliers(
    model: Holography, data: Mapping[str, np.ndarray], threshold: float, console: Console, messages: list[str]
) -> dict[str, np.ndarray]:
    """The data without outliers; what is too many to be that stays, and is said."""
    if not threshold:
        return dict(data)
    beam, dark = jnp.asarray(empty_counts(model), jnp.float32), np.asarray(model.dark, float)
    counts, mask, message = prepare.mend_outliers(data["counts"], beam, data["mask"], dark=dark, threshold=threshold)
    if message:
        console.say(message)
    messages += [message] if "WARNING" in message else []
    return {"counts": counts, "mask": mask}


def empty_counts(model: Holography) -> np.ndarray:
    """Empty beam of every view without the dark, `(view, y, x)` [counts]."""
    views = np.arange(len(model.pixels))
    return np.asarray(eqx.filter_jit(lambda m: m.empty_beam(views) - m.dark)(model), float)


def registered(scan, model, data, chosen, console, messages) -> tuple[Holography, bool]:
    """The model with shifts between the frames found, where none were given."""
    wanted = "shifts" not in scan.extra if chosen["register"] is None else bool(chosen["register"])
    if not wanted or scan.views < 2:
        return model, False
    shifts, report = prepare.register_distances(
        data["counts"],
        empty_counts(model),
        pixels=np.asarray(model.pixels),
        distances=np.asarray(model.distances, float),
        wavelength=model.wavelength,
        dark=np.asarray(model.dark, float),
        delta_beta=float(model.delta_beta),
        mask=data["mask"],
        start=np.asarray(model.shifts, float),
    )
    console.say(report.message)
    if "WARNING" in report.message:
        messages.append(report.message)
    return model.replace(shifts=jnp.asarray(shifts, model.shifts.dtype)), True


def to_refine(chosen: Mapping[str, Any], registered: bool) -> tuple[str, ...]:
    if chosen["refine"] is not None:
        return (chosen["refine"],) if isinstance(chosen["refine"], str) else tuple(chosen["refine"])
    return ("shifts",) if registered else ()


def with_unknowns(model: Holography, refine: Sequence[str]) -> Holography:
    """Fields that are to be refined must be there; a blur must not begin at zero, where it has no slope."""
    views = len(model.pixels)
    if "rotations" in refine and model.rotations is None:
        model = model.replace(rotations=jnp.zeros(views, model.phase.dtype))
    if "stretch" in refine and model.stretch is None:
        model = model.replace(stretch=jnp.ones((views, 2), model.phase.dtype))
    if "detector_blur" in refine and float(model.detector_blur) == 0:
        model = model.replace(detector_blur=jnp.full_like(model.detector_blur, 0.3))
    if "source_blur" in refine and float(model.source_blur) == 0:
        model = model.replace(source_blur=jnp.full_like(model.source_blur, 0.5 * model.pixel_size))
    return model


def say_start(scan: Scan, model: Holography, console: Console) -> str:
    """Tell the geometry; returns what is wrong with the sampling, or nothing."""
    distances, pixels = (np.asarray(v, float).mean(1) for v in (model.distances, model.pixels))
    console.say(
        f"{scan.views} holograms of {model.frame[0]} x {model.frame[1]}, pixels "
        + ", ".join(f"{p * 1e9:.4g}" for p in pixels)
        + " nm, effective distances "
        + ", ".join(f"{d * 1e3:.4g}" for d in distances)
        + f" mm; object {model.phase.shape[0]} x {model.phase.shape[1]} of {model.pixel_size * 1e9:.4g} nm"
    )
    reports = [
        operators.sampling(model.grid, pixel_size=model.pixel_size, wavelength=model.wavelength, distance=float(d))
        for d in distances
    ]
    console.say(f"padded to {model.grid[0]} x {model.grid[1]}: {reports[int(np.argmax(distances))].message}")
    return next((r.message for r in reports if not r.enough), "")


# ------------------------------------------------------------------------------------------ first guess
def first_guess(model: Holography, data: Mapping[str, np.ndarray]) -> tuple[Holography, PowerLaw]:
    """Phase by the contrast transfer function of one material, and the prior that its regularisation learnt."""
    found = ctf(
        jnp.asarray(1 + on_object_pixels(model, data), model.phase.dtype),
        pixel_size=model.pixel_size,
        wavelength=model.wavelength,
        distances=np.asarray(model.distances, float),
        delta_beta=float(model.delta_beta),
    )
    assert isinstance(found.regularisation, LearntPower)
    law = PowerLaw(float(found.regularisation.level[0]), float(found.regularisation.slope[0]))
    return model.replace(phase=found.phase.astype(model.phase.dtype)), law


def on_object_pixels(model: Holography, data: Mapping[str, np.ndarray]) -> np.ndarray:
    """Contrast `counts / empty beam - 1` of every view on the object's window by cubic interpolation; zero where
    nothing was seen."""
    flux = np.maximum(empty_counts(model), 1e-6)
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
    place = (np.arange(size) - (size - 1) / 2) * ratio + (count - 1) / 2 + shift
    d = np.abs(place[:, None] - np.arange(count)[None])
    return np.where(d < 1, 1.5 * d**3 - 2.5 * d**2 + 1, np.where(d < 2, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2, 0))
