"""Absorption tomography in a parallel beam."""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._model import Model
from ..operators import ParallelProjector
from ..scan import Scan

__all__ = ["Tomography"]


class Tomography(Model):
    """Predict line integrals of a volume: `model(views) = projector(volume, views)`, `(view, z, u)`.

    **Fields:** `volume` `(z, y, x)` [1/pixel]; `projector`, whose geometry may be unknown too: `centre` and `shifts` of
    a `ParallelProjector` (`unknowns=("volume", "projector.centre")`), every field of the motion of an
    `AlignedProjector` (`unknowns=("volume", "projector.motion.roll")`). `solvers.align` finds the latter in a few
    second-order steps. A volume that changes in time is one of four axes, `(basis, z, y, x)`, with a `Dynamic` around
    the projector.

    ```python
    model = Tomography(jnp.zeros((1, 64, 64)), ParallelProjector(np.linspace(0, 3, 50), (64, 64), 64))
    assert model(np.arange(50)).shape == (50, 1, 64)
    ```
    """

    volume: Float[Array, "*basis z y x"]
    projector: Any  # a projector of any kind, also one that spreads slices over devices

    unknowns: ClassVar[tuple[str, ...]] = ("volume",)

    def __call__(self, views: Any = None) -> Float[Array, "view z u"]:
        """Predict some views, all by default."""
        return self.projector(self.volume, views)

    def of_views(self, views: np.ndarray) -> "Tomography":
        """Make the model of some of the views."""
        return self.replace(projector=self.projector.subset(views))

    @classmethod
    def from_scan(cls, scan: Scan) -> "Tomography":
        """An empty volume as wide as the detector; the rotation centre is found where the scan does not give it."""
        projector = ParallelProjector.from_scan(scan)
        return cls(jnp.zeros((scan.frame_shape[0], *projector.shape)), projector)
