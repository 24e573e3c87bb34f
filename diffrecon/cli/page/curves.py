"""Curves of a result as SVG with axes: those of one correlation together, costs by step."""

import html
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

_WIDE, _HIGH, _LEFT, _BELOW, _ABOVE = 560, 240, 64, 40, 14
_COLOURS = ("#0072b2", "#d55e00", "#666666", "#009e73")  # told apart with every kind of colour vision
_SHORTEST = 8  # values of a curve; fewer are numbers
_X_NAMES = "frequency", "prtf_frequency"


def plots(quality: Mapping[str, Any]) -> Iterator[str]:
    """Draw every curve, those that share a frequency axis in one frame."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    for group, name, values in _curves(quality):
        groups.setdefault(group, {})[name] = values
    for group, curves in groups.items():
        axis = next((name for name in _X_NAMES if name in curves), None)
        together = {n: v for n, v in curves.items() if axis and n != axis and len(v) == len(curves[axis])}
        if together and axis:
            yield _frame(group or "correlation", "frequency [cycles/pixel]", curves[axis], together)
        for name, values in curves.items():
            if name != axis and name not in together and np.isfinite(values).sum() > 2:
                yield _frame(f"{group} {name}".strip(), _counted(name), np.arange(len(values)), {name: values})


def _curves(quality: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield group, name and values of every curve among the figures."""
    for name, value in quality.items():
        if isinstance(value, Mapping):
            yield from _curves(value, f"{prefix}{name} ")
        elif isinstance(value, np.ndarray) and value.ndim == 1 and value.size >= _SHORTEST and value.dtype.kind == "f":
            yield prefix.strip(), name, value


def _counted(name: str) -> str:
    return "step" if "history" in name or "cost" in name else "number"


def _frame(title: str, x_label: str, x: np.ndarray, curves: Mapping[str, np.ndarray]) -> str:
    values = np.concatenate([v[np.isfinite(v)] for v in curves.values()])
    logarithmic = values.min() > 0 and values.max() > 100 * values.min()
    shown = {n: np.log10(v) if logarithmic else v.astype(float) for n, v in curves.items()}
    y_ticks = _ticks(*_range(shown.values()), logarithmic)
    x_ticks = _ticks(float(np.nanmin(x)), float(np.nanmax(x)), False)
    low, high = min(y_ticks[0], _range(shown.values())[0]), max(y_ticks[-1], _range(shown.values())[1])
    right = lambda v: _LEFT + (_WIDE - _LEFT - 12) * (v - np.nanmin(x)) / (np.nanmax(x) - np.nanmin(x))
    up = lambda v: _HIGH - _BELOW - (_HIGH - _BELOW - _ABOVE) * (v - low) / (high - low)
    parts = [_tick(right(t), _HIGH - _BELOW + 16, f"{t:.4g}", "middle") for t in x_ticks]
    for tick in y_ticks:
        label = f"{10**tick:.3g}" if logarithmic else f"{tick:.4g}"
        parts.append(f'<line class=grid x1="{_LEFT}" x2="{_WIDE - 12}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>')
        parts.append(_tick(_LEFT - 6, up(tick) + 4, label, "end"))
    parts.append(_tick((_LEFT + _WIDE) / 2, _HIGH - 4, x_label, "middle"))
    for colour, values in zip(_COLOURS * 9, shown.values(), strict=False):
        points = " ".join(f"{right(a):.1f},{up(b):.1f}" for a, b in zip(x, values, strict=True) if np.isfinite(b))
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.8" points="{points}"/>')
    legend = "".join(
        f'<span style="color:{c}">{html.escape(n.replace("_", " "))}</span> '
        for c, n in zip(_COLOURS * 9, shown, strict=False)
    )
    caption = f"<figcaption>{html.escape(title.replace('_', ' '))}: {legend}</figcaption>"
    return f'<figure class=curve><svg viewBox="0 0 {_WIDE} {_HIGH}" role="img">{"".join(parts)}</svg>{caption}</figure>'


def _range(curves: Any) -> tuple[float, float]:
    values = np.concatenate([v[np.isfinite(v)] for v in curves])
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float, whole: bool) -> np.ndarray:
    """Round numbers that span a range, about five."""
    rough = max((high - low) / 5, 1e-300)
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough)
    step = max(step, 1.0) if whole else step
    ticks = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    return ticks if len(ticks) else np.array([low])


def _tick(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'
