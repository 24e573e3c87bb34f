"""One table of all benchmarks, `docs/performance.md`, from the figures stored in `benchmarks/results.jsonl`.

    python benchmarks/table.py                     # write the page
    python benchmarks/table.py --add 'JSON'        # store a measurement first, with today's date, versions and machine

A line of the store: `case`, `figure` (what is compared, with its unit), `ours`, `peers` (name -> value), `command`,
`date`, `versions`, `machine`; `note`. Less is better in every figure. Of lines of one case and figure the last counts.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

STORE = Path(__file__).resolve().parent / "results.jsonl"
PAGE = STORE.parents[1] / "docs" / "performance.md"
_COLUMNS = ("case", "figure", "diffrecon", "best other", "ratio", "measured")
HEAD = """\
# Performance

Every benchmark beside the best other package for the same figure. Ratio: theirs over ours, above one where diffrecon is
better. Seconds are processor seconds after compilation; the machines were shared, so that ratios of two or less may be
the machine's. Errors are against a known truth, or on data that were never fitted. A dash: no other package was found
that does it, or none was measured. All lines of each benchmark, with what was told to whom:
[benchmarks](../benchmarks/README.md).

This page is written by `python benchmarks/table.py` from `benchmarks/results.jsonl`; the scripts are in `benchmarks`.

"""


def store(line: dict[str, Any]) -> None:
    """Add a measurement of today on this machine."""
    versions = {name: importlib.metadata.version(name) for name in ("diffrecon", "jax", "numpy") if _installed(name)}
    machine = f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}"
    made = {"date": datetime.date.today().isoformat(), "versions": versions, "machine": machine}
    with STORE.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**line, **made}) + "\n")


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
    note = f" ({line['note']})" if line.get("note") else ""
    peers = {name: value for name, value in line["peers"].items() if value is not None}
    best = min(peers, key=lambda name: peers[name]) if peers else None
    other, ratio = ("-", "-") if best is None else (f"{peers[best]:g}, {best}", f"{peers[best] / line['ours']:.2g}")
    return f"| {line['case']}{note} | {line['figure']} | {line['ours']:g} | {other} | {ratio} | {line['date']} |\n"


def _made(line: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in line["versions"].items())
    return f"{line['date']}: {versions}; {line['machine']}."


def main() -> None:
    """Store what is given, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", metavar="JSON", help="a measurement: case, figure, ours, peers, command, note")
    options = parser.parse_args()
    if options.add:
        store(json.loads(options.add))
    lines = [json.loads(line) for line in STORE.read_text(encoding="utf-8").splitlines() if line.strip()]
    PAGE.write_text(page(lines), encoding="utf-8")
    print(f"{PAGE}: {len(lines)} measurements")


if __name__ == "__main__":
    main()
