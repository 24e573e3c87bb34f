"""The rotation centre from the sinogram itself, by several estimators that check one another."""

import dataclasses
from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InputError
from ..frames import spread
from ..operators.fourier import gaussian
from ..operators.projection import ParallelProjector
from ..solvers import conjugate_gradients, fbp
from ._full_turn import is_full_turn, onwards

__all__ = ["RotationCentre", "find_isolated_centre", "find_rotation_centre"]

_PAIRS = 24  # of views half a turn apart that are compared
_NARROWEST = 8  # columns
_LEAST_OVERLAP = 12  # columns that a view and a mirror image must share
_TOGETHER = 24  # centres at a time
_DISAGREE = 1.0  # [pixel] of the estimators that is worth a warning
_SMALL, _FEW = 256, 180  # columns and views to which the sinogram is reduced for the cost of a reconstruction
_PLACES = 13  # centres at which a cost is looked at together
_REACH = 24  # that cost is searched within this fraction of the columns around what the others found
_REFEREE = 128, 60, 10  # columns, views and steps of the least squares that decide where views are few or others differ
_SPARSE = 0.4  # views a column, below which filtered back-projection says little
_DEEP = 1.5  # times as much is left unexplained beside a centre that is surely found


@dataclasses.dataclass(frozen=True)
class RotationCentre:
    """**Fields:** `centre` = detector column of the rotation axis [pixel]; `spread` = half the difference of the
    estimators [pixel]; `estimates` by name; `message` in words, with a WARNING where they disagree by more than a pixel
    or the search ended at the edge of its range."""

    centre: float
    spread: float
    estimates: dict[str, float]
    message: str


def find_rotation_centre(
    sinograms: Float[np.ndarray, "view y x"],
    angles: Float[np.ndarray, " view"],
    *,
    search: tuple[float, float] | None = None,
    rows: int = 4,
) -> RotationCentre:
    """Find the detector column on which the rotation axis falls.

    Four estimators, of which those that apply are used:

    - `mirror`: views half a turn apart match each other's mirror image, over the columns that both see. All pairs of a
      full turn, the nearest to a pair of a half turn (within 1.5 degrees).
    - `double wedge`: a sinogram joined with its mirror image has no energy outside a double wedge of its transform
      (N. T. Vo et al., Opt. Express 22, 19078 (2014)).
    - `mass`: the centre of mass of the views goes round the axis in a sinusoid. Only where the sample stays within the
      detector.
    - `reconstruction`: the views are best explained by their own reconstruction, the cost `|A(c) x(c) - b|^2` with the
      filtered back-projection x(c), least over the centre c. A check of the others, within a 24th of the columns around
      them, where the sample stays within the detector, on a sinogram reduced to 256 columns. Where views are few, or
      the others differ by more than a pixel, x(c) is that of ten steps of conjugate gradients, which start from the
      best of the others and decide between them.

    The estimators that did not end on the edge of the search count: over a full turn the mirror images, otherwise the
    double wedge where it is within a pixel of the median of all, else that median.

    **Arguments:** line integrals `(view, y, x)`; `angles` [rad]; `search` = (first, last) column, by default the middle
    half of the detector, over a full turn all of it but for 12 columns; `rows` = number of detector rows used, those
    with most contrast along the views.

    **Raises:** `InputError` when the views span less than 170 degrees (with the step behind the last), nothing but
    empty beam is seen, or the frames are narrower than 8 columns.

    **Cost:** about 200 FFTs of a sinogram and 39 small reconstructions.
    """
    angles = onwards(np.asarray(angles, float))
    turn = float(np.ptp(angles)) + (float(np.median(np.diff(np.sort(angles)))) if len(angles) > 2 else 0.0)
    if turn < np.radians(170):
        raise InputError(
            f"the views span {np.degrees(turn):.0f} degrees: a rotation centre cannot be found from less than half a "
            "turn; give it (geometry.rotation_centre)"
        )
    columns, full = sinograms.shape[-1], is_full_turn(angles)
    if columns < _NARROWEST:
        raise InputError(
            f"frames of {columns} columns are too narrow to find the rotation axis in: are rows and columns exchanged, "
            "or views? The axis can be given (geometry.rotation_centre)"
        )
    margin = _LEAST_OVERLAP if full and columns > 4 * _LEAST_OVERLAP else columns / 4
    low, high = search or (margin, columns - 1 - margin)
    chosen = _informative(sinograms, rows)
    mirror = _mirror(chosen, angles, low, high, full)
    estimates = {
        "mirror": mirror,
        "double wedge": _double_wedge_of(chosen, angles, low, high, mirror if full else None),
        "mass": _mass(chosen, angles),
    }
    found = {name: value for name, value in estimates.items() if value is not None}
    if not _within(chosen):
        return _verdict(found, full, float(low), float(high))
    values = list(found.values())
    if len(angles) < _SPARSE * min(columns, _REFEREE[0]) or np.ptp(values) > _DISAGREE:
        found["reconstruction"], sure = _refereed(chosen, angles, values)
        return _verdict(found, full, float(low), float(high), sure)
    found["reconstruction"] = _reconstruction(
        chosen, angles, found["mirror"] if full and mirror is not None else float(np.median(values))
    )
    return _verdict(found, full, float(low), float(high))


def _informative(sinograms: Float[np.ndarray, "view y x"], rows: int) -> Float[np.ndarray, "view row x"]:
    """The rows in which most happens along the views."""
    contrast = np.nan_to_num(np.asarray(sinograms, np.float32).std(0).mean(-1))
    if not contrast.max(initial=0) > 0:
        raise InputError(
            "the views do not differ: a rotation centre cannot be found; give it (geometry.rotation_centre)"
        )
    return np.asarray(sinograms[:, np.sort(np.argsort(contrast)[-rows:])], np.float32)


def _verdict(found: dict[str, float], full: bool, low: float, high: float, decided: bool = False) -> RotationCentre:
    inside = {name: value for name, value in found.items() if low + 1 < value < high - 1} or found
    if full and "mirror" in inside:
        centre = inside["mirror"]
    else:
        centre = float(np.median(list(inside.values())))
        wedge = inside.get("double wedge", np.inf)
        centre = wedge if abs(wedge - centre) <= _DISAGREE or len(inside) == 2 and np.isfinite(wedge) else centre
    if decided and abs(found["reconstruction"] - centre) > _DISAGREE / 2:
        best = found["reconstruction"]
        near = min((value for name, value in found.items() if name != "reconstruction"), key=lambda v: abs(v - best))
        centre = near if abs(near - best) <= _DISAGREE / 2 else best
    spread = float(np.ptp(list(inside.values()))) / 2
    message = f"rotation centre {centre:.2f} (" + ", ".join(f"{k} {v:.2f}" for k, v in found.items()) + ")"
    at_edge = [name for name in found if name not in inside] if inside is not found else []
    if not low + 1 < centre < high - 1:
        message += f"; WARNING: it lies on the edge of the search from {low:.0f} to {high:.0f}: check it, or give "
        message += "geometry.rotation_centre"
    elif decided and 2 * spread > _DISAGREE:
        message += f"; the estimators differ by {2 * spread:.1f} pixels, least squares of the views decide"
    elif at_edge:
        message += f"; WARNING: {' and '.join(at_edge)} ended on the edge of the search from {low:.0f} to {high:.0f}"
    elif 2 * spread > _DISAGREE:
        message += f"; WARNING: the estimators differ by {2 * spread:.1f} pixels: check it in the picture, or give "
        message += "geometry.rotation_centre"
    return RotationCentre(centre, spread, found, message)


# ---------------------------------------------------------------------------------------------------- double wedge
def _double_wedge_of(
    sinograms: Float[np.ndarray, "view y x"],
    angles: Float[np.ndarray, " view"],
    low: float,
    high: float,
    near: float | None,
) -> float | None:
    """Median over the rows; over a full turn near the mirror images' centre only, and `None` where that is so near an
    edge that half a turn says little."""
    columns = sinograms.shape[-1]
    if near is not None:
        if not columns / 4 < near < columns * 3 / 4 - 1:
            return None
        low, high = max(low, near - columns / 16), min(high, near + columns / 16)
    order = np.argsort(angles)
    half = order[angles[order] < angles[order[0]] + np.pi - 1e-9]
    return float(np.median([_double_wedge(sinograms[half, row], low, high) for row in range(sinograms.shape[1])]))


def _double_wedge(sinogram: np.ndarray, low: float, high: float) -> float:
    """Coarse to fine minimum of the energy outside the double wedge."""
    low, high = np.ceil(low), np.floor(high)
    step = max(1, int((high - low) // 80))
    coarse = np.arange(low, high + 1, step)
    best = coarse[np.argmin(_wedge_energy(sinogram, coarse))]
    for reach, fine in ((step, 0.5), (0.5, 0.05)):
        places = np.clip(np.arange(best - reach, best + reach + fine / 2, fine), low, high)
        energy = _wedge_energy(sinogram, places)
        best = places[np.argmin(energy)]
    return float(best)


def _wedge_energy(sinogram: np.ndarray, centres: np.ndarray) -> np.ndarray:
    data, centres = sinogram.astype(np.float32), np.asarray(centres, np.float32)
    views, columns = sinogram.shape
    # The transform of a full turn of an object of radius r fills |k_view| <= r |k_column|; outside only a wrong centre
    # has energy.
    ku = np.fft.rfftfreq(columns) * 2 * np.pi
    kv = np.abs(np.fft.fftfreq(2 * views) * 2 * views)
    outside = kv[:, None] > 1.1 * (columns / 2) * ku[None] + 2
    # Always as many centres at a time: one program.
    parts = [np.resize(centres[i : i + _TOGETHER], _TOGETHER) for i in range(0, len(centres), _TOGETHER)]
    return np.concatenate([np.asarray(_energies(data, part, outside)) for part in parts])[: len(centres)]


@jax.jit
def _energies(
    sinogram: Float[Array, "view x"], centres: Float[Array, " centre"], outside: Array
) -> Float[Array, " centre"]:
    columns = sinogram.shape[1]
    flipped = jnp.fft.rfft(sinogram[:, ::-1], 2 * columns)
    frequency = jnp.asarray(np.fft.rfftfreq(2 * columns), jnp.float32)

    def energy(centre):
        # The mirrored view half a turn later: p(theta + pi, u) = p(theta, 2 c - u).
        shift = 2 * centre - (columns - 1)
        mirrored = jnp.fft.irfft(flipped * jnp.exp(-2j * jnp.pi * frequency * shift), 2 * columns)[:, :columns]
        u = jnp.arange(columns)
        seen = (u - shift >= 0) & (u - shift <= columns - 1)
        # What the mirror image does not cover is taken from the sinogram itself, so that the overlap alone counts.
        whole = jnp.concatenate([sinogram, jnp.where(seen, mirrored, sinogram)])
        return jnp.mean(jnp.abs(jnp.fft.fft(jnp.fft.rfft(whole, axis=1), axis=0)) * outside)

    return jax.lax.map(energy, centres)


# ---------------------------------------------------------------------------------------------------- mirror images
def _mirror(
    sinograms: Float[np.ndarray, "view y x"], angles: Float[np.ndarray, " view"], low: float, high: float, full: bool
) -> float | None:
    """Least normalised difference of views and the mirror images of those half a turn away."""
    turn = np.abs((angles[:, None] - angles[None]) % (2 * np.pi) - np.pi)
    turn[np.tril_indices(len(angles))] = np.inf
    partner = turn.argmin(1)
    error = turn[np.arange(len(angles)), partner]
    usual = 1.01 * np.median(np.diff(np.sort(angles))) if full else np.radians(1.5)
    first = np.flatnonzero(error <= max(usual, error.min() * 1.01))
    if not first.size or error.min() > np.radians(1.5):
        return None
    if not full:
        first = first[np.argsort(error[first])][:8]
    pick = first[spread(first.size, _PAIRS)]
    columns = sinograms.shape[-1]
    a = sinograms[pick].astype(float).reshape(-1, columns)
    b = sinograms[partner[pick]].astype(float).reshape(-1, columns)[:, ::-1]
    shifts = np.arange(int(np.ceil(2 * low)) - (columns - 1), int(np.floor(2 * high)) - (columns - 1) + 1)
    curve = _normalised_difference(a, b, shifts)
    if not np.isfinite(curve).any():
        return None
    k = int(np.clip(np.nanargmin(curve), 1, len(shifts) - 2))
    before, least, after = (float(value) for value in curve[k - 1 : k + 2])  # infinite where nothing overlaps
    bend = before - 2 * least + after if np.isfinite(before + after) else 0.0
    fine = 0.5 * (before - after) / bend if bend > 0 else 0.0
    return float((shifts[k] + np.clip(fine, -1, 1) + columns - 1) / 2)


def _normalised_difference(
    a: Float[np.ndarray, "pair x"], b: Float[np.ndarray, "pair x"], shifts: np.ndarray
) -> Float[np.ndarray, " shift"]:
    """Mean square of a(u) - b(u - shift) over the variances of both, where they overlap; one transform for all
    shifts."""
    columns = a.shape[1]
    transform = lambda x: np.fft.rfft(x, 2 * columns)
    with_ones = lambda x: np.fft.irfft((transform(x) * transform(np.ones(columns)).conj()).sum(0), 2 * columns)[shifts]
    onto_ones = lambda x: np.fft.irfft((transform(np.ones(columns)) * transform(x).conj()).sum(0), 2 * columns)[shifts]
    product = np.fft.irfft((transform(a) * transform(b).conj()).sum(0), 2 * columns)[shifts]
    number = len(a) * np.maximum(columns - np.abs(shifts), 1)
    squares = with_ones(a**2) + onto_ones(b**2)
    difference = (squares - 2 * product) / number
    spread = squares / number - (with_ones(a) / number) ** 2 - (onto_ones(b) / number) ** 2
    enough = (columns - np.abs(shifts) >= min(_LEAST_OVERLAP, columns // 2)) & (spread > 1e-9 * np.abs(squares).max())
    return np.where(enough, difference / np.where(enough, spread, 1), np.inf)


# ---------------------------------------------------------------------------------------------------- centre of mass
def _mass(sinograms: Float[np.ndarray, "view y x"], angles: Float[np.ndarray, " view"]) -> float | None:
    """Constant of the sinusoid that the centre of mass follows; `None` where mass leaves the detector or is lost."""
    views = sinograms.astype(float).sum(1)
    total = views.sum(-1)
    if not _within(sinograms) or total.min() <= 0 or np.ptp(total) > 0.2 * total.mean():
        return None
    return _middle_of_circle((views @ np.arange(sinograms.shape[-1])) / total, angles)


def _middle_of_circle(columns: Float[np.ndarray, " view"], angles: Float[np.ndarray, " view"]) -> float:
    basis = np.stack([np.ones_like(angles), np.cos(angles), np.sin(angles)], 1)
    return float(np.linalg.lstsq(basis, columns, rcond=None)[0][0])


def find_isolated_centre(lines: Float[np.ndarray, "view z x"], angles: Float[np.ndarray, " view"]) -> float | None:
    """Find the column of the axis about which the centre of mass of an isolated sample moves in a sinusoid.

    Retrieved phases have large low-frequency noise, which moves their centre of mass: only what stands out of it
    counts.

    **Returns:** `None` where the sample reaches the border or the angles span less than a right angle.
    """
    count = max(2, lines.shape[2] // 16)
    border = np.concatenate([lines[:, :, :count], lines[:, :, -count:]], 2)
    smooth = lines - np.median(border, (1, 2))[:, None, None]
    for axis in (1, 2):
        gauss = gaussian(np.fft.rfftfreq(lines.shape[axis]), 1.5)
        spectrum = np.moveaxis(np.fft.rfft(smooth, axis=axis), axis, -1) * gauss
        smooth = np.moveaxis(np.fft.irfft(spectrum, lines.shape[axis]), -1, axis)
    mass = np.maximum(smooth - 0.25 * np.percentile(smooth, 99), 0)
    total = mass.sum((1, 2))
    touches = mass[:, :, [0, -1]].sum() > 0.002 * mass.sum()
    if touches or not (total > 0.1 * np.median(total)).all() or np.ptp(angles) < np.pi / 2:
        return None
    return _middle_of_circle((mass.sum(1) * np.arange(lines.shape[2])).sum(1) / total, angles)


def _within(sinograms: Float[np.ndarray, "view y x"]) -> bool:
    """Tell whether the sample stays within the detector in all views."""
    reach = max(2, sinograms.shape[-1] // 64)
    edges = np.concatenate([sinograms[..., :reach], sinograms[..., -reach:]], -1).mean(-1)
    return bool(np.abs(edges).max() <= 0.03 * np.quantile(sinograms, 0.98))


# ---------------------------------------------------------------------------------------------------- reconstruction
def _reconstruction(sinograms: Float[np.ndarray, "view y x"], angles: Float[np.ndarray, " view"], near: float) -> float:
    """Centre of least disagreement between the views and their own filtered back-projection, around another guess."""
    return _least(_back_projected, sinograms, angles, [near], (_SMALL, _FEW))[0]


def _refereed(
    sinograms: Float[np.ndarray, "view y x"], angles: Float[np.ndarray, " view"], guesses: list[float]
) -> tuple[float, bool]:
    """Centre at which a few steps of least squares leave least unexplained, around the best of some guesses; whether
    it stands out."""
    return _least(_least_squares, sinograms, angles, guesses, _REFEREE[:2])


def _least(
    image_of: Callable[[ParallelProjector, Array], Array],
    sinograms: Float[np.ndarray, "view y x"],
    angles: Float[np.ndarray, " view"],
    guesses: list[float],
    size: tuple[int, int],
) -> tuple[float, bool]:
    """Minimise over the centre what an image leaves of the views, coarse to fine, on a row reduced to `size` columns
    and views; whether the minimum is deep."""
    step = max(1, -(-sinograms.shape[-1] // size[0]))
    views = spread(len(angles), size[1])
    row = sinograms[views, sinograms.shape[1] // 2]
    columns = row.shape[-1] // step
    small = row[:, : columns * step].reshape(len(views), columns, step).mean(-1)
    reduced, middle = (np.asarray(guesses, float) - (step - 1) / 2) / step, (columns - 1) / 2
    reach = columns / _REACH
    furthest = middle + np.max(np.abs(reduced - middle)) + reach
    # Large enough for a sample around the axis wherever that is.
    side = int(np.ceil(columns + 2 * (furthest - middle)))
    A = ParallelProjector(angles[views], (side, side), columns, centre=furthest, kernel_width=4, oversampling=2)
    costs = lambda places: np.asarray(
        _misfits(image_of, A, small, np.resize(places, _PLACES).astype(np.float32)), float
    )
    best = reduced[np.argmin(costs(reduced)[: len(reduced)])] if len(reduced) > 1 else reduced[0]
    low, high = best - reach, best + reach
    places, left, k, deep = np.zeros(0), np.zeros(0), 0, False
    for turn in range(3):
        places = np.linspace(max(low, best - reach), min(high, best + reach), _PLACES)
        left = costs(places)
        k = int(np.argmin(left))
        deep = bool(np.median(left) > _DEEP * left[k]) and 0 < k < _PLACES - 1 if turn == 0 else deep
        best, reach = places[k], reach / 4
    if 1 <= k <= len(places) - 2:
        bend = left[k - 1] - 2 * left[k] + left[k + 1]
        best += (places[1] - places[0]) * 0.5 * (left[k - 1] - left[k + 1]) / bend if bend > 0 else 0.0
    return float(best * step + (step - 1) / 2), deep


@partial(jax.jit, static_argnames="image_of")
def _misfits(
    image_of: Callable[[ParallelProjector, Array], Array],
    A: ParallelProjector,
    data: Float[Array, "view u"],
    centres: Float[Array, " centre"],
) -> Float[Array, " centre"]:
    """Add up what an image made of the views leaves of them, for every centre."""

    def cost(centre):
        moved = eqx.tree_at(lambda A: A.centre, A, centre.astype(A.centre.dtype))
        return jnp.sum((moved(image_of(moved, data)) - data) ** 2)

    return jax.lax.map(cost, centres)


def _back_projected(A: ParallelProjector, data: Array) -> Array:
    return fbp(A, data, pad="edge", filter="hann")


def _least_squares(A: ParallelProjector, data: Array) -> Array:
    return conjugate_gradients(lambda x: A.adjoint(A(x)), A.adjoint(data), steps=_REFEREE[2])[0]
