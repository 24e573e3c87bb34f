"""Areal densities of elements from an object's phase and attenuation and from counts: the costs, and where to begin."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from .. import losses
from .._model import Batch, Model
from ..models import ElementCounts, Elements

_FLOOR = 1e-3  # counts below which a prediction is none
_BELOW = 10.0  # cost of an areal density of minus its mean
_FLAT = 1e-3  # steps of the phase that count as none [rad]
_LEAST = 1e-4  # of the smooth rests: white noise below this is none [rad]
_EM = 30  # steps of the deconvolution that starts


def prior(elements: Elements) -> Float[Array, ""]:
    """Minus the logarithm of what is known beforehand, in units of the log-likelihood.

    Edges are sparse: steps of each element's share of the phase have the density `exp(-edges |d|)`, whichever element
    they belong to. What is below zero, and counts as none, is drawn back to it. The rests are smooth, as rough as
    `elements.expected` says.
    """
    areal, seen = elements.areal(), elements.seen
    share = areal * elements.index[0][:, None, None]
    down, across = share[:, 1:, :-1] - share[:, :-1, :-1], share[:, :-1, 1:] - share[:, :-1, :-1]
    inside = seen[1:, :-1] & seen[:-1, 1:] & seen[:-1, :-1]
    steps = jnp.sqrt(down**2 + across**2 + _FLAT**2) - _FLAT
    below = jnp.minimum(elements.mixed() / elements.unit[:, None, None], 0)
    rough = elements.rests(elements.expected)
    edges = elements.edges * jnp.sum(jnp.where(inside, steps, 0))
    return edges + 0.5 * jnp.sum(rough**2) + _BELOW * jnp.sum(below**2)


class Separation(Model):
    """Elements that are to explain an object found by ptychography, and counts in light that is known.

    **Fields:** `counts`, whose elements are solved for; `found`: the transmission; `weight`: information on its phase,
    and on its attenuation, in each pixel [1/rad^2].
    """

    counts: ElementCounts
    found: Complex[Array, "Y X"]
    weight: Float[Array, "Y X"]


def counts_deviance(predicted: Array, counts: Array, seen: Array) -> Array:
    """Half the Poisson deviance, summed over what was counted."""
    return losses.poisson(predicted, counts, seen, floor=_FLOOR) * jnp.maximum(jnp.sum(seen), 1)


def separation_cost(model: Separation, batch: Batch) -> Float[Array, ""]:
    """Deviance of all counts, distance of the object from the one that was found, and the prior."""
    elements = model.counts.elements
    made = elements.object()
    turned = jnp.angle(model.found * jnp.exp(-1j * made.real))
    thinned = -jnp.log(jnp.maximum(jnp.abs(model.found), 1e-3)) - made.imag
    away = 0.5 * jnp.sum(model.weight * (turned**2 + thinned**2))
    predicted = model.counts.counted(elements.areal(), batch.corners, batch.light)
    return counts_deviance(predicted, batch.counts, batch.seen) + away + prior(elements)


def offset_cost(model: ElementCounts, batch: Batch) -> Float[Array, ""]:
    """Deviance of a count: where the counts lie beside the frames."""
    return losses.poisson(model(batch.views), batch.counts, batch.seen, floor=_FLOOR)


@dataclass(frozen=True)
class CountsCost:
    """Deviance of the counts of a batch and the batch's share of the prior, beside frames of so many `pixels`.

    A mean over pixels of half the log-likelihood, as the cost of the frames' amplitudes is.
    """

    pixels: int

    def __call__(self, model: ElementCounts, batch: Batch) -> Float[Array, ""]:
        """Give the cost of a batch of views."""
        deviance = counts_deviance(model(batch.views), batch.counts, batch.seen)
        all_views = len(model.optics.positions)
        return (deviance / len(batch.counts) + prior(model.elements) / all_views) / (2 * self.pixels)


# ---------------------------------------------------------------------------------------------------- the start
def separation(
    counts: ElementCounts, found: Complex[np.ndarray, "Y X"], light: Float[np.ndarray, "Y X"], data: Mapping[str, Any],
    seen: np.ndarray,
) -> tuple[Separation, dict[str, Any]]:  # fmt: skip
    """Make the problem of elements that explain an object, and its data.

    **Arguments:** transmission `found`, photons `light` on its pixels, `data` of the counts, where it is `seen`.
    """
    corners, patches = (np.asarray(part) for part in _light(counts, len(data["counts"])))
    given = {"counts": data["counts"], "seen": data["seen"], "corners": corners, "light": patches}
    weight = np.where(seen, 2 * light, 0).astype(np.float32)
    return Separation(counts, jnp.asarray(found), jnp.asarray(weight)), given


def first_elements(model: Separation, given: Mapping[str, Any], strength: float) -> Elements:
    """Areal densities by expectation maximisation in the light of the probe, rests from what they leave of the phase.

    **Arguments:** `strength` times the weight of edges that the phase itself makes most likely.
    """
    counts, found, weight = model.counts, np.asarray(model.found), np.asarray(model.weight)
    seen = weight > 0
    empty = Elements.empty((found.shape[0], found.shape[1]), np.asarray(counts.elements.index))
    elements = _scaled(empty, counts, given, weight / 2, seen)
    areal = _deconvolved(counts, elements, {k: jnp.asarray(v) for k, v in given.items()})
    elements = _with_rest(elements, areal, found, given["light"], float(np.median(weight[seen])))
    return elements.replace(edges=jnp.asarray(strength * _edges(found, weight / 2, seen), jnp.float32))


def expected_anew(elements: Elements) -> Elements:
    """Expect rests as rough as those found: the size that makes the data most likely, by MacKay's rule (1992).

    Of the rests' coordinates the data know `taken`, the others are the prior's: the variance found is their share's.
    One step; some steps of the elements belong between it and the next. No more than four times at once.
    """
    seen, taken = np.asarray(elements.seen), np.asarray(elements.taken, float)
    columns = np.full(taken.shape[-1], 2.0)  # of a spectrum of real numbers: all but the first, and the last if even
    columns[0] = 1
    columns[-1] = 2 - (seen.shape[1] % 2 == 0)
    known = (taken * columns).sum((1, 2)) / seen.size
    rough = np.asarray(elements.rests(elements.expected), float)[:, seen]
    factor = np.clip(np.sqrt(np.mean(rough**2, 1) / np.maximum(known, 1e-12)), 0.25, 4)
    expected = np.asarray(elements.expected, float)
    weight = np.asarray(elements.smooth, float) ** -2 - expected**2
    return _with_expected(elements, np.asarray(elements.rests(), float), expected / factor[:, None, None], weight)


@eqx.filter_jit
def _light(counts: ElementCounts, views: int) -> tuple[Array, Array]:
    return counts.light(jnp.arange(views))


def _scaled(elements: Elements, counts: ElementCounts, data: Mapping[str, Any], light: Any, seen: Any) -> Elements:
    """Choose coordinates in which phase, attenuation and counts have curvature one together."""
    sent = float(counts.photons) * np.asarray(counts.optics.gain)[:, None] * data["seen"]
    total = np.maximum(np.sum(data["counts"] * data["seen"], 0, dtype=float), 1.0)
    unit = total / np.maximum(sent.sum(0) * np.asarray(counts.emission), 1e-30)
    per_unit = np.asarray(elements.index, float) * unit
    curvature = 2 * np.median(light[seen]) * per_unit.T @ per_unit + np.diag(1 + total / seen.sum())
    values, vectors = np.linalg.eigh(curvature)
    cast = lambda array: jnp.asarray(np.asarray(array, np.float32))
    return elements.replace(
        mixing=cast(unit[:, None] * vectors / np.sqrt(values)), unit=cast(unit), seen=jnp.asarray(seen)
    )


@eqx.filter_jit
def _deconvolved(counts: ElementCounts, elements: Elements, data: Mapping[str, Array]) -> Array:
    """Areal densities by expectation maximisation (Shepp & Vardi 1982, Richardson 1972, Lucy 1974)."""
    forward = lambda areal: jnp.where(data["seen"], counts.counted(areal, data["corners"], data["light"]), 0)
    flat = jnp.where(elements.seen, elements.unit[:, None, None], 0.0)
    back = jax.linear_transpose(forward, flat)
    share = jnp.maximum(back(jnp.ones(data["seen"].shape, flat.dtype))[0], 1e-30)

    def step(_: int, areal: Array) -> Array:
        ratio = jnp.where(data["seen"], data["counts"] / jnp.maximum(forward(areal), _FLOOR), 0.0)
        return areal * back(ratio)[0] / share

    return jax.lax.fori_loop(0, _EM, step, flat)


def _with_rest(elements: Elements, areal: Array, found: np.ndarray, light: np.ndarray, weight: float) -> Elements:
    """Put areal densities in, and rests of phase and B that are as smooth as the probe is wide.

    How rough a rest is expected to be is at first what it is then, by the median of its Laplacian: its spectrum falls
    as f^-4 beyond one over the width of the probe. Too little, as the probe blurs it: `expected_anew` follows.
    """
    width, seen = _width(light), np.asarray(elements.seen)
    white = jnp.tensordot(jnp.linalg.inv(elements.mixing), jnp.asarray(areal), 1)
    own = elements.replace(white=white).object()
    made_phase, made_b = np.asarray(own.real), np.asarray(own.imag)
    left = np.angle(found * np.exp(-1j * made_phase))
    middle = np.angle(np.sum(np.where(seen, np.exp(1j * left), 0)))
    left = np.stack([np.angle(np.exp(1j * (left - middle))), -np.log(np.maximum(abs(found), 1e-3)) - made_b])
    level = np.median(left[1][seen])
    left[1] -= level
    fy, fx = np.fft.fftfreq(found.shape[0])[:, None], np.fft.rfftfreq(found.shape[1])[None]
    filtered = lambda image, gain: np.fft.irfft2(np.fft.rfft2(image) * gain, s=found.shape)
    blur = np.exp(-2 * (np.pi * width) ** 2 * (fy**2 + fx**2))
    rests = filtered(np.where(seen, left, 0), blur) / np.maximum(filtered(1.0 * seen, blur), 1e-2)
    laplacian = 4 - 2 * np.cos(2 * np.pi * fy) - 2 * np.cos(2 * np.pi * fx) + 1 / width**2
    sizes = np.maximum(1.5 * np.median(abs(filtered(rests, laplacian)[:, seen]), 1), _LEAST)
    expected = laplacian / sizes[:, None, None]
    plane = jnp.asarray(np.array([middle, 0, 0, level]) / 0.01, jnp.float32)
    return _with_expected(elements.replace(white=white, plane=plane), rests, expected, weight)


def _with_expected(elements: Elements, rests: np.ndarray, expected: np.ndarray, weight: Any) -> Elements:
    """Give elements with these rests, in coordinates for what is expected of them and what the data weigh."""
    smooth = 1 / np.sqrt(weight + expected**2)
    taken = weight * smooth**2
    share = np.array([1, -1])[:, None, None] * np.tensordot(np.asarray(elements.index), np.asarray(elements.areal()), 1)
    spectra = (np.fft.rfft2(rests) - taken * np.fft.rfft2(share)) / smooth
    cast = lambda array: jnp.asarray(np.asarray(array, np.float32))
    return elements.replace(
        rest=cast(np.fft.irfft2(spectra, s=rests.shape[-2:])), smooth=cast(smooth), taken=cast(taken),
        expected=cast(expected),
    )  # fmt: skip


def _width(light: np.ndarray) -> float:
    """Root mean square radius along an axis of the mean light of a view [pixel]: what counts can tell of shapes."""
    mean = light.mean(0, dtype=float)
    spread = []
    for axis in (0, 1):
        profile, place = mean.sum(1 - axis), np.arange(mean.shape[axis])
        middle = profile @ place / profile.sum()
        spread.append(profile @ (place - middle) ** 2 / profile.sum())
    return max(float(np.sqrt(np.mean(spread))), 1.0)


def _edges(found: np.ndarray, light: np.ndarray, seen: np.ndarray) -> float:
    """Most likely weight of edges, `2 / mean |step|` of the phase, less what photon noise adds to it [1/rad]."""
    steps = np.hypot(
        np.angle(found[1:, :-1] * found[:-1, :-1].conj()), np.angle(found[:-1, 1:] * found[:-1, :-1].conj())
    )
    inside = seen[1:, :-1] & seen[:-1, 1:] & seen[:-1, :-1]
    noise = np.sqrt(np.pi / 2) * np.sqrt(1 / np.maximum(light[seen], 1)).mean()
    return 2 / max(float(steps[inside].mean()) - noise, 0.2 * noise, 1e-6)


# ---------------------------------------------------------------------------------------------------- afterwards
def with_amounts(counts: ElementCounts, data: Mapping[str, Any]) -> Elements:
    """Give elements of which each has as many counts as were counted: one factor for each, at most 2."""
    expected = np.where(data["seen"], np.asarray(_counts(counts, len(data["counts"])), float), 0).sum(0)
    factor = np.clip(data["counts"].sum(0) / np.maximum(expected, 1e-30), 0.5, 2)
    elements = counts.elements
    mixing = np.asarray(elements.mixing, float)
    turned = jnp.asarray(np.linalg.solve(mixing, factor[:, None] * mixing), jnp.float32)
    return elements.replace(white=jnp.tensordot(turned, elements.white, 1))


@eqx.filter_jit
def _counts(counts: ElementCounts, views: int) -> Array:
    return counts(jnp.arange(views))


def areal_error(
    counts: ElementCounts, light: Float[np.ndarray, "Y X"], data: Mapping[str, Any]
) -> Float[np.ndarray, "element Y X"]:
    """Give standard deviations of areal densities [g/cm^2] by the Fisher information of each pixel, NaN where unseen.

    Phase and attenuation hold `2 light` each on the sums of the elements, counts on each by itself; the matrix of the
    elements of a pixel is inverted as a whole. Other pixels are taken as known, and no prior is in it.
    """
    corners, patches = (np.asarray(part) for part in _light(counts, len(data["counts"])))
    expected = np.maximum(np.asarray(_counts(counts, len(corners))), _FLOOR)
    times = np.where(data["seen"], np.asarray(counts.emission) ** 2 / expected, 0)
    elements, (height, width) = counts.elements, patches.shape[1:]
    index = np.asarray(elements.index, float)
    own = np.zeros((*light.shape, index.shape[1]))
    for (row, column), patch, share in zip(corners, patches, times, strict=True):
        own[row : row + height, column : column + width] += patch[..., None] ** 2 * share
    matrix = 2 * light[..., None, None] * (index.T @ index)
    matrix = matrix + np.maximum(own, 1e-12 * own.max((0, 1)))[..., None] * np.eye(index.shape[1])
    variance = np.diagonal(np.linalg.inv(matrix), axis1=-2, axis2=-1)
    return np.where(np.asarray(elements.seen), np.sqrt(np.maximum(np.moveaxis(variance, -1, 0), 0)), np.nan)
