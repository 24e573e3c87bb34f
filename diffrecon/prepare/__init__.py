"""From raw frames to what a model takes: flats and darks, defects, stripes, rotation centre, line integrals."""

from typing import TYPE_CHECKING

from .._lazy import names_of

if TYPE_CHECKING:
    from ._beam_wave import BeamAtDetector as BeamAtDetector
    from ._beam_wave import FlatBeam as FlatBeam
    from ._beam_wave import LitObject as LitObject
    from ._beam_wave import lit_residual as lit_residual
    from ._carriers import Carriers as Carriers
    from ._carriers import demodulate as demodulate
    from ._carriers import find_carriers as find_carriers
    from ._centre import RotationCentre as RotationCentre
    from ._centre import find_isolated_centre as find_isolated_centre
    from ._centre import find_rotation_centre as find_rotation_centre
    from ._combined_flats import CombinedFlats as CombinedFlats
    from ._combined_flats import combine_flats as combine_flats
    from ._combined_flats import flat_components as flat_components
    from ._defects import BadPixels as BadPixels
    from ._defects import brighter_than_beam as brighter_than_beam
    from ._defects import find_bad_pixels as find_bad_pixels
    from ._defects import find_outliers as find_outliers
    from ._defects import leave_out as leave_out
    from ._defects import mend_outliers as mend_outliers
    from ._defects import remove_zingers as remove_zingers
    from ._distortion import radial_distortion as radial_distortion
    from ._distortion import undistort as undistort
    from ._empty_beam import fit_eigen_weights as fit_eigen_weights
    from ._energy_axis import EnergyAxis as EnergyAxis
    from ._energy_axis import check_energy_axis as check_energy_axis
    from ._energy_beams import EnergyBeams as EnergyBeams
    from ._energy_beams import energy_beams as energy_beams
    from ._field import air_rectangle as air_rectangle
    from ._field import common_field as common_field
    from ._field import light_is_fine as light_is_fine
    from ._flatfield import transmission as transmission
    from ._flux import find_air as find_air
    from ._frame_checks import FramesReport as FramesReport
    from ._frame_checks import check_frames as check_frames
    from ._full_turn import StitchPlan as StitchPlan
    from ._full_turn import is_full_turn as is_full_turn
    from ._full_turn import plan_stitch as plan_stitch
    from ._full_turn import stitch as stitch
    from ._hardening import fit_hardening as fit_hardening
    from ._hardening import linearise as linearise
    from ._holograms import find_hologram_axis as find_hologram_axis
    from ._holograms import mask_hologram_outliers as mask_hologram_outliers
    from ._holograms import register_angles as register_angles
    from ._moments import FrameMoments as FrameMoments
    from ._moments import frame_moments as frame_moments
    from ._patterns import Patterns as Patterns
    from ._patterns import mean_around as mean_around
    from ._patterns import split_patterns as split_patterns
    from ._pipeline import DEFAULTS as DEFAULTS
    from ._pipeline import LineIntegrals as LineIntegrals
    from ._pipeline import Preparation as Preparation
    from ._pipeline import Settings as Settings
    from ._pipeline import line_integrals as line_integrals
    from ._powder import Orientation as Orientation
    from ._powder import check_orientation as check_orientation
    from ._powder import odd_pixels as odd_pixels
    from ._powder import sample_frames as sample_frames
    from ._projections import flatten_projections as flatten_projections
    from ._projections import place_projections as place_projections
    from ._projections import volume_of_projections as volume_of_projections
    from ._raster import Raster as Raster
    from ._raster import on_raster as on_raster
    from ._raster import raster_of as raster_of
    from ._reference_frames import leave_out_unlit as leave_out_unlit
    from ._reference_frames import sort_out_references as sort_out_references
    from ._reference_frames import unlit_views as unlit_views
    from ._reference_frames import usable_references as usable_references
    from ._references import References as References
    from ._references import eigen_flats as eigen_flats
    from ._regions import dilate as dilate
    from ._regions import lit_field as lit_field
    from ._regions import otsu_threshold as otsu_threshold
    from ._regions import sample_region as sample_region
    from ._registration import DistanceRegistration as DistanceRegistration
    from ._registration import register_distances as register_distances
    from ._spectrum_fit import SpectrumFit as SpectrumFit
    from ._spectrum_fit import counting_noise as counting_noise
    from ._spectrum_fit import fit_spectra as fit_spectra
    from ._stripes import STRIPE_METHODS as STRIPE_METHODS
    from ._stripes import Stripes as Stripes
    from ._stripes import remove_stripes as remove_stripes
    from .illumination import BeamCoordinates as BeamCoordinates
    from .illumination import flats_of_views as flats_of_views
    from .illumination import illumination_from_flats as illumination_from_flats
else:
    __getattr__, __dir__, __all__ = names_of(__name__)
