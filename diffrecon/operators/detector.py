"""Move images in the plane of the detector, and project through a volume in a geometry that is unknown.

Signs are those of `diffrecon.motion`.

Images are moved as band-limited functions: a rotation is three shears (Unser, Thevenaz & Yaroslavsky, IEEE Trans. Image
Process. 4, 1371 (1995), eq. 6), each a phase ramp in a 1-D transform.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from ..errors import InputError
from ..motion import Motion
from .fourier import good_size
from .fourier_pose import FourierPoseProjector
from .projection import ParallelProjector, project_parallel

__all__ = ["AlignedProjector", "move_images"]

_WRAP = 16  # pixels over which the last value of a line leads back to the first: a step there would ring


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
    period = good_size(max(size + _WRAP, count))
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
    period = good_size(size + _WRAP)
    k, n = np.arange(period) - period // 2, np.arange(size)
    length = good_size(period + size)
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


class AlignedProjector(eqx.Module):
    """Line integrals `(view, row, column)` of a volume `(z, y, x)` as a detector out of place sees them.

    `A(volume)`, `A.adjoint(sinogram)` and the differentiation in the volume and in every field of `A.motion` are as
    those of `ParallelProjector`; where the motion has neither pitch, tilt nor wobble that is what works inside, and
    `move_images` moves its pictures. With them, `FourierPoseProjector` does everything (slower).

    **Arguments:**

    - `angles`: nominal, one a view [rad].
    - `shape`: (ny, nx) of a slice.
    - `detector`: (rows, columns).
    - `motion`: a `Motion`.
    - `slices`: of the volume; by default as many as the detector sees in any view, and `reach` on each side.
    - `reach`: pixels by which the geometry may still move after the projector has been made.

    The middle slice is on the middle row of the detector where shifts are zero.

    **Raises:** `InputError` for shapes that do not agree, non-finite numbers, a roll above 30 degrees.

    ```python
    angles = np.linspace(0, np.pi, 30, endpoint=False)
    motion = Motion(17.2, shifts=np.ones((30, 2)), roll=0.01)
    A = AlignedProjector(angles, (32, 32), (8, 32), motion)
    sinogram = A(jnp.ones(A.volume_shape))      # (30, 8, 32)
    ```
    """

    motion: Motion
    angles: Float[np.ndarray, " view"]
    inner: ParallelProjector | FourierPoseProjector
    volume_shape: tuple[int, int, int] = eqx.field(static=True)
    detector_shape: tuple[int, int] = eqx.field(static=True)

    def __init__(
        self,
        angles: ArrayLike,
        shape: tuple[int, int],
        detector: tuple[int, int],
        motion: Motion,
        *,
        slices: int | None = None,
        reach: float = 4.0,
    ):
        self.angles = np.asarray(angles, np.float64)
        self.motion = motion
        rows, columns = (int(n) for n in detector)
        motion.checked(self.angles.size)
        if rows < 1 or columns < 2:
            raise InputError(f"detector must be (rows, columns), at least (1, 2), got {(rows, columns)}")
        margin_row, margin_column = _margins(motion, self.angles.size, (rows, columns), shape, reach)
        slices = int(slices or (1 if rows == 1 and motion.flat else rows + 2 * margin_row))
        self.volume_shape, self.detector_shape = (slices, int(shape[0]), int(shape[1])), (rows, columns)
        if motion.flat:
            turned = self.angles + (0.0 if motion.angles is None else np.asarray(motion.angles, np.float64))
            self.inner = ParallelProjector(turned, self.volume_shape[1:], columns + 2 * margin_column)
        else:
            (ray, row, column), offsets = _pose(np, motion, self.angles, columns)
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
        """Return the column of the rotation axis, `motion.centre` [pixel]."""
        return self.motion.centre

    def subset(self, views: ArrayLike) -> "AlignedProjector":
        """A projector of some of the views, in their order, of the same volume."""
        picked = np.asarray(views)
        if picked.dtype == bool:
            picked = np.flatnonzero(picked)
        some = self.motion.of_views(picked, self.angles.size)
        if isinstance(self.inner, ParallelProjector):
            inner: Any = self.inner.subset(picked)
        else:
            (ray, row, column), offsets = _pose(np, some, self.angles[picked], self.detector_shape[1])
            inner = FourierPoseProjector(ray, row, column, self.volume_shape, self.detector_shape, offsets)
        return eqx.tree_at(lambda A: (A.motion, A.angles, A.inner), self, (some, self.angles[picked], inner))

    def at(self, motion: Motion) -> "AlignedProjector":
        """Take another motion, which has to have the same fields and may be traced."""
        return eqx.tree_at(lambda A: A.motion, self, motion)

    @eqx.filter_jit
    def __call__(
        self, volume: Float[Array, "z y x"], views: Int[Array, " batch"] | None = None
    ) -> Float[Array, "view row column"]:
        """Projections of a volume; `views` picks some, and may be traced."""
        if volume.shape != self.volume_shape:
            raise InputError(f"projector of a volume {self.volume_shape} (z, y, x) got {volume.shape}")
        if isinstance(self.inner, FourierPoseProjector):
            return self.posed()(volume, views)
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
            return self.posed().adjoint(sinogram, views)
        like = jax.ShapeDtypeStruct((count, self.volume_shape[0], self.inner.detector), sinogram.dtype)
        pictures = jax.linear_transpose(lambda images: self._moved(images, views), like)(sinogram)[0]
        if self.motion.angles is None:
            return self.inner.adjoint(pictures, views)
        volume = jax.ShapeDtypeStruct(self.volume_shape, sinogram.dtype)
        return jax.linear_transpose(lambda x: self._pictures(x, views), volume)(pictures)[0]

    def _pictures(self, volume: Array, views: Array | None) -> Float[Array, "view z u"]:
        """Projections on a detector in its place, larger than the true one."""
        assert isinstance(self.inner, ParallelProjector)
        if self.motion.angles is None:
            return self.inner(volume, views)
        angles = jnp.asarray(self.angles, volume.dtype) + self.motion.angles.astype(volume.dtype)
        angles = angles if views is None else angles[views]
        return project_parallel(volume, angles, detector=self.inner.detector)

    def _moved(self, pictures: Float[Array, "view z u"], views: Array | None) -> Float[Array, "view row column"]:
        shifts, magnification = self.motion.offsets(self.angles.size), self.motion.magnification
        if views is not None:
            shifts, magnification = shifts[views], None if magnification is None else magnification[views]
        return move_images(
            pictures,
            self.detector_shape,
            shifts=shifts,
            roll=self.motion.roll,
            magnification=magnification,
            centre=self.motion.centre,
        )

    def posed(self) -> FourierPoseProjector:
        """Make the projector in the present poses, where the motion has a pitch, a tilt or a wobble."""
        assert isinstance(self.inner, FourierPoseProjector)
        (ray, row, column), offsets = _pose(jnp, self.motion, self.angles, self.detector_shape[1])
        return self.inner.with_poses(ray, row, column, offsets)


def _pose(xp: Any, motion: Motion, angles: np.ndarray, columns: int) -> tuple[tuple, Any]:
    """Ray, row, column `(view, 3)` and offsets `(view, 2)` of poses, with `xp` = numpy or jax.numpy."""
    views = angles.size
    number = lambda v, default=0.0: xp.broadcast_to(xp.asarray(default if v is None else v), (views,))
    theta = xp.asarray(angles) + number(motion.angles)
    roll, pitch, size = number(motion.roll), number(motion.pitch), number(motion.magnification, 1.0)
    pitch = pitch - number(motion.tilt)
    if motion.wobble is not None:
        wobble = xp.asarray(motion.wobble)
        roll, pitch = roll + wobble[:, 0], pitch + wobble[:, 1]
    zero, one = xp.zeros_like(theta), xp.ones_like(theta)
    across = xp.stack([xp.cos(theta), xp.sin(theta), zero], -1)
    beam = xp.stack([-xp.sin(theta), xp.cos(theta), zero], -1)
    axis = xp.stack([zero, zero, one], -1)
    turn = lambda angle, a, b: (xp.cos(angle)[:, None] * a + xp.sin(angle)[:, None] * b)
    ray, up = turn(-pitch, beam, axis), turn(pitch, axis, beam)
    row, column = turn(roll, up, across) / size[:, None], turn(-roll, across, up) / size[:, None]
    middle = xp.stack([zero, xp.broadcast_to((columns - 1) / 2 - xp.asarray(motion.centre), (views,))], -1)
    return (ray, row, column), middle - xp.asarray(motion.offsets(views))


def _margins(
    motion: Motion, views: int, detector: tuple[int, int], shape: tuple[int, int], reach: float
) -> tuple[int, int]:
    """Rows and columns that the pictures need beyond the detector on each side."""
    rows, columns = detector
    offsets = np.max(np.abs(np.asarray(motion.offsets(views))), axis=0)
    size = 1.0 if motion.magnification is None else float(np.min(np.asarray(motion.magnification)))
    number = lambda v: 0.0 if v is None else float(np.max(np.abs(np.asarray(v))))
    wobble = (0.0, 0.0) if motion.wobble is None else tuple(np.max(np.abs(np.asarray(motion.wobble)), axis=0))
    roll, pitch = number(motion.roll) + wobble[0], number(motion.pitch) + number(motion.tilt) + wobble[1]
    off = abs(float(motion.centre) - (columns - 1) / 2) + offsets[1]
    lost = (1 / size - 1) if size < 1 else 0.0
    along = offsets[0] + (columns / 2 + off) * roll + math.hypot(*shape) / 2 * math.sin(pitch) + rows / 2 * lost + reach
    across = off + rows / 2 * roll + columns / 2 * lost + reach
    return math.ceil(along), math.ceil(across)
