"""Configuration files and `--set` to settings: what is said about the file, and what the recipe is to do."""

import dataclasses
import importlib.util
import sys
import tomllib
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, nearest, suggestion
from ._explain import keys, meant, of_files

OUTPUT = {"file": None, "picture": True}
"""The [output] section: name of the file, whether a picture is drawn beside it."""


@dataclasses.dataclass
class Settings:
    """Settings sorted by who takes them.

    **Fields:** `file` for `open_scan` (plain names), `recipe` by section, `output`, `method` and `input` where a
    configuration names them, `sources` = texts that stand for loaded functions (kept for the record).
    """

    file: dict[str, Any]
    recipe: dict[str, dict[str, Any]]
    output: dict[str, Any]
    method: str | None
    input: str | None
    sources: dict[tuple[str, str], str]

    def record(self, used: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Every setting of a run, as it is written into the result: what was used, and what was said about the file."""
        from ..io import KEYS

        record = {section: dict(values) for section, values in used.items()}
        for name, value in self.file.items():
            record.setdefault(KEYS[name].section, {})[name] = value
        for (section, key), said in self.sources.items():
            record.setdefault(section, {})[key] = said
        return record


def gather(config: str | None, sets: Sequence[str], load: bool = False, code: bool = False) -> Settings:
    """Read a configuration and lay the `--set` values over it.

    **Arguments:** `load`: a cost function that the user names on the command line is imported, which runs its file;
    one that a configuration names only with `code`. Without `load` names stay texts: nothing is run.

    **Raises:** `InputError` naming the file, the key, and the nearest known name.
    """
    tree = _read_toml(config) if config else {}
    written = _function_of(tree)
    for item in sets:
        section, key, value = _parse(item)
        inner = tree.setdefault(section, {}) if key else tree
        if not isinstance(inner, dict):
            inner = tree[section] = {"function": inner}
        inner[key or section] = value
    said = _function_of(tree)
    if load and not code and said is not None and said == written and not any(map(_sets_function, sets)):
        raise InputError(
            f"{config}: loss {said!r} is Python that would run: if you trust it, add --allow-code, or say it "
            f"yourself with --set loss={said}"
        )
    return _sorted(tree, config or "--set", Path(config).parent if config else Path(), load)


def _function_of(tree: Mapping[str, Any]) -> str | None:
    """Give the text that names a cost function."""
    loss = tree.get("loss")
    said = loss.get("function") if isinstance(loss, dict) else loss
    return said if isinstance(said, str) else None


def _sets_function(item: str) -> bool:
    return item.partition("=")[0].strip() in ("loss", "loss.function")


def _read_toml(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not TOML: {error}") from error


def _parse(item: str) -> tuple[str, str, Any]:
    name, equals, value = item.partition("=")
    section, _, key = name.strip().partition(".")
    if not equals or not section or (not key and section != "loss"):
        raise InputError(f"--set {item!r}: write section.key=value, e.g. --set solver.steps=100")
    return section, key, parse_value(value)


def parse_value(text: str) -> Any:
    """A value of the command line: TOML where it is TOML (numbers, true, lists, quoted texts), else a text.

    ```python
    assert parse_value("[1, 2]") == [1, 2] and parse_value("17 keV") == "17 keV" and parse_value("/z1") == "/z1"
    ```
    """
    text = text.strip()
    try:
        value = tomllib.loads(f"x = {text}")
        # Two lines in, or a date: not what one types after --set.
        plain = len(value) == 1 and isinstance(value["x"], bool | int | float | str | list | dict)
        return value["x"] if plain else text
    except tomllib.TOMLDecodeError:
        return {"True": True, "False": False}.get(text, text)


def _sorted(tree: dict[str, Any], origin: str, folder: Path, load: bool) -> Settings:
    from ..io import KEYS

    settings = Settings({}, {}, dict(OUTPUT), None, None, {})
    for section, values in tree.items():
        if section in ("method", "input") and isinstance(values, str):
            setattr(settings, section, values)
        elif section == "loss" and isinstance(values, str):
            settings.recipe.setdefault("loss", {})["function"] = values
        elif not isinstance(values, dict):
            raise InputError(f"{origin}: {section} is no section{nearest(section, ('method', 'input', 'loss'))}")
        elif section == "output":
            _checked_output(values, origin)
            settings.output |= values
        else:
            for key, value in values.items():
                if section not in ("data", "geometry"):
                    settings.recipe.setdefault(section, {})[key] = value
                    continue
                if key not in KEYS or KEYS[key].section != section:
                    name = f"{section}.{key}"
                    hint = suggestion(name, of_files()) or meant(name)
                    raise InputError(f"{origin}: there is no setting {name}{hint}")
                settings.file[key] = value
    _functions(settings, folder, load)
    return settings


def _checked_output(values: dict[str, Any], origin: str) -> None:
    for key in values:
        if key not in OUTPUT:
            raise InputError(f"{origin}: there is no setting output.{key}{nearest(key, OUTPUT)}")


def _functions(settings: Settings, folder: Path, load: bool) -> None:
    """Turn `loss.function`, the only setting that may name Python, from a text `file.py:function` into a function."""
    loss = settings.recipe.get("loss", {})
    said = loss.get("function")
    if not isinstance(said, str):
        return
    file, _, name = said.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise InputError(f"loss {said!r}: name a function of your own as file.py:function")
    settings.sources["loss", "function"] = said
    if load:
        loss["function"] = load_function(said, folder)


def refuse_unknown(settings: Settings, method: str) -> Mapping[str, Mapping[str, Any]]:
    """Check what is left for the recipe before any work is done, and give all settings of the method.

    **Raises:** `InputError` with the nearest name.
    """
    from .. import recipes

    try:
        return recipes.check_settings(settings.recipe, method)
    except InputError:
        known = keys(method)
        for name in (f"{section}.{key}" for section, values in settings.recipe.items() for key in values):
            if name not in known:
                raise InputError(f"{method} has no setting {name}{meant(name, method)}") from None
        raise


def load_function(text: str, folder: str | Path = ".") -> Callable[..., Any]:
    """A function of a Python file, from `"file.py:function"`, relative to `folder` or to the current directory.

    **Raises:** `InputError` when the file or the function is not there, or when the file does not run.
    """
    file, _, name = text.rpartition(":")
    path = next((p for p in (Path(folder) / file, Path(file)) if p.is_file()), None)
    if path is None:
        raise InputError(f"{text}: there is no file {file}")
    module = run_file(path)
    function = getattr(module, name, None)
    if not callable(function):
        known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise InputError(f"{file} has no function {name!r}{nearest(name, known)}")
    return function


def run_file(path: str | Path) -> Any:
    """Run a Python file of the user's as a module.

    **Raises:** `InputError` when it is not there or does not run, with the line of it that failed.
    """
    path = Path(path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise InputError(f"there is no Python file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses and pickles look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
        where = f" (line {lines[-1]})" if lines else ""
        raise InputError(f"{path.name} does not run{where}: {type(error).__name__}: {error}") from error
    return module
