"""Projections on sets that the object and the data must lie in."""
