"""Fringes of a crystal (Bonse-Hart) interferometer: the phase itself, not its slope, displaces them."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._model import Model
from ..operators.fourier import blur

__all__ = ["InterferometerFringes"]

_PIXEL = 1 / 12  # variance of a square pixel along each side [pixel^2]
_EDGE = 4  # [pixel], by which images are continued for the blur


class InterferometerFringes(Model):
    """Expected counts of a fringe scan, one view a step: an arm through the sample meets one without.

    `flux [mean (1 - arm + arm B(T)) + amplitude Re B(sqrt(T) visibility exp(i (phase + carrier))) exp(-2 pi i step)]`,
    with `T = exp(attenuation)` and B the pixel's and the detector's blur: a phase that turns within a pixel costs
    contrast there, and is no scattering (U. Bonse & M. Hart, Appl. Phys. Lett. 6, 155 (1965)).

    **Fields:** `phase` [rad], `attenuation`, `visibility` `(y, x)`, the unknown images; `flux`, `step` `(view,)`
    [periods]; `mean`, `amplitude` [counts], `carrier` [rad], `(y, x)`, of the interferometer without a sample, before
    the blur (`of_fringes`); `arm`, share of the light that goes through the sample; `blur`, standard deviation of the
    detector's point spread besides its pixel [pixel].

    ```python
    carrier = np.arange(24.0) / 5 * np.ones((24, 1))
    seen = np.array([100 * (1 + 0.7 * np.cos(carrier - 2 * np.pi * k / 4)) for k in range(4)])
    still = dr.models.fit_fringes(seen, np.arange(4) / 4)[0]
    empty = InterferometerFringes.of_fringes(still, np.arange(4) / 4)
    assert np.allclose(empty(np.arange(4))[:, :, 4:-4], seen[:, :, 4:-4], rtol=0.01)
    ```
    """

    phase: Float[Array, "y x"]
    attenuation: Float[Array, "y x"]
    visibility: Float[Array, "y x"]
    flux: Float[Array, " view"]
    step: Float[Array, " view"]
    mean: Float[Array, "y x"]
    amplitude: Float[Array, "y x"]
    carrier: Float[Array, "y x"]
    arm: float = eqx.field(static=True, default=0.5)
    blur: float = eqx.field(static=True, default=0.0)

    unknowns: ClassVar[tuple[str, ...]] = ("phase", "attenuation", "visibility")

    @classmethod
    def of_fringes(
        cls, still: Any, step: Any, *, flux: Any = None, arm: float = 0.5, blur: float = 0.0
    ) -> "InterferometerFringes":
        """Make the model of an empty beam from mean, visibility and phase without a sample (`fit_fringes`).

        What was measured is blurred once: the fringes before the blur are so much stronger.
        """
        cast = lambda a: jnp.asarray(a, jnp.float32)
        mean, visibility, carrier = (cast(a) for a in still)
        zero, flux = jnp.zeros_like(mean), jnp.ones(len(step)) if flux is None else flux
        model = cls(zero, zero, zero + 1, cast(flux), cast(step), mean, mean * visibility, carrier, arm, blur)
        lost = jnp.abs(model.blurred(jnp.exp(1j * carrier)))
        return model.replace(amplitude=model.amplitude / jnp.maximum(lost, 0.1))

    def blurred(self, image: Array) -> Array:
        """Take the mean over what a pixel sees; the image goes on beyond the frame as it ends there."""
        width = float(np.hypot(self.blur, np.sqrt(_PIXEL)))
        wide = blur(jnp.pad(image, _EDGE, mode="edge"), width)
        return wide[_EDGE:-_EDGE, _EDGE:-_EDGE]

    def __call__(self, views: Any) -> Float[Array, "view y x"]:
        """Expected counts of some views."""
        passed = jnp.exp(self.attenuation)
        light = self.mean * (1 - self.arm + self.arm * self.blurred(passed))
        through = jnp.sqrt(passed) * self.visibility * jnp.exp(1j * (self.phase + self.carrier))
        wave = self.amplitude * self.blurred(through)
        turn = 2 * jnp.pi * self.step[views][:, None, None]
        seen = wave.real * jnp.cos(turn) + wave.imag * jnp.sin(turn)
        return self.flux[views][:, None, None] * (light + seen)
