"""The fields of OpenAI's routes: those that are read, hints and constraints."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ternrun.runtime.config import MAX_ALLOWED, SamplingParams
from ternrun.server.fields import response_format
from ternrun.server.fields.reading import (
    FieldTable,
    Schema,
    any_value,
    any_value_like,
    boolean,
    integer,
    json_object,
    json_schema,
    nested,
    number,
    optional,
    schema_of,
    string,
    string_list,
    token_ids,
)
from ternrun.server.fields.sampling_params import CHAIN, READERS, UNLIMITED, Fields, sampling_fields
from ternrun.server.fields.unsupported import CHAT_CONSTRAINTS, CHAT_HINTS, HARMLESS, OPENAI_CONSTRAINTS, OPENAI_HINTS
from ternrun.server.http.errors import ApiError

MAX_CHOICES = 128
MAX_LOGPROBS = 100
MAX_SLOT = 4095

IDS: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
PROMPT: Schema = {"anyOf": [{"type": "string"}, IDS, {"type": "array", "items": {"anyOf": [{"type": "string"}, IDS]}}]}
MESSAGES: Schema = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {"role": {"type": "string"}, "content": {"type": ["string", "array", "null"]}},
        "required": ["role"],
    },
}


STREAM_OPTIONS = FieldTable(
    read={"include_usage": (boolean, False), "continuous_usage_stats": (boolean, False)},
    hints={"include_obfuscation": HARMLESS},
)
NO_USAGE: Mapping[str, bool] = {"include_usage": False, "continuous_usage_stats": False}

OPENAI_PENALTY = (number(-2, 2), 0.0)
_count = integer(-1, UNLIMITED)


@json_schema(schema_of(_count))
def length(value: Any) -> int:
    """A number of tokens; -1: up to the end of the context."""
    count: int = _count(value)
    return UNLIMITED if count == -1 else count


SAMPLING: Fields = sampling_fields(  # beyond OpenAI's own from top_k on
    "top_p", "logit_bias", "seed", "stop", "top_k", "min_p", "typical_p", "repeat_penalty", "ignore_eos", *CHAIN,
    "min_tokens", temperature=1.0, repeat_last_n=-1,  # OpenAI's penalties look at the whole text
) | {
    "presence_penalty": OPENAI_PENALTY,
    "frequency_penalty": OPENAI_PENALTY,
    "stop_token_ids": (token_ids(1024), ()),
    "allowed_token_ids": (token_ids(MAX_ALLOWED), ()),
    "include_stop_str_in_output": (boolean, False),
}  # fmt: skip
_RENAMED = {"stop_token_ids": "stop_ids", "include_stop_str_in_output": "include_stop"}  # here -> in SamplingParams
SLOT = (integer(-1, MAX_SLOT), -1)
VLLM_PENALTY = (READERS["repeat_penalty"], None)  # its name for `repeat_penalty`
STREAM: Fields = {
    "model": (string, ""),
    "n": (integer(1, MAX_CHOICES), 1),
    "stream": (boolean, False),
    "stream_options": (nested(STREAM_OPTIONS, "stream_options"), NO_USAGE),
    "return_progress": (boolean, False),
    "id_slot": SLOT,
}
TELLING: Fields = {  # vLLM's: what the answer tells beside its text
    "prompt_logprobs": (integer(0, MAX_LOGPROBS), None),
    "return_token_ids": (boolean, False),
    "return_tokens_as_token_ids": (boolean, False),
    "skip_special_tokens": (boolean, True),
    "bad_words": (string_list, ()),
}

TURN: Fields = {  # how the prompt of a conversation ends
    "add_generation_prompt": (boolean, None),
    "continue_final_message": (boolean, None),
}

COMPLETION = FieldTable(
    read={
        **STREAM,
        **SAMPLING,
        "prompt": (any_value_like(PROMPT), None),
        "suffix": (optional(string, ""), None),
        "max_tokens": (length, 16),
        "n_predict": (length, None),
        "echo": (boolean, False),
        "logprobs": (integer(0, MAX_LOGPROBS), None),
        "best_of": (integer(1, MAX_CHOICES), None),
        "repetition_penalty": VLLM_PENALTY,
        "add_special_tokens": (boolean, True),
        **TELLING,
        **response_format.OPENAI,
    },
    hints=OPENAI_HINTS,
    constraints=OPENAI_CONSTRAINTS,
)

CHAT = FieldTable(
    read={
        **STREAM,
        **SAMPLING,
        "messages": (any_value_like(MESSAGES), None),
        "max_tokens": (length, UNLIMITED),
        "n_predict": (length, None),
        "max_completion_tokens": (length, None),
        "logprobs": (boolean, False),
        "top_logprobs": (integer(0, 20), 0),
        "chat_template_kwargs": (json_object, None),
        **TURN,
        "tools": (any_value, None),
        "tool_choice": (any_value, "auto"),
        "parallel_tool_calls": (boolean, True),
        "verbose": (boolean, False),
        "repetition_penalty": VLLM_PENALTY,
        **TELLING,
        **response_format.OPENAI,
    },
    hints=CHAT_HINTS,
    constraints=CHAT_CONSTRAINTS,
)


def sampling(values: Mapping[str, Any], max_tokens: int, logprobs: int | None) -> SamplingParams:
    """The SamplingParams of the fields of SAMPLING."""
    named = {name: values[name] for name in SAMPLING if name not in _RENAMED}
    named |= {ours: values[name] for name, ours in _RENAMED.items()}
    if values["repetition_penalty"] is not None:
        named["repeat_penalty"] = values["repetition_penalty"]
    if min_tokens := values["min_tokens"]:
        limit = f"min_tokens: it must not be more than max_tokens, which is {max_tokens}"
        if min_tokens > max_tokens:
            raise ApiError(limit, param="min_tokens")
    return SamplingParams(max_tokens=max_tokens, logprobs=logprobs, **named)


def limited(values: Mapping[str, Any], *names: str) -> int:
    """The first given field of these names, or else `max_tokens`, which has a default."""
    return next((values[name] for name in names if values[name] is not None), values["max_tokens"])  # type: ignore[no-any-return]


def seeded(params: SamplingParams, choice: int) -> SamplingParams:
    """The parameters for one of several choices: each has its own seed, and is reproducible."""
    if params.seed is None or not choice:
        return params
    return dataclasses.replace(params, seed=(params.seed + choice) % 2**64)


def needed(values: Mapping[str, Any], name: str) -> Any:
    """The value of a required field. Raises ApiError if it is absent."""
    if values[name] is None:
        raise ApiError(f"{name}: it is missing", param=name)
    return values[name]
