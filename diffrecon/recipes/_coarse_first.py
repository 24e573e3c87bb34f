"""Ptychography on finer pixels than the detector's begins on the detector's: for how long, and the coarse part."""

import dataclasses
from collections.abc import Callable
from typing import Any

from ..modality import Outcome, Problem, Run, Stage
from ..models import coarser, has_coarser, refined
from ..solvers import EngineTask, run_engine

# Of the epochs of a plain descent: so many on the detector's pixels, which cost a fifth, and as many on finer ones.
_SHARE = 0.36
SQUARES = 0.95  # rate of Adam's mean square: it forgets the steep beginning within few batches


def epochs_of(problem: Problem, solver: Any) -> tuple[int, int]:
    """Say how many epochs a coarse model takes, and how many the problem's own after it.

    None where there is nothing coarser, where object or probe are known, and where the user says how many or which.
    """
    views = problem.views
    epochs = solver.epochs or max(10, -(-solver.steps // -(-views // min(solver.batch_size, views))))
    begins = {"object", "probe"} <= set(problem.unknowns) and has_coarser(problem.model)
    if solver.stages or solver.epochs or not begins:
        return 0, epochs
    share = max(10, round(_SHARE * epochs))
    return share, share


def coarse_stage(name: str, epochs: int, task_of: Callable[..., EngineTask], parts: Callable[..., Any]) -> Stage:
    """Make the stage that solves on the detector's pixels with one mode.

    **Arguments:** `name` of the optimiser; `task_of(problem, run, label)`; `parts` gives `unknowns` and `cost` of a
    problem.
    """
    label = "ptychography: the detector's pixels: step"

    def solve(problem: Any, run: Run) -> Outcome:
        model, factor = coarser(problem.model), problem.model.oversampling
        data = {**problem.data, "nominal": problem.data["nominal"] / factor}
        small, task = problem.replace(model=model, data=data), task_of(problem, run, label)
        # Steps are long until late: what is left of their noise the fine part removes.
        rate, late = 2 * task.learning_rate, max(task.constant, 0.8)
        task = dataclasses.replace(task, data=data, learning_rate=rate, constant=late, **parts(small))
        end = run_engine(name, model, epochs, task)
        return Outcome(problem.replace(model=refined(end.value, problem.model)), end.history, end.ending, end.detail)

    return Stage(label, solve)
