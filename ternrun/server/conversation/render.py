"""Formats a conversation with the model's chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ternrun.server.conversation.messages import Message, in_plain_words, read_messages
from ternrun.server.conversation.tool_call_formats import GENERIC, format_of, instructions
from ternrun.server.conversation.tools import Tools
from ternrun.server.http.errors import ApiError

if TYPE_CHECKING:
    from ternrun.api import Model

_HERE = "\x01(it goes on here)\x01"  # marks the end of a message while a template writes it out, and may trim it


def render(
    model: Model,
    messages: Any,
    *,
    begin: bool | None = None,
    go_on: bool | None = None,
    variables: Any = None,
    tools: Tools | None = None,
) -> str:
    """The prompt of a conversation, up to the beginning of an answer (unless `begin` is false).

    With `go_on` it ends with the text of the last message. If neither is stated, a last message with the assistant's
    own text is continued. Raises ApiError, TemplateError.
    """
    template = model.chat_template
    if template is None:
        raise ApiError("this model has no chat template: it continues text, see /v1/completions", code="unsupported")
    if variables is not None and not isinstance(variables, dict):
        raise ApiError("chat_template_kwargs: must be an object", param="chat_template_kwargs")
    told, family = read_messages(messages), format_of(template.source)
    read = in_plain_words(told, instructions(tools) if tools else "") if family is GENERIC else told
    written = [f.written for f in tools.functions] if tools and family is not GENERIC else None
    last = _unended(told, begin, go_on)
    if last is None:
        return template.render(read, tools=written, add_generation_prompt=begin is not False, variables=variables)
    read[-1] = read[-1] | {"content": last + _HERE}
    prompt = template.render(read, tools=written, add_generation_prompt=False, variables=variables)
    said, found, _ = prompt.rpartition(_HERE)
    if not found:
        raise ApiError(
            "continue_final_message: this model's template does not write the assistant's last message out as it is, "
            "so that it cannot go on; where it is false, the next answer begins",
            param="continue_final_message", code="unsupported",
        )  # fmt: skip
    return said


def _unended(messages: Sequence[Message], begin: bool | None, go_on: bool | None) -> str | None:
    """The text of the last message if it is to be continued, else None. Raises ApiError.

    llama.cpp, Ollama and Anthropic continue it unasked; vLLM has a field for it; OpenAI cannot.
    """
    last = messages[-1]
    can = last["role"] == "assistant" and not last.get("tool_calls")
    if go_on and (begin or not can):
        raise ApiError(
            "continue_final_message: the last message must be the assistant's, without calls, and "
            "add_generation_prompt must not be true",
            param="continue_final_message",
        )
    return last["content"] if can and not begin and go_on is not False else None
