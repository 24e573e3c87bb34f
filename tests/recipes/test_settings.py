"""Settings of the package's own methods: documented, accepted as they stand, and on their page."""

import dataclasses
import importlib.util
import tomllib
from pathlib import Path

import pytest

import diffrecon as dr
from diffrecon.io import toml_value
from diffrecon.settings import as_dict, build

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("method", dr.recipes.BUILT_IN)
def test_settings_of_every_method(method):
    cls = dr.recipes.find(method).settings
    assert build(cls, as_dict(cls()), method) == cls()
    tree = tomllib.loads(dr.recipes.settings_text(method, toml_value))
    assert tree.pop("method") == method
    assert build(cls, tree, method) == cls()
    for part in dataclasses.fields(cls):
        for field in dataclasses.fields(getattr(cls(), part.name)):
            says = field.metadata["rule"].says
            assert len(says) >= 5 and "\n" not in says, f"{method}: {part.name}.{field.name}"


def test_everything_that_can_be_said_about_a_file_has_its_words():
    assert not [name for name, key in dr.io.KEYS.items() if len(key.says) < 5]


def test_page_of_settings_is_that_of_the_code():
    """Written by `python docs/make_settings.py`."""
    spec = importlib.util.spec_from_file_location("make_settings", DOCS / "make_settings.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / "settings.md").read_text() == module.page()


def test_unknown_method_names_the_nearest():
    with pytest.raises(dr.InputError, match="did you mean tomography"):
        dr.recipes.defaults("tomografy")
