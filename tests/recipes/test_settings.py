"""Settings: defaults with given values over them; what is unknown or of another kind is refused in one line."""

import pytest

import diffrecon as dr
from diffrecon.recipes import merge, methods

DEFAULTS = {
    "solver": {"steps": 20, "rate": 0.5, "name": "cgls", "fast": True, "box": [1, 2], "free": None},
    "model": {"modes": 1},
}


def test_given_values_over_defaults():
    found = merge(DEFAULTS, {"solver": {"steps": 5.0, "rate": 2, "box": 3, "free": "x"}}, "demo")
    assert found["solver"] == {"steps": 5, "rate": 2.0, "name": "cgls", "fast": True, "box": [3], "free": "x"}
    assert type(found["solver"]["steps"]) is int and type(found["solver"]["rate"]) is float
    assert found["model"] == {"modes": 1} and DEFAULTS["solver"]["steps"] == 20


@pytest.mark.parametrize(
    "given, says",
    [
        ({"slver": {}}, "did you mean solver?"),
        ({"solver": {"stepz": 1}}, "no setting solver.stepz; did you mean steps?"),
        ({"solver": 3}, "is a section"),
        ({"solver": {"steps": "many"}}, "is not a number"),
        ({"solver": {"steps": True}}, "is not a number"),
        ({"solver": {"steps": 2.5}}, "is not a whole number"),
        ({"solver": {"name": 3}}, "is not a text"),
        ({"solver": {"fast": 1}}, "is not true or false"),
        ({"solver": {"steps": float("inf")}}, "is not a"),
        ({"solver": {"rate": float("nan")}}, "is not a"),
    ],
)
def test_refused_in_one_line(given, says):
    with pytest.raises(dr.InputError) as caught:
        merge(DEFAULTS, given, "demo")
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("method", methods())
def test_defaults_of_every_method_pass_their_own_check(method):
    defaults = dr.recipes.defaults(method)
    assert merge(defaults, defaults, method) == {s: dict(v) for s, v in defaults.items()}


def test_unknown_method_names_the_nearest():
    with pytest.raises(dr.InputError, match="did you mean tomography"):
        dr.recipes.defaults("tomografy")
