"""The messages of a conversation, checked; and how tool calls are told to a model whose template knows none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ternrun.server.functions import read_calls
from ternrun.server.problems import ApiError

Message = dict[str, Any]  # role, content, ... as templates expect them

ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_MESSAGES = 4096
_IDLE: dict[str, Any] = {"refusal": None, "function_call": None, "audio": None, "tool_calls": [], "annotations": []}


def read_messages(value: Any) -> list[Message]:
    """Checked messages: text, tool calls and their results. Raises ApiError."""
    if not counted(value):
        raise _not_so_many("messages")
    return [_message(message, f"messages[{i}]") for i, message in enumerate(value)]


def counted(value: Any, name: str = "messages") -> list[Any]:
    """A list of no more than a conversation may have, whatever they are: asked before a route turns its own words for
    messages into ours, one by one. Raises ApiError, naming the field `name`."""
    if not isinstance(value, list) or len(value) > MAX_MESSAGES:
        raise _not_so_many(name)
    return value


def _not_so_many(name: str) -> ApiError:
    return ApiError(f"{name}: must be a list of 1 to {MAX_MESSAGES} messages", param=name)


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict):
        raise ApiError(f"{where}: must be an object with role and content", param="messages")
    role = message.get("role")
    if role not in ROLES:
        raise ApiError(f"{where}.role: must be one of {', '.join(ROLES)}", param="messages")
    read: Message = {"role": "system" if role == "developer" else role}
    content = message.get("content")
    read["content"] = plain_text("" if content is None else content, f"{where}.content", "messages")
    for name, value in message.items():
        if name in read or value is None or (name in _IDLE and value == _IDLE[name]):
            continue
        if name == "tool_calls" and role == "assistant":
            read[name] = read_calls(value, where)
            continue
        if name not in ("name", "reasoning_content") and not (name == "tool_call_id" and role == "tool"):
            raise ApiError(f"{where}.{name[:100]}: this server does not support it", param="messages")
        if not isinstance(value, str):
            raise ApiError(f"{where}.{name}: must be a string", param="messages")
        read[name] = value
    return read


def plain_text(value: Any, where: str, param: str, kinds: Sequence[str] = ("text",)) -> str:
    """A string, or the text of a list of parts, each of one of these types. Raises ApiError."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ApiError(f"{where}: must be a string or a list of parts", param=param)
    for part in value:
        if not isinstance(part, Mapping) or part.get("type") not in kinds or not isinstance(part.get("text"), str):
            raise ApiError(f"{where}: this model reads parts of type {kinds[-1]} only", param=param)
    return "".join(part["text"] for part in value)


def in_plain_words(messages: Sequence[Message], instructions: str) -> list[Message]:
    """Calls and results as text, and instructions in front, for a template that knows of none of them."""
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
