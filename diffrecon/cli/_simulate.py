"""`diffrecon simulate` and `diffrecon demo`."""

import argparse
from pathlib import Path

from ..errors import InputError
from ._settings import gather


def simulate(options: argparse.Namespace) -> int:
    """Write a simulated measurement."""
    from .. import io, simulate

    simulate.method_of(options.method)
    path = io.check_output(options.output)
    truth = simulate.demo_file(options.method, path, options.seed)
    print(f"{path}: simulated {options.method}, seed {options.seed}")
    for name, figure in (truth or {}).items():
        if isinstance(figure, str | int | float):
            print(f"  {name.replace('_', ' ')}: {figure}")
    told = "".join(f' --set "{text}"' for text in simulate.settings(options.method))
    print(f"next: diffrecon reconstruct {path}{told}")
    return 0


def demo(options: argparse.Namespace) -> int:
    """Simulate, reconstruct, and judge against the truth."""
    from .. import io, recipes, simulate
    from ._reconstruct import run

    method = options.method or next(iter(recipes.methods()))
    recipe = simulate.method_of(method)
    folder = Path(options.output)
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder")
    data = io.check_output(folder / f"demo_{method}.h5")
    output = io.check_output(folder / f"demo_{method}_reconstruction.h5")
    simulate.demo_file(method, data, options.seed)
    print(f"{data}: simulated {method}, seed {options.seed}")
    code = run(str(data), output, recipe, gather(None, list(simulate.settings(method))), force=True)
    for line in simulate.judge(method, data, io.read_result(output)):
        print(line)
    return code
