"""Plans against closed forms and laws that the literature has, and what a scan of noise shows."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import diffrecon as dr
from diffrecon import physics, planning
from diffrecon.cli import main
from diffrecon.planning._near_field_ptychography import NearFieldPtychography

DENSITY = "density [g/cm^3]"
pytest.importorskip("xraydb")


def density(plan, **told):
    return plan.with_numbers(**told).figures().sensitivities[DENSITY]


@pytest.mark.parametrize("name", planning.methods())
def test_every_method_is_planned_from_its_defaults(name):
    figures = planning.plan(name).figures()
    assert figures.half_period == max(figures.limits.values()) and np.isfinite(figures.half_period)
    assert min(figures.dose, figures.time, figures.fluence, *figures.sensitivities.values()) > 0


def test_flat_information_has_a_closed_form():
    """Of absorption without blur on fine pixels: SNR^2 = 2 pi^2 s^4 M F."""
    told = {"detector_pixel": 0.2e-6, "detector_blur": 0.0, "views": 700, "energy": 15e3, "thickness": 0.3e-3}
    plan = planning.plan("tomography", **told)
    s, mu = plan.settings, float(physics.attenuation_from_density(2.2, "SiO2", 15e3))
    photons = s.flux * s.exposure / (s.width * s.height * s.detector_pixel**2) * np.exp(-mu * s.thickness)
    deviation = s.detail / (2 * np.sqrt(2 * np.log(2)))
    ratio = np.sqrt(2 * np.pi**2 * deviation**4 * s.views * photons) * mu
    assert plan.figures().sensitivities[DENSITY] == pytest.approx(5 * 2.2 / ratio, rel=0.01)


def test_dose_is_that_of_physics():
    plan = planning.plan("tomography")
    s = plan.settings
    photons = s.views * s.flux * s.exposure / (s.width * s.height)
    expected = physics.absorbed_dose(photons, s.detector_pixel, s.material, s.energy, s.thickness)
    assert plan.figures().dose == pytest.approx(expected, rel=1e-6)


def test_photons_grow_with_the_fourth_power_of_resolution():
    """Howells et al. 2009 for a given contrast: the photon-limited size falls as the fourth root."""
    told = {"detector_blur": 0.0, "detector_pixel": 0.1e-6}
    bright, dim = planning.plan("tomography", **told).curve((1.0, 1 / 16))
    assert dim.limits["photons"] == pytest.approx(2 * bright.limits["photons"], rel=0.03)


def test_a_detail_is_not_larger_than_the_sample(capsys):
    assert planning.plan("tomography", flux=1.0).figures().half_period == np.inf
    assert main(["design", "tomography", "flux=1"]) == 0 and "none seen" in capsys.readouterr().out


def test_holography_agrees_with_the_smallest_phase_of_a_survey():
    beam = {"detector_pixel": 0.5e-6, "focus_to_detector": 0.0, "source": 0.0, "thickness": 1e-9, "frame": 100_000}
    plan = planning.plan("holography", **beam, distances=0.05, detail=3e-6, flux=1e14)
    geometry = dr.ParallelBeam(0.5e-6, 17e3, 0.05)
    delta, beta = physics.delta_beta("SiO2", 2.2, 17e3)
    setup = dr.regimes.Setup.of(geometry, counts=1e14 / 1e10, frame=100_000)
    least = dr.regimes.smallest_phase(3e-6, setup, delta_beta=delta / beta)
    depth = np.sqrt(2 * np.pi) * 3e-6 / 2.3548 * 2 * np.pi / setup.wavelength * delta
    assert plan.figures().sensitivities[DENSITY] == pytest.approx(2.2 * least / depth, rel=0.02)


@pytest.mark.parametrize("contrast", [0.0, 0.35, 1.0])
def test_structured_light_tells_as_much_as_its_intensities(contrast):
    """Fisher information of a fringe of phase, summed over the pixels that a random wave makes behind it (NumPy)."""
    n, pixel, wavelength, distance, grain = 512, 1e-7, 1e-10, 0.02, 1e-6
    rng = np.random.default_rng(3)
    q = np.fft.fftfreq(n, pixel)
    squared = q[:, None] ** 2 + q**2
    spectrum = np.exp(-squared / (4 * (np.sqrt(np.log(2)) / (np.pi * grain)) ** 2))  # of power exp(-q^2 / (2 w^2))
    wave = np.fft.ifft2(spectrum * (rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))))
    scattered = 1 - np.sqrt(1 - contrast**2)
    beam = np.sqrt(1 - scattered) + np.sqrt(scattered / np.mean(np.abs(wave) ** 2)) * wave
    assert np.std(np.abs(beam) ** 2) == pytest.approx(contrast, abs=0.06)
    carry = lambda wave: np.fft.ifft2(np.fft.fft2(wave) * np.exp(-1j * np.pi * wavelength * distance * squared))
    empty = carry(beam)

    energy, photons = physics.HC / wavelength, 1e12
    told = {"distance": distance, "focus_to_detector": 0.0, "detector_pixel": pixel, "frame": n, "source": 0.0}
    told |= {"energy": energy, "contrast": contrast, "grain": grain, "positions": 2, "thickness": 1e-12}
    plan = planning.plan("near-field-ptychography", **told, flux=photons * (n * pixel) ** 2, exposure=1.0)
    method = NearFieldPtychography()
    delta = physics.delta_beta("SiO2", 2.2, energy)[0]
    predicted = method.predict(plan.settings, method.tables(plan.settings, None)).information
    for k in (6, 15, 30, 60):
        x = np.arange(n) * pixel
        phase = np.cos(2 * np.pi * k / (n * pixel) * x)  # half of its power in one frequency of each sign
        change = 2 * np.real(np.conj(empty) * carry(1j * phase * beam))
        fisher = 2 * np.mean(change**2 / np.abs(empty) ** 2) * photons
        f = k / (n * pixel)
        wanted = float(predicted(jnp.asarray([f]))[0]) / np.sinc(f * pixel) ** 2 / (2 * np.pi / wavelength * delta) ** 2
        assert fisher == pytest.approx(wanted, rel=0.05, abs=0.006 * photons), k


def test_more_time_and_more_views_are_worth_the_same():
    """Dose fractionation: a tomogram sees with twice the views what it sees with twice the exposure."""
    plan = planning.plan("holography", views=500)
    assert density(plan, views=1000) == pytest.approx(plan.longer(2.1 / 1.1).figures().sensitivities[DENSITY], rel=1e-6)
    with pytest.raises(dr.InputError, match="overhead"):
        plan.longer(0.01)


def test_gradients_find_the_energy_at_which_a_specimen_is_two_attenuation_lengths_thick():
    """The optimum of Flannery et al. 1987, mu D = 2, which nobody has told the search."""
    plan = planning.plan("tomography", energy="25 keV")
    found = planning.optimise(plan, {"energy": (8e3, 40e3)}, starts=1, steps=60)
    mu = physics.attenuation_from_density(2.2, "SiO2", found.plan.settings.energy)
    assert mu * plan.settings.thickness == pytest.approx(2, rel=0.05) and not found.at_an_end()
    assert found.plan.figures().time == pytest.approx(plan.figures().time)


def test_the_energy_of_a_map_stays_above_the_edge_of_its_line():
    """The range that nobody gave, and one that reaches below."""
    pytest.importorskip("xraydb")
    plan = planning.plan("fluorescence-map", line="Zn Ka")
    for names in (("energy",), {"energy": (4e3, 20e3)}):
        found = planning.optimise(plan, names, starts=1, steps=2)
        assert 9659 < found.ranges["energy"][0] < 9680 and found.plan.settings.energy > 9659


def test_what_is_held_stays():
    plan = planning.plan("tomography", energy="20 keV")
    found = planning.optimise(plan, {"energy": (10e3, 60e3)}, aim="dose", hold="sensitivity", starts=1, steps=40).plan
    assert found.figures().dose < plan.figures().dose
    assert density(found) == pytest.approx(density(plan), rel=1e-3)


def test_noise_of_a_tomogram_is_as_planned():
    """Flat counts, filtered back-projection: the mean over a Gaussian of the plane, weighted as the filter has it."""
    size, views, light = 48, 90, 4e4
    told = {"width": size, "height": size, "views": views, "detector_blur": 0.0, "thickness": 1e-9, "exposure": 1.0}
    plan = planning.plan("tomography", **told, flux=light * size**2, detail=4e-6)
    counts = np.random.default_rng(3).poisson(light, (views, 160, size)) / light
    A = dr.operators.ParallelProjector(np.arange(views) * np.pi / views, (size, size), size)
    noise = np.asarray(dr.solvers.fbp(A, jnp.asarray(-np.log(counts), jnp.float32))) / 1e-6
    # Of independent slices: SNR^2 of the plane is sum |S|^2 M n p / (pi f), that of the volume is a sum over layers.
    deviation = 4 / (2 * np.sqrt(2 * np.log(2)))
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    shape = 2 * np.pi * deviation**2 * np.exp(-2 * (np.pi * deviation * f) ** 2)
    weight = np.fft.ifft2(shape / np.maximum(f, 0.25 / size)).real
    seen = np.fft.ifft2(np.fft.fft2(noise) * np.fft.fft2(weight)).real[:, 16:32, 16:32]
    signal = np.sum(shape**2 / np.maximum(f, 0.25 / size)) / size**2
    layers = np.sqrt(np.sqrt(np.pi) * deviation)  # root of the sum of squares of the detail's layers
    mu = physics.attenuation_from_density(2.2, "SiO2", 20e3)
    found = 5 * np.std(seen) / signal / layers / mu * 2.2
    assert plan.figures().sensitivities[DENSITY] == pytest.approx(found, rel=0.15)


def test_an_angle_is_as_noisy_as_fitted_fringes():
    """Phase stepping of plain counts, by `fit_fringes`, with and without the sample."""
    told = {"width": 96, "height": 96, "steps": 6, "visibility": 0.3, "thickness": 1e-9, "exposure": 1.0}
    plan = planning.plan("grating", **told, flux=1000.0 * 96**2)
    s, random, shift = plan.settings, np.random.default_rng(5), np.arange(6) / 6
    # A moire tells errors of the steps from the phase; where all pixels are alike the fit cannot.
    turns = 2 * np.pi * (shift[:, None, None] + 3 * np.arange(96) / 96 + np.zeros((96, 96)))
    scan = lambda: dr.models.fit_fringes(random.poisson(1000 * (1 + 0.3 * np.cos(turns))), shift)[0][2]
    found = np.std(np.angle(np.exp(1j * (scan() - scan())))) * s.period / (2 * np.pi * s.distance)
    assert plan.figures().sensitivities["angle of a pixel [rad]"] == pytest.approx(found, rel=0.05)


def test_an_angle_is_as_noisy_as_displaced_speckles():
    """Least squares of displacement, transmission and visibility in windows of 8 x 8 pixels of a smooth random pattern.

    Both scans are noisy; the slopes are those of the pattern halfway.
    """
    size, views, light, c, contrast = 80, 12, 2000.0, 1.5, 0.15
    mu = float(physics.attenuation_from_density(2.2, "SiO2", 20e3))
    told = {"energy": 20e3, "thickness": -np.log(0.8) / mu, "width": size, "height": size, "exposure": 1.0}
    told |= {"positions": views, "contrast": contrast, "grain": 2.3548 * c * 2e-6, "detector_pixel": 2e-6}
    plan = planning.plan("speckle", **told, flux=light * size**2, distance=0.4)
    random, f = np.random.default_rng(5), np.fft.fftfreq(size)
    raw = np.fft.fft2(random.standard_normal((views, size, size))) * np.exp(
        -((np.pi * c) ** 2) * np.add.outer(f**2, f**2)
    )
    raw = raw * contrast / np.std(np.fft.ifft2(raw).real)
    moved = lambda share: raw * np.exp(-2j * np.pi * share * np.add.outer(0.3 * f, -0.2 * f))
    sample = random.poisson(light * 0.8 * (1 + np.fft.ifft2(moved(1.0)).real)) / 0.8
    change = (sample - random.poisson(light * (1 + np.fft.ifft2(raw).real))) / light
    slopes = [np.fft.ifft2(2j * np.pi * moved(0.5) * a).real for a in (f[:, None], f[None])]
    windows = lambda a: np.reshape(a, (views, 10, 8, 10, 8)).transpose(1, 3, 0, 2, 4).reshape(100, -1)
    design = [*slopes, np.fft.ifft2(moved(0.5)).real, np.ones_like(change)]
    design = np.stack([windows(a) for a in design], -1)
    found = -np.stack([np.linalg.lstsq(d, v, rcond=None)[0] for d, v in zip(design, windows(change), strict=True)])
    assert found.mean(0)[:2] == pytest.approx([0.3, -0.2], abs=0.01)
    angle = plan.figures().sensitivities["angle of a pixel [rad]"] / 8 * 0.4 / 2e-6
    assert found[:, :2].std(0) == pytest.approx([angle, angle], rel=0.2)


def test_traces_are_as_uncertain_as_their_map():
    """Poisson draws of a blank and of traces, summed over the slab's depth, through the recipe for maps."""
    told = {
        "incidence": "60 deg",
        "takeoff": "35 deg",
        "background": 400.0,
        "thickness": 0.4e-3,
        "material": "SiO2, 2.2",
    }
    plan = planning.plan("fluorescence-map", energy=17e3, line="Fe Ka", **told)
    s, random = plan.settings, np.random.default_rng(7)
    into, out = (float(physics.attenuation_from_density(2.2, "SiO2", e)) for e in (17e3, 6.4e3))
    depth = (np.arange(2000) + 0.5) / 2000 * s.thickness
    share = np.mean(np.exp(-into * depth - out * depth * np.sin(np.pi / 3) / np.sin(np.radians(35))))
    # 11.07 cm^2/g: xraylib 4.3, Kissel's cross sections with cascades.
    one = s.flux * s.exposure * s.solid_angle / (4 * np.pi) * 11.07 * share / np.sin(np.pi / 3)
    limit, under = plan.figures().sensitivities["limit of detection [g/cm^2]"], s.background * s.exposure
    amount = np.where(np.arange(40) < 30, 0, limit) * np.ones((40, 40))
    extra = {"lines": ("Fe Ka",), "area_backgrounds": np.full((1, 40, 40, 1), under), "dwell": s.exposure}
    counts = random.poisson(under + one * amount)[None, ..., None] - under
    scan = dr.Scan.from_arrays(counts, geometry=dr.ParallelBeam(s.step, 17e3), method="fluorescence-map", extra=extra)
    slab = {"composition": "SiO2, 2.2", "thickness": s.thickness * np.sin(np.pi / 3), "incidence": s.incidence}
    told = {"sample": {**slab, "takeoff": s.takeoff, "secondary": "off"}, "tables": {"lines": "xraydb"}}
    told |= {"beam": {"flux": s.flux}, "detector": {"solid_angle": s.solid_angle}}
    found = np.asarray(dr.reconstruct(scan, settings=told)["Fe"])
    assert 3 * np.std(found[:, :30]) == pytest.approx(limit, rel=0.06)
    assert np.mean(found[:, 30:]) == pytest.approx(limit, rel=0.06)
    grams = plan.figures().sensitivities["limit in the spot [g]"]
    assert plan.figures().sensitivities["limit in the spot, atoms"] == pytest.approx(
        grams / 55.845 * 6.022e23, rel=1e-3
    )
    with pytest.raises(dr.InputError, match="edge"):
        plan.with_numbers(energy=7e3).figures()


def _ball(distance):
    """What fills the ball of frequencies up to half a cycle a voxel evenly, and its projection, which fills a disc."""
    x = np.pi * np.maximum(distance, 1e-6)
    return np.pi / 2 * special.spherical_jn(1, x) / x, np.pi / 2 * special.j1(x) / x


@pytest.mark.parametrize("tilt", [30, 90])
def test_fibres_are_as_uncertain_as_the_whole_fisher_matrix_says(tilt):
    """Tensors in 125 voxels, all unknown, from segments at points of 200 views; eigenvectors of draws (NumPy)."""
    told = {"largest_tilt": f"{tilt} deg", "views": 200, "anisotropy": 0.6, "background": 3e5, "flux": 1e12}
    plan = planning.plan("saxs-tensor-tomography", **told)
    s, n = plan.settings, np.arange(200)
    place = np.stack(np.meshgrid(*3 * [np.arange(5) - 2.0]), -1).reshape(-1, 3)
    points = np.stack(np.meshgrid(*2 * [np.arange(-5, 6.0)]), -1).reshape(-1, 2)
    up = (n + 0.5) / s.views * np.sin(s.largest_tilt)
    beams = np.stack([*np.sqrt(1 - up**2) * [np.cos(2.4 * n), np.sin(2.4 * n)], up], -1)
    i, j = np.triu_indices(3)
    space, direction = [], []
    for beam in beams:
        one = np.cross(beam, [0, 0, 1.0]) / np.hypot(*beam[:2])
        axes = np.stack([one, np.cross(one, beam)])
        seen = _ball(np.linalg.norm(points[:, None] - place @ axes.T, axis=-1))[1]
        chi = (np.arange(s.segments) + (np.arange(16)[:, None] + 0.5) / 16) * np.pi / s.segments
        q = np.stack([np.cos(chi), np.sin(chi)], -1) @ axes
        arcs = np.mean(q[..., i] * q[..., j] * np.where(i == j, 1, 2), 0)
        space.append((seen.T @ seen).ravel())
        direction.append((arcs.T @ arcs).ravel())
    light = s.flux * s.exposure * np.exp(-float(physics.attenuation_from_density(2.2, "SiO2", 17e3)) * s.thickness)
    voxel = light * s.scattering * s.step / s.segments  # counts of a segment from one voxel
    under = (light * s.scattering * s.thickness + s.background * s.exposure) / s.segments
    fisher = voxel**2 / under * (np.stack(space).T @ np.stack(direction)).reshape(125, 125, 6, 6)
    fisher = fisher.transpose(0, 2, 1, 3).reshape(750, 750)
    fisher += 1e-4 * np.trace(fisher) / 750 * np.eye(750)  # of what lies between voxels, without a say in the middle
    middle = np.kron(_ball(np.linalg.norm(place, axis=1))[0][:, None], np.eye(6))
    noise = np.linalg.cholesky(middle.T @ np.linalg.solve(fisher, middle))
    random = np.random.default_rng(2)
    fibre = random.normal(size=(3000, 3))
    fibre /= np.linalg.norm(fibre, axis=1)[:, None]
    tensor = 1.5 * np.sqrt(5) * s.anisotropy * (fibre[:, :, None] * fibre[:, None] - np.eye(3) / 3) + np.eye(3)
    wrong = np.zeros_like(tensor)
    wrong[:, i, j] = wrong[:, j, i] = random.normal(size=(3000, 6)) @ noise.T
    values, vectors = np.linalg.eigh(tensor + wrong)
    angle = np.arccos(np.minimum(1, abs(np.sum(vectors[..., -1] * fibre, -1))))
    ratio = np.sqrt(2 / 5) * np.std(values, axis=1) / np.mean(values, axis=1)
    found = plan.figures().sensitivities
    assert found["angle of a fibre [rad]"] == pytest.approx(np.sqrt(np.mean(angle**2)), rel=0.05)
    assert found["relative anisotropy"] == pytest.approx(np.std(ratio), rel=0.05)


@pytest.mark.parametrize("background", [0.0, 1e7])
def test_lattices_are_as_uncertain_as_the_whole_fisher_matrix_says(background):
    """Amount and lattice of 81 pixels, all unknown, from channels of rings that Bragg's law puts there (NumPy)."""
    plan = planning.plan("diffraction-tomography", background=background, views=60, two_theta="20 deg", width="0.2 deg")
    s = plan.settings
    place = np.stack(np.meshgrid(*2 * [np.arange(9) - 4.0]), -1).reshape(-1, 2)
    turns = np.arange(s.views) * np.pi / s.views
    along = place @ np.stack([np.cos(turns), np.sin(turns)])
    seen = (
        np.sinc(np.arange(-12, 13)[:, None, None] - along).reshape(-1, 81, s.views).transpose(2, 0, 1).reshape(-1, 81)
    )
    two_theta = s.two_theta + np.linspace(-3, 3, 301) * s.width
    channel, width = two_theta[1] - two_theta[0], s.width / 2.3548

    def ring(strain):
        shift = two_theta - 2 * np.arcsin(np.sin(s.two_theta / 2) / (1 + strain))
        return np.exp(-((shift / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi)) * channel

    mu = s.fraction * float(physics.attenuation_from_density(7.2, "CeO2", 40e3))
    solid = s.flux * s.exposure * np.exp(-mu * s.thickness) * s.scattering
    expected = solid * s.thickness * s.fraction * ring(0.0) + background * s.exposure * channel / s.width
    slopes = solid * s.step * np.stack([ring(0.0), s.fraction * (ring(1e-6) - ring(-1e-6)) / 2e-6])
    lit = expected > 1e-12
    one = (slopes[:, lit] / expected[lit]) @ slopes[:, lit].T
    middle = special.j1(np.pi * (far := np.maximum(np.linalg.norm(place, axis=1), 1e-6))) / (2 * far)
    fisher = seen.T @ seen
    fisher += 1e-4 * np.trace(fisher) / 81 * np.eye(81)  # of what lies between pixels
    errors = np.sqrt(np.diag(np.linalg.inv(one)) * (middle @ np.linalg.solve(fisher, middle)))
    found = plan.figures().sensitivities
    assert [found["volume fraction"], found["lattice strain"]] == pytest.approx(errors, rel=0.01)


@pytest.mark.parametrize(
    "words, said",
    [
        (["tomografy"], "did you mean tomography"),
        (["tomography", "enrgy=3"], "did you mean energy"),
        (["tomography", "views=0"], "at least 2"),
        (["tomography", "energy=a:b"], "number with a unit"),
        (["tomography", "energy=30 keV:10 keV"], "increasing"),
        (["tomography", "--optimise", "material"], "cannot be optimised"),
        (["tomography", "--aim", "dose"], "--optimise"),
        (["tomography", "--optimise", "energy", "--aim", "beauty"], "the aim is one of"),
        (["tomography", "--optimise", "distance"], "give a range"),
        (["tomography", "material=CaSi9O7"], "density"),
        (["holography", "distances=2 m"], "behind the detector"),
        (["holography", "attenuation=free", "distances=0.02"], "one distance"),
        (["far-field-ptychography", "step=3 um"], "overlap"),
        (["saxs-tensor-tomography", "order=3"], "an even one"),
        (["saxs-tensor-tomography", "order=8"], "more segments"),
        (["saxs-tensor-tomography", "order=12", "segments=16", "largest_tilt=5 deg"], "lower order"),
        (["energy=3"], "METHOD"),
        (["--aim", "dose"], "METHOD"),
        (["--energy", "20 keV"], "--detector-pixel"),
        (["tomography", "--energy", "20 keV"], "energy=value"),
    ],
)
def test_bad_input_is_one_line(words, said, capsys):
    assert main(["design", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_the_command_line_says_what_more_time_gives(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "plan.png"
    assert main(["design", "tomography", "-o", str(picture), "exposure=50 ms", "energy=25 keV"]) == 0
    said = capsys.readouterr().out
    assert "doubling the time" in said and "half period" in said and picture.stat().st_size > 1000
    assert main(["design", "tomography", "--settings"]) == 0
    assert "detector_pixel = 1e-06  # in the specimen [m] (above 0)" in capsys.readouterr().out
