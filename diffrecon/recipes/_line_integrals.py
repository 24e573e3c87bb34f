"""What line integrals say of themselves: how well a volume explains them, whether they fit together, halves of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import physics, solvers
from ..errors import InputError
from ..operators import ParallelProjector
from ..scan import Scan
from ._slabs import middle_rows

__all__ = ["contradictions", "dose", "flat_halves", "residual"]

_CONTRADICTION = 1.5  # residual over what a right geometry leaves; 0.85 to 1.05 where all is right


@jax.jit
def _norms(prediction: Array, values: Array, volume: Array) -> tuple[Array, Array]:
    norm = lambda a: jnp.linalg.norm(a.ravel())
    return norm(prediction - values) / norm(values), jnp.all(jnp.isfinite(volume))


def residual(model: Any, values: Array, scan: Scan) -> float:
    """Compare prediction and data, `|A x - b| / |b|`.

    **Raises:** `InputError` for a volume that is not finite.
    """
    misfit, finite = _norms(model.projector(model.volume), values, model.volume)
    if not bool(finite):
        raise InputError(f"{scan.name}: the reconstruction is not finite; check the flats and darks")
    return float(misfit)


def contradictions(
    prepared: Any, A: Any, rows: Float[Array, "view z u"], first: int
) -> tuple[dict[str, float], list[str]]:
    """Tell from two middle rows whether the line integrals fit one volume in this geometry.

    Filtered back-projection leaves a residual even where all is right: its own, and photon noise of frames and flats.
    How much is seen by line integrals that are surely consistent, those of its own volume, with noise drawn anew.
    Where angles are mixed up, frames moved or the light changed the data leave more. Nothing is said without flats,
    which tell the noise, or of other geometries.
    """
    scan = prepared.scan
    if not isinstance(A, ParallelProjector) or scan.flats is None or prepared.settings["delta_beta"] is not None:
        return {}, []
    low, high = middle_rows(rows.shape[1], 2)
    data = rows[:, low:high]
    try:
        variance = np.asarray(prepared.variance(first + low, data))
    except InputError:  # views that were joined
        return {}, []
    noise = np.random.default_rng(0).standard_normal(data.shape) * np.sqrt(np.where(variance < 1e3, variance, 0))
    left = [float(v) for v in _both_residuals(A, data, jnp.asarray(noise, data.dtype))]
    floor = float(np.linalg.norm(noise) / max(float(jnp.linalg.norm(data)), 1e-30))
    figures = {"noise_floor_residual": floor, "fbp_residual": left[0], "fbp_residual_expected": left[1]}
    said = [
        f"photon noise alone is {floor:.4f} of the line integrals; fbp leaves {left[0]:.4f}, {left[1]:.4f} expected"
    ]
    if left[0] > _CONTRADICTION * left[1]:
        said.append(
            f"WARNING: the line integrals contradict each other, {left[0] / left[1]:.1f} times as much as noise makes "
            "them: angles or their order, motion, light that changed, odd frames"
        )
    return figures, said


def _both_residuals(A: ParallelProjector, data: Array, noise: Array) -> tuple[Array, Array]:
    """Compute the residual of fbp of the data, and of what a volume of the data predicts, with noise."""
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in A.shape)
    inside = jnp.asarray(np.hypot(rows[:, None], columns) < 0.47 * min(A.shape), data.dtype)
    left = lambda b: jnp.linalg.norm(A(solvers.fbp(A, b)) - b) / jnp.maximum(jnp.linalg.norm(b), 1e-30)
    smooth = solvers.fbp(A, data, filter="hann") * inside
    return left(data), left(A(smooth) + noise)


def flat_halves(prepared: Any, first: int, height: int) -> list[Float[np.ndarray, "z u"]]:
    """Compute what halves of the flats add to line integrals that were prepared with all of them, or nothing.

    The noise of flats is the same in all views: halves that share it agree where there is nothing. Several are dealt
    alternately; of one, each photon goes to either half by chance.
    """
    try:
        light, dark = (frame[first : first + height] for frame in prepared.beam())
    except InputError:  # no flats, or views that were joined
        return []
    flats = np.asarray(prepared.scan.flats, float)[:, first : first + height]
    if len(flats) > 1:
        parts = [flats[::2].mean(0), flats[1::2].mean(0)]
    else:
        photons = np.rint(np.maximum(flats[0], 0)).astype(np.int64)
        some = np.random.default_rng(0).binomial(photons, 0.5)
        parts = [2.0 * some, 2.0 * (photons - some)]
    seen = light > 0
    change = [np.log(np.maximum(part - dark, 0.5) / np.where(seen, light, 1)) for part in parts]
    return [np.where(seen, np.clip(c, -1, 1), 0) for c in change]


def dose(scan: Scan, material: str | None, energy: float | None, sinogram: Array) -> list[str]:
    """Say the dose and the smallest void seen, where file and user give enough; the detector is taken to count."""
    pixel = None if scan.pixel_size is None else float(scan.pixel_size)
    if material is None or energy is None or pixel is None or scan.flats is None:
        return []
    if physics.material(material).density is None:
        return []
    mean, dark = np.asarray(jnp.mean(sinogram, axis=(0, 1))), 0.0 if scan.darks is None else np.asarray(scan.darks)
    photons = float(np.mean(np.asarray(scan.flats)) - np.mean(dark))
    diameter = pixel * max(1, int((mean > 0.05 * mean.max()).sum()))
    return [physics.dose_statement(photons, scan.views, pixel, material, energy, diameter)]
