"""`diffrecon reconstruct`: open, solve, write, draw."""

import argparse
import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .._identity import of_result
from ..errors import InputError
from ._settings import Settings, gather, refuse_unknown

_TWICE = 0.5  # seconds within which two signals are one


def reconstruct(options: argparse.Namespace) -> int:
    """The command; returns the exit code."""
    settings = gather(options.config, options.sets, load=not options.settings, code=options.allow_code)
    method = options.method or settings.method
    if options.distributed is not None:
        join(options.distributed)
        options.quiet = options.quiet or not _first()
    if options.settings:
        return _print_settings(options, settings, method)
    output = _output(options, settings)
    if options.preview:
        return preview(options, method, settings)
    how = {"quiet": options.quiet, "resume": options.resume, "force": options.force, "live": options.live}
    return run(options.file, output, method, settings, **how)


def join(said: str) -> None:
    """Become one of several processes that run the same command: `auto` where SLURM or MPI started them, else
    ADDRESS,COUNT,INDEX of the first one's port and of this one.

    **Raises:** `InputError` for anything else.
    """
    from .. import sharding

    if said == "auto":
        return sharding.initialise()
    try:
        address, count, index = said.split(",")
        numbers = int(count), int(index)
        if not 0 <= numbers[1] < numbers[0]:
            raise ValueError
    except ValueError:
        raise InputError(
            f"--distributed={said}: give --distributed where SLURM or MPI starts the processes, else "
            "--distributed=ADDRESS:PORT,COUNT,INDEX, INDEX from 0 to COUNT - 1"
        ) from None
    sharding.initialise(coordinator_address=address, num_processes=numbers[0], process_id=numbers[1])


def _first() -> bool:
    """Find out whether this process is the one that writes."""
    import jax

    return jax.process_index() == 0


def run(
    file: str,
    output: Path,
    method: str | None,
    settings: Settings,
    *,
    quiet: bool = False,
    resume: bool = False,
    force: bool = False,
    live: int | None = None,
) -> int:
    """Reconstruct `file` into `output`; everything that can be refused is refused before the solve.

    **Arguments:** `live`: the port of a page that follows the run, 0 for a free one.
    """
    from .. import io, recipes

    io.check_suffix(output)
    io.check_output(output)
    if output.exists() and Path(file).exists() and output.samefile(file):
        raise InputError(f"{output}: is the measurement itself; give the result another name with -o")
    say = (lambda *_: None) if quiet else print
    with interruptions() as interrupts, _locked(output):
        scan, whole = _opened(file, method, settings, say)
        if not force:
            io.refuse_other_result(output, of_result(scan.method, scan, settings.record(whole)))
        slabs = recipes.wants_slabs(scan, scan.method, settings.recipe)
        checkpoint = _checkpoint(output)
        again = resume and (slabs or checkpoint.exists())
        with _console(scan, live, quiet=quiet, checkpoint=str(checkpoint), resume=again) as console:
            way = _slabs if slabs else _whole
            if resume and not again:
                say(f"  no checkpoint {checkpoint}: from the start")
            return way(scan, output, settings, console, say, interrupts)


@contextlib.contextmanager
def _console(scan: Any, live: int | None, **options: Any) -> Iterator[Any]:
    """Report to the terminal, and on a page that follows the run where that is asked for."""
    from .._console import Console

    if live is None or not _first():
        yield Console(**options)
        return
    from ._live import LiveConsole, served

    console = LiveConsole(scan.name, tuple(scan.provenance.messages), **options)
    with served(console, live) as address:
        print(f"live: {address}", flush=True)
        yield console


def _locked(output: Path) -> contextlib.AbstractContextManager[Any]:
    """Keep other runs off the output, and off the checkpoint beside it."""
    from ..io import OutputLock

    return OutputLock(output) if _first() else contextlib.nullcontext()


def _whole(
    scan: Any, output: Path, settings: Settings, console: Any, say: Callable[[str], Any], interrupts: list[int]
) -> int:  # fmt: skip
    """Reconstruct in memory."""
    from .. import io, recipes, sharding

    checkpoint = Path(console.checkpoint)
    start = time.monotonic()
    try:
        result = recipes.reconstruct(scan, scan.method, settings.recipe, console)
    except KeyboardInterrupt:
        if checkpoint.exists():
            say(f"interrupted; finished stages are kept in {checkpoint.name}, --resume goes on")
        raise
    verdict = (*result.verdict, *_changed(scan))
    result = dataclasses.replace(result, settings=settings.record(result.settings), verdict=verdict)
    if _first():
        spent = dataclasses.replace(scan.provenance, seconds=time.monotonic() - start)
        io.write(output, result, scan.replace(provenance=spent))
    sharding.wait_for_all()
    if not _first():
        return _code(interrupts)
    if not interrupts:
        checkpoint.unlink(missing_ok=True)
    outcome = "interrupted; best state so far" if interrupts else "done"
    _tell(result, output, settings, outcome, start, say, console.said)
    return _code(interrupts)


def _changed(scan: Any) -> list[str]:
    """Say which files of the input are not what they were when they were opened."""
    names = scan.provenance.changed()
    return [f"the input has changed, or gone, during the run: {', '.join(names[:3])}; repeat it"] if names else []


def _tell(
    result: Any, output: Path, settings: Settings, outcome: str, start: float, say: Callable[[str], Any], said: set[str]
) -> None:
    """Verdict without what has been said, picture, where the result is."""
    for line in result.verdict:
        if line not in said:
            say(line)
    picture = draw(result, beside(output), _about(output)) if settings.output["picture"] else ""
    say(f"{outcome} in {time.monotonic() - start:.1f} s: {output}{picture}")


def _about(output: Path) -> str:
    """Say in one line from what and when a result was made; nothing where its format has no place for that."""
    from .. import io

    try:
        made = io.process(output)
    except InputError:
        return ""
    source, scan = made.get("input", {}), made.get("scan", {})
    words = [
        f"{name.replace('_', ' ')} {value}" if name != "views" else f"{value} views" for name, value in scan.items()
    ]
    return ", ".join([str(source.get("file", "")), *words, str(made.get("date", ""))[:10]])


def _opened(file: str, method: str | None, settings: Settings, say: Callable[[str], Any]) -> tuple[Any, Any]:
    """The scan, once every setting is known to exist, and all settings."""
    from .. import io, recipes

    if method is not None:
        refuse_unknown(settings, method)
    scan = io.open_scan(file, method=method, **settings.file)
    scan = scan.replace(method=recipes.recognise(scan))
    if scan.method is None:
        raise InputError(f"{file}: it is not clear what was measured; say it with -m ({', '.join(recipes.methods())})")
    whole = refuse_unknown(settings, scan.method)
    say(describe(scan))
    for message in scan.provenance.messages:
        say(f"  {message}")
    return scan, whole


# ---------------------------------------------------------------------------------------------------- volumes
def _checkpoint(output: Path) -> Path:
    return output.with_name(f"{output.stem}.checkpoint")


def _slabs(
    scan: Any, output: Path, settings: Settings, console: Any, say: Callable[[str], Any], interrupts: list[int]
) -> int:  # fmt: skip
    """A volume slab by slab into its file; Ctrl-C keeps the slices that are finished."""
    from .. import io, recipes

    def writer(
        shape: tuple[int, int, int], units: str, pixel_size: float | None, long_name: str, name: str = "volume"
    ) -> Any:
        if not _first():
            return _Nothing()
        target = io.open_volume(
            output,
            shape,
            pixel_size=pixel_size,
            units=units,
            name=name,
            long_name=long_name,
            method=scan.method,
            scan=scan,
            settings=settings.recipe,
            resume=console.resume,
        )
        return _Recorded(target, settings, scan)

    checkpoint = Path(console.checkpoint)
    start = time.monotonic()
    try:
        result = recipes.reconstruct_slabs(scan, scan.method, settings.recipe, console, writer)
    except KeyboardInterrupt:
        say("interrupted; finished slices are kept, --resume goes on")
        return _code(interrupts or [signal.SIGINT])
    if _first():
        checkpoint.unlink(missing_ok=True)
        _tell(result, output, settings, "done", start, say, console.said)
    return 0


class _Nothing:
    """The writer of a process that is not the first: that one writes."""

    def write(self, first: int, slab: Any) -> None:
        """Not here."""

    def close(self, result: Any = None) -> None:
        """Not here."""

    def abort(self) -> None:
        """Not here."""

    def done(self) -> set[int]:
        return set()


class _Recorded:
    """A writer that records what was said about the file too."""

    def __init__(self, target: Any, settings: Settings, scan: Any):
        self.write, self.abort, self.done = target.write, target.abort, target.done
        self._target, self._settings, self._scan = target, settings, scan

    def close(self, result: Any = None) -> None:
        record, verdict = self._settings.record(result.settings), (*result.verdict, *_changed(self._scan))
        self._target.close(dataclasses.replace(result, settings=record, verdict=verdict))


def preview(options: argparse.Namespace, method: str | None, settings: Settings) -> int:
    """A picture of one slice with three rotation centres."""
    from .. import io, recipes
    from .._console import Console
    from .._optional import require

    require("matplotlib", "plot")
    say = (lambda *_: None) if options.quiet else print
    stem = Path(options.file.rstrip("/")).stem
    picture = Path(options.output) if options.output else Path(f"{stem}_preview.png")
    io.check_output(picture)
    scan, _ = _opened(options.file, method, settings, say)
    start = time.monotonic()
    result = recipes.preview(scan, scan.method, settings.recipe, Console(quiet=options.quiet))
    from .. import plot

    plot.figure(result, picture)
    for line in result.verdict:
        say(line)
    say(f"done in {time.monotonic() - start:.1f} s: {picture}")
    return 0


def beside(output: Path) -> Path:
    """The picture's path beside a result: `volume_####.tif` gives `volume.png`."""
    return output.with_name(output.name.replace("#", "").replace("_.", ".")).with_suffix(".png")


def describe(scan: Any) -> str:
    """One line: what was opened."""
    shape = " x ".join(str(n) for n in scan.counts.shape[1:])
    return f"{scan.name}: {scan.method or 'unknown method'}, {scan.views} views of {shape}, {scan.provenance.reader}"


def draw(result: Any, path: Path, about: str = "") -> str:
    """A picture beside the file where matplotlib is there; returns what to say about it."""
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        return '\npictures need matplotlib: pip install "diffrecon[plot]", then diffrecon report'
    try:
        from .. import plot

        plot.figure(result, path, about)
    except Exception as error:
        # The file is written: a picture that fails must not turn success into failure.
        return f"\nno picture: {error}"
    return f", {path.name}"


def _output(options: argparse.Namespace, settings: Settings) -> Path:
    said = options.output or settings.output["file"]
    stem = Path(options.file.rstrip("/")).stem
    return Path(said) if said else Path(f"{stem}_reconstruction.h5")


def _print_settings(options: argparse.Namespace, settings: Settings, method: str | None) -> int:
    from .. import io, recipes

    if method is None:
        method = recipes.recognise(io.open_scan(options.file, check=False, **settings.file))
    if method is None:
        raise InputError(f"{options.file}: it is not clear what was measured; say it with -m")
    print(recipes.settings_text(method, io.toml_value), end="")
    return 0


@contextlib.contextmanager
def interruptions() -> Iterator[list[int]]:
    """Collect the signals that ask to stop: at the first (Ctrl-C, SIGTERM of a batch system, SIGHUP of a lost terminal)
    the solver gives its best state; a second one, while that is saved, aborts.
    """
    seen: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return

    first = [-_TWICE]

    def handle(number: int, frame: Any) -> None:
        now = time.monotonic()
        if now - first[0] < _TWICE:
            return  # `timeout` and batch systems ask process and group: that is once
        first[0] = now
        seen.append(number)
        raise Interrupted(number)

    asked = [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)]
    before = {number: signal.getsignal(number) for number in asked}
    for number, now in before.items():
        if now is not signal.SIG_IGN:  # nohup
            signal.signal(number, handle)
    try:
        yield seen
    finally:
        for number, now in before.items():
            signal.signal(number, now)


class Interrupted(KeyboardInterrupt):
    """A signal that asks to stop; `number` says which."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


def _code(interrupts: list[int]) -> int:
    """The exit code: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + interrupts[0] if interrupts else 0
