"""Pictures of arrays: images, complex images, probe modes, sinograms, slices of a volume."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Complex, Float, Num

from ..errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
from .colours import complex_colours
from .page import (
    BESIDE,
    CYCLIC,
    FONT,
    GREY,
    MAGNITUDE,
    ArrayLike,
    Panel,
    beside,
    colour_bar,
    limits_of,
    name_axes,
    one_panel,
    page_of,
    panel_size,
    real_image,
    scale_bar,
    show,
    with_axes,
)


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
    """Draw a real image in grey with scale bar and colour bar.

    **Arguments:** `array` `(y, x)`, NaN = not seen; `pixel_size` [m], `None` = lengths in pixels; `units` of values and
    `label` = what they are, for the colour bar; `limits` of the colours, else the percentiles 0.5 and 99.5; `colours` a
    matplotlib colour map (`"gray"` for phase and absorption, `"cividis"` for magnitudes).

    **Raises:** `InputError` for anything but a real array of two axes.

    ```python
    figure = dr.plot.image(np.random.rand(64, 64), pixel_size=50e-9, units="rad", title="phase")
    ```
    """
    return one_panel(image_panel(array, pixel_size, units, title, limits, colours, label), ax)


def complex_image(
    obj: Complex[ArrayLike, "y x"],
    *,
    pixel_size: float | None = None,
    seen: Bool[ArrayLike, "y x"] | None = None,
    title: str = "",
) -> "Figure":
    """Draw phase [rad] and modulus of a complex image side by side.

    **Arguments:** `obj` `(y, x)`, NaN = not seen; `pixel_size` [m]; `seen` `(y, x)`, False = hatched, left out of
    the choice of colours. A phase that spans the whole circle gets a cyclic map over 2 pi, else grey; it is not
    unwrapped, but its branch is chosen so that the mean phase does not sit at a jump.

    **Raises:** `InputError` for anything but an array of two axes.
    """
    data = with_axes(obj, 2, "a complex image")
    if seen is not None:
        data = np.where(np.asarray(seen, bool), data, np.nan)
    return page_of([complex_panels(data, pixel_size)], title)


def probe_modes(
    probe: Complex[ArrayLike, "*mode y x"], pixel_size: float | None = None, *, title: str = ""
) -> "Figure":
    """Draw probe modes in colour: hue = phase, brightness = modulus (each mode to its own maximum), power in %.

    Hues are equally light and equally spaced to the eye (a circle in Oklab). Hue cannot carry a whole circle for every
    colour vision; `complex_image` of a mode shows the same in two panels without hue.

    **Arguments:** `probe` `(mode, y, x)` or `(y, x)`, centred; `pixel_size` [m]. Shown is the part that holds 99.5 % of
    the light across and down, of the five first modes; powers are shares of all.
    """
    data = np.asarray(probe)
    data = with_axes(data[None] if data.ndim == 2 else data, 3, "a probe")
    return page_of([mode_panels(data, pixel_size)], title)


def sinogram(
    array: Num[ArrayLike, "view u"],
    *,
    angles: Float[ArrayLike, " view"] | None = None,
    pixel_size: float | None = None,
    units: str = "",
    title: str = "",
    ax: "Axes | None" = None,
) -> "Figure":
    """Draw one detector row of all views: columns across, views down (labelled in degrees with `angles` [rad])."""
    return one_panel(sinogram_panel(array, angles, pixel_size, units, title), ax)


def slices(
    volume: Num[ArrayLike, "z y x"],
    *,
    pixel_size: float | None = None,
    units: str = "",
    title: str = "",
    at: tuple[int, int, int] | None = None,
    colours: str = GREY,
) -> "Figure":
    """Draw three orthogonal cuts of a volume at one scale and in one set of colours; of a flat volume three slices
    instead.

    **Arguments:** `volume` `(z, y, x)`; `pixel_size` [m] of the voxels; `at` the indices (z, y, x) of the cuts, else
    the middle. Ticks at the frames mark where the other planes cut.

    **Raises:** `InputError` for a complex volume, or cuts outside of it.
    """
    return page_of([slice_panels(volume, pixel_size, units, title, at, colours)])


def image_panel(array, pixel_size, units, title, limits=None, colours=GREY, label="") -> Panel:
    """Draw one real image with its scale bar and colour bar."""
    data = real_image(array, "an image")
    low, high = limits_of(data) if limits is None else limits

    def draw(ax):
        shown = show(ax, data, title, vmin=low, vmax=high, cmap=colours)
        scale_bar(ax, data.shape[1], pixel_size)
        colour_bar(ax, shown, units, label)

    return Panel(draw, *panel_size(data.shape))


def complex_panels(data: np.ndarray, pixel_size: float | None, phase: np.ndarray | None = None) -> list[Panel]:
    finite = np.isfinite(data)
    wrapped = phase is None
    if phase is None:
        middle = float(np.angle(data[finite].mean())) if finite.any() else 0.0
        phase = np.where(finite, np.angle(data * np.exp(-1j * middle)) + middle, np.nan)
    limits, colours = limits_of(phase), GREY
    if wrapped and limits[1] - limits[0] > 1.8 * np.pi:
        phase, limits, colours = np.where(finite, np.angle(data), np.nan), (-np.pi, np.pi), CYCLIC
    return [
        image_panel(phase, pixel_size, "rad", "phase", limits, colours),
        image_panel(np.abs(data), pixel_size, "", "modulus", None, MAGNITUDE),
    ]


def mode_panels(modes: np.ndarray, pixel_size: float | None, most: int = 5) -> list[Panel]:
    modes = np.nan_to_num(modes)
    power = (np.abs(modes) ** 2).sum((1, 2))
    share = power / max(power.sum(), np.finfo(float).tiny)
    shown = modes[:most][(slice(None), *_lit((np.abs(modes) ** 2).sum(0)))]

    def panel(number: int) -> Panel:
        last = number == len(shown) - 1

        def draw(ax):
            name = "probe" if len(modes) == 1 else f"mode {number + 1}: {_percent(share[number])}"
            show(ax, complex_colours(shown[number]), name)
            if number == 0:
                scale_bar(ax, shown.shape[-1], pixel_size)
            if last:
                _colour_wheel(ax)

        return Panel(draw, *panel_size(shown.shape[1:]), right=1.0 if last else 0.06)

    return [panel(i) for i in range(len(shown))]


def _colour_wheel(ax: "Axes") -> None:
    """The key of hue and brightness at the right of a panel."""
    wheel = beside(ax, 0.26, 0.18, 0.5)
    grid = np.linspace(-1, 1, 201)
    plane = grid[None, :] + 1j * grid[::-1, None]
    colours = complex_colours(np.where(np.abs(plane) <= 1, plane, 0))
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


def sinogram_panel(array, angles, pixel_size, units, title) -> Panel:
    data = real_image(array, "a sinogram")
    low, high = limits_of(data)

    def draw(ax):
        shown = show(ax, data, title, aspect="auto", vmin=low, vmax=high, cmap=GREY)
        _view_ticks(ax, len(data), angles)
        scale_bar(ax, data.shape[1], pixel_size)
        colour_bar(ax, shown, units, "")

    return Panel(draw, 1.0, 0.8, left=0.55)


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


def slice_panels(volume, pixel_size, units, title, at, colours) -> list[Panel]:
    data = with_axes(volume, 3, "a volume")
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
    limits = limits_of(np.concatenate([np.ravel(c[0]) for c in cuts]))
    last, tallest = len(cuts) - 1, max(len(c[0]) for c in cuts)

    def panel(number: int) -> Panel:
        cut, down, across, place, marks = cuts[number]

        def draw(ax):
            name, ending = (title, f": {place}") if title and number == 0 else (place, "")
            room = BESIDE if number == last else 0.1  # no colour bar there, but the next panel
            shown = show(ax, cut, name, ending=ending, beside=room, vmin=limits[0], vmax=limits[1], cmap=colours)
            name_axes(ax, across, down, marks)
            if number == 0:
                scale_bar(ax, cut.shape[1], pixel_size)
            if number == last:
                colour_bar(ax, shown, units, "", tallest / len(cut))

        return Panel(draw, *reversed(cut.shape), left=0.17, right=0.72 if number == last else 0.06)

    return [panel(i) for i in range(len(cuts))]


def _lit(power: np.ndarray, share: float = 0.995) -> tuple[slice, slice]:
    """Rows and columns that hold all but the last half percent of the light, and a little around them."""
    cuts = []
    for axis in (1, 0):
        sums = np.cumsum(power.sum(axis)) / max(float(power.sum()), np.finfo(float).tiny)
        first, last = (int(np.searchsorted(sums, v)) for v in (0.5 * (1 - share), 0.5 * (1 + share)))
        around = max(2, (last - first) // 20)
        cuts.append(slice(max(first - around, 0), min(last + around + 1, len(sums))))
    return cuts[0], cuts[1]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 1e-3 else "< 0.1 %"
