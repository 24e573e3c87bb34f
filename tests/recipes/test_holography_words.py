"""What holography says of the numbers that it took and found."""

import numpy as np

from diffrecon.recipes.holography import found_words, ratio_words


def test_the_default_material_is_named_and_doubted_for_light():
    assert "WARNING" not in ratio_words(2543.0, False, 17e3) and "by default" in ratio_words(2543.0, False, 17e3)
    assert ratio_words(8e-5, False, 3.0).startswith("WARNING") and "by default" not in ratio_words(50.0, True, 3.0)


def test_refined_numbers_are_printed_and_counts_that_are_no_photons_doubted():
    figures = {"distances": np.array([[0.03, 0.0301]]), "shifts": np.zeros((1, 2)), "source_blur": np.array(0.4)}
    lines = found_words(figures, ("distances", "shifts", "source_blur"), np.array([1.0, 1.2]))
    assert lines == ["distances found [mm]: [[30. , 30.1]]", "source blur found [pixel]: 0.4"]
    assert "counts are not photons" in found_words({}, (), np.array([0.1, 0.1]))[0]
