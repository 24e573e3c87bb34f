"""From powder frames to patterns: files, PONI, orientation, hot pixels, resuming, refusals; ceria as measured."""

import dataclasses
import json
from typing import Any

import h5py
import numpy as np
import pytest

import diffrecon as dr
from diffrecon import simulate
from diffrecon.cli import main
from diffrecon.errors import InputError
from diffrecon.io.poni import read_poni
from diffrecon.prepare import check_orientation
from diffrecon.simulate import integration

open_hdf5: Any = h5py.File
PONI = """# Calibration done today
poni_version: 2.1
Detector: Detector
Detector_config: {config}
Distance: 0.15
Poni1: 0.028
Poni2: 0.044
Rot1: 0.03
Rot2: 0
Rot3: 0
Wavelength: 4.132806614440007e-11
"""


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    path = tmp_path_factory.mktemp("powder") / "frames.h5"
    integration.write(path, 3)
    return path


def poni(path, **config):
    config = {"pixel1": 0.3e-3, "pixel2": 0.3e-3, "max_shape": [256, 256], "orientation": 2} | config
    path.write_text(PONI.format(config=json.dumps(config)))
    return path


def test_patterns_of_a_simulation_whose_rows_are_flipped(frames):
    """By another program's geometry, upside down, with a gap and a hot pixel: found, said, and integrated rightly."""
    result = dr.reconstruct(dr.open_scan(frames))
    said = " ".join(result.verdict)
    assert "rows flipped" in said and "(40, 200)" in said and "1 pixels" in said
    line = simulate.judge("azimuthal-integration", frames, result)[0]
    assert float(line.split("relative error ")[1].split("%")[0]) < 3
    assert float(line.split("sum ")[1].split()[0]) == pytest.approx(1, abs=3e-3)
    spread = (result["pattern"] - result["mean_pattern"]) / result["pattern_error"]
    assert np.nanstd(spread[:, 40:180]) == pytest.approx(1, abs=0.1)


def test_a_poni_file_says_the_same(frames, tmp_path):
    """Frames by path, their geometry from a PONI file with the right orientation, a monitor as an array."""
    with open_hdf5(frames) as file:
        counts, monitor, gaps = file["frames"][:, 0], file["monitor"][:, 0], file["mask"][()]
    with open_hdf5(tmp_path / "plain.h5", "w") as file:
        file["a/b"], file["i0"], file["gaps"] = counts, monitor, gaps
    scan = dr.open_scan(
        tmp_path / "plain.h5", counts="/a/b", poni=str(poni(tmp_path / "a.poni")), monitor="/i0", bad_pixels="/gaps"
    )
    assert scan.method == "azimuthal-integration"
    settings = {"integration": {"polarisation": 0.98, "axis": "q"}}
    found, other = dr.reconstruct(scan, settings=settings), dr.reconstruct(dr.open_scan(frames), settings=settings)
    assert "flipped" not in " ".join(found.verdict)
    np.testing.assert_allclose(found["pattern"], other["pattern"], rtol=1e-6)


def test_a_cake_is_written_with_axes_that_viewers_know(frames, tmp_path):
    out = tmp_path / "cake.h5"
    assert main(["reconstruct", str(frames), "-o", str(out), "--set", "integration.sectors=4"]) == 0
    with open_hdf5(out) as file:
        group = file["entry/pattern"]
        assert group["data"].shape[:2] == (12, 4)
        assert [a for a in group.attrs["axes"]] == [".", "azimuth", "two_theta"]
        assert group["two_theta"].attrs["units"] == "deg" and "data_errors" in group


def test_it_goes_on_where_it_was_killed(frames, tmp_path, monkeypatch):
    from diffrecon._console import Console
    from diffrecon.recipes import integration as recipe

    scan, whole = dr.open_scan(frames), dr.reconstruct(dr.open_scan(frames))
    plain, calls = recipe.integrate, []

    def fails(*args):
        calls.append(1)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return plain(*args)

    console = lambda resume: Console(quiet=True, checkpoint=str(tmp_path / "run"), resume=resume)
    monkeypatch.setattr(recipe, "integrate", fails)
    part = dr.reconstruct(scan, console=console(False))
    missing = np.isnan(part["pattern"]).all(1)
    assert 0 < missing.sum() < scan.views and "interrupted" in part.verdict[0]
    assert any(f"{missing.sum()} of {scan.views} frames were not integrated" in line for line in part.verdict)
    np.testing.assert_array_equal(part["pattern"][~missing], whole["pattern"][~missing])
    np.testing.assert_allclose(part["mean_pattern"], part["pattern"][~missing].mean(0))
    calls.clear()
    monkeypatch.setattr(recipe, "integrate", lambda *args: calls.append(1) or plain(*args))
    again = dr.reconstruct(scan, console=console(True))
    assert len(calls) == 7
    np.testing.assert_array_equal(again["pattern"], whole["pattern"])


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"max_shape": [195, 487]}, "another detector"),
        ({"orientation": 7}, "orientation 7"),
    ],
)
def test_wrong_poni_files_are_refused(frames, tmp_path, config, said):
    with pytest.raises(InputError, match=said):
        dr.open_scan(frames, poni=str(poni(tmp_path / "a.poni", **config)))


def test_wrong_numbers_are_refused(frames, tmp_path):
    (tmp_path / "no.poni").write_text("nothing: here\n")
    with pytest.raises(InputError, match="not a PONI file"):
        read_poni(tmp_path / "no.poni")
    with open_hdf5(frames) as file:
        counts = file["frames"][:3, 0]
    dark = dr.Scan.from_arrays(counts, method="azimuthal-integration", extra={"monitor": np.array([1.0, 0.0, 1.0])})
    with pytest.raises(InputError, match="geometry.poni"):
        dr.reconstruct(dark)
    detector = read_poni(poni(tmp_path / "a.poni"))[0]
    with pytest.raises(InputError, match="data.monitor is 0 at 1 views, first 1"):
        dr.reconstruct(dark.replace(extra={**dark.extra, "detector": detector}))
    with pytest.raises(InputError, match=r"25.*keV"):  # the calibration's energy against the file's
        with open_hdf5(tmp_path / "other.h5", "w") as copy, open_hdf5(frames) as file:
            file.copy("frames", copy)
            copy.create_group("detector").attrs.update(file["detector"].attrs)
            copy.attrs["energy_eV"] = 25e3
        dr.open_scan(tmp_path / "other.h5", poni=str(tmp_path / "a.poni"))


def test_measured_ceria_is_turned_and_agrees_with_its_reference(shared_data):
    """The pattern that another program wrote, gaps counted as dark as it did; unturned it is 93 % wrong."""
    scan = dr.open_scan(shared_data / "real" / "ceo2_pilatus1m.h5")
    settings = {"integration": {"channels": 1512, "splitting": "bbox", "masked": False}}
    result = dr.reconstruct(scan, settings=settings)
    assert "rows flipped" in result.verdict[0]
    with open_hdf5(shared_data / "real" / "ceo2_pilatus1m.h5") as file:
        at, expected = file["reference/two_theta_deg"][()], file["reference/intensity"][()]
    found = np.interp(at, result["two_theta"], result["pattern"][0])
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)


def test_the_eight_orientations_are_told_apart(frames):
    from diffrecon.geometry import TiltedDetector

    with open_hdf5(frames) as file:
        frame, mask = file["frames"][0, 0].astype(np.float32), file["mask"][()] == 0
    detector = TiltedDetector(0.15, 0.028, 0.044, 0.03, 0, 0, 0.3e-3, 0.3e-3)
    for wanted, turned in ((3, frame[::-1]), (4, frame[::-1, ::-1]), (-3, frame[::-1].T), (-2, frame.T)):
        good = {3: mask[::-1], 4: mask[::-1, ::-1], -3: mask[::-1].T, -2: mask.T}[wanted]
        found = check_orientation(turned, good, dataclasses.replace(detector, orientation=1), 0.98)
        assert found.best == wanted and found.sure
