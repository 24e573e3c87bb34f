"""Powder diffraction: integration and all-channel reconstruction, beside pyFAI, ASTRA and midas-dt if installed.

    python benchmarks/diffraction.py [--size 2048] [--frames 8] [--file SINOGRAM.h5]

Processor seconds of one thread or of all, whatever the libraries take; compiled before. A frame of powder rings on a
tilted detector, Poisson counts of 16 bits; L2: against the exact pattern averaged over the channels, without noise.
`--file`: a file of patterns (counts, two_theta, normalisation) for SIRT of all channels.
"""

import argparse
import importlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import table

import diffrecon as dr
from diffrecon.geometry import TiltedDetector, polarisation_factor
from diffrecon.operators import AzimuthalIntegrator, Cake, Grid, StripProjector, radial_range
from diffrecon.solvers import sirt_patterns

CHANNELS = 1000
CASE = f"azimuthal integration, 2048 x 2048 into {CHANNELS} channels"


def optional(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"  {name} is not installed")
        return None


def seconds(call, repeat=3):
    call()
    start = time.process_time()
    for _ in range(repeat):
        call()
    return (time.process_time() - start) / repeat


def pattern(two_theta):
    rings = 0.06 + 0.028 * np.arange(18)
    peaks = np.exp(-(((two_theta[..., None] - rings) / 2.5e-3) ** 2)) / (1 + np.arange(18) % 5)
    return 5 + 200 * peaks.sum(-1)


def integration(size, count):
    detector = TiltedDetector(0.2, 0.45 * size * 1e-4, 0.52 * size * 1e-4, 0.02, -0.015, 0.0, 1e-4, 1e-4, 4e-11)
    two_theta, chi, solid = detector.angles((size, size))
    mean = pattern(two_theta) * solid * polarisation_factor(two_theta, chi, 0.99)
    frames = np.random.default_rng(0).poisson(mean, (count, size, size)).astype(np.uint16)
    low, high = radial_range(detector, (size, size), "two_theta", "no")
    cake = Cake(low, high, CHANNELS)
    inner = slice(20, -60)  # the corners hold few pixels
    fine = low + (np.arange(CHANNELS * 20) + 0.5) / 20 * cake.step
    exact = pattern(fine).reshape(CHANNELS, 20).mean(1)[inner]
    error = lambda found: np.linalg.norm(np.asarray(found)[inner] - exact) / np.linalg.norm(exact)
    start = time.process_time()
    bins = AzimuthalIntegrator(detector, (size, size), cake, polarisation=0.99)
    print(f"integration of {size} x {size} into {CHANNELS} channels, patterns and variance")
    print(f"  diffrecon, table made in {time.process_time() - start:.2f} s")
    for kind in (np.uint16, np.uint32):
        stack = jnp.asarray(frames.astype(kind))
        taken = seconds(lambda stack=stack: jax.block_until_ready(bins.with_errors(stack))) / count
        clean = error(bins(jnp.asarray(mean, jnp.float32)[None])[0])
        if kind is np.uint16:
            table.note(f"{CASE}, 16 bits", "CPU ms a frame", taken * 1e3)
            table.note(CASE, "L2 error", clean)
        print(
            f"  diffrecon, {kind.__name__:6} {taken * 1e3:7.1f} ms a frame, {1 / taken:5.0f} frames a s, L2 {clean:.4f}"
        )
    clipped = seconds(lambda: jax.block_until_ready(bins.clipped(stack[:2])), 1) / 2
    print(f"  diffrecon, sigma clip {clipped * 1e3:.0f} ms a frame")
    module = optional("pyFAI.integrator.azimuthal")
    if module is None:
        return
    other = module.AzimuthalIntegrator(
        dist=detector.distance, poni1=detector.poni1, poni2=detector.poni2, rot1=detector.rot1, rot2=detector.rot2,
        rot3=0.0, pixel1=1e-4, pixel2=1e-4, wavelength=4e-11,
    )  # fmt: skip
    away = np.abs(other.center_array((size, size), unit="2th_rad") - two_theta).max()
    print(f"  two_theta differs from pyFAI's by at most {away:.1e} rad")
    for method in (("no", "histogram", "cython"), ("no", "csr", "cython"), ("bbox", "csr", "cython")):
        run = lambda image, method=method: other.integrate1d(
            image, CHANNELS, unit="2th_rad", polarization_factor=0.99, method=method, error_model="poisson",
            radial_range=(low, high),
        )  # fmt: skip
        taken = seconds(lambda run=run: run(frames[0]))
        program = f"pyFAI, {method[1]}, " + {"no": "no splitting"}.get(method[0], method[0])
        table.note(f"{CASE}, 16 bits", "CPU ms a frame", taken * 1e3, program)
        table.note(CASE, "L2 error", error(run(mean).intensity), program)
        print(
            f"  pyFAI, {' '.join(method):22} {taken * 1e3:7.1f} ms a frame, {1 / taken:5.0f} frames a s, "
            f"L2 {error(run(mean).intensity):.4f}"
        )


def patterns(path):
    scan = dr.open_scan(path)
    powder, counts = scan.extra["powder"], np.asarray(scan.counts, np.float32)
    views, points, channels = counts.shape
    photons = powder["monitor"] / powder["monitor_gain"]
    data = counts / (photons[..., None] * powder["normalisation"]) - powder["background"]
    print(f"SIRT 50 of {channels} channels, {views} views, {points} x {points} pixels")
    rays = StripProjector(scan.angles, Grid(points, 1, points / 2), scan.rotation_centre).table[:, 0]
    on_device = jnp.asarray(data, jnp.float32)
    for steps in (1, 50):
        taken = seconds(lambda steps=steps: jax.block_until_ready(sirt_patterns(rays, on_device, steps)))
        if steps == 50:
            table.note(f"SIRT of {channels} channels, {views} views, 50 steps", "CPU s", taken)
        print(f"  diffrecon, all channels at once, {steps} steps with their matrix {taken:.2f} s")
    midas(data, np.asarray(scan.angles))
    astra = optional("astra")
    if astra is None:
        return
    volume = astra.create_vol_geom(points, points)
    geometry = astra.create_proj_geom("parallel", 1.0, points, np.asarray(scan.angles))
    projector = astra.create_projector("linear", geometry, volume)

    def run():
        for channel in range(channels):
            sinogram = astra.data2d.create("-sino", geometry, np.ascontiguousarray(data[..., channel]))
            image = astra.data2d.create("-vol", volume, 0.0)
            settings = astra.astra_dict("SIRT")
            settings.update(ProjectorId=projector, ReconstructionDataId=image, ProjectionDataId=sinogram)
            settings["option"] = {"MinConstraint": 0.0}
            job = astra.algorithm.create(settings)
            astra.algorithm.run(job, 50)
            astra.algorithm.delete(job)
            astra.data2d.delete([sinogram, image])

    taken = seconds(run, 1)
    table.note(f"SIRT of {channels} channels, {views} views, 50 steps", "CPU s", taken, "ASTRA")
    print(f"  ASTRA, channel by channel {taken:.2f} s")


def midas(data, angles):
    """Time the same of midas-dt, which takes all channels at once, too, in double precision."""
    package = optional("midas_dt")
    if package is None:
        return
    sinograms = np.ascontiguousarray(data.transpose(2, 0, 1), float)
    channels, points = len(sinograms), sinograms.shape[2]
    limits = importlib.import_module("midas_dt.conventions").ScanKnownLimits(snake_corrected=True, omega_negated=True)
    stack = package.SinogramStack(
        intensity=sinograms, variance=np.ones_like(sinograms), omega_deg=np.rad2deg(angles), bin_shape=(1, channels),
        channel=package.Channel(0.0, float(channels), r_bin=1.0, eta_bin=360.0), limits=limits,
    )  # fmt: skip
    run = lambda: importlib.import_module("midas_dt.iterative").sirt(stack, size=points, n_iter=50)
    taken = seconds(run, 1)
    table.note(f"SIRT of {channels} channels, {len(angles)} views, 50 steps", "CPU s", taken, "midas-dt")
    print(f"  midas-dt, all channels at once {taken:.2f} s")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", type=int, default=2048)
    options.add_argument("--frames", type=int, default=8)
    options.add_argument("--file")
    given = table.arguments(options).parse_args()
    integration(given.size, given.frames)
    if given.file:
        patterns(given.file)
    table.keep(given, "python benchmarks/diffraction.py --file SINOGRAM.h5")
