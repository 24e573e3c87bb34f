"""Holography: how large the errors of the phase are. Most of them are slow, and are drawn on binned frames."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import solvers
from .._result import Quantity
from ..operators.fourier import blur, half_plane_weights, twice_as_fine
from ..priors import unseen_ramp
from . import _holography_beam as beams
from ._holography_problem import FEW, Holograms, Settings, device
from ._holography_rounds import BLURS

_HOLDS = "photon noise and prior; constant, ratio of delta to beta and geometry taken as right"
_NAME = "error bar of the phase"
_DRAWS = 3  # of the errors of a specimen without vacuum
_PAIRS = 2  # of errors of an isolated one, by noise and by prior; neighbourhoods are averaged, so that few do


def error_bars(problem: Holograms, settings: Settings) -> tuple[dict[str, Quantity], list[str]]:
    """Give the error bar of the phase from photon noise and prior, grown where the model misses something.

    The prior is the power law alone: total variation, as a Gaussian about its solution, says too much.
    """
    model, (coarse, details) = problem.model, _on_binned_frames(problem, settings)
    if model.borderless:
        return _without_vacuum(problem, coarse, details, settings)
    seed, finer = settings.quality.seed, np.zeros((2, len(problem.laws)))
    for power in map(np.asarray, details):  # each pixel has the mean of its power; frames that are binned are even
        twice = half_plane_weights(2 * power.shape[-1] - 2)
        finer += np.sum(power * twice, (-2, -1)) / (power.shape[-2] * twice.sum())
    deviation = solvers.posterior_deviation(
        solvers.hologram_residual, coarse.coordinates(settings, vacuum=settings.loss.vacuum), device(coarse.data),
        seed, _PAIRS, field=coarse.model.frame, finer=jnp.asarray(finer, model.phase.dtype),
    )  # fmt: skip
    bar = jax.image.resize(deviation[0], model.phase.shape, "linear")
    bar = model.in_view(bar * np.sqrt(max(problem.excess(seed), 1.0)))
    quantity = Quantity(bar, "rad", ("y", "x"), model.pixel_size, f"{_NAME}, {_HOLDS}", "image")
    return {"phase_error": quantity}, [f"{_NAME}: {np.median(bar):.2g} rad in the median ({_HOLDS})"]


def _on_binned_frames(problem: Holograms, settings: Settings) -> tuple[Holograms, list[Any]]:
    """Bin the frames as long as they can be binned: the problem, and for each time the power of the errors of details
    that are lost, from coarse to fine."""
    lit = "beam_maps" in problem.figures
    coarse, details = problem.replace(model=problem.model.replace(probe=None)) if lit else problem, []
    while min(coarse.model.frame) >= 2 * FEW and coarse.can_be_binned(settings) and not (details and lit):
        details.insert(0, solvers.hologram_details(coarse.model, coarse.known(), coarse.laws))
        binned = coarse.binned()
        coarse = binned if problem.curvature is None else binned.measured(settings.quality.seed)
    return beams.lit(coarse, problem.figures) if lit else coarse, details


def _without_vacuum(
    problem: Holograms, coarse: Holograms, details: list[Any], settings: Settings
) -> tuple[dict[str, Quantity], list[str]]:
    """Say what photon noise and prior leave open of a specimen without vacuum, beside its mean."""
    model = problem.model
    drawn = _drawn(problem, coarse, details, settings)
    shifted = "shifts" in problem.refine and problem.views > 1
    if shifted:
        drawn += _unseen_ramps(problem, settings.quality.seed) - _planes(drawn)
    ramp = _planes(drawn)
    rest = drawn - ramp
    slope, size = (float(np.sqrt(np.mean(maps**2))) for maps in (ramp, rest))
    bar = np.sqrt(np.maximum(np.asarray(blur(jnp.asarray(np.mean(rest**2, 0)), min(model.frame) / 16)), 0))
    spread = max(float(model.in_view(model.total_phase()).std()), 1e-9)
    size_words, slope_words = (f"{value:.2g} rad ({value / spread:.2g} of it)" for value in (size, slope))
    why = ": shifts of the frames look the same, so that the prior alone says this" if shifted else ""
    line = (
        f"without vacuum the mean of the phase is not known (here it is zero); of the rest photon noise and prior "
        f"leave open {size_words}, and beside that a ramp of {slope_words}{why}"
    )
    image = lambda maps, axes, name, kind: Quantity(maps, "rad", axes, model.pixel_size, name, kind)
    return {
        "phase_error": image(bar, ("y", "x"), f"{_NAME}, beside a ramp of {slope:.2g} rad", "image"),
        "phase_error_draws": image(drawn, ("draw", "y", "x"), "errors drawn from the posterior of the phase", "data"),
    }, [line]


def _unseen_ramps(problem: Holograms, seed: int) -> np.ndarray:
    """Draw the ramps `(draw, y, x)` [rad] that unknown shifts leave to the power law, scaled to their expected size.

    Conjugate gradients go along them too slowly, and no further than a periodic window lets them.
    """
    model = problem.model
    seen = np.max(model.pixels, axis=0) / model.pixel_size * model.frame
    sizes = np.random.default_rng(seed + 1).standard_normal((_DRAWS, 2))
    sizes *= unseen_ramp(problem.laws[0], model.frame, (seen[0], seen[1])) / np.sqrt(np.mean(sizes**2, 0))
    rows, columns = ((np.arange(n) - (n - 1) / 2) * np.sqrt(12) / n for n in model.frame)
    ramps = sizes[:, :1, None] * rows[:, None] + sizes[:, 1:, None] * columns
    return ramps.astype(np.float32)


def _drawn(problem: Holograms, coarse: Holograms, details: list[Any], settings: Settings) -> np.ndarray:
    """Draw errors of the phase [rad] without their mean `(draw, y, x)`, on the field of view."""
    model, seed = problem.model, settings.quality.seed
    coordinates = coarse.coordinates(settings, refine=tuple(set(problem.refine) - BLURS))
    errors = solvers.posterior_errors(solvers.hologram_residual, coordinates, device(coarse.data), seed, _DRAWS)
    errors, random = np.asarray(errors[:, 0]), np.random.default_rng(seed)
    for power in details:
        errors = np.stack([np.asarray(twice_as_fine(jnp.asarray(error))) for error in errors])
        noise = np.fft.rfft2(random.standard_normal(errors.shape), norm="ortho")
        root = np.sqrt(np.asarray(power[:, 0], float).sum(0))
        errors = errors + np.fft.irfft2(noise * root, s=errors.shape[1:], norm="ortho")
    drawn = np.stack([model.in_view(error) for error in errors])
    return (drawn - drawn.mean((1, 2), keepdims=True)).astype(np.float32)


def _planes(maps: np.ndarray) -> np.ndarray:
    """Fit a ramp to each map."""
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in maps.shape[1:])
    down = (maps * rows[:, None]).mean((1, 2)) / (rows**2).mean()
    right = (maps * columns).mean((1, 2)) / (columns**2).mean()
    return down[:, None, None] * rows[:, None] + right[:, None, None] * columns
