"""What vLLM's clients may ask an answer to tell beside its text, and the words that they may forbid."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ternrun.runtime.engine.request import Request
from ternrun.runtime.sampling.logprobs import TokenLogprobs
from ternrun.server.generation.token_text import bounded, spell
from ternrun.server.http.errors import ApiError, wrong

if TYPE_CHECKING:
    from ternrun.api import Model
    from ternrun.loader.tokenizers.tokenizer import Tokenizer


def scored(values: Mapping[str, Any], *, echoed: int | None = None) -> int | None:
    """How many of the likeliest tokens to find at each place of the prompt; None: do not score it. `echoed` is what
    the answer's echo needs. Raises ApiError."""
    asked = values["prompt_logprobs"]
    if asked is not None and values["stream"]:
        raise wrong("prompt_logprobs", "they cannot be streamed", code="unsupported")
    return max((one for one in (asked, echoed) if one is not None), default=None)


def speller(tokenizer: Tokenizer, values: Mapping[str, Any]) -> Callable[[int], str]:
    """How tokens are written in log-probabilities: as text, or as ids ("token_id:17")."""
    if values["return_tokens_as_token_ids"]:
        return lambda token: f"token_id:{token}"
    return lambda token: spell(tokenizer, token)


def of_prompt(
    tokenizer: Tokenizer, values: Mapping[str, Any], request: Request, found: Sequence[TokenLogprobs]
) -> dict[str, Any]:
    """`prompt_logprobs`, where it is asked for: for each token of the prompt the token itself and the likeliest ones,
    by id; null for the first, which nothing comes before. `found` (len(request.ids) - 1) are of all others."""
    top = values["prompt_logprobs"]
    if top is None:
        return {}
    return {"prompt_logprobs": [None, *(_ranked(tokenizer, entry, top) for entry in found)]}


def _ranked(tokenizer: Tokenizer, entry: TokenLogprobs, top: int) -> dict[str, Any]:
    """The rank of a token that is not among the likeliest is null."""
    ranks = {best.id: rank for rank, best in enumerate(entry.top, 1)}

    def one(token: int, logprob: float) -> dict[str, Any]:
        text = spell(tokenizer, token)
        return {"logprob": bounded(logprob), "rank": ranks.get(token), "decoded_token": text}

    likeliest = {str(best.id): one(best.id, best.logprob) for best in entry.top[:top]}
    return {str(entry.id): one(entry.id, entry.logprob)} | likeliest


def shown(tokenizer: Tokenizer, values: Mapping[str, Any]) -> dict[int, str]:
    """Control tokens that stand in the text, with `skip_special_tokens` false: id -> text."""
    if values["skip_special_tokens"]:
        return {}
    return {token: tokenizer.decode([token], special=True) for token in tokenizer.hidden_ids}


def banned(model: Model, words: Sequence[str]) -> tuple[tuple[int, float], ...]:
    """Biases that keep these words out of an answer, at its beginning and behind a space. Raises ApiError for a word
    of several tokens."""
    found = []
    for i, word in enumerate(words):
        for written in (word, f" {word.lstrip()}"):
            ids = model.tokenizer.encode(written, special=False, bos=False)
            if len(ids) != 1:
                raise ApiError(
                    f"bad_words[{i}]: the word is {len(ids)} tokens here, and this server can forbid single ones",
                    param=f"bad_words[{i}]", code="unsupported",
                )  # fmt: skip
            found.append((ids[0], -math.inf))
    return tuple(dict(found).items())
