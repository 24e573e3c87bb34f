"""Distances found by gradient against customary ones, at the same dose, by reconstruction.

    python experiments/distances/run.py [--output FOLDER]

Prints the table of README.md and writes distances.png.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import diffrecon as dr
from diffrecon import plot, regimes

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
import weak_objects  # noqa: E402

FRAME, COUNTS, RMS = 256, 4000.0, 0.1  # counts on a finest pixel in all four holograms together
BENCH = {"detector_pixel": 3e-6, "focus_to_detector": 1.28}
NEAREST, FARTHEST = 21.333333e-3, 60e-3
PIXEL = 3e-6 * NEAREST / 1.28
SEEDS = (1, 2, 3)
SHOWN = 3  # in the figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    panels = []
    for kind, ratio in (("pure phase", np.inf), ("attenuation of its own", None)):
        found = regimes.design_distances(
            17e3,
            **BENCH,
            nearest=NEAREST,
            farthest=FARTHEST,
            frame=FRAME,
            counts=COUNTS,
            delta_beta=ratio,
            phase_rms=RMS,
        )
        print(
            f"\n{kind}\n| set | focus-sample distances [mm] | expected error | "
            + " | ".join(f"object {s}" for s in SEEDS)
            + " |\n|---|---|---|"
            + "---|" * len(SEEDS)
        )
        for name, distances in found.sets.items():
            results = [measure(distances, ratio, seed) for seed in SEEDS]
            lengths = ", ".join(f"{1e3 * d:.1f}" for d in distances)
            print(
                f"| {name} | {lengths} | {found.figures[name]['error']:.3f} | "
                + " | ".join(f"{error:.3f}" for error, _, _ in results)
                + " |",
                flush=True,
            )
            if ratio is None and name in ("optimised", "customary ratios"):
                panels.append((name, *results[SEEDS.index(SHOWN)]))
    draw(panels, options.output / "distances.png")


def measure(distances: np.ndarray, ratio: float | None, seed: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Relative error of the phase (constant removed), the phase found and the true one [rad]."""
    random = np.random.default_rng(seed)
    setup = regimes.Setup.of(dr.ConeBeam(17e3, distances, 1.28, 3e-6))
    phase = weak_objects.ellipsoids(random, FRAME, 60)
    attenuation = weak_objects.ellipsoids(random, FRAME, 60) if ratio is None else 0 * phase
    scale = lambda image, rms: image * rms / max(weak_objects.binned(image, FRAME).std(), 1e-12)
    phase, attenuation = scale(phase, -RMS), scale(attenuation, 0.1 * RMS if ratio is None else 0.0)
    mean = weak_objects.holograms(phase, attenuation, PIXEL, setup.wavelength, setup.distances, setup.pixels, FRAME)
    # The same dose at every distance: counts follow the area of a pixel in the sample.
    counts = COUNTS / len(distances) * (setup.pixels / PIXEL) ** 2
    contrasts = [random.poisson(n * image) / n - 1 for n, image in zip(counts, mean, strict=True)]
    prior = weak_objects.power_law(RMS, PIXEL, FRAME)
    other = weak_objects.power_law(0.1 * RMS, PIXEL, FRAME) if ratio is None else None
    found, truth = weak_objects.wiener(contrasts, counts, setup, PIXEL, prior, other), weak_objects.binned(phase, FRAME)
    found, truth = found - found.mean(), truth - truth.mean()
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth)), found, truth


def draw(panels: list, path: Path) -> None:
    truth = panels[0][3]
    rest = float(max(np.percentile(np.abs(found - truth), 99.5) for _, _, found, _ in panels))
    limits = (float(truth.min()), float(truth.max()))
    panel = lambda image, title, limits, label="phase": plot.image_panel(
        image, PIXEL, "rad", title, limits, label=label
    )
    page = plot.page_of(
        plot.in_rows(
            [
                panel(truth, "truth", limits),
                *(panel(found, name, limits) for name, _, found, _ in panels),
                *(
                    panel(found - truth, f"{name}, error {error:.3f}", (-rest, rest), "found less true phase")
                    for name, error, found, _ in panels
                ),
            ]
        )
    )
    page.savefig(path)


if __name__ == "__main__":
    main()
