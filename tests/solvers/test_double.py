"""What runs where jax counts in double precision by default, with arrays that are still single."""

import jax
import jax.numpy as jnp
import numpy as np

from diffrecon.operators import displaced_with_slopes, displacement_coefficients
from diffrecon.solvers import track_windows
from diffrecon.solvers.conjugate_gradients import conjugate_gradients
from diffrecon.solvers.tensor_quadratic import _free_shapes


def test_windows_are_tracked():
    pattern = 1 + 0.1 * np.random.default_rng(0).standard_normal((3, 32, 32)).astype(np.float32)
    with jax.enable_x64(True):
        found = track_windows(jnp.roll(pattern, 1, 2), jnp.asarray(pattern), reach=2, window=2.0)
        assert float(abs(found.displacement[1, 8:-8, 8:-8] - 1).max()) < 0.1


def test_single_images_are_displaced_by_double_numbers():
    ramp = np.broadcast_to(np.arange(20.0, dtype=np.float32), (1, 24, 20))
    with jax.enable_x64(True):
        coefficients = displacement_coefficients(jnp.asarray(ramp))
        moved, _, right = displaced_with_slopes(coefficients, jnp.full((2, 24, 20), 0.25))
        np.testing.assert_allclose(moved[10, 5:15, 0], np.arange(5, 15) - 0.25, atol=1e-2)
        np.testing.assert_allclose(right[10, 5:15, 0], 1, atol=2e-2)


def test_numbers_of_32_bits_beside_constants_of_64():
    """A user's JAX_ENABLE_X64: constants become numbers of 64 bits, what is solved stays as it came."""
    with jax.enable_x64(True):
        matrix, right = np.array([[4.0, 1.0], [1.0, 3.0]]), jnp.array([1.0, 2.0], jnp.float32)
        x, _ = conjugate_gradients(lambda x: matrix @ x, right, steps=2, precondition=lambda x: x / np.diag(matrix))
        assert x.dtype == jnp.float32 and np.allclose(matrix @ x, right, atol=1e-5)
        shapes = _free_shapes(jnp.asarray(np.random.default_rng(0).random((2, 2, 2, 6)), jnp.float32))
        assert bool(jnp.isfinite(shapes).all())
