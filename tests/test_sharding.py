"""The same script on one device, four, and two processes: the same numbers."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("sharded_problem.py")


def start(out, devices, *processes):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    return subprocess.Popen(
        [sys.executable, "-W", "error::FutureWarning", str(SCRIPT), str(out), *map(str, processes)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*started):
    said = []
    try:
        said = [process.communicate(timeout=500)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    for process, text in zip(started, said, strict=True):
        assert process.returncode == 0, text


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def numbers(out, index=0):
    """What a process wrote of the stochastic problem and of the split slices."""
    return tuple(dict(np.load(f"{out}.{part}.{index}.npz")) for part in ("views", "slices"))


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "out"
    finish(start(out, 1))
    return numbers(out)


@pytest.fixture(scope="module")
def four_devices(tmp_path_factory):
    out = tmp_path_factory.mktemp("four") / "out"
    finish(start(out, 4))
    return numbers(out)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    out, address = tmp_path_factory.mktemp("two") / "out", f"127.0.0.1:{free_port()}"
    finish(*[start(out, 1, address, 2, index) for index in range(2)])
    return [numbers(out, index) for index in range(2)]


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name in expected:
        if name != "devices" and not name.startswith("views read"):
            np.testing.assert_allclose(found[name], expected[name], rtol=3e-5, err_msg=name)


def test_four_devices_with_uneven_views(one_device, four_devices):
    assert int(four_devices[0]["devices"]) == 4 and int(one_device[0]["devices"]) == 1
    assert_same(four_devices[0], one_device[0])


def test_two_processes_read_only_their_part(one_device, two_processes):
    found = [views for views, _ in two_processes]
    assert [int(f["devices"]) for f in found] == [2, 2]
    for part in found:
        assert_same(part, one_device[0])
    # Thirteen views on two processes: seven and six.
    assert [f["views read, None"].tolist() for f in found] == [list(range(7)), list(range(7, 13))]


# ------------------------------------------------------------------------------------------------ split slices
def assert_same_slices(found, expected):
    """Up to the order of sums: 25 steps of a joint solve amplify the rounding."""
    assert set(found) == set(expected)
    for name in expected:
        if name != "devices" and not name.startswith("rows"):
            scale = np.abs(expected[name]).max()
            np.testing.assert_allclose(found[name], expected[name], atol=2e-4 * scale, err_msg=name)


def test_one_device_solves_the_problem(one_device):
    """So that the comparisons below compare something."""
    found = one_device[1]
    assert found["cgls history"][-1] < 0.3 and found["sirt history"][-1] < 0.5
    assert found["all views: history"][-1] < 0.2 * found["all views: history"][0]
    assert np.abs(found["all views: shifts"]).max() > 0.1
    assert found["slabs"].shape == (8, 16, 16)


def test_split_slices_on_four_devices(one_device, four_devices):
    assert_same_slices(four_devices[1], one_device[1])


def test_split_slices_in_two_processes_that_read_their_rows_only(one_device, two_processes):
    found = [slices for _, slices in two_processes]
    for part in found:
        assert_same_slices(part, one_device[1])
    assert [f["rows read"].tolist() for f in found] == [[0, 1, 2], [3, 4, 5]]
    assert [f["rows streamed"].tolist() for f in found] == [[0, 1, 2, 3], [4, 5, 6, 7]]
