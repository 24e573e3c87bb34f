"""Settings of the methods: their defaults pass their own check, and names are known."""

import pytest

import diffrecon as dr
from diffrecon.modality import find
from diffrecon.recipes import methods
from diffrecon.settings import as_dict, build


@pytest.mark.parametrize("method", methods())
def test_defaults_of_every_method_pass_their_own_check(method):
    defaults = dr.recipes.defaults(method)
    assert as_dict(build(find(method).settings, defaults, method)) == defaults


def test_unknown_method_names_the_nearest():
    with pytest.raises(dr.InputError, match="did you mean tomography"):
        dr.recipes.defaults("tomografy")
