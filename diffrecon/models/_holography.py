"""In-line holography in a cone beam: one object, holograms at several distances, each on its own detector pixel."""

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
from ..scan import Scan

__all__ = ["Holography"]


class Holography(Model):
    """Holograms of one isolated object at several distances, in the detector's own pixels.

    A view is `flux * box(|1 + P(exp(-B + i phase) - 1)|^2) + dark`: Fresnel propagation over the view's effective
    distance in vacuum, then integration over the pixels of that view, which lie at `(i - (n-1)/2 + shift) * pixel`
    about the optical axis. `B` is `attenuation - phase / delta_beta`: for one material `attenuation` is zero;
    `delta_beta = inf` makes the two maps independent.

    **Fields:**

    - `phase`: `(y, x)` [rad], negative in matter; on the pixel `pixel_size`, centred on the optical axis; vacuum
      outside.
    - `attenuation`: `(y, x)`, what `delta_beta` does not explain.
    - `delta_beta`: delta / beta of the main material.
    - `flux`: `(view, 1, 1)` counts a pixel of the empty beam, or `(view, y, x)` an image of it; `dark`: counts added
      to all.
    - `shifts`: `(view, 2)` shift (row, column) of each frame [its own pixel].
    - `distances`: `(view,)` effective propagation distances [m]; `pixels`: effective detector pixel of each view [m].
    - `pixel_size`, `wavelength` [m]; `frame`: shape of a frame; `grid`: shape that the object is zero-padded to.

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
    flux: Float[Array, "view #y #x"]
    dark: Float[Array, "#y #x"]
    shifts: Float[Array, "view 2"]
    distances: Float[Array, " view"]
    pixels: tuple[float, ...] = eqx.field(static=True)
    pixel_size: float = eqx.field(static=True)
    wavelength: float = eqx.field(static=True)
    frame: tuple[int, int] = eqx.field(static=True)
    grid: tuple[int, int] = eqx.field(static=True)

    unknowns: ClassVar[tuple[str, ...]] = ("phase", "attenuation")

    def absorption(self) -> Float[Array, "y x"]:
        """`B = (2 pi/lambda) int beta dz`, so that the transmission is `exp(-B + i phase)`."""
        return self.attenuation - self.phase / self.delta_beta

    def transmission(self) -> Complex[Array, "y x"]:
        """`exp(-B + i phase)` on the object's window."""
        return jnp.exp(jax.lax.complex(-self.absorption(), self.phase))

    def __call__(self, views: Any) -> Float[Array, "view y x"]:
        """Expected counts of some views."""
        # The window sits in the grid's corner: `pixel_matrix` knows where, and the FFT does not care.
        scattered = jnp.fft.fft2(self.transmission() - 1, s=self.grid)
        holograms = jax.vmap(lambda view: self.hologram(scattered, view))(jnp.asarray(views))
        return self.flux[views] * holograms + self.dark

    def hologram(self, scattered: Complex[Array, "Y X"], view: Any) -> Float[Array, "y x"]:
        """One view at unit flux, from the spectrum of `transmission - 1`."""
        transfer = operators.fresnel_transfer(
            self.grid, pixel_size=self.pixel_size, wavelength=self.wavelength, distance=self.distances[view],
            dtype=scattered.dtype,
        )
        wave = 1 + jnp.fft.ifft2(scattered * transfer)
        intensity = jnp.real(wave * jnp.conj(wave))
        rows, columns = (self.pixel_matrix(view, axis) for axis in (0, 1))
        return jnp.matmul(jnp.matmul(rows, intensity, precision="highest"), columns.T, precision="highest")

    def pixel_matrix(self, view: Any, axis: int) -> Float[Array, "frame grid"]:
        """Matrix that integrates a periodic field of the grid over the pixels of a view along one axis.

        Row i is the trigonometric interpolation at `((i - (n-1)/2) + shift) * pixel`, times the pixel's box (a sinc in
        Fourier space): the view's magnification is in it, and so is a differentiable shift.
        """
        size, window, count, dtype = self.grid[axis], self.phase.shape[axis], self.frame[axis], self.phase.dtype
        ratios = np.asarray(self.pixels) / self.pixel_size
        centres = ratios[:, None] * (np.arange(count) - (count - 1) / 2) + (window - 1) / 2
        whole = np.rint(centres)
        rest = jnp.asarray(centres - whole, dtype)[view] + jnp.asarray(ratios, dtype)[view] * self.shifts[view, axis]
        # Whole pixels times whole frequencies modulo one turn in integers: float32 keeps its digits on any grid.
        k = np.arange(size // 2 + 1)
        turns = (jnp.asarray(whole % size, jnp.int32)[view][:, None] * k % size + rest[:, None] * k) / size
        box = jnp.asarray(np.sinc(np.outer(ratios, k / size)) * (k < size / 2), dtype)[view]  # without the Nyquist term
        # irfft makes sum_k cos(2 pi k (x_i - X_m) / size) out of exp(-2 pi i k x_i / size).
        waves = jax.lax.complex(jnp.cos(2 * np.pi * turns), -jnp.sin(2 * np.pi * turns))
        return jnp.fft.irfft(waves * box, n=size, axis=1)

    # ------------------------------------------------------------------ first guess
    @classmethod
    def from_scan(cls, scan: Scan, *, delta_beta: float = np.inf, shape: tuple[int, int] | None = None) -> "Holography":
        """Vacuum in the geometry of a scan, on the finest of its pixels, as wide as the widest field of view.

        **Arguments:** `delta_beta`: see the class; `shape` of the object's window [pixel].

        **Raises:** `MissingMetadata` for a geometry or flux that is not known; `InputError` for an astigmatic or
        in-focus geometry.
        """
        place = scan.require("geometry", "the geometry (energy, distances, detector pixel)", "a file with geometry")
        if place.wavelength is None or place.distance is None or place.pixel_size is None:
            raise MissingMetadata("geometry.focus_to_sample", "the energy, a distance or the detector pixel", scan.name,
                                  "21 mm")
        pixels, distances = (
            np.broadcast_to(np.asarray(v, float), (scan.views,)) for v in (place.pixel_size, place.distance)
        )
        if not (distances > 0).all():
            raise InputError(f"{scan.name}: the propagation distances {distances} m are not all positive: "
                             "geometry.focus_to_detector must be larger than geometry.focus_to_sample")
        pixel, frame = float(pixels.min()), scan.frame_shape
        window = shape or tuple(_fast_size(int(np.ceil(n * pixels.max() / pixel)), n % 2) for n in frame)
        need = int(np.ceil(float(place.wavelength) * distances.max() / pixel**2))
        grid = tuple(_fast_size(max(int(1.25 * n), min(need, int(2.5 * n)))) for n in window)
        shifts = scan.extra.get("shifts")
        return cls(
            phase=jnp.zeros(window, jnp.float32), attenuation=jnp.zeros(window, jnp.float32),
            delta_beta=jnp.asarray(delta_beta, jnp.float32), flux=jnp.asarray(empty_beam(scan), jnp.float32),
            dark=jnp.asarray(mean_dark(scan), jnp.float32),
            shifts=jnp.zeros((scan.views, 2), jnp.float32) if shifts is None else jnp.asarray(shifts, jnp.float32),
            distances=jnp.asarray(distances, jnp.float32), pixels=tuple(map(float, pixels)), pixel_size=pixel,
            wavelength=float(place.wavelength), frame=frame, grid=(grid[0], grid[1]),
        )

    # ------------------------------------------------------------------ out
    def quantities(self) -> dict[str, Quantity]:
        """What is written to a file, on the field of view of the finest pixel."""
        crop = tuple(slice((w - n) // 2, (w - n) // 2 + n) for w, n in zip(self.phase.shape, self.frame, strict=True))
        size, axes = self.pixel_size, ("y", "x")
        cut = lambda a: np.asarray(a)[crop]
        return {
            "phase": Quantity(cut(self.phase), "rad", axes, size, "phase", "image"),
            "attenuation": Quantity(cut(self.absorption()), "", axes, size, "attenuation B", "image"),
            "object": Quantity(cut(self.transmission()), "", axes, size, "object transmission", "complex"),
        }


def mean_dark(scan: Scan) -> np.ndarray:
    """Mean dark frame, or zero."""
    return np.zeros((1, 1)) if scan.darks is None else np.asarray(scan.darks, float).mean(0)


def empty_beam(scan: Scan) -> np.ndarray:
    """Counts of the empty beam without the dark: the mean flat, else the scan's flux, else the mean of each frame's
    border."""
    if scan.flats is not None:
        return np.broadcast_to(np.asarray(scan.flats, float).mean(0) - mean_dark(scan), (scan.views, *scan.frame_shape))
    if scan.flux is not None:
        return np.full((scan.views, 1, 1), float(scan.flux))
    counts = np.asarray(scan.counts, float) - mean_dark(scan)
    border = np.ones(scan.frame_shape, bool) if scan.mask is None else scan.mask.copy()
    border[8:-8, 8:-8] = False
    return (np.where(border, counts, 0).sum((1, 2)) / max(border.sum(), 1))[:, None, None]


def _fast_size(size: int, parity: int = 0) -> int:
    """The next size of a parity whose FFT is fast: centres of window and frame coincide when both are even or both
    odd."""
    while size % 2 != parity or not _is_smooth(size):
        size += 1
    return size


def _is_smooth(size: int) -> bool:
    for prime in (2, 3, 5, 7):
        while size % prime == 0:
            size //= prime
    return size == 1
