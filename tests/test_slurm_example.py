"""The example for clusters: its parts join to the volume, its tasks share the rows, its commands are understood."""

import runpy
import shlex
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest

import diffrecon as dr
from diffrecon.cli import _main, _settings

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "slurm"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="no examples beside the tests")


def test_parts_join_to_one_volume(tmp_path):
    volume = np.random.default_rng(0).normal(size=(7, 4, 5)).astype(np.float32)
    parts = []
    for first, last in ((0, 3), (3, 7)):
        parts.append(tmp_path / f"v_part{first:05d}.h5")
        writer = dr.io.open_volume(parts[-1], (last - first, 4, 5), pixel_size=2e-6, units="1/m")
        writer.write(0, volume[first:last])
        writer.close()
    join = runpy.run_path(str(FOLDER / "join.py"))["join"]
    assert join(tmp_path / "v.h5", parts) == (7, 4, 5)
    found = dr.read_result(tmp_path / "v.h5").quantities["volume"]
    np.testing.assert_array_equal(found.data, volume)
    assert found.units == "1/m" and found.pixel_size == pytest.approx(2e-6)
    with h5py.File(tmp_path / "v.h5") as file:
        np.testing.assert_allclose(file["entry/volume/z"], (np.arange(7) - 3) * 2e-6)
    writer = dr.io.open_volume(tmp_path / "other.h5", (2, 4, 6))
    writer.write(0, np.zeros((2, 4, 6)))
    writer.close()
    with pytest.raises(SystemExit, match="slices of"):
        join(tmp_path / "w.h5", [parts[0], tmp_path / "other.h5"])


def test_tasks_share_the_rows(tmp_path):
    """The script with `srun` and `diffrecon` replaced: what every task would run."""
    script = (FOLDER / "tomography.sbatch").read_text()
    for name, body in (
        ("srun", 'for i in 0 1 2; do SLURM_PROCID=$i SLURM_NTASKS=3 "$@"; done'),
        ("diffrecon", "printf '%q ' \"$@\" >> commands; echo >> commands"),
        ("python", 'echo "$@" > joined'),
    ):
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "out_part00000.h5").touch()  # an earlier run has finished it
    subprocess.run(
        ["bash", "-c", script, "job", "a scan.h5", "out.h5", "10", "4.5"],
        cwd=tmp_path,
        check=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        timeout=60,
    )
    commands = [shlex.split(line) for line in (tmp_path / "commands").read_text().splitlines()]
    options = [_main._parser().parse_args(command) for command in commands]
    settings = [_settings.gather(o.config, o.sets) for o in options]
    assert [o.output for o in options] == ["out_part00003.h5", "out_part00006.h5"]
    assert all(o.file == "a scan.h5" and o.resume for o in options)
    for each, rows in zip(settings, ("3:6", "6:10"), strict=True):
        _settings.refuse_unknown(each, "tomography")
        assert each.file["rows"] == rows and each.file["rotation_centre"] == 4.5
    assert (tmp_path / "joined").read_text().startswith("./join.py out.h5 out_part00000.h5")
