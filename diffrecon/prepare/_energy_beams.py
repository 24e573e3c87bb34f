"""The empty beam at every energy: flats in groups of one energy each, without those that are none."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ..errors import InputError
from ._reference_frames import usable_references

__all__ = ["EnergyBeams", "energy_beams"]

_ALTERNATE = 0.5  # of the scatter within groups that the other order leaves, where flats alternate between energies
_SOME = 4096  # pixels that tell


class EnergyBeams(NamedTuple):
    """What counts are compared with.

    **Fields:** `light` of each energy, less the dark, and `dark` [counts]; `flats`, how many each energy has (infinite
    where the light was given as a number); `gain` = counts a photon, 1 where three flats or more of an energy do not
    tell it; `read_noise` [counts]; `lines`, what is to be said.
    """

    light: Float[np.ndarray, "energy y x"]
    dark: Float[np.ndarray, "y x"]
    flats: Float[np.ndarray, " energy"]
    gain: float
    read_noise: float
    lines: list[str]


def energy_beams(scan: Any, energy_of: Int[np.ndarray, " view"]) -> EnergyBeams:
    """Average flats and darks of a scan at several energies.

    Flats are as many for each energy, in the order in which the views have the energies; flats that alternate between
    the energies are recognised where that explains them far better. Any other number serves all energies where the
    flats are alike. Lit darks and dark flats are left out. Without flats `scan.flux` is the light.

    **Arguments:** `energy_of`, the number of the energy of each view.

    **Raises:** `InputError` where flats do not share out among the energies, or hold no light.

    ```python
    flats = np.repeat([50.0, 80.0], 3)[:, None, None] * np.ones((4, 8))
    beams = energy_beams(dr.Scan(np.ones((2, 4, 8)), flats=flats), np.arange(2))
    assert beams.light[:, 0, 0].tolist() == [50, 80] and beams.flats.tolist() == [3, 3]
    ```
    """
    count, frame = int(energy_of.max()) + 1, scan.frame_shape
    darks = np.zeros((0, *frame)) if scan.darks is None else np.asarray(scan.darks, float).reshape(-1, *frame)
    if scan.flats is None:
        flux = np.asarray(scan.flux, float)
        light = np.array([flux if flux.ndim == 0 else flux[energy_of == e].mean() for e in range(count)])
        light = np.broadcast_to(light[:, None, None], (count, *frame)).copy()
        dark, noise = _dark(darks, frame)
        return EnergyBeams(light, dark, np.full(count, np.inf), 1.0, noise, [])
    flats, lines = _sorted_flats(scan, energy_of, count)
    usable = usable_references(scan.replace(flats=flats.reshape(-1, *frame)), count)
    dark, noise = _dark(darks[usable.darks], frame)
    which = usable.flats.reshape(count, -1)
    groups = [some[good].astype(float) - dark for some, good in zip(flats, which, strict=True)]
    light, number = np.stack([group.mean(0) for group in groups]), np.array([len(g) for g in groups], float)
    return EnergyBeams(light, dark, number, _gain(groups, noise), noise, lines + usable.lines)


def _dark(darks: np.ndarray, frame: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Average darks, and give their noise, of the readout."""
    noise = float(np.sqrt(np.median(darks.var(0, ddof=1)))) if len(darks) > 2 else 0.0
    return (darks.mean(0) if len(darks) else np.zeros(frame)), noise


def _sorted_flats(scan: Any, energy_of: np.ndarray, count: int) -> tuple[np.ndarray, list[str]]:
    """Give flats `(energy, frame, y, x)`, and what is to be said of their order."""
    frame, lines = scan.frame_shape, list[str]()
    flats = np.asarray(scan.flats).reshape(-1, *frame)
    if len(flats) % count:
        if not _alike(flats):
            raise InputError(
                f"{scan.name}: {len(flats)} flats do not share out among {count} energies: give as many for each, in "
                "the order of the energies (data.flats)"
            )
        lines.append(f"{len(flats)} flats do not share out among {count} energies: being alike, they serve all")
        return np.broadcast_to(flats, (count, *flats.shape)), lines
    if _alternate(flats, count):
        lines.append(f"the {len(flats)} flats alternate between the {count} energies, as their light has it")
        flats = flats.reshape(-1, count, *frame).swapaxes(0, 1)
    return flats.reshape(count, -1, *frame)[_order_of(energy_of, count)], lines


def _gain(groups: list[np.ndarray], noise: float) -> float:
    """Measure counts a photon by the scatter of flats, brought to the same mean."""
    many = [group for group in groups if len(group) > 2]
    if not many:
        return 1.0
    spread, light = [], []
    for group in many:
        level = group.mean((1, 2), keepdims=True)
        spread.append((group / np.maximum(level / level.mean(), 1e-6)).var(0, ddof=1))
        light.append(group.mean(0))
    return float(np.clip((np.median(spread) - noise**2) / np.median(light), 0.01, 100.0))


def _some_pixels(flats: np.ndarray) -> np.ndarray:
    pixels = flats.reshape(len(flats), -1)
    return pixels[:, :: max(1, pixels.shape[1] // _SOME)].astype(float)


def _alike(flats: np.ndarray) -> bool:
    """Tell whether flats scatter as much from one to the next as over all of them."""
    pixels = _some_pixels(flats)
    return len(flats) < 3 or bool(np.nanmean(np.nanvar(pixels, 0)) < np.nanmean(np.diff(pixels, axis=0) ** 2))


def _alternate(flats: np.ndarray, count: int) -> bool:
    """Tell whether the flats scatter far less where every `count`-th is of the same energy."""
    pixels = _some_pixels(flats)
    within = lambda axis, shape: float(np.nanmean(np.nanvar(pixels.reshape(*shape, -1), axis=axis)))
    grouped, alternate = within(1, (count, len(flats) // count)), within(0, (len(flats) // count, count))
    return len(flats) > count > 1 and alternate < _ALTERNATE * grouped


def _order_of(energy_of: np.ndarray, count: int) -> np.ndarray:
    """Give, for the energies in increasing order, which group of flats is theirs: groups come as the views do."""
    first = np.array([np.flatnonzero(energy_of == e)[0] for e in range(count)])
    return np.argsort(np.argsort(first))
