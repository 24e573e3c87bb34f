"""Pictures of fibre axes: colours and lines by direction."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from ..errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
from .colours import axis_colours
from .page import FONT, ArrayLike, Panel, beside, page_of, scale_bar, show


def orientation(
    vectors: Float[ArrayLike, "*z y x 3"],
    mask: Bool[ArrayLike, "*z y x"] | None = None,
    *,
    weight: Float[ArrayLike, "*z y x"] | None = None,
    pixel_size: float | None = None,
    title: str = "",
) -> "Figure":
    """Draw fibre axes: hue = direction in the plane shown (also drawn as lines), white = through it; a key at each
    panel.

    **Arguments:** `vectors` `(y, x, 3)` or `(z, y, x, 3)`, components (x, y, z), sign and length of no meaning; `mask`,
    False = not shown; `weight` in 0..1 darkens (relative anisotropy, say); `pixel_size` [m]. Of a volume the three
    middle planes are shown. A tilt out of the plane towards the viewer and the same tilt away share one colour.
    """
    return page_of([orientation_panels(np.asarray(vectors), mask, weight, pixel_size, title)])


def orientation_panels(vectors, mask, weight, pixel_size, title) -> list[Panel]:
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

    def panel(number: int) -> Panel:
        cut, down, across, place = cuts[number]
        through = ({*"xyz"} - {across, down}).pop()
        plane = data[cut][..., ["xyz".index(c) for c in (across, down, through)]]

        name = ": ".join(t for t in (title if number == 0 else "", place) if t)

        def draw(ax):
            show(ax, axis_colours(plane, light[cut]), name)
            _axis_lines(ax, plane)
            _axis_key(ax, across, down, through)
            if number == 0:
                scale_bar(ax, plane.shape[1], pixel_size)

        return Panel(draw, plane.shape[1], plane.shape[0], right=0.85)

    return [panel(i) for i in range(len(cuts))]


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
    key = beside(ax, 0.1, 0.0, 0.5)
    grid = np.linspace(-1, 1, 121)
    x, y = np.meshgrid(grid, grid)
    radius = np.hypot(x, y)
    plane = np.stack([x, y, np.sqrt(np.clip(1 - radius**2, 0, 1))], -1)
    colours = axis_colours(plane, np.ones(radius.shape))
    colours[..., 3] = np.clip((1 - radius) * 60, 0, 1)
    key.imshow(colours, extent=(-1, 1, 1, -1))
    key.text(1.1, 0, across, fontsize=FONT, va="center")
    key.text(0, 1.1, down, fontsize=FONT, ha="center", va="top")
    key.text(0, 2.1, f"white: {through}", fontsize=FONT, ha="center", va="top")
