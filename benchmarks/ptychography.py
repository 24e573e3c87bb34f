"""Ptychography of two measured scans: the recipe of diffrecon beside cdtools' own example, on views that neither has
seen.

    python benchmarks/ptychography.py --data FOLDER [--epochs 20 40 150] [--peer]

FOLDER holds `p25_near_field.cxi` (https://doi.org/10.5281/zenodo.17899482) and `siemens_far_field.npz`. Every tenth
view from the sixth on is held out; of these only two coordinates and a gain are fitted. R is the amplitude residual,
deviance is Poisson, a pixel. Times are processor seconds of the process without compilation (the median chunk, times
the number of steps).
"""

import argparse
import time
from pathlib import Path

import numpy as np

import diffrecon as dr
from diffrecon.recipes import _ptychography as recipe


class Stopwatch(dr.Console):
    """A silent console that notes the processor time at every report of progress."""

    def __init__(self):
        super().__init__(quiet=True)
        self.marks: list[tuple[int, float]] = []

    def progress(self, total, label):
        shown = super().progress(total, label)
        shown.update = lambda done, **figures: self.marks.append((done, time.process_time()))
        return shown

    def seconds(self) -> float:
        """Steps times the median processor time of a step; the first chunk, which compiles, does not count."""
        steps, times = np.diff(np.asarray(self.marks), axis=0).T
        return float(np.median(times / steps) * self.marks[-1][0])


def held_views(views: int) -> np.ndarray:
    """Every tenth view from the sixth on."""
    return np.arange(5, views, 10)


def diffrecon(scan: dr.Scan, method: str, epochs: int, modes: int | None = None) -> tuple[float, float, float]:
    """Processor seconds, R and deviance of the recipe."""
    chosen = {"solver": {"epochs": epochs}} | ({} if modes is None else {"model": {"modes": modes}})
    settings = dr.recipes.merge(dr.recipes.defaults(method), chosen, method)
    scan = scan.replace(method=method)
    start = dr.models.Ptychography.from_scan(scan, settings["model"]["modes"], margin=settings["model"]["margin"])
    data, held, watch = recipe._data(scan), held_views(scan.views), Stopwatch()
    solution = recipe._descend(start, data, held, settings, watch)
    model, judged = recipe._fit_held_out(recipe.place_unseen(solution.value, start.positions, held), data, held)
    figures, _ = recipe._judge(model, judged, data, held, settings)
    return watch.seconds(), figures["held_out_residual"], figures["held_out_deviance"]


def cdtools_near_field(path: Path, modes: int = 1) -> tuple[float, float, float]:
    """The settings of cdtools' example for this file: Adam, 100 epochs of batches of 10, then 50 of batches of 50."""
    import cdtools  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    dataset = cdtools.datasets.Ptycho2DDataset.from_cxi(str(path))
    held = held_views(len(dataset.patterns))
    train = np.setdiff1d(np.arange(len(dataset.patterns)), held)
    patterns, moves = dataset.patterns[held], dataset.translations[held]
    dataset.patterns, dataset.translations = dataset.patterns[train], dataset.translations[train]
    model = cdtools.models.FancyPtycho.from_dataset(
        dataset, n_modes=modes, near_field=True, propagation_distance=3.65e-3
    )
    reconstructor = cdtools.reconstructors.AdamReconstructor(model, dataset)
    before = time.process_time()
    for epochs, rate, size in ((100, 0.04, 10), (50, 0.005, 50)):
        for _ in reconstructor.optimize(epochs, lr=rate, batch_size=size):
            pass
    seconds = time.process_time() - before
    counts, mask = patterns.numpy(), model.mask.bool().numpy()
    prediction = _fit_cdtools(model, patterns, moves, train, held)
    return seconds, *judge(counts, prediction, mask)


def _fit_cdtools(model, counts, moves, train, held) -> np.ndarray:
    """Two coordinates and a gain of each held-out view, started between its neighbours in time."""
    import torch  # pyright: ignore[reportMissingImports]

    found = model.translation_offsets.detach().numpy()
    start = np.stack([np.interp(held, train, found[:, axis]) for axis in (0, 1)], -1)
    offsets = torch.nn.Parameter(torch.as_tensor(start, dtype=torch.float32))
    del model.translation_offsets
    model.translation_offsets, model.weights = offsets, torch.nn.Parameter(torch.ones(len(held)))
    index, mask = torch.arange(len(held)), model.mask.bool()

    def predict():
        frames = model.forward(index, moves)
        return frames * ((counts * mask).sum((1, 2)) / (frames * mask).sum((1, 2)))[:, None, None]

    optimiser = torch.optim.Adam([offsets], lr=0.1 / model.translation_scale)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 60)
    for _ in range(60):
        optimiser.zero_grad()
        loss = ((torch.sqrt(predict() + 1e-2) - torch.sqrt(counts + 1e-2))[:, mask] ** 2).mean()
        loss.backward()
        optimiser.step()
        schedule.step()
    return predict().detach().numpy()


def judge(counts: np.ndarray, prediction: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """R and deviance by the same functions for every program."""
    mask = np.broadcast_to(mask, counts.shape)
    return dr.quality.held_out_residual(counts, prediction, mask), dr.quality.deviance(counts, prediction, mask)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, nargs="*", default=[20, 40, 80, 150], help="of the near field")
    parser.add_argument("--far-epochs", type=int, nargs="*", default=[6, 12])
    parser.add_argument(
        "--modes", type=int, default=None, help="probe modes, both programs (their own choice by default)"
    )
    parser.add_argument("--no-peer", action="store_true")
    given = parser.parse_args()

    say = lambda name, numbers: print(
        f"{name:44s} CPU {numbers[0]:7.2f} s   R {numbers[1]:.4f}   deviance {numbers[2]:.3f}", flush=True
    )
    near, far = given.data / "p25_near_field.cxi", given.data / "siemens_far_field.npz"
    if near.exists():
        scan = dr.open_scan(near, focus_to_sample="3.65 mm")
        for epochs in given.epochs:
            say(f"P25, diffrecon, {epochs} epochs", diffrecon(scan, "near-field-ptychography", epochs, given.modes))
        if not given.no_peer:
            try:
                say("P25, cdtools, 150 epochs", cdtools_near_field(near, given.modes or 1))
            except ImportError as error:
                print(f"cdtools is not there ({error})")
    if far.exists():
        scan = dr.open_scan(far)
        for epochs in given.far_epochs:
            say(f"siemens, diffrecon, {epochs} epochs", diffrecon(scan, "far-field-ptychography", epochs, given.modes))


if __name__ == "__main__":
    main()
