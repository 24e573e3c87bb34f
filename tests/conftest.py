"""Fixtures of all tests."""

import gc
import os
import re
import signal
from pathlib import Path

import pytest
from jaxlib.version import __version_info__ as jaxlib_version
from jaxtyping import config as jaxtyping_config
from jaxtyping import install_import_hook

# Rooms whose annotations are checked whenever they are called. Planning differentiates through its settings, whose
# types are those of the numbers that users type; the command line and the plots hardly have shapes.
_CHECKED = (
    "losses", "penalties", "constraints", "motion", "physics", "geometry", "priors", "operators", "models", "prepare",
    "quality", "regimes", "solvers", "io", "recipes", "uncertainty", "sharding", "stream", "frames", "marks", "scan",
    "modality", "simulate",
)  # fmt: skip
install_import_hook([f"diffrecon.{room}" for room in _CHECKED], "checked.typed")

from diffrecon._cache import keep_compiled_programs  # noqa: E402

# Nine tenths of the tests' time is compiling. Programs are kept where the package keeps those of its users, and are
# compiled without the costly passes: half the time, and no test measures speed. Processes that tests start do the same.
_QUICK = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_parallel_codegen_split_count=1"
)
# The older way to generate code takes a third of the time of the new one. It is gone from later versions, which refuse
# flags that they do not know; those test the new way, as does the installed program in .ci/run.
if jaxlib_version < (0, 11):
    _QUICK += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_QUICK}".strip()
keep_compiled_programs()
# Tracing makes millions of small objects that live on; looking for dead ones among them takes a tenth of the time.
gc.set_threshold(50_000, 20, 50)

# A job in the background of a shell starts with Ctrl-C ignored; tests of interruptions need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Two processes share out files in this order (`--dist loadfile --no-loadscope-reorder`): the longest first, so that
# neither waits for the other in the end.
_LONGEST = (
    "docs/test_docs", "recipes/test_holography", "test_contract", "recipes/test_holography_geometry",
    "recipes/test_tomography", "test_holotomography_two_processes", "test_simulate", "test_public_api",
    "recipes/test_holotomography", "recipes/test_holotomography_slabs", "solvers/test_minimise", "solvers/test_linear",
    "operators/test_projection", "test_sharding", "recipes/test_ptychotomography", "operators/test_fourier_pose",
    "solvers/test_proximal", "recipes/test_speckle", "solvers/test_engines", "models/test_ptychography_unknowns",
    "models/test_orientation", "recipes/test_ptychography", "solvers/test_alignment", "recipes/test_fluorescence",
    "recipes/test_holography_surroundings",
)  # fmt: skip
_RANK = {Path(__file__).parent / f"{name}.py": index for index, name in enumerate(_LONGEST)}


def pytest_collection_modifyitems(config, items):
    """Put the longest files first, and leave out what runs at night unless it is asked for: by `-m`, or by its name."""
    items.sort(key=lambda item: _RANK.get(item.path, len(_RANK)))  # stable
    if "nightly" not in config.option.markexpr and not any("::" in argument for argument in config.args):
        left_out = pytest.mark.skip(reason="nightly: a cheaper test proves the same; pytest -m nightly runs it")
        for item in items:
            if item.get_closest_marker("nightly"):
                item.add_marker(left_out)


@pytest.fixture(scope="session")
def shared_data():
    """Folder of measured and simulated data beside the checkout; tests that need it are skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no folder ../shared/data beside the checkout")
    return folder


@pytest.fixture(autouse=True)
def _refusals_unchecked(request):
    """Tests of what is refused hand in wrong types on purpose: there the package's own words are wanted. The volume of
    a reconstruction in slabs is a shape without values.
    """
    jaxtyping_config.update("jaxtyping_disable", bool(re.search("refuse|wrong|bad_input|slabs", request.node.nodeid)))
    yield
    jaxtyping_config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module", autouse=True)
def _no_guest_stays():
    """Take back what a file's tests registered: methods, readers, pictures, simulations and plans of their own."""
    from diffrecon import recipes, simulate
    from diffrecon._look import REGISTERED
    from diffrecon.io import readers
    from diffrecon.planning._method import _METHODS
    from diffrecon.plot.result import pictures

    recipes.methods()  # the package's own are registered before anything is taken back
    tables = [REGISTERED, simulate._MODULES, _METHODS, pictures, readers._REGISTERED]
    before = [table.copy() for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries) if isinstance(table, dict) else table.extend(entries)


# Every compiled program holds some memory maps. A process may have 65530; beyond, the compiler crashes.
_MAPS = Path("/proc/self/maps")
_MOST_MAPS = 12_000


@pytest.fixture(scope="module", autouse=True)
def _room_for_compiled_programs():
    """Forget compiled programs, file by file, before they fill what the system allows a process."""
    yield
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MOST_MAPS:
        import jax

        jax.clear_caches()
