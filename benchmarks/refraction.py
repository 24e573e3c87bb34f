"""Differential phase methods on simulated scans with their truth, and on a calibrated cylinder.

Prints for every file the errors that matter (see docs/differential_phase.md) and the CPU time of a second run, which
compiles nothing. A file has the stacks `sample` and `reference`, its setup in attributes, and maps under `/truth`:
alpha_x [rad], phase, transmission_propagated or transmission, darkfield, and the masks `smooth` and `empty`. With
`--cylinder AXIS RADIUS DELTA` [pixel, pixel, 1] the slope of the angles across an upright cylinder is printed, 1 if the
table's delta is found.

With `--peers PYTHON` the programs of `refraction_peers.py` run on the same frames (speckles), by that interpreter. What
they read is judged alike: the order and the signs of their displacements, which differ, are chosen by the truth or by
the angles found here, and their slopes are integrated as those of the classical readers.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import table

import diffrecon as dr


def main() -> None:
    """Measure all files that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--views", type=int, default=0, help="only the first so many positions (speckles)")
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("SECTION.KEY", "VALUE"))
    parser.add_argument("--cylinder", nargs=3, type=float, metavar=("AXIS", "RADIUS", "DELTA"))
    parser.add_argument("--lean", type=float, default=0.0, help="of the cylinder's axis, columns a row")
    parser.add_argument("--peers", metavar="PYTHON", help="of an environment with the other programs")
    parser.add_argument("--only", nargs="*", default=[], help="of the other programs: words of their labels")
    options = table.arguments(parser).parse_args()
    settings: dict[str, dict[str, float | str]] = {}
    for name, value in options.set:
        section, _, key = name.partition(".")
        settings.setdefault(section, {})[key] = number(value)
    for path in options.files:
        scan = dr.open_scan(path, views=f"0:{options.views}" if options.views else None)
        result, seconds = measured(scan, settings)
        figures = {"CPU s": seconds} | errors(path, result) | bound(path, scan)
        if options.cylinder:
            figures["delta / table"] = cylinder(result, *options.cylinder, options.lean)
        figures |= {k: v for k, v in result.quality.items() if str(k).startswith("held_out_r")}
        print(path, said(figures), flush=True)
        note(path, scan.views, figures)
        for label, figures in peers(path, result, options) if options.peers else ():
            if isinstance(figures, dict):
                note(path, scan.views, figures, label)
            print(f"{path} {label}:", said(figures) if isinstance(figures, dict) else figures, flush=True)

    table.keep(options, "python benchmarks/refraction.py FILE...")


def note(path, views, figures, program=table.OURS):
    """Note what the table of all benchmarks has."""
    kinds = {"speckle_micro": "speckle, 3 um pixels", "speckle_macro": "speckle, 20 um pixels"}
    case = next((f"{words}, {views} positions" for kind, words in kinds.items() if kind in str(path)), Path(path).stem)
    for name in ("alpha_x", "angle", "CPU s"):
        if name in figures:
            table.note(case, "CPU s" if name == "CPU s" else "error of the angle", figures[name], program)


def said(figures):
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())


def peers(path, ours, options):
    """Run the other programs on the same frames, and judge what they read."""
    with h5py.File(path) as file:
        pixel = float(file.attrs["pixel_m"])
        unit = pixel / float(file.attrs["sample_to_detector_m"])
        wave = 2 * np.pi / float(file.attrs["wavelength_m"])
        known = file["truth/alpha_x"][()] if "truth/alpha_x" in file else np.asarray(ours["alpha_x"])
    script = Path(__file__).with_name("refraction_peers.py")
    with tempfile.TemporaryDirectory() as folder:
        run = [options.peers, str(script), path, folder, str(options.views), *options.only]
        for line in subprocess.run(run, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines():
            case = json.loads(line)
            if "failed" in case:
                yield case["label"], f"failed: {case['failed']}"
                continue
            result = read(np.load(case["file"]), np.nan_to_num(known) / unit, unit)
            result["phase"] = result["phase"] * wave * pixel * unit
            figures = {"CPU s": case["CPU s"]} | errors(path, result)
            if options.cylinder:
                figures["delta / table"] = cylinder(result, *options.cylinder, options.lean)
            yield case["label"], figures


def read(found, known, unit):
    """Give what a program read as results are named, the displacement along x being the one that looks like it."""
    moved = {name: np.asarray(found[name], float) for name in ("first", "second")}
    inside = (slice(12, -12),) * 2
    alike = lambda a: np.corrcoef(np.clip(np.nan_to_num(a[inside]), -4, 4).ravel(), known[inside].ravel())[0, 1]
    x = max(moved, key=lambda name: abs(alike(moved[name])))
    sign = np.sign(alike(moved[x]))
    down, right = sign * moved["first" if x == "second" else "second"], sign * moved[x]
    good = np.isfinite(down) & np.isfinite(right)
    fill = lambda a: np.clip(np.where(good, a, 0), -8, 8).astype(np.float32)
    potential = dr.solvers.integrate_gradients(fill(down), fill(right), weight=good.astype(np.float32))
    images = {
        "alpha_x": right * unit,
        "phase": np.asarray(potential),
        "transmission": np.asarray(found["transmission"]),
    }
    return images | ({"darkfield": np.asarray(found["visibility"])} if "visibility" in found else {})


def number(value):
    """Read a number; what is none stays a word."""
    try:
        return float(value) if "." in value else int(value)
    except ValueError:
        return value


def measured(scan, settings):
    """Reconstruct twice, and time the second run."""
    dr.reconstruct(scan, settings=settings)
    start = time.process_time()
    return dr.reconstruct(scan, settings=settings), time.process_time() - start


def errors(path, result):
    """Compare with the truth in the file, away from the borders and within `smooth`."""
    with h5py.File(path) as file:
        names = [n for n in file.get("truth", {}) if isinstance(file["truth"][n], h5py.Dataset)]
        truth = {name: file[f"truth/{name}"][()] for name in names}
        pixel = float(file.attrs.get("pixel_m", np.nan))
        distance = float(file.attrs.get("sample_to_detector_m", np.nan))
    if "alpha_x" not in truth:
        return {}
    edge = max(4, truth["alpha_x"].shape[0] // 20)
    inside = np.zeros(truth["smooth"].shape, bool)
    inside[edge:-edge, edge:-edge] = True
    smooth, empty = inside & truth["smooth"].astype(bool), inside & truth["empty"].astype(bool)
    found = np.asarray(result["alpha_x"], float)
    found = found - np.nanmedian(found[empty])
    good = smooth & np.isfinite(found)
    relative = lambda a, b: float(np.linalg.norm(a - b) / np.linalg.norm(b))
    figures = {
        "angle": relative(found[good], truth["alpha_x"][good]),
        "empty [nrad]": float(np.nanstd(found[empty]) * 1e9),
    }
    slope = lambda a, b: float(a @ b / (b @ b))
    figures["slope"] = slope(found[good], truth["alpha_x"][good])
    if "scatter_xx" in truth and "scattering" in getattr(result, "quantities", result):
        scattering = np.asarray(result["scattering"], float)
        scattering = scattering - np.nanmedian(scattering[empty])
        figures["slope of scattering"] = slope(scattering[good], truth["scatter_xx"][good])
    moved = np.abs(truth["alpha_x"]) * distance / pixel
    plain = good & (truth.get("screen_variance", np.zeros(good.shape)) < 1e-3)
    small = plain & (moved > 0.05) & (moved < 0.35)
    if small.any():
        true = truth["alpha_x"][small]
        figures["slope below a third of a pixel"] = slope(found[small], true)
    light = truth.get("transmission_propagated", truth.get("transmission"))
    for name, true in (("transmission", light), ("darkfield", truth.get("darkfield"))):
        if true is not None and name in getattr(result, "quantities", result):
            image = np.asarray(result[name], float)
            image = image / np.nanmedian(image[empty])
            figures[name] = float(np.sqrt(np.nanmean((image - true)[smooth] ** 2)))
    y, x = np.indices(inside.shape)[:, inside]
    planes = np.stack([np.ones(y.size), y, x], 1)
    flat = lambda a: a - planes @ np.linalg.lstsq(planes, a, rcond=None)[0]
    phase, true = (flat(np.nan_to_num(np.asarray(a, float))[inside]) for a in (result["phase"], truth["phase"]))
    return figures | {"phase without ramp": relative(phase, true)}


def bound_of_phase(path, scan):
    """Error of the phase without its ramp that the photons of both stacks of speckles leave (Cramer-Rao), relative as
    it is: of all details that pixels hold, and of those of a half period of two pixels and more.

    Each pixel tells both displacements, its transmission and visibility free, by the slopes of the pattern; one phase
    has both as its slopes. For a mean pixel, whose modes are cosines over the frame. What propagation fringes tell is
    left out, as transmission is free.
    """
    reference = np.asarray(scan.extra["reference"], float)
    smooth = dr.prepare.split_patterns(reference.astype(np.float32)).smooth
    with h5py.File(path) as file:
        true, seen, light = (file[f"truth/{k}"][()] for k in ("phase", "darkfield", "transmission"))
    down, right = np.gradient(reference, axis=(1, 2))
    told = np.stack([seen * down, seen * right, reference, reference - smooth], -1)
    whole = np.einsum("nyxi,nyxj,nyx->yxij", told, told, light[None] / (reference * (1 + light)))
    free, cross = whole[..., 2:, 2:] + 1e-6 * np.eye(2), whole[..., :2, 2:]
    alone = (whole[..., :2, :2] - cross @ np.linalg.solve(free, np.swapaxes(cross, -1, -2))).mean((0, 1))
    n, edge = true.shape[0], max(4, true.shape[0] // 20)
    mode = np.pi * np.arange(n) / n
    slope = alone[0, 0] * mode[:, None] ** 2 + alone[1, 1] * mode**2
    slope[0, 0] = np.inf
    place, real = (np.arange(n) - (n - 1) / 2), slice(edge, n - edge)
    cosine = np.sqrt((np.arange(n) > 0) + 1.0) * np.cos(np.pi * np.outer(np.arange(n) + 0.5, np.arange(n)) / n)
    ramp = (cosine.T @ place) / n / np.sqrt(np.mean(place**2))  # share of the modes in a ramp
    unit = 2 * np.pi / float(scan.geometry.wavelength) * scan.geometry.detector_pixel**2 / scan.geometry.distance
    image = true[real, real]
    image = image - image.mean()
    image = image - sum(
        np.multiply.outer(*pair) * (image * np.multiply.outer(*pair)).sum() / (np.multiply.outer(*pair) ** 2).sum()
        for pair in ((place[real], np.ones(n - 2 * edge)), (np.ones(n - 2 * edge), place[real]))
    )
    found = {}
    for name, most in (("", np.pi), (" of four pixels a period", np.pi / 2)):
        variance = np.where(np.hypot(mode[:, None], mode) <= most, 1 / slope, 0)
        left = variance.sum() - (ramp**2 * (variance[:, 0] + variance[0])).sum()
        found[f"bound of the phase{name}"] = float(unit * np.sqrt(left / n**2) / image.std())
    return found


def bound(path, scan):
    """Error of the angle that the photons of both stacks leave to pixels by themselves (Cramer-Rao), relative as
    `angle` is, for fringes and curves; a model whose pixels share a phase may fall below it, at the cost of resolution.
    """
    if scan.method == "speckle":
        return bound_of_phase(path, scan)
    if scan.method not in ("grating", "edge-illumination", "analyser"):
        return {}
    sample, reference = (np.asarray(a, float) for a in (scan.counts, scan.extra["reference"]))
    distance = float(scan.geometry.distance)
    if scan.method == "grating":
        parts = [np.fft.fft(stack, axis=0)[:2] for stack in (sample, reference)]
        noise = sum(np.abs(f[0]) / (2 * np.abs(f[1]) ** 2) for f in parts)  # 2 / (V^2 N)
        variance = noise * (float(scan.extra["period"]) / (2 * np.pi * distance)) ** 2
    else:
        still, there = (np.asarray(scan.extra[k], float) for k in ("reference_steps", "steps"))
        order = np.argsort(still)
        slopes = np.gradient(reference[order], still[order], axis=0)
        along = np.stack([slopes, reference[order], np.gradient(slopes, still[order], axis=0)], -1)
        at = np.interp(there, still[order], np.arange(len(still)))
        low, part = np.clip(at.astype(int), 0, len(still) - 2), (at % 1)[:, None, None, None]
        told = along[low] * (1 - part) + along[low + 1] * part
        scale = np.abs(told).mean((0, 1, 2))
        told, light = told / scale, np.maximum(told[..., 1], 1)
        share = 1 + len(there) / len(still)
        least = np.linalg.inv(np.einsum("nyxi,nyxj,nyx->yxij", told, told, 1 / (light * share)))[..., 0, 0]
        variance = least / scale[0] ** 2 * (1.0 if scan.method == "analyser" else distance**-2.0)
    with h5py.File(path) as file:
        true, smooth = file["truth/alpha_x"][()], file["truth/smooth"][()].astype(bool)
    return {"bound of a pixel": float(np.sqrt(np.median(variance[smooth])) / np.sqrt(np.mean(true[smooth] ** 2)))}


def cylinder(result, axis, radius, delta, lean):
    """Slope of the angles against `2 delta u / sqrt(1 - u^2)`, within nine tenths of the radius."""
    found = np.asarray(result["alpha_x"], float)
    row, column = np.indices(found.shape)
    u = (column - axis - lean * (row - found.shape[0] / 2)) / radius
    known = 2 * delta * u / np.sqrt(1 - np.minimum(u**2, 0.99))
    inside = (np.abs(u) < 0.9) & np.isfinite(found) & (np.abs(row - found.shape[0] / 2) < 0.42 * found.shape[0])
    return float(np.polyfit(known[inside], found[inside], 1)[0])


if __name__ == "__main__":
    main()
