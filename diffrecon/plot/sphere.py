"""Pictures of functions of a direction: the half sphere seen from its pole, areas as they are on the sphere."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .._result import Quantity, Result
from .page import FONT, MAGNITUDE, Panel, colour_bar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 6  # spheres in a row


def sphere_panels(name: str, quantity: Quantity, result: Result) -> list[Panel]:
    """Draw functions `(polar, azimuth)` or `(which, polar, azimuth)` of even parity, polar angle 0 to 90 degrees.

    Several are named by the quantity's name, divided by semicolons. Lambert's equal-area projection: x to the right, y
    upwards, z towards the viewer.
    """
    data = np.asarray(quantity.data, float)
    data = data[None] if data.ndim == 2 else data
    if data.ndim != 3 or 0 in data.shape or not np.isfinite(data).any():
        return []
    titles = (quantity.long_name or name.replace("_", " ")).split("; ")
    titles += [str(number + 1) for number in range(len(titles), len(data))]
    share = name == "coverage"
    return [_panel(one, quantity.units, title, share) for one, title in zip(data[:_MOST], titles, strict=False)]


def _panel(values: np.ndarray, units: str, title: str, share: bool) -> Panel:
    polar, azimuth = values.shape
    radius = np.sqrt(2) * np.sin(np.linspace(0, np.pi / 4, polar + 1))
    angle = np.linspace(0, 2 * np.pi, azimuth + 1)
    limits: dict[str, Any] = {"vmin": 0.0, "vmax": 1.0} if share else {}

    def draw(ax: "Axes") -> None:
        x, y = radius[:, None] * np.cos(angle), radius[:, None] * np.sin(angle)
        shown = ax.pcolormesh(x, y, values, cmap=MAGNITUDE, shading="flat", rasterized=True, **limits)
        ax.set(aspect="equal", xlim=(-1.05, 1.05), ylim=(-1.05, 1.05))
        ax.set_title(title, fontsize=FONT, loc="left")
        ax.set_axis_off()
        for place, letter in (((1.0, 0.0), "x"), ((0.0, 1.0), "y"), ((0.0, 0.0), "z")):
            box = {"boxstyle": "circle,pad=0.1", "facecolor": "white", "linewidth": 0, "alpha": 0.8}
            ax.annotate(letter, place, ha="center", va="center", fontsize=FONT, color="black", bbox=box)
        colour_bar(ax, shown, units, "")

    return Panel(draw)
