"""Where source, sample and detector stand. Plain numbers in, effective pixel and distance out.

Lengths [m], energies [eV]. Every number may be an array (several distances) and may be an unknown of a cost functional:
the arithmetic works on floats, NumPy and JAX arrays alike.
"""

import copy
import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from . import physics
from ._lazy import pytree
from .errors import InputError


@pytree
@dataclasses.dataclass(frozen=True)
class ParallelBeam:
    """A parallel beam: the detector pixel is the sample pixel.

    **Arguments:** `detector_pixel` [m], `energy` [eV], `sample_to_detector` [m]. Unknown ones stay `None`.
    """

    detector_pixel: Any = None
    energy: Any = None
    sample_to_detector: Any = None

    @property
    def wavelength(self) -> Any:
        """[m], `None` where the energy is not known."""
        return None if self.energy is None else physics.HC / self.energy

    @property
    def pixel_size(self) -> Any:
        """Pixel in the sample [m], `None` where it is not known."""
        return self.detector_pixel

    @property
    def distance(self) -> Any:
        """Propagation distance [m]."""
        return self.sample_to_detector


@pytree
@dataclasses.dataclass(frozen=True)
class ConeBeam:
    """A projection microscope: a point focus, the sample `focus_to_sample` behind it, the detector at
    `focus_to_detector`.

    By the Fresnel scaling theorem (Pogany 1997, Paganin 2002) the hologram is that of a parallel beam with
    magnification `M = focus_to_detector / focus_to_sample`, pixel `detector_pixel / M` and distance
    `sample_to_detector / M`. An astigmatic beam (two mirrors, two foci) has a pair (vertical, horizontal) of
    `focus_to_sample` in its last axis.

    **Arguments:** `energy` [eV]; `focus_to_sample`, `focus_to_detector`, `detector_pixel` [m].

    ```python
    beam = ConeBeam(energy=17e3, focus_to_sample=21.33e-3, focus_to_detector=1.28, detector_pixel=3e-6)
    assert abs(beam.pixel_size - 50e-9) < 1e-10
    ```
    """

    energy: Any
    focus_to_sample: Any
    focus_to_detector: Any
    detector_pixel: Any

    @property
    def wavelength(self) -> Any:
        """[m]."""
        return physics.HC / self.energy

    @property
    def magnification(self) -> Any:
        """`focus_to_detector / focus_to_sample`."""
        return self.focus_to_detector / self.focus_to_sample

    @property
    def pixel_size(self) -> Any:
        """Pixel in the sample [m]."""
        return self.detector_pixel / self.magnification

    @property
    def distance(self) -> Any:
        """Effective propagation distance [m], `z1 z2 / (z1 + z2)`."""
        return (self.focus_to_detector - self.focus_to_sample) / self.magnification


@pytree
@dataclasses.dataclass(frozen=True)
class FarField:
    """Far-field diffraction: a sample pixel of `wavelength distance / (N detector_pixel)` for frames of N pixels.

    **Arguments:** `energy` [eV], `sample_to_detector` and `detector_pixel` [m], `frame` = number of pixels (square
    frames; the smaller side otherwise). Unknown ones stay `None`; the pixel size is then unknown too, unless it is
    given as `sample_pixel` [m].
    """

    frame: int = dataclasses.field(metadata={"static": True})
    energy: Any = None
    sample_to_detector: Any = None
    detector_pixel: Any = None
    sample_pixel: Any = None

    @property
    def wavelength(self) -> Any:
        """[m], `None` where the energy is not known."""
        return None if self.energy is None else physics.HC / self.energy

    @property
    def pixel_size(self) -> Any:
        """Pixel in the sample [m], `None` where energy, distance or detector pixel is not known."""
        if self.sample_pixel is not None:
            return self.sample_pixel
        if self.energy is None or self.sample_to_detector is None or self.detector_pixel is None:
            return None
        return self.wavelength * self.sample_to_detector / (self.frame * self.detector_pixel)

    @property
    def distance(self) -> Any:
        """Sample-detector distance [m]."""
        return self.sample_to_detector


Geometry = ParallelBeam | ConeBeam | FarField


def geometry_of_views(geometry: Geometry, views: np.ndarray, total: int) -> Geometry:
    """The geometry of some of `total` views, in the given order: fields with an entry for each view are picked."""

    def pick(value: Any) -> Any:
        return value[views] if np.ndim(value) and np.shape(value)[0] == total else value

    fields = {field.name: getattr(geometry, field.name) for field in dataclasses.fields(geometry)}
    return dataclasses.replace(geometry, **{name: pick(value) for name, value in fields.items()})


EIGHT_SEGMENTS = tuple(np.arange(8) * np.pi / 8)


@dataclasses.dataclass(init=False, eq=False)
class TensorGeometry:
    """Where beam, detector and sample stood in each view of a tensor SAXS scan.

    A vector `v0` of the laboratory is `R^T v0` in the frame of the sample; the volume is fixed in the sample.

    **Arguments:** `rotations` `(view, 3, 3)` of the sample; `offsets` `(view, 2)` of the (row, column) raster [pixel];
    `beam`, `column`, `row`: laboratory vectors of the beam and of the raster (defaults: +y, +x, +z); `detector_angles`
    `(segment,)` [rad], azimuths of the segments' centres; `detector_origin`, `detector_positive_90`: laboratory vectors
    of azimuth 0 and 90 degrees; `two_theta` [rad], the scattering angle.

    **Raises:** `InputError` for shapes that do not agree, or matrices that are no rotations.

    ```python
    from diffrecon.operators import rotations_from_angles

    rotations = rotations_from_angles(inner=np.linspace(0, np.pi, 10), outer=np.zeros(10))
    geometry = TensorGeometry(rotations, detector_angles=np.arange(8) * np.pi / 8)
    ```
    """

    rotations: np.ndarray
    offsets: np.ndarray
    beam: np.ndarray
    column: np.ndarray
    row: np.ndarray
    detector_angles: np.ndarray
    detector_origin: np.ndarray
    detector_positive_90: np.ndarray
    two_theta: float

    def __init__(
        self,
        rotations: ArrayLike,
        offsets: ArrayLike | None = None,
        beam: ArrayLike = (0.0, 1.0, 0.0),
        column: ArrayLike = (1.0, 0.0, 0.0),
        row: ArrayLike = (0.0, 0.0, 1.0),
        detector_angles: ArrayLike = EIGHT_SEGMENTS,
        detector_origin: ArrayLike = (1.0, 0.0, 0.0),
        detector_positive_90: ArrayLike = (0.0, 0.0, 1.0),
        two_theta: float = 0.0,
    ):
        self.rotations = np.asarray(rotations, np.float64)
        self.offsets = np.zeros((len(self.rotations), 2)) if offsets is None else np.asarray(offsets, np.float64)
        self.beam, self.column, self.row = (np.asarray(v, np.float64) for v in (beam, column, row))
        self.detector_angles = np.asarray(detector_angles, np.float64)
        self.detector_origin = np.asarray(detector_origin, np.float64)
        self.detector_positive_90 = np.asarray(detector_positive_90, np.float64)
        self.two_theta = float(two_theta)
        self._check()

    def _check(self) -> None:
        views = len(self.rotations)
        if self.rotations.shape != (views, 3, 3) or self.offsets.shape != (views, 2):
            shapes = f"{self.rotations.shape}, {self.offsets.shape}"
            raise InputError(f"rotations must be (view, 3, 3) and offsets (view, 2), got {shapes}")
        if self.detector_angles.ndim != 1 or self.detector_angles.size < 2:
            raise InputError(f"detector_angles must be (segment,) with two or more, got {self.detector_angles.shape}")
        error = np.abs(self.rotations @ np.swapaxes(self.rotations, 1, 2) - np.eye(3)).max((1, 2))
        if not np.all(error < 1e-3):
            raise InputError(f"the rotation matrix of view {int(np.argmax(error))} is no rotation")

    def __len__(self) -> int:
        return len(self.rotations)

    def subset(self, views: ArrayLike) -> "TensorGeometry":
        """The geometry of some of the views."""
        views, some = np.asarray(views), copy.copy(self)
        some.rotations, some.offsets = self.rotations[views], self.offsets[views]
        return some

    def in_sample(self, vector: ArrayLike) -> Float[np.ndarray, "view 3"]:
        """A laboratory vector as the sample sees it in every view, `R^T v`."""
        return np.einsum("nji,j->ni", self.rotations, np.asarray(vector, np.float64))


@dataclasses.dataclass(frozen=True)
class TiltedDetector:
    """A flat detector anywhere behind the sample, in the convention of pyFAI's PONI files.

    Axis 1 is the row, axis 2 the column. A pixel at `p1, p2` [m] from the corner of the frame stands at `R3 R2 R1 (p1 -
    poni1, p2 - poni2, distance)` in (vertical, horizontal, beam) about the sample, with `R1`, `R2`, `R3` = rotations by
    `rot1`, `rot2`, `rot3` [rad] of pyFAI (J. Kieffer and J. P. Wright, Powder Diffr. 28, S339 (2013)). The azimuth is
    `chi = atan2(vertical, horizontal)`. Everything is computed in float64.

    **Fields:** `distance`, `poni1`, `poni2`, `pixel1`, `pixel2`, `wavelength` [m]; `orientation` as in PONI 2.1: in
    which corner of the stored frame the geometry begins. 3: as stored, 2: rows flipped, 4: columns flipped, 1: both.

    ```python
    detector = TiltedDetector(0.2, 0.01, 0.01, 0.0, 0.0, 0.0, 1e-4, 1e-4)
    assert abs(detector.angles((200, 200))[0][100, 150] - np.arctan(50.5e-4 / 0.2)) < 1e-5
    ```
    """

    distance: float
    poni1: float
    poni2: float
    rot1: float
    rot2: float
    rot3: float
    pixel1: float
    pixel2: float
    wavelength: float | None = None
    orientation: int = 3

    def angles(
        self, shape: tuple[int, int], rows: Any = 0.5, columns: Any = 0.5
    ) -> tuple[Float[np.ndarray, "y x"], Float[np.ndarray, "y x"], Float[np.ndarray, "y x"]]:
        """Compute two_theta [rad], chi [rad] and solid angle over that of a pixel at the foot of the normal.

        **Arguments:** `shape` of the frame; `rows`, `columns`: place within every pixel, 0 to 1.
        """
        vertical, horizontal, beam = self._places(shape, rows, columns)
        length = np.sqrt(vertical**2 + horizontal**2 + beam**2)
        two_theta = np.arctan2(np.hypot(vertical, horizontal), beam)
        return two_theta, np.arctan2(vertical, horizontal), (self.distance / length) ** 3

    @property
    def pixel_solid_angle(self) -> float:
        """[sr] of a pixel at the foot of the normal."""
        return self.pixel1 * self.pixel2 / self.distance**2

    def _places(self, shape: tuple[int, int], rows: Any, columns: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        row = (np.arange(shape[0]) + rows)[:: -1 if self.orientation in (1, 2) else 1] * self.pixel1 - self.poni1
        column = (np.arange(shape[1]) + columns)[:: -1 if self.orientation in (1, 4) else 1] * self.pixel2 - self.poni2
        c, s = np.cos((self.rot1, self.rot2, self.rot3)), np.sin((self.rot1, self.rot2, self.rot3))
        first = np.array([[1, 0, 0], [0, c[0], s[0]], [0, -s[0], c[0]]])
        second = np.array([[c[1], 0, -s[1]], [0, 1, 0], [s[1], 0, c[1]]])
        third = np.array([[c[2], -s[2], 0], [s[2], c[2], 0], [0, 0, 1]])
        turn = third @ second @ first
        one, two = row[:, None], column[None, :]
        return tuple(m[0] * one + m[1] * two + m[2] * self.distance for m in turn)  # pyright: ignore[reportReturnType]


def polarisation_factor(two_theta: Any, chi: Any, degree: float) -> Any:
    """Intensity of scattering over that without polarisation: `(1 + cos^2 2theta - P cos 2chi sin^2 2theta) / 2`.

    **Arguments:** angles [rad], `chi` from the horizontal; `degree` P, 1 = horizontal.
    """
    return 0.5 * (1 + np.cos(two_theta) ** 2 - degree * np.cos(2 * chi) * np.sin(two_theta) ** 2)
