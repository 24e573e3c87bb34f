"""Fixtures of all tests."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data():
    """Folder of measured and simulated data beside the checkout; tests that need it are skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no folder ../shared/data beside the checkout")
    return folder


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run the long versions too")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--full"):
        skip = pytest.mark.skip(reason="long version: run with --full")
        for item in items:
            if "full" in item.keywords:
                item.add_marker(skip)
