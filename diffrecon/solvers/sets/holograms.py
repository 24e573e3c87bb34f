"""Alternating projections for in-line holograms: the two sets of `set_projections`.

One set holds the waves behind the object that give the measured moduli at all distances; the other those that an object
can make: vacuum outside its support, absorption that is not negative, a phase that is not positive, one material. Both
projections act on the complex wave, on one pixel and a grid wider than the frames, beyond which nothing was measured.
For comparison with other programs and for objects about which one knows a support and nothing else; model-based
retrieval, which has noise, pixels and priors, is better (`docs/holography.md`).
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from ... import operators
from ..._console import Console
from ...errors import InputError
from ..ending import Ending
from .set_projections import set_projections

__all__ = ["HologramSets", "ProjectedPhase", "alternating_projections", "onto_holograms", "onto_object"]


class HologramSets(eqx.Module):
    """What was measured and what is known, for `onto_holograms` and `onto_object`.

    **Fields:** `moduli` `(*view, distance, y, x)`, roots of the intensities over the empty beam; `measured`, True where
    they count; `transfer` `(distance, Y, X)` from the object to each distance on the padded grid; `inside` `(Y, X)`,
    False where there is vacuum; `ratio` = beta/delta of the one material, or `None`; `negative`: the phase is not
    above zero (for objects of less than pi: the angle of a wave knows no more).
    """

    moduli: Float[Array, "*view distance y x"]
    measured: Bool[Array, "*#view #distance y x"]
    transfer: Complex[Array, "distance Y X"]
    inside: Bool[Array, "Y X"]
    ratio: Float[Array, ""] | None
    negative: bool = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        images: Float[Any, "*view distance y x"],
        *,
        pixel_size: float,
        wavelength: float,
        distances: Sequence[float] | np.ndarray,
        support: np.ndarray | None = None,
        delta_beta: float | None = None,
        negative: bool = True,
        mask: np.ndarray | None = None,
        padding: float = 2.0,
    ) -> "HologramSets":
        """Make the sets from images divided by the empty beam, all on one pixel.

        **Arguments:** `pixel_size`, `wavelength`, `distances` [m]; `support` `(y, x)`: True where the object may be,
        the whole frame by default; `delta_beta` of the one material; `mask` of measured pixels; `padding`: the grid's
        size over the frame's.

        **Raises:** `InputError` for images that do not fit the distances, or are not finite where they count.
        """
        images = np.asarray(images)
        if images.ndim < 3 or images.shape[-3] != len(distances):
            raise InputError(
                f"projections: images of shape {images.shape} for {len(distances)} distances; expected "
                "(distance, y, x) or (view, distance, y, x)"
            )
        measured = np.broadcast_to(True if mask is None else np.asarray(mask, bool), images.shape[-3:])
        if not np.isfinite(np.where(measured, images, 1)).all():
            raise InputError("projections: images are not finite where the mask says that they were measured")
        if delta_beta is not None and not delta_beta > 0:
            raise InputError(f"projections: delta_beta = {delta_beta} is to be positive (inf for a pure phase object)")
        real = np.result_type(jnp.zeros(0).dtype if images.dtype == float else images.dtype, np.float32)
        frame = images.shape[-2:]
        grid = (int(np.ceil(padding * frame[0])), int(np.ceil(padding * frame[1])))
        inside = np.zeros(grid, bool)
        inside[: frame[0], : frame[1]] = True if support is None else np.asarray(support, bool)
        kernel = lambda distance: operators.fresnel_transfer(
            grid,
            pixel_size=pixel_size,
            wavelength=wavelength,
            distance=float(distance),
            dtype=np.result_type(real, np.complex64),
        )
        moduli = np.sqrt(np.maximum(np.where(measured, images, 1), 0)).astype(real)
        return cls(
            jnp.asarray(moduli),
            jnp.asarray(measured),
            jnp.stack([kernel(d) for d in distances]),
            jnp.asarray(inside),
            None if delta_beta is None else jnp.asarray(1 / delta_beta, real),
            negative,
        )

    def vacuum(self) -> Complex[Array, "*view Y X"]:
        """The wave to start from: nothing."""
        return jnp.ones((*self.moduli.shape[:-3], *self.inside.shape), self.transfer.dtype)


def onto_holograms(wave: Complex[Array, "*view Y X"], sets: HologramSets) -> Complex[Array, "*view Y X"]:
    """Mean, over the distances, of the nearest waves that have the moduli measured there.

    For one distance the projection; for several the mean of the projections, which has the waves in all sets as fixed
    points. **Cost:** two FFTs of the grid a distance.
    """
    rows, columns = sets.moduli.shape[-2:]
    there = jnp.fft.ifft2(jnp.fft.fft2(wave)[..., None, :, :] * sets.transfer)
    seen = there[..., :rows, :columns]
    modulus = jnp.abs(seen)
    direction = jnp.where(modulus > 0, seen / jnp.where(modulus > 0, modulus, 1), 1)
    there = there.at[..., :rows, :columns].set(jnp.where(sets.measured, sets.moduli * direction, seen))
    return jnp.fft.ifft2(jnp.mean(jnp.fft.fft2(there) * jnp.conj(sets.transfer), axis=-3))


def onto_object(wave: Complex[Array, "*view Y X"], sets: HologramSets) -> Complex[Array, "*view Y X"]:
    """The nearest wave behind an object: 1 outside; inside no gain, no positive phase, one material.

    With one material the phase is kept and the modulus made to go with it, which is not quite the nearest.
    """
    modulus, phase = jnp.abs(wave), jnp.angle(wave)
    if sets.ratio is not None:
        phase = jnp.minimum(phase, 0) if sets.negative else phase
        allowed = jnp.exp(sets.ratio * jnp.minimum(phase, 0) + 1j * phase)
    else:
        modulus = jnp.minimum(modulus, 1)
        # The nearest number of phase <= 0 is the projection on the real axis, where the phase is above.
        flat = jnp.maximum(modulus * jnp.cos(phase), 0)
        allowed = modulus * jnp.exp(1j * phase)
        allowed = jnp.where(phase > 0, flat.astype(wave.dtype), allowed) if sets.negative else allowed
    return jnp.where(sets.inside, allowed.astype(wave.dtype), jnp.ones((), wave.dtype))


class ProjectedPhase(eqx.Module):
    """Wave behind an object, by `alternating_projections`.

    **Fields:** `phase` [rad], the angle of the wave, and `attenuation` `(*view, y, x)`; `gap` `(step,)` or `(step,
    view)` between the two sets, relative; `ending`, an `Ending`.
    """

    phase: Float[Array, "*view y x"]
    attenuation: Float[Array, "*view y x"]
    gap: np.ndarray
    ending: Ending = eqx.field(static=True)


def alternating_projections(
    images: Float[Any, "*view distance y x"],
    *,
    pixel_size: float,
    wavelength: float,
    distances: Sequence[float] | np.ndarray,
    rule: str = "raar",
    beta: float | None = None,
    steps: int = 200,
    start: Complex[Any, "*view Y X"] | None = None,
    console: Console | None = None,
    **known: Any,
) -> ProjectedPhase:
    """Phase by projections onto measured moduli and onto what is known of the object.

    **Arguments:** `images` divided by the empty beam, all on one pixel, `(distance, y, x)` or many such; `pixel_size`,
    `wavelength`, `distances` [m]; `rule` `"er"` (alternating projections), `"raar"` (Luke, Inverse Problems 21, 37
    (2005)), `"dm"`, with `beta`, as in `set_projections`; `start`: the wave behind the object on the padded grid,
    vacuum by default; `known`: `support`, `delta_beta`, `negative`, `mask`, `padding` of `HologramSets.of`.

    **Returns:** `ProjectedPhase`. The phase is an angle, within half a turn. **Cost:** `2 (distances + 1)` FFTs of the
    grid a step.

    **Raises:** `InputError` as `HologramSets.of` and `set_projections`.

    ```python
    images = np.ones((2, 16, 16), np.float32)
    found = alternating_projections(images, pixel_size=5e-8, wavelength=7e-11, distances=(0.01, 0.02), steps=5)
    assert np.allclose(found.phase, 0, atol=1e-5)
    ```
    """
    sets = HologramSets.of(images, pixel_size=pixel_size, wavelength=wavelength, distances=distances, **known)
    wave = sets.vacuum() if start is None else jnp.asarray(start, sets.transfer.dtype)
    if wave.shape != sets.vacuum().shape:
        raise InputError(f"projections: start of shape {wave.shape}; expected {sets.vacuum().shape}")
    found = set_projections(
        wave,
        onto_holograms,
        onto_object,
        sets,
        rule=rule,
        beta=beta,
        steps=steps,
        batched=wave.ndim > 2,
        console=console,
    )
    rows, columns = sets.moduli.shape[-2:]
    window = found.value[..., :rows, :columns]
    smallest = jnp.finfo(sets.moduli.dtype).tiny
    return ProjectedPhase(jnp.angle(window), -jnp.log(jnp.maximum(jnp.abs(window), smallest)), found.gap, found.ending)
