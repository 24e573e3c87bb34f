"""Holography in coordinates in which every frequency has curvature about one, with what is known beforehand.

The object is one map or two: the phase of the main material, and attenuation that it does not explain. Frequency by
frequency the maps are multiplied by the inverse Cholesky factor of the curvature
of cost and prior. That curvature is the contrast transfer functions' where the object is weak; a strong object bends
the lowest frequencies of phase much more than they say (its details move), so that there it is measured: the
Gauss-Newton matrix is applied to random maps, and its mean taken on rings of frequency.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._model import Batch
from ..models import Holography
from ..priors import PowerLaw, detail_gradient, half_plane_weights, radial_frequency
from ..solvers import ctf_response

__all__ = [
    "Curvature",
    "Maps",
    "Variation",
    "Whitened",
    "column_norms",
    "first_maximum",
    "measured_curvature",
    "prior_rows",
    "residual",
    "vacuum_weights",
]

_RINGS = 24
ONE_SIDED = 10.0  # weight of attenuation below that of the main material, in units of the flux


class Maps(eqx.Module):
    """Which maps the object is made of: `phase = sum_m a_m x_m`, `B = sum_m b_m x_m`.

    `names` are fields of the model: the phase, or phase and attenuation; `signs`: +1 where a map cannot be negative, -1
    where it cannot be positive.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    a: tuple[float, ...] = eqx.field(static=True)
    b: tuple[float, ...] = eqx.field(static=True)
    signs: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, model: Holography, attenuation: bool) -> "Maps":
        """One map where there is one material and nothing else."""
        one = cls(("phase",), (1.0,), (-1 / float(model.delta_beta),), (-1,))
        if not attenuation:
            return one
        return cls(("phase", "attenuation"), (1.0, 0.0), (one.b[0], 1.0), (-1, 1))

    def read(self, model: Holography) -> Float[Array, "map y x"]:
        """The maps of a model [rad, or 1 for attenuation]."""
        return jnp.stack([getattr(model, name) for name in self.names])

    def put(self, model: Holography, maps: Float[Array, "map y x"]) -> Holography:
        """The model with these maps."""
        return model.replace(**dict(zip(self.names, maps, strict=True)))


# ------------------------------------------------------------------------------------------ curvature
class Curvature(eqx.Module):
    """Curvature of the sum of squares in (phase, B), `(y, x//2 + 1, 2, 2)`, for `rfft2(norm="ortho")`."""

    matrix: np.ndarray
    flux: float

    @classmethod
    def of_transfer(cls, model: Holography) -> "Curvature":
        """By the contrast transfer functions, pixels and blurs: of a weak object."""
        shape = (model.phase.shape[0], model.phase.shape[1])
        pixels = np.asarray(model.pixels)
        numbers = [model.pixel_size**2 / (model.wavelength * float(d)) for d in np.asarray(model.distances).mean(1)]
        sine, cosine = ctf_response(shape, numbers)
        fy, fx = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
        ratio = pixels / model.pixel_size
        sigma = ratio * model.blurs()  # [pixel of the object]
        seen = [
            np.sinc(ratio[:, a, None] * f) * np.exp(-2 * (np.pi * sigma[:, a, None] * f) ** 2)
            for a, f in enumerate((fy, fx))
        ]
        box = seen[0][:, :, None] * seen[1][:, None, :]
        flux = np.asarray(model.flux, float).mean((1, 2))
        # Counts of each view on one pixel of the object.
        weights = (flux / ratio.prod(1))[:, None, None] * box**2
        pair = (sine, -cosine)
        matrix = np.stack([np.stack([(weights * p * q).sum(0) for q in pair], -1) for p in pair], -2)
        return cls(matrix, float((flux / ratio.prod(1)).mean()))

    def of_maps(self, maps: Maps) -> np.ndarray:
        """`(y, x//2 + 1, map, map)`."""
        mix = np.stack([np.asarray(maps.a), np.asarray(maps.b)])
        return np.einsum("pm,yxpq,qn->yxmn", mix, self.matrix, mix)


@eqx.filter_jit
def _gauss_newton_product(model: Holography, direction: Float[Array, "2 y x"]) -> Float[Array, "2 y x"]:
    """J'J of `2 sqrt(counts)` in phase and B."""
    rows = lambda maps: 2 * jnp.sqrt(
        jnp.maximum(
            model.replace(
                phase=maps[0],
                attenuation=maps[1],
                delta_beta=jnp.full_like(model.delta_beta, jnp.inf),
                thickness=None,
                refraction=None,
            )(np.arange(len(model.pixels))),
            1,
        )
    )
    maps = jnp.stack([model.total_phase(), model.absorption()])
    forward = jax.linearize(rows, maps)[1]
    return jax.linear_transpose(forward, maps)(forward(direction))[0]


def measured_curvature(model: Holography, seed: int = 0) -> Curvature:
    """Curvature where the object is, from four products with the Gauss-Newton matrix."""
    shape = model.phase.shape
    size = np.abs(np.asarray(model.total_phase(), float))
    where = np.clip(size / max(0.2 * size.max(), 1e-9), 0, 1)
    frequency = radial_frequency(shape)
    edges = np.geomspace(frequency.min() * 0.999, frequency.max() * 1.001, _RINGS + 1)
    ring = (np.digitize(frequency, edges) - 1).ravel()
    mean = lambda values: np.bincount(ring, values.ravel(), _RINGS)
    random, found, power = np.random.default_rng(seed), np.zeros((_RINGS, 2, 2)), np.zeros(_RINGS)
    for _ in range(2):
        noise = np.fft.rfft2(random.standard_normal(shape))
        probe = np.fft.irfft2(noise / np.abs(noise) / frequency, s=shape) * where
        spectrum = np.fft.rfft2(probe, norm="ortho")
        power += mean(np.abs(spectrum) ** 2)
        for i in range(2):
            direction = np.zeros((2, *shape), np.float32)
            direction[i] = probe
            images = np.asarray(_gauss_newton_product(model, jnp.asarray(direction)))
            for j in range(2):
                found[:, i, j] += mean((np.fft.rfft2(images[j], norm="ortho") * spectrum.conj()).real)
    found = (found + found.swapaxes(1, 2)) / 2 / np.maximum(power, 1e-30)[:, None, None]
    return _smoothed(found, np.bincount(ring, minlength=_RINGS), edges, frequency, Curvature.of_transfer(model))


def _smoothed(found, count, edges, frequency, expected: Curvature) -> Curvature:
    """The rings' matrices at every frequency: diagonal and correlation interpolated on the logarithm."""
    good = [k for k in range(_RINGS) if count[k] >= 20 and np.linalg.eigvalsh(found[k])[0] > 1e-4 * np.trace(found[k])]
    if len(good) < 4:
        return expected
    place, at = np.log(np.sqrt(edges[1:] * edges[:-1])[good]), np.log(frequency)
    diagonal = np.sqrt(np.stack([np.diagonal(found[k]) for k in good]))
    correlation = np.array([found[k][0, 1] for k in good]) / diagonal.prod(1)
    phase, other = (np.exp(np.interp(at, place, np.log(diagonal[:, i]))) for i in (0, 1))
    mixed = 0.98 * np.interp(at, place, correlation) * phase * other
    # Below the rings that hold enough frequencies the curvature of the phase goes on falling.
    fall = np.minimum(frequency / np.exp(place[0]), 1)
    phase, mixed = phase * fall, mixed * fall
    return Curvature(np.stack([np.stack([phase**2, mixed], -1), np.stack([mixed, other**2], -1)], -2), expected.flux)


def first_maximum(model: Holography) -> float:
    """Frequency [cycles/pixel] at which phase contrast has its first maximum, `sqrt(F/2)`, at the mean distance."""
    distance = float(np.mean(np.asarray(model.distances)))
    return float(np.sqrt(model.pixel_size**2 / (model.wavelength * distance) / 2))


# ------------------------------------------------------------------------------------------ coordinates
class Whitened(eqx.Module):
    """The model in white coordinates; what the prior needs goes along.

    **Fields:** `white` `(map, y, x)`; `geometry`: changes of numbers of the geometry, by name, in units of `scales`,
    whose zeros hold a number fixed; `kernels` `(map, map, y, x//2 + 1)`; `inverse_powers` of the maps; `high_pass` of
    the total variation, `(y, x//2 + 1)`, and its lagged `edges` weights `(y, x)`; `vacuum` weights of squares `(map, y,
    x)` where there is nothing.
    """

    white: Float[Array, "map y x"]
    geometry: dict[str, Array]
    scales: dict[str, Array]
    kernels: Float[Array, "map map y half"]
    inverse_powers: Float[Array, "map y half"]
    high_pass: Float[Array, "y half"]
    edges: Float[Array, "y x"]
    vacuum: Float[Array, "map y x"]
    penalties: Float[Array, " map"]
    maps: Maps
    model: Holography

    @classmethod
    def of(
        cls,
        model: Holography,
        maps: Maps,
        priors: Sequence[PowerLaw],
        curvature: Curvature,
        *,
        raised: float,
        negative: float,
        variation: "Variation | None" = None,
        vacuum: np.ndarray | None = None,
        scales: dict[str, Array] | None = None,
    ) -> "Whitened":
        """Coordinates about a model; `raised` is added to the curvature, in units of the flux."""
        cast = lambda a: jnp.asarray(a, model.phase.dtype)
        inverse = np.stack([1 / p(radial_frequency(model.phase.shape)) for p in priors])
        matrix = curvature.of_maps(maps)
        count = range(len(priors))
        matrix[..., count, count] += np.moveaxis(inverse, 0, -1) + raised * curvature.flux
        factor = np.linalg.cholesky(matrix)
        to_front = lambda a: cast(np.moveaxis(a, (2, 3), (0, 1)))
        white = _filtered(maps.read(model), to_front(factor.swapaxes(-1, -2)))
        high_pass, edges = np.zeros(inverse.shape[1:]), np.zeros(model.phase.shape)
        if variation is not None:
            high_pass, edges = variation.high_pass, variation.edges
            inverse[0] = variation.spared(priors[0], first_maximum(model))
        weights = curvature.flux * np.where(np.asarray(maps.signs) < 0, negative, ONE_SIDED)
        scales = scales or {}
        return cls(
            white,
            {name: jnp.zeros_like(s) for name, s in scales.items()},
            scales,
            to_front(np.linalg.inv(factor).swapaxes(-1, -2)),
            cast(inverse),
            cast(high_pass),
            cast(edges),
            cast(np.zeros(white.shape) if vacuum is None else vacuum),
            cast(weights),
            maps,
            model,
        )

    def object_maps(self) -> Float[Array, "map y x"]:
        """The maps [rad, or 1 for attenuation]."""
        return _filtered(self.white, self.kernels)

    def spread(self, error: Float[Array, "map y x"]) -> Float[Array, "map y x"]:
        """An error of the white coordinates as one of the maps."""
        return _filtered(error, self.kernels)

    def found(self) -> Holography:
        """The model with these unknowns."""
        moved = {name: getattr(self.model, name) + self.scales[name] * change for name, change in self.geometry.items()}
        return self.maps.put(self.model.replace(**moved), self.object_maps())


def _filtered(maps: Float[Array, "map y x"], kernels: Float[Array, "map map y half"]) -> Float[Array, "map y x"]:
    return jnp.fft.irfft2(jnp.einsum("mnyx,nyx->myx", kernels, jnp.fft.rfft2(maps)), s=maps.shape[-2:])


# ------------------------------------------------------------------------------------------ cost as squares
def residual(unknowns: Whitened, batch: Batch) -> Float[Array, "view y x"]:
    """`2 (sqrt(prediction) - sqrt(counts))`, about one for photon noise (Anscombe 1948)."""
    root = lambda counts: jnp.sqrt(jnp.maximum(counts, 0) + 0.375)
    rows = 2 * (root(unknowns.found()(batch.views)) - root(batch.counts.astype(unknowns.white.dtype)))
    return rows if batch.mask is None else jnp.where(batch.mask, rows, 0)


def prior_rows(unknowns: Whitened) -> dict[str, Array]:
    """What is known beforehand, as residuals: power of the maps, signs, vacuum, variation of the phase."""
    maps, columns = unknowns.object_maps(), unknowns.white.shape[-1]
    twice = half_plane_weights(columns)
    power = jnp.fft.rfft2(maps, norm="ortho") * jnp.sqrt(unknowns.inverse_powers * jnp.asarray(twice, maps.dtype))
    signs = jnp.asarray(unknowns.maps.signs, maps.dtype)[:, None, None]
    phase = jnp.tensordot(jnp.asarray(unknowns.maps.a, maps.dtype), maps, 1)
    return {
        "real": jnp.real(power),
        "imaginary": jnp.imag(power),
        "signs": jnp.sqrt(unknowns.penalties)[:, None, None] * jnp.minimum(signs * maps, 0),
        "vacuum": jnp.sqrt(unknowns.vacuum) * maps,
        "variation": jnp.sqrt(unknowns.edges) * detail_gradient(phase, unknowns.high_pass),
    }


class Variation(eqx.Module):
    """Total variation of the details of the phase, as squares with lagged weights.

    **Fields:** `high_pass` `(y, x//2 + 1)`, `edges` = weights `(y, x)` of squared differences.
    """

    high_pass: np.ndarray
    edges: np.ndarray

    @classmethod
    def of(
        cls, phase: Float[Array, "y x"], prior: PowerLaw, curvature: np.ndarray, lowest: float, strength: float
    ) -> "Variation":
        """Weights for a phase that was found.

        The weight is `strength / sigma`, sigma the photon noise of a pixel: differences of `strength sigma` are
        noise, whatever the object is. Frequencies below `lowest`, the first maximum of phase contrast, and those that
        the data know a hundred times better than the prior are left out: a variation would shrink them.
        """
        f = radial_frequency(phase.shape)
        high_pass = 1 / (1 + 1e-2 * prior(f) * curvature) / (1 + (lowest / f) ** 4)
        steps = np.asarray(detail_gradient(jnp.asarray(phase), jnp.asarray(high_pass, phase.dtype)), float)
        sigma = 1 / np.sqrt(np.mean(curvature))
        return cls(high_pass, strength / sigma / np.sqrt((steps**2).sum(0) + (0.1 * sigma) ** 2))

    def spared(self, prior: PowerLaw, first_maximum: float) -> np.ndarray:
        """One over the power of the phase where the variation is to take its place: below the first maximum of phase
        contrast the power law stays."""
        f = radial_frequency(self.edges.shape)
        return 1 / prior(f) / (1 + (f / first_maximum) ** 4)


_BORDER = 0.06  # of the window, where an isolated object is not
_FAINT = 0.03  # of the largest values: what is fainter may be vacuum


def vacuum_weights(
    values: Float[Array, "y x"], curvature: np.ndarray, lowest: float, strength: float
) -> Float[np.ndarray, "y x"]:
    """Weights of squares that hold a map at zero where nothing was found: what an isolated object's surroundings are.

    Vacuum is where the neighbourhood, an eighth of the period `1 / lowest` of best phase contrast, stays below three
    times what is seen along the border of the window, and below 3 % of the object. There a value weighs `strength`
    over the variance of a pixel's photon noise. It settles the lowest frequencies, which holograms hardly show: those
    that would spill over the object's edge.
    """
    shape = values.shape
    fy, fx = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    width = max(1 / (8 * lowest), 1.0)
    smooth = np.exp(-2 * (np.pi * width) ** 2 * (fy[:, None] ** 2 + fx[None] ** 2))
    mean = np.fft.irfft2(np.fft.rfft2(np.asarray(values, float)) * smooth, s=shape)
    power = np.maximum(np.fft.irfft2(np.fft.rfft2(mean**2) * smooth, s=shape), mean**2)
    inner = tuple(slice(round(_BORDER * n), n - round(_BORDER * n)) for n in shape)
    border = np.ones(shape, bool)
    border[inner] = False
    limit = min(3 * np.sqrt(np.median(power[border])), _FAINT * np.sqrt(np.percentile(power, 99)))
    if not limit > 0:
        return np.zeros(shape)
    return strength * np.mean(curvature) / (1 + (power / limit**2) ** 4)


@eqx.filter_jit
def column_norms(model: Holography, name: str) -> Float[Array, "..."]:
    """One over the norm of `2 sqrt(counts)` differentiated by each number of a field, in which its views do not mix."""
    value = jnp.asarray(getattr(model, name))
    views = np.arange(len(model.pixels))
    rows = lambda v: 2 * jnp.sqrt(jnp.maximum(model.replace(**{name: v})(views), 1))
    if value.ndim == 0:
        return 1 / jnp.maximum(jnp.linalg.norm(jax.jvp(rows, (value,), (jnp.ones_like(value),))[1]), 1e-12)
    parts = []
    for part in np.ndindex(value.shape[1:]):
        push = jax.jvp(rows, (value,), (jnp.zeros_like(value).at[(slice(None), *part)].set(1.0),))[1]
        parts.append(jnp.sqrt(jnp.sum(push**2, (1, 2))))
    return 1 / jnp.maximum(jnp.stack(parts, -1).reshape(value.shape), 1e-12)
