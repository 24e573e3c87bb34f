"""hotopy, nabu and pyphase, run as their own examples do, for `holography.py`.

    pip install hotopy nabu pyphase

Runs in an environment of its own (it imports NumPy and the program, never diffrecon):

    python holography_peers.py IN.npz OUT.npz PROGRAM

IN holds the holograms on one pixel, divided by the empty beam, `images (distance, y, x)`; `pixel`, `distances`,
`wavelength` [m], `energy` [eV], `beta_delta` of the main material, and `truth`: the phase, which only cases marked
"oracle" look at: they keep the best of the settings that are tried. OUT gets a phase of each case, its CPU and wall
seconds and what was chosen. Settings:

- hotopy: two-level regularisation (0, 0.05) as in its examples; zero padding of the contrast to twice the size (CTF),
  frames padded by ones to 1.5 times for the iterative methods, which have no padding of their own; phase <= 0. Oracles
  try 20 pairs of levels, and weights of total variation.
- nabu: Paganin with each padding that it offers (its default is "edge"), CTF of the first distance with its defaults.
- pyphase: CTFHOM, CTF and TIEHOM with its defaults (alpha 1e-8 and 1e-10), and the best of a few alpha as oracle. Its
  mixed approach takes only its own data sets on disk; it is left out.
"""

import contextlib
import io
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

THREADS = 2
Case = tuple[str, Callable[[], np.ndarray]]


class Problem:
    """What the programs are given."""

    def __init__(self, path: str):
        given = np.load(path)
        self.images = given["images"].astype(np.float32)
        self.truth = given["truth"]
        self.distances = given["distances"]
        self.pixel, self.wavelength, self.energy, self.beta_delta = (
            float(given[name]) for name in ("pixel", "wavelength", "energy", "beta_delta"))
        self.fresnel_numbers = self.pixel**2 / (self.wavelength * self.distances)

    def error(self, phase: np.ndarray) -> float:
        inner = (slice(16, -16), slice(16, -16))
        rest, truth = (phase - self.truth)[inner], self.truth[inner]
        return float(np.linalg.norm(rest - rest.mean()) / np.linalg.norm(truth - truth.mean()))

    def best(self, tried: Callable[..., np.ndarray], settings: list[tuple]) -> tuple[tuple, float]:
        errors = [self.error(tried(*setting)) for setting in settings]
        at = int(np.nanargmin(errors))
        return settings[at], errors[at]


# ---------------------------------------------------------------------------------------------------- hotopy
def hotopy(p: Problem) -> Iterator[Case]:
    """CTF, non-linear Tikhonov and total variation."""
    import torch  # pyright: ignore[reportMissingImports]
    from hotopy.holo import CTF, Constraints, Tikhonov, TikhonovTV  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(THREADS)
    shape, numbers = p.images.shape[-2:], p.fresnel_numbers
    low_high = list(itertools.product((0.0, 1e-4, 1e-3, 1e-2), (1e-2, 3e-2, 1e-1, 3e-1, 1.0)))
    negative = Constraints(phase_max=0.0)

    def ctf(alpha, pad=2):
        solve = CTF(shape, numbers, alpha=alpha, betadelta=p.beta_delta, npad=pad)
        return lambda: solve(p.images).numpy()

    yield "hotopy CTF, no padding", ctf((0, 5e-2), 1)
    yield "hotopy CTF", ctf((0, 5e-2))
    chosen, _ = p.best(lambda *a: ctf(a)(), low_high)
    yield f"hotopy CTF, oracle {chosen}", ctf(chosen)

    more = [(n // 4, n // 4) for n in shape]
    padded = np.pad(p.images, [(0, 0), *more], constant_values=1)
    crop = tuple(slice(m[0], m[0] + n) for m, n in zip(more, shape, strict=True))

    def tikhonov(alpha, steps, tv=None):
        kind = Tikhonov if tv is None else TikhonovTV
        extra = {} if tv is None else {"alpha_tv": tv}
        solve = kind(padded.shape[-2:], numbers, betadelta=p.beta_delta, alpha=alpha, **extra)
        return lambda: solve(padded, constraints=negative, max_iter=steps, rtol=5e-4).numpy()[crop]

    yield "hotopy Tikhonov", tikhonov((0, 5e-2), 200)
    few = [(a,) for a in ((0, 1e-2), (0, 5e-2), (1e-3, 1e-1), (0, 3e-1))]
    chosen, _ = p.best(lambda a: tikhonov(a, 60)(), few)
    yield f"hotopy Tikhonov, oracle {chosen[0]}", tikhonov(chosen[0], 200)
    weights = [((0, high), w) for high in (5e-2, 3e-1) for w in (1e-3, 3e-3, 1e-2, 3e-2)]
    chosen, _ = p.best(lambda a, w: tikhonov(a, 60, w)(), weights)
    yield f"hotopy TV, oracle {chosen}", tikhonov(chosen[0], 200, chosen[1])


# ---------------------------------------------------------------------------------------------------- nabu
def nabu(p: Problem) -> Iterator[Case]:
    """Paganin with all paddings, CTF of one distance."""
    from nabu.preproc.ctf import CTFPhaseRetrieval, GeoPars  # pyright: ignore[reportMissingImports]
    from nabu.preproc.phase import PaganinPhaseRetrieval  # pyright: ignore[reportMissingImports]

    first, shape, ratio = p.images[0], p.images.shape[-2:], 1 / p.beta_delta
    given = {"distance": float(p.distances[0]), "energy": p.energy / 1e3, "delta_beta": ratio, "pixel_size": p.pixel}

    def paganin(padding):
        solve = PaganinPhaseRetrieval(shape, padding=padding, fft_num_threads=THREADS, **given)
        return lambda: 0.5 * ratio * np.log(np.maximum(solve.apply_filter(first), 1e-6))

    yield "nabu Paganin (edge, its default)", paganin("edge")
    for padding in ("zeros", "mean", "symmetric", "reflect"):
        yield f"nabu Paganin, {padding}", paganin(padding)
    place = GeoPars(z1_vh=None, z2=float(p.distances[0]), pix_size_det=p.pixel, wavelength=p.wavelength)
    for padding in ("reflect", "edge"):
        solve = CTFPhaseRetrieval(shape, place, ratio, padding_mode=padding, fft_num_threads=THREADS)
        yield f"nabu CTF, one distance, {padding}", lambda solve=solve: solve.retrieve_phase(first)


# ---------------------------------------------------------------------------------------------------- pyphase
def pyphase(p: Problem) -> Iterator[Case]:
    """CTF of one material, CTF of two unknowns, Paganin."""
    from pyphase import phaseretrieval as programs  # pyright: ignore[reportMissingImports]

    given = {"shape": p.images.shape[-2:], "pixel_size": p.pixel, "distance": p.distances, "energy": p.energy / 1e3}
    images = p.images.astype(float)

    def method(kind, **more):
        with contextlib.redirect_stdout(io.StringIO()):
            solve = kind(**given, **more)
        return lambda: solve.reconstruct_image(images)[0]

    pairs = [(a, b) for a in (-10, -8, -6, -4, -2) for b in (-10, -6, -3, -2, -1)]
    ratio = {"delta_beta": 1 / p.beta_delta}
    yield "pyphase CTF of one material", method(programs.CTFHOM, **ratio)
    # Its alpha is in units of (delta/beta)^2.
    wide = [(a + 6, b + 6) for a, b in pairs]
    chosen, _ = p.best(lambda *a: method(programs.CTFHOM, alpha=a, **ratio)(), wide)
    yield f"pyphase CTF of one material, oracle {chosen}", method(programs.CTFHOM, alpha=chosen, **ratio)
    yield "pyphase CTF, two unknowns", method(programs.CTF)
    chosen, _ = p.best(lambda *a: method(programs.CTF, alpha=a)(), pairs)
    yield f"pyphase CTF, two unknowns, oracle {chosen}", method(programs.CTF, alpha=chosen)
    yield "pyphase Paganin, all distances", method(programs.TIEHOM, **ratio)


# ---------------------------------------------------------------------------------------------------- run
def timed(solve: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float]:
    """Result, and CPU and wall seconds: once more, and for short runs the median of three, after a first run."""
    start = time.perf_counter()
    found = solve()
    repeats = 3 if time.perf_counter() - start < 3 else 0
    marks = [(time.process_time(), time.perf_counter())]
    for _ in range(repeats):
        solve()
        marks.append((time.process_time(), time.perf_counter()))
    if not repeats:
        solve()
        marks.append((time.process_time(), time.perf_counter()))
    cpu, wall = np.median(np.diff(marks, axis=0), axis=0)
    return found, float(cpu), float(wall)


def main() -> None:
    source, target, program = sys.argv[1:4]
    problem, found, table = Problem(source), {}, []
    for label, solve in {"hotopy": hotopy, "nabu": nabu, "pyphase": pyphase}[program](problem):
        print(f"  {label} ...", file=sys.stderr, flush=True)
        phase, cpu, wall = timed(solve)
        table.append({"label": label, "cpu": cpu, "wall": wall})
        found[f"phase{len(table) - 1}"] = np.asarray(phase, np.float32)
    np.savez(target, table=json.dumps(table), **found)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
