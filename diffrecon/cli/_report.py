"""`diffrecon report`: a result as one HTML page with its picture, figures, settings and history, nothing linked."""

import argparse
import base64
import html
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ._inspect import figures, result_lines

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
img{max-width:100%}table{border-collapse:collapse}
td,th{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:left}
pre{background:#f5f5f5;padding:1rem;overflow-x:auto}
svg{background:#fafafa;border:1px solid #ddd}figure{margin:1rem 0}"""


def report(options: argparse.Namespace) -> int:
    """Write the page."""
    from .. import io
    from .._optional import require

    path = Path(options.file)
    output = io.check_output(options.output or path.with_suffix(".html").name)
    result, process = io.read_result(path), io.process(path)
    require("matplotlib", "plot")
    from .. import plot

    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "figure.png"
        plot.figure(result, picture)
        image = base64.b64encode(picture.read_bytes()).decode()
    with io.atomically(output) as temporary:
        temporary.write_text(page(path, result, process, image), encoding="utf-8")
    print(output)
    return 0


def page(path: Path, result: Any, process: dict[str, Any], image: str) -> str:
    """The text of the page; `image` is a PNG in base 64."""
    parts = [
        f"<h1>{html.escape(path.name)}</h1>",
        f"<p>{html.escape(result.method)}; diffrecon {_safe(process['version'])}, {_safe(process['date'])}</p>",
        f'<figure><img alt="reconstruction" src="data:image/png;base64,{image}"></figure>',
    ]
    if result.verdict:
        parts.append("<h2>Verdict</h2><ul>" + "".join(f"<li>{html.escape(v)}</li>" for v in result.verdict) + "</ul>")
    parts.append("<h2>Quality</h2>" + _table(figures(result.quality)))
    parts += [_curve(name, np.asarray(values)) for name, values in _curves(result.quality)]
    source = process.get("input", {})
    parts.append("<h2>Input</h2>" + _table({k: source[k] for k in ("file", "reader", "sha256") if k in source}))
    if source.get("messages"):
        parts.append("<ul>" + "".join(f"<li>{html.escape(m)}</li>" for m in source["messages"].splitlines()) + "</ul>")
    parts.append(f"<h2>Contents</h2><pre>{html.escape(chr(10).join(result_lines(str(path))))}</pre>")
    parts.append(f"<h2>Settings</h2><pre>{html.escape(process.get('config', ''))}</pre>")
    parts.append("<h2>Versions</h2>" + _table(process.get("versions", {})))
    head = f'<meta charset="utf-8"><title>{html.escape(path.name)}</title><style>{_STYLE}</style>'
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def _safe(value: Any) -> str:
    return html.escape(str(value))


def _table(rows: dict[str, Any]) -> str:
    if not rows:
        return "<p>none</p>"
    said = {k: f"{v:.5g}" if isinstance(v, float) else str(v) for k, v in rows.items()}
    cells = (f"<tr><th>{html.escape(k.replace('_', ' '))}</th><td>{html.escape(v)}</td></tr>" for k, v in said.items())
    return f"<table>{''.join(cells)}</table>"


def _curves(quality: Any, prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in quality.items():
        if isinstance(value, dict):
            found += _curves(value, f"{prefix}{name} ")
        elif isinstance(value, np.ndarray) and value.ndim == 1 and value.size > 2 and value.dtype.kind in "iuf":
            if name not in ("frequency",):
                found.append((f"{prefix}{name}", value))
    return found


def _curve(name: str, values: np.ndarray, width: int = 560, height: int = 160) -> str:
    """A curve as SVG, logarithmic where it falls by more than a hundred."""
    finite = values[np.isfinite(values)]
    if finite.size < 2:
        return ""
    logarithmic = finite.min() > 0 and finite.max() / finite.min() > 100
    shown = np.log10(values) if logarithmic else values.astype(float)
    low, span = np.nanmin(shown), max(float(np.nanmax(shown) - np.nanmin(shown)), 1e-300)
    x = 10 + (width - 20) * np.arange(len(values)) / (len(values) - 1)
    y = height - 10 - (height - 20) * (shown - low) / span
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True) if np.isfinite(b))
    label = f"{name.replace('_', ' ')}: {values[0]:.4g} to {values[-1]:.4g}" + (" (logarithmic)" if logarithmic else "")
    return (
        f'<figure><svg width="{width}" height="{height}"><polyline fill="none" stroke="#0b6" stroke-width="1.5" '
        f'points="{points}"/></svg><figcaption>{html.escape(label)}</figcaption></figure>'
    )
