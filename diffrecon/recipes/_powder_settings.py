"""Settings of powder tomography that `inspect` takes, too."""

from dataclasses import dataclass

from ..settings import GIVEN, section, setting
from ._frame_bins import Integration

_PHASES = {"name": ("phases",)}
OF_PHASES = {"solver.name": ("phases",)}


@dataclass(frozen=True)
class Model:
    """What is in the slice."""

    phases: dict | tuple[str, ...] | str | None = setting(
        None,
        'names of phases that the file describes, or CIF files by name, {ceria = "CeO2.cif"}; by default the file\'s',
    )
    c_change: dict | None = setting(
        None,
        "of phases by name, hexagonal or tetragonal ones: by how much c changes, relatively, where a changes by one, "
        "{NMC = -1.2}; by default 1, lattices keep their shape",
    )
    lattice_change: float = setting(
        5e-3, "largest change of a lattice parameter, relative, that is looked for; more takes longer",
        at_least=5e-3, at_most=0.03, only=OF_PHASES,
    )  # fmt: skip
    pixels: int | None = setting(
        None,
        "of the slice to a step of the scan; by default 2, or 1 where the table would not fit",
        at_least=1,
        at_most=4,
    )
    absorption: bool = setting(True, "inside the projector, from the transmitted beam where it was measured")
    parallax: bool | None = setting(
        None, "depth moves peaks; by default where the sample's size shows beside the detector's distance"
    )
    polarisation: float | None = setting(
        None, "degree, horizontal; by default the file's, or 0.99", at_least=-1, at_most=1
    )
    amorphous: bool = setting(True, "a smooth pattern of its own, besides the phases", only=OF_PHASES)
    time_knots: int | None = setting(
        None, "of a sample that changes: so many slices, linear in time between them (data.times)", at_least=2
    )


@dataclass(frozen=True)
class Solver:
    """How it is found."""

    name: str = setting(
        "phases", "phases inside the projector, or patterns of every pixel alone", choices=("phases", "patterns")
    )
    rounds: int = setting(12, "of Gauss-Newton for amounts and lattice, at most", at_least=1, only=_PHASES)
    steps: int = setting(20, "of conjugate gradients in a round", at_least=1, only=_PHASES)
    tv: float = setting(
        1.0, "weight of total variation of the amounts, in units of what edges of a grain at every fifth point have",
        at_least=0, only=_PHASES,
    )  # fmt: skip
    strain_step: float = setting(
        3e-4, "typical change of a lattice parameter from point to point, relative", above=0, only=_PHASES
    )
    time_step: float = setting(
        0.2, "typical change of an amount from one knot in time to the next, over the amount; of a lattice 1e-3",
        above=0, only=_PHASES | {"model.time_knots": GIVEN},
    )  # fmt: skip
    patterns: bool = setting(True, "the pattern of every pixel, too, as [patterns] says", only=_PHASES)


@dataclass(frozen=True)
class Looked:
    """Settings of the mean pattern."""

    model: Model = section(Model)
    solver: Solver = section(Solver)
    integration: Integration = section(Integration)
