"""From raw frames to what a model takes: flats and darks, defects, stripes, rotation centre, line integrals."""

from ._centre import RotationCentre as RotationCentre
from ._centre import find_rotation_centre as find_rotation_centre
from ._defects import BadPixels as BadPixels
from ._defects import find_bad_pixels as find_bad_pixels
from ._defects import remove_zingers as remove_zingers
from ._distortion import radial_distortion as radial_distortion
from ._distortion import undistort as undistort
from ._flatfield import transmission as transmission
from ._flux import find_air as find_air
from ._full_turn import StitchPlan as StitchPlan
from ._full_turn import is_full_turn as is_full_turn
from ._full_turn import plan_stitch as plan_stitch
from ._full_turn import stitch as stitch
from ._hardening import fit_hardening as fit_hardening
from ._hardening import linearise as linearise
from ._pipeline import DEFAULTS as DEFAULTS
from ._pipeline import LineIntegrals as LineIntegrals
from ._pipeline import Preparation as Preparation
from ._pipeline import line_integrals as line_integrals
from ._references import References as References
from ._references import eigen_flats as eigen_flats
from ._references import fit_eigen_weights as fit_eigen_weights
from ._stripes import STRIPE_METHODS as STRIPE_METHODS
from ._stripes import Stripes as Stripes
from ._stripes import remove_stripes as remove_stripes
