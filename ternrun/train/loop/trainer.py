"""The training loop: steps, validation, samples and checkpoints at their intervals, until done or stopped."""

from __future__ import annotations

import time

from ternrun.train.loop.checkpoint import LAST
from ternrun.train.loop.run import TrainingRun
from ternrun.train.loop.sample import log_sample
from ternrun.train.loop.signals import StopSignal
from ternrun.train.loop.step import TrainStep
from ternrun.train.loop.validation import Validator


class Trainer:
    """Trains a run until its last step, or until a signal."""

    def __init__(self, run: TrainingRun) -> None:
        self.run, self.stop = run, StopSignal()
        self.step, self.validator = TrainStep(run), Validator(run)
        self._saved_at = time.monotonic()

    def train(self) -> None:
        """Train until `steps` are done or SIGINT or SIGTERM arrives, then save the last checkpoint.

        Raises TernrunError if training diverges or a checkpoint cannot be written.
        """
        run = self.run
        steps, first = run.config.optim.steps, run.state.step + 1
        start = f"step {first} of {steps}" if steps else f"step {first}"
        run.log.say(f"training {sum(p.numel() for p in run.model.parameters()) / 1e6:.1f}M parameters from {start}")
        try:
            with self.stop.watch():
                stopped = self._loop()
            run.save(LAST)
            run.log.say(self._summary(stopped))
        finally:
            run.log.close()

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return 0 < self.run.config.optim.steps <= self.run.state.step

    def _loop(self) -> bool:
        """Run steps; returns whether a signal, to any rank, ended the loop early."""
        self._saved_at, stopped = time.monotonic(), False
        while not stopped and not self.finished:
            self.step()
            self._validate_and_sample()
            stopped = self._save_if_due()
        return stopped

    def _validate_and_sample(self) -> None:
        step, run = self.run.state.step, self.run.config.run
        if step % run.validate_every == 0 or self.finished:
            self.validator.validate()
        if run.sample_every and step % run.sample_every == 0:
            log_sample(self.run)

    def _save_if_due(self) -> bool:
        """Save at the configured intervals; returns whether any rank received a signal."""
        run = self.run.config.run
        overdue = time.monotonic() - self._saved_at > 60 * run.save_minutes
        stopped, overdue = self.run.context.any_rank(bool(self.stop.received), overdue)
        if self.run.state.step % run.save_every == 0 or overdue:
            self.run.save(LAST)
            self._saved_at = time.monotonic()
        return stopped

    def _summary(self, stopped: bool) -> str:
        step = self.run.state.step
        if not stopped:
            return f"finished {step} steps"
        return f"stopped by {self.stop.received or 'a signal to another process'} after step {step}; --resume continues"
