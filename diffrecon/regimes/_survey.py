"""What a geometry can see, in numbers and in words."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..geometry import ConeBeam, ParallelBeam
from ._transfer import (
    Setup,
    critical_distance,
    phase_information,
    phase_maximum,
    smallest_phase,
    transfer,
    zero_crossings,
)

ENOUGH = 0.1
"""Root mean square phase transfer of the distances, over that of a perfect one, from which on a frequency is seen."""


def regime(fresnel_number: float, field_number: float = np.inf) -> str:
    """Name the regime of a size a whose Fresnel number `a^2 / (wavelength D)` is given, within a field of view of
    another.

    `"contact"` from 10 on: next to no phase contrast; `"edge enhancement"` from 1 on: every edge has its own fringe;
    `"holographic"` below: fringes of many details overlap; `"far field"` where the whole field's number is below 1.

    ```python
    assert regime(0.01, 1e4) == "holographic" and regime(3.0) == "edge enhancement"
    ```
    """
    if field_number < 1:
        return "far field"
    return "contact" if fresnel_number >= 10 else "edge enhancement" if fresnel_number >= 1 else "holographic"


@dataclasses.dataclass(frozen=True)
class Survey:
    """What the distances of a setup show, each alone and all together.

    **Fields:** `setup`; of each distance: `critical` distance of its pixel and `maximum` = lowest frequency of full
    phase contrast [1/m], `regimes` in words, `limits` = by name the frequency [1/m] that each cause allows: pixel,
    source and detector blur, bandwidth, field of view (`L / (2 wavelength D)`), in the middle of the field; `contrast`
    = largest contrast of a phase of one radian, 2 for a perfect instrument, within the band; `band` = lowest and
    highest frequency [1/m] that all distances together transfer with at least a tenth of full strength, `gaps` =
    `(first, last)` of bands in between that they do not, `limited_by` = what ends the band; `phase_noise` = standard
    deviation of a pixel's phase [rad] by photons within the band, `None` without counts; `details` = for each size [m]:
    critical distance [m], regime at the first and the last distance, and smallest phase seen [rad].
    """

    setup: Setup
    critical: np.ndarray
    maximum: np.ndarray
    regimes: tuple[str, ...]
    limits: dict[str, np.ndarray]
    contrast: np.ndarray
    band: tuple[float, float]
    gaps: tuple[tuple[float, float], ...]
    limited_by: str
    phase_noise: float | None
    details: tuple[tuple[float, float, str, float | None], ...]

    def lines(self) -> list[str]:
        """Give the survey in words, for a screen of 120 columns."""
        return _lines(self)


def survey(
    geometry: ConeBeam | ParallelBeam | Setup, *, sizes: Sequence[float] = (), delta_beta: float = np.inf, **told: Any
) -> Survey:
    """Find what a geometry can see: regimes, band, limits, photons.

    **Arguments:** a near-field `geometry`, with what `Setup.of` takes, or a `Setup`; `sizes` of details [m], by default
    2, 10 and 50 of the finest pixel; `delta_beta` = delta / beta of the object, `inf` = pure phase.

    **Raises:** `InputError` as `Setup.of`.

    ```python
    beam = ConeBeam(17e3, np.array([21.3e-3, 33.2e-3]), 1.28, 3e-6)
    print("\\n".join(survey(beam, counts=4000, frame=512).lines()))
    ```
    """
    setup = geometry if isinstance(geometry, Setup) else Setup.of(geometry, **told)
    frequency = np.linspace(0, setup.nyquist, _samples(setup))[1:]
    band, gaps = _band(frequency, setup, delta_beta)
    limits = _limits(setup)
    best = {name: float(np.max(values)) for name, values in limits.items()}
    cause = min(best, key=lambda name: best[name])
    seen = (frequency >= band[0]) & (frequency <= band[1])
    sine = np.abs(transfer(frequency, setup)[0])
    sizes = sizes or tuple(float(setup.pixels.min()) * n for n in (2, 10, 50))
    return Survey(
        setup=setup,
        critical=critical_distance(setup.pixels, setup.wavelength),
        maximum=np.array([phase_maximum(setup.wavelength, d) for d in setup.distances]),
        regimes=tuple(regime(f, _field_number(setup, j)) for j, f in enumerate(setup.fresnel_numbers)),
        limits=limits,
        contrast=np.max(np.where(seen, sine, 0.0), 1),
        band=band,
        gaps=gaps,
        limited_by=cause if band[1] > 0.9 * best[cause] else "transfer of the distances",
        phase_noise=None if setup.counts is None else _phase_noise(frequency, setup, band, delta_beta),
        details=tuple(_detail(size, setup, delta_beta) for size in sizes),
    )


def _samples(setup: Setup) -> int:
    """Frequencies that resolve every oscillation of the transfer functions up to Nyquist."""
    turns = setup.wavelength * setup.distances.max() * setup.nyquist**2
    return int(np.clip(16 * turns, 2000, 200_000))


def _field_number(setup: Setup, view: int) -> float:
    if setup.frame is None:
        return np.inf
    return float(setup.fresnel_numbers[view] * setup.frame**2)


def _limits(setup: Setup) -> dict[str, np.ndarray]:
    """Highest frequency that each cause allows at each distance [1/m]; a blur where a tenth is left."""
    limits = {"pixel": 0.5 / setup.pixels}
    tenth = np.sqrt(2 * np.log(10))
    with np.errstate(divide="ignore"):
        if (setup.blur > 0).any():
            limits["source and detector blur"] = tenth / (2 * np.pi * setup.blur)
        if setup.bandwidth:
            limits["bandwidth"] = np.sqrt(tenth / (np.pi * setup.bandwidth * setup.wavelength * setup.distances))
    if setup.frame is not None:
        limits["field of view"] = setup.frame * setup.pixels / (2 * setup.wavelength * setup.distances)
    return limits


def _strength(frequency: np.ndarray, setup: Setup, delta_beta: float) -> np.ndarray:
    """Root mean square transfer of the distances, weighted by their light; 1 is perfect."""
    return np.sqrt(phase_information(frequency, setup, delta_beta) / (4 * setup.fluence.sum()))


def _band(
    frequency: np.ndarray, setup: Setup, delta_beta: float
) -> tuple[tuple[float, float], tuple[tuple[float, float], ...]]:
    strength = _strength(frequency, setup, delta_beta)
    if setup.frame is not None:
        reach = setup.frame * setup.pixels / (2 * setup.wavelength * setup.distances)
        strength = np.where(frequency <= reach.max(), strength, 0.0)
    good = np.flatnonzero(strength >= ENOUGH)
    if not good.size:
        return (float("nan"), float("nan")), ()
    jumps = np.flatnonzero(np.diff(good) > 1)
    gaps = tuple((float(frequency[good[j]]), float(frequency[good[j + 1]])) for j in jumps)
    return (float(frequency[good[0]]), float(frequency[good[-1]])), gaps


def _phase_noise(frequency: np.ndarray, setup: Setup, band: tuple[float, float], delta_beta: float) -> float:
    """Noise of a pixel's phase [rad] when everything outside the band (and in its gaps) is left out."""
    information = phase_information(frequency, setup, delta_beta)
    use = (_strength(frequency, setup, delta_beta) >= ENOUGH) & (frequency >= band[0]) & (frequency <= band[1])
    step = frequency[1] - frequency[0]
    return float(np.sqrt(np.sum(2 * np.pi * frequency[use] / information[use]) * step))


def _detail(size: float, setup: Setup, delta_beta: float) -> tuple[float, float, str, float | None]:
    numbers = size**2 / (setup.wavelength * setup.distances)
    words = [regime(f, _field_number(setup, j)) for j, f in enumerate(numbers)]
    said = " to ".join(dict.fromkeys((words[int(np.argmin(setup.distances))], words[int(np.argmax(setup.distances))])))
    seen = None if setup.counts is None else smallest_phase(size, setup, delta_beta=delta_beta)
    return size, critical_distance(size, setup.wavelength), said, seen


# ---------------------------------------------------------------------------------------------------- in words
def _lines(found: Survey) -> list[str]:
    setup = found.setup
    lines = ["what this geometry can see (weak object):"]
    for j, distance in enumerate(setup.distances):
        crossings = zero_crossings(setup.wavelength, distance, 0.5 / setup.pixels[j])[0]
        blind = "no zero" if not crossings.size else f"{crossings.size} zeros from {_half(crossings[0])}"
        lines.append(
            f"  D {metres(distance)}: Fresnel number of a pixel {setup.fresnel_numbers[j]:.3g}, {found.regimes[j]}; "
            f"phase best at half period {_half(found.maximum[j])}, {blind}; contrast {found.contrast[j]:.2f} per rad"
        )
    lines.append("  critical distance of a pixel, a^2/(2 lambda): " + _span(found.critical))
    if np.isfinite(found.band[0]):
        gaps = f", but for {len(found.gaps)} gap{'s' * (len(found.gaps) > 1)}" if found.gaps else ""
        lines.append(
            f"  half periods {_half(found.band[0])} to {_half(found.band[1])} are seen with at least a tenth "
            f"of full transfer{gaps}; the finest is set by: {found.limited_by}"
        )
    else:
        lines.append("  no frequency is transferred with a tenth of full strength: the detector is too near (contact)")
    ends = ", ".join(f"{name} {_half(float(np.max(values)))}" for name, values in found.limits.items())
    lines.append(f"  finest half period by cause: {ends}")
    if found.phase_noise is not None:
        lines.append(f"  photons: phase noise of a pixel {found.phase_noise:.2g} rad within that band")
    for size, critical, said, seen in found.details:
        smallest = "" if seen is None else f", seen from a phase of {seen:.2g} rad on (5 standard deviations)"
        lines.append(f"  detail of {metres(size)}: {said}, critical distance {metres(critical)}{smallest}")
    return lines


def metres(value: float) -> str:
    """Write a length like `21.3 mm`, with three digits."""
    for scale, unit in ((1.0, "m"), (1e-3, "mm"), (1e-6, "um"), (1e-9, "nm")):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-9:.3g} nm"


def _half(frequency: float) -> str:
    return metres(0.5 / frequency)


def _span(values: np.ndarray) -> str:
    low, high = float(np.min(values)), float(np.max(values))
    return metres(low) if high - low < 1e-3 * high else f"{metres(low)} to {metres(high)}"
