"""Ptychography by projections on exit waves: difference map and RAAR.

The state holds one exit wave for each view and mode, with the object and probe that explain them best. Two sets are
projected onto: waves whose magnitudes on the detector are the measured ones, and waves that are one object times one
probe.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int, Num

from ... import operators, sharding
from ..._console import Console
from ...errors import InputError
from ..descent.minimise import Solution
from ..progress import Progress
from .set_projections import SetSolution, set_projections

__all__ = ["project_waves"]

# Of the largest weight: how much the previous object and probe count where few waves say anything.
INERTIA_OBJECT, INERTIA_PROBE = 1e-3, 1e-2


class Waves(eqx.Module):
    """Hold exit waves of all fitted views, and the object and probe of the last projection onto products."""

    waves: Complex[Array, "view mode y x"]
    object: Complex[Array, "Y X"]
    probe: Complex[Array, "mode y x"]


class Frames(eqx.Module):
    """Hold what was measured and where: the data of both projections."""

    counts: Num[Array, "view y x"]
    mask: Bool[Array, "#view y x"]
    corners: Int[Array, "view 2"]
    rest: Float[Array, "view 2"]
    gain: Float[Array, " view"]
    background: Float[Array, "#y #x"]
    efficiency: Float[Array, "y x"] | None
    transfer: Complex[Array, "*view y x"] | None
    oversampling: int = eqx.field(static=True)
    border: int = eqx.field(static=True)
    free_probe: bool = eqx.field(static=True)
    free_object: bool = eqx.field(static=True)

    @classmethod
    def of(cls, model: Any, data: Any, views: np.ndarray, unknowns: Any) -> "Frames":
        """Take the fitted views of a scan; positions, background, gain and distance stay as the model has them."""
        _refuse(model)
        places = model.places(views)
        corners, rest = operators.split_positions(places)
        mask = jnp.asarray(data["mask"])
        mask = mask[views] if mask.ndim == 3 else mask[None]
        return cls(
            jnp.asarray(np.asarray(data["counts"][views])),
            mask,
            corners,
            rest,
            model.gain[views],
            model.background,
            model.efficiency,
            None if model.far else model.to_detector(places),
            model.oversampling,
            model.border,
            "probe" in unknowns,
            "object" in unknowns,
        )

    def ramps(self, probe: Complex[Array, "mode y x"]) -> Complex[Array, "view 1 y x"]:
        """Give phase ramps of the sub-pixel shifts, of the probe's shape."""
        return operators.shift_ramps(self.rest, (probe.shape[-2], probe.shape[-1]))[:, None]

    def kernel(self, probe: Complex[Array, "mode y x"]) -> Complex[Array, "view 1 y x"] | None:
        """Give transfer functions from the sample to the detector, which stands still; none in the far field."""
        if self.transfer is None:
            return None
        transfer = self.transfer if self.transfer.ndim == 3 else self.transfer[None]
        return transfer[:, None] * jnp.conj(self.ramps(probe))


def project_waves(
    model: Any,
    data: Any,
    views: np.ndarray,
    unknowns: Any,
    *,
    rule: str,
    beta: float,
    steps: int,
    judge: Callable[[Any], float] | None = None,
    console: Console | None = None,
    label: str = "projections",
) -> Solution:
    """Solve for object and probe by projections on the exit waves of `views`; what else the model holds stays.

    **Arguments:** `data` as for `run_stages`; `rule` and `beta` of `diffrecon.solvers.set_projections`; `judge` gives
    the cost on views that were left out, asked every 50 steps.

    **Returns:** a `Solution`, whose history is the relative distance between the two sets.

    **Raises:** `InputError` for physics that has no exit waves, or where they do not fit the memory.

    **Cost:** a step is five FFTs a view and mode (seven in the near field); memory is six times all exit waves.
    """
    frames = Frames.of(model, data, views, unknowns)
    held: list[tuple[int, float]] = []
    # Noise keeps the difference map moving for ever: at the end alternating projections let it settle.
    settle = steps // 5 if rule == "dm" else 0

    def project(start: Any, rule: str, beta: float | None, steps: int, before: int) -> SetSolution:
        def look(report: Progress) -> None:
            if judge is not None:
                held.append((before + report.step, judge(_end_model(model, report.value))))

        return set_projections(
            _start_waves(start, frames),
            _onto_frames,
            _onto_product,
            frames,
            rule=rule,
            beta=beta,
            steps=steps,
            callback=look,
            console=console,
            label=label,
        )

    solution = project(model, rule, beta, steps - settle, 0)
    gaps = [solution.gap]
    if settle and solution.ending.finished:
        solution = project(_end_model(model, solution.state), "er", None, settle, steps - settle)
        gaps.append(solution.gap)
    curve = np.asarray(held).reshape(-1, 2)
    return Solution(
        _end_model(model, solution.value), np.concatenate(gaps), curve, solution.ending, detail=solution.detail
    )


def _refuse(model: Any) -> None:
    """Refuse physics in which a frame is not one wave's magnitudes."""
    unlike = [
        name
        for name in ("travel", "source_blur", "detector_blur", "slice_spacing", "probe_variations")
        if getattr(model, name) is not None
    ]
    if unlike or model.object.ndim != 2:
        what = unlike[0] if unlike else "slices"
        raise InputError(f"engines dm and raar work on exit waves and cannot describe {what}; use adam or lsqml")


def _start_waves(model: Any, frames: Frames) -> Waves:
    """Give the exit waves of a model.

    **Raises:** `InputError` where views x modes x frame do not fit the memory several times.
    """
    shape = (frames.counts.shape[0], *model.probe.shape)
    # Input and output of both projections and their combination, with room for Fourier transforms.
    needed, free = 6 * 8 * float(np.prod(shape)), sharding.free_memory(jax.local_devices()[0])
    if needed > free:
        raise InputError(
            f"engines dm and raar keep all exit waves, {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} "
            "GiB are free; use adam or lsqml, or fewer modes"
        )
    transmission = model.transmission().astype(model.probe.dtype)
    return Waves(_product(transmission, model.probe, frames), transmission, model.probe)


def _end_model(model: Any, state: Waves) -> Any:
    """Give the model with the object and probe of a state."""
    obj = state.object
    if model.refractive:
        obj = (-1j * jnp.log(jnp.where(obj == 0, 1, obj))).astype(model.object.dtype)
    return model.replace(object=obj.astype(model.object.dtype), probe=state.probe)


def _onto_frames(state: Waves, frames: Frames) -> Waves:
    """Find the nearest waves with the measured magnitudes; pixels that were not measured keep their value."""
    kernel = frames.kernel(state.probe)
    if kernel is None:
        detector = jnp.fft.fft2(state.waves, norm="ortho")
        return _replace_waves(state, jnp.fft.ifft2(detector * _correction(detector, frames), norm="ortho"))
    detector = jnp.fft.ifft2(jnp.fft.fft2(state.waves) * kernel)
    corrected = detector * _correction(detector, frames)
    return _replace_waves(state, jnp.fft.ifft2(jnp.fft.fft2(corrected) * jnp.conj(kernel)))


def _replace_waves(state: Waves, waves: Array) -> Waves:
    return Waves(waves, state.object, state.probe)


def _correction(detector: Complex[Array, "view mode y x"], frames: Frames) -> Float[Array, "view 1 y x"]:
    """Divide measured by predicted amplitudes on the wave's grid, one where nothing was measured."""
    edge, fine = frames.border, frames.oversampling
    predicted = operators.bin_pixels(operators.intensity(detector), fine)
    inner = predicted[:, edge : predicted.shape[1] - edge, edge : predicted.shape[2] - edge]
    gain = frames.gain[:, None, None]
    counts = jnp.where(frames.mask, frames.counts.astype(inner.dtype), 0)
    light = jnp.maximum(counts - frames.background**2, 0) / gain
    light = light if frames.efficiency is None else light / frames.efficiency
    ratio = jnp.sqrt(light / jnp.maximum(inner, 1e-6))
    ratio = jnp.where(frames.mask, ratio, 1)
    ratio = jnp.pad(ratio, ((0, 0), (edge, edge), (edge, edge)), constant_values=1)
    return jnp.repeat(jnp.repeat(ratio, fine, 1), fine, 2)[:, None]


def _onto_product(state: Waves, frames: Frames) -> Waves:
    """The nearest waves that are one object times one probe: weighted averages of the waves, object and probe by turns
    (Thibault, Dierolf, Bunk, Menzel & Pfeiffer 2009). One turn a projection is enough: each starts from the last one's.
    """
    obj, probe = state.object, state.probe
    if frames.free_object:
        obj = _averaged_object(state.waves, obj, probe, frames)
    if frames.free_probe:
        probe = _averaged_probe(state.waves, obj, probe, frames)
    return Waves(_product(obj, probe, frames), obj, probe)


def _shifted(probe: Array, frames: Frames) -> Complex[Array, "view mode y x"]:
    return jnp.fft.ifft2(jnp.fft.fft2(probe) * frames.ramps(probe))


def _product(obj: Array, probe: Array, frames: Frames) -> Complex[Array, "view mode y x"]:
    patches = operators.extract(obj, frames.corners, (probe.shape[-2], probe.shape[-1]))
    return patches[:, None] * _shifted(probe, frames)


def _averaged_object(waves: Array, obj: Array, probe: Array, frames: Frames) -> Complex[Array, "Y X"]:
    beam = _shifted(probe, frames)
    light = operators.deposit(jnp.zeros(obj.shape, waves.real.dtype), frames.corners, operators.intensity(beam))
    total = operators.deposit(jnp.zeros_like(obj), frames.corners, jnp.sum(jnp.conj(beam) * waves, 1))
    inertia = INERTIA_OBJECT * jnp.max(light)
    return (total + inertia * obj) / (light + inertia)


def _averaged_probe(waves: Array, obj: Array, probe: Array, frames: Frames) -> Complex[Array, "mode y x"]:
    patches = operators.extract(obj, frames.corners, (probe.shape[-2], probe.shape[-1]))
    spectra = jnp.fft.fft2(jnp.conj(patches)[:, None] * waves)
    total = jnp.fft.ifft2(jnp.sum(spectra * jnp.conj(frames.ramps(probe)), 0))
    light = jnp.sum(jnp.abs(patches) ** 2, 0)
    inertia = INERTIA_PROBE * jnp.max(light)
    return (total + inertia * probe) / (light + inertia)
