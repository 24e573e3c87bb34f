"""Better numbers by gradient, at the same time, dose or sensitivity."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..errors import InputError, nearest
from ..settings import Rule, rules
from ._plan import Figures, Plan, predictor

AIMS = ("sensitivity", "resolution", "dose", "time")
HELD = ("time", "dose", "sensitivity")
_REACH = 5.0  # a number may grow or shrink by so much where no range is given
_FARTHEST = 5.0  # places between minus and plus this are the range, ends included
_LEAST = 1e-6  # of the exposure, where the overhead alone takes longer than the time that is held
Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Optimum:
    """A plan found by gradient.

    **Fields:** `plan`; `ranges` of the numbers, in which it was sought; `aim`, `held` as in `optimise`.
    """

    plan: Plan
    ranges: Mapping[str, Range]
    aim: str
    held: str

    def at_an_end(self) -> list[str]:
        """List the numbers that stand at an end of their range: a wider one would give more."""
        close = lambda value, ends: np.any(np.abs(np.log(np.divide.outer(value, ends))) < 0.01)
        return [n for n, ends in self.ranges.items() if close(getattr(self.plan.settings, n), np.asarray(ends))]


def optimise(
    plan: Plan,
    names: Sequence[str] | Mapping[str, Range | None],
    *,
    aim: str = "sensitivity",
    hold: str | None = None,
    starts: int = 8,
    steps: int = 150,
    seed: int = 0,
) -> Optimum:
    """Find better values of some numbers by gradient (Adam from several starts, the present values among them).

    The exposure is always free: it follows from what is held, at the value that the given plan has.

    **Arguments:** `names` of numbers among the method's `free`, with ranges `(low, high)` or `None` = a factor of five
    to both sides; `aim` is made small: "sensitivity" (least density seen), "resolution", "dose" or "time"; `hold` =
    "time", "dose" or "sensitivity", by default the time, or the sensitivity where dose or time are the aim.

    **Raises:** `InputError` for a number that is not free, a range or an aim that makes no sense.

    ```python
    from diffrecon.planning import plan
    found = optimise(plan("tomography"), {"energy": (10e3, 40e3)}, starts=2, steps=20)
    ```
    """
    hold = hold or ("sensitivity" if aim in ("dose", "time") else "time")
    if aim not in AIMS or hold not in HELD or aim == hold:
        raise InputError(
            f"optimise: {aim} with {hold} held: the aim is one of {', '.join(AIMS)}, held is another of "
            f"{', '.join(HELD)}"
        )
    ranges = _ranges(plan, names)
    with jax.enable_x64(True):
        search = _Search(plan, ranges, aim, hold)
        numbers = search.best(starts, steps, seed)
        whole = {n: _like(getattr(plan.settings, n), v) for n, v in numbers.items()}
        exposure = float(jax.jit(search.exposure)({n: jnp.asarray(v, float) for n, v in whole.items()}))
    return Optimum(plan.with_numbers(**whole, exposure=exposure), ranges, aim, hold)


def _ranges(plan: Plan, names: Sequence[str] | Mapping[str, Range | None]) -> dict[str, Range]:
    """Range of every number: the given one, or about the present value, within what the method allows."""
    method, known, found = plan.method, rules(plan.settings), {}
    own = method.ends(plan.settings)
    for name in names:
        given = names[name] if isinstance(names, Mapping) else None
        if name not in method.free:
            raise InputError(f"{method.name}: {name} cannot be optimised{nearest(name, method.free)}")
        if name == "exposure":
            if given:
                raise InputError("optimise: the exposure has no range; it follows from what is held")
            continue
        value = np.asarray(getattr(plan.settings, name), float)
        if given is None and not value.min() > 0:
            raise InputError(f"optimise: {name} is {value.min():g} now; give a range, as {name}=A:B")
        low, high = given or (value.min() / _REACH, value.max() * _REACH)
        least, most = _bounds(known[name])
        low, high = max(low, least, own.get(name, (0,))[0]), min(high, most, own.get(name, (0, np.inf))[1])
        if not 0 < low < high:
            raise InputError(f"optimise: the range {low:g} to {high:g} of {name} must be positive and increasing")
        found[name] = (float(low), float(high))
    return found


def _bounds(rule: Rule) -> Range:
    least = max(v for v in (rule.at_least, rule.above, 0.0) if v is not None)
    return least, min(v for v in (rule.at_most, rule.below, np.inf) if v is not None)


def _like(before: Any, value: Any) -> Any:
    """Give a number the kind that the setting had: whole, single or several in order."""
    if isinstance(before, tuple):
        return tuple(sorted(float(v) for v in value))
    return round(float(value)) if isinstance(before, int) else float(value)


class _Search:
    """The way from places on the whole line to figures of merit."""

    def __init__(self, plan: Plan, ranges: Mapping[str, Range], aim: str, hold: str):
        self.plan, self.ranges, self.aim, self.hold = plan, ranges, aim, hold
        span = ranges.get("energy")
        self.held_figures = predictor(plan, span, sizes=False)
        self.figures = predictor(plan, span) if aim == "resolution" else self.held_figures
        self.target = _figure(plan.figures(), hold)

    def numbers(self, places: Mapping[str, Any]) -> dict[str, Any]:
        """Map places into the ranges, evenly in the logarithm; the ends are reached."""
        edge = 1 / (1 + np.exp(_FARTHEST))
        share = lambda x: jnp.clip((jax.nn.sigmoid(x) - edge) / (1 - 2 * edge), 0, 1)
        return {n: low * (high / low) ** share(places[n]) for n, (low, high) in self.ranges.items()}

    def place(self, name: str) -> np.ndarray:
        """Invert this for the present value."""
        low, high = self.ranges[name]
        edge = 1 / (1 + np.exp(_FARTHEST))
        value = np.asarray(getattr(self.plan.settings, name), float)
        share = np.clip(np.log(np.maximum(value, low) / low) / np.log(high / low), 0, 1) * (1 - 2 * edge) + edge
        return np.asarray(np.log(share / (1 - share)))

    def exposure(self, numbers: Mapping[str, Any]) -> Any:
        """Solve for the exposure: dose grows with it, the time too, and a sensitivity falls as its root."""
        s, now = self.plan.settings, self.held_figures(numbers)
        found = _figure(now, self.hold)
        if self.hold == "time":
            return jnp.maximum(self.target / (found / (s.exposure + s.overhead)) - s.overhead, _LEAST * s.exposure)
        power = 1.0 if self.hold == "dose" else -2.0
        return s.exposure * (self.target / found) ** power

    def cost(self, places: Mapping[str, Any]) -> Any:
        """Give the logarithm of what is made small."""
        numbers = self.numbers(places)
        reached = self.figures({**numbers, "exposure": self.exposure(numbers)})
        if self.aim == "resolution":  # soft, so that what does not limit yet has a gradient, too
            limits = jnp.stack(jnp.broadcast_arrays(*reached.limits.values()))
            return jnp.log(jnp.sum(limits**8)) / 8
        return jnp.log(_figure(reached, self.aim))

    def best(self, starts: int, steps: int, seed: int) -> dict[str, np.ndarray]:
        """Descend from every start at once, and keep the lowest place that any of them met."""
        random = np.random.default_rng(seed)
        now = {n: self.place(n) for n in self.ranges}
        many = lambda x: np.concatenate([x[None], random.normal(0, 1.5, (max(starts - 1, 0), *x.shape))])
        first = {n: jnp.asarray(many(x)) for n, x in now.items()}
        rule = optax.adam(optax.cosine_decay_schedule(0.15, steps, 0.05))

        def step(carry, _):
            places, state, least, best = carry
            value, gradient = jax.vmap(jax.value_and_grad(self.cost))(places)
            gradient = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), gradient)
            better = value < least
            keep = lambda new, old: jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)
            best = jax.tree.map(keep, places, best)
            update, state = rule.update(gradient, state, places)
            moved = jax.tree.map(lambda p, u: jnp.clip(p + u, -_FARTHEST, _FARTHEST), places, update)
            return (moved, state, jnp.minimum(value, least), best), None

        start = (first, rule.init(first), jnp.full(max(starts, 1), jnp.inf), first)
        (_, _, least, best), _ = jax.jit(lambda s: jax.lax.scan(step, s, length=steps + 1))(start)
        chosen = int(np.argmin(np.asarray(least)))
        return {n: np.asarray(v) for n, v in self.numbers({n: x[chosen] for n, x in best.items()}).items()}


def _figure(figures: Figures, name: str) -> Any:
    return {
        "time": figures.time,
        "dose": figures.dose,
        "resolution": figures.half_period,
        "sensitivity": figures.sensitivities["density [g/cm^3]"],
    }[name]
