"""Errors that a user can cause, each carried by one clear line."""

import difflib
from typing import Any


class InputError(ValueError):
    """What the user gave cannot be used: a file, a value, a name.

    The message is one line that says what is wrong, where, and what to do. The command line prints it and leaves
    with exit code 2; in Python it is an ordinary `ValueError`.
    """


class MissingMetadata(InputError):
    """A number that the method needs is not in the file.

    **Arguments:** `name` is the key that supplies it (`"geometry.focus_to_sample"`), `what` says it in words,
    `where` names the file, `example` is a value with its unit.
    """

    def __init__(self, name: str, what: str, where: str, example: str):
        self.name = name
        super().__init__(
            f'{where}: {what} is not in the file; supply it with --set {name}="{example}" '
            f'(in Python: open_scan(..., {name.split(".")[-1]}="{example}"))'
        )


class MissingPackage(ImportError):
    """An optional package is needed and not installed; the message names the command that installs it."""


def nearest(name: str, known: Any) -> str:
    """A hint: the nearest known name, or all of them."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f" (known: {', '.join(sorted(known)) or 'none'})"
