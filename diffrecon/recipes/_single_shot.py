"""Gratings without phase stepping: fringes that the detector resolves, in one frame with the sample and one without."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .. import prepare
from ..errors import InputError, MissingMetadata
from ..models import DisplacedReference, SteppedFringes
from ..scan import Scan
from ..solvers.direct.gradients import unwrap_phase
from ..solvers.refraction import Smoothness, first_maps
from ._refraction import Stacks, Unit, displaced_pattern, flux_of

__all__ = ["Shot", "shot_of"]

_RESOLVED = 2.0  # pixels a period, above which an analyser's period is that of the fringes themselves
_BEAM = 6.0  # standard deviation of what is beam and not pattern, at least [pixel]; half a period is more for wide ones
_WEAK = 0.15  # visibility, below which grains of a sample are taken for fringes
_TRUST = 12.0  # in displacements where the fringes are sharp [1/pixel^2]


class Shot(NamedTuple):
    """What single frames say to begin with.

    **Fields:** `model`, with the images closest to the fringes' own phases; `across`, the only direction that they
    tell, or `None`; `turn` [rad/pixel] of the fringes by a displacement; `gain`, variance of a value over the value;
    `lines` for the user.
    """

    model: DisplacedReference | SteppedFringes
    across: tuple[float, float] | None
    turn: float
    gain: float
    lines: tuple[str, ...]


def shot_of(
    scan: Scan, stacks: Stacks, unit: Unit, smoothness: Smoothness, fringes: dict[str, Any], reading: str
) -> Shot:
    """Find the carriers, follow their phases from pixel to pixel, and take the images closest to them.

    Fringes that are the grating's own are displaced as the sample displaces them: the reference itself is looked up
    there. Moire fringes turn by the displacement over the analyser's period, and that alone.

    **Raises:** `InputError` without fringes that the detector resolves; `MissingMetadata` for moire of an analyser
    whose period is not known.
    """
    carriers = prepare.find_carriers(stacks.reference)
    if not len(carriers.waves):
        raise InputError(
            f"{scan.name}: the reference shows no fringes, which single frames of a grating need: periods of two "
            f"pixels or more, four of them across the frame ({carriers.share:.1%} of its pattern is in the strongest "
            "waves). A pattern without a period is for -m speckle; phase stepping takes three frames or more"
        )
    period = float(scan.extra.get("period") or np.inf)
    moire = reading.startswith("moire") or (reading == "auto" and period < _RESOLVED * unit.detector)
    if moire and not np.isfinite(period):
        raise MissingMetadata("geometry.period", "the period of the analysing grating", scan.name, "2.4 um")
    patterns = prepare.split_patterns(stacks.reference, max(_BEAM, carriers.periods.max() / 2))
    if moire:
        waves = carriers.waves[:1]
        sign = 1 if reading == "moire-reversed" else -1
        turn = sign * 2 * np.pi * unit.detector / period
        turns, across = np.array([[0.0, turn]]), (0.0, 1.0)
    else:
        waves = carriers.waves
        turns, turn = -2 * np.pi * waves, 2 * np.pi / float(carriers.periods.max())
        across = (
            None
            if len(waves) > 1
            else (float(waves[0, 0] / np.hypot(*waves[0])), float(waves[0, 1] / np.hypot(*waves[0])))
        )
    fields, amplitude, light, guesses = _first_fields(stacks, waves, turns)
    trust = _TRUST * np.clip(fields[3], 0.05, 1.0) ** 2 * stacks.good
    cast = lambda a: jnp.asarray(a, jnp.float32)
    maps = first_maps(cast(fields), cast(trust), smoothness, steps=30, across=across)
    if moire:
        y, x = np.indices(light.shape)
        carrier = 2 * np.pi * (waves[0, 0] * y + waves[0, 1] * x)
        model = SteppedFringes(
            maps=maps, flux=cast(flux_of(stacks)), step=cast(np.zeros(len(stacks.sample))), mean=cast(light),
            amplitude=cast(np.abs(amplitude)), phase=cast(np.angle(amplitude) + carrier), trust=cast(stacks.good),
            deviation=cast(patterns.gain), share=patterns.share, turn=turn, **fringes,
        )  # fmt: skip
    else:
        model = displaced_pattern(stacks, patterns, maps, fringes, across=across)
    lines = _lines(stacks, carriers, unit, np.abs(amplitude), turn, moire, across, patterns.gain)
    return Shot(model, across, turn, patterns.gain, (*lines, *_doubts(guesses)))


def _first_fields(
    stacks: Stacks, waves: np.ndarray, turns: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Displacement, light and visibility from the carriers; the reference's amplitude of the first, and its light;
    places where the phases contradict one another.
    """
    (there, behind), (still, empty) = (prepare.demodulate(s, waves) for s in (stacks.sample, stacks.reference))
    product, power = (there * still.conj()).sum(1), (np.abs(still) ** 2).sum(1)
    phases, guesses = [], 0
    for one in product:
        weight = jnp.asarray(np.abs(one) ** 2 * stacks.good, jnp.float32)
        phase, contradictions = unwrap_phase(jnp.asarray(np.angle(one), jnp.float32), weight)
        phases.append(np.asarray(phase, float))
        guesses += int(contradictions)
    moved = np.einsum("ij,jyx->iyx", np.linalg.pinv(turns), np.array(phases))
    visibility = np.abs(product).sum(0) / np.maximum(power.sum(0), 1e-12)
    flux = flux_of(stacks)[:, None, None]
    light = np.log(behind.sum(0) / (empty * flux).sum(0))
    fields = np.stack([*moved, light, np.clip(visibility, 0.1, 1.2)]).astype(np.float32)
    return fields, still[0].mean(0), empty.mean(0), guesses


def _lines(
    stacks: Stacks, carriers: prepare.Carriers, unit: Unit, amplitude: np.ndarray, turn: float, moire: bool,
    across: tuple[float, float] | None, gain: float,
) -> list[str]:  # fmt: skip
    """Say what the fringes are taken for, and what they can tell."""
    seen, photons = float(np.median(amplitude[stacks.good])), float(stacks.sample.sum(0).mean()) / gain
    noise = 2 / (seen * np.sqrt(photons)) / abs(turn) * unit.angle
    wide = " and ".join(f"{p:.2f}" for p in carriers.periods[: 1 if moire else None])
    what = "moire of the analyser, which moves" if moire else "the grating's own, displaced"
    lines = [
        f"fringes of {wide} pixels and visibility {seen:.3f} in {len(stacks.sample)} frames, taken for {what} as the "
        f"sample refracts (model.reading): they tell an angle to {noise:.2g} rad in a single pixel, and beyond "
        f"{np.pi / abs(turn) * unit.angle:.2g} rad by how the phase hangs together"
    ]
    if seen < _WEAK:
        lines.append(
            "so weak a pattern is not told from the sample's own grain: where that is rough, the dark field comes out "
            "too bright; coarser fringes have more contrast"
        )
    if moire:
        lines.append(
            "which way moire moves is a matter of the gratings and not in the frames: if angles come out with the "
            "wrong sign, say model.reading=moire-reversed"
        )
    elif across is not None:
        lines.append(
            f"fringes of one direction tell angles across their lines, ({across[0]:.2f}, {across[1]:.2f}) along "
            "(y, x); along the lines the phase hangs together by air alone"
        )
    return lines


def _doubts(contradictions: int) -> list[str]:
    if not contradictions:
        return []
    return [
        f"the phases of the fringes contradict one another in {contradictions} places: whole periods there are a guess"
    ]
