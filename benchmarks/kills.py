"""Is a run that was killed, and resumed, equal to one that was not? `kill -9` at random times, over all methods.

    python benchmarks/kills.py [--only WORD ...] [--runs 20] [--seed N]

Every method reconstructs its demo with few steps, once undisturbed; then again and again, killed at a random time and
resumed with the same settings. Printed for each kill: when it came, how long the resumed run took beside the whole one,
and the largest difference of any quantity, relative to its largest value. Nothing half-written may be left under the
final name. States that solvers keep once a minute are kept at every chance here, so that short runs have some.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from diffrecon import io, simulate
from diffrecon.errors import InputError

RUN = """
import sys, time
clock, ticks = time.monotonic, iter(range(10**9))
time.monotonic = lambda: clock() + 61.0 * next(ticks)  # a minute goes by whenever somebody looks
from diffrecon.cli import main
sys.exit(main(sys.argv[1:]))
"""

# Few steps where the default takes minutes; what is not named here runs as it is.
SHORT = {
    "near-field-ptychography": ("solver.epochs=10",),
    "tomography": ("solver.name=cgls", "solver.slab=1"),
    "holography": (),
    "holotomography": ("solver.steps=6", "solver.align=1"),
    "cdi": ("solver.starts=4", "solver.steps=60", "solver.refine=20"),
    "ptycho-tomography": ("solver.steps=20",),
    "fluorescence-ptychography": ("solver.first=60", "solver.separation=40", "solver.steps=40"),
    "speckle": ("solver.rounds=4",),
    "grating": ("solver.rounds=4",),
}


def command(file: Path, output: Path, settings: tuple[str, ...], *more: str) -> list[str]:
    """Write the command line of a run."""
    told = [word for text in (*settings, "output.picture=false") for word in ("--set", text)]
    return [sys.executable, "-c", RUN, "reconstruct", str(file), "-o", str(output), "--quiet", *told, *more]


def finished(words: list[str]) -> float:
    """Run to the end: seconds."""
    start = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return time.monotonic() - start


def difference(one: Path, other: Path) -> float:
    """Compare two results: the largest difference of a quantity, of its largest value."""
    first, second = io.read_result(one), io.read_result(other)
    worst = 0.0 if set(first.quantities) == set(second.quantities) else np.inf
    for name in set(first.quantities) & set(second.quantities):
        a, b = np.asarray(first[name]), np.asarray(second[name])
        scale = max(float(np.nanmax(np.abs(a), initial=0)), 1e-30)
        apart = np.where(np.isnan(a) & np.isnan(b), 0, np.abs(a - b)) if a.shape == b.shape else np.inf
        worst = max(worst, float(np.max(apart, initial=0)) / scale)
    return worst


def whole_there(reference: Path, output: Path) -> bool:
    """Whether a run that was killed after it had written its result has left the whole of it."""
    try:
        return difference(reference, output) < 1e-3
    except (InputError, OSError, KeyError):
        return False


def killed(words: list[str], after: float) -> bool:
    """Start a run and kill it; whether it was still running."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(after)
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True


def main() -> int:
    """Go through the methods in turn until as many runs were killed as asked for."""
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("--only", nargs="*", default=[])
    options.add_argument("--runs", type=int, default=20)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    methods = [m for m in simulate.methods() if not chosen.only or any(word in m for word in chosen.only)]
    draw, whole, bad = random.Random(chosen.seed), {}, 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(chosen.runs):
            method = methods[number % len(methods)]
            file, settings = Path(folder) / f"{method}.h5", (*simulate.settings(method), *SHORT.get(method, ()))
            reference, output = (Path(folder) / f"{method}_{name}.h5" for name in ("whole", f"run_{number}"))
            if method not in whole:
                simulate.demo_file(method, file, chosen.seed)
                finished(command(file, reference, settings))
                reference.unlink()
                whole[method] = finished(command(file, reference, settings))  # programs are compiled by now
            after = draw.uniform(0.15, 1.0) * whole[method]
            running = killed(command(file, output, settings), after)
            torn = running and output.exists() and not whole_there(reference, output)
            took = finished(command(file, output, settings, "--resume", "--force"))
            apart = difference(reference, output)
            wrong = torn or apart > 1e-3
            bad += wrong
            print(f"{'WRONG' if wrong else 'ok   '} {method}: killed after {after:.1f} of {whole[method]:.1f} s"
                  f"{'' if running else ' (was done)'}, resumed in {took:.1f} s, {apart:.1e} apart"
                  f"{', half a result was left' if torn else ''}", flush=True)  # fmt: skip
    print(f"{chosen.runs} kills, {bad} wrong")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
