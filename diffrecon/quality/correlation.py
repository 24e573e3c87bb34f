"""Resolution by Fourier ring and shell correlation; how far independent starts agree on the phase."""

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from .registration import align, cosine_window


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
        """Give the resolution [pixel]: half the period at the crossing."""
        return 0.5 / self.crossing

    @property
    def resolution(self) -> float | None:
        """Give the resolution [m], half period; `None` where the pixel size is not known."""
        return None if self.pixel_size is None else self.half_period * self.pixel_size

    @property
    def one_bit_crossing(self) -> float:
        """Find where, like `crossing`, the correlation falls below the stricter one-bit curve."""
        return crossing_of(self.frequency, self.correlation - self.one_bit)

    def __str__(self) -> str:
        def said(crossing: float, name: str) -> str:
            pixels = 0.5 / crossing
            length = "" if self.pixel_size is None else f"{_length(pixels * self.pixel_size)}, "
            limit = " (the pixel limits)" if crossing >= 0.5 else ""
            return f"{length}{pixels:.2f} pixels at {name}{limit}"

        return f"half-period resolution {said(self.crossing, 'half-bit')}; {said(self.one_bit_crossing, 'one-bit')}"

    def as_quality(self) -> dict[str, Any]:
        """Name the figures as they are written to `/entry/quality`."""
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
    return _correlation(a, b, cosine_window(a.shape, taper), shift, pixel_size)


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


def _correlation(
    a: np.ndarray, b: np.ndarray, window: np.ndarray, shift: tuple, pixel_size: float | None, stack: bool = False
) -> RingCorrelation:
    """Correlation over the rings of all axes, or of the last two with the slices of a `stack` added up."""
    axes = tuple(range(1 if stack else 0, a.ndim))
    half = not (np.iscomplexobj(a) or np.iscomplexobj(b))
    transform = np.fft.rfftn if half else np.fft.fftn
    first, second = (np.asarray(transform(centred(v, window), axes=axes)) for v in (a, b))
    shape = tuple(a.shape[i] for i in axes)
    count = min(shape) // 2 + 1
    sums = ring_sums(first, second, shape, count, half)
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
        crossing_of(frequency[1:], correlation[1:] - half_bit[1:]),
        shift,
        pixel_size,
    )


def ring_sums(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...], count: int, half: bool) -> np.ndarray:
    """Take sums over each ring of the product, the two powers and the number of samples, `(4, ring)`.

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


def centred(values: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Window values and remove their weighted mean; float32 stays what it is."""
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
    """Compute the correlation at which a ring of so many samples carries `bits` of information (van Heel & Schatz 2005,
    eq. 17).

    `bits = 0.5` and `1` are the half-bit and the one-bit curve. With the signal-to-noise ratio `s = 2^bits - 1` of the
    mean of both images, halved for each: `(s/2 + (2 sqrt(s/2) + 1)/sqrt n) / (1 + s/2 + 2 sqrt(s/2)/sqrt n)`.
    """
    ratio = (2.0**bits - 1) / 2
    root = np.sqrt(np.asarray(samples, float))
    return (ratio + (2 * math.sqrt(ratio) + 1) / root) / (1 + ratio + 2 * math.sqrt(ratio) / root)


def _cylinder(shape: tuple[int, ...], taper: float, along: bool) -> np.ndarray:
    """A cylinder about z, inscribed in (y, x), that falls to zero over a share of its radius (and of each end)."""
    y, x = ((np.arange(n) - (n - 1) / 2) / (n / 2) for n in shape[1:])
    inside = (1 - np.hypot(y[:, None], x[None])) / max(taper, 1e-9)
    disc = np.sin(0.5 * np.pi * np.clip(inside, 0, 1)) ** 2
    ends = cosine_window(shape[:1], taper) if along else np.ones(shape[0])
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


def crossing_of(frequency: np.ndarray, above: np.ndarray) -> float:
    """Find the first frequency at which the curve falls below zero and stays there for two rings, interpolated."""
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
        """Name the entries of a result's `quality`."""
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
    """Compute the phase-retrieval transfer function of aligned reconstructions from independent starts,
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
    count = min(shape) // 2 + 1
    ring, _ = _rings(shape, count, False, slice(None))
    inside = kept & (ring < count)
    total = lambda values: np.bincount(ring[inside], values[inside], count)
    known = total(modulus) > 0
    frequency = np.arange(count)[known] / min(shape)
    transfer = total(mean)[known] / total(modulus)[known]
    falls = [crossing_of(frequency, transfer - level) for level in (0.5, math.exp(-1))]
    return PhaseTransfer(frequency, transfer, falls[0], falls[1], pixel_size)
