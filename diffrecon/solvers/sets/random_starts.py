"""Coherent diffraction from many random starts: projections with a shrinking support, the best starts averaged.

One set holds the objects with the measured modulus, the other those that vanish outside a support (and may be real, or
not negative). Where the object ends is learned meanwhile: shrink-wrap (Marchesini et al., Phys. Rev. B 68, 140101
(2003)).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Inexact, Num

from ... import quality
from ..._console import Console
from ...errors import InputError
from ...operators.fourier import blur
from ..ending import Ending
from .set_projections import set_projections

__all__ = [
    "DiffractionSets",
    "RandomStarts",
    "Shrinking",
    "align_starts",
    "onto_counts",
    "onto_positive",
    "onto_real",
    "onto_support",
    "random_starts",
    "shrink_wrap",
]

_FREE = 0.02  # fraction of the pixels that tell how loose the support is


class DiffractionSets(eqx.Module):
    """What was measured of one pattern and where the object may be, for `onto_counts`, `onto_support` and their like.

    **Fields:** `counts` `(*z, y, x)`, zero frequency at index (0, 0); `measured`, True where they count; `support`, one
    for all starts or one each; `background`, counts that are not the object's, one number or one a pixel.
    """

    counts: Float[Array, "*z y x"]
    measured: Bool[Array, "*z y x"]
    support: Bool[Array, "*start_z y x"]
    background: Float[Array, "..."]

    @classmethod
    def of(
        cls,
        counts: Num[Any, "*z y x"],
        support: Bool[Any, "*z y x"],
        mask: Bool[Any, "*z y x"] | None = None,
        background: Any = 0.0,
    ) -> "DiffractionSets":
        """Make the problem from counts, where they were measured (everywhere by default), and a support."""
        measured = np.ones(np.shape(counts), bool) if mask is None else np.asarray(mask, bool)
        counts = np.where(measured, counts, 0).astype(np.float32)
        return cls(*map(jnp.asarray, (counts, measured, np.asarray(support, bool), np.float32(background))))

    @property
    def modulus(self) -> Float[Array, "*z y x"]:
        """Root of the object's counts; zero where nothing was measured."""
        return jnp.where(self.measured, jnp.sqrt(jnp.maximum(self.counts - self.background, 0)), 0)


def onto_counts(objects: Inexact[Array, "*start_z y x"], sets: DiffractionSets) -> Inexact[Array, "*start_z y x"]:
    """Give objects the measured modulus where it was measured; elsewhere it stays as it is: unmeasured, never zero."""
    axes = tuple(range(-sets.counts.ndim, 0))
    wave = jnp.fft.fftn(objects, axes=axes, norm="ortho")
    size = jnp.abs(wave)
    phase = jnp.where(size > 0, wave / jnp.where(size > 0, size, 1), 1)
    return jnp.fft.ifftn(jnp.where(sets.measured, sets.modulus * phase, wave), axes=axes, norm="ortho")


def onto_support(objects: Inexact[Array, "*start_z y x"], sets: DiffractionSets) -> Inexact[Array, "*start_z y x"]:
    """Set objects to zero outside the support."""
    return jnp.where(sets.support, objects, 0)


def onto_real(objects: Inexact[Array, "*start_z y x"], sets: DiffractionSets) -> Inexact[Array, "*start_z y x"]:
    """Take the real part within the support."""
    return jnp.where(sets.support, jnp.real(objects), 0).astype(objects.dtype)


def onto_positive(objects: Inexact[Array, "*start_z y x"], sets: DiffractionSets) -> Inexact[Array, "*start_z y x"]:
    """Take the real part within the support where it is not negative."""
    return jnp.where(sets.support, jnp.maximum(jnp.real(objects), 0), 0).astype(objects.dtype)


@eqx.filter_jit
def shrink_wrap(
    objects: Inexact[Array, "*start_z y x"],
    width: Float[Array, ""] | float,
    threshold: Float[Array, "..."] | float,
    dimensions: int = 2,
) -> Bool[Array, "*start_z y x"]:
    """Draw a tighter support around an object: its modulus blurred by a Gaussian, above a fraction of its maximum.

    (Marchesini et al. 2003, sec. II: a width of 3 pixels shrinking by 1 % each time to 1.5, threshold 0.2.)

    **Arguments:** `objects`, the last `dimensions` axes of which are space; `width`, standard deviation [pixel].

    ```python
    spot = jnp.zeros((16, 16)).at[8, 8].set(1.0)
    assert shrink_wrap(spot, 1.0, 0.5).sum() == 5
    ```
    """
    axes = tuple(range(-dimensions, 0))
    smooth = blur(jnp.abs(objects), width, axes)
    return smooth > threshold * jnp.max(smooth, axes, keepdims=True)


@dataclass(frozen=True)
class Shrinking:
    """When and how `random_starts` draws the support anew.

    **Fields:** `every` so many steps (0 keeps the first support); `widths` of the blur of the modulus [pixel], at the
    beginning and in the end; `thresholds` [of the blurred modulus' maximum]: what lies between the two is tried first;
    `within`: a support that is never left.
    """

    every: int = 20
    widths: tuple[float, float] = (3.0, 1.0)
    thresholds: tuple[float, float] = (0.05, 0.2)
    within: Any = True


class RandomStarts(NamedTuple):
    """What `random_starts` gives back.

    **Fields:** `average` of the best starts within `support`; `kept` `(start, *z, y, x)`, these starts, aligned;
    `residuals` `(start,)` of all, `sum ||FFT| - modulus| / sum modulus`; `gap` `(step, start)` between the two sets;
    `threshold` of the support; `ending`, an `Ending`.
    """

    average: Complex[Array, "*z y x"]
    support: Bool[np.ndarray, "*z y x"]
    kept: Complex[np.ndarray, "start *space"]
    residuals: Float[np.ndarray, " start"]
    gap: Float[np.ndarray, "step start"]
    threshold: float
    ending: Ending


def random_starts(
    sets: DiffractionSets,
    onto_known: Callable[[Any, Any], Any] = onto_support,
    *,
    starts: int = 16,
    rule: str = "hio",
    beta: float | None = None,
    steps: int = 600,
    shrinking: Shrinking | None = None,
    keep: float = 0.25,
    predict: Callable[[Array], Array] | None = None,
    seed: int = 0,
    console: Console | None = None,
) -> RandomStarts:
    """Retrieve the phases of one pattern from many random ones at once, and average the best results.

    How much of the modulus belongs to the support is tried by a round of starts that have all thresholds of the range.
    What counts is how well each predicts pixels left out (the free likelihood of Favre-Nicolin, Leake & Chushkin 2020),
    which too loose and too tight supports do badly. Of thresholds that are equal within the statistical error of that
    figure it is the highest: less freedom.

    **Arguments:**

    - `sets`: the pattern and a first, loose support (`models.autocorrelation_support`).
    - `onto_known`: `onto_support`, `onto_real`, `onto_positive`, or a function `(objects, sets) -> objects`.
    - `rule`, `beta`: see `set_projections`; the last tenth of the `steps` is error reduction.
    - `keep`: fraction of the starts, the best ones, that are averaged.
    - `predict`: object to pattern with blur and background; by default the squared modulus of its transform
      and the background. Judges the thresholds only.

    **Returns:** a `RandomStarts`. Shift, constant phase and twin image, which a pattern cannot tell, are those of the
    very best start.

    **Raises:** `InputError` where every start broke down, and as `set_projections`.

    **Cost:** two transforms a step and start, twice where a range of thresholds is tried.

    ```python
    disc = np.hypot(*np.mgrid[-16:16, -15:17]) < 5
    counts = abs(np.fft.fft2(disc, norm="ortho")) ** 2 * 100
    sets = DiffractionSets.of(counts, dr.models.autocorrelation_support(counts))
    solution = random_starts(sets, onto_positive, starts=4, steps=50)
    assert solution.average.shape == (32, 32)
    ```
    """
    console, shrinking = console or Console(quiet=True), shrinking or Shrinking()
    beginning = jnp.broadcast_to(sets.support, (starts, *sets.counts.shape))
    sets = eqx.tree_at(lambda s: s.support, sets, beginning)
    project = lambda sets, above, seed: _project(sets, onto_known, rule, beta, steps, shrinking, above, seed, console)
    threshold, tried = float(np.sqrt(np.prod(shrinking.thresholds))), None
    if shrinking.thresholds[0] != shrinking.thresholds[1] and shrinking.every:
        predict = predict or (lambda obj: _pattern(obj) + sets.background)
        threshold, tried = _best_threshold(sets, project, shrinking, predict, seed + 1, console, threshold)
    if tried is not None and tried[-1] is Ending.INTERRUPTED:
        objects, part, gap, ending = tried
        sets = eqx.tree_at(lambda s: s.support, sets, part.support)
    else:
        objects, sets, gap, ending = project(sets, np.full(starts, threshold), seed)
    residuals = np.asarray(_residuals(objects, sets))
    finite = np.flatnonzero(np.isfinite(residuals))
    if not finite.size:
        raise InputError(
            "every random start broke down: try fewer solver.steps before the support shrinks "
            "(solver.shrink_every=0), or give model.support"
        )
    best = finite[np.argsort(residuals[finite])][: max(1, round(keep * starts))]
    kept, support = align_starts(np.asarray(objects)[best]), np.asarray(sets.support[best[0]])
    average = jnp.asarray(np.where(support, kept.mean(0), 0), jnp.complex64)
    return RandomStarts(average, support, kept, residuals, gap, threshold, ending)


def align_starts(objects: Complex[np.ndarray, "start *space"]) -> Complex[np.ndarray, "start *space"]:
    """Lay all objects over the first: remove shift, twin image and constant phase, which a pattern cannot tell.

    ```python
    first = np.zeros((8, 8), complex)
    first[2:5, 3:5] = [[1, 2], [3, 4], [5, 6j]]
    pair = align_starts(np.stack([first, np.roll(1j * first, 2, axis=0)]))
    assert np.allclose(pair[1], first, atol=1e-6)
    ```
    """
    first, aligned = objects[0], [objects[0]]
    axes = tuple(range(first.ndim))
    for other in objects[1:]:
        pairs = []
        for one in (other, np.conj(np.flip(other, axes))):
            moved = quality.shift_image(one, quality.register(first, one))
            overlap = np.vdot(moved, first)
            pairs.append((abs(overlap), moved * np.exp(1j * np.angle(overlap))))
        aligned.append(max(pairs, key=lambda pair: pair[0])[1])
    return np.stack(aligned)


def _best_threshold(
    sets: DiffractionSets,
    project: Callable[..., Any],
    shrinking: Shrinking,
    predict: Callable[[Array], Array],
    seed: int,
    console: Console,
    otherwise: float,
) -> tuple[float, Any]:
    """Try all thresholds of the range at once on a part of the pixels; where none can be left out, `otherwise`.

    Returns what the projections gave, too.
    """
    measured = np.asarray(sets.measured)
    free = measured & (np.random.default_rng(seed).uniform(size=measured.shape) < _FREE)
    if not free.any():
        return otherwise, None
    part = eqx.tree_at(lambda s: s.measured, sets, jnp.asarray(measured & ~free))
    thresholds = np.geomspace(*shrinking.thresholds, len(sets.support))
    tried = objects, *_, ending = project(part, thresholds, seed)
    if ending is Ending.INTERRUPTED:
        return otherwise, tried
    patterns = np.asarray(_patterns(predict, objects), float)
    deviances = np.array([quality.deviances(sets.counts, pattern, free) for pattern in patterns])
    figure = np.nan_to_num(deviances.mean(1), nan=np.inf)
    best = figure.argmin()
    error = np.nan_to_num(deviances[best].std()) / np.sqrt(deviances.shape[1])
    threshold = float(thresholds[figure <= figure[best] + error].max())
    console.say(
        f"support above {threshold:.3f} of the modulus' maximum: predicts pixels that are left out best, to a "
        f"deviance of {figure[best]:.2f}"
    )
    return threshold, tried


def _project(
    sets: DiffractionSets,
    onto_known: Callable[[Any, Any], Any],
    rule: str,
    beta: float | None,
    steps: int,
    shrinking: Shrinking,
    thresholds: Float[np.ndarray, " start"],
    seed: int,
    console: Console,
) -> tuple[Complex[Array, "start *space"], DiffractionSets, Float[np.ndarray, "step start"], Ending]:
    """Run random starts through all projections; returns them, the sets with their supports, gaps and ending."""
    dimensions = sets.counts.ndim
    state = objects = _random_phases(sets, seed)
    above = jnp.asarray(thresholds, jnp.float32).reshape(-1, *(1,) * dimensions)
    ending, gaps, progress = Ending.DONE, [], console.progress(steps, "projections")
    try:
        for now, count, width in _schedule(rule, steps, shrinking):
            step = beta if now == rule else None
            solution = set_projections(
                state, onto_counts, onto_known, sets, rule=now, beta=step, steps=count, batched=True
            )
            if solution.ending is Ending.INTERRUPTED and not len(solution.gap):
                raise KeyboardInterrupt
            state, objects = solution.state, solution.value
            gaps.append(solution.gap)
            if not solution.ending.finished:
                ending = solution.ending
                break
            if width is not None:
                support = shrinking.within & shrink_wrap(objects, width, above, dimensions)
                sets = eqx.tree_at(lambda s: s.support, sets, support)
            progress.update(sum(map(len, gaps)), gap=float(np.nanmin(solution.gap[-1])))
    except KeyboardInterrupt:
        if not gaps:
            raise
        ending = Ending.INTERRUPTED
    return objects, sets, np.concatenate(gaps), ending


def _random_phases(sets: DiffractionSets, seed: int) -> Complex[Array, "start *space"]:
    """The measured modulus with random phases, within the support."""
    shape = sets.support.shape
    phases = np.random.default_rng(seed).uniform(-np.pi, np.pi, shape)
    objects = np.fft.ifftn(np.asarray(sets.modulus) * np.exp(1j * phases), axes=range(1, len(shape)), norm="ortho")
    return jnp.where(sets.support, jnp.asarray(objects, jnp.complex64), 0)


def _schedule(rule: str, steps: int, shrinking: Shrinking) -> list[tuple[str, int, float | None]]:
    """Rule, steps and the width of the shrink-wrap after them: pieces of the rule, then error reduction at the end."""
    last = min(max(steps // 10, 1), steps)
    first = steps - last
    reduction: list[tuple[str, int, float | None]] = [("er", last, None)]
    if not shrinking.every:
        return [(rule, first, None)] * (first > 0) + reduction
    pieces = [min(shrinking.every, first - done) for done in range(0, first, shrinking.every)]
    begin, end = shrinking.widths
    # Half of the pieces to shrink in, at an even ratio; the rest at the final width.
    ratio = np.minimum(np.arange(len(pieces)) / max(len(pieces) // 2, 1), 1)
    widths = begin * (end / begin) ** ratio
    return [(rule, n, float(w)) for n, w in zip(pieces, widths, strict=True)] + reduction


@jax.jit
def _residuals(objects: Complex[Array, "start *space"], sets: DiffractionSets) -> Float[Array, " start"]:
    axes = tuple(range(1, objects.ndim))
    off = jnp.abs(jnp.abs(jnp.fft.fftn(objects, axes=axes, norm="ortho")) - sets.modulus)
    return jnp.sum(jnp.where(sets.measured, off, 0), axes) / jnp.sum(sets.modulus)


@eqx.filter_jit
def _patterns(predict: Callable[[Array], Array], objects: Complex[Array, "start *space"]) -> Float[Array, "start ..."]:
    return jax.vmap(predict)(objects)


def _pattern(obj: Complex[Array, "*z y x"]) -> Float[Array, "*z y x"]:
    return jnp.abs(jnp.fft.fftn(obj, norm="ortho")) ** 2
