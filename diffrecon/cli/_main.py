"""Arguments in, exit code out: 0 done, 2 the user's input cannot be used, 1 a fault of the program, 130 interrupted
(143 by SIGTERM, 129 by SIGHUP).

Nothing heavy is imported before the arguments are understood.
"""

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from .._console import printable_output
from .._methods import SIMULATED, built_in
from ..errors import InputError, MissingPackage

_EPILOG = """\
examples:
  diffrecon inspect scan.cxi
  diffrecon reconstruct scan.cxi --set geometry.focus_to_sample="3.65 mm"
  diffrecon reconstruct tooth.h5 -o tooth_volume.h5 --set solver.name=cgls
  diffrecon reconstruct any.h5 -m holography --set data.counts=/raw --set geometry.energy="17 keV" ...
  diffrecon demo tomography
"""


class _Parser(argparse.ArgumentParser):
    """Wrong arguments are input errors like any other: one line."""

    lists: Callable[[], Iterable[str]] | None = None  # the methods that --help names
    words: Callable[[list[str]], tuple[list[str], str | None, list[str]]] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None, **more: Any) -> Any:  # pyright: ignore
        """Let key=value stand anywhere among the options of a command that takes them (argparse does not)."""
        if self.words is None:
            return super().parse_known_args(args, namespace, **more)
        rest, method, words = self.words(list(args))
        options, extra = super().parse_known_args(rest, namespace, **more)
        options.method, options.words = method, words
        return options, extra

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")

    def format_help(self) -> str:
        if self.lists is not None:
            self.epilog = f"methods: {', '.join(self.lists())}"
        return super().format_help()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; `sys.argv` by default.

    **Returns:** the exit code. Errors that the user can mend are one line on standard error; `--debug` shows
    tracebacks.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    with printable_output():
        return _run(arguments, "--debug" in arguments)


def _run(arguments: list[str], debug: bool) -> int:
    try:
        parser = _parser()
        if "_ARGCOMPLETE" in os.environ:
            importlib.import_module("._completion", __package__).complete(parser)
        options = parser.parse_args(arguments)
        if options.command is None:
            parser.print_help()
            return 0
        for guest in getattr(options, "guests", ()):
            importlib.import_module("._settings", __package__).run_file(guest)
        module = importlib.import_module(f".{options.module}", __package__)
        return int(getattr(module, options.function)(options) or 0)
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0) if not isinstance(stop.code, str) else 2
    except KeyboardInterrupt as stop:
        print("diffrecon: interrupted", file=sys.stderr)
        return 128 + getattr(stop, "number", 2)
    except BrokenPipeError:  # ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        return _explain(error)


def _explain(error: Exception) -> int:
    """One line for an exception, and the exit code it deserves."""
    said = " ".join(str(error).split())
    if isinstance(error, InputError | MissingPackage):
        print(f"diffrecon: error: {said}", file=sys.stderr)
        return 2
    if isinstance(error, OSError):
        if error.errno == errno.ENOSPC:
            said = f"no space left on the disk{f' for {error.filename}' if error.filename else ''}"
        elif error.strerror:
            said = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        print(f"diffrecon: error: {said}", file=sys.stderr)
        return 2
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in said:
        print(
            "diffrecon: error: not enough memory; take fewer views at once (solver.batch_size) or part of the data "
            "(data.views, data.rows)",
            file=sys.stderr,
        )
        return 2
    print(
        f"diffrecon: internal error: {type(error).__name__}: {said[:400]} (run again with --debug for the traceback)",
        file=sys.stderr,
    )
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="diffrecon",
        description="Reconstruct X-ray imaging experiments.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show program's version number and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    _inspect(commands)
    _reconstruct(commands)
    _explain_settings(commands)
    _simulate(commands)
    _after(commands)
    return parser


def _command(commands: Any, name: str, module: str, function: str, says: str) -> _Parser:
    parser = commands.add_parser(name, help=says, description=says)
    parser.set_defaults(module=module, function=function)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument(
        "--with",
        action="append",
        default=[],
        metavar="FILE.py",
        dest="guests",
        help="run this Python file first: it may register methods, readers, pictures, demos of your own",
    )
    return parser


def _described(parser: _Parser) -> None:
    parser.lists = built_in
    parser.add_argument("-m", "--method", help="what was measured; guessed from the file where it is clear")
    parser.add_argument("-c", "--config", metavar="CONFIG.toml", help="settings by section")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="section.key=value",
        dest="sets",
        help='one setting, e.g. geometry.energy="17 keV"; a value /like/this is a dataset of FILE',
    )


def _inspect(commands: Any) -> None:
    parser = _command(
        commands,
        "inspect",
        "_inspect",
        "inspect",
        "Say what a file is, what it holds and what is missing; or show a result.",
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--plot", metavar="PICTURE", help="draw the contrast transfer functions of the distances")
    _described(parser)


def _reconstruct(commands: Any) -> None:
    parser = _command(commands, "reconstruct", "_reconstruct", "reconstruct", "From a measurement to a NeXus file.")
    parser.add_argument("file", metavar="FILE")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT.h5",
        help="FILE's name + _reconstruction.h5 here by default; volumes also as .tif, _####.tif, .zarr",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint of an interrupted run")
    parser.add_argument("--force", action="store_true", help="replace a result of other settings, or another file")
    parser.add_argument(
        "--allow-code", action="store_true", help="run the cost function (a Python file) that CONFIG.toml names"
    )
    parser.add_argument("--preview", action="store_true", help="a picture of one slice with three rotation centres")
    parser.add_argument(
        "--distributed",
        nargs="?",
        const="auto",
        metavar="ADDRESS,COUNT,INDEX",
        help="one of several processes of this command; without a value SLURM or MPI says which",
    )
    parser.add_argument(
        "--live", nargs="?", const=0, type=int, metavar="PORT", help="a page that follows the run, on this machine only"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    parser.add_argument("--settings", action="store_true", help="print every setting of the method as TOML, and stop")
    _described(parser)


def _simulate(commands: Any) -> None:
    parser = _command(commands, "simulate", "_simulate", "simulate", "Write a simulated measurement with known truth.")
    parser.lists = SIMULATED.keys
    parser.add_argument("method", metavar="METHOD")
    parser.add_argument("-o", "--output", metavar="FILE", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser = _command(commands, "demo", "_simulate", "demo", "Simulate, reconstruct, judge against the truth.")
    parser.lists = SIMULATED.keys
    parser.add_argument("method", metavar="METHOD", nargs="?", help="near-field-ptychography by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", metavar="FOLDER", default=".", help="where the files go (here by default)")


def _explain_settings(commands: Any) -> None:
    parser = _command(
        commands,
        "explain",
        "_explain",
        "explain",
        "Say what a setting does: unit, choices, bounds, default in every method that has it.",
    )
    parser.lists = built_in
    parser.add_argument("key", metavar="KEY", help="such as solver.steps, or a section such as solver")
    parser.add_argument("-m", "--method", help="of this method only")


def _after(commands: Any) -> None:
    parser = _command(
        commands,
        "resolution",
        "_resolution",
        "resolution",
        "Resolution of two independent results by Fourier ring or shell correlation.",
    )
    parser.add_argument("first", metavar="A")
    parser.add_argument("second", metavar="B")
    parser.add_argument("--quantity", help="which quantity of the files (their default one otherwise)")
    parser.add_argument(
        "--region", metavar="Y0:Y1,X0:X1", help="part of the images, e.g. where both were well illuminated"
    )
    parser = _command(
        commands,
        "design",
        "_design",
        "design",
        "What a measurement will show (resolution, sensitivity, dose, time), and better numbers for it; without a "
        "METHOD distances that show most of an object for a dose.",
    )
    module = importlib.import_module("._design", __package__)
    module.arguments(parser)
    parser.lists, parser.words = module.methods, module.split_words
    parser = _command(
        commands, "selftest", "_selftest", "selftest", "After an upgrade: environment, devices, small reconstructions."
    )
    parser.add_argument("--all", action="store_true", help="every demo, too (minutes)")
    parser = _command(commands, "report", "_report", "report", "A result as one HTML page.")
    parser.add_argument("file", metavar="OUT.h5")
    parser.add_argument("-o", "--output", metavar="report.html")
    parser = _command(commands, "script", "_script", "script", "The Python script that does what a configuration does.")
    parser.add_argument("config", metavar="CONFIG.toml", help="a configuration, or a result that holds one")
    parser.add_argument("file", metavar="FILE", nargs="?", help="the measurement")


class _Version(argparse.Action):
    """Look the version up only where it is asked for: that takes as long as the rest of --help."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print it and leave."""
        print(_version())
        parser.exit()


def _version() -> str:
    import importlib.metadata

    try:
        return f"diffrecon {importlib.metadata.version('diffrecon')}"
    except importlib.metadata.PackageNotFoundError:
        return "diffrecon (not installed)"
