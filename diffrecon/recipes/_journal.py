"""Rounds of a solve on disk, so that an interrupted run goes on after its last finished round."""

import hashlib
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._console import Console
from ..errors import InputError

__all__ = ["Journal"]


class Journal:
    """Arrays of finished rounds, by number.

    A run that resumes goes through its rounds again and reads those that are there instead of solving: what happens
    between rounds is computed anew, alike. Without `console.checkpoint` nothing is kept.
    """

    def __init__(self, console: Console, counts: Any, settings: Mapping[str, Any] | None = None):
        self.path = None if console.checkpoint is None else Path(console.checkpoint)
        self.rounds: list[dict[str, np.ndarray]] = []
        self.problem = counts if settings is None else self._fingerprint(counts, settings)
        if self.path is not None and console.resume and self.path.is_file():
            self.rounds = self._read(self.path)

    @staticmethod
    def _fingerprint(counts: Any, settings: Mapping[str, Any]) -> str:
        solved = {section: values for section, values in settings.items() if section != "quality"}  # judged afterwards
        said = repr(sorted((section, sorted(values.items(), key=str)) for section, values in solved.items()))
        return hashlib.sha256(said.encode() + np.ascontiguousarray(counts).tobytes()).hexdigest()

    def read(self, number: int) -> dict[str, np.ndarray] | None:
        """What a round found, or `None` if it is still to be done."""
        return self.rounds[number] if number < len(self.rounds) else None

    def write(self, number: int, found: Mapping[str, Any]) -> None:
        """Keep what a round found. The file is replaced only when the new one is whole.

        **Raises:** `InputError` when it cannot be written.
        """
        self.rounds = [*self.rounds[:number], {name: np.asarray(value) for name, value in found.items()}]
        if self.path is None or jax.process_index():  # all processes find the same, one writes it
            return
        arrays = {f"{i}/{name}": value for i, kept in enumerate(self.rounds) for name, value in kept.items()}
        temporary = self.path.with_name(self.path.name + ".part")
        try:
            with open(temporary, "wb") as file:
                np.savez(file, allow_pickle=False, problem=np.asarray(self.problem), **arrays)
            os.replace(temporary, self.path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise InputError(f"{self.path}: the checkpoint cannot be written: {error.strerror}") from error

    def _read(self, path: Path) -> list[dict[str, np.ndarray]]:
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
                problem = str(stored["problem"])
                arrays = {name: stored[name] for name in stored.files if name != "problem"}
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: not a checkpoint of diffrecon ({error})") from error
        if problem != self.problem:
            raise InputError(f"{path}: a checkpoint of other data or settings; delete it to start anew")
        return _by_round(arrays)


def _by_round(arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    numbers: Sequence[int] = sorted({int(name.split("/")[0]) for name in arrays})
    return [
        {name.split("/")[1]: value for name, value in arrays.items() if int(name.split("/")[0]) == number}
        for number in numbers
    ]
