"""Names of works, and what becomes of times."""

from __future__ import annotations

import pytest

from ternrun.bench.files import wanted
from ternrun.bench.noise import Noise
from ternrun.bench.timing import Rate, seconds_of
from ternrun.bench.works import TOUR, Work, parse
from ternrun.errors import UsageError


def test_works_are_read_in_order_and_once() -> None:
    found = parse("tg64, pp128,tg64,load,batch8", 4096)
    assert found == [Work("tg", 64), Work("pp", 128), Work("load"), Work("batch", 8)]
    assert [work.name for work in found] == ["tg64", "pp128", "load", "batch8"]


def test_context_sweep_stops_where_the_model_does() -> None:
    assert parse("context", 1024) == [Work("ctx", 512), Work("ctx", 1024)]
    assert {work.kind for work in parse(",".join(TOUR), 2048)} == {
        "machine",
        "kernels",
        "load",
        "pp",
        "tg",
        "batch",
        "ctx",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo", "'foo' is not a work"),
        ("pp", "'pp' is not a work"),
        ("pp-1", "'pp-1' is not a work"),
        ("load5", "'load5' is not a work"),
        ("pp9999999", "is not a work"),
        ("tg0", "out of range"),
        ("pp1024", "longer context than this model's 1024"),
        ("ctx1025", "longer context"),
        ("ctx8", "at least 64"),
        (" , ", "nothing to measure"),
    ],
)
def test_what_cannot_be_measured_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text, 1024)


def test_rate_of_times() -> None:
    rate = Rate.of(10, [2.0, 1.0, 4.0])
    assert rate == Rate(median=5.0, best=10.0, n=3, spread=1.5)
    assert rate.json == {"median": 5.0, "best": 10.0, "n": 3}


def test_warming_up_is_not_timed() -> None:
    calls: list[int] = []
    assert len(seconds_of(lambda: calls.append(0), 3)) == 3
    assert len(calls) == 4


def test_spread_is_noise() -> None:
    noise = Noise()
    noise.saw(0.1)
    assert "apart" not in noise.verdict()
    noise.saw(0.6)
    noise.saw(0.2)
    assert "60% apart" in noise.verdict()


def test_types_are_for_shapes() -> None:
    assert wanted("2b4t", None, "q6_k", "").head == "Q6_K"
    assert wanted("2b4t", None, None, "", "tq2_0").type == "TQ2_0"
    assert wanted("2b4t", None, None, "", "tq2_0").architecture == "bitnet"
    with pytest.raises(UsageError, match="are for the shapes"):
        wanted("model.gguf", "i2_s", None, "")
    with pytest.raises(UsageError, match="is not a folder"):
        wanted("8b", None, None, "no/such/folder")
