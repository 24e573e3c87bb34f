"""Power laws: the spectra of objects, learnt from their own measurement instead of chosen.

Edges and surfaces make the power of an object fall as a power of the frequency, -4 for sharp surfaces in a volume and
its projections (Porod). Level and slope are fitted to what the data have determined (type-II maximum likelihood;
MacKay, Neural Comput. 4, 415 (1992)), so that no regularisation weight is left to choose.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..operators.fourier import radial_frequency

__all__ = ["SLOPES", "PowerLaw", "fit_power_law"]

# Slopes are kept within these: -1.5 is flatter than the finest structure that still is an object and not noise (points
# have 0, lines in an image -1 ... -3), -6 is a surface that is smooth in its slope (-4, less two); beyond, a fit to the
# few rings that the data know has followed chance, and would hold back all details.
SLOPES = (-6.0, -1.5)
_SHELLS = 24  # of a fit, equal steps of the logarithm of frequency


def fit_power_law(centre: Any, level: Any, weight: Any, xp: Any = jnp) -> tuple[Any, Any]:
    """Fit `(level, slope)` of `level f^slope` through powers at frequencies `centre` by least squares of logarithms.

    The slope is kept within `SLOPES`, and is -3.5 where fewer than three points have any weight; a level without weight
    anywhere is 1e-6. `xp` is the array module, `jnp` or `np`.
    """
    x, y = xp.log(xp.maximum(centre, 1e-9)), xp.log(xp.maximum(level, 1e-30))
    total = xp.maximum(xp.sum(weight), 1e-30)
    mean_x, mean_y = xp.sum(weight * x) / total, xp.sum(weight * y) / total
    spread = xp.sum(weight * (x - mean_x) ** 2)
    fitted = xp.sum(weight * (x - mean_x) * (y - mean_y)) / xp.maximum(spread, 1e-30)
    slope = xp.clip(xp.where(xp.sum(weight > 0) >= 3, fitted, -3.5), *SLOPES)
    return xp.where(xp.sum(weight) > 0, xp.exp(mean_y - slope * mean_x), 1e-6), slope


class PowerLaw(NamedTuple):
    """Expect the power `level * f^slope` of an image or volume at every frequency f [cycles/pixel] of its transform.

    The transform is `rfftn(image, norm="ortho")`, so that white noise of variance v has the power v everywhere.

    ```python
    law = PowerLaw(2.0, -3.0)
    assert law(np.array([0.5])) == 16.0
    ```
    """

    level: Any
    slope: Any

    def __call__(self, frequency: Any) -> Any:
        """Compute the power at some frequencies [cycles/pixel]."""
        return self.level * frequency**self.slope

    def on_pixels(self, larger: float) -> "PowerLaw":
        """Give the law of the same image on pixels that are so many times `larger`.

        ```python
        law = PowerLaw(2.0, -3.0).on_pixels(2)
        assert law == (4.0, -3.0) and law.on_pixels(0.5) == (2.0, -3.0)
        ```
        """
        return PowerLaw(self.level / larger ** (2 + self.slope), self.slope)

    @classmethod
    def fit(
        cls,
        power: Float[np.ndarray, "..."],
        frequency: Float[np.ndarray, "..."],
        known: np.ndarray | None = None,
        *,
        usable: np.ndarray | None = None,
    ) -> "PowerLaw":
        """Fit a law through the means of `power` over 24 shells of the frequency, which may be negative where noise has
        been subtracted.

        **Arguments:** `known`: the share (0 ... 1) of each frequency that the data determine; shells of which they
        know a third or less are left out, and from the first hole on all, once four shells are known. `usable`: the
        frequencies that count at all, as booleans.
        """
        positive = frequency[frequency > 0]
        edges = np.geomspace(positive.min() * 0.999, frequency.max() * 1.001, _SHELLS + 1)
        shell, size = np.digitize(frequency, edges).ravel(), _SHELLS + 2
        weight = np.ones(power.size) if usable is None else usable.ravel().astype(float)
        count = np.bincount(shell, weight, size)
        mean = lambda values: np.bincount(shell, weight * values.ravel(), size) / np.maximum(count, 1e-12)
        centre, level = mean(frequency), mean(power)
        share = np.ones(size) if known is None else mean(known)
        return _through(count, centre, level, share)

    def refined(self, image: Float[Array, "y x"], curvature: Float[Array, "y half"]) -> "PowerLaw":
        """Refit the law to a solution: its power over the share that the data know (MacKay 1992, eq. 4.8).

        **Arguments:** `image` `(y, x)` solution; `curvature` `(y, x//2 + 1)` of the data's half square [1/image^2] at
        every frequency. Where no frequency is known to a third the law stays.
        """
        now = jnp.asarray(self, image.dtype)
        count, centre, level, share, most = (np.asarray(a, float) for a in _refined_shells(image, curvature, now))
        return _through(count, centre, level, share) if most > 1 / 3 else self


@jax.jit
def _refined_shells(image: Array, curvature: Array, law: Float[Array, "2"]) -> tuple[Array, ...]:
    """Sum up a solution on shells: number of frequencies, mean frequency, power, share known, and its largest."""
    frequency = radial_frequency(image.shape, xp=jnp)
    first, last = 0.999 / max(image.shape), 1.001 * np.sqrt(0.5)
    shell = jnp.log(frequency / first) * (_SHELLS / np.log(last / first))
    shell = jnp.clip(shell.astype(jnp.int32), 0, _SHELLS - 1)
    known = curvature / (curvature + 1 / PowerLaw(law[0], law[1])(frequency))
    power = jnp.abs(jnp.fft.rfft2(image, norm="ortho")) ** 2 / jnp.maximum(known, 1e-3)
    sums = [jnp.zeros(_SHELLS, image.dtype).at[shell].add(a) for a in (jnp.ones_like(known), frequency, power, known)]
    count, *means = sums[0], *(total / jnp.maximum(sums[0], 1) for total in sums[1:])
    return count, *means, jnp.max(known)


def _through(count: np.ndarray, centre: np.ndarray, level: np.ndarray, share: np.ndarray) -> PowerLaw:
    """Fit a law through the means of shells, of which the data know a share."""
    good = (count > 0) & (centre > 0) & (level > 0) & (share > 1 / 3)
    holes = np.flatnonzero((count > 0) & ~good)
    if holes.size and good[: holes[0]].sum() >= 4:
        good[holes[0] :] = False  # beyond the first shell that is not known, what looks known is chance
    return PowerLaw(*map(float, fit_power_law(centre, level, np.minimum(count, 50) * good, np)))
