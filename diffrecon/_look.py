"""What a method says of a scan before anything is solved, and the register of methods: all that `inspect` needs.

Nothing here or in a look of the package's own imports jax.
"""

import importlib.metadata
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from .scan import Scan

__all__ = ["REGISTERED", "Look", "entry_points", "names"]

REGISTERED: dict[str, Any] = {}
"""Methods by name: a `Modality`, or the text `"package.module:Class"` of one that nobody has used yet."""


class Look:
    """What a method needs of a scan, and what it finds odd about one."""

    name: ClassVar[str]
    needs: ClassVar[Mapping[str, tuple[str, str]]] = {}  # field of the scan -> what it is, an example for --set
    wishes: ClassVar[tuple[str, ...]] = ()  # fields of the scan that it uses where they are known
    asks: ClassVar[Mapping[str, tuple[str, str]]] = {}  # setting without a default -> what it is, an example for --set
    # What it uses of a scan's fields and `extra`: the rest is named, or refused where the user says it.
    uses: ClassVar[tuple[str, ...]] = ()

    def recognises(self, scan: Scan) -> bool:
        """Say whether a scan whose file does not name its method looks like one of this."""
        return False

    def look_at(self, scan: Scan) -> list[str]:
        """Say what is odd about a scan, before anything is solved: what `inspect` shows as problems.

        **Raises:** `InputError` for a scan that the method would refuse.
        """
        for name, (what, example) in self.needs.items():
            scan.require(name, what, example)
        return []


def names() -> list[str]:
    """List every method: those registered, and those of installed packages."""
    return [*dict.fromkeys([*REGISTERED, *(point.name for point in entry_points())])]


def entry_points() -> Iterable[importlib.metadata.EntryPoint]:
    """Find the methods of installed packages."""
    return importlib.metadata.entry_points(group="diffrecon.modalities")
