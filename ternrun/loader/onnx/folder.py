"""Finds the model among a folder's ONNX files, its tokenizer, and the limits that the files beside it state."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ternrun.errors import LoadError, UsageError
from ternrun.loader.json_files import read_json

GENAI = "genai_config.json"  # onnxruntime-genai's description of a model
_NAMES = ("model", "decoder_model_merged", "decoder_with_past_model", "decoder_model")
_MAX_CONTEXT = 1 << 24
_MAX_WIDTH = 1 << 12


def is_onnx_folder(folder: Path) -> bool:
    """Whether it holds .onnx files, itself or in the sub-folder `onnx`."""
    return any(any(p.glob("*.onnx")) for p in (folder, folder / "onnx"))


def model_file(folder: Path, variant: str | None = None) -> Path:
    """The graph to open: the one genai_config.json names, `model.onnx`, the only one, or `model_VARIANT.onnx`.

    Raises LoadError for a folder without one clear choice, UsageError for an unknown variant.
    """
    files = {p.stem: p for base in (folder, folder / "onnx") for p in sorted(base.glob("*.onnx")) if p.is_file()}
    stems = [name for name in _NAMES if any(s == name or s.startswith(f"{name}_") for s in files)]
    variants = {s.removeprefix(f"{name}_"): p for name in reversed(stems) for s, p in files.items() if s != name}
    if variant is not None:
        if variant not in variants:
            known = ", ".join(sorted(variants)) or "none"
            raise UsageError(f"{folder} has no variant {variant!r}; it has {known}")
        return variants[variant]
    if (folder / GENAI).is_file():
        named = _table(_descriptions(folder)[0], "decoder").get("filename")
        if isinstance(named, str) and named.endswith(".onnx") and "/" not in named and (folder / named).is_file():
            return folder / named
    for name in _NAMES:
        if name in files:
            return files[name]
    if len(files) == 1:
        return next(iter(files.values()))
    raise LoadError(f"{folder} holds {len(files)} ONNX files; name one, or a variant: {', '.join(sorted(variants))}")


def text_folder(file: Path) -> Path:
    """The folder of a model file's tokenizer: the file's own, or the one above its folder `onnx`."""
    above = file.absolute().parent
    if not (above / "tokenizer.json").is_file() and above.name == "onnx":
        return above.parent
    return above


def stated_context(folder: Path) -> int:
    """Tokens that a text may have, by genai_config.json or config.json; 0 if neither says."""
    genai, config = _descriptions(folder)
    stated = (t.get("max_position_embeddings") for t in (config, _table(config, "text_config")))
    return _first((genai.get("context_length"), *stated), _MAX_CONTEXT)


def stated_width(folder: Path) -> int:
    """Elements of an attention head, by genai_config.json or config.json; 0 if neither says."""
    genai, config = _descriptions(folder)
    dim, heads = config.get("hidden_size"), config.get("num_attention_heads")
    share = dim // heads if type(dim) is int and type(heads) is int and heads > 0 else 0
    return _first((_table(genai, "decoder").get("head_size"), config.get("head_dim"), share), _MAX_WIDTH)


def _descriptions(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model of genai_config.json, and config.json; {} for a missing file."""
    genai, config = (read_json(f) if f.is_file() else {} for f in (folder / GENAI, folder / "config.json"))
    return _table(genai, "model"), config


def _table(within: dict[str, Any], key: str) -> dict[str, Any]:
    """The table of that name, or {}."""
    found = within.get(key)
    return found if isinstance(found, dict) else {}


def _first(values: Iterable[Any], most: int) -> int:
    """The first whole number from 1 to `most`, else 0."""
    return next((v for v in values if type(v) is int and 0 < v <= most), 0)
