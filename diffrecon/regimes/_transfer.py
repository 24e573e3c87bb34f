"""Contrast transfer functions of a set of distances, and what photons make of them."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from .. import physics
from ..errors import InputError
from ..geometry import ConeBeam, ParallelBeam

FWHM = 2 * np.sqrt(2 * np.log(2))
"""Full width at half maximum of a Gaussian in standard deviations."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """What the transfer of every distance depends on, seen from the sample plane.

    **Fields:** `wavelength` [m]; of each distance: `distances` (effective) [m], `pixels` (effective) [m], `blur` =
    standard deviation of source and detector blur [m]; `bandwidth` = relative standard deviation of the energy;
    `frame` = pixels along the shorter side of the detector, `None` = unlimited; `counts` of the empty beam on a pixel
    of each distance, `None` = not known.
    """

    wavelength: float
    distances: np.ndarray
    pixels: np.ndarray
    blur: np.ndarray
    bandwidth: float = 0.0
    frame: int | None = None
    counts: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        geometry: ConeBeam | ParallelBeam,
        *,
        counts: ArrayLike | None = None,
        frame: int | None = None,
        source_size: float = 0.0,
        source_distance: float | None = None,
        detector_blur: float = 0.0,
        bandwidth: float = 0.0,
    ) -> "Setup":
        """Make the setup of a geometry with one or several distances (an astigmatic one is averaged over its two
        directions).

        **Arguments:** `counts` a pixel in the empty beam; `frame` [pixel]; `source_size` = full width at half maximum
        of the source or focus [m], in a parallel beam at the `source_distance` [m]; `detector_blur` = full width at
        half maximum of the detector's spread beyond its pixel [detector pixel]; `bandwidth` = full width at half
        maximum of the energy over the energy.

        **Raises:** `InputError` for a geometry without energy, pixel or positive distances, or a source in a parallel
        beam without its distance.

        ```python
        from diffrecon.geometry import ParallelBeam
        setup = Setup.of(ParallelBeam(1e-6, 20e3, 0.1), counts=1e4)
        ```
        """
        if geometry.wavelength is None or geometry.pixel_size is None or geometry.distance is None:
            raise InputError("regimes: the geometry needs an energy, a pixel size and a distance")
        pixels, distances = _by_view(geometry.pixel_size, geometry.distance)
        if not (np.isfinite(distances).all() and (distances > 0).all() and (pixels > 0).all()):
            raise InputError(f"regimes: distances {distances} m and pixels {pixels} m are not all positive")
        if source_size and isinstance(geometry, ParallelBeam) and not source_distance:
            raise InputError(
                "regimes: the source of a parallel beam blurs by its size over its distance; give source_distance too"
            )
        if min(source_size, detector_blur, bandwidth) < 0:
            raise InputError("regimes: source_size, detector_blur and bandwidth must not be negative")
        penumbra = source_size * _penumbra(geometry, pixels, distances, source_distance)
        return cls(
            float(np.mean(np.asarray(geometry.wavelength, float))),
            distances,
            pixels,
            np.hypot(penumbra, detector_blur * pixels) / FWHM,
            bandwidth / FWHM,
            frame,
            None if counts is None else np.broadcast_to(np.asarray(counts, float), distances.shape),
        )

    @property
    def fresnel_numbers(self) -> np.ndarray:
        """Compute the Fresnel number of a pixel at each distance."""
        return physics.fresnel_number(self.pixels, self.wavelength, self.distances)

    @property
    def nyquist(self) -> float:
        """Give the highest frequency on the finest of the pixels [1/m]."""
        return 0.5 / float(self.pixels.min())

    @property
    def fluence(self) -> np.ndarray:
        """Give counts per square metre of the sample at each distance; those of one count a pixel where none are
        known."""
        counts = np.ones_like(self.distances) if self.counts is None else self.counts
        return counts / self.pixels**2


def _by_view(pixel_size: Any, distance: Any) -> tuple[np.ndarray, np.ndarray]:
    values = [np.asarray(v, float) for v in (pixel_size, distance)]
    values = [v.mean(-1) if v.ndim == 2 else v for v in values]  # astigmatic: (view, 2)
    pixels, distances = np.broadcast_arrays(*(np.atleast_1d(v) for v in values))
    return pixels.copy(), distances.copy()


def _penumbra(
    geometry: ConeBeam | ParallelBeam, pixels: np.ndarray, distances: np.ndarray, source_distance: float | None
) -> np.ndarray:
    """Width of the source's image over the source's, in the sample plane: `z2 / (z1 + z2)`."""
    if isinstance(geometry, ParallelBeam):
        return distances / source_distance if source_distance else np.zeros_like(distances)
    magnification = float(np.mean(np.asarray(geometry.detector_pixel, float))) / pixels
    return 1 - 1 / magnification


# ---------------------------------------------------------------------------------------------------- transfer
def transfer(frequency: ArrayLike, setup: Setup) -> tuple[Float[np.ndarray, "view f"], Float[np.ndarray, "view f"]]:
    """Compute the contrast of a weak phase and of a weak attenuation at each distance: `(2 T sin(chi), -2 T cos(chi))`.

    **Arguments:** `frequency` [1/m]. T holds the pixel's box, the blur and the bandwidth.

    ```python
    setup = Setup.of(ParallelBeam(1e-6, 20e3, 0.1))
    phase, attenuation = transfer(np.linspace(0, setup.nyquist, 500), setup)
    ```
    """
    f = np.asarray(frequency, float)
    sine, cosine = contrast_curves(np, f, setup.wavelength, setup.distances, setup.pixels, setup.blur, setup.bandwidth)
    return sine, -cosine


def contrast_curves(lib: Any, f: Any, wavelength: Any, distance: Any, pixel: Any, blur: Any, bandwidth: float) -> Any:
    """Compute `2 T sin(chi)` and `2 T cos(chi)`, `(view, f)`; units are free as long as they agree.

    **Arguments:** `lib` = numpy or jax.numpy; of each distance: `distance`, `pixel`, `blur` (standard deviation);
    `bandwidth` = relative standard deviation of the energy.
    """
    distance, pixel, blur = (lib.asarray(v)[..., None] for v in (distance, pixel, blur))
    chi = np.pi * wavelength * distance * f**2
    # chi is proportional to the wavelength: a Gaussian spectrum averages its sine to this.
    seen = pixel_transfer(lib, f, pixel, blur) * lib.exp(-0.5 * (bandwidth * chi) ** 2)
    return 2 * seen * lib.sin(chi), 2 * seen * lib.cos(chi)


def pixel_transfer(lib: Any, f: Any, pixel: Any, blur: Any) -> Any:
    """Compute what square pixels and a Gaussian blur (standard deviation) leave of frequencies. `lib` = numpy or
    jax.numpy."""
    return lib.sinc(f * pixel) * lib.exp(-2 * (np.pi * blur * f) ** 2)


def field_share(lib: Any, f: Any, wavelength: Any, distance: Any, field: Any) -> Any:
    """Compute the share of the light scattered at a frequency that reaches the detector, averaged over a field of view
    `field` of each distance: rays move by `wavelength D f` to both sides. `lib` = numpy or jax.numpy.
    """
    reach = wavelength * lib.asarray(distance)[..., None] * f / lib.asarray(field)[..., None]
    return lib.maximum(1 - reach, 0.0)


def sampled_share(lib: Any, f: Any, pixel: Any) -> Any:
    """Give one up to the Nyquist frequency of each pixel, zero beyond, where it aliases; soft over a fiftieth. `lib` =
    numpy or jax.numpy.
    """
    return lib.clip((0.5 - f * lib.asarray(pixel)[..., None]) / 0.01 + 0.5, 0.0, 1.0)


def zero_crossings(
    wavelength: float, distance: float, highest: float
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """List the frequencies [1/m] up to `highest` that one distance does not show of phase, `sqrt(n / (wavelength D))`,
    n = 1, 2, ..., and of attenuation, `sqrt((n - 1/2) / (wavelength D))`.

    ```python
    phase, attenuation = zero_crossings(1e-10, 0.1, 1e6)
    assert np.allclose(phase[0], 1 / np.sqrt(1e-11)) and np.allclose(attenuation[0], phase[0] / np.sqrt(2))
    ```
    """
    last = int(np.floor(wavelength * distance * highest**2 + 0.5))
    n = np.arange(1, last + 1)
    phase, attenuation = np.sqrt(n / (wavelength * distance)), np.sqrt((n - 0.5) / (wavelength * distance))
    return phase[phase <= highest], attenuation[attenuation <= highest]


def phase_maximum(wavelength: float, distance: float) -> float:
    """Compute the lowest frequency of full phase contrast, `1 / sqrt(2 wavelength D)` [1/m]: `sqrt(F/2)` cycles a pixel
    for a pixel of Fresnel number F."""
    return float(1 / np.sqrt(2 * wavelength * distance))


def critical_distance(size: ArrayLike, wavelength: float) -> Any:
    """Compute the distance [m] at which the first maximum of phase contrast is at the period of a size [m]: `a^2 / (2
    wavelength)`.

    Details of half that period, `a / 2`, have it at a quarter of the distance.

    ```python
    assert abs(critical_distance(1e-6, 1e-10) - 5e-3) < 1e-12
    ```
    """
    return (np.asarray(size, float) ** 2 / (2 * wavelength))[()]


# ---------------------------------------------------------------------------------------------------- photons
def phase_information(frequency: ArrayLike, setup: Setup, delta_beta: float = np.inf) -> Float[np.ndarray, " f"]:
    """Compute the Fisher information on the spectrum of the phase, for each frequency, of all distances together
    [1/m^2].

    Counts of mean n per square metre have a contrast of white noise with the spectral density `1 / n`, so that the
    information is `sum_j n_j (2 T_j (sin(chi_j) + cos(chi_j) / delta_beta))^2`: `4 n` at most; each distance up to the
    Nyquist frequency of its own pixel. Its inverse is the spectral density of the noise [m^2] of the best unbiased
    phase; divided by the pixel's area the variance of a pixel.

    **Arguments:** `frequency` [1/m]; `delta_beta` = delta / beta of the object's one material, `inf` = pure phase.

    ```python
    setup = Setup.of(ParallelBeam(1e-6, 20e3, 0.1), counts=1e4)
    noise = 1 / phase_information(np.linspace(0.1, 1, 100) * setup.nyquist, setup)
    ```
    """
    sine, cosine = transfer(frequency, setup)
    response = sine - cosine / delta_beta
    sampled = sampled_share(np, np.asarray(frequency, float), setup.pixels)
    return np.sum(setup.fluence[:, None] * sampled * response**2, 0)


def smallest_phase(
    size: float, setup: Setup, *, delta_beta: float = np.inf, criterion: float = 5.0, points: int = 4096
) -> float:
    """Compute the smallest phase [rad] of a round, soft detail that the photons of a setup show (Rose's criterion).

    The detail is a Gaussian of the full width at half maximum `size` [m] in an otherwise known, weak object. Its height
    is estimated best by the matched filter, with the signal-to-noise ratio `sqrt(integral |shape(f)|^2 F(f) d^2f)` for
    the Fisher information F of `phase_information`; it is seen when that exceeds `criterion` (Rose, J. Opt. Soc. Am.
    38, 196 (1948)).

    **Raises:** `InputError` for a setup without counts.

    ```python
    setup = Setup.of(ParallelBeam(1e-6, 20e3, 0.1), counts=1e4)
    assert smallest_phase(5e-6, setup) < 0.1
    ```
    """
    if setup.counts is None:
        raise InputError("smallest_phase: how many counts has a pixel of the empty beam? Give counts")
    if not size > 0:
        raise InputError(f"smallest_phase: the size of a detail, {size} m, must be positive")
    deviation = size / FWHM
    # The spectrum of the shape has fallen to exp(-18) at the end of the integral; beyond Nyquist nothing is sampled.
    highest = min(3 / (np.pi * np.sqrt(2) * deviation), np.sqrt(2) * setup.nyquist)
    nodes, weights = _nodes(max(points, int(4 * setup.wavelength * setup.distances.max() * highest**2)))
    f = highest * nodes
    shape = 2 * np.pi * deviation**2 * np.exp(-2 * (np.pi * deviation * f) ** 2)
    integral = highest * np.sum(weights * shape**2 * phase_information(f, setup, delta_beta) * 2 * np.pi * f)
    return float(criterion / np.sqrt(integral))


def _nodes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Midpoints of `count` equal parts of (0, 1) and their weights."""
    return (np.arange(count) + 0.5) / count, np.full(count, 1 / count)
