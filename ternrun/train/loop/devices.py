"""Where a run runs: one process, or one of several started by torchrun; CPU or GPU."""

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
from ternrun.train.config import Run
from ternrun.train.loop.sharding import shard
from ternrun.train.model.decoder import Decoder

# Seconds for gloo's threads to let go of the last tensors: DDP and FSDP2 keep those threads alive beyond the group's
# end, and one that frees a tensor while the interpreter shuts down ends the process with std::terminate.
_SETTLE = 0.2


@dataclass(frozen=True, slots=True)
class Place:
    """This process among `world` processes."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Does this process write the files?"""
        return self.rank == 0

    def wrap(self, model: Decoder, run: Run) -> nn.Module:
        """The module to call in training: compiled blocks where that can be, gradients averaged over the ranks."""
        if run.compile and self.can_compile():
            model.compile_parts()
        if self.world > 1:
            own = [self.device] if self.device.type == "cuda" else None
            return shard(model) if run.fsdp else nn.parallel.DistributedDataParallel(model, device_ids=own)
        return model

    def can_compile(self) -> bool:
        """Whether torch finds what it compiles with: on CPUs a C++ compiler, looked for as torch itself does."""
        if self.device.type != "cpu":
            return True
        from torch._inductor.cpp_builder import get_cpp_compiler  # takes a second to import

        try:
            get_cpp_compiler()
        except (RuntimeError, OSError):
            return False
        return True

    @contextmanager
    def accumulating(self, module: Any, *, last: bool) -> Iterator[None]:
        """Gradients are averaged over the ranks with the last micro-batch only."""
        if hasattr(module, "set_requires_gradient_sync"):  # FSDP2
            module.set_requires_gradient_sync(last)
            yield
        elif self.world > 1 and not last:
            with module.no_sync():
                yield
        else:
            yield

    def mean(self, value: float) -> float:
        """The mean of a number over all ranks, the same bits on each."""
        return float(self._reduced([value], torch.float64, distributed.ReduceOp.SUM)[0]) / self.world

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set on some rank.

        Clocks and signals differ from rank to rank. One that leaves the loop alone leaves the others waiting for its
        gradients, and one that saves alone waits for their shares of the tensors.
        """
        return [flag > 0 for flag in self._reduced(flags, torch.int32, distributed.ReduceOp.MAX)]

    def _reduced(self, values: Sequence[float], dtype: torch.dtype, how: Any) -> Sequence[float]:
        if self.world == 1:
            return values
        shared = torch.tensor(values, dtype=dtype, device=self.device)
        distributed.all_reduce(shared, how)
        return list(shared.tolist())


@contextmanager
def placed(run: Run, batch: int) -> Iterator[Place]:
    """Join torchrun's group where there is one. Raises ConfigError where the batch cannot be shared out."""
    if run.threads:
        torch.set_num_threads(run.threads)
    cuda = run.device == "cuda" or (run.device == "auto" and torch.cuda.is_available())
    if run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device is cuda, but torch finds no usable GPU")
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if batch % world:
        raise ConfigError(f"data.batch {batch} cannot be shared evenly by {world} processes")
    device = _own_gpu() if cuda else torch.device("cpu")
    if world == 1:
        yield Place(device)
        return
    distributed.init_process_group("nccl" if cuda else "gloo", device_id=device if cuda else None)
    try:
        yield Place(device, rank, world)
        distributed.barrier()  # no rank hangs up on another
    finally:
        gc.collect()
        distributed.destroy_process_group()
        time.sleep(_SETTLE)


def _own_gpu() -> torch.device:
    """The GPU of this process's number on this machine, made the current one.

    NCCL, FSDP2 and everything else that asks for no device in particular use the current one: without this, all
    processes would meet on the first.
    """
    local, found = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if local >= found:
        raise ConfigError(f"torchrun started process {local + 1} of this machine, which has {found} GPUs: one for each")
    device = torch.device("cuda", local)
    torch.cuda.set_device(device)
    return device


def matmul_rate(device: torch.device, dtype: torch.dtype, size: int = 1024, seconds: float = 0.3) -> float:
    """Floating-point operations a second of this device's plain matrix product, the best of so many `seconds`.

    So long, since the first prepare themselves and others are interrupted, several in a row by whatever else runs.
    """
    a, b = torch.randn(size, size, device=device).to(dtype), torch.randn(size, size, device=device).to(dtype)
    best, end = float("inf"), time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        (a @ b)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
