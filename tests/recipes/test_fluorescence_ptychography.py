"""Fluorescence and ptychography at once: an independent simulation, what is left out, what is refused."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffrecon as dr
from diffrecon._console import Console
from diffrecon.errors import InputError
from diffrecon.recipes._element_stages import areal_error, offset_cost
from diffrecon.recipes._far_start import _refocused
from diffrecon.recipes.fluorescence_ptychography import _mended
from diffrecon.simulate import fluorescence_ptychography as simulation

METHOD = "fluorescence-ptychography"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    path = tmp_path_factory.mktemp("joint") / "scan.h5"
    with pytest.MonkeyPatch.context() as small:
        small.setattr(simulation, "SCAN", 8)
        small.setattr(simulation, "FRAME", 32)
        small.setattr(simulation, "PUPIL", 6.0)
        truth = dr.simulate.demo_file(METHOD, path, 3)
        probe = np.zeros((32, 32), complex)
        f = np.arange(32) - 16
        waves = np.exp(2j * np.pi * np.outer(np.arange(32) - 15.5, f) / 32)
        random = np.random.default_rng(3)
        random.uniform(-0.3, 0.3, (64, 2))
        simulation._specimen(random, len(truth["phase"]))
        probe = waves @ simulation._pupil(random) @ waves.T
    return path, truth, probe


def edited(measured, tmp_path, change):
    path = tmp_path / "changed.h5"
    path.write_bytes(measured[0].read_bytes())
    with h5py.File(path, "a") as file:
        change(file)
    return path


def counts_model(scan, truth, probe):
    """The model of the counts with the true areal densities and probe, which the object's grid only averages."""
    optics = dr.models.Ptychography.from_scan(scan).replace(
        object=jnp.ones(truth["phase"].shape, jnp.complex64), probe=jnp.asarray(probe[None], jnp.complex64),
        positions=jnp.asarray(scan.positions, jnp.float32), gain=jnp.asarray(scan.extra["monitor"], jnp.float32),
    )  # fmt: skip
    table = scan.extra["elements"]
    index = 0.02 * np.pi / optics.wavelength * np.stack([table["delta"], table["beta"]])
    elements = dr.models.Elements.empty(truth["phase"].shape, index)
    white = np.stack([truth[name] for name in simulation.ELEMENTS]).astype(np.float32)
    cast = lambda values: jnp.asarray(values, jnp.float32)
    return dr.models.ElementCounts(
        elements.replace(white=jnp.asarray(white)),
        optics,
        cast(table["emission"]),
        cast(table["photons"]),
        cast([0, 0]),
    )


# ---------------------------------------------------------------------------------------------------- model
def test_counts_and_phase_agree_with_the_independent_model(measured):
    path, truth, probe = measured
    model = counts_model(dr.open_scan(path), truth, probe)
    expected = np.asarray(jax.jit(lambda m: m(jnp.arange(64)))(model)).T
    np.testing.assert_allclose(expected.sum(1), truth["counts"].sum(1), rtol=5e-3)
    assert np.linalg.norm(expected - truth["counts"]) < 0.01 * np.linalg.norm(truth["counts"])
    made = np.asarray(model.elements.object())
    rest = truth["phase"] - made.real  # carbon alone
    assert rest.max() < 0 and rest.std() < 0.2 * truth["phase"].std()


def test_counts_beside_the_frames_are_found(measured):
    """Frames that say the sample was a pixel further on and half a pixel back."""
    path, truth, probe = measured
    model = counts_model(dr.open_scan(path), truth, probe)
    optics = model.optics.replace(positions=model.optics.positions + jnp.asarray([-1.0, 0.5]))
    data = {"counts": truth["counts"].T.astype(np.float32), "seen": np.ones((64, 2), bool)}
    rule = optax.adam(optax.cosine_decay_schedule(0.1, 60, 0.02))
    found = dr.minimise(offset_cost, model.replace(optics=optics), data, rule, steps=60, unknowns=("offset",)).value
    np.testing.assert_allclose(found.offset, [1.0, -0.5], atol=0.05)


def test_error_bars_fall_with_counts_and_know_the_phase(measured):
    """Of one element alone in bright light the phase tells nearly all: `1 / (K delta sqrt(2 light))`."""
    path, truth, probe = measured
    model = counts_model(dr.open_scan(path), truth, probe)
    counts = np.round(truth["counts"].T)
    data = {"counts": counts, "seen": np.ones(counts.shape, bool)}
    light = np.full(truth["phase"].shape, 1e5)
    both = areal_error(model, light, data)
    index = np.asarray(model.elements.index, float)
    det = np.linalg.det(2e5 * index.T @ index)
    by_phase = np.sqrt(2e5 * (index[:, ::-1] ** 2).sum(0) / det)  # two equations, two elements
    assert (both[:, 40, 40] <= by_phase * 1.001).all() and (both[:, 40, 40] > 0.05 * by_phase).all()
    dark = areal_error(model, 1e-3 * light, data)
    assert (dark[:, 40, 40] > both[:, 40, 40]).all()


def test_other_side_of_the_focus_is_the_mirrored_phase():
    pupil = np.zeros((16, 16))
    pupil[:4, :5] = 1.0
    probe = np.fft.fftshift(np.fft.ifft2(pupil))[None]
    spectra = [np.fft.fft2(np.fft.ifftshift(_refocused(probe, defocus)[0])) for defocus in (1.5, -1.5)]
    np.testing.assert_allclose(spectra[0], spectra[1].conj(), atol=1e-6)
    np.testing.assert_allclose(abs(spectra[0]), pupil, atol=1e-6)


# ---------------------------------------------------------------------------------------------------- recipe
@pytest.mark.slow
def test_areal_densities_sharper_than_the_probe(measured, tmp_path):
    """Without the probe: better than deconvolution of the counts by the true one (error 0.8, correlation 0.6)."""
    path, truth, _ = measured
    result = dr.reconstruct(dr.open_scan(path), settings={"solver": {"first": 300, "separation": 240, "steps": 40}})
    box = (slice(18, -18),) * 2
    moves = [(i, j) for i in range(-2, 3) for j in range(-2, 3)]
    for name in simulation.ELEMENTS:
        true, found = truth[name][box], result[name]
        close = max(np.corrcoef(np.roll(found, m, (0, 1))[box].ravel(), true.ravel())[0, 1] for m in moves)
        assert close > 0.75
        assert found[box].sum() == pytest.approx(true.sum(), rel=0.2)
    assert result.quantities["Fe"].units == "g/cm2" and np.isfinite(result["Fe"]).all()
    assert result.quality["held_out_residual"] < 1.4 * result.quality["noise_floor_residual"]


# ---------------------------------------------------------------------------------------------------- input
def test_counts_that_are_none_and_lines_out_of_reach_are_left_out(measured, tmp_path):
    def change(file):
        counts = file["xrf/counts"][()].astype(np.int32)
        counts[0, 5] = -1
        del file["xrf/counts"]
        file["xrf/counts"] = counts
        file["xrf/line_eV"][1] = 12e3

    scan = dr.open_scan(edited(measured, tmp_path, change))
    assert scan.extra["elements"]["names"] == ("Fe",) and np.isnan(scan.extra["element_counts"][5, 0])
    assert "above the beam's 10000 eV" in " ".join(scan.provenance.messages)


def test_edge_above_the_beam(measured, tmp_path):
    pytest.importorskip("xraydb")

    def change(file):
        file.attrs["energy_eV"] = 6800.0  # above the line of iron, below its edge

    scan = dr.open_scan(edited(measured, tmp_path, change))
    assert scan.extra["elements"]["names"] == ("Ca",) and "needs more than the edge" in " ".join(
        scan.provenance.messages
    )


@pytest.mark.parametrize(
    ("remove", "words"),
    [("xrf/production_cm2_per_g", "production_cm2_per_g"), ("xrf/elements", "names of the elements")],
)
def test_what_must_be_there_is_named(measured, tmp_path, remove, words):
    def change(file):
        del file[remove]

    with pytest.raises(InputError, match=words):
        dr.open_scan(edited(measured, tmp_path, change))


def test_counts_of_another_number_of_views_are_refused(measured, tmp_path):
    def change(file):
        counts = file["xrf/counts"][:, :-2]
        del file["xrf/counts"]
        file["xrf/counts"] = counts

    with pytest.raises(InputError, match="62 element counts for 64 frames"):
        dr.open_scan(edited(measured, tmp_path, change))


def test_positions_with_a_unit_missing_ones_and_swapped_ones(measured, tmp_path):
    whole = dr.open_scan(measured[0])

    def in_micrometres(file):
        file["positions_px"][()] = file["positions_px"][()] * whole.pixel_size * 1e6
        file["positions_px"].attrs["units"] = "um"

    scan = dr.open_scan(edited(measured, tmp_path, in_micrometres))
    np.testing.assert_allclose(np.asarray(scan.positions) / scan.pixel_size, whole.positions, rtol=1e-6)

    def stopped(file):
        places = file["positions_px"][:-4]
        del file["positions_px"]
        file["positions_px"] = places

    path = edited(measured, tmp_path, stopped)
    with pytest.raises(InputError, match="60 positions for 64 frames.*data.views=0:60"):
        dr.open_scan(path)
    few = dr.open_scan(path, views="0:60")
    assert few.views == 60 and len(few.extra["monitor"]) == len(few.extra["element_counts"]) == 60
    swapped = _mended(whole.replace(positions=np.asarray(whole.positions)[:, ::-1]), "auto", Console(quiet=True))
    about = lambda s: np.asarray(s.positions) - np.mean(s.positions, 0)
    apart = [np.abs(about(swapped) - sign * about(whole)).max() for sign in (1, -1)]
    assert min(apart) < 1e-6  # far-field frames do not tell a turn by 180 degrees


def test_dark_monitor_is_refused_with_its_view(measured, tmp_path):
    def change(file):
        file["dwell"][7] = 0

    scan = dr.open_scan(edited(measured, tmp_path, change))
    with pytest.raises(InputError, match="data.monitor is 0 at 1 views, first 7"):
        dr.reconstruct(scan)
    kept = np.setdiff1d(np.arange(64), [7])
    assert dr.open_scan(edited(measured, tmp_path, change), views=kept).extra["element_counts"].shape == (63, 2)
