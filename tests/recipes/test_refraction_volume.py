"""Volumes from frames at many angles: how frames are sorted by angle, and delta of a rod simulated by waves."""

import dataclasses

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

import diffrecon as dr
from diffrecon.recipes import _refraction_volume
from diffrecon.simulate import speckle_tomography
from diffrecon.solvers import Information, Transfer
from diffrecon.solvers.refraction_volumes import RefractionVolumes, consistent_volumes

ANGLES = np.arange(4) * np.pi / 4


def scan_of(angles, still=3):
    counts = np.arange(len(angles), dtype=np.uint16)[:, None, None] + np.ones((1, 4, 5), np.uint16)
    return dr.Scan.from_arrays(counts, angles=angles, extra={"reference": np.ones((still, 4, 5))}, method="speckle")


@pytest.mark.parametrize("jitter", [0.0, 1e-4])
def test_frames_of_an_angle_keep_their_order(jitter):
    """Position by position, as scans are taken that move the membrane rarely; encoders never read the same twice."""
    noise = jitter * np.random.default_rng(0).standard_normal((3, 4))
    by_position = scan_of((ANGLES + noise).ravel())
    angles, views = _refraction_volume.by_angle(by_position)
    np.testing.assert_allclose(angles, ANGLES, atol=1e-3)
    np.testing.assert_array_equal(views, np.arange(12).reshape(3, 4).T)
    angles, views = _refraction_volume.by_angle(scan_of(np.repeat(ANGLES[::-1], 3)))
    np.testing.assert_array_equal(views, np.arange(12).reshape(4, 3)[::-1])


def test_an_angle_without_all_positions_is_refused():
    with pytest.raises(dr.InputError, match="between 2 and 3 frames each"):
        _refraction_volume.by_angle(scan_of(np.repeat(ANGLES, 3)[:-1]))


def test_file_with_an_axis_of_positions(tmp_path):
    """Frames (angle, position, y, x) stay in the file and are one view after the other."""
    frames = np.random.default_rng(0).integers(100, 200, (5, 3, 40, 42)).astype(np.uint16)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["sample"], file["reference"], file["angles"] = frames, frames[0], np.arange(5) * 36.0
        file["angles"].attrs["units"] = "deg"
        file.attrs.update(kind="speckle", energy_keV=20, pixel_m=3e-6, sample_to_detector_m=0.7)
    scan = dr.open_scan(tmp_path / "scan.h5")
    assert scan.method == "speckle" and not isinstance(scan.counts, np.ndarray)
    np.testing.assert_allclose(scan.angles, np.repeat(np.arange(5) * np.pi / 5, 3))
    np.testing.assert_array_equal(scan.counts[[3, 14, 2], 5:9, 3:7], frames.reshape(15, 40, 42)[[3, 14, 2], 5:9, 3:7])
    part = dr.open_scan(tmp_path / "scan.h5", region=[0, 36, 4, 40], method="speckle")
    np.testing.assert_array_equal(np.asarray(part.counts), frames.reshape(15, 40, 42)[:, :36, 4:40])


def test_settings_of_volumes_are_for_angles():
    rng = np.random.default_rng(0)
    scan = dr.Scan.from_arrays(
        rng.poisson(100, (2, 40, 40)), geometry=dr.ParallelBeam(3e-6, 20e3, 0.7), method="speckle",
        extra={"reference": rng.poisson(100, (2, 40, 40))},
    )  # fmt: skip
    with pytest.raises(dr.InputError, match="volume"):
        dr.reconstruct(scan, settings={"volume": {"name": "cgls"}})


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """Twenty angles of two positions, 32 pixels wide."""
    path = tmp_path_factory.mktemp("rod") / "scan.h5"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"FRAME": 32, "MARGIN": 8, "ANGLES": 20, "POSITIONS": 2}.items():
            patch.setattr(speckle_tomography, name, value)
        truth = dr.simulate.demo_file("speckle-tomography", path, 3)
    scan = dr.open_scan(path, rotation_centre=15.5 + speckle_tomography.CENTRE)
    return dr.reconstruct(scan, settings={"solver": {"rounds": 3}}), truth


def test_delta_of_a_rod_is_that_of_its_material(solved):
    result, truth = solved
    delta, rod = np.asarray(result["delta"]), truth["core"] == 1
    assert delta[rod].mean() == pytest.approx(speckle_tomography.PERSPEX[0], rel=0.08)
    assert "relative_residual_attenuation" not in result.quality  # of what does not attenuate it is no failure
    metal = truth["delta"] > 1.3e-6
    assert delta[metal].mean() > 1.4 * delta[rod].mean()
    assert [result.quantities[k].units for k in ("attenuation", "scattering")] == ["1/m", "rad^2/m"]


def test_powder_scatters_and_its_surroundings_do_not(solved):
    result, truth = solved
    scattering = np.asarray(result["scattering"])
    powder = truth["powder"] > 0.99 * truth["powder"].max()
    assert scattering[powder].mean() > 4 * abs(scattering[truth["core"] == 1].mean())


def test_volumes_agree_with_what_all_angles_say():
    """A Gaussian ball beside the axis, whose projections and slopes are written down: one joint solve finds it."""
    angles, (rows, side), width, top = np.arange(24) * np.pi / 24, (12, 32), 3.5, 0.4
    row, column = np.indices((rows, side)) - np.array([(rows - 1) / 2, (side - 1) / 2])[:, None, None]
    away = column - (4 * np.cos(angles) - 3 * np.sin(angles))[:, None, None]
    ball = top * width * np.sqrt(2 * np.pi) * np.exp(-(row**2 + away**2) / (2 * width**2))
    drift = 0.1 * np.sin(angles)[:, None, None]
    gains = (0.9, 0.8, 0.7)  # of displacement, attenuation, visibility, alike at all frequencies
    fields = np.stack([-row / width**2 * ball, -away / width**2 * ball, -0.1 * ball, -0.2 * ball], 1)
    fields = (
        fields * np.array([gains[0], *gains])[:, None, None] + np.array([0, 1, 0, 0])[:, None, None] * drift[:, None]
    )
    hessian = np.broadcast_to(np.diag([4.0, 4.0, 100.0, 10.0])[None, :, :, None, None], (24, 4, 4, rows, side))
    at = np.zeros_like(fields)
    at[:, 3] = 1.0
    gradient = np.einsum("aijyx,ajyx->aiyx", hessian, fields)
    single = lambda a: jnp.asarray(a, jnp.float32)
    told = Information(*map(single, (hessian, gradient, at, np.ones((24, rows, side)))))
    A = dr.operators.ParallelProjector(angles, (side, side), side)
    empty = RefractionVolumes(*[jnp.zeros((rows, side, side))] * 3, jnp.zeros((24, 4)))
    transfer = Transfer(np.zeros((rows + 32, 33)), *(np.full((rows + 32, 33), gain) for gain in gains))
    found = consistent_volumes(A, told, empty, transfer, (1e-3,) * 3, steps=12)
    y, x = np.indices((side, side)) - (side - 1) / 2
    true = top * np.exp(-((x - 4) ** 2 + (y + 3) ** 2 + 0.25) / (2 * width**2))
    disc = np.hypot(y, x) < 13  # a level of the slice is nearly one of air, and converges last
    for volume, share in ((found.potential, 1.0), (found.attenuation, 0.1), (found.loss, 0.2)):
        assert np.linalg.norm((volume[rows // 2] - share * true)[disc]) < 0.08 * np.linalg.norm(share * true)
    np.testing.assert_allclose(found.air[:, 1], drift[:, 0, 0], atol=0.01)


def frames_of(method, angles, random):
    """Frames (angle, position, y, x), references and places: an elliptic cylinder with a ball in it, as closed forms.

    Rays alone: the difference of the lengths that both edges of a pixel see, or both ends of a shear, refracts
    them; nothing is propagated.
    """
    rows, columns, pixel, distance = 16, 40, 5e-6, 0.42
    rod, ball = ((0.33, 0.27, float("inf")), 0.4), ((0.11, 0.11, 0.11), 0.0)
    bodies = [
        speckle_tomography.Body(*rod, (0.03, -0.02, 0.0), (*RODS[0], 0.0)),
        speckle_tomography.Body(*ball, (-0.08, 0.05, 0.0), (*RODS[1], 0.0)),
    ]
    row, column = np.arange(rows)[:, None] - (rows - 1) / 2, np.arange(columns)[None] - (columns - 1) / 2
    steps = np.arange(4) / 4
    places = np.linspace(-9e-6, 9e-6, 5) if method == "edge-illumination" else steps
    still = np.linspace(-16e-6, 16e-6, 17) if method == "edge-illumination" else steps
    moire = 2 * np.pi * column / 31
    soft = lambda x: 0.02 + 0.5 * (np.tanh((x + 4e-6) / 3e-6) - np.tanh((x - 4e-6) / 3e-6))

    number = 2 * np.pi * 20e3 / dr.physics.HC
    apart = distance * dr.physics.HC / 20e3 / 2.4e-6 / pixel if method == "grating" else 1.0  # what fringes compare

    def seen(alpha, place):
        if method == "grating":
            return 1 + 0.3 * np.cos(moire + 2 * np.pi * (distance * alpha / 2.4e-6 - place))
        return soft(place - distance * alpha)

    frames = []
    for angle in angles:
        at = lambda shift, b, turn=angle: (
            columns * speckle_tomography.chord(b, turn, row / columns, (column + shift) / columns)
        )
        alpha = -sum(b.adds[0] * (at(apart / 2, b) - at(-apart / 2, b)) for b in bodies) / apart
        light = np.exp(-sum(b.adds[1] * pixel * (at(-0.25, b) + at(0.25, b)) / 2 for b in bodies))
        if method == "interferometer":  # the phase of what a pixel sees in its middle
            phase = -number * pixel * sum(b.adds[0] * at(0.0, b) for b in bodies)
            turned = [np.sqrt(light) * np.cos(moire + phase - 2 * np.pi * p) for p in places]
            frames.append([30000 * (0.5 * (1 + light) + 0.6 * wave) for wave in turned])
        else:
            frames.append([30000 * light * seen(alpha, p) for p in places])
    level = np.zeros((rows, columns))
    empty = [30000 * seen(level, p) for p in still]
    if method == "interferometer":
        empty = [30000 * (1 + 0.6 * np.cos(moire + level - 2 * np.pi * p)) for p in places]
    scan = dr.Scan.from_arrays(
        random.poisson(np.reshape(frames, (-1, rows, columns))), method=method, rotation_centre=(columns - 1) / 2,
        geometry=dr.ParallelBeam(pixel, 20e3, distance), angles=np.repeat(angles, len(places)),
        extra={"reference": random.poisson(empty), "period": 2.4e-6 if method == "grating" else None,
               "reference_steps": still, "steps": places, "detector_blur": 0.0},
    )  # fmt: skip
    y, x = column.T / columns, column / columns
    inside = (
        lambda b, less: (
            ((x - b.centre[0]) * np.cos(b.turn) + (y - b.centre[1]) * np.sin(b.turn)) ** 2 / (b.semi[0] - less) ** 2
            + ((y - b.centre[1]) * np.cos(b.turn) - (x - b.centre[0]) * np.sin(b.turn)) ** 2 / (b.semi[1] - less) ** 2
        )
        < 1
    )
    return scan, inside(bodies[0], 0.08) & ~inside(bodies[1], -0.06), inside(bodies[1], 0.05)


RODS = (1.0e-7, 300.0), (1.0e-7, 900.0)  # delta and attenuation coefficient [1/m] of the rod, and what the ball adds


def test_a_weak_specimen_is_not_taken_for_air():
    """A rod that takes 3.5 % and turns fringes by a few degrees, over two thirds of the frame: air is beside it."""
    scan, _, _ = frames_of("grating", np.zeros(1), np.random.default_rng(2))
    settings = {"model": {"fringes": False}, "quality": {"error_bars": 0}}
    light = np.asarray(dr.reconstruct(dataclasses.replace(scan, angles=None), settings=settings)["transmission"])
    assert light[:3, 17:23].mean() == pytest.approx(np.exp(-300 * 2 * 0.3 * 40 * 5e-6), abs=0.006)
    assert light[:, [0, 1, 2, 37, 38, 39]].mean() == pytest.approx(1.0, abs=0.003)


@pytest.mark.nightly
@pytest.mark.parametrize("method", ["grating", "edge-illumination", "interferometer"])
def test_volumes_of_gratings_and_masks(method):
    angles = np.arange(30) * np.pi / 30
    scan, rod, ball = frames_of(method, angles, np.random.default_rng(2))
    settings = {} if method == "interferometer" else {"solver": {"rounds": 6}}
    settings |= {"model": {"fringes": False}} if method == "grating" else {}
    result = dr.reconstruct(scan, settings=settings)
    for name, each in zip(("delta", "attenuation"), zip(*RODS, strict=True), strict=True):
        middle = np.asarray(result[name])[7:9].mean(0)
        assert middle[rod].mean() == pytest.approx(each[0], rel=0.08), name
        assert middle[ball].mean() - middle[rod].mean() == pytest.approx(each[1], rel=0.12), name
