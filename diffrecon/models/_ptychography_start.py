"""The first guess of ptychography: object, probe and geometry from a scan alone, on the host."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import operators
from ..errors import InputError, MissingMetadata
from ..frames import frame_blocks
from ..scan import Scan

# Unknown geometry starts here where it is to be solved for; a derivative that vanishes at zero needs a start beside it.
_STARTS: dict[str, Callable[[Any], Any]] = {
    "distance": lambda model: model.distance,
    "astigmatism": lambda model: 0.0,
    "tilt": lambda model: np.zeros(2),
    "scan_matrix": lambda model: np.eye(2),
    "travel": lambda model: _path(np.asarray(model.positions, float)),
    "source_blur": lambda model: np.full(2, 0.5),
    "detector_blur": lambda model: 0.5,
}
_SHAPES = {"tilt": (2,), "scan_matrix": (2, 2), "travel": (2,), "source_blur": (2,)}
_NEAR_ONLY = ("distance", "astigmatism", "tilt")


def first_guess(
    scan: Scan, modes: int, *, margin: float, oversampling: int, border: int, slices: int, slice_spacing: float | None,
    refractive: bool, variations: int,
) -> dict[str, Any]:  # fmt: skip
    """Give the fields of `Ptychography.from_scan`."""
    positions = scan.require("positions", "positions of the views", "/path/of/positions")
    scan, far = scan.in_fft_order(), scan.far_field  # darks too, as they meet the frames
    if far and (oversampling != 1 or border):
        raise InputError(
            "model.oversampling must be 1 and model.border 0 in the far field: its detector pixels "
            "sample the wave's spectrum, not the wave"
        )
    if slices > 1 and slice_spacing is None:
        raise MissingMetadata("model.slice_spacing", "the distance between slices", scan.name, "20 um")
    pixel = _pixel_size(scan, far and slices == 1)
    in_pixels = _object_positions(scan, positions, pixel, margin) * oversampling
    pixel = pixel if pixel is None else pixel / oversampling
    frame = [(n + 2 * border) * oversampling for n in scan.frame_shape]
    room = np.ceil(in_pixels.max(0)) + frame + np.ceil(margin * oversampling)
    shape = (slices, *room.astype(int))[slices == 1 :]
    mean = empty_beam(scan)
    dark = 0.01 * max(float(np.median(mean)), 1e-2) if scan.darks is None else np.asarray(scan.darks, float).mean(0)
    geometry = None if far else scan.geometry
    wavelength = None if scan.geometry is None else scan.geometry.wavelength
    fields: dict[str, Any] = {
        "distance": None if geometry is None else float(geometry.distance),
        "wavelength": None if wavelength is None else float(wavelength),
        "pixel_size": pixel,
    }
    wide = np.kron(np.pad(mean, border, mode="edge"), np.ones((oversampling, oversampling))) / oversampling**2
    probe = modes_of(_first_probe(scan, wide, border, oversampling, fields), modes)
    cast = lambda values: jnp.asarray(np.asarray(values, np.complex64 if np.iscomplexobj(values) else np.float32))
    return fields | {
        "object": cast(np.full(shape, 0j if refractive else 1 + 0j)),
        "probe": cast(probe),
        "positions": cast(in_pixels),
        "background": cast(np.broadcast_to(np.sqrt(np.maximum(dark, 0)), scan.frame_shape)),
        "gain": cast(np.ones(scan.views)),
        "efficiency": None if (share := scan.extra.get("efficiency")) is None else cast(share),
        "far": far,
        "oversampling": oversampling,
        "border": border,
        "refractive": refractive,
        "slice_spacing": None if slices == 1 else slice_spacing,
        **{name: cast(values) for name, values in _variations(probe[0], variations, scan.views).items()},
    }


def geometry(model: Any, drift: int, values: Mapping[str, Any]) -> dict[str, Any]:
    """Give the fields of `Ptychography.with_geometry`."""
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if value is None or value is False:
            continue
        if model.far and name in _NEAR_ONLY:
            raise InputError(f"model.{name}: frames of the far field do not depend on it; leave it out")
        if name not in _STARTS:
            raise InputError(f"model.{name}: the geometry of a scan has {', '.join(_STARTS)}")
        fields[name] = _STARTS[name](model) if value is True else _as_field(name, value, model)
    if drift:
        fields["drift"] = np.zeros((max(drift, 2), 2))
    return {name: jnp.asarray(np.asarray(value, np.float32)) for name, value in fields.items()}


def _as_field(name: str, value: Any, model: Any) -> np.ndarray:
    """A value in the model's units and shape."""
    shape = _SHAPES.get(name)
    try:
        array = np.asarray(value, float)
        array = np.broadcast_to(array, array.shape if shape is None else shape)
    except (TypeError, ValueError):
        array = np.asarray(np.nan)
    if not np.isfinite(array).all():
        raise InputError(f"model.{name}: {value!r} is neither true, false nor a value of shape {shape or 'one number'}")
    array = array[None] if name == "travel" else array
    return array * model.oversampling if name in ("travel", "source_blur") else array


def _path(positions: np.ndarray) -> np.ndarray:
    """Find where a continuous scan moves during an exposure: half way from the last point to half way to the next;
    nowhere at the jumps between lines.
    """
    path = np.gradient(positions, axis=0)
    length = np.linalg.norm(path, axis=1)
    return np.where((length > 2 * np.median(length))[:, None], 0.0, path)


def _variations(probe: np.ndarray, count: int, views: int) -> dict[str, Any]:
    """Low-order changes of the probe with small, random weights: zero weights of zero changes would never move."""
    if not count:
        return {}
    changes = modes_of(probe, count + 1)[1:]
    weights = 0.1 * np.random.default_rng(0).standard_normal((views, count))
    return {
        "probe_variations": changes,
        "variation_weights": weights - weights.mean(0),
    }


def empty_beam(scan: Scan) -> np.ndarray:
    """Count the beam without a sample: the mean flat of a near-field scan less its dark, else the mean frame."""
    dark = 0.0 if scan.darks is None else np.asarray(scan.darks, float).mean(0)
    share = scan.in_fft_order().extra.get("efficiency", 1.0)
    if scan.flats is None or scan.far_field:
        return np.maximum(mean_frame(scan) - dark, 0) / share
    flat = np.maximum(np.asarray(scan.flats, float).mean(0) - dark, 0) / share
    return flat if scan.mask is None else np.where(scan.mask, flat, 0.0)


def mean_frame(scan: Scan) -> np.ndarray:
    """Average the frames in the model's order, float64, dead pixels zero."""
    scan = scan.in_fft_order()
    total = np.sum([block.sum(0, dtype=float) for block in frame_blocks(scan.counts)], axis=0)
    mean = total / scan.views
    return mean if scan.mask is None else np.where(scan.mask, mean, 0.0)


def _pixel_size(scan: Scan, far: bool) -> float | None:
    if scan.pixel_size is not None:
        return float(scan.pixel_size)
    if far:
        return None
    raise MissingMetadata("geometry.focus_to_sample", "the distance from focus to sample", scan.name, "3.65 mm")


def _object_positions(scan: Scan, positions: np.ndarray, pixel: float | None, margin: float) -> np.ndarray:
    """Patch corners in object pixels, the smallest at `margin`."""
    if scan.positions_unit == "m":
        if pixel is None:
            raise MissingMetadata(
                "geometry.energy",
                "the energy, distance or detector pixel (positions are in metres)",
                scan.name,
                "12 keV",
            )
        positions = positions / pixel
    span = np.ptp(positions, axis=0)
    frame = np.asarray(scan.frame_shape)
    if scan.views > 1 and span.max() < 0.5:
        raise InputError(
            f"{scan.name}: all positions lie within {span.max():.2g} object pixels of {scan.frame_shape}: their "
            "unit is wrong (data.positions_unit) or this is not a scan"
        )
    if (span > 50 * frame).any():
        raise InputError(
            f"{scan.name}: positions span {span[0]:.4g} x {span[1]:.4g} object pixels, frames have "
            f"{frame[0]} x {frame[1]}: their unit is wrong (data.positions_unit) or the pixel size is"
        )
    return positions - positions.min(0) + margin


def _first_probe(scan: Scan, mean: np.ndarray, border: int, oversampling: int, optics: Mapping[str, Any]) -> np.ndarray:
    """One probe mode whose power is the mean counts of a frame."""
    if scan.probe is not None:
        probe = np.asarray(scan.probe, complex).reshape(-1, *scan.probe.shape[-2:])[0]
        if probe.shape == scan.frame_shape:
            probe = finer(np.pad(probe, border, mode="edge"), oversampling)
        if probe.shape != mean.shape:
            raise InputError(
                f"{scan.name}: the probe has shape {probe.shape}, frames have {scan.frame_shape} and the "
                f"model {mean.shape}"
            )
    elif scan.far_field:
        probe = _defocused_aperture(mean)
    else:
        known = tuple((k, float(v) if np.ndim(v) == 0 else tuple(map(float, v))) for k, v in optics.items())
        transfer = _transfer((mean.shape[0], mean.shape[1]), known)
        probe = np.fft.ifft2(np.fft.fft2(np.sqrt(mean)) * np.conj(np.asarray(transfer)))
    return probe * np.sqrt(mean.sum() / np.sum(abs(probe) ** 2))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _transfer(shape: tuple[int, int], optics: tuple[tuple[str, Any], ...]) -> Any:
    return operators.fresnel_transfer(shape, **dict(optics))


def finer(wave: np.ndarray, factor: int) -> np.ndarray:
    """A wave on pixels so many times smaller, band-limited as it was; where the centre of a pixel was, that of its
    parts is."""
    if factor == 1:
        return wave
    shape = [n * factor for n in wave.shape]
    half = (factor - 1) / 2
    ramps = [np.exp(-2j * np.pi * np.fft.fftfreq(n) * half / factor) for n in wave.shape]
    spectrum = np.fft.fftshift(np.fft.fft2(wave) * ramps[0][:, None] * ramps[1])
    room = [
        (big // 2 - small // 2, big - small - (big // 2 - small // 2))
        for big, small in zip(shape, wave.shape, strict=True)
    ]
    return np.fft.ifft2(np.fft.ifftshift(np.pad(spectrum, room)))


def _defocused_aperture(mean: np.ndarray) -> np.ndarray:
    """A far-field probe from the mean frame alone: its square root as pupil, defocused until the spot fills a quarter
    of the frame, so that neighbouring patches overlap."""
    rows, columns = mean.shape
    pupil = np.sqrt(mean)
    fy, fx = np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None]
    width = np.sqrt((mean * (fy**2 + fx**2)).sum() / mean.sum())
    # A quadratic pupil phase exp(-i pi a f^2) moves frequency f by a f pixels.
    bend = 0.125 * min(rows, columns) / max(width, 1e-6)
    return np.fft.fftshift(np.fft.ifft2(pupil * np.exp(-1j * np.pi * bend * (fy**2 + fx**2)), norm="ortho"))


def modes_of(probe: np.ndarray, count: int, power: float = 0.02) -> np.ndarray:
    """The probe and its products with polynomials of growing order about its centre, orthogonal and with little
    power.
    """
    weight = abs(probe) ** 2
    axes = [np.arange(n) - (weight.sum(1 - i) @ np.arange(n)) / weight.sum() for i, n in enumerate(probe.shape)]
    spread = [np.sqrt((weight.sum(1 - i) * a**2).sum() / weight.sum()) for i, a in enumerate(axes)]
    y, x = (axes[0] / spread[0])[:, None], (axes[1] / spread[1])[None]
    modes = [probe]
    orders = [(i, order - i) for order in range(1, count + 1) for i in range(order, -1, -1)]
    for i, j in orders[: count - 1]:
        mode = probe * np.clip(y, -3, 3) ** i * np.clip(x, -3, 3) ** j
        for other in modes:
            mode = mode - other * np.vdot(other, mode) / np.vdot(other, other)
        modes.append(mode * np.sqrt(power * weight.sum() / np.sum(abs(mode) ** 2)))
    modes = np.stack(modes)
    return modes * np.sqrt(weight.sum() / np.sum(abs(modes) ** 2))
