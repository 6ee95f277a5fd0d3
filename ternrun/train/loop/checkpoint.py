"""Checkpoints: one safetensors file, its JSON in the file's own metadata, written beside and then renamed.

The file holds everything a run needs to go on exactly as if it had not stopped. A checkpoint that exists is whole:
a crash, a full disk or a kill leaves the previous one.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ternrun.errors import LoadError, TernrunError
from ternrun.files import replacing
from ternrun.train.config import TrainConfig
from ternrun.train.loop.sharding import shared_like

_KEY = "ternrun"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`tensors` by name (`model.*`, `matrix.*`, `other.*`); `state` is plain JSON.

    Random numbers need no state: those of step n follow from the seed and n.
    """

    config: TrainConfig
    tokenizer_sha256: str
    state: dict[str, Any]
    tensors: dict[str, Tensor]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with `prefix`, without it."""
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically. Raises TernrunError where the disk refuses; the previous file at `path` then still stands."""
    header = {
        "config": checkpoint.config.as_dict(),
        "tokenizer": checkpoint.tokenizer_sha256,
        "state": checkpoint.state,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside:
            save_file({n: t.contiguous() for n, t in checkpoint.tensors.items()}, beside, {_KEY: json.dumps(header)})
    except (OSError, SafetensorError) as error:
        kept = f"; the last good checkpoint {path} is kept" if path.is_file() else ""
        raise TernrunError(f"could not save {path}: {error}{kept}") from None


def sweep(folder: Path) -> None:
    """Remove what saves left in `folder` that a kill interrupted: half-written files of processes that are gone."""
    for path in folder.glob(".*.safetensors.*"):
        process = path.suffix.removeprefix(".")
        if process.isdecimal() and (int(process) == os.getpid() or not _alive(int(process))):
            with contextlib.suppress(OSError):
                path.unlink()


def _alive(process: int) -> bool:
    if os.name != "posix":
        return True  # there os.kill ends a process, whatever the signal
    try:
        os.kill(process, 0)
    except PermissionError:  # another user's
        return True
    except (OSError, OverflowError):
        return False
    return True


def load(path: Path) -> Checkpoint:
    """Raises LoadError for a file that is missing, truncated or no checkpoint of ours."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Checkpoint(
            TrainConfig.from_dict(header["config"]), str(header["tokenizer"]), dict(header["state"]), tensors
        )
    except FileNotFoundError:
        raise LoadError(f"there is no checkpoint {path}") from None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise LoadError(f"{path} is not a whole checkpoint of ternrun train: {error}") from None


def optimizer_tensors(name: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as tensors `name.INDEX.KEY`; every entry of our optimizers is a tensor."""
    state = optimizer.state_dict()["state"]
    return {f"{name}.{i}.{key}": value for i, entry in state.items() for key, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Undo `optimizer_tensors`; `tensors` without the name's prefix."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = shared_like(value, parameters[int(index)])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
