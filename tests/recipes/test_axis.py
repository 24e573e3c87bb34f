"""Moves of the views that the scan knows of are undone; what a method makes no use of is named."""

import numpy as np
import pytest

import diffrecon as dr
from diffrecon.errors import InputError
from diffrecon.prepare import Preparation
from diffrecon.recipes._axis import find_axis
from diffrecon.recipes._unused import refuse_unused, unused
from diffrecon.recipes.holography import HolographyMethod
from diffrecon.recipes.tomography import Tomography
from diffrecon.scan import Provenance

ANGLES = np.linspace(0, np.pi, 90, endpoint=False)
MOVES = np.round(np.random.default_rng(3).uniform(-5, 5, 90), 1)


def moved_scan(seen=1.0, **fields):
    """Transmissions of two discs whose axis is at column 33, moved by `seen` times MOVES."""
    u = np.arange(72)[None] - 33 - seen * MOVES[:, None]
    lines = sum(
        2 * mu * np.sqrt(np.maximum(r**2 - (u - x * np.cos(ANGLES[:, None]) - y * np.sin(ANGLES[:, None])) ** 2, 0))
        for mu, r, x, y in ((0.02, 14, 1, 2), (0.03, 4, -6, 3))
    )
    noise = np.random.default_rng(0).normal(1, 0.003, (90, 2, 72))
    frames = np.exp(-lines)[:, None] * noise
    return dr.Scan(counts=frames.astype(np.float32), angles=ANGLES, geometry=dr.ParallelBeam(2e-6), **fields)


def axis(scan):
    prepared = Preparation(scan, {"flux": "none"})
    return find_axis(prepared, None, prepared.rows(0, 2))


@pytest.mark.parametrize("sign", [1, -1])
def test_translations_of_the_sample_are_undone_whichever_way_they_count(sign):
    translation = np.outer(sign * MOVES * 2e-6, [1, 0, 0])
    centre, moves, _ = axis(moved_scan(extra={"sample_translation": translation}))
    assert abs(centre - 33) < 0.15 and np.abs(moves.columns - MOVES).max() < 1e-9 and "shifted back" in moves.said
    shifts = np.stack([0 * MOVES, MOVES], 1)
    assert np.array_equal(axis(moved_scan(extra={"shifts": shifts}))[1].columns, MOVES)


def test_translations_that_the_views_do_not_show_are_named_and_left():
    scan = moved_scan(seen=0.0, extra={"sample_translation": np.outer(MOVES * 2e-6, [1, 0, 0])})
    centre, moves, _ = axis(scan)
    assert abs(centre - 33) < 0.15 and moves.columns is None and "WARNING" in moves.said and "not used" in moves.said


def test_an_axis_far_outside_is_refused():
    with pytest.raises(InputError, match="rotation_centre = 1e\\+06 lies farther off"):
        axis(moved_scan(rotation_centre=1e6))
    centre, _, said = axis(moved_scan(rotation_centre=-3.0))
    assert centre == -3 and "WARNING: columns are counted from 0 to 71" in said and "would be column 32.5" in said
    assert "WARNING" not in axis(moved_scan(rotation_centre=33.0))[2]


def test_translations_without_a_pixel_are_named():
    moved = moved_scan(extra={"sample_translation": np.outer(MOVES * 2e-6, [1, 0, 0])}).replace(geometry=None)
    assert "the pixel size tells (geometry.pixel_size); not used" in axis(moved)[1].said


def test_what_a_method_makes_no_use_of_is_named():
    scan = moved_scan(extra={"monitor": MOVES + 9, "shifts": np.ones((90, 2)) * MOVES[:, None]})
    assert unused(Tomography(), scan) == ""
    assert unused(HolographyMethod(), scan) == "known and not used by holography: the monitor"
    assert unused(HolographyMethod(), moved_scan(extra={"monitor": np.ones(90)})) == ""
    assert unused(Tomography(), scan.replace(flux=1e3, saturation=9e3)).endswith(": the flux, the saturation")
    assert unused(HolographyMethod(), scan.replace(flux=1e3, extra={})) == ""


def test_what_a_method_makes_no_use_of_is_refused_where_the_user_says_it():
    said = lambda **keys: moved_scan(provenance=Provenance(given=keys), flux=1e3, darks=np.zeros((1, 2, 4)))
    with pytest.raises(InputError, match="data.flux is not used by tomography: leave it out"):
        refuse_unused(Tomography(), said(flux=1e3))
    refuse_unused(HolographyMethod(), said(flux=1e3, views="0:9", darks="/dark"))
    refuse_unused(Tomography(), said(darks="/dark"))
