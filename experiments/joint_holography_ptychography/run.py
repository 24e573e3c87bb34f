"""Holograms and a near-field ptychography scan of one object in one cost functional: better than each alone?

    python experiments/joint_holography_ptychography/run.py [--seed 0] [--output FOLDER]

Prints the table of README.md and writes joint.png.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import diffrecon as dr
from diffrecon import plot

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
import near_field  # noqa: E402

DISTANCES = (4e-3, 9e-3)  # of the two holograms [m]
FIELD = 96  # pixels of a hologram
VIEWS = 3  # of the scan, along each axis
WIDTH = 20.0  # of the scan [pixel]
PHOTONS = 4000.0  # on a pixel in the middle of the object, all exposures together
STEPS = 4000


# ------------------------------------------------------------------------------------ the experiment, in twenty lines
class Joint(dr.Model):
    """One object, as phase + i B, before two instruments."""

    object: jax.Array
    scan: dr.models.Ptychography  # brings probe and positions
    holography: dr.models.Ptychography  # two flat beams as wide as the object: holograms
    holograms: jax.Array

    def frames(self, views):
        return self.scan.replace(object=self.object)(views)

    def in_line(self):
        return jnp.concatenate(
            [self.holography.replace(object=self.object, distance=d)(jnp.arange(1)) for d in DISTANCES]
        )


def cost(model: Joint, batch: Any, scan: float = 1.0, holograms: float = 1.0):
    """Poisson log-likelihood of all counts, a pixel of the holograms."""
    share = batch.counts.size / model.holograms.size
    return scan * share * dr.losses.poisson(model.frames(batch.views), batch.counts) + holograms * dr.losses.poisson(
        model.in_line(), model.holograms
    )


def scan_alone(model: Joint, batch: Any):
    return cost(model, batch, holograms=0.0)


def holograms_alone(model: Joint, batch: Any):
    return cost(model, batch, scan=0.0)


COSTS = {"holograms": holograms_alone, "scan": scan_alone, "both, one cost": cost}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    start = time.process_time()
    scan = near_field.scan(options.seed, VIEWS, width=WIDTH)
    truth = near_field.truth(FIELD, options.seed)
    bright = holograms(options.seed)
    print(
        "| data | photons | phase error, scanned field [rad rms] | whole object [rad rms] | "
        "half period, scanned field [pixel] |\n|---|---|---|---|---|"
    )
    found = {name: row(name, scan, bright, truth, options.seed) for name in COSTS}
    draw(truth, found, options.output / "joint.png")
    print(f"{time.process_time() - start:.0f} CPU s")


def holograms(seed: int) -> np.ndarray:
    """Two holograms of one count a pixel, without noise."""
    wave = np.ones((2 * FIELD * near_field.FINE,) * 2)
    return np.concatenate([near_field.measure(wave, np.zeros((1, 2)), FIELD, seed, d) for d in DISTANCES])


def row(name: str, scan: near_field.Scan, bright: np.ndarray, truth: np.ndarray, seed: int) -> dict:
    """Solve one cost; where two instruments share the object they share its dose too."""
    dose = PHOTONS * (0.5 if name == "both, one cost" else 1.0)
    seen = VIEWS**2  # in the middle every frame of the scan sees the object
    counts = scan.counts(dose / seen, seed + 1)
    in_line = np.random.default_rng(seed + 2).poisson(dose / len(DISTANCES) * bright).astype(np.float32)
    model = first_guess(scan, counts, in_line, dose / len(DISTANCES))
    power = float(jnp.sqrt(jnp.max(jnp.abs(model.scan.probe))))
    unknowns = {"object": 1.0} | ({} if name == "holograms" else {"scan.probe": power**2})
    rule = optax.adam(optax.cosine_decay_schedule(0.03, STEPS, 0.02))
    solved = dr.minimise(COSTS[name], model, {"counts": counts}, rule, steps=STEPS, unknowns=unknowns).value
    obj = np.exp(1j * np.asarray(solved.object))
    errors = {}
    for where, width in (("scanned", 36), ("whole", 64)):
        errors[where] = near_field.compare(obj, truth, near_field.middle(FIELD, width))
    print(
        f"| {name} | {PHOTONS:g} | {errors['scanned'][0]:.4f} | {errors['whole'][0]:.4f} | "
        f"{errors['scanned'][1].half_period:.2f} |",
        flush=True,
    )
    return {"phase": np.angle(obj), "errors": errors}


def first_guess(scan: near_field.Scan, counts: np.ndarray, in_line: np.ndarray, flux: float) -> Joint:
    """Nothing before the beam; the scan's probe from its mean frame, the holograms' beam is known."""
    positions = scan.positions + (FIELD - scan.size) / 2
    model = near_field.first_guess(positions, counts, FIELD)
    empty = jnp.zeros((FIELD, FIELD), jnp.complex64)
    flat = jnp.full((1, FIELD, FIELD), flux**0.5, jnp.complex64)
    model = model.replace(object=empty, refractive=True)
    wide = model.replace(probe=flat, positions=jnp.zeros((1, 2)), gain=jnp.ones(1))
    return Joint(empty, model, wide, jnp.asarray(in_line))


def draw(truth: np.ndarray, found: dict, path: Path) -> None:
    """Truth and phases, their errors, and ring correlations with the truth."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(7.2, 5.4), dpi=150)
    axes = page.subplots(
        2, 3, gridspec_kw={"left": 0.02, "right": 0.92, "top": 0.96, "bottom": 0.33, "wspace": 0.45, "hspace": 0.42}
    )
    curve = page.add_axes((0.09, 0.09, 0.83, 0.19))
    edge = (FIELD - 64) // 2
    part = (slice(edge, edge + 64),) * 2
    colours = ("#d55e00", "#009e73", "#0072b2")
    for column, (name, case) in enumerate(found.items()):
        error = np.angle(np.exp(1j * (case["phase"] - np.angle(truth))))[part]
        error = error - np.median(error)
        plot.image(
            case["phase"][part],
            pixel_size=near_field.PIXEL,
            units="rad",
            limits=(-1.1, 0.4),
            title=name,
            ax=axes[0, column],
        )
        plot.image(
            error,
            pixel_size=near_field.PIXEL,
            units="rad",
            limits=(-0.3, 0.3),
            title="less the truth",
            ax=axes[1, column],
        )
        correlation = case["errors"]["scanned"][1]
        curve.plot(correlation.frequency, correlation.correlation, color=colours[column], linewidth=1.2, label=name)
    curve.plot(correlation.frequency, correlation.half_bit, color="0.6", linewidth=0.8, linestyle=":", label="half-bit")
    curve.set_xlabel("frequency [1/pixel]", fontsize=8)
    curve.set_ylabel("correlation with truth", fontsize=8)
    curve.tick_params(labelsize=8)
    curve.spines[["top", "right"]].set_visible(False)
    curve.set_ylim(-0.55, 1.05)
    curve.legend(fontsize=7, frameon=False, ncols=4, loc="lower left")
    page.savefig(path)


if __name__ == "__main__":
    main()
