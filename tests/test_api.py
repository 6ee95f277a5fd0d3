"""The Python API on a fake model file; most tests swap the CPU runtime for a fake model that takes no time."""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import subprocess
import sys
import threading
import time
import typing
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

import ternrun
from ternrun import options
from ternrun.api import Model, load
from ternrun.perplexity import windows
from ternrun.runtime.config import EngineConfig, SamplingParams
from ternrun.runtime.sampling.logprobs import log_sum_exp
from tests.fakes import fake_gguf, fake_weights
from tests.fakes_hf import fake_hf
from tests.runtime.fake_model import FakeModel

TEMPLATE = "{% for m in messages %}{{ '<|bos|>' + m['role'] + ': ' + m['content'] }}{% endfor %}"
HEAVY = ["torch", "aiohttp", "onnx", "gguf", "numba", "jinja2"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "tiny.gguf"
    return fake_gguf(file, fake_weights(), tokenizer__chat_template=TEMPLATE, tokenizer__ggml__add_bos_token=True)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> list[FakeModel]:
    """The fake models that `load` made."""
    made: list[FakeModel] = []

    def load_weights(weights: Any, engine: EngineConfig, progress: Any = None, idle: Any = None) -> FakeModel:
        idle()
        made.append(FakeModel(vocab=weights.config.vocab_size, block_size=16, sharpness=1.0))
        made[-1].engine_config, made[-1].config = engine, weights.config
        return made[-1]

    fake = SimpleNamespace(name="fake", load=load_weights)
    monkeypatch.setattr("ternrun.api.select_backend", lambda device: (fake, "the only one here"))
    return made


@pytest.fixture
def model(path: Path, backend: list[FakeModel]) -> Iterator[Model]:
    with load(path) as model:
        yield model


def isolated(code: str, *arguments: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_public_names() -> None:
    errors = "ConfigError ContextError KernelError LoadError MissingExtra TemplateError TernrunError UsageError"
    assert ternrun.__all__ == sorted(["Completion", "Encoder", "Model", "Stream", "Timings", "load", *errors.split()])
    assert all(getattr(ternrun, name) for name in ternrun.__all__)
    assert ternrun.load is load
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = ternrun.lod  # type: ignore[attr-defined]


def test_import_is_light() -> None:
    shown = isolated("import sys, ternrun; print([m for m in ('numpy', 'typing', 'ternrun.api') if m in sys.modules])")
    assert shown == "[]\n"


def test_typed_options_are_the_records_fields() -> None:
    for typed, record in ((options.EngineOptions, EngineConfig), (options.SamplingOptions, SamplingParams)):
        assert list(typing.get_type_hints(typed)) == [field.name for field in dataclasses.fields(record)]


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ({"stop": "end"}, SamplingParams(stop=("end",))),
        ({"stop": ["a", "b"]}, SamplingParams(stop=("a", "b"))),
        ({"logit_bias": {3: -1.5}}, SamplingParams(logit_bias=((3, -1.5),))),
        ({"stop_ids": [1, 2], "seed": None}, SamplingParams(stop_ids=(1, 2))),
    ],
)
def test_options_in_any_shape(given: Any, want: SamplingParams) -> None:
    assert options.sampling_params(given) == want


def test_complete_gives_the_whole_record(model: Model) -> None:
    done = model.complete("Hello", max_tokens=12, logprobs=2, ignore_eos=True)
    assert done.prompt_ids == [256, *b"Hello"]
    assert len(done.ids) == len(done.logprobs or []) == 12
    assert done.text == model.tokenizer.decode(done.ids)
    assert done.finish_reason == "length"
    assert (done.timings.prefill_tokens, done.timings.decode_tokens) == (6, 11)
    assert 0 < done.timings.prefill_s <= done.timings.first_token_s
    assert done.timings.decode_s > 0
    assert done.peak_rss_bytes > 10_000_000
    assert (done.backend, done.backend_reason) == ("fake", "the only one here; ")
    record = json.loads(json.dumps(dataclasses.asdict(done)))
    assert list(record) == [
        "model", "prompt_ids", "ids", "text", "finish_reason", "logprobs", "timings", "peak_rss_bytes", "backend",
        "backend_reason",
    ]  # fmt: skip
    assert list(record["timings"]) == [
        "load_s", "first_token_s", "prefill_tokens", "prefill_s", "decode_tokens", "decode_s",
    ]  # fmt: skip
    assert [list(record["logprobs"][0]), list(record["logprobs"][0]["top"][0])] == [
        ["id", "logprob", "top"],
        ["id", "logprob"],
    ]


def test_times_are_the_engine_s_however_late_the_text_is_read(model: Model) -> None:
    with model.stream("abc", max_tokens=20, ignore_eos=True) as stream:
        next(stream)
        time.sleep(0.5)
        rest = list(stream)
    assert rest
    assert 0 < stream.completion.timings.decode_s < 0.4


def test_token_ids_of_any_integer_kind_are_a_prompt(model: Model) -> None:
    ids = [256, *b"Hello"]
    want = model.complete("Hello", max_tokens=5).ids
    for prompt in (ids, tuple(ids), np.array(ids), iter(ids)):
        assert model.complete(prompt, max_tokens=5).ids == want


@pytest.mark.parametrize("seed", range(5))
def test_streamed_pieces_are_the_completed_text(model: Model, seed: int) -> None:
    sampling: Any = {"temperature": 1.0, "seed": seed, "max_tokens": 60, "ignore_eos": True}
    whole = model.complete("x", **sampling)
    with model.stream("x", **sampling) as stream:
        pieces = list(stream)
    assert all(pieces)
    assert "".join(pieces) == whole.text == stream.completion.text
    assert stream.completion.ids == whole.ids


def test_a_character_is_never_split(model: Model, backend: list[FakeModel], monkeypatch: pytest.MonkeyPatch) -> None:
    text = "aé€😀"
    spell(backend[0], monkeypatch, [*text.encode()])
    assert list(model.stream([1], max_tokens=10)) == list(text)
    assert list(model.stream([1], max_tokens=9)) == [*"aé€", "\N{REPLACEMENT CHARACTER}"]


def spell(model: FakeModel, monkeypatch: pytest.MonkeyPatch, ids: list[int]) -> None:
    """Make the fake continue a one-token prompt with these tokens."""

    def forward(batch: Any) -> Any:
        out = np.zeros((len(batch.outputs), model.config.vocab_size), np.float32)
        for row, i in enumerate(batch.outputs):
            out[row, ids[min(int(batch.positions[i]), len(ids) - 1)]] = 1
        return out

    monkeypatch.setattr(model, "forward", forward)


@pytest.mark.parametrize(
    ("stop", "text", "ids"),
    [
        ("wor", "hello ", 9),
        (["zzz", "o w"], "hell", 7),
        ("lo world, again", "hello world", 11),  # held back, and let go at the end
        ("hello", "", 5),
    ],
)
def test_stop_strings(
    model: Model, backend: list[FakeModel], monkeypatch: pytest.MonkeyPatch, stop: Any, text: str, ids: int
) -> None:
    spell(backend[0], monkeypatch, [*b"hello world"])
    done = model.complete([1], stop=stop, max_tokens=11, logprobs=0)
    assert (done.text, len(done.ids), len(done.logprobs or [])) == (text, ids, ids)
    assert done.finish_reason == ("stop" if ids < 11 else "length")
    assert "".join(model.stream([1], stop=stop, max_tokens=11)) == text
    wait_idle(model)


@pytest.mark.parametrize(
    ("fields", "text", "ids"),
    [
        ({"stop": "wor", "include_stop": True}, "hello wor", 9),
        ({"stop": ["o", "o w"], "min_tokens": 5}, "hello w", 8),
        ({"stop": ["o", "o w"], "min_tokens": 5, "include_stop": True}, "hello wo", 8),
        ({"stop": "hello", "min_tokens": 1}, "hello world", 11),  # it would end a text of no token
        ({"stop": "d", "min_tokens": 11}, "hello world", 11),
    ],
)
def test_texts_of_a_least_length_and_texts_that_keep_their_stop_string(
    model: Model, backend: list[FakeModel], monkeypatch: pytest.MonkeyPatch, fields: Any, text: str, ids: int
) -> None:
    spell(backend[0], monkeypatch, [*b"hello world"])
    done = model.complete([1], max_tokens=11, **fields)
    assert (done.text, len(done.ids)) == (text, ids)
    assert "".join(model.stream([1], max_tokens=11, **fields)) == text
    wait_idle(model)


def test_no_repetition_reaches_across_the_text_that_breaks_it(
    model: Model, backend: list[FakeModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    spell(backend[0], monkeypatch, [*b"!"] * 300)
    dry = {"max_tokens": 8, "dry_multiplier": 9.0, "dry_allowed_length": 1}
    assert model.complete([1], **dry).text != "!!!!!!!!"
    assert model.complete([1], dry_sequence_breakers="!", **dry).text == "!!!!!!!!"


def test_the_end_token_ends_and_is_not_text(
    model: Model, backend: list[FakeModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    spell(backend[0], monkeypatch, [*b"ab", 257])
    done = model.complete([1], max_tokens=11)
    assert (done.text, done.ids, done.finish_reason) == ("ab", [*b"ab"], "stop")


def wait_idle(model: Model) -> None:
    """An abort is done before the next request is served."""
    model.complete([1], max_tokens=1)
    assert not model.driver.engine.has_work


def test_leaving_a_stream_early_ends_the_request(model: Model) -> None:
    with model.stream("x", max_tokens=400, ignore_eos=True) as stream:
        first = next(stream)
    assert list(stream) == []
    assert stream.completion.finish_reason == "abort"
    assert stream.completion.text == first
    wait_idle(model)
    for _ in model.stream("x", max_tokens=400, ignore_eos=True):
        break
    gc.collect()
    wait_idle(model)


def test_interrupting_a_completion_ends_the_request(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ternrun.text.StopMatcher.push", interrupt)
        with pytest.raises(KeyboardInterrupt):
            model.complete("x", max_tokens=400, ignore_eos=True)
    wait_idle(model)


def test_chat_writes_the_templates_prompt_with_one_begin_token(model: Model) -> None:
    done = model.chat([{"role": "user", "content": "hi"}], max_tokens=3)
    assert done.prompt_ids == [256, *b"user: hi"]
    with model.chat_stream([{"role": "user", "content": "hi"}], max_tokens=3) as stream:
        assert "".join(stream) == done.text


BARE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}"


def test_a_prompt_is_not_closed_by_the_end_token(tmp_path: Path, backend: list[FakeModel]) -> None:
    keys = {"tokenizer__chat_template": BARE, "tokenizer__ggml__add_bos_token": True}
    file = fake_gguf(tmp_path / "m.gguf", fake_weights(), tokenizer__ggml__add_eos_token=True, **keys)
    with load(file) as model:
        assert model.complete("hi", max_tokens=1).prompt_ids == [256, *b"hi"]
        # templates in GGUF files leave the begin token to the tokenizer, as llama.cpp reads them
        assert model.chat([{"role": "user", "content": "hi"}], max_tokens=1).prompt_ids == [256, *b"user: hi"]
        assert model.tokenizer.encode("hi", eos=True) == [256, *b"hi", 257]


def test_the_template_of_a_folder_alone_writes_a_chat_prompt(tmp_path: Path, backend: list[FakeModel]) -> None:
    folder = fake_hf(tmp_path / "m", fake_weights("llama", "F32"))
    stated = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(stated | {"chat_template": BARE}))
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ends = [("<|bos|>", 256), ("<|eos|>", 257)]
    library.post_processor = TemplateProcessing(single="<|bos|> $A <|eos|>", special_tokens=ends)
    library.save(str(folder / "tokenizer.json"))
    talk = [{"role": "user", "content": "hi"}]
    with load(folder) as model:
        assert model.complete("hi", max_tokens=1).prompt_ids == [256, *b"hi"]
        assert model.chat(talk, max_tokens=1).prompt_ids == [*b"user: hi"]
    with load(folder, chat_template="chatml") as model:  # which never writes the begin token
        assert model.chat(talk, max_tokens=1).prompt_ids[:2] == [256, *b"<"]


def test_chat_without_a_template_is_refused(tmp_path: Path, backend: list[FakeModel]) -> None:
    with (
        load(fake_gguf(tmp_path / "m.gguf", fake_weights())) as model,
        pytest.raises(ternrun.UsageError, match="no chat template"),
    ):
        model.chat([{"role": "user", "content": "hi"}])


def test_score_is_the_log_softmax_of_the_next_tokens(model: Model, backend: list[FakeModel]) -> None:
    ids = np.random.default_rng(0).integers(0, 320, 300)
    entries = model.score(ids, top=3)
    assert [entry.id for entry in entries] == ids[1:].tolist()
    for entry, row in zip(entries, backend[0].reference(ids.tolist()), strict=False):
        assert entry.logprob == pytest.approx(float(row[entry.id]) - log_sum_exp(row))
        assert [top.id for top in entry.top] == np.argsort(-row)[:3].tolist()
    assert model.score([5]) == []


@pytest.mark.parametrize("size", [2, 3, 8, 9])
@pytest.mark.parametrize("n", [1, 2, 8, 9, 57])
def test_windows_score_every_token_once(n: int, size: int) -> None:
    parts = list(windows(n, size))
    assert [i for part in parts for i in range(part.scored, part.end)] == list(range(n))
    for part in parts:
        assert part.end - part.start <= size
        assert part.scored - part.start == min(size // 2, part.scored)


def test_perplexity_is_that_of_the_windows(model: Model, backend: list[FakeModel]) -> None:
    text = "Some text, é included. " * 20
    ids, nats = [*text.encode()], 0.0
    for part in windows(len(ids), 63):
        rows = backend[0].reference([256, *ids[part.start : part.end]])
        for i in range(part.scored, part.end):
            row = rows[i - part.start]
            nats -= float(row[ids[i]]) - log_sum_exp(row)
    seen: list[tuple[int, int]] = []
    result = model.perplexity(text, window=64, progress=lambda *args: seen.append(args))
    assert (result.tokens, result.bytes) == (len(ids), len(ids))
    assert result.perplexity == pytest.approx(math.exp(nats / len(ids)))
    assert result.bits_per_byte == pytest.approx(nats / math.log(2) / len(ids))
    assert seen[-1] == (len(ids), len(ids))


def test_perplexity_without_a_begin_token_skips_the_first(tmp_path: Path, backend: list[FakeModel]) -> None:
    file = fake_gguf(tmp_path / "m.gguf", fake_weights(), tokenizer__ggml__add_bos_token=False)
    with load(file) as model:
        result = model.perplexity("hello")
        rows = backend[0].reference([*b"hell"])
        nats = -sum(float(row[b]) - log_sum_exp(row) for row, b in zip(rows, b"ello", strict=True))
        assert (result.tokens, result.bytes) == (4, 4)
        assert result.perplexity == pytest.approx(math.exp(nats / 4))
        for text in ("", "a"):
            with pytest.raises(ternrun.UsageError, match="too short"):
                model.perplexity(text)
        with pytest.raises(ternrun.UsageError, match="window"):
            model.perplexity("hello", window=1)


def test_many_threads_at_once(model: Model) -> None:
    asked = [(f"prompt {i % 5}", {"seed": i, "temperature": 1.0, "max_tokens": 20}) for i in range(20)]
    alone = [model.complete(prompt, **sampling).text for prompt, sampling in asked]  # type: ignore[arg-type]
    texts: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda i=i: texts.update({i: model.complete(asked[i][0], **asked[i][1]).text}))
        for i in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [texts[i] for i in range(20)] == alone


@pytest.mark.parametrize(
    ("prompt", "sampling", "error", "words"),
    [
        ("x" * 600, {}, "ContextError", "601 tokens, but the context holds 512"),
        ("x", {"temprature": 1}, "ConfigError", "did you mean 'temperature'"),
        ("x", {"temperature": -1}, "ConfigError", "temperature must be a number from 0 to 100"),
        ("x", {"stop": ""}, "ConfigError", "stop string"),
        ("x", {"stop": 3}, "ConfigError", "stop"),
        ("x", {"stop_ids": [320]}, "UsageError", "stop_ids: 320"),
        ("x", {"logit_bias": {-1: 0.0}}, "UsageError", "logit_bias: -1"),
        ("x", {"logit_bias": {5: "x"}}, "ConfigError", "pairs of a token id and a number, not .5, 'x'"),
        ("x", {"logit_bias": [5]}, "ConfigError", "pairs of a token id and a number, not 5"),
        ("x", {"logit_bias": [(5, 1, 2)]}, "ConfigError", "pairs of a token id"),
        ("x", {"grammar": "[0-9]+"}, "UsageError", "a grammar is what `grammar` gives"),
        (b"ab", {}, "UsageError", "bytes would be taken for ids"),
        ([], {}, "UsageError", "prompt is empty"),
        ([320], {}, "UsageError", "320 is not a token id"),
        (["a"], {}, "UsageError", "text, or a sequence of token ids"),
        (None, {}, "UsageError", "text, or a sequence of token ids"),
    ],
)
def test_mistakes_are_told_at_once(model: Model, prompt: Any, sampling: Any, error: str, words: str) -> None:
    for call in (model.complete, model.stream):
        with pytest.raises(getattr(ternrun, error), match=words):
            call(prompt, **sampling)


def test_what_is_scored_is_checked(model: Model) -> None:
    for call in (
        lambda: model.score(b"ab"),
        lambda: model.score([1, 2], top=1.5),  # type: ignore[arg-type]
        lambda: model.score([1, 2], top="x"),  # type: ignore[arg-type]
        lambda: model.perplexity(None),  # type: ignore[arg-type]
        lambda: model.perplexity("some text", window="x"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ternrun.UsageError):
            call()


def test_threads_that_share_a_stream_all_come_to_its_end(model: Model) -> None:
    stream = model.stream("x", max_tokens=200, ignore_eos=True)
    taken: list[str] = []
    threads = [threading.Thread(target=lambda: taken.extend(stream), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert sorted(taken) == sorted(model.stream("x", max_tokens=200, ignore_eos=True))


def test_options_of_load_are_checked(path: Path, backend: list[FakeModel]) -> None:
    with pytest.raises(ternrun.ConfigError, match="did you mean 'threads'"):
        load(path, thread=2)  # type: ignore[call-arg]
    with pytest.raises(ternrun.ConfigError, match="more than this model was made for"):
        load(path, context=513)
    with pytest.raises(ternrun.TemplateError, match="a chat template is text, not 5"):
        load(path, chat_template=5)  # type: ignore[arg-type]
    with load(path, context=100) as model:
        assert model.context == 100


def our_threads() -> set[threading.Thread]:
    """Of any model; those of other tests' fixtures may be among them."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("ternrun")}


def test_closing_lets_go_of_everything(path: Path, backend: list[FakeModel]) -> None:
    before = our_threads()
    model = load(path)
    stream = model.stream("x", max_tokens=400, ignore_eos=True)
    model.close()
    model.close()
    assert backend[0].closed
    assert len("".join(stream)) < 400
    assert stream.completion.finish_reason == "abort"
    with pytest.raises(ternrun.UsageError, match="closed"):
        model.complete("x")
    with pytest.raises(ternrun.UsageError, match="the model is closed"):
        model.grammar("regex", "a")
    load(path)  # and forgotten
    gc.collect()
    assert backend[1].closed
    assert not our_threads() - before


def test_a_model_that_cannot_be_loaded_leaves_nothing_behind(
    tmp_path: Path, path: Path, backend: list[FakeModel]
) -> None:
    before = our_threads()
    with pytest.raises(ternrun.LoadError):
        load(tmp_path / "missing.gguf")
    broken = fake_gguf(tmp_path / "m.gguf", fake_weights(), tokenizer__ggml__pre="unheard-of")
    with pytest.raises(ternrun.LoadError, match="unheard-of"):
        load(broken)
    assert backend[0].closed
    assert not our_threads() - before


def test_the_cpu_runs_it_all_without_heavy_imports_and_ends_without_close(path: Path) -> None:
    code = f"""
import sys, ternrun
model = ternrun.load(sys.argv[1], threads=1)
whole = model.complete("Hello", max_tokens=8, ignore_eos=True)
assert "".join(model.stream("Hello", max_tokens=8, ignore_eos=True)) == whole.text
assert len(model.score(whole.prompt_ids)) == 5
stream = model.stream("Hello", max_tokens=300)
next(stream)
print(len(whole.ids), whole.backend.split("/")[0], [m for m in {HEAVY} if m in sys.modules])
"""
    assert isolated(code, str(path)) == "8 cpu []\n"


def test_a_grammar_is_kept_to(model: ternrun.Model) -> None:
    grammar = model.grammar("json_schema", {"enum": ["red", "blue"]})
    for seed in range(3):
        assert model.complete("x", grammar=grammar, temperature=2, seed=seed).text in ('"red"', '"blue"')
    with pytest.raises(ternrun.UsageError, match="the grammar cannot be used"):
        model.grammar("regex", "(")
    with pytest.raises(ternrun.UsageError, match="the grammar cannot be written as JSON"):
        model.grammar("json_schema", {"type": object})
