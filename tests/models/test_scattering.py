"""The model of tensor SAXS: what it predicts, and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon.errors import InputError
from diffrecon.models import SaxsTensor
from diffrecon.operators import TensorGeometry, rotations_from_angles
from diffrecon.scan import Scan

SIZE = 10


def scan():
    geometry = TensorGeometry(rotations_from_angles(np.arange(4) * 0.7, np.deg2rad([0, 0, 40, 40])))
    return Scan.from_arrays(np.ones((4, SIZE, SIZE, 8))).replace(tensor_geometry=geometry)


def test_isotropic_scattering_is_the_same_in_every_segment_and_keeps_its_sum():
    model = SaxsTensor.from_scan(scan(), ell_max=2)
    assert model.coefficients.shape == (SIZE, SIZE, SIZE, 6)
    model = model.replace(coefficients=model.coefficients.at[4:6, 3:5, 5:7, 0].set(1.0))
    images = np.asarray(model(jnp.array([3, 0])))
    np.testing.assert_allclose(images.sum((1, 2)), 8.0, rtol=0.02)
    np.testing.assert_allclose(images, np.broadcast_to(images[..., :1], images.shape), atol=1e-5)


def test_gradient_is_the_back_projected_residual():
    model, views = SaxsTensor.from_scan(scan(), ell_max=2), jnp.array([3, 0])
    rng = np.random.default_rng(0)
    data = jnp.asarray(rng.standard_normal((2, SIZE, SIZE, 8)), jnp.float32)
    coefficients = jnp.asarray(rng.standard_normal(model.coefficients.shape), jnp.float32)
    cost = lambda x: 0.5 * jnp.sum((model.replace(coefficients=x)(views) - data) ** 2)
    residual = model.replace(coefficients=coefficients)(views) - data
    expected = model.projector.adjoint(residual, views)
    np.testing.assert_allclose(jax.grad(cost)(coefficients), expected, atol=1e-4 * float(abs(expected).max()))


def test_scan_without_geometry_is_refused():
    with pytest.raises(InputError, match="tensor_geometry"):
        SaxsTensor.from_scan(Scan.from_arrays(np.ones((4, SIZE, SIZE, 8))))
