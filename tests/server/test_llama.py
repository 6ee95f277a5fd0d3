"""llama.cpp's routes, as its clients use them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ternrun.api import load
from ternrun.server.settings import ServerConfig
from tests.fakes import fake_gguf, fake_weights
from tests.server.serving import TEMPLATE, Server, running


def complete(server: Server, prompt: Any, **fields: Any) -> Any:
    answer = server.ask("/completion", {"prompt": prompt, "temperature": 0, "n_predict": 8, **fields})
    assert answer.status == 200, answer.body
    return answer.json


def test_completion_tells_how_it_went(server: Server) -> None:
    done = complete(server, "hello", n_probs=2, return_tokens=True)
    same = server.model.complete("hello", max_tokens=8)
    assert done["content"] == same.text
    assert done["tokens"] == same.ids
    assert (done["stop"], done["stop_type"], done["stopping_word"]) == (True, "limit", "")
    assert (done["tokens_predicted"], done["tokens_evaluated"]) == (len(same.ids), 5)
    assert [p["id"] for p in done["completion_probabilities"]] == same.ids
    assert all(len(p["top_logprobs"]) == 2 and p["logprob"] <= 0 for p in done["completion_probabilities"])
    assert done["generation_settings"]["n_predict"] == 8
    assert done["timings"]["predicted_n"] == len(same.ids)


def test_why_it_stopped(server: Server) -> None:
    text = complete(server, "abc")["content"]
    cut = complete(server, "abc", stop=["nothing", text[2:4]])
    assert (cut["stop_type"], cut["stopping_word"]) == ("word", text[2:4])
    eos = min(server.model.tokenizer.eos_ids)
    ended = complete(server, "abc", logit_bias=[[eos, 100]], n_probs=1, return_tokens=True)
    assert (ended["stop_type"], ended["content"], ended["tokens"]) == ("eos", "", [])
    assert ended["completion_probabilities"] == []
    assert eos not in complete(server, "abc", logit_bias=[[eos, False]], return_tokens=True)["tokens"]


def test_a_stream_has_no_done_and_ends_with_the_whole_answer(server: Server) -> None:
    answer = server.ask("/completion", {"prompt": "hello", "temperature": 0, "n_predict": 8, "stream": True})
    events = [json.loads(part.removeprefix("data: ")) for part in answer.body.decode().split("\n\n")[:-1]]
    assert "".join(e["content"] for e in events) == complete(server, "hello")["content"]
    assert [e["stop"] for e in events] == [False] * (len(events) - 1) + [True]
    assert events[-1]["stop_type"] == "limit"


def test_every_form_of_prompt(server: Server) -> None:
    encode = server.model.tokenizer.encode
    plain = complete(server, "hello")["content"]
    told = {"prompt_string": "hello"}
    for prompt in (encode("hello"), ["hello"], told, [told], ["hel", *encode("lo", bos=False)], [encode("hello")]):
        assert complete(server, prompt)["content"] == plain
    many = complete(server, ["hello", encode("once"), ["on", *encode("ce", bos=False)]])
    assert [d["index"] for d in many] == [0, 1, 2]
    assert many[0]["content"] == plain
    assert many[1]["content"] == many[2]["content"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"mirostat": 3}, "mirostat: must be a whole number"),
        ({"grammar": "root ::= 1"}, "grammar: the grammar cannot be used"),
        ({"prompt": []}, "from 1 to 128 prompts"),
        ({"prompt": [None]}, "must be a string, a list"),
        ({"prompt": [True, 1]}, "must be a string, a list"),
        ({"n_predict": -2}, "n_predict: must be a whole number from -1"),
        ({"n_discard": -5}, "n_discard: must be a whole number from 0"),
        ({"post_sampling_probs": 3}, "post_sampling_probs: must be true or false"),
        ({"logit_bias": [["a" * 65, 1]]}, "logit_bias: must map"),
        ({"prompt": {"prompt_string": "a", "multimodal_data": ["b"]}}, "this model reads text only"),
        ({"prompt": {"prompt_string": 3}}, "must be a string, a list"),
        ({"prompt": [1, 10**6]}, "is not a token id of this model"),
        ({"response_fields": "content"}, "response_fields: must be a list"),
        ({"n_cmpl": 100, "prompt": ["a", "b"]}, "n_cmpl: 2 prompts times 100"),
        ({"t_max_predict_ms": -5}, "t_max_predict_ms: must be a whole number"),
    ],
)
def test_what_cannot_be(server: Server, fields: dict[str, Any], says: str) -> None:
    answer = server.ask("/completion", {"prompt": "a", "n_predict": 1} | fields)
    assert answer.status == 400
    assert says in answer.json["error"]["message"]


def test_values_that_turn_a_feature_off_are_accepted(server: Server) -> None:
    off = {"mirostat": 0, "grammar": "", "dry_multiplier": 0, "xtc_probability": 0.0, "n_keep": 0, "seed": -1}
    assert complete(server, "a", **off, cache_prompt=True, id_slot=-1)["stop"]


def test_text_and_tokens(server: Server) -> None:
    ids = server.ask("/tokenize", {"content": "hé<|eos|>"}).json["tokens"]
    assert ids == server.model.tokenizer.encode("hé<|eos|>", bos=False)
    assert len(server.ask("/tokenize", {"content": "hé<|eos|>", "parse_special": False}).json["tokens"]) > len(ids)
    pieces = server.ask("/tokenize", {"content": "hé", "with_pieces": True}).json["tokens"]
    assert [p["piece"] for p in pieces] == ["h", [0xC3], [0xA9]]
    assert server.ask("/detokenize", {"tokens": ids}).json == {"content": "hé<|eos|>", "prompt": "hé<|eos|>"}
    for wrong in ([999], [-1], [10**30], "a", [1.5]):
        assert server.ask("/detokenize", {"tokens": wrong}).status == 400
    assert server.ask("/tokenize", {}).json["error"]["message"] == "content: it is missing"


def test_tokens_by_vllms_names(server: Server) -> None:
    """`lm_eval` asks for these where it is told `tokenizer_backend=remote`."""
    encode = server.model.tokenizer.encode
    told = server.ask("/tokenize", {"prompt": "hello", "add_special_tokens": False}).json
    assert (told["tokens"], told["count"]) == (encode("hello", bos=False), 5)
    assert server.ask("/tokenize", {"prompt": "hello"}).json["tokens"] == encode("hello", bos=True)
    info = server.ask("/tokenizer_info").json
    assert (info["eos_token"], info["chat_template"]) == (server.model.tokenizer.eos_token, TEMPLATE)


def test_it_tells_of_itself(server: Server) -> None:
    props = server.ask("/props").json
    assert props["total_slots"] == 16
    assert props["bos_token"] == "<|bos|>"
    assert "{% for m in messages %}" in props["chat_template"]
    assert props["default_generation_settings"]["n_ctx"] == server.model.context
    slots = server.ask("/slots?fail_on_no_slot=1")
    assert [s["id"] for s in slots.json] == list(range(16))
    (model,) = server.ask("/v1/models").json["data"]
    assert server.ask("/v1/models/tiny").json == model
    assert server.ask("/v1/models/other").status == 404


def test_metrics(server: Server) -> None:
    def figure(name: str) -> float:
        lines = server.ask("/metrics").body.decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))

    names = ["llamacpp:tokens_predicted_total", "ternrun_generated_tokens_total", "ternrun_prompt_tokens_total"]
    before = [figure(name) for name in names]
    done = complete(server, "hello")
    assert [figure(name) for name in names] == [
        before[0] + done["tokens_predicted"], before[1] + done["tokens_predicted"], before[2] + 5,
    ]  # fmt: skip
    assert figure("ternrun_sequences_running") == 0
    server.ask("/made/up/by/a/stranger")
    text = server.ask("/metrics").body.decode()
    assert 'ternrun_requests_total{route="none",status="404"}' in text
    assert "stranger" not in text


def test_some_fields_only(server: Server) -> None:
    whole = complete(server, "a", seed=1)
    some = complete(server, "a", seed=1, response_fields=["content", "generation_settings/n_predict", "frob", "stop/x"])
    assert some == {"content": whole["content"], "generation_settings/n_predict": 8}


def test_the_probabilities_that_were_drawn_from(server: Server) -> None:
    asked = {"n_probs": 3, "post_sampling_probs": True, "temperature": 1, "seed": 1, "min_p": 0}
    for place in complete(server, "a", **asked, top_k=2)["completion_probabilities"]:
        assert sum(one["prob"] for one in place["top_probs"]) == pytest.approx(1)
        assert place["prob"] == next(one["prob"] for one in place["top_probs"] if one["id"] == place["id"])
    for place in complete(server, "a", **asked | {"temperature": 0})["completion_probabilities"]:
        assert [(one["id"], one["prob"]) for one in place["top_probs"]] == [(place["id"], 1)]


def test_biases_by_text(server: Server) -> None:
    ids = [token for token in complete(server, "a", return_tokens=True)["tokens"] if 32 < token < 127]
    texts = [server.model.tokenizer.decode([token]) for token in ids]
    by_id = complete(server, "a", logit_bias=[[token, False] for token in ids], return_tokens=True)["tokens"]
    assert ids
    assert not {*ids} & {*by_id}
    assert complete(server, "a", logit_bias=[[text, False] for text in texts], return_tokens=True)["tokens"] == by_id


def test_what_an_answer_tells_of_itself(server: Server) -> None:
    done = complete(server, server.model.tokenizer.encode("hello"), ignore_eos=True, n_predict=3)
    assert (done["prompt"], done["truncated"], done["has_new_line"]) == ("hello", False, "\n" in done["content"])
    biases = done["generation_settings"]["logit_bias"]
    assert {entry["id"] for entry in biases if entry["bias"] is None} == set(server.model.tokenizer.eos_ids)
    line = server.model.tokenizer.encode("\n", bos=False)[0]
    assert complete(server, "a", logit_bias=[[line, 100]])["has_new_line"]
    room = server.model.context - 3
    full = complete(server, "a" * room, n_predict=-1, ignore_eos=True)
    assert (full["truncated"], full["stop_type"], full["tokens_predicted"]) == (True, "limit", 3)


def test_a_prompt_that_is_too_long(server: Server) -> None:
    answer = server.ask("/completion", {"prompt": "a" * (server.model.context + 1)})
    assert answer.status == 400
    told = answer.json["error"]
    assert (told["type"], told["code"]) == ("exceed_context_size_error", "context_length_exceeded")
    assert (told["n_prompt_tokens"], told["n_ctx"]) == (server.model.context + 1, server.model.context)


def test_several_completions(server: Server) -> None:
    asked = {"temperature": 1, "seed": 5, "n_cmpl": 3}
    many = complete(server, "a", **asked)
    assert [one["index"] for one in many] == [0, 1, 2]
    assert len({one["content"] for one in many}) == 3
    assert many[1]["content"] == complete(server, "a", temperature=1, seed=6)["content"]


def test_a_limit_on_time(server: Server) -> None:
    """It is kept at the end of a line, so a text of one line goes on."""
    lines = {"logit_bias": [[server.model.tokenizer.encode("\n", bos=False)[0], 100]], "ignore_eos": True}
    answer = complete(server, "a", n_predict=400, t_max_predict_ms=1, **lines)
    assert answer["stop_type"] == "limit"
    assert 0 < answer["tokens_predicted"] < 400
    one_line = {"logit_bias": [[server.model.tokenizer.encode("b", bos=False)[0], 100]], "ignore_eos": True}
    assert complete(server, "a", n_predict=50, t_max_predict_ms=1, **one_line)["tokens_predicted"] == 50


@pytest.fixture(scope="module")
def filler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    ids = {f"tokenizer__ggml__fim_{name}_token_id": 300 + i for i, name in enumerate(("pre", "suf", "mid"))}
    path = fake_gguf(tmp_path_factory.mktemp("fim") / "fim.gguf", fake_weights("llama"), **ids)
    with running(ServerConfig(port=0), lambda: load(path, threads=1)) as it:
        yield it


def test_infill(filler: Server, server: Server) -> None:
    def encode(text: str) -> list[int]:
        return filler.model.tokenizer.encode(text, bos=False)

    asked = {"input_prefix": "def f():", "input_suffix": "return x", "n_predict": 6, "temperature": 0}
    ids = [300, *encode("def f():"), 301, *encode("return x"), 302]
    answer = filler.ask("/infill", asked).json
    assert answer["content"] == filler.model.complete(ids, max_tokens=6).text
    assert answer["tokens_evaluated"] == len(ids)
    more = {"prompt": "\n  ", "input_extra": [{"filename": "a.py", "text": "y = 1"}, {"text": "z"}]}
    extra = encode("\n\n--- snippet ---\n\ny = 1\n\n--- snippet ---\n\nz")
    ids = [*extra, 300, *encode("def f():\n  "), 301, *encode("return x"), 302]
    assert filler.ask("/infill", asked | more).json["content"] == filler.model.complete(ids, max_tokens=6).text
    for fields, says in (
        ({"input_suffix": None}, "input_suffix: it is missing"),
        ({"input_extra": ["a"]}, "input_extra: must be a list"),
    ):
        refused = filler.ask("/infill", asked | fields)
        assert refused.status == 400
        assert says in refused.json["error"]["message"]
    refused = server.ask("/infill", asked)
    assert refused.status == 400
    assert refused.json["error"]["param"] == "input_suffix"
    assert "filling in the middle" in refused.json["error"]["message"]


def test_infill_with_tokens_for_files(tmp_path: Path) -> None:
    """Behind tokens of their own other files stand with their names; the last of them that the context has room for."""
    names = ("pre", "suf", "mid", "rep", "sep")
    ids = {f"tokenizer__ggml__fim_{name}_token_id": 300 + i for i, name in enumerate(names)}
    path = fake_gguf(tmp_path / "fim.gguf", fake_weights("llama"), **ids)
    with running(ServerConfig(port=0), lambda: load(path, threads=1, context=128)) as server:
        model = server.model

        def plain(text: str) -> list[int]:
            return model.tokenizer.encode(text, bos=False)

        def asked(**fields: Any) -> Any:
            body = {"input_prefix": "ab", "input_suffix": "cd", "n_predict": 4, "temperature": 0, "ignore_eos": True}
            return server.ask("/infill", body | fields).json

        hole = [300, *plain("ab"), 301, *plain("cd"), 302]
        begin = [303, *plain("myproject\n")]
        extra = [{"filename": "a.py", "text": "y = 1"}, {"text": "z"}]
        files = [304, *plain("a.py\n"), *plain("y = 1"), 304, *plain("tmp\n"), *plain("z"), 304, *plain("filename\n")]
        whole = [*begin, *files, *hole]
        answer = asked(input_extra=extra)
        assert answer["tokens_evaluated"] == len(whole)
        assert answer["content"] == model.complete(whole, max_tokens=4, ignore_eos=True).text
        assert asked()["tokens_evaluated"] == len(hole)
        long = asked(input_extra=[{"text": "q" * 500}])
        cut = [*plain("q" * (128 - 4 - len(hole) - 10)), *files[-10:], *hole]
        assert (long["tokens_evaluated"], long["tokens_predicted"]) == (124, 4)
        assert long["content"] == model.complete(cut, max_tokens=4, ignore_eos=True).text
        assert asked(input_extra=extra, n_predict=-1)["tokens_evaluated"] == len(whole)
        assert asked(input_extra=[{"text": "q" * 500}], n_predict=-1)["tokens_evaluated"] == 96
        assert asked(input_extra=[{"text": "q", "filename": 3}])["error"]["param"] == "input_extra"


def test_metrics_of_the_engine(server: Server) -> None:
    def figures() -> dict[str, float]:
        lines = server.ask("/metrics").body.decode().splitlines()
        return {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}

    before = figures()
    text = "abcabcabcabcabcabcabcabc"  # what repeats is guessed ahead
    done = server.ask("/completion", {"prompt": [text] * 3, "n_predict": 40, "temperature": 0, "ignore_eos": True}).json
    after = figures()
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown["ternrun_generated_tokens_total"] == 120 == sum(one["tokens_predicted"] for one in done)
    assert grown["ternrun_steps_total"] <= grown["ternrun_step_tokens_total"]
    drafted, accepted = (grown[f"ternrun_{name}_tokens_total"] for name in ("drafted", "accepted"))
    assert 0 <= accepted <= drafted
    assert drafted > 0
    # every token computed is of a prompt, drafted, or fed back: the last of each sequence is not
    assert grown["ternrun_step_tokens_total"] == 3 * len(text) + 3 * 39 + drafted - accepted
    assert 1 < after["ternrun_batch_fill"] <= server.model.driver.engine.max_batch
    assert after["llamacpp:n_decode_total"] == after["ternrun_steps_total"]
    assert after["ternrun_event_loop_lag_seconds_count"] > 0
