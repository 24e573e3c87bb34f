"""Tensor SAXS: CPU seconds of the projector side by side with mumott's, and the figures of a reconstruction.

    python benchmarks/scattering.py [--size 64] [--views 200]
        [--scan saxs_helix_n32.h5 --metrics metrics_saxs.py]

Run it in an environment that holds diffrecon and mumott (which needs matplotlib < 3.11); what is absent is skipped with
a line.
"""

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import table

from diffrecon import Console
from diffrecon.io import open_scan
from diffrecon.models import SaxsTensor
from diffrecon.operators.adjoint import dot_test
from diffrecon.operators.scattering import TensorGeometry, TensorProjector, rotations_from_angles
from diffrecon.solvers import tensor_tomography

CASE = "tensor SAXS, {0}^3, 28 coefficients, 200 views: forward and adjoint"


def measure(function: Any, *arguments: Any, repeats: int = 3) -> tuple[Any, float, float]:
    """Value, median CPU seconds and median wall seconds after one warm-up call."""
    value = jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        value = jax.block_until_ready(function(*arguments))
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    return value, *np.median(times, axis=0)


def angles(views: int) -> tuple[np.ndarray, np.ndarray]:
    """Four tilts, 0 to 45 degrees, with equal numbers of rotations."""
    each = views // 4
    inner = [np.arange(each) * (np.pi if tilt == 0 else 2 * np.pi) / each + 0.013 * tilt for tilt in range(4)]
    return np.concatenate(inner), np.repeat(np.deg2rad([0, 15, 30, 45]), each)


def ours(size: int, inner: np.ndarray, outer: np.ndarray) -> None:
    A = TensorProjector(TensorGeometry(rotations_from_angles(inner, outer)), (size,) * 3, (size, size), 6)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((size, size, size, 28)), jnp.float32)
    y, forward, wall_forward = measure(eqx.filter_jit(lambda A, x: A(x)), A, x)
    _, adjoint, wall_adjoint = measure(eqx.filter_jit(lambda A, y: A.adjoint(y)), A, y)
    print(f"diffrecon  CPU (wall) s: A {forward:.2f} ({wall_forward:.2f}), A' {adjoint:.2f} ({wall_adjoint:.2f})")
    table.note(CASE.format(size), "CPU s", forward + adjoint)
    print(f"diffrecon  dot test {dot_test(A, A.adjoint, x):.1e} (float32, signed random vectors)")


def mumotts(size: int, inner: np.ndarray, outer: np.ndarray) -> None:
    try:
        from mumott import Geometry
        from mumott.core.geometry import GeometryTuple
        from mumott.methods.basis_sets import SphericalHarmonics
        from mumott.methods.projectors import SAXSProjector
    except ImportError as error:
        print(f"mumott     skipped: {error}")
        return
    geometry = Geometry()
    for matrix in rotations_from_angles(inner, outer):
        geometry.append(GeometryTuple(rotation=matrix, j_offset=0.0, k_offset=0.0))
    geometry.detector_angles = np.arange(8) * np.pi / 8
    geometry.volume_shape = np.array([size] * 3)
    geometry.projection_shape = np.array([size] * 2)
    projector = SAXSProjector(geometry)
    basis = SphericalHarmonics(ell_max=6, probed_coordinates=geometry.probed_coordinates)
    x = np.random.default_rng(0).standard_normal((size, size, size, 28)).astype(projector.dtype)
    y, forward, wall_forward = measure(lambda: basis.forward(projector.forward(x)))
    y = np.asarray(y, projector.dtype)
    _, adjoint, wall_adjoint = measure(lambda: projector.adjoint(basis.gradient(y).astype(projector.dtype)))
    table.note(CASE.format(size), "CPU s", forward + adjoint, "mumott")
    print(f"mumott     CPU (wall) s: A {forward:.2f} ({wall_forward:.2f}), A' {adjoint:.2f} ({wall_adjoint:.2f})")


def reconstruction(path: Path, metrics: Path | None) -> None:
    scan = open_scan(path)
    cpu, wall = time.process_time(), time.perf_counter()
    found = tensor_tomography(
        SaxsTensor.from_scan(scan).projector,
        scan.counts,
        weights=scan.weights,
        transmission=scan.transmission,
        console=Console(stream=sys.stdout),
    )
    coefficients = np.asarray(found.coefficients, np.float64).transpose(2, 1, 0, 3)
    print(
        f"diffrecon  {path.name}: {time.process_time() - cpu:.0f} CPU s, {time.perf_counter() - wall:.0f} s wall "
        f"with compilation, smoothness {found.smoothness:g}"
    )
    if metrics is not None:
        spec = importlib.util.spec_from_file_location("metrics", metrics)
        assert spec is not None and spec.loader is not None
        judge = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(judge)
        truth = judge.load_truth(path.with_name(path.stem + "_truth.h5"))
        found = judge.metrics(coefficients, truth)
        print("          ", {k: round(v, 4) for k, v in found.items()})
        for name, figure in (("mean", "error"), ("direction", "median, degrees")):
            key = next((k for k in found if name in k), None)
            if key:
                table.note(f"tensor SAXS, helix, 120 views: {name}", figure, found[key])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--views", type=int, default=200)
    parser.add_argument("--scan", type=Path, help="mumott file to reconstruct too")
    parser.add_argument("--metrics", type=Path, help="judges the reconstruction; <scan>_truth.h5 beside it")
    options = table.arguments(parser).parse_args()
    inner, outer = angles(options.views)
    print(f"{options.size}^3 x 28 coefficients, {len(inner)} views of {options.size}^2 x 8 segments")
    ours(options.size, inner, outer)
    mumotts(options.size, inner, outer)
    if options.scan:
        reconstruction(options.scan, options.metrics)
    table.keep(options, "python benchmarks/scattering.py")


if __name__ == "__main__":
    main()
