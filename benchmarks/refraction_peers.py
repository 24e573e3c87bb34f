"""algotom, LCS-Retrieval and mbipy on the frames of a speckle scan, for `refraction.py`.

    pip install algotom lcs-retrieval mbipy h5py

Runs in an environment of its own (it imports NumPy and the program, never diffrecon):

    python refraction_peers.py SCAN.h5 FOLDER VIEWS [WORD ...]

Takes the stacks `sample` and `reference`, the first VIEWS of each (0: all); WORDs choose cases whose label holds one.
Prints a line of JSON a case: its label, CPU seconds of a second run where the first compiles, and the file in FOLDER
with what it read of every pixel (NaN where it says nothing): two displacements [pixel], in the order and with the signs
of the program, and transmission and visibility if it gives them. One thread. Settings:

- algotom: `find_local_shifts(dim=2)` and `find_local_shifts_umpa`, window 7, margin 6, "diff" as by default.
- LCS-Retrieval: `lcs_df`, window 5 up to five positions, 1 beyond, as its docstring says.
- mbipy: `umpa` with its dark field, search window 9, template 5; `lcs_df`, alpha 1e-5 as LCS-Retrieval has it.

UMPA (github.com/pierrethibault/UMPA, optimato/UMPA) is not in the package index and is not run. spexwavepy installs,
takes folders of images and reads no transmission; it is not run either.
"""

import importlib.metadata
import importlib.util  # noqa: F401  (mbipy uses it and does not import it)
import json
import os
import sys
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import h5py  # noqa: E402  (threads are counted when NumPy comes)
import numpy as np  # noqa: E402


def main() -> None:
    """Run the cases that are asked for."""
    path, folder, views, *words = sys.argv[1:]
    with h5py.File(path) as file:
        sample, reference = (file[name][: int(views) or None].astype(np.float32) for name in ("sample", "reference"))
    sample, reference = (stack / reference.mean() for stack in (sample, reference))  # alphas are of numbers about one
    sample *= (reference.mean((1, 2)) / sample.mean((1, 2)))[:, None, None] * sample.mean() / reference.mean()
    for label, package, run, twice in CASES:
        if words and not any(word in label for word in words):
            continue
        print(json.dumps(one(label, package, run, twice, sample, reference, Path(folder))), flush=True)


def one(label, package, run, twice, sample, reference, folder):
    """Run a case, and say what came of it."""
    try:
        if twice:
            run(sample, reference)
        begin = time.process_time()
        found = run(sample, reference)
        seconds = time.process_time() - begin
        file = folder / f"{label.replace(' ', '_')}_{len(sample)}.npz"
        np.savez(file, **{k: framed(v, sample.shape[1:]) for k, v in found.items()})
        return {"label": f"{label} {importlib.metadata.version(package)}", "CPU s": seconds, "file": str(file)}
    except Exception as problem:
        return {"label": label, "failed": f"{type(problem).__name__}: {problem}"}


def framed(image, shape):
    """Put an image without borders in the middle of the frame."""
    whole = np.full(shape, np.nan, np.float32)
    top, left = ((n - m) // 2 for n, m in zip(shape, image.shape, strict=True))
    whole[top : top + image.shape[0], left : left + image.shape[1]] = image
    return whole


# ---------------------------------------------------------------------------------------------------- programs
def algotom_correlation(sample, reference):
    from algotom.prep.phase import get_transmission_dark_field_signal
    from algotom.util.correlation import find_local_shifts

    x, y = find_local_shifts(reference, sample, dim=2, win_size=7, margin=6, gpu=False, ncore=1)
    light, dark = get_transmission_dark_field_signal(reference, sample, x, y, 7, ncore=1)
    return blank({"first": x, "second": y, "transmission": light, "visibility": dark}, 9)


def algotom_umpa(sample, reference):
    from algotom.util.correlation import find_local_shifts_umpa

    x, y, light, dark = find_local_shifts_umpa(
        reference, sample, win_size=7, margin=6, gpu=False, ncore=1, dark_signal=True
    )
    return blank({"first": x, "second": y, "transmission": light, "visibility": dark}, 9)


def blank(images, edge):
    """Leave out borders where the program writes zeros."""
    return {name: image[edge:-edge, edge:-edge] for name, image in images.items()}


def lcs_retrieval(sample, reference):
    import lcs

    last = lambda stack: np.moveaxis(stack, 0, -1)
    found = lcs.lcs_df(last(reference), last(sample), win_size=5 if len(sample) <= 5 else 1)
    return {"first": found[..., 1], "second": found[..., 2], "transmission": found[..., 0]}


def mbipy_umpa(sample, reference):
    from mbipy.src.phase_retrieval.explicit.umpa import umpa

    *moved, light, dark = umpa(sample.astype(float), reference.astype(float), (9, 9), (5, 5), df=True)
    first, second = moved if len(moved) == 2 else np.moveaxis(np.asarray(moved[0]), -1, 0)
    return {"first": first, "second": second, "transmission": light, "visibility": dark}


def mbipy_lcs(sample, reference):
    from mbipy.src.phase_retrieval.implicit.lcs import lcs_df

    last = lambda stack: np.moveaxis(stack.astype(float), 0, -1)
    found = lcs_df(last(sample), last(reference), alpha=1e-5)
    return {"first": found.phase_gy, "second": found.phase_gx, "transmission": found.transmission}


CASES = [
    ("algotom correlation", "algotom", algotom_correlation, False),
    ("algotom UMPA", "algotom", algotom_umpa, False),
    ("LCS-Retrieval", "LCS-Retrieval", lcs_retrieval, True),
    ("mbipy UMPA", "mbipy", mbipy_umpa, False),
    ("mbipy LCS", "mbipy", mbipy_lcs, True),
]

if __name__ == "__main__":
    main()
