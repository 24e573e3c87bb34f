"""The page that follows a run: served on this machine only, read only."""

import json
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest

from diffrecon._result import Quantity, Result
from diffrecon.cli._live import LiveConsole, served
from diffrecon.errors import InputError


def get(address, **headers):
    """Text and headers of an answer, or its code where it is refused."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as answer:
            return answer.read().decode(), answer.headers
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, None


@pytest.fixture
def live():
    console = LiveConsole("<b>scan</b>.h5", ("angles in degrees",), quiet=True)
    with served(console) as address:
        yield console, address


def test_progress_curves_and_messages_are_those_of_the_run(live):
    console, address = live
    console.say("a <script> of a file")
    progress = console.progress(100, "adam: step")
    for done in range(10, 101, 10):
        progress.update(done, loss=1 / done)
    state = json.loads(get(address + "state")[0])
    assert state["now"].startswith("adam: step 100/100") and "<svg" in state["curves"] and "loss" in state["curves"]
    assert "&lt;script&gt;" in state["messages"] and "angles in degrees" in state["messages"]


def test_a_stage_brings_its_pictures(live):
    console, address = live
    before = json.loads(get(address + "state")[0])["version"]
    image = Quantity(np.eye(8, dtype=np.float32), "rad", ("y", "x"), 1e-6, "phase")
    console.show(lambda: Result("holography", {"phase": image}))
    page, headers = get(address)
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert '"phase"' in page and "&lt;b&gt;scan&lt;/b&gt;.h5" in page and "<b>scan" not in page
    assert json.loads(get(address + "state")[0])["version"] == before + 1


def test_a_picture_that_fails_is_said_and_ends_nothing(live):
    console, address = live
    console.show(lambda: 1 / 0)
    assert "no pictures of this stage" in json.loads(get(address + "state")[0])["messages"]


@pytest.mark.parametrize("path, headers, code", [("secret", {}, 404), ("", {"Host": "elsewhere.example:80"}, 403)])
def test_nothing_else_is_answered(live, path, headers, code):
    assert get(live[1] + path, **headers)[0] == code


def test_the_server_is_gone_with_the_run_and_a_port_that_is_taken_is_named():
    with served(LiveConsole("a.h5", quiet=True)) as address:
        port = int(address.rstrip("/").rpartition(":")[2])
        with pytest.raises(InputError, match="another port"):
            served(LiveConsole("b.h5", quiet=True), port).__enter__()
        running = threading.active_count()
    assert threading.active_count() < running
    with pytest.raises(urllib.error.URLError):
        get(address)
