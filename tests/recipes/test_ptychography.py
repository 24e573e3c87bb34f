"""The recipe comes near the photon noise on scans simulated independently; frames can be predicted from its file."""

from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import small_scans

import diffrecon as dr
from diffrecon._console import Console
from diffrecon.recipes import _far_start
from diffrecon.solvers import EngineTask


def predict(path, view: int, near: bool) -> np.ndarray:
    """Counts of a view from the file alone, as its documentation says, in plain NumPy."""
    with h5py.File(path, "r") as file:
        entry = file["entry"]
        obj, probe, positions, gain, background = (
            entry[f"{name}/data"][()] for name in ("object", "probe", "positions", "gain", "background")
        )
        pixel = entry["object/data"].attrs["pixel_size"]
    place = positions[view] / np.mean(pixel)
    corner = np.floor(place + 0.5).astype(int)
    rest, (n, m) = place - corner, probe.shape[-2:]
    fy, fx = np.fft.fftfreq(n)[:, None], np.fft.fftfreq(m)[None]
    shift = lambda image, by: np.fft.ifft2(np.fft.fft2(image) * np.exp(-2j * np.pi * (fy * by[0] + fx * by[1])))
    wave = shift(probe, rest) * obj[corner[0] : corner[0] + n, corner[1] : corner[1] + m]
    if near:
        kernel = np.exp(
            -1j * np.pi * small_scans.WAVELENGTH * small_scans.DISTANCE * (fy**2 + fx**2) / small_scans.PIXEL**2
        )
        wave = shift(np.fft.ifft2(np.fft.fft2(wave) * kernel), -rest)
    else:
        wave = np.fft.fft2(wave, norm="ortho")
    return (abs(wave) ** 2).sum(0) * gain[view] + background


@pytest.mark.parametrize("costs, chosen", [({1.0: 1.1, 1.5: 1.0}, 1.0), ({1.0: 1.5, -0.85: 1.0}, -0.85)])
def test_a_defocus_is_chosen_where_it_is_better_by_more_than_trials_tell(tmp_path, monkeypatch, costs, chosen):
    """A few epochs do not tell +1 from +1.5: from the latter a scan of cdtools ended at 1.22 times its noise."""
    small_scans.write_cxi(tmp_path / "scan.cxi", False)
    scan = dr.open_scan(tmp_path / "scan.cxi", method="far-field-ptychography")
    model = dr.models.Ptychography.from_scan(scan)
    own = np.asarray(model.probe)
    spots = {d: np.abs(own if d == 1.0 else _far_start._refocused(own, d)) for d in costs}

    def tried(name, trial, epochs, task):
        size = {d: float(np.abs(np.abs(trial.probe) - spot).max()) for d, spot in spots.items()}
        nearest = min(size, key=lambda d: size[d])
        cost = costs[nearest] if size[nearest] < 1e-3 * spots[nearest].max() else 9.0
        return SimpleNamespace(value=trial, history=np.full(99, cost))

    monkeypatch.setattr(_far_start, "run_engine", tried)
    data = {"counts": scan.counts, "mask": np.ones(scan.frame_shape, bool)}
    task = EngineTask(data, {}, lambda model, batch: 0.0)
    found = _far_start.best_defocus(model, task, Console(quiet=True))
    np.testing.assert_allclose(np.abs(found.probe), spots[chosen], atol=1e-3 * spots[chosen].max())


@pytest.mark.parametrize("near", [True, False])
def test_recipe_reaches_the_photon_noise_and_its_file_predicts_the_frames(tmp_path, near):
    counts, _ = small_scans.write_cxi(tmp_path / "scan.cxi", near)
    method = "near-field-ptychography" if near else "far-field-ptychography"
    scan = dr.open_scan(
        tmp_path / "scan.cxi", method=method, **({"focus_to_sample": small_scans.FOCUS} if near else {})
    )
    settings = {"solver": {"epochs": 60}, "model": {"modes": 2, "background": True, "gain": True}}
    result = dr.reconstruct(scan, settings=settings)
    figures = result.quality
    # Held-out views at the border of so small a scan see object that no other view saw: not quite the noise.
    assert figures["held_out_residual"] < 1.6 * figures["noise_floor_residual"]
    assert figures["held_out_deviance"] < 2.2 * figures["noise_floor_deviance"]
    assert len(figures["held_out_views"]) == 4 and result.verdict

    dr.write(tmp_path / "out.h5", result, scan)
    frames = counts if near else np.fft.ifftshift(counts, (1, 2))
    good = frames[0] != 65535
    for view in (0, 7, 35):
        prediction = predict(tmp_path / "out.h5", view, near)
        deviance = dr.quality.deviance(frames[view], prediction, good)
        assert deviance < 1.6 * figures["noise_floor_deviance"]


def test_unknown_optimiser_is_refused(tmp_path):
    small_scans.write_cxi(tmp_path / "scan.cxi", False)
    scan = dr.open_scan(tmp_path / "scan.cxi", method="far-field-ptychography")
    with pytest.raises(dr.InputError, match="optimiser.name: there is no 'adamm'; did you mean adam"):
        dr.reconstruct(scan, settings={"optimiser": {"name": "adamm"}})
    with pytest.raises(dr.InputError, match="no engine 'adamm'; did you mean adam"):
        dr.reconstruct(scan, settings={"solver": {"stages": ["adamm:3"]}})


def test_a_closed_shutter_and_swapped_positions_do_no_harm(tmp_path):
    _, positions = small_scans.write_cxi(tmp_path / "scan.cxi", True)
    said: list[str] = []
    scan = dr.open_scan(tmp_path / "scan.cxi", method="near-field-ptychography", focus_to_sample=small_scans.FOCUS)
    counts = np.array(scan.counts)
    counts[4] = 0
    assert scan.positions is not None
    scan = scan.replace(counts=counts, positions=scan.positions[:, ::-1])
    console = dr.Console(quiet=True)
    console.say = said.append
    result = dr.reconstruct(scan, settings={"solver": {"epochs": 25}}, console=console)
    assert any("view 4" in line for line in said) and any("swapped" in line for line in said)
    assert result.quality["held_out_residual"] < 2 * result.quality["noise_floor_residual"]
    assert len(result["positions"]) == len(positions) and result["gain"][4] == 0
    assert 4 not in result.quality["held_out_views"] and max(result.quality["held_out_views"]) < len(positions)
    moved = result["positions"] / small_scans.PIXEL - positions
    assert np.std(moved, axis=0).max() < 1.0  # where its neighbours in time say


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"model": {"check": "maybe"}}, "model.check"),
        ({"model": {"distance": True}}, "no setting model.distance"),
        ({"model": {"detector_blur": "wide"}}, "model.detector_blur"),
        ({"model": {"scan_matrix": [1, 2, 3]}}, "model.scan_matrix"),
        ({"model": {"travel": [[1, "x"]]}}, "model.travel"),
        ({"model": {"probe": False}, "optimiser": {"probe": 2.0}}, "optimiser.probe has no effect"),
        ({"model": {"refine_spacing": True}}, "refine_spacing has no effect"),
        ({"solver": {"stages": ["dm:3"]}, "loss": {"tv": 1.0}}, "loss.tv has no effect with solver.stages = dm:3"),
        ({"solver": {"stages": ["adam:3"], "epochs": 4}}, "solver.epochs has no effect"),
        ({"model": {"slices": 2}}, "slice_spacing"),
        ({"model": {"air": [0, 2, 0, 2]}, "solver": {"epochs": 1}}, "model.air"),
        ({"quality": {"held_out_views": [99]}}, "held_out_views"),
        ({"solver": {"stages": ["adam"]}}, "epochs"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, settings, says):
    small_scans.write_cxi(tmp_path / "scan.cxi", False)
    scan = dr.open_scan(tmp_path / "scan.cxi", method="far-field-ptychography")
    with pytest.raises(dr.InputError, match=says):
        dr.reconstruct(scan, settings=settings)


def test_halves_and_geometry_in_the_verdict(tmp_path):
    small_scans.write_cxi(tmp_path / "scan.cxi", True)
    scan = dr.open_scan(tmp_path / "scan.cxi", method="near-field-ptychography", focus_to_sample=small_scans.FOCUS)
    settings = {
        "solver": {"epochs": 15},
        "quality": {"halves": True},
        "loss": {"saturation": 500, "position_prior": 1.0},
        "model": {"detector_blur": True, "drift": 3, "check": "no", "refractive": True, "air": [20, 30, 22, 34]},
    }
    result = dr.reconstruct(scan, settings=settings)
    assert any("halves" in line for line in result.verdict) and any("detector_blur found" in v for v in result.verdict)
    empty = result["phase"][20:30, 22:34]
    rows, columns = np.nonzero(np.isfinite(empty))
    plane = np.stack([np.ones(rows.size), rows, columns], 1)
    np.testing.assert_allclose(plane.T @ empty[rows, columns] / rows.size, 0, atol=1e-4)
    # Half the views, 15 epochs: well beyond the lowest rings, and not all of them.
    assert 0.1 < result.quality["crossing"] < 0.5 and float(result.quality["detector_blur"]) < 0.5


def test_geometry_in_the_settings_is_fixed_where_it_has_a_value(tmp_path):
    small_scans.write_cxi(tmp_path / "scan.cxi", True)
    scan = dr.open_scan(tmp_path / "scan.cxi", method="near-field-ptychography", focus_to_sample=small_scans.FOCUS)
    geometry = {
        "detector_blur": 0.6,
        "source_blur": 0.4,
        "travel": [1.0, 0.0],
        "distance": "2 mm",
        "tilt": True,
        "scan_matrix": False,
        "oversampling": 2,
    }
    method = dr.modality.find("near-field-ptychography")
    problem = method.start(
        scan, dr.settings.build(method.settings, {"model": geometry}, "ptychography"), dr.Console(True)
    )
    found = problem.model.geometry()
    assert found["detector_blur"] == np.float32(0.6) and found["distance"] == np.float32(2e-3)
    np.testing.assert_allclose(found["source_blur"], 0.8)  # object pixels are half the detector's
    np.testing.assert_allclose(found["travel"], [[2.0, 0.0]])
    assert "scan_matrix" not in found
    assert set(problem.unknowns) == {"object", "probe", "positions", "background", "tilt"}


def test_fine_light_is_recognised_by_the_power_at_the_highest_frequencies():
    rng = np.random.default_rng(0)
    smooth = 1000 * np.exp(-(np.hypot(*np.mgrid[-16:16, -16:16]) ** 2) / 60) * np.ones((20, 1, 1))
    mask = np.ones((32, 32), bool)
    assert not dr.prepare.light_is_fine(rng.poisson(smooth), mask)
    assert dr.prepare.light_is_fine(rng.poisson(smooth * rng.uniform(0.5, 1.5, (32, 32))), mask)


def test_finer_pixels_begin_on_those_of_the_detector(tmp_path):
    small_scans.write_cxi(tmp_path / "scan.cxi", True)
    scan = dr.open_scan(tmp_path / "scan.cxi", method="near-field-ptychography", focus_to_sample=small_scans.FOCUS)
    settings = {"solver": {"steps": 160}, "model": {"oversampling": 2}, "quality": {"error_bar": False}}
    result = dr.reconstruct(scan, settings=settings)
    assert result.quality["history"].size == 2 * 14 * 4  # 0.36 of forty epochs of four steps, twice
    # As eighty epochs of a plain descent (1.64); twenty-five end at 1.88.
    assert result.quality["held_out_residual"] < 1.72 * result.quality["noise_floor_residual"]
