"""The page and what every picture on it has: panels, frame, scale bar, colour bar, units."""

import dataclasses
import io
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Array

from .._optional import require
from ..errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# A plain union: the ArrayLike of numpy >= 2.5 is an alias that jaxtyping cannot subscript.
ArrayLike = np.ndarray | Array


PAGE = 7.2  # [inch] both columns of a journal page
COLUMN = 3.5  # [inch] one column
DPI = 200
FONT = 8  # [pt] at final size
GREY, MAGNITUDE, CYCLIC = "gray", "cividis", "twilight"
# Blue, orange, dark grey: told apart with every kind of colour vision and in grey print.
BLUE, ORANGE, DARK = "#0072b2", "#d55e00", "#333333"
_GAP = 0.04  # [inch] between words of neighbours
BESIDE = 0.6  # [inch] of a title beyond its panel, above the colour bar
_PREFIXES = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G"}
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def in_rows(panels: "Sequence[Panel]", height: float = 1.45) -> "list[list[Panel]]":
    """Arrange panels in order, equally high, in as few rows as the page allows at about this height [inch]; the rows
    hold equally many where that is as wide."""
    panels = [dataclasses.replace(p, width=p.width / p.height, height=1.0, like_neighbours=True) for p in panels]
    wide = lambda row: sum(p.left + p.right + height * p.width for p in row)
    rows: list[list[Panel]] = []
    for panel in panels:
        if not rows or wide([*rows[-1], panel]) > PAGE:
            rows.append([])
        rows[-1].append(panel)
    many = -(-len(panels) // max(len(rows), 1))
    even = [panels[start : start + many] for start in range(0, len(panels), max(many, 1))]
    return even if len(even) == len(rows) and all(wide(row) <= PAGE for row in even) else rows


@dataclasses.dataclass(frozen=True)
class Panel:
    """What draws one axes, how large relative to its neighbours, and the room it needs for labels [inch]."""

    draw: "Callable[[Axes], Any]"
    width: float = 1.0
    height: float = 1.0
    left: float = 0.06
    right: float = 0.72
    top: float = 0.24
    bottom: float = 0.26
    like_neighbours: bool = False  # its row is as high as the rows beside it that say so, too


def beside(ax: "Axes", gap: float, drop: float, size: float) -> "Axes":
    """Make frameless square axes right of a panel, in inches from its upper right corner."""
    box, inches = ax.get_position(), ax.figure.get_size_inches()  # pyright: ignore
    wide, high = box.width * inches[0], box.height * inches[1]
    made = ax.inset_axes((1 + gap / wide, 1 - (drop + size) / high, size / wide, size / high))
    made.set_axis_off()
    return made


def page_of(
    rows: "Sequence[Sequence[Panel]]",
    title: str = "",
    words: Sequence[str] = (),
    widest: float = PAGE,
    settled: bool = False,
) -> "Figure":
    """Lay rows of panels on a page as wide as they need, up to both columns of a journal.

    Panels whose words reach into each other are laid out once more with more room, unless all is `settled`.
    """
    scales, axes = [], []
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
    page = new_figure(width, total)
    if title:
        page.text(0.08 / width, 1 - 0.08 / total, title, fontsize=FONT + 3, weight="bold", va="top")
    for number, line in enumerate(lines):
        page.text(0.08 / width, 1 - (0.34 + 0.15 * number) / total, line, fontsize=FONT, va="top")
    down = head
    for row, scale, height in zip(rows, scales, heights, strict=True):
        across, top = 0.04, down + max(p.top for p in row)
        axes.append([])
        for panel in row:
            box = (across + panel.left, total - top - panel.height * scale, panel.width * scale, panel.height * scale)
            axes[-1].append(page.add_axes((box[0] / width, box[1] / total, box[2] / width, box[3] / total)))
            panel.draw(axes[-1][-1])
            across += panel.left + panel.width * scale + panel.right
        down += height + 0.08
    if settled or all(len(row) < 2 for row in rows):
        return page
    page.draw_without_rendering()  # places the numbers of the axes
    missing = [_overprinted(row) for row in axes]
    if not any(map(any, missing)):
        return page
    apart = [
        [dataclasses.replace(p, left=p.left + more) for p, more in zip(row, short, strict=True)]
        for row, short in zip(rows, missing, strict=True)
    ]
    return page_of(apart, title, words, widest, settled=True)


def _overprinted(row: "Sequence[Axes]") -> list[float]:
    """Measure how much further to the right [inch] every panel must begin, lest its words overprint those before."""
    page: Any = row[0].figure
    taken = [[ax.bbox, *map(_extent, _texts(ax))] for ax in row]
    missing = [0.0]
    for before, here in zip(taken, taken[1:], strict=False):
        over = [a.x1 - b.x0 for a in before for b in here if a.y0 < b.y1 and b.y0 < a.y1 and a.x1 > b.x0]
        missing.append(max(over, default=-_GAP * page.dpi) / page.dpi + _GAP)
    return missing


def _texts(ax: "Axes") -> list[Any]:
    """List what is written in and around a panel."""
    kind = require("matplotlib.text", "plot").Text
    found: list[Any] = ax.findobj(kind)
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def one_panel(panel: Panel, ax: "Axes | None") -> "Figure":
    if ax is None:
        return page_of([[panel]], widest=COLUMN if panel.width < 3 * panel.height else PAGE)
    panel.draw(ax)
    return ax.figure  # pyright: ignore


def new_figure(width: float, height: float) -> "Figure":
    """Make a figure with its own canvas, which notebooks show because it can say its PNG."""
    module = require("matplotlib.figure", "plot")
    canvas = require("matplotlib.backends.backend_agg", "plot").FigureCanvasAgg

    class Page(module.Figure):
        def draw(self, renderer: Any) -> None:
            _plain_where_broken(self)
            super().draw(renderer)

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    made = Page(figsize=(width, height), dpi=DPI, facecolor="white")
    canvas(made)
    return made


def _plain_where_broken(drawn: Any) -> None:
    """Show texts of a figure, or the one text, that are no formulas, though they hold dollars, as they are: names come
    from files."""
    kind, parser = (
        require("matplotlib.text", "plot").Text,
        require("matplotlib.mathtext", "plot").MathTextParser("path"),
    )
    for text in drawn.findobj(kind):
        if "$" in text.get_text():
            try:
                parser.parse(text.get_text())
            except ValueError:
                text.set_parse_math(False)


def _extent(text: Any) -> Any:
    """Measure a text [pixel] as the page will draw it."""
    _plain_where_broken(text)
    return text.get_window_extent()


def show(
    ax: "Axes",
    data: np.ndarray,
    title: str,
    aspect: Literal["equal", "auto"] = "equal",
    ending: str = "",
    beside: float = BESIDE,
    **how: Any,
) -> Any:
    """Draw the image in its frame; what has no value is grey and hatched.

    The title, but not its `ending`, is shortened to what has room above the panel and so many inches `beside` it.
    """
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
        _fit(ax.set_title(title + ending, fontsize=FONT + 1, loc="left", pad=4), ax, ending, beside)
    return shown


def _fit(title: Any, ax: "Axes", ending: str, beside: float) -> None:
    """Shorten a title to one line, first by what stands in brackets at its end."""
    figure: Any = ax.figure
    room = ax.get_position().width * figure.bbox.width + beside * figure.dpi
    share = lambda: room / max(_extent(title).width, 1)
    said = title.get_text().removesuffix(ending)
    if share() < 1 and said.endswith(")") and " (" in said:
        said = said[: said.index(" (")]
        title.set_text(said + ending)
    while share() < 1 and said:
        said = said[: min(int(len(said) * share()), len(said) - 1)].rstrip()
        title.set_text(said + "…" + ending)


def scale_bar(ax: "Axes", columns: int, pixel_size: float | None) -> None:
    """Draw a bar of a round length below the image, where it hides nothing."""
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
    """Choose the length [pixel] of the bar for so many columns, the round length nearest to a fifth of them, and its
    label."""
    wanted = 0.2 * columns * (1.0 if pixel_size is None else pixel_size)
    power = 10.0 ** math.floor(math.log10(wanted))
    length = min((f * power for f in (1, 2, 5, 10)), key=lambda l: abs(math.log(l / wanted)))
    if pixel_size is None:
        length = max(round(length), 1)
        return length, f"{length} pixel" + ("s" if length > 1 else "")
    exponent, unit = unit_for("m", length * (1 + 1e-9))
    return length / pixel_size, f"{length / 10.0**exponent:.3g} {unit}"


def colour_bar(ax: "Axes", shown: Any, units: str, label: str, tall: float = 1.0) -> None:
    """Draw a bar with round numbers and the unit, right of the panel from its top down, `tall` times as high as it
    is; arrows at its ends say that there are values beyond."""
    box, inches = ax.get_position(), ax.figure.get_size_inches()  # pyright: ignore
    wide, high = box.width * inches[0], box.height * inches[1] * tall
    bar = ax.inset_axes((1 + 0.06 / wide, 1 - tall, 0.09 / wide, tall))
    low, high_value = shown.get_clim()
    drawn = ax.figure.colorbar(shown, cax=bar, extend=_beyond(shown.get_array(), low, high_value), extendfrac=0.05)
    exponent, unit = unit_for(units, max(abs(low), abs(high_value)))
    ticks, labels = round_ticks(low, high_value, exponent, min(5, int(high / 0.3)))
    drawn.set_ticks(ticks, labels=labels)
    bar.minorticks_off()
    bar.tick_params(labelsize=FONT, length=2, width=0.5, pad=2)
    drawn.outline.set_linewidth(0.5)
    said = " ".join(t for t in (label, f"[{raised(unit)}]" if unit else "") if t)
    # A vertical label would stick out of a low bar.
    if high < 0.7:
        _fit_inside(bar.set_title(said, fontsize=FONT, loc="left", pad=4))
    else:
        drawn.set_label(said, fontsize=FONT, labelpad=3)


def _beyond(values: Any, low: float, high: float) -> str:
    """Say at which ends of a colour bar values are clipped, as matplotlib does."""
    values = np.ma.compressed(values)
    values = values[np.isfinite(values)]
    below, above = bool((values < low).any()), bool((values > high).any())
    return {(True, True): "both", (True, False): "min", (False, True): "max"}.get((below, above), "neither")


def _fit_inside(title: Any) -> None:
    """Move a text to the left until it ends on its page."""
    beyond = _extent(title).x1 - title.figure.bbox.x1
    if beyond > 0:
        title.set_x(title.get_position()[0] - 1.02 * beyond / title.axes.bbox.width)


def raised(unit: str) -> str:
    """Write the powers of a unit as they are printed, "rad^2" as "rad²"."""
    return re.sub(r"\^(-?\d+)", lambda power: power.group(1).translate(_SUPERSCRIPT), unit)


def unit_for(units: str, largest: float) -> tuple[int, str]:
    """Choose the power of ten taken out of the numbers and the unit that says so."""
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


def round_ticks(low: float, high: float, exponent: int, count: int) -> tuple[list[float], list[str]]:
    """Choose round values inside the limits and how to write them with as many digits as they need, and no more."""
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


def name_axes(ax: "Axes", across: str, down: str, marks: tuple[int, int] | None = None) -> None:
    """Write names at the far ends of the axes, and ticks outside of the frame where the other planes cut."""
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


def with_axes(array: Any, axes: int, what: str) -> np.ndarray:
    data = np.asarray(array)
    if data.ndim != axes or not data.size:
        raise InputError(f"{what} needs {axes} axes and at least one pixel, not the shape {data.shape}")
    return data if data.dtype.kind in "fc" else data.astype(float)


def real_image(array: Any, what: str) -> np.ndarray:
    data = with_axes(array, 2, what)
    if np.iscomplexobj(data):
        raise InputError(f"{what} must be real; complex_image shows phase and modulus")
    return data


def drawable(data: np.ndarray) -> np.ndarray:
    found = np.isfinite(data)
    return found if found.any() else np.ones(data.shape, bool)


def box_of(seen: np.ndarray) -> tuple[slice, slice]:
    """Find the smallest rectangle that holds everything seen."""
    found = [np.flatnonzero(seen.any(axis)) for axis in (1, 0)]
    rows, columns = (slice(int(f[0]), int(f[-1]) + 1) for f in found)
    return rows, columns


def panel_size(shape: tuple[int, ...]) -> tuple[float, float]:
    """Give width and height with the height 1; strips thinner than 1:20 are drawn higher than they are."""
    return min(max(shape[1] / shape[0], 0.05), 20.0), 1.0


def limits_of(data: np.ndarray) -> tuple[float, float]:
    """Give percentiles 0.5 and 99.5 of the finite values, never equal."""
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
