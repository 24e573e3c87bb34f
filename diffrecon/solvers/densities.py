"""Densities of several materials from counts at many angles and energies at once, with sparse edges.

A model has `density`, `drift`, `gain`, `moves`, `thickness(density, views)`, `attenuated(thickness, views)`,
`light(depth, views)`, as `diffrecon.models.KEdgeTomography` has. Every round is one step of Gauss-Newton on the
likelihood, solved by conjugate gradients in coordinates in which materials and frequencies do not fight; brightness of
views and pixels and the place of every energy are unknowns of the same step.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .conjugate_gradients import conjugate_gradients

__all__ = ["DensityPrior", "DensitySetup", "density_round", "density_samples"]

_OUTLIER = 4.0  # standard deviations from which on a count pulls no stronger
_STUCK = 3.0  # of the flats' noise, from which on a pixel is taken to have another gain


class DensityPrior(eqx.Module):
    """What is known beforehand.

    **Fields:** `edges`: weight of total variation; `unit` `(material,)` [g/cm^3], of which it counts steps: the noise
    of a step were all other materials known; `rounding`: steps below count as flat; `turning`: steps from which on a
    step costs hardly more (0: total variation itself); `inside` `(z, y, x)`: 1 where matter may be; `below`: curvature
    of densities below zero; `brightness`: what the air beside the sample says of every view, with `steady`, inverse
    variance of the brightness about it; `flats`
    `(energy, z, u)`, relative variance of the flats; `free` `(energy, 4)`: 1 where a move is unknown.
    """

    edges: Float[Array, ""]
    unit: Float[Array, " material"]
    rounding: Float[Array, ""]
    turning: Float[Array, ""]
    inside: Float[Array, "z y x"]
    below: Float[Array, ""]
    brightness: Float[Array, " view"]
    steady: Float[Array, ""]
    flats: Float[Array, "energy z u"]
    free: Float[Array, "energy 4"]
    nuisance: Float[Array, ""]


class DensitySetup(NamedTuple):
    """What conjugate gradients need of a projector: curvature of a voxel at every frequency, and of its differences."""

    rays: Float[Array, "z y half"]
    steps: Float[Array, "z y half"]

    @classmethod
    def of(cls, model: Any) -> "DensitySetup":
        """Look at the answer of all views to one voxel [cm^2]."""
        rows, height, width = model.density.shape[1:]
        point = jnp.zeros((height, width)).at[height // 2, width // 2].set(1.0)
        answer = model.pixel**2 * model.projector.adjoint(model.projector(point))
        curvature = jnp.abs(jnp.fft.rfft2(jnp.fft.ifftshift(answer)))
        curvature = jnp.maximum(curvature, 1e-3 * curvature.max())
        sines = [
            4 * np.sin(np.pi * f) ** 2 for f in (np.fft.fftfreq(rows), np.fft.fftfreq(height), np.fft.rfftfreq(width))
        ]
        steps = sines[0][:, None, None] + sines[1][:, None] + sines[2]
        return cls(jnp.broadcast_to(curvature, (rows, *curvature.shape)), jnp.asarray(steps, curvature.dtype))

    def step_noise(self) -> float:
        """Give the size of what noise of variance one a ray adds to the steps of a volume [1/cm]: with a weight of
        about this on its total variation noise alone would leave it flat."""
        rays, steps = np.asarray(self.rays, float), np.asarray(self.steps, float)
        return float(np.sqrt(np.mean(np.where(steps > 0, rays / np.where(steps > 0, steps, 1), 0))))

    def voxel_noise(self) -> float:
        """Give the noise of a voxel of the unregularised volume [1/cm] for noise of variance one a ray."""
        return float(np.sqrt(np.mean(1 / np.asarray(self.rays, float))))


class _System(NamedTuple):
    product: Any
    right: PyTree
    precondition: Any
    back: Any
    weight: Array
    residual: Array


@eqx.filter_jit
def density_round(
    model: Any, counts: Float[Array, "view z u"], mask: Float[Array, "z u"], setup: DensitySetup, prior: DensityPrior,
    steps: Any = 12, outlier: Any = _OUTLIER,
) -> tuple[Any, Float[Array, ""]]:  # fmt: skip
    """Take one step of Gauss-Newton in densities, brightness and moves.

    **Returns:** the model, and the mean square of the residuals before, in standard deviations.
    """
    system = _system(model, counts, mask, setup, prior, outlier)
    moved, _ = conjugate_gradients(system.product, system.right, precondition=system.precondition, steps=steps)
    density, drift, gain, moves = moved
    limited = jnp.clip(moves, -0.5, 0.5)
    new = model.replace(
        density=model.density + density, drift=model.drift + drift, gain=model.gain + gain, moves=model.moves + limited
    )
    return new, jnp.sum(system.weight * system.residual**2) / jnp.maximum(jnp.sum(system.weight > 0), 1)


@eqx.filter_jit
def density_samples(
    model: Any, counts: Float[Array, "view z u"], mask: Float[Array, "z u"], setup: DensitySetup, prior: DensityPrior,
    key: Array, samples: int = 6, steps: Any = 40,
) -> Float[Array, "sample material z y x"]:  # fmt: skip
    """Draw what noise of counts and flats moves the densities by: solutions for noise alone, with the prior's
    curvature."""
    system = _system(model, counts, mask, setup, prior, _OUTLIER)

    def one(key: Array) -> Array:
        first, second = jax.random.split(key)
        noise = jax.random.normal(first, system.weight.shape) * jnp.sqrt(system.weight)
        flats = jax.random.normal(second, model.gain.shape) * prior.nuisance / jnp.sqrt(prior.flats)
        density, drift, gain, moves = system.back(noise)
        right = (density, drift, gain + flats, moves)
        return conjugate_gradients(system.product, right, precondition=system.precondition, steps=steps)[0][0]

    return jax.lax.map(one, jax.random.split(key, samples))


def _system(model: Any, counts: Array, mask: Array, setup: DensitySetup, prior: DensityPrior, outlier: Any) -> _System:
    """Make the quadratic that meets likelihood and prior at a model."""
    views = jnp.arange(counts.shape[0])
    depth, slope = model.attenuated(model.thickness(model.density, views), views)
    signal = model.light(depth, views)
    weight = mask * signal**2 / jnp.maximum(model.noise[0] * signal + model.noise[1], 1e-3)
    residual = 1 - (counts - model.darks) / jnp.maximum(signal, 1e-3)  # of the depth: positive where more is needed
    weight = jnp.minimum(weight, 1.0 / 1e-8)
    far = jnp.abs(residual) * jnp.sqrt(weight)
    weight = weight * jnp.where(far > outlier, outlier / jnp.maximum(far, 1e-6), 1.0)

    lines = lambda density: model.thickness(density, views)
    transposed = jax.linear_transpose(lines, model.density)
    energies = jax.nn.one_hot(model.energy_of, model.gain.shape[0], dtype=weight.dtype)
    moving = _moving(model, depth) * prior.nuisance

    def forward(t: PyTree) -> Array:
        density, drift, gain, moves = t
        rays = jnp.sum(slope * lines(density), 1)
        light = drift[:, None, None] + jnp.einsum("ve,ezu->vzu", energies, gain)
        return rays - prior.nuisance * light + jnp.einsum("vp,pvzu->vzu", (prior.free * moves)[model.energy_of], moving)

    def back(rays: Array) -> PyTree:
        density = prior.inside * transposed(slope * rays[:, None])[0]
        gain = jnp.einsum("ve,vzu->ezu", energies, rays)
        moves = energies.T @ jnp.einsum("pvzu,vzu->vp", moving, rays)
        return density, -prior.nuisance * rays.sum((1, 2)), -prior.nuisance * gain, prior.free * moves

    bend = _prior_curvature(model, prior)
    at = (model.density, model.drift - prior.brightness, model.gain, jnp.zeros_like(model.moves))
    right = jax.tree.map(jnp.subtract, back(weight * residual), bend(at))

    def product(t: PyTree) -> PyTree:
        return jax.tree.map(jnp.add, back(weight * forward(t)), bend(t))

    precondition = _preconditioner(model, setup, prior, weight, slope, energies, moving)
    return _System(product, right, precondition, back, weight, residual)


def _moving(model: Any, depth: Float[Array, "view z u"]) -> Float[Array, "4 view z u"]:
    """Give the change of the depth for a move of one pixel: picture along u, sample along x and y, picture along z."""
    slope = lambda axis: jnp.asarray(jnp.gradient(depth, axis=axis))
    along = -slope(2)
    down = -slope(1) if depth.shape[1] > 1 else jnp.zeros_like(depth)
    cosine, sine = (model.turn[:, i, None, None] for i in (0, 1))
    return jnp.stack([along, cosine * along, sine * along, down])


def _steps(volume: Float[Array, "material z y x"]) -> Float[Array, "3 material z y x"]:
    """Differences to the next voxel along z, y and x, zero at the end."""
    step = lambda axis: jnp.diff(volume, axis=axis, append=jax.lax.slice_in_dim(volume, -1, None, axis=axis))
    return jnp.stack([step(1), step(2), step(3)])


def _prior_curvature(model: Any, prior: DensityPrior) -> Any:
    """Give the product with the curvature of the prior about a model; of it at the model it is the gradient."""
    unit = prior.unit[:, None, None, None]
    edge, below = _edge_weights(model, prior), prior.below * (model.density < 0)
    transposed = jax.linear_transpose(_steps, model.density)
    pixels = _pixel_precision(model, prior)

    def product(t: PyTree) -> PyTree:
        density, drift, gain, moves = t
        smooth = transposed(edge * _steps(density / unit))[0] / unit
        return prior.inside * (smooth + below * density / unit**2), prior.steady * drift, pixels * gain, moves

    return product


def _edge_weights(model: Any, prior: DensityPrior) -> Array:
    size = jnp.sqrt(jnp.sum(_steps(model.density / prior.unit[:, None, None, None]) ** 2, 0) + prior.rounding**2)
    turning = jnp.where(prior.turning > 0, prior.turning, jnp.inf)
    return prior.edges / (size * (1 + size / turning))


def _pixel_precision(model: Any, prior: DensityPrior) -> Array:
    """Inverse variance of the gain of a pixel: noise of the flats, or, far beyond it, a pixel that has changed
    (Cauchy's law)."""
    return 1 / prior.flats / (1 + model.gain**2 / (_STUCK**2 * prior.flats))


def _preconditioner(
    model: Any, setup: DensitySetup, prior: DensityPrior, weight: Array, slope: Array, energies: Array, moving: Array
) -> Any:
    """Invert mean information of the materials frequency by frequency, and everything else number by number."""
    information = jnp.einsum("vmzu,vzu,vnzu->mn", slope, weight, slope, precision="highest") / weight.size
    edges = jnp.mean(_edge_weights(model, prior), (1, 2, 3)) / prior.unit**2
    size = 1 / prior.unit  # units in which the matrix has entries of about one
    matrix = information / (size[:, None] * size) * setup.rays[..., None, None]
    matrix = matrix + jnp.diag(edges / size**2) * setup.steps[..., None, None]
    matrix = matrix + 1e-6 * jnp.eye(len(size)) * jnp.trace(matrix, axis1=-2, axis2=-1)[..., None, None]
    inverse = jnp.linalg.inv(matrix) / (size[:, None] * size)
    of_drift = 1 / (weight.sum((1, 2)) + prior.steady)
    of_gain = 1 / (jnp.einsum("ve,vzu->ezu", energies, weight) + _pixel_precision(model, prior))
    of_moves = 1 / (energies.T @ jnp.einsum("pvzu,vzu->vp", moving**2, weight) + 1)

    def apply(t: PyTree) -> PyTree:
        density, drift, gain, moves = t
        spectrum = jnp.fft.rfftn(prior.inside * density, axes=(1, 2, 3))
        solved = jnp.einsum("zyxmn,nzyx->mzyx", inverse, spectrum, precision="highest")
        solved = jnp.fft.irfftn(solved, s=density.shape[1:], axes=(1, 2, 3))
        return prior.inside * solved, of_drift * drift, of_gain * gain, of_moves * moves

    return apply
