"""`diffrecon selftest`, for a facility after an upgrade: environment, devices, packages, small reconstructions.

Their right values are known in closed form.

Each measurement is written and read as a file, so that readers and writers are tried, too.
"""

import argparse
import importlib.metadata
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_CORE = ("jax", "jaxlib", "numpy", "optax", "equinox", "jaxtyping", "h5py")
_OPTIONAL = {
    "matplotlib": "plot", "hdf5plugin": "filters", "xraydb": "materials", "tifffile": "tiff", "fabio": "edf",
    "zarr": "zarr", "xraylib": "fluorescence", "PyMca5": "fluorescence", "fisx": "fluorescence",
}  # fmt: skip


def selftest(options: argparse.Namespace) -> int:
    """Print one line a check; the exit code is 1 where one fails."""
    for line in environment():
        print(line)
    checks = [(name, lambda check=check: check()) for name, check in CHECKS.items()]
    if options.all:
        from .. import simulate

        checks += [(f"demo of {name}", lambda name=name: demo(name)) for name in simulate.methods()]
    failed = [name for name, check in checks if not _checked(name, check)]
    print(
        f"{len(checks) - len(failed)} of {len(checks)} checks are right"
        + (f"; not: {', '.join(failed)}" if failed else "")
    )
    return 1 if failed else 0


def _checked(name: str, check: Callable[[], tuple[bool, str]]) -> bool:
    start = time.monotonic()
    try:
        good, said = check()
    except Exception as error:  # the other checks are worth as much
        good, said = False, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    print(f"{'ok    ' if good else 'WRONG '} {name}: {said}, {time.monotonic() - start:.1f} s", flush=True)
    return good


def environment() -> list[str]:
    """Say versions, devices, optional packages and where compiled programs are kept."""
    import jax

    from .. import __version__
    from .._cache import keep_compiled_programs

    folder = keep_compiled_programs() or jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    devices = [f"{d.platform} {d.device_kind}" for d in jax.local_devices()]
    missing = [f"{name} (diffrecon[{extra}])" for name, extra in _OPTIONAL.items() if not _version(name)]
    there = [f"{name} {_version(name)}" for name in _OPTIONAL if _version(name)]
    return [
        f"diffrecon {__version__}, Python {platform.python_version()}, {platform.platform()}",
        ", ".join(f"{name} {_version(name) or 'missing'}" for name in _CORE),
        f"devices: {', '.join(devices)}; {os.cpu_count()} processors",
        f"optional packages: {', '.join(there) or 'none'}" + (f"; not there: {', '.join(missing)}" if missing else ""),
        f"compiled programs are kept in {folder}" if folder else "compiled programs are not kept (DIFFRECON_CACHE)",
    ]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


# ---------------------------------------------------------------------------------------------------- reconstructions
def _through_files(scan: Any, settings: dict[str, Any]) -> Any:
    """Write a scan, read it, reconstruct it, write the result and read that."""
    from .. import io, recipes

    with tempfile.TemporaryDirectory() as folder:
        io.write_scan(Path(folder) / "scan.h5", scan)
        read = io.open_scan(Path(folder) / "scan.h5")
        result = recipes.reconstruct(read, scan.method, settings)
        return io.read_result(io.write(Path(folder) / "result.h5", result, read))


def tomography() -> tuple[bool, str]:
    """Reconstruct a disc, whose line integrals are twice the root of `r^2 - s^2`."""
    from .. import ParallelBeam, Scan

    angles, columns, radius, inside = np.linspace(0, np.pi, 48, endpoint=False), np.arange(32) - 15.5, 10.0, 0.02
    lines = inside * 2 * np.sqrt(np.clip(radius**2 - columns**2, 0, None))
    frames = np.broadcast_to(10000 * np.exp(-lines), (48, 2, 32)).astype(np.float32)
    scan = Scan.from_arrays(
        frames, angles=angles, flats=np.full((2, 2, 32), 10000, np.float32), method="tomography", rotation_centre=15.5,
        geometry=ParallelBeam(detector_pixel=1e-6, energy=20e3),
    )  # fmt: skip
    found = float(_through_files(scan, {})["volume"][0, 12:20, 12:20].mean()) * 1e-6
    return abs(found / inside - 1) < 0.02, f"{found:.5f} where {inside} is right"


def k_edge() -> tuple[bool, str]:
    """Tell two materials apart whose attenuation is given, without noise."""
    from .. import ParallelBeam, Scan

    table, truth = np.array([[100.0, 40.0], [300.0, 38.0]]), np.array([1e-3, 4e-3])
    light = 1e4 * np.exp(-table @ truth)
    scan = Scan.from_arrays(
        np.broadcast_to(light[:, None, None], (2, 8, 8)).astype(np.float32), method="k-edge", flux=1e4,
        geometry=ParallelBeam(1e-6, np.array([8250.0, 8420.0])),
    )  # fmt: skip
    result = _through_files(
        scan, {"model": {"materials": ("a", "b"), "attenuation": tuple(map(tuple, table.tolist()))}}
    )
    found = np.array([result[name].mean() for name in ("a", "b")])
    return bool(
        np.allclose(found, truth, rtol=0.01)
    ), f"{found[0]:.5f} and {found[1]:.5f} where 0.001 and 0.004 are right"


def diffraction() -> tuple[bool, str]:
    """Find a positive object in its noiseless pattern."""
    from .. import FarField, Scan

    truth = np.zeros((32, 32))
    truth[12:19, 11:20] = 1 + np.arange(9) / 9
    truth[12:14, 11:14] = 0
    pattern = np.fft.fftshift(abs(np.fft.fft2(truth)) ** 2)
    scan = Scan.from_arrays(
        (pattern * 1e7 / pattern.sum()).astype(np.float32)[None], method="cdi", extra={"dc": "centre"},
        geometry=FarField(32, 8000.0, 1.0, 55e-6),
    )  # fmt: skip
    settings = {"model": {"object": "positive"}, "solver": {"starts": 4, "steps": 150, "refine": 20}}
    figure = float(_through_files(scan, settings).quality["held_out_residual"])
    return figure < 0.1, f"pixels never used are predicted to {figure:.4f} (below 0.1 is right)"


def likelihood() -> tuple[bool, str]:
    """Minimise on the device: `minimise`, FFTs and complex gradients, against the closed form."""
    import jax.numpy as jnp
    import optax

    from ..solvers import minimise

    target = jnp.asarray(np.exp(1j * np.arange(64).reshape(8, 8)), jnp.complex64)
    cost = lambda x, batch: jnp.sum(jnp.abs(jnp.fft.fft2(x - target, norm="ortho")) ** 2)
    solution = minimise(cost, jnp.zeros((8, 8), jnp.complex64), optimiser=optax.sgd(0.2), steps=50)
    off = float(jnp.max(jnp.abs(solution.value - target)))
    return off < 1e-4, f"off by {off:.1e}"


def demo(name: str) -> tuple[bool, str]:
    """Run a whole demo (minutes) and say how it was judged."""
    import contextlib
    import io as text

    from ._simulate import demo as run

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(text.StringIO()) as said:
        code = run(argparse.Namespace(method=name, output=folder, seed=0))
    lines = said.getvalue().strip().splitlines()
    failed = [line for line in lines if "FAILED" in line]
    return code == 0 and not failed, (failed or lines)[-1].strip()


CHECKS: dict[str, Callable[[], tuple[bool, str]]] = {
    "minimise": likelihood, "tomography": tomography, "k-edge": k_edge, "coherent diffraction": diffraction,
}  # fmt: skip
