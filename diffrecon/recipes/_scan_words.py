"""What the maps of a scanning microscope say of themselves: whether angles are a phase's, what the probe adds."""

import numpy as np
from jaxtyping import Float

__all__ = ["curl_share", "orientation_lines", "probe_lines"]

_OTHERS = {
    "rows of the detector against those of the scan": lambda y, x: (-y, x),
    "rows and columns exchanged": lambda y, x: (x, y),
    "rows and columns exchanged, one of them turned round": lambda y, x: (x, -y),
}
_BETTER = 0.7  # of the curl, that another orientation has to leave
_CURL = 0.3  # share of the curl that is worth a warning
_PROBE = 0.3  # of the angles, that a structured probe may make


def curl_share(down: Float[np.ndarray, "y x"], right: Float[np.ndarray, "y x"]) -> float:
    """Compute the share of curl, which no image has, in a pair of slopes: 0 for an image, one half for noise."""
    across = lambda a: a[:-1, 1:] - a[:-1, :-1] + a[1:, 1:] - a[1:, :-1]
    along = lambda a: a[1:, :-1] - a[:-1, :-1] + a[1:, 1:] - a[:-1, 1:]
    curl, source = across(down) - along(right), along(down) + across(right)
    both = np.isfinite(curl) & np.isfinite(source)
    total = (curl[both] ** 2).sum() + (source[both] ** 2).sum()
    return float((curl[both] ** 2).sum() / total) if total > 0 else 0.0


def orientation_lines(
    alpha: Float[np.ndarray, "2 y x"], step: tuple[float, float] | None, turned: bool
) -> tuple[float, list[str]]:
    """Say how much of the angles is no phase's, and whether another orientation of the detector has less of it.

    **Arguments:** `step` (y, x); `turned`: the angles come from frames, whose orientation may be another than the
    scan's.
    """
    if min(alpha.shape[1:]) < 4 or not np.isfinite(alpha).any():
        return 0.0, []
    scale = (1.0, 1.0) if step is None else (step[0] / step[1], 1.0)
    share = lambda y, x: curl_share(y * scale[0], x * scale[1])
    here = share(*alpha)
    others = {name: share(*change(*alpha)) for name, change in _OTHERS.items()}
    best = min(others, key=lambda name: others[name])
    lines = [f"{here:.0%} of the variation of the angles is curl, which no phase has (noise 50 %)"]
    if here > _CURL:
        lines[0] = f"WARNING: {lines[0]}: little light, wide steps, or a probe with directions of its own"
    if turned and others[best] < _BETTER * here:
        lines.append(
            f"WARNING: with {best} it were {others[best]:.0%}: the detector seems to stand another way than the scan; "
            "phase and angles are wrong until the frames (or positions_y, positions_x) are turned"
        )
    return here, lines


def probe_lines(
    alpha: Float[np.ndarray, "2 y x"], transmission: Float[np.ndarray, "y x"], spread: float
) -> tuple[float, list[str]]:
    """Say how much of the angles the probe's own directions may be.

    The centre of a frame is the mean slope of the phase under the probe, plus the probe's own directions weighted by
    what the sample lets through: at most about the spread of the beam times the variation of the transmission. A probe
    of flat phase (in focus, without aberrations) adds nothing.
    """
    size = float(np.sqrt(np.nanmean((alpha - np.nanmedian(alpha, (1, 2), keepdims=True)) ** 2)))
    steps = [np.diff(transmission, axis=axis).ravel() for axis in (0, 1)]
    varies = float(np.sqrt(np.nanmean(np.concatenate(steps) ** 2) / 2)) if transmission.size > 1 else 0.0
    own = spread * varies
    if not own > _PROBE * size:
        return own, []
    return own, [
        f"WARNING: the beam's spread of {spread:.2g} rad times what the transmission varies from point to point makes "
        f"up to {own:.2g} rad where the probe is structured (out of focus, aberrated); the angles are {size:.2g} rad "
        "(rms): believe them for a flat probe only, else -m far-field-ptychography"
    ]
