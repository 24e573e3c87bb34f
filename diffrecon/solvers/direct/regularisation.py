"""Regularisation of direct phase retrieval: given as numbers, or learnt from the images.

Every direct method solves, for each spatial frequency f, the normal equations

    sum_j w_j A_ju A_jv x_v + floor_u x_u = sum_j w_j A_ju d_j

of its unknowns x_u (phase, attenuation) from the spectra d_j of the images, with the contrast transfer A_ju. What is
added to the diagonal says how large an unknown may become where the images do not show it:

- `TwoLevels`: one number below and one above the first maximum of phase contrast, joined by an error function (Yu et
  al., Opt. Express 26, 11110 (2018), eq. 8), for each unknown its own (Lucht et al., arXiv 2403.00461 (2024)).
- `LearntPower`: Wiener's filter. `w_j` is one over the noise variance of image j and the floor one over the power of
  the unknown, taken as a power law of frequency. Both are learnt from the images by maximum likelihood of the
  hyperparameters (MacKay, Neural Comput. 4, 415 (1992)): what the images of all distances agree on is the object, what
  they disagree on is noise; with one image the zeros of its transfer tell the noise.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf
from jaxtyping import Array, Float, Inexact

from ...errors import InputError
from ...priors.power_law import fit_power_law
from .outside import frequencies, grid

__all__ = ["LearntPower", "Regularisation", "TwoLevels", "given", "learnt", "solved"]

_RINGS = 32  # of frequencies, equal steps of the logarithm
_SAMPLES = 256  # frequencies taken of a ring at most, over all views
_ROUNDS = 30  # of learning
_PRIOR = (10, 1e-6)  # frequencies, power of attenuation over that of phase


class TwoLevels(eqx.Module):
    """Numbers `(low, high)` for each unknown, below and above the frequency `split` [cycles/pixel]."""

    low: Float[Array, " unknown"]
    high: Float[Array, " unknown"]
    split: Float[Array, ""]

    def weights(self, count: int) -> Float[Array, " distance"]:
        """Weigh the images: all alike."""
        return jnp.ones(count, self.low.dtype)

    def floor(self, square: Float[Array, "*f"]) -> list[Float[Array, "*f"]]:
        """Added to the diagonal, for each unknown, at squared frequencies [1/pixel^2]."""
        share = 0.5 - 0.5 * erf((jnp.sqrt(square) / self.split - 1) * 4)
        return [high + (low - high) * share for low, high in zip(self.low, self.high, strict=True)]

    def scaled(self, factor: Any) -> "TwoLevels":
        """The same, stronger by a factor."""
        return TwoLevels(self.low * factor, self.high * factor, self.split)

    @property
    def message(self) -> str:
        """Describe it in words."""
        levels = ", ".join(
            f"{low:.2g} below and {high:.2g} above" for low, high in zip(self.low, self.high, strict=True)
        )
        return (
            f"regularisation as given: {levels} {float(self.split):.3g} cycles/pixel, the first maximum of phase "
            "contrast"
        )


class LearntPower(eqx.Module):
    """Noise of every image and power of every unknown, `level f^slope`, for transforms with `norm="ortho"`.

    **Fields:** `noise` = variance of a pixel of each image, with all that the linear model does not explain; `level`,
    `slope` of each unknown; `lowest` frequency, below which the power stays the same; `reach` = frequency
    [cycles/pixel] at which noise and object contribute alike, for each unknown; `strength` = 1, or what `scaled` made
    of it.
    """

    noise: Float[Array, " distance"]
    level: Float[Array, " unknown"]
    slope: Float[Array, " unknown"]
    lowest: Float[Array, ""]
    reach: Float[Array, " unknown"]
    strength: Float[Array, ""]

    def weights(self, count: int) -> Float[Array, " distance"]:
        """One over the noise variance of each image."""
        if len(self.noise) != count:
            raise InputError(f"this regularisation was learnt from {len(self.noise)} images and not from {count}")
        return 1 / self.noise

    def floor(self, square: Float[Array, "*f"]) -> list[Float[Array, "*f"]]:
        """One over the power of each unknown at squared frequencies [1/pixel^2]."""
        logarithm = 0.5 * jnp.log(jnp.maximum(square, self.lowest**2))
        return [
            self.strength * jnp.exp(-s * logarithm - jnp.log(h)) for h, s in zip(self.level, self.slope, strict=True)
        ]

    def scaled(self, factor: Any) -> "LearntPower":
        """The same, stronger by a factor."""
        return eqx.tree_at(lambda r: r.strength, self, self.strength * factor)

    @property
    def message(self) -> str:
        """Say in words what was chosen and why."""
        noise = ", ".join(f"{100 * float(n) ** 0.5:.2g}" for n in self.noise)
        names = ("phase", "attenuation") if len(self.level) > 1 else ("object",)
        power = "; ".join(
            f"power of the {name} falls as f^{float(s):.2g} and reaches that of noise at {float(r):.2g} cycles/pixel"
            for name, s, r in zip(names, self.slope, self.reach, strict=True)
        )
        scale = "" if self.strength == 1 else f", times {float(self.strength):.3g}"
        several = len(self.noise) > 1
        why = "from what the images do not agree on" if several else "from where its transfer shows no object"
        return f"Wiener regularisation learnt from the images: noise {noise} % of the empty beam, {why}; {power}{scale}"


Regularisation = TwoLevels | LearntPower


def given(value: Any, unknowns: int, split: float, dtype: Any) -> TwoLevels:
    """`TwoLevels` of a number, of `(low, high)`, or of one such pair for each unknown.

    **Raises:** `InputError` for anything else, and for numbers that are negative or not finite.
    """
    try:
        levels = np.asarray(value, float)
    except (TypeError, ValueError):
        levels = np.array(np.nan)
    if levels.ndim == 0:
        levels = np.broadcast_to(levels, (unknowns, 2))
    elif levels.shape == (2,):
        levels = np.broadcast_to(levels, (unknowns, 2))
    if levels.shape != (unknowns, 2) or not (np.isfinite(levels).all() and (levels >= 0).all()):
        raise InputError(
            f'regularisation = {value!r} is neither "auto" nor a number, a pair (low, high) or, of '
            f"{unknowns} unknowns, one such pair each; numbers are not to be negative"
        )
    low, high = (jnp.asarray(a, dtype) for a in levels.T)
    return TwoLevels(low, high, jnp.asarray(split, dtype))


def solved(
    matrix: dict[tuple[int, int], Array], right: Sequence[Array]
) -> tuple[list[Array], dict[tuple[int, int], Array]]:
    """Solution and inverse matrix of symmetric equations in one or two unknowns, for arrays of them."""
    if len(right) == 1:
        inverse = {(0, 0): 1 / matrix[0, 0]}
        return [right[0] * inverse[0, 0]], inverse
    a, b, c = matrix[0, 0], matrix[0, 1], matrix[1, 1]
    # Tiny numbers rather than 0 / 0 where nothing is known of either unknown.
    scale = 1 / jnp.maximum(a * c - b * b, jnp.finfo(a.dtype).tiny)
    inverse = {(0, 0): c * scale, (0, 1): -b * scale, (1, 1): a * scale}
    x, y = right
    return [inverse[0, 0] * x + inverse[0, 1] * y, inverse[0, 1] * x + inverse[1, 1] * y], inverse


# ------------------------------------------------------------------------------------------ learning
class Rings(NamedTuple):
    """Frequencies of a spectrum, some of each ring: `(ring, sample)`.

    **Fields:** `place` = flat index into the transposed spectrum; `rows`, `columns` frequencies [cycles/pixel]; `valid`
    where there is a sample; `centre` of the rings; `lowest` frequency that an image shows.
    """

    place: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    valid: np.ndarray
    centre: np.ndarray
    lowest: float


@lru_cache(maxsize=8)
def rings(image: tuple[int, int], outside: str, views: int) -> Rings:
    """Rings for images of a shape, the samples spread over a number of views."""
    shape = grid(image, outside)
    fy, fx = frequencies(shape, outside)
    frequency = np.hypot(fy[None, :], fx[:, None])
    once = np.ones(frequency.shape, bool)
    if shape != tuple(image):  # one of every pair +f and -f, which are conjugate
        once[[0, -1], shape[0] // 2 + 1 :] = False
    lowest = 1 / max(image)
    places = np.flatnonzero((once & (frequency >= 0.5 * lowest) & (frequency <= 0.5)).ravel())
    of = np.digitize(frequency.ravel()[places], np.geomspace(0.5 * lowest, 0.5, _RINGS + 1)[1:-1])
    most, rng = max(16, _SAMPLES // views), np.random.default_rng(0)
    chosen = [places[of == k] for k in range(_RINGS)]
    chosen = [np.sort(rng.choice(c, most, replace=False)) if len(c) > most else c for c in chosen if len(c)]
    valid = np.stack([np.arange(most) < len(c) for c in chosen])
    place = np.stack([np.resize(c, most) for c in chosen])
    column, row = np.unravel_index(place, frequency.shape)
    centre = np.sum(frequency.ravel()[place] * valid, 1) / valid.sum(1)
    return Rings(place, fy[row], fx[column], valid, np.maximum(centre, lowest), lowest)


def learnt(
    data: Inexact[Array, "distance ring sample"],
    response: Float[Array, "distance unknown ring sample"],
    valid: Float[Array, "ring sample"],
    centre: Float[Array, " ring"],
    lowest: Float[Array, ""],
    lowest_noise: bool = False,
) -> LearntPower:
    """Noise and power laws that make the data likeliest, by expectation maximisation; for `norm="ortho"`.

    **Arguments:** `data` = samples of the spectra of images of variance 1 a pixel of noise variance 1 (that is, over
    the square root of the number of pixels); `response` = their transfer; `valid` = number of views that a sample
    stands for, 0 where there is none. `lowest_noise`: noise is not learnt but the lowest mean power of a ring, where
    one image without zeros in its transfer cannot tell it from the object.
    """
    unknowns = response.shape[1]
    count = jnp.sum(valid, 1)
    mean = lambda a: jnp.sum(a * valid, -1) / count
    power = jnp.stack([mean(jnp.abs(d) ** 2) for d in data])
    noise = (1.0 if lowest_noise else 0.5) * jnp.min(jnp.where(count > 15, power, jnp.inf) + 1e-12, 1)
    weight = jnp.minimum(count, 50)

    # To begin with all is phase; attenuation has a hundredth of its power.
    seen = jnp.sum(response[:, 0] ** 2, 0)
    best = jnp.sum(response[:, 0] * data, 0) / jnp.maximum(seen, 1e-3 * jnp.max(seen))
    height, steep = fit_power_law(centre, mean(jnp.abs(best) ** 2), weight)
    level, slope = jnp.stack([height, 0.01 * height][:unknowns]), jnp.full(unknowns, steep)

    def round_of(_, now):
        noise, level, slope, _ = now
        laws = [jnp.exp(jnp.log(level[u]) + slope[u] * jnp.log(centre))[:, None] for u in range(unknowns)]
        solution, inverse = _posterior(data, response, 1 / noise, laws)
        parts = [_refit(mean, weight, centre, solution[0], inverse[0, 0], laws[0])]
        if unknowns > 1:
            parts.append(_refit(mean, weight, centre, solution[1], inverse[1, 1], laws[1], parts[0][:2]))
        level, slope, known = zip(*parts, strict=True)
        if lowest_noise:
            return noise, jnp.stack(level), jnp.stack(slope), jnp.stack(known)
        misfit = _misfit(data, response, solution, inverse)
        total = jnp.sum(misfit * valid, (-2, -1)) / jnp.sum(valid)
        return jnp.maximum(total, 1e-14), jnp.stack(level), jnp.stack(slope), jnp.stack(known)

    first = (noise, level, slope, jnp.zeros((unknowns, len(centre)), noise.dtype))
    noise, level, slope, known = jax.lax.fori_loop(0, _ROUNDS, round_of, first)
    # The highest frequency of which at least half is known.
    reach = jnp.max(jnp.where(known > 0.5, centre, lowest), -1)
    return LearntPower(noise, level, slope, lowest, reach, jnp.ones_like(lowest))


def _posterior(data: Array, response: Array, weights: Array, laws: Sequence[Array]) -> tuple[Any, Any]:
    """Mean and covariance of the unknowns at every sample."""
    unknowns, w = len(laws), weights[:, None, None]
    matrix = {
        (u, v): jnp.sum(w * response[:, u] * response[:, v], 0) + (1 / laws[u] if u == v else 0)
        for u in range(unknowns)
        for v in range(u, unknowns)
    }
    return solved(matrix, [jnp.sum(w * response[:, u] * data, 0) for u in range(unknowns)])


def _misfit(data: Array, response: Array, solution: Sequence[Array], inverse: dict) -> Array:
    """Expected square of what is left of the data."""
    unknowns = len(solution)
    left = jnp.abs(data - sum(response[:, u] * solution[u] for u in range(unknowns))) ** 2
    for (u, v), entry in inverse.items():
        left += (1 if u == v else 2) * response[:, u] * response[:, v] * entry
    return left


def _refit(
    mean: Any, weight: Array, centre: Array, solution: Array, variance: Array, law: Array, first: Any = None
) -> Any:
    """The power law of one unknown from its posterior, and what share of every ring the data know.

    The first unknown has its law fitted to the rings that are known. The second has the slope of the `first` law
    (level, slope), and the level that explains as much as is known of it in all rings. Where next to nothing is known,
    chance would choose: that its power is a millionth of the first, as in light matter, counts as ten frequencies.
    """
    known = mean(1 - variance / law)
    power = mean(jnp.abs(solution) ** 2)
    if first is None:
        return *fit_power_law(centre, power / jnp.maximum(known, 1e-3), weight * (known > 1 / 3)), known
    level, slope = first
    now = law[0, 0] / jnp.exp(slope * jnp.log(centre[0]))
    found = jnp.sum(weight * power / law[:, 0]) * now
    level = (found + _PRIOR[0] * _PRIOR[1] * level) / (jnp.sum(weight * known) + _PRIOR[0])
    return jnp.clip(level, 0.03 * now, 30 * now), slope, known
