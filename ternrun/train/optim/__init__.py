"""The optimizers of a run: Muon for the matrices of the blocks, AdamW or Lion for all other parameters."""

from __future__ import annotations

import torch
from torch import nn

from ternrun.train.config import OptimizerConfig
from ternrun.train.optim.lion import Lion
from ternrun.train.optim.muon import Muon


def build(model: nn.Module, config: OptimizerConfig) -> dict[str, torch.optim.Optimizer]:
    """The optimizers "matrix" and "other", each with its own parameters, in the model's order."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if name.startswith("blk.") and p.ndim == 2]
    matrix_ids = {id(p) for p in matrices}
    others = [p for _, p in named if id(p) not in matrix_ids]
    other: torch.optim.Optimizer
    if config.other == "lion":
        other = Lion(others, config.other_lr)
    else:
        other = torch.optim.AdamW(others, config.other_lr, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0)
    return {"matrix": Muon(matrices, config.matrix_lr, config.momentum, config.weight_decay), "other": other}


def set_rates(
    optimizers: dict[str, torch.optim.Optimizer], config: OptimizerConfig, lr_factor: float, decay_factor: float
) -> None:
    """Scale the learning rates by `lr_factor` and the weight decay of matrices by `decay_factor`."""
    for name, rate in (("matrix", config.matrix_lr), ("other", config.other_lr)):
        for group in optimizers[name].param_groups:
            group["lr"] = rate * lr_factor
    for group in optimizers["matrix"].param_groups:
        group["weight_decay"] = config.weight_decay * decay_factor
