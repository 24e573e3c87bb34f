"""Near-field frames of a Siemens star and spheres, for several experiments: plain NumPy, independent of the models.

Twice the detector's sampling and twice its field, detector pixels integrated, Poisson noise.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import optax

import diffrecon as dr
from diffrecon.physics import energy_to_wavelength
from diffrecon.simulate.ptychography import transmission

WAVELENGTH = float(energy_to_wavelength(17000.0))  # [m]
PIXEL = 100e-9  # [m]
DISTANCE = 4e-3  # effective [m]
FINE = 2  # samples a pixel
SCALE = 2.0  # the object of the demo, half as large,
SOFT = 0.7  # and with soft edges: standard deviation [pixel]


@dataclass
class Scan:
    """Counts without noise `(view, y, x)` at one count a pixel in the middle of the beam, corners of the patches
    [pixel] and the coordinate of object pixel zero [pixel], in a square object of `size` pixels."""

    frames: np.ndarray
    positions: np.ndarray
    probe: np.ndarray
    size: int
    seed: int
    contrast: float

    def counts(self, photons: float, seed: int) -> np.ndarray:
        """Poisson counts with so many photons a pixel in the middle of the beam."""
        return np.random.default_rng(seed).poisson(photons * self.frames).astype(np.float32)

    def truth(self) -> np.ndarray:
        """The object's transmission, phase and exponent averaged over each pixel."""
        return truth(self.size, self.seed, self.contrast)


def truth(size: int, seed: int, contrast: float = 1.0) -> np.ndarray:
    """The transmission of a field of so many pixels."""
    u = np.arange(size) - (size - 1) / 2
    return np.exp(contrast * averaged(u, u, 1.0, seed, 4))


def averaged(y: np.ndarray, x: np.ndarray, width: float, seed: int, count: int = 2) -> np.ndarray:
    """Mean of `i phase - exponent` over cells of a width [pixel], by count x count samples, its edges softened."""
    offsets = ((np.arange(count) + 0.5) / count - 0.5) * width
    parts = [transmission(SCALE * (y[:, None] + dy), SCALE * (x[None] + dx), seed) for dy in offsets for dx in offsets]
    mean = np.mean([1j * phase - exponent for phase, exponent in parts], axis=0)
    f2 = np.fft.fftfreq(len(y), y[1] - y[0])[:, None] ** 2 + np.fft.fftfreq(len(x), x[1] - x[0]) ** 2
    return np.fft.ifft2(np.fft.fft2(mean) * np.exp(-2 * (np.pi * SOFT) ** 2 * f2))


def beam(frame: int, structure: float, seed: int, softness: float) -> np.ndarray:
    """An aperture of some softness [pixel], slightly curved, behind a random phase plate of `structure` [rad] rms; on
    the fine, wide grid.
    """
    u = axis(frame)
    radius = np.hypot(u[:, None], u)
    f2 = np.add.outer(*[np.fft.fftfreq(u.size, 1 / FINE) ** 2] * 2)
    noise = np.random.default_rng(seed).standard_normal(radius.shape)
    plate = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-2 * (2.5 * np.pi) ** 2 * f2)).real
    aperture = 1 / (1 + np.exp((radius - 0.3 * frame) / softness))
    return aperture * np.exp(1j * (structure * plate / plate.std() + 4e-4 * radius**2))


def axis(frame: int) -> np.ndarray:
    """Coordinates of the fine grid, twice as wide as a frame [pixel]."""
    count = 2 * frame * FINE
    return (np.arange(count) - (count - 1) / 2) / FINE


def measure(
    wave: np.ndarray, places: np.ndarray, frame: int, seed: int, distance: float = DISTANCE, contrast: float = 1.0
) -> np.ndarray:
    """Frames of the object moved to some places (row, column) [pixel], without noise."""
    u, edge = axis(frame), frame // 2 * FINE
    f2 = np.fft.fftfreq(u.size, PIXEL / FINE) ** 2
    kernel = np.exp(-1j * np.pi * WAVELENGTH * distance * (f2[:, None] + f2))
    frames = []
    for row, column in places:
        seen = wave * np.exp(contrast * averaged(u + row, u + column, 1 / FINE, seed))
        fine = abs(np.fft.ifft2(np.fft.fft2(seen) * kernel)) ** 2
        frames.append(fine[edge:-edge, edge:-edge].reshape(frame, FINE, frame, FINE).mean((1, 3)))
    return np.array(frames)


def scan(
    seed: int,
    views: int,
    *,
    frame: int = 64,
    width: float = 24.0,
    structure: float = 1.5,
    contrast: float = 1.0,
    softness: float = 1.2,
) -> Scan:
    """`views` x `views` places, jittered, over a square of `width` pixels about the middle of the object."""
    rng = np.random.default_rng(100 + seed)
    line = (np.arange(views) - (views - 1) / 2) * width / max(views - 1, 1)
    places = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    places = places + 0.2 * width / max(views - 1, 1) * rng.uniform(-1, 1, places.shape)
    size = frame + 2 * int(np.ceil(width / 2 + 3))
    wave = beam(frame, structure, seed, softness)
    edge = frame // 2 * FINE
    probe = wave[edge:-edge, edge:-edge].reshape(frame, FINE, frame, FINE).mean((1, 3))
    frames = measure(wave, places, frame, seed, contrast=contrast)
    return Scan(frames, places + (size - frame) / 2, probe, size, seed, contrast)


def first_guess(positions: np.ndarray, counts: np.ndarray, size: int) -> dr.models.Ptychography:
    """Flat object; the probe is the root of the mean frame, propagated back."""
    frame = counts.shape[-1]
    model = dr.models.Ptychography(
        jnp.ones((size, size), jnp.complex64),
        jnp.zeros((1, frame, frame), jnp.complex64),
        jnp.asarray(positions, jnp.float32),
        jnp.zeros((1, 1)),
        jnp.ones(len(positions)),
        DISTANCE,
        WAVELENGTH,
        PIXEL,
    )
    root = np.sqrt(counts.mean(0))
    probe = np.fft.ifft2(np.fft.fft2(root) * np.conj(np.asarray(model.transfer(DISTANCE))))
    return model.replace(probe=jnp.asarray(probe[None], jnp.complex64))


def cost(model: dr.Model, batch: dr.Batch):
    """Poisson, nothing else: what Fisher information is about."""
    return dr.losses.poisson(model(batch.views), batch.counts)


def residual(model: dr.Model, batch: dr.Batch):
    """The same for second-order steps: roots of counts (Anscombe's) have the variance 1/4."""
    return 2 * (jnp.sqrt(model(batch.views) + 0.375) - jnp.sqrt(batch.counts + 0.375))


def solve(scan: Scan, counts: np.ndarray, steps: int, second: int, tolerance: float = 0.0) -> dr.models.Ptychography:
    """Object and probe from the mean frame: Adam, then second-order steps for their weakly determined mixtures."""
    model = first_guess(scan.positions, counts, scan.size)
    rule = optax.adam(optax.cosine_decay_schedule(0.04, steps, 0.02))
    model = dr.minimise(
        cost,
        model,
        {"counts": counts},
        rule,
        steps=steps,
        batch_size=min(9, len(counts)),
        unknowns={"object": 1.0, "probe": 0.7 * float(jnp.max(jnp.abs(model.probe)))},
    ).value
    return dr.solvers.levenberg_marquardt(
        residual,
        model,
        {"counts": counts},
        steps=second,
        cg_steps=20,
        damping=1e-3,
        tolerance=tolerance,
        unknowns=("object", "probe"),
        block_size=36,
    ).value


def middle(size: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a square of some width in the middle of a field."""
    edge = (size - width) // 2
    return slice(edge, edge + width), slice(edge, edge + width)


def compare(
    found: np.ndarray, truth: np.ndarray, part: tuple[slice, slice]
) -> tuple[float, dr.quality.RingCorrelation]:
    """Error of the phase [rad rms] and ring correlation against the truth in a part of the field.

    What the data cannot tell is removed first: constant and ramp of the phase and a shift.
    """
    truth = truth[part]
    aligned = dr.quality.align(truth, found[part])[0]
    correlation = dr.quality.ring_correlation(truth, aligned, realign=False, pixel_size=PIXEL)
    error = np.angle(aligned / truth)[3:-3, 3:-3]
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in error.shape), indexing="ij")
    free = np.stack([np.ones(error.size), rows.ravel(), columns.ravel()], 1)
    error = error.ravel() - free @ np.linalg.lstsq(free, error.ravel(), rcond=None)[0]
    return float(np.sqrt(np.mean(error**2))), correlation
