"""Conversion between whole tensors and FSDP2 shards (DTensors). Functions return unsharded tensors unchanged.

Importing PyTorch's distributed packages takes a second, so only runs with sharded tensors import them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole tensor on every rank. A collective operation if the tensor is sharded."""
    sharded: Any = tensor
    return sharded.full_tensor() if _is_sharded(tensor) else tensor


@torch.no_grad()
def full_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """`full_tensor` for each value."""
    return {name: full_tensor(tensor) for name, tensor in tensors.items()}


def shard_like(tensor: Tensor, reference: Tensor) -> Tensor:
    """A whole `tensor`, equal on every rank, sharded as `reference` is. Scalars are never sharded."""
    if not _is_sharded(reference) or tensor.ndim == 0:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, reference.device_mesh, reference.placements, src_data_rank=None)


def shard_model(model: Any) -> nn.Module:
    """Shard a decoder's parameters over all ranks, block by block (FSDP2, arXiv 2304.11277)."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for block in model.blk:
        fully_shard(block)
    fully_shard(model)
    for method in ("hidden", "logits"):
        register_fsdp_forward_method(model, method)
    return model


def _is_sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")
