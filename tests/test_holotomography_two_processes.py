"""The command `diffrecon reconstruct -m holotomography` on one process and on two: the same volume."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_sharding import finish, free_port

from diffrecon import io
from diffrecon.simulate import holotomography as simulated

SETUP = simulated.Setup(angles=10, distances=2, frame=16, counts=3000.0, wobble=0.3, centre=0.4, grains=False)
WAYS = {
    "slabs": {"solver.name": "two-step", "solver.slab": 5},
    "two-step": {"solver.name": "two-step", "solver.slab": 0},
    "joint": {"solver.name": "joint", "solver.steps": 3},
}


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    io.write_scan(path, simulated.measure(SETUP)[0])
    return path


def command(scan, output, way, *more, devices=1):
    """The process, started."""
    settings = {"solver.align": 1, "model.centre": False, "output.picture": False, **WAYS[way]}
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={str(value).lower()}")]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join([str(Path(io.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "diffrecon", "reconstruct", str(scan), "-o", str(output), *sets, *more],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


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


@pytest.mark.parametrize(("way", "tolerance"), [("slabs", 1e-5), ("two-step", 1e-5), ("joint", 1e-3)])
def test_two_processes_come_to_the_same_volume(scan, tmp_path, way, tolerance):
    """Up to the order of sums, which the steps of a joint descent amplify."""
    finish(command(scan, tmp_path / "one.h5", way))
    address = f"127.0.0.1:{free_port()}"
    finish(*[command(scan, tmp_path / "two.h5", way, f"--distributed={address},2,{index}") for index in range(2)])
    assert_same(tmp_path / "two.h5", tmp_path / "one.h5", tolerance)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.h5", "two.h5"]  # nothing is left behind


@pytest.mark.parametrize("way", ["slabs", "two-step"])
def test_devices_come_to_the_same_volume(scan, tmp_path, way):
    """Three devices, of which neither angles nor slices are a multiple."""
    finish(command(scan, tmp_path / "one.h5", way))
    finish(command(scan, tmp_path / "three.h5", way, devices=3))
    assert_same(tmp_path / "three.h5", tmp_path / "one.h5", 1e-5)


@pytest.mark.parametrize("said", ["localhost:1", "localhost:1,2,2", "localhost:1,two,0"])
def test_processes_that_cannot_be(scan, tmp_path, said):
    started = command(scan, tmp_path / "out.h5", "slabs", f"--distributed={said}")
    text = started.communicate(timeout=60)[0]
    assert started.returncode == 2 and "ADDRESS:PORT,COUNT,INDEX" in text
