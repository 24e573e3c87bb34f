"""Which views a step sees, and how their data come to the device: all at once, or read ahead of the steps that need
them.
"""

import dataclasses
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from ... import sharding
from ..._model import Batch, fields_read
from ...errors import InputError
from ...frames import Computed, Entries

_SHARE_OF_MEMORY = 0.5  # of what is free: the model, its gradients and the page cache want the rest
_LEAST_BLOCK = 32 << 20  # bytes of a block however little the user allows: small reads are slow
_HELD_BATCH = 32  # views


class Fields(NamedTuple):
    """What a compiled chunk of steps sees of the data, all of it on the device.

    **Fields:** `per_view` (one entry a training view), `shared` by all views, `block` (one entry for each of the views
    that these steps need), `rows` (step, view of the batch) = where in the block it is.
    """

    per_view: dict[str, Array]
    shared: dict[str, Array]
    block: dict[str, Array]
    rows: Any = None


# ---------------------------------------------------------------------------------------- which views
@dataclasses.dataclass(frozen=True)
class Plan:
    """Which views a step sees; hashable, so that it is part of the compiled program."""

    views: tuple[int, ...]
    batch_size: int | None
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return 1 if self.batch_size is None else -(-len(self.views) // self.batch_size)

    def order(self, step) -> Array:
        """The order of the views in the epoch of a step: a function of seed and epoch alone, so that a resumed run is
        exact.
        """
        if self.batch_size is None:
            return jnp.zeros(0, jnp.int32)
        key = jax.random.fold_in(jax.random.key(self.seed), step // self.steps_per_epoch)
        return jax.random.permutation(key, len(self.views)).astype(jnp.int32)

    def refresh(self, order: Array, step) -> Array:
        if self.batch_size is None:
            return order
        return jax.lax.cond(step % self.steps_per_epoch == 0, lambda: self.order(step), lambda: order)

    def place(self, step, count):
        """Places in the epoch's order of the views of a step."""
        return ((step % self.steps_per_epoch) * count + np.arange(count)) % len(self.views)

    def batch(self, fields: Fields, order: Array, step, row):
        """Views of a step, their fields, and the shared ones; `row` counts the steps of this chunk."""
        if self.batch_size is None:
            # The whole scan: concrete indices, so that operators can see that it is the whole.
            count = len(self.views)
            whole = {k: v[:count] for k, v in fields.per_view.items()}
            return np.asarray(self.views, np.int32), whole, fields.shared
        index = order[self.place(step, self.batch_size)]
        per_view = {k: v[index] for k, v in fields.per_view.items()}
        if fields.block:
            per_view |= {k: v[fields.rows[row]] for k, v in fields.block.items()}
        return jnp.asarray(np.asarray(self.views, np.int32))[index], per_view, fields.shared

    def places(self, first: int, count: int) -> np.ndarray:
        """The training views `(step, view of the batch)` of `count` steps, on the host: those that the device takes."""
        size, epoch, steps = self.batch_size or len(self.views), self.steps_per_epoch, range(first, first + count)
        orders = {n: np.asarray(self.order(n * epoch)) for n in range(steps[0] // epoch, steps[-1] // epoch + 1)}
        return np.stack([orders[step // epoch][self.place(step, size)] for step in steps])


@dataclasses.dataclass(frozen=True)
class Sampler:
    """The data on the host and how they are split into training and held-out views."""

    per_view: Mapping[str, Any]
    shared: Mapping[str, Any]
    plan: Plan
    held: np.ndarray

    @classmethod
    def make(cls, data: Any, batch_size: int | None, held_out: Any, seed: int) -> "Sampler":
        per_view, shared = _split_fields(data)
        count = next(iter(per_view.values())).shape[0] if per_view else 0
        held = np.unique(np.asarray([] if held_out is None else held_out, int))
        if held.size and (held[0] < 0 or held[-1] >= count):
            raise InputError(f"held_out names view {held[-1]}, but the data have {count} views")
        train = np.setdiff1d(np.arange(count), held)
        if count and not train.size:
            raise InputError(f"held_out names all {count} views: none is left to be fitted")
        if batch_size is not None and not per_view:
            raise InputError("batch_size needs data to draw from")
        if batch_size is not None and batch_size >= train.size:
            batch_size = None
        return cls(per_view, shared, Plan(tuple(map(int, train)), batch_size, seed), held)

    def only_read(self, cost: Callable[[Any, Batch], Any], model: Any) -> "Sampler":
        """Leave out fields that are computed when they are read, and that a cost does not read.

        **Cost:** traces the cost once with shapes alone, where there are such fields.
        """
        late = {name for name, values in self.per_view.items() if isinstance(values, Computed)}
        if not late:
            return self
        views = np.asarray(self.plan.views[: self.plan.batch_size], np.int32)
        some = {k: jax.ShapeDtypeStruct((views.size, *v.shape[1:]), v.dtype) for k, v in self.per_view.items()}
        late -= fields_read(cost, model, views, some | dict(self.shared))
        return dataclasses.replace(self, per_view={k: v for k, v in self.per_view.items() if k not in late})

    def not_finite(self) -> str:
        """Name the first data in memory that are not finite where the mask measures, in words; nothing if all are."""
        mask = self.shared.get("mask")
        for name, values in self.per_view.items():
            if not isinstance(values, np.ndarray | jax.Array) or not jnp.issubdtype(values.dtype, jnp.inexact):
                continue
            for view in self.plan.views:
                good = np.isfinite(np.asarray(values[view]))
                good = good if mask is None or np.ndim(mask) > good.ndim else good | ~np.asarray(mask, bool)
                if not good.all():
                    return f"the data hold NaN or infinity: {name} of view {view}"
        return ""

    def total_steps(self, steps: int | None, epochs: float | None) -> int:
        if (steps is None) == (epochs is None):
            raise InputError("say how long: either steps=... or epochs=...")
        return int(steps if steps is not None else round(float(epochs or 0) * self.plan.steps_per_epoch))

    def feed(self, mesh: Mesh | None, resident: float | None) -> "Feed":
        """The data on their way to the devices: what fits at once, the rest read ahead."""
        limit, forced = _limit(resident, mesh), resident is not None
        ahead = _too_big(self.per_view, limit, forced)
        if ahead and self.plan.batch_size is None:
            size = sum(_bytes(self.per_view[name]) for name in ahead)
            raise InputError(
                f"the data take {size / 1e9:.3g} GB, and {limit / 1e9:.3g} GB are kept for them on the "
                "device: give batch_size, so that they are read as they are needed, or more by resident"
            )
        views = np.asarray(self.plan.views)
        training = {k: Entries(v, views) if self.held.size else v for k, v in self.per_view.items()}
        placed = {k: sharding.shard_views(v, mesh) for k, v in training.items() if k not in ahead}
        shared = {k: sharding.replicate(jnp.asarray(v), mesh) for k, v in self.shared.items()}
        return Feed(self, Fields(placed, shared, {}), {k: training[k] for k in ahead}, mesh, limit)


def _split_fields(data: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields with one entry a view, and fields shared by all views."""
    if data is None:
        return {}, {}
    if hasattr(data, "batch_fields"):
        return data.batch_fields()
    if not isinstance(data, Mapping):
        raise InputError(
            f"data are {type(data).__name__}: give them names, by which the cost reads them from its batch, such as "
            'data={"counts": frames} for batch.counts'
        )
    fields = {k: v if hasattr(v, "shape") else np.asarray(v) for k, v in data.items() if v is not None}
    if not fields:
        return {}, {}
    most = max(len(v.shape) for v in fields.values())
    shared = {k: v for k, v in fields.items() if (k == "mask" or k.endswith("_mask")) and len(v.shape) < most}
    per_view = {k: v for k, v in fields.items() if k not in shared}
    counts = {k: v.shape[0] for k, v in per_view.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"data have different numbers of views: {counts}")
    return per_view, shared


# ---------------------------------------------------------------------------------------- what fits
def _limit(resident: float | None, mesh: Mesh | None) -> float:
    """Bytes of data that may lie on all devices together; every process comes to the same number."""
    if resident is not None:
        if not resident >= 0:
            raise InputError(f"resident = {resident!r} is no number of bytes")
        return float(resident)
    device = jax.local_devices()[0]
    local = 1 if mesh is None or device.platform == "cpu" else len(mesh.local_devices)
    free = _SHARE_OF_MEMORY * sharding.free_memory(device) * local
    if jax.process_count() == 1:
        return free
    from jax.experimental import multihost_utils

    return jax.process_count() * float(np.min(multihost_utils.process_allgather(np.float32(free))))


def _too_big(per_view: Mapping[str, Any], limit: float, forced: bool) -> tuple[str, ...]:
    """Names of the fields that are read ahead, the largest first, so that the rest fits.

    What is in the host's memory already counts where the device has a memory of its own, or the user has set the limit.
    """
    own_memory = forced or jax.local_devices()[0].platform != "cpu"
    may = [
        name
        for name, v in per_view.items()
        if not isinstance(v, jax.Array) and (own_memory or not isinstance(v, np.ndarray) or isinstance(v, np.memmap))
    ]
    left, ahead = sum(_bytes(v) for v in per_view.values()), []
    for name in sorted(may, key=lambda name: -_bytes(per_view[name])):
        if left > limit:
            ahead.append(name)
            left -= _bytes(per_view[name])
    return tuple(ahead)


def _bytes(values: Any) -> float:
    return float(np.prod(values.shape, dtype=float)) * np.dtype(values.dtype).itemsize


# ---------------------------------------------------------------------------------------- the way to the device
class Feed:
    """Data for chunk after chunk of steps.

    **Fields:** `fields` that are on the devices, `ahead` = training views that are not, `budget` in bytes, `waited` =
    fraction of the time since the first step that went by waiting for the reader.
    """

    def __init__(self, sampler: Sampler, fields: Fields, ahead: dict[str, Any], mesh: Mesh | None, budget: float):
        self.sampler, self.fields, self.ahead, self.mesh, self.budget = sampler, fields, ahead, mesh, budget
        self.waited = 0.0
        held = sum(_bytes(v) / v.shape[0] for v in sampler.per_view.values()) * sampler.held.size
        self._keeps_held = not ahead or held <= budget / 4
        self._held: list[tuple[int, Batch]] = []

    def pieces(self, first: int, total: int, chunk: int) -> Generator[tuple[int, int, Fields], None, None]:
        """Cut the steps from `first` to `total` into pieces of at most `chunk` steps that end where chunks end, as
        number of steps, largest number of steps of all pieces, and data.
        """
        size = chunk if not self.ahead else min(chunk, self._steps_of_block())
        spans = [
            (start, min(size, end - start))
            for begin in range(first, total, chunk)
            for end in (min(begin + chunk, total),)
            for start in range(begin, end, size)
        ]
        if self.ahead:
            yield from self._read_ahead(spans, size)
        else:
            yield from ((count, size, self.fields) for _, count in spans)

    def _steps_of_block(self) -> int:
        """Steps whose frames fill half the budget: two blocks are there at a time."""
        views = self.sampler.plan.batch_size or 1
        step = sum(_bytes(v) / v.shape[0] for v in self.ahead.values()) * views
        return max(1, int(max(self.budget / 2, _LEAST_BLOCK) // step))

    def _read_ahead(self, spans: list[tuple[int, int]], size: int) -> Generator[tuple[int, int, Fields], None, None]:
        """Blocks, each read by a thread while the device works on the one before."""
        wide = jnp.result_type(float) == np.float64  # known to this thread only, where a context has set it

        def read(first: int, count: int) -> Fields:
            with jax.enable_x64(wide):
                return self._block(first, count, size)

        waiting, started = 0.0, time.monotonic()
        with ThreadPoolExecutor(1, "diffrecon-reader") as reader:
            coming = reader.submit(read, *spans[0]) if spans else None
            for (_, count), following in zip(spans, [*spans[1:], None], strict=True):
                asked = time.monotonic()
                fields = coming.result() if coming is not None else self.fields
                waiting += time.monotonic() - asked
                coming = None if following is None else reader.submit(read, *following)
                self.waited = waiting / max(time.monotonic() - started, 1e-9)
                yield count, size, fields

    def _block(self, first: int, count: int, size: int) -> Fields:
        """The data of some steps, read in increasing order of the views; as long as those of the longest piece."""
        plan = self.sampler.plan
        needed, rows = np.unique(plan.places(first, count), return_inverse=True)
        length = min(len(plan.views), size * (plan.batch_size or 1))
        needed = np.concatenate([needed, np.repeat(needed[-1:], length - needed.size)])
        rows = np.pad(rows.reshape(count, -1).astype(np.int32), ((0, size - count), (0, 0)))
        block = {k: sharding.shard_views(Entries(v, needed), self.mesh) for k, v in self.ahead.items()}
        return self.fields._replace(block=block, rows=sharding.replicate(jnp.asarray(rows), self.mesh))

    # ------------------------------------------------------------------ held-out views
    def held_batches(self) -> Iterator[tuple[int, Batch]]:
        """The held-out views in batches with their number of views; kept on the devices where they fit."""
        held = self.sampler.held
        parts = [held[i : i + _HELD_BATCH] for i in range(0, held.size, _HELD_BATCH)]
        if self._keeps_held and not self._held:
            self._held = [(part.size, self._batch(part)) for part in parts]
        yield from self._held or ((part.size, self._batch(part)) for part in parts)

    def _batch(self, part: np.ndarray) -> Batch:
        fields = {k: np.asarray(v[part]) for k, v in self.sampler.per_view.items()}
        views, fields = sharding.replicate((part, fields), self.mesh)
        return Batch(views, fields | self.fields.shared)
