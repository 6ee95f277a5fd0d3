"""The process group and device of a run: one process, or one of several that torchrun started; CPU or GPU."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn

from ternrun.errors import ConfigError
from ternrun.train.config import RunConfig
from ternrun.train.distributed.sharding import shard_model
from ternrun.train.model.decoder import Decoder

# Seconds for gloo's threads to release the last tensors. DDP and FSDP2 keep those threads alive after the group is
# destroyed. A thread that frees a tensor while the interpreter shuts down ends the process with std::terminate.
_GLOO_RELEASE_S = 0.2


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """The device and rank of this process among `world_size` processes."""

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.rank == 0

    def wrap(self, model: Decoder, run: RunConfig) -> nn.Module:
        """The module to call in training: compiled if possible, with gradients averaged over the ranks."""
        if run.compile and self.can_compile():
            model.compile_parts()
        if self.world_size == 1:
            return model
        if run.fsdp:
            return shard_model(model)
        device_ids = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=device_ids)

    def can_compile(self) -> bool:
        """Whether torch.compile works here. On a CPU it needs a C++ compiler."""
        if self.device.type != "cpu":
            return True
        from torch._inductor.cpp_builder import get_cpp_compiler  # its import takes a second

        try:
            get_cpp_compiler()
        except (RuntimeError, OSError):
            return False
        return True

    @contextmanager
    def accumulate(self, module: Any, *, last: bool) -> Iterator[None]:
        """Average gradients over the ranks only in the backward pass of the `last` micro-batch."""
        if hasattr(module, "set_requires_gradient_sync"):  # FSDP2
            module.set_requires_gradient_sync(last)
            yield
        elif self.world_size > 1 and not last:
            with module.no_sync():
                yield
        else:
            yield

    def mean(self, value: float) -> float:
        """The mean of a number over all ranks; every rank gets the same bits."""
        return float(self._all_reduce([value], torch.float64, distributed.ReduceOp.SUM)[0]) / self.world_size

    def any_rank(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set on at least one rank.

        Clocks and signals differ between ranks, but all ranks must leave the loop and save together: a rank that does
        so alone leaves the others waiting for its gradients or tensors.
        """
        return [flag > 0 for flag in self._all_reduce(flags, torch.int32, distributed.ReduceOp.MAX)]

    def _all_reduce(self, values: Sequence[float], dtype: torch.dtype, operation: Any) -> Sequence[float]:
        if self.world_size == 1:
            return values
        tensor = torch.tensor(values, dtype=dtype, device=self.device)
        distributed.all_reduce(tensor, operation)
        return list(tensor.tolist())


@contextmanager
def init_distributed(run: RunConfig, batch: int) -> Iterator[DistributedContext]:
    """Join torchrun's process group if there is one, and choose the device.

    Raises ConfigError if `batch` windows cannot be divided evenly, or the configured device does not exist.
    """
    if run.threads:
        torch.set_num_threads(run.threads)
    if run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device is cuda, but torch finds no usable GPU")
    cuda = run.device == "cuda" or (run.device == "auto" and torch.cuda.is_available())
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if batch % world_size:
        raise ConfigError(f"data.batch {batch} cannot be shared evenly by {world_size} processes")
    device = _local_gpu() if cuda else torch.device("cpu")
    if world_size == 1:
        yield DistributedContext(device)
        return
    distributed.init_process_group("nccl" if cuda else "gloo", device_id=device if cuda else None)
    try:
        yield DistributedContext(device, rank, world_size)
        distributed.barrier()  # no rank closes its connections while another still needs them
    finally:
        gc.collect()
        distributed.destroy_process_group()
        time.sleep(_GLOO_RELEASE_S)


def _local_gpu() -> torch.device:
    """The GPU with this process's local rank, made the current device.

    NCCL and FSDP2 use the current device. Without this call all processes of a machine would share the first GPU.
    """
    local, count = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if local >= count:
        raise ConfigError(f"torchrun started process {local + 1} of this machine, which has {count} GPUs: one for each")
    device = torch.device("cuda", local)
    torch.cuda.set_device(device)
    return device
