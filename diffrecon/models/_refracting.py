"""What all models of a sample that refracts have in common: its images, and the fields that they make."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._model import Model
from ..operators.fourier import blur
from ..solvers.direct.gradients import integrate_gradients
from ..solvers.refraction import Information, RefractionMaps, Transfer, fields_of

__all__ = ["RefractingSample", "TrackedSample", "held_together"]


_LOOSE = 0.1  # of what the pattern tells, at most: what air says must not bend what is measured


class RefractingSample(Model):
    """Unknown images of a sample, and what they do to light.

    **Fields:** `maps`, the unknown images (`solvers.RefractionMaps`); `trust` `(y, x)`, weight of each pixel besides
    its noise.
    """

    maps: RefractionMaps
    trust: eqx.AbstractVar[Float[Array, "y x"]]

    @property
    def transfer(self) -> Transfer:
        """Say how frames see the images."""
        raise NotImplementedError

    @property
    def sharp(self) -> Transfer:
        """Say how a camera would see them that neither blurs nor shears; the same where frames do not."""
        return self.transfer

    def fields(self, sharp: bool = False) -> Float[Array, "4 y x"]:
        """Displacement along rows and columns [pixel], logarithm of the intensity, visibility, as frames see them; or
        as they are, `sharp`.

        Where only columns are measured the displacement along rows is what holds the rows together.
        """
        transfer = self.sharp if sharp else self.transfer
        return fields_of(self.maps, (self.trust.shape[0], self.trust.shape[1]), transfer)

    def __call__(self, views: Any) -> Float[Array, "view y x"]:
        """Expected counts of some views."""
        return jnp.moveaxis(self._predict(views, self.fields())[0], -1, 0)

    def _predict(self, views: Any, fields: Array) -> tuple[Array, list[Any]]:
        """Predict `(y, x, view)`, and its slopes in the four fields."""
        raise NotImplementedError


def held_together(
    found: Information,
    fields: Array,
    tilt: Array,
    across: tuple[float, float] = (0.0, 1.0),
    most: float = _LOOSE,
) -> Information:
    """Let air hold together what a pattern of one direction does not tell: displacements along its lines, which are
    about as large as those `across` (row, column) them nearby, and none in air; by a share of what the pattern tells
    at `most`.
    """
    down, right = across
    told = (jnp.asarray(across, fields.dtype)[:, None] @ jnp.asarray(across, fields.dtype)[None])[:, :, None, None]
    known = jnp.maximum(jnp.median((told * found.hessian[:2, :2]).sum((0, 1))), 1e-12)
    nothing = jnp.maximum(1 / (most * known), 1e-4)
    loose = 1 / jnp.maximum(blur((down * fields[0] + right * fields[1]) ** 2, 4.0), nothing)
    along = jnp.asarray([right, -down], fields.dtype)
    away = jnp.einsum("i,iyx->yx", along, fields[:2] - tilt[:, None, None])
    hessian = found.hessian.at[:2, :2].add(jnp.einsum("i,j,yx->ijyx", along, along, loose))
    gradient = found.gradient.at[:2].add(-jnp.einsum("i,yx->iyx", along, loose * away))
    return found._replace(hessian=hessian, gradient=gradient)


class TrackedSample(Model):
    """What a classical reader says of every pixel, and the images that this makes.

    **Fields:** `maps` (`solvers.RefractionMaps`), whose potential has the slopes that are closest to what was read;
    `tracked` `(4, y, x)`, as it was read: displacement along rows and columns [pixel], logarithm of the intensity,
    visibility.
    """

    maps: RefractionMaps
    tracked: Float[Array, "4 y x"]

    @classmethod
    def of_fields(cls, fields: Float[Any, "4 y x"], good: Any) -> "TrackedSample":
        """Integrate displacements, trusting `good` pixels only."""
        fields = jnp.asarray(fields, jnp.float32)
        empty = RefractionMaps.flat(fields)
        potential = integrate_gradients(fields[0], fields[1], weight=jnp.asarray(good, fields.dtype))
        wide = RefractionMaps.flat(jnp.stack([fields[0], fields[1], potential, fields[3]])).attenuation
        return cls(empty._replace(potential=wide), fields)

    def fields(self, sharp: bool = False) -> Float[Array, "4 y x"]:
        """Give what was read, the same `sharp` or not."""
        return self.tracked

    def __call__(self, views: Any) -> Float[Array, "view y x"]:
        """Say nothing of frames: they were read, not fitted."""
        return jnp.zeros((len(views), *self.tracked.shape[1:]))
