"""How a token is written in log-probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ternrun.loader.tokenizers.tokenizer import Tokenizer

LOWEST = -9999.0  # JSON knows no infinity; OpenAI's own floor


def bounded(logprob: float) -> float:
    """A number that JSON can hold."""
    return max(logprob, LOWEST)


def data(tokenizer: Tokenizer, token: int) -> bytes:
    """What a token adds to the text; nothing where the embedding has more rows than there are tokens."""
    return tokenizer.token_bytes(token) if token < tokenizer.vocab_size else b""


def spell(tokenizer: Tokenizer, token: int) -> str:
    r"""A token's text; `bytes:\xe2\x80` where it is a part of a character, so that no two look alike."""
    raw = data(tokenizer, token)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
