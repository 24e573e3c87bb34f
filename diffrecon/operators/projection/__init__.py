"""Parallel-beam projection."""

from .parallel import ParallelProjector as ParallelProjector
from .parallel import project_parallel as project_parallel
from .toeplitz import ToeplitzNormal as ToeplitzNormal
