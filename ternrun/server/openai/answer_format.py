"""How tokens and their log-probabilities are written in OpenAI's answers."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ternrun.runtime.engine.request import Request
from ternrun.runtime.sampling.logprobs import TokenLogprobs
from ternrun.server.generation.answer import Token
from ternrun.server.generation.submission import Answers
from ternrun.server.generation.token_text import bounded, data
from ternrun.server.version import server_version

if TYPE_CHECKING:
    from ternrun.loader.tokenizers.tokenizer import Tokenizer

Spell = Callable[[int], str]  # how a token is written


def input_tokens(request: Request) -> dict[str, Any]:
    """OpenAI's count of a conversation's tokens."""
    return {"object": "response.input_tokens", "input_tokens": len(request.ids)}


def head(kind: str, prefix: str, model: str) -> dict[str, Any]:
    """What every answer, and every chunk of a stream, begins with."""
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": f"b{server_version()}",
    }


def usage(answers: Answers) -> dict[str, Any]:
    """OpenAI's token counts."""
    prompt, generated, cached = answers.usage
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def legacy(spelled: Spell, tokens: Sequence[Token], top: int) -> dict[str, Any]:
    """Of /v1/completions: parallel lists. The first token of a prompt has no probability."""
    return {
        "tokens": [spelled(t.id) for t in tokens],
        "token_logprobs": [bounded(t.logprobs.logprob) if t.logprobs else None for t in tokens],
        "top_logprobs": [_ranking(spelled, t.logprobs) if t.logprobs else None for t in tokens] if top else None,
        "text_offset": [t.offset for t in tokens],
    }


def chat(tokenizer: Tokenizer, spelled: Spell, tokens: Sequence[Token]) -> dict[str, Any]:
    """Of /v1/chat/completions: a list of objects."""
    content = []
    for entry in (t.logprobs for t in tokens):
        if entry is not None:
            top = [_one(tokenizer, spelled, best.id, best.logprob) for best in entry.top]
            content.append(_one(tokenizer, spelled, entry.id, entry.logprob) | {"top_logprobs": top})
    return {"content": content, "refusal": None}


def _ranking(spelled: Spell, entry: TokenLogprobs) -> dict[str, float]:
    """The likeliest tokens, best first, and the one that was taken."""
    ranking = {spelled(best.id): bounded(best.logprob) for best in entry.top}
    ranking.setdefault(spelled(entry.id), bounded(entry.logprob))
    return ranking


def _one(tokenizer: Tokenizer, spelled: Spell, token: int, logprob: float) -> dict[str, Any]:
    raw = data(tokenizer, token)
    return {"token": spelled(token), "logprob": bounded(logprob), "bytes": list(raw)}
