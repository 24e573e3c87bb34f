"""The diffraction model against Fourier sums in plain NumPy, its data, its first support, its projections."""

import jax.numpy as jnp
import numpy as np
import pytest
from diffraction_patterns import particle, pattern_of

from diffrecon.errors import InputError
from diffrecon.models import Diffraction, autocorrelation_support, diffraction_pattern, oversampling_ratio
from diffrecon.models._diffraction import support_of
from diffrecon.scan import Scan

SHAPES = pytest.mark.parametrize("shape", [(12, 16), (6, 8, 10)], ids=["image", "volume"])


def scan_of(frames, **fields):
    return Scan.from_arrays(frames, method="cdi", **fields)


# ---------------------------------------------------------------------------------------------------- prediction
@SHAPES
def test_pattern_is_the_fourier_sum(shape):
    obj, support = particle(shape)
    model = Diffraction(object=jnp.asarray(obj), support=jnp.asarray(support))
    found = model(jnp.arange(2))
    assert found.shape == (2, *shape) and found.dtype == np.float32
    np.testing.assert_allclose(found[1], pattern_of(obj), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found[0].sum(), np.sum(abs(obj) ** 2), rtol=1e-5)


def test_what_lies_outside_the_support_does_not_count():
    obj, support = particle((12, 16))
    dirty = obj + np.where(support, 0, 3.0)
    found = Diffraction(object=jnp.asarray(dirty), support=jnp.asarray(support))(jnp.arange(1))[0]
    np.testing.assert_allclose(found, pattern_of(obj), rtol=1e-4, atol=1e-3)
    found = Diffraction(object=jnp.asarray(obj), support=jnp.asarray(support), positive=True)(jnp.arange(1))[0]
    np.testing.assert_allclose(found, pattern_of(np.maximum(obj.real, 0)), rtol=1e-4, atol=1e-3)


def test_blur_is_a_gaussian_and_background_is_added():
    obj, support = particle((16, 16))
    model = Diffraction(
        object=jnp.asarray(obj),
        support=jnp.asarray(support),
        coherence=jnp.asarray([1.0, 0.6]),
        background=jnp.asarray(2.0),
    )
    images = np.arange(-32, 33)  # what wraps round is added
    kernels = [np.exp(-(images**2) / (2 * s**2)) / np.exp(-(images**2) / (2 * s**2)).sum() for s in (1.0, 0.6)]
    sharp, expected = pattern_of(obj), np.zeros((16, 16))
    for dy, a in zip(images[24:41], kernels[0][24:41], strict=True):
        for dx, b in zip(images[24:41], kernels[1][24:41], strict=True):
            expected += a * b * np.roll(sharp, (dy, dx), (0, 1))
    # The model's Gaussian is one in the transform's space: for 0.6 pixels that differs by a percent.
    np.testing.assert_allclose(model(jnp.arange(1))[0], expected + 4.0, atol=0.02 * sharp.max())
    np.testing.assert_allclose(model(jnp.arange(1))[0].sum(), sharp.sum() + 4 * 256, rtol=1e-5)


# ---------------------------------------------------------------------------------------------------- data
@SHAPES
def test_zero_frequency_goes_to_the_corner(shape):
    obj, _ = particle(shape)
    ideal = pattern_of(obj)
    frames = np.fft.fftshift(ideal)
    mask = np.ones(shape[-2:], bool)
    mask[shape[-2] // 2, shape[-1] // 2] = False
    counts, measured = diffraction_pattern(scan_of(frames if len(shape) == 3 else frames[None], mask=mask))
    np.testing.assert_array_equal(counts[measured], ideal[measured])
    assert counts[(0,) * len(shape)] == 0 and not measured[(0,) * len(shape)] and measured.mean() > 0.9


def test_exposures_are_added():
    frames = np.random.default_rng(0).poisson(5.0, (5, 8, 8))
    counts, _ = diffraction_pattern(scan_of(frames), three_dimensional=False)
    np.testing.assert_array_equal(counts, np.fft.ifftshift(frames.sum(0)))


def frames_with(value):
    frames = np.full((1, 8, 8), 3.0)
    frames[0, 1, 2] = value
    return frames


@pytest.mark.parametrize(
    "frames, fields, message",
    [
        (np.zeros((1, 8, 8)), {}, "no counts in any view"),
        (np.ones((1, 8, 8)), {"mask": np.zeros((8, 8), bool)}, "mask leaves no pixel"),
        (-np.ones((1, 8, 8), int), {}, "negative"),
        (np.ones((3, 8, 8)), {}, "three_dimensional=false"),
    ],
)
def test_refuses(frames, fields, message):
    with pytest.raises(InputError, match=message):
        diffraction_pattern(scan_of(frames, **fields))


def test_refuses_a_dark_pattern_of_a_scan_that_was_not_checked():
    with pytest.raises(InputError, match="all measured pixels are zero"):
        diffraction_pattern(Scan(np.zeros((1, 8, 8)), method="cdi"))


@pytest.mark.parametrize("mark", [np.nan, np.inf, -1.0])
def test_marks_of_the_detector_are_not_counts(mark):
    counts, measured = diffraction_pattern(scan_of(frames_with(mark)))
    assert np.isfinite(counts).all() and (counts >= 0).all() and measured.sum() == 63


def test_what_is_wrong_behind_the_mask_does_not_matter():
    mask = np.ones((8, 8), bool)
    mask[1, 2] = False
    counts, measured = diffraction_pattern(scan_of(frames_with(np.nan), mask=mask))
    assert np.isfinite(counts).all() and measured.sum() == 63


def test_first_guess():
    obj, support = particle((32, 32))
    frames = np.fft.fftshift(pattern_of(obj))[None]
    box = Diffraction.from_scan(scan_of(frames), support=[12, 14])
    assert box.object.dtype == np.complex64 and 11 <= int(box.support.any(1).sum()) <= 13
    loose = Diffraction.from_scan(scan_of(frames))
    assert support.sum() < loose.support.sum() < 6 * support.sum()
    np.testing.assert_array_equal(loose.object, jnp.where(loose.support, loose.object, 0))


# ---------------------------------------------------------------------------------------------------- support
def test_oversampling():
    assert oversampling_ratio(np.eye(4)) == 4.0 and oversampling_ratio(np.zeros((2, 2))) == 4.0


@SHAPES
def test_autocorrelation_holds_the_object_in_any_place(shape):
    """The support has the sides of the object with itself moved: 2 n - 1, about the middle."""
    shape = tuple(2 * n for n in shape)
    obj, support = particle(shape)
    found = autocorrelation_support(pattern_of(obj), threshold=1e-4)
    for axis in range(len(shape)):
        others = tuple(i for i in range(len(shape)) if i != axis)
        places = np.flatnonzero(found.any(others))
        side = support.any(others).sum()
        assert places.size == 2 * side - 1 and places.mean() == shape[axis] // 2


def test_autocorrelation_behind_a_beam_stop():
    """Without the middle of the pattern the support is nearly as with it, not the frame nor nothing."""
    obj = np.zeros((64, 64))
    obj[26:38, 22:40] = 1.0
    counts = pattern_of(obj)
    q = np.fft.fftfreq(64, 1 / 64)
    mask = np.hypot(q[:, None], q) > 1.5
    whole, stopped = autocorrelation_support(counts), autocorrelation_support(np.where(mask, counts, 0), mask)
    assert 0.7 * whole.sum() < stopped.sum() < 1.5 * whole.sum()
    assert (stopped & whole).sum() > 0.7 * whole.sum()


@pytest.mark.parametrize(
    "said, message",
    [
        ([4, 4, 4], "sides of a box"),
        ([0, 4], "does not fit"),
        ([4, 99], "does not fit"),
        (np.zeros((8, 8)), "empty"),
        (np.ones((7, 8)), "shape"),
    ],
)
def test_refuses_a_support(said, message):
    with pytest.raises(InputError, match=message):
        support_of((8, 8), said)


# ---------------------------------------------------------------------------------------------------- first model
def test_blur_of_a_rocking_curve_is_the_detectors():
    widths = lambda coherence, shape: Diffraction.from_scan(scan_of(np.ones(shape)), coherence=coherence).coherence
    np.testing.assert_allclose(widths(0.3, (8, 16, 16)), [0, 0.3, 0.3])
    np.testing.assert_allclose(widths([0.2, 0.1, 0.3], (8, 16, 16)), [0.2, 0.1, 0.3])
    assert widths(None, (1, 16, 16)) is None
    with pytest.raises(InputError, match="one number or 2"):
        widths([0.1, 0.2, 0.3], (1, 16, 16))


def test_centred_whatever_the_wrap():
    support = np.zeros((8, 8), bool)
    support[[7, 0, 1]] = True
    model = Diffraction(np.where(support, 1j, 0).astype(np.complex64), support)
    moved = model.centred()
    assert np.flatnonzero(np.asarray(moved.support).any(1)).tolist() == [3, 4, 5]
    assert np.allclose(np.asarray(moved.object)[4], 1)
