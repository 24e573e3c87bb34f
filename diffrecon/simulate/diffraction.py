"""Coherent diffraction of a small complex object behind a beam stop, as at an undulator beamline.

Independent of `diffrecon.operators` and of any FFT: ellipses with antialiased edges on a grid four times finer than the
reconstruction's, a Fourier sum evaluated at nine points of each detector pixel and averaged over it, Poisson noise.
"""

from pathlib import Path

import h5py
import numpy as np

from .._result import Result
from ..io import new_hdf5
from ..physics import ELECTRON_CHARGE, energy_to_wavelength
from ..quality import register, shift_image

ENERGY = 8000.0  # [eV]
SAMPLE_TO_DETECTOR = 2.0  # [m]
DETECTOR_PIXEL = 55e-6  # [m]
FRAME = 128
COUNTS = 3e7  # of the whole pattern without the stop
STOP = 2.6  # radius of the beam stop [detector pixel]
FINE = 4  # object samples a pixel of the reconstruction, along each axis
SETTINGS = ()

WIDTH = 48  # field that holds the object [pixel]
PIXEL = energy_to_wavelength(ENERGY) * SAMPLE_TO_DETECTOR / (FRAME * DETECTOR_PIXEL)


def write(path: Path, seed: int = 0, counts: float = COUNTS) -> dict[str, np.ndarray]:
    """Simulate and write a CXI file with a single frame."""
    fine = transmission(seed)
    inner = (np.arange(3) - 1) / 3
    expected = np.mean([abs(_spectrum(fine, dy, dx)) ** 2 for dy in inner for dx in inner], axis=0)
    expected *= counts / expected.sum()
    frame = np.random.default_rng(seed).poisson(expected)
    mask = _beam_stop()
    with new_hdf5(path) as file:
        file["cxi_version"] = 160
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector["data"] = np.where(mask, frame, 0).astype("u4")[None]
        detector["mask"] = (~mask).astype("u4")  # CXI: bits set = bad
        detector["distance"] = SAMPLE_TO_DETECTOR
        detector["x_pixel_size"] = detector["y_pixel_size"] = DETECTOR_PIXEL
        file["entry_1/instrument_1/source_1/energy"] = ENERGY * ELECTRON_CHARGE
        file["truth/seed"], file["truth/counts"] = seed, counts
    return {"seed": np.asarray(seed), "mean_counts": np.asarray(frame[mask].mean())}


def transmission(seed: int) -> np.ndarray:
    """Make the wave that leaves the object, on the fine grid: a lobed body with inclusions, without symmetry."""
    rng = np.random.default_rng(1000 + seed)
    u = (np.arange(WIDTH * FINE) - (WIDTH * FINE - 1) / 2) / FINE
    y, x = u[:, None], u[None]
    ellipse = lambda cy, cx, a, b, turn: 0.5 * (
        1
        - np.tanh(
            4
            * FINE
            * (
                np.hypot(
                    ((y - cy) * np.cos(turn) + (x - cx) * np.sin(turn)) / a,
                    ((x - cx) * np.cos(turn) - (y - cy) * np.sin(turn)) / b,
                )
                - 1
            )
        )
    )
    body = np.maximum(ellipse(-3, -2, 14, 9, 0.4), ellipse(6, 5, 8, 11, -0.3))
    body = np.maximum(body, ellipse(10, -8, 5, 4, 0.9))
    thickness = 0.6 * body
    for _ in range(10):
        cy, cx, a, b, turn = *rng.uniform(-11, 11, 2), *rng.uniform(1.2, 4.0, 2), rng.uniform(0, 3)
        thickness = thickness + rng.choice([-0.35, 0.5, 0.8]) * ellipse(cy, cx, a, b, turn) * body
    return body * np.exp((-0.15 + 1j) * thickness)


def _spectrum(fine: np.ndarray, down: float = 0.0, right: float = 0.0) -> np.ndarray:
    """The Fourier sum of the fine object at each detector pixel's centre plus an offset [pixel], centre in the middle
    as on detectors.
    """
    u = (np.arange(fine.shape[0]) - (fine.shape[0] - 1) / 2) / FINE
    q = (np.arange(FRAME) - FRAME // 2) / FRAME
    kernel = lambda offset: np.exp(-2j * np.pi * np.outer(q + offset / FRAME, u))
    return kernel(down) @ fine @ kernel(right).T / FINE**2


def _beam_stop() -> np.ndarray:
    """Mark where the detector measured: not behind a disc and the wire that holds it."""
    v = np.arange(FRAME) - FRAME // 2
    disc = np.hypot(v[:, None], v[None]) <= STOP
    wire = (v[:, None] > 0) & (abs(v[None]) < 1)
    return ~(disc | wire)


def judge(path: Path, result: Result) -> list[str]:
    """Measure the error of the complex object against the truth, limited to the detector's band; shift, constant phase
    and inversion (the twin), which a pattern cannot tell, are removed first.
    """
    with h5py.File(path, "r") as file:
        seed = int(np.asarray(file["truth/seed"]))
    truth = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(_spectrum(transmission(seed)))))
    found = np.asarray(result["object"], complex)
    error, best = min((difference(truth, one) for one in (found, np.conj(found[::-1, ::-1]))), key=lambda e: e[0])
    seen = abs(truth) > 0.5 * abs(truth).max()
    phase = np.angle(best[seen] * np.conj(truth[seen]))
    return [
        f"against the truth: relative error of the complex object {error:.3f}, phase error "
        f"{np.sqrt(np.mean(phase**2)):.3f} rad rms in the object"
    ]


def difference(truth: np.ndarray, found: np.ndarray) -> tuple[float, np.ndarray]:
    """Compute `|truth - c found| / |truth|` with the best shift and the best complex constant; and what was
    compared."""
    moved = shift_image(found, register(truth, found))
    moved = moved * (np.vdot(moved, truth) / np.vdot(moved, moved))
    return float(np.linalg.norm(moved - truth) / np.linalg.norm(truth)), moved
