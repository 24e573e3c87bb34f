"""K-edge tomography: densities in g/cm^3 of an independent simulation, its error bars, and what it refuses."""

import dataclasses

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

import diffrecon as dr
from diffrecon.models import KEdgeTomography, attenuation_spectra
from diffrecon.simulate import kedge_tomography

SMALL = {"COLUMNS": 40, "ROWS": 1, "VIEWS": 36, "VIALS": (20.0, 10.0)}


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """One file and its default reconstruction for all tests."""
    path = tmp_path_factory.mktemp("kedge") / "vials.h5"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(kedge_tomography, name, value)
        truth = kedge_tomography.write(path, 1)
    about = 19.5 + kedge_tomography.AXIS + 0.4  # a guess that is refined
    return path, truth, dr.reconstruct(dr.open_scan(path, rotation_centre=about))


def test_densities_in_grams(solved):
    """The sample moved between the energies and the axis is off the middle: both are found from the data."""
    _, truth, result = solved
    assert np.sum(result["water"]) == pytest.approx(truth["water"].sum(), rel=0.01)
    iodine, plain = np.asarray(result["iodine"], float), (truth["water"] > 0.999) & (truth["iodine"] <= 0)
    assert np.asarray(result["water"])[plain].mean() == pytest.approx(1, rel=0.01)
    assert abs(iodine[plain].mean()) < 2e-4  # g/cm^3; seeds scatter by 0.6e-4, as flats and brightness have it
    for vial in SMALL["VIALS"]:
        assert iodine[np.isclose(truth["iodine"], 1e-3 * vial)].mean() == pytest.approx(1e-3 * vial, rel=0.08)
    moves = result.quality["moves"]
    assert moves[1, 0] - moves[0, 0] == pytest.approx(kedge_tomography.MOVED, abs=0.06)
    assert result.quality["axis"] == pytest.approx(19.5 + kedge_tomography.AXIS, abs=0.06)


def test_held_out_views_and_error_bars(solved):
    _, truth, result = solved
    assert result.quality["held_out_residual"] < 1.15 * result.quality["noise_floor_residual"]
    plain = (truth["water"] > 0.999) & (truth["iodine"] <= 0)
    spread, bar = np.asarray(result["iodine"])[plain].std(), np.median(np.asarray(result["iodine_error"])[plain])
    assert 0.5 * bar < spread < 1.5 * bar
    said = next(line for line in result.verdict if "deviation of the masses" in line)
    pixel = 100 * result.quantities["iodine"].pixel_size
    mass = truth["iodine"].sum() * pixel**3
    bar = float(said.rpartition("iodine ")[2].split()[0].rstrip(","))
    assert abs(result.quality["iodine_mass"] - mass) < 3 * bar < 0.6 * mass


def test_spectrum_lets_through_what_is_beside_the_edge():
    """A band with half of its light below the edge: the mean of two exponentials, not of the coefficients."""
    edge = max(dr.physics.edges("Gd"))
    table, shares = attenuation_spectra({"Gd": "Gd"}, [edge], bandwidth=0.01)
    assert shares.sum() == pytest.approx(1)
    model = KEdgeTomography.empty((1, 8, 8), np.zeros(1), np.zeros(1, int), table, shares, 1.0)
    areal = 0.1
    depth, slope = model.attenuated(jnp.full((1, 1, 1, 1), areal), jnp.arange(1))
    expected = shares[0] @ np.exp(-table[0, :, 0] * areal)
    assert float(jnp.exp(-depth[0, 0, 0])) == pytest.approx(expected, rel=1e-5)
    mean = table[0, :, 0] @ shares[0]
    assert float(depth[0, 0, 0]) < 0.95 * mean * areal and float(slope[0, 0, 0, 0]) < 0.9 * mean


def test_harmonics_pass_what_stops_the_beam():
    """Behind water that leaves nothing of the beam there is its share at three times the energy, by its coefficient."""
    table, shares = attenuation_spectra({"water": "H2O"}, [33e3], bandwidth=0.01, harmonics=0.02)
    plain = attenuation_spectra({"water": "H2O"}, [99e3])[0]
    light = shares[0] @ np.exp(-table[0, :, 0] * 100)
    assert shares.sum() == pytest.approx(1) and light == pytest.approx(0.02 * np.exp(-100 * plain[0, 0, 0]), rel=1e-3)


def test_rows_move_with_the_sample():
    model = KEdgeTomography.empty((4, 8, 8), np.zeros(2), np.array([0, 1]), np.ones((2, 1, 1)), np.ones((2, 1)), 1.0)
    density = jnp.arange(4.0)[None, :, None, None] * jnp.ones((1, 4, 8, 8))
    moved = model.replace(density=density, moves=model.moves.at[1, 3].set(0.5))
    first, second = moved.thickness(density, jnp.arange(2))[:, 0, :, 4]
    np.testing.assert_allclose(second[1:], (first[1:] + first[:-1]) / 2, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "settings", "said"),
    [
        ({"theta": None}, {}, "no angles"),
        ({"energies": [33319.0, 33400.0]}, {}, "cannot tell them apart"),
        ({"energies": [33319.0]}, {}, "/energies 1"),
        ({}, {"model": {"materials": ["H2O", "I", "Ca"]}}, "3 materials .* need as many different energies"),
        ({"flats": None}, {}, "empty beam"),
        ({}, {"model": {"bandwidth": 0.01, "attenuation": [[1.0, 2.0], [3.0, 1.0]]}}, "tables are needed"),
    ],
)
def test_refusals(solved, tmp_path, change, settings, said):
    with h5py.File(solved[0]) as old, h5py.File(tmp_path / "bad.h5", "w") as new:
        new.attrs.update(old.attrs)
        for name in ("counts", "flats", "darks", "energies", "theta", "materials", "formula"):
            if change.get(name, 0) is not None:
                new[name] = change.get(name, old[name][()])
    with pytest.raises(dr.InputError, match=said):
        dr.reconstruct(dr.open_scan(tmp_path / "bad.h5"), settings=settings)


def test_bandwidth_is_not_for_radiographs():
    scan = dr.Scan.from_arrays(
        np.full((2, 4, 4), 90.0), method="k-edge", flux=1e2, geometry=dr.ParallelBeam(1e-6, np.array([8250.0, 8420.0]))
    )
    for name in ("bandwidth", "harmonics"):
        with pytest.raises(dr.InputError, match=f"{name} is for tomograms"):
            dr.reconstruct(scan, settings={"model": {"materials": ["Ni", "SiO2"], name: 0.01}})


def test_notes_of_edges(solved):
    scan = dr.open_scan(solved[0])
    from diffrecon.recipes._kedge_volume import notes_of

    near = notes_of({"I": "I"}, np.array([33019.0, 33319.0]), 0.0)
    assert len(near) == 1 and "0.45% off an edge of I" in near[0]
    assert "no absorption edge" in notes_of({"I": "I"}, np.array([40e3, 60e3]), 0.0)[0]
    assert dataclasses.is_dataclass(scan) and scan.extra["materials"] == kedge_tomography.FORMULA


@pytest.mark.parametrize("what", ["frames", "angles"])
def test_odd_frames_are_left_out_and_mixed_angles_noticed(solved, tmp_path, what):
    path, truth, _ = solved
    with h5py.File(path) as old, h5py.File(tmp_path / "odd.h5", "w") as new:
        new.attrs.update(old.attrs)
        for name in ("counts", "flats", "darks", "energies", "theta", "materials", "formula"):
            new[name] = old[name][()]
        if what == "angles":
            new["theta"][1] = np.random.default_rng(0).permutation(new["theta"][1])
        else:
            new["counts"][0, 30:], new["counts"][1, :2] = 100, 100
            new["counts"][:, :, 0, 12] = 60000
            new["flats"][1, 3], new["darks"][:3] = 100, 15000
    result = dr.reconstruct(dr.open_scan(tmp_path / "odd.h5", rotation_centre=21), settings={"solver": {"rounds": 8}})
    said = "\n".join(result.verdict)
    if what == "angles":
        assert "WARNING: the counts are explained" in said
        return
    assert "views 30:38 left out" in said and "1 pixels brighter than the empty beam" in said
    assert "flat 23 left out, 1 of 40" in said and "darks 0, 1, 2 left out" in said and "WARNING" not in said
    assert np.sum(result["water"]) == pytest.approx(truth["water"].sum(), rel=0.02)
