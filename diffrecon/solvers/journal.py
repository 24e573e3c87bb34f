"""Checkpoints: finished rounds of a solve on disk, in one format for all that keep some."""

import glob
import json
import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._identity import Identity, difference
from ..errors import InputError

__all__ = ["Journal"]


class Journal:
    """Keep arrays of finished rounds, by number, in one file that is replaced only by a whole one.

    A run that resumes goes through its rounds again and reads those that are there instead of solving: what happens
    between rounds is computed anew, alike. Without a path nothing is kept on disk.

    **Arguments:** `path` of the file or `None`; `identity` of the problem (input, settings, geometry, version), which
    the file must have, too; `resume`: read what is there.

    **Raises:** `InputError` for a file that is no checkpoint, or that says what differs from this problem.

    ```python
    journal = Journal(None, {"sample": "A", "solver.steps": "20"})
    journal.write(0, {"phase": np.zeros(3)})
    assert journal.read(0)["phase"].size == 3 and journal.read(1) is None
    ```
    """

    def __init__(self, path: str | Path | None, identity: Identity, resume: bool = False):
        self.path = None if path is None else Path(path)
        self.identity, self.rounds = dict(identity), {}
        self._writes = True
        if self.path is not None and resume and self.path.is_file():
            self.rounds = self._stored(self.path)

    def read(self, number: int) -> dict[str, np.ndarray] | None:
        """Return what a round has left, or `None` if it is still to be done."""
        return self.rounds.get(number)

    def begin(self) -> None:
        """Put a journal without rounds on disk: what stages keep beside it belongs to its problem."""
        if not self.rounds:
            self._save()

    def beside(self) -> list[Path]:
        """List the files in which stages keep what they have not finished."""
        if self.path is None:
            return []
        return [p for p in self.path.parent.glob(f"{glob.escape(self.path.name)}.*") if p.suffix != ".part"]

    def end(self) -> None:
        """Leave no journal on disk from which nothing could be gone on with."""
        if self.path is not None and not self.rounds and not self.beside() and not jax.process_index():
            self.path.unlink(missing_ok=True)

    def write(self, number: int, arrays: Mapping[str, Any]) -> None:
        """Keep what a round has left, and forget later rounds; a file that cannot be written warns once."""
        earlier = {n: kept for n, kept in self.rounds.items() if n < number}
        self.rounds = earlier | {number: {name: np.asarray(value) for name, value in arrays.items()}}
        self._save()

    def _save(self) -> None:
        if self.path is None or jax.process_index() or not self._writes:  # all processes hold the same, one writes it
            return
        stored = {f"{n}/{name}": value for n, kept in self.rounds.items() for name, value in kept.items()}
        temporary = self.path.with_name(self.path.name + ".part")
        try:
            with open(temporary, "wb") as file:
                np.savez(file, allow_pickle=False, problem=np.asarray(json.dumps(self.identity)), **stored)
            os.replace(temporary, self.path)
        except OSError as error:
            self._writes = False
            temporary.unlink(missing_ok=True)
            message = f"{self.path}: the checkpoint cannot be written ({error.strerror}); the run goes on without"
            warnings.warn(message, stacklevel=3)

    def _stored(self, path: Path) -> dict[int, dict[str, np.ndarray]]:
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
                kept = dict(json.loads(str(stored["problem"])))
                arrays = {name: stored[name] for name in stored.files if name != "problem"}
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            said = " ".join(str(error).split())[:100]
            raise InputError(
                f"{path}: not a checkpoint of diffrecon, or one that was cut off ({said}); delete it and begin anew"
            ) from error
        if differs := difference(kept, self.identity):
            raise InputError(
                f"{path}: the checkpoint is of another problem, which differs in {differs}; resume with the same "
                "input and settings, or run without resume: that begins anew"
            )
        rounds: dict[int, dict[str, np.ndarray]] = {}
        for key, value in arrays.items():
            number, name = key.split("/", 1)
            rounds.setdefault(int(number), {})[name] = value
        return rounds
