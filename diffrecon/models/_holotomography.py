"""Holotomography: one volume of delta and beta behind in-line holograms at several distances and many angles."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from .. import operators, physics
from .._model import Model
from .._result import Quantity
from ..errors import InputError, MissingMetadata
from ..frames import Entries, spread
from ..motion import fix_gauge
from ..operators import AlignedProjector, ParallelProjector
from ..operators.fourier import good_size
from ..scan import Scan
from ._holography import FACTORS, _pairs, mean_dark, robust_mean
from ._ptychotomography import angle_table

__all__ = ["HoloTomography", "hologram_table", "holograms_by_angle"]


class HoloTomography(Model):
    """Holograms of an isolated sample at several distances for each of many angles, all of one volume.

    `model(angles)` takes indices of angles and predicts the frames of all distances of each, `(angle, distance, y, x)`,
    because they share its projection. `minimise` therefore takes data with one entry an angle,
    `holograms_by_angle(scan)`; `batch_size` counts angles. A frame is `gain flux box(|1 + P(exp(-B + i phase) - 1)|^2)
    + dark`: Fresnel propagation in vacuum, then integration over the pixels of that distance.

    **Fields:**

    - `delta`: `(z, y, x)` [rad/pixel], `2 pi / lambda` times the decrement of the refractive index;
      `refractive_index()` gives it without unit. With P the projection, phase = `-P delta`.
    - `beta`: `(z, y, x)` [1/pixel], absorption that `delta_beta` does not explain: `B = P (beta + delta / delta_beta)`;
      `None` for one material.
    - `delta_beta`: delta / beta of the main material; `inf` makes the two volumes independent.
    - `projector`: of the angles onto the columns of a projection, its axis in the middle. All of the geometry of an
      `AlignedProjector` may be unknown too (`"projector.motion.roll"`).
    - `shifts`: `(angle, distance, 2)` motion of the picture (row, column) in each frame [pixel of the volume], and
      `centre`: where the rotation axis is from the optical axis [pixel of the volume]. No image is interpolated for
      them: they move the detector's pixels.
    - `gain`: `(angle, distance)` brightness; `flux`: `(1 or distance, y or 1, x or 1)` counts of the empty beam without
      the `dark` `(y or 1, x or 1)`.
    - `distances`: `(distance, 2)` effective ones (vertical, horizontal) [m]; `pixels`: effective pixel of each [m];
      `pixel_size` of the volume, `wavelength` [m]; `frame`: shape of a frame; `grid`: shape that projections are
      zero-padded to.

    What frames cannot tell: where the sample as a whole sits: shifts constant along rows, or along columns as cosine
    and sine of the angle. A constant shift along columns is the centre.

    **Cost** of a call for n angles: one Fourier grid of the volumes, n projections and FFTs of the grid, and for each
    frame one FFT and two matrix products `(frame, grid) x (grid, grid)`.

    ```python
    model = HoloTomography.from_scan(scan)
    counts = model(jnp.arange(2))          # the frames of the first two angles
    ```
    """

    delta: Float[Array, "z y x"]
    beta: Float[Array, "z y x"] | None
    delta_beta: Float[Array, ""]
    projector: ParallelProjector | AlignedProjector
    shifts: Float[Array, "angle distance 2"]
    centre: Float[Array, ""]
    gain: Float[Array, "angle distance"]
    flux: Float[Array, "#distance #y #x"]
    dark: Float[Array, "#y #x"]
    distances: Float[Array, "distance 2"]
    pixels: tuple[tuple[float, float], ...] = eqx.field(static=True)
    pixel_size: float = eqx.field(static=True)
    wavelength: float = eqx.field(static=True)
    frame: tuple[int, int] = eqx.field(static=True)
    grid: tuple[int, int] = eqx.field(static=True)

    unknowns: ClassVar[tuple[str, ...]] = ("delta", "beta", "shifts")

    def __call__(self, angles: Any) -> Float[Array, "angle distance y x"]:
        """Expected counts of all distances of some angles."""
        return self.frames(self.projections(angles), angles)

    def projections(self, angles: Any) -> Complex[Array, "angle z x"]:
        """`phase + i B` of some angles."""
        angles = jnp.asarray(angles)
        if self.beta is None:
            delta = self.projector(self.delta, angles)
            return jax.lax.complex(-delta, delta / self.delta_beta)
        if isinstance(self.projector, AlignedProjector):
            delta, beta = (self.projector(volume, angles) for volume in (self.delta, self.beta))
        else:  # both in one pass
            both = self.projector(jnp.concatenate([self.delta, self.beta]), angles)
            delta, beta = both[:, : self.delta.shape[0]], both[:, self.delta.shape[0] :]
        return jax.lax.complex(-delta, beta + delta / self.delta_beta)

    def frames(self, projections: Complex[Array, "angle z x"], angles: Any) -> Float[Array, "angle distance y x"]:
        """Expected counts of some angles whose projections are known."""
        angles, count = jnp.asarray(angles), len(self.pixels)
        transfer = jnp.stack([self._transfer(number, projections.dtype) for number in range(count)])

        def of_angle(projection: Array, shifts: Array) -> Array:
            # exp(i phase - B); the projection sits in the grid's corner, and so it does for the detector's pixels.
            scattered = jnp.fft.fft2(jnp.exp(1j * projection) - 1, s=self.grid)
            numbers = jnp.arange(count)
            return jax.vmap(lambda n: self._hologram(scattered * transfer[n], n, shifts[n], projection.shape))(numbers)

        holograms = jax.vmap(of_angle)(projections, self.shifts[angles])
        return self.gain[angles][..., None, None] * self.flux * holograms + self.dark

    def _transfer(self, number: int, dtype: Any) -> Complex[Array, "Y X"]:
        """Propagation over one of the distances."""
        vertical, horizontal = self.distances[number]
        return operators.fresnel_transfer(
            self.grid,
            pixel_size=self.pixel_size,
            wavelength=self.wavelength,
            distance=(vertical, horizontal),
            dtype=dtype,
        )

    def _hologram(self, spectrum: Array, number: Any, shift: Array, window: tuple[int, ...]) -> Float[Array, "y x"]:
        """Intensity of `1 + wave`, given the spectrum of the wave on a detector, on its pixels."""
        wave = 1 + jnp.fft.ifft2(spectrum)
        intensity = jnp.square(jnp.real(wave)) + jnp.square(jnp.imag(wave))
        rows, columns = (self._pixel_matrix(number, axis, shift[axis], window[axis]) for axis in (0, 1))
        return operators.to_pixels(intensity, rows, columns)

    def _pixel_matrix(self, number: Any, axis: int, shift: Array, window: int) -> Float[Array, "frame grid"]:
        dtype = self.delta.dtype
        ratio = jnp.asarray(np.asarray(self.pixels)[:, axis] / self.pixel_size, dtype)[number]
        moved = shift + self.centre if axis else shift
        return operators.pixel_matrix(
            self.frame[axis], self.grid[axis], ratio=ratio, shift=moved / ratio, centre=(window - 1) / 2, dtype=dtype
        )

    # ------------------------------------------------------------------ first guess
    @classmethod
    def from_scan(
        cls,
        scan: Scan,
        *,
        delta_beta: float = np.inf,
        beta: bool = False,
        size: int | None = None,
        height: int | None = None,
        flats: str = "mean",
        volume: bool = True,
    ) -> "HoloTomography":
        """Vacuum in the geometry of a scan, on the finest of its pixels.

        Every view has an angle (`scan.angles`) and a distance (`scan.geometry`, one entry a view, or one for each view
        of an angle): see `hologram_table`. `scan.rotation_centre` is the column of the axis in frames of the finest
        pixel; `scan.extra["shifts"]` as for `Holography`.

        **Arguments:** `delta_beta`, `beta` = with a volume of its own: see the class; `size` of a slice along x and y,
        and `height` = number of slices [pixel of the volume], by default the finest field of view: give more where the
        sample is wider; `flats`: `"mean"` of all, or `"distance"` where they come in as many equal groups as there are
        distances, in increasing order of these; `volume=False` leaves the volumes out of memory: `delta` then only
        says shape and type, for a reconstruction in slabs.

        **Raises:** `MissingMetadata` for angles or a geometry that is not known; `InputError` for angles without all
        distances, fewer than three angles, an in-focus geometry.
        """
        table, turns, pixels, distances = hologram_table(scan)
        pixel, frame = float(pixels.min()), scan.frame_shape
        side, slices = int(size or frame[1]), int(height or frame[0])
        if min(side, slices) < 2:
            raise InputError(f"model.size = {side}, model.height = {slices}: a volume needs two pixels at least")
        wavelength = float(scan.geometry.wavelength)  # type: ignore[union-attr]
        fields = [max(int(np.ceil(frame[a] * pixels[:, a].max() / pixel)), (slices, side)[a]) for a in (0, 1)]
        # Fringes of the finest details run as far as `reach` from the sample, and are not to come back into the field.
        reach = int(np.ceil(wavelength * distances.max() / pixel**2))
        grid = [
            good_size(max(int(1.25 * n), min((n + own + reach) // 2, int(2.5 * n))), factors=FACTORS)
            for n, own in zip(fields, (slices, side), strict=True)
        ]
        middle = (frame[1] - 1) / 2
        off = 0.0 if scan.rotation_centre is None else float(scan.rotation_centre) - middle
        shifts, given = np.zeros((*table.shape, 2)), scan.extra.get("shifts")
        if given is not None:
            shifts = np.asarray(given, float)[table] * (pixels / pixel)
        shape = (slices, side, side)
        empty: Any = jnp.zeros(shape, jnp.float32) if volume else jax.ShapeDtypeStruct(shape, jnp.float32)
        return cls(
            delta=empty,
            beta=empty if beta else None,
            delta_beta=jnp.asarray(delta_beta, jnp.float32),
            projector=ParallelProjector(turns, (side, side), side),
            shifts=jnp.asarray(shifts, jnp.float32),
            centre=jnp.asarray(off * pixels[:, 1].min() / pixel, jnp.float32),
            gain=jnp.ones(table.shape, jnp.float32),
            dark=jnp.asarray(mean_dark(scan), jnp.float32),
            flux=jnp.asarray(_empty_beams(scan, table, flats), jnp.float32),
            distances=jnp.asarray(distances, jnp.float32),
            pixels=tuple((float(v), float(h)) for v, h in pixels),
            pixel_size=pixel,
            wavelength=wavelength,
            frame=frame,
            grid=(grid[0], grid[1]),
        )

    # ------------------------------------------------------------------ out
    def of_views(self, angles: Any) -> "HoloTomography":
        """Make the model of some of the angles."""
        angles = np.asarray(angles)
        return self.replace(projector=self.projector.subset(angles), shifts=self.shifts[angles], gain=self.gain[angles])

    def centred(self) -> "HoloTomography":
        """Say the same places once: what all frames have moved by along columns, next to a sine of the angle, is the
        centre."""
        shifts, constant = fix_gauge(self.shifts, self.projector.angles)
        return self.replace(shifts=shifts, centre=self.centre + constant)

    def unit(self, quantity: str, material: str | None = None) -> tuple[float, str, str]:
        """Give the factor from rad/pixel to delta, density (of a named composition) or electron-density, its unit and
        its name."""
        delta = self.wavelength / (2 * np.pi * self.pixel_size)
        if quantity == "delta":
            return delta, "", "refractive decrement delta"
        if quantity == "electron-density":
            return 1e-30 * float(physics.electron_density(delta, self.wavelength)), "1/angstrom^3", "electron density"
        energy = float(physics.wavelength_to_energy(self.wavelength))
        return float(physics.density_from_delta(delta, str(material), energy)), "g/cm^3", f"density as {material}"

    def summary(self) -> str:
        """Describe angles, frames, distances and volume in a line."""
        (angles, distances), millimetres = self.gain.shape, np.asarray(self.distances)[:, 0] * 1e3
        return (
            f"{angles} angles with {distances} holograms of {self.frame[0]} x {self.frame[1]}, pixels "
            f"{', '.join(f'{p[0] * 1e9:.4g}' for p in self.pixels)} nm, effective distances "
            f"{', '.join(f'{d:.4g}' for d in millimetres)} mm; volume {' x '.join(map(str, self.delta.shape))} of "
            f"{self.pixel_size * 1e9:.4g} nm, delta/beta {float(self.delta_beta):.4g}"
        )

    def refractive_index(self) -> tuple[Float[Array, "z y x"], Float[Array, "z y x"]]:
        """Decrement delta and absorption index beta of the refractive index `1 - delta + i beta`."""
        scale = self.wavelength / (2 * np.pi * self.pixel_size)
        beta = self.delta / self.delta_beta
        return self.delta * scale, (beta if self.beta is None else beta + self.beta) * scale

    def rotation_centre(self) -> float:
        """Column of the rotation axis in frames of the finest pixel."""
        finest = min(horizontal for _, horizontal in self.pixels)
        return (self.frame[1] - 1) / 2 + float(self.centre) * self.pixel_size / finest

    def quantities(self) -> dict[str, Quantity]:
        """Give what is written to a file."""
        pixel, axes = self.pixel_size, ("z", "y", "x")
        delta, beta = (np.asarray(v) for v in self.refractive_index())
        volumes = {
            "delta": Quantity(delta, "", axes, pixel, "refractive decrement delta", "volume"),
            "beta": Quantity(beta, "", axes, pixel, "absorption index beta", "volume"),
            "phase": Quantity(
                np.asarray(self.projections(np.arange(1)))[0].real, "rad", ("y", "x"), pixel, "phase of the first angle"
            ),
        }
        return volumes | self.places()

    def places(self) -> dict[str, Quantity]:
        """Give what is written of the frames."""
        pixel = self.pixel_size
        return {
            "shifts": Quantity(
                np.asarray(self.shifts) * pixel,
                "m",
                ("angle", "distance", "axis"),
                pixel,
                "motion of the picture in each frame (row, column)",
                "data",
            ),
            "gain": Quantity(np.asarray(self.gain), "", ("angle", "distance"), None, "gain of each frame", "data"),
            "angles": Quantity(np.asarray(self.projector.angles), "rad", ("angle",), None, "angles", "data"),
            "distances": Quantity(
                np.asarray(self.distances).mean(1), "m", ("distance",), None, "effective propagation distances", "data"
            ),
        }


# ---------------------------------------------------------------------------------------------------- views
def hologram_table(scan: Scan) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find which view is which hologram: `(angle, distance)` indices into the scan; the angles [rad]; effective pixels
    and distances `(distance, 2)` (vertical, horizontal) [m], in increasing order of the pixel.

    Views whose angles agree to 1e-5 rad belong together, in any order of the file. The geometry has one entry a view;
    or one for each of the views of an angle, in the order in which they come; or a single one.

    **Raises:** `MissingMetadata`, or `InputError` where an angle does not have every distance once.
    """
    place = scan.require("geometry", "the geometry (energy, distances, detector pixel)", "a file with geometry")
    if place.wavelength is None or place.distance is None or place.pixel_size is None:
        raise MissingMetadata(
            "geometry.focus_to_sample", "the energy, a distance or the detector pixel", scan.name, "21 mm"
        )
    table, turns = angle_table(scan)
    views, each = scan.views, table.shape[1]
    short = np.flatnonzero((table[:, 1:] == table[:, :1]).any(1))
    if short.size:
        held = np.unique(table[short[0]]).size
        raise InputError(
            f"{scan.name}: angle {short[0]} ({turns[short[0]]:.4g} rad) has {held} holograms, others have "
            f"{each}: every angle needs all distances (leave that angle out)"
        )
    entries = max(np.asarray(v).shape[0] if np.ndim(v) else 1 for v in (place.pixel_size, place.distance))
    if entries == views:
        pixels, distances = (_pairs(v, views)[table] for v in (place.pixel_size, place.distance))
    elif entries in (1, each):
        pixels, distances = (
            np.broadcast_to(_pairs(v, each), (len(table), each, 2)) for v in (place.pixel_size, place.distance)
        )
    else:
        raise InputError(
            f"{scan.name}: {entries} distances for {views} views of {len(table)} angles; give one a view, "
            f"or one for each of the {each} views of an angle (geometry.focus_to_sample)"
        )
    if not (distances > 0).all():
        raise InputError(
            f"{scan.name}: the propagation distances {np.unique(distances)} m are not all positive: "
            "geometry.focus_to_detector must be larger than geometry.focus_to_sample"
        )
    order = np.lexsort((distances[..., 0], pixels[..., 0]))
    pick = lambda a: np.take_along_axis(a, order[..., None], 1)
    table, pixels, distances = np.take_along_axis(table, order, 1), pick(pixels), pick(distances)
    odd = np.flatnonzero(np.abs(distances / distances[:1] - 1).max((1, 2)) > 1e-4)
    if odd.size:
        raise InputError(
            f"{scan.name}: angle {odd[0]} ({turns[odd[0]]:.4g} rad) was measured at other distances than "
            "the first angle: every angle needs all distances once"
        )
    return table, turns, pixels[0], distances[0]


def holograms_by_angle(scan: Scan) -> dict[str, Any]:
    """Data for `minimise`, one entry an angle: `counts` `(angle, distance, y, x)` in the detector's type, read as they
    are needed, and `mask` `(y, x)`."""
    table, *_ = hologram_table(scan)
    mask = np.ones(scan.frame_shape, bool) if scan.mask is None else scan.mask
    return {"counts": Entries(scan.counts, table), "mask": mask}


def _empty_beams(scan: Scan, table: np.ndarray, flats: str) -> np.ndarray:
    """Counts of the empty beam without the dark, `(1 or distance, y or 1, x or 1)`: flats, else the scan's flux, else
    the border of some frames of each distance."""
    if scan.flats is not None:
        frames, groups = np.asarray(scan.flats, float), table.shape[1]
        if flats == "mean":
            return frames.mean(0, keepdims=True) - mean_dark(scan)
        if flats != "distance" or len(frames) % groups:
            raise InputError(
                f'model.flats: {flats!r} is neither "mean" nor "distance"'
                if flats != "distance"
                else f"model.flats=distance: {len(frames)} flats are no {groups} equal groups"
            )
        return frames.reshape(groups, -1, *frames.shape[1:]).mean(1) - mean_dark(scan)
    if scan.flux is not None:
        return np.full((1, 1, 1), float(scan.flux))
    some = table[spread(len(table), 16)]
    border = np.ones(scan.frame_shape, bool) if scan.mask is None else scan.mask.copy()
    edge = max(2, min(scan.frame_shape) // 32)
    border[edge:-edge, edge:-edge] = False
    counts = [np.asarray(scan.counts[np.sort(views)], float) - mean_dark(scan) for views in some.T]
    return np.stack([robust_mean(c[:, border] if border.any() else c) for c in counts])[:, None, None]
