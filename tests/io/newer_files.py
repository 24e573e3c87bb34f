"""Tiny valid files of maps, tomograms of elements, displaced patterns, edges and powders, in plain HDF5."""

import h5py
import numpy as np

RNG = np.random.default_rng


def _write(path, datasets, attributes):
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            file[name] = value
        for place, said in attributes.items():
            file[place].attrs.update(said)
    return path


def lines(path):
    """Counts of two lines and of Compton scattering, six angles of one row of eight points."""
    poisson = lambda mean: RNG(0).poisson(mean, (6, 1, 8)).astype(np.uint32)
    datasets = {
        "theta": np.linspace(0, np.pi, 6, endpoint=False), "monitor/counts": poisson(900),
        "live_time": np.full((6, 1, 8), 0.9), "real_time": np.ones((6, 1, 8)), "transmission/counts": poisson(800),
        "lines/Fe/counts": poisson(30), "lines/Ca/counts": poisson(20), "lines/compton/counts": poisson(50),
        "tables/components": np.array([b"Ca", b"Fe", b"C"]), "tables/sigma_E0": np.array([9.0, 20.0, 0.5]),
        "tables/sigma_line": RNG(1).uniform(1, 50, (3, 3)), "tables/incoherent": np.array([0.15, 0.14, 0.16]),
        "detector/directions_lab": np.array([[1.0, 0.1, 0.0], [1.0, -0.1, 0.0]]),
        "detector/compton_weight": np.array([1.0, 1.1]),
    }  # fmt: skip
    line = {"efficiency": 0.8, "production_cm2_per_g": 5.0}
    return _write(path, datasets, {
        "/": {"energy_eV": 17e3, "pixel_m": 1e-6, "rotation_centre_u": 3.4}, "monitor": {"monitor_per_photon": 1e-3},
        "transmission": {"counts_per_photon": 1e-3}, "detector": {"solid_angle_fraction": 0.01},
        "lines/Fe": line, "lines/Ca": line, "lines/compton": {"efficiency": 0.8},
    })  # fmt: skip


def joint(path):
    """Far-field frames, and counts of two elements at the same nine positions."""
    places = np.stack(np.meshgrid(*[np.arange(3) * 2.0] * 2, indexing="ij"), -1).reshape(-1, 2)
    datasets = {
        "frames": RNG(0).poisson(5, (9, 16, 16)).astype(np.uint16), "positions_px": places, "dwell": np.full(9, 2.0),
        "object_shape": np.array([22, 22]), "xrf/elements": np.array([b"Fe", b"Zn"]),
        "xrf/counts": RNG(1).poisson(40, (2, 9)).astype(np.uint32), "xrf/line_eV": np.array([6400.0, 8640.0]),
        "xrf/efficiency": np.array([0.9, 0.8]), "xrf/production_cm2_per_g": np.array([90.0, 80.0]),
        "xrf/delta_beta_per_g_cm3": np.array([[1e-6, 1e-7], [2e-6, 2e-7]]),
    }  # fmt: skip
    return _write(path, datasets, {
        "/": {"energy_eV": 12e3, "pixel_m": 5e-8, "photons_mean": 1e4}, "xrf": {"solid_angle_fraction": 0.02},
        "positions_px": {"unit": "pixel (row, column) of the patch corner; of the object"},
    })  # fmt: skip


def edges(path):
    """Six views of two rows at three energies, with flats and darks for each."""
    datasets = {
        "counts": RNG(0).poisson(500, (3, 6, 2, 8)).astype(np.uint16), "energies": np.array([33e3, 33.3e3, 34e3]),
        "theta": np.linspace(0, np.pi, 6, endpoint=False), "materials": np.array([b"iodine", b"water"]),
        "formula": np.array([b"I", b"H2O, 1.0"]), "darks": np.full((2, 2, 8), 10, np.uint16),
        "flats": RNG(1).poisson(900, (3, 2, 2, 8)).astype(np.uint16),
    }  # fmt: skip
    return _write(path, datasets, {"/": {"pixel_m": 1e-5, "rotation_centre_u": 3.6}})


def powder(path):
    """Patterns of five angles and six points, with a phase."""
    datasets = {
        "counts": RNG(0).poisson(20, (5, 6, 12)).astype(np.uint32), "theta": np.linspace(0, np.pi, 5, endpoint=False),
        "two_theta": np.linspace(0.1, 0.3, 12), "normalisation": np.full(12, 1e-3), "monitor": np.full((5, 6), 100.0),
        "background": np.full(12, 0.1), "transmitted": np.full((5, 6), 90.0), "phases/NMC/d_A": np.array([4.7, 2.4]),
        "phases/NMC/strength": np.array([1.0, 0.5]), "phases/NMC/hkl": np.array([[0, 0, 3], [1, 0, 1]]),
    }  # fmt: skip
    said = {"energy_eV": 60e3, "step_m": 1e-5, "rotation_centre_u": 2.6}
    return _write(path, datasets, {"/": said, "monitor": {"per_photon": 1.0}, "transmitted": {"per_photon": 1.0},
                                    "phases/NMC": {"cell_volume_A3": 150.0}})  # fmt: skip


def displaced(path):
    """Five positions of a membrane, with the sample and without."""
    stack = lambda seed: RNG(seed).poisson(300, (5, 12, 12)).astype(np.uint16)
    datasets = {"sample": stack(0), "reference": stack(1), "flat": np.full((12, 12), 900.0), "dark": np.ones((12, 12)),
                "mask": np.ones((12, 12), bool)}  # fmt: skip
    said = {"kind": "speckle", "energy_keV": 17.0, "pixel_m": 1e-6, "sample_to_detector_m": 0.4}
    return _write(path, datasets, {"/": said})
