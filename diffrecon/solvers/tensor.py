"""Tensor tomography: weighted least squares with joint total variation, whose strength held-out views choose.

The cost is `1/2 sum w (A a - d)^2 + s sum_voxel sqrt(|grad u|^2 + e^2) + t sum_voxel sqrt(|u - u_axis|^2 + e^2)` with
`u = a / p`: one edge for all coefficients of a voxel, mean and orientation share their boundaries (vectorial total
variation, Blomgren & Chan 1998), and what is not rotationally symmetric about the axis of its voxel, `u - u_axis`, has
to pay for itself (fibres are: Liebi et al., Nature 527, 349 (2015)). Weights are transmission / prediction, the inverse
variance of counts that were divided by flux and transmission, up to the flux, which the residual gives. Solved by
lagged diffusivity (Vogel & Oman 1996): a few quadratic problems (`tensor_quadratic`) in the box that the sample fills
(`tensor_support`), together with small motions of the views where the offsets that are given are wrong.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._console import Console
from ..errors import InputError
from ..operators.scattering import TensorProjector, harmonic_degrees
from . import tensor_poses
from .ending import Ending
from .tensor_quadratic import Strength, advance, begin, curvature_of
from .tensor_support import find_support

# A plain union: the ArrayLike of numpy >= 2.5 is an alias that jaxtyping cannot subscript.
ArrayLike = np.ndarray | Array

__all__ = ["TensorSolution", "tensor_tomography"]

# The data's variance is taken as at least this fraction of that of the brightest: the rim of the sample, where a voxel
# is too coarse a model for its edge, would otherwise outweigh everything.
_DARKEST = 0.2
# Steps of coefficients are counted in this fraction of the mean intensity, in less for l > 2, which vary less.
_PRIOR_SIZE = 0.3
# Steps below this many units are noise and cost quadratically, larger ones are edges.
_EDGE = 0.03
# Candidate strengths, strong to weak, in units of the noise: each is half of the one before. What is gained below the
# given fraction of the held-out residual is not worth another candidate.
_STRONGEST, _CANDIDATES, _WORTHWHILE = 8.0, 6, 0.003
_FIRST_STEPS, _HALF_STEPS = 8, 6
# Quadratic problems go on while one changes the prediction by more than this part of the misfit (mean squares): in the
# end, and on the way there. At most so many times as many.
_DONE, _NEARLY, _PATIENCE = 0.005, 0.06, 4
# Alignment: quadratic problems at most, steps of each; motions below so many pixels (rms) are those that noise and
# voxels make, and steps below so many end it; no step of a view is longer than the linear theory reaches.
_ALIGNMENTS, _ALIGNMENT_STEPS, _AGREED, _SETTLED, _REACH = 10, 4, 0.12, 0.03, 2.0


class TensorSolution(NamedTuple):
    """What `tensor_tomography` gives back.

    **Fields:** `coefficients` `(z, y, x, lm)`; `projector`, which predicts the data from them, with the poses that were
    found; `smoothness`, the strength used; `path` `(candidate, 2)` of strength and held-out residual, in units of the
    noise of the first fit (empty where the strength was given); `residual` `(view,)`, weighted mean square a view;
    `motions` `(view, number)` by name (`align`; empty where those given agree with the data) and `agreement`, by how
    much the views would move or have moved [pixel, rms; nan where nothing was looked for]; `halves`, where asked for,
    what every second view makes of the coefficients; `ending`, an `Ending`: after Ctrl-C all is that of the best so
    far.
    """

    coefficients: Float[Array, "z y x lm"]
    projector: TensorProjector
    smoothness: float
    path: np.ndarray
    residual: np.ndarray
    motions: dict[str, np.ndarray]
    agreement: float
    halves: tuple[Array, Array] | None = None
    ending: Ending = Ending.DONE


def tensor_tomography(
    A: TensorProjector,
    data: Any,
    *,
    weights: Float[ArrayLike, "view row column segment"] | None = None,
    transmission: Float[ArrayLike, "view row column"] | None = None,
    smoothness: float | None = None,
    uniaxial: float = 4.0,
    align: Sequence[str] = ("shifts",),
    held_out: int = 9,
    rounds: int = 3,
    steps: int = 4,
    halves: bool = False,
    console: Console | None = None,
) -> TensorSolution:
    """Solve for the spherical-harmonic coefficients of every voxel from tensor SAXS projections.

    **Arguments:**

    - `A`: the projector, which holds poses, volume and highest order. Eight segments and tilts to 45 degrees carry
      `ell_max` 6 to 8.
    - `data`: intensities `(view, row, column, segment)`, in a file or in memory, divided by flux and transmission; any
      unit.
    - `weights`: 0 where a datum is bad, 1 elsewhere (or any relative confidence).
    - `transmission`: makes the weights right where the sample absorbs.
    - `smoothness`: strength of the joint total variation. Default: it is halved from a strong one until the residual of
      every `held_out`-th view, not used meanwhile, falls no more; these views then join the last rounds.
    - `uniaxial`: strength, relative to the smoothness, of what holds each voxel to rotational symmetry about its axis.
    - `align`: what is looked for of each view besides (`solvers.tensor_poses`): "shifts", "angles", "wobble", "flux".
      What is found is used where it matters; how the sample lies, and how bright it is on the whole, no data can tell:
      that stays as given.
    - `rounds` and `steps`: quadratic problems a strength, more where they still change the prediction, and
      conjugate-gradient steps of each.
    - `halves`: go on from the solution with every second view, and with the others: what error bars are made of.

    **Returns:** a `TensorSolution`.

    **Raises:** `InputError` for shapes that do not agree, data that are not finite where they count, and no signal.

    **Cost:** about 30 + 10 c projections and back-projections of the box that the sample fills for c strengths tried
    (three or four), and 60 more where shifts are wrong.

    ```python
    from diffrecon.operators import TensorGeometry, TensorProjector, rotations_from_angles
    geometry = TensorGeometry(rotations_from_angles(np.linspace(0, np.pi, 4), np.zeros(4)))
    A = TensorProjector(geometry, (6, 6, 6), (6, 6), ell_max=2)
    intensity = A(jnp.zeros((6, 6, 6, 6)).at[2:4, 2:4, 2:4, 0].set(1.0))
    coefficients = tensor_tomography(A, intensity, smoothness=1.0, rounds=1, align=()).coefficients  # (6, 6, 6, 6)
    ```
    """
    console = console or Console(quiet=True)
    values, trust = _checked(A, data, weights, transmission)
    views = np.arange(len(values))
    every = max(held_out, 2)
    held = views % every == every // 2 if smoothness is None else np.zeros(len(views), bool)
    names = tensor_poses.checked(align)
    solve = _Solve(A, values, trust, uniaxial, _Shown(console))
    reached = _Reached(solve.x, _STRONGEST if smoothness is None else smoothness, [])
    ending, parts = Ending.DONE, None
    try:
        solve.first_fit(held)
        if names:
            solve.align(names, held)
        reached.x = solve.x
        if smoothness is None:
            _choose(solve, reached, held, max(rounds - 2, 1), steps + 1)
        solve.start(reached.x)
        last = rounds if smoothness is not None else max(rounds - 1, 1)
        solve.rounds(reached.smoothness, last, steps, names=names if solve.motions else (), settled=_DONE)
        reached.x = solve.x
        parts = _halves(solve, reached.smoothness) if halves else None
    except KeyboardInterrupt:
        ending = Ending.INTERRUPTED
        console.say(ending.sentence())
    solve.start(reached.x)
    path = np.reshape(np.asarray(reached.path, float), (-1, 2))
    return TensorSolution(
        solve.support.whole(reached.x), tensor_poses.moved(A, solve.motions), float(reached.smoothness), path,
        np.asarray(solve.residual()), solve.motions, solve.agreement, parts, ending,
    )  # fmt: skip


@dataclasses.dataclass
class _Reached:
    """The best solution so far, its strength, and what other strengths gave: also what Ctrl-C leaves."""

    x: Array
    smoothness: float
    path: list[tuple[float, float]]


class _Shown:
    """A progress line for each row of conjugate-gradient steps."""

    def __init__(self, console: Console):
        self.console = console

    def row(self, total: int, label: str) -> None:
        """Begin a line."""
        self.line, self.done = self.console.progress(total, f"tensor SAXS: {label}, step"), 0

    def step(self) -> None:
        """Show one step more."""
        self.done += 1
        self.line.update(self.done)


class _Fit(eqx.Module):
    """Data, how far each is to be trusted, and the units in which noise, mean and prior size are about one."""

    data: Float[Array, "view row column segment"]
    trust: Float[Array, "view row column segment"]
    darkest: Float[Array, ""]
    prior: Float[Array, " lm"]
    gain: Float[Array, ""]
    seen: Float[Array, "z y x 1"]


class _Solve:
    """Hold the box's problem and where its solution stands."""

    def __init__(self, A: TensorProjector, data: np.ndarray, trust: np.ndarray, uniaxial: float, show: _Shown):
        self.whole, self.values, self.uniaxial, self.show = A, (data, trust), uniaxial, show
        self.motions: dict[str, np.ndarray] = {}
        self.agreement = np.nan
        self._begin()

    def _begin(self) -> None:
        """Find the box of the sample in the geometry as it is known, and begin with an empty one."""
        data, trust = self.values
        degrees, _ = harmonic_degrees(self.whole.ell_max)
        prior = (_PRIOR_SIZE / np.sqrt(np.maximum(degrees / 2, 1))).astype(np.float32)
        darkest = np.float32(_DARKEST * np.percentile(data.mean(-1), 99))
        now = tensor_poses.moved(self.whole, self.motions)
        self.support = find_support(now.projector, data.mean(-1), trust.max(-1) > 0)
        self.given = self.support.projector(self.whole)
        self.A = tensor_poses.moved(self.given, self.motions)
        self.curvature = curvature_of(self.A, prior.astype(float))
        inside = jnp.asarray(self.support.inside[..., None], jnp.float32)
        parts = (self.support.frames(data), self.support.frames(trust), darkest, prior, np.float32(1))
        self.fit = _Fit(*(jnp.asarray(part) for part in parts), seen=inside)
        self.x = jnp.zeros((*self.support.inside.shape, len(prior)), jnp.float32)
        self.prediction = jnp.zeros_like(self.fit.data)

    def start(self, x: Array) -> None:
        """Go to a solution."""
        if x is not self.x:
            self.x, self.prediction = x, self.A(x)

    def residual(self) -> Float[Array, " view"]:
        """Weighted mean square of each view."""
        return _residual(self.fit, self.prediction)

    def first_fit(self, held: np.ndarray) -> None:
        """Fit quickly and smoothly, and set the units: noise in the trust, mean intensity in the prior."""
        self.show.row(_FIRST_STEPS, "first fit")
        w = _weights(self.fit, self.fit.data.mean(-1, keepdims=True), _used(~held))
        # A probe of random signs gives the mean diagonal of A'wA (Hutchinson), here of the mean intensity.
        signs = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], self.x.shape[:3]), jnp.float32)
        probe = jnp.zeros_like(self.x).at[..., 0].set(signs)
        diagonal = jnp.mean(signs * self.A.adjoint(w * self.A(probe))[..., 0])
        seen = self.A.adjoint(w)[..., :1] * self.fit.seen  # `Y_00 = 1`
        inside = jnp.mean(self.fit.seen)
        self.fit = eqx.tree_at(lambda f: (f.gain, f.seen), self.fit, (diagonal, seen / jnp.mean(seen) * inside))
        # Strong enough to fill in what was not measured, weak enough to leave the noise to be seen.
        strength = 0.05 * _EDGE * float(diagonal) * _PRIOR_SIZE**2
        self._quadratic(w, Strength(*map(jnp.float32, (strength, 0.0, _EDGE))), _FIRST_STEPS)
        self.fit = _in_units_of_noise(self.fit, self.x, self.prediction, _used(~held))

    def rounds(
        self, smooth: float, rounds: int, steps: int, used: Array | None = None, names: tuple[str, ...] = (),
        settled: float = np.inf,
    ) -> None:  # fmt: skip
        """Take weights and edges from the last solution and solve, a few times (lagged diffusivity), and more often
        until it is `settled`."""
        used = jnp.ones((1, 1, 1, 1)) if used is None else used
        strength = Strength(*map(jnp.float32, (smooth, self.uniaxial * smooth, _EDGE)))
        for turn in range(rounds if np.isinf(settled) else _PATIENCE * rounds):
            if turn == 0 or turn >= rounds:
                self.show.row((1 if turn else rounds) * steps, f"smoothness {smooth:g}")
            before, w = self.prediction, _weights(self.fit, self.prediction, used)
            self._quadratic(w, strength, steps, names)
            if turn >= rounds - 1 and float(_change(self.fit, w, before, self.prediction)) < settled:
                break

    def align(self, names: tuple[str, ...], held: np.ndarray) -> None:
        """Look for motions of the views; what is found is kept where it matters, and all begins again with it."""
        now: dict[str, np.ndarray] = {}
        for turn in range(_ALIGNMENTS):
            before = self.motions
            self.rounds(_STRONGEST, 1, _ALIGNMENT_STEPS, names=names)
            now = {name: self._pixels(name, self.motions[name]) for name in names}
            moved = max(_rms(now[n] - self._pixels(n, before[n]) if n in before else now[n]) for n in names)
            if moved < (_AGREED if turn == 0 else _SETTLED) or (turn == 1 and max(map(_rms, now.values())) < _AGREED):
                break
        self.agreement = max(map(_rms, now.values()))
        if self.agreement < _AGREED:
            self.motions, self.A = {}, self.given
            self.prediction = self.A(self.x)
            return
        for line in tensor_poses.changes(self.motions):
            self.show.console.say(line)
        self._begin()
        self.first_fit(held)

    def _pixels(self, name: str, values: np.ndarray) -> np.ndarray:
        """Give by how far motions move what lies at the rim of the sample (flux: by which part of its edge)."""
        lever = {"angles": max(self.x.shape[:3]) / 2, "wobble": max(self.x.shape[:3]) / 2, "flux": 10.0}
        return values * lever.get(name, 1.0)

    def _quadratic(self, w: Array, strength: Strength, steps: int, names: tuple[str, ...] = ()) -> None:
        """Solve one quadratic problem from where the solution stands.

        The loop runs on the host: projecting and back-projecting, which take nearly all the time to compile, are then
        the same two programs everywhere.
        """
        fit, left = self.fit, self.fit.data - self.prediction
        pictures = tensor_poses.pictures(self.A, self.x, self.prediction, names)
        quadratic, state = begin(
            fit.prior, self.curvature, fit.gain, fit.seen, self.x, self.prediction, left, self.A.adjoint(w * left), w,
            pictures, strength,
        )  # fmt: skip
        for _ in range(steps):
            direction = state.at.direction
            shadow = self.A(fit.prior * direction[0]) + jnp.einsum("avrcs,va->vrcs", pictures, direction[1])
            state = advance(quadratic, state, shadow, self.A.adjoint(w * shadow), w, pictures)
            self.show.step()
        self.x, self.prediction = fit.prior * state.at.x[0], state.prediction
        if names:
            found = tensor_poses.without_freedoms(self.given, tensor_poses.split(names, state.at.x[1]))
            self.motions = {n: self.motions.get(n, 0) + np.clip(v, -_REACH, _REACH) for n, v in found.items()}
            self.A = tensor_poses.moved(self.given, self.motions)
            self.prediction = self.A(self.x)


def _halves(solve: _Solve, smooth: float) -> tuple[Array, Array]:
    """Go on from the same solution with every second view, and with the others: half the data, half the price."""
    whole, found = solve.x, []
    for first in (0, 1):
        solve.start(whole)
        solve.rounds(smooth / 2, 1, _HALF_STEPS, _used(np.arange(len(solve.prediction)) % 2 == first))
        found.append(solve.support.whole(solve.x))
    return found[0], found[1]


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _choose(solve: _Solve, reached: _Reached, held: np.ndarray, rounds: int, steps: int) -> None:
    """Halve the strength until the views held out are predicted less well; leaves the best that was reached."""
    used = _used(~held)
    for strength in _STRONGEST / 2.0 ** np.arange(_CANDIDATES):
        solve.rounds(strength, rounds, steps, used, settled=_NEARLY)
        before = reached.path[-1][1] if reached.path else np.inf
        figure = float(np.asarray(solve.residual())[held].mean())
        reached.path.append((strength, figure))
        solve.show.console.say(
            f"smoothness {strength:g}: residual of held-out views {figure:.4f} of the first fit's noise"
        )
        if figure <= before:
            reached.x = solve.x
        if figure <= min(p[1] for p in reached.path):
            reached.smoothness = float(strength)
        if figure > (1 - _WORTHWHILE) * before:
            break


def _checked(A: TensorProjector, data: Any, weights: Any, transmission: Any) -> tuple[np.ndarray, np.ndarray]:
    """Data with zeros where they do not count, and how far each is to be trusted."""
    data = np.asarray(data, np.float32)
    expected = (A.weights.shape[0], *A.projector.detector_shape, A.weights.shape[1])
    if data.shape != expected:
        raise InputError(f"tensor SAXS data must be (view, row, column, segment) = {expected}, got {data.shape}")
    trust = np.ones_like(data) if weights is None else np.broadcast_to(np.asarray(weights, np.float32), data.shape)
    if transmission is not None:
        trust = trust * np.asarray(transmission, np.float32)[..., None]
    bad = ~np.isfinite(data) & (trust > 0)
    if bad.any() or not np.isfinite(trust).all() or trust.min() < 0:
        view = int(np.argmax(bad.any((1, 2, 3))))
        raise InputError(f"view {view}: data, weights or transmission not finite or negative; set weights to 0 there")
    data = np.where(trust > 0, data, 0)
    if not data.max() > 0:
        raise InputError("the data hold no intensity above zero")
    return data, trust


def _used(views: np.ndarray) -> Float[Array, "view 1 1 1"]:
    return jnp.asarray(views.astype(np.float32)[:, None, None, None])


@jax.jit
def _weights(fit: _Fit, prediction: Array, used: Array) -> Array:
    return fit.trust / jnp.maximum(prediction, fit.darkest) * used


@jax.jit
def _change(fit: _Fit, w: Array, before: Array, after: Array) -> Float[Array, ""]:
    """Weighted mean square of what a round has changed, over that of the misfit."""
    return jnp.sum(w * (after - before) ** 2) / jnp.maximum(jnp.sum(w * (after - fit.data) ** 2), 1e-30)


@jax.jit
def _residual(fit: _Fit, prediction: Array) -> Float[Array, " view"]:
    weights = fit.trust / jnp.maximum(prediction, fit.darkest)
    return jnp.mean(weights * (prediction - fit.data) ** 2, (1, 2, 3))


@jax.jit
def _in_units_of_noise(fit: _Fit, x: Array, prediction: Array, used: Array) -> _Fit:
    unit = jnp.sum(x[..., 0] ** 2) / jnp.maximum(jnp.sum(jnp.abs(x[..., 0])), 1e-30)
    unit = unit * _PRIOR_SIZE / fit.prior[0]
    w = _weights(fit, prediction, used)
    noise = jnp.sum(w * (prediction - fit.data) ** 2) / jnp.maximum(jnp.sum(w > 0), 1)
    return _Fit(fit.data, fit.trust / noise, fit.darkest, fit.prior * unit, fit.gain * unit**2 / noise, fit.seen)
