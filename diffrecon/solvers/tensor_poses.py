"""Small motions of the views of a tensor SAXS scan: what they do to the data, and what no data can tell of them.

Names and signs are those of `diffrecon.motion`: shifts move the picture of a view towards larger (row, column), angles
turn the sample about the rows' direction, wobble turns it about the beam (roll) and about the columns' (pitch). With
beam, raster and volume turn the directions that the detector's segments probe. Flux is relative: 0.01 is 1 % more.
"""

from collections.abc import Mapping, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InputError, nearest
from ..motion import Motion
from ..operators.scattering import TensorProjector, harmonic_degrees, real_harmonics

__all__ = ["MOTIONS", "changes", "checked", "moved", "pictures", "split", "without_freedoms"]

MOTIONS = {"shifts": 2, "angles": 1, "wobble": 2, "flux": 1}  # numbers of a view
_SMALL = 4e-3  # [rad], whose effect is taken as a derivative: a tenth of a pixel of 50


def checked(names: Sequence[str]) -> tuple[str, ...]:
    """Put names in order.

    **Raises:** `InputError` for names that are not known.
    """
    for name in names:
        if name not in MOTIONS:
            raise InputError(f"views have no unknown {name!r}{nearest(name, MOTIONS)}: give {', '.join(MOTIONS)}")
    return tuple(n for n in MOTIONS if n in names)


def moved(A: TensorProjector, motions: Mapping[str, np.ndarray]) -> TensorProjector:
    """Make the projector of views that have moved."""
    poses = A.projector
    if "shifts" in motions:
        poses = poses.moved(offsets=-jnp.asarray(motions["shifts"], poses.offsets.dtype))
    if "angles" in motions or "wobble" in motions:
        turns = _turns(A, motions)
        poses = poses.moved(rotations=jnp.asarray(turns, poses.ray.dtype))
        weights = np.asarray(A.weights, float) @ _exponential(np.einsum("vi,iab->vab", turns, _generators(A.ell_max)))
        A = eqx.tree_at(lambda a: a.weights, A, jnp.asarray(weights, A.weights.dtype))
    if "flux" in motions:
        gain = 1 + jnp.asarray(motions["flux"], A.weights.dtype)[:, :, None]
        A = eqx.tree_at(lambda a: a.weights, A, A.weights * gain)
    return eqx.tree_at(lambda a: a.projector, A, poses)


def pictures(
    A: TensorProjector, x: Array, prediction: Array, names: Sequence[str]
) -> Float[Array, "motion view row column segment"]:
    """Compute what a unit of each motion does to the prediction of its view.

    **Cost:** nothing for shifts and flux, a projection for each angle.
    """
    found = [jnp.zeros((0, *prediction.shape), prediction.dtype)]
    views = len(prediction)
    for name in names:
        if name == "shifts":
            found.append(-jnp.stack(jnp.gradient(prediction, axis=(1, 2))))
        elif name == "flux":
            found.append(prediction[None])
        else:
            for unit in np.eye(MOTIONS[name]):
                turned = moved(A, {name: np.broadcast_to(_SMALL * unit, (views, unit.size))})
                found.append(((turned(x) - prediction) / _SMALL)[None])
    return jnp.concatenate(found)


def split(names: Sequence[str], numbers: Float[Array, "view motion"]) -> dict[str, np.ndarray]:
    """Sort the numbers of all motions by name."""
    ends = np.cumsum([MOTIONS[n] for n in names])
    return dict(zip(names, np.split(np.asarray(numbers, float), ends[:-1], axis=1), strict=True))


def without_freedoms(A: TensorProjector, motions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Project motions on what data can tell (orthogonally): not how the sample lies, nor how bright it is."""
    motions = dict(motions)
    vectors = _frames(A)
    if "shifts" in motions:  # a shift of the sample, seen along rows and columns
        motions["shifts"] = _orthogonal(motions["shifts"], vectors[:, [0, 2]])
    turns = [name for name in ("angles", "wobble") if name in motions]
    if turns:  # a turn of the sample, as far as it is made of what is unknown
        known = [i for i, name in enumerate(("angles", "wobble", "wobble")) if name not in turns]
        possible = _unseen(vectors[:, known].reshape(-1, 3)) if known else np.eye(3)
        unknown = [i for i in range(3) if i not in known]
        both = np.concatenate([motions[n] for n in turns], 1)
        both = _orthogonal(both, vectors[:, unknown] * np.array([1.0, 1, -1])[unknown, None] @ possible)
        motions |= dict(zip(turns, np.split(both, [MOTIONS[turns[0]]], axis=1), strict=False))
    if "flux" in motions:
        motions["flux"] = motions["flux"] - motions["flux"].mean()
    return motions


def changes(motions: Mapping[str, np.ndarray]) -> list[str]:
    """Say in words how far the views have moved."""
    lines = []
    for name, values in motions.items():
        if name == "flux":
            lines.append(f"flux changed by {100 * values.std():.2g} % rms, {100 * np.abs(values).max():.2g} % at most")
        else:
            value: np.ndarray = values[:, 0] if name == "angles" else values
            lines += Motion(0.0).replace(**{name: value}).changes(Motion(0.0), [name])
    return lines


def _frames(A: TensorProjector) -> Float[np.ndarray, "view 3 3"]:
    """Directions of rows, beam and columns in the sample: the axes of angles, roll and (backwards) pitch."""
    poses = A.projector
    return np.stack([np.asarray(v, float) for v in (poses.row, poses.ray, poses.column)], 1)


def _turns(A: TensorProjector, motions: Mapping[str, np.ndarray]) -> Float[np.ndarray, "view 3"]:
    """Rotation vectors in the frame of the sample."""
    row, beam, column = np.moveaxis(_frames(A), 1, 0)
    turns = np.zeros_like(row)
    if "angles" in motions:
        turns = turns + motions["angles"] * row
    if "wobble" in motions:
        turns = turns + motions["wobble"][:, :1] * beam - motions["wobble"][:, 1:] * column
    return turns


def _generators(ell_max: int) -> Float[np.ndarray, "3 lm lm"]:
    """Matrices of small turns: harmonics of the directions q + e x q are those of q times 1 + G_e."""
    q = np.random.default_rng(0).standard_normal((4 * len(harmonic_degrees(ell_max)[0]), 3))
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    step = 1e-4
    turned = lambda e: np.cos(step) * q + np.sin(step) * np.cross(e, q) + (1 - np.cos(step)) * np.outer(q @ e, e)
    slopes = [
        (real_harmonics(turned(e), ell_max) - real_harmonics(turned(-e), ell_max)) / (2 * step) for e in np.eye(3)
    ]
    inverse = np.linalg.pinv(real_harmonics(q, ell_max))
    return np.stack([inverse @ slope for slope in slopes])


def _exponential(matrices: Float[np.ndarray, "view n n"]) -> Float[np.ndarray, "view n n"]:
    """Add up the exponential series of matrices that are small."""
    term = total = np.broadcast_to(np.eye(matrices.shape[-1]), matrices.shape)
    for order in range(1, 9):
        term = term @ matrices / order
        total = total + term
    return total


def _unseen(rows: Float[np.ndarray, "row 3"]) -> Float[np.ndarray, "3 direction"]:
    """Give the directions that no row has a part of."""
    _, sizes, right = np.linalg.svd(rows, full_matrices=False)
    return right[sizes < 1e-6 * max(sizes.max(), 1.0)].T


def _orthogonal(values: Float[np.ndarray, "view n"], basis: Float[np.ndarray, "view n 3"]) -> np.ndarray:
    """Take from the values what the basis explains."""
    flat, columns = values.reshape(-1), basis.reshape(values.size, -1)
    return (flat - columns @ np.linalg.lstsq(columns, flat, rcond=None)[0]).reshape(values.shape)
