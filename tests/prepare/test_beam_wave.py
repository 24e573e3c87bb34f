"""The wave of a beam at the detector: what it does to holograms, against NumPy, and the frames it explains."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from diffrecon import ConeBeam, Scan
from diffrecon.models import Holography
from diffrecon.operators.fourier import twice_as_fine
from diffrecon.prepare import BeamAtDetector, FlatBeam, flat_components

N = 32
PLACE = ConeBeam(17e3, np.array([0.0213, 0.0259]), 1.28, 18e-6)


def model_of(**options) -> Holography:
    scan = Scan.from_arrays(np.ones((2, N, N), np.uint16), method="holography", geometry=PLACE, flux=1000.0)
    return Holography.from_scan(scan, borderless=True, **options)


def stripes(axis: np.ndarray) -> np.ndarray:
    return 0.1 * np.cos(2 * np.pi * axis / 11 + 1) * np.exp(-((axis / 9) ** 2))


def beam_of(model: Holography) -> BeamAtDetector:
    axis = np.arange(N) - (N - 1) / 2
    mean = 1000 * (1 + stripes(axis)[:, None] * np.ones(N))
    return BeamAtDetector.about(model, FlatBeam(mean, 5 * np.ones((1, N, N)), np.zeros((2, 1))), 0.2)


def test_without_an_object_every_distance_sees_the_wave_that_reaches_the_detector():
    model = model_of()
    beam = beam_of(model)
    size = beam.white.shape[1]
    axis = np.arange(size) - (size - 1) / 2
    phase = 3 * stripes(axis)[None, :] * np.exp(-((axis / 9) ** 2))[:, None]
    maps = jnp.zeros_like(beam.white).at[0].set(jnp.asarray(phase))
    lit = beam.put(model, maps)
    frames = np.asarray(lit(np.arange(2)))
    middle = slice(6, -6)
    expected = 1000 * (1 + stripes(np.arange(N) - (N - 1) / 2))[:, None]
    np.testing.assert_allclose(
        frames[:, middle, middle], np.broadcast_to(expected, (2, N, N))[:, middle, middle], rtol=0.02
    )
    assert np.abs(np.angle(np.asarray(lit.probe[0]))).max() > 0.05  # its phase is there, and no flat shows it
    assert np.abs(lit.probe[0] - lit.probe[1]).max() > 0.02  # carried back over other distances


def test_a_drift_moves_the_beam_along_its_component_and_a_far_one_is_unlikely():
    model = model_of()
    beam = beam_of(model)
    assert not np.any(beam.prior()["drifts"])
    far = eqx.tree_at(lambda b: b.drifts, beam, jnp.asarray([[0.0], [2.0]]) / beam.step)
    np.testing.assert_allclose(far.prior()["drifts"][:2], [[0.0], [2.0]], rtol=1e-5)
    assert far.prior()["drifts"][2, 0] > 20  # frames are taken between the flats: on the average they do not drift
    frames = [np.asarray(one.put(model, one.maps())(np.arange(2)))[:, 8:-8, 8:-8].mean((1, 2)) for one in (beam, far)]
    np.testing.assert_allclose(frames[1] - frames[0], [0, 10], atol=0.5)


def test_components_of_flats_that_drift():
    random, axis = np.random.default_rng(0), np.arange(N) - (N - 1) / 2
    flats = [
        random.poisson(4000 * (1 + np.cos((axis - d) / 2) * 0.2)[:, None] * np.ones(N)) for d in np.linspace(0, 1, 12)
    ]
    mean, components = flat_components(np.array(flats) + 10.0, 10.0)
    assert abs(mean.mean() / 4000 - 1) < 0.05 and len(components) == 1
    slope = components[0].mean(1)
    assert abs(np.corrcoef(slope, np.sin((axis - 0.5) / 2))[0, 1]) > 0.95


def test_twice_as_fine_is_a_fourier_series():
    x = np.arange(12)
    coarse = np.cos(2 * np.pi * x / 12 + 0.3)[:, None] * np.ones(8)
    fine = np.cos(2 * np.pi * (np.arange(24) / 2 - 0.25) / 12 + 0.3)[:, None] * np.ones(16)
    np.testing.assert_allclose(twice_as_fine(jnp.asarray(coarse)), fine, atol=1e-5)
