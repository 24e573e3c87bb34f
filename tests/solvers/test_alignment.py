"""Geometry found from noisy projections of ellipsoids: each parameter, and all together."""

import jax.numpy as jnp
import moving_ellipsoids as truth
import numpy as np
import pytest

from diffrecon import motion
from diffrecon.errors import InputError
from diffrecon.motion import Motion
from diffrecon.solvers import align, alignment

SIZE, VIEWS = 40, 30
ANGLES = np.linspace(0, np.pi, VIEWS, endpoint=False)
SAMPLE = truth.sample(4, 36, count=16)


def scan(centre, rows=24, seed=0, counts=1e5, **motion) -> np.ndarray:
    angles = ANGLES + motion.pop("angles", 0.0)
    return truth.noisy(truth.views(SAMPLE, angles, (rows, SIZE), centre=centre, **motion), counts, seed)


def without_freedoms(shifts, centre, roll=0.0) -> tuple[np.ndarray, float]:
    """Shifts (row, column) less every motion of the sample, and the centre that takes their constant part."""
    one, none, cosine, sine = np.ones(VIEWS), np.zeros(VIEWS), np.cos(ANGLES), np.sin(ANGLES)
    pairs = [(one * np.cos(roll), -one * np.sin(roll)), (none, one)]
    pairs += [(t * np.sin(roll), t * np.cos(roll)) for t in (cosine, sine)]
    basis = np.array([np.stack(p, 1).ravel() for p in pairs]).T
    fit = np.linalg.lstsq(basis, np.ravel(shifts), rcond=None)[0]
    return (np.ravel(shifts) - basis @ fit).reshape(-1, 2), centre + fit[1]


def test_shifts_roll_and_centre_together():
    rng = np.random.default_rng(7)
    shifts, roll = rng.uniform(-3, 3, (VIEWS, 2)), np.radians(0.5)
    found = align(scan(22.5, shifts=shifts, roll=roll, counts=1e4), ANGLES, levels=(1,), steps=8, tolerance=0.003)
    expected, centre = without_freedoms(shifts, 22.5, roll)
    moved, at = without_freedoms(np.asarray(found.motion.shifts, float), float(found.motion.centre), roll)
    assert np.sqrt(np.mean((moved - expected) ** 2)) < 0.05
    assert abs(at - centre) < 0.05
    assert abs(np.degrees(float(found.motion.roll) - roll)) < 0.15  # 24 rows of 40 pixels
    assert found.volume.shape == found.projector.volume_shape
    assert any("rotation centre" in line for line in found.messages)
    assert found.motion.pitch is None and found.motion.drift is None


def test_centre_of_one_row():
    found = align(scan(21.2, rows=1)[:, 0], ANGLES, unknowns=("centre", "roll"), levels=(1,), steps=4)
    assert any("roll left out" in line for line in found.messages)
    assert abs(float(found.motion.centre) - 21.2) < 0.05
    assert found.motion.shifts is None


@pytest.mark.nightly
def test_magnification_and_drift():
    size = 1 + 0.02 * np.random.default_rng(3).normal(size=VIEWS)
    drift = np.array([[1.5, 0.0]])  # along columns the first cosine is a motion of the sample over half a turn
    way = np.cos(np.pi * (np.arange(VIEWS) + 0.5) / VIEWS)[:, None] * drift
    found = align(
        scan(19.0, shifts=way, magnification=size),
        ANGLES,
        unknowns=("magnification", "drift"),
        drift=1,
        centre=19.0,
        levels=(1,),
        steps=10,
    )
    assert np.sqrt(np.mean((np.asarray(found.motion.magnification) - size / size.mean()) ** 2)) < 0.004  # of 0.023
    assert abs(float(found.motion.drift[0, 0]) - 1.5) < 0.1


def test_first_guess_conserves_mass():
    """Closed forms alone, before any reconstruction."""
    shifts = np.random.default_rng(5).uniform(-3, 3, (VIEWS, 2))
    start = Motion(19.5).freed(("shifts",), VIEWS)
    guess = alignment._conserved(scan(22.0, shifts=shifts), ANGLES, start, ("centre", "shifts"), 8.0)
    expected, centre = without_freedoms(shifts, 22.0)
    moved, at = without_freedoms(np.asarray(guess.shifts, float), float(guess.centre))
    assert np.sqrt(np.mean((moved - expected) ** 2)) < 0.1
    assert abs(at - centre) < 0.1


def test_the_constant_of_shifts_is_the_centre():
    """Constant and sine are taken apart, in one or several frames of a view."""
    rng = np.random.default_rng(2)
    rest, centre = without_freedoms(rng.normal(size=(VIEWS, 2)), 0.0)
    waves = np.stack([np.zeros(VIEWS), 1.5 + 0.5 * np.cos(ANGLES) - 2.0 * np.sin(ANGLES)], 1)
    shifts, constant = motion.fix_gauge(jnp.asarray(rest + waves), ANGLES, sine=True)
    assert abs(float(constant) - 1.5) < 1e-5 and np.abs(np.asarray(shifts) - rest).max() < 1e-5
    shifts, constant = motion.fix_gauge(jnp.asarray((rest + waves)[:, None] * [[[0.5], [1.5]]]), ANGLES)
    kept = (rest + waves)[:, None] * [[[0.5], [1.5]]] - [0, 1.5]
    assert abs(float(constant) - 1.5) < 1e-5 and np.abs(np.asarray(shifts) - kept).max() < 1e-5


def test_levels_keep_enough_pixels():
    assert alignment._levels((10, 64, 64)) == (2, 1)
    assert alignment._levels((10, 1, 256)) == (4, 2, 1)
    assert alignment._levels((10, 8, 256)) == (1,)


@pytest.mark.parametrize("unknowns", [("shifts", "centre"), ("wobble", "roll", "pitch"), ("angles", "magnification")])
def test_freedoms_are_projected_out(unknowns):
    """What remains is orthogonal to what cannot be told, and projecting twice changes nothing."""
    geometry = Motion(0.0).freed(unknowns, VIEWS)
    rng = np.random.default_rng(1)
    numbers = {n: jnp.asarray(rng.normal(size=getattr(geometry, n).shape), jnp.float32) for n in unknowns}
    once = motion.without_freedoms(numbers, jnp.asarray(ANGLES))
    twice = motion.without_freedoms(once, jnp.asarray(ANGLES))
    for name in unknowns:
        assert np.allclose(once[name], twice[name], atol=1e-5)
    if "shifts" in unknowns:
        row, column = np.asarray(once["shifts"]).T
        waves = np.stack([np.ones(VIEWS), np.cos(ANGLES), np.sin(ANGLES)])
        assert abs(row.mean()) < 1e-5 and np.abs(waves @ column).max() < 1e-4
    if "wobble" in unknowns:
        roll, pitch = np.asarray(once["wobble"]).T
        assert abs(roll.mean()) < 1e-5 and abs(pitch.mean()) < 1e-5
        assert abs(np.sum(-np.sin(ANGLES) * roll + np.cos(ANGLES) * pitch)) < 1e-4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unknowns": ("centre", "tild")}, "did you mean tilt"),
        ({"unknowns": ()}, "at least one"),
        ({"unknowns": ("shifts", "drift")}, "contain any drift"),
        ({"unknowns": ("roll",), "sinogram": np.ones((VIEWS, 1, SIZE))}, "one row"),
        ({"angles": np.degrees(ANGLES)}, "degrees"),
        ({"sinogram": np.full((VIEWS, 4, SIZE), np.nan)}, "finite"),
        ({"sinogram": np.zeros((VIEWS, 4, SIZE))}, "zero"),
        ({"sinogram": np.ones((VIEWS + 1, 4, SIZE))}, "one a view"),
    ],
)
def test_bad_input_is_refused(change, words):
    arguments = {"sinogram": np.ones((VIEWS, 4, SIZE)), "angles": ANGLES} | change
    with pytest.raises(InputError, match=words):
        align(arguments.pop("sinogram"), arguments.pop("angles"), **arguments)
