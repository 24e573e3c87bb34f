"""Absorption tomography on the counts themselves."""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._model import Model
from ..errors import InputError
from ..operators import ParallelProjector
from ..scan import Scan

__all__ = ["TransmissionTomography"]


class TransmissionTomography(Model):
    """Expected counts behind a volume, Lambert-Beer with flat and dark in the model:
    `model(views) = flux flat exp(-projector(volume, views)) + dark`, `(view, z, u)`.

    With `losses.poisson` this is the likelihood of the raw counts: rays that counted few photons, or none, weigh what
    they are worth, where the logarithm of line integrals is biased or does not exist.

    **Fields:** `volume` `(z, y, x)` [1/pixel]; `projector`; `flats` `(z, u)` or `(view, z, u)`, the empty beam less the
    dark, and `darks` `(z, u)` [counts]; `flux` `(view,)`, factor of the beam in each view, 1 by default. Any of them
    may be an unknown: `unknowns=("volume", "flux")`.

    ```python
    A = ParallelProjector(np.linspace(0, 3, 50), (64, 64), 64)
    model = TransmissionTomography(jnp.zeros((1, 64, 64)), A, flats=100.0, darks=2.0)
    assert jnp.allclose(model(np.arange(3)), 102.0)
    ```
    """

    volume: Float[Array, "z y x"]
    projector: ParallelProjector
    flats: Float[Array, "*view z u"]
    darks: Float[Array, "z u"]
    flux: Float[Array, " view"]

    unknowns: ClassVar[tuple[str, ...]] = ("volume",)

    def __init__(
        self,
        volume: Float[Array, "z y x"],
        projector: ParallelProjector,
        flats: ArrayLike,
        darks: ArrayLike = 0.0,
        flux: ArrayLike | None = None,
    ):
        self.volume, self.projector = jnp.asarray(volume), projector
        dtype, views = self.volume.dtype, projector.angles.shape[0]
        frame = (self.volume.shape[0], projector.detector)
        self.flats = _frames(flats, (views, *frame) if np.ndim(flats) == 3 else frame, "flats", dtype)
        self.darks = _frames(darks, frame, "darks", dtype)
        self.flux = _frames(1.0 if flux is None else flux, (views,), "flux", dtype)

    def __call__(self, views: Any = None) -> Float[Array, "view z u"]:
        """Expected counts of some views."""
        pick = (lambda a: a) if views is None else (lambda a: a[jnp.asarray(views)])
        beam = pick(self.flats) if self.flats.ndim == 3 else self.flats
        light = jnp.exp(-self.projector(self.volume, views))
        return pick(self.flux)[:, None, None] * beam * light + self.darks

    @classmethod
    def from_scan(cls, scan: Scan) -> "TransmissionTomography":
        """An empty volume as wide as the detector, the scan's mean flat and dark; the rotation centre is found where
        the scan does not give it.
        """
        flats = scan.require("flats", "frames of the empty beam", "/path/of/flats")
        projector = ParallelProjector.from_scan(scan)
        frame = scan.frame_shape
        dark = np.zeros(frame) if scan.darks is None else np.mean(np.asarray(scan.darks, np.float64), 0)
        beam = np.mean(np.asarray(flats, np.float64), 0) - dark
        # A dead pixel of the flat would divide by zero elsewhere; here it predicts the dark, which is what it reads.
        return cls(jnp.zeros((frame[0], *projector.shape)), projector, np.maximum(beam, 0.0), dark)


def _frames(values: ArrayLike, shape: tuple[int, ...], name: str, dtype: Any) -> Array:
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all() or (values < 0).any():
        raise InputError(f"{name} must be finite and not negative")
    try:
        return jnp.asarray(np.broadcast_to(values, shape), dtype)
    except ValueError as error:
        raise InputError(f"{name} of shape {values.shape} do not fit frames of shape {shape}") from error
