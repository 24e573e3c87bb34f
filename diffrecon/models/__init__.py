"""One forward model a modality: an equinox Module whose fields are the unknowns and the fixed geometry."""

from ._holography import Holography as Holography
from ._ptychography import Ptychography as Ptychography
from ._tomography import Tomography as Tomography
