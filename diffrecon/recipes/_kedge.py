"""K-edge subtraction: areal densities of named materials from radiographs at two or more energies.

The likelihood of the counts is solved pixel by pixel (Fisher scoring); a penalty on edges joins the pixels. Subtraction
of logarithms, `solver.name = "direct"`, is its limit for many photons.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from .. import losses, penalties, physics, quality
from .._console import Console
from .._model import Batch
from .._result import Quantity, Result
from ..errors import InputError, nearest
from ..models import KEdge
from ..models._kedge import attenuation_table, check_table
from ..scan import Scan
from ..solvers import minimise

_DEFAULTS: dict[str, dict[str, Any]] = {
    "model": {
        "materials": None,  # compositions ["Ni", "SiO2"], or named: {nickel = "Ni", glass = "SiO2"}
        "energies": None,  # of the views, ["8.25 keV", "8.42 keV"]; the file's by default
        # Mass attenuation coefficients [cm^2/g], a row an energy and a column a material, instead of the tables: near
        # an edge measured ones are better.
        "attenuation": None,
    },
    "solver": {
        "name": "likelihood",  # direct: logarithms and a weighted 2 x 2 (or least-squares) solve; likelihood: Poisson
        "steps": 12,  # of Fisher scoring
        "tv": 0.0,  # weight of total variation, in units of each material's error bar; about 0.3 to begin
        "positive": False,  # with tv: areal densities below zero cost
        "tv_steps": 60,  # of L-BFGS
    },
    "quality": {"seed": 0},
}
_SOLVERS = ("likelihood", "direct")


def defaults(method: str) -> Mapping[str, Mapping[str, Any]]:
    """Every setting by section."""
    return _DEFAULTS


def reconstruct(scan: Scan, settings: Mapping[str, Mapping[str, Any]], console: Console, method: str) -> Result:
    """Areal densities [g/cm^2] with error bars from radiographs at several energies."""
    chosen = settings["solver"]
    if chosen["name"] not in _SOLVERS:
        raise InputError(f"solver.name: k-edge has no solver {chosen['name']!r}{nearest(chosen['name'], _SOLVERS)}")
    energies = _energies(scan, settings["model"]["energies"])
    materials = _materials(scan, settings["model"]["materials"])
    table = _table(materials, energies, settings["model"]["attenuation"])
    condition = check_table(table, list(materials), list(energies))
    model, lines = _model(scan, table)
    counts = np.asarray(scan.counts)
    mask = np.ones(scan.frame_shape, bool) if scan.mask is None else np.asarray(scan.mask, bool)
    mask = mask & np.asarray(jnp.all(model.flats > 0, 0) & jnp.ones(mask.shape, bool))
    for energy, row in zip(energies, table, strict=True):
        told = ", ".join(f"{name} {value:.4g}" for name, value in zip(materials, row, strict=True))
        console.say(f"{energy / 1e3:.5g} keV: mu/rho {told} cm^2/g")
    model = model.replace(areal=direct(model, counts))
    history = np.zeros(0)
    if chosen["name"] == "likelihood":
        model = model.replace(areal=likelihood(model, jnp.asarray(counts), int(chosen["steps"])))
        if chosen["tv"]:
            model, history = penalised(model, counts, mask, chosen, console)
    lines = [_noise_line(condition), *lines]
    return _result(method, settings, scan, model, materials, mask, counts, history, lines)


# ------------------------------------------------------------------------------------------ what was measured
def _energies(scan: Scan, given: Any) -> np.ndarray:
    held = None if scan.geometry is None else scan.geometry.energy
    if given is None and held is None:
        raise InputError(
            f'{scan.name}: k-edge needs the energy of every view: --set \'model.energies=["8.25 keV", "8.42 keV"]\''
        )
    if isinstance(given, str):
        given = given.split(",")
    values = held if given is None else [_energy(e) for e in np.atleast_1d(np.asarray(given, object))]
    energies = np.atleast_1d(np.asarray(values, float))
    if energies.shape != (scan.views,):
        raise InputError(
            f"{scan.name}: {energies.size} energies for {scan.views} views; one for each is expected (model.energies)"
        )
    return energies


def _energy(value: Any) -> float:
    number = physics.quantity(value.strip() if isinstance(value, str) else value, "eV", "model.energies")
    return number if isinstance(value, str) and number > 200 else physics.plausible_energy(number)[0]


def _materials(scan: Scan, given: Any) -> dict[str, str]:
    if given is None:
        raise InputError('k-edge: which materials? For example --set \'model.materials=["Ni", "SiO2"]\'')
    if isinstance(given, str):
        given = [part for part in re.split(r"[;,]\s*", given) if part]
    named = dict(given) if isinstance(given, Mapping) else {str(m).partition(",")[0].strip(): m for m in given}
    if not named or not isinstance(given, Mapping) and len(named) < len(given):
        raise InputError(f"model.materials: {given!r}: name one or more materials, each once")
    return {re.sub(r"\W+", "_", str(name)): str(composition) for name, composition in named.items()}


def _table(materials: Mapping[str, str], energies: np.ndarray, given: Any) -> np.ndarray:
    if given is None:
        return attenuation_table(materials, list(energies))
    try:
        table = np.asarray(given, float)
    except (TypeError, ValueError):
        table = np.zeros(0)
    if table.shape != (len(energies), len(materials)):
        raise InputError(
            f"model.attenuation: expected {len(energies)} rows (energies) of {len(materials)} numbers "
            f"(materials) in cm^2/g, not {given!r}"
        )
    return table


def _model(scan: Scan, table: np.ndarray) -> tuple[KEdge, list[str]]:
    """Zero areal densities behind the scan's beam; flats in groups of one energy where their number allows it."""
    dark = np.zeros((1, 1)) if scan.darks is None else np.asarray(scan.darks, float).mean(0)
    lines = []
    if scan.flats is not None:
        flats = np.asarray(scan.flats, float)
        if len(flats) % scan.views == 0:
            beam = flats.reshape(scan.views, -1, *flats.shape[1:]).mean(1) - dark
        else:
            beam = np.broadcast_to(flats.mean(0) - dark, (scan.views, *scan.frame_shape))
            lines.append(f"{len(flats)} flats do not share out among {scan.views} views: their mean serves all")
    elif scan.flux is not None:
        beam = np.full((scan.views, 1, 1), float(scan.flux))
    else:
        raise InputError(
            f"{scan.name}: k-edge needs the empty beam of every energy: data.flats, or data.flux counts a pixel"
        )
    if not (beam > 0).any():
        raise InputError(f"{scan.name}: the empty beam is nowhere above the dark")
    cast = lambda a: jnp.asarray(a, jnp.float32)
    zero = cast(np.zeros((table.shape[1], *scan.frame_shape)))
    return KEdge(zero, cast(table), cast(np.maximum(beam, 0)), cast(dark)), lines


# ------------------------------------------------------------------------------------------ solve
def direct(model: KEdge, counts: Any) -> Float[Array, "material y x"]:
    """Logarithms of all energies, solved for the materials pixel by pixel with the weights of their photons.

    With as many energies as materials it is the exact inverse of the 2 x 2 (n x n) table, whatever the weights.
    """
    seen = jnp.maximum(jnp.asarray(counts).astype(model.areal.dtype) - model.darks, 0.5)
    flats = jnp.maximum(model.flats, 1e-3)
    depth = -jnp.log(seen / flats)
    table = np.asarray(model.attenuation, float)
    if table.shape[0] == table.shape[1]:
        inverse = jnp.asarray(np.linalg.inv(table), depth.dtype)
        return jnp.einsum("mv,vyx->myx", inverse, depth, precision="highest")
    weight = seen**2 / (seen + model.darks)
    normal = jnp.einsum("vyx,vm,vn->yxmn", weight, model.attenuation, model.attenuation, precision="highest")
    right = jnp.einsum("vyx,vm->yxm", weight * depth, model.attenuation, precision="highest")
    return jnp.moveaxis(_solved(normal, right), -1, 0)


@partial(jax.jit, static_argnames=("steps",))
def likelihood(model: KEdge, counts: Float[Array, "view y x"], steps: int = 12) -> Float[Array, "material y x"]:
    """The areal densities of largest Poisson likelihood, pixel by pixel, by Fisher scoring from the model's own.

    A step is `F^-1 gradient`; steps of more than one unit of optical depth are cut, so that pixels without a photon
    stay finite.
    """
    views = jnp.arange(counts.shape[0])
    n = counts.astype(model.areal.dtype)

    def step(areal: Array, _: Any) -> tuple[Array, None]:
        now = model.replace(areal=areal)
        signal = now.signal(views)
        pull = signal * (1 - n / jnp.maximum(signal + model.darks, 1e-3))
        gradient = jnp.einsum("vyx,vm->yxm", pull, model.attenuation, precision="highest")
        move = jnp.moveaxis(_solved(now.information(views), gradient), -1, 0)
        depth = jnp.einsum("vm,myx->vyx", model.attenuation, move)
        return areal + move / jnp.maximum(jnp.max(jnp.abs(depth), 0), 1.0), None

    return jax.lax.scan(step, model.areal, length=steps)[0]


def _solved(matrix: Float[Array, "y x m m"], right: Float[Array, "y x m"]) -> Float[Array, "y x m"]:
    """Symmetric systems of every pixel, scaled to a diagonal of one first; zero where nothing was seen."""
    size = jnp.sqrt(jnp.maximum(jnp.diagonal(matrix, axis1=-2, axis2=-1), 1e-20))
    unit = matrix / (size[..., :, None] * size[..., None, :]) + 1e-7 * jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    return jnp.linalg.solve(unit, (right / size)[..., None])[..., 0] / size


def error_bars(model: KEdge, views: int) -> Float[Array, "material y x"]:
    """Standard deviation of every areal density by photon noise [g/cm^2]: the root of the diagonal of F^-1."""
    matrix = model.information(jnp.arange(views))
    size = jnp.sqrt(jnp.maximum(jnp.diagonal(matrix, axis1=-2, axis2=-1), 1e-20))
    inverse = jnp.linalg.inv(matrix / (size[..., :, None] * size[..., None, :]))
    return jnp.moveaxis(jnp.sqrt(jnp.maximum(jnp.diagonal(inverse, axis1=-2, axis2=-1), 0)) / size, -1, 0)


class _Whitened(eqx.Module):
    """Areal densities as `basis z`, so that the data have curvature one in z and the materials do not fight."""

    z: Float[Array, "material y x"]
    basis: Float[Array, "material material"]
    spread: Float[Array, "material 1 1"]
    model: KEdge

    def at(self) -> KEdge:
        return self.model.replace(areal=jnp.einsum("mn,nyx->myx", self.basis, self.z, precision="highest"))


def penalised(
    model: KEdge, counts: np.ndarray, mask: np.ndarray, chosen: Mapping[str, Any], console: Console
) -> tuple[KEdge, np.ndarray]:
    """Poisson likelihood with total variation of each material in units of its error bar, by L-BFGS."""
    matrix = np.asarray(model.information(jnp.arange(len(counts))), float)[mask].mean(0)
    basis = np.linalg.inv(np.linalg.cholesky(matrix)).T
    spread = np.median(np.asarray(error_bars(model, len(counts)), float)[:, mask], axis=1)[:, None, None]
    start = np.einsum("mn,nyx->myx", np.linalg.inv(basis), np.asarray(model.areal, float))
    cast = lambda a: jnp.asarray(a, jnp.float32)
    problem = _Whitened(cast(start), cast(basis), cast(spread), model)
    solution = minimise(
        _Cost(float(chosen["tv"]), bool(chosen["positive"])),
        problem,
        {"counts": counts, "mask": mask},
        optax.lbfgs(memory_size=10),
        steps=int(chosen["tv_steps"]),
        unknowns=("z",),
        chunk=20,
        console=console,
        label="k-edge, total variation: step",
    )
    return solution.value.at(), solution.history


class _Cost:
    """Negative log-likelihood a pixel and energy, plus what is known beforehand."""

    def __init__(self, tv: float, positive: bool):
        self.tv, self.positive = tv, positive

    def __call__(self, problem: _Whitened, batch: Batch) -> Array:
        model = problem.at()
        scaled = model.areal / problem.spread
        cost = losses.poisson(model(batch.views), batch.counts, batch.mask)
        share = self.tv * scaled.shape[0] / model.flats.shape[0]
        cost = cost + share * penalties.tv(scaled, eps=0.1, axes=(-2, -1))
        return cost + jnp.mean(jnp.minimum(scaled, 0) ** 2) if self.positive else cost


# ------------------------------------------------------------------------------------------ judge
def _noise_line(condition: float) -> str:
    return f"the energies tell the materials apart with a condition of {condition:.3g}" + (
        ": noise grows by about as much; energies closer to an edge, on both sides, would help"
        if condition > 30
        else ""
    )


def _result(
    method: str,
    settings: Any,
    scan: Scan,
    model: KEdge,
    materials: Mapping[str, str],
    mask: np.ndarray,
    counts: np.ndarray,
    history: np.ndarray,
    lines: list[str],
) -> Result:
    areal = np.where(mask, np.asarray(model.areal), np.nan)
    bars = np.where(mask, np.asarray(error_bars(model, len(counts))), np.nan)
    pixel = None if scan.pixel_size is None else float(np.mean(scan.pixel_size))
    image = lambda values, label: Quantity(values, "g/cm2", ("y", "x"), pixel, label, "image")
    quantities = {name: image(areal[m], f"areal density of {c}") for m, (name, c) in enumerate(materials.items())}
    quantities |= {f"{n}_error": image(bars[m], f"error bar of {c}") for m, (n, c) in enumerate(materials.items())}
    figures: dict[str, Any] = {"history": history} if history.size else {}
    prediction = np.asarray(model(jnp.arange(len(counts))), float)
    figures["deviance"] = np.array([quality.deviance(n, p, mask) for n, p in zip(counts, prediction, strict=True)])
    for m, name in enumerate(materials):
        figures[f"{name}_mean"] = float(np.nanmean(areal[m]))
        lines.append(
            f"{name}: mean {np.nanmean(areal[m]):.4g} g/cm^2, error bar of a pixel "
            f"{np.nanmedian(bars[m]):.2g} g/cm^2 (photon noise" + (", before total variation)" if history.size else ")")
        )
    if len(counts) > len(materials):
        free = len(counts) / (len(counts) - len(materials))
        lines.append(
            f"Poisson deviance a pixel over what is left by the fit: {figures['deviance'].mean() * free:.3f}; "
            "well above 1 a material is missing, or a table is wrong"
        )
    dark = float((np.asarray(scan.counts)[:, mask] <= np.mean(np.asarray(model.darks))).mean())
    if dark > 1e-3:
        lines.append(f"{dark:.2%} of the values hold no light above the dark: thick pixels are lower bounds")
    return Result(method, quantities, figures, tuple(lines), settings)
