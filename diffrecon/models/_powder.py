"""Powder diffraction of a slice: phases whose amount and lattice change from pixel to pixel, in counts of a scan."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._model import Model
from ..operators import StripProjector
from ._rings import Peaks, Phase, powder_pattern

__all__ = ["PowderBasis", "PowderTomography", "powder_basis"]

_LARGEST = 5e-3  # of a lattice parameter that the basis holds, if it is told no other
_ORDERS, _DEPTHS, _RANK = 12, 5, 8  # Chebyshev polynomials of strain and depth, patterns that span a phase, for these


class PowderBasis(Model):
    """Patterns that span what strain and depth make of a phase, and the polynomials that weigh them.

    **Fields:** `patterns` `(phase, rank, channel)` [1/step]; `weights` `(phase, order, depth, rank)` of Chebyshev
    polynomials of strain and depth; `amorphous` `(other, channel)`; `largest` change of a lattice parameter.
    """

    patterns: Float[Array, "phase rank channel"]
    weights: Float[Array, "phase order depth rank"]
    amorphous: Float[Array, "other channel"]
    largest: float = eqx.field(static=True, default=_LARGEST)


def powder_basis(
    phases: Mapping[str, Phase], two_theta: Any, wavelength: float, peaks: Peaks, step: float, reach: float,
    amorphous: Any, largest: float = _LARGEST,
) -> PowderBasis:  # fmt: skip
    """Compress the patterns of every phase over all strains and depths (singular values), in float64.

    **Arguments:** `step` of the scan [m]; `reach`: largest depth over the distance of the detector, 0 without parallax;
    `largest` change of a lattice parameter: the farther peaks move, the more patterns are needed.
    """
    depths, times = _DEPTHS if reach else 1, int(np.ceil(round(largest / _LARGEST, 6)))
    orders, most = _ORDERS * times, _RANK * times
    strain, depth = (np.cos(np.pi * (np.arange(n) + 0.5) / n) for n in (orders, depths))
    patterns, weights = [], []
    for number, phase in enumerate(phases.values()):
        sized = dataclasses.replace(phase, size=phase.size * (peaks.sizes[number] if peaks.sizes else 1.0))
        at = lambda s, t, p=sized: powder_pattern(p, two_theta, wavelength, peaks, 1 + largest * s, reach * t)
        table = np.stack([at(s, t) for s in strain for t in depth])
        left, values, right = np.linalg.svd(table, full_matrices=False)
        rank = min(most, len(values))
        spread = (left[:, :rank] * values[:rank]).reshape(orders, depths, rank)
        both = np.einsum("sa,tb,str->abr", _chebyshev(strain, orders), _chebyshev(depth, depths), spread)
        both = both * 4 / (orders * depths)
        both[0] /= 2
        both[:, 0] /= 2
        fill = most - rank
        patterns.append(np.pad(right[:rank] * step, ((0, fill), (0, 0))))
        weights.append(np.pad(both, ((0, 0), (0, 0), (0, fill))))
    cast = lambda a: jnp.asarray(a, jnp.zeros(()).dtype)
    some = np.reshape(patterns, (len(phases), most, len(two_theta)))  # also where there are no phases
    return PowderBasis(
        cast(some),
        cast(np.reshape(weights, (len(phases), orders, depths, most))),
        cast(np.asarray(amorphous) * step),
        largest,
    )


def _chebyshev(x: Any, orders: int, xp: Any = np) -> Any:
    """Chebyshev polynomials, last axis the order."""
    found = [xp.ones_like(x), x]
    while len(found) < orders:
        found.append(2 * x * found[-1] - found[-2])
    return xp.stack(found[:orders], -1)


class PowderTomography(Model):
    """Expected counts of every point and channel: photons x solid angle x (what the ray scatters + the empty beam).

    **Fields:** `fractions` `(phase + other, pixel)`, volume fractions and the amounts of what is amorphous; `strains`
    `(phase, pixel)` [1e-3] of the lattice parameters; `basis`; `between` `(node, channel)`: how the absorption of a
    channel is interpolated; `depths` `(view, pixel)` over the reach, `None` without parallax; `light` `(view, u,
    channel)`, photons x solid angle; `background` `(channel,)` [1/sr a photon]; `courses` `(view, knot)` of a sample
    that changes: `fractions` and `strains` are then those at the knots in time, their first axis, and every view has
    its own mixture of them.
    """

    fractions: Float[Array, "*knot component pixel"]
    strains: Float[Array, "*knot phase pixel"]
    basis: PowderBasis
    projector: StripProjector
    between: Float[Array, "node channel"]
    depths: Float[Array, "view pixel"] | None
    light: Float[Array, "view u channel"]
    background: Float[Array, " channel"]
    courses: Float[Array, "view knot"] | None = None

    unknowns: ClassVar[tuple[str, ...]] = ("fractions", "strains")

    def __call__(self, views: Any) -> Float[Array, "view u channel"]:
        """Expected counts of some views."""
        part = self.of_views(views)
        return part.light * (part.scattered() + part.background)

    def of_views(self, views: Any) -> "PowderTomography":
        """Keep some views."""
        views = jnp.asarray(views)
        depths = None if self.depths is None else self.depths[views]
        courses = None if self.courses is None else self.courses[views]
        projector = self.projector.of_views(views)
        return self.replace(projector=projector, depths=depths, light=self.light[views], courses=courses)

    def of_view(self, view: Any) -> "PowderTomography":
        """Keep one view, and the sample as it is then."""
        part = self.of_views(jnp.asarray(view)[None])
        if part.courses is None:
            return part
        fractions, strains = (a[0] for a in part.by_view())
        return part.replace(fractions=fractions, strains=strains, courses=None)

    def within(self, strains: Array) -> Array:
        """Bring strains into the range that the basis holds."""
        most = 0.96e3 * self.basis.largest
        return jnp.clip(strains, -most, most)

    def by_view(self) -> tuple[Float[Array, "*view component pixel"], Float[Array, "*view phase pixel"]]:
        """Give amounts and strains, of every view where they change."""
        if self.courses is None:
            return self.fractions, self.strains
        return jnp.tensordot(self.courses, self.fractions, 1), jnp.tensordot(self.courses, self.strains, 1)

    def scattered(self) -> Float[Array, "view u channel"]:
        """Compute what a ray scatters into a channel [1/sr a photon]: one product over pixels, one over patterns."""
        rays = self.projector(self.maps())
        patterns = jnp.concatenate(
            [self.basis.patterns.reshape(-1, self.basis.patterns.shape[-1]), self.basis.amorphous]
        )
        weighted = self.between[:, None] * patterns
        return jnp.einsum("vjum,jmk->vuk", rays, weighted, precision="high")

    def maps(self) -> Float[Array, "*view map pixel"]:
        """Amounts of the patterns of the basis in every pixel (and view, with parallax or in time)."""
        fractions, strains = self.by_view()
        count = strains.shape[-2]
        weights = self.basis.weights
        placed = jnp.clip(strains * 1e-3 / self.basis.largest, -1, 1)
        strain = jnp.moveaxis(_chebyshev(placed, weights.shape[1], jnp), -1, -2)
        amount = strain * fractions[..., :count, None, :]
        others = fractions[..., count:, :]
        if self.depths is None:
            amounts = jnp.einsum("par,...pan->...prn", weights[:, :, 0], amount)
        else:
            depth = jnp.moveaxis(_chebyshev(self.depths, weights.shape[2], jnp), -1, 1)
            by_depth = jnp.einsum("pabr,...pan->...bprn", weights, amount)
            view = "v" if by_depth.ndim > 4 else ""
            amounts = jnp.einsum(f"vbn,{view}bprn->vprn", depth, by_depth)
            others = jnp.broadcast_to(others, (len(self.depths), *others.shape[-2:]))
        flat = amounts.reshape(*amounts.shape[:-3], -1, amounts.shape[-1])
        return jnp.concatenate([flat, others], -2)
