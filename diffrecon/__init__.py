"""X-ray imaging experiments as differentiable forward models in JAX, and solvers that invert them."""
