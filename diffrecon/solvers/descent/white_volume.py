"""The volume behind holograms at many angles in white coordinates, and the cost that goes with them.

Contrast transfer functions, the density of angles in Fourier space and the prior give every frequency a curvature;
divided by its root the descent needs some ten steps of L-BFGS.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ... import losses, sharding
from ..._model import Batch
from ...operators.fourier import half_plane_weights, radial_frequency
from ...priors import Coordinates, PowerLaw, filtered
from ..direct.two_step import frame_information, transfer
from .minimise import Solution, minimise

__all__ = ["WhiteVolume", "fit_volume", "hologram_cost", "hologram_curvature", "soft_cylinder"]


def hologram_cost(model: Any, batch: Batch) -> Float[Array, ""]:
    """Compute the data term of a `HoloTomography`: `2 (sqrt n - sqrt p)^2`, half a squared standard deviation of
    Poisson noise.

    Angle after angle, each propagated anew for the gradient: memory holds the projections and a few angles' frames.
    """
    views = jnp.asarray(batch.views)

    @jax.checkpoint
    def of_angle(item: Any) -> Array:
        projection, view, counts = item
        frames = model.frames(projection[None], view[None])[0]
        return 2 * losses.amplitude(frames, counts, batch.mask, floor=0.375)

    return jnp.mean(jax.lax.map(of_angle, (model.projections(views), views, batch.counts), batch_size=4))


class WhiteVolume(Coordinates):
    """Describe a `HoloTomography` by unknowns of which each has curvature about 1; the prior goes along.

    delta is a window times a filtered field: `delta = window F^-1[kernel F[field]]`. Unknowns of `minimise`: `white`,
    `numbers` (shifts and gain) and `ratio`.

    **Fields:** those of `Coordinates`, and `shares` `(map, z, y, x//2+1)`: of the curvature of each frequency, what
    the prior adds; `ratio`: change of beta / delta in units of `ratio_scale`; `negative`: weight of values below
    vacuum; `window` where matter may be; `size`: the number of counts, over which the cost is a mean.
    """

    shares: Float[Array, "map z y half"]
    ratio: Float[Array, ""]
    ratio_scale: Float[Array, ""]
    negative: Float[Array, ""]
    window: Float[Array, "z y x"]
    size: Float[Array, ""]

    @classmethod
    def about(
        cls,
        model: Any,
        data: Mapping[str, Any],
        power: PowerLaw,
        *,
        free: tuple[str, ...] = (),
        prior: float = 1.0,
        negative: float = 1.0,
        beta_scale: float = 0.01,
    ) -> Self:
        """Make the coordinates about a model.

        **Arguments:** `power` of delta [rad/pixel] that is expected; `free`, of shifts, gain, ratio: what is unknown
        beside the volume; weights of the `prior` and of `negative` values, 1 is what the data say; `beta_scale`: size
        of further absorption beside delta.
        """
        cast = lambda a: jnp.asarray(a, model.delta.dtype)
        size, angles = float(np.sum(data["mask"])) * model.gain.size, model.gain.shape[0]
        volumes = [model.delta] if model.beta is None else [model.delta, model.beta]
        curvature = np.stack(hologram_curvature(model, angles)[: len(volumes)])
        expected = power(radial_frequency(model.delta.shape, 0.5)) / prior
        inverse = np.stack([1 / expected, 1 / expected / beta_scale**2][: len(volumes)])
        kernels, shares = np.sqrt(size / (curvature + inverse)), inverse / (curvature + inverse)
        sharp = (
            frame_information(model, data) if "shifts" in free or "gain" in free else np.ones((*model.gain.shape, 3))
        )
        brightness = float(transfer(model, (2, 2))[2].sum()) * float(
            jnp.sum(model.projector(model.delta, np.arange(1)) ** 2)
        )
        switch = lambda name, scale: cast(scale * (name in free))
        return cls(
            white=filtered(jnp.stack(volumes), cast((1 - shares) / kernels)),
            kernels=cast(kernels),
            numbers={"shifts": jnp.zeros_like(model.shifts), "gain": jnp.zeros_like(model.gain)},
            scales={
                "shifts": switch("shifts", np.sqrt(size / sharp[..., :2])),
                "gain": switch("gain", np.sqrt(size / sharp[..., 2]) * np.asarray(model.gain)),
            },
            model=model,
            shares=cast(shares),
            ratio=cast(0.0),
            ratio_scale=switch("ratio", np.sqrt(size / (4 * brightness * angles + 1))),
            negative=cast(negative * np.median(curvature[0])),
            window=cast(soft_cylinder(model.delta.shape)),
            size=cast(size),
        )

    def put(self, model: Any, maps: Float[Array, "map z y x"]) -> Any:
        """Put the volumes, and beta / delta, into the model."""
        volumes = self.window * maps
        # The cost is quadratic in beta / delta, which must not become negative.
        ratio = 1 / jnp.maximum(1 / model.delta_beta + self.ratio_scale * self.ratio, 1e-6)
        ratio = jnp.where(self.ratio_scale > 0, ratio, model.delta_beta)
        return model.replace(delta=volumes[0], beta=None if model.beta is None else volumes[1], delta_beta=ratio)

    def penalty(self, model: Any) -> Float[Array, ""]:
        """Compute minus the logarithm of the prior, and the penalty on values below vacuum, over the number of
        counts."""
        twice = jnp.asarray(half_plane_weights(model.delta.shape[2]), self.white.dtype)
        spectra = jnp.fft.rfftn(self.white, axes=(1, 2, 3), norm="ortho")
        prior = jnp.sum(twice * jnp.real(spectra * jnp.conj(spectra)) * self.shares)
        return 0.5 * (prior + self.negative / self.size * jnp.sum(jnp.minimum(model.delta, 0) ** 2))

    @staticmethod
    def cost(data_term: Callable[[Any, Batch], Array] = hologram_cost) -> Callable[["WhiteVolume", Batch], Array]:
        """Make the cost for `minimise` of a data term `(model, batch) -> scalar` and the prior."""

        def cost(white: "WhiteVolume", batch: Batch) -> Array:
            model = white.solution()
            return data_term(model, batch) + white.penalty(model)

        return cost


def fit_volume(
    model: Any,
    data: Mapping[str, Any],
    power: PowerLaw,
    *,
    data_term: Callable[[Any, Batch], Array] = hologram_cost,
    steps: int = 15,
    memory: int = 8,
    batch_size: int | None = None,
    epochs: float = 12.0,
    seed: int = 0,
    coordinates: Mapping[str, Any] | None = None,
    **options: Any,
) -> Solution:
    """Descend from a model in the volume, and what else is free, on the raw frames of all distances and angles.

    **Arguments:** `power` of delta [rad/pixel] that is expected (`PhaseRetrieval.power_of_volume`); `data_term`;
    `steps` of L-BFGS and its `memory`, or, with `batch_size` angles at a time, `epochs` of plain steps, for scans that
    memory does not hold; `coordinates`: more for `WhiteVolume.about`; `options` of `minimise`.

    **Returns:** a `Solution` whose value is the model.
    """
    angles, cost = len(data["counts"]), WhiteVolume.cost(data_term)
    white = WhiteVolume.about(model, data, power, **coordinates or {})
    if batch_size is None or batch_size >= angles:
        search = optax.scale_by_zoom_linesearch(8, initial_guess_strategy="one")
        rule: Any = optax.lbfgs(memory_size=memory, linesearch=search)
        options = {"chunk": 5} | options
    else:
        steps = round(epochs * -(-angles // batch_size))
        # White coordinates have curvature 1 for all angles together; what one batch alone tells of, its plane of
        # Fourier space and its frames, has one over its share. Steps end where noise does.
        rule = optax.sgd(optax.cosine_decay_schedule(0.5 * batch_size / angles, steps, 0.05))
        options = {"batch_size": batch_size, "seed": seed} | options
    unknowns = ("white", "numbers", "ratio")
    solution = minimise(cost, white, data, rule, steps=steps, unknowns=unknowns, **options)
    found = solution.value.solution()
    fields = {n: getattr(found, n) for n in ("delta", "beta", "delta_beta", "shifts", "gain")}
    local = {n: v if v is None else jnp.asarray(sharding.gather(v)) for n, v in fields.items()}
    return dataclasses.replace(solution, value=model.replace(**local))


# ---------------------------------------------------------------------------------------------------- what is known
def hologram_curvature(model: Any, angles: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the curvature of the data term (half a squared standard deviation) for each frequency of `rfftn(volume,
    norm="ortho")` of delta, and of beta.

    It is the contrast transfer functions times the number of angles whose planes cut a frequency.
    """
    shape = model.delta.shape
    fz, fy, fx = np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[1]), np.fft.rfftfreq(shape[2])
    across = np.hypot(fy[:, None], fx[None])
    # Transfer along a radial grid: rows of the z frequencies, columns fine in |f|.
    radial = np.linspace(0, np.sqrt(2) / 2, int(np.ceil(shape[1] / 2)) * 4)
    sine, cosine, weights = _radial_transfer(model, fz, radial)
    planes = angles / np.maximum(np.pi * shape[1] * across, 1.0) * shape[1]

    def spread(table: np.ndarray) -> np.ndarray:
        rows = np.stack([np.interp(across.ravel(), radial, row) for row in table])
        return _through_window(rows.reshape(shape[0], *across.shape) * planes, shape)

    delta, beta = ((weights * t**2).sum(0) for t in (sine + cosine / float(model.delta_beta), cosine))
    return spread(delta), spread(beta)


def _radial_transfer(model: Any, fz: np.ndarray, radial: np.ndarray) -> tuple[np.ndarray, ...]:
    """Compute `2 sin(chi)`, `2 cos(chi)` with the pixel's transfer at (fz, radial), and weights, as in `transfer`."""
    scale = np.pi * model.wavelength / model.pixel_size**2
    chi = scale * np.asarray(model.distances, float).mean(1)[:, None, None] * (fz[:, None] ** 2 + radial**2)
    ratio = np.asarray(model.pixels) / model.pixel_size
    box = np.sinc(ratio[:, 0, None] * fz)[:, :, None] * np.sinc(ratio[:, 1, None] * radial)[:, None]
    return 2 * np.sin(chi) * box, 2 * np.cos(chi) * box, transfer(model, (2, 2))[2]


def soft_cylinder(shape: tuple[int, ...]) -> Float[np.ndarray, "z y x"]:
    """Window the cylinder that all angles see, with an edge that is soft over an eighth of its radius."""
    along, across = _windows(shape)
    return along[:, None, None] * across


def _windows(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    soft = lambda depth, width: 0.5 - 0.5 * np.cos(np.pi * np.clip(depth / max(width, 1.0), 0, 1))
    z, y, x = (np.abs(np.arange(n) - (n - 1) / 2) for n in shape)
    radius = min(shape[1:]) / 2
    return soft(shape[0] / 2 - z, shape[0] / 16), soft(radius - np.hypot(y[:, None], x), radius / 8)


def _through_window(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Smooth a curvature by the power of the window's transform, as it is for waves that the window cuts off.

    A low frequency alone is hardly seen; with the edge of a window on it is.
    """
    along, across = _windows(shape)
    first = np.fft.irfft(np.abs(np.fft.rfft(along, 2 * shape[0])) ** 2, 2 * shape[0])
    both = np.fft.irfft2(np.abs(np.fft.rfft2(across, [2 * n for n in shape[1:]])) ** 2, [2 * n for n in shape[1:]])
    lags = [np.fft.fftfreq(n, 1 / n).astype(int) for n in shape]
    overlap = first[lags[0]][:, None, None] * both[np.ix_(lags[1], lags[2])]
    kernel = np.fft.irfftn(values, s=shape, axes=(0, 1, 2)) * (overlap / overlap[0, 0, 0])
    return np.maximum(np.fft.rfftn(kernel).real, values.min())
