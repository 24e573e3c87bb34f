"""A particle and its diffraction pattern, by sums that share nothing with the package."""

import numpy as np


def particle(shape, seed=0, kind=np.complex64):
    """A random object in a box, and the box."""
    rng = np.random.default_rng(seed)
    support = np.zeros(shape, bool)
    support[tuple(slice(n // 4, n // 4 + n // 3) for n in shape)] = True
    values = rng.uniform(1, 2, shape) * np.exp(1j * rng.uniform(-1, 1, shape))
    return np.where(support, values, 0).astype(kind), support


def pattern_of(obj):
    """`|sum object exp(-2 pi i q.r / n)|^2 / pixels`, one axis after the other as matrices."""
    wave = np.asarray(obj, complex)
    for axis, n in enumerate(obj.shape):
        kernel = np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) / np.sqrt(n)
        wave = np.moveaxis(np.tensordot(kernel, wave, (1, axis)), 0, axis)
    return abs(wave) ** 2
