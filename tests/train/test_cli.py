"""`ternrun train` from text to a model file, and what it says to mistakes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from ternrun.errors import ConfigError, LoadError, TernrunError, UsageError
from ternrun.train import cli

TINY = [
    "model.dim=256", "model.n_layers=1", "model.ffn_dim=256", "model.context=32", "data.batch=2", "optim.steps=3",
    "optim.decay_steps=1", "run.validate_every=2", "run.validate_windows=2", "run.sample_every=3", "run.compile=false",
    "run.threads=1",
]  # fmt: skip


def ternrun_train(*words: object) -> int:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    args = parser.parse_args([str(word) for word in words])
    return cli.run(args)


def settings(data: Path) -> list[str]:
    return [part for change in (*TINY, f"data.path={data}") for part in ("--set", change)]


@pytest.fixture
def run_folder(data_folder: Path, tmp_path: Path) -> Path:
    ternrun_train("run", "code-5m", "--out", tmp_path / "run", *settings(data_folder))
    return tmp_path / "run"


def test_text_to_model_file_to_card(
    run_folder: Path, data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {"last.safetensors", "best.safetensors", "log.jsonl"} <= {p.name for p in run_folder.iterdir()}
    assert ternrun_train("export", run_folder / "last.safetensors", tmp_path / "m.gguf", "--type", "tq1_0") == 0
    assert (tmp_path / "m.gguf").stat().st_size > 100_000
    capsys.readouterr()
    ternrun_train("eval", run_folder / "last.safetensors", "--windows", "2")
    assert "bits per byte" in capsys.readouterr().out
    evaluated = ("eval", tmp_path / "m.gguf", tmp_path / "m.gguf", "--data", data_folder, "--part", "val")
    few = ("--functions", 2, "--lines", 2, "--text-bytes", 500)
    ternrun_train(*evaluated, *few)
    assert "generated tokens/s" in capsys.readouterr().out
    ternrun_train(*evaluated, *few, "--json")
    said = capsys.readouterr().out
    first, second = json.loads(said)
    assert first["bits_per_byte"] == second["bits_per_byte"] > 0
    assert first["file_bytes"] == (tmp_path / "m.gguf").stat().st_size
    (tmp_path / "e.json").write_text(json.dumps([first]))
    (tmp_path / "f.json").write_text(json.dumps([second]))
    card = ("card", run_folder / "last.safetensors", tmp_path / "m.gguf", "--evaluation")
    ternrun_train(*card, tmp_path / "e.json", tmp_path / "f.json")
    text = (tmp_path / "MODEL_CARD.md").read_text()
    record = json.loads((tmp_path / "m.json").read_text())
    assert record["training"]["steps"] == 3
    assert record["training"]["tokens"] == 3 * 2 * 32
    assert f"| bits per byte | {first['bits_per_byte']:.4g} | {second['bits_per_byte']:.4g} |" in text
    assert "package0: MIT" in text
    (tmp_path / "m.gguf").write_bytes(b"another file")
    with pytest.raises(LoadError, match="the evaluation is not of"):
        ternrun_train(*card, tmp_path / "e.json")
    (tmp_path / "e.json").write_text('{"name": "m"}')
    with pytest.raises(UsageError, match="not a list of results"):
        ternrun_train(*card, tmp_path / "e.json")


def test_a_run_is_not_begun_over_another(run_folder: Path, data_folder: Path) -> None:
    with pytest.raises(UsageError, match="holds a run already; --resume goes on with it"):
        ternrun_train("run", "code-5m", "--out", run_folder, *settings(data_folder))
    more = ["--resume", "--set", "optim.steps=4"]
    assert ternrun_train("run", "code-5m", "--out", run_folder, *settings(data_folder), *more) == 0


def test_a_tokenizer_is_learned_from_whatever_data_is_made_of(tmp_path: Path) -> None:
    rows = [{"content": f"row {i} of a table"} for i in range(300)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = (f"jsonl:{tmp_path / 'a.jsonl'}", "--column", "content")
    ternrun_train("tokenizer", *source, "--size", 300, "--out", tmp_path / "t.json")
    ternrun_train("data", *source, "--tokenizer", tmp_path / "t.json", "--val-share", 0.2, "--out", tmp_path / "data")
    with pytest.raises(UsageError, match="--packages needs --archives"):
        ternrun_train("tokenizer", "python", "--packages", "rich", "--out", tmp_path / "u.json")


def test_data_and_tokenizer_commands(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"line {i} of a text\n" for i in range(300)))
    ternrun_train("tokenizer", f"text:{tmp_path / 'a.txt'}", "--size", 300, "--out", tmp_path / "t.json")
    ternrun_train(
        "data", f"text:{tmp_path / 'a.txt'}", "--split", "tail", "--val-share", 0.1, "--tokenizer", tmp_path / "t.json",
        "--out", tmp_path / "data",
    )  # fmt: skip
    assert {p.name for p in (tmp_path / "data").iterdir()} == {
        "train.bin",
        "val.bin",
        "tokenizer.json",
        "manifest.json",
    }


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["data", "pytho", "--out", "x"], UsageError, "'pytho' is not a source; these are"),
        (["data", "packages", "--out", "x"], UsageError, "packages needs --installed, --packages or --archives"),
        (["data", "text:/no/such", "--out", "x"], UsageError, "does not exist"),
        (["data", "synthetic:x", "--out", "x"], UsageError, "synthetic data is"),
        (["data", "synthetic:random", "--val-share", "2", "--out", "x"], UsageError, "between 0 and 1"),
        (["data", "synthetic:random", "--tokenizer", "/no/such", "--out", "x"], LoadError, "not a tokenizer file"),
        (["run", "code-6m", "--out", "x"], ConfigError, "neither a config file nor a preset"),
        (["run", "code-5m", "--out", "x", "--set", "data.path=/no/such"], LoadError, "not a folder made by"),
        (["export", "/no/such.safetensors", "x.gguf"], LoadError, "there is no checkpoint"),
        (["tokenizer", "synthetic:random", "--out", "."], UsageError, "is a folder; --out names the tokenizer.json"),
        (["eval", "/no/bst.safetensors"], LoadError, "there is no checkpoint /no/bst.safetensors"),
        (["eval", "/no/such.gguf"], UsageError, "needs --data"),
        (["eval", "a.gguf", "b.gguf", "--against", "c.gguf"], UsageError, "a checkpoint is evaluated by itself"),
        (
            ["card", "/no/such.safetensors", "m.gguf", "--evaluation", "e"],
            UsageError,
            "is not what `ternrun train eval",
        ),
        (["eval", "m.gguf", "--data", "d", "--humaneval", "h"], UsageError, "say --run-generated-code"),
        (["export", "c.safetensors", "m.onnx", "--repeat-penalty", "1.1"], UsageError, "recommends no sampling"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], error: type[TernrunError], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message) as caught:
        ternrun_train(*words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eval", "--windows", "-1"], "'-1' is not a whole number from 0"),
        (["eval", "--positions", "0"], "'0' is not a whole number from 1"),
        (["data", "python", "--out", "x", "--repeat", "rich=0"], "with TIMES from 1"),
        (["eval", "--lines", "few"], "'few' is not a whole number from 0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        ternrun_train(*words)
    assert message in capsys.readouterr().err
