"""From raw frames to what a model takes: flat-field correction, line integrals, rotation centre."""

from ._centre import RotationCentre as RotationCentre
from ._centre import find_rotation_centre as find_rotation_centre
from ._flatfield import LineIntegrals as LineIntegrals
from ._flatfield import line_integrals as line_integrals
from ._flatfield import transmission as transmission
