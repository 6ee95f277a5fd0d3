"""Slots on the disk: what was restored is in the cache and gives the same bits; nothing else gets in, or out."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ternrun.api import load
from ternrun.errors import ConfigError
from ternrun.server.settings import ServerConfig
from tests.fakes import fake_gguf, fake_weights
from tests.server.serving import Server, running

PROMPT = "To be saved, a prompt must fill a block of sixteen tokens, or several."
ASKED = {"temperature": 0, "n_predict": 20, "ignore_eos": True, "n_probs": 3, "cache_prompt": True}


@contextmanager
def saving(path: Path, folder: Path, **engine: Any) -> Iterator[Server]:
    with running(ServerConfig(port=0, slot_save_path=str(folder)), lambda: load(path, threads=1, **engine)) as it:
        yield it


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("slots")


@pytest.fixture(scope="module")
def one(path: Path, folder: Path) -> Iterator[Server]:
    with saving(path, folder) as it:
        yield it


def complete(server: Server, prompt: str = PROMPT, **fields: Any) -> Any:
    answer = server.ask("/completion", ASKED | {"prompt": prompt} | fields)
    assert answer.status == 200, answer.body
    return answer.json


def act(server: Server, action: str, slot: Any = 0, **body: Any) -> Any:
    answer = server.ask(f"/slots/{slot}?action={action}", body)
    assert answer.status == 200, answer.body
    return answer.json


def refused(server: Server, action: str, slot: Any = 0, **body: Any) -> tuple[int, str]:
    answer = server.ask(f"/slots/{slot}?action={action}", body)
    assert answer.status != 200
    return answer.status, answer.json["error"]["message"]


@pytest.mark.parametrize("kv_type", ["f16", "f32", "int8"])
def test_a_restart_changes_nothing(path: Path, tmp_path: Path, kv_type: str) -> None:
    with saving(path, tmp_path, kv_type=kv_type) as before:
        first = complete(before, id_slot=3)
        assert first["id_slot"] == 3
        whole = len(PROMPT) + 20 - 1  # keys and values of the last token were not wanted
        saved = act(before, "save", 3, filename="a b.bin")
        assert (saved["id_slot"], saved["filename"], saved["n_saved"]) == (3, "a b.bin", whole // 16 * 16)
    file = tmp_path / "a b.bin"
    assert [*tmp_path.iterdir()] == [file]
    assert (file.stat().st_size, stat.S_IMODE(file.stat().st_mode)) == (saved["n_written"], 0o600)
    with saving(path, tmp_path, kv_type=kv_type) as after:
        restored = act(after, "restore", 1, filename="a b.bin")
        assert (restored["n_restored"], restored["n_read"]) == (saved["n_saved"], saved["n_written"])
        again = complete(after)
        assert (again["id_slot"], again["tokens_cached"]) == (1, (len(PROMPT) - 1) // 16 * 16)
        assert again["completion_probabilities"] == first["completion_probabilities"]
        longer = complete(after, PROMPT + first["content"])
        assert longer["tokens_cached"] >= saved["n_saved"] - 16
        assert act(after, "save", 1, filename="a b.bin")["n_saved"] > saved["n_saved"]  # over what was there
        for table in (after.model.driver.engine.cache,):
            assert table.available == table.n_blocks


def test_a_slot_is_what_ran_there_last(one: Server) -> None:
    """A prompt that goes on runs where it began, another one elsewhere."""
    begun = complete(one, "a" * 40)
    assert complete(one, "b" * 40)["id_slot"] != begun["id_slot"]
    assert complete(one, "a" * 40 + begun["content"] + "more")["id_slot"] == begun["id_slot"]
    chat = {"messages": [{"role": "user", "content": "c" * 40}], "max_tokens": 2, "id_slot": 5}
    assert one.ask("/v1/chat/completions", chat).status == 200
    assert act(one, "save", 5, filename="chat")["n_saved"] >= 32
    assert one.ask("/completion", {"prompt": "a", "id_slot": 16}).json["error"]["param"] == "id_slot"


def test_erase(one: Server) -> None:
    text = "d" * 50
    slot = complete(one, text)["id_slot"]
    assert complete(one, text)["tokens_cached"] == 48
    assert act(one, "erase", slot)["n_erased"] == 64
    assert refused(one, "save", slot, filename="x") == (
        400, "the cache holds nothing of this slot, not even one block of tokens",
    )  # fmt: skip
    again = complete(one, text)
    assert again["tokens_cached"] == 0
    slot = again["id_slot"]
    assert one.ask(f"/slots/{slot}?action=erase", method="POST").json["n_erased"] == 64  # as llama.cpp's tests ask


@pytest.mark.parametrize(
    "name",
    ["", "../x", "a/b", "a\\b", "..", ".hidden", "x.", " x", "a\0b", "a\nb", "c:d", "\ud800", "x" * 201, "é" * 101, 7],
)  # fmt: skip
def test_names_are_names(one: Server, folder: Path, name: Any) -> None:
    files = {file.name for file in folder.parent.rglob("*")}
    for action in ("save", "restore"):
        status, message = refused(one, action, filename=name)
        assert (status, message.startswith("filename: ")) == (400, True)
    assert {file.name for file in folder.parent.rglob("*")} == files


def test_nothing_else_is_overwritten_or_read(one: Server, folder: Path) -> None:
    slot = complete(one, "e" * 40)["id_slot"]
    (folder / "notes.txt").write_text("mine")
    (folder / "sub").mkdir()
    for name in ("notes.txt", "sub"):
        assert refused(one, "save", slot, filename=name)[0] == 400
    assert (folder / "notes.txt").read_text() == "mine"
    assert refused(one, "restore", filename="notes.txt") == (400, "filename: this file is no saved slot")
    for name in ("sub", "none"):
        assert refused(one, "restore", filename=name) == (404, "filename: no slot was saved there")
    assert refused(one, "frob", filename="x")[1] == "action: must be save, restore or erase"
    for bad in ("16", "-1", "x", "9" * 5000):
        assert refused(one, "save", bad, filename="x")[0] == 400


def cut(data: bytearray) -> None:
    del data[-1]


def flip(data: bytearray) -> None:
    data[-100] ^= 1


def lie(data: bytearray) -> None:
    data[12:16] = (2**32 - 16).to_bytes(4, "little")


def empty(data: bytearray) -> None:
    data[12:16] = bytes(4)
    del data[72:-32]


def newer(data: bytearray) -> None:
    data[8] = 9


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "this file is damaged: it is not as long as it says"),
        (flip, "this file is damaged: its checksum is another"),
        (lie, "this file is damaged: it is not as long as it says"),
        (empty, "this file is damaged: it is not as long as it says"),
        (newer, "this file was saved in another version's format (9, not 1)"),
    ],
)
def test_damage(one: Server, folder: Path, damage: Callable[[bytearray], None], says: str) -> None:
    text = f"{says} {damage.__name__}" + "f" * 40
    slot = complete(one, text)["id_slot"]
    act(one, "save", slot, filename="damaged")
    act(one, "erase", slot)
    data = bytearray((folder / "damaged").read_bytes())
    damage(data)
    (folder / "damaged").write_bytes(data)
    assert refused(one, "restore", slot, filename="damaged") == (400, f"filename: {says}")
    assert complete(one, text)["tokens_cached"] == 0
    cache = one.model.driver.engine.cache
    assert cache.available == cache.n_blocks


def test_another_model_refuses_it(one: Server, path: Path, folder: Path, tmp_path: Path) -> None:
    slot = complete(one, "g" * 200)["id_slot"]
    act(one, "save", slot, filename="mine")
    other = fake_gguf(tmp_path / "other.gguf", fake_weights("llama", seed=1))
    with saving(other, folder) as stranger:
        assert refused(stranger, "restore", filename="mine") == (
            400,
            "filename: this file was saved from another model",
        )
    with saving(path, folder, kv_type="int8") as narrow:
        assert "keys and values of another kind" in refused(narrow, "restore", filename="mine")[1]
    with saving(path, folder, context=128) as small:
        assert refused(small, "restore", filename="mine") == (400, "the cache has no room for 208 tokens more")


def test_a_full_disk_is_told(one: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    slot = complete(one, "h" * 40)["id_slot"]
    monkeypatch.setattr("ternrun.server.llamacpp.slot_file.blake2b", full)
    assert refused(one, "save", slot, filename="full") == (
        500, "the slot's file cannot be used: No space left on device",
    )  # fmt: skip
    assert not [file for file in folder.iterdir() if file.name.startswith(".") or file.name == "full"]


def test_only_where_it_was_asked_for(server: Server, tmp_path: Path) -> None:
    assert refused(server, "save", filename="x") == (
        400, "this server saves no slots: it was started without --slot-save-path",
    )  # fmt: skip
    assert complete(server, id_slot=3)["id_slot"] == -1
    with pytest.raises(ConfigError, match="is no folder"):
        ServerConfig(slot_save_path=str(tmp_path / "none"))
