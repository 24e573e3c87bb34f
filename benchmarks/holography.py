"""In-line holography: direct methods and model-based retrieval beside hotopy, nabu and pyphase.

    python benchmarks/holography.py [--data FILE ...] [--peers PYTHON] [--only NAME ...] [--speed]

FILE holds four simulated holograms with their truth: `raw_counts`, `raw_shifted_counts` (frames that moved), `photons`,
`pixel_eff_m`, `distance_eff_m`, `z1_m`, `L_m`, `detector_pixel_m`, `energy_keV`, `truth_phase`, `truth_B` and, as
attribute `materials`, their formulas and densities; without it the demo's own object is simulated. PYTHON is the
interpreter of an environment with the other programs (`pip install hotopy nabu pyphase`); what is missing there is left
out with a line. Its settings are in `holography_peers.py`.

Error: |phase - truth| / |truth|, means removed, without the outer 16 pixels. Resolution: half period at which the
Fourier ring correlation with the truth (Hann window, mean of five rings) falls below 0.5. "Oracle": the settings that
are best for the truth. Seconds are of a second call, after compilation; for model-based retrieval the median chunk
times the number of steps.
"""

import argparse
import dataclasses
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import jax
import numpy as np
from holography_peers import timed
from ptychography import Stopwatch

import diffrecon as dr
from diffrecon.simulate import _holography as demo

PEERS = ("hotopy", "nabu", "pyphase")


@dataclasses.dataclass(frozen=True)
class Case:
    """Holograms with their truth. `images` are on one pixel, divided by the empty beam; `materials` are `name: formula,
    density`, the main one first."""

    name: str
    counts: np.ndarray
    moved: np.ndarray | None
    shifts: np.ndarray | None
    flux: float
    beam: dr.ConeBeam
    truth: np.ndarray
    delta_beta: float
    oracle_delta_beta: float
    materials: dict[str, str]

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
        frames = []
        for frame, pixel in zip(self.counts / self.flux, self.pixels, strict=True):
            rows, columns = (_cubic(n, self.pixels.min() / pixel) for n in frame.shape)
            frames.append(rows @ (frame - 1) @ columns.T + 1)
        return np.stack(frames).astype(np.float32)

    def scan(self, counts: np.ndarray) -> dr.Scan:
        return dr.Scan.from_arrays(counts, method="holography", geometry=self.beam, flux=self.flux)


def _cubic(size: int, ratio: float) -> np.ndarray:
    place = (np.arange(size) - (size - 1) / 2) * ratio + (size - 1) / 2
    d = np.abs(place[:, None] - np.arange(size))
    return np.where(d < 1, 1.5 * d**3 - 2.5 * d**2 + 1, np.where(d < 2, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2, 0))


# ---------------------------------------------------------------------------------------------------- cases
def read(path: Path) -> Case:
    """A file of simulated holograms; the material with most phase is the main one."""
    with h5py.File(path) as file:
        number = lambda name: float(file[name][()])
        beam = dr.ConeBeam(number("energy_keV") * 1e3, file["z1_m"][()], number("L_m"), number("detector_pixel_m"))
        table = json.loads(file.attrs["materials"])
        here = {name: float(file[f"thickness/{name}"][()].sum()) * table[name]["delta"] for name in file["thickness"]}
        names = sorted(here, key=lambda name: -here[name])
        phase, attenuation = file["truth_phase"][()], file["truth_B"][()]
        moved = file["raw_shifted_counts"][()] if "raw_shifted_counts" in file else None
        return Case(
            path.stem, file["raw_counts"][()], moved, None if moved is None else file["shifts_px_raw_yx"][()],
            number("photons"), beam, phase, table[names[0]]["delta"] / table[names[0]]["beta"],
            float(-(phase**2).sum() / (phase * attenuation).sum()),
            {name: f"{table[name]['formula']}, {table[name]['rho']}" for name in names},
        )


def own(folder: Path, seed: int = 3) -> Case:
    """The demo's object, moved by nothing."""
    path = folder / "demo.h5"
    truth = demo.write(path, seed)
    scan, (delta, beta) = dr.open_scan(path), demo.RESIN
    phase, attenuation = truth["phase"], truth["attenuation"]
    return Case("demo", np.asarray(scan.counts), None, None, demo.FLUX, scan.geometry, phase, delta / beta,
                float(-(phase**2).sum() / (phase * attenuation).sum()),
                {"resin": "C5H8O2, 1.19", "silica": "SiO2, 2.2"})


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
    inner = (slice(16, -16), slice(16, -16))
    found, truth = (np.asarray(a, float)[inner] for a in (phase, case.truth))
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
        return np.asarray(dr.solvers.alternating_projections(
            images, **case.optics, distances=case.distances, rule=rule, steps=200, delta_beta=case.delta_beta).phase)

    phase, cpu, wall = timed(run)
    return judged(case, phase, cpu, wall)


def retrieved(case: Case, counts: np.ndarray, **settings: Any) -> Row:
    """`dr.reconstruct` of raw frames."""
    watch = Stopwatch()
    result = dr.reconstruct(case.scan(counts), "holography", settings, watch)
    note = ""
    if case.shifts is not None and counts is case.moved and "shifts" in result.quantities:
        error = np.abs(np.asarray(result.quantities["shifts"].data) - case.shifts).max()
        note = f"shifts to {error:.3f} pixels"
    return judged(case, np.asarray(result.quantities["phase"].data), watch.seconds(), note=note)


def registered(case: Case) -> str:
    """Registration alone, of the frames that moved."""
    start = time.process_time()
    shifts, _ = dr.prepare.register_distances(
        case.moved, case.flux, pixels=case.pixels, distances=case.distances, wavelength=case.beam.wavelength,
        delta_beta=case.delta_beta)
    error = np.abs(shifts - case.shifts).max()
    return f"shifts to {error:.3f} pixels   CPU {time.process_time() - start:.2f} s"


def ours(case: Case) -> dict[str, Callable[[], Any]]:
    """Every line of ours by label."""
    ratio = {"delta_beta": case.delta_beta}
    lines: dict[str, Callable[[], Any]] = {
        "Paganin": lambda: direct(case, "paganin", **ratio),
        "Paganin, mirror": lambda: direct(case, "paganin", outside="mirror", **ratio),
        "Paganin, smooth": lambda: direct(case, "paganin", outside="smooth", **ratio),
        "CTF": lambda: direct(case, "ctf", **ratio),
        "CTF, mirror": lambda: direct(case, "ctf", outside="mirror", **ratio),
        "CTF, border unmeasured": lambda: direct(case, "ctf", outside="unmeasured", **ratio),
        "CTF, oracle delta/beta": lambda: direct(case, "ctf", delta_beta=case.oracle_delta_beta),
        "CTF, two unknowns": lambda: direct(case, "ctf"),
        "ICT": lambda: direct(case, "ict", **ratio),
        "mixed approach": lambda: direct(case, "mixed", **ratio),
        "alternating projections, 200 steps": lambda: projected(case, "er"),
        "RAAR, 200 steps": lambda: projected(case, "raar"),
        "model-based": lambda: retrieved(case, case.counts),
        "model-based, one material": lambda: retrieved(
            case, case.counts, model={"material": next(iter(case.materials.values()))}),
        "model-based, materials named": lambda: retrieved(case, case.counts, model={"materials": case.materials}),
    }
    if case.moved is not None:
        moved = case.moved
        lines |= {
            "registration alone, unknown shifts": lambda: registered(case),
            "model-based, unknown shifts": lambda: retrieved(case, moved, model={"shifts": "register"}),
            "model-based, materials named, unknown shifts": lambda: retrieved(
                case, moved, model={"materials": case.materials, "shifts": "register"}),
        }
    return lines


# ---------------------------------------------------------------------------------------------------- peers
def peers(case: Case, python: Path, program: str, folder: Path) -> dict[str, Row]:
    """Every case of another program, by its own interpreter. **Raises** `ImportError` when it is not there."""
    source, target = folder / "in.npz", folder / "out.npz"
    np.savez(source, images=case.images, truth=case.truth, pixel=case.pixels.min(), distances=case.distances,
             wavelength=case.beam.wavelength, energy=case.beam.energy, beta_delta=1 / case.delta_beta)
    command = [str(python), str(Path(__file__).with_name("holography_peers.py")), str(source), str(target), program]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ImportError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
    found = np.load(target)
    table = json.loads(str(found["table"]))
    return {row["label"]: judged(case, found[f"phase{i}"], row["cpu"], row["wall"]) for i, row in enumerate(table)}


def speed() -> None:
    """CTF of 4 x 1024^2, padded to twice the size."""
    images = np.random.default_rng(0).poisson(4000, (4, 1024, 1024)).astype(np.float32) / 4000
    given = {"pixel_size": 5e-8, "wavelength": 7.3e-11, "delta_beta": 2600.0, "distances": (0.021, 0.022, 0.025, 0.032)}
    first = dr.solvers.ctf(images, **given)
    for label, more in (("chosen from the data", {}), ("as chosen before", {"regularisation": first.regularisation})):
        _, cpu, wall = timed(lambda more=more: np.asarray(dr.solvers.ctf(images, **given, **more).phase))
        print(f"CTF, 4 x 1024^2, regularisation {label:24s} CPU {cpu:.3f} s   wall {wall:.3f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="files of simulated holograms")
    parser.add_argument("--peers", type=Path, help="the Python of an environment with hotopy, nabu, pyphase")
    parser.add_argument("--programs", nargs="*", default=list(PEERS), choices=PEERS)
    parser.add_argument("--only", nargs="*", help="lines of ours that contain one of these words; no other program")
    parser.add_argument("--speed", action="store_true")
    given = parser.parse_args()
    if given.speed:
        speed()
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in [read(path) for path in given.data] or [own(folder)]:
            print(f"{case.name}: phase down to {case.truth.min():.2f} rad, delta/beta {case.delta_beta:.0f}, of all "
                  f"materials {case.oracle_delta_beta:.0f}")
            for label, measure in ours(case).items():
                if not given.only or any(word in label for word in given.only):
                    show(f"diffrecon {label}", measure)
            for program in () if given.only else given.programs:
                if given.peers is None:
                    print(f"{program}: left out, no --peers")
                    continue
                try:
                    for label, row in peers(case, given.peers, program, folder).items():
                        show(label, lambda row=row: row)
                except ImportError as error:
                    print(f"{program}: left out, {error}")


def show(label: str, measure: Callable[[], Any]) -> None:
    """A line of the table; what this version does not know says so."""
    try:
        print(f"{label:55s} {measure()}", flush=True)
    except (dr.InputError, AttributeError) as error:
        print(f"{label:55s} left out: {error}", flush=True)


if __name__ == "__main__":
    main()
