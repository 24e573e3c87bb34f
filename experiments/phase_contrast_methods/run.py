"""One object, four holograms: what each method of phase retrieval makes of them.

    python experiments/phase_contrast_methods/run.py [--seed 0] [--output FOLDER]

Prints the table, puts it into README.md where FOLDER has one, and writes methods.png.
"""

import argparse
import re
import time
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import diffrecon as dr
from diffrecon.simulate import holography as simulate

HERE = Path(__file__).parent
STRENGTHS = (0.25, 1.0, 4.0)  # of the demo's object: thickness times this
SHOWN = 4.0  # in the figure
DETAIL = (slice(85, 149), slice(70, 134))
RATIO = simulate.RESIN[0] / simulate.RESIN[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    start = time.process_time()
    lines = [
        "| object down to [rad] | method | error of the phase | half period at the half-bit curve [nm] |",
        "|---|---|---|---|",
    ]
    print(*lines, sep="\n")
    for strength in STRENGTHS:
        counts, place, truth = measure(strength, options.seed)
        pixel, found = float(np.min(place.pixel_size)), {}
        for name, method in methods(counts, place).items():
            first = "" if found else f"{truth.min():.2f} "
            found[name] = method()
            lines.append(f"| {first}| {name} | " + " | ".join(judge(found[name], truth, pixel)) + " |")
            print(lines[-1], flush=True)
        if strength == SHOWN:
            pictures = {"truth": truth} | {name: found[name] for name in SHOWN_METHODS}
            draw(pictures, pixel, options.output / "methods.png")
    seconds = f"{time.process_time() - start:.0f} CPU seconds"
    print(seconds)
    publish(options.output / "README.md", lines, seconds)


def publish(page: Path, lines: list[str], seconds: str) -> None:
    """The table and the time on the page in place of those that it has."""
    if page.exists():
        text = page.read_text()
        text = re.sub(r"(^\|.*\n)+", lambda _: "\n".join(lines) + "\n", text, count=1, flags=re.MULTILINE)
        page.write_text(re.sub(r"\d+ CPU seconds", seconds, text))


def beam(views: int = 4) -> dr.ConeBeam:
    """The geometry of the first distances."""
    return dr.ConeBeam(
        simulate.ENERGY, simulate.FOCUS_TO_SAMPLE[:views], simulate.FOCUS_TO_DETECTOR, simulate.DETECTOR_PIXEL
    )


def measure(strength: float, seed: int) -> tuple[np.ndarray, dr.ConeBeam, np.ndarray]:
    """Counts at four distances, by a model that shares nothing with what inverts it; and the true phase."""
    random = np.random.default_rng(seed)
    place = beam()
    fine = float(place.pixel_size[0]) / simulate.OVERSAMPLING
    phase, attenuation = simulate.resin_object(random, 2048, fine, 2 * np.pi / place.wavelength)
    intensity = simulate.holograms(strength * phase, strength * attenuation, fine, place)
    return random.poisson(simulate.FLUX * intensity), place, simulate.binned(strength * phase)


# ---------------------------------------------------------------------------------------------------- methods
SHOWN_METHODS = ("Paganin, one distance", "CTF, four distances", "model-based, four distances")


def methods(counts: np.ndarray, place: dr.ConeBeam) -> dict[str, Callable[[], np.ndarray]]:
    """Every method with its defaults, told delta / beta of the resin; the last one nothing."""
    images = jnp.asarray(on_one_pixel(counts / simulate.FLUX, np.asarray(place.pixel_size)), jnp.float32)
    given = {"pixel_size": float(np.min(place.pixel_size)), "wavelength": place.wavelength}
    each, one = {"distances": place.distance}, {"distances": place.distance[:1]}
    ratio = {"delta_beta": RATIO}
    projected = lambda rule: dr.solvers.alternating_projections(images, **given, **each, **ratio, rule=rule, steps=200)
    return {
        "Paganin, one distance": lambda: np.asarray(
            dr.solvers.paganin(images[0], **given, distance=float(place.distance[0]), **ratio)
        ),
        "CTF, one distance": lambda: np.asarray(dr.solvers.ctf(images[:1], **given, **one, **ratio).phase),
        "CTF, four distances": lambda: np.asarray(dr.solvers.ctf(images, **given, **each, **ratio).phase),
        "ICT, four distances": lambda: np.asarray(dr.solvers.ict(images, **given, **each, **ratio).phase),
        "alternating projections, 200 steps": lambda: np.asarray(projected("er").phase),
        "RAAR, 200 steps": lambda: np.asarray(projected("raar").phase),
        "model-based, one distance": lambda: retrieved(counts[:1]),
        "model-based, four distances": lambda: retrieved(counts),
    }


def retrieved(counts: np.ndarray) -> np.ndarray:
    """The recipe with its defaults, from raw frames."""
    scan = dr.Scan.from_arrays(counts, method="holography", geometry=beam(len(counts)), flux=simulate.FLUX)
    return np.asarray(dr.reconstruct(scan, "holography", {}, dr.Console(quiet=True)).quantities["phase"].data)


def on_one_pixel(frames: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Frames about the optical axis on the finest pixel, by cubic convolution."""
    size, laid = frames.shape[-1], []
    for frame, ratio in zip(frames, pixels.min() / pixels, strict=True):
        place = (np.arange(size) - (size - 1) / 2) * ratio + (size - 1) / 2
        d = np.abs(place[:, None] - np.arange(size))
        rows = np.where(d < 1, 1.5 * d**3 - 2.5 * d**2 + 1, np.where(d < 2, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2, 0))
        laid.append(rows @ frame @ rows.T + (1 - rows.sum(1)[:, None] * rows.sum(1)))
    return np.stack(laid)


# ---------------------------------------------------------------------------------------------------- judge and draw
def judge(phase: np.ndarray, truth: np.ndarray, pixel: float) -> tuple[str, str]:
    inner = (slice(16, -16), slice(16, -16))
    found, true = np.asarray(phase, float)[inner], truth[inner]
    rest = found - true
    error = np.linalg.norm(rest - rest.mean()) / np.linalg.norm(true - true.mean())
    correlation = dr.quality.ring_correlation(true, found, pixel_size=pixel)
    return f"{error:.3f}", f"{correlation.resolution * 1e9:.0f}"


def draw(pictures: dict[str, np.ndarray], pixel: float, path: Path) -> None:
    """Phases at one scale of grey, and a detail of each below."""
    import matplotlib.pyplot as plt

    # The constant, which holograms hardly show, is taken from the corner, where there is no object.
    pictures = {name: image - np.median(image[:24, :24]) for name, image in pictures.items()}
    low = float(np.min(next(iter(pictures.values()))))
    figure, axes = plt.subplots(2, len(pictures), figsize=(11, 5.6), layout="constrained")
    shown = None
    for column, (name, image) in zip(axes.T, pictures.items(), strict=True):
        shown = column[0].imshow(image, cmap="gray", vmin=low, vmax=-0.1 * low)
        cut = image[DETAIL]
        column[1].imshow(cut, cmap="gray", vmin=0.95 * low, vmax=0.35 * low)
        column[0].set_title(name, fontsize=10)
        y, x = DETAIL[0].start, DETAIL[1].start
        column[0].add_patch(plt.Rectangle((x, y), cut.shape[1], cut.shape[0], fill=False, color="tab:orange"))
        for axis, length, size, colour in (
            (column[0], 2e-6, image.shape[0], "black"),
            (column[1], 0.5e-6, cut.shape[0], "white"),
        ):
            bar, margin = length / pixel, 0.06 * size
            axis.plot([margin, margin + bar], [size - margin] * 2, color=colour, lw=3, solid_capstyle="butt")
            axis.text(
                margin + bar / 2,
                size - 1.5 * margin,
                f"{length * 1e6:g} µm",
                color=colour,
                ha="center",
                va="bottom",
                fontsize=9,
            )
            axis.set_axis_off()
    figure.colorbar(shown, ax=axes[0], label="phase [rad]", shrink=0.95)
    figure.colorbar(axes[1, 0].images[0], ax=axes[1], label="phase [rad]", shrink=0.95)
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
