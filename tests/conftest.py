"""Fixtures of all tests."""

import signal
from pathlib import Path

import pytest

from diffrecon._cache import keep_compiled_programs

# Nine tenths of the tests' time is compiling: programs are kept where the package keeps those of its users.
keep_compiled_programs()

# A job in the background of a shell starts with Ctrl-C ignored; tests of interruptions need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data():
    """Folder of measured and simulated data beside the checkout; tests that need it are skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no folder ../shared/data beside the checkout")
    return folder


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


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run the long versions too")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--full"):
        skip = pytest.mark.skip(reason="long version: run with --full")
        for item in items:
            if "full" in item.keywords:
                item.add_marker(skip)
