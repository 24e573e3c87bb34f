"""Files with one thing broken, attributes too: refused in one line before anything is solved, or a finite start."""

import shutil
import warnings
from typing import Any

import h5py
import jax
import newer_files
import numpy as np
import pytest
from test_fuzz import CHANGES, OF_HDF5, names, write_broken

from diffrecon import io, recipes
from diffrecon._console import Console
from diffrecon.errors import InputError
from diffrecon.recipes._run import check_needs

EVERY = 13  # 1 tries all, some 1100


def stepped(kind, curve, **said):
    """Five positions of a mask, a grating or a crystal, the counts of which follow a curve."""

    def write(path):
        newer_files.displaced(path)
        with h5py.File(path, "r+") as file:
            file.attrs.update(kind=kind, **said)
            for seed, name in enumerate(("sample", "reference")):
                mean = 300 * curve(np.arange(5.0))[:, None, None] * np.ones((1, 12, 12))
                file[name][...] = np.random.default_rng(seed).poisson(mean)
        return path

    return write


def peak(step):
    return 1 + np.exp(-((step - 2) ** 2) / 2)


def wave(step):
    return 1 + 0.4 * np.cos(2 * np.pi * step / 5)


FILES = {
    "analyser": stepped("analyser", peak, analyser_angle_nominal_rad=np.linspace(-4e-6, 4e-6, 5)),
    "interferometer": stepped("interferometer", wave),
    "grating": stepped("grating", wave, g2_period_m=2e-6, step_nominal=np.arange(5) / 5),
    "k-edge": newer_files.edges,
    "diffraction-tomography": newer_files.powder,
}
ATTRIBUTES = {
    "zero": lambda a: a * 0,
    "negative": lambda a: -np.abs(a) - 1e-9,
    "not a number": lambda a: a * np.nan,
    "infinite": lambda a: a * np.inf,
    "huge": lambda a: a * 1e15,
    "text": lambda a: "some",
    "another length": lambda a: a[:2] if np.ndim(a) else np.full(3, a),
    "two axes": lambda a: np.ones((2, 2)),
    "all the same": lambda a: np.full_like(a, np.ravel(a)[0]),
    "removed": None,
}


def breaks(valid):
    """Name what can be broken: a dataset or where an attribute stands, how, and the attribute's name."""
    attributes = []
    with h5py.File(valid) as file:
        attributes += [("/", key) for key in file.attrs if key != "kind"]
        file.visititems(lambda name, item: attributes.extend((name, key) for key in item.attrs))
    yield from ((name, change, None) for name in names(valid) for change in (*CHANGES, *OF_HDF5))
    yield from ((place, change, key) for place, key in attributes for change in ATTRIBUTES)


def broken(path, name, change, key):
    """Break a file in place; whether that can be done."""
    try:
        if key is None:
            write_broken(path, name, change)
            return True
        with h5py.File(path, "r+") as file:
            value: Any = np.asarray(file[name].attrs[key], float)
            del file[name].attrs[key]
            if (made := ATTRIBUTES[change]) is not None:
                file[name].attrs[key] = made(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return False
    return True


def answer(path, method):
    """What is wrong with the answer; `None` for a right one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            scan = io.open_scan(path, method=method.name)
            check_needs(method, scan)
            model = method.start(scan, method.settings(), Console(quiet=True)).model
        except InputError as error:
            return None if "\n" not in str(error) and len(str(error)) > 20 else f"unclear: {error}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    numbers = (np.asarray(leaf) for leaf in jax.tree.leaves(model))
    return None if all(np.isfinite(n).all() for n in numbers if n.dtype.kind in "fc") else "not finite"


@pytest.mark.parametrize("kind", FILES)
def test_first_guesses_of_broken_files(kind, tmp_path):
    method, path, wrong, tried = recipes.find(kind), tmp_path / "a.h5", [], 0
    valid = FILES[kind](tmp_path / "valid.h5")
    scan = io.open_scan(valid, method=kind)
    assert method.start(scan, method.settings(), Console(quiet=True)).views
    for name, change, key in list(breaks(valid))[::EVERY]:
        shutil.copy(valid, path)
        if not broken(path, name, change, key):
            continue
        tried += 1
        if (said := answer(path, method)) is not None:
            wrong.append(f"{name}{f'@{key}' if key else ''}, {change}: {said}")
    assert tried > 120 / EVERY and not wrong, f"{len(wrong)} of {tried}:\n" + "\n".join(wrong)
