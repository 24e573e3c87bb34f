"""Every public name resolves, says what it does, and its examples run."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest

import diffrecon as dr

MODULES = [dr, *(getattr(dr, name) for name in dr._MODULES)]


def public():
    """Public functions and classes, each once, by their name."""
    found = {}
    for module in MODULES:
        names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
        for name in names:
            value = getattr(module, name)
            if callable(value) and getattr(value, "__module__", "").startswith("diffrecon"):
                found[f"{module.__name__}.{name}"] = value
    return found


PUBLIC = public()


def test_every_name_resolves():
    for name in dr.__all__:
        assert getattr(dr, name) is not None
    assert set(dr.__all__) <= set(dir(dr))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        dr.nonsense  # noqa: B018


@pytest.mark.parametrize("name", PUBLIC)
def test_says_what_it_does(name):
    """By a first paragraph of whole sentences; a list may follow it."""
    first = " ".join((inspect.getdoc(PUBLIC[name]) or "").split("\n\n")[0].split())
    assert len(first.split()) >= 4 and first.endswith((".", ":"))


def examples():
    for name, value in PUBLIC.items():
        for index, block in enumerate(re.findall(r"```python\n(.*?)```", inspect.getdoc(value) or "", re.S)):
            yield pytest.param(value, block, id=f"{name}-{index}")


# An example that begins from something that only a measurement has is text; all others run as they stand.
NEEDS_A_MEASUREMENT = re.compile(
    r"\b(scan|model|solution|result|sinogram|projector|counts|volume|image|frames|data|holograms?|half_a|half_b|cost)\b"
)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("value, block", list(examples()))
def test_example_runs(value, block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = sys.modules[value.__module__]
    names = {
        "np": np,
        "jnp": jnp,
        "jax": jax,
        "optax": optax,
        "dr": dr,
        "diffrecon": dr,
        "minimise": dr.minimise,
        "Array": jaxtyping.Array,
        "Float": jaxtyping.Float,
    } | vars(module)
    compile(block, "example", "exec")
    try:
        exec(block, dict(names))  # noqa: S102
    except NameError as error:
        missing = error.name or ""
        if NEEDS_A_MEASUREMENT.fullmatch(missing):
            pytest.skip(f"begins from a {missing}")
        raise
    except (dr.InputError, FileNotFoundError, OSError) as error:
        if re.search(r"open_scan\(|read_result\(", block):
            pytest.skip(f"begins from a file ({type(error).__name__})")
        raise


def test_import_is_light():
    """`diffrecon --help` must not wait for jax, nor for anything else that is not Python's own."""
    calls = ("--help",), ("reconstruct", "--help"), ("demo", "--help"), ("--version",)
    heavy = "jax", "numpy", "h5py", "equinox", "optax", "matplotlib"
    code = f"""
import sys, diffrecon.cli
assert all(diffrecon.cli.main(call) == 0 for call in {calls})
assert not sys.modules.keys() & {set(heavy)}
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_every_module_imports_by_itself():
    for found in pkgutil.walk_packages(dr.__path__, "diffrecon."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
