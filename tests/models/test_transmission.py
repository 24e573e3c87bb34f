"""Expected counts of a transmission tomogram."""

import jax.numpy as jnp
import numpy as np
import pytest

import diffrecon as dr
from diffrecon.errors import InputError
from diffrecon.models import TransmissionTomography

ANGLES = np.linspace(0, np.pi, 10, endpoint=False)


@pytest.fixture(scope="module")
def projector():
    return dr.operators.ParallelProjector(ANGLES, (16, 16), 24)


def test_counts_are_lambert_beer(projector):
    volume = jnp.full((2, 16, 16), 0.02)
    flats = np.linspace(50, 100, 48).reshape(2, 24)
    model = TransmissionTomography(volume, projector, flats, 3.0, flux=np.linspace(1, 2, 10))
    views = np.array([7, 2])
    expected = np.linspace(1, 2, 10)[views, None, None] * flats * np.exp(-projector(volume)[views]) + 3.0
    np.testing.assert_allclose(model(views), expected, rtol=1e-5)
    assert model().shape == (10, 2, 24)


def test_from_scan_takes_flats_and_darks():
    counts = np.full((10, 2, 24), 80, np.uint16)
    scan = dr.Scan.from_arrays(
        counts, angles=ANGLES, flats=np.full((3, 2, 24), 105.0), darks=np.full((2, 2, 24), 5.0), rotation_centre=11.0
    )
    model = TransmissionTomography.from_scan(scan)
    assert model.volume.shape == (2, 24, 24)
    np.testing.assert_allclose(model(np.arange(3)), 105.0)
    assert float(model.projector.centre) == 11.0
    with pytest.raises(InputError, match="empty beam"):
        TransmissionTomography.from_scan(dr.Scan.from_arrays(counts, angles=ANGLES, rotation_centre=11.0))


def test_nonsense_is_refused(projector):
    volume = jnp.zeros((1, 16, 16))
    with pytest.raises(InputError, match="flats"):
        TransmissionTomography(volume, projector, -1.0)
    with pytest.raises(InputError, match="darks of shape"):
        TransmissionTomography(volume, projector, 1.0, np.ones(7))
