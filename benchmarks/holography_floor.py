"""The floor of the error of a specimen without vacuum, at every frequency, beside what was reached."""

import numpy as np

EDGES = (0.5, 1.5, 3, 6, 12, 24, 48, 96)  # periods over the field


def bands(found: np.ndarray, truth: np.ndarray, draws: np.ndarray, cut: int) -> str:
    """Compare the error with errors drawn from the posterior: all, their ramp, the rest, and bands of frequency.

    Each as a share of the truth there, Hann window for the bands.
    """
    inner = slice(cut, -cut)
    truth, drawn = (_centred(np.asarray(a, float)[..., inner, inner]) for a in (truth, draws))
    error = _centred(np.asarray(found, float)[inner, inner]) - truth
    size = lambda maps: float(np.sqrt(np.mean(maps**2)))
    ramp, ramps = _planes(error), _planes(drawn)
    pairs = {"all": (drawn, error), "ramp": (ramps, ramp), "rest": (drawn - ramps, error - ramp)}
    lines = [f"    {name}: floor {size(a) / size(truth):.3f}, reached {size(b) / size(truth):.3f}"
             for name, (a, b) in pairs.items()]  # fmt: skip
    power, frequency = _power(truth), _frequency(len(truth))
    floor, reached = _power(drawn - ramps).mean(0), _power(error - ramp)
    for low, high in zip(EDGES[:-1], EDGES[1:], strict=True):
        ring = (frequency >= low) & (frequency < high)
        if ring.any() and high <= 1.5 * len(truth) / 2:
            share = [np.sqrt(part[ring].mean() / power[ring].mean()) for part in (floor, reached)]
            lines.append(f"    {low:g} to {high:g} periods: floor {share[0]:.3f}, reached {share[1]:.3f}")
    return "\n".join(lines)


def _centred(maps: np.ndarray) -> np.ndarray:
    return maps - maps.mean((-2, -1), keepdims=True)


def _planes(maps: np.ndarray) -> np.ndarray:
    axis = np.arange(maps.shape[-1]) - (maps.shape[-1] - 1) / 2
    slopes = [(maps * part).mean((-2, -1), keepdims=True) / (axis**2).mean() for part in (axis[:, None], axis)]
    return slopes[0] * axis[:, None] + slopes[1] * axis


def _power(maps: np.ndarray) -> np.ndarray:
    window = np.hanning(maps.shape[-1])
    return np.abs(np.fft.fft2(maps * window[:, None] * window)) ** 2


def _frequency(size: int) -> np.ndarray:
    f = np.fft.fftfreq(size)
    return np.hypot(f[:, None], f) * size
