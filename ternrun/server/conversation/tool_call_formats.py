"""How models write tool calls, by the templates they were trained with: told to them, and enforced.

| family | form |
|---|---|
| hermes (Qwen 2.5 and 3, Hermes) | `<tool_call>` {"name": ..., "arguments": {...}} `</tool_call>`, any number |
| llama3 (Llama 3.1 to 3.3) | {"name": ..., "parameters": {...}}, maybe after `<|python_tag|>`; or some with ; between |
| mistral (Mistral Nemo, Small 3) | `[TOOL_CALLS]`[{"name": ..., "arguments": {...}}, ...] |
| generic (all others) | {"tool_calls": [{"name": ..., "arguments": {...}}, ...]} or {"response": "..."}, by a grammar |
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ternrun.server.conversation.tools import Tools
from ternrun.server.fields.closed_schema import closed
from ternrun.server.fields.response_format import Source

if TYPE_CHECKING:
    from ternrun.loader.tokenizers.tokenizer import Tokenizer

_WHITESPACE = {"whitespace_pattern": r"( |\n( {0,24}|\t{0,8}))"}  # bounded, as in grammar/worker.py


@dataclass(frozen=True, slots=True)
class ToolCallFormat:
    """`sign`: a text in its templates. A call starts with `begin` and stops with `end`, each possibly empty."""

    name: str
    sign: str
    begin: str
    end: str
    arguments: str  # the key they stand under


HERMES = ToolCallFormat("hermes", "<tool_call>", "<tool_call>", "</tool_call>", "arguments")
MISTRAL = ToolCallFormat("mistral", "[TOOL_CALLS]", "[TOOL_CALLS]", "", "arguments")
LLAMA3 = ToolCallFormat("llama3", "<|python_tag|>", "<|python_tag|>", "", "parameters")
GENERIC = ToolCallFormat("generic", "", "", "", "arguments")


def format_of(template: str) -> ToolCallFormat:
    """The format of a template."""
    if "ipython" in template and '"parameters"' in template:  # the 3.2 template names no tag
        return LLAMA3
    return next(
        f for f in (HERMES, MISTRAL, LLAMA3, GENERIC) if f.sign in template and ("tools" in template or f is GENERIC)
    )


def instructions(tools: Tools) -> str:
    """Instructions for a model whose template has no tools."""
    listed = "\n".join(json.dumps(f.written["function"]) for f in tools.functions)
    answer = "" if tools.must else ' To answer without a function, say {"response": "..."}.'
    return (
        f"You can call these functions:\n{listed}\n"
        f'To call them, say {{"tool_calls": [{{"name": "...", "arguments": {{...}}}}]}}.{answer} Say nothing else.'
    )


def grammar(family: ToolCallFormat, tools: Tools, tokenizer: Tokenizer) -> Source | None:
    """The grammar of calls that fit their schemas; None if any text is allowed."""
    if not tools.must and family is not GENERIC:
        return None
    call = "call: " + " | ".join(f"call_{i}" for i in range(len(tools.functions)))
    rules = [call]
    for i, function in enumerate(tools.functions):
        head = json.dumps(f'{{"name": {json.dumps(function.name)}, "{family.arguments}": ')
        rules.append(f'call_{i}: {head} arguments_{i} "}}"')
        rules.append(f"arguments_{i}: %json {json.dumps(closed(function.parameters) | {'x-guidance': _WHITESPACE})}")
    if family is HERMES:
        rules.append('one: "<tool_call>\\n" call "\\n</tool_call>"')
        rules.append(f"start: {_some('one', tools.most, newline=True)}")
    elif family is LLAMA3:
        rules.append("start: call")
    else:
        rules.append(f'list: "[" {_some("call", tools.most)} "]"')
    if family is MISTRAL:
        rules.append(f"start: {_spelled(MISTRAL.begin, tokenizer)} list")
    if family is GENERIC:
        said = json.dumps({"type": "string", "x-guidance": _WHITESPACE})
        rules.append('start: "{\\"tool_calls\\": " list "}"' + ("" if tools.must else " | response"))
        rules += [] if tools.must else ['response: "{\\"response\\": " text "}"', f"text: %json {said}"]
    return Source("lark", "%llguidance {}\n" + "\n".join(rules))


def markers(family: ToolCallFormat, tokenizer: Tokenizer) -> dict[int, str]:
    """Control tokens that begin a call and do not appear as text: id -> text."""
    ids = tokenizer.encode(family.begin, bos=False) if family.begin else []
    return {ids[0]: family.begin} if len(ids) == 1 and ids[0] in tokenizer.hidden_ids else {}


def _some(rule: str, most: int, *, newline: bool = False) -> str:
    between = r'"\n"' if newline else '", "'
    return f"{rule} ({between} {rule}){{0,{most - 1}}}" if most > 1 else rule


def _spelled(marker: str, tokenizer: Tokenizer) -> str:
    """A marker in a grammar: by its id if it is a control token."""
    ids = [token for token, text in markers(MISTRAL, tokenizer).items() if text == marker]
    return f"<[{ids[0]}]>" if ids else json.dumps(marker)
