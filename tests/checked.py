"""Annotations of the package are checked while its tests run: types by beartype, shapes by jaxtyping."""

from collections.abc import Hashable
from types import UnionType
from typing import Any, Self, Union, get_args, get_origin

import numpy as np
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, Array, Float, Integer, Real

from diffrecon.settings import Numbers

# An integer passes for a float, as everywhere in Python.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))
_ANY = Array | np.ndarray
# What passes for another type, as everywhere in jax: traced numbers and NumPy's are numbers, an array on
# the host is one on the device, and counts are numbers like others.
_AS_WELL = {
    Array: _ANY,
    np.ndarray: _ANY,
    float: float | np.number | Real[Array, ""],
    int: int | np.integer | Integer[Array, ""],
    Self: Any,
    Numbers: Any,  # the package checks such a setting by itself
}


def typed(function: Any) -> Any:
    """Check a function's arguments and result.

    `Self` passes, since functions come one by one, without their class.
    """
    hints = getattr(function, "__annotations__", {})
    function.__annotations__ = {name: _relaxed(hint) for name, hint in hints.items()}
    return _check(function)


def _relaxed(hint: Any) -> Any:
    if isinstance(hint, type) and issubclass(hint, AbstractArray) and hint.array_type in (Array, np.ndarray, Any):
        kind = Real if hint.dtype is Float else hint.dtype
        return kind[_ANY if hint.array_type is not Any else Any, hint.dim_str]
    if get_origin(hint) in (Union, UnionType):
        return Union[tuple(_relaxed(part) for part in get_args(hint))]  # noqa: UP007
    if get_origin(hint) is tuple:
        return tuple[tuple(_relaxed(part) for part in get_args(hint))]
    return _AS_WELL.get(hint, hint) if isinstance(hint, Hashable) else hint
