"""What is known beforehand, as a number to add to a cost functional. Plain functions of one array, real or complex, of
any dimension; each is a mean over the elements, so that its size does not depend on the size of the image.

Differences are forward differences between neighbours; nothing is assumed beyond the border (no wrap-around). `axes`
names the axes to difference along, all by default: `axes=(-2, -1)` treats a stack image by image.

Proximal maps solve `argmin_y 1/2 sum |y - x|^2 + weight sum f(y)`: with the sum, not the mean, as proximal solvers
need it.

For those solvers (`solvers.fista`, `solvers.primal_dual`) there are the same ideas as objects, without smoothing:
`TotalVariation`, `GeneralisedVariation`, `DirectionalVariation`, `WaveletSparsity`. Each is
`f(x) = min_w max_p Re<K(x, w), p> - h(p)` with a linear K, and works on arrays (..., y, x) of any dimension.
"""

import dataclasses
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Inexact, PyTree
from numpy.typing import ArrayLike

from .errors import InputError

__all__ = [
    "DirectionalVariation",
    "GeneralisedVariation",
    "SparseEdges",
    "TotalVariation",
    "WaveletSparsity",
    "dirichlet",
    "l1",
    "laplacian",
    "prox_l1",
    "tikhonov",
    "tv",
]

Axes = Sequence[int] | None


def tv(x: Inexact[Array, "..."], *, eps: float = 1e-3, isotropic: bool = True, axes: Axes = None) -> Float[Array, ""]:
    """Total variation: mean over the pixels of `sqrt(sum over axes |difference|^2 + eps^2) - eps` (Rudin, Osher &
    Fatemi 1992).

    Smoothed: a step well above `eps` (in units of `x`) costs its height, one well below it costs height^2 / (2 eps),
    so that the gradient exists everywhere. `isotropic=False` adds the axes one by one, `sum over axes
    sqrt(|difference|^2 + eps^2) - eps`, which prefers edges along the axes.

    ```python
    step = jnp.zeros((4, 4)).at[:, 2:].set(1.0)
    assert abs(tv(step, eps=1e-6) - 4 / 16) < 1e-5
    ```
    """
    squares = jnp.stack([_square(d) for d in _differences(x, axes)])
    if isotropic:
        squares = jnp.sum(squares, 0, keepdims=True)
    return jnp.mean(jnp.sum(jnp.sqrt(squares + eps**2) - eps, 0))


@dataclasses.dataclass(frozen=True)
class SparseEdges:
    """Minus the logarithm of the prior of an image with sparse edges, in units of half the log-likelihood a number.

    Steps d between neighbouring pixels have the density `weight^2 exp(-weight |d|) / 2 pi`. A weight that is not given
    is taken out at its most likely value, 2 / mean |d|: the prior becomes `2 pixels log(mean |d|)`, which knows no
    scale.

    **Fields:** `weight` [1/step], or `None`; `pixels` of the image (or of each of a stack) that count; `measured`:
    numbers that the data hold; `small`: steps below this one count as flat.
    """

    weight: float | None
    pixels: int
    measured: int
    small: float = 1e-2

    def __call__(self, image: Inexact[Array, "*stack y x"]) -> Float[Array, ""]:
        """Give the prior of an image, to be added to a mean over the data."""
        planes = image.size / (image.shape[-1] * image.shape[-2])
        total = tv(image, eps=self.small, axes=(-2, -1)) * image.size
        if self.weight is not None:
            return self.weight * total / (2 * self.measured)
        count = self.pixels * planes
        return count / self.measured * jnp.log(total / count + self.small)


def dirichlet(x: Inexact[Array, "..."], *, axes: Axes = None) -> Float[Array, ""]:
    """Half the mean square of the gradient, `1/2 mean(sum over axes |difference|^2)`: smooth images.

    ```python
    assert dirichlet(jnp.array([0.0, 2.0])) == 1.0
    ```
    """
    return 0.5 * jnp.mean(sum(_square(d) for d in _differences(x, axes)))


def laplacian(x: Inexact[Array, "..."], *, axes: Axes = None) -> Float[Array, ""]:
    """Half the mean square of the Laplacian, `1/2 mean |L x|^2` with `L = -D'D`: ramps cost only at the border.

    ```python
    assert laplacian(jnp.ones((3, 3))) == 0.0
    ```
    """
    return 0.5 * jnp.mean(_square(_laplacian(x, axes)))


def tikhonov(x: Inexact[Array, "..."], reference: Inexact[Array, "..."] | float = 0.0) -> Float[Array, ""]:
    """Half the mean square distance from a reference, `1/2 mean |x - reference|^2`.

    ```python
    assert tikhonov(jnp.array([2.0, 0.0])) == 1.0
    ```
    """
    return 0.5 * jnp.mean(_square(x - reference))


def l1(x: Inexact[Array, "..."], *, eps: float = 0.0) -> Float[Array, ""]:
    """Mean modulus, `mean(sqrt(|x|^2 + eps^2) - eps)`: few elements differ from zero.

    With `eps = 0` it is exact and its gradient at zero is zero; smoothed optimisers want `eps > 0` (in units of `x`).

    ```python
    assert l1(jnp.array([3.0 + 4.0j, 0.0])) == 2.5
    ```
    """
    if eps:
        return jnp.mean(jnp.sqrt(_square(x) + eps**2) - eps)
    return jnp.mean(_modulus(x))


# ---------------------------------------------------------------------------------------------------- proximal maps
def prox_l1(x: Inexact[Array, "..."], weight: float | Array) -> Inexact[Array, "..."]:
    """Soft threshold: `argmin_y 1/2 sum |y - x|^2 + weight sum |y|`; the phase of complex numbers stays.

    ```python
    assert jnp.allclose(prox_l1(jnp.array([3.0, -0.5]), 1.0), jnp.array([2.0, 0.0]))
    ```
    """
    modulus = _modulus(x)
    return x * (jnp.maximum(modulus - weight, 0) / jnp.where(modulus > 0, modulus, 1))


# ---------------------------------------------------------------------------------------------------- objects
class _Dual(eqx.Module):
    """A penalty `f(x) = max_p Re<K x, p> - h(p)`: what a proximal solver asks of it.

    `analyse` is K, `synthesise` its transpose, `shrink(p, sigma)` the proximal map of sigma h, `bound` >= |K|^2, `cost`
    the sum over the pixels.
    """

    weight: Float[Array, ""]

    def scaled(self, weight: ArrayLike) -> Any:
        """The same penalty with another weight."""
        return eqx.tree_at(lambda p: p.weight, self, jnp.asarray(weight, self.weight.dtype))

    def start(self, x: Inexact[Array, "..."]) -> PyTree:
        """The dual variable at rest."""
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(self.analyse, x))

    def analyse(self, x: Any) -> Any:
        """K x."""
        raise NotImplementedError

    def synthesise(self, dual: Any) -> Any:
        """The transpose K'p."""
        raise NotImplementedError

    def shrink(self, dual: Any, sigma: ArrayLike) -> Any:
        """Proximal map of `sigma h`."""
        raise NotImplementedError

    def bound(self, x: Any) -> float | Array:
        """No less than |K|^2."""
        raise NotImplementedError

    def cost(self, x: Any) -> Any:
        """f(x), a sum over the pixels."""
        raise NotImplementedError

    @eqx.filter_jit
    def prox(
        self,
        x: Inexact[Array, "..."],
        step: ArrayLike,
        state: PyTree,
        *,
        steps: int = 3,
        bounds: tuple[float | None, float | None] | None = None,
    ) -> tuple[Inexact[Array, "..."], PyTree]:
        """`argmin_y 1/2 |y - x|^2 + step f(y)` within bounds, and the dual variable to begin the next call with.

        Fast gradient projection on the dual (Beck & Teboulle, IEEE Trans. Image Process. 18, 2419 (2009)): inexact, the
        error falls as `1 / steps^2`, and from call to call where the dual is handed on.
        """
        step = jnp.asarray(step, x.real.dtype)
        sigma = 1 / (self.bound(x) * jnp.maximum(step, jnp.finfo(step.dtype).tiny ** 0.5))

        def primal(dual: PyTree) -> Array:
            return _clip(x - step * self.synthesise(dual), bounds)

        def body(_, carry):
            dual, ahead, momentum = carry
            raised = jax.tree.map(lambda p, k: p + sigma * k, ahead, self.analyse(primal(ahead)))
            new = self.shrink(raised, sigma)
            following = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
            speed = (momentum - 1) / following
            return new, jax.tree.map(lambda n, o: n + speed * (n - o), new, dual), following

        first = (state, state, jnp.ones((), x.real.dtype))
        dual = jax.lax.fori_loop(0, steps, body, first)[0]
        return primal(dual), dual


class TotalVariation(_Dual):
    """`weight sum over pixels |gradient|` (Rudin, Osher & Fatemi 1992), not smoothed: flat regions and sharp edges.

    **Arguments:** `weight`, in units of data^2 / x for a least-squares term `1/2 |A x - b|^2`; `axes` to difference
    along, all by default; `isotropic=False` adds the axes one by one; `huber` [units of x]: gradients below it are
    penalised quadratically (`g^2 / (2 huber)`, Huber), which leaves smooth slopes without steps.

    ```python
    penalty = TotalVariation(0.2)
    image = jnp.array([0.0, 0.0, 1.0, 1.0])
    flatter, _ = penalty.prox(image, 1.0, penalty.start(image), steps=100)
    ```
    """

    huber: Float[Array, ""]
    axes: tuple[int, ...] | None = eqx.field(static=True)
    isotropic: bool = eqx.field(static=True)

    def __init__(self, weight: ArrayLike = 1.0, *, axes: Axes = None, isotropic: bool = True, huber: ArrayLike = 0.0):
        self.weight, self.huber = _positive(weight, "weight"), _positive(huber, "huber")
        self.axes, self.isotropic = None if axes is None else tuple(axes), isotropic

    def analyse(self, x):
        return tuple(_differences(x, _long_axes(x, self.axes)))

    def synthesise(self, dual):
        return _undo_differences(dual, _long_axes(dual[0], self.axes))

    def shrink(self, dual, sigma):
        weight = jnp.maximum(self.weight, 1e-30).astype(dual[0].real.dtype)
        damp = 1 / (1 + jnp.asarray(sigma) * self.huber.astype(weight.dtype) / weight)
        return _to_ball([p * damp for p in dual], weight, self.isotropic)

    def bound(self, x):
        return 4.0 * len(_long_axes(x, self.axes))

    def cost(self, x):
        squares = [_square(d) for d in self.analyse(x)]
        lengths = [jnp.sqrt(sum(squares))] if self.isotropic else [jnp.sqrt(s) for s in squares]
        return self.weight * sum(jnp.sum(_huber(length, self.huber)) for length in lengths)


class DirectionalVariation(_Dual):
    """`weight sum over pixels sum over k |direction_k . gradient|`: edges along, or structures in, known directions.

    **Arguments:** `weight`; `directions` `(k, axes)`: vectors whose components belong to the last axes of the image,
    (y, x) for two; their lengths are relative weights. Changes along a long vector are expensive, across it free.

    ```python
    layers = DirectionalVariation(0.1, [[0.0, 1.0], [0.1, 0.0]])   # constant along x, nearly free along y
    ```
    """

    directions: Float[Array, "direction axis"]

    def __init__(self, weight: ArrayLike, directions: ArrayLike):
        array = np.asarray(directions, np.float64)
        if array.ndim != 2 or array.size == 0 or not np.isfinite(array).all():
            raise InputError(f"directions must be a list of finite vectors, got an array of shape {array.shape}")
        self.weight, self.directions = _positive(weight, "weight"), jnp.asarray(array, jnp.zeros(()).dtype)

    def _mixed(self, fields: Sequence[Array], table: Array) -> tuple[Array, ...]:
        table = table.astype(fields[0].real.dtype)
        return tuple(jnp.tensordot(row, jnp.stack(fields), 1) for row in table)

    def _last_axes(self, x: Array) -> range:
        return range(x.ndim - self.directions.shape[1], x.ndim)

    def analyse(self, x):
        return self._mixed(_differences(x, self._last_axes(x)), self.directions)

    def synthesise(self, dual):
        return _undo_differences(self._mixed(dual, self.directions.T), self._last_axes(dual[0]))

    def shrink(self, dual, sigma):
        return _to_ball(dual, self.weight.astype(dual[0].real.dtype), isotropic=False)

    def bound(self, x):
        # each component of a gradient is at most twice the largest value
        return 4.0 * jnp.sum(jnp.sum(jnp.abs(self.directions), 1) ** 2)

    def cost(self, x):
        return self.weight * sum(jnp.sum(jnp.abs(f)) for f in self.analyse(x))


class GeneralisedVariation(_Dual):
    """Total generalised variation of second order, `weight min_w sum |gradient - w| + ratio |E w|` with the symmetrised
    gradient E (Bredies, Kunisch & Pock, SIAM J. Imaging Sci. 3, 492 (2010)): sharp edges without steps on slopes.

    **Arguments:** `weight` as of `TotalVariation`; `ratio` of the second-order part [pixel]: 1 to 3; `axes`.

    Its auxiliary field w is an unknown of `primal_dual`, and of the inner loop of `prox`.

    ```python
    ramp = jnp.linspace(0.0, 1.0, 16)[None] * jnp.ones((16, 1))
    penalty = GeneralisedVariation(0.1)
    assert float(jnp.abs(penalty.prox(ramp, 1.0, penalty.start(ramp), steps=200)[0] - ramp).max()) < 0.01
    ```
    """

    ratio: Float[Array, ""]
    axes: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, weight: ArrayLike = 1.0, *, ratio: ArrayLike = 2.0, axes: Axes = None):
        self.weight, self.ratio = _positive(weight, "weight"), _positive(ratio, "ratio")
        self.axes = None if axes is None else tuple(axes)

    def auxiliary(self, x: Inexact[Array, "..."]) -> PyTree:
        """The field w at rest."""
        return tuple(jnp.zeros_like(x) for _ in _long_axes(x, self.axes))

    def start(self, x):
        """Dual variable, auxiliary field, and both extrapolated."""
        field = self.auxiliary(x)
        dual = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(self.analyse, (x, field)))
        return dual, field

    def analyse(self, x):
        """Take the differences `(gradient - field, E field)` of an image and a field."""
        image, field = x
        axes = _long_axes(image, self.axes)
        first = tuple(d - _inner(w, a) for d, w, a in zip(_differences(image, axes), field, axes, strict=True))
        second = [_inner(_differences(w, (a,))[0], a, 2) for w, a in zip(field, axes, strict=True)]
        for i, j in combinations(range(len(axes)), 2):
            both = _inner(_differences(field[i], (axes[j],))[0], axes[i])
            both = both + _inner(_differences(field[j], (axes[i],))[0], axes[j])
            # off-diagonal elements count twice in the norm of a symmetric matrix: sqrt(2) / 2
            second.append(both * 0.5**0.5)
        return first, tuple(second)

    def synthesise(self, dual):
        first, second = dual
        axes = _long_axes(first[0], self.axes)
        image = _undo_differences(first, axes)
        field = [-_inner(p, a) for p, a in zip(first, axes, strict=True)]
        for i, a in enumerate(axes):
            field[i] = field[i] - _divergence(_inner(second[i], a, 2), a)
        for (i, j), entry in zip(combinations(range(len(axes)), 2), second[len(axes) :], strict=True):
            field[i] = field[i] - _divergence(_inner(entry * 0.5**0.5, axes[i]), axes[j])
            field[j] = field[j] - _divergence(_inner(entry * 0.5**0.5, axes[j]), axes[i])
        return image, tuple(field)

    def shrink(self, dual, sigma):
        weight = self.weight.astype(dual[0][0].real.dtype)
        return _to_ball(dual[0], weight, True), _to_ball(dual[1], weight * self.ratio.astype(weight.dtype), True)

    def bound(self, x):
        # c = |D|^2 >= |E|^2, and K = [[D, -1], [0, E]]: the largest eigenvalue of [[c + 1, c^1/2], [c^1/2, c]].
        image = x[0] if isinstance(x, tuple) else x
        count = 4.0 * len(_long_axes(image, self.axes))
        return 0.5 * (2 * count + 1 + np.sqrt(4 * count + 1))

    def cost(self, x):
        """Measure an image and its field."""
        first, second = self.analyse(x)
        length = lambda parts: jnp.sum(jnp.sqrt(sum(_square(p) for p in parts)))
        return self.weight * (length(first) + self.ratio * length(second))

    @eqx.filter_jit
    def prox(self, x, step, state, *, steps=3, bounds=None):
        """Take a proximal step, by steps of Chambolle & Pock's algorithm on image and field together."""
        dual, field = state
        step = jnp.asarray(step, x.real.dtype)
        # image : dual = step : 1 / step, the balance of the dual method above
        tau = jnp.maximum(step, jnp.finfo(step.dtype).tiny ** 0.5)
        sigma = 1 / (self.bound(x) * tau)

        def body(_, carry):
            (image, field), ahead, dual = carry
            dual = self.shrink(jax.tree.map(lambda p, k: p + sigma * k, dual, self.analyse(ahead)), sigma)
            down, across = self.synthesise(dual)
            new = _clip((image - tau * down + x) / 2, bounds)
            new_field = tuple(w - tau * g for w, g in zip(field, across, strict=True))
            ahead = (2 * new - image, tuple(2 * n - w for n, w in zip(new_field, field, strict=True)))
            return (new, new_field), ahead, dual

        first = (_clip(x - step * self.synthesise(dual)[0], bounds), field)
        (image, field), _, dual = jax.lax.fori_loop(0, steps, body, (first, first, dual))
        return image, (dual, field)


class WaveletSparsity(_Dual):
    """`weight sum |detail coefficients|` of Daubechies' orthogonal wavelets along the last two axes.

    One shift of the image against the grid of the wavelets is taken a step, another one each time (Coifman & Donoho
    1995: cycle spinning), so that no blocks remain; `f` is then the mean over all shifts in effect. The image is
    periodic; axes must be even, and are halved `levels` times or as long as they are even.

    **Arguments:** `weight`; `order` 1 (Haar) to 4: number of vanishing moments; `levels`.

    ```python
    penalty = WaveletSparsity(0.1, order=2)
    image = jnp.ones((32, 32))
    same, state = penalty.prox(image, 1.0, penalty.start(image))
    ```
    """

    order: int = eqx.field(static=True)
    levels: int = eqx.field(static=True)

    def __init__(self, weight: ArrayLike = 1.0, *, order: int = 2, levels: int = 4):
        if order not in _DAUBECHIES or levels < 1:
            raise InputError(f"wavelets of order {order}, levels {levels}: give order 1 to 4 and at least one level")
        self.weight, self.order, self.levels = _positive(weight, "weight"), order, levels

    def _depth(self, x: Array) -> int:
        depth = 0
        while depth < self.levels and all(n % 2 ** (depth + 1) == 0 and n >> depth >= 2 for n in x.shape[-2:]):
            depth += 1
        if depth == 0:
            raise InputError(f"wavelets need an even number of rows and columns, not {x.shape[-2:]}")
        return depth

    def analyse(self, x):
        """Details of each level, finest first; the last entry is the smooth rest."""
        parts, smooth = [], x
        for _ in range(self._depth(x)):
            bands = [_split(half, self.order, -2) for half in _split(smooth, self.order, -1)]
            smooth = bands[0][0]
            parts.append((bands[0][1], bands[1][0], bands[1][1]))
        return (*parts, smooth)

    def synthesise(self, dual):
        smooth = dual[-1]
        for low_high, high_low, high_high in reversed(dual[:-1]):
            low = _join(smooth, low_high, self.order, -2)
            high = _join(high_low, high_high, self.order, -2)
            smooth = _join(low, high, self.order, -1)
        return smooth

    def shrink(self, dual, sigma):
        weight = self.weight.astype(dual[-1].real.dtype)
        details = tuple(tuple(_to_ball(band, weight, isotropic=False)) for band in dual[:-1])
        return (*details, jnp.zeros_like(dual[-1]))

    def bound(self, x):
        return 1.0

    def cost(self, x):
        return self.weight * sum(jnp.sum(jnp.abs(band)) for level in self.analyse(x)[:-1] for band in level)

    def start(self, x):
        """Number of calls so far: it chooses the shift."""
        self._depth(x)
        return jnp.zeros((), jnp.int32)

    @eqx.filter_jit
    def prox(self, x, step, state, *, steps=1, bounds=None):
        """Exact but for bounds: the transform is orthogonal, so that its proximal map is a soft threshold."""
        span = 2 ** self._depth(x)
        # Multiples of odd numbers near span times the golden section: every shift once, far from the one before.
        shifts = [(state * k) % span for k in (_odd(span * 0.618), _odd(span * 0.382))]
        moved = jnp.roll(x, shifts, (-2, -1))
        weight = jnp.asarray(step, x.real.dtype) * self.weight.astype(x.real.dtype)
        *details, smooth = self.analyse(moved)
        kept = [tuple(prox_l1(band, weight) for band in level) for level in details]
        back = jnp.roll(self.synthesise((*kept, smooth)), [-s for s in shifts], (-2, -1))
        return _clip(back, bounds), state + 1


def _odd(x: float) -> int:
    return 2 * round((x - 1) / 2) + 1


def _positive(value: ArrayLike, name: str) -> Float[Array, ""]:
    value = jnp.asarray(value, jnp.zeros(()).dtype)
    if not isinstance(value, Tracer) and not (value.ndim == 0 and 0 <= float(value) < np.inf):
        raise InputError(f"the {name} of a penalty must be one finite number, 0 or more, not {value}")
    return value


def _clip(x: Array, bounds: tuple[float | None, float | None] | None) -> Array:
    return x if bounds is None or bounds == (None, None) else jnp.clip(x, *bounds)


def _to_ball(parts: Sequence[Array], radius: Array, isotropic: bool) -> tuple[Array, ...]:
    """Each pixel's vector (or each of its components) no longer than the radius."""
    squares = [_square(p) for p in parts]
    squares = [sum(squares)] * len(squares) if isotropic else squares
    # radius 0 gives 0: the small number only keeps 0/0 out
    shorter = [radius * jax.lax.rsqrt(jnp.maximum(jnp.maximum(s, radius**2), 1e-36)) for s in squares]
    return tuple(p * f for p, f in zip(parts, shorter, strict=True))


def _huber(length: Array, eps: Array) -> Array:
    return jnp.where(length > eps, length - eps / 2, length**2 / (2 * jnp.maximum(eps, 1e-30)))


# Low-pass filters of Daubechies' wavelets with 1 to 4 vanishing moments (Ten Lectures on Wavelets, 1992, table 6.1,
# times sqrt(2)); order 1 and 2 in closed form.
_ROOT3 = float(np.sqrt(3.0))
_DAUBECHIES: dict[int, tuple[float, ...]] = {
    1: (0.5**0.5, 0.5**0.5),
    2: tuple(float(c / np.sqrt(32.0)) for c in (1 + _ROOT3, 3 + _ROOT3, 3 - _ROOT3, 1 - _ROOT3)),
    3: (
        0.3326705529500826,
        0.8068915093110926,
        0.4598775021184915,
        -0.1350110200102546,
        -0.0854412738820267,
        0.0352262918857095,
    ),
    4: (
        0.2303778133088965,
        0.7148465705529157,
        0.6308807679298589,
        -0.0279837694168599,
        -0.1870348117190930,
        0.0308413818355607,
        0.0328830116668852,
        -0.0105974017850690,
    ),
}


def _filters(order: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    low = _DAUBECHIES[order]
    return low, tuple((-1) ** k * low[-1 - k] for k in range(len(low)))


def _split(x: Array, order: int, axis: int) -> tuple[Array, Array]:
    """Smooth and detail halves along an axis, periodic."""
    x = jnp.moveaxis(x, axis, -1)
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    out = []
    for taps in _filters(order):
        shifted = [jnp.roll(pairs[..., k % 2], -(k // 2), -1) * tap for k, tap in enumerate(taps)]
        out.append(jnp.moveaxis(sum(shifted[1:], shifted[0]), -1, axis))
    return out[0], out[1]


def _join(smooth: Array, detail: Array, order: int, axis: int) -> Array:
    """The transpose of `_split`, which is its inverse."""
    halves = [jnp.moveaxis(h, axis, -1) for h in (smooth, detail)]
    parity = []
    for p in (0, 1):
        terms = [
            jnp.roll(half, k // 2, -1) * taps[k]
            for half, taps in zip(halves, _filters(order), strict=True)
            for k in range(p, len(taps), 2)
        ]
        parity.append(sum(terms[1:], terms[0]))
    joined = jnp.stack(parity, -1)
    return jnp.moveaxis(joined.reshape(*joined.shape[:-2], -1), -1, axis)


# ---------------------------------------------------------------------------------------------------- differences
def _square(x: Array) -> Array:
    return jnp.real(x * jnp.conj(x))


def _modulus(x: Array) -> Array:
    """|x| whose gradient at zero is zero, also for complex numbers."""
    square = _square(x)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def _axes(x: Array, axes: Axes) -> tuple[int, ...]:
    return tuple(range(x.ndim)) if axes is None else tuple(a % x.ndim for a in axes)


def _differences(x: Array, axes: Axes) -> list[Array]:
    """Forward differences in the shape of `x`; zero at the far border."""
    return [d for d, _ in _with_axes(x, axes)]


def _with_axes(x: Array, axes: Axes) -> list[tuple[Array, int]]:
    repeat_last = lambda axis: jax.lax.slice_in_dim(x, x.shape[axis] - 1, None, axis=axis)
    return [(jnp.diff(x, axis=axis, append=repeat_last(axis)), axis) for axis in _axes(x, axes)]


def _laplacian(x: Array, axes: Axes) -> Array:
    total = jnp.zeros_like(x)
    for difference, axis in _with_axes(x, axes):
        total += _divergence(difference, axis)
    return total


def _divergence(field: Array, axis: int) -> Array:
    """Minus the transpose of the forward difference along one axis; the last slice of `field` is not used."""
    inner = jax.lax.slice_in_dim(field, 0, field.shape[axis] - 1, axis=axis)
    border = [(0, 0)] * field.ndim
    border[axis] = (1, 1)
    return jnp.diff(jnp.pad(inner, border), axis=axis)


def _long_axes(x: Array, axes: Axes) -> tuple[int, ...]:
    """The axes that have neighbours to differ from."""
    return tuple(a for a in _axes(x, axes) if x.shape[a] > 1) or _axes(x, axes)[-1:]


def _undo_differences(fields: Sequence[Array], axes: Sequence[int]) -> Array:
    """The transpose of `_differences`."""
    total = jnp.zeros_like(fields[0])
    for field, axis in zip(fields, axes, strict=True):
        total = total - _divergence(field, axis)
    return total


def _inner(x: Array, axis: int, count: int = 1) -> Array:
    """Zero in the last slices along an axis, where a difference has no neighbour."""
    shape = [1] * x.ndim
    shape[axis] = -1
    return x * jnp.asarray(np.arange(x.shape[axis]) < x.shape[axis] - count, x.real.dtype).reshape(shape)
