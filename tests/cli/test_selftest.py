"""The self-test says what is right and what is wrong."""

from diffrecon.cli import _selftest, main


def test_a_check_is_right_or_the_exit_code_says_so(monkeypatch, capsys):
    wrong = {"broken": lambda: 1 / 0, "off": lambda: (False, "3 where 4 is right")}
    monkeypatch.setattr(_selftest, "CHECKS", {"k-edge": _selftest.k_edge})
    assert main(["selftest"]) == 0
    said = capsys.readouterr().out
    assert "ok     k-edge: 0.00100 and 0.00400" in said and "devices: " in said and "1 of 1 checks are right" in said
    monkeypatch.setattr(_selftest, "CHECKS", wrong)
    assert main(["selftest"]) == 1
    said = capsys.readouterr().out
    assert "WRONG  broken: ZeroDivisionError" in said and "0 of 2 checks are right; not: broken, off" in said
