"""Bad input through the command line: exit code 2, one clear line, no traceback, no half-written output."""

import io
import os

import h5py
import make_files
import numpy as np
import pytest
import stand_in

from diffrecon.cli import main
from diffrecon.io import _disk

NEAR = ["--set", "geometry.focus_to_sample=3.65 mm"]


@pytest.fixture(autouse=True)
def recipe():
    """A recipe that always succeeds: whatever is refused is refused before it."""
    with stand_in.in_place_of_all([]):
        yield


def truncated(folder):
    path = make_files.cxi(folder / "in.cxi")
    path.write_bytes(path.read_bytes()[:-3000])
    return [path, *NEAR]


def damaged_chunks(folder):
    """Opens as HDF5, but the frames cannot be unpacked."""
    path = folder / "in.h5"
    with h5py.File(path, "w") as file:
        data = np.random.default_rng(0).poisson(100, (4, 32, 32)).astype(np.uint16)
        file.create_dataset("exchange/data", data=data, chunks=(1, 32, 32), compression="gzip")
        file["exchange/theta"] = np.arange(4) * 45.0
        place = file["exchange/data"].id.get_chunk_info(2)
    raw = bytearray(path.read_bytes())
    raw[place.byte_offset : place.byte_offset + place.size] = bytes(place.size)
    path.write_bytes(raw)
    return [path]


def frames(folder, change):
    counts, corners = make_files.near_field_frames()
    return [make_files.cxi(folder / "in.cxi", frames=(change(counts), corners)), *NEAR]


def pattern(folder, change):
    return [*frames(folder, change), "-m", "cdi"]


def with_value(counts, value):
    counts = counts.astype(float if not isinstance(value, int) else counts.dtype)
    counts[3, 5, 6] = value
    return counts


def empty_view(counts):
    counts = counts.copy()
    counts[7] = 0
    return counts


def text_file(folder):
    (folder / "in.h5").write_text("not an HDF5 file at all, just some words\n")
    return [folder / "in.h5"]


def empty_file(folder):
    (folder / "in.h5").touch()
    return [folder / "in.h5"]


def truncated_npz(folder):
    path = make_files.npz(folder / "in.npz")
    path.write_bytes(path.read_bytes()[:5000])
    return [path]


def scaled_positions(folder, factor):
    counts, corners = make_files.near_field_frames()
    return [make_files.cxi(folder / "in.cxi", frames=(counts, corners * factor)), *NEAR]


def nan_position(folder):
    counts, corners = make_files.near_field_frames()
    corners = corners.astype(float)
    corners[:, 0] = np.nan
    return [make_files.cxi(folder / "in.cxi", frames=(counts, corners)), *NEAR]


def toml(folder, text):
    (folder / "c.toml").write_text(text)
    return [make_files.dxchange(folder / "in.h5"), "-c", folder / "c.toml"]


def tomography(folder, *arguments, **change):
    return [make_files.dxchange(folder / "in.h5", **change), *arguments]


CASES = {
    # name: (arguments from a folder, what the line must say)
    "truncated HDF5": (truncated, "damaged or incomplete"),
    "damaged chunks": (damaged_chunks, "exchange/data.*damaged"),
    "truncated npz": (truncated_npz, "damaged or incomplete"),
    "not a data file": (text_file, "neither HDF5"),
    "empty file": (empty_file, "is empty"),
    "missing file": (lambda f: [f / "nothing.h5"], "no such file"),
    "a folder": (lambda f: [f], "folder without TIFF"),
    "unknown layout": (lambda f: [make_files.holograms(f / "in.h5")], "no known layout.*data.counts"),
    "frames of one dimension": (
        lambda f: [make_files.cxi(f / "in.cxi", change={"instrument_1/detector_1/data": np.ones(5)}), *NEAR],
        "shape",
    ),
    "no frames": (lambda f: frames(f, lambda c: c[:0]), "none of them 0"),
    "too few positions": (
        lambda f: [make_files.cxi(f / "in.cxi", change={"sample_1/geometry_1/translation": np.zeros((3, 3))}), *NEAR],
        "3 positions for 16 frames",
    ),
    "mask of another shape": (
        lambda f: [
            make_files.cxi(f / "in.cxi", change={"instrument_1/detector_1/mask": np.zeros((5, 5), np.uint32)}),
            *NEAR,
        ],
        "mask.*shape",
    ),
    "mask leaves nothing": (
        lambda f: [
            make_files.cxi(f / "in.cxi", change={"instrument_1/detector_1/mask": np.ones((32, 32), np.uint32)}),
            *NEAR,
        ],
        "leaves no pixel",
    ),
    "NaN": (lambda f: pattern(f, lambda c: with_value(c, np.nan)), "view 3, pixel .5, 6. are nan"),
    "infinity": (lambda f: pattern(f, lambda c: with_value(c, np.inf)), "view 3.*inf"),
    "negative counts": (lambda f: pattern(f, lambda c: with_value(c, -7)), "view 3.*negative"),
    "no counts at all": (lambda f: frames(f, np.zeros_like), "no frame holds any counts"),
    "empty view": (
        lambda f: tomography(f, "-m", "holotomography", counts=empty_view(np.ones((12, 3, 16), int))),
        "view 7 has.*0:7,8:12",
    ),
    "views below zero": (
        lambda f: tomography(
            f, counts=np.where(np.arange(12) % 6 == 4, -1, 400)[:, None, None] * np.ones((3, 16), int)
        ),
        "view 4 are negative: -1 in nearly all.*they are 4,10",
    ),
    "counts of text": (lambda f: frames(f, lambda c: c.astype("S8")), "type"),
    "missing energy": (lambda f: [make_files.cxi(f / "in.cxi", drop=("source_1",)), *NEAR], "geometry.energy"),
    "impossible energy": (
        lambda f: [make_files.cxi(f / "in.cxi", change={"instrument_1/source_1/energy": 1e7}), *NEAR],
        "no X-ray energy.*geometry.energy=",
    ),
    "missing distance": (
        lambda f: [make_files.cxi(f / "in.cxi", drop=("distance",)), *NEAR],
        "geometry.sample_to_detector",
    ),
    "missing focus": (lambda f: [make_files.cxi(f / "in.cxi")], "geometry.focus_to_sample"),
    "missing angles": (lambda f: tomography(f, drop=("theta",)), "data.angles"),
    "method not clear": (lambda f: [make_files.holograms(f / "in.h5"), "--set", "data.counts=/raw"], "say it with -m"),
    "missing positions": (
        lambda f: [make_files.cxi(f / "in.cxi", drop=("translation",)), *NEAR, "-m", "near-field-ptychography"],
        "data.positions",
    ),
    "positions too wide": (lambda f: scaled_positions(f, 1e6), "object pixels.*unit"),
    "positions do not overlap": (lambda f: scaled_positions(f, 50), "do not overlap"),
    "positions do not move": (lambda f: scaled_positions(f, 1e-6), "does not move"),
    "positions not finite": (nan_position, "not finite numbers in any view"),
    "angles in radians called degrees": (lambda f: tomography(f, theta=np.arange(12) * np.pi / 12), "data.angle_unit"),
    "angles in degrees called radians": (lambda f: tomography(f, units="rad"), "look like degrees"),
    "angles in furlongs": (lambda f: tomography(f, units="furlong"), "not a unit"),
    "other number of angles": (lambda f: tomography(f, theta=np.arange(5) * 30.0), "5 angles for 12 frames"),
    "unknown method": (lambda f: tomography(f, "-m", "tomografy"), "did you mean tomography"),
    "unknown key": (lambda f: tomography(f, "--set", "solver.stepps=5"), "did you mean solver.steps"),
    "unknown key of the file": (lambda f: tomography(f, "--set", "geometry.enrgy=5"), "did you mean geometry.energy"),
    "unknown section": (lambda f: tomography(f, "--set", "solvr.steps=5"), "did you mean solver"),
    "unknown output key": (lambda f: tomography(f, "--set", "output.fil=5"), "did you mean file"),
    "value of another kind": (lambda f: tomography(f, "--set", "solver.steps=many"), "not a whole number"),
    "malformed --set": (lambda f: tomography(f, "--set", "solver"), "section.key=value"),
    "unknown key in TOML": (lambda f: toml(f, "[solver]\nstepps = 5\n"), "did you mean solver.steps"),
    "broken TOML": (lambda f: toml(f, "[solver\n"), "not TOML"),
    "missing TOML": (lambda f: tomography(f, "-c", f / "none.toml"), "none.toml"),
    "missing cost file": (lambda f: tomography(f, "--set", "loss=none.py:cost"), "no file none.py"),
    "no such option": (lambda f: tomography(f, "--quick"), "--help"),
    "wrong unit": (lambda f: tomography(f, "--set", "geometry.detector_pixel=3 kg"), "not a unit"),
    "implausible pixel": (lambda f: tomography(f, "--set", "geometry.detector_pixel=3"), "not plausible"),
    "views outside": (lambda f: tomography(f, "--set", "data.views=50:60"), "selects none"),
    "dataset that is not there": (lambda f: tomography(f, "--set", "data.flats=/nothing"), "no dataset /nothing"),
    "external link to nothing": (lambda f: [make_files.nxtomo(f / "in.nxs", link_exists=False)], "detector.h5"),
    "output folder missing": (lambda f: tomography(f, "-o", f / "no" / "out.h5"), "no folder"),
    "output is a folder": (lambda f: tomography(f, "-o", f), "is a folder"),
    "output on a device": (lambda f: tomography(f, "-o", "/dev/full"), "not an ordinary file"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_with_one_line(name, tmp_path, capfd):
    make, match = CASES[name]
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    arguments = [str(a) for a in make(inputs)]
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    output = [] if "-o" in arguments else ["-o", str(tmp_path / "out.h5")]
    code = main(["reconstruct", *arguments, *output])
    check_one_line(code, capfd.readouterr().err, match)
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == before


def check_one_line(code, said, match):
    import re

    assert code == 2
    assert said.count("\n") == 1 and said.startswith("diffrecon: error: "), said
    assert "Traceback" not in said
    assert re.search(match, said), said


@pytest.mark.parametrize("command", [["inspect"], ["report"], ["resolution", "other.h5"], ["script"]])
def test_other_commands_on_a_missing_file(command, tmp_path, capfd):
    check_one_line(main([*command, str(tmp_path / "nothing.h5")]), capfd.readouterr().err, r"(nothing|other)\.h5")


def test_inspect_shows_what_it_can_of_bad_frames(tmp_path, capfd):
    arguments = frames(tmp_path, lambda c: with_value(c, np.nan))
    assert main(["inspect", *map(str, arguments)]) == 0  # the method leaves out what it cannot use
    assert "1 values are not finite" in capfd.readouterr().out


@pytest.mark.parametrize("make", [make_files.cxi, make_files.dxchange, make_files.npz, make_files.ptyd])
def test_cut_off_anywhere(make, tmp_path, capfd):
    """A copy that was interrupted, at whatever byte, is refused in one line or still whole enough to be read."""
    whole = make(tmp_path / f"whole{'.npz' if make is make_files.npz else '.h5'}")
    raw = whole.read_bytes()
    for length in np.random.default_rng(0).integers(1, len(raw), 12):
        part = whole.with_stem("part")
        part.write_bytes(raw[:length])
        check_one_line(main(["inspect", str(part)]), capfd.readouterr().err, "damaged|neither HDF5")


def test_damaged_inner_tables(tmp_path, capfd):
    """Opens as HDF5, and then fails somewhere inside of it."""
    path = make_files.dxchange(tmp_path / "in.h5")
    raw = path.read_bytes()
    place = raw.index(b"HEAP")
    path.write_bytes(raw[:place] + bytes(200) + raw[place + 200 :])
    check_one_line(main(["inspect", str(path)]), capfd.readouterr().err, "damaged or incomplete")


def test_disk_full(tmp_path, monkeypatch, capfd):
    class Full(io.FileIO):
        def write(self, data):
            raise OSError(28, os.strerror(28))

    path = make_files.dxchange(tmp_path / "in.h5")
    monkeypatch.setattr(_disk, "open", lambda path, mode, buffering=-1: Full(path, mode), raising=False)
    code = main(["reconstruct", str(path), "-o", str(tmp_path / "out.h5"), "-q"])
    check_one_line(code, capfd.readouterr().err, "no space left")
    for method in ("tomography", "cdi", "k-edge"):
        code = main(["simulate", method, "-o", str(tmp_path / "simulated.h5")])
        check_one_line(code, capfd.readouterr().err, "no space left")
    assert [p.name for p in tmp_path.iterdir()] == ["in.h5"]


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_no_permission(tmp_path, capfd):
    path = make_files.dxchange(tmp_path / "in.h5")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    check_one_line(main(["reconstruct", str(path), "-o", str(locked / "out.h5")]), capfd.readouterr().err, "permission")
    path.chmod(0)
    code = main(["reconstruct", str(path), "-o", str(tmp_path / "out.h5")])
    check_one_line(code, capfd.readouterr().err, "cannot be read")


def test_unreadable_path(tmp_path, monkeypatch, capfd):
    """A file that exists and may not be read, also for the superuser who runs the tests."""
    from diffrecon.io import source as _source

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    path = make_files.dxchange(tmp_path / "in.h5")
    monkeypatch.setattr(_source, "open", refuse, raising=False)
    code = main(["reconstruct", str(path), "-o", str(tmp_path / "out.h5")])
    check_one_line(code, capfd.readouterr().err, "cannot be read")
