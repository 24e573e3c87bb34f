"""hotopy, nabu and pyphase, run as their own examples do, for `holography.py`.

    pip install hotopy nabu pyphase

Runs in an environment of its own (it imports NumPy and the program, never diffrecon):

    python holography_peers.py IN.npz FOLDER PROGRAM [WORD ...]

IN holds the holograms on one pixel, divided by the empty beam, `images (distance, y, x)`; `contact (y, x)`, the noisy
image at distance 0; `pixel`, `distances`, `wavelength` [m], `energy` [eV], `beta_delta` of the main material and
`oracle_beta_delta` of all together, and `truth`: the phase, which only cases marked "oracle" look at: they keep the
best of the settings that are tried. WORDs: only cases whose label holds one of them. Prints a line of JSON a case as it
comes: its label, CPU and wall seconds, what was chosen, and the file in FOLDER with its phase; or why it failed.
Settings:

- hotopy: two-level regularisation (0, 0.05) as in its examples; zero padding of the contrast to twice the size (CTF),
  frames padded by ones to 1.5 times for the iterative methods, which have no padding of their own; phase <= 0. Oracles
  try pairs of levels, and weights of total variation.
- nabu: Paganin with each padding that it offers (its default is "edge"), CTF of the first distance with its defaults.
- pyphase: CTFHOM, CTF, TIEHOM and Mixed with its defaults (alpha 1e-8 and 1e-10), and the best of a few alpha as
  oracle.
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

THREADS = 2
Solve = Callable[[], np.ndarray]
Case = tuple[str, Callable[[], tuple[Solve, str]]]  # what is made for a case: its solve, and what was chosen


class Problem:
    """What the programs are given."""

    def __init__(self, path: str):
        given = np.load(path)
        self.images = given["images"].astype(np.float32)
        self.contact = given["contact"]
        self.truth = given["truth"]
        self.distances = given["distances"]
        self.pixel, self.wavelength, self.energy, self.beta_delta, self.oracle_beta_delta = (
            float(given[name]) for name in ("pixel", "wavelength", "energy", "beta_delta", "oracle_beta_delta")
        )
        self.cut, self.goes_on = int(given["cut"]), bool(given["goes_on"])
        self.fresnel_numbers = self.pixel**2 / (self.wavelength * self.distances)

    def error(self, phase: np.ndarray) -> float:
        inner = slice(self.cut, -self.cut)
        rest, truth = (phase - self.truth)[inner, inner], self.truth[inner, inner]
        error = float(np.linalg.norm(rest - rest.mean()) / np.linalg.norm(truth - truth.mean()))
        return error if np.isfinite(error) else np.inf

    def best(self, tried: Callable[..., Solve], settings: list[tuple]) -> tuple:
        """The settings that are best for the truth."""
        return min(settings, key=lambda setting: self.error(tried(*setting)()))

    def fixed(self, label: str, make: Callable[..., Solve], *settings) -> Case:
        """A case of settings that are given."""
        return label, lambda: (make(*settings), "")

    def oracle(
        self, label: str, make: Callable[..., Solve], settings: list[tuple], quick: Callable[..., Solve] | None = None
    ) -> Case:
        """A case of the best settings; `quick` makes what is tried to find them."""

        def chosen():
            best = self.best(quick or make, settings)
            return make(*best), "of " + ", ".join(str(part) for part in best)

        return f"{label}, oracle", chosen


# ---------------------------------------------------------------------------------------------------- hotopy
def hotopy(p: Problem) -> Iterator[Case]:
    """CTF, non-linear Tikhonov and total variation."""
    if p.goes_on:
        yield from hotopy_without_vacuum(p)
        return
    import torch  # pyright: ignore[reportMissingImports]
    from hotopy.holo import CTF, Constraints, Tikhonov, TikhonovTV  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(THREADS)
    shape, numbers = p.images.shape[-2:], p.fresnel_numbers
    negative = Constraints(phase_max=0.0)
    example = (0.0, 5e-2)

    def matter(pair, t=None):
        """What its constraints do for one unknown, for a pair of unknowns: phase and log of the amplitude <= 0."""
        return pair.clamp(max=0.0)

    matter.linalg_op = True  # pyright: ignore[reportFunctionMemberAccess]

    def ctf(alpha, ratio=p.beta_delta, pad=2):
        solve = CTF(shape, numbers, alpha=alpha, betadelta=ratio, npad=pad)
        return lambda: solve(p.images).numpy()

    def general(alpha, constraints=None):
        solve = CTF(shape, numbers, alpha=alpha, betadelta=None, npad=2)
        return lambda: solve(p.images, constraints=constraints).numpy()[0]

    pairs = list(itertools.product((0.0, 1e-4, 1e-3, 1e-2), (1e-2, 3e-2, 1e-1, 3e-1, 1.0)))
    ratios = [p.beta_delta] + [p.oracle_beta_delta] * (p.oracle_beta_delta > 1.01 * p.beta_delta)
    yield p.fixed("hotopy CTF, no padding", ctf, example, p.beta_delta, 1)
    yield p.fixed("hotopy CTF", ctf, example)
    yield p.oracle("hotopy CTF", ctf, [(a, r) for a in pairs for r in ratios])
    phase = itertools.product((0.0, 1e-5, 1e-4, 1e-3), (1e-1, 1.0))
    both = [((a, b),) for a in phase for b in ((1e-4, 1e-1), (1e-2, 1.0), (1.0, 10.0), (100.0, 100.0))]
    yield p.fixed("hotopy CTF, two unknowns", general, (example, example))
    yield p.oracle("hotopy CTF, two unknowns", general, both)
    yield p.oracle("hotopy CTF, two unknowns, phase <= 0", lambda a: general(a, matter), both[2::8])

    more = [(n // 4, n // 4) for n in shape]
    padded = np.pad(p.images, [(0, 0), *more], constant_values=1)
    crop = tuple(slice(m[0], m[0] + n) for m, n in zip(more, shape, strict=True))

    def tikhonov(alpha, ratio=p.beta_delta, tv=None, steps=200):
        kind, extra = (Tikhonov, {}) if tv is None else (TikhonovTV, {"alpha_tv": tv})
        solve = kind(padded.shape[-2:], numbers, betadelta=ratio, alpha=alpha, **extra)
        return lambda: solve(padded, constraints=negative, max_iter=steps, rtol=5e-4).numpy()[crop]

    quick = lambda *setting: tikhonov(*setting, steps=60)
    without = lambda alpha, ratio, steps=200: tikhonov(alpha, ratio, None, steps)
    levels, weights = ((0, 1e-2), example, (1e-3, 1e-1), (0, 3e-1)), (1e-3, 3e-3, 1e-2, 3e-2)
    for ratio in ratios:
        said = "" if ratio == p.beta_delta else ", delta/beta of all materials"
        yield p.fixed("hotopy Tikhonov" + said, tikhonov, example, ratio)
        yield p.oracle("hotopy Tikhonov" + said, without, [(a, ratio) for a in levels], lambda a, r: without(a, r, 60))
        yield p.oracle("hotopy TV" + said, tikhonov, [(a, ratio, w) for a in levels[1::2] for w in weights], quick)


def hotopy_without_vacuum(p: Problem) -> Iterator[Case]:
    """CTF, non-linear Tikhonov and total variation of a specimen that goes on: the best padding and levels for the
    truth, frames over their mean, without a sign."""
    import torch  # pyright: ignore[reportMissingImports]
    from hotopy.holo import CTF, Tikhonov, TikhonovTV  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(THREADS)
    shape, images = p.images.shape[-2:], p.images / p.images.mean((1, 2), keepdims=True)
    more = [(n // 4, n // 4) for n in shape]
    crop = tuple(slice(m[0], m[0] + n) for m, n in zip(more, shape, strict=True))
    padded = {mode: np.pad(images, [(0, 0), *more], mode=mode) for mode in ("reflect", "edge")}
    padded["ones"] = np.pad(images, [(0, 0), *more], constant_values=1)
    wide = padded["ones"].shape[-2:]

    def ctf(alpha, padding):
        solve = CTF(wide, p.fresnel_numbers, alpha=alpha, betadelta=p.beta_delta, npad=1)
        return lambda: solve(padded[padding]).numpy()[crop]

    def tikhonov(alpha, padding, tv=None, steps=200):
        kind, extra = (Tikhonov, {}) if tv is None else (TikhonovTV, {"alpha_tv": tv})
        solve = kind(wide, p.fresnel_numbers, betadelta=p.beta_delta, alpha=alpha, **extra)
        return lambda: solve(padded[padding], max_iter=steps, rtol=5e-4).numpy()[crop]

    quick = lambda *setting: tikhonov(*setting, steps=60)
    levels = ((0.0, 5e-2), (1e-4, 1e-1), (1e-3, 1e-1), (1e-2, 1e-1), (1e-2, 3e-1))
    yield p.oracle("hotopy CTF", ctf, [(a, mode) for a in levels for mode in padded])
    yield p.oracle("hotopy Tikhonov", tikhonov, [(a, mode) for a in levels[1:4] for mode in padded], quick)
    both = [(a, mode, w) for a in levels[2:4] for mode in padded for w in (1e-3, 1e-2)]
    yield p.oracle("hotopy TV", tikhonov, both, quick)


# ---------------------------------------------------------------------------------------------------- nabu
def nabu(p: Problem) -> Iterator[Case]:
    """Paganin with all paddings, CTF of one distance."""
    from nabu.preproc.ctf import CTFPhaseRetrieval, GeoPars  # pyright: ignore[reportMissingImports]
    from nabu.preproc.phase import PaganinPhaseRetrieval  # pyright: ignore[reportMissingImports]

    first, shape, ratio = p.images[0], p.images.shape[-2:], 1 / p.beta_delta
    given = {"distance": float(p.distances[0]), "energy": p.energy / 1e3, "delta_beta": ratio, "pixel_size": p.pixel}
    place = GeoPars(z1_vh=None, z2=float(p.distances[0]), pix_size_det=p.pixel, wavelength=p.wavelength)

    def paganin(padding):
        solve = PaganinPhaseRetrieval(shape, padding=padding, fft_num_threads=THREADS, **given)
        return lambda: 0.5 * ratio * np.log(np.maximum(solve.apply_filter(first), 1e-6))

    def ctf(padding):
        solve = CTFPhaseRetrieval(shape, place, ratio, padding_mode=padding, fft_num_threads=THREADS)
        return lambda: solve.retrieve_phase(first)

    yield p.fixed("nabu Paganin, first distance (edge, its default)", paganin, "edge")
    for padding in ("zeros", "mean", "symmetric", "reflect"):
        yield p.fixed(f"nabu Paganin, first distance, {padding}", paganin, padding)
    for padding in ("reflect", "edge"):
        yield p.fixed(f"nabu CTF, first distance, {padding}", ctf, padding)


# ---------------------------------------------------------------------------------------------------- pyphase
def pyphase(p: Problem) -> Iterator[Case]:
    """CTF of one material, CTF of two unknowns, Paganin, mixed approach."""
    from pyphase import phaseretrieval as programs  # pyright: ignore[reportMissingImports]

    given = {"shape": p.images.shape[-2:], "pixel_size": p.pixel, "energy": p.energy / 1e3}
    images = p.images.astype(float)
    contact_first = np.concatenate([p.contact[None], images])

    def method(kind, alpha=None, **more):
        chosen = {} if alpha is None else {"alpha": alpha}
        solve = kind(**given, distance=p.distances, **chosen, **more)
        return lambda: solve.reconstruct_image(images)[0]

    def mixed(alpha=(-8, -10)):
        solve = programs.Mixed(**given, distance=np.concatenate([[0.0], p.distances]), alpha=alpha)
        solve.delta_beta = 1 / p.beta_delta
        return lambda: solve.reconstruct_image(contact_first.copy())[0]

    one = lambda *alpha: method(programs.CTFHOM, *alpha, delta_beta=1 / p.beta_delta)
    two = lambda *alpha: method(programs.CTF, *alpha)
    pairs = [((a, b),) for a in (-10, -8, -6, -4, -2) for b in (-10, -6, -3, -2, -1)]
    yield p.fixed("pyphase CTF of one material", one)
    # Its alpha is in units of (delta/beta)^2.
    yield p.oracle("pyphase CTF of one material", one, [((a + 6, b + 6),) for ((a, b),) in pairs])
    yield p.fixed("pyphase CTF, two unknowns", two)
    yield p.oracle("pyphase CTF, two unknowns", two, pairs)
    yield p.fixed("pyphase Paganin, all distances", lambda: method(programs.TIEHOM, delta_beta=1 / p.beta_delta))
    yield p.fixed("pyphase mixed approach, contact image", mixed)
    yield p.oracle("pyphase mixed approach, contact image", mixed, pairs[::3])


# ---------------------------------------------------------------------------------------------------- speed
def speed(p: Problem) -> Iterator[Case]:
    """hotopy's CTF, padded to twice the size, and without padding."""
    import torch  # pyright: ignore[reportMissingImports]
    from hotopy.holo import CTF  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(THREADS)

    def ctf(pad):
        solve = CTF(p.images.shape[-2:], p.fresnel_numbers, alpha=(0.0, 5e-2), betadelta=p.beta_delta, npad=pad)
        return lambda: solve(p.images).numpy()

    yield p.fixed("hotopy CTF", ctf, 2)
    yield p.fixed("hotopy CTF, no padding", ctf, 1)


# ---------------------------------------------------------------------------------------------------- run
def timed(solve: Solve) -> tuple[np.ndarray, float, float]:
    """Result, and CPU and wall seconds: once more, and for short runs the median of five, after a first run."""
    start = time.perf_counter()
    found = solve()
    repeats = 5 if time.perf_counter() - start < 3 else 1
    marks = [(time.process_time(), time.perf_counter())]
    for _ in range(repeats):
        solve()
        marks.append((time.process_time(), time.perf_counter()))
    cpu, wall = np.median(np.diff(marks, axis=0), axis=0)
    return found, float(cpu), float(wall)


def main() -> None:
    source, folder, program, *words = sys.argv[1:]
    lines, sys.stdout = sys.stdout, sys.stderr  # the programs print, too
    cases = {"hotopy": hotopy, "nabu": nabu, "pyphase": pyphase, "speed": speed}[program](Problem(source))
    for index, (label, make) in enumerate(cases):
        if words and not any(word.lower() in label.lower() for word in words):
            continue
        try:
            solve, note = make()
            phase, cpu, wall = timed(solve)
            path = Path(folder) / f"{program}{index}.npy"
            np.save(path, np.asarray(phase, np.float32))
            line = {"label": label, "cpu": cpu, "wall": wall, "note": note, "file": str(path)}
        except Exception as error:  # another program's failure is its line in the table
            line = {"label": label, "failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(line), file=lines, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
