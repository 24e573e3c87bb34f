"""Pictures: every image with a scale bar and a colour bar, in sizes and fonts that can go into a paper.

Needs matplotlib (`pip install "diffrecon[plot]"`). Every function returns a matplotlib `Figure` that belongs to no
window and no global state; `figure.savefig("name.png")` writes it at 200 dpi, `figure.axes` are there to go on from.
Functions of one panel take `ax=` to draw into axes that you made yourself.

Arrays are shown as they are indexed: row 0 at the top, column 0 at the left, pixels square. Colours run between robust
percentiles. Grey maps show phase and absorption, cividis magnitudes, a cyclic map phases that go round. Pixels without
a value (NaN) are grey and hatched.

```python
import numpy as np
import diffrecon as dr

figure = dr.plot.image(np.random.rand(64, 64), pixel_size=50e-9, units="rad", title="phase")
```
"""

import dataclasses
import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Num

from ._optional import require
from ._result import Quantity, Result
from .errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A plain union: the ArrayLike of numpy >= 2.5 is an alias that jaxtyping cannot subscript.
ArrayLike = np.ndarray | Array

__all__ = [
    "axes_drawing",
    "complex_image",
    "convergence",
    "figure",
    "image",
    "l_curve",
    "orientation",
    "probe_modes",
    "ring_correlation",
    "sinogram",
    "slices",
    "transfer_functions",
]

PAGE = 7.2  # [inch] both columns of a journal page
COLUMN = 3.5  # [inch] one column
DPI = 200
FONT = 8  # [pt] at final size
GREY, MAGNITUDE, CYCLIC = "gray", "cividis", "twilight"
# Blue, orange, dark grey: told apart with every kind of colour vision and in grey print.
BLUE, ORANGE, DARK = "#0072b2", "#d55e00", "#333333"
_PREFIXES = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G"}
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


# ---------------------------------------------------------------------- a result on one page
def figure(result: Result, path: str | PathLike | None = None) -> "Figure":
    """One page that tells the story of a result: its pictures, how it converged, and the verdict in words.

    **Arguments:** `result` from `diffrecon.reconstruct` or `diffrecon.read_result`; `path` where it is saved (the
    ending says the format: png, pdf, svg), `None` = not saved.

    What is shown follows the `kind` of each quantity. A complex object is cropped to where it was seen when the result
    says so by a `phase` with NaN elsewhere. Images that are constant are left out.

    **Raises:** `MissingPackage` without matplotlib; `InputError` when nothing in the result can be drawn.
    """
    rows = _story(result)
    if not rows:
        raise InputError(f"the result of {result.method} has no quantity or curve that can be drawn")
    page = _page(rows, title=_headline(result.method), words=result.verdict)
    if path is not None:
        page.savefig(path)
    return page


def _headline(method: str) -> str:
    name = method.replace("-", " ")
    for known in ("near-field", "far-field", "K-edge", "SAXS", "CDI"):
        name = name.replace(known.lower().replace("-", " "), known)
    return name[:1].upper() + name[1:]


def _story(result: Result) -> "list[list[_Panel]]":
    """Rows of panels: what was reconstructed first, what explains it after, how well it went last."""
    left = dict(result.quantities)
    rows: list[list[_Panel]] = []
    for name, quantity in result.quantities.items():
        if quantity.kind == "complex" and np.ndim(quantity.data) == 2:
            del left[name]
            rows.append(_object_row(quantity, left))
    flow: list[_Panel] = []
    for kind in ("orientation", "volume", "modes"):
        for name in [n for n, q in left.items() if q.kind == kind]:
            row = _quantity_row(name, left.pop(name))
            # A single mode and its colour wheel leave room for other panels beside them.
            (flow.extend if len(row) < 3 else rows.append)(row)  # pyright: ignore
    flow += [p for n, q in left.items() if q.kind == "image" for p in _image_panels(n, q)][:6]
    return rows + _flow([*flow, *_curve_panels(result, left)])


def _flow(panels: "Sequence[_Panel]", height: float = 1.45) -> "list[list[_Panel]]":
    """Panels in order, equally high, in as few rows as the page allows at about this height [inch]; the rows hold
    equally many where that is as wide."""
    panels = [dataclasses.replace(p, width=p.width / p.height, height=1.0, like_neighbours=True) for p in panels]
    wide = lambda row: sum(p.left + p.right + height * p.width for p in row)
    rows: list[list[_Panel]] = []
    for panel in panels:
        if not rows or wide([*rows[-1], panel]) > PAGE:
            rows.append([])
        rows[-1].append(panel)
    many = -(-len(panels) // max(len(rows), 1))
    even = [panels[start : start + many] for start in range(0, len(panels), max(many, 1))]
    return even if len(even) == len(rows) and all(wide(row) <= PAGE for row in even) else rows


def _object_row(quantity: Quantity, left: dict[str, Quantity]) -> "list[_Panel]":
    """Phase and modulus of an object; the masked phase of the result, where it has one, replaces the plain one."""
    data, phase = np.asarray(quantity.data), left.get("phase")
    seen = None
    if phase is not None and phase.kind == "image" and np.shape(phase.data) == data.shape:
        seen = np.isfinite(phase.data)
        del left["phase"]
    seen = _drawable(data) if seen is None or not seen.any() else seen
    shown = np.where(seen, data, np.nan)[_box(seen)]
    given = None if phase is None or np.shape(phase.data) != data.shape else np.asarray(phase.data)[_box(seen)]
    return _complex_panels(shown, quantity.pixel_size, phase=given)


def _quantity_row(name: str, quantity: Quantity) -> "list[_Panel]":
    data, label = np.asarray(quantity.data), quantity.long_name or name.replace("_", " ")
    if quantity.kind == "modes":
        return _mode_panels(data.reshape(-1, *data.shape[-2:]), quantity.pixel_size)
    if quantity.kind == "orientation":
        return _orientation_panels(data, None, None, quantity.pixel_size, label)
    return _slice_panels(data, quantity.pixel_size, quantity.units, label, None, _colours_for(quantity.units))


def _colours_for(units: str) -> str:
    """Grey for what is read like a radiograph, cividis for amounts: counts, concentrations, lengths."""
    return GREY if units in ("", "rad", "1/m") else MAGNITUDE


def _image_panels(name: str, quantity: Quantity) -> "list[_Panel]":
    data, label = np.asarray(quantity.data), quantity.long_name or name.replace("_", " ")
    if data.ndim != 2 or np.iscomplexobj(data) or not data.size or np.nanmax(data) == np.nanmin(data):
        return []
    if quantity.axes and quantity.axes[0] in ("view", "angle"):
        return [_sinogram_panel(data, None, quantity.pixel_size, quantity.units, label)]
    shown = data[_box(_drawable(data))]
    return [_image_panel(shown, quantity.pixel_size, quantity.units, label, None, _colours_for(quantity.units))]


def _curve_panels(result: Result, quantities: Mapping[str, Quantity]) -> "list[_Panel]":
    panels, quality = [], result.quality
    history = np.asarray(quality.get("history", ()), float)
    if history.ndim == 1 and history.size > 1:
        panels.append(_convergence_panel(history, quality.get("held_out_history")))
    if "penalty_weights" in quality and np.size(quality["penalty_weights"]) > 1:
        panels.append(_weight_panel(quality))
    for name, figures in [("ring correlation", quality), *quality.items()]:
        if isinstance(figures, Mapping) and "correlation" in figures and "frequency" in figures:
            panels.append(_ring_panel(figures, None, name.replace("_", " ")))
    for quantity in quantities.values():
        if quantity.kind == "positions":
            panels.append(_positions_panel(quantity, quality.get("held_out_views")))
    return panels


# ---------------------------------------------------------------------- one kind of picture each
def image(
    array: Num[ArrayLike, "y x"],
    *,
    pixel_size: float | None = None,
    units: str = "",
    title: str = "",
    label: str = "",
    limits: tuple[float, float] | None = None,
    colours: str = GREY,
    ax: "Axes | None" = None,
) -> "Figure":
    """A real image in grey with scale bar and colour bar.

    **Arguments:** `array` `(y, x)`, NaN = not seen; `pixel_size` [m], `None` = lengths in pixels; `units` of values and
    `label` = what they are, for the colour bar; `limits` of the colours, else the percentiles 0.5 and 99.5; `colours` a
    matplotlib colour map (`"gray"` for phase and absorption, `"cividis"` for magnitudes).

    **Raises:** `InputError` for anything but a real array of two axes.

    ```python
    figure = dr.plot.image(np.random.rand(64, 64), pixel_size=50e-9, units="rad", title="phase")
    ```
    """
    return _one(_image_panel(array, pixel_size, units, title, limits, colours, label), ax)


def complex_image(
    obj: Complex[ArrayLike, "y x"],
    *,
    pixel_size: float | None = None,
    seen: Bool[ArrayLike, "y x"] | None = None,
    title: str = "",
) -> "Figure":
    """Phase [rad] and modulus of a complex image side by side.

    **Arguments:** `obj` `(y, x)`, NaN = not seen; `pixel_size` [m]; `seen` `(y, x)`, False = hatched, left out of
    the choice of colours. A phase that spans the whole circle gets a cyclic map over 2 pi, else grey; it is not
    unwrapped, but its branch is chosen so that the mean phase does not sit at a jump.

    **Raises:** `InputError` for anything but an array of two axes.
    """
    data = _array(obj, 2, "a complex image")
    if seen is not None:
        data = np.where(np.asarray(seen, bool), data, np.nan)
    return _page([_complex_panels(data, pixel_size)], title)


def probe_modes(
    probe: Complex[ArrayLike, "*mode y x"], pixel_size: float | None = None, *, title: str = ""
) -> "Figure":
    """Probe modes in colour: hue = phase, brightness = modulus (each mode to its own maximum), power in %.

    Hues are equally light and equally spaced to the eye (a circle in Oklab). Hue cannot carry a whole circle for every
    colour vision; `complex_image` of a mode shows the same in two panels without hue.

    **Arguments:** `probe` `(mode, y, x)` or `(y, x)`, centred; `pixel_size` [m]. Shown is the part that holds 99.5 % of
    the light across and down, of the five first modes; powers are shares of all.
    """
    data = np.asarray(probe)
    data = _array(data[None] if data.ndim == 2 else data, 3, "a probe")
    return _page([_mode_panels(data, pixel_size)], title)


def sinogram(
    array: Num[ArrayLike, "view u"],
    *,
    angles: Float[ArrayLike, " view"] | None = None,
    pixel_size: float | None = None,
    units: str = "",
    title: str = "",
    ax: "Axes | None" = None,
) -> "Figure":
    """One detector row of all views: columns across, views down (labelled in degrees with `angles` [rad])."""
    return _one(_sinogram_panel(array, angles, pixel_size, units, title), ax)


def slices(
    volume: Num[ArrayLike, "z y x"],
    *,
    pixel_size: float | None = None,
    units: str = "",
    title: str = "",
    at: tuple[int, int, int] | None = None,
    colours: str = GREY,
) -> "Figure":
    """Three orthogonal cuts of a volume at one scale and in one set of colours; of a flat volume three slices instead.

    **Arguments:** `volume` `(z, y, x)`; `pixel_size` [m] of the voxels; `at` the indices (z, y, x) of the cuts, else
    the middle. Ticks at the frames mark where the other planes cut.

    **Raises:** `InputError` for a complex volume, or cuts outside of it.
    """
    return _page([_slice_panels(volume, pixel_size, units, title, at, colours)])


def orientation(
    vectors: Float[ArrayLike, "*z y x 3"],
    mask: Bool[ArrayLike, "*z y x"] | None = None,
    *,
    weight: Float[ArrayLike, "*z y x"] | None = None,
    pixel_size: float | None = None,
    title: str = "",
) -> "Figure":
    """Fibre axes: hue = direction in the plane shown (also drawn as lines), white = through it; a key at each panel.

    **Arguments:** `vectors` `(y, x, 3)` or `(z, y, x, 3)`, components (x, y, z), sign and length of no meaning; `mask`,
    False = not shown; `weight` in 0..1 darkens (relative anisotropy, say); `pixel_size` [m]. Of a volume the three
    middle planes are shown. A tilt out of the plane towards the viewer and the same tilt away share one colour.
    """
    return _page([_orientation_panels(np.asarray(vectors), mask, weight, pixel_size, title)])


def convergence(
    history: Float[ArrayLike, " step"],
    held_out: Float[ArrayLike, "evaluation 2"] | None = None,
    *,
    ax: "Axes | None" = None,
) -> "Figure":
    """The cost of every step, its running median, and the cost of held-out views (pairs of step and cost)."""
    return _one(_convergence_panel(np.asarray(history, float), held_out), ax)


def ring_correlation(
    result: Any, *, pixel_size: float | None = None, title: str = "", ax: "Axes | None" = None
) -> "Figure":
    """A Fourier ring or shell correlation with its half-bit and one-bit curves, in cycles/pixel and in half periods.

    **Arguments:** `result` of `diffrecon.quality.ring_correlation`, or the same as a mapping as it is in a file;
    `pixel_size` [m] where it is not in the result. The vertical line marks the resolution at half-bit.
    """
    return _one(_ring_panel(result, pixel_size, title), ax)


def l_curve(curve: Any, *, ax: "Axes | None" = None) -> "Figure":
    """What `diffrecon.solvers.l_curve` found: misfit against size for regularisation of several strengths; the one that
    was chosen is marked, and so is the misfit that noise alone would leave.
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
        _curve_axes(ax, "misfit / noise", "size / expected", "L-curve")

    return _one(_Panel(draw, 1.35, 1.0, left=0.6, right=0.25, bottom=0.42), ax)


def axes_drawing(path: str | PathLike | None = None) -> "Figure":
    """The axes, angles and pixel coordinates of diffrecon as one drawing (the one in `docs/conventions.md`)."""
    page = _new_figure(PAGE, 2.55)
    boxes = [
        ((0.0, 0.0, 0.42, 0.88), (-2.4, 4.1), "Laboratory, angle 0"),
        ((0.42, 0.0, 0.3, 0.88), (-2.1, 2.55), "Volume, angle θ"),
        ((0.75, 0.0, 0.25, 0.88), (-1.4, 5.4), "Array"),
    ]
    for (box, across, title), draw in zip(boxes, (_draw_laboratory, _draw_plan, _draw_pixels), strict=True):
        ax = page.add_axes(box)
        ax.set_axis_off()
        inches = page.get_size_inches()
        high = (across[1] - across[0]) * box[3] * inches[1] / (box[2] * inches[0])
        ax.set(xlim=across, ylim=(-0.5 * high, 0.5 * high), aspect="equal")
        page.text(box[0] + 0.015, 0.97, title, fontsize=FONT + 1, weight="bold", va="top")
        draw(ax)
    if path is not None:
        page.savefig(path)
    return page


def transfer_functions(
    setup: Any, *, highest: float | None = None, delta_beta: float = math.inf, path: str | PathLike | None = None
) -> "Figure":
    """Contrast transfer functions of a set of distances: of phase, of attenuation, and what all of them show together.

    **Arguments:** `setup`: a `diffrecon.regimes.Setup`, or a near-field geometry; `highest` frequency [1/m], that of
    the finest pixel by default; `delta_beta` of the object in the third panel, `inf` = pure phase; `path` where it is
    saved. Half periods are on top; the line at a tenth is what `diffrecon inspect` calls seen.
    """
    from . import regimes

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
    page = _page([[_transfer_panel(frequency, values, setup.distances, title)] for title, values in curves])
    if path is not None:
        page.savefig(path)
    return page


def _transfer_panel(frequency: np.ndarray, curves: np.ndarray, distances: np.ndarray, title: str) -> "_Panel":
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
        _curve_axes(ax, "spatial frequency [1/µm]", "transfer" if single else "contrast", "")
        ax.set_title(title, fontsize=FONT + 1, loc="left", pad=26)
        _half_period_axis(ax, 0.5 / frequency[-1])
        if len(curves) > 1 or len(distances) == 1:
            exponent, unit = _unit("m", float(distances.max()))
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

    return _Panel(draw, 4.4, 1.0, left=0.5, right=0.72, bottom=0.4, top=0.6)


# ---------------------------------------------------------------------- panels
@dataclasses.dataclass(frozen=True)
class _Panel:
    """What draws one axes, how large relative to its neighbours, and the room it needs for labels [inch]."""

    draw: "Callable[[Axes], Any]"
    width: float = 1.0
    height: float = 1.0
    left: float = 0.06
    right: float = 0.72
    top: float = 0.24
    bottom: float = 0.26
    like_neighbours: bool = False  # its row is as high as the rows beside it that say so, too


def _image_panel(array, pixel_size, units, title, limits=None, colours=GREY, label="") -> _Panel:
    data = _real(array, "an image")
    low, high = _limits(data) if limits is None else limits

    def draw(ax):
        shown = _show(ax, data, title, vmin=low, vmax=high, cmap=colours)
        _scale_bar(ax, data.shape[1], pixel_size)
        _colour_bar(ax, shown, units, label)

    return _Panel(draw, *_size(data.shape))


def _complex_panels(data: np.ndarray, pixel_size: float | None, phase: np.ndarray | None = None) -> list[_Panel]:
    finite = np.isfinite(data)
    wrapped = phase is None
    if phase is None:
        middle = float(np.angle(data[finite].mean())) if finite.any() else 0.0
        phase = np.where(finite, np.angle(data * np.exp(-1j * middle)) + middle, np.nan)
    limits, colours = _limits(phase), GREY
    if wrapped and limits[1] - limits[0] > 1.8 * np.pi:
        phase, limits, colours = np.where(finite, np.angle(data), np.nan), (-np.pi, np.pi), CYCLIC
    return [
        _image_panel(phase, pixel_size, "rad", "phase", limits, colours),
        _image_panel(np.abs(data), pixel_size, "", "modulus", None, MAGNITUDE),
    ]


def _mode_panels(modes: np.ndarray, pixel_size: float | None, most: int = 5) -> list[_Panel]:
    modes = np.nan_to_num(modes)
    power = (np.abs(modes) ** 2).sum((1, 2))
    share = power / max(power.sum(), np.finfo(float).tiny)
    shown = modes[:most][(slice(None), *_lit((np.abs(modes) ** 2).sum(0)))]

    def panel(number: int) -> _Panel:
        last = number == len(shown) - 1

        def draw(ax):
            name = "probe" if len(modes) == 1 else f"mode {number + 1}: {_percent(share[number])}"
            _show(ax, _complex_colours(shown[number]), name)
            if number == 0:
                _scale_bar(ax, shown.shape[-1], pixel_size)
            if last:
                _colour_wheel(ax)

        return _Panel(draw, *_size(shown.shape[1:]), right=1.0 if last else 0.06)

    return [panel(i) for i in range(len(shown))]


def _colour_wheel(ax: "Axes") -> None:
    """The key of hue and brightness at the right of a panel."""
    wheel = _beside(ax, 0.26, 0.18, 0.5)
    grid = np.linspace(-1, 1, 201)
    plane = grid[None, :] + 1j * grid[::-1, None]
    colours = _complex_colours(np.where(np.abs(plane) <= 1, plane, 0))
    alpha = np.clip((1 - np.abs(plane)) * 100, 0, 1)
    wheel.imshow(np.concatenate([colours, alpha[..., None]], -1), extent=(-1, 1, -1, 1))
    for text, x, y, across, up in (
        ("0", 1.15, 0, "left", "center"),
        ("π", -1.15, 0, "right", "center"),
        ("π/2", 0, 1.1, "center", "bottom"),
        ("−π/2", 0, -1.1, "center", "top"),
    ):
        wheel.text(x, y, text, ha=across, va=up, fontsize=FONT)
    wheel.text(0, -2.1, "hue: phase\nbrightness:\nmodulus", ha="center", va="top", fontsize=FONT)


def _beside(ax: "Axes", gap: float, drop: float, size: float) -> "Axes":
    """Frameless square axes right of a panel, in inches from its upper right corner."""
    box, inches = ax.get_position(), ax.figure.get_size_inches()  # pyright: ignore
    wide, high = box.width * inches[0], box.height * inches[1]
    made = ax.inset_axes((1 + gap / wide, 1 - (drop + size) / high, size / wide, size / high))
    made.set_axis_off()
    return made


def _sinogram_panel(array, angles, pixel_size, units, title) -> _Panel:
    data = _real(array, "a sinogram")
    low, high = _limits(data)

    def draw(ax):
        shown = _show(ax, data, title, aspect="auto", vmin=low, vmax=high, cmap=GREY)
        _view_ticks(ax, len(data), angles)
        _scale_bar(ax, data.shape[1], pixel_size)
        _colour_bar(ax, shown, units, "")

    return _Panel(draw, 1.0, 0.8, left=0.55)


def _view_ticks(ax: "Axes", views: int, angles: Any) -> None:
    """Round angles [degree] where they rise or fall all the way, else numbers of views."""
    from matplotlib.ticker import MaxNLocator

    degrees = np.arange(views) if angles is None else np.rad2deg(np.asarray(angles, float))
    if degrees.shape != (views,):
        raise InputError(f"a sinogram of {views} views needs as many angles, not the shape {degrees.shape}")
    ordered = views > 1 and (np.all(np.diff(degrees) > 0) or np.all(np.diff(degrees) < 0))
    if angles is None or not ordered:
        degrees, angles = np.arange(views), None
    low, high = float(degrees.min()), float(degrees.max())
    steps = [1, 2, 5, 10] if angles is None else [1, 2, 4.5, 9, 10]
    round_ = MaxNLocator(4, steps=steps, integer=True).tick_values(low, high)
    round_ = [r for r in round_ if low - 1e-6 <= r <= high * (1 + 1e-6) + 1e-6]
    order = np.argsort(degrees)
    where = np.interp(round_, degrees[order], order)
    ax.set_yticks(where, [f"{r:.0f}" + ("" if angles is None else "°") for r in round_], fontsize=FONT)
    ax.set_ylabel("view" if angles is None else "angle", fontsize=FONT)
    ax.tick_params(length=2.5, width=0.5)


def _slice_panels(volume, pixel_size, units, title, at, colours) -> list[_Panel]:
    data = _array(volume, 3, "a volume")
    if np.iscomplexobj(data):
        raise InputError("a complex volume has no single picture: give its real part, phase or modulus")
    middle = tuple(n // 2 for n in data.shape) if at is None else at
    if any(not -n <= i < n for i, n in zip(middle, data.shape, strict=True)):
        raise InputError(f"slices at {tuple(middle)} are outside of the volume {data.shape}")
    z, y, x = (int(i) % n for i, n in zip(middle, data.shape, strict=True))
    if len(data) <= 3 or (at is None and len(data) < max(data.shape) / 8):
        rows = np.unique(np.linspace(0, len(data) - 1, min(len(data), 3)).round().astype(int))
        cuts = [(data[i], "y", "x", f"z = {i}", None) for i in rows]
    else:
        cuts = [
            (data[z], "y", "x", f"z = {z}", (y, x)),
            (data[:, y], "z", "x", f"y = {y}", (z, x)),
            (data[:, :, x], "z", "y", f"x = {x}", (z, y)),
        ]
    limits = _limits(np.concatenate([np.ravel(c[0]) for c in cuts]))
    last, tallest = len(cuts) - 1, max(len(c[0]) for c in cuts)

    def panel(number: int) -> _Panel:
        cut, down, across, place, marks = cuts[number]

        def draw(ax):
            name = f"{title}: {place}" if title and number == 0 else place
            shown = _show(ax, cut, name, vmin=limits[0], vmax=limits[1], cmap=colours)
            _name_axes(ax, across, down, marks)
            if number == 0:
                _scale_bar(ax, cut.shape[1], pixel_size)
            if number == last:
                _colour_bar(ax, shown, units, "", tallest / len(cut))

        return _Panel(draw, *reversed(cut.shape), left=0.17, right=0.72 if number == last else 0.06)

    return [panel(i) for i in range(len(cuts))]


def _orientation_panels(vectors, mask, weight, pixel_size, title) -> list[_Panel]:
    data = np.asarray(vectors, float)
    if data.ndim not in (3, 4) or data.shape[-1] != 3:
        raise InputError(f"orientations need the shape (y, x, 3) or (z, y, x, 3), not {data.shape}")
    length = np.linalg.norm(data, axis=-1, keepdims=True)
    good = np.isfinite(length[..., 0]) & (length[..., 0] > 0)
    good &= True if mask is None else np.asarray(mask, bool)
    data = np.where(good[..., None], data / np.where(length > 0, length, 1), np.nan)
    light = np.ones(good.shape) if weight is None else np.clip(np.asarray(weight, float), 0, 1)
    cuts: list[tuple[Any, str, str, str]] = [(..., "y", "x", "")]
    if data.ndim == 4:
        z, y, x = (n // 2 for n in good.shape)
        cuts = [(np.s_[z], "y", "x", f"z = {z}")]
        if len(data) > 3:
            cuts += [(np.s_[:, y], "z", "x", f"y = {y}"), (np.s_[:, :, x], "z", "y", f"x = {x}")]

    def panel(number: int) -> _Panel:
        cut, down, across, place = cuts[number]
        through = ({*"xyz"} - {across, down}).pop()
        plane = data[cut][..., ["xyz".index(c) for c in (across, down, through)]]

        name = ": ".join(t for t in (title if number == 0 else "", place) if t)

        def draw(ax):
            _show(ax, _axis_colours(plane, light[cut]), name)
            _axis_lines(ax, plane)
            _axis_key(ax, across, down, through)
            if number == 0:
                _scale_bar(ax, plane.shape[1], pixel_size)

        return _Panel(draw, plane.shape[1], plane.shape[0], right=0.85)

    return [panel(i) for i in range(len(cuts))]


def _convergence_panel(history: np.ndarray, held_out: Any) -> _Panel:
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
        _curve_axes(ax, "step", "cost", "convergence")
        if len(held):
            _inside_legend(ax, [("fitted", DARK), ("held out", ORANGE)])

    return _Panel(draw, 1.35, 1.0, left=0.55, right=0.1, bottom=0.42)


def _weight_panel(quality: Mapping[str, Any]) -> _Panel:
    """What views left out say of the weights of a penalty that were tried; the chosen one is marked."""

    def draw(ax):
        ax.plot(quality["penalty_weights"], quality["held_out_by_weight"], color=ORANGE, marker="o", markersize=2.5)
        ax.axvline(float(quality["penalty_weight"]), color="0.6", linewidth=0.8)
        ax.set_xscale("log")
        _curve_axes(ax, "weight of the penalty", "residual of views held out", "choice of the weight")

    return _Panel(draw, 1.35, 1.0, left=0.6, right=0.1, bottom=0.42)


def _ring_panel(result: Any, pixel_size: float | None, title: str) -> _Panel:
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
        _curve_axes(ax, "spatial frequency [cycles/pixel]", "correlation", "")
        _half_period_axis(ax, pixel)
        if crossing is not None and crossing < 0.5:
            exponent, unit = (0, "pixels") if pixel is None else _unit("m", 0.5 * pixel / crossing)
            found = 0.5 / crossing * (1.0 if pixel is None else pixel / 10.0**exponent)
            ax.axvline(float(crossing), color="0.6", linewidth=0.7, zorder=0)
            ax.annotate(f"{found:.3g} {unit}", (crossing, 0.62), (3, 0), textcoords="offset points", fontsize=FONT)
        _inside_legend(ax, [("correlation", DARK), ("half-bit", BLUE), ("one-bit", ORANGE)])
        if title:
            ax.set_title(title, fontsize=FONT + 1, loc="left", pad=30)

    return _Panel(draw, 1.35, 1.0, left=0.55, right=0.12, bottom=0.42, top=0.66)


def _positions_panel(quantity: Quantity, held_out: Any) -> _Panel:
    places = np.asarray(quantity.data, float).reshape(-1, 2)
    exponent, unit = _unit(quantity.units, np.abs(places - places.mean(0)).max() if places.size else 1.0)
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
        _curve_axes(ax, f"x [{unit}]", f"y [{unit}]", "scan positions")

    return _Panel(draw, 1.0, 1.0, left=0.55, right=0.1, bottom=0.42)


# ---------------------------------------------------------------------- the page
def _page(
    rows: "Sequence[Sequence[_Panel]]", title: str = "", words: Sequence[str] = (), widest: float = PAGE
) -> "Figure":
    """Lay rows of panels on a page as wide as they need, up to both columns of a journal."""
    scales = []
    for number, row in enumerate(rows):
        tallest = (2.75 if number == 0 else 1.9) / max(p.height for p in row)
        scales.append(min((widest - 0.08 - sum(p.left + p.right for p in row)) / sum(p.width for p in row), tallest))
    alike = [all(p.like_neighbours for p in row) for row in rows]
    scales = [
        min(s for s, a in zip(scales, alike, strict=True) if a) if same else scale
        for scale, same in zip(scales, alike, strict=True)
    ]
    needs = [sum(p.left + p.width * s + p.right for p in row) for row, s in zip(rows, scales, strict=True)]
    width = PAGE if words else max(max(needs) + 0.08, 0.09 * len(title))
    lines = [line for word in words for line in textwrap.wrap(word, 110)]
    head = (0.34 if title else 0.06) + 0.15 * len(lines)
    heights = [max(p.top + p.height * s + p.bottom for p in row) for row, s in zip(rows, scales, strict=True)]
    total = head + sum(heights) + 0.08 * len(rows)
    page = _new_figure(width, total)
    if title:
        page.text(0.08 / width, 1 - 0.08 / total, title, fontsize=FONT + 3, weight="bold", va="top")
    for number, line in enumerate(lines):
        page.text(0.08 / width, 1 - (0.34 + 0.15 * number) / total, line, fontsize=FONT, va="top")
    down = head
    for row, scale, height in zip(rows, scales, heights, strict=True):
        across, top = 0.04, down + max(p.top for p in row)
        for panel in row:
            box = (across + panel.left, total - top - panel.height * scale, panel.width * scale, panel.height * scale)
            panel.draw(page.add_axes((box[0] / width, box[1] / total, box[2] / width, box[3] / total)))
            across += panel.left + panel.width * scale + panel.right
        down += height + 0.08
    return page


def _one(panel: _Panel, ax: "Axes | None") -> "Figure":
    if ax is None:
        return _page([[panel]], widest=COLUMN if panel.width < 3 * panel.height else PAGE)
    panel.draw(ax)
    return ax.figure  # pyright: ignore


def _new_figure(width: float, height: float) -> "Figure":
    """A figure with its own canvas, which notebooks show because it can say its PNG."""
    module = require("matplotlib.figure", "plot")
    canvas = require("matplotlib.backends.backend_agg", "plot").FigureCanvasAgg

    class Page(module.Figure):
        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    made = Page(figsize=(width, height), dpi=DPI, facecolor="white")
    canvas(made)
    return made


# ---------------------------------------------------------------------- parts of a picture
def _show(ax: "Axes", data: np.ndarray, title: str, aspect: Literal["equal", "auto"] = "equal", **how: Any) -> Any:
    """The image in its frame; what has no value is grey and hatched."""
    rows, columns = data.shape[:2]
    if max(rows, columns) > 20 * min(rows, columns):
        aspect = "auto"
    shown = ax.imshow(data, aspect=aspect, **how)
    if np.isnan(data).any() or data.shape[-1] == 4:
        ax.patch.set(facecolor="0.93", edgecolor="0.8", hatch="/////", linewidth=0)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(linewidth=0.5, color="0.3")
    if title:
        ax.set_title(title, fontsize=FONT + 1, loc="left", pad=4)
    return shown


def _scale_bar(ax: "Axes", columns: int, pixel_size: float | None) -> None:
    """A bar of a round length below the image, where it hides nothing."""
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    length, label = scale_bar_length(columns, pixel_size)
    below = ScaledTranslation(0, -8 / 72, ax.figure.dpi_scale_trans)
    where = blended_transform_factory(ax.transData, ax.transAxes) + below
    start = -0.5
    ax.plot(
        [start, start + length],
        [0, 0],
        color="black",
        linewidth=2.5,
        solid_capstyle="butt",
        transform=where,
        clip_on=False,
        scalex=False,
        scaley=False,
        gid="scale bar",
    )
    gap = ScaledTranslation(4 / 72, 0, ax.figure.dpi_scale_trans)
    ax.text(start + length, 0, label, transform=where + gap, fontsize=FONT, va="center_baseline", gid="scale bar")


def scale_bar_length(columns: int, pixel_size: float | None) -> tuple[float, str]:
    """Length [pixel] of the bar for so many columns, the round length nearest to a fifth of them, and its label."""
    wanted = 0.2 * columns * (1.0 if pixel_size is None else pixel_size)
    power = 10.0 ** math.floor(math.log10(wanted))
    length = min((f * power for f in (1, 2, 5, 10)), key=lambda l: abs(math.log(l / wanted)))
    if pixel_size is None:
        length = max(round(length), 1)
        return length, f"{length} pixel" + ("s" if length > 1 else "")
    exponent, unit = _unit("m", length * (1 + 1e-9))
    return length / pixel_size, f"{length / 10.0**exponent:.3g} {unit}"


def _colour_bar(ax: "Axes", shown: Any, units: str, label: str, tall: float = 1.0) -> None:
    """A bar with round numbers and the unit, right of the panel from its top down, `tall` times as high as it is."""
    box, inches = ax.get_position(), ax.figure.get_size_inches()  # pyright: ignore
    wide, high = box.width * inches[0], box.height * inches[1] * tall
    bar = ax.inset_axes((1 + 0.06 / wide, 1 - tall, 0.09 / wide, tall))
    low, high_value = shown.get_clim()
    drawn = ax.figure.colorbar(shown, cax=bar)
    exponent, unit = _unit(units, max(abs(low), abs(high_value)))
    ticks, labels = _ticks(low, high_value, exponent, min(5, int(high / 0.3)))
    drawn.set_ticks(ticks, labels=labels)
    bar.minorticks_off()
    bar.tick_params(labelsize=FONT, length=2, width=0.5, pad=2)
    drawn.outline.set_linewidth(0.5)
    said = " ".join(t for t in (label, f"[{unit}]" if unit else "") if t)
    # A vertical label would stick out of a low bar.
    if high < 0.7:
        bar.set_title(said, fontsize=FONT, loc="left", pad=4)
    else:
        drawn.set_label(said, fontsize=FONT, labelpad=3)


def _unit(units: str, largest: float) -> tuple[int, str]:
    """Power of ten taken out of the numbers and the unit that says so."""
    if not largest or not math.isfinite(largest):
        return 0, units
    power = math.log10(largest) + 1e-9
    if units in ("m", "eV"):
        exponent = 3 * math.floor(power / 3)
        exponent = min(max(exponent, -12), 0 if units == "m" else 9)
        return exponent, _PREFIXES[exponent] + units
    if 1e-2 <= largest < 1e4:
        return 0, units
    exponent = math.floor(power)
    return exponent, f"10{str(exponent).translate(_SUPERSCRIPT)} {units}".strip()


def _ticks(low: float, high: float, exponent: int, count: int) -> tuple[list[float], list[str]]:
    """Round values inside the limits and how to write them with as many digits as they need, and no more."""
    from matplotlib.ticker import MaxNLocator

    if abs(high - low - 2 * np.pi) < 1e-9:
        middle, turns = (low + high) / 2, (-1, -0.5, 0, 0.5, 1)
        if abs(middle) < 1e-9:
            return [t * np.pi for t in turns], ["−π", "−π/2", "0", "π/2", "π"]
    ticks = [t for t in MaxNLocator(max(count, 2), steps=[1, 2, 2.5, 5, 10]).tick_values(low, high) if low <= t <= high]
    ticks = ticks if count >= 2 or len(ticks) < 2 else [ticks[0], ticks[-1]]
    scaled = [t / 10.0**exponent for t in ticks]
    step = abs(scaled[1] - scaled[0]) if len(scaled) > 1 else 1.0
    digits = next((d for d in range(9) if all(abs(round(s, d) - s) < 1e-3 * step for s in scaled)), 9)
    return ticks, [f"{s + 0.0:.{digits}f}".replace("-", "−") for s in scaled]


def _name_axes(ax: "Axes", across: str, down: str, marks: tuple[int, int] | None = None) -> None:
    """Names at the far ends of the axes, and ticks outside of the frame where the other planes cut."""
    from matplotlib.transforms import ScaledTranslation

    point = ax.figure.dpi_scale_trans
    ax.text(
        1,
        0,
        across,
        transform=ax.transAxes + ScaledTranslation(0, -7 / 72, point),
        fontsize=FONT,
        ha="right",
        va="center_baseline",
    )
    ax.text(
        0,
        0,
        down,
        transform=ax.transAxes + ScaledTranslation(-4 / 72, 0, point),
        fontsize=FONT,
        ha="right",
        va="bottom",
    )
    if marks is not None:
        ax.set_yticks([marks[0]], [""])
        ax.set_xticks([marks[1]], [""])
        ax.tick_params(length=2.5, width=0.6, top=True, right=True)


def _curve_axes(ax: "Axes", across: str, up: str, title: str) -> None:
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
    exponent, unit = (0, "pixel") if pixel is None else _unit("m", 10 * pixel)
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


# ---------------------------------------------------------------------- numbers behind a picture
def _array(array: Any, axes: int, what: str) -> np.ndarray:
    data = np.asarray(array)
    if data.ndim != axes or not data.size:
        raise InputError(f"{what} needs {axes} axes and at least one pixel, not the shape {data.shape}")
    return data if data.dtype.kind in "fc" else data.astype(float)


def _real(array: Any, what: str) -> np.ndarray:
    data = _array(array, 2, what)
    if np.iscomplexobj(data):
        raise InputError(f"{what} must be real; complex_image shows phase and modulus")
    return data


def _drawable(data: np.ndarray) -> np.ndarray:
    found = np.isfinite(data)
    return found if found.any() else np.ones(data.shape, bool)


def _box(seen: np.ndarray) -> tuple[slice, slice]:
    """The smallest rectangle that holds everything seen."""
    found = [np.flatnonzero(seen.any(axis)) for axis in (1, 0)]
    rows, columns = (slice(int(f[0]), int(f[-1]) + 1) for f in found)
    return rows, columns


def _lit(power: np.ndarray, share: float = 0.995) -> tuple[slice, slice]:
    """Rows and columns that hold all but the last half percent of the light, and a little around them."""
    cuts = []
    for axis in (1, 0):
        sums = np.cumsum(power.sum(axis)) / max(float(power.sum()), np.finfo(float).tiny)
        first, last = (int(np.searchsorted(sums, v)) for v in (0.5 * (1 - share), 0.5 * (1 + share)))
        around = max(2, (last - first) // 20)
        cuts.append(slice(max(first - around, 0), min(last + around + 1, len(sums))))
    return cuts[0], cuts[1]


def _size(shape: tuple[int, ...]) -> tuple[float, float]:
    """Width and height with the height 1; strips thinner than 1:20 are drawn higher than they are."""
    return min(max(shape[1] / shape[0], 0.05), 20.0), 1.0


def _limits(data: np.ndarray) -> tuple[float, float]:
    """Percentiles 0.5 and 99.5 of the finite values, never equal."""
    finite = data[np.isfinite(data)]
    if not finite.size:
        return 0.0, 1.0
    some = finite[:: max(finite.size // 2_000_000, 1)].astype(float)
    low, high = (float(v) for v in np.percentile(some, (0.5, 99.5)))
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        low, high = float(finite.min()), float(finite.max())
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        wide = 0.5 * abs(low) or 0.5
        return low - wide, high + wide
    return low, high


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 1e-3 else "< 0.1 %"


def _running_median(steps: np.ndarray, values: np.ndarray, points: int = 60) -> tuple[np.ndarray, np.ndarray]:
    blocks = np.array_split(np.arange(values.size), min(points, values.size))
    return np.array([steps[b].mean() for b in blocks]), np.array([np.median(values[b]) for b in blocks])


# ---------------------------------------------------------------------- colours of directions
def _complex_colours(values: np.ndarray) -> np.ndarray:
    """Hue = phase, brightness = modulus relative to its maximum (a percentile against hot pixels)."""
    modulus = np.abs(values)
    bright = np.clip(modulus / max(float(np.percentile(modulus, 99.9)), np.finfo(float).tiny), 0, 1)
    # The largest circle of hues that a screen can show; the lightness at which it is largest.
    return _oklch(0.74 * bright, 0.123 * bright, np.angle(values))


def _axis_colours(plane: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Components (across, down, through) to colours with alpha: hue turns once in half a turn of the axis."""
    across, down, through = np.moveaxis(plane, -1, 0)
    seen = np.isfinite(across)
    across, down, through = (np.where(seen, c, 0) for c in (across, down, through))
    flat = np.sqrt(np.clip(1 - through**2, 0, 1))
    light = (0.97 - 0.25 * flat) * weight
    colours = _oklch(light, 0.12 * flat * weight, 2 * np.arctan2(down, across))
    return np.concatenate([colours, seen[..., None].astype(float)], -1)


def _oklch(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """Oklab in polar form (Ottosson 2020, bottosson.github.io/posts/oklab) to sRGB in 0..1."""
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        -1,
    )
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _axis_lines(ax: "Axes", plane: np.ndarray, most: int = 22) -> None:
    """Short lines along the axes, as long as their part in the plane: readable without colour."""
    from matplotlib.collections import LineCollection

    step = max(1, -(-max(plane.shape[:2]) // most))
    rows, columns = (np.arange(step // 2, n, step) for n in plane.shape[:2])
    row, column = (g.ravel() for g in np.meshgrid(rows, columns, indexing="ij"))
    direction = plane[row, column, :2]
    seen = np.isfinite(direction).all(-1)
    middle, half = np.stack([column, row], -1)[seen], 0.42 * step * direction[seen]
    lines = LineCollection(list(np.stack([middle - half, middle + half], 1)), colors="black", linewidths=0.6)
    ax.add_collection(lines, autolim=False)


def _axis_key(ax: "Axes", across: str, down: str, through: str) -> None:
    """A hemisphere of directions, seen along the normal of the plane, in their colours."""
    key = _beside(ax, 0.1, 0.0, 0.5)
    grid = np.linspace(-1, 1, 121)
    x, y = np.meshgrid(grid, grid)
    radius = np.hypot(x, y)
    plane = np.stack([x, y, np.sqrt(np.clip(1 - radius**2, 0, 1))], -1)
    colours = _axis_colours(plane, np.ones(radius.shape))
    colours[..., 3] = np.clip((1 - radius) * 60, 0, 1)
    key.imshow(colours, extent=(-1, 1, 1, -1))
    key.text(1.1, 0, across, fontsize=FONT, va="center")
    key.text(0, 1.1, down, fontsize=FONT, ha="center", va="top")
    key.text(0, 2.1, f"white: {through}", fontsize=FONT, ha="center", va="top")


# ---------------------------------------------------------------------- the drawing of the axes
def _draw_laboratory(ax: "Axes") -> None:
    """Perspective: beam to the right, z up, x towards the viewer."""

    def flat(x: float, y: float, z: float) -> np.ndarray:
        return np.array([y - 0.5 * x, z - 0.36 * x])

    def arrow(start, end, colour, text, shift):
        _arrow(ax, flat(*start), flat(*end), colour)
        _say(ax, flat(*end) + shift, text, color=colour)

    _arrow(ax, flat(0, -2.2, 0), flat(0, -0.55, 0), ORANGE, 2.0)
    ax.text(-2.2, 0.12, "beam", color=ORANGE, fontsize=FONT, va="bottom")
    side = 1.25
    corners = np.array([flat(x, 3.0, z) for x, z in ((-side, -side), (side, -side), (side, side), (-side, side))])
    ax.fill(*corners.T, facecolor="0.94", edgecolor=DARK, linewidth=0.8)
    for t in np.linspace(-side, side, 6)[1:-1]:
        for a, b in (((-side, t), (side, t)), ((t, -side), (t, side))):
            ax.plot(*np.stack([flat(a[0], 3.0, a[1]), flat(b[0], 3.0, b[1])]).T, color="0.8", linewidth=0.4)
    below = flat(0, 3.0, -side) + (-0.1, -0.55)
    _say(ax, below, "detector:\nrows z, columns u", va="top")
    arrow((0, 3.0, 0), (0, 3.0, 0.95), BLUE, "z", (-0.16, 0.0))
    arrow((0, 3.0, 0), (0.95, 3.0, 0), BLUE, "u", (0.02, -0.2))
    turn = np.linspace(0, 2 * np.pi, 120)
    for z in (-0.6, 0.6):
        rim = np.stack([flat(0.5 * np.sin(t), 0.5 * np.cos(t), z) for t in turn])
        ax.fill(*rim.T, facecolor="white" if z > 0 else "0.9", edgecolor=DARK, linewidth=0.8, zorder=2 if z > 0 else 1)
    _draw_wall(ax, flat, turn)
    arrow((0, 0, 0.6), (0, 0, 1.75), DARK, "z", (0.14, 0.05))
    arrow((0, 0.5, 0), (0, 1.35, 0), DARK, "y", (0.05, 0.17))
    arrow((0.5, 0, 0), (1.5, 0, 0), DARK, "x", (-0.12, -0.1))
    # The sample turns from y to x, clockwise seen from +z, so that beam and detector turn by +theta in its frame.
    sweep = np.stack([flat(0.5 * np.sin(t), 0.5 * np.cos(t), 1.15) for t in np.linspace(-0.6, 1.9, 40)])
    ax.plot(*sweep.T, color=DARK, linewidth=1.0, zorder=4)
    _arrow(ax, sweep[-2], sweep[-1], DARK, 1.0)
    _say(ax, sweep[0] + (0.1, 0.06), "sample turns by θ", ha="left")


def _draw_wall(ax: "Axes", flat: Callable[..., np.ndarray], turn: np.ndarray) -> None:
    """The side of the sample cylinder that is seen."""
    rim = np.stack([flat(0.5 * np.sin(t), 0.5 * np.cos(t), 0.0) for t in turn])
    left, right = rim[rim[:, 0].argmin()], rim[rim[:, 0].argmax()]
    front = rim[(rim - left) @ np.array([-(right - left)[1], (right - left)[0]]) <= 0]
    front = front[np.argsort(front[:, 0])]
    wall = np.concatenate([front + (0, -0.6), front[::-1] + (0, 0.6)])
    ax.fill(*wall.T, facecolor="0.9", edgecolor=DARK, linewidth=0.8, zorder=2)


def _draw_plan(ax: "Axes") -> None:
    """Seen from +z: the volume stands still, beam and detector turn by theta."""
    angle = np.deg2rad(28)
    u, ray = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    for end, name, shift in (((1.75, 0), "x", (0.15, 0)), ((0, 1.45), "y", (0.14, 0.05))):
        _arrow(ax, (0, 0), end, DARK)
        ax.text(end[0] + shift[0], end[1] + shift[1], name, fontsize=FONT, ha="center", va="center")
    ring = np.linspace(0, 2 * np.pi, 100)
    ax.fill(np.cos(ring), np.sin(ring), facecolor="0.93", edgecolor="0.6", linewidth=0.6, zorder=0)
    point = np.array([0.78, -0.36])
    foot = (point @ u) * u + 1.7 * ray
    for s in (-0.8, 0.0, 0.8):
        _arrow(ax, s * u - 1.75 * ray, s * u - 1.2 * ray, ORANGE, 1.2)
    _say(ax, 0.9 * u - 2.0 * ray, "beam", color=ORANGE)
    ax.plot(*np.stack([point - 1.5 * ray, foot]).T, color=ORANGE, linewidth=0.6, linestyle=":", zorder=1)
    _arrow(ax, 1.7 * ray - 1.2 * u, 1.7 * ray + 1.35 * u, BLUE, 1.6)
    _say(ax, 1.7 * ray + 1.5 * u, "u", color=BLUE)
    ax.plot(*(1.7 * ray), marker="|", color=BLUE, markersize=6)
    ax.plot(*point, marker="o", color=DARK, markersize=3)
    _say(ax, point + (-0.09, 0.0), "(x, y)", ha="right")
    arc = np.linspace(0, angle, 30)
    ax.plot(1.3 * np.cos(arc), 1.3 * np.sin(arc), color=DARK, linewidth=0.8)
    ax.plot(*np.stack([0 * u, 1.5 * u]).T, color=BLUE, linewidth=0.6, linestyle=":")
    ax.text(1.5 * np.cos(angle / 2), 1.5 * np.sin(angle / 2), "θ", fontsize=FONT, ha="center", va="center")
    ax.text(-0.6, -2.12, "u = x cos θ + y sin θ", color=BLUE, fontsize=FONT, ha="center", va="top")


def _draw_pixels(ax: "Axes") -> None:
    """An image of 4 rows and 5 columns as it is indexed and shown, with its centre."""
    ax.invert_yaxis()
    rows, columns = 4, 5
    for i in range(rows + 1):
        ax.plot([0, columns], [i - 2, i - 2], color="0.6", linewidth=0.6)
    for j in range(columns + 1):
        ax.plot([j, j], [-2, rows - 2], color="0.6", linewidth=0.6)
    for j in range(columns):
        ax.text(j + 0.5, -2.25, str(j), fontsize=FONT, ha="center", va="center")
    for i in range(rows):
        ax.text(-0.25, i - 1.5, str(i), fontsize=FONT, ha="center", va="center")
    _arrow(ax, (0, -2.7), (2.2, -2.7), DARK)
    ax.text(2.35, -2.7, "x (column)", fontsize=FONT, va="center")
    _arrow(ax, (-0.6, -2), (-0.6, 0.8), DARK)
    ax.text(-0.9, -0.7, "y or z (row)", fontsize=FONT, ha="center", va="center", rotation=90)
    ax.plot(2.5, 0, marker="+", color=ORANGE, markersize=9, markeredgewidth=1.5)
    ax.text(2.65, -0.5, "0", color=ORANGE, fontsize=FONT, ha="left", va="center")
    ax.text(2.2, 2.45, "pixel i is at i − (N − 1)/2", fontsize=FONT, ha="center", va="center")


def _say(ax: "Axes", place: np.ndarray, text: str, **how: Any) -> None:
    ax.text(place[0], place[1], text, **{"fontsize": FONT, "ha": "center", "va": "center", **how})


def _arrow(ax: "Axes", start: Any, end: Any, colour: str, width: float = 1.2) -> None:
    how = {"arrowstyle": "-|>", "color": colour, "linewidth": width, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=how, zorder=5)
