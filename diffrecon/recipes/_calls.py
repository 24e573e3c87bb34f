"""What is called of recipes: settings, `reconstruct`, slabs, previews."""

from collections.abc import Callable, Mapping
from typing import Any

from .._console import Console
from .._look import names
from .._result import Result
from ..errors import InputError
from ..modality import Modality, find, recognise
from ..scan import Scan
from ..settings import as_dict, build, toml
from ._run import run


def defaults(method: str) -> Mapping[str, Mapping[str, Any]]:
    """Give every setting of a method with its default, by section.

    **Raises:** `InputError` for an unknown method, with the nearest known one.
    """
    return as_dict(find(method).settings())


def settings_text(method: str, value: Callable[[Any], str]) -> str:
    """Write every setting of a method as TOML with its documentation; `value` writes one value."""
    return toml(find(method).settings, method, value)


def check_settings(settings: Mapping[str, Mapping[str, Any]], method: str) -> Mapping[str, Mapping[str, Any]]:
    """Refuse settings before any work is done, and give all of them, defaults filled in.

    **Raises:** `InputError` for an unknown name, with the nearest known one, or a value that is not allowed.
    """
    return as_dict(build(find(method).settings, settings, method))


def reconstruct(
    scan: Scan,
    method: str | None = None,
    settings: Mapping[str, Mapping[str, Any]] | Any = None,
    console: Console | None = None,
) -> Result:
    """Prepare, guess, solve and judge, as the command line does.

    **Arguments:** `method` is taken from the scan by default; `settings` by section, such as
    `{"solver": {"name": "cgls"}}` (see `diffrecon.recipes.defaults`), or the method's own settings object; `console`
    shows progress (silent by default).

    **Returns:** a `Result`: quantities, quality figures, verdict.

    **Raises:** `InputError` when the scan lacks what the method needs or a setting is unknown.
    """
    return run(find(_method(scan, method)), scan, settings or {}, console or Console(quiet=True))


def wants_slabs(scan: Scan, method: str | None, settings: Mapping[str, Mapping[str, Any]]) -> bool:
    """Say whether the method goes through this scan slab by slab: by its settings, or for want of memory."""
    modality, built = _built(scan, method, settings)
    return modality.wants_slabs(scan, built)


def reconstruct_slabs(
    scan: Scan,
    method: str | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    console: Console | None = None,
    writer: Callable[..., Any] | None = None,
) -> Result:
    """Reconstruct slab by slab into a file, for volumes that memory does not hold.

    **Arguments:** `writer(shape, units, pixel_size, long_name, name="volume")` makes what slabs are written to, such as
    `lambda shape, units, pixel, *_, **__: diffrecon.io.open_volume("volume.h5", shape, units=units, pixel_size=pixel)`.

    **Returns:** a `Result` with the middle slice and the figures; the volume is in the file.

    **Raises:** `InputError` for methods and solvers that need the whole volume.
    """
    if writer is None:
        raise InputError("slabs need a writer")
    modality, built = _built(scan, method, settings)
    return modality.slabs(scan, built, console or Console(quiet=True), writer)


def preview(
    scan: Scan,
    method: str | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    console: Console | None = None,
) -> Result:
    """Take a first look in seconds: for tomography one slice with three rotation centres.

    **Raises:** `InputError` for methods without a preview.
    """
    modality, built = _built(scan, method, settings)
    return modality.preview(scan, built, console or Console(quiet=True))


def _built(scan: Scan, method: str | None, settings: Any) -> tuple[Modality, Any]:
    modality = find(_method(scan, method))
    return modality, build(modality.settings, settings or {}, modality.name)


def _method(scan: Scan, method: str | None) -> str:
    method = method or recognise(scan)
    if method is None:
        raise InputError(
            f"{scan.name}: it is not clear which measurement this is; choose a method with -m ({', '.join(names())})"
        )
    return method
