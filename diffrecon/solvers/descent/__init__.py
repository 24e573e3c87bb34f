"""Descent of any cost functional: the one optax loop, Gauss-Newton, preconditioned steps."""
