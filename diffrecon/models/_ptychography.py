"""Ptychography, near and far field: one object, incoherent probe modes, positions, background and gain."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from .. import operators
from .._model import Model
from .._result import Quantity
from ..errors import InputError, MissingMetadata
from ..scan import Scan

__all__ = ["Ptychography"]


class Ptychography(Model):
    """Frames of a scan of one object through one (partially coherent) probe.

    A view is `sum over modes |propagate(shift(probe, f) * object[corner])|^2 * gain + background`, with
    `position = corner + f`; see `diffrecon.operators.near_field` and `far_field`. Any field may be an unknown.

    **Fields:**

    - `object`: `(Y, X)` complex transmission.
    - `probe`: `(mode, y, x)` complex; `sum |probe|^2` is the number of counts of an unobstructed frame.
    - `positions`: `(view, 2)` corner (row, column) of each view's patch in the object [pixel].
    - `background`: `(y, x)` amplitude [sqrt(counts)]; its square is added incoherently, so that it cannot be negative.
    - `gain`: `(view,)` brightness of each view.
    - `distance`: effective propagation distance [m] (unused in the far field); `wavelength` and `pixel_size` [m].
    - `far`: `True` for the far field, whose frames have the zero frequency at index (0, 0).
    - `oversampling`: object pixels along a detector pixel (near field). Where the light has structure finer than a
      detector pixel, which sums intensities over it, 2 describes the frames better, at four times the cost.

    Cost: 2 (far) or 3 (near field) FFTs a view and mode, about three times as many with the gradient.

    ```python
    model = Ptychography.from_scan(scan, modes=2)
    counts = model(jnp.arange(3))
    ```
    """

    object: Complex[Array, "Y X"]
    probe: Complex[Array, "mode y x"]
    positions: Float[Array, "view 2"]
    background: Float[Array, "y x"]
    gain: Float[Array, " view"]
    distance: Any = None
    wavelength: float | None = eqx.field(static=True, default=None)
    pixel_size: float | None = eqx.field(static=True, default=None)
    far: bool = eqx.field(static=True, default=False)
    oversampling: int = eqx.field(static=True, default=1)

    unknowns: ClassVar[tuple[str, ...]] = ("object", "probe", "positions")

    def waves(self, views: Any) -> Complex[Array, "view mode y x"]:
        """The waves on the detector."""
        positions = self.positions[views]
        if self.far:
            return operators.far_field(self.object, self.probe, positions)
        return operators.near_field(self.object, self.probe, positions, self.transfer())

    def transfer(self) -> Complex[Array, "y x"]:
        """The Fresnel transfer function of the near field."""
        return operators.fresnel_transfer(
            (self.probe.shape[-2], self.probe.shape[-1]),
            pixel_size=self.pixel_size, wavelength=self.wavelength, distance=self.distance, dtype=self.probe.dtype,
        )

    def __call__(self, views: Any) -> Float[Array, "view y x"]:
        """Expected counts of some views."""
        counts = operators.bin_pixels(operators.intensity(self.waves(views)), self.oversampling)
        return counts * self.gain[views][:, None, None] + self.background**2

    # ------------------------------------------------------------------ first guess
    @classmethod
    def from_scan(cls, scan: Scan, modes: int = 1, *, margin: float = 8, oversampling: int = 1) -> "Ptychography":
        """A first guess from the data: flat object, probe from file or mean frame, its power from the mean counts.

        **Arguments:** number of probe `modes` (the further ones start as the probe times low-order polynomials, at 2 %
        of its power each); `margin` [detector pixel] around the scanned area, room for positions to move;
        `oversampling` of the near field.

        **Raises:** `MissingMetadata` for positions or, in the near field, the distance; `InputError` for positions that
        span nothing or more than a reasonable object, or oversampling in the far field.
        """
        positions = scan.require("positions", "positions of the views", "/path/of/positions")
        far = scan.far_field
        if oversampling != 1 and far:
            raise InputError(
                "model.oversampling: detector pixels of the far field sample the wave's spectrum; it must be 1 there"
            )
        pixel = _pixel_size(scan, far)
        in_pixels = _object_positions(scan, positions, pixel, margin) * oversampling
        pixel = pixel if pixel is None else pixel / oversampling
        frame = (scan.frame_shape[0] * oversampling, scan.frame_shape[1] * oversampling)
        shape = tuple(
            int(n)
            for n in np.ceil(in_pixels.max(0)).astype(int) + np.asarray(frame) + int(np.ceil(margin * oversampling))
        )
        mean = mean_frame(scan)
        geometry = None if far else scan.geometry
        distance = None if geometry is None else float(geometry.distance)
        wavelength = None if scan.geometry is None else scan.geometry.wavelength
        base = cls(
            object=jnp.ones(shape, jnp.complex64),
            probe=jnp.zeros((1, *frame), jnp.complex64),
            positions=jnp.asarray(in_pixels, jnp.float32),
            background=jnp.full(scan.frame_shape, 0.1 * max(float(np.median(mean)), 1e-2) ** 0.5, jnp.float32),
            gain=jnp.ones(scan.views, jnp.float32),
            distance=distance, wavelength=None if wavelength is None else float(wavelength), pixel_size=pixel, far=far,
            oversampling=oversampling,
        )
        probe = _first_probe(scan, base, np.kron(mean, np.ones((oversampling, oversampling))) / oversampling**2)
        return eqx.tree_at(lambda m: m.probe, base, jnp.asarray(_modes(probe, modes), jnp.complex64))

    # ------------------------------------------------------------------ out
    def quantities(self, scan: Scan | None = None) -> dict[str, Quantity]:
        """What is written to a file: `positions / pixel_size` are the patch corners in object pixels."""
        pixel, unit = (self.pixel_size, "m") if self.pixel_size else (1.0, "pixel")
        size = self.pixel_size
        transmission = np.asarray(self.object)
        return {
            "object": Quantity(transmission, "", ("y", "x"), size, "object transmission", "complex"),
            "probe": Quantity(np.asarray(self.probe), "sqrt(counts)", ("mode", "y", "x"), size, "probe modes", "modes"),
            "phase": Quantity(np.angle(transmission), "rad", ("y", "x"), size, "phase", "image"),
            "positions": Quantity(
                np.asarray(self.positions, np.float64) * pixel,
                unit,
                ("view", "axis"),
                pixel,
                "patch corners (row, column)",
                "positions",
            ),
            "background": Quantity(np.asarray(self.background) ** 2, "counts", ("y", "x"), None, "background", "image"),
            "gain": Quantity(np.asarray(self.gain), "", ("view",), None, "gain of each view", "data"),
        }


def mean_frame(scan: Scan) -> np.ndarray:
    """Mean frame in the model's order, float64, dead pixels zero."""
    scan = scan.in_fft_order()
    blocks = range(0, scan.views, 64)
    total = np.sum([np.asarray(scan.counts[start:start + 64]).sum(0, dtype=float) for start in blocks], axis=0)
    mean = total / scan.views
    return mean if scan.mask is None else np.where(scan.mask, mean, 0.0)


def _pixel_size(scan: Scan, far: bool) -> float | None:
    if scan.pixel_size is not None:
        return float(scan.pixel_size)
    if far:
        return None
    raise MissingMetadata("geometry.focus_to_sample", "the distance from focus to sample", scan.name, "3.65 mm")


def _object_positions(scan: Scan, positions: np.ndarray, pixel: float | None, margin: float) -> np.ndarray:
    """Patch corners in object pixels, the smallest at `margin`."""
    if scan.positions_unit == "m":
        if pixel is None:
            raise MissingMetadata("geometry.energy", "the energy, distance or detector pixel (positions are in metres)",
                                  scan.name, "12 keV")
        positions = positions / pixel
    span = np.ptp(positions, axis=0)
    frame = np.asarray(scan.frame_shape)
    if scan.views > 1 and span.max() < 0.5:
        raise InputError(
            f"{scan.name}: all positions lie within {span.max():.2g} object pixels of {scan.frame_shape}: their "
            "unit is wrong (data.positions_unit) or this is not a scan"
        )
    if (span > 50 * frame).any():
        raise InputError(f"{scan.name}: positions span {span[0]:.4g} x {span[1]:.4g} object pixels, frames have "
                         f"{frame[0]} x {frame[1]}: their unit is wrong (data.positions_unit) or the pixel size is")
    return positions - positions.min(0) + margin


def _first_probe(scan: Scan, model: Ptychography, mean: np.ndarray) -> np.ndarray:
    """One probe mode whose power is the mean counts of a frame."""
    if scan.probe is not None:
        probe = np.asarray(scan.probe, complex).reshape(-1, *scan.probe.shape[-2:])[0]
        if probe.shape != mean.shape:
            raise InputError(f"{scan.name}: the probe has shape {probe.shape}, the model {mean.shape}")
    elif model.far:
        probe = _defocused_aperture(mean)
    else:
        probe = np.fft.ifft2(np.fft.fft2(np.sqrt(mean)) * np.conj(np.asarray(model.transfer())))
    return probe * np.sqrt(mean.sum() / np.sum(abs(probe) ** 2))


def _defocused_aperture(mean: np.ndarray) -> np.ndarray:
    """A far-field probe from the mean frame alone: its square root as pupil, defocused until the spot fills a quarter
    of the frame, so that neighbouring patches overlap."""
    rows, columns = mean.shape
    pupil = np.sqrt(mean)
    fy, fx = np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None]
    width = np.sqrt((mean * (fy**2 + fx**2)).sum() / mean.sum())
    # A quadratic pupil phase exp(-i pi a f^2) moves frequency f by a f pixels.
    bend = 0.125 * min(rows, columns) / max(width, 1e-6)
    return np.fft.fftshift(np.fft.ifft2(pupil * np.exp(-1j * np.pi * bend * (fy**2 + fx**2)), norm="ortho"))


def _modes(probe: np.ndarray, count: int, power: float = 0.02) -> np.ndarray:
    """The probe and its products with polynomials of growing order about its centre, orthogonal and with little
    power.
    """
    weight = abs(probe) ** 2
    axes = [np.arange(n) - (weight.sum(1 - i) @ np.arange(n)) / weight.sum() for i, n in enumerate(probe.shape)]
    spread = [np.sqrt((weight.sum(1 - i) * a**2).sum() / weight.sum()) for i, a in enumerate(axes)]
    y, x = (axes[0] / spread[0])[:, None], (axes[1] / spread[1])[None]
    modes = [probe]
    orders = [(i, order - i) for order in range(1, count + 1) for i in range(order, -1, -1)]
    for i, j in orders[:count - 1]:
        mode = probe * np.clip(y, -3, 3) ** i * np.clip(x, -3, 3) ** j
        for other in modes:
            mode = mode - other * np.vdot(other, mode) / np.vdot(other, other)
        modes.append(mode * np.sqrt(power * weight.sum() / np.sum(abs(mode) ** 2)))
    modes = np.stack(modes)
    return modes * np.sqrt(weight.sum() / np.sum(abs(modes) ** 2))
