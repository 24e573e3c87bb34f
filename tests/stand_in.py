"""A method that takes no time in place of every other: through the same door as all."""

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffrecon import modality, recipes
from diffrecon._result import Quantity
from diffrecon.modality import Modality, Outcome, Problem, Stage
from diffrecon.settings import section, setting


@dataclass(frozen=True)
class Quality:
    held_out: float = setting(0.1, "nothing")


@dataclass(frozen=True)
class Model:
    modes: int = setting(1, "nothing")


@dataclass(frozen=True)
class Loss:
    function: Callable[..., Any] | None = setting(None, "nothing")


@dataclass(frozen=True)
class Solver:
    steps: int = setting(10, "nothing")
    name: str = setting("adam", "or interrupted: as if Ctrl-C were pressed")


@dataclass(frozen=True)
class Settings:
    quality: Quality = section(Quality)
    model: Model = section(Model)
    loss: Loss = section(Loss)
    solver: Solver = section(Solver)


class StandIn(Modality):
    """Gives the mean frame, and records what it was asked: (scan, settings, console)."""

    settings = Settings

    def __init__(self, name: str, asked: list):
        self.name, self.asked = name, asked  # type: ignore[misc]

    def start(self, scan, settings, console):
        self.asked.append((scan, settings, console))
        return Problem(None, {"counts": np.zeros((1, 2, 2))}, lambda model, batch: 0.0, {})

    def split(self, problem, settings):
        return np.arange(1), np.zeros(0, int)

    def stages(self, problem, settings, console):
        if settings.solver.name == "interrupted":
            yield Stage("interrupted", interrupted)

    def verdict(self, problem, scan, settings):
        return {"residual": 0.5, "history": np.array([3.0, 2.0, 1.0])}, ["looks fine"]

    without_input = {"image": Quantity(np.ones((2, 2), np.float32), "counts", ("y", "x"), None, "nothing")}

    def quantities(self, problem, scan, settings):
        mean = np.asarray(scan.counts, np.float32).mean(0)
        return {"image": Quantity(mean, "counts", ("y", "x"), None, "mean frame")}


def interrupted(problem, run):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(10**7):
            pass
    except KeyboardInterrupt:
        run.console.say("stopped")
    return Outcome(problem, np.zeros(0))


@contextlib.contextmanager
def in_place_of_all(asked: list):
    """Put a stand-in in the place of every method, and take it away again."""
    originals = [modality.find(name) for name in recipes.methods()]
    for method in originals:
        modality.register(StandIn(method.name, asked))
    yield
    for method in originals:
        modality.register(method)
