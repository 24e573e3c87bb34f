"""What holography says of the numbers that it took and found."""

import numpy as np
import pytest

import diffrecon as dr
from diffrecon.recipes.holography import found_words, ratio_words


def test_the_default_material_is_named_and_doubted_for_light():
    assert "WARNING" not in ratio_words(2543.0, False, 17e3) and "by default" in ratio_words(2543.0, False, 17e3)
    assert ratio_words(8e-5, False, 3.0).startswith("WARNING") and "by default" not in ratio_words(50.0, True, 3.0)


def test_refined_numbers_are_printed_and_counts_that_are_no_photons_doubted():
    figures = {"distances": np.array([[0.03, 0.0301]]), "shifts": np.zeros((1, 2)), "source_blur": np.array(0.4)}
    lines = found_words(figures, ("distances", "shifts", "source_blur"), np.array([1.0, 1.2]))
    assert lines == ["distances found [mm]: [[30. , 30.1]]", "source blur found [pixel]: 0.4"]
    assert "counts are not photons" in found_words({}, (), np.array([0.1, 0.1]))[0]


def test_frames_of_another_light_are_refused():
    """A view with the shutter closed, and counts that were divided by something: before anything is solved."""
    counts = np.random.default_rng(0).poisson(400, (3, 16, 16)).astype(float)
    place = dr.ConeBeam(17e3, np.array([21e-3, 22e-3, 24e-3]), 1.28, 3e-6)
    scan = dr.Scan.from_arrays(counts, method="holography", geometry=place, flux=400.0)
    shut = counts.copy()
    shut[1] = np.random.default_rng(1).poisson(2, (16, 16))
    with pytest.raises(dr.InputError, match=r"light of view 1 is less than 1/20 .*data\.views=0,2\)"):
        dr.reconstruct(scan.replace(counts=shut))
    with pytest.raises(dr.InputError, match=r"hold 0\.0025 of the light of the empty beam.*data\.flux"):
        dr.reconstruct(scan.replace(counts=counts / 400))
