"""From what a request holds to token ids: prompts, conversations, holes to fill in. Called beside the event loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ternrun.errors import ContextError
from ternrun.server.problems import ApiError

if TYPE_CHECKING:
    from ternrun.api import Model

Prompt = str | list[int]

ROLES = ("system", "developer", "user", "assistant")
MAX_MESSAGES = 4096
_PLAUSIBLE = 16  # characters a token; more than that in all of a text deserves a look
_IDLE: dict[str, Any] = {"refusal": None, "function_call": None, "audio": None, "tool_calls": [], "annotations": []}


def openai_prompts(value: Any, most: int) -> list[Prompt]:
    """A string, a list of token ids, or a list of either. Raises ApiError."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if _is_ids(value):
            return [value]
        if len(value) <= most and all(isinstance(p, str) or (isinstance(p, list) and p and _is_ids(p)) for p in value):
            return value
    raise ApiError(
        f"prompt: must be a string, a list of token ids, or a list of at most {most} of these, not empty",
        param="prompt",
    )


def encode(model: Model, prompt: Prompt, *, special: bool = True, bos: bool = True) -> list[int]:
    """Ids of a prompt; those given as ids stay as they are.

    Raises ContextError, before any work is done, for a text that is too long even if its tokens were the longest.
    """
    if not isinstance(prompt, str):
        return prompt
    if len(prompt) > _PLAUSIBLE * model.context:
        tokenizer = model.tokenizer
        longest = max(len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size))
        if len(prompt) > longest * model.context:
            raise ContextError(f"the prompt has {len(prompt)} characters, but the context holds {model.context} tokens")
    return model.tokenizer.encode(prompt, special=special, bos=bos)


def fill_in(model: Model, prefix: Prompt, suffix: str) -> list[int]:
    """Ids that ask for the text between the two. Raises ApiError where the model was not trained for that."""
    tokenizer = model.tokenizer
    if tokenizer.fim is None:
        raise ApiError(
            "suffix: this model has no tokens for filling in the middle, so it can only continue a text",
            param="suffix", code="unsupported",
        )  # fmt: skip
    before, after, middle = tokenizer.fim
    head = encode(model, prefix, special=False, bos=False)
    tail = encode(model, suffix, special=False, bos=False)
    begin = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
    return [*begin, before, *head, after, *tail, middle]


def render(model: Model, messages: Any, *, begin: bool = True, variables: Any = None) -> str:
    """A conversation written out by the model's template. Raises ApiError, TemplateError."""
    template = model.chat_template
    if template is None:
        raise ApiError("this model has no chat template: it continues text, see /v1/completions", code="unsupported")
    if variables is not None and not isinstance(variables, dict):
        raise ApiError("chat_template_kwargs: must be an object", param="chat_template_kwargs")
    return template.render(read_messages(messages), add_generation_prompt=begin, variables=variables)


def read_messages(value: Any) -> list[dict[str, str]]:
    """Checked messages, with text only. Raises ApiError."""
    if not isinstance(value, list) or not 0 < len(value) <= MAX_MESSAGES:
        raise ApiError(f"messages: must be a list of 1 to {MAX_MESSAGES} messages", param="messages")
    return [_message(message, f"messages[{i}]") for i, message in enumerate(value)]


def _message(message: Any, where: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise ApiError(f"{where}: must be an object with role and content", param="messages")
    role = message.get("role")
    if role not in ROLES:
        raise ApiError(f"{where}.role: must be one of {', '.join(ROLES)}", param="messages")
    read = {"role": "system" if role == "developer" else role, "content": _content(message.get("content"), where)}
    for name, value in message.items():
        if name in read or value is None or (name in _IDLE and value == _IDLE[name]):
            continue
        if name not in ("name", "reasoning_content"):
            raise ApiError(f"{where}.{name[:100]}: this server does not support it", param="messages")
        if not isinstance(value, str):
            raise ApiError(f"{where}.{name}: must be a string", param="messages")
        read[name] = value
    return read


def _content(value: Any, where: str) -> str:
    """Text, or OpenAI's list of parts of text."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if not isinstance(value, list):
        raise ApiError(f"{where}.content: must be a string or a list of parts", param="messages")
    return "".join(_part(part, where) for part in value)


def _part(part: Any, where: str) -> str:
    if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise ApiError(f"{where}.content: this model reads parts of type text only", param="messages")
    text: str = part["text"]
    return text


def _is_ids(value: list[Any]) -> bool:
    return all(type(i) is int for i in value)
