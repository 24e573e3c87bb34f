"""Holotomography of a cell of ellipsoids in a cone beam: holograms at four distances for each of many angles.

Independent of `diffrecon.operators`: exact chords of ellipsoids sampled finer than any grid of the reconstruction and
on a wider field of vacuum, propagated in float64 NumPy, integrated exactly over each distance's own pixels, Poisson
noise. Every frame is out of place by a little, and the rotation axis is off the optical axis.
"""

import dataclasses
from pathlib import Path

import numpy as np

from .._result import Result
from ..geometry import ConeBeam
from ..quality import shell_correlation
from ..scan import Scan
from ._truth import read_setup, read_truth, write_with_truth
from .ptychotomography import phantom, thickness

ENERGY = 17e3  # [eV]
FOCUS_TO_DETECTOR = 1.28  # [m]
FOCUS_TO_SAMPLE = np.array([21.333333, 22.2, 25.9, 33.2]) * 1e-3
EDGE = 0.35  # Gaussian softness of all edges, standard deviation [pixel of the finest distance]
# delta and beta at 17 keV (tables of Elam and Chantler): a protein of 1.35 g/cm^3, silica of 2.2 g/cm^3
PROTEIN, SILICA = (1.035e-6, 3.74e-10), (1.583e-6, 4.5e-9)


@dataclasses.dataclass(frozen=True)
class Setup:
    """What is measured. Lengths in pixels of the finest distance.

    **Fields:** `angles` over half a turn; `distances`, how many of the four; `frame` pixels of the detector; `counts`
    of the empty beam; `wobble` of every frame (standard deviation, row and column) and `centre`, by how much the
    rotation axis is off the optical axis along columns, which nobody is told; `pixel` of the finest distance [m];
    `contrast` multiplies delta and beta; `grains`: a few small ones of silica among the protein; `fine` samples a
    pixel, on a field `wide` times that of the widest frame at least.
    """

    angles: int = 60
    distances: int = 4
    frame: int = 64
    counts: float = 2000.0
    wobble: float = 0.3
    centre: float = 1.4
    pixel: float = 200e-9
    contrast: float = 1.0
    grains: bool = True
    fine: int = 2
    wide: float = 1.8
    seed: int = 0

    @property
    def geometry(self) -> ConeBeam:
        """Give the cone beam, one entry a view: all distances of the first angle, of the second, ..."""
        sample = np.tile(FOCUS_TO_SAMPLE[: self.distances], self.angles)
        detector_pixel = self.pixel * FOCUS_TO_DETECTOR / FOCUS_TO_SAMPLE[0]
        return ConeBeam(ENERGY, sample, FOCUS_TO_DETECTOR, detector_pixel)

    @property
    def turns(self) -> np.ndarray:
        """Give the angles [rad]."""
        return np.arange(self.angles) * np.pi / self.angles


DEMO = Setup()


def write(path: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Simulate and write a file of diffrecon's own layout, with the truth under `/truth`.

    **Returns:** the truth: `shifts` `(angle, distance, 2)` [pixel] and `delta` `(z, y, x)` in the middle slice.

    Cost: some ten CPU seconds.
    """
    setup = dataclasses.replace(DEMO, seed=seed)
    scan, truth = measure(setup)
    write_with_truth(path, scan, truth, setup)
    return truth


def measure(setup: Setup) -> tuple[Scan, dict[str, np.ndarray]]:
    """Simulate the scan, and the truth: `shifts` of the picture in every frame, `(angle, distance, 2)` (row, column)
    [pixel], and `rotation_centre`, the column of the axis in frames of the finest distance."""
    rng = np.random.default_rng(setup.seed)
    shifts = setup.wobble * rng.standard_normal((setup.angles, setup.distances, 2))
    parts = ellipsoids(setup)
    mean = np.concatenate([_frames(setup, parts, angle, at) for angle, at in zip(setup.turns, shifts, strict=True)])
    scan = Scan.from_arrays(
        rng.poisson(setup.counts * mean).astype(np.uint16),
        angles=np.repeat(setup.turns, setup.distances),
        geometry=setup.geometry,
        flux=setup.counts,
        method="holotomography",
    )
    return scan, {"shifts": shifts, "rotation_centre": np.asarray((setup.frame - 1) / 2 + setup.centre)}


# ---------------------------------------------------------------------------------------------------- sample
def ellipsoids(setup: Setup) -> np.ndarray:
    """List rows of delta, beta, semi-axes a, b (in the plane), c (along z), centre x, y, z, tilt, which add up: a cell
    with a nucleus, nucleoli, vacuoles, droplets and grains."""
    rng = np.random.default_rng(1000 + setup.seed)
    size = 0.36 * setup.frame
    protein, silica = (setup.contrast * np.array(m) for m in (PROTEIN, SILICA))
    row = lambda matter, *shape: [*matter, *shape]
    parts = [row(0.45 * protein, size, 0.8 * size, 0.85 * size, 0.0, 0.0, 0.0, 0.5)]
    x, y, z = 0.25 * size * rng.uniform(-1, 1, 3)
    parts.append(row(0.2 * protein, 0.45 * size, 0.36 * size, 0.4 * size, x, y, z, 1.2))
    for _ in range(3):  # nucleoli
        dx, dy, dz = 0.2 * size * rng.uniform(-1, 1, 3)
        a = rng.uniform(0.07, 0.11) * size
        parts.append(row(0.35 * protein, a, a, a, x + dx, y + dy, z + dz, 0.0))
    for number in range(26):  # vacuoles are emptier, droplets and grains denser than what is around
        radius, turn = 0.75 * size * np.sqrt(rng.random()), 2 * np.pi * rng.random()
        a = rng.uniform(0.03, 0.13) * size
        grain = setup.grains and number % 9 == 0
        matter = 0.5 * silica if grain else protein * rng.choice([-0.35, 0.25])
        parts.append(
            row(
                matter,
                a,
                a * rng.uniform(0.6, 1),
                a * rng.uniform(0.6, 1),
                radius * np.cos(turn),
                0.75 * radius * np.sin(turn),
                rng.uniform(-0.55, 0.55) * size,
                np.pi * rng.random(),
            )
        )
    return np.array(parts)


def true_volume(setup: Setup, shape: tuple[int, int, int], quantity: str = "delta") -> np.ndarray:
    """Draw delta or beta in voxels of the finest pixel about the rotation axis, as sharp as the simulation makes it."""
    column = ("delta", "beta").index(quantity)
    parts = ellipsoids(setup)
    volume = phantom(np.concatenate([parts[:, [column]], parts[:, 2:]], 1), shape)
    for axis, size in enumerate(shape):
        gauss = np.exp(-2 * (np.pi * EDGE * np.fft.rfftfreq(size)) ** 2)
        along = np.moveaxis(volume, axis, -1)
        volume = np.moveaxis(np.fft.irfft(np.fft.rfft(along) * gauss, size), -1, axis)
    return volume


# ---------------------------------------------------------------------------------------------------- light
def _frames(setup: Setup, parts: np.ndarray, angle: float, shifts: np.ndarray) -> np.ndarray:
    """Mean intensities of all distances at an angle, over the empty beam; `shifts` `(distance, 2)` of the picture."""
    place = setup.geometry
    widest = float(np.max(place.pixel_size[: setup.distances])) / setup.pixel
    field, reach = widest * setup.frame, place.wavelength * float(np.max(place.distance)) / setup.pixel**2
    # Fringes of the finest details run as far as `reach`: they must not come back from the other side.
    size = 2 * int(np.ceil(max(setup.wide * field, field + 1.3 * reach) * setup.fine / 2))
    axis = (np.arange(size) - (size - 1) / 2) / setup.fine
    maps = [
        thickness(np.concatenate([parts[:, [k]], parts[:, 2:]], 1), angle, axis, axis - setup.centre) for k in (0, 1)
    ]
    f = np.fft.fftfreq(size, 1 / setup.fine)  # [cycles/pixel]
    gauss = np.exp(-2 * (np.pi * EDGE * f) ** 2)
    wavenumber = 2 * np.pi / place.wavelength * setup.pixel
    phase, attenuation = (np.fft.ifft2(np.fft.fft2(wavenumber * m) * gauss[:, None] * gauss).real for m in maps)
    scattered = np.fft.fft2(np.exp(-1j * phase - attenuation) - 1)
    frames = []
    for distance, pixel, shift in zip(place.distance, place.pixel_size, shifts, strict=False):
        chirp = np.exp(-1j * np.pi * place.wavelength * distance * (f / setup.pixel) ** 2)
        intensity = np.abs(1 + np.fft.ifft2(scattered * chirp[:, None] * chirp)) ** 2
        rows, columns = (_detector(setup, size, f, float(pixel) / setup.pixel, float(s)) for s in shift)
        frames.append((rows @ np.fft.fft2(intensity) @ columns.T).real)
    return np.stack(frames)


def _detector(setup: Setup, size: int, f: np.ndarray, pixel: float, shift: float) -> np.ndarray:
    """Matrix from the spectrum of an intensity to means over detector pixels along one axis, in units of the finest."""
    centres = (np.arange(setup.frame) - (setup.frame - 1) / 2) * pixel - shift
    from_first = centres + (size - 1) / 2 / setup.fine
    return np.exp(2j * np.pi * np.outer(from_first, f)) * np.sinc(f * pixel) / size


# ---------------------------------------------------------------------------------------------------- judge
def compare(setup: Setup, delta: np.ndarray, quantity: str = "delta") -> dict[str, float]:
    """Measure the error of a volume about the axis, `(z, y, x)` of the finest pixel, after a shift of the sample as a
    whole, which nobody can know, is removed.

    **Returns:** `error` = |found - true| / |true|; `mean`, relative error of the mean value inside the cell; `half_bit`
    resolution [pixel] from the shell correlation with the truth; `noise`, rms of the error inside the cell.
    """
    truth = true_volume(setup, delta.shape, quantity)
    delta = registered(delta, truth)
    inside = truth > 0.5 * np.median(truth[truth > 0.2 * truth.max()])
    error = delta - truth
    return {
        "error": float(np.linalg.norm(error) / np.linalg.norm(truth)),
        "mean": float(error[inside].mean() / truth[inside].mean()),
        "noise": float(np.sqrt(np.mean(error[inside] ** 2))),
        "half_bit": float(shell_correlation(delta, truth).half_period),
    }


def registered(volume: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Shift the volume as a whole to where it agrees best with the truth (Gauss-Newton on the shift)."""
    frequency = np.meshgrid(*[np.fft.fftfreq(n) for n in volume.shape], indexing="ij")
    damp = np.exp(-8 * sum(f**2 for f in frequency))
    spectrum, moved, shift = np.fft.fftn(volume), volume, np.zeros(3)
    for _ in range(6):
        ramp = np.exp(-2j * np.pi * sum(s * f for s, f in zip(shift, frequency, strict=True)))
        moved = np.fft.ifftn(spectrum * ramp).real
        slopes = np.stack([np.fft.ifftn(-2j * np.pi * f * damp * spectrum * ramp).real.ravel() for f in frequency], 1)
        wanted = np.fft.ifftn(np.fft.fftn(truth - moved) * damp).real.ravel()
        shift += np.linalg.lstsq(slopes.T @ slopes, slopes.T @ wanted, rcond=None)[0]
    return moved


def shift_error(found: np.ndarray, truth: np.ndarray, angles: np.ndarray) -> float:
    """Compute the rms difference [pixel] of shifts `(angle, distance, 2)` after what no frame can tell is removed: a
    constant along rows, and along columns a constant (the axis) and a sine of the angle."""
    moved = (found - truth).astype(float)
    free = np.stack([np.ones_like(angles), np.cos(angles), np.sin(angles)], 1)
    moved[..., 0] -= moved[..., 0].mean()
    moved[..., 1] -= (free @ np.linalg.lstsq(free, moved[..., 1].mean(1), rcond=None)[0])[:, None]
    return float(np.sqrt(np.mean(moved**2)))


def judge(path: Path, result: Result) -> list[str]:
    """Measure the error of delta in absolute units, rotation centre and places of the frames against the truth in the
    file."""
    shifts, centre = read_truth(path, "shifts", "rotation_centre")
    setup = read_setup(path, DEMO)
    figures = compare(setup, np.asarray(result["delta"], float))
    moved = shift_error(np.asarray(result["shifts"]) / setup.pixel, shifts, setup.turns)
    body = 0.45 * PROTEIN[0] * setup.contrast
    return [
        f"against the truth: delta of the cell {body:.3g}, relative error {figures['error']:.3f} (rms inside "
        f"{figures['noise']:.2g}, mean {figures['mean']:+.1%})",
        f"against the truth: half-bit resolution {figures['half_bit'] * setup.pixel * 1e9:.0f} nm (half period, pixel "
        f"{setup.pixel * 1e9:.0f} nm)",
        f"against the truth: rotation centre {float(result.quality['rotation_centre']):.2f}, true "
        f"{float(centre):.2f}; places of the frames to {moved:.3f} pixel rms",
    ]
