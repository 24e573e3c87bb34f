"""Small ptychographic scans with known truth, in plain NumPy: the whole object moves, by band-limited shifts."""

import h5py
import numpy as np

FRAME, VIEWS, STEP = 32, 6, 4.0
ENERGY, PIXEL, FOCUS = 12e3, 100e-9, 10e-3  # [eV], sample pixel [m], focus to sample [m]
MAGNIFICATION = 100.0
WAVELENGTH = 1.239841984332002e-06 / ENERGY
DISTANCE = (MAGNIFICATION - 1) * FOCUS / MAGNIFICATION  # effective [m]


def _smooth(rng, size, width):
    f = np.fft.fftfreq(size)
    low = np.exp(-2 * (np.pi * width) ** 2 * (f[:, None] ** 2 + f**2))
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * low).real
    return noise / noise.std()


def make(near: bool, counts: float = 400.0, seed: int = 0):
    """Frames (noise-free), object, probe and positions [pixel] of a jittered raster."""
    rng = np.random.default_rng(seed)
    size = 2 * FRAME
    obj = np.exp((0.5j - 0.05) * _smooth(rng, size, 1.5))
    u = np.arange(FRAME) - (FRAME - 1) / 2
    radius2 = u[:, None] ** 2 + u**2
    width = 7.0 if near else 5.0
    probe = np.exp(-radius2 / (2 * width**2)) * np.exp(
        1j * (0.8 * _smooth(rng, FRAME, 2.0) + (0 if near else 0.03 * radius2))
    )
    probe *= np.sqrt(counts * FRAME**2 / np.sum(abs(probe) ** 2))
    grid = np.stack(np.meshgrid(*[np.arange(VIEWS) * STEP] * 2, indexing="ij"), -1).reshape(-1, 2)
    positions = 4 + grid + rng.uniform(-1, 1, grid.shape)
    f, fine = np.fft.fftfreq(size), np.fft.fftfreq(FRAME, PIXEL)
    kernel = np.exp(-1j * np.pi * WAVELENGTH * DISTANCE * (fine[:, None] ** 2 + fine**2))
    frames = []
    for r, c in positions:
        moved = np.fft.ifft2(np.fft.fft2(obj) * np.exp(2j * np.pi * (f[:, None] * r + f * c)))[:FRAME, :FRAME]
        wave = moved * probe
        wave = np.fft.ifft2(np.fft.fft2(wave) * kernel) if near else np.fft.fft2(wave, norm="ortho")
        frames.append(abs(wave) ** 2)
    return np.array(frames), obj, probe, positions


def write_cxi(path, near: bool, seed: int = 0, background: float = 0.2):
    """A CXI file of Poisson counts with a dead pixel; far-field frames with the zero frequency in the centre."""
    frames, _, probe, positions = make(near, seed=seed)
    counts = np.random.default_rng(seed + 1).poisson(frames + background).astype(np.uint16)
    dead = np.zeros((FRAME, FRAME), np.uint32)
    dead[3, 5] = 1
    counts[:, 3, 5] = 65535
    if not near:
        counts, dead = np.fft.fftshift(counts, (1, 2)), np.fft.fftshift(dead)
    detector_pixel = PIXEL * MAGNIFICATION if near else 50e-6
    distance = (MAGNIFICATION - 1) * FOCUS if near else PIXEL * FRAME * detector_pixel / WAVELENGTH
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector["data"], detector["mask"], detector["distance"] = counts, dead, distance
        detector["basis_vectors"] = np.array([[0, -detector_pixel], [-detector_pixel, 0], [0, 0]])
        file["entry_1/instrument_1/source_1/energy"] = ENERGY * 1.602176634e-19
        metres = positions * PIXEL
        file["entry_1/sample_1/geometry_1/translation"] = np.stack([metres[:, 1], metres[:, 0], 0 * metres[:, 0]], 1)
        file["entry_1/instrument_1/source_1/probe"] = probe * 0.01  # of any scale
    return counts, positions
