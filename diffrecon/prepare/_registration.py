"""How far the holograms of one object, taken at several distances, are shifted against one another.

Holograms of different distances look different: fringes move and change sign. What they share is the object behind the
contrast transfer function `T_j(f)`. The cross-spectrum of two holograms, times `T_i T_j`, has the object's power
spectrum as its modulus and the shift as its phase, so that its correlation has one sharp peak. Frequencies are
weighted by the coherence found in the data (maximum likelihood: Knapp & Carter, IEEE Trans. ASSP 24, 320 (1976)), so
that noise, strong phases that leave the linear theory and fringes beyond the coherence of the beam take themselves
out. All pairs are solved for together.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import InputError
from ..operators import cubic_matrix

__all__ = ["DistanceRegistration", "register_distances"]

_LARGEST = 1024  # pixels along an axis: larger frames are binned
_BORDER = 0.12  # share of a frame over which it fades out at either side
_FRINGES = 6.0  # the first correlation takes frequencies up to chi = this times pi
_ROUNDS = 3  # one plain correlation, the others with weights from the data
_FARTHEST_PAIR = 3  # views compared: neighbours up to here, and all with the first
_SPREAD = 0.5  # [pixel of the object], of the pairs about the joint solution, that is worth a warning
_CHANCE = 6.0  # a peak of a correlation lower than this many times its rms may be chance


@dataclasses.dataclass(frozen=True)
class DistanceRegistration:
    """What `register_distances` found besides the shifts, for each view.

    **Fields:** `shifts` `(view, 2)` [own pixel]; `spread` = rms disagreement of its pairs with the joint solution
    [pixel of the object]; `peaks` = height of the correlation with the first frame over its rms (chance is below 6);
    `rotations` [rad] against the first frame, from columns towards rows as in `models.Holography`, to first order, and
    their standard deviations `rotation_errors`; `message` in words, with a WARNING where the result is not to be
    trusted.
    """

    shifts: np.ndarray
    spread: np.ndarray
    peaks: np.ndarray
    rotations: np.ndarray
    rotation_errors: np.ndarray
    message: str


def register_distances(
    counts: Float[Any, "view y x"],
    flux: Any,
    *,
    pixels: Sequence[float] | np.ndarray,
    distances: Sequence[float] | np.ndarray,
    wavelength: float,
    delta_beta: float = np.inf,
    dark: Any = 0.0,
    mask: np.ndarray | None = None,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, DistanceRegistration]:
    """Shifts of holograms of one object at several distances, from raw frames on their own pixels.

    A positive shift moves the picture towards larger indices: pixel i of a frame lies at `(i - (n-1)/2 - shift) *
    pixel` about the optical axis, as in `models.Holography`. The first frame keeps its shift in `start`, zero by
    default. The whole frame is searched: no first guess is needed.

    **Arguments:** `counts`, and `flux` = counts of the empty beam without the dark: a number, `(view, 1, 1)` or images
    `(view, y, x)`; `pixels` and `distances` [m] of each view, effective ones in a cone beam, `(view,)`, or
    `(view, 2)` (vertical, horizontal) in an astigmatic one; `wavelength` [m];
    `delta_beta` = delta / beta of the object: decides the sign of the lowest frequencies, a rough value does, `inf` is
    a pure phase object; `dark` counts; `mask` of usable pixels, `(y, x)` or `(view, y, x)`; `start` `(view, 2)` [own
    pixel] to search about.

    **Returns:** `(shifts (view, 2) (row, column) [own pixel], DistanceRegistration)`.

    **Cost:** for n views about `3 n (n + 1) / 2` real FFTs of 1.5 times the frame (frames above 1024 pixels are
    binned).

    **Raises:** `InputError` for shapes that do not fit, geometry that is not positive, an empty beam that is zero.

    ```python
    frames = np.random.default_rng(0).poisson(100.0, (2, 64, 64))
    shifts, report = register_distances(frames, 100.0, pixels=(5e-8, 6e-8), distances=(0.02, 0.03), wavelength=7e-11)
    print(report.message)
    ```
    """
    contrast, usable = _contrast(counts, flux, dark, mask)
    views, bins = len(contrast), -(-max(contrast.shape[1:]) // _LARGEST)
    # What binning cuts off at the end of an axis moves the centre of the frame.
    cut = np.array([n % bins for n in contrast.shape[1:]]) / 2
    frames = _Frames.of(
        _binned(contrast * usable, bins),
        _binned(usable, bins),
        bins * _geometry(pixels, "pixels", views),
        _geometry(distances, "distances", views),
        float(_geometry(wavelength, "wavelength", 1)[0, 0]),
        delta_beta,
    )
    shifts = (np.zeros((views, 2)) if start is None else _start(start, views)) + cut
    shifts, spread, peaks = _solve(frames, shifts / bins)
    spectra = frames.spectra(shifts)
    rotations, errors = np.array([_rotation(frames, spectra, view) for view in range(views)]).T
    shifts, spread = shifts * bins - cut, spread * bins
    report = DistanceRegistration(shifts, spread, peaks, rotations, errors, _message(shifts, spread, peaks))
    return shifts, report


def _solve(frames: "_Frames", shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shifts from all pairs, the disagreement of each view's pairs, and the height of each view's correlation."""
    views = len(shifts)
    spread, peaks = np.zeros(views), np.full(views, np.inf)
    pairs = [(i, j) for j in range(views) for i in range(j) if i == 0 or j - i <= _FARTHEST_PAIR]
    for index in range(_ROUNDS if pairs else 0):
        spectra = frames.spectra(shifts)
        found = [_displacement(frames, spectra, i, j, plain=index == 0) for i, j in pairs]
        steps, residual = _joint(np.array([f[0] for f in found]), pairs, views)
        shifts = shifts - steps / frames.ratios
        peaks[1:] = [f[1] for f, (i, _) in zip(found, pairs, strict=True) if i == 0]
        spread = np.array([np.sqrt(np.mean(residual[[view in pair for pair in pairs]] ** 2)) for view in range(views)])
    return shifts, spread, peaks


def _joint(steps: np.ndarray, pairs: list[tuple[int, int]], views: int) -> tuple[np.ndarray, np.ndarray]:
    """Displacements `(view, 2)` of which the pairs see the differences, by least absolute deviation (reweighted least
    squares): one pair that went astray does not move the others. Also the pairs' residuals."""
    design = np.array([(np.arange(views) == j) * 1.0 - (np.arange(views) == i) for i, j in pairs])[:, 1:]
    weight, solution = np.ones(len(pairs)), np.zeros((views - 1, 2))
    for _ in range(20):
        root = np.sqrt(weight)[:, None]
        solution = np.linalg.lstsq(design * root, steps * root, rcond=None)[0]
        weight = 1 / np.maximum(np.abs(steps - design @ solution).max(1), 0.05)
    return np.concatenate([np.zeros((1, 2)), solution]), np.abs(steps - design @ solution).max(1)


def _displacement(frames: "_Frames", spectra: np.ndarray, i: int, j: int, plain: bool) -> tuple[np.ndarray, float]:
    """Find by how many pixels of the object frame j is to be moved to lie over frame i, and the height of the peak."""
    sign = frames.transfer[i] * frames.transfer[j]
    if plain:
        weight = sign * (frames.frequency <= np.sqrt(_FRINGES * frames.fresnel_number))
    else:
        power, coherence = frames.coherence(spectra[i], spectra[j], sign)
        weight = sign * frames.spread((coherence / (1 - coherence**2) / power).astype(np.float32))
    return _peak(weight * spectra[i] * np.conj(spectra[j]), frames.grid)


def _peak(spectrum: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Place of the highest peak of the image behind a half spectrum (`rfft2`) to a hundredth of a pixel, and its height
    over the image's rms; matrix Fourier transform about the highest pixel (Guizar-Sicairos et al. 2008)."""
    image = np.fft.irfft2(spectrum, s=shape)
    peak = np.array(np.unravel_index(image.argmax(), shape), float)
    height = float(image.max() / max(np.sqrt(np.mean(image**2)), np.finfo(float).tiny))
    twice = np.where((np.arange(spectrum.shape[1]) == 0) | (2 * np.arange(spectrum.shape[1]) == shape[1]), 1.0, 2.0)
    for fineness in (10, 100):
        rows, columns = (p + np.arange(-12, 13) / fineness for p in peak)
        waves = np.exp(2j * np.pi * np.outer(rows, np.fft.fftfreq(shape[0])))
        local = np.real(waves @ (spectrum * twice) @ np.exp(2j * np.pi * np.outer(np.fft.rfftfreq(shape[1]), columns)))
        at = np.unravel_index(local.argmax(), local.shape)
        peak = np.array([rows[at[0]], columns[at[1]]])
    return (peak + np.array(shape) / 2) % shape - np.array(shape) / 2, height


def _rotation(frames: "_Frames", spectra: np.ndarray, view: int) -> tuple[float, float]:
    """Rotation [rad] of a frame against the first, and its standard deviation.

    The frame is predicted from the first one by Wiener's filter; what is left is fitted by the four images that a
    small shift, rotation and magnification of the prediction make. Everything is whitened by the spectrum of what the
    prediction does not explain. (The magnification is not to be had this way: strong phases spread with distance.)
    """
    if view == 0:
        return 0.0, 0.0
    sign = np.sign(frames.transfer[0] * frames.transfer[view])
    power, coherence = frames.coherence(spectra[0], spectra[view], sign)
    own, seen = (frames.rings(np.abs(spectra[v]) ** 2) for v in (0, view))
    tiny = np.finfo(float).tiny
    whiten = frames.spread(1 / np.sqrt(seen * (1 - coherence**2) + tiny))
    guess = spectra[0] * sign * frames.spread(coherence * np.sqrt(seen / (own + tiny))) * whiten
    fy, fx = frames.waves
    image = lambda s: np.fft.irfft2(s, s=frames.grid)[: frames.window[0], : frames.window[1]]
    down, right = image(2j * np.pi * fy * guess), image(2j * np.pi * fx * guess)
    y, x = (np.arange(n) - (n - 1) / 2 for n in frames.window)
    y, x = y[:, None], x[None]
    design = np.stack([down, right, down * x - right * y, down * y + right * x], -1).reshape(-1, 4)
    rest = image(spectra[view] * whiten - guess).ravel()
    normal = design.T @ design
    if not np.linalg.cond(normal) < 1e15:
        return 0.0, np.inf
    solution = np.linalg.solve(normal, design.T @ rest)
    variance = np.linalg.inv(normal)[2, 2] * np.mean((rest - design @ solution) ** 2)
    return float(solution[2]), float(np.sqrt(variance))


@dataclasses.dataclass(frozen=True)
class _Frames:
    """Contrast of all frames, ready to be laid on the object's pixel, and the frequencies of the padded window there.

    `contrast` and `fade` `(view, y, x)`; `ratios` `(view, 2)` of the frames' pixels to the object's; the least
    `fresnel_number` of an object's pixel; `transfer` `(view, Y, X/2+1)`; `frequency` [cycles a pixel of the object],
    its parts `waves` along the axes and the number of its `ring`."""

    contrast: np.ndarray
    fade: np.ndarray
    ratios: np.ndarray
    fresnel_number: float
    transfer: np.ndarray
    frequency: np.ndarray
    ring: np.ndarray
    window: tuple[int, int]
    grid: tuple[int, int]
    waves: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(
        cls,
        contrast: np.ndarray,
        usable: np.ndarray,
        pixels: np.ndarray,
        distances: np.ndarray,
        wavelength: float,
        delta_beta: float,
    ) -> "_Frames":
        window, pixel = (contrast.shape[1], contrast.shape[2]), pixels.min()
        # Half as large again (a multiple of 16: fast FFTs): what is more than half a frame away does not wrap round.
        grid = (16 * -(-3 * window[0] // 32), 16 * -(-3 * window[1] // 32))
        fy, fx = np.fft.fftfreq(grid[0])[:, None], np.fft.rfftfreq(grid[1])[None]
        frequency = np.hypot(fy, fx)
        inverse = wavelength / pixel * (distances / pixel)
        chi = np.pi * (inverse[:, 0, None, None] * fy**2 + inverse[:, 1, None, None] * fx**2)
        # What the beam shows of a weak object of one material: of its phase, and of its attenuation phase/delta_beta.
        transfer = (np.sin(chi) + np.cos(chi) / delta_beta).astype(np.float32)
        ring = np.rint(np.minimum(frequency, 0.5) * max(window)).astype(int)
        fade = usable * _taper(window[0])[:, None] * _taper(window[1])
        least = float(1 / inverse.max())
        return cls(contrast, fade, pixels / pixel, least, transfer, frequency, ring, window, grid, (fy, fx))

    def spectra(self, shifts: np.ndarray) -> np.ndarray:
        """Spectra of all frames on the object's pixel, faded out together, `(view, Y, X/2+1)`."""
        rows, columns = (
            [
                cubic_matrix(self.window[axis], self.window[axis], 1 / ratio[axis], shift[axis])
                for ratio, shift in zip(self.ratios, shifts, strict=True)
            ]
            for axis in (0, 1)
        )
        laid = lambda images: [r @ image @ c.T for r, image, c in zip(rows, images, columns, strict=True)]
        fade = np.clip(np.min(laid(self.fade), axis=0), 0, 1)
        total = max(fade.sum(), np.finfo(float).tiny)
        # Each without its mean: the window itself is common to all frames, and would hold them together at zero shift.
        flat = [(fade * (image - (fade * image).sum() / total)).astype(np.float32) for image in laid(self.contrast)]
        return np.fft.rfft2(np.stack(flat), s=self.grid)

    def rings(self, values: np.ndarray) -> np.ndarray:
        """Mean over each ring, smoothed over five."""
        count = np.bincount(self.ring.ravel())
        means = np.bincount(self.ring.ravel(), values.ravel()) / np.maximum(count, 1)
        return np.convolve(np.pad(means, 2, mode="edge"), np.full(5, 0.2), "valid")

    def spread(self, rings: np.ndarray) -> np.ndarray:
        """A number of each ring on all its frequencies."""
        return rings[self.ring]

    def coherence(self, one: np.ndarray, other: np.ndarray, sign: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Power that two spectra have together behind `|sign|`, and their coherence with its sign, 0 to 0.98, by
        rings."""
        weight = np.abs(sign)
        power = np.sqrt(self.rings(np.abs(one) ** 2 * weight) * self.rings(np.abs(other) ** 2 * weight))
        power = np.maximum(power, 1e-12 * power.max() + np.finfo(float).tiny)
        return power, np.clip(self.rings(np.real(one * np.conj(other)) * sign) / power, 0, 0.98)


def _taper(size: int) -> np.ndarray:
    distance = np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5
    return 0.5 - 0.5 * np.cos(np.pi * np.minimum(distance / (_BORDER * size), 1))


def _binned(images: np.ndarray, bins: int) -> np.ndarray:
    if bins == 1:
        return images
    rows, columns = (n // bins for n in images.shape[1:])
    return images[:, : rows * bins, : columns * bins].reshape(-1, rows, bins, columns, bins).mean((2, 4))


# ------------------------------------------------------------------------------------------ what was given
def _contrast(counts: Any, flux: Any, dark: Any, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """`(counts - dark) / flux - 1`, and 1 where that is known; both `(view, y, x)`."""
    counts = np.asarray(counts, float)
    if counts.ndim != 3 or min(counts.shape, default=0) < 1 or min(counts.shape[1:]) < 16:
        raise InputError(
            f"register_distances: counts of shape {counts.shape}; expected (view, y, x) of at least 16 "
            "pixels along each axis"
        )
    flux = np.asarray(flux, float)
    flux = flux[:, None, None] if flux.ndim == 1 else flux
    try:
        flux, dark = (np.broadcast_to(v, counts.shape) for v in (flux, np.asarray(dark, float)))
        usable = np.broadcast_to(True if mask is None else np.asarray(mask, bool), counts.shape)
    except ValueError as error:
        raise InputError(
            f"register_distances: flux, dark or mask do not fit counts of shape {counts.shape}: {error}"
        ) from None
    usable = usable & np.isfinite(counts) & np.isfinite(flux) & (flux > 0)
    if not usable.any((1, 2)).all():
        raise InputError("register_distances: a frame has no usable pixel (finite counts, flux above zero, mask)")
    contrast = np.divide(counts - dark, flux, out=np.ones(counts.shape), where=usable) - 1
    return contrast, usable.astype(float)


def _geometry(values: Any, name: str, views: int) -> np.ndarray:
    """`(view, 2)`, vertical and horizontal."""
    values = np.asarray(values, float)
    if values.shape not in {(), (views,), (views, 2)} or not (np.isfinite(values) & (values > 0)).all():
        raise InputError(
            f"register_distances: {name} = {values} is to be one positive number of metres for each of {views} views"
        )
    return np.broadcast_to(values[:, None] if values.ndim == 1 else values, (views, 2))


def _start(start: Any, views: int) -> np.ndarray:
    start = np.asarray(start, float)
    if start.shape != (views, 2) or not np.isfinite(start).all():
        raise InputError(f"register_distances: start of shape {start.shape}; expected ({views}, 2), finite")
    return start


def _message(shifts: np.ndarray, spread: np.ndarray, peaks: np.ndarray) -> str:
    said = "; ".join(f"({s[0]:+.2f}, {s[1]:+.2f})" for s in shifts)
    text = f"shifts of the frames (row, column) {said} own pixels; pairs agree to {spread.max():.2f} pixels"
    faint = np.flatnonzero(peaks < _CHANCE)
    if faint.size:
        text += (
            f"; WARNING: the correlation of view {faint[0]} with the first has no clear peak "
            f"({peaks[faint[0]]:.1f} times its rms): its shift may be chance; check distances, flux and fields"
        )
    elif spread.max() > _SPREAD:
        text += "; WARNING: the pairs contradict each other: the object, or a distance or pixel, is not what was given"
    return text
