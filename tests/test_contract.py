"""What every model and every operator promises: the properties, one by one, of the rows of `contract.py`."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import MODELS, OPERATORS

from diffrecon import losses
from diffrecon.modality import get, put
from diffrecon.operators import dot_test, random_like

models, operators = pytest.mark.parametrize("name", MODELS), pytest.mark.parametrize("name", OPERATORS)
both_precisions = pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
PLAIN = "tomography", "k-edge", "diffraction", "near-field ptychography"
predict = eqx.filter_jit(lambda model, views: model(views))
project = eqx.filter_jit(lambda A, x, views=None: A(x) if views is None else A(x, views))
back = eqx.filter_jit(lambda A, y, views=None: A.adjoint(y) if views is None else A.adjoint(y, views))


@functools.cache
def in_double(name):
    """The model in double precision and what it predicts for all views."""
    model = MODELS[name].make()
    return model, np.asarray(predict(model, np.arange(MODELS[name].views)))


# ---------------------------------------------------------------------------------------------------- operators
@operators
@both_precisions
def test_adjoint_is_the_transpose(name, x64):
    """In double precision of all views, in single precision of some of them, one of them twice: most of the cost of
    this test is compiling."""
    row = OPERATORS[name]
    with jax.enable_x64(x64):
        A, like = row.make()
        views = jnp.asarray([row.views - 1, 0, row.views - 1]) if row.views and not x64 else None
        error = dot_test(lambda x: project(A, x, views), lambda y: back(A, y, views), like)
        assert error < (1e-12 if x64 else 1e-6)


@pytest.mark.parametrize("name", [name for name, row in OPERATORS.items() if row.views])
def test_projector_of_some_views(name):
    """As an argument, traced or not, and as an operator of its own."""
    with jax.enable_x64(True):
        A, like = OPERATORS[name].make()
        x, views = random_like(like, 0), np.array([OPERATORS[name].views - 1, 1])
        whole = project(A, x)
        near = functools.partial(np.testing.assert_allclose, desired=whole[views], atol=1e-9 * float(abs(whole).max()))
        near(A(x, views))
        near(project(A, x, jnp.asarray(views)))


# ---------------------------------------------------------------------------------------------------- models
@models
def test_every_unknown_has_the_gradient_of_finite_differences(name):
    """Of some views whose indices the program knows, which are those of the whole prediction."""
    row = MODELS[name]
    with jax.enable_x64(True):
        (model, whole), views = in_double(name), np.unique(np.linspace(0, row.views - 1, 3).astype(int))
        start = {field: get(model, field) for field in row.unknowns}
        weight = random_like(jax.ShapeDtypeStruct((len(views), *whole.shape[1:]), whole.dtype), 1)
        figure = lambda values: jnp.sum(weight * put(model, values)(views))
        figure = jax.jit(jax.value_and_grad(figure))  # one program for both: compiling is what costs
        sum_of_views, slopes = figure(start)
        product = np.asarray(weight) * whole[views]
        assert float(sum_of_views) == pytest.approx(product.sum(), rel=1e-9, abs=1e-9 * abs(product).sum())
        for index, (field, scale) in enumerate(row.unknowns.items()):
            value = start[field]
            assert slopes[field].dtype == value.dtype, field
            move = row.step * (scale or float(jnp.abs(value).max())) * random_like(value, 5 + index)
            at = lambda s, field=field, value=value, move=move: float(figure(start | {field: value + s * move})[0])
            expected = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / 12  # fourth order
            assert expected != 0 and float(jnp.sum((slopes[field] * move).real)) == pytest.approx(expected, rel=2e-5), (
                field
            )


@models
def test_prediction_of_some_views_in_any_order(name):
    """With the views an argument of the program; where they are known to it, the test above compares. A plain call
    compiles some eighty programs of one operation each: some simple models stand for all.
    """
    row = MODELS[name]
    with jax.enable_x64(True):
        model, whole = in_double(name)
        views = np.array([row.views - 1, 0])
        for some in (predict(model, jnp.asarray(views)), *([model(views)] if name in PLAIN else [])):
            assert some.dtype == np.float64
            np.testing.assert_allclose(some, whole[views], rtol=1e-9, atol=1e-9 * abs(whole).max())


@models
def test_single_precision_is_kept_and_enough(name):
    model = MODELS[name].make()
    views = np.arange(MODELS[name].views)
    prediction = predict(model, views)
    assert prediction.dtype == np.float32
    with jax.enable_x64(True):
        whole = in_double(name)[1]
    assert np.linalg.norm(prediction - whole) < 1e-4 * np.linalg.norm(whole)


@pytest.mark.parametrize("name", [name for name, row in MODELS.items() if row.counts])
def test_counts_of_zero_have_finite_costs_and_gradients(name):
    """In single precision, where every pixel counted nothing, and with a mask that leaves nothing."""
    model, views = MODELS[name].make(), np.arange(2)
    start = {field: get(model, field) for field in MODELS[name].unknowns}

    @jax.jit
    @jax.value_and_grad
    def cost(values, mask):
        prediction = put(model, values)(views)
        counts = jnp.zeros(prediction.shape, jnp.uint16)
        return losses.poisson(prediction, counts, mask) + losses.amplitude(prediction, counts, mask)

    for measured in (True, False):
        value, slopes = cost(start, jnp.asarray(measured))
        assert jnp.isfinite(value) and all(jnp.isfinite(s).all() for s in slopes.values())
        assert (float(value) > 0) == measured


@models
def test_model_is_a_pytree(name):
    """What an optimiser does to it: taken apart, put together, scaled by one, and still the same model."""
    with jax.enable_x64(True):
        model, whole = in_double(name)
        leaves, structure = jax.tree.flatten(model)
        again = jax.tree.unflatten(structure, [1 * leaf if eqx.is_inexact_array(leaf) else leaf for leaf in leaves])
        assert type(again) is type(model) and jax.tree.structure(again) == structure
        np.testing.assert_array_equal(predict(again, np.arange(MODELS[name].views)), whole)
