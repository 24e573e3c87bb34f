"""Tensor SAXS tomography: weighted least squares with joint total variation, its strength chosen on held-out views.

The cost is `1/2 sum w (A a - d)^2 + s sum_voxel sqrt(|grad (a / p)|^2 + e^2)`: one edge for all coefficients of a
voxel, mean and orientation share their boundaries (vectorial total variation, Blomgren & Chan 1998). Weights are
transmission / prediction, the inverse variance of counts that were divided by flux and transmission, up to the flux,
which the residual gives. Solved by lagged diffusivity (Vogel & Oman 1996): a few quadratic problems, each by conjugate
gradients preconditioned in the Fourier domain, where projecting and back-projecting is about 1/|k|, the penalty |k|^2.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._console import Console
from .._result import Quantity, Result
from ..errors import InputError
from ..operators.scattering import (
    TensorGeometry,
    TensorProjector,
    harmonic_degrees,
    mean_intensity,
    orientation,
    relative_anisotropy,
)
from ..scan import Scan

# A plain union: the ArrayLike of numpy >= 2.5 is an alias that jaxtyping cannot subscript.
ArrayLike = np.ndarray | Array

__all__ = ["ScatteringSolution", "reconstruct_scattering"]

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "model": {"ell_max": 6, "volume_shape": None, "scattering": "automatic"},
    "solver": {"smoothness": None, "steps": 8, "rounds": 3, "held_out": 9},
}

# The data's variance is taken as at least this fraction of that of the brightest: the rim of the sample, where a voxel
# is too coarse a model for its edge, would otherwise outweigh everything.
DARKEST = 0.2
# Steps of coefficients are counted in this fraction of the mean intensity, in less for l > 2, which vary less.
PRIOR_SIZE = 0.3
# Steps below this many units are noise and cost quadratically, larger ones are edges.
EDGE = 0.05
# Candidate strengths, strong to weak, in units of the noise: each is half of the one before. What is gained below the
# given fraction of the held-out residual is not worth another candidate.
STRONGEST, CANDIDATES, WORTHWHILE = 32.0, 6, 0.01
FIRST_STEPS = 12


class ScatteringSolution(NamedTuple):
    """What `reconstruct_scattering` gives back.

    **Fields:** `coefficients` `(z, y, x, lm)`; `smoothness`, the strength used; `path` `(candidate, 2)` of strength and
    held-out residual, in units of the noise of the first fit (empty where the strength was given); `residual`
    `(view,)`, weighted mean square a view.
    """

    coefficients: Float[Array, "z y x lm"]
    smoothness: float
    path: np.ndarray
    residual: np.ndarray


class _Problem(eqx.Module):
    """One weighted least-squares problem in units where noise, mean intensity and prior size are about one."""

    projector: TensorProjector
    data: Float[Array, "view row column segment"]
    transmission: Float[Array, "view row column segment"]  # times the weights of the file: zero = not measured
    used: Float[Array, "view 1 1 1"]
    darkest: Array
    prior: Float[Array, " lm"]

    def weights(self, prediction: Array) -> Array:
        return self.transmission / jnp.maximum(prediction, self.darkest)


def reconstruct_scattering(
    data: Float[ArrayLike, "view row column segment"],
    geometry: TensorGeometry,
    *,
    weights: Float[ArrayLike, "view row column segment"] | None = None,
    transmission: Float[ArrayLike, "view row column"] | None = None,
    volume_shape: tuple[int, int, int] | None = None,
    ell_max: int = 6,
    smoothness: float | None = None,
    held_out: int = 9,
    rounds: int = 3,
    steps: int = 8,
    progress: Callable[[str], Any] = lambda _: None,
) -> ScatteringSolution:
    """Spherical-harmonic coefficients of every voxel from tensor SAXS projections.

    **Arguments:**

    - `data`: intensities divided by flux and transmission; any unit.
    - `geometry`: where beam, detector and sample stood.
    - `weights`: 0 where a datum is bad, 1 elsewhere (or any relative confidence).
    - `transmission`: makes the weights right where the sample absorbs.
    - `volume_shape`: `(z, y, x)` [voxel]; default: the rows, and the columns for y and x.
    - `ell_max`: highest order, even. Eight segments and tilts to 45 degrees carry 6 to 8.
    - `smoothness`: strength of the joint total variation. Default: found by halving it from a strong one until the
      residual of every `held_out`-th view, not used meanwhile, falls no more; these views then join the last rounds.
    - `rounds` and `steps`: quadratic problems a strength, conjugate-gradient steps each.

    **Returns:** a `ScatteringSolution`.

    **Raises:** `InputError` for shapes that do not agree, data that are not finite where they count, and no signal.

    **Cost:** `30 + 26 c` projections and back-projections for c strengths tried (three or four).
    """
    data, trust = _checked(data, geometry, weights, transmission)
    views, rows, columns, _ = data.shape
    shape = volume_shape or (rows, columns, columns)
    held = np.arange(views) % max(held_out, 2) == max(held_out, 2) // 2 if smoothness is None else np.zeros(views, bool)
    degrees, _ = harmonic_degrees(ell_max)
    problem = _Problem(
        projector=TensorProjector(geometry, shape, (rows, columns), ell_max),
        data=data,
        transmission=trust,
        used=jnp.asarray(~held, data.dtype)[:, None, None, None],
        darkest=DARKEST * jnp.percentile(data.mean(-1), 99),
        prior=jnp.asarray(PRIOR_SIZE / np.sqrt(np.maximum(degrees / 2, 1)), data.dtype),
    )
    problem, x, curvature = _first_fit(problem, steps=FIRST_STEPS)
    progress("first fit done")
    if smoothness is None:
        x, smoothness, path = _choose(problem, x, curvature, held, rounds, steps, progress)
        problem = eqx.tree_at(lambda p: p.used, problem, jnp.ones_like(problem.used))
        rounds = max(rounds - 1, 1)
    else:
        path = np.zeros((0, 2))
    x, residual = _rounds(problem, x, curvature, smoothness, rounds, steps)
    return ScatteringSolution(x, float(smoothness), path, np.asarray(residual))


def _checked(data: Any, geometry: TensorGeometry, weights: Any, transmission: Any) -> tuple[Array, Array]:
    """Data with zeros where they do not count, and how far each is to be trusted."""
    data = np.asarray(data, np.float32)
    if data.ndim != 4 or data.shape[0] != len(geometry) or data.shape[3] != len(geometry.detector_angles):
        expected = f"({len(geometry)}, row, column, {len(geometry.detector_angles)})"
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
    return jnp.asarray(data), jnp.asarray(trust)


def _first_fit(problem: _Problem, steps: int) -> tuple[_Problem, Array, Array]:
    """A quick smooth fit that sets the units: noise in the weights and mean intensity in the prior.

    Returns the scaled problem, the fit, and the mean curvature `(lm,)` of the data term.
    """
    shape = (*problem.projector.projector.volume_shape, len(problem.prior))
    signs = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], shape), problem.data.dtype)
    w = problem.weights(problem.data.mean(-1, keepdims=True)) * problem.used
    # A probe of random signs gives the mean diagonal of A'wA, channel by channel (Hutchinson).
    curvature = jnp.mean(signs * _back(problem.projector, w * _predict(problem.projector, signs)), (0, 1, 2))
    degrees, _ = harmonic_degrees(problem.projector.ell_max)
    mean = jnp.asarray([curvature[degrees == l].mean() for l in degrees])
    # Strong enough to fill in what was not measured, weak enough to leave the noise to be seen.
    strength, empty = 0.05 * mean[0] * problem.prior[0] ** 2, jnp.zeros(shape, problem.data.dtype)
    x, prediction = _solve(problem, empty, jnp.zeros_like(problem.data), w, jnp.ones(shape[:3]), strength, mean, steps)
    unit = jnp.sum(x[..., 0] ** 2) / jnp.maximum(jnp.sum(jnp.abs(x[..., 0])), 1e-30)
    w = problem.weights(prediction) * problem.used
    noise = jnp.sum(w * (prediction - problem.data) ** 2) / jnp.maximum(jnp.sum(w > 0), 1)
    scaled = eqx.tree_at(
        lambda p: (p.transmission, p.prior), problem, (problem.transmission / noise, problem.prior * unit)
    )
    return scaled, x, mean / noise


def _choose(
    problem: _Problem,
    x: Array,
    curvature: Array,
    held: np.ndarray,
    rounds: int,
    steps: int,
    progress: Callable[[str], Any],
) -> tuple[Array, float, np.ndarray]:
    """Halve the strength until the views held out are predicted less well."""
    path: list[tuple[float, float]] = []
    best = x
    for strength in STRONGEST / 2.0 ** np.arange(CANDIDATES):
        x, residual = _rounds(problem, x, curvature, strength, rounds, steps)
        path.append((strength, float(jnp.mean(residual[held]))))
        progress(f"smoothness {strength:g}: residual of held-out views {path[-1][1]:.4f} of the first fit's noise")
        before = path[-2][1] if len(path) > 1 else np.inf
        best = x if path[-1][1] <= before else best
        if path[-1][1] > (1 - WORTHWHILE) * before:
            break
    return best, min(path, key=lambda p: p[1])[0], np.array(path)


def _rounds(
    problem: _Problem, x: Array, curvature: Array, strength: float, rounds: int, steps: int
) -> tuple[Array, Float[Array, " view"]]:
    """Lagged diffusivity: weights and edges from the last solution, then a quadratic problem."""
    prediction = _predict(problem.projector, x)
    lagged = jnp.asarray(strength, x.dtype)
    for _ in range(rounds):
        w = problem.weights(prediction) * problem.used
        diffusivity = _diffusivity(x / problem.prior)
        x, prediction = _solve(problem, x, prediction, w, diffusivity, lagged, curvature, steps)
    residual = jnp.mean(problem.weights(prediction) * (prediction - problem.data) ** 2, (1, 2, 3))
    return x, residual


@eqx.filter_jit
def _predict(projector: TensorProjector, x: Array) -> Array:
    return projector(x)


@eqx.filter_jit
def _back(projector: TensorProjector, y: Array) -> Array:
    return projector.adjoint(y)


def _solve(
    problem: _Problem,
    x: Array,
    prediction: Array,
    w: Array,
    diffusivity: Array,
    strength: Array,
    curvature: Array,
    steps: int,
) -> tuple[Array, Array]:
    """`argmin_x 1/2 sum w (A x - d)^2 + strength/2 sum diffusivity |grad (x/prior)|^2` by preconditioned conjugate
    gradients from x, whose prediction is known; returns x and its prediction."""
    # How strongly each voxel is seen: component 0 of the back-projected weights (Y_00 = 1).
    seen = _back(problem.projector, w)[..., :1]
    downhill = _back(problem.projector, w * (problem.data - prediction))
    state = (x, prediction, w, seen, downhill, diffusivity, strength, curvature)
    return _conjugate_gradients(problem.projector, problem.prior, state, jnp.int32(steps))


@eqx.filter_jit
def _conjugate_gradients(
    A: TensorProjector, prior: Array, state: tuple[Array, ...], steps: Array
) -> tuple[Array, Array]:
    x, start, w, seen, downhill, diffusivity, strength, curvature = state

    def penalty(u: Array) -> Array:
        return strength * _minus_divergence([diffusivity[..., None] * g for g in _gradient(u)])

    seen = jnp.maximum(seen / seen.mean(), 0.05)
    precondition = _fourier_inverse(seen, curvature * prior**2, strength * jnp.mean(diffusivity[..., None] / seen))
    u = x / prior
    r = prior * downhill - penalty(u)
    z = precondition(r)
    ready = (jnp.zeros_like(x), start, r, z, jnp.vdot(r, z))

    def step(_: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        moved, prediction, r, p, size = state
        shadow = A(prior * p)
        q = prior * A.adjoint(w * shadow) + penalty(p)
        length = size / jnp.maximum(jnp.vdot(p, q), 1e-30)
        r = r - length * q
        z = precondition(r)
        new = jnp.vdot(r, z)
        return moved + length * p, prediction + length * shadow, r, z + new / jnp.maximum(size, 1e-30) * p, new

    moved, prediction, *_ = jax.lax.fori_loop(0, steps, step, ready)
    return prior * (u + moved), prediction


def _fourier_inverse(seen: Array, data: Float[Array, " lm"], smooth: Array) -> Callable[[Array], Array]:
    """Inverse of `data / |k| + smooth |k|^2`, between two scalings by how strongly each voxel is seen."""
    shape = seen.shape[:3]
    k = np.meshgrid(*[2 * np.pi * np.fft.fftfreq(n) for n in shape], indexing="ij")
    laplacian = np.sum([4 * np.sin(q / 2) ** 2 for q in k], axis=0)
    projected = 1 / np.maximum(np.sqrt(np.sum(np.square(k), axis=0)), np.pi / max(shape))
    half = shape[2] // 2 + 1
    projected, laplacian = (
        jnp.asarray(a[:, :, :half, None], seen.dtype) for a in (projected / projected.mean(), laplacian)
    )
    symbol = data * projected + smooth * laplacian
    scale = 1 / jnp.sqrt(seen)

    def apply(r: Array) -> Array:
        spectrum = jnp.fft.rfftn(scale * r, axes=(0, 1, 2)) / symbol
        return scale * jnp.fft.irfftn(spectrum, s=shape, axes=(0, 1, 2))

    return apply


def _gradient(u: Array) -> list[Array]:
    """Forward differences, zero across the last face."""
    return [jnp.diff(u, axis=i, append=jax.lax.slice_in_dim(u, u.shape[i] - 1, u.shape[i], axis=i)) for i in range(3)]


def _minus_divergence(gradient: list[Array]) -> Array:
    """The transpose of `_gradient`."""
    (u,) = jax.linear_transpose(_gradient, gradient[0])(gradient)
    return u


@jax.jit
def _diffusivity(u: Array) -> Float[Array, "z y x"]:
    size = sum(jnp.sum(g * g, -1) for g in _gradient(u))
    return 1 / jnp.sqrt(size + EDGE**2)


# --- the recipe -----------------------------------------------------------------------------------


def defaults(method: str) -> Mapping[str, Mapping[str, Any]]:
    """Every setting with its default."""
    return DEFAULTS


def reconstruct(scan: Scan, settings: Mapping[str, Mapping[str, Any]], console: Console, method: str) -> Result:
    """Scan to coefficients, mean, anisotropy and fibre direction, with the held-out residual as the judge."""
    geometry = scan.tensor_geometry
    if geometry is None:
        raise InputError(f"{scan.name}: tensor SAXS needs a tensor_geometry (rotations and angles of every view)")
    model, solver = settings["model"], settings["solver"]
    shape = None if model["volume_shape"] is None else tuple(int(n) for n in model["volume_shape"])
    solution = reconstruct_scattering(
        np.asarray(scan.counts),
        geometry,
        weights=scan.weights,
        transmission=scan.transmission,
        volume_shape=shape,  # type: ignore[arg-type]
        ell_max=model["ell_max"],
        progress=console.say,
        **solver,
    )
    return _result(scan, solution, settings, method)


def _result(scan: Scan, solution: ScatteringSolution, settings: Mapping[str, Any], method: str) -> Result:
    a, axes, pixel = solution.coefficients, ("z", "y", "x"), scan.pixel_size
    mean = mean_intensity(a)
    # Anisotropy and direction of empty voxels are noise divided by nothing.
    scatters = mean > 0.1 * jnp.percentile(mean, 99)
    anisotropy = jnp.where(scatters, relative_anisotropy(a), jnp.nan)
    direction = jnp.where(scatters[..., None], orientation(a, settings["model"]["scattering"]), jnp.nan)
    quantities = {
        "mean": Quantity(np.asarray(mean), "", axes, pixel, "mean scattered intensity", "volume"),
        "anisotropy": Quantity(np.asarray(anisotropy), "", axes, pixel, "relative anisotropy", "volume"),
        "direction": Quantity(np.asarray(direction), "", (*axes, "xyz"), pixel, "fibre direction", "orientation"),
        "coefficients": Quantity(np.asarray(a), "", (*axes, "lm"), pixel, "spherical-harmonic coefficients", "data"),
    }
    quality = {"residual": solution.residual, "smoothness": solution.smoothness, "smoothness_path": solution.path}
    verdict = [f"smoothness {solution.smoothness:g}"]
    if len(solution.path):
        best = solution.path[:, 1].min()
        quality["held_out_residual"] = best
        verdict[0] += f", chosen on held-out views (mean square residual {best:.3f} of the first fit's noise)"
    return Result(method, quantities, quality, tuple(verdict), settings)
