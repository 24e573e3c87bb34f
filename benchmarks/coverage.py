"""Do error bars cover? The share of pixels whose error is within one, and the rms error in units of the bar.

    python benchmarks/coverage.py [--only WORD ...] [--seed N]

Simulated sets with known truth, each by the default recipe. Errors of a normal law are within one bar in 0.683 of the
pixels, and their rms is one. What no data tell is taken from the error first: the constant of a phase, and in
ptychography ramp and curvature, which probe and positions can carry.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import ArrayLike

import diffrecon as dr
from diffrecon.simulate import holography, kedge, ptychography, tomography

CASES: dict[str, Callable[[Path, int], list[str]]] = {}


def covered(error: ArrayLike, bar: ArrayLike, where: ArrayLike = True) -> str:
    """Say which share of the errors is within one bar, and their rms in units of it."""
    z = np.asarray(error) / np.asarray(bar)
    z = z[np.isfinite(z) & where]
    return f"{np.mean(np.abs(z) < 1):.3f} within 1 sigma, rms z {np.sqrt(np.mean(z**2)):.2f}"


def case(name: str) -> Callable[[Callable[[Path, int], list[str]]], Callable[[Path, int], list[str]]]:
    """Put a function into the table."""
    return lambda function: CASES.setdefault(name, function)


def _kedge(path: Path, seed: int, counts: float, flats: int) -> list[str]:
    with mock.patch.multiple(kedge, COUNTS=counts, FLATS=flats):
        truth = kedge.write(path, seed)
    result = dr.reconstruct(dr.open_scan(path), settings={"model": {"materials": list(truth)}})
    return [f"{name}: {covered(result[name] - value, result[f'{name}_error'])}" for name, value in truth.items()]


for flats in (1, 2, 10):
    case(f"k-edge, 700 counts, {flats} flats")(lambda path, seed, n=flats: _kedge(path, seed, 700.0, n))


def _holography(path: Path, seed: int, flux: float) -> list[str]:
    with mock.patch.object(holography, "FLUX", flux):
        truth = holography.write(path, seed)["phase"]
    result = dr.reconstruct(dr.open_scan(path), settings={"model": {"register": False}})
    error = (result["phase"] - truth)[8:-8, 8:-8]
    return [covered(error - error.mean(), result["phase_error"][8:-8, 8:-8])]


for flux in (4000, 400):
    case(f"holography, {flux} photons")(lambda path, seed, n=flux: _holography(path, seed, n))


def _tomography(path: Path, seed: int, photons: float) -> list[str]:
    with mock.patch.object(tomography, "PHOTONS", photons):
        tomography.write(path, seed)
    result = dr.reconstruct(dr.open_scan(path), settings={"quality": {"deviation": "closed-form"}})
    error, bar = [], []
    for row in range(tomography.ROWS):
        truth = tomography.phantom(seed, row) / tomography.PIXEL
        down, right = np.gradient(truth)
        flat = np.hypot(down, right) < 1e-6 * truth.max()  # a pixel cannot show an edge
        places = np.arange(len(truth)) - (len(truth) - 1) / 2
        flat &= np.hypot(places[:, None], places) < 100
        error.append((result["volume"][row] - truth)[flat])
        bar.append(result["deviation"][row][flat])
    return [covered(np.concatenate(error), np.concatenate(bar))]


for photons in (20000, 1000):
    case(f"tomography, {photons} photons, off edges")(lambda path, seed, n=photons: _tomography(path, seed, float(n)))


def _ptychography(path: Path, seed: int, counts: float, motors: float) -> list[str]:
    with mock.patch.multiple(ptychography, COUNTS=counts, POSITION_ERROR=motors):
        known = ptychography.write(path, seed)
    result = dr.reconstruct(dr.open_scan(path, focus_to_sample="60 mm"))
    moved, phase = result["positions"] / ptychography.PIXEL - known["positions"], result["phase"]
    origin = moved.mean(0) + (ptychography.FRAME - 1) / 2  # object pixel of the sample's coordinate zero
    y, x = (np.arange(n) - o for n, o in zip(phase.shape, origin, strict=True))
    steps = (np.arange(4) + 0.5) / 4 - 0.5
    truth = np.mean([ptychography.transmission(y[:, None] + a, x[None] + b, seed)[0] for a in steps for b in steps], 0)
    rows, columns = (v[np.isfinite(phase)] / 64 for v in np.meshgrid(y, x, indexing="ij"))
    free = np.stack([np.ones(rows.size), rows, columns, rows**2, rows * columns, columns**2], 1)
    error = (phase - truth)[np.isfinite(phase)]
    error -= free @ np.linalg.lstsq(free, error, rcond=None)[0]
    return [covered(error, result["phase_error"][np.isfinite(phase)])]


for counts, motors in ((1500, 0.5), (150, 0.0), (600, 0.25), (5000, 1.0), (3000, 0.3), (300, 0.8)):
    case(f"ptychography, {counts} counts, motors {motors} pixel")(
        lambda path, seed, n=counts, e=motors: _ptychography(path.with_suffix(".cxi"), seed, n, e)
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="cases that contain one of these words")
    parser.add_argument("--seed", type=int, default=101)
    options = parser.parse_args()
    for name, function in CASES.items():
        if options.only and not any(word in name for word in options.only):
            continue
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            lines = function(Path(folder) / "scan.h5", options.seed)
        for line in lines:
            print(f"{name:45s} {line}   {time.process_time() - start:.0f} CPU s", flush=True)


if __name__ == "__main__":
    main()
