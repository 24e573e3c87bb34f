"""The complex wave of the empty beam, from flats: for beams whose structure an object changes.

Dividing a hologram by its flat is right as long as the object moves no ray across the structure of the beam. A beam
with strong or fine structure (mirrors, windows and multilayers upstream) needs its wave at the object, phase included.
One wave makes the flats of all distances: free space carries it from one plane of the sample to the next, and in a cone
beam it widens with the distance to the focus. Flats alone tell its phase where the detector has moved; where only the
sample has, all flats are one picture, and the phase has to come from the holograms once an object is known.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PyTree

from .. import losses, operators
from .._console import Console
from .._model import Batch
from ..errors import InputError
from ..operators.fourier import radial_frequency
from ..priors import Coordinates, PowerLaw, filtered
from ..solvers import levenberg_marquardt

__all__ = ["BeamCoordinates", "flats_of_views", "illumination_from_flats"]

# Photon noise is made larger at first, by one over these: strong structure is found from coarse to fine.
_TRUST = (0.05, 0.2, 1.0)


def illumination_from_flats(
    model: Any,
    flats: Float[np.ndarray, "*#view flat y x"],
    darks: Float[np.ndarray, "dark y x"] | None = None,
    *,
    counts: Float[np.ndarray, "view y x"] | None = None,
    mask: np.ndarray | None = None,
    steps: int = 12,
    cg_steps: int = 30,
    console: Console | None = None,
) -> Any:
    """Solve for `probe`, the wave of the empty beam at each position of the object, and `flux` one number a view.

    **Arguments:** `model`: a `diffrecon.models.Holography`, its window wider than the frames (`from_scan(scan,
    wider=1.3)`), so that what the beam is outside does not spoil their border; if it has a `probe`, that is the start.
    `flats` [counts] `(flat, y, x)` for all views or `(view, flat, y, x)`; `darks` [counts]; `counts`: holograms, which
    join the flats with the object as the model has it: for rounds of beam and object in turn; `mask` `(y, x)`, True
    where it was measured; `steps` of Levenberg-Marquardt with `cg_steps` conjugate gradients.

    **Returns:** the model with both.

    One complex wave in the object's plane of the first view, with the power law of its spectrum fitted to the flats as
    prior; the waves of the other views follow from it by Fresnel propagation and magnification. It is 1 beyond the
    window, so that what the border shows of the beam outside is taken for structure near the border.

    **Raises:** `InputError` for shapes that do not fit or flats that are not above the darks.

    **Cost:** `steps * cg_steps` products, each of two FFTs and two matrix products a view (twice with `counts`).
    """
    beam = _mean_beam(model, flats, darks)
    views = len(model.pixels)
    level = np.array([np.median(b if mask is None else b[mask]) for b in beam])
    model = model.replace(flux=jnp.asarray(level, model.flux.dtype)[:, None, None])
    contrast, number = beam / level[:, None, None] - 1, np.asarray(flats).shape[-3]
    power = _power(model, contrast, float(np.mean(1 / (level * number))))
    data = {"beam": beam, "mask": np.ones(model.frame, bool) if mask is None else mask}
    if counts is not None:
        data["counts"] = np.asarray(counts)
    for trust in _TRUST if model.probe is None else _TRUST[-1:]:
        rows = _Rows(jnp.asarray(trust, model.flux.dtype), counts is not None)  # an array: one program for all rounds
        start = BeamCoordinates.about(model, power, trust**2 * views * float(level.mean()))
        solution = levenberg_marquardt(
            rows,
            start,
            data,
            prior=BeamCoordinates.prior,
            steps=steps,
            cg_steps=cg_steps,
            unknowns=("white",),
            damping=0.03,
            tolerance=1e-3,
            block_size=views,
            probes=0,
            console=console,
            label="illumination: step",
        )
        model = solution.value.solution()
    return model


def flats_of_views(scan: Any) -> np.ndarray:
    """Sort the flats of a scan: `(view, flat, y, x)` where each view has its own, else `(flat, y, x)`, those of all.

    They are its own where the scan holds them so, where `extra["flat_views"]` says before which view each was taken,
    and where there are as many for each view, in the order of the views, and they are bright and dark as the views
    are.

    **Raises:** `InputError` where there are none, or they do not fit the views.
    """
    if scan.flats is None:
        raise InputError(f"{scan.name}: a beam of unknown wave (model.probe) needs flats, and there are none")
    flats, taken = np.asarray(scan.flats), scan.extra.get("flat_views")
    if (
        flats.ndim not in (3, 4)
        or flats.shape[-2:] != scan.frame_shape
        or (flats.ndim == 4 and len(flats) != scan.views)
    ):
        raise InputError(
            f"{scan.name}: flats have shape {flats.shape}; expected (flat, y, x) or (view, flat, y, x) for "
            f"{scan.views} views of {scan.frame_shape[0]} x {scan.frame_shape[1]}"
        )
    if flats.ndim == 4:
        return flats
    if taken is not None:
        groups = [flats[np.asarray(taken).astype(int) == view] for view in range(scan.views)]
        fewest = min(map(len, groups))
        return flats if fewest == 0 else np.stack([group[:fewest] for group in groups])
    if scan.views > 1 and len(flats) % scan.views == 0:
        own = flats.reshape(scan.views, -1, *flats.shape[1:])
        if _as_bright(scan, own.mean((1, 2, 3), dtype=float)):
            return own
    return flats


def _as_bright(scan: Any, levels: Float[np.ndarray, " view"]) -> bool:
    """Tell whether views are bright and dark as these flats are."""
    dark = 0.0 if scan.darks is None else float(np.mean(scan.darks))
    light = np.asarray(scan.counts).mean((1, 2), dtype=float) - dark
    levels = levels - dark
    if (light <= 0).any() or (levels <= 0).any():
        return False
    differ = float(np.std(np.log(levels)))
    return differ > 0.02 and float(np.std(np.log(light / levels))) < 0.5 * differ


def _mean_beam(model: Any, flats, darks) -> np.ndarray:
    """Average the flats of each view, without the dark [counts]."""
    flats, views = np.asarray(flats, float), len(model.pixels)
    if flats.ndim not in (3, 4) or flats.shape[-2:] != model.frame or (flats.ndim == 4 and flats.shape[0] != views):
        raise InputError(
            f"flats of shape {flats.shape} are neither (flat, {model.frame[0]}, {model.frame[1]}) nor "
            f"({views}, flat, {model.frame[0]}, {model.frame[1]})"
        )
    dark = np.asarray(model.dark, float) if darks is None else np.asarray(darks, float).mean(0)
    beam = np.broadcast_to(flats.mean(-3) - dark, (views, *model.frame))
    if not np.isfinite(beam).all() or not (np.median(beam, (1, 2)) > 0).all():
        raise InputError("the flats are not finite, or not above the darks")
    return np.maximum(beam, 0)


class BeamCoordinates(Coordinates):
    """Describe the wave of the empty beam, less one, in the plane of the first view by one white complex map.

    **Fields** beside those of `Coordinates`: `inverse_root` `(y, x)` of the power of real and imaginary part; from the
    plane of the first view to that of each: `steps` [m], and `magnifications` of its pixel over that of the first.
    """

    inverse_root: Float[Array, "y x"]
    steps: tuple[tuple[float, float], ...] = eqx.field(static=True)
    magnifications: tuple[tuple[float, float], ...] = eqx.field(static=True)

    @classmethod
    def about(cls, model: Any, power: Float[np.ndarray, "y x"], curvature: float) -> "BeamCoordinates":
        """Make the coordinates about a model's wave, or none, from the expected power and the data's curvature."""
        dtype = model.phase.dtype
        kernel = (1 / np.sqrt(1 / power + curvature))[None]
        white = jnp.zeros(kernel.shape, jnp.result_type(dtype, jnp.complex64))
        if model.probe is not None:
            white = filtered(model.probe[:1] - 1, jnp.asarray(1 / kernel, dtype)).astype(white.dtype)
        cast = lambda a: jnp.asarray(a, dtype)
        return cls(white, cast(kernel), {}, {}, model, cast(np.sqrt(2 / power)), *_planes(model))

    def put(self, model: Any, maps: Complex[Array, "1 y x"]) -> Any:
        """Light the model by the wave, carried to every position of the sample."""
        waves = [self._carried(maps[0], *plane) for plane in zip(self.steps, self.magnifications, strict=True)]
        return model.replace(probe=jnp.stack(waves))

    def prior(self) -> PyTree:
        """Compute the power of the wave over that of the law, half of it in the real and half in the imaginary part."""
        rows = self.inverse_root * jnp.fft.fft2(self.maps()[0], norm="ortho")
        return {"real": jnp.real(rows), "imaginary": jnp.imag(rows)}

    def _carried(self, structure, step, magnification) -> Complex[Array, "y x"]:
        """Carry the wave to another plane of the sample, on the same pixels."""
        if step == (0.0, 0.0) and magnification == (1.0, 1.0):
            return 1 + structure
        model, shape = self.model, structure.shape
        transfer = operators.fresnel_transfer(
            model.grid, pixel_size=model.pixel_size, wavelength=model.wavelength, distance=step, dtype=structure.dtype
        )
        moved = jnp.fft.ifft2(jnp.fft.fft2(structure, s=model.grid) * transfer)
        rows, columns = (
            operators.pixel_matrix(
                shape[a], model.grid[a], ratio=1 / magnification[a], centre=(shape[a] - 1) / 2, dtype=model.phase.dtype
            )
            for a in (0, 1)
        )
        parts = [operators.to_pixels(part(moved), rows, columns) for part in (jnp.real, jnp.imag)]
        return 1 + jax.lax.complex(*parts)


def _planes(model: Any) -> tuple[Any, Any]:
    """Compute distance from the first plane and magnification, from the curvature of the beam: `z1 = D / defocus`."""
    distances, defocus = np.asarray(model.distances, float), np.asarray(model.defocus)[:, None]
    curvature = defocus / distances  # 1 / z1 [1/m], zero in a parallel beam
    if np.allclose(curvature, curvature[:1], rtol=1e-3, atol=1e-12):
        same = ((0.0, 0.0),) * len(distances), ((1.0, 1.0),) * len(distances)
        return same
    first = 1 / curvature[0]
    steps = first**2 * (curvature[0] - curvature)
    scales = curvature[0] / curvature
    pairs = lambda a: tuple((float(v), float(h)) for v, h in a)
    return pairs(steps), pairs(scales)


def _power(model: Any, contrast: np.ndarray, noise: float) -> np.ndarray:
    """Expect the power of the wave at every frequency of the window, from the contrast of the flats.

    Amplitude and phase of the same power show, over all distances, as twice the power of the wave; phase alone, at low
    frequencies, as nothing: there the law is that of the higher ones.
    """
    shape = (model.phase.shape[0], model.phase.shape[1])
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in contrast.shape[1:]))
    spectrum = np.abs(np.fft.rfft2(contrast * window, norm="ortho")) ** 2 / np.mean(window**2)
    power = 0.5 * np.maximum(spectrum.mean(0) - noise, 0)
    law = PowerLaw.fit(power, radial_frequency(contrast.shape[1:]), (power > noise).astype(float))
    f = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None])
    ratio = np.mean(np.asarray(model.pixels)) / model.pixel_size  # of detector pixels to those of the window
    return law.level * np.maximum(f * ratio, 1 / max(shape)) ** law.slope * ratio**2


class _Rows(eqx.Module):
    """Residuals of flats, and of holograms, of variance one for photon noise, times a trust that grows to one."""

    trust: Float[Array, ""]
    holograms: bool = eqx.field(static=True)

    def __call__(self, coordinates: BeamCoordinates, batch: Batch) -> PyTree:
        """Compute the rows of some views."""
        model = coordinates.solution()
        off = lambda light, counts: self.trust * losses.anscombe_residual(light, counts, batch.mask)
        rows = {"flats": off(model.empty_beam(batch.views) - model.dark, batch.beam)}
        return rows | {"holograms": off(model(batch.views), batch.counts)} if self.holograms else rows
