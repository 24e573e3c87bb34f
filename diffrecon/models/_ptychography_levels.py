"""Ptychography from coarse to fine, on the host: the detector's pixels before finer ones, one mode before several.

Light, positions and the large features of the object are found at a fraction of the cost; what is fine begins there.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex

from ._ptychography import Ptychography
from ._ptychography_start import finer, modes_of

_SCALED = ("positions", "drift", "travel", "source_blur")  # in pixels of the object


def has_coarser(model: Ptychography) -> bool:
    """Say whether there is a coarser model: one on the detector's pixels, of a probe that does not vary."""
    return model.oversampling > 1 and model.probe_variations is None


def coarser(model: Ptychography) -> Ptychography:
    """Make the model on the detector's pixels, with one mode that has the light of all; its object is empty."""
    factor, light = model.oversampling, np.sum(abs(np.asarray(model.probe)) ** 2)
    probe = _coarser_wave(np.asarray(model.probe[0]), factor)
    probe = probe * np.sqrt(light / np.sum(abs(probe) ** 2))
    shape = (*model.object.shape[:-2], *(-(-n // factor) for n in model.object.shape[-2:]))
    return _scaled(model, 1 / factor).replace(
        object=jnp.full(shape, model.object.ravel()[0]), probe=jnp.asarray(probe[None], model.probe.dtype)
    )


def refined(solved: Ptychography, start: Ptychography) -> Ptychography:
    """Give what a coarser model has found on the pixels, and with the modes, of the model that it was made of.

    The background begins anew: in the coarser one it holds the light that varies within a pixel, or is in other modes.
    """
    factor, (rows, columns) = start.oversampling, start.object.shape[-2:]
    planes = np.asarray(solved.object).reshape(-1, *solved.object.shape[-2:])
    obj = np.stack([factor**2 * finer(plane, factor) for plane in planes])[:, :rows, :columns]
    probe = modes_of(factor * finer(np.asarray(solved.probe[0]), factor), len(start.probe))
    return _scaled(solved, factor).replace(
        object=jnp.asarray(obj.reshape(start.object.shape), start.object.dtype),
        probe=jnp.asarray(probe, start.probe.dtype),
        background=start.background,
    )


def _scaled(model: Ptychography, factor: float) -> Ptychography:
    """The same lengths in pixels of the object that are so many times smaller."""
    fields = {name: getattr(model, name) for name in _SCALED}
    moved = {name: value * factor for name, value in fields.items() if value is not None}
    pixel = None if model.pixel_size is None else model.pixel_size / factor
    return model.replace(pixel_size=pixel, oversampling=round(model.oversampling * factor), **moved)


def _coarser_wave(wave: Complex[np.ndarray, "y x"], factor: int) -> Complex[np.ndarray, "r c"]:
    """The low frequencies of a wave on pixels so many times larger: `finer` undone, but for a factor."""
    shape = [n // factor for n in wave.shape]
    cut = tuple(slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(wave.shape, shape, strict=True))
    spectrum = np.fft.ifftshift(np.fft.fftshift(np.fft.fft2(wave))[cut])
    rows, columns = (np.exp(1j * np.pi * np.fft.fftfreq(n) * (factor - 1) / factor) for n in shape)
    return np.fft.ifft2(spectrum * rows[:, None] * columns)
