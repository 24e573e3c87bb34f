"""Near-field ptycho-tomography of ellipsoids in a cone beam with structured illumination, also of a sample that is
wider than the scanned field.

Independent of `diffrecon.operators`: exact chords of ellipsoids at the true place of every exposure, sampled finer than
the reconstruction on a wider field, propagated in float64 NumPy, integrated over detector pixels, Poisson noise. Motors
err, the sample moves from angle to angle, and the axis is off the middle of the scan.
"""

import dataclasses
from pathlib import Path

import h5py
import numpy as np

from .._result import Result
from ..geometry import ConeBeam
from ..physics import energy_to_wavelength
from ..quality import shell_correlation
from ..scan import Scan
from ._truth import read_setup, read_truth, write_with_truth

ENERGY = 17000.0  # [eV]
FOCUS_TO_SAMPLE = 30e-3  # [m]
FOCUS_TO_DETECTOR = 1.28  # [m]
DETECTOR_PIXEL = 12e-6  # [m]
DELTA = 1.9e-6  # of the body, about that of glass
DELTA_BETA = 300.0
MAGNIFICATION = FOCUS_TO_DETECTOR / FOCUS_TO_SAMPLE
PIXEL = DETECTOR_PIXEL / MAGNIFICATION


@dataclasses.dataclass(frozen=True)
class Setup:
    """What is measured. Lengths in sample pixels.

    **Fields:** `angles` over half a turn; `views` along each side of the raster at every angle, `step` apart; `frame`
    pixels of the detector; `aperture` = radius of the beam; `counts` in its middle; `local`: the body is wider and
    higher than the scanned field; `position_error` of each exposure and `wobble` of each angle, standard deviations
    that nobody is told; `centre` = position of a view that has the axis in its middle; `fine` samples a pixel.
    """

    angles: int = 40
    views: int = 4
    step: float = 7.0
    frame: int = 48
    aperture: float = 15.0
    counts: float = 1000.0
    local: bool = False
    position_error: float = 0.2
    wobble: float = 0.7
    centre: float = 1.3
    fine: int = 2
    seed: int = 0


DEMO = Setup()


def write(path: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Simulate and write a file of diffrecon's own layout."""
    setup = dataclasses.replace(DEMO, seed=seed)
    scan, truth = measure(setup)
    write_with_truth(path, scan, truth, setup)
    return truth


def measure(setup: Setup) -> tuple[Scan, dict[str, np.ndarray]]:
    """Simulate the scan, its positions as the motors say them, and the truth: `positions` `(view, 2)` [pixel] about the
    axis."""
    rng = np.random.default_rng(setup.seed)
    angles = np.arange(setup.angles) * np.pi / setup.angles
    nominal = np.stack([_raster(setup, rng) for _ in angles])
    moved = setup.wobble * rng.standard_normal((setup.angles, 1, 2))
    actual = nominal + moved + setup.position_error * rng.standard_normal(nominal.shape)
    actual[..., 1] -= setup.centre
    probe = _probe(setup, rng)
    parts = ellipsoids(setup)
    frames = [_frame(setup, probe, parts, angle, at) for angle, row in zip(angles, actual, strict=True) for at in row]
    scan = Scan.from_arrays(
        rng.poisson(frames).astype(np.uint16),
        positions=nominal.reshape(-1, 2) * PIXEL,
        angles=np.repeat(angles, setup.views**2),
        method="ptycho-tomography",
        geometry=ConeBeam(ENERGY, FOCUS_TO_SAMPLE, FOCUS_TO_DETECTOR, DETECTOR_PIXEL),
    )
    return scan, {"positions": actual.reshape(-1, 2), "rotation_centre": np.asarray(setup.centre)}


def _raster(setup: Setup, rng: np.random.Generator) -> np.ndarray:
    """A raster with jitter, another at every angle; (row, column) [pixel], about zero."""
    axis = (np.arange(setup.views) - (setup.views - 1) / 2) * setup.step
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    return grid + 0.3 * setup.step * rng.uniform(-1, 1, grid.shape)


# ---------------------------------------------------------------------------------------------------- sample
def field_radius(setup: Setup) -> float:
    """Give half the width that the scan sees well [pixel]."""
    return (setup.views - 1) / 2 * setup.step + setup.aperture - 2


def ellipsoids(setup: Setup) -> np.ndarray:
    """List rows of contrast (1 = the body's), semi-axes a, b (in the plane), c (along z), centre x, y, z, tilt: a body
    with pores and grains, which stay apart from each other nowhere in particular."""
    rng = np.random.default_rng(1000 + setup.seed)
    field = field_radius(setup)
    size = 2.0 if setup.local else 0.75
    parts = [[1.0, size * field, 0.85 * size * field, (3.0 if setup.local else 0.8) * field, 0, 0, 0, 0.4]]
    for number in range(30):
        reach = 0.55 * field if number < 20 or not setup.local else 1.5 * field
        radius, angle = reach * np.sqrt(rng.random()), 2 * np.pi * rng.random()
        a = rng.uniform(1.5, 5.0) if number < 20 else rng.uniform(3, 9) * (1.5 if setup.local else 0.5)
        parts.append(
            [
                rng.choice([-0.8, -0.5, 0.7]),
                a,
                a * rng.uniform(0.5, 1),
                a * rng.uniform(0.5, 1),
                radius * np.cos(angle),
                0.8 * radius * np.sin(angle),
                rng.uniform(-0.5, 0.5) * field,
                np.pi * rng.random(),
            ]
        )
    return np.array(parts)


def thickness(parts: np.ndarray, angle: float, z: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Compute the sum of contrast times chord [pixel] along the beam at rows `z` and columns `u` of a projection about
    the axis."""
    total = np.zeros((z.size, u.size))
    for value, a, b, c, x0, y0, z0, tilt in parts:
        reach = np.hypot(a * np.cos(angle - tilt), b * np.sin(angle - tilt))
        d, h = u - (x0 * np.cos(angle) + y0 * np.sin(angle)), z - z0
        here = np.ix_(np.abs(h) < c, np.abs(d) < reach)
        inside = (1 - (h[here[0]] / c) ** 2) * reach**2 - d[here[1]] ** 2
        total[here] += 2 * value * a * b / reach**2 * np.sqrt(np.clip(inside, 0, None))
    return total


def phantom(parts: np.ndarray, shape: tuple[int, int, int], count: int = 3) -> np.ndarray:
    """Make the contrast in voxels about the axis, each the mean of count^3 samples."""
    z, y, x = ((np.arange(n * count) + 0.5) / count - n / 2 for n in shape)
    volume = np.zeros((z.size, y.size, x.size), np.float32)
    for value, a, b, c, x0, y0, z0, tilt in parts:
        reach = max(a, b)
        cut = np.ix_(np.abs(z - z0) < c, np.abs(y - y0) < reach, np.abs(x - x0) < reach)
        dz, dy, dx = z[cut[0]] - z0, y[cut[1]] - y0, x[cut[2]] - x0
        along, across = dx * np.cos(tilt) + dy * np.sin(tilt), dy * np.cos(tilt) - dx * np.sin(tilt)
        plane = (along / a) ** 2 + (across / b) ** 2
        volume[cut] += np.float32(value) * (plane <= 1 - (dz / c) ** 2)
    return volume.reshape(shape[0], count, shape[1], count, shape[2], count).mean((1, 3, 5))


# ---------------------------------------------------------------------------------------------------- light
def _grid(setup: Setup) -> np.ndarray:
    """Coordinates of the fine, wider field [pixel], about zero."""
    count = int(1.5 * setup.frame) * setup.fine
    return (np.arange(count) - (count - 1) / 2) / setup.fine


def _probe(setup: Setup, rng: np.random.Generator) -> np.ndarray:
    """A soft aperture behind a random phase plate, slightly curved; amplitude in sqrt(counts a detector pixel)."""
    u = _grid(setup)
    radius = np.hypot(u[:, None], u[None])
    aperture = 1 / (1 + np.exp((radius - setup.aperture) / 1.0))
    f = np.fft.fftfreq(u.size, 1 / setup.fine)
    damp = np.exp(-2 * (np.pi * 2.0) ** 2 * (f[:, None] ** 2 + f[None] ** 2))
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal(radius.shape)) * damp).real
    return np.sqrt(setup.counts) * aperture * np.exp(1j * (1.2 * noise / noise.std() + 1e-3 * radius**2))


def _frame(setup: Setup, probe: np.ndarray, parts: np.ndarray, angle: float, at: np.ndarray) -> np.ndarray:
    """Expected counts of an exposure with the middle of the frame at (row, column) [pixel] from the axis."""
    u, fine = _grid(setup), setup.fine
    wavelength = energy_to_wavelength(ENERGY)
    distance = (FOCUS_TO_DETECTOR - FOCUS_TO_SAMPLE) / MAGNIFICATION
    f2 = np.fft.fftfreq(u.size, PIXEL / fine) ** 2
    kernel = np.exp(-1j * np.pi * wavelength * distance * (f2[:, None] + f2[None]))
    path = 2 * np.pi / wavelength * DELTA * PIXEL * thickness(parts, angle, u + at[0], u + at[1])
    wave = np.fft.ifft2(np.fft.fft2(probe * np.exp((-1j - 1 / DELTA_BETA) * path)) * kernel)
    edge = (u.size - setup.frame * fine) // 2
    seen = np.abs(wave[edge : u.size - edge, edge : u.size - edge]) ** 2
    return seen.reshape(setup.frame, fine, setup.frame, fine).mean((1, 3)) + 0.2


# ---------------------------------------------------------------------------------------------------- judge
def compare(setup: Setup, delta: np.ndarray, margin: float = 0.0) -> dict[str, float]:
    """Measure the error of a volume of delta `(z, y, x)` about the axis in the cylinder that the scan saw.

    A shift of the whole sample, which nobody can know, is removed first. **Returns:** `error` = |found - true| /
    |true|, `constant` = mean difference over the mean, `structure` = the error of what is left without it over the
    spread of the truth, `half_bit` = resolution [pixel] from the shell correlation with the truth.
    """
    truth = DELTA * phantom(ellipsoids(setup), delta.shape)
    delta = _registered(delta, truth, field_radius(setup))
    z, y, x = (np.arange(n) - (n - 1) / 2 for n in delta.shape)
    radius = min(0.9 * field_radius(setup), (min(delta.shape) - 1) / 2) - margin
    inside = (np.hypot(y[:, None], x[None]) < radius) & (np.abs(z) < radius)[:, None, None]
    found, true = delta[inside], truth[inside]
    error = found - true
    varying = true - true.mean()
    half = int(radius)
    crop = tuple(slice(max(n // 2 - half, 0), n // 2 + half) for n in delta.shape)
    curve = shell_correlation(delta[crop], truth[crop])
    return {
        "error": float(np.linalg.norm(error) / np.linalg.norm(true)),
        "constant": float(error.mean() / true.mean()),
        "structure": float(np.linalg.norm(error - error.mean()) / np.linalg.norm(varying)),
        "half_bit": float(curve.half_period),
    }


def _registered(delta: np.ndarray, truth: np.ndarray, radius: float) -> np.ndarray:
    """Shifted as a whole by up to a few pixels, to where it agrees best with the truth (Gauss-Newton on the shift)."""
    axes = [np.arange(n) - (n - 1) / 2 for n in delta.shape]
    distance = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))
    window = 1 / (1 + np.exp((distance - 0.8 * radius) / 2))
    spectrum, moved = np.fft.fftn(delta), delta
    frequency = np.meshgrid(*[np.fft.fftfreq(n) for n in delta.shape], indexing="ij")
    shift = np.zeros(3)
    for _ in range(8):
        ramp = np.exp(-2j * np.pi * sum(s * f for s, f in zip(shift, frequency, strict=True)))
        moved = np.fft.ifftn(spectrum * ramp).real
        smooth = np.fft.fftn(moved) * np.exp(-8 * sum(f**2 for f in frequency))
        slopes = np.stack(
            [np.fft.ifftn(-2j * np.pi * f * smooth).real.ravel() for f in frequency]
            + [np.ones(delta.size) * delta.std()],
            1,
        )
        weighted = slopes * window.reshape(-1, 1)
        wanted = weighted.T @ ((truth - moved) * window).ravel()
        shift += np.linalg.solve(weighted.T @ weighted, wanted)[:3]
    return moved


def judge(path: Path, result: Result) -> list[str]:
    """Measure the error of delta in absolute units, rotation centre and places of the exposures against the truth."""
    with h5py.File(path, "r") as file:
        angles = np.asarray(file["data/angles"])
    setup = read_setup(path, DEMO)
    figures = compare(setup, np.asarray(result["delta"], float))
    moved = np.asarray(result["positions"]) / PIXEL - read_truth(path, "positions")[0]
    # Where the sample as a whole sits is free: a constant along rows, a sine of the angle along columns.
    free = np.stack([np.ones_like(angles), np.cos(angles), np.sin(angles)], 1)
    moved[:, 0] -= moved[:, 0].mean()
    moved[:, 1] -= free[:, 1:] @ np.linalg.lstsq(free, moved[:, 1], rcond=None)[0][1:]
    return [
        f"against the truth: delta of the body {DELTA:.3g}, error {figures['error']:.3f} where the scan saw it (its "
        f"mean {figures['constant']:+.1%}, structure alone {figures['structure']:.3f} of its own)",
        f"against the truth: half-bit resolution {figures['half_bit'] * PIXEL * 1e9:.0f} nm (half period, pixel "
        f"{PIXEL * 1e9:.0f} nm)",
        f"against the truth: rotation centre {float(result.quality['rotation_centre']):.2f}, true {setup.centre:.2f}; "
        f"places of the exposures to {np.sqrt(np.mean(moved**2)):.3f} pixel rms",
    ]
