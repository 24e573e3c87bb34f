"""The holographic forward model against an independent one, closed forms and finite differences."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon.errors import InputError, MissingMetadata
from diffrecon.geometry import ConeBeam, ParallelBeam
from diffrecon.models import Holography
from diffrecon.scan import Scan

PLACE = ConeBeam(17e3, np.array([0.0213333, 0.0259, 0.0332]), 1.28, 3e-6)
N = 48


def scan_of(place: Any = PLACE, views: int = 3, **fields: Any) -> Scan:
    return Scan.from_arrays(np.full((views, N, N), 100.0), geometry=place, flux=100.0, method="holography", **fields)


def bump(model: Holography, height: float = -0.5) -> Holography:
    y, x = (np.arange(n) - (n - 1) / 2 for n in model.phase.shape)
    phase = height * np.exp(-((y[:, None] - 3) ** 2 + (x[None] + 5) ** 2) / (2 * 5.0**2))
    return eqx.tree_at(lambda m: m.phase, model, jnp.asarray(phase, model.phase.dtype))


def independent(model: Holography, view: int, over: int = 3) -> np.ndarray:
    """NumPy: the same Gaussian on a finer grid, propagated, integrated over the pixels by brute force interpolation."""
    size = over * model.grid[0]
    axis = (np.arange(size) - (size - 1) / 2) / over
    phase = -0.5 * np.exp(-((axis[:, None] - 3) ** 2 + (axis[None] + 5) ** 2) / (2 * 5.0**2))
    attenuation = -phase / float(model.delta_beta)
    f = np.fft.fftfreq(size, model.pixel_size / over)
    chirp = np.exp(-1j * np.pi * model.wavelength * float(model.distances[view, 0]) * f**2)
    wave = np.fft.ifft2(np.fft.fft2(np.exp(1j * phase - attenuation) - 1) * chirp[:, None] * chirp)
    spectrum = np.fft.fft2(np.abs(1 + wave) ** 2)
    pixel = model.pixels[view][0]
    centres = (np.arange(N) - (N - 1) / 2) * pixel + (size - 1) / 2 * model.pixel_size / over
    kernel = np.exp(2j * np.pi * np.outer(centres, f)) * np.sinc(f * pixel) / size
    return (kernel @ spectrum @ kernel.T).real


def test_vacuum_gives_the_empty_beam():
    model = Holography.from_scan(scan_of(darks=np.full((2, N, N), 7.0)))
    np.testing.assert_allclose(model(np.arange(3)), 107.0, rtol=1e-5)


@pytest.mark.parametrize("delta_beta", [np.inf, 20.0])
def test_holograms_agree_with_an_independent_model_on_every_pixel_size(delta_beta):
    model = bump(Holography.from_scan(scan_of(), delta_beta=delta_beta))
    found = model(np.arange(3)) / 100
    for view in range(3):
        expected = independent(model, view)
        assert np.abs(expected - 1).max() > 0.05
        np.testing.assert_allclose(found[view], expected, atol=2e-4)


def test_some_views_in_any_order():
    model = bump(Holography.from_scan(scan_of()))
    every = model(np.arange(3))
    np.testing.assert_allclose(model(jnp.array([2, 0])), every[jnp.array([2, 0])], rtol=1e-5)


def test_a_shift_of_whole_pixels_moves_the_frame():
    model = bump(Holography.from_scan(scan_of()))
    shifts = jnp.asarray([[2.0, -3.0]] * 3)
    moved = eqx.tree_at(lambda m: m.shifts, model, shifts)(np.arange(3))
    np.testing.assert_allclose(moved[:, :-2, 3:], model(np.arange(3))[:, 2:, :-3], atol=2e-2)


def test_detector_keeps_the_counts():
    model = bump(Holography.from_scan(scan_of()))
    rows = model.pixel_matrix(0, 0)
    np.testing.assert_allclose(jnp.sum(rows, 1), 1.0, atol=1e-4)  # a flat field stays flat


@pytest.mark.parametrize("field", ["phase", "attenuation", "delta_beta", "flux", "shifts", "distances"])
def test_gradients_agree_with_finite_differences(field):
    with jax.enable_x64(True):
        model = bump(Holography.from_scan(scan_of(), delta_beta=20.0))
        model = jax.tree.map(lambda a: a.astype("float64") if eqx.is_inexact_array(a) else a, model)
        weights = np.random.default_rng(0).normal(size=(3, N, N))
        value = getattr(model, field)
        direction = jnp.asarray(np.random.default_rng(1).normal(size=value.shape))
        direction = direction * jnp.mean(jnp.abs(value)) if field == "distances" else direction
        with_value = lambda v: eqx.tree_at(lambda m: getattr(m, field), model, v)
        cost = lambda v: jnp.sum(weights * with_value(v)(np.arange(3)) ** 2)
        slope = jnp.sum(jax.grad(cost)(value) * direction)
        h = 1e-5
        differences = (cost(value + h * direction) - cost(value - h * direction)) / (2 * h)
        np.testing.assert_allclose(slope, differences, rtol=1e-5)


def test_quantities_are_on_the_finest_field_of_view():
    model = bump(Holography.from_scan(scan_of(), delta_beta=20.0))
    named = model.quantities()
    assert {k: q.data.shape for k, q in named.items()} == {"phase": (N, N), "attenuation": (N, N), "object": (N, N)}
    assert named["phase"].pixel_size == pytest.approx(5e-8, rel=1e-4)
    wave = np.exp(-named["attenuation"].data + 1j * named["phase"].data)
    np.testing.assert_allclose(named["object"].data, wave, rtol=1e-5)


def test_flats_make_the_beam_and_a_missing_flux_is_read_from_the_border():
    flats = np.linspace(50, 150, N * N).reshape(1, N, N)
    np.testing.assert_allclose(Holography.from_scan(scan_of(flats=flats))(np.arange(3))[1], flats[0], rtol=1e-4)
    assert float(Holography.from_scan(scan_of().replace(flux=None)).flux[0, 0, 0]) == pytest.approx(100)


def test_geometry_that_cannot_be_is_refused():
    with pytest.raises(InputError, match="positive"):
        Holography.from_scan(scan_of(ConeBeam(17e3, 1.28, 1.28, 3e-6)))
    with pytest.raises(MissingMetadata, match="geometry"):
        Holography.from_scan(scan_of(None))
    with pytest.raises(MissingMetadata):
        Holography.from_scan(scan_of(ParallelBeam(1e-6, None, 0.1)))
