"""`diffrecon reconstruct --live`: the page of the result while it is made, on this machine only, to be read only.

The pictures are those of the stage that was finished last; progress and curves are those of now.
"""

import contextlib
import html
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from .._console import Console, Progress
from .._result import Result
from ..errors import InputError
from .page import page
from .page.curves import plots

_HOST = "127.0.0.1"
_MESSAGES, _POINTS = 200, 2000  # that are kept
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class LiveConsole(Console):
    """A console whose messages, progress and results can be looked at from another thread."""

    def __init__(self, name: str, messages: tuple[str, ...] = (), **options: Any):
        super().__init__(**options)
        self._lock = threading.Lock()
        self._name, self._messages, self._now = name, deque(messages, _MESSAGES), ""
        self._curves: dict[str, deque[float]] = {}
        self._page, self._version = page(name, Result("", {}), {}, live=True), 0

    def say(self, message: str) -> None:
        """One line, which the page shows too."""
        with self._lock:
            self._messages.append(message)
        super().say(message)

    def passing(self, message: str) -> None:
        """A line that is gone with the next one."""
        with self._lock:
            self._now = message
        super().passing(message)

    def progress(self, total: int, label: str) -> Progress:
        """A progress line that the page shows too."""
        with self._lock:
            self._now, self._curves = f"{label} 0/{total}, compiling ...", {}
        super().progress(total, label)
        return _LiveProgress(self, total, label)

    def reached(self, done: int, line: str, figures: dict[str, float]) -> None:
        """Note where a solver is."""
        with self._lock:
            self._now = line
            for name, value in figures.items():
                self._curves.setdefault(name, deque(maxlen=_POINTS)).append(float(value))

    def show(self, result: Callable[[], Result]) -> None:
        """Make the page anew; a picture that fails must not end a run."""
        try:
            made = page(self._name, result(), {}, live=True)
        except Exception as error:
            self.say(f"no pictures of this stage: {error}")
            return
        with self._lock:
            self._page, self._version = made, self._version + 1

    def whole_page(self) -> str:
        """Give the page as it stands."""
        with self._lock:
            return self._page

    def state(self) -> dict[str, Any]:
        """Give what changes between two pages: its number, and HTML of progress, curves and messages."""
        with self._lock:
            version, now, said = self._version, self._now, list(self._messages)
            curves = {name: np.asarray(values) for name, values in self._curves.items()}
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in reversed(said))
        return {
            "version": version,
            "now": html.escape(now),
            "curves": "".join(plots(curves)),
            "messages": f"<ul>{lines}</ul>",
        }


class _LiveProgress(Progress):
    """A progress line that the console remembers."""

    console: LiveConsole

    def shown(self, done: int, line: str, figures: dict[str, float]) -> None:
        """Note the line before it is printed."""
        self.console.reached(done, line, figures)


@contextlib.contextmanager
def served(console: LiveConsole, port: int = 0) -> Iterator[str]:
    """Serve the page while a run goes on; gives its address.

    **Raises:** `InputError` for a port that is taken or none.
    """
    try:
        server = ThreadingHTTPServer((_HOST, port), _handler(console))
    except (OSError, OverflowError) as error:
        raise InputError(f"--live {port}: {error}; another port, or none, which finds a free one") from None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
    thread.start()
    try:
        yield f"http://{_HOST}:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


def _handler(console: LiveConsole) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers two addresses, to pages of this machine only."""

        def do_GET(self) -> None:
            # A name that leads here from elsewhere is not this machine's own.
            if (self.headers.get("Host") or "").rpartition(":")[0] not in (_HOST, "localhost"):
                self.send_error(403)
            elif self.path == "/":
                self._answer(console.whole_page(), "text/html; charset=utf-8")
            elif self.path == "/state":
                self._answer(json.dumps(console.state()), "application/json")
            else:
                self.send_error(404)

        def _answer(self, text: str, kind: str) -> None:
            body = text.encode()
            self.send_response(200)
            for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the terminal to the run."""

    return Handler
