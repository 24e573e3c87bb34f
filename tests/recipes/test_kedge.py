"""K-edge subtraction: exact without noise, efficient with it, honest about what cannot be solved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffrecon as dr
from diffrecon.cli import main
from diffrecon.models import KEdge, attenuation_table, check_table
from diffrecon.solvers import fisher_deviation, fisher_scoring, log_subtraction

TABLE = [[45.5, 33.3], [321.0, 31.4]]
RANDOM = np.random.default_rng(1)
AREAL = np.stack([2e-3 * RANDOM.random((12, 16)), 5e-3 * RANDOM.random((12, 16))])


def scan(table, flux, noise=True, dark=50.0, energies=(8250.0, 8420.0), copies=1):
    light = flux * np.exp(-np.einsum("vm,myx->vyx", np.asarray(table), AREAL)) + dark
    light = np.repeat(light, copies, 0) if copies > 1 else light
    counts = np.random.default_rng(2).poisson(light) if noise else light
    return dr.Scan.from_arrays(
        counts,
        method="k-edge",
        geometry=dr.ParallelBeam(1e-6, np.repeat(energies, copies)),
        flats=np.full((len(light), 12, 16), flux + dark),
        darks=np.full((1, 12, 16), dark),
    )


def solved(measured, **solver):
    return dr.reconstruct(measured, "k-edge", {"model": {"materials": ["Ni", "SiO2"]}, "solver": solver})


@pytest.mark.parametrize("name", ["direct", "likelihood"])
def test_exact_without_noise(name):
    """The 2 x 2 equations of the lecture, by plain NumPy, to the digits of float32."""
    table = attenuation_table(["Ni", "SiO2"], (8250.0, 8420.0))
    result = solved(scan(table, 1e6, noise=False), name=name)
    found = np.stack([result["Ni"], result["SiO2"]])
    assert np.abs(found - AREAL).max(axis=(1, 2)) == pytest.approx(0, abs=2e-7)


def test_error_bars_are_the_scatter_also_where_photons_are_few():
    found = {}
    rng = np.random.default_rng(3)
    model = KEdge(jnp.zeros((2, 64, 64)), jnp.asarray(TABLE), jnp.full((2, 1, 1), 60.0), jnp.full((1, 1), 5.0))
    truth = np.array([3e-3, 2e-2])
    light = 60.0 * np.exp(-np.asarray(TABLE) @ truth) + 5
    counts = jnp.asarray(rng.poisson(np.broadcast_to(light[:, None, None], (2, 64, 64))))
    start = model.replace(areal=log_subtraction(model, counts))
    areal = fisher_scoring(start, counts)
    bars = np.asarray(fisher_deviation(model.replace(areal=jnp.broadcast_to(truth[:, None, None], (2, 64, 64))), 2))
    for m in range(2):
        found[m] = 1.4826 * np.median(np.abs(areal[m] - np.median(areal[m]))) / bars[m, 0, 0]
    assert 0.85 < found[0] < 1.25 and 0.85 < found[1] < 1.25
    exact = np.linalg.inv(
        (60 * np.exp(-np.asarray(TABLE) @ truth))[None] ** 2 / light * np.asarray(TABLE).T @ np.asarray(TABLE)
    )
    np.testing.assert_allclose(bars[:, 0, 0], np.sqrt(np.diag(exact)), rtol=1e-3)


def test_more_energies_weigh_by_their_photons():
    """Four views, two of them nearly dark: least squares with photon weights is close to the bound."""
    table = np.repeat(attenuation_table(["Ni", "SiO2"], (8250.0, 8420.0)), 2, 0)
    beam = np.array([4000.0, 40.0, 4000.0, 40.0])[:, None, None]
    model = KEdge(
        jnp.asarray(AREAL, jnp.float32),
        jnp.asarray(table, jnp.float32),
        jnp.asarray(beam, jnp.float32),
        jnp.zeros((1, 1)),
    )
    counts = jnp.asarray(np.random.default_rng(0).poisson(np.asarray(model(jnp.arange(4)), float)))
    bars = np.asarray(fisher_deviation(model, 4))
    for found in (log_subtraction(model, counts), fisher_scoring(model, counts)):
        ratio = np.sqrt(np.mean(((np.asarray(found) - AREAL) / bars) ** 2, axis=(1, 2)))
        assert (ratio > 0.85).all() and (ratio < 1.2).all()


@pytest.mark.parametrize("shared", [False, True])
def test_error_bars_hold_the_noise_of_few_flats(shared):
    """Two flats of each of three energies, or one flat of all: errors are as large as their bars, not larger."""
    random, table, dark = np.random.default_rng(4), np.array([[45.5, 33.3], [321.0, 31.4], [300.0, 29.0]]), 20.0
    truth, beam = np.array([1e-3, 5e-3]), np.array([900.0, 700.0, 800.0]) if not shared else np.full(3, 800.0)
    light = beam * np.exp(-table @ truth) + dark
    counts = random.poisson(light[:, None, None], (3, 64, 64))
    groups = 1 if shared else 3
    flats = random.poisson(beam[:groups].repeat(7 if shared else 2)[:, None, None] + dark, (7 if shared else 6, 64, 64))
    scan = dr.Scan.from_arrays(
        counts, method="k-edge", flats=flats, darks=np.full((1, 64, 64), dark),
        geometry=dr.ParallelBeam(1e-6, np.array([8250.0, 8420.0, 8600.0])),
    )  # fmt: skip
    result = dr.reconstruct(scan, settings={"model": {"materials": ["Ni", "SiO2"], "attenuation": table.tolist()}})
    for name, value in zip(("Ni", "SiO2"), truth, strict=True):
        z = (result[name] - value) / result[f"{name}_error"]
        assert np.sqrt(np.mean(z**2)) == pytest.approx(1, abs=0.06) and 0.64 < np.mean(np.abs(z) < 1) < 0.73
    assert any("noise of frames and flats" in line for line in result.verdict)
    left = next(line for line in result.verdict if "over what is left" in line)
    assert float(left.split("fit: ")[1].split(";")[0]) == pytest.approx(1, abs=0.08)


def test_a_material_below_zero_is_said():
    """One frame ten times too bright."""
    bright = scan(TABLE, 1e4)
    result = solved(bright.replace(counts=np.asarray(bright.counts) * np.array([1, 10])[:, None, None]))
    assert any("Ni is below zero" in line for line in result.verdict)
    assert any("views brighter than the empty beam: 1 (" in line for line in result.verdict)
    assert not any("below zero" in line for line in solved(bright).verdict)


def test_flats_and_views_that_are_none():
    """A dark flat, a lit dark, flats in another order: found; a closed shutter and flats of unclear energies: not."""
    random, beams = np.random.default_rng(7), np.array([4000.0, 4600.0])
    light = np.exp(-np.einsum("vm,myx->vyx", np.asarray(TABLE), AREAL))
    light[:, :5, :5] = 1  # air
    flats = random.poisson(np.repeat(beams, 4)[:, None, None] * np.ones((12, 16)) + 50.0)
    plain = scan(TABLE, 4e3).replace(
        counts=random.poisson(beams[:, None, None] * light + 50.0), flats=flats, darks=random.poisson(50.0, (4, 12, 16))
    )
    ask = {"model": {"materials": ["Ni", "SiO2"], "attenuation": TABLE}}
    found = dr.reconstruct(plain, "k-edge", ask)
    odd, lit = flats.copy(), np.concatenate([plain.darks, flats[:1] // 5])
    odd[5] = 50
    bad = dr.reconstruct(plain.replace(flats=odd, darks=lit), "k-edge", ask)
    assert any("flat 5 left out, 1 of 8" in line for line in bad.verdict)
    assert any("dark 4 left out, 1 of 5" in line for line in bad.verdict)
    other = dr.reconstruct(plain.replace(flats=flats.reshape(2, 4, 12, 16).swapaxes(0, 1)), "k-edge", ask)
    assert any("8 flats alternate between the 2 energies" in line for line in other.verdict)
    for result in (bad, other):
        for name in ("Ni", "SiO2"):
            assert np.mean(result[name]) == pytest.approx(np.mean(found[name]), rel=0.06)
    shut = np.asarray(plain.counts).copy()
    shut[1] = random.poisson(50, (12, 16))
    with pytest.raises(dr.InputError, match="view 1 transmits .* was the shutter closed"):
        dr.reconstruct(plain.replace(counts=shut), "k-edge", ask)
    with pytest.raises(dr.InputError, match="7 flats do not share out among 2 energies"):
        dr.reconstruct(plain.replace(flats=flats[:7]), "k-edge", ask)
    dark = np.where(np.arange(8)[:, None, None] < 4, flats, 50)
    with pytest.raises(dr.InputError, match="the flats of energy 1 hold no light"):
        dr.reconstruct(plain.replace(flats=dark), "k-edge", ask)
    longer = np.where(np.arange(8)[:, None, None] < 4, flats, 2 * flats - 50)
    said = dr.reconstruct(plain.replace(flats=longer), "k-edge", ask).verdict
    assert any("views nowhere as bright as the empty beam: 1 (0.5 times) at most" in line for line in said)
    assert not any("nowhere as bright" in line or "left out" in line for line in found.verdict)


def test_pixels_without_light_or_value_are_counted():
    whole = scan(TABLE, 1e4)
    flats = np.full((4, *whole.frame_shape), 1e4)
    flats[:, 0, 3], darks = 0, np.zeros((1, *whole.frame_shape))
    darks[0, 1, 1] = np.nan
    result = solved(whole.replace(flats=flats, darks=darks))
    assert any(line.startswith("2 pixels without light or value") for line in result.verdict)
    assert np.argwhere(~np.isfinite(result["Ni"])).tolist() == [[0, 3], [1, 1]] and np.isfinite(
        result.quality["Ni_mean"]
    )


def test_gradient_against_differences():
    with jax.enable_x64(True):
        model = KEdge(jnp.asarray(AREAL), jnp.asarray(TABLE), jnp.full((2, 1, 1), 1e3), jnp.full((1, 1), 3.0))
        counts = jnp.asarray(np.random.default_rng(0).poisson(1000, (2, 12, 16)))
        cost = lambda a: dr.losses.poisson(model.replace(areal=a)(jnp.arange(2)), counts)
        way = jnp.asarray(np.random.default_rng(1).standard_normal(AREAL.shape)) * 1e-3
        slope = (cost(AREAL + 1e-5 * way) - cost(AREAL - 1e-5 * way)) / 2e-5
        assert float(jnp.vdot(jax.grad(cost)(jnp.asarray(AREAL)), way)) == pytest.approx(float(slope), rel=1e-7)


def test_total_variation_takes_noise_away_from_plateaus():
    y, x = np.mgrid[:32, :32]
    areal = np.stack([np.where((x - 16) ** 2 + (y - 16) ** 2 < 60, 1e-3, 0.0), np.full((32, 32), 4e-3)])
    table = attenuation_table(["Ni", "SiO2"], (8250.0, 8420.0))
    light = 400 * np.exp(-np.einsum("vm,myx->vyx", table, areal))
    measured = dr.Scan.from_arrays(
        np.random.default_rng(0).poisson(light),
        method="k-edge",
        flux=400.0,
        geometry=dr.ParallelBeam(1e-6, np.array([8250.0, 8420.0])),
    )
    plain, smooth = solved(measured), solved(measured, tv=0.3, positive=True, tv_steps=40)
    error = [np.linalg.norm(r["SiO2"] - areal[1]) for r in (plain, smooth)]
    assert error[1] < 0.5 * error[0]
    assert np.linalg.norm(smooth["Ni"] - areal[0]) < 0.7 * np.linalg.norm(plain["Ni"] - areal[0])


@pytest.mark.parametrize(
    "model, said",
    [
        ({"materials": None}, "which materials"),
        ({"energies": [8250.0]}, "1 energies for 2 views"),
        ({"energies": ["8.25 keV", "8.25 keV"]}, "different energies"),
        ({"materials": ["Ni", "SiO2", "Au"]}, "3 materials"),
        ({"attenuation": [[40.0, 20.0], [80.0, 40.0]]}, "cannot tell them apart"),
        ({"attenuation": [[40.0, 20.0]]}, "expected 2 rows"),
        ({"materials": ["Ni", "Xq2"]}, "Xq2"),
        ({"materials": ["Ni", "Ni"]}, "each once"),
        ({"energies": ["a", "b"]}, "not a number"),
    ],
)
def test_input_that_cannot_be_solved(model, said):
    with pytest.raises(dr.InputError, match=said):
        dr.reconstruct(scan(TABLE, 1e4), "k-edge", {"model": {"materials": ["Ni", "SiO2"], **model}})


def test_more_input_that_cannot_be_solved():
    bare = scan(TABLE, 1e4)
    with pytest.raises(dr.InputError, match="empty beam"):
        solved(bare.replace(flats=None))
    with pytest.raises(dr.InputError, match="energy of every view"):
        solved(bare.replace(geometry=None))
    with pytest.raises(dr.InputError, match="did you mean direct"):
        solved(bare, name="dircet")
    assert check_table(np.asarray(TABLE), ["a", "b"], (1.0, 2.0)) < 3


def test_one_flux_and_one_energy_a_view_from_a_file(tmp_path, capsys):
    """The empty beam differs from energy to energy; inspect says what is missing, and nothing once it is given."""
    energies, flux, table = [8320.0, 8326.0], np.array([4000.0, 9000.0]), np.array([[45.5, 33.3], [321.0, 31.4]])
    light = flux[:, None, None] * np.exp(-np.einsum("vm,myx->vyx", table, AREAL))
    np.savez(tmp_path / "a.npz", counts=light.astype(np.float32))
    assert main(["inspect", str(tmp_path / "a.npz"), "-m", "k-edge"]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("energy of every view", "data.flux in counts", "missing      model.materials"))
    known = {"energy": energies, "flux": flux.tolist(), "views": [1, 0]}
    measured = dr.open_scan(tmp_path / "a.npz", method="k-edge", **known)
    assert measured.flux.tolist() == flux[::-1].tolist() and measured.geometry.energy.tolist() == energies[::-1]
    model = {"materials": {"a": "Ni", "b": "SiO2"}, "attenuation": table[::-1].tolist()}
    result = dr.reconstruct(measured, "k-edge", {"model": model})
    assert np.abs(np.stack([result["a"], result["b"]]) - AREAL).max() < 1e-6
    sets = ["--set", "data.flux=[4000,9000]", "--set", 'geometry.energy=["8320 eV", "8326 eV"]']
    assert main(["inspect", str(tmp_path / "a.npz"), "-m", "k-edge", *sets, "--set", 'model.materials=["Ni"]']) == 0
    said = capsys.readouterr().out
    assert "flux         4000, 9000" in said and "model.materials" not in said and "problem" not in said
    with pytest.raises(dr.InputError, match="3 values for 2 views"):
        dr.open_scan(tmp_path / "a.npz", method="k-edge", flux=[1.0, 2.0, 3.0])


def test_demo(tmp_path, capsys):
    assert main(["demo", "k-edge", "-o", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith("Ni against the truth"))
    rms, bar = float(line.split("rms error ")[1].split()[0]), float(line.split("bars ")[1].split(")")[0])
    assert rms < 1.3 * bar
