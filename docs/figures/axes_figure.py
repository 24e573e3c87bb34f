"""Draw `axes.png`, the axes of conventions.md: `python docs/figures/axes_figure.py`."""

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffrecon.plot.page import BLUE, DARK, FONT, ORANGE, PAGE, new_figure


def axes_drawing(path: str | PathLike) -> Figure:
    """Draw the axes, angles and pixel coordinates of diffrecon (for conventions.md)."""
    page = new_figure(PAGE, 2.55)
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
    page.savefig(path)
    return page


def _draw_laboratory(ax: Axes) -> None:
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


def _draw_wall(ax: Axes, flat: Callable[..., np.ndarray], turn: np.ndarray) -> None:
    """The side of the sample cylinder that is seen."""
    rim = np.stack([flat(0.5 * np.sin(t), 0.5 * np.cos(t), 0.0) for t in turn])
    left, right = rim[rim[:, 0].argmin()], rim[rim[:, 0].argmax()]
    front = rim[(rim - left) @ np.array([-(right - left)[1], (right - left)[0]]) <= 0]
    front = front[np.argsort(front[:, 0])]
    wall = np.concatenate([front + (0, -0.6), front[::-1] + (0, 0.6)])
    ax.fill(*wall.T, facecolor="0.9", edgecolor=DARK, linewidth=0.8, zorder=2)


def _draw_plan(ax: Axes) -> None:
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


def _draw_pixels(ax: Axes) -> None:
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


def _say(ax: Axes, place: np.ndarray, text: str, **how: Any) -> None:
    ax.text(place[0], place[1], text, **{"fontsize": FONT, "ha": "center", "va": "center", **how})


def _arrow(ax: Axes, start: Any, end: Any, colour: str, width: float = 1.2) -> None:
    how = {"arrowstyle": "-|>", "color": colour, "linewidth": width, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=how, zorder=5)


if __name__ == "__main__":
    axes_drawing(Path(__file__).with_name("axes.png"))
