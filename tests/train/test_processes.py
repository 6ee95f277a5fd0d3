"""Runs in processes of their own: killed and resumed, and shared by two."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ternrun.train.config import TrainConfig
from ternrun.train.loop import checkpoint
from tests.train import runs
from tests.train.runs import train

SCRIPT = """
import json, sys
from pathlib import Path
from ternrun.train.config import TrainConfig
from ternrun.train.distributed.context import init_distributed
from ternrun.train.loop.run import build_run
from ternrun.train.loop.trainer import Trainer

config = TrainConfig.from_dict(json.loads(Path(sys.argv[1]).read_text()))
with init_distributed(config.run, config.data.batch) as context:
    Trainer(build_run(config, Path(sys.argv[2]), context, resume=sys.argv[3] == "resume")).train()
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
PORT = 20000 + os.getpid() % 20000
Make = Callable[..., TrainConfig]


def step_losses(folder: Path) -> dict[int, float]:
    return dict(runs.losses(folder))


def start(config: TrainConfig, folder: Path, how: str, rank: int = 0, world: int = 1) -> subprocess.Popen[str]:
    """One process of a run, with the environment that torchrun gives it."""
    folder.mkdir(exist_ok=True)
    written = folder / f"config{rank}.json"
    written.write_text(json.dumps(config.as_dict()))
    place = {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(PORT)}
    command = [sys.executable, "-c", SCRIPT, str(written), str(folder), how]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT | place)


def finish(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said


def test_killed_at_any_time_a_run_resumes_bit_by_bit(config: Make, tmp_path: Path) -> None:
    made = config(optim__steps=60, optim__decay_steps=8, optim__dropout=0.1, run__save_every=3, run__validate_every=20)
    train(made, tmp_path / "whole")
    broken = tmp_path / "broken"
    run = start(made, broken, "new")
    while len(step_losses(broken)) < 7:
        time.sleep(0.02)
        assert run.poll() is None
    run.kill()
    run.communicate()
    assert run.returncode != 0
    finish(start(made, broken, "resume"))
    assert step_losses(broken) == step_losses(tmp_path / "whole")


def test_torchrun_starts_what_the_documentation_says(config: Make, tmp_path: Path) -> None:
    """The command line under torchrun, with a rank that finds its place by itself."""
    made = config(optim__steps=2, optim__decay_steps=0)
    settings = [f"{t}.{k}={json.dumps(v)}" for t, table in made.as_dict().items() for k, v in table.items()]
    torchrun = ["torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
    ours = ["-m", "ternrun", "train", "run", "code-5m", "--out", str(tmp_path)]
    command = [sys.executable, "-m", *torchrun, *ours]
    command += [word for setting in settings for word in ("--set", setting)]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, timeout=300)
    assert sorted(step_losses(tmp_path)) == [1, 2]
    assert (tmp_path / "last.safetensors").is_file()


@pytest.mark.parametrize("fsdp", [False, True], ids=["ddp", "fsdp"])
def test_two_processes_train_as_one(fsdp: bool, config: Make, tmp_path: Path) -> None:
    """In full precision: ternary weights would flip on the last bits in which sums over ranks differ."""
    same: dict[str, Any] = {
        "model__ternary": False, "optim__matrix_lr": 0.002, "optim__decay_steps": 0, "run__precision": "f32",
        "data__stutter": 0.5,
    }  # fmt: skip
    train(config(optim__steps=4, **same), tmp_path / "one")
    for steps, how in ((2, "new"), (4, "resume")) if fsdp else ((4, "new"),):
        made = config(optim__steps=steps, run__fsdp=fsdp, data__micro_batch=1, **same)
        finish(*[start(made, tmp_path / "two", how, rank, 2) for rank in (0, 1)])
    one, two = step_losses(tmp_path / "one"), step_losses(tmp_path / "two")
    assert two == pytest.approx(one, rel=1e-4)
    assert len(two) == 4


@pytest.mark.parametrize("fsdp", [False, True], ids=["ddp", "fsdp"])
def test_ranks_save_and_stop_together(fsdp: bool, config: Make, tmp_path: Path) -> None:
    """Where only the first finds that it is time to save, and only the second gets a signal."""
    same: dict[str, Any] = {
        "optim__steps": 0, "optim__decay_steps": 0, "run__fsdp": fsdp, "run__save_every": 1000,
        "run__validate_every": 1000,
    }  # fmt: skip
    ranks = [start(config(run__save_minutes=1e6 * rank, **same), tmp_path, "new", rank, 2) for rank in (0, 1)]
    try:
        while len(step_losses(tmp_path)) < 3:
            time.sleep(0.05)
            assert all(rank.poll() is None for rank in ranks)
        assert (tmp_path / "last.safetensors").is_file()
        ranks[1].send_signal(signal.SIGTERM)
        said = [rank.communicate(timeout=60)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert "stopped by a signal to another process after step" in said[0]
    assert "stopped by SIGTERM after step" in said[1]
    assert checkpoint.load(tmp_path / "last.safetensors").state.step == max(step_losses(tmp_path))
