"""The empty beam at each view: flats averaged, interpolated in time, or combined of their principal components."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from ..errors import InputError, MissingMetadata
from ..frames import Measurement, spread

if TYPE_CHECKING:
    from ._empty_beam import EmptyBeam, Mixture

__all__ = ["References", "eigen_flats"]

_SHUFFLES = 20  # of the parallel analysis


@dataclasses.dataclass
class References:
    """Flats and darks of a scan, reduced to what the correction of any detector rows needs.

    **Fields:** `frames` = all flats `(frame, y, x)` or `None` (the counts are transmissions already); `light`
    `(group, y, x)`, `dark` `(y, x)`; `left`, `right`, `share` for each view; `basis` `(component, frame)` gives the
    eigen-flats from the flats of any rows, `weights` `(view, component)`; `gain` = counts a detected photon and
    `read_noise` [counts], measured on flats and darks; `message` in words.
    """

    frames: np.ndarray | None
    light: Float[np.ndarray, "group y x"]
    dark: Float[np.ndarray, "y x"]
    left: Int[np.ndarray, " view"]
    right: Int[np.ndarray, " view"]
    share: Float[np.ndarray, " view"]
    basis: Float[np.ndarray, "component frame"]
    weights: Float[np.ndarray, "view component"]
    gain: float
    read_noise: float
    message: str

    @classmethod
    def from_scan(cls, scan: Measurement, how: str) -> "References":
        """Flats and darks as `how` says: "auto", "mean", "interpolate" or "eigen" (whose weights are fitted later).

        **Raises:** `MissingMetadata` without flats, unless the counts are transmissions already (floats, none above
        10); `InputError` where shapes do not fit or `how` cannot be followed.
        """
        if scan.flats is None or scan.kind in ("transmission", "line-integrals"):
            return cls._unit(scan, how)
        frames = np.asarray(scan.flats)
        frames = frames[None] if frames.ndim == 2 else frames
        darks = None if scan.darks is None else np.asarray(scan.darks)
        _check_frames(scan, frames, darks)
        dark = np.zeros(scan.frame_shape)
        if darks is not None:
            darks = darks.reshape(-1, *scan.frame_shape)
            dark = darks.mean(0, dtype=float)
        places = _flat_places(scan, len(frames))
        groups, centres = _groups(frames, places, scan.views, how)
        light = np.stack([frames[g].mean(0, dtype=float) for g in groups]) - dark
        if not np.nanmax(light, initial=0) > 0:
            raise InputError(f"{scan.name}: the flats are nowhere above the darks; are they exchanged?")
        _refuse_divided(scan, float(np.nanmedian(light)))
        left, right, share = _between(centres, scan.views)
        gain, noise = _detector_noise(frames, darks, dark)
        none = np.zeros((0, len(frames))), np.zeros((scan.views, 0), np.float32)
        return cls(
            frames,
            light.astype(np.float32),
            dark.astype(np.float32),
            left,
            right,
            share,
            *none,
            gain,
            noise,
            _say(len(frames), len(groups)),
        )

    @classmethod
    def _unit(cls, scan: Measurement, how: str) -> "References":
        if scan.kind is None:
            _refuse_what_is_no_transmission(scan)
        elif scan.kind == "counts":
            raise MissingMetadata("data.flats", _FLAT_FIELD, scan.name, "/path/of/flats")
        if how in ("interpolate", "eigen"):
            raise InputError(f'prepare.flats = "{how}" needs flats; {scan.name} has none (transmissions already)')
        shape, views = scan.frame_shape, scan.views
        zero = np.zeros(views, np.int32)
        return cls(
            None,
            np.ones((1, *shape), np.float32),
            np.zeros(shape, np.float32),
            zero,
            zero,
            np.zeros(views, np.float32),
            np.zeros((0, 0)),
            np.zeros((views, 0), np.float32),
            1.0,
            0.0,
            f"the frames are {scan.kind}, as said" if scan.kind else "no flats: the counts are taken as transmissions",
        )

    def rows(self, first: int, last: int) -> "EmptyBeam":
        """The part for detector rows first .. last - 1, on the device."""
        import jax

        from ._empty_beam import EmptyBeam

        rows = slice(first, last)
        components = np.zeros((0, last - first, self.dark.shape[1]))
        if len(self.basis):
            assert self.frames is not None
            components = _components(self.frames[:, rows] - self.dark[rows], self.basis)
        parts = (self.light[:, rows], self.dark[rows], components.astype(np.float32))
        return EmptyBeam(*map(jax.device_put, parts))

    def mixture(self, views: Any) -> "Mixture":
        """Shares of some views, on the device."""
        import jax

        from ._empty_beam import Mixture

        return Mixture(*(jax.device_put(part[views]) for part in (self.left, self.right, self.share, self.weights)))

    def fit_eigen(self, counts: Any, rows: list[tuple[int, int]], block: int) -> None:
        """Principal components of the flats, and their weights for every view from some bands of detector rows."""
        import jax.numpy as jnp

        from ._empty_beam import fit_eigen_weights

        assert self.frames is not None
        if len(self.frames) < 3:
            raise InputError(f'prepare.flats = "eigen" needs at least 3 flats; there are {len(self.frames)}')
        sample = np.concatenate([(self.frames[:, a:b] - self.dark[a:b]) for a, b in rows], 1)
        self.basis = eigen_flats(sample)
        self.message = f"{len(self.frames)} flats, {len(self.basis)} eigen-flats above noise"
        views = counts.shape[0]
        self.weights = np.zeros((views, len(self.basis)), np.float32)
        if not len(self.basis):
            self.message += ": their mean divides the frames"
            return
        beams = [self.rows(a, b) for a, b in rows]
        height = min(b - a for a, b in rows)
        light, components = (
            jnp.stack([getattr(beam, part)[:, :height] for beam in beams], 1) for part in ("light", "components")
        )
        for start in range(0, views, block):
            frames = np.stack(
                [
                    np.asarray(counts[start : start + block, a : a + height], np.float32) - self.dark[a : a + height]
                    for a, _ in rows
                ],
                1,
            )
            self.weights[start : start + block] = fit_eigen_weights(jnp.asarray(frames), light.mean(0), components)


_FLAT_FIELD = "the flat field (frames without the sample)"
_BORDER = 0.1  # of the columns, on either side
_OPAQUE = 0.1  # less does not pass beside a sample
_COUNTED = 100  # counts of flats, from which on frames that stay below 10 are no counts
_BRIGHT = 1.5  # fringes of the brightest edges stay below


def _refuse_what_is_no_transmission(scan: Measurement) -> None:
    """Refuse frames without flats that are counts, or that look like line integrals, as long as nobody says so.

    **Raises:** `MissingMetadata`, `InputError`.
    """
    views = spread(scan.views, 24)
    some = np.asarray(scan.counts[views]) if np.dtype(scan.counts.dtype).kind == "f" else np.full((1, 1, 1), np.inf)
    if not float(some.max()) <= 10:
        raise MissingMetadata(
            "data.flats",
            _FLAT_FIELD + "; where the frames are divided already, data.kind = transmission or line-integrals says so",
            scan.name,
            "/path/of/flats",
        )
    width = max(1, int(_BORDER * some.shape[2]))
    border = float(np.median(np.concatenate([some[..., :width], some[..., -width:]], -1)))
    high = float(np.quantile(some, 0.999))
    if border < _OPAQUE or high > _BRIGHT:
        seen = f"the border transmits {border:.2g}" if border < _OPAQUE else f"values reach {high:.3g}"
        raise InputError(
            f"{scan.name}: frames without flats look like line integrals, not like transmissions ({seen}): say "
            "--set data.kind=line-integrals, or data.kind=transmission where they are"
        )


def _refuse_divided(scan: Measurement, light: float) -> None:
    """Refuse frames that are transmissions beside flats that are counts, as long as nobody says what they are.

    **Raises:** `InputError`.
    """
    if scan.kind is not None or np.dtype(scan.counts.dtype).kind != "f" or light < _COUNTED:
        return
    views = spread(scan.views, 9)
    high = float(np.nanmax(np.asarray(scan.counts[views])))
    if high <= 10:
        raise InputError(
            f"{scan.name}: the frames reach {high:.3g}, the flats {light:.3g}: where the frames are divided by the "
            "flats already, say --set data.kind=transmission or line-integrals"
        )


def _check_frames(scan: Measurement, flats: np.ndarray, darks: np.ndarray | None) -> None:
    for name, frames in (("flats", flats), ("darks", darks)):
        if frames is None:
            continue
        if frames.shape[-2:] != scan.frame_shape or not frames.size:
            raise InputError(
                f"{scan.name}: {name} have shape {frames.shape}; expected (frame, {scan.frame_shape[0]}, "
                f"{scan.frame_shape[1]})"
            )
        if frames.dtype.kind == "f" and not np.isfinite(frames).all(-1).all(-1).any():
            raise InputError(f"{scan.name}: no frame of the {name} is finite")


# ---------------------------------------------------------------------------------------------------- in time
def _flat_places(scan: Measurement, count: int) -> np.ndarray | None:
    """Find for each flat the index of the view before which it was taken, where the scan knows."""
    extra = scan.extra
    if "flat_views" in extra:
        places = np.asarray(extra["flat_views"], float).ravel()
    elif "flat_times" in extra and "view_times" in extra:
        places = np.interp(
            np.asarray(extra["flat_times"], float).ravel(),
            np.asarray(extra["view_times"], float),
            np.arange(scan.views),
        )
    else:
        return None
    if places.size != count or not np.isfinite(places).all():
        raise InputError(f"{scan.name}: the places of the flats in time are {places.size} numbers for {count} flats")
    return places


def _groups(frames: np.ndarray, places: np.ndarray | None, views: int, how: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Flats taken together, and where in the scan [view]."""
    together = [np.arange(len(frames))], np.zeros(1)
    if how == "interpolate" and places is None:
        raise InputError(
            'prepare.flats = "interpolate" needs to know when the flats were taken: '
            "data.flat_views = index of the view before which each was taken"
        )
    if how in ("mean", "eigen") or places is None:
        return together
    order = np.argsort(places, kind="stable")
    cuts = np.flatnonzero(np.diff(places[order]) > max(1.0, 0.01 * views)) + 1
    groups = [np.sort(g) for g in np.split(order, cuts)]
    if len(groups) < 2:
        return together
    return groups, np.array([places[g].mean() for g in groups])


def _between(centres: np.ndarray, views: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbouring groups of each view and the share of the right one; before the first and after the last, that
    one."""
    where = np.interp(np.arange(views), centres, np.arange(len(centres)))
    left = np.minimum(where.astype(np.int32), max(len(centres) - 2, 0))
    return left, np.minimum(left + 1, len(centres) - 1).astype(np.int32), (where - left).astype(np.float32)


def _say(count: int, groups: int) -> str:
    if groups == 1:
        return f"mean of {count} flat{'s' * (count > 1)}"
    return f"{count} flats in {groups} groups, interpolated in time"


def _detector_noise(frames: np.ndarray, darks: np.ndarray | None, dark: np.ndarray) -> tuple[float, float]:
    """Counts a photon (variance over mean of the flats, brought to the same mean) and read noise [counts]."""
    noise = 0.0 if darks is None or len(darks) < 3 else float(np.nanmedian(darks.astype(np.float32).std(0, ddof=1)))
    if len(frames) < 3:
        return 1.0, noise
    light = frames.astype(np.float32) - dark.astype(np.float32)
    level = np.nanmean(light, (1, 2), keepdims=True)
    light = light * (level.mean() / np.where(level > 0, level, 1))
    mean = light.mean(0)
    good = mean > 0.1 * np.nanmedian(mean)
    gain = float(np.median((light.var(0, ddof=1)[good] - noise**2) / mean[good])) if good.any() else 1.0
    # A median over few frames is below the mean of a variance; what matters here is the order of magnitude.
    return (gain if gain > 0 else 1.0), noise


# ---------------------------------------------------------------------------------------------------- eigen-flats
def eigen_flats(flats: Float[np.ndarray, "frame y x"], seed: int = 0) -> Float[np.ndarray, "component frame"]:
    """Basis of the principal components of dark-subtracted flats that stand above noise: `basis @ (flats - mean)` are
    the eigen-flats, each of the size of one standard deviation.

    The number comes from parallel analysis: an eigenvalue counts when it exceeds those of the same frames with every
    pixel's values shuffled among the frames (V. Van Nieuwenhove et al., Opt. Express 23, 27975 (2015), section 2.1).

    **Cost:** 20 Gram matrices of the flats, on up to 20 000 pixels.
    """
    rng = np.random.default_rng(seed)
    count = len(flats)
    pixels = flats.reshape(count, -1).astype(float)
    some = pixels[:, rng.choice(pixels.shape[1], min(pixels.shape[1], 20000), replace=False)]
    some = some - some.mean(0)
    values, vectors = np.linalg.eigh(some @ some.T)
    noise = np.array([np.linalg.eigvalsh(_gram(rng.permuted(some, axis=0))) for _ in range(_SHUFFLES)])
    # The mean is subtracted, so that one eigenvalue is nothing but rounding.
    above = values[::-1] > np.quantile(noise, 0.95, axis=0)[::-1]
    kept = int(np.argmin(np.append(above[:-1], False)))
    return (vectors[:, ::-1][:, :kept] / np.sqrt(count)).T


def _gram(a: np.ndarray) -> np.ndarray:
    return a @ a.T


def _components(light: Float[np.ndarray, "frame y x"], basis: Float[np.ndarray, "component frame"]) -> np.ndarray:
    return np.tensordot(basis, light - light.mean(0), 1)
