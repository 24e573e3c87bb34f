"""One forward model a modality: an equinox Module whose fields are the unknowns and the fixed geometry."""

from ._diffraction import Diffraction as Diffraction
from ._diffraction import autocorrelation_support as autocorrelation_support
from ._diffraction import diffraction_pattern as diffraction_pattern
from ._diffraction import oversampling_ratio as oversampling_ratio
from ._fringes import SteppedFringes as SteppedFringes
from ._fringes import fit_fringes as fit_fringes
from ._holography import Holography as Holography
from ._holotomography import HoloTomography as HoloTomography
from ._holotomography import hologram_table as hologram_table
from ._holotomography import holograms_by_angle as holograms_by_angle
from ._kedge import KEdge as KEdge
from ._kedge import attenuation_table as attenuation_table
from ._kedge import check_table as check_table
from ._laminography import Laminography as Laminography
from ._orientation import OrientationReport as OrientationReport
from ._orientation import check_orientation as check_orientation
from ._ptychography import Ptychography as Ptychography
from ._ptychotomography import PtychoProjections as PtychoProjections
from ._ptychotomography import PtychoTomography as PtychoTomography
from ._ptychotomography import angle_table as angle_table
from ._ptychotomography import frames_by_angle as frames_by_angle
from ._refraction import DisplacedReference as DisplacedReference
from ._scattering import SaxsTensor as SaxsTensor
from ._tomography import Tomography as Tomography
from ._transmission import TransmissionTomography as TransmissionTomography
