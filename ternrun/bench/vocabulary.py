"""Made-up vocabularies in GGUF's keys: the 256 bytes alone, or one of a real tokenizer's size and shape."""

from __future__ import annotations

from typing import Any

import numpy as np

_NORMAL, _CONTROL, _UNUSED = 1, 3, 5
_LETTERS = b" etaoinshrdlucmfwypvbgkjqxz_0123456789(),.=:"
_MAX_LENGTH = 7  # bytes of a made-up token


def alphabet() -> list[str]:
    """GPT-2's printable character for each byte."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in kept)}
    return [moved.get(b, chr(b)) for b in range(256)]


def byte_vocabulary(size: int) -> dict[str, Any]:
    """The bytes, <|bos|> (256), <|eos|> (257), and padding up to `size` tokens."""
    tokens = [*alphabet(), "<|bos|>", "<|eos|>"][:size]
    tokens += [f"[PAD{i}]" for i in range(len(tokens), size)]
    types = ([_NORMAL] * 256 + [_CONTROL] * 2)[:size] + [_UNUSED] * (size - 258)
    return _keys("gpt-2", tokens, types, [], bos=256, eos=257)


def full_vocabulary(size: int, seed: int = 0) -> dict[str, Any]:
    """`size` tokens as byte-pair training would leave them, every way to merge each, and 256 control tokens at the end.

    Building a tokenizer from it costs about as much as from llama-3's: of 128,256 tokens it has 210,000 merges to
    llama-3's 280,000.
    """
    rng = np.random.default_rng(seed)
    words = size - 256
    tokens = alphabet()
    known = set(tokens)
    parts = [tokens[b] for b in _LETTERS]
    while len(tokens) < words:
        # parts are drawn from the front of the list far more often, as frequent ones stand there
        for left, right in (len(parts) * rng.random((4096, 2)) ** 4).astype(int).tolist():
            token = parts[left] + parts[right]
            if len(token) <= _MAX_LENGTH and token not in known and len(tokens) < words:
                known.add(token)
                tokens.append(token)
                parts.append(token)
    merges = [
        f"{token[:cut]} {token[cut:]}"
        for token in tokens[256:]
        for cut in range(1, len(token))
        if token[:cut] in known and token[cut:] in known
    ]
    control = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{i}|>" for i in range(254))]
    types = [_NORMAL] * words + [_CONTROL] * 256
    return _keys("llama-bpe", tokens + control, types, merges, bos=words, eos=words + 1)


def _keys(pre: str, tokens: list[str], types: list[int], merges: list[str], *, bos: int, eos: int) -> dict[str, Any]:
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": bos,
        "tokenizer.ggml.eos_token_id": eos,
    }
