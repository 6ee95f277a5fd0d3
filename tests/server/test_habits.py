"""What clients of other servers send by default is answered; what has no effect is named; what cannot be is refused."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ternrun.api import load
from ternrun.server.settings import ServerConfig
from tests.server.serving import Answer, Server, running

HELLO = [{"role": "user", "content": "Hi"}]
CHAT: dict[str, Any] = {"messages": HELLO, "max_tokens": 4}
TEXT: dict[str, Any] = {"prompt": "Hello", "max_tokens": 4}
INPUT: dict[str, Any] = {"input": "Hi", "max_output_tokens": 4}
MESSAGE: dict[str, Any] = {"messages": HELLO, "max_tokens": 4}
LLAMA: dict[str, Any] = {"prompt": "Hello", "n_predict": 4}
NAME = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 4}}, "required": ["name"]}
NOW = {"type": "function", "function": {"name": "now"}}
FLAT = {"type": "function", "name": "now"}
C, T, R, A = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"


def told(role: str, **more: Any) -> dict[str, Any]:
    return {"messages": [*HELLO, {"role": role, "content": "a"} | more, *HELLO]}


HINTS: list[tuple[str, dict[str, Any], str]] = [  # path, body, what the header names
    (C, CHAT | {"reasoning_effort": "low"}, "reasoning_effort"),
    (C, CHAT | {"reasoning_effort": "low", "metadata": {"a": "b"}}, "reasoning_effort, metadata"),
    (C, CHAT | {"verbosity": "low"}, "verbosity"),
    (C, CHAT | {"verbosity": "medium", "modalities": ["text"]}, ""),
    (C, CHAT | {"store": False, "user": "u", "service_tier": "auto"}, "store, user, service_tier"),
    (C, CHAT | {"prompt_cache_key": "k", "safety_identifier": "s"}, "prompt_cache_key, safety_identifier"),
    (C, CHAT | {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}, ""),
    (C, CHAT | {"stream_options": {"include_obfuscation": False}}, "stream_options.include_obfuscation"),
    (C, CHAT | {"stream_options": {"include_usage": True, "frob": 1}}, "stream_options.frob"),
    (C, CHAT | {"max_token": 4}, "max_token (did you mean max_tokens?)"),
    (C, CHAT | {"temprature": 0.1}, "temprature (did you mean temperature?)"),
    (C, CHAT | {"field_of_2027": {"a": 1}}, "field_of_2027"),
    (C, CHAT | {"a\r\nSet-Cookie: b": 1}, "a??Set-Cookie??b"),
    (C, CHAT | told("user", type="text"), "messages[].type"),
    (C, CHAT | told("assistant", refusal=None, annotations=[], audio=None, tool_calls=None), "messages[].annotations"),
    (C, CHAT | told("assistant", reasoning="hm", reasoning_content="hm"), "messages[].reasoning"),
    (C, CHAT | told("developer", name="boss"), ""),
    (
        C,
        CHAT | told("user", content=[{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]),
        "messages[].content[].cache_control",
    ),
    (C, CHAT | told("user", content=["a", {"type": "text", "text": "b"}]), ""),
    (C, CHAT | {"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[].custom"),
    (C, CHAT | {"logprobs": True}, ""),
    (C, CHAT | {"chat_template_kwargs": {"enable_thinking": False}, "reasoning_format": "none"}, ""),
    (C, CHAT | {"web_search_options": {"search_context_size": "low"}}, "web_search_options"),
    (C, CHAT | {"cache_prompt": True, "timings_per_token": True}, "cache_prompt, timings_per_token"),
    (C, CHAT | {"skip_special_tokens": False, "spaces_between_special_tokens": True}, ""),
    (C, CHAT | {"length_penalty": 2.0, "priority": 3}, "length_penalty, priority"),
    (T, TEXT | {"use_beam_search": False, "early_stopping": False, "add_special_tokens": False}, ""),
    (T, TEXT | {"guided_decoding_backend": "xgrammar", "request_id": "a"}, "guided_decoding_backend, request_id"),
    (R, INPUT | {"reasoning": {"effort": "medium", "summary": "auto"}}, "reasoning"),
    (R, INPUT | {"include": ["reasoning.encrypted_content"], "truncation": "auto"}, "include, truncation"),
    (R, INPUT | {"client_metadata": {"a": "b"}}, "client_metadata"),
    (
        R,
        INPUT | {"tools": [{"type": "web_search"}, {"type": "local_shell"}]},
        "tools[].web_search, tools[].local_shell",
    ),
    (R, INPUT | {"text": {"format": {"type": "text"}, "verbosity": "high"}}, "text.verbosity"),
    (R, INPUT | {"text": {"verbosity": "medium"}, "store": False}, "store"),
    (R, INPUT | {"input": [{"type": "reasoning", "summary": []}, *HELLO]}, "input[].reasoning"),
    (R, INPUT | {"input": [*HELLO, {"type": "web_search_call", "id": "ws_1"}, *HELLO]}, "input[].web_search_call"),
    (
        R,
        INPUT
        | {
            "input": [
                *HELLO,
                {"type": "local_shell_call", "call_id": "c"},
                {"type": "local_shell_call_output", "call_id": "c", "output": "ok"},
            ]
        },
        "input[].local_shell_call",
    ),
    (
        R,
        INPUT
        | {
            "input": [
                *HELLO,
                {"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": "x"},
                {"type": "custom_tool_call_output", "call_id": "c", "output": "done"},
            ]
        },
        "",
    ),
    (R, INPUT | {"input": [{"type": "message", "id": "a", "phase": "b", **HELLO[0]}]}, "input[].phase"),
    (A, MESSAGE | {"max_tokens": 40, "thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
    (A, MESSAGE | {"thinking": {"type": "disabled"}, "system": [{"type": "text", "text": "Be short."}]}, ""),
    (A, MESSAGE | {"system": [{"type": "text", "text": "a", "cache_control": {}}]}, "system[].cache_control"),
    (A, MESSAGE | told("system"), ""),
    (A, MESSAGE | {"context_management": {"edits": []}, "container": "c"}, "context_management, container"),
    (A, MESSAGE | {"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[].bash_20250124"),
    ("/completion", LLAMA | {"samplers": ["top_k", "top_p", "temperature"]}, ""),
    ("/completion", LLAMA | {"samplers": "kpt", "mirostat": 2, "min_keep": 2, "dynatemp_range": 0.5}, ""),
    ("/completion", LLAMA | {"xtc_probability": 0.5, "dry_multiplier": 0.8, "top_n_sigma": 1.0, "seed": 3}, ""),
    ("/completion", LLAMA | {"speculative.n_max": 4, "model": "x"}, "speculative.n_max"),
    ("/api/chat", {"messages": HELLO, "stream": False, "think": True, "keep_alive": "5m"}, "think, keep_alive"),
    (
        "/api/chat",
        {"messages": HELLO, "stream": False, "options": {"num_predict": 4, "num_ctx": 64}},
        "options.num_ctx",
    ),
    ("/api/generate", {"prompt": "a", "stream": False, "options": {"num_predict": 4, "tfs_z": 0.5}}, "options.tfs_z"),
    ("/generate", {"inputs": "Hello", "parameters": {"max_new_tokens": 4, "watermark": True}}, "parameters.watermark"),
    ("/tokenize", {"messages": HELLO, "add_generation_prompt": True}, ""),
]

CONSTRAINTS: list[tuple[str, dict[str, Any], str]] = [  # path, body, the field that is named
    (C, CHAT | {"modalities": ["text", "audio"]}, "modalities"),
    (C, CHAT | {"audio": {"voice": "alloy"}}, "audio"),
    (C, CHAT | told("user", content=[{"type": "image_url", "image_url": {"url": "x"}}]), "messages[1].content[0].type"),
    (C, CHAT | told("user", content=[{"type": "text", "text": 3}]), "messages[1].content[0].text"),
    (C, CHAT | {"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    (
        C,
        CHAT | {"tools": [NOW, {"type": "function", "function": {"name": "a", "parameters": 3}}]},
        "tools[1].function.parameters",
    ),
    (
        C,
        CHAT | {"tools": [NOW], "tool_choice": {"type": "function", "function": {"name": "x"}}},
        "tool_choice.function.name",
    ),
    (C, CHAT | {"tools": [NOW], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
    (
        C,
        CHAT | {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": 5}}}},
        "response_format.json_schema.schema",
    ),
    (C, CHAT | {"seed": 10**20}, "seed"),
    (C, CHAT | {"n": 129}, "n"),
    (C, CHAT | {"logit_bias": {"999": 1}}, "logit_bias"),
    (C, CHAT | {"logits_processors": ["x"]}, "logits_processors"),
    (C, CHAT | {"bad_words": ["several"]}, "bad_words[0]"),
    (T, TEXT | {"use_beam_search": True}, "use_beam_search"),
    (T, TEXT | {"allowed_token_ids": [999]}, "allowed_token_ids"),
    (T, TEXT | {"min_tokens": 5}, "min_tokens"),
    (T, TEXT | {"stream": True, "prompt_logprobs": 1}, "prompt_logprobs"),
    (T, TEXT | {"prompt_logprobs": -1}, "prompt_logprobs"),
    (T, TEXT | {"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
    (T, TEXT | {"structured_outputs": {"regex": 3}}, "structured_outputs.regex"),
    (R, INPUT | {"previous_response_id": "resp_1"}, "previous_response_id"),
    (R, INPUT | {"background": True}, "background"),
    (R, INPUT | {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
    (A, MESSAGE | {"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0].type"),
    (A, MESSAGE | {"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
    ("/completion", LLAMA | {"samplers": ["top_k", "guess"]}, "samplers[1]"),
    ("/completion", LLAMA | {"lora": [{"id": 0}]}, "lora"),
    ("/tokenize", {"messages": HELLO, "chat_template": "{{ 1 }}"}, "chat_template"),
]


def ids(cases: list[Any]) -> list[str]:
    return [f"{path} {what or i}" for i, (path, _, what) in enumerate(cases)]


@pytest.fixture(scope="module")
def strict(path: Path) -> Iterator[Server]:
    with running(ServerConfig(port=0, strict=True), lambda: load(path, threads=1)) as it:
        yield it


def named(answer: Answer) -> str:
    return answer.headers.get("X-Ternrun-Ignored", "")


@pytest.mark.parametrize(("route", "body", "names"), HINTS, ids=ids(HINTS))
def test_hints_are_accepted_and_named(server: Server, route: str, body: dict[str, Any], names: str) -> None:
    answer = server.ask(route, body)
    assert answer.status == 200, answer.body
    assert named(answer) == names


@pytest.mark.parametrize(("route", "body", "field"), CONSTRAINTS, ids=ids(CONSTRAINTS))
def test_constraints_are_refused_by_name(
    server: Server, route: str, body: dict[str, Any], field: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "ternrun.access"):
        answer = server.ask(route, body)
        error = answer.json["error"]
        assert (answer.status, error["param"]) == (400, field)
        (line,) = lines(caplog, server, lambda entry: "status" in entry)
    assert line == line | {"method": "POST", "path": route, "status": 400, "error": error["message"][:300]}
    assert line["request_id"] == answer.headers["X-Request-Id"]


def lines(caplog: pytest.LogCaptureFixture, server: Server, wanted: Any) -> list[Any]:
    """What the log has by now; a later request is answered behind the line of an earlier one."""
    server.ask("/health")
    return [entry for record in caplog.records if wanted(entry := json.loads(record.getMessage()))]


def test_a_field_without_effect_is_logged_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "ternrun.access"),
        running(ServerConfig(port=0), lambda: load(path, threads=1)) as one,
    ):
        for _ in range(3):
            assert named(one.ask(C, CHAT | {"reasoning_effort": "low", "max_token": 2})) != ""
        streamed = one.ask(C, CHAT | {"reasoning_effort": "low", "stream": True})
        found = lines(caplog, one, lambda entry: "ignored" in entry)
    assert named(streamed) == "reasoning_effort"
    assert [(entry["ignored"], entry.get("did_you_mean")) for entry in found] == [
        ("reasoning_effort", None), ("max_token", "max_tokens"),
    ]  # fmt: skip


def test_many_unknown_fields_cost_little(server: Server) -> None:
    answer = server.ask(T, TEXT | {f"no_field_{i}": 1 for i in range(20_000)})
    assert answer.status == 200
    assert named(answer).count(",") == 31


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"frob": 1}, "frob", "unknown field 'frob'"),
        ({"max_token": 1}, "max_token", "did you mean 'max_tokens'?"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "does not support it"),
        ({"messages": [{"role": "user", "type": "text", "content": "a"}]}, "messages[0].type", "unknown field"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].web_search", "does not support it"),
    ],
)
def test_strict_refuses_what_has_no_effect(strict: Server, fields: dict[str, Any], field: str, says: str) -> None:
    answer = strict.ask(C, CHAT | fields)
    assert (answer.status, answer.json["error"]["param"]) == (400, field)
    assert says in answer.json["error"]["message"]


def test_strict_accepts_what_changes_no_answer_anywhere(strict: Server) -> None:
    answer = strict.ask(C, CHAT | {"user": "u", "metadata": {}, "verbosity": "medium", "store": True})
    assert (answer.status, named(answer)) == (200, "user, metadata, store")


@pytest.mark.parametrize(("given", "same"), [("abc-1", True), ("a b", False), ("x" * 129, False), ("", False)])
def test_a_request_has_an_id(server: Server, given: str, same: bool) -> None:
    got = server.ask("/v1/models", X_Request_Id=given).headers["X-Request-Id"]
    assert (got == given) == same
    assert re.fullmatch(r"[a-z0-9-]{5,32}", got)


def test_an_error_in_the_log_holds_no_prompt(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ternrun.access"):
        assert (
            server.ask(T, {"prompt": "a secret" * 500, "max_tokens": 1}, Authorization="Bearer swordfish").status == 400
        )
        (line,) = lines(caplog, server, lambda entry: "status" in entry)
    assert "the context holds 512" in line["error"]
    assert "secret" not in json.dumps(line)
    assert "swordfish" not in json.dumps(line)


def test_forms_of_an_answer(server: Server) -> None:
    forms = [{"type": "json_object", name: NAME} for name in ("value", "schema")]
    forms += [{"type": "json", "value": NAME}, {"type": "json_schema", "json_schema": {"name": "a", "schema": NAME}}]
    for form in forms:
        answer = server.ask(C, {"messages": HELLO, "max_tokens": 200, "response_format": form, "seed": 1})
        assert list(json.loads(answer.json["choices"][0]["message"]["content"])) == ["name"]
    answer = server.ask(C, CHAT | {"response_format": {"type": "regex", "value": "yes|no"}})
    assert answer.json["choices"][0]["message"]["content"] in ("yes", "no")


@pytest.mark.parametrize("tool", [NOW, FLAT, {"function": {"name": "now"}}])
@pytest.mark.parametrize("choice", ["required", {"type": "allowed_tools", "mode": "required", "tools": [FLAT]}])
def test_a_tool_without_parameters(server: Server, tool: dict[str, Any], choice: Any) -> None:
    asked = {"messages": HELLO, "max_tokens": 200, "tools": [tool], "tool_choice": choice, "seed": 1}
    (call,) = server.ask(C, asked | {"parallel_tool_calls": False}).json["choices"][0]["message"]["tool_calls"]
    assert call["function"] == {"name": "now", "arguments": "{}"}


def test_what_vllm_tells(server: Server) -> None:
    asked = TEXT | {"temperature": 0, "ignore_eos": True}
    scored = server.ask(T, asked | {"echo": True, "logprobs": 2}).json["choices"][0]["logprobs"]
    (choice,) = server.ask(T, asked | {"prompt_logprobs": 2, "return_token_ids": True}).json["choices"]
    assert choice["prompt_token_ids"] == server.ask("/tokenize", {"prompt": "Hello"}).json["tokens"]
    assert len(choice["token_ids"]) == 4
    assert choice["prompt_logprobs"][0] is None
    for i, entry in enumerate(choice["prompt_logprobs"][1:], 1):
        assert entry[str(choice["prompt_token_ids"][i])]["logprob"] == scored["token_logprobs"][i]
        assert 2 <= len(entry) <= 3
        assert {one["rank"] for one in entry.values()} >= {1, 2}
    spelled = server.ask(T, asked | {"logprobs": 0, "return_tokens_as_token_ids": True}).json["choices"][0]["logprobs"]
    assert spelled["tokens"] == [f"token_id:{i}" for i in choice["token_ids"]]
    chat = server.ask(C, CHAT | {"prompt_logprobs": 0, "return_token_ids": True, "n": 2}).json
    assert len(chat["prompt_logprobs"]) == len(chat["prompt_token_ids"]) == chat["usage"]["prompt_tokens"]
    assert sum(len(choice["token_ids"]) for choice in chat["choices"]) == chat["usage"]["completion_tokens"]
    streamed = server.ask(T, asked | {"return_token_ids": True, "stream": True}).events
    assert [i for event in streamed for i in event["choices"][0]["token_ids"]] == choice["token_ids"]
    assert streamed[0]["choices"][0]["prompt_token_ids"] == choice["prompt_token_ids"]


def test_what_vllm_rules_out(server: Server) -> None:
    few = server.ask(T, TEXT | {"allowed_token_ids": [65, 66], "return_token_ids": True}).json["choices"][0]
    assert set(few["token_ids"]) <= {65, 66}
    (only,) = server.ask(T, TEXT | {"allowed_token_ids": [65, 66], "logit_bias": {"66": -100}}).json["choices"]
    assert only["text"] == "AAAA"
    ended = server.ask(T, TEXT | {"allowed_token_ids": [65], "stop": ["AA"], "include_stop_str_in_output": True}).json
    assert ended["choices"][0]["text"] == "AA"
    least = server.ask(T, TEXT | {"allowed_token_ids": [65], "stop": ["A"], "min_tokens": 3}).json
    assert least["usage"]["completion_tokens"] >= 3


@pytest.mark.parametrize("route", [T, C])
def test_usage_in_every_event(server: Server, route: str) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = server.ask(route, (TEXT if route == T else CHAT) | {"stream": True, "stream_options": options}).events
    counts = [event["usage"]["completion_tokens"] for event in events]
    assert counts == sorted(counts)
    assert events[-1]["choices"] == []


def test_tokens_of_a_conversation(server: Server) -> None:
    asked = {"messages": HELLO}
    prompt = server.ask("/apply-template", asked).json["prompt"]
    found = server.ask("/tokenize", asked | {"return_token_strs": True}).json
    assert found["count"] == len(found["tokens"]) == server.ask(f"{C}/input_tokens", asked).json["input_tokens"]
    assert "".join(found["token_strs"]) == prompt
    assert found["max_model_len"] == 512


def test_text_generation_inference(server: Server) -> None:
    parameters = {"max_new_tokens": 4, "details": True, "decoder_input_details": True, "top_n_tokens": 2}
    asked = {"inputs": "Hello", "parameters": parameters}
    answer = server.ask("/generate", asked).json
    details = answer["details"]
    assert answer["generated_text"] == server.complete("Hello", max_tokens=4)["choices"][0]["text"]
    assert (details["finish_reason"], details["generated_tokens"], len(details["prefill"])) == ("length", 4, 5)
    assert "".join(token["text"] for token in details["tokens"]) == answer["generated_text"]
    raw = server.ask("/generate_stream", asked).body.decode()
    events = [json.loads(part.removeprefix("data: ")) for part in raw.split("\n\n") if part]
    assert [event["token"] for event in events] == details["tokens"]
    assert events[-1]["generated_text"] == answer["generated_text"]
    assert all(event["details"] is None for event in events[:-1])
    (root,) = server.ask("/", {"inputs": "Hello", "parameters": {"max_new_tokens": 4, "return_full_text": True}}).json
    assert root["generated_text"] == "Hello" + answer["generated_text"]
    assert server.ask("/info").json["max_total_tokens"] == 512
    refused = server.ask("/generate", {"inputs": "a", "parameters": {"best_of": 2}})
    assert (refused.status, refused.json["error_type"]) == (400, "validation")


def test_small_routes(server: Server) -> None:
    assert server.ask("/ping").status == 200
    assert set(server.ask("/version").json) == {"version"}


def test_a_key_protects_all_that_is_posted(path: Path) -> None:
    with running(ServerConfig(port=0, api_keys=("swordfish",)), lambda: load(path, threads=1)) as one:
        assert one.ask("/", {"inputs": "a"}).status == 401
        assert one.ask("/").status == one.ask("/ping").status == 200
        assert one.ask("/generate", {"inputs": "a"}, Authorization="Bearer swordfish").status == 200
