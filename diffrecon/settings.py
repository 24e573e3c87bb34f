"""Settings of a method: frozen dataclasses whose fields carry default, unit, choices, bounds and a line of words.

From them come the refusal of what does not exist, the commented TOML of `diffrecon reconstruct --settings`, and the
tables of the documentation. This module knows neither jax nor NumPy, so that settings can be read before anything heavy
is imported.

```python
@dataclasses.dataclass(frozen=True)
class Solver:
    steps: int = setting(20, "steps of conjugate gradients", at_least=1)

@dataclasses.dataclass(frozen=True)
class Settings:
    solver: Solver = section(Solver)

assert build(Settings, {"solver": {"steps": 5}}, "demo").solver.steps == 5
```
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from .errors import InputError, nearest

__all__ = [
    "GIVEN",
    "Condition",
    "Numbers",
    "above",
    "as_dict",
    "build",
    "fill",
    "listed",
    "refuse_changed",
    "rules",
    "section",
    "setting",
    "shown",
    "table",
    "toml",
    "unless",
    "words",
]

T = TypeVar("T")
if typing.TYPE_CHECKING:
    Numbers = Any
else:

    class Numbers:
        """The kind of a setting that is a number or an array of numbers, of a shape that its user checks."""


_CONVERTED = ("m", "eV", "rad", "s")  # units in which a text such as "3 um" is understood


class Condition(NamedTuple):
    """What the neighbour of a setting must be for the setting to have an effect: in words, and as a check."""

    says: str
    holds: Callable[[Any], bool]

    @classmethod
    def of(cls, allowed: "tuple[Any, ...] | Condition") -> "Condition":
        """Take a list of values as the condition to be one of them."""
        if isinstance(allowed, Condition):
            return allowed
        says = "without {}" if allowed == (None,) else "with {} = " + ", ".join(map(shown, allowed))
        return cls(says, lambda value: value in allowed)


GIVEN = Condition("with {}", lambda value: value is not None and value != () and value is not False)
"""The neighbour is said: neither left at none, nor empty, nor false."""


def above(least: float) -> Condition:
    """Ask for a neighbour that is a number above this one."""
    return Condition(f"with {{}} above {least:g}", lambda value: value is not None and value > least)


def unless(*values: Any) -> Condition:
    """Ask for a neighbour that is none of these."""
    return Condition("not with {} = " + ", ".join(map(shown, values)), lambda value: value not in values)


class Rule(NamedTuple):
    """What a setting says of itself besides its default and its type."""

    says: str
    unit: str = ""
    choices: tuple[Any, ...] = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    only: Mapping[str, tuple[Any, ...] | Condition] = {}
    known: Callable[[], Sequence[str]] | None = None

    def bounds(self) -> str:
        """Say the choices and bounds in words."""
        words = [f"one of {', '.join(shown(c) for c in self.choices)}"] if self.choices else []
        named = {"at least": self.at_least, "above": self.above, "at most": self.at_most, "below": self.below}
        words += [f"{name} {value:g}" for name, value in named.items() if value is not None]
        return "; ".join(words)

    def conditions(self) -> str:
        """Say in words beside which neighbours it has an effect."""
        return "; ".join(Condition.of(allowed).says.format(key) for key, allowed in self.only.items())

    def holds(self, value: Any) -> bool:
        """Check a number, or each of several, against the bounds."""
        if isinstance(value, Sequence) and not isinstance(value, str):
            return all(self.holds(v) for v in value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )


def setting(default: Any, says: str, **rule: Any) -> Any:
    """Make the field of a section: its default, and one line that says what it does.

    **Arguments:** `rule`: `unit` (`"3 um"` is converted where it is m, eV or rad); `choices`; `at_least`,
    `above`, `at_most`, `below`; `only`, such as `{"name": ("fbp",)}`: the setting has a meaning only where its
    neighbour `name` (`"solver.name"` of another section) is one of these, or fulfils a `Condition` such as
    `above(1)`, `unless("fbp")`, `GIVEN`, and is refused elsewhere; `known`: a function that lists the names in a table
    that is open to others, of which a text (or each of several) must be one.
    """
    return dataclasses.field(default=default, metadata={"rule": Rule(says, **rule)})


def section(cls: type, **defaults: Any) -> Any:
    """Make the field of a method's settings that is a section, with some defaults of its own."""
    return dataclasses.field(default_factory=lambda: cls(**defaults))


def build(cls: type[T], given: Mapping[str, Any] | T, method: str) -> T:
    """Lay given values over the defaults, section by section.

    **Raises:** `InputError` for an unknown section or name (with the nearest known one), a value of another kind, out
    of bounds or none of the choices, and for a setting that has no effect beside the others; also what a method's
    own `checked` refuses.
    """
    values = as_dict(given) if isinstance(given, cls) else typing.cast(Mapping[str, Any], given)
    defaults = cls()
    known = {f.name: getattr(defaults, f.name) for f in dataclasses.fields(typing.cast(Any, cls))}
    for name, part in values.items():
        if name not in known:
            raise InputError(f"{method} has no settings section [{name}]{nearest(name, known)}")
        if not isinstance(part, Mapping):
            raise InputError(f"[{name}] is a section of {method}: write {name}.key = value")
        known[name] = _section(name, known[name], part, method)
    made = cls(**known)
    for name, part in known.items():
        _refuse_idle(name, part, getattr(defaults, name), known)
    return made.checked() if hasattr(made, "checked") else made  # pyright: ignore[reportAttributeAccessIssue]


def fill(cls: type[T], given: Mapping[str, Any], method: str) -> T:
    """Lay given values over the defaults of one section that stands alone: settings without sections.

    **Raises:** `InputError` as `build` does; also what the section's own `checked` refuses.
    """
    made = _section("", cls(), given, method)
    _refuse_idle("", made, cls(), {})
    return made.checked() if hasattr(made, "checked") else made


def _section(name: str, default: Any, given: Mapping[str, Any], method: str) -> Any:
    kinds, known, before = typing.get_type_hints(type(default)), rules(default), f"{name}." if name else ""
    values = {}
    for key, value in given.items():
        if key not in known:
            raise InputError(f"{method} has no setting {before}{key}{nearest(key, known)}")
        values[key] = _checked(value, kinds[key], known[key], f"{before}{key}")
    return dataclasses.replace(default, **values)


def _refuse_idle(name: str, part: Any, default: Any, sections: Mapping[str, Any]) -> None:
    """Refuse what was changed in a section and has no effect beside its neighbours, there or in other sections.

    **Raises:** `InputError`.
    """
    before = f"{name}." if name else ""
    for key in _changed(part, default):
        for other, allowed in rules(part)[key].only.items():
            place, _, neighbour = other.rpartition(".")
            value, condition = getattr(sections[place] if place else part, neighbour), Condition.of(allowed)
            if not condition.holds(value):
                label = other if place else f"{before}{other}"
                now = f"without {label}" if value in (None, ()) else f"with {label} = {shown(value)}"
                belongs = condition.says.format(label)
                raise InputError(f"{before}{key} has no effect {now}: it is for runs {belongs}")


def _changed(part: Any, default: Any) -> list[str]:
    """Name the settings of a section that are not at their defaults."""
    return [f.name for f in dataclasses.fields(part) if not _alike(getattr(part, f.name), getattr(default, f.name))]


def _alike(one: Any, other: Any) -> bool:
    if hasattr(one, "shape") or hasattr(other, "shape"):
        import numpy as np

        return one is not None and other is not None and np.array_equal(one, other)
    return one == other


def refuse_changed(settings: Any, names: Sequence[str], why: str) -> None:
    """Refuse settings (`"section.key"`, or `"section"` for all of one) that are not at their defaults: the data that
    were opened make no use of them.

    **Raises:** `InputError` naming the first of them; `why` goes on after "has no effect".

    ```python
    from diffrecon.settings import refuse_changed
    from diffrecon.recipes.stxm import Settings
    refuse_changed(Settings(), ["solver"], "on one map")
    ```
    """
    defaults = type(settings)()
    for name in names:
        part, _, wanted = name.partition(".")
        for key in _changed(getattr(settings, part), getattr(defaults, part)):
            if wanted in ("", key):
                raise InputError(f"{part}.{key} has no effect {why}: leave it out")


def rules(filled: Any) -> dict[str, Rule]:
    """List what the fields of a section say of themselves: unit, choices, bounds, a line of words."""
    return {f.name: f.metadata["rule"] for f in dataclasses.fields(filled)}


# ---------------------------------------------------------------------------------------------------- values
def _checked(value: Any, kind: Any, rule: Rule, name: str) -> Any:
    value = value.item() if getattr(value, "ndim", None) == 0 else value
    if rule.unit in _CONVERTED and not _fits(value, kind)[0]:
        value = _in_base_unit(value, rule.unit, name)
    fits, value = _fits(value, kind)
    if rule.choices and not (fits and (value in rule.choices or value is None)):
        hint = nearest(value, [c for c in rule.choices if isinstance(c, str)]) if isinstance(value, str) else ""
        raise InputError(f"{name}: {value!r} is none of {', '.join(shown(c) for c in rule.choices)}{hint}")
    if not fits:
        raise InputError(f"{name}: {value!r} is not {_phrase(kind)}")
    if rule.known is not None and value is not None:
        _refuse_unknown(value if isinstance(value, tuple) else (value,), rule.known(), name)
    if not rule.holds(value):
        raise InputError(f"{name} = {shown(value)}: {rule.bounds()} is expected: {rule.says}")
    return value


def _refuse_unknown(values: Sequence[Any], known: Sequence[str], name: str) -> None:
    for value in values:
        if isinstance(value, str) and value not in known:
            raise InputError(f"{name}: there is no {value!r}{nearest(value, known)}")


def _in_base_unit(value: Any, unit: str, name: str) -> Any:
    """Convert a text such as `"3 um"`, or each of a list; other values are left as they are."""
    from . import physics

    if isinstance(value, list | tuple):
        return type(value)(_in_base_unit(v, unit, name) for v in value)
    return physics.quantity(value, unit, name) if isinstance(value, str) else value


def _fits(value: Any, kind: Any) -> tuple[bool, Any]:
    """Say whether a value is of a kind, and give it as that."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return types.NoneType in inner, value
        tries = (_fits(value, one) for one in inner)
        return next((found for found in tries if found[0]), (False, value))
    if kind is Any:
        return True, value
    if kind is Numbers:
        return _are_numbers(value), value
    if kind in (None, types.NoneType):
        return value is None, value
    if origin in (Callable, typing.get_origin(Callable[..., Any])):
        return callable(value) or (isinstance(value, str) and ".py:" in value), value
    if (origin or kind) is tuple:
        return _fits_tuple(value, inner)
    if (origin or kind) in (Mapping, dict):
        return isinstance(value, Mapping), value
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool), value
    if kind is int:
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return whole, int(value) if whole else value
    if kind is float:
        number = isinstance(value, int | float) and not math.isnan(value)
        return number, float(value) if number else value
    return isinstance(value, kind), value


def _are_numbers(value: Any) -> bool:
    if isinstance(value, str | bool | Mapping):
        return False
    import numpy as np

    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        return False
    return array.size > 0 and array.dtype.kind in "biufc"


def _fits_tuple(value: Any, inner: tuple[Any, ...]) -> tuple[bool, Any]:
    """Take lists and arrays as tuples, and one value for a list of one."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    open_ended = not inner or inner[-1] is Ellipsis
    values = tuple(value) if isinstance(value, list | tuple) else (value,) if open_ended and value is not None else ()
    if value is None or (not open_ended and len(values) != len(inner)):
        return False, value
    kinds = (inner[0] if inner else Any,) * len(values) if open_ended else inner
    pairs = [_fits(v, k) for v, k in zip(values, kinds, strict=True)]
    return all(ok for ok, _ in pairs), tuple(v for _, v in pairs)


def _phrase(kind: Any) -> str:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_phrase(one) for one in inner if one is not types.NoneType)
    if (origin or kind) is tuple:
        count = "a list" if not inner or inner[-1] is Ellipsis else f"a list of {len(inner)}"
        return count
    words = {
        Numbers: "a number or a list of numbers",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text",
        dict: "a table",
    }
    return words.get(kind, "a table" if (origin or kind) is Mapping else "a function")


def shown(value: Any) -> str:
    """Write a value as it is typed after `--set`."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(shown, value))}]"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


# ---------------------------------------------------------------------------------------------------- shown
def as_dict(settings: Any) -> dict[str, dict[str, Any]]:
    """Give settings as plain sections of plain values."""
    sections = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    return {name: {f.name: getattr(part, f.name) for f in dataclasses.fields(part)} for name, part in sections.items()}


def toml(cls: Any, method: str, value: Callable[[Any], str]) -> str:
    """Write every setting of a method as TOML with its documentation; those without a default are commented out.

    **Arguments:** `value` writes one value as TOML.
    """
    lines = [f'method = "{method}"']
    for name, part in _sections(cls):
        lines += ["", f"[{name}]"]
        for key, rule in rules(part).items():
            default = getattr(part, key)
            written = f"# {key} =" if default is None else f"{key} = {value(default)}"
            lines.append(f"{written}  # {_documented(rule)}")
    return "\n".join(lines) + "\n"


def words(cls: Any) -> dict[str, tuple[Any, str]]:
    """Give `section.key` of every setting of a method with its default and its documentation."""
    return {
        f"{name}.{key}": (getattr(part, key), _documented(rule))
        for name, part in _sections(cls)
        for key, rule in rules(part).items()
    }


def listed(filled: Any, value: Callable[[Any], str]) -> list[str]:
    """Write every setting of one section as a line `key = value  # what it does`; `value` writes one value."""
    return [f"{k} = {value(getattr(filled, k))}  # {_documented(rule)}" for k, rule in rules(filled).items()]


def table(cls: Any) -> str:
    """Write every setting of a method as a table for its page."""
    rows = ["| setting | default | what it does |", "|---|---|---|"]
    for name, (default, says) in words(cls).items():
        standard = "" if default is None else f"`{shown(default)}`"
        rows.append(f"| `{name}` | {standard} | {says.replace('|', ' or ')} |")
    return "\n".join(rows) + "\n"


def _sections(cls: Any) -> list[tuple[str, Any]]:
    return [(f.name, getattr(cls(), f.name)) for f in dataclasses.fields(cls)]


def _documented(rule: Rule) -> str:
    unit = f" [{rule.unit}]" if rule.unit else ""
    limits = "; ".join(filter(None, (rule.bounds(), rule.conditions())))
    return f"{rule.says}{unit}{f' ({limits})' if limits else ''}"
