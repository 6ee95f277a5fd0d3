"""Models by the hub's names: downloaded once, found again, and never in silence another one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ternrun.commands import models
from tests.commands.conftest import Done
from tests.fake_hub import COMMIT, FakeHub, fake_hub

Run = Callable[..., Done]


@pytest.fixture
def hub(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with a model in two encodings; nothing of it is on this machine."""
    data = Path(tiny).read_bytes()
    with fake_hub() as server:
        server.files = {"m-Q8_0.gguf": data, "m-TQ2_0.gguf": data, "sub/x-Q4_0.gguf": data}
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setenv("TERNRUN_MODELS", str(tmp_path / "models"))
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.chdir(tmp_path)
        yield server


def cached(tiny: str, folder: Path, name: str = "m-Q8_0.gguf") -> None:
    """The layout that huggingface_hub keeps: blobs, and links to them."""
    blob = folder / "models--me--model/blobs/abc"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(Path(tiny).read_bytes())
    place = folder / f"models--me--model/snapshots/{COMMIT}/{name}"
    place.parent.mkdir(parents=True)
    place.symlink_to(blob)


@pytest.mark.parametrize(
    "words",
    [["-hf", "me/model"], ["-m", "hf:me/model"], ["hf:me/model"], ["hf.co/me/model"], ["--hf-repo=me/model"]],
)
def test_a_model_of_the_hub_is_downloaded_and_run(hub: FakeHub, ternrun: Run, tiny: str, words: list[str]) -> None:
    if words[0] == "hf.co/me/model":
        words = [f"{hub.url}/me/model"]
    done = ternrun("complete", *words, "-n", "2", "-p", "ab")
    assert done.code == 0
    assert done.err.startswith("ternrun: downloading m-TQ2_0.gguf, ")
    assert done.out == ternrun("complete", tiny, "-n", "2", "ab").out


def test_a_second_run_needs_no_hub(hub: FakeHub, ternrun: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ternrun("tokenize", "-hf", "me/model:Q8_0", "ab").code == 0
    asked = len(hub.ranges)
    for name in ("me/model", "hf:me/model:q8_0", "me/model:Q8_0", f"{hub.url}/me/model/blob/main/m-Q8_0.gguf"):
        done = ternrun("tokenize", name, "ab")
        assert (done.code, done.err) == (0, ""), name
    assert len(hub.ranges) == asked
    monkeypatch.setenv("TERNRUN_MODEL", "me/model")
    assert ternrun("tokenize", "ab").err == ""


def test_a_pulled_model_is_found_by_its_name(hub: FakeHub, ternrun: Run, tmp_path: Path) -> None:
    assert ternrun("pull", f"{hub.url}/me/model/resolve/main/sub/x-Q4_0.gguf?download=true").out == "x-Q4_0.gguf\n"
    assert ternrun("tokenize", "me/model", "ab").code == 0
    assert ternrun("pull", "me/model:Q4_0").err.startswith("ternrun: here already: sub/x-Q4_0.gguf")
    (tmp_path / "x-Q4_0.gguf").unlink()
    assert "me/model does not exist here" in ternrun("tokenize", "me/model", "ab").err


def test_advice_works_as_it_is_given(hub: FakeHub, ternrun: Run) -> None:
    err = ternrun("complete", "-m", "me/model:Q8_0", "ab").err
    advice = err.split("`ternrun ")[1].split("`")[0].split()
    assert ternrun(*advice).code == 0
    assert ternrun("complete", "-m", "me/model:Q8_0", "-n", "1", "ab").code == 0


def test_the_hubs_own_cache_is_used(hub: FakeHub, ternrun: Run, tiny: str, tmp_path: Path) -> None:
    cached(tiny, tmp_path / "cache")
    for name in ("me/model", "hf:me/model:Q8_0", "hf:me/model/m-Q8_0.gguf"):
        done = ternrun("tokenize", name, "ab")
        assert (done.code, done.err) == (0, "")
    assert "me/model:Q4_0 does not exist here" in ternrun("tokenize", "me/model:Q4_0", "ab").err
    assert "hf:me/model/m-Q8_0.gguf" in ternrun("list").out


def test_what_the_hub_does_not_have_is_one_sentence(hub: FakeHub, ternrun: Run) -> None:
    for name, message in {
        "hf:me/absent": "no repository 'me/absent'",
        "hf:me/model:Q3_K": "no GGUF file of type Q3_K; it has Q4_0, Q8_0, TQ2_0",
        "hf:me/model/y.gguf": "no file 'y.gguf'",
    }.items():
        done = ternrun("serve", name)
        assert (done.code, done.out) == (2, "")
        assert message in done.err
        assert done.err.count("\n") == 1


def test_without_network_or_extra_it_is_one_sentence(hub: FakeHub, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ternrun", "complete", "-hf", "me/model", "ab"]
    done = subprocess.run(
        command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "HF_HUB_OFFLINE is set" in done.stderr


def test_without_the_extra_it_says_what_to_install(hub: FakeHub, ternrun: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    done = ternrun("complete", "-hf", "me/model", "ab")
    assert (done.code, "pip install 'ternrun[hub]'" in done.err, done.err.count("\n")) == (2, True, 1)


def test_the_default_model_is_that_of_the_environment(
    ternrun: Run, tiny: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = ternrun("complete", "-m", tiny, "-n", "2", "ab").out
    monkeypatch.setenv("TERNRUN_MODEL", tiny)
    assert ternrun("complete", "-n", "2", "ab").out == expected
    assert ternrun("inspect").out.startswith(tiny)
    assert ternrun("complete", "code-9m", "-n", "2", "ab").out != expected
    monkeypatch.setenv("TERNRUN_MODEL", "")  # as good as none
    assert "code-9m" in ternrun("inspect").out
    monkeypatch.setenv("TERNRUN_MODEL", str(tmp_path / "absent.gguf"))
    assert "absent.gguf does not exist" in ternrun("complete", "ab").err


def test_compiling_each_time_is_not_called_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERNRUN_CACHE", str(tmp_path / "kernels"))
    assert models.compiling().endswith(", this once")
    monkeypatch.setenv("TERNRUN_CACHE", "/dev/null/kernels")
    assert "each time" in models.compiling()
