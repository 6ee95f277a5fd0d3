"""POST /v1/completions against the same questions put to the Python API."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.server.serving import Server


def joined(answer: Any, index: int = 0) -> str:
    return "".join(c["text"] for event in answer for c in event["choices"] if c["index"] == index)


def test_text_is_what_the_python_api_makes(server: Server) -> None:
    done = server.complete("hello", max_tokens=24)
    same = server.model.complete("hello", max_tokens=24)
    (choice,) = done["choices"]
    assert choice == {"index": 0, "text": same.text, "logprobs": None, "finish_reason": same.finish_reason}
    assert (done["object"], done["model"]) == ("text_completion", "tiny")
    assert done["usage"]["prompt_tokens"] == 5
    assert done["usage"]["completion_tokens"] == len(same.ids)


def test_streamed_equals_unstreamed(server: Server) -> None:
    fields = {"prompt": "once", "max_tokens": 40, "temperature": 0.9, "seed": 7, "logprobs": 2, "echo": True}
    whole = server.ask("/v1/completions", fields).json["choices"][0]
    answer = server.ask("/v1/completions", fields | {"stream": True})
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    choices = [event["choices"][0] for event in answer.events]
    assert joined(answer.events) == whole["text"]
    for name in whole["logprobs"]:
        assert [x for c in choices for x in c["logprobs"][name]] == whole["logprobs"][name]
    assert [c["finish_reason"] for c in choices] == [None] * (len(choices) - 1) + [whole["finish_reason"]]


def test_usage_comes_last_where_it_is_asked_for(server: Server) -> None:
    fields = {"prompt": "once", "max_tokens": 6, "stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = server.ask("/v1/completions", fields).events
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 4 + last["usage"]["completion_tokens"]
    assert all("usage" not in e for e in server.ask("/v1/completions", fields | {"stream_options": None}).events)


def test_every_form_of_prompt(server: Server) -> None:
    ids = server.model.tokenizer.encode("hello")
    one = server.complete("hello")["choices"][0]["text"]
    assert server.complete(ids)["choices"][0]["text"] == one
    for prompts in (["hello", "once"], [ids, server.model.tokenizer.encode("once")], ["hello", ids]):
        choices = server.complete(prompts)["choices"]
        assert [c["index"] for c in choices] == [0, 1]
        assert choices[0]["text"] == one


@pytest.mark.parametrize("extra", [0, 1])
def test_echo_scores_a_text(server: Server, extra: int) -> None:
    """As lm-eval's local-completions asks: the prompt's log-probabilities, the first of them null."""
    text = "the quick brown fox"
    done = server.complete(text, max_tokens=extra, echo=True, logprobs=1)
    told = done["choices"][0]["logprobs"]
    ids = server.model.tokenizer.encode(text)
    expected = [entry.logprob for entry in server.model.score(ids)]
    assert len(told["tokens"]) == len(ids) + extra
    assert told["token_logprobs"][0] is None
    assert told["top_logprobs"][0] is None
    assert told["token_logprobs"][1 : len(ids)] == pytest.approx(expected, abs=1e-9)
    assert told["tokens"][: len(ids)] == list(text)
    assert told["text_offset"] == list(range(len(ids) + extra))
    for token, value, top in list(zip(told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True))[1:]:
        assert top[token] == value <= max(top.values())
    assert done["choices"][0]["text"].startswith(text)


def test_the_end_token_has_its_log_probability(server: Server) -> None:
    """Else a score with max_tokens 1 would lose the text's last token where the model ends there."""
    eos = min(server.model.tokenizer.eos_ids)
    done = server.complete("fox", max_tokens=1, echo=True, logprobs=0, logit_bias={eos: 100})
    (choice,) = done["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("fox", "stop")
    assert choice["logprobs"]["tokens"] == ["f", "o", "x", "<|eos|>"]
    assert choice["logprobs"]["token_logprobs"][3] < 0
    assert done["usage"]["completion_tokens"] == 0


def test_stop_strings_end_the_text_and_its_tokens(server: Server) -> None:
    whole = server.complete("abc", max_tokens=30, logprobs=0)["choices"][0]
    stop = whole["text"][4:6]
    at = whole["text"].index(stop)
    cut = server.complete("abc", max_tokens=30, logprobs=0, stop=["never", stop])["choices"][0]
    assert cut["text"] == whole["text"][:at]
    assert cut["finish_reason"] == "stop"
    assert all(offset < at for offset in cut["logprobs"]["text_offset"])
    assert cut["logprobs"]["tokens"] == whole["logprobs"]["tokens"][: len(cut["logprobs"]["tokens"])]
    streamed = server.ask(
        "/v1/completions",
        {"prompt": "abc", "temperature": 0, "max_tokens": 30, "logprobs": 0, "stop": stop, "stream": True},
    ).events
    assert joined(streamed) == cut["text"]
    assert [t for e in streamed for t in e["choices"][0]["logprobs"]["tokens"]] == cut["logprobs"]["tokens"]


def test_n_choices_differ_and_are_the_same_every_time(server: Server) -> None:
    fields = {"temperature": 1.0, "n": 3, "seed": 11, "max_tokens": 12}
    first, again = server.complete("x", **fields), server.complete("x", **fields)
    texts = [c["text"] for c in first["choices"]]
    assert texts == [c["text"] for c in again["choices"]]
    assert len(set(texts)) == 3
    assert first["usage"]["prompt_tokens"] == 1
    assert server.complete("x", **fields | {"n": 1})["choices"][0]["text"] == texts[0]
    streamed = server.ask("/v1/completions", {"prompt": "x", **fields, "stream": True}).events
    assert [joined(streamed, i) for i in range(3)] == texts


def test_sampling_fields_reach_the_sampler(server: Server) -> None:
    plain = server.complete("q", max_tokens=12)["choices"][0]["text"]
    top1 = server.complete("q", max_tokens=12, temperature=2, top_k=1, seed=1)["choices"][0]["text"]
    assert top1 == server.complete("q", max_tokens=12, temperature=2, min_p=1, seed=2)["choices"][0]["text"] == plain
    biased = server.complete("q", max_tokens=4, logit_bias={"65": 100})["choices"][0]["text"]
    assert biased == "AAAA"
    fields = {"logit_bias": {"65": 100}, "frequency_penalty": 2, "max_tokens": 4, "ignore_eos": True}
    assert server.complete("q", **fields)["choices"][0]["text"] == "AAAA"
    penalized = server.complete("q", max_tokens=30, repeat_penalty=100)["choices"][0]["text"]
    assert penalized != plain
    assert server.complete("q", max_tokens=30, repetition_penalty=100)["choices"][0]["text"] == penalized  # vLLM's name


def test_a_second_request_finds_the_first_in_the_cache(server: Server) -> None:
    prompt = "a prompt of many blocks " * 12
    first, second = server.complete(prompt, max_tokens=8), server.complete(prompt, max_tokens=8)
    assert first["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] > 200
    assert first["choices"] == second["choices"]


def test_a_hole_cannot_be_filled_by_a_model_without_the_tokens(server: Server) -> None:
    answer = server.ask("/v1/completions", {"prompt": "a", "suffix": "b"})
    assert answer.status == 400
    assert answer.json["error"]["param"] == "suffix"
    assert "filling in the middle" in answer.json["error"]["message"]


def test_parts_of_characters_are_told_apart(server: Server) -> None:
    told = server.complete("é", max_tokens=0, echo=True, logprobs=3)["choices"][0]
    assert told["text"] == "é"
    assert told["logprobs"]["tokens"] == ["bytes:\\xc3", "bytes:\\xa9"]
    assert told["logprobs"]["text_offset"] == [0, 0]
    assert all(math.isfinite(v) for v in told["logprobs"]["top_logprobs"][1].values())


def test_the_best_of_many(server: Server) -> None:
    """By mean log-probability, out of the very choices that n would give."""
    asked = {"prompt": ["a", "b"], "temperature": 1.5, "seed": 3, "max_tokens": 6, "logprobs": 0}
    every = server.ask("/v1/completions", asked | {"n": 8}).json["choices"]
    best = server.ask("/v1/completions", asked | {"n": 2, "best_of": 8}).json
    expected = []
    for choices in (every[:8], every[8:]):
        means = [np.mean(choice["logprobs"]["token_logprobs"]) for choice in choices]
        expected += [choices[i]["text"] for i in np.argsort(means)[::-1][:2]]
    assert [choice["text"] for choice in best["choices"]] == expected
    assert [choice["index"] for choice in best["choices"]] == [0, 1, 2, 3]
    assert best["usage"]["completion_tokens"] > 2 * 2 * 6
    plain = server.ask("/v1/completions", {k: v for k, v in asked.items() if k != "logprobs"} | {"n": 1, "best_of": 8})
    assert [c["text"] for c in plain.json["choices"]] == [expected[0], expected[2]]
    assert plain.json["choices"][0]["logprobs"] is None
