"""Sparse edges in the data's metric: closed forms of two blocks, and exact data."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon.solvers.linear.edges import edge_weights, fit_edges, flattened


@pytest.mark.parametrize("axis", [-1, -2, -3])
def test_two_blocks_move_towards_each_other(axis):
    """By the weight of the edge over the block's curvature, which here differs; along z edges weigh half as much."""
    turn = lambda a: jnp.moveaxis(jnp.asarray(a, jnp.float32).reshape(1, 1, 1, 5), -1, axis)
    image, curvature = turn([0, 0, 1, 1, 1]), turn([1, 2, 4, 1, 1])
    weights = turn([9, 0.3, 9, 9, 9])
    dual = jnp.zeros((3, *image.shape))
    found, dual = flattened(image, curvature, weights, dual, 2, steps=3000)
    edge = 0.3 / 2 if axis == -3 else 0.3
    expected = turn([edge / 3] * 2 + [1 - edge / 6] * 3)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    again, _ = flattened(image, curvature, weights, dual, 2, steps=1)
    np.testing.assert_allclose(again, found, atol=1e-4)
    assert flattened(image - 2, curvature, weights, 0 * dual, 2)[0].max() == 0


def test_exact_data_are_explained():
    """Rows of an operator in three subsets, weights of their own, an image with one edge that hardly costs."""
    random = np.random.default_rng(0)
    rows, noise = random.uniform(0, 1, (3, 20, 12)).astype(np.float32), random.uniform(1, 9, (3, 20)).astype(np.float32)
    truth = np.repeat([0.0, 2.0, 1.0], 4).astype(np.float32)
    data = rows @ truth
    flat = lambda x: x.reshape(-1)

    def gradient(x, subset):
        a, w, b = subset
        return 3 * (a.T @ (w * (a @ flat(x) - b))).reshape(x.shape)

    bound = np.einsum("sri,sr->i", rows, noise * rows.sum(2)).reshape(1, 1, 1, 12)
    start = jnp.ones((1, 1, 1, 12))
    weights = edge_weights(start, 1e-6, 1, True)
    found, _ = fit_edges(
        gradient, start, jnp.asarray(bound), weights, jnp.zeros((3, *start.shape)), (rows, noise, data), passes=200
    )
    np.testing.assert_allclose(flat(found), truth, atol=0.02)


def test_high_edges_weigh_less():
    image = jnp.zeros((1, 1, 1, 8)).at[..., 3:].set(4.0).at[..., 6:].set(5.0)
    first, later = edge_weights(image, 0.5, 1, True), edge_weights(image, 0.5, 1, False)
    np.testing.assert_allclose(first, 1 / (5 / 8), rtol=0.02)
    np.testing.assert_allclose(later[0, 0, 0, [0, 2, 5]], 2 / (np.array([0, 4, 1]) + 5 / 8), rtol=0.02)
