"""Which pixels of a frame a bin takes: channels between two radii, sectors of azimuth, and what they see of a pattern.

All in NumPy, so that `inspect` integrates a few frames without jax.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from ..errors import InputError
from ..geometry import TiltedDetector, polarisation_factor

__all__ = ["Bins", "Cake", "ChannelResponse", "radial_range"]


class Cake(NamedTuple):
    """Where the bins are: channels between two radii, [rad] of `two_theta` or [1/m] of `q`, and sectors of azimuth.

    `sectors` are counted from chi = -pi; one makes patterns.
    """

    low: float
    high: float
    channels: int
    sectors: int = 1
    axis: str = "two_theta"

    @property
    def shape(self) -> tuple[int, ...]:
        """Give the shape of an integrated frame."""
        return (self.channels,) if self.sectors == 1 else (self.sectors, self.channels)

    @property
    def centres(self) -> np.ndarray:
        """Give the middle of every channel."""
        return self.low + (np.arange(self.channels) + 0.5) * self.step

    @property
    def step(self) -> float:
        """Give the width of a channel."""
        return (self.high - self.low) / self.channels


class ChannelResponse(NamedTuple):
    """What channels see of a pattern: weighted means of its values at finer angles.

    **Fields:** `angles` `(place,)`, uniform, those of the axis; `weight` `(channel, band)` of the places from `finer`
    times the channel on.
    """

    angles: np.ndarray
    weight: np.ndarray
    finer: int

    def __call__(self, values: Float[np.ndarray, "... place"]) -> Float[np.ndarray, "... channel"]:
        """Average the values at `angles` over what each channel sees."""
        windows = np.lib.stride_tricks.sliding_window_view(values, self.weight.shape[1], -1)[..., :: self.finer, :]
        return np.einsum("...kb,kb->...k", windows, self.weight)


class Bins(NamedTuple):
    """Pixels of a frame and the bins that take them; `Bins.of` makes them from what `AzimuthalIntegrator` is made of.

    **Fields:** `pixel`, `owner`, `share` `(entry,)`: a pixel, its bin, and the part that lies there; `weight` `(y, x)`:
    solid angle and polarisation; `norm` `(bin,)`: their sum.
    """

    pixel: np.ndarray
    owner: np.ndarray
    share: np.ndarray
    weight: np.ndarray
    norm: np.ndarray
    cake: Cake
    shape: tuple[int, int]
    detector: TiltedDetector

    @classmethod
    def of(
        cls,
        detector: TiltedDetector,
        shape: tuple[int, int],
        cake: Cake,
        *,
        mask: Any = None,
        splitting: str = "no",
        polarisation: float | None = None,
        solid_angle: bool = True,
    ) -> "Bins":
        """Sort the pixels into bins.

        **Raises:** `InputError` for a mask of another shape, or bins that no pixel meets.
        """
        mask = np.ones(shape, bool) if mask is None else np.asarray(mask, bool)
        if mask.shape != tuple(shape):
            raise InputError(f"the mask has shape {mask.shape}, the frames {tuple(shape)}")
        two_theta, chi, weight = detector.angles(shape)
        weight = weight if solid_angle else np.ones_like(weight)
        if polarisation is not None:
            weight = weight * polarisation_factor(two_theta, chi, polarisation)
        low, high = _spans(detector, shape, cake, splitting)
        pixel, owner, share = _entries(low, high, _sector(chi, cake.sectors), mask, cake)
        if not len(pixel):
            raise InputError("no measured pixel lies in the range of the channels: check geometry, mask and range")
        norm = np.bincount(owner, weight.ravel()[pixel] * share, int(np.prod(cake.shape)))
        return cls(pixel, owner, share, weight, norm, cake, (int(shape[0]), int(shape[1])), detector)

    def sums(self, frames: Shaped[np.ndarray, "view y x"]) -> Float[np.ndarray, "view bin"]:
        """Sum the counts of every bin, as `AzimuthalIntegrator.sums` does."""
        taken = (np.asarray(frame).ravel()[self.pixel] * self.share for frame in frames)
        return np.stack([np.bincount(self.owner, values, self.norm.size) for values in taken])

    def response(self, finer: int = 4) -> ChannelResponse:
        """Compute what every channel is the mean of: over its pixels as they stand, and over the area of each.

        **Arguments:** `finer` angles to a channel.

        **Cost:** four evaluations of the geometry, once.
        """
        pixel, owner = self.pixel, self.owner
        share = self.share * self.weight.ravel()[pixel] / self.norm[owner]
        node = np.polynomial.legendre.leggauss(2)[0]  # their variance is that of an even spread
        away = []
        for row in node:
            for column in node:
                middle = self.detector.angles(self.shape, 0.5 + row / 2, 0.5 + column / 2)[0]
                angle = _radius(middle, self.detector, self.cake.axis)
                away.append((angle.ravel()[pixel] - self.cake.low) / self.cake.step * finer - owner * finer)
        lead = int(-np.floor(min(a.min() for a in away)))
        band = int(np.floor(max(a.max() for a in away))) + lead + 2
        found = np.zeros(self.cake.channels * band)
        for a in away:
            first = np.floor(a).astype(np.int64)
            for up, part in ((0, 1 - (a - first)), (1, a - first)):
                found += np.bincount(owner * band + first + lead + up, share * part / len(away), found.size)
        places = np.arange((self.cake.channels - 1) * finer + band) - lead
        angles = self.cake.low + places * self.cake.step / finer
        return ChannelResponse(angles, found.reshape(-1, band), finer)


def radial_range(detector: TiltedDetector, shape: tuple[int, int], axis: str, splitting: str) -> tuple[float, float]:
    """Give the smallest and the largest radius that a frame sees [rad or 1/m]."""
    low, high = _spans(detector, shape, Cake(0.0, 1.0, 1, 1, axis), splitting)
    return max(float(low.min()), 0.0), float(high.max())


# ---------------------------------------------------------------------------------------------------- the table
def _radius(two_theta: np.ndarray, detector: TiltedDetector, axis: str) -> np.ndarray:
    if axis == "two_theta":
        return two_theta
    if detector.wavelength is None:
        raise InputError("q needs the wavelength of the beam: geometry.energy")
    return 4 * np.pi / detector.wavelength * np.sin(two_theta / 2)


def _spans(detector: TiltedDetector, shape: tuple[int, int], cake: Cake, splitting: str) -> tuple[Any, Any]:
    """Radii between which a pixel lies: twice its middle, or its middle -+ the farthest of its corners."""
    middle = _radius(detector.angles(shape)[0], detector, cake.axis)
    if splitting == "no":
        return middle, middle
    reach = np.zeros(shape)
    for row in (0.0, 1.0):
        for column in (0.0, 1.0):
            corner = _radius(detector.angles(shape, row, column)[0], detector, cake.axis)
            reach = np.maximum(reach, np.abs(corner - middle))
    return middle - reach, middle + reach


def _sector(chi: np.ndarray, sectors: int) -> np.ndarray:
    """Number the sectors from chi = -pi."""
    return np.minimum(((chi + np.pi) / (2 * np.pi) * sectors).astype(np.int64), sectors - 1)


def _entries(low: Any, high: Any, sector: Any, mask: np.ndarray, cake: Cake) -> tuple[np.ndarray, ...]:
    """Pixel, bin and share of the pixel that lies in the bin; a pixel that reaches beyond the range loses that part."""
    channels, first, step = cake.channels, cake.low, cake.step
    kept = np.flatnonzero(mask.ravel())
    low, high, sector = ((np.asarray(a).ravel())[kept] for a in (low, high, sector))
    low, high = (low - first) / step, (high - first) / step
    start = np.floor(low).astype(np.int64)
    # The last edge belongs to the last channel.
    start = np.where((start == channels) & (low <= channels * (1 + 1e-12)), channels - 1, start)
    width, found = high - low, []
    for place in range(int((np.floor(high) - start).max(initial=0)) + 1):
        channel = start + place
        part = np.minimum(high, channel + 1) - np.maximum(low, channel)
        share = np.where(width > 0, part / np.where(width > 0, width, 1), 1.0 if place == 0 else 0.0)
        good = (channel >= 0) & (channel < channels) & (share > 0)
        found.append((kept[good], (sector * channels + channel)[good], share[good]))
    pixel, owner, share = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return pixel, owner, share
