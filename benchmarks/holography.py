"""In-line holography: direct methods and model-based retrieval beside hotopy, nabu and pyphase.

    python benchmarks/holography.py [--data FILE ...] [--peers PYTHON] [--cases WORD ...] [--speed] [--list]

FILE holds four simulated holograms with their truth: `raw_counts`, `raw_shifted_counts` (frames that moved), `photons`,
`pixel_eff_m`, `distance_eff_m`, `z1_m`, `L_m`, `detector_pixel_m`, `energy_keV`, `truth_phase`, `truth_B` and, as
attribute `materials`, their formulas and densities; without it the demo's own object is simulated. With `flats` and
`darks` it is a specimen that goes on beyond the frames, moved by `shifts_px_raw_yx`: nobody else finds shifts, so that
the others get the true ones. PYTHON is the interpreter of an environment with the other programs (`pip install hotopy
nabu pyphase`), by default this one; what is missing there is left out with a line. Its settings are in
`holography_peers.py`. `--cases` runs the cases whose label holds one of the words (`--list` prints ours; `--cases
diffrecon` is all of ours); `--speed` measures only times: of CTF, and of model-based retrieval of the FILEs until the
error is 0.037.

Error: |phase - truth| / |truth|, means removed, without the outer 16 pixels (48 of a specimen that goes on, whose floor
of the error stands below it: draws from the posterior of the phase, of photon noise, geometry and prior, the prior's
ramp where shifts are unknown). Resolution:
half period at which the Fourier ring correlation with the truth (Hann window, mean of five rings) falls below 0.5.
"Oracle": the settings that are best for the truth. Seconds are of a second call, after compilation.
"""

import argparse
import dataclasses
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import jax
import numpy as np
import table
from holography_floor import bands
from holography_peers import timed

import diffrecon as dr
from diffrecon.simulate import holography as demo

PEERS = ("hotopy", "nabu", "pyphase")
TARGET = 0.037  # error that model-based retrieval is timed to


@dataclasses.dataclass(frozen=True)
class Case:
    """Holograms with their truth. `images` are on one pixel, divided by the empty beam, and so is `contact`, a noisy
    image at distance 0; `materials` are `name: formula, density`, the main one first."""

    name: str
    counts: np.ndarray
    moved: np.ndarray | None
    shifts: np.ndarray | None
    flux: float
    beam: dr.ConeBeam
    truth: np.ndarray
    attenuation: np.ndarray
    delta_beta: float
    oracle_delta_beta: float
    materials: dict[str, str]
    flats: np.ndarray | None = None
    darks: np.ndarray | None = None

    @property
    def goes_on(self) -> bool:
        return self.flats is not None

    @property
    def cut(self) -> int:
        return 48 if self.goes_on else 16

    @property
    def pixels(self) -> np.ndarray:
        return np.asarray(self.beam.pixel_size, float)

    @property
    def optics(self) -> dict[str, Any]:
        return {"pixel_size": float(self.pixels.min()), "wavelength": self.beam.wavelength}

    @property
    def distances(self) -> np.ndarray:
        return np.asarray(self.beam.distance, float)

    @property
    def images(self) -> np.ndarray:
        """All frames on the finest pixel, by cubic convolution."""
        frames, light, dark = [], self.flux, 0.0
        places = np.zeros((len(self.counts), 2))
        if self.flats is not None and self.darks is not None and self.shifts is not None:
            dark, places = self.darks.mean(0), self.shifts
            light = self.flats.mean(0) - dark
        for frame, pixel, place in zip((self.counts - dark) / light, self.pixels, places, strict=True):
            rows, columns = (_cubic(n, self.pixels.min() / pixel, s) for n, s in zip(frame.shape, place, strict=True))
            frames.append(rows @ (frame - 1) @ columns.T + 1)
        return np.stack(frames).astype(np.float32)

    @property
    def contact(self) -> np.ndarray:
        counts = np.random.default_rng(0).poisson(self.flux * np.exp(-2 * self.attenuation))
        return (counts / self.flux).astype(np.float32)

    def scan(self, counts: np.ndarray) -> dr.Scan:
        beam = {"flats": self.flats, "darks": self.darks} if self.goes_on else {"flux": self.flux}
        return dr.Scan.from_arrays(counts, method="holography", geometry=self.beam, **beam)


def _cubic(size: int, ratio: float, shift: float = 0.0) -> np.ndarray:
    place = (np.arange(size) - (size - 1) / 2) * ratio + (size - 1) / 2 + shift
    d = np.abs(place[:, None] - np.arange(size))
    return np.where(d < 1, 1.5 * d**3 - 2.5 * d**2 + 1, np.where(d < 2, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2, 0))


# ---------------------------------------------------------------------------------------------------- cases
def read(path: Path) -> Case:
    """A file of simulated holograms; the material with most phase is the main one."""
    with h5py.File(path) as file:
        number = lambda name: float(file[name][()])
        beam = dr.ConeBeam(number("energy_keV") * 1e3, file["z1_m"][()], number("L_m"), number("detector_pixel_m"))
        table = json.loads(file.attrs["materials"])
        inside = file.get("thickness", {})  # else in the order of the file, the embedding first
        here = {name: float(inside[name][()].sum()) * table[name]["delta"] for name in inside}
        names = sorted(here, key=lambda name: -here[name]) or list(table)
        phase, attenuation = file["truth_phase"][()], file["truth_B"][()]
        flats, darks = (file[name][()].astype(float) if name in file else None for name in ("flats", "darks"))
        moved = file["raw_shifted_counts"][()] if "raw_shifted_counts" in file else None
        moved = file["raw_counts"][()] if flats is not None else moved
        return Case(
            path.stem,
            file["raw_counts"][()] if flats is None else moved,
            moved,
            None if moved is None else -file["shifts_px_raw_yx"][()],
            number("photons"),
            beam,
            phase,
            attenuation,
            table[names[0]]["delta"] / table[names[0]]["beta"],
            float(-(phase**2).sum() / (phase * attenuation).sum()),
            {name: f"{table[name]['formula']}, {table[name]['rho']}" for name in names},
            flats,
            darks,
        )


def own(folder: Path, seed: int = 3) -> Case:
    """The demo's object, moved by nothing."""
    path = folder / "demo.h5"
    truth = demo.write(path, seed)
    scan, (delta, beta) = dr.open_scan(path), demo.RESIN
    phase, attenuation = truth["phase"], truth["attenuation"]
    return Case(
        "demo",
        np.asarray(scan.counts),
        None,
        None,
        demo.FLUX,
        scan.geometry,
        phase,
        attenuation,
        delta / beta,
        float(-(phase**2).sum() / (phase * attenuation).sum()),
        {"resin": "C5H8O2, 1.19", "silica": "SiO2, 2.2"},
    )


# ---------------------------------------------------------------------------------------------------- judge
@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table."""

    error: float
    resolution: float
    cpu: float
    wall: float = float("nan")
    note: str = ""

    def __str__(self) -> str:
        wall = "" if np.isnan(self.wall) else f"   wall {self.wall:7.3f} s"
        return f"error {self.error:8.4f}   {self.resolution:5.0f} nm   CPU {self.cpu:7.3f} s{wall}   {self.note}"


def judged(case: Case, phase: np.ndarray, cpu: float, wall: float = float("nan"), note: str = "") -> Row:
    """Error and resolution of a phase image."""
    inner = slice(case.cut, -case.cut)
    found, truth = (np.asarray(a, float)[inner, inner] for a in (phase, case.truth))
    rest = found - truth
    error = np.linalg.norm(rest - rest.mean()) / np.linalg.norm(truth - truth.mean())
    crossing = _correlation_crossing(found, truth)
    return Row(float(error), float(case.pixels.min() * 1e9 / (2 * crossing)), cpu, wall, note)


def _correlation_crossing(one: np.ndarray, other: np.ndarray) -> float:
    """Highest frequency [cycles/pixel] below which the ring correlation, smoothed over five rings, stays above 0.5."""
    size = one.shape[0]
    window = np.hanning(size)[:, None] * np.hanning(size)
    a, b = (np.fft.fft2((image - image.mean()) * window) for image in (one, other))
    f = np.fft.fftfreq(size)
    ring = np.rint(np.hypot(f[:, None], f) * size).astype(int).ravel()
    rings = lambda values: np.bincount(ring, values.ravel())[: size // 2]
    curve = rings((a * b.conj()).real) / np.sqrt(rings(np.abs(a) ** 2) * rings(np.abs(b) ** 2) + 1e-300)
    smooth = np.convolve(np.pad(curve, 2, mode="edge"), np.full(5, 0.2), "valid")
    below = np.flatnonzero((smooth < 0.5) & (np.arange(smooth.size) >= 4))
    return float(below[0] if below.size else smooth.size - 1) / size


# ---------------------------------------------------------------------------------------------------- ours
def direct(case: Case, name: str, **settings: Any) -> Row:
    """One of our direct methods, with what it chooses from the data."""
    images, solve = jax.numpy.asarray(case.images), getattr(dr.solvers, name)
    if name == "paganin":
        images, settings = images[0], {"distance": float(case.distances[0]), **settings}
    else:
        settings = {"distances": case.distances, **settings}
    last: list[Any] = []

    def run() -> np.ndarray:
        last[:] = [solve(images, **case.optics, **settings)]
        return np.asarray(last[0] if name == "paganin" else last[0].phase)

    phase, cpu, wall = timed(run)
    return judged(case, phase, cpu, wall)


def projected(case: Case, rule: str) -> Row:
    """Set projections with one material; phases of more than pi wrap."""
    images = case.images

    def run() -> np.ndarray:
        return np.asarray(
            dr.solvers.alternating_projections(
                images, **case.optics, distances=case.distances, rule=rule, steps=200, delta_beta=case.delta_beta
            ).phase
        )

    phase, cpu, wall = timed(run)
    return judged(case, phase, cpu, wall)


def retrieved(case: Case, counts: np.ndarray, **model: Any) -> Row:
    """`dr.reconstruct` of raw frames."""
    settings, marks = {"model": {"register": counts is case.moved, **model}}, [time.process_time()]
    for _ in "ab":  # the first one compiles
        result = dr.reconstruct(case.scan(counts), "holography", settings)
        marks.append(time.process_time())
    first, cpu = np.diff(marks)
    note = f"with compilation {first:.0f} s"
    if counts is case.moved and "shifts" in result.quality:
        off = result.quality["shifts"] - case.shifts
        note += f"; shifts to {np.abs(off - off[:1]).max():.3f} pixels"
    if "phase_error_draws" in result.quantities:
        note += "\n" + bands(result["phase"], case.truth, result["phase_error_draws"], case.cut)
    return judged(case, np.asarray(result.quantities["phase"].data), cpu, note=note)


class Impatient(dr.Console):
    """Interrupts after some steps, as a user would by Control-C: what was found so far is returned."""

    def __init__(self, steps: int):
        super().__init__(quiet=True)
        self.left, self.at = steps, float("nan")

    def progress(self, total, label):
        shown = super().progress(total, label)
        shown.update = lambda done, **figures: self.count()
        return shown

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.at = time.process_time()
            raise KeyboardInterrupt


def until(case: Case, target: float, **model: Any) -> str:
    """Processor seconds that model-based retrieval takes from raw frames to an error, everything compiled before."""
    steps = 0
    while True:
        steps += 1
        for _ in "ab":  # the first one compiles
            watch, start = Impatient(steps), time.process_time()
            settings = {"model": {"register": False, **model}}
            result = dr.reconstruct(case.scan(case.counts), "holography", settings, watch)
            row = judged(case, np.asarray(result.quantities["phase"].data), watch.at - start)
        if row.error <= target:
            return f"{row}after {steps} steps"
        if watch.left > 0:
            return f"{row}after all {steps - 1} steps: never {target}"


def registered(case: Case) -> str:
    """Registration alone, of the frames that moved."""
    start = time.process_time()
    shifts, _ = dr.prepare.register_distances(
        case.moved,
        case.flux,
        pixels=case.pixels,
        distances=case.distances,
        wavelength=case.beam.wavelength,
        delta_beta=case.delta_beta,
    )
    error = np.abs(shifts - case.shifts).max()
    return f"shifts to {error:.3f} pixels   CPU {time.process_time() - start:.2f} s"


def ours(case: Case) -> dict[str, Callable[[], Any]]:
    """Every line of ours by label."""
    ratio, main = {"delta_beta": case.delta_beta}, next(iter(case.materials))
    if case.goes_on:
        return {
            "diffrecon CTF, smooth, true shifts": lambda: direct(case, "ctf", outside="smooth", **ratio),
            "diffrecon model-based, shifts unknown, nothing told": lambda: retrieved(case, case.counts),
        }
    lines: dict[str, Callable[[], Any]] = {
        "Paganin, first distance": lambda: direct(case, "paganin", **ratio),
        "Paganin, first distance, mirror": lambda: direct(case, "paganin", outside="mirror", **ratio),
        "Paganin, first distance, smooth": lambda: direct(case, "paganin", outside="smooth", **ratio),
        "CTF": lambda: direct(case, "ctf", **ratio),
        "CTF, mirror": lambda: direct(case, "ctf", outside="mirror", **ratio),
        "CTF, border unmeasured": lambda: direct(case, "ctf", outside="unmeasured", **ratio),
        "CTF, oracle delta/beta": lambda: direct(case, "ctf", delta_beta=case.oracle_delta_beta),
        "CTF, two unknowns": lambda: direct(case, "ctf"),
        "ICT": lambda: direct(case, "ict", **ratio),
        "mixed approach, contact by ICT": lambda: direct(case, "mixed", **ratio),
        "mixed approach, contact image": lambda: direct(case, "mixed", contact=case.contact),
        "alternating projections, 200 steps": lambda: projected(case, "er"),
        "RAAR, 200 steps": lambda: projected(case, "raar"),
        "model-based": lambda: retrieved(case, case.counts),
        f"model-based, one delta/beta ({main})": lambda: retrieved(case, case.counts, material=case.materials[main]),
        "model-based, materials named": lambda: retrieved(case, case.counts, materials=case.materials),
    }
    if case.moved is not None:
        moved = case.moved
        lines |= {
            "registration alone, raw_shifted_counts": lambda: registered(case),
            "model-based, raw_shifted_counts": lambda: retrieved(case, moved),
            "model-based, materials named, raw_shifted_counts": lambda: retrieved(
                case, moved, materials=case.materials
            ),
        }
    return {f"diffrecon {label}": line for label, line in lines.items()}


# ---------------------------------------------------------------------------------------------------- peers
def peers(case: Case, python: Path, program: str, folder: Path, words: list[str]) -> Iterator[tuple[str, Any]]:
    """The cases of another program as they come, by its own interpreter: label, and line of the table."""
    source = folder / "in.npz"
    np.savez(
        source,
        images=case.images,
        contact=case.contact,
        truth=case.truth,
        pixel=case.pixels.min(),
        distances=case.distances,
        wavelength=case.beam.wavelength,
        energy=case.beam.energy,
        beta_delta=1 / case.delta_beta,
        oracle_beta_delta=1 / case.oracle_delta_beta,
        cut=case.cut,
        goes_on=case.goes_on,
    )
    command = [str(python), str(Path(__file__).with_name("holography_peers.py")), str(source), str(folder), program]
    with open(folder / "said", "w+") as said:
        with subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=said, text=True) as run:
            for line in run.stdout or ():
                found = json.loads(line)
                yield (
                    found["label"],
                    found.get("failed")
                    or judged(case, np.load(found["file"]), found["cpu"], found["wall"], found["note"]),
                )
        if run.returncode:
            said.seek(0)
            yield program, f"left out: {([*said.read().splitlines(), 'no word'])[-2 if said.tell() else -1]}"


# ---------------------------------------------------------------------------------------------------- speed
def speed(python: Path | None, folder: Path) -> None:
    """CTF of 4 x 1024^2, padded to twice the size; ours with vacuum needs no padding for that."""
    random, size, distances = np.random.default_rng(0), 1024, np.array((0.021, 0.022, 0.025, 0.032))
    images = (random.poisson(4000, (4, size, size)) / 4000).astype(np.float32)
    beam = {"pixel_size": 5e-8, "wavelength": 7.3e-11}
    given = {**beam, "distances": distances, "delta_beta": 2600.0}
    learnt = dr.solvers.ctf(images, **given).regularisation
    cases = {
        "vacuum (sine transform)": {},
        "vacuum, regularisation as learnt before": {"regularisation": learnt},
        "smooth (padded)": {"outside": "smooth"},
        "smooth, regularisation given": {"outside": "smooth", "regularisation": (0.0, 5e-2)},
    }
    for label, more in cases.items():
        _, cpu, wall = timed(lambda more=more: np.asarray(dr.solvers.ctf(images, **given, **more).phase))
        print(f"{'diffrecon CTF 4 x 1024^2, ' + label:65s} CPU {cpu:.3f} s   wall {wall:.3f} s", flush=True)
    if python is None:
        return
    source = folder / "in.npz"
    np.savez(
        source,
        images=images,
        contact=images[0],
        truth=images[0],
        pixel=5e-8,
        distances=distances,
        wavelength=7.3e-11,
        energy=17e3,
        beta_delta=1 / 2600,
        oracle_beta_delta=1 / 2600,
    )
    command = [str(python), str(Path(__file__).with_name("holography_peers.py")), str(source), str(folder), "speed"]
    for line in subprocess.run(command, capture_output=True, text=True).stdout.splitlines():
        found = json.loads(line)
        print(
            f"{found['label'] + ' 4 x 1024^2':65s} "
            + (found.get("failed") or f"CPU {found['cpu']:.3f} s   wall {found['wall']:.3f} s"),
            flush=True,
        )


def note(case: Case, label: str, found: Row) -> None:
    """Note what the table of all benchmarks has: one filter, or iterations; ours without what the truth chose."""
    ours = label.startswith(table.OURS)
    if ours and "oracle" in label:
        return
    steps = any(word in label for word in ("model-based", "TV", "Tikhonov", "iter"))
    name = f"four holograms, {case.name}: {'iterative' if steps else 'one filter'}"
    table.note(name, "phase error", found.error, table.OURS if ours else label)


def show(label: str, measure: Callable[[], Any], case: Case | None = None) -> None:
    """A line of the table; a case that fails says so, and the others go on."""
    try:
        found = measure()
        print(f"{label:65s} {found}", flush=True)
        if case is not None:
            note(case, label, found)
    except Exception as error:
        print(f"{label:65s} failed: {type(error).__name__}: {error}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="files of simulated holograms")
    parser.add_argument("--peers", type=Path, help="the Python of an environment with hotopy, nabu, pyphase")
    parser.add_argument("--cases", nargs="*", default=[], metavar="WORD", help="cases whose label holds one of these")
    parser.add_argument("--list", action="store_true", help="print the labels of our cases")
    parser.add_argument("--speed", action="store_true")
    given = table.arguments(parser).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.speed:
            speed(given.peers, folder)
        for case in [read(path) for path in given.data] or [own(folder)]:
            if given.speed:
                show(f"diffrecon model-based, {case.name}, to {TARGET}", lambda case=case: until(case, TARGET))
            elif given.list:
                print("\n".join(ours(case)))
            else:
                lines_of(case, given.peers, given.cases, folder)
    table.keep(given, "python benchmarks/holography.py --data FILE ... --peers PYTHON")


def lines_of(case: Case, python: Path | None, words: list[str], folder: Path) -> None:
    """All chosen lines of a case."""
    print(
        f"{case.name}: phase down to {case.truth.min():.2f} rad, delta/beta of {next(iter(case.materials))} "
        f"{case.delta_beta:.0f}, of all materials {case.oracle_delta_beta:.0f}",
        flush=True,
    )
    for label, measure in ours(case).items():
        if not words or any(word.lower() in label.lower() for word in words):
            show(label, measure, case)
    for program in PEERS[:1] if case.goes_on else PEERS:
        if python is None and importlib.util.find_spec(program) is None:
            print(f"{program}: left out, not installed (pip install {program}, or --peers PYTHON)")
            continue
        for label, row in peers(case, python or Path(sys.executable), program, folder, words):
            print(f"{label:65s} {row}", flush=True)
            if isinstance(row, Row):
                note(case, label, row)


if __name__ == "__main__":
    main()
