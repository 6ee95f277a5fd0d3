"""The name that a model goes by where it is served: one that can be typed."""

from __future__ import annotations

import re
from pathlib import Path

_HUB = re.compile(r"models--([^/]+)--([^/]+)")  # a folder of the Hugging Face hub's cache
_PART = re.compile(r"-\d{5}-of-\d{5}$")  # of a split GGUF file
_PLAIN = ("model", "decoder_model", "decoder_model_merged", "model_quantized", "ggml-model", "onnx")


def model_id(path: Path) -> str:
    """OWNER/NAME of a model in the hub's cache; else the file's name without its suffix, or the folder's where all
    such files have the same one. Never empty, and without blanks."""
    for part in path.absolute().parts:
        if found := _HUB.fullmatch(part):
            return f"{found[1]}/{found[2]}"
    whole = path.absolute()
    name = whole.name if whole.is_dir() else _PART.sub("", whole.stem)
    while name in _PLAIN and whole.parent != whole:
        whole = whole.parent
        name = whole.name
    return re.sub(r"\s+", "-", name.strip()) or "model"
