"""Reads pooling, normalization and the longest text from the files of sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.loader.hf.sentence_pooling import stated_modes
from ternrun.loader.json_files import MAX_JSON, parse_json, read_json

MAX_TOKENS = 512  # if no file states a limit
Floats = NDArray[np.float32]


def _mean(hidden: Floats, mask: Floats) -> Floats:
    return np.asarray(np.matmul(mask[:, None], hidden)[:, 0] / np.maximum(mask.sum(1, keepdims=True), 1e-9))


def _mean_root(hidden: Floats, mask: Floats) -> Floats:
    return np.asarray(np.matmul(mask[:, None], hidden)[:, 0] / np.sqrt(np.maximum(mask.sum(1, keepdims=True), 1e-9)))


def _first(hidden: Floats, mask: Floats) -> Floats:
    return hidden[:, 0]


def _last(hidden: Floats, mask: Floats) -> Floats:
    return np.asarray(hidden[np.arange(len(hidden)), mask.sum(1).astype(np.int64) - 1])


def _highest(hidden: Floats, mask: Floats) -> Floats:
    return np.asarray(np.where(mask[..., None] > 0, hidden, np.float32(-np.inf)).max(1))


# sentence-transformers' names; hidden states (B, T, D) and mask (B, T), padded on the right -> (B, D)
POOLING: dict[str, Callable[[Floats, Floats], Floats]] = {
    "mean": _mean, "cls": _first, "max": _highest, "lasttoken": _last, "mean_sqrt_len_tokens": _mean_root,
}  # fmt: skip


def read_pooling(folder: Path) -> tuple[str, bool]:
    """Name of the pooling, and whether vectors are normalized."""
    path = folder / "modules.json"
    if not path.is_file():
        return "mean", True
    modules = _modules(path)
    pooling, normalize = "mean", False
    for module in modules:
        kind = str(module.get("type", "")).rpartition(".")[2] if isinstance(module, Mapping) else ""
        if kind == "Pooling":
            pooling = _stated(folder / str(module.get("path", "")))
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise LoadError(f"{path} has a module {kind[:40]!r}, which is not supported")
    return pooling, normalize


def _stated(folder: Path) -> str:
    if ".." in folder.parts:
        raise LoadError(f"{folder} is outside the model's folder")
    modes = stated_modes(folder)
    if len(modes) != 1 or modes[0] not in POOLING:
        raise LoadError(f"{folder}/config.json asks for the pooling {', '.join(modes)[:60]!r}, which is not supported")
    return modes[0]


def _modules(path: Path) -> list[Any]:
    """A JSON list, read with the care of read_json."""
    try:
        text = path.read_bytes()[: MAX_JSON + 1]
    except OSError as e:
        raise LoadError(f"{path} cannot be read: {e}") from e
    modules = parse_json(b'{"modules": ' + text + b"}", str(path)).get("modules")
    if not isinstance(modules, list):
        raise LoadError(f"{path} is not a list of modules")
    return modules


def read_limit(folder: Path) -> int:
    """Tokens that a text may have: the smallest limit that the folder's files state."""
    stated = []
    for name, key in (
        ("sentence_bert_config.json", "max_seq_length"), ("config.json", "max_position_embeddings"),
        ("tokenizer_config.json", "model_max_length"),
    ):  # fmt: skip
        path = folder / name
        value = read_json(path).get(key) if path.is_file() else None
        if isinstance(value, int) and 2 <= value <= 1 << 20:
            stated.append(value)
    return min(stated, default=MAX_TOKENS)
