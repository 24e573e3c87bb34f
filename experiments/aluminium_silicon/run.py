"""Does absorption or phase show a density difference of 2 % in aluminium-silicon at 18 keV? How many photons?

    python experiments/aluminium_silicon/run.py [--output FOLDER]

Prints the tables of README.md and writes aluminium_silicon.png.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import diffrecon as dr
from diffrecon import physics, plot, regimes

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
import weak_objects  # noqa: E402

ENERGY, PIXEL, FRAME, PLATE = 18e3, 1e-6, 256, 1e-3  # [eV], [m], [pixel], thickness of the plate [m]
SOLID = ("Al", 2.70)  # [g/cm^3]
EUTECTIC = ("Al87.84Si12.16", 2.646)  # 12.6 % of silicon by weight, 2 % less dense
SIZES = (4e-6, 8e-6, 16e-6)  # full width at half maximum of a detail, and its thickness [m]
CONTACT, FAR = 1e-5, 0.9  # distances of the absorption and of the phase image [m]
NEAR = 1e-3  # what contact means at a beamline [m]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    k = 2 * np.pi / physics.energy_to_wavelength(ENERGY)
    index = [physics.delta_beta(*material, ENERGY) for material in (SOLID, EUTECTIC)]
    print("| | delta | beta | mu [1/cm] | electrons per cubic angstrom |\n|---|---|---|---|---|")
    for material, (delta, beta) in zip((SOLID, EUTECTIC), index, strict=True):
        electrons = physics.electrons_per_cubic_angstrom(delta, 2 * np.pi / k)
        print(
            f"| {material[0]}, {material[1]} g/cm^3 | {delta:.4g} | {beta:.4g} | {2 * k * beta / 100:.3f} | "
            f"{electrons:.4f} |"
        )
    change = [b - a for a, b in zip(*index, strict=True)]
    print(
        f"| difference | {change[0] / index[0][0]:+.2%} | {change[1] / index[0][1]:+.2%} | "
        f"{2 * k * change[1] / 100:+.3f} | |"
    )
    shown = np.exp(-2 * k * index[0][1] * PLATE)
    print(
        f"\ntransmission of the plate {shown:.3f}; difference of delta over difference of beta "
        f"{change[0] / change[1]:.0f}\n\n| detail [µm] | phase [rad] | attenuation | photons a pixel, absorption "
        "| phase | ratio | measured signal over noise: absorption | phase |\n|---|---|---|---|---|---|---|---|"
    )
    for size in SIZES:
        row(size, change, k)
    near = [
        signal_to_noise(s, NEAR, needed_in_absorption(s, change, k), -k * change[0] * s, k * change[1] * s)
        for s in SIZES
    ]
    print("\nthe same photons as in absorption, but at 1 mm: " + ", ".join(f"{n:.2f}" for n in near))
    draw(change, k, options.output / "aluminium_silicon.png")


def setup(distance: float, counts: float = 1.0) -> regimes.Setup:
    return regimes.Setup.of(dr.ParallelBeam(PIXEL, ENERGY, distance), counts=counts)


def needed_in_absorption(size: float, change: list[float], k: float) -> float:
    return (threshold(size, CONTACT, None) / (k * change[1] * size)) ** 2


def row(size: float, change: list[float], k: float) -> None:
    """Photons behind the plate for five standard deviations at both distances, and whether a measurement agrees."""
    phase, attenuation = -k * change[0] * size, k * change[1] * size
    needed = {}
    for name, distance in (("absorption", CONTACT), ("phase", FAR)):
        # One count a pixel sees a detail of height h from h0 on; h scales as one over the root of the counts.
        ratio = phase / attenuation if name == "phase" else None
        needed[name] = (threshold(size, distance, ratio) / (attenuation if ratio is None else abs(phase))) ** 2
    measured = [
        signal_to_noise(size, distance, needed[name], phase, attenuation)
        for name, distance in (("absorption", CONTACT), ("phase", FAR))
    ]
    more = needed["absorption"] / needed["phase"]
    print(
        f"| {size * 1e6:g} | {phase:+.2e} | {attenuation:+.2e} | {needed['absorption']:.3g} | "
        f"{needed['phase']:.3g} | {more:.0f} | {measured[0]:.2f} | {measured[1]:.2f} |",
        flush=True,
    )


def threshold(size: float, distance: float, phase_over_attenuation: float | None) -> float:
    """Smallest phase (or, of absorption in contact, attenuation) for five standard deviations at one count a pixel."""
    at = setup(distance)
    if phase_over_attenuation is not None:
        return regimes.smallest_phase(size, at, delta_beta=-phase_over_attenuation)
    # Contact: contrast 2 attenuation, so that a Gaussian has the signal-to-noise ratio 2 B sqrt(n pi) s.
    deviation = size / 2.3548200450309493
    return 5 / (2 * np.sqrt(np.pi) * deviation / PIXEL)


def signal_to_noise(size: float, distance: float, counts: float, phase: float, attenuation: float) -> float:
    """Height over its scatter in 1000 simulated images of a Gaussian detail, by the matched filter."""
    frame, fine = 96, weak_objects.FINE
    axis = (np.arange(2 * frame * fine) - (2 * frame * fine - 1) / 2) * PIXEL / fine
    deviation = size / 2.3548200450309493
    shape = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * deviation**2))
    at = setup(distance)
    mean = weak_objects.holograms(
        phase * shape, attenuation * shape, PIXEL, at.wavelength, at.distances, at.pixels, frame
    )[0]
    template = (mean - 1) / np.sqrt(np.sum((mean - 1) ** 2))
    random = np.random.default_rng(0)
    # Counts are large where details are faint: normal noise of the same variance.
    found = [np.sum(template * (random.normal(mean, np.sqrt(mean / counts)) - 1)) for _ in range(1000)]
    return float(np.mean(found) / np.std(found))


def draw(change: list[float], k: float, path: Path) -> None:
    """Grains of eutectic in a millimetre of aluminium: radiograph in contact, hologram, retrieved phase."""
    random = np.random.default_rng(1)
    counts = 4e4
    size = 2 * FRAME * weak_objects.FINE
    axis = (np.arange(size) - (size - 1) / 2) * PIXEL / weak_objects.FINE
    thickness = np.zeros((size, size))
    for _ in range(25):
        y, x = random.uniform(-90e-6, 90e-6, 2)
        radius = random.uniform(4e-6, 16e-6)
        thickness += 2 * np.sqrt(np.clip(radius**2 - (axis[:, None] - y) ** 2 - (axis - x) ** 2, 0, None))
    phase, attenuation = -k * change[0] * thickness, k * change[1] * thickness
    images = {}
    for name, distances in (("contact", (NEAR,)), ("phase", (0.1, 0.4, FAR))):
        at = regimes.Setup.of(dr.ParallelBeam(PIXEL, ENERGY, np.array(distances)))
        mean = weak_objects.holograms(phase, attenuation, PIXEL, at.wavelength, at.distances, at.pixels, FRAME)
        images[name] = [random.poisson(counts / len(distances) * m) / (counts / len(distances)) for m in mean], at
    contrasts, at = [i - 1 for i in images["phase"][0]], images["phase"][1]
    truth = weak_objects.binned(phase, FRAME)
    found = weak_objects.wiener(
        contrasts,
        np.full(3, counts / 3),
        at,
        PIXEL,
        weak_objects.power_law(0.02, PIXEL, FRAME),
        ratio=-change[1] / change[0],
    )
    found = found - np.median(found)
    print(
        f"\npicture: {counts:g} photons a pixel behind the plate; relative error of the phase "
        f"{np.linalg.norm(found - truth) / np.linalg.norm(truth):.3f}"
    )
    density = -found / k / change[0]  # thickness of eutectic along the beam
    panel = lambda image, title, label, units="", limits=None: plot.image_panel(
        image, PIXEL, units, title, limits, label=label
    )
    page = plot.page_of(
        plot.in_rows(
            [
                panel(images["contact"][0][0], "at 1 mm, 40000 photons", "intensity / plate alone"),
                panel(images["phase"][0][2], f"at {FAR} m, 13333 photons", "intensity / plate alone"),
                panel(density, "eutectic, from three distances", "thickness", "m", (0.0, 40e-6)),
                panel(weak_objects.binned(thickness, FRAME), "truth", "thickness", "m", (0.0, 40e-6)),
            ]
        )
    )
    page.savefig(path)


if __name__ == "__main__":
    main()
