"""Simulations: files that open, closed forms of the independent models, and whole demos against the truth."""

import re
import shutil

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import dawsn, erf, eval_legendre, j1

from diffrecon import io, recipes, simulate
from diffrecon._result import Quantity, Result
from diffrecon.cli._settings import gather
from diffrecon.errors import InputError
from diffrecon.operators.scattering import TensorProjector, harmonic_degrees, real_harmonics
from diffrecon.simulate import (
    analyser,
    differential_phase,
    diffraction,
    diffraction_tomography,
    dynamic,
    edge_illumination,
    far_field,
    fluorescence,
    fluorescence_map,
    fluorescence_ptychography,
    grating,
    holography,
    holotomography,
    integration,
    interferometer,
    kedge,
    kedge_tomography,
    laminography,
    operando_diffraction,
    ptychography,
    ptychotomography,
    scattering,
    speckle_tomography,
    stxm,
    tomography,
)

# Shorter scans of the same experiments: every method's constants and the shape of its counts.
SMALL = {
    "near-field-ptychography": (ptychography, {"VIEWS": 2, "FRAME": 64}, (4, 64, 64)),
    "far-field-ptychography": (far_field, {"VIEWS": 2, "FRAME": 32}, (4, 32, 32)),
    "laminography": (laminography, {"VIEWS": 4, "RAYS": 1}, (4, 48, 80)),
    "tomography": (tomography, {"VIEWS": 60, "ROWS": 1}, (60, 1, 256)),
    "dynamic-tomography": (dynamic, {"VIEWS": 40}, (40, 1, 64)),
    "holography": (holography, {"FOCUS_TO_SAMPLE": holography.FOCUS_TO_SAMPLE[:1], "FRAME": 128}, (1, 128, 128)),
    "holotomography": (holotomography, {"DEMO": holotomography.Setup(angles=3, frame=32)}, (12, 32, 32)),
    "k-edge": (kedge, {"FLATS": 2}, (2, 128, 128)),
    "k-edge-tomography": (kedge_tomography, {"COLUMNS": 32, "VIEWS": 4}, (8, 2, 32)),
    "fluorescence-tomography": (fluorescence, {"VIEWS": 8}, (8, 1, 36, 2)),
    "fluorescence-map": (fluorescence_map, {"ROWS": 12}, (1, 12, 56, 3)),
    "fluorescence-ptychography": (fluorescence_ptychography, {"SCAN": 3, "FRAME": 32}, (9, 32, 32)),
    "azimuthal-integration": (integration, {"FRAMES": 2, "FINE": 1}, (2, 256, 256)),
    "speckle": (differential_phase, {"FRAME": 64, "VIEWS": 2}, (2, 64, 64)),
    "speckle-tomography": (
        speckle_tomography,
        {"FRAME": 32, "MARGIN": 8, "ANGLES": 2, "POSITIONS": 1},
        (2, 32, 32),
    ),
    "grating": (grating, {"FRAME": 48, "FINE": 8, "STEPS": 3}, (3, 48, 48)),
    "edge-illumination": (edge_illumination, {"FRAME": 32, "FINE": 12}, (5, 32, 32)),
    "analyser": (analyser, {"FRAME": 32, "FINE": 8}, (11, 32, 32)),
    "interferometer": (interferometer, {"STEPS": 3}, (3, 128, 128)),
    "stxm": (stxm, {"POINTS": 4}, (16, 48, 48)),
    "cdi": (diffraction, {"FRAME": 64}, (1, 64, 64)),
    "diffraction-tomography": (diffraction_tomography, {"VIEWS": 3, "FINE": 1}, (3, 24, 120)),
    "operando-diffraction": (operando_diffraction, {"VIEWS": 3}, (3, 24, 130)),
    "ptycho-tomography": (
        ptychotomography,
        {"DEMO": ptychotomography.Setup(angles=3, views=2, frame=32)},
        (12, 32, 32),
    ),
    "saxs-tensor-tomography": (scattering, {"ROTATIONS": 1, "SAMPLES": 1}, (4, 22, 22, 8)),
}
methods = pytest.mark.parametrize("method", simulate.methods())


def scan_of(method, path):
    """The scan as a user opens it, told only what the file format has no place for."""
    said = method if method == "cdi" else None  # a pattern without positions may be many things
    return io.open_scan(path, method=said, **gather(None, list(simulate.settings(method))).file)


def shrink(monkeypatch, method):
    module, constants, shape = SMALL[method]
    for name, value in constants.items():
        monkeypatch.setattr(module, name, value)
    if module is holography:
        whole = holography.resin_object
        monkeypatch.setattr(holography, "resin_object", lambda random, size, *rest: whole(random, 768, *rest))
    return shape


@methods
def test_file_opens_and_follows_the_seed(method, tmp_path, monkeypatch):
    shape = shrink(monkeypatch, method)
    counts = []
    for name, seed in (("a", 0), ("again", 0), ("other", 1)):
        truth = simulate.demo_file(method, tmp_path / f"{name}.h5", seed)
        scan = scan_of(method, tmp_path / f"{name}.h5")
        counts.append(np.asarray(scan.counts))
        assert scan.method == simulate.method_of(method) and scan.counts.shape == shape
        assert truth and all(np.isfinite(values).all() for values in truth.values())
    np.testing.assert_array_equal(counts[0], counts[1])
    assert counts[0].std() > 0 and not np.array_equal(counts[0], counts[2])
    with h5py.File(tmp_path / "a.h5") as file:
        assert "truth" in file


def test_unknown_method_is_refused(tmp_path):
    with pytest.raises(InputError, match="tomography"):
        simulate.demo_file("tomografy", tmp_path / "s.h5")


# ---------------------------------------------------------------------------------------------------- closed forms
def test_line_integral_of_an_ellipse():
    u = np.linspace(-12, 12, 41)
    ellipse = np.array([[0.5, 8.0, 3.0, 2.0, 1.0, 0.0]])
    along_y, along_x = tomography.line_integrals(ellipse, np.array([0, np.pi / 2]), u)
    np.testing.assert_allclose(along_y, 0.5 * 6 * np.sqrt(np.clip(1 - ((u - 2) / 8) ** 2, 0, None)), atol=1e-12)
    np.testing.assert_allclose(along_x, 0.5 * 16 * np.sqrt(np.clip(1 - ((u - 1) / 3) ** 2, 0, None)), atol=1e-12)


def test_tomography_phantom_and_integrals_agree():
    """Every projection has the mass of the slice."""
    mass = tomography.phantom(0, 0).sum()
    u = np.arange(-128, 128, 0.05)
    integrals = tomography.line_integrals(tomography._ellipses(0), np.array([0.3, 2.0]), u)
    np.testing.assert_allclose(integrals.sum(1) * 0.05, mass, rtol=1e-3)


def test_holography_thickness_and_detection():
    axis = np.arange(-100, 101) * 0.05
    ball = holography._ellipsoid(axis, 0.0, 0.0, 2.0, 2.0, 2.0)
    assert ball[100, 100] == pytest.approx(4e-6)
    assert ball.sum() * 0.05**2 == pytest.approx(1e-6 * 4 / 3 * np.pi * 8, rel=1e-3)
    # A fringe of n periods over the field, seen by pixels two samples wide: its contrast falls by sinc.
    size, periods, pixel = 256, 32, 1e-6
    fringe = 1 + 0.5 * np.cos(2 * np.pi * periods * (np.arange(size) - (size - 1) / 2) / size)
    seen = holography._detected(np.broadcast_to(fringe, (size, size)), pixel, 2 * pixel)
    middle = (np.arange(holography.FRAME) - (holography.FRAME - 1) / 2) * 2
    sinc = np.sinc(2 * periods / size)
    np.testing.assert_allclose(seen[0], 1 + 0.5 * sinc * np.cos(2 * np.pi * periods * middle / size), atol=1e-9)


def test_ptychography_frames_keep_the_light(monkeypatch):
    """Propagation is unitary: what absorbs nothing sends all of the probe to a detector that holds it."""
    monkeypatch.setattr(ptychography, "transmission", lambda y, x, seed: (0.0 * (y + x), 0.0 * (y + x)))
    probe = ptychography._probe(np.random.default_rng(0))
    frame = ptychography._frames(np.zeros((1, 2)), probe, 0)[0]
    assert frame.sum() * ptychography.FINE**2 == pytest.approx(np.sum(abs(probe) ** 2), rel=0.02)


def test_far_field_frames_keep_the_light_and_lie_where_the_beam_does():
    """Of an empty sample a frame is the lens itself, wherever stage and source are; the light is all there."""
    pupil = far_field._pupil(np.random.default_rng(0))
    empty = np.ones((70 * far_field.FINE,) * 2)
    frame = far_field._frame(np.array([1.3, -2.6]), pupil, empty)
    assert frame.sum() == pytest.approx(far_field.PHOTONS, rel=0.03)
    assert np.corrcoef(frame.ravel(), abs(pupil.ravel()) ** 2)[0, 1] > 0.97


def test_laminography_rays_and_phantom_agree():
    """Every projection has the mass of the volume; the plate face on is as thick as it is along the beam."""
    mass = laminography.phantom(0, (14, 80, 80)).sum()
    for angle in (0.0, 0.7):
        view = laminography.line_integrals(laminography.details(0), angle)
        assert view.sum() / laminography.RAYS**2 == pytest.approx(mass, rel=2e-3)
    through = laminography.line_integrals([], 0.3).max()
    assert through == pytest.approx(laminography.DENSITY * 2 * laminography.HALF[2] / np.sin(laminography.TILT))


def test_diffraction_is_the_fourier_sum():
    """A disc's Fourier transform is a Bessel function; the light of a frame without stop is all of the object's."""
    radius, n = 10.0, diffraction.WIDTH * diffraction.FINE
    u = (np.arange(n) - (n - 1) / 2) / diffraction.FINE
    disc = np.hypot(u[:, None], u[None]) < radius
    wave = diffraction._spectrum(disc.astype(float), 0.25, -0.5)
    v = np.arange(diffraction.FRAME) - diffraction.FRAME // 2
    q = np.hypot((v + 0.25)[:, None], (v - 0.5)[None]) / diffraction.FRAME
    expected = radius * j1(2 * np.pi * radius * q) / q
    np.testing.assert_allclose(wave, expected, atol=0.01 * np.pi * radius**2)
    body = diffraction.transmission(0)
    light = np.sum(abs(diffraction._spectrum(body)) ** 2) / diffraction.FRAME**2
    assert light == pytest.approx(np.sum(abs(body) ** 2) / diffraction.FINE**2, rel=0.03)


@pytest.mark.parametrize("concentration", [-8.0, -0.5, 0.5, 6.0])
def test_watson_function_has_mean_one(concentration):
    k = abs(concentration)
    area = dawsn(k**0.5) * np.exp(k) if concentration > 0 else erf(k**0.5) * np.pi**0.5 / 2
    t = np.linspace(0, 1, 5)
    found = scattering.watson(t, np.full(1, concentration))
    np.testing.assert_allclose(found, np.exp(concentration * t**2) * k**0.5 / area, rtol=1e-9)
    directions, weights = scattering._half_sphere()
    axis = np.array([[0.36, 0.48, 0.8]])
    values = scattering.watson(axis @ directions.T, np.full((1, 1), concentration))
    assert values[0] @ weights == pytest.approx(1, abs=1e-4)


def test_every_view_has_the_mass_of_the_sample():
    density = scattering._truth(0)["mean"].sum()
    for axis, angle in (((0, 0, -1), 0.7), ((1, 0, 0), np.pi / 4)):
        _, transmission = scattering._view(scattering.turn(axis, angle), np.array([0.3, -0.2]), 0)
        # Sub-rays are averaged after the exponential, which the logarithm of the mean hides by less than a percent.
        assert -np.log(transmission).sum() / scattering.ATTENUATION == pytest.approx(density, rel=0.01)


@pytest.fixture(scope="module")
def tensor_file(tmp_path_factory):
    """A scan with a quarter of the views."""
    path = tmp_path_factory.mktemp("scattering") / "s.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scattering, "ROTATIONS", 5)
        patch.setattr(scattering, "SAMPLES", 3)
        return path, simulate.demo_file("saxs-tensor-tomography", path, 0)


def harmonics_of_the_fibres(ell_max):
    """Coefficients `(z, y, x, lm)` of the analytic sample, means of 2 x 2 x 2 points a voxel.

    `sum_l (2l + 1) b_l P_l(q.d) = sum_lm b_l Y_lm(q) Y_lm(d)`, with `b_l` the mean of a Watson function times `P_l`.
    """
    degrees, _ = harmonic_degrees(ell_max)
    nodes, weights = np.polynomial.legendre.leggauss(24)
    t = (nodes + 1) / 2
    axis = np.arange(44) / 2 + 0.25 - 11
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    points = np.stack([x, y, z], -1).reshape(-1, 3)
    points = points[near := (np.hypot(*points.T[:2]) < 8) & (abs(points[:, 2]) < 7)]
    fibre = scattering.fibres(points, 0)
    function = scattering.watson(t, fibre.concentration[:, None])
    moments = np.stack([function @ (weights / 2 * eval_legendre(l, t)) for l in range(0, ell_max + 1, 2)], -1)
    moments[:, 1:] *= fibre.aligned[:, None]
    values = fibre.density[:, None] * moments[:, degrees // 2] * real_harmonics(fibre.axis, ell_max)
    whole = np.zeros((44**3, len(degrees)))
    whole[near] = values
    return whole.reshape(22, 2, 22, 2, 22, 2, -1).mean((1, 3, 5))


def test_tensor_truth_and_data_are_those_of_the_operators(tensor_file):
    """The analytic sample as harmonics through the operator, which knows nothing of it: data up to edges and noise."""
    path, truth = tensor_file
    coefficients = harmonics_of_the_fibres(6)
    full = truth["occupancy"] > 0.999
    np.testing.assert_allclose(coefficients[full][:, 0], truth["mean"][full], rtol=0.02)
    anisotropy = np.sqrt(np.sum(coefficients[full][:, 1:] ** 2, -1)) / coefficients[full][:, 0]
    np.testing.assert_allclose(anisotropy, truth["anisotropy"][full], atol=0.02)

    scan = scan_of("saxs-tensor-tomography", path)
    data = np.asarray(scan.counts)
    A = TensorProjector(scan.tensor_geometry, (22,) * 3, (22, 22), 6)
    error, mirrored = (
        np.linalg.norm(np.asarray(A(jnp.asarray(c, jnp.float32))) - data) / np.linalg.norm(data)
        for c in (coefficients, coefficients[:, ::-1])
    )
    assert error < 0.09 and mirrored > 0.2


def test_tensor_file_gives_angles_and_matrices_that_agree(tensor_file, tmp_path):
    path = shutil.copy(tensor_file[0], tmp_path / "angles.h5")
    before = scan_of("saxs-tensor-tomography", path).tensor_geometry
    with h5py.File(path, "a") as file:
        for view in range(len(before)):
            del file[f"projections/{view}/rotation_matrix"]
    after = scan_of("saxs-tensor-tomography", path).tensor_geometry
    np.testing.assert_allclose(after.rotations, before.rotations, atol=1e-12)
    np.testing.assert_allclose(after.offsets, before.offsets)
    assert np.ptp(after.offsets) > 0.1


def test_tensor_judge(tensor_file):
    path, truth = tensor_file
    names = ("mean", "anisotropy", "direction")
    exact = {name: Quantity(truth[name], "", tuple("zyxc")[: truth[name].ndim]) for name in names}
    lines = simulate.judge("saxs-tensor-tomography", path, Result("saxs-tensor-tomography", exact))
    assert "mean intensity error 0.000" in lines[0] and "anisotropy error 0.000" in lines[0]
    assert figure(lines, "error (.*) degrees median") < 0.05
    small = {name: Quantity(truth[name][1:], "", q.axes) for name, q in exact.items()}
    with pytest.raises(InputError, match="volume"):
        simulate.judge("saxs-tensor-tomography", path, Result("saxs-tensor-tomography", small))


def test_reflectivity_of_a_perfect_crystal():
    """Darwin's curve: total reflection within the top, `1 / (2 eta)^2` far away, the area 8/3 where nothing is lost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyser, "LOSS", 1e-9)
        eta = (np.arange(-400000, 400000) + 0.5) * 5e-4
        power = np.abs(analyser.reflectivity(eta * analyser.HALF_WIDTH)) ** 2
    np.testing.assert_allclose(power[np.abs(eta) < 0.99], 1, atol=1e-6)
    np.testing.assert_allclose(power[0], 1 / (2 * eta[0]) ** 2, rtol=1e-3)
    assert power.sum() * 5e-4 == pytest.approx(8 / 3, abs=5e-3)


def test_fringes_of_a_wedge_move_by_its_angle(monkeypatch):
    """What propagation and the absorbing grating do to a wedge, against `2 pi distance angle / period`."""
    monkeypatch.setattr(grating, "FRAME", 48)
    waves = differential_phase.Waves(48, grating.PIXEL, grating.FINE, grating.MARGIN)
    turns = 12  # of the phase over the periodic field
    wedge = np.exp(2j * np.pi * turns * np.arange(waves.size) / waves.size)[None] * np.ones((waves.size, 1))
    bars = np.exp(1j * grating.SHIFT * grating._bars(waves.place / grating.BARS))[None]
    place = waves.place[None] / grating.PERIOD

    def turn(wave):
        light = waves.blurred(np.abs(waves.propagate(wave * bars, grating.DISTANCE)) ** 2, 0.08)
        passed = [0.5 + 0.5 * np.cos(2 * np.pi * (place - k / 4)) for k in range(4)]
        seen = np.array([waves.camera(light * p, 0.0).mean() for p in passed])
        return seen @ np.exp(2j * np.pi * np.arange(4) / 4)

    angle = waves.wavelength * turns / (waves.size * grating.PIXEL / grating.FINE)
    found = np.angle(turn(wedge) / turn(np.ones_like(wedge)))  # sixteen samples a period of the bars: to 0.2 %
    assert found == pytest.approx(2 * np.pi * grating.DISTANCE * angle / grating.PERIOD, rel=4e-3)


# ---------------------------------------------------------------------------------------------------- demos
def figure(lines, pattern):
    found = re.search(pattern, "\n".join(lines))
    assert found, lines
    return float(found[1])


def run(method, path, settings):
    """Write, open, reconstruct, write the result, read it, judge: what `diffrecon demo` does."""
    simulate.demo_file(method, path, 0)
    scan = scan_of(method, path)
    asked = gather(None, list(simulate.settings(method))).recipe
    result = recipes.reconstruct(scan, simulate.method_of(method), settings={**asked, **settings})
    io.write(path.with_name("result.h5"), result, scan)
    return simulate.judge(method, path, io.read_result(path.with_name("result.h5")))


# Reduced: fewer views, steps and candidates; bounds are about a third above what was measured.
@pytest.mark.slow
def test_demo_of_tomography(tmp_path, monkeypatch):
    monkeypatch.setattr(tomography, "ROWS", 1)
    lines = run("tomography", tmp_path / "s.h5", {})
    assert figure(lines, "attenuation error ([0-9.]+)") < 0.15
    assert abs(figure(lines, "rotation centre ([0-9.]+),") - tomography.CENTRE) < 0.1


@pytest.mark.nightly
@pytest.mark.slow
def test_demo_of_a_sample_that_changes(tmp_path):
    """A still volume has errors of 0.146 in the disc and 0.290 where anything changes."""
    lines = run("dynamic-tomography", tmp_path / "s.h5", {})
    assert figure(lines, "error ([0-9.]+) in the disc") < 0.08
    assert figure(lines, "error ([0-9.]+) where anything changes") < 0.15


@pytest.mark.nightly
@pytest.mark.slow
def test_demo_of_tensor_tomography(tmp_path, monkeypatch):
    monkeypatch.setattr(scattering, "ROTATIONS", 8)
    monkeypatch.setattr(scattering, "SAMPLES", 3)
    settings = {"model": {"ell_max": 4}, "solver": {"smoothness": 16.0, "rounds": 1, "steps": 6}}
    lines = run("saxs-tensor-tomography", tmp_path / "s.h5", settings)
    assert figure(lines, "mean intensity error ([0-9.]+)") < 0.2
    assert figure(lines, "anisotropy error ([0-9.]+)") < 0.12
    assert figure(lines, "direction error ([0-9.]+) degrees median") < 5


@pytest.mark.slow
def test_demo_of_ptychography(tmp_path, monkeypatch):
    monkeypatch.setattr(ptychography, "VIEWS", 4)
    lines = run("near-field-ptychography", tmp_path / "s.h5", {"model": {"modes": 1}, "solver": {"steps": 300}})
    assert figure(lines, "relative ([0-9.]+),") < 0.45
    assert figure(lines, "([0-9.]+) after") < 0.5 * figure(lines, "positions ([0-9.]+)")


@pytest.mark.slow
def test_demo_of_far_field_ptychography(tmp_path, monkeypatch):
    """From the mean frame as it is, or from the other side of the focus, the relative error is one."""
    monkeypatch.setattr(far_field, "VIEWS", 6)
    lines = run("far-field-ptychography", tmp_path / "s.h5", {"solver": {"steps": 250}})
    assert figure(lines, "relative ([0-9.]+),") < 0.35
    assert figure(lines, "([0-9.]+) after") < 0.6 * figure(lines, "positions ([0-9.]+)")


def test_demo_of_scanning_transmission(tmp_path):
    """The powder's own refraction is in the angles that are found, and not in the truth; slopes do not mind."""
    lines = run("stxm", tmp_path / "s.h5", {})
    for name in ("alpha_x", "alpha_y"):
        line = next(line for line in lines if line.startswith(name))
        assert figure([line], "slope ([0-9.]+)") == pytest.approx(1, abs=0.01)
    assert figure(lines, "transmission: rms error ([0-9.]+)") < 0.005
    assert figure(lines, "powder: ([0-9.]+) of") == pytest.approx(0.85, abs=0.15)


@pytest.mark.slow
def test_demo_of_the_interferometer(tmp_path):
    lines = run("interferometer", tmp_path / "s.h5", {"quality": {"held_out": 0.0, "error_bars": 0}})
    assert figure(lines, "relative error ([0-9.]+)") < 0.02
    assert figure(lines, "darkfield: rms error ([0-9.]+)") < 0.03


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "module", "frame", "alpha", "darkfield"),
    [
        ("grating", grating, 80, 0.12, 0.065),
        ("edge-illumination", edge_illumination, 64, 0.13, 0.04),
        ("analyser", analyser, 64, 0.15, 0.08),
    ],
)
def test_demo_of_one_angle(method, module, frame, alpha, darkfield, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FRAME", frame)
    lines = run(method, tmp_path / "s.h5", {"quality": {"error_bars": 0}})
    assert figure(lines, "alpha_x against the truth: relative error ([0-9.]+)") < alpha
    assert figure(lines, "slope ([0-9.]+)") == pytest.approx(1, abs=0.07)
    assert figure(lines, "darkfield: rms error ([0-9.]+)") < darkfield


@pytest.mark.slow
def test_demo_of_k_edge(tmp_path):
    """The error bars are those of photon noise: what is off beside them would be the method's."""
    lines = run("k-edge", tmp_path / "s.h5", {})
    for material in ("Ni", "SiO2"):
        line = [next(line for line in lines if line.startswith(f"{material} against"))]
        assert figure(line, "rms error ([0-9.e-]+)") < 1.1 * figure(line, r"error bars ([0-9.e-]+)\)")
        assert figure(line, "mean ([0-9.]+) of") == pytest.approx(figure(line, "of ([0-9.]+) g"), rel=0.03)


@pytest.mark.nightly
@pytest.mark.slow
def test_demo_of_diffraction(tmp_path):
    lines = run("cdi", tmp_path / "s.h5", {})
    assert figure(lines, "complex object ([0-9.]+)") < 0.06
    assert figure(lines, "phase error ([0-9.]+) rad") < 0.04
