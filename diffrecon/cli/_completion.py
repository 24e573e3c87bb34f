"""What the shell completes after a tab: commands, options, methods, settings; by argcomplete."""

import argparse
from typing import Any

from .._methods import SIMULATED, built_in
from .._optional import require


def complete(parser: argparse.ArgumentParser, **how: Any) -> None:
    """Answer the shell and leave.

    **Raises:** `MissingPackage` without argcomplete.
    """
    for action in _actions(parser):
        if action.dest == "method":
            action.completer = _simulated if action.option_strings == [] else _methods  # type: ignore[attr-defined]
        elif action.dest == "sets":
            action.completer = _assignments  # type: ignore[attr-defined]
        elif action.dest == "key":
            action.completer = _keys  # type: ignore[attr-defined]
    require("argcomplete", "completion").autocomplete(parser, **how)


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """List the arguments of a parser and of its commands."""
    found = []
    for action in parser._actions:
        commands = action.choices.values() if isinstance(action, argparse._SubParsersAction) else []
        found += [action, *(inner for command in commands for inner in _actions(command))]
    return found


def _methods(**_: Any) -> list[str]:
    return built_in()


def _simulated(**_: Any) -> list[str]:
    return list(SIMULATED)


def _keys(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    from ._explain import keys

    return list(keys(parsed_args.method))


def _assignments(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    return [f"{key}=" for key in _keys(parsed_args)]
