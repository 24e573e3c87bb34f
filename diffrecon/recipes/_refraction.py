"""What speckles, gratings, masks and crystals have in common: stacks with and without a sample, and what is written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import prepare
from .._result import Quantity
from ..errors import InputError, MissingMetadata
from ..models import DisplacedReference
from ..operators.displacement import along_rays, saturated_loss
from ..scan import Scan
from ..settings import setting
from ..solvers.refraction import Information, RefractionMaps, Smoothness, consistent_maps, fields_of
from ._pattern_checks import check_steps, light_lines, usual_light
from ._scan_facts import known_geometry

__all__ = [
    "AtSample", "Beam", "Detection", "Prior", "Stacks", "Unit", "at_sample", "displaced_pattern", "error_maps",
    "flux_of", "optics_of", "read_stacks", "refraction_quantities", "scattering_of", "scattering_scale",
    "scattering_tensor", "zero_of",
]  # fmt: skip


@dataclass(frozen=True)
class Prior:
    """What is known of the sample beforehand."""

    phase: float = setting(1.0, "few bends of the phase; in units of a pixel's noise", at_least=0)
    transmission: float = setting(1.0, "few steps of the attenuation, in units of a pixel's noise", at_least=0)
    visibility: float = setting(1.5, "few steps of the visibility, in units of a pixel's noise", at_least=0)

    def smoothness(self, share: float = 1.0, visibility: float = 1.0) -> Smoothness:
        """Give them, or a share of them, as the solver takes them; of that of the `visibility` another share."""
        return Smoothness((share * self.phase, share * self.transmission, share * visibility * self.visibility))


@dataclass(frozen=True)
class Beam:
    """What is in the beam."""

    air: str = setting("mode", "displacement zero: the most frequent one, or none", choices=("mode", "none"))
    correlation_length: float | None = setting(
        None, "of what scatters; by default what curves tell, or so long that nothing saturates", unit="m", above=0
    )


@dataclass(frozen=True)
class Detection(Beam):
    """What is in the beam, and how it is seen."""

    detector_blur: float | None = setting(
        None, "standard deviation; by default the file's, or 0.7", unit="pixel", at_least=0
    )
    fringes: bool | None = setting(True, "the phase leaves its propagation fringes in the intensity")

    def of(self, scan: Scan, unit: "Unit", usual: bool = True) -> dict[str, Any]:
        """Give spread and blur of the fringes as models take them; `usual` where it is not said whether there are."""
        blur = blur_of(scan, self.detector_blur, 0.7)
        seen = usual if self.fringes is None else self.fringes
        return {"spread": float(unit.spread) if seen else None, "blur": blur}


class Unit(NamedTuple):
    """From pixels to what is written.

    **Fields:** `angle` of a displacement by one pixel [rad]; `phase` of a potential of one pixel^2 [rad]; `pixel` in
    the sample [m]; `spread` of the fringes (`operators.fringe_transfer`); `detector`, its pixel [m].
    """

    angle: float
    phase: float
    pixel: float
    spread: float
    detector: float

    def width(self, grain: float) -> float:
        """Give the deviation of scattering angles [rad] that leaves `exp(-1 / 2)` of a pattern's visibility."""
        return grain / 2 * self.angle

    def coherence(self, grain: float) -> float:
        """Give the distance [m] between points of the sample that a pattern compares."""
        return 2 * self.pixel / (self.phase * grain)

    def saturation(self, grain: float, length: float | None) -> float:
        """Give the saturation (`operators.saturated_loss`) of grains of a correlation length [m]; 0 for none."""
        return 0.0 if length is None else (self.coherence(grain) / length) ** 2 / 2

    def length(self, grain: float, saturation: float) -> float:
        """Give the correlation length [m] of a saturation."""
        return self.coherence(grain) / np.sqrt(2 * max(saturation, 1e-12))


class Stacks(NamedTuple):
    """Both stacks in float32, without darks and structure of the detector.

    **Fields:** `sample`, `reference` `(frame, y, x)`; `good` `(y, x)`, pixels that measured; `lines` for the user.
    """

    sample: np.ndarray
    reference: np.ndarray
    good: np.ndarray
    lines: tuple[str, ...]


def blur_of(scan: Scan, told: float | None, usual: float) -> float:
    """Give the detector's blur [pixel]: what is told, the file's, or the usual one."""
    return float(scan.extra.get("detector_blur", usual) if told is None else told)


def optics_of(scan: Scan) -> Unit:
    """Read the geometry.

    **Raises:** `MissingMetadata` for what is not known.
    """
    place = known_geometry(scan, "energy", "pixel_size", "distance")
    pixel, distance, wavelength = (float(np.mean(v)) for v in (place.pixel_size, place.distance, place.wavelength))
    if not distance > 0:
        raise InputError(f"{scan.name}: the distance from sample to detector is {distance:g} m; refraction needs one")
    spread = np.pi * wavelength * distance / pixel**2
    phase = 2 * np.pi / wavelength * pixel**2 / distance
    return Unit(pixel / distance, phase, pixel, spread, float(place.detector_pixel))


def read_stacks(scan: Scan, same: bool = True) -> Stacks:
    """Take both stacks into memory, correct them alike, and find pixels that did not measure.

    **Raises:** `MissingMetadata` without a reference; `InputError` for stacks that do not belong together.
    """
    reference = scan.extra.get("reference")
    if reference is None:
        raise MissingMetadata("data.reference", "the stack of frames without the sample", scan.name, "/reference")
    check_steps(scan)
    reference = np.asarray(reference)
    reference = reference[None] if reference.ndim == 2 else reference
    if reference.ndim != 3 or reference.shape[1:] != scan.frame_shape:
        raise InputError(
            f"{scan.name}: data.reference has shape {reference.shape}, frames are {scan.frame_shape}: both stacks come "
            "from one detector, cut and binned alike"
        )
    if same and len(reference) != scan.views:
        raise InputError(
            f"{scan.name}: {len(reference)} reference frames and {scan.views} sample frames: each position needs both, "
            "in the same order; choose with data.views, or give data.reference without those that have no partner"
        )
    counts = np.asarray(scan.counts)
    if np.array_equal(counts, reference):
        raise InputError(
            f"{scan.name}: the frames with the sample and data.reference are the same: which stack is without it?"
        )
    good = np.ones(scan.frame_shape, bool) if scan.mask is None else np.asarray(scan.mask, bool).copy()
    lines = []
    ceiling = scan.saturation or (np.iinfo(counts.dtype).max if counts.dtype.kind in "iu" else np.inf)
    for name, stack in (("sample", counts), ("reference", reference)):
        for what, bad in (("never saw light", (stack <= 0).all(0)), ("are saturated", (stack >= ceiling).any(0))):
            if (bad & good).any():
                lines.append(f"{(bad & good).sum()} pixels {what} in the {name} frames: left out")
            good &= ~bad
    if not good.any():
        raise InputError(f"{scan.name}: no pixel measured in both stacks; look at the mask and at data.saturation")
    dark = 0.0 if scan.darks is None else np.asarray(scan.darks, np.float32).mean(0)
    flat = None if scan.flats is None else np.asarray(scan.flats, np.float32).mean(0) - dark
    lit = {
        "sample frames": counts.mean(0, dtype=float) - dark,
        "reference frames": reference.mean(0, dtype=float) - dark,
    }
    for name, frame in (lit if flat is None else {"flats": flat, **lit}).items():
        if not (light := float(np.mean(frame[good]))) > 0:
            raise InputError(
                f"{scan.name}: the {name} are at {light:.4g} counts above the darks on average: there is no light in "
                "them; look at data.flats, data.darks and the shutter"
            )
    for name, stack in (("frames with the sample", counts), ("reference frames", reference)):
        dim = np.flatnonzero(
            ~(stack[:, good].mean(1, dtype=float) - np.mean(np.broadcast_to(dark, good.shape)[good]) > 0)
        )
        if dim.size:
            raise InputError(
                f"{scan.name}: {name} {', '.join(map(str, dim[:6]))} hold no light: leave them out, with their steps "
                f"({'data.views' if stack is counts else 'data.reference, data.reference_steps'}), or was the shutter "
                "closed?"
            )
    if flat is not None:
        good &= flat > 0.05 * np.median(flat)
        flat = np.where(good, flat / np.mean(flat[good]), 1.0)
    correct = lambda stack: _mended((stack.astype(np.float32) - dark) / (1.0 if flat is None else flat), good)
    sample, reference = correct(counts), correct(reference)
    return Stacks(sample, reference, good, (*lines, *light_lines(scan, sample, reference, good)))


def flux_of(stacks: Stacks) -> np.ndarray:
    """Light of single frames about a mean of one: what the sample takes on average is its transmission; a frame of
    quite another exposure is not of the mean."""
    flux = stacks.sample.mean((1, 2)) / stacks.reference.mean((1, 2))
    return flux / flux[usual_light(flux)].mean()


def displaced_pattern(
    stacks: Stacks, patterns: prepare.Patterns, maps: RefractionMaps, fringes: dict[str, Any], **more: Any
) -> DisplacedReference:
    """Put the images in front of the patterns, which have not moved."""
    number = lambda value: jnp.asarray(value, jnp.float32)  # one program for the patterns of all angles
    return DisplacedReference(
        maps=maps, flux=jnp.asarray(flux_of(stacks)), drift=jnp.zeros((len(stacks.sample), 2)),
        smooth=jnp.asarray(patterns.smooth), structure=jnp.asarray(patterns.structure), trust=number(stacks.good),
        deviation=number(patterns.gain), share=number(patterns.share), **fringes, **more,
    )  # fmt: skip


def _mended(frames: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Fill what did not measure from around it, so that filters do not smear it out."""
    if good.all():
        return frames.astype(np.float32)
    near = lambda a: prepare.mean_around(a, 1.5)
    weight = np.maximum(near(good.astype(np.float32)), 1e-6)
    mean = frames[:, good].mean(1)
    filled = [
        np.where(good, frame, np.where(weight > 1e-3, near(np.where(good, frame, 0)) / weight, level))
        for frame, level in zip(frames, mean, strict=True)
    ]
    return np.asarray(filled, np.float32)


# ---------------------------------------------------------------------------------------------------- results
def zero_of(displacement: np.ndarray) -> np.ndarray:
    """Find the most frequent displacement (row, column): that of air, by which the pattern drifted as a whole."""
    flat = displacement.reshape(2, -1)
    middle = np.median(flat, 1)
    width = max(float(np.percentile(np.abs(flat - middle[:, None]), 50)), 1e-4)
    for _ in range(12):
        distance = ((flat - middle[:, None]) ** 2).sum(0)
        weight = np.exp(-distance / (2 * width**2))
        middle = (flat * weight).sum(1) / weight.sum()
        width = max(0.8 * width, 0.02)
    return middle


def error_maps(information: Information, model: Any, smoothness: Smoothness, count: int, seed: int = 0) -> np.ndarray:
    """Standard deviations of the four fields and of the potential, by as many solves of noise alone.

    What the noise of the frames does at the solution found, with its priors as they are there; no bias is in it.
    """
    root = jnp.linalg.cholesky(
        jnp.moveaxis(information.hessian, (0, 1), (-2, -1)) + 1e-4 * jnp.eye(4) * information.hessian[2, 2].mean()
    )
    maps, zero = model.maps, jax.tree.map(jnp.zeros_like, model.maps)
    shape = information.at.shape[1:]
    total = np.zeros((5, *shape))
    for key in jax.random.split(jax.random.key(seed), count):
        noise = jnp.einsum("yxij,yxj->iyx", root, jax.random.normal(key, (*shape, 4)))
        one = information._replace(gradient=noise, at=jnp.zeros_like(information.at))
        found = _noise_only(one, maps, (model.transfer, model.sharp), smoothness, zero)
        fields, potential = (np.asarray(a, float) for a in found)
        total += np.concatenate([fields, _without_plane(potential)[None]]) ** 2
    return np.sqrt(np.stack([np.maximum(prepare.mean_around(t / count, 4.0), 0) for t in total]))


@jax.jit
def _noise_only(information: Any, maps: Any, transfers: Any, smoothness: Any, zero: Any) -> Any:
    transfer, sharp = transfers
    found = consistent_maps(information, maps, transfer, smoothness, 16, start=zero)
    shape = information.at.shape[1:]
    return fields_of(found, shape, sharp), _inside(found.potential, shape)


def _inside(potential: Any, shape: tuple[int, int]) -> Any:
    margin = 16
    return potential[margin : margin + shape[0], margin : margin + shape[1]]


def _without_plane(image: np.ndarray) -> np.ndarray:
    y, x = (g / max(g.max(), 1) - 0.5 for g in np.indices(image.shape))
    planes = np.stack([np.ones_like(y), y, x], -1).reshape(-1, 3)
    return image - (planes @ np.linalg.lstsq(planes, image.ravel(), rcond=None)[0]).reshape(image.shape)


class AtSample(NamedTuple):
    """Images carried back along the rays from where they land to where they left the sample.

    **Fields:** `displacement` `(2, y, x)` [pixel]; `potential` [pixel^2], whose slopes they are; `attenuation`,
    logarithm of the transmission without fringes; `visibility`; `seen`, the part of each pixel that measured.
    """

    displacement: np.ndarray
    potential: np.ndarray
    attenuation: np.ndarray
    visibility: np.ndarray
    seen: np.ndarray


def at_sample(fields: np.ndarray, maps: RefractionMaps, good: np.ndarray, zero: np.ndarray) -> AtSample:
    """Carry the images back along the rays; `zero` is the displacement of air [pixel]."""
    landed = fields[:2] - zero[:, None, None]
    shape = fields.shape[1:]
    place = np.indices(shape, float) - np.array([(n - 1) / 2 for n in shape])[:, None, None]
    tilt = np.asarray(maps.tilt, float) - zero
    potential = np.asarray(_inside(np.asarray(maps.potential, float), shape)) + tilt[0] * place[0] + tilt[1] * place[1]
    attenuation = np.asarray(_inside(np.asarray(maps.attenuation, float), shape))
    images = np.stack([potential, attenuation, fields[3], good.astype(float)])
    moved, (potential, attenuation, visibility, seen) = along_rays(landed, images)
    return AtSample(moved, potential - (moved**2).sum(0) / 2, attenuation, visibility, seen)


def scattering_of(
    visibility: np.ndarray, unit: Unit, grain: float, saturation: float, rings: np.ndarray | None = None
) -> np.ndarray:
    """Variance of scattering angles [rad^2] that a visibility means, in the limit of small angles at saturation 0.

    **Arguments:** `rings` of the pattern (`prepare.Patterns`), each of which loses visibility by its own frequency;
    without them all of it has the frequency of `grain`.
    """
    seen = np.clip(visibility, 0.02, None)
    if rings is None:
        return scattering_scale(unit, grain, saturation) * -np.log(seen)
    losses = np.linspace(-0.3, 30.0, 3000)
    each = np.asarray(saturated_loss((np.pi * grain * rings[0]) ** 2, saturation), float)
    mean = (rings[1] * np.exp(-losses[:, None] * each)).sum(1)
    return scattering_scale(unit, grain, saturation) * np.interp(-seen, -mean, losses)


def scattering_scale(unit: Unit, grain: float, saturation: float) -> float:
    """Variance of scattering angles [rad^2] over the loss of the logarithm of the visibility."""
    return 2 * unit.width(grain) ** 2 * (-saturation / np.expm1(-saturation) if saturation > 1e-6 else 1.0)


def scattering_tensor(
    visibility: np.ndarray, landed: np.ndarray, written: Quantity, scattering: Callable[[np.ndarray], np.ndarray]
) -> dict[str, Quantity]:
    """Give covariances of scattering angles [rad^2], and its strongest direction as long as the difference to the
    weakest, from a visibility tensor (xx, xy, yy) where rays land at the displacement `landed` [pixel]; `scattering` is
    what a visibility means.
    """
    xx, xy, yy = along_rays(landed, visibility)[1]
    tensor = np.stack([np.stack([xx, xy], -1), np.stack([xy, yy], -1)], -2)
    seen, axes = np.linalg.eigh(tensor)
    loss = scattering(seen)
    whole = np.einsum("yxia,yxa,yxja->ijyx", axes, loss, axes)
    strongest = axes[..., :, 0] * (loss[..., 0] - loss[..., 1])[..., None]
    known = np.isfinite(written.data)
    show = lambda a: np.where(known.reshape(*known.shape, *(1,) * (a.ndim - 2)), a, np.nan).astype(np.float32)
    of = lambda a, label: Quantity(show(a), "rad^2", ("y", "x"), written.pixel_size, label, "data")
    vectors = show(np.concatenate([strongest, np.zeros((*strongest.shape[:2], 1))], -1))
    return {
        "scattering_xx": of(whole[0, 0], "variance of scattering angles along x"),
        "scattering_xy": of(whole[0, 1], "covariance of scattering angles"),
        "scattering_yy": of(whole[1, 1], "variance of scattering angles along y"),
        "scattering_direction": Quantity(
            vectors, "rad^2", ("y", "x", "xyz"), written.pixel_size, "direction of strongest scattering",
            "direction",
        ),
    }  # fmt: skip


def refraction_quantities(
    fields: np.ndarray, sample: AtSample, unit: Unit, good: np.ndarray, scattering: np.ndarray
) -> dict[str, Quantity]:
    """Give what a differential phase method writes, in the coordinates of the sample.

    **Arguments:** `fields` where the rays land; `scattering`, the variance of scattering angles [rad^2].
    """
    show = lambda a: np.where(sample.seen > 0.5, a, np.nan).astype(np.float32)
    image = lambda a, units, label: Quantity(show(a), units, ("y", "x"), unit.pixel, label)
    phase, moved = sample.potential * unit.phase, sample.displacement
    return {
        "phase": image(phase - np.median(phase), "rad", "phase"),
        "alpha_x": image(moved[1] * unit.angle, "rad", "refraction angle along x"),
        "alpha_y": image(moved[0] * unit.angle, "rad", "refraction angle along y"),
        "transmission": Quantity(
            np.where(good, np.exp(fields[2]), np.nan).astype(np.float32), "", ("y", "x"), unit.pixel,
            "transmission, fringes included",
        ),
        "darkfield": image(sample.visibility, "", "visibility over that of the reference"),
        "scattering": image(scattering, "rad^2", "variance of scattering angles"),
    }  # fmt: skip


def error_quantities(
    deviation: np.ndarray, written: Mapping[str, Quantity], unit: Unit, grain: float, saturation: float
) -> dict[str, Quantity]:
    """Give the error bars of what is written, from deviations of the four fields and of the potential."""
    visibility, transmission = np.asarray(written["darkfield"].data), np.asarray(written["transmission"].data)
    found = {
        "phase": deviation[4] * unit.phase,
        "alpha_x": deviation[1] * unit.angle,
        "alpha_y": deviation[0] * unit.angle,
        "transmission": deviation[2] * transmission,
        "darkfield": deviation[3],
        "scattering": deviation[3] / np.clip(visibility, 0.02, None) * scattering_scale(unit, grain, saturation),
    }
    return {
        f"{name}_error": Quantity(
            np.asarray(values, np.float32), written[name].units, ("y", "x"), unit.pixel,
            f"error bar: {written[name].long_name}", "data",
        )
        for name, values in found.items()
        if name in written
    }  # fmt: skip
