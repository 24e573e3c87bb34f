"""A full-field X-ray microscope: what the measured image of a chip shows, and deconvolution of a simulated counterpart.

    python experiments/txm_chip/run.py [--data txm_chip.h5] [--output FOLDER]

Prints the numbers of README.md and writes chip.png and deconvolution.png.
"""

import argparse
from pathlib import Path

import h5py
import jax.numpy as jnp
import numpy as np
import optax
from scipy import ndimage

import diffrecon as dr
from diffrecon import physics, plot
from diffrecon.operators import ZonePlateMicroscope

HERE = Path(__file__).parent
ENERGY, PIXEL, ZONE, SIZE, COUNTS = 9200.0, 20e-9, 60e-9, 128, 5000.0
OPTICS = {"outermost_zone": ZONE, "pixel_size": PIXEL, "stop": 0.4, "condenser": (0.5, 0.9)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data" / "real" / "txm_chip.h5")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    if options.data.exists():
        chip(options.data, options.output / "chip.png")
    simulated(options.output / "deconvolution.png")


# ---------------------------------------------------------------------- measured
def chip(path: Path, picture: Path) -> None:
    """Flat field, contrast, and the period of the wiring in pixels and in micrometres."""
    with h5py.File(path) as file:
        group = file["single_7191eV"]
        frame, flat = np.asarray(group["data"][0], float), np.asarray(group["reference"], float)
        pixel = float(np.squeeze(group.attrs["PixelSize"])) * 1e-6
    transmission = frame / np.maximum(flat, 1)
    region = (slice(60, 420), slice(20, 500))
    even = transmission[region] / ndimage.gaussian_filter(transmission, 12)[region] - 1
    even = np.clip(even, -0.5, 0.5)  # hot pixels
    print(
        f"counts {frame.mean():.0f} behind the chip, {flat.mean():.0f} without; transmission "
        f"{np.median(transmission):.3f} if both were exposed alike; pixel {pixel * 1e9:.1f} nm"
    )
    for axis, name in ((0, "across"), (1, "down")):
        power = np.mean(
            np.abs(
                np.fft.rfft(
                    even * np.hanning(even.shape[1 - axis])[None if axis == 0 else slice(None)]
                    if axis == 0
                    else even * np.hanning(even.shape[0])[:, None],
                    axis=1 - axis,
                )
            )
            ** 2,
            axis=axis,
        )
        number = even.shape[1 - axis]
        background = ndimage.median_filter(power, 25)
        peak = int(np.argmax((power / background)[8:])) + 8
        scatter = 1.4826 * np.median(np.abs(power / background - 1))
        clear = [
            h
            for h in range(1, number // (2 * peak) + 1)
            if (power / background)[max(h * peak - h, 0) : h * peak + h + 1].max() > 1 + 6 * scatter
        ]
        period = number / peak * pixel
        print(
            f"{name}: period {number / peak:.2f} pixels = {period * 1e6:.3f} µm, harmonics above 6 deviations "
            f"{clear}; the finest has a half period of {period / clear[-1] / 2 * 1e9:.0f} nm"
        )
    panel = lambda image, title, label, limits=None: plot.image_panel(image, pixel, "", title, limits, label=label)
    page = plot.page_of(
        [
            [
                panel(flat, "reference", "counts"),
                panel(transmission, "frame / reference", "transmission", (0.05, 0.35)),
                panel(ndimage.median_filter(even, 3)[:200, :200], "contrast, part", "contrast"),
            ]
        ]
    )
    page.savefig(picture)


# ---------------------------------------------------------------------- simulated
def simulated(picture: Path) -> None:
    """Copper wiring in an independent microscope: logarithm, Wiener's filter, and the whole model."""
    delta, beta = physics.delta_beta("Cu", 8.96, ENERGY)
    print("\n| wiring | -ln(I) / 2 | Wiener | model, total variation |\n|---|---|---|---|")
    for seed in (1, 2):
        truth, counts = measured(seed, delta / beta)
        optics = ZonePlateMicroscope.make(ENERGY, **OPTICS, points=24)
        plain = -0.5 * np.log(counts / COUNTS)
        wiener, _ = dr.solvers.deconvolve(counts / COUNTS - 1, optics.transfer((SIZE, SIZE))[1], noise=COUNTS**-0.5)
        found = fitted(optics, counts, np.asarray(wiener), delta / beta)
        error = [np.linalg.norm(a - truth) / np.linalg.norm(truth) for a in (plain, np.asarray(wiener), found)]
        print(f"| seed {seed} | " + " | ".join(f"{e:.3f}" for e in error) + " |", flush=True)
    shown = {"truth": truth, "−ln(I) / 2": plain, "Wiener": wiener, "model": found}
    panel = lambda image, title: plot.image_panel(
        np.asarray(image), PIXEL, "", title, (0.0, float(truth.max())), label="attenuation"
    )
    page = plot.page_of(plot.in_rows([panel(image, title) for title, image in shown.items()]))
    page.savefig(picture)


def measured(seed: int, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Attenuation averaged over pixels, and counts, in plain NumPy: twice as fine, hard pupil, 400 condenser points."""
    random = np.random.default_rng(seed)
    fine, size = PIXEL / 2, 2 * SIZE
    wires = np.zeros((size, size))
    for _ in range(26):
        y, x = random.integers(20, size - 60, 2)
        long, wide = random.integers(30, 90), random.integers(6, 20)
        box = (
            (slice(y, y + long), slice(x, x + wide))
            if random.random() < 0.5
            else (slice(y, y + wide), slice(x, x + long))
        )
        wires[box] = 0.1 * random.uniform(0.5, 1)
    attenuation = ndimage.gaussian_filter(wires, 2.0, mode="wrap")
    spectrum = np.fft.fft2(np.exp(-attenuation * (1 + 1j * ratio)))
    f = np.fft.fftfreq(size, fine)
    image, empty = 0.0, 0.0
    for point in range(400):
        r = np.sqrt(0.5**2 + (0.9**2 - 0.5**2) * (point + 0.5) / 400) / (2 * ZONE)
        turn = point * 2.399963229728653
        q = np.hypot(f[:, None] + r * np.sin(turn), f + r * np.cos(turn)) * 2 * ZONE
        image = image + np.abs(np.fft.ifft2(spectrum * ((q < 1) & (q > 0.4)))) ** 2
        empty += 1.0
    bins = lambda a: a.reshape(SIZE, 2, SIZE, 2).mean((1, 3))
    return bins(attenuation), random.poisson(COUNTS * bins(image / empty))


def fitted(optics: ZonePlateMicroscope, counts: np.ndarray, start: np.ndarray, ratio: float) -> np.ndarray:
    """Poisson likelihood of the whole image formation with total variation, one material."""

    weight = 0.3 * 2 * COUNTS**0.5  # 0.3 over the error bar of a pixel

    def cost(attenuation, batch):
        predicted = COUNTS * optics(jnp.exp(-attenuation * (1 + 1j * ratio)))
        return dr.losses.poisson(predicted, batch.counts[0]) + weight * dr.penalties.tv(attenuation, eps=1e-3)

    solution = dr.minimise(
        cost, jnp.asarray(start, jnp.float32), {"counts": counts[None]}, optax.lbfgs(), steps=40, chunk=20
    )
    return np.asarray(solution.value)


if __name__ == "__main__":
    main()
