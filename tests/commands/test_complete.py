"""`ternrun complete`: what is printed where, in which shape, and how it ends."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ternrun.completion import Stream
from ternrun.runtime.config import SamplingParams
from tests.fakes import fake_gguf, fake_weights

KEYS = {
    "model", "prompt_ids", "ids", "text", "finish_reason", "logprobs", "timings", "peak_rss_bytes", "backend",
    "backend_reason",
}  # fmt: skip
TIMINGS = {"load_s", "first_token_s", "prefill_tokens", "prefill_s", "decode_tokens", "decode_s"}

Run = Callable[..., Any]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def interrupt_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C come after so many pieces."""
    pieces, following = iter(range(count)), Stream.__next__

    def next_piece(stream: Stream) -> str:
        if next(pieces, None) is None:
            raise KeyboardInterrupt
        return following(stream)

    monkeypatch.setattr(Stream, "__next__", next_piece)


def test_json_is_one_object_of_the_documented_shape(ternrun: Run, tiny: str) -> None:
    done = ternrun("complete", "-m", tiny, "-n", "5", "--ignore-eos", "--json", "--logprobs", "3", "ab")
    assert (done.code, done.err) == (0, "")
    answer = json.loads(done.out)
    assert set(answer) == KEYS
    assert set(answer["timings"]) == TIMINGS
    assert answer["prompt_ids"] == [ord("a"), ord("b")]
    assert len(answer["ids"]) == len(answer["logprobs"]) == 5
    assert answer["finish_reason"] == "length"
    for token, entry in zip(answer["ids"], answer["logprobs"], strict=True):
        assert entry["id"] == token == entry["top"][0]["id"]  # greedy
        assert entry["logprob"] == entry["top"][0]["logprob"] <= 0
        assert len(entry["top"]) == 3
    assert answer["peak_rss_bytes"] > 10_000_000
    assert answer["backend"].startswith("cpu")


def test_streamed_text_is_the_text_of_the_json(ternrun: Run, tiny: str) -> None:
    call = ["complete", "-m", tiny, "-n", "40", "--temp", "1.5", "--seed", "7", "--ignore-eos", "ab"]
    text = json.loads(ternrun(*call, "--json").out)["text"]
    done = ternrun(*call)
    assert done.out == text + ("" if text.endswith("\n") else "\n")
    assert done.err == ""
    assert len(text) > 20


def test_prompt_comes_from_standard_input_or_argument(ternrun: Run, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call = ["complete", "-m", tiny, "-n", "1", "--json"]
    expected = json.loads(ternrun(*call, "héllo\n").out)["prompt_ids"]
    for words in ([], ["-"]):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("héllo\n".encode())))
        assert json.loads(ternrun(*call, *words).out)["prompt_ids"] == expected
    assert json.loads(ternrun(*call, "hello").out)["prompt_ids"] != expected


def test_chat_goes_through_the_template(ternrun: Run, tiny: str) -> None:
    call = ["complete", "-m", tiny, "-n", "1", "--json"]
    plain = json.loads(ternrun(*call, "[system]S[user]hi[assistant]").out)
    chat = json.loads(ternrun(*call, "--chat", "--system", "S", "hi").out)
    assert chat["prompt_ids"] == plain["prompt_ids"]


def test_a_terminal_shows_the_prompt_and_no_control_characters(
    ternrun: Run, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stdout", screen := Terminal())
    assert ternrun("complete", "-m", tiny, "-n", "9", "--logit-bias", "27=100", "ab\x1b").code == 0
    assert screen.getvalue() == "ab\ufffd" + 9 * "\ufffd" + "\n"


def test_a_pipe_gets_what_the_model_said(ternrun: Run, tiny: str) -> None:
    assert ternrun("complete", "-m", tiny, "-n", "3", "--logit-bias", "27=100", "ab").out == "\x1b\x1b\x1b\n"


def test_stats_go_to_standard_error(ternrun: Run, tiny: str) -> None:
    done = ternrun("complete", "-m", tiny, "-n", "3", "--stats", "ab")
    for name in ("load", "first token", "prompt", "text", "peak memory", "backend"):
        assert f"{name} " in done.err
        assert name not in done.out


def test_stats_tell_what_the_model_chose(ternrun: Run, tmp_path: Path) -> None:
    model = str(fake_gguf(tmp_path / "m.gguf", fake_weights(), general__sampling__penalty_repeat=1.3))
    assert "repeat_penalty 1.3: the model's own" in ternrun("complete", "-m", model, "-n", "3", "--stats", "ab").err
    done = ternrun("complete", "-m", model, "-n", "3", "--stats", "--repeat-penalty", "1", "ab")
    assert "the model's own" not in done.err


def test_ctrl_c_keeps_what_was_made(ternrun: Run, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call = ["complete", "-m", tiny, "-n", "30", "--ignore-eos", "ab"]
    whole = ternrun(*call).out
    interrupt_after(4, monkeypatch)
    done = ternrun(*call)
    assert done.code == 130
    assert done.err == ""
    assert len(done.out) > 1
    assert whole.startswith(done.out.removesuffix("\n"))


def test_ctrl_c_keeps_the_json(ternrun: Run, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_after(4, monkeypatch)
    done = ternrun("complete", "-m", tiny, "-n", "30", "--ignore-eos", "--json", "ab")
    answer = json.loads(done.out)
    assert done.code == 130
    assert answer["finish_reason"] == "abort"
    assert 4 <= len(answer["ids"]) < 30


def test_a_real_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    """The context is long enough that no machine fills it before the signal comes."""
    model = fake_gguf(tmp_path / "long.gguf", fake_weights("llama", context_length=100_000))
    command = [sys.executable, "-m", "ternrun", "complete", "-m", str(model), "-c", "100000", "-n", "99000"]
    command += ["--ignore-eos", "--logit-bias", "32=100", "x"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, b"")
    assert out.endswith(b"\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--logprobs", "2", "x"], "add --json"),
        (["--system", "S", "x"], "--system needs --chat"),
        (["--temp", "-1", "x"], "temperature must be"),
        (["--logit-bias", "9999=1", "x"], "9999 is not a token id"),
        (["-c", "16", "x" * 50], "the context holds 16"),
        (["--pre", "nonsense", "x"], "nonsense"),
    ],
)
def test_what_cannot_be_is_one_sentence(ternrun: Run, tiny: str, argv: list[str], message: str) -> None:
    done = ternrun("complete", "-m", tiny, *argv)
    assert done.code == 2
    assert done.out == ""
    assert message in done.err
    assert done.err.count("\n") == 1


def test_wrong_files_are_one_sentence(ternrun: Run, tiny: str, tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_text("<!DOCTYPE html><html></html>")
    (tmp_path / "cut.gguf").write_bytes(Path(tiny).read_bytes()[:-1000])
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "folder").mkdir()
    for name, message in {
        "page.gguf": "web page",
        "cut.gguf": "incomplete",
        "empty.gguf": "empty",
        "folder": "folder",
        "absent.gguf": "does not exist",
    }.items():
        done = ternrun("complete", "-m", tmp_path / name, "x")
        assert done.code == 2
        assert message in done.err
        assert done.err.count("\n") == 1


def test_defaults_are_those_of_the_record(ternrun: Run, tiny: str) -> None:
    done = ternrun("complete", "-m", tiny, "--json", "--ignore-eos", "ab")
    assert len(json.loads(done.out)["ids"]) == SamplingParams().max_tokens


def test_imports_only_what_it_needs(tiny: str) -> None:
    code = f"""
import sys
from ternrun.cli import main
main(["complete", "-m", {tiny!r}, "-n", "1", "ab"])
print("LOADED", *sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    loaded = set(done.stdout.split("LOADED")[1].split())
    assert not loaded & {"torch", "onnx", "aiohttp", "gguf", "huggingface_hub", "numba"}
