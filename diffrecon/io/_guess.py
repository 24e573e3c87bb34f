"""What a file does not say and its numbers tell: units by magnitude, near or far field, where the zero frequency is."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import physics
from ..errors import InputError
from ..frames import TILE_BYTES, frame_tiles, spread

_TURN = 2 * np.pi
PIXELS = ("pixel", "pixels", "px")  # as a unit of positions


def radians(angles: np.ndarray, written: str | None, insist: bool, name: str) -> tuple[np.ndarray, str]:
    """Give angles in radians, and a message that says how their unit was found.

    A unit that stands in the file but contradicts the numbers is refused unless the user insists on it.

    **Raises:** `InputError`.
    """
    finite = angles[np.isfinite(angles)]
    if not finite.size:
        raise InputError(f"{name}: the angles are not finite numbers")
    span = float(np.ptp(finite))
    if written:
        try:
            scale = physics.unit_scale(written, "rad")
        except InputError as error:
            raise InputError(f"{name}: the angles: {error}; say --set data.angle_unit=deg or =rad") from None
        # A unit that is written is believed, unless the numbers read in the other one are just half a turn or a whole.
        other = "rad" if scale < 0.1 else "deg"
        several = np.unique(finite)  # the same ones at every energy are a turn once
        contradicts = several.size > 8 and _whole_turns(several if scale < 0.1 else np.radians(several))
        if not insist and contradicts and scale in (np.pi / 180, 1.0):
            raise InputError(
                f"{name}: the file says that its angles are in {written}, but they span {span:.4g}, "
                + (f"which is {span / np.pi:.2f} pi" if scale < 0.1 else "and look like degrees")
                + f": say --set data.angle_unit={other}, or ={'deg' if scale < 0.1 else 'rad'} if it really is so"
            )
        return angles * scale, f"angles in {written}, spanning {np.degrees(span * scale):.4g} degrees"
    # Nobody measures a tomogram over less than 6.6 degrees, nor over more than a turn written in radians.
    degrees = float(np.abs(finite).max(initial=0)) > 1.05 * _TURN
    scale, said = (np.pi / 180, "degrees") if degrees else (1.0, "radians")
    return (
        angles * scale,
        f"no unit of the angles: taken as {said} by their magnitude ({finite.min():.4g} to {finite.max():.4g})",
    )


def _whole_turns(angles: np.ndarray) -> bool:
    """Tell whether the numbers, read as radians, cover half a turn or a whole one (with or without the end point)."""
    covered = np.ptp(angles) * np.array([1.0, len(angles) / max(len(angles) - 1, 1)])
    return bool((np.abs(covered[:, None] - np.array([np.pi, _TURN])) < 0.01 * np.pi).any())


def positions_unit(positions: np.ndarray, written: str | None) -> tuple[np.ndarray, str, str]:
    """Give positions in [m] or in [pixel], which of the two, and a message."""
    if written and written.strip().lower() in PIXELS:
        return positions, "pixel", "positions in pixels"
    if written:
        return positions * physics.unit_scale(written, "m"), "m", f"positions in {written}"
    finite = positions[np.isfinite(positions).all(1)]
    span = float(np.ptp(finite, axis=0).max()) if len(finite) else 0.0
    if span > 0.5:
        return positions, "pixel", f"no unit of the positions: taken as pixels by their magnitude (span {span:.4g})"
    return positions, "m", f"no unit of the positions: taken as metres by their magnitude (span {span:.4g})"


def mean_frame(counts: Any, most: int = 64) -> np.ndarray:
    """Take the mean of at most `most` frames, evenly chosen."""
    chosen = spread(counts.shape[0], most)
    total = np.zeros(counts.shape[1:])
    for _, rows, tile in frame_tiles(counts, chosen):
        total[rows] += tile.sum(0, dtype=np.float64)
    return total / chosen.size


def without_specks(image: np.ndarray) -> np.ndarray:
    """Give the median of each pixel and its eight neighbours: a hot pixel tells nothing of where the light is."""
    padded = np.pad(image, 1, mode="edge")
    rows, columns = image.shape
    around = [padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    return np.median(around, axis=0)


def zero_frequency(mean: np.ndarray) -> str:
    """Tell where a far-field pattern is bright, `"centre"` or `"corner"`."""
    y, x = np.indices(mean.shape)
    height, width = mean.shape
    inner = (np.abs(y - height // 2) < height / 4) & (np.abs(x - width // 2) < width / 4)
    return "centre" if mean[inner].sum() >= np.roll(mean, (height // 2, width // 2), (0, 1))[inner].sum() else "corner"


def feature_motion(
    counts: Any, positions: np.ndarray, mask: np.ndarray | None, pairs: int = 32
) -> tuple[float, np.ndarray]:
    """Measure how the features of the frames move when the patch does: a sign of near field, where they move with the
    sample.

    Neighbouring frames, divided by the mean frame, are registered by correlation. **Returns** the fraction of pairs
    that agree with one common motion, and the 2 x 2 matrix from a step of the positions to a shift in detector pixels:
    `-magnification / detector_pixel` times the identity in the near field.
    """
    chosen = spread(counts.shape[0], pairs)
    steps = positions[chosen][:, None] - positions[None]
    square = (steps**2).sum(-1)
    square[square < 1e-3 * np.median(square)] = np.inf
    partner = square.argmin(1)
    mean = mean_frame(counts) if mask is None else np.where(mask, mean_frame(counts), 0)
    lit = lit_pixels(mean)
    flat = lambda frame: np.where(lit, np.asarray(frame, np.float64) / np.where(lit, mean, 1) - 1, 0)
    shift = np.stack([_registered(flat(a), flat(b)) for a, b in _pairs(counts, chosen, partner)])
    moved = positions[partner] - positions[chosen]
    if np.linalg.matrix_rank(moved) < 2:
        return 0.0, np.zeros((2, 2))
    # A few pairs may be registered wrongly: fit, keep the better half, fit again.
    matrix = np.linalg.lstsq(moved, shift, rcond=None)[0].T
    error = np.linalg.norm(shift - moved @ matrix.T, axis=1)
    keep = error <= np.median(error)
    if np.linalg.matrix_rank(moved[keep]) == 2:
        matrix = np.linalg.lstsq(moved[keep], shift[keep], rcond=None)[0].T
    error = np.linalg.norm(shift - moved @ matrix.T, axis=1)
    size = np.linalg.norm(moved @ matrix.T, axis=1)
    return float(np.mean((error < 0.3 * size + 0.7) & (size > 1))), matrix


def _pairs(counts: Any, first: np.ndarray, second: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield frames in pairs, some 16 MB in one read: files are opened for each."""
    size = max(1, int(TILE_BYTES // (2 * np.prod(counts.shape[1:], dtype=float) * counts.dtype.itemsize)))
    for start in range(0, len(first), size):
        views, where = np.unique([first[start : start + size], second[start : start + size]], return_inverse=True)
        frames = np.asarray(counts[views])
        yield from ((frames[a], frames[b]) for a, b in where.reshape(2, -1).T)


def _registered(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Shift (row, column) [pixel] from one image to the other, by the peak of their correlation."""
    correlation = np.fft.ifft2(np.conj(np.fft.fft2(first)) * np.fft.fft2(second)).real
    shape = np.array(first.shape)
    return (np.stack(np.unravel_index(correlation.argmax(), first.shape)) + shape // 2) % shape - shape // 2


def lit_pixels(mean: np.ndarray) -> np.ndarray:
    """Find the pixels above a twentieth of the brightest, single hot ones apart."""
    return mean > 0.05 * without_specks(mean).max()


def dark_border(mean: np.ndarray, mask: np.ndarray | None = None, below: float = 0.01) -> bool:
    """Tell whether the two outer rows and columns of the mean frame lie below a hundredth of its brightest part, nearly
    everywhere: far-field frames do where they are sampled well, near-field frames only if the whole beam is inside.
    """
    smooth = without_specks(mean)
    border = np.ones(mean.shape, bool)
    border[2:-2, 2:-2] = False
    border &= True if mask is None else mask
    return bool(border.any() and np.percentile(smooth[border], 95) < below * smooth.max())


def neighbour_step(positions: np.ndarray) -> float:
    """Find the median distance of a position to its nearest neighbour elsewhere (at most 400 positions are looked
    at)."""
    chosen = positions[spread(len(positions), 400)]
    distance = np.sqrt(((chosen[:, None] - positions[None]) ** 2).sum(-1))
    distance[distance == 0] = np.inf
    nearest = distance.min(1)
    return float(np.median(nearest[np.isfinite(nearest)])) if np.isfinite(nearest).any() else 0.0
