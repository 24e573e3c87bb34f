"""One phase, transmission and visibility behind many frames: Gauss-Newton with all frames summed up beforehand.

Whatever tells of refraction (speckles, fringes, beamlets) says at every pixel how well it knows four numbers there: the
displacement (row, column), the logarithm of the intensity and the visibility. Frames are read once a round, into this
4 x 4 information; the images are then found without them, however many they were, by conjugate gradients that a filter
preconditions. Both displacements are slopes of one potential, which leaves its fringes in the intensity.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..operators.displacement import slopes_of, slopes_transposed, thin_closed
from ..operators.fourier import good_size
from .conjugate_gradients import conjugate_gradients

__all__ = [
    "Information", "RefractionMaps", "Smoothness", "Transfer", "consistent_maps", "fields_of", "first_maps", "fit_maps",
    "sum_up",
]  # fmt: skip

MARGIN = 16  # pixels around the frame in which the images are free
_FADING = (2.0, 4.0)  # powers of the visibility: slopes of microstructure are scattering, its fringes no signal
_UNTOLD = 0.02  # of the trust, in displacements along lines, which are not measured, to be none
_SHARP = 0.3  # of the noise of a pixel's displacement, from which on bends count by their size
_RIM = 0.3  # bends [1/pixel] from which on rays behind a rim nearly cross: few, but no less likely for being larger
_MOST_DOUBT = 6.0  # times that the misfit about a pixel may be counted less than elsewhere


class RefractionMaps(NamedTuple):
    """The unknown images, on the frame with a margin (`empty_maps` makes them).

    **Fields:** `potential` [pixel^2], whose slopes are the displacement; `attenuation`, logarithm of the transmission
    without fringes; `visibility` relative to the reference; `tilt` `(2,)` [pixel], a displacement of all pixels.
    """

    potential: Float[Array, "Y X"]
    attenuation: Float[Array, "Y X"]
    visibility: Float[Array, "Y X"]
    tilt: Float[Array, "2"]

    @classmethod
    def flat(cls, fields: Float[Array, "4 y x"]) -> "RefractionMaps":
        """Take intensity and visibility of some fields, and a flat potential."""
        height, width = fields.shape[1:]
        sizes = [good_size(n + 2 * MARGIN) for n in (height, width)]
        wide = lambda image: jnp.pad(
            image, [(MARGIN, size - n - MARGIN) for size, n in zip(sizes, (height, width), strict=True)], mode="edge"
        )
        zero = jnp.zeros(tuple(sizes), fields.dtype)
        return cls(zero, wide(fields[2]), wide(fields[3]), jnp.zeros(2, fields.dtype))


class Information(NamedTuple):
    """What the frames say of the four fields at every pixel: a quadratic cost about where it was taken.

    **Fields:** `hessian` `(4, 4, y, x)`; `gradient` `(4, y, x)`, downhill; `at` `(4, y, x)`, the fields; `misfit`
    `(y, x)`, mean squared residual in units of the noise.
    """

    hessian: Float[Array, "4 4 y x"]
    gradient: Float[Array, "4 y x"]
    at: Float[Array, "4 y x"]
    misfit: Float[Array, "y x"]


class Transfer(NamedTuple):
    """How frames see the images: gains at the frequencies of their `rfft2`, `None` for images as they are.

    **Fields:** `fringes` `(Y, half)`, from potential to logarithm of the intensity (`operators.fringe_transfer`);
    `displacement`, `attenuation` and `visibility`, of each of these: blur, shear, real and even.
    """

    fringes: Any
    displacement: Any = None
    attenuation: Any = None
    visibility: Any = None


class Smoothness(NamedTuple):
    """What is known beforehand: bends of the phase, steps of attenuation and visibility are few.

    **Fields:** `weights` of the potential, the attenuation and the visibility, in units of the noise of one pixel;
    `edges`, sizes from which a bend [1/pixel] or a step counts by its size and no longer by its square; bends from a
    part of a pixel's noise on, if that is less.
    """

    weights: tuple[float, float, float] = (1.0, 1.0, 1.5)
    edges: tuple[float, float, float] = (0.01, 0.01, 0.01)


def sum_up(
    residual: Float[Array, "y x view"], slopes: list[Any], weight: Float[Array, "y x #view"], at: Any
) -> Information:
    """Sum the frames up: `weight` is one over the variance of each value, `slopes` the derivatives of the prediction
    with respect to the four fields, `None` for one that it does not depend on.

    ```python
    ones = jnp.ones((4, 4, 3))
    information = sum_up(ones, [None, ones, ones, None], ones, jnp.zeros((4, 4, 4)))
    assert information.hessian[1, 2, 0, 0] == 3.0 and information.hessian[0, 0, 0, 0] == 0.0
    ```
    """
    zero = jnp.zeros(residual.shape[:2], residual.dtype)
    both = lambda a, b: zero if a is None or b is None else (weight * a * b).sum(-1)
    hessian = jnp.stack([jnp.stack([both(a, b) for b in slopes]) for a in slopes])
    gradient = jnp.stack([both(a, residual) for a in slopes])
    return Information(hessian, gradient, at, (weight * residual**2).mean(-1))


def fields_of(maps: RefractionMaps, shape: tuple[int, int], transfer: Transfer) -> Float[Array, "4 y x"]:
    """Fields on the frame: displacement along rows and columns [pixel], logarithm of the intensity, visibility."""
    inside = slice(MARGIN, MARGIN + shape[0]), slice(MARGIN, MARGIN + shape[1])
    moved = slopes_of(_filtered(maps.potential, transfer.displacement))[:, *inside] + maps.tilt[:, None, None]
    light = _filtered(maps.attenuation, transfer.attenuation) + _filtered(maps.potential, transfer.fringes)
    return jnp.stack([*moved, light[inside], _filtered(maps.visibility, transfer.visibility)[inside]])


def consistent_maps(
    information: Information, maps: RefractionMaps, transfer: Transfer, smoothness: Any, steps: int,
    *, start: RefractionMaps | None = None,
) -> RefractionMaps:  # fmt: skip
    """Find the images that agree with the information and with one another, by conjugate gradients from `maps`.

    **Arguments:** `transfer`, how frames see the images; `smoothness` as `Smoothness`. Steps of the images keep the
    weight that they have in `maps`; called again with the result, small ones are smoothed and large ones stay. `start`
    is where it begins, by default `maps`. **Cost:** four FFTs a step, whatever the number of frames, and up to six for
    the `transfer`.
    """
    shape = (information.at.shape[1], information.at.shape[2])
    transfer = jax.tree.map(lambda gain: jnp.asarray(gain, information.at.dtype), transfer)
    spread = lambda fields: _fields_transposed(fields, maps.potential.shape, transfer)
    product = lambda fields: jnp.einsum("ijyx,jyx->iyx", information.hessian, fields)
    weights = _weights(information, maps, smoothness)

    def curvature(z: RefractionMaps) -> RefractionMaps:
        data = spread(product(fields_of(z, shape, transfer)))
        prior = _prior(z, weights)
        return jax.tree.map(jnp.add, data, prior)

    right = spread(product(information.at) + information.gradient)
    precondition = _preconditioner(information, weights, transfer, maps.potential.shape)
    return conjugate_gradients(
        curvature, right, x0=maps if start is None else start, precondition=precondition, steps=steps
    )[0]


@eqx.filter_jit
def first_maps(
    fields: Float[Array, "4 y x"],
    trust: Float[Array, "y x"],
    smoothness: Any,
    steps: int = 20,
    *,
    across: tuple[float, float] | None = None,
) -> RefractionMaps:
    """Find the images closest to fields that were measured pixel by pixel, such as by `track_windows`.

    **Arguments:** `trust` in each pixel's displacement, one over its variance [1/pixel^2]; `across` (row, column), the
    only direction in which it was measured.
    """
    eye = jnp.eye(4, dtype=fields.dtype)
    if across is not None:
        along = jnp.asarray([across[1], -across[0], 0, 0], fields.dtype)
        eye = eye - (1 - _UNTOLD) * jnp.outer(along, along)
    information = Information(eye[:, :, None, None] * trust, jnp.zeros_like(fields), fields, jnp.ones_like(trust))
    maps = RefractionMaps.flat(fields)
    none = jnp.zeros((maps.potential.shape[0], maps.potential.shape[1] // 2 + 1), fields.dtype)
    return consistent_maps(information, maps, Transfer(none), smoothness, steps)


def fit_maps(
    model: Any,
    counts: Any,
    smoothness: Smoothness,
    *,
    rounds: int = 5,
    steps: int = 12,
    callback: Callable[[int, float], None] | None = None,
) -> tuple[Any, Float[np.ndarray, " round"]]:
    """Fit a model's images to all its frames: each round reads the frames once.

    **Arguments:** `model` has `maps`, `transfer`, `trust`, `replace`, and `information(counts)`, which gives an
    `Information` and the model with what belongs to single frames refined.

    **Returns:** the model, and the median misfit of every round in units of the noise.
    """
    history = []
    for number in range(rounds):
        model, misfit = _round(model, counts, smoothness, steps)
        history.append(misfit)
        if callback is not None:
            callback(number + 1, float(misfit))
    return model, np.asarray(history, float)


@eqx.filter_jit
def information_of(model: Any, counts: Any) -> Any:
    """Sum up all frames by the model, which comes back refined in what belongs to single frames."""
    return model.information(counts)


@eqx.filter_jit
def _round(model: Any, counts: Any, smoothness: Any, steps: int) -> Any:
    """One reading of the frames; where they disagree with the model more than elsewhere, they are trusted less.

    Not much less: steep places fit badly until they are solved, and would be given up for good.
    """
    information, model = model.information(counts)
    raw = information.misfit / jnp.maximum(model.trust, 1e-6)
    level = jnp.maximum(jnp.median(raw), 1e-6)
    maps = consistent_maps(information, model.maps, model.transfer, smoothness, steps)
    doubt = jnp.clip(_local_mean(raw) / level, 1.0, _MOST_DOUBT)
    trust = jnp.where(model.trust > 0, 1 / (level * doubt), 0)
    return model.replace(maps=maps, trust=trust), jnp.median(information.misfit)


def _local_mean(image: Array) -> Array:
    """Mean over 49 pixels: single residuals scatter by half their size."""
    padded = jnp.pad(image, 3, mode="reflect")
    return jax.lax.reduce_window(padded, 0.0, jax.lax.add, (7, 7), (1, 1), "VALID") / 49


# ---------------------------------------------------------------------------------------------------- parts
def _filtered(image: Array, gain: Any) -> Array:
    return image if gain is None else jnp.fft.irfft2(jnp.fft.rfft2(image) * gain, s=image.shape)


def _fields_transposed(fields: Array, shape: tuple[int, ...], transfer: Transfer) -> RefractionMaps:
    height, width = fields.shape[1:]
    wide = lambda a: jnp.pad(a, ((MARGIN, shape[0] - height - MARGIN), (MARGIN, shape[1] - width - MARGIN)))
    light, moved = wide(fields[2]), slopes_transposed(jnp.stack([wide(fields[0]), wide(fields[1])]))
    potential = _filtered(moved, transfer.displacement) + _filtered(light, transfer.fringes)
    attenuation = _filtered(light, transfer.attenuation)
    visibility = _filtered(wide(fields[3]), transfer.visibility)
    return RefractionMaps(potential, attenuation, visibility, fields[:2].sum((1, 2)))


_bend = lambda a, axis: jnp.roll(a, -1, axis) - 2 * a + jnp.roll(a, 1, axis)
_step = lambda a, axis: jnp.roll(a, -1, axis) - a
_step_back = lambda a, axis: jnp.roll(a, 1, axis) - a


def _bends(p: Array) -> tuple[Array, ...]:
    return _bend(p, 0), _bend(p, 1), np.sqrt(2.0).astype(p.dtype) * _step(_step(p, 0), 1)


def _steps(a: Array) -> tuple[Array, Array]:
    return _step(a, 0), _step(a, 1)


def _steps_transposed(q: tuple[Array, Array]) -> Array:
    return _step_back(q[0], 0) + _step_back(q[1], 1)


def _prior(z: RefractionMaps, weights: tuple[Array, Array, Array]) -> RefractionMaps:
    down, right, across = (weights[0] * b for b in _bends(z.potential))
    mixed = np.sqrt(2.0).astype(across.dtype) * _step_back(_step_back(across, 1), 0)
    smooth = lambda a, w: _steps_transposed((w * _step(a, 0), w * _step(a, 1)))
    return RefractionMaps(
        _bend(down, 0) + _bend(right, 1) + mixed,
        smooth(z.attenuation, weights[1]), smooth(z.visibility, weights[2]), jnp.zeros_like(z.tilt),
    )  # fmt: skip


def _weights(information: Information, maps: RefractionMaps, smoothness: Any) -> tuple[Array, Array, Array]:
    """Weights of squared bends and steps that count large ones by their size (lagged), in units of the noise.

    Where the visibility is low, slopes and fringes of unresolved structure are no signal: phases are smoothed more
    there, and intensities tied less to them.
    """
    diagonal = [jnp.median(information.hessian[i, i]) for i in range(4)]
    noise = jnp.sqrt(jnp.stack([jnp.maximum((diagonal[0] + diagonal[1]) / 2, 0), diagonal[2], diagonal[3]]))
    size = lambda parts, edge: jnp.sqrt(sum(p * p for p in parts) + edge**2)
    bent = jnp.minimum(smoothness.edges[0], _SHARP / jnp.maximum(noise[0], 1e-9))
    strength = [noise[i] * smoothness.weights[i] for i in range(3)]
    clear = jnp.clip(thin_closed(maps.visibility), 0.2, 1.0)
    bends = size(_bends(maps.potential), bent)
    return (
        strength[0] / (bends * (1 + bends / _RIM)) * clear ** -_FADING[0],
        strength[1] / size(_steps(maps.attenuation), smoothness.edges[1]) * clear ** _FADING[1],
        strength[2] / size(_steps(maps.visibility), smoothness.edges[2]),
    )


def _preconditioner(information: Information, weights: Any, transfer: Transfer, shape: tuple[int, ...]) -> Callable:
    """Invert the mean curvature at every frequency; potential and attenuation are coupled by the fringes."""
    real = information.at.dtype
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    down, right = (jnp.asarray(4 * np.sin(np.pi * f) ** 2, real) for f in (fy, fx))
    square = down + right
    share = information.misfit.size / np.prod(shape)
    diagonal = [information.hessian[i, i].mean() * share for i in range(4)]
    typical = [jnp.exp(jnp.log(w).mean()) for w in weights]
    bent = (diagonal[0] + diagonal[1]) / 2
    fringes, *gains = transfer
    moved, light, seen = (1.0 if gain is None else gain for gain in gains)
    first = (diagonal[0] * down + diagonal[1] * right) * moved**2 + typical[0] * square**2 + diagonal[2] * fringes**2
    first = jnp.maximum(first, 1e-6 * bent)
    second = diagonal[2] * light**2 + typical[1] * square
    second = jnp.maximum(second, 1e-6 * diagonal[2])
    cross = diagonal[2] * fringes * light
    determinant = first * second - cross**2
    third = jnp.maximum(diagonal[3] * seen**2 + typical[2] * square, 1e-6 * diagonal[3])
    tilt = jnp.stack([jnp.maximum(information.hessian[i, i].sum(), 1e-3 * bent) for i in range(2)])

    def apply(r: RefractionMaps) -> RefractionMaps:
        p, q, v = (jnp.fft.rfft2(a) for a in r[:3])
        back = lambda a: jnp.fft.irfft2(a, s=shape)
        return RefractionMaps(
            back((second * p - cross * q) / determinant), back((first * q - cross * p) / determinant),
            back(v / third), r.tilt / tilt,
        )  # fmt: skip

    return apply
