"""Tomography in a parallel beam: preparation, rotation centre, geometry, a direct or an iterative solve, a verdict.

`reconstruct` holds everything in memory; `reconstruct_slabs` goes through the volume slab by slab, from file to device
to file; `preview` looks at one slice with three rotation centres.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import physics, prepare, quality, sharding, solvers, stream
from .._console import Console
from .._result import Quantity, Result
from ..errors import InputError, nearest
from ..operators import ParallelProjector
from ..operators.detector import AlignedProjector
from ..scan import Scan
from ..solvers.alignment import Alignment, align
from ._slices import SOLVER, Slices, check_slabs, check_solver, padding, slab_solver, solve_counts, solve_slices

DEFAULTS: dict[str, dict[str, Any]] = {
    "prepare": {
        **prepare.DEFAULTS,
        "centre_search": None,  # [first, last] column; the middle half of the detector by default
        "delta_beta": None,  # phase contrast: delta/beta of the sample, for Paganin's filter before the logarithm
    },
    "align": {
        "unknowns": [],  # of the geometry: centre, shifts, roll, pitch, angles, magnification, drift, wobble
        "rows": 64,  # detector rows that are used for it, about the middle
    },
    "model": {
        "size": None,  # pixels of a slice along x and y; the detector's columns by default
        "quantity": "attenuation",  # attenuation, delta, density, electron-density
        "material": None,  # composition of the sample, such as "SiO2, 2.2" (density, dose; needs xraydb)
    },
    "loss": {"function": None},  # solver.name = "minimise": a function (model, batch) -> scalar
    "optimiser": {"learning_rate": 0.03},  # of it, in units of the volume's range
    "solver": {
        **SOLVER,
        "slab": None,  # slices at a time; by default what the memory holds, 0 = all at once
    },
    "quality": {
        "halves": False,  # resolution: shell correlation of even and odd views
        "deviation": "none",  # error bars: closed-form (fbp), bootstrap
        "draws": 20,  # of the bootstrap
        "seed": 0,
    },
}


def defaults(method: str) -> Mapping[str, Mapping[str, Any]]:
    """Every setting by section."""
    return DEFAULTS


def reconstruct(scan: Scan, settings: Mapping[str, Mapping[str, Any]], console: Console, method: str) -> Result:
    """A volume slice by detector row, all of it in memory."""
    start = _prepared(scan, settings, console)
    rows = np.asarray(start.rows(0, start.height))
    geometry = _geometry(start._replace(rows=lambda first, last: rows[:, first:last]), settings, console)
    sinogram = jnp.asarray(rows)
    variance = _variance(scan, 0, rows, settings)
    if settings["solver"]["name"] == "poisson":
        solved = solve_counts(geometry.projector, *_counts(scan, start, settings), settings["solver"], console)
    else:
        solved = solve_slices(geometry.projector, sinogram, settings, console, variance=variance)
    if not bool(jnp.all(jnp.isfinite(solved.volume))):
        raise InputError(f"{scan.name}: the reconstruction is not finite; check the flats and darks")
    unit = _unit(scan, settings)
    judged = _judged(scan, settings, start, geometry, sinogram, variance, solved, unit)
    volume = np.asarray(solved.volume)[_kept(solved.volume.shape[0], start.height)] * np.float32(unit.factor)
    quantities = {"volume": Quantity(volume, unit.units, ("z", "y", "x"), _pixel(scan), unit.long_name, "volume")}
    return Result(method, {**quantities, **judged.quantities}, judged.figures, judged.lines, settings)


# ---------------------------------------------------------------------------------------------------- prepare
class _Start(NamedTuple):
    """What the frames give: prepared rows, their angles, what was done."""

    preparation: prepare.Preparation
    rows: Callable[[int, int], Any]
    angles: np.ndarray
    columns: int
    height: int


def _prepared(scan: Scan, settings: Mapping[str, Mapping[str, Any]], console: Console) -> _Start:
    check_solver(settings["solver"])
    _check(settings)
    wanted = {key: settings["prepare"][key] for key in prepare.DEFAULTS}
    preparation = prepare.Preparation(scan, wanted)
    angles = preparation.angles
    if angles is None:
        angles = scan.require("angles", "the rotation angle of each view", "/path/of/angles")
    _, height, columns = preparation.shape
    angles = np.asarray(angles)
    turns = np.ptp(angles) > 4 * np.pi  # a sample that goes on turning: directions repeat
    start = _Start(preparation, preparation.rows, np.mod(angles, 2 * np.pi) if turns else angles, columns, height)
    return start if settings["prepare"]["delta_beta"] is None else _with_phase(start, scan, settings)


def _check(settings: Mapping[str, Mapping[str, Any]]) -> None:
    known = ("attenuation", "delta", "density", "electron-density")
    said = settings["model"]["quantity"]
    if said not in known:
        raise InputError(f"model.quantity: {said!r} is not known{nearest(said, known)}")
    phase, material = settings["prepare"]["delta_beta"], settings["model"]["material"]
    if said == "delta" and phase is None:
        raise InputError("model.quantity=delta needs phase contrast: give prepare.delta_beta of the sample")
    if said == "density" and material is None:
        raise InputError('model.quantity=density needs the composition: give model.material, such as "SiO2, 2.2"')
    if said == "electron-density" and material is None and phase is None:
        raise InputError(
            'model.quantity=electron-density needs model.material, such as "SiO2, 2.2", or prepare.delta_beta'
        )
    kinds = ("none", "closed-form", "bootstrap")
    kind = settings["quality"]["deviation"]
    if kind not in kinds:
        raise InputError(f"quality.deviation: {kind!r} is not known{nearest(kind, kinds)}")
    if kind == "closed-form" and settings["solver"]["name"] != "fbp":
        raise InputError("quality.deviation=closed-form is that of solver.name=fbp; take bootstrap")


def _with_phase(start: _Start, scan: Scan, settings: Mapping[str, Mapping[str, Any]]) -> _Start:
    """Paganin's filter on whole frames, before the logarithm; it sees some rows beyond those that are asked for."""
    place = scan.require("geometry", "the geometry (energy, distance, pixel)", "a file with geometry")
    numbers = {"energy": place.wavelength, "sample_to_detector": place.distance, "detector_pixel": place.pixel_size}
    for name, value in numbers.items():
        if value is None:
            raise InputError(f"{scan.name}: prepare.delta_beta needs geometry.{name}")
    phase = solvers.PhaseFilter(
        float(place.pixel_size),
        float(place.wavelength),
        float(place.distance),
        float(settings["prepare"]["delta_beta"]),
    ).checked()

    def rows(first: int, last: int) -> Array:
        low, high = max(first - phase.reach, 0), min(last + phase.reach, start.height)
        transmission = jnp.exp(-jnp.asarray(start.rows(low, high)))
        return phase.line_integrals(transmission)[:, first - low : last - low]

    return start._replace(rows=rows)


# ---------------------------------------------------------------------------------------------------- geometry
class _Geometry(NamedTuple):
    """Where the axis is, and what was found out about it."""

    projector: Any  # ParallelProjector, or AlignedProjector where more than columns move
    centre: float
    lines: tuple[str, ...]
    alignment: Alignment | None = None


def _geometry(start: _Start, settings: Mapping[str, Mapping[str, Any]], console: Console) -> _Geometry:
    scan, size = start.preparation.scan, settings["model"]["size"] or start.columns
    if scan.rotation_centre is not None and start.preparation.rotation_centre is None:
        centre, said = float(scan.rotation_centre), f"rotation centre {scan.rotation_centre:.2f} as given"
    else:
        search = settings["prepare"]["centre_search"]
        found = start.preparation.find_rotation_centre(search=tuple(search) if search else None)
        centre, said = found.centre, found.message
    window = scan.window
    if window is not None and start.preparation.rotation_centre is None:
        said += f"; column {window.whole_column(centre):.2f} of the whole detector"
    for line in (*start.preparation.messages, said):
        console.say(line)
    shape = (size, size)
    if not settings["align"]["unknowns"]:
        return _Geometry(ParallelProjector(start.angles, shape, start.columns, centre=centre), centre, (said,))
    first, last = _middle(start.height, settings["align"]["rows"])
    found = align(
        start.rows(first, last),
        start.angles,
        unknowns=tuple(settings["align"]["unknowns"]),
        centre=centre,
        size=size,
        console=console,
    )
    for line in found.messages:
        console.say(line)
    return _Geometry(_projector(found, start, shape), float(found.motion.centre), (said, *found.messages), found)


def _middle(height: int, rows: int) -> tuple[int, int]:
    first = max((height - int(rows)) // 2, 0)
    return first, min(first + int(rows), height)


def _projector(found: Alignment, start: _Start, shape: tuple[int, int]) -> Any:
    """The fast projector where the picture moves along columns only."""
    geometry, views = found.motion, start.angles.size
    flat = geometry.known().keys() <= {"centre", "shifts", "drift"}
    moves = np.asarray(geometry.offsets(views))
    if flat and (start.height == 1 or not np.abs(moves[:, 0]).max() > 0):
        return ParallelProjector(start.angles, shape, start.columns, centre=geometry.centre, shifts=moves[:, 1])
    return AlignedProjector(start.angles, shape, (start.height, start.columns), geometry)


# ---------------------------------------------------------------------------------------------------- noise
def _beam(scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    """Mean flat and mean dark [counts]."""
    dark = np.zeros(scan.frame_shape) if scan.darks is None else np.asarray(scan.darks, float).mean(0)
    return np.asarray(scan.flats, float).mean(0), dark


def _variance(
    scan: Scan, first: int, rows: np.ndarray, settings: Mapping[str, Mapping[str, Any]]
) -> Float[Array, "view z u"] | None:
    """Of the line integrals of detector rows from `first` on, by photon noise: the detector is taken to count."""
    wanted = settings["solver"]["weights"] == "photons" or settings["quality"]["deviation"] == "closed-form"
    if not wanted:
        return None
    if scan.flats is None or rows.shape[2] != scan.frame_shape[1]:
        raise InputError(f"{scan.name}: photon noise needs the flats (data.flats) of views that were not joined")
    flat, dark = (frame[first : first + rows.shape[1]] for frame in _beam(scan))
    counts = (flat - dark) * np.exp(-rows) + dark
    variance = quality.line_integral_variance(counts, flat, dark, len(scan.flats))
    return jnp.asarray(variance, jnp.float32)


def _counts(scan: Scan, start: _Start, settings: Mapping[str, Mapping[str, Any]]) -> tuple[Any, np.ndarray, np.ndarray]:
    """Raw counts of all views, the empty beam less the dark, the dark: what the likelihood of the counts wants."""
    plain = {key: settings["prepare"][key] for key in prepare.DEFAULTS if key not in ("clip", "bad_pixels", "flats")}
    changed = [key for key, value in plain.items() if value != prepare.DEFAULTS[key]]
    if scan.flats is None or changed or start.columns != scan.frame_shape[1]:
        raise InputError(
            f"{scan.name}: solver.name=poisson works on the counts as they are: it needs flats, and no "
            f"prepare.{changed[0] if changed else 'full_turn'}"
        )
    flat, dark = _beam(scan)
    return np.asarray(scan.counts), np.maximum(flat - dark, 0), dark


# ---------------------------------------------------------------------------------------------------- quantities
class _Unit(NamedTuple):
    """What the values of a volume [1/pixel] are multiplied by, and what they are then."""

    factor: float
    units: str
    long_name: str


def _pixel(scan: Scan) -> float | None:
    return None if scan.pixel_size is None else float(scan.pixel_size)


def _unit(scan: Scan, settings: Mapping[str, Mapping[str, Any]]) -> _Unit:
    said, material, pixel = settings["model"]["quantity"], settings["model"]["material"], _pixel(scan)
    if said == "attenuation":
        return _Unit(1 / (pixel or 1.0), "1/pixel" if pixel is None else "1/m", "attenuation")
    energy = getattr(scan.geometry, "energy", None)
    if pixel is None or energy is None:
        raise InputError(f"{scan.name}: model.quantity={said} needs geometry.detector_pixel and geometry.energy")
    energy, ratio = float(energy), settings["prepare"]["delta_beta"]
    wavelength = float(physics.energy_to_wavelength(energy))
    delta = None if ratio is None else wavelength / (4 * np.pi) * float(ratio) / pixel
    if said == "delta":
        assert delta is not None
        return _Unit(delta, "", "refractive index decrement")
    if said == "electron-density" and delta is not None:
        return _Unit(1e-30 * float(physics.electron_density(delta, wavelength)), "1/angstrom^3", "electron density")
    density = (
        physics.density_from_attenuation(1 / pixel, material, energy)
        if delta is None
        else physics.density_from_delta(delta, material, energy)
    )
    if said == "density":
        return _Unit(float(density), "g/cm^3", f"density as {material}")
    electrons = 1e-30 * float(physics.electrons_from_density(density, material))
    return _Unit(electrons, "1/angstrom^3", "electron density")


# ---------------------------------------------------------------------------------------------------- verdict
class _Judged(NamedTuple):
    """What is said of a volume besides itself."""

    quantities: dict[str, Quantity]
    figures: dict[str, Any]
    lines: tuple[str, ...]


def _judged(scan, settings, start, geometry, sinogram, variance, solved: Slices, unit: _Unit, where="") -> _Judged:
    """Residual, resolution, error bars, dose: of all rows, or of some, which `where` then names."""
    projector, pixel, views, name = geometry.projector, _pixel(scan), start.angles.size, settings["solver"]["name"]
    residual = float(jnp.linalg.norm(projector(solved.volume) - sinogram) / jnp.linalg.norm(sinogram))
    quantities = {
        "sinogram": Quantity(
            np.asarray(sinogram[:, sinogram.shape[1] // 2]),
            "",
            ("view", "x"),
            pixel,
            "line integrals of the middle row",
            "sinogram",
        )
    }
    figures: dict[str, Any] = {"relative_residual": residual, "rotation_centre": geometry.centre, **solved.curves}
    if solved.history.size:
        figures["history"] = solved.history
    lines = [
        *start.preparation.messages,
        *geometry.lines,
        *solved.messages,
        f"relative residual |A x - b| / |b| = {residual:.4f}{where} ({name}, {views} views)",
    ]
    if geometry.alignment is not None:
        figures |= _found(geometry.alignment, views)
    repeat = partial(_repeat, projector, sinogram, variance, settings)
    if settings["quality"]["halves"]:
        correlation = quality.even_odd(
            lambda chosen, _: repeat(np.asarray(chosen)), np.arange(views), start.angles, pixel_size=pixel
        )
        figures["shell_correlation"] = correlation.as_quality()
        lines.append(f"even against odd views{where}: {correlation}")
    if settings["quality"]["deviation"] != "none":
        kept = _kept(solved.volume.shape[0], sinogram.shape[1])
        bars = _deviation(projector, variance, settings, repeat, views)[kept] * unit.factor
        quantities["deviation"] = Quantity(
            bars.astype(np.float32), unit.units, ("z", "y", "x"), pixel, "standard deviation", "volume"
        )
        lines.append(f"error bar: median standard deviation{where} {np.median(bars):.3g} {unit.units}".rstrip())
    lines += _dose(scan, settings, sinogram, pixel) + _few_views(start, name)
    return _Judged(quantities, figures, tuple(lines))


def _kept(slices: int, rows: int) -> slice:
    """The slices that the detector's rows see: a volume that moves along rows has more."""
    first = (slices - rows) // 2
    return slice(first, first + rows)


def _repeat(A, sinogram, variance, settings, views: np.ndarray) -> np.ndarray:
    """The volume from some of the views, by the same settings."""
    part = None if variance is None else variance[views]
    solved = solve_slices(A.subset(views), sinogram[views], settings, Console(quiet=True), variance=part)
    return np.asarray(solved.volume)


def _deviation(A, variance, settings, repeat, views: int) -> np.ndarray:
    if settings["quality"]["deviation"] == "closed-form":
        return np.asarray(
            solvers.fbp_deviation(A, variance, filter=settings["solver"]["filter"], cutoff=settings["solver"]["cutoff"])
        )
    chosen = settings["quality"]
    return np.asarray(quality.bootstrap_views(repeat, views, draws=chosen["draws"], seed=chosen["seed"]).deviation)


def _found(alignment: Alignment, views: int) -> dict[str, Any]:
    """The geometry that was found, as figures."""
    geometry = alignment.motion
    figures = {f"geometry_{n}": np.asarray(v) for n, v in geometry.known().items() if n != "shifts"}
    return figures | {"geometry_shifts": np.asarray(geometry.offsets(views))}


def _dose(scan: Scan, settings, sinogram: Array, pixel: float | None) -> list[str]:
    """Dose and the smallest void seen, where the file and the user say enough; the detector is taken to count."""
    material, energy = settings["model"]["material"], getattr(scan.geometry, "energy", None)
    if material is None or energy is None or pixel is None or scan.flats is None:
        return []
    if physics.material(material).density is None:
        return []
    flat, dark = _beam(scan)
    seen = np.asarray(jnp.mean(sinogram, axis=(0, 1)))
    diameter = pixel * max(1, int((seen > 0.05 * seen.max()).sum()))
    return [physics.dose_statement(float((flat - dark).mean()), scan.views, pixel, material, float(energy), diameter)]


def _few_views(start: _Start, name: str) -> list[str]:
    needed = int(np.ceil(np.pi / 2 * start.columns))
    if start.angles.size >= needed / 2 or name != "fbp":
        return []
    return [
        f"{start.angles.size} views where about {needed} (pi/2 columns) sample every direction: expect streaks, or "
        "try solver.name=fista"
    ]


# ---------------------------------------------------------------------------------------------------- slabs
def wants_slabs(scan: Scan, settings: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the volume goes through in slabs: as said, or where it would take more than half of the free memory."""
    slab = settings["solver"]["slab"]
    if slab is not None:
        return int(slab) > 0
    height, columns = scan.frame_shape
    size = settings["model"]["size"] or columns
    # Sinogram and volume in float32, each three times over: data, work, result.
    return 12.0 * height * (scan.views * columns + size * size) > 0.5 * stream.free_memory(jax.local_devices()[0])


def reconstruct_slabs(
    scan: Scan, settings: Mapping[str, Mapping[str, Any]], console: Console, method: str, writer: Callable[..., Any]
) -> Result:
    """A volume slab by slab, from the file to a writer; the `Result` holds the middle slice, and figures of the middle
    rows, which stand for the volume.

    **Arguments:** `writer(shape, units, pixel_size, long_name)` makes the `SlabWriter` (see `diffrecon.stream`).

    **Raises:** `InputError` for solvers that need the whole volume at once.
    """
    solver = settings["solver"]
    start = _prepared(scan, settings, console)
    check_slabs(solver)
    geometry = _geometry(start, settings, console)
    A, unit, pixel = geometry.projector, _unit(scan, settings), _pixel(scan)
    if not isinstance(A, ParallelProjector):
        raise InputError(
            "slabs: motion along rows, roll and pitch join the slices: reconstruct the volume at once "
            '(solver.slab=0), or align columns only (align.unknowns=["centre"])'
        )
    first, last = _middle(start.height, 2)
    rows = np.asarray(start.rows(first, last))
    sample, variance = jnp.asarray(rows), _variance(scan, first, rows, settings)
    trial = solve_slices(A, sample, settings, Console(quiet=True))
    judged = _judged(scan, settings, start, geometry, sample, variance, trial, unit, " in the middle rows")
    middle = np.asarray(trial.volume[trial.volume.shape[0] // 2]) * np.float32(unit.factor)
    quantities = {"middle_slice": Quantity(middle, unit.units, ("y", "x"), pixel, unit.long_name, "image")}
    result = Result(method, {**quantities, **judged.quantities}, judged.figures, judged.lines, settings)
    solve = slab_solver(solver, padding(sample, solver["pad"]), trial.curves.get("penalty_weight", solver["weight"]))
    report = stream.tomography_slabs(
        A,
        start.rows,
        writer((start.height, *A.shape), unit.units, pixel, unit.long_name),
        slices=(0, start.height),
        solve=solve,
        slab=solver["slab"] or None,
        scale=unit.factor,
        mesh=sharding.slice_mesh(local=True),
        console=console,
        result=result,
    )
    return Result(method, result.quantities, result.quality, (*result.verdict, report.message), settings)


# ---------------------------------------------------------------------------------------------------- preview
def preview(scan: Scan, settings: Mapping[str, Mapping[str, Any]], console: Console, method: str) -> Result:
    """One slice with three rotation centres: the one found and one on either side. For a look before the long run."""
    start = _prepared(scan, settings, console)
    row = start.height // 2
    sinogram = jnp.asarray(start.rows(row, row + 1))
    geometry = _geometry(start, {**settings, "align": {**settings["align"], "unknowns": []}}, console)
    step = max(1.0, start.columns / 200)
    unit, pad = _unit(scan, settings), padding(sinogram, settings["solver"]["pad"])
    quantities = {}
    for label, off in (("_less", -step), ("", 0.0), ("_more", step)):
        A = geometry.projector
        if off:
            A = ParallelProjector(start.angles, A.shape, start.columns, centre=geometry.centre + off)
        image = solvers.fbp(A, sinogram, pad=pad)[0] * unit.factor
        quantities[f"slice{label}"] = Quantity(
            np.asarray(image),
            unit.units,
            ("y", "x"),
            _pixel(scan),
            f"rotation centre {geometry.centre + off:.2f}",
            "image",
        )
    lines = (
        *start.preparation.messages,
        *geometry.lines,
        f"preview of detector row {row}: rotation centre {geometry.centre:.2f}, and {step:g} pixels less and more",
    )
    return Result(method, quantities, {"rotation_centre": geometry.centre}, lines, settings)
