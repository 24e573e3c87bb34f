"""Ptychography of two measured scans: the recipe of diffrecon beside pty-chi, PtyLab and cdtools, on views that none
has seen.

    python benchmarks/ptychography.py --data FOLDER [--only NAME ...] [--halves] [--no-peers] [--batches]

FOLDER holds `p25_near_field.cxi` (https://doi.org/10.5281/zenodo.17899482) and `siemens_far_field.npz`. Every tenth
view from the sixth on is held out; of these only two coordinates and a gain are fitted, for every program in the same
way. R is the amplitude residual, deviance is Poisson, a pixel. FRC: frequency, as a fraction of Nyquist, where two
reconstructions of alternate views of the rest (the same settings, for each half) fall below the half-bit curve, phases
correlated over the scanned area, ours without the prior of sparse edges.
Times are processor seconds: of ours without compilation (the median chunk times the
number of steps), of the others what their loop takes. Programs that are not installed are left out, with a line; which
settings they run with is in `ptychography_peers.py`.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import ptychography_peers as peers
import table
from ptychography_peers import Case, Found

import diffrecon as dr


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table; what was not measured is NaN."""

    seconds: float
    residual: float = float("nan")
    deviance: float = float("nan")
    frc: float = float("nan")

    def __str__(self) -> str:
        return f"CPU {self.seconds:7.2f} s   R {self.residual:.4f}   deviance {self.deviance:6.3f}   FRC {self.frc:.3f}"


class Stopwatch(dr.Console):
    """A silent console that notes the processor time at every report of progress."""

    def __init__(self):
        super().__init__(quiet=True)
        self.stages: list[list[tuple[int, float]]] = []

    def progress(self, total, label):
        shown = super().progress(total, label)
        marks: list[tuple[int, float]] = []
        self.stages.append(marks)
        shown.update = lambda done, **figures: marks.append((done, time.process_time()))
        return shown

    def seconds(self) -> float:
        """Steps times the median processor time of a step, of all stages; the first chunk, which compiles, does not
        count."""
        return sum(self._stage(np.asarray(marks)) for marks in self.stages if len(marks) > 1)

    @staticmethod
    def _stage(marks: np.ndarray) -> float:
        steps, times = np.diff(marks, axis=0).T
        return float(np.median(times / steps) * marks[-1, 0])


def held_views(views: int) -> np.ndarray:
    """Every tenth view from the sixth on."""
    return np.arange(5, views, 10)


def open_case(scan: dr.Scan, modes: int = 1) -> Case:
    """The scan in the order of the FFT and the first guess."""
    return Case(scan.in_fft_order(), dr.models.Ptychography.from_scan(scan, modes))


# ---------------------------------------------------------------------------------------------------- ours
def diffrecon(scan: dr.Scan, method: str, halves: bool = False, **settings: Any) -> Row:
    """One command of diffrecon, judged by itself."""
    held, watch = held_views(scan.views), Stopwatch()
    quality = {"quality": {"held_out_views": held.tolist()}}
    found = dr.reconstruct(scan, method, settings | quality, watch).quality
    return Row(
        watch.seconds(),
        found["held_out_residual"],
        found["held_out_deviance"],
        _diffrecon_frc(scan, method, settings) if halves else float("nan"),
    )


def _diffrecon_frc(scan: dr.Scan, method: str, settings: dict[str, Any]) -> float:
    corners = open_case(scan).corners
    # A prior sharpens the edges of both halves alike, beyond what was measured.
    settings = settings | {"loss": {"tv": 0}}
    images = []
    for views in half_scans(scan.views):
        result = dr.reconstruct(scan.subset(views), method, settings | {"quality": {"held_out": 0}}).quantities
        places = np.asarray(result["positions"].data) / (result["positions"].pixel_size or 1.0)
        image = np.asarray(result["object"].data)
        images.append(scanned_area(image, places, corners, views, scan.frame_shape))
    return half_bit(*images)


# ---------------------------------------------------------------------------------------------------- judge
def row(case: Case, program: Callable[[Case, np.ndarray], Found], halves: bool = False) -> Row:
    """A program that is not ours, on the views to fit, judged on those held out."""
    views, held = case.scan.views, held_views(case.scan.views)
    found = program(case, np.setdiff1d(np.arange(views), held))
    fit = _fit_jax if found.predict is None else _fit_torch
    frames = fit(case, found, held)
    counts, mask = case.counts[held], np.broadcast_to(case.mask, frames.shape)
    return Row(
        found.seconds,
        dr.quality.held_out_residual(counts, frames, mask),
        dr.quality.deviance(counts, frames, mask),
        _frc(case, program) if halves else float("nan"),
    )


def _fit_jax(case: Case, found: Found, held: np.ndarray) -> np.ndarray:
    """Held-out frames predicted from object, probe and corners, with the coordinates and the gain that fit best."""
    seen = np.setdiff1d(np.arange(case.scan.views), held)
    moved = found.corners - case.corners[seen]
    start = case.corners[held] + peers.between_neighbours(moved, seen, held)
    obj, probe = (jnp.asarray(a, jnp.complex64) for a in (_padded(found.object, start, found.probe), found.probe))
    model = case.start.replace(object=obj, probe=probe)
    fields = {"counts": case.counts[held], "mask": case.mask}

    def predict(places, batch):
        frames = dr.operators.intensity(_waves(model, places, found.shifts_back))
        total = lambda a: jnp.sum(jnp.where(batch.mask, a, 0), (-2, -1), dtype=frames.dtype)
        return frames * (total(batch.counts) / total(frames))[:, None, None]

    cost = lambda places, batch: dr.losses.amplitude(predict(places, batch), batch.counts, batch.mask)
    schedule = optax.cosine_decay_schedule(0.1, 100, 0.02)
    places = dr.minimise(cost, jnp.asarray(start, jnp.float32), fields, optax.adam(schedule), steps=100).value
    batch = dr.Batch(np.arange(held.size), {name: jnp.asarray(value) for name, value in fields.items()})
    return np.asarray(predict(places, batch))


def _padded(obj: np.ndarray, places: np.ndarray, probe: np.ndarray) -> np.ndarray:
    """The object, with room for patches that would leave it."""
    over = np.ceil(places.max(0) + np.asarray(probe.shape[-2:]) + 4 - obj.shape[-2:]).astype(int).clip(0)
    return np.pad(obj, [(0, n) for n in over], constant_values=1)


def _waves(model: dr.models.Ptychography, places: jax.Array, shifts_back: bool) -> jax.Array:
    if model.far:
        return dr.operators.far_field(model.object, model.probe, places)
    transfer = model.transfer(model.distance)
    if shifts_back:
        return dr.operators.near_field(model.object, model.probe, places, transfer)
    corners, rest = dr.operators.split_positions(places)
    ramps = dr.operators.shift_ramps(rest, (model.probe.shape[-2], model.probe.shape[-1]))
    return jnp.fft.ifft2(jnp.fft.fft2(dr.operators.exit_waves(model.object, model.probe, corners, ramps)) * transfer)


def _fit_torch(case: Case, found: Found, held: np.ndarray) -> np.ndarray:
    """As `_fit_jax`, with the program's own prediction."""
    import torch  # pyright: ignore[reportMissingImports]

    predict = found.predict
    assert predict is not None
    counts, mask = torch.as_tensor(case.counts[held].astype(np.float32)), torch.as_tensor(case.mask)
    moves = torch.zeros((held.size, 2), requires_grad=True)

    def matched():
        frames = predict(held, moves)
        return frames * ((counts * mask).sum((1, 2)) / (frames * mask).sum((1, 2)))[:, None, None]

    optimiser = torch.optim.Adam([moves], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 100, 0.002)
    for _ in range(100):
        optimiser.zero_grad()
        loss = ((torch.sqrt(matched() + 1e-2) - torch.sqrt(counts + 1e-2))[:, mask] ** 2).mean()
        loss.backward()
        optimiser.step()
        schedule.step()
    return matched().detach().numpy()


# ---------------------------------------------------------------------------------------------------- two half scans
def half_scans(views: int) -> tuple[np.ndarray, np.ndarray]:
    """Alternate views of those not held out."""
    seen = np.setdiff1d(np.arange(views), held_views(views))
    return seen[::2], seen[1::2]


def _frc(case: Case, program: Callable[[Case, np.ndarray], Found]) -> float:
    images = []
    for views in half_scans(case.scan.views):
        found = program(case, views)
        images.append(scanned_area(found.object, found.corners, case.corners, views, case.scan.frame_shape))
    return half_bit(*images)


def scanned_area(
    image: np.ndarray, places: np.ndarray, corners: np.ndarray, views: np.ndarray, frame: tuple[int, int]
) -> np.ndarray:
    """What the middle of the probe passed over in the whole scan: the same area in both halves, to a fraction of a
    pixel."""
    offset = np.median(places - corners[views], axis=0) + np.asarray(frame) / 2
    first = np.round(corners.min(0) + offset).astype(int)
    last = first + np.floor(np.ptp(corners, axis=0)).astype(int)
    return image[first[0] : last[0], first[1] : last[1]]


def half_bit(first: np.ndarray, second: np.ndarray) -> float:
    """Crossing of the half-bit curve by the correlation of two phase images, as a fraction of Nyquist."""
    moved, _ = dr.quality.align(first, second)
    flat = np.exp(-1j * np.angle(np.sum(first)))
    phases = [np.angle(a * flat) for a in (first, moved)]
    return 2 * dr.quality.ring_correlation(*phases).crossing


# ---------------------------------------------------------------------------------------------------- tables
def near_field(path: Path, given: argparse.Namespace) -> None:
    """P25."""
    scan, name = dr.open_scan(path, focus_to_sample="3.65 mm"), "near-field-ptychography"
    for epochs in given.epochs:
        show(given, f"P25, diffrecon, {epochs} epochs", lambda n=epochs: diffrecon(scan, name, solver={"epochs": n}))
        show(
            given,
            f"P25, diffrecon, detector's pixels, {epochs} epochs",
            lambda n=epochs: diffrecon(scan, name, solver={"epochs": n}, model={"oversampling": 1}),
        )
    show(given, "P25, diffrecon, default", lambda: diffrecon(scan, name))
    if given.no_peers:
        return
    case = open_case(scan)
    near = lambda engine: lambda c, v: peers.ptychi(c, v, 60, engine, positions=True)
    show(given, "P25, cdtools, 100 + 50 epochs", lambda: row(case, lambda c, v: peers.cdtools(c, v, (100, 50))))
    show(given, "P25, pty-chi autodiff, positions, 60 epochs", lambda: row(case, near("autodiff")))
    show(given, "P25, pty-chi LSQML, positions, 60 epochs", lambda: row(case, near("lsqml")))
    show(given, "P25, PtyLab ePIE, positions, 60 epochs", lambda: row(case, lambda c, v: peers.ptylab(c, v, 60)))


def far_field(path: Path, given: argparse.Namespace) -> None:
    """Siemens star."""
    scan, name, halves = dr.open_scan(path), "far-field-ptychography", given.halves
    for epochs in given.far_epochs:
        show(
            given, f"siemens, diffrecon, {epochs} epochs", lambda n=epochs: diffrecon(scan, name, solver={"epochs": n})
        )
    for modes, epochs in ((1, 40), (3, 40), (8, 40)):
        show(
            given,
            f"siemens, diffrecon, {modes} modes, positions, {epochs} epochs",
            lambda n=epochs, m=modes: diffrecon(scan, name, halves, model={"modes": m}, solver={"epochs": n}),
        )
    if given.no_peers:
        return
    one, three = open_case(scan), open_case(scan, 3)
    say = lambda label, case, program: show(given, f"siemens, {label}", lambda: row(case, program, halves))
    say("PtyLab ePIE, 30 epochs", one, lambda c, v: peers.ptylab(c, v, 30))
    say("pty-chi autodiff, 30 epochs", one, lambda c, v: peers.ptychi(c, v, 30, "autodiff"))
    say("pty-chi LSQML, 30 epochs", one, lambda c, v: peers.ptychi(c, v, 30))
    for epochs in (30, 100):
        say(
            f"pty-chi LSQML, 3 modes, positions, {epochs} epochs",
            three,
            lambda c, v, n=epochs: peers.ptychi(c, v, n, positions=True),
        )
    say("cdtools, 50 + 50 epochs", one, lambda c, v: peers.cdtools(c, v, (50, 50)))
    say("cdtools, 3 modes, 50 + 50 epochs", one, lambda c, v: peers.cdtools(c, v, (50, 50), 3))


def batches(path: Path) -> None:
    """Processor time of a far-field epoch against the batch."""
    scan = dr.open_scan(path)
    for modes in (1, 3):
        for size in (5, 10, 20, 40, 80):
            settings: dict[str, Any] = {"model": {"modes": modes}, "solver": {"epochs": 6, "batch_size": size}}
            found = diffrecon(scan, "far-field-ptychography", **settings)
            print(
                f"siemens, {modes} modes, batches of {size:3d}: {found.seconds / 6:.3f} CPU s an epoch, "
                f"R after six {found.residual:.4f}",
                flush=True,
            )


def show(given: argparse.Namespace, label: str, measure: Callable[[], Row]) -> None:
    """A line of the table, if it is asked for; a program that is not there says so."""
    if given.only and not any(word in label for word in given.only):
        return
    try:
        found = measure()
        print(f"{label:50s} {found}", flush=True)
    except ImportError as error:
        print(f"{label:50s} left out: {error}", flush=True)
        return
    of, program, *rest = label.split(", ")
    case = {"P25": "P25, near field, measured", "siemens": "Siemens star, far field, measured"}[of]
    case, program = f"{case}: {', '.join(rest) if program == table.OURS else '*'}", program.partition(" ")[0]
    table.note(case, "held-out R", found.residual, program)
    table.note(case, "CPU s", found.seconds, program)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, nargs="*", default=[20, 40, 150], help="of the near field")
    parser.add_argument("--far-epochs", type=int, nargs="*", default=[6, 12])
    parser.add_argument("--only", nargs="*", help="lines that contain one of these words")
    parser.add_argument("--halves", action="store_true", help="also the FRC of two half scans (twice the work again)")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--batches", action="store_true", help="time of an epoch against the size of the batch")
    given = table.arguments(parser).parse_args()
    print("beside diffrecon:", ", ".join(f"{k} {v}" for k, v in peers.versions().items()) or "nothing installed")
    near, far = given.data / "p25_near_field.cxi", given.data / "siemens_far_field.npz"
    if given.batches:
        batches(far)
        return
    for path, measure in ((near, near_field), (far, far_field)):
        if path.exists():
            measure(path, given)
        else:
            print(f"{path} is not there")
    table.keep(given, "python benchmarks/ptychography.py --data FOLDER")


if __name__ == "__main__":
    main()
