"""Are the positions of a scan meant as they are written? Eight short reconstructions of some views tell."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import optax

from .. import operators
from ..frames import spread
from ..scan import Scan
from ..solvers import amplitude_cost, minimise
from ._ptychography import Ptychography

__all__ = ["OrientationReport", "check_orientation"]

AS_GIVEN = "as given"
_SMALLEST = 48  # pixels of a reduced frame: enough to tell, and every FFT in the processor's cache
_LARGEST = 96
_STEPS = (24, 120)  # of each reconstruction: for most scans, and for those where that does not decide
_BATCH = 9
_OPTIMISER = optax.adam(0.05)  # one object: one compiled program for all hypotheses


@dataclasses.dataclass(frozen=True)
class OrientationReport:
    """Say which way the positions are meant.

    **Fields:** `name` of the verdict (`"as given"`, `"rows flipped"`, `"swapped, columns flipped"`, ...), `figures` =
    residual `sqrt(sum (sqrt n - sqrt p)^2 / sum n)` by hypothesis, `ratio` of the positions' own as they are given to
    the best, `significant` = whether the best stands out from the rest (otherwise the verdict is `"as given"`),
    `matrix` `(2, 2)` that makes the positions right, and `message`, one line.
    """

    name: str
    figures: dict[str, float]
    ratio: float
    significant: bool
    matrix: np.ndarray
    message: str

    def apply(self, scan: Scan) -> Scan:
        """Give the scan with its positions as they are meant."""
        if scan.positions is None or self.name == AS_GIVEN:
            return scan
        return scan.replace(positions=scan.positions @ self.matrix.T)


def check_orientation(scan: Scan, *, views: int = 36, seed: int = 0) -> OrientationReport:
    """Find out from the data whether rows or columns of the positions are flipped or swapped.

    About `views` neighbouring views, at reduced size, are reconstructed for all eight possibilities: only the right one
    explains what overlapping views have in common. It runs longer where few steps do not decide, and leaves the
    positions as given where the data do not tell. In the near field it then also tries positions half and twice as
    large, and says so in its message if these fit.

    **What frames cannot tell** is the complex conjugate of all waves. In the near field that is the other sign of the
    distance, which is therefore not checked; in the far field it is the picture turned by 180 degrees, with both axes
    flipped: `"rows and columns flipped"` is found there only if the scan comes with a probe that says so.

    **Cost:** 192 steps of nine frames of 48 to 96 pixels, or 1200 to 1600 where the data do not tell: half a second, or
    three, of one processor, and three to compile. Reads `views` frames.

    **Raises:** `MissingMetadata` for positions and what `Ptychography.from_scan` needs.

    ```python
    rng = np.random.default_rng(0)
    scan = dr.Scan.from_arrays(rng.poisson(50, (16, 16, 16)), positions=rng.uniform(0, 12, (16, 2)),
                               positions_unit="pixel", method="far-field-ptychography")
    report = dr.models.check_orientation(scan)  # noise fits no position better than another
    assert report.name == "as given" and not report.significant
    ```
    """
    positions = scan.require("positions", "positions of the views", "/path/of/positions")
    if scan.views < _BATCH:
        return _report({}, AS_GIVEN, False, False)
    scan = scan.subset(_neighbours(positions, views))
    trial = _Trial.make(scan)
    hypotheses = _distinct(np.asarray(trial.model.positions))
    figures, name, significant = {}, AS_GIVEN, False
    for steps in _STEPS:
        figures = {name: trial.run(matrix, steps, seed) for name, matrix in hypotheses.items()}
        name, significant = _decide(figures, trial.model.far, scan.probe is not None)
        if significant:
            break
    report = _report(figures, name, significant, trial.model.far and scan.probe is None)
    return report if significant or trial.model.far else _with_scale(report, scan, seed)


def _with_scale(report: OrientationReport, scan: Scan, seed: int) -> OrientationReport:
    """Try other units where no orientation fits in the near field: positions may be twice too large or too small.

    One orientation must then stand out: residuals of different scales do not compare, since an object spread more
    widely has more pixels to fit with.
    """
    trial = _Trial.make(scan.replace(positions=2 * scan.require("positions", "positions", "")))  # room for the largest
    hypotheses = _distinct(np.asarray(trial.model.positions))
    for times, wrong in ((0.5, "twice too large"), (2.0, "twice too small")):
        figures = {name: trial.run(matrix * times / 2, _STEPS[0], seed) for name, matrix in hypotheses.items()}
        name, significant = _decide(figures, False, False)
        if significant:
            wrong += "" if name == AS_GIVEN else f" and {name}"
            line = (
                f"positions look {wrong}: left as given; check data.positions_unit, the pixel size and the binning "
                f"(residual {figures[name]:.3f}, in other orientations up to {max(figures.values()):.3f})"
            )
            return dataclasses.replace(report, message=line)
    return report


# ---------------------------------------------------------------------------------------------------- hypotheses
def _hypotheses() -> dict[str, np.ndarray]:
    """List what may be wrong, and the matrix that mends it."""
    found = {}
    for swapped, rows, columns in itertools.product((False, True), repeat=3):
        axes = [axis for axis, flipped in (("rows", rows), ("columns", columns)) if flipped]
        words = (["swapped"] if swapped else []) + ([" and ".join(axes) + " flipped"] if axes else [])
        matrix = np.diag([-1.0 if rows else 1.0, -1.0 if columns else 1.0])
        found[", ".join(words) or AS_GIVEN] = matrix[:, ::-1] if swapped else matrix
    return found


def _distinct(positions: np.ndarray) -> dict[str, np.ndarray]:
    """Hypotheses that put these positions (about zero) elsewhere: of a line there are four."""
    found: dict[str, np.ndarray] = {}
    for name, matrix in _hypotheses().items():
        if all(np.abs(positions @ (matrix - other).T).max() > 0.5 for other in found.values()):
            found[name] = matrix
    return found


def _decide(figures: dict[str, float], far: bool, probe_given: bool) -> tuple[str, bool]:
    """The best hypothesis, if it stands out from the others by more than those differ among themselves.

    In the far field the twin of the best is not one of the others; between the two a given probe may decide.
    """
    matrices = _hypotheses()
    best = min(figures, key=lambda name: figures[name])
    twin = next(name for name in matrices if np.array_equal(matrices[name], -matrices[best])) if far else best
    rest = sorted(figure for name, figure in figures.items() if name not in (best, twin))
    gap, spread = np.log(rest[0] / figures[best]), np.log(rest[-1] / rest[0])
    if gap < max(0.04, 1.2 * spread):
        return AS_GIVEN, False
    told = probe_given and figures.get(twin, np.inf) > 1.04 * figures[best]
    return (AS_GIVEN if twin == AS_GIVEN and not told else best), True


def _report(figures: dict[str, float], name: str, significant: bool, twins: bool) -> OrientationReport:
    matrix = _hypotheses()[name]
    if not figures:
        return OrientationReport(
            name,
            figures,
            1.0,
            False,
            matrix,
            f"the orientation of the positions cannot be checked with less than {_BATCH} views",
        )
    given, best = figures[AS_GIVEN], min(figures.values())
    if not significant:
        line = (
            f"the data do not tell how positions are meant (residual {given:.3f} as given, {best:.3f} at best): "
            "left as given"
        )
    elif name == AS_GIVEN:
        line = f"positions fit as given (residual {given:.3f}; up to {max(figures.values()):.3f} flipped or swapped)"
    else:
        line = f"positions look {name}: residual {figures[name]:.3f} instead of {given:.3f}"
        line += " (or the same turned by 180 degrees, which far-field frames cannot tell)" if twins else ""
    return OrientationReport(name, figures, given / best, significant, matrix, line)


# ---------------------------------------------------------------------------------------------------- trials
@dataclasses.dataclass
class _Trial:
    """Reduced frames, in units in which the probe's amplitude is about one, and the model that starts on them."""

    model: Ptychography  # with positions about zero
    data: dict[str, np.ndarray]
    middle: np.ndarray  # what to add to the positions

    @classmethod
    def make(cls, scan: Scan) -> "_Trial":
        scan = scan.in_fft_order()
        start = Ptychography.from_scan(scan)
        frames = np.asarray(scan.counts).astype(np.float32)
        mask = np.ones(scan.frame_shape, bool) if scan.mask is None else scan.mask
        positions = np.asarray(start.positions, float)
        factor = _factor(scan.frame_shape, positions, start.far)
        frames, mask = (_cut_spectrum if start.far else _binned)(np.where(mask, frames, 0), mask, factor)
        probe = _coarser(np.asarray(start.probe), factor, frames.shape[1:])
        probe *= np.sqrt(frames.sum((1, 2)).mean() / np.sum(abs(probe) ** 2))
        unit = operators.beam_amplitude(probe) ** 2
        positions = (positions - positions.mean(0)) / factor
        side = int(2 * np.ceil(abs(positions).max()) + 4 + max(frames.shape[1:]))
        model = start.replace(
            object=jnp.ones((side, side), start.object.dtype),
            probe=jnp.asarray(probe / np.sqrt(unit), start.probe.dtype),
            positions=jnp.asarray(positions, start.positions.dtype), background=jnp.zeros((1, 1), start.gain.dtype),
            pixel_size=None if start.pixel_size is None else start.pixel_size * factor,
        )  # fmt: skip
        return cls(model, {"counts": frames / unit, "mask": mask}, (side - np.asarray(frames.shape[1:])) / 2)

    def run(self, matrix: np.ndarray, steps: int, seed: int) -> float:
        """Residual of the last steps."""
        positions = np.asarray(self.model.positions) @ matrix.T + self.middle
        model = self.model.replace(positions=jnp.asarray(positions, self.model.positions.dtype))
        solution = minimise(
            amplitude_cost,
            model,
            self.data,
            _OPTIMISER,
            steps=steps,
            batch_size=_BATCH,
            seed=seed,
            unknowns=("object", "probe"),
            chunk=_STEPS[0],
        )
        mean = np.mean(self.data["counts"][:, self.data["mask"]])
        return float(np.sqrt(solution.history[-8:].mean() / mean))


def _neighbours(positions: np.ndarray, count: int) -> np.ndarray:
    """Indices of the views that lie most closely together."""
    candidates = spread(len(positions), 200)
    count = min(count, len(positions))
    distance = lambda view: np.sum((positions - positions[view]) ** 2, 1)
    densest = min(candidates, key=lambda view: np.partition(distance(view), count - 1)[count - 1])
    return np.sort(np.argsort(distance(densest), kind="stable")[:count])


def _factor(shape: tuple[int, int], positions: np.ndarray, far: bool) -> int:
    """Choose how much coarser frames become: small, but in the near field steps of the scan that stay steps."""
    factor = min(shape) // _SMALLEST
    if not far:
        apart = np.linalg.norm(positions[:, None] - positions[None], axis=-1) + np.diag(np.full(len(positions), np.inf))
        factor = min(factor, int(np.median(apart.min(1)) / 2))
    return max(factor, 1)


def _cut_spectrum(frames: np.ndarray, mask: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """The low frequencies of far-field frames (zero frequency at the corner): coarser object pixels."""
    shape = tuple(n // factor for n in mask.shape)
    return _low_frequencies(frames, shape), _low_frequencies(mask, shape)


def _binned(frames: np.ndarray, mask: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """The middle of near-field frames in coarser pixels, of which all parts measured."""
    shape = tuple(min(n // factor, _LARGEST) for n in mask.shape)
    first = [(n - m * factor) // 2 for n, m in zip(mask.shape, shape, strict=True)]
    rows, columns = (slice(i, i + m * factor) for i, m in zip(first, shape, strict=True))
    blocks = lambda a: a[..., rows, columns].reshape(*a.shape[:-2], shape[0], factor, shape[1], factor)
    good = blocks(mask).all((-3, -1))
    return np.where(good, blocks(frames).sum((-3, -1)), 0), good


def _coarser(waves: np.ndarray, factor: int, shape: tuple[int, ...]) -> np.ndarray:
    """Waves on coarser pixels, band-limited, and their middle where that is less."""
    coarse = tuple(n // factor for n in waves.shape[-2:])
    waves = np.fft.ifft2(_low_frequencies(np.fft.fft2(waves), coarse))
    rows, columns = (slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(coarse, shape, strict=True))
    return waves[..., rows, columns]


def _low_frequencies(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The lowest `shape` frequencies of arrays with the zero frequency at the corner."""
    for axis, keep in zip((-2, -1), shape, strict=True):
        size = values.shape[axis]
        values = np.take(values, np.r_[: (keep + 1) // 2, size - keep // 2 : size], axis)
    return values
