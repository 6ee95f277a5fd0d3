"""How many steps go into one call of the model where nobody has to decide anything in between.

What arrives meanwhile waits until the call ends, and so do the tokens. So it is a span of time that is given; how many
steps fill it is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SPAN = 1 / 60  # seconds: a frame of a screen, which shows nothing sooner
MOST = 128  # steps
GROWTH = 4  # from call to call, for one step says little of many


class StepPacer:
    """Of one engine."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.steps = 1  # that the next call may take

    @contextmanager
    def call(self, steps: int) -> Iterator[None]:
        """Around a call of so many steps. The next may take GROWTH times as many, if they fit the span."""
        start = self._clock()
        yield
        seconds = max(self._clock() - start, 1e-9)
        self.steps = max(1, min(MOST, GROWTH * steps, int(SPAN * steps / seconds)))
