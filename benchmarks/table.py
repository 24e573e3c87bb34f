"""One table of all benchmarks, `docs/performance.md`, from the figures stored in `benchmarks/results.jsonl`.

    python benchmarks/table.py                              # write the page of what is stored
    python benchmarks/table.py --run [SCRIPT ...] --data FOLDER [--peers PYTHON]   # measure first, all or some

A script notes every figure with the program that it is of (`note`), and stores them where it is told to (`--store`):
one line a case and figure. A program that is not there today keeps the value that it had, with its date. FOLDER holds
the files that `RUNS` names; a script whose file is not there is left out with a line.

A line of the store: `case`, `figure` (what is compared, with its unit), `ours`, `peers` (name -> value), `command`,
`date`, `versions`, `machine`; `note`; `earlier` (name -> date of its value). Less is better in every figure. Of lines
of one case and figure the last counts.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

STORE = Path(__file__).resolve().parent / "results.jsonl"
PAGE = STORE.parents[1] / "docs" / "performance.md"
_COLUMNS = ("case", "figure", "diffrecon", "best other", "ratio", "measured")
HEAD = """\
# Performance

Every benchmark beside the best other package for the same figure, or the usual method where no package was run. Ratio:
theirs over ours, above one where diffrecon is better. Seconds are processor seconds after compilation; the machines
were shared, so that ratios of two or less may be the machine's. Errors are against a known truth, or on data that were
never fitted. A dash: no other package was found that does it, or none was measured. All lines of each benchmark, with
what was told to whom: [benchmarks](../benchmarks/README.md).

One command measures and writes this page: `python benchmarks/table.py --run --data FOLDER`; the scripts are in
`benchmarks`.

"""


OURS = "diffrecon"
RUNS = {  # script -> its arguments; {data} and {peers} are those of the command line
    "projection": (),
    "tomography": ("{data}/real/tooth.h5",),
    "few_views": (),
    "laminography": ("--tilt", "30"),
    "ptychography": ("--data", "{data}/real"),
    "holography": ("--data", "{data}/simulated/holograms_weak_512.h5", "{data}/simulated/holograms_strong_512.h5"),
    "scattering": ("--scan", "{data}/simulated/saxs_helix_n32.h5"),
    "diffraction": ("--file", "{data}/simulated/powder_sinogram_n44.h5"),
    "fluorescence": ("{data}/simulated/fluorescence_2d_n64.h5",),
    "refraction": ("{data}/simulated/differential_phase_speckle_micro.h5", "--views", "15"),
    "single_shot": (),
}
WITH_PEERS = ("holography", "refraction")  # that run the others by an interpreter of their own
PEERS = {  # distributions whose versions stand below a table
    "astra-toolbox": "ASTRA", "jax-finufft": "jax-finufft", "scikit-image": "scikit-image", "algotom": "algotom",
    "mbirjax": "mbirjax", "ptychi": "pty-chi", "PtyLab": "PtyLab", "cdtools-py": "cdtools", "mumott": "mumott",
    "pyFAI": "pyFAI", "hotopy": "hotopy", "nabu": "nabu", "pyphase": "pyphase",
}  # fmt: skip
_noted: dict[tuple[str, str], dict[str, float]] = {}


def arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Give the parser of a script the option that stores what it notes."""
    parser.add_argument("--store", action="store_true", help="keep the figures in results.jsonl (table.py)")
    return parser


def note(case: str, figure: str, value: float, program: str = OURS) -> None:
    """Note a figure of a program, the least of several; a case that ends with `*` stands for ours that begin so."""
    values = _noted.setdefault((case, figure), {})
    values[program] = min(float(f"{value:.3g}"), values.get(program, float("inf")))


def keep(options: argparse.Namespace, command: str) -> None:
    """Store what was noted, one line a case and figure that is ours, where the script was told to."""
    if not options.store:
        return
    last = {(line["case"], line["figure"]): line for line in _stored()}
    for (case, figure), values in _noted.items():
        if OURS not in values:
            continue
        shared = [v for (c, f), v in _noted.items() if c.endswith("*") and case.startswith(c[:-1]) and f == figure]
        peers = {k: v for found in (*shared, values) for k, v in found.items() if k != OURS}
        before = last.get((case, figure), {})
        absent = {name: value for name, value in before.get("peers", {}).items() if name not in peers}
        earlier = {name: before.get("earlier", {}).get(name, before["date"]) for name in absent}
        line = {"case": case, "figure": figure, "ours": values[OURS], "peers": peers | absent, "command": command}
        store(line | ({"earlier": earlier} if earlier else {}))


def store(line: dict[str, Any]) -> None:
    """Add a measurement of today on this machine."""
    others = {name: said for name, said in PEERS.items() if said in str(line["peers"])}
    names = {name: name for name in (OURS, "jax", "numpy")} | others
    versions = {said: importlib.metadata.version(name) for name, said in names.items() if _installed(name)}
    machine = f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.0f}"
    made = {"date": datetime.date.today().isoformat(), "versions": versions, "machine": machine}
    with STORE.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**line, **made}) + "\n")


def _stored() -> list[dict[str, Any]]:
    return [json.loads(line) for line in STORE.read_text(encoding="utf-8").splitlines() if line.strip()]


def run(scripts: list[str], data: str, peers: str | None) -> None:
    """Run scripts, each in a process of its own, and have them store their figures."""
    unknown = [name for name in scripts if name not in RUNS]
    if unknown:
        sys.exit(f"no script {', '.join(unknown)}; there is {', '.join(RUNS)}")
    for name in scripts or RUNS:
        words = [word.format(data=data) for word in RUNS[name]]
        lacks = [word for word in words if word.startswith(data) and not Path(word).exists()]
        if lacks:
            print(f"{name}: left out, {', '.join(lacks)} is not there")
            continue
        more = ["--peers", peers] if peers and name in WITH_PEERS else []
        command = [sys.executable, str(STORE.with_name(f"{name}.py")), *words, *more, "--store"]
        print(" ".join(command), flush=True)
        if subprocess.run(command).returncode:
            print(f"{name}: failed; its figures are those stored before")


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def page(lines: list[dict[str, Any]]) -> str:
    """Write the table: one line a case and figure, by command."""
    last = {(line["case"], line["figure"]): line for line in lines}
    parts, scripts = [HEAD], dict.fromkeys(line["command"] for line in last.values())
    for command in scripts:
        rows = [line for line in last.values() if line["command"] == command]
        parts += [f"## `{command}`\n\n", f"| {' | '.join(_COLUMNS)} |\n", "|---" * len(_COLUMNS), "|\n"]
        parts += [_row(line) for line in rows]
        parts.append("\n" + "\n".join(sorted({_made(line) for line in rows})) + "\n\n")
    return "".join(parts).rstrip() + "\n"


def _row(line: dict[str, Any]) -> str:
    peers = {name: value for name, value in line["peers"].items() if value is not None}
    best = min(peers, key=lambda name: peers[name]) if peers else None
    dated = f"{best} on {line['earlier'][best]}" if best in line.get("earlier", {}) else ""
    words = "; ".join(word for word in (line.get("note"), dated) if word)
    note = f" ({words})" if words else ""
    other, ratio = ("-", "-") if best is None else (f"{peers[best]:g}, {best}", f"{peers[best] / line['ours']:.2g}")
    return f"| {line['case']}{note} | {line['figure']} | {line['ours']:g} | {other} | {ratio} | {line['date']} |\n"


def _made(line: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in line["versions"].items())
    return f"{line['date']}: {versions}; {line['machine']}."


def main() -> None:
    """Measure, where that is asked for, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="*", metavar="SCRIPT", help=f"of {', '.join(RUNS)}; all")
    parser.add_argument("--data", default="../shared/data", help="folder of the files that scripts read")
    parser.add_argument("--peers", metavar="PYTHON", help="of an environment with the other programs")
    options = parser.parse_args()
    if options.run is not None:
        run(options.run, options.data, options.peers)
    lines = _stored()
    PAGE.write_text(page(lines), encoding="utf-8")
    print(f"{PAGE}: {len(lines)} measurements")


if __name__ == "__main__":
    main()
