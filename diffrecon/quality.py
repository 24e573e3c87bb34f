"""Figures that judge a reconstruction without its truth: resolution, edge width, held-out residual, noise floor.

Pure functions of arrays (NumPy inside, float64).
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .errors import InputError

__all__ = [
    "EdgeFit",
    "ErrorBars",
    "PhaseJumps",
    "PhaseTransfer",
    "RingCorrelation",
    "align",
    "bootstrap_photons",
    "bootstrap_views",
    "deviance",
    "deviances",
    "distance_halves",
    "edge_along",
    "edge_width",
    "even_odd",
    "held_out_residual",
    "line_integral_variance",
    "noise_floor",
    "phase_jumps",
    "phase_transfer",
    "photon_halves",
    "register",
    "ring_correlation",
    "shell_correlation",
    "shift_image",
]


# ---------------------------------------------------------------------- Fourier ring and shell correlation
@dataclasses.dataclass(frozen=True)
class RingCorrelation:
    """Fourier ring (2-D) or shell (3-D) correlation of two images.

    **Fields:** `frequency` [cycles/pixel] of each ring, `correlation`, thresholds `half_bit` and `one_bit`, `samples` =
    effective number of Fourier samples of each ring; `crossing` [cycles/pixel] where the correlation falls below
    half-bit (0.5 where it never does: then the pixel limits); `shift` [pixel] that was taken out; `pixel_size` [m] or
    `None`. As text it is the resolution in words.
    """

    frequency: np.ndarray
    correlation: np.ndarray
    half_bit: np.ndarray
    one_bit: np.ndarray
    samples: np.ndarray
    crossing: float
    shift: tuple[float, ...]
    pixel_size: float | None = None

    @property
    def half_period(self) -> float:
        """Resolution [pixel]: half the period at the crossing."""
        return 0.5 / self.crossing

    @property
    def resolution(self) -> float | None:
        """Resolution [m], half period; `None` where the pixel size is not known."""
        return None if self.pixel_size is None else self.half_period * self.pixel_size

    @property
    def one_bit_crossing(self) -> float:
        """As `crossing`, where the correlation falls below the stricter one-bit curve."""
        return _crossing(self.frequency, self.correlation - self.one_bit)

    def __str__(self) -> str:
        def said(crossing: float, name: str) -> str:
            pixels = 0.5 / crossing
            length = "" if self.pixel_size is None else f"{_length(pixels * self.pixel_size)}, "
            limit = " (the pixel limits)" if crossing >= 0.5 else ""
            return f"{length}{pixels:.2f} pixels at {name}{limit}"

        return f"half-period resolution {said(self.crossing, 'half-bit')}; {said(self.one_bit_crossing, 'one-bit')}"

    def as_quality(self) -> dict[str, Any]:
        """As written to `/entry/quality`."""
        named = {
            "frequency": self.frequency,
            "correlation": self.correlation,
            "half_bit": self.half_bit,
            "one_bit": self.one_bit,
            "crossing": self.crossing,
            "half_period_pixels": self.half_period,
        }
        return named if self.resolution is None else named | {"resolution_m": self.resolution}


def ring_correlation(
    first: ArrayLike,
    second: ArrayLike,
    *,
    pixel_size: float | None = None,
    realign: bool | None = None,
    taper: float = 0.25,
) -> RingCorrelation:
    """Fourier ring or shell correlation of two independent reconstructions of one object, real or complex.

    `C(r) = Re sum F1 F2* / sqrt(sum |F1|^2 sum |F2|^2)` over rings one frequency sample wide. Thresholds of van Heel &
    Schatz, J. Struct. Biol. 151, 250 (2005): half-bit `(0.2071 + 1.9102 / sqrt n) / (1.2071 + 0.9102 / sqrt n)`,
    one-bit `(0.5 + 2.4142 / sqrt n) / (1.5 + 1.4142 / sqrt n)`, n = the ring's own samples (2-D as in 3-D) times
    the window's effective share `(sum w^2)^2 / (N sum w^4)`.

    **Arguments:** images of one shape `(y, x)` or `(z, y, x)`; `pixel_size` [m]; `realign=True` removes shift
    (sub-pixel), constant phase and phase ramp first (done for complex images by default); `taper` = share of each
    side that the window lowers to zero by a cosine (0 = no window, only right for periodic images).

    **Raises:** `InputError` for different shapes or other dimensions.

    ```python
    frc = dr.quality.ring_correlation(half_a, half_b, pixel_size=20e-9)
    print(f"{frc.resolution * 1e9:.0f} nm")
    ```
    """
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape or a.ndim not in (2, 3):
        raise InputError(f"ring correlation needs two images or volumes of one shape, not {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("ring correlation of images with values that are not finite; cut them out first")
    if min(a.shape) < 8:
        raise InputError(f"ring correlation of {a.shape}: too small to have rings")
    shift = (0.0,) * a.ndim
    if realign or (realign is None and np.iscomplexobj(a)):
        b, shift = align(a, b)
    return _correlation(a, b, _window(a.shape, taper), shift, pixel_size)


def shell_correlation(
    first: ArrayLike,
    second: ArrayLike,
    *,
    pixel_size: float | None = None,
    mask: ArrayLike | None = None,
    taper: float = 0.25,
) -> RingCorrelation:
    """Fourier shell correlation of two independent tomograms of one specimen, inside the cylinder that the scan saw.

    As `ring_correlation`, for volumes `(z, y, x)` whose corners hold no measurement: the window is a cylinder about z
    with a soft edge, so that neither the corners nor the borders, alike in both volumes, correlate. Shells are one
    frequency sample of the shortest axis wide and go up to the Nyquist frequency, whatever the ratio of the axes. Fewer
    than eight slices, or one image, have no shells: rings of all slices together are taken then.

    **Arguments:** volumes `(z, y, x)` or images `(y, x)` with cubic voxels of `pixel_size` [m]; `mask`, True where the
    specimen is (its edge is softened by three pixels; keep it wider than the specimen: a tight one correlates itself);
    `taper` = share of the radius, and of each end along z, over which the window falls to zero.

    **Raises:** `InputError` for different shapes, values that are not finite, an empty mask.

    **Cost:** two real transforms: 2 CPU seconds and 0.55 GB for 256^3 in float32, eight times the room of one volume;
    cut a region out of large ones.

    ```python
    fsc = shell_correlation(np.random.rand(16, 32, 32), np.random.rand(16, 32, 32), pixel_size=1e-6)
    print(fsc)
    ```
    """
    a, b = (np.asarray(v) for v in (first, second))
    if a.shape != b.shape or a.ndim not in (2, 3):
        raise InputError(f"shell correlation needs two volumes of one shape, not {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("shell correlation of volumes with values that are not finite; cut them out first")
    if min(a.shape[-2:]) < 8:
        raise InputError(f"shell correlation of {a.shape}: too small to have shells")
    a, b = (v if v.ndim == 3 else v[None] for v in (a, b))
    stack = a.shape[0] < 8
    window = _cylinder(a.shape, taper, along=not stack)
    if mask is not None:
        window = window * _softened(np.broadcast_to(np.asarray(mask, bool), a.shape), 3.0, stack)
    if not window.any():
        raise InputError("shell correlation: the mask leaves nothing of the cylinder that the scan saw")
    return _correlation(a, b, window, (0.0,) * 3, pixel_size, stack)


def even_odd(
    reconstruct: Callable[[Any, np.ndarray], ArrayLike],
    sinogram: ArrayLike,
    angles: ArrayLike,
    *,
    pixel_size: float | None = None,
    mask: ArrayLike | None = None,
    taper: float = 0.25,
) -> RingCorrelation:
    """Resolution of a tomogram from one scan: shell correlation of what its even and its odd views give.

    Views are ordered by angle (modulo a turn) and dealt alternately, so that both halves cover every direction. Where
    half of the views undersample the specimen, their streaks, opposite in both halves, lower the correlation, even
    below zero: the figure is then a pessimistic one. `photon_halves` keeps all views in both.

    **Arguments:** `reconstruct(sinogram, angles) -> (z, y, x)` or `(y, x)`, any method (use the settings of the whole
    volume); `sinogram` with the view first, `angles` [rad]; the rest as `shell_correlation`.

    **Raises:** `InputError` for fewer than four views or angles that do not fit.

    ```python
    def reconstruct(sinogram, angles):
        A = dr.operators.ParallelProjector(angles, (32, 32), 32)
        return dr.solvers.fbp(A, sinogram)

    fsc = even_odd(reconstruct, np.random.rand(20, 32), np.linspace(0, np.pi, 20, endpoint=False))
    ```
    """
    data: Any = sinogram if hasattr(sinogram, "shape") else np.asarray(sinogram)
    turns = np.asarray(angles, np.float64)
    if turns.ndim != 1 or data.shape[0] != turns.size or turns.size < 4:
        raise InputError(
            f"even and odd views: {data.shape[0]} views and angles of the shape {turns.shape}; give one "
            "angle [rad] a view, four at least"
        )
    # A view at 2 pi less rounding is the first direction again, not the last.
    order = np.argsort(np.mod(turns + 1e-7, 2 * np.pi), kind="stable")
    halves = [np.asarray(reconstruct(data[part], turns[part])) for part in (order[::2], order[1::2])]
    return shell_correlation(*halves, pixel_size=pixel_size, mask=mask, taper=taper)


def photon_halves(
    reconstruct: Callable[[np.ndarray], ArrayLike],
    counts: ArrayLike,
    *,
    gain: float = 1.0,
    seed: int = 0,
    pixel_size: float | None = None,
    mask: ArrayLike | None = None,
    taper: float = 0.25,
) -> RingCorrelation:
    """Resolution of a tomogram as far as photon noise limits it: shell correlation of two halves of the photons.

    Each photon goes to one half or the other by chance (binomial thinning), so that both are independent Poisson counts
    of all views, as from two scans of half the exposure. What both share counts as signal: streaks of too few views,
    rings, a wrong geometry. With `even_odd`, which such faults lower, it brackets the resolution.

    **Arguments:** `reconstruct(counts) -> (z, y, x)` or `(y, x)`, flat-field and logarithm included; it is given halves
    times two, so that flats and darks stay as they are; `counts` of the detector; `gain` = counts a photon; the rest as
    `shell_correlation`.

    **Raises:** `InputError` for counts that are negative or not finite.

    ```python
    counts = np.random.default_rng(0).poisson(1000 + 100 * np.random.rand(16, 64, 64))
    assert photon_halves(np.asarray, counts).correlation[5] > 0.1
    ```
    """
    photons = np.rint(_checked_counts(counts, gain) / gain).astype(np.int64)
    first = np.random.default_rng(seed).binomial(photons, 0.5)
    halves = [np.asarray(reconstruct((2 * gain * half).astype(np.float32))) for half in (first, photons - first)]
    return shell_correlation(*halves, pixel_size=pixel_size, mask=mask, taper=taper)


def _correlation(
    a: np.ndarray, b: np.ndarray, window: np.ndarray, shift: tuple, pixel_size: float | None, stack: bool = False
) -> RingCorrelation:
    """Correlation over the rings of all axes, or of the last two with the slices of a `stack` added up."""
    axes = tuple(range(1 if stack else 0, a.ndim))
    half = not (np.iscomplexobj(a) or np.iscomplexobj(b))
    transform = np.fft.rfftn if half else np.fft.fftn
    first, second = (np.asarray(transform(_centred(v, window), axes=axes)) for v in (a, b))
    shape = tuple(a.shape[i] for i in axes)
    count = min(shape) // 2 + 1
    sums = _ring_sums(first, second, shape, count, half)
    correlation = sums[0] / np.maximum(np.sqrt(sums[1] * sums[2]), np.finfo(float).tiny)
    share = (window**2).sum() ** 2 / (window.size * (window**4).sum())
    samples = np.maximum(sums[3] * share * (a.shape[0] if stack else 1), 1.0)
    frequency = np.arange(count) / min(shape)
    half_bit = threshold(samples, 0.5)
    return RingCorrelation(
        frequency[1:],
        correlation[1:],
        half_bit[1:],
        threshold(samples, 1.0)[1:],
        samples[1:],
        _crossing(frequency[1:], correlation[1:] - half_bit[1:]),
        shift,
        pixel_size,
    )


def _ring_sums(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...], count: int, half: bool) -> np.ndarray:
    """Sums over each ring of the product, the two powers and the number of samples, `(4, ring)`.

    Rings of the last axes of the spectra; what is before them is added up. Block by block: a large volume has more
    samples than there is room for their indices.
    """
    sums = np.zeros((4, count))
    block = max(1, 2**22 // int(np.prod(shape[1:])))
    for start in range(0, shape[0], block):
        part = slice(start, start + block)
        ring, twice = _rings(shape, count, half, part)
        a, b = (v[..., part, :] if len(shape) == 2 else v[part] for v in (first, second))
        values = [np.real(a * b.conj()), _abs2(a), _abs2(b)]
        values = [v.reshape(-1, *ring.shape).sum(0) for v in values]
        for total, v in zip(sums, [*values, np.ones(ring.shape)], strict=True):
            total += np.bincount(ring.ravel(), (twice * v).ravel(), count + 1)[:count]
    return sums


def _centred(values: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Windowed, its weighted mean removed; float32 stays what it is."""
    mean = np.sum(window * values) / np.sum(window)
    kind = np.result_type(values.dtype, np.float32) if values.dtype.itemsize <= 8 else values.dtype
    return (window * (values - mean)).astype(kind, copy=False)


def _abs2(values: Any) -> np.ndarray:
    """Squared modulus."""
    return values.real**2 + values.imag**2


def _length(metres: float) -> str:
    """A length in the unit that suits it."""
    for unit, size in (("nm", 1e-9), ("um", 1e-6), ("mm", 1e-3)):
        if metres < 999.5 * size:
            return f"{metres / size:.3g} {unit}"
    return f"{metres:.3g} m"


def threshold(samples: ArrayLike, bits: float) -> Any:
    """Correlation at which a ring of so many samples carries `bits` of information (van Heel & Schatz 2005, eq. 17).

    `bits = 0.5` and `1` are the half-bit and the one-bit curve. With the signal-to-noise ratio `s = 2^bits - 1` of the
    mean of both images, halved for each: `(s/2 + (2 sqrt(s/2) + 1)/sqrt n) / (1 + s/2 + 2 sqrt(s/2)/sqrt n)`.
    """
    ratio = (2.0**bits - 1) / 2
    root = np.sqrt(np.asarray(samples, float))
    return (ratio + (2 * math.sqrt(ratio) + 1) / root) / (1 + ratio + 2 * math.sqrt(ratio) / root)


def _window(shape: tuple[int, ...], taper: float) -> np.ndarray:
    window = np.ones(())
    for length in shape:
        edge = np.minimum(np.arange(length) + 0.5, length - np.arange(length) - 0.5) / max(taper * length, 1e-9)
        window = window[..., None] * np.sin(0.5 * np.pi * np.clip(edge, 0, 1)) ** 2
    return window


def _cylinder(shape: tuple[int, ...], taper: float, along: bool) -> np.ndarray:
    """A cylinder about z, inscribed in (y, x), that falls to zero over a share of its radius (and of each end)."""
    y, x = ((np.arange(n) - (n - 1) / 2) / (n / 2) for n in shape[1:])
    inside = (1 - np.hypot(y[:, None], x[None])) / max(taper, 1e-9)
    disc = np.sin(0.5 * np.pi * np.clip(inside, 0, 1)) ** 2
    ends = _window(shape[:1], taper) if along else np.ones(shape[0])
    return (ends[:, None, None] * disc).astype(np.float32)


def _softened(mask: np.ndarray, width: float, stack: bool) -> np.ndarray:
    """A mask whose edge is a Gaussian of this standard deviation [pixel]; slices of a stack one by one."""
    axes = (1, 2) if stack else (0, 1, 2)
    spectrum = np.fft.rfftn(mask.astype(np.float32), axes=axes)
    for axis in axes:
        n = mask.shape[axis]
        frequency = np.fft.rfftfreq(n) if axis == 2 else np.fft.fftfreq(n)
        gain = np.exp(-2 * (np.pi * width * frequency) ** 2)
        spectrum = spectrum * gain.reshape([-1 if i == axis else 1 for i in range(3)])
    return np.clip(np.fft.irfftn(spectrum, [mask.shape[i] for i in axes], axes=axes), 0, 1)


def _rings(shape: tuple[int, ...], count: int, half: bool, part: slice) -> tuple[np.ndarray, np.ndarray]:
    """Index of the ring of each Fourier sample of some rows (of the first axis), one sample of the shortest axis wide;
    `count` for those beyond Nyquist.

    With `half` the samples are those of a real transform; the second result says how many of the whole each stands for.
    """
    square, twice = np.zeros(()), np.ones(1)
    for axis, length in enumerate(shape):
        last = half and axis == len(shape) - 1
        frequency = np.fft.rfftfreq(length) if last else np.fft.fftfreq(length)
        square = square[..., None] + (frequency[part] if axis == 0 else frequency) ** 2
        if last:
            twice = np.where((frequency == 0) | (frequency == 0.5), 1.0, 2.0)
    return np.minimum(np.rint(np.sqrt(square) * min(shape)).astype(int), count), twice


def _crossing(frequency: np.ndarray, above: np.ndarray) -> float:
    """First frequency at which the curve falls below zero and stays there for two rings, interpolated."""
    below = above < 0
    stays = below & np.append(below[1:], True)
    # The first rings hold too few samples for their threshold to mean much.
    stays[:2] = False
    if not stays.any():
        return 0.5
    at = int(stays.argmax())
    before, after = above[at - 1], above[at]
    share = before / (before - after) if before > 0 else 0.0
    return float(frequency[at - 1] + share * (frequency[at] - frequency[at - 1]))


# ---------------------------------------------------------------------- registration
def align(reference: ArrayLike, image: ArrayLike, rounds: int = 3) -> tuple[np.ndarray, tuple[float, ...]]:
    """`image` laid over `reference`: sub-pixel shift and, for complex images, phase ramp and constant phase removed.

    **Returns:** the aligned image and the shift [pixel] by which it was moved.
    """
    a, b = np.asarray(reference), np.asarray(image)
    if not np.iscomplexobj(a) and not np.iscomplexobj(b):
        shift = register(a - a.mean(), b - b.mean())
        return shift_image(b, shift), tuple(float(s) for s in shift)
    # A ramp adds a constant to the phase gradients: with their mean removed they show the shift alone.
    total = register(_phase_gradients(a), _phase_gradients(b), channels=True)
    window = _window(a.shape, 0.25)
    moved = b
    for _ in range(rounds):
        moved = _without_ramp(a, shift_image(b, total), window)
        total = total + register(
            window * (a - np.sum(window * a) / window.sum()), window * (moved - np.sum(window * moved) / window.sum())
        )
    moved = _without_ramp(a, shift_image(b, total), window)
    return moved, tuple(float(s) for s in total)


def register(reference: np.ndarray, image: np.ndarray, upsampling: int = 100, channels: bool = False) -> np.ndarray:
    """Shift [pixel] that lays `image` over `reference`: peak of their cross-correlation to 1/`upsampling` of a pixel.

    By a matrix Fourier transform around the peak (Guizar-Sicairos, Thurman & Fienup, Opt. Lett. 33, 156 (2008)). With
    `channels` the first axis holds images whose correlations are added.
    """
    a, b = (np.asarray(x) if channels else np.asarray(x)[None] for x in (reference, image))
    axes = tuple(range(1, a.ndim))
    product = (np.fft.fftn(a, axes=axes) * np.fft.fftn(b, axes=axes).conj()).sum(0)
    shape = product.shape
    peak = np.array(np.unravel_index(np.abs(np.fft.ifftn(product)).argmax(), shape), float)
    peak = (peak + np.array(shape) // 2) % shape - np.array(shape) // 2
    for fineness in (10, upsampling):
        steps = np.arange(-15, 16) / fineness
        places = [p + steps for p in peak]
        local = product
        for length, place in zip(shape, places, strict=True):
            # Contracts the first axis and appends the fine one at the end, so that the order of the axes is kept.
            local = np.tensordot(local, np.exp(2j * np.pi * np.outer(np.fft.fftfreq(length), place)), (0, 0))
        at = np.unravel_index(np.abs(local).argmax(), local.shape)
        peak = np.array([place[i] for place, i in zip(places, at, strict=True)])
    return peak


def shift_image(image: np.ndarray, shift: ArrayLike) -> np.ndarray:
    """An image moved by `shift` [pixel] (band-limited, periodic)."""
    spectrum = np.fft.fftn(image)
    for axis, (length, step) in enumerate(zip(image.shape, np.asarray(shift, float), strict=True)):
        phase = np.exp(-2j * np.pi * np.fft.fftfreq(length) * step)
        spectrum = spectrum * phase.reshape([-1 if i == axis else 1 for i in range(image.ndim)])
    moved = np.fft.ifftn(spectrum)
    return moved if np.iscomplexobj(image) else moved.real


def _phase_gradients(image: np.ndarray) -> np.ndarray:
    gradients = []
    window = _window(image.shape, 0.25)
    for axis in range(image.ndim):
        step = image * np.roll(image, 1, axis).conj()
        weight = np.abs(step)
        angle = np.angle(step * np.exp(-1j * np.angle(step.sum())))
        gradients.append(window * np.sqrt(weight) * (angle - np.sum(weight * angle) / weight.sum()))
    return np.stack(gradients)


def _without_ramp(reference: np.ndarray, image: np.ndarray, window: np.ndarray) -> np.ndarray:
    """`image` times the plane phase wave that lays its phase over that of `reference`."""
    ratio = window * reference * image.conj()
    # Coarse: the wave is the brightest sample of the spectrum of the ratio; fine: the same by interpolation.
    shape = np.array(ratio.shape)
    spectrum = np.abs(np.fft.fftn(ratio))
    peak = np.array(np.unravel_index(spectrum.argmax(), ratio.shape), float)
    peak = (peak + shape // 2) % shape - shape // 2
    for fineness in (5, 50, 500):
        places = [p + np.arange(-5, 6) / fineness for p in peak]
        local = ratio
        for length, place in zip(ratio.shape, places, strict=True):
            local = np.tensordot(local, np.exp(-2j * np.pi * np.outer(np.arange(length), place) / length), (0, 0))
        at = np.unravel_index(np.abs(local).argmax(), local.shape)
        peak = np.array([place[i] for place, i in zip(places, at, strict=True)])
    wave = np.ones((), complex)
    for length, frequency in zip(ratio.shape, peak, strict=True):
        wave = wave[..., None] * np.exp(2j * np.pi * frequency * np.arange(length) / length)
    constant = np.sum(ratio * wave.conj())
    return image * wave * (constant / max(abs(constant), np.finfo(float).tiny))


# ---------------------------------------------------------------------- edges
@dataclasses.dataclass(frozen=True)
class EdgeFit:
    """An error function fitted to an edge: `width` = 10-90 % distance ([m] with a pixel size, else [pixel]), `centre`
    [pixel], the two levels, and the rms `residual` relative to the step."""

    width: float
    centre: float
    low: float
    high: float
    residual: float


def edge_width(profile: ArrayLike, pixel_size: float | None = None) -> EdgeFit:
    """Sharpness of an edge: least-squares fit of `low + (high - low) (1 + erf((x - centre) / (sqrt 2 sigma))) / 2`.

    The 10-90 % width is 2.563 sigma.

    **Arguments:** `profile` across one edge, at least 6 pixels; `pixel_size` [m].

    **Raises:** `InputError` when there are too few pixels or no edge.

    ```python
    assert edge_width([0, 0, 0, 0, 1, 1, 1, 1]).width < 1
    ```
    """
    values = np.asarray(profile, float)
    if values.ndim != 1 or values.size < 6 or not np.isfinite(values).all():
        raise InputError(f"an edge profile needs at least six finite numbers in a row, not shape {values.shape}")
    ends = max(values.size // 5, 1)
    low, high = values[:ends].mean(), values[-ends:].mean()
    if abs(high - low) <= 1e-12 * max(abs(high), abs(low), 1e-300):
        raise InputError("the profile has no edge: both ends are equal")
    relative = (values - low) / (high - low)
    centre = float(np.interp(0.5, np.maximum.accumulate(relative), np.arange(values.size)))
    parameters = _fit_edge(values, np.array([low, high, centre, 1.0]))
    low, high, centre, sigma = parameters
    error = values - _edge(parameters, np.arange(values.size))[0]
    width = 2 * 1.2815515655446004 * abs(sigma) * (1.0 if pixel_size is None else pixel_size)
    return EdgeFit(width, float(centre), float(low), float(high), float(np.sqrt(np.mean(error**2)) / abs(high - low)))


def edge_along(
    image: ArrayLike,
    start: tuple[float, ...],
    end: tuple[float, ...],
    *,
    width: float = 0.0,
    pixel_size: float | None = None,
) -> EdgeFit:
    """`edge_width` of the profile between two points of an image or a volume, in steps of one pixel.

    **Arguments:** `image` `(y, x)` or `(z, y, x)`; `start`, `end` indices of two points either side of one edge, the
    line square to it; `width` [pixel] over which the profile is averaged across the line (averages noise; keep it small
    against the edge's curvature); `pixel_size` [m]. Between pixels values are interpolated linearly, which widens an
    edge of one pixel by some 10 %.

    **Raises:** `InputError` for points outside, or as `edge_width`.

    ```python
    step = np.zeros((16, 16)); step[:, 8:] = 1
    assert edge_along(step, (8, 2), (8, 13), width=3).centre == 5.5
    ```
    """
    data = np.asarray(image, float)
    ends = np.asarray([start, end], float)
    if ends.shape != (2, data.ndim) or data.ndim not in (2, 3):
        raise InputError(f"an edge in an array of the shape {data.shape} lies between two points of as many indices")
    if not ((ends >= 0).all() and (ends <= np.asarray(data.shape) - 1).all()):
        raise InputError(f"the points {start} and {end} are not inside of {data.shape}")
    length = float(np.linalg.norm(ends[1] - ends[0]))
    if length < 5:
        raise InputError(f"the points of an edge are {length:.1f} pixels apart; at least 5 are needed")
    along = (ends[1] - ends[0]) / length
    line = ends[0] + np.arange(int(length + 1e-9) + 1)[:, None] * along
    across = np.linalg.svd(along[None])[2][1:]  # an orthonormal basis of what is square to the line
    steps = np.arange(-int(width / 2), int(width / 2) + 1)
    offsets = [
        np.dot(c, across)
        for c in itertools.product(steps, repeat=data.ndim - 1)
        if np.linalg.norm(c) <= width / 2 + 1e-9
    ]
    return edge_width(np.mean([_interpolated(data, line + offset) for offset in offsets], 0), pixel_size)


def _interpolated(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Multilinear interpolation at points `(point, axis)`; the border goes on outside."""
    inside = np.clip(points, 0, np.asarray(image.shape) - 1)
    low = np.minimum(inside.astype(int), np.maximum(np.asarray(image.shape) - 2, 0))
    rest, values = inside - low, np.zeros(len(points))
    for corner in itertools.product((0, 1), repeat=image.ndim):
        weight = np.prod(np.where(corner, rest, 1 - rest), axis=1)
        index = np.minimum(low + corner, np.asarray(image.shape) - 1)
        values += weight * image[tuple(index.T)]
    return values


def _edge(parameters: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The model and its derivatives by (low, high, centre, sigma)."""
    low, high, centre, sigma = parameters
    scaled = (x - centre) / sigma
    step = 0.5 * (1 + np.array([math.erf(s / math.sqrt(2)) for s in scaled]))
    slope = (high - low) * np.exp(-0.5 * scaled**2) / math.sqrt(2 * math.pi) / sigma
    return low + (high - low) * step, np.stack([1 - step, step, -slope, -slope * scaled], -1)


def _fit_edge(values: np.ndarray, parameters: np.ndarray, rounds: int = 100) -> np.ndarray:
    """Levenberg-Marquardt; sigma is kept above a twentieth of a pixel, below which samples say nothing."""
    x = np.arange(values.size)
    damping = 1e-3
    model, jacobian = _edge(parameters, x)
    for _ in range(rounds):
        normal = jacobian.T @ jacobian
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), jacobian.T @ (values - model))
        trial = parameters + step
        trial[3] = np.clip(abs(trial[3]), 0.05, values.size)
        new_model, new_jacobian = _edge(trial, x)
        if np.sum((values - new_model) ** 2) <= np.sum((values - model) ** 2):
            done = np.abs(trial - parameters).max() < 1e-10 * max(1.0, np.abs(parameters).max())
            parameters, model, jacobian, damping = trial, new_model, new_jacobian, damping / 3
            if done:
                break
        else:
            damping *= 4
    return parameters


# ---------------------------------------------------------------------- residuals
def held_out_residual(counts: ArrayLike, prediction: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Amplitude residual `R = sum |sqrt I - sqrt p| / sum sqrt I` of predicted against measured counts.

    Meant for views that the solver never saw. **Arguments:** `counts`, `prediction` `(view, y, x)`; `mask` `(y, x)`,
    True = measured.
    """
    measured, expected = _kept(counts, prediction, mask)
    amplitude = np.sqrt(np.maximum(measured, 0))
    return float(
        np.abs(amplitude - np.sqrt(np.maximum(expected, 0))).sum() / max(amplitude.sum(), np.finfo(float).tiny)
    )


def deviance(counts: ArrayLike, prediction: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Poisson deviance a pixel, `mean 2 (p - I + I ln(I / p))`: about 1 where only the noise of many counts is left."""
    return float(np.mean(deviances(counts, prediction, mask)))


def deviances(counts: ArrayLike, prediction: ArrayLike, mask: ArrayLike | None = None) -> np.ndarray:
    """The Poisson deviance of each measured pixel `(pixel,)`, whose mean `deviance` is.

    ```python
    assert np.allclose(deviances([4.0, 0.0], [4.0, 1.5]), [0.0, 3.0])
    ```
    """
    measured, expected = _kept(counts, prediction, mask)
    expected = np.maximum(expected, 1e-12)
    logarithm = np.where(measured > 0, measured * np.log(np.maximum(measured, 1e-300) / expected), 0.0)
    return 2 * (expected - measured + logarithm)


def noise_floor(
    prediction: ArrayLike, mask: ArrayLike | None = None, metric: Any = held_out_residual, seed: int = 0
) -> float:
    """The same figure when only photon noise is left: `metric` of Poisson draws from the prediction against it."""
    expected = np.maximum(np.asarray(prediction, float), 0)
    return float(metric(np.random.default_rng(seed).poisson(expected), expected, mask))


def _kept(counts: ArrayLike, prediction: ArrayLike, mask: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    measured, expected = np.asarray(counts, float), np.asarray(prediction, float)
    if measured.shape != expected.shape:
        raise InputError(f"counts have shape {measured.shape}, the prediction {expected.shape}")
    if mask is None:
        return measured, expected
    keep = np.broadcast_to(np.asarray(mask, bool), measured.shape)
    return measured[keep], expected[keep]


# ---------------------------------------------------------------------- error bars
@dataclasses.dataclass(frozen=True)
class ErrorBars:
    """Mean and standard `deviation` of each voxel over `draws` reconstructions of redrawn data.

    The deviation itself is known to `1 / sqrt(2 (draws - 1))` of its value in a single voxel, better in regions.
    """

    mean: np.ndarray
    deviation: np.ndarray
    draws: int


def line_integral_variance(counts: ArrayLike, flat: ArrayLike, dark: ArrayLike = 0.0, flats: int = 0) -> np.ndarray:
    """Variance of `-ln((I - dark) / (flat - dark))` from photon noise, to first order: `I / (I - dark)^2`.

    **Arguments:** `counts` `(view, y, x)` [photons]; `flat` and `dark`, means of the frames of the empty and of no
    beam, that broadcast to it; `flats` = number of flats averaged, whose noise `flat / (flats (flat - dark)^2)` is
    added (0: none). Where the light is not above the dark the variance is infinite.

    ```python
    assert line_integral_variance([100.0], 400.0) == 0.01
    ```
    """
    counts, flat, dark = (np.asarray(v, float) for v in (counts, flat, dark))

    def relative(values: np.ndarray) -> np.ndarray:
        light = values - dark
        return np.where(light > 0, np.maximum(values, 0) / np.where(light > 0, light, 1) ** 2, np.inf)

    noise = relative(counts)
    return noise + relative(flat) / flats if flats else noise


def bootstrap_photons(
    reconstruct: Callable[[np.ndarray], ArrayLike],
    counts: ArrayLike,
    *,
    draws: int = 20,
    gain: float = 1.0,
    seed: int = 0,
) -> ErrorBars:
    """Error bars of any reconstruction from photon noise: it is repeated from counts that are drawn anew.

    Poisson draws about the measured counts (parametric bootstrap; Efron & Tibshirani 1993, section 6.5). What is not
    photon noise (wrong geometry, missing views, the prior) is not in it.

    **Arguments:** `reconstruct(counts) -> volume`, flat-field and logarithm included (jit it: all draws have one
    shape); `counts` of the detector; `gain` = counts a photon.

    **Raises:** `InputError` for negative counts or fewer than two draws.

    ```python
    bars = bootstrap_photons(lambda counts: np.sqrt(counts), np.full(1000, 400.0))
    assert abs(bars.deviation.mean() - 0.5) < 0.02
    ```
    """
    measured = _checked_counts(counts, gain)
    random = np.random.default_rng(seed)
    kind = measured.dtype if np.issubdtype(measured.dtype, np.floating) else np.float32
    drawn = lambda: (random.poisson(measured / gain) * gain).astype(kind)
    return _spread((reconstruct(drawn()) for _ in range(draws)), draws)


def bootstrap_views(
    reconstruct: Callable[[np.ndarray], ArrayLike], views: int, *, draws: int = 20, seed: int = 0
) -> ErrorBars:
    """Error bars of a reconstruction from what its views disagree about: it is repeated from views drawn with
    replacement.

    Holds the noise, whatever its law, motion and flat-field errors, and also the streaks of the directions that a draw
    leaves out: an upper bound, meant for well-sampled scans and iterative solvers.

    **Arguments:** `reconstruct(indices) -> volume` from the views of these sorted indices `(view,)`, some more than
    once; `views` = how many there are.

    ```python
    data = np.random.default_rng(0).normal(size=400)
    bars = bootstrap_views(lambda views: data[views].mean(keepdims=True), 400, draws=200)
    assert abs(bars.deviation[0] / 0.05 - 1) < 0.2
    ```
    """
    random = np.random.default_rng(seed)
    drawn = lambda: np.sort(random.integers(0, views, views))
    return _spread((reconstruct(drawn()) for _ in range(draws)), draws)


def _checked_counts(counts: ArrayLike, gain: float) -> np.ndarray:
    measured = np.asarray(counts)
    if not (np.isfinite(measured).all() and (measured >= 0).all()) or not gain > 0:
        raise InputError("counts must be finite and not negative, and the gain (counts a photon) above 0")
    return measured


def _spread(volumes: Iterable[ArrayLike], draws: int) -> ErrorBars:
    """Mean and deviation of volumes that are never held together (Welford 1962)."""
    if draws < 2:
        raise InputError(f"a deviation needs two draws at least, not {draws}")
    mean, squares = np.zeros(()), np.zeros(())
    for number, volume in enumerate(volumes, 1):
        difference = np.asarray(volume, float) - mean
        mean = mean + difference / number
        squares = squares + difference * (np.asarray(volume, float) - mean)
    return ErrorBars(mean, np.sqrt(squares / (draws - 1)), draws)


# ---------------------------------------------------------------------- phase retrieval transfer function
@dataclasses.dataclass(frozen=True)
class PhaseTransfer:
    """Phase-retrieval transfer function: how far independent starts agree on the phase, ring by ring.

    **Fields:** `frequency` [cycles/pixel] of each ring, `transfer` (1 = the phase is always the same, 0 = random),
    `at_half` and `at_e`, the first frequencies at which it falls below 0.5 and 1/e for good, `pixel_size` [m].
    """

    frequency: np.ndarray
    transfer: np.ndarray
    at_half: float
    at_e: float
    pixel_size: float | None = None

    def as_quality(self) -> dict[str, Any]:
        """Entries of a result's `quality`."""
        return {
            "prtf_frequency": self.frequency,
            "prtf": self.transfer,
            "prtf_at_half": self.at_half,
            "prtf_at_e": self.at_e,
        }

    def __str__(self) -> str:
        def said(level: str, at: float) -> str:
            if not at:
                return f"below {level} everywhere"
            if at >= self.frequency[-1]:
                return f"above {level} up to the detector's edge"
            size = f"{0.5 / at:.1f} pixels" if self.pixel_size is None else _length(0.5 / at * self.pixel_size)
            return f"above {level} down to a half-period of {size}"

        return f"phase retrieval transfer function {said('0.5', self.at_half)}, {said('1/e', self.at_e)}"


def phase_transfer(
    objects: ArrayLike, counts: ArrayLike, mask: ArrayLike | None = None, pixel_size: float | None = None
) -> PhaseTransfer:
    """Phase-retrieval transfer function of aligned reconstructions from independent starts,
    `|<FFT(object)>| / sqrt(I)` over rings (Chapman et al. 2006, JOSA A 23, 1179, sec. 4).

    It says how reproducible the phases are, not how right: starts that share a wrong support agree too.

    **Arguments:** `objects` `(start, y, x)` or `(start, z, y, x)` with shift, twin and constant phase removed; `counts`
    of their shape with the zero frequency at index 0, of `sum |object|^2` in total; `mask`, `True` = measured.

    **Raises:** `InputError` for fewer than two objects.

    ```python
    objects = np.ones((3, 8, 8), complex)
    assert np.allclose(phase_transfer(objects, abs(np.fft.fft2(objects[0], norm="ortho")) ** 2).transfer[0], 1.0)
    ```
    """
    found = np.asarray(objects)
    if found.ndim not in (3, 4) or len(found) < 2:
        raise InputError(f"the transfer function needs two or more objects (start, y, x), got shape {found.shape}")
    shape = found.shape[1:]
    kept = np.ones(shape, bool) if mask is None else np.asarray(mask, bool)
    mean = abs(np.fft.fftn(found.mean(0), norm="ortho"))
    modulus = np.sqrt(np.maximum(np.asarray(counts, float), 0))
    squares = [np.square(np.fft.fftfreq(n)) for n in shape]
    radius = np.sqrt(sum(np.ix_(*squares)) + np.zeros(shape))
    width = 1 / min(shape)
    ring = np.round(radius / width).astype(int)
    count = min(shape) // 2 + 1
    inside = kept & (ring < count)
    total = lambda values: np.bincount(ring[inside], values[inside], count)
    known = total(modulus) > 0
    frequency = np.arange(count)[known] * width
    transfer = total(mean)[known] / total(modulus)[known]
    falls = [_crossing(frequency, transfer - level) for level in (0.5, math.exp(-1))]
    return PhaseTransfer(frequency, transfer, falls[0], falls[1], pixel_size)


# ---------------------------------------------------------------------- holograms
def distance_halves(
    reconstruct: Callable[[np.ndarray], ArrayLike],
    distances: ArrayLike,
    *,
    pixel_size: float | None = None,
    taper: float = 0.25,
) -> RingCorrelation:
    """Resolution of a phase from holograms at several distances: ring correlation of what odd and even ones give.

    Frames are ordered by distance and dealt alternately. Both halves have noise, zeros of the transfer function, flats
    and alignment of their own: the figure is a pessimistic one, as each half also misses frequencies that the other
    shows. `photon_halves`, which keeps all distances in both and sees photon noise alone, brackets it from above.

    **Arguments:** `reconstruct(indices) -> (y, x)`, from the frames of those indices with the settings of the whole
    set; `distances` `(view,)` [m], or numbers in their order; the rest as `ring_correlation`.

    **Raises:** `InputError` for fewer than two distances.

    ```python
    frames = np.random.rand(4, 32, 32)
    frc = distance_halves(lambda views: frames[views].mean(0), [0.021, 0.022, 0.026, 0.033])
    ```
    """
    distances = np.asarray(distances, float)
    if distances.ndim != 1 or distances.size < 2 or not np.isfinite(distances).all():
        raise InputError(
            f"distance_halves: distances of shape {distances.shape}; give one finite distance a frame, "
            "two frames at least"
        )
    order = np.argsort(distances, kind="stable")
    halves = [np.asarray(reconstruct(np.sort(part))) for part in (order[::2], order[1::2])]
    return ring_correlation(*halves, pixel_size=pixel_size, taper=taper)


@dataclasses.dataclass(frozen=True)
class PhaseJumps:
    """Where neighbouring pixels of a phase differ by more than pi.

    **Fields:** `count` of such pairs, `residues` = points about which the wrapped steps do not add up to zero,
    `steepest` = largest step [rad], `message` in words.
    """

    count: int
    residues: int
    steepest: float
    message: str


def phase_jumps(phase: ArrayLike) -> PhaseJumps:
    """Check that a phase `(..., y, x)` [rad] has no wraps.

    A phase that is the integral of the refractive index (as in `models.Holography`) never wraps, so that none has to be
    undone. A step of more than pi from pixel to pixel is then an edge that the pixel does not resolve; in a phase taken
    from the angle of a wave it is a wrap. Wraps come in closed lines unless there are residues, vortices of the wave
    about which no unwrapping is right.

    **Raises:** `InputError` for values that are not finite or not real.

    ```python
    ramp = np.linspace(0, 30, 64) * np.ones((64, 1))
    assert phase_jumps(ramp).count == 0 and phase_jumps(np.angle(np.exp(1j * ramp))).count > 0
    ```
    """
    values = np.asarray(phase)
    if np.iscomplexobj(values) or values.ndim < 2 or not np.isfinite(values).all():
        raise InputError(
            f"phase_jumps: shape {values.shape}, type {values.dtype}; expected a finite, real phase (..., y, x)"
        )
    steps = [np.diff(values.astype(float), axis=axis) for axis in (-2, -1)]
    wrapped = [s - 2 * np.pi * np.rint(s / (2 * np.pi)) for s in steps]
    circulation = (np.diff(wrapped[0], axis=-1) - np.diff(wrapped[1], axis=-2)) / (2 * np.pi)
    residues = int(np.count_nonzero(np.rint(circulation)))
    count = int(sum(np.count_nonzero(np.abs(s) > np.pi) for s in steps))
    steepest = float(max((np.abs(s).max(initial=0.0) for s in steps), default=0.0))
    text = f"steps from pixel to pixel up to {steepest:.2f} rad; "
    text += "no wraps" if not count else f"WARNING: {count} of them above pi: wraps, or edges that are not resolved"
    return PhaseJumps(count, residues, steepest, text + (f"; {residues} residues" if residues else ""))
