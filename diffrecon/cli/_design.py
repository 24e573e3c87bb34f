"""`diffrecon design`: which distances show most of an object for the same dose; with a METHOD, what a measurement of it
will show (`_plan`)."""

import argparse
import math
import re
from typing import Any

from ..errors import InputError

_USAGE = """diffrecon design METHOD [key=value ...] [--optimise NAME ...] [-o PICTURE]
       diffrecon design --energy ENERGY --detector-pixel SIZE --range A:B [...]"""
_PLAIN = re.compile(r"[A-Za-z]")
_WORD = re.compile(r"[A-Za-z_]+=")


def methods() -> list[str]:
    """List the methods that can be planned."""
    from .. import planning

    return list(planning.methods())


def arguments(parser: argparse.ArgumentParser) -> None:
    """Those of the command; every length, energy and size may have its unit."""
    parser.usage = _USAGE
    planning = parser.add_argument_group("with a METHOD")
    planning.add_argument("--optimise", nargs="+", default=[], metavar="NAME", help="numbers to be found by gradient")
    planning.add_argument("--aim", help="what is made small: sensitivity (default), resolution, dose, time")
    planning.add_argument("--hold", help="what stays: time (default), dose, sensitivity")
    planning.add_argument("-o", "--output", metavar="PICTURE", help="draw the curve of resolution against photons")
    planning.add_argument("--settings", action="store_true", help="print every setting of the METHOD, and stop")
    add = parser.add_argument_group("without a METHOD: distances for holograms").add_argument
    add("--energy", help='such as "17 keV"')
    add("--detector-pixel", metavar="SIZE", help="of a parallel beam: the pixel in the sample")
    add("--focus-to-detector", metavar="LENGTH", help="of a cone beam; without it the beam is parallel")
    add(
        "--range",
        metavar="A:B",
        help='distances allowed, such as "21 mm:60 mm": focus-sample in a cone beam, else sample-detector',
    )
    add("-n", "--number", type=int, default=4, help="of distances (4)")
    add("--delta-beta", metavar="RATIO", help="of the object; inf = pure phase; none (default) = both are unknown")
    add("--frame", type=int, default=2048, help="pixels along the shorter side of the detector (2048)")
    add("--counts", type=float, default=1000.0, help="on a finest pixel, all distances together (1000)")
    add("--source", default="0 m", metavar="SIZE", help="full width at half maximum of the source or focus")
    add("--source-distance", metavar="LENGTH", help="of a parallel beam")
    add("--detector-blur", type=float, default=0.0, metavar="PIXELS", help="full width at half maximum")
    add("--bandwidth", type=float, default=0.0, help="full width at half maximum of the energy, relative")
    add("--phase", type=float, default=0.3, metavar="RAD", help="root mean square phase of the object (0.3)")
    add("--merit", default="error", choices=("error", "mean", "worst"), help="what is made small (error)")
    add("--band", metavar="A:B", help='half periods wanted, such as "50 nm:10 um"')
    add("--seed", type=int, default=0)
    add("--plot", metavar="PICTURE", help="draw the contrast transfer functions of the distances found")


def split_words(arguments: list[str]) -> tuple[list[str], str | None, list[str]]:
    """Take METHOD and key=value out of the arguments, wherever they stand; the others are options."""
    method = arguments[0] if arguments and _PLAIN.match(arguments[0]) and "=" not in arguments[0] else None
    rest = arguments[1:] if method else arguments
    return [a for a in rest if not _WORD.match(a)], method, [a for a in rest if _WORD.match(a)]


def design(options: argparse.Namespace) -> int:
    """Print the distances found beside customary sets, and what they show."""
    if options.method or options.words:
        return _planned(options)
    for name in ("optimise", "aim", "hold", "output", "settings"):
        if getattr(options, name):
            raise InputError(f"--{name} belongs to a METHOD: diffrecon design METHOD --{name} ...")
    for name in ("energy", "detector_pixel", "range"):
        if getattr(options, name) is None:
            raise InputError(
                f"--{name.replace('_', '-')} is needed to find distances; or name a METHOD: diffrecon design tomography"
            )
    from .. import regimes

    if options.plot:
        from .. import io
        from .._optional import require

        require("matplotlib", "plot")
        io.check_output(options.plot)
    told = _told(options)
    found = regimes.design_distances(**told)
    print("\n".join(found.lines()))
    setup = regimes.Setup.of(
        found.geometry,
        frame=options.frame,
        counts=_counts(found, options),
        source_size=told["source_size"],
        source_distance=told["source_distance"],
        detector_blur=options.detector_blur,
        bandwidth=options.bandwidth,
    )
    ratio = told["delta_beta"] or math.inf
    print("\n".join(regimes.survey(setup, delta_beta=ratio).lines()))
    if options.plot:
        from .. import plot

        plot.transfer_functions(setup, delta_beta=ratio, path=options.plot)
        print(f"transfer functions: {options.plot}")
    return 0


def _planned(options: argparse.Namespace) -> int:
    from ._plan import plan

    if options.method is None:
        raise InputError(f"{options.words[0]}: of which METHOD? diffrecon design METHOD key=value ...")
    for name in ("energy", "detector_pixel", "range", "focus_to_detector", "delta_beta"):
        if getattr(options, name) is not None:
            key = name.replace("_", "-")
            raise InputError(f"--{key} finds distances without a METHOD; with {options.method} write {name}=value")
    return plan(options)


def _told(options: argparse.Namespace) -> dict[str, Any]:
    nearest, farthest = _pair(options.range, "--range")
    finest, coarsest = _pair(options.band, "--band") if options.band else (None, None)
    return {
        "energy": _quantity(options.energy, "eV", "--energy"),
        "detector_pixel": _quantity(options.detector_pixel, "m", "--detector-pixel"),
        "focus_to_detector": _quantity(options.focus_to_detector, "m", "--focus-to-detector"),
        "nearest": nearest,
        "farthest": farthest,
        "finest": finest,
        "coarsest": coarsest,
        "count": options.number,
        "delta_beta": _ratio(options.delta_beta),
        "frame": options.frame,
        "counts": options.counts,
        "source_size": _quantity(options.source, "m", "--source") or 0.0,
        "source_distance": _quantity(options.source_distance, "m", "--source-distance"),
        "detector_blur": options.detector_blur,
        "bandwidth": options.bandwidth,
        "phase_rms": options.phase,
        "merit": options.merit,
        "seed": options.seed,
    }


def _counts(found: Any, options: argparse.Namespace) -> Any:
    """On a pixel of each distance, at equal dose."""
    pixels = found.geometry.pixel_size * (found.distances / found.distances)
    return options.counts / options.number * (pixels / pixels.min()) ** 2


def _pair(text: str, name: str) -> tuple[float, float]:
    first, colon, second = text.partition(":")
    if not colon:
        raise InputError(f'{name} {text!r}: write two lengths with a colon between, such as "21 mm:60 mm"')
    low, high = (_quantity(part, "m", name) for part in (first, second))
    assert low is not None and high is not None
    return low, high


def _quantity(text: str | None, unit: str, name: str) -> float | None:
    from .. import physics

    if text is None:
        return None
    value = physics.quantity(text, unit, name)
    if unit == "eV":
        value, _ = physics.plausible_energy(value, None if value > 200 else "keV")
    return value


def _ratio(text: str | None) -> float | None:
    from .. import physics

    if text is None or text.lower() == "none":
        return None
    value = math.inf if text.lower() in ("inf", "infinity") else physics.quantity(text, "", "--delta-beta")
    if not value > 0:
        raise InputError(f"--delta-beta {text}: delta / beta is positive; inf for a pure phase object")
    return value
