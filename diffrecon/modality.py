"""The door for new methods: what a modality has to say, and what it gets for that.

A `Modality` turns a scan into a `Problem` (model, data, cost, unknowns), names the stages in which it is solved and the
quantities that are written. Settings, splitting off views that are never fitted, solving, the journal of finished
stages, Ctrl-C, resuming, judging, halves, error bars, verdict and record are those of the one driver in `recipes`. The
package's own methods come through the same door: `register`, the entry point `diffrecon.modalities` of an installed
package, or `diffrecon reconstruct --with FILE.py`.
"""

import dataclasses
import importlib
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax

from . import quality
from ._console import Console
from ._look import REGISTERED, Look, entry_points, names
from ._model import Batch
from ._result import Quantity, Result
from .errors import InputError, nearest
from .frames import pick_views
from .quality.held_out import held_out_figures, split_views
from .scan import Scan
from .solvers import Ending, minimise

__all__ = [
    "Modality", "Outcome", "Problem", "Run", "Stage", "Work", "descent", "find", "names", "recognise", "register",
    "subset",
]  # fmt: skip

_JUDGE = optax.adam(optax.cosine_decay_schedule(1.0, 60, 0.02))  # one object for all: one program
_BATCH = 2**25  # predicted values that are in memory at once while unseen views are judged


# ---------------------------------------------------------------------------------------------------- problem
@dataclasses.dataclass(frozen=True)
class Problem:
    """What is solved. A modality may subclass it to carry more from one stage to the next.

    **Fields:**

    - `model`: a `diffrecon.Model`, or any pytree that is called with views.
    - `data`: arrays whose first axis is the view, by name; those named in `shared` serve all views. Frames that lie in
      files stay there.
    - `cost`: `(model, batch) -> scalar`; `unknowns`: names of fields with their steps, as for `minimise`.
    - `per_view`: fields of the model (dotted where nested) with one entry a view.
    - `nuisance`: those of them that are fitted, with these steps, in views held out before such views judge.
    - `gauge`: fixes in a solved model what no data can tell.
    - `figures`: numbers and curves of the stages so far, which go into the result's quality.
    """

    model: Any
    data: Mapping[str, Any]
    cost: Callable[[Any, Batch], Any]
    unknowns: Mapping[str, Any]
    per_view: tuple[str, ...] = ()
    nuisance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    gauge: Callable[[Any], Any] = lambda model: model
    shared: tuple[str, ...] = ("mask",)
    figures: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def views(self) -> int:
        """Count the views."""
        return next(len(v) for k, v in self.data.items() if k not in self.shared)

    def replace(self, **fields: Any) -> Self:
        """Make the same problem with some fields changed."""
        return dataclasses.replace(self, **fields)

    def of(self, views: np.ndarray) -> Self:
        """Make the problem of some views. A model with a method `of_views` knows how it is cut."""
        cut = getattr(self.model, "of_views", None)
        model = cut(views) if cut else put(self.model, {n: get(self.model, n)[views] for n in self._by_view()})
        return self.replace(model=model, data=subset(self.data, views, self.shared))

    def into(self, part: "Problem", views: np.ndarray) -> Self:
        """Lay what the problem of some views has solved into the one of all."""
        by_view = self._by_view()
        solved = {n: get(part.model, n) for n in part.unknowns if n not in by_view}
        back = {n: _laid(get(self.model, n), views, get(part.model, n)) for n in by_view}
        extra = {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
        return self.replace(**extra | {"model": put(self.model, solved | back), "data": self.data})

    def beside(self) -> dict[str, np.ndarray]:
        """Give what stages find and no field of the model holds; the journal keeps it with the fields."""
        return {}

    def with_beside(self, kept: Mapping[str, np.ndarray]) -> Self:
        """Take back what `beside` gave, from the journal of an earlier run; the model is in its place already."""
        return self

    def predict(self, views: np.ndarray) -> np.ndarray:
        """Predict the measurement of some views, as many at a time as memory allows."""
        one = eqx.filter_eval_shape(self.model, np.asarray(views[:1]))
        size = max(1, _BATCH // max(one.size, 1))
        parts = [np.asarray(_predicted(self.model, views[i : i + size])) for i in range(0, len(views), size)]
        return np.concatenate(parts)

    def __add__(self, other: "Problem") -> "Problem":
        """Join two problems over the same views: one cost, models side by side; unknowns of one name are shared."""
        return _joined(self, other)

    def _by_view(self) -> list[str]:
        return [n for n in self.per_view if get(self.model, n) is not None]


@eqx.filter_jit
def _predicted(model: Any, views: np.ndarray) -> Any:
    return model(views)


def get(model: Any, name: str) -> Any:
    """Read a field, dotted where it is nested."""
    for part in name.split("."):
        model = getattr(model, part)
    return model


def put(model: Any, fields: Mapping[str, Any]) -> Any:
    """Change fields of a model, dotted where they are nested."""
    for name, value in fields.items():
        model = eqx.tree_at(lambda m, n=name: get(m, n), model, value, is_leaf=lambda x: x is None)
    return model


def _laid(whole: Any, views: np.ndarray, part: Any) -> Any:
    """Lay entries of some views into those of all, on the host: no program is compiled for it."""
    values = np.array(whole)
    values[views] = part
    return jnp.asarray(values)


def subset(data: Mapping[str, Any], views: np.ndarray, shared: Iterable[str] = ("mask",)) -> dict[str, Any]:
    """Pick the data of some views; frames in files stay there, and a mask of one frame serves all."""
    one = next((np.ndim(v) for k, v in data.items() if k not in shared), 0)
    whole = lambda name, value: name in shared and np.ndim(value) < one
    return {name: value if whole(name, value) else pick_views(value, views) for name, value in data.items()}


# ---------------------------------------------------------------------------------------------------- sums
class Pair(eqx.Module):
    """Hold the models of two problems that are solved together; fields in `tied` of the second are the first's."""

    first: Any
    second: Any
    tied: tuple[str, ...] = eqx.field(static=True, default=())

    def both(self) -> tuple[Any, Any]:
        """Give both models, the second with what it shares."""
        return self.first, put(self.second, {n: get(self.first, n) for n in self.tied})

    def __call__(self, views: Any) -> Any:
        """Predict the first measurement."""
        return self.first(views)


def _joined(one: Problem, other: Problem) -> Problem:
    tied = tuple(n for n in one.unknowns if n in other.unknowns)

    def cost(pair: Pair, batch: Batch) -> Any:
        first, second = pair.both()
        fields = lambda side: {k[2:]: getattr(batch, k) for k in names if k.startswith(side)}
        return one.cost(first, Batch(batch.views, fields("a_"))) + other.cost(second, Batch(batch.views, fields("b_")))

    data = {f"a_{k}": v for k, v in one.data.items()} | {f"b_{k}": v for k, v in other.data.items()}
    names = tuple(data)
    unknowns = {f"first.{k}": v for k, v in one.unknowns.items()}
    unknowns |= {f"second.{k}": v for k, v in other.unknowns.items() if k not in tied}
    side = lambda word, values: tuple(f"{word}{v}" for v in values)
    return Problem(
        Pair(one.model, other.model, tied), data, cost, unknowns,
        per_view=side("first.", one.per_view) + side("second.", other.per_view),
        nuisance={f"first.{k}": v for k, v in one.nuisance.items()},
        gauge=lambda pair: Pair(one.gauge(pair.first), other.gauge(pair.both()[1]), tied),
        shared=side("a_", one.shared) + side("b_", other.shared),
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- stages
class Run(NamedTuple):
    """Where a stage reports and keeps its state.

    **Fields:** `console`; `checkpoint`, the file for the state of this stage, or `None`; `resume`, go on from it.
    """

    console: Console
    checkpoint: str | None = None
    resume: bool = False


class Outcome(NamedTuple):
    """What a stage leaves: the problem with what it solved, the cost of every step, how it ended, figures of its own.

    Of the problem, the journal keeps the fields of the model that the stage names, of the rest the figures and what is
    `beside` the model: they
    are there, in `Problem.figures`, after a run that was interrupted too.
    """

    problem: Any
    history: np.ndarray
    ending: Ending = Ending.DONE
    detail: str = ""  # what is special to the ending of this run
    figures: Mapping[str, Any] = {}


class Stage(NamedTuple):
    """One part of a solve: `solve(problem, run) -> Outcome`.

    **Fields:** `label` names it in progress and journal; `keeps` are the fields of the model that the journal stores,
    by default the problem's unknowns after the stage, none for `()`.
    """

    label: str
    solve: Callable[[Any, Run], Outcome]
    keeps: tuple[str, ...] | None = None


Work = Generator[Stage, Any, Any]
"""What `Modality.stages` is: it yields stages and is sent the problem as each leaves it."""


def descent(label: str, optimiser: optax.GradientTransformation, steps: int, **options: Any) -> Stage:
    """Make a stage of `minimise`: an optax optimiser on the problem's cost and unknowns.

    **Arguments:** `options` of `minimise`: `batch_size`, `project`, `seed`, `unknowns`, ...
    """

    def solve(problem: Problem, run: Run) -> Outcome:
        settings: dict[str, Any] = {"unknowns": problem.unknowns, **options}
        solution = minimise(
            problem.cost, problem.model, problem.data, optimiser, steps=steps, console=run.console, label=label,
            checkpoint=run.checkpoint, resume=run.resume, **settings,
        )  # fmt: skip
        return Outcome(problem.replace(model=solution.value), solution.history, solution.ending, solution.detail)

    return Stage(label, solve)


# ---------------------------------------------------------------------------------------------------- modality
class Modality(Look):
    """A method: subclass it, say what is special, register it.

    **To write:** `name`, `settings` (a frozen dataclass of sections, see `diffrecon.settings`), `start`, `stages`,
    `quantities`. **To change where the default does not fit:** everything else. Docs: extending.md has a modality of
    its own in one file.
    """

    settings: ClassVar[type]

    def start(self, scan: Scan, settings: Any, console: Console) -> Problem:
        """Prepare the data and make the first guess.

        **Raises:** `InputError` where the scan or the settings do not fit.
        """
        raise NotImplementedError(f"{type(self).__name__} must say how its problem starts")

    def split(self, problem: Any, settings: Any) -> tuple[np.ndarray, np.ndarray]:
        """Choose the views that are fitted and those that never are, by the section `quality`."""
        return split_views(problem.views, getattr(settings, "quality", None))

    def stages(self, problem: Any, settings: Any, console: Console) -> Work:
        """Yield the stages of the solve, each with the problem as the one before has left it."""
        raise NotImplementedError(f"{type(self).__name__} must name the stages of its solve")
        yield

    def judge(self, problem: Any, settings: Any) -> tuple[dict[str, Any], list[str]]:
        """Judge the model on a problem of views that were never fitted: figures, and the same in words.

        Its nuisance parameters are fitted first; nothing else moves.
        """
        if problem.nuisance:
            fit = {"steps": 60, "unknowns": problem.nuisance}
            solution = minimise(problem.cost, problem.model, problem.data, _JUDGE, **fit)
            problem = problem.replace(model=solution.value)
        counts = np.asarray(problem.data["counts"])
        mask = np.broadcast_to(True if problem.data.get("mask") is None else problem.data["mask"], counts.shape)
        seed = getattr(getattr(settings, "quality", None), "seed", 0)
        return held_out_figures(counts, problem.predict(np.arange(problem.views)), mask, seed,
                                        f"{problem.views} views")  # fmt: skip

    def halves(self, start: Any, solved: Any, settings: Any) -> tuple[Any, Any]:
        """Make the problems of two halves of the data, without priors that would sharpen both alike.

        **Arguments:** the problem as it began, and as it was solved: for a geometry that both halves are to share.
        """
        views = np.arange(start.views)
        return start.of(views[::2]), start.of(views[1::2])

    def image(self, problem: Any) -> np.ndarray:
        """Give what two halves are compared by: an image or a volume."""
        return np.asarray(get(problem.model, next(iter(problem.unknowns))))

    def correlate(self, first: Any, second: Any, scan: Scan) -> tuple[dict[str, Any], str]:
        """Compare the solved halves: figures, and the same in words."""
        images = [self.image(half) for half in (first, second)]
        measure = quality.ring_correlation if images[0].ndim == 2 else quality.shell_correlation
        correlation = measure(*images, pixel_size=scan.pixel_size)
        return correlation.as_quality(), f"two halves of the views: {correlation}"

    def error_bars(self, problem: Any, scan: Scan, settings: Any) -> tuple[dict[str, Quantity], list[str]]:
        """Give error bars as quantities, and what is to be said of them."""
        return {}, []

    def quantities(self, problem: Any, scan: Scan, settings: Any) -> dict[str, Quantity]:
        """Give what is written, the default picture first."""
        raise NotImplementedError(f"{type(self).__name__} must say what it writes")

    def preview(self, scan: Scan, settings: Any, console: Console) -> Result:
        """Take a first look in seconds.

        **Raises:** `InputError` for methods that have none.
        """
        raise InputError(f"{self.name} has no preview")

    def wants_slabs(self, scan: Scan, settings: Any) -> bool:
        """Say whether a volume is to go slab by slab into its file, by the settings or for want of memory."""
        return False

    def slabs(self, scan: Scan, settings: Any, console: Console, writer: Callable[..., Any]) -> Result:
        """Reconstruct slab by slab into what `writer` makes.

        **Raises:** `InputError` for methods that do not.
        """
        raise InputError(f"{self.name} does not go slab by slab into a writer")

    def verdict(self, problem: Any, scan: Scan, settings: Any) -> tuple[dict[str, Any], list[str]]:
        """Give further figures of the result, and lines for the user."""
        return {}, []


# ---------------------------------------------------------------------------------------------------- the register
def register(modality: Modality | type[Modality] | str, name: str | None = None) -> None:
    """Make a method known to `reconstruct` and to the command line.

    **Arguments:** `modality`: an instance, a class, or a text `"package.module:Class"` that is imported when the method
    is first used; then with `name`.

    **Raises:** `InputError` for something that is no modality.
    """
    if isinstance(modality, str):
        REGISTERED[str(name)] = modality
        return
    made = modality() if isinstance(modality, type) else modality
    if not isinstance(made, Modality) or not getattr(made, "name", "") or not hasattr(made, "settings"):
        raise InputError(f"{modality!r} is no modality: subclass diffrecon.Modality and give it a name and settings")
    REGISTERED[made.name] = made


def find(name: str) -> Modality:
    """Find a method by its name.

    **Raises:** `InputError` for an unknown one, with the nearest known.
    """
    if name not in REGISTERED:
        point = next((p for p in entry_points() if p.name == name), None)
        if point is None:
            raise InputError(f"there is no method {name!r}{nearest(name, names())}")
        register(point.load())
    if isinstance(REGISTERED[name], str):
        module, _, attribute = REGISTERED[name].partition(":")
        register(getattr(importlib.import_module(module), attribute))
    return REGISTERED[name]


def recognise(scan: Scan) -> str | None:
    """Ask every method whether a scan that names none looks like one of its own."""
    return scan.method or next((name for name in names() if find(name).recognises(scan)), None)
