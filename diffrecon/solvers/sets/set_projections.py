"""Set projections: find what lies in two sets at once, from the two projections alone.

One set is what the data allow (the measured modulus), the other what is known (a support, an overlap, a sign). Phase
retrieval from one diffraction pattern, ptychography by exit waves and alternating projections of holograms differ only
in the two functions.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._console import Console
from ...errors import InputError, nearest
from ..ending import Ending
from ..progress import Callback, Progress

__all__ = ["RULES", "SetSolution", "project_once", "set_projections"]

Projection = Callable[[Any, Any], Any]
_CHUNK = 50  # steps between two looks of the host


@dataclasses.dataclass(frozen=True)
class SetSolution:
    """What `set_projections` gives back.

    **Fields:** `value`, the iterate projected onto the data and then onto what is known; `state`, the iterate itself,
    from which a further call goes on; `gap` `(step,)` or `(step, start)`, the distance between the two sets as seen
    from each iterate, relative to the norm of the projection onto the data (NaN where a start had broken down);
    `ending`, an `Ending`, and `detail`, its step; `result`, both in one sentence.
    """

    value: Any
    state: Any
    gap: np.ndarray
    ending: Ending
    detail: str = ""

    @property
    def result(self) -> str:
        """Say how it ended, in one sentence."""
        return self.ending.sentence(self.detail)


def set_projections(
    start: PyTree,
    onto_data: Projection,
    onto_known: Projection,
    data: Any = None,
    *,
    rule: str = "raar",
    beta: float | None = None,
    steps: int,
    batched: bool = False,
    callback: Callback | None = None,
    console: Console | None = None,
    label: str = "projections",
) -> SetSolution:
    """Iterate projections onto two sets until they meet.

    With `D` = `onto_data`, `K` = `onto_known` and the reflection `R = 2 P - 1`, one step of the `rule` is

    - `"er"`: `K D x`, error reduction or alternating projections (Gerchberg & Saxton 1972; Fienup 1982, sec. III);
    - `"hio"`: hybrid input-output (Fienup 1982, eq. 44): `D x` where that obeys what is known, `x - beta (D x - K D x)`
      where it does not (Fienup's `x - beta D x`, as K makes it zero there); each number by itself, real and imaginary
      parts too, so that it needs a `K` which acts on each alone;
    - `"raar"`: `beta/2 (R_K R_D + 1) x + (1 - beta) D x`, relaxed averaged alternating reflections (Luke 2005);
    - `"dm"`: the difference map, `x + beta [K f_D x - D f_K x]` with `f_D = (1 + 1/beta) D - 1/beta` and
      `f_K = (1 - 1/beta) K + 1/beta` (Elser 2003, with its best parameters). A negative beta exchanges the sets:
      `beta = -1` is `x + D(2 K x - x) - K x`, which ptychography uses (Thibault et al. 2009). Moduli other than one
      need four projections a step instead of two.

    **Arguments:**

    - `start`: any pytree of real or complex arrays.
    - `onto_data`, `onto_known`: functions `(state, data) -> state`. The loop is compiled for the functions that it is
      given: define them once, not in a loop, and hand arrays over in `data`.
    - `data`: any pytree, passed to both.
    - `beta`: 0.9 by default for hio and raar, 1 for dm; er has none.
    - `batched`: the first axis of every array holds independent starts, whose gaps are told apart; both functions
      then work on all of them at once.
    - `callback`: called with a `Progress` (the iterate as `value`, the gap of each start as `loss`) between compiled
      chunks of 50 steps; returning `True` stops.
    - `console`: shows progress.

    **Returns:** a `SetSolution`. Ctrl-C returns the iterate with the smallest gap at the end of a chunk. Where an
    iterate is no longer finite the last finite one is kept, and `ending` says so.

    **Raises:** `InputError` for an unknown rule, steps below one, or a beta out of its range.

    **Cost:** two projections a step (dm with |beta| other than 1: four); three copies of the state.

    ```python
    line = lambda x, data: x * jnp.array([1.0, 0.0])                         # the first axis
    diagonal = lambda x, data: jnp.full(2, x.mean() - 0.5) + jnp.array([1.0, 0.0])   # x_0 = x_1 + 1
    found = set_projections(jnp.array([3.0, 4.0]), line, diagonal, rule="raar", steps=100)
    assert jnp.allclose(found.value, jnp.array([1.0, 0.0]), atol=1e-4)
    ```
    """
    beta = _checked(rule, beta, steps)
    console = console or Console(quiet=True)
    state = jax.tree.map(jnp.asarray, start)
    sets, progress = _Sets(onto_data, onto_known, rule, beta, batched), console.progress(steps, label)
    best, best_gap, gaps, started = state, np.inf, [], time.monotonic()
    done, ending, detail = 0, Ending.DONE, f"{steps} steps"
    try:
        while done < steps:
            count = min(_CHUNK, steps - done)
            state, gap, alive = _chunk(sets, state, data, jnp.asarray(count), _CHUNK)
            gaps.append(np.asarray(gap)[:count])
            done += count
            if not np.asarray(alive).any():
                ending, detail = (
                    Ending.NOT_FINITE,
                    f"the iterate of step {_finite_steps(gaps) + 1}; look for NaN in the data",
                )
                console.say(ending.sentence(detail))
                break
            if np.nanmean(gaps[-1][-1]) < best_gap:
                best, best_gap = state, float(np.nanmean(gaps[-1][-1]))
            progress.update(done, gap=float(np.nanmin(gaps[-1][-1])))
            report = Progress(done, steps, state, gaps[-1][-1], seconds=time.monotonic() - started)
            if callback is not None and callback(report) is True:
                ending, detail = Ending.STOPPED, f"after {done} steps"
                break
    except KeyboardInterrupt:
        ending, detail = Ending.INTERRUPTED, f"after {done} steps"
        console.say(ending.sentence(detail))
        state = best
    history = np.concatenate(gaps) if gaps else np.zeros(0)
    return SetSolution(project_once(state, onto_data, onto_known, data), state, history, ending, detail)


@eqx.filter_jit
def project_once(state: PyTree, onto_data: Projection, onto_known: Projection, data: Any = None) -> PyTree:
    """An iterate projected onto the data and then onto what is known.

    ```python
    half, nothing = (lambda x, data: x / 2), (lambda x, data: x)
    assert project_once(jnp.ones(2), half, nothing)[0] == 0.5
    ```
    """
    return onto_known(onto_data(state, data), data)


def _checked(rule: str, beta: float | None, steps: int) -> float:
    """The parameter of a rule."""
    if rule not in RULES:
        raise InputError(
            f"there is no rule {rule!r} of set projections{nearest(rule, RULES)}; there are {', '.join(RULES)}"
        )
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    beta = (1.0 if rule == "dm" else 0.9) if beta is None else float(beta)
    good = 0 < abs(beta) <= 2 if rule == "dm" else 0 < beta <= 1
    if not good:
        said = "between -2 and 2 and not 0" if rule == "dm" else "above 0 and at most 1"
        raise InputError(f"beta of {rule} must be {said}, got {beta:g}")
    return beta


def _finite_steps(gaps: list[np.ndarray]) -> int:
    return int(np.isfinite(np.concatenate(gaps).reshape(sum(map(len, gaps)), -1)).any(1).sum())


# ---------------------------------------------------------------------------------------------------- the compiled part
@dataclasses.dataclass(frozen=True)
class _Sets:
    """Everything that is compiled in: functions and small numbers, never data."""

    onto_data: Projection
    onto_known: Projection
    rule: str
    beta: float
    batched: bool


@eqx.filter_jit
def _chunk(sets: _Sets, state: PyTree, data: Any, count: Array, most: int):
    """`count` (at most `most`) steps; a start whose iterate is not finite stays at its last finite one."""
    onto_data = lambda x: sets.onto_data(x, data)
    onto_known = lambda x: sets.onto_known(x, data)
    alive = jnp.isfinite(_size(state, sets.batched))
    gaps = jnp.full((most, *alive.shape), jnp.nan, jax.tree.leaves(state)[0].real.dtype)

    def body(carry):
        step, state, alive, gaps = carry
        new, known, allowed = RULES[sets.rule](state, onto_data, onto_known, sets.beta)
        apart, size = (_size(x, sets.batched) for x in (_add(1, known, -1, allowed), allowed))
        gap = apart / jnp.where(size > 0, size, 1)
        alive = alive & jnp.isfinite(_size(new, sets.batched)) & jnp.isfinite(gap)
        keep = lambda n, o: jnp.where(jnp.reshape(alive, (*alive.shape, *(1,) * (n.ndim - alive.ndim))), n, o)
        gaps = gaps.at[step].set(jnp.where(alive, gap, jnp.nan).astype(gaps.dtype))
        return step + 1, jax.tree.map(keep, new, state), alive, gaps

    start = (jnp.zeros_like(count), state, alive, gaps)
    _, state, alive, gaps = jax.lax.while_loop(lambda c: (c[0] < count) & jnp.any(c[2]), body, start)
    return state, gaps, alive


def _size(x: PyTree, batched: bool) -> Float[Array, "*start"]:
    """The norm, of each start where there are several."""
    axes = lambda leaf: tuple(range(int(batched), leaf.ndim))
    return jnp.sqrt(sum(jnp.sum(jnp.real(a * jnp.conj(a)), axes(a)) for a in jax.tree.leaves(x)))


def _add(first: float, x: PyTree, second: float, y: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: first * a + second * b, x, y)


# ---------------------------------------------------------------------------------------------------- the rules
# Each returns the next iterate, and the two points whose distance is the gap: of what is known, and of the data.
def _er(x, onto_data, onto_known, beta):
    allowed = onto_data(x)
    known = onto_known(allowed)
    return known, known, allowed


def _hio(x, onto_data, onto_known, beta):
    allowed = onto_data(x)
    known = onto_known(allowed)

    def feedback(x, allowed, known):
        if jnp.iscomplexobj(x):
            parts = [feedback(part(x), part(allowed), part(known)) for part in (jnp.real, jnp.imag)]
            return jax.lax.complex(*parts)
        return jnp.where(known == allowed, allowed, x - beta * (allowed - known))

    return jax.tree.map(feedback, x, allowed, known), known, allowed


def _raar(x, onto_data, onto_known, beta):
    allowed = onto_data(x)
    known = onto_known(_add(2, allowed, -1, x))
    # beta/2 (R_K R_D + 1) x + (1 - beta) D x, with R_K R_D x = 2 K R_D x - 2 D x + x.
    return jax.tree.map(lambda x, a, k: beta * (k + x) + (1 - 2 * beta) * a, x, allowed, known), known, allowed


def _dm(x, onto_data, onto_known, beta):
    inverse = 1 / beta
    # At beta = 1 and -1 one of the two inner functions is the identity.
    inner_data = x if beta == -1 else _add(1 + inverse, onto_data(x), -inverse, x)
    inner_known = x if beta == 1 else _add(1 - inverse, onto_known(x), inverse, x)
    known, allowed = onto_known(inner_data), onto_data(inner_known)
    return jax.tree.map(lambda x, k, a: x + beta * (k - a), x, known, allowed), known, allowed


RULES: dict[str, Callable[..., tuple[PyTree, PyTree, PyTree]]] = {"er": _er, "hio": _hio, "raar": _raar, "dm": _dm}
