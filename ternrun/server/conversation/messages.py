"""Checks the messages of a conversation, and writes tool calls as text for templates without tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ternrun.server.conversation.tools import read_calls
from ternrun.server.fields.ignored import pass_over
from ternrun.server.http.errors import ApiError, wrong

Message = dict[str, Any]  # role, content, ... as templates expect them

ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_MESSAGES = 4096
_SAID = ("name", "reasoning_content")  # texts that templates may use
_OF_TOOLS = ("tool_call_id", "tool_calls", "function_call")
_PART = ("type", "text")


def read_messages(value: Any) -> list[Message]:
    """The checked messages: text, tool calls and their results. Raises ApiError."""
    if not counted(value):
        raise _not_so_many("messages")
    return [_message(message, f"messages[{i}]") for i, message in enumerate(value)]


def counted(value: Any, name: str = "messages") -> list[Any]:
    """The list, if it is not longer than a conversation may be. Raises ApiError, naming the field `name`.

    Routes call it before they convert their own form of messages one by one.
    """
    if not isinstance(value, list) or len(value) > MAX_MESSAGES:
        raise _not_so_many(name)
    return value


def _not_so_many(name: str) -> ApiError:
    return wrong(name, f"must be a list of 1 to {MAX_MESSAGES} messages")


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict):
        raise wrong(where, "must be an object with role and content")
    role = message.get("role")
    if role not in ROLES:
        raise wrong(f"{where}.role", f"must be one of {', '.join(ROLES)}")
    read: Message = {"role": "system" if role == "developer" else role}
    content = message.get("content")
    read["content"] = plain_text("" if content is None else content, f"{where}.content")
    for name in _SAID if role != "tool" else (*_SAID, "tool_call_id"):
        value = message.get(name)
        if isinstance(value, str):
            read[name] = value
        elif value is not None:
            raise wrong(f"{where}.{name}", "must be a string")
    if role == "assistant" and message.get("tool_calls"):
        read["tool_calls"] = read_calls(message["tool_calls"], where)
    for name in ("images", "audio"):
        if message.get(name):
            raise wrong(f"{where}.{name}", "this model reads text only", code="unsupported")
    pass_over(message, ("role", "content", *_SAID, *_OF_TOOLS, "images", "audio"), where)
    return read


def plain_text(value: Any, where: str, kinds: Sequence[str] = ("text",)) -> str:
    """The text of a string, or of a list of strings and parts of the types `kinds`. Raises ApiError."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise wrong(where, "must be a string or a list of parts")
    return "".join(part_text(part, f"{where}[{i}]", kinds) for i, part in enumerate(value))


def part_text(part: Any, where: str, kinds: Sequence[str] = ("text",)) -> str:
    """The text of one part at `where`. Raises ApiError."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise wrong(where, f"must be an object of type {kinds[-1]}")
    kind, text = part.get("type"), part.get("text")
    if kind not in kinds:
        raise wrong(f"{where}.type", f"this model reads parts of type {kinds[-1]} only", code="unsupported")
    if not isinstance(text, str):
        raise wrong(f"{where}.text", "must be a string")
    pass_over(part, _PART, where)
    return text


def in_plain_words(messages: Sequence[Message], instructions: str) -> list[Message]:
    """The messages with calls and results as text and instructions first, for templates without tools."""
    told = [_plain(message) for message in messages]
    if not instructions:
        return told
    if told[0]["role"] == "system":
        return [told[0] | {"content": f"{told[0]['content']}\n\n{instructions}"}, *told[1:]]
    return [{"role": "system", "content": instructions}, *told]


def _plain(message: Message) -> Message:
    if message["role"] == "tool":
        return {"role": "user", "content": f"Result: {message['content']}"}
    if message.get("tool_calls"):
        listed = [call["function"] for call in message["tool_calls"]]
        said = f"{message['content']}\n" if message["content"] else ""
        return {"role": "assistant", "content": said + json.dumps({"tool_calls": listed}, ensure_ascii=False)}
    return message
