"""The Kaiser-Bessel window `I0(beta sqrt(1 - (2t/w)^2)) / I0(beta)`, |t| <= w/2, of w samples.

With the shape of P. J. Beatty et al., IEEE Trans. Med. Imaging 24, 799 (2005), eq. 5, it interpolates between the
samples of a function whose transform fills 1/oversampling of the band.
"""

import math
from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np

__all__ = ["KaiserBessel", "beatty_shape", "fitted", "polynomial", "transform"]


class KaiserBessel:
    """A window of `width` taps for samples taken `oversampling` times as finely as the function needs.

    ```python
    window = KaiserBessel(4, 1.5)
    first, weights = window.taps(jnp.array([0.3, 7.9]))   # (2,) and (4, 2)
    ```
    """

    def __init__(self, width: int, oversampling: float):
        self.width = width
        self.beta = beatty_shape(width, oversampling)

    def transform(self, frequency: Any) -> np.ndarray:
        """Its transform at frequencies [1/sample], in float64: what a spectrum is divided by before interpolation."""
        return transform(self.width, self.beta, frequency)

    def taps(self, position: Any) -> tuple[Any, Any]:
        """First sample within reach of each position (integer, not wrapped) and the weights `(tap, *position)`."""
        first = jnp.ceil(position - self.width / 2)
        q = [((position - first - tap) * (2 / self.width)) ** 2 for tap in range(self.width)]
        weights = jnp.stack([polynomial(fitted(self.beta), jnp.minimum(each, 1.0)) for each in q])
        return first.astype(jnp.int32), weights


def polynomial(coefficients: tuple[float, ...], x: Any) -> Any:
    """Value by Horner's rule, highest power first."""
    value = jnp.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def beatty_shape(width: int, oversampling: float) -> float:
    """beta by eq. 5."""
    return math.pi * math.sqrt((width / oversampling * (oversampling - 0.5)) ** 2 - 0.8)


def transform(width: int, beta: float, frequency: Any) -> np.ndarray:
    """Transform of the window at frequencies [1/sample]."""
    root = np.sqrt((beta**2 - (np.pi * width * np.asarray(frequency)) ** 2).astype(complex))
    return (width * np.sinh(root) / root).real / np.i0(beta)


@cache
def fitted(beta: float, degree: int = 8) -> tuple[float, ...]:
    """Coefficients, highest power first, of a polynomial in q = (2t/w)^2 that equals the window; degree 8 to 3e-7 (5
    taps on 1.5)."""
    q = (1 - np.cos(np.pi * (np.arange(200) + 0.5) / 200)) / 2
    values = np.i0(beta * np.sqrt(1 - q)) / np.i0(beta)
    fit = np.polynomial.Chebyshev.fit(q, values, deg=degree, domain=[0, 1])
    return tuple(float(c) for c in fit.convert(kind=np.polynomial.Polynomial).coef[::-1])
