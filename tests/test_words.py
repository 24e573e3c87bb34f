"""The first sentence of a docstring says what a function does, and can be read without its signature."""

import ast
from pathlib import Path

import pytest

import diffrecon

ROOT = Path(diffrecon.__file__).parent
# Words that begin a fragment, not a sentence about the function.
FRAGMENTS = {
    "What",
    "Whether",
    "Where",
    "When",
    "Of",
    "How",
    "As",
    "Which",
    "Who",
    "For",
    "From",
    "With",
    "Without",
    "By",
}


def docstrings(path: Path):
    """Functions of a file, by line, and their docstrings."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (text := ast.get_docstring(node)):
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", text


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_say_what_a_function_does(path):
    fragments = [f"{place}: {text.splitlines()[0]}" for place, text in docstrings(path) if first(text) in FRAGMENTS]
    assert not fragments, "\n".join(["begin with a verb:", *fragments])


def first(text: str) -> str:
    """The first word of a docstring without its punctuation."""
    return text.split()[0].strip(".,:;`*")
