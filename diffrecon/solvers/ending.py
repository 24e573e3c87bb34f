"""How an iteration ended: one enumeration for all solvers, whose values are the sentences that a user reads."""

import enum
from typing import Any

__all__ = ["Ending", "Interrupted"]


class Ending(enum.Enum):
    """Name the way in which an iteration ended; the value is the sentence to show.

    Ask `ending.finished` whether the result is what was asked for, and compare members with `is`. What is special to
    one run (the step, the unknown that broke down) stands beside the ending in `solution.detail`.

    ```python
    assert Ending.CONVERGED.finished and not Ending.INTERRUPTED.finished
    assert Ending.STOPPED.sentence("after 3 steps") == "stopped by the callback (after 3 steps)"
    ```
    """

    DONE = "all steps were taken"
    CONVERGED = "converged: further steps would change next to nothing"
    STOPPED = "stopped by the callback"
    INTERRUPTED = "interrupted; the best state so far is kept"
    STUCK = "stopped because no step lowers the cost"
    NOT_FINITE = "stopped because a number was not finite; the last finite state is kept"
    DIVERGED = "stopped because the residual grew; the last good state is kept"

    @property
    def finished(self) -> bool:
        """Tell whether the iteration came to its own end: all its steps, or converged before."""
        return self in (Ending.DONE, Ending.CONVERGED)

    def sentence(self, detail: str = "") -> str:
        """Join the sentence and what is special to one run."""
        return f"{self.value} ({detail})" if detail else str(self.value)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in a solver that other loops call, with the best state so far: `solution`, whose `ending` says so.

    Loops around the solver end, too, unless they catch it and go on from there.

    ```python
    stop = Interrupted("half a volume")
    assert isinstance(stop, KeyboardInterrupt) and stop.solution == "half a volume"
    ```
    """

    def __init__(self, solution: Any):
        super().__init__()
        self.solution = solution
