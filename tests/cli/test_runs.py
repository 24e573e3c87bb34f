"""Runs that survive: one at a time on an output, nothing overwritten unasked, signals, inputs that change."""

import json
import os
import signal
import subprocess
import sys

import h5py
import make_files
import numpy as np
import pytest
import stand_in

from diffrecon.cli import main
from diffrecon.errors import InputError
from diffrecon.io import OutputLock, open_scan, process, read_result
from diffrecon.io._lock import _started, mine


@pytest.fixture
def reconstruct(tmp_path):
    """The command with a method that takes no time, on a small file; gives the exit code."""
    calls: list = []
    make_files.dxchange(tmp_path / "in.h5")

    def run(*more, file="in.h5"):
        arguments = ["reconstruct", str(tmp_path / file), "-o", str(tmp_path / "out.h5"), "--set=output.picture=false"]
        return main([*arguments, "-q", *more])

    with stand_in.in_place_of_all(calls):
        yield run


def test_a_result_of_other_settings_is_not_overwritten(reconstruct, tmp_path, capsys):
    assert reconstruct("--set=solver.steps=5") == 0 and reconstruct("--set=solver.steps=5") == 0
    assert reconstruct("--set=solver.steps=6") == 2
    said = capsys.readouterr().err
    assert "differs in solver.steps (5 then, 6 now)" in said and "--force" in said
    assert reconstruct("--set=solver.steps=6", "--force") == 0
    assert read_result(tmp_path / "out.h5").settings["solver"]["steps"] == 6
    assert reconstruct("--set=solver.steps=6", "--set=geometry.rotation_centre=7") == 2
    make_files.dxchange(tmp_path / "other.h5")
    with h5py.File(tmp_path / "other.h5", "r+") as file:
        file["exchange/data"][0, 0, 0] += 1
    assert reconstruct("--set=solver.steps=6", file="other.h5") == 2
    assert "the content of the input file" in capsys.readouterr().err
    (tmp_path / "out.h5").write_text("notes")
    assert reconstruct() == 2 and (tmp_path / "out.h5").read_text() == "notes"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.h5", "other.h5", "out.h5"]


def test_one_run_at_a_time_on_an_output(reconstruct, tmp_path, capsys):
    lock = tmp_path / ".out.h5.lock"
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    holder = {"host": mine().rpartition("-")[0], "process": other.pid, "started": _started(other.pid)}
    lock.write_text(json.dumps(holder))
    left = tmp_path / f".out.h5.{holder['host']}-{other.pid}.abc.part"
    left.touch()
    assert reconstruct() == 2 and f"process {other.pid}" in capsys.readouterr().err
    other.communicate(b"\n")
    assert reconstruct() == 0 and not lock.exists() and not left.exists()


def test_a_lock_of_another_host_counts_while_it_is_touched(tmp_path):
    lock = tmp_path / ".out.h5.lock"
    lock.write_text(json.dumps({"host": "elsewhere", "process": 1, "started": "5"}))
    with pytest.raises(InputError, match="process 1 on elsewhere"):
        OutputLock(tmp_path / "out.h5")
    os.utime(lock, (1e9, 1e9))
    with OutputLock(tmp_path / "out.h5"), OutputLock(tmp_path / "out.h5"):
        assert json.loads(lock.read_text())["process"] == os.getpid()
    assert not lock.exists()


def test_signals_of_batch_systems_end_a_run_as_ctrl_c_does(reconstruct, tmp_path, monkeypatch):
    monkeypatch.setattr(signal, "SIGINT", signal.SIGTERM)  # what the stand-in sends to itself
    assert reconstruct("--set=solver.name=interrupted") == 128 + signal.SIGTERM
    assert read_result(tmp_path / "out.h5").verdict == ("looks fine",)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_an_input_that_changes_or_goes_during_the_run_is_said(reconstruct, tmp_path, monkeypatch):
    whole = stand_in.StandIn.verdict
    monkeypatch.setattr(stand_in.StandIn, "verdict", lambda *a: [os.utime(tmp_path / "in.h5"), whole(*a)][1])
    assert reconstruct() == 0 and read_result(tmp_path / "out.h5").verdict == ("looks fine",)
    before = open_scan(tmp_path / "in.h5").provenance.checksum()
    (tmp_path / "out.h5").unlink()
    monkeypatch.setattr(stand_in.StandIn, "verdict", lambda *a: [(tmp_path / "in.h5").unlink(), whole(*a)][1])
    monkeypatch.setattr(stand_in.StandIn, "quantities", lambda *a: stand_in.StandIn.without_input)
    assert reconstruct() == 0
    assert "the input has changed, or gone, during the run: in.h5" in read_result(tmp_path / "out.h5").verdict[-1]
    assert process(tmp_path / "out.h5")["input"]["sha256"] == before  # of what was read


def test_files_behind_links_are_looked_at_and_said(tmp_path):
    frames = np.full((4, 3, 16), 50, np.uint16)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = frames
    layout = h5py.VirtualLayout((4, 3, 16), np.uint16)
    layout[:] = h5py.VirtualSource("a.h5", "x", (4, 3, 16))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_virtual_dataset("y", layout)
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["exchange/data"] = h5py.ExternalLink("b.h5", "y")
        file["exchange/theta"], file["exchange/data_white"] = np.arange(4) * 45.0, frames[:1] * 2
    made = open_scan(tmp_path / "in.h5").provenance
    assert [f.name for f in made.files] == ["in.h5", "b.h5", "a.h5"] and len(made.checksum()) == 64
    assert any("links lead into 2 further files: b.h5, a.h5" in m for m in made.messages) and not made.changed()
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["x"][0, 0, 0] = 1
    assert made.changed() == ["a.h5"]
