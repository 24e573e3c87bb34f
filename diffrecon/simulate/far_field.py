"""Far-field ptychography of a Siemens star and spheres: a defocused, aberrated beam of partial coherence, fly scan.

Independent of `diffrecon.operators`: an analytic object on pixels half as large, a beam evaluated from its pupil at
every position of source and stage, patterns by discrete Fourier sums at points inside each detector pixel, Poisson
noise, motor errors, plain float64 NumPy.
"""

from pathlib import Path

import numpy as np

from .._result import Result
from ..geometry import FarField
from ..physics import energy_to_wavelength
from ..quality import align
from ..scan import Scan
from ._truth import read_truth, write_with_truth
from .ptychography import transmission

FRAME, VIEWS, STEP, FINE = 48, 9, 5.0, 2  # detector pixels, points along each axis, pixels between, samples a pixel
ENERGY, DISTANCE, DETECTOR = 8e3, 2.0, 75e-6  # [eV], sample to detector [m], its pixel [m]
PHOTONS, BACKGROUND = 4e5, 0.02  # in a frame, counts a pixel
PUPIL, DEFOCUS = 9.0, 5.0  # radius [frequencies of the patch], phase at its edge [rad]
SOURCE = 0.6  # standard deviation of the beam's horizontal wandering [pixel]
TRAVEL = 0.0  # horizontal path of the stage during an exposure [pixel]
POSITION_ERROR = 0.4  # [pixel], of the motors, unknown to the reconstruction
SCALE = 1.5  # the near field's object, smaller

PIXEL = energy_to_wavelength(ENERGY) * DISTANCE / (FRAME * DETECTOR)


def write(path: str | Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Simulate and write a scan; the truth lies under `/truth`.

    **Returns:** the truth: `positions` of the middle of the patch in the sample, `nominal` ones [pixel], `seed`.
    """
    random = np.random.default_rng(seed)
    axis = (np.arange(VIEWS) - (VIEWS - 1) / 2) * STEP
    nominal = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    nominal += 0.3 * STEP * random.uniform(-1, 1, nominal.shape)
    actual = nominal + POSITION_ERROR * random.standard_normal(nominal.shape)
    actual += nominal.mean(0) - actual.mean(0)
    pupil = _pupil(random)
    fine = _fine(FRAME + 2 * int(abs(actual).max() + TRAVEL + 2))
    phase, exponent = _sample(fine, fine, 1 / FINE, seed)
    frames = np.array([_frame(place, pupil, np.exp(1j * phase - exponent)) for place in actual])
    counts = random.poisson(frames + BACKGROUND).astype(np.uint32)
    scan = Scan.from_arrays(
        counts, positions=nominal * PIXEL, method="far-field-ptychography",
        geometry=FarField(FRAME, ENERGY, DISTANCE, DETECTOR), extra={"dc": "centre"},
    )  # fmt: skip
    truth = {"positions": actual, "nominal": nominal, "seed": np.asarray(seed)}
    write_with_truth(path, scan, truth)
    return truth


def judge(path: str | Path, result: Result) -> list[str]:
    """Measure the error of the phase where the light is, and of the positions, against the truth.

    What data cannot tell is removed first: constant and ramp of the phase, which the beam can carry, and the place of
    the sample as a whole, since the beam may lie anywhere in its window.
    """
    actual, nominal, seed = read_truth(path, "positions", "nominal", "seed")
    moved = result["positions"] / PIXEL - actual
    origin = moved.mean(0) + (FRAME - 1) / 2
    phase = result["phase"]
    y, x = (np.arange(n) - o for n, o in zip(phase.shape, origin, strict=True))
    seen = np.isfinite(phase)
    shares = [seen.mean(1 - axis) for axis in (0, 1)]
    box = tuple(slice(*(np.flatnonzero(share > 0.5 * share.max())[[0, -1]] + [0, 1])) for share in shares)
    exponent = 1j * np.nan_to_num(phase)[box]
    _, shift = align(np.exp(1j * _sample(y[box[0]], x[box[1]], 1.0, int(seed), 4)[0]), np.exp(exponent))
    truth = _sample(y + shift[0], x + shift[1], 1.0, int(seed), 4)[0][seen]
    rows, columns = (a[seen] / FRAME for a in np.meshgrid(y, x, indexing="ij"))
    free = np.stack([np.ones(rows.size), rows, columns], 1)
    error = np.angle(np.exp(1j * (phase[seen] - truth - np.median(phase[seen] - truth))))
    error -= free @ np.linalg.lstsq(free, error, rcond=None)[0]
    before, after = (np.sqrt(np.mean((p - p.mean(0)) ** 2)) for p in (nominal - actual, moved))
    return [
        f"against the truth: phase error {np.sqrt(np.mean(error**2)):.4f} rad rms, relative "
        f"{np.linalg.norm(error) / np.linalg.norm(truth - truth.mean()):.3f}, over {seen.mean():.0%} of the field",
        f"against the truth: positions {before:.2f} pixel rms before, {after:.3f} after",
    ]


# ---------------------------------------------------------------------------------------------------- parts
def _pupil(random: np.random.Generator) -> np.ndarray:
    """A lens with a central stop on the whole frequencies of the patch, defocused and aberrated, of PHOTONS in all."""
    f = np.arange(FRAME) - FRAME // 2
    radius, angle = np.hypot(f[:, None], f[None]) / PUPIL, np.arctan2(f[:, None], f[None])
    lens = 1 / (1 + np.exp((radius - 1) * PUPIL / 0.3)) - 1 / (1 + np.exp((radius - 0.3) * PUPIL / 0.3))
    coma, bend = random.normal(0, 0.6, 2)
    turn = DEFOCUS * radius**2 + coma * radius**3 * np.cos(angle) + bend * radius**2 * np.cos(2 * angle)
    return np.sqrt(PHOTONS / np.sum(lens**2)) * lens * np.exp(1j * turn)


def _frame(place: np.ndarray, pupil: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Expected counts: means over the source, the stage's path, and four points in each detector pixel."""
    fine, f = _fine(FRAME), (np.arange(FRAME) - FRAME // 2) / FRAME
    points = (f[:, None] + np.array([-1, 1]) / np.sqrt(12) / FRAME).ravel()
    inward, outward = np.exp(2j * np.pi * np.outer(fine, f)), np.exp(-2j * np.pi * np.outer(points, fine))
    nodes, shares = np.polynomial.hermite_e.hermegauss(3)
    times = np.polynomial.legendre.leggauss(3)[0] / 2 * TRAVEL if TRAVEL else np.zeros(1)
    pattern = np.zeros((FRAME, FRAME))
    for time in times:
        samples = FINE * (place + [0, time])
        corner = np.floor(samples).astype(int)  # the sample stays on its grid, the beam moves by the rest
        patch = sample[tuple(slice(c, c + fine.size) for c in corner + (sample.shape[0] - fine.size) // 2)]
        for node, share in zip(nodes, shares / shares.sum() / len(times), strict=True):
            move = (samples - corner) / FINE + [0, SOURCE * node]
            rows, columns = (inward * np.exp(-2j * np.pi * f * m) for m in move)
            wave = outward @ (rows @ pupil @ columns.T * patch) @ outward.T / (FRAME * FINE) ** 2
            pattern += share * (abs(wave) ** 2).reshape(FRAME, 2, FRAME, 2).mean((1, 3))
    return pattern


def _fine(pixels: int) -> np.ndarray:
    """Sample coordinates [pixel] of the fine grid, about zero."""
    return (np.arange(pixels * FINE) - (pixels * FINE - 1) / 2) / FINE


def _sample(y: np.ndarray, x: np.ndarray, width: float, seed: int, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Phase [rad] and amplitude exponent: means over cells of a width [pixel], by count x count points."""
    steps = ((np.arange(count) + 0.5) / count - 0.5) * width
    parts = [transmission(SCALE * (y[:, None] + dy), SCALE * (x[None] + dx), seed) for dy in steps for dx in steps]
    return np.mean([phase for phase, _ in parts], axis=0), np.mean([exponent for _, exponent in parts], axis=0)
