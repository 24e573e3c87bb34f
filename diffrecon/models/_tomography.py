"""Absorption tomography in a parallel beam."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._model import Model
from ..operators import AlignedProjector, ParallelProjector
from ..scan import Scan

__all__ = ["Tomography"]


class Tomography(Model):
    """Line integrals of a volume: `model(views) = projector(volume, views)`, `(view, z, u)`.

    **Fields:** `volume` `(z, y, x)` [1/pixel]; `projector`, whose geometry may be unknown too: `centre` and `shifts` of
    a `ParallelProjector` (`unknowns=("volume", "projector.centre")`), every field of the motion of an
    `AlignedProjector` (`unknowns=("volume", "projector.motion.roll")`). `solvers.align` finds the latter in a few
    second-order steps.

    ```python
    model = Tomography(jnp.zeros((1, 64, 64)), ParallelProjector(np.linspace(0, 3, 50), (64, 64), 64))
    assert model(np.arange(50)).shape == (50, 1, 64)
    ```
    """

    volume: Float[Array, "z y x"]
    projector: ParallelProjector | AlignedProjector

    unknowns: ClassVar[tuple[str, ...]] = ("volume",)

    def __call__(self, views: Any = None) -> Float[Array, "view z u"]:
        """Line integrals of some views."""
        return self.projector(self.volume, views)

    @classmethod
    def from_scan(cls, scan: Scan) -> "Tomography":
        """An empty volume as wide as the detector; the rotation centre is found where the scan does not give it."""
        projector = ParallelProjector.from_scan(scan)
        return cls(jnp.zeros((scan.frame_shape[0], *projector.shape)), projector)
