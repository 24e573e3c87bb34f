"""Settings one can find: `explain`, lists of methods, completion in the shell."""

import os
import subprocess
import sys

import numpy as np
import pytest

import diffrecon as dr
from diffrecon.cli import main


def test_a_setting_is_explained_in_every_method_that_has_it(capsys):
    assert main(["explain", "loss.attenuation"]) == 2 and "there is no setting" in capsys.readouterr().err
    assert main(["explain", "solver.steps"]) == 0
    said = capsys.readouterr().out
    assert "tomography" in said and "default" in said
    assert main(["explain", "solver.steps", "-m", "tomography"]) == 0
    assert "ptychography" not in capsys.readouterr().out


def test_what_is_said_about_a_file_and_whole_sections_are_explained(capsys):
    assert main(["explain", "data.kind"]) == 0
    assert "counts, transmission, line-integrals" in capsys.readouterr().out
    assert main(["explain", "solver", "-m", "tomography"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert said == [f"solver.{key}" for key in dr.recipes.defaults("tomography")["solver"]]


def test_an_unknown_setting_names_the_nearest(capsys):
    assert main(["explain", "solver.step"]) == 2
    assert "did you mean solver.steps?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "said, was_meant",
    [
        ("data.energy", "geometry.energy"),
        ("solver.energy", "geometry.energy"),
        ("data.dark", "data.darks"),
        ("geometry.wavelenght", "geometry.wavelength"),
        ("geometry.sample_distance", "geometry.sample_to_detector"),
        ("geometry.pixel", "geometry.pixel_size"),
        ("model.steps", "solver.steps"),
    ],
)
def test_what_was_meant_is_found_in_other_sections_too(said, was_meant, tmp_path, capsys):
    """Whether the file or the method would be asked."""
    np.savez(tmp_path / "a.npz", counts=np.ones((3, 4, 5)), angles=np.arange(3))
    words = ["reconstruct", str(tmp_path / "a.npz"), "-m", "tomography", "--set", f"{said}=1"]
    assert main(words) == 2
    assert f"setting {said}; did you mean {was_meant}?" in capsys.readouterr().err


@pytest.mark.parametrize("command, methods", [("reconstruct", dr.recipes.methods), ("demo", dr.simulate.methods)])
def test_help_lists_the_methods(command, methods, capsys):
    assert main([command, "--help"]) == 0
    said = "".join(capsys.readouterr().out.split())
    assert "methods:" + ",".join(methods()) in said


@pytest.mark.parametrize(
    "typed, completed",
    [
        ("diffrecon reconstruct a.h5 -m holo", {"holography", "holotomography"}),
        ("diffrecon explain geometry.focus_to_s", {"geometry.focus_to_sample"}),
        ("diffrecon inspect a.h5 -m tomography --set solver.filt", {"solver.filter="}),
    ],
)
def test_the_shell_completes(typed, completed, tmp_path):
    """In a process of its own, as a shell calls it."""
    pytest.importorskip("argcomplete")
    answer = tmp_path / "answer"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": " ", "COMP_LINE": typed, "COMP_POINT": str(len(typed))}
    asked["_ARGCOMPLETE_STDOUT_FILENAME"] = str(answer)
    code = "import sys; from diffrecon.cli import main; sys.exit(main([]))"
    subprocess.run([sys.executable, "-c", code], env=os.environ | asked, check=True, stderr=subprocess.DEVNULL)
    assert set(answer.read_text().split()) == completed
