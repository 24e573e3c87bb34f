"""First guess of element densities: absorption frozen, emission solved, absorption renewed (Hogan et al. 1991, with
the EM steps of Shepp & Vardi 1982), and the axis of rotation by the residual of the predicted sinograms."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ..operators import turn_to_beam
from ._fluorescence import Fluorescence

__all__ = ["alternate", "curvature", "measured_offsets", "refined_amounts", "refined_offsets"]


def alternate(
    model: Fluorescence, counts: Float[Array, "view z u channel"], compton: int | None, sweeps: int, steps: int
) -> Fluorescence:
    """Sweep: densities of the elements and of the matrix with absorption as it was, then absorption anew.

    **Arguments:** `counts` with the transmitted ones last; `compton`: which channel; without it the matrix is what
    the transmission needs beside the elements.
    """
    total = _attenuation(model, counts, steps)
    density = model.density
    if not bool(jnp.any(density > 0)):  # at first all that absorbs is taken to be matrix
        density = density.at[0].set(total / jnp.maximum(model.beam[0], 1e-30))
    for _ in range(sweeps):
        density = _sweep(model.replace(scaled=density, unit=_ones(density)), counts, total, compton, steps)
    return model.replace(scaled=density, unit=_ones(density))


def _ones(density: Array) -> Array:
    return jnp.ones((density.shape[0], 1, 1, 1), density.dtype)


@jax.jit(static_argnames=("steps",))
def _attenuation(model: Fluorescence, counts: Array, steps: int) -> Float[Array, "z y x"]:
    """Attenuation of the beam per voxel from the transmission (SIRT), zero without one."""
    open_beam = (model.exposure * model.gain)[..., -1]
    seen = (open_beam > 0) & (counts[..., -1] > 0)
    depth = jnp.where(seen, -jnp.log(jnp.where(seen, counts[..., -1] / jnp.where(seen, open_beam, 1), 1)), 0)
    depth, known = (jnp.transpose(a, (2, 0, 1)) for a in (depth, seen.astype(depth.dtype)))
    turn = lambda v: turn_to_beam(jnp.moveaxis(v, 0, 2), model.angles, model.offsets)
    start = jnp.zeros(model.scaled.shape[1:], counts.dtype)
    back = jax.vjp(lambda v: jnp.sum(turn(v), 1), start)[1]
    rows = jnp.maximum(jnp.sum(turn(jnp.ones_like(start)), 1), 1e-2)
    columns = jnp.maximum(back(known)[0], 1e-2)

    def step(_: int, v: Array) -> Array:
        return jnp.maximum(v + back(known * (depth - jnp.sum(turn(v), 1)) / rows)[0] / columns, 0)

    return lax.fori_loop(0, steps, step, start)


@jax.jit(static_argnames=("compton", "steps"))
def _sweep(
    model: Fluorescence, counts: Array, total: Array, compton: int | None, steps: int
) -> Float[Array, "component z y x"]:
    _, share, _ = model.turned(slice(None))
    lines = model.emission.shape[0]
    measured = jnp.transpose(counts[..., :lines], (2, 1, 0, 3))
    sent = jnp.transpose((model.exposure * model.gain)[..., :lines], (2, 1, 0, 3))

    def predict(emitted: Float[Array, "y x z line"]) -> Array:
        turned = jnp.moveaxis(turn_to_beam(emitted, model.angles, model.offsets), 3, 2)
        return sent * jnp.sum(turned * share, 1)

    given = 0.0 if model.secondary is None else jnp.transpose(model.secondary, (2, 1, 0, 3)) * sent
    start = jnp.ones((*model.scaled.shape[2:], model.scaled.shape[1], lines), counts.dtype)
    back = jax.vjp(predict, start)[1]
    seen = back(jnp.ones_like(measured))[0]
    seen = jnp.maximum(seen, 1e-6 * jnp.max(seen))
    scale = jnp.sum(measured, (0, 1, 2)) / jnp.maximum(jnp.sum(predict(start), (0, 1, 2)), 1e-30)

    def step(_: int, emitted: Array) -> Array:
        expected = predict(emitted) + given
        ratio = jnp.where(expected > 1e-6, measured / jnp.maximum(expected, 1e-6), 0)
        return emitted * back(ratio)[0] / seen

    emitted = jnp.transpose(lax.fori_loop(0, steps, step, start * scale), (3, 2, 0, 1))
    return _densities(model, emitted, total, compton)


def _densities(model: Fluorescence, emitted: Array, total: Array, compton: int | None) -> Array:
    """Densities of the elements by their lines; the matrix by what it scatters, or absorbs, beside them."""
    own = model.emission if compton is None else model.emission.at[compton].set(0)
    strength = jnp.max(own[:, 1:], 0)
    elements = jnp.stack([emitted[jnp.argmax(own[:, c])] / s for c, s in enumerate(strength, start=1)])
    if compton is None:
        rest = (total - jnp.tensordot(model.beam[1:], elements, 1)) / model.beam[0]
    else:
        rest = (emitted[compton] - jnp.tensordot(model.emission[compton, 1:], elements, 1)) / model.emission[compton, 0]
    return jnp.concatenate([jnp.maximum(rest, 0)[None], elements])


@jax.jit
def curvature(model: Fluorescence, expected: Float[Array, "view z u channel"]) -> Float[Array, "component z y x"]:
    """Fisher information of every density alone [cm^6/g^2], its absorption left out."""
    _, share, _ = model.turned(slice(None))
    noise = jnp.transpose(jnp.maximum(expected, 1), (2, 1, 0, 3))
    sent = jnp.transpose(model.exposure * model.gain, (2, 1, 0, 3))
    by_line = share**2 * (sent**2 / noise)[:, None, ..., :-1]
    by_depth = jnp.transpose(expected, (2, 1, 0, 3))[:, None, ..., -1:]
    weights = jnp.concatenate([by_line, jnp.broadcast_to(by_depth, (*by_line.shape[:-1], 1))], -1)
    n, like = model.scaled.shape[2], model.scaled
    turn = lambda v: jnp.moveaxis(turn_to_beam(v, model.angles, model.offsets), 3, 2)
    start = jnp.zeros((n, n, like.shape[1], weights.shape[-1]), like.dtype)
    seen = jax.vjp(turn, start)[1](weights)[0]
    squares = jnp.concatenate([model.emission, model.beam[None]]) ** 2
    return jnp.transpose(seen @ squares, (3, 2, 0, 1))


def measured_offsets(
    model: Fluorescence, counts: Float[Array, "view z u channel"], compton: int | None, every: bool
) -> Float[np.ndarray, " view"]:
    """Find where the axis is seen, in each view or in all alike, from the centres of mass of what the beam crossed.

    The centre of a body goes round as `c + X cos + Y sin`; what is left of it is the wobble. It takes transmission, or
    Compton scattering, which little absorption distorts, and a body that lies within the scan.
    """
    seen, sent = np.asarray(counts, float), np.asarray(model.exposure * model.gain, float)
    channel = -1 if sent[..., -1].any() else compton
    if channel is None:
        return np.asarray(model.offsets)
    whole = (sent[..., channel] > 0).all((1, 2))  # views of which no point was left out
    share = seen[..., channel] / np.where(sent[..., channel] > 0, sent[..., channel], 1)
    depth = -np.log(np.maximum(share, 0.5 / np.max(sent[..., -1]))) if channel == -1 else share
    u = np.arange(depth.shape[-1]) - (depth.shape[-1] - 1) / 2
    centre = (depth * u).sum((1, 2)) / np.maximum(depth.sum((1, 2)), 1e-12)
    angles = np.asarray(model.angles, float)
    turn = np.stack([np.ones_like(angles), np.cos(angles), np.sin(angles)], -1)
    whole = whole if whole.any() else ~whole
    found = np.linalg.lstsq(turn[whole], centre[whole], rcond=None)[0]
    moved = (centre - turn @ found) * whole if every else 0 * centre
    return -(found[0] + moved)


@jax.jit(static_argnames=("every",))
def refined_offsets(
    model: Fluorescence, counts: Float[Array, "view z u channel"], every: bool
) -> Float[Array, " view"]:
    """Move the sinograms of each view, or of all alike, to where the prediction has them: one Gauss-Newton step.

    What amounts to a shift of the body, cos and sin of the angle, stays as it was.
    """
    expected = model(slice(None))
    sent = jnp.maximum(model.exposure * model.gain, 1e-30)
    slope = jnp.asarray(jnp.gradient(expected / sent, axis=2)) * sent
    weight = 1 / (jnp.maximum(expected, 1) + 4e-4 * expected**2)
    axes = (1, 2, 3)
    top, bottom = jnp.sum(weight * (counts - expected) * slope, axes), jnp.sum(weight * slope**2, axes)
    if not every:
        return model.offsets + jnp.sum(top) / jnp.sum(bottom)
    moves = jnp.clip(top / jnp.maximum(bottom, 1e-12), -1, 1)
    waves: Array = jnp.stack([jnp.cos(model.angles), jnp.sin(model.angles)], -1)
    return model.offsets + moves - waves @ jnp.linalg.lstsq(waves, moves - jnp.mean(moves))[0]


def refined_amounts(
    model: Fluorescence, counts: Float[Array, "view z u channel"], spread: Float[Array, " channel"]
) -> Fluorescence:
    """Scale every component as a whole to what the counts alone say, two Gauss-Newton steps.

    A penalty on edges makes grains a little too light; a single factor each is known so well that it needs none.
    `spread`: how many times the variance of photon noise the residuals have.
    """
    for _ in range(2):
        factors = np.asarray(_amounts(model, counts, spread), float)
        model = model.replace(scaled=model.scaled * jnp.asarray(factors, counts.dtype)[:, None, None, None])
    return model


@jax.jit
def _amounts(model: Fluorescence, counts: Array, spread: Array) -> Float[Array, " component"]:
    step, count = 1e-2, model.scaled.shape[0]
    scales = jnp.concatenate([jnp.ones((1, count)), 1 + step * jnp.eye(count)]).astype(counts.dtype)
    predict = lambda s: model.replace(scaled=model.scaled * s[:, None, None, None])(slice(None))
    expected = lax.map(predict, scales)
    slopes = (expected[1:] - expected[0]) / step
    weight = 1 / (jnp.maximum(expected[0], 1) * spread)
    matrix = jnp.einsum("avzuc,bvzuc,vzuc->ab", slopes, slopes, weight)
    right = jnp.einsum("avzuc,vzuc->a", slopes, weight * (counts - expected[0]))
    size = jnp.sqrt(jnp.maximum(jnp.diagonal(matrix), 1e-30))
    moves = jnp.linalg.solve(matrix / jnp.outer(size, size) + 1e-6 * jnp.eye(count), right / size) / size
    return jnp.clip(1 + moves, 0.8, 1.25)
