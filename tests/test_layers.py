"""Which way imports may point, read from the source: lazily imported modules inside functions count too."""

import ast
import re
from pathlib import Path

import pytest

import diffrecon

ROOT = Path(diffrecon.__file__).parent
# Small modules that know nothing of the rest; everybody may use them.
COMMON = {"errors", "_lazy", "_optional", "_cache", "_identity", "_hdf5", "_methods", "__version__"}
# layer -> what it may import of diffrecon (besides itself and COMMON)
MAY = {
    "errors": set(),
    "_lazy": set(),
    "_optional": set(),
    "_cache": set(),
    "_identity": set(),
    "_hdf5": set(),
    "_methods": set(),
    "physics": set(),
    "geometry": {"physics"},
    "_console": set(),
    "_model": set(),
    "_result": set(),
    "sharding": set(),
    "regimes": {"physics", "geometry"},
    "planning": {"physics", "regimes", "settings", "operators", "models"},
    "losses": set(),
    "penalties": set(),
    "constraints": set(),
    "priors": {"operators"},
    "quality": set(),
    "settings": {"physics"},
    "frames": set(),
    "_summary": {"frames"},
    "marks": {"frames", "_summary"},
    "motion": set(),
    "operators": {"physics", "geometry", "motion"},
    "solvers": {
        "priors",
        "penalties",
        "settings",
        "motion",
        "operators",
        "physics",
        "frames",
        "sharding",
        "losses",
        "quality",
        "_console",
        "_model",
    },
    "prepare": {
        "quality",
        "settings",
        "losses",
        "priors",
        "_model",
        "physics",
        "geometry",
        "frames",
        "operators",
        "solvers",
        "sharding",
        "_console",
    },
    # `scan.absorption()` and `scan.find_rotation_centre()` are preparation, which knows a scan by its fields only.
    "_checks": {"frames", "_summary"},
    "scan": {"_checks", "_summary", "geometry", "physics", "frames", "marks", "prepare"},
    "_look": {"scan"},
    "stream": {"operators", "solvers", "sharding", "_console"},
    "models": {
        "priors",
        "motion",
        "operators",
        "solvers",
        "prepare",
        "physics",
        "geometry",
        "frames",
        "scan",
        "_model",
        "_result",
    },
    "io": {"_checks", "physics", "geometry", "frames", "marks", "scan", "operators", "_result"},
    "plot": {"_result", "quality", "physics", "geometry", "scan", "regimes"},
    "simulate": {"io", "_result", "physics", "geometry", "scan", "operators", "quality", "_console"},
    "uncertainty": {"_model", "solvers", "quality"},
    "modality": {
        "_look",
        "frames",
        "_console",
        "_model",
        "_result",
        "scan",
        "settings",
        "solvers",
        "quality",
        "losses",
        "uncertainty",
    },
    "recipes": {
        "_look",
        "motion",
        "modality",
        "settings",
        "uncertainty",
        "physics",
        "geometry",
        "frames",
        "scan",
        "operators",
        "regimes",
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


def layer(name: str) -> str:
    return name.split(".")[0]


def modules_imported(path: Path) -> set[str]:
    """Dotted names below diffrecon that a file imports, anywhere in it; `if TYPE_CHECKING` counts too."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = node.module.split(".") if node.module else []
            if not node.level and module[:1] != ["diffrecon"]:
                continue
            base = [*package[: len(package) - node.level + 1], *module] if node.level else module[1:]
            names |= {".".join([*base, alias.name]) for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("diffrecon.")}
    return names


def imports(path: Path) -> set[str]:
    """Layers of diffrecon that a file imports."""
    return {layer(name) for name in modules_imported(path)}


def files(name: str) -> list[Path]:
    return sorted((ROOT / name).rglob("*.py")) if (ROOT / name).is_dir() else [ROOT / f"{name}.py"]


@pytest.mark.parametrize("name", MAY)
def test_imports_point_downwards(name):
    allowed = MAY[name] | COMMON | {name}
    for path in files(name):
        assert imports(path) <= allowed, f"{path.relative_to(ROOT)} imports {imports(path) - allowed}"


def test_no_module_imports_itself_round_a_circle():
    """Imports inside functions and for types count; a package that re-exports its own modules is no circle."""
    paths = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in ROOT.rglob("*.py")}
    paths = {name.removesuffix("__init__").rstrip("."): path for name, path in paths.items()}

    def module_of(name: str, of: str) -> str | None:
        """The module that a dotted name is of; a package stands for itself when another imports from it."""
        owner = name if name in paths else name.rpartition(".")[0]
        return None if not owner or of == owner or of.startswith(f"{owner}.") else owner

    graph = {n: {module_of(i, n) for i in modules_imported(p)} - {None} for n, p in paths.items() if n}
    order: list[str] = []

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name not in order:
            for used in sorted(graph.get(name, ())):
                visit(used, (*trail, name))
            order.append(name)

    for name in sorted(graph):
        visit(name, ())


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
    optional = {
        "scipy",
        "matplotlib",
        "hdf5plugin",
        "xraydb",
        "tifffile",
        "zarr",
        "fabio",
        "torch",
        "pandas",
        "xraylib",
        "PyMca5",
        "fisx",
    }
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text())
        if path.relative_to(ROOT).parts[0] == "plot":
            continue  # its figures come from `require`, and then it imports parts of the same package
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


@pytest.mark.parametrize("folder", ["benchmarks", "experiments"])
def test_scripts_use_public_names_only(folder):
    """Whoever writes a script of his own must get as far as ours do."""
    private = re.compile(r"diffrecon(\.\w+)*\._[a-z]|from diffrecon(\.\w+)* import _[a-z]")
    for path in sorted((ROOT.parent / folder).rglob("*.py")):
        assert not private.search(path.read_text()), path
