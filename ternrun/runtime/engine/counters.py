"""Counts what an engine has done. The engine's thread writes; any thread may read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from ternrun.runtime.engine.scheduler import Chunk


@dataclass(slots=True)
class Counters:
    """Totals since the start. A draft token counts as accepted if the model would have chosen it too."""

    steps: int = 0
    sequences: int = 0  # of all steps: divided by them, how full the batch was
    tokens: int = 0  # computed, prompts and drafts included
    drafted: int = 0
    accepted: int = 0

    def add(self, chunks: Sequence[Chunk], steps: int = 1) -> None:
        """Count a step with these chunks, or several equal steps."""
        self.steps += steps
        self.sequences += len(chunks) * steps
        for chunk in chunks:
            self.tokens += len(chunk.tokens) * steps
            self.drafted += chunk.drafted

    @classmethod
    def total(cls, several: Iterable[Counters]) -> Counters:
        """The sum over several engines."""
        rows = [astuple(counters) for counters in several]
        return cls(*map(sum, zip(*rows, strict=True)))
