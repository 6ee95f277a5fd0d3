"""Where a run runs, told from what torchrun says; no GPU is needed for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import distributed

from ternrun.errors import ConfigError
from ternrun.train.config import RunConfig
from ternrun.train.distributed import context as distributed_context


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is asked of a machine with two GPUs, whose second process this is."""
    made: list[Any] = []
    for name, value in {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: made.append(device))
    monkeypatch.setattr(distributed, "init_process_group", lambda *how, **more: made.append((how, more)))
    monkeypatch.setattr(distributed, "barrier", lambda: None)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    return made


def test_each_process_takes_its_own_gpu(calls: list[Any]) -> None:
    own = torch.device("cuda", 1)
    with distributed_context.init_distributed(RunConfig(), 8) as context:
        assert (context.device, context.rank, context.world_size) == (own, 3, 4)
    assert calls == [own, (("nccl",), {"device_id": own})]  # first the device, for NCCL begins on the current one


def test_more_processes_than_gpus_are_refused(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    with (
        pytest.raises(ConfigError, match="process 3 of this machine, which has 2 GPUs"),
        distributed_context.init_distributed(RunConfig(), 8),
    ):
        pass
    assert calls == []
