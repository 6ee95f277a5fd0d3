"""Stopping a run by SIGINT or SIGTERM after the step in progress."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignal:
    """Remembers the name of the signal that asks this process to stop; empty if none did."""

    def __init__(self) -> None:
        self.received = ""

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM inside the block; the previous handlers are restored afterwards."""

        def remember(number: int, _: FrameType | None) -> None:
            self.received = signal.Signals(number).name

        previous = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
