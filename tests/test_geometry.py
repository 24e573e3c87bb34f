"""Projection microscope, parallel beam, far field."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffrecon as dr


def test_cone_beam_obeys_the_fresnel_scaling_theorem():
    z1, z2 = 3.65e-3, 1.12
    beam = dr.ConeBeam(energy=12658.0, focus_to_sample=z1, focus_to_detector=z1 + z2, detector_pixel=55e-6)
    assert beam.magnification == pytest.approx(307.85, abs=0.01)
    assert beam.pixel_size == pytest.approx(178.66e-9, abs=0.01e-9)
    assert beam.distance == pytest.approx(z1 * z2 / (z1 + z2), rel=1e-12)
    assert beam.wavelength == pytest.approx(dr.physics.energy_to_wavelength(12658.0))
    # The Fresnel number of the detector pixel in the cone is that of the effective pixel in the parallel beam.
    one = dr.physics.fresnel_number(beam.pixel_size, beam.wavelength, beam.distance)
    assert one == pytest.approx(55e-6**2 / (beam.wavelength * z2 * beam.magnification), rel=1e-12)


def test_astigmatic_beam_has_a_pair_of_everything():
    z1 = np.array([20e-3, 22e-3])
    beam = dr.ConeBeam(17e3, z1, 1.28, 3e-6)
    np.testing.assert_allclose(beam.magnification, 1.28 / z1)
    np.testing.assert_allclose(beam.distance, z1 * (1.28 - z1) / 1.28)
    dr.operators.fresnel_transfer(
        (8, 8), pixel_size=beam.pixel_size, wavelength=beam.wavelength, distance=beam.distance
    )


def test_every_number_may_be_an_unknown():
    def distance(z1):
        return dr.ConeBeam(17e3, z1, 1.28, 3e-6).distance * 1e3

    slope = jax.grad(distance)(jnp.asarray(0.02))
    assert float(slope) == pytest.approx(1e3 * (1 - 2 * 0.02 / 1.28), rel=1e-5)


def test_parallel_beam_and_what_is_not_known():
    beam = dr.ParallelBeam(detector_pixel=1e-6, energy=20e3, sample_to_detector=0.1)
    assert (beam.pixel_size, beam.distance) == (1e-6, 0.1) and beam.wavelength == pytest.approx(6.199e-11, rel=1e-3)
    nothing = dr.ParallelBeam()
    assert nothing.pixel_size is nothing.wavelength is nothing.distance is None


def test_far_field_pixel():
    beam = dr.FarField(128, energy=8e3, sample_to_detector=2.0, detector_pixel=75e-6)
    assert beam.pixel_size == pytest.approx(beam.wavelength * 2.0 / (128 * 75e-6), rel=1e-12)
    assert dr.FarField(128).pixel_size is None and dr.FarField(128, sample_pixel=5e-9).pixel_size == 5e-9
