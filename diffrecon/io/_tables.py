"""Numbers that come as text: tables of angles and positions, and ranges of angles."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np

from .. import physics
from ..errors import InputError

_RANGE = re.compile(r"^\s*([-+.\deE]+?)\s*\.\.(<?)\s*([-+.\deE]+?)\s*([^\W\d]*)\s*$")
_UNIT = re.compile(r"(?:^|[^a-z])(deg|degree|degrees|rad|radian|radians|mrad|urad)(?:[^a-z]|$)", re.IGNORECASE)


def load_table(path: Path, column: str | None = None) -> tuple[np.ndarray, str | None]:
    """Read numbers of a `.npy` or text file (columns by spaces, commas or semicolons; lines with # left out), and their
    unit where the header line, a comment or the file's name says one.

    **Arguments:** `column`, a pattern: of a table with headers only the column of such a name is taken; of a table of
    two columns whose first counts the lines, the second.

    **Raises:** `InputError` when it holds something else.
    """
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False, mmap_mode="r"), _unit(path.stem)
        lines = path.read_text().replace(",", " ").replace(";", " ").splitlines()
        head = [line.lstrip("# ") for line in lines if line.startswith("#")]
        body = [line for line in lines if line.strip() and not line.startswith("#")]
        if body and not _numeric(body[0]):
            head, body = [*head, body[0]], body[1:]
        table = np.loadtxt(body, ndmin=1)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a table of numbers ({str(error).splitlines()[0]})") from error
    return _column(table, head, column), _unit(" ".join(head)) or _unit(path.stem)


def _numeric(line: str) -> bool:
    try:
        [float(word) for word in line.split()]
    except ValueError:
        return False
    return True


def _column(table: np.ndarray, head: list[str], pattern: str | None) -> np.ndarray:
    if pattern is None or table.ndim != 2 or table.shape[1] < 2:
        return table
    names = head[-1].split() if head else []
    named = [i for i, name in enumerate(names) if re.search(pattern, name, re.IGNORECASE)]
    if len(names) == table.shape[1] and len(named) == 1:
        return table[:, named[0]]
    counts = table.shape[1] == 2 and (np.diff(table[:, 0]) == 1).all() and table[0, 0] in (0, 1)
    return table[:, 1] if counts else table


def _unit(words: str) -> str | None:
    found = _UNIT.search(words.replace("_", " "))
    return found[1].lower() if found else None


@dataclasses.dataclass(frozen=True)
class AngleRange:
    """Angles spread evenly over the views, written `"0..180 deg"`, `"0..<360 deg"` or `[0, 180, "deg"]`.

    Both ends are views, as in `numpy.linspace`; with `..<` the last is left out, for scans that stop one step before
    the full turn.
    """

    first: float
    last: float
    unit: str
    whole: bool

    @classmethod
    def parse(cls, value: Any) -> "AngleRange | None":
        """Read the range that a text or a list of three says; `None` for everything else.

        **Raises:** `InputError` for a range without a unit, or of a unit that is no angle.
        """
        if isinstance(value, str) and (found := _RANGE.match(value)):
            first, last, unit, whole = found[1], found[3], found[4], not found[2]
        elif isinstance(value, list | tuple) and len(value) == 3 and isinstance(value[2], str):
            first, last, unit, whole = *value, True
        else:
            return None
        try:
            ends = float(first), float(last)
        except (TypeError, ValueError):
            raise InputError(f'data.angles: {value!r} is no range of angles; write "0..180 deg"') from None
        if not unit:
            raise InputError(f'data.angles: {value!r} has no unit; write "{first}..{last} deg" or rad')
        if not np.isfinite(ends).all() or ends[0] == ends[1]:
            raise InputError(f"data.angles: {value!r} spans no angle")
        physics.unit_scale(unit, "rad")
        return cls(*ends, unit, whole)

    def over(self, views: int) -> tuple[np.ndarray, str]:
        """Give angles [rad] of so many views, and a message that says how they lie."""
        angles = np.linspace(self.first, self.last, views, endpoint=self.whole)
        said = "both ends included" if self.whole else "the last left out"
        step = angles[1] - angles[0] if views > 1 else 0.0
        return (
            angles * physics.unit_scale(self.unit, "rad"),
            f"{views} angles from {self.first:g} to {self.last:g} {self.unit}, {said}: step {step:.6g} {self.unit}",
        )
