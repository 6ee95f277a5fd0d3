"""Other runtimes, played by a script and by a module that only look like them."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from ternrun.bench import llama_python, peers
from ternrun.bench.subject import tokens
from ternrun.bench.works import DECODED, Work
from ternrun.errors import UsageError

PATH = Path("model.gguf")


def script(folder: Path, body: str) -> str:
    path = folder / "llama-bench"
    path.write_text(f"#!{sys.executable}\nimport json, sys\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("work", "flags"),
    [
        (Work("pp", 128), "-p 128 -n 0"),
        (Work("tg", 64), "-p 0 -n 64"),
        (Work("load"), "-p 0 -n 1 --no-warmup"),
        (Work("ctx", 512), f"-p 0 -n {DECODED} -d {512 - DECODED}"),
    ],
)
def test_program_is_asked_for_the_same_work(work: Work, flags: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    body = f"open({str(log)!r}, 'w').write(' '.join(sys.argv[1:])); print(json.dumps([dict(avg_ts=50.0)]))"
    peer = peers.find("llama.cpp", script(tmp_path, body), 2)
    assert peer.can(work)
    assert not peer.can(Work("batch", 8))
    seconds = peer.seconds(PATH, work)
    if work.kind == "load":  # of the whole process
        assert 0.005 < seconds < 30
    else:
        assert seconds == pytest.approx(tokens(work) / 50)
    assert f"-m model.gguf {flags}" in log.read_text()


@pytest.mark.parametrize(
    ("name", "deep", "batched"),
    [
        ("llama.cpp", f"-n {DECODED} -d {512 - DECODED}", ""),
        ("ik_llama.cpp", f"-n 0 -gp {512 - DECODED},{DECODED}", "-rtr"),
    ],
)
def test_each_program_of_the_family_is_asked_in_its_own_words(
    name: str, deep: str, batched: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    body = f"open({str(log)!r}, 'w').write(' '.join(sys.argv[1:])); print('[WARNING', json.dumps([dict(avg_ts=50.0)]))"
    peer = peers.find(name, script(tmp_path, body), 2)
    peer.seconds(PATH, Work("ctx", 512))
    assert deep in log.read_text()
    assert not peer.can(Work("batch", 8))
    body = f"open({str(log)!r}, 'w').write(' '.join(sys.argv[1:])); print(' note |1|'); "
    body += "print('|' + '|'.join('abcdefghij') + '|'); "
    Path(script(tmp_path, body + "print('| 1 | 32 | 8 | 264 | 0.1 | 80.0 | 0.5 | 512.5 | 0.6 | 440.0 |')")).rename(
        tmp_path / "llama-batched-bench"
    )
    assert peer.can(Work("batch", 8))
    assert peer.seconds(PATH, Work("batch", 8)) == pytest.approx(8 * DECODED / 512.5)
    assert f"-npl 8 {batched}".strip() in log.read_text()
    Path(script(tmp_path, "print('| PP | TG |'); sys.exit('out of memory')")).rename(tmp_path / "llama-batched-bench")
    with pytest.raises(UsageError, match=r"could not run model.gguf: out of memory"):
        peer.seconds(PATH, Work("batch", 8))


def test_a_line_that_the_program_lost_is_asked_for_again(tmp_path: Path) -> None:
    peer = peers.find("llama.cpp", script(tmp_path, "pass"), 2)
    log = tmp_path / "log"
    row = "| 1 | 32 | 8 | 264 | 0.1 | 80.0 | 0.5 | 512.5 | 0.6 | 440.0 |"
    body = f"open({str(log)!r}, 'a').write('x'); n = len(open({str(log)!r}).read()); print('| PP | TG |')\n"
    Path(script(tmp_path, body + f"n < 3 or print({row!r})")).rename(tmp_path / "llama-batched-bench")
    assert peer.seconds(PATH, Work("batch", 8)) == pytest.approx(8 * DECODED / 512.5)
    assert log.read_text() == "xxx"
    Path(script(tmp_path, body)).rename(tmp_path / "llama-batched-bench")
    with pytest.raises(UsageError, match="could not run model.gguf"):
        peer.seconds(PATH, Work("batch", 8))


def test_what_a_program_cannot_time_alone_is_not_compared(tmp_path: Path) -> None:
    peer = peers.find("bitnet.cpp", script(tmp_path, "pass"), 2)
    assert [peer.can(work) for work in (Work("pp", 128), Work("tg", 64), Work("load"), Work("ctx", 512))] == [
        True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("body", ["sys.exit('no such architecture')", "print('[]')", "print('[1]')", "pass"])
def test_program_that_fails_is_one_sentence(body: str, tmp_path: Path) -> None:
    peer = peers.find("llama.cpp", script(tmp_path, body), 2)
    with pytest.raises(UsageError, match=r"could not run model.gguf: (no such architecture|it said nothing)"):
        peer.seconds(PATH, Work("tg", 4))


def test_peers_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="these are: llama.cpp, ik_llama.cpp, bitnet.cpp"):
        peers.find("vllm", "", 2)
    with pytest.raises(UsageError, match="not a program"):
        peers.find("llama.cpp", "no/such/program", 2)
    with pytest.raises(UsageError, match="ik_llama.cpp needs --llama-bench"):
        peers.find("ik_llama.cpp", "", 2)
    monkeypatch.setattr(llama_python, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs llama-cpp-python"):
        peers.find("llama.cpp", "", 2)


def test_python_binding_evaluates_as_many_tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[int] = []

    class Llama:
        def __init__(self, path: str, *, n_ctx: int, n_threads: int, n_threads_batch: int, verbose: bool) -> None:
            if path != str(PATH):
                raise ValueError("cannot be opened")
            self.n_ctx = lambda: n_ctx

        def reset(self) -> None:
            calls.clear()

        def eval(self, ids: list[int]) -> None:
            calls.append(len(ids))

    module = ModuleType("llama_cpp")
    module.__spec__ = ModuleSpec("llama_cpp", None)
    module.Llama = Llama  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "llama_cpp", module)
    peer = peers.find("llama.cpp", "", 2)
    for work, evaluated in ((Work("pp", 7), [7]), (Work("tg", 3), [1, 1, 1]), (Work("ctx", 100), [68] + [1] * DECODED)):
        assert peer.seconds(PATH, work) >= 0
        assert calls == evaluated
    with pytest.raises(UsageError, match="could not run other.gguf"):
        peers.find("llama.cpp", "", 2).seconds(Path("other.gguf"), Work("tg", 4))
    (tmp_path / "llama_cpp.py").write_text(
        "class Llama:\n    def __init__(self, path, **options):\n        assert path == 'model.gguf', 'no such file'\n"
        "    def eval(self, ids):\n        self.n_tokens = len(ids)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert peer.can(Work("load"))
    assert 0.005 < peer.seconds(PATH, Work("load")) < 30
    with pytest.raises(UsageError, match=r"could not run other.gguf: AssertionError: no such file"):
        peer.seconds(Path("other.gguf"), Work("load"))
