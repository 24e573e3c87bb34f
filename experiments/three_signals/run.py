"""Three signals of one object: transmission, refraction and dark field by speckles, gratings and edge illumination.

    python experiments/three_signals/run.py [--seed 0] [--output FOLDER]

Prints the table of README.md and writes signals.png.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

import diffrecon as dr
from diffrecon.simulate.differential_phase import ENERGY, Waves, lost_of, membrane_places, powder_of, rough

HERE = Path(__file__).parent
FIELD, LIGHT = 768e-6, 2.4e15  # [m]; photons through the sample, in all frames of a scan [1/m^2]
EDGE, BORDER = 30e-6, 64e-6  # around steps of the object and of the field, not judged [m]
POWDER = 1.2e-6  # correlation length of the grains [m]
NAMES = ("transmission", "alpha_x", "darkfield")
ROWS = {  # of the picture: words, factor, unit, limits
    "transmission": ("transmission", 1.0, "[1]", (0.75, 1.15)),
    "alpha_x": ("refraction along x", 1e6, "[µrad]", (-3.5, 3.5)),
    "darkfield": ("dark field (visibility)", 1.0, "[1]", (0.5, 1.0)),
}


class Scanned(NamedTuple):
    """A scan and what it should show: `truth` of the sample by name on its pixels [m]; `camera`, what a camera sees of
    lens, ball and film without the pattern, fringes included; `judged`, far from steps; `powder`, where it is."""

    scan: dr.Scan
    truth: dict[str, np.ndarray]
    camera: np.ndarray
    judged: np.ndarray
    powder: np.ndarray
    pixel: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    start, columns = time.process_time(), {}
    heads = (
        "seed | pixel [um] | frames | transmission | refraction | dark field | transmission of air | dark field of air"
    )
    print(f"| method | {heads} | CPU s of the recipe |\n|{'---|' * 10}")
    for name, simulate in {"speckles": speckles, "gratings": gratings, "edge illumination": masks}.items():
        made, began = simulate(np.random.default_rng(options.seed)), time.process_time()
        result = dr.reconstruct(made.scan)
        spent = time.process_time() - began
        found = {key: np.asarray(result[key], float) for key in NAMES}
        true = made.truth | {"transmission": made.camera}
        part = {key: made.judged & ~(made.powder & (key == "transmission")) for key in NAMES}
        levels = {key: float(np.nanmedian(found[key][empty(made)])) for key in NAMES}
        errors = {key: error(found[key], true[key], part[key], key, levels[key]) for key in NAMES}
        figures = " | ".join(f"{e:.3f}" for e in errors.values())
        air = f"{levels['transmission']:.3f} | {levels['darkfield']:.3f}"
        said = f"{options.seed} | {1e6 * made.pixel:g} | {made.scan.views}"
        print(f"| {name} | {said} | {figures} | {air} | {spent:.0f} |", flush=True)
        columns[name] = (found, made)
    draw(columns, options.output / "signals.png")
    print(f"{time.process_time() - start:.0f} CPU s")


def empty(made: Scanned) -> np.ndarray:
    """Pixels of air."""
    t = made.truth
    still = (t["transmission"] > 0.999) & (t["darkfield"] > 0.999) & (np.abs(t["alpha_x"]) < 2e-8)
    return made.judged & ~made.powder & still


def error(found: np.ndarray, true: np.ndarray, judged: np.ndarray, name: str, air: float) -> float:
    """Error over what the object does to the signal, rms; what is found in air is taken for air."""
    part = judged & np.isfinite(found)
    found, true = found[part], true[part]
    if name == "alpha_x":
        return float(np.linalg.norm(found - air - true) / np.linalg.norm(true))
    return float(np.linalg.norm(found / air - true) / np.linalg.norm(true - 1))


# ---------------------------------------------------------------------------------------------------- object
def sample(waves: Waves) -> tuple[np.ndarray, ...]:
    """Phase [rad], attenuation of the wave, variance of the powder's phase [rad^2], and distance to steps [m]: a lens
    and a ball, a film that absorbs, a patch of powder, on the grid of any instrument."""
    y, x = waves.place[:, None] / FIELD, waves.place[None] / FIELD
    away = lambda row, column: np.hypot(y - row, x - column)
    ball, film, patch = away(0.22, -0.21), away(-0.22, 0.2), away(0.22, 0.22)
    thick = 26.0 * np.exp(-(away(-0.2, -0.2) ** 2) / (2 * 0.09**2)) + 22.0 * np.sqrt(
        np.clip(1 - (ball / 0.13) ** 2, 0, 1)
    )
    phase, absorption = -thick - 1.2 * (film < 0.1), 3e-3 * thick + 0.12 * (film < 0.1)
    soft = lambda image: waves.blurred(image, 1e-6 / waves.pixel)
    powder = 0.6 / (1 + np.exp((patch - 0.13) * FIELD / 2.5e-6))
    return soft(phase), soft(absorption), powder, FIELD * np.minimum(np.abs(ball - 0.13), np.abs(film - 0.1))


def parts_of_field(waves: Waves, steps: np.ndarray, patch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the instrument that are far from steps and borders, and those with powder, whose grains have fringes of
    their own."""
    near = waves.binned((steps < EDGE).astype(float)) > 0
    place = waves.binned(np.broadcast_to(waves.place, steps.shape))
    inside = np.abs(place) < FIELD / 2 - BORDER
    return ~near & inside & inside.T, waves.binned(patch) > 2e-3


def behind(waves: Waves, parts: tuple[np.ndarray, ...], random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The wave behind the sample in a beam of one, with its powder and without."""
    bare = np.exp(1j * parts[0] - parts[1])
    return bare * np.exp(1j * powder_of(waves, random, parts[2], POWDER)), bare


def expected(waves: Waves, parts: tuple[np.ndarray, ...], apart: float, light: np.ndarray | float = 1.0) -> dict:
    """What leaves the sample, as means over the light of each pixel: transmission, angle along x [rad], and visibility
    (Yashiro 2010) of a pattern that compares points so far `apart` [m]."""
    phase, absorption, patch, _ = parts
    light = np.broadcast_to(light, phase.shape)
    seen = lambda image: waves.binned(light * image) / waves.binned(light)
    slope = np.gradient(phase, waves.pixel / waves.fine, axis=1) * waves.wavelength / (2 * np.pi)
    visibility = np.exp(-seen(patch) * lost_of(apart, POWDER))
    return {"transmission": seen(np.exp(-2 * absorption)), "alpha_x": seen(slope), "darkfield": visibility}


# ---------------------------------------------------------------------------------------------------- instruments
def speckles(random: np.random.Generator) -> Scanned:
    """Six places of a membrane 0.3 m before the sample, a detector of 3 um pixels 0.7 m behind it."""
    pixel, distance, blur, views = 3e-6, 0.7, 0.9, 6
    waves = Waves(round(FIELD / pixel), pixel, 4, 12)
    parts = sample(waves)
    after, bare = behind(waves, parts, random)
    beam = waves.propagate(np.exp(0.4j * rough(waves, random, 1.6 * pixel)), 0.3)
    seen = lambda wave: waves.camera(np.abs(waves.propagate(wave, distance)) ** 2, blur)
    places = membrane_places(views)
    drift = 0.1 * pixel * random.standard_normal((views, 2))
    frames = [seen(waves.moved(beam, p + d) * after) for p, d in zip(places, drift, strict=True)]
    reference = [seen(waves.moved(beam, p)) for p in places]
    scan = counted("speckle", [frames, reference], pixel, distance, random, {"detector_blur": blur})
    grain = 9e-6  # of the speckles, whose visibility is compared [m]
    truth = expected(waves, parts, waves.wavelength * distance / grain)
    return Scanned(scan, truth, seen(bare), *parts_of_field(waves, parts[3], parts[2]), pixel)


def gratings(random: np.random.Generator) -> Scanned:
    """Bars that shift the phase by nearly pi, and an absorbing grating where they are seen, six steps of a period."""
    pixel, bars, blur, count = 4.8e-6, 4.8e-6, 0.6, 6
    waves = Waves(round(FIELD / pixel), pixel, 16, 8)
    distance = 7 * bars**2 / (8 * waves.wavelength)
    parts = sample(waves)
    after, bare = behind(waves, parts, random)
    profile = lambda place: 1 / (1 + np.exp(-6 * np.sin(2 * np.pi * place)))
    turn = np.exp(0.95j * np.pi * profile(waves.place / bars))[None]
    y, x = waves.place[:, None], waves.place[None]
    moire = (x + 1e-3 * y) / (bars / 2 * 1.002)  # a little turned and too wide
    steps = np.arange(count) / count
    stacks = []
    for wave, drift in ((after, 0.03), (np.ones_like(after), 0.0)):
        light = waves.blurred(np.abs(waves.propagate(wave * turn, distance)) ** 2, 0.4e-6 / pixel)
        at = steps + drift + 0.02 * random.standard_normal(count)
        stacks.append([waves.camera(light * (0.1 + 0.9 * profile(moire - s)), blur) for s in at])
    extra = {"period": bars / 2, "detector_blur": blur, "steps": steps, "reference_steps": steps}
    scan = counted("grating", stacks, pixel, distance, random, extra)
    camera = waves.camera(np.abs(waves.propagate(bare, distance)) ** 2, blur)
    truth = expected(waves, parts, waves.wavelength * distance / (bars / 2))
    return Scanned(scan, truth, camera, *parts_of_field(waves, parts[3], parts[2]), pixel)


def masks(random: np.random.Generator) -> Scanned:
    """A mask of one slit a pixel before the sample, another before the detector 0.6 m behind it, which is moved."""
    pixel, distance = 16e-6, 0.6
    waves = Waves(round(FIELD / pixel), pixel, 32, 4)
    parts = sample(waves)
    after, bare = behind(waves, parts, random)
    cell = lambda x: (x / pixel % 1 - 0.5) * pixel  # pixels are even in number: zero is between two
    slits = lambda x, wide: (np.tanh((cell(x) + wide / 2) / 0.6e-6) - np.tanh((cell(x) - wide / 2) / 0.6e-6)) / 2
    passed = 0.02 + 0.98 * slits(waves.place, 5.4e-6)[None]
    places = {"steps": np.linspace(-6e-6, 6e-6, 5), "reference_steps": np.linspace(-8e-6, 8e-6, 15)}
    seen = lambda wave: waves.blurred(np.abs(waves.propagate(wave * np.sqrt(passed), distance)) ** 2, 1.7e-6 / pixel)
    camera = waves.camera(seen(bare), 0.25) / waves.camera(seen(np.ones_like(bare)), 0.25)
    stacks = []
    for wave, (name, planned) in zip((after, np.ones_like(after)), places.items(), strict=True):
        light = seen(wave) / passed.mean()
        at = planned + 1e-7 * random.standard_normal(len(planned)) + (2e-7 if name == "steps" else 0)
        stacks.append([waves.camera(light * (0.01 + 0.99 * slits(waves.place - p, 8e-6)), 0.25) for p in at])
    scan = counted("edge-illumination", stacks, pixel, distance, random, {**places, "period": pixel})
    truth = expected(waves, parts, waves.wavelength * distance / pixel, passed)
    return Scanned(scan, truth, camera, *parts_of_field(waves, parts[3], parts[2]), pixel)


def counted(
    method: str,
    stacks: list[list[np.ndarray]],
    pixel: float,
    distance: float,
    random: np.random.Generator,
    extra: Mapping,
) -> dr.Scan:
    """Photons of both scans, with sample and without, doses that err by 0.4 %."""
    dose = LIGHT * pixel**2 / len(stacks[0])
    draw = lambda stack: np.array([random.poisson(dose * (1 + 0.004 * random.standard_normal()) * f) for f in stack])
    frames, reference = (draw(stack).astype(np.uint32) for stack in stacks)
    return dr.Scan.from_arrays(
        frames, method=method, geometry=dr.ParallelBeam(pixel, ENERGY, distance),
        extra={"reference": reference, **extra},
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- picture
def draw(columns: dict, path: Path) -> None:
    """Rows of signals, columns of methods after the truth; colours are those of the row."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(7.2, 5.1), dpi=115)
    room = {"left": 0.035, "right": 0.9, "top": 0.955, "bottom": 0.015, "wspace": 0.04, "hspace": 0.04}
    axes, truth = page.subplots(3, 4, gridspec_kw=room), columns["gratings"][1].truth
    for number, (line, (name, (said, factor, unit, limits))) in enumerate(zip(axes, ROWS.items(), strict=True)):
        images = {"truth": truth[name], **{method: found[name] for method, (found, _) in columns.items()}}
        for ax, (method, values) in zip(line, images.items(), strict=True):
            zero = np.nanmedian(values) if name == "alpha_x" else 0.0
            ax.imshow(factor * (values - zero), cmap="gray", vmin=limits[0], vmax=limits[1])
            ax.set(xticks=[], yticks=[])
            if number == 0:
                ax.set_title(method, fontsize=9)
        line[0].set_ylabel(said, fontsize=9)
        box = line[-1].get_position()
        bar = page.colorbar(
            line[-1].images[0], cax=page.add_axes((box.x1 + 0.01, box.y0, 0.014, box.height)), extend="both"
        )
        bar.set_label(unit, fontsize=8)
        bar.ax.tick_params(labelsize=8)
    first, length = axes[0, 0], 200e-6 / FIELD
    first.plot([0.05, 0.05 + length], [0.05] * 2, color="black", linewidth=2, transform=first.transAxes)
    first.text(0.08 + length, 0.05, "200 µm", fontsize=8, va="center", transform=first.transAxes)
    page.savefig(path)


if __name__ == "__main__":
    main()
