"""`HoloTomography`: counts against the independent simulation, derivatives, adjoint, grouping of views."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon.errors import InputError, MissingMetadata
from diffrecon.models import HoloTomography, hologram_table, holograms_by_angle
from diffrecon.motion import Motion
from diffrecon.operators import AlignedProjector
from diffrecon.simulate import holotomography as simulated

SETUP = simulated.Setup(angles=8, distances=2, frame=20, counts=20000.0, grains=False, wobble=0.4, centre=0.7)
ALL = jnp.arange(SETUP.angles)

predict = eqx.filter_jit(lambda model, angles: model(angles))


@pytest.fixture(scope="module")
def measured():
    return simulated.measure(SETUP)


@pytest.fixture(scope="module")
def scan(measured):
    return measured[0]


@pytest.fixture(scope="module")
def true_model(measured):
    scan, truth = measured
    model = HoloTomography.from_scan(scan, beta=True)
    scale = 2 * np.pi / model.wavelength * model.pixel_size
    delta, beta = (scale * simulated.true_volume(SETUP, model.delta.shape, q) for q in ("delta", "beta"))
    cast = lambda a: jnp.asarray(a, jnp.float32)
    return model.replace(delta=cast(delta), beta=cast(beta), shifts=cast(truth["shifts"]), centre=cast(SETUP.centre))


def test_true_volume_predicts_the_independent_simulation(scan, true_model):
    """Chords, propagation and pixels on a finer and wider grid there, and photon noise."""
    counts = np.asarray(holograms_by_angle(scan)["counts"], float)
    misfit = lambda model: float(np.mean((predict(model, ALL) - counts) ** 2)) / SETUP.counts
    assert misfit(true_model) < 1.15  # photon noise is 1
    # And it is this volume, this axis and these places that do it.
    still = jnp.zeros_like(true_model.shifts)
    for wrong in (
        true_model.replace(delta=true_model.delta[..., ::-1]),
        true_model.replace(shifts=still),
        true_model.replace(centre=still[0, 0, 0]),
    ):
        assert misfit(wrong) > 1.3


def test_one_material_needs_one_volume(true_model):
    ratio = jnp.asarray(50.0)
    one = true_model.replace(beta=None, delta_beta=ratio)
    two = true_model.replace(beta=true_model.delta / ratio, delta_beta=jnp.asarray(jnp.inf))
    np.testing.assert_allclose(one.projections(ALL[:1]), two.projections(ALL[:1]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.refractive_index()[1], two.refractive_index()[1], rtol=1e-5)


def test_vacuum_is_the_empty_beam(scan):
    np.testing.assert_allclose(predict(HoloTomography.from_scan(scan, beta=True), ALL), SETUP.counts, rtol=1e-5)


def test_aligned_projector_is_the_same(true_model):
    shape = true_model.delta.shape
    geometry = Motion((shape[2] - 1) / 2, roll=0.0)
    aligned = AlignedProjector(true_model.projector.angles, shape[1:], (shape[0], shape[2]), geometry, slices=shape[0])
    plain, other = (
        np.asarray(m.projections(np.arange(3))) for m in (true_model, true_model.replace(projector=aligned))
    )
    assert np.linalg.norm(other - plain) < 5e-3 * np.linalg.norm(plain)


# ---------------------------------------------------------------------------------------------------- derivatives


# ---------------------------------------------------------------------------------------------------- views
def test_views_go_to_their_angles_and_distances(scan):
    """Whatever the order in the file, and with one distance for each view of an angle."""
    table, turns, pixels, _ = hologram_table(scan)
    np.testing.assert_array_equal(table, np.arange(scan.views).reshape(-1, SETUP.distances))
    np.testing.assert_allclose(turns, SETUP.turns)
    assert (np.diff(pixels[:, 0]) > 0).all()
    order = np.random.default_rng(0).permutation(scan.views)
    place = scan.geometry
    mixed = scan.replace(
        counts=np.asarray(scan.counts)[order],
        angles=scan.angles[order],
        geometry=dataclasses.replace(place, focus_to_sample=place.focus_to_sample[order]),
    )
    found = np.asarray(holograms_by_angle(mixed)["counts"])
    turned = np.argsort(hologram_table(mixed)[1])
    np.testing.assert_array_equal(found[turned], holograms_by_angle(scan)["counts"][:])
    few = dataclasses.replace(place, focus_to_sample=place.focus_to_sample[: SETUP.distances])
    np.testing.assert_array_equal(hologram_table(scan.replace(geometry=few))[0], table)


def test_frames_stay_where_they_are_until_asked_for(scan):
    class Counted:
        shape, dtype, read = scan.counts.shape, scan.counts.dtype, []

        def __getitem__(self, views):
            self.read.extend(np.asarray(views).tolist())
            return np.asarray(scan.counts)[views]

    lazy = Counted()
    block = holograms_by_angle(scan.replace(counts=lazy))["counts"][np.array([1, 2])]
    assert block.shape == (2, 2, 20, 20) and sorted(lazy.read) == [2, 3, 4, 5]


def test_what_is_missing_or_does_not_fit_is_named(scan):
    place = scan.geometry
    with pytest.raises(MissingMetadata, match="angles"):
        HoloTomography.from_scan(scan.replace(angles=None))
    with pytest.raises(MissingMetadata, match="geometry"):
        HoloTomography.from_scan(scan.replace(geometry=None))
    with pytest.raises(InputError, match="angle 0 .* has 1 holograms, others have 2"):
        short = scan.replace(
            counts=np.asarray(scan.counts)[1:],
            angles=scan.angles[1:],
            geometry=dataclasses.replace(place, focus_to_sample=place.focus_to_sample[1:]),
        )
        HoloTomography.from_scan(short)
    with pytest.raises(InputError, match="3 distances for 16 views"):
        hologram_table(scan.replace(geometry=dataclasses.replace(place, focus_to_sample=place.focus_to_sample[:3])))
    with pytest.raises(InputError, match="other distances"):
        moved = place.focus_to_sample * np.where(np.arange(16) > 9, 1.1, 1.0)
        hologram_table(scan.replace(geometry=dataclasses.replace(place, focus_to_sample=moved)))
    with pytest.raises(InputError, match="not all positive"):
        hologram_table(scan.replace(geometry=dataclasses.replace(place, focus_to_detector=0.02)))


def test_empty_beam_of_each_distance(scan):
    flats = np.stack([np.full(scan.frame_shape, float(n)) for n in (10, 12, 30, 32)])
    with_flats = scan.replace(flats=flats)
    assert float(HoloTomography.from_scan(with_flats).flux.mean()) == pytest.approx(21)
    apart = HoloTomography.from_scan(with_flats, flats="distance").flux
    np.testing.assert_allclose(apart.mean((1, 2)), [11, 31])
    with pytest.raises(InputError, match="no 2 equal groups"):
        HoloTomography.from_scan(scan.replace(flats=flats[:3]), flats="distance")
    border = HoloTomography.from_scan(scan.replace(flux=None)).flux
    np.testing.assert_allclose(border, SETUP.counts, rtol=0.02)


def test_given_shifts_and_axis(scan):
    """A frame moved by its own pixels, as `Holography` has it; the axis on a column of the finest frames."""
    given = np.tile([0.5, -1.0], (scan.views, 1))
    model = HoloTomography.from_scan(scan.replace(extra={"shifts": given}, rotation_centre=11.0))
    ratio = np.asarray(model.pixels)[:, 0] / model.pixel_size
    np.testing.assert_allclose(-model.shifts[0, :, 1], ratio, rtol=1e-5)
    assert float(model.centre) == pytest.approx(1.5) and model.rotation_centre() == pytest.approx(11.0)
