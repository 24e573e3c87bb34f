"""Plans against simulated measurements: is what `diffrecon design` promises what a reconstruction shows?

    python benchmarks/planning.py [METHOD ...] [--seed 0]

Every measurement is simulated by plain NumPy (exact projections, finer waves, Poisson noise) and reconstructed by the
package. The noise is what repeated reconstructions differ by; details are Gaussian, and the contrast that is seen at
five standard deviations is that of a filter matched to the detail's reconstruction and the noise's spectrum. Prints for
details of several sizes the least density seen, predicted and found, and the smallest one seen.
"""

import argparse
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import diffrecon as dr
from diffrecon import physics, planning

sys.path.append(str(Path(__file__).parent.parent / "experiments"))
import weak_objects  # noqa: E402

FWHM = 2 * np.sqrt(2 * np.log(2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=[], metavar="METHOD", help=f"of {', '.join(CHECKS)}; all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| method | detail | predicted | found | found / predicted |\n|---|---|---|---|---|")
    for name in options.methods or CHECKS:
        start = time.process_time()
        for words, predicted, found in CHECKS[name](np.random.default_rng(options.seed)):
            print(f"| {name} | {words} | {predicted:.4g} | {found:.4g} | {found / predicted:.3f} |", flush=True)
        print(f"| {name} | CPU s | | {time.process_time() - start:.0f} | |", flush=True)


# ---------------------------------------------------------------------------------------------------- what is seen
def gaussian(shape: tuple[int, ...], size: float) -> np.ndarray:
    """A detail of height one in the middle of an image or volume; full width at half maximum [pixel]."""
    axes = np.meshgrid(*((np.arange(n) - n // 2) for n in shape), indexing="ij")
    return np.exp(-0.5 * sum(a**2 for a in axes) * (FWHM / size) ** 2)


def window(shape: tuple[int, int], radius: float) -> np.ndarray:
    """One within a radius [pixel] of the middle, softly zero beyond."""
    y, x = (np.arange(n) - n // 2 for n in shape)
    return 1 / (1 + np.exp((np.hypot(y[:, None], x) - radius) / 1.5))


def least_contrast(noise: np.ndarray, detail: np.ndarray, inside: np.ndarray) -> float:
    """Contrast that is five times the noise, for the reconstruction `detail` of a detail of contrast one.

    The noise images `(repeat, [z,] y, x)` give its spectrum, by rings of the plane, for the matched filter; the spread
    of the filter over them, at all places `inside`, is what measurements would find.
    """
    axes = tuple(range(-detail.ndim, 0))
    y, x = (np.fft.fftfreq(n) * n for n in detail.shape[-2:])
    ring = np.round(np.hypot(y[:, None], x)).astype(int)
    power = np.mean(np.abs(np.fft.fftn(noise, axes=axes)) ** 2, axis=0)
    if detail.ndim == 3:
        power = power.mean(0)
    mean = np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())
    whitened = np.fft.fftn(np.fft.ifftshift(detail)) / mean[ring]
    seen = np.fft.ifftn(np.conj(whitened) * np.fft.fftn(noise, axes=axes), axes=axes)
    signal = np.fft.ifftn(np.conj(whitened) * np.fft.fftn(np.fft.ifftshift(detail))).real.flat[0]
    return planning.CRITERION * float(np.std(seen.real[:, inside])) / float(signal)


def rows(plan, sizes, pixel: float, measured):
    """Compare the least density of details of some sizes [pixel], and the smallest one seen, interpolated."""
    density = physics.material(plan.settings.material).density or np.nan
    found = []
    for size in sizes:
        predicted = plan.with_numbers(detail=size * pixel).figures().sensitivities["density [g/cm^3]"]
        found.append(measured(size) * density)
        yield f"density of {size * pixel * 1e6:.3g} um [g/cm^3]", predicted, found[-1]
    seen = np.exp(
        np.interp(-np.log(density * plan.settings.difference), -np.log(found), np.log(np.asarray(sizes) * pixel))
    )
    yield "smallest detail [m]", plan.figures().limits["photons"], seen


# ---------------------------------------------------------------------------------------------------- tomography
def tomography(random):
    """A cylinder of silica; exact chords, filtered back-projection."""
    width, pixel, views, height = 64, 1e-6, 120, 16
    plan = planning.plan(
        "tomography",
        energy=10e3,
        material="SiO2, 2.2",
        thickness=48e-6,
        views=views,
        detector_pixel=pixel,
        width=width,
        height=width,
        detector_blur=0.0,
        flux=1e7,
        exposure=1.0,
    )
    mu = physics.attenuation_from_density(2.2, "SiO2", 10e3)
    u = (np.arange(8 * width) + 0.5) / 8 - width / 2
    chord = 2 * np.sqrt(np.clip(24.0**2 - u**2, 0, None)).reshape(width, 8).mean(1) * pixel
    counts = plan.settings.flux / width**2
    angles = np.arange(views) * np.pi / views
    A = dr.operators.ParallelProjector(angles, (width, width), width)
    rebuilt = lambda lines: np.asarray(dr.solvers.fbp(A, jnp.asarray(lines, jnp.float32))) / pixel

    clean = np.broadcast_to(mu * chord, (views, height, width))
    repeats = 8
    noisy = [-np.log(np.maximum(random.poisson(counts * np.exp(-clean)), 0.5) / counts) for _ in range(repeats)]
    noise = np.stack([rebuilt(lines - clean) for lines in noisy])
    near = np.zeros((height, width, width), bool)
    near[:, width // 2 - 5 : width // 2 + 5, width // 2 - 5 : width // 2 + 5] = True
    # The noise is stationary about the axis only: elsewhere chords are shorter.
    noise = noise * window((width, width), 16.0)

    def measured(size):
        z = np.arange(height) - height // 2
        deviation = size / FWHM
        # The detail in the middle of pixel N/2, half a pixel from the axis; each bin the mean of its rays.
        place = 0.5 * (np.cos(angles) + np.sin(angles))
        profile = np.exp(-0.5 * ((u[None] - place[:, None]) / deviation) ** 2).reshape(views, width, 8).mean(2)
        layers = np.exp(-0.5 * ((z[:, None] + (np.arange(8) + 0.5) / 8 - 0.5) / deviation) ** 2).mean(1)
        lines = mu * pixel * np.sqrt(2 * np.pi) * deviation * layers[:, None] * profile[:, None]
        return least_contrast(noise, rebuilt(lines), near)

    yield from rows(plan, (1.6, 2.2, 3.0, 4.5, 6.0), pixel, measured)


# ---------------------------------------------------------------------------------------------------- holography
def holography(random):
    """Four distances in a parallel beam; waves on three times finer pixels, contrast transfer functions."""
    frame, pixel, distances = 128, 0.2e-6, (5e-3, 6e-3, 8.5e-3, 13e-3)
    plan = planning.plan(
        "holography",
        energy=17e3,
        material="SiO2, 2.2",
        thickness=20e-6,
        distances=distances,
        focus_to_detector=0.0,
        detector_pixel=pixel,
        frame=frame,
        source=0.0,
        flux=2000.0 * frame**2,
        exposure=1.0,
    )
    wavelength = float(physics.energy_to_wavelength(17e3))
    delta, beta = physics.delta_beta("SiO2", 2.2, 17e3)
    k, through = 2 * np.pi / wavelength, np.exp(-4 * np.pi / wavelength * beta * 20e-6)
    counts = 2000.0 * through
    told = {"pixel_size": pixel, "wavelength": wavelength, "distances": distances, "delta_beta": delta / beta}
    rebuilt = lambda images: np.asarray(
        dr.solvers.ctf(images.astype(np.float32), regularisation=1e-3, outside="mirror", **told).phase
    )
    noise = np.stack([rebuilt(random.poisson(counts, (4, frame, frame)) / counts) for _ in range(24)])
    inside = np.zeros((frame, frame), bool)
    inside[24:-24, 24:-24] = True

    def measured(size):
        fine = 2 * frame * weak_objects.FINE
        # Its middle is that of pixel N/2, half a pixel from the middle of the frame; little enough to be weak.
        axis = (np.arange(fine) - (fine - 1) / 2) / weak_objects.FINE - 0.5
        small = 0.01
        shape = np.exp(-0.5 * (axis[:, None] ** 2 + axis**2) * (FWHM / size) ** 2)
        thick = small * np.sqrt(2 * np.pi) * size / FWHM * pixel * shape
        images = weak_objects.holograms(
            -k * delta * thick, k * beta * thick, pixel, wavelength, distances, [pixel] * 4, frame
        )
        return least_contrast(noise, rebuilt(np.stack(images)) / small, inside)

    yield from rows(plan, (1.2, 1.6, 2.5, 4.0, 7.0), pixel, measured)


# ---------------------------------------------------------------------------------------------------- gratings
def grating(random):
    """Fringes shifted by the mean slope over pixel and shear; `models.fit_fringes` with and without the sample."""
    size, light, pixel = 64, 400.0, 20e-6  # photons a pixel of a step
    plan = planning.plan(
        "grating",
        energy=25e3,
        material="SiO2, 2.2",
        thickness=1e-3,
        detector_pixel=pixel,
        detector_blur=0.0,
        width=size,
        height=size,
        flux=light * size**2,
        exposure=1.0,
    )
    s = plan.settings
    delta, beta = physics.delta_beta("SiO2", 2.2, 25e3)
    wavelength = float(physics.energy_to_wavelength(25e3))
    through = np.exp(-4 * np.pi / wavelength * beta * s.thickness)
    shear, fine = wavelength * s.distance / s.period, 8
    shifts = np.arange(s.steps) / s.steps

    # A moire of three fringes, by which the fit tells errors of the steps from the phase.
    turns = 2 * np.pi * (shifts[:, None, None] + 3 * np.arange(size) / size + np.zeros((size, size)))

    def fringes(counts):
        return random.poisson(counts * (1 + s.visibility * np.cos(turns)))

    def angles(frames):
        return dr.models.fit_fringes(frames.astype(np.float32), shifts)[0][2]

    wrapped = lambda phase: np.angle(np.exp(1j * np.asarray(phase)))
    noise = [wrapped(angles(fringes(light * through)) - angles(fringes(light))) for _ in range(10)]
    noise = np.stack(noise) * s.period / (2 * np.pi * s.distance)
    inside = np.zeros((size, size), bool)
    inside[12:-12, 12:-12] = True

    def measured(width):
        x = (np.arange(size * fine) - size * fine // 2) / fine * pixel
        deviation = width * pixel / FWHM
        line = lambda at: np.exp(-0.5 * (at / deviation) ** 2)
        slope = (line(x + shear / 2) - line(x - shear / 2)) / shear
        # Each pixel the mean of its rays, its middle at a whole number.
        mean = lambda values: np.roll(values, fine // 2).reshape(size, fine).mean(1)
        return least_contrast(
            noise, delta * np.sqrt(2 * np.pi) * deviation * mean(line(x))[:, None] * mean(slope), inside
        )

    yield from rows(plan, (2.0, 3.0, 5.0, 8.0, 20.0), pixel, measured)


# ---------------------------------------------------------------------------------------------------- speckles
def speckle(random):
    """Sums of waves, looked up where rays come from and averaged over pixels; least squares of four maps, by pixels."""
    size, views, light, pixel, distance, energy = 64, 40, 500.0, 2e-6, 0.5, 20e3
    waves = np.concatenate([random.normal(0, 0.13, (100, 2)), random.uniform(0, 2 * np.pi, (100, 1))], 1)
    places = random.uniform(-500, 500, (views, 2, 1, 1))

    def patterns(down, right):
        """Frames whose pixels show what was somewhere else [pixel], functions of `(y, x)`; means over the pixels."""
        frames = np.zeros((views, size, size))
        for a, b in ((-0.25, -0.25), (-0.25, 0.25), (0.25, -0.25), (0.25, 0.25)):
            y, x = np.meshgrid(np.arange(size) - size // 2 + a, np.arange(size) - size // 2 + b, indexing="ij")
            row, column = y - down(y, x) + places[:, 0], x - right(y, x) + places[:, 1]
            for fy, fx, phase in waves:
                frames += 0.022 / 4 * np.cos(2 * np.pi * (fy * row + fx * column) + phase)
        return 1 + frames

    by = lambda shift: lambda y, x: shift
    still = patterns(by(0.0), by(0.0))
    slopes = [(patterns(by(a), by(b)) - patterns(by(-a), by(-b))) / 0.1 for a, b in ((0.05, 0.0), (0.0, 0.05))]
    design = np.stack([*slopes, still - 1, np.ones_like(still)], -1).transpose(1, 2, 0, 3)
    solve = np.linalg.pinv(design)[..., :2, :]
    angles = lambda change: np.einsum("yxkv,vyx->kyx", solve, change) * pixel / distance

    contrast, grain = speckles(still)
    plan = planning.plan(
        "speckle",
        energy=energy,
        material="SiO2, 2.2",
        thickness=30e-6,
        difference=0.2,
        detector_pixel=pixel,
        detector_blur=0.0,
        distance=distance,
        positions=views,
        contrast=contrast,
        grain=grain * pixel,
        width=size,
        height=size,
        flux=light * size**2,
        exposure=1.0,
    )
    noise = [angles((random.poisson(light * still) - random.poisson(light * still)) / light) for _ in range(24)]
    noise = np.stack(noise)
    yield "angle of a pixel [rad]", plan.figures().sensitivities["angle of a pixel [rad]"], float(np.std(noise))
    delta, _ = physics.delta_beta("SiO2", 2.2, energy)
    inside = np.zeros((size, size), bool)
    inside[12:-12, 12:-12] = True

    def measured(width):
        deviation = width / FWHM
        bend = 0.02 * delta * np.sqrt(2 * np.pi) / deviation * distance / pixel  # of a fiftieth of the density
        hill = lambda y, x: bend * np.exp(-0.5 * (y**2 + x**2) / deviation**2)
        there = patterns(lambda y, x: -y * hill(y, x), lambda y, x: -x * hill(y, x))
        seen = angles(there - still) / 0.02
        return sum(least_contrast(noise[:, k], seen[k], inside) ** -2 for k in range(2)) ** -0.5

    yield from rows(plan, (2.0, 3.0, 5.0, 8.0, 12.0), pixel, measured)


def speckles(frames):
    """Contrast of a pattern, and the full width at half maximum of its autocorrelation [pixel]."""
    relative = frames / frames.mean() - 1
    power = np.mean(np.abs(np.fft.fft2(relative)) ** 2, 0)
    along = np.fft.ifft2(power).real
    along = (along[0] + along[:, 0])[:20] / 2
    return float(np.sqrt(along[0] / relative[0].size)), 2 * float(np.interp(-0.5, -along / along[0], np.arange(20)))


# ---------------------------------------------------------------------------------------------------- ptychography
def ptychography(random):
    """A diffuse spot over a weak object, patterns of twice finer waves, maximum likelihood; the spot is known."""
    frame, step, line, light = 48, 4, 10, 1e5  # pixels, pixels, positions along an axis, photons a position
    plan = planning.plan(
        "far-field-ptychography",
        energy=8e3,
        material="SiO2, 2.2",
        thickness=1e-6,
        detector_distance=5.0,
        detector_pixel=150e-6,
        frame=frame,
        probe=2.8e-6,
        field=4e-6,
        step=step * 5 * 1.5498e-10 / 150e-6 / frame,
        flux=light,
        exposure=1.0,
    )
    pixel = plan.figures().limits["detector"]
    delta, _ = physics.delta_beta("SiO2", 2.2, 8e3)
    k = 2 * np.pi / float(physics.energy_to_wavelength(8e3))
    size = frame + step * (line - 1) + 2
    corners = np.stack(np.meshgrid(*[np.arange(line) * step + 1] * 2, indexing="ij"), -1).reshape(-1, 2)
    fine = spot(random, frame, light)
    coarse = np.fft.ifftshift(np.fft.fftshift(np.fft.fft2(fine))[frame // 2 : -frame // 2, frame // 2 : -frame // 2])
    background = 0.2 * smooth(random, 2 * size, 8.0)

    def patterns(phase):
        waves = [fine * np.exp(1j * phase[2 * r : 2 * (r + frame), 2 * c : 2 * (c + frame)]) for r, c in corners]
        spectra = np.fft.fftshift(np.fft.fft2(np.array(waves), norm="ortho"), axes=(1, 2))
        kept = spectra[:, frame // 2 : -frame // 2, frame // 2 : -frame // 2]
        return np.fft.ifftshift(np.abs(kept) ** 2, axes=(1, 2))

    start = dr.models.Ptychography(
        jnp.asarray(np.exp(1j * background[::2, ::2]), jnp.complex64),
        jnp.asarray(np.fft.ifft2(coarse)[None] / 2, jnp.complex64),
        jnp.asarray(corners, jnp.float32),
        jnp.zeros((1, 1)),
        jnp.ones(len(corners)),
        far=True,
    )

    def rebuilt(counts, first, steps):
        told = {"steps": steps, "cg_steps": 60, "tolerance": 1e-7, "unknowns": ("object",), "block_size": 50}
        return dr.solvers.levenberg_marquardt(residual, first, {"counts": counts.astype(np.float32)}, **told).value

    mean = patterns(background)
    bright = rebuilt(mean, start, 8)
    apart = lambda model: np.angle(np.asarray(model.object) / np.asarray(bright.object))
    noise = np.stack([apart(rebuilt(random.poisson(mean), bright, 4)) for _ in range(12)])
    middle = slice(size // 2 - 6, size // 2 + 6)
    inside = np.zeros((size, size), bool)
    inside[middle, middle] = True
    # Where hardly any light falls the object is noise whatever the photons.
    lit = window((size, size), 28.0)

    def measured(width):
        small = 0.02
        shape = gaussian((2 * size, 2 * size), 2 * width)
        found = apart(rebuilt(patterns(background + small * shape), bright, 6)) / small
        return least_contrast(noise * lit, lit * found * k * delta * np.sqrt(2 * np.pi) * width / FWHM * pixel, inside)

    yield from rows(plan, (1.3, 2.0, 3.0, 5.0), pixel, measured)


def residual(model, batch):
    """Poisson counts for second-order steps: Anscombe's roots have the variance 1/4."""
    return 2 * (jnp.sqrt(model(batch.views) + 0.375) - jnp.sqrt(batch.counts + 0.375))


def smooth(random, size, width):
    """Noise without frequencies finer than a width [pixel], of unit standard deviation."""
    f2 = np.add.outer(*[np.fft.fftfreq(size) ** 2] * 2)
    noise = np.fft.ifft2(
        np.fft.fft2(random.standard_normal((size, size))) * np.exp(-2 * (np.pi * width) ** 2 * f2)
    ).real
    return noise / noise.std()


def spot(random, frame, light):
    """A round spot of 0.55 frames with a random phase of 2 rad, on half pixels; `light` photons."""
    u = (np.arange(2 * frame) - frame) / 2
    amplitude = 1 / (1 + np.exp((np.hypot(u[:, None], u) - 0.27 * frame) / 1.5))
    wave = amplitude * np.exp(2j * smooth(random, 2 * frame, 5.0))
    return wave * np.sqrt(light / np.sum(np.abs(wave) ** 2))


# ---------------------------------------------------------------------------------------------------- fluorescence
def fluorescence(random):
    """Traces of iron in silica, emission summed over the depth, production of xraylib; the recipe for maps."""
    size, energy, production = 64, 17e3, 11.07  # points, eV, cm^2/g
    plan = planning.plan("fluorescence-map", energy=energy, material="SiO2, 2.2", thickness=50e-6, background=300.0)
    s = plan.settings
    into, out = (float(physics.attenuation_from_density(2.2, "SiO2", e)) for e in (energy, 6.4e3))
    depth = (np.arange(2000) + 0.5) / 2000 * s.thickness
    share = np.mean(np.exp(-into * depth - out * depth / np.sin(s.takeoff)))
    one, under = s.flux * s.exposure * s.solid_angle / (4 * np.pi) * production * share, s.background * s.exposure
    told = {
        "sample": {"composition": s.material, "thickness": s.thickness, "takeoff": s.takeoff, "secondary": "off"},
        "beam": {"flux": s.flux},
        "detector": {"solid_angle": s.solid_angle},
        "tables": {"lines": "xraydb"},
    }

    def rebuilt(counts):
        extra = {"lines": ("Fe Ka",), "area_backgrounds": np.full((1, size, size, 1), under), "dwell": s.exposure}
        beam = dr.ParallelBeam(s.step, energy)
        scan = dr.Scan.from_arrays(counts[None, ..., None], geometry=beam, method="fluorescence-map", extra=extra)
        return np.asarray(dr.reconstruct(scan, settings=told)["Fe"], float)

    noise = np.stack([rebuilt(random.poisson(under, (size, size)) - under) for _ in range(10)])
    limit = plan.figures().sensitivities["limit of detection [g/cm^2]"]
    yield "limit of detection [g/cm^2]", limit, 3 * float(np.std(noise))

    def measured(width):
        # The spot widens the detail; the same mass is spread over more points.
        wide = np.hypot(width, s.spot / s.step)
        mass = 100 * 2.2 * np.sqrt(2 * np.pi) * width / FWHM * s.step * (width / wide) ** 2
        return least_contrast(noise, rebuilt(one * mass * gaussian((size, size), wide)), np.ones((size, size), bool))

    yield from rows(plan, (1.3, 2.0, 3.0, 5.0, 8.0), s.step, measured)


CHECKS = {
    "tomography": tomography,
    "holography": holography,
    "grating": grating,
    "speckle": speckle,
    "far-field-ptychography": ptychography,
    "fluorescence-map": fluorescence,
}

if __name__ == "__main__":
    main()
