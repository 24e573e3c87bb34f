"""Tensor tomography: weighted least squares with joint total variation, whose strength held-out views choose.

The cost is `1/2 sum w (A a - d)^2 + s sum_voxel sqrt(|grad (a / p)|^2 + e^2)`: one edge for all coefficients of a
voxel, mean and orientation share their boundaries (vectorial total variation, Blomgren & Chan 1998). Weights are
transmission / prediction, the inverse variance of counts that were divided by flux and transmission, up to the flux,
which the residual gives. Solved by lagged diffusivity (Vogel & Oman 1996): a few quadratic problems, each by conjugate
gradients preconditioned in the Fourier domain, where projecting and back-projecting is about 1/|k|, the penalty |k|^2.
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._console import Console
from ..errors import InputError
from ..operators.scattering import TensorProjector, harmonic_degrees
from .conjugate_gradients import ConjugateState, conjugate_start, conjugate_step
from .ending import Ending

# A plain union: the ArrayLike of numpy >= 2.5 is an alias that jaxtyping cannot subscript.
ArrayLike = np.ndarray | Array

__all__ = ["TensorSolution", "tensor_tomography"]

# The data's variance is taken as at least this fraction of that of the brightest: the rim of the sample, where a voxel
# is too coarse a model for its edge, would otherwise outweigh everything.
_DARKEST = 0.2
# Steps of coefficients are counted in this fraction of the mean intensity, in less for l > 2, which vary less.
_PRIOR_SIZE = 0.3
# Steps below this many units are noise and cost quadratically, larger ones are edges.
_EDGE = 0.05
# Candidate strengths, strong to weak, in units of the noise: each is half of the one before. What is gained below the
# given fraction of the held-out residual is not worth another candidate.
_STRONGEST, _CANDIDATES, _WORTHWHILE = 32.0, 6, 0.01
_FIRST_STEPS = 12


class TensorSolution(NamedTuple):
    """What `tensor_tomography` gives back.

    **Fields:** `coefficients` `(z, y, x, lm)`; `smoothness`, the strength used; `path` `(candidate, 2)` of strength and
    held-out residual, in units of the noise of the first fit (empty where the strength was given); `residual`
    `(view,)`, weighted mean square a view; `ending`, an `Ending`: after Ctrl-C all is that of the best so far.
    """

    coefficients: Float[Array, "z y x lm"]
    smoothness: float
    path: np.ndarray
    residual: np.ndarray
    ending: Ending = Ending.DONE


def tensor_tomography(
    A: TensorProjector,
    data: Float[ArrayLike, "view row column segment"],
    *,
    weights: Float[ArrayLike, "view row column segment"] | None = None,
    transmission: Float[ArrayLike, "view row column"] | None = None,
    smoothness: float | None = None,
    held_out: int = 9,
    rounds: int = 3,
    steps: int = 8,
    console: Console | None = None,
) -> TensorSolution:
    """Solve for the spherical-harmonic coefficients of every voxel from tensor SAXS projections.

    **Arguments:**

    - `A`: the projector, which holds poses, volume and highest order. Eight segments and tilts to 45 degrees carry
      `ell_max` 6 to 8.
    - `data`: intensities divided by flux and transmission; any unit.
    - `weights`: 0 where a datum is bad, 1 elsewhere (or any relative confidence).
    - `transmission`: makes the weights right where the sample absorbs.
    - `smoothness`: strength of the joint total variation. Default: it is halved from a strong one until the residual of
      every `held_out`-th view, not used meanwhile, falls no more; these views then join the last rounds.
    - `rounds` and `steps`: quadratic problems a strength, conjugate-gradient steps each.

    **Returns:** a `TensorSolution`.

    **Raises:** `InputError` for shapes that do not agree, data that are not finite where they count, and no signal.

    **Cost:** `30 + 26 c` projections and back-projections for c strengths tried (three or four).

    ```python
    from diffrecon.operators import TensorGeometry, TensorProjector, rotations_from_angles
    geometry = TensorGeometry(rotations_from_angles(np.linspace(0, np.pi, 4), np.zeros(4)))
    A = TensorProjector(geometry, (6, 6, 6), (6, 6), ell_max=2)
    intensity = A(jnp.zeros((6, 6, 6, 6)).at[2:4, 2:4, 2:4, 0].set(1.0))
    coefficients = tensor_tomography(A, intensity, smoothness=1.0, rounds=1).coefficients  # (6, 6, 6, 6)
    ```
    """
    console = console or Console(quiet=True)
    fit = _checked(A, data, weights, transmission)
    views = np.arange(fit.data.shape[0])
    every = max(held_out, 2)
    held = views % every == every // 2 if smoothness is None else np.zeros(len(views), bool)
    chosen, ending = smoothness is None, Ending.DONE
    show = _Shown(console)
    fit, x = _first_fit(A, fit, _used(~held), show)
    reached = _Reached(x, _STRONGEST if smoothness is None else smoothness, [])
    try:
        if chosen:
            _choose(A, fit, reached, held, rounds, steps, show)
            rounds = max(rounds - 1, 1)
        _rounds(A, fit, reached, _used(views >= 0), reached.smoothness, rounds, steps, show)
    except KeyboardInterrupt:
        ending = Ending.INTERRUPTED
        console.say(ending.sentence())
    path = np.reshape(np.asarray(reached.path, float), (-1, 2))
    residual = np.asarray(_residual(fit, A(reached.x)))
    return TensorSolution(reached.x, float(reached.smoothness), path, residual, ending)


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
        self.row(_FIRST_STEPS, "tensor SAXS: first fit, step")

    def row(self, total: int, label: str) -> None:
        """Begin a line."""
        self.line, self.done = self.console.progress(total, label), 0

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
    curvature: Float[Array, " lm"]


def _checked(A: TensorProjector, data: Any, weights: Any, transmission: Any) -> _Fit:
    """Data with zeros where they do not count; the curvature is not known yet."""
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
    degrees, _ = harmonic_degrees(A.ell_max)
    prior = (_PRIOR_SIZE / np.sqrt(np.maximum(degrees / 2, 1))).astype(np.float32)
    darkest = np.float32(_DARKEST * np.percentile(data.mean(-1), 99))
    return _Fit(*map(jnp.asarray, (data, trust, darkest, prior, np.ones_like(prior))))


def _used(views: np.ndarray) -> Float[Array, "view 1 1 1"]:
    return jnp.asarray(views.astype(np.float32)[:, None, None, None])


def _first_fit(A: TensorProjector, fit: _Fit, used: Array, show: _Shown) -> tuple[_Fit, Array]:
    """Fit quickly and smoothly, and set the units: noise in the trust, mean intensity in the prior."""
    shape = (*A.projector.volume_shape, len(fit.prior))
    w = _weights(fit, fit.data.mean(-1, keepdims=True), used)
    # A probe of random signs gives the mean diagonal of A'wA, channel by channel (Hutchinson).
    signs = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], shape), fit.data.dtype)
    diagonal = np.asarray(jnp.mean(signs * A.adjoint(w * A(signs)), (0, 1, 2)))
    degrees, _ = harmonic_degrees(A.ell_max)
    curvature = np.array([diagonal[degrees == l].mean() for l in degrees], np.float32)
    fit = eqx.tree_at(lambda f: f.curvature, fit, jnp.asarray(curvature))
    # Strong enough to fill in what was not measured, weak enough to leave the noise to be seen.
    strength = 0.05 * _EDGE * float(curvature[0]) * _PRIOR_SIZE**2
    empty = jnp.zeros(shape, fit.data.dtype)
    x, prediction = _solve(A, fit, empty, jnp.zeros_like(fit.data), w, strength, _FIRST_STEPS, show)
    return _in_units_of_noise(fit, x, prediction, used), x


def _choose(
    A: TensorProjector, fit: _Fit, reached: _Reached, held: np.ndarray, rounds: int, steps: int, show: _Shown
) -> None:
    """Halve the strength until the views held out are predicted less well; leaves the best that was reached."""
    used, now = _used(~held), _Reached(reached.x, reached.smoothness, [])
    for strength in _STRONGEST / 2.0 ** np.arange(_CANDIDATES):
        residual = _rounds(A, fit, now, used, strength, rounds, steps, show)
        before = reached.path[-1][1] if reached.path else np.inf
        reached.path.append((strength, float(residual[held].mean())))
        figure = reached.path[-1][1]
        show.console.say(f"smoothness {strength:g}: residual of held-out views {figure:.4f} of the first fit's noise")
        if figure <= before:
            reached.x = now.x
        if figure <= min(p[1] for p in reached.path):
            reached.smoothness = float(strength)
        if figure > (1 - _WORTHWHILE) * before:
            break


def _rounds(
    A: TensorProjector, fit: _Fit, reached: _Reached, used: Array, strength: float, rounds: int, steps: int,
    show: _Shown,
) -> Float[np.ndarray, " view"]:  # fmt: skip
    """Take weights and edges from the last solution and solve the quadratic problem, a few times (lagged diffusivity).

    Moves what was reached, and returns its residual in each view.
    """
    prediction = A(reached.x)
    show.row(rounds * steps, f"tensor SAXS: smoothness {strength:g}, step")
    for _ in range(rounds):
        w = _weights(fit, prediction, used)
        reached.x, prediction = _solve(A, fit, reached.x, prediction, w, strength, steps, show)
    return np.asarray(_residual(fit, prediction))


def _solve(
    A: TensorProjector, fit: _Fit, x: Array, prediction: Array, w: Array, strength: float, steps: int, show: _Shown
) -> tuple[Array, Array]:
    """Minimise `1/2 sum w (A x - d)^2 + strength/2 sum diffusivity |grad (x/prior)|^2` by conjugate gradients from x.

    The loop runs on the host: projecting and back-projecting, which take nearly all the time to compile, are then the
    same two programs everywhere. Returns x and its prediction.
    """
    seen, downhill = A.adjoint(w), A.adjoint(w * (fit.data - prediction))
    quadratic, state = _begin(fit, x, prediction, seen, downhill, jnp.float32(strength))
    for _ in range(steps):
        shadow = A(fit.prior * state.u.direction)
        state = _advance(quadratic, state, shadow, A.adjoint(w * shadow))
        show.step()
    return fit.prior * state.u.x, state.prediction


@jax.jit
def _weights(fit: _Fit, prediction: Array, used: Array) -> Array:
    return fit.trust / jnp.maximum(prediction, fit.darkest) * used


@jax.jit
def _residual(fit: _Fit, prediction: Array) -> Float[Array, " view"]:
    weights = fit.trust / jnp.maximum(prediction, fit.darkest)
    return jnp.mean(weights * (prediction - fit.data) ** 2, (1, 2, 3))


@jax.jit
def _in_units_of_noise(fit: _Fit, x: Array, prediction: Array, used: Array) -> _Fit:
    unit = jnp.sum(x[..., 0] ** 2) / jnp.maximum(jnp.sum(jnp.abs(x[..., 0])), 1e-30)
    w = _weights(fit, prediction, used)
    noise = jnp.sum(w * (prediction - fit.data) ** 2) / jnp.maximum(jnp.sum(w > 0), 1)
    return _Fit(fit.data, fit.trust / noise, fit.darkest, fit.prior * unit, fit.curvature / noise)


class _Quadratic(eqx.Module):
    """One quadratic problem in `u = x / prior`: its penalty, and about the inverse of the whole.

    The inverse is that of `curvature / |k| + smooth |k|^2`, between two scalings by how strongly each voxel is seen.
    """

    prior: Float[Array, " lm"]
    edges: Float[Array, "z y x 1"]
    scale: Float[Array, "z y x 1"]
    symbol: Float[Array, "kz ky kx lm"]

    def penalty(self, u: Float[Array, "z y x lm"]) -> Float[Array, "z y x lm"]:
        transpose = jax.linear_transpose(_gradient, u)
        return transpose([self.edges * g for g in _gradient(u)])[0]

    def precondition(self, r: Float[Array, "z y x lm"]) -> Float[Array, "z y x lm"]:
        spectrum = jnp.fft.rfftn(self.scale * r, axes=(0, 1, 2)) / self.symbol
        return self.scale * jnp.fft.irfftn(spectrum, s=r.shape[:3], axes=(0, 1, 2))


class _State(NamedTuple):
    """Where the conjugate gradients stand, in `u`, and what it predicts."""

    u: ConjugateState
    prediction: Float[Array, "view row column segment"]


@jax.jit
def _begin(
    fit: _Fit, x: Array, prediction: Array, seen: Array, downhill: Array, strength: Array
) -> tuple[_Quadratic, _State]:
    """The quadratic problem about x. `seen` is the back-projection of the weights (component 0: `Y_00 = 1`)."""
    u, shape = x / fit.prior, x.shape[:3]
    steps = sum(jnp.sum(g * g, -1, keepdims=True) for g in _gradient(u))
    edges = strength / jnp.sqrt(steps + _EDGE**2)
    seen = jnp.maximum(seen[..., :1] / seen[..., 0].mean(), 0.05)
    k = np.meshgrid(*[2 * np.pi * np.fft.fftfreq(n) for n in shape], indexing="ij")
    laplacian = np.sum([4 * np.sin(q / 2) ** 2 for q in k], axis=0)
    projected = 1 / np.maximum(np.sqrt(np.sum(np.square(k), axis=0)), np.pi / max(shape))
    half = (projected / projected.mean(), laplacian)
    projected, laplacian = (jnp.asarray(a[:, :, : shape[2] // 2 + 1, None], x.dtype) for a in half)
    symbol = fit.curvature * fit.prior**2 * projected + jnp.mean(edges / seen) * laplacian
    quadratic = _Quadratic(fit.prior, edges, 1 / jnp.sqrt(seen), symbol)
    residual = fit.prior * downhill - quadratic.penalty(u)
    return quadratic, _State(conjugate_start(u, residual, quadratic.precondition), prediction)


@jax.jit
def _advance(quadratic: _Quadratic, state: _State, shadow: Array, back: Array) -> _State:
    """One step, given the direction's projection and what that is back-projected."""
    bent = quadratic.prior * back + quadratic.penalty(state.u.direction)
    u = conjugate_step(state.u, bent, quadratic.precondition)
    return _State(u, state.prediction + u.length * shadow)


def _gradient(u: Float[Array, "z y x lm"]) -> list[Array]:
    """Forward differences, zero across the last face."""
    return [jnp.diff(u, axis=i, append=jax.lax.slice_in_dim(u, u.shape[i] - 1, u.shape[i], axis=i)) for i in range(3)]
