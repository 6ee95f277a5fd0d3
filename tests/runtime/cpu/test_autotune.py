"""Which instruction set is chosen by measurement, that it is measured once, and what becomes of a bad memory of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ternrun.runtime.cpu import autotune
from ternrun.runtime.cpu.compile import cache_files, isa
from ternrun.runtime.cpu.compile.kernel_cache import folder_for

AVX2 = dict.fromkeys(("sse2", "avx2", "f16c", "fma"), True)
AVX512 = dict.fromkeys(isa.REQUIRED["avx512"], True) | AVX2
Rates = dict[str, list[float]]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
    """A machine with these features, whose instruction sets have these speeds; gives who is measured."""
    monkeypatch.setenv("TERNRUN_CACHE", str(tmp_path))
    monkeypatch.delenv(isa.ENV, raising=False)

    def made(features: dict[str, bool], rates: Rates) -> list[str]:
        asked: list[str] = []

        def measure(chosen: isa.Isa, progress: Any = None) -> list[float]:
            asked.append(chosen.name)
            return rates[chosen.name]

        monkeypatch.setattr(isa, "host", lambda: ("some", features))
        monkeypatch.setattr(autotune, "measure", measure)
        return asked

    return made


@pytest.mark.parametrize(
    ("rates", "fastest"),
    [
        ({"avx512": [8e11, 1e12], "avx2": [2e11, 3e11]}, "avx512"),
        ({"avx512": [2e11, 3e11], "avx2": [3e11, 3e11]}, "avx2"),
        ({"avx512": [2e11, 6e11], "avx2": [3e11, 3e11]}, "avx512"),  # half as much again, against twice as much
    ],
)
def test_the_fastest_is_chosen_and_measured_once(machine: Any, rates: Rates, fastest: str) -> None:
    asked = machine(AVX512, rates)
    chosen = autotune.select_isa()
    assert chosen.name == fastest
    assert asked == ["avx512", "avx2"]
    assert autotune.select_isa() == chosen
    assert len(asked) == 2


def test_the_reason_names_all(machine: Any) -> None:
    machine(AVX512 | {"avxvnni": True}, {"avx512": [731e9, 1011e9], "avxvnni": [327e9, 431e9]})
    assert (
        autotune.select_isa().reason == "fastest here, 731 and 1,011 GOPS for 1 and 32 tokens, 327 and 431 with avxvnni"
    )


@pytest.mark.parametrize("features", [AVX2 | {"avxvnni": True}, AVX2, {}])
def test_nothing_is_measured_where_there_is_no_choice(machine: Any, features: dict[str, bool]) -> None:
    asked = machine(features, {})
    assert autotune.select_isa() == isa.select_isa()
    assert not asked


def test_nor_where_one_is_forced_or_nothing_can_be_kept(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = machine(AVX512, {})
    assert (autotune.select_isa("avx2").name, autotune.select_isa("avx2").reason) == ("avx2", "forced")
    for able in ("is_writable", "is_usable"):
        monkeypatch.setattr(cache_files, able, lambda folder: False)
        assert autotune.select_isa().name == "avx512"
    monkeypatch.setenv(isa.ENV, "portable")
    assert autotune.select_isa().name == "portable"
    assert not asked


RATES: Rates = {"avx512": [8e11, 1e12], "avx2": [2e11, 3e11]}


@pytest.mark.parametrize(
    "kept",
    [b"", b"{", b"[]", b"{}", b'{"avx512": 3}', b'{"avx512": [1, 2]}', b'{"avx512": [1], "avx2": [2]}',
     b'{"avx512": ["x", 1], "avx2": [2, 2]}', json.dumps({**RATES, "avx9": [1, 1]}).encode()],
)  # fmt: skip
def test_a_choice_that_is_not_one_is_made_again(machine: Any, kept: bytes) -> None:
    asked = machine(AVX512, RATES)
    path = folder_for(isa.select_isa()) / autotune.FILE
    assert cache_files.is_usable(path.parent)
    cache_files.write(path, kept)
    assert autotune.select_isa().name == "avx512"
    assert len(asked) == 2
    path.write_bytes(path.read_bytes()[:-1])  # damaged
    assert autotune.select_isa().name == "avx512"
    assert len(asked) == 4


def test_speed_is_measured_on_this_machine() -> None:
    best = isa.available()[0]
    rates = autotune.measure(isa.select_isa(best))
    assert len(rates) == len(autotune.TOKENS)
    assert all(1e8 < rate < 1e14 for rate in rates)
