"""Iterative solvers, which know only callables and pytrees, and direct ones, which are closed-form inverses of
operators.
"""

from ._choose import WeightChoice as WeightChoice
from ._choose import choose_weight as choose_weight
from ._deconvolve import deconvolve as deconvolve
from ._error_bars import fbp_deviation as fbp_deviation
from ._fbp import PhaseFilter as PhaseFilter
from ._fbp import fbp as fbp
from ._gauss_newton import levenberg_marquardt as levenberg_marquardt
from ._holographic_projections import HologramSets as HologramSets
from ._holographic_projections import ProjectedPhase as ProjectedPhase
from ._holographic_projections import alternating_projections as alternating_projections
from ._holographic_projections import onto_holograms as onto_holograms
from ._holographic_projections import onto_object as onto_object
from ._iterate import LinearSolution as LinearSolution
from ._laminography import laminography_fbp as laminography_fbp
from ._linear import cgls as cgls
from ._linear import lsqr as lsqr
from ._linear import mlem as mlem
from ._linear import sirt as sirt
from ._minimise import Progress as Progress
from ._minimise import Solution as Solution
from ._minimise import minimise as minimise
from ._normal import NormalEquations as NormalEquations
from ._normal import normal_equations as normal_equations
from ._phase import PhaseMaps as PhaseMaps
from ._phase import ctf as ctf
from ._phase import ctf_response as ctf_response
from ._phase import ict as ict
from ._preconditioned import optimal_step as optimal_step
from ._preconditioned import periodic_momentum as periodic_momentum
from ._preconditioned import preconditioned as preconditioned
from ._projections import SetSolution as SetSolution
from ._projections import set_projections as set_projections
from ._proximal import Huber as Huber
from ._proximal import LeastSquares as LeastSquares
from ._proximal import Poisson as Poisson
from ._proximal import fista as fista
from ._proximal import primal_dual as primal_dual
from ._subsets import osem as osem
from ._subsets import sart as sart
from ._subsets import subset_views as subset_views
from ._transmission import transmission as transmission
from ._transport import mixed as mixed
from ._transport import paganin as paganin
from ._transport import tie as tie
