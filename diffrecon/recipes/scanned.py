"""Edge illumination and analyser crystals: a measured curve, displaced, dimmed and broadened by the sample."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .. import prepare
from .._console import Console
from .._result import Quantity
from ..errors import InputError, MissingMetadata
from ..modality import Outcome, Run, Stage, Work
from ..models import ScannedCurve, curve_spectrum
from ..scan import Scan
from ..settings import section, setting
from ..solvers.refraction import RefractionMaps, first_maps
from . import looks
from ._illumination import Illumination, repeating_curve
from ._reflection import image_lag
from ._refracting import Quality, Refracting, Refraction, Solver, Volume, maps_and, poisson_cost
from ._refraction import Beam, Prior, Stacks, Unit, blur_of, optics_of, read_stacks
from ._scan_facts import most_frequent

_SATURATION = 0.3  # of the loss of visibility, to begin with
_DOSE = 4.0  # times as bright as the curve of the reference has it: no sample, and no drift, does that
_SPIKE, _DIP = 3.0, 2.0  # times as bright as both neighbours, or darker: no curve
_VAGUE = 1.0  # relative error of the saturation from which on the curves do not tell it
_ROUNDS_OF_AIR = 4
_USUAL = (0.005, 0.1)  # errors of doses, and of places [steps]
_LEAST_AIR = (100, 0.1)  # pixels, and part of them, that must look alike to be air
_WILD = (0.05, 0.3)  # errors of doses, and of places [steps], from which on it is no air
_FALLS_ON = 0.8  # of the fall from the top to its neighbours: a Gaussian falls three times as far behind them
_LEAST_CURVE = 0.05  # standard deviation over the mean of a curve, below which it is none
_FARTHEST = 10.0  # [m or rad] that a mask or a crystal can stand from the zero of its motor


@dataclass(frozen=True)
class Settings:
    """Every setting of the method."""

    model: Beam = section(Beam)
    prior: Prior = section(Prior, visibility=0.3)
    solver: Solver = section(Solver, rounds=16)
    volume: Volume = section(Volume)
    quality: Quality = section(Quality, held_out=0.0)


class _Scanned(Refracting):
    """What both methods share."""

    settings = Settings
    unit_of_steps: ClassVar[str] = "m"
    what: ClassVar[str] = "the mask"

    def begin(self, scan: Scan, settings: Settings, console: Console, before: Refraction | None = None) -> Refraction:
        """Put the measured curves of all pixels behind a flat sample, moved and broadened as their moments say."""
        unit, stacks = optics_of(scan), read_stacks(scan, same=False)
        still, there = (self._places(scan, key, stacks) for key in ("reference_steps", "steps"))
        local = prepare.mean_around(stacks.reference, 3.0)[:, stacks.good]
        if not np.median(local.std(0) / np.maximum(local.mean(0), 1e-6)) > _LEAST_CURVE:
            raise InputError(
                f"{scan.name}: the reference frames are no curve over data.reference_steps: they do not rise and fall "
                "from position to position"
            )
        _refuse_odd_doses(scan, stacks, still, there)
        grid, curves = _even(still, stacks.reference)
        step = float(grid[1] - grid[0])
        lines = list(stacks.lines)
        repeats = self._repeating(scan, unit, (still - grid[0]) / step, stacks, step)
        curves = curves if repeats is None else repeats.curves
        scale = self._displacement(unit) / step
        mean, centre, width = _moments(grid, curves)
        broad = self._width(scan, unit, width) / step
        if repeats is None:
            spectrum, period = curve_spectrum(self._with_feet(curves, (centre - grid[0]) / step))
        else:
            spectrum, period = repeats.spectrum, repeats.period
            lines.append(
                f"the curve repeats every {period * step / 1e-6:.4g} um and is smooth: the reference's places err by "
                f"{repeats.error.std() * step / 1e-6:.2g} um, as what all pixels share tells"
            )
        place = (there - grid[0]) / step + self._feet(curves)
        grain = 2 * broad / scale
        told = settings.model.correlation_length
        start = _SATURATION if before is None else float(before.model.saturation)
        saturation = start if told is None else unit.saturation(grain, told)
        guess = lambda frames, at: _first_fields(
            grid[0] + step * (at - self._feet(curves)), frames, (mean, centre, width), scale * step, broad * step
        )
        frames, air = stacks.sample, None
        if settings.model.air == "mode":
            air = _by_air(frames, place, guess, spectrum, period, stacks.good, scale)
        if air is not None:
            frames, place = frames / air.flux[:, None, None], air.place
            lines.append(air.line(step, self.unit_of_steps))
        fields = guess(frames, place)
        trust = 0.1 * float(frames.sum(0).mean()) * (scale * step / width) ** 2 * stacks.good
        cast = lambda a: jnp.asarray(a, jnp.float32)
        model = ScannedCurve(
            maps=first_maps(cast(fields), cast(trust), settings.prior.smoothness()), place=cast(place),
            spectrum=jnp.asarray(spectrum, jnp.complex64), trust=cast(stacks.good), share=len(there) / len(still),
            scale=float(scale), width=float(broad), period=period, saturation=cast(saturation), told=told is not None,
            air=cast(0 * stacks.good if air is None else air.where), blur=self._blur(scan, settings),
        )  # fmt: skip
        shown = f"{width / 1e-6:.3g} u{self.unit_of_steps}"
        lines.append(f"curves of {len(still)} positions of {self.what}, {shown} wide (standard deviation)")
        for line in lines:
            console.say(line)
        return Refraction(
            model, {"counts": frames}, poisson_cost, maps_and("place", "saturation"), per_view=("place",),
            unit=unit, good=stacks.good, reference=stacks.reference, grain=grain, across=(0.0, 1.0), lines=tuple(lines),
        )  # fmt: skip

    def drift(self, problem: Refraction, zero: np.ndarray) -> tuple[dict[str, Any], str]:
        """Say how far the curve of air stood from that of the reference, and what grains the curves tell."""
        angle = float(zero[1]) * problem.unit.angle
        length = problem.unit.length(problem.grain, float(problem.model.saturation))
        figures = {"curve_drift": angle, "correlation_length": length}
        error = _open(problem)
        said = "as was told" if problem.model.told else f"+- {length * error / 2 / 1e-6:.2g}, from how curves broaden"
        if not problem.model.told and error > _VAGUE:
            said = "more or less: too little scatters to tell it (model.correlation_length)"
        drift = f"between the scans the curves drifted by {angle:+.3g} rad"
        return figures, f"correlation length of what scatters {length / 1e-6:.3g} um {said}; {drift}"

    def saturation(self, problem: Refraction) -> float:
        """Give what was told, or the saturation whose scattering is the mean over what the curves leave open of it."""
        found = float(problem.model.saturation)
        nodes, weights = np.polynomial.hermite_e.hermegauss(15)
        each = found * np.exp(_open(problem) * nodes)
        grows = np.linspace(1e-6, 50, 20001)  # what a loss of visibility means, over what it means without saturation
        means = lambda saturation: saturation / -np.expm1(-saturation)
        return float(np.interp(weights @ means(each) / weights.sum(), means(grows), grows))

    def _places(self, scan: Scan, key: str, stacks: Stacks) -> np.ndarray:
        """Say where mask or crystal stood.

        **Raises:** `MissingMetadata` without, `InputError` for as many numbers as there are no frames.
        """
        frames = stacks.reference if key == "reference_steps" else stacks.sample
        stored = scan.extra.get(key)
        if stored is None:
            raise MissingMetadata(
                f"data.{key}", f"where {self.what} stood [{self.unit_of_steps}]", scan.name, "/places"
            )
        stored = np.asarray(stored, float).ravel()
        if len(stored) != len(frames):
            raise InputError(f"{scan.name}: data.{key} has {len(stored)} numbers for {len(frames)} frames")
        if np.abs(stored).max() > _FARTHEST:
            raise InputError(
                f"{scan.name}: data.{key} reaches {np.abs(stored).max():.3g}, which is not plausible: say where "
                f"{self.what} stood in {self.unit_of_steps}"
            )
        if len(np.unique(stored)) < 3:
            raise InputError(f"{scan.name}: data.{key}: transmission, refraction and scattering take three positions")
        return stored

    def _repeating(
        self, scan: Scan, unit: Unit, places: np.ndarray, stacks: Stacks, step: float
    ) -> Illumination | None:
        """Read a curve that repeats; a crystal's does not."""
        return None

    def _feet(self, curves: np.ndarray) -> int:
        """Steps on each side by which curves are continued beyond where they were measured."""
        return 0

    def _with_feet(self, curves: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Continue the curves; their mirror images do for a mask, whose curve repeats."""
        return curves

    def _blur(self, scan: Scan, settings: Any) -> float:
        """Standard deviation of the detector's blur [pixel]; beamlets of a mask are apart, and seen apart."""
        return 0.0

    def _displacement(self, unit: Unit) -> float:
        """Motion of the curve for a displacement of one pixel, in the unit of the positions."""
        raise NotImplementedError

    def _width(self, scan: Scan, unit: Unit, width: float) -> float:
        """The standard deviation that makes a visibility of `exp(-1 / 2)`."""
        return width


def _refuse_odd_doses(scan: Scan, stacks: Stacks, still: np.ndarray, there: np.ndarray) -> None:
    """Refuse frames that are far brighter or darker than the others beside the curve of the reference.

    **Raises:** `InputError`.
    """
    level = lambda frames: np.log(np.maximum(frames[:, stacks.good].mean(1, dtype=float), 1e-6))
    order = np.argsort(still)
    curve = level(stacks.reference)[order]
    if len(curve) > 4:  # a curve that rises and falls over several steps
        left, right = curve[1:-1] - curve[:-2], curve[1:-1] - curve[2:]
        spike, dip = np.minimum(left, right), np.minimum(-left, -right)
        odd = int(np.argmax(np.maximum(spike, dip)))
        if (spike[odd] > np.log(_SPIKE) and not _goes_on(curve, odd + 1)) or (
            dip[odd] > np.log(_DIP) and not _goes_on(-np.exp(curve), odd + 1)
        ):
            times = np.exp((left + right)[odd] / 2)
            _refuse_dose(scan, f"reference frame {order[odd + 1]}", times, "data.reference and data.reference_steps")
    dose = level(stacks.sample) - np.interp(there, still[order], curve)
    odd = int(np.argmax(np.abs(dose - np.median(dose))))
    if len(dose) > 2 and abs(dose[odd] - np.median(dose)) > np.log(_DOSE):
        _refuse_dose(scan, f"frame {odd} with the sample", np.exp(dose[odd] - np.median(dose)), "data.views")
    if np.median(dose) > np.log(_DOSE):
        raise InputError(
            f"{scan.name}: with the sample the frames are {np.exp(np.median(dose)):.3g} times as bright as those of "
            "data.reference: both stacks need one exposure; divide one of them by the ratio of exposures"
        )


def _goes_on(curve: np.ndarray, top: int) -> bool:
    """Tell whether a curve falls on behind the neighbours of its top, as a narrow one does that is sampled coarsely."""
    sides = [side for side in (-1, 1) if 0 <= top + 2 * side < len(curve)]
    falls = [-np.diff(curve[[top, top + side, top + 2 * side]]) for side in sides]
    return all(second > _FALLS_ON * first for first, second in falls)


def _refuse_dose(scan: Scan, which: str, times: float, keys: str) -> None:
    raise InputError(
        f"{scan.name}: {which} (counted from 0) is {times:.3g} times as bright as the others make it: another "
        f"exposure, or a shutter that moved; leave it out ({keys})"
    )


class EdgeIllumination(looks.EdgeIllumination, _Scanned):
    """Phase, refraction along x, transmission and scattering from a mask moved over its beamlets."""

    what = "the mask"

    def _displacement(self, unit: Unit) -> float:
        return unit.detector

    def _width(self, scan: Scan, unit: Unit, width: float) -> float:
        """Give the width by the first harmonic of the mask's period, one beamlet a pixel by default."""
        return self._period(scan, unit) / (2 * np.pi)

    def _period(self, scan: Scan, unit: Unit) -> float:
        return float(scan.extra.get("period") or unit.detector)

    def _repeating(
        self, scan: Scan, unit: Unit, places: np.ndarray, stacks: Stacks, step: float
    ) -> Illumination | None:
        return repeating_curve(places, stacks.reference, stacks.good, self._period(scan, unit) / step)


@dataclass(frozen=True)
class AnalyserModel(Beam):
    """What is in the beam, and how it is seen."""

    detector_blur: float | None = setting(
        None, "standard deviation; by default the file's, or 0.5", unit="pixel", at_least=0
    )
    depth: bool = setting(True, "take the image back by the depth from which a perfect crystal reflects")


@dataclass(frozen=True)
class AnalyserSettings(Settings):
    """Every setting of analysers."""

    model: AnalyserModel = section(AnalyserModel)


class Analyser(looks.Analyser, _Scanned):
    """Phase, refraction along x, transmission and scattering from a crystal turned over its rocking curve."""

    settings = AnalyserSettings
    what, unit_of_steps = "the crystal", "rad"

    def stages(self, problem: Any, settings: Any, console: Console) -> Work:
        """Fit, and see how far the crystal displaces the image."""
        yield from super().stages(problem, settings, console)
        if isinstance(problem, Refraction) and settings.model.depth:
            yield Stage("analyser: depth of reflection", _displaced_image, keeps=())

    def verdict(self, problem: Any, scan: Scan, settings: Any) -> tuple[dict[str, Any], list[str]]:
        """Say how far, too."""
        figures, lines = super().verdict(problem, scan, settings)
        if "image_lag" not in problem.figures:
            return figures, lines
        lag, usual = problem.figures["image_lag"], problem.figures["depth_lag"]
        said = f"by {lag:+.2f} pixels (to lower columns), and taken back"
        if not lag:
            said = f"by {usual:.2f} pixels if it is perfect, but frames do not tell which way: left as it is"
        return figures, [*lines, f"the crystal reflects from a depth that displaces the image {said}"]

    def quantities(self, problem: Any, scan: Scan, settings: Any) -> dict[str, Quantity]:
        """Give what all write, where it is in the sample and not where the crystal shows it."""
        lag = getattr(problem, "figures", {}).get("image_lag", 0.0) if isinstance(problem, Refraction) else 0.0
        if not lag:
            return super().quantities(problem, scan, settings)
        maps = problem.model.maps
        turn = np.exp(-2j * np.pi * np.fft.rfftfreq(maps.potential.shape[1]) * lag).astype(np.complex64)
        back = lambda image: jnp.fft.irfft(jnp.fft.rfft(image) * turn, n=image.shape[1])
        there = RefractionMaps(back(maps.potential), back(maps.attenuation), back(maps.visibility), maps.tilt)
        return super().quantities(problem.replace(model=problem.model.replace(maps=there)), scan, settings)

    def _blur(self, scan: Scan, settings: Any) -> float:
        return blur_of(scan, settings.model.detector_blur, 0.5)

    def _feet(self, curves: np.ndarray) -> int:
        return (len(curves) + 1) // 2

    def _with_feet(self, curves: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Continue the curves as a perfect crystal reflects far from its peak, by the inverse square of the angle."""
        count, last = self._feet(curves), len(curves) - 1
        beyond = np.arange(1, count + 1)[:, None, None]
        left, right = np.maximum(centre, 0.25 * last), np.maximum(last - centre, 0.25 * last)
        before = (curves[0] * (left / (left + beyond)) ** 2)[::-1]
        return np.concatenate([before, curves, curves[-1] * (right / (right + beyond)) ** 2])

    def _displacement(self, unit: Unit) -> float:
        return unit.angle


def _displaced_image(problem: Refraction, run: Run) -> Outcome:
    """Measure how far the crystal displaces the image."""
    model, unit = problem.model, problem.unit
    wavelength = unit.spread / np.pi * unit.pixel**2 / (unit.pixel / unit.angle)
    step = unit.angle / model.scale
    counts = np.asarray(problem.data["counts"], float)
    lag, usual = image_lag(model, counts, problem.good, step, wavelength, unit.pixel)
    return Outcome(problem, np.zeros(0), figures={"image_lag": lag, "depth_lag": usual})


class _Air(NamedTuple):
    """What pixels of air tell of the sample's frames: doses about one, places in steps of the reference's grid, how far
    these were from what was planned, and which pixels `(y, x)` are air."""

    flux: np.ndarray
    place: np.ndarray
    error: np.ndarray
    where: np.ndarray

    def line(self, step: float, unit: str) -> str:
        """Say it."""
        return (
            f"doses err by {self.flux.std():.2%} and positions by {self.error.std() * step / 1e-6:.3g} u{unit}, as the "
            f"{self.where.mean():.0%} of the pixels tell that look alike; these are taken for air, which does "
            "not scatter (model.air)"
        )


def _by_air(
    frames: np.ndarray,
    planned: np.ndarray,
    guess: Callable[[np.ndarray, np.ndarray], np.ndarray],
    spectrum: np.ndarray,
    period: float,
    good: np.ndarray,
    scale: float,
) -> _Air | None:
    """Find doses and places by the pixels that look as without a sample, `None` where they are few or do not explain
    the frames.

    Doses that bend over the curve, or places that are stretched, look like a curve that is broadened; air knows one
    number a frame, the light, which dose and place share by how far they are likely off.
    """
    flux, place, clear = np.ones(len(planned)), np.array(planned, float), good
    turn = 2 * np.pi * np.arange(len(spectrum)) / period
    for _ in range(_ROUNDS_OF_AIR):
        _, moved, light, seen = guess(frames / flux[:, None, None], place)
        usual = [most_frequent(image[good]) for image in (moved, light, seen)]
        images, ranges = (moved, light, seen), (0.2 / scale, 0.05, 0.1)
        clear = good & np.all([_alike(i, u, r, good) for i, u, r in zip(images, usual, ranges, strict=True)], 0)
        if clear.sum() < max(_LEAST_AIR[0], _LEAST_AIR[1] * good.sum()):
            return None
        drift, mean = -scale * usual[0], spectrum[:, clear].mean(1)
        wave = np.exp(1j * turn * (place + drift)[:, None])
        curve, slope = (wave @ mean).real, (wave @ (1j * turn * mean)).real
        steep = slope / curve
        off = np.log(np.maximum(frames[:, clear].mean(1), 1e-6) / curve) + steep * (place - planned)
        likely = (_USUAL[0] ** 2 + (steep * _USUAL[1]) ** 2) ** -0.5
        common = np.stack([np.ones(len(planned)), steep], 1)  # all doses, and all places: the sample's and the drift's
        off = off - common @ np.linalg.lstsq(likely[:, None] * common, likely * off, rcond=None)[0]
        flux = np.exp(off * (_USUAL[0] * likely) ** 2)
        place = planned + np.clip(off * steep * (_USUAL[1] * likely) ** 2, -1, 1)
    error = place - planned - (place - planned).mean()
    if not (flux.min() > 0 and flux.std() < _WILD[0] and error.std() < _WILD[1]):
        return None
    return _Air(flux, planned + error, error, clear)


def _alike(image: np.ndarray, usual: float, most: float, good: np.ndarray) -> np.ndarray:
    """Say which pixels are near the most frequent value, within three standard deviations of those within `most`."""
    away = np.abs(image - usual)
    near = away[good & (away < most)]
    return away < min(most, 3 * 1.48 * float(np.median(near))) if near.size else away < most


def _open(problem: Refraction) -> float:
    """Give the deviation of the saturation's logarithm, 0 where it was told."""
    return 0.0 if problem.model.told else float(_saturation_error(problem.model, problem.data["counts"]))


@eqx.filter_jit
def _saturation_error(model: ScannedCurve, counts: Any) -> Any:
    return model.saturation_error(jnp.asarray(counts))


def _even(places: np.ndarray, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Curves on an even grid of as many places, in increasing order."""
    order = np.argsort(places)
    places, curves = places[order], np.asarray(frames, float)[order]
    grid = np.linspace(places[0], places[-1], len(places))
    if np.abs(places - grid).max() < 1e-3 * (grid[1] - grid[0]):
        return grid, curves
    at = np.interp(grid, places, np.arange(len(places)))
    low = np.clip(at.astype(int), 0, len(places) - 2)
    part = (at - low)[:, None, None]
    return grid, curves[low] * (1 - part) + curves[low + 1] * part


def _moments(places: np.ndarray, curves: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Area, centre and width of curves above their feet."""
    above = np.clip(curves - curves.min(0), 0, None)
    total = np.maximum(above.sum(0), 1e-6)
    centre = (above * places[:, None, None]).sum(0) / total
    width = (above * (places[:, None, None] - centre) ** 2).sum(0) / total
    return above.mean(0), centre, float(np.sqrt(np.median(width)))


def _first_fields(
    places: np.ndarray, sample: np.ndarray, still: tuple[np.ndarray, np.ndarray, float], scale: float, broad: float
) -> np.ndarray:
    """Displacement and transmission by a Gaussian through the logarithms (three images: Endrizzi 2014)."""
    level = np.maximum(np.asarray(sample, float), 1.0)
    weight = level / level.mean()
    basis = np.stack([np.ones_like(places), places / still[2], (places / still[2]) ** 2], 1)
    normal = np.einsum("kyx,ki,kj->yxij", weight**2, basis, basis) + 1e-6 * np.eye(3)
    right = np.einsum("kyx,ki,kyx->yxi", weight**2, basis, np.log(level))
    c = np.linalg.solve(normal, right[..., None])[..., 0]
    bent = np.minimum(c[..., 2], -0.05)
    centre = -c[..., 1] / (2 * bent) * still[2]
    moved = np.clip((centre - still[1]) / scale, -2 * still[2] / scale, 2 * still[2] / scale)
    own = still[2] ** 2
    visibility = np.exp(-np.clip(-own / (2 * bent) - own, 0, 2 * broad**2) / (2 * broad**2))
    light = sample.sum(0) / np.maximum(np.median(sample.sum(0)), 1e-6)
    return np.stack([0 * moved, moved, np.log(np.clip(light, 0.05, 3)), np.clip(visibility, 0.3, 1)])
