"""Run the notebooks of `docs/notebooks` and store what they print and draw.

    python docs/make_notebooks.py [NAME ...]

They are plain scripts from top to bottom, so that `exec` runs them as a kernel would; Jupyter opens them as any other
notebook. Pictures are stored with 64 colours: a third of the bytes. The first code cell, tagged `parameters`, holds
sizes, which the tests make small.
"""

import ast
import contextlib
import hashlib
import io
import json
import os
import sys
import tempfile
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).resolve().parent / "notebooks"
DPI, COLOURS = 80, 64


def run(notebook: dict[str, Any], small: Mapping[str, Any] = {}) -> dict[str, Any]:
    """Run the code cells in one name space, in a folder of their own, and store their outputs; give the name space.

    **Arguments:** `small` replaces values of the cell that is tagged `parameters`.
    """
    import matplotlib

    matplotlib.use("agg")
    space: dict[str, Any] = {"__name__": "__main__"}
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for number, cell in enumerate((c for c in notebook["cells"] if c["cell_type"] == "code"), 1):
                cell["outputs"], cell["execution_count"] = outputs("".join(cell["source"]), space), number
                if "parameters" in cell["metadata"].get("tags", ()):
                    space.update(small)
        finally:
            os.chdir(here)
    notebook["metadata"]["source_sha256"] = digest(notebook)
    return space


def outputs(code: str, space: dict[str, Any]) -> list[dict[str, Any]]:
    """Run one cell: what it prints, the value of a last line without a semicolon, every figure that it opens."""
    import matplotlib.pyplot as plt

    tree, value, printed = ast.parse(code), None, io.StringIO()
    last = tree.body[-1] if tree.body else None
    shown = isinstance(last, ast.Expr) and code.rstrip()[-1] != ";"
    tree.body = tree.body[:-1] if shown else tree.body
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), space)
        if shown and isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), space)
    found: list[dict[str, Any]] = []
    if printed.getvalue():
        found.append({"output_type": "stream", "name": "stdout", "text": printed.getvalue().splitlines(True)})
    figures = [plt.figure(n) for n in plt.get_fignums()] + ([value] if hasattr(value, "savefig") else [])
    found += [
        {"output_type": "display_data", "metadata": {}, "data": {"image/png": b64encode(picture(f)).decode()}}
        for f in figures
    ]
    plt.close("all")
    return found


def picture(figure: Any) -> bytes:
    """Draw a figure as a PNG of few colours."""
    from PIL import Image

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI, bbox_inches="tight", facecolor="white")
    Image.open(drawn).convert("RGB").quantize(COLOURS).save(small, "png", optimize=True)
    return small.getvalue()


def digest(notebook: dict[str, Any]) -> str:
    """Compute the SHA-256 of the code, by which outputs of other code are told."""
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()


def main() -> None:
    """Run all notebooks, or some."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if len(sys.argv) == 1 or path.stem in sys.argv[1:]:
            notebook = json.loads(path.read_text(encoding="utf-8"))
            run(notebook)
            path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(f"{path.name}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
