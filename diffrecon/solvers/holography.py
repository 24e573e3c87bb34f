"""Gauss-Newton holography: the object in coordinates in which every frequency has curvature about one.

The object is one map or two: the phase of the main material, and attenuation that it does not explain. Frequency by
frequency the maps are multiplied by the inverse Cholesky factor of the curvature of cost and prior. That curvature is
the contrast transfer functions' where the object is weak; a strong object bends the lowest frequencies of phase much
more than they say (its details move), so that there it is measured: the Gauss-Newton matrix is applied to random maps,
and its mean taken on rings of frequency.

A round of one material, from counts to phase (docs/holography.md has the whole way):

    phase, law = model.first_guess(counts)
    start = HologramCoordinates.about(model.replace(phase=phase), transfer_curvature(model), [law])
    model = fit_holograms(start, {"counts": counts}).value

The model is a `diffrecon.models.Holography`, or one with its fields.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from .. import losses
from .._console import Console
from .._model import Batch
from ..operators.fourier import gaussian, half_plane_weights, radial_frequency
from ..priors import Coordinates, PowerLaw, Variation, detail_gradient, filtered, mixed, vacuum_weights, whitening
from .conjugate_gradients import conjugate_gradients, inner
from .descent.gauss_newton import levenberg_marquardt
from .descent.minimise import Solution, minimise
from .posterior import MarginalResidual, posterior_error

__all__ = [
    "HologramCoordinates",
    "HologramCurvature",
    "attenuation_of_details",
    "field_scales",
    "fit_holograms",
    "first_maximum",
    "hologram_details",
    "hologram_residual",
    "measured_curvature",
    "transfer_curvature",
]

_RINGS = 24
_NAMES = ("phase", "attenuation")  # fields of the model that the maps are
_RELATIVE = ("shifts", "rotations", "stretch")  # to the first frame
_ONE_SIDED = 10.0  # weight of attenuation below that of the main material, in units of the flux


# ------------------------------------------------------------------------------------------ curvature
class HologramCurvature(NamedTuple):
    """Hold the curvature of half the sum of squares in phase and B at every frequency of `rfft2(norm="ortho")`.

    **Fields:** `matrix` `(2, 2, y, x//2 + 1)`; `flux`: counts of all views on one pixel of the object, their mean.
    """

    matrix: Float[Array, "2 2 y half"]
    flux: Float[Array, ""]

    def of_maps(self, mixing: Float[Array, "2 map"]) -> Float[Array, "map map y half"]:
        """Compute the curvature of maps of which phase and B are made by a matrix."""
        return jnp.einsum("pm,pqyx,qn->mnyx", mixing, self.matrix, mixing)

    def of_model(self, model: Any, maps: int) -> Float[Array, "map map y half"]:
        """Compute the curvature of the first maps of a model."""
        return self.of_maps(_mixing(model, maps))

    def at_most(self, other: "HologramCurvature") -> "HologramCurvature":
        """Take the smaller curvature of the phase at every frequency, its correlation with B unchanged.

        Where shifts are solved for too, a ramp of the phase and shifts of all frames look alike: what details say of
        the lowest frequencies by where they are is then worth nothing.
        """
        scale = jnp.sqrt(jnp.minimum(other.matrix[0, 0] / self.matrix[0, 0], 1))
        rows = jnp.stack([scale, jnp.ones_like(scale)])
        return self._replace(matrix=self.matrix * rows[:, None] * rows[None])

    def of_phase(self, model: Any) -> Float[Array, "y half"]:
        """Compute the curvature of the phase of one material."""
        return self.of_maps(_mixing(model, 1))[0, 0]


def _mixing(model: Any, maps: int) -> Float[Array, "2 map"]:
    """Give phase and B of each map: of the main material, and of attenuation beside it."""
    one, zero = jnp.ones_like(model.delta_beta), jnp.zeros_like(model.delta_beta)
    return jnp.stack([jnp.stack([one, zero]), jnp.stack([-1 / model.delta_beta, one])])[:, :maps]


def first_maximum(model: Any) -> Float[Array, ""]:
    """Compute the frequency [cycles/pixel] at which phase contrast has its first maximum, `sqrt(F/2)`, at the mean
    distance."""
    return jnp.sqrt(0.5 * model.pixel_size**2 / (model.wavelength * jnp.mean(model.distances)))


@eqx.filter_jit
def transfer_curvature(model: Any) -> HologramCurvature:
    """Compute the curvature of a weak object: contrast transfer functions, pixels and blurs of every view."""
    shape, dtype = model.phase.shape, model.phase.dtype
    frequencies = [jnp.asarray(f, dtype) for f in (np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1]))]
    ratio = jnp.asarray(np.asarray(model.pixels) / model.pixel_size, dtype)
    sigma = ratio * model.blurs()  # [pixel of the object]
    rows, columns = (
        jnp.sinc(ratio[:, a, None] * f) * gaussian(f, sigma[:, a, None]) for a, f in enumerate(frequencies)
    )
    square = frequencies[0][:, None] ** 2 + frequencies[1] ** 2
    chi = (np.pi * model.wavelength / model.pixel_size**2) * jnp.mean(model.distances, 1)[:, None, None] * square
    # Counts of each view on one pixel of the object.
    counts = jnp.mean(jnp.asarray(model.flux, dtype), (1, 2)) / jnp.prod(ratio, 1)
    weights = counts[:, None, None] * (rows[:, :, None] * columns[:, None, :]) ** 2
    contrast = (2 * jnp.sin(chi), -2 * jnp.cos(chi))
    matrix = jnp.stack([jnp.stack([jnp.sum(weights * p * q, 0) for q in contrast]) for p in contrast])
    return HologramCurvature(matrix, jnp.mean(counts))


def hologram_details(
    model: Any, curvature: HologramCurvature, laws: Sequence[PowerLaw]
) -> Float[Array, "2 map y half"]:
    """Compute the variance of the maps' errors at the frequencies that pixels twice as large do not hold, zero at
    others: by photon noise, and by what the prior holds back.

    There every frequency is by itself, and nothing has to be drawn: with the curvature K of the data and P of the prior
    the covariances are `(K+P)^-1 K (K+P)^-1` and `(K+P)^-1 P (K+P)^-1`, of `rfft2(norm="ortho")`.
    """
    return _details(model, curvature, jnp.asarray(np.array(laws), model.phase.dtype))


@eqx.filter_jit
def _details(model: Any, curvature: HologramCurvature, laws: Float[Array, "map 2"]) -> Float[Array, "2 map y half"]:
    frequency = radial_frequency(model.phase.shape, xp=jnp)
    known = jnp.moveaxis(curvature.of_model(model, len(laws)), (0, 1), (-2, -1))
    prior = jnp.stack([1 / PowerLaw(*law)(frequency) for law in laws], -1)[..., None] * jnp.eye(len(laws))
    inverse = jnp.linalg.inv(known + prior)
    lost = [jnp.abs(f(n)) >= 0.25 for f, n in zip((jnp.fft.fftfreq, jnp.fft.rfftfreq), model.phase.shape, strict=True)]
    variance = lambda part: jnp.einsum("yxmn,yxnp,yxpm->myx", inverse, part, inverse, precision="highest")
    return jnp.where(lost[0][:, None] | lost[1], jnp.stack([variance(known), variance(prior)]), 0)


def measured_curvature(model: Any, seed: int = 0, where: Float[Any, "y x"] | None = None) -> HologramCurvature:
    """Measure the curvature where the object is, from four products with the Gauss-Newton matrix.

    **Arguments:** `where`: weights 0 ... 1 of the pixels, instead of those where the phase is not small.

    **Cost:** one linearisation of the model and four products, about six predictions and as many of their transposes.
    """
    noise = np.random.default_rng(seed).standard_normal((2, *model.phase.shape))
    cast = lambda a: jnp.asarray(a, model.phase.dtype)
    sums = _ring_products(model, cast(noise), _occupied(model) if where is None else cast(where))
    cross, power, count = (np.asarray(a, float) for a in sums)
    cross = (cross + cross.swapaxes(0, 1)).transpose(2, 0, 1) / 2 / np.maximum(power, 1e-30)[:, None, None]
    expected = transfer_curvature(model)
    seen = lambda k: count[k] >= 20 and np.linalg.eigvalsh(cross[k])[0] > 1e-4 * np.trace(cross[k])
    good = [k for k in range(_RINGS) if seen(k)]
    if len(good) < 4:
        return expected
    edges = _edges(model.phase.shape)
    place = np.log(np.sqrt(edges[1:] * edges[:-1])[good])
    diagonal = np.sqrt(np.stack([np.diagonal(cross[k]) for k in good]))
    correlation = np.array([cross[k][0, 1] for k in good]) / diagonal.prod(1)
    # As many knots for every object: one program.
    more = _RINGS - len(good)
    knots = np.concatenate([place, place[-1] + 1 + np.arange(more)])
    values = np.pad(np.stack([*np.log(diagonal).T, correlation]), ((0, 0), (0, more)), mode="edge")
    return expected._replace(matrix=_interpolated(model.phase, cast(knots), cast(values)))


def _edges(shape: Sequence[int]) -> np.ndarray:
    """Give the edges of the rings [cycles/pixel]; the zero frequency counts as the first."""
    return np.geomspace(0.999 / max(shape), 1.001 * np.sqrt(0.5), _RINGS + 1)


@eqx.filter_jit
def _occupied(model: Any) -> Float[Array, "y x"]:
    """Weigh the pixels where the phase is a fifth of its largest value or more as one."""
    size = jnp.abs(model.total_phase())
    return jnp.clip(size / jnp.maximum(0.2 * jnp.max(size), 1e-9), 0, 1)


@eqx.filter_jit
def _ring_products(model: Any, noise: Float[Array, "2 y x"], where: Float[Array, "y x"]) -> tuple[Array, Array, Array]:
    """Sum, on rings, the cross power `(2, 2, ring)` of random maps and their images, the maps' power and the number of
    frequencies."""
    shape, dtype = model.phase.shape, model.phase.dtype

    def rows(maps: Array) -> Array:
        free = {"delta_beta": jnp.full_like(model.delta_beta, jnp.inf), "thickness": None, "refraction": None}
        free |= {"phase": maps[0], "attenuation": maps[1]}
        return 2 * jnp.sqrt(jnp.maximum(model.replace(**free)(np.arange(len(model.pixels))), 1))

    maps = jnp.stack([model.total_phase(), model.absorption()])
    forward = jax.linearize(rows, maps)[1]
    transposed = jax.linear_transpose(forward, maps)
    frequency, edges = radial_frequency(shape, xp=jnp), _edges(shape)
    ring = jnp.log(frequency / edges[0]) * (_RINGS / np.log(edges[-1] / edges[0]))
    ring = jnp.clip(ring.astype(jnp.int32), 0, _RINGS - 1)
    on_rings = lambda values: jnp.zeros(_RINGS, dtype).at[ring].add(values)
    spectrum = lambda image: jnp.fft.rfft2(image, norm="ortho")

    def probed(item: Any) -> tuple[Array, Array]:
        waves, direction = jnp.fft.rfft2(item[0]), item[1]
        probe = jnp.fft.irfft2(waves / jnp.maximum(jnp.abs(waves), 1e-20) / frequency, s=shape) * where
        images, own = transposed(forward(direction[:, None, None] * probe))[0], spectrum(probe)
        cross = jnp.stack([on_rings(jnp.real(spectrum(image) * jnp.conj(own))) for image in images])
        return cross, on_rings(jnp.real(own * jnp.conj(own)))

    cross, power = jax.lax.map(probed, (jnp.repeat(noise, 2, 0), jnp.tile(jnp.eye(2, dtype=dtype), (2, 1))))
    cross = cross.reshape(2, 2, 2, _RINGS).sum(0)
    return cross, power[::2].sum(0), on_rings(jnp.ones_like(frequency))


@eqx.filter_jit
def _interpolated(image: Array, knots: Float[Array, " ring"], values: Float[Array, "3 ring"]) -> Array:
    """Interpolate the rings' matrices at every frequency: diagonal and correlation, on the logarithm."""
    frequency = radial_frequency(image.shape, xp=jnp)
    at = jnp.log(frequency)
    phase, other = (jnp.exp(jnp.interp(at, knots, row)) for row in values[:2])
    mixed = 0.98 * jnp.interp(at, knots, values[2]) * phase * other
    # Below the rings that hold enough frequencies the curvature of the phase goes on falling.
    fall = jnp.minimum(frequency / jnp.exp(knots[0]), 1)
    phase, mixed = phase * fall, mixed * fall
    return jnp.stack([jnp.stack([phase**2, mixed]), jnp.stack([mixed, other**2])])


# ------------------------------------------------------------------------------------------ coordinates
class HologramCoordinates(Coordinates):
    """Describe a holography model by white maps, and by changes of numbers of its geometry.

    **Fields** beside those of `Coordinates` (maps: phase [rad], or phase and attenuation): `inverse_powers` of the
    maps; `high_pass` and `edges` of the total variation (`diffrecon.priors.Variation`); `vacuum`: weights of squares
    `(map, y, x)` where nothing is; `penalties`: weights of values of the wrong sign; `None` without weight.
    """

    inverse_powers: Float[Array, "map y half"]
    high_pass: Float[Array, "y half"] | None
    edges: Float[Array, "y x"] | None
    vacuum: Float[Array, "map y x"] | None
    penalties: Float[Array, " map"] | None

    @classmethod
    def about(
        cls,
        model: Any,
        curvature: HologramCurvature,
        laws: Sequence[PowerLaw],
        *,
        raised: float = 0.0,
        negative: float = 0.25,
        variation: float = 0.0,
        vacuum: float = 0.0,
        one_sided: float = _ONE_SIDED,
        loose: float = 0.0,
        refine: Sequence[str] = (),
    ) -> "HologramCoordinates":
        """Make the coordinates about a model, with one power law for each map that is solved for (one or two).

        **Arguments:** `raised` is added to the curvature, in units of the flux: the lowest frequencies wait; weights
        of phases above vacuum (`negative`, units of the flux), of the total `variation` of the phase and of `vacuum`
        (units of photon noise; of the model as it is now); `one_sided`, weight of attenuation below that of the main
        material [flux]; below the frequency `loose` [cycles/pixel] the law of the phase, which higher ones have taught,
        is let grow by `1 + (loose / f)^2`; names of numbers of the geometry to `refine`, relative to
        the first frame where that says where the object is.
        """
        scales = {name: field_scales(model, name) for name in refine}
        scales |= {name: scale.at[0].set(0) for name, scale in scales.items() if name in _RELATIVE}
        strengths = jnp.asarray([raised, negative, variation, vacuum, one_sided, loose], model.phase.dtype)
        numbers = jnp.asarray(np.array(laws), model.phase.dtype)
        # Terms without weight are left out of a specimen without border; else one program serves all strengths.
        bounded = bool(negative or one_sided or vacuum)
        return _about(model, curvature, numbers, strengths, scales, (bounded, bounded or bool(variation)))

    def put(self, model: Any, maps: Float[Array, "map y x"]) -> Any:
        """Put the maps into their fields."""
        return model.replace(**dict(zip(_NAMES, maps, strict=False)))

    def prior(self) -> PyTree:
        """Compute, as residuals, powers of the maps, wrong signs, what is in the vacuum, variation of the phase."""
        maps = self.maps()
        twice = jnp.asarray(half_plane_weights(maps.shape[-1]), maps.dtype)
        # Not of the maps, which would be two transforms more.
        power = mixed(self.kernels, jnp.fft.rfft2(self.white, norm="ortho")) * jnp.sqrt(self.inverse_powers * twice)
        rows = {"real": jnp.real(power), "imaginary": jnp.imag(power)}
        if self.penalties is not None:
            rows["signs"] = jnp.sqrt(self.penalties)[:, None, None] * jnp.minimum(_signs(maps) * maps, 0)
        if self.vacuum is not None:
            rows["vacuum"] = jnp.sqrt(self.vacuum) * maps
        if self.edges is not None and self.high_pass is not None:
            rows["variation"] = jnp.sqrt(self.edges) * detail_gradient(maps[0], self.high_pass)
        return rows


def _signs(maps: Float[Array, "map y x"]) -> Float[Array, "map 1 1"]:
    """Say which sign maps of matter have: phase is negative, attenuation positive."""
    return jnp.asarray([-1.0, 1.0], maps.dtype)[: len(maps), None, None]


@eqx.filter_jit
def _about(
    model: Any, curvature: HologramCurvature, laws: Array, strengths: Array, scales: dict, terms: tuple[bool, bool]
) -> HologramCoordinates:
    (raised, negative, variation, vacuum, one_sided, loose), (bounded, varied) = strengths, terms
    maps = jnp.stack([getattr(model, name) for name in _NAMES[: len(laws)]])
    frequency, maximum = radial_frequency(maps.shape[1:], xp=jnp), first_maximum(model)
    inverse = jnp.stack([1 / PowerLaw(*law)(frequency) for law in laws])
    slow = 1 / (1 + (loose / frequency) ** 2)
    inverse = inverse.at[0].multiply(slow)
    known = curvature.of_maps(_mixing(model, len(maps)))
    own = jnp.stack([known[i, i] for i in range(len(maps))])
    extra = inverse + raised * curvature.flux
    kernels, back = whitening(known + jnp.eye(len(maps), dtype=maps.dtype)[..., None, None] * extra)
    edges = empty = penalties = None
    if varied:
        edges = Variation.about(model.total_phase(), PowerLaw(*laws[0]), own[0], maximum, variation)
        inverse = inverse.at[0].set(jnp.where(variation > 0, edges.inverse_power * slow, inverse[0]))
    if bounded:
        empty = jnp.stack([vacuum_weights(m, c, maximum, vacuum) for m, c in zip(maps, own, strict=True)])
        penalties = curvature.flux * jnp.stack([negative, one_sided])[: len(maps)]
    numbers = {name: jnp.zeros_like(scale) for name, scale in scales.items()}
    return HologramCoordinates(
        filtered(maps, back), kernels, numbers, scales, model, inverse, edges and edges.high_pass,
        edges and edges.edges, empty, penalties,
    )  # fmt: skip


def hologram_residual(coordinates: Coordinates, batch: Batch) -> Float[Array, "view y x"]:
    """Compute the residuals of the counts, of variance one for photon noise (Anscombe 1948)."""
    return losses.anscombe_residual(coordinates.solution()(batch.views), batch.counts, batch.mask)


def attenuation_of_details(
    coordinates: HologramCoordinates, data: Mapping[str, Any], details: Float[Array, "y x"], steps: int = 10
) -> tuple[Float[Array, ""], HologramCoordinates]:
    """Estimate how much `details` of the phase attenuate beyond the model, as beta / delta, from all counts together.

    One detail of a stain attenuates too little to stand out of photon noise, and a prior takes it for nothing. All of
    them turn the fringes by one angle, `atan(beta / delta)`, that of every frequency; a false bowl of the phase, a
    lens, turns them nearly alike. So maps and numbers are solved for beside this one number (a Gauss-Newton step).

    **Arguments:** `details` of the phase [rad] (high-passed: what is slow attenuates as the counts say); `steps` of
    conjugate gradients.

    **Returns:** the number, and the coordinates with maps and numbers moved along. **Cost:** `steps + 4` products.
    """
    batch = Batch(np.arange(len(coordinates.model.pixels)), dict(data))
    return _attenuation_of_details(coordinates, batch, details, jnp.asarray(steps))


@eqx.filter_jit
def _attenuation_of_details(
    coordinates: HologramCoordinates, batch: Batch, details: Array, steps: Array
) -> tuple[Array, HologramCoordinates]:
    fields = lambda c: (c.white, c.numbers)
    model, free, zero = coordinates.solution(), fields(coordinates), jnp.zeros((), details.dtype)

    def rows(free: Any) -> PyTree:
        moved = eqx.tree_at(fields, coordinates, free)
        return hologram_residual(moved, batch), moved.prior()

    def absorbed(slope: Array) -> Array:
        counts = model.replace(attenuation=model.attenuation - slope * details)(batch.views)
        return losses.anscombe_residual(counts, batch.counts, batch.mask)

    value, push = jax.linearize(rows, free)
    pull = jax.linear_transpose(push, free)
    along = jax.jvp(absorbed, (zero,), (zero + 1,))[1], jax.tree.map(jnp.zeros_like, value[1])
    follows = conjugate_gradients(lambda x: pull(push(x))[0], pull(along)[0], steps=steps, tolerance=1e-5)[0]
    own = jax.tree.map(jnp.subtract, along, push(follows))  # what maps and numbers cannot do as well
    slope = -inner(value, own) / jnp.maximum(inner(along, own), 1e-30)
    moved = jax.tree.map(lambda x, change: x - slope * change, free, follows)
    return slope, eqx.tree_at(fields, coordinates, moved)


def fit_holograms(
    start: HologramCoordinates,
    data: Mapping[str, Any],
    *,
    steps: int = 4,
    cg_steps: int = 20,
    marginal: bool = False,
    function: Callable[[Any, Batch], Any] | None = None,
    seed: int = 0,
    console: Console | None = None,
    label: str = "holography: step",
) -> Solution:
    """Fit a holography model to counts by Gauss-Newton steps in white coordinates.

    **Arguments:** `data`: `counts` `(view, y, x)` and `mask`; `steps` of Levenberg-Marquardt with `cg_steps` conjugate
    gradients, which need few as all curvatures are one; `marginal`: numbers of the geometry by marginal likelihood
    (blurs, which the most probable object would explain away, see `MarginalResidual`); `function`: a cost of one's own
    `(model, batch) -> mean over the counts`, then by four times as many steps of L-BFGS.

    **Returns:** the `Solution`, whose value is the model.

    **Cost:** a step is `cg_steps + 3` products, each of two FFTs of the grid and two matrix products a view.
    """
    options: dict[str, Any] = {"unknowns": ("white", "numbers") if start.numbers else ("white",)}
    options |= {"console": console, "label": label}
    if function is not None:
        rule = optax.lbfgs(memory_size=8, linesearch=optax.scale_by_zoom_linesearch(8))
        solution = minimise(_WithPrior(function), start, data, rule, steps=4 * steps, chunk=4, **options)
    else:
        rows, views = hologram_residual, len(start.model.pixels)
        if marginal:
            error = posterior_error(rows, start, data, seed)
            rows, data = MarginalResidual(rows), {**data, "spread": jnp.broadcast_to(error, (views, *error.shape))}
        solution = levenberg_marquardt(
            rows, start, data, prior=HologramCoordinates.prior, steps=steps, cg_steps=cg_steps, damping=0.03,
            tolerance=2e-5, block_size=views, probes=0, **options,
        )  # fmt: skip
    return dataclasses.replace(solution, value=_solved(solution.value))


@eqx.filter_jit
def _solved(coordinates: Coordinates) -> Any:
    return coordinates.solution()


class _WithPrior(eqx.Module):
    """A user's cost of the data with the prior: a mean over the counts, as amplitudes would give it."""

    function: Callable[[Any, Batch], Any] = eqx.field(static=True)

    def __call__(self, coordinates: HologramCoordinates, batch: Batch) -> Float[Array, ""]:
        prior = sum(jnp.sum(rows**2) for rows in jax.tree.leaves(coordinates.prior()))
        return self.function(coordinates.solution(), batch) + 0.5 * prior / batch.counts.size


@eqx.filter_jit
def field_scales(model: Any, name: str) -> Float[Array, "..."]:
    """Compute the units in which a field of numbers a view has curvature one: one over the norm of `2 sqrt(counts)`
    differentiated by each number, views apart."""
    value = jnp.asarray(getattr(model, name))
    views = np.arange(len(model.pixels))
    rows = lambda v: 2 * jnp.sqrt(jnp.maximum(model.replace(**{name: v})(views), 1))
    inverse = lambda norms: 1 / jnp.maximum(norms, 1e-12)
    push = jax.linearize(rows, value)[1]
    if value.ndim == 0:
        return inverse(jnp.linalg.norm(push(jnp.ones_like(value))))
    size = int(np.prod(value.shape[1:]))
    units = jnp.eye(size, dtype=value.dtype).reshape(size, *value.shape[1:])
    norms = jax.lax.map(lambda unit: jnp.sqrt(jnp.sum(push(jnp.broadcast_to(unit, value.shape)) ** 2, (1, 2))), units)
    return inverse(norms.T.reshape(value.shape))
