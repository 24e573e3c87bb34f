"""Where messages and progress go: a terminal, a log file, or nowhere."""

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

__all__ = ["Console", "Progress", "printable", "printable_output"]

# Control characters but tab and line feed, and those that turn the direction of writing: texts come from files.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Make a text of a file one that a terminal only shows.

    ```python
    assert printable("phase\\x1b[2J") == "phase?[2J"
    ```
    """
    return _CONTROL.sub("?", text)


class _Printable:
    """A stream that shows control characters as question marks."""

    def __init__(self, stream: Any):
        self.stream = stream

    def write(self, text: str) -> int:
        return self.stream.write(printable(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def printable_output() -> Iterator[None]:
    """Let nothing of a file command the terminal, whatever is printed meanwhile."""
    out: Any = _Printable(sys.stdout)
    err: Any = _Printable(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


class Console:
    """Prints messages, and a progress line that overwrites itself on a terminal.

    In a log file (not a terminal) a progress line is printed at most every `interval` seconds.

    **Arguments:** `quiet` prints nothing; `stream` is standard error by default; `checkpoint` is the path where long
    solves keep their state (none by default), `resume` asks them to go on from it.
    """

    def __init__(
        self,
        quiet: bool = False,
        stream: TextIO | None = None,
        interval: float = 10.0,
        checkpoint: str | None = None,
        resume: bool = False,
    ):
        shown: Any = sys.stderr if stream is None else stream
        self.stream: TextIO = shown.stream if isinstance(shown, _Printable) else shown
        self.quiet, self.interval = quiet, interval
        self.checkpoint, self.resume = checkpoint, resume
        self.said: set[str] = set()  # lines that need not be said again
        self._open_line = self._passing = False

    def say(self, message: str) -> None:
        """One line."""
        if not self.quiet:
            self.said.add(message)
            self.end_line()
            print(printable(message), file=self.stream, flush=True)

    def rewrite(self, message: str) -> None:
        """A line that the next one replaces (terminals only)."""
        if not self.quiet:
            print(f"\r{printable(message)}\x1b[K", end="", file=self.stream, flush=True)
            self._open_line, self._passing = True, False

    def passing(self, message: str) -> None:
        """A line that is gone with the next one (terminals only): what goes on meanwhile."""
        if not self.quiet and self.stream.isatty():
            self.end_line()
            self.rewrite(message)
            self._passing = True

    def end_line(self) -> None:
        """Leave the rewritten line standing, without what was passing."""
        if self._open_line:
            print("\r\x1b[K" if self._passing else "", end="" if self._passing else "\n", file=self.stream, flush=True)
            self._open_line = self._passing = False

    def show(self, result: Callable[[], Any]) -> None:
        """Show what a stage has left; it is made only where somebody looks at it, and here nobody does."""

    def progress(self, total: int, label: str) -> "Progress":
        """A progress line for `total` steps; what stood there before stays."""
        if not self.quiet and self.stream.isatty():
            self.passing(f"{label} 0/{total}, compiling ...")
        return Progress(self, total, label)


class Progress:
    """`label 120/400, 12 s, 28 s to go, loss 0.123`.

    Time to go is that of the steps after the first report: what comes before it was mostly compiled.
    """

    def __init__(self, console: Console, total: int, label: str, done: int = 0):
        self.console, self.total, self.label, self.first = console, total, label, done
        self.start = time.monotonic()
        self.printed = self.start
        self._since: tuple[float, int] | None = None

    def update(self, done: int, **figures: float) -> None:
        """Show that `done` of the steps are done, with figures by name."""
        now = time.monotonic()
        said = "".join(f", {k.replace('_', ' ')} {v:.4g}" for k, v in figures.items())
        line = f"{self.label} {done}/{self.total}, {now - self.start:.0f} s{self._to_go(now, done)}{said}"
        self.shown(done, line, figures)
        if self.console.stream.isatty():
            self.console.rewrite(line)
            if done >= self.total:
                self.console.end_line()
        elif now - self.printed >= self.console.interval or done >= self.total:
            self.printed = now
            self.console.say(line)

    def shown(self, done: int, line: str, figures: dict[str, float]) -> None:
        """Take note of a line, printed or not: here nobody does."""

    def _to_go(self, now: float, done: int) -> str:
        if self._since is None or done < self._since[1]:
            self._since = now, done
        seconds, fresh = now - self._since[0], done - self._since[1]
        return f", {seconds / fresh * (self.total - done):.0f} s to go" if 0 < fresh and done < self.total else ""
