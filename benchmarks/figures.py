"""The figures of quality that a change of the code must not move, each by the default recipe.

    python benchmarks/figures.py DATA [--only WORD ...]

DATA holds `real/p25_near_field.cxi`, `real/siemens_far_field.npz`, `real/tooth.h5`, `simulated/holograms_weak_512.h5`,
`simulated/holograms_strong_512.h5` and `simulated/saxs_helix_n32.h5` with its `_truth.h5`; what is not there is left
out with a line. Ptychography is judged on views that were never fitted, the simulated sets against their truth. CPU
seconds are those of the whole call, compilation included.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import jax.numpy as jnp
import numpy as np

import diffrecon as dr


def near_field(data: Path) -> str:
    """Siemens star in the near field."""
    scan = dr.open_scan(data / "real/p25_near_field.cxi", focus_to_sample="3.65 mm")
    return _held_out(dr.reconstruct(scan))


def far_field(data: Path) -> str:
    """Siemens star in the far field, with eight probe modes."""
    scan = dr.open_scan(data / "real/siemens_far_field.npz")
    settings = {"model": {"modes": 8}, "solver": {"epochs": 40}}
    return _held_out(dr.reconstruct(scan, "far-field-ptychography", settings))


def _held_out(result: dr.Result) -> str:
    found = result.quality
    return f"held-out R {found['held_out_residual']:.4f}, deviance {found['held_out_deviance']:.3f}"


def tooth(data: Path) -> str:
    """Both rows of the tooth by twenty steps of conjugate gradients."""
    scan = dr.open_scan(data / "real/tooth.h5")
    values = jnp.asarray(scan.absorption())
    columns = values.shape[-1]
    A = dr.operators.ParallelProjector(scan.angles, (columns, columns), columns, centre=scan.find_rotation_centre())
    found = dr.solvers.cgls(A, values, steps=20).x
    return f"relative residual {float(jnp.linalg.norm(A(found) - values) / jnp.linalg.norm(values)):.4f}"


def holograms(path: Path, pixel: float = 50e-9) -> str:
    """Four holograms by the default command; error of the phase without its constant, 16 pixels cut."""
    with h5py.File(path) as file:
        number = lambda name: float(np.asarray(file[name]))
        beam = dr.ConeBeam(
            number("energy_keV") * 1e3, np.asarray(file["z1_m"]), number("L_m"), number("detector_pixel_m")
        )
        counts, flux, truth = np.asarray(file["raw_counts"]), number("photons"), np.asarray(file["truth_phase"])
    scan = dr.Scan.from_arrays(counts, method="holography", geometry=beam, flux=flux)
    found = dr.reconstruct(scan, "holography", {"model": {"register": False}})["phase"]
    inner = (slice(16, -16), slice(16, -16))
    off = np.asarray(found, float)[inner] - truth[inner]
    error = np.linalg.norm(off - off.mean()) / np.linalg.norm(truth[inner] - truth[inner].mean())
    correlation = dr.quality.ring_correlation(np.asarray(found, float)[inner], truth[inner], realign=False)
    below = np.flatnonzero(np.convolve(correlation.correlation, np.full(5, 0.2), "same")[4:-2] < 0.5)
    frequency = correlation.frequency[below[0] + 4] if below.size else correlation.frequency[-1]
    return f"error {error:.4f}, half period {pixel * 1e9 / (2 * frequency):.0f} nm"


def helix(data: Path) -> str:
    """Tensor SAXS of a helix against its truth, as of mumott's papers: mean, anisotropy, coefficients, direction."""
    found = np.asarray(dr.reconstruct(dr.open_scan(data / "simulated/saxs_helix_n32.h5"))["coefficients"], float)
    found = found.transpose(2, 1, 0, 3)
    with h5py.File(data / "simulated/saxs_helix_n32_truth.h5") as file:
        truth = {name: np.asarray(file[name]) for name in file if isinstance(file[name], h5py.Dataset)}
    inside, terms = truth["occupancy"] > 0.999, min(found.shape[-1], 28)
    relative = lambda a, b: float(np.linalg.norm(a - b) / np.linalg.norm(b))
    anisotropy = lambda c: np.sqrt((c[..., truth["ell"][: c.shape[-1]] > 0] ** 2).sum(-1)) / np.maximum(c[..., 0], 1e-9)
    off = anisotropy(found)[inside] - anisotropy(truth["sh_coefficients"])[inside]
    _, axes = np.linalg.eigh(_second_moment(found))
    axis = np.where((truth["kappa"] > 0)[..., None], axes[..., 2], axes[..., 0])
    angle = np.rad2deg(np.arccos(np.clip(np.abs((axis * truth["direction"]).sum(-1)), 0, 1)))[inside]
    return (
        f"mean {relative(found[..., 0][inside], truth['mean'][inside]):.3f}, "
        f"anisotropy {np.sqrt(np.mean(off**2)):.3f}, coefficients "
        f"{relative(found[..., :terms][inside], truth['sh_coefficients'][..., :terms][inside]):.3f}, "
        f"direction {np.median(angle):.2f} deg, 90 % {np.percentile(angle, 90):.2f} deg"
    )


def _second_moment(c: np.ndarray) -> np.ndarray:
    """Traceless second moment of the real harmonics of second order."""
    xy, yz, zz, xz, flat = (c[..., i] for i in range(1, 6))
    rows = [
        [-zz * 5**0.5 / 15 + flat / 15**0.5, xy / 15**0.5, xz / 15**0.5],
        [xy / 15**0.5, -zz * 5**0.5 / 15 - flat / 15**0.5, yz / 15**0.5],
        [xz / 15**0.5, yz / 15**0.5, 2 * zz * 5**0.5 / 15],
    ]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


CASES: dict[str, Callable[[Path], str]] = {
    "tooth, CGLS 20": tooth,
    "P25, near field": near_field,
    "siemens, 8 modes": far_field,
    "holography, weak": lambda data: holograms(data / "simulated/holograms_weak_512.h5"),
    "holography, strong": lambda data: holograms(data / "simulated/holograms_strong_512.h5"),
    "helix, tensor SAXS": helix,
}


def main() -> None:
    """Print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="*", help="cases that contain one of these words")
    options = parser.parse_args()
    for name, case in CASES.items():
        if options.only and not any(word in name for word in options.only):
            continue
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            line = case(options.data)
        except (dr.InputError, OSError) as error:
            line = f"left out: {error}"
        print(
            f"{name:20s} {line}   {time.process_time() - cpu:.0f} CPU s, {time.perf_counter() - wall:.0f} s", flush=True
        )


if __name__ == "__main__":
    main()
