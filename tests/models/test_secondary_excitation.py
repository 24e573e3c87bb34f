"""Secondary excitation in a slice against a sum over pairs of points, each with the attenuation on its own way."""

import jax.numpy as jnp
import numpy as np
import pytest

import diffrecon as dr
from diffrecon.models import Excitation, excitation_kernel, secondary_counts

N, VIEWS, STEP, FINE = 18, 5, 3e-4, 3
BEAM = np.array([4.0, 40.0, 48.0])  # glass, iron, zinc [cm^2/g]
LINES = np.array([[69.0, 71.0, 88.0], [31.0, 320.0, 40.0]])  # of iron and zinc
FAN = np.deg2rad([-10, 10])


def discs():
    x, y = np.meshgrid(*(np.arange(N) - (N - 1) / 2,) * 2)
    iron = 1.0 * ((x - 3) ** 2 + y**2 < 2.5**2) + 0.4 * ((x + 3) ** 2 + (y - 2) ** 2 < 4)
    zinc = 0.8 * ((x + 1) ** 2 + (y + 3) ** 2 < 2.5**2) + 0.2 * ((x - 3) ** 2 + y**2 < 2.5**2)
    return np.stack([2.2 * (x**2 + y**2 < 7.5**2), iron, zinc])


def look_up(image, x, y):
    i, j = (np.rint(p + (N - 1) / 2).astype(int) for p in (y, x))
    inside = (i >= 0) & (i < N) & (j >= 0) & (j < N)
    return np.where(inside, image[np.clip(i, 0, N - 1), np.clip(j, 0, N - 1)], 0)


def way_out(image, x, y, direction, parts=120):
    s = (np.arange(parts) + 0.5) * 24 / parts
    return look_up(image, x[..., None] + s * direction[0], y[..., None] + s * direction[1]).sum(-1) * 24 / parts


def pairwise(body, angles, strength):
    """Counts of iron excited by zinc: points a third of a voxel apart, the way between them out of the slice, too."""
    sub = (np.arange(N * FINE) + 0.5) / FINE - N / 2
    x, y = np.meshgrid(sub, sub)
    points = lambda image: (look_up(image, x, y) > 0).nonzero()
    (sy, sx), (ty, tx) = ((sub[i], sub[j]) for i, j in (points(body[2]), points(body[1])))
    dx, dy = tx - sx[:, None], ty - sy[:, None]
    between = np.tensordot(LINES[1], body, 1) * STEP
    parts = (np.arange(16) + 0.5) / 16
    mean = sum(look_up(between, sx[:, None] + p * dx, sy[:, None] + p * dy) for p in parts) / len(parts)
    rho = np.maximum(np.hypot(dx, dy), 0.4 / FINE)
    node, weight = np.polynomial.legendre.leggauss(24)
    rises = np.exp(-(mean * rho)[..., None] / np.cos(np.pi / 4 * (node + 1))) @ weight * np.pi / 4
    received = rises / (2 * np.pi * rho) * look_up(body[1], tx, ty)
    counts = np.zeros((len(angles), N))
    for view, angle in enumerate(angles):
        across, along = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        lit = np.exp(-way_out(np.tensordot(BEAM, body, 1) * STEP, sx, sy, -along)) * look_up(body[2], sx, sy)
        iron = np.tensordot(LINES[0], body, 1) * STEP
        out = np.mean([np.exp(-way_out(iron, tx, ty, np.cos(f) * across + np.sin(f) * along)) for f in FAN], 0)
        column = np.floor(sx * across[0] + sy * across[1] + N / 2).astype(int)
        np.add.at(counts[view], np.clip(column, 0, N - 1), strength * STEP**2 * lit * (received @ out) / FINE**4)
    return counts


@pytest.mark.parametrize("absorbed", [0, 1])
def test_counts_are_those_of_all_pairs(absorbed, monkeypatch):
    monkeypatch.setitem(globals(), "LINES", LINES * np.array([[1], [absorbed]]))
    body, angles = discs(), np.arange(VIEWS) * 2 * np.pi / VIEWS
    cast = lambda a: jnp.asarray(a, jnp.float32)
    emission = 0.03 * np.array([[0, 11.0, 0], [0, 0, 17.0]])
    directions = np.stack([np.cos(FAN), np.sin(FAN), 0 * FAN], 1)
    model = dr.models.Fluorescence(
        cast(body[:, None]), cast(np.ones((3, 1, 1, 1))), cast(np.zeros(VIEWS)), cast(np.ones(3)), cast(angles),
        cast(np.ones((VIEWS, 1, N, 3))), cast(emission * STEP), cast(LINES * STEP), cast(BEAM * STEP),
        dr.operators.Escape(directions, np.full((2, 2), 0.5)),
    )  # fmt: skip
    pair = Excitation(2, 0, 1, 17.0 * 44 * 0.03, LINES[1])
    found = np.asarray(secondary_counts(model, [pair], STEP))[:, 0]
    expected = pairwise(body, angles, pair.strength)
    assert not found[..., 1].any()
    # One attenuation for all ways is a tenth off where it matters most; the sum hardly is.
    assert found[..., 0].sum() == pytest.approx(expected.sum(), rel=0.02)
    error = np.linalg.norm(found[..., 0] - expected) / np.linalg.norm(expected)
    assert error < (0.1 if absorbed else 0.03)


def test_light_in_a_block_is_that_of_all_voxels():
    """In vacuum it falls with the square; of a long rod along z a voxel receives 1 / (4 distance)."""
    kernel = excitation_kernel((6, 6, 1), 0.0)
    assert kernel[0, 5, 0] == pytest.approx(1 / 20, rel=0.01)
    deep = excitation_kernel((3, 3, 120), 0.0)
    assert deep[0, 3].sum() == pytest.approx(np.arctan(120 / 3) / (2 * np.pi * 3), rel=0.02)
