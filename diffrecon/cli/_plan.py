"""`diffrecon design METHOD key=value ...`: what a measurement will show, and better numbers for it."""

import argparse
from typing import Any

from ..errors import InputError


def plan(options: argparse.Namespace) -> int:
    """Print what the settings lead to, or what is found by gradient."""
    from .. import planning
    from ._settings import parse_value

    if options.output:
        from .. import io
        from .._optional import require

        require("matplotlib", "plot")
        io.check_output(options.output)
    words = [word.partition("=") for word in options.words]
    ranges = {name: text for name, _, text in words if _is_range(text)}
    given = {name: parse_value(text) for name, _, text in words if name not in ranges}
    made = planning.plan(options.method, **given)
    names = {name: None for name in options.optimise} | {n: _range(made, n, t) for n, t in ranges.items()}
    if options.settings:
        print("\n".join(planning.settings_in_words(made)))
        return 0
    if names:
        made = _optimised(made, names, options)
    elif options.aim or options.hold:
        raise InputError("--aim and --hold belong to --optimise: which numbers may change?")
    _show(made)
    if options.output:
        from .. import plot

        plot.plan_curve(made).savefig(options.output)
        print(f"curve: {options.output}")
    return 0


def _is_range(text: str) -> bool:
    return ":" in text and not text.startswith(("[", '"', "{"))


def _range(made: Any, name: str, text: str) -> tuple[float, float]:
    from .. import physics
    from ..settings import rules

    known = rules(made.settings)
    unit = known[name].unit if name in known else ""
    ends = [physics.quantity(part, unit, name) for part in text.split(":")]
    if len(ends) != 2:
        raise InputError(f'{name}={text}: write a range as two values with a colon between, such as "10 keV:30 keV"')
    return ends[0], ends[1]


def _optimised(made: Any, names: Any, options: argparse.Namespace) -> Any:
    from .. import planning

    found = planning.optimise(made, names, aim=options.aim or "sensitivity", hold=options.hold)
    print(f"smallest {found.aim} at the same {found.held}, by gradient:")
    for name in dict.fromkeys([*found.ranges, "exposure"]):
        print(f"  {name}: {_shown(getattr(made.settings, name))} -> {_shown(getattr(found.plan.settings, name))}")
    for name in found.at_an_end():
        low, high = found.ranges[name]
        print(f"  {name} stands at an end of its range, {low:.4g} to {high:.4g}: a wider one would give more")
    print("before:")
    print("\n".join("  " + line for line in planning.figures_in_words(made, made.figures())))
    print("after:")
    return found.plan


def _shown(value: Any) -> str:
    return ", ".join(f"{v:.4g}" for v in value) if isinstance(value, tuple) else f"{value:.4g}"


def _show(made: Any) -> None:
    from .. import planning

    figures = made.figures()
    for lines in (planning.figures_in_words(made, figures), planning.curve_in_words(made)):
        print("\n".join([*lines, ""]))
    print(planning.doubling_in_words(made, figures))
