"""Direct phase retrieval by contrast transfer functions (CTF): linear in the phase, or in the intensity behind the
object (ICT).

Images are intensities divided by the empty beam, about 1, all on one pixel. Phase is negative in matter,
`phase = -(2 pi/lambda) int delta dz` [rad], and `attenuation = (2 pi/lambda) int beta dz`, so that the transmission is
`exp(-attenuation + i phase)`. Phases of the transfer are computed in float64 and cast. What is assumed beyond the image
(`outside`) is told in `_outside`, how the regularisation is chosen in `_regularisation`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from ...errors import InputError
from ..conjugate_gradients import conjugate_gradients
from .outside import extended, filled, frequencies, from_spectrum, grid, measured, pixels_of, spectrum
from .regularisation import LearntPower, Regularisation, given, learnt, rings, solved

__all__ = ["LCurve", "PhaseMaps", "ctf", "ctf_response", "ict", "l_curve"]

_STEPS = 12  # of conjugate gradients, where pixels are unmeasured


class PhaseMaps(eqx.Module):
    """What a direct method finds; unpacks to `phase, attenuation`.

    **Fields:** `phase` [rad], `attenuation`, both `(..., y, x)`; `regularisation`, which says what was chosen and why
    (`.message`) and may be given to the next call, to treat other images alike.
    """

    phase: Float[Array, "... y x"]
    attenuation: Float[Array, "... y x"]
    regularisation: Regularisation

    def __iter__(self):
        return iter((self.phase, self.attenuation))


def ctf(
    images: Float[Array, "... distance y x"] | np.ndarray,
    *,
    pixel_size: float,
    wavelength: float,
    distances: Sequence[Any] | np.ndarray,
    delta_beta: float | None = None,
    regularisation: Any = "auto",
    outside: str = "vacuum",
    mask: Bool[Array, "... y x"] | np.ndarray | None = None,
) -> PhaseMaps:
    """Phase and attenuation from holograms at several distances, by least squares on the contrast transfer functions.

    The linear model is `F(I_j - 1) = 2 sin(chi_j) phase - 2 cos(chi_j) attenuation`, `chi_j = pi wavelength distance_j
    f^2` (Cloetens et al., Appl. Phys. Lett. 75, 2912 (1999)): right for weak attenuation and slowly varying phase.
    With `delta_beta`, `attenuation = -phase / delta_beta` leaves one unknown (Turner et al., Opt. Express 12, 2960
    (2004)); `inf` is a pure phase object. Without it both maps are solved for, which needs at least two distances.

    **Arguments:**

    - `images` divided by the empty beam, all on one pixel; views and the like are leading axes.
    - `pixel_size`, `wavelength`, `distances` [m]; a distance may be a pair (vertical, horizontal).
    - `regularisation`: `"auto"` learns noise and power of the object from the images (all views together); a number,
      a pair `(low, high)` or one pair for each unknown (Lucht et al., arXiv 2403.00461 (2024)) are added to the sums
      over squared transfer functions, low below the first maximum of phase contrast and high above it (Yu et al., Opt.
      Express 26, 11110 (2018), eq. 8); the `regularisation` of an earlier result is used again.
    - `outside` = `"vacuum"`, `"mirror"`, `"smooth"` or `"unmeasured"`: what lies beyond the image.
    - `mask`: True where a pixel was measured; broadcast to the images. Others may hold anything, NaN too: they are
      filled smoothly, then the model is fitted to measured pixels alone.

    **Returns:** `PhaseMaps`. **Cost:** one FFT an image and one a map, of twice the size along each axis; 13 times that
    with unmeasured pixels.

    **Raises:** `InputError` for images that do not go with the distances or are not finite, for numbers without sense,
    and where one distance is to give two maps.

    ```python
    images = 1 + 0.01 * np.random.default_rng(0).normal(size=(2, 64, 64))
    found = ctf(images, pixel_size=5e-8, wavelength=7e-11, distances=(0.02, 0.03), delta_beta=500.0)
    print(found.regularisation.message)
    ```
    """
    images = checked("ctf", images, mask)
    numbers = fresnel_numbers("ctf", images, pixel_size, wavelength, distances)
    if delta_beta is None and len(numbers) < 2:
        raise InputError(
            "ctf: one distance cannot give phase and attenuation; give delta_beta (inf for a pure phase object)"
        )
    mixing = _mixing("ctf", delta_beta)
    maps, used = _solve(images, numbers, mixing, regularisation, outside, mask)
    if delta_beta is None:
        return PhaseMaps(maps[..., 0, :, :], maps[..., 1, :, :], used)
    return PhaseMaps(maps[..., 0, :, :], -maps[..., 0, :, :] / delta_beta, used)


def ict(
    images: Float[Array, "... distance y x"] | np.ndarray,
    *,
    pixel_size: float,
    wavelength: float,
    distances: Sequence[Any] | np.ndarray,
    delta_beta: float,
    regularisation: Any = "auto",
    outside: str = "vacuum",
    mask: Bool[Array, "... y x"] | np.ndarray | None = None,
) -> PhaseMaps:
    """Phase of an object of one material by intensity contrast transfer (Farago et al., Opt. Lett. 49, 5159 (2024)).

    `F(I_j - 1) = (cos(chi_j) + delta_beta sin(chi_j)) F(T - 1)` is linear in the intensity `T = exp(-2 attenuation)`
    behind the object and not in the phase, which is `(delta_beta / 2) ln T`: attenuation may be strong. Paganin's
    filter is its limit for short distances. To first order it is `ctf`, and so is its Fourier filter: what `ctf` calls
    phase is `(delta_beta / 2) (T - 1)` here.

    **Arguments, cost, errors:** those of `ctf`; `delta_beta` is finite. **Returns:** `PhaseMaps`.

    ```python
    found = ict(np.ones((2, 64, 64)), pixel_size=5e-8, wavelength=7e-11, distances=(0.02, 0.03), delta_beta=500.0)
    ```
    """
    if not (np.isfinite(delta_beta) and delta_beta > 0):
        raise InputError(f"ict needs a positive, finite delta/beta, not {delta_beta}; ctf does pure phase objects")
    images = checked("ict", images, mask)
    numbers = fresnel_numbers("ict", images, pixel_size, wavelength, distances)
    maps, used = _solve(images, numbers, _mixing("ict", delta_beta), regularisation, outside, mask)
    # Noise may make an intensity negative; at 1e-3 the object is opaque.
    behind = jnp.maximum(1 + 2 / delta_beta * maps[..., 0, :, :], 1e-3)
    attenuation = -0.5 * jnp.log(behind)
    return PhaseMaps(-delta_beta * attenuation, attenuation, used)


class LCurve(NamedTuple):
    """What regularisation of other strengths would do; `diffrecon.plot.l_curve` draws it.

    **Fields:** `factors` of the strength, weak to strong; `misfit` = mean square of what is left of the images, in
    units of the noise that was learnt (1: the discrepancy principle), or of the empty beam for levels that were given;
    `size` = mean square of the maps over the power that is expected of them, or times the levels; `regularisation` at
    factor 1.
    """

    factors: Float[np.ndarray, " factor"]
    misfit: Float[Array, " factor"]
    size: Float[Array, " factor"]
    regularisation: Regularisation


def l_curve(
    images: Float[Array, "... distance y x"] | np.ndarray,
    *,
    pixel_size: float,
    wavelength: float,
    distances: Sequence[Any] | np.ndarray,
    delta_beta: float | None = None,
    regularisation: Any = "auto",
    outside: str = "vacuum",
    factors: Sequence[float] | np.ndarray | None = None,
) -> LCurve:
    """Misfit of `ctf` against the size of what it finds, for regularisation that is weaker and stronger by factors
    (Hansen, SIAM Rev. 34, 561 (1992)).

    **Arguments:** those of `ctf`; `factors`, positive (17 from 1e-4 to 1e4). **Cost:** that of `ctf`, and two passes
    over the spectra a factor.

    ```python
    images = 1 + 0.01 * np.random.default_rng(0).normal(size=(2, 32, 32))
    curve = l_curve(images, pixel_size=5e-8, wavelength=7e-11, distances=(0.02, 0.03), delta_beta=500.0)
    ```
    """
    strengths = np.sort(np.asarray(np.geomspace(1e-4, 1e4, 17) if factors is None else factors, float))
    if strengths.ndim != 1 or not (strengths > 0).all():
        raise InputError("l_curve: factors are positive numbers")
    beam: dict[str, Any] = dict(pixel_size=pixel_size, wavelength=wavelength, distances=distances)
    used = ctf(images, delta_beta=delta_beta, regularisation=regularisation, outside=outside, **beam).regularisation
    images = checked("l_curve", images, None)
    numbers = fresnel_numbers("l_curve", images, **beam)
    shape = grid(images.shape[-2:], outside)
    mixing = jnp.asarray(_mixing("l_curve", delta_beta), images.dtype)
    waves = waves_of(shape, outside, numbers, images.dtype)
    misfit, size = _bend(images, waves, mixing, used, jnp.asarray(strengths, images.dtype), shape, outside)
    return LCurve(strengths, misfit, size, used)


@partial(jax.jit, static_argnames=("shape", "outside"))
def _bend(images: Array, waves: Any, mixed: Array, used: Any, factors: Array, shape: Any, outside: str) -> Any:
    contrast = extended(images - 1, shape, outside)
    spectra = [spectrum(contrast[..., j, :, :], outside) for j in range(images.shape[-3])]
    weights = used.weights(len(spectra))
    pixels = spectra[0].size * pixels_of(images.shape[-2:], outside)

    def at(factor: Array) -> tuple[Any, Any]:
        now = used.scaled(factor)
        matrix, _ = _normal(waves, mixed, now, shape, outside)
        right: list[Any] = [
            sum(weights[j] * _response(waves, mixed, j)[u] * s for j, s in enumerate(spectra))
            for u in range(len(mixed))
        ]
        maps, _ = solved(matrix, right)
        left = [
            s - sum(r * m for r, m in zip(_response(waves, mixed, j), maps, strict=True)) for j, s in enumerate(spectra)
        ]
        misfit = sum(weights[j] * jnp.sum(jnp.abs(a) ** 2) for j, a in enumerate(left)) / (len(spectra) * pixels)
        floor = used.floor(square_of(shape, outside, mixed.dtype))
        size = sum(jnp.sum(f * jnp.abs(m) ** 2) for f, m in zip(floor, maps, strict=True)) / pixels
        return misfit, size

    return jax.lax.map(at, factors)


def ctf_response(shape: tuple[int, int], fresnel_numbers: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """`2 sin(chi_j)` and `2 cos(chi_j)` on the half plane of `rfft2`, float64 `(distance, y, x//2 + 1)`.

    Contrast of a weak phase is `+ 2 sin(chi) phase`, of weak attenuation `- 2 cos(chi) attenuation`.
    """
    fy, fx = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    square = fy[:, None] ** 2 + fx[None] ** 2
    chi = np.stack([np.pi / f * square for f in fresnel_numbers])
    return 2 * np.sin(chi), 2 * np.cos(chi)


# ---------------------------------------------------------------------------------------------------- what is given
def checked(name: str, images: Any, mask: Any) -> Array:
    """The images as floating-point numbers. Traced ones cannot be looked at."""
    images = jnp.asarray(images)
    if images.ndim < 2 or 0 in images.shape:
        raise InputError(f"{name}: images of shape {images.shape}; expected (..., y, x)")
    if jnp.iscomplexobj(images):
        raise InputError(f"{name}: images are complex; give intensities divided by the empty beam")
    images = images if jnp.issubdtype(images.dtype, jnp.floating) else images.astype(jnp.float32)
    try:
        fits = mask is None or np.broadcast_shapes(np.shape(mask), images.shape) == images.shape
    except ValueError:
        fits = False
    if not fits:
        raise InputError(f"{name}: a mask of shape {np.shape(mask)} does not go with images of shape {images.shape}")
    if not isinstance(images, Tracer) and not bool(_finite(images, mask)):
        raise InputError(
            f"{name}: there are NaN or infinite pixels in the images; correct them, or give a mask that is False there"
        )
    return images


@jax.jit
def _finite(images: Array, mask: Any) -> Array:
    if mask is None:  # a sum is quicker to look through than an image, and only overflows where something is wrong
        return jnp.isfinite(jnp.sum(images))
    return jnp.all(jnp.isfinite(images) | ~jnp.asarray(mask, bool))


def fresnel_numbers(
    name: str, images: Array, pixel_size: Any, wavelength: Any, distances: Any
) -> Float[np.ndarray, "distance 2"]:
    """Compute the Fresnel numbers of a pixel, for each distance, along y and x."""
    try:
        lengths = np.asarray([np.broadcast_to(np.asarray(d, float), (2,)) for d in distances])
        pixel = np.broadcast_to(np.asarray(pixel_size, float), (2,))
    except (TypeError, ValueError):
        raise InputError(
            f"{name}: distances = {distances!r}; expected numbers [m], or pairs (vertical, horizontal)"
        ) from None
    if not (len(lengths) and np.isfinite(lengths).all() and (lengths != 0).all()):
        raise InputError(
            f"{name}: distances = {distances!r} are to be finite and not zero [m]: a contact image has no "
            "phase contrast"
        )
    for word, value in (("pixel_size", pixel), ("wavelength", wavelength)):
        if not (np.all(np.isfinite(value)) and np.all(np.asarray(value) > 0)):
            raise InputError(f"{name}: {word} must be positive and finite [m]")
    if images.ndim < 3 or images.shape[-3] != len(lengths):
        raise InputError(
            f"{name}: images of shape {images.shape} for {len(lengths)} distances; expected (distance, y, x)"
        )
    return pixel**2 / (float(wavelength) * lengths)


def _mixing(name: str, delta_beta: float | None) -> tuple[tuple[float, float], ...]:
    """Find for each unknown the factors of `2 sin(chi)` and of `2 cos(chi)` in its contrast."""
    if delta_beta is None:
        return ((1.0, 0.0), (0.0, -1.0))
    if not delta_beta > 0:
        raise InputError(f"{name}: delta/beta = {delta_beta} is to be positive (inf for a pure phase object)")
    return ((1.0, 1 / delta_beta),)


# ---------------------------------------------------------------------------------------------------- solve
def _solve(
    images: Array, numbers: np.ndarray, mixing: Any, regularisation: Any, outside: str, mask: Any
) -> tuple[Float[Array, "... unknown y x"], Regularisation]:
    """The linear model, regularised, for contrast over the empty beam."""
    size = (images.shape[-2], images.shape[-1])
    shape = grid(size, outside)
    mixed = jnp.asarray(mixing, images.dtype)
    split = float(np.sqrt(abs(1 / np.mean(1 / numbers)) / 2))
    used = chosen(regularisation, size, outside, images, numbers, mixing, split)
    waves = waves_of(shape, outside, numbers, images.dtype)
    if mask is None and outside != "unmeasured":
        return _direct(images, waves, mixed, used, shape, outside)
    mask = jnp.ones(size, bool) if mask is None else jnp.asarray(mask, bool)
    return _fitted(images, mask, waves, mixed, used, shape, outside)


def chosen(
    regularisation: Any,
    size: tuple[int, int],
    outside: str,
    images: Array,
    numbers: np.ndarray,
    mixing: Any,
    split: float,
) -> "Regularisation | Samples":
    """Resolve what was given as regularisation, or what it is to be learnt from."""
    if isinstance(regularisation, Regularisation):
        return regularisation
    if not isinstance(regularisation, str):
        return given(regularisation, 1 if isinstance(mixing, str) else len(mixing), split, images.dtype)
    if regularisation != "auto":
        raise InputError(f'regularisation = {regularisation!r} is not known; the only word is "auto"')
    found = rings(size, outside, max(1, int(np.prod(images.shape[:-3]))))
    return Samples.of(found, numbers, mixing, images.dtype)


class Waves(eqx.Module):
    """`exp(i chi_j)` as an outer product: factors of rows `(distance, Y)` and of columns `(distance, X)`; `scale` = one
    over 2 pi Fresnel numbers (mean of both axes)."""

    rows: Array
    columns: Array
    scale: Array


def waves_of(shape: tuple[int, int], outside: str, numbers: np.ndarray, dtype: Any) -> Waves:
    """On the spectrum of a field, for Fresnel numbers `(distance, 2)`; phases in float64."""
    factor = lambda f, along: jnp.asarray(np.exp(1j * np.remainder(np.pi * f**2 / along[:, None], 2 * np.pi)), kind)
    kind = jnp.complex128 if dtype == jnp.float64 else jnp.complex64
    fy, fx = frequencies(shape, outside)
    scale = np.mean(1 / (2 * np.pi * numbers), 1)
    return Waves(factor(fy, numbers[:, 0]), factor(fx, numbers[:, 1]), jnp.asarray(scale, dtype))


def transfer(waves: Waves, j: int, sine: Any, cosine: Any) -> Array:
    """`2 (sine sin(chi_j) + cosine cos(chi_j))`, transposed as spectra are."""
    wave = waves.columns[j][:, None] * waves.rows[j][None, :]
    return 2 * (sine * wave.imag + cosine * wave.real)


def square_of(shape: tuple[int, int], outside: str, dtype: Any) -> Array:
    """Squared frequencies [1/pixel^2] of a spectrum."""
    fy, fx = frequencies(shape, outside)
    return jnp.asarray(fx**2, dtype)[:, None] + jnp.asarray(fy**2, dtype)[None, :]


class Samples(eqx.Module):
    """What a regularisation is learnt from: places in the spectrum, the transfer there, and the rings."""

    place: Array
    response: Float[Array, "distance unknown ring sample"]
    valid: Float[Array, "ring sample"]
    centre: Float[Array, " ring"]
    lowest: Float[Array, ""]

    @classmethod
    def of(cls, known: Any, numbers: np.ndarray, mixing: Any, dtype: Any) -> "Samples":
        """Make the response of rings, for the contrast transfer at Fresnel numbers `(distance, 2)`: of the unknowns of
        `mixing`; or `2 chi` for `"transport"` of intensity; or 1 for a `"contact"` image.
        """
        chi = np.pi * (known.rows**2 / numbers[:, 0, None, None] + known.columns**2 / numbers[:, 1, None, None])
        part = lambda sine, cosine: sine * np.sin(chi) + cosine * np.cos(chi)
        special = {"transport": lambda: chi[:, None], "contact": lambda: np.full_like(chi[:, None], 0.5)}
        response = 2 * (special[mixing]() if isinstance(mixing, str) else np.stack([part(*m) for m in mixing], 1))
        cast = lambda a: jnp.asarray(a, dtype)
        return cls(jnp.asarray(known.place), cast(response), cast(known.valid), cast(known.centre), cast(known.lowest))

    def learn(self, spectra: Array, pixels: float, lowest_noise: bool = False) -> LearntPower:
        """The regularisation for spectra `(..., distance, X, Y)` of variance `pixels` for white noise of variance 1."""
        *_, count, columns, rows = spectra.shape
        found = spectra.reshape(-1, count, columns * rows)[:, :, self.place] / np.sqrt(pixels)
        # Views become further samples of each ring.
        views = found.shape[0]
        wide = lambda a: jnp.tile(a, views)
        found = jnp.moveaxis(found, 0, -2).reshape(*found.shape[1:3], -1)
        return learnt(found, wide(self.response), wide(self.valid), self.centre, self.lowest, lowest_noise)


def _response(waves: Waves, mixed: Array, j: int) -> list[Array]:
    """The contrast transfer of each unknown in image j."""
    return [transfer(waves, j, sine, cosine) for sine, cosine in mixed]


def _normal(waves: Any, mixed: Array, regularisation: Regularisation, shape: Any, outside: str) -> tuple[dict, Array]:
    """The matrix of the normal equations of every frequency, and the weights of the images."""
    unknowns, count = len(mixed), len(waves.rows)
    weights = regularisation.weights(count)
    matrix: dict[tuple[int, int], Array] = {}
    floor = regularisation.floor(square_of(shape, outside, mixed.dtype))
    for u in range(unknowns):
        matrix |= {(u, v): floor[u] if u == v else jnp.zeros_like(floor[u]) for v in range(u, unknowns)}
    for j in range(count):
        transfer = _response(waves, mixed, j)
        matrix = {(u, v): m + weights[j] * transfer[u] * transfer[v] for (u, v), m in matrix.items()}
    return matrix, weights


@partial(jax.jit, static_argnames=("shape", "outside"))
def _direct(images: Array, waves: Any, mixed: Array, used: Any, shape: Any, outside: str) -> Any:
    contrast = extended(images - 1, shape, outside)
    spectra = [spectrum(contrast[..., j, :, :], outside) for j in range(images.shape[-3])]
    if isinstance(used, Samples):
        used = used.learn(jnp.stack(spectra, -3), pixels_of(images.shape[-2:], outside))
    matrix, weights = _normal(waves, mixed, used, shape, outside)
    right = [jnp.zeros((), spectra[0].dtype)] * len(mixed)
    for j, values in enumerate(spectra):
        transfer = _response(waves, mixed, j)
        right = [r + weights[j] * t * values for r, t in zip(right, transfer, strict=True)]
    solution, _ = solved(matrix, right)
    return jnp.stack([from_spectrum(s, shape, outside, images.shape[-2:]) for s in solution], -3), used


@partial(jax.jit, static_argnames=("shape", "outside"))
def _fitted(images: Array, mask: Array, waves: Any, mixed: Array, used: Any, shape: Any, outside: str) -> Any:
    """The maps that fit the measured pixels alone, by conjugate gradients from the solution of filled images.

    The preconditioner is the inverse for images without a gap, so that a first step is the usual way to fill a gap
    with what the model predicts there.
    """
    count = images.shape[-3]
    whole = filled(jnp.where(mask, images - 1, 0), mask)
    start, used = _direct(whole + 1, waves, mixed, used, shape, outside)
    matrix, weights = _normal(waves, mixed, used, shape, outside)
    floor = used.floor(square_of(shape, outside, mixed.dtype))
    seen = jnp.broadcast_to(measured(mask, shape, outside, images.dtype), (*images.shape[:-2], *shape))
    data = extended(whole, shape, outside)
    to_image = lambda values: from_spectrum(values, shape, outside, shape)
    mapped = lambda values: jnp.stack([to_image(v) for v in values], -3)
    spectra = lambda maps: [spectrum(maps[..., u, :, :], outside) for u in range(len(mixed))]

    def back(image_of: Any) -> list[Array]:
        total: list[Any] = [0.0] * len(mixed)
        for j in range(count):
            values = spectrum(image_of(j) * seen[..., j, :, :], outside)
            total = [t + weights[j] * r * values for t, r in zip(total, _response(waves, mixed, j), strict=True)]
        return total

    def operate(maps: Array) -> Array:
        inside = spectra(maps)
        contrast = lambda j: sum(r * s for r, s in zip(_response(waves, mixed, j), inside, strict=True))
        total = back(lambda j: to_image(contrast(j)))
        return mapped([t + f * s for t, f, s in zip(total, floor, inside, strict=True)])

    right = mapped(back(lambda j: data[..., j, :, :]))
    invert = lambda residual: mapped(solved(matrix, spectra(residual))[0])
    each = lambda a, b: jnp.sum(a * b, (-3, -2, -1), keepdims=True)
    first = extended(start, shape, outside)
    found = conjugate_gradients(operate, right, x0=first, precondition=invert, steps=_STEPS, dot=each)[0]
    return found[..., : images.shape[-2], : images.shape[-1]], used
