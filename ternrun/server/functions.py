"""Tools that a conversation may use: the fields that offer them, and messages that hold calls and results."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ternrun.server.problems import ApiError

MAX_TOOLS = 128
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Function:
    """One tool. `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: dict[str, Any]

    @property
    def written(self) -> dict[str, Any]:
        """As templates expect it."""
        told = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": told}


@dataclass(frozen=True, slots=True)
class Tools:
    """What may be called. `must`: the answer has to be a call; `most` calls at a time."""

    functions: tuple[Function, ...]
    must: bool
    most: int


def read_tools(values: Mapping[str, Any]) -> Tools | None:
    """Of `tools`, `tool_choice` and `parallel_tool_calls`; None where nothing is to be called. Raises ApiError."""
    given, choice = values["tools"], values["tool_choice"]
    if given is not None and (not isinstance(given, list) or len(given) > MAX_TOOLS):
        raise ApiError(f"tools: must be a list of at most {MAX_TOOLS} tools", param="tools")
    functions = tuple(_function(tool, f"tools[{i}]") for i, tool in enumerate(given or ()))
    if len({f.name for f in functions}) < len(functions):
        raise ApiError("tools: two of them have the same name", param="tools")
    most = MAX_TOOLS if values["parallel_tool_calls"] else 1
    if isinstance(choice, dict):
        named = choice.get("function")
        name = named.get("name") if choice.get("type") == "function" and isinstance(named, dict) else None
        functions = tuple(f for f in functions if f.name == name)
        if not functions:
            raise ApiError("tool_choice: must name a function that is among tools", param="tool_choice")
        return Tools(functions, must=True, most=1)
    if choice not in ("none", "auto", "required"):
        raise ApiError(
            "tool_choice: must be none, auto, required or an object that names a function", param="tool_choice"
        )
    if choice == "required" and not functions:
        raise ApiError("tool_choice: there are no tools of which one could be required", param="tool_choice")
    return Tools(functions, choice == "required", most) if functions and choice != "none" else None


def _function(tool: Any, where: str) -> Function:
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type", "function") == "function" else None
    if not isinstance(function, dict):
        raise ApiError(f'{where}: must be {{"type": "function", "function": {{"name": ...}}}}', param="tools")
    name, description = function.get("name"), function.get("description") or ""
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ApiError(f"{where}.function.name: must be 1 to 64 letters, digits, _, - or .", param="tools")
    if not isinstance(description, str) or not isinstance(parameters, dict):
        raise ApiError(f"{where}.function: description must be a string and parameters a JSON schema", param="tools")
    unknown = set(function) - {"name", "description", "parameters", "strict"}
    if unknown:
        raise ApiError(f"{where}.function: unknown field {min(unknown)[:100]!r}", param="tools")
    return Function(name, description, parameters)


def read_calls(value: Any, where: str) -> list[dict[str, Any]]:
    """`tool_calls` of a message of the past, arguments as objects, as templates want them. Raises ApiError."""
    if not isinstance(value, list) or len(value) > MAX_TOOLS:
        raise ApiError(f"{where}.tool_calls: must be a list of at most {MAX_TOOLS} calls", param="messages")
    return [_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(value)]


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ApiError(f"{where}: must have a function with a name and arguments", param="messages")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = None
    if not isinstance(arguments, dict):
        raise ApiError(f"{where}.function.arguments: must be a JSON object", param="messages")
    identity = call.get("id") or ""
    if not isinstance(identity, str):
        raise ApiError(f"{where}.id: must be a string", param="messages")
    return {"id": identity, "type": "function", "function": {"name": function["name"], "arguments": arguments}}
