"""The smallest angle that speckles tell, against the dose: by Fisher information, and in simulated scans.

    python experiments/sensitivity_against_dose/run.py [--seed 0] [--output FOLDER]

Prints the table of README.md and draws sensitivity.png.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import diffrecon as dr
from diffrecon.simulate.differential_phase import BLUR, DISTANCE, ENERGY, PIXEL, Waves, membrane_places, rough

HERE = Path(__file__).parent
FRAME, VIEWS, COUNTS = 96, 6, (250, 1000, 4000, 16000, 64000)  # the last a pixel and frame
SETTINGS = {"model": {"fringes": False}, "quality": {"held_out": 0.0, "error_bars": 3}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    began, random = time.process_time(), np.random.default_rng(options.seed)
    frames, rows = patterns(random), []
    head = "counts a pixel | plan | predicted | found, no prior | over predicted | found, as it is | its error bar"
    print(f"| {head} |\n|{'---|' * 7}")
    for counts in COUNTS:
        plan, bound = predicted(frames, counts)
        stacks = [random.poisson(counts * frames) for _ in range(2)]
        scan = dr.Scan.from_arrays(
            stacks[0], method="speckle", geometry=dr.ParallelBeam(PIXEL, ENERGY, DISTANCE),
            extra={"reference": stacks[1], "detector_blur": BLUR},
        )  # fmt: skip
        inside = np.s_[12:-12, 12:-12]
        bare = {"prior": {"phase": 0.0, "transmission": 0.0, "visibility": 0.0}}
        plain = [dr.reconstruct(scan, settings=SETTINGS | extra) for extra in (bare, {})]
        found = [1e9 * float(np.std(np.asarray(result["alpha_x"], float)[inside])) for result in plain]
        bar = 1e9 * float(np.median(np.asarray(plain[1]["alpha_x_error"])[inside]))
        rows.append((VIEWS * counts, bound, *found, bar))
        figures = f"{plan:.1f} | {bound:.1f} | {found[0]:.1f} | {found[0] / bound:.2f} | {found[1]:.1f} | {bar:.1f}"
        print(f"| {VIEWS * counts} | {figures} |", flush=True)
    draw(np.array(rows), options.output / "sensitivity.png")
    print(f"{time.process_time() - began:.0f} CPU s")


def patterns(random: np.random.Generator) -> np.ndarray:
    """What a camera expects behind a membrane at some places and nothing else, `(place, y, x)`, mean one."""
    waves = Waves(FRAME, PIXEL, 4, 12)
    beam = waves.propagate(np.exp(0.4j * rough(waves, random, 1.6 * PIXEL)), 0.3 + DISTANCE)
    frames = [waves.detect(waves.moved(beam, place)) for place in membrane_places(VIEWS)]
    return np.array(frames) / np.mean(frames)


def predicted(frames: np.ndarray, counts: float) -> tuple[float, float]:
    """Least deviation of an angle of a pixel [nrad] from the photons of both stacks: as `diffrecon.planning` has it,
    from the mean square slope of the pattern, and with both angles, transmission and visibility free (the median).
    By the Fisher information of the expected frames, whose slopes are those of their Fourier series.
    """
    slopes = []
    for axis in (1, 2):
        shape = [1, 1, 1]
        shape[axis] = -1
        mirrored = np.concatenate([frames, np.flip(frames, axis)], axis)
        turn = 2j * np.pi * np.fft.fftfreq(mirrored.shape[axis]).reshape(shape)
        slope = np.fft.ifft(np.fft.fft(mirrored, axis=axis) * turn, axis=axis).real
        slopes.append(slope.take(range(frames.shape[axis]), axis))
    smooth = frames.mean(0)
    told = np.stack([*slopes, frames, frames - smooth], -1)
    information = np.einsum("nyxi,nyxj,nyx->yxij", told, told, counts / (2 * frames))
    least = np.linalg.inv(information)[..., 1, 1][12:-12, 12:-12]
    plan = 2 / (len(frames) * counts * (slopes[1] ** 2).mean())
    unit = 1e9 * PIXEL / DISTANCE
    return unit * float(np.sqrt(plan)), unit * float(np.sqrt(np.median(least)))


def draw(rows: np.ndarray, path: Path) -> None:
    """Angles against the dose."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(5.2, 3.6), dpi=110, layout="constrained")
    ax = page.add_subplot()
    ax.loglog(rows[:, 0], rows[:, 1], color="black", label="Fisher information, every pixel by itself")
    ax.loglog(rows[:, 0], rows[:, 2], "o", color="tab:blue", label="found, no prior")
    ax.loglog(rows[:, 0], rows[:, 3], "s", color="tab:red", label="found, the recipe as it is")
    ax.loglog(rows[:, 0], rows[:, 4], "_", color="tab:red", markersize=12, label="its error bar")
    ax.set(xlabel="counts a pixel, in all frames of a stack", ylabel="angle along x, one deviation [nrad]")
    ax.legend(fontsize=8)
    page.savefig(path)


if __name__ == "__main__":
    main()
