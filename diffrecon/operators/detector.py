"""Where the detector was: in-plane motion of images, and projections through a volume in a geometry that is unknown.

A point of the sample at height z and at u from the rotation axis (both from the middle of the volume, [pixel]) falls on

    row    = (rows - 1)/2 + shift_row    + M ( z cos(roll) + u sin(roll))
    column = centre       + shift_column + M (-z sin(roll) + u cos(roll))

so that positive shifts move the picture towards larger indices, and a positive roll turns it from the columns towards
the rows (clockwise as displayed). M is the magnification of a view. A positive pitch inclines the axis along the beam:
what lies downstream of the axis moves towards larger rows, z -> z cos(pitch) + t sin(pitch), t = y cos(theta) - x
sin(theta).

Images are moved as band-limited functions: a rotation is three shears (Unser, Thevenaz & Yaroslavsky, IEEE Trans. Image
Process. 4, 1371 (1995), eq. 6), each a phase ramp in a 1-D transform.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from ..errors import InputError, nearest
from .fourier_pose import FourierPoseProjector
from .projection import ParallelProjector, project_parallel

__all__ = ["AlignedProjector", "TomographyGeometry", "move_images"]

_WRAP = 16  # pixels over which the last value of a line leads back to the first: a step there would ring
_STEEP = math.radians(30)  # three shears lose the corners of Fourier space as tan(roll / 2)


def move_images(
    images: Float[Array, "view y x"],
    shape: tuple[int, int],
    *,
    shifts: Float[Array, "view 2"],
    roll: ArrayLike | None = None,
    magnification: Float[Array, " view"] | None = None,
    pivot: ArrayLike | None = None,
    centre: ArrayLike | None = None,
) -> Float[Array, "view row column"]:
    """Images as a shifted, rolled and magnifying detector sees them; linear in the images, differentiable in all.

    The point of the image `pivot` columns from the left, in the middle of its rows, falls on column `centre` and the
    middle row of the detector, plus the shift; about it the picture is turned and magnified (see the top of this
    file). Give images larger than the detector by the motion: what comes from beyond their edges is the way back from
    the last value to the first.

    **Arguments:** `shape` (rows, columns) of the detector; `shifts` (row, column) [pixel]; `roll` [rad], one or one a
    view, `None` for 0 (one pass less); `magnification` one a view, `None` for 1; `pivot` and `centre` [pixel], the
    middles by default.

    **Cost:** three 1-D transform pairs of the stack, two without roll, one where there is one row.

    ```python
    images = jnp.zeros((1, 32, 32)).at[0, 10, 12].set(1.0)
    moved = move_images(images, (32, 32), shifts=jnp.array([[2.0, -3.0]]))
    assert jnp.allclose(moved[0, 12, 9], 1.0, atol=1e-5)
    ```
    """
    views, height, width = images.shape
    rows, columns = shape
    dtype = images.dtype
    axis = jnp.asarray((width - 1) / 2 if pivot is None else pivot, dtype)
    aim = jnp.asarray((columns - 1) / 2 if centre is None else centre, dtype)
    shift_row, shift_column = (shifts[:, i, None].astype(dtype) for i in (0, 1))
    if magnification is not None:
        images = _magnified(images, magnification.astype(dtype), axis)
    w = jnp.arange(height, dtype=dtype) - (height - 1) / 2
    u = jnp.arange(width, dtype=dtype) - axis
    row = jnp.arange(rows, dtype=dtype) - (rows - 1) / 2 - shift_row
    along_u = axis - aim - shift_column  # (view, 1): where to read, less where it is written
    along_w = (height - rows) / 2 - shift_row
    if height == 1:
        return _read(images, jnp.broadcast_to(along_u, (views, rows)), columns)
    if roll is None:
        images = _read_rows(images, jnp.broadcast_to(along_w, (views, width)), rows)
        return _read(images, jnp.broadcast_to(along_u, (views, rows)), columns)
    turn = jnp.broadcast_to(jnp.asarray(roll, dtype), (views,))[:, None]
    shear = jnp.tan(turn / 2)
    images = _read(images, shear * w, width)
    images = _read_rows(images, along_w - jnp.sin(turn) * u, rows)
    return _read(images, along_u + shear * row, columns)


def _read(images: Float[Array, "view y x"], offsets: Float[Array, "view y"], count: int) -> Array:
    """Values at n + offset, n = 0 .. count - 1, of each line along x, as a periodic band-limited function."""
    size = images.shape[-1]
    period = _good_size(max(size + _WRAP, count))
    lines = jnp.fft.rfft(_wrapped(images, period), axis=-1)
    frequency = jnp.asarray(2 * np.pi * np.arange(period // 2 + 1) / period, images.dtype)
    phase = offsets[..., None] * frequency
    return jnp.fft.irfft(lines * jax.lax.complex(jnp.cos(phase), jnp.sin(phase)), period, axis=-1)[..., :count]


def _read_rows(images: Float[Array, "view y x"], offsets: Float[Array, "view x"], count: int) -> Array:
    return jnp.swapaxes(_read(jnp.swapaxes(images, 1, 2), offsets, count), 1, 2)


def _wrapped(images: Float[Array, "view y x"], period: int) -> Float[Array, "view y period"]:
    """Lengthened by a straight way back from the last value to the first."""
    extra = period - images.shape[-1]
    weight = jnp.asarray((np.arange(extra) + 1) / (extra + 1), images.dtype)
    bridge = images[..., -1:] * (1 - weight) + images[..., :1] * weight
    return jnp.concatenate([images, bridge], axis=-1)


def _magnified(images: Float[Array, "view y x"], factor: Float[Array, " view"], pivot: Array) -> Array:
    """Both axes scaled about (middle row, pivot)."""
    wide = _scaled(images, factor, pivot)
    if images.shape[1] == 1:
        return wide
    middle = jnp.asarray((images.shape[1] - 1) / 2, images.dtype)
    return jnp.swapaxes(_scaled(jnp.swapaxes(wide, 1, 2), factor, middle), 1, 2)


def _scaled(images: Float[Array, "view y x"], factor: Float[Array, " view"], pivot: Array) -> Array:
    """Values at pivot + (n - pivot)/factor along x: a chirp z transform (L. I. Bluestein 1970) of the line's spectrum.

    `2 k n = k^2 + n^2 - (n - k)^2` makes the sum over frequencies a convolution. Squares are reduced modulo the period
    in integers: only what the factor differs from 1 by is left to floating point.
    """
    size = images.shape[-1]
    period = _good_size(size + _WRAP)
    k, n = np.arange(period) - period // 2, np.arange(size)
    length = _good_size(period + size)
    excess = (1 / factor - 1)[:, None]

    def chirp(m: np.ndarray) -> Array:
        whole = jnp.asarray((m**2 % (2 * period)) * (np.pi / period), images.dtype)
        return whole + excess * jnp.asarray(np.pi * m**2 / period, images.dtype)

    wave = lambda phase: jax.lax.complex(jnp.cos(phase), jnp.sin(phase))
    spectrum = jnp.fft.fft(_wrapped(images, period), axis=-1)[..., k] / period
    centred = -excess * pivot * jnp.asarray(2 * np.pi * k / period, images.dtype)
    spectrum = spectrum * wave(centred + chirp(k))[:, None]
    lags = np.arange(n[0] - k[-1], n[-1] - k[0] + 1)
    kernel = jnp.fft.fft(jnp.conj(wave(chirp(lags))), length, axis=-1)
    summed = jnp.fft.ifft(jnp.fft.fft(spectrum, length, axis=-1) * kernel[:, None], axis=-1)
    return (summed[..., period - 1 : period - 1 + size] * wave(chirp(n))[:, None]).real


def _good_size(least: float) -> int:
    """The next even number with no prime factor above 5."""
    return next(n for n in range(2 * math.ceil(least / 2), 4 * math.ceil(least) + 4, 2) if _smooth(n))


def _smooth(n: int) -> bool:
    for factor in (2, 3, 5):
        while n % factor == 0:
            n //= factor
    return n == 1


class TomographyGeometry(eqx.Module):
    """Where axis and detector were in a parallel-beam scan. Everything that is not `None` may be an unknown.

    **Fields:**

    - `centre`: detector column on which the rotation axis falls in the middle row [pixel].
    - `shifts` `(view, 2)`: motion of the picture of a view (row, column) [pixel].
    - `drift` `(order, 2)`: smooth motion (row, column) [pixel], coefficients of `cos(pi k (view + 1/2) / views)`,
      k = 1 .. order; it adds to the shifts.
    - `roll`: of the detector about the beam [rad]; the axis leans in the picture.
    - `pitch`: of the axis along the beam [rad].
    - `angles` `(view,)`: corrections, added to the nominal angles [rad].
    - `magnification` `(view,)`: size of the picture, 1 nominal.
    - `wobble` `(view, 2)`: roll and pitch of the axis in each view [rad], which add to the two above.

    Signs are those at the top of this file. Not everything can be told from data: see `FREEDOMS`.

    ```python
    geometry = TomographyGeometry(31.5, roll=0.01).freed(("shifts",), views=40)   # shifts of zero, not None
    ```
    """

    centre: Float[Array, ""]
    shifts: Float[Array, "view 2"] | None
    drift: Float[Array, "order 2"] | None
    roll: Float[Array, ""] | None
    pitch: Float[Array, ""] | None
    angles: Float[Array, " view"] | None
    magnification: Float[Array, " view"] | None
    wobble: Float[Array, "view 2"] | None

    FREEDOMS: ClassVar[dict[str, str]] = {
        "shifts": "moving the sample (shifts constant along rows, or as cos and sin of the angle along columns)",
        "centre": "a constant shift along columns is the rotation centre",
        "angles": "turning the sample (a constant angle)",
        "magnification": "the size of the sample (mean magnification)",
        "wobble": "leaning the sample (wobble as cos and sin of the angle), and its mean, which is roll and pitch",
        "drift": "a constant drift, which is a shift",
    }

    def __init__(
        self,
        centre: ArrayLike,
        *,
        shifts: ArrayLike | None = None,
        drift: ArrayLike | None = None,
        roll: ArrayLike | None = None,
        pitch: ArrayLike | None = None,
        angles: ArrayLike | None = None,
        magnification: ArrayLike | None = None,
        wobble: ArrayLike | None = None,
    ):
        # In the precision of NumPy's float64 only where x64 is on.
        given = lambda value: None if value is None else jnp.asarray(value, jnp.result_type(float))
        self.centre = jnp.asarray(centre, jnp.result_type(float))
        self.shifts, self.drift, self.roll, self.pitch = map(given, (shifts, drift, roll, pitch))
        self.angles, self.magnification, self.wobble = map(given, (angles, magnification, wobble))

    @staticmethod
    def names() -> tuple[str, ...]:
        """What can be unknown."""
        return tuple(field.name for field in dataclasses.fields(TomographyGeometry))

    def freed(self, unknowns: Sequence[str], views: int, drift: int = 4) -> "TomographyGeometry":
        """The same geometry in which the named fields are numbers instead of `None`.

        **Raises:** `InputError` for a name that is none of `names()`.
        """
        shapes = {
            "shifts": (views, 2),
            "drift": (drift, 2),
            "roll": (),
            "pitch": (),
            "angles": (views,),
            "magnification": (views,),
            "wobble": (views, 2),
        }
        new = {name: getattr(self, name) for name in self.names()}
        for name in unknowns:
            if name not in new:
                raise InputError(f"geometry has no unknown {name!r}{nearest(name, new)}: give {', '.join(new)}")
            if new[name] is None:
                new[name] = np.full(shapes[name], 1.0 if name == "magnification" else 0.0)
        return TomographyGeometry(new.pop("centre"), **new)

    def offsets(self, views: int) -> Float[Array, "view 2"]:
        """Motion of the picture of every view (row, column) [pixel]: shifts and drift."""
        total = jnp.zeros((views, 2), self.centre.dtype) if self.shifts is None else self.shifts
        if self.drift is not None:
            total = total + jnp.asarray(drift_basis(views, self.drift.shape[0]), total.dtype) @ self.drift
        return total

    @property
    def flat(self) -> bool:
        """Whether motion in the detector's plane, and turning, is all there is."""
        return self.pitch is None and self.wobble is None


def drift_basis(views: int, order: int) -> Float[np.ndarray, "view order"]:
    """Cosines over the views, without the constant one."""
    return np.cos(np.pi * np.outer(np.arange(views) + 0.5, np.arange(1, order + 1)) / views)


class AlignedProjector(eqx.Module):
    """Line integrals `(view, row, column)` of a volume `(z, y, x)` as a detector out of place sees them.

    `A(volume)`, `A.adjoint(sinogram)` and the differentiation in the volume and in every field of `A.geometry` are as
    those of `ParallelProjector`; where the geometry has neither pitch nor wobble that is what works inside, and
    `move_images` moves its pictures. With them, `FourierPoseProjector` does everything (slower).

    **Arguments:**

    - `angles`: nominal, one a view [rad].
    - `shape`: (ny, nx) of a slice.
    - `detector`: (rows, columns).
    - `geometry`: a `TomographyGeometry`.
    - `slices`: of the volume; by default as many as the detector sees in any view, and `reach` on each side.
    - `reach`: pixels by which the geometry may still move after the projector has been made.

    The middle slice is on the middle row of the detector where shifts are zero.

    **Raises:** `InputError` for shapes that do not agree, non-finite numbers, a roll above 30 degrees.

    ```python
    angles = np.linspace(0, np.pi, 30, endpoint=False)
    geometry = TomographyGeometry(17.2, shifts=np.ones((30, 2)), roll=0.01)
    A = AlignedProjector(angles, (32, 32), (8, 32), geometry)
    sinogram = A(jnp.ones(A.volume_shape))      # (30, 8, 32)
    ```
    """

    geometry: TomographyGeometry
    angles: Float[np.ndarray, " view"]
    inner: ParallelProjector | FourierPoseProjector
    volume_shape: tuple[int, int, int] = eqx.field(static=True)
    detector_shape: tuple[int, int] = eqx.field(static=True)

    def __init__(
        self,
        angles: ArrayLike,
        shape: tuple[int, int],
        detector: tuple[int, int],
        geometry: TomographyGeometry,
        *,
        slices: int | None = None,
        reach: float = 4.0,
    ):
        self.angles = np.asarray(angles, np.float64)
        self.geometry = geometry
        rows, columns = (int(n) for n in detector)
        _check_geometry(geometry, self.angles, (rows, columns))
        margin_row, margin_column = _margins(geometry, self.angles.size, (rows, columns), shape, reach)
        slices = int(slices or (1 if rows == 1 and geometry.flat else rows + 2 * margin_row))
        self.volume_shape, self.detector_shape = (slices, int(shape[0]), int(shape[1])), (rows, columns)
        if geometry.flat:
            turned = self.angles + (0.0 if geometry.angles is None else np.asarray(geometry.angles, np.float64))
            self.inner = ParallelProjector(turned, self.volume_shape[1:], columns + 2 * margin_column)
        else:
            (ray, row, column), offsets = _pose(np, geometry, self.angles, columns)
            self.inner = FourierPoseProjector(ray, row, column, self.volume_shape, self.detector_shape, offsets)

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) of a slice."""
        return self.volume_shape[1:]

    @property
    def detector(self) -> int:
        """Detector columns."""
        return self.detector_shape[1]

    @property
    def centre(self) -> Float[Array, ""]:
        """`geometry.centre`."""
        return self.geometry.centre

    def subset(self, views: ArrayLike) -> "AlignedProjector":
        """A projector of some of the views, in their order, of the same volume."""
        picked = np.asarray(views)
        if picked.dtype == bool:
            picked = np.flatnonzero(picked)
        geometry, some = self.geometry, {}
        for name in ("shifts", "angles", "magnification", "wobble"):
            value = getattr(geometry, name)
            some[name] = None if value is None else value[picked]
        if geometry.drift is not None:
            some["shifts"] = geometry.offsets(self.angles.size)[picked]
        part = TomographyGeometry(geometry.centre, roll=geometry.roll, pitch=geometry.pitch, **some)
        return AlignedProjector(self.angles[picked], self.shape, self.detector_shape, part, slices=self.volume_shape[0])

    def at(self, geometry: TomographyGeometry) -> "AlignedProjector":
        """The same in another geometry, which has to have the same fields and may be traced."""
        return eqx.tree_at(lambda A: A.geometry, self, geometry)

    @eqx.filter_jit
    def __call__(
        self, volume: Float[Array, "z y x"], views: Int[Array, " batch"] | None = None
    ) -> Float[Array, "view row column"]:
        """Projections of a volume; `views` picks some, and may be traced."""
        if volume.shape != self.volume_shape:
            raise InputError(f"projector of a volume {self.volume_shape} (z, y, x) got {volume.shape}")
        if isinstance(self.inner, FourierPoseProjector):
            return self._posed()(volume, views)
        return self._moved(self._pictures(volume, views), views)

    @eqx.filter_jit
    def adjoint(
        self, sinogram: Float[Array, "view row column"], views: Int[Array, " batch"] | None = None
    ) -> Float[Array, "z y x"]:
        """The exact transpose."""
        count = self.angles.size if views is None else jnp.shape(views)[0]
        if sinogram.shape != (count, *self.detector_shape):
            raise InputError(f"adjoint of {count} views of {self.detector_shape} pixels got {sinogram.shape}")
        if isinstance(self.inner, FourierPoseProjector):
            return self._posed().adjoint(sinogram, views)
        like = jax.ShapeDtypeStruct((count, self.volume_shape[0], self.inner.detector), sinogram.dtype)
        pictures = jax.linear_transpose(lambda images: self._moved(images, views), like)(sinogram)[0]
        if self.geometry.angles is None:
            return self.inner.adjoint(pictures, views)
        volume = jax.ShapeDtypeStruct(self.volume_shape, sinogram.dtype)
        return jax.linear_transpose(lambda x: self._pictures(x, views), volume)(pictures)[0]

    def _pictures(self, volume: Array, views: Array | None) -> Float[Array, "view z u"]:
        """Projections on a detector in its place, larger than the true one."""
        assert isinstance(self.inner, ParallelProjector)
        if self.geometry.angles is None:
            return self.inner(volume, views)
        angles = jnp.asarray(self.angles, volume.dtype) + self.geometry.angles.astype(volume.dtype)
        angles = angles if views is None else angles[views]
        return project_parallel(volume, angles, detector=self.inner.detector)

    def _moved(self, pictures: Float[Array, "view z u"], views: Array | None) -> Float[Array, "view row column"]:
        shifts, magnification = self.geometry.offsets(self.angles.size), self.geometry.magnification
        if views is not None:
            shifts, magnification = shifts[views], None if magnification is None else magnification[views]
        return move_images(
            pictures,
            self.detector_shape,
            shifts=shifts,
            roll=self.geometry.roll,
            magnification=magnification,
            centre=self.geometry.centre,
        )

    def _posed(self) -> FourierPoseProjector:
        assert isinstance(self.inner, FourierPoseProjector)
        (ray, row, column), offsets = _pose(jnp, self.geometry, self.angles, self.detector_shape[1])
        return self.inner.with_poses(ray, row, column, offsets)


def _pose(xp: Any, geometry: TomographyGeometry, angles: np.ndarray, columns: int) -> tuple[tuple, Any]:
    """Ray, row, column `(view, 3)` and offsets `(view, 2)` of poses, with `xp` = numpy or jax.numpy."""
    views = angles.size
    number = lambda v, default=0.0: xp.broadcast_to(xp.asarray(default if v is None else v), (views,))
    theta = xp.asarray(angles) + number(geometry.angles)
    roll, pitch, size = number(geometry.roll), number(geometry.pitch), number(geometry.magnification, 1.0)
    if geometry.wobble is not None:
        wobble = xp.asarray(geometry.wobble)
        roll, pitch = roll + wobble[:, 0], pitch + wobble[:, 1]
    zero, one = xp.zeros_like(theta), xp.ones_like(theta)
    across = xp.stack([xp.cos(theta), xp.sin(theta), zero], -1)
    beam = xp.stack([-xp.sin(theta), xp.cos(theta), zero], -1)
    axis = xp.stack([zero, zero, one], -1)
    turn = lambda angle, a, b: (xp.cos(angle)[:, None] * a + xp.sin(angle)[:, None] * b)
    ray, up = turn(-pitch, beam, axis), turn(pitch, axis, beam)
    row, column = turn(roll, up, across) / size[:, None], turn(-roll, across, up) / size[:, None]
    middle = xp.stack([zero, xp.broadcast_to((columns - 1) / 2 - xp.asarray(geometry.centre), (views,))], -1)
    return (ray, row, column), middle - xp.asarray(geometry.offsets(views))


def _margins(
    geometry: TomographyGeometry, views: int, detector: tuple[int, int], shape: tuple[int, int], reach: float
) -> tuple[int, int]:
    """Rows and columns that the pictures need beyond the detector on each side."""
    rows, columns = detector
    offsets = np.max(np.abs(np.asarray(geometry.offsets(views))), axis=0)
    size = 1.0 if geometry.magnification is None else float(np.min(np.asarray(geometry.magnification)))
    number = lambda v: 0.0 if v is None else float(np.max(np.abs(np.asarray(v))))
    wobble = (0.0, 0.0) if geometry.wobble is None else tuple(np.max(np.abs(np.asarray(geometry.wobble)), axis=0))
    roll, pitch = number(geometry.roll) + wobble[0], number(geometry.pitch) + wobble[1]
    off = abs(float(geometry.centre) - (columns - 1) / 2) + offsets[1]
    lost = (1 / size - 1) if size < 1 else 0.0
    along = offsets[0] + (columns / 2 + off) * roll + math.hypot(*shape) / 2 * pitch + rows / 2 * lost + reach
    across = off + rows / 2 * roll + columns / 2 * lost + reach
    return math.ceil(along), math.ceil(across)


def _check_geometry(geometry: TomographyGeometry, angles: np.ndarray, detector: tuple[int, int]) -> None:
    views = angles.size
    shapes = {
        "centre": (),
        "shifts": (views, 2),
        "roll": (),
        "pitch": (),
        "angles": (views,),
        "magnification": (views,),
        "wobble": (views, 2),
    }
    for name in geometry.names():
        value = getattr(geometry, name)
        if value is None:
            continue
        if name in shapes and value.shape != shapes[name] or name == "drift" and value.shape[1:] != (2,):
            raise InputError(f"geometry.{name} must have the shape {shapes.get(name, '(order, 2)')}, got {value.shape}")
        if not np.all(np.isfinite(np.asarray(value))):
            raise InputError(f"geometry.{name} must be finite")
    if min(detector) < 1 or detector[1] < 2:
        raise InputError(f"detector must be (rows, columns), at least (1, 2), got {detector}")
    for name, value in (("roll", geometry.roll), ("pitch", geometry.pitch)):
        if value is not None and abs(float(value)) > _STEEP:
            raise InputError(f"geometry.{name} is {float(value):.3g} rad, above 30 degrees: is it in degrees?")
    if geometry.magnification is not None and float(jnp.min(geometry.magnification)) <= 0:
        raise InputError("geometry.magnification must be positive")
