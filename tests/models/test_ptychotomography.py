"""`PtychoTomography`: counts against the independent simulation, derivatives, grouping of views, ambiguities."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon import Scan, losses, operators
from diffrecon.errors import InputError, MissingMetadata
from diffrecon.models import PtychoTomography, angle_table, frames_by_angle
from diffrecon.motion import Motion
from diffrecon.operators import AlignedProjector
from diffrecon.physics import energy_to_wavelength
from diffrecon.simulate import ptychotomography as simulated

SETUP = simulated.Setup(
    angles=12, views=2, step=5.0, frame=32, aperture=8.0, counts=400.0, wobble=0.0, position_error=0.0, centre=0.0
)


predict = eqx.filter_jit(lambda model, angles: model(angles))
ALL = jnp.arange(SETUP.angles)


@pytest.fixture(scope="module")
def scan():
    return simulated.measure(SETUP)[0]


@pytest.fixture(scope="module")
def true_model(scan):
    """True volume and places; the light as the simulation made it, on the grid of the reconstruction."""
    model = PtychoTomography.from_scan(scan)
    rng = np.random.default_rng(SETUP.seed)
    nominal = np.stack([simulated._raster(SETUP, rng) for _ in range(SETUP.angles)])
    rng.standard_normal(2 * SETUP.angles + nominal.size)  # wobble and errors, both zero here
    fine = simulated._probe(SETUP, rng)
    edge = (fine.shape[0] - SETUP.frame * SETUP.fine) // 2
    spectrum = np.fft.fftshift(np.fft.fft2(fine[edge:-edge, edge:-edge]))
    low = SETUP.frame // 2
    probe = np.fft.ifft2(np.fft.ifftshift(spectrum[low:-low, low:-low])) / SETUP.fine**2
    # The middle of a pixel lies half a fine sample after its first one.
    probe = np.asarray(operators.fourier_shift(jnp.asarray(probe), jnp.full(2, -0.25)))
    wave_number = 2 * np.pi / energy_to_wavelength(simulated.ENERGY) * simulated.PIXEL
    contrast = simulated.phantom(simulated.ellipsoids(SETUP), model.delta.shape)
    delta = jnp.asarray(simulated.DELTA * wave_number * contrast)
    room = (np.asarray(model.optics.object.shape) - SETUP.frame) / 2
    model = model.replace(
        delta=delta.astype(jnp.float32),
        beta=(delta / simulated.DELTA_BETA).astype(jnp.float32),
        positions=jnp.asarray(nominal + room, jnp.float32),
    )
    return eqx.tree_at(
        lambda m: (m.optics.probe, m.optics.background),
        model,
        (jnp.asarray(probe[None], jnp.complex64), jnp.full((1, 1), 0.2**0.5)),
    )


def test_true_volume_and_light_predict_the_independent_simulation(scan, true_model):
    """Chords, propagation and pixels on a finer and wider grid there, and photon noise."""
    counts = jnp.asarray(frames_by_angle(scan)["counts"])
    misfit = lambda model: float(losses.amplitude(predict(model, ALL), counts))
    found = misfit(true_model)
    assert found < 0.32  # 0.25 is photon noise
    # And it is the volume, seen from the right side, that does it.
    for wrong in (0 * true_model.delta, true_model.delta[..., ::-1]):
        assert misfit(true_model.replace(delta=wrong)) > 2 * found


def test_views_go_to_their_angles():
    rng = np.random.default_rng(0)
    angles = np.array([0.5, 0.0, 0.5, 1.0, 0.0, 0.5 + 1e-9])
    counts = rng.integers(1, 9, (6, 16, 16))
    scan = Scan.from_arrays(counts, angles=angles, positions=rng.uniform(0, 9, (6, 2)), positions_unit="pixel")
    table, found = angle_table(scan)
    np.testing.assert_allclose(found, [0.5, 0.0, 1.0])
    assert [set(row) for row in table] == [{0, 2, 5}, {1, 4}, {3}]
    data = frames_by_angle(scan)
    np.testing.assert_array_equal(data["seen"], [[True] * 3, [True, True, False], [True, False, False]])
    np.testing.assert_array_equal(data["counts"][data["seen"]], counts[[0, 2, 5, 1, 4, 3]])


def test_what_is_missing_is_named(scan):
    with pytest.raises(MissingMetadata, match="angles"):
        PtychoTomography.from_scan(scan.replace(angles=None))
    with pytest.raises(InputError, match="2 different angles"):
        PtychoTomography.from_scan(scan.replace(angles=np.arange(scan.views) % 2 * 1.0))
    with pytest.raises(MissingMetadata, match="focus_to_sample"):
        PtychoTomography.from_scan(scan.replace(geometry=None))


def test_rotation_centre_of_the_scan_moves_the_patches(scan):
    here, there = (PtychoTomography.from_scan(scan.replace(rotation_centre=c)) for c in (0.0, 2.0))
    assert there.rotation_centre(scan.replace(rotation_centre=2.0)) == pytest.approx(2.0)
    middle = lambda m: np.asarray(m.places(np.arange(12))) - (np.asarray(m.optics.object.shape) - SETUP.frame) / 2
    np.testing.assert_allclose(middle(there)[..., 1], middle(here)[..., 1] - 2, atol=1e-4)
    # The same by the unknown.
    moved = here.replace(centre=here.centre + 2)
    np.testing.assert_allclose(middle(moved), middle(there), atol=1e-4)
    assert moved.rotation_centre(scan.replace(rotation_centre=0.0)) == pytest.approx(2.0)


def test_constant_phase_of_projections_is_not_seen(true_model):
    """What the documentation says that nobody can know."""
    images = eqx.filter_jit(lambda m: m.projections(ALL))(true_model)
    still = true_model.separate().replace(images=images)
    counts = predict(still, ALL)
    np.testing.assert_allclose(counts, predict(true_model, ALL), rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(predict(still.replace(images=images + 0.7), ALL), counts, rtol=1e-3, atol=1e-2)


def test_matter_only_where_it_may_be(true_model):
    inside = jnp.zeros(true_model.delta.shape, bool).at[8:12].set(True)
    model = true_model.replace(sample=inside)
    alone = true_model.replace(delta=jnp.where(inside, true_model.delta, 0), beta=jnp.where(inside, true_model.beta, 0))
    np.testing.assert_array_equal(model.projections(np.arange(2)), alone.projections(np.arange(2)))
    np.testing.assert_array_equal(model.refractive_index()[0], alone.refractive_index()[0])


def test_aligned_projector_is_the_same_and_knows_more(true_model):
    """A roll of the axis is an unknown of the projector; at zero it changes nothing."""
    shape = true_model.delta.shape
    at = lambda roll: true_model.replace(
        projector=AlignedProjector(
            true_model.projector.angles,
            shape[1:],
            (shape[0], true_model.projector.detector),
            Motion((true_model.projector.detector - 1) / 2, roll=roll),
            slices=shape[0],
        )
    )
    plain, aligned = (np.asarray(m.projections(np.arange(3))) for m in (true_model, at(0.0)))
    assert np.linalg.norm(aligned - plain) < 5e-3 * np.linalg.norm(plain)
    model, there = at(0.02), jnp.asarray(plain)
    cost = lambda roll: jnp.sum(
        jnp.abs(eqx.tree_at(lambda m: m.projector.motion.roll, model, roll).projections(jnp.arange(3)) - there) ** 2
    )
    slope = jax.jit(jax.grad(cost))
    assert float(slope(jnp.asarray(0.02))) > 0 > float(slope(jnp.asarray(-0.02)))


def test_setup_of_the_simulation_is_honoured():
    """The masses of projections and phantom agree, and a local sample leaves the field."""
    parts = simulated.ellipsoids(SETUP)
    axis = np.arange(-40, 40, 0.25)
    mass = simulated.phantom(parts, (60, 60, 60)).sum()
    for angle in (0.0, 1.1):
        assert simulated.thickness(parts, angle, axis, axis).sum() * 0.25**2 == pytest.approx(mass, rel=0.02)
    wide = simulated.ellipsoids(dataclasses.replace(SETUP, local=True))
    edge = np.array([simulated.field_radius(SETUP)])
    assert simulated.thickness(wide, 0.4, np.zeros(1), edge)[0] > 0
    assert simulated.thickness(parts, 0.4, np.zeros(1), edge)[0] == 0
