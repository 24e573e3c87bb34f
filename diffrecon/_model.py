"""`Model` and `Batch`: the two words of which every cost functional is made."""

import dataclasses
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .errors import InputError

__all__ = ["Batch", "Model"]


class Model(eqx.Module):
    """A forward model: fields are the unknowns and the fixed geometry, the call predicts the measurement of some views.

    A model is an ordinary `equinox.Module`, nothing more: any pytree and any callable work with `diffrecon.minimise`
    too. Write the physics of one view, `vmap` it over the views, compose shared operators:

    ```python
    class Absorption(dr.Model):
        volume: Float[Array, "z y x"]
        projector: dr.operators.ParallelProjector
        def __call__(self, views):
            return jnp.exp(-self.projector(self.volume, views))
    ```
    """

    def replace(self, **fields: Any) -> Self:
        """The same model with some fields changed."""
        return dataclasses.replace(self, **fields)


class Batch:
    """Some views of a measurement, as a cost functional receives them: `batch.views`, `batch.counts`, `batch.mask`, ...

    `views` are the indices `(view,)` into the whole scan, the other fields the data of these views, by the names that
    `diffrecon.minimise` was given. A field that was not given reads as an error that lists those that were; `mask`
    reads as `None` where every pixel measured.
    """

    def __init__(self, views: Any, fields: dict[str, Any]):
        self.views = views
        self._fields = fields

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        fields = self.__dict__.get("_fields", {})
        if name in fields:
            return fields[name]
        if name == "mask":
            return None
        raise AttributeError(f"this batch has no {name!r}; it has views, {', '.join(fields)}")

    def __repr__(self) -> str:
        shapes = {k: getattr(v, "shape", v) for k, v in self._fields.items()}
        return f"Batch(views={getattr(self.views, 'shape', self.views)}, {shapes})"


def _flatten(batch: Batch) -> tuple[tuple[Any, dict[str, Array]], None]:
    return (batch.views, batch._fields), None


class _Watched(Batch):
    """A batch that notes which of its fields are read; whoever takes it apart reads all."""

    def __init__(self, views: Any, fields: dict[str, Any], names: set[str]):
        super().__init__(views, fields)
        self._names = names

    def __getattr__(self, name: str) -> Any:
        self.__dict__["_names"].add(name)
        return super().__getattr__(name)


def _flatten_watched(batch: _Watched) -> tuple[tuple[Any, dict[str, Array]], None]:
    batch._names.update(batch._fields)
    return _flatten(batch)


jax.tree_util.register_pytree_node(Batch, _flatten, lambda _, children: Batch(*children))
jax.tree_util.register_pytree_node(_Watched, _flatten_watched, lambda _, children: Batch(*children))  # pyright: ignore


def one_number(cost: Any) -> Array:
    """Give what a cost functional returned, a real scalar.

    **Raises:** `InputError` for anything else, while the cost is traced.
    """
    shape, kind = getattr(cost, "shape", None), getattr(cost, "dtype", None)
    if shape is None or kind is None:
        if isinstance(cost, int | float):
            return jnp.asarray(float(cost))
        raise InputError(f"the cost gives {type(cost).__name__}, not one number: return a scalar of jax")
    if shape != ():
        raise InputError(f"the cost has shape {shape}, not one number: take its mean or sum (jnp.mean)")
    if jnp.issubdtype(kind, jnp.complexfloating):
        raise InputError("the cost is complex, which has no minimum: take jnp.real of it, or jnp.abs(...) ** 2")
    if not jnp.issubdtype(kind, jnp.floating):
        raise InputError(f"the cost is of type {kind}, which has no gradient: make it a float")
    return cost


def try_cost(cost: Callable, model: Any, views: Any, fields: Mapping[str, Any], name: str = "the cost") -> None:
    """Trace a user's cost functional with shapes alone, and say in which line of their file it fails.

    **Raises:** `InputError`.
    """
    shapes = {k: jax.ShapeDtypeStruct(v.shape, jax.dtypes.canonicalize_dtype(v.dtype)) for k, v in fields.items()}
    try:
        eqx.filter_eval_shape(lambda m, f: one_number(cost(m, Batch(views, f))), model, shapes)
    except Exception as error:
        file = getattr(getattr(cost, "__code__", None), "co_filename", None)
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        where = f" ({Path(str(file)).name}, line {lines[-1]})" if lines else ""
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        raise InputError(f"{name}{where}: {kind}{' '.join(str(error).split())[:300]}") from error


def fields_read(cost: Callable, model: Any, views: Any, fields: Mapping[str, Any]) -> set[str]:
    """Find the names of the fields of a batch that a cost functional reads, by tracing it with shapes alone.

    **Arguments:** `views` and `fields`: anything with shape and dtype, nothing of it is read.
    """
    names: set[str] = set()
    shapes = {k: jax.ShapeDtypeStruct(v.shape, jax.dtypes.canonicalize_dtype(v.dtype)) for k, v in fields.items()}
    eqx.filter_eval_shape(lambda model, fields: cost(model, _Watched(views, fields, names)), model, shapes)
    return names
