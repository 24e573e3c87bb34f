"""The page of a result: one HTML file that holds everything and asks for nothing.

Pictures are arrays of 16-bit numbers that `viewer.js` (plain canvas, no library: it is to open in ten years) draws with
zoom, contrast, values under the pointer, profiles and slices. Every text that comes from a file is escaped.
"""

import html
import json
from importlib import resources
from typing import Any

import numpy as np

from ..._result import Result
from .._inspect import figures
from .curves import plots
from .pictures import colour_tables, panes

__all__ = ["page"]

# What was never fitted, against what photon noise alone would leave: good below the first, bad above the second.
# A deviance is a square: the model's own error adds as much as the noise where the ratio is two.
_FITS = (
    ("held_out_deviance", "noise_floor_deviance", 1.3, 3.0),
    ("held_out_residual", "noise_floor_residual", 1.15, 1.75),
)
_DOUBTS = "misses", "warning", "left out", "disagree"  # words of a verdict that want to be read

_LIVE = (
    "<section><h2>Now</h2><p id=live-now></p><div id=live-curves class=curves></div>"
    "<details open><summary>Messages</summary><div id=live-messages></div></details></section>"
)


def page(name: str, result: Result, process: dict[str, Any], live: bool = False) -> str:
    """Write the page.

    **Arguments:** `name` of the file; `result`; `process`, what `io.process` read of how it was made; `live`: of a run
    that goes on, which is asked where it is.
    """
    shown = panes(result)
    ended = (
        []
        if live
        else [
            _details("Figures", _table(figures(result.quality))),
            _details("Settings and the command to repeat", _repeat(result, process)),
            _details("Input, versions", _input(process)),
        ]
    )
    parts = [
        f"<header><h1>{_safe(name)}</h1>{_card(result, process)}</header>",
        _LIVE if live else f"<section class=lights>{''.join(_lights(result))}</section>",
        _list("Verdict", result.verdict),
        "<section id=pictures><h2>Pictures</h2><p class=hint>Wheel: zoom. Drag: move. Double click: whole picture. "
        "Shift and drag: profile.</p><noscript>The pictures need JavaScript.</noscript></section>",
        _curves(result),
        *ended,
    ]
    data = {"panes": shown, "colours": colour_tables()}
    text = lambda file: (resources.files(__name__) / file).read_text(encoding="utf-8")
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_safe(name)}</title><style>{text('style.css')}</style>"
    )
    script = f'<script type="application/json" id="data">{_json(data)}</script><script>{text("viewer.js")}</script>'
    script += f"<script>{text('live.js')}</script>" if live else ""
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}{script}</body></html>\n'


def _curves(result: Result) -> str:
    drawn = "".join(plots(result.quality))
    return f"<section class=curves><h2>Curves</h2>{drawn}</section>" if drawn else ""


def _safe(value: Any) -> str:
    return html.escape(str(value))


def _json(data: Any) -> str:
    """JSON that cannot end the element it stands in."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def _card(result: Result, process: dict[str, Any]) -> str:
    """Say what it is in a few pairs of words."""
    source, scan = process.get("input", {}), process.get("scan", {})
    rows = {"method": result.method, "file": source.get("file", ""), **scan}
    if process:
        rows |= {
            "made": process.get("date", "")[:16].replace("T", " "),
            "duration": process.get("duration", ""),
            "by": f"diffrecon {process.get('version', '')}",
        }
    if not any(rows.values()):
        return ""
    cells = (f"<div><dt>{_safe(k.replace('_', ' '))}</dt><dd>{_safe(v)}</dd></div>" for k, v in rows.items() if str(v))
    return f"<dl class=card>{''.join(cells)}</dl>"


def _lights(result: Result) -> list[str]:
    return [_light(*found) for found in (_fit(result.quality), _resolution(result), _health(result.verdict))]


def _light(colour: str, title: str, value: str, words: str) -> str:
    return (
        f'<div class="light {colour}"><strong>{title}</strong><span class=value>{_safe(value)}</span>'
        f"<span>{_safe(words)}</span></div>"
    )


def _fit(quality: Any) -> tuple[str, str, str, str]:
    for measured, floor, good, bad in _FITS:
        if measured in quality and np.size(quality[measured]) and float(np.mean(quality.get(floor, 0.0))) > 0:
            ratio = float(np.mean(quality[measured])) / float(np.mean(quality[floor]))
            colour = "good" if ratio <= good else "fair" if ratio <= bad else "bad"
            return colour, "Data never fitted", f"{ratio:.3g} x noise", measured.replace("_", " ")
    for name in ("relative_residual", "deviance"):
        if name in quality:
            value = f"{float(np.mean(quality[name])):.4g}"
            return "unknown", "Data", value, f"{name.replace('_', ' ')}: of fitted data"
    return "unknown", "Data", "not judged", "nothing was held out"


def _resolution(result: Result) -> tuple[str, str, str, str]:
    numbers = {name.rpartition(".")[2]: value for name, value in figures(result.quality).items()}
    found, length = numbers.get("half_period_pixels", np.nan), numbers.get("resolution_m")
    if not np.isfinite(found):
        can = "halves" in result.settings.get("quality", {})
        return "unknown", "Resolution", "not measured", "quality.halves = true measures it" if can else ""
    said = f"{found:.3g} pixels" if length is None else f"{length * 1e9:.4g} nm"
    return ("good" if found <= 4 else "fair"), "Resolution, half period", said, "two halves of the data"


def _health(verdict: tuple[str, ...]) -> tuple[str, str, str, str]:
    said = " ".join(verdict).lower()
    if "failed" in said or "interrupted" in said:
        return "bad", "Verdict", "failed" if "failed" in said else "interrupted", "read the lines below"
    doubts = sum(any(word in line.lower() for word in _DOUBTS) for line in verdict)
    if not doubts:
        return "good", "Verdict", "no remark", ""
    return "fair", "Verdict", f"{doubts} remark{'s' * (doubts > 1)}", "among the lines below"


def _list(title: str, lines: Any) -> str:
    return (
        f"<section><h2>{title}</h2><ul>{''.join(f'<li>{_safe(v)}</li>' for v in lines)}</ul></section>" if lines else ""
    )


def _details(title: str, inside: str) -> str:
    return f"<details><summary>{title}</summary>{inside}</details>"


def _table(rows: dict[str, Any]) -> str:
    if not rows:
        return "<p>none</p>"
    said = {k: f"{v:.5g}" if isinstance(v, float) else str(v) for k, v in rows.items()}
    cells = (f"<tr><th>{_safe(k.replace('_', ' '))}</th><td>{_safe(v)}</td></tr>" for k, v in said.items())
    return f"<table>{''.join(cells)}</table>"


def _repeat(result: Result, process: dict[str, Any]) -> str:
    file = process.get("input", {}).get("file", "FILE")
    command = f"diffrecon reconstruct {file} -m {result.method} -c settings.toml"
    return f"<pre>{_safe(command)}</pre><p>settings.toml:</p><pre>{_safe(process.get('config', ''))}</pre>"


def _input(process: dict[str, Any]) -> str:
    source = process.get("input", {})
    messages = _list("Messages", source.get("messages", "").splitlines())
    return (
        _table({k: source[k] for k in ("file", "reader", "sha256") if k in source})
        + messages
        + _table(process.get("versions", {}))
    )
