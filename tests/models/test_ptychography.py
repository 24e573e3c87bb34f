"""`Ptychography`: predicted counts, first guesses, and the first example of the design, near and far field."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_scans

import diffrecon as dr
from diffrecon.models import Ptychography


def open_small(tmp_path, near, **keys):
    counts, positions = small_scans.write_cxi(tmp_path / "scan.cxi", near)
    given = (
        {"focus_to_sample": small_scans.FOCUS, "method": "near-field-ptychography"}
        if near
        else {"method": "far-field-ptychography"}
    )
    return dr.open_scan(tmp_path / "scan.cxi", **given, **keys), counts, positions


@pytest.mark.parametrize("near", [True, False])
def test_true_object_and_probe_predict_the_independent_simulation(near):
    """The sample moved by band-limited shifts there, the probe here: the same up to what leaves the probe's window."""
    frames, obj, probe, positions = small_scans.make(near)
    model = Ptychography(
        jnp.asarray(obj, jnp.complex64),
        jnp.asarray(probe[None], jnp.complex64),
        jnp.asarray(positions, jnp.float32),
        jnp.full(frames.shape[1:], 0.5),
        jnp.full(len(frames), 2.0),
        small_scans.DISTANCE,
        small_scans.WAVELENGTH,
        small_scans.PIXEL,
        not near,
    )
    found = np.asarray(model(np.arange(len(frames))))
    assert np.linalg.norm(found - (2 * frames + 0.25)) < 0.02 * np.linalg.norm(2 * frames)
    rounded = eqx.tree_at(lambda m: m.positions, model, jnp.round(model.positions))
    assert np.linalg.norm(np.asarray(rounded(np.arange(len(frames)))) - 2 * frames) > 0.04 * np.linalg.norm(2 * frames)


@pytest.mark.parametrize("near", [True, False])
def test_first_guess(tmp_path, near):
    scan, counts, positions = open_small(tmp_path, near)
    model = Ptychography.from_scan(scan, modes=3, margin=5)
    assert (
        model.far is not near
        and model.probe.shape == (3, 32, 32)
        and model.pixel_size == pytest.approx(small_scans.PIXEL)
    )
    # Patch corners follow the sample's motion as CXI means it, the smallest at the margin.
    np.testing.assert_allclose(model.positions, positions - positions.min(0) + 5, atol=1e-3)
    reach = np.ceil(np.asarray(model.positions).max(0)) + 32 + 5
    assert model.object.shape == tuple(reach.astype(int))
    # The power is that of the mean frame without the dead pixel, whatever the scale of the probe in the file.
    good = counts.astype(float)
    good[good > 60000] = 0
    assert float(jnp.sum(jnp.abs(model.probe) ** 2)) == pytest.approx(good.sum((1, 2)).mean(), rel=1e-4)
    power = np.asarray(jnp.sum(jnp.abs(model.probe) ** 2, (1, 2)))
    np.testing.assert_allclose(power[1:] / power[0], 0.02, rtol=1e-3)


def test_a_probe_from_the_file_fits_finer_pixels_and_a_wider_window(tmp_path):
    """The same band-limited wave where pixels' centres are, and the border around it."""
    scan, _, _ = open_small(tmp_path, True)
    y, x = np.mgrid[:32, :32] - 15.5
    beam = lambda y, x: np.exp(-(y**2 + x**2) / 40 + 0.2j * x)
    model = Ptychography.from_scan(scan.replace(probe=beam(y, x)), oversampling=2, border=4)
    fine = (np.arange(80) - 39.5) / 2
    expected = beam(fine[:, None], fine[None])
    found = np.asarray(model.probe[0])
    found = found * np.vdot(found, expected) / np.vdot(found, found)
    assert np.linalg.norm(found - expected) < 0.01 * np.linalg.norm(expected)


def test_the_empty_beam_and_the_darks_are_the_first_guess(tmp_path):
    scan, _, _ = open_small(tmp_path, True)
    flats, darks = np.full((3, 32, 32), 90.0), np.full((2, 32, 32), 9.0)
    model = Ptychography.from_scan(scan.replace(probe=None, flats=flats, darks=darks, mask=None))
    assert float(jnp.sum(jnp.abs(model.probe) ** 2)) == pytest.approx(81 * 32 * 32, rel=1e-4)
    np.testing.assert_allclose(model.background, 3.0)


def test_scale_of_the_probe_in_the_file_changes_nothing(tmp_path):
    scan, _, _ = open_small(tmp_path, False)
    one, other = (Ptychography.from_scan(scan.replace(probe=scan.probe * factor)) for factor in (1, 128))
    np.testing.assert_allclose(other.probe, one.probe, rtol=1e-5)


def test_positions_in_pixels_and_in_metres_are_the_same(tmp_path):
    scan, _, _ = open_small(tmp_path, True)
    in_pixels = scan.replace(positions=scan.positions / scan.pixel_size, positions_unit="pixel")
    np.testing.assert_allclose(
        Ptychography.from_scan(in_pixels).positions, Ptychography.from_scan(scan).positions, atol=1e-4
    )


@pytest.mark.parametrize("near", [True, False])
def test_guess_without_a_probe_in_the_file_has_the_mean_power(tmp_path, near):
    scan, _, _ = open_small(tmp_path, near)
    with_probe, without = Ptychography.from_scan(scan), Ptychography.from_scan(scan.replace(probe=None))
    assert float(jnp.sum(jnp.abs(without.probe) ** 2)) == pytest.approx(
        float(jnp.sum(jnp.abs(with_probe.probe) ** 2)), rel=1e-4
    )


@pytest.mark.parametrize(
    "change, says",
    [
        ({"positions": None}, "positions"),
        ({"positions": np.full((36, 2), 1e-6)}, "unit is wrong"),
        ({"positions_unit": "pixel"}, "unit is wrong"),
        ({"positions_unit": "m", "positions": np.linspace(0, 1, 72).reshape(36, 2)}, "unit is wrong"),
        ({"probe": np.ones((1, 8, 8), complex)}, "probe has shape (8, 8)"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_refuses_what_is_no_scan(tmp_path, change, says):
    scan, _, _ = open_small(tmp_path, True)
    with pytest.raises(dr.InputError) as caught:
        Ptychography.from_scan(scan.replace(**change))
    assert says in str(caught.value)


def cost(model, batch):
    return dr.losses.amplitude(model(batch.views), batch.counts, batch.mask)


@pytest.mark.parametrize("near", [True, False])
def test_first_example_of_the_design(tmp_path, near):
    """Scan in, model, cost, minimise, file out: the lines of the quick start; frames in CXI order need no further
    word.
    """
    scan, _, _ = open_small(tmp_path, near)
    model = dr.models.Ptychography.from_scan(scan, modes=1)
    solution = dr.minimise(
        cost,
        model,
        scan,
        optax.adam(2e-2),
        epochs=80,
        batch_size=12,
        unknowns={"object": 1.0, "probe": 20.0, "positions": 1.0},
    )
    assert solution.history[0] > 20 and solution.history[-3:].mean() < 0.4  # 0.25 is photon noise alone
    dr.write(tmp_path / "out.h5", solution, scan)
    np.testing.assert_allclose(dr.read_result(tmp_path / "out.h5")["object"], solution.value.object)


def test_distance_may_be_an_unknown(tmp_path):
    scan, _, _ = open_small(tmp_path, True)
    frames, obj, probe, positions = small_scans.make(True)
    model = Ptychography(
        jnp.asarray(obj, jnp.complex64),
        jnp.asarray(probe[None], jnp.complex64),
        jnp.asarray(positions, jnp.float32),
        jnp.zeros(frames.shape[1:]),
        jnp.ones(len(frames)),
        1.03 * small_scans.DISTANCE,
        small_scans.WAVELENGTH,
        small_scans.PIXEL,
        False,
    )
    solution = dr.minimise(cost, model, scan, optax.adam(1e-4), steps=40, unknowns=("distance",))
    assert float(solution.value.distance) == pytest.approx(small_scans.DISTANCE, rel=3e-3)


EVERYTHING = {
    "astigmatism": 0.05 * small_scans.DISTANCE, "tilt": np.array([0.1, -0.2]) * small_scans.DISTANCE
    / small_scans.PIXEL / 60, "scan_matrix": np.array([[1.01, 0.02], [-0.01, 0.99]]),
    "drift": np.array([[0.2, -0.1], [0.3, 0.2], [-0.2, 0.1]]), "travel": np.array([[0.8, -0.4]]),
    "source_blur": np.array([0.5, 0.7]), "detector_blur": np.array([0.6, 0.4]),
    "slice_spacing": 0.1 * small_scans.DISTANCE,
}  # fmt: skip


def everything(near: bool) -> Ptychography:
    """A model in which every field is at work, float64."""
    frames, obj, probe, positions = small_scans.make(near)
    rng = np.random.default_rng(3)
    waves = lambda *shape: rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    values = {k: jnp.asarray(v) for k, v in EVERYTHING.items()}
    return Ptychography(
        jnp.asarray(np.stack([np.angle(obj) - 0.1j * np.log(abs(obj) + 0.1)] * 2) / 2),
        jnp.asarray(np.stack([probe, 0.2 * probe * waves(*probe.shape)])),
        jnp.asarray(positions), jnp.full((1, 1), 0.3), jnp.ones(len(frames)), jnp.asarray(small_scans.DISTANCE),
        small_scans.WAVELENGTH, small_scans.PIXEL, not near, refractive=True, nodes=2,
        probe_variations=jnp.asarray(0.1 * probe * waves(2, *probe.shape)),
        variation_weights=jnp.asarray(rng.standard_normal((len(frames), 2))),
        border=2 if near else 0, **values,
    )  # fmt: skip


@pytest.mark.parametrize("near", [True, False])
def test_model_of_some_views_predicts_them(near):
    """Every field at work, drift of the scan in time too."""
    with jax.enable_x64(True):
        model, views = everything(near), np.array([3, 17, 18, 35])
        part = model.of_views(views)
        assert len(part.positions) == len(part.variation_weights) == 4
        np.testing.assert_allclose(part(np.arange(4)), model(views), rtol=1e-6)
        np.testing.assert_allclose(part.of_views([1])(np.arange(1)), model(views[1:2]), rtol=1e-6)


@pytest.mark.parametrize("near", [True, False])
def test_fixing_the_gauge_leaves_the_prediction(near):
    frames, obj, probe, positions = small_scans.make(near)
    ramp = np.exp(2j * np.pi * 3 / 32 * np.arange(obj.shape[0]))[:, None]
    modes = np.stack([probe, 0.3j * probe * np.linspace(-1, 1, 32)])
    model = Ptychography(
        jnp.asarray(2j * obj * ramp, jnp.complex64),
        jnp.asarray(modes, jnp.complex64),
        jnp.asarray(positions, jnp.float32),
        jnp.zeros((32, 32)),
        jnp.ones(len(frames)),
        small_scans.DISTANCE,
        small_scans.WAVELENGTH,
        small_scans.PIXEL,
        not near,
    )
    cleaned = model.fix_gauge()
    views = np.arange(4)
    before, after = np.asarray(model(views)), np.asarray(cleaned(views))
    if near:  # a ramp of the object moves the near-field frame: only what leaves the product as it is may change
        assert np.linalg.norm(after - before) < 0.02 * np.linalg.norm(before)
    else:
        assert np.linalg.norm(after - before) < 1e-3 * np.linalg.norm(before)
    assert eqx.tree_equal(cleaned.positions, model.positions)
    light = cleaned.well_seen()
    assert np.mean(abs(np.asarray(cleaned.object))[light]) == pytest.approx(1, abs=0.05)


def test_geometry_is_put_in_by_name():
    frames, obj, probe, positions = small_scans.make(True)
    cast = lambda values: jnp.asarray(values, jnp.float32)
    model = Ptychography(
        jnp.asarray(obj, jnp.complex64), jnp.asarray(probe[None], jnp.complex64), cast(positions), jnp.zeros((1, 1)),
        jnp.ones(len(frames)), small_scans.DISTANCE, small_scans.WAVELENGTH, small_scans.PIXEL, oversampling=2,
    )  # fmt: skip
    made = model.with_geometry(distance=True, tilt=True, source_blur=0.4, travel=(1.0, 0.0), scan_matrix=None, drift=3)
    assert set(made.geometry()) == {"distance", "tilt", "source_blur", "travel", "drift"}
    np.testing.assert_allclose(made.source_blur, 0.8)  # object pixels are half the detector's
    np.testing.assert_allclose(made.travel, [[2.0, 0.0]])
    assert made.drift.shape == (3, 2) and made.distance == np.float32(small_scans.DISTANCE)
    # Half the way between neighbours in time along the first line, nowhere at the jump to the next.
    path = np.asarray(model.with_geometry(travel=True).travel)
    np.testing.assert_allclose(path[1], (positions[2] - positions[0]) / 2, atol=1e-4)
    for wrong, says in (({"scan_matrix": (1, 2, 3)}, "scan_matrix.*neither"), ({"tilts": True}, "tilts")):
        with pytest.raises(dr.InputError, match=says):
            model.with_geometry(**wrong)
    with pytest.raises(dr.InputError, match="far field do not depend on it"):
        model.replace(far=True).with_geometry(distance=True)
