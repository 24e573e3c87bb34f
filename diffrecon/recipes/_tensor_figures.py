"""What a tensor SAXS solve is judged by: its residual beside photon noise, and functions of direction to look at."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from .._result import Quantity
from ..errors import InputError
from ..modality import Problem
from ..operators import real_harmonics
from ..regimes import directions

__all__ = ["coverage", "judged", "spheres"]

# The median of the square of a normal number of variance one.
_MEDIAN = 0.4549
_FAILS = 1.5  # times photon noise: residuals above are not the noise's
_SHOWN = (0.98, 0.5, 0.1)  # quantiles of the anisotropy, of voxels whose functions are drawn by default


def judged(problem: Problem) -> tuple[dict[str, Any], list[str]]:
    """Compare the prediction of all views with the data that count, `|p - d| / |d|`, and with photon noise.

    Weighted as in the solve. The noise is read from the data themselves (`_per_photon`), without the model.
    """
    prediction = np.asarray(problem.model.projector(problem.model.coefficients))
    per_photon = _per_photon(problem.data, len(prediction))
    sums = np.zeros(3)
    for view, predicted in enumerate(prediction):  # frames may lie in a file
        data, weight, light = _view(problem.data, view)
        expected = per_photon * np.maximum(predicted, 0) / light
        sums += [np.sum(weight * a) for a in ((predicted - data) ** 2, data**2, expected)]
    residual, floor = np.sqrt(sums[[0, 2]] / max(sums[1], 1e-30))
    figures = {"relative_residual": float(residual), "photon_noise": float(floor)}
    line = (
        f"relative residual of all views {residual:.4f}, photon noise {floor:.4f} (seen from differences of neighbours)"
    )
    if not floor or residual < _FAILS * floor:
        return figures, [line if floor else line.partition(",")[0]]
    return figures, [
        line,
        f"the residual is {residual / floor:.1f} times photon noise: the model does not explain the data. Are the "
        "angles and axes those of these frames (inspect), and is the transmission divided out?",
    ]


def _view(data: Mapping[str, Any], view: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Data of a view with zeros where they do not count, their weights, and the transmission (of one segment)."""
    values = np.asarray(data["counts"][view], float)
    weight = np.ones(1) if "weights" not in data else np.asarray(data["weights"][view], float)
    weight = np.where(np.isfinite(values), weight, 0)
    light = np.ones(1) if "transmission" not in data else np.asarray(data["transmission"][view], float)[..., None]
    return np.where(weight > 0, values, 0), weight, np.where(light > 0, light, np.inf)


def _per_photon(data: Mapping[str, Any], views: int, most: int = 40) -> float:
    """Find the unit f of the variance f d / T of data d behind a transmission T: what one photon adds.

    Third differences of neighbours along the raster are noise but at edges, which a median passes over; the smaller of
    rows and columns. 0 where no data are bright enough.
    """
    found: list[list[np.ndarray]] = [[], []]
    brightest = max(float(_view(data, view)[0].max(initial=0)) for view in range(0, views, max(views // 8, 1)))
    for view in range(0, views, max(views // most, 1)):
        values, weight, light = _view(data, view)
        for axis in (0, 1):
            if values.shape[axis] < 4:
                continue
            at = lambda a, i, axis=axis, n=values.shape[axis]: np.take(a, range(i, n - 3 + i), axis)
            four = [at(values, i) for i in range(4)]
            over = [at(values / light, i) for i in range(4)]
            variance = over[0] + 9 * over[1] + 9 * over[2] + over[3]
            counts = np.min([np.broadcast_to(at(weight, i) > 0, four[0].shape) for i in range(4)], 0)
            counts = (counts > 0) & (np.mean(four, 0) > 0.1 * brightest)
            difference = four[3] - 3 * four[2] + 3 * four[1] - four[0]
            found[axis].append((difference**2 / np.maximum(variance, 1e-30))[counts])
    medians = [np.median(np.concatenate(f)) for f in found if f and sum(map(len, f)) > 50]
    return float(min(medians) / _MEDIAN) if medians else 0.0


def coverage(problem: Problem) -> tuple[Quantity, dict[str, Any], str]:
    """Give the map of what the scan sees of each direction of scattering, the same as a figure, and in words."""
    A = problem.model.projector
    seen = directions(np.asarray(A.projector.ray, float), order=A.ell_max)
    words = "share seen, by direction"
    quantity = Quantity(seen.share, "", ("polar", "azimuth"), None, words, "sphere")
    return quantity, {"missing_wedge": seen.missing}, seen.sentence()


def spheres(
    coefficients: Float[Array, "z y x lm"], anisotropy: Float[np.ndarray, "z y x"], places: tuple[int, ...] | None,
    ell_max: int,
) -> dict[str, Quantity]:  # fmt: skip
    """Evaluate the function of direction of some voxels, `(voxel, polar, azimuth)`.

    **Arguments:** `places`: z, y, x of the first, then of the next; by default voxels of high, middling and low
    anisotropy.

    **Raises:** `InputError` for places that are none.
    """
    if places is None:
        known = np.flatnonzero(np.isfinite(anisotropy))
        if not known.size:
            return {}
        order = known[np.argsort(anisotropy.ravel()[known])]
        flat = [order[int(q * (len(order) - 1))] for q in _SHOWN]
        chosen = np.stack(np.unravel_index(flat, anisotropy.shape), 1)
    else:
        if len(places) % 3 or not places:
            raise InputError(f"model.shown = {list(places)} is to be z, y, x of the first voxel, then of the next")
        chosen = np.reshape(places, (-1, 3))
        if (chosen < 0).any() or (chosen >= anisotropy.shape).any():
            raise InputError(f"model.shown = {list(places)} lies outside of the volume of {list(anisotropy.shape)}")
    polar, azimuth = np.meshgrid((np.arange(18) + 0.5) * np.pi / 36, (np.arange(72) + 0.5) * np.pi / 36, indexing="ij")
    sine = np.sin(polar)
    q = np.stack([sine * np.cos(azimuth), sine * np.sin(azimuth), np.cos(polar)], -1)
    values = np.asarray(coefficients)[tuple(chosen.T)] @ np.moveaxis(real_harmonics(q, ell_max), -1, 0).reshape(
        -1, q[..., 0].size
    )
    words = "; ".join("voxel " + str(tuple(int(i) for i in c)) for c in chosen)
    shown = Quantity(values.reshape(-1, *polar.shape), "", ("voxel", "polar", "azimuth"), None, words, "sphere")
    return {"functions": shown}
