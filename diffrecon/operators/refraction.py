"""What a phase does to rays: its gradient and the angles by which they are deflected, as differential phase contrast
measures them."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import InputError

__all__ = ["phase_gradient", "refraction_angle"]


def phase_gradient(
    phase: Float[Array, "*batch y x"], pixel_size: float | tuple[float, float]
) -> Float[Array, "2 *batch y x"]:
    """Gradient of a phase [rad/m] along rows and along columns, by central differences (one-sided at the border).

    The phase is the integral of the refractive index, which has no wraps; of a wrapped phase the gradient is wrong
    where it jumps (`quality.phase_jumps` finds them). **Arguments:** `pixel_size` [m], or (vertical, horizontal).

    ```python
    down, right = phase_gradient(jnp.arange(12.0).reshape(3, 4), 1e-6)
    assert jnp.allclose(right, 1e6) and jnp.allclose(down, 4e6)
    ```
    """
    phase = jnp.asarray(phase)
    if phase.ndim < 2 or min(phase.shape[-2:]) < 2:
        raise InputError(f"phase_gradient: a phase of shape {phase.shape}; expected (..., y, x), two pixels at least")
    if jnp.iscomplexobj(phase):
        raise InputError("phase_gradient: a phase [rad] is real; give the phase of the model, not its transmission")
    pair = pixel_size if isinstance(pixel_size, tuple) else (pixel_size, pixel_size)
    down, right = (jnp.asarray(jnp.gradient(phase, axis=axis)) for axis in (-2, -1))
    return jnp.stack([down / pair[0], right / pair[1]])


def refraction_angle(
    phase: Float[Array, "*batch y x"], pixel_size: float | tuple[float, float], wavelength: Any
) -> Float[Array, "2 *batch y x"]:
    """Angles [rad] by which rays are deflected to higher rows and higher columns: `wavelength / (2 pi) grad phase`.

    With exp(+ikz) travelling forward a phase that grows along x turns the ray towards +x; at a distance D it arrives
    `D * angle` further on.

    ```python
    angles = refraction_angle(jnp.zeros((4, 4)), 1e-6, 1e-10)
    assert angles.shape == (2, 4, 4)
    ```
    """
    return phase_gradient(phase, pixel_size) * (wavelength / (2 * jnp.pi))
