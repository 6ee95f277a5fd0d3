"""The spelling of tokens in log-probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ternrun.loader.tokenizers.tokenizer import Tokenizer

LOWEST = -9999.0  # JSON knows no infinity; OpenAI's own floor


def bounded(logprob: float) -> float:
    """The log-probability as a number that JSON can hold."""
    return max(logprob, LOWEST)


def data(tokenizer: Tokenizer, token: int) -> bytes:
    """The bytes of a token; empty if the embedding has more rows than the vocabulary has tokens."""
    return tokenizer.token_bytes(token) if token < tokenizer.vocab_size else b""


def spell(tokenizer: Tokenizer, token: int) -> str:
    """The text of a token; `bytes:\\xe2\\x80` for a part of a character, so that no two tokens look alike."""
    raw = data(tokenizer, token)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
