"""`ternrun train` from text to a model file, and what it says to mistakes."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from ternrun.cli import main
from ternrun.errors import ConfigError, LoadError, TernrunError, UsageError
from ternrun.loader.model import open_model
from ternrun.train.commands.hints import SETTINGS
from ternrun.train.config import DataConfig, DecoderConfig, OptimizerConfig, RunConfig
from ternrun.train.config_file import load_config
from ternrun.train.loop import checkpoint
from ternrun.train.loop.loss_curve import draw
from ternrun.train.loop.run_log import RunLog
from tests.train.runs import TINY, settings, ternrun_train

KINDS: dict[str, type] = {"model": DecoderConfig, "data": DataConfig, "optim": OptimizerConfig, "run": RunConfig}


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
    with pytest.raises(UsageError, match="MODEL_CARD.md is there already; --force writes over it"):
        ternrun_train(*card, tmp_path / "e.json")
    with pytest.raises(LoadError, match="the evaluation is not of"):
        ternrun_train(*card, tmp_path / "e.json", "--force")
    (tmp_path / "e.json").write_text('{"name": "m"}')
    with pytest.raises(UsageError, match="not a list of results"):
        ternrun_train(*card, tmp_path / "e.json", "--force")


def test_a_run_is_not_begun_over_another(run_folder: Path, data_folder: Path) -> None:
    with pytest.raises(UsageError, match="already holds a run; --resume continues it"):
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


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    lines = [f"line {i} of a text that is long enough to learn a vocabulary from" for i in range(200)]
    rows = [{"text": line} for line in lines]
    (tmp_path / "notes.txt").write_text("\n".join(lines))
    (tmp_path / "README").write_text("\n".join(lines))
    (tmp_path / "short.md").write_text("A text of a few words.\nAnd another line of it.\n")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "rows.ndjson").write_text((tmp_path / "rows.jsonl").read_text())
    (tmp_path / "list.json").write_text(json.dumps(rows))
    for folder, name in (("texts", "notes.txt"), ("tables", "rows.jsonl")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes((tmp_path / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("sources", "documents"),
    [
        (["notes.txt"], 1), (["text:notes.txt"], 1), (["README"], 1), (["short.md"], 1), (["rows.jsonl"], 200),
        (["rows.ndjson"], 200), (["list.json"], 200), (["texts"], 1), (["tables"], 200), (["notes.txt", "short.md"], 2),
        (["./notes.txt"], 1),
    ],
)  # fmt: skip
def test_a_path_is_a_source_by_what_it_is(
    sources: list[str], documents: int, corpora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(corpora)
    assert ternrun_train("data", *sources, "--out", "d", "--keep-duplicates") == 0
    parts = json.loads((corpora / "d" / "manifest.json").read_text())["parts"]
    assert min(parts["train"]["tokens"], parts["val"]["tokens"]) > 1
    shared = parts["train"]["documents"] + parts["val"]["documents"]
    assert shared == (documents if documents > 2 else 2 * documents)  # a few are each cut in two


def test_a_table_without_the_column_names_those_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"story": "once", "title": "t", "n": 1}\n')
    with pytest.raises(LoadError, match=r"line 1 .* the key 'text'; it has 'story', 'title': choose one with --column"):
        ternrun_train("data", tmp_path / "a.jsonl", "--out", tmp_path / "d")


def test_a_runs_folder_is_its_best_checkpoint(
    run_folder: Path, data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ternrun_train("export", run_folder, tmp_path / "m.gguf") == 0
    assert f"using {run_folder / 'best.safetensors'}" in capsys.readouterr().err
    ternrun_train("export", run_folder / "best.safetensors", tmp_path / "n.gguf", "--name", "m")
    assert (tmp_path / "m.gguf").read_bytes() == (tmp_path / "n.gguf").read_bytes()
    assert ternrun_train("eval", "--windows", "2", run_folder) == 0  # the word behind the flags
    assert "bits per byte" in capsys.readouterr().out
    with pytest.raises(LoadError, match=r"m.gguf is a model file, not a checkpoint; `ternrun convert`"):
        ternrun_train("export", tmp_path / "m.gguf", tmp_path / "o.gguf")
    with pytest.raises(UsageError, match=r"m.gguf is there already; --force writes over it"):
        ternrun_train("export", run_folder, tmp_path / "m.gguf")
    assert ternrun_train("export", run_folder, tmp_path / "m.gguf", "--force", "--type", "i2_s") == 0
    with pytest.raises(LoadError, match=f"folder of a training run.*ternrun train export {run_folder}/best"):
        open_model(run_folder)
    forced = ("run", "code-5m", "--out", run_folder, "--force", "--data", data_folder)
    settings = [part for change in (*TINY, "optim.steps=1") for part in ("--set", change)]
    assert ternrun_train(*forced, *settings) == 0
    assert [e["step"] for e in RunLog.entries(run_folder / "log.jsonl") if "val_loss" in e] == [1]
    assert checkpoint.load(run_folder / "best.safetensors").state.step == 1


def test_a_preset_tried_with_few_steps_keeps_the_shares_of_its_phases() -> None:
    few = load_config("shakespeare-char", ["optim.steps=10"]).optim
    assert (few.steps, few.decay_steps, few.warmup_steps) == (10, 5, 0)
    chosen = load_config("shakespeare-char", ["optim.steps=1500", "optim.decay_steps=300"]).optim
    assert (chosen.decay_steps, chosen.warmup_steps) == (300, 50)
    with pytest.raises(ConfigError, match="decay_steps 20 exceeds steps 10"):
        load_config("shakespeare-char", ["optim.steps=10", "optim.decay_steps=20"])


def test_a_curve_of_one_point_has_a_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    drawn = []
    monkeypatch.setattr(Axes, "plot", lambda self, x, y, **style: drawn.append((len(x), style["marker"])) or [])
    monkeypatch.setattr(Axes, "legend", lambda self: None)
    log = [{"step": 10, "loss": 3.0}, {"step": 10, "val_loss": 3.1}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))
    draw(tmp_path, print)
    log = [{"step": i, "loss": 3.0} for i in range(100)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))
    draw(tmp_path, print)
    assert drawn == [(1, "o"), (1, "o"), (100, ""), (0, "o")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["run", "shakespeare-char", "--out", "R", "--steps", "5"],
            "--set optim.steps=5 (try `ternrun train run --help`)",
        ),
        (["run", "x", "--out", "R", "--max_iters=7"], "--set optim.steps=7"),
        (["run", "x", "--out", "R", "--lr", "1e-3"], "--set optim.matrix_lr=1e-3"),
        (["run", "x", "--out", "R", "--learning-rate", "0.01"], "--set optim.matrix_lr=0.01"),
        (["run", "x", "--out", "R", "--batch-size", "8"], "--set data.batch=8"),
        (["run", "x", "--out", "R", "--ctx-size", "128"], "--set model.context=128"),
        (["run", "x", "--out", "R", "--device", "cpu"], "--set run.device=cpu"),
        (["run", "x", "--out", "R", "--seed", "3"], "--set run.seed=3"),
        (["run", "x", "--out", "R", "--dropuot", "3"], "did you mean --set optim.dropout=VALUE?"),
        (["run", "x", "--out", "R", "--resum"], "did you mean --resume?"),
        (["run", "x", "--out", "R", "--dataset", "d"], "it is --data here"),
        (["run", "x", "--output-dir", "R"], "it is --out here (try `ternrun train run --help`)"),
        (["run", "x", "--out", "R", "--zzz"], "unrecognized arguments: --zzz (try `ternrun train run --help`)"),
        (["data", "x", "--out", "d", "--val-split", "0.1"], "it is --val-share here"),
        (["data", "x", "--out", "d", "--vocab-size", "500"], "it is --tokenizer bpe:SIZE here"),
        (["export", "R", "m.gguf", "--outtype", "f16"], "it is --type here"),
        (["export", "R", "m.gguf", "--overwrite"], "it is --force here"),
        (
            ["export", "R", "m.gguf", "--steps", "5"],
            "--steps 5 (try `ternrun train export --help`)",
        ),
    ],
)
def test_flags_of_other_trainers_are_told_what_they_are_here(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["train", *words])
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_every_setting_is_told_by_its_own_name() -> None:
    keys = {f"{table}.{f.name}" for table, kind in KINDS.items() for f in fields(kind)}
    assert set(SETTINGS.values()) <= keys
    own = {key.partition(".")[2].replace("_", "-"): key for key in keys} | {"compile": "run.compile"}
    assert {name: SETTINGS.get(name, own[name]) for name in own} == own


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
        (["data", "pytho", "--out", "x"], UsageError, r"'pytho' is not a source; did you mean python\? sources are"),
        (["data", "packages", "--out", "x"], UsageError, "packages needs --installed, --packages or --archives"),
        (["data", "text:/no/such", "--out", "x"], UsageError, "does not exist"),
        (["data", "synthetic:x", "--out", "x"], UsageError, "synthetic data is"),
        (["data", "synthetic:random", "--val-share", "2", "--out", "x"], UsageError, "between 0 and 1"),
        (["data", "synthetic:random", "--tokenizer", "/no/such", "--out", "x"], LoadError, "not a tokenizer file"),
        (["run", "code-6m", "--out", "x"], ConfigError, "neither a config file nor a preset"),
        (
            ["run", "code-5m", "--out", "x", "--set", "data.path=/no/such"],
            UsageError,
            "data SOURCE --out /no/such",
        ),
        (
            ["run", "shakespeare-char", "--out", "x"],
            UsageError,
            "data shakespeare --tokenizer char .*--data FOLDER",
        ),
        (["run", "shakespere-char", "--out", "x"], ConfigError, "did you mean shakespeare-char.* code-5m"),
        (["run", "code-5m", "--data", ".", "--out", "x"], UsageError, "--data FOLDER, made by"),
        (["run", "code-5m", "--out", "x", "--resume"], UsageError, "holds no last.safetensors to resume from"),
        (["run", "code-5m", "--out", "x", "--resume", "--force"], UsageError, "leave one of them out"),
        (["run", "code-5m", "--out", "x", "--set", "steps=5"], UsageError, "here --set optim.steps=5"),
        (["run", "code-5m", "--out", "x", "--set", "optim.step=5"], ConfigError, "did you mean optim.steps"),
        (["data", "notes.txt", "--out", "x"], UsageError, "there is no file or folder notes.txt"),
        (["data", "test:a.txt", "--out", "x"], UsageError, r"did you mean text:a.txt\?"),
        (["export", ".", "m.gguf"], LoadError, "empty folder"),
        (["eval", "/no/run/last.safetensors"], LoadError, "there is no checkpoint"),
        (["export", "/no/such.safetensors", "x.gguf"], LoadError, "there is no checkpoint"),
        (["tokenizer", "synthetic:random", "--out", "."], UsageError, "is a folder; --out names the tokenizer.json"),
        (["eval", "/no/bst.safetensors"], LoadError, "there is no checkpoint /no/bst.safetensors"),
        (["eval", "/no/such.gguf"], UsageError, "needs --data"),
        (["eval", "a.gguf", "b.gguf", "--against", "c.gguf"], UsageError, "a checkpoint is evaluated alone"),
        (
            ["card", "/no/such.safetensors", "m.gguf", "--evaluation", "e"],
            UsageError,
            "is not the output of `ternrun train eval",
        ),
        (["eval", "m.gguf", "--data", "d", "--humaneval", "h"], UsageError, "--run-generated-code allows this"),
        (["export", "c.safetensors", "m.onnx", "--repeat-penalty", "1.1"], UsageError, "cannot recommend sampling"),
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
