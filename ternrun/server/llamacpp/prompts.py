"""Reads prompts in llama.cpp's forms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ternrun.errors import ContextError
from ternrun.server.generation.prompts import encode
from ternrun.server.http.errors import ApiError

if TYPE_CHECKING:
    from ternrun.api import Model


def llama_prompts(model: Model, prompt: Any, most: int) -> list[list[int]]:
    """llama.cpp's forms: a string, a list of ids, ids and strings mixed, or a list of any of these.

    At most `most` of them. Raises ApiError."""
    if isinstance(prompt, list) and not any(type(part) is int for part in prompt):
        if not 0 < len(prompt) <= most:
            raise ApiError(f"prompt: from 1 to {most} prompts may be asked at once", param="prompt")
        return [_mixed(model, one) for one in prompt]
    return [_mixed(model, prompt)]


def _mixed(model: Model, prompt: Any) -> list[int]:
    if isinstance(prompt, dict) and set(prompt) <= {"prompt_string", "multimodal_data"}:
        if prompt.get("multimodal_data"):
            raise ApiError("prompt: this model reads text only", param="prompt", code="unsupported")
        prompt = prompt.get("prompt_string")
    if isinstance(prompt, str):
        return encode(model, prompt)
    if not isinstance(prompt, list) or not all(isinstance(p, str) or type(p) is int for p in prompt):
        raise ApiError("prompt: must be a string, a list of token ids and strings, or a list of these", param="prompt")
    ids: list[int] = []
    for i, part in enumerate(prompt):
        ids += [part] if isinstance(part, int) else encode(model, part, bos=i == 0)
        if len(ids) > model.context:  # what follows could be a hundred times as much
            message = f"the prompt begins with {len(ids)} tokens, but the context holds {model.context}"
            raise ContextError(message, tokens=len(ids), context=model.context)
    return ids
