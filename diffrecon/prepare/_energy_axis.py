"""Whether the energy axis of fluorescence spectra can be true: by the elastic peak of the beam and the lines."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .. import physics

__all__ = ["EnergyAxis", "check_energy_axis"]

_WIDTH = 160.0  # full width at half maximum of a line of a silicon detector [eV]
_NEAR = 0.02  # of the beam's energy, within which its peak is looked for
_ABOVE = 0.1  # of the counts, that pile-up may bring above the beam's energy
_SIGNIFICANT = 8.0
_MORE = 2  # lines by which another axis must agree better
_ROUND = (0.5, 2.0, 1e-3, 1e3)  # factors that mistakes have
_RIGHT_ANGLE = 90.0


class EnergyAxis(NamedTuple):
    """What the peaks say of an axis.

    **Fields:** `good`, `None` where nothing tells; `elastic` peak [eV on this axis], `None` where none is seen;
    `factor` by which the axis is to be multiplied; `lines` of so many `asked` that agree then; `angle` [deg] of
    scattering by the Compton peak, `None` where none is seen.
    """

    good: bool | None
    elastic: float | None
    factor: float
    lines: int
    asked: int
    angle: float | None


def check_energy_axis(
    spectrum: Float[np.ndarray, " channel"],
    energies: Float[np.ndarray, " channel"],
    beam: float,
    lines: Float[np.ndarray, " line"],
) -> EnergyAxis:
    """Look for the elastic peak of the beam, above which there is next to nothing, and for the lines.

    **Arguments:** `spectrum`, the sum of all; `energies` [eV] of its channels; `beam`, `lines` [eV].

    An axis is good where a peak stands within 2 % of the beam's energy, at most a tenth of the counts above it, and
    no other axis brings many more lines to where peaks are. Otherwise that peak is taken for the elastic one which
    brings most lines there.

    ```python
    axis, beam = 20.0 * np.arange(1500), np.exp(-0.5 * ((np.arange(1500) - 500) / 4) ** 2)
    found = check_energy_axis(1e5 * beam + 10, axis, 5000.0, np.array([]))
    assert not found.good and abs(found.factor - 0.5) < 0.01
    ```
    """
    peaks, weights = _peaks(np.asarray(spectrum, float), np.asarray(energies, float))
    share = lambda limit: float(spectrum[energies > limit].sum() / max(spectrum[energies > 0.05 * limit].sum(), 1))
    own, near = _agreeing(peaks, lines), np.abs(peaks - beam) < _NEAR * beam
    ends = [(p, w) for p, w in zip(peaks, weights, strict=True) if share(1.04 * p) < _ABOVE and 0.02 < p / beam < 50]
    round_ = lambda p: next((f for f in _ROUND if abs(beam / p / f - 1) < 0.01), None)
    ranked = [(_agreeing(peaks * beam / p, lines), round_(p) is not None, w, p) for p, w in ends]
    best = max(ranked, default=None)
    beaten = best is not None and best[0] >= own + max(_MORE, 0.4 * lines.size)
    if near.any() and share(1.04 * beam) < _ABOVE and not beaten:
        strong = near & (weights > 0.25 * weights[near].max())
        elastic = float(peaks[strong][np.argmin(np.abs(peaks[strong] - beam))])
        return EnergyAxis(True, elastic, 1.0, own, lines.size, _compton(peaks, elastic, beam))
    if best is None or (energies[-1] < beam and not beaten):
        return EnergyAxis(None, None, 1.0, own, lines.size, None)
    agree, _, _, elastic = best
    factor = round_(elastic) or beam / elastic
    return EnergyAxis(False, float(elastic), float(factor), agree, lines.size, _compton(peaks * factor, beam, beam))


def _agreeing(peaks: np.ndarray, lines: np.ndarray) -> int:
    """Count lines at which a peak stands."""
    if not peaks.size:
        return 0
    return int(sum(np.abs(peaks - line).min() < max(0.012 * line, 0.25 * _WIDTH) for line in lines))


def _compton(peaks: np.ndarray, elastic: float, beam: float) -> float | None:
    """Angle [deg] at which a peak below the elastic one is its Compton shift; the nearest to 90 degrees."""
    below = peaks[(peaks < 0.998 * elastic) & (peaks > elastic / (1 + 2.02 * beam / physics.ELECTRON_REST_ENERGY))]
    if not below.size:
        return None
    cosine = 1 - physics.ELECTRON_REST_ENERGY / beam * (elastic / below - 1)
    angles = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return float(angles[np.argmin(np.abs(angles - _RIGHT_ANGLE))])


def _peaks(spectrum: np.ndarray, energies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energies and significance of peaks: local maxima of a top hat without area over its noise (Mariscotti 1967)."""
    step = float(np.median(np.diff(energies)))
    places, found = [], []
    for half in sorted({max(1, round(f * _WIDTH / step)) for f in (0.25, 0.5, 1.0)}):
        wide = 2 * half
        kernel = np.r_[-np.ones(wide) * (2 * half + 1) / (2 * wide), np.ones(2 * half + 1),
                       -np.ones(wide) * (2 * half + 1) / (2 * wide)]  # fmt: skip
        if kernel.size >= spectrum.size:
            continue
        net = np.convolve(spectrum, kernel[::-1], "same")
        noise = np.sqrt(np.maximum(np.convolve(np.maximum(spectrum, 0), kernel[::-1] ** 2, "same"), 1))
        ratio = net / noise
        inside = np.arange(1, spectrum.size - 1)
        ratio[: kernel.size // 2] = ratio[-(kernel.size // 2) :] = 0  # where the top hat reaches beyond the spectrum
        top = inside[(net[1:-1] > net[:-2]) & (net[1:-1] >= net[2:]) & (ratio[1:-1] > _SIGNIFICANT)]
        places += list(top)
        found += list(ratio[top])
    order = np.argsort(found)[::-1]
    kept: list[int] = []
    for i in order:
        if all(abs(places[i] - places[k]) * step > 0.4 * _WIDTH for k in kept):
            kept.append(int(i))
    return energies[[places[i] for i in kept]] if kept else np.zeros(0), np.array([found[i] for i in kept])
