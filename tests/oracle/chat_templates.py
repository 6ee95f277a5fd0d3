"""Compare chat templates with transformers: `python -m tests.oracle.chat_templates render|compare FOLDER`.

`render` wants transformers (5.24; torch is not needed) and writes FOLDER/transformers.json: what it makes of each
template below FOLDER (*.jinja, tokenizer_config.json) and each conversation. `compare` wants ternrun, renders the same,
and names each difference. The two may run in different environments.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
DAY = {"date_string": "26 Jul 2024", "datetime": "Jul 26 2024"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a <city> & 'more' é\nTwo lines",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "City", "enum": ["Paris", "Oslo"]},
                    "days": {"type": ["integer", "null"], "default": 3},
                    "at": {"type": "object", "properties": {"x": {"type": "array", "items": {"type": "number"}}}},
                },
                "required": ["city"],
            },
            "return": {"type": "string"},
        },
    },
    {"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object"}}},
]
_ARGUMENTS = {"city": "Paris", "days": 2, "at": {"x": [1.5, None, True]}}
CALLS = [{"id": "call12345", "type": "function", "function": {"name": "get_weather", "arguments": _ARGUMENTS}}]
TWO_CALLS = [*CALLS, {"id": "call12346", "type": "function", "function": {"name": "now", "arguments": {}}}]


def _said(*turns: str | dict[str, Any]) -> list[dict[str, Any]]:
    """Messages of "role: text"; any other is given whole."""
    return [
        dict(zip(("role", "content"), turn.split(": ", 1), strict=True)) if isinstance(turn, str) else turn
        for turn in turns
    ]


def _text(role: str, *texts: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text} for text in texts]}


def _result(call: str, name: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "name": name, "tool_call_id": call, "content": content}


CONVERSATIONS: dict[str, dict[str, Any]] = {
    "one turn": {"messages": _said("user: Hi")},
    "turns": {
        "messages": _said("system:  Be brief. \n", "user: Hello 😀", "assistant: Hi\n", "user: <|im_start|> {{ x }}"),
    },
    "closed": {
        "messages": _said("user: Hi", "assistant: <think>\nhm\n</think>\n\nHo"), "add_generation_prompt": False,
    },
    "a call": {
        "messages": _said(
            "system: S", "user: Weather?", {"role": "assistant", "content": None, "tool_calls": CALLS},
            _result("call12345", "get_weather", "sunny"), "assistant: Sunny.", "user: Thanks",
        ),
        "tools": TOOLS,
    },
    "two calls": {
        "messages": _said(
            "user: Weather?", {"role": "assistant", "content": "", "tool_calls": TWO_CALLS},
            _result("call12345", "get_weather", '{"a": 1}'), _result("call12346", "now", "12"),
        ),
        "tools": TOOLS,
    },
    "parts": {"messages": [_text("user", "What is", " this?"), _text("assistant", "A cat"), _text("user", "Ok")]},
    "no thinking": {
        "messages": _said("user: 2+2", {"role": "assistant", "content": "4", "reasoning_content": "sum"}, "user: 3+3"),
        "variables": {"enable_thinking": False, "thinking": False},
    },
    "thinking": {
        "messages": _said(
            "developer: D", "user: 2+2", {"role": "assistant", "content": "4", "reasoning": "s"}, "user: 3",
        ),
        "variables": {"enable_thinking": True, "reasoning_effort": "high", "xml_tools": True, "python_tools": ["a"]},
    },
}  # fmt: skip


def templates(folder: Path) -> Iterator[tuple[str, str]]:
    """Names and sources; a tokenizer_config.json may have several."""
    for file in sorted(folder.rglob("*.jinja")):
        yield str(file.relative_to(folder)), file.read_text()
    for file in sorted(folder.rglob("tokenizer_config.json")):
        given = json.loads(file.read_text()).get("chat_template")
        for one in given if isinstance(given, list) else [{"name": "", "template": given}]:
            if isinstance(one["template"], str):
                yield f"{file.relative_to(folder)} {one['name']}".strip(), one["template"]


def by_transformers(source: str, conversation: dict[str, Any]) -> str | None:
    """The text, or None for a refusal."""
    from transformers.utils import chat_template_utils as utils

    try:
        messages = utils._normalize_chat_messages(conversation["messages"])
        rendered, _ = utils.render_jinja_template(
            [messages], tools=conversation.get("tools"), chat_template=source,
            add_generation_prompt=conversation.get("add_generation_prompt", True),
            **DAY, **conversation.get("variables", {}), **TOKENS,
        )  # fmt: skip
    except Exception:
        return None
    return str(rendered[0])


def by_ternrun(source: str, conversation: dict[str, Any]) -> str | None:
    """The text, or None for a refusal."""
    from ternrun.errors import TemplateError
    from ternrun.loader.chat.template import ChatTemplate

    try:
        return ChatTemplate(source, **TOKENS).render(
            conversation["messages"], tools=conversation.get("tools"),
            add_generation_prompt=conversation.get("add_generation_prompt", True),
            variables=DAY | conversation.get("variables", {}),
        )  # fmt: skip
    except TemplateError:
        return None


def main() -> None:
    """Do as the command line says; `compare` exits 1 for a difference."""
    if len(sys.argv) != 3 or sys.argv[1] not in ("render", "compare"):
        sys.exit(__doc__)
    folder = Path(sys.argv[2])
    render = by_transformers if sys.argv[1] == "render" else by_ternrun
    found = {
        name: {title: render(source, conversation) for title, conversation in CONVERSATIONS.items()}
        for name, source in templates(folder)
    }
    file = folder / "transformers.json"
    if sys.argv[1] == "render":
        file.write_text(json.dumps(found))
        return
    wanted = json.loads(file.read_text())
    pairs = [(name, title) for name in found for title in CONVERSATIONS]
    different = [f"{name}: {title}" for name, title in pairs if found[name][title] != wanted[name][title]]
    texts = sum(text is not None for row in wanted.values() for text in row.values())
    print(f"{len(found)} templates, {texts} texts, {len(different)} different", *different, sep="\n")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
