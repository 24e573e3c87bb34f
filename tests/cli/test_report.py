"""The page of a result: what it holds, that texts of files stay texts, and, in a browser, what its pictures say."""

import base64
import json
import re
import shutil
import subprocess
import zlib

import numpy as np
import pytest

from diffrecon._result import Quantity, Result
from diffrecon.cli import main
from diffrecon.cli.page import page
from diffrecon.cli.page.pictures import _step, panes
from diffrecon.io import write

BROWSER = next((b for name in ("chromium", "chromium-browser", "google-chrome") if (b := shutil.which(name))), None)
# What a user does: zoom into the lower right corner, point there, draw a profile, move the slider of a volume.
GESTURES = """
const wait = setInterval(() => {
  if (!document.body.dataset.ready) return;
  clearInterval(wait);
  const [image, volume] = ["field", "volume"].map((t) => [...document.querySelectorAll(".pane")].find((p) => p.textContent.includes(t)));
  const canvas = image.querySelector("canvas"), box = canvas.getBoundingClientRect();
  const at = (x, y) => ({ clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true });
  const said = (pane) => pane.querySelector(".read").textContent;
  canvas.dispatchEvent(new PointerEvent("pointermove", at(0.125, 0.125)));
  const found = { corner: said(image) };
  for (let i = 0; i < 8; i++) canvas.dispatchEvent(new WheelEvent("wheel", { ...at(0.999, 0.999), deltaY: -1 }));
  canvas.dispatchEvent(new PointerEvent("pointermove", at(0.1, 0.1)));
  found.zoomed = said(image);
  canvas.dispatchEvent(new MouseEvent("dblclick", at(0.5, 0.5)));
  canvas.dispatchEvent(new PointerEvent("pointerdown", { ...at(0.01, 0.5), shiftKey: true }));
  canvas.dispatchEvent(new PointerEvent("pointermove", { ...at(0.99, 0.5), shiftKey: true }));
  window.dispatchEvent(new PointerEvent("pointerup"));
  found.profile = !image.querySelector(".profile").hidden;
  const slider = volume.querySelector("input"), plane = volume.querySelector("canvas");
  const middle = () => { const b = plane.getBoundingClientRect(); plane.dispatchEvent(new PointerEvent("pointermove", { clientX: b.left + b.width / 2, clientY: b.top + b.height / 2 })); return said(volume); };
  found.before = middle();
  slider.value = 0; slider.dispatchEvent(new Event("input"));
  found.after = middle();
  found.panes = document.body.dataset.ready;
  found.wide = document.documentElement.scrollWidth <= innerWidth;
  document.body.dataset.found = JSON.stringify(found);
}, 50);
"""  # noqa: E501


def result(name="field"):
    """A picture whose value is `100 row + column` with a hole, and a volume whose value is its slice."""
    field = 100.0 * np.arange(20)[:, None] + np.arange(20)
    field[3, 4] = np.nan
    volume = np.broadcast_to(np.arange(5.0)[:, None, None], (5, 6, 8))
    return Result(
        "tomography",
        {
            "field": Quantity(field, "rad", ("y", "x"), 2e-6, name),
            "volume": Quantity(volume, "1/m", ("z", "y", "x"), 1e-6, kind="volume"),
            "object": Quantity(np.exp(1j * field / 2000), "", ("y", "x"), 1e-6, kind="complex"),
        },
        {
            "held_out_deviance": 1.1,
            "noise_floor_deviance": 1.0,
            "halves": {"frequency": np.arange(9) / 18, "correlation": np.linspace(1, 0, 9), "half_period_pixels": 1.5},
            "history": np.geomspace(1e4, 1, 50),
        },
        ("residual <0.1>",),
        {"solver": {"steps": 3}},
    )  # fmt: skip


def unpacked(pane):
    counts = np.frombuffer(zlib.decompress(base64.b64decode(pane["values"])), "<u2").reshape(pane["shape"])
    values = pane["low"] + (counts.astype(float) - 1) / 65534 * (pane["high"] - pane["low"])
    return np.where(counts > 0, values, np.nan)


def test_pictures_hold_the_values():
    made = result()
    found = {pane["title"]: pane for pane in panes(made)}
    field = made["field"]
    np.testing.assert_allclose(unpacked(found["field"]), field, atol=np.nanmax(field) / 65534)
    np.testing.assert_allclose(unpacked(found["volume"]), made["volume"], atol=1e-3)
    assert found["field"]["pixel"] == 2e-6 and found["field"]["unit"] == "rad"
    assert found["object, phase"]["start"] == -np.pi  # once around the circle of colours


def test_large_pictures_are_means_and_say_so():
    data = np.arange(2050.0 * 12).reshape(2050, 12)
    (pane,) = panes(Result("x", {"a": Quantity(data, "", ("y", "x"), 1e-6)}))
    assert pane["step"] == 3 and pane["pixel"] == pytest.approx(3e-6) and "mean of 3 x 3" in pane["note"]
    expected = data[:2049].reshape(683, 3, 4, 3).mean((1, 3))
    np.testing.assert_allclose(unpacked(pane)[:683], expected, atol=1)
    assert (
        2 * (512 // _step((512, 512, 512), 6_000_000)) ** 3 < 12e6
    )  # bytes of a volume of 512^3, before they are packed


def test_page_says_each_thing_once_and_texts_stay_texts():
    made = page(
        "a&b<i>.h5",
        result('<script>alert("x")</script>'),
        {"version": "1", "date": "<b>", "duration": "12 s", "scan": {"energy": "17 keV"}},
    )
    assert made.count("residual &lt;0.1&gt;") == 1 and "a&amp;b&lt;i&gt;.h5" in made
    assert "17 keV" in made and "12 s" in made
    assert "<script>alert" not in made and "<b>" not in made
    assert 'class="light good"><strong>Data never fitted' in made and "1.5 pixels" in made
    assert not re.search(r'(src|href)="', made)  # nothing is asked for


def test_halves_are_offered_where_the_method_has_them():
    for quality, offered in (({"halves": False}, True), ({}, False)):
        made = page("a.h5", Result("x", {}, settings={"quality": quality}), {})
        assert "not measured" in made and ("quality.halves = true" in made) == offered


def test_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("r.h5", result())
    assert main(["report", "r.h5"]) == 0 and (tmp_path / "r.html").stat().st_size > 10_000
    assert main(["report", "absent.h5"]) == 2


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on PATH")
def test_pictures_in_a_browser(tmp_path):
    (tmp_path / "r.html").write_text(page("r.h5", result(), {}) + f"<script>{GESTURES}</script>", encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900", "--virtual-time-budget=8000"]
    command = [
        str(BROWSER),
        *options,
        f"--user-data-dir={tmp_path / 'u'}",
        "--dump-dom",
        f"file://{tmp_path / 'r.html'}",
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    found = json.loads(re.search(r'data-found="([^"]*)"', dom).group(1).replace("&quot;", '"'))
    assert found["corner"].startswith("202.0 rad  at row 2, column 2")
    row, column = map(int, re.search(r"row (\d+), column (\d+)", found["zoomed"]).groups())
    assert row == column >= 16 and found["zoomed"].startswith(f"{101 * row} rad")
    assert found["profile"] and found["before"].startswith("2.000 1/m") and found["after"].startswith("0.000 1/m")
    assert found["panes"] == "6" and found["wide"]
