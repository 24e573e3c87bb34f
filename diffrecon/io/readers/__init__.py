"""Files in: one module a format, with `probe(source) -> bool` and `read(source, given) -> values`, and their register.

The package's own formats come through the same door as those of users: `register_reader`.
"""

import dataclasses
import functools
import importlib.metadata
from collections.abc import Callable
from typing import Any

from ...errors import InputError
from ..source import Source
from . import (
    cxi,
    datasets,
    differential,
    dxchange,
    fluorescence,
    folder,
    joint,
    kedge,
    mumott,
    native,
    npz,
    nxtomo,
    powder,
    ptyd,
    pymca,
)

__all__ = ["Reader", "readers", "register_reader"]


@dataclasses.dataclass(frozen=True)
class Reader:
    """A format of files.

    **Fields:** `name` for messages; `probe(source)`, whether a file or folder is of this format; `read(source, given)`,
    its values by the names of `open_scan` (`counts`, `angles`, `energy`, ...) in SI units, `method`, and anything else
    that a model reads from `scan.extra`. `given` are the values that the user states; they win without the reader's
    doing.
    """

    name: str
    probe: Callable[[Source], bool]
    read: Callable[[Source, dict[str, Any]], dict[str, Any]]


_REGISTERED: list[Reader] = []


def register_reader(reader: Reader) -> None:
    """Make a format known to `open_scan` and to the command line; the last registered is asked first.

    An installed package names its readers by entry points of the group `diffrecon.readers`.

    **Raises:** `InputError` for something that is no `Reader`.

    ```python
    def read(source, given):
        frames = np.loadtxt(source.path, delimiter=";").reshape(4, 8, 8)
        return {"counts": frames, "angles": np.linspace(0, 3, 4), "angle_unit": "rad", "method": "tomography"}

    dr.io.register_reader(dr.io.Reader("our beamline", lambda source: source.path.suffix == ".ours", read))
    np.savetxt("scan.ours", np.ones((4, 64)), delimiter=";")
    assert dr.open_scan("scan.ours").views == 4
    ```
    """
    if not isinstance(reader, Reader):
        raise InputError(f"{reader!r} is no reader: register_reader(Reader(name, probe, read))")
    _REGISTERED.insert(0, reader)


def readers() -> list[Reader]:
    """List the known formats in the order in which a file is tried for them."""
    _register_installed()
    return list(_REGISTERED)


@functools.cache
def _register_installed() -> None:
    for point in importlib.metadata.entry_points(group="diffrecon.readers"):
        register_reader(point.load())


# The least particular format first, so that it is tried last.
for _name, _module in {
    "images": folder, "NumPy": npz, "images in HDF5": datasets, "PyMca": pymca, "diffrecon": native,
    "DXchange": dxchange, "NXtomo": nxtomo, "mumott": mumott, "CXI": cxi, "ptypy": ptyd, "powder diffraction": powder,
    "differential phase": differential,
    "fluorescence": fluorescence,
    "k-edge tomography": kedge,
    "fluorescence and ptychography": joint,
}.items():  # fmt: skip
    register_reader(Reader(_name, _module.probe, _module.read))
