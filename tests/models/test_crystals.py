"""Rings of a CIF file against strengths worked out elsewhere, and what is refused."""

import numpy as np
import pytest

from diffrecon.errors import InputError
from diffrecon.models import phase_from_cif, phase_of_lines

CERIA = """data_ceria
_cell_length_a 5.4113
_cell_length_b 5.4113
_cell_length_c 5.4113
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'F m -3 m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_U_iso_or_equiv
Ce1 Ce 0 0 0 0.00506606
O1 O 0.25 0.25 0.25 0.00506606
"""


def test_ceria_from_its_structure(tmp_path):
    """By atoms in the cell, form factors and B = 0.4 A^2, the independent sum over reflections gave these strengths."""
    pytest.importorskip("gemmi", reason="gemmi is not installed (diffrecon[diffraction])")
    (tmp_path / "ceria.cif").write_text(CERIA)
    phase = phase_from_cif(tmp_path / "ceria.cif", 30e3, 0.35)
    spacing = np.array([3.12422, 2.70565, 1.91318, 1.63157, 1.56211, 1.35282, 1.24144, 1.21]) * 1e-10
    strength = np.array([285716.9, 110048.9, 462551.7, 529788.2, 107326.5, 151298.6, 386742.7, 255607.4])
    np.testing.assert_allclose(phase.spacing, spacing, rtol=1e-5)
    np.testing.assert_allclose(phase.strength, strength, rtol=2e-3)
    assert phase.volume == pytest.approx(158.4546e-30, rel=1e-5) and tuple(phase.hkl[0]) == (1, 1, 1)


def test_what_is_no_structure_is_refused(tmp_path):
    pytest.importorskip("gemmi", reason="gemmi is not installed (diffrecon[diffraction])")
    (tmp_path / "no.cif").write_text("nothing")
    with pytest.raises(InputError, match="CIF"):
        phase_from_cif(tmp_path / "no.cif", 30e3, 0.35)
    with pytest.raises(InputError, match="CIF"):
        phase_from_cif(tmp_path / "absent.cif", 30e3, 0.35)


def test_lines_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="phases/x"):
        phase_of_lines({"d_A": [1.0, 2.0], "strength": [1.0], "cell_volume_A3": 100.0}, "x")
