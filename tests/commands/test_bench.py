"""`ternrun bench` from end to end on a tiny model; no test looks at how long anything took."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ternrun.bench import ceilings, roofline
from tests.commands.conftest import Done

Run = Callable[..., Done]
KEYS = [
    "work", "model", "head", "threads", "tokens_per_s", "bytes_per_token", "share_of_read_bandwidth",
    "share_of_compute_ceiling", "kernel",
]  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BUFFER": 1 << 20, "RUNS": 1, "READS": 1, "ROUNDS": 100}.items():
        monkeypatch.setattr(ceilings, name, value)


def test_json_is_as_documented(ternrun: Run, tiny: str) -> None:
    works = "pp16,tg4,batch2,ctx64,load"
    done = ternrun("bench", "-m", tiny, "--work", works, "--threads", "1", "--runs", "1", "--json")
    assert done.code == 0, done.err
    assert [line.partition(":")[0] for line in done.err.splitlines()] == ["ternrun"] * 2  # when it begins and ends
    found = json.loads(done.out)
    assert list(found) == ["machine", "results"]
    assert [result["work"] for result in found["results"]] == works.split(",")
    for result in found["results"]:
        assert list(result) == KEYS
        assert list(result["tokens_per_s"]) == ["median", "best", "n"]
        assert (result["model"], result["head"], result["threads"]) == (tiny, "f16", 1)
        assert result["kernel"].startswith("cpu/")
    assert found["results"][-1]["bytes_per_token"] is None
    assert all(result["share_of_read_bandwidth"] > 0 for result in found["results"][:-1])
    assert set(found["machine"]["read_bytes_per_s"]) == {"1"}
    assert found["machine"]["noise"]


def test_report_profile_and_comparison(ternrun: Run, tiny: str, tmp_path: Path) -> None:
    program = tmp_path / "llama-bench"
    program.write_text(f"#!{sys.executable}\nprint('[{{\"avg_ts\": 9.0}}]')\n")
    program.chmod(0o755)
    flags = ["--work", "tg4,batch2", "--runs", "1", "--threads", "2", "--profile", "--against", "llama.cpp"]
    done = ternrun("bench", "-m", tiny, *flags, "--llama-bench", program)
    assert done.code == 0, done.err
    for text in ("memory read, 2 threads", "tg4: one step of", "Python", "9.0 (9.0)", "machine while measuring: "):
        assert text in done.out
    assert done.out.count("9.0 (9.0)") == 1  # llama.cpp's program knows no batches


def test_machine_alone_makes_no_model(ternrun: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ternrun.bench.files.write_synthetic", None)
    done = ternrun("bench", "--work", "machine", "--threads", "1", "--json")
    assert json.loads(done.out)["results"] == []


def test_plot(ternrun: Run, tiny: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "roofline.png"
    done = ternrun("bench", "-m", tiny, "--work", "tg4,pp16", "--runs", "1", "--threads", "1", "--plot", path)
    assert done.code == 0, done.err
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--work", "nonsense"], "'nonsense' is not a work"),
        (["--model", "no-such-file"], "neither a file nor one of the shapes"),
        (["--head", "q9", "--work", "tg4"], "are not types"),
        (["--model", "/dev/null", "--work", "tg4"], "/dev/null"),
        (["--runs", "0"], "--runs must be from 1"),
        (["--threads", "-2"], "threads must be"),
        (["--llama-bench", "x"], "--llama-bench needs --against"),
        (["--against", "vllm"], "these are: llama.cpp, ik_llama.cpp, bitnet.cpp"),
        (["--plot", "roofline.exe"], "--plot roofline.exe"),
    ],
)
def test_mistakes_are_one_sentence(
    ternrun: Run, flags: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roofline, "find_spec", lambda name: SimpleNamespace())
    done = ternrun("bench", *flags)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_plot_without_matplotlib(ternrun: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "find_spec", lambda name: None)
    done = ternrun("bench", "--plot", "roofline.png")
    assert (done.code, "pip install 'ternrun[plot]'" in done.err) == (2, True)


def test_the_carried_model_is_measured_by_its_name(ternrun: Run) -> None:
    done = ternrun("bench", "-m", "code-9m", "--work", "pp4", "--threads", "1", "--runs", "1", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["results"][0]["model"] == "code-9m"
