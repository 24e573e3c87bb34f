"""What a solver tells its caller while it runs: one report for all solvers."""

import dataclasses
from collections.abc import Callable
from typing import Any

__all__ = ["Callback", "Progress"]


@dataclasses.dataclass(frozen=True)
class Progress:
    """Report to a `callback`, which every solver calls between compiled chunks; one that returns `True` stops it.

    **Fields:** `step` (steps done), `steps` (of how many), `value` (the model or volume as it stands), `loss` (what the
    solver lowers: mean cost of the chunk, relative residual, gap between two sets, deviance), `held_out` (the same on
    views that are left out, or `None`), `seconds` since the start.

    ```python
    enough = lambda progress: progress.loss < 1e-3
    assert enough(Progress(step=50, steps=200, value=jnp.zeros(3), loss=1e-4))
    ```
    """

    step: int
    steps: int
    value: Any
    loss: Any
    held_out: float | None = None
    seconds: float = 0.0


Callback = Callable[[Progress], Any]
