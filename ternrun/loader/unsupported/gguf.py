"""GGUF files that hold no language model: adapters, projectors, matrices of importance, vocabularies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any

from ternrun.errors import LoadError
from ternrun.loader.gguf.header import Header, read_header
from ternrun.loader.gguf.open_file import map_file
from ternrun.loader.unsupported.remedies import IMATRIX

_PICTURES = (
    "aura", "chroma", "cosmos", "flux", "hidream", "hyvid", "kolors", "ltxv", "lumina2", "pixart", "qwen_image", "sd1",
    "sd3", "sdxl", "wan",
)  # fmt: skip


def foreign_gguf(path: Path) -> str | None:
    """What a GGUF file is that holds no language model: the rest of a sentence behind its path; None for others."""
    try:
        header = read_header(map_file(path), str(path))
    except LoadError:
        return None
    return next((says(path, header) for fits, says in _KINDS if fits(header)), None)


def _key(header: Header, key: str) -> Any:
    value = header.metadata.get(key)
    return value if isinstance(value, str) else ""


def _kind(header: Header) -> str:
    return str(_key(header, "general.type"))


def _architecture(header: Header) -> str:
    return str(_key(header, "general.architecture"))


def _adapter(path: Path, _: Header) -> str:
    return (
        "is a LoRA adapter, not a model; ternrun applies none: merge it into its base model with llama.cpp: "
        f"llama-export-lora -m BASE.gguf --lora {quote(str(path))} -o merged.gguf"
    )


def _projector(path: Path, _: Header) -> str:
    beside = [p for p in sorted(path.parent.glob("*.gguf"))[:64] if "mmproj" not in p.name and p != path]
    name = f"the language model beside it: {beside[0]}" if len(beside) == 1 else "the language model it belongs to"
    return f"is a projector (mmproj), by which a model sees pictures or hears; ternrun works on text: name {name}"


def _vocabulary(path: Path, _: Header) -> str:
    return (
        "holds a vocabulary alone and no weights (no tensor 'token_embd.weight': no language model); it serves "
        f"`ternrun tokenize {quote(str(path))} TEXT`, and a model file runs"
    )


_KINDS: tuple[tuple[Callable[[Header], bool], Callable[[Path, Header], str]], ...] = (
    (lambda h: _kind(h) == "adapter" or any(t.name.endswith((".lora_a", ".lora_b")) for t in h.tensors), _adapter),
    (lambda h: _kind(h) == "mmproj" or _architecture(h) == "clip", _projector),
    (lambda h: _kind(h) == "imatrix", lambda _, h: IMATRIX),
    (
        lambda h: _architecture(h) == "controlvector",
        lambda _, h: "is a control vector, which steers a model; ternrun applies none: name the model itself",
    ),
    (
        lambda h: _architecture(h) in _PICTURES,
        lambda _, h: f"is a model that makes pictures ({_architecture(h)}); ternrun runs language models",
    ),
    (lambda h: not h.tensors and "tokenizer.ggml.tokens" in h.metadata, _vocabulary),
)
