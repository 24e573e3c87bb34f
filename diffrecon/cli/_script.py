"""`diffrecon script`: the Python that does what a configuration does."""

import argparse
from typing import Any

from ..errors import InputError
from ._settings import Settings, gather


def script(options: argparse.Namespace) -> int:
    """Print the script."""
    print(python(_settings(options.config), options.file), end="")
    return 0


def python(settings: Settings, file: str | None = None) -> str:
    """The text of the script."""
    file = file or settings.input or "FILE"
    out = settings.output["file"] or "reconstruction.h5"
    keywords = "".join(
        f",\n    {name}={value!r}"
        for name, value in [*([("method", settings.method)] if settings.method else []), *settings.file.items()]
    )
    lines = ["import diffrecon as dr", ""]
    recipe = {section: dict(values) for section, values in settings.recipe.items()}
    for (section, key), said in settings.sources.items():
        source, _, function = said.rpartition(":")
        parts = source.removesuffix(".py").split("/")
        if all(part.isidentifier() for part in parts):
            lines.insert(1, f"from {'.'.join(parts)} import {function}")
        else:
            lines[:1] = ["import runpy", "", *lines[:1], "", f"{function} = runpy.run_path({source!r})[{function!r}]"]
        recipe[section][key] = _Name(function)
    lines.append(f"scan = dr.open_scan({file!r}{keywords}{',' if keywords else ''}{chr(10) if keywords else ''})")
    if recipe:
        lines += ["settings = {", *(f"    {section!r}: {values!r}," for section, values in recipe.items()), "}"]
    lines.append(f"result = dr.reconstruct(scan{', settings=settings' if recipe else ''})")
    lines += ["for line in result.verdict:", "    print(line)", f"dr.write({out!r}, result, scan)"]
    if settings.output["picture"]:
        lines.append(f"dr.plot.figure(result, {out.rpartition('.')[0] + '.png'!r})")
    return "\n".join(lines) + "\n"


class _Name(str):
    """A name of the script, printed without quotes."""

    def __repr__(self) -> str:
        return str(self)


def _settings(path: str) -> Settings:
    if not path.endswith((".h5", ".hdf5", ".nxs")):
        return gather(path, [])
    import os
    import tempfile

    from .. import io

    process: dict[str, Any] = io.process(path)
    with tempfile.TemporaryDirectory() as folder:
        config = os.path.join(folder, "config.toml")
        with open(config, "w") as file:
            file.write(process["config"])
        settings = gather(config, [])
    if not settings.method and not settings.recipe:
        raise InputError(f"{path}: no configuration in it")
    settings.input = settings.input or process.get("input", {}).get("file")
    return settings
