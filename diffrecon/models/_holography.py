"""In-line holography in a cone beam: one object, holograms at several distances, each on its own detector pixel."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Num

from .. import operators, physics
from .._model import Model
from .._result import Quantity
from ..errors import InputError, MissingMetadata
from ..operators.fourier import good_size, twice_as_fine
from ..prepare import flats_of_views
from ..priors import PowerLaw
from ..scan import Scan
from ..solvers import ctf

__all__ = ["Holography"]


FACTORS = (2, 3, 5, 7)  # prime factors of the sizes of windows, whose parity is that of the frames
_REACH = (
    0.6  # of the widest field, that surroundings go on for: finer fringes from further away leave a field half wide
)


class Holography(Model):
    """Holograms of one object at several distances, in the detector's own pixels.

    A view is `flux * box(|1 + P(exp(-B + i phase) - 1)|^2) + dark`: Fresnel propagation over the view's effective
    distance in vacuum, then integration over the pixels of that view, which lie at `(i - (n-1)/2 - shift) * pixel`
    about the optical axis.

    **Fields:**

    - `phase`: `(y, x)` [rad], negative in matter; on the pixel `pixel_size`, centred on the optical axis. Outside its
      window is vacuum; where the window is the whole `grid` the specimen goes on beyond the frames, and is periodic.
    - `attenuation`: `(y, x)`, what `delta_beta` does not explain: `B = attenuation - phase / delta_beta`.
    - `delta_beta`: delta / beta of the main material; zero attenuation makes it the only one, `inf` makes the two maps
      independent.
    - `thickness`: `(material, y, x)` [m] of named materials, or `None`; `refraction`: `(material, 2)` their delta and
      beta; `materials`: their names. They add `-k delta thickness` to the phase and `k beta thickness` to B.
    - `flux`: `(view, 1, 1)` counts a pixel of the empty beam, or `(view, y, x)` an image of it; `dark`: counts added
      to all.
    - `probe`: `(view, y, x)` complex wave of the empty beam at the object, on its window and 1 outside, or `None` for
      1.
    - `shifts`: `(view, 2)` motion of the picture (row, column) in each frame [its own pixel]; `rotations`: `(view,)`
      of each frame [rad] from columns towards rows, or `None`; `stretch`: `(view, 2)` correction of each frame's pixel,
      about 1, or `None`.
    - `distances`: `(view, 2)` effective propagation distances [m] (vertical, horizontal: they differ in an astigmatic
      beam).
    - `source_blur`, `detector_blur`: standard deviation of the focus [m] and of the detector's point spread [detector
      pixel].
    - `pixels`: effective detector pixel of each view [m] (vertical, horizontal); `defocus`: how much of the source
      each view sees, `(M - 1) / M`; `pixel_size`, `wavelength` [m]; `frame`: shape of a frame; `grid`: shape that the
      object is zero-padded to.

    Any array may be an unknown. **Cost:** one FFT of the grid, and for each view one FFT and two matrix products
    `(frame, grid) x (grid, grid)`.

    ```python
    model = Holography.from_scan(scan)
    counts = model(jnp.arange(4))
    ```
    """

    phase: Float[Array, "y x"]
    attenuation: Float[Array, "y x"]
    delta_beta: Float[Array, ""]
    flux: Float[Array, "view #Y #X"]
    dark: Float[Array, "#Y #X"]
    shifts: Float[Array, "view 2"]
    distances: Float[Array, "view 2"]
    source_blur: Float[Array, ""]
    detector_blur: Float[Array, ""]
    pixels: tuple[tuple[float, float], ...] = eqx.field(static=True)
    defocus: tuple[float, ...] = eqx.field(static=True)
    pixel_size: float = eqx.field(static=True)
    wavelength: float = eqx.field(static=True)
    frame: tuple[int, int] = eqx.field(static=True)
    grid: tuple[int, int] = eqx.field(static=True)
    rotations: Float[Array, " view"] | None = None
    stretch: Float[Array, "view 2"] | None = None
    probe: Complex[Array, "view y x"] | None = None
    thickness: Float[Array, "material y x"] | None = None
    refraction: Float[Array, "material 2"] | None = None
    materials: tuple[str, ...] = eqx.field(static=True, default=())

    unknowns: ClassVar[tuple[str, ...]] = ("phase", "attenuation")

    # ------------------------------------------------------------------ the object
    @property
    def borderless(self) -> bool:
        """Say whether the specimen goes on beyond the frames: nothing of the grid is vacuum."""
        return self.phase.shape == self.grid

    def total_phase(self) -> Float[Array, "y x"]:
        """Phase [rad] of all there is."""
        return self.phase if self.thickness is None else self.phase - self._of_materials(0)

    def absorption(self) -> Float[Array, "y x"]:
        """`B = (2 pi/lambda) int beta dz`, so that the transmission is `exp(-B + i phase)`."""
        free = self.attenuation - self.phase / self.delta_beta
        return free if self.thickness is None else free + self._of_materials(1)

    def _of_materials(self, which: int) -> Float[Array, "y x"]:
        """`k sum_m (delta_m or beta_m) thickness_m`."""
        # k delta [1/m] times thickness [m]: about 1e4 times 1e-5, both well inside float32.
        assert self.refraction is not None and self.thickness is not None
        return jnp.tensordot(2 * np.pi / self.wavelength * self.refraction[:, which], self.thickness, 1)

    def transmission(self) -> Complex[Array, "y x"]:
        """`exp(-B + i phase)` on the object's window."""
        return jnp.exp(jax.lax.complex(-self.absorption(), self.total_phase()))

    # ------------------------------------------------------------------ the measurement
    def __call__(self, views: Any) -> Float[Array, "view y x"]:
        """Expected counts of some views."""
        views, transmission = jnp.asarray(views), self.transmission()
        if self.probe is None:
            # The window sits in the grid's corner: `hologram` knows where, and the FFT does not care.
            scattered = jnp.fft.fft2(transmission - 1, s=self.grid)
            holograms = jax.vmap(lambda view: self.hologram(scattered, view))(views)
        else:
            probe = self.probe
            spectrum = lambda view: jnp.fft.fft2(probe[view] * transmission - 1, s=self.grid)
            holograms = jax.vmap(lambda view: self.hologram(spectrum(view), view))(views)
        return self.flux[views] * holograms + self.dark

    def empty_beam(self, views: Any) -> Float[Array, "view y x"]:
        """Expected counts of some views without the object: what flats measure."""
        views = jnp.asarray(views)
        if self.probe is None:
            return jnp.broadcast_to(self.flux[views], (views.size, *self.frame)) + self.dark
        probe = self.probe
        beam = jax.vmap(lambda view: self.hologram(jnp.fft.fft2(probe[view] - 1, s=self.grid), view))(views)
        return self.flux[views] * beam + self.dark

    def hologram(self, scattered: Complex[Array, "Y X"], view: Any) -> Float[Array, "y x"]:
        """One view at unit flux, from the spectrum of `wave - 1` behind the object."""
        distance = self.distances[view]
        transfer = operators.fresnel_transfer(
            self.grid,
            pixel_size=self.pixel_size,
            wavelength=self.wavelength,
            distance=(distance[0], distance[1]),
            dtype=scattered.dtype,
        )
        wave = 1 + jnp.fft.ifft2(scattered * transfer)
        intensity = jnp.square(jnp.real(wave)) + jnp.square(jnp.imag(wave))
        if self.rotations is not None:
            middle = tuple(int((g - w) // 2) for g, w in zip(self.grid, self.phase.shape, strict=True))
            back = (-middle[0], -middle[1])
            intensity = jnp.roll(
                operators.rotate_periodic(jnp.roll(intensity, middle, (0, 1)), self.rotations[view]), back, (0, 1)
            )
        return operators.to_pixels(intensity, self.pixel_matrix(view, 0), self.pixel_matrix(view, 1))

    def pixel_matrix(self, view: Any, axis: int) -> Float[Array, "frame grid"]:
        """Matrix that integrates a field of the grid over the pixels of a view along one axis."""
        dtype, pixels = self.phase.dtype, np.asarray(self.pixels)[:, axis]
        pick = lambda values: jnp.asarray(values, dtype)[view]
        # The focus seen through the object, in pixels of the detector.
        source = self.source_blur * pick(np.asarray(self.defocus) / pixels)
        return operators.pixel_matrix(
            self.frame[axis],
            self.grid[axis],
            ratio=pick(pixels / self.pixel_size),
            shift=self.shifts[view, axis],
            stretch=1.0 if self.stretch is None else self.stretch[view, axis],
            # sqrt has no derivative at zero; blurs of nothing stay nothing.
            blur=jnp.sqrt(source**2 + self.detector_blur**2 + jnp.finfo(dtype).tiny),
            centre=(self.phase.shape[axis] - 1) / 2,
            dtype=dtype,
        )

    def blurs(self) -> Float[Array, "view 2"]:
        """Compute the standard deviation of source and detector together, `(view, 2)` [detector pixel]."""
        source = jnp.asarray(np.asarray(self.defocus)[:, None] / np.asarray(self.pixels), self.phase.dtype)
        return jnp.hypot(source * self.source_blur, self.detector_blur)

    def resampled_contrast(
        self, counts: Num[np.ndarray, "view y x"], mask: Bool[np.ndarray, "*of_view y x"] | None = None
    ) -> Float[Array, "view Y X"]:
        """Resample `counts / empty beam - 1` of every view onto the object's window by cubic interpolation, zero where
        nothing was measured: what first guesses start from."""
        matrices = lambda axis: np.stack([
            operators.cubic_matrix(self.phase.shape[axis], self.frame[axis], self.pixel_size / pixel[axis], shift[axis])
            for pixel, shift in zip(self.pixels, np.asarray(self.shifts, float), strict=True)
        ])  # fmt: skip
        rows, columns = matrices(0).astype(np.float32), matrices(1).astype(np.float32)
        return _resampled(self, rows, columns, counts, np.ones(self.frame, bool) if mask is None else mask)

    def of_views(self, views: Any) -> "Holography":
        """The model of some frames only."""
        chosen = [int(view) for view in np.asarray(views)]
        by_view = ("flux", "shifts", "distances", "rotations", "stretch", "probe")
        arrays = {name: getattr(self, name)[np.asarray(chosen)] for name in by_view if getattr(self, name) is not None}
        of = lambda values: tuple(values[i] for i in chosen)
        return self.replace(pixels=of(self.pixels), defocus=of(self.defocus), **arrays)

    def with_unknowns(self, names: Sequence[str]) -> "Holography":
        """Give numbers of the geometry that are to be solved for a value; a blur must not begin at zero, where it has
        no slope."""
        views, dtype = len(self.pixels), self.phase.dtype
        fields: dict[str, Array] = {}
        if "rotations" in names and self.rotations is None:
            fields["rotations"] = jnp.zeros(views, dtype)
        if "stretch" in names and self.stretch is None:
            fields["stretch"] = jnp.ones((views, 2), dtype)
        for name, least in (("detector_blur", 0.3), ("source_blur", 0.5 * self.pixel_size)):
            if name in names and float(getattr(self, name)) == 0:
                fields[name] = jnp.asarray(least, dtype)
        return self.replace(**fields)

    def describe(self) -> tuple[str, str]:
        """Describe the geometry in words, and what is wrong with its sampling, or nothing."""
        distances, pixels = (np.asarray(v, float).mean(1) for v in (self.distances, self.pixels))
        frame, size, grid = (" x ".join(map(str, shape)) for shape in (self.frame, self.phase.shape, self.grid))
        if self.borderless:
            return self._describe_surroundings(distances, pixels), ""
        optics = {"pixel_size": self.pixel_size, "wavelength": self.wavelength}
        reports = [operators.sampling(self.grid, distance=float(d), **optics) for d in distances]
        line = (
            f"{len(pixels)} holograms of {frame}, pixels {', '.join(f'{p * 1e9:.4g}' for p in pixels)} nm, effective "
            f"distances {', '.join(f'{d * 1e3:.4g}' for d in distances)} mm; object {size} of "
            f"{self.pixel_size * 1e9:.4g} nm\npadded to {grid}: {reports[int(np.argmax(distances))].message}"
        )
        return line, next((r.message for r in reports if not r.enough), "")

    def _describe_surroundings(self, distances: np.ndarray, pixels: np.ndarray) -> str:
        """Say how far the object's window goes beyond the widest field, and which fringes come from there."""
        reach = 0.5 * (self.grid[0] * self.pixel_size - self.frame[0] * pixels.max())
        detail = 0.25 * self.wavelength * distances.max() / max(reach, self.pixel_size)
        return (
            f"the specimen goes on: object {self.grid[0]} x {self.grid[1]} of {self.pixel_size * 1e9:.4g} nm, "
            f"{reach * 1e6:.3g} um beyond the widest field on each side, and the same again by periodicity: from there "
            f"the fringes of details down to {detail * 1e9:.3g} nm reach the frames"
        )

    # ------------------------------------------------------------------ coarser and finer
    def binned(self) -> "Holography":
        """Make the same holograms on pixels twice as large, of frames that are binned in pairs: counts add up.

        Frames, window and grid must be even. A wave `probe` and named thicknesses are not binned.
        """
        half = lambda shape: (shape[0] // 2, shape[1] // 2)
        small = lambda image: image if image.shape[-2:] == (1, 1) else _paired(image) / 4
        return self.replace(
            phase=_paired(self.phase) / 4, attenuation=_paired(self.attenuation) / 4, flux=4 * small(self.flux),
            dark=4 * small(self.dark), shifts=self.shifts / 2, detector_blur=self.detector_blur / 2,
            pixels=tuple((2 * v, 2 * h) for v, h in self.pixels), pixel_size=2 * self.pixel_size,
            frame=half(self.frame), grid=half(self.grid),
        )  # fmt: skip

    def lifted(self, coarse: "Holography") -> "Holography":
        """Take the object and the shifts of the `binned` model, interpolated by Fourier series."""
        finer = lambda image: twice_as_fine(image).astype(self.phase.dtype)
        return self.replace(
            phase=finer(coarse.phase), attenuation=finer(coarse.attenuation), delta_beta=coarse.delta_beta,
            shifts=2 * coarse.shifts,
        )  # fmt: skip

    # ------------------------------------------------------------------ first guess
    def first_guess(self, counts: Any, mask: Any = None) -> tuple[Float[Array, "y x"], PowerLaw]:
        """Guess the phase by the contrast transfer function of one material, and the power law of the phase that its
        regularisation has learnt from the holograms."""
        contrast = self.resampled_contrast(counts, mask)
        guess = ctf(
            1 + contrast - (jnp.mean(contrast) if self.borderless else 0),
            pixel_size=self.pixel_size,
            wavelength=self.wavelength,
            distances=np.asarray(self.distances, float),
            delta_beta=float(self.delta_beta),
            outside="smooth" if self.borderless else "vacuum",
        )
        power: Any = guess.regularisation
        return guess.phase.astype(self.phase.dtype), PowerLaw(float(power.level[0]), float(power.slope[0]))

    @classmethod
    def from_scan(
        cls,
        scan: Scan,
        *,
        delta_beta: float = np.inf,
        materials: Mapping[str, str | tuple[float, float]] | None = None,
        shape: tuple[int, int] | None = None,
        wider: float = 1.0,
        borderless: bool = False,
    ) -> "Holography":
        """Vacuum in the geometry of a scan, on the finest of its pixels, as wide as the widest field of view.

        **Arguments:** `delta_beta`: see the class; `materials` by name: formula and density [g/cm^3], such as `"C5H8O2,
        1.19"` (needs xraydb), or the pair (delta, beta); `shape` of the object's window [pixel], or how many times
        `wider` than the frames it is; `borderless`: the specimen goes on beyond the frames, so that the window goes on
        as far as fringes carry, `wavelength D / (2 pixel)` or 0.6 of the field, and is the whole grid.

        **Raises:** `MissingMetadata` for a geometry or flux that is not known; `InputError` for an in-focus geometry or
        a material that cannot be read.
        """
        place = scan.require("geometry", "the geometry (energy, distances, detector pixel)", "a file with geometry")
        if place.wavelength is None or place.distance is None or place.pixel_size is None:
            raise MissingMetadata(
                "geometry.focus_to_sample", "the energy, a distance or the detector pixel", scan.name, "21 mm"
            )
        pixels, distances = (_pairs(v, scan.views) for v in (place.pixel_size, place.distance))
        if not (distances > 0).all():
            raise InputError(
                f"{scan.name}: the propagation distances {np.unique(distances)} m are not all positive: "
                "geometry.focus_to_detector must be larger than geometry.focus_to_sample"
            )
        magnification = getattr(place, "magnification", 1.0)
        defocus = 1 - 1 / _pairs(magnification, scan.views).mean(1)
        pixel, frame = float(pixels.min()), scan.frame_shape
        window = shape or tuple(
            good_size(wider * n * pixels[:, axis].max() / pixel, factors=FACTORS, parity=n % 2)
            for axis, n in enumerate(frame)
        )
        need = int(np.ceil(float(place.wavelength) * distances.max() / pixel**2))
        if borderless and shape is None:
            window = tuple(
                good_size(n + min(need / 2, _REACH * n) + 2, factors=FACTORS, parity=k % 2)
                for n, k in zip(window, frame, strict=True)
            )
        grid = tuple(good_size(max(int(1.25 * n), min(need, int(2.5 * n))), factors=FACTORS) for n in window)
        grid = window if borderless else grid
        shifts = scan.extra.get("shifts")
        vacuum, zero = jnp.zeros(window, jnp.float32), jnp.zeros((), jnp.float32)
        named = _refraction(materials or {}, place.energy)
        return cls(
            phase=vacuum,
            attenuation=vacuum,
            delta_beta=jnp.asarray(delta_beta, jnp.float32),
            flux=jnp.asarray(empty_beam(scan), jnp.float32),
            dark=jnp.asarray(mean_dark(scan), jnp.float32),
            shifts=jnp.zeros((scan.views, 2), jnp.float32) if shifts is None else jnp.asarray(shifts, jnp.float32),
            distances=jnp.asarray(distances, jnp.float32),
            source_blur=zero,
            detector_blur=zero,
            pixels=tuple((float(v), float(h)) for v, h in pixels),
            defocus=tuple(map(float, defocus)),
            pixel_size=pixel,
            wavelength=float(place.wavelength),
            frame=frame,
            grid=(grid[0], grid[1]),
            thickness=jnp.zeros((len(named), *window), jnp.float32) if named else None,
            refraction=jnp.asarray(list(named.values()), jnp.float32) if named else None,
            materials=tuple(named),
        )

    # ------------------------------------------------------------------ out
    def in_view(self, image: Any) -> np.ndarray:
        """Cut an image of the object's window to the field of view of the finest pixel."""
        rows, columns = (
            slice((w - n) // 2, (w - n) // 2 + n) for w, n in zip(self.phase.shape, self.frame, strict=True)
        )
        return np.asarray(image[rows, columns])

    def quantities(self) -> dict[str, Quantity]:
        """Give what is written to a file, on the field of view of the finest pixel."""
        image = lambda values, unit, name, kind="image": Quantity(
            self.in_view(values), unit, ("y", "x"), self.pixel_size, name, kind
        )
        maps = {
            "phase": image(self.total_phase(), "rad", "phase"),
            "attenuation": image(self.absorption(), "", "attenuation B"),
            "object": image(self.transmission(), "", "object transmission", "complex"),
        }
        named = zip(self.materials, () if self.thickness is None else self.thickness, strict=True)
        return maps | {f"thickness_{name}": image(t, "m", f"thickness of {name}") for name, t in named}

    def thicknesses(self, named: Mapping[str, tuple[float, float]]) -> dict[str, Quantity]:
        """Solve phase and attenuation for the thicknesses of one or two materials, given as name: (delta, beta)."""
        if not 0 < len(named) < 3:
            return {}
        maps, size = self.quantities(), self.pixel_size
        phase, attenuation = maps["phase"].data, maps["attenuation"].data
        per_length = 2 * np.pi / self.wavelength * np.array(list(named.values())).T  # (delta, beta) x material
        if len(named) == 1:
            solved = [-phase / per_length[0, 0]]
        else:
            solved = np.tensordot(np.linalg.inv(per_length), np.stack([-phase, attenuation]), 1)
        image = lambda t, name: Quantity(
            np.asarray(t, np.float32), "m", ("y", "x"), size, f"thickness of {name}", "image"
        )
        return {f"thickness_{name}": image(t, name) for name, t in zip(named, solved, strict=True)}


@eqx.filter_jit
def _resampled(model: Holography, rows: Any, columns: Any, counts: Any, mask: Any) -> Array:
    beam = model.empty_beam(np.arange(len(model.pixels))) - model.dark
    contrast = (counts.astype(beam.dtype) - model.dark) / jnp.maximum(beam, 1e-6) - 1
    return jnp.einsum("vYy,vyx,vXx->vYX", rows, jnp.where(mask, contrast, 0), columns, precision="highest")


def _paired(image: Any) -> Any:
    """Sums over pairs of rows and of columns."""
    *more, rows, columns = image.shape
    return image.reshape(*more, rows // 2, 2, columns // 2, 2).sum((-3, -1))


def _pairs(values: Any, views: int) -> np.ndarray:
    """One number, one a view, or a pair (vertical, horizontal) for each view: as `(view, 2)`."""
    values = np.asarray(values, float)
    if values.ndim == 2 or (values.ndim == 1 and values.shape[0] == 2 != views):
        return np.broadcast_to(values, (views, 2))
    return np.broadcast_to(values.reshape(-1, 1), (views, 2))


def _refraction(materials: Mapping[str, Any], energy: Any) -> dict[str, tuple[float, float]]:
    """delta and beta of named materials."""
    return {
        name: physics.refraction(said, energy, name) if isinstance(said, str) else (float(said[0]), float(said[1]))
        for name, said in materials.items()
    }


def mean_dark(scan: Scan) -> np.ndarray:
    """Mean dark frame, or zero."""
    return np.zeros((1, 1)) if scan.darks is None else np.asarray(scan.darks, float).mean(0)


def empty_beam(scan: Scan) -> np.ndarray:
    """Counts of the empty beam without the dark: the mean flat, of each view where it has its own, else the scan's
    flux, else the mean of each frame's border."""
    if scan.flats is not None:
        beams = np.asarray(flats_of_views(scan), float).mean(-3) - mean_dark(scan)
        return np.broadcast_to(beams, (scan.views, *scan.frame_shape))
    if scan.flux is not None:
        return np.full((scan.views, 1, 1), float(scan.flux))
    counts = np.asarray(scan.counts, float) - mean_dark(scan)
    border = np.ones(scan.frame_shape, bool) if scan.mask is None else scan.mask.copy()
    border[8:-8, 8:-8] = False
    return np.array([robust_mean(frame[border]) for frame in counts])[:, None, None]


def robust_mean(counts: np.ndarray) -> float:
    """Mean of counts without those of hot pixels, several times the usual; zero where there are none."""
    usual = counts[counts <= 3 * np.median(counts) + 10] if counts.size else counts
    return float(usual.mean()) if usual.size else 0.0
