"""Other ptychography programs, run as their own examples and tests do, for `ptychography.py`.

    pip install ptychi PtyLab cdtools-py

Each function takes a `Case` and the views to fit, and returns what it found as a `Found`. Starts are the same for all
(cdtools makes its own): a flat object, the probe from the file or from the mean frame scaled to the counts, positions
as in the file. Settings:

- pty-chi: batches of 44 (its tests: 44 or 96; near field 16, patches padded by 50 for shifts), LSQML with steps of 1
  and Gaussian noise, positions with a step of 0.1; autodiff with Adam and 0.01, times the probe's amplitude for the
  probe, which is in counts here.
- PtyLab: ePIE as it comes, no position correction in the far field; whole pixels, as it does.
- cdtools: its example for the near-field file (Adam, 0.04 and batches of 10, then 0.005 and batches of 50); in the
  far field its general example (0.02, then 0.005) without oversampling, so that pixels are the same for all.
"""

import contextlib
import dataclasses
import io
import logging
import os
import time
from collections.abc import Callable

import numpy as np

import diffrecon as dr

THREADS = 2
# Threads that wait in a loop would be counted as work, many times over on a machine that others use.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@dataclasses.dataclass(frozen=True)
class Case:
    """A scan in FFT order and the first guess of the model: its probe has `modes` modes."""

    scan: dr.Scan
    start: dr.models.Ptychography

    @property
    def counts(self) -> np.ndarray:
        return np.asarray(self.scan.counts)

    @property
    def mask(self) -> np.ndarray:
        return np.ones(self.scan.frame_shape, bool) if self.scan.mask is None else np.asarray(self.scan.mask)

    @property
    def corners(self) -> np.ndarray:
        return np.asarray(self.start.positions, float)

    @property
    def lengths(self) -> tuple[float, float, float]:
        """Object pixel, wavelength and effective distance [m] of the near field."""
        pixel, wavelength, distance = (
            float(np.mean(np.asarray(getattr(self.start, name)))) for name in ("pixel_size", "wavelength", "distance")
        )
        return pixel, wavelength, distance


@dataclasses.dataclass(frozen=True)
class Found:
    """What a program found for the views it fitted.

    `seconds` of the processor; `corners` (row, column) [pixel] of the patches in `object`; `predict(views, moves)`, if
    the program predicts frames by itself, gives frames of any views of the case moved by `moves` [pixel], a torch
    tensor, from where their neighbours in time were found; otherwise the judge does, from object, probe and corners.
    """

    seconds: float
    object: np.ndarray
    probe: np.ndarray
    corners: np.ndarray
    shifts_back: bool = True
    predict: Callable | None = None


def versions() -> dict[str, str]:
    """Versions of the programs that are installed."""
    from importlib import metadata

    found = {}
    for name in ("ptychi", "PtyLab", "cdtools-py", "torch"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


# ---------------------------------------------------------------------------------------------------- pty-chi
def ptychi(case: Case, views: np.ndarray, epochs: int, engine: str = "lsqml", positions: bool = False) -> Found:
    """pty-chi's LSQML or autodiff engine."""
    import torch  # pyright: ignore[reportMissingImports]
    from ptychi.api.task import PtychographyTask  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(THREADS)
    logging.disable(logging.WARNING)
    options = _ptychi_options(case, epochs, engine, positions)
    start = case.corners[views]
    task = PtychographyTask(
        options,
        diffraction_data=case.counts[views].astype(np.float32),
        object_data=np.ones((1, *case.start.object.shape), np.complex64),
        probe_data=np.asarray(case.start.probe)[None].astype(np.complex64),
        probe_position_y_px=start[:, 0].astype(np.float32),
        probe_position_x_px=start[:, 1].astype(np.float32),
        valid_pixel_mask=case.mask,
    )
    before = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        task.run()
    seconds = time.process_time() - before
    get = lambda name: task.get_data_to_cpu(name, as_numpy=True)
    # Its near field moves the beam and leaves the frame where that puts it.
    return Found(seconds, get("object")[0], get("probe")[0], get("probe_positions"), shifts_back=case.start.far)


def _ptychi_options(case: Case, epochs: int, engine: str, positions: bool):
    import ptychi.api as api  # pyright: ignore[reportMissingImports]

    model = case.start
    lsqml = engine == "lsqml"
    options = api.LSQMLOptions() if lsqml else api.AutodiffPtychographyOptions()
    general, obj, probe = options.reconstructor_options, options.object_options, options.probe_options
    general.num_epochs, general.batch_size = epochs, 44 if model.far else 16
    general.random_seed, general.default_device = 0, api.Devices.CPU
    obj.optimizer = probe.optimizer = api.Optimizers.SGD if lsqml else api.Optimizers.ADAM
    power = np.abs(np.asarray(model.probe)) ** 2
    amplitude = float(np.sqrt((power**2).sum() / power.sum()))
    obj.step_size, probe.step_size = (1, 1) if lsqml else (0.01, 0.01 * amplitude)
    # The origin in the middle of the first patch: positions are then corners.
    obj.determine_position_origin_coords_by = api.ObjectPosOriginCoordsMethods.SPECIFIED
    obj.position_origin_coords = [(n - 1) / 2 for n in model.probe.shape[-2:]]
    moves = options.probe_position_options
    moves.optimizable, moves.step_size = positions, 0.1
    if not lsqml:
        moves.optimizer, moves.step_size = api.Optimizers.ADAM, 0.01
    options.data_options.fft_shift = False
    if not model.far:
        data = options.data_options
        obj.pixel_size_m, data.wavelength_m, data.free_space_propagation_distance_m = case.lengths
        general.forward_model_options.pad_for_shift = 50
    return options


# ---------------------------------------------------------------------------------------------------- PtyLab
def ptylab(case: Case, views: np.ndarray, epochs: int) -> Found:
    """PtyLab's ePIE, one mode."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        engine, state = _ptylab_engine(case, views)
        engine.numIterations = epochs
        before = time.process_time()
        engine.reconstruct()
        seconds = time.process_time() - before
    return Found(seconds, state.object.squeeze(), state.probe.squeeze()[None], np.asarray(state.positions, float))


def _ptylab_engine(case: Case, views: np.ndarray):
    import PtyLab  # pyright: ignore[reportMissingImports]
    from PtyLab.Monitor.Monitor import DummyMonitor  # pyright: ignore[reportMissingImports]

    np.random.seed(0)
    logging.disable(logging.WARNING)
    model, size = case.start, case.scan.frame_shape[0]
    data = PtyLab.ExperimentalData("test:nodata")
    # In units of the object's pixel: nothing but ratios counts in the far field.
    pixel, data.wavelength, data.zo = (1.0, 1.0, size) if model.far else case.lengths
    data.dxd = pixel
    frames = case.counts[views].astype(np.float32)
    data.ptychogram = np.fft.fftshift(frames, (-2, -1)) if model.far else frames
    corners = case.corners[views]
    data.encoder = (corners - corners.mean(0)) * pixel
    data._setData()
    params = PtyLab.Params()
    params.gpuSwitch = False
    params.propagatorType = "Fraunhofer" if model.far else "ASP"
    params.positionCorrectionSwitch = not model.far
    state = PtyLab.Reconstruction(data, params)
    if not model.far:
        state.dxp = pixel
        del state.No
        state.computeParameters()
    state.initializeObjectProbe()
    state.probe[...] = np.asarray(model.probe)[0]
    return PtyLab.Engines.ePIE(state, data, params, DummyMonitor()), state


# ---------------------------------------------------------------------------------------------------- cdtools
def cdtools(case: Case, views: np.ndarray, epochs: tuple[int, int], modes: int = 1) -> Found:
    """cdtools' FancyPtycho with Adam in two stages; it predicts frames by itself."""
    import cdtools  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    moves, dataset = _cdtools_dataset(case, views)
    far = case.start.far
    model = cdtools.models.FancyPtycho.from_dataset(dataset, n_modes=modes, near_field=not far)
    reconstructor = cdtools.reconstructors.AdamReconstructor(model, dataset)
    before = time.process_time()
    for count, rate, size in zip(epochs, (0.02 if far else 0.04, 0.005), (10, 50), strict=True):
        for _ in reconstructor.optimize(count, lr=rate, batch_size=size):
            pass
    seconds = time.process_time() - before
    pixels = cdtools.tools.interactions.translations_to_pixel(model.obj_basis, moves) - model.min_translation
    offsets = (model.translation_scale * model.translation_offsets).detach().numpy()
    corners = pixels.detach().numpy()[views] + offsets

    def predict(chosen, extra):
        start = torch.as_tensor(between_neighbours(offsets, views, chosen), dtype=torch.float32)
        model.translation_offsets = None
        model.weights = torch.nn.Parameter(torch.ones(len(chosen)))
        shift = (start + extra) @ model.obj_basis.T.to(torch.float32)
        frames = model.forward(torch.arange(len(chosen)), moves[chosen] + shift)
        return torch.fft.ifftshift(frames, dim=(-2, -1)) if far else frames

    obj, probe = (np.asarray(a.detach().numpy()) for a in (model.obj, model.probe))
    return Found(seconds, obj, probe, corners, predict=predict)


def _cdtools_dataset(case: Case, views: np.ndarray):
    """All translations, and a dataset of some views: with a basis of pixels, in the near field of the magnified one."""
    import torch  # pyright: ignore[reportMissingImports]
    from cdtools.datasets import Ptycho2DDataset  # pyright: ignore[reportMissingImports]

    model, size = case.start, case.scan.frame_shape[0]
    pixel, wavelength, distance = (1e-8, 1e-10, 1.0) if model.far else case.lengths
    step = wavelength * distance / (size * pixel) if model.far else pixel
    basis = np.array([[0.0, step], [step, 0.0], [0.0, 0.0]])
    moves = np.pad(case.corners[:, ::-1] * pixel, ((0, 0), (0, 1))).astype(np.float32)
    frames, mask = case.counts[views].astype(np.float32), case.mask
    if model.far:
        frames, mask = np.fft.fftshift(frames, (-2, -1)), np.fft.fftshift(mask)
    dataset = Ptycho2DDataset(
        moves[views],
        frames,
        wavelength=wavelength,
        mask=torch.as_tensor(mask),
        detector_geometry={"distance": distance, "basis": torch.as_tensor(basis, dtype=torch.float32), "corner": None},
    )
    return torch.as_tensor(moves), dataset


def between_neighbours(moves: np.ndarray, seen: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """Moves of views never fitted, from those next to them in time: position errors drift smoothly."""
    return np.stack([np.interp(unseen, seen, moves[:, axis]) for axis in (0, 1)], -1)
