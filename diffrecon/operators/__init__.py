"""The physics: pure, jittable functions on arrays, one phenomenon a file.

They know no data file, no loss and no solver. Linear ones come with an exact adjoint.
"""

from typing import TYPE_CHECKING

from .._lazy import names_of

if TYPE_CHECKING:
    from ._bins import Bins as Bins
    from ._bins import Cake as Cake
    from ._bins import ChannelResponse as ChannelResponse
    from ._bins import radial_range as radial_range
    from .adjoint import adjoint_of as adjoint_of
    from .adjoint import dot_test as dot_test
    from .adjoint import inner as inner
    from .adjoint import random_like as random_like
    from .detector import AlignedProjector as AlignedProjector
    from .detector import move_images as move_images
    from .displacement import along_rays as along_rays
    from .displacement import displaced as displaced
    from .displacement import displaced_with_slopes as displaced_with_slopes
    from .displacement import displacement_coefficients as displacement_coefficients
    from .displacement import fringe_transfer as fringe_transfer
    from .displacement import saturated_loss as saturated_loss
    from .displacement import slopes_of as slopes_of
    from .displacement import slopes_transposed as slopes_transposed
    from .displacement import thin_closed as thin_closed
    from .dynamic import Dynamic as Dynamic
    from .dynamic import spline_basis as spline_basis
    from .fluorescence import Escape as Escape
    from .fluorescence import path_in as path_in
    from .fluorescence import slab_share as slab_share
    from .fluorescence import turn_to_beam as turn_to_beam
    from .fourier_pose import FourierPoseProjector as FourierPoseProjector
    from .integration import AzimuthalIntegrator as AzimuthalIntegrator
    from .pixels import cubic_matrix as cubic_matrix
    from .pixels import pixel_matrix as pixel_matrix
    from .pixels import rotate_periodic as rotate_periodic
    from .pixels import to_pixels as to_pixels
    from .pose import PoseProjector as PoseProjector
    from .pose import laminography_poses as laminography_poses
    from .probe import beam_amplitude as beam_amplitude
    from .probe import bin_pixels as bin_pixels
    from .probe import blur_frames as blur_frames
    from .probe import coverage as coverage
    from .probe import deposit as deposit
    from .probe import exit_waves as exit_waves
    from .probe import extract as extract
    from .probe import far_field as far_field
    from .probe import fourier_shift as fourier_shift
    from .probe import intensity as intensity
    from .probe import near_field as near_field
    from .probe import orthogonal_modes as orthogonal_modes
    from .probe import shift_ramps as shift_ramps
    from .probe import split_positions as split_positions
    from .probe import well_lit as well_lit
    from .projection import ParallelProjector as ParallelProjector
    from .projection import ToeplitzNormal as ToeplitzNormal
    from .projection import project_parallel as project_parallel
    from .propagation import Sampling as Sampling
    from .propagation import fraunhofer as fraunhofer
    from .propagation import fresnel_transfer as fresnel_transfer
    from .propagation import propagate as propagate
    from .propagation import propagate_in_vacuum as propagate_in_vacuum
    from .propagation import sampling as sampling
    from .refraction import phase_gradient as phase_gradient
    from .refraction import refraction_angle as refraction_angle
    from .scattering import TensorGeometry as TensorGeometry
    from .scattering import TensorProjector as TensorProjector
    from .scattering import mean_intensity as mean_intensity
    from .scattering import orientation as orientation
    from .scattering import real_harmonics as real_harmonics
    from .scattering import relative_anisotropy as relative_anisotropy
    from .scattering import rotations_from_angles as rotations_from_angles
    from .scattering import second_moment as second_moment
    from .scattering import segment_weights as segment_weights
    from .strips import Grid as Grid
    from .strips import PatternProjector as PatternProjector
    from .strips import StripProjector as StripProjector
    from .strips import absorption_factors as absorption_factors
    from .zone_plate import ZonePlateMicroscope as ZonePlateMicroscope
else:
    __getattr__, __dir__, __all__ = names_of(__name__)
