"""From grids to polar samples and back: tables of the transpose, blocks of slices, and the primitive around them."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Complex, Float, Int, Shaped

from .._rows import take_rows
from ._polar import _complex_of, _fourier_grid, _fourier_grid_transpose, _interpolate, _on_device, _Plan, _Taps

# Cells of the Fourier grid are sorted by the number of samples that reach them; each class is padded to its width.
# More classes pad less and take longer to compile. Narrow classes are one fused loop, wide ones run `_CHUNK` taps at a
# time (a reduction by XLA itself is up to 10 times slower, as it does not keep neighbouring slices in one register).
_CLASS_WIDTHS = (8, 12, 16, 24, 32, 48, 64, 128, 256, 1024)
_CHUNK = 8
_TABLE_LIMIT = 2 << 30  # bytes of adjoint tables above which the adjoint is a scatter
_BLOCK = 8  # slices side by side in the Fourier grid: each entry of the tables then serves a whole cache line
_BLOCK_BYTES = 256 << 20  # of their grids, at most


class _GatherTables(NamedTuple):
    """The transposed interpolation as gathers: for the cells of a class the samples that reach them, padded by weight
    0.

    A scatter-add would be the direct way; XLA runs it on a CPU one number after another, 7 times slower.
    """

    sample: tuple[Int[Array, "width cell"], ...]
    weight: tuple[Float[Array, "width cell"], ...]
    place: Int[Array, " cells"]  # of each cell of the grid in the joined classes; the last place holds 0


def _gather_tables(taps: _Taps, plan: _Plan, dtype: jax.typing.DTypeLike) -> _GatherTables | None:
    """The tables, or `None` where they would take too much memory."""
    if taps.row.size * plan.width**2 * (4 + jnp.dtype(dtype).itemsize) * 1.25 >= _TABLE_LIMIT:
        return None
    cell, weight = _entries(taps, plan)
    order = np.argsort(cell, kind="stable").astype(np.int32)
    degree = np.bincount(cell, minlength=plan.rows * plan.grid_y)
    first = np.cumsum(degree) - degree
    samples, weights, members = [], [], []
    widths = [w for w in _CLASS_WIDTHS if w < degree.max()] + [math.ceil(degree.max() / _CHUNK) * _CHUNK]
    for least, width in zip([0, *widths[:-1]], widths, strict=True):
        cells = np.nonzero((degree > least) & (degree <= width))[0]
        if cells.size == 0:
            continue
        slot = np.arange(width)[:, None]
        used = slot < degree[cells]
        entry = order[first[cells] + np.minimum(slot, degree[cells] - 1)]
        samples.append(_on_device(entry // plan.width**2, np.int32))
        weights.append(_on_device(np.where(used, weight[entry], 0), dtype))
        members.append(cells)
    joined = np.concatenate(members)
    place = np.full(degree.size, joined.size, np.int32)
    place[joined] = np.arange(joined.size)
    return _GatherTables(tuple(samples), tuple(weights), _on_device(place))


def _entries(taps: _Taps, plan: _Plan) -> tuple[np.ndarray, np.ndarray]:
    """Cell and weight of every tap of every sample, sample by sample."""
    tap = np.arange(plan.width, dtype=np.int32)
    row = np.asarray(taps.row).reshape(-1, 1, 1) + tap[:, None]
    column = (np.asarray(taps.column).reshape(-1, 1, 1) + tap) % plan.grid_y
    weight_x, weight_y = (np.asarray(w).reshape(plan.width, -1).T for w in (taps.weight_x, taps.weight_y))
    weight = weight_x[:, :, None] * weight_y[:, None, :]
    return (row * plan.grid_y + column).reshape(-1), weight.reshape(-1)


def _gather_transpose(samples: Shaped[Array, "sample *lane"], tables: _GatherTables) -> Shaped[Array, "cell *lane"]:
    lanes = (1,) * (samples.ndim - 1)
    dtype = samples.real.dtype

    def taps(index: Int[Array, "width cell"], weight: Float[Array, "width cell"]) -> Array:
        weight = weight.astype(dtype).reshape(*weight.shape, *lanes)
        terms = (w * take_rows(samples, i) for i, w in zip(index, weight, strict=True))
        return sum(terms, jnp.zeros((), samples.dtype))

    def chunks(index: Int[Array, "width cell"], weight: Float[Array, "width cell"]) -> Array:
        if index.shape[0] <= 2 * _CHUNK:
            return taps(index, weight)
        parts = tuple(a.reshape(-1, _CHUNK, a.shape[1]) for a in (index, weight))
        empty = jnp.zeros((index.shape[1], *samples.shape[1:]), samples.dtype)
        return lax.scan(lambda total, part: (total + taps(*part), None), empty, parts)[0]

    sums = [chunks(index, weight) for index, weight in zip(tables.sample, tables.weight, strict=True)]
    joined = jnp.concatenate([*sums, jnp.zeros((1, *samples.shape[1:]), samples.dtype)])
    return take_rows(joined, tables.place)


def _scatter_transpose(samples: Shaped[Array, "sample *lane"], taps: _Taps, plan: _Plan) -> Shaped[Array, "cell *lane"]:
    cells = jax.ShapeDtypeStruct((plan.rows * plan.grid_y, *samples.shape[1:]), samples.dtype)
    of_views = samples.reshape(*taps.row.shape, *samples.shape[1:])
    return jax.linear_transpose(lambda g: _interpolate(g, taps, plan.grid_y), cells)(of_views)[0]


# Several slices share the tables: their real and imaginary parts lie side by side, as the last axis of real arrays.
def _lanes(values: Complex[Array, "..."], axis: int) -> Shaped[Array, "..."]:
    """The slices along `axis` -> lanes, the last axis; a single slice stays complex and has none."""
    if values.shape[axis] == 1:
        return jnp.squeeze(values, axis)
    return jnp.moveaxis(jnp.concatenate([values.real, values.imag], axis), axis, -1)


def _from_lanes(lanes: Shaped[Array, "..."], axis: int) -> Complex[Array, "..."]:
    if jnp.iscomplexobj(lanes):
        return jnp.expand_dims(lanes, axis)
    return lax.complex(*jnp.split(jnp.moveaxis(lanes, -1, axis), 2, axis))


def _in_blocks(function: Callable[[Array], Array], stack: Array, size: int, axis: int, made: int) -> Array:
    """`function` of the slices along `axis`, `size` at most at a time; its result has them along axis `made`."""
    count = stack.shape[axis]
    blocks = math.ceil(count / size)
    if blocks == 1:
        return function(stack)
    size = math.ceil(count / blocks)
    missing = [(0, blocks * size - count if a == axis else 0) for a in range(stack.ndim)]
    padded = jnp.pad(stack, missing) if blocks * size > count else stack
    split = padded.reshape(*stack.shape[:axis], blocks, size, *stack.shape[axis + 1 :])
    done = jnp.moveaxis(lax.map(function, jnp.moveaxis(split, axis, 0)), 0, made)
    joined = done.reshape(*done.shape[:made], blocks * size, *done.shape[made + 2 :])
    return lax.slice_in_dim(joined, 0, count, axis=made)


def _one_by_one(function: Callable[[Array], Array], stack: Array) -> Array:
    """On a CPU one slice after another, whose grid stays in the cache (half the time, measured); elsewhere together."""
    if stack.shape[0] == 1 or jax.default_backend() != "cpu":
        return function(stack)
    return lax.map(function, stack)


def _block_size(plan: _Plan, dtype: jax.typing.DTypeLike) -> int:
    """Slices at a time: as many as fill a cache line, as far as their grids take little memory."""
    grid = plan.rows * plan.grid_y * _complex_of(dtype).itemsize
    most = _BLOCK if jax.default_backend() == "cpu" else 2 * _BLOCK
    return max(1, min(most, _BLOCK_BYTES // grid))


# The operator
def _spectrum(A: Any, stack: Float[Array, "z y x"], views: Array | None) -> Complex[Array, "view z radius"]:
    """Polar samples of the slices, with the hand-written transpose attached for reverse mode."""
    leaves, tree = jax.tree.flatten(lax.stop_gradient((A.taps, A.tables, A.rolloff, views)))
    job = _Job(A.plan, A.shape, A.angles.shape[0], tree)
    return _samples_p.bind(*leaves, stack, job=job, transposed=False)


class _Job(NamedTuple):
    """What the primitive below has to know beside its arrays."""

    plan: _Plan
    shape: tuple[int, int]
    views: int
    tree: Any


def _sample_slices(*arrays: Array, job: _Job, transposed: bool) -> Array:
    """Slices -> polar samples or, `transposed`, back; the last array is the stack, the others are the tables."""
    taps, tables, rolloff, views = jax.tree.unflatten(job.tree, arrays[:-1])
    stack, plan = arrays[-1], job.plan
    unfused = partial(_unfused, flag=taps.row[0, 0])
    picked = _picked(taps, views, stack.real.dtype)
    size = _block_size(plan, stack.real.dtype)

    def forward(images: Float[Array, "z y x"]) -> Complex[Array, "view z radius"]:
        cells = _lanes(_one_by_one(lambda image: _fourier_grid(image, rolloff, plan), images), 0)
        cells = cells.reshape(-1, *cells.shape[2:])
        read = partial(_interpolate, taps=picked, grid_y=plan.grid_y)
        return _from_lanes(unfused(read, x=cells, shape=picked.row.shape), 1)

    if not transposed:
        return _in_blocks(forward, stack, size, 0, 1)
    if tables is None or (views is not None and 8 * views.shape[0] < job.views):
        to_cells = partial(_scatter_transpose, taps=picked, plan=plan)
    else:
        to_cells = partial(_gather_transpose, tables=tables)
        stack = stack if views is None else _all_views(stack, views, job.views)

    def back(samples: Complex[Array, "view z radius"]) -> Float[Array, "z y x"]:
        flat = _lanes(samples, 1)
        cells = unfused(to_cells, x=flat.reshape(-1, *flat.shape[2:]), shape=(plan.rows * plan.grid_y,))
        grid = _from_lanes(cells.reshape(plan.rows, plan.grid_y, *cells.shape[1:]), 0)
        return _one_by_one(lambda one: _fourier_grid_transpose(one, rolloff, plan, job.shape), grid)

    return _in_blocks(back, stack, size, 1, 0)


def _picked(taps: _Taps, views: Array | None, dtype: jax.typing.DTypeLike) -> _Taps:
    taps = _Taps(taps.row, taps.column, *(w.astype(dtype) for w in taps[2:]))
    if views is None:
        return taps
    row, column, sign = taps.row[views], taps.column[views], taps.sign[views]
    return _Taps(row, column, taps.weight_x[:, views], taps.weight_y[:, views], sign)


# A primitive, because a linear function with its own transpose that can also be pushed forward and batched is not to
# be had from custom_vjp (no forward mode) or linear_call (no vmap). Linear in its last argument; the tables get no
# gradient.
_samples_p = Primitive("parallel_projection_samples")
_samples_p.def_impl(_sample_slices)
mlir.register_lowering(_samples_p, mlir.lower_fun(_sample_slices, multiple_results=False))


@_samples_p.def_abstract_eval
def _samples_shape(*arrays, job: _Job, transposed: bool):
    dtype = arrays[-1].dtype
    if transposed:
        return ShapedArray((arrays[-1].shape[1], *job.shape), jnp.finfo(dtype).dtype)
    views = jax.tree.unflatten(job.tree, arrays[:-1])[3]
    count = job.views if views is None else views.shape[0]
    return ShapedArray((count, arrays[-1].shape[0], job.plan.period // 2 + 1), _complex_of(dtype))


def _samples_jvp(primals, tangents, **job):
    tangent = ad.instantiate_zeros(tangents[-1])
    return _samples_p.bind(*primals, **job), _samples_p.bind(*primals[:-1], tangent, **job)


def _samples_transpose(cotangent, *arrays, job: _Job, transposed: bool):
    back = _samples_p.bind(*arrays[:-1], cotangent, job=job, transposed=not transposed)
    return [None] * (len(arrays) - 1) + [back]


def _samples_batch(arrays, axes, *, transposed, **job):
    bind = partial(_samples_p.bind, transposed=transposed, **job)
    if any(axis is not None for axis in axes[:-1]):
        moved = [a if axis is None else jnp.moveaxis(a, axis, 0) for a, axis in zip(arrays, axes, strict=True)]
        mapped = [axis is not None for axis in axes]

        def one(some):
            rest = iter(some)
            return bind(*(next(rest) if m else a for a, m in zip(moved, mapped, strict=True)))

        return lax.map(one, [a for a, m in zip(moved, mapped, strict=True) if m]), 0
    # Slices are along axis 0 of volumes and along axis 1 of samples: the batch joins them there.
    axis, made = (1, 0) if transposed else (0, 1)
    stack = jnp.moveaxis(arrays[-1], axes[-1], axis)
    shape, batch = stack.shape, stack.shape[axis : axis + 2]
    joined = bind(*arrays[:-1], stack.reshape(*shape[:axis], -1, *shape[axis + 2 :]))
    return joined.reshape(*joined.shape[:made], *batch, *joined.shape[made + 1 :]), made


ad.primitive_jvps[_samples_p] = _samples_jvp
ad.primitive_transposes[_samples_p] = _samples_transpose
batching.primitive_batchers[_samples_p] = _samples_batch


def _all_views(samples: Complex[Array, "batch z radius"], views: Array, total: int) -> Complex[Array, "view z radius"]:
    return jnp.zeros((total, *samples.shape[1:]), samples.dtype).at[views].add(samples)


def _unfused(function: Callable[[Array], Array], x: Array, flag: Int[Array, ""], shape: tuple[int, ...]) -> Array:
    """`function(x)` with x in memory and its result too, which is of `shape` and the lanes of x.

    XLA's fusion would evaluate whatever made x anew in each of the gathers from it (4 times the time, measured; an
    optimisation barrier is gone before that stage). A branch on a number that only we know (flag >= 0) cannot be fused.
    """
    return lax.cond(flag >= 0, function, lambda _: jnp.zeros((*shape, *x.shape[1:]), x.dtype), x)
