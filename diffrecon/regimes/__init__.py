"""What a near-field geometry can see, before anything is measured: Fresnel numbers, transfer functions, photons, and
the distances that show most.

Everything follows from the linear model of a weak object, whose hologram at the effective distance D has the spectrum
`I(f) - 1 = T(f) (2 sin(chi) phase - 2 cos(chi) attenuation)`, `chi = pi wavelength D f^2` (Cloetens et al., Appl. Phys.
Lett. 75, 2912 (1999)), blurred by T: pixel, source, bandwidth. Numbers are float64; frequencies are in 1/m of the
sample plane. `directions` does the same for tensor SAXS: which directions of scattering its views see.
"""

from typing import TYPE_CHECKING

from .._lazy import names_of

if TYPE_CHECKING:
    from ._design import Design as Design
    from ._design import customary_distances as customary_distances
    from ._design import design_distances as design_distances
    from ._directions import Directions as Directions
    from ._directions import directions as directions
    from ._survey import Survey as Survey
    from ._survey import regime as regime
    from ._survey import survey as survey
    from ._transfer import Setup as Setup
    from ._transfer import contrast_curves as contrast_curves
    from ._transfer import critical_distance as critical_distance
    from ._transfer import field_share as field_share
    from ._transfer import phase_information as phase_information
    from ._transfer import phase_maximum as phase_maximum
    from ._transfer import pixel_transfer as pixel_transfer
    from ._transfer import sampled_share as sampled_share
    from ._transfer import smallest_phase as smallest_phase
    from ._transfer import transfer as transfer
    from ._transfer import zero_crossings as zero_crossings
else:
    __getattr__, __dir__, __all__ = names_of(__name__)
