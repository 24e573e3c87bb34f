"""Results: written whole or not at all, read back as they were, in a layout that viewers open."""

import errno
import hashlib
import io
import os
import re
import tomllib
from typing import Any

import h5py
import make_files
import numpy as np
import pytest

from diffrecon._result import Quantity, Result
from diffrecon.errors import InputError
from diffrecon.io import _disk, dumps, open_scan, process, read_result, write


def example():
    random = np.random.default_rng(0)
    return Result(
        "near-field-ptychography",
        {
            "object": Quantity(
                (random.normal(size=(9, 8)) + 1j).astype(np.complex64), "", ("y", "x"), 1e-7, "object", "complex"
            ),
            "probe": Quantity(np.ones((2, 64, 64), np.complex64), "", ("mode", "y", "x"), 1e-7, "probe", "modes"),
            "positions": Quantity(random.normal(size=(5, 2)), "m", ("view", "2"), 1e-7, "positions", "positions"),
            "volume": Quantity(
                random.normal(size=(3, 200, 200)).astype(np.float32), "1/pixel", ("z", "y", "x"), None, "mu"
            ),
        },
        {
            "held_out_residual": 0.125,
            "history": np.arange(5.0),
            "frc": {"frequency": np.linspace(0, 0.5, 4), "crossing": 0.2},
        },
        ("R 0.125", "half period 12 nm"),
        {"solver": {"steps": 5, "rates": [1.0, 2.0], "name": "adam", "on": True, "nothing": None}},
    )


def test_round_trip(tmp_path):
    result = example()
    again = read_result(write(tmp_path / "a.h5", result))
    assert again.method == result.method and list(again.quantities) == list(result.quantities)
    for name, quantity in result.quantities.items():
        found = again.quantities[name]
        assert found.data.dtype == quantity.data.dtype and (found.data == quantity.data).all()
        assert (found.units, found.axes, found.pixel_size, found.long_name, found.kind) == (
            quantity.units,
            quantity.axes,
            quantity.pixel_size,
            quantity.long_name,
            quantity.kind,
        )
    assert again.quality["held_out_residual"] == 0.125 and (again.quality["history"] == np.arange(5)).all()
    assert again.quality["frc"]["crossing"] == 0.2
    assert again.verdict == result.verdict
    assert again.settings == {"solver": {"steps": 5, "rates": [1.0, 2.0], "name": "adam", "on": True}}


def test_layout(tmp_path):
    """The default chain, classes, units and pixel sizes that viewers and other programs rely on."""
    write(tmp_path / "a.h5", example())
    opened: Any = h5py.File(tmp_path / "a.h5")
    with opened as file:
        item = file
        for _ in range(2):
            item = item[item.attrs["default"]]
        assert item.name == "/entry/object" and item.attrs["NX_class"] == "NXdata" and item.attrs["signal"] == "data"
        assert list(item.attrs["axes"]) == ["y", "x"]
        assert item["x"][()] == pytest.approx((np.arange(8) - 3.5) * 1e-7) and item["x"].attrs["units"] == "m"
        assert np.iscomplexobj(item["data"][()])
        for name in ("object", "probe", "positions", "volume"):
            attributes = file[f"entry/{name}/data"].attrs
            assert {"units", "pixel_size", "long_name"} <= set(attributes)
        assert file["entry/positions/data"].attrs["units"] == "m"
        assert file["entry/positions/data"].attrs["pixel_size"] == 1e-7
        assert file["entry/volume/data"].attrs["pixel_size"] == 1 and file["entry/volume/x"].attrs["units"] == "pixel"
        assert file["entry/process"].attrs["NX_class"] == "NXprocess"


def test_positions_without_pixel_size_are_in_pixels(tmp_path):
    quantity = Quantity(np.ones((3, 2)), "m", ("view", "2"), None, "positions", "positions")
    write(tmp_path / "a.h5", Result("far-field-ptychography", {"positions": quantity}))
    with h5py.File(tmp_path / "a.h5") as file:
        attributes = file["entry/positions/data"].attrs
        assert attributes["units"] == "pixel" and attributes["pixel_size"] == 1


def test_provenance(tmp_path):
    path = make_files.cxi(tmp_path / "in.cxi")
    write(tmp_path / "a.h5", example(), open_scan(path, focus_to_sample=3.65e-3))
    found = process(tmp_path / "a.h5")
    assert found["input"]["file"] == "in.cxi"
    assert found["input"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found["program"] == "diffrecon" and {"jax", "numpy"} <= set(found["versions"])
    assert tomllib.loads(found["config"])["solver"]["steps"] == 5
    names: list[str] = []
    with h5py.File(tmp_path / "a.h5") as file:
        file.visit(names.append)
    unfit = [name for name in names if not re.fullmatch(r"[A-Za-z0-9_]([\w.]*\w)?", name.rpartition("/")[2])]
    assert not unfit and "pixel_in_the_sample" in found["scan"]  # by the rule of NeXus


def test_solution_of_any_pytree(tmp_path):
    class Solution:
        value = {"object": np.ones((4, 5), np.complex64), "positions": np.zeros((3, 2), np.float32)}
        history = np.array([3.0, 2.0, 1.0])

    again = read_result(write(tmp_path / "a.h5", Solution()))
    assert set(again.quantities) == {"object", "positions"} and (again.quality["history"] == [3, 2, 1]).all()
    assert again.quantities["object"].kind == "complex" and again.quantities["positions"].axes == ("view", "2")


@pytest.mark.parametrize(
    "code, match",
    [
        (errno.ENOSPC, "no space left"),
        (errno.EACCES, "no permission"),
        (errno.EDQUOT, "quota"),
        (errno.EIO, "could not be written"),
    ],
)
def test_failure_leaves_nothing_behind(tmp_path, monkeypatch, code, match):
    """The disk fills up while writing: the old file stays, no half file appears."""
    write(tmp_path / "a.h5", example())
    before = (tmp_path / "a.h5").read_bytes()

    class Full(io.FileIO):
        def write(self, data):
            if self.tell() + len(data) > 2000:
                raise OSError(code, os.strerror(code))
            return super().write(data)

    monkeypatch.setattr(_disk, "open", lambda path, mode, buffering=-1: Full(path, mode), raising=False)
    with pytest.raises(InputError, match=match):
        write(tmp_path / "a.h5", example())
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"] and (tmp_path / "a.h5").read_bytes() == before


def test_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(h5py.Group, "create_dataset", stop)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.h5", example())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path, match", [("", "folder"), ("no/a.h5", "no folder")])
def test_paths_that_cannot_be(tmp_path, path, match):
    with pytest.raises(InputError, match=match):
        write(tmp_path / path, example())


def test_other_files_are_no_results(tmp_path):
    with pytest.raises(InputError, match="not a result"):
        read_result(make_files.dxchange(tmp_path / "a.h5"))
    write(tmp_path / "b.h5", example())
    with pytest.raises(InputError, match="result of diffrecon"):
        open_scan(tmp_path / "b.h5")


@pytest.mark.parametrize("value", [1, -2.5, 1e-30, True, 'a "b" \\ ü \n c', [1, 2], [[1.5], ["x"]], float("inf")])
def test_toml_is_read_back(value):
    assert tomllib.loads(dumps({"top": value, "section": {"k-e_y": value, "odd key": value}})) == {
        "top": value,
        "section": {"k-e_y": value, "odd key": value},
    }
