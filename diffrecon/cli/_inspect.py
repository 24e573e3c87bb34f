"""`diffrecon inspect`: what a file is, what it holds, what is missing."""

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError, MissingMetadata
from ..physics import in_words
from ._settings import gather


def inspect(options: argparse.Namespace) -> int:
    """Print what is in a measurement, or in a result of diffrecon."""
    from ..io import Source

    with Source(options.file) as source:
        is_result = source.has("entry/process/program")
    lines = result_lines(options.file) if is_result else None
    if lines is not None:
        print("\n".join(lines))
        return 0
    return _measurement(options)


def _measurement(options: argparse.Namespace) -> int:
    from .._summary import summary_of
    from ..io import collect, read
    from ..recipes import look_of

    settings = gather(options.config, options.sets)
    if method := options.method or settings.method:
        look_of(method)  # refuses one that there is not
    # Names in [data] and [geometry] that only a recipe could know are none of a file's.
    given = collect(settings.recipe.get("data", {}), settings.recipe.get("geometry", {}), settings.file)
    scan = read(options.file, options.method or settings.method, given, check=False, strict=False)
    summary = summary_of(scan.counts, scan.mask)
    print("\n".join(scan_lines(scan, summary)), flush=True)
    picture = getattr(options, "plot", None)
    if scan.tensor_geometry is not None:
        _directions(scan, picture)
    elif scan.method == "diffraction-tomography":
        _rings(scan, settings.recipe, picture)
    else:
        _near_field(scan, picture)
    # The figures stand printed; what makes the file unusable is the error.
    scan = scan.check_counts(summary)
    for line in _as_reconstruct(scan):
        print(f"  problem      {line}")
    for line in _unsaid(scan, settings.recipe):
        print(f"  missing      {line}")
    for message in scan.provenance.messages:
        if message.startswith("problem: "):
            raise InputError(f"{scan.name}: {message.removeprefix('problem: ')}")
    return 0


def _as_reconstruct(scan: Any) -> list[str]:
    """Give what the method itself would say of the scan before it solves anything.

    **Raises:** `InputError` for what it would refuse; what is only missing stands among the missing.
    """
    from ..recipes import look_of, methods
    from ..recipes._unused import refuse_unused, unused

    if scan.method not in methods() or scan.geometry is None:
        return []
    try:
        method = look_of(scan.method)
        refuse_unused(method, scan)
        return [*method.look_at(scan), *filter(None, [unused(method, scan)])]
    except MissingMetadata as error:
        return [str(error).removeprefix(f"{scan.name}: ")]


def _unsaid(scan: Any, recipe: Mapping[str, Any]) -> list[str]:
    """Name the settings that the method cannot do without and that neither file nor user gives."""
    from ..recipes import look_of, methods

    if scan.method not in methods():
        return []
    asked = look_of(scan.method).asks.items()
    missing = []
    for name, (what, example) in asked:
        part, _, key = name.partition(".")
        if key not in scan.extra and key not in recipe.get(part, {}):
            missing.append(f"{name}: {what}; for example --set '{name}={example}'")
    return missing


def _near_field(scan: Any, picture: str | None) -> None:
    """Say what a near-field geometry can see, and draw its transfer functions."""
    from .. import regimes

    setup = _setup(scan)
    if setup is None:
        if picture:
            raise InputError(
                f"{scan.name}: --plot draws transfer functions, which need a near-field geometry: energy, "
                "distances and pixel"
            )
        return
    print("\n".join(regimes.survey(setup).lines()), flush=True)
    if picture:
        from .. import io, plot

        io.check_output(picture)
        plot.transfer_functions(setup, path=picture)
        print(f"  transfer functions: {picture}")


def _directions(scan: Any, picture: str | None) -> None:
    """Say which directions of scattering the views of tensor SAXS do not see, and draw the map."""
    from .. import regimes
    from .._result import Quantity, Result

    place = scan.tensor_geometry
    seen = regimes.directions(place.in_sample(place.beam), place.two_theta)
    print(f"  directions   {seen.sentence()}", flush=True)
    if picture:
        from .. import io, plot

        io.check_output(picture)
        shown = Quantity(seen.share, "", ("polar", "azimuth"), None, "share seen, by direction", "sphere")
        plot.figure(Result("saxs-tensor-tomography", {"coverage": shown}, verdict=(seen.sentence(),)), picture)
        print(f"  map          {picture}")


def _rings(scan: Any, recipe: Mapping[str, Any], picture: str | None) -> None:
    """Say which phases explain the mean pattern, and draw it."""
    from ..recipes._powder_look import mean_pattern

    given = {name: values for name, values in recipe.items() if name in ("model", "integration")}
    try:
        found = mean_pattern(scan, given)
    except MissingMetadata:
        return  # it stands among the missing
    for number, line in enumerate(found.verdict):
        print(f"  {'' if number else 'phases':<12} {line}", flush=True)
    if picture:
        from .. import io, plot

        io.check_output(picture)
        plot.figure(found, picture, about=scan.provenance.path)
        print(f"  mean pattern {picture}")


def _setup(scan: Any) -> Any:
    """The distances that differ, with the counts of the empty beam; `None` where it is no near-field geometry."""
    from .. import regimes

    place = scan.geometry
    near = ("near-field-ptychography", "holography", "holotomography")
    if scan.method not in near or place is None:
        return None
    if any(v is None for v in (place.pixel_size, place.wavelength, place.distance)):
        return None
    beam = scan.flats if scan.flats is not None else scan.flux
    dark = 0.0 if scan.darks is None else float(np.mean(scan.darks))
    counts = None if beam is None else float(np.mean(beam)) - dark * (scan.flats is not None)
    setup = regimes.Setup.of(place, counts=counts, frame=min(scan.frame_shape))
    _, first = np.unique(np.round(setup.distances, 12), return_index=True)
    pick = lambda values: None if values is None else values[np.sort(first)]
    return dataclasses.replace(setup, **{k: pick(getattr(setup, k)) for k in ("distances", "pixels", "blur", "counts")})


# ---------------------------------------------------------------------- measurements
def scan_lines(scan: Any, summary: Any) -> list[str]:
    """Describe a scan line by line, from one pass over its frames (`_summary.Summary`)."""
    shape = " x ".join(str(n) for n in scan.counts.shape[1:])
    lines = [
        f"{scan.provenance.path}: {scan.provenance.reader}, {scan.method or 'method not clear'}",
        f"  counts       {scan.views} views of {shape}, {scan.counts.dtype}",
        *_counts_lines(scan, summary),
        *_geometry_lines(scan),
    ]
    if scan.positions is not None:
        lines.append(_positions_line(scan))
    if scan.angles is not None:
        degrees = np.degrees(scan.angles)
        step = np.median(np.abs(np.diff(degrees))) if scan.views > 1 else 0
        lines.append(f"  angles       {degrees.min():.4g} to {degrees.max():.4g} degrees, step {step:.4g}")
    for name in ("flats", "darks", "probe", "weights", "transmission"):
        value = getattr(scan, name)
        if value is not None:
            lines.append(f"  {name:<12} {' x '.join(map(str, value.shape))}, mean {np.abs(value).mean():.4g}")
    if scan.extra.get("reference") is not None:
        pattern = np.asarray(scan.extra["reference"])
        lines.append(f"  reference    {' x '.join(map(str, pattern.shape))}, mean {pattern.mean():.4g}")
    if scan.mask is not None:
        lines.append(f"  mask         {scan.mask.mean():.2%} of the pixels measured")
    for name in ("flux", "rotation_centre"):
        if getattr(scan, name) is not None:
            values = ", ".join(f"{value:.5g}" for value in np.ravel(getattr(scan, name)))
            lines.append(f"  {name.replace('_', ' '):<12} {values}")
    for message in scan.provenance.messages:
        kind, said = next(((k, k) for k in ("missing", "problem") if message.startswith(f"{k}: ")), ("note", ""))
        lines.append(f"  {kind:<12} {message.removeprefix(f'{said}: ')}")
    return lines + [f"  missing      {name}" for name in missing(scan)]


def _counts_lines(scan: Any, summary: Any) -> list[str]:
    number, bad, zeros, full = (int(getattr(summary, n).sum()) for n in ("values", "not_finite", "zeros", "full"))
    low, high, total = summary.lowest.min(), summary.highest.max(), float(summary.total.sum())
    dtype, ceiling = np.dtype(scan.counts.dtype), summary.ceiling
    if number == bad:
        return ["  statistics   no finite value at all"]
    lines = [
        f"  statistics   min {low:.5g}, max {high:.5g}, mean {total / (number - bad):.5g}, "
        f"{zeros / number:.1%} zeros, {total / scan.views:.4g} counts a view"
    ]
    if bad:
        lines.append(f"  problem      {bad} values are not finite")
    if full:
        lines.append(
            f"  problem      {full} values ({full / number:.2%}) are at the largest number of {dtype} ({ceiling}): "
            "saturated, or marked by the detector; mask them (data.bad_pixels)"
        )
    return lines


def _geometry_lines(scan: Any) -> list[str]:
    from ..geometry import ConeBeam

    place = scan.geometry
    if place is None:
        return []
    lines = []
    if place.energy is not None:
        lines.append(f"  energy       {in_words(place.energy, 'eV')}, wavelength {in_words(place.wavelength, 'm')}")
    if isinstance(place, ConeBeam):
        lines.append(
            f"  cone beam    focus-sample {in_words(place.focus_to_sample, 'm')}, focus-detector "
            f"{in_words(place.focus_to_detector, 'm')}, detector pixel {in_words(place.detector_pixel, 'm')}"
        )
        lines.append(
            f"  magnified    {_plain(place.magnification)} x: pixel {in_words(place.pixel_size, 'm')}, "
            f"effective distance {in_words(place.distance, 'm')}"
        )
    else:
        known = [
            f"{label} {in_words(value, 'm')}"
            for label, value in (
                ("sample-detector", place.distance),
                ("detector pixel", place.detector_pixel),
                ("pixel in the sample", place.pixel_size),
            )
            if value is not None
        ]
        if known:
            lines.append(f"  {type(place).__name__.lower():<12} {', '.join(known)}")
    return lines


def _positions_line(scan: Any) -> str:
    from ..io import neighbour_step

    span, step = np.ptp(scan.positions, axis=0), neighbour_step(scan.positions)
    if scan.positions_unit == "pixel":
        return f"  positions    span {span[0]:.4g} x {span[1]:.4g} pixels, step {step:.3g} pixels"
    line = f"  positions    span {in_words(span[0], 'm')} x {in_words(span[1], 'm')}, step {in_words(step, 'm')}"
    if scan.pixel_size is None:
        return line
    pixel = float(np.mean(scan.pixel_size))
    return line + f" ({span[0] / pixel:.4g} x {span[1] / pixel:.4g}, {step / pixel:.3g} pixels)"


def missing(scan: Any) -> list[str]:
    """List what the method would like to have and the file does not hold."""
    from ..recipes import look_of, methods

    modality = look_of(scan.method) if scan.method in methods() else None
    fields = () if modality is None else dict.fromkeys((*modality.needs, *modality.wishes))
    absent = [f"data.{name}" for name in fields if name != "geometry" and getattr(scan, name) is None]
    if "data.flux" in absent and scan.flats is not None:
        absent.remove("data.flux")
    if scan.method is None:
        absent.append("method: say it with -m")
    if scan.geometry is not None and scan.pixel_size is None:
        absent.append("pixel size (geometry.detector_pixel, ...): lengths will be in pixels")
    return absent


def _plain(value: Any) -> str:
    values = np.atleast_1d(np.asarray(value, float))
    ends = [values.min(), values.max()] if np.ptp(values) > 1e-9 * np.abs(values).max() else [values[0]]
    return " to ".join(f"{v:.4g}" for v in ends)


# ---------------------------------------------------------------------- results
def result_lines(path: str) -> list[str]:
    """The description of a result, line by line."""
    from .. import io

    result, process = io.read_result(path), io.process(path)
    source = process.get("input", {})
    lines = [f"{path}: {result.method}, {process['program']} {process['version']}, {process['date']}"]
    if source:
        lines.append(f"  input        {source.get('file', '')}, SHA-256 {source.get('sha256', '')[:16]}...")
    for name, quantity in result.quantities.items():
        pixel = "" if quantity.pixel_size is None else f", pixel {in_words(quantity.pixel_size, 'm')}"
        data = np.asarray(quantity.data)
        shown = np.abs(data) if np.iscomplexobj(data) else data
        values = f"{np.nanmin(shown):.4g} to {np.nanmax(shown):.4g}" if shown.size and shown.dtype.kind in "iuf" else ""
        lines.append(
            f"  {name:<12} {' x '.join(map(str, data.shape))} ({', '.join(quantity.axes)}) {data.dtype}, "
            f"{values}{' ' + quantity.units if quantity.units else ''}{pixel}"
        )
    lines += [f"  quality      {k} = {v:.4g}" for k, v in figures(result.quality).items()]
    return lines + [f"  verdict      {line}" for line in result.verdict]


def figures(quality: Any, prefix: str = "") -> dict[str, float]:
    """The single numbers among the quality figures, those of groups by `group.name`."""
    found: dict[str, float] = {}
    for name, value in quality.items():
        if isinstance(value, dict):
            found |= figures(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}{name}"] = value
    return found
