"""What a measurement will show, before it is made: resolution, sensitivity, dose and time, for photons and numbers of
the instrument, and better numbers by gradient.

Every method says with which Fisher information one view of it measures the projected density at each spatial frequency;
one rule makes sizes, differences of density and curves of it for all of them (`docs/regimes.md`). What is predicted is
photon noise: not what drifts, artefacts or a wrong model add.
"""

from ._detail import CRITERION as CRITERION
from ._diffraction_tomography import DiffractionTomography
from ._fluorescence import FluorescenceMap
from ._holography import Holography
from ._method import Measurement as Measurement
from ._method import Method as Method
from ._method import Prediction as Prediction
from ._method import methods as methods
from ._method import register as register
from ._near_field_ptychography import NearFieldPtychography
from ._optimise import Optimum as Optimum
from ._optimise import optimise as optimise
from ._plan import Figures as Figures
from ._plan import Plan as Plan
from ._plan import plan as plan
from ._ptychography import Ptychography
from ._refraction import Grating
from ._speckle import Speckle
from ._tensor_saxs import TensorSaxs
from ._tomography import Tomography
from ._words import curve_in_words as curve_in_words
from ._words import doubling_in_words as doubling_in_words
from ._words import figures_in_words as figures_in_words
from ._words import settings_in_words as settings_in_words

for _method in (
    Holography,
    Tomography,
    Ptychography,
    NearFieldPtychography,
    Grating,
    Speckle,
    FluorescenceMap,
    TensorSaxs,
    DiffractionTomography,
):
    register(_method())
