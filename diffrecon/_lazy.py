"""What waits until it is needed: names of packages, and what jax has to be told once somebody imports it.

`diffrecon inspect` and `--help` need no jax, whose import takes longer than all that they do.
"""

import dataclasses
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, TypeVar

_LINE = re.compile(r"^    from \.(\S*) import (\w+) as (\w+)$", re.M)
_Class = TypeVar("_Class", bound=type)


def names_of(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Give `__getattr__`, `__dir__` and `__all__` of a package that lists its names for type checkers only.

    The lines `from .module import name as name` below `if TYPE_CHECKING:` are the one list; the module is imported when
    the name is first used.
    """
    module = sys.modules[package]
    source = module.__loader__.get_source(package)  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    where = {name: (place, given) for place, given, name in _LINE.findall(source)}

    def get(name: str) -> Any:
        if name not in where:
            if name[0] != "_" and importlib.util.find_spec(f"{package}.{name}") is not None:
                return importlib.import_module(f"{package}.{name}")
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        place, given = where[name]
        value = getattr(importlib.import_module(f".{place}", package), given)
        setattr(module, name, value)
        return value

    return get, lambda: sorted(where), sorted(where)


def pytree(cls: _Class) -> _Class:
    """Register a dataclass with jax, now or as soon as jax is imported; a field with `static` metadata is no leaf."""
    if "jax" in sys.modules and not _waiting:
        _register(cls)
    else:
        _waiting.append(cls)
        if _watch not in sys.meta_path:
            sys.meta_path.insert(0, _watch)
    return cls


def _register(cls: type) -> None:
    from jax.tree_util import register_dataclass

    fields = {field.name: bool(field.metadata.get("static")) for field in dataclasses.fields(cls)}
    register_dataclass(cls, [n for n, static in fields.items() if not static], [n for n, s in fields.items() if s])


_waiting: list[type] = []


class _Watch(importlib.abc.MetaPathFinder):
    """See jax come: once it has been imported, the classes that wait are registered."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find jax as it would be found anyway, and add to what its import does."""
        if fullname != "jax":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next((s for f in others if (s := f.find_spec(fullname, path, target)) is not None), None)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def and_register(module: ModuleType) -> None:
                run(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                while _waiting:
                    _register(_waiting.pop())

            spec.loader.exec_module = and_register  # pyright: ignore[reportAttributeAccessIssue]
        return spec


_watch = _Watch()
