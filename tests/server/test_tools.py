"""Tool calls: what models say is found in each family's form, what is required is enforced, history is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from ternrun.api import load
from ternrun.bench.vocabulary import byte_vocabulary
from ternrun.server.conversation.tool_call_formats import GENERIC, HERMES, LLAMA3, MISTRAL, ToolCallFormat, format_of
from ternrun.server.conversation.tool_call_parser import parser_for
from ternrun.server.conversation.tools import Function, Tools
from ternrun.server.settings import ServerConfig
from tests.fakes import fake_gguf, fake_weights
from tests.server.serving import Server, running

HELLO = [{"role": "user", "content": "hi"}]
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": CITY}}
CLOCK = {"type": "function", "function": {"name": "clock"}}
BAD_CALL = {"function": {"name": "a", "arguments": "{"}}
FUNCTIONS = (Function("weather", "", CITY), Function("clock", "", {}))

TEMPLATES = {
    "hermes": "{% if tools %}<tool_call>{{ tools | tojson }}{% endif %}",
    "llama3": '{% if tools %}ipython {"parameters": 0}{{ tools | tojson }}{% endif %}',
    "mistral": "{% if tools %}[TOOL_CALLS]{{ tools | tojson }}{% endif %}",
    "generic": "",
}
MESSAGES = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments.city }}{% endif %}{% endfor %}"
)


def read(family: ToolCallFormat, text: str, cut: int, most: int = 9) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
    reader, content, calls = parser_for(family, Tools(FUNCTIONS, must=False, most=most)), "", []
    pieces = [text[i : i + cut] for i in range(0, len(text), cut)]
    for found in (*map(reader.push, pieces), reader.flush()):
        content += found[0]
        calls += found[1]
    assert len({c["id"] for c in calls}) == len(calls)
    return content, [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls]


ROME, OSLO = ("weather", {"city": "Rome"}), ("weather", {"city": "Oslo"})


@pytest.mark.parametrize("cut", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("family", "text", "content", "calls"),
    [
        (HERMES, "Hello, world", "Hello, world", []),
        (HERMES, " a < b <tool b  ", " a < b <tool b  ", []),
        (HERMES, '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>', "", [ROME]),
        (HERMES, 'Well.\n<tool_call>{"name": "clock", "arguments": {}}</tool_call>\n', "Well.", [("clock", {})]),
        (
            HERMES,
            '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>\n'
            '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>',
            "",
            [ROME, OSLO],
        ),
        (HERMES, '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}', "", [ROME]),  # cut off in time
        (HERMES, '<tool_call>{"name": "weat', '<tool_call>{"name": "weat', []),
        (HERMES, '<tool_call>{"name": "rm"}</tool_call>', '<tool_call>{"name": "rm"}</tool_call>', []),
        (HERMES, '<tool_call>{"name": ["clock"]}</tool_call>', '<tool_call>{"name": ["clock"]}</tool_call>', []),
        (HERMES, "<tool_call>no</tool_call> more", "<tool_call>no</tool_call> more", []),
        (LLAMA3, '{"name": "weather", "parameters": {"city": "Rome"}}', "", [ROME]),
        (LLAMA3, '<|python_tag|>{"name": "weather", "parameters": {"city": "Rome"}}', "", [ROME]),
        (LLAMA3, '{"name": "clock", "parameters": {}}; {"name": "clock", "parameters": {}}', "", [("clock", {})] * 2),
        (LLAMA3, '{"a": 1}', '{"a": 1}', []),
        (LLAMA3, 'It is {"name": "clock", "parameters": {}}', 'It is {"name": "clock", "parameters": {}}', []),
        (MISTRAL, '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Rome"}}]', "", [ROME]),
        (MISTRAL, '[TOOL_CALLS][{"name": "clock", "arguments": "{}"}]', "", [("clock", {})]),
        (MISTRAL, '[TOOL_CALLS][{"name": "clock"}, 3]', '[TOOL_CALLS][{"name": "clock"}, 3]', []),
        (MISTRAL, "[1, 2]", "[1, 2]", []),
        (GENERIC, '{"tool_calls": [{"name": "weather", "arguments": {"city": "Rome"}}]}', "", [ROME]),
        (GENERIC, '{"response": "Hi.\\n"}', "Hi.\n", []),
        (GENERIC, '{"respon', '{"respon', []),
        (GENERIC, '{"response": "a\\"\\u00e9\\ud83d\\ude00b"}', 'a"é😀b', []),
        (GENERIC, '{"response": "cut off \\ud8', "cut off ", []),
        (GENERIC, '{"tool_calls": [{"name": "clock"}, {"name": "weather", "arguments": {"city": "Oslo"}}]}', "",
         [("clock", {}), OSLO]),
        (GENERIC, '{"tool_calls": [{"name": "clock"}, {"name": "wea', '{"name": "wea', [("clock", {})]),
    ],
)  # fmt: skip
def test_what_is_said(family: ToolCallFormat, text: str, content: str, calls: list[Any], cut: int) -> None:
    assert read(family, text, cut) == (content, calls)


def test_an_answer_by_grammar_is_not_held_back() -> None:
    """Of a model that knows no tools: its words as they come, each call when it is complete."""
    reader = parser_for(GENERIC, Tools(FUNCTIONS, must=False, most=9))
    assert [reader.push(piece)[0] for piece in ('{"response": "', "one ", "two\\", "n", '"}')] == [
        "",
        "one ",
        "two",
        "\n",
        "",
    ]
    reader = parser_for(GENERIC, Tools(FUNCTIONS, must=False, most=9))
    pieces = ('{"tool_calls": [{"name": "clock"', "}, ", '{"name": "clock"}', "]}")
    assert [len(reader.push(piece)[1]) for piece in pieces] == [0, 1, 1, 0]


def test_one_call_at_a_time() -> None:
    text = '<tool_call>{"name": "clock"}</tool_call>' * 3
    assert read(HERMES, text, 5, most=1) == ("", [("clock", {})])
    assert read(GENERIC, '{"tool_calls": [{"name": "clock"}, {"name": "clock"}]}', 5, most=1) == ("", [("clock", {})])


@pytest.mark.parametrize("name", TEMPLATES)
def test_families(name: str) -> None:
    assert format_of(TEMPLATES[name] + MESSAGES).name == name


@pytest.fixture(scope="module", params=TEMPLATES)
def serving(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    keys = byte_vocabulary(320)
    tokens, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    if request.param == "mistral":  # a control token, as in Mistral's vocabularies
        tokens[300], types[300] = "[TOOL_CALLS]", 3
    told = {key.replace(".", "__"): value for key, value in keys.items()}
    template = TEMPLATES[request.param] + MESSAGES
    path = tmp_path_factory.mktemp("tools") / f"{request.param}.gguf"
    fake_gguf(path, fake_weights("llama"), **told, tokenizer__chat_template=template, general__name=request.param)
    with running(ServerConfig(port=0), lambda: load(path, threads=1)) as it:
        yield it


def test_required(serving: Server) -> None:
    asked = {"messages": HELLO, "tools": [WEATHER], "tool_choice": "required", "max_tokens": 200, "temperature": 0}
    asked["parallel_tool_calls"] = False
    (choice,) = serving.ask("/v1/chat/completions", asked).json["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"])["city"] in ("Rome", "Oslo")
    events = serving.ask("/v1/chat/completions", asked | {"stream": True}).events
    deltas = [event["choices"][0]["delta"] for event in events]
    (streamed,) = [piece for delta in deltas for piece in delta.get("tool_calls", ())]
    assert streamed["function"] == call["function"]
    assert streamed["index"] == 0
    assert "".join(delta.get("content", "") for delta in deltas) == ""
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_named(serving: Server) -> None:
    choice = {"type": "function", "function": {"name": "weather"}}
    asked = {"messages": HELLO, "tools": [CLOCK, WEATHER], "tool_choice": choice, "max_tokens": 200, "n": 3, "seed": 1}
    for one in serving.ask("/v1/chat/completions", asked).json["choices"]:
        assert [call["function"]["name"] for call in one["message"]["tool_calls"]] == ["weather"]


def test_history(serving: Server) -> None:
    call = {"id": "123456789", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    messages = [
        *HELLO,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "warm", "tool_call_id": "1"},
    ]
    prompt = serving.ask("/apply-template", {"messages": messages, "tools": [WEATHER]}).json["prompt"]
    assert all(word in prompt for word in ("weather", "Tells it.", "[assistant]", "Rome", "warm"))
    if serving.service.name == "generic":
        assert prompt.startswith("[system]You can call these functions:")
        assert "[user]Result: warm" in prompt
    else:
        assert prompt.endswith("[assistant]Rome[tool]warm")


def test_the_model_decides(server: Server) -> None:
    """One that knows no tools either calls or answers, and a model of noise does one of them."""
    short = {"type": "function", "function": {"name": "f", "parameters": {"enum": [{}]}}}
    asked = {"messages": HELLO, "tools": [short], "max_tokens": 400}
    for seed in range(4):
        (choice,) = server.ask("/v1/chat/completions", asked | {"seed": seed}).json["choices"]
        assert choice["finish_reason"] in ("stop", "tool_calls", "length")
        assert bool(choice["message"].get("tool_calls")) == (choice["finish_reason"] == "tool_calls")
    none = server.ask("/v1/chat/completions", asked | {"tool_choice": "none", "seed": 1}).json
    assert none == none | {
        "choices": server.ask("/v1/chat/completions", {"messages": HELLO, "max_tokens": 400, "seed": 1}).json["choices"]
    }


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"tools": {}}, "tools: must be a list"),
        ({"tools": [3]}, "tools[0]: must be"),
        ({"tools": [{"type": 3}]}, "tools[0].type: must be"),
        ({"tools": [{"type": "function"}]}, "tools[0].function: must be"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "letters, digits"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": 3}}]}, "a JSON schema"),
        ({"tools": [CLOCK, CLOCK]}, "the same name"),
        ({"tools": [CLOCK], "tool_choice": "maybe"}, "tool_choice: must be"),
        ({"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "weather"}}}, "among tools"),
        ({"tool_choice": "required"}, "there are no functions"),
        ({"tools": [CLOCK], "json_schema": {}}, "cannot be combined"),
        ({"tools": [{"function": {"name": "a", "parameters": {"type": "x"}}}]}, "tools: the grammar"),
        ({"messages": [{"role": "assistant", "tool_calls": [BAD_CALL]}]}, "must be a JSON object"),
    ],
)  # fmt: skip
def test_what_cannot_be(server: Server, fields: dict[str, Any], says: str) -> None:
    answer = server.ask("/v1/chat/completions", {"messages": HELLO, "max_tokens": 1} | fields)
    assert answer.status == 400
    assert says in answer.json["error"]["message"]


def test_ollama(serving: Server) -> None:
    asked = {"messages": HELLO, "tools": [WEATHER], "stream": False, "options": {"num_predict": 20, "seed": 1}}
    answer = serving.ask("/api/chat", asked)
    assert answer.status == 200
    assert answer.json["message"]["role"] == "assistant"


def test_the_official_client(server: Server) -> None:
    tools: Any = [WEATHER]
    messages: Any = HELLO
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        asked: Any = {
            "model": "tiny",
            "messages": messages,
            "tools": tools,
            "tool_choice": "required",
            "max_tokens": 300,
        }
        done = client.chat.completions.create(**asked, parallel_tool_calls=False)
        assert done.choices[0].message.tool_calls[0].function.name == "weather"
        with client.chat.completions.stream(**asked, parallel_tool_calls=False) as stream:
            final = stream.get_final_completion()
        assert json.loads(final.choices[0].message.tool_calls[0].function.arguments)["city"] in ("Rome", "Oslo")


def test_without_the_extra_tools_that_need_none_still_work(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ternrun.grammar.compiler.find_spec", lambda _: None)
    with running(ServerConfig(port=0), lambda: load(path, threads=1)) as server:
        answer = server.ask("/v1/chat/completions", {"messages": HELLO, "tools": [CLOCK], "tool_choice": "required"})
    assert answer.status == 400
    assert "ternrun[grammar]" in answer.json["error"]["message"]
