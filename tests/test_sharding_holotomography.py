"""Holotomography on one process and on two: the same volume."""

from pathlib import Path

import numpy as np
import pytest
from test_sharding import finish, free_port, start

SCRIPT = Path(__file__).with_name("sharded_holotomography.py")


@pytest.mark.full
def test_two_processes_come_to_the_same_volume(tmp_path):
    finish(start(tmp_path / "one", 1, script=SCRIPT))
    one = dict(np.load(tmp_path / "one.0.npz"))
    address = f"127.0.0.1:{free_port()}"
    finish(*[start(tmp_path / "two", 1, address, 2, index, script=SCRIPT) for index in range(2)])
    found = [dict(np.load(tmp_path / f"two.{index}.npz")) for index in range(2)]
    assert int(one["devices"]) == 1 and one["history"][-1] < one["history"][0]
    for numbers in found:
        assert int(numbers["devices"]) == 2
        for name in ("delta", "shifts", "history", "held"):
            scale = np.abs(one[name]).max()
            # up to the order of sums, which a few steps amplify
            np.testing.assert_allclose(numbers[name], one[name], atol=1e-3 * scale, err_msg=name)
