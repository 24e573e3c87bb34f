"""Projections for holograms: a closed problem, propagated by plain NumPy on the same grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon.errors import InputError
from diffrecon.solvers import HologramSets, alternating_projections, onto_holograms, onto_object

PLACE = {"pixel_size": 5e-8, "wavelength": 7.3e-11, "distances": (2e-3, 2.6e-3)}
FRAME, GRID = 32, 64


def waves(count=1, ratio=0.02):
    """Waves behind discs of one material, on the grid."""
    y, x = np.mgrid[:GRID, :GRID]
    random, made = np.random.default_rng(0), []
    for _ in range(count):
        phase = np.zeros((GRID, GRID))
        for _ in range(5):
            r, c = random.uniform(12, 20, 2)
            phase -= 0.25 * (np.hypot(y - r, x - c) < random.uniform(2, 6))
        made.append(np.exp((1j + ratio) * phase))
    return np.stack(made)


def holograms(wave):
    f2 = np.add.outer(*[np.fft.fftfreq(GRID, PLACE["pixel_size"]) ** 2] * 2)
    images = [
        np.abs(np.fft.ifft2(np.fft.fft2(wave) * np.exp(-1j * np.pi * PLACE["wavelength"] * d * f2))) ** 2
        for d in PLACE["distances"]
    ]
    return np.stack(images, -3)[..., :FRAME, :FRAME]


def support():
    y, x = np.mgrid[:FRAME, :FRAME] - 16
    return np.hypot(y, x) < 14


def error(found, wave):
    truth = np.angle(wave)[..., :FRAME, :FRAME]
    return np.linalg.norm(found.phase - truth) / np.linalg.norm(truth)


def test_the_truth_is_in_both_sets_and_projections_settle():
    wave = waves()[0]
    with jax.enable_x64(True):
        sets = HologramSets.of(holograms(wave), support=support(), **PLACE)
        assert np.allclose(onto_holograms(jnp.asarray(wave), sets), wave, atol=1e-10)
        assert np.allclose(onto_object(jnp.asarray(wave), sets), wave, atol=1e-10)
        random = np.random.default_rng(1)
        other = jnp.asarray(wave + 0.5 * (random.normal(size=wave.shape) + 1j * random.normal(size=wave.shape)))
        one = HologramSets.of(holograms(wave)[:1], **(PLACE | {"distances": PLACE["distances"][:1]}))
        for project, given in ((onto_holograms, one), (onto_object, sets)):
            once = project(other, given)
            assert np.allclose(project(once, given), once, atol=1e-10)
            # No other member of the set is nearer than the projection.
            assert np.linalg.norm(once - other) <= np.linalg.norm(wave - other)


@pytest.mark.parametrize("rule", ["er", "raar"])
def test_a_weak_object_is_found(rule):
    wave = waves(2)
    images = holograms(wave).astype(np.float32)
    found = alternating_projections(images, support=support(), rule=rule, steps=200, **PLACE)
    assert found.phase.shape == (2, FRAME, FRAME) and found.gap.shape == (200, 2)
    assert error(found, wave) < 0.13 and (found.gap[-1] < 0.1 * found.gap[0]).all()
    alone = alternating_projections(images[1], support=support(), rule=rule, steps=200, **PLACE)
    assert np.allclose(alone.phase, found.phase[1], atol=1e-3)


def test_one_material_needs_no_support_and_no_dead_pixels():
    wave, mask = waves(ratio=0.05)[0], np.random.default_rng(2).random((FRAME, FRAME)) > 0.05
    images = np.where(mask, holograms(wave), np.nan).astype(np.float32)
    found = alternating_projections(images, delta_beta=20.0, mask=mask, rule="er", steps=200, **PLACE)
    assert error(found, wave) < 0.15
    assert np.allclose(found.attenuation, -0.05 * found.phase, atol=1e-4)


@pytest.mark.parametrize(
    ("images", "more"),
    [
        (np.ones((3, 8, 8)), {}),
        (np.full((2, 8, 8), np.nan), {}),
        (np.ones((2, 8, 8)), {"delta_beta": -1.0}),
        (np.ones((2, 8, 8)), {"start": np.ones((3, 3))}),
    ],
)
def test_what_does_not_fit_is_refused(images, more):
    with pytest.raises(InputError, match="projections"):
        alternating_projections(images, **PLACE, **more)
