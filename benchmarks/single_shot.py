"""One frame behind a grid that the detector resolves, against its truth, beside Fourier analysis pixel by pixel.

Waves through a grid of squares, of lines or of rows, a sample (lens, ball, film, powder) and free space (20 keV, pixels
of 3 um, 0.7 m; `diffrecon.simulate.differential_phase.Waves`); one frame with the sample, one without. Prints, where no
edge is near and nothing scatters, the relative error and the slope of the angles across the lines and the error of the
transmission; and the visibility in the powder and in air.
"""

import argparse
import time

import numpy as np
import table

import diffrecon as dr
from diffrecon.simulate import differential_phase as waves_of

FRAME = 128


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--kinds", nargs="*", default=["lines", "rows", "grid"])
    parser.add_argument("--period", type=float, default=5.0, help="[pixel]")
    parser.add_argument("--turn", type=float, default=0.03, help="of the grid [rad]")
    parser.add_argument("--counts", type=float, default=5000.0)
    options = table.arguments(parser).parse_args()
    print("| fringes | seed | read by | angles: error, slope | transmission | powder, air | CPU s |\n|" + "---|" * 7)
    for kind in options.kinds:
        for seed in options.seeds:
            scan, truth = simulated(kind, seed, options)
            began = time.process_time()
            ours = dr.reconstruct(scan)
            spent = time.process_time() - began
            angle = {"lines": "alpha_x", "rows": "alpha_y", "grid": "alpha_x"}[kind]
            for label, found, seconds in (("diffrecon", ours, spent), ("Fourier analysis", by_fourier(scan), 0.0)):
                print(f"| {kind} | {seed} | {label} | {figures(found, truth, kind)} | {seconds:.1f} |", flush=True)
                case = f"single frame of {kind}, seed {seed}"
                table.note(case, "error of the angle", angle_error(found, truth, angle), label)
    table.keep(options, "python benchmarks/single_shot.py")


def simulated(kind, seed, options):
    """The scan, and what it should show."""
    random, pixel = np.random.default_rng(seed), waves_of.PIXEL
    waves = waves_of.Waves(FRAME, pixel, 4, 12)
    phase, absorption, patch, edges = waves_of.sample_of(waves, random)
    behind = np.exp(1j * (phase + waves_of.powder_of(waves, random, patch)) - absorption)
    y, x = waves.place[:, None] / pixel, waves.place[None] / pixel
    c, s = np.cos(options.turn), np.sin(options.turn)
    bars = lambda place: 0.5 + 0.5 * np.tanh(3 * np.sin(2 * np.pi * place / options.period))
    u, v = bars(x * c + y * s), bars(y * c - x * s)
    passed = {"lines": 0.25 + 0.75 * u, "rows": 0.25 + 0.75 * v, "grid": 0.15 + 0.85 * (u + v - u * v)}[kind]
    beam = waves.propagate(np.sqrt(passed).astype(complex), 0.05)
    seen = lambda wave: waves.detect(waves.propagate(wave, waves_of.DISTANCE))
    drift = 0.1 * pixel * random.standard_normal(2)
    still = random.poisson(options.counts * seen(beam))
    there = random.poisson(options.counts * seen(waves.moved(beam, drift) * behind))
    scan = dr.Scan.from_arrays(
        there[None], method="grating", geometry=dr.ParallelBeam(pixel, waves_of.ENERGY, waves_of.DISTANCE),
        extra={"reference": still[None], "detector_blur": waves_of.BLUR},
    )  # fmt: skip
    truth = waves_of.refraction_truth(waves, phase, edges)
    truth |= {"transmission": seen(np.exp(1j * phase - absorption)), "patch": waves.binned(patch)}
    return scan, truth


def by_fourier(scan):
    """Phases of the carriers, pixel by pixel (Takeda 1982), without a model."""
    reference = np.asarray(scan.extra["reference"], float)
    waves = dr.prepare.find_carriers(reference).waves
    (there, light), (still, empty) = (
        dr.prepare.demodulate(a, waves) for a in (np.asarray(scan.counts, float), reference)
    )
    turn = (there * still.conj())[:, 0]
    moved = np.einsum("ij,jyx->iyx", np.linalg.pinv(-2 * np.pi * waves), np.angle(turn))
    angle = moved * scan.geometry.detector_pixel / waves_of.DISTANCE
    visibility = np.abs(turn).sum(0) / (np.abs(still[:, 0]) ** 2).sum(0)
    return {"alpha_y": angle[0], "alpha_x": angle[1], "transmission": (light / empty)[0], "darkfield": visibility}


def angle_error(found, truth, name):
    """Relative error of an angle where no edge is near and nothing scatters, without its constant."""
    plain = np.zeros(truth["smooth"].shape, bool)
    plain[10:-10, 10:-10] = True
    plain &= truth["smooth"] & (truth["patch"] < 1e-3)
    image, true = np.asarray(found[name], float)[plain], truth[name][plain]
    return np.linalg.norm(image - np.median(image - true) - true) / np.linalg.norm(true)


def figures(found, truth, kind):
    inside = np.zeros(truth["smooth"].shape, bool)
    inside[10:-10, 10:-10] = True
    plain = inside & truth["smooth"] & (truth["patch"] < 1e-3)
    said = []
    for name in {"lines": ("alpha_x",), "rows": ("alpha_y",), "grid": ("alpha_x", "alpha_y")}[kind]:
        image, true = np.asarray(found[name], float)[plain], truth[name][plain]
        image = image - np.median(image - true)
        said.append(f"{np.linalg.norm(image - true) / np.linalg.norm(true):.3f}, {image @ true / (true @ true):.3f}")
    light = np.sqrt(np.mean((np.asarray(found["transmission"]) - truth["transmission"])[plain] ** 2))
    dark = np.asarray(found["darkfield"])
    return (
        f"{'; '.join(said)} | {light:.4f} | {np.median(dark[truth['patch'] > 0.5]):.2f}, {np.median(dark[plain]):.3f}"
    )


if __name__ == "__main__":
    main()
