"""Settings of the package's own methods: documented, accepted as they stand, and on their page."""

import dataclasses
import importlib.util
import tomllib
import typing
from pathlib import Path

import pytest

import diffrecon as dr
from diffrecon.cli._settings import parse_value
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


@pytest.mark.parametrize("method", dr.recipes.BUILT_IN)
def test_names_that_are_none_are_refused_at_once(method):
    """Texts have choices, or name what is in a table; compositions, files and mixtures of kinds are free."""
    free = {"material", "materials", "composition", "phases", "air", "flux", "halves", "probe", "support", "stages"}
    free |= {"energies", "elements"}
    cls = dr.recipes.find(method).settings
    for part in dataclasses.fields(cls):
        kinds = typing.get_type_hints(type(getattr(cls(), part.name)))
        for key, kind in kinds.items():
            if "str" in str(kind) and key not in free and "Callable" not in str(kind) and "Mapping" not in str(kind):
                with pytest.raises(
                    dr.InputError, match=rf"{part.name}\.{key}: .*(none of|there is no) .*nonsense|'nonsense'"
                ):
                    dr.recipes.check_settings({part.name: {key: "nonsense"}}, method)


IDLE = [
    ("tomography", "solver.steps=7", "solver.name=fbp"),
    ("tomography", "solver.extent=50", "solver.pad=zero"),
    ("tomography", "solver.weight=0.1", "solver.name=fista, solver.penalty=none"),
    ("tomography", "quality.draws=9", ""),
    ("tomography", "optimiser.learning_rate=0.1", "solver.name=cgls"),
    ("tomography", "align.rows=9", ""),
    ("laminography", "prepare.stripe_size=9", "prepare.stripes=none"),
    ("speckle", "volume.steps=7", ""),
    ("speckle", "prior.phase=2", "solver.kind=window"),
    ("speckle", "model.reach=9", "solver.kind=linear"),
    ("stxm", "solver.steps=7", ""),
    ("diffraction-tomography", "patterns.relaxation=0.5", "patterns.name=cgls"),
    ("diffraction-tomography", "solver.time_step=0.1", ""),
    ("diffraction-tomography", "quality.samples=9", "solver.name=patterns"),
    ("holography", "model.delta_beta=100", "model.material=H2O"),
    ("holography", "model.attenuation_scale=0.3", "model.attenuation=false"),
    ("holography", "solver.tv_rounds=5", "loss.tv=0"),
    ("holotomography", "model.delta_beta=100", "model.material=H2O"),
    ("holotomography", "loss.prior=2", "solver.name=two-step"),
    ("holotomography", "solver.epochs=5", ""),
    ("holotomography", "solver.memory=5", "solver.batch_size=4"),
    ("holotomography", "model.beta_scale=0.1", ""),
    ("k-edge", "solver.tv_steps=9", ""),
    ("cdi", "solver.shrink_width=[2, 1]", "solver.shrink_every=0"),
    ("near-field-ptychography", "model.slice_spacing=1e-6", ""),
    ("near-field-ptychography", "loss.position_prior=1", "model.positions=false"),
    ("near-field-ptychography", "optimiser.name=sgd", "solver.stages=dm:5"),
    ("far-field-ptychography", "optimiser.background=1", ""),
    ("far-field-ptychography", "optimiser.constant=0.9", "solver.stages=dm:5"),
    ("ptycho-tomography", "optimiser.beta=1e-6", "model.beta=false"),
    ("fluorescence-tomography", "solver.voxels=3", "solver.name=alternate"),
    ("saxs-tensor-tomography", "solver.held_out=5", "solver.smoothness=1"),
]


@pytest.mark.parametrize("method, idle, beside", IDLE)
def test_what_has_no_effect_is_refused(method, idle, beside):
    """Also where what decides is in another section; and is no longer refused once the others are left out."""
    given = {}
    for text in filter(None, (idle, *beside.split(", "))):
        name, _, value = text.partition("=")
        section, _, key = name.partition(".")
        given.setdefault(section, {})[key] = parse_value(value)
    name = idle.partition("=")[0]
    with pytest.raises(dr.InputError, match=rf"^{name} has no effect (with|without)"):
        dr.recipes.check_settings(given, method)
    section, _, key = name.partition(".")
    del given[section][key]
    dr.recipes.check_settings(given, method)


def test_unknown_method_names_the_nearest():
    with pytest.raises(dr.InputError, match="did you mean tomography"):
        dr.recipes.defaults("tomografy")
