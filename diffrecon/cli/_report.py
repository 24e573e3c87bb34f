"""`diffrecon report`: a result as one HTML page that holds everything and asks for nothing."""

import argparse
from pathlib import Path

from .page import page


def report(options: argparse.Namespace) -> int:
    """Write the page."""
    from .. import io

    path = Path(options.file)
    output = io.check_output(options.output or path.with_suffix(".html").name)
    result, process = io.read_result(path), io.process(path)
    with io.atomically(output) as temporary:
        temporary.write_text(page(path.name, result, process), encoding="utf-8")
    print(output)
    return 0
