"""The recipe of coherent diffraction imaging on small patterns with known objects, and what it refuses."""

import numpy as np
import pytest

import diffrecon as dr
from diffrecon.errors import InputError
from diffrecon.geometry import FarField
from diffrecon.recipes.cdi import _off_middle
from diffrecon.simulate.diffraction import difference

QUICK = {"solver": {"starts": 8, "steps": 300, "refine": 40, "shrink_threshold": 0.15}, "model": {"coherence": None}}


def measured(shape, seed=0, counts=3e6, positive=False, stop=True):
    """An object without symmetry and its noisy pattern, zero frequency in the middle, behind a small stop."""
    rng = np.random.default_rng(seed)
    grids = np.meshgrid(*[np.arange(n) - n // 2 for n in shape], indexing="ij")
    body = sum((g / (0.13 * n)) ** 2 for g, n in zip(grids, shape, strict=True)) < 1
    body |= sum(((g - 0.1 * n) / (0.09 * n)) ** 2 for g, n in zip(grids, shape, strict=True)) < 1
    phase = 0 if positive else sum(np.sin(3 * g / n * 6 + i) for i, (g, n) in enumerate(zip(grids, shape, strict=True)))
    obj = np.where(body, rng.uniform(0.5, 1, shape) * np.exp(0.5j * phase), 0)
    pattern = np.fft.fftshift(abs(np.fft.fftn(obj)) ** 2)
    frames = rng.poisson(pattern * (counts / pattern.sum()))
    mask = np.hypot(*np.meshgrid(*[np.arange(n) - n // 2 for n in shape[-2:]], indexing="ij")) > (1.2 if stop else -1)
    return obj, frames if len(shape) == 3 else frames[None], mask


def scan_of(frames, mask):
    geometry = FarField(frames.shape[-1], 8000.0, 1.0, 55e-6)
    return dr.Scan.from_arrays(frames, mask=mask, method="cdi", geometry=geometry, extra={"dc": "centre"})


def error_of(found, truth):
    return min(difference(truth, one)[0] for one in (found, np.conj(np.flip(found))))


@pytest.fixture(scope="module")
def complex_result():
    truth, frames, mask = measured((48, 48))
    return truth, dr.reconstruct(scan_of(frames, mask), "cdi", QUICK)


def test_complex_object_behind_a_stop(complex_result):
    truth, result = complex_result
    assert error_of(result["object"], truth) < 0.15
    assert result.quality["held_out_deviance"] < 2 * result.quality["deviance_floor"]
    assert result.quality["prtf_at_half"] > 0.3
    assert "random starts" in " ".join(result.verdict)


def test_a_run_resumed_after_its_starts_says_the_same(complex_result, tmp_path):
    class Stops(dr.Console):
        def progress(self, total, label):
            if label.startswith("refinement"):
                raise KeyboardInterrupt
            return super().progress(total, label)

    scan, path = scan_of(*measured((48, 48))[1:]), str(tmp_path / "run.checkpoint")
    part = dr.reconstruct(scan, "cdi", QUICK, Stops(quiet=True, checkpoint=path))
    assert any("interrupted" in line and "refinement" in line for line in part.verdict)
    again = dr.reconstruct(scan, "cdi", QUICK, dr.Console(quiet=True, checkpoint=path, resume=True))
    assert again.verdict == complex_result[1].verdict and again.quality.keys() == complex_result[1].quality.keys()
    np.testing.assert_array_equal(again["object"], complex_result[1]["object"])


def test_quantities_say_what_they_are(complex_result):
    _, result = complex_result
    pixel = 1.5498e-10 / (48 * 55e-6)
    assert result.quantities["object"].pixel_size == pytest.approx(pixel, rel=1e-3)
    inside = result["support"].astype(bool)
    seen = np.isfinite(result["phase"])
    assert 0.5 * inside.sum() < seen.sum() and not seen[~inside].any()
    assert abs(np.array([w.mean() for w in np.nonzero(inside)]) - 24).max() < 1


def test_positive_object():
    truth, frames, mask = measured((48, 48), seed=3, positive=True)
    result = dr.reconstruct(scan_of(frames, mask), "cdi", QUICK | {"model": {"coherence": None, "object": "positive"}})
    obj = result["object"]
    assert not obj.imag.any() or abs(obj.imag).max() < 1e-3 * abs(obj).max()
    assert error_of(obj, truth) < 0.15


def test_soft_object_is_not_cut():
    """Of a range of thresholds pixels left out choose one that keeps the flanks of a soft object."""
    u = np.arange(48) - 24
    radius = np.hypot(u[:, None], 1.3 * u[None] + 0.4 * u[:, None])
    truth = np.exp(-((radius / 6) ** 2)) * np.exp(0.8j * np.sin(u[:, None] / 3 + 1) * np.cos(u[None] / 2.5))
    pattern = np.fft.fftshift(abs(np.fft.fftn(truth)) ** 2)
    frames = np.random.default_rng(5).poisson(pattern * (1e6 / pattern.sum()))[None]
    scan = scan_of(frames, np.ones((48, 48), bool))
    tight, tried = (
        dr.reconstruct(scan, "cdi", QUICK | {"solver": QUICK["solver"] | {"shrink_threshold": said}})
        for said in (0.4, [0.05, 0.4])
    )
    assert tried["support"].sum() > 1.2 * tight["support"].sum()
    assert error_of(tried["object"], truth) < 0.5 * error_of(tight["object"], truth)
    assert tried.quality["held_out_deviance"] < tight.quality["held_out_deviance"]


def test_bragg_particle():
    """Three dimensions, with the phase of a strain; no stop."""
    truth, frames, mask = measured((24, 28, 32), seed=1, stop=False, counts=3e6)
    frames[0] += 1  # a Bragg stack may begin with empty frames, which arrays may not
    result = dr.reconstruct(scan_of(frames, mask), "cdi", QUICK)
    assert result["object"].ndim == 3 and error_of(result["object"], truth) < 0.2


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"model": {"object": "imaginary"}}, "model.object"),
        ({"solver": {"starts": 0}}, "solver.starts"),
        ({"solver": {"shrink_width": [1.0]}}, "a list of 2"),
        ({"solver": {"shrink_threshold": [0.1, 2.0]}}, "above 0; below 1"),
        ({"solver": {"shrink_threshold": [0.1, 0.2, 0.3]}}, "a number between 0 and 1"),
        ({"solver": {"keep": 0.0}}, "solver.keep"),
        ({"solver": {"rule": "er", "beta": 0.5}}, "no effect"),
        ({"model": {"background": -1.0}}, "model.background"),
        ({"model": {"coherence": 40.0}}, "model.coherence"),
        ({"model": {"support": [99, 9]}}, "does not fit"),
        ({"solver": {"rule": "hoi"}}, "did you mean"),
    ],
)
def test_refuses(settings, message):
    _, frames, mask = measured((16, 16))
    with pytest.raises(InputError, match=message):
        dr.reconstruct(scan_of(frames, mask), "cdi", settings)


def test_a_beam_beside_the_zero_frequency_is_named():
    y, x = (np.fft.fftfreq(n, 1 / n) for n in (24, 32))
    light = lambda row, column: 1e4 * np.exp(-((y[:, None] - row) ** 2 + (x - column) ** 2) / 8)
    assert _off_middle(light(0.5, -1.0)) == []
    assert "is (-5.0, +3.0) pixels off the zero frequency" in _off_middle(light(-5, 3))[0]
