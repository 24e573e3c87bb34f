"""Find the geometry of a parallel-beam scan from its data, together with the volume, in one least-squares problem.

Projections depend linearly on the volume and, for small steps, on the geometry. Each step solves for both at once by
conjugate gradients (Gauss-Newton on a separable problem: G. Golub and V. Pereyra, Inverse Problems 19, R1 (2003)), so
that the volume does not absorb what the geometry explains, as it does where the two are improved in turn. It goes from
binned data to full ones and starts from what a parallel beam conserves.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._console import Console
from ..errors import InputError
from ..motion import FREEDOMS, Motion, drift_basis, fix_gauge, without_freedoms
from ..operators.detector import AlignedProjector
from ..priors import filtered
from .linear.least_squares import cgls

__all__ = ["Alignment", "TiltSearch", "align", "refine_tilt"]

# The field of a motion that makes each motion of the picture, where the names differ.
_FIELDS = {"row": "shifts", "column": "shifts", "angle": "angles"}
_SMALLEST = (32, 8)  # columns and rows below which data are not binned further
_SOON = {"centre", "shifts", "roll"}  # unknowns that converge in few steps
_ROUNDS, _MOVES, _SHRINK = 2, 6, 4  # of the search for the tilt
_SMOOTHING = 1.5  # [pixel] of the data it looks at
_VOLUME_STEPS = 10  # conjugate gradients for the volume alone, at the start of a level


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Hold a geometry and what came with it.

    **Fields:** `motion`; `volume` `(z, y, x)` [1/pixel], in it, by least squares
    (slices beyond the detector's rows included: `projector.volume_shape`); `projector`, which predicts the data from
    it; `messages` in words; `history`, one row a step: binning, relative residual, largest motion of a pixel by the
    step [pixel]."""

    motion: Motion
    volume: Float[Array, "z y x"]
    projector: AlignedProjector
    messages: tuple[str, ...]
    history: Float[np.ndarray, "step 3"]


def align(
    sinogram: Float[ArrayLike, "view *row column"],
    angles: Float[ArrayLike, " view"],
    *,
    unknowns: Sequence[str] = ("centre", "shifts", "roll"),
    centre: float | None = None,
    start: Motion | None = None,
    size: int | None = None,
    levels: Sequence[int] | None = None,
    steps: int | None = None,
    cg_steps: int = 25,
    reach: float = 8.0,
    tolerance: float = 0.01,
    drift: int = 4,
    console: Console | None = None,
) -> Alignment:
    """Find the geometry of a parallel-beam scan together with its volume.

    **Arguments:**

    - `sinogram`: line integrals `(view, row, column)`; `(view, column)` of one row will do where nothing moves along
      rows.
    - `angles`: nominal, any order, evenly spaced or not [rad].
    - `unknowns`: names of `diffrecon.motion.FREEDOMS`.
    - `centre`: first guess [pixel], the middle of the detector by default; or a whole geometry `start`, which is also
      how known parts of it are given.
    - `size`: pixels of a slice along x and y; the detector's columns by default.
    - `levels`: binning factors, from coarse to fine; 4, 2, 1 by default, as far as 32 columns and 8 rows are left.
    - `steps`: at most, on each level; by default 6, and 12 where more is unknown than centre, shifts and roll;
      `cg_steps`: conjugate gradients in each.
    - `reach`: the largest shift along rows that is looked for in the first guess [pixel].
    - `tolerance`: a level ends when no pixel has moved by more in two steps [its pixels].
    - `drift`: number of cosines of the unknown "drift".

    **First guess of shifts and centre:** each row's sum is the same in every view, and the centre of mass of a view
    moves as a sine of the angle. An object that leaves the field, or goes on above and below it, breaks one or both;
    so this guess is taken only if a reconstruction from it explains the binned data better than no shifts do.

    **Returns:** an `Alignment`, whose messages name the freedoms that no data can tell, and how they were fixed.

    **Raises:** `InputError` for wrong shapes, non-finite data, unknown names, angles in degrees, less than 8 views.

    **Cost:** a step is `2 cg_steps` projections of its level; the finest level takes nearly all of it. Use some of the
    rows (some 64 about the middle) of a large detector.

    ```python
    angles = np.linspace(0, np.pi, 24, endpoint=False)
    y, x = np.mgrid[:32, :32] - 15.5
    sample = jnp.asarray(np.hypot(x - 3, y + 4) < 7, jnp.float32)[None]
    truth = AlignedProjector(angles, (32, 32), (1, 32), Motion(17.0))
    found = align(truth(sample), angles, unknowns=("centre",), levels=(1,), steps=3)
    assert abs(float(found.motion.centre) - 17.0) < 0.1
    ```
    """
    console = console or Console(quiet=True)
    data, angles = _checked(sinogram, angles)
    names, messages = _possible(unknowns, data.shape[1])
    steps = steps or (6 if set(names) <= _SOON else 12)
    geometry = start or Motion((data.shape[2] - 1) / 2 if centre is None else centre)
    before, known = geometry, geometry.known()
    # With the fields that make the motions of the unknowns; those that are no unknowns stay zero and go at the end.
    geometry = geometry.freed(
        [*names, *(_FIELDS.get(k, k) for n in names for k in FREEDOMS[n].moves)], angles.size, drift
    )
    levels = tuple(levels or _levels(data.shape))
    coarse = _Level.make(data, angles, levels[0], size)
    if {"centre", "shifts"} & set(names):
        geometry, said = _first_guess(data, angles, geometry, names, coarse, reach)
        messages += said
    history: list[tuple[float, float, float]] = []
    volume = projector = None
    for factor in levels:
        level = _Level.make(data, angles, factor, size)
        progress = console.progress(steps, f"alignment, binned by {factor}: step")
        geometry, volume, projector = _refine(level, geometry, names, steps, cg_steps, tolerance, history, progress)
    assert volume is not None and projector is not None
    geometry = geometry.only([*known, *names])
    messages += [*geometry.changes(before, names), *_verdict(history, names, levels[-1], tolerance)]
    return Alignment(geometry, volume, projector, tuple(messages), np.asarray(history))


# ---------------------------------------------------------------------------------------------------- levels
@dataclasses.dataclass(frozen=True)
class _Level:
    """Hold binned data, and change a geometry to and from their pixels."""

    data: Float[Array, "view row column"]
    angles: Float[np.ndarray, " view"]
    factor: int
    size: int

    @classmethod
    def make(cls, data: Array, angles: np.ndarray, factor: int, size: int | None) -> "_Level":
        views, rows, columns = data.shape
        high = 1 if rows == 1 else factor
        cut = data[:, : rows // high * high, : columns // factor * factor]
        binned = cut.reshape(views, rows // high, high, columns // factor, factor).mean((2, 4))
        return cls(binned, angles, factor, max(2, (size or columns) // factor))

    def coarse(self, geometry: Motion) -> Motion:
        f = self.factor
        return geometry.scaled(1 / f, (geometry.centre - (f - 1) / 2) / f)

    def fine(self, geometry: Motion) -> Motion:
        f = self.factor
        return geometry.scaled(f, geometry.centre * f + (f - 1) / 2)

    def projector(self, geometry: Motion) -> AlignedProjector:
        """Make the projector of a geometry in pixels of the level."""
        _, rows, columns = self.data.shape
        return AlignedProjector(self.angles, (self.size, self.size), (rows, columns), geometry)


def _levels(shape: tuple[int, ...]) -> tuple[int, ...]:
    rows, columns = shape[1:]
    wide = lambda f: columns // f >= _SMALLEST[0] and (rows == 1 or rows // f >= _SMALLEST[1])
    return tuple(f for f in (4, 2) if wide(f)) + (1,)


# ---------------------------------------------------------------------------------------------------- one level
def _refine(
    level: _Level,
    geometry: Motion,
    names: tuple[str, ...],
    steps: int,
    cg_steps: int,
    tolerance: float,
    history: list,
    progress,
) -> tuple[Motion, Array, AlignedProjector]:
    """Take Gauss-Newton steps on the data of a level; a step that raises the misfit is halved once."""
    geometry = level.coarse(geometry)
    A = level.projector(geometry)
    vector, volume = _volume_alone(A, level.data)
    misfit, before = _misfit(A, volume, level.data), math.inf
    for step in range(1, steps + 1):
        joint = _linearised(A, volume, names)
        solution = cgls(joint, level.data, x0=joint.start(vector), steps=cg_steps)
        volume, numbers = joint.parts(solution.x)
        vector = solution.x[: vector.size]
        trial = _stepped(geometry, numbers)
        new = _misfit(A.at(trial), volume, level.data)
        if not new < 1.5 * max(misfit, float(solution.history[-1])):
            trial = _stepped(geometry, {n: v / 2 for n, v in numbers.items()})
            new = _misfit(A.at(trial), volume, level.data)
        moved = _largest_motion(geometry, trial, A)
        geometry, A, misfit = trial, A.at(trial), new
        history.append((level.factor, misfit, moved * level.factor))
        progress.update(step, residual=misfit, moved=moved * level.factor)
        # One small step may be a turning point: steps towards a pitch alternate.
        if max(moved, before) < tolerance:
            break
        before = moved
    return level.fine(geometry), volume, A


def _volume_alone(A: AlignedProjector, data: Array) -> tuple[Array, Array]:
    """Solve least squares in a fixed geometry, for the vector of `_Joint` and the volume."""
    joint = _Joint(A, {}, {}, ())
    solution = cgls(joint, data, x0=joint.start(None), steps=_VOLUME_STEPS)
    return solution.x, joint.parts(solution.x)[0]


@eqx.filter_jit
def _relative(A: AlignedProjector, volume: Array, data: Array) -> Array:
    return jnp.linalg.norm((A(volume) - data).ravel()) / jnp.linalg.norm(data.ravel())


def _misfit(A: AlignedProjector, volume: Array, data: Array) -> float:
    return float(_relative(A, volume, data))


def _stepped(geometry: Motion, numbers: Mapping[str, Array]) -> Motion:
    return geometry.replace(**{n: getattr(geometry, n) + v for n, v in numbers.items()})


def _largest_motion(old: Motion, new: Motion, A: AlignedProjector) -> float:
    """Bound the motion of a pixel of the detector, or of a voxel by turning [pixel of the level]."""
    change = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(b - a))), old, new)
    lever = dict.fromkeys(("roll", "magnification"), max(A.detector_shape) / 2)
    lever |= dict.fromkeys(("pitch", "tilt", "angles", "wobble"), A.shape[0] / 2)
    return max(value * lever.get(n, 1.0) for n, value in change.known().items())


@eqx.filter_jit
def _linearised(A: AlignedProjector, volume: Array, names: tuple[str, ...]) -> "_Joint":
    """Linearise about a volume and the projector's geometry."""
    kinds = dict.fromkeys(kind for name in names for kind in FREEDOMS[name].moves)
    if A.detector_shape[0] == 1:
        kinds.pop("row", None)
    pictures = {kind: _motion_picture(A, volume, kind) for kind in kinds}
    power = {kind: jnp.sum(picture**2, axis=(1, 2)) for kind, picture in pictures.items()}
    power = {"row": jnp.ones_like(next(iter(power.values())))} | power
    scale = {name: 1 / jnp.sqrt(_strength(A.motion, name, power) + 1e-30) for name in names}
    return _Joint(A, pictures, scale, names)


def _motion_picture(A: AlignedProjector, volume: Array, kind: str) -> Float[Array, "view row column"]:
    """Differentiate the data with every view moving by one unit."""
    field = _FIELDS.get(kind, kind)
    tangent = jax.tree.map(jnp.zeros_like, A.motion)
    one = jnp.ones_like(getattr(A.motion, field))
    if field == "shifts":
        one = one * jnp.asarray([kind == "row", kind == "column"], one.dtype)
    tangent = eqx.tree_at(lambda g: getattr(g, field), tangent, one)
    return jax.jvp(lambda g: A.at(g)(volume), (A.motion,), (tangent,))[1]


def _strength(geometry: Motion, name: str, power: Mapping[str, Array]) -> Array:
    """Sum the squares of what a unit of each number does to the data; views without contrast count as faint ones."""
    each = [power[kind] for kind in FREEDOMS[name].moves]
    like = getattr(geometry, name)
    if name == "drift":
        return jnp.broadcast_to(jnp.stack([jnp.sum(p) / 2 for p in each]), like.shape)
    if like.ndim == 0:
        return jnp.sum(each[0])
    strength = jnp.stack(each, -1) if like.ndim == 2 else each[0]
    return strength + 1e-2 * jnp.mean(strength, axis=0)


# ---------------------------------------------------------------------------------------------------- joint problem
class _Joint(eqx.Module):
    """Map one vector of volume and geometry to data, scaled so that conjugate gradients converge soon.

    The volume is the vector's first part filtered by the root of a ramp (A'A has nearly the spectrum 1/|k|), the
    geometry's numbers are divided by the norm of what they do to the data.
    """

    A: AlignedProjector
    pictures: dict[str, Float[Array, "view row column"]]
    scale: dict[str, Array]
    names: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, vector: Float[Array, " n"]) -> Float[Array, "view row column"]:
        volume, numbers = self.parts(vector)
        return self.A(volume) + self._motion(numbers)

    def adjoint(self, rows: Float[Array, "view row column"]) -> Float[Array, " n"]:
        like = jnp.zeros((self._length(),), rows.dtype)
        volume = _half_ramp(self.A.adjoint(rows), self.A.angles.shape[0]).ravel()
        if not self.pictures:
            return jnp.concatenate([volume, like[volume.size :]])
        moved = jax.linear_transpose(lambda vector: self._motion(self._numbers(vector)), like)(rows)[0]
        return jnp.concatenate([volume, moved[volume.size :]])

    def start(self, volume: Float[Array, " m"] | None) -> Float[Array, " n"]:
        """Begin with no change of the geometry, and the volume's part of a vector from before, or an empty volume."""
        vector = jnp.zeros((self._length(),), self.A.motion.centre.dtype)
        return vector if volume is None else vector.at[: math.prod(self.A.volume_shape)].set(volume)

    def parts(self, vector: Float[Array, " n"]) -> tuple[Float[Array, "z y x"], dict[str, Array]]:
        """Split a vector into the volume and the change of the geometry."""
        size = math.prod(self.A.volume_shape)
        volume = _half_ramp(vector[:size].reshape(self.A.volume_shape), self.A.angles.shape[0])
        return volume, self._numbers(vector)

    def _length(self) -> int:
        return math.prod(self.A.volume_shape) + sum(s.size for s in self.scale.values())

    def _numbers(self, vector: Array) -> dict[str, Array]:
        at, numbers = math.prod(self.A.volume_shape), {}
        for name in self.names:
            scale = self.scale[name]
            numbers[name] = vector[at : at + scale.size].reshape(scale.shape) * scale
            at += scale.size
        return without_freedoms(numbers, jnp.asarray(self.A.angles))

    def _motion(self, numbers: Mapping[str, Array]) -> Array:
        amounts = _amounts(numbers, self.A.angles.shape[0])
        moved = [amounts[kind][:, None, None] * picture for kind, picture in self.pictures.items()]
        return sum(moved[1:], moved[0]) if moved else jnp.zeros(())


def _half_ramp(volume: Float[Array, "z y x"], views: int) -> Float[Array, "z y x"]:
    ky, kx = np.fft.fftfreq(volume.shape[1])[:, None], np.fft.rfftfreq(volume.shape[2])[None]
    ramp = np.sqrt(np.pi / views * np.maximum(np.hypot(ky, kx), 0.5 / max(volume.shape[1:])))
    return filtered(volume, jnp.asarray(ramp, volume.dtype)[None])


def _amounts(numbers: Mapping[str, Array], views: int) -> dict[str, Float[Array, " view"]]:
    """Sum up how much each kind of motion moves each view."""
    parts: list[tuple[str, Array]] = []
    for name, value in numbers.items():
        if name == "drift":
            value = jnp.asarray(drift_basis(views, value.shape[0]), value.dtype) @ value
        columns = value.T if name in ("shifts", "drift", "wobble") else [value]
        parts += [(kind, jnp.broadcast_to(v, (views,))) for kind, v in zip(FREEDOMS[name].moves, columns, strict=True)]
    kinds = dict.fromkeys(kind for kind, _ in parts)
    return {kind: jnp.sum(jnp.stack([v for k, v in parts if k == kind]), axis=0) for kind in kinds}


# ---------------------------------------------------------------------------------------------------- first guess
def _first_guess(
    data: Array, angles: np.ndarray, geometry: Motion, names: tuple[str, ...], level: _Level, reach: float
) -> tuple[Motion, list[str]]:
    """Choose the start, or the geometry that conserves mass, whichever explains the binned data better."""
    guess = _conserved(np.asarray(data, np.float64), angles, geometry, names, reach)
    misfits = []
    for candidate in (geometry, guess):
        A = level.projector(level.coarse(candidate))
        misfits.append(_misfit(A, _volume_alone(A, level.data)[1], level.data))
    said = f"relative residual {misfits[1]:.4f} against {misfits[0]:.4f} of the given geometry"
    if misfits[1] < misfits[0]:
        return guess, [f"first guess from sums of rows and centres of mass: {said}"]
    return geometry, [f"first guess: as given (sums of rows and centres of mass are not conserved: {said})"]


def _conserved(data: np.ndarray, angles: np.ndarray, geometry: Motion, names: tuple[str, ...], reach: float) -> Motion:
    views, rows, columns = data.shape
    row = np.zeros(views)
    if "shifts" in names and rows >= 4:
        row = _row_shifts(data.sum(2), min(reach, rows / 2 - 1))
    mass, moment = _common_rows(data.sum(2), row), _common_rows(data @ np.arange(columns), row)
    middle = moment / np.where(np.abs(mass) > 0, mass, 1)
    shifts, constant = fix_gauge(np.stack([row, middle], 1), angles, sine=True)
    if "shifts" not in names:
        return geometry.replace(centre=constant)
    if "centre" in names:
        return geometry.replace(centre=constant, shifts=shifts)
    return geometry.replace(shifts=shifts.at[:, 1].add(constant - geometry.centre))


def _row_shifts(profiles: Float[np.ndarray, "view row"], reach: float) -> Float[np.ndarray, " view"]:
    """Find shifts along rows that lay the profiles on their mean, by least squares over the rows that overlap."""
    views, rows = profiles.shape
    grid, tried = np.arange(rows), np.arange(-reach, reach + 0.125, 0.25)
    moved = np.stack([[np.interp(grid + t, grid, p) for p in profiles] for t in tried])
    inside = np.stack([(grid + t >= 0) & (grid + t <= rows - 1) for t in tried]).astype(float)
    median = np.median(profiles, axis=0)
    reference, seen = profiles[np.argmin(np.sum((profiles - median) ** 2, axis=1))], np.ones(rows)
    shifts = np.zeros(views)
    for _ in range(6):
        weight = inside * seen
        cost = np.einsum("tvr,tr->tv", (moved - reference) ** 2, weight) / np.maximum(weight.sum(1), 1)[:, None]
        best = np.clip(cost.argmin(0), 1, tried.size - 2)
        before, at, after = (cost[best + i, np.arange(views)] for i in (-1, 0, 1))
        bend = before - 2 * at + after
        shifts = tried[best] + 0.125 * np.where(bend > 0, (before - after) / np.where(bend > 0, bend, 1), 0)
        shifts -= shifts.mean()
        there = [(grid + s >= 0) & (grid + s <= rows - 1) for s in shifts]
        laid = [np.interp(grid + s, grid, p) * ok for s, p, ok in zip(shifts, profiles, there, strict=True)]
        count = np.sum(there, axis=0)
        reference, seen = np.sum(laid, axis=0) / np.maximum(count, 1), (count > views / 2).astype(float)
    return shifts


def _common_rows(profiles: Float[np.ndarray, "view row"], shifts: Float[np.ndarray, " view"]) -> np.ndarray:
    """Add up the part of the sample that every view sees."""
    rows = profiles.shape[1]
    first, last = math.ceil(-shifts.min()), math.floor(rows - 1 - shifts.max())
    places = np.arange(first, last + 1) if last >= first else np.arange(rows)
    return np.array([np.interp(places + s, np.arange(rows), p).sum() for s, p in zip(shifts, profiles, strict=True)])


# ---------------------------------------------------------------------------------------------------- words and checks
def _verdict(history: list, names: tuple[str, ...], finest: int, tolerance: float) -> list[str]:
    factor, misfit, moved = history[-1]
    lines = [
        f"geometry ({', '.join(names)}) after {len(history)} steps: relative residual {misfit:.4f}, the last step "
        f"moved no pixel by more than {moved:.3f}"
    ]
    if moved > 10 * tolerance * finest:
        lines.append("the geometry is still moving: give more steps, fewer unknowns, or a better start")
    if "wobble" in names:
        lines.append("wobble is found in part only: in simulations half of it was left")
    if free := [FREEDOMS[n].undetermined for n in names if FREEDOMS[n].undetermined]:
        lines.append("what no data can tell was set to zero: " + "; ".join(free))
    return lines


def _possible(unknowns: Sequence[str], rows: int) -> tuple[tuple[str, ...], list[str]]:
    """List the unknowns that the data can tell, each once."""
    Motion(0.0).freed(unknowns, 1)  # refuses names that do not exist
    names = tuple(dict.fromkeys(unknowns))
    if not names:
        raise InputError("align: name at least one unknown, such as centre")
    if {"drift", "shifts"} <= set(names):
        raise InputError("align: shifts of every view contain any drift; give one of the two")
    blind = [n for n in ("roll", "pitch", "tilt", "wobble") if n in names] if rows == 1 else []
    if blind and not (names := tuple(n for n in names if n not in blind)):
        raise InputError(f"align: {', '.join(blind)} cannot be told from one row")
    return names, [f"{', '.join(blind)} left out: one row cannot tell"] if blind else []


def _checked(sinogram: ArrayLike, angles: ArrayLike) -> tuple[Array, np.ndarray]:
    data, turned = np.asarray(sinogram), np.asarray(angles, np.float64)
    data = data[:, None] if data.ndim == 2 else data
    if data.ndim != 3 or turned.shape != data.shape[:1] or data.shape[0] < 8 or data.shape[2] < 8:
        raise InputError(
            f"align: line integrals must be (view, row, column), at least 8 views of 8 columns, and "
            f"angles one a view; got {data.shape} and {turned.shape}"
        )
    if not np.all(np.isfinite(data)) or not np.all(np.isfinite(turned)):
        raise InputError("align: line integrals and angles must be finite; mask or repair dead pixels before")
    if np.ptp(turned) > 8 * np.pi + 1e-3:
        raise InputError(f"align: angles span {np.ptp(turned):.1f} rad, more than four turns: are they in degrees?")
    if not np.any(data):
        raise InputError("align: the line integrals are all zero")
    # The geometry's precision: float32 unless x64 is on and the data have it.
    return jnp.asarray(data, jnp.result_type(float) if data.dtype == np.float64 else np.float32), turned


# ---------------------------------------------------------------------------------------------------- tilt
class TiltSearch(NamedTuple):
    """Hold a tilt and how it was found.

    **Fields:** `tilt` [rad]; `tried` (tilt, relative residual) of every solve; `message`."""

    tilt: float
    tried: tuple[tuple[float, float], ...]
    message: str


def refine_tilt(
    A: AlignedProjector, integrals: Float[Array, "view row column"], *, span: float = 0.017, steps: int = 12
) -> TiltSearch:
    """Find the tilt [rad] at which a few steps of conjugate gradients explain the data best (variable projection).

    Three tilts make a parabola; the search goes on about its vertex, first until the best lies between the others, then
    with a quarter of the distance. Data are smoothed by a Gaussian first, which no pose minds (the object is smoothed
    by the same): the edges that voxels cannot hold would pull the tilt aside (by 0.8 degrees in a volume of 20^3).

    **Arguments:** `A`, whose motion has a tilt, the first guess; `span` [rad], the first distance; the tilt may move by
    about two degrees in all.

    **Cost:** about seven solves of `steps` steps, compiled once.

    **Raises:** `InputError` for a span that is not positive.
    """
    if not (np.isfinite(span) and span > 0):
        raise InputError(f"align.span: {span} must be a positive angle [rad]")
    tried: dict[float, float] = {}
    smooth = _smoothed(integrals)

    def residual(tilt: float) -> float:
        if tilt not in tried:
            tried[tilt] = float(cgls(A.at(A.motion.replace(tilt=tilt)), smooth, steps=steps).history[-1])
        return tried[tilt]

    first = tilt = float(A.motion.tilt)  # type: ignore[arg-type]
    between = False
    for _ in range(_ROUNDS):
        for _ in range(_MOVES):
            tilt, between = _parabola_step(residual, tilt, span)
            if between:
                break
        span /= _SHRINK
    message = f"tilt {np.rad2deg(tilt):.3f} deg found by the residual ({np.rad2deg(first):.3f} deg given)"
    if not between:
        message = f"tilt: no minimum of the residual near {np.rad2deg(tilt):.3f} deg; it is not to be trusted"
    return TiltSearch(tilt, tuple(sorted(tried.items())), message)


@jax.jit
def _smoothed(images: Float[Array, "view row column"]) -> Float[Array, "view row column"]:
    reach = int(np.ceil(4 * _SMOOTHING))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _SMOOTHING) ** 2)
    for axis in (1, 2):
        padded = jnp.pad(images, [(reach, reach) if a == axis else (0, 0) for a in range(3)], mode="edge")
        parts = [jax.lax.slice_in_dim(padded, i, i + images.shape[axis], axis=axis) for i in range(len(kernel))]
        images = sum((w * p for w, p in zip(kernel[1:], parts[1:], strict=True)), kernel[0] * parts[0]) / kernel.sum()
    return images


def _parabola_step(residual: Callable[[float], float], tilt: float, span: float) -> tuple[float, bool]:
    """Step to the vertex when the middle of three tilts is the best, else to the better neighbour."""
    low, middle, high = (residual(tilt + side * span) ** 2 for side in (-1, 0, 1))
    if middle > min(low, high):
        return (tilt - span, False) if low < high else (tilt + span, False)
    bend = low - 2 * middle + high
    return tilt + (span * (low - high) / (2 * bend) if bend > 0 else 0.0), True
