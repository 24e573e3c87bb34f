"""Tensor SAXS tomography: spherical-harmonic coefficients of every voxel, and what they say."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._console import Console
from .._result import Quantity, Result
from ..models import SaxsTensor
from ..operators.scattering import mean_intensity, orientation, relative_anisotropy
from ..scan import Scan
from ..solvers import TensorSolution, tensor_tomography

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "model": {"ell_max": 6, "volume_shape": None, "scattering": "automatic"},
    "solver": {"smoothness": None, "steps": 8, "rounds": 3, "held_out": 9},
}


def defaults(method: str) -> Mapping[str, Mapping[str, Any]]:
    """Every setting with its default."""
    return DEFAULTS


def reconstruct(scan: Scan, settings: Mapping[str, Mapping[str, Any]], console: Console, method: str) -> Result:
    """Scan to coefficients, mean, anisotropy and fibre direction, with the held-out residual as the judge."""
    shape = settings["model"]["volume_shape"]
    model = SaxsTensor.from_scan(scan, ell_max=settings["model"]["ell_max"], volume_shape=shape)
    solution = tensor_tomography(
        model.projector,
        scan.counts,
        weights=scan.weights,
        transmission=scan.transmission,
        console=console,
        **settings["solver"],
    )
    return _result(scan, solution, settings, method)


def _result(scan: Scan, solution: TensorSolution, settings: Mapping[str, Any], method: str) -> Result:
    a, axes, pixel = solution.coefficients, ("z", "y", "x"), scan.pixel_size
    mean = mean_intensity(a)
    # Anisotropy and direction of empty voxels are noise divided by nothing.
    scatters = mean > 0.1 * jnp.percentile(mean, 99)
    anisotropy = jnp.where(scatters, relative_anisotropy(a), jnp.nan)
    direction = jnp.where(scatters[..., None], orientation(a, settings["model"]["scattering"]), jnp.nan)
    quantities = {
        "mean": Quantity(np.asarray(mean), "", axes, pixel, "mean scattered intensity", "volume"),
        "anisotropy": Quantity(np.asarray(anisotropy), "", axes, pixel, "relative anisotropy", "volume"),
        "direction": Quantity(np.asarray(direction), "", (*axes, "xyz"), pixel, "fibre direction", "orientation"),
        "coefficients": Quantity(np.asarray(a), "", (*axes, "lm"), pixel, "spherical-harmonic coefficients", "data"),
    }
    quality = {"residual": solution.residual, "smoothness": solution.smoothness, "smoothness_path": solution.path}
    verdict = [f"smoothness {solution.smoothness:g}"]
    if len(solution.path):
        best = solution.path[:, 1].min()
        quality["held_out_residual"] = best
        verdict[0] += f", chosen on held-out views (mean square residual {best:.3f} of the first fit's noise)"
    return Result(method, quantities, quality, tuple(verdict), settings)
