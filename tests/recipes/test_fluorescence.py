"""Fluorescence through its own absorption: closed forms, an independent simulation, masses, bad input."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffrecon as dr
from diffrecon.errors import InputError
from diffrecon.operators import Escape, path_in, turn_to_beam
from diffrecon.simulate import fluorescence


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    path = tmp_path_factory.mktemp("fluorescence") / "scan.h5"
    truth = dr.simulate.demo_file("fluorescence-tomography", path, 3)
    return path, truth


def edited(measured, tmp_path, change):
    path = tmp_path / "changed.h5"
    path.write_bytes(measured[0].read_bytes())
    with h5py.File(path, "a") as file:
        change(file)
    return path


# ---------------------------------------------------------------------------------------------------- operators
@pytest.mark.parametrize("direction", [[0.9, 0.3, 0.2], [-0.8, 0.5, 0.0], [0.2, -0.95, 0.1], [0.4, 0.9, -0.1]])
def test_way_out_of_a_ball_is_its_chord(direction):
    """A soft ball, whose line integrals are those of a Gaussian; every side that a detector may stand on."""
    n, width = 40, 5.0
    way = np.array(direction) / np.linalg.norm(direction)
    u, t, z = np.meshgrid(*(np.arange(n) - (n - 1) / 2,) * 3, indexing="ij")
    ball = 0.2 * np.exp(-(u**2 + t**2 + z**2) / (2 * width**2))
    share = np.asarray(Escape(way[None], np.ones((1, 1)))(jnp.asarray(ball[..., None, None], jnp.float32)))[..., 0, 0]
    from scipy.special import erfc

    along = u * way[0] + t * way[1] + z * way[2]
    away = u**2 + t**2 + z**2 - along**2
    depth = 0.2 * np.exp(-away / (2 * width**2)) * width * np.sqrt(np.pi / 2) * erfc(along / (width * np.sqrt(2)))
    inside = np.maximum.reduce([abs(u), abs(t), abs(z)]) < 12
    assert np.abs(-np.log(share) - depth)[inside].max() < 0.01 * depth.max()


def test_slice_goes_on_along_z():
    """Out of a plate of one slice, a way that rises by 30 degrees is longer by its cosine."""
    way = np.array([[np.cos(np.pi / 6), 0, 0.5]])
    share = Escape(way, np.ones((1, 1)))(jnp.full((6, 3, 1, 1, 1), 0.1))
    np.testing.assert_allclose(share[:, 1, 0, 0, 0], np.exp(-0.1 * (5.5 - np.arange(6)) / np.cos(np.pi / 6)), rtol=1e-5)


def test_directions_close_to_each_other_are_walked_as_one():
    """A soft ridge across a slice: the mean of the ways, whatever their elevation, each with its own weight."""
    n = 24
    ridge = jnp.asarray(0.2 * np.exp(-((np.arange(n) - 11.5) ** 2) / 18)[None, :, None, None, None].repeat(n, 0), "f4")
    ways = np.array([[0.97, 0.1, 0.2], [0.98, 0.15, -0.1], [0.95, -0.3, 0.0]])
    weights = np.array([[0.2], [0.3], [0.5]])
    found = np.asarray(Escape(ways, weights)(ridge))
    each = [np.asarray(Escape(way[None], np.ones((1, 1)))(ridge)) for way in ways]
    np.testing.assert_allclose(found, np.tensordot(weights[:, 0], each, 1), atol=3e-3)


def test_rotation_has_its_sense_and_offsets_their_sign():
    image = jnp.zeros((9, 9)).at[4, 7].set(1.0)
    turned = turn_to_beam(image, jnp.asarray([0.0, np.pi / 2]), jnp.asarray([2.0, 0.0]))
    assert turned[5, 4, 0] == pytest.approx(1) and turned[4, 1, 1] == pytest.approx(1)
    np.testing.assert_allclose(path_in(jnp.ones((1, 3)))[0], [0.5, 1.5, 2.5])


def test_detector_above_is_refused():
    with pytest.raises(InputError, match="45 degrees"):
        Escape(np.array([[0.1, 0.0, 1.0]]), np.ones((1, 1)))


# ---------------------------------------------------------------------------------------------------- model
def test_model_agrees_with_exact_chords(measured):
    """Voxels of the truth predict what an independent model counted, up to the edges of its grains."""
    path, truth = measured
    scan = dr.open_scan(path)
    model = dr.models.Fluorescence.from_scan(scan)
    density = np.stack([truth[name] for name in fluorescence.COMPONENTS]).astype(np.float32)
    expected = np.asarray(jax.jit(lambda m: m(slice(None)))(model.replace(scaled=jnp.asarray(density))))
    counts = np.concatenate([scan.counts, scan.extra["transmitted"][..., None]], -1)
    np.testing.assert_allclose(expected.sum((0, 1, 2)), counts.sum((0, 1, 2)), rtol=0.012)
    own = model.replace(scaled=jnp.asarray(density))
    views = np.array([7, 31])
    given = own.counted(own.density, own.turned(slice(None))[1], views)
    np.testing.assert_allclose(given, expected[views], rtol=1e-5)
    misfit = np.linalg.norm((expected - counts).reshape(-1, 3), axis=0) / np.linalg.norm(counts.reshape(-1, 3), axis=0)
    assert (misfit < [0.06, 0.06, 0.004]).all()


def test_axis_and_wobble_from_centres_of_mass(measured):
    """Every third view one step further on, and all of them: what the transmission says of each."""
    scan = dr.open_scan(measured[0])
    model = dr.models.Fluorescence.from_scan(scan)
    counts = np.concatenate([scan.counts, scan.extra["transmitted"][..., None]], -1)
    moves = np.ones(60, int)
    moves[::3] = 2
    sent = np.asarray(model.exposure)
    rolled = sent * np.stack([np.roll(view, move, 1) for view, move in zip(counts / sent, moves, strict=True)])
    found = dr.models.measured_offsets(model, jnp.asarray(rolled, jnp.float32), None, True)
    assert np.sqrt(np.mean((found + moves) ** 2)) < 0.1
    alike = dr.models.measured_offsets(
        model, jnp.asarray(sent * np.roll(counts / sent, 1, 2), jnp.float32), None, False
    )
    np.testing.assert_allclose(alike, -1, atol=0.05)


# ---------------------------------------------------------------------------------------------------- recipe
@pytest.mark.slow
def test_masses_and_densities(measured):
    path, truth = measured
    result = dr.reconstruct(dr.open_scan(path), settings={"solver": {"rounds": 3}})
    for name, mass, error in (("Ca", 0.01, 0.08), ("Fe", 0.005, 0.06), ("SiO2", 0.005, 0.07)):
        assert result[name].sum() == pytest.approx(truth[name].sum(), rel=mass)
        assert np.linalg.norm(result[name] - truth[name]) < error * np.linalg.norm(truth[name])
        assert result[f"{name}_error"].shape == truth[name].shape
    assert result.quantities["Ca"].units == "g/cm3" and "Elam" in " ".join(result.verdict)


# ---------------------------------------------------------------------------------------------------- bad input
def test_half_a_circle_is_said(measured):
    scan = dr.open_scan(measured[0], views="0:30")
    quick = {"solver": {"name": "alternate", "sweeps": 1, "sweep_steps": 2}}
    result = dr.reconstruct(scan, settings=quick)
    assert "full circle" in " ".join(result.verdict)
    # Iron excites calcium in it, which the simulation leaves out: so much mass is taken off.
    more = dr.reconstruct(scan, settings=quick | {"model": {"secondary": True}})
    assert "% of Ca by Fe: taken into account" in " ".join(more.verdict) and 0.003 < more.quality["Ca_secondary"] < 0.1
    alone = dr.reconstruct(scan, settings={"solver": quick["solver"] | {"sweeps": 3}})
    assert more["Ca"].sum() < alone["Ca"].sum() * (1 - 0.5 * more.quality["Ca_secondary"])


def test_points_that_are_no_measurement_are_left_out(measured, tmp_path):
    """NaN, -1, the end of a narrower type, views without transmission: named, and of no weight."""

    def damage(file):
        calcium = np.minimum(file["lines/Ca/counts"][()], 60000).astype(np.uint16)
        calcium[4, 0, 10:12] = 65535
        iron = file["lines/Fe/counts"][()].astype(np.int32)
        iron[2, 0, 7] = -1
        for name, values in (("Ca", calcium), ("Fe", iron)):
            del file[f"lines/{name}/counts"]
            file[f"lines/{name}/counts"] = values
        file["transmission/counts"][9] = 0

    quick = {"solver": {"name": "alternate", "sweeps": 1, "sweep_steps": 2}}
    scan = dr.open_scan(edited(measured, tmp_path, damage))
    result = dr.reconstruct(scan, settings=quick)
    whole = dr.reconstruct(dr.open_scan(measured[0]), settings=quick)
    said = " ".join(result.verdict)
    for words in ("2 points of Ca (view 4, row 0, column 10", "1 point of Fe (view 2, row 0, column 7) below zero",
                  "36 points of transmission (view 9"):  # fmt: skip
        assert words in said
    for name in ("SiO2", "Ca", "Fe"):
        assert result[name].sum() == pytest.approx(whole[name].sum(), rel=0.01)
    model = dr.models.Fluorescence.from_scan(scan)
    counts = np.concatenate([scan.counts, scan.extra["transmitted"][..., None]], -1).astype(np.float32)
    model = model.replace(exposure=model.exposure.at[9, ..., -1].set(0))
    found = dr.models.measured_offsets(model, jnp.asarray(counts), None, True)
    assert np.abs(found).max() < 0.3 and np.isclose(found[9], np.median(found), atol=0.05)


def test_lines_and_angles_that_cannot_be_are_refused(measured, tmp_path):
    def slow(file):
        file.attrs["energy_eV"] = 5000.0

    with pytest.raises(InputError, match="Fe Ka is not excited by a beam of 5 keV"):
        dr.reconstruct(dr.open_scan(edited(measured, tmp_path, slow)))

    def lost(file):
        file["theta"][3] = np.nan

    with pytest.raises(InputError, match="theta"):
        dr.open_scan(edited(measured, tmp_path, lost))


def test_dark_monitor_is_refused_with_its_place(measured, tmp_path):
    def dark(file):
        file["monitor/counts"][2, 0, 5] = 0

    with pytest.raises(InputError, match="view 2, row 0, point 5"):
        dr.open_scan(edited(measured, tmp_path, dark))


def test_matrix_must_be_seen(measured, tmp_path):
    def blind(file):
        del file["transmission"]

    with pytest.raises(InputError, match="nothing tells how the matrix absorbs"):
        dr.reconstruct(dr.open_scan(edited(measured, tmp_path, blind)))


def test_element_without_a_line_is_refused(measured, tmp_path):
    def silent(file):
        file["lines/Fe"].attrs["production_cm2_per_g"] = 0.0

    with pytest.raises(InputError, match="lines/Fe@production_cm2_per_g is 0; expected a number above zero"):
        dr.open_scan(edited(measured, tmp_path, silent))
    scan = dr.open_scan(measured[0])
    tables = dict(scan.extra["cross_sections"])
    tables["emission"] = np.where(np.arange(3) == 2, 0.0, tables["emission"])
    with pytest.raises(InputError, match="Fe has no line"):
        dr.models.CrossSections(**tables).check(scan.name)


def test_points_are_not_binned(measured):
    with pytest.raises(InputError, match="scan points"):
        dr.open_scan(measured[0], binning=2)
