"""`ternrun convert`: the file it writes says the same as the one it read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ternrun.loader.convert import HEAD_TYPES, TYPES
from ternrun.loader.default_model import NAME

Run = Callable[..., Any]


def test_converted_model_says_the_same(ternrun: Run, tiny: str, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    done = ternrun("convert", tiny, out, "--type", "tq1_0")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{out}: ")
    assert "TQ1_0" in json.loads(ternrun("inspect", out, "--json").out)["types"]
    call = ["complete", "-n", "8", "--ignore-eos", "--json", "ab", "-m"]
    assert json.loads(ternrun(*call, out).out)["ids"] == json.loads(ternrun(*call, tiny).out)["ids"]


def test_help_names_every_type(capsys: pytest.CaptureFixture[str], ternrun: Run) -> None:
    with pytest.raises(SystemExit):
        ternrun("convert", "--help")
    words = capsys.readouterr().out.replace(",", " ").replace(";", " ").split()
    assert set(TYPES) | set(HEAD_TYPES) <= set(words)


@pytest.mark.parametrize(
    ("argv", "message"),
    [(["--type", "tq3_0"], "not a type to convert to"), (["--type", "tq2_0", "--head", "tq2_0"], "not a type")],
)
def test_wrong_types_are_one_sentence(ternrun: Run, tiny: str, tmp_path: Path, argv: list[str], message: str) -> None:
    done = ternrun("convert", tiny, tmp_path / "out.gguf", *argv)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("Q4_K_M", "'Q4_K_M' is a type that llama.cpp's llama-quantize makes (first --type f16, then llama-quantize"),
        ("q6_k", "llama-quantize F16.gguf OUT.gguf Q6_K"),
        ("iq4_nl", "llama-quantize F16.gguf OUT.gguf IQ4_NL"),
        ("q3_K_L", "llama-quantize F16.gguf OUT.gguf Q3_K_L"),
        ("MXFP4_MOE", "llama-quantize F16.gguf OUT.gguf MXFP4_MOE"),
        ("q4", "did you mean q4_"),
        ("tq2", "did you mean tq2_0"),
        ("nonsense", "is not a type to convert to; ternrun writes tq2_0"),
    ],
)
def test_types_of_other_programs_are_told_how_to_make(
    ternrun: Run, tiny: str, tmp_path: Path, given: str, message: str
) -> None:
    done = ternrun("convert", tiny, tmp_path / "out.gguf", "--type", given)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "written"),
    [("Q4_0", "Q4_0"), ("q4_1", "Q4_1"), ("Q5_0", "Q5_0"), ("q5_1", "Q5_1"), ("TQ1_0", "TQ1_0"), ("TQ2_0", "TQ2_0"),
     ("F16", "F16"), ("fp16", "F16"), ("float16", "F16"), ("BF16", "BF16"), ("bfloat16", "BF16"), ("fp32", "F32"),
     ("Q8_0", "Q8_0"), ("q8", "Q8_0"), ("tq2-0", "TQ2_0")],
)  # fmt: skip
def test_a_type_may_be_spelt_as_other_programs_do(
    ternrun: Run, tiny: str, tmp_path: Path, given: str, written: str
) -> None:
    out = tmp_path / "out.gguf"
    assert ternrun("convert", tiny, out, "--type", given).code == 0
    assert written in json.loads(ternrun("inspect", out, "--json").out)["types"]


def test_a_file_is_written_over_only_by_force(ternrun: Run, tiny: str, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"precious")
    done = ternrun("convert", tiny, out, "--type", "q8_0")
    assert (done.code, done.err) == (2, f"ternrun: error: {out} is there already; --force writes over it\n")
    assert out.read_bytes() == b"precious"
    assert ternrun("convert", tiny, out, "--type", "q8_0", "--force").code == 0
    assert out.read_bytes()[:4] == b"GGUF"


def test_what_is_no_regular_file_stays(ternrun: Run, tiny: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    done = ternrun("convert", tiny, pipe, "--type", "tq2_0")
    assert (done.code, done.err) == (2, f"ternrun: error: {pipe} is no regular file; name another to write\n")
    assert pipe.is_fifo()


def test_a_pre_tokenizer_that_nobody_knows_is_not_written(ternrun: Run, tmp_path: Path) -> None:
    done = ternrun("convert", NAME, tmp_path / "out.gguf", "--type", "tq2_0", "--pre", "nobodys")
    assert done.code == 2
    assert "pre-tokenizer 'nobodys' is not known" in done.err
    assert not list(tmp_path.iterdir())
