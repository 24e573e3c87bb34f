"""Where source, sample and detector stand. Plain numbers in, effective pixel and distance out.

Lengths [m], energies [eV]. Every number may be an array (several distances) and may be an unknown of a cost functional:
the arithmetic works on floats, NumPy and JAX arrays alike.
"""

from typing import Any

import equinox as eqx
import jax
import numpy as np

from . import physics


class ParallelBeam(eqx.Module):
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


class ConeBeam(eqx.Module):
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


class FarField(eqx.Module):
    """Far-field diffraction: a sample pixel of `wavelength distance / (N detector_pixel)` for frames of N pixels.

    **Arguments:** `energy` [eV], `sample_to_detector` and `detector_pixel` [m], `frame` = number of pixels (square
    frames; the smaller side otherwise). Unknown ones stay `None`; the pixel size is then unknown too, unless it is
    given as `sample_pixel` [m].
    """

    frame: int = eqx.field(static=True)
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

    return jax.tree.map(pick, geometry)
