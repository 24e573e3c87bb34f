"""Every number of the geometry from a wrong start, the beam from flats, and costs of one's own: against holograms of an
independent generator (NumPy in float64, three times finer, exact integration over the detector's pixels)."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffrecon as dr
from diffrecon import recipes
from diffrecon.geometry import ConeBeam, ParallelBeam
from diffrecon.models import Holography
from diffrecon.prepare import BeamCoordinates, flats_of_views, illumination_from_flats
from diffrecon.scan import Scan

N, FINER, FLUX, DELTA_BETA = 64, 3, 4000.0, 300.0
CONE = ConeBeam(17e3, np.array([21.333, 23.5, 27.0, 33.0]) * 1e-3, 1.28, 9e-6)
PARALLEL = ParallelBeam(1e-7, 17e3, np.array([5e-3, 8e-3, 13e-3, 20e-3]))

# What is wrong with the start of each: the truth differs from what the scan says by this.
WRONG = {
    "shifts": np.array([[0, 0], [0.8, -0.6], [-0.5, 0.9], [0.7, 0.4]]),  # [pixel]
    "distances": np.array([[0.02, -0.02], [0.03, -0.01], [-0.02, 0.02], [0.01, 0.04]]),  # relative; astigmatic
    "rotations": np.array([0, 0.008, -0.006, 0.01]),  # [rad]
    "stretch": np.array([[0, 0], [0.006, -0.004], [-0.005, 0.005], [0.008, 0.004]]),
    "flux": np.array([0, -0.03, 0.02, 0.04]),  # relative
    "source_blur": 80e-9,  # [m]
    "detector_blur": 0.8,  # [pixel]
}
# Errors that are tolerated: several times those of photon noise where all the rest is known.
TOLERATED = {
    "shifts": 0.05,
    "distances": 0.008,
    "rotations": 4e-3,
    "stretch": 4e-3,
    "flux": 3e-3,
    "source_blur": 20e-9,
    "detector_blur": 0.15,
}


# ------------------------------------------------------------------------------------------ the generator
def phase_map(seed: int, depth: float, size: int, turn: float = 0.0) -> np.ndarray:
    """Phase [rad] of ellipsoids on the fine grid, turned from columns towards rows; edges half a pixel soft."""
    random, axis = np.random.default_rng(seed), (np.arange(size) - (size - 1) / 2) / FINER
    x = np.cos(turn) * axis[None] + np.sin(turn) * axis[:, None]
    y = np.cos(turn) * axis[:, None] - np.sin(turn) * axis[None]
    ellipse = lambda x0, y0, a, b: np.sqrt(np.clip(1 - ((x - x0) / a) ** 2 - ((y - y0) / b) ** 2, 0, None))
    radius = 0.3 * N
    thick = ellipse(0, 0, radius, 0.85 * radius)
    for _ in range(24):
        place, angle = 0.75 * radius * np.sqrt(random.random()), 2 * np.pi * random.random()
        a = random.uniform(0.03, 0.2) * radius
        grain = ellipse(place * np.cos(angle), 0.8 * place * np.sin(angle), a, a * random.uniform(0.6, 1))
        thick += random.choice([-0.35, 0.5]) * 4 * a / radius * grain
    f = np.fft.fftfreq(size, 1 / FINER)
    soft = np.exp(-2 * (np.pi * 0.5 * f) ** 2)
    return -depth / 1.3 * np.fft.ifft2(np.fft.fft2(thick) * soft[:, None] * soft).real


def intensity(wave: np.ndarray, fine: float, distance, wavelength: float) -> np.ndarray:
    """Of a periodic wave after a distance (vertical, horizontal) [m]."""
    f = np.fft.fftfreq(len(wave), fine)
    rows, columns = (np.exp(-1j * np.pi * wavelength * d * f**2) for d in np.broadcast_to(distance, 2))
    return np.abs(np.fft.ifft2(np.fft.fft2(wave) * rows[:, None] * columns)) ** 2


def detected(image: np.ndarray, fine: float, pixel: float, shift=(0, 0), stretch=(1, 1), blur: float = 0.0):
    """Exact mean over N x N pixels, after a Gaussian blur of standard deviation `blur` [m]."""
    size = len(image)
    f = np.fft.fftfreq(size, fine)
    matrices = []
    for s, m in zip(shift, stretch, strict=True):
        centres = ((np.arange(N) - (N - 1) / 2) * m - s) * pixel + (size - 1) / 2 * fine
        seen = np.sinc(f * pixel) * np.exp(-2 * (np.pi * f * blur) ** 2) / size
        matrices.append(np.exp(2j * np.pi * np.outer(centres, f)) * seen)
    return (matrices[0] @ np.fft.fft2(image) @ matrices[1].T).real


def middle(image: np.ndarray) -> np.ndarray:
    """Mean over the object's pixels, on the field of view of the first frame."""
    start = (len(image) - N * FINER) // 2
    part = image[start : start + N * FINER, start : start + N * FINER]
    return part.reshape(N, FINER, N, FINER).mean((1, 3))


def wrong_scan(names, seed: int, depth: float, size: int = 360):
    """A scan that is silent about what the names say of its geometry, and the true phase."""
    zero = {name: np.zeros_like(value) if name in names else value for name, value in WRONG.items()}
    true = {name: value if name in names else np.zeros_like(value) for name, value in WRONG.items()}
    assert set(zero) == set(true)
    pixels, distances = np.asarray(CONE.pixel_size), np.asarray(CONE.distance)
    fine, defocus = pixels[0] / FINER, 1 - 1 / np.asarray(CONE.magnification)
    frames = []
    for j, pixel in enumerate(pixels):
        phase = phase_map(seed, depth, size, true["rotations"][j])
        image = intensity(
            np.exp((1j + 1 / DELTA_BETA) * phase), fine, distances[j] * (1 + true["distances"][j]), CONE.wavelength
        )
        blur = np.hypot(true["detector_blur"] * pixel, true["source_blur"] * defocus[j])
        frames.append(
            (1 + true["flux"][j]) * detected(image, fine, pixel, true["shifts"][j], 1 + true["stretch"][j], blur)
        )
    counts = np.random.default_rng(100 + seed).poisson(FLUX * np.array(frames))
    scan = Scan.from_arrays(counts.astype(np.uint16), method="holography", geometry=CONE, flux=FLUX)
    return scan, middle(phase_map(seed, depth, size))


def error(found, truth) -> float:
    """Relative, without the constant."""
    difference = found - truth
    return float(np.linalg.norm(difference - difference.mean()) / np.linalg.norm(truth - truth.mean()))


def deviations(result, names) -> dict[str, float]:
    """Largest error of each number, in the units of `WRONG`."""
    nominal = {"distances": np.asarray(CONE.distance)[:, None], "flux": FLUX}
    out = {}
    for name in names:
        found = np.squeeze(result.quality[name])
        found = found / nominal[name] - 1 if name in nominal else found - (name == "stretch")
        out[name] = float(np.abs(found - WRONG[name]).max())
    return out


def solved(scan: Scan, refine, **solver):
    return recipes.reconstruct(
        scan,
        "holography",
        {
            "model": {"delta_beta": DELTA_BETA, "register": False, "refine": list(refine), "attenuation": False},
            "solver": {"rounds": 1, "tv_rounds": 0, **solver},
            "quality": {"error_bar": False},
        },
    )


# ------------------------------------------------------------------------------------------ geometry
SEVERAL = "shifts", "distances", "rotations", "stretch", "flux", "detector_blur"


def test_several_numbers_at_once_from_a_wrong_start():
    together(SEVERAL, seed=5)


def together(names, seed: int) -> None:
    """Solve for them and compare with the truth."""
    scan, phase = wrong_scan(names, seed, depth=3.0)
    result = solved(scan, names)
    found = deviations(result, names)
    assert all(found[name] < TOLERATED[name] for name in names), found
    assert error(result["phase"], phase) < 0.05


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.nightly] * (name in SEVERAL)) for name in WRONG]
)
@pytest.mark.parametrize("seed", [2])
def test_each_number_from_a_wrong_start(name, seed):
    together((name,), seed)


# ------------------------------------------------------------------------------------------ beam
def structured_beam(seed: int, size: int) -> np.ndarray:
    """A wave with 0.3 rad and 10 % of random structure, smooth over some six pixels."""
    random = np.random.default_rng(seed)
    f = np.hypot(np.fft.fftfreq(size, 1 / FINER)[:, None], np.fft.fftfreq(size, 1 / FINER))
    smooth = (1 + (12 * np.pi * f) ** 2) ** -1.5 * (f < 0.35)
    maps = [np.fft.ifft2(np.fft.fft2(random.normal(size=(size, size))) * smooth).real for _ in range(2)]
    amplitude, phase = (scale * m / m.std() for scale, m in zip((0.1, 0.3), maps, strict=True))
    return np.exp(amplitude + 1j * phase)


def scan_in_a_structured_beam(seed: int, size: int = 384):
    """Holograms and 20 flats of each distance in a parallel beam, and the true phase."""
    phase, wave, fine = phase_map(seed, 0.6, size), structured_beam(seed, size), PARALLEL.pixel_size / FINER
    random = np.random.default_rng(seed)
    seen = lambda u: np.array(
        [
            detected(intensity(u, fine, d, PARALLEL.wavelength), fine, PARALLEL.pixel_size)
            for d in np.asarray(PARALLEL.distance)
        ]
    )
    counts = random.poisson(FLUX * seen(wave * np.exp((1j + 1 / DELTA_BETA) * phase)))
    flats = random.poisson(np.repeat(FLUX * seen(wave), 20, 0))
    scan = Scan.from_arrays(
        counts,
        method="holography",
        geometry=PARALLEL,
        flats=flats,
        flux=FLUX,
        extra={"flat_views": np.repeat(np.arange(4), 20)},
    )
    return scan, middle(phase)


def test_one_wave_makes_the_flats_of_all_distances():
    scan, _ = scan_in_a_structured_beam(1)
    flats = flats_of_views(scan)
    assert flats.shape == (4, 20, N, N)
    model = Holography.from_scan(scan, wider=1.3)
    lit = illumination_from_flats(model, flats, steps=3, cg_steps=20)
    assert lit.flux.shape == (4, 1, 1) and lit.probe.shape == (4, *model.phase.shape)
    np.testing.assert_array_equal(lit.probe[0], lit.probe[3])  # the sample did not move
    inner, mean = np.s_[:, 6:-6, 6:-6], flats.mean(1)
    misfit = (np.asarray(lit.empty_beam(np.arange(4))) - mean)[inner]
    assert np.std(misfit) < 0.1 * np.std(mean[inner])
    with pytest.raises(dr.InputError, match="flats of shape"):
        illumination_from_flats(model, flats[:3])
    with pytest.raises(dr.InputError, match="needs flats"):
        flats_of_views(scan.replace(flats=None))


def test_free_space_carries_the_wave_between_positions_of_the_sample():
    """Detector fixed, sample moved: one wave makes the same flat at every position."""
    scan = Scan.from_arrays(np.ones((4, N, N)), method="holography", geometry=CONE, flux=100.0)
    model = Holography.from_scan(scan)
    y, x = (np.arange(n) - (n - 1) / 2 for n in model.phase.shape)
    spot = 1 + (0.1 + 0.3j) * np.exp(-np.add.outer(y**2, (x - 4) ** 2) / 60)
    wave = jnp.broadcast_to(jnp.asarray(spot, jnp.complex64), (4, *spot.shape))
    lit = BeamCoordinates.about(model.replace(probe=wave), np.ones(spot.shape), 0.0).solution()
    np.testing.assert_allclose(lit.probe[0], spot, atol=1e-5)
    flats = np.asarray(lit.empty_beam(np.arange(4)))
    assert np.ptp(flats[0]) > 10
    np.testing.assert_allclose(flats[1:], np.repeat(flats[:1], 3, 0), atol=0.5)
    assert np.abs(lit.probe[3] - lit.probe[0]).max() > 0.02  # the waves themselves are not alike


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in (2, 3))])
def test_a_beam_with_structure_is_better_known_by_its_wave_than_by_division(seed):
    scan, phase = scan_in_a_structured_beam(seed)
    known = {"delta_beta": DELTA_BETA, "register": False, "refine": [], "attenuation": False}
    inner, errors = np.s_[8:-8, 8:-8], {}
    for probe in (False, "flats"):
        settings = {"model": known | {"probe": probe}, "quality": {"error_bar": False}}
        found = recipes.reconstruct(scan, "holography", settings)
        errors[probe] = error(found["phase"][inner], phase[inner])
    assert errors["flats"] < 0.6 * errors[False], errors


# ------------------------------------------------------------------------------------------ costs of one's own
@pytest.fixture(scope="module")
def disc():
    """A scan of three dim holograms of a disc, its vacuum model and the true phase."""
    y, x = np.mgrid[:24, :24] - 11.5
    phase = -0.5 * jnp.asarray(np.hypot(y, x) < 7, jnp.float32)
    place = ParallelBeam(1e-7, 17e3, np.array([3e-3, 5e-3]))
    scan = Scan.from_arrays(np.ones((2, 24, 24), np.uint16), method="holography", geometry=place, flux=200.0)
    vacuum = Holography.from_scan(scan, delta_beta=DELTA_BETA)
    counts = np.random.default_rng(0).poisson(vacuum.replace(phase=phase)(np.arange(2)))
    return scan.replace(counts=counts), vacuum, phase


def descended(cost, disc, **options) -> float:
    scan, vacuum, phase = disc
    model = dr.minimise(cost, vacuum, scan, optax.adam(0.03), steps=100, unknowns=("phase",), **options).value
    return error(np.asarray(model.phase), np.asarray(phase))


COSTS = {
    "least squares": lambda model, batch: dr.losses.gaussian(model(batch.views), batch.counts, weights=1 / 200.0),
    "poisson": lambda model, batch: dr.losses.poisson(model(batch.views), batch.counts),
    "amplitude": lambda model, batch: 2 * dr.losses.amplitude(model(batch.views), batch.counts),
}


@pytest.fixture(scope="module")
def plain(disc):
    """Error of the phase by each cost alone."""
    return {name: descended(cost, disc) for name, cost in COSTS.items()}


def test_each_form_of_the_cost_finds_the_disc(plain):
    assert all(value < 0.8 for value in plain.values()), plain


def test_what_is_known_beforehand_lowers_the_error(disc, plain):
    amplitude = COSTS["amplitude"]
    with_tv = lambda model, batch: amplitude(model, batch) + dr.penalties.tv(model.phase, eps=0.01)
    y, x = np.mgrid[:24, :24] - 11.5
    inside = jnp.asarray(np.hypot(y, x) < 9)
    support = dr.constraints.on("phase", dr.constraints.support, inside=inside)
    assert descended(with_tv, disc) < 0.7 * plain["amplitude"]
    assert descended(amplitude, disc, project=support) < 0.8 * plain["amplitude"]
    assert generalised(disc) < 0.7 * plain["amplitude"]


def generalised(disc) -> float:
    scan, vacuum, phase = disc
    penalty = dr.penalties.GeneralisedVariation(1.0)

    def cost(unknowns, batch):
        first, second = penalty.analyse((unknowns[0].phase, unknowns[1]))
        length = lambda parts: jnp.mean(jnp.sqrt(sum(part**2 for part in parts) + 1e-4))
        return COSTS["amplitude"](unknowns[0], batch) + length(first) + penalty.ratio * length(second)

    start = (vacuum, penalty.auxiliary(vacuum.phase))
    found = dr.minimise(
        cost, start, scan, optax.adam(0.03), steps=100, unknowns=lambda both: (both[0].phase, *both[1])
    ).value[0]
    return error(np.asarray(found.phase), np.asarray(phase))
