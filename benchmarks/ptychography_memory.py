"""Peak memory and speed of ptychography on frames that stay in their file.

    python benchmarks/ptychography_memory.py far      # 10000 frames of 256 x 256, uint16: 1.3 GB
    python benchmarks/ptychography_memory.py near     # 17 frames of 2048 x 2048
    python benchmarks/ptychography_memory.py far --resident 1e12     # the same with all data on the device

A file is simulated in a temporary folder (removed afterwards) and solved in a process of its own, whose peak memory is
the answer. `far` runs `minimise` on the scan, so that frames in a file are read ahead of the steps that need them;
`near` and `--recipe` run the whole recipe: checks, guess, solve, judge. Frames are rounded without photon noise, which
would take longer than the solve.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

import diffrecon as dr

MEGABYTE = 2**20
SIZES = {"far": (10_000, 256), "near": (17, 2048)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=SIZES)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, help="views a step: 10 far, 1 near")
    parser.add_argument("--resident", type=float, help="bytes of data on the device; 0 (read ahead) by default")
    parser.add_argument("--recipe", action="store_true")
    parser.add_argument("--held", type=int, default=0, help="about so many views held out by the recipe")
    parser.add_argument("--show", action="store_true", help="progress of the recipe")
    parser.add_argument("--solve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    frames, size = SIZES[options.case]
    options.frames, options.size = options.frames or frames, options.size or size
    options.batch = options.batch or (10 if options.case == "far" else 1)
    if options.solve:
        solve(options, Path(options.solve))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.h5"
        simulate(path, options)
        print(
            f"{options.frames} frames of {options.size} x {options.size}: {path.stat().st_size / MEGABYTE:.0f} MB",
            flush=True,
        )
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--solve", str(path)], check=True)


def simulate(path: Path, options: argparse.Namespace) -> None:
    """Frames of a random phase object, in diffrecon's own layout; the near field is taken as a shadow."""
    random, size, far = np.random.default_rng(0), options.size, options.case == "far"
    side = int(np.ceil(np.sqrt(options.frames)))
    step = max(1, size // (16 if far else 64))
    corners = np.stack(np.divmod(np.arange(options.frames), side), -1) * step + random.integers(
        0, 2, (options.frames, 2)
    )
    field = smooth(random, (int(corners.max()) + size,) * 2, 3.0 if far else 8.0)
    sample = np.exp(0.5j * field).astype(np.complex64) if far else (1 + 0.2 * field).clip(0.1).astype(np.float32)
    y, x = np.indices((size, size)) - size / 2
    probe = (20 * np.exp(-(y**2 + x**2) / (size / 6) ** 2 + 5e-4j * (y**2 + x**2))).astype(np.complex64)
    with h5py.File(path, "w") as file:
        file.attrs["method"] = f"{options.case}-field-ptychography"
        stored = file.create_dataset("data/counts", (options.frames, size, size), np.uint16)
        for view, (r, c) in enumerate(corners):
            patch = sample[r : r + size, c : c + size]
            counts = abs(np.fft.fft2(probe * patch, norm="ortho")) ** 2 if far else 100 * patch
            stored[view] = np.fft.fftshift(counts).round() if far else counts.round()
        pixel, geometry = 1e-8, {"energy": 9e3, "pixel_size": 1e-8}
        if not far:
            geometry = {"energy": 12e3, "detector_pixel": 1e-6, "sample_to_detector": 0.05}
            pixel, file["geometry/beam"] = 1e-6, "parallel"
        file["data/positions"] = corners * pixel
        file["data/positions"].attrs["units"] = "m"
        for name, value in geometry.items():
            file[f"geometry/{name}"] = value


def smooth(random: np.random.Generator, shape: tuple[int, int], width: float) -> np.ndarray:
    """Noise of unit variance with features of some pixels, repeated where the field is larger than 1024."""
    small = tuple(min(n, 1024) for n in shape)
    square = sum(f**2 for f in np.meshgrid(*(np.fft.fftfreq(n) for n in small), indexing="ij"))
    field = np.fft.ifft2(np.fft.fft2(random.standard_normal(small)) * np.exp(-2 * (np.pi * width) ** 2 * square)).real
    field = np.tile(field / field.std(), [-(-n // m) for n, m in zip(shape, small, strict=True)])
    return field[: shape[0], : shape[1]]


def solve(options: argparse.Namespace, path: Path) -> None:
    """Open, solve, and say what it took."""
    import jax.numpy as jnp

    jnp.zeros(1).block_until_ready()
    print(f"Python and JAX alone: {peak():.0f} MB", flush=True)
    scan = dr.open_scan(path)
    print(f"scan opened and checked: {peak():.0f} MB", flush=True)
    started, worked = time.perf_counter(), time.process_time()
    steps = options.steps
    if options.recipe or options.case == "near":
        steps = recipe(options, scan)
    else:
        found = fit(options, scan)
        print(
            f"waited for the reader: {found.waited:.1%} of the time; cost {found.history[0]:.3f} -> "
            f"{found.history[-10:].mean():.3f}"
        )
    seconds = time.perf_counter() - started
    print(
        f"peak memory {peak():.0f} MB; {steps} steps with compilation: {steps / seconds:.2f} a second, CPU "
        f"{(time.process_time() - worked) / steps:.3f} s a step (load {os.getloadavg()[0]:.1f})"
    )


def fit(options: argparse.Namespace, scan: dr.Scan) -> dr.Solution:
    import optax

    model = dr.models.Ptychography.from_scan(scan)
    print(f"first guess: {peak():.0f} MB", flush=True)
    amplitude = float(abs(np.asarray(model.probe)).max())
    return dr.minimise(
        cost,
        model,
        scan,
        optax.adam(0.02),
        steps=options.steps,
        batch_size=options.batch,
        unknowns={"object": 1.0, "probe": amplitude},
        resident=0.0 if options.resident is None else options.resident,
        held_out=np.arange(5, scan.views, 100),
    )


def cost(model, batch):
    return dr.losses.amplitude(model(batch.views), batch.counts)


def recipe(options: argparse.Namespace, scan: dr.Scan) -> int:
    """The whole recipe; few views are held out, or none: to judge them takes 60 steps on all of them."""
    assert scan.method is not None
    held = np.arange(5, scan.views, max(scan.views // options.held, 1)) if options.held else np.zeros(0, int)
    epochs = max(1, round(options.steps * options.batch / scan.views))
    result = dr.recipes.reconstruct(
        scan,
        scan.method,
        {"solver": {"epochs": epochs, "batch_size": options.batch}, "quality": {"held_out_views": held}},
        dr.Console() if options.show else None,
    )
    print("\n".join(result.verdict))
    return result.quality["history"].size


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
