"""Whether the machine was quiet enough for the figures to mean anything."""

from __future__ import annotations

import os
import time
from pathlib import Path

SPREAD = 0.25  # between the slowest and the fastest run of the same work
BUSY = 0.10  # of one core, taken by others
STAT = Path("/proc/stat")


class Noise:
    """Watches from its making on what other processes take of the CPUs (Linux), and how far runs lie apart."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), _others()
        self.load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        self.spread = 0.0

    def saw(self, spread: float) -> None:
        """Note how far runs of one work lay apart."""
        self.spread = max(self.spread, spread)

    def busy(self) -> float:
        """Cores that others kept busy since the start, on average; 0 where the system does not say."""
        passed, taken = time.perf_counter() - self._start[0], _others() - self._start[1]
        return max(0.0, taken / passed) if passed > 0.1 else 0.0

    def verdict(self) -> str:
        """A sentence: quiet, or too noisy to judge and why."""
        reasons = []
        busy = self.busy()
        if busy > BUSY:
            reasons.append(f"other processes kept {busy:.1f} cores busy (load average at the start: {self.load:.1f})")
        if self.spread > SPREAD:
            reasons.append(f"runs of the same work lay up to {self.spread:.0%} apart")
        return f"too noisy to judge: {'; '.join(reasons)}" if reasons else "quiet"


def _others() -> float:
    """CPU seconds of everyone but this process and its ended children; a hypervisor's stolen time counts."""
    if not STAT.exists():
        return 0.0
    user, nice, system, _, _, irq, softirq, steal = (int(word) for word in STAT.read_text().split()[1:9])
    own = os.times()
    spent = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return spent - own.user - own.system - own.children_user - own.children_system
