"""The warmup-stable-decay learning-rate schedule (arXiv 2404.06395). The stable phase can have any length."""

from __future__ import annotations

import math

from ternrun.train.config import OptimizerConfig


def lr_factor(step: int, config: OptimizerConfig) -> float:
    """The factor (0 to 1) for all learning rates at `step`, counted from 0."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return warmup * decay_factor(step, config)


def decay_factor(step: int, config: OptimizerConfig) -> float:
    """1 before the decay phase; in it, the factor falls to 0 linearly or as 1 - sqrt (arXiv 2405.18392)."""
    if not config.steps or not config.decay_steps:
        return 1.0
    done = (step - (config.steps - config.decay_steps)) / config.decay_steps
    if done <= 0:
        return 1.0
    return max(0.0, 1 - (done if config.decay == "linear" else math.sqrt(done)))
