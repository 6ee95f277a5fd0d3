"""Warm-up, stable, decay (arXiv 2404.06395): the stable phase may go on for as long as one likes."""

from __future__ import annotations

import math

from ternrun.train.config import Optimisation


def factor(step: int, config: Optimisation) -> float:
    """What learning rates are multiplied by at `step` (from 0)."""
    rise = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return rise * decay_factor(step, config)


def decay_factor(step: int, config: Optimisation) -> float:
    """1 until the decay begins, then to 0 linearly or as 1 - sqrt (arXiv 2405.18392)."""
    if not config.steps or not config.decay_steps:
        return 1.0
    done = (step - (config.steps - config.decay_steps)) / config.decay_steps
    if done <= 0:
        return 1.0
    return max(0.0, 1 - (done if config.decay == "linear" else math.sqrt(done)))
