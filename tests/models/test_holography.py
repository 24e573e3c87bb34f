"""The holographic forward model against an independent one, closed forms and finite differences."""

from typing import Any

import equinox as eqx
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


def test_a_shift_of_whole_pixels_moves_the_frame():
    model = bump(Holography.from_scan(scan_of()))
    shifts = jnp.asarray([[2.0, -3.0]] * 3)
    moved = eqx.tree_at(lambda m: m.shifts, model, shifts)(np.arange(3))
    np.testing.assert_allclose(moved[:, 2:, :-3], model(np.arange(3))[:, :-2, 3:], atol=2e-2)


def test_detector_keeps_the_counts():
    model = bump(Holography.from_scan(scan_of()))
    rows = model.pixel_matrix(0, 0)
    np.testing.assert_allclose(jnp.sum(rows, 1), 1.0, atol=1e-4)  # a flat field stays flat


def test_named_material_is_phase_and_attenuation():
    model = Holography.from_scan(scan_of(), materials={"gold": (1e-5, 1e-6)})
    thick = jnp.zeros(model.phase.shape).at[30:50, 30:50].set(2e-6)
    wavenumber = 2 * np.pi / model.wavelength
    named = model.replace(thickness=thick[None])
    plain = model.replace(
        thickness=None, refraction=None, phase=-wavenumber * 1e-5 * thick, attenuation=wavenumber * 1e-6 * thick
    )
    np.testing.assert_allclose(named(np.arange(3)), plain(np.arange(3)), rtol=2e-4)
    np.testing.assert_allclose(named.quantities()["thickness_gold"].data.max(), 2e-6, rtol=1e-6)


def test_a_blur_is_a_gaussian_on_the_frame():
    model = bump(Holography.from_scan(scan_of()))
    sharp, wide = model(np.arange(3)), model.replace(detector_blur=jnp.asarray(1.5))(np.arange(3))
    f2 = np.add.outer(np.fft.fftfreq(N) ** 2, np.fft.fftfreq(N) ** 2)
    expected = np.fft.ifft2(np.fft.fft2(sharp) * np.exp(-2 * (np.pi * 1.5) ** 2 * f2)).real
    np.testing.assert_allclose(wide[:, 8:-8, 8:-8], expected[:, 8:-8, 8:-8], atol=0.05)
    # The focus of size s is seen with (M - 1) s / M in the plane of the object.
    pixels, magnification = np.asarray(model.pixels)[:, 0], 1.28 / np.asarray(PLACE.focus_to_sample)
    source = 1.5 * pixels[0] / (1 - 1 / magnification[0])
    seen = model.replace(source_blur=jnp.asarray(source, jnp.float32))(np.arange(1))
    np.testing.assert_allclose(seen, wide[:1], atol=0.02)


def test_a_rotation_turns_the_frame():
    model = Holography.from_scan(scan_of(ParallelBeam(5e-8, 17e3, 0.02), views=1))
    model = bump(model)
    turned = model.replace(rotations=jnp.asarray([np.pi / 2]))(np.arange(1))[0]
    np.testing.assert_allclose(turned, np.rot90(model(np.arange(1))[0], -1), atol=0.3)
    assert np.abs(turned - model(np.arange(1))[0]).max() > 5


def test_an_astigmatic_beam_has_two_distances():
    place = ConeBeam(17e3, np.array([[0.0213333, 0.0213333], [0.0259, 0.0264], [0.0332, 0.0332]]), 1.28, 3e-6)
    model = bump(Holography.from_scan(scan_of(place)))
    assert model.distances.shape == (3, 2) and model.pixels[1][0] < model.pixels[1][1]
    round_beam = bump(Holography.from_scan(scan_of()))
    np.testing.assert_allclose(model(np.arange(1)), round_beam(np.arange(1)), rtol=1e-4)
    assert np.abs(model(np.arange(2))[1] - round_beam(np.arange(2))[1]).max() > 0.1


def test_a_probe_is_seen_without_the_object_too():
    model = Holography.from_scan(scan_of())
    ripple = jnp.asarray(1 + 0.1 * np.sin(np.arange(model.phase.shape[1]) / 3)[None, :] * np.ones(model.phase.shape))
    lit = model.replace(probe=jnp.broadcast_to(ripple, (3, *ripple.shape)).astype(jnp.complex64))
    np.testing.assert_allclose(lit(np.arange(3)), lit.empty_beam(np.arange(3)), rtol=1e-5)
    assert np.std(lit.empty_beam(np.arange(1))[:, 10:-10, 10:-10]) > 1
    np.testing.assert_allclose(model.empty_beam(np.arange(3)), 100.0)


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


def test_each_hologram_is_divided_by_its_own_flats():
    """Held so, said by `flat_views`, or as many for each view and as bright as the views; one beam serves all."""
    random, levels = np.random.default_rng(0), np.array([1000.0, 700.0, 500.0])
    own = random.poisson(levels[:, None, None, None], (3, 4, N, N)).astype(float)
    counts = random.poisson(0.9 * levels[:, None, None], (3, N, N))
    make = lambda **fields: scan_of().replace(counts=counts, flux=None, **fields)
    order = random.permutation(12)
    flat = own.reshape(12, N, N)
    for scan in (
        make(flats=own),
        make(flats=flat[order], extra={"flat_views": np.repeat(np.arange(3), 4)[order]}),
        make(flats=flat),
        make(flats=own[:, 0]),
    ):
        beam = np.asarray(Holography.from_scan(scan).flux).mean((1, 2))
        np.testing.assert_allclose(beam, levels, rtol=0.01)
    shared = Holography.from_scan(make(flats=own[0, :3]))
    assert np.ptp(np.asarray(shared.flux).mean((1, 2))) == 0
    with pytest.raises(InputError, match="flats have shape"):
        Holography.from_scan(make(flats=own[:2]))
