"""Gradients divided by a curvature, optimal step lengths, momentum over many steps: against NumPy."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffrecon as dr
from diffrecon.errors import InputError
from diffrecon.solvers import optimal_step, periodic_momentum, preconditioned

RNG = np.random.default_rng(5)
ROWS = {name: (RNG.standard_normal((9, 3)) + 1j * RNG.standard_normal((9, 3))).astype(np.complex64) for name in "ab"}
RIGHT = (RNG.standard_normal(9) + 1j * RNG.standard_normal(9)).astype(np.complex64)
START = {name: jnp.asarray(RNG.standard_normal(3) + 1j * RNG.standard_normal(3), jnp.complex64) for name in "ab"}


def rows(x, batch):
    return ROWS["a"] @ x["a"] + ROWS["b"] @ x["b"] - RIGHT


def cost(x, batch):
    return 0.5 * jnp.sum(jnp.abs(rows(x, batch)) ** 2)


def test_one_step_with_the_exact_curvature_is_newtons():
    scale = jnp.asarray([1.0, 100.0, 1e4])
    cost = lambda x, batch: jnp.sum(scale * jnp.abs(x["z"] - 2j) ** 2) + jnp.sum((x["free"] - 1) ** 2)
    rule = optax.chain(preconditioned(lambda x, batch: {"z": 2 * scale}), optax.scale(-1.0))
    start = {"z": jnp.ones(3, jnp.complex64), "free": jnp.zeros(2)}
    found = dr.minimise(cost, start, optimiser=rule, steps=1).value
    np.testing.assert_allclose(found["z"], 2j * np.ones(3), atol=1e-5)
    np.testing.assert_allclose(found["free"], 2.0, err_msg="an unknown without a curvature gets its plain gradient")


def test_zero_curvature_is_no_step():
    rule = optax.chain(preconditioned(lambda x, batch: {"": jnp.asarray([0.0, 2.0])}), optax.scale(-1.0))
    found = dr.minimise(lambda x, batch: jnp.sum((x - 3) ** 2), jnp.zeros(2), optimiser=rule, steps=1)
    np.testing.assert_allclose(found.value, [0, 3])


def test_curvature_sees_the_batch_and_the_whole_model():
    """Each step sees one view; its curvature is that view's."""
    data = {"y": np.asarray([3.0, 5.0, 7.0], np.float32)}
    cost = lambda m, batch: jnp.sum((m["size"][batch.views] * (m["x"][batch.views] - batch.y)) ** 2)
    rule = optax.chain(
        preconditioned(lambda m, batch: {"x": jnp.zeros(3).at[batch.views].set(2 * m["size"][batch.views] ** 2)}),
        optax.scale(-1.0),
    )
    start = {"x": jnp.zeros(3), "size": jnp.asarray([1.0, 10.0, 100.0])}
    found = dr.minimise(cost, start, data, rule, epochs=1, batch_size=1, unknowns=("x",)).value
    np.testing.assert_allclose(found["x"], data["y"], rtol=1e-5)


def test_optimal_steps_are_the_least_squares_solution_along_the_directions():
    found = dr.minimise(cost, START, optimiser=optimal_step(rows, ("a", "b"), limit=np.inf, damping=0), steps=1).value
    residual = np.asarray(rows(START, None))
    directions = {name: -ROWS[name].conj().T @ residual for name in "ab"}
    images = np.stack([ROWS[name] @ directions[name] for name in "ab"], -1)
    real = lambda z: np.concatenate([z.real, z.imag])
    lengths = np.linalg.lstsq(real(images), real(-residual), rcond=None)[0]
    assert (lengths > 0).all() and abs(lengths[0] / lengths[1] - 1) > 0.01
    for length, name in zip(lengths, "ab", strict=True):
        np.testing.assert_allclose(found[name], START[name] + length * directions[name], rtol=1e-3, atol=1e-4)


def test_optimal_steps_are_bounded_and_never_uphill():
    found = dr.minimise(cost, START, optimiser=optimal_step(rows, ("a", "b"), limit=1e-3), steps=1).value
    direction = -ROWS["a"].conj().T @ np.asarray(rows(START, None))
    np.testing.assert_allclose(found["a"] - START["a"], 1e-3 * direction, rtol=1e-2)
    # The same unknown twice: the joint system is singular, and each gets a step of its own.
    twin = lambda x, batch: x["a"] + x["b"] - 1
    both = dr.minimise(
        lambda x, b: 0.5 * jnp.sum(twin(x, b) ** 2),
        {"a": jnp.zeros(2), "b": jnp.zeros(2)},
        optimiser=optimal_step(twin, ("a", "b")),
        steps=1,
    ).value
    assert np.isfinite(both["a"]).all() and (both["a"] > 0).all() and (both["b"] > 0).all()


def test_optimal_step_names_what_is_missing():
    with pytest.raises(InputError, match="'c'"):
        dr.minimise(cost, START, optimiser=optimal_step(rows, ("a", "c")), steps=1)


def test_periodic_momentum_is_the_papers():
    """Maiden, Johnson & Li 2017, in NumPy."""
    target, rate, friction, every = np.asarray([1.0, -2.0]), 0.1, 0.7, 3
    x, velocity, origin = np.zeros(2), np.zeros(2), np.zeros(2)
    for step in range(1, 8):
        x = x - rate * 2 * (x - target)
        if step % every == 0:
            velocity = friction * velocity + (x - origin)
            x = x + friction * velocity
            origin = x
    rule = optax.chain(optax.sgd(rate), periodic_momentum(friction, every))
    found = dr.minimise(lambda x, batch: jnp.sum((x - target) ** 2), jnp.zeros(2), optimiser=rule, steps=7).value
    np.testing.assert_allclose(found, x, rtol=1e-5)
