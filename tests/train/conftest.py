from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ternrun.train.config import DecoderConfig, TrainConfig
from ternrun.train.data.document import Document
from ternrun.train.data.options import PrepareOptions
from ternrun.train.data.prepare import prepare
from ternrun.train.loop import metrics
from tests.train.runs import settings, ternrun_train

EXPORTABLE = {"dim": 256, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "ffn_dim": 256, "context": 64}
TINY = {"dim": 64, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "ffn_dim": 64, "context": 32}  # cheap steps
NOMINAL_FLOPS = 1e10


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _nominal_flops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not measure the matrix-product rate in every run: in bf16 that takes seconds on CPUs without bf16 units."""
    monkeypatch.setattr(metrics, "matmul_flops", lambda *_: NOMINAL_FLOPS)


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
    prepare(documents, folder, PrepareOptions(tokenizer="bpe:300", val_share=0.1, keep_duplicates=True), lambda _: None)
    return folder


@pytest.fixture
def shape() -> Callable[..., DecoderConfig]:
    return lambda **changes: DecoderConfig.from_dict(EXPORTABLE | {"vocab_size": 320} | changes)


@pytest.fixture
def config(data_folder: Path) -> Callable[..., TrainConfig]:
    """The config of a tiny run; a keyword `table__key` changes a setting, `exportable` makes GGUF types fit."""

    def make(*, exportable: bool = False, **changes: Any) -> TrainConfig:
        tables: dict[str, dict[str, Any]] = {
            "model": EXPORTABLE | {"n_layers": 1} if exportable else dict(TINY),
            "data": {"path": str(data_folder), "batch": 4},
            "optim": {"steps": 6, "warmup_steps": 2, "decay_steps": 2},
            "run": {"log_every": 1, "validate_every": 3, "save_every": 2, "threads": 1},
        }
        for name, value in changes.items():
            table, _, key = name.partition("__")
            tables[table][key] = value
        return TrainConfig.from_dict(tables)

    return make


@pytest.fixture(scope="session")
def finished_run(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    ternrun_train("run", "code-5m", "--out", folder, *settings(data_folder))
    return folder


@pytest.fixture
def run_folder(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, which a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))
