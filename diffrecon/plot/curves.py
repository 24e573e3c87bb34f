"""Curves: convergence, correlation of halves, choice of a weight, contrast transfer, scan positions."""

import math
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from .._result import Quantity
from ..errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
from .page import BLUE, DARK, FONT, ORANGE, ArrayLike, Panel, one_panel, page_of, unit_for


def convergence(
    history: Float[ArrayLike, " step"],
    held_out: Float[ArrayLike, "evaluation 2"] | None = None,
    *,
    ax: "Axes | None" = None,
) -> "Figure":
    """Draw the cost of every step, its running median, and the cost of held-out views (pairs of step and cost)."""
    return one_panel(convergence_panel(np.asarray(history, float), held_out), ax)


def ring_correlation(
    result: Any, *, pixel_size: float | None = None, title: str = "", ax: "Axes | None" = None
) -> "Figure":
    """Draw a Fourier ring or shell correlation with its half-bit and one-bit curves, in cycles/pixel and in half
    periods.

    **Arguments:** `result` of `diffrecon.quality.ring_correlation`, or the same as a mapping as it is in a file;
    `pixel_size` [m] where it is not in the result. The vertical line marks the resolution at half-bit.
    """
    return one_panel(ring_panel(result, pixel_size, title), ax)


def l_curve(curve: Any, *, ax: "Axes | None" = None) -> "Figure":
    """Draw what `diffrecon.solvers.l_curve` found: misfit against size for regularisation of several strengths; the one
    that was chosen is marked, and so is the misfit that noise alone would leave.
    """
    misfit, size, factors = (np.asarray(getattr(curve, name), float) for name in ("misfit", "size", "factors"))

    def draw(ax):
        ax.semilogy(misfit, size, color=DARK, linewidth=1.0, marker="o", markersize=2)
        if misfit.max() > 20 * misfit.min():
            ax.set_xscale("log")
        ax.axvline(1.0, color="0.6", linewidth=0.8, linestyle="--")
        middle = int(np.argmin(np.abs(np.log(factors))))
        ax.plot(misfit[middle], size[middle], "o", color=ORANGE, markersize=5)
        for place in (0, middle, len(factors) - 1):
            ax.annotate(
                f"× {factors[place]:.3g}",
                (misfit[place], size[place]),
                (5, -3),
                textcoords="offset points",
                fontsize=FONT - 1,
            )
        ax.margins(x=0.15)
        curve_axes(ax, "misfit / noise", "size / expected", "L-curve")

    return one_panel(Panel(draw, 1.35, 1.0, left=0.6, right=0.25, bottom=0.42), ax)


def transfer_functions(
    setup: Any, *, highest: float | None = None, delta_beta: float = math.inf, path: str | PathLike | None = None
) -> "Figure":
    """Draw contrast transfer functions of a set of distances: of phase, of attenuation, and what all of them show
    together.

    **Arguments:** `setup`: a `diffrecon.regimes.Setup`, or a near-field geometry; `highest` frequency [1/m], that of
    the finest pixel by default; `delta_beta` of the object in the third panel, `inf` = pure phase; `path` where it is
    saved. Half periods are on top; the line at a tenth is what `diffrecon inspect` calls seen.
    """
    from .. import regimes

    setup = setup if isinstance(setup, regimes.Setup) else regimes.Setup.of(setup)
    top = highest or setup.nyquist
    turns = setup.wavelength * setup.distances.max() * top**2
    frequency = np.linspace(0, top, int(np.clip(16 * turns, 1000, 20000)))[1:]
    phase, attenuation = regimes.transfer(frequency, setup)
    total = np.sqrt(regimes.phase_information(frequency, setup, delta_beta) / (4 * setup.fluence.sum()))
    curves = [
        ("of a phase of 1 rad", phase),
        ("of an attenuation of 1", attenuation),
        ("all distances, root mean square, over a perfect one", total[None]),
    ]
    page = page_of([[_transfer_panel(frequency, values, setup.distances, title)] for title, values in curves])
    if path is not None:
        page.savefig(path)
    return page


def _transfer_panel(frequency: np.ndarray, curves: np.ndarray, distances: np.ndarray, title: str) -> "Panel":
    def draw(ax):
        micro = frequency * 1e-6
        single = len(curves) == 1
        shades = [DARK] if single else [str(g) for g in np.linspace(0.0, 0.72, len(curves))]
        if 1 < len(curves) <= 4:
            shades = [DARK, BLUE, ORANGE, "0.65"][: len(curves)]
        # A narrow line for each; where fringes are finer than the page can show, the envelope remains.
        for values, shade in zip(curves, shades, strict=True):
            ax.plot(micro, values, color=shade, linewidth=0.8)
        ax.axhline(0.1 if single else 0.0, color="0.6", linewidth=0.5, linestyle="--" if single else "-", zorder=0)
        ax.set(xlim=(0, micro[-1]), ylim=(0, 1.03) if single else (-2.1, 2.1))
        curve_axes(ax, "spatial frequency [1/µm]", "transfer" if single else "contrast", "")
        ax.set_title(title, fontsize=FONT + 1, loc="left", pad=26)
        _half_period_axis(ax, 0.5 / frequency[-1])
        if len(curves) > 1 or len(distances) == 1:
            exponent, unit = unit_for("m", float(distances.max()))
            names = [f"{d / 10.0**exponent:.3g} {unit}" for d in distances]
            ax.annotate("D = ", (1.005, 1.0), fontsize=FONT, xycoords="axes fraction", va="top")
            for number, (name, shade) in enumerate(zip(names[:8], shades, strict=False)):
                ax.annotate(
                    name,
                    (1.005, 1.0),
                    (0, -11 * (number + 1)),
                    "axes fraction",
                    "offset points",
                    color=shade,
                    fontsize=FONT,
                    va="top",
                )

    return Panel(draw, 4.4, 1.0, left=0.5, right=0.72, bottom=0.4, top=0.6)


def convergence_panel(history: np.ndarray, held_out: Any) -> Panel:
    held = np.asarray(() if held_out is None else held_out, float).reshape(-1, 2)

    def draw(ax):
        steps = np.arange(1, history.size + 1)
        many = history.size > 100
        ax.plot(steps, history, color="0.75" if many else DARK, linewidth=0.5 if many else 1.0)
        if many:
            ax.plot(*_running_median(steps, history), color=DARK, linewidth=1.2)
        if len(held):
            ax.plot(held[:, 0], held[:, 1], color=ORANGE, linewidth=1.2, marker="o", markersize=2)
        values = np.concatenate([history, held[:, 1]])
        values = values[np.isfinite(values)]
        if values.size and values.min() > 0 and values.max() / values.min() > 5:
            _plain_logarithm(ax, values)
        curve_axes(ax, "step", "cost", "convergence")
        if len(held):
            _inside_legend(ax, [("fitted", DARK), ("held out", ORANGE)])

    long = np.nanmax(np.abs(history), initial=0.0) >= 1e5  # numbers that take more room
    return Panel(draw, 1.35, 1.0, left=0.8 if long else 0.55, right=0.1, bottom=0.42)


def weight_panel(quality: Mapping[str, Any]) -> Panel:
    """Draw what views left out say of the weights of a penalty that were tried; the chosen one is marked."""

    def draw(ax):
        ax.plot(quality["penalty_weights"], quality["held_out_by_weight"], color=ORANGE, marker="o", markersize=2.5)
        ax.axvline(float(quality["penalty_weight"]), color="0.6", linewidth=0.8)
        ax.set_xscale("log")
        curve_axes(ax, "weight of the penalty", "residual of views held out", "choice of the weight")

    return Panel(draw, 1.35, 1.0, left=0.6, right=0.1, bottom=0.42)


def ring_panel(result: Any, pixel_size: float | None, title: str) -> Panel:
    def get(name: str) -> Any:
        return result.get(name) if isinstance(result, Mapping) else getattr(result, name, None)

    if get("frequency") is None or get("correlation") is None:
        raise InputError("a ring correlation needs frequency, correlation, half_bit and one_bit")
    frequency, crossing = np.asarray(get("frequency"), float), get("crossing")
    pixel = pixel_size or get("pixel_size")
    if pixel is None and get("resolution_m") is not None:
        pixel = float(get("resolution_m")) / float(get("half_period_pixels"))

    def draw(ax):
        ax.plot(frequency, get("correlation"), color=DARK, linewidth=1.2)
        ax.plot(frequency, get("half_bit"), color=BLUE, linewidth=1.0)
        ax.plot(frequency, get("one_bit"), color=ORANGE, linewidth=1.0, linestyle="--")
        ax.set(xlim=(0, 0.5), ylim=(min(0.0, float(np.nanmin(get("correlation")))), 1.05))
        curve_axes(ax, "spatial frequency [cycles/pixel]", "correlation", "")
        _half_period_axis(ax, pixel)
        if crossing is not None and crossing < 0.5:
            exponent, unit = (0, "pixels") if pixel is None else unit_for("m", 0.5 * pixel / crossing)
            found = 0.5 / crossing * (1.0 if pixel is None else pixel / 10.0**exponent)
            ax.axvline(float(crossing), color="0.6", linewidth=0.7, zorder=0)
            ax.annotate(f"{found:.3g} {unit}", (crossing, 0.62), (3, 0), textcoords="offset points", fontsize=FONT)
        _inside_legend(ax, [("correlation", DARK), ("half-bit", BLUE), ("one-bit", ORANGE)])
        if title:
            ax.set_title(title, fontsize=FONT + 1, loc="left", pad=30)

    return Panel(draw, 1.35, 1.0, left=0.55, right=0.12, bottom=0.42, top=0.66)


def positions_panel(quantity: Quantity, held_out: Any) -> Panel:
    places = np.asarray(quantity.data, float).reshape(-1, 2)
    exponent, unit = unit_for(quantity.units, np.abs(places - places.mean(0)).max() if places.size else 1.0)
    rows, columns = (places / 10.0**exponent).T

    def draw(ax):
        # The path says the order of a short scan and hides the points of a long one.
        if len(places) <= 250:
            ax.plot(columns, rows, color="0.8", linewidth=0.5, zorder=1)
        ax.scatter(columns, rows, s=4 if len(places) <= 1000 else 1, color=DARK, linewidths=0, zorder=2)
        if held_out is not None and np.size(held_out):
            held = np.asarray(held_out, int)
            ax.scatter(columns[held], rows[held], s=9, color=ORANGE, linewidths=0, zorder=3)
        ax.set_aspect("equal", adjustable="datalim")
        ax.invert_yaxis()
        curve_axes(ax, f"x [{unit}]", f"y [{unit}]", "scan positions")

    return Panel(draw, 1.0, 1.0, left=0.55, right=0.1, bottom=0.42)


def curve_axes(ax: "Axes", across: str, up: str, title: str) -> None:
    ax.set_xlabel(across, fontsize=FONT, labelpad=2)
    ax.set_ylabel(up, fontsize=FONT, labelpad=2)
    ax.tick_params(labelsize=FONT, length=2.5, width=0.5, which="both")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["bottom", "left"]].set_linewidth(0.5)
    if title:
        ax.set_title(title, fontsize=FONT + 1, loc="left", pad=3)


def _plain_logarithm(ax: "Axes", values: np.ndarray) -> None:
    """A logarithmic axis; numbers 1, 2, 5 written out where a few decades are all there is."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_yscale("log")
    decades = math.log10(values.max() / values.min())
    if decades < 3 and 1e-3 <= values.min() and values.max() < 1e4:
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2 else (1,)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _inside_legend(ax: "Axes", entries: Sequence[tuple[str, str]]) -> None:
    """Names of the curves in their colours, no box."""
    for number, (name, colour) in enumerate(entries):
        ax.annotate(
            name,
            (1, 1),
            (-3, -2 - 11 * number),
            "axes fraction",
            "offset points",
            color=colour,
            fontsize=FONT,
            ha="right",
            va="top",
        )


def _half_period_axis(ax: "Axes", pixel: float | None) -> None:
    """Half periods on top: the finest at the right, in nm, µm ... or in pixels."""
    exponent, unit = (0, "pixel") if pixel is None else unit_for("m", 10 * pixel)
    finest = 1.0 if pixel is None else pixel / 10.0**exponent
    top = ax.twiny()
    top.set_xlim(0, 0.5)
    decade = 10.0 ** math.floor(math.log10(finest))
    shown: list[float] = []
    for candidate in (decade * f for f in (1, 1.2, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 50, 100)):
        place = 0.5 * finest / candidate
        if 0.03 < place <= 0.5 and (not shown or 0.5 * finest / shown[-1] - place > 0.055):
            shown.append(candidate)
    top.set_xticks([0.5 * finest / s for s in shown], [f"{s:g}" for s in shown])
    top.tick_params(labelsize=FONT, length=2.5, width=0.5, pad=1)
    top.set_xlabel(f"half period [{unit}]", fontsize=FONT, labelpad=3)
    for spine in top.spines.values():
        spine.set_linewidth(0.5)


def _running_median(steps: np.ndarray, values: np.ndarray, points: int = 60) -> tuple[np.ndarray, np.ndarray]:
    blocks = np.array_split(np.arange(values.size), min(points, values.size))
    return np.array([steps[b].mean() for b in blocks]), np.array([np.median(values[b]) for b in blocks])


def plan_curve(plan: Any, factors: Sequence[float] | None = None, *, ax: "Axes | None" = None) -> "Figure":
    """Draw the resolution, and what limits it, against the photons of a plan (`diffrecon.planning.plan`).

    **Arguments:** `factors` of the exposure; the plan's own is marked.
    """
    chosen = np.geomspace(0.01, 100, 33) if factors is None else np.asarray(factors, float)
    figures, own = plan.curve(tuple(chosen)), plan.figures()
    exponent, unit = unit_for("m", own.half_period)
    scale = 10.0**-exponent

    def draw(ax):
        photons = [1e-12 * found.fluence for found in figures]
        for name in {"photons", figures[-1].limit}:
            values = [found.limits[name] * scale for found in figures]
            ax.loglog(photons, values, color="0.65", linewidth=0.8)
            ax.annotate(name, (photons[-1], values[-1]), (3, 0), textcoords="offset points", fontsize=FONT, va="center")
        ax.loglog(photons, [found.half_period * scale for found in figures], color=DARK, linewidth=1.2)
        ax.plot(1e-12 * own.fluence, own.half_period * scale, "o", color=ORANGE, markersize=4)
        _plain_logarithm(ax, np.array([found.half_period * scale for found in figures]))
        curve_axes(ax, "photons on the sample [1/µm²]", f"half period [{unit}]", plan.method.name)

    return one_panel(Panel(draw, 1.35, 1.0, left=0.6, right=0.45, bottom=0.42), ax)
