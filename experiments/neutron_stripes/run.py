"""A neutron sinogram over 360 degrees with stripes: are the rings gone, and is everything else still there?

    python experiments/neutron_stripes/run.py FILE [--output FOLDER]

FILE is `neutron_sinogram_360.tif` of sarepy (Apache-2.0): transmission, (459, 503) uint16. Prints the table of
README.md and writes the picture.
"""

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import diffrecon as dr
from diffrecon import plot, prepare

HERE = Path(__file__).parent
AIR = slice(0, 60)  # columns that the sample never shades
METHODS = ("none", "sorting", "fourier-wavelet", "large", "dead", "all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    values = jnp.asarray(line_integrals(options.file))
    angles = np.linspace(0, 2 * np.pi, len(values))
    centre = prepare.find_rotation_centre(np.asarray(values)[:, None], angles)
    print(centre.message)
    size = values.shape[-1]
    A = dr.operators.ParallelProjector(angles, (size, size), size, centre=centre.centre)

    slices = {}
    print("| stripes | ring energy [1e-3 / pixel] | rms change of the slice | CPU s |\n|---|---|---|---|")
    for method in METHODS:
        clean = lambda method=method: prepare.remove_stripes(values[:, None], method).values[:, 0]
        sinogram = jax.block_until_ready(clean())
        begun = time.process_time()
        jax.block_until_ready(clean())
        seconds = time.process_time() - begun
        slices[method] = np.asarray(dr.solvers.fbp(A, sinogram))
        changed = np.sqrt(np.mean((slices[method] - slices["none"])[inside(size)] ** 2))
        rings = ring_energy(slices[method])
        print(f"| {method} | {1e3 * rings:.3f} | {1e3 * changed:.3f} | {seconds:.2f} |", flush=True)
        if method == "all":
            draw(np.asarray(values), np.asarray(sinogram), slices, options.output / "neutron_stripes.png")


def line_integrals(path: Path) -> np.ndarray:
    """-log of the transmission, 1 in the air beside the sample of each view."""
    import tifffile

    stored = tifffile.imread(path).astype(np.float32)
    return -np.log(np.maximum(stored / np.median(stored[:, AIR], axis=1, keepdims=True), 1e-3))


def inside(size: int) -> np.ndarray:
    y, x = np.indices((size, size)) - (size - 1) / 2
    return np.hypot(y, x) < 0.45 * size


def ring_energy(image: np.ndarray) -> float:
    """Rms over the radius of what is the same all around and narrower than 9 pixels.

    The median over the angle, in polar coordinates about the axis, in the middle of the slice, less its own running
    median over the radius.
    """
    size = image.shape[0]
    radius, angle = np.arange(4, 0.42 * size), np.linspace(0, 2 * np.pi, 1440, endpoint=False)
    where = (size - 1) / 2 + np.stack([np.outer(radius, np.sin(angle)), np.outer(radius, np.cos(angle))])
    polar = np.asarray(prepare.undistort(jnp.asarray(image[None]), jnp.asarray(where, jnp.float32), order=1))[0]
    # Structure of the sample is removed ring by ring before the mean around.
    narrow = polar - running_median(polar, 9)
    return float(np.sqrt(np.mean(np.median(narrow, 1) ** 2)))


def running_median(values: np.ndarray, size: int) -> np.ndarray:
    padded = np.pad(values, ((size // 2, size // 2), (0, 0)), mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, size, axis=0), -1)


def draw(before: np.ndarray, after: np.ndarray, slices: dict[str, np.ndarray], path: Path) -> None:
    """Sinograms and slices before and after on the same grey values, and their differences."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(10, 6.6), layout="constrained")
    axes = page.subplots(2, 3)
    limits = tuple(np.percentile(slices["none"], [1, 99.7]))
    rows = (
        (before, after, "sinogram", "", tuple(np.percentile(before, [1, 99.5])), (-0.05, 0.05)),
        (slices["none"], slices["all"], "slice", "1/pixel", limits, (-0.004, 0.004)),
    )
    for row, (first, last, name, units, shown, change) in zip(axes, rows, strict=True):
        plot.image(first, units=units, title=f"{name}, as measured", limits=shown, ax=row[0])
        plot.image(last, units=units, title=f"{name}, stripes removed (all)", limits=shown, ax=row[1])
        plot.image(first - last, units=units, title="what was removed", limits=change, ax=row[2])
    page.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
