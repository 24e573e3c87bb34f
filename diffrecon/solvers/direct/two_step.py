"""Holotomography in two steps: the phase of each angle by the contrast transfer functions, then back-projection; and
the place of every frame, by comparing it with what the volume predicts.

`model` is a `models.HoloTomography`, `data` what `models.holograms_by_angle` gives: frames are read in blocks of
angles, which are split over all devices, each process reading its own.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from ... import sharding
from ...frames import Entries, spread
from ...operators.fourier import blur, radial_frequency
from ...priors import PowerLaw
from ..linear.least_squares import cgls
from .fbp import fbp
from .phase import ctf_response

__all__ = [
    "PhaseRetrieval", "back_project", "blocks", "contrast", "frame_information", "over_angles", "place_frames",
    "projections_of", "transfer",
]  # fmt: skip


class PhaseRetrieval(eqx.Module):
    """Turn the holograms of an angle into maps of its projection by least squares on the contrast transfer functions,
    every distance weighted by its counts, with the power of the object as prior (Wiener).

    **Fields:** `kernels` `(map, distance, Y, X//2+1)`: one map, delta, of a single material; or delta and B; `power`
    of the phase [rad], as measured; `canvas`: the plane on which it works, vacuum around the sample.

    ```python
    retrieval = PhaseRetrieval.of(model, data)
    lines = retrieval(model, data)[0]                # line integrals of delta [rad] (angle, z, x)
    volume = back_project(model.projector, lines)    # [rad/pixel]
    ```
    """

    kernels: Float[Array, "map distance Y F"]
    power: PowerLaw
    canvas: tuple[int, int] = eqx.field(static=True)

    @classmethod
    def of(cls, model: Any, data: Mapping[str, Any], general: float = 0.0) -> "PhaseRetrieval":
        """Measure the power of the phase in up to 24 of the angles, and make the kernels that it asks for.

        **Arguments:** `general`: the size of B beside the phase that is expected, 0 for one material.
        """
        rows, columns = (g - (g - w) % 2 for g, w in zip(model.grid, _window(model), strict=True))
        canvas = (rows, columns)
        sine, cosine, weights = transfer(model, canvas)
        single = sine if general else sine + cosine / float(model.delta_beta)
        safe, projected = (weights * single**2).sum(0), jnp.asarray(weights * single, model.delta.dtype)
        some = spread(len(data["counts"]), 24)
        spectra = blocks(_power, (model, projected, canvas), data, some)
        power = sum(np.asarray(part.sum(0), float) for _, part in spectra) / some.size
        # Noise is where a frame is; the rest of the canvas is taken as vacuum.
        fields = np.asarray(model.pixels) / model.pixel_size * np.asarray(model.frame)
        cover = np.minimum(fields / np.asarray(canvas), 1).prod(1)[:, None, None]
        power = (power - (weights * single**2 * cover).sum(0)) / np.maximum(safe, 1e-9 * safe.max()) ** 2
        frequency = radial_frequency(canvas, 0.5)
        law = PowerLaw.fit(power, frequency, usable=safe > 0.02 * safe.max())
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

    def power_of_volume(self, model: Any) -> PowerLaw:
        """Scale the power to that of delta [rad/pixel]: a projection is a plane of its transform, and the canvas around
        it held nothing."""
        slices, side, _ = model.delta.shape
        return PowerLaw(self.power.level * self.canvas[0] * self.canvas[1] / (slices * side * side), self.power.slope)

    def __call__(self, model: Any, data: Mapping[str, Any], angles: np.ndarray | None = None) -> Any:
        """Retrieve line integrals of delta [rad] (and B) of some angles about the rotation axis: `(map, angle, z,
        x)`."""
        return over_angles(_maps, self._with(model), data, angles).swapaxes(0, 1)

    def by_blocks(self, model: Any, data: Mapping[str, Any]) -> Iterator[tuple[np.ndarray, Any]]:
        """Retrieve block after block: which angles, and their maps `(angle, map, z, x)`."""
        return blocks(_maps, self._with(model), data)

    def _with(self, model: Any) -> tuple[Any, Array, tuple[int, int]]:
        # without the power law, whose numbers would be compiled in
        return model, self.kernels, self.canvas


def _maps(tree: Any, angles: Array, counts: Array, mask: Array) -> Float[Array, "angle map z x"]:
    model, kernels, canvas = tree
    spectra = jnp.fft.rfft2(contrast(model, counts, mask, angles, canvas))
    maps = jnp.fft.irfft2(jnp.einsum("adyx,mdyx->amyx", spectra, kernels), s=canvas)
    rows, columns = (slice((c - w) // 2, (c - w) // 2 + w) for c, w in zip(canvas, _window(model), strict=True))
    return maps[..., rows, columns]


def _window(model: Any) -> tuple[int, int]:
    return model.delta.shape[0], model.delta.shape[2]


def _power(tree: Any, angles: Array, counts: Array, mask: Array) -> Float[Array, "angle Y F"]:
    """Compute the power of the weighted sum of all distances' spectra."""
    model, projected, canvas = tree
    spectra = jnp.fft.rfft2(contrast(model, counts, mask, angles, canvas), norm="ortho")
    return jnp.abs(jnp.sum(projected * spectra, 1)) ** 2


def transfer(model: Any, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute `2 sin(chi)` and `2 cos(chi)` times the pixel's own transfer, `(distance, y, x//2+1)`, and counts of a
    distance on a pixel of the volume `(distance, 1, 1)`."""
    pixels, distances = np.asarray(model.pixels), np.asarray(model.distances, float)
    # A cone beam that differs between the axes is taken at its mean here; the model knows better.
    sine, cosine = ctf_response(shape, [model.pixel_size**2 / (model.wavelength * d.mean()) for d in distances])
    ratio = pixels / model.pixel_size
    box = (
        np.sinc(ratio[:, 0, None] * np.fft.fftfreq(shape[0]))[:, :, None]
        * np.sinc(ratio[:, 1, None] * np.fft.rfftfreq(shape[1]))[:, None]
    )
    counts = np.broadcast_to(np.asarray(model.flux, float).mean((1, 2)), (len(pixels),)) / ratio.prod(1)
    return sine * box, cosine * box, counts[:, None, None]


def contrast(
    model: Any, counts: Array, mask: Array, angles: Any, canvas: tuple[int, ...]
) -> Float[Array, "angle distance Y X"]:
    """Compute `counts / empty beam - 1` about the rotation axis on the volume's pixels.

    It is zero where nothing was seen, but for defects of a few pixels, which are filled from around.
    """
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


def _mended(images: Array, mask: Array) -> Array:
    """Fill masked pixels with the mean of the good ones at most two away, where there are any."""

    def around(values: Array) -> Array:
        for axis in (-2, -1):
            reach = [(2, 2) if i == values.ndim + axis else (0, 0) for i in range(values.ndim)]
            padded, size = jnp.pad(values, reach), values.shape[axis]
            values = jnp.stack([jax.lax.slice_in_dim(padded, k, k + size, axis=axis) for k in range(5)]).sum(0)
        return values

    good = mask.astype(images.dtype)
    return jnp.where(mask, images, around(images * good) / jnp.maximum(around(good), 1))


def _lanczos(size: int, count: int, ratio: Array, shift: Array, lobes: int = 4) -> Array:
    """Make the matrix of interpolation from `count` detector pixels to `size` pixels of the volume by a windowed sinc
    (Duchon, J. Appl. Meteorol. 18, 1016 (1979)): cubic convolution would take half of the finest details' power."""
    place = (np.arange(size) - (size - 1) / 2 + shift) / ratio + (count - 1) / 2
    d = place[:, None] - np.arange(count)[None]
    return jnp.where(jnp.abs(d) < lobes, jnp.sinc(d) * jnp.sinc(d / lobes), 0)


# ---------------------------------------------------------------------------------------------------- over all angles
def over_angles(
    work: Callable[..., Array], tree: Any, data: Mapping[str, Any], angles: np.ndarray | None = None, *more: Any
) -> Any:
    """Join the results of `blocks`, on the device where there is one."""
    parts = [values for _, values in blocks(work, tree, data, angles, *more)]
    return (np if isinstance(parts[0], np.ndarray) else jnp).concatenate(parts)


def blocks(
    work: Callable[..., Array], tree: Any, data: Mapping[str, Any], angles: np.ndarray | None = None, *more: Any
) -> Iterator[tuple[np.ndarray, Any]]:
    """Compute `work(tree, angles, counts, mask, *more)` of some angles (all by default), block after block: which
    angles, and the result.

    `tree` is the model, or a tuple that begins with it. Frames, and the entries of `more` (array-likes with one entry
    for each angle of the model), are read in blocks; those of a block are split over all devices, each process reading
    its own. Every process gets all results.
    """
    mesh = sharding.data_mesh()
    angles = np.arange(len(data["counts"])) if angles is None else angles
    size = min(_block_size(tree[0] if isinstance(tree, tuple) else tree), angles.size)
    tree, mask = sharding.replicate((tree, np.asarray(data["mask"])), mesh)
    for start in range(0, angles.size, size):
        part = angles[start : start + size]
        whole = np.pad(part, (0, size - part.size), mode="edge")  # one program for all blocks
        own = [sharding.shard_views(a, mesh) for a in (whole, *(Entries(a, whole) for a in (data["counts"], *more)))]
        yield part, sharding.gather(_on_devices(work, mesh, tree, mask, *own))[: part.size]


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


def _block_size(model: Any) -> int:
    """Count the angles whose frames, on the padded grid, take some 64 MB on every device."""
    frame = 8.0 * np.prod(model.grid, dtype=float) * len(model.pixels)
    return max(1, int(2**26 // frame)) * jax.device_count()


# ---------------------------------------------------------------------------------------------------- places
def projections_of(model: Any, angles: Array, lines: tuple[Array, ...] = ()) -> Array:
    """Compute `phase + i B` of some angles: of the model's volume, or of line integrals of delta that are known."""
    return model.projections(angles) if not lines else jax.lax.complex(-lines[0], lines[0] / model.delta_beta)


def _newton(tree: Any, angles: Array, counts: Array, mask: Array, *lines: Array) -> Float[Array, "angle distance 2 3"]:
    """Compute Gauss-Newton steps of shifts and gain of every frame by itself, and how sharp its likelihood is along
    each.

    `tree` is a model, and whether what noise makes of its projections is damped: the smooth part alone says where
    frames are.
    """
    model, quiet = tree
    projections, shifts = projections_of(model, angles, lines), model.shifts[angles]
    projections = blur(projections, 0.7) if quiet else projections

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
    downhill = jnp.sum(slopes * weight * misfit, (-3, -2))
    sharp = jnp.diagonal(normal, axis1=-2, axis2=-1)
    damp = jnp.eye(3, dtype=normal.dtype) * (1e-6 * sharp + jnp.finfo(normal.dtype).tiny)[..., None, :]
    step = jnp.linalg.solve(normal + damp, downhill[..., None])[..., 0]
    return jnp.stack([jnp.where(jnp.isfinite(step), step, 0), sharp], -2)


def place_frames(
    model: Any,
    data: Mapping[str, Any],
    *lines: Any,
    angles: np.ndarray | None = None,
    shifts: bool = True,
    gain: bool = True,
    rounds: int = 1,
    quiet: bool = False,
) -> Any:
    """Fit shifts and gain of the frames of some angles (all by default) to the model's volume, which does not change.

    **Arguments:** `lines` stand for the volume where they are given: line integrals of delta (angle, z, x); `rounds`
    of Gauss-Newton steps; `quiet` blurs the projections, so that their noise pulls no frame.

    **Returns:** the model with the shifts and gains.
    """
    angles = np.arange(len(data["counts"])) if angles is None else angles
    for _ in range(rounds):
        step = jnp.asarray(over_angles(_newton, (model, quiet), data, angles, *lines), model.shifts.dtype)[..., 0, :]
        if shifts:
            model = model.replace(shifts=model.shifts.at[angles].add(jnp.clip(step[..., :2], -1.5, 1.5)))
        if gain:
            model = model.replace(gain=model.gain.at[angles].multiply(1 + jnp.clip(step[..., 2], -0.5, 0.5)))
    return model


def frame_information(model: Any, data: Mapping[str, Any]) -> Float[np.ndarray, "angle distance 3"]:
    """Compute what each frame tells of its shifts [1/pixel^2] and of its gain: one over a variance each."""
    sharp = np.asarray(over_angles(_newton, (model, True), data)[..., 1, :], float)
    return np.maximum(sharp, 0.1 * sharp.mean((0, 1)) + 1e-3)


# ---------------------------------------------------------------------------------------------------- back-projection
def back_project(
    projector: Any,
    lines: Float[Array, "angle z x"],
    method: str = "fbp",
    *,
    filter: str = "ramp",
    steps: int = 8,
) -> Float[Array, "z y x"]:
    """Reconstruct a volume [1/pixel] from line integrals about the axis; slices are split over all devices.

    **Arguments:** `method`: `"fbp"` with its `filter`, or `"cgls"` with its `steps`.
    """
    mesh, slices = sharding.slice_mesh(), lines.shape[1]
    sinogram = sharding.shard_slices(lines, mesh)
    if method == "cgls":
        volume = cgls(sharding.OverSlices(projector, mesh), sinogram, steps=steps).x
    elif mesh is None:
        volume = fbp(projector, sinogram, filter=filter)
    else:
        volume = sharding.on_slices(partial(fbp, filter=filter), mesh, axes=(None, 1), out=0)(projector, sinogram)
    return jnp.asarray(sharding.gather(volume)[:slices])
