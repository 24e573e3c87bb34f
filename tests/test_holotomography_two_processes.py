"""`diffrecon reconstruct -m holotomography` on one process, on two, and on three devices: the same volume."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_sharding import finish, free_port

from diffrecon import io
from diffrecon.cli import main
from diffrecon.simulate import holotomography as simulated

SETUP = simulated.Setup(angles=10, distances=2, frame=16, counts=3000.0, wobble=0.3, centre=0.4, grains=False)
WAYS = {
    "slabs": {"solver.name": "two-step", "solver.slab": 5},
    "two-step": {"solver.name": "two-step", "solver.slab": 0},
    "joint": {"solver.name": "joint", "solver.steps": 3},
}
# Every way is taken by two processes or by three devices by day, and by both at night.
BY_TWO, BY_THREE = ("slabs",), ("two-step", "joint")
# Up to the order of sums, which the steps of a joint descent amplify.
TOLERANCE = {"slabs": 1e-5, "two-step": 1e-5, "joint": 1e-3}

ROW = """
import json, sys
from diffrecon.cli import main
sys.exit(max([main(words) for words in json.loads(sys.argv[1])]))
"""


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    io.write_scan(path, simulated.measure(SETUP)[0])
    return path


def commands(scan, folder, ways, *join, devices=1):
    """A process, started, that runs the command for one way after the other and writes `WAY.h5`.

    It joins others in the first; most of what a process does is to compile, and the ways have programs in common.
    """
    words = []
    for way in ways:
        settings = {"solver.align": 1, "model.centre": False, "output.picture": False, **WAYS[way]}
        sets = [word for key, value in settings.items() for word in ("--set", f"{key}={str(value).lower()}")]
        words.append(["reconstruct", str(scan), "-o", str(folder / f"{way}.h5"), *sets, *(() if words else join)])
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join([str(Path(io.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    return subprocess.Popen(
        [sys.executable, "-c", ROW, json.dumps(words)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def one(scan, tmp_path_factory):
    """Results of one process with one device."""
    folder = tmp_path_factory.mktemp("one")
    finish(commands(scan, folder, WAYS))
    return folder


def by_two(scan, folder, ways):
    """Results of two processes."""
    address = f"127.0.0.1:{free_port()}"
    finish(*[commands(scan, folder, ways, f"--distributed={address},2,{index}") for index in range(2)])
    return folder


@pytest.fixture(scope="module")
def two(scan, tmp_path_factory):
    return by_two(scan, tmp_path_factory.mktemp("two"), BY_TWO)


@pytest.fixture(scope="module")
def three(scan, tmp_path_factory):
    """Results of three devices, of which neither angles nor slices are a multiple."""
    folder = tmp_path_factory.mktemp("three")
    finish(commands(scan, folder, BY_THREE, devices=3))
    return folder


def assert_same(found, expected, tolerance):
    one, other = io.read_result(expected), io.read_result(found)
    for name in ("delta", "gain"):
        scale = np.abs(one[name]).max()
        np.testing.assert_allclose(other[name], one[name], atol=tolerance * scale, err_msg=name)
    # Places solve a 2 x 2 system of sums over a frame: rounding (1e-6 of the sums) over its conditioning, in pixels.
    limit = max(tolerance, 1e-4) * SETUP.pixel
    np.testing.assert_allclose(other["shifts"], one["shifts"], atol=limit, err_msg="shifts")
    for name in ("held_out_deviance", "rotation_centre"):
        np.testing.assert_allclose(other.quality[name], one.quality[name], rtol=tolerance, err_msg=name)
    assert np.abs(one["delta"]).max() > 1e-7


@pytest.mark.parametrize("way", BY_TWO)
def test_two_processes_come_to_the_same_volume(one, two, way):
    assert_same(two / f"{way}.h5", one / f"{way}.h5", TOLERANCE[way])


@pytest.mark.nightly
@pytest.mark.parametrize("way", BY_THREE)
def test_two_processes_at_night(scan, one, tmp_path, way):
    assert_same(by_two(scan, tmp_path, [way]) / f"{way}.h5", one / f"{way}.h5", TOLERANCE[way])


def test_nothing_is_left_behind(one, two):
    for folder, ways in ((one, WAYS), (two, BY_TWO)):
        assert sorted(path.stem for path in folder.iterdir()) == sorted(ways)


@pytest.mark.parametrize("way", BY_THREE)
def test_devices_come_to_the_same_volume(one, three, way):
    assert_same(three / f"{way}.h5", one / f"{way}.h5", TOLERANCE[way])


@pytest.mark.nightly
@pytest.mark.parametrize("way", BY_TWO)
def test_devices_at_night(scan, one, tmp_path, way):
    finish(commands(scan, tmp_path, [way], devices=3))
    assert_same(tmp_path / f"{way}.h5", one / f"{way}.h5", TOLERANCE[way])


def test_processes_that_cannot_be(capsys):
    """Refused before the scan is opened."""
    for said in ("localhost:1", "localhost:1,2,2", "localhost:1,two,0"):
        assert main(["reconstruct", "scan.h5", "-o", "out.h5", f"--distributed={said}"]) == 2
        assert "ADDRESS:PORT,COUNT,INDEX" in capsys.readouterr().err
