"""Stages of a solve on disk."""

import numpy as np
import pytest

from diffrecon.errors import InputError
from diffrecon.solvers.journal import Journal


def test_stages_are_kept_and_read_again(tmp_path):
    path = tmp_path / "run.checkpoint"
    open_journal = lambda problem, resume: Journal(path, {"problem": problem, "solver.steps": "5"}, resume)
    kept = open_journal("a scan and its settings", False)
    assert kept.read(0) is None
    kept.write(0, {"phase": np.ones(3)})
    kept.write(1, {"phase": np.zeros(3), "shifts": np.ones((2, 2))})
    again = open_journal("a scan and its settings", True)
    assert again.read(1)["shifts"].sum() == 4 and again.read(2) is None
    with pytest.raises(InputError, match=r"problem \(a scan and its settings then, another scan now\)"):
        open_journal("another scan", True)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="cut off.*delete it"):
        open_journal("a scan and its settings", True)
