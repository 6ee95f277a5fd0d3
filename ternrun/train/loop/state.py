"""The progress of a run: plain numbers and records that checkpoints store as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(slots=True)
class TrainState:
    """Everything that changes during a run besides tensors. Field names are the keys in checkpoint files.

    Random numbers need no state: those of step n follow from the seed and n.
    """

    step: int = 0  # steps done, skipped ones included
    sample: int = 0  # windows consumed
    mean_loss: float | None = None  # running mean, nats per token; None until the first accepted step of a phase
    best: float | None = None  # lowest validation loss so far
    validation: float | None = None  # last validation loss; None if not finite
    seconds: float = 0.0  # spent in steps
    skipped: int = 0  # steps whose update was not applied
    begun: dict[str, Any] | None = None  # the model file that the run was initialized from
    mixed: list[dict[str, Any]] = field(default_factory=list)  # data mixtures: first step and folders of each
    averaged: list[dict[str, Any]] = field(default_factory=list)  # averagings: steps of both checkpoints and share

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Raises TypeError for unknown keys."""
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """The dictionary that `from_json` takes."""
        return asdict(self)

    def record_mixture(self, folders: dict[str, Any]) -> None:
        """Remember that `folders` are mixed into the data from this step on, if that is a change."""
        if folders != (self.mixed[-1]["folders"] if self.mixed else {}):
            self.mixed.append({"step": self.step, "folders": folders})
