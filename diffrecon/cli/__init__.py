"""The command line: `main(arguments) -> exit code`."""

from ._main import main as main
