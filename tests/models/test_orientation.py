"""Positions flipped or swapped are found in sets simulated independently, and right ones are left alone."""

import numpy as np
import pytest
import small_scans

import diffrecon as dr
from diffrecon.models import _orientation as checks

NAMES = list(checks._hypotheses())
BY_DAY = "as given", "columns flipped", "swapped"  # of measured scans; the simulated ones have all


def spoilt(scan, name):
    """The scan as a file would be for which the verdict is `name`."""
    return scan.replace(positions=scan.positions @ np.linalg.inv(checks._hypotheses()[name]).T)


@pytest.fixture(scope="module", params=[True, False], ids=["near", "far"])
def scan(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.cxi"
    small_scans.write_cxi(path, request.param, seed=4)
    keys = {"focus_to_sample": small_scans.FOCUS} if request.param else {}
    return dr.open_scan(path, method=("near" if request.param else "far") + "-field-ptychography", **keys)


@pytest.mark.parametrize("name", NAMES)
def test_finds_every_orientation(scan, name):
    wrong = spoilt(scan, name)
    report = checks.check_orientation(wrong)
    assert report.name == name and report.significant
    assert report.figures[name] == min(report.figures.values()) and set(report.figures) == set(NAMES)
    assert ("fit as given" if name == "as given" else name) in report.message
    np.testing.assert_allclose(report.apply(wrong).positions, scan.positions, rtol=1e-12)


def test_twin_in_the_far_field_is_not_told_without_a_probe(scan):
    """Both axes flipped fit as well with the conjugate object: left as given, while a swap is found."""
    if not scan.far_field:
        return
    without = scan.replace(probe=None)
    assert checks.check_orientation(spoilt(without, "rows and columns flipped")).name == "as given"
    report = checks.check_orientation(spoilt(without, "swapped"))
    assert report.name in ("swapped", "swapped, rows and columns flipped") and "180 degrees" in report.message


def test_noise_decides_nothing(scan):
    counts = np.random.default_rng(1).poisson(50, scan.counts.shape)
    report = checks.check_orientation(scan.replace(counts=counts, mask=None))
    assert report.name == "as given" and not report.significant and "do not tell" in report.message


def test_positions_in_other_units_are_named(scan):
    """Twice too large, in the near field: no orientation fits, the scale is told and left."""
    if scan.far_field:
        return
    report = checks.check_orientation(scan.replace(positions=2 * scan.positions))
    assert report.name == "as given" and not report.significant and "twice too large" in report.message


def test_too_few_views(scan):
    report = checks.check_orientation(scan.subset(np.arange(5)))
    assert report.name == "as given" and not report.significant and "less than" in report.message


def test_line_has_four_orientations(scan):
    positions = np.stack([np.arange(36.0), np.zeros(36)], 1)
    assert list(checks._distinct(positions - positions.mean(0))) == [
        "as given", "rows flipped", "swapped", "swapped, columns flipped"]  # fmt: skip


def test_neighbours():
    """The densest part of a scan, whatever its order."""
    rng = np.random.default_rng(0)
    positions = np.concatenate([rng.uniform(0, 100, (40, 2)), rng.uniform(40, 45, (20, 2))])
    assert set(checks._neighbours(positions, 20)) == set(range(40, 60))


@pytest.mark.parametrize(
    "name",
    [name if name in BY_DAY else pytest.param(name, marks=pytest.mark.nightly) for name in NAMES],
)
@pytest.mark.parametrize("file", ["p25_near_field.cxi", "siemens_far_field.npz"])
def test_measured(shared_data, file, name):
    keys = {"focus_to_sample": "3.65 mm"} if "near" in file else {"method": "far-field-ptychography"}
    measured = dr.open_scan(shared_data / "real" / file, **keys)
    assert checks.check_orientation(spoilt(measured, name)).name == name
