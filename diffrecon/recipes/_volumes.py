"""Volumes from stacks of images at many angles: air taken out of their lines, the axis, one solver for all of them."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import prepare
from .._console import Console
from .._model import Model
from ..operators import ParallelProjector
from ..scan import Scan
from ..solvers.slices import SliceOptions, solve_slices

__all__ = ["Volumes", "projector_of", "solve_each", "without_ends"]


class Volumes(Model):
    """What is solved for where there are angles: `(volume, z, y, x)` [1/pixel]."""

    volumes: Float[Array, "volume z y x"]

    def __call__(self, views: Any) -> Array:
        """Say nothing of views: signals are summed up, not fitted."""
        return jnp.zeros((len(views), 1))


def without_ends(stack: Float[np.ndarray, "view y x"]) -> Float[np.ndarray, "view y x"]:
    """Take out of every line the straight one between its ends, which are air."""
    width = max(1, stack.shape[-1] // 20)
    first, last = (np.nanmean(part, -1, keepdims=True) for part in (stack[..., :width], stack[..., -width:]))
    place = (np.arange(stack.shape[-1]) - (width - 1) / 2) / (stack.shape[-1] - width)
    return stack - first - (last - first) * place


def projector_of(scan: Scan, angles: np.ndarray, seen: np.ndarray) -> tuple[ParallelProjector, list[str]]:
    """Make the projector of slices as wide as the frames; the axis is the scan's, or that of the line integrals `seen`.

    **Returns:** it, and what is to be said of the axis.
    """
    centre, lines, columns = scan.rotation_centre, [], seen.shape[-1]
    if centre is None:
        found = prepare.find_rotation_centre(np.asarray(seen, np.float32), angles)
        centre, lines = found.centre, [found.message]
    return ParallelProjector(np.mod(angles, 2 * np.pi), (columns, columns), columns, centre=float(centre)), lines


def solve_each(
    A: ParallelProjector,
    line_integrals: Mapping[str, np.ndarray],
    options: SliceOptions,
    *,
    weights: np.ndarray | None = None,
    console: Console | None = None,
) -> tuple[Float[Array, "volume z y x"], np.ndarray, dict[str, Any], list[str]]:
    """Solve for one volume of each name.

    **Returns:** the volumes [1/pixel], the histories one after the other, figures, and what is to be said.
    """
    volumes, histories, lines = [], [], []
    figures: dict[str, Any] = {"rotation_centre": float(A.centre)}
    by = jnp.asarray(weights, jnp.float32) if weights is not None and options.weights == "photons" else None
    for name, values in line_integrals.items():
        measured = jnp.asarray(np.nan_to_num(values), jnp.float32)
        solved = solve_slices(A, measured, options, weights=by, console=console)
        misfit = float(jnp.linalg.norm(A(solved.volume) - measured) / jnp.linalg.norm(measured))
        figures[f"relative_residual_{name}"] = misfit
        lines += [f"{name}: relative residual |A x - b| / |b| = {misfit:.4f} ({options.name}, {len(A.angles)} views)"]
        lines += solved.messages
        volumes.append(solved.volume)
        histories.append(solved.history)
    return jnp.stack(volumes), np.concatenate(histories), figures, lines
