"""Each unknown alone: in sets simulated independently one thing is wrong, and it is found with object and probe free.

All sets have photon noise (2000 counts a pixel on average), 25 views of 32 x 32. Object and probe start where they are
right and are free, so that what they could explain in its place (an ambiguity) would show.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import ptychography_sets as sets
import pytest
from ptychography_sets import DISTANCE, Optics

import diffrecon as dr
from diffrecon.models import Ptychography
from diffrecon.solvers import levenberg_marquardt

pytestmark = pytest.mark.slow

real = functools.partial(jnp.asarray, dtype=jnp.float32)
typed = lambda values: jnp.asarray(values, jnp.complex64 if np.iscomplexobj(values) else jnp.float32)


class Switched(dr.Model):
    """A model whose unknowns are switched on by numbers and not by names: one compiled program for all of them."""

    moving: dict[str, Any]
    start: dict[str, Any]
    switch: dict[str, Any]
    base: Ptychography

    def __call__(self, views):
        return self.found()(views)

    def found(self) -> Ptychography:
        move = lambda name: self.start[name] + self.switch[name] * (self.moving[name] - self.start[name])
        return self.base.replace(**{name: move(name) for name in self.moving})


def residual(model, batch):
    """Amplitudes over their standard deviation; a blurred dark pixel may be negative by rounding."""
    return 2 * (jnp.sqrt(jnp.maximum(model(batch.views), 0) + 0.01) - jnp.sqrt(batch.counts + 0.01))


def plain(truth: sets.Truth, near: bool, fields: dict[str, Any], **options) -> Ptychography:
    """The model that knows object and probe, and of the rest only what a plain scan has."""
    obj = truth.objects if len(truth.objects) > 1 else truth.objects[0]
    return Ptychography(
        jnp.asarray(obj, jnp.complex64), jnp.asarray(truth.probe[None], jnp.complex64), real(truth.nominal),
        real(np.zeros((1, 1))), real(np.ones(len(truth.nominal))), real(DISTANCE) if near else None,
        sets.WAVELENGTH, sets.PIXEL, not near, **{k: typed(v) for k, v in fields.items()}, **options,
    )  # fmt: skip


def solve(start: Ptychography, truth: sets.Truth, common: tuple[str, ...], wanted: str, steps: int) -> Ptychography:
    names = ("object", "probe", *common)
    values = {name: getattr(start, name) for name in names}
    switch = {name: real(name in ("object", "probe", *wanted.split())) for name in names}
    solution = levenberg_marquardt(
        residual, Switched(values, values, switch, start), {"counts": truth.counts}, unknowns=("moving",), steps=steps,
        cg_steps=20, block_size=len(truth.counts), probes=2, tolerance=1e-6,
    )  # fmt: skip
    return solution.value.found()


# ------------------------------------------------------------------ what is compared, per unknown
def places(model, truth):
    """Distance of each view from where it was, less the mean: a shift of all is a shift of the object."""
    error = np.asarray(model.places(np.arange(len(truth.places)))) - truth.places
    return np.sqrt(np.mean((error - error.mean(0)) ** 2))


def gain(model, truth):
    """Relative error, less what data cannot tell: a factor belongs to the probe, and one that grows exponentially along
    the scan to an object that fades, `O exp(b r)` with `P exp(-b r)`: their product is `exp(b s)` times the old one.
    """
    ratio = np.log(np.asarray(model.gain) / truth.gain)
    free = np.column_stack([np.ones(len(ratio)), truth.places])
    return np.std(ratio - free @ np.linalg.lstsq(free, ratio, rcond=None)[0])


def relative(name: str, value: Any) -> Callable:
    value = np.asarray(value, float)
    return lambda model, truth: np.max(abs(np.asarray(getattr(model, name), float) - value)) / np.max(abs(value))


def misfit(model, truth):
    """Root mean square of what is left between the model and the frames without noise, in units of the noise."""
    found = np.asarray(model(np.arange(len(truth.expected))))
    return 2 * np.sqrt(np.mean((np.sqrt(found) - np.sqrt(truth.expected)) ** 2))


@dataclasses.dataclass
class Case:
    """`optics`: the truth; `start`: fields as the model has them at first; `tolerance` of `error(model, truth)`."""

    unknown: str
    optics: Optics
    start: dict[str, Any]
    error: Callable
    tolerance: float
    steps: int = 20


MATRIX = np.array([[1.02, 0.02], [-0.01, 0.98]])
DRIFT = np.array([[0.0, 0.0], [0.8, -0.6], [-0.3, 0.9]])
SHAKEN = {"positions": np.random.default_rng(5).normal(0, 0.7, (sets.VIEWS**2, 2))}
OFF = {"scan_matrix": np.eye(2), "drift": np.zeros((3, 2)), "detector_blur": 0.01}
# Of two ways in which the probe may change nothing is known: noise where the light is, since zeros would never move.
NOISE = np.random.default_rng(1).standard_normal((2, sets.FRAME, sets.FRAME, 2)) @ [1, 1j]
VARYING = {"probe_variations": 0.1 * NOISE * abs(sets.illumination(np.random.default_rng(0), True)),
           "variation_weights": 0.3 * np.random.default_rng(2).standard_normal((sets.VIEWS**2, 2))}  # fmt: skip
STILL = {name: 0 * value for name, value in VARYING.items()}
NEAR_OFF = OFF | STILL | {"astigmatism": 0.0, "tilt": np.zeros(2)}
ANYWHERE = [
    Case("positions", Optics(), SHAKEN, places, 0.05),
    Case("gain", Optics(gain_spread=0.1), {}, gain, 0.01),
    Case("background", Optics(background=50.0), {"background": 3.5}, relative("background", 50**0.5), 0.05),
    Case("scan_matrix", Optics(scan_matrix=MATRIX), {}, relative("scan_matrix", MATRIX), 2e-3),
    Case("drift", Optics(drift=DRIFT), {}, places, 0.05),
    Case("detector_blur", Optics(detector_blur=0.8), {"detector_blur": 0.4}, relative("detector_blur", 0.8), 0.05),
]
NEAR = [
    *ANYWHERE,
    Case("distance", Optics(distance=1.03 * DISTANCE), {}, relative("distance", 1.03 * DISTANCE), 1e-3),
    Case("astigmatism", Optics(astigmatism=3e-4), {}, relative("astigmatism", 3e-4), 0.05),
    Case("tilt", Optics(tilt=(200.0, -300.0)), {}, relative("tilt", (200.0, -300.0)), 0.05),
    # What remains is below the photon noise, which is 1.
    Case(" ".join(VARYING), Optics(wobble=0.1), VARYING, misfit, 0.9),
]
NAMES = ("positions", "gain", "background")


def check(case: Case, near: bool, off: dict[str, Any], **options) -> None:
    """Off the tolerance at first, within it in the end."""
    optics = dataclasses.replace(case.optics, near=near)
    truth = sets.make(optics)
    start = plain(truth, near, off | {k: v for k, v in case.start.items() if k not in NAMES}, **options)
    start = start.replace(
        positions=start.positions + real(case.start.get("positions", 0.0)),
        background=start.background + case.start.get("background", 0.0),
    )
    known = (*NAMES, *(("distance",) if near else ()), *off)
    found = solve(start, truth, tuple(dict.fromkeys((*known, *case.unknown.split()))), case.unknown, case.steps)
    assert case.error(start, truth) > 2 * case.tolerance
    assert case.error(found, truth) < case.tolerance


@pytest.mark.parametrize("case", NEAR, ids=lambda c: c.unknown)
def test_near_field(case):
    check(case, True, NEAR_OFF)


@pytest.mark.parametrize("case", ANYWHERE, ids=lambda c: c.unknown)
def test_far_field(case):
    check(case, False, OFF)


def test_slice_spacing():
    """Two slices, both free."""
    spacing = 1e-3
    check(
        Case(
            "slice_spacing",
            Optics(slice_spacing=spacing),
            {"slice_spacing": 0.85 * spacing},
            relative("slice_spacing", spacing),
            0.05,
        ),
        True,
        {},
    )


TRAVEL, BLUR = (2.0, -1.0), (0.7, 0.5)
EXPOSURES = [
    (Case("travel", Optics(travel=TRAVEL), {"travel": [[1.2, -0.3]]}, relative("travel", [TRAVEL]), 0.05),
     {"nodes": 3}),
    (Case("source_blur", Optics(source_blur=BLUR), {"source_blur": [0.4, 0.4]}, relative("source_blur", BLUR), 0.05),
     {"nodes": 3}),
]  # fmt: skip


@pytest.mark.nightly
@pytest.mark.parametrize("case, options", EXPOSURES, ids=lambda c: getattr(c, "unknown", ""))
def test_exposures(case, options):
    check(case, True, {}, **options)


@pytest.mark.parametrize("case, options", EXPOSURES, ids=lambda c: getattr(c, "unknown", ""))
def test_exposures_where_object_and_probe_are_known(case, options):
    """Undamped Gauss-Newton steps in the unknown alone."""
    truth = sets.make(case.optics)
    start = found = plain(truth, True, case.start, **options)
    batch = dr.Batch(np.arange(len(truth.counts)), {"counts": jnp.asarray(truth.counts)})
    rows = lambda value, model: residual(model.replace(**{case.unknown: value}), batch)
    derivative = jax.jit(lambda value, model: (rows(value, model), jax.jacfwd(rows)(value, model)))
    for _ in range(4):
        value = getattr(found, case.unknown)
        left, slope = (np.asarray(a, float) for a in derivative(value, start))
        step = np.linalg.lstsq(slope.reshape(left.size, -1), left.ravel(), rcond=None)[0]
        found = found.replace(**{case.unknown: value - real(step.reshape(value.shape))})
    assert case.error(start, truth) > 2 * case.tolerance
    assert case.error(found, truth) < 0.4 * case.tolerance


@pytest.mark.parametrize("near", [True, False])
def test_places_of_unseen_views(near):
    """Views of an object and probe that are known, two pixels and a gain away: found as well as photons allow."""
    truth = sets.make(Optics(near=near, gain_spread=0.1, seed=3))
    off = np.random.default_rng(0).uniform(-2, 2, truth.places.shape)
    model = plain(truth, near, {}).replace(positions=real(truth.places + off))
    found = dr.solvers.fit_places(model, truth.counts, np.ones(truth.counts.shape[1:], bool))
    assert np.abs(found - truth.places).max() < 0.05
    dark = dr.solvers.fit_places(model, truth.counts, np.zeros(truth.counts.shape[1:], bool))
    np.testing.assert_array_equal(dark, model.positions)  # nothing was measured: left where they were
