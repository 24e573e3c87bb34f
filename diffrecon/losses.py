"""How a prediction meets counts. Plain functions of arrays; each is a mean over the measured pixels, so that its size
does not depend on the batch, and each works on integer counts without a copy of them in another type.

Common arguments: `prediction` (expected counts, same shape as `counts`), `counts`, `mask` (`True` = measured, broadcast
against `counts`; `None` = all measured).
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

from .errors import InputError

__all__ = [
    "amplitude",
    "anscombe_residual",
    "gaussian",
    "huber",
    "masked_mean",
    "matched",
    "poisson",
    "saturated",
]

Values = Array | np.ndarray  # counts come from files as NumPy arrays

# Amplitudes below this number of counts are rounding noise of sqrt: with a floor of zero, dark pixels carry 8 % of the
# gradient.
AMPLITUDE_FLOOR = 1e-2


def masked_mean(values: Float[Values, "..."], mask: Bool[Values, "..."] | None) -> Float[Array, ""]:
    """Mean of `values` where `mask` holds.

    ```python
    assert masked_mean(jnp.array([1.0, 3.0]), jnp.array([True, False])) == 1.0
    ```
    """
    if mask is None:
        return jnp.mean(values)
    mask = jnp.broadcast_to(mask, values.shape)
    # `where` on the value alone: an inf or NaN in a dead pixel must not reach the sum.
    total = jnp.sum(jnp.where(mask, values, 0.0))
    return total / jnp.maximum(jnp.sum(mask, dtype=values.dtype), 1.0)


def _safe(prediction: Values, mask: Values | None) -> Array:
    """The prediction with a harmless number in dead pixels, so that gradients there are exact zeros."""
    prediction = jnp.asarray(prediction)
    return prediction if mask is None else jnp.where(mask, prediction, jnp.ones((), prediction.dtype))


def _counts(counts: Num[Values, "..."], prediction: Values, mask: Values | None) -> Array:
    if np.shape(counts) != np.shape(prediction):
        raise InputError(
            f"loss: the prediction has shape {tuple(np.shape(prediction))}, the data {tuple(np.shape(counts))}: every "
            "datum needs its prediction (jnp.broadcast_to where one serves several)"
        )
    counts = jnp.asarray(counts, prediction.dtype)
    return counts if mask is None else jnp.where(mask, counts, 0.0)


def poisson(
    prediction: Float[Values, "..."],
    counts: Num[Values, "..."],
    mask: Bool[Values, "..."] | None = None,
    *,
    floor: float = 1e-3,
) -> Float[Array, ""]:
    """Mean Poisson deviance halved, `mean(p - n + n ln(n / p))`: the negative log-likelihood less its minimum.

    About 0.5 for a perfect model of counts well above 1. `floor` [counts] is added to the prediction inside the
    logarithm only where it would be smaller: a predicted zero with a counted photon costs `ln(1/floor)` and not
    infinity.

    ```python
    assert abs(poisson(jnp.array([4.0]), jnp.array([4]))) < 1e-6
    ```
    """
    p = jnp.maximum(_safe(prediction, mask), floor)
    n = _counts(counts, p, mask)
    return masked_mean(p - n + n * (jnp.log(jnp.where(n > 0, n, 1.0)) - jnp.log(p)), mask)


def amplitude(
    prediction: Float[Values, "..."],
    counts: Num[Values, "..."],
    mask: Bool[Values, "..."] | None = None,
    *,
    floor: float = AMPLITUDE_FLOOR,
) -> Float[Array, ""]:
    """`mean (sqrt(n + floor) - sqrt(p + floor))^2`: the square root makes the variance of counts 1/4 whatever the
    brightness.

    `floor` [counts] keeps the derivative of the root finite in dark pixels; about 0.25 for a perfect model.

    ```python
    assert amplitude(jnp.array([4.0]), jnp.array([4])) < 1e-12
    ```
    """
    p = _safe(prediction, mask)
    n = _counts(counts, p, mask)
    return masked_mean((jnp.sqrt(n + floor) - jnp.sqrt(jnp.maximum(p, 0.0) + floor)) ** 2, mask)


def anscombe_residual(
    prediction: Float[Values, "..."], counts: Num[Values, "..."], mask: Bool[Values, "..."] | None = None
) -> Float[Array, "..."]:
    """Give the residuals `2 sqrt(p + 3/8) - 2 sqrt(n + 3/8)`, of variance one for photon noise (Anscombe 1948).

    They are zero where nothing was measured, and unlike those of plain amplitudes their derivative stays finite in dark
    pixels: rows for `diffrecon.solvers.levenberg_marquardt`.

    ```python
    assert anscombe_residual(jnp.array([4.0]), jnp.array([4])) == 0.0
    ```
    """
    root = lambda counts: jnp.sqrt(jnp.maximum(counts, 0) + 0.375)
    residual = 2 * (root(_safe(prediction, mask)) - root(_counts(counts, prediction, mask)))
    return residual if mask is None else jnp.where(mask, residual, 0)


def gaussian(
    prediction: Num[Values, "..."],
    values: Num[Values, "..."],
    mask: Bool[Values, "..."] | None = None,
    *,
    weights: Float[Values, "..."] | float = 1.0,
) -> Float[Array, ""]:
    """`0.5 mean w |p - y|^2`, with the one half; `weights` are inverse variances.

    ```python
    assert gaussian(jnp.array([2.0]), jnp.array([0.0])) == 2.0
    ```
    """
    residual = _safe(prediction, mask) - _counts(values, prediction, mask)
    return 0.5 * masked_mean(weights * jnp.real(residual * jnp.conj(residual)), mask)


def huber(
    prediction: Float[Values, "..."],
    values: Num[Values, "..."],
    mask: Bool[Values, "..."] | None = None,
    *,
    threshold: float = 1.0,
) -> Float[Array, ""]:
    """Quadratic `r^2 / 2` up to `threshold` and linear `threshold (|r| - threshold / 2)` beyond: outliers pull, but not
    harder.

    ```python
    assert huber(jnp.array([3.0]), jnp.array([0.0])) == 2.5
    ```
    """
    residual = jnp.abs(_safe(prediction, mask) - _counts(values, prediction, mask))
    inside = jnp.minimum(residual, threshold)
    return masked_mean(inside * (residual - 0.5 * inside), mask)


def saturated(prediction: Float[Values, "..."], counts: Num[Values, "..."], level: float) -> Float[Array, "..."]:
    """The prediction as a detector that saturates at `level` [counts] would show it, for any loss.

    A saturated pixel says "at least so many": where `counts` reach the level a larger prediction costs nothing, a
    smaller one what it would cost anyway.

    ```python
    assert saturated(jnp.array([900.0, 900.0]), jnp.array([500, 30]), 500).tolist() == [500.0, 900.0]
    ```
    """
    return jnp.where(counts >= level, jnp.minimum(prediction, counts.astype(prediction.dtype)), prediction)


def matched(
    prediction: Float[Values, "*view y x"], counts: Num[Values, "*view y x"], mask: Bool[Values, "..."] | None = None
) -> Float[Array, "*view y x"]:
    """Multiply each predicted frame by the gain that matches the sum of its measured counts.

    ```python
    assert matched(jnp.ones((1, 1, 2)), jnp.array([[[4, 2]]])).tolist() == [[[3.0, 3.0]]]
    ```
    """
    total = lambda a: jnp.sum(a if mask is None else jnp.where(mask, a, 0), (-2, -1), dtype=prediction.dtype)
    return jnp.asarray(prediction) * (total(counts) / jnp.maximum(total(prediction), 1e-6))[..., None, None]
