"""Finds tool calls in an answer, piece by piece. Text that is not a call is content; nothing is lost."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from ternrun.server.conversation.tool_call_formats import GENERIC, LLAMA3, ToolCallFormat
from ternrun.server.conversation.tools import Tools

ToolCall = dict[str, Any]  # as in OpenAI's `tool_calls`
Found = tuple[str, list[ToolCall]]  # content and calls that are certain now

_RESPONSE, _CALLS = '{"response": "', '{"tool_calls": ['  # as the grammar writes them
_STRING = re.compile(  # as much of a JSON string as has whole characters
    r'(?:[^"\\]|\\["\\/bfnrt]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}'
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*"
)


def parser_for(family: ToolCallFormat, tools: Tools) -> ToolCallParser | GenericToolCallParser:
    """A parser for one answer."""
    return GenericToolCallParser(tools) if family is GENERIC else ToolCallParser(family, tools)


class ToolCallParser:
    """Parses calls between the markers of a format. Drops white space around calls."""

    def __init__(self, family: ToolCallFormat, tools: Tools) -> None:
        self._family, self._tools = family, tools
        self._left = tools.most
        self._held = ""  # not certain yet
        self._inside = False  # in what may be a call
        self._said = False  # something that is content

    def push(self, piece: str) -> Found:
        """The next piece of the text."""
        self._held += piece
        content, found = "", list[ToolCall]()
        while True:
            if not self._inside:
                text, self._inside = self._before_call()
                content += text
            if not self._inside or not self._family.end:
                return content, found
            call, closed, rest = self._held.partition(self._family.end)
            if not closed:
                return content, found
            self._inside, self._held = False, rest
            calls = self._parse(call.removeprefix(self._family.begin))
            found += calls or ()
            content += self._say(call + closed) if calls is None else ""

    def flush(self) -> Found:
        """The end of the text."""
        held, self._held = self._held, ""
        calls = self._parse(held.strip().removeprefix(self._family.begin)) if self._inside else None
        if calls is not None or (self._left < self._tools.most and not held.strip()):
            return "", calls or []
        return held, []

    def _before_call(self) -> tuple[str, bool]:
        """The text that is certainly content, and whether the rest begins a call."""
        begin = self._family.begin
        at = self._held.find(begin)
        if self._family is LLAMA3 and not self._said and self._held.lstrip().startswith("{"):
            at = 0
        if at < 0:
            at = next(
                (
                    i
                    for i in range(max(0, len(self._held) - len(begin)), len(self._held))
                    if begin.startswith(self._held[i:])
                ),
                len(self._held),
            )
            certain, self._held = self._held[:at].rstrip(), self._held[len(self._held[:at].rstrip()) :]
            return self._say(certain), False
        certain, self._held = self._held[:at].rstrip(), self._held[at:]
        return self._say(certain), True

    def _say(self, text: str) -> str:
        self._said = self._said or bool(text.strip())
        return text

    def _parse(self, text: str) -> list[ToolCall] | None:
        """The calls in this text, up to the number wanted; None if it holds anything else."""
        found = [call for value in _values(text) for call in _calls(value, self._tools)]
        wanted = found[: self._left]
        self._left -= len(wanted)
        return wanted if found else None


class GenericToolCallParser:
    """Parses the form that a grammar enforces on models without tools.

    {"response": "..."} is streamed as text; the calls of {"tool_calls": [...]} are returned when each is complete.
    """

    def __init__(self, tools: Tools) -> None:
        self._tools, self._left = tools, tools.most
        self._held = ""
        self._form = ""  # which of the two it is, once that is certain
        self._closed = False

    def push(self, piece: str) -> Found:
        """The next piece of the text."""
        self._held += piece
        if not self._form:
            self._form = next((form for form in (_RESPONSE, _CALLS) if self._held.startswith(form)), "")
            self._held = self._held[len(self._form) :]
        if self._form == _RESPONSE and not self._closed:
            return self._response(), []
        return "", self._complete() if self._form == _CALLS else []

    def flush(self) -> Found:
        """The end of the text."""
        held, self._held = self._held, ""
        return ("" if self._closed or self._form == _RESPONSE else held), []

    def _response(self) -> str:
        match = _STRING.match(self._held)
        said = match.group() if match else ""
        self._held = self._held[len(said) :]
        self._closed = self._held.startswith('"')
        return str(json.loads(f'"{said}"', strict=False))

    def _complete(self) -> list[ToolCall]:
        found: list[ToolCall] = []
        while not self._closed:
            self._held = self._held.lstrip(", \n\t")
            self._closed = self._held.startswith("]")
            values = _first(self._held)
            calls = _calls(values[0][0], self._tools) if values else []
            if not calls:
                break
            self._held = self._held[values[0][1] :]
            found += calls[: self._left]
            self._left -= len(calls[: self._left])
        return found


def _calls(value: Any, tools: Tools) -> list[ToolCall]:
    """The calls of a value or of a list; empty if any of them is not a call."""
    read = [_call(one, tools) for one in (value if isinstance(value, list) else [value])]
    return [one for one in read if one] if all(read) else []


def _call(value: Any, tools: Tools) -> ToolCall | None:
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or name not in {f.name for f in tools.functions}:
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = _object(arguments)
    if not isinstance(arguments, dict):
        return None
    told = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": uuid.uuid4().hex[:9], "type": "function", "function": told}  # Mistral's ids have 9 characters


def _values(text: str) -> list[Any]:
    """The JSON values of a text, separated by white space or semicolons; empty if there is anything else."""
    found, text = [], text.strip()
    while text:
        value = _first(text)
        if not value:
            return []
        found.append(value[0][0])
        text = text[value[0][1] :].lstrip("; \n\t\r")
    return found


def _first(text: str) -> list[tuple[Any, int]]:
    """The JSON value at the beginning of a text and its end; empty if the text begins with no value."""
    try:
        return [json.JSONDecoder().raw_decode(text)]
    except (ValueError, RecursionError):
        return []


def _object(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
