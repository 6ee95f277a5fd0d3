"""How models write tool calls, by the templates they were trained with: told to them, enforced, found in what they say.

| family | form |
|---|---|
| hermes (Qwen 2.5 and 3, Hermes) | `<tool_call>` {"name": ..., "arguments": {...}} `</tool_call>`, any number |
| llama3 (Llama 3.1 to 3.3) | {"name": ..., "parameters": {...}}, maybe after `<|python_tag|>`; or some with ; between |
| mistral (Mistral Nemo, Small 3) | `[TOOL_CALLS]`[{"name": ..., "arguments": {...}}, ...] |
| generic (all others) | {"tool_calls": [{"name": ..., "arguments": {...}}, ...]} or {"response": "..."}, by a grammar |
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ternrun.server.functions import Function, Tools
from ternrun.server.structure import Source

if TYPE_CHECKING:
    from ternrun.loader.tokenizer import Tokenizer

_WHITESPACE = {"whitespace_pattern": r"( |\n[ \t]{0,40})"}  # bounded, as in grammar/worker.py


@dataclass(frozen=True, slots=True)
class Family:
    """`sign`: what its templates hold. A call begins with `begin` and ends with `end`, each of which may be empty."""

    name: str
    sign: str
    begin: str
    end: str
    arguments: str  # the key they stand under


HERMES = Family("hermes", "<tool_call>", "<tool_call>", "</tool_call>", "arguments")
MISTRAL = Family("mistral", "[TOOL_CALLS]", "[TOOL_CALLS]", "", "arguments")
LLAMA3 = Family("llama3", "<|python_tag|>", "<|python_tag|>", "", "parameters")
GENERIC = Family("generic", "", "", "", "arguments")


def family_of(template: str) -> Family:
    """By what stands in the template."""
    if "ipython" in template and '"parameters"' in template:  # the 3.2 template names no tag
        return LLAMA3
    return next(
        f for f in (HERMES, MISTRAL, LLAMA3, GENERIC) if f.sign in template and ("tools" in template or f is GENERIC)
    )


def instructions(tools: Tools) -> str:
    """What a model is told whose template cannot."""
    listed = "\n".join(json.dumps(f.written["function"]) for f in tools.functions)
    answer = "" if tools.must else ' To answer without a function, say {"response": "..."}.'
    return (
        f"You can call these functions:\n{listed}\n"
        f'To call them, say {{"tool_calls": [{{"name": "...", "arguments": {{...}}}}]}}.{answer} Say nothing else.'
    )


def grammar(family: Family, tools: Tools, tokenizer: Tokenizer) -> Source | None:
    """What keeps an answer to calls that fit their schemas; None where it may say what it likes."""
    if not tools.must and family is not GENERIC:
        return None
    call = "call: " + " | ".join(f"call_{i}" for i in range(len(tools.functions)))
    rules = [call]
    for i, function in enumerate(tools.functions):
        head = json.dumps(f'{{"name": {json.dumps(function.name)}, "{family.arguments}": ')
        rules.append(f'call_{i}: {head} arguments_{i} "}}"')
        rules.append(f"arguments_{i}: %json {json.dumps(function.parameters | {'x-guidance': _WHITESPACE})}")
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


def markers(family: Family, tokenizer: Tokenizer) -> dict[int, str]:
    """Control tokens, which text does not show, that begin a call: id -> text."""
    ids = tokenizer.encode(family.begin, bos=False) if family.begin else []
    return {ids[0]: family.begin} if len(ids) == 1 and ids[0] in tokenizer.hidden_ids else {}


def _some(rule: str, most: int, *, newline: bool = False) -> str:
    between = r'"\n"' if newline else '", "'
    return f"{rule} ({between} {rule}){{0,{most - 1}}}" if most > 1 else rule


def _spelled(marker: str, tokenizer: Tokenizer) -> str:
    """In a grammar: by its id where it is a control token."""
    ids = [token for token, text in markers(MISTRAL, tokenizer).items() if text == marker]
    return f"<[{ids[0]}]>" if ids else json.dumps(marker)


class CallReader:
    """Finds calls in a text that comes piece by piece; what does not read as a call is content, and none of it is lost.

    White space around calls is dropped.
    """

    def __init__(self, family: Family, functions: Sequence[Function], most: int) -> None:
        self.calls: list[dict[str, Any]] = []
        self._family, self._most = family, most
        self._names = {f.name for f in functions}
        self._held = ""  # not certain yet
        self._inside = family is GENERIC  # in what may be a call
        self._said = False  # something that is content

    def push(self, piece: str) -> tuple[str, list[dict[str, Any]]]:
        """Content and calls that are certain now."""
        self._held += piece
        content, found = "", list[dict[str, Any]]()
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

    def flush(self) -> tuple[str, list[dict[str, Any]]]:
        """The end of the text."""
        held, self._held = self._held, ""
        calls = self._parse(held.strip().removeprefix(self._family.begin)) if self._inside else None
        if calls is not None or (self.calls and not held.strip()):
            return "", calls or []
        if self._family is GENERIC:
            said = _object(held).get("response")
            held = said if isinstance(said, str) else held
        return held, []

    def _before_call(self) -> tuple[str, bool]:
        """Text that is content for sure, and whether what is left begins a call."""
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

    def _parse(self, text: str) -> list[dict[str, Any]] | None:
        """The calls that stand there, as far as any are still wanted; None where it is anything else."""
        found = [call for value in _values(text) for call in self._calls(value)]
        if not found:
            return None
        found = found[: self._most - len(self.calls)]
        self.calls += found
        return found

    def _calls(self, value: Any) -> list[dict[str, Any]]:
        if self._family is GENERIC:
            value = value.get("tool_calls") if isinstance(value, dict) else None
        listed = value if isinstance(value, list) else [value]
        read = [self._call(one) for one in listed]
        return [one for one in read if one] if all(read) else []

    def _call(self, value: Any) -> dict[str, Any] | None:
        name = value.get("name") if isinstance(value, dict) else None
        if not isinstance(name, str) or name not in self._names:
            return None
        arguments = value.get("arguments", value.get("parameters", {}))
        if isinstance(arguments, str):
            arguments = _object(arguments)
        if not isinstance(arguments, dict):
            return None
        told = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
        return {"id": uuid.uuid4().hex[:9], "type": "function", "function": told}  # Mistral's ids have 9 characters


def _values(text: str) -> list[Any]:
    """JSON values with nothing but white space or ; between them; none where there is anything else."""
    decoder, found, text = json.JSONDecoder(), [], text.strip()
    while text:
        try:
            value, end = decoder.raw_decode(text)
        except (ValueError, RecursionError):
            return []
        found.append(value)
        text = text[end:].lstrip("; \n\t\r")
    return found


def _object(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
