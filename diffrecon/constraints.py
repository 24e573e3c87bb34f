"""What must hold, as projections: functions from an array to the nearest array that obeys. `on` makes of one a
function from model to model, as `minimise(project=...)` and `levenberg_marquardt(project=...)` take it.

```python
project = dr.constraints.on("volume", dr.constraints.positive)
project = dr.constraints.on("phase", dr.constraints.bounded, low=-3.0, high=0.0)
```
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact

from .errors import InputError

__all__ = ["bounded", "homogeneous", "on", "positive", "support"]


def positive(x: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """The nearest array of numbers >= 0: `max(Re x, 0)`; a complex array stays complex, with imaginary part zero.

    ```python
    assert jnp.array_equal(positive(jnp.array([-1.0, 2.0])), jnp.array([0.0, 2.0]))
    ```
    """
    return jnp.maximum(jnp.real(x), 0).astype(x.dtype)


def bounded(
    x: Inexact[Array, "..."], low: float | Array | None = None, high: float | Array | None = None
) -> Inexact[Array, "..."]:
    """Real numbers within `[low, high]`; of complex ones the modulus, whose phase stays.

    ```python
    assert bounded(jnp.array([2.0j]), high=1.0)[0] == 1.0j
    ```
    """
    if not jnp.iscomplexobj(x):
        return jnp.clip(x, low, high)
    modulus = jnp.abs(x)
    direction = jnp.where(modulus > 0, x / jnp.where(modulus > 0, modulus, 1), 1)
    return direction * jnp.clip(modulus, low, high)


def support(
    x: Inexact[Array, "..."], inside: Bool[Array, "..."], outside: float | complex = 0.0
) -> Inexact[Array, "..."]:
    """`x` where `inside` holds, the value `outside` elsewhere (0 for a volume, 1 for a transmission).

    ```python
    assert jnp.array_equal(support(jnp.ones(2), jnp.array([True, False])), jnp.array([1.0, 0.0]))
    ```
    """
    return jnp.where(inside, x, jnp.asarray(outside, x.dtype))


def homogeneous(
    phase: Float[Array, "..."], attenuation: Float[Array, "..."], delta_beta: float | Array
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """The nearest pair of maps of one material: `phase = -delta_beta * attenuation` (delta = c beta, c = `delta_beta`).

    `phase = -(2 pi/lambda) int delta dz` [rad], `attenuation = (2 pi/lambda) int beta dz`. Orthogonal projection on
    the line, so that it may be repeated without change.

    ```python
    phase, attenuation = homogeneous(jnp.array([-10.0]), jnp.array([0.0]), 2.0)
    assert jnp.allclose(phase, -8.0) and jnp.allclose(attenuation, 4.0)
    ```
    """
    nearest = (attenuation - delta_beta * phase) / (1 + delta_beta**2)
    return -delta_beta * nearest, nearest


def on(names: str | Sequence[str], projection: Callable[..., Any], **arguments: Any) -> Callable[[Any], Any]:
    """A function from model to model that projects some of its fields.

    **Arguments:** `names` of one field, or of several that the projection takes and returns together (dotted for
    nested ones); `projection`, with its keyword `arguments`.

    **Raises:** `InputError`, when it is called, for a field that the model does not have.

    ```python
    project = on(("phase", "attenuation"), homogeneous, delta_beta=300.0)
    solution = minimise(cost, model, scan, steps=100, project=project)
    ```
    """
    several = not isinstance(names, str)
    paths = [name.split(".") for name in ([names] if isinstance(names, str) else names)]

    def fields(model: Any) -> list[Any]:
        return [reduce(getattr, path, model) for path in paths]

    def project(model: Any) -> Any:
        try:
            values = fields(model)
        except AttributeError as error:
            raise InputError(f"constraints.on: {error}") from None
        new = projection(*values, **arguments)
        return eqx.tree_at(fields, model, list(new) if several else [new])

    return project
