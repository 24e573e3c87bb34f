"""Figures that judge a reconstruction without its truth: resolution, edge width, held-out residual, noise floor.

Pure functions of arrays (NumPy inside, float64).
"""

from .correlation import PhaseTransfer as PhaseTransfer
from .correlation import RingCorrelation as RingCorrelation
from .correlation import phase_transfer as phase_transfer
from .correlation import ring_correlation as ring_correlation
from .correlation import shell_correlation as shell_correlation
from .correlation import threshold as threshold
from .edges import EdgeFit as EdgeFit
from .edges import edge_width as edge_width
from .failure import failures as failures
from .halves import ErrorBars as ErrorBars
from .halves import bootstrap_photons as bootstrap_photons
from .halves import bootstrap_views as bootstrap_views
from .halves import distance_halves as distance_halves
from .halves import even_odd as even_odd
from .halves import photon_halves as photon_halves
from .held_out import held_out_figures as held_out_figures
from .held_out import split_views as split_views
from .held_out import unexplained as unexplained
from .registration import align as align
from .registration import edge_error as edge_error
from .registration import register as register
from .registration import scale_error as scale_error
from .registration import shift_image as shift_image
from .residual import PhaseJumps as PhaseJumps
from .residual import deviance as deviance
from .residual import deviances as deviances
from .residual import held_out_residual as held_out_residual
from .residual import line_integral_variance as line_integral_variance
from .residual import noise_floor as noise_floor
from .residual import phase_jumps as phase_jumps
