"""How well photons determine the unknowns of a model: Fisher information, error bars, resolution to expect.

With a prediction `I(x)` and independent noise of variance `V`, the Fisher information of the unknowns is
`F = J' diag(1/V) J`, `J = dI/dx` (Poisson: V = I). No unbiased reconstruction has a smaller covariance than its inverse
(Cramer & Rao), and maximum likelihood reaches it where photons are many. `F` is never stored: products with it take one
pass forward and one back through the model, so that any differentiable model has error bars. They hold photon noise
only: not what the model does not describe, nor what a prior adds.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree
from numpy.typing import ArrayLike

from ._model import Batch, Model
from .errors import InputError
from .quality import RingCorrelation, threshold
from .quality.correlation import centred, crossing_of, ring_sums
from .quality.registration import cosine_window
from .solvers.conjugate_gradients import conjugate_gradients, inner
from .solvers.descent.blocks import Blocks, conjugate, scaling, weighted_rows
from .solvers.descent.unknowns import Unknowns

__all__ = [
    "Fisher",
    "expected_correlation",
    "fisher_information",
    "phase_error_image",
    "phase_noise",
    "predicted_resolution",
]

# Predicted counts below this carry no more information than this many would: as in `losses.poisson`.
_FLOOR = 1e-3


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The prediction in units of its noise; compiled in, hence hashable. Its Jacobian J has `F = J'J`."""

    predict: Callable[[Any, Any], Array]
    deviation: float | None  # of Gaussian noise; `None`: Poisson

    def __call__(self, model: Any, batch: Batch) -> Array:
        predicted = self.predict(model, batch.views)
        variance = jnp.maximum(predicted, _FLOOR) if self.deviation is None else jnp.asarray(self.deviation**2)
        weight = jnp.broadcast_to(jax.lax.rsqrt(variance.astype(predicted.dtype)), predicted.shape)
        if batch.mask is not None:
            weight = jnp.where(batch.mask, weight, 0.0)
            predicted = jnp.where(batch.mask, predicted, 0.0)
        return predicted * jax.lax.stop_gradient(weight)


def _call(model: Any, views: Any) -> Array:
    return model(views)


class Fisher(eqx.Module):
    """Fisher information of some unknowns, as a linear map; `fisher_information` makes it.

    Vectors are pytrees like `unknowns`: the model with `None` where it is fixed. A complex unknown counts as two real
    ones, its real and its imaginary part, and `F z` is the derivative `d/dx + i d/dy`.
    """

    unknowns: PyTree
    fixed: PyTree
    blocks: Blocks
    rows: _Rows = eqx.field(static=True)

    def product(self, direction: PyTree) -> PyTree:
        """Multiply `F` and a direction (a pytree like `unknowns`); twice the cost of a gradient over all views."""
        return _product(self, direction)

    def diagonal(self, probes: int = 16, seed: int = 0) -> PyTree:
        """Estimate the diagonal of `F` by Hutchinson's random signs `s`: the mean of `s * (F s)` over `probes`.

        Of a complex unknown: information on its real part, plus i times that on its imaginary part. One entry is off by
        `sqrt(2 sum_q F_pq^2 / probes)`, q != p, and may be negative where there is hardly any light.
        """
        return _diagonal(self, seed, probes)

    def solve(self, right: PyTree, *, steps: int = 60, damping: float = 1e-3, tolerance: float = 1e-4) -> PyTree:
        """Multiply `(F + damping D)^-1` and a vector by conjugate gradients, D = diagonal of `F`.

        The damping holds what the data cannot tell (a phase added to the object and taken from the probe), and lowers
        bars of what they hardly tell: those beyond about `1/sqrt(damping)` of the diagonal's.
        `tolerance` = norm of the residual over that of `right` at which the iterations end.
        """
        return _solve(self, right, _scale(self), jnp.asarray(steps), damping, tolerance)

    def error_bar(
        self, quantity: Callable[[Any], Array], *, steps: int = 100, damping: float = 1e-3, tolerance: float = 1e-4
    ) -> Float[Array, "..."]:
        """Compute the standard deviation of a quantity (scalar or array) of the model, in the units of the quantity.

        `sqrt(g' F^-1 g)` with its gradient g: correlations with all other unknowns are in it (delta method). What the
        data cannot tell at all stays where the damping holds it and is not in the bar. One `solve` for each entry.

        ```python
        spread = information.error_bar(lambda model: jnp.angle(model.object[40, 40]))
        ```
        """
        value, pull = jax.vjp(lambda free: jnp.asarray(quantity(eqx.combine(free, self.fixed))), self.unknowns)
        if jnp.iscomplexobj(value):
            raise InputError("error_bar: a complex quantity has two bars; give its phase, modulus, real part, ...")
        scale = _scale(self)

        def variance(index: int) -> Array:
            gradient = conjugate(pull(jnp.zeros(value.size, value.dtype).at[index].set(1).reshape(value.shape))[0])
            solved = _solve(self, gradient, scale, jnp.asarray(steps), damping, tolerance)
            return inner(solved, _product(self, solved))

        return jnp.sqrt(jnp.stack([variance(i) for i in range(value.size)]).reshape(value.shape))

    def draws(
        self,
        count: int = 8,
        *,
        steps: int = 60,
        damping: float = 1e-3,
        seed: int = 0,
        inverse_powers: Mapping[str, Any] | None = None,
    ) -> PyTree:
        """Draw errors of the unknowns, as repeated measurements would have them, from the whole `F^-1`; `(draw, ...)`.

        Each solves `F x = J' V^-1/2 w`, w normal. Their spread is the error bar with all correlations (off by
        `1/sqrt(2 count)` of itself), their spectra those of the noise. With `inverse_powers` it is `(F + P) x`, as a
        reconstruction with a Gaussian prior solves it: for each real image that is named, one over the prior's power
        at every frequency of `rfft2(image, norm="ortho")`. Cost: `steps` products each.

        **Raises:** `InputError` for a prior of what is no unknown, or of another shape.
        """
        keys = jax.random.split(jax.random.key(seed), count)
        prior = {name: _prior_of(self.unknowns, name, power) for name, power in (inverse_powers or {}).items()}
        return _draws(self, keys, _scale(self), jnp.asarray(steps), damping, prior)


def fisher_information(
    model: Any,
    views: Any,
    *,
    unknowns: Any = None,
    noise: str | float = "poisson",
    mask: Any = None,
    predict: Callable[[Any, Any], Array] = _call,
    block_size: int = 16,
) -> Fisher:
    """Make the Fisher information of the unknowns of a model.

    **Arguments:** `model`, best where it fits the data; `views`: how many, or their indices `(view,)`: those that were
    fitted; `unknowns` as in `minimise` (the model's own by default): what is not named counts as known; `noise`:
    "poisson" or the standard deviation [as the prediction] of Gaussian noise; `mask` (True = measured), `(y, x)` for
    all or `(view, y, x)`; `predict`: a function `(model, views) -> (view, ...)`, the model's call by default;
    `block_size` views are worked on at a time, so that memory does not grow with the scan.

    **Raises:** `InputError` for no views, or noise that is neither.

    ```python
    class Mean(dr.Model):
        value: jax.Array
        def __call__(self, views):
            return jnp.full((len(views), 1), 1.0) * self.value

    information = fisher_information(Mean(jnp.asarray(3.0)), 50, noise=0.5)
    assert abs(information.error_bar(lambda m: m.value) - 0.5 / 50**0.5) < 1e-4
    ```
    """
    views = np.arange(views) if np.ndim(views) == 0 else np.asarray(views)
    if views.size == 0:
        raise InputError("fisher_information: no views, no information; give how many there are, or their indices")
    if noise != "poisson" and (isinstance(noise, str) or not 0 < float(noise) < np.inf):
        raise InputError(f'fisher_information: noise = {noise!r}: give "poisson" or a positive standard deviation')
    model, chosen = Unknowns.choose(model, unknowns)
    free, fixed = eqx.partition(model, chosen.mask)
    # The number of a view in the list is what cuts views into blocks; a mask for each of them is cut alike.
    each = {"place": np.arange(views.size)}
    shared = {}
    if mask is not None:
        mask = np.asarray(mask, bool)
        (each if mask.ndim == 3 else shared)["mask"] = mask[views] if mask.ndim == 3 else jnp.asarray(mask)
    blocks = Blocks.make((each, shared), views, block_size)
    deviation = None if isinstance(noise, str) else float(noise)
    return Fisher(free, fixed, blocks, _Rows(predict, deviation))


# ---------------------------------------------------------------------------------------------------- phases
class _PhaseChange(Model):
    """A model whose one unknown is an image added to the phase [rad] of its object."""

    change: Float[Array, "*slice Y X"]
    model: Any

    def __call__(self, views: Any) -> Array:
        model = self.model
        if hasattr(model, "phase"):
            return model.replace(phase=model.phase + self.change)(views)
        refractive = getattr(model, "refractive", False)
        turned = model.object + self.change if refractive else model.object * jnp.exp(1j * self.change)
        return model.replace(object=turned)(views)


def phase_error_image(
    model: Any,
    views: Any,
    *,
    noise: str | float = "poisson",
    mask: Any = None,
    block_size: int = 16,
    probes: int = 16,
    seed: int = 0,
) -> Float[np.ndarray, "*slice Y X"]:
    """Compute the error bar of the object's phase [rad] in every pixel by photon noise, were everything else known:
    `1/sqrt(F_pp)`.

    A lower bound: errors shared with neighbouring pixels, the probe and the positions are left out. `phase_noise` has
    them: 1.24 times as much for a near-field scan of 36 overlapping views with all else known, 1.35 times with an
    unknown probe, 1.41 times with unknown positions too (rms of 16 draws, `steps=100`, in the middle of the field).
    Four probes estimate the bar to 5 %.
    Infinite where no light came. Models with an `object` (transmission, or phase + i B) or a `phase`. Other arguments
    as in `fisher_information`. Cost: `probes` times two gradients over all views.

    ```python
    bars = phase_error_image(model, 64, probes=8)
    ```
    """
    like = model.phase if hasattr(model, "phase") else model.object
    wrapped = _PhaseChange(jnp.asarray(np.zeros(like.shape, np.zeros(0, like.dtype).real.dtype)), model)
    information = fisher_information(
        wrapped, views, unknowns=("change",), noise=noise, mask=mask, block_size=block_size
    )
    diagonal = np.asarray(information.diagonal(probes, seed).change)
    return np.where(diagonal > 1e-6 * diagonal.max(), 1 / np.sqrt(np.maximum(diagonal, 1e-30)), np.inf)


def phase_noise(
    model: Any,
    views: Any,
    *,
    unknowns: Any = None,
    noise: str | float = "poisson",
    mask: Any = None,
    block_size: int = 16,
    draws: int = 8,
    steps: int = 60,
    damping: float = 1e-3,
    seed: int = 0,
    inverse_powers: Mapping[str, Any] | None = None,
) -> Float[Array, "draw *slice Y X"]:
    """Draw errors of the object's phase [rad] as repeated measurements would have them, with all correlations.

    Their root mean square over draws is the whole error bar (to `1/sqrt(2 draws)` of itself), constant and ramps that
    probe and object share included, as far as `damping` lets them. Arguments as in `Fisher.draws` and
    `fisher_information`. Cost: `draws * steps` times two gradients over all views.

    Holograms tell hardly anything of the lowest frequencies and of those where all transfer functions vanish: there
    the bar is what the prior of the reconstruction leaves of the noise. Give that prior as `inverse_powers` and a small
    `damping`; `phase_error_image`, which takes all other pixels as known, is too low for them.
    """
    information = fisher_information(model, views, unknowns=unknowns, noise=noise, mask=mask, block_size=block_size)
    errors = information.draws(draws, steps=steps, damping=damping, seed=seed, inverse_powers=inverse_powers)
    return _image_errors(information, _phase, errors)


def predicted_resolution(
    model: Any,
    views: Any,
    *,
    region: tuple[slice, slice] | None = None,
    pixel_size: float | None = None,
    halves: bool = True,
    noiseless: bool = False,
    unknowns: Any = None,
    noise: str | float = "poisson",
    mask: Any = None,
    block_size: int = 16,
    draws: int = 4,
    steps: int = 60,
    damping: float = 1e-3,
    seed: int = 0,
) -> RingCorrelation:
    """Predict the ring correlation to expect from photon noise alone: where the object's spectrum meets that of its
    errors.

    With signal power S and noise power N of the whole dose in a ring, two halves of the dose correlate as
    `S / (S + 2 N)`; a reconstruction and the truth, `halves=False`, as `sqrt(S / (S + N))`. N comes from `draws` of the
    errors of the complex transmission, its constant phase and ramp removed; S from the model's own transmission, less N
    unless it is `noiseless`.

    **Arguments:** `region`: rows and columns that are well lit (the whole image by default); `pixel_size` [m]; the rest
    as in `phase_noise`. Detector, positions and coherence can only make it worse.

    **Returns:** a `diffrecon.quality.RingCorrelation`; as text the resolution in words.
    """
    information = fisher_information(model, views, unknowns=unknowns, noise=noise, mask=mask, block_size=block_size)
    image = np.asarray(_transmission(model))
    errors = np.asarray(
        _image_errors(information, _transmission, information.draws(draws, steps=steps, damping=damping, seed=seed))
    )
    region = region or (slice(None), slice(None))
    return expected_correlation(
        image[region], errors[(slice(None), *region)], halves=halves, noiseless=noiseless, pixel_size=pixel_size
    )


def _phase(model: Any) -> Array:
    """Phase [rad] of the object's transmission."""
    if hasattr(model, "phase"):
        return model.phase
    return model.object.real if getattr(model, "refractive", False) else jnp.angle(model.object)


def _transmission(model: Any) -> Array:
    """The complex transmission, of all slices together."""
    whole = model.transmission()
    return whole if whole.ndim == 2 else jnp.prod(whole, axis=0)


def expected_correlation(
    image: ArrayLike,
    errors: ArrayLike,
    *,
    halves: bool = True,
    noiseless: bool = False,
    pixel_size: float | None = None,
) -> RingCorrelation:
    """Compute the ring correlation that the spectra of a complex image `(y, x)` and of its errors `(draw, y, x)` make
    one expect.

    Arguments as in `predicted_resolution`, which takes the errors from a model. They are those of the whole dose;
    errors of N times the dose are smaller by the root of N.
    """
    image, errors = np.asarray(image), np.asarray(errors)
    window = cosine_window(image.shape, 0.25)
    count = min(image.shape) // 2 + 1

    def power(values: np.ndarray) -> np.ndarray:
        spectrum = np.fft.fft2(centred(values, window))
        return ring_sums(spectrum, spectrum, image.shape, count, False)[[1, 3]]

    signal, samples = power(image)
    noise = np.mean([power(_aligned(image, error, window))[0] for error in errors], axis=0)
    signal = signal if noiseless else np.maximum(signal - noise, 0)
    share = signal / np.maximum(signal + (2 if halves else 1) * noise, np.finfo(float).tiny)
    correlation = (share if halves else np.sqrt(share))[1:]
    samples = np.maximum(samples * (window**2).sum() ** 2 / (window.size * (window**4).sum()), 1.0)[1:]
    frequency = np.arange(1, count) / min(image.shape)
    crossing = crossing_of(frequency, correlation - threshold(samples, 0.5))
    return RingCorrelation(
        frequency,
        correlation,
        threshold(samples, 0.5),
        threshold(samples, 1.0),
        samples,
        crossing,
        (0.0, 0.0),
        pixel_size,
    )


def _aligned(image: np.ndarray, error: np.ndarray, window: np.ndarray) -> np.ndarray:
    """An error without what `quality.align` would remove: a constant factor, a ramp of the phase, a shift."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in image.shape), indexing="ij")
    free = np.stack([image, 1j * image, 1j * image * y, 1j * image * x, *np.gradient(image)])
    reals = lambda values: np.concatenate([np.real(values * window), np.imag(values * window)], -1)
    shares = np.linalg.lstsq(reals(free).reshape(len(free), -1).T, reals(error).ravel(), rcond=None)[0]
    return error - np.tensordot(shares, free, 1)


# ---------------------------------------------------------------------------------------------------- compiled
def _apply(fisher: Fisher, direction: PyTree) -> PyTree:
    def block(batch, weight):
        rows = lambda free: weighted_rows(fisher.rows, free, fisher.fixed, batch, weight)
        push = jax.jvp(rows, (fisher.unknowns,), (direction,))[1]
        return jax.vjp(rows, fisher.unknowns)[1](push)[0]

    return conjugate(fisher.blocks.sum(block))


_product = eqx.filter_jit(_apply)


@eqx.filter_jit
def _diagonal(fisher: Fisher, seed: int, probes: int) -> PyTree:
    keys = jax.random.split(jax.random.key(seed), probes)

    def parts(a: Array, b: Array) -> Array:
        return jax.lax.complex(a.real * b.real, a.imag * b.imag) if jnp.iscomplexobj(a) else a * b

    def one(total, key):
        signs = _random(fisher.unknowns, key, jax.random.rademacher)
        return jax.tree.map(lambda t, s, f: t + parts(s, f) / len(keys), total, signs, _apply(fisher, signs)), None

    return jax.lax.scan(one, jax.tree.map(jnp.zeros_like, fisher.unknowns), keys)[0]


def _random(tree: PyTree, key: Array, draw: Callable[..., Array]) -> PyTree:
    """Independent numbers for every entry; real and imaginary parts for complex ones."""

    def leaf(value: Array, key: Array) -> Array:
        both = draw(key, (2, *value.shape), value.real.dtype)
        return jax.lax.complex(*both) if jnp.iscomplexobj(value) else both[0]

    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, map(leaf, leaves, jax.random.split(key, len(leaves))))


def _scale(fisher: Fisher) -> PyTree:
    """About the diagonal, never zero: what preconditions and damps."""
    return scaling((fisher.rows, None), fisher.unknowns, fisher.fixed, fisher.blocks, jax.random.key(7), 8)


def _prior_of(unknowns: PyTree, name: str, power: Any) -> Array:
    """The inverse power of an unknown image's prior, checked."""
    image = getattr(unknowns, name, None)
    if image is None or image.ndim != 2 or jnp.iscomplexobj(image):
        raise InputError(f"inverse_powers: {name!r} is no real image among the unknowns")
    power = jnp.asarray(power, image.dtype)
    if power.shape != (image.shape[0], image.shape[1] // 2 + 1):
        raise InputError(f"inverse_powers: {name} of shape {image.shape} needs a half plane (rfft2), not {power.shape}")
    return power


def _with_prior(product: PyTree, x: PyTree, prior: dict[str, Array]) -> PyTree:
    """A product with `F`, plus that with the precision of a prior that is diagonal in Fourier space."""
    for name, power in prior.items():
        image = getattr(x, name)
        held = jnp.fft.irfft2(jnp.fft.rfft2(image) * power, s=image.shape)
        product = eqx.tree_at(lambda p, name=name: getattr(p, name), product, getattr(product, name) + held)
    return product


def _damped_inverse(
    fisher: Fisher,
    right: PyTree,
    scale: PyTree,
    steps: Array,
    damping,
    tolerance,
    prior: dict[str, Array] | None = None,
) -> PyTree:
    def operator(x: PyTree) -> PyTree:
        product = _with_prior(_apply(fisher, x), x, prior or {})
        return jax.tree.map(lambda f, s, v: f + (damping * s).astype(v.real.dtype) * v, product, scale, x)

    divide = lambda r: jax.tree.map(jnp.divide, r, scale)
    return conjugate_gradients(operator, right, precondition=divide, steps=steps, tolerance=tolerance)[0]


_solve = eqx.filter_jit(_damped_inverse)


@eqx.filter_jit
def _draws(fisher: Fisher, keys: Array, scale: PyTree, steps: Array, damping: float, prior: dict) -> PyTree:
    def one(key: Array) -> PyTree:
        def block(batch, weight):
            rows, pull = jax.vjp(
                lambda free: weighted_rows(fisher.rows, free, fisher.fixed, batch, weight), fisher.unknowns
            )
            own = jax.random.fold_in(key, batch.place[0])
            return pull(jax.random.normal(own, rows.shape, rows.dtype))[0]

        return _damped_inverse(fisher, conjugate(fisher.blocks.sum(block)), scale, steps, damping, 1e-4, prior)

    return jax.lax.map(one, keys)


@eqx.filter_jit
def _image_errors(fisher: Fisher, image: Callable[[Any], Array], errors: PyTree) -> Array:
    """Compute what errors of the unknowns do to an image of the model, to first order; `(draw, ...)`."""
    whole = lambda free: image(eqx.combine(free, fisher.fixed))
    return jax.lax.map(lambda error: jax.jvp(whole, (fisher.unknowns,), (error,))[1], errors)
