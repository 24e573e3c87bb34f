"""The command line, with a recipe that takes no time in place of a solver."""

import signal
import subprocess
import sys
import tomllib
import types
from typing import Any

import make_files
import numpy as np
import pytest
import stand_in

from diffrecon._result import Quantity, Result
from diffrecon.cli import main
from diffrecon.cli._settings import gather, load_function, parse_value
from diffrecon.errors import InputError
from diffrecon.io import open_scan, process, read_result, write


@pytest.fixture
def asked():
    """What a method that takes no time was asked, in place of every other: (scan, settings, console)."""
    calls: list[Any] = []
    with stand_in.in_place_of_all(calls):
        yield calls


def test_reconstruct_writes_beside_the_user(tmp_path, monkeypatch, asked, capsys):
    monkeypatch.chdir(tmp_path)
    make_files.dxchange(tmp_path / "tooth.h5")
    assert main(["reconstruct", "tooth.h5", "--set", "solver.steps=5", "--set", "output.picture=false"]) == 0
    result = read_result("tooth_reconstruction.h5")
    assert result.method == "tomography" and result.settings["solver"] == {"steps": 5, "name": "adam"}
    said = capsys.readouterr().out
    assert "looks fine" in said and "tooth_reconstruction.h5" in said and "angles in degrees" in said
    assert process("tooth_reconstruction.h5")["input"]["file"] == "tooth.h5"
    assert asked[0][2].checkpoint == "tooth_reconstruction.checkpoint"


def test_settings_from_file_and_command_line(tmp_path, asked):
    """--set wins over the configuration; what is said about the file goes to the reader; all of it is recorded."""
    path = make_files.cxi(tmp_path / "a.cxi")
    (tmp_path / "c.toml").write_text(
        'loss = "costs.py:mine"\n[geometry]\nfocus_to_sample = "3.65 mm"\n'
        "[quality]\nheld_out = 0.2\n[solver]\nsteps = 7\n[output]\npicture = false\n"
    )
    (tmp_path / "costs.py").write_text("def mine(model, batch):\n    return 42\n")
    arguments = [
        "reconstruct",
        str(path),
        "-c",
        str(tmp_path / "c.toml"),
        "-o",
        str(tmp_path / "o.h5"),
        "-q",
        "--set",
        "solver.steps=8",
        "--set",
        "data.views=0:10",
    ]
    assert main(arguments) == 2 and not asked  # Python that a configuration names runs only where that was said
    assert main([*arguments, "--allow-code"]) == 0
    scan, settings, console = asked[0]
    assert scan.views == 10 and scan.geometry.focus_to_sample == 3.65e-3 and console.quiet
    assert settings.solver.steps == 8 and settings.quality.held_out == 0.2
    assert settings.loss.function(None, None) == 42
    recorded = read_result(tmp_path / "o.h5").settings
    assert recorded["geometry"] == {"focus_to_sample": "3.65 mm"} and recorded["loss"]["function"] == "costs.py:mine"
    assert recorded["quality"] == {"held_out": 0.2} and recorded["data"] == {"views": "0:10"}


def test_a_result_holds_a_configuration_that_runs(tmp_path, asked):
    path = make_files.holograms(tmp_path / "a.h5")
    said = {k: v for k, v in make_files.HOLOGRAMS.items() if k != "method"}
    sections = {"counts": "data", "flux": "data"}
    sets = [f"--set={sections.get(k, 'geometry')}.{k}={v}" for k, v in said.items()]
    output = str(tmp_path / "o.h5")
    assert main(["reconstruct", str(path), "-m", "holography", "-o", output, "--set=output.picture=false", *sets]) == 0
    (tmp_path / "c.toml").write_text(process(tmp_path / "o.h5")["config"])
    assert (
        main(
            [
                "reconstruct",
                str(path),
                "-c",
                str(tmp_path / "c.toml"),
                "-o",
                str(tmp_path / "p.h5"),
                "--set=output.picture=false",
            ]
        )
        == 0
    )
    assert process(tmp_path / "o.h5")["config"] == process(tmp_path / "p.h5")["config"]


def test_interruption_keeps_the_best_state(tmp_path, asked, capsys):
    path = make_files.dxchange(tmp_path / "a.h5")
    code = main(
        [
            "reconstruct",
            str(path),
            "-o",
            str(tmp_path / "o.h5"),
            "--set=solver.name=interrupted",
            "--set=output.picture=false",
        ]
    )
    assert code == 130 and read_result(tmp_path / "o.h5").method == "tomography"
    assert "interrupted" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_settings_are_listed(tmp_path, asked, capsys):
    assert main(["reconstruct", "-", "-m", "tomography", "--settings"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["solver"]["steps"] == 10


def test_inspect_measurement(tmp_path, capsys):
    path = make_files.cxi(tmp_path / "a.cxi")
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert "geometry.focus_to_sample" in said and "12.66 keV" in said and "16 views of 32 x 32" in said
    assert main(["inspect", str(path), "--set", "geometry.focus_to_sample=3.65 mm"]) == 0
    said = capsys.readouterr().out
    assert "307.8 x" in said and "pixel 178.7 nm" in said and "Fresnel" in said and "missing" not in said


def test_inspect_saturation_and_gaps(tmp_path, capsys):
    counts = np.ones((4, 8, 8), np.uint16)
    counts[1, 2, 3] = 65535
    np.savez(tmp_path / "a.npz", counts=counts, angles=np.arange(4) * 45.0)
    assert main(["inspect", str(tmp_path / "a.npz")]) == 0
    said = capsys.readouterr().out
    assert "largest number of uint16" in said and "data.flats" in said
    path = make_files.holograms(tmp_path / "a.h5")
    assert main(["inspect", str(path), "-m", "holography", "--set=data.counts=/raw"]) == 0
    assert "geometry.energy" in capsys.readouterr().out


def result_file(path, seed, pixel=1e-8):
    image = make_files.smooth_noise((64, 64), 0, 1.0) + 0.05 * np.random.default_rng(seed).normal(size=(64, 64))
    return write(
        path,
        Result(
            "demo",
            {"phase": Quantity(image, "rad", ("y", "x"), pixel, "phase")},
            {"r": 0.25, "history": np.arange(4.0)},
            ("good",),
            {"solver": {"steps": 3}},
        ),
    )


def test_inspect_result(tmp_path, capsys):
    assert main(["inspect", str(result_file(tmp_path / "a.h5", 1))]) == 0
    said = capsys.readouterr().out
    assert "phase" in said and "r = 0.25" in said and "good" in said and "pixel 10 nm" in said


def test_resolution(tmp_path, capsys):
    first, second = (str(result_file(tmp_path / f"{i}.h5", i)) for i in (1, 2))
    assert main(["resolution", first, second]) == 0
    said = capsys.readouterr().out
    assert "half period" in said and "nm" in said and "half-bit" in said
    assert main(["resolution", first, second, "--region", "8:56,0:48"]) == 0
    assert "48 x 48" in capsys.readouterr().out
    assert main(["resolution", first, second, "--region", "90:99,0:48"]) == 2
    assert "--region" in capsys.readouterr().err
    assert main(["resolution", first, second, "--quantity", "phas"]) == 2
    assert "did you mean phase" in capsys.readouterr().err
    assert main(["resolution", first, str(result_file(tmp_path / "c.h5", 3, 2e-8))]) == 2


def test_resolution_of_the_same_frames_or_of_nothing_in_common(tmp_path, capsys):
    """Equal noise is repeatability; two images of noise have no resolution."""
    np.savez(tmp_path / "scan.npz", counts=np.ones((4, 8, 8)))
    scan = open_scan(tmp_path / "scan.npz")
    image = make_files.smooth_noise((64, 64), 0, 1.0)
    paths = []
    for number, views in enumerate((None, None, "::2")):
        data = {} if views is None else {"data": {"views": views}}
        result = Result("demo", {"phase": Quantity(image, "rad", ("y", "x"), 1e-8, "phase")}, settings=data)
        paths.append(str(write(tmp_path / f"{number}.h5", result, scan)))
    assert main(["resolution", *paths[:2]]) == 0
    said = capsys.readouterr().out
    assert "same frames" in said and "repeatable down to" in said and "quality.halves" in said
    assert main(["resolution", *paths[1:]]) == 0
    said = capsys.readouterr().out
    assert "views all and ::2" in said and "repeatable" not in said
    noise = [str(tmp_path / f"noise_{seed}.npy") for seed in (0, 1)]
    for seed, path in enumerate(noise):
        np.save(path, np.random.default_rng(seed).normal(size=(64, 64)))
    assert main(["resolution", *noise]) == 2
    assert "nothing in common" in capsys.readouterr().err


def test_script_is_python(tmp_path, capsys):
    (tmp_path / "c.toml").write_text(
        'method = "holography"\nloss = "costs.py:mine"\n[geometry]\nenergy = "17 keV"\n[solver]\nsteps = 7\n'
    )
    assert main(["script", str(tmp_path / "c.toml"), "a.h5"]) == 0
    said = capsys.readouterr().out
    compile(said, "script", "exec")
    for part in (
        "dr.open_scan('a.h5'",
        "energy='17 keV'",
        "from costs import mine",
        "'steps': 7",
        "'function': mine",
        "dr.reconstruct(scan",
        "dr.write(",
    ):
        assert part in said
    assert main(["script", str(result_file(tmp_path / "a.h5", 1))]) == 0
    assert "'steps': 3" in capsys.readouterr().out


def test_demo_and_simulate_call_the_simulator(tmp_path, monkeypatch, asked, capsys):
    simulate: Any = types.ModuleType("diffrecon.simulate")
    simulate.demo_file = lambda method, path, seed: make_files.dxchange(path) and {"photons": 500 + seed}
    simulate.method_of = lambda method: method
    simulate.settings = lambda method: ("solver.steps=4",)
    simulate.method_of = lambda name: name
    simulate.judge = lambda method, path, result: [f"error of {result.method}: 3 %"]
    monkeypatch.setitem(sys.modules, "diffrecon.simulate", simulate)
    monkeypatch.setattr("diffrecon.simulate", simulate, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["demo", "tomography", "-o", str(tmp_path), "--seed", "3"]) == 0
    assert "error of tomography: 3 %" in capsys.readouterr().out
    assert asked[0][1].solver.steps == 4
    assert main(["simulate", "tomography", "-o", str(tmp_path / "s.h5")]) == 0
    assert "photons: 500" in capsys.readouterr().out and (tmp_path / "s.h5").exists()
    assert main(["demo", "tomografy"]) == 2


@pytest.mark.parametrize(
    "text, value",
    [
        ("3", 3),
        ("3e-4", 3e-4),
        ("true", True),
        ("False", False),
        ("[1, 2]", [1, 2]),
        ("17 keV", "17 keV"),
        ("/z1", "/z1"),
        ('"a b"', "a b"),
        ("0:10", "0:10"),
        ("1.28 m", "1.28 m"),
        ("a=b", "a=b"),
        ("", ""),
        ("2020-01-01", "2020-01-01"),
    ],
)
def test_values_of_the_command_line(text, value):
    found = parse_value(text)
    assert found == value and type(found) is type(value)


def test_load_function(tmp_path):
    (tmp_path / "f.py").write_text("def tv(x):\n    return 2 * x\n")
    assert load_function("f.py:tv", tmp_path)(3) == 6
    with pytest.raises(InputError, match="did you mean tv"):
        load_function("f.py:tvv", tmp_path)
    with pytest.raises(InputError, match="no file"):
        load_function("g.py:tv", tmp_path)
    (tmp_path / "h.py").write_text("1 / 0\n")
    with pytest.raises(InputError, match="ZeroDivisionError"):
        load_function("h.py:tv", tmp_path)


def test_gather_sorts(tmp_path):
    settings = gather(None, ["data.counts=/raw", "loss=f.py:g", "model.modes=2", "output.file=o.h5"], load=False)
    assert settings.file == {"counts": "/raw"} and settings.output["file"] == "o.h5"
    assert settings.recipe == {"loss": {"function": "f.py:g"}, "model": {"modes": 2}}


def test_help_and_module_entry():
    ran = subprocess.run([sys.executable, "-m", "diffrecon", "--help"], capture_output=True, text=True)
    assert ran.returncode == 0 and "reconstruct" in ran.stdout and not ran.stderr
    assert main(["--version"]) == 0 and main([]) == 0


def test_an_internal_fault_is_one_line_too(tmp_path, asked, monkeypatch, capsys):
    def broken(*_):
        raise TypeError("unexpected\nthing")

    monkeypatch.setattr(stand_in.StandIn, "start", broken)
    path = str(make_files.dxchange(tmp_path / "a.h5"))
    assert main(["reconstruct", path, "-o", str(tmp_path / "o.h5"), "-q"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "internal error: TypeError" in said and "--debug" in said
    with pytest.raises(TypeError):
        main(["reconstruct", path, "-o", str(tmp_path / "o.h5"), "--debug"])


def test_the_measurement_is_never_the_output(tmp_path, capsys):
    scan = tmp_path / "scan.h5"
    scan.write_bytes(b"the only copy")
    before = scan.read_bytes()
    assert main(["reconstruct", str(scan), "-o", str(scan)]) == 2
    assert "measurement itself" in capsys.readouterr().err and scan.read_bytes() == before
