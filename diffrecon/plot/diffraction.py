"""Pictures of powder diffraction: patterns over their angle with the reflections named, phases in one colour map."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .._result import Quantity, Result
from .curves import curve_axes
from .page import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def pattern_panels(name: str, quantity: Quantity, result: Result) -> list[Panel]:
    """Draw a pattern over the axis that the result has for it."""
    data = np.asarray(quantity.data, float)
    if data.ndim == 2 and np.isfinite(data).any():  # a cake: the mean over the sectors that saw something
        seen = np.isfinite(data)
        data = np.where(seen, data, 0).sum(0) / np.maximum(seen.sum(0), 1)
    if data.ndim != 1:
        return []
    axis = result.quantities.get(quantity.axes[-1])
    across = np.arange(data.size) if axis is None else np.asarray(axis.data, float)
    label = "channel" if axis is None else f"{axis.long_name or quantity.axes[-1]} [{axis.units}]"

    def draw(ax: "Axes") -> Any:
        ax.plot(across, data, color="black", lw=0.6)
        unit = f" [{quantity.units}]" if quantity.units else ""
        curve_axes(ax, label, f"intensity{unit}", quantity.long_name or name)

    return [Panel(draw, width=4.2, left=0.55, right=0.1, bottom=0.42)]
