"""Notebooks run from top to bottom at a small size, and what is stored in them is what their code gave."""

import importlib.util
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "notebooks"
SPEC = importlib.util.spec_from_file_location("make_notebooks", FOLDER.parent / "make_notebooks.py")
assert SPEC is not None and SPEC.loader is not None
make = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make)
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SMALL = {
    "first_scan": {"binning": 4, "steps": 2},
    "own_cost": {"size": 24, "views": 12, "steps": 10},
    "joint": {"size": 16, "steps": 10},
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_those_of_the_code(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["metadata"]["source_sha256"] == make.digest(notebook), "run docs/make_notebooks.py"
    assert path.stat().st_size < 300_000
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    make.run(notebook, SMALL.get(path.stem, {}))
    assert [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"][0] == 1
