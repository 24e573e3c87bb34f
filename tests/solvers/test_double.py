"""What runs where jax counts in double precision by default, with arrays that are still single."""

import jax
import jax.numpy as jnp
import numpy as np

from diffrecon.operators import displaced_with_slopes, displacement_coefficients
from diffrecon.solvers import track_windows


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
