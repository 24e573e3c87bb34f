"""Files say texts, never commands: to Python, to the terminal, to a page or a picture."""

import h5py
import make_files
import numpy as np
import pytest
import stand_in

from diffrecon._console import Console, printable
from diffrecon._result import Quantity, Result
from diffrecon.cli import main
from diffrecon.cli._settings import gather
from diffrecon.errors import InputError
from diffrecon.io import write
from diffrecon.plot import figure

RUN = "from pathlib import Path\nPath('ran').touch()\ndef f(model, batch):\n    return 0.0\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mark.py").write_text(RUN)
    make_files.dxchange(tmp_path / "in.h5")
    with stand_in.in_place_of_all([]):
        yield tmp_path


@pytest.mark.parametrize("section", ["loss", "solver", "quality", "nowhere"])
def test_python_of_a_configuration_runs_only_where_that_was_said(here, section, capsys):
    (here / "c.toml").write_text(f'[{section}]\nfunction = "mark.py:f"\n')
    common = ["in.h5", "-m", "tomography", "-c", "c.toml"]
    for command in (["inspect"], ["reconstruct", "--settings"], ["reconstruct", "-o", "o.h5"]):
        main([*command, *common])
    main(["script", "c.toml", "in.h5"])
    assert not (here / "ran").exists()
    assert main(["reconstruct", *common, "-o", "o.h5", "--allow-code", "-q"]) == (0 if section == "loss" else 2)
    assert (here / "ran").exists() == (section == "loss")


def test_python_that_the_user_names_runs(here):
    (here / "c.toml").write_text('loss = "other.py:g"\n')
    assert main(["reconstruct", "in.h5", "-c", "c.toml", "--set=loss=mark.py:f", "-o", "o.h5", "-q"]) == 0
    assert (here / "ran").exists()
    with pytest.raises(InputError, match=r"file\.py:function"):
        gather(None, ["loss=mark.py:f\nimport os"])


def test_a_script_quotes_what_a_configuration_says(here, capsys):
    for place in ("mark.py\\nprint(1)#.py:f", "a b/mark.py:f", "mark.py:f"):
        (here / "c.toml").write_text(f'loss = "{place}"\n')
        code = main(["script", "c.toml", "in.h5"])
        script = capsys.readouterr().out
        assert code in (0, 2) and not any(line.startswith("print(1)") for line in script.splitlines())
        compile(script, "script", "exec")


def test_control_characters_do_not_reach_the_terminal(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "\x1b]0;title\x07.h5")]) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said and "\x07" not in said and "no such file" in said
    Console().say("a\x1b[2J\rb\u202e")
    assert capsys.readouterr().err == "a?[2J?b?\n" and printable("a\tb\n") == "a\tb\n"


def test_a_page_escapes_every_text_and_a_picture_stands_broken_formulas(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    image = Quantity(np.arange(64.0).reshape(8, 8), "$\\frac{$", ("y", "x"), None, "<b>$\\nope{$ name</b>")
    result = Result("<i>method</i>", {"phase": image}, {"<u>r</u>": 0.5}, ("<script>$x_{$</script>",))
    write("out.h5", result)
    with h5py.File("out.h5", "r+") as file:
        for name in ("date", "version"):
            del file["entry/process"][name]
            file["entry/process"][name] = "<script>mark</script>"
    assert main(["report", "out.h5"]) == 0
    page = (tmp_path / "out.html").read_text()
    for text in ("<script>mark", "<script>$", "$</script>", "<b>$", "name</b>", "<i>method", "<u>r", "r</u>"):
        assert text not in page
    figure(result, "out.png")
