"""`ternrun inspect`: the truth about a file, also about one that cannot be run."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fakes import fake_gguf, fake_weights

Run = Callable[..., Any]


def test_json_agrees_with_the_weights(ternrun: Run, tmp_path: Path) -> None:
    weights = fake_weights("llama", "TQ2_0")
    path = fake_gguf(tmp_path / "m.gguf", weights)
    seen = json.loads(ternrun("inspect", path, "--json").out)
    assert {t["name"]: (t["type"], tuple(t["shape"]), t["bytes"]) for t in seen["tensors"]} == {
        t.name: (t.type, t.shape, t.data.size) for t in weights.tensors.values()
    }
    assert seen["parameters"] == sum(entry["weights"] for entry in seen["types"].values())
    ternary = seen["types"]["TQ2_0"]
    assert 8 * ternary["bytes"] / ternary["weights"] == 2.0625
    assert seen["bits_per_weight"] == 8 * sum(t["bytes"] for t in seen["tensors"]) / seen["parameters"]
    assert seen["metadata"]["general.architecture"] == "llama"
    assert seen["metadata"]["tokenizer.ggml.tokens"]["length"] == weights.config.vocab_size
    assert seen["bytes"] == path.stat().st_size
    assert seen["refusals"] == []


def test_for_people(ternrun: Run, tiny: str) -> None:
    done = ternrun("inspect", tiny)
    assert "ternrun can run this model." in done.out
    assert "blk.0.attn_q.weight" not in done.out
    assert "blk.0.attn_q.weight" in ternrun("inspect", tiny, "--tensors").out
    assert "\x1b" not in done.out


def test_says_what_would_be_refused(ternrun: Run, tmp_path: Path) -> None:
    weights = fake_weights("llama")
    for keys, reason in [
        ({"general__architecture": "mamba"}, "mamba"),
        ({"tokenizer__ggml__pre": "klingon"}, "klingon"),
        ({"tokenizer__chat_template": "{% for"}, "template"),
    ]:
        done = ternrun("inspect", fake_gguf(tmp_path / "m.gguf", weights, **keys))
        assert done.code == 0
        assert f"refused: {tmp_path}" in done.out or "refused: " in done.out
        assert reason in done.out.split("refused:")[1]
        assert "can run" not in done.out


def test_names_a_type_that_cannot_be_run(ternrun: Run, tmp_path: Path) -> None:
    name = b"blk.0.attn_q.weight"
    info = struct.pack("<Q", len(name)) + name + struct.pack("<IQQIQ", 2, 256, 4, 38, 0)
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + info
    (tmp_path / "m.gguf").write_bytes(header.ljust((len(header) + 31) // 32 * 32, b"\0") + bytes(512))
    done = ternrun("inspect", tmp_path / "m.gguf")
    assert done.code == 0
    assert "1 tensors: type TL1 is not supported" in done.out


def test_a_hostile_file_does_not_drive_the_terminal(ternrun: Run, tmp_path: Path) -> None:
    path = fake_gguf(tmp_path / "m.gguf", fake_weights("llama"), general__name="\x1b[2Jevil\x07\nname")
    done = ternrun("inspect", path)
    assert "\x1b" not in done.out
    assert "\x07" not in done.out


def test_a_damaged_file_is_one_sentence(ternrun: Run, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF\x03\0\0\0")
    done = ternrun("inspect", tmp_path / "m.gguf")
    assert done.code == 2
    assert done.err.count("\n") == 1
