"""Where messages and progress go: a terminal, a log file, or nowhere."""

import sys
import time
from typing import TextIO

__all__ = ["Console", "Progress"]


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
        self.quiet, self.stream, self.interval = quiet, stream or sys.stderr, interval
        self.checkpoint, self.resume = checkpoint, resume
        self._open_line = False

    def say(self, message: str) -> None:
        """One line."""
        if not self.quiet:
            self.end_line()
            print(message, file=self.stream, flush=True)

    def rewrite(self, message: str) -> None:
        """A line that the next one replaces (terminals only)."""
        if not self.quiet:
            print(f"\r{message}\x1b[K", end="", file=self.stream, flush=True)
            self._open_line = True

    def end_line(self) -> None:
        """Leave the rewritten line standing."""
        if self._open_line:
            print(file=self.stream, flush=True)
            self._open_line = False

    def progress(self, total: int, label: str) -> "Progress":
        """A progress line for `total` steps."""
        return Progress(self, total, label)


class Progress:
    """`label 120/400, 12 s, 28 s to go, loss 0.123`."""

    def __init__(self, console: Console, total: int, label: str, done: int = 0):
        self.console, self.total, self.label, self.first = console, total, label, done
        self.start = time.monotonic()
        self.printed = self.start

    def update(self, done: int, **figures: float) -> None:
        """Show that `done` of the steps are done, with figures by name."""
        now = time.monotonic()
        elapsed, fresh = now - self.start, done - self.first
        left = f", {elapsed / fresh * (self.total - done):.0f} s to go" if 0 < fresh and done < self.total else ""
        said = "".join(f", {k.replace('_', ' ')} {v:.4g}" for k, v in figures.items())
        line = f"{self.label} {done}/{self.total}, {elapsed:.0f} s{left}{said}"
        if self.console.stream.isatty():
            self.console.rewrite(line)
            if done >= self.total:
                self.console.end_line()
        elif now - self.printed >= self.console.interval or done >= self.total:
            self.printed = now
            self.console.say(line)
