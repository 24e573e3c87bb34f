"""Coherent diffraction imaging: one isolated object, one far-field pattern in two or three dimensions."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Num
from numpy.typing import ArrayLike

from .._model import Model
from .._result import Quantity
from ..errors import InputError
from ..operators.fourier import blur
from ..scan import Scan
from ..solvers import DiffractionSets

__all__ = ["Diffraction", "autocorrelation_support", "diffraction_pattern", "oversampling_ratio"]


class Diffraction(Model):
    """The diffraction pattern of an isolated object in a plane wave, `|FFT(object)|^2 + background^2`.

    **Fields:**

    - `object`: `(y, x)`, or `(z, y, x)` for a pattern scanned through a Bragg peak or merged to three dimensions; real
      or complex [sqrt(counts)], and `sum |object|^2` is the number of counts of the whole pattern. A Bragg object is
      the density of its crystal with the phase `-Q.u` of its displacement field u.
    - `support`: where the object may differ from zero.
    - `positive`: whether the object is real and not negative (a weak absorber, an electron density).
    - `background`: amplitude [sqrt(counts)], whose square is added incoherently; any shape that broadcasts.
    - `coherence`: standard deviation [detector pixel] of the blur that the source's size makes of the pattern, one
      number or one for each axis: partial coherence of a Gaussian source (Clark, Huang, Harder & Robinson 2012).
    - `pixel_size` [m] of the object; `None` = unknown.

    Array index (0, 0) of the pattern is the zero frequency. Cost: one FFT, three with `coherence`.

    ```python
    model = Diffraction(object=jnp.ones((4, 4)) / 4, support=jnp.ones((4, 4), bool))
    assert jnp.isclose(model(jnp.arange(1))[0, 0, 0], 1.0)
    ```
    """

    object: Inexact[Array, "*z y x"]
    support: Bool[Array, "*z y x"]
    background: Any = None
    coherence: Any = None
    positive: bool = eqx.field(static=True, default=False)
    pixel_size: float | None = eqx.field(static=True, default=None)

    unknowns: ClassVar[tuple[str, ...]] = ("object",)

    def __call__(self, views: Any) -> Float[Array, "view *z y x"]:
        """Expected counts, the same for every view."""
        counts = jnp.abs(jnp.fft.fftn(self.inside(), norm="ortho")) ** 2
        if self.coherence is not None:
            counts = blur(counts, self.coherence, range(counts.ndim))  # periodically, as patterns in FFT order are
        if self.background is not None:
            counts = counts + self.background**2
        return jnp.broadcast_to(counts, (jnp.shape(views)[0], *counts.shape))

    def inside(self) -> Inexact[Array, "*z y x"]:
        """The object as constrained: zero outside the support, and not negative where it is said to be so."""
        obj = jnp.where(self.support, self.object, 0)
        return jnp.maximum(jnp.real(obj), 0) if self.positive else obj

    @classmethod
    def from_scan(
        cls,
        scan: Scan,
        *,
        three_dimensional: bool | None = None,
        support: ArrayLike | None = None,
        positive: bool = False,
        background: ArrayLike | None = None,
        coherence: ArrayLike | None = None,
        seed: int = 0,
    ) -> "Diffraction":
        """A first guess: the measured modulus with random phases, within a support from the autocorrelation.

        **Arguments:** see `diffraction_pattern` for `three_dimensional`; `support` of the pattern's shape, or its sides
        [pixel] of a box in the middle; `background` [count]; `coherence`, one blur for the detector's two axes (a
        rocking curve is sampled at points), or one for each.

        **Raises:** `InputError` for a pattern without counts, a support or a blur that does not fit it, or a negative
        background.
        """
        if background is not None and (isinstance(background, bool) or not np.all(np.asarray(background, float) >= 0)):
            raise InputError("model.background: counts in every pixel, zero or more")
        counts, mask = diffraction_pattern(scan, three_dimensional)
        where = support_of(counts.shape, support) if support is not None else autocorrelation_support(counts, mask)
        phases = np.random.default_rng(seed).uniform(-np.pi, np.pi, counts.shape)
        guess = np.fft.ifftn(np.sqrt(np.where(mask, counts, 0)) * np.exp(1j * phases), norm="ortho")
        return cls(
            object=jnp.asarray(np.where(where, guess, 0), jnp.complex64),
            support=jnp.asarray(where),
            background=jnp.sqrt(jnp.asarray(background, jnp.float32)) if np.any(background) else None,
            coherence=_widths(coherence, counts.shape),
            positive=positive,
            pixel_size=None if scan.pixel_size is None else float(scan.pixel_size),
        )

    def predict(self, obj: Inexact[Array, "*z y x"]) -> Float[Array, "*z y x"]:
        """Predict the pattern of another object, which is limited by itself."""
        return self.replace(object=obj, support=jnp.ones_like(self.support))(jnp.arange(1))[0]

    def sets(self, counts: Num[np.ndarray, "*z y x"], mask: Bool[np.ndarray, "*z y x"]) -> DiffractionSets:
        """Make the sets of `solvers.random_starts` of a measured pattern."""
        background = 0.0 if self.background is None else np.asarray(self.background) ** 2
        return DiffractionSets.of(counts, self.support, mask, background)

    def describe(self, counts: Num[np.ndarray, "*z y x"], mask: Bool[np.ndarray, "*z y x"]) -> list[str]:
        """Say how large pattern, object and support are, and whether the pattern is sampled finely enough."""
        ratio, size = oversampling_ratio(self.support), " x ".join(map(str, counts.shape))
        pixel = "unknown pixel size" if self.pixel_size is None else f"pixel {self.pixel_size * 1e9:.2f} nm"
        line = (
            f"pattern of {size}, {counts.sum():.4g} counts, {1 - mask.mean():.1%} unmeasured; object on {size}, "
            f"{pixel}; first support of {int(self.support.sum())} pixels, {ratio:.1f} data for each"
        )
        warning = (
            "fewer than 2 data for each pixel of this support: if the object is as large, the pattern is not "
            "sampled finely enough (move the detector away, or give a smaller model.support)"
        )
        return [line, warning] if ratio < 2 else [line]

    def centred(self) -> "Diffraction":
        """Move the support's centre of mass to the array's middle and the mean phase to zero: neither is measured."""
        support, obj = np.asarray(self.support), np.asarray(self.inside())
        moves = []
        for axis, length in enumerate(support.shape):
            weight = support.sum(tuple(i for i in range(support.ndim) if i != axis))
            centre = np.angle(np.sum(weight * np.exp(2j * np.pi * np.arange(length) / length))) * length / (2 * np.pi)
            moves.append(round(length // 2 - centre))
        roll = lambda a: jnp.asarray(np.roll(a, moves, tuple(range(support.ndim))), a.dtype)
        mean = np.exp(-1j * np.angle(np.sum(obj * abs(obj)))).astype(np.complex64)
        return self.replace(object=roll(obj * mean), support=roll(support))

    def quantities(self, scan: Scan | None = None) -> dict[str, Quantity]:
        """Give what is written to a file: object, phase where the object is (above a tenth of its brightest modulus),
        support; in three dimensions the modulus by itself too.
        """
        obj = np.asarray(self.inside())
        modulus, axes = abs(obj), ("z", "y", "x")[3 - obj.ndim :]
        phase = np.where(modulus > 0.1 * modulus.max(), np.angle(obj), np.nan)
        said = lambda data, units, name, kind: Quantity(data, units, axes, self.pixel_size, name, kind)
        found = {
            "object": said(
                obj.astype(np.result_type(obj, np.complex64)),
                "sqrt(counts)",
                "object",
                "data" if obj.ndim == 3 else "complex",
            ),
            "phase": said(phase, "rad", "phase where the object is", "volume" if obj.ndim == 3 else "image"),
            "support": said(np.asarray(self.support).astype(np.uint8), "", "support", "data"),
        }
        if obj.ndim == 3:
            found = {"amplitude": said(modulus, "sqrt(counts)", "modulus of the object", "volume")} | found
        return found


def _widths(coherence: ArrayLike | None, shape: tuple[int, ...]) -> Float[Array, " axis"] | None:
    """The blur along each axis: one number is that of the detector's two, a rocking curve is sampled at points."""
    widths = np.atleast_1d(np.asarray(0.0 if coherence is None else coherence, float))
    if widths.size not in (1, len(shape)) or not ((widths >= 0) & (widths < 0.25 * min(shape))).all():
        raise InputError(f"model.coherence: {coherence} is no blur in detector pixels, one number or {len(shape)}")
    widths = widths if widths.size > 1 else np.where(np.arange(len(shape)) < len(shape) - 2, 0.0, widths)
    return jnp.asarray(widths, jnp.float32) if widths.any() else None


# ---------------------------------------------------------------------------------------------------- data
def diffraction_pattern(
    scan: Scan, three_dimensional: bool | None = None
) -> tuple[Num[np.ndarray, "*z y x"], Bool[np.ndarray, "*z y x"]]:
    """The counts of one pattern and where they were measured, zero frequency at index (0, 0).

    One frame is a pattern in two dimensions. Several frames are one in three (`three_dimensional=True`, the default),
    the first axis through the Bragg peak, or repeated exposures whose counts are added (`False`).

    **Raises:** `InputError` for patterns without counts, not finite or negative where measured, or masks that leave
    nothing.
    """
    frames = np.asarray(scan.counts)
    if frames.ndim != 3 or 0 in frames.shape:
        raise InputError(f"{scan.name}: counts have shape {frames.shape}; expected (view, y, x)")
    volume = frames.shape[0] > 1 if three_dimensional is None else three_dimensional
    if volume and frames.shape[0] < 4:
        raise InputError(
            f"{scan.name}: {frames.shape[0]} frames are no pattern in three dimensions; set "
            "model.three_dimensional=false to add them up"
        )
    counts = frames if volume else frames.sum(0, dtype=np.float64 if frames.dtype.kind == "f" else np.int64)
    mask = np.broadcast_to(np.ones(scan.frame_shape, bool) if scan.mask is None else scan.mask, counts.shape)
    if scan.extra.get("dc", "centre") == "centre":
        counts, mask = np.fft.ifftshift(counts), np.fft.ifftshift(mask)
    wrong = mask & ~(np.isfinite(counts) & (counts >= 0)) if counts.dtype.kind == "f" else mask & (counts < 0)
    if wrong.any():
        raise InputError(
            f"{scan.name}: {int(wrong.sum())} measured pixels are negative or not finite; mark them as "
            "unmeasured in the mask"
        )
    if not mask.any():
        raise InputError(f"{scan.name}: the mask covers every pixel (diffrecon's masks are True where measured)")
    if not counts[mask].any():
        raise InputError(f"{scan.name}: all measured pixels are zero: there is no pattern to reconstruct")
    counts = np.where(mask, counts, 0)
    if counts.dtype.kind != "f":  # a type that jax has without 64 bits
        counts = counts.astype(np.float32 if counts.max() >= 2**31 else np.int32)
    return counts, np.array(mask)


def oversampling_ratio(support: ArrayLike) -> float:
    """Pixels of the pattern for each unknown pixel of the object (Miao, Sayre & Chapman 1998): it must be above 2 for a
    complex object, or there are fewer data than unknowns; more than 4 is comfortable.

    ```python
    assert oversampling_ratio(np.eye(4, dtype=bool)) == 4.0
    ```
    """
    support = np.asarray(support, bool)
    return float(support.size / max(int(support.sum()), 1))


# ---------------------------------------------------------------------------------------------------- support
def support_of(shape: tuple[int, ...], said: ArrayLike) -> Bool[np.ndarray, "*z y x"]:
    """A support from an array of the pattern's shape, or from the sides [pixel] of a box in the array's middle."""
    given = np.asarray(said)
    if given.shape == shape:
        where = given != 0
        if not where.any():
            raise InputError("model.support is empty")
        return where
    if given.ndim > 1 or given.size not in (1, len(shape)) or given.dtype.kind not in "iuf":
        raise InputError(
            f"model.support has shape {given.shape}; give an array of shape {shape}, true in the support, "
            f"or {len(shape)} sides of a box in pixels"
        )
    where = np.ones(shape, bool)
    for axis, (length, side) in enumerate(zip(shape, np.broadcast_to(given, (len(shape),)), strict=True)):
        if not 1 <= side <= length:
            raise InputError(f"model.support: a side of {side:g} pixels does not fit into {length}")
        inside = abs(np.arange(length) - length // 2) <= side / 2
        where &= inside.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return where


def autocorrelation_support(
    counts: ArrayLike, mask: ArrayLike | None = None, threshold: float = 0.04
) -> Bool[np.ndarray, "*z y x"]:
    """A first, loose support: where the object's autocorrelation exceeds a fraction of its maximum (Marchesini et al.
    2003, sec. II), moved to the array's middle. Twice as wide as the object.

    What a beam stop hides is filled by a Gaussian in q (Guinier's law) through the measured pixels around it, and zero
    elsewhere.

    ```python
    counts = abs(np.fft.fft2(np.pad(np.ones((4, 4)), 14))) ** 2
    assert autocorrelation_support(counts).sum() < 100
    ```
    """
    counts = np.asarray(counts, float)
    mask = np.ones(counts.shape, bool) if mask is None else np.asarray(mask, bool)
    correlation = np.fft.fftshift(np.fft.ifftn(_without_hole(counts, mask)).real)
    return correlation > threshold * correlation.max()


def _without_hole(counts: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Counts with unmeasured pixels about the zero frequency filled by `exp(a - b q^2)`."""
    filled = np.where(mask, counts, 0)
    squares = [np.square(np.fft.fftfreq(n) * n) for n in counts.shape]
    q2 = sum(np.ix_(*squares)) + np.zeros(counts.shape)
    radius2 = q2[mask].min()
    if radius2 == 0:
        return filled
    near = mask & (q2 <= 4 * max(radius2, 4)) & (counts > 0)
    hole = ~mask & (q2 <= 4 * max(radius2, 4))
    if near.sum() < 3:
        return filled
    slope, level = np.polyfit(q2[near], np.log(counts[near]), 1, w=np.sqrt(counts[near]))
    return np.where(hole, np.exp(level + min(slope, 0.0) * q2), filled)
