"""Where far-field ptychography begins when nobody knows the beam: the pupil of the mean frame, at several defoci."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._console import Console
from ..frames import pick_views
from ..modality import Outcome
from ..models import Ptychography
from ..solvers import EngineTask, ScanCost, run_engine

_DEFOCI = (-2.6, -1.5, -0.85, -0.5, 0.5, 0.85, 1.5, 2.6)  # times that of a spot as wide as a quarter of the frame
_OWN = 1.0  # the probe that the model has
_ALIKE = 0.8  # a few epochs do not tell costs apart that differ less: the middle one is taken
_VIEWS = 64
_EPOCHS = (5, 9)  # of all, and of those that are left then
_LEFT = 3


def focused(problem: Any, task: EngineTask) -> Outcome:
    """Begin with the probe of the defocus that fits best, nothing else moved."""
    waves = {name: problem.unknowns[name] for name in ("object", "probe")}
    still = dataclasses.replace(task, unknowns=waves, cost=ScanCost(saturation=problem.saturation))
    model = best_defocus(problem.model, still, task.console)
    return Outcome(problem.replace(model=model), np.zeros(0))


def best_defocus(model: Ptychography, task: EngineTask, console: Console) -> Ptychography:
    """Give the model with the probe, of several defoci, from which the frames in the middle of the scan fit best.

    The sign of the defocus and its size to a third are what the first steps must know: from the other side of the focus
    descent ends in a twin that fits no frame. Cost: some forty steps of one mode for each defocus, and sixty more for
    the best three.
    """
    places = np.asarray(model.positions, float)
    near = np.argsort(np.linalg.norm(places - np.median(places, 0), axis=1), kind="stable")[:_VIEWS]
    near = np.sort(near)
    data = _some(task.data, near)
    some = dataclasses.replace(task, data=data, console=Console(quiet=True), checkpoint=None, resume=False)
    own = np.asarray(model.probe)
    probes = {_OWN: own, **{defocus: _refocused(own, defocus) for defocus in _DEFOCI}}
    part = model.of_views(near)
    trials = {d: part.replace(probe=_strongest(probe, model.probe.dtype)) for d, probe in probes.items()}
    costs: dict[float, float] = {}
    for epochs in _EPOCHS:
        for number, defocus in enumerate(trials, 1):
            console.passing(f"defocus {number} of {len(trials)} ...")
            found = run_engine("adam", trials[defocus], epochs, some)
            trials[defocus] = found.value
            costs[defocus] = float(np.mean(found.history[-(-len(near) // some.batch_size) :]))
        trials = {defocus: trials[defocus] for defocus in sorted(trials, key=lambda d: costs[d])[:_LEFT]}
    best = min(trials, key=lambda d: costs[d] * (_ALIKE if d == _OWN else 1))
    console.say(
        f"first probe: the mean frame's pupil, its defocus {best:+g} times that of a spot as wide as a quarter of the "
        f"frame (cost {costs[best]:.3g}; of {len(costs) - 1} others up to {max(costs.values()):.3g})"
    )
    return model.replace(probe=jnp.asarray(probes[best], model.probe.dtype))


def _strongest(probe: np.ndarray, dtype: Any) -> Any:
    """The first mode with the light of all."""
    return jnp.asarray(probe[:1] * np.sqrt(np.sum(abs(probe) ** 2) / np.sum(abs(probe[0]) ** 2)), dtype)


def _some(data: Mapping[str, Any], views: np.ndarray) -> dict[str, Any]:
    return {name: values if name == "mask" else pick_views(values, views) for name, values in data.items()}


def _refocused(probe: np.ndarray, defocus: float) -> np.ndarray:
    """The modes with the pupils that they have, and another curvature of their phase."""
    rows, columns = probe.shape[-2:]
    pupil = np.abs(np.fft.fft2(np.fft.ifftshift(probe, (-2, -1))))
    fy, fx = np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None]
    square, power = fy**2 + fx**2, np.sum(pupil[0] ** 2)
    width = np.sqrt(np.sum(pupil[0] ** 2 * square) / power)
    bend = defocus * 0.125 * min(rows, columns) / max(float(width), 1e-6)
    turned = np.exp(1j * np.angle(np.fft.fft2(np.fft.ifftshift(probe, (-2, -1)))))
    first = np.exp(-1j * np.angle(turned[0])) * turned  # further modes keep what they have beside the first
    waves = np.fft.fftshift(np.fft.ifft2(pupil * first * np.exp(-1j * np.pi * bend * square)), (-2, -1))
    return waves * np.sqrt(np.sum(abs(probe) ** 2) / np.sum(abs(waves) ** 2))
