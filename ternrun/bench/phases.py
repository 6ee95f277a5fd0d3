"""Where the time of a step goes: kernel by kernel, and the Python around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ternrun.bench.subject import Subject
from ternrun.bench.works import Work


@dataclass(frozen=True, slots=True)
class Phases:
    """Seconds of one step, on average, by kernel (each with the barrier after it), and of the Python around them."""

    kernels: dict[str, float]
    python: float

    @property
    def step(self) -> float:
        """Seconds of a whole step."""
        return sum(self.kernels.values()) + self.python

    @property
    def python_share(self) -> float:
        """Share of the step that is Python: scheduling, checks, sampling."""
        return self.python / self.step

    @property
    def json(self) -> dict[str, Any]:
        """As it stands in the JSON object."""
        return {"step_s": self.step, "python_s": self.python, "kernels_s": self.kernels}


def profile(subject: Subject, work: Work, cycles_per_second: float) -> Phases:
    """Run a work once more, with the cycle counter read after every kernel."""
    programs = subject.model.programs
    subject.cycles = {name: np.zeros(len(program), np.int64) for name, program in programs.items()}
    before = subject.steps
    seconds = subject.once(work)
    steps, spans, subject.cycles = subject.steps - before, subject.cycles, {}
    kernels: dict[str, float] = {}
    for name, program in programs.items():
        for kernel, cycles in zip(program.names, spans[name].tolist(), strict=True):
            if cycles:
                kernels[kernel] = kernels.get(kernel, 0.0) + cycles / cycles_per_second / steps
    ordered = dict(sorted(kernels.items(), key=lambda item: -item[1]))
    return Phases(ordered, max(0.0, seconds / steps - sum(kernels.values())))
