"""The figures of a training step: loss, speed, and how much of the device's matrix-product rate is used."""

from __future__ import annotations

import math
import time

import torch

from ternrun.train.loop.run import TrainingRun
from ternrun.train.model.decoder import flops_per_token


class StepMetrics:
    """Writes the metrics of steps to a run's log."""

    def __init__(self, run: TrainingRun) -> None:
        self._run = run
        self._peak_flops = 0.0  # measured before the first report

    def report(self, loss: float, grad_norm: float, lr_factor: float, seconds: float) -> None:
        """Log one step that took `seconds`; `loss` is in nats per token."""
        run, config, step = self._run, self._run.config, self._run.state.step
        self._peak_flops = self._peak_flops or matmul_flops(run.context.device, run.dtype)
        tokens_per_s = config.data.batch * config.model.context / seconds
        mfu = tokens_per_s * flops_per_token(config.model) / run.context.world_size / self._peak_flops
        run.log.write(
            step, loss=loss, grad_norm=grad_norm, lr=lr_factor, tokens_per_second=round(tokens_per_s),
            mfu=round(mfu, 3),
        )  # fmt: skip
        steps = config.optim.steps
        left = f"{(steps - step) * seconds / 60:.0f} min left, " if steps else ""
        bits_per_byte = loss / math.log(2) / run.corpus.bytes_per_token
        speed = f"{tokens_per_s:,.0f} tokens/s, {mfu:.0%} of matmul rate"
        text = f"step {step}: loss {loss:.4f}, {left}{bits_per_byte:.3f} bits a byte, {speed}"
        run.log.progress(text, step / steps if steps else None)


def matmul_flops(device: torch.device, dtype: torch.dtype, size: int = 1024, seconds: float = 0.3) -> float:
    """Floating-point operations per second of a plain matrix product (size x size), the best of `seconds` of runs.

    Several runs are needed: the first ones include setup, and other processes interrupt some.
    """
    a, b = torch.randn(size, size, device=device).to(dtype), torch.randn(size, size, device=device).to(dtype)
    best, end = float("inf"), time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        (a @ b)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
