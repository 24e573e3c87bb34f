"""Stripes of the sinogram, which become rings of the slice: columns of the detector that are a little, or very, wrong.

All functions take line integrals `(view, z, u)` and treat every detector row z by itself.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..errors import InputError, nearest
from ._wavelet import daubechies, wavelet_join, wavelet_split

__all__ = ["STRIPE_METHODS", "Stripes", "remove_stripes", "running_median"]

_DROP = 0.1  # of the sorted values at either end left out when a column is judged
_SIGMAS = 5.0  # robust standard deviations from the other columns that make a column defective
_FACTOR = 2.0  # and at least this much more or less fluctuation than its neighbours, for a dead column
_SMOOTH = 11  # views over which the fluctuation of a column is measured
_WAVELET = 5  # vanishing moments
_CYCLES = 2.0  # standard deviation [cycles a scan] of what counts as constant along a stripe
_SIZES = {"sorting": 21, "fourier-wavelet": 21, "large": 61, "dead": 51, "all": 21}
STRIPE_METHODS = ("none", *_SIZES)


class Stripes(NamedTuple):
    """**Fields:** `values` = line integrals without stripes; `defective` `(z, u)` = columns that were replaced rather
    than levelled ("large", "dead", "all"; none otherwise)."""

    values: Float[Array, "view z u"]
    defective: Bool[Array, "z u"]


def remove_stripes(values: Float[Array, "view z u"], method: str, *, size: int | None = None) -> Stripes:
    """Remove stripes along the views, row by row.

    **Arguments:**

    - `values`: line integrals.
    - `method`:
      `"sorting"`: each column is sorted along the views, sorted columns are smoothed by a median across `size` columns,
      and every value goes back to its view (N. T. Vo, R. C. Atwood and M. Drakopoulos, Opt. Express 26, 28396 (2018),
      algorithm 3): partial and full stripes narrower than half of `size`, no parameter that depends on the sample.
      `"fourier-wavelet"`: in the details of a wavelet transform across the columns, what stays constant along the views
      is damped (B. Muench, P. Trtik, F. Marone and M. Stampanoni, Opt. Express 17, 8567 (2009)): strong on straight
      stripes, weak on partial ones.
      `"large"`: columns that stand out from their neighbours by 5 robust standard deviations are replaced by the median
      of the sorted neighbours (Vo 2018, algorithm 5); all others stay as they are.
      `"dead"`: columns that fluctuate along the views much less or more than their neighbours are interpolated
      (Vo 2018, algorithm 6).
      `"all"`: dead, large, sorting, in this order.
      `"none"`: nothing.
    - `size`: width of the median across columns, about twice the widest stripe [pixel]; default 21 ("large" 61, "dead"
      51, "all" 61, 51 and 21). For `"fourier-wavelet"` the widest stripe.

    **Raises:** `InputError` for an unknown method, a size below 3.

    **Cost:** a sort and a running median of `32 * size` comparisons a value.

    ```python
    clean = remove_stripes(jnp.ones((90, 1, 64)).at[:, :, 20].add(0.1), "sorting").values
    ```
    """
    if method not in STRIPE_METHODS:
        raise InputError(f"stripes: there is no method {method!r}{nearest(str(method), STRIPE_METHODS)}")
    if size is not None and not 3 <= size:
        raise InputError(f"stripe_size is {size}; give the width of the median in columns, at least 3")
    values = jnp.asarray(values)
    if method == "none":
        return Stripes(values, jnp.zeros(values.shape[1:], bool))
    return Stripes(*_each_row(values, method, _odd(size or _SIZES[method], values.shape[-1])))


def _odd(size: int, columns: int) -> int:
    """An odd width that fits into the row."""
    return max(3, min(int(size), columns // 2) // 2 * 2 + 1)


@partial(jax.jit, static_argnames=("method", "size"))
def _each_row(values: Float[Array, "view z u"], method: str, size: int) -> tuple[Array, Array]:
    clean, defective = jax.lax.map(lambda row: _METHODS[method](row, size), jnp.moveaxis(values, 1, 0))
    return jnp.moveaxis(clean, 0, 1), defective


# ---------------------------------------------------------------------------------------------------- one row
def _sorting(row: Float[Array, "view u"], size: int) -> tuple[Array, Array]:
    order = jnp.argsort(row, 0)
    smooth = running_median(jnp.take_along_axis(row, order, 0), size)
    return _unsorted(smooth, order), jnp.zeros(row.shape[1], bool)


def _unsorted(values: Float[Array, "view u"], order: Array) -> Float[Array, "view u"]:
    return jnp.zeros_like(values).at[order, jnp.arange(values.shape[1])].set(values, unique_indices=True)


def _large(row: Float[Array, "view u"], size: int) -> tuple[Array, Array]:
    order = jnp.argsort(row, 0)
    ranked = jnp.take_along_axis(row, order, 0)
    smooth = running_median(ranked, size)
    middle = slice(int(_DROP * row.shape[0]), max(int((1 - _DROP) * row.shape[0]), 1))
    offset = jnp.mean((ranked - smooth)[middle], 0)
    defective = _widened(_outliers(offset))
    return jnp.where(defective, _unsorted(smooth, order), row), defective


def _dead(row: Float[Array, "view u"], size: int) -> tuple[Array, Array]:
    fluctuation = jnp.mean(jnp.abs(row - _running_mean(row, _SMOOTH)), 0)
    tiny = 1e-3 * jnp.mean(fluctuation) + jnp.finfo(row.dtype).tiny
    fluctuation = jnp.log(fluctuation + tiny)
    relative = fluctuation - running_median(fluctuation[None], size)[0]
    defective = _widened(_outliers(relative) & (jnp.abs(relative) > np.log(_FACTOR)))
    return _interpolated(row, defective), defective


def _all(row: Float[Array, "view u"], size: int) -> tuple[Array, Array]:
    columns = row.shape[1]
    row, dead = _dead(row, _odd(_SIZES["dead"], columns))
    row, large = _large(row, _odd(max(_SIZES["large"], size), columns))
    return _sorting(row, size)[0], dead | large


def _fourier_wavelet(row: Float[Array, "view u"], size: int) -> tuple[Array, Array]:
    """Details up to the width of the widest stripe lose their constant part along the views."""
    views, columns = row.shape
    levels = max(1, int(np.ceil(np.log2(size))) + 1)
    low = daubechies(_WAVELET)
    # Mirrored at the ends, to a length that can be halved on every level; the transform is periodic.
    margin = min(columns - 1, 2 * _WAVELET * 2 ** (levels - 1))
    width = -(-(columns + 2 * margin) // 2**levels) * 2**levels
    coarse = jnp.pad(row, ((0, 0), (margin, width - columns - margin)), mode="symmetric")
    cycles = np.arange(views + 1) / 2
    keep = jnp.asarray(1 - np.exp(-(cycles**2) / (2 * _CYCLES**2)), row.dtype)
    details = []
    for _ in range(levels):
        coarse, detail = wavelet_split(coarse, low)
        both_ways = jnp.concatenate([detail, detail[::-1]])
        spectrum = jnp.fft.rfft(both_ways, axis=0) * keep[:, None]
        details.append(jnp.fft.irfft(spectrum, 2 * views, axis=0)[:views].astype(row.dtype))
    for detail in reversed(details):
        coarse = wavelet_join(coarse, detail, low)
    return coarse[:, margin : margin + columns], jnp.zeros(columns, bool)


_METHODS: dict[str, Callable[[Any, int], tuple[Array, Array]]] = {
    "sorting": _sorting,
    "fourier-wavelet": _fourier_wavelet,
    "large": _large,
    "dead": _dead,
    "all": _all,
}


# ---------------------------------------------------------------------------------------------------- tools
def _outliers(figure: Float[Array, " u"]) -> Bool[Array, " u"]:
    """Columns further from the median than robust standard deviations allow."""
    deviation = jnp.abs(figure - jnp.median(figure))
    spread = 1.4826 * jnp.median(deviation)
    return deviation > _SIGMAS * spread + 1e-6 * jnp.max(jnp.abs(figure))


def _widened(defective: Bool[Array, " u"]) -> Bool[Array, " u"]:
    """One column more on either side: the edge of a stripe is wrong too."""
    edge = jnp.pad(defective, 1)
    return edge[:-2] | edge[1:-1] | edge[2:]


def _interpolated(row: Float[Array, "view u"], missing: Bool[Array, " u"]) -> Float[Array, "view u"]:
    """Columns that are missing from the nearest ones that are not, linearly."""
    last = row.shape[1] - 1
    at = jnp.arange(last + 1)
    left = jax.lax.cummax(jnp.where(missing, -1, at))
    right = jax.lax.cummin(jnp.where(missing, last + 1, at), reverse=True)
    left, right = jnp.where(left < 0, right, left), jnp.where(right > last, left, right)
    left, right = jnp.clip(left, 0, last), jnp.clip(right, 0, last)
    share = ((at - left) / jnp.maximum(right - left, 1)).astype(row.dtype)
    return jnp.where(missing, row[:, left] * (1 - share) + row[:, right] * share, row)


def _running_mean(row: Float[Array, "view u"], size: int) -> Float[Array, "view u"]:
    """Along the views; windows are cut at the ends."""
    size = min(size, row.shape[0])
    window = jnp.ones(size, row.dtype)
    total = jax.vmap(lambda column: jnp.convolve(column, window, mode="same"), 1, 1)(row)
    return total / jnp.convolve(jnp.ones(row.shape[0], row.dtype), window, mode="same")[:, None]


def running_median(values: Float[Array, "view u"], size: int) -> Float[Array, "view u"]:
    """Median of an odd number of neighbours along u, exact; mirrored at the ends.

    Floats in the order of their bit patterns are bisected bit by bit, counting how many of the window lie below: one
    fused loop of comparisons for any size, where a sort of every window would be ten times slower in XLA.
    """
    reach, columns = size // 2, values.shape[1]
    bits = 8 * values.dtype.itemsize
    integer = jnp.int64 if bits == 64 else jnp.int32
    flip = np.asarray(np.iinfo(integer).max, integer)
    # Adding zero turns -0 into +0; negative floats count down in their bits.
    pattern = jax.lax.bitcast_convert_type(values + 0, integer)
    keys = jnp.pad(jnp.where(pattern < 0, pattern ^ flip, pattern), ((0, 0), (reach, reach)), mode="symmetric")

    def halve(_, ends):
        low, high = ends
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        below = sum((keys[:, i : i + columns] <= middle).astype(jnp.int32) for i in range(size))
        enough = below > reach
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    ends = (jnp.full(values.shape, np.iinfo(integer).min, integer), jnp.full(values.shape, flip))
    median = jax.lax.fori_loop(0, bits, halve, ends)[1]
    return jax.lax.bitcast_convert_type(jnp.where(median < 0, median ^ flip, median), values.dtype)
