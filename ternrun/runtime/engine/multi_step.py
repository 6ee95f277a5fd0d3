"""Decides how many steps run in one call of the model while no decision is needed between them.

New requests and finished tokens wait until the call ends, so the call has a time limit. The number of steps that fits
is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SPAN = 1 / 60  # seconds: a frame of a screen, which shows nothing sooner
MOST = 128  # steps
GROWTH = 4  # from call to call, for one step says little of many


class StepPacer:
    """Measures the steps of one engine."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.steps = 1  # that the next call may take

    @contextmanager
    def call(self, steps: int) -> Iterator[None]:
        """Measure a call of `steps` steps. The next call may have GROWTH times as many, if they fit the limit."""
        start = self._clock()
        yield
        seconds = max(self._clock() - start, 1e-9)
        self.steps = max(1, min(MOST, GROWTH * steps, int(SPAN * steps / seconds)))
