"""Which way imports may point, read from the source: lazily imported modules inside functions count too."""

import ast
from pathlib import Path

import pytest

import diffrecon

ROOT = Path(diffrecon.__file__).parent
# Small modules that know nothing of the rest; everybody may use them.
COMMON = {"errors", "_optional", "_cache", "__version__"}
# layer -> what it may import of diffrecon (besides itself and COMMON)
MAY = {
    "errors": set(),
    "_optional": set(),
    "_cache": set(),
    "physics": set(),
    "geometry": {"physics"},
    "_console": set(),
    "_model": set(),
    "_result": set(),
    "sharding": set(),
    "regimes": {"physics", "geometry"},
    "losses": set(),
    "penalties": set(),
    "constraints": set(),
    "priors": set(),
    "quality": set(),
    "settings": {"physics"},
    "scan": {"geometry", "physics"},
    "motion": set(),
    "operators": {"physics", "geometry", "scan", "motion"},
    "prepare": {"physics", "geometry", "scan", "operators", "solvers", "models", "_console"},
    "solvers": {"priors", "motion", "operators", "physics", "sharding", "losses", "_console", "_model"},
    "stream": {"operators", "solvers", "sharding", "_console"},
    "models": {"operators", "physics", "geometry", "scan", "_model", "_result"},
    "io": {"physics", "geometry", "scan", "_result"},
    "plot": {"_result", "quality", "physics", "geometry", "scan", "regimes"},
    "simulate": {"_result", "physics", "geometry", "scan", "operators", "quality", "_console"},
    "uncertainty": {"_model", "solvers", "quality"},
    "_held_out": {"quality"},
    "modality": {
        "_console",
        "_model",
        "_result",
        "scan",
        "settings",
        "solvers",
        "quality",
        "_held_out",
        "losses",
        "uncertainty",
    },
    "recipes": {
        "motion",
        "modality",
        "settings",
        "_held_out",
        "uncertainty",
        "physics",
        "geometry",
        "scan",
        "operators",
        "prepare",
        "solvers",
        "models",
        "losses",
        "penalties",
        "priors",
        "constraints",
        "quality",
        "sharding",
        "stream",
        "_console",
        "_model",
        "_result",
    },
}
# Known exceptions, each with its reason.
EXCEPTIONS = {
    (
        "scan",
        "prepare",
    ): "scan.absorption() and scan.find_rotation_centre() are shortcuts, imported when they are called",
    (
        "io",
        "operators",
    ): "the mumott reader fills Scan.tensor_geometry with the operator's own description of a geometry",
    ("simulate", "io"): "a demo writes its measurement with the writer of native files",
}


def layer(name: str) -> str:
    return name.split(".")[0]


def imports(path: Path) -> set[str]:
    """Layers of diffrecon that a file imports, anywhere in it; `if TYPE_CHECKING` counts too."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            target = [*base, *(node.module.split(".") if node.module else [])]
            found |= {layer(target[0])} if target else {layer(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "diffrecon":
            rest = (node.module or "").split(".")[1:]
            found |= {rest[0]} if rest else {layer(alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("diffrecon.")}
    return found


def files(name: str) -> list[Path]:
    return sorted((ROOT / name).rglob("*.py")) if (ROOT / name).is_dir() else [ROOT / f"{name}.py"]


@pytest.mark.parametrize("name", MAY)
def test_imports_point_downwards(name):
    allowed = MAY[name] | COMMON | {name}
    for path in files(name):
        for used in imports(path) - allowed:
            assert (name, used) in EXCEPTIONS, f"{path.relative_to(ROOT)} imports {used}: not allowed for {name}"


@pytest.mark.parametrize("name, used", EXCEPTIONS)
def test_exceptions_are_still_needed(name, used):
    assert any(used in imports(path) for path in files(name))


def test_every_module_has_its_layer():
    modules = {
        p.stem if p.is_file() else p.name for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    assert modules - set(MAY) == {"__init__", "__main__", "cli"}


def test_nothing_imports_the_command_line():
    for path in sorted(ROOT.rglob("*.py")):
        if path.relative_to(ROOT).parts[0] not in ("cli", "__main__.py"):
            assert "cli" not in imports(path), path


def test_core_needs_core_packages_only():
    """Optional packages are imported through `require`, which names the install command."""
    optional = {"scipy", "matplotlib", "hdf5plugin", "xraydb", "tifffile", "zarr", "fabio", "torch", "pandas"}
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text())
        if 'require("matplotlib' in path.read_text():
            continue  # asks by `require` first, and then imports parts of the same package
        for_types = {
            id(node)
            for block in ast.walk(tree)
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
            for node in ast.walk(block)
        }
        for node in ast.walk(tree):
            if id(node) in for_types:
                continue
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else ([node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else [])
            )
            for name in names:
                assert name.split(".")[0] not in optional, f"{path.relative_to(ROOT)} imports {name}"


def test_nobody_switches_double_precision_on():
    for path in sorted(ROOT.rglob("*.py")):
        assert "jax_enable_x64" not in path.read_text(), path
