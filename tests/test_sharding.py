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
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
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
