"""One forward model a modality: an equinox Module whose fields are the unknowns and the fixed geometry."""

from typing import TYPE_CHECKING

from .._lazy import names_of

if TYPE_CHECKING:
    from ._crystals import phase_from_cif as phase_from_cif
    from ._crystals import phase_of_lines as phase_of_lines
    from ._curves import ScannedCurve as ScannedCurve
    from ._curves import curve_spectrum as curve_spectrum
    from ._diffraction import Diffraction as Diffraction
    from ._diffraction import autocorrelation_support as autocorrelation_support
    from ._diffraction import diffraction_pattern as diffraction_pattern
    from ._diffraction import oversampling_ratio as oversampling_ratio
    from ._elements import ElementCounts as ElementCounts
    from ._elements import ElementFrames as ElementFrames
    from ._elements import Elements as Elements
    from ._emission_lines import LINE_TABLES as LINE_TABLES
    from ._emission_lines import Line as Line
    from ._emission_lines import attenuation_of as attenuation_of
    from ._emission_lines import detection_efficiency as detection_efficiency
    from ._emission_lines import emission_line as emission_line
    from ._emission_lines import excited_line as excited_line
    from ._emission_lines import line_table as line_table
    from ._emission_lines import mass_fractions as mass_fractions
    from ._emission_lines import split_line as split_line
    from ._fluorescence import CrossSections as CrossSections
    from ._fluorescence import Fluorescence as Fluorescence
    from ._fluorescence_edges import sharpened as sharpened
    from ._fluorescence_start import alternate as alternate
    from ._fluorescence_start import curvature as curvature
    from ._fluorescence_start import measured_offsets as measured_offsets
    from ._fluorescence_start import refined_amounts as refined_amounts
    from ._fluorescence_start import refined_offsets as refined_offsets
    from ._fringes import SteppedFringes as SteppedFringes
    from ._fringes import fit_fringes as fit_fringes
    from ._holography import Holography as Holography
    from ._holotomography import HoloTomography as HoloTomography
    from ._holotomography import hologram_table as hologram_table
    from ._holotomography import holograms_by_angle as holograms_by_angle
    from ._interferometer import InterferometerFringes as InterferometerFringes
    from ._kedge import KEdge as KEdge
    from ._kedge import attenuation_table as attenuation_table
    from ._kedge import check_table as check_table
    from ._kedge_volume import KEdgeTomography as KEdgeTomography
    from ._kedge_volume import attenuation_spectra as attenuation_spectra
    from ._laminography import Laminography as Laminography
    from ._orientation import OrientationReport as OrientationReport
    from ._orientation import check_orientation as check_orientation
    from ._powder import PowderBasis as PowderBasis
    from ._powder import PowderTomography as PowderTomography
    from ._powder import powder_basis as powder_basis
    from ._ptychography import Ptychography as Ptychography
    from ._ptychography_levels import coarser as coarser
    from ._ptychography_levels import has_coarser as has_coarser
    from ._ptychography_levels import refined as refined
    from ._ptychotomography import PtychoProjections as PtychoProjections
    from ._ptychotomography import PtychoTomography as PtychoTomography
    from ._ptychotomography import angle_table as angle_table
    from ._ptychotomography import frames_by_angle as frames_by_angle
    from ._refracting import TrackedSample as TrackedSample
    from ._refraction import DisplacedReference as DisplacedReference
    from ._rings import Peaks as Peaks
    from ._rings import Phase as Phase
    from ._rings import powder_pattern as powder_pattern
    from ._scattering import SaxsTensor as SaxsTensor
    from ._secondary_excitation import Excitation as Excitation
    from ._secondary_excitation import excitation_kernel as excitation_kernel
    from ._secondary_excitation import excitations as excitations
    from ._secondary_excitation import secondary_counts as secondary_counts
    from ._tomography import Tomography as Tomography
    from ._transmission import TransmissionTomography as TransmissionTomography
else:
    __getattr__, __dir__, __all__ = names_of(__name__)
