"""Laminography: parallel-beam tomography of a flat specimen that turns about a tilted axis, its geometry unknown."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from ..errors import InputError
from ..motion import Motion
from ..operators import AlignedProjector
from ..scan import Scan
from ._tomography import Tomography

__all__ = ["Laminography"]


class Laminography(Tomography):
    """Predict line integrals of a volume that turned about a tilted axis: `model(views)`, `(view, row, column)`.

    A `Tomography` whose projector is an `AlignedProjector` with a tilt. Everything in its motion may be an unknown
    beside the volume, `unknowns=("volume", "projector.motion.tilt", "projector.motion.shifts")`, and may leave its
    place by about two degrees before a new model is due. Linear solvers take the projector,
    `dr.solvers.cgls(model.projector, integrals)`.

    ```python
    angles = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    model = Laminography.from_angles(angles, tilt=0.5, volume_shape=(8, 16, 16), detector_shape=(16, 16))
    assert model().shape == (30, 16, 16)
    ```
    """

    projector: AlignedProjector

    @classmethod
    def from_angles(
        cls,
        angles: Float[ArrayLike, " view"],
        tilt: float,
        volume_shape: tuple[int, int, int],
        detector_shape: tuple[int, int],
        *,
        motion: Motion | None = None,
    ) -> "Laminography":
        """Make an empty volume in the given geometry.

        **Arguments:** `tilt` [rad] of the rotation axis out of the plane across the beam, 0 is tomography; `motion`,
        what else is known or to be found of the geometry, by default the axis on the middle of the detector.

        **Raises:** `InputError` for angles that are no list of finite numbers, a tilt outside (-pi/2, pi/2), shapes
        that do not agree.
        """
        angles = np.asarray(angles, np.float64)
        if angles.ndim != 1 or not angles.size or not np.all(np.isfinite(angles)):
            raise InputError(f"laminography: angles must be finite, one a view [rad], got shape {angles.shape}")
        motion = (motion or Motion((detector_shape[1] - 1) / 2)).replace(tilt=tilt)
        slices, *plane = volume_shape
        projector = AlignedProjector(angles, (plane[0], plane[1]), detector_shape, motion, slices=slices)
        return cls(jnp.zeros(projector.volume_shape), projector)

    @classmethod
    def from_scan(
        cls, scan: Scan, *, tilt: float | None = None, size: int | tuple[int, int, int] | None = None
    ) -> "Laminography":
        """Make an empty volume for a scan.

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
        shape = (rows, side, side) if isinstance(side, int) else side
        motion = Motion((columns - 1) / 2 if scan.rotation_centre is None else float(scan.rotation_centre))
        return cls.from_angles(angles, float(np.asarray(tilt)), shape, (rows, columns), motion=motion)
