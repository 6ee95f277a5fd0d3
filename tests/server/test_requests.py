"""Requests that cannot be: each is one sentence in OpenAI's shape, and the server goes on."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ternrun.server.fields import ignored, unsupported
from ternrun.server.fields import reading as fields
from ternrun.server.fields.reading import FieldTable, integer
from ternrun.server.fields.sampling import CHAT, COMPLETION
from ternrun.server.http.errors import ApiError
from ternrun.server.http.stream import MANY, in_one_piece
from tests.server.hostile import VALID
from tests.server.serving import Server

BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"response_format": {"type": "xml"}}, "response_format.type", "json_schema"),
    ({"best_of": 1, "n": 2}, "best_of", "not be less than n"),
    ({"best_of": 2, "stream": True}, "best_of", "cannot be streamed"),
    ({"best_of": 100, "prompt": ["a", "b"]}, "best_of", "2 prompts times 100"),
    ({"echo": True, "suffix": "x"}, "echo", "cannot be combined"),
    ({"mirostat": 3}, "mirostat", "from 0 to 2"),
    ({"min_tokens": 5}, "min_tokens", "not be more than max_tokens"),
    ({"use_beam_search": True}, "use_beam_search", "does not support it"),
    ({"logits_processors": ["a"]}, "logits_processors", "does not support it"),
    ({"repetition_penalty": 0}, "repetition_penalty", "number from 0.01 to 100"),
    ({"max_tokens": -2}, "max_tokens", "whole number from -1"),
    ({"max_tokens": 1.5}, "max_tokens", "whole number"),
    ({"max_tokens": True}, "max_tokens", "whole number"),
    ({"max_tokens": 10**400}, "max_tokens", "whole number"),
    ({"temperature": -1}, "temperature", "number from 0 to 100"),
    ({"temperature": "hot"}, "temperature", "number from 0 to 100"),
    ({"temperature": 10**400}, "temperature", "number from 0 to 100"),
    ({"top_p": 2}, "top_p", "number from 0 to 1"),
    ({"presence_penalty": 3}, "presence_penalty", "from -2 to 2"),
    ({"logprobs": 101}, "logprobs", "from 0 to 100"),
    ({"logprobs": 100, "n": 128, "max_tokens": 400}, "logprobs", "may come to 5171200 numbers"),
    ({"n": 0}, "n", "from 1 to 128"),
    ({"seed": -2}, "seed", "whole number"),
    ({"stop": ["a"] * 65}, "stop", "at most 64"),
    ({"stop": "x" * 1025}, "stop", "at most 1024 characters"),
    ({"stop": [3]}, "stop", "a list of at most 64 strings"),
    ({"logit_bias": {"a": 1}}, "logit_bias", "map token ids"),
    ({"logit_bias": {"5": 101}}, "logit_bias", "from -100 to 100"),
    ({"logit_bias": [[1, True]]}, "logit_bias", "map token ids"),
    ({"stream": "yes"}, "stream", "true or false"),
    ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage", "true or false"),
    ({"stream_options": [1]}, "stream_options", "must be a JSON object"),
    ({"stop_token_ids": list(range(1025))}, "stop_token_ids", "at most 1024"),
    ({"prompt": []}, "prompt", "not empty"),
    ({"prompt": [[]]}, "prompt", "not empty"),
    ({"prompt": ["a"] * 129}, "prompt", "at most 128"),
    ({"prompt": {"a": 1}}, "prompt", "must be a string"),
    ({"prompt": [1, "a"]}, "prompt", "must be a string"),
    ({"prompt": None}, "prompt", "it is missing"),
    ({"prompt": "a" * 600}, "prompt", "the context holds 512"),
    ({"prompt": "a" * 1_000_000}, "prompt", "the prompt has 1000000 characters"),
]


def test_a_large_answer_is_the_same_as_a_small_one(server: Server) -> None:
    asked = {"prompt": "a", "max_tokens": 30, "n": 3, "seed": 1, "ignore_eos": True}
    for path, large, small in (
        ("/v1/completions", {"logprobs": 100}, {"logprobs": 1}),
        ("/completion", {"n_probs": 100, "n_cmpl": 3}, {"n_probs": 1, "n_cmpl": 3}),
    ):
        fields = asked if path == "/v1/completions" else {"prompt": "a", "n_predict": 30, "seed": 1, "ignore_eos": True}
        one, other = server.ask(path, fields | large), server.ask(path, fields | small)
        assert b", " not in one.body[:200]  # it was written the other way
        assert b", " in other.body[:200]
        texts = [[c.get("text", c.get("content")) for c in listed(a.json)] for a in (one, other)]
        assert texts[0] == texts[1]


def listed(answer: Any) -> Any:
    return answer["choices"] if isinstance(answer, dict) else answer


def test_a_large_answer_leaves_the_event_loop_its_turns() -> None:
    async def main() -> tuple[list[float], float]:
        began = time.perf_counter()
        writing = asyncio.create_task(in_one_piece(lambda: [i / 7 for i in range(600_000)], MANY))
        gaps = []
        while not writing.done():
            before = time.perf_counter()
            await asyncio.sleep(0)
            gaps.append(time.perf_counter() - before)
        assert len(json.loads((await writing).text or "")) == 600_000
        return gaps, time.perf_counter() - began

    gaps, took = asyncio.run(main())
    assert sorted(gaps)[-3] < took / 5  # the longest two may be the machine's own


@pytest.mark.parametrize(("fields", "param", "says"), BAD)
def test_a_field_at_fault_is_named(server: Server, fields: dict[str, Any], param: str, says: str) -> None:
    answer = server.ask("/v1/completions", {"prompt": "a", "max_tokens": 1} | fields)
    error = answer.json["error"]
    long = error["code"] == "context_length_exceeded"  # llama.cpp's clients know that type
    kind = "exceed_context_size_error" if long else "invalid_request_error"
    assert (answer.status, error["param"], error["type"]) == (400, param, kind)
    assert says in error["message"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prompt": [320]}, "320 is not a token id"),
        ({"prompt": [-1]}, "-1 is not a token id"),
        ({"prompt": [10**30]}, "is not a token id"),
        ({"prompt": [[1], [999]], "echo": True}, "999"),
        ({"prompt": ""}, "the prompt is empty"),
        ({"logit_bias": {"999": 1}}, "999 is not a token id"),
        ({"stop_token_ids": [-5]}, "-5 is not a token id"),
        ({"n": 128, "prompt": ["a", "b"]}, "more than the 128"),
    ],
)
def test_what_the_model_cannot_do(server: Server, fields: dict[str, Any], says: str) -> None:
    answer = server.ask("/v1/completions", {"prompt": "a", "max_tokens": 1} | fields)
    assert answer.status == 400
    assert says in answer.json["error"]["message"]
    streamed = server.ask("/v1/completions", {"prompt": "a", "max_tokens": 1, "stream": True} | fields)
    assert (streamed.status, streamed.json) == (answer.status, answer.json)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\xfa", "not JSON"),
        (b'{"prompt": NaN}', "NaN is not a JSON number"),
        (b'{"prompt": "a", "temperature": Infinity}', "not a JSON number"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1, 2]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
    ],
)
def test_bodies_that_are_no_request(server: Server, body: bytes, says: str) -> None:
    for path in ("/v1/completions", "/v1/chat/completions", "/completion", "/tokenize"):
        answer = server.ask(path, body)
        assert answer.status == 400
        assert says in answer.json["error"]["message"]


def test_half_characters_in_json_are_text(server: Server) -> None:
    done = server.ask("/v1/completions", b'{"prompt": "a\\ud800b", "max_tokens": 2, "echo": true}')
    assert done.status == 200
    assert done.json["choices"][0]["text"].startswith("a")


def test_a_body_that_is_too_large_is_refused(server: Server) -> None:
    answer = server.ask("/v1/completions", json.dumps({"prompt": "a" * (9 << 20)}).encode())
    assert answer.status == 413
    assert "larger than this server allows" in answer.json["error"]["message"]


def test_a_body_that_is_shorter_than_it_says_harms_nobody(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n{"prompt"')
    assert server.complete("still here", max_tokens=1)["choices"]


def test_routes_that_are_not_there(server: Server) -> None:
    assert server.ask("/v1/nothing").status == 404
    answer = server.ask("/v1/completions")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert answer.json["error"]["message"] == "this route takes POST only"


@pytest.mark.parametrize("table", [COMPLETION, CHAT])
def test_fields_are_in_one_table_each(table: FieldTable) -> None:
    assert not table.read.keys() & table.hints.keys()
    assert not table.read.keys() & table.constraints.keys()
    assert not table.hints.keys() & table.constraints.keys()


def test_fields_without_effect_are_accepted(server: Server) -> None:
    plain = server.complete("a")["choices"]
    same = server.complete("a", user="u", metadata={"k": "v"}, store=True, best_of=1, suffix="", top_k=-1, stop=None)
    assert same["choices"] == plain


def test_what_other_servers_have_may_be_sent_where_it_is_off(server: Server) -> None:
    listed = {**unsupported.OPENAI_HINTS, **unsupported.OPENAI_CONSTRAINTS}
    off = {name: values[0] for name, values in listed.items() if values and values is not unsupported.HARMLESS}
    talk = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1}
    assert server.complete("a", **off, add_special_tokens=True)["choices"] == server.complete("a")["choices"]
    assert server.ask("/v1/chat/completions", talk | off | {"add_special_tokens": False, "echo": False}).status == 200
    answer = server.ask("/v1/chat/completions", talk | {"echo": True})
    assert answer.json["error"]["param"] == "echo"


def test_a_long_name_is_compared_with_no_more_than_names_have(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    monkeypatch.setattr(ignored, "get_close_matches", lambda name, *_: compared.append(len(name)) or [])
    COMPLETION.parse({"a" * 1_000_000: 1})
    assert compared == [100]


def test_a_list_that_is_too_long_is_not_looked_through() -> None:
    class Listed(list[int]):
        def __iter__(self) -> Iterator[int]:
            raise AssertionError("looked through")

    with pytest.raises(ApiError, match="stop_token_ids: must be a list of at most 1024 token ids"):
        COMPLETION.parse({"stop_token_ids": Listed([1] * 1025)})


def test_unknown_fields_are_let_pass_but_not_unsupported_ones() -> None:
    table = FieldTable(read={"n": (integer(1, 2), 1)}, constraints={"tools": ([],)})
    assert table.parse({"frob": 1, "tools": []}) == {"n": 1}
    with pytest.raises(ApiError, match="tools: this server does not support it"):
        table.parse({"tools": [1]})
    with pytest.raises(ApiError, match="tools: this server"):
        table.parse({"tools": False})


def test_random_bodies_never_break_it(server: Server) -> None:
    """Fields with values that other fields would hold, and worse: an answer or a refusal, never a fault of ours."""
    rng = random.Random(0)
    values = [None, True, -1, 0, 1, 2**63, 1e308, "", "a", "\x00", [], [[]], {}, {"a": []}, [1], ["a"], [[1, 2]]]
    for route, table in (("/v1/completions", COMPLETION), ("/v1/chat/completions", CHAT)):
        good: dict[str, Any] = (
            {"prompt": "a"} if table is COMPLETION else {"messages": [{"role": "user", "content": "a"}]}
        )
        for _ in range(150):
            names = rng.sample([*table.read, *table.constraints, "frob"], rng.randint(1, 3))
            body = good | {name: rng.choice(values) for name in names} | {"max_tokens": 1}
            answer = server.ask(route, body)
            assert answer.status in (200, 400), (body, answer.body)


def test_long_texts_are_not_tokenized(server: Server) -> None:
    for route, body in (("/tokenize", {"content": "a" * 262_145}), ("/detokenize", {"tokens": [1] * 262_145})):
        answer = server.ask(route, body)
        assert answer.status == 400
        assert "at most 262144" in answer.json["error"]["message"]


def test_requests_leave_no_readers_behind(server: Server) -> None:
    """Each would be kept for good, and with it a kilobyte."""
    before = len(fields._SCHEMAS)
    for path, body in VALID.items():
        assert server.ask(path, body).status in (200, 400)
    assert len(fields._SCHEMAS) == before
