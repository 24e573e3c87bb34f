"""What `dr.reconstruct(scan, method, ...)` and the command line do for a modality.

One short file a modality: its `DEFAULTS` (every setting, by section) and a function
`(scan, settings, console) -> Result` that prepares, guesses, solves and judges. Recipes put models, solvers and
preparation together and touch no file.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from .._console import Console as Console
from .._result import Result
from ..errors import InputError
from ..scan import Scan
from ._settings import merge as merge
from ._settings import nearest as nearest

# method -> module in this folder; each has DEFAULTS and reconstruct(scan, settings, console)
METHODS: dict[str, str] = {
    "near-field-ptychography": "_ptychography",
    "far-field-ptychography": "_ptychography",
    "tomography": "_tomography",
    "holography": "_holography",
    "holotomography": "_holotomography",
    "laminography": "_laminography",
    "k-edge": "_kedge",
    "cdi": "_diffraction",
    "ptycho-tomography": "_ptychotomography",
    "saxs-tensor-tomography": "_scattering",
}


def defaults(method: str) -> Mapping[str, Mapping[str, Any]]:
    """Every setting of a method with its default, by section.

    **Raises:** `InputError` for an unknown method, with the nearest known one.
    """
    return _module(method).defaults(method)


def reconstruct(
    scan: Scan,
    method: str | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    console: Console | None = None,
) -> Result:
    """Prepare, guess, solve and judge, as the command line does.

    **Arguments:** `method` is taken from the scan by default; `settings` by section, such as
    `{"solver": {"name": "cgls"}}` (see `diffrecon.recipes.defaults`); `console` shows progress (silent by default).

    **Returns:** a `Result`: quantities, quality figures, verdict.

    **Raises:** `InputError` when the scan lacks what the method needs or a setting is unknown.
    """
    method = method or scan.method
    if method is None:
        raise InputError(
            f"{scan.name}: it is not clear which measurement this is; choose a method with -m ({', '.join(METHODS)})"
        )
    module = _module(method)
    return module.reconstruct(
        scan, merge(module.defaults(method), settings or {}, method), console or Console(quiet=True), method
    )


def wants_slabs(scan: Scan, method: str | None, settings: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the method would go through this scan slab by slab: as `solver.slab` says, or for want of memory."""
    method = method or scan.method or ""
    module = _module(method)
    return hasattr(module, "wants_slabs") and module.wants_slabs(scan, merge(module.defaults(method), settings, method))


def reconstruct_slabs(
    scan: Scan,
    method: str | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    console: Console | None = None,
    writer: Callable[..., Any] | None = None,
) -> Result:
    """As `reconstruct`, slab by slab into a file, for volumes that memory does not hold.

    **Arguments:** `writer(shape, units, pixel_size, long_name, name="volume")` makes what slabs are written to, such as
    `lambda shape, units, pixel, *_, **__: diffrecon.io.open_volume("volume.h5", shape, units=units, pixel_size=pixel)`.

    **Returns:** a `Result` with the middle slice and the figures; the volume is in the file.

    **Raises:** `InputError` for methods and solvers that need the whole volume.
    """
    method = method or scan.method or ""
    module = _module(method)
    if not hasattr(module, "reconstruct_slabs") or writer is None:
        raise InputError(f"{method} does not go slab by slab into a writer; tomography and holotomography do")
    return module.reconstruct_slabs(
        scan, merge(module.defaults(method), settings or {}, method), console or Console(quiet=True), method, writer
    )


def preview(
    scan: Scan,
    method: str | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    console: Console | None = None,
) -> Result:
    """A first look in seconds: for tomography one slice with three rotation centres.

    **Raises:** `InputError` for methods without a preview.
    """
    method = method or scan.method or ""
    module = _module(method)
    if not hasattr(module, "preview"):
        raise InputError(f"{method} has no preview; tomography has one")
    return module.preview(
        scan, merge(module.defaults(method), settings or {}, method), console or Console(quiet=True), method
    )


def _module(method: str) -> Any:
    if method not in METHODS:
        raise InputError(f"there is no method {method!r}{nearest(method, METHODS)}")
    return importlib.import_module(f".{METHODS[method]}", __name__)
