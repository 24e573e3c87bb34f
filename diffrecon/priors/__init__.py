"""What is known of an object before its measurement: power laws, edges, vacuum; and coordinates in which cost and prior
together have curvature one.
"""

from .coordinates import Coordinates as Coordinates
from .coordinates import filtered as filtered
from .coordinates import mixed as mixed
from .coordinates import whitening as whitening
from .edges import Variation as Variation
from .edges import detail_gradient as detail_gradient
from .edges import vacuum_weights as vacuum_weights
from .power_law import PowerLaw as PowerLaw
from .power_law import fit_power_law as fit_power_law
from .ramp import unseen_ramp as unseen_ramp
