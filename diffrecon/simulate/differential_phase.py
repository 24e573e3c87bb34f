"""A simulated speckle scan: a membrane's pattern behind a lens, a ball, an absorber and a patch of fine powder.

Independent of the model it is to test: scalar waves in float64 on a grid four times finer than the detector's pixels,
propagated from membrane to sample and on to the detector. The powder is a random phase on the fine grid, which
scatters because it is propagated; nothing is displaced or blurred by hand.
"""

from pathlib import Path
from typing import Any

import numpy as np

from .. import physics
from ..geometry import ParallelBeam
from ..scan import Scan
from ._truth import read_truth, write_with_truth

__all__ = ["judge", "write"]

ENERGY, PIXEL, MEMBRANE, DISTANCE = 20e3, 3e-6, 0.3, 0.7  # [eV], [m], membrane to sample, sample to detector [m]
FRAME, FINE, MARGIN, VIEWS = 128, 4, 12, 6  # pixels, samples a pixel, pixels around, membrane positions
COUNTS, BLUR = 4000.0, 0.9  # in the empty beam; point spread of detector and source [pixel]
DRIFT = 0.1  # [pixel], of the membrane between the two scans
POWDER, VARIANCE = 1.2e-6, 0.6  # correlation length [m] and variance [rad^2] of the random phase


def write(path: str | Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write reference and sample frames that `open_scan` reads as they are, with the truth under `/truth`.

    **Returns:** the truth: `phase` [rad], `alpha_x`, `alpha_y` [rad], `transmission` as a camera without membrane sees
    it, `darkfield`, and `smooth` (no edge within three pixels), `(y, x)`.
    """
    random = np.random.default_rng(seed)
    waves = Waves(FRAME, PIXEL, FINE, MARGIN)
    phase, absorption, patch, edges = sample_of(waves, random)
    powder = powder_of(waves, random, patch)
    behind = np.exp(1j * (phase + powder) - absorption)
    membrane = 0.4 * rough(waves, random, 1.6 * PIXEL)
    beam = waves.propagate(np.exp(1j * membrane), MEMBRANE)
    places = membrane_places(VIEWS)
    drift = DRIFT * PIXEL * random.standard_normal((VIEWS, 2))
    frames = {"reference": [], "sample": []}
    for place, moved in zip(places, drift, strict=True):
        frames["reference"].append(waves.detect(waves.propagate(waves.moved(beam, place), DISTANCE)))
        frames["sample"].append(waves.detect(waves.propagate(waves.moved(beam, place + moved) * behind, DISTANCE)))
    noisy = {name: random.poisson(COUNTS * np.array(stack)).astype(np.uint16) for name, stack in frames.items()}
    scan = Scan.from_arrays(
        noisy["sample"],
        method="speckle",
        geometry=ParallelBeam(PIXEL, ENERGY, DISTANCE),
        extra={"reference": noisy["reference"], "detector_blur": BLUR},
    )
    truth = refraction_truth(waves, phase, edges) | {
        "transmission": waves.detect(waves.propagate(np.exp(1j * phase - absorption), DISTANCE)),
        "darkfield": _visibility(np.array(frames["reference"]), waves.binned(patch)),
    }
    write_with_truth(path, scan, truth)
    return truth


def judge(path: str | Path, result: Any) -> list[str]:
    """Compare the signals with the truth in the file, away from the borders and from sharp edges.

    A constant angle, and a ramp of the phase, are undetermined and left out.
    """
    names = ("alpha_x", "alpha_y", "phase", "transmission", "darkfield", "smooth")
    truth = dict(zip(names, read_truth(path, *names), strict=True))
    inside = np.zeros(truth["smooth"].shape, bool)
    inside[8:-8, 8:-8] = True
    inside &= truth["smooth"] & np.isfinite(np.asarray(result["alpha_x"]))
    lines = []
    for name in ("alpha_x", "alpha_y"):
        if name not in result.quantities:  # fringes and masks tell one direction
            continue
        found, true = np.asarray(result[name], float)[inside], truth[name][inside]
        found = found - np.median(found - true)
        lines.append(
            f"{name} against the truth: relative error {np.linalg.norm(found - true) / np.linalg.norm(true):.3f}, "
            f"slope {found @ true / (true @ true):.3f}"
        )
    y, x = np.indices(inside.shape)[:, inside]
    planes = np.stack([np.ones(y.size), y, x], -1)
    flat = lambda a: a - planes @ np.linalg.lstsq(planes, a, rcond=None)[0]
    found, true = (flat(np.asarray(a, float)[inside]) for a in (result["phase"], truth["phase"]))
    lines.append(f"phase, ramp removed: relative error {np.linalg.norm(found - true) / np.linalg.norm(true):.3f}")
    for name in ("transmission", "darkfield"):
        error = np.asarray(result[name], float)[inside] - truth[name][inside]
        lines.append(f"{name}: rms error {np.sqrt(np.mean(error**2)):.4f}")
    return lines


# ---------------------------------------------------------------------------------------------------- waves
class Waves:
    """Scalar waves on a fine grid: so many detector pixels of so many samples each, with a margin around."""

    def __init__(self, frame: int, pixel: float, fine: int, margin: int):
        self.frame, self.pixel, self.fine, self.margin = frame, pixel, fine, margin
        self.size = (frame + 2 * margin) * fine
        self.frequency = np.fft.fftfreq(self.size, pixel / fine)
        self.place = (np.arange(self.size) - (self.size - 1) / 2) * pixel / fine
        self.wavelength = physics.HC / ENERGY

    def propagate(self, wave: np.ndarray, distance: float) -> np.ndarray:
        turn = np.exp(-1j * np.pi * self.wavelength * distance * self.frequency**2)
        return np.fft.ifft2(np.fft.fft2(wave) * turn[:, None] * turn[None])

    def moved(self, wave: np.ndarray, shift: np.ndarray) -> np.ndarray:
        turns = [np.exp(-2j * np.pi * self.frequency * s) for s in shift]
        return np.fft.ifft2(np.fft.fft2(wave) * turns[0][:, None] * turns[1][None])

    def blurred(self, image: np.ndarray, width: float) -> np.ndarray:
        """A periodic Gaussian of so many detector pixels."""
        falls = np.exp(-2 * (np.pi * width * self.pixel * self.frequency) ** 2)
        return np.fft.ifft2(np.fft.fft2(image) * falls[:, None] * falls[None]).real

    def binned(self, image: np.ndarray) -> np.ndarray:
        return self._cut(self._pixels(image))

    def camera(self, light: np.ndarray, width: float) -> np.ndarray:
        """Pixels of a light, with a point spread of so many of them: as `blurred`, on a grid that much smaller."""
        seen, frequency = self._pixels(light), np.fft.fftfreq(self.frame + 2 * self.margin)
        falls = np.exp(-2 * (np.pi * width * frequency) ** 2)
        return self._cut(np.fft.ifft2(np.fft.fft2(seen) * falls[:, None] * falls[None]).real)

    def _pixels(self, image: np.ndarray) -> np.ndarray:
        whole = self.frame + 2 * self.margin
        return image.reshape(whole, self.fine, whole, self.fine).mean((1, 3))

    def _cut(self, image: np.ndarray) -> np.ndarray:
        return image[self.margin : -self.margin, self.margin : -self.margin]

    def detect(self, wave: np.ndarray) -> np.ndarray:
        return self.binned(self.blurred(np.abs(wave) ** 2, BLUR))


def membrane_places(count: int) -> np.ndarray:
    """Place the membrane, `(position, 2)` [m]: on a spiral, no two places near each other."""
    number = np.arange(count)
    radius = PIXEL * (6 + 9 * np.sqrt(number))
    return (radius * np.stack([np.sin(2.4 * number), np.cos(2.4 * number)])).T


def sample_of(
    waves: Waves, random: np.random.Generator, strength: float = 1.0, variance: float = VARIANCE
) -> tuple[np.ndarray, ...]:
    """Phase, absorption, variance of the powder, and where edges are; lens and ball refract by `strength`."""
    y, x = waves.place[:, None], waves.place[None]
    field = waves.frame * waves.pixel
    near = lambda: random.uniform(-0.02, 0.02) * field
    distance = lambda row, column: np.hypot(y - row * field - near(), x - column * field - near())
    lens = -12.0 * np.exp(-(distance(-0.2, -0.2) ** 2) / (2 * (0.09 * field) ** 2))
    r, radius = distance(0.22, -0.2), 0.13 * field
    ball = -10.0 * np.sqrt(np.clip(1 - (r / radius) ** 2, 0, None))
    q, edge = distance(-0.22, 0.2), 0.09 * field
    film = (q < edge).astype(float)
    phase, absorption = strength * (lens + ball) - 1.2 * film, -1e-3 * (lens + ball) + 0.12 * film
    soft = lambda a: waves.blurred(a, 0.3)
    patch = variance / (1 + np.exp((distance(0.22, 0.22) - 0.13 * field) / (0.8 * waves.pixel)))
    edges = (np.abs(r - radius) < 4 * waves.pixel) | (np.abs(q - edge) < 4 * waves.pixel)
    return soft(phase), soft(absorption), patch, edges


def powder_of(waves: Waves, random: np.random.Generator, variance: np.ndarray, length: float = POWDER) -> np.ndarray:
    """The phase of fine powder [rad]."""
    return np.sqrt(variance) * rough(waves, random, length, hollow=True)


def lost_of(apart: float | np.ndarray, length: float = POWDER) -> Any:
    """Give what the powder's phases at points so far apart [m] do not share: one minus their correlation."""
    r2 = (apart / length) ** 2
    return 1 - (4 * np.exp(-r2 / 2) - np.exp(-r2 / 8)) / 3


def refraction_truth(
    waves: Waves, phase: np.ndarray, edges: np.ndarray, light: np.ndarray | float = 1.0
) -> dict[str, np.ndarray]:
    """Phase [rad] and angles [rad] in the detector's pixels, as means over the light; `smooth` far from edges."""
    light = np.broadcast_to(light, phase.shape)
    mean = lambda image: waves.binned(light * image) / waves.binned(light)
    slopes = np.gradient(phase, waves.pixel / waves.fine)
    per_wave_number = waves.wavelength / (2 * np.pi)
    return {
        "phase": mean(phase),
        "alpha_y": mean(slopes[0]) * per_wave_number,
        "alpha_x": mean(slopes[1]) * per_wave_number,
        "smooth": waves.binned(edges.astype(float)) == 0,
    }


def rough(waves: Waves, random: np.random.Generator, length: float, hollow: bool = False) -> np.ndarray:
    """A Gaussian random field of unit variance with the correlation `exp(-r^2 / (2 length^2))`; a hollow one has no
    slow waves, which would be refraction: `(4 exp(-r^2 / 2) - exp(-r^2 / 8)) / 3` with r in units of the length."""
    falls = np.exp(-2 * (np.pi * length) ** 2 * (waves.frequency[:, None] ** 2 + waves.frequency[None] ** 2))
    gain = np.sqrt(falls - falls**4) if hollow else np.sqrt(falls)
    field = np.fft.ifft2(np.fft.fft2(random.standard_normal((waves.size,) * 2)) * gain).real
    return field / field.std()


def _visibility(reference: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Expected visibility behind the powder: `exp(-variance (1 - C(wavelength distance f)))` (Yashiro 2010), averaged
    over the power of the speckles."""
    window = np.hanning(FRAME)[:, None] * np.hanning(FRAME)[None]
    power = (np.abs(np.fft.fft2((reference - reference.mean()) * window)) ** 2).sum(0)
    f = np.hypot(np.fft.fftfreq(FRAME)[:, None], np.fft.fftfreq(FRAME)[None])
    power = np.where(f < 0.03, 0, power)
    lost = lost_of(physics.HC / ENERGY * DISTANCE * f / PIXEL)
    levels = np.linspace(0, max(variance.max(), 1e-6), 40)
    return np.interp(variance, levels, [(power * np.exp(-s * lost)).sum() / power.sum() for s in levels])
