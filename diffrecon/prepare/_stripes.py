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

_SIGMAS = 5.0  # robust standard deviations from the other columns that make a column defective
_FACTOR = 2.0  # and at least this much more or less fluctuation than its neighbours, for a dead column
_FOLLOWS = 0.4  # of the neighbours' variation along the views that a living column has at least
_THROUGHOUT = 0.4  # share of the sorted values of a large stripe that deviate in its direction
_SMOOTH = 11  # views over which the fluctuation of a column is measured
_WAVELET = 5  # vanishing moments
_CYCLES = 0.5  # standard deviation [cycles a scan] of what counts as constant along a stripe
_SIZES = {"sorting": 11, "fourier-wavelet": 4, "large": 61, "dead": 51, "all": 11}
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
      `"sorting"`: each column is sorted along the views, what sorted columns have of their own against `size` columns
      around is taken off, and every value goes back to its view (N. T. Vo, R. C. Atwood and M. Drakopoulos, Opt.
      Express 26, 28396 (2018), algorithm 3, with a parabola beside the median so that maxima of the sample stay):
      partial and full stripes narrower than half of `size`, no parameter that depends on the sample.
      `"fourier-wavelet"`: in the details of a wavelet transform across the columns, what stays constant along the views
      is damped (B. Muench, P. Trtik, F. Marone and M. Stampanoni, Opt. Express 17, 8567 (2009)): for straight narrow
      stripes; with wide ones it takes off what is smooth in the sample too.
      `"large"`: columns that stand out from their neighbours by 5 robust standard deviations lose what they have of
      their own when sorted (after Vo 2018, algorithm 5); all others stay as they are.
      `"dead"`: columns that fluctuate along the views much less or more than their neighbours, or do not follow the
      sample as these do, are interpolated (after Vo 2018, algorithm 6).
      `"all"`: dead, large, sorting, in this order.
      `"none"`: nothing.
    - `size`: width of the median across columns, about twice the widest stripe [pixel]; default 11 ("large" 61, "dead"
      51, "all" 51, 61 and 11; at most a tenth of the columns, but 21). For `"fourier-wavelet"` the
      widest stripe itself, default 4.

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
    columns = values.shape[-1]
    return Stripes(*_each_row(values, method, _odd(size, columns) if size else _usual_size(method, columns)))


def _usual_size(method: str, columns: int) -> int:
    """Wide medians only where the detector is wide: on a small one they would span the sample's own structure."""
    return _odd(min(_SIZES[method], max(21, columns // 10)), columns)


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
    stripes = _stripe_part(jnp.take_along_axis(row, order, 0), size)
    return row - _unsorted(stripes, order), jnp.zeros(row.shape[1], bool)


def _stripe_part(ranked: Float[Array, "view u"], size: int) -> Float[Array, "view u"]:
    """Find what the columns of a sorted sinogram have of their own, against a smooth course across the columns.

    The smaller one of the deviations from a running median and from a running parabola where they agree in sign, else
    nothing. A median alone flattens every maximum and minimum of the sample, and leaves rings of its own there; a
    parabola alone rings at the sample's edges. Each is exact where the other fails, and both see a stripe.
    """
    from_median = ranked - running_median(ranked, size)
    usual = 1.4826 * running_median(jnp.abs(from_median), size)
    level = ranked - from_median + jnp.clip(from_median, -2 * usual, 2 * usual)
    from_parabola = ranked - _running_parabola(level, size)
    smaller = jnp.minimum(jnp.abs(from_median), jnp.abs(from_parabola))
    return jnp.where(from_median * from_parabola > 0, jnp.sign(from_median) * smaller, 0)


def _unsorted(values: Float[Array, "view u"], order: Array) -> Float[Array, "view u"]:
    return jnp.zeros_like(values).at[order, jnp.arange(values.shape[1])].set(values, unique_indices=True)


def _large(row: Float[Array, "view u"], size: int) -> tuple[Array, Array]:
    order = jnp.argsort(row, 0)
    ranked = jnp.take_along_axis(row, order, 0)
    stripes = _stripe_part(ranked, size)
    offset = jnp.mean(stripes, 0)
    # The rim of a sample stands out too, but in the highest ranks only.
    throughout = jnp.mean(stripes * jnp.sign(offset) > 0, 0) > _THROUGHOUT
    defective = _widened(_outliers(offset, size) & throughout)
    return row - jnp.where(defective, _unsorted(stripes, order), 0), defective


def _dead(row: Float[Array, "view u"], size: int) -> tuple[Array, Array]:
    smooth = _running_mean(row, _SMOOTH)
    fluctuation = jnp.mean(jnp.abs(row - smooth), 0)
    noisier = _relative(fluctuation, size)
    followed = _relative(jnp.std(smooth, 0) + fluctuation / np.sqrt(_SMOOTH), size)
    shaky = _outliers(noisier, size) & (jnp.abs(noisier) > np.log(_FACTOR))
    idle = _outliers(followed, size) & (followed < np.log(_FOLLOWS))
    defective = _widened(shaky | idle)
    return _interpolated(row, defective), defective


def _relative(figure: Float[Array, " u"], size: int) -> Float[Array, " u"]:
    """Logarithm of a figure of the columns against the median of those around."""
    logs = jnp.log(figure + 1e-3 * jnp.mean(figure) + jnp.finfo(figure.dtype).tiny)
    return logs - running_median(logs[None], size)[0]


def _all(row: Float[Array, "view u"], size: int) -> tuple[Array, Array]:
    columns = row.shape[1]
    row, dead = _dead(row, _usual_size("dead", columns))
    row, large = _large(row, max(_usual_size("large", columns), size))
    return _sorting(row, size)[0], dead | large


def _fourier_wavelet(row: Float[Array, "view u"], size: int) -> tuple[Array, Array]:
    """Details up to the width of the widest stripe lose their constant part along the views."""
    views, columns = row.shape
    levels = int(np.round(np.log2(size))) + 1
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
def _outliers(figure: Float[Array, " u"], size: int) -> Bool[Array, " u"]:
    """Columns further from zero than robust standard deviations allow, those of the columns around or of all."""
    deviation = jnp.abs(figure)
    spread = 1.4826 * jnp.maximum(running_median(deviation[None], size)[0], jnp.median(deviation))
    return deviation > _SIGMAS * spread + 1e-6 * jnp.max(deviation)


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


def _running_parabola(values: Float[Array, "view u"], size: int) -> Float[Array, "view u"]:
    """Value in the middle of the parabola through `size` neighbours along u (A. Savitzky and M. J. E. Golay, Anal.
    Chem. 36, 1627 (1964)); continued by point reflection at the ends."""
    m, at, columns = size // 2, np.arange(size) - size // 2, values.shape[1]
    weights = 3 * (3 * m * (m + 1) - 1 - 5 * at**2) / ((2 * m - 1) * (2 * m + 1) * (2 * m + 3))
    padded = _continued(values, m)
    return jnp.asarray(sum(float(weights[i]) * padded[:, i : i + columns] for i in range(size)))


def _continued(values: Float[Array, "view u"], reach: int) -> Float[Array, "view column"]:
    return jnp.pad(values, ((0, 0), (reach, reach)), mode="reflect", reflect_type="odd")


def running_median(values: Float[Array, "view u"], size: int) -> Float[Array, "view u"]:
    """Median of an odd number of neighbours along u, exact; continued by point reflection at the ends.

    Floats in the order of their bit patterns are bisected bit by bit, counting how many of the window lie below: one
    fused loop of comparisons for any size, where a sort of every window would be ten times slower in XLA.
    """
    reach, columns = size // 2, values.shape[1]
    bits = 8 * values.dtype.itemsize
    integer = jnp.int64 if bits == 64 else jnp.int32
    flip = np.asarray(np.iinfo(integer).max, integer)
    # Adding zero turns -0 into +0; negative floats count down in their bits.
    pattern = jax.lax.bitcast_convert_type(_continued(values, reach) + 0, integer)
    keys = jnp.where(pattern < 0, pattern ^ flip, pattern)

    def halve(_, ends):
        low, high = ends
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        below = sum((keys[:, i : i + columns] <= middle).astype(jnp.int32) for i in range(size))
        enough = below > reach
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    ends = (jnp.full(values.shape, np.iinfo(integer).min, integer), jnp.full(values.shape, flip))
    median = jax.lax.fori_loop(0, bits, halve, ends)[1]
    return jax.lax.bitcast_convert_type(jnp.where(median < 0, median ^ flip, median), values.dtype)
