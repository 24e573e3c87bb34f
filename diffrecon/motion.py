"""Where sample and detector were in a tomographic scan: one set of unknowns, one sign.

A point of the sample at height z and at u from the rotation axis (both from the middle of the volume, [pixel]) falls on

    row    = (rows - 1)/2 + shift_row    + M ( z cos(roll) + u sin(roll))
    column = centre       + shift_column + M (-z sin(roll) + u cos(roll))

so that **positive shifts move the picture towards larger indices**, and a positive roll turns it from the columns
towards the rows (clockwise as displayed). M is the magnification of a view. A positive pitch inclines the axis along
the beam: what lies downstream of the axis moves towards larger rows, z -> z cos(pitch) + t sin(pitch), t = y
cos(theta) - x sin(theta). The tilt of laminography is the same motion by a known, large angle, counted the other way.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .errors import InputError, nearest

__all__ = ["FREEDOMS", "Freedom", "Motion", "drift_basis", "fix_gauge", "without_freedoms"]

_STEEP = math.radians(30)  # three shears lose the corners of Fourier space as tan(roll / 2)


class Freedom(NamedTuple):
    """Describe one unknown of a motion.

    **Fields:** `unit`; `step`, by which a picture of some 1000 pixels changes visibly; `moves`, the motions of the
    picture that it is made of; `shape`, "" for one number, or made of "view", "order" (of the drift) and 2; `meaning`;
    `undetermined`, the part of it that no data can tell.
    """

    unit: str
    step: float
    moves: tuple[str, ...]
    shape: str
    meaning: str
    undetermined: str = ""


# fmt: off
FREEDOMS: dict[str, Freedom] = {
    "centre": Freedom("pixel", 0.1, ("column",), "", "detector column of the rotation axis in the middle row"),
    "shifts": Freedom("pixel", 0.1, ("row", "column"), "view 2", "motion of the picture of each view (row, column)",
                      "moving the sample (shifts constant along rows, or as cos and sin of the angle along columns); "
                      "a constant along columns is the rotation centre"),
    "drift": Freedom("pixel", 0.1, ("row", "column"), "order 2", "smooth motion (row, column), coefficients of "
                     "cos(pi k (view + 1/2) / views), k = 1 .. order", "a constant drift, which is a shift"),
    "roll": Freedom("rad", 2e-4, ("roll",), "", "turn of the detector about the beam; the axis leans in the picture"),
    "pitch": Freedom("rad", 2e-4, ("pitch",), "", "inclination of the axis along the beam, within 30 degrees"),
    "tilt": Freedom("rad", 2e-4, ("tilt",), "", "inclination of the axis by any angle: a pitch of -tilt"),
    "angles": Freedom("rad", 2e-4, ("angle",), "view", "corrections, added to the nominal angles",
                      "turning the sample (a constant angle)"),
    "magnification": Freedom("", 2e-4, ("magnification",), "view", "size of the picture, 1 nominal",
                             "the size of the sample (mean magnification)"),
    "wobble": Freedom("rad", 2e-4, ("roll", "pitch"), "view 2", "roll and pitch of the axis in each view, added",
                      "leaning the sample (wobble as cos and sin of the angle), and its mean: roll and pitch"),
}
# fmt: on


def _number(value: Any) -> Any:
    """Make an array, in the precision of NumPy's float64 only where x64 is on."""
    return None if value is None else jnp.asarray(value, jnp.result_type(float))


def _maybe() -> Any:
    return eqx.field(default=None, converter=_number)


class Motion(eqx.Module):
    """Hold where axis and detector were in a parallel-beam scan; everything that is not `None` may be an unknown.

    The fields are those of the table `FREEDOMS`, which says shape, unit and meaning of each; signs are those at the top
    of `diffrecon.motion`. `shifts` and `drift` add up.

    ```python
    motion = Motion(31.5, roll=0.01).freed(("shifts",), views=40)   # shifts of zero, not None
    ```
    """

    centre: Float[Array, ""] = eqx.field(converter=_number)
    shifts: Float[Array, "view 2"] | None = _maybe()
    drift: Float[Array, "order 2"] | None = _maybe()
    roll: Float[Array, ""] | None = _maybe()
    pitch: Float[Array, ""] | None = _maybe()
    tilt: Float[Array, ""] | None = _maybe()
    angles: Float[Array, " view"] | None = _maybe()
    magnification: Float[Array, " view"] | None = _maybe()
    wobble: Float[Array, "view 2"] | None = _maybe()

    def known(self) -> dict[str, Any]:
        """Name the fields that are numbers."""
        return {name: getattr(self, name) for name in FREEDOMS if getattr(self, name) is not None}

    def replace(self, **values: Any) -> "Motion":
        """Make the same motion with other values of some fields; `None` takes one out."""
        return dataclasses.replace(self, **values)

    def freed(self, unknowns: Sequence[str], views: int, drift: int = 4) -> "Motion":
        """Make the same motion with the named fields as numbers instead of `None`.

        **Raises:** `InputError` for a name that is not in `FREEDOMS`.
        """
        values: dict[str, Any] = {}
        for name in unknowns:
            if name not in FREEDOMS:
                raise InputError(
                    f"geometry has no unknown {name!r}{nearest(name, FREEDOMS)}: give {', '.join(FREEDOMS)}"
                )
            if getattr(self, name) is None:
                values[name] = np.full(self._shape(name, views, drift), 1.0 if name == "magnification" else 0.0)
        return self.replace(**values)

    @staticmethod
    def _shape(name: str, views: int, order: int) -> tuple[int, ...]:
        return tuple({"view": views, "order": order, "2": 2}[axis] for axis in FREEDOMS[name].shape.split())

    def only(self, names: Iterable[str]) -> "Motion":
        """Keep the named fields and the centre."""
        kept = {"centre", *names}
        return self.replace(**{name: None for name in FREEDOMS if name not in kept})

    def scaled(self, factor: float, centre: ArrayLike) -> "Motion":
        """Multiply all lengths, as for pixels that are `factor` times smaller, and put the axis on a column."""
        lengths = {name: value * factor for name, value in self.known().items() if name in ("shifts", "drift")}
        return self.replace(**lengths, centre=centre)

    def of_views(self, views: Any, count: int) -> "Motion":
        """Take the motion of some of `count` views; its drift becomes shifts."""
        each = {n: v[views] for n, v in self.known().items() if FREEDOMS[n].shape.startswith("view")}
        if self.drift is not None:
            each |= {"drift": None, "shifts": self.offsets(count)[views]}
        return self.replace(**each)

    def changes(self, before: "Motion", names: Iterable[str]) -> list[str]:
        """Say in words what each of some unknowns is, and by how much it differs from another motion.

        ```python
        assert Motion(44.5).changes(Motion(43.25), ["centre"]) == ["centre 44.500 pixel (43.250 before, +1.250)"]
        ```
        """
        return [_change(name, getattr(before, name), getattr(self, name)) for name in names]

    def offsets(self, views: int) -> Float[Array, "view 2"]:
        """Add shifts and drift: the motion of the picture of every view (row, column) [pixel]."""
        total = jnp.zeros((views, 2), self.centre.dtype) if self.shifts is None else self.shifts
        if self.drift is not None:
            total = total + jnp.asarray(drift_basis(views, self.drift.shape[0]), total.dtype) @ self.drift
        return total

    @property
    def flat(self) -> bool:
        """Tell whether motion in the detector's plane, and turning, is all there is."""
        return self.pitch is None and self.wobble is None and self.tilt is None

    def checked(self, views: int) -> "Motion":
        """Refuse shapes that do not fit so many views, numbers that are not finite, and angles that look like degrees.

        **Raises:** `InputError`.
        """
        for name, value in self.known().items():
            shape = self._shape(name, views, np.size(value) // 2)
            if np.shape(value) != shape:
                raise InputError(f"geometry.{name} must have the shape {shape}, got {np.shape(value)}")
            if not np.all(np.isfinite(np.asarray(value))):
                raise InputError(f"geometry.{name} must be finite")
        for name, value in (("roll", self.roll), ("pitch", self.pitch)):
            if value is not None and abs(float(value)) > _STEEP:
                raise InputError(f"geometry.{name} is {float(value):.3g} rad, above 30 degrees: is it in degrees?")
        if self.tilt is not None and not abs(float(self.tilt)) < math.pi / 2:
            raise InputError(f"geometry.tilt {float(self.tilt):.3g} must lie between -pi/2 and pi/2 rad")
        if self.magnification is not None and float(np.min(np.asarray(self.magnification))) <= 0:
            raise InputError("geometry.magnification must be positive")
        return self


def _change(name: str, then: Any, now: Any) -> str:
    """Say what a number is and was, or how far the numbers of an array have moved along each of its columns."""
    factor, unit = (180 / np.pi, "deg") if FREEDOMS[name].unit == "rad" else (1.0, FREEDOMS[name].unit)
    now = np.asarray(now, float)
    then = np.full(now.shape, float(name == "magnification")) if then is None else np.asarray(then, float)
    moved = (now - then) * factor
    if not now.ndim:
        was, at = float(then) * factor, float(now) * factor
        return f"{name} {at:.3f} {unit} ({was:.3f} before, {at - was:+.3f})"
    columns = moved.reshape(len(moved), -1).T
    words = ("",) if len(columns) == 1 else ("first ", "second ") if name == "wobble" else ("rows ", "columns ")
    each = [f"{w}{c.std():.3g} rms, {np.abs(c).max():.3g} at most" for w, c in zip(words, columns, strict=True)]
    return f"{name} changed by {'; '.join(each)} {unit}".rstrip()


def drift_basis(views: int, order: int) -> Float[np.ndarray, "view order"]:
    """Tabulate cosines over the views, without the constant one."""
    return np.cos(np.pi * np.outer(np.arange(views) + 0.5, np.arange(1, order + 1)) / views)


# ------------------------------------------------------------------ gauge
def fix_gauge(
    shifts: Float[ArrayLike, "view *frame 2"], angles: ArrayLike, *, sine: bool = False
) -> tuple[Float[Array, "view *frame 2"], Float[Array, ""]]:
    """Take out of shifts what the rotation centre explains, so that the same places are said in one way only.

    Shifts along columns are fitted by a constant, a cosine and a sine of the angle (least squares); the constant is the
    rotation centre. The other two are a motion of the sample, which no data can tell: they go too where `sine` is true.

    **Arguments:** `shifts` (row, column) [pixel], of one or more frames at each of the `angles` [rad].

    **Returns:** the shifts that are left, and what is to be added to the centre [pixel].

    ```python
    angles = np.linspace(0, np.pi, 20, endpoint=False)
    shifts, constant = fix_gauge(jnp.ones((20, 2)), angles)
    assert abs(float(constant) - 1) < 1e-5 and float(jnp.abs(shifts[:, 1]).max()) < 1e-5
    ```
    """
    theta, columns = np.asarray(angles, np.float64), np.asarray(shifts, np.float64)[..., 1]
    waves = np.stack([np.ones_like(theta), np.cos(theta), np.sin(theta)], 1)
    fit = np.linalg.lstsq(waves, columns.reshape(theta.size, -1).mean(1), rcond=None)[0]
    common = waves @ (fit if sine else fit * [1, 0, 0])
    columns = columns - common.reshape(-1, *[1] * (columns.ndim - 1))
    shifts = jnp.asarray(shifts)
    return shifts.at[..., 1].set(jnp.asarray(columns, shifts.dtype)), jnp.asarray(fit[0], shifts.dtype)


def without_freedoms(numbers: Mapping[str, Array], angles: Float[Array, " view"]) -> dict[str, Array]:
    """Project changes of a motion on what data can tell (orthogonally): see `Freedom.undetermined`."""
    numbers = dict(numbers)
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    one, zero = jnp.ones_like(cosine), jnp.zeros_like(cosine)
    if "shifts" in numbers:
        row, column = numbers["shifts"].T
        known = [one] if "centre" in numbers else []
        numbers["shifts"] = jnp.stack([row - jnp.mean(row), _orthogonal(column, [*known, cosine, sine])], -1)
    for name in ("angles", "magnification"):
        if name in numbers:
            numbers[name] = numbers[name] - jnp.mean(numbers[name])
    if "wobble" in numbers:
        freedoms = [jnp.concatenate(f) for f in ((-sine, cosine), (cosine, sine))]
        means = {"roll": (one, zero), "pitch": (zero, one)}
        freedoms += [jnp.concatenate(f) for name, f in means.items() if name in numbers]
        numbers["wobble"] = _orthogonal(numbers["wobble"].T.ravel(), freedoms).reshape(2, -1).T
    return numbers


def _orthogonal(values: Float[Array, " n"], directions: Sequence[Array]) -> Float[Array, " n"]:
    """Take from the values their projection on the directions."""
    basis = jnp.linalg.qr(jnp.stack(directions, 1).astype(values.dtype))[0]
    return values - basis @ (basis.T @ values)
