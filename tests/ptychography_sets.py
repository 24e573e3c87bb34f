"""Ptychographic sets in which one thing is not as a plain model has it, with known truth, in plain float64 NumPy.

Independent of `diffrecon.operators`: the whole object moves by band-limited shifts, paths and wandering beams are
summed over many places, a detector's point spread is a convolution on a four times finer grid.
"""

import dataclasses

import numpy as np

FRAME, VIEWS, STEP, MARGIN = 32, 5, 4.0, 6.0
PIXEL, WAVELENGTH, DISTANCE = 100e-9, 1e-10, 10e-3  # sample pixel, wavelength and effective distance [m]
SIZE = 2 * FRAME  # of the object
COUNTS = 2000.0  # mean counts a pixel


@dataclasses.dataclass
class Optics:
    """What a set is made of; the values here are those of a plain near-field scan."""

    near: bool = True
    distance: float = DISTANCE
    astigmatism: float = 0.0
    tilt: tuple[float, float] = (0.0, 0.0)
    scan_matrix: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(2))
    drift: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((2, 2)))
    travel: tuple[float, float] = (0.0, 0.0)
    source_blur: tuple[float, float] = (0.0, 0.0)
    detector_blur: float = 0.0
    slice_spacing: float = 0.0  # two slices where it is not zero
    background: float = 0.0  # counts a pixel
    gain_spread: float = 0.0
    wobble: float = 0.0  # strength of a probe that changes along the scan, in two ways
    seed: int = 0


@dataclasses.dataclass
class Truth:
    """Counts with photon noise, and everything they were made from; positions are the patches' corners."""

    counts: np.ndarray
    expected: np.ndarray
    objects: np.ndarray  # (slice, Y, X)
    probe: np.ndarray
    nominal: np.ndarray
    places: np.ndarray
    gain: np.ndarray


def smooth(rng, size, width):
    f = np.fft.fftfreq(size)
    low = np.exp(-2 * (np.pi * width) ** 2 * (f[:, None] ** 2 + f**2))
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * low).real
    return noise / noise.std()


def raster(rng) -> np.ndarray:
    """A raster with jitter; corners (row, column) [pixel]."""
    grid = np.stack(np.meshgrid(*[np.arange(VIEWS) * STEP] * 2, indexing="ij"), -1).reshape(-1, 2)
    return MARGIN + grid + rng.uniform(-1, 1, grid.shape)


def illumination(rng, near: bool) -> np.ndarray:
    """A spot with a structured phase, dark at the frame's border."""
    u = np.arange(FRAME) - (FRAME - 1) / 2
    radius2 = u[:, None] ** 2 + u**2
    curved = 0.8 * smooth(rng, FRAME, 2.0) + (0 if near else 0.03 * radius2)
    probe = np.exp(-radius2 / (2 * 5.0**2)) * np.exp(1j * curved)
    return probe * np.sqrt(COUNTS * FRAME**2 / np.sum(abs(probe) ** 2))


def kernel(distance, astigmatism=0.0):
    """Fresnel transfer function; astigmatism is the vertical less the horizontal distance."""
    f2 = np.fft.fftfreq(FRAME, PIXEL) ** 2
    phase = (distance + astigmatism / 2) * f2[:, None] + (distance - astigmatism / 2) * f2
    return np.exp(-1j * np.pi * WAVELENGTH * phase)


def _moved(obj, place):
    f = np.fft.fftfreq(SIZE)
    ramp = np.exp(2j * np.pi * (f[:, None] * place[0] + f * place[1]))
    return np.fft.ifft2(np.fft.fft2(obj) * ramp)[:FRAME, :FRAME]


def _intensity(wave, near, blur, fine=4):
    """Intensity seen through a Gaussian point spread: convolved on a finer grid, where the wave is interpolated."""
    if not blur:
        return abs(wave) ** 2
    if not near:  # the spot stands in the middle of its window: in the far field between the highest frequencies
        wave = np.fft.fft2(np.fft.ifftshift(np.fft.ifft2(wave)))
    half = FRAME * (fine - 1) // 2
    wide = np.pad(np.fft.fftshift(np.fft.fft2(wave)), half)
    sharp = abs(np.fft.ifft2(np.fft.ifftshift(wide)) * fine**2) ** 2
    reach = int(6 * blur * fine)
    spread = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * (blur * fine) ** 2))
    spread /= spread.sum()
    for axis in (0, 1):
        wrapped = np.concatenate([sharp.take(range(-reach, 0), axis), sharp, sharp.take(range(reach), axis)], axis)
        sharp = np.apply_along_axis(np.convolve, axis, wrapped, spread, "valid")
    return sharp[::fine, ::fine]


def _exposure(optics):
    """Offsets of many sharp exposures and their weights: a path, and a beam that wanders as a Gaussian."""
    path = (np.arange(32) + 0.5) / 32 - 0.5 if any(optics.travel) else np.zeros(1)
    points = [(1 / path.size, t * np.asarray(optics.travel)) for t in path]
    if any(optics.source_blur):
        u = np.linspace(-4, 4, 15)
        bell = np.exp(-(u**2) / 2) / np.exp(-(u**2) / 2).sum()
        points = [
            (w * a * b, at + np.multiply(optics.source_blur, (y, x)))
            for w, at in points
            for y, a in zip(u, bell, strict=True)
            for x, b in zip(u, bell, strict=True)
            if a * b > 1e-6
        ]
    return points


def make(optics: Optics) -> Truth:
    """Simulate a set."""
    rng = np.random.default_rng(optics.seed)
    slices = 2 if optics.slice_spacing else 1
    objects = np.stack([np.exp((0.5j - 0.05) * smooth(rng, SIZE, 1.5)) for _ in range(slices)])
    probe, nominal = illumination(rng, optics.near), raster(rng)
    middle, time = (object_size() - FRAME) / 2, np.linspace(0, len(optics.drift) - 1, len(nominal))
    drift = np.stack([np.interp(time, np.arange(len(optics.drift)), d) for d in np.transpose(optics.drift)], 1)
    places = (nominal - middle) @ np.transpose(optics.scan_matrix) + middle + drift
    gain = 1 + optics.gain_spread * rng.standard_normal(len(nominal))
    u = np.arange(FRAME) - (FRAME - 1) / 2
    changes = optics.wobble * np.stack([probe * u[:, None] / 4, probe * 1j * u / 4])
    weights = rng.standard_normal((len(nominal), 2))
    weights -= weights.mean(0)
    expected = []
    for view, place in enumerate(places):
        beam = probe + np.tensordot(weights[view], changes, 1)
        distance = optics.distance + (place - middle) @ np.asarray(optics.tilt) * PIXEL
        frame = 0.0
        for weight, offset in _exposure(optics):
            wave = beam
            for number, obj in enumerate(objects):
                if number:
                    wave = np.fft.ifft2(np.fft.fft2(wave) * kernel(optics.slice_spacing))
                wave = wave * _moved(obj, place + offset)
            spectrum = np.fft.fft2(wave)
            wave = np.fft.ifft2(spectrum * kernel(distance, optics.astigmatism)) if optics.near else spectrum / FRAME
            frame = frame + weight * _intensity(wave, optics.near, optics.detector_blur)
        expected.append(gain[view] * frame + optics.background)
    expected = np.array(expected)
    inside = object_size()
    return Truth(
        rng.poisson(expected).astype(np.uint32), expected, objects[:, :inside, :inside], probe, nominal, places, gain
    )


def object_size() -> int:
    """Rows and columns of an object with room around the scan."""
    return int(FRAME + (VIEWS - 1) * STEP + 2 * MARGIN)
