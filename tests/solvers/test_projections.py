"""Set projections: the rules as their papers write them, sets that meet in a known point, what the loop promises."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon.errors import InputError
from diffrecon.solvers import Ending, set_projections
from diffrecon.solvers.sets.set_projections import RULES


def onto_line(x, data):
    """The line through the origin along `data["along"]`."""
    along = data["along"]
    return jnp.sum(x * along, -1, keepdims=True) * along


def onto_corner(x, data):
    """Numbers not below `data["least"]`: a quadrant whose corner lies where the test says."""
    return jnp.maximum(x, data["least"])


def onto_plane(x, data):
    """Points with first coordinate `data["least"][0]`."""
    return jnp.concatenate([jnp.broadcast_to(data["least"][:1], x[..., :1].shape), x[..., 1:]], -1)


ALONG = np.array([0.8, 0.6])
DATA = {"along": jnp.asarray(ALONG, jnp.float32), "least": jnp.asarray([1.6, -5.0], jnp.float32)}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("known", [onto_plane, onto_corner], ids=["plane", "corner"])
def test_convex_sets_meet(rule, known):
    """Two lines meet in (1.6, 1.2); a line and a quadrant meet anywhere beyond it."""
    found = set_projections(jnp.array([-3.0, 5.0]), onto_line, known, DATA, rule=rule, steps=200)
    value = np.asarray(found.value)
    assert found.gap[-1] < 1e-4 and found.gap.shape == (200,) and found.ending is Ending.DONE
    np.testing.assert_allclose(value, ALONG * (value @ ALONG), atol=1e-3)
    if known is onto_plane:
        np.testing.assert_allclose(value, [1.6, 1.2], atol=1e-3)
    assert value[0] >= 1.6 - 1e-3


@pytest.mark.parametrize("beta", [None, 0.7, -1.0, -0.6])
@pytest.mark.parametrize("rule", RULES)
def test_one_step_is_the_formula(rule, beta):
    """Each rule written with reflections in plain NumPy, as in its paper."""
    if beta is not None and beta < 0 and rule != "dm":
        pytest.skip("only the difference map exchanges the sets")
    x = np.array([-3.0, 5.0])
    D = lambda v: (v @ ALONG) * ALONG
    K = lambda v: np.maximum(v, [1.6, -5.0])
    R = lambda P, v: 2 * P(v) - v
    b = beta or (1.0 if rule == "dm" else 0.9)
    expected = {
        "er": lambda: K(D(x)),
        "hio": lambda: np.where(D(x) >= [1.6, -5.0], D(x), x - b * (D(x) - K(D(x)))),
        "raar": lambda: 0.5 * b * (R(K, R(D, x)) + x) + (1 - b) * D(x),
        "dm": lambda: x + b * (K((1 + 1 / b) * D(x) - x / b) - D((1 - 1 / b) * K(x) + x / b)),
    }[rule]()
    found = set_projections(jnp.asarray(x, jnp.float32), onto_line, onto_corner, DATA, rule=rule, beta=beta, steps=1)
    np.testing.assert_allclose(found.state, expected, rtol=1e-5)


def test_fourier_feedback_of_a_support():
    """With a support alone hybrid input-output is also `K((1 + b) D x - x) + x - b D x` (Bauschke et al. 2002)."""
    rng = np.random.default_rng(3)
    start = jnp.asarray(rng.standard_normal((8, 8)) + 1j * rng.standard_normal((8, 8)), jnp.complex64)
    data = {"modulus": jnp.asarray(rng.uniform(1, 2, (8, 8)), jnp.float32), "support": jnp.zeros((8, 8)).at[:4].set(1)}
    allowed = onto_modulus(start, data)
    expected = onto_support(1.8 * allowed - start, data) + start - 0.8 * allowed
    found = set_projections(start, onto_modulus, onto_support, data, rule="hio", beta=0.8, steps=1)
    np.testing.assert_allclose(found.state, expected, atol=1e-5)


def onto_modulus(x, data):
    wave = jnp.fft.fft2(x)
    return jnp.fft.ifft2(data["modulus"] * wave / jnp.maximum(jnp.abs(wave), 1e-12))


def onto_support(x, data):
    return x * data["support"].astype(x.dtype)


def test_what_obeys_both_stays():
    rng = np.random.default_rng(4)
    truth = np.zeros((8, 8), complex)
    truth[2:5, 2:5] = rng.uniform(1, 2, (3, 3)) * np.exp(1j * rng.uniform(-1, 1, (3, 3)))
    with jax.enable_x64(True):
        data = {"modulus": jnp.asarray(abs(np.fft.fft2(truth))), "support": jnp.asarray(truth != 0, float)}
        for rule in RULES:
            found = set_projections(jnp.asarray(truth), onto_modulus, onto_support, data, rule=rule, steps=5)
            assert found.state.dtype == np.complex128
            np.testing.assert_allclose(found.state, truth, atol=1e-12)


def test_starts_go_on_alone():
    """Several starts at once are each what it is alone; one that breaks down leaves the others alone."""
    starts = jnp.array([[-3.0, 5.0], [2.0, 7.0], [jnp.nan, 1.0]])
    found = set_projections(starts, onto_line, onto_plane, DATA, rule="raar", steps=60, batched=True)
    assert found.gap.shape == (60, 3) and np.isnan(found.gap[:, 2]).all() and found.ending is Ending.DONE
    for index in (0, 1):
        alone = set_projections(starts[index], onto_line, onto_plane, DATA, rule="raar", steps=60)
        np.testing.assert_allclose(found.value[index], alone.value, atol=1e-5)
        np.testing.assert_allclose(found.gap[:, index], alone.gap, atol=1e-5)


def test_trees_and_going_on():
    """A state of several arrays; two calls of 30 steps are one of 60."""
    data_set = lambda x, data: jax.tree.map(lambda a: onto_line(a, data), x)
    known_set = lambda x, data: jax.tree.map(lambda a: onto_plane(a, data), x)
    start = {"a": jnp.array([-3.0, 5.0]), "b": jnp.array([2.0, 7.0])}
    run = lambda state, steps: set_projections(state, data_set, known_set, DATA, rule="dm", steps=steps)
    np.testing.assert_allclose(run(run(start, 30).state, 30).state["b"], run(start, 60).state["b"], rtol=1e-6)


def grows(x, data):
    return x * 1e30


def test_endings(capfd):
    found = set_projections(jnp.ones(2), grows, grows, rule="er", steps=20)
    assert found.ending is Ending.NOT_FINITE and np.isfinite(found.state).all()
    stop = lambda report: True
    assert set_projections(jnp.ones(2), onto_line, onto_plane, DATA, steps=200, callback=stop).gap.size == 50

    def interrupt(report):
        if report.step == 100:
            os.kill(os.getpid(), signal.SIGINT)

    found = set_projections(jnp.ones(2), onto_line, onto_plane, DATA, steps=500, callback=interrupt)
    assert found.ending is Ending.INTERRUPTED and found.gap.size <= 150 and np.isfinite(found.value).all()


@pytest.mark.parametrize(
    "given, message",
    [
        ({"rule": "raer"}, "did you mean"),
        ({"steps": 0}, "at least 1"),
        ({"beta": 1.5}, "beta of raar"),
        ({"rule": "dm", "beta": 0.0}, "not 0"),
    ],
)
def test_refuses(given, message):
    with pytest.raises(InputError, match=message):
        set_projections(jnp.ones(2), onto_line, onto_plane, DATA, **{"steps": 3} | given)
