"""Poisson likelihood of the raw counts of a transmission tomogram."""

import time
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ...errors import InputError
from ..ending import Ending, Interrupted
from ..progress import Callback, Progress
from .iterate import Bounds, LinearSolution, first_guess
from .proximal import fista

__all__ = ["transmission"]

_MARGIN = 1.5  # of the curvature of the parabolas over that at the point


def transmission(
    A,
    counts: Float[ArrayLike, "view *z u"],
    flats: ArrayLike,
    darks: ArrayLike = 0.0,
    penalty: Any = None,
    *,
    steps: int = 4,
    inner: int = 60,
    x0: Float[Array, "..."] | None = None,
    mask: ArrayLike | None = None,
    bounds: Bounds = (0.0, None),
    callback: Callback | None = None,
) -> LinearSolution:
    """Most likely volume for counts `~ Poisson(flats exp(-A x) + darks)`, with a penalty, within bounds.

    The likelihood is replaced by a parabola for each datum, of the expected curvature `light^2 / expected counts`
    (Fisher's, with a margin of one half; a line integral moves by 1 at most): least squares with weights, on corrected
    line integrals. `fista` goes down that, and so on. Rays without a single photon are used like all others, whereas
    -log data have to clip them; with few counts (below some 20) the logarithm is also biased. With many counts the
    result is that of weighted least squares. (The likelihood, and parabolas that bound it: Erdogan & Fessler, IEEE
    Trans. Med. Imaging 18, 801 (1999). Theirs never overshoot, and need about three times as many steps.)

    **Arguments:** `counts` as measured; `flats`, the empty beam less the dark, and `darks` [counts], both broadcast to
    the counts; `penalty` as in `fista`, in units of log-likelihood; `steps` parabolas of `inner` steps each; `x0`, by
    default one step of weighted least squares on clipped -log data; `mask`, `True` where measured; `bounds`: line
    integrals should not be negative; `callback` gets a `Progress` (`loss` is the deviance) after each of the `steps`,
    `True` stops.

    **Returns:** a `LinearSolution` whose history is the mean Poisson deviance a datum: about 1 where the model is right
    and counts are above some 5.

    **Cost:** about `steps (inner + 10)` pairs of forward and adjoint.

    **Raises:** `InputError` for negative counts, flats that are nowhere positive, wrong shapes.

    ```python
    A = dr.operators.ParallelProjector(np.linspace(0, np.pi, 30, endpoint=False), (32, 32), 48)
    disc = jnp.asarray(np.hypot(*np.mgrid[-16:16, -16:16]) < 8, jnp.float32) / 8
    counts = np.random.default_rng(0).poisson(50 * np.exp(-A(disc)) + 1)
    solution = transmission(A, counts, 50.0, 1.0, steps=3)
    ```
    """
    if steps < 1:
        raise InputError(f"transmission: steps must be at least 1, got {steps}")
    beam = _Beam.make(counts, flats, darks, mask)
    x = first_guess(A, beam.counts, x0)
    data, weights = beam.logarithm() if x0 is None else beam.parabola(A(x))
    history, message, ended, started = [], "", Ending.DONE, time.monotonic()
    interrupted = None
    try:
        for step in range(1, steps + 1):
            new = fista(A, data, penalty, weights=weights, steps=inner, x0=x, bounds=bounds, normal="exact").x
            image = A(new)
            history.append(beam.deviance(image))
            x, (data, weights) = new, beam.parabola(image)
            report = Progress(step, steps, x, float(history[-1]), seconds=time.monotonic() - started)
            if callback is not None and callback(report) is True:
                message, ended = f"stopped by the callback after step {step}", Ending.STOPPED
                break
    except KeyboardInterrupt as stop:
        if not history:
            raise
        interrupted, message, ended = stop, f"interrupted after step {len(history)}", Ending.INTERRUPTED
    curve = jnp.pad(jnp.stack(history), (0, steps - len(history)), constant_values=jnp.nan)
    solution = LinearSolution(x, curve, jnp.logical_not(jnp.isfinite(history[-1])), None, message, ended)
    if interrupted is not None:
        raise Interrupted(solution) from interrupted
    return solution


class _Beam(eqx.Module):
    """What was counted, and what there was to count. Masked data count nothing."""

    counts: Array
    flats: Array
    darks: Array
    measured: Array

    @classmethod
    def make(cls, counts: ArrayLike, flats: ArrayLike, darks: ArrayLike, mask: ArrayLike | None) -> "_Beam":
        counts = jnp.asarray(counts)
        counts = counts if jnp.issubdtype(counts.dtype, jnp.floating) else counts.astype(jnp.zeros(()).dtype)
        try:
            measured = jnp.broadcast_to(jnp.asarray(True if mask is None else mask, bool), counts.shape)
            flats, darks = (jnp.broadcast_to(jnp.asarray(a, counts.dtype), counts.shape) for a in (flats, darks))
        except ValueError as error:
            raise InputError(f"transmission: flats, darks and mask must fit counts of shape {counts.shape}") from error
        counts = jnp.where(measured, counts, 0)
        if not bool(jnp.all((counts >= 0) & jnp.isfinite(counts))):
            raise InputError("transmission: counts must be finite and not negative: raw ones, with no dark subtracted")
        if not bool(jnp.all((darks >= 0) & jnp.isfinite(flats))) or not bool(jnp.any(flats > 0)):
            raise InputError(
                "transmission: flats must be finite and positive where they are to count, darks positive or 0"
            )
        return cls(counts, flats, darks, measured & (flats > 0))

    def expected(self, image: Array) -> Array:
        """Counts behind line integrals; never quite zero."""
        return jnp.maximum(self.flats * jnp.exp(-image) + self.darks, 1e-6 * jnp.max(self.flats))

    def logarithm(self) -> tuple[Array, Array]:
        """Clipped -log data and their inverse variances: where to begin."""
        net = jnp.clip(self.counts - self.darks, 0.5, None)
        flats = jnp.where(self.measured, self.flats, 1)
        return jnp.log(flats / net), jnp.where(self.measured, net**2 / (net + self.darks), 0)

    @eqx.filter_jit
    def parabola(self, image: Array) -> tuple[Array, Array]:
        """Data and weights of the least squares that stand for the likelihood about these line integrals."""
        image = jnp.maximum(image, 0)
        light = self.flats * jnp.exp(-image)
        now = self.expected(image)
        slope = light * (self.counts / now - 1)
        # The last term keeps the step finite where there is hardly any light
        curvature = jnp.maximum(_MARGIN * light**2 / now, jnp.abs(slope)) + 1e-6 * jnp.max(self.flats)
        weights = jnp.where(self.measured, curvature, 0)
        return jnp.where(self.measured, image - slope / curvature, 0), weights

    @eqx.filter_jit
    def deviance(self, image: Array) -> Float[Array, ""]:
        """Mean over the measured data of twice the log-likelihood's distance from its maximum."""
        now, counts = self.expected(image), self.counts
        each = now - counts + counts * (jnp.log(jnp.where(counts > 0, counts, 1)) - jnp.log(now))
        return 2 * jnp.sum(jnp.where(self.measured, each, 0)) / jnp.maximum(jnp.sum(self.measured), 1)
