"""`diffrecon explain`: what a setting does, in every method that has it."""

import argparse
from collections import defaultdict

from ..errors import InputError, nearest, suggestion


def explain(options: argparse.Namespace) -> int:
    """Print one setting, or every one of a section, with unit, choices, bounds and default."""
    known = keys(options.method)
    wanted = [name for name in known if options.key in (name, *name.split("."))]
    if not wanted:
        of = f" of {options.method}" if options.method else ""
        raise InputError(f"there is no setting {options.key!r}{of}{meant(options.key, options.method)}")
    for name in wanted:
        print(name)
        for said, methods in known[name].items():
            of = f"{', '.join(methods)}: " if methods else ""
            print(f"  {of}{said}")
    return 0


def meant(name: str, method: str | None = None) -> str:
    """A hint for an unknown `section.key`: the setting that was meant, or those of its section."""
    says = {key: " ".join(words) for key, words in keys(method).items()}
    section = name.rpartition(".")[0]
    return suggestion(name, says) or nearest(name, [key for key in says if key.startswith(f"{section}.")] or says)


def keys(method: str | None = None) -> dict[str, dict[str, list[str]]]:
    """Give `section.key` of everything that can be set, with its documentation and the methods for which that holds.

    **Arguments:** `method`: of this one only, and what can be said about any file.
    """
    from .. import recipes, settings

    known: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in [method] if method else recipes.methods():
        for key, (default, says) in settings.words(recipes.find(name).settings).items():
            standard = "" if default is None else f"; default {settings.shown(default)}"
            known[key][f"{says}{standard}"].append(name)
    for name, says in of_files().items():
        known[name][says] = []
    return known


def of_files() -> dict[str, str]:
    """Give `section.key` of what can be said about any file, with its documentation."""
    from ..io import KEYS

    return {f"{key.section}.{name}": key.documented(name) for name, key in KEYS.items()}
