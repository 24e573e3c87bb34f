"""Holography: its settings, and the problem with what is learnt on the way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .. import quality, solvers
from .._console import Console
from ..modality import Problem
from ..operators.fourier import blur
from ..priors import PowerLaw
from ..settings import above, section, setting, unless
from ..solvers import HologramCoordinates, HologramCurvature

GEOMETRY = ("shifts", "rotations", "stretch", "distances", "source_blur", "detector_blur", "flux")
HALVES = ("photons", "distances")
MAPS = ("phase", "attenuation")  # of the model; the second where one material does not explain the data
SURROUNDINGS = ("auto", "vacuum", "specimen")
_BLOCK, _HELD = 4, 0.02  # pixels along an edge, and share, of the blocks that are never fitted
_OPEN = 1.05  # times photon noise, left by one material: then attenuation of its own is tried
_SLOW = 3.0  # periods over the frame, below which the law of the phase is extrapolated
_DETAILS = 32.0  # of the frame, the standard deviation of a blur that details do not outlive
FEW = 128  # pixels along an edge of frames, which are not binned once more
_LEAST = 64  # pixels that a binned frame keeps along an edge


@dataclass(frozen=True)
class Prepare:
    """What is done to the frames."""

    outliers: float = setting(10.0, "leave out pixels that stand out by so many sigma; 0 keeps all", at_least=0)


@dataclass(frozen=True)
class Model:
    """What object, beam and geometry may be."""

    delta_beta: float | None = setting(
        None,
        "of the main material; by default that of light organic matter",
        above=0,
        only={"material": (None,), "materials": (None,)},
    )
    material: str | None = setting(
        None, 'instead: formula and density [g/cm^3], "SiO2, 2.2" (needs xraydb)', only={"materials": (None,)}
    )
    materials: dict | None = setting(None, 'instead: several, {resin = "C5H8O2, 1.19"}; two tell their thicknesses')
    attenuation: bool | None = setting(None, "that delta_beta does not explain; by default where a residual is left")
    attenuation_scale: float = setting(
        0.15, "its size to begin with, in units of the phase", above=0, only={"attenuation": unless(False)}
    )
    refine: tuple[str, ...] | None = setting(
        None, f"to solve for, of {', '.join(GEOMETRY)}; by default shifts that were registered", known=lambda: GEOMETRY
    )
    probe: bool | str | None = setting(
        None,
        "wave of a beam with strong structure, from the flats of all distances, and from holograms in turn with the "
        "object; by default flats divide, unless holograms are better explained by a wave at the detector",
        choices=(False, "flats", "refine"),
    )
    surroundings: str = setting(
        "auto", "what lies beyond the frames; by default as the border of the frames, or unseen pixels, say",
        choices=SURROUNDINGS,
    )  # fmt: skip
    register: bool | None = setting(None, "find the shifts between frames; by default where none are given")


@dataclass(frozen=True)
class Loss:
    """What is minimised."""

    function: Callable[..., Any] | None = setting(None, "a function (model, batch) -> scalar; amplitudes by default")
    negative: float = setting(0.25, "weight of phases above vacuum, in units of the flux", at_least=0)
    tv: float = setting(1.0, "strength of the total variation, in units of photon noise; 0 for none", at_least=0)
    vacuum: float = setting(0.1, "weight of squares where nothing is, as of an isolated object; 0 for none", at_least=0)


@dataclass(frozen=True)
class Solver:
    """How long it is solved."""

    damping: tuple[float, ...] = setting((1.0, 0.1), "of the rounds of one strong material [flux]", at_least=0)
    rounds: int = setting(2, "with everything to be solved for; one where the phase is weak", at_least=0)
    tv_rounds: int = setting(2, "with the total variation, one step each", at_least=0, only={"loss.tv": above(0)})
    steps: int = setting(4, "Gauss-Newton steps a round", at_least=1)
    cg_steps: int = setting(20, "conjugate gradients a step; half as many after coarser frames", at_least=1)


@dataclass(frozen=True)
class Quality:
    """How the result is judged."""

    error_bar: bool = setting(True, "of the phase, from photon noise")
    halves: bool | str | None = setting(
        None, "correlate two more solves, of half the photons or distances", choices=(False, True, *HALVES)
    )
    seed: int = setting(0, "of noise floors, error bars and halves")


@dataclass(frozen=True)
class Settings:
    """Every setting of the method."""

    prepare: Prepare = section(Prepare)
    model: Model = section(Model)
    loss: Loss = section(Loss)
    solver: Solver = section(Solver)
    quality: Quality = section(Quality)


@dataclass(frozen=True)
class Holograms(Problem):
    """The problem with what the last round took for granted.

    **Fields:** power `laws` of the maps that are solved for; `curvature`; `refine`: numbers of the geometry; `settled`:
    shifts have just been registered; `named` materials (delta, beta); `lines` for the user; `half` of the data;
    `held`: pixels that are never fitted; `beam`: flats with structure, which may have to be a wave; `other`: the same
    in surroundings that may be the right ones; `scan` with flats, for the wave of the beam.
    """

    laws: tuple[PowerLaw, ...] = ()
    curvature: HologramCurvature | None = None
    refine: tuple[str, ...] = ()
    settled: bool = False
    named: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    half: bool = False
    held: Any = None
    beam: Any = None
    other: Any = None
    scan: Any = None

    # ------------------------------------------------------------------ what is learnt
    def with_laws(self) -> "Holograms":
        """Refit the laws of the maps to the solution."""
        known, fitted = self.known().of_model(self.model, len(self.laws)), []
        for index, (law, name) in enumerate(zip(self.laws, MAPS, strict=False)):
            fitted.append(law.refined(getattr(self.model, name), known[index, index]))
        return self.replace(laws=tuple(fitted))

    def opened(self, settings: Settings, console: Console) -> "Holograms":
        """Solve for attenuation too, where one material does not explain the data or several are named."""
        asked, excess = settings.model.attenuation, self.excess(settings.quality.seed)
        more = (len(self.named) > 1 or excess > _OPEN) if asked is None else asked
        also = "; solving for attenuation too" if more and asked is None else ""
        console.say(f"residual of one material: {excess:.3f} times photon noise{also}")
        if not more:
            return self
        # Small dense details: their power falls more slowly by one power of the frequency; their size is relative to
        # the phase where phase contrast is best.
        law, frequency = self.laws[0], float(solvers.first_maximum(self.model))
        other = PowerLaw(law.level * settings.model.attenuation_scale**2 / (2 * frequency), law.slope + 1)
        return self.replace(laws=(law, other))

    def tied(self, settings: Settings) -> "Holograms":
        """Take, of a specimen that goes on, for the main material the one that attenuates as details of the phase do.

        What is slow attenuates as before; `attenuation` is then what details have beyond that ratio, and its law is
        that of the rest.
        """
        model = self.model
        if not model.borderless or len(self.laws) < 2 or len(self.named) > 1 or self.views < 2:
            return self
        slow = blur(model.phase, min(model.frame) / _DETAILS)
        start = self.coordinates(settings, refine=tuple(name for name in self.refine if "blur" not in name))
        slope, moved = solvers.attenuation_of_details(
            start, device(self.data), model.phase - slow, (settings.solver.cg_steps + 1) // 2
        )
        ratio = 1 / (1 / model.delta_beta + slope)
        if not 0 < float(ratio) < np.inf:
            return self
        model = moved.solution()
        return self.replace(model=model.replace(delta_beta=ratio, attenuation=model.attenuation + slope * slow))

    def measured(self, seed: int) -> "Holograms":
        """Measure the curvature of the object: where it is, or where it is seen if it goes on."""
        where = self.seen() if self.model.borderless else None
        curvature = solvers.measured_curvature(self.model, seed, where)
        if self.model.borderless and "shifts" in self.refine:
            curvature = curvature.at_most(solvers.transfer_curvature(self.model))
        return self.replace(curvature=curvature)

    def seen(self) -> Float[Array, "y x"]:
        """Weigh the field of the finest pixel as one, fading out over a tenth of it."""
        field = np.zeros(self.model.phase.shape, np.float32)
        field[tuple(slice((w - n) // 2, (w + n) // 2) for w, n in zip(field.shape, self.model.frame, strict=True))] = 1
        return blur(jnp.asarray(field), min(self.model.frame) / 20)

    def known(self) -> HologramCurvature:
        """Give the curvature of the last round, or that of a weak object."""
        return solvers.transfer_curvature(self.model) if self.curvature is None else self.curvature

    def coordinates(self, settings: Settings, **options: Any) -> HologramCoordinates:
        """Make the white coordinates of a round. Without vacuum no sign and no empty place is known."""
        options |= {"negative": settings.loss.negative}
        if self.model.borderless:
            options |= {"negative": 0.0, "one_sided": 0.0, "vacuum": 0.0, "loose": _SLOW / min(self.model.frame)}
        return HologramCoordinates.about(self.model, self.known(), self.laws, **options)

    # ------------------------------------------------------------------ coarser and finer
    def can_be_binned(self, settings: Settings) -> bool:
        """Say whether frames of half as many pixels say the same of the object's coarser half."""
        shapes = (self.model.frame, self.model.phase.shape, self.model.grid)
        even = all(n % 2 == 0 for shape in shapes for n in shape) and min(self.model.frame) >= 2 * _LEAST
        return even and set(self.refine) <= {"shifts"} and self.model.probe is None and not settings.loss.function

    def binned(self) -> "Holograms":
        """Make the problem of binned frames; a pixel counts where all four were measured."""
        pairs = lambda image: image.reshape(*image.shape[:-2], image.shape[-2] // 2, 2, image.shape[-1] // 2, 2)
        whole = lambda mask: None if mask is None else pairs(np.asarray(mask)).all((-3, -1))
        counts = pairs(np.asarray(self.data["counts"])).sum((-3, -1), dtype=np.float32)
        data = {"counts": counts, "mask": whole(self.data["mask"])}
        return self.replace(
            model=self.model.binned(), data=data, held=whole(self.held), beam=self.beam and self.beam.binned(),
            laws=tuple(law.on_pixels(2) for law in self.laws), curvature=None,
        )  # fmt: skip

    # ------------------------------------------------------------------ how good it is
    def judged(self, seed: int) -> dict[str, Any]:
        """Judge every hologram: Poisson deviance, and that of photon noise alone, where it was fitted and where not."""
        prediction = self.predict(np.arange(self.views)).astype(float)
        figures = _deviances(self.data["counts"], prediction, self.data["mask"], seed, "")
        if self.held is not None:
            figures |= _deviances(self.data["counts"], prediction, self.held, seed, "held_out_")
        return figures

    def excess(self, seed: int) -> float:
        """Compute the largest deviance of a hologram over that of photon noise alone."""
        figures = self.judged(seed)
        return float((figures["deviance"] / figures["noise_floor_deviance"]).max())

    def unseen(self, seed: int) -> float:
        """Compute the deviance over photon noise of the pixels that were never fitted."""
        figures = self.judged(seed)
        return float((figures["held_out_deviance"] / figures["held_out_noise_floor_deviance"]).mean())


def _deviances(counts: Any, prediction: np.ndarray, mask: Any, seed: int, which: str) -> dict[str, np.ndarray]:
    masks = np.broadcast_to(mask, prediction.shape)
    floor = [quality.noise_floor(p, m, quality.deviance, seed) for p, m in zip(prediction, masks, strict=True)]
    found = [quality.deviance(n, p, m) for n, p, m in zip(counts, prediction, masks, strict=True)]
    return {f"{which}deviance": np.array(found), f"{which}noise_floor_deviance": np.array(floor)}


def held_blocks(shape: tuple[int, ...], mask: Bool[np.ndarray, "y x"], seed: int) -> Bool[np.ndarray, "view y x"]:
    """Choose small blocks of each frame at random that are never fitted; of frames too small for blocks none."""
    views, rows, columns = shape
    small = (views, rows // _BLOCK, columns // _BLOCK)
    chosen = np.random.default_rng(seed).random(small) < _HELD
    held = np.zeros(shape, bool)
    blocks = chosen.repeat(_BLOCK, 1).repeat(_BLOCK, 2)
    held[:, : blocks.shape[1], : blocks.shape[2]] = blocks
    return held & mask


def device(data: Mapping[str, Any]) -> dict[str, Array]:
    """Put the data on the device, once for all rounds."""
    return {name: jnp.asarray(value) for name, value in data.items()}
