"""Volumes behind the frames of many angles at once: one cost functional, the projector inside of what refracts.

As in `fit_maps`, frames are read once a round and summed up, angle by angle, in what they say of four numbers at every
pixel; the volumes are then found without them. All angles share one sample: nothing is smoothed in a projection.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..operators.displacement import along_rays, slopes_of
from .conjugate_gradients import conjugate_gradients
from .refraction import MARGIN, Information, RefractionMaps, Transfer

__all__ = ["RefractionVolumes", "consistent_volumes", "landed_maps", "projected_fields"]


class RefractionVolumes(NamedTuple):
    """The unknown volumes, and what air is at each angle.

    **Fields:** `potential` `(z, y, x)` [pixel], whose line integrals are the potentials [pixel^2] of `RefractionMaps`;
    `attenuation` and `loss` [1/pixel], of the logarithms of transmission and visibility; `air` `(angle, 4)`, the fields
    without a sample: displacement along rows and columns [pixel], logarithms of intensity and visibility.
    """

    potential: Float[Array, "z y x"]
    attenuation: Float[Array, "z y x"]
    loss: Float[Array, "z y x"]
    air: Float[Array, "angle 4"]


@eqx.filter_jit
def projected_fields(A: Any, volumes: RefractionVolumes) -> Float[Array, "angle 3 y x"]:
    """Project volumes: potential [pixel^2] where rays leave the sample, logarithm of the transmission, visibility.

    ```python
    A = dr.operators.ParallelProjector(np.linspace(0, np.pi, 8, endpoint=False), (16, 16), 16)
    empty = RefractionVolumes(*3 * [jnp.zeros((4, 16, 16))], jnp.zeros((8, 4)))
    assert jnp.allclose(projected_fields(A, empty)[:, 2], 1.0)
    ```
    """
    potential, attenuation, loss = (A(v) for v in volumes[:3])
    light = volumes.air[:, 2, None, None] - attenuation
    return jnp.stack([potential, light, jnp.exp(volumes.air[:, 3, None, None] - loss)], 1)


def landed_maps(fields: Float[Array, "3 y x"], tilt: Float[Array, "2"]) -> RefractionMaps:
    """Make the images of one angle as its model has them: carried along the rays to where they land.

    The potential there is a Legendre transform, `P(y - D) + D^2 / 2` with D its own slope.

    ```python
    maps = landed_maps(jnp.ones((3, 32, 32)), jnp.zeros(2))
    assert jnp.allclose(maps.visibility, 1.0) and jnp.allclose(slopes_of(maps.potential)[0, 20:40, 20:40], 0.0)
    ```
    """
    flat = RefractionMaps.flat(jnp.concatenate([jnp.zeros_like(fields[:2]), fields[1:]]))
    size = (flat.potential.shape[0], flat.potential.shape[1])
    wide = _widened(fields[:1], size, "constant")[0]
    inside = tuple(slice(MARGIN, MARGIN + n) for n in fields.shape[1:])
    moved = slopes_of(wide)[:, *inside]
    back, (potential, light, seen) = along_rays(-np.asarray(moved), np.asarray(fields))
    potential = jnp.asarray(potential + (back**2).sum(0) / 2, fields.dtype)
    made = RefractionMaps.flat(jnp.asarray(np.stack([0 * light, 0 * light, light, seen]), fields.dtype))
    potential = _widened(potential[None], size, "constant")[0]
    return made._replace(potential=potential, tilt=tilt)


@eqx.filter_jit
def consistent_volumes(
    A: Any, information: Information, volumes: RefractionVolumes, transfer: Transfer, weights: Any, *, steps: int = 20
) -> RefractionVolumes:
    """Take the step of volumes that agrees best with what all angles say, by conjugate gradients.

    **Arguments:** `A`, the projector of the slices; `information` of all angles, stacked along the first axis, taken at
    the images of `volumes`; `transfer`, how frames see them, on the shape with margins; `weights` of few steps
    in potential, attenuation and loss, in units of a voxel's noise. **Cost:** two projections of the volumes a step.
    """
    size = information.at.shape[-2:]
    seen = information.at[:, 3]
    transfer = jax.tree.map(lambda gain: jnp.asarray(gain, seen.dtype), transfer)
    shape = (transfer.fringes.shape[0], 2 * (transfer.fringes.shape[1] - 1))

    def fields(z: RefractionVolumes) -> Array:
        potential, attenuation, loss = (A(v) for v in z[:3])
        wide = _widened(potential, shape, "constant")
        inside = (slice(None), slice(MARGIN, MARGIN + size[0]), slice(MARGIN, MARGIN + size[1]))
        through = lambda image, gain: jnp.fft.irfft2(jnp.fft.rfft2(image) * gain, s=shape)
        moved = slopes_of(wide if transfer.displacement is None else through(wide, transfer.displacement))[:, *inside]
        both = lambda image, gain: (image if gain is None else through(_widened(image, shape, "edge"), gain)[inside])
        light = through(wide, transfer.fringes)[inside] - both(attenuation, transfer.attenuation)
        parts = [moved[0], moved[1], light, -seen * both(loss, transfer.visibility)]
        scale = jnp.stack([jnp.ones_like(seen)] * 3 + [seen], 1)
        return jnp.stack(parts, 1) + scale * z.air[:, :, None, None]

    zero = jax.tree.map(jnp.zeros_like, volumes)
    _, back = jax.vjp(fields, zero)
    prior, precondition = _prior_of(information, volumes, transfer, weights, seen)

    def curvature(z: RefractionVolumes) -> RefractionVolumes:
        told = back(jnp.einsum("aijyx,ajyx->aiyx", information.hessian, fields(z)))[0]
        return jax.tree.map(jnp.add, told, prior(z))

    right = jax.tree.map(jnp.subtract, back(information.gradient)[0], prior(volumes))
    step = conjugate_gradients(curvature, right, x0=zero, precondition=precondition, steps=steps)[0]
    return jax.tree.map(jnp.add, volumes, step)


# ---------------------------------------------------------------------------------------------------- parts
def _widened(stack: Array, shape: tuple[int, int], mode: str) -> Array:
    rows, columns = ((MARGIN, whole - n - MARGIN) for whole, n in zip(shape, stack.shape[1:], strict=True))
    taller = jnp.pad(stack, ((0, 0), rows, (0, 0)), mode="edge")
    return jnp.pad(taller, ((0, 0), (0, 0), columns), mode=mode)


def _prior_of(
    information: Information, volumes: RefractionVolumes, transfer: Transfer, weights: Any, seen: Array
) -> Any:
    """Give the lagged prior of few steps, and the inverse of the mean curvature at every frequency of the volumes."""
    angles, shape = information.at.shape[0], volumes.potential.shape
    real = seen.dtype
    fz, fy, fx = np.meshgrid(*map(np.fft.fftfreq, shape[:2]), np.fft.rfftfreq(shape[2]), indexing="ij", sparse=True)
    across = np.maximum(np.hypot(fy, fx), 0.5 / shape[2])
    spread = jnp.asarray(angles / np.pi / across, real)  # of A'A
    square = jnp.asarray(4 * (np.sin(np.pi * fz) ** 2 + np.sin(np.pi * np.minimum(across, 0.5)) ** 2), real)
    line = transfer.fringes[0]
    fringe = jnp.interp(jnp.asarray(np.hypot(across, fz), real), jnp.linspace(0, 0.5, line.size), line)
    bent = (information.hessian[:, 0, 0] + information.hessian[:, 1, 1]).mean() / 2
    light = information.hessian[:, 2, 2].mean()
    dim = (information.hessian[:, 3, 3] * seen**2).mean()
    told = angles / np.pi / 0.25
    noise = [jnp.sqrt(told * h) for h in (2.0 * bent, light, dim)]
    lagged, strength = [], []
    for volume, one, weight in zip(volumes[:3], noise, weights, strict=True):
        size = jnp.sqrt(sum(s**2 for s in _steps(volume)) + (1.0 / one) ** 2)
        lagged.append(weight * one / size)
        strength.append(jnp.exp(jnp.log(weight * one / size + 1e-30).mean()))

    def prior(z: RefractionVolumes) -> RefractionVolumes:
        smooth = [_steps_back(tuple(w * s for s in _steps(v))) for v, w in zip(z[:3], lagged, strict=True)]
        return RefractionVolumes(smooth[0], smooth[1], smooth[2], jnp.zeros_like(z.air))

    first = spread * (bent * square + light * fringe**2) + strength[0] * square
    second, cross = spread * light + strength[1] * square, -spread * light * fringe
    third = spread * dim + strength[2] * square
    determinant = jnp.maximum(first * second - cross**2, 1e-6 * first * second)
    sums = information.hessian[:, jnp.arange(4), jnp.arange(4)].sum((-2, -1))

    def precondition(r: RefractionVolumes) -> RefractionVolumes:
        p, q, v = (jnp.fft.rfftn(a) for a in r[:3])
        turn = lambda a: jnp.fft.irfftn(a, s=shape)
        return RefractionVolumes(
            turn((second * p - cross * q) / determinant), turn((first * q - cross * p) / determinant), turn(v / third),
            r.air / jnp.maximum(sums, 1e-6 * sums.max()),
        )  # fmt: skip

    return prior, precondition


def _steps(volume: Array) -> tuple[Array, Array, Array]:
    """Differences to the next voxel along each axis, none beyond the last slice."""
    down = jnp.concatenate([volume[1:] - volume[:-1], jnp.zeros_like(volume[:1])])
    return down, jnp.roll(volume, -1, 1) - volume, jnp.roll(volume, -1, 2) - volume


def _steps_back(q: tuple[Array, ...]) -> Array:
    inner = q[0][:-1]
    none = jnp.zeros_like(q[0][:1])
    down = jnp.concatenate([none, inner]) - jnp.concatenate([inner, none])
    return down + jnp.roll(q[1], 1, 1) - q[1] + jnp.roll(q[2], 1, 2) - q[2]
