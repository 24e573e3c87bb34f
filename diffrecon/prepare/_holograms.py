"""Holograms at many angles before the volume is known: defects, places within an angle, the rotation axis.

`model` is a `models.HoloTomography`, `data` what `models.holograms_by_angle` gives.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import sharding
from ..errors import InputError
from ..frames import spread
from ..solvers import PhaseRetrieval
from ._centre import find_isolated_centre, find_rotation_centre
from ._defects import find_outliers, leave_out
from ._registration import register_distances

__all__ = ["find_hologram_axis", "mask_hologram_outliers", "register_angles"]

_SURE = 8.0  # height of a correlation over its rms; chance is below 6


def mask_hologram_outliers(
    model: Any, data: Mapping[str, Any], threshold: float = 10.0
) -> tuple[Mapping[str, Any], str]:
    """Mask pixels that stand out from those around in most of nine angles' frames: the data, and what is to be said.

    **Arguments:** `threshold` in standard deviations of the photon noise; 0 keeps all.
    """
    if not threshold:
        return data, ""
    some, often = spread(len(data["counts"]), 9), np.zeros(model.frame)
    light = jnp.broadcast_to(model.flux, (model.gain.shape[1], *model.frame))
    for angle in some:
        frames = jnp.asarray(data["counts"][np.array([angle])][0], model.dark.dtype) - model.dark
        for frame, beam in zip(frames, light, strict=True):  # one at a time: the search takes seventeen times its size
            which, _ = find_outliers(frame[None], beam[None], threshold=threshold)
            often += np.asarray(which[0]) / (some.size * len(frames))
    mask, message = leave_out(often > 0.5, data["mask"])
    return {**data, "mask": mask}, message


def register_angles(model: Any, data: Mapping[str, Any]) -> tuple[Any, str]:
    """Place the frames of each angle on that of its finest pixel, by what they have in common; processes share the
    angles.

    Where an angle sits as a whole the volume says later. **Returns:** the model with its shifts, and what is to be
    said.
    """
    ratio, places = np.asarray(model.pixels) / model.pixel_size, np.zeros(model.shifts.shape)
    options: dict[str, Any] = {
        "flux": np.broadcast_to(model.flux, (len(ratio), *model.flux.shape[1:])),
        "pixels": np.asarray(model.pixels),
        "distances": np.asarray(model.distances, float),
        "wavelength": model.wavelength,
        "delta_beta": float(model.delta_beta),
        "dark": np.asarray(model.dark),
        "mask": np.asarray(data["mask"]),
    }
    for angle in range(jax.process_index(), len(places), jax.process_count()):
        start, frames = np.asarray(model.shifts[angle], float), data["counts"][np.array([angle])][0]
        shifts, report = register_distances(frames, start=start / ratio, **options)
        places[angle] = np.where((report.peaks > _SURE)[:, None], shifts * ratio, start)
    places = sharding.total(places)
    moved = np.sqrt(np.mean((places - np.asarray(model.shifts)) ** 2))
    message = f"frames of each angle registered on the finest: moved by {moved:.2f} pixel rms"
    return model.replace(shifts=jnp.asarray(places, model.shifts.dtype)), message


def find_hologram_axis(model: Any, data: Mapping[str, Any], general: float = 0.0) -> tuple[Any, str]:
    """Put the rotation axis where the phases have it: about which the centre of an isolated sample moves (64 angles
    tell), else where the sinogram of the middle rows does.

    **Arguments:** `general`: size of the absorption beside the phase, as for `solvers.PhaseRetrieval`.

    **Returns:** the model with its centre, and what is to be said.
    """
    turns, retrieval = np.asarray(model.projector.angles), PhaseRetrieval.of(model, data, general)
    some = spread(turns.size, 64)
    lines = np.asarray(retrieval(model, data, some)[0])
    centre, message = find_isolated_centre(lines, turns[some]), "the sample's outline goes round it"
    if centre is None:
        middle = slice(max(lines.shape[1] // 2 - 32, 0), lines.shape[1] // 2 + 32)
        rows = [np.asarray(maps[:, 0, middle]) for _, maps in retrieval.by_blocks(model, data)]
        try:
            axis = find_rotation_centre(np.concatenate(rows), turns)
        except InputError as error:  # less than half a turn
            return model, f"rotation axis left where it was: {error}"
        centre, message = axis.centre, axis.message
    model = model.replace(centre=model.centre + (centre - (lines.shape[2] - 1) / 2))
    return model, f"rotation axis at column {model.rotation_centre():.2f} of the finest frames ({message})"
