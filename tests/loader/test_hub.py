"""`pull` against a fake hub on loopback."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from ternrun.errors import LoadError, UsageError
from ternrun.loader.hub import download
from ternrun.loader.hub.file_choice import RemoteFile, choose
from tests.fake_hub import FakeHub, fake_hub


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    with fake_hub() as server:
        yield server


def remote(*names: str) -> list[RemoteFile]:
    return [RemoteFile(name, 1, None, "x") for name in names]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["m-Q4_K_M.gguf", "m-i2_s.gguf", "m-TL1.gguf"], "m-i2_s.gguf"),
        (["m-F16.gguf", "m-Q8_0.gguf", "m_q4_k_m.gguf", "mmproj-Q4_K_M.gguf"], "m_q4_k_m.gguf"),
        (["m-Q8_0.gguf", "m-F16.gguf"], "m-Q8_0.gguf"),
        (["m.IQ2_BN_R4.gguf", "m.IQ2_BN.gguf"], "m.IQ2_BN.gguf"),
        (["model.gguf", "README.md"], "model.gguf"),
    ],
)
def test_chooses_the_best_gguf(names: list[str], chosen: str) -> None:
    choice = choose(remote(*names))
    assert [f.name for f in choice.files] == [chosen]
    assert choice.reason


def test_chooses_a_safetensors_folder_without_strangers() -> None:
    weights = ["model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    settings = ["config.json", "generation_config.json", "chat_template.jinja"]
    wanted = [*weights, *settings, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]
    choice = choose(remote(*wanted, "pytorch_model.bin", "onnx/model.onnx", "sub/config.json", "README.md"))
    assert choice.folder
    assert [f.name for f in choice.files] == wanted


ONNX = ["onnx/model.onnx", "onnx/model_q4.onnx", "onnx/model_q4.onnx_data", "onnx/model_q4.onnx_data_1"]
TEXT = ["config.json", "tokenizer.json", "tokenizer_config.json"]
ENCODER = ["modules.json", "1_Pooling/config.json", "sentence_bert_config.json"]
PARTS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]


@pytest.mark.parametrize(
    ("offered", "wanted", "taken", "model"),
    [
        ([*ONNX, *TEXT], "onnx/model_q4.onnx", [*ONNX[1:], *TEXT], "onnx/model_q4.onnx"),
        ([*ONNX, *TEXT], "onnx/model.onnx", [ONNX[0], *TEXT], "onnx/model.onnx"),
        ([*ONNX, *TEXT], None, [*ONNX[1:], *TEXT], "onnx/model_q4.onnx"),
        (["decoder.onnx", *TEXT], None, ["decoder.onnx", *TEXT], "decoder.onnx"),
        (["cpu/model.onnx", "cpu/model.onnx.data", "cpu/genai_config.json", "README.md"], "cpu/model.onnx",
         ["cpu/model.onnx", "cpu/model.onnx.data", "cpu/genai_config.json"], "cpu/model.onnx"),
        ([*ONNX, *TEXT, *ENCODER, "model.safetensors"], None, [ONNX[0], *TEXT, *ENCODER], "onnx/model.onnx"),
        (["model.safetensors", *TEXT, *ENCODER], None, ["model.safetensors", *TEXT, *ENCODER], "."),
        (["model.safetensors", *TEXT], "model.safetensors", ["model.safetensors", *TEXT], "."),
        (["a/model.safetensors", "a/config.json", *TEXT], "a/model.safetensors",
         ["a/model.safetensors", "a/config.json"], "a"),
        (["consolidated.safetensors", "model.safetensors", *TEXT], None, ["model.safetensors", *TEXT], "."),
        ([*PARTS, *TEXT], PARTS[1], [*PARTS, *TEXT], "."),
    ],
)  # fmt: skip
def test_what_is_taken_can_be_loaded(offered: list[str], wanted: str | None, taken: list[str], model: str) -> None:
    choice = choose(remote(*offered), wanted)
    assert [f.name for f in choice.files] == taken
    assert (choice.folder, choice.model) == (True, model)


def test_takes_all_parts_of_a_split_file_and_misses_one_by_name() -> None:
    parts = [f"m-Q4_0-{i:05}-of-00003.gguf" for i in (1, 2, 3)]
    assert [f.name for f in choose(remote(*parts)).files] == parts
    with pytest.raises(UsageError, match="lacks 'm-Q4_0-00002-of-00003.gguf'"):
        choose(remote(parts[0], parts[2]), parts[0])


@pytest.mark.parametrize(
    ("names", "wanted", "message"),
    [
        (["a.gguf", "b.gguf"], None, "one of: a.gguf, b.gguf"),
        (["vae/x.safetensors", "config.json"], None, "one of: vae/x.safetensors"),
        (["a.onnx", "b.onnx"], None, "one of: a.onnx, b.onnx"),
        (["README.md"], None, "no GGUF, safetensors or ONNX"),
        (["a.gguf"], "b.gguf", "no file 'b.gguf'; it has a.gguf"),
    ],
)
def test_says_what_there_is(names: list[str], wanted: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose(remote(*names), wanted)


def test_pulls_and_does_not_pull_twice(fake: FakeHub, tmp_path: Path) -> None:
    fake.files = {"m-Q8_0.gguf": bytes(range(256)) * 1000}
    path, choice = download.pull("me/model", to=tmp_path, endpoint=fake.url)
    assert path == tmp_path / "m-Q8_0.gguf"
    assert path.read_bytes() == fake.files["m-Q8_0.gguf"]
    assert "Q8_0" in choice.reason
    download.pull("me/model", to=tmp_path, endpoint=fake.url)
    assert len(fake.ranges) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_pulls_a_folder(fake: FakeHub, tmp_path: Path) -> None:
    fake.files = {"config.json": b"{}", "model.safetensors": b"1234"}
    path, _ = download.pull("me/model", to=tmp_path, endpoint=fake.url)
    assert path == tmp_path / "model"
    assert {f.name: f.read_bytes() for f in path.iterdir()} == fake.files


def test_a_folder_is_laid_out_as_the_repository(fake: FakeHub, tmp_path: Path) -> None:
    fake.files = {"onnx/model_q4.onnx": b"12", "onnx/model_q4.onnx_data": b"3", "tokenizer.json": b"{}"}
    path, _ = download.pull("me/model", "onnx/model_q4.onnx", to=tmp_path, endpoint=fake.url)
    assert path == tmp_path / "model" / "onnx" / "model_q4.onnx"
    found = {str(p.relative_to(tmp_path / "model")): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == fake.files


def test_another_file_of_the_same_name_stays(fake: FakeHub, tmp_path: Path) -> None:
    fake.files = {"m-i2_s.gguf": b"this repository's"}
    mine = tmp_path / "m-i2_s.gguf"
    for other in (b"another's", b"That repository's"):
        mine.write_bytes(other)
        with pytest.raises(UsageError, match=r"m-i2_s.gguf is there already, but is not what me/model has"):
            download.pull("me/model", to=tmp_path, endpoint=fake.url)
        assert mine.read_bytes() == other
    assert fake.ranges == []


def test_a_full_disk_is_not_the_network(fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(url: str, out: BinaryIO, **_: object) -> None:
        out.write(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    fake.files = {"m.gguf": b"x" * 100}
    with pytest.raises(OSError, match="No space left") as raised:
        download.pull("me/model", to=tmp_path, endpoint=fake.url)
    (part,) = tmp_path.iterdir()
    assert raised.value.filename == str(part)
    assert part.read_bytes() == b"some"


def test_resumes_where_an_interrupted_download_stopped(
    fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 65536)  # 10 MB there: what a cut may lose
    data = bytes(range(256)) * 4096
    fake.files, fake.cut = {"m.gguf": data}, 300_000
    with pytest.raises(UsageError, match="answered 503 .* again to resume"):
        download.pull("me/model", to=tmp_path, endpoint=fake.url)
    (part,) = tmp_path.iterdir()
    kept = part.stat().st_size
    assert kept == 300_000 // 65536 * 65536
    fake.down = None
    path, _ = download.pull("me/model", to=tmp_path, endpoint=fake.url)
    assert path.read_bytes() == data
    assert fake.ranges[-1] == f"bytes={kept}-"
    assert list(tmp_path.iterdir()) == [path]


def test_refuses_content_that_differs_from_the_digest(fake: FakeHub, tmp_path: Path) -> None:
    fake.files, fake.digests = {"m.gguf": b"x" * 100}, {"m.gguf": "0" * 64}
    with pytest.raises(LoadError, match="damaged"):
        download.pull("me/model", to=tmp_path, endpoint=fake.url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["../evil.gguf", "sub/.hidden.gguf", "a\nb.gguf", "a/../../evil.onnx", "/evil.onnx", "a/.b/evil.onnx"],
)
def test_a_hostile_name_stays_inside_the_folder(fake: FakeHub, tmp_path: Path, name: str) -> None:
    fake.files = {name: b"x"}
    inside = tmp_path / "inside"
    try:
        path, _ = download.pull("me/model", to=inside, endpoint=fake.url)
    except (LoadError, UsageError):
        pass
    else:
        assert path.is_relative_to(inside)
    assert {p.name for p in tmp_path.iterdir()} <= {"inside"}


@pytest.mark.parametrize(
    ("repo", "message"),
    [("me/absent", "no repository 'me/absent'"), ("not a repo", "OWNER/NAME"), ("a/b/c", "OWNER/NAME")],
)
def test_wrong_repositories(fake: FakeHub, tmp_path: Path, repo: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        download.pull(repo, to=tmp_path, endpoint=fake.url)


def test_no_network(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(UsageError, match="connection .* failed"):
            download.pull("me/model", to=tmp_path, endpoint=endpoint)
