"""From the raw frames of a scan to trusted line integrals, any detector rows at a time."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InputError
from ..frames import FiniteFrames, Measurement, spread
from ..quality import line_integral_variance
from ..settings import Numbers, build, section, setting, unless
from ..solvers.direct.fbp import PhaseFilter
from ._centre import RotationCentre, find_rotation_centre
from ._defects import ZINGER_REACH, BadPixels, Filling, brighter_than_beam, columns_moved, find_bad_pixels
from ._distortion import check_distortion, undistort
from ._flatfield import Zingers, block_transmission, logarithm
from ._flux import check_region, find_air, follows_air, monitor_of, said_of, unusable_monitor
from ._full_turn import StitchPlan, is_full_turn, plan_stitch, should_stitch, stitch
from ._hardening import check_coefficients, linearise
from ._reference_frames import leave_out_unlit, sort_out_references
from ._references import References
from ._stripes import STRIPE_METHODS, remove_stripes
from ._tally import Tally, levels_of

__all__ = ["DEFAULTS", "LineIntegrals", "Preparation", "Settings", "line_integrals"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How raw frames become line integrals."""

    clip: float = setting(1e-3, "smallest transmission; what lies below is set to it and counted", above=0, below=1)
    flats: str = setting(
        "auto",
        "interpolate in time, or mix eigen-flats; auto: interpolate where their times are known",
        choices=("auto", "mean", "interpolate", "eigen"),
    )
    flux: Any = setting(
        None,
        "brightness of each view: none, auto (air found beside the sample), monitor (the scan's), or the air "
        "[row, row, col, col]; by default the monitor where it changes and the air with it",
    )
    zingers: float | None = setting(None, "threshold in standard deviations, say 8", above=0)
    bad_pixels: bool = setting(True, "fill pixels that hold no signal")
    stripes: str = setting("none", "how stripes are removed", choices=STRIPE_METHODS)
    stripe_size: int | None = setting(
        None, "about twice the widest stripe", unit="columns", at_least=3, only={"stripes": unless("none")}
    )
    beam_hardening: Numbers | None = setting(None, "[a1, a2, ...] of a1 p + a2 p^2 + ...")
    distortion: Numbers | None = setting(None, "(2, y, x): row and column in the frame of every straight pixel")
    full_turn: str = setting(
        "auto",
        "joining of half views; auto: where the axis is near an edge and the sample goes on",
        choices=("auto", "as-is", "stitch"),
    )

    centre_search: tuple[float, float] | None = setting(
        None, "[first, last] column of the rotation axis; the middle half of the detector by default", unit="columns"
    )
    delta_beta: float | None = setting(None, "of the sample, for Paganin's filter before the logarithm", above=0)

    def as_mapping(self) -> dict[str, Any]:
        """Give what `Preparation` takes."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(Settings)}


@dataclasses.dataclass(frozen=True)
class _Sections:
    prepare: Settings = section(Settings)


DEFAULTS: dict[str, Any] = Settings().as_mapping()

_BLOCK_BYTES = 128 << 20  # of float32 frames corrected at a time
_SAMPLE_VIEWS = 24  # from which air is found
_HOT_VIEWS = 9  # in which hot pixels are looked for
_BANDS, _BAND = 4, 32  # of detector rows from which the weights of eigen-flats are fitted
_CENTRE_ROWS = 16  # among which those with most contrast are chosen


class LineIntegrals(NamedTuple):
    """**Fields:** `values` `(view, z, u)` = integral of mu along the ray; `angles` [rad] of the views (those of the
    scan unless half views were joined; `None` where it has none); `clipped` = number of pixels whose transmission was
    below the clip; `dead` = number of bad detector pixels that were filled; `messages` = what was done, in
    words."""

    values: np.ndarray
    angles: np.ndarray | None
    clipped: int
    dead: int
    messages: tuple[str, ...]


def line_integrals(scan: Measurement, **settings: Any) -> LineIntegrals:
    """Line integrals `-ln(transmission)` of all views and rows, `(view, z, u)` float32.

    **Arguments:** settings of `Preparation`, whose `DEFAULTS` hold but for `full_turn`, which is "as-is" so that there
    is one view for each of the scan.

    **Raises:** `MissingMetadata` without flats, unless the counts are transmissions already (floats, none above 10);
    `InputError` for settings that cannot be followed.
    """
    prepared = Preparation(scan, {"full_turn": "as-is", **settings}, every_view=True)
    values = np.asarray(prepared.rows(0, prepared.shape[1]))
    return LineIntegrals(values, prepared.angles, prepared.clipped, prepared.bad, tuple(prepared.messages))


class Preparation:
    """Raw frames to line integrals, detector rows by detector rows.

    What is global is found once, from a sample of the frames: means of flats and darks, bad pixels, flux of each view,
    weights of eigen-flats, whether and how half views are joined. `rows(first, last)` then reads only those detector
    rows of the file, in blocks of views, and gives the same numbers whatever the rows around them.

    Order of the steps: zingers, flats and darks, bad pixels, flux, distortion, clip and logarithm, stripes, beam
    hardening, joining of half views.

    **Arguments:** `scan` with counts (lazy or not), flats, darks; `settings` as in `DEFAULTS`, missing ones by default;
    `every_view`, whether views without light stay, too, which are left out otherwise.

    **Attributes:** `scan`, of the views that are left; `shape` (view, z, u) and `angles` [rad] of what `rows` gives;
    `messages`, one line for each step that did something, with numbers (those of the rows read so far);
    `rotation_centre`, known only when half views were joined; `flux` of each view; `references`; `bad` and `clipped`,
    numbers of pixels.

    **Raises:** `MissingMetadata` without flats, unless the counts are transmissions already (floats, none above 10);
    `InputError` for settings that cannot be followed.

    ```python
    scan = dr.Scan.from_arrays(np.full((9, 4, 16), 60), flats=np.full((2, 4, 16), 110), darks=np.full((2, 4, 16), 10))
    prepared = Preparation(scan, {"stripes": "sorting"})
    values = prepared.rows(1, 3)                       # (9, 2, 16): 0.693
    ```
    """

    def __init__(self, scan: Measurement, settings: Mapping[str, Any] | None = None, *, every_view: bool = False):
        self.settings = _checked(settings or {}, scan)
        self.scan, self._references_said = sort_out_references(scan)
        self._left_out: list[str] = []
        if not every_view:
            self.scan, self._left_out = leave_out_unlit(self.scan)
            self._references_said += self._left_out
        scan, (height, width) = self.scan, scan.frame_shape
        self._moves = columns_moved(scan)
        self.references = References.from_scan(scan, self.settings["flats"])
        self._logs = scan.kind == "line-integrals"
        if self._logs and self.settings["flux"] == "monitor":
            raise InputError("prepare.flux=monitor is the brightness of frames: line integrals (data.kind) have none")
        found = find_bad_pixels(self.references, scan.mask, self._hot())
        self._bad: BadPixels = found if self.settings["bad_pixels"] else BadPixels(np.zeros((height, width), bool))
        if self.settings["flats"] == "eigen":
            self.references.fit_eigen(scan.counts, _bands(height), self._block(height))
        self._held: tuple[np.ndarray, int, np.ndarray] | None = None  # these views of rows from there on, in memory
        self.flux, self._flux_said = np.ones(scan.views, np.float32), ""
        if self.settings["flux"] != "none" and not (self._logs and self.settings["flux"] is None):
            self.flux, self._flux_said = self._measured_flux()
        self._where = self.settings["distortion"]
        self._tally = Tally.empty(height, scan.views)
        self.angles, self.shape = scan.angles, (scan.views, height, width)
        self.rotation_centre: float | None = None
        self._phase = None if self.settings["delta_beta"] is None else _phase_filter(scan, self.settings["delta_beta"])
        self._stitch: StitchPlan | None = None
        self._turn_said: list[str] = []
        if self.settings["full_turn"] != "as-is":
            self._join_halves()

    # ------------------------------------------------------------------------------------------------ use
    def rows(self, first: int, last: int) -> Float[Array, "view z u"]:
        """Line integrals of detector rows first .. last - 1, on the device.

        **Cost:** reads those rows of every view once; memory of the result twice over, and a block of frames.

        **Raises:** `InputError` for rows that the detector does not have.
        """
        if self._phase is None:
            return self._joined(first, last)
        # Before the logarithm, on some rows beyond those that are asked for.
        low, high = max(first - self._phase.reach, 0), min(last + self._phase.reach, self.shape[1])
        return self._phase.line_integrals(jnp.exp(-self._joined(low, high)))[:, first - low : last - low]

    def _joined(self, first: int, last: int) -> Float[Array, "view z u"]:
        values = self._unjoined(first, last)
        return values if self._stitch is None else stitch(values, self._stitch)

    def find_rotation_centre(self, rows: Float[Array, "view z u"] | None = None) -> RotationCentre:
        """Find the centre from some detector rows by `find_rotation_centre`, or from the stitching.

        **Arguments:** `rows`, those of the whole detector where they have been prepared already.
        """
        if self.rotation_centre is not None:
            line = f"rotation centre {self.rotation_centre:.2f} of the joined views"
            return RotationCentre(self.rotation_centre, 0.0, {"overlap": self.rotation_centre}, line)
        angles = self.scan.require("angles", "the rotation angle of each view", "/path/of/angles")
        whole: Any = getattr(self.scan, "whole_rows", None)
        if whole is not None:
            return self._centre_of(whole)
        if rows is None or self._phase is not None:
            sample: Any = self._sample_rows()
        else:
            some = self._some_rows()
            sample = rows if len(some) == self.shape[1] else rows[:, some]
        try:
            return find_rotation_centre(np.asarray(sample), angles, search=self.settings["centre_search"])
        except InputError as error:
            raise InputError("; ".join([f"{self.scan.name}: {error}", *self._left_out])) from None

    def _centre_of(self, whole: Any) -> RotationCentre:
        """Find the centre of some columns in the whole rows that they are part of."""
        window, cut, wide = whole.window, self.scan.frame_shape[1], whole.frame_shape[1]
        first = window.columns[0] / window.binning[1]
        search = self.settings["centre_search"]
        settings = self.settings | {"distortion": None, "centre_search": search and tuple(c + first for c in search)}
        if isinstance(settings["flux"], tuple | list) or settings["flux"] == "monitor":
            settings["flux"] = None
        if np.dtype(whole.counts.dtype).kind == "f":
            whole = whole.replace(counts=FiniteFrames(whole.counts))
        found = Preparation(whole, settings).find_rotation_centre()
        said = (
            f"{found.message}, in rows of {wide} columns, of which {cut} were chosen: column {found.centre - first:.2f}"
        )
        estimates = {name: value - first for name, value in found.estimates.items()}
        return RotationCentre(found.centre - first, found.spread, estimates, said)

    def beam(self) -> tuple[np.ndarray, np.ndarray]:
        """Average flats less darks, and darks [counts].

        **Raises:** `InputError` without flats, or where views were joined.
        """
        scan = self.scan
        if scan.flats is None or self._stitch is not None:
            raise InputError(f"{scan.name}: photon noise needs the flats (data.flats) of views that were not joined")
        dark = np.zeros(scan.frame_shape) if scan.darks is None else np.asarray(scan.darks, float).mean(0)
        return np.maximum(np.asarray(scan.flats, float).mean(0) - dark, 0), dark

    def variance(self, first: int, rows: Float[Array, "view z u"]) -> Float[Array, "view z u"]:
        """Estimate the photon noise of the line integrals of detector rows from `first` on; the detector counts."""
        light, dark = (frame[first : first + rows.shape[1]] for frame in self.beam())
        counts = light * np.exp(-np.asarray(rows)) + dark
        noise = line_integral_variance(counts, light + dark, dark, len(np.asarray(self.scan.flats)))
        return jnp.asarray(noise, jnp.float32)

    def changed(self) -> list[str]:
        """List settings that make line integrals anything else than the logarithm of the counts."""
        same = ("clip", "bad_pixels", "flats", "centre_search")
        return [name for name, value in DEFAULTS.items() if name not in same and self.settings[name] != value]

    @property
    def clipped(self) -> int:
        """Pixels below the clip in the rows read so far."""
        return int(self._tally.clipped.sum())

    @property
    def clipped_fraction(self) -> dict[str, float]:
        """Share of the values read so far that were below the clip, as a figure of the result; empty where none was."""
        read = int(self._tally.read.sum()) * self.scan.views * self.scan.frame_shape[1]
        return {"clipped_fraction": self.clipped / read} if self.clipped else {}

    @property
    def bad(self) -> int:
        """Bad detector pixels that are filled."""
        return int(self._bad.mask.sum())

    @property
    def lost_rows(self) -> np.ndarray:
        """Number the detector rows without any good pixel, which hold zeros."""
        return np.flatnonzero(self._bad.mask.all(1))

    @property
    def messages(self) -> list[str]:
        """One line for each step that did something, for the rows read so far."""
        settings, tally = self.settings, self._tally
        lines = [*self._references_said, self.references.message]
        if self.bad:
            lines.append(self._bad.message())
        if self._flux_said:
            lines.append(self._flux_said)
        if self._where is not None:
            moved = np.abs(self._where - np.indices(self.scan.frame_shape)).max()
            lines.append(f"detector distortion undone, up to {moved:.1f} pixels")
        columns = self.shape[2] if self._stitch is None else self.scan.frame_shape[1]
        seen = "lines" if self._logs else "flats" if self.references.frames is not None else "transmissions"
        lines += tally.lines(settings, columns, seen)
        if settings["beam_hardening"] is not None:
            lines.append(f"beam hardening: polynomial {', '.join(f'{a:g}' for a in settings['beam_hardening'])}")
        return lines + self._turn_said

    # ------------------------------------------------------------------------------------------------ steps
    def _unjoined(self, first: int, last: int) -> Float[Array, "view z u"]:
        height = self.scan.frame_shape[0]
        if not 0 <= first < last <= height:
            raise InputError(f"rows {first} to {last} do not lie on the detector of {height} rows")
        top, bottom, where = first, last, None
        if self._where is not None:
            wanted = self._where[:, first:last]
            top = int(np.clip(np.floor(wanted[0].min()) - 1, 0, height - 1))
            bottom = int(np.clip(np.ceil(wanted[0].max()) + 2, top + 1, height))
            where = jnp.asarray(wanted - np.array([top, 0])[:, None, None], jnp.float32)
        values, clipped, zingers = self._integrals(top, bottom, last - first, where)
        tally, own = self._tally, slice(first, last)
        tally.read[own], tally.clipped[own] = True, clipped
        tally.zingers[top:bottom] = zingers
        if self.settings["stripes"] != "none":
            clean, columns = remove_stripes(values, self.settings["stripes"], size=self.settings["stripe_size"])
            tally.stripes[own] = np.asarray(jnp.mean((clean - values) ** 2, (0, 2)))
            tally.columns[own], values = np.asarray(columns.sum(1)), clean
        if self.settings["beam_hardening"] is not None:
            values = linearise(values, self.settings["beam_hardening"])
        return values

    def _integrals(self, top: int, bottom: int, rows: int, where: Array | None) -> tuple[Array, np.ndarray, np.ndarray]:
        """Logarithms of frame rows top .. bottom - 1, straightened to `rows` rows by the map `where`; clipped pixels
        and zingers of each row."""
        views = self.scan.views
        beam, filling = self.references.rows(top, bottom), Filling.of(self._bad.mask[top:bottom])
        clipped, zingers = np.zeros(rows, int), np.zeros(bottom - top, int)
        block, values = self._block(bottom - top), None
        if getattr(self.scan.counts, "bands", 0) and block < views:  # every block would unpack the whole file
            self._held = np.arange(views), top, np.asarray(self.scan.counts[:, top:bottom])
        if block < views:
            values = jnp.zeros((views, rows, self.scan.frame_shape[1]), beam.light.dtype)
        for start in range(0, views, block):
            which = slice(start, min(start + block, views))
            light, hit = self._transmissions(which, top, bottom, beam, filling, self._ones if self._logs else None)
            if hit is not None:
                zingers += np.asarray(hit.sum((0, 2)))
            if where is not None:
                light = undistort(light, where)
            if self._logs:
                logs, low = light + jnp.log(self.flux[which])[:, None, None], jnp.zeros(light.shape[1], int)
            else:
                logs, low = logarithm(light, self.settings["clip"])
            self._tally.levels[which] += np.asarray(levels_of(logs))
            values = logs if values is None else _place(values, logs, start)
            clipped += np.asarray(low)
        assert values is not None
        self._tally.rows += rows
        self._held = None
        return values, clipped, zingers

    def _transmissions(
        self, views: slice, top: int, bottom: int, beam: Any, filling: Filling | None, flux: np.ndarray | None = None
    ) -> tuple[Array, Array | None]:
        """One block of views, read from the file."""
        threshold, zingers, wanted = self.settings["zingers"], None, views
        if threshold is not None or (self.settings["bad_pixels"] and not self._logs):
            references = self.references  # of transmissions the noise is not known
            zingers = Zingers(
                threshold, references.gain if references.frames is not None else 0.0, references.read_noise
            )
            wanted = self._with_neighbours(views)
        some = self._frames(wanted, top, bottom)
        counts = jax.device_put(np.asarray(some))
        flux = self.flux if flux is None else flux
        mixture = self.references.mixture(wanted)
        flux = jax.device_put(flux[wanted])
        return block_transmission(counts, beam, mixture, flux, filling, zingers, moves=self._moves)

    def _with_neighbours(self, views: slice) -> np.ndarray:
        """Those that tell zingers, too: beyond the first and the last view mirror images, as in the middle."""
        last = self.scan.views - 1
        wanted = np.abs(np.arange(views.start - ZINGER_REACH, views.stop + ZINGER_REACH))
        return np.clip(last - np.abs(last - wanted), 0, last)

    def _frames(self, wanted: Any, top: int, bottom: int) -> Any:
        """Raw frames, out of the file or of what is held."""
        if self._held is None:
            return self.scan.counts[wanted, top:bottom]
        views, first, frames = self._held
        places = np.searchsorted(views, np.arange(self.scan.views)[wanted])
        return frames[places, top - first : bottom - first]

    def _light(self, views: slice, top: int, bottom: int, beam: Any, filling: Filling | None) -> Array:
        """Transmissions of one block of views as they are, before any brightness is divided out."""
        light, _ = self._transmissions(views, top, bottom, beam, filling, self._ones)
        return jnp.exp(-light) if self._logs else light

    @property
    def _ones(self) -> np.ndarray:
        return np.ones(self.scan.views, np.float32)

    def _block(self, rows: int) -> int:
        return max(1, min(self.scan.views, _BLOCK_BYTES // (4 * rows * self.scan.frame_shape[1])))

    # ------------------------------------------------------------------------------------------------ global facts
    def _measured_flux(self) -> tuple[np.ndarray, str]:
        """Brightness of each view, and what to say of it."""
        one, wanted, monitor = self._ones, self.settings["flux"], monitor_of(self.scan)
        if wanted == "monitor":
            if monitor is None:
                raise InputError(
                    f"{self.scan.name}: prepare.flux=monitor needs one positive number a view: data.monitor"
                )
            return monitor, f"flux: {said_of(monitor)} by the monitor, divided out"
        if wanted is None and monitor is None:
            return one, unusable_monitor(self.scan)
        regions = [wanted] if isinstance(wanted, tuple) else self._air()
        if wanted is None:
            assert monitor is not None
            follows = bool(regions) and follows_air(monitor, self._air_flux(regions))
            if follows:
                return monitor, f"flux: {said_of(monitor)} by the monitor, which the air follows, divided out"
            why = "the air beside the sample does not follow it" if regions else "no air found beside the sample tells"
            return one, f"flux: {said_of(monitor)} by the monitor; not used, {why} (prepare.flux=monitor uses it)"
        if not regions:
            return one, "flux: no air found beside the sample; the views keep their brightness"
        flux = self._air_flux(regions)
        where = "; ".join(f"rows {r0} to {r1 - 1}, columns {c0} to {c1 - 1}" for r0, r1, c0, c1 in regions)
        return flux.astype(np.float32), f"flux: air at {where}; {said_of(flux)}, divided out"

    def _hot(self) -> np.ndarray | None:
        """Find pixels that are hot in the frames alone, by some of the views."""
        scan, beam = self.scan, self.references
        if beam.frames is None or getattr(scan.counts, "bands", 0):  # where every read would unpack the whole file
            return None
        views = spread(scan.views, _HOT_VIEWS)
        flats = len(beam.frames) // len(beam.light)
        some = np.asarray(scan.counts[views])
        return brighter_than_beam(some, beam.light, beam.dark, beam.left[views], flats, beam.gain)

    def _air(self) -> list[tuple[int, int, int, int]]:
        """Find regions of air in some views."""
        height = self.scan.frame_shape[0]
        sample = spread(self.scan.views, _SAMPLE_VIEWS)
        beam, filling = self.references.rows(0, height), Filling.of(self._bad.mask)
        if getattr(self.scan.counts, "bands", 0):  # every read would unpack the whole file
            frame = 4 * height * self.scan.frame_shape[1]
            sample = sample[:: max(1, -(-sample.size * (2 * ZINGER_REACH + 1) * frame // (4 * _BLOCK_BYTES)))]
            views = np.unique(np.concatenate([self._with_neighbours(slice(v, v + 1)) for v in sample]))
            self._held = views, 0, np.asarray(self.scan.counts[views])
        light = lambda v: self._light(slice(v, v + 1), 0, height, beam, filling)
        found = find_air(np.stack([np.asarray(light(v))[0] for v in sample]))
        self._held = None
        return found

    def _air_flux(self, regions: list[tuple[int, int, int, int]]) -> np.ndarray:
        """Mean transmission of the air in each view."""
        total, pixels = np.zeros(self.scan.views), 0
        band = getattr(self.scan.counts, "bands", 0)  # of all views, as many as make a block
        row = 4 * self.scan.views * self.scan.frame_shape[1]
        band = max(1, _BLOCK_BYTES // (row * band)) * band if band else self.scan.frame_shape[0]
        for r0, r1, c0, c1 in regions:
            for top in range(r0, r1, band):
                total += self._air_sum(top, min(top + band, r1), c0, c1)
            pixels += (r1 - r0) * (c1 - c0)
        flux = total / pixels
        if not (np.isfinite(flux).all() and (flux > 0).all()):
            raise InputError(
                f"{self.scan.name}: the air region {regions} holds no light in view "
                f"{int(np.argmin(np.nan_to_num(flux)))}; check prepare.flux"
            )
        return flux

    def _air_sum(self, top: int, bottom: int, first: int, last: int) -> np.ndarray:
        """Sum the transmissions of a region of every view."""
        beam, filling = self.references.rows(top, bottom), Filling.of(self._bad.mask[top:bottom])
        total, block = np.zeros(self.scan.views), self._block(bottom - top)
        if getattr(self.scan.counts, "bands", 0) and block < self.scan.views:
            self._held = np.arange(self.scan.views), top, np.asarray(self.scan.counts[:, top:bottom])
        for start in range(0, self.scan.views, block):
            views = slice(start, min(start + block, self.scan.views))
            light = self._light(views, top, bottom, beam, filling)
            total[views] += np.asarray(light[:, :, first:last].sum((1, 2)), float)
        self._held = None
        return total

    def _join_halves(self) -> None:
        angles, forced = self.scan.angles, self.settings["full_turn"] == "stitch"
        if angles is None or not (forced or is_full_turn(angles)):
            if forced:
                self.scan.require("angles", "the rotation angle of each view", "/path/of/angles")
            return
        columns = self.scan.frame_shape[1]
        sample = self._sample_rows()
        given = self.scan.rotation_centre
        found = None if given is not None else find_rotation_centre(sample, angles, search=(8, columns - 9))
        axis = float(given) if found is None else found.centre  # type: ignore
        if not forced and not should_stitch(sample, axis):
            return
        self._stitch, self.angles = plan_stitch(angles, columns, axis)
        self.shape = (len(self.angles), self.shape[1], self._stitch.width)
        self.rotation_centre = self._stitch.centre
        overlap = 2 * min(axis, columns - 1 - axis)
        side = "right" if axis > (columns - 1) / 2 else "left"
        self._turn_said = [
            f"full turn with the axis at column {axis:.2f}, near the {side} edge: half views joined "
            f"over {overlap:.0f} columns into {len(self.angles)} views of {self._stitch.width} columns"
        ]
        if found is not None:
            self._turn_said.append(found.message)

    def _some_rows(self) -> np.ndarray:
        height = self.scan.frame_shape[0]
        return spread(height, _CENTRE_ROWS)

    def _sample_rows(self) -> np.ndarray:
        """Prepare rows spread over the detector."""
        kept = self._tally.copy()
        values = np.concatenate([np.asarray(self._unjoined(r, r + 1)) for r in self._some_rows()], 1)
        self._tally = kept  # what was looked at only is not counted
        return values


def _phase_filter(scan: Any, delta_beta: float) -> PhaseFilter:
    place = scan.require("geometry", "the geometry (energy, distance, pixel)", "a file with geometry")
    numbers = {"detector_pixel": place.pixel_size, "energy": place.wavelength, "sample_to_detector": place.distance}
    for name, value in numbers.items():
        if value is None:
            raise InputError(f"{scan.name}: prepare.delta_beta needs geometry.{name}")
    pixel, wavelength, distance = (float(value) for value in numbers.values())
    return PhaseFilter(pixel, wavelength, distance, delta_beta).checked()


@partial(jax.jit, donate_argnums=0)
def _place(whole: Float[Array, "view z u"], block: Float[Array, "some z u"], start: Any) -> Float[Array, "view z u"]:
    return jax.lax.dynamic_update_slice_in_dim(whole, block.astype(whole.dtype), start, 0)


def _bands(height: int) -> list[tuple[int, int]]:
    """Bands of neighbouring detector rows, spread over the detector and of equal height."""
    if height <= _BANDS * _BAND:
        return [(0, height)]
    starts = np.linspace(0, height - _BAND, _BANDS).astype(int)
    return [(int(s), int(s) + _BAND) for s in starts]


def _checked(settings: Mapping[str, Any], scan: Measurement) -> dict[str, Any]:
    """All settings, with the given ones in the form the steps take.

    **Raises:** `InputError`.
    """
    build(_Sections, {"prepare": settings}, "preparation")
    full = {**DEFAULTS, **settings}
    if full["flux"] not in (None, "none", "auto", "monitor"):
        full["flux"] = check_region(full["flux"], scan.frame_shape)
    if full["beam_hardening"] is not None:
        full["beam_hardening"] = tuple(check_coefficients(full["beam_hardening"]).tolist())
    if full["distortion"] is not None:
        full["distortion"] = check_distortion(full["distortion"], scan.frame_shape)
    return full
