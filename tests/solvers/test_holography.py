"""Gauss-Newton holography in white coordinates, and what noise leaves open, on small problems with known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon import Batch, ConeBeam, Scan
from diffrecon.losses import anscombe_residual
from diffrecon.models import Holography
from diffrecon.operators.fourier import radial_frequency
from diffrecon.priors import Coordinates, PowerLaw
from diffrecon.solvers import (
    HologramCoordinates,
    MarginalResidual,
    fit_holograms,
    hologram_details,
    measured_curvature,
    posterior_deviation,
    posterior_error,
    transfer_curvature,
)

SIZE, LAW = 32, PowerLaw(1e-3, -3.0)


@pytest.fixture(scope="module")
def holograms():
    """A model of a weak disc at two distances, and its counts."""
    beam = ConeBeam(17e3, np.array([0.0213, 0.0259]), 1.28, 30e-6)
    scan = Scan.from_arrays(np.ones((2, SIZE, SIZE)), method="holography", geometry=beam, flux=4000.0)
    model = Holography.from_scan(scan, delta_beta=500.0, shape=(SIZE, SIZE))
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    model = model.replace(phase=jnp.asarray(-0.4 * np.exp(-(y**2 + x**2) / 30), jnp.float32))
    return model, np.random.default_rng(0).poisson(np.asarray(model(jnp.arange(2))))


def test_measured_curvature_of_a_weak_object_is_that_of_the_transfer_functions(holograms):
    """In a band of frequencies whose fringes stay in the field; some leave it at the border, which lowers it."""
    model = holograms[0].replace(phase=jnp.full((SIZE, SIZE), -0.01))
    weak, measured = transfer_curvature(model), measured_curvature(model)
    frequency = radial_frequency((SIZE, SIZE))
    band = (frequency > 0.15) & (frequency < 0.35)
    means = [float(np.asarray(curvature.of_phase(model))[band].mean()) for curvature in (measured, weak)]
    assert 0.8 < means[0] / means[1] < 1.05
    ratio = np.asarray(model.pixels)[:, 0] / model.pixel_size
    assert float(weak.flux) == pytest.approx(np.mean(4000 / ratio**2))  # counts on a pixel of the object


def test_details_have_the_variance_that_data_and_prior_leave_them(holograms):
    """Of one map, 1 / (K + P) at every frequency that pixels twice as large lack, in two parts; of two maps more."""
    curvature, frequency = transfer_curvature(holograms[0]), radial_frequency((SIZE, SIZE))
    noise, held_back = np.asarray(hologram_details(holograms[0], curvature, [LAW]))[:, 0]
    fine = np.maximum(np.abs(np.fft.fftfreq(SIZE))[:, None], np.fft.rfftfreq(SIZE)) >= 0.25
    known, prior = np.asarray(curvature.of_phase(holograms[0])), 1 / LAW(frequency)
    np.testing.assert_allclose((noise + held_back)[fine], (1 / (known + prior))[fine], rtol=1e-3)
    np.testing.assert_allclose(noise[fine] * prior[fine], held_back[fine] * known[fine], rtol=1e-3)
    assert not noise[~fine].any() and not held_back[~fine].any()
    two = np.asarray(hologram_details(holograms[0], curvature, [LAW, LAW]))[:, 0].sum(0)
    assert (two[fine] > 0.999 * (noise + held_back)[fine]).all()


def test_coordinates_begin_at_their_model(holograms):
    model = holograms[0].replace(attenuation=0.1 * holograms[0].phase ** 2)
    start = HologramCoordinates.about(model, transfer_curvature(model), [LAW, LAW], refine=["shifts", "flux"])
    back = start.solution()
    for name in ("phase", "attenuation", "shifts", "flux"):
        assert np.allclose(getattr(back, name), getattr(model, name), atol=1e-4)
    assert float(start.scales["shifts"][0].max()) == 0 < float(start.scales["shifts"][1].min())  # the first frame stays


def test_a_round_finds_the_phase_and_other_strengths_compile_nothing(holograms):
    model, counts = holograms
    empty, data = model.replace(phase=jnp.zeros((SIZE, SIZE))), {"counts": jnp.asarray(counts)}
    start = lambda law, **strengths: HologramCoordinates.about(empty, transfer_curvature(empty), [law], **strengths)
    found = fit_holograms(start(LAW), data).value
    rows = np.asarray(anscombe_residual(found(jnp.arange(2)), counts))
    assert 0.45 < np.mean(rows**2) < 1.0  # photon noise, less what half as many unknowns as counts follow of it
    off = np.asarray(found.phase - model.phase)  # what holograms hardly show: the lowest frequencies
    assert np.linalg.norm(off - off.mean()) < 0.3 * np.linalg.norm(model.phase - model.phase.mean())
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: compiled.append(name) if name.endswith("backend_compile_duration") else None
    )
    fit_holograms(start(PowerLaw(2e-3, -4.0), raised=0.1, vacuum=0.1, variation=1.0), data, steps=3, cg_steps=7)
    assert not compiled


class Image(Coordinates):
    """One map that is measured directly, expected to have the variance 1/3."""

    def put(self, model, maps):
        return maps[0]

    def prior(self):
        return {"known": jnp.sqrt(3.0) * self.maps()}


def measured(image, batch):
    return image.solution()[None] - batch.counts


def test_errors_have_the_variance_of_the_posterior():
    """Noise of variance 1 in data and prior: the posterior has the variance 1/4."""
    image = Image(jnp.zeros((1, 64, 64)), jnp.ones((1, 1, 1, 1)), {}, {}, None)
    data = {"counts": jnp.zeros((1, 64, 64))}
    error = np.asarray(posterior_error(measured, image, data, 0))
    assert error.var() == pytest.approx(1 / 4, rel=0.1)
    assert np.asarray(posterior_deviation(measured, image, data, 0)) == pytest.approx(1 / 2, rel=0.2)
    rows = MarginalResidual(measured)(image, Batch(jnp.arange(1), data | {"spread": jnp.asarray(error[None])}))
    assert np.allclose(rows["spread"], error) and np.allclose(rows["data"], 0)
