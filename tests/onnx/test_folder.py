"""Which graph of a folder is opened, and what is read beside it."""

import json
from pathlib import Path

import pytest

from ternrun import LoadError, UsageError, cli
from ternrun.loader.convert import convert
from ternrun.loader.onnx.folder import model_file, stated_context, stated_width
from ternrun.loader.onnx.write import write_onnx
from tests.fakes import fake_weights


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("names", "variant", "chosen"),
    [
        (["model.onnx", "model_q4f16.onnx"], None, "model.onnx"),
        (["onnx/model.onnx", "onnx/model_q4f16.onnx", "onnx/model_q4.onnx"], "q4f16", "onnx/model_q4f16.onnx"),
        (["onnx/decoder_model_merged.onnx", "onnx/decoder_model_merged_q4.onnx"], "q4", None),
        (["decoder_model.onnx", "decoder_with_past_model.onnx"], None, "decoder_with_past_model.onnx"),
        (["anything.onnx"], None, "anything.onnx"),
    ],
)
def test_the_file_to_open(names: list[str], variant: str | None, chosen: str | None, tmp_path: Path) -> None:
    assert model_file(files(tmp_path, *names), variant) == tmp_path / (chosen or names[-1])


def test_a_folder_of_onnxruntime_genai(tmp_path: Path) -> None:
    files(tmp_path, "model.onnx", "other.onnx")
    genai = {"model": {"context_length": 900, "decoder": {"filename": "other.onnx", "head_size": 24}}}
    (tmp_path / "genai_config.json").write_text(json.dumps(genai))
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 700, "head_dim": 16}))
    assert model_file(tmp_path).name == "other.onnx"
    assert (stated_context(tmp_path), stated_width(tmp_path)) == (900, 24)
    genai["model"]["decoder"]["filename"] = "../other.onnx"
    (tmp_path / "genai_config.json").write_text(json.dumps(genai))
    assert model_file(tmp_path).name == "model.onnx"


@pytest.mark.parametrize(
    ("config", "context", "width"),
    [
        ({"max_position_embeddings": 700, "head_dim": 16}, 700, 16),
        ({"text_config": {"max_position_embeddings": 60}, "hidden_size": 64, "num_attention_heads": 4}, 60, 16),
        ({"max_position_embeddings": True, "text_config": 3, "hidden_size": 64, "num_attention_heads": 0}, 0, 0),
        ({"max_position_embeddings": 1 << 30, "head_dim": -1}, 0, 0),
    ],
)
def test_what_config_json_states(config: dict[str, object], context: int, width: int, tmp_path: Path) -> None:
    assert (stated_context(tmp_path), stated_width(tmp_path)) == (0, 0)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert (stated_context(tmp_path), stated_width(tmp_path)) == (context, width)


def test_no_one_choice(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="holds 2 ONNX files"):
        model_file(files(tmp_path, "a.onnx", "b.onnx"))
    with pytest.raises(UsageError, match="has no variant 'q8'; it has q4"):
        model_file(files(tmp_path / "c", "model.onnx", "model_q4.onnx"), "q8")


def test_commands_take_a_variant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files(tmp_path, "onnx/model.onnx")  # damaged: it is not the one asked for
    write_onnx(tmp_path / "onnx" / "model_q2.onnx", fake_weights("qwen3"), "int2")
    assert cli.main(["inspect", str(tmp_path), "--variant", "q2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metadata"]["onnx.opset"] == 25
    assert cli.main(["inspect", str(tmp_path), "--variant", "q3"]) != 0
    assert "it has q2" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"call it \.gguf"):
        convert(tmp_path / "onnx" / "model_q2.onnx", tmp_path / "back.onnx", "tq2_0")
