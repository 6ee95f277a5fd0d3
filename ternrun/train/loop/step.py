"""One training step: gradients of all micro-batches, clipping, a check for spikes, one optimizer update."""

from __future__ import annotations

import math
import time

import numpy as np
import torch

from ternrun.errors import TernrunError
from ternrun.train import optim
from ternrun.train.data.augmentation import Batch
from ternrun.train.distributed.sharding import full_tensor
from ternrun.train.loop.metrics import StepMetrics
from ternrun.train.loop.run import TrainingRun
from ternrun.train.model.bitlinear import BitLinear
from ternrun.train.optim import schedule

_MAX_SKIPPED = 20  # skipped steps in a row that end the run
_SPIKE = 1.5  # nats above the running mean loss from which a step is skipped
_OLD_WEIGHT, _NEW_WEIGHT = 0.98, 0.02  # of the running mean and of the new loss


class TrainStep:
    """Calling it runs the next step of `run` and advances its state."""

    def __init__(self, run: TrainingRun) -> None:
        self.run = run
        self.metrics = StepMetrics(run)
        self._linears = [m for m in run.model.modules() if isinstance(m, BitLinear) and m.ternary]
        self._skipped_in_a_row = 0

    def __call__(self) -> None:
        """Run one step. Raises TernrunError if too many steps in a row were skipped."""
        start, run, config = time.monotonic(), self.run, self.run.config.optim
        torch.manual_seed(_step_seed(run))  # dropout depends on the step and rank only
        self._set_precision()
        lr_factor = schedule.lr_factor(run.state.step, config)
        optim.set_rates(run.optimizers, config, lr_factor, schedule.decay_factor(run.state.step, config))
        loss = accumulate_gradients(run)
        norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), config.clip or math.inf)
        grad_norm = float(full_tensor(norm))
        if self._accept(loss, grad_norm):
            for optimizer in run.optimizers.values():
                optimizer.step()
        run.model.zero_grad(set_to_none=True)
        run.state.step += 1
        run.state.sample += run.config.data.batch
        run.state.seconds += time.monotonic() - start
        if run.state.step % run.config.run.log_every == 0:
            self.metrics.report(loss, grad_norm, lr_factor, time.monotonic() - start)

    def _set_precision(self) -> None:
        """Use full-precision weights in the first `full_steps`, ternary weights afterwards."""
        state, config = self.run.state, self.run.config
        ternary = not config.in_full_precision(state.step)
        for linear in self._linears:
            linear.ternary = ternary
        if state.step == config.optim.full_steps:
            state.mean_loss = None  # the loss jumps when rounding starts

    def _accept(self, loss: float, grad_norm: float) -> bool:
        """Whether to apply the step: its numbers are finite and its loss is not a spike."""
        state = self.run.state
        mean = state.mean_loss
        accepted = math.isfinite(loss) and math.isfinite(grad_norm) and (mean is None or loss < mean + _SPIKE)
        if accepted:
            self._skipped_in_a_row = 0
            state.mean_loss = loss if mean is None else _OLD_WEIGHT * mean + _NEW_WEIGHT * loss
            return True
        self._skipped_in_a_row += 1
        state.skipped += 1
        if self._skipped_in_a_row >= _MAX_SKIPPED:
            raise TernrunError(
                f"training diverged at step {state.step + 1}: {self._skipped_in_a_row} steps in a row had a spike or a "
                f"number that is not finite; lower optim.matrix_lr (checkpoints in {self.run.folder} are kept)"
            )
        return False


def accumulate_gradients(run: TrainingRun) -> float:
    """Accumulate the gradients of this rank's share of the batch; returns the mean loss over all ranks.

    Each micro-batch is weighted by its number of learned targets, so the gradient does not depend on how the batch is
    divided into micro-batches and ranks.
    """
    config, device, batches = run.config.optim, run.context.device, micro_batches(run)
    learned = [int((targets >= 0).sum()) for _, targets in batches]
    mean_learned = run.context.mean(sum(learned)) or 1.0  # gradients are averaged over the ranks, too
    total = torch.zeros((), device=device)
    for number, (batch, count) in enumerate(zip(batches, learned, strict=True), 1):
        ids, targets = (torch.from_numpy(array).to(device) for array in batch)
        with run.context.accumulate(run.module, last=number == len(batches)):
            objective, loss = run.module(ids, targets, run.dtype, config.dropout, config.z_loss, config.entropy)
            (objective * (count / mean_learned)).backward()
        total += loss * (count / mean_learned)
    return run.context.mean(total.item())


def micro_batches(run: TrainingRun) -> list[Batch]:
    """This rank's windows of the next step, divided into micro-batches."""
    data, context = run.config.data, run.context
    share = data.batch // context.world_size
    size = data.micro_batch or share
    first = run.state.sample + context.rank * share
    return [run.corpus.train.batch(first + start, min(size, share - start)) for start in range(0, share, size)]


def _step_seed(run: TrainingRun) -> int:
    number = run.state.step * run.context.world_size + run.context.rank
    return int(np.random.SeedSequence((run.config.run.seed, number)).generate_state(1, np.uint64)[0] >> 1)
