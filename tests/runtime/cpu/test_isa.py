"""Which instruction set is chosen, and what is refused."""

from __future__ import annotations

from pathlib import Path

import llvmlite.binding as llvm
import pytest

from ternrun.errors import ConfigError
from ternrun.runtime import cpu
from ternrun.runtime.config import EngineConfig
from ternrun.runtime.cpu.compile import cache_files, isa
from ternrun.runtime.cpu.compile import host as cpu_host
from tests.runtime.cpu.test_model import WEIGHTS

AVX2 = dict.fromkeys(("sse2", "avx2", "f16c", "fma"), True)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A CPU with AVX2 and no more, and no wishes in the environment."""
    monkeypatch.delenv(isa.ENV, raising=False)
    monkeypatch.setattr(isa, "host", lambda: ("haswell", AVX2))
    return monkeypatch


def test_takes_the_best_there_is(host: pytest.MonkeyPatch) -> None:
    assert isa.available() == ["avx2", "portable"]
    assert isa.select_isa() == isa.Isa("avx2", "x86-64-v3", "", "the best this CPU has")
    host.setattr(isa, "host", lambda: ("zen4", dict.fromkeys(isa.REQUIRED["avx512"], True) | AVX2 | {"sse4a": False}))
    best = isa.select_isa()
    assert (best.name, best.cpu) == ("avx512", "zen4")
    assert not best.has_dot_bytes
    assert "+avx512bw" in best.features.split(",")
    assert "-sse4a" in best.features.split(",")


def test_byte_dot_products(host: pytest.MonkeyPatch) -> None:
    assert isa.select_isa().has_dot_bytes
    assert not isa.select_isa("portable").has_dot_bytes
    host.setattr(isa, "host", lambda: ("alderlake", AVX2 | {"avxvnni": True}))
    assert isa.available() == ["avxvnni", "avx2", "portable"]
    assert isa.select_isa() == isa.Isa("avxvnni", "x86-64-v3", "+avxvnni", "the best this CPU has")
    assert isa.select_isa().has_dot_bytes
    host.setattr(isa, "host", lambda: ("zen4", dict.fromkeys((*isa.REQUIRED["avx512"], "avx512vnni"), True)))
    assert isa.select_isa().has_dot_bytes


def test_other_machines_run_portable_code(host: pytest.MonkeyPatch) -> None:
    host.setattr(isa, "host", lambda: ("generic", {}))
    assert isa.select_isa() == isa.Isa("portable", "generic", "", "the best this CPU has")


def test_platforms_that_llvm_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> None:
        raise RuntimeError("no such platform")

    monkeypatch.setattr(llvm, "get_host_cpu_features", unknown)
    assert cpu_host.ask_llvm()[1] == {}


def full(path: Path, content: bytes) -> None:
    raise OSError("No space left on device")


def test_llvm_is_asked_once_for_each_kind_of_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def answer() -> tuple[str, dict[str, bool]]:
        asked.append(1)
        return "zen4", {"avx2": True, "amx": False}

    monkeypatch.setenv("TERNRUN_CACHE", str(tmp_path))
    monkeypatch.setattr(cpu_host, "ask_llvm", answer)
    monkeypatch.setattr(cpu_host, "CPUINFO", tmp_path / "cpuinfo")
    uncached = cpu_host.host.__wrapped__
    for text, times in (("flags: a b\n\nflags: c", 1), ("flags: a b\ncpu MHz: 9\n\n", 1), ("flags: a\n\n", 2)):
        (tmp_path / "cpuinfo").write_text(text)
        assert uncached() == answer()
        asked.pop()
        assert len(asked) == times
    for kept in (tmp_path / "cpu").iterdir():
        kept.write_bytes(kept.read_bytes().replace(b"zen4", b"zen5"))
    assert uncached() == answer(), "a damaged answer is asked for again"
    monkeypatch.setattr(cache_files, "write", full)
    (tmp_path / "cpuinfo").write_text("flags: b\n\n")
    assert uncached() == answer(), "what cannot be kept is told all the same"
    (tmp_path / "cpuinfo").unlink()
    assert uncached() == answer(), "where Linux says nothing, LLVM is asked every time"


def test_can_be_forced(host: pytest.MonkeyPatch) -> None:
    host.setenv(isa.ENV, "portable")
    assert isa.select_isa().name == "portable"
    assert isa.select_isa().reason == "forced"
    assert isa.select_isa("avx2").name == "avx2"


def test_refuses_what_it_cannot_run(host: pytest.MonkeyPatch) -> None:
    for wish, words in (
        ("avx512", "needs CPU features that this machine lacks"),
        ("sse9", "is unknown; choose one of"),
    ):
        host.setenv(isa.ENV, wish)
        with pytest.raises(ConfigError, match=words):
            isa.select_isa()
        with pytest.raises(ConfigError, match=words):
            cpu.load(WEIGHTS, EngineConfig(threads=1))
