"""A result that is none says so, whatever the method."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pytest

import diffrecon as dr
from diffrecon import Modality, Model, Problem, Quantity, quality
from diffrecon.modality import Outcome, Stage, register
from diffrecon.models import SaxsTensor
from diffrecon.operators import TensorGeometry, TensorProjector, rotations_from_angles
from diffrecon.recipes._tensor_figures import judged
from diffrecon.settings import section, setting


class Level(Model):
    level: jnp.ndarray

    def __call__(self, views):
        return self.level * jnp.ones((len(views), 8, 8))


@dataclass(frozen=True)
class Solver:
    level: float = setting(1.0, "what is found")


@dataclass(frozen=True)
class Quality:
    held_out: float = setting(0.2, "share of views never fitted")


@dataclass(frozen=True)
class Settings:
    solver: Solver = section(Solver)
    quality: Quality = section(Quality)


class Guess(Modality):
    """Finds whatever it is told."""

    name, settings = "guess", Settings

    def start(self, scan, settings, console):
        return Problem(Level(jnp.ones(())), {"counts": scan.counts}, lambda model, batch: 0.0, {"level": 1.0})

    def stages(self, problem, settings, console):
        model = Level(jnp.sqrt(settings.solver.level) ** 2)  # no number below zero
        yield Stage("guess", lambda problem, run: Outcome(problem.replace(model=model), np.zeros(0)), keeps=())

    def quantities(self, problem, scan, settings):
        return {"level": Quantity(np.asarray(problem.model.level), "", (), kind="data")}


def guessed(level):
    register(Guess)
    counts = np.random.default_rng(0).poisson(100.0, (20, 8, 8))
    return dr.reconstruct(dr.Scan.from_arrays(counts), "guess", {"solver": {"level": level}})


def test_the_driver_names_a_failure_of_any_method(monkeypatch):
    assert guessed(1.0).verdict[0].startswith("FAILED: held-out residual R 0.9")
    assert not any("FAILED" in line for line in guessed(100.0).verdict)


def test_the_driver_refuses_what_is_no_number(monkeypatch):
    with pytest.raises(dr.InputError, match="the level found is not finite"):
        guessed(-1.0)


def test_figures_of_a_failure():
    assert quality.failures({"held_out_residual": 0.4, "relative_residual": 0.3, "history": np.ones(3)}) == []
    assert len(quality.failures({"held_out_residual": 0.6, "relative_residual": float("nan")})) == 2
    wrong = {"relative_residual_phase": 0.95, "Fe_misfit": 0.97, "Fe_misfit_noise": 0.2, "clipped_fraction": 0.7}
    assert ["(phase)" in line or "(Fe)" in line or "70%" in line for line in quality.failures(wrong)] == [True] * 3
    noisy = {"held_out_residual": 0.6, "noise_floor_residual": 0.55, "Cu_misfit": 1.0, "Cu_misfit_noise": 0.9}
    assert quality.failures(noisy | {"clipped_fraction": 0.01}) == []


def test_maps_of_nothing_but_zero_are_a_failure():
    """Two elements, one absent: a result; both: none. A wave that is the same everywhere has not been solved for."""
    of = lambda *maps: {f"map {i}": Quantity(np.asarray(m), "1", ("y", "x")) for i, m in enumerate(maps)}
    some, none, wave = np.eye(4), np.zeros((4, 4)), np.full((4, 4), 1 + 0j)
    assert quality.failures({}, of(some, none)) == [] and quality.failures({}, of(some + 0j)) == []
    bars = {"a_error": Quantity(some, "1", ("y", "x"))}
    assert "map 0 and map 1 are the same" in quality.failures({}, of(none, none) | bars)[0]
    assert len(quality.failures({}, of(wave))) == 1 and quality.failures({}, {}) == []


def test_the_residual_of_tensor_saxs_is_relative_to_the_data():
    """Half of the intensity is missing: a half, whatever the first fit left; bad data do not count."""
    geometry = TensorGeometry(rotations_from_angles(np.linspace(0, np.pi, 3), np.zeros(3)))
    A = TensorProjector(geometry, (4, 4, 4), (4, 4), ell_max=2)
    coefficients = jnp.zeros((4, 4, 4, 6)).at[1:3, 1:3, 1:3, 0].set(1.0)
    data = np.array(2 * A(coefficients))
    weights = np.ones_like(data)
    data[0, 0, 0], weights[0, 0, 0] = np.nan, 0
    data[1, 1, 1], weights[1, 1, 1] = 1e6, 0
    problem = Problem(SaxsTensor(coefficients, A), {"counts": data, "weights": weights}, lambda m, b: 0.0, {})
    assert judged(problem)[0]["relative_residual"] == pytest.approx(0.5, abs=1e-5)
