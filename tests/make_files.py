"""Small files of every format, written by h5py and NumPy alone, for the tests of readers and command line."""

import h5py
import numpy as np

ENERGY_JOULES = 12658.0 * 1.602176634e-19
PIXEL, Z1, Z2 = 55e-6, 3.65e-3, 1.12
MAGNIFICATION = (Z1 + Z2) / Z1
SAMPLE_PIXEL = PIXEL / MAGNIFICATION


def smooth_noise(shape, seed, width=2.0):
    """Positive random field of mean about 1 with features of some pixels."""
    noise = np.random.default_rng(seed).normal(size=shape)
    square = sum(f**2 for f in np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij"))
    field = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-2 * (np.pi * width) ** 2 * square)).real
    return np.clip(1 + 0.3 * field / field.std(), 0.05, None)


def positions_pixels(views=16, step=5):
    """Integer patch corners (row, column), not on a line."""
    side = int(np.ceil(np.sqrt(views)))
    corners = step * np.stack(np.divmod(np.arange(views), side), -1)
    return corners + np.random.default_rng(1).integers(-1, 2, corners.shape)


def near_field_frames(views=16, size=32, seed=0):
    """Frames whose features move with the sample, as a shadow does, and the patch corners [pixel]."""
    corners = positions_pixels(views)
    corners -= corners.min(0)
    field = smooth_noise(tuple(corners.max(0) + size), seed)
    y, x = np.indices((size, size)) - (size - 1) / 2
    beam = 400 * np.exp(-(x**2 + y**2) / (0.6 * size) ** 2)
    frames = np.stack([beam * field[r : r + size, c : c + size] for r, c in corners])
    return np.random.default_rng(seed).poisson(frames).astype(np.int32), corners


def far_field_frames(views=16, size=32, seed=0):
    """Speckle around the centre that changes from view to view but does not move."""
    random = np.random.default_rng(seed)
    y, x = np.indices((size, size)) - size // 2
    envelope = np.exp(-(x**2 + y**2) / (0.15 * size) ** 2)
    frames = 500 * envelope * random.exponential(size=(views, size, size))
    return random.poisson(frames).astype(np.uint16), positions_pixels(views)


def defocused_far_field_frames(views=16, size=64):
    """A probe out of focus: in its bright cone features move with the sample as in the near field."""
    y, x = np.indices((size, size)) - size // 2
    pupil = (np.hypot(x, y) < 0.2 * size) * np.exp(1j * np.pi * (x**2 + y**2) * 0.8 / size)
    probe = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(pupil)))
    corners = positions_pixels(views, step=3)
    corners -= corners.min(0)
    field = np.exp(0.6j * (smooth_noise(tuple(corners.max(0) + size), 4, 1.0) - 1))
    waves = np.stack([probe * field[r : r + size, c : c + size] for r, c in corners])
    frames = np.abs(np.fft.fftshift(np.fft.fft2(waves), axes=(1, 2))) ** 2
    return np.random.default_rng(0).poisson(400 * frames / frames.mean()).astype(np.int32), corners


def chirped_far_field_frames(views=64, size=64):
    """A Gaussian probe with a curved wave, as behind a lens out of focus, over discs: it fills more than half the field
    of the far field, its shadow image moves with the sample, and the frames' borders stay dark."""
    random, step = np.random.default_rng(1), 8
    side = int(np.sqrt(views))
    corners = step * np.stack(np.divmod(np.arange(side**2), side), 1) + random.integers(0, 4, (side**2, 2))
    y, x = np.indices((size + side * step,) * 2)
    phase = np.zeros(y.shape)
    for row, column, radius, height in random.uniform((0, 0, 3, -0.3), (y.shape[0], y.shape[0], 14, 0.3), (50, 4)):
        phase += height / (1 + np.exp(1.5 * (np.hypot(y - row, x - column) - radius)))
    square = np.indices((size, size)) - size / 2
    square = (square**2).sum(0)
    probe = np.exp(-square / (2 * 10**2) + 1j * square / 20)
    field = np.exp(1j * phase)
    waves = np.stack([probe * field[r : r + size, c : c + size] for r, c in corners])
    frames = np.abs(np.fft.fftshift(np.fft.fft2(waves), axes=(1, 2))) ** 2
    return random.poisson(500 * frames / frames.mean()).astype(np.int32), corners


def cxi(path, *, basis=((0, -1), (-1, 0), (0, 0)), drop=(), frames=None, change=None):
    """A CXI file of near-field ptychography; `drop` names what to leave out, `change` replaces datasets by name."""
    counts, corners = near_field_frames() if frames is None else frames
    basis = np.array(basis, float)
    # The sample moves by t, the patch over it by -t, seen on the detector's axes (orthogonal unit vectors).
    motion = np.zeros((len(corners), 3))
    motion[:, :2] = -(corners * SAMPLE_PIXEL) @ basis[:2].T
    mask = np.zeros(counts.shape[1:], np.uint32)
    mask[0, 0] = 1
    mask[0, 1] = 0x20  # in a peak: harmless
    entry = "entry_1/"
    values = {
        "instrument_1/detector_1/data": counts,
        "instrument_1/detector_1/mask": mask,
        "instrument_1/detector_1/distance": Z2,
        "instrument_1/detector_1/basis_vectors": basis * PIXEL,
        "instrument_1/source_1/energy": ENERGY_JOULES,
        "sample_1/geometry_1/translation": motion,
    } | (change or {})
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        for name, value in values.items():
            if not any(d in name for d in drop):
                file[entry + name] = value
    return path


def dxchange(path, *, views=12, theta=None, units="degrees", drop=(), counts=None):
    random = np.random.default_rng(0)
    shape = (views, 3, 16)
    values = {
        "data": random.poisson(500, shape).astype(np.uint16) if counts is None else counts,
        "data_white": random.poisson(1000, (4, 3, 16)).astype(np.uint16),
        "data_dark": random.poisson(10, (4, 3, 16)).astype(np.uint16),
        "theta": np.linspace(0, 180, views, endpoint=False) if theta is None else theta,
    }
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            if name not in drop:
                file[f"exchange/{name}"] = value
        if units and "theta" not in drop:
            file["exchange/theta"].attrs["units"] = units
    return path


def nxtomo(path, *, link_exists=True, entries=("entry",), units="deg"):
    """Frames behind an external link in a subfolder, keys 2 (dark), 1 (flat), 0 (projection), 3 (invalid)."""
    key = np.array([2, 2, 1, 1, *[0] * 9, 3], np.int32)
    folder = path.parent / "frames"
    folder.mkdir(exist_ok=True)
    frames = (100 + np.arange(len(key))[:, None, None] * np.ones((1, 3, 8))).astype(np.uint16)
    if link_exists:
        with h5py.File(folder / "detector.h5", "w") as file:
            file["entry/data"] = frames
    with h5py.File(path, "w") as file:
        for entry in entries:
            group = file.create_group(f"{entry}/instrument/detector")
            group["image_key"] = key
            group["data"] = h5py.ExternalLink("frames/detector.h5", "/entry/data")
            angles = np.r_[np.zeros(4), np.linspace(90, 270, 9), 0]
            file[f"{entry}/sample/rotation_angle"] = angles
            if units:
                file[f"{entry}/sample/rotation_angle"].attrs["units"] = units
            file[f"{entry}/instrument/beam/incident_energy"] = 53.0
            file[f"{entry}/instrument/beam/incident_energy"].attrs["units"] = "keV"
    return path


def mumott(path, *, matrices=True, old_names=False):
    """Four projections of 5 columns (J) by 4 rows (K) and 3 segments."""
    random = np.random.default_rng(0)
    names = (
        ("rotations", "tilts", "offset_j", "offset_k")
        if old_names
        else ("inner_angle", "outer_angle", "j_offset", "k_offset")
    )
    with h5py.File(path, "w") as file:
        file["detector_angles"] = np.arange(3) * np.pi / 3
        for view in range(4):
            group = file.create_group(f"projections/{view}")
            group["data"] = random.uniform(1, 2, (5, 4, 3)).astype(np.float32)
            group["diode"] = random.uniform(0.5, 1, (5, 4)).astype(np.float32)
            group["weights"] = np.ones((5, 4, 3))
            for name, value in zip(names, (0.3 * view, 0.2, 0.5, -0.25), strict=True):
                group[name] = np.array([value])
            if matrices:
                group["rotation_matrix"] = rotation_matrix(0.3 * view, 0.2)
    return path


def rotation_matrix(inner, outer):
    """About x by `outer` after about -z by `inner`, written out."""
    c, s = np.cos(inner), np.sin(inner)
    about_minus_z = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    c, s = np.cos(outer), np.sin(outer)
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return about_x @ about_minus_z


def npz(path, *, frames=None, **arrays):
    counts, corners = far_field_frames() if frames is None else frames
    probe = np.ones((32, 32), np.complex64)
    values = {"counts": counts, "positions": corners.astype(np.float32), "probe": probe} | arrays
    np.savez(path, **{k: v for k, v in values.items() if v is not None})
    return path


def ptyd(path, *, propagation="farfield"):
    counts, corners = far_field_frames()
    with h5py.File(path, "w") as file:
        file["meta/energy"] = 7.2  # keV
        file["meta/distance"] = 2.0
        file["meta/psize"] = np.array([75e-6, 75e-6])
        file["meta/propagation"] = propagation
        weights = np.ones(counts.shape[1:])
        weights[3, 4] = 0
        for chunk, part in enumerate((slice(0, 10), slice(10, 16))):
            file[f"chunks/{chunk}/data"] = counts[part]
            file[f"chunks/{chunk}/positions"] = corners[part] * (20e-9 if propagation == "farfield" else 75e-6)
            file[f"chunks/{chunk}/weights"] = np.broadcast_to(weights, counts[part].shape)
    return path


def holograms(path):
    """An HDF5 file of nobody's layout."""
    with h5py.File(path, "w") as file:
        file["raw"] = np.random.default_rng(0).poisson(100, (4, 16, 16)).astype(np.uint16)
        file["z1_m"] = np.array([0.0213, 0.0222, 0.0259, 0.0332])
        file["energy_keV"] = 17.0
        file["pixel"] = 3.0
        file["pixel"].attrs["units"] = "um"
        file["shifts"] = np.zeros((4, 2))
    return path


HOLOGRAMS = {
    "method": "holography",
    "counts": "/raw",
    "flux": 100,
    "energy": "17 keV",
    "focus_to_sample": "/z1_m",
    "focus_to_detector": "1.28 m",
    "detector_pixel": "/pixel",
}
