"""Holotomography in two steps: the phase of each angle by the contrast transfer functions, then back-projection; and
the place of every frame, by comparing it with what the volume predicts."""

from collections.abc import Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import prepare, solvers
from .._console import Console
from ..errors import InputError
from ..models import HoloTomography
from ..solvers._phase import ctf_response

__all__ = ["PowerLaw", "PhaseRetrieval", "back_project", "blocks", "centred", "information", "place_frames", "two_step"]


# ---------------------------------------------------------------------------------------------------- what is expected
class PowerLaw(eqx.Module):
    """Power of an image or volume, `level * f^slope` for each frequency f [cycles/pixel] of its transform
    (`norm="ortho"`)."""

    level: float
    slope: float

    def __call__(self, frequency: np.ndarray) -> np.ndarray:
        return self.level * frequency**self.slope

    @classmethod
    def fit(cls, power: np.ndarray, frequency: np.ndarray, usable: np.ndarray | None = None) -> "PowerLaw":
        """Through the means of `power` over 24 shells of the frequency, which may be negative where noise has been
        subtracted; up to the first shell that is not known."""
        edges = np.geomspace(frequency[frequency > 0].min() * 0.999, frequency.max() * 1.001, 25)
        shell, count = np.digitize(frequency, edges).ravel(), 26
        weight = np.ones(power.size) if usable is None else usable.ravel().astype(float)
        total = np.bincount(shell, weight, count)
        mean = lambda a: np.bincount(shell, weight * a.ravel(), count) / np.maximum(total, 1e-12)
        level, centre = mean(power), mean(frequency)
        known = (total > 0) & (level > 0) & (centre > 0)
        inside = np.flatnonzero(total > 0)
        holes = [i for i in inside if not known[i] and known[inside[0] : i].sum() >= 4]
        if holes:
            known[holes[0] :] = False
        if known.sum() < 3:
            return cls(1e-6, -3.0)
        rows = np.stack([np.log(centre[known]), np.ones(known.sum())], 1)
        pull = np.sqrt(np.minimum(total[known], 50))
        slope, height = np.linalg.lstsq(rows * pull[:, None], np.log(level[known]) * pull, rcond=None)[0]
        slope_kept = float(np.clip(slope, -7.0, -1.0))
        height += (slope - slope_kept) * float(np.average(rows[:, 0], weights=pull**2))
        return cls(float(np.exp(height)), slope_kept)


def radial_frequency(shape: tuple[int, ...]) -> np.ndarray:
    """|f| [cycles/pixel] on the half space of `rfftn`; the zero frequency counts as half of the first."""
    axes = [np.fft.fftfreq(n) for n in shape[:-1]] + [np.fft.rfftfreq(shape[-1])]
    square = sum(f.reshape([-1 if a == i else 1 for a in range(len(shape))]) ** 2 for i, f in enumerate(axes))
    return np.maximum(np.sqrt(np.asarray(square)), 0.5 / max(shape))


# ---------------------------------------------------------------------------------------------------- phases
class PhaseRetrieval(eqx.Module):
    """Holograms of an angle to the maps of a projection by least squares on the contrast transfer functions, every
    distance weighted by its counts, the power of the object as prior (Wiener).

    **Fields:** `kernels` `(map, distance, Y, X//2+1)`: one map, delta, of a single material; or delta and B;
    `canvas`: the plane on which it works, vacuum around the sample.
    """

    kernels: Float[Array, "map distance Y F"]
    canvas: tuple[int, int] = eqx.field(static=True)

    @classmethod
    def of(cls, model: HoloTomography, data: Mapping[str, Any], angles: np.ndarray, general: bool) -> "PhaseRetrieval":
        """With the power of the phase measured in some of the angles."""
        window = (model.delta.shape[0], model.delta.shape[2])
        canvas = tuple(g - (g - w) % 2 for g, w in zip(model.grid, window, strict=True))
        canvas = (canvas[0], canvas[1])
        sine, cosine, weights = transfer(model, canvas)
        single = sine if general else sine + cosine / float(model.delta_beta)
        some = angles[np.unique(np.linspace(0, angles.size - 1, 24).astype(int))]
        images = contrast(model, jnp.asarray(data["counts"][some]), jnp.asarray(data["mask"]), some, canvas)
        spectra = np.fft.rfft2(np.asarray(images, float), norm="ortho")
        safe = (weights * single**2).sum(0)
        seen = (weights * single * spectra).sum(1)
        frequency = radial_frequency(canvas)
        known = safe > 0.02 * safe.max()
        power = ((np.abs(seen) ** 2).mean(0) - safe) / np.maximum(safe, 1e-9 * safe.max()) ** 2
        expected = PowerLaw.fit(power, frequency, known)(frequency)
        if not general:
            kernels = (weights * single / (safe + 1 / expected))[None]
        else:
            # Contrast is 2 sin phase - 2 cos B; B is expected to be a hundredth of the phase, as hard X-rays have it.
            a, b = (weights * sine * cosine).sum(0), safe + 1 / expected
            c = (weights * cosine**2).sum(0) + 1e4 / expected
            kernels = weights * np.stack([c * sine - a * cosine, a * sine - b * cosine]) / (b * c - a**2)
        kernels[0] *= -1  # delta is the negative phase
        return cls(jnp.asarray(kernels, model.delta.dtype), canvas)

    def __call__(self, model: HoloTomography, data: Mapping[str, Any], angles: np.ndarray) -> np.ndarray:
        """Line integrals of delta [rad] (and B) of some angles, about the rotation axis, `(map, angle, z, x)`; frames
        are read in blocks of angles."""
        mask = jnp.asarray(data["mask"])
        parts = [np.asarray(_retrieved(self, model, jnp.asarray(data["counts"][part]), mask, part))
                 for part in blocks(model, angles)]
        return np.concatenate(parts, 1)


@eqx.filter_jit
def _retrieved(retrieval: PhaseRetrieval, model: HoloTomography, counts: Array, mask: Array, angles: Any) -> Array:
    images = contrast(model, counts, mask, angles, retrieval.canvas)
    maps = jnp.einsum("adyx,mdyx->mayx", jnp.fft.rfft2(images), retrieval.kernels)
    maps = jnp.fft.irfft2(maps, s=retrieval.canvas)
    cut = [slice((c - w) // 2, (c - w) // 2 + w)
           for c, w in zip(retrieval.canvas, (model.delta.shape[0], model.delta.shape[2]), strict=True)]
    return maps[..., cut[0], cut[1]]


def transfer(model: HoloTomography, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`2 sin(chi)` and `2 cos(chi)` times the pixel's own transfer, `(distance, y, x//2+1)`, and counts of a distance
    on a pixel of the volume `(distance, 1, 1)`."""
    pixels, distances = np.asarray(model.pixels), np.asarray(model.distances, float)
    # A cone beam that differs between the axes is taken at its mean here; the model knows better.
    numbers = [model.pixel_size**2 / (model.wavelength * d.mean()) for d in distances]
    sine, cosine = ctf_response(shape, numbers)
    ratio = pixels / model.pixel_size
    box = (np.sinc(ratio[:, 0, None] * np.fft.fftfreq(shape[0]))[:, :, None]
           * np.sinc(ratio[:, 1, None] * np.fft.rfftfreq(shape[1]))[:, None])
    counts = np.broadcast_to(np.asarray(model.flux, float).mean((1, 2)), (len(pixels),)) / ratio.prod(1)
    return sine * box, cosine * box, counts[:, None, None]


def contrast(model: HoloTomography, counts: Array, mask: Array, angles: Any, canvas: tuple[int, int]) -> Array:
    """`counts / empty beam - 1` about the rotation axis on the volume's pixels, by cubic interpolation, `(angle,
    distance, Y, X)`; zero where nothing was seen."""
    dtype = model.delta.dtype
    beam = jnp.maximum(model.gain[angles][..., None, None] * model.flux, 1e-6)
    images = jnp.where(mask, (counts.astype(dtype) - model.dark) / beam - 1, 0)
    places = model.shifts[angles] + jnp.stack([jnp.zeros_like(model.centre), model.centre])

    def one(image: Array, place: Array, ratio: Array) -> Array:
        rows, columns = (_cubic(canvas[a], model.frame[a], ratio[a], place[a]) for a in (0, 1))
        return jnp.matmul(jnp.matmul(rows, image, precision="highest"), columns.T, precision="highest")

    ratios = jnp.asarray(np.asarray(model.pixels) / model.pixel_size, dtype)
    return jax.vmap(jax.vmap(one), in_axes=(0, 0, None))(images, places, ratios)


def _cubic(size: int, count: int, ratio: Array, shift: Array) -> Array:
    """Matrix of cubic convolution (Keys 1981) from `count` detector pixels to `size` pixels of the volume."""
    place = (np.arange(size) - (size - 1) / 2 + shift) / ratio + (count - 1) / 2
    d = jnp.abs(place[:, None] - np.arange(count)[None])
    return jnp.where(d < 1, 1.5 * d**3 - 2.5 * d**2 + 1, jnp.where(d < 2, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2, 0))


def blocks(model: HoloTomography, angles: np.ndarray) -> Iterator[np.ndarray]:
    """Angles in blocks of equal size whose frames on the grid take some 256 MB; the last one may be shorter."""
    frame = 8.0 * np.prod(model.grid, dtype=float) * len(model.pixels)
    size = max(1, int(2**28 // frame))
    for start in range(0, angles.size, size):
        yield angles[start : start + size]


# ---------------------------------------------------------------------------------------------------- places
@eqx.filter_jit
def _steps(model: HoloTomography, projections: Array, counts: Array, mask: Array, angles: Any) -> tuple[Array, Array]:
    """Gauss-Newton steps of shifts and gain of every frame by itself, `(angle, distance, 3)`, and how sharp its
    likelihood is along each."""
    def frames(shifts: Array) -> Array:
        return model.replace(shifts=model.shifts.at[angles].set(shifts)).frames(projections, angles)

    shifts = model.shifts[angles]
    along = [jnp.zeros_like(shifts).at[..., axis].set(1) for axis in (0, 1)]
    # Each frame has shifts of its own: one derivative along all of them is that of every one.
    predicted, rows = jax.jvp(frames, (shifts,), (along[0],))
    columns = jax.jvp(frames, (shifts,), (along[1],))[1]
    slopes = jnp.stack([rows, columns, predicted - model.dark], -1)
    weight = jnp.where(mask, 1 / jnp.maximum(predicted, 1), 0)[..., None]
    normal = jnp.einsum("...yxi,...yxj->...ij", slopes * weight, slopes, precision="highest")
    misfit = (counts.astype(predicted.dtype) - predicted)[..., None]
    wanted = jnp.sum(slopes * weight * jnp.where(mask[..., None], misfit, 0), (-3, -2))
    damp = 1e-6 * jnp.eye(3, dtype=normal.dtype) * jnp.diagonal(normal, axis1=-2, axis2=-1)[..., None, :]
    floor = jnp.finfo(normal.dtype).tiny * jnp.eye(3, dtype=normal.dtype)
    step = jnp.linalg.solve(normal + damp + floor, wanted[..., None])[..., 0]
    return jnp.where(jnp.isfinite(step), step, 0), jnp.diagonal(normal, axis1=-2, axis2=-1)


def place_frames(
    model: HoloTomography, data: Mapping[str, Any], angles: np.ndarray, *, shifts: bool = True, gain: bool = True,
    rounds: int = 1, projections: Any = None,
) -> HoloTomography:
    """The model with shifts and gain of the frames of some angles fitted to its volume, which does not change.

    `projections` are made here where they are not given.
    """
    mask = jnp.asarray(data["mask"])
    for part in blocks(model, angles):
        counts = jnp.asarray(data["counts"][part])
        own = _projections(model, part) if projections is None else projections[np.searchsorted(angles, part)]
        for _ in range(rounds):
            step, _ = _steps(model, own, counts, mask, part)
            if shifts:
                model = model.replace(shifts=model.shifts.at[part].add(jnp.clip(step[..., :2], -1.5, 1.5)))
            if gain:
                model = model.replace(gain=model.gain.at[part].multiply(1 + jnp.clip(step[..., 2], -0.5, 0.5)))
    return model


def information(model: HoloTomography, data: Mapping[str, Any], angles: np.ndarray) -> Float[np.ndarray, "angle d 3"]:
    """What each frame of these angles tells of its shifts [1/pixel^2] and of its gain: one over a variance each."""
    model, mask, found = _quiet(model), jnp.asarray(data["mask"]), []
    for part in blocks(model, angles):
        _, sharp = _steps(model, _projections(model, part), jnp.asarray(data["counts"][part]), mask, part)
        found.append(np.asarray(sharp, float))
    told = np.concatenate(found)
    return np.maximum(told, 0.1 * told.mean((0, 1)) + 1e-3)


@eqx.filter_jit
def _projections(model: HoloTomography, angles: Any) -> Array:
    return model.projections(angles)


def centred(model: HoloTomography) -> HoloTomography:
    """The same places, told once: what all frames have moved by along columns, next to a sine of the angle, is the
    centre."""
    theta = np.asarray(model.projector.angles)
    waves = np.stack([np.ones_like(theta), np.cos(theta), np.sin(theta)], 1)
    mean = np.asarray(model.shifts, float)[..., 1].mean(1)
    constant = np.linalg.lstsq(waves, mean, rcond=None)[0][0]
    return model.replace(shifts=model.shifts - jnp.asarray([0.0, constant], model.shifts.dtype),
                         centre=model.centre + constant)


# ---------------------------------------------------------------------------------------------------- both steps
def back_project(model: HoloTomography, lines: np.ndarray, angles: np.ndarray, chosen: Mapping[str, Any]) -> Array:
    """A volume `(z, y, x)` [1/pixel] from line integrals about the axis `(angle, z, x)`."""
    A: Any = model.projector.subset(angles)
    sinogram = jnp.asarray(lines)
    if chosen["second"] == "cgls":
        return solvers.cgls(A, sinogram, steps=chosen["cgls_steps"]).x
    return solvers.fbp(A, sinogram, filter=chosen["filter"])


def two_step(
    model: HoloTomography, data: Mapping[str, Any], angles: np.ndarray, settings: Mapping[str, Any], console: Console
) -> HoloTomography:
    """delta (and beta), and the places of the frames where they are unknown, from the given angles."""
    chosen, solver = settings["model"], settings["solver"]
    general = model.beta is not None
    if chosen["centre"]:
        model = _with_axis(model, data, angles, general, console)
    rounds = solver["align"] if chosen["shifts"] or chosen["centre"] else 0
    for index in range(rounds + 1):
        maps = PhaseRetrieval.of(model, data, angles, general)(model, data, angles)
        model = model.replace(delta=back_project(model, maps[0], angles, solver).astype(model.delta.dtype))
        if general:
            ratio = float(model.delta_beta)
            other = back_project(model, maps[1] - maps[0] / ratio, angles, solver)
            model = model.replace(beta=other.astype(model.delta.dtype))
        if index < rounds:
            before = model
            model = place_frames(_quiet(model), data, angles, shifts=True, gain=chosen["gain"])
            model = centred(model.replace(delta=before.delta, beta=before.beta))
            moved = np.asarray(model.shifts - before.shifts)[angles]
            console.say(f"frames placed on the volume's prediction, round {index + 1}: moved by "
                        f"{np.sqrt(np.mean(moved**2)):.3f} pixel rms; rotation axis at {model.rotation_centre():.2f}")
    return model


def _quiet(model: HoloTomography) -> HoloTomography:
    """With what noise makes of the volume damped: the smooth part alone says where frames are."""
    frequency = [np.exp(-2 * (np.pi * 0.7 * np.fft.fftfreq(n)) ** 2) for n in model.delta.shape]
    kernel = jnp.asarray(frequency[0][:, None, None] * frequency[1][:, None] * frequency[2], model.delta.dtype)
    smooth = lambda v: jnp.fft.ifftn(jnp.fft.fftn(v) * kernel).real
    return model.replace(delta=smooth(model.delta), beta=None if model.beta is None else smooth(model.beta))


def _with_axis(
    model: HoloTomography, data: Mapping[str, Any], angles: np.ndarray, general: bool, console: Console
) -> HoloTomography:
    """The rotation axis where a sinogram of the phase has it."""
    lines = PhaseRetrieval.of(model, data, angles, general)(model, data, angles)[0]
    try:
        found = prepare.find_rotation_centre(lines, np.asarray(model.projector.angles)[angles])
    except InputError as error:  # less than half a turn, or angles too far apart
        console.say(f"rotation axis left where it was: {error}")
        return model
    off = found.centre - (lines.shape[2] - 1) / 2
    model = model.replace(centre=model.centre + off)
    console.say(f"rotation axis at column {model.rotation_centre():.2f} of the finest frames ({found.message})")
    return model
