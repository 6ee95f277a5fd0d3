"""Which instruction set is chosen, and what is refused."""

from __future__ import annotations

import llvmlite.binding as llvm
import pytest

from ternrun.errors import ConfigError
from ternrun.runtime import cpu
from ternrun.runtime.config import EngineConfig
from ternrun.runtime.cpu import isa
from tests.runtime.cpu.test_model import WEIGHTS

AVX2 = dict.fromkeys(("sse2", "avx2", "f16c", "fma"), True)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A CPU with AVX2 and no more, and no wishes in the environment."""
    monkeypatch.delenv(isa.ENV, raising=False)
    monkeypatch.setattr(isa, "_host", lambda: ("haswell", AVX2))
    return monkeypatch


def test_takes_the_best_there_is(host: pytest.MonkeyPatch) -> None:
    assert isa.available() == ["avx2", "portable"]
    assert isa.pick() == isa.Isa("avx2", "x86-64-v3", "", "the best this CPU has")
    host.setattr(isa, "_host", lambda: ("zen4", dict.fromkeys(isa.REQUIRED["avx512"], True) | AVX2 | {"sse4a": False}))
    best = isa.pick()
    assert (best.name, best.cpu) == ("avx512", "zen4")
    assert "+avx512bw" in best.features.split(",")
    assert "-sse4a" in best.features.split(",")


def test_other_machines_run_portable_code(host: pytest.MonkeyPatch) -> None:
    host.setattr(isa, "_host", lambda: ("generic", {}))
    assert isa.pick() == isa.Isa("portable", "generic", "", "the best this CPU has")


def test_platforms_that_llvm_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> None:
        raise RuntimeError("no such platform")

    monkeypatch.setattr(llvm, "get_host_cpu_features", unknown)
    isa._host.cache_clear()
    try:
        assert isa.available() == ["portable"]
    finally:
        isa._host.cache_clear()


def test_can_be_forced(host: pytest.MonkeyPatch) -> None:
    host.setenv(isa.ENV, "portable")
    assert isa.pick().name == "portable"
    assert isa.pick().reason == "forced"
    assert isa.pick("avx2").name == "avx2"


def test_refuses_what_it_cannot_run(host: pytest.MonkeyPatch) -> None:
    for wish, words in (
        ("avx512", "needs CPU features that this machine lacks"),
        ("sse9", "is unknown; choose one of"),
    ):
        host.setenv(isa.ENV, wish)
        with pytest.raises(ConfigError, match=words):
            isa.pick()
        with pytest.raises(ConfigError, match=words):
            cpu.load(WEIGHTS, EngineConfig(threads=1))
