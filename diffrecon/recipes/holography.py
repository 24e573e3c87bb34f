"""Holography: shifts by registration, contrast transfer function as first guess, then the full model by Gauss-Newton
steps, with priors learnt from the data.

The cost is the residual of amplitudes plus a Gaussian prior: the spectrum of every map falls as a power of the
frequency. The powers are fitted to what the data have determined, so that no regularisation weight is left to choose;
details are then kept sharp by the logarithm of the total variation, which needs no weight either. One material comes
first; at its beginning the curvature is raised by `damping`: the lowest frequencies, which holograms show least, wait
until the details that scatter into them are right. Where one material leaves a residual, attenuation of its own or the
other named materials follow, and the numbers of the geometry that are to be refined go along. Binned frames come first
(`_holography_rounds`). An isolated object lies in vacuum; a specimen that goes on lives on a window as wide as fringes
carry, where the learnt power law alone holds it. Small blocks of the frames are never fitted: they judge.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import losses, physics, prepare, quality
from .._console import Console
from .._model import Batch
from .._result import Quantity
from ..errors import InputError
from ..frames import index_ranges
from ..modality import Modality, Work
from ..models import Holography
from ..scan import Scan
from . import looks
from ._holography_beam import of_flats
from ._holography_errors import error_bars
from ._holography_problem import GEOMETRY, MAPS, Holograms, Model, Settings, held_blocks
from ._holography_rounds import BLURS, retrieved

_OTHER_BEAM, _UNLIT = 0.02, 20.0  # of the empty beam, and times less than other views: no hologram of this beam
_WIDER = 1.3  # window over the frames, for a beam of unknown wave
_EMPTY, _BORDER = 0.3, 12  # contrast of a border over that of the middle, below which it is empty; its width in frames


class HolographyMethod(looks.Holography, Modality):
    """Phase and attenuation of an object from its holograms at one or several distances."""

    settings = Settings

    def start(self, scan: Scan, settings: Settings, console: Console) -> Holograms:
        """Put vacuum into the scan's geometry and beam, register the frames, leave out outliers."""
        chosen, threshold = settings.model, settings.prepare.outliers
        for name in set(chosen.refine or ()) - set(GEOMETRY):
            raise InputError(f"model.refine: {name!r} is none of {', '.join(GEOMETRY)}")
        model, named = _vacuum(scan, chosen)
        geometry, *lines = model.describe()
        console.say(geometry)
        given = chosen.delta_beta is not None or chosen.material is not None or chosen.materials is not None
        energy = None if scan.geometry is None else scan.geometry.energy
        lines.append(_warning(ratio_words(float(model.delta_beta), given, energy), console))
        counts, mask = np.asarray(scan.counts), np.ones(scan.frame_shape, bool) if scan.mask is None else scan.mask
        dark = np.asarray(model.dark, float)
        _refuse_unlit(scan, counts, np.asarray(_beam(model), float), mask, dark)
        if threshold:
            counts, mask, line = prepare.mend_outliers(counts, _beam(model), mask, dark=dark, threshold=threshold)
            lines.append(_warning(line, console))
        scan = scan.replace(counts=counts, mask=mask)  # a hot pixel would pull what is fitted to flats and frames, too
        model, beam = _lit(scan, model, chosen, console)
        register = "shifts" not in scan.extra if chosen.register is None else chosen.register
        settled = register and scan.views > 1
        if settled:
            shifts, report = prepare.register_distances(
                counts, np.asarray(_beam(model)), pixels=np.asarray(model.pixels),
                distances=np.asarray(model.distances, float), wavelength=model.wavelength, dark=dark,
                delta_beta=float(model.delta_beta), mask=mask, start=np.asarray(model.shifts, float),
            )  # fmt: skip
            model = model.replace(shifts=jnp.asarray(shifts, model.shifts.dtype))
            lines.append(_warning(report.message, console))
        refine = chosen.refine if chosen.refine is not None else ("shifts",) if settled else ()
        held = held_blocks(counts.shape, mask, settings.quality.seed)
        judged = held.any((1, 2)).all()
        problem = Holograms(
            model.with_unknowns(refine), {"counts": counts, "mask": mask & ~held if judged else mask}, _cost(settings),
            dict.fromkeys((*MAPS, *refine), 1.0), refine=refine, settled=settled, named=named,
            lines=tuple(filter(None, lines)), held=held if judged else None, beam=beam, scan=scan,
        )  # fmt: skip
        return _surrounded(problem, scan, chosen, console)

    def stages(self, problem: Holograms, settings: Settings, console: Console) -> Work:
        """Solve, and where the beam's wave is to be refined solve again with the wave from flats and holograms."""
        problem = yield from retrieved(problem, settings, console)
        if problem.model.borderless:
            problem = problem.replace(model=_centred(problem.model))
        for _ in range(2 if settings.model.probe == "refine" and not problem.half else 0):
            scan = problem.scan
            lit = prepare.illumination_from_flats(
                problem.model, prepare.flats_of_views(scan), scan.darks, counts=problem.data["counts"],
                mask=scan.mask, console=console,
            )  # fmt: skip
            problem = yield from retrieved(problem.replace(model=_emptied(lit)), settings, console)
        return problem

    def verdict(self, problem: Holograms, scan: Scan, settings: Settings) -> tuple[dict[str, Any], list[str]]:
        """Judge every hologram, and say what became of phase and geometry."""
        model, figures = problem.model, problem.judged(settings.quality.seed)
        for name in problem.refine:  # blurs enter squared: their sign means nothing
            value = np.asarray(getattr(model, name), float)
            figures[name] = np.abs(value) if name in BLURS else value
        if problem.laws:
            figures["prior_slope"] = problem.laws[0].slope
        ratios = figures["deviance"] / figures["noise_floor_deviance"]
        missed = "; of fitted counts: a little below 1 is the fit following the noise"
        if ratios.min() < 0.5:
            missed = "; far below 1: counts are no single photons (a gain, an average), error bars too large"
        if ratios.max() >= 1.1:
            missed = "; above 1.1 the model misses something: drift, blur, flux or distance"
        shown = ", ".join(f"{r:.3f}" for r in ratios)
        lines = [f"Poisson deviance over photon noise alone, for each hologram: {shown}{missed}"]
        if problem.held is not None:
            unseen = figures["held_out_deviance"] / figures["held_out_noise_floor_deviance"]
            shown = ", ".join(f"{r:.3f}" for r in unseen)
            lines.append(f"the same of {problem.held.mean():.1%} of the pixels, in blocks never fitted: {shown}")
        lines.append(f"phase down to {float(jnp.min(model.total_phase())):.3f} rad")
        if model.borderless and len(problem.laws) > 1 and len(problem.named) < 2:
            lines.append(f"details of the phase attenuate as of delta/beta {float(model.delta_beta):.3g}")
        lines += found_words(figures, problem.refine, ratios)
        if "shifts" in problem.refine:
            places = ", ".join(f"({y:.2f}, {x:.2f})" for y, x in figures["shifts"])
            lines.append(f"shifts of the frames [their pixels]: {places}")
        if problem.named and model.borderless:
            lines.append("thicknesses are those of the mean phase zero: only their differences are known")
        if len(problem.named) > 2:
            lines.append(
                f"{len(problem.named)} materials are named: phase and attenuation are two numbers a pixel and tell the "
                "thicknesses of two materials, not of more"
            )
        return figures, [*lines, *problem.lines]

    def quantities(self, problem: Holograms, scan: Scan, settings: Settings) -> dict[str, Quantity]:
        """Give phase, attenuation and wave, and thicknesses where one or two materials are named."""
        return problem.model.quantities() | problem.model.thicknesses(problem.named)

    def error_bars(self, problem: Holograms, scan: Scan, settings: Settings) -> tuple[dict[str, Quantity], list[str]]:
        """Give the error bar of the phase from photon noise and prior, grown where the model misses something.

        The prior is the power law alone: total variation, as a Gaussian about its solution, says too much.
        """
        return error_bars(problem, settings) if settings.quality.error_bar else ({}, [])

    def halves(self, start: Holograms, solved: Holograms, settings: Settings) -> tuple[Holograms, Holograms]:
        """Halve the photons or deal the distances, in the geometry of the whole and without total variation, which
        would sharpen both alike."""
        counts, model = start.data["counts"], _emptied(solved.model).replace(delta_beta=start.model.delta_beta)
        whole = start.replace(half=True, refine=(), settled=True, named={}, other=None)
        if settings.quality.halves == "distances":
            if start.views < 2:
                raise InputError("quality.halves = distances: there is one distance, two at least are needed")
            order = np.argsort(np.asarray(model.distances).mean(1), kind="stable")
            deal = (np.sort(order[::2]), np.sort(order[1::2]))
            masks = [(start.data["mask"], start.held)] * 2
            if start.held is not None:
                masks = [(start.data["mask"][views], start.held[views]) for views in deal]
            parts = [(model.of_views(views), counts[views]) for views in deal]
        else:
            first = np.random.default_rng(settings.quality.seed).binomial(np.rint(counts).astype(np.int64), 0.5)
            model = model.replace(flux=0.5 * model.flux, dark=0.5 * model.dark)
            masks = [(start.data["mask"], start.held)] * 2
            parts = [(model, part.astype(np.float32)) for part in (first, np.rint(counts) - first)]
        first, second = (
            whole.replace(model=model, data={"counts": counts, "mask": mask}, held=held)
            for (model, counts), (mask, held) in zip(parts, masks, strict=True)
        )
        return first, second

    def image(self, problem: Holograms) -> np.ndarray:
        """Give the phase."""
        return np.asarray(problem.model.total_phase())

    def correlate(self, first: Holograms, second: Holograms, scan: Scan) -> tuple[dict[str, Any], str]:
        """Correlate the phases of the halves on rings."""
        kind = "photons" if first.views == scan.views else "distances"
        measure = quality.shell_correlation if kind == "photons" else quality.ring_correlation
        correlation = measure(self.image(first), self.image(second), pixel_size=first.model.pixel_size)
        return correlation.as_quality(), f"two halves of the {kind}, without total variation: {correlation}"


# ------------------------------------------------------------------------------------------ words
_SOFT = 1e3  # [eV] below which light organic matter is not what the default says


def ratio_words(ratio: float, given: bool, energy: float | None) -> str:
    """Say which delta/beta is taken, and doubt the default where it is none of X-rays."""
    said = f"delta/beta {ratio:.4g}" + ("" if given else ", that of light organic matter by default")
    if given or energy is None or float(energy) >= _SOFT:
        return said
    return f"WARNING: {said}, which is no good at {float(energy):g} eV: give model.delta_beta or model.material"


def found_words(figures: Mapping[str, Any], refine: tuple[str, ...], ratios: np.ndarray) -> list[str]:
    """Print the numbers of the geometry that were refined, shifts apart, and doubt counts that are no photons."""
    units = {"distances": (1e3, " [mm]"), "rotations": (1e3, " [mrad]"), "stretch": (1.0, ""), "flux": (1.0, "")}
    lines = []
    for name in refine:
        values = np.asarray(figures[name], float)
        if name != "shifts" and values.size <= 64:
            factor, unit = units.get(name, (1.0, " [pixel]"))
            shown = np.array2string(factor * values, precision=5, separator=", ").replace("\n", "")
            lines.append(f"{name.replace('_', ' ')} found{unit}: {shown}")
    if ratios.max() < 0.5:
        lines.append(
            "WARNING: the deviance is below half of photon noise: the counts are not photons (8 bits? averaged?); "
            "error bars and priors take them as such, divide them by the counts a photon makes"
        )
    return lines


# ------------------------------------------------------------------------------------------ start
def _vacuum(scan: Scan, chosen: Model) -> tuple[Holography, dict[str, tuple[float, float]]]:
    """Make vacuum of the main material, and the named materials (delta, beta), the one of largest delta/beta first."""
    energy = scan.geometry.energy if scan.geometry is not None else None
    texts = (chosen.materials or {}).items()
    named = {name: physics.refraction(text, energy, f"model.materials.{name}") for name, text in texts}
    named = dict(sorted(named.items(), key=lambda item: -item[1][0] / item[1][1]))
    ratios = [delta / beta for delta, beta in named.values()]
    ratio = ratios[0] if ratios else physics.delta_beta_ratio(energy, chosen.delta_beta, chosen.material)
    return Holography.from_scan(scan, delta_beta=ratio, wider=_WIDER if chosen.probe else 1.0), named


def _refuse_unlit(scan: Scan, counts: np.ndarray, beam: np.ndarray, mask: np.ndarray, dark: np.ndarray) -> None:
    """Refuse holograms that hold next to nothing of the light of the others, or all of quite another beam.

    **Raises:** `InputError`.
    """
    level = lambda frames: np.array([float(np.nanmean(np.broadcast_to(f, mask.shape)[mask])) for f in frames])
    beams = np.broadcast_to(beam, (len(counts), *beam.shape[1:]))
    share = level(np.asarray(counts, float) - dark) / np.maximum(level(beams), 1e-30)
    usual = float(np.median(share))
    if not _OTHER_BEAM < usual < 1 / _OTHER_BEAM:
        raise InputError(
            f"{scan.name}: the holograms hold {usual:.2g} of the light of the empty beam: give that in the same "
            "counts a pixel (data.flux), or in flats of the same exposure (data.flats)"
        )
    dim = np.flatnonzero(~(share > usual / _UNLIT))
    if dim.size:
        others = index_ranges(np.setdiff1d(np.arange(len(share)), dim))
        raise InputError(
            f"{scan.name}: the light of view{'s' * (dim.size > 1)} {index_ranges(dim)} is less than 1/{_UNLIT:g} of "
            f"that of the others: was the shutter closed? Leave such views out (data.views={others})"
        )


def _beam(model: Holography) -> Array:
    """Give the empty beam of every view without the dark [counts]: a number, or an image, a view."""
    return model.flux if model.probe is None else _wave_intensity(model)


@eqx.filter_jit
def _wave_intensity(model: Holography) -> Array:
    return model.empty_beam(np.arange(len(model.pixels))) - model.dark


def _lit(scan: Scan, model: Holography, chosen: Model, console: Console) -> tuple[Holography, Any]:
    """Light the model by the beam's wave, or by the best combination of the flats where there are several."""
    if chosen.probe:
        flats = prepare.flats_of_views(scan)
        return prepare.illumination_from_flats(model, flats, scan.darks, mask=scan.mask, console=console), None
    flats = None if scan.flats is None else prepare.flats_of_views(scan)
    if flats is not None and flats.ndim == 4:
        console.say(f"each hologram is divided by its own flats, {flats.shape[1]} for each")
    if flats is None or flats.shape[-3] < 3:
        return model, None
    combined = prepare.combine_flats(scan.counts, flats, scan.darks)
    console.say(combined.message)
    beam = of_flats(scan, 0) if chosen.probe is None else None
    return model.replace(flux=jnp.asarray(combined.light, model.flux.dtype)), beam


def _surrounded(problem: Holograms, scan: Scan, chosen: Model, console: Console) -> Holograms:
    """Say what lies beyond the frames; where it is in doubt keep both, for pixels that are not fitted to decide."""
    empty = _border_contrast(problem.model, problem.data["counts"], scan.mask)
    doubtful = chosen.surroundings == "auto" and empty > _EMPTY and problem.held is not None
    if chosen.surroundings == "vacuum" or (chosen.surroundings == "auto" and not doubtful) or chosen.probe:
        return problem
    model, here = Holography.from_scan(scan, delta_beta=float(problem.model.delta_beta), borderless=True), problem.model
    # Only differences of the phase are known; the mean attenuation is that of the light.
    light = np.asarray(_beam(here), float)
    passed = (np.asarray(problem.data["counts"], float) - np.asarray(here.dark, float)).mean((1, 2)) / light.mean(
        (1, 2)
    )
    mean = -0.5 * float(np.log(np.clip(passed, 1e-6, None)).mean())
    model = model.replace(
        attenuation=jnp.full_like(model.attenuation, mean), flux=here.flux, dark=here.dark, shifts=here.shifts
    )
    wide = problem.replace(model=model.with_unknowns(problem.refine))
    if doubtful:
        console.say(f"the border is not empty (contrast {empty:.2f} of that of the middle): vacuum or specimen beyond")
        return problem.replace(other=wide)
    console.say(model.describe()[0])
    return wide


def _border_contrast(model: Holography, counts: np.ndarray, mask: Any) -> float:
    """Compare the contrast along the fullest side of the frame that is least full with that of its middle."""
    light = np.maximum(np.asarray(_beam(model), float), 1e-6)
    contrast = (np.asarray(counts, float) - np.asarray(model.dark, float)) / light - 1
    square = contrast**2 - np.maximum(counts, 1) / light**2
    square = np.where(True if mask is None else mask, square, 0)
    rows, columns = (max(n // _BORDER, 2) for n in square.shape[1:])
    sides = [square[:, :rows], square[:, -rows:], square[:, :, :columns], square[:, :, -columns:]]
    middle = square[:, 3 * rows : -3 * rows, 3 * columns : -3 * columns].mean((1, 2))
    fullest = np.max([side.mean((1, 2)) for side in sides], 0)
    return float(np.min(fullest / np.maximum(middle, 1e-12)))


def _centred(model: Holography) -> Holography:
    """Take the mean of the phase in the field of view as zero, and leave B as it is."""
    mean = float(model.in_view(model.phase).mean())
    return model.replace(phase=model.phase - mean, attenuation=model.attenuation - mean / model.delta_beta)


def _emptied(model: Holography) -> Holography:
    mean = jnp.mean(model.attenuation) if model.borderless else 0.0
    return model.replace(phase=jnp.zeros_like(model.phase), attenuation=jnp.full_like(model.attenuation, mean))


def _warning(line: str, console: Console) -> str:
    """Say a line, and return it where the verdict should say it again."""
    if line:
        console.say(line)
    return line if "WARNING" in line else ""


def _cost(settings: Settings) -> Callable[[Holography, Batch], Any]:
    """Give the cost of the data alone: the user's, or amplitudes."""
    amplitude = lambda model, batch: 2 * losses.amplitude(model(batch.views), batch.counts, batch.mask, floor=0.375)
    return settings.loss.function or amplitude
