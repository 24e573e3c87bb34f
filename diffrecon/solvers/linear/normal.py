"""Normal equations `A'WA x = A'W b`, with the product as a convolution wherever that is the same thing.

For a parallel beam A'WA is a convolution (`ParallelProjector.normal`) of volumes that every view sees whole. The data
tell whether that is so: where the outer columns of the sinogram hold air, the sample lies in a disc about the axis, and
pixels outside of it are zero.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Inexact

from ...errors import InputError
from ...operators.projection import ParallelProjector
from ..ending import Interrupted
from .iterate import LinearSolution, Operator, Rule, Start, checked_weights, iterate

__all__ = ["NormalEquations", "normal_equations"]

_EDGE = 4  # columns on either side of the detector that are looked at for air
_SMOOTH = 5  # columns averaged against noise before the sample's edge is looked for
_MARGIN = 6.0  # pixels left about the sample
_FAINT = 0.01  # of the largest line integral: less is air
_SIGMAS = 6.0


class NormalEquations(eqx.Module):
    """`N x = rhs`, on a box of pixels that holds the whole sample. Made by `normal_equations`.

    **Fields:** `product`, the function N = A'WA; `rhs` = A'W b; `b_squared` = |b|^2_W; `operator`, the problem that
    they belong to, in the box; `mask`, pixels of the box that may differ from zero (`None`: all); `toeplitz`, whether N
    is a convolution; `message`, what was found and which path is taken; `box`, the rows and columns of the whole slice.
    """

    product: Callable[[Array], Array]
    rhs: Array
    b_squared: Array
    operator: Operator | None
    mask: Array | None
    toeplitz: bool = eqx.field(static=True)
    message: str = eqx.field(static=True)
    box: tuple[tuple[int, int], tuple[int, int]] | None = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    @property
    def problem(self) -> Operator:
        """The problem in the box."""
        assert self.operator is not None, "bare equations have lost their operator"
        return self.operator

    def inside(self, x0: ArrayLike | None) -> Array:
        """A first guess cut to the box; zeros by default."""
        if x0 is None:
            return jnp.zeros_like(self.rhs)
        x0 = jnp.asarray(x0, self.rhs.dtype)
        cut = x0 if self.box is None else x0[..., slice(*self.box[0]), slice(*self.box[1])]
        return cut if self.mask is None else cut * self.mask

    def outside(self, x: Array) -> Array:
        """The whole volume: zeros about the box."""
        if self.box is None:
            return x
        border = [(first, size - last) for (first, last), size in zip(self.box, self.shape[-2:], strict=True)]
        return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + border)

    def bare(self) -> "NormalEquations":
        """Leave out what the steps do not need: problems of other views then share one compiled program."""
        return NormalEquations(
            self.product, self.rhs, self.b_squared, None, self.mask, self.toeplitz, "", self.box, self.shape
        )

    def residual(self, x: Array) -> Array:
        """`A'W(b - A x)`: minus the gradient of `1/2 |A x - b|^2_W`."""
        return self.rhs - self.product(x)

    def misfit(self, x: Array, residual: Array) -> Float[Array, ""]:
        """`|A x - b|_W` from x and its `residual`: rounding and the convolution leave about 1e-3 of |b|."""
        inner = lambda a, b: jnp.real(jnp.vdot(a, b))
        return jnp.sqrt(jnp.maximum(self.b_squared - inner(x, self.rhs) - inner(x, residual), 0))

    def begun(self, x: Array | None) -> tuple[Array, Array]:
        """A first guess, zeros for none, and its residual."""
        return (jnp.zeros_like(self.rhs), self.rhs) if x is None else (x, self.residual(x))

    def start(self, fixed: Any, x: Array, state: Any, residual: Array) -> Start:
        """The start of a solve."""
        return Start(fixed, x, state, jnp.sqrt(self.b_squared), self.misfit(x, residual))

    def solved(self, begin: Any, step: Any, problem: Any, settings: tuple, steps: int, rule: Rule) -> LinearSolution:
        """Iterate, and give what came of it as the whole volume; also after Ctrl-C."""
        try:
            return self.finished(iterate(begin, step, problem, settings, steps, rule))
        except Interrupted as stop:
            raise Interrupted(self.finished(stop.solution)) from stop

    def finished(self, solution: LinearSolution) -> LinearSolution:
        """The whole volume and the exact residual at the end; the history is moved by what it was off."""
        # Eager, here and in `_right`: A is compiled already, and what is used once is not worth a program of its own.
        problem = self.problem
        exact = problem.norm(problem.residual(solution.x))
        size = jnp.sqrt(self.b_squared)
        traced = isinstance(solution.history, Tracer)
        xp, history = (jnp, solution.history) if traced else (np, np.asarray(solution.history))
        last = history[xp.max(xp.where(xp.isfinite(history), xp.arange(history.size), 0))]
        off = xp.asarray(exact / jnp.where(size > 0, size, 1)) ** 2 - last**2
        history = jax.device_put(xp.sqrt(xp.maximum(history**2 + off, 0)))
        message = "; ".join(part for part in (self.message, solution.message) if part)
        return LinearSolution(
            self.outside(solution.x), history, solution.diverged, solution.held_out, message, solution.ended
        )


class _Product(eqx.Module):
    """A'WA as it stands: one forward and one adjoint."""

    operator: Operator
    mask: Array | None

    def __call__(self, x: Array) -> Array:
        out = self.operator.adjoint(self.operator.weighted(self.operator.forward(x)))
        return out if self.mask is None else self.mask * out


class _Convolution(eqx.Module):
    normal: Any
    mask: Array | None

    def __call__(self, x: Array) -> Array:
        out = self.normal(x)
        return out if self.mask is None else self.mask * out


def normal_equations(
    A: Callable,
    b: Inexact[Array, "..."],
    *,
    weights: ArrayLike | None = None,
    x0: ArrayLike | None = None,
    support: float | str = "auto",
) -> NormalEquations:
    """Normal equations of `min |A x - b|^2_W`, as a convolution where it is exact, else one forward and one adjoint.

    It is a convolution for a `ParallelProjector` with weights that are one number a view (or none), and a sample that
    every view sees whole. That is looked for in the data: the outer columns hold air; the radius of the sample about
    the axis is the largest distance at which a smoothed sinogram rises above 1 % of its maximum and six standard
    deviations of the air. The volume outside is then zero and left out, which makes everything faster. `message` says
    what was found.

    **Arguments:** `A`, `b`, `weights`, `x0` as in `cgls`; `support`: `"auto"`, `"exact"` (never a convolution, nothing
    left out) or the radius of the sample about the axis [pixel].

    **Cost:** for the convolution a set-up in NumPy (0.1 s for a sample of 350^2 pixels, 1 s for 640^2); then one padded
    transform pair of the box a product. To make it once for many solves, hand the result to `normal=`. Call it outside
    `jax.jit`: inside, the exact product is taken.

    ```python
    angles = np.linspace(0, np.pi, 60, endpoint=False)
    A = ParallelProjector(angles, (64, 64), 64)
    disc = jnp.asarray(np.hypot(*np.mgrid[-32:32, -32:32]) < 12, jnp.float32)
    equations = normal_equations(A, A(disc))
    assert equations.toeplitz
    ```
    """
    b = jnp.asarray(b)
    per_ray = weights is not None and not _one_a_view(weights, b)
    why_not = _obstacle(A, b, per_ray, support)
    if why_not:
        return _exact(A, b, weights, x0, why_not)
    assert isinstance(A, ParallelProjector)
    radius, air = _sample_radius(A, np.asarray(b)) if isinstance(support, str) else (float(support), True)
    seen, reach = A._seen_radius(), float(np.hypot(*A.shape)) / 2
    if not air and seen < reach - 1:
        return _exact(
            A,
            b,
            weights,
            x0,
            f"exact product: the sample reaches the edge of the detector, {seen:.0f} px from the axis",
        )
    return _convolution(A, b, weights, min(radius, reach) if air else reach, seen)


def _obstacle(A: Callable, b: Array, per_ray: bool, support: float | str) -> str:
    """Why the product is no convolution whatever the data; empty where it may be one."""
    if isinstance(support, str) and support not in ("auto", "exact"):
        raise InputError(f'support = "{support}" is not known: give "auto", "exact" or a radius [pixel]')
    if not isinstance(support, str) and not 0 < support < np.inf:
        raise InputError(f"support = {support} is not a radius [pixel]")
    if type(A) is not ParallelProjector:
        return "exact product: the operator is no parallel-beam projector"
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((A, b))):
        return "exact product: compiled as a whole"
    if support == "exact":
        return "exact product, as asked"
    return "exact product: the weights differ from ray to ray" if per_ray else ""


def _one_a_view(weights: ArrayLike, b: Array) -> bool:
    if isinstance(weights, Tracer):
        return False
    shape = np.shape(weights)
    return shape == () or (shape[0] == b.shape[0] and all(n == 1 for n in shape[1:]))


def _exact(A: Callable, b: Array, weights: ArrayLike | None, x0: ArrayLike | None, message: str) -> NormalEquations:
    operator = Operator.make(A, b, x0, weights)
    operator = eqx.tree_at(lambda o: o.start, operator, jnp.zeros_like(operator.start))
    rhs, b_squared = _right(operator)
    return NormalEquations(_Product(operator, None), rhs, b_squared, operator, None, False, message, None, rhs.shape)


def _convolution(
    A: ParallelProjector, b: Array, weights: ArrayLike | None, radius: float, seen: float
) -> NormalEquations:
    box = [_box(n, radius) for n in A.shape]
    size = [last - first for first, last in box]
    small = A if tuple(size) == A.shape else _resized(A, (size[0], size[1]))
    mask = None
    if float(np.hypot(size[0], size[1])) / 2 > seen + 1:
        y, x = (np.arange(n) - (n - 1) / 2 for n in size)
        mask = jnp.asarray(np.hypot(y[:, None], x[None]) <= min(seen, radius), b.dtype)
    each = None if weights is None else np.ravel(np.asarray(weights, np.float64)) * np.ones(A.angles.shape[0])
    normal = _Convolution(small.normal(each, support=0.0), mask)
    operator = Operator.make(small, b, None, None if each is None else checked_weights(each, b))
    rhs, b_squared = _right(operator)
    rhs = rhs if mask is None else mask * rhs
    message = f"normal equations as a convolution: the sample lies within {radius:.0f} px of the axis"
    if tuple(size) != A.shape or mask is not None:
        message += ", the volume outside is air and zero"
    return NormalEquations(
        normal, rhs, b_squared, operator, mask, True, message, (box[0], box[1]), (*rhs.shape[:-2], *A.shape)
    )


def _right(operator: Operator) -> tuple[Array, Array]:
    return operator.adjoint(operator.weighted(operator.b)), operator.norm(operator.b) ** 2


def _box(n: int, radius: float) -> tuple[int, int]:
    """Rows (or columns) about the middle that hold the disc; a multiple of 16 more or less than n."""
    wanted = 2 * int(np.ceil((radius + 0.5) / 16)) * 16
    cut = max(n - wanted, 0) // 2
    return cut, n - cut


def _resized(A: ParallelProjector, shape: tuple[int, int]) -> ParallelProjector:
    return ParallelProjector(
        A.angles,
        shape,
        A.detector,
        centre=A.centre,
        shifts=A.shifts,
        kernel_width=A.plan.width,
        oversampling=min(A.plan.grid_y / A.shape[0], 4.0),
        dtype=A.centre.dtype,
    )


def _sample_radius(A: ParallelProjector, b: Float[np.ndarray, "view *z u"]) -> tuple[float, bool]:
    """Largest distance from the axis at which a smoothed sinogram is not air [pixel], and whether its edges are air."""
    width = min(_SMOOTH, b.shape[-1] // 8 * 2 + 1)
    lines = b.astype(np.float64).reshape(b.shape[0], -1, b.shape[-1])
    sums = np.cumsum(np.pad(lines, [(0, 0), (0, 0), (width // 2 + 1, width // 2)], mode="edge"), -1)
    smooth = (sums[..., width:] - sums[..., :-width]) / width
    edge = np.concatenate([smooth[..., :_EDGE], smooth[..., -_EDGE:]], -1)
    peak = float(np.abs(smooth).max())
    sigma = 1.4826 * float(np.median(np.abs(edge - np.median(edge))))
    level = abs(float(np.median(edge))) + _FAINT * peak + _SIGMAS * sigma
    loud = np.abs(smooth).max(1) > level
    air = not loud[:, [*range(_EDGE), *range(-_EDGE, 0)]].any() and level < 0.1 * peak
    axis = np.asarray(A.centre, np.float64) + (0.0 if A.shifts is None else np.asarray(A.shifts, np.float64)[:, None])
    distance = np.abs(np.arange(b.shape[-1])[None] - axis)
    radius = float(np.max(np.where(loud, distance, 0.0))) + _MARGIN
    return radius, air
