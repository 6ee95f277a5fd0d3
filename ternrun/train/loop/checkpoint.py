"""Checkpoint files: safetensors with the run's configuration and state as JSON in the metadata.

A checkpoint holds everything that a run needs to continue exactly as if it had not stopped. Files are replaced
atomically: after a crash, a full disk or a kill, the previous checkpoint is still there.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ternrun.errors import LoadError, TernrunError
from ternrun.files import replacing
from ternrun.train.config import TrainConfig
from ternrun.train.distributed.sharding import shard_like
from ternrun.train.loop.state import TrainState

BEST, LAST = "best.safetensors", "last.safetensors"
_METADATA_KEY = "ternrun"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The content of a checkpoint file. Tensor names start with `model.`, `matrix.` or `other.` (the optimizers)."""

    config: TrainConfig
    tokenizer_sha256: str
    state: TrainState
    tensors: dict[str, Tensor]

    def with_prefix(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with `prefix`, keyed by the rest of the name."""
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically.

    Raises TernrunError if the disk is full or not writable; the previous file at `path` is then unchanged.
    """
    header = {
        "config": checkpoint.config.as_dict(),
        "tokenizer": checkpoint.tokenizer_sha256,
        "state": checkpoint.state.as_json(),
    }
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(tensors, temporary, {_METADATA_KEY: json.dumps(header)})
    except (OSError, SafetensorError) as error:
        kept = f"; the last good checkpoint {path} is kept" if path.is_file() else ""
        raise TernrunError(f"could not save {path}: {error}{kept}") from None


def load(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises LoadError if the file is missing, truncated or not a checkpoint."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[_METADATA_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config, state = TrainConfig.from_dict(header["config"]), TrainState.from_json(header["state"])
        return Checkpoint(config, str(header["tokenizer"]), state, tensors)
    except FileNotFoundError:
        raise LoadError(f"there is no checkpoint {path}") from None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise LoadError(f"{path} is not a whole checkpoint of ternrun train: {error}") from None


def remove_partial_files(folder: Path) -> None:
    """Delete the half-written files of saves that were interrupted by a kill, unless their process still runs."""
    for path in folder.glob(".*.safetensors.*"):
        pid = path.suffix.removeprefix(".")
        if pid.isdecimal() and (int(pid) == os.getpid() or not _is_alive(int(pid))):
            with contextlib.suppress(OSError):
                path.unlink()


def _is_alive(pid: int) -> bool:
    if os.name != "posix":
        return True  # os.kill with any signal would end the process
    try:
        os.kill(pid, 0)
    except PermissionError:  # the process of another user
        return True
    except (OSError, OverflowError):
        return False
    return True


def optimizer_tensors(name: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimizer as tensors `name.INDEX.KEY`. All state of our optimizers is tensors."""
    state = optimizer.state_dict()["state"]
    return {f"{name}.{i}.{key}": value for i, entry in state.items() for key, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load tensors that `optimizer_tensors` returned, keyed without the optimizer's name."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = shard_like(value, parameters[int(index)])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
