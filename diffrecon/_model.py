"""`Model` and `Batch`: the two words of which every cost functional is made."""

import dataclasses
from typing import Any, Self

import equinox as eqx
import jax
from jaxtyping import Array

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


jax.tree_util.register_pytree_node(Batch, _flatten, lambda _, children: Batch(*children))
