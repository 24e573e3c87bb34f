"""Laminography: parallel-beam tomography of a flat specimen that turns about a tilted axis, its geometry unknown."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from .._model import Model
from ..errors import InputError
from ..operators import FourierPoseProjector, laminography_poses
from ..operators.pose import rotate_vectors
from ..scan import Scan

__all__ = ["Laminography"]


class Laminography(Model):
    """Line integrals of a volume in the poses of laminography: `model(views)`, `(view, row, column)`.

    Everything in the geometry may be an unknown beside the volume: `unknowns=("volume", "tilt", "offsets")`. For linear
    solvers take the projector in the present poses, `dr.solvers.cgls(model.posed(), integrals)`.

    **Fields:**

    - `volume`: `(z, y, x)` [1/pixel], z along the rotation axis.
    - `angles`: `(view,)` [rad]; `tilt`: of the axis out of the plane across the beam [rad], 0 is tomography; `roll`: of
      the detector about the beam [rad].
    - `offsets`: `(view, 2)` = (row, column) [pixel], where the rotation axis and the volume's middle are seen: pixel
      (N - 1) / 2 - offset.
    - `rotations`: `(view, 3)`, rotation vectors [rad] of each pose about the axes of the volume, on top of the rest
      (wobble of the axis).
    - `projector`: sizes and first poses; the others may leave them by about two degrees.

    **Gauge:** a shift of the volume along z, y, x is a pattern of the offsets (constant in the rows, a sine and a
    cosine of the angle in the columns and rows), a common rotation about z one of the angles; `roll` is not free beside
    `rotations`. Fix them, or leave them to the first guess.

    ```python
    angles = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    model = Laminography.from_angles(angles, tilt=0.5, volume_shape=(8, 16, 16), detector_shape=(16, 16))
    assert model().shape == (30, 16, 16)
    ```
    """

    volume: Float[Array, "z y x"]
    angles: Float[Array, " view"]
    tilt: Float[Array, ""]
    roll: Float[Array, ""]
    offsets: Float[Array, "view 2"]
    rotations: Float[Array, "view 3"]
    projector: FourierPoseProjector

    unknowns: ClassVar[tuple[str, ...]] = ("volume",)

    def __call__(self, views: Int[Array, " batch"] | None = None) -> Float[Array, "batch row column"]:
        """Line integrals of some views, all by default."""
        return self.posed()(self.volume, views)

    def posed(self) -> FourierPoseProjector:
        """The projector in the present poses, differentiable in them."""
        vectors = laminography_poses(self.angles, self.tilt, roll=self.roll)
        turned = [rotate_vectors(v, self.rotations) for v in vectors]
        return self.projector.with_poses(*turned, offsets=self.offsets)

    @classmethod
    def from_angles(
        cls,
        angles: ArrayLike,
        tilt: float,
        volume_shape: tuple[int, int, int],
        detector_shape: tuple[int, int],
        *,
        roll: float = 0.0,
        offsets: ArrayLike | None = None,
    ) -> "Laminography":
        """An empty volume in the given geometry.

        **Raises:** `InputError` for angles that are no list of finite numbers, a tilt outside (-pi/2, pi/2), shapes
        that do not agree.
        """
        angles = np.asarray(angles, np.float64)
        if not (np.isfinite(tilt) and abs(tilt) < np.pi / 2):
            raise InputError(f"laminography: tilt {tilt} must lie between -pi/2 and pi/2 rad (0 is tomography)")
        poses = laminography_poses(angles, float(tilt), roll=float(roll))
        projector = FourierPoseProjector(*poses, volume_shape, detector_shape, offsets)
        return cls(
            volume=jnp.zeros(projector.volume_shape),
            angles=jnp.asarray(angles, jnp.result_type(float)),
            tilt=jnp.asarray(float(tilt)),
            roll=jnp.asarray(float(roll)),
            offsets=projector.offsets,
            rotations=jnp.zeros((angles.size, 3)),
            projector=projector,
        )

    @classmethod
    def from_scan(
        cls, scan: Scan, *, tilt: float | None = None, size: int | tuple[int, int, int] | None = None
    ) -> "Laminography":
        """An empty volume for a scan.

        **Arguments:** `tilt` [rad], by default the scan's own (`extra["tilt"]`); `size`: `(z, y, x)` [pixel] or one
        number for y and x with the detector's rows for z; by default the detector's columns and rows. The rotation axis
        is on `scan.rotation_centre`, or in the middle of the detector.

        **Raises:** `InputError` where the tilt is not known, `MissingMetadata` without angles.
        """
        tilt = scan.extra.get("tilt") if tilt is None else tilt
        if tilt is None:
            raise InputError(f"{scan.name}: the tilt of the rotation axis is not known: give model.tilt [rad]")
        angles = scan.require("angles", "the rotation angle of each view", "/path/of/angles")
        rows, columns = scan.frame_shape
        side = columns if size is None else size
        shape = (rows, side, side) if isinstance(side, int) else (int(side[0]), int(side[1]), int(side[2]))
        centre = (columns - 1) / 2 if scan.rotation_centre is None else float(scan.rotation_centre)
        offsets = np.tile([0.0, (columns - 1) / 2 - centre], (scan.views, 1))
        return cls.from_angles(angles, float(np.asarray(tilt)), shape, (rows, columns), offsets=offsets)
