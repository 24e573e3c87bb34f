"""The one driver of all methods: settings, split, stages, judgement, halves, error bars, record."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import __version__
from .._cache import bound_programs, keep_compiled_programs
from .._console import Console
from .._identity import digest, of_scan, of_settings
from .._model import try_cost
from .._result import Result
from ..errors import InputError
from ..modality import Modality, Outcome, Problem, Run, Stage, get, put
from ..quality import failures
from ..scan import Scan
from ..settings import as_dict, build
from ..solvers import Ending
from ..solvers.journal import Journal
from ._unused import refuse_unused, unused

__all__ = ["run", "solve"]

_FIGURE = "figure "  # before the name of a figure in the journal
_BESIDE = "beside "  # before that of what is beside the model
_AFTERWARDS = ("quality", "solver.slab")  # which views are fitted is seen in the data, slabs in rounding only


def run(modality: Modality, scan: Scan, given: Mapping[str, Any], console: Console) -> Result:
    """Prepare, guess, solve in stages, judge on views that were never fitted: the same for every method.

    **Raises:** `InputError` when the scan lacks what the method needs or a setting is unknown.
    """
    keep_compiled_programs()
    bound_programs((modality.name, tuple(scan.counts.shape)))
    settings = build(modality.settings, given, modality.name)
    check_needs(modality, scan)
    refuse_unused(modality, scan)
    idle = unused(modality, scan)
    if idle:
        console.say(idle)
    whole = modality.start(scan, settings, console)
    if getattr(getattr(settings, "loss", None), "function", None) is not None:
        _try(whole)
    fitted, held = modality.split(whole, settings)
    part = whole.of(fitted) if held.size else whole
    journal = Journal(console.checkpoint, identity(modality, part, scan, settings), console.resume)
    _begin(journal, console.resume)

    def shown(now: Any) -> Result:
        there = whole.into(now, fitted) if held.size else now
        return Result(modality.name, modality.quantities(there, scan, settings), dict(now.figures))

    try:
        solved = solve(modality, part, settings, console, journal, shown)
    finally:
        journal.end()
    problem = whole.into(solved.problem, fitted) if held.size else solved.problem
    problem = problem.replace(model=problem.gauge(problem.model))
    refuse_not_finite(problem, scan)
    figures = {"history": solved.history} if solved.history.size else {}
    figures |= problem.figures
    lines = [idle] if idle else []
    lines += [] if solved.ending.finished else [solved.ending.sentence(solved.detail)]
    closing = _Closing(scan, console, figures, lines, solved.ending)
    if held.size:
        label = f"judging {held.size} views that were never fitted"
        closing.judge(label, lambda: _judged(modality, problem, held, settings))
        problem = problem.replace(figures={**problem.figures, **figures})  # error bars may grow by what is missed
    closing.judge("", lambda: modality.verdict(problem, scan, settings))
    quantities = modality.quantities(problem, scan, settings)
    if closing.finished:
        bars = closing.judge("error bars", lambda: modality.error_bars(problem, scan, settings), figures=False)
        quantities = {**quantities, **bars}
    if closing.finished and getattr(getattr(settings, "quality", None), "halves", False):
        compare = lambda: compare_halves(modality, part, solved.problem, scan, settings, console)
        closing.judge("two halves of the data", compare)
    return Result(modality.name, quantities, figures, (*failures(figures, quantities), *lines), as_dict(settings))


def _judged(modality: Modality, problem: Any, held: np.ndarray, settings: Any) -> tuple[dict[str, Any], Any]:
    figures, words = modality.judge(problem.of(held), settings)
    return {"held_out_views": held} | figures, words


class _Closing:
    """What is said of a solve that is done: it is not lost where judging is interrupted, or the input is gone."""

    def __init__(self, scan: Scan, console: Console, figures: dict[str, Any], lines: list[str], ending: Ending):
        self.scan, self.console, self.figures, self.lines = scan, console, figures, lines
        self.finished = ending.finished

    def judge(self, label: str, work: Callable[[], tuple[Any, Any]], figures: bool = True) -> Mapping[str, Any]:
        """Add the figures and the words of some work, or why there are none; give what it found."""
        if label:
            self.console.passing(f"{label} ...")
        try:
            found, words = work()
        except KeyboardInterrupt:
            if not self.finished:
                raise  # the second one
            self.finished = False
            self.lines.append(f"{Ending.INTERRUPTED.value}; not done: {label or 'verdict'}")
            return {}
        except (InputError, OSError) as error:
            if not self.scan.provenance.changed():
                raise
            self.lines.append(f"not done, since the input has changed or gone: {label or 'verdict'} ({error})")
            return {}
        self.lines += [words] if isinstance(words, str) else words
        if figures:
            self.figures |= found
        return found


def refuse_not_finite(problem: Problem, scan: Scan) -> None:
    """Refuse what was solved for where it is no number.

    **Raises:** `InputError` naming the unknown.
    """
    for name in problem.unknowns:
        for leaf in jax.tree.leaves(get(problem.model, name)):
            if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) and not bool(jnp.all(jnp.isfinite(leaf))):
                raise InputError(
                    f"{scan.name}: the {name} found is not finite: no result; check flats, darks and counts "
                    "for NaN and zeros, the pixel size and the distances (diffrecon inspect)"
                )


def _try(problem: Any) -> None:
    """Trace the user's cost on a view or two, before hours of work.

    **Raises:** `InputError` with the line of their file.
    """
    views = np.arange(min(2, problem.views))
    most = max(np.ndim(v) for k, v in problem.data.items() if k not in problem.shared)
    whole = lambda name, values: name in problem.shared and np.ndim(values) < most
    some = {
        name: v if whole(name, v) else jax.ShapeDtypeStruct((views.size, *np.shape(v)[1:]), v.dtype)
        for name, v in problem.data.items()
        if v is not None
    }
    try_cost(problem.cost, problem.model, views, some, "loss.function")


def check_needs(modality: Modality, scan: Scan) -> None:
    """Refuse a scan that lacks what a method cannot do without.

    **Raises:** `MissingMetadata` naming the first thing that is missing.
    """
    for name, (what, example) in modality.needs.items():
        scan.require(name, what, example)


def compare_halves(
    modality: Modality, start: Problem, solved: Problem, scan: Scan, settings: Any, console: Console
) -> tuple[dict[str, Any], str]:
    """Solve two halves of the fitted data by the same stages, and compare them."""
    halves = []
    for name, half in zip(("first", "second"), modality.halves(start, solved, settings), strict=True):
        console.say(f"{modality.name}: {name} half of the data")
        problem = solve(modality, half, settings, console, None).problem
        halves.append(problem.replace(model=half.gauge(problem.model)))
    first, second = halves
    return modality.correlate(first, second, scan)


# ---------------------------------------------------------------------------------------------------- stages
def identity(modality: Modality, problem: Any, scan: Scan, settings: Any) -> dict[str, str]:
    """Name what a journal belongs to: method, version, input, geometry, settings of the solve, the data fitted."""
    made = {"method": modality.name, "version": __version__} | of_scan(scan)
    made |= of_settings(as_dict(settings), leave=_AFTERWARDS)
    return made | {f"fitted {name}": digest(values) for name, values in sorted(problem.data.items())}


def solve(
    modality: Modality,
    problem: Any,
    settings: Any,
    console: Console,
    journal: Journal | None,
    shown: Callable[[Any], Result] | None = None,
) -> Outcome:
    """Run stage after stage; one that is interrupted or fails ends the chain with the best that there is.

    A stage without steps, which has no state of its own when it is interrupted, leaves what those before it have found.

    **Arguments:** `shown` makes a result of what a stage leaves, for a console that shows it.
    """
    plan, history, start = modality.stages(problem, settings, console), [np.zeros(0)], problem
    ending, detail = Ending.DONE, ""
    try:
        stage = next(plan)
        for number in range(10**6):
            try:
                outcome = _run_stage(stage, number, problem, console, journal)
            except KeyboardInterrupt:
                if shown is None or not _found(start, problem):
                    raise
                ending, detail = Ending.INTERRUPTED, f"in {stage.label}"
                plan.close()
                break
            problem = outcome.problem.replace(figures={**problem.figures, **outcome.figures})
            ending, detail = outcome.ending, outcome.detail
            history.append(np.asarray(outcome.history, float))
            if shown is not None:
                console.show(partial(shown, problem))
            if not ending.finished:
                plan.close()
                break
            stage = plan.send(problem)
    except StopIteration as end:
        problem = problem if end.value is None else end.value
    return Outcome(problem, np.concatenate(history), ending, detail)


def _found(start: Problem, problem: Problem) -> bool:
    """Say whether the first of the unknowns, which is what is looked for, is no longer what it was at the start."""
    name = next(iter(start.unknowns))
    before, now = (jax.tree.leaves(get(one.model, name)) for one in (start, problem))
    return any(not np.array_equal(a, b) for a, b in zip(before, now, strict=True))


def _begin(journal: Journal, resume: bool) -> None:
    """Put the journal on disk before the first stage; what another run has left beside it goes."""
    if journal.path is None:
        return
    if not resume:
        for left in journal.beside():
            left.unlink(missing_ok=True)
    journal.begin()


def _plain(value: np.ndarray) -> Any:
    return value.item() if value.ndim == 0 else value


def _typed(model: Any, kept: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Give kept arrays on the device, in the types of the model's fields."""
    return {name: jnp.asarray(value, getattr(get(model, name), "dtype", None)) for name, value in kept.items()}


def _run_stage(stage: Stage, number: int, problem: Any, console: Console, journal: Journal | None) -> Outcome:
    """Solve a stage, or take from the journal what an earlier run has left of it."""
    kept = None if journal is None else journal.read(number)
    if kept is not None:
        kept = dict(kept)  # the journal's own stays whole: later rounds are written with it
        console.say(f"{stage.label}: done before")
        history = kept.pop("history")
        figures, beside = (
            {name.removeprefix(word): kept.pop(name) for name in list(kept) if name.startswith(word)}
            for word in (_FIGURE, _BESIDE)
        )
        problem = problem.replace(model=put(problem.model, _typed(problem.model, kept))).with_beside(beside)
        return Outcome(problem, history, figures={n: _plain(v) for n, v in figures.items()})
    path = None if journal is None or journal.path is None else f"{journal.path}.{number}"
    outcome = stage.solve(problem, Run(console, path, console.resume and path is not None and Path(path).exists()))
    if journal is not None and journal.path is not None and outcome.ending.finished:
        names = tuple(outcome.problem.unknowns) if stage.keeps is None else stage.keeps
        state = {name: get(outcome.problem.model, name) for name in names}
        figures = {f"{_FIGURE}{name}": value for name, value in outcome.figures.items()}
        beside = {f"{_BESIDE}{name}": value for name, value in outcome.problem.beside().items()}
        if state:
            journal.write(number, state | figures | beside | {"history": outcome.history})
        if path is not None:
            Path(path).unlink(missing_ok=True)
    return outcome
