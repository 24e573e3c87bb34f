"""The same script on one device, four, and two processes: the same numbers."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("sharded_problem.py")
SLICES = Path(__file__).with_name("sharded_slices.py")


def start(out, devices, *processes, script=SCRIPT):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    return subprocess.Popen(
        [sys.executable, "-W", "error::FutureWarning", str(script), str(out), *map(str, processes)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*started):
    said = []
    try:
        said = [process.communicate(timeout=240)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    for process, text in zip(started, said, strict=True):
        assert process.returncode == 0, text


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "out"
    finish(start(out, 1))
    return dict(np.load(f"{out}.0.npz"))


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name in expected:
        if name != "devices" and not name.startswith("views read"):
            np.testing.assert_allclose(found[name], expected[name], rtol=3e-5, err_msg=name)


def test_four_devices_with_uneven_views(one_device, tmp_path):
    finish(start(tmp_path / "out", 4))
    found = dict(np.load(tmp_path / "out.0.npz"))
    assert int(found["devices"]) == 4 and int(one_device["devices"]) == 1
    assert_same(found, one_device)


def test_two_processes_read_only_their_part(one_device, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    finish(*[start(tmp_path / "out", 1, address, 2, index) for index in range(2)])
    found = [dict(np.load(tmp_path / f"out.{index}.npz")) for index in range(2)]
    assert [int(f["devices"]) for f in found] == [2, 2]
    for numbers in found:
        assert_same(numbers, one_device)
    # Thirteen views on two processes: seven and six.
    assert [f["views read, None"].tolist() for f in found] == [list(range(7)), list(range(7, 13))]


# ------------------------------------------------------------------------------------------------ split slices
@pytest.fixture(scope="module")
def slices_on_one_device(tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "out"
    finish(start(out, 1, script=SLICES))
    return dict(np.load(f"{out}.0.npz"))


def assert_same_slices(found, expected):
    """Up to the order of sums: 25 steps of a joint solve amplify the rounding."""
    assert set(found) == set(expected)
    for name in expected:
        if name != "devices" and not name.startswith("rows"):
            scale = np.abs(expected[name]).max()
            np.testing.assert_allclose(found[name], expected[name], atol=2e-4 * scale, err_msg=name)


def test_one_device_solves_the_problem(slices_on_one_device):
    """So that the comparisons below compare something."""
    found = slices_on_one_device
    assert found["cgls history"][-1] < 0.3 and found["sirt history"][-1] < 0.5
    assert found["all views: history"][-1] < 0.2 * found["all views: history"][0]
    assert np.abs(found["all views: shifts"]).max() > 0.1
    assert found["slabs"].shape == (8, 16, 16)


@pytest.mark.parametrize("devices", [2, 4])
def test_split_slices_on_several_devices(slices_on_one_device, tmp_path, devices):
    finish(start(tmp_path / "out", devices, script=SLICES))
    found = dict(np.load(tmp_path / "out.0.npz"))
    assert int(found["devices"]) == devices
    assert_same_slices(found, slices_on_one_device)


def test_split_slices_in_two_processes_that_read_their_rows_only(slices_on_one_device, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    finish(*[start(tmp_path / "out", 1, address, 2, index, script=SLICES) for index in range(2)])
    found = [dict(np.load(tmp_path / f"out.{index}.npz")) for index in range(2)]
    for numbers in found:
        assert_same_slices(numbers, slices_on_one_device)
    assert [f["rows read"].tolist() for f in found] == [[0, 1, 2], [3, 4, 5]]
    assert [f["rows streamed"].tolist() for f in found] == [[0, 1, 2, 3], [4, 5, 6, 7]]
