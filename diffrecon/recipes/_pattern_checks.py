"""Do frames with a sample belong to the references of a pattern? Their order, its place, where it can be seen."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .. import prepare
from ..errors import InputError
from ..frames import spread
from ..scan import Scan

__all__ = [
    "air_lines", "check_partners", "check_steps", "contradiction_lines", "light_lines", "unseen_lines", "usual_light",
]  # fmt: skip

_LOOKED_AT = 8  # frames of each stack
_BEAM = 6.0  # standard deviation of what is beam and not pattern [pixel]
_SURE = 8.0  # times the usual correlation at a wrong place: one of a million pixels reaches 5
_UNTOLD = 0.5  # error of a displacement [pixel] in a single pixel, from which on the pattern tells nothing there
_WINDOW = 3.0  # standard deviation, in which the contrast of a pattern is looked at [pixel]
_FEW = 0.02  # of the pixels that are not worth a line
_ALIKE = 0.03  # differences of the transmission along the border, up to which it may be air
_OFF = 0.05  # by which the light of air may differ between the stacks
_MOVED = 5  # pixels by which a pattern may move as a whole
_STRETCHED = 20.0  # times the span of the reference's steps: another unit
_WORSE = (5.0, 0.05)  # times the noise, and relative residual, from which on something contradicts the model
_FLASH = 0.2  # by which that of a single frame may differ from the rest


class _Match(NamedTuple):
    """Where frames fit references: `found` `(sample, reference)`, `far`, the displacement there [pixel]."""

    found: np.ndarray
    far: np.ndarray


def check_steps(scan: Scan) -> None:
    """Refuse steps that are no numbers, or of another unit in one of the stacks.

    **Raises:** `InputError`.
    """
    spans = {}
    for key in ("steps", "reference_steps"):
        steps = scan.extra.get(key)
        if steps is None:
            continue
        steps = np.ravel(np.asarray(steps, float))
        bad = np.flatnonzero(~np.isfinite(steps))
        if len(bad):
            raise InputError(
                f"{scan.name}: data.{key} is no finite number for {len(bad)} frames, first {bad[0]}: mend them, or "
                "give the steps that were planned"
            )
        spans[key] = float(np.ptp(steps))
    few, many = min(spans.values(), default=0.0), max(spans.values(), default=0.0)
    if len(spans) == 2 and few > 0 and many > _STRETCHED * few:
        raise InputError(
            f"{scan.name}: data.steps span {spans['steps']:.4g}, data.reference_steps {spans['reference_steps']:.4g}: "
            "give both in the same unit"
        )


def check_partners(scan: Scan, sample: np.ndarray, reference: np.ndarray) -> list[str]:
    """Tell whether the pattern of each frame is that of its own reference, and about in its place.

    **Returns:** lines of warning.

    **Raises:** `InputError` for frames in another order, and for a pattern that moved as a whole by many pixels.
    """
    chosen = spread(len(sample), _LOOKED_AT)
    match = _matched(sample[chosen], reference[chosen])
    near, own = match.found & (match.far <= _MOVED), np.arange(len(chosen))
    lost = ~near[own, own]
    far = match.far[own, own][lost & match.found[own, own]]
    together = 2 * far.size > lost.size and bool(np.ptp(far) <= 2)  # as a whole, perhaps to where another position was
    if near[lost].any() and not together:
        pairs = ", ".join(f"{chosen[k]} is that of {chosen[near[k].argmax()]}" for k in own[lost & near.any(1)][:4])
        raise InputError(
            f"{scan.name}: the stacks are in different order: the pattern of sample frame {pairs} of the references "
            "(counted from 0); give data.reference in the order of the sample's frames"
        )
    if not 2 * lost.sum() > lost.size:
        return []
    if together or match.found[own, own][lost].all():
        raise InputError(
            f"{scan.name}: the pattern moved by {np.median(far):.0f} pixels between both stacks, "
            f"more than {_MOVED}: the membrane did not come back to its place; measure the references again, or cut "
            "both stacks to the same part of the pattern"
        )
    return [
        f"WARNING: the pattern of {lost.sum()} of {lost.size} sample frames is not found in their references: are they "
        "of another detector orientation, another membrane, or does the sample leave nothing of the pattern?"
    ]


def _matched(sample: np.ndarray, reference: np.ndarray) -> _Match:
    """Correlate every frame with every reference."""
    window = np.hanning(sample.shape[1])[:, None] * np.hanning(sample.shape[2])
    spectra = [np.fft.rfft2([window * (f / prepare.mean_around(f, _BEAM) - 1) for f in s]) for s in (sample, reference)]
    found, far = np.zeros((len(sample), len(reference)), bool), np.zeros((len(sample), len(reference)))
    signed = [np.fft.fftfreq(n, 1 / n) for n in sample.shape[1:]]
    for k, j in np.ndindex(found.shape):
        product = np.fft.irfft2(spectra[0][k] * np.conj(spectra[1][j]), s=sample.shape[1:])
        row, column = np.unravel_index(product.argmax(), product.shape)
        found[k, j] = product[row, column] > _SURE * np.sqrt(np.mean(product**2))
        far[k, j] = max(abs(signed[0][row]), abs(signed[1][column]))
    return _Match(found, far)


def unseen_lines(patterns: prepare.Patterns, shift: float, good: np.ndarray) -> list[str]:
    """Say where the contrast of the pattern is too low to tell a displacement.

    **Arguments:** `shift`, the error of a displacement in a single pixel of usual contrast [pixel].
    """
    mean = np.maximum(patterns.smooth, 1e-3)
    noise = patterns.share * patterns.gain / mean
    local = prepare.mean_around(((patterns.structure / mean) ** 2 - noise).mean(0), _WINDOW)
    unseen = (np.sqrt(np.maximum(local, 1e-12)) < shift * patterns.contrast / _UNTOLD) & good
    if unseen.mean() < _FEW:
        return []
    rows, columns = (np.flatnonzero(unseen.any(axis)) for axis in (1, 0))
    whole = unseen.sum() > 0.98 * good.sum()
    where = "" if whole else f" (within rows {rows[0]} to {rows[-1]}, columns {columns[0]} to {columns[-1]})"
    return [
        f"WARNING: in {unseen.sum() / good.sum():.0%} of the pixels{where} the pattern's contrast is too low to tell a "
        f"displacement to {_UNTOLD:g} pixels: angles, phase and dark field there are what the prior makes of their "
        "surroundings; more light, a rougher membrane or more positions are needed"
    ]


def usual_light(light: Float[np.ndarray, " frame"]) -> np.ndarray:
    """Tell which frames have about the light of most."""
    return np.abs(light / np.median(light) - 1) <= _FLASH


def light_lines(scan: Scan, sample: np.ndarray, reference: np.ndarray, good: np.ndarray) -> list[str]:
    """Name frames of another exposure, where each has a reference of the same step."""
    steps, still = (scan.extra.get(key) for key in ("steps", "reference_steps"))
    if len(sample) != len(reference) or (steps is not None and (still is None or not np.array_equal(steps, still))):
        return []
    light = sample[:, good].mean(1) / np.maximum(reference[:, good].mean(1), 1e-6)
    return [
        f"WARNING: the light of frame {k} is {light[k] / np.median(light):.3g} times that of the others: leave it out "
        "of both stacks, if its exposure is not all that differs"
        for k in np.flatnonzero(~usual_light(light))[:3]
    ]


def air_lines(transmission: Float[np.ndarray, "y x"], good: np.ndarray) -> list[str]:
    """Say so where all of the border transmits the same, but not all: as air does if exposures differ."""
    smooth, border = prepare.mean_around(np.where(good, transmission, np.median(transmission[good])), 2.0), good.copy()
    border[tuple(slice(n // 16 + 1, n - n // 16 - 1) for n in good.shape)] = False
    if not border.any():
        return []
    low, level, high = np.percentile(smooth[border], (5, 50, 95))
    if high - low > _ALIKE * level or abs(level - 1) < _OFF:
        return []
    return [
        f"WARNING: the border transmits {level:.3g} everywhere: if that is air, both stacks differ in exposure, and "
        "transmissions are to be divided by it"
    ]


def contradiction_lines(residual: float, noise: float) -> list[str]:
    """Say so where frames that were not fitted are predicted far worse than noise explains."""
    if residual < max(_WORSE[0] * noise, _WORSE[1]):
        return []
    return [
        f"WARNING: frames never fitted are predicted {residual / noise:.0f} times worse than their noise: check that "
        "both stacks belong together, their order and steps"
    ]
