"""Tensor SAXS: spherical-harmonic coefficients in every voxel, fixed poses."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._model import Model
from ..errors import InputError
from ..operators.scattering import TensorProjector
from ..scan import Scan

__all__ = ["SaxsTensor"]


class SaxsTensor(Model):
    """Intensity on every detector segment of a raster scan of a voxelised sample.

    **Fields:**

    - `coefficients`: `(z, y, x, lm)`, the unknowns; intensity a voxel, in the unit of the data.
    - `projector`: `TensorProjector`. Its vectors and offsets are arrays: poses may be unknowns too.
    - `errors`: standard deviations of fibre direction [rad] and relative anisotropy; 0 or `None` where not known.

    ```python
    model = SaxsTensor.from_scan(scan, ell_max=6)
    data = model(jnp.arange(3))  # (3, row, column, segment), data divided by flux and transmission
    ```
    """

    coefficients: Float[Array, "z y x lm"]
    projector: TensorProjector
    errors: Float[Array, "z y x 2"] | None = None

    unknowns: ClassVar[tuple[str, ...]] = ("coefficients",)

    def __call__(self, views: Any = None) -> Float[Array, "batch row column segment"]:
        return self.projector(self.coefficients, views)

    @classmethod
    def from_scan(
        cls, scan: Scan, *, ell_max: int = 6, volume_shape: tuple[int, int, int] | None = None
    ) -> "SaxsTensor":
        """Empty coefficients in the geometry of the scan; the volume is as high as the rows and as wide as the columns.

        **Raises:** `InputError` when the scan has no `tensor_geometry`.
        """
        if scan.tensor_geometry is None:
            raise InputError(f"{scan.name}: tensor SAXS needs a tensor_geometry (rotations and angles of every view)")
        rows, columns = scan.counts.shape[1:3]
        shape = (rows, columns, columns) if volume_shape is None else tuple(int(n) for n in volume_shape)
        projector = TensorProjector(scan.tensor_geometry, shape, (rows, columns), ell_max)
        return cls(jnp.zeros((*shape, projector.weights.shape[-1])), projector, jnp.zeros((*shape, 2)))
