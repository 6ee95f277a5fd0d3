"""The tools of a conversation, and earlier messages with calls and results."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ternrun.server.fields.ignored import current, pass_over
from ternrun.server.http.errors import wrong

MAX_TOOLS = 128
NO_PARAMETERS = {"type": "object", "properties": {}}
CHOICES = ("none", "auto", "required", "any")
_FUNCTION = ("type", "name", "description", "parameters", "strict")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Function:
    """One tool. `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: dict[str, Any]

    @property
    def written(self) -> dict[str, Any]:
        """The function as templates expect it."""
        told = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": told}


@dataclass(frozen=True, slots=True)
class Tools:
    """The functions that may be called. `must`: the answer has to be a call. `most`: the most calls at a time."""

    functions: tuple[Function, ...]
    must: bool
    most: int


def read_tools(values: Mapping[str, Any]) -> Tools | None:
    """The tools of `tools`, `tool_choice` and `parallel_tool_calls`, or None. Raises ApiError.

    Tools of other types, which only their own server could run, are ignored; so is tool_choice auto without tools.
    """
    given, choice = values["tools"], values["tool_choice"]
    functions = tuple(_function(tool, f"tools[{i}]") for i, tool in offered(given) if _is_function(tool, i))
    if len({f.name for f in functions}) < len(functions):
        raise wrong("tools", "two of them have the same name")
    most = MAX_TOOLS if values["parallel_tool_calls"] else 1
    if isinstance(choice, dict):
        return _chosen(choice, functions, most)
    if choice not in CHOICES:
        raise wrong("tool_choice", f"must be {', '.join(CHOICES)} or an object that names a function")
    must = choice in ("required", "any")
    if must and not functions:
        raise wrong("tool_choice", "there are no functions of which one could be required")
    return Tools(functions, must, most) if functions and choice != "none" else None


def offered(given: Any) -> list[tuple[int, dict[str, Any]]]:
    """The objects in `tools`, each with its index. Raises ApiError."""
    if given is None:
        return []
    if not isinstance(given, list) or len(given) > MAX_TOOLS:
        raise wrong("tools", f"must be a list of at most {MAX_TOOLS} tools")
    for i, tool in enumerate(given):
        if not isinstance(tool, dict):
            raise wrong(f"tools[{i}]", 'must be {"type": "function", "function": {"name": ...}}')
    return list(enumerate(given))


def _chosen(choice: dict[str, Any], functions: tuple[Function, ...], most: int) -> Tools | None:
    """The tools of OpenAI's choice objects: type function names one, type allowed_tools lists some."""
    kind = choice.get("type", "function")
    if kind == "allowed_tools":
        allowed = choice.get("allowed_tools") or choice
        listed = allowed.get("tools") if isinstance(allowed, dict) else None
        if not isinstance(listed, list) or not all(isinstance(tool, dict) for tool in listed):
            raise wrong("tool_choice.allowed_tools", "must have a list of tools")
        names = {_named(tool) for tool in listed}
        left = tuple(f for f in functions if f.name in names)
        must = allowed.get("mode") == "required"
        if must and not left:
            raise wrong("tool_choice", "must name a function that is among tools")
        return Tools(left, must, most) if left else None
    if kind != "function":
        raise wrong("tool_choice.type", f"this server has no tools of type {str(kind)[:40]}", code="unsupported")
    one = tuple(f for f in functions if f.name == _named(choice))
    if not one:
        raise wrong("tool_choice.function.name", "must name a function that is among tools")
    return Tools(one, must=True, most=1)


def _named(tool: dict[str, Any]) -> Any:
    inner = tool.get("function")
    name = inner.get("name") if isinstance(inner, dict) else tool.get("name")
    return name if isinstance(name, str) else None


def _is_function(tool: dict[str, Any], place: int) -> bool:
    """Whether a tool is a function. Notes one of another type as ignored. Raises ApiError."""
    kind = tool.get("type", "function")
    if not isinstance(kind, str):
        raise wrong(f"tools[{place}].type", "must be a string")
    if kind != "function":
        current().hint(f"tools[{place}].{kind}")
    return kind == "function"


def _function(tool: dict[str, Any], where: str) -> Function:
    function = tool.get("function")
    if function is None and "name" in tool:  # as /v1/responses has it
        function, at = tool, where
    else:
        at = f"{where}.function"
        pass_over(tool, ("type", "function"), where)
    if not isinstance(function, dict):
        raise wrong(at, 'must be an object such as {"name": "now"}')
    name, description = function.get("name"), function.get("description") or ""
    parameters = function.get("parameters") or NO_PARAMETERS
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise wrong(f"{at}.name", "must be 1 to 64 letters, digits, _, - or .")
    if not isinstance(description, str):
        raise wrong(f"{at}.description", "must be a string")
    if not isinstance(parameters, dict):
        raise wrong(f"{at}.parameters", "must be a JSON schema, an object")
    pass_over(function, _FUNCTION, at)
    return Function(name, description, parameters)


def read_calls(value: Any, where: str) -> list[dict[str, Any]]:
    """The `tool_calls` of an earlier message, with arguments as objects for templates. Raises ApiError."""
    if not isinstance(value, list) or len(value) > MAX_TOOLS:
        raise wrong(f"{where}.tool_calls", f"must be a list of at most {MAX_TOOLS} calls")
    return [_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(value)]


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise wrong(f"{where}.function", "must be an object with a name and arguments")
    if not isinstance(function.get("name"), str):
        raise wrong(f"{where}.function.name", "must be a string")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = None
    if not isinstance(arguments, dict):
        raise wrong(f"{where}.function.arguments", "must be a JSON object")
    identity = call.get("id") or ""
    if not isinstance(identity, str):
        raise wrong(f"{where}.id", "must be a string")
    pass_over(call, ("id", "type", "function", "index"), where)
    return {"id": identity, "type": "function", "function": {"name": function["name"], "arguments": arguments}}
