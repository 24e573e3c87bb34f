"""An inspection is over before jax would have been imported."""

import json
import subprocess
import sys

import make_files
import numpy as np
from test_simulate import shrink

from diffrecon import ConeBeam, simulate
from diffrecon.cli import main
from diffrecon.geometry import FarField

SCRIPT = """
import json, sys
from diffrecon.cli import main
for arguments in json.loads(sys.argv[1]):
    assert main(["inspect", *arguments]) == 0, arguments
    heavy = {"jax", "equinox", "optax", "matplotlib", "scipy", "xraydb"} & set(sys.modules)
    assert not heavy, f"{arguments}: {heavy}"
"""


def test_inspect_needs_no_jax(tmp_path, monkeypatch):
    """One process for a small file of every simulation, and for those of readers that none of them uses."""
    files = []
    for name in simulate.methods():
        with monkeypatch.context() as small:
            shrink(small, name)
            simulate.demo_file(name, tmp_path / f"{name}.h5")
        files.append([str(tmp_path / f"{name}.h5")])
    for name in ("cxi", "dxchange", "nxtomo", "mumott"):
        files.append([str(getattr(make_files, name)(tmp_path / f"{name}_file.h5"))])
    said = make_files.HOLOGRAMS
    settings = [f"geometry.{k}={v}" for k, v in said.items() if k not in ("method", "counts", "flux")]
    settings += [f"data.{k}={said[k]}" for k in ("counts", "flux")]
    sets = [word for text in settings for word in ("--set", text)]
    files.append([str(make_files.holograms(tmp_path / "holograms.h5")), "-m", said["method"], *sets])
    done = subprocess.run([sys.executable, "-c", SCRIPT, json.dumps(files)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_geometry_is_a_pytree_whenever_jax_comes():
    """Made before jax is imported, by somebody who imports nothing else of diffrecon."""
    script = """
import sys
from diffrecon.geometry import ConeBeam, FarField
beam, far = ConeBeam(17e3, 0.02, 1.28, 3e-6), FarField(64, 10e3, 2.0, 75e-6)
assert "jax" not in sys.modules
import importlib.util
assert importlib.util.find_spec("jax") is not None
import jax
slope = jax.grad(lambda b: b.pixel_size * 1e6)(beam)
assert abs(slope.focus_to_sample - 3 / 1.28) < 1e-5, slope
assert jax.tree.leaves(far) == [10e3, 2.0, 75e-6] and jax.jit(lambda g: g)(far).frame == 64
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_geometry_is_a_pytree_after_jax():
    import jax

    doubled = jax.tree.map(lambda v: 2 * v, ConeBeam(17e3, np.array([0.02, 0.03]), 1.28, 3e-6))
    assert doubled.focus_to_detector == 2.56 and doubled.focus_to_sample.tolist() == [0.04, 0.06]
    assert jax.tree.map(lambda v: 2 * v, FarField(64, 10e3)).frame == 64


def test_inspect_refuses_a_method_that_there_is_not(tmp_path, capsys):
    path = make_files.dxchange(tmp_path / "a.h5")
    assert main(["inspect", str(path), "-m", "tomografy"]) == 2
    assert "there is no method 'tomografy'; did you mean tomography?" in capsys.readouterr().err


def test_a_result_is_not_written_under_the_name_of_another_format(tmp_path, capsys):
    path = make_files.dxchange(tmp_path / "a.h5")
    for name in ("x.foo", "x.png"):
        assert main(["reconstruct", str(path), "-o", str(tmp_path / name)]) == 2
        assert f"not as {name[1:]}" in capsys.readouterr().err and not (tmp_path / name).exists()
