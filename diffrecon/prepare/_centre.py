"""The rotation centre from the sinogram itself, by two estimators that check one another."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InputError

__all__ = ["RotationCentre", "find_rotation_centre"]


@dataclasses.dataclass(frozen=True)
class RotationCentre:
    """**Fields:** `centre` = detector column of the rotation axis [pixel]; `spread` = half the difference of the
    estimators [pixel]; `estimates` by name; `message` in words, with a warning where they disagree or the search ended
    at the edge of its range."""

    centre: float
    spread: float
    estimates: dict[str, float]
    message: str


def find_rotation_centre(
    sinograms: Float[np.ndarray, "view y x"],
    angles: Float[np.ndarray, " view"],
    *,
    search: tuple[float, float] | None = None,
    rows: int = 4,
) -> RotationCentre:
    """Find the detector column on which the rotation axis falls.

    Two estimators: the double-wedge metric of a sinogram joined with its mirror image (Vo et al. 2014,
    10.1364/OE.22.019078), and the correlation of views half a turn apart with their mirror images. The first one
    counts, unless it ends on the edge of the search; the second says how far it can be trusted.

    **Arguments:** line integrals `(view, y, x)`; `angles` [rad]; `search` = (first, last) column, the middle half of
    the detector by default; `rows` = number of detector rows used, evenly spaced, those with most contrast.

    **Raises:** `InputError` when the views span less than 170 degrees.

    Cost: about 200 FFTs of a sinogram.
    """
    turn = float(np.ptp(angles))
    if turn < np.radians(170):
        raise InputError(
            f"the views span {np.degrees(turn):.0f} degrees: a rotation centre cannot be found from less than half a "
            "turn; give it (geometry.rotation_centre)"
        )
    columns = sinograms.shape[-1]
    low, high = search or (columns / 4, columns * 3 / 4 - 1)
    order = np.argsort(angles)
    half = order[angles[order] < angles[order[0]] + np.pi - 1e-9]
    contrast = sinograms.std((0, 2))
    chosen = np.argsort(contrast)[-rows:]
    double = float(np.median([_double_wedge(sinograms[half, row], low, high) for row in chosen]))
    mirror = _mirror(sinograms[:, chosen], angles, low, high)
    estimates = {"double wedge": double} | ({"mirror": mirror} if mirror is not None else {})
    spread = 0.0 if mirror is None else abs(mirror - double) / 2
    edge = lambda centre: centre - low < 1 or high - centre < 1
    centre = mirror if mirror is not None and edge(double) and not edge(mirror) else double
    return RotationCentre(centre, spread, estimates, _say(centre, estimates, edge(centre), low, high))


def _say(centre: float, estimates: dict[str, float], edge: bool, low: float, high: float) -> str:
    message = f"rotation centre {centre:.2f} (" + ", ".join(f"{k} {v:.2f}" for k, v in estimates.items()) + ")"
    if edge:
        message += f"; it lies on the edge of the search from {low:.0f} to {high:.0f}: check it, or give "
        message += "geometry.rotation_centre"
    elif np.ptp(list(estimates.values())) > 2:
        message += "; the estimators disagree: check it in the picture, or give geometry.rotation_centre"
    return message


def _double_wedge(sinogram: np.ndarray, low: float, high: float) -> float:
    """Coarse to fine minimum of the energy outside the double wedge."""
    low, high = np.ceil(low), np.floor(high)
    step = max(1, int((high - low) // 80))
    coarse = np.arange(low, high + 1, step)
    best = coarse[np.argmin(_wedge_energy(sinogram, coarse))]
    for reach, fine in ((step, 0.5), (0.5, 0.05)):
        places = np.clip(np.arange(best - reach, best + reach + fine / 2, fine), low, high)
        energy = _wedge_energy(sinogram, places)
        best = places[np.argmin(energy)]
    return float(best)


def _wedge_energy(sinogram: np.ndarray, centres: np.ndarray) -> np.ndarray:
    data = jnp.asarray(sinogram, jnp.float32)
    views, columns = sinogram.shape
    # The transform of a full turn of an object of radius r fills |k_view| <= r |k_column|; outside only a wrong centre
    # has energy.
    ku = np.fft.rfftfreq(columns) * 2 * np.pi
    kv = np.abs(np.fft.fftfreq(2 * views) * 2 * views)
    outside = kv[:, None] > 1.1 * (columns / 2) * ku[None] + 2
    return np.asarray(_energies(data, jnp.asarray(centres, jnp.float32), jnp.asarray(outside)))


@jax.jit
def _energies(
    sinogram: Float[Array, "view x"], centres: Float[Array, " centre"], outside: Array
) -> Float[Array, " centre"]:
    columns = sinogram.shape[1]
    flipped = jnp.fft.rfft(sinogram[:, ::-1], 2 * columns)
    frequency = jnp.asarray(np.fft.rfftfreq(2 * columns), jnp.float32)

    def energy(centre):
        # The mirrored view half a turn later: p(theta + pi, u) = p(theta, 2 c - u).
        shift = 2 * centre - (columns - 1)
        mirrored = jnp.fft.irfft(flipped * jnp.exp(-2j * jnp.pi * frequency * shift), 2 * columns)[:, :columns]
        u = jnp.arange(columns)
        seen = (u - shift >= 0) & (u - shift <= columns - 1)
        # What the mirror image does not cover is taken from the sinogram itself, so that the overlap alone counts.
        whole = jnp.concatenate([sinogram, jnp.where(seen, mirrored, sinogram)])
        return jnp.mean(jnp.abs(jnp.fft.fft(jnp.fft.rfft(whole, axis=1), axis=0)) * outside)

    return jax.lax.map(energy, centres)


def _mirror(sinograms: np.ndarray, angles: np.ndarray, low: float, high: float) -> float | None:
    """Least-squares match of views with the mirror images of those half a turn away (within 1.5 degrees)."""
    turn = np.abs((angles[:, None] - angles[None]) % (2 * np.pi) - np.pi)
    first, second = np.nonzero(turn < np.radians(1.5))
    if not first.size:
        return None
    pick = np.linspace(0, first.size - 1, min(8, first.size)).astype(int)
    a = sinograms[first[pick]].astype(float)
    b = sinograms[second[pick]][..., ::-1].astype(float)
    columns = a.shape[-1]

    def misfit(shift: int) -> float:
        u = slice(max(shift, 0), columns + min(shift, 0))
        v = slice(max(-shift, 0), columns + min(-shift, 0))
        return float(np.mean((a[..., u] - b[..., v]) ** 2))

    shifts = np.arange(int(np.ceil(2 * low)) - (columns - 1), int(np.floor(2 * high)) - (columns - 1) + 1)
    curve = np.array([misfit(s) for s in shifts])
    k = int(np.clip(np.argmin(curve), 1, len(shifts) - 2))
    bend = curve[k - 1] - 2 * curve[k] + curve[k + 1]
    fine = 0.5 * (curve[k - 1] - curve[k + 1]) / bend if bend > 0 else 0.0
    return float((shifts[k] + fine + columns - 1) / 2)
