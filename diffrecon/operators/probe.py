"""The ptychographic probe-object model: patches of an object at sub-pixel positions, incoherent probe modes, the far or
the near field by choice of the propagator.

A view at `position = corner + f` [pixel], corner integer and f within half a pixel, sees the product of the probe
shifted by f and the integer patch at `corner`: the shift is band-limited (a phase ramp in Fourier space), so that it is
exact, differentiable, and that any program can predict the frames from object, probe and positions. In the near field
the wave is shifted back by -f, because the beam, and not the sample, stands still on the detector.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int, Num
from numpy.typing import ArrayLike

from .fourier import blur
from .propagation import propagate

__all__ = [
    "beam_amplitude",
    "bin_pixels",
    "blur_frames",
    "coverage",
    "deposit",
    "exit_waves",
    "extract",
    "far_field",
    "fourier_shift",
    "intensity",
    "near_field",
    "orthogonal_modes",
    "shift_ramps",
    "split_positions",
    "well_lit",
]


def split_positions(positions: Float[Array, "view 2"]) -> tuple[Int[Array, "view 2"], Float[Array, "view 2"]]:
    """Integer corner (row, column) and remainder within half a pixel, `floor(position + 1/2)`; the corner carries no
    gradient.

    ```python
    corner, rest = split_positions(jnp.array([[3.7, 2.2]]))
    ```
    """
    corner = jnp.floor(jax.lax.stop_gradient(positions) + 0.5)
    return corner.astype(jnp.int32), positions - corner


def extract(obj: Num[Array, "Y X"], corners: Int[Array, "view 2"], shape: tuple[int, int]) -> Num[Array, "view y x"]:
    """Cut patches `obj[r:r+y, c:c+x]` at integer corners (row, column); its adjoint adds patches up.

    Corners that would leave the object are moved inside, as jax does with slices: make the object large enough
    (`Ptychography.from_scan` does).

    ```python
    patches = extract(jnp.ones((20, 20)), jnp.array([[0, 0], [5, 7]]), (8, 8))
    ```
    """
    take = lambda corner: jax.lax.dynamic_slice(obj, (corner[0], corner[1]), shape)
    return jax.vmap(take)(corners)


def deposit(
    canvas: Num[Array, "Y X"],
    corners: Int[Array, "view 2"],
    patches: Num[Array, "#view y x"],
    times: Float[Array, " view"] | None = None,
) -> Num[Array, "Y X"]:
    """Add patches to a canvas at integer corners: the adjoint of `extract`.

    **Arguments:** one patch for each view, or one for all, of which no copies are made; `times` multiplies each view's.
    """
    shape = patches.shape[-2:]

    def add(i, canvas):
        start = (corners[i, 0], corners[i, 1])
        patch = patches[i if patches.shape[0] > 1 else 0]
        here = jax.lax.dynamic_slice(canvas, start, shape)
        return jax.lax.dynamic_update_slice(canvas, here + (patch if times is None else times[i] * patch), start)

    return jax.lax.fori_loop(0, corners.shape[0], add, canvas)


def shift_ramps(shift: Float[Array, "view 2"], shape: tuple[int, int]) -> Complex[Array, "view y x"]:
    """Give Fourier phase ramps `exp(-2 pi i f . shift)` that shift by `shift` [pixel] towards larger indices."""
    dtype = jnp.result_type(shift)
    fy, fx = (jnp.asarray(-2 * np.pi * np.fft.fftfreq(n), dtype) for n in shape)
    rows = jnp.exp(1j * shift[:, 0, None] * fy)
    columns = jnp.exp(1j * shift[:, 1, None] * fx)
    return rows[:, :, None] * columns[:, None, :]


def fourier_shift(image: Num[Array, "*batch y x"], shift: Float[Array, "2"]) -> Complex[Array, "*batch y x"]:
    """Shift periodic images, band-limited, by (row, column) [pixel]; differentiable in both.

    ```python
    image = jnp.zeros((8, 8), jnp.complex64).at[2, 2].set(1)
    assert jnp.allclose(fourier_shift(image, jnp.array([1.0, 0.0]))[3, 2], 1, atol=1e-6)
    ```
    """
    ramp = shift_ramps(jnp.asarray(shift)[None], (image.shape[-2], image.shape[-1]))[0]
    return jnp.fft.ifft2(jnp.fft.fft2(image) * ramp)


def intensity(waves: Complex[Array, "view mode y x"]) -> Float[Array, "view y x"]:
    """Sum the modes' intensities."""
    return jnp.sum(waves.real**2 + waves.imag**2, axis=-3)


def bin_pixels(images: Float[Array, "*batch y x"], factor: int) -> Float[Array, "*batch r c"]:
    """Sum blocks of factor x factor pixels: what a detector pixel does with the intensity inside it.

    ```python
    assert bin_pixels(jnp.ones((4, 6)), 2).shape == (2, 3)
    ```
    """
    if factor == 1:
        return images
    *batch, rows, columns = images.shape
    return images.reshape(*batch, rows // factor, factor, columns // factor, factor).sum((-3, -1))


def blur_frames(frames: Float[Array, "*batch y x"], width: Any) -> Float[Array, "*batch y x"]:
    """Frames seen through a Gaussian point spread function of standard deviation `width` [pixel] (one, or vertical and
    horizontal), periodic borders: a detector's blur, or the penumbra of a source.

    Differentiable in the width; its derivative vanishes at width zero, so start from a fraction of a pixel. Cost: one
    real FFT and its inverse a frame.

    ```python
    frames = jnp.zeros((16, 16)).at[8, 8].set(1.0)
    assert jnp.allclose(blur_frames(frames, 1.0).sum(), 1.0, atol=0.02)
    ```
    """
    # A narrow Gaussian ends abruptly at the highest frequency: beside bright spots it would ring below zero.
    return jnp.maximum(blur(frames, width), 0)


def exit_waves(
    obj: Complex[Array, "*slice Y X"],
    probe: Complex[Array, "*view mode y x"],
    corners: Int[Array, "view 2"],
    ramps: Complex[Array, "view y x"],
    between: Complex[Array, "y x"] | None = None,
) -> Complex[Array, "view mode y x"]:
    """Probe shifted by the remainder, times the object's patch; with slices, times each and propagated in between
    (Maiden, Humphry & Rodenburg 2012, eq. 2-4).

    **Arguments:** `probe` the same for all views `(mode, y, x)` or one for each `(view, mode, y, x)`; `between`: the
    transfer function from one slice to the next.
    """
    shape = (probe.shape[-2], probe.shape[-1])
    wave = jnp.fft.ifft2(jnp.fft.fft2(probe) * ramps[:, None])
    slices = obj.reshape(-1, *obj.shape[-2:])
    for number in range(slices.shape[0]):
        if between is not None and number:
            wave = propagate(wave, between)
        wave = extract(slices[number], corners, shape)[:, None] * wave
    return wave


def far_field(
    obj: Complex[Array, "*slice Y X"],
    probe: Complex[Array, "*view mode y x"],
    positions: Float[Array, "view 2"],
    between: Complex[Array, "y x"] | None = None,
) -> Complex[Array, "view mode y x"]:
    """Give far-field waves of some views (zero frequency at the corner), `fraunhofer(shift(probe, f) * patch)`.

    **Arguments:** `positions` (row, column) [pixel] of the patches' corners in the object; `between` as in
    `exit_waves`.

    Cost: two FFTs a view and mode, two more for each further slice.
    """
    corners, rest = split_positions(positions)
    ramps = shift_ramps(rest, (probe.shape[-2], probe.shape[-1]))
    return jnp.fft.fft2(exit_waves(obj, probe, corners, ramps, between), norm="ortho")


def near_field(
    obj: Complex[Array, "*slice Y X"],
    probe: Complex[Array, "*view mode y x"],
    positions: Float[Array, "view 2"],
    transfer: Complex[Array, "*view y x"],
    between: Complex[Array, "y x"] | None = None,
) -> Complex[Array, "view mode y x"]:
    """Give near-field waves of some views, `shift(propagate(shift(probe, f) * patch), -f)`.

    **Arguments:** `transfer` is a Fresnel transfer function of the probe's shape, for all views or one for each;
    `positions` and `between` as for `far_field`.

    Cost: three FFTs a view and mode (the shift back shares the propagation's), two more for each further slice.
    """
    corners, rest = split_positions(positions)
    ramps = shift_ramps(rest, (probe.shape[-2], probe.shape[-1]))
    spectrum = jnp.fft.fft2(exit_waves(obj, probe, corners, ramps, between))
    return jnp.fft.ifft2(spectrum * (transfer * jnp.conj(ramps))[:, None])


def coverage(
    probe: Complex[Array, "mode y x"], positions: Float[Array, "view 2"], shape: tuple[int, int], times: Any = 1.0
) -> Float[Array, "Y X"]:
    """Sum the probe's intensity on the object over views: how well each object pixel was seen.

    **Arguments:** `shape` of the object; `times` multiplies each view (gain).
    """
    corners, _ = split_positions(positions)
    seen = jnp.sum(jnp.abs(probe) ** 2, axis=0)
    weights = jnp.broadcast_to(jnp.asarray(times, seen.dtype), (positions.shape[0],))
    return deposit(jnp.zeros(shape, seen.dtype), corners, seen[None], weights)


def well_lit(light: ArrayLike) -> Bool[np.ndarray, "..."]:
    """Find the pixels that got at least a tenth of the 95th percentile of the light.

    ```python
    assert well_lit([0.0, 5.0, 100.0, 100.0]).tolist() == [False, False, True, True]
    ```
    """
    light = np.asarray(light)
    return light > 0.1 * np.percentile(light, 95)


def beam_amplitude(probe: Complex[Array | np.ndarray, "mode y x"]) -> float:
    """Give the amplitude of a beam where its light is: the root of the intensity's mean, weighted by the intensity.

    ```python
    assert abs(beam_amplitude(jnp.zeros((1, 8, 8), complex).at[0, 2:4].set(3.0)) - 3.0) < 1e-5
    ```
    """
    light = abs(np.asarray(probe)) ** 2
    return float(np.sqrt(np.sum(light**2) / np.sum(light)))


def orthogonal_modes(probe: Complex[Array | np.ndarray, "mode y x"]) -> Complex[np.ndarray, "mode y x"]:
    """Give the same partially coherent beam in orthogonal modes, strongest first (Thibault & Menzel 2013).

    The intensities predicted with any object stay as they are.
    """
    modes = np.asarray(probe)
    flat = modes.reshape(len(modes), -1)
    _, vectors = np.linalg.eigh(flat @ np.conj(flat).T)
    return (np.conj(vectors[:, ::-1]).T @ flat).reshape(modes.shape)
