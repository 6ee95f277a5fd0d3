"""How tokens and their log-probabilities are written in OpenAI's answers."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any

from ternrun.runtime.engine.request import FinishReason, Request
from ternrun.runtime.sampling.logprobs import TokenLogprobs
from ternrun.server.generation.answers import Answer, Answers, Token, Update

if TYPE_CHECKING:
    from ternrun.loader.tokenizers.tokenizer import Tokenizer

Spell = Callable[[int], str]  # how a token is written

LOWEST = -9999.0  # JSON knows no infinity; OpenAI's own floor


def input_tokens(request: Request) -> dict[str, Any]:
    """OpenAI's count of a conversation's tokens."""
    return {"object": "response.input_tokens", "input_tokens": len(request.ids)}


@cache
def version() -> str:
    """Ours; 0.0.0 where a checkout runs that is not installed."""
    try:
        return installed("ternrun")
    except PackageNotFoundError:
        return "0.0.0"


def head(kind: str, prefix: str, model: str) -> dict[str, Any]:
    """What every answer, and every chunk of a stream, begins with."""
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": f"b{version()}",
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


def timings(answers: Answers, answer: Answer) -> dict[str, Any]:
    """llama.cpp's figures: milliseconds and tokens a second; the wait in the queue counts for the prompt."""
    prompt_n, n = len(answer.request.ids) - answer.cached, answer.generated
    prompt_s = (answer.first or time.perf_counter()) - answers.began
    decode_s = answer.last - answer.first
    return {
        "cache_n": answer.cached,
        "prompt_n": prompt_n,
        "prompt_ms": prompt_s * 1000,
        "prompt_per_second": prompt_n / prompt_s if prompt_s else 0.0,
        "predicted_n": n,
        "predicted_ms": decode_s * 1000,
        "predicted_per_second": (n - 1) / decode_s if decode_s > 0 else 0.0,
    }


def progress(answers: Answers, answer: Answer, update: Update) -> list[dict[str, Any]]:
    """llama.cpp's report of each step of the prompt that came; milliseconds since the request did."""
    so_far = {"total": len(answer.request.ids), "cache": answer.cached}
    time_ms = round((time.perf_counter() - answers.began) * 1000)
    return [{"prompt_progress": {**so_far, "processed": n, "time_ms": time_ms}} for n in update.processed]


def finish(reason: FinishReason | None) -> str | None:
    """OpenAI's finish_reason; other reasons than these end in an error."""
    return reason if reason in ("stop", "length") else None


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


def _ranking(spelled: Spell, entry: TokenLogprobs) -> dict[str, float]:
    """The likeliest tokens, best first, and the one that was taken."""
    ranking = {spelled(best.id): bounded(best.logprob) for best in entry.top}
    ranking.setdefault(spelled(entry.id), bounded(entry.logprob))
    return ranking


def _one(tokenizer: Tokenizer, spelled: Spell, token: int, logprob: float) -> dict[str, Any]:
    raw = data(tokenizer, token)
    return {"token": spelled(token), "logprob": bounded(logprob), "bytes": list(raw)}
