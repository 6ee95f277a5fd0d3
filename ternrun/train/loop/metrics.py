"""The figures of a training step: loss, speed, and how much of the device's matrix-product rate is used."""

from __future__ import annotations

import math
import time

import torch

from ternrun.train.loop.run import TrainingRun
from ternrun.train.model.decoder import flops_per_token

_FAST_FLOPS = 1e10  # from which a product of 1024 x 1024 takes less than 0.2 s


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


def matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a matrix product of 1024 x 1024, or 256 x 256 on a slow device.

    In bf16, CPUs without bf16 units are so slow that one large product takes a second.
    """
    small = _product_flops(device, dtype, 256, 0.02)
    return _product_flops(device, dtype, 1024, 0.3) if small > _FAST_FLOPS else small


def _product_flops(device: torch.device, dtype: torch.dtype, size: int, seconds: float) -> float:
    """The best rate in `seconds` of runs: the first runs include setup, and other processes interrupt some."""
    a, b = torch.randn(size, size, device=device).to(dtype), torch.randn(size, size, device=device).to(dtype)
    best, end = float("inf"), time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        (a @ b)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
