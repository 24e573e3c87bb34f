"""Parallel-beam projection: times and errors of diffrecon and, where they can be imported, ASTRA, jax-finufft,
scikit-image, algotom and mbirjax.

    python benchmarks/projection.py [--size 512] [--views 720] [--slices 16] [--repeats 7] [--cube 256]

Every code projects the same ellipses; errors are to their exact, bin-averaged sinogram. CPU seconds are of the process,
all threads; medians after two warm-up calls. A package that is not installed is skipped with a line. `--cube 0` leaves
out the last part, a whole volume of cube^3 from 180 views.
"""

import argparse
import importlib
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import table

from diffrecon.operators.adjoint import dot_test
from diffrecon.operators.projection import ParallelProjector
from diffrecon.solvers.direct.fbp import fbp
from diffrecon.solvers.linear.least_squares import cgls, sirt

CASE = "parallel beam"
FORWARD, ADJOINT, FBP = "forward", "adjoint", "filtered back-projection"
DISC = "error in the inscribed disc"
# value, semi-axes, centre (x, y) in half sizes, tilt [deg]: Toft's modified Shepp-Logan phantom, y downwards
ELLIPSES = [
    (1.0, 0.69, 0.92, 0.0, 0.0, 0),
    (-0.8, 0.6624, 0.874, 0.0, 0.0184, 0),
    (-0.2, 0.11, 0.31, 0.22, 0.0, 18),
    (-0.2, 0.16, 0.41, -0.22, 0.0, -18),
    (0.1, 0.21, 0.25, 0.0, -0.35, 0),
    (0.1, 0.046, 0.046, 0.0, -0.1, 0),
    (0.1, 0.046, 0.046, 0.0, 0.1, 0),
    (0.1, 0.046, 0.023, -0.08, 0.605, 0),
    (0.1, 0.023, 0.023, 0.0, 0.606, 0),
    (0.1, 0.023, 0.046, 0.06, 0.605, 0),
]


def phantom(n: int, fine: int = 8) -> np.ndarray:
    position = ((np.arange(n * fine) + 0.5) / (n * fine)) * 2 - 1
    x, y = position[None, :], position[:, None]
    image = np.zeros((n * fine, n * fine), np.float32)
    for value, a, b, x0, y0, tilt in ELLIPSES:
        c, s = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
        along, across = (x - x0) * c + (y - y0) * s, -(x - x0) * s + (y - y0) * c
        image += value * ((along / a) ** 2 + (across / b) ** 2 <= 1)
    return image.reshape(n, fine, n, fine).mean((1, 3))


def exact_sinogram(n: int, angles: np.ndarray, fine: int = 16) -> np.ndarray:
    u = ((np.arange(n * fine) + 0.5) / fine - n / 2) / (n / 2)
    total = np.zeros((angles.size, u.size))
    for value, a, b, x0, y0, tilt in ELLIPSES:
        turned = angles - np.deg2rad(tilt)
        radius2 = ((a * np.cos(turned)) ** 2 + (b * np.sin(turned)) ** 2)[:, None]
        distance = u[None, :] - (x0 * np.cos(angles) + y0 * np.sin(angles))[:, None]
        total += 2 * value * a * b / radius2 * np.sqrt(np.clip(radius2 - distance**2, 0, None))
    return (total * (n / 2)).reshape(angles.size, n, fine).mean(2)


def peer(name: str, module: str) -> Any:
    """The module, or None and a line that says why not."""
    try:
        return importlib.import_module(module)
    except Exception as reason:  # a package that breaks on import must not end the others' comparison
        print(f"{name}: skipped ({type(reason).__name__}: {reason})")
        return None


def relative(a, b) -> float:
    return float(np.linalg.norm(np.asarray(a, float) - b) / np.linalg.norm(b))


def report(
    name: str, function: Callable, repeats: int, note: str = "", warm: int = 2, of: tuple[str, str] = ("", "")
) -> None:
    """Print the times of a program; `of` program and work: those that the table of all benchmarks has."""
    cpu, wall = [], []
    for number in range(repeats + warm):
        start = time.process_time(), time.perf_counter()
        jax.block_until_ready(function())
        if number >= warm:
            cpu.append(time.process_time() - start[0])
            wall.append(time.perf_counter() - start[1])
    print(f"{name:44s} CPU {np.median(cpu):8.4f} s   wall {np.median(wall):8.4f} s   {note}", flush=True)
    if of[0]:
        table.note(f"{CASE}: {of[1]}", "CPU s", float(np.median(cpu)), of[0])


def ours(image: np.ndarray, exact: np.ndarray, angles: np.ndarray, slices: int, repeats: int) -> None:
    n = image.shape[0]
    start = time.process_time()
    A = ParallelProjector(angles, (n, n), n)
    print(f"{'diffrecon set-up':44s} CPU {time.process_time() - start:8.4f} s")
    x, b = jnp.asarray(image), jnp.asarray(exact, jnp.float32)
    error, transpose = relative(A(x), exact), dot_test(A, A.adjoint, x)
    table.note(f"{CASE}: {FORWARD}", "error", error)
    report("diffrecon forward", lambda: A(x), repeats, f"error {error:.5f}", of=("diffrecon", FORWARD))
    report("diffrecon adjoint", lambda: A.adjoint(b), repeats, f"dot test {transpose:.1e}", of=("diffrecon", ADJOINT))
    volume = jnp.stack([x] * slices)
    report(f"diffrecon forward, {slices} slices", lambda: A(volume), repeats)
    stack = A(volume)
    report(f"diffrecon adjoint, {slices} slices", lambda: A.adjoint(stack), repeats)
    few = A.subset(np.arange(0, angles.size, 10))
    few_lines = few(x)
    report(f"diffrecon forward, {few_lines.shape[0]} views (subset)", lambda: few(x), repeats)
    report(f"diffrecon adjoint, {few_lines.shape[0]} views (subset)", lambda: few.adjoint(few_lines), repeats)
    N, back = A.normal(), A.adjoint(b)
    gradient = jax.jit(lambda N, x, back: N(x) - back)
    report("diffrecon least-squares gradient, Toeplitz", lambda: gradient(N, x, back), repeats)
    slice_ = np.asarray(fbp(A, b))
    inside = np.hypot(*(np.mgrid[:n, :n] - (n - 1) / 2)) < n / 2
    error = relative(slice_[inside], image[inside])
    table.note(f"{CASE}: {FBP}", DISC, error)
    report("diffrecon fbp", lambda: fbp(A, b), repeats, f"error in the disc {error:.4f}", of=("diffrecon", FBP))
    for name, solve in (("cgls 20", lambda: cgls(A, b, steps=20)), ("sirt 20", lambda: sirt(A, b, steps=20))):
        report(f"diffrecon {name}", solve, 3, f"residual {float(solve().history[-1]):.4f}")


def astra_toolbox(image: np.ndarray, exact: np.ndarray, angles: np.ndarray, repeats: int) -> None:
    astra = peer("ASTRA", "astra")
    if astra is None:
        return
    n = image.shape[0]
    upright = np.ascontiguousarray(image[::-1])  # its y axis points up
    for kind in ("line", "linear"):
        geometry = astra.create_proj_geom("parallel", 1.0, n, angles)
        projector = astra.OpTomo(astra.create_projector(kind, geometry, astra.create_vol_geom(n, n)))
        sinogram = projector.FP(upright)
        error, few, name = relative(sinogram, exact), min(repeats, 3), f"ASTRA {kind}"
        table.note(f"{CASE}: {FORWARD}", "error", error, name)
        report(f"{name} {FORWARD}", lambda p=projector: p.FP(upright), few, f"error {error:.5f}", of=(name, FORWARD))
        report(f"{name} {ADJOINT}", lambda p=projector, s=sinogram: p.BP(s), few, of=(name, ADJOINT))


def finufft(image: np.ndarray, exact: np.ndarray, angles: np.ndarray, repeats: int) -> None:
    package = peer("jax-finufft", "jax_finufft")
    if package is None:
        return
    nufft1, nufft2 = package.nufft1, package.nufft2
    n = image.shape[0]
    frequency = np.arange(n + 1) / (2 * n)
    kx, ky = (np.outer(f(angles), frequency).ravel() for f in (np.cos, np.sin))
    cycles = 0.5 * (kx + ky) + np.tile(frequency, angles.size) * (n - 1) / 2
    turn = jnp.asarray(np.exp(-2j * np.pi * cycles), jnp.complex64)
    x, y = jnp.asarray(2 * np.pi * kx, jnp.float32), jnp.asarray(2 * np.pi * ky, jnp.float32)

    @jax.jit
    def forward(image, x, y, turn):
        samples = nufft2(image.astype(jnp.complex64), y, x, iflag=-1, eps=1e-4) * turn
        return jnp.fft.irfft(samples.reshape(-1, n + 1), 2 * n)[:, :n]

    @jax.jit
    def adjoint(sinogram, x, y, turn):
        samples = jnp.fft.rfft(sinogram, 2 * n).ravel() * jnp.conj(turn)
        return nufft1((n, n), samples, y, x, iflag=1, eps=1e-4).real

    data, sinogram = jnp.asarray(image), jnp.asarray(exact, jnp.float32)
    error = relative(forward(data, x, y, turn), exact)
    name, said = "jax-finufft", f"error {error:.5f}"
    table.note(f"{CASE}: {FORWARD}", "error", error, name)
    report("jax-finufft 1e-4 forward", lambda: forward(data, x, y, turn), repeats, said, of=(name, FORWARD))
    report("jax-finufft 1e-4 adjoint", lambda: adjoint(sinogram, x, y, turn), repeats, of=(name, ADJOINT))


def scikit_image(image: np.ndarray, exact: np.ndarray, angles: np.ndarray) -> None:
    """Its radon sums along columns and counts angles the other way; its iradon is a filtered back-projection."""
    transform = peer("scikit-image", "skimage.transform")
    if transform is None:
        return
    degrees = np.rad2deg(angles)
    padded = np.ascontiguousarray(image[::-1])

    def forward():
        return transform.radon(padded, degrees, circle=True).T

    # its axis is pixel n // 2, half a pixel beside the middle: the error holds that shift
    error, name = relative(forward(), exact), "scikit-image"
    table.note(f"{CASE}: {FORWARD}", "error", error, name)
    said = f"error {error:.5f} (axis half a pixel off)"
    report("scikit-image radon", forward, 1, said, warm=0, of=(name, FORWARD))
    sinogram = np.ascontiguousarray(exact.T, dtype=np.float32)
    report("scikit-image iradon (ramp)", lambda: transform.iradon(sinogram, degrees, circle=True), 1, warm=1)


def algotom(image: np.ndarray, exact: np.ndarray, angles: np.ndarray, repeats: int) -> None:
    """Has no projector, only reconstructions: filtered back-projection on the CPU (numba)."""
    package = peer("algotom", "algotom.rec.reconstruction")
    if package is None:
        return
    n = image.shape[0]
    inside = np.hypot(*(np.mgrid[:n, :n] - (n - 1) / 2)) < n / 2
    sinogram = exact.astype(np.float32)

    def run():
        return package.fbp_reconstruction(
            sinogram, (n - 1) / 2, angles, filter_name=None, apply_log=False, gpu=False, ncore=os.cpu_count()
        )

    # its rows may run the other way
    made = max((run(), run()[::-1]), key=lambda x: np.vdot(x[inside], image[inside]))
    error = relative(made[inside], image[inside])
    table.note(f"{CASE}: {FBP}", DISC, error, "algotom")
    report("algotom fbp", run, min(repeats, 3), f"error in the disc {error:.4f}", of=("algotom", FBP))


def cube(side: int, repeats: int, views: int = 180) -> None:
    """Forward projection and back of a whole volume, ours and mbirjax's."""
    angles = np.linspace(0, np.pi, views, endpoint=False)
    volume = np.repeat(phantom(side, 4)[None], side, 0)
    A, x = ParallelProjector(angles, (side, side), side), jnp.asarray(volume)
    name = f"{side}^3, {views} views, forward and back"
    exact = exact_sinogram(side, angles)
    note = f"error {relative(A(x[:1])[:, 0], exact):.5f}"
    report(f"diffrecon {name}", lambda: A.adjoint(A(x)), repeats, note)
    package = peer("mbirjax", "mbirjax")
    if package is None:
        return
    model = package.ParallelBeamModel((views, side, side), angles)
    turned = jnp.asarray(np.transpose(volume, (1, 2, 0))[::-1])  # rows upwards, columns, slices
    sinogram = np.asarray(model.forward_project(turned))[:, side // 2]
    error = min(relative(s, exact) for s in (sinogram, sinogram[:, ::-1]))
    run = lambda: model.back_project(model.forward_project(turned))  # noqa: E731
    report(f"mbirjax {name}", run, 1, f"error {error:.5f}", warm=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--views", type=int, default=720)
    parser.add_argument("--slices", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cube", type=int, default=256)
    options = table.arguments(parser).parse_args()
    global CASE
    CASE = f"parallel beam, {options.size} x {options.size}, {options.views} views"
    angles = np.linspace(0, np.pi, options.views, endpoint=False)
    image, exact = phantom(options.size), exact_sinogram(options.size, angles)
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"{options.size}^2, {options.views} views; {load}; jax {jax.__version__}")
    ours(image, exact, angles, options.slices, options.repeats)
    finufft(image, exact, angles, options.repeats)
    astra_toolbox(image, exact, angles, options.repeats)
    scikit_image(image, exact, angles)
    algotom(image, exact, angles, options.repeats)
    if options.cube:
        cube(options.cube, min(options.repeats, 5))
    table.keep(options, "python benchmarks/projection.py")


if __name__ == "__main__":
    main()
