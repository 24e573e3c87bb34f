"""The pattern of every pixel of a slice, also of one that changes: all channels at once, by the shared solvers."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .. import solvers
from .._console import Console
from ..errors import InputError
from ..operators import Dynamic, Grid, PatternProjector
from ._powder_start import Setup

_COUNTED = {"mlem": 60, "poisson": 100}  # that take the counts themselves, and their steps
_WITHOUT = ("fbp", "sart", "osem")
_DUAL = 0.1  # typical derivative of the likelihood of a count
_TRIED = 24  # channels by which the weight of a penalty is chosen


@dataclass(frozen=True)
class PatternSolver(solvers.SliceOptions):
    """How the pattern of every pixel is found."""

    def count(self) -> int:
        """Count the steps, by default those of the solver."""
        return self.steps or (50 if self.name == "sirt" else _COUNTED.get(self.name) or super().count())

    def checked(self, others: tuple[str, ...] = ()) -> "PatternSolver":
        """Refuse names that are in no table, and solvers without absorption.

        **Raises:** `InputError`.
        """
        super().checked((*others, "poisson"))
        if self.name in _WITHOUT:
            raise InputError(
                f"patterns.name={self.name}: it knows no absorption, or no channels at once; take sirt, cgls, lsqr, "
                "mlem, poisson, fista (penalty=tv) or primal-dual"
            )
        if self.name == "mlem" and self.stopping is not None:
            raise InputError("patterns.stopping: mlem takes counts above the empty beam, without a rule; give steps")
        return self


class PatternSlices(NamedTuple):
    """Hold patterns `(channel, y, x)` [1/(m sr)], those at knots in time `(time, channel, y, x)`, words and figures."""

    patterns: np.ndarray
    knots: np.ndarray | None
    times: np.ndarray | None
    messages: tuple[str, ...]
    figures: Mapping[str, Any]


def slices_of_patterns(
    setup: Setup, options: PatternSolver, console: Console, times: Any = None, knots: int | None = None
) -> PatternSlices:
    """Find the pattern of every pixel of the scan's size, absorption inside.

    **Arguments:** `times` of the views and the number of `knots` in time, for a sample that changes.
    """
    grid = Grid(setup.grid.steps, 1, setup.grid.radius)
    projector = setup.projector(grid)
    nodes = np.abs(setup.data.two_theta[:, None] - setup.nodes).argmin(1)
    light, data = setup.data.light, setup.data
    seen = light > 0
    intensity = np.where(seen, data.counts / np.where(seen, light, 1), 0) - np.where(seen, data.background, 0)
    plain = options.name == "sirt" and options.positive and (options.weights, options.stopping) == ("none", None)
    if plain and knots is None:
        values = _by_matrix(projector.table, intensity, nodes, options)
        return PatternSlices(np.asarray(grid.image(values / setup.step), np.float32), None, None, (), {})
    by_channel = lambda a: jnp.asarray(np.moveaxis(np.broadcast_to(a, light.shape), 2, 1), jnp.float32)
    if options.name in _COUNTED:
        usual = float(light[seen].mean())
        A: Any = PatternProjector.of(projector, grid, nodes, setup.angles, by_channel(light / usual))
        A = A if knots is None else Dynamic.splines(A, times, knots)
        solution = _counted(A, by_channel(data.counts), by_channel(light * data.background), options, console)
        volume, messages, figures = np.asarray(solution.x) / usual, (solution.message,), {}
    else:
        A = PatternProjector.of(projector, grid, nodes, setup.angles)
        A = A if knots is None else Dynamic.splines(A, times, knots)
        weights = by_channel(np.where(seen, light**2 / np.maximum(data.counts, 1), 0))
        options, said = _with_weight(A, by_channel(intensity), options, weights, console)
        solved = solvers.solve_slices(A, by_channel(intensity), options, weights=weights, console=console)
        volume, messages, figures = np.asarray(solved.volume), (*said, *solved.messages), dict(solved.curves)
    volume = volume / np.float32(setup.step)
    messages = tuple(m for m in messages if m)
    if knots is None:
        return PatternSlices(volume, None, None, messages, figures)
    at = np.linspace(A.times[0], A.times[-1], knots)
    return PatternSlices(np.asarray(A.at(at.mean(), jnp.asarray(volume))), volume, at, messages, figures)


def _by_matrix(table: Any, intensity: np.ndarray, nodes: np.ndarray, options: PatternSolver) -> np.ndarray:
    """SIRT by the matrix of a step, which all channels of one absorption share: `(channel, pixel)`."""
    found = np.zeros((intensity.shape[-1], table.shape[-1]), np.float32)
    for node in range(table.shape[1]):
        part = intensity[..., nodes == node]
        relaxation = options.relaxation or 1.5
        found[nodes == node] = np.asarray(
            solvers.sirt_patterns(table[:, node], jnp.asarray(part, jnp.float32), options.count(), relaxation)
        ).T
    return found


def _counted(A: Any, counts: Any, background: Any, options: PatternSolver, console: Console) -> Any:
    """Maximum likelihood of the counts, in units in which amounts are counts, too."""
    line = console.progress(options.count(), f"patterns, {options.name}: step")
    show = lambda report: line.update(report.step, residual=report.loss)
    if options.name == "mlem":
        return solvers.mlem(A, counts, steps=options.count(), background=background, callback=show)
    penalty = options.made_penalty(options.weight, A) if options.weight else None
    usual = float(jnp.mean(jnp.maximum(counts - background, 0)) / A.shape[0])
    return solvers.primal_dual(
        A, counts, penalty, data=solvers.Poisson(background), steps=options.count(), bounds=(0.0, None),
        balance=_DUAL / max(usual, 1e-6), callback=show,
    )  # fmt: skip


def _with_weight(
    A: Any, sinograms: Float[Any, "view channel u"], options: PatternSolver, weights: Any, console: Console
) -> tuple[PatternSolver, tuple[str, ...]]:
    """Choose the weight of a penalty by views left out, in the channels with most in them."""
    penalised = options.name in ("fista", "primal-dual") and options.weight is None and options.penalty != "none"
    if not penalised or isinstance(A, Dynamic) or sinograms.shape[1] <= _TRIED:
        return options, ()
    strong = np.sort(np.argsort(-np.asarray(jnp.mean(sinograms, (0, 2))))[:_TRIED])
    solved = solvers.solve_slices(
        A.channels(strong), sinograms[:, strong], options, weights=weights[:, strong], console=console
    )
    return dataclasses.replace(options, weight=solved.options.weight), solved.messages
