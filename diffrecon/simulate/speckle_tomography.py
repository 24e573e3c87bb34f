"""A simulated speckle scan at many angles: a perspex rod with a channel, a ball of aluminium and a ball of fine powder.

Independent of the models it is to test: exact line integrals of ellipsoids and a cylinder, scalar waves in float64 on a
grid four times finer than the detector's pixels, propagated from membrane to sample and on to the detector. The powder
is a random phase, another one at each angle, whose variance is what the rays meet of it.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..geometry import ParallelBeam
from ..scan import Scan
from ._truth import read_truth, write_with_truth
from .differential_phase import BLUR, COUNTS, DRIFT, ENERGY, MEMBRANE, PIXEL, Waves, membrane_places, powder_of, rough

__all__ = ["METHOD", "judge", "write"]

METHOD = "speckle"
FRAME, FINE, MARGIN, ANGLES, POSITIONS = 64, 4, 16, 60, 3  # pixels, samples a pixel, pixels around
DISTANCE = 0.25  # [m], so short that rims do not throw rays across one another
CENTRE = 0.6  # [pixel], of the axis beside the middle of the detector
PERSPEX, ALUMINIUM = (6.61e-7, 67.0), (1.350e-6, 929.0)  # delta and attenuation coefficient [1/m] at 20 keV
POWDER = 0.04  # variance of the phase a pixel of length [rad^2]


class Body(NamedTuple):
    """An ellipsoid, or a cylinder along z where `semi[2]` is infinite; lengths over the width of the frame.

    **Fields:** `semi` axes (x, y, z), turned by `turn` [rad] about z; `centre` (x, y, z); what it adds of delta,
    attenuation [1/m] and variance of the powder a pixel.
    """

    semi: tuple[float, float, float]
    turn: float
    centre: tuple[float, float, float]
    adds: tuple[float, float, float]


def write(path: str | Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write frames angle by angle that `open_scan` reads as they are, with the truth under `/truth`.

    **Returns:** the truth: the volumes `delta`, `attenuation` [1/m] and `powder`, variance of the phase [rad^2 / m],
    `(z, y, x)`; `core`, the number of the body whose inside a voxel is in, two pixels from every edge, 0 for none.
    """
    random = np.random.default_rng(seed)
    waves = Waves(FRAME, PIXEL, FINE, MARGIN)
    bodies = _bodies(random)
    beam = waves.propagate(np.exp(0.4j * rough(waves, random, 1.6 * PIXEL)), MEMBRANE)
    places = membrane_places(POSITIONS)
    seen = lambda wave: waves.camera(np.abs(waves.propagate(wave, DISTANCE)) ** 2, BLUR)
    reference = [seen(waves.moved(beam, place)) for place in places]
    angles = np.arange(ANGLES) * np.pi / ANGLES
    frames = []
    for angle in angles:
        behind = _behind(waves, bodies, angle, random)
        for place in places:
            moved = waves.moved(beam, place + DRIFT * PIXEL * random.standard_normal(2))
            frames.append(seen(moved * behind))
    noisy = [random.poisson(COUNTS * np.array(stack)).astype(np.uint16) for stack in (frames, reference)]
    scan = Scan.from_arrays(
        noisy[0], method="speckle", geometry=ParallelBeam(PIXEL, ENERGY, DISTANCE),
        angles=np.repeat(angles, POSITIONS), extra={"reference": noisy[1], "detector_blur": BLUR},
    )  # fmt: skip
    truth = _truth(bodies)
    write_with_truth(path, scan, truth)
    return truth


def judge(path: str | Path, result: Any) -> list[str]:
    """Compare delta and attenuation with the truth inside of the bodies, and the scattering of powder with perspex."""
    names = ["delta", "attenuation", "powder", "core"]
    truth = dict(zip(names, read_truth(path, *names), strict=True))
    lines, core = [], truth["core"]
    for number, name in ((1, "perspex"), (3, "aluminium")):
        inside = core == number
        found = {k: float(np.mean(np.asarray(result[k])[inside])) for k in names[:2]}
        true = {k: float(truth[k][inside].mean()) for k in found}
        lines.append(
            f"{name}: delta {found['delta']:.3e}, {found['delta'] / true['delta']:.3f} of the truth; attenuation "
            f"{found['attenuation']:.0f} / m, {found['attenuation'] / true['attenuation']:.2f} of the truth"
        )
    scattering = np.asarray(result["scattering"])
    powder, rest = (scattering[core == number].mean() for number in (4, 1))
    error = np.linalg.norm(np.asarray(result["delta"]) - truth["delta"]) / np.linalg.norm(truth["delta"])
    return [
        *lines,
        f"scattering: powder {powder:.2e} rad^2/m, perspex around it {rest:.2e}",
        f"delta, all voxels and edges: relative error {error:.3f}",
    ]


# ---------------------------------------------------------------------------------------------------- sample
def _bodies(random: np.random.Generator) -> list[Body]:
    """The rod, its channel, a ball of metal and one of powder."""
    off = lambda: float(random.uniform(-0.01, 0.01))
    near = lambda x, y, z: (x + off(), y + off(), z + off())
    rod, air = (*PERSPEX, 0.0), (-PERSPEX[0], -PERSPEX[1], 0.0)
    metal = (ALUMINIUM[0] - PERSPEX[0], ALUMINIUM[1] - PERSPEX[1], 0.0)
    upright = float("inf")
    return [
        Body((0.37, 0.33, upright), random.uniform(0, np.pi), near(0.0, 0.0, 0.0), rod),
        Body((0.09, 0.07, upright), random.uniform(0, np.pi), near(-0.18, 0.1, 0.0), air),
        Body((0.09, 0.09, 0.3), 0.3, near(0.15, 0.13, 0.0), metal),
        Body((0.12, 0.12, 0.25), 0.0, near(0.05, -0.15, 0.1), (0.0, 0.0, POWDER)),
    ]


def _behind(waves: Waves, bodies: list[Body], angle: float, random: np.random.Generator) -> np.ndarray:
    """The wave behind the sample at one angle."""
    row, column = waves.place[:, None] / PIXEL, waves.place[None] / PIXEL - CENTRE
    total = np.zeros((3, waves.size, waves.size))
    for body in bodies:
        length = chord(body, angle, row / FRAME, column / FRAME) * FRAME
        total += np.array(body.adds)[:, None, None] * length
    phase = -2 * np.pi / waves.wavelength * total[0] * PIXEL
    absorption = total[1] * PIXEL / 2
    soft = [waves.blurred(a, 0.3) for a in (phase, absorption)]
    return np.exp(1j * (soft[0] + powder_of(waves, random, np.clip(total[2], 0, None))) - soft[1])


def chord(body: Body, angle: float, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Length of the rays `x cos(angle) + y sin(angle) = column` in a body, in its units."""
    (a, b, c), (x, y, z) = body.semi, body.centre
    turn = angle - body.turn
    reach = (a * np.cos(turn)) ** 2 + (b * np.sin(turn)) ** 2
    left = 1 - ((row - z) / c) ** 2 - (column - x * np.cos(angle) - y * np.sin(angle)) ** 2 / reach
    return 2 * a * b / np.sqrt(reach) * np.sqrt(np.clip(left, 0, None))


def _truth(bodies: list[Body]) -> dict[str, np.ndarray]:
    """Volumes, each voxel the mean of eight samples, and where bodies are well inside of their edges."""
    place = ((np.arange(2 * FRAME) + 0.5) / 2 - FRAME / 2) / FRAME
    total, core = np.zeros((3, FRAME, FRAME, FRAME)), np.zeros((FRAME,) * 3, int)
    whole = lambda a: np.asarray(a, float).reshape(FRAME, 2, FRAME, 2, FRAME, 2).mean((1, 3, 5))
    for number, body in enumerate(bodies, 1):
        x, y = (q - c for q, c in zip((place[None, None], place[None, :, None]), body.centre[:2], strict=True))
        along, across = x * np.cos(body.turn) + y * np.sin(body.turn), y * np.cos(body.turn) - x * np.sin(body.turn)
        z = place[:, None, None] - body.centre[2]
        size = lambda grow, b=body, q=(along, across, z): sum((q[i] / (b.semi[i] + grow)) ** 2 for i in range(3))
        total += np.array(body.adds)[:, None, None, None] * whole(size(0.0) < 1)
        core[whole(size(2.5 / FRAME) < 1) > 0] = 0
        core[whole(size(-2.5 / FRAME) < 1) == 1] = number
    return {"delta": total[0], "attenuation": total[1], "powder": total[2] / PIXEL, "core": core}
