"""Go through a tomogram slab by slab, from the file to the device to a file."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from .. import sharding, solvers, stream
from .._console import Console
from .._result import Result
from ..errors import InputError
from ..modality import Modality
from ..operators import ParallelProjector
from ..scan import Scan
from ._run import run

__all__ = ["middle_rows", "stream_slabs", "too_large"]


def middle_rows(height: int, rows: int) -> tuple[int, int]:
    """Pick some rows about the middle: first, and one behind the last."""
    first = max((height - rows) // 2, 0)
    return first, min(first + rows, height)


def too_large(views: int, frame: tuple[int, int], size: int) -> bool:
    """Tell whether sinogram and volume would take more than half of the free memory."""
    height, columns = frame
    # In float32, each three times over: data, work, result.
    return 12.0 * height * (views * columns + size * size) > 0.5 * stream.free_memory(jax.local_devices()[0])


def stream_slabs(
    modality: Modality,
    middle: Any,
    prepared: Any,
    scan: Scan,
    settings: Any,
    console: Console,
    writer: Callable[..., Any],
) -> Result:
    """Solve and judge the middle rows as any problem, then stream all rows through the same solver.

    **Arguments:** `middle`, the problem of the middle rows; `prepared`, a `Preparation`;
    `writer(shape, units, pixel_size, long_name)` makes the `SlabWriter` (see `diffrecon.stream`).

    **Raises:** `InputError` for solvers and geometries that need the whole volume at once.
    """
    solver, A = settings.solver, middle.model.projector
    if solver.name not in solvers.SLICE_SOLVERS or solver.stopping is not None or solver.weights != "none":
        raise InputError(f"slabs: {solver.name} with these settings needs the whole volume at once (solver.slab=0)")
    if not isinstance(A, ParallelProjector):
        raise InputError(
            "slabs: motion along rows, roll and pitch join the slices, and a time axis the volumes: reconstruct the "
            'volume at once (solver.slab=0), or align columns only (align.unknowns=["centre"])'
        )
    options: list[Any] = []
    result = run(_middle(modality, middle, options), scan, settings, Console(quiet=True))
    pixel = None if scan.pixel_size is None else float(scan.pixel_size)
    solve = solvers.slice_solver(options[0])
    report = stream.tomography_slabs(
        A,
        prepared.rows,
        writer((prepared.shape[1], *A.shape), middle.unit.units, pixel, middle.unit.long_name),
        slices=(0, prepared.shape[1]),
        solve=solve if options[0].name == "fbp" else stream.each_slice(solve),
        slab=solver.slab or None,
        scale=middle.unit.factor,
        mesh=sharding.slice_mesh(local=True),
        console=console,
        result=result,
    )
    return dataclasses.replace(result, verdict=(*result.verdict, report.message))


def _middle(modality: Modality, started: Any, options: list[Any]) -> Modality:
    """Make the modality begin with a problem that has been started, and keep the options that its solver chose."""

    class Middle(type(modality)):
        def start(self, scan: Scan, settings: Any, console: Console) -> Any:
            return started

        def quantities(self, problem: Any, scan: Scan, settings: Any) -> Any:
            options.append(problem.options)
            return super().quantities(problem, scan, settings)

    return Middle()
