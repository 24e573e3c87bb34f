"""Reconstruction of a tomographic scan beside ASTRA: CPU and wall seconds and relative residuals, in one process.

    python benchmarks/tomography.py SCAN.h5 [--centre 295.83]

SCAN is any file that `diffrecon.open_scan` reads (docs/file_formats.md); its first detector row is used. Times are
medians after a warm-up. ASTRA (`pip install astra-toolbox`) is skipped where it is not installed.
"""

import argparse
import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import table

import diffrecon as dr


def timed(function: Callable[[], Any], repeats: int) -> tuple[Any, float, float]:
    """Result, median CPU and wall seconds, after one call that is not counted."""
    result = jax.block_until_ready(function())
    cpu, wall = [], []
    for _ in range(repeats):
        start, begun = time.process_time(), time.perf_counter()
        result = jax.block_until_ready(function())
        cpu.append(time.process_time() - start)
        wall.append(time.perf_counter() - begun)
    return result, statistics.median(cpu), statistics.median(wall)


def report(name: str, cpu: float, wall: float, residual: float) -> None:
    program, _, solver = name.partition(" ")
    work = {"fbp": "FBP", "cgls": "CGLS, 20 steps", "sirt": "SIRT, 100 steps"}.get(solver.partition(",")[0].lower())
    if work and "Toeplitz" not in solver:
        table.note(f"a tooth, 181 views of 640 columns: {work}", "CPU s", cpu, program)
        table.note(f"a tooth, 181 views of 640 columns: {work}", "residual", residual, program)
    print(f"{name:44s} CPU {cpu:8.3f} s   wall {wall:8.3f} s   relative residual {residual:.4f}", flush=True)


def ours(projector: dr.operators.ParallelProjector, sinogram: np.ndarray, weight: float, repeats: int) -> None:
    b = jnp.asarray(sinogram)[:, None]
    residual = jax.jit(lambda A, x: jnp.linalg.norm(A(x) - b) / jnp.linalg.norm(b))
    fbp = jax.jit(lambda A: dr.solvers.fbp(A, b, weights=np.full(len(b), np.pi / len(b))))
    solvers, tv = dr.solvers, dr.penalties.TotalVariation(weight)
    start = time.process_time()
    equations = solvers.normal_equations(projector, b)
    path = "Toeplitz" if equations.toeplitz else "projector"
    print(f"{'diffrecon normal equations, set-up':44s} CPU {time.process_time() - start:8.3f} s   ({path})")
    runs = {
        "fbp": lambda: fbp(projector),
        "cgls, 20 steps": lambda: solvers.cgls(projector, b, steps=20).x,
        f"cgls, 20 steps, {path}": lambda: solvers.cgls(projector, b, steps=20, normal=equations).x,
        "sirt, 100 steps": lambda: solvers.sirt(projector, b, steps=100).x,
        f"fista-tv, 100 steps, {path}": lambda: solvers.fista(projector, b, tv, steps=100, normal=equations).x,
    }
    for name, run in runs.items():
        x, cpu, wall = timed(run, repeats)
        report(f"diffrecon {name}", cpu, wall, float(residual(projector, x)))


def astra_toolbox(angles: np.ndarray, centre: float, sinogram: np.ndarray) -> None:
    astra: Any = importlib.import_module("astra")
    views, columns = sinogram.shape
    off = (columns - 1) / 2 - centre
    zero = np.zeros(views)
    vectors = (
        np.stack(
            [
                np.sin(angles),
                -np.cos(angles),
                off * np.cos(angles),
                off * np.sin(angles),
                np.cos(angles),
                np.sin(angles),
            ],
            1,
        )
        + zero[:, None]
    )
    volume = astra.create_vol_geom(columns, columns)
    geometry = astra.create_proj_geom("parallel_vec", columns, vectors)
    projector = astra.create_projector("linear", geometry, volume)
    data = astra.data2d.create("-sino", geometry, sinogram)
    # ASTRA's FBP knows the plain geometry only: crop the detector so that its middle is the axis.
    cropped = (
        sinogram[:, : round(2 * centre) + 1]
        if off > 0
        else sinogram[:, columns - 1 - round(2 * (columns - 1 - centre)) :]
    )
    plain = astra.create_proj_geom("parallel", 1.0, cropped.shape[1], angles)
    plain_projector, plain_data = (
        astra.create_projector("linear", plain, volume),
        astra.data2d.create("-sino", plain, cropped),
    )
    for name, steps in (("FBP", 1), ("CGLS", 20), ("SIRT", 100)):
        image = astra.data2d.create("-vol", volume)
        settings = astra.astra_dict(name)
        used = (plain_projector, plain_data) if name == "FBP" else (projector, data)
        settings.update(ProjectorId=used[0], ProjectionDataId=used[1], ReconstructionDataId=image)
        algorithm = astra.algorithm.create(settings)
        start, begun = time.process_time(), time.perf_counter()
        astra.algorithm.run(algorithm, steps)
        cpu, wall = time.process_time() - start, time.perf_counter() - begun
        made, prediction = astra.create_sino(astra.data2d.get(image), projector)
        report(
            f"ASTRA {name}, {steps} steps, linear",
            cpu,
            wall,
            float(np.linalg.norm(prediction - sinogram) / np.linalg.norm(sinogram)),
        )
        astra.data2d.delete([made, image])
        astra.algorithm.delete(algorithm)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scan")
    parser.add_argument("--centre", type=float, help="rotation centre [pixel]; found from the data by default")
    parser.add_argument("--weight", type=float, default=1e-3, help="of the total variation")
    parser.add_argument("--repeats", type=int, default=3)
    options = table.arguments(parser).parse_args()
    scan = dr.open_scan(options.scan)
    sinogram = scan.absorption()[:, 0]
    centre = options.centre or scan.find_rotation_centre()
    columns = sinogram.shape[1]
    assert scan.angles is not None
    print(f"{scan.name}: {len(sinogram)} views of {columns} columns, one row, rotation centre {centre:.2f}")
    ours(
        dr.operators.ParallelProjector(scan.angles, (columns, columns), columns, centre=centre),
        sinogram,
        options.weight,
        options.repeats,
    )
    if importlib.util.find_spec("astra"):
        astra_toolbox(scan.angles, centre, sinogram)
    else:
        print("ASTRA is not installed: skipped (pip install astra-toolbox)")
    table.keep(options, "python benchmarks/tomography.py tooth.h5")


if __name__ == "__main__":
    main()
