"""Every engine on every field comes near the photon noise; one step of the classical ones is the formula of its paper;
stages say what is wrong with them.
"""

import jax.numpy as jnp
import numpy as np
import pytest
import small_scans

import diffrecon as dr
from diffrecon import losses
from diffrecon.errors import InputError
from diffrecon.models import Ptychography
from diffrecon.solvers import Ending, engines

HELD = np.array([14, 21, 27])


def problem(near: bool, seed: int = 0):
    """Model with a flat object and a blunt probe, data with Poisson noise and a dead pixel, cost of the noise alone."""
    frames, obj, probe, positions = small_scans.make(near, counts=4000.0 if near else 400.0, seed=seed)
    rng = np.random.default_rng(seed + 1)
    counts = rng.poisson(frames).astype(np.int32)
    mask = np.ones(counts.shape[1:], bool)
    mask[3, 5] = False
    noise = float(losses.amplitude(jnp.asarray(frames, jnp.float32), jnp.asarray(counts), jnp.asarray(mask)))
    counts[:, 3, 5] = 65535
    blunt = probe * (1 + 0.2 * np.linspace(-1, 1, probe.shape[0])) * np.exp(0.3j * np.linspace(-1, 1, 32)[:, None] ** 2)
    model = Ptychography(
        jnp.ones(obj.shape, jnp.complex64),
        jnp.asarray(blunt[None], jnp.complex64),
        jnp.asarray(positions, jnp.float32),
        jnp.zeros((1, 1)),
        jnp.ones(len(counts)),
        small_scans.DISTANCE,
        small_scans.WAVELENGTH,
        small_scans.PIXEL,
        not near,
    )
    return model, {"counts": counts, "mask": mask}, noise


# engine -> epochs that suffice
ENOUGH = {"adam": 40, "epie": 60, "rpie": 60, "mpie": 60, "lsqml": 30, "dm": 40, "raar": 40, "lm": 6}
# Near field here: the simulation lets the object enter from outside the probe's window, which no engine can follow.
REACHED = {True: 2.2, False: 1.25}


def cost_on(model, data, views):
    batch = dr.Batch(views, {"counts": data["counts"][views], "mask": data["mask"]})
    return float(dr.solvers.amplitude_cost(model, batch))


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize("name", ENOUGH)
def test_engine_comes_near_the_photon_noise_on_views_left_out(near, name):
    model, data, noise = problem(near)
    assert cost_on(model, data, HELD) > 5 * noise
    solution = engines.run_stages(
        model, data, [f"{name}:{ENOUGH[name]}"], unknowns={"object": 1.0, "probe": 1.0}, held_out=HELD
    )
    assert solution.ending.finished
    assert cost_on(solution.value, data, HELD) < REACHED[near] * noise
    assert solution.held_out[-1, 1] < 1.1 * REACHED[near] * noise, "what the engine says of the held-out views"


def test_the_table_has_every_engine():
    own = {name for name, run in engines.ENGINES.items() if run.__module__ == engines.__name__}
    assert set(ENOUGH) == {"adam", *own}


# ------------------------------------------------------------------------------------------------ formulas of papers
def single_view(rng, n=12, corner=(3, 2)):
    random = lambda *shape: rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    obj, probe = 1 + 0.3 * random(n + 8, n + 8), 10 * random(1, n, n)
    model = Ptychography(
        jnp.asarray(obj, jnp.complex64),
        jnp.asarray(probe, jnp.complex64),
        jnp.asarray([corner], jnp.float32),
        jnp.zeros((1, 1)),
        jnp.ones(1),
        far=True,
    )
    return model, obj, probe[0], rng.uniform(50, 400, (1, n, n)).astype(np.float32)


@pytest.mark.parametrize("name, share, step", [("epie", (1.0, 1.0), 1.0), ("rpie", (0.1, 1.0), 0.5)])
def test_one_step_is_the_formula_of_the_paper(name, share, step):
    """Maiden & Rodenburg 2009; Maiden, Johnson & Li 2017."""
    model, obj, probe, counts = single_view(np.random.default_rng(3))
    patch = obj[3:15, 2:14]
    wave = np.fft.fft2(patch * probe, norm="ortho")
    change = np.fft.ifft2(np.sqrt(counts[0]) * wave / abs(wave) - wave, norm="ortho")
    weight = lambda a, s: np.conj(a) / ((1 - s) * abs(a) ** 2 + s * (abs(a) ** 2).max())
    expected = obj.copy()
    expected[3:15, 2:14] += step * weight(probe, share[0]) * change
    new_probe = probe + step * weight(patch, share[1]) * change

    cost = lambda model, batch: losses.amplitude(model(batch.views), batch.counts, batch.mask, floor=1e-6)
    solution = engines.run_stages(
        model,
        {"counts": counts, "mask": np.ones((12, 12), bool)},
        [f"{name}:1"],
        unknowns={"object": 1.0, "probe": 1.0},
        cost=cost,
    )
    np.testing.assert_allclose(solution.value.object, expected, atol=2e-4)
    np.testing.assert_allclose(solution.value.probe[0], new_probe, atol=2e-3)
    assert abs(new_probe - probe).max() > 0.1


def test_projections_are_projections():
    """Projecting twice is projecting once; measured magnitudes are met, and pixels that were not measured kept."""
    from diffrecon.solvers.sets import exit_waves as waves

    model, data, _ = problem(True)
    views = np.arange(6)
    frames = waves.Frames.of(model, data, views, {"object"})
    start = waves._start_waves(model, frames)
    once = waves._onto_frames(start, frames)
    np.testing.assert_allclose(waves._onto_frames(once, frames).waves, once.waves, atol=2e-3)
    detector = np.fft.ifft2(np.fft.fft2(once.waves) * np.asarray(frames.kernel(model.probe)))
    found = (abs(detector) ** 2).sum(1)
    good = data["mask"]
    np.testing.assert_allclose(found[:, good], data["counts"][views][:, good], rtol=1e-3, atol=0.1)
    np.testing.assert_allclose(found[:, 3, 5], np.asarray(model(views))[:, 3, 5], rtol=1e-3)
    product = waves._onto_product(once, frames)
    again = waves._onto_product(product, frames)
    np.testing.assert_allclose(again.waves, product.waves, atol=1e-3 * float(jnp.abs(product.waves).max()))


# ------------------------------------------------------------------------------------------------ stages
def test_stages_start_from_each_other_and_histories_go_on():
    model, data, _ = problem(False)
    unknowns = {"object": 1.0, "probe": 1.0, "positions": 0.1}
    solution = engines.run_stages(model, data, ["adam:5", "adam:5"], unknowns=unknowns, held_out=HELD)
    steps = 5 * -(-33 // 10)
    assert solution.history.size == 2 * steps and solution.held_out[-1, 0] == 2 * steps
    assert solution.history[steps] < solution.history[0] / 2
    assert not np.allclose(solution.value.positions, model.positions)


@pytest.mark.parametrize(
    "stages, said",
    [
        (["adm:5"], "adam"),
        (["rpi:5"], "rpie"),
        (["adam"], "adam:20"),
        (["adam:0"], "number of epochs"),
        (["dm:-3"], "number of epochs"),
        (["lm:2.5"], "number of epochs"),
        ([], "empty"),
        (["chain:4"], "no engine"),
    ],
)
def test_wrong_stages_are_said_in_one_line(stages, said):
    with pytest.raises(InputError, match=said) as caught:
        engines.parse_stages(stages)
    assert "\n" not in str(caught.value)


def test_any_optimiser_of_optax_is_an_engine():
    assert engines.parse_stages("radam: 3") == [("radam", 3)]


def test_projections_refuse_physics_without_exit_waves():
    model, data, _ = problem(False)
    with pytest.raises(InputError, match="travel"):
        engines.run_stages(model.replace(travel=jnp.ones((1, 2))), data, ["dm:3"], unknowns={"object": 1.0})


def test_a_stage_that_is_interrupted_keeps_the_better_model(monkeypatch):
    model, data, _ = problem(False)
    ends = {"fine": Ending.DONE, "spoilt": Ending.INTERRUPTED, "never": Ending.DONE}

    def stage(name):
        def run(model, epochs, task):
            assert name != "never"
            worse = model.replace(object=0 * model.object) if name == "spoilt" else model
            return dr.solvers.Solution(worse, np.ones(1), np.zeros((0, 2)), ends[name])

        return run

    for name in ends:
        monkeypatch.setitem(engines.ENGINES, name, stage(name))
    found = engines.run_stages(model, data, ["fine:1", "spoilt:1", "never:1"], unknowns={"object": 1.0})
    assert found.ending is Ending.INTERRUPTED and float(jnp.abs(found.value.object).max()) > 0
    assert found.history.size == 2


def test_decaying_schedule():
    rate = dr.solvers.decaying(0.1, 100, 0.3)
    assert float(rate(0)) == float(rate(29)) == pytest.approx(0.1)
    assert float(rate(100)) == pytest.approx(0.002) and float(rate(60)) < 0.1


def test_a_scan_neither_grows_nor_shears_while_its_positions_move():
    random = np.random.default_rng(0)
    nominal, single = random.uniform(0, 100, (40, 2)), 0.3 * random.standard_normal((40, 2))
    turn = 0.01 * np.array([[0, 1], [-1, 0]])
    keep = engines.KeptScale(nominal)
    for change in (0.025 * np.eye(2), np.array([[0.01, 0.004], [0.004, -0.02]])):
        moved = nominal + (nominal - nominal.mean(0)) @ (change + turn) + single
        kept = np.asarray(keep(Places(jnp.asarray(moved, jnp.float32))).positions, float)
        matrix = np.linalg.lstsq(nominal - nominal.mean(0), kept - nominal, rcond=None)[0]
        assert np.abs(matrix + matrix.T).max() < 2e-6 and np.abs((matrix - matrix.T) / 2 - turn).max() < 1e-3
        assert np.abs(kept - nominal - (nominal - nominal.mean(0)) @ turn - single).max() < 0.2
    assert keep == engines.KeptScale(nominal.copy()) and hash(keep) == hash(engines.KeptScale(nominal.copy()))


class Places(dr.Model):
    positions: jnp.ndarray


def test_cost_of_a_batch_is_the_mean_of_its_shares_on_devices():
    """Also where one share fits and the other does not: the weight of the prior is that of the whole batch."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(50.0, (4, 6, 6)).astype(np.int32)
    off = np.array([1.0, 1.0, 4.0, 9.0])[:, None, None] * np.ones((1, 6, 6))

    class Frames(dr.Model):
        frames: jnp.ndarray

        def __call__(self, views):
            return self.frames[views]

        def transmission(self):
            return self.frames[0] / 50

    cost = dr.solvers.ScanCost(edges=lambda image: jnp.sum(image**2))
    model = Frames(jnp.asarray(50.0 * off))
    of = lambda views: float(cost(model, dr.Batch(views, {"counts": jnp.asarray(counts)[views]})))
    assert of(np.arange(4)) == pytest.approx((of(np.array([0, 1])) + of(np.array([2, 3]))) / 2, rel=1e-6)


def test_positions_take_no_step_of_rounding_noise():
    """Frames of an empty object do not depend on them: Adam would make whole steps of it, others on other devices."""
    model, data, _ = problem(True)
    settings = {"unknowns": {"object": 1.0, "positions": 1.0}, "batch_size": len(data["counts"])}
    one, two = (engines.run_stages(model, data, [f"adam:{epochs}"], **settings).value for epochs in (1, 2))
    assert np.ptp(abs(np.asarray(one.object))) > 0.01
    np.testing.assert_array_equal(one.positions, model.positions)
    assert np.max(np.abs(np.asarray(two.positions - model.positions))) > 1e-3
