"""What of a model moves, by which rule: names, step-size factors, optimisers, complex numbers."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import jaxprs_in_params
from jaxtyping import PyTree

from ...errors import InputError

__all__ = ["LooksAtModel", "Unknowns", "dotted", "line_search"]


@dataclasses.dataclass(frozen=True)
class Unknowns:
    """Which leaves of the model move, their names, their step-size factors and their own optimisers."""

    mask: PyTree
    names: tuple[str, ...]
    scales: tuple[float, ...]
    own: Mapping[str, optax.GradientTransformation]
    labels: tuple[str, ...]

    @classmethod
    def choose(cls, model: Any, unknowns: Any) -> tuple[Any, "Unknowns"]:
        """The model with arrays where it has NumPy arrays or numbers to solve for, and what is free in it."""
        if unknowns is None:
            unknowns = getattr(model, "unknowns", None)
        if callable(unknowns):
            unknowns = _names_of(model, unknowns)
        wanted = (
            None
            if unknowns is None
            else (dict(unknowns) if isinstance(unknowns, Mapping) else dict.fromkeys(unknowns, 1.0))
        )
        model = jax.tree_util.tree_map_with_path(
            lambda path, leaf: _as_array(leaf, _label(dotted(path), wanted)), model
        )
        leaves, structure = jax.tree_util.tree_flatten_with_path(model)
        names = {dotted(path): _label(dotted(path), wanted) for path, leaf in leaves if eqx.is_inexact_array(leaf)}
        missing = set(wanted or ()) - set(names.values())
        if missing:
            raise InputError(
                f"the model has no floating-point field {min(missing)!r} to solve for (it has {', '.join(names)})"
            )
        chosen = {name: label for name, label in names.items() if label is not None}
        if not chosen:
            raise InputError("the model has no floating-point array to solve for")
        values: dict[str, Any] = wanted or {}
        factors = {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
        return model, cls(
            jax.tree.unflatten(structure, [dotted(path) in chosen for path, _ in leaves]),
            tuple(name or "model" for name in chosen),
            tuple(factors.get(label, 1.0) for label in chosen.values()),
            {k: v for k, v in values.items() if k not in factors},
            tuple(chosen.values()),
        )

    def rule(self, optimiser: optax.GradientTransformation, free: PyTree) -> optax.GradientTransformationExtraArgs:
        """Return the optimiser for all, or one for each of those that have their own, right on complex numbers too."""
        is_complex = any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(free))
        rule = _joint_rule(optimiser, tuple(self.own.items()), self.labels)
        return _in_reals(rule) if is_complex and not _right_on_complex(rule, free) else rule


@functools.lru_cache(maxsize=64)
def _joint_rule(optimiser, own: tuple, labels: tuple[str, ...]) -> optax.GradientTransformationExtraArgs:
    """Cached, because a new rule is a new program to compile."""
    if not own:
        return optax.with_extra_args_support(optimiser)
    names = dict(own)
    tags = [label if label in names else "" for label in labels]
    rules: dict[Any, optax.GradientTransformation] = {"": optimiser} | names
    return optax.multi_transform(rules, lambda tree: jax.tree.unflatten(jax.tree.structure(tree), tags))


class LooksAtModel(NamedTuple):
    """Nothing to carry: the state of a rule that looks at the model, and so takes its numbers as they are."""


# States of rules of optax that carry nothing or a mean of gradients, and what may be done to a complex number without
# treating its parts apart. Adam takes roots of squared moduli.
_LINEAR = (optax.EmptyState, optax.TraceState, optax.ScaleByScheduleState, optax.ScaleState, optax.MaskedNode)
_SMOOTH = {"abs", "add", "add_any", "broadcast_in_dim", "cond", "conj", "convert_element_type", "copy", "div", "imag"}
_SMOOTH |= {"jit", "mul", "neg", "pjit", "real", "reduce_sum", "reshape", "select_n", "sub"}
_OF_ADAM = {"integer_pow", "sqrt"}


def _right_on_complex(rule: optax.GradientTransformationExtraArgs, free: PyTree) -> bool:
    """Tell whether a rule may see complex numbers: it needs the model, or is made of what is known to be right.

    Known are gradient descent, momentum, factors, and Adam by itself (whose second moment is that of the modulus). Most
    others are wrong: they take squares instead of squared moduli, clip, sort, or multiply without conjugates.
    """
    state = jax.eval_shape(rule.init, free)
    if any(type(node).__module__.startswith("diffrecon") for node in _named_tuples(state)):
        return True
    if not _known(state):
        return False
    try:
        program = jax.make_jaxpr(lambda g, s, p: rule.update(g, s, p))(free, state, free)
    except (TypeError, ValueError):
        return False
    adam = any(isinstance(node, optax.ScaleByAdamState) for node in _named_tuples(state))
    return set(_complex_operations(program.jaxpr)) <= (_SMOOTH | _OF_ADAM if adam else _SMOOTH)


def _known(state: Any) -> bool:
    if isinstance(state, _LINEAR):
        return True
    if isinstance(state, optax.MaskedState):
        return _known(state.inner_state)
    if hasattr(state, "inner_states"):  # of `multi_transform`
        return all(_known(inner) for inner in state.inner_states.values())
    if not isinstance(state, tuple) or hasattr(state, "_fields"):
        return False
    if state and isinstance(state[0], optax.ScaleByAdamState):
        return len(state) == 2 and isinstance(state[1], optax.EmptyState | optax.ScaleByScheduleState)
    adam_inside = any(isinstance(node, optax.ScaleByAdamState) for node in _named_tuples(state))
    return not adam_inside and all(_known(part) for part in state)


def _named_tuples(tree: Any) -> Iterator[Any]:
    if isinstance(tree, tuple):
        yield from [tree] if hasattr(tree, "_fields") else []
    for item in tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, tuple) else ():
        yield from _named_tuples(item)


def _complex_operations(jaxpr: Any) -> Iterator[str]:
    """Yield the names of what is done to complex numbers, also in programs within a program."""
    for equation in jaxpr.eqns:
        if any(jnp.issubdtype(v.aval.dtype, jnp.complexfloating) for v in equation.invars if hasattr(v.aval, "dtype")):
            yield equation.primitive.name
        for inside in jaxprs_in_params(equation.params):
            yield from _complex_operations(inside)


@functools.lru_cache(maxsize=64)
def _in_reals(rule: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """Show a rule every complex unknown as pairs of reals."""

    def split(tree):
        return jax.tree.map(lambda z: jnp.stack([z.real, z.imag], -1) if jnp.iscomplexobj(z) else z, tree)

    def join(tree, like):
        return jax.tree.map(
            lambda p, z: jax.lax.complex(p[..., 0], p[..., 1]) if jnp.iscomplexobj(z) else p, tree, like
        )

    def init(params):
        return rule.init(split(params))

    def update(updates, state, params=None, **extra):
        value_fn = line_search(lambda pairs: extra["value_fn"](join(pairs, params)))
        pairs = split(updates)
        moves, state = rule.update(pairs, state, split(params), **extra | {"grad": pairs, "value_fn": value_fn})
        return join(moves, params), state

    return optax.GradientTransformationExtraArgs(init, update)


def _as_array(leaf: Any, label: str | None) -> Any:
    """NumPy arrays as jax arrays, and numbers too where they are unknowns; of a definite type, as loops want them."""
    if isinstance(leaf, np.ndarray) or (label and isinstance(leaf, float | np.floating)):
        leaf = jnp.asarray(leaf)
    return jnp.asarray(leaf, leaf.dtype) if isinstance(leaf, jax.Array) else leaf


def dotted(path: tuple) -> str:
    return ".".join(str(getattr(k, "name", getattr(k, "key", getattr(k, "idx", k)))) for k in path)


def _label(path: str, wanted: Mapping[str, Any] | None) -> str | None:
    """The entry of `wanted` that a leaf belongs to; everything belongs to "" where nothing is said."""
    if wanted is None:
        return ""
    matches = [name for name in wanted if path == name or path.startswith(name + ".")]
    return max(matches, key=len) if matches else None


def _names_of(model: Any, where: Callable[[Any], Any]) -> list[str]:
    """Names of the leaves that a where-function picks."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(model)
    marks = [object() for _ in leaves]
    picked = jax.tree.leaves(where(jax.tree.unflatten(structure, marks)))
    names = [dotted(path) for (path, _), mark in zip(leaves, marks, strict=True) if any(mark is p for p in picked)]
    return names


def line_search(value_fn):
    """A cost for line searches of optax, which insist that somebody takes every further argument of a rule."""
    return lambda free, model=None, batch=None: value_fn(free)
