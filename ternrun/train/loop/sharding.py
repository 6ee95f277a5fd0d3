"""Tensors that several ranks share (FSDP2's DTensors) as whole ones, and back; whole tensors pass through.

PyTorch's distributed packages take a second to import: only runs that share tensors pay for it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def whole(tensor: Tensor) -> Tensor:
    """The full tensor on every rank (a collective call for shared ones)."""
    shared: Any = tensor
    return shared.full_tensor() if _is_shared(tensor) else tensor


def shared_like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """A whole `tensor`, the same on every rank, cut like `pattern`."""
    if not _is_shared(pattern) or tensor.ndim == 0:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, pattern.device_mesh, pattern.placements, src_data_rank=None)


def shard(model: Any) -> nn.Module:
    """Spread a decoder's parameters over all ranks, block by block (FSDP2, arXiv 2304.11277)."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for block in model.blk:
        fully_shard(block)
    fully_shard(model)
    for method in ("hidden", "logits"):
        register_fsdp_forward_method(model, method)
    return model


def _is_shared(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")


@torch.no_grad()
def whole_state(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor whole."""
    return {name: whole(tensor) for name, tensor in tensors.items()}
