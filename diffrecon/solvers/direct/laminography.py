"""Filtered back-projection of laminography and of any scan about one axis that the beam may meet at any angle."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from ...errors import InputError
from ...operators.detector import AlignedProjector
from ...operators.fourier_pose import FourierPoseProjector
from .fbp import ramp_filter

__all__ = ["laminography_fbp"]


def laminography_fbp(
    A: FourierPoseProjector | AlignedProjector,
    images: Float[Array, "view row column"],
    *,
    filter: str = "ramp",
    cutoff: float = 1.0,
    weights: ArrayLike | None = None,
) -> Float[Array, "z y x"]:
    """Filter and back-project views about the z axis of the volume, tilted or not [images' unit / pixel].

    The view at angle theta holds the frequencies `q = k_u u + k_v v` of the object, `u` across axis and ray and
    `v = cos(tilt) z - sin(tilt) b` upright in the image, b the horizontal direction of the ray. From `du/dtheta = b`,
    `dq = cos(tilt) |k_u| dk_u dk_v dtheta`, and a full turn meets every q twice (k_u of either sign). Hence

        f = 1/2 int_0^2pi A'[cos(tilt) |k_u| images] dtheta ,

    the usual ramp filter times cos(tilt). Directions with `|q_xy| < |q_z| tan(tilt)` are not measured (the missing
    cone): they come out as zero, so that flat layers fade and the mean of the volume is lost; iterate from here.

    **Arguments:** `filter` and `cutoff` as in `fbp`; `weights`: angle each view stands for [rad], by default shares of
    pi for the gaps between the views of a full turn (half a turn suffices without tilt). Rolled detectors and tilts
    that vary are taken as they are; rotations about other axes are not.

    **Cost:** one adjoint and a 2-D transform pair of twice the size a view.

    **Raises:** `InputError` for wrong shapes.

    ```python
    from diffrecon.operators import laminography_poses
    poses = laminography_poses(np.linspace(0, 2 * np.pi, 40, endpoint=False), tilt=0.5)
    A = FourierPoseProjector(*poses, (8, 16, 16), (16, 16))
    volume = laminography_fbp(A, A(jnp.ones((8, 16, 16))))
    ```
    """
    A = A.posed() if isinstance(A, AlignedProjector) else A
    expected = (len(A.ray), *A.detector_shape)
    if images.shape != expected:
        raise InputError(f"laminography_fbp: images must be {expected} (view, row, column), got {images.shape}")
    shares = _shares(np.asarray(A.ray)) if weights is None else np.asarray(weights, np.float64)
    if shares.shape != expected[:1]:
        raise InputError(f"laminography_fbp: weights must be one a view ({expected[0]}), got {shares.shape}")
    return A.adjoint(_filtered(A, images, shares, filter, cutoff))


@eqx.filter_jit
def _filtered(A: FourierPoseProjector, images: Array, shares: np.ndarray, filter: str, cutoff: float) -> Array:
    rows, columns = (2 * n for n in A.detector_shape)
    gain = jnp.asarray(ramp_filter(columns, filter, cutoff), images.dtype)
    k_row, k_column = np.fft.fftfreq(rows)[:, None], np.arange(columns // 2 + 1) / columns

    def one(item: tuple[Array, ...]) -> Array:
        image, ray, row, column, share = item
        horizontal = jnp.sqrt(ray[0] ** 2 + ray[1] ** 2)  # cos(tilt)
        across = jnp.stack([ray[1], -ray[0], jnp.zeros_like(ray[0])]) / horizontal
        k_u = jnp.abs(k_column * (column @ across) + k_row * (row @ across))
        ramp = jnp.interp(k_u, np.arange(columns // 2 + 1) / columns, gain) * horizontal * share
        spectrum = jnp.fft.rfft2(image, (rows, columns)) * ramp.astype(image.dtype)
        return jnp.fft.irfft2(spectrum, (rows, columns))[: image.shape[0], : image.shape[1]]

    poses = (v.astype(images.dtype) for v in (A.ray, A.row, A.column))
    return jax.lax.map(one, (images, *poses, jnp.asarray(shares, images.dtype)))


def _shares(ray: np.ndarray) -> np.ndarray:
    """Half the gaps between neighbours over the full turn, scaled to pi in all; a wedge without views counts once."""
    angles = np.mod(np.arctan2(-ray[:, 0], ray[:, 1]), 2 * np.pi)
    order = np.argsort(angles)
    gaps = np.diff(angles[order], append=angles[order[0]] + 2 * np.pi)
    gaps = np.minimum(gaps, 3 * np.median(gaps)) if len(gaps) > 2 else gaps
    shares = np.empty(len(angles))
    shares[order] = gaps + np.roll(gaps, 1)
    return shares * np.pi / shares.sum()
