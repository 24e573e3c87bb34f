"""A result on one page: which picture each kind of quantity becomes, and where it stands."""

from collections.abc import Callable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .._result import Quantity, Result
from ..errors import InputError
from .curves import convergence_panel, positions_panel, ring_panel, weight_panel
from .diffraction import (
    course_panels,
    element_panels,
    pattern_panels,
    phase_in_time_panels,
    phase_panels,
    strain_panels,
)
from .images import complex_panels, image_panel, mode_panels, sinogram_panel, slice_panels
from .orientation import orientation_panels
from .page import GREY, MAGNITUDE, Panel, box_of, drawable, in_rows, page_of
from .sphere import sphere_panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_IMAGES = 6  # on one page


class Picture(NamedTuple):
    """How quantities of one kind are drawn.

    **Fields:** `panels(name, quantity, result)`, none for what is not worth drawing; `own_row`: they stand in a row of
    their own, which three panels or more always do.
    """

    panels: Callable[[str, Quantity, Result], list[Panel]]
    own_row: bool = False


def register_picture(
    kind: str, panels: Callable[[str, Quantity, Result], list[Panel]], *, own_row: bool = False
) -> None:
    """Say how quantities of a new `kind` are drawn by `figure`; of a known kind, how they are from now on.

    **Arguments:** `panels(name, quantity, result)` gives a list of `Panel`, empty for what is not worth drawing.

    ```python
    def stems(name, quantity, result):
        draw = lambda ax: ax.stem(quantity.data) and ax.set_title(name)
        return [dr.plot.Panel(draw, width=1.35, left=0.55, right=0.1, bottom=0.42)]

    dr.plot.register_picture("stems", stems)
    figure = dr.plot.figure(dr.Result("mine", {"strengths": dr.Quantity(np.arange(5.0), "", ("order",), kind="stems")}))
    ```
    """
    pictures[kind] = Picture(panels, own_row)


def figure(result: Result, path: str | PathLike | None = None, about: str = "") -> "Figure":
    """Tell the story of a result on one page: its pictures, how it converged, and the verdict in words.

    **Arguments:** `result` from `diffrecon.reconstruct` or `diffrecon.read_result`; `path` where it is saved (the
    ending says the format: png, pdf, svg), `None` = not saved; `about`, one line below the title: file, energy, date.

    What is shown follows the `kind` of each quantity, by the table `pictures`, in its order. A complex object is
    cropped to where it was seen when the result says so by a `phase` with NaN elsewhere. Images that are constant are
    left out.

    **Raises:** `MissingPackage` without matplotlib; `InputError` when nothing in the result can be drawn.
    """
    rows = _story(result)
    if not rows:
        raise InputError(f"the result of {result.method} has no quantity or curve that can be drawn")
    page = page_of(rows, title=_headline(result.method), words=(*([about] if about else []), *result.verdict))
    if path is not None:
        page.savefig(path)
    return page


def _headline(method: str) -> str:
    name = method.replace("-", " ")
    for known in ("near-field", "far-field", "K-edge", "SAXS", "CDI"):
        name = name.replace(known.lower().replace("-", " "), known)
    return name[:1].upper() + name[1:]


def _story(result: Result) -> list[list[Panel]]:
    """Arrange panels in rows: what was reconstructed first, what explains it after, how well it went last."""
    rows: list[list[Panel]] = []
    small: list[Panel] = []
    for kind, picture in pictures.items():
        panels = [picture.panels(n, q, result) for n, q in result.quantities.items() if q.kind == kind]
        many = [row for row in panels if picture.own_row or len(row) >= 3]
        rows += [row for row in many if row]
        few = [panel for row in panels if row not in many for panel in row]
        small += few[:_MOST_IMAGES] if kind == "image" else few
    return rows + in_rows([*small, *_curves(result)])


# ---------------------------------------------------------------------------------------------------- kinds
def _object(name: str, quantity: Quantity, result: Result) -> list[Panel]:
    """Draw phase and modulus; the result's own phase, NaN where the object was not seen, replaces the plain one."""
    data = np.asarray(quantity.data)
    if data.ndim != 2:
        return []
    phase = result.quantities.get("phase")
    own = phase is not None and quantity is _object_of(result) and np.shape(phase.data) == data.shape
    known = np.asarray(phase.data) if own and phase is not None else None
    seen = np.isfinite(known) if known is not None else drawable(data)
    seen = seen if seen.any() else drawable(data)
    box = box_of(seen)
    return complex_panels(
        np.where(seen, data, np.nan)[box], quantity.pixel_size, phase=None if known is None else known[box]
    )


def _object_of(result: Result) -> Quantity | None:
    """Find the complex image to which a `phase` belongs."""
    return next((q for q in result.quantities.values() if q.kind == "complex" and np.ndim(q.data) == 2), None)


def _volume(name: str, quantity: Quantity, result: Result) -> list[Panel]:
    units = quantity.units
    return slice_panels(quantity.data, quantity.pixel_size, units, _label(name, quantity), None, _colours_for(units))


def _modes(name: str, quantity: Quantity, result: Result) -> list[Panel]:
    data = np.asarray(quantity.data)
    return mode_panels(data.reshape(-1, *data.shape[-2:]), quantity.pixel_size)


def _orientation(name: str, quantity: Quantity, result: Result) -> list[Panel]:
    return orientation_panels(quantity.data, None, None, quantity.pixel_size, _label(name, quantity))


def _direction(name: str, quantity: Quantity, result: Result) -> list[Panel]:
    """Draw axes as bright as they are long."""
    data = np.asarray(quantity.data, float)
    length = np.linalg.norm(data, axis=-1)
    if not (length > 0).any():
        return []
    weight = length / np.nanpercentile(length[length > 0], 98)
    return orientation_panels(data, None, weight, quantity.pixel_size, _label(name, quantity))


def _image(name: str, quantity: Quantity, result: Result) -> list[Panel]:
    data, label = np.asarray(quantity.data), _label(name, quantity)
    drawn = _object_of(result)
    if data.ndim != 2 or (name == "phase" and drawn is not None and np.shape(drawn.data) == data.shape):
        return []
    if np.iscomplexobj(data) or not data.size or np.nanmax(data) == np.nanmin(data):
        return []
    if quantity.axes and quantity.axes[0] in ("view", "angle"):
        return [sinogram_panel(data, None, quantity.pixel_size, quantity.units, label)]
    shown = data[box_of(_seen(data, drawn, result))]
    return [image_panel(shown, quantity.pixel_size, quantity.units, label, None, _colours_for(quantity.units))]


def _seen(data: np.ndarray, drawn: Quantity | None, result: Result) -> np.ndarray:
    """Tell where an image can be drawn; of one on the grid of the object, where that was seen."""
    phase = result.quantities.get("phase")
    if drawn is None or phase is None or not np.shape(drawn.data) == np.shape(phase.data) == data.shape:
        return drawable(data)
    return drawable(data) & np.isfinite(np.asarray(phase.data))


def _positions(name: str, quantity: Quantity, result: Result) -> list[Panel]:
    return [positions_panel(quantity, result.quality.get("held_out_views"))]


def _label(name: str, quantity: Quantity) -> str:
    return quantity.long_name or name.replace("_", " ")


def _colours_for(units: str) -> str:
    """Choose grey for what is read like a radiograph, cividis for amounts: counts, concentrations, lengths."""
    return GREY if units in ("", "rad", "1/m") else MAGNITUDE


# How each kind of `Quantity` is drawn, in the order of the page; `register_picture` adds to it.
pictures: dict[str, Picture] = {
    "complex": Picture(_object, own_row=True),
    "orientation": Picture(_orientation),
    "direction": Picture(_direction),
    "volume": Picture(_volume),
    "modes": Picture(_modes),
    "image": Picture(_image),
    "phase": Picture(phase_panels),
    "phase_in_time": Picture(phase_in_time_panels),
    "course": Picture(course_panels),
    "element": Picture(element_panels),
    "strain": Picture(strain_panels),
    "pattern": Picture(pattern_panels),
    "positions": Picture(_positions),
    "sphere": Picture(sphere_panels),
}


def _curves(result: Result) -> list[Panel]:
    """Draw what the figures of quality hold as curves."""
    panels, quality = [], result.quality
    history = np.asarray(quality.get("history", ()), float)
    if history.ndim == 1 and history.size > 1:
        panels.append(convergence_panel(history, quality.get("held_out_history")))
    if "penalty_weights" in quality and np.size(quality["penalty_weights"]) > 1:
        panels.append(weight_panel(quality))
    for name, figures in [("ring correlation", quality), *quality.items()]:
        if isinstance(figures, Mapping) and "correlation" in figures and "frequency" in figures:
            panels.append(ring_panel(figures, None, name.replace("_", " ")))
    return panels
