"""Beam hardening: the line integral of a polychromatic beam grows less than the path, a polynomial takes it back."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InputError

__all__ = ["fit_hardening", "linearise"]


def linearise(values: Float[Array, "view z u"], coefficients: Sequence[float] | np.ndarray) -> Float[Array, "view z u"]:
    """`a1 p + a2 p^2 + ...` of line integrals p, for `coefficients` (a1, a2, ...) (G. T. Herman, Phys. Med. Biol. 24,
    81 (1979)).

    **Raises:** `InputError` for coefficients that are empty, not finite or have no first one above zero.

    ```python
    linearise(jnp.full((1, 1, 1), 2.0), (1.0, 0.1))       # 2.4
    ```
    """
    return _polynomial(jnp.asarray(values), jnp.asarray(check_coefficients(coefficients), jnp.asarray(values).dtype))


def check_coefficients(coefficients: Sequence[float] | np.ndarray) -> np.ndarray:
    """Check the coefficients of a polynomial and make an array of them.

    **Raises:** `InputError`.
    """
    a = np.asarray(coefficients, float).ravel()
    if not a.size or not np.isfinite(a).all() or a[0] <= 0:
        raise InputError(
            f"beam_hardening is {coefficients}; give the coefficients [a1, a2, ...] of a1 p + a2 p^2 "
            "+ ..., a1 above zero"
        )
    return a


@jax.jit
def _polynomial(values: Float[Array, "view z u"], a: Float[Array, " power"]) -> Float[Array, "view z u"]:
    total = jnp.zeros_like(values)
    for factor in a[::-1]:
        total = (total + factor) * values
    return total


def fit_hardening(values: Float[np.ndarray, "view z u"], order: int = 2) -> Float[np.ndarray, " power"]:
    """Coefficients (1, a2, ... a_order) that make the mass, the sum of a row of the sinogram, the same in every view.

    Needs no phantom and no material, only a sample that stays within the detector in every view and is not round:
    the mass of a disc is constant whatever the polynomial, and then nothing can be learned from it. The scale of the
    result stays that of thin paths, for `a1 = 1`.

    **Raises:** `InputError` when the sample leaves the detector, or is so round that the mass says nothing.

    ```python
    coefficients = fit_hardening(sinogram, order=3)
    ```
    """
    values = np.asarray(values, float)
    edges = np.abs(values[..., [0, -1]]).mean()
    if edges > 0.05 * np.abs(values).mean():
        raise InputError(
            "beam hardening cannot be fitted: the sample leaves the detector in some views, so that its "
            "mass is not constant; give the coefficients (prepare.beam_hardening)"
        )
    scale = float(np.percentile(values, 99.5))
    powers = np.stack([((values / scale) ** k).sum(-1) for k in range(1, order + 1)], -1)
    deviations = powers - powers.mean(0)
    # One unknown for all rows; each row has its own mass.
    first, others = deviations[..., 0].ravel(), deviations[..., 1:].reshape(-1, order - 1)
    if np.linalg.norm(others) < 1e-3 * np.linalg.norm(powers[..., 1:].mean(0)) * np.sqrt(len(values)):
        raise InputError(
            "beam hardening cannot be fitted: the mass of so round a sample is constant whatever the "
            "beam; give the coefficients (prepare.beam_hardening)"
        )
    found = np.linalg.lstsq(others, -first, rcond=1e-6)[0]
    coefficients = np.append(1.0, found / scale ** np.arange(1, order))
    path = np.linspace(0, float(values.max()), 200)
    if (np.polyval((coefficients * np.arange(1, order + 1))[::-1], path) <= 0).any():
        raise InputError(
            f"beam hardening: the fitted polynomial {coefficients.tolist()} does not grow with the path; "
            "give the coefficients (prepare.beam_hardening)"
        )
    return coefficients
