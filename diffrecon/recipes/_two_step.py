"""Holotomography in two steps: the phase of each angle by the contrast transfer functions, then back-projection; and
the place of every frame, by comparing it with what the volume predicts."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from .. import prepare, sharding, solvers
from .._console import Console
from ..errors import InputError
from ..frames import Entries
from ..models import HoloTomography
from ..motion import fix_gauge
from ..priors import PowerLaw, radial_frequency
from ..solvers.direct.phase import ctf_response

__all__ = [
    "PhaseRetrieval",
    "agreed",
    "back_project",
    "blocks",
    "centred",
    "everywhere",
    "information",
    "over_angles",
    "place_frames",
    "projections_of",
    "registered",
    "retrieved",
    "say_moved",
    "transfer",
    "two_step",
    "with_axis",
]


# ---------------------------------------------------------------------------------------------------- phases
class PhaseRetrieval(eqx.Module):
    """Holograms of an angle to the maps of a projection by least squares on the contrast transfer functions, every
    distance weighted by its counts, the power of the object as prior (Wiener).

    **Fields:** `kernels` `(map, distance, Y, X//2+1)`: one map, delta, of a single material; or delta and B; `power`
    of the phase [rad], as measured; `canvas`: the plane on which it works, vacuum around the sample.
    """

    kernels: Float[Array, "map distance Y F"]
    power: PowerLaw
    canvas: tuple[int, int] = eqx.field(static=True)

    @classmethod
    def of(cls, model: HoloTomography, data: Mapping[str, Any], angles: np.ndarray, general: float) -> "PhaseRetrieval":
        """With the power of the phase measured in some of the angles; `general`: the size of B beside the phase that is
        expected, 0 for one material."""
        window = (model.delta.shape[0], model.delta.shape[2])
        canvas = tuple(g - (g - w) % 2 for g, w in zip(model.grid, window, strict=True))
        canvas = (canvas[0], canvas[1])
        sine, cosine, weights = transfer(model, canvas)
        single = sine if general else sine + cosine / float(model.delta_beta)
        some = angles[np.unique(np.linspace(0, angles.size - 1, 24).astype(int))]
        safe, seen = (weights * single**2).sum(0), 0.0
        for angle in some[:, None]:  # one at a time: spectra are large
            images = _contrast(model, jnp.asarray(data["counts"][angle]), jnp.asarray(data["mask"]), angle, canvas)[0]
            spectra = np.fft.rfft2(np.asarray(images, float), norm="ortho")
            seen = seen + np.abs((weights * single * spectra).sum(0)) ** 2 / some.size
        frequency = radial_frequency(canvas, zero=0.5)
        known = safe > 0.02 * safe.max()
        # Noise is where a frame is; the rest of the canvas is taken as vacuum.
        fields = np.asarray(model.pixels) / model.pixel_size * np.asarray(model.frame)
        cover = np.minimum(fields / np.asarray(canvas), 1).prod(1)[:, None, None]
        noise = (weights * single**2 * cover).sum(0)
        power = (seen - noise) / np.maximum(safe, 1e-9 * safe.max()) ** 2
        law = PowerLaw.fit(power, frequency, usable=known)
        expected = law(frequency)
        if not general:
            kernels = (weights * single / (safe + 1 / expected))[None]
        else:
            # Contrast is 2 sin phase - 2 cos B.
            a, b = (weights * sine * cosine).sum(0), safe + 1 / expected
            c = (weights * cosine**2).sum(0) + 1 / (general**2 * expected)
            kernels = weights * np.stack([c * sine - a * cosine, a * sine - b * cosine]) / (b * c - a**2)
        kernels[0] *= -1  # delta is the negative phase
        return cls(jnp.asarray(kernels, model.delta.dtype), law, canvas)

    def power_of_volume(self, model: HoloTomography) -> PowerLaw:
        """Of delta [rad/pixel]: a projection is a plane of its transform; the canvas around it held nothing."""
        slices, side, _ = model.delta.shape
        return PowerLaw(self.power.level * self.canvas[0] * self.canvas[1] / (slices * side * side), self.power.slope)

    def __call__(self, model: HoloTomography, data: Mapping[str, Any], angles: np.ndarray) -> np.ndarray:
        """Line integrals of delta [rad] (and B) of some angles, about the rotation axis, `(map, angle, z, x)`."""
        return np.moveaxis(over_angles(retrieved, (self, model), data, angles), 1, 0)


def expected_beta(model: HoloTomography, chosen: Mapping[str, Any]) -> float:
    """Size of the absorption beside delta that is expected; 0 where it has no volume."""
    if model.beta is None:
        return 0.0
    if not float(chosen["beta_scale"]) > 0:
        raise InputError(f"model.beta_scale = {chosen['beta_scale']:g} is to be positive")
    return float(chosen["beta_scale"])


def retrieved(tree: Any, angles: Array, counts: Array, mask: Array) -> Array:
    retrieval, model = tree
    images = contrast(model, counts, mask, angles, retrieval.canvas)
    maps = jnp.einsum("adyx,mdyx->amyx", jnp.fft.rfft2(images), retrieval.kernels)
    maps = jnp.fft.irfft2(maps, s=retrieval.canvas)
    cut = [
        slice((c - w) // 2, (c - w) // 2 + w)
        for c, w in zip(retrieval.canvas, (model.delta.shape[0], model.delta.shape[2]), strict=True)
    ]
    return maps[..., cut[0], cut[1]]


def transfer(model: HoloTomography, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`2 sin(chi)` and `2 cos(chi)` times the pixel's own transfer, `(distance, y, x//2+1)`, and counts of a distance
    on a pixel of the volume `(distance, 1, 1)`."""
    pixels, distances = np.asarray(model.pixels), np.asarray(model.distances, float)
    # A cone beam that differs between the axes is taken at its mean here; the model knows better.
    numbers = [model.pixel_size**2 / (model.wavelength * d.mean()) for d in distances]
    sine, cosine = ctf_response(shape, numbers)
    ratio = pixels / model.pixel_size
    box = (
        np.sinc(ratio[:, 0, None] * np.fft.fftfreq(shape[0]))[:, :, None]
        * np.sinc(ratio[:, 1, None] * np.fft.rfftfreq(shape[1]))[:, None]
    )
    counts = np.broadcast_to(np.asarray(model.flux, float).mean((1, 2)), (len(pixels),)) / ratio.prod(1)
    return sine * box, cosine * box, counts[:, None, None]


def contrast(model: HoloTomography, counts: Array, mask: Array, angles: Any, canvas: tuple[int, int]) -> Array:
    """`counts / empty beam - 1` about the rotation axis on the volume's pixels, `(angle, distance, Y,
    X)`; zero where nothing was seen, but for defects of a few pixels."""
    dtype = model.delta.dtype
    beam = jnp.maximum(model.gain[angles][..., None, None] * model.flux, 1e-6)
    images = jnp.where(mask, (counts.astype(dtype) - model.dark) / beam - 1, 0)
    images = jax.lax.cond(mask.all(), lambda x: x, lambda x: _mended(x, mask), images)
    places = model.shifts[angles] + jnp.stack([jnp.zeros_like(model.centre), model.centre])

    def one(image: Array, place: Array, ratio: Array) -> Array:
        rows, columns = (_lanczos(canvas[a], model.frame[a], ratio[a], place[a]) for a in (0, 1))
        return jnp.matmul(jnp.matmul(rows, image, precision="highest"), columns.T, precision="highest")

    ratios = jnp.asarray(np.asarray(model.pixels) / model.pixel_size, dtype)
    return jax.vmap(jax.vmap(one), in_axes=(0, 0, None))(images, places, ratios)


_contrast = eqx.filter_jit(contrast)


def _mended(images: Array, mask: Array) -> Array:
    """Masked pixels with the mean of the good ones at most two away, where there are any."""

    def around(values: Array) -> Array:
        for axis in (-2, -1):
            reach = [(2, 2) if i == values.ndim + axis else (0, 0) for i in range(values.ndim)]
            padded, size = jnp.pad(values, reach), values.shape[axis]
            values = jnp.stack([jax.lax.slice_in_dim(padded, k, k + size, axis=axis) for k in range(5)]).sum(0)
        return values

    good = mask.astype(images.dtype)
    return jnp.where(mask, images, around(images * good) / jnp.maximum(around(good), 1))


def _lanczos(size: int, count: int, ratio: Array, shift: Array, lobes: int = 4) -> Array:
    """Matrix of interpolation from `count` detector pixels to `size` pixels of the volume by a windowed sinc (Duchon,
    J. Appl. Meteorol. 18, 1016 (1979)): cubic convolution would take half of the finest details' power."""
    place = (np.arange(size) - (size - 1) / 2 + shift) / ratio + (count - 1) / 2
    d = place[:, None] - np.arange(count)[None]
    return jnp.where(jnp.abs(d) < lobes, jnp.sinc(d) * jnp.sinc(d / lobes), 0)


def over_angles(
    work: Callable[..., Array], tree: Any, data: Mapping[str, Any], angles: np.ndarray, *more: Any
) -> np.ndarray:
    """The results of `blocks`, one after the other."""
    return np.concatenate([found for _, found in blocks(work, tree, data, angles, *more)])


def blocks(
    work: Callable[..., Array], tree: Any, data: Mapping[str, Any], angles: np.ndarray, *more: Any
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`work(tree, angles, counts, mask, *more)` of all of `angles`, block after block: which angles, and the result.

    Frames, and the entries of `more` (array-likes with one entry for each angle of the scan), are read in blocks of
    angles; those of a block are split over all devices, each process reading its own. Every process gets all results.
    """
    mesh = sharding.data_mesh()
    tree, mask = sharding.replicate((tree, np.asarray(data["mask"])), mesh)
    size = block_size(tree)
    for start in range(0, angles.size, size):
        part = angles[start : start + size]
        own = [sharding.shard_views(a, mesh) for a in (part, *(Entries(a, part) for a in (data["counts"], *more)))]
        yield part, everywhere(_on_devices(work, mesh, tree, mask, *own))[: part.size]


@eqx.filter_jit
def _on_devices(work: Any, mesh: Any, tree: Any, mask: Array, angles: Array, counts: Array, *more: Array) -> Array:
    if mesh is None:
        return work(tree, angles, counts, mask, *more)
    arrays, plain = eqx.partition(tree, eqx.is_array)
    inner = lambda arrays, mask, a, c, *rest: work(eqx.combine(arrays, plain), a, c, mask, *rest)
    whole, split = PartitionSpec(), PartitionSpec("data")
    specs = (whole, whole, *[split] * (2 + len(more)))
    return jax.shard_map(inner, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)(
        arrays, mask, angles, counts, *more
    )


def everywhere(values: Array) -> np.ndarray:
    """An array that may be split over processes, as a whole on each."""
    if jax.process_count() == 1 or values.is_fully_replicated:
        return np.asarray(values)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(values, tiled=True))


def agreed(values: Any) -> np.ndarray:
    """What the first process says: numbers on which processes may differ, such as free memory."""
    if jax.process_count() == 1:
        return np.asarray(values)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(values)))


def block_size(tree: Any) -> int:
    """Angles whose frames, on the padded grid, take some 64 MB on every device."""
    model = next(leaf for leaf in (tree if isinstance(tree, tuple) else (tree,)) if isinstance(leaf, HoloTomography))
    frame = 8.0 * np.prod(model.grid, dtype=float) * len(model.pixels)
    return max(1, int(2**26 // frame)) * jax.device_count()


# ---------------------------------------------------------------------------------------------------- places
def projections_of(model: HoloTomography, angles: Array, lines: tuple[Array, ...] = ()) -> Array:
    """`phase + i B` of some angles: of the model's volume, or of line integrals of delta that are known."""
    if not lines:
        return model.projections(angles)
    return jax.lax.complex(-lines[0], lines[0] / model.delta_beta)


def _steps(tree: Any, angles: Array, counts: Array, mask: Array, *lines: Array) -> Array:
    """Gauss-Newton steps of shifts and gain of every frame by itself, and how sharp its likelihood is along each:
    `(angle, distance, 2, 3)`.

    `tree` is a model, and whether what noise makes of its projections is damped: the smooth part alone says where
    frames are.
    """
    model, quiet = tree
    projections, shifts = projections_of(model, angles, lines), model.shifts[angles]
    projections = _smooth(projections) if quiet else projections

    def frames(shifts: Array) -> Array:
        return model.replace(shifts=model.shifts.at[angles].set(shifts)).frames(projections, angles)

    along = [jnp.zeros_like(shifts).at[..., axis].set(1) for axis in (0, 1)]
    # Each frame has shifts of its own: one derivative along all of them is that of every one.
    predicted, rows = jax.jvp(frames, (shifts,), (along[0],))
    columns = jax.jvp(frames, (shifts,), (along[1],))[1]
    slopes = jnp.stack([rows, columns, predicted - model.dark], -1)
    weight = jnp.where(mask, 1 / jnp.maximum(predicted, 1), 0)[..., None]
    normal = jnp.einsum("...yxi,...yxj->...ij", slopes * weight, slopes, precision="highest")
    misfit = jnp.where(mask, counts.astype(predicted.dtype) - predicted, 0)[..., None]
    wanted = jnp.sum(slopes * weight * misfit, (-3, -2))
    sharp = jnp.diagonal(normal, axis1=-2, axis2=-1)
    damp = jnp.eye(3, dtype=normal.dtype) * (1e-6 * sharp + jnp.finfo(normal.dtype).tiny)[..., None, :]
    step = jnp.linalg.solve(normal + damp, wanted[..., None])[..., 0]
    return jnp.stack([jnp.where(jnp.isfinite(step), step, 0), sharp], -2)


def _smooth(projections: Array) -> Array:
    """By a Gaussian of 0.7 pixel."""
    rows, columns = (np.exp(-2 * (np.pi * 0.7 * np.fft.fftfreq(n)) ** 2) for n in projections.shape[-2:])
    kernel = jnp.asarray(rows[:, None] * columns, projections.real.dtype)
    return jnp.fft.ifft2(jnp.fft.fft2(projections) * kernel)


def place_frames(
    model: HoloTomography,
    data: Mapping[str, Any],
    angles: np.ndarray,
    *lines: Any,
    shifts: bool = True,
    gain: bool = True,
    rounds: int = 1,
    quiet: bool = False,
) -> HoloTomography:
    """The model with shifts and gain of the frames of some angles fitted to its volume, which does not change; `lines`
    stand for it where they are given: line integrals of delta (angle, z, x)."""
    for _ in range(rounds):
        step = over_angles(_steps, (model, quiet), data, angles, *lines)[..., 0, :]
        if shifts:
            model = model.replace(shifts=model.shifts.at[angles].add(np.clip(step[..., :2], -1.5, 1.5)))
        if gain:
            model = model.replace(gain=model.gain.at[angles].multiply(1 + np.clip(step[..., 2], -0.5, 0.5)))
    return model


def information(model: HoloTomography, data: Mapping[str, Any], angles: np.ndarray) -> Float[np.ndarray, "angle d 3"]:
    """What each frame of these angles tells of its shifts [1/pixel^2] and of its gain: one over a variance each."""
    told = over_angles(_steps, (model, True), data, angles)[..., 1, :].astype(float)
    return np.maximum(told, 0.1 * told.mean((0, 1)) + 1e-3)


def registered(model: HoloTomography, data: Mapping[str, Any], console: Console) -> HoloTomography:
    """The frames of each angle placed on that of its finest pixel, by what they have in common; processes share the
    angles. Where an angle sits as a whole the volume says later."""
    ratio = np.asarray(model.pixels) / model.pixel_size
    options: dict[str, Any] = {
        "pixels": np.asarray(model.pixels),
        "distances": np.asarray(model.distances, float),
        "wavelength": model.wavelength,
        "delta_beta": float(model.delta_beta),
        "dark": np.asarray(model.dark),
        "mask": np.asarray(data["mask"]),
    }
    flux = np.broadcast_to(np.asarray(model.flux), (len(ratio), *model.flux.shape[1:]))
    found = np.zeros(model.shifts.shape)
    for angle in range(jax.process_index(), len(found), jax.process_count()):
        before = np.asarray(model.shifts[angle], float) / ratio
        shifts, report = prepare.register_distances(data["counts"][np.array([angle])][0], flux, start=before, **options)
        sure = (report.peaks > 8)[:, None]  # chance is below 6
        found[angle] = np.where(sure, shifts * ratio, model.shifts[angle])
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        found = np.asarray(multihost_utils.process_allgather(found)).sum(0)
    moved = found - np.asarray(model.shifts)
    console.say(f"frames of each angle registered on the finest: moved by {np.sqrt(np.mean(moved**2)):.2f} pixel rms")
    return model.replace(shifts=jnp.asarray(found, model.shifts.dtype))


def centred(model: HoloTomography) -> HoloTomography:
    """The same places, told once: what all frames have moved by along columns, next to a sine of the angle, is the
    centre."""
    shifts, constant = fix_gauge(model.shifts, model.projector.angles)
    return model.replace(shifts=shifts, centre=model.centre + constant)


# ---------------------------------------------------------------------------------------------------- both steps
def back_project(model: HoloTomography, lines: np.ndarray, angles: np.ndarray, chosen: Mapping[str, Any]) -> Array:
    """A volume `(z, y, x)` [1/pixel] from line integrals about the axis `(angle, z, x)`; slices are split over all
    devices."""
    A: Any = model.projector.subset(angles)
    mesh, slices = sharding.slice_mesh(), lines.shape[1]
    sinogram = sharding.shard_slices(lines, mesh)
    if chosen["second"] == "cgls":
        volume = solvers.cgls(sharding.OverSlices(A, mesh), sinogram, steps=chosen["cgls_steps"]).x
    elif mesh is None:
        volume = solvers.fbp(A, sinogram, filter=chosen["filter"])
    else:
        fbp = partial(solvers.fbp, filter=chosen["filter"])
        volume = sharding.on_slices(fbp, mesh, axes=(None, 1), out=0)(A, sinogram)
    return jnp.asarray(everywhere(volume)[:slices])


def two_step(
    model: HoloTomography, data: Mapping[str, Any], angles: np.ndarray, settings: Mapping[str, Any], console: Console
) -> tuple[HoloTomography, PowerLaw]:
    """delta (and beta), and the places of the frames where they are unknown, from the given angles.

    **Returns:** the model, and the power of the volume [rad/pixel] for each frequency. It is that of the projections,
    which are planes of its transform: no noise, and no streaks of few angles, are in it.
    """
    chosen, solver = settings["model"], settings["solver"]
    general = expected_beta(model, chosen)
    if chosen["register"]:
        model = registered(model, data, console)
    if chosen["centre"]:
        model = with_axis(model, data, angles, general, console)
    rounds = solver["align"] if chosen["shifts"] or chosen["centre"] else 0
    law = PowerLaw(1e-6, -3.0)
    for index in range(rounds + 1):
        retrieval = PhaseRetrieval.of(model, data, angles, general)
        law = retrieval.power_of_volume(model)
        maps = retrieval(model, data, angles)
        model = model.replace(delta=back_project(model, maps[0], angles, solver).astype(model.delta.dtype))
        if general:
            ratio = float(model.delta_beta)
            other = back_project(model, maps[1] - maps[0] / ratio, angles, solver)
            model = model.replace(beta=other.astype(model.delta.dtype))
        if index < rounds:
            before = model
            model = centred(place_frames(model, data, angles, shifts=True, gain=chosen["gain"], quiet=True))
            say_moved(before, model, angles, index + 1, console)
    return model, law


def say_moved(before: HoloTomography, after: HoloTomography, angles: np.ndarray, number: int, console: Console) -> None:
    """One line a round."""
    moved = np.asarray(after.shifts - before.shifts)[angles]
    console.say(
        f"frames placed on the volume's prediction, round {number}: moved by "
        f"{np.sqrt(np.mean(moved**2)):.3f} pixel rms; rotation axis at {after.rotation_centre():.2f}"
    )


def with_axis(
    model: HoloTomography, data: Mapping[str, Any], angles: np.ndarray, general: float, console: Console
) -> HoloTomography:
    """The rotation axis where the phases have it: about which the centre of an isolated sample moves (64 angles tell),
    else where the sinogram of the middle rows does."""
    retrieval = PhaseRetrieval.of(model, data, angles, general)
    some = angles[np.unique(np.linspace(0, angles.size - 1, 64).astype(int))]
    lines, turns = retrieval(model, data, some)[0], np.asarray(model.projector.angles)
    centre, said = axis_of_isolated(lines, turns[some]), "the sample's outline goes round it"
    if centre is None:
        middle = slice(max(lines.shape[1] // 2 - 32, 0), lines.shape[1] // 2 + 32)
        rows = [found[:, 0, middle].copy() for _, found in blocks(retrieved, (retrieval, model), data, angles)]
        try:
            found = prepare.find_rotation_centre(np.concatenate(rows), turns[angles])
        except InputError as error:  # less than half a turn
            console.say(f"rotation axis left where it was: {error}")
            return model
        centre, said = found.centre, found.message
    model = model.replace(centre=model.centre + (centre - (lines.shape[2] - 1) / 2))
    console.say(f"rotation axis at column {model.rotation_centre():.2f} of the finest frames ({said})")
    return model


def axis_of_isolated(lines: Float[np.ndarray, "angle z x"], angles: np.ndarray) -> float | None:
    """Column of the axis about which the centre of mass of an isolated sample moves in a sinusoid; `None` where the
    sample reaches the border or the angles span less than a right angle.

    Phases have large low-frequency noise, which moves their centre of mass: only what stands out of it counts.
    """
    count = max(2, lines.shape[2] // 16)
    border = np.concatenate([lines[:, :, :count], lines[:, :, -count:]], 2)
    smooth = lines - np.median(border, (1, 2))[:, None, None]
    for axis in (1, 2):
        gauss = np.exp(-2 * (np.pi * 1.5 * np.fft.rfftfreq(lines.shape[axis])) ** 2)
        spectrum = np.moveaxis(np.fft.rfft(smooth, axis=axis), axis, -1) * gauss
        smooth = np.moveaxis(np.fft.irfft(spectrum, lines.shape[axis]), -1, axis)
    mass = np.maximum(smooth - 0.25 * np.percentile(smooth, 99), 0)
    total = mass.sum((1, 2))
    touches = mass[:, :, [0, -1]].sum() > 0.002 * mass.sum()
    if touches or not (total > 0.1 * np.median(total)).all() or np.ptp(angles) < np.pi / 2:
        return None
    centroid = (mass.sum(1) * np.arange(lines.shape[2])).sum(1) / total
    waves = np.stack([np.ones_like(angles), np.cos(angles), np.sin(angles)], 1)
    return float(np.linalg.lstsq(waves, centroid, rcond=None)[0][0])
