"""The tomography recipe on exact line integrals of ellipses with photon noise, whose truth it must find."""

import numpy as np
import pytest

from diffrecon import recipes
from diffrecon.errors import InputError
from diffrecon.geometry import ParallelBeam
from diffrecon.io import open_volume, read_result
from diffrecon.scan import Scan
from diffrecon.solvers import SLICE_SOLVERS, SliceSolver

SIZE, ROWS, VIEWS, CENTRE, PIXEL = 48, 4, 80, 24.7, 2e-6
PHOTONS, DARK = 2e4, 50.0
# mu [1/pixel], semi-axes, centre [pixel]; the second is larger in every row
PARTS = ((0.03, 15.0, 12.0, 0.0, 0.0), (-0.015, 3.0, 4.0, 6.0, 2.0), (0.04, 2.5, 2.5, -6.0, -3.0))


def line_integrals(angles, centre=CENTRE, columns=SIZE, rays=6):
    u = (np.arange(columns * rays) + 0.5) / rays - 0.5 - centre
    rows = []
    for row in range(ROWS):
        total = np.zeros((angles.size, u.size))
        for mu, a, b, x, y in PARTS:
            reach2 = (a * np.cos(angles)) ** 2 + ((b + 0.5 * row) * np.sin(angles)) ** 2
            d = u[None] - (x * np.cos(angles) + y * np.sin(angles))[:, None]
            chord = np.sqrt(np.clip(reach2[:, None] - d**2, 0, None))
            total += 2 * mu * a * (b + 0.5 * row) / reach2[:, None] * chord
        rows.append(total.reshape(angles.size, columns, rays).mean(2))
    return np.stack(rows, 1)


def truth(count=6):
    g = (np.arange(SIZE * count) + 0.5) / count - SIZE / 2
    volume = np.zeros((ROWS, SIZE, SIZE))
    for row in range(ROWS):
        for mu, a, b, x, y in PARTS:
            inside = ((g[None] - x) / a) ** 2 + ((g[:, None] - y) / (b + 0.5 * row)) ** 2 <= 1
            volume[row] += mu * inside.reshape(SIZE, count, SIZE, count).mean((1, 3))
    return volume


def make(views=VIEWS, seed=0, geometry=None, centre=CENTRE, given=True):
    rng = np.random.default_rng(seed)
    angles = np.arange(views) * np.pi / views
    light = PHOTONS * np.exp(-line_integrals(angles, centre))
    return Scan.from_arrays(
        rng.poisson(light + DARK).astype(np.uint16),
        angles=angles,
        method="tomography",
        geometry=geometry,
        flats=rng.poisson(np.full((20, ROWS, SIZE), PHOTONS + DARK)).astype(np.uint16),
        darks=rng.poisson(np.full((20, ROWS, SIZE), DARK)).astype(np.uint16),
        rotation_centre=centre if given else None,
    )


def error(volume):
    return float(np.linalg.norm(volume - truth()) / np.linalg.norm(truth()))


# The error of a right volume is that of its edges and its noise; a centre one pixel off gives 0.35 and more.
@pytest.mark.parametrize(
    ("solver", "least"),
    [
        ({"name": "fbp"}, 0.2),
        ({"name": "cgls", "stopping": "held-out"}, 0.2),
        ({"name": "lsqr", "steps": 10}, 0.2),
        ({"name": "cgls", "steps": 40, "weights": "photons", "stopping": "discrepancy"}, 0.2),
        ({"name": "sirt", "steps": 60, "positive": True}, 0.2),
        ({"name": "sart", "steps": 4, "subsets": 5, "positive": True}, 0.2),
        ({"name": "osem", "steps": 4, "subsets": 5}, 0.2),
        ({"name": "mlem", "steps": 30}, 0.2),
        ({"name": "fista", "steps": 60, "positive": True}, 0.13),
        ({"name": "fista", "steps": 60, "penalty": "tgv", "weight": 0.05}, 0.15),
        ({"name": "fista", "steps": 40, "penalty": "wavelet", "weight": 0.02}, 0.2),
        ({"name": "primal-dual", "weight": 0.05, "positive": True}, 0.15),
        ({"name": "poisson", "steps": 2}, 0.2),
        ({"name": "minimise", "steps": 60}, 0.25),
    ],
    ids=lambda value: value["name"] + value.get("penalty", "") if isinstance(value, dict) else "",
)
def test_every_solver_finds_the_volume(solver, least):
    result = recipes.reconstruct(make(), None, {"solver": solver})
    assert error(result["volume"]) < least
    assert result.quantities["volume"].units == "1/pixel"


def test_few_views_by_total_variation():
    fbp, tv = (
        recipes.reconstruct(make(views=14), None, {"solver": s})["volume"]
        for s in ({"name": "fbp"}, {"name": "fista", "positive": True})
    )
    assert error(tv) < error(fbp) / 2.5


def test_slabs_give_the_same_file(tmp_path):
    scan, whole = make(), recipes.reconstruct(make(), None, {})
    for name, settings in (("a.h5", {"slab": 1}), ("b.h5", {"slab": 3})):
        result = recipes.reconstruct_slabs(
            scan,
            None,
            {"solver": settings},
            writer=lambda shape, units, pixel, label, name=name: open_volume(tmp_path / name, shape, units=units),
        )
        assert np.allclose(read_result(tmp_path / name)["volume"], whole["volume"], atol=1e-6)
        assert result.quality["rotation_centre"] == CENTRE


def test_slabs_of_an_iterative_solver_do_not_depend_on_the_slab(tmp_path):
    volumes = []
    for slab in (1, 4):
        recipes.reconstruct_slabs(
            make(),
            None,
            {"solver": {"name": "cgls", "steps": 6, "slab": slab}},
            writer=lambda shape, units, pixel, label, n=slab: open_volume(tmp_path / f"{n}.h5", shape, units=units),
        )
        volumes.append(read_result(tmp_path / f"{slab}.h5")["volume"])
    assert np.allclose(*volumes, atol=1e-4)  # rounding, of values up to 0.07


@pytest.mark.parametrize("solver", [{"name": "poisson"}, {"name": "fista", "weights": "photons"}])
def test_slabs_refuse_what_needs_the_whole_volume(solver):
    with pytest.raises(InputError, match="whole volume at once"):
        recipes.reconstruct_slabs(make(), None, {"solver": solver}, writer=lambda *_: None)


def test_figures_of_slabs_are_those_of_the_middle_rows(tmp_path):
    result = recipes.reconstruct_slabs(
        make(),
        None,
        {"quality": {"halves": True, "deviation": "closed-form"}},
        writer=lambda shape, units, pixel, label: open_volume(tmp_path / "a.h5", shape, units=units),
    )
    assert result["deviation"].shape == (2, SIZE, SIZE) and "shell_correlation" in result.quality
    assert any("even against odd views in the middle rows" in line for line in result.verdict)


def test_memory_decides_about_slabs():
    assert not recipes.wants_slabs(make(), "tomography", {})
    assert recipes.wants_slabs(make(), "tomography", {"solver": {"slab": 2}})
    large = make()
    object.__setattr__(
        large, "counts", np.lib.stride_tricks.as_strided(np.zeros(1, np.uint16), (3000, 4096, 4096), (0, 0, 0))
    )
    assert recipes.wants_slabs(large, "tomography", {})
    assert not recipes.wants_slabs(make(), "holography", {})


def test_preview_shows_three_centres():
    result = recipes.preview(make(given=False))
    assert list(result.quantities) == ["slice_less", "slice", "slice_more"]
    assert abs(result.quality["rotation_centre"] - CENTRE) < 0.4
    errors = [np.linalg.norm(result[name] - truth()[2]) for name in result.quantities]
    assert errors[1] == min(errors)


def test_halves_and_error_bars():
    chosen = {"quality": {"halves": True, "deviation": "closed-form"}}
    result = recipes.reconstruct(make(), None, chosen)
    curve = result.quality["shell_correlation"]
    assert 1 <= curve["half_period_pixels"] < 6
    # Away from edges what is wrong is noise, and its size is what the error bar says.
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    air = (np.hypot(x, y) > 17.5) & (np.hypot(x, y) < 22)
    ratio = result["volume"][:, air].std() / result["deviation"][:, air].mean()
    assert 0.8 < ratio < 1.5


def test_bootstrap_holds_the_photon_noise_and_the_streaks_of_missing_views():
    """A draw with replacement leaves out a third of the views: besides the photon noise, which the closed form gives,
    the bars hold the streaks of these gaps. With one noise of equal size for each they are twice the closed form."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    air = (np.hypot(x, y) > 17.5) & (np.hypot(x, y) < 22)
    quality = {"bootstrap": {"deviation": "bootstrap", "draws": 10}, "closed": {"deviation": "closed-form"}}
    bars = {n: recipes.reconstruct(make(), None, {"quality": q})["deviation"][:, air] for n, q in quality.items()}
    assert bars["bootstrap"].shape == bars["closed"].shape
    assert 1 < np.median(bars["bootstrap"]) / np.median(bars["closed"]) < 3


def test_own_solvers_and_penalties_by_name():
    """Both tables are open."""
    plain = SLICE_SOLVERS["cgls"]
    SLICE_SOLVERS["mine"] = SliceSolver(lambda A, b, options, *rest: plain.solve(A, b, options, *rest), 7)
    try:
        result = recipes.reconstruct(make(), None, {"solver": {"name": "mine"}})
        assert result.quality["history"].size == 7 and error(result["volume"]) < 0.2
    finally:
        del SLICE_SOLVERS["mine"]
    with pytest.raises(InputError, match="there is no 'mine'"):
        recipes.reconstruct(make(), None, {"solver": {"name": "mine"}})


def test_a_growing_disc_has_a_time_axis():
    """The volumes at the ends of the scan are those of the sample then: half, and one and a half times the mean."""
    views, turns = 160, np.mod(np.arange(160) * np.pi * (np.sqrt(5) - 1) / 2, 2 * np.pi)
    share = np.linspace(0.5, 1.5, views)[:, None, None]
    light = PHOTONS * np.exp(-share * line_integrals(turns))
    scan = make().replace(counts=np.random.default_rng(0).poisson(light + DARK).astype(np.uint16), angles=turns)
    still, moving = (
        recipes.reconstruct(scan, None, {"solver": {"name": "cgls", "steps": 10}, "model": {"time_knots": knots}})
        for knots in (None, 2)
    )
    assert error(moving["volume"]) < 0.15 and moving["volumes"].shape == (2, ROWS, SIZE, SIZE)
    for volume, factor in zip(moving["volumes"], (0.5, 1.5), strict=True):
        assert np.linalg.norm(volume - factor * truth()) < 0.25 * factor * np.linalg.norm(truth())
    assert moving.quality["relative_residual"] < 0.3 * still.quality["relative_residual"]


def test_quantities_are_those_of_the_material():
    pytest.importorskip("xraydb")
    scan = make(geometry=ParallelBeam(detector_pixel=PIXEL, energy=20e3))
    mu = recipes.reconstruct(scan, None, {})
    assert mu.quantities["volume"].units == "1/m" and abs(error(mu["volume"] * PIXEL)) < 0.2
    chosen = {"model": {"quantity": "density", "material": "SiO2, 2.2"}}
    density = recipes.reconstruct(scan, None, chosen)
    import xraydb

    factor = xraydb.material_mu("SiO2", 20e3, density=1.0) * 100  # of 1 g/cm^3 [1/m]
    assert np.allclose(density["volume"] * factor, mu["volume"], rtol=1e-4, atol=1e-3)
    assert any("Gy in" in line for line in density.verdict)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"solver": {"name": "cglz"}}, "did you mean cgls"),
        ({"solver": {"name": "fbp", "positive": True}}, "solver.positive has no effect with solver.name = fbp"),
        ({"solver": {"name": "fista", "stopping": "held-out"}}, "solver.stopping has no effect"),
        ({"solver": {"name": "cgls", "stopping": "discrepancy"}}, "weights=photons"),
        ({"solver": {"name": "fista", "penalty": "tw"}}, "did you mean tv"),
        ({"solver": {"name": "mlem", "weights": "photons"}}, "solver.weights has no effect"),
        ({"model": {"quantity": "densty"}}, "did you mean density"),
        ({"model": {"quantity": "density"}}, "model.material"),
        ({"model": {"quantity": "delta"}}, "delta_beta"),
        ({"quality": {"deviation": "closed-form"}, "solver": {"name": "sirt"}}, "bootstrap"),
        ({"prepare": {"delta_beta": 500.0}}, "geometry"),
        ({"align": {"unknowns": ["center"]}}, "did you mean centre"),
        ({"optimiser": {"learning_rate": 0.1}}, "with solver.name = minimise"),
        ({"model": {"time_knots": 3}}, "no time axis"),
    ],
    ids=str,
)
def test_what_cannot_be_followed_is_refused(settings, said):
    with pytest.raises(InputError, match=said):
        recipes.reconstruct(make(), None, settings)


def test_column_shifts_are_found_and_used():
    """Views moved along columns by known amounts: the recipe that refines them beats the one that does not."""
    rng = np.random.default_rng(1)
    scan, moves = make(), rng.uniform(-2, 2, VIEWS)
    angles = np.asarray(scan.angles)
    light = np.concatenate([PHOTONS * np.exp(-line_integrals(angles[[v]], CENTRE + moves[v])) for v in range(VIEWS)])
    moved = scan.replace(counts=rng.poisson(light + DARK).astype(np.uint16))
    plain = recipes.reconstruct(moved, None, {})
    aligned = recipes.reconstruct(moved, None, {"align": {"unknowns": ["centre", "shifts"]}})
    assert error(aligned["volume"]) < 0.6 * error(plain["volume"])
    assert aligned.quality["geometry_shifts"].shape == (VIEWS, 2)
    found = aligned.quality["rotation_centre"]
    assert f"rotation centre {found:.2f} by the alignment" in aligned.verdict
    assert any(line.startswith(f"centre {found:.3f} pixel (") for line in aligned.verdict)
    # The moves are drawn from -2 to 2: their spread is what was found.
    said = next(line for line in aligned.verdict if line.startswith("shifts changed by"))
    assert abs(float(said.split("columns ")[1].split(" rms")[0]) - moves.std()) < 0.25


def test_mixed_up_angles_contradict_each_other():
    """The floor beside the residual is what a right geometry leaves; odd angles leave more."""
    right = make()
    angles = np.random.default_rng(1).permutation(np.asarray(right.angles))
    results = [recipes.reconstruct(scan, "tomography") for scan in (right, right.replace(angles=angles))]
    ratios = [r.quality["fbp_residual"] / r.quality["fbp_residual_expected"] for r in results]
    assert 0.8 < ratios[0] < 1.25 and ratios[1] > 2
    assert [any("contradict" in line for line in r.verdict) for r in results] == [False, True]


@pytest.mark.parametrize("flats", [1, 6])
def test_air_has_no_resolution(flats):
    """The noise of flats is in all views alike: halves that shared it would agree where there is nothing."""
    random, columns = np.random.default_rng(7), 64
    beam = 2000 * (1 + 0.2 * np.sin(np.arange(columns) / 9) + 0.05 * random.standard_normal((2, columns)))
    scan = Scan.from_arrays(
        random.poisson(np.broadcast_to(beam, (60, 2, columns))), angles=np.arange(60) * np.pi / 60, method="tomography",
        flats=random.poisson(np.broadcast_to(beam, (flats, 2, columns))), rotation_centre=31.5,
    )  # fmt: skip
    result = recipes.reconstruct(scan, "tomography", {"quality": {"halves": True}})
    assert result.quality["shell_correlation"]["half_period_pixels"] > 5


def test_halves_are_solved_without_the_penalty():
    settings = {"solver": {"name": "fista", "steps": 5, "weight": 0.05}, "quality": {"halves": True}}
    verdict = recipes.reconstruct(make(), "tomography", settings).verdict
    assert any("even against odd views (by cgls, without penalty)" in line for line in verdict)
