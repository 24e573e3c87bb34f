"""Ptychography, near and far field: one object, incoherent probe modes, positions, background and gain."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from .. import operators
from .._model import Model
from .._result import Quantity
from ..errors import InputError, MissingMetadata
from ..scan import Scan, frame_blocks

__all__ = ["Ptychography"]


class Ptychography(Model):
    """Frames of a scan of one object through one (partially coherent) probe.

    A view is `sum over modes |propagate(shift(probe, f) * object[corner])|^2 * gain + background^2`, with
    `position = corner + f`; see `diffrecon.operators.near_field` and `far_field`. Any field may be an unknown; those
    that are `None` are left out of the physics.

    **Fields:**

    - `object`: `(Y, X)` complex transmission, or `(slice, Y, X)` for a thick object, upstream first. With
      `refractive=True` it holds `phase + i B` instead, of which the transmission is `exp(-B + i phase)`: no wraps.
    - `probe`: `(mode, y, x)` complex; `sum |probe|^2` is the number of counts of an unobstructed frame.
    - `positions`: `(view, 2)` corner (row, column) of each view's patch in the object [pixel].
    - `background`: `(y, x)`, or `(1, 1)` where it is uniform, amplitude [sqrt(counts)]; its square is added
      incoherently, so that it cannot be negative.
    - `gain`: `(view,)` brightness of each view.
    - `distance`: effective propagation distance [m] from the (last) slice (unused in the far field); `wavelength` and
      `pixel_size` [m].
    - `astigmatism`: vertical minus horizontal effective distance [m], of crossed mirrors (near field).
    - `tilt`: `(2,)` slope of the scan plane along rows and columns [rad]: views away from its middle have another
      distance (near field).
    - `scan_matrix`: `(2, 2)` applied to the positions about the object's middle: scale, rotation and shear of the
      motors.
    - `drift`: `(knot, 2)` [pixel] added to the positions, linear in time between its knots.
    - `travel`: `(view, 2)` or `(1, 2)` path of a fly scan during an exposure [pixel], about the position.
    - `source_blur`: `(2,)` standard deviation of the beam's wandering on the sample (rows, columns) [pixel]: the size
      of the source as the sample sees it.
    - `detector_blur`: `()` or `(2,)` standard deviation of the detector's point spread [detector pixel].
    - `slice_spacing`: distance between slices [m].
    - `probe_variations`: `(variation, y, x)`, and `variation_weights`: `(view, variation)`: a first probe mode that
      changes from view to view in a space of low rank (Odstrcil, Baksh, Boden, Card, Chad, Frey & Brocklesby 2016).
    - `far`: `True` for the far field, whose frames have the zero frequency at index (0, 0).
    - `oversampling`: object pixels along a detector pixel (near field). Where the light has structure finer than a
      detector pixel, which sums intensities over it, 2 describes the frames better, at four times the cost.
    - `border`: detector pixels of the beam's window beyond each edge of the frame (near field): where light enters
      from the sides.
    - `nodes`: points of the quadrature along `travel` (three along each axis of `source_blur`).

    Cost: 2 (far) or 3 (near field) FFTs a view and mode, about three times as many with the gradient; times the nodes.

    ```python
    model = Ptychography.from_scan(scan, modes=2)
    counts = model(jnp.arange(3))
    ```
    """

    object: Complex[Array, "*slice Y X"]
    probe: Complex[Array, "mode y x"]
    positions: Float[Array, "view 2"]
    background: Float[Array, "#y #x"]
    gain: Float[Array, " view"]
    distance: Any = None
    wavelength: float | None = eqx.field(static=True, default=None)
    pixel_size: float | None = eqx.field(static=True, default=None)
    far: bool = eqx.field(static=True, default=False)
    oversampling: int = eqx.field(static=True, default=1)
    border: int = eqx.field(static=True, default=0)
    refractive: bool = eqx.field(static=True, default=False)
    nodes: int = eqx.field(static=True, default=5)
    astigmatism: Any = None
    tilt: Float[Array, "2"] | None = None
    scan_matrix: Float[Array, "2 2"] | None = None
    drift: Float[Array, "knot 2"] | None = None
    travel: Float[Array, "#view 2"] | None = None
    source_blur: Float[Array, "2"] | None = None
    detector_blur: Any = None
    slice_spacing: Any = None
    probe_variations: Complex[Array, "variation y x"] | None = None
    variation_weights: Float[Array, "view variation"] | None = None

    unknowns: ClassVar[tuple[str, ...]] = ("object", "probe", "positions")

    def __call__(self, views: Any) -> Float[Array, "view y x"]:
        """Expected counts of some views."""
        counts = self._exposed(views)
        if self.detector_blur is not None:
            counts = operators.blur_frames(counts, self.detector_blur)
        return counts * self.gain[views][:, None, None] + self.background**2

    def _exposed(self, views: Any) -> Float[Array, "view y x"]:
        """Frames summed over what moves during an exposure, one sharp exposure at a time: memory of one."""
        weights, offsets = self.exposure(views)
        places = self.places(views)
        if len(weights) == 1:
            return self.frames(views, places)

        @jax.checkpoint
        def add(counts, moment):
            weight, offset = moment
            return counts + weight * self.frames(views, places + offset), None

        empty = jnp.zeros((places.shape[0], *self._frame()), places.dtype)
        return jax.lax.scan(add, empty, (jnp.asarray(weights, places.dtype), offsets))[0]

    def frames(self, views: Any, places: Float[Array, "view 2"]) -> Float[Array, "view y x"]:
        """Counts of sharp exposures at some places, on the detector's pixels."""
        frames = operators.bin_pixels(operators.intensity(self.waves(views, places)), self.oversampling)
        edge = self.border
        return frames[:, edge : frames.shape[1] - edge, edge : frames.shape[2] - edge]

    def waves(self, views: Any, places: Float[Array, "view 2"] | None = None) -> Complex[Array, "view mode y x"]:
        """The waves on the detector."""
        places = self.places(views) if places is None else places
        between = None if self.slice_spacing is None else self.transfer(self.slice_spacing)
        if self.far:
            return operators.far_field(self.transmission(), self.beam(views), places, between)
        return operators.near_field(self.transmission(), self.beam(views), places, self.to_detector(places), between)

    def transmission(self) -> Complex[Array, "*slice Y X"]:
        """The object's complex transmission, whichever way it is stored."""
        return jnp.exp(1j * self.object) if self.refractive else self.object

    def beam(self, views: Any) -> Complex[Array, "*view mode y x"]:
        """The probe modes, for each view where they vary along the scan."""
        if self.probe_variations is None or self.variation_weights is None:
            return self.probe
        weights = self.variation_weights[views].astype(self.probe.dtype)
        change = jnp.einsum("vk,kyx->vyx", weights, self.probe_variations)
        first = (self.probe[0] + change)[:, None]
        others = jnp.broadcast_to(self.probe[1:], (first.shape[0], *self.probe[1:].shape))
        return jnp.concatenate([first, others], axis=1)

    def places(self, views: Any) -> Float[Array, "view 2"]:
        """Where the patches of some views lie in the object [pixel]: positions, corrected for the scan as a whole."""
        places = self.positions[views]
        if self.scan_matrix is not None:
            places = (places - self._middle()) @ self.scan_matrix.T + self._middle()
        if self.drift is not None:
            time = jnp.asarray(views) * ((self.drift.shape[0] - 1) / max(self.positions.shape[0] - 1, 1))
            knots = jnp.arange(self.drift.shape[0], dtype=places.dtype)
            hats = jnp.maximum(1 - jnp.abs(time[:, None].astype(places.dtype) - knots), 0)
            places = places + hats @ self.drift
        return places

    def exposure(self, views: Any) -> tuple[np.ndarray, Float[Array, "moment #view 2"]]:
        """Weights and offsets [pixel] of the sharp exposures that make up a frame: Gauss-Legendre points along the
        path of a fly scan, Gauss-Hermite points over a source.
        """
        weights, offsets = np.ones(1), jnp.zeros((1, 1, 2), self.positions.dtype)
        if self.travel is not None:
            travel = self.travel if self.travel.shape[0] == 1 else self.travel[views]
            times, weights = np.polynomial.legendre.leggauss(self.nodes)
            weights, offsets = weights / 2, jnp.asarray(times / 2, travel.dtype)[:, None, None] * travel
        if self.source_blur is not None:
            nodes, shares = np.polynomial.hermite_e.hermegauss(3)
            both = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 1, 1, 2)
            offsets = offsets + jnp.asarray(both, offsets.dtype) * self.source_blur
            weights = np.outer(np.outer(shares, shares) / shares.sum() ** 2, weights)
        return np.ravel(weights), offsets.reshape(-1, *offsets.shape[-2:])

    def to_detector(self, places: Float[Array, "view 2"]) -> Complex[Array, "*view y x"]:
        """The Fresnel transfer function from the sample to the detector, one for each view on a tilted scan plane."""
        difference = 0.0 if self.astigmatism is None else self.astigmatism / 2
        both = lambda distance: (distance + difference, distance - difference)
        if self.tilt is None:
            return self.transfer(both(self.distance))
        lift = (places - self._middle()) @ self.tilt * (self.pixel_size or 1.0)
        return jax.vmap(lambda extra: self.transfer(both(self.distance + extra)))(lift)

    def transfer(self, distance: Any) -> Complex[Array, "y x"]:
        """A Fresnel transfer function of the probe's shape over some distance [m], or (vertical, horizontal)."""
        return operators.fresnel_transfer(
            (self.probe.shape[-2], self.probe.shape[-1]),
            pixel_size=self.pixel_size,
            wavelength=self.wavelength,
            distance=distance,
            dtype=self.probe.dtype,
        )

    # ------------------------------------------------------------------ first guess
    @classmethod
    def from_scan(
        cls,
        scan: Scan,
        modes: int = 1,
        *,
        margin: float = 8,
        oversampling: int = 1,
        border: int = 0,
        slices: int = 1,
        slice_spacing: float | None = None,
        refractive: bool = False,
        variations: int = 0,
    ) -> "Ptychography":
        """A first guess from the data: flat object, probe from file, from the empty beam (`scan.flats`, near field) or
        from the mean frame, its power from the mean counts; background from the darks, where there are any.

        **Arguments:** number of probe `modes` (the further ones start as the probe times low-order polynomials, at 2 %
        of its power each); `margin` [detector pixel] around the scanned area, room for positions to move;
        `oversampling` and `border` of the near field; `slices` of the object, `slice_spacing` [m] apart; `refractive`:
        the object as phase and attenuation; `variations`: how many ways the probe may change along the scan.

        What else may be unknown starts from `model.replace(detector_blur=jnp.asarray(0.5))` and the like.

        **Raises:** `MissingMetadata` for positions or, in the near field, the distance; `InputError` for positions that
        span nothing or more than a reasonable object, or for what only the near field has in the far field.
        """
        positions = scan.require("positions", "positions of the views", "/path/of/positions")
        far = scan.far_field
        if far and (oversampling != 1 or border):
            raise InputError(
                "model.oversampling must be 1 and model.border 0 in the far field: its detector pixels "
                "sample the wave's spectrum, not the wave"
            )
        if slices > 1 and slice_spacing is None:
            raise MissingMetadata("model.slice_spacing", "the distance between slices", scan.name, "20 um")
        pixel = _pixel_size(scan, far and slices == 1)
        in_pixels = _object_positions(scan, positions, pixel, margin) * oversampling
        pixel = pixel if pixel is None else pixel / oversampling
        frame = tuple((n + 2 * border) * oversampling for n in scan.frame_shape)
        shape = tuple(
            int(n)
            for n in np.ceil(in_pixels.max(0)).astype(int) + np.asarray(frame) + int(np.ceil(margin * oversampling))
        )
        mean = empty_beam(scan)
        dark = 0.01 * max(float(np.median(mean)), 1e-2) if scan.darks is None else np.asarray(scan.darks, float).mean(0)
        geometry = None if far else scan.geometry
        distance = None if geometry is None else float(geometry.distance)
        wavelength = None if scan.geometry is None else scan.geometry.wavelength
        empty = jnp.zeros if refractive else jnp.ones
        base = cls(
            object=empty(shape if slices == 1 else (slices, *shape), jnp.complex64),
            probe=jnp.zeros((1, *frame), jnp.complex64),
            positions=jnp.asarray(in_pixels, jnp.float32),
            background=jnp.asarray(np.broadcast_to(np.sqrt(np.maximum(dark, 0)), scan.frame_shape), jnp.float32),
            gain=jnp.ones(scan.views, jnp.float32),
            distance=distance,
            wavelength=None if wavelength is None else float(wavelength),
            pixel_size=pixel,
            far=far,
            oversampling=oversampling,
            border=border,
            refractive=refractive,
            slice_spacing=None if slices == 1 else slice_spacing,
        )
        wide = np.kron(np.pad(mean, border, mode="edge"), np.ones((oversampling, oversampling))) / oversampling**2
        probe = jnp.asarray(_modes(_first_probe(scan, base, wide), modes), jnp.complex64)
        return base.replace(probe=probe, **_variations(np.asarray(probe[0]), variations, scan.views))

    # ------------------------------------------------------------------ out
    def quantities(self, scan: Scan | None = None) -> dict[str, Quantity]:
        """What is written to a file: `positions / pixel_size` are the patch corners in object pixels."""
        pixel, unit = (self.pixel_size, "m") if self.pixel_size else (1.0, "pixel")
        size = self.pixel_size
        transmission, plane = np.asarray(self.transmission()), ("slice", "y", "x")[3 - self.object.ndim :]
        places = np.asarray(self.places(jnp.arange(self.positions.shape[0])), np.float64)
        phase = np.asarray(self.object.real) if self.refractive else np.angle(transmission)
        found = {
            "object": Quantity(transmission, "", plane, size, "object transmission", "complex"),
            "probe": Quantity(np.asarray(self.probe), "sqrt(counts)", ("mode", "y", "x"), size, "probe modes", "modes"),
            "phase": Quantity(phase, "rad", plane, size, "phase", "image"),
            "positions": Quantity(
                places * pixel, unit, ("view", "axis"), pixel, "patch corners (row, column)", "positions"
            ),
            "background": Quantity(
                np.broadcast_to(np.asarray(self.background) ** 2, self._frame()),
                "counts",
                ("y", "x"),
                None,
                "background",
                "image",
            ),
            "gain": Quantity(np.asarray(self.gain), "", ("view",), None, "gain of each view", "data"),
        }
        if self.probe_variations is not None and self.variation_weights is not None:
            found["probe_variations"] = Quantity(
                np.asarray(self.probe_variations),
                "sqrt(counts)",
                ("variation", "y", "x"),
                size,
                "changes of the first mode",
                "modes",
            )
            found["variation_weights"] = Quantity(
                np.asarray(self.variation_weights), "", ("view", "variation"), None, "weights of the changes", "data"
            )
        return found

    def _middle(self) -> Float[Array, "2"]:
        """Corner of a patch in the middle of the object [pixel], about which the scan scales and tilts."""
        room = [n - m for n, m in zip(self.object.shape[-2:], self.probe.shape[-2:], strict=True)]
        return jnp.asarray(room, self.positions.dtype) / 2

    def _frame(self) -> tuple[int, int]:
        """Shape of a frame [detector pixel]."""
        rows, columns = (n // self.oversampling - 2 * self.border for n in self.probe.shape[-2:])
        return rows, columns

    def geometry(self) -> dict[str, Any]:
        """The geometry that the model holds, by name: numbers and small arrays."""
        names = (
            "distance",
            "astigmatism",
            "tilt",
            "scan_matrix",
            "drift",
            "travel",
            "source_blur",
            "detector_blur",
            "slice_spacing",
        )
        return {name: np.asarray(getattr(self, name)) for name in names if getattr(self, name) is not None}


def _variations(probe: np.ndarray, count: int, views: int) -> dict[str, Any]:
    """Low-order changes of the probe with small, random weights: zero weights of zero changes would never move."""
    if not count:
        return {}
    changes = _modes(probe, count + 1)[1:]
    weights = 0.1 * np.random.default_rng(0).standard_normal((views, count))
    return {
        "probe_variations": jnp.asarray(changes, jnp.complex64),
        "variation_weights": jnp.asarray(weights - weights.mean(0), jnp.float32),
    }


def empty_beam(scan: Scan) -> np.ndarray:
    """Counts of the beam without a sample: the mean flat of a near-field scan less its dark, else the mean frame."""
    dark = 0.0 if scan.darks is None else np.asarray(scan.darks, float).mean(0)
    if scan.flats is None or scan.far_field:
        return np.maximum(mean_frame(scan) - dark, 0)
    flat = np.maximum(np.asarray(scan.flats, float).mean(0) - dark, 0)
    return flat if scan.mask is None else np.where(scan.mask, flat, 0.0)


def mean_frame(scan: Scan) -> np.ndarray:
    """Mean frame in the model's order, float64, dead pixels zero."""
    scan = scan.in_fft_order()
    total = np.sum([block.sum(0, dtype=float) for block in frame_blocks(scan.counts)], axis=0)
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
            raise MissingMetadata(
                "geometry.energy",
                "the energy, distance or detector pixel (positions are in metres)",
                scan.name,
                "12 keV",
            )
        positions = positions / pixel
    span = np.ptp(positions, axis=0)
    frame = np.asarray(scan.frame_shape)
    if scan.views > 1 and span.max() < 0.5:
        raise InputError(
            f"{scan.name}: all positions lie within {span.max():.2g} object pixels of {scan.frame_shape}: their "
            "unit is wrong (data.positions_unit) or this is not a scan"
        )
    if (span > 50 * frame).any():
        raise InputError(
            f"{scan.name}: positions span {span[0]:.4g} x {span[1]:.4g} object pixels, frames have "
            f"{frame[0]} x {frame[1]}: their unit is wrong (data.positions_unit) or the pixel size is"
        )
    return positions - positions.min(0) + margin


def _first_probe(scan: Scan, model: Ptychography, mean: np.ndarray) -> np.ndarray:
    """One probe mode whose power is the mean counts of a frame."""
    if scan.probe is not None:
        probe = np.asarray(scan.probe, complex).reshape(-1, *scan.probe.shape[-2:])[0]
        if probe.shape == scan.frame_shape:
            probe = _finer(np.pad(probe, model.border, mode="edge"), model.oversampling)
        if probe.shape != mean.shape:
            raise InputError(
                f"{scan.name}: the probe has shape {probe.shape}, frames have {scan.frame_shape} and the "
                f"model {mean.shape}"
            )
    elif model.far:
        probe = _defocused_aperture(mean)
    else:
        probe = np.fft.ifft2(np.fft.fft2(np.sqrt(mean)) * np.conj(np.asarray(model.transfer(model.distance))))
    return probe * np.sqrt(mean.sum() / np.sum(abs(probe) ** 2))


def _finer(wave: np.ndarray, factor: int) -> np.ndarray:
    """A wave on pixels so many times smaller, band-limited as it was; where the centre of a pixel was, that of its
    parts is."""
    if factor == 1:
        return wave
    shape = [n * factor for n in wave.shape]
    half = (factor - 1) / 2
    ramps = [np.exp(-2j * np.pi * np.fft.fftfreq(n) * half / factor) for n in wave.shape]
    spectrum = np.fft.fftshift(np.fft.fft2(wave) * ramps[0][:, None] * ramps[1])
    room = [
        (big // 2 - small // 2, big - small - (big // 2 - small // 2))
        for big, small in zip(shape, wave.shape, strict=True)
    ]
    return np.fft.ifft2(np.fft.ifftshift(np.pad(spectrum, room)))


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
    for i, j in orders[: count - 1]:
        mode = probe * np.clip(y, -3, 3) ** i * np.clip(x, -3, 3) ** j
        for other in modes:
            mode = mode - other * np.vdot(other, mode) / np.vdot(other, other)
        modes.append(mode * np.sqrt(power * weight.sum() / np.sum(abs(mode) ** 2)))
    modes = np.stack(modes)
    return modes * np.sqrt(weight.sum() / np.sum(abs(modes) ** 2))
