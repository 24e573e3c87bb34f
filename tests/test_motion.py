"""One sign of motion over all models: a positive shift moves the picture to larger row and column indices."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon import ConeBeam, Scan, motion
from diffrecon.models import Holography, HoloTomography, PtychoTomography
from diffrecon.operators import AlignedProjector

SIZE, MOVED = 32, np.array([3.0, -2.0])
AXIS = np.arange(SIZE) - (SIZE - 1) / 2
TURNS = np.linspace(0, np.pi, 6, endpoint=False)
BALL = np.exp(-sum(a**2 for a in np.meshgrid(AXIS, AXIS, AXIS)) / 8)


def beam(views):
    return ConeBeam(energy=17e3, focus_to_sample=np.full(views, 0.1), focus_to_detector=1.0, detector_pixel=5e-7 * 10)


def holography():
    counts = np.full((1, SIZE, SIZE), 100, np.uint16)
    scan = Scan.from_arrays(counts, method="holography", geometry=beam(1), flux=100.0)
    model = Holography.from_scan(scan, delta_beta=100.0, shape=(SIZE, SIZE))
    model = model.replace(phase=jnp.asarray(-0.3 * BALL[SIZE // 2], jnp.float32))
    return lambda shift: model.replace(shifts=jnp.asarray(shift[None], jnp.float32))(jnp.arange(1))[0]


def holotomography():
    counts = np.full((TURNS.size, SIZE, SIZE), 100, np.uint16)
    scan = Scan.from_arrays(counts, method="holotomography", geometry=beam(TURNS.size), angles=TURNS, flux=100.0)
    model = HoloTomography.from_scan(scan, delta_beta=100.0)
    model = model.replace(delta=jnp.asarray(0.1 * BALL, jnp.float32))
    shifts = lambda shift: jnp.zeros_like(model.shifts).at[0, 0].set(shift)
    return lambda shift: model.replace(shifts=shifts(shift))(jnp.arange(1))[0, 0]


def ptychotomography():
    """A wide, even beam: what moves in the frame is the sample."""
    scan = Scan.from_arrays(
        np.full((2 * TURNS.size, SIZE, SIZE), 100, np.uint16),
        method="near-field-ptychography",
        positions=np.tile([[-2.0, 0.0], [2.0, 0.0]], (TURNS.size, 1)),
        positions_unit="pixel",
        angles=np.repeat(TURNS, 2),
        geometry=ConeBeam(17e3, 0.1, 1.0, 5e-6),
    )
    model = PtychoTomography.from_scan(scan, margin=4, size=SIZE)
    rows = (model.delta.shape[0] - SIZE) // 2
    ball = np.pad(BALL, [(rows, model.delta.shape[0] - SIZE - rows), (0, 0), (0, 0)])
    even = jnp.full_like(model.optics.probe, 10.0)
    model = model.replace(delta=jnp.asarray(0.1 * ball, jnp.float32), beta=jnp.asarray(0.01 * ball, jnp.float32))
    model = model.replace(optics=model.optics.replace(probe=even))
    shifts = lambda shift: jnp.zeros_like(model.shifts).at[0].set(shift)
    return lambda shift: model.replace(shifts=shifts(shift))(jnp.arange(1))[0, 0]


def projection():
    def frame(shift):
        geometry = motion.Motion((SIZE - 1) / 2, shifts=np.broadcast_to(shift, (TURNS.size, 2)))
        A = AlignedProjector(TURNS, (SIZE, SIZE), (SIZE, SIZE), geometry, slices=SIZE)
        return A(jnp.asarray(BALL, jnp.float32))[0]

    return frame


@pytest.mark.parametrize("picture", [holography, holotomography, ptychotomography, projection])
def test_the_same_displacement_means_the_same(picture):
    of = picture()
    still, moved = (np.asarray(of(shift), float) for shift in (0 * MOVED, MOVED))
    cut = np.s_[8:-8, 8:-8]
    expected = np.roll(still, MOVED.astype(int), (0, 1))
    contrast = np.ptp(still[cut])
    assert contrast > 0.02 * abs(still[cut]).max()
    np.testing.assert_allclose(moved[cut], expected[cut], atol=0.02 * contrast)


def test_a_common_shift_is_the_rotation_axis():
    """Beside a circle of the sample; every picture stays where it was."""
    shifts = np.stack([np.full((6, 2), 0.3), np.stack([0.6 + 0.3 * np.cos(TURNS)] * 2, 1)], -1)
    left, constant = motion.fix_gauge(jnp.asarray(shifts), TURNS)
    assert float(constant) == pytest.approx(0.6, abs=1e-5)
    np.testing.assert_allclose(left[..., 0], 0.3, rtol=1e-6)
    np.testing.assert_allclose(left[..., 1] + constant, shifts[..., 1], atol=1e-6)
