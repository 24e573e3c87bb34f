"""What a user waits for: first and second runs of demos, by this checkout and by another, in one run on one machine.

    python benchmarks/startup.py OTHER_CHECKOUT [--runs 5] [--only WORD ...]

Every run is a process of its own: import, simulated data, compilation, reconstruction, picture. A first run has an
empty cache of compiled programs, a second run that of the first; a checkout that keeps no programs is as slow both
times. The two checkouts take turns, so that whatever else the machine does hits both alike. Printed are medians of CPU
and wall seconds (of the process and its children, by `resource.getrusage`) and the ratio of this checkout to the other.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parents[1]
DEMOS = ("near-field-ptychography", "tomography", "holography", "saxs-tensor-tomography")


class Seconds(NamedTuple):
    """What a process took."""

    cpu: float
    wall: float


def demo(checkout: Path, method: str, cache: Path) -> Seconds:
    """Run a demo in a folder of its own.

    **Raises:** `CalledProcessError` where it fails; what it printed comes first.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment |= {"PYTHONPATH": str(checkout), "DIFFRECON_CACHE": str(cache)}
    with tempfile.TemporaryDirectory() as folder:
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-m", "diffrecon", "demo", method]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        done.check_returncode()
    return Seconds(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)


def both_runs(checkout: Path, method: str) -> tuple[Seconds, Seconds]:
    """Run a demo without and with the programs that the run before has compiled."""
    with tempfile.TemporaryDirectory() as cache:
        return demo(checkout, method, Path(cache)), demo(checkout, method, Path(cache))


def compare(other: Path, method: str, runs: int) -> None:
    """Print a table of one demo."""
    pairs = [(both_runs(HERE, method), both_runs(other, method)) for _ in range(runs)]
    print(f"{method}, medians of {runs}")
    for index, name in enumerate(("first run", "second run")):
        for unit in ("cpu", "wall"):
            ours, theirs = (statistics.median(getattr(pair[side][index], unit) for pair in pairs) for side in (0, 1))
            print(f"  {name:10s} {unit:4s} {ours:7.2f} s, other {theirs:7.2f} s, ratio {ours / theirs:.2f}", flush=True)


def main() -> None:
    """Compare all demos, or some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="folder of the other checkout")
    parser.add_argument("--runs", type=int, default=5, help="repetitions, of which medians are printed")
    parser.add_argument("--only", nargs="*", help="demos whose name contains one of these words")
    options = parser.parse_args()
    if not (options.other / "diffrecon" / "__init__.py").exists():
        parser.error(f"{options.other} is no checkout of diffrecon")
    for method in DEMOS:
        if not options.only or any(word in method for word in options.only):
            compare(options.other.resolve(), method, options.runs)


if __name__ == "__main__":
    main()
