"""Errors that a user can cause, each carried by one clear line."""

import difflib
import re
from collections.abc import Mapping
from typing import Any

_LIKE = 0.8  # of two spellings, more where the words of a setting name what was asked for


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


def suggestion(name: str, says: Mapping[str, str]) -> str:
    """A hint: the setting that was meant by `section.key`, in any section, by its spelling and by what it is about.

    **Arguments:** `says`: what every known `section.key` does, in words. Empty where nothing comes close.
    """
    scores = {known: _likeness(name, known, words) for known, words in says.items()}
    best = max(scores, key=lambda known: scores[known], default="")
    return f"; did you mean {best}?" if best and scores[best] > _LIKE else ""


def _likeness(name: str, known: str, words: str) -> float:
    section, _, key = name.rpartition(".")
    its_section, _, its_key = known.rpartition(".")
    spelling = difflib.SequenceMatcher(None, key, its_key).ratio()
    about = set(re.findall(r"[a-z]+", f"{its_key.replace('_', ' ')} {words.lower()}"))
    parts = key.split("_")
    found = sum(any(word in (part, f"{part}s") for word in about) for part in parts)
    return spelling + 0.35 * found / len(parts) + 0.2 * (section == its_section)
