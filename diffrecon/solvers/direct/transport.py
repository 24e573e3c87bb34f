"""Direct phase retrieval by transport of intensity: Paganin's filter of one image, two planes, and the mixed approach
between transport of intensity and contrast transfer.

Images are intensities divided by the empty beam; signs, units and `outside` as in `_phase`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ...errors import InputError
from .outside import extended, filled, frequencies, from_spectrum, grid, pixels_of, spectrum
from .phase import PhaseMaps, Samples, checked, chosen, fresnel_numbers, ict, square_of, transfer, waves_of

__all__ = ["mixed", "paganin", "tie"]

_ROUNDS = 5  # of terms that are taken from the round before


def paganin(
    images: Float[Array, "... y x"] | np.ndarray,
    *,
    pixel_size: float,
    wavelength: float,
    distance: float,
    delta_beta: float,
    outside: str = "vacuum",
    mask: Bool[Array, "... y x"] | np.ndarray | None = None,
    generalised: bool = False,
) -> Float[Array, "... y x"]:
    """Phase of an object of one material from one hologram (Paganin et al., J. Microsc. 206, 33 (2002), eq. 10).

    `phase = (delta_beta / 2) ln F^-1[ F(I) / (1 + pi wavelength distance delta_beta f^2) ]`: exact for small phase
    gradients (transport of intensity), strong attenuation allowed. The thickness is `-phase wavelength / (2 pi delta)`.
    The filter is its own regularisation; nothing is left to choose.

    **Arguments:** `images` divided by the empty beam; `pixel_size`, `wavelength`, `distance` [m] (effective ones in a
    cone beam); `delta_beta` = delta/beta of the material; `outside` = `"vacuum"`, `"mirror"` or `"smooth"`: what lies
    beyond the image; `mask`: True where a pixel was measured, others are filled smoothly and may be NaN;
    `generalised=True` replaces `f^2` by the symbol of the discrete Laplacian (Paganin et al., J. Opt. 22, 115607
    (2020), eq. 14), which is sharper near Nyquist.

    **Returns:** phase [rad]. **Cost:** two FFTs of twice the image's size along each axis.

    **Raises:** `InputError` for a `delta_beta` that is not positive and finite, for numbers and images without sense.

    ```python
    phase = paganin(jnp.ones((64, 64)), pixel_size=1e-6, wavelength=1e-10, distance=0.1, delta_beta=500.0)
    assert jnp.allclose(phase, 0.0, atol=1e-3)
    ```
    """
    if not 0 < delta_beta < np.inf:
        raise InputError(f"paganin needs a positive, finite delta/beta, not {delta_beta}; ctf does pure phase objects")
    images = checked("paganin", images, mask)
    number = fresnel_numbers("paganin", images[..., None, :, :], pixel_size, wavelength, [distance])[0]
    shape = grid(images.shape[-2:], without_unmeasured("paganin", outside))
    fy, fx = frequencies(shape, outside)
    square = (lambda f: (1 - np.cos(2 * np.pi * f)) / (2 * np.pi**2)) if generalised else np.square
    parts = [
        jnp.asarray(np.pi * delta_beta * square(f) / n, images.dtype) for f, n in zip((fy, fx), number, strict=True)
    ]
    return 0.5 * delta_beta * _log_contact(images, mask, parts, shape, outside)


def without_unmeasured(name: str, outside: str) -> str:
    """Resolve what is assumed beyond the image, for methods that need to assume something."""
    if outside == "unmeasured":
        raise InputError(f'{name}: outside = "unmeasured" is for ctf and ict; give "smooth"')
    return outside


@partial(jax.jit, static_argnames=("shape", "outside"))
def _log_contact(images: Array, mask: Any, parts: Any, shape: Any, outside: str) -> Array:
    # The filter keeps the mean, so that filtering I - 1 is the same and loses no digits.
    values = spectrum(extended(contrast(images, mask), shape, outside), outside)
    rows, columns = parts
    found = from_spectrum(values / (1 + columns[:, None] + rows[None, :]), shape, outside, images.shape[-2:])
    return jnp.log(jnp.maximum(1 + found, jnp.finfo(images.dtype).tiny))


def contrast(images: Array, mask: Any) -> Array:
    """`I - 1`, unmeasured pixels filled."""
    return images - 1 if mask is None else filled(jnp.where(mask, images - 1, 0), jnp.asarray(mask, bool))


# ---------------------------------------------------------------------------------------------------- two planes
def tie(
    images: Float[Array, "... 2 y x"] | np.ndarray,
    *,
    pixel_size: float,
    wavelength: float,
    distances: Any,
    regularisation: Any = "auto",
    outside: str = "vacuum",
    mask: Bool[Array, "... y x"] | np.ndarray | None = None,
) -> PhaseMaps:
    """Phase of any object from images in two planes, by the transport of intensity.

    `-(2 pi/wavelength) dI/dz = div(I grad phase)` (Teague, J. Opt. Soc. Am. 73, 1434 (1983)), solved by `laplace psi =
    -(2 pi/wavelength) dI/dz`, `laplace phase = div(grad psi / I)` (Paganin & Nugent, Phys. Rev. Lett. 80, 2586 (1998),
    eq. 7). That leaves out a rotation in `I grad phase`; it is repeated with what is left of dI/dz, five rounds in all.
    Right where the planes are so close that no fringe is seen. Nothing is assumed of the material, at a price: errors
    of the difference grow as 1/f^2 towards low frequencies.

    **Arguments:** `images` at `distances` (z1, z2) [m], of which one may be 0 (contact), divided by the empty beam, on
    one pixel; the rest as in `ctf`, but `outside="unmeasured"`. `regularisation="auto"` takes as noise the lowest
    power of the difference at any frequency.

    **Returns:** `PhaseMaps`; `attenuation` is that of the mean intensity, and intensities below 0.01 count as 0.01.
    **Cost:** some 70 FFTs. **Raises:** `InputError` for other than two distances that differ.

    ```python
    found = tie(np.ones((2, 32, 32)), pixel_size=1e-6, wavelength=1e-10, distances=(0.01, 0.02))
    ```
    """
    images = checked("tie", images, mask)
    if images.ndim < 3 or images.shape[-3] != 2 or np.shape(distances)[:1] != (2,):
        raise InputError(f"tie takes two planes: images (..., 2, y, x), not {images.shape}, and two distances")
    apart = np.asarray(distances[1], float) - np.asarray(distances[0], float)
    number = fresnel_numbers("tie", images[..., :1, :, :], pixel_size, wavelength, [apart])
    size = (images.shape[-2], images.shape[-1])
    shape = grid(size, without_unmeasured("tie", outside))
    used = chosen(regularisation, size, outside, images, number, "transport", float(np.sqrt(0.5 * abs(number.mean()))))
    laplacian = [
        jnp.asarray(2 * np.pi * f**2 / n, images.dtype)
        for f, n in zip(frequencies(shape, outside), number[0], strict=True)
    ]
    return _two_planes(images, mask, laplacian, used, shape, outside)


@partial(jax.jit, static_argnames=("shape", "outside"))
def _two_planes(images: Array, mask: Any, laplacian: Any, used: Any, shape: Any, outside: str) -> PhaseMaps:
    size = images.shape[-2:]
    both = contrast(images, mask)
    whole = extended(both, shape, outside)
    mean = jnp.maximum(1 + jnp.mean(whole, -3), 0.01)
    seen = spectrum(whole[..., 1, :, :] - whole[..., 0, :, :], outside)
    if isinstance(used, Samples):
        used = used.learn(seen[..., None, :, :], pixels_of(size, outside), lowest_noise=True)
    # -wavelength/(2 pi) times the distance times the Laplacian; a field without slope has none
    response = laplacian[1][:, None] + laplacian[0][None, :]
    floor = used.floor(square_of(shape, outside, images.dtype))[0] / used.weights(1)[0]
    tiny = jnp.finfo(images.dtype).tiny
    to_image = lambda values: from_spectrum(values, shape, outside, shape)
    curved = lambda image: to_image(response * spectrum(image, outside))
    flat = lambda image: to_image(jnp.where(response > 0, spectrum(image, outside) / jnp.maximum(response, tiny), 0))

    def divergence(g, image):
        """-div(g grad image) in the units of the response."""
        return 0.5 * (curved((g - 1) * image) + (g - 1) * curved(image) - image * curved(g - 1)) + curved(image)

    def step(_, phase):
        psi = flat(change - divergence(mean, phase))
        return phase + flat(divergence(1 / mean, psi))

    change = to_image(seen * response**2 / jnp.maximum(response**2 + floor, tiny))
    phase = jax.lax.fori_loop(0, _ROUNDS, step, jnp.zeros_like(change))
    crop = lambda image: image[..., : size[0], : size[1]]
    return PhaseMaps(crop(phase), crop(-0.5 * jnp.log(mean)), used)


# ---------------------------------------------------------------------------------------------------- mixed approach
def mixed(
    images: Float[Array, "... distance y x"] | np.ndarray,
    contact: Float[Array, "... y x"] | np.ndarray | None = None,
    *,
    pixel_size: float,
    wavelength: float,
    distances: Any,
    delta_beta: float | None = None,
    regularisation: Any = "auto",
    outside: str = "vacuum",
    mask: Bool[Array, "... y x"] | np.ndarray | None = None,
) -> PhaseMaps:
    """Phase of an object with strong, slowly varying attenuation, by the mixed approach (Guigay et al., Opt. Lett. 32,
    1617 (2007), eq. 9).

    `F(I_j) = F(I_j at phase 0) + 2 sin(chi_j) F(I_0 phase) + cos(chi_j) wavelength distance_j / (2 pi)
    F(div(phase grad I_0))`, with I_0 the intensity behind the object: contrast transfer for weak, transport of
    intensity for short distances. It is linear in `psi = I_0 phase`; the last term is taken from the round before, five
    rounds in all, below the first maximum of contrast, where its expansion holds. Low frequencies of the phase come
    from a prior, the phase of one material with that attenuation, `(delta_beta / 2) ln I_0` (Langer et al., IEEE
    Trans. Image Process. 19, 2428 (2010)).

    **Arguments:** `images` as in `ctf`; `contact`: the image at distance 0, on the same pixel; without it, I_0 is that
    of `ict`, which needs `delta_beta`; `delta_beta` of the prior: `None` is none; the rest as in `ctf`, but
    `outside="unmeasured"`. `mask` (y, x) is that of all images.

    **Returns:** `PhaseMaps`, `attenuation` from the contact image, out of which `"auto"` filters the noise first
    (Wiener, with power and noise learnt from it). **Cost:** some 20 FFTs an image. **Raises:** `InputError` as `ctf`
    does, and where neither a contact image nor `delta_beta` is given.

    ```python
    images = np.ones((2, 32, 32))
    found = mixed(images, images[0], pixel_size=5e-8, wavelength=7e-11, distances=(0.02, 0.03))
    ```
    """
    images = checked("mixed", images, mask)
    number = fresnel_numbers("mixed", images, pixel_size, wavelength, distances)
    if delta_beta is not None and not 0 < delta_beta < np.inf:
        raise InputError(f"mixed: delta/beta = {delta_beta} of the prior is to be positive and finite, or None")
    size = (images.shape[-2], images.shape[-1])
    shape = grid(size, without_unmeasured("mixed", outside))
    measured = contact
    if contact is not None:
        contact = checked("mixed", contact, mask).astype(images.dtype)
        if contact.shape != images.shape[:-3] + size:
            raise InputError(f"mixed: a contact image of shape {contact.shape} for images of {images.shape}")
        contact = 1 + contrast(contact, mask)
    elif delta_beta is None:
        raise InputError("mixed needs the contact image, or delta_beta to make one from the holograms")
    else:
        guess = ict(
            images,
            pixel_size=pixel_size,
            wavelength=wavelength,
            distances=distances,
            delta_beta=delta_beta,
            outside=outside,
            mask=mask,
            regularisation=regularisation,
        )
        contact = jnp.exp(-2 * guess.attenuation)
    split = float(np.sqrt(abs(1 / np.mean(1 / number)) / 2))
    used = chosen(regularisation, size, outside, images, number, ((1.0, 0.0),), split)
    waves = waves_of(shape, outside, number, images.dtype)
    noisy = measured is not None and isinstance(regularisation, str)
    plain = chosen("auto", size, outside, images, number[:1], "contact", split) if noisy else None
    return _mixed(images, mask, contact, plain, waves, used, delta_beta or 0.0, split, shape, outside)


@partial(jax.jit, static_argnames=("shape", "outside"))
def _mixed(
    images: Array,
    mask: Any,
    contact: Array,
    plain: Any,
    waves: Any,
    used: Any,
    delta_beta: Any,
    split: Any,
    shape: Any,
    outside: str,
) -> PhaseMaps:
    size, count = images.shape[-2:], images.shape[-3]
    to_image = lambda values: from_spectrum(values, shape, outside, shape)
    square = square_of(shape, outside, images.dtype)
    behind = extended(contact - 1, shape, outside)
    if plain is not None:  # the noise of a measured contact image would be multiplied by delta_beta / 2
        values = spectrum(behind, outside)
        wiener = plain.learn(values[..., None, :, :], pixels_of(size, outside), lowest_noise=True)
        behind = to_image(values / (1 + wiener.floor(square)[0] * wiener.noise[0]))
    behind = jnp.maximum(1 + behind, 0.01)
    prior = behind * 0.5 * delta_beta * jnp.log(behind)
    prior_spectrum = spectrum(prior, outside)
    response = lambda j: transfer(waves, j, 1.0, 0.0)
    amplitude = spectrum(jnp.sqrt(behind) - 1, outside)
    whole = extended(contrast(images, mask), shape, outside)

    def unexplained(j):
        """Spectrum of an image less what the attenuation and the prior make of it."""
        real, imaginary = (to_image(amplitude * 0.5 * transfer(waves, j, a, b)) for a, b in ((0.0, 1.0), (1.0, 0.0)))
        without_phase = (1 + real) ** 2 + imaginary**2
        return spectrum(whole[..., j, :, :] + 1 - without_phase, outside) - response(j) * prior_spectrum

    data = [unexplained(j) for j in range(count)]
    if isinstance(used, Samples):
        used = used.learn(jnp.stack(data, -3), pixels_of(size, outside))
    weights = used.weights(count)
    matrix = used.floor(square)[0] + sum(weights[j] * response(j) ** 2 for j in range(count))
    solve = lambda spectra: to_image(sum(weights[j] * response(j) * spectra[j] for j in range(count)) / matrix)

    def step(_, psi):
        # chi_j = c_j f^2 along each axis; div(phase grad I_0) by three Laplacians, whose shapes the distances share
        phase = psi / behind
        below = jnp.where(square < split**2, -4 * np.pi**2 * square, 0.0)
        curved = lambda image: to_image(below * spectrum(image, outside))
        flux = 0.5 * (curved(psi) + phase * curved(behind - 1) - behind * curved(phase))
        lagged = spectrum(flux, outside) * jnp.where(square < split**2, 1.0, 0.0)
        terms = [0.5 * transfer(waves, j, 0.0, 1.0) * waves.scale[j] * lagged for j in range(count)]
        return prior + solve([d - t for d, t in zip(data, terms, strict=True)])

    psi = jax.lax.fori_loop(0, _ROUNDS, step, prior + solve(data))
    crop = lambda image: image[..., : size[0], : size[1]]
    return PhaseMaps(crop(psi / behind), crop(-0.5 * jnp.log(behind)), used)
