"""Settings: what is allowed, what is refused and in which words, how they are shown."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from diffrecon import InputError, settings
from diffrecon.io import toml_value
from diffrecon.settings import as_dict, build, section, setting


@dataclass(frozen=True)
class Solver:
    name: str = setting("cgls", "solver", choices=("fbp", "cgls"))
    steps: int | None = setting(20, "steps", at_least=1, only={"name": ("cgls",)})
    damping: tuple[float, ...] = setting((1.0, 0.1), "damping of the rounds", at_least=0)
    window: tuple[int, int] | None = setting(None, "first and last column", unit="pixel")
    positive: bool = setting(False, "no negative values")
    share: float = setting(0.1, "fraction", above=0, below=1)


@dataclass(frozen=True)
class Model:
    distance: float | bool | None = setting(None, "effective distance", unit="m")
    material: str | Mapping[str, Any] | None = setting(None, "composition")
    cost: Callable[..., Any] | None = setting(None, "a function of your own")
    anything: Any = setting(None, "whatever")


@dataclass(frozen=True)
class Settings:
    solver: Solver = section(Solver)
    model: Model = section(Model)


@dataclass(frozen=True)
class Quick(Settings):
    solver: Solver = section(Solver, steps=5)


def built(**sections):
    return build(Settings, sections, "demo")


@pytest.mark.parametrize(
    "given, value",
    [
        ({"steps": 5}, 5),
        ({"steps": 5.0}, 5),
        ({"steps": np.int64(7)}, 7),
        ({"steps": None}, None),
        ({"damping": 2}, (2.0,)),
        ({"damping": [1, 0.5]}, (1.0, 0.5)),
        ({"damping": np.array([3.0])}, (3.0,)),
        ({"window": [3, 9]}, (3, 9)),
        ({"positive": True}, True),
        ({"share": 0.5}, 0.5),
    ],
)
def test_values_are_taken_as_their_kind(given, value):
    (key,) = given
    made = getattr(built(solver=given).solver, key)
    assert made == value and type(made) is type(value)


@pytest.mark.parametrize("given, value", [("3 mm", 3e-3), (2, 2.0), (True, True), (None, None), ("40 um", 4e-5)])
def test_lengths_may_have_a_unit(given, value):
    assert built(model={"distance": given}).model.distance == pytest.approx(value)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"solver": {"stepz": 1}}, "demo has no setting solver.stepz; did you mean steps"),
        ({"solvr": {}}, r"no settings section \[solvr\]; did you mean solver"),
        ({"solver": 3}, "write solver.key = value"),
        ({"solver": {"steps": 2.5}}, "solver.steps: 2.5 is not a whole number"),
        ({"solver": {"steps": True}}, "not a whole number"),
        ({"solver": {"steps": "many"}}, "'many' is not a whole number"),
        ({"solver": {"steps": 0}}, "solver.steps = 0: at least 1"),
        ({"solver": {"share": 1.0}}, "above 0; below 1"),
        ({"solver": {"share": float("nan")}}, "not a number"),
        ({"solver": {"share": None}}, "not a number"),
        ({"solver": {"damping": [1, -1]}}, "at least 0"),
        ({"solver": {"damping": ["a"]}}, "not a list"),
        ({"solver": {"window": [1, 2, 3]}}, "a list of 2"),
        ({"solver": {"positive": 1}}, "not true or false"),
        ({"solver": {"name": "cglss"}}, "none of fbp, cgls; did you mean cgls"),
        ({"solver": {"name": "fbp", "steps": 7}}, "solver.steps has no effect with solver.name = fbp: .* cgls"),
        ({"model": {"distance": "3 kg"}}, "not a unit"),
        ({"model": {"material": 3}}, "not a text or a table"),
        ({"model": {"cost": 3}}, "not a function"),
    ],
)
def test_what_cannot_be_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        build(Settings, given, "demo")


def test_a_setting_at_its_default_is_no_wish():
    """The record of a run holds every setting, and must be accepted as the settings of the next."""
    assert build(Settings, as_dict(built(solver={"name": "fbp"})), "demo") == built(solver={"name": "fbp"})


def test_defaults_of_a_variant():
    assert Quick().solver.steps == 5 and Quick().solver.name == "cgls"
    assert build(Quick, {"solver": {"share": 0.2}}, "quick").solver.steps == 5
    assert build(Settings, Settings(Solver(steps=3)), "demo").solver.steps == 3
    with pytest.raises(InputError, match="at least 1"):
        build(Settings, Settings(Solver(steps=0)), "demo")


def test_toml_has_every_setting_and_can_be_read_back():
    text = settings.toml(Settings, "demo", toml_value)
    assert (
        'name = "cgls"  # solver (one of fbp, cgls)' in text and "# window =  # first and last column [pixel]" in text
    )
    tree = tomllib.loads(text)
    assert tree.pop("method") == "demo"
    assert build(Settings, tree, "demo") == Settings()


def test_table_has_every_setting():
    rows = settings.table(Settings).splitlines()
    assert len(rows) == 2 + 6 + 4
    assert "| `solver.steps` | `20` | steps (at least 1; with name = cgls) |" in rows


@pytest.mark.parametrize("value", ["banana", "1", {}, [], True, [1, [2]]])
def test_arrays_of_numbers_are_numbers(value):
    from diffrecon import recipes

    for method, name in (("cdi", "model.background"), ("tomography", "prepare.beam_hardening")):
        section, key = name.split(".")
        with pytest.raises(InputError, match=f"{name}: .* is not a number or a list of numbers"):
            recipes.check_settings({section: {key: value}}, method)
        assert recipes.check_settings({section: {key: [1.0, 2.0]}}, method)[section][key] == [1.0, 2.0]
