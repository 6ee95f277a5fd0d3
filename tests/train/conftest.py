from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ternrun.train.config import Shape, TrainConfig
from ternrun.train.data.document import Document
from ternrun.train.data.prepare import Plan, prepare

TINY = {"dim": 256, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "ffn_dim": 256, "context": 64}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few kilobytes of made-up code, tokenized."""
    folder = tmp_path_factory.mktemp("data")
    documents = [
        Document(
            f"m{i}.py",
            f"package{i % 5}",
            "MIT",
            "\n\n".join(f"def f{i}_{j}(x):\n    return x + {i * j}" for j in range(40)),
        )
        for i in range(60)
    ]
    prepare(documents, folder, Plan(tokenizer="bpe:300", val_share=0.1, duplicates=True), lambda _: None)
    return folder


@pytest.fixture
def shape() -> Callable[..., Shape]:
    return lambda **changes: Shape.from_dict(TINY | {"vocab_size": 320} | changes)


@pytest.fixture
def config(data_folder: Path) -> Callable[..., TrainConfig]:
    """A tiny run's config; keyword `table__key` changes a setting."""

    def make(**changes: Any) -> TrainConfig:
        tables: dict[str, dict[str, Any]] = {
            "model": {**TINY, "n_layers": 1},
            "data": {"path": str(data_folder), "batch": 4},
            "optim": {"steps": 6, "warmup_steps": 2, "decay_steps": 2},
            "run": {"log_every": 1, "validate_every": 3, "save_every": 2, "threads": 1},
        }
        for name, value in changes.items():
            table, _, key = name.partition("__")
            tables[table][key] = value
        return TrainConfig.from_dict(tables)

    return make
