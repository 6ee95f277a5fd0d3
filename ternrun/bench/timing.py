"""Times of the same work done several times: median, best, how many, and how far apart they lie."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Rate:
    """How much a second, over `n` runs; `spread` is what lies between the slowest and the fastest, as a share."""

    median: float
    best: float
    n: int
    spread: float

    @classmethod
    def of(cls, amount: float, seconds: list[float]) -> Rate:
        """`amount` done in each of these times."""
        middle = median(seconds)
        return cls(amount / middle, amount / min(seconds), len(seconds), (max(seconds) - min(seconds)) / middle)

    @property
    def json(self) -> dict[str, float | int]:
        """As it stands in the JSON object."""
        return {"median": self.median, "best": self.best, "n": self.n}


def seconds_of(work: Callable[[], Any], runs: int) -> list[float]:
    """Times of `runs` calls, after one that warms up."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times
