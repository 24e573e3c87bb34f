"""Ptycho-tomography: one volume of delta and beta behind the frames of ptychographic scans at many angles."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from .._model import Model
from .._result import Quantity
from ..errors import InputError, MissingMetadata
from ..motion import fix_gauge
from ..operators import AlignedProjector, ParallelProjector, coverage
from ..scan import Scan
from ._ptychography import Ptychography

__all__ = ["PtychoProjections", "PtychoTomography", "angle_table", "frames_by_angle"]

_SAME_ANGLE = 1e-5  # [rad]


class _Angles(Model):
    """What all models of scans at many angles share: the fields, the places of the patches, the call."""

    optics: Ptychography
    positions: Float[Array, "angle view 2"]
    gain: Float[Array, "angle view"]
    shifts: Float[Array, "angle 2"]
    centre: Float[Array, ""]

    def __call__(self, angles: Any, views: Any = None) -> Float[Array, "angle view y x"]:
        """Expected counts of all views, or of some, of some angles."""
        angles = jnp.asarray(angles)
        places, gains = self.places(angles), self.gain[angles]
        if views is not None:
            places, gains = places[:, views], gains[:, views]

        def frames(image: Array, places: Array, gain: Array) -> Array:
            optics = self.optics.replace(object=image, positions=places, gain=gain)
            return optics(jnp.arange(places.shape[0]))

        return jax.vmap(frames)(self.projections(angles), places, gains)

    def projections(self, angles: Any) -> Complex[Array, "angle Y X"]:
        """`phase + i B` of some angles."""
        raise NotImplementedError

    def places(self, angles: Any) -> Float[Array, "angle view 2"]:
        """Find where the patches of some angles lie in their projections [pixel]."""
        middle = (self.optics.object.shape[-1] - 1) / 2
        column = jnp.stack([jnp.zeros_like(self.centre), middle - self.centre])
        return self.positions[angles] - self.shifts[angles][:, None] + column

    def light(self) -> Float[Array, "Y X"]:
        """Sum the beam's intensity over all exposures: how well each pixel of a projection was seen."""
        places = self.places(np.arange(self.shifts.shape[0])).reshape(-1, 2)
        rows, columns = self.optics.object.shape[-2:]
        return coverage(self.optics.probe, places, (rows, columns))


class PtychoProjections(_Angles):
    """Ptychographic scans of a sample at many angles through one probe, every projection an image of its own.

    The first half of ptycho-tomography in two steps; fields and call as those of `PtychoTomography`, but for

    - `images`: `(angle, Y, X)` complex, `phase + i B` of each projection, so that nothing wraps.
    """

    images: Complex[Array, "angle Y X"]

    unknowns: ClassVar[tuple[str, ...]] = ("images", "optics.probe")

    def projections(self, angles: Any) -> Complex[Array, "angle Y X"]:
        """`phase + i B` of some angles."""
        return self.images[angles]


class PtychoTomography(_Angles):
    """Frames of ptychographic scans at many angles, all of one volume, near or far field.

    `model(angles)` takes indices of angles and predicts all frames of each, `(angle, view, y, x)`, because they share
    its projection. `minimise` therefore takes data with one entry an angle, `frames_by_angle(scan)`; `batch_size`
    counts angles.

    **Fields:**

    - `delta`, `beta`: `(z, y, x)` [rad/pixel], `2 pi / lambda` times decrement and absorption index of the refractive
      index; `refractive_index()` gives them without unit. With P the projection, phase = `-P delta`, B = `P beta`.
    - `sample`: `(z, y, x)` True where matter may be; elsewhere delta and beta count as zero. `None`: anywhere.
    - `projector`: of the angles onto the columns of a projection. The volume may be wider (local tomography). All of
      the geometry of an `AlignedProjector` may be unknown too (`"projector.motion.roll"`).
    - `optics`: a `Ptychography` with what all angles share: probe modes, background, distance and whatever else it
      knows (blur, fly scan, astigmatism). Its object, positions and gain are filled in angle by angle.
    - `positions`: `(angle, view, 2)` corner (row, column) of each patch in the projection [pixel], for an axis in the
      middle column.
    - `gain`: `(angle, view)` brightness of each frame.
    - `shifts`: `(angle, 2)` motion of the picture, and so of the sample, at an angle (row, column) [pixel]; and
      `centre`: column of the rotation axis [pixel], `(X - 1) / 2` where the positions are right. Both move patches the
      other way: no image is interpolated for them, as it would be for those of an `AlignedProjector`.

    What frames cannot tell: the mean phase of each projection (the air around the sample fixes it, where the field
    shows some), and where the sample as a whole sits: shifts constant along rows, or along columns as cosine and sine
    of the angle. A constant shift along columns is the centre.

    **Cost** of a call for n angles: one Fourier grid of both volumes, n projections, and that of `Ptychography`.

    ```python
    model = PtychoTomography.from_scan(scan)
    counts = model(jnp.arange(2))          # all frames of the first two angles
    ```
    """

    delta: Float[Array, "z y x"]
    beta: Float[Array, "z y x"]
    projector: ParallelProjector | AlignedProjector
    sample: Bool[Array, "z y x"] | None = None

    unknowns: ClassVar[tuple[str, ...]] = ("delta", "beta", "optics.probe", "shifts", "centre")

    def projections(self, angles: Any) -> Complex[Array, "angle Y X"]:
        """`phase + i B` of some angles."""
        volumes = self.volumes()
        if isinstance(self.projector, AlignedProjector):
            delta, beta = (self.projector(volume, angles) for volume in volumes)
        else:  # both in one pass
            both = self.projector(jnp.concatenate(volumes), angles)
            delta, beta = both[:, : self.delta.shape[0]], both[:, self.delta.shape[0] :]
        return jax.lax.complex(-delta, beta)

    def volumes(self) -> tuple[Float[Array, "z y x"], Float[Array, "z y x"]]:
        """`delta` and `beta` [rad/pixel], zero where no matter may be."""
        if self.sample is None:
            return self.delta, self.beta
        return jnp.where(self.sample, self.delta, 0), jnp.where(self.sample, self.beta, 0)

    # ------------------------------------------------------------------ first guess
    @classmethod
    def from_scan(
        cls, scan: Scan, modes: int = 1, *, margin: float = 4, size: int | None = None, **optics: Any
    ) -> "PtychoTomography":
        """An empty volume, the probe from file or mean frame, axis and positions as the scan says.

        `scan.angles` holds the rotation angle of every view [rad]; views whose angles agree to 1e-5 rad are one
        ptychographic scan. In a file that is `data.angles`, one number a frame like `data.positions`
        (`Scan.from_arrays(counts, positions=..., angles=...)`). `scan.rotation_centre` [detector pixel] is the position
        of a view that has the axis in the middle of its frame; the middle of the scanned field if it is not given.

        **Arguments:** number of probe `modes`; `margin` [detector pixel] around the scanned field; `size`: side of a
        slice [object pixel], by default the width of a projection: give more where the sample is wider than the scanned
        field; `optics`: more for `Ptychography.from_scan` (`oversampling`, `border`, `variations`).

        **Raises:** `MissingMetadata` for angles, positions, or what gives the pixel; `InputError` for fewer than three
        angles.
        """
        table, angles = angle_table(scan)
        base = Ptychography.from_scan(scan, modes, margin=margin, refractive=True, **optics)
        if base.wavelength is None or base.pixel_size is None:
            raise MissingMetadata(
                "geometry.energy",
                "the energy, distance or detector pixel, without which delta has no unit",
                scan.name,
                "12 keV",
            )
        corners, shape = _about_axis(scan, base, margin)
        side = shape[1] if size is None else int(size)
        if side < 2:
            raise InputError(f"model.size: slices of {side} pixels are none; {shape[1]} hold the scanned field")
        empty = jnp.zeros((shape[0], side, side), jnp.float32)
        return cls(
            optics=base.replace(
                object=jnp.zeros(shape, jnp.complex64), positions=base.positions[table[0]], gain=base.gain[table[0]]
            ),
            positions=jnp.asarray(corners[table], jnp.float32),
            gain=jnp.ones(table.shape, jnp.float32),
            shifts=jnp.zeros((angles.size, 2), jnp.float32),
            centre=jnp.asarray((shape[1] - 1) / 2, jnp.float32),
            delta=empty,
            beta=empty,
            projector=ParallelProjector(angles, (side, side), shape[1]),
        )

    def separate(self, images: Array | None = None) -> PtychoProjections:
        """Make the same scan with an image a projection instead of the volume: flat ones, or those given."""
        if images is None:
            images = jnp.zeros((self.shifts.shape[0], *self.optics.object.shape), self.optics.object.dtype)
        return PtychoProjections(self.optics, self.positions, self.gain, self.shifts, self.centre, images)

    def centred(self, nominal: Float[Array, "angle view 2"]) -> "PtychoTomography":
        """Say the same places once: what all views of an angle have moved by is its shift, and what all angles have
        moved by along columns, next to a sine of the angle, is the centre."""
        common = jnp.mean(self.positions - nominal, axis=1)
        shifts, constant = fix_gauge(self.shifts - common, self.projector.angles)
        return self.replace(positions=self.positions - common[:, None], shifts=shifts, centre=self.centre + constant)

    def of_views(self, angles: Any) -> "PtychoTomography":
        """Make the model of some of the angles."""
        angles = np.asarray(angles)
        by_angle = {name: getattr(self, name)[angles] for name in ("positions", "gain", "shifts")}
        return self.replace(projector=self.projector.subset(angles), **by_angle)

    # ------------------------------------------------------------------ out
    def summary(self, scan: Scan) -> str:
        """Describe angles, frames, volume and axis in two lines."""
        (angles, views), (rows, columns), optics = self.gain.shape, scan.frame_shape, self.optics
        axis = "as given" if scan.rotation_centre is not None else "(the middle of the scan), to be refined"
        nanometres, power = float(optics.pixel_size or 0) * 1e9, float(jnp.sum(jnp.abs(optics.probe) ** 2))
        return (
            f"{angles} angles with {views} views of {rows} x {columns}, pixel {nanometres:.2f} nm; volume "
            f"{' x '.join(map(str, self.delta.shape))}, projections {' x '.join(map(str, optics.object.shape))}; probe "
            f"power set to the mean frame, {power:.4g} counts\nrotation axis in the middle of a view at column "
            f"{self.rotation_centre(scan):.2f} pixel {axis}"
        )

    def refractive_index(self) -> tuple[Float[Array, "z y x"], Float[Array, "z y x"]]:
        """Decrement delta and absorption index beta of the refractive index `1 - delta + i beta`."""
        wavelength, pixel = self.optics.wavelength, self.optics.pixel_size
        assert wavelength is not None and pixel is not None  # from_scan sees to it
        scale = wavelength / (2 * np.pi * pixel)
        delta, beta = self.volumes()
        return delta * scale, beta * scale

    def rotation_centre(self, scan: Scan) -> float:
        """Say the position of a view with the axis in its middle, for `centre` as in `Scan.rotation_centre` [px]."""
        origin = _origin(scan)
        moved = float(self.centre) - (self.optics.object.shape[-1] - 1) / 2
        return float(origin[1] + moved / self.optics.oversampling)

    def quantities(self, scan: Scan) -> dict[str, Quantity]:
        """Give what is written to a file; `positions`, of all views in the scan's order, are those of the middle of a
        patch from the axis (columns) and from the middle slice (rows).
        """
        optics, pixel = self.optics, float(self.optics.pixel_size or 1.0)
        table, angles = angle_table(scan)
        delta, beta = (np.asarray(v) for v in self.refractive_index())
        room = [n - m for n, m in zip(optics.object.shape[-2:], optics.probe.shape[-2:], strict=True)]
        places = np.asarray(self.places(np.arange(angles.size)), np.float64) - np.asarray(room) / 2
        in_order, gain = np.zeros((scan.views, 2)), np.zeros(scan.views)
        in_order[table], gain[table] = places, np.asarray(self.gain)
        axes = ("z", "y", "x")
        return {
            "delta": Quantity(delta, "", axes, pixel, "refractive decrement delta", "volume"),
            "beta": Quantity(beta, "", axes, pixel, "absorption index beta", "volume"),
            "probe": Quantity(
                np.asarray(optics.probe), "sqrt(counts)", ("mode", "y", "x"), pixel, "probe modes", "modes"
            ),
            "phase": Quantity(
                np.asarray(self.projections(np.arange(1)))[0].real, "rad", ("y", "x"), pixel, "phase of the first angle"
            ),
            "positions": Quantity(
                in_order * pixel, "m", ("view", "axis"), pixel, "middles of patches (row, column)", "positions"
            ),
            "shifts": Quantity(
                np.asarray(self.shifts) * pixel,
                "m",
                ("angle", "axis"),
                pixel,
                "motion of the sample at each angle (row, column)",
                "data",
            ),
            "angles": Quantity(angles, "rad", ("angle",), None, "angles", "data"),
            "gain": Quantity(gain, "", ("view",), None, "gain of each view", "data"),
        }


# ---------------------------------------------------------------------------------------------------- views and angles
def angle_table(scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    """Find which views belong to which angle: `(angle, view)` indices into the scan, and the angles [rad].

    Angles come in the order of their first views. Where an angle has fewer views than others its first one is repeated;
    `frames_by_angle` says which.

    **Raises:** `MissingMetadata` without angles, `InputError` for fewer than three.
    """
    given = np.asarray(scan.require("angles", "the rotation angle of each view", "/path/of/angles"), float)
    _, first, inverse = np.unique(np.rint(given / _SAME_ANGLE), return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    if order.size < 3:
        raise InputError(
            f"{scan.name}: {order.size} different angles are no tomogram; data.angles is to hold the "
            "angle of every view"
        )
    groups = [np.flatnonzero(inverse == number) for number in order]
    most = max(map(len, groups))
    table = np.stack([np.concatenate([g, np.full(most - len(g), g[0])]) for g in groups])
    return table, given[first[order]]


def frames_by_angle(scan: Scan) -> dict[str, np.ndarray]:
    """Data for `minimise`, one entry an angle: `counts` `(angle, view, y, x)` in the detector's type, `mask` `(y, x)`,
    and `seen` `(angle, view)`, False where an angle has fewer views than others.

    Reads all frames.
    """
    scan = scan.in_fft_order()
    table, _ = angle_table(scan)
    counts = np.asarray(scan.counts)
    whole = np.array_equal(table.ravel(), np.arange(scan.views))
    return {
        "counts": counts.reshape(*table.shape, *counts.shape[1:]) if whole else counts[table],
        "mask": np.ones(scan.frame_shape, bool) if scan.mask is None else scan.mask,
        "seen": (np.arange(table.shape[1]) == 0) | (table != table[:, :1]),
    }


def _origin(scan: Scan) -> np.ndarray:
    """Position (row, column) [detector pixel] that has axis and middle slice in the middle of its frame."""
    places = _in_pixels(scan)
    middle = (places.min(0) + places.max(0)) / 2
    if scan.rotation_centre is not None:
        middle[1] = float(scan.rotation_centre)
    return middle


def _in_pixels(scan: Scan) -> np.ndarray:
    positions = np.asarray(scan.positions, float)
    return positions / float(scan.pixel_size) if scan.positions_unit == "m" else positions


def _about_axis(scan: Scan, base: Ptychography, margin: float) -> tuple[np.ndarray, tuple[int, int]]:
    """Corners of all patches [object pixel] in projections that have the axis in their middle, and their shape."""
    fine = base.oversampling
    places = (_in_pixels(scan) - _origin(scan)) * fine
    frame = np.asarray(base.probe.shape[-2:])
    rows, columns = (int(n) for n in 2 * np.ceil(np.abs(places).max(0) + margin * fine) + frame)
    return places + (np.asarray([rows, columns]) - frame) / 2, (rows, columns)
