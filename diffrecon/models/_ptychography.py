"""Ptychography, near and far field: one object, incoherent probe modes, positions, background and gain."""

from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from .. import operators
from .._model import Model
from .._result import Quantity
from ..scan import Scan
from . import _ptychography_start

__all__ = ["Ptychography"]


class Ptychography(Model):
    """Predict the frames of a scan of one object through one (partially coherent) probe.

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
    - `efficiency`: `(y, x)` relative efficiency of the detector's pixels, by which the light is multiplied before the
      background comes in.
    - `distance`: effective propagation distance [m] from the (last) slice (unused in the far field); `wavelength` and
      `pixel_size` [m].
    - `astigmatism`: vertical minus horizontal effective distance [m], of crossed mirrors (near field).
    - `tilt`: `(2,)` slope of the scan plane along rows and columns [rad]: views away from its middle have another
      distance (near field).
    - `scan_matrix`: `(2, 2)` applied to the positions about the object's middle: scale, rotation and shear of the
      motors.
    - `drift`: `(knot, 2)` [pixel] added to the positions, linear in time between its knots; `times`: `(view,)` from 0
      to 1, when each view was measured (one after another by default).
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
    background: Float[Array, "#row #column"]
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
    times: Float[Array, " view"] | None = None
    efficiency: Float[Array, "row column"] | None = None

    unknowns: ClassVar[tuple[str, ...]] = ("object", "probe", "positions")

    def __call__(self, views: Any) -> Float[Array, "view y x"]:
        """Predict the counts of some views."""
        counts = self._exposed(views)
        if self.detector_blur is not None:
            counts = operators.blur_frames(counts, self.detector_blur)
        if self.efficiency is not None:
            counts = counts * self.efficiency
        return counts * self.gain[views][:, None, None] + self.background**2

    def _exposed(self, views: Any) -> Float[Array, "view y x"]:
        """Sum frames over what moves during an exposure, one sharp exposure at a time: memory of one."""
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
        """Predict the counts of sharp exposures at some places, on the detector's pixels."""
        frames = operators.bin_pixels(operators.intensity(self.waves(views, places)), self.oversampling)
        edge = self.border
        return frames[:, edge : frames.shape[1] - edge, edge : frames.shape[2] - edge]

    def waves(self, views: Any, places: Float[Array, "view 2"] | None = None) -> Complex[Array, "view mode y x"]:
        """Give the waves on the detector."""
        places = self.places(views) if places is None else places
        between = None if self.slice_spacing is None else self.transfer(self.slice_spacing)
        if self.far:
            return operators.far_field(self.transmission(), self.beam(views), places, between)
        return operators.near_field(self.transmission(), self.beam(views), places, self.to_detector(places), between)

    def transmission(self) -> Complex[Array, "*slice Y X"]:
        """Give the object's complex transmission, whichever way it is stored."""
        return jnp.exp(1j * self.object) if self.refractive else self.object

    def beam(self, views: Any) -> Complex[Array, "*view mode y x"]:
        """Give the probe modes, for each view where they vary along the scan."""
        if self.probe_variations is None or self.variation_weights is None:
            return self.probe
        weights = self.variation_weights[views].astype(self.probe.dtype)
        change = jnp.einsum("vk,kyx->vyx", weights, self.probe_variations)
        first = (self.probe[0] + change)[:, None]
        others = jnp.broadcast_to(self.probe[1:], (first.shape[0], *self.probe[1:].shape))
        return jnp.concatenate([first, others], axis=1)

    def places(self, views: Any) -> Float[Array, "view 2"]:
        """Find where the patches of some views lie in the object [pixel]: positions, corrected for the whole scan."""
        places = self.positions[views]
        if self.scan_matrix is not None:
            places = (places - self._middle()) @ self.scan_matrix.T + self._middle()
        if self.drift is not None:
            time = jnp.asarray(self._times())[views] * (self.drift.shape[0] - 1)
            knots = jnp.arange(self.drift.shape[0], dtype=places.dtype)
            hats = jnp.maximum(1 - jnp.abs(time[:, None].astype(places.dtype) - knots), 0)
            places = places + hats @ self.drift
        return places

    def exposure(self, views: Any) -> tuple[np.ndarray, Float[Array, "moment #view 2"]]:
        """Give weights and offsets [pixel] of the sharp exposures that make up a frame: Gauss-Legendre points along
        the path of a fly scan, Gauss-Hermite points over a source.
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
        """Give the Fresnel transfer function from sample to detector, one for each view on a tilted scan plane."""
        difference = 0.0 if self.astigmatism is None else self.astigmatism / 2
        both = lambda distance: (distance + difference, distance - difference)
        if self.tilt is None:
            return self.transfer(both(self.distance))
        lift = (places - self._middle()) @ self.tilt * (self.pixel_size or 1.0)
        return jax.vmap(lambda extra: self.transfer(both(self.distance + extra)))(lift)

    def transfer(self, distance: Any) -> Complex[Array, "y x"]:
        """Give a Fresnel transfer function of the probe's shape over a distance [m], or (vertical, horizontal)."""
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
        """Guess from the data: flat object, probe from file, from the empty beam (`scan.flats`, near field) or from
        the mean frame, its power from the mean counts; background from the darks, where there are any.

        **Arguments:** number of probe `modes` (the further ones start as the probe times low-order polynomials, at 2 %
        of its power each); `margin` [detector pixel] around the scanned area, room for positions to move;
        `oversampling` and `border` of the near field; `slices` of the object, `slice_spacing` [m] apart; `refractive`:
        the object as phase and attenuation; `variations`: how many ways the probe may change along the scan.

        What else may be unknown is put in by `with_geometry`.

        **Raises:** `MissingMetadata` for positions or, in the near field, the distance; `InputError` for positions that
        span nothing or more than a reasonable object, or for what only the near field has in the far field.
        """
        return cls(
            **_ptychography_start.first_guess(
                scan,
                modes,
                margin=margin,
                oversampling=oversampling,
                border=border,
                slices=slices,
                slice_spacing=slice_spacing,
                refractive=refractive,
                variations=variations,
            )
        )

    def with_geometry(self, *, drift: int = 0, **values: Any) -> Self:
        """Put geometry into the model: each by name, `True` to start where it may be solved from, or a value.

        **Arguments:** `distance`, `astigmatism`, `tilt`, `scan_matrix`, `travel`, `source_blur`, `detector_blur`, in
        the units of the fields, but `travel` and `source_blur` in detector pixels; `None` and `False` leave the model
        as it is. `travel=True` starts on the path from each view to the next. `drift`: number of knots.

        **Raises:** `InputError` for a value of another shape, or what frames of the far field do not depend on.

        ```python
        model = model.with_geometry(detector_blur=True, tilt=(0.0, 0.01))
        ```
        """
        return self.replace(**_ptychography_start.geometry(self, drift, values))

    # ------------------------------------------------------------------ some views
    def by_view(self) -> tuple[str, ...]:
        """Name the fields that have one entry for each view."""
        names = ("positions", "gain", "variation_weights", "travel", "times")
        fields = {name: getattr(self, name) for name in names}
        return tuple(n for n, v in fields.items() if v is not None and len(v) == len(self.positions))

    def of_views(self, views: Any) -> Self:
        """Make the model of some views; what drifts keeps the time at which each was measured."""
        views = np.asarray(views)
        whole = self if self.drift is None else self.replace(times=jnp.asarray(self._times()))
        return whole.replace(**{name: jnp.asarray(np.asarray(getattr(whole, name))[views]) for name in whole.by_view()})

    def _times(self) -> Any:
        """Say when each view was measured, from zero to one."""
        return np.linspace(0, 1, len(self.positions), dtype=np.float32) if self.times is None else self.times

    # ------------------------------------------------------------------ light and gauge
    def light(self) -> Float[np.ndarray, "Y X"]:
        """Count the photons that fell on each pixel of the object, on the host: nothing is compiled."""
        beam, gain = np.sum(abs(np.asarray(self.probe)) ** 2, 0), np.asarray(self.gain)
        light = np.zeros(self.object.shape[-2:], beam.dtype)
        rows, columns = beam.shape
        # A patch beyond the border is moved inside, as `lax.dynamic_slice` does.
        corners = np.clip(np.floor(self.all_places() + 0.5).astype(int), 0, np.subtract(light.shape, beam.shape))
        for (row, column), times in zip(corners, gain, strict=True):
            light[row : row + rows, column : column + columns] += times * beam
        return light

    def all_places(self) -> Float[np.ndarray, "view 2"]:
        """Find where all patches lie, on the host."""
        if self.scan_matrix is None and self.drift is None:
            return np.asarray(self.positions)
        return np.asarray(_all_places(self))

    def well_seen(self) -> Bool[np.ndarray, "Y X"]:
        """Find the object pixels that got at least a tenth of the 95th percentile of the light."""
        return operators.well_lit(self.light())

    def advances_phase(self) -> bool:
        """Say whether phase and attenuation contradict each other, as in no matter: delta and beta are positive, so
        that the phase and the logarithm of the amplitude both fall where there is more of it.
        """
        if self.object.ndim > 2:
            return False
        values = np.asarray(self.object)[self.well_seen()]
        values = np.exp(1j * values) if self.refractive else values
        phase, amplitude = np.angle(values), np.log(np.maximum(abs(values), 1e-3))
        return bool(values.size > 100 and np.corrcoef(phase, amplitude)[0, 1] < -0.5)

    def natural_steps(self) -> dict[str, float]:
        """Give steps of the unknowns that change the frames about as much as a change of the object by one."""
        amplitude = operators.beam_amplitude(self.probe)
        path = 0.0 if self.distance is None else 2e-3 * abs(float(self.distance))
        spacing = 0.0 if self.slice_spacing is None else 5e-3 * abs(float(self.slice_spacing))
        reach = (self.pixel_size or 1.0) * max(float(np.ptp(np.asarray(self.positions))), 1.0) / 2
        steps = {"probe": amplitude, "probe_variations": amplitude, "variation_weights": 0.5}
        steps |= {"positions": self.oversampling, "drift": self.oversampling, "travel": 1.0, "source_blur": 0.5}
        steps |= {"distance": path, "astigmatism": path, "tilt": path / reach, "slice_spacing": spacing}
        return steps | {"scan_matrix": 5e-3, "detector_blur": 0.2}

    def fix_gauge(self, *, gain: bool = False, air: Bool[np.ndarray, "Y X"] | None = None) -> Self:
        """Fix what the data cannot tell, so that the predicted frames stay as they are.

        These are amplitude, phase and phase ramp between object and probe, and the order and mixture of the modes
        (orthogonal, strongest first). Phase and amplitude of the object become those of its mean, or of the `air` where
        some is known. With `gain` an unknown its mean goes into the probe, too. Refractive objects keep their ramp,
        thick ones and those of probes that vary their phase, too: there the product is not the object's alone.
        """
        model = self
        if gain:
            level = np.mean(np.asarray(model.gain))
            model = model.replace(gain=model.gain / level, probe=model.probe * np.sqrt(level))
        if model.probe_variations is not None or model.object.ndim > 2:
            return model
        light = model.light()
        region = operators.well_lit(light) if air is None else operators.well_lit(light) & air
        stored, weight = np.asarray(model.object), np.where(region, light, 0)
        obj, probe = np.exp(1j * stored) if self.refractive else stored, operators.orthogonal_modes(model.probe)
        if not self.refractive:
            obj, probe = _remove_ramp(obj, probe, weight)
        level = np.sqrt(np.sum(weight * abs(obj) ** 2) / np.sum(weight))
        level = level * np.exp(1j * np.angle(np.sum(weight * obj)))
        stored = stored + 1j * np.log(level) if self.refractive else obj / level
        cast = lambda values, like: jnp.asarray(values.astype(like.dtype))
        return model.replace(object=cast(stored, self.object), probe=cast(probe * level, self.probe))

    # ------------------------------------------------------------------ out
    def quantities(self, scan: Scan | None = None) -> dict[str, Quantity]:
        """Give what is written to a file: `positions / pixel_size` are the patch corners in object pixels."""
        pixel, unit = (self.pixel_size, "m") if self.pixel_size else (1.0, "pixel")
        size = self.pixel_size
        stored, plane = np.asarray(self.object), ("slice", "y", "x")[3 - self.object.ndim :]
        transmission = np.exp(1j * stored) if self.refractive else stored
        places = self.all_places().astype(np.float64)
        phase = np.real(stored) if self.refractive else np.angle(stored)
        quantities = {
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
        if self.efficiency is not None:
            quantities["efficiency"] = Quantity(
                np.asarray(self.efficiency), "", ("y", "x"), None, "efficiency of the pixels", "data"
            )
        if self.probe_variations is not None and self.variation_weights is not None:
            quantities["probe_variations"] = Quantity(
                np.asarray(self.probe_variations),
                "sqrt(counts)",
                ("variation", "y", "x"),
                size,
                "changes of the first mode",
                "modes",
            )
            quantities["variation_weights"] = Quantity(
                np.asarray(self.variation_weights), "", ("view", "variation"), None, "weights of the changes", "data"
            )
        return quantities

    def _middle(self) -> Float[Array, "2"]:
        """Give the corner of a patch in the middle of the object [pixel], about which the scan scales and tilts."""
        room = [n - m for n, m in zip(self.object.shape[-2:], self.probe.shape[-2:], strict=True)]
        return jnp.asarray(room, self.positions.dtype) / 2

    def _frame(self) -> tuple[int, int]:
        """Give the shape of a frame [detector pixel]."""
        rows, columns = (n // self.oversampling - 2 * self.border for n in self.probe.shape[-2:])
        return rows, columns

    def geometry(self) -> dict[str, Any]:
        """Give the geometry that the model holds, by name: numbers and small arrays."""
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


@eqx.filter_jit
def _all_places(model: Ptychography) -> Array:
    return model.places(jnp.arange(model.positions.shape[0]))


def _remove_ramp(obj: np.ndarray, probe: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move the mean phase gradient of the object into the probe, which leaves their product as it is.

    Where light reaches the border of the probe's window only ramps of whole periods keep the sub-pixel shifts exact.
    """
    light = np.sum(abs(probe) ** 2, 0)
    spills = 1 - np.sum(light[2:-2, 2:-2]) / np.sum(light) > 1e-3
    slopes = []
    for axis in (0, 1):
        step = obj * np.conj(np.roll(obj, 1, axis)) * np.minimum(weight, np.roll(weight, 1, axis))
        slope, period = np.angle(np.sum(step)), 2 * np.pi / probe.shape[1 + axis]
        slopes.append(round(slope / period) * period if spills else slope)
    ramp = lambda shape: np.exp(1j * (slopes[0] * np.arange(shape[0])[:, None] + slopes[1] * np.arange(shape[1])))
    return obj * np.conj(ramp(obj.shape)), probe * ramp(probe.shape[-2:])
