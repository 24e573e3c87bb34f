"""Projections that were reconstructed one by one: flattened, laid on one another, back-projected."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import operators
from .._console import Console
from ..errors import InputError
from ..solvers import align, fbp
from ._centre import find_rotation_centre
from ._regions import lit_field

__all__ = ["flatten_projections", "place_projections", "volume_of_projections"]


def flatten_projections(
    images: Float[np.ndarray, "view y x"], air: bool, share: float = 0.12
) -> Float[np.ndarray, "view y x"]:
    """Take away the constant and, where the outer columns (a `share` of all) show `air`, the slope along columns.

    Without air all get the same mean, so large that nothing is negative (a mass of zero would have no centre).
    """
    count = max(int(share * images.shape[2]), 2)
    if not air:
        level = images - images.mean((1, 2), keepdims=True)
        return level - level.min()
    left, right = (np.median(part, axis=(1, 2)) for part in (images[..., :count], images[..., -count:]))
    way = (np.arange(images.shape[2]) - (count - 1) / 2) / (images.shape[2] - count)
    return images - left[:, None, None] - (right - left)[:, None, None] * way


def place_projections(
    images: Float[np.ndarray, "view y x"],
    angles: Float[np.ndarray, " view"],
    centre: float,
    *,
    unknowns: Sequence[str] = ("centre", "shifts"),
    air: bool = True,
    size: int | None = None,
    console: Console | None = None,
) -> tuple[float, Float[np.ndarray, "view 2"]]:
    """Find the rotation axis and the motion of flattened projections [pixel].

    **Arguments:** `centre` to begin with; `unknowns`, of centre and shifts; `air`: all of the sample, and air around
    it, is seen (without, the axis is that of the double wedge: an alignment lets the volume beyond the field explain a
    wrong one); `size` of a slice that holds the sample.

    **Returns:** centre, and the shifts of the pictures (row, column).
    """
    say, names = (console or Console(quiet=True)).say, list(unknowns)
    if "centre" in names and not air:
        names.remove("centre")
        try:
            axis = find_rotation_centre(images, angles)
            say(axis.message)
            centre = axis.centre
        except InputError as error:  # angles too far apart for it
            say(f"rotation axis left where it was: {error}")
    shifts = np.zeros((len(angles), 2))
    if names:
        aligned = align(images, angles, unknowns=names, centre=centre, size=size, cg_steps=15, console=console)
        for line in aligned.messages:
            say(line)
        centre = float(aligned.motion.centre)
        shifts = shifts if aligned.motion.shifts is None else np.asarray(aligned.motion.shifts)
    return centre, shifts


def volume_of_projections(
    model: Any, images: Any, *, unknowns: Sequence[str], air: bool = True, console: Console | None = None
) -> Any:
    """Back-project images of all angles, flattened and aligned, into a model with a volume.

    **Arguments:** `models.PtychoTomography` and `models.PtychoProjections`; `unknowns` and `air` as for
    `place_projections`.

    **Returns:** the model with volumes, axis and shifts, and with the light and the places of the images.
    """
    rows, columns = lit_field(images.light())
    delta, beta = (
        flatten_projections(np.asarray(part[:, rows, columns]), air)
        for part in (-images.images.real, images.images.imag)
    )
    turns, side, start = np.asarray(model.projector.angles), model.delta.shape[-1], float(model.centre) - columns.start
    centre, shifts = place_projections(delta, turns, start, unknowns=unknowns, air=air, size=side, console=console)
    A = operators.ParallelProjector(turns, (side, side), columns.stop - columns.start, centre=centre)

    def volume(stack: np.ndarray) -> Array:
        still = operators.move_images(jnp.asarray(stack, jnp.float32), stack.shape[1:], shifts=-jnp.asarray(shifts))
        slices = fbp(A, still, pad="zero" if air else "smooth")
        return jnp.zeros_like(model.delta).at[rows].set(slices.astype(model.delta.dtype))

    return model.replace(
        delta=volume(delta),
        beta=volume(beta),
        optics=model.optics.replace(probe=images.optics.probe, background=images.optics.background),
        positions=images.positions,
        gain=images.gain,
        shifts=jnp.asarray(shifts, model.shifts.dtype),
        centre=jnp.asarray(centre + columns.start, model.centre.dtype),
    )
