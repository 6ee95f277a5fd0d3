"""Sampling that a model's file recommends: read, checked, and second to what is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ternrun import load
from ternrun.errors import LoadError
from ternrun.loader.sampling_defaults import read_sampling, write_sampling
from ternrun.options import sampling_params
from tests.fakes import fake_gguf, fake_weights


def test_keys_are_fields() -> None:
    fields = {"temperature": 0.7, "top_k": 20, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.1, "repeat_last_n": 32}
    keys = write_sampling(fields)
    assert keys["general.sampling.temp"] == 0.7
    assert keys["general.sampling.penalty_last_n"] == 32
    assert read_sampling({**keys, "general.sampling.another": 2, "general.name": "x"}) == fields
    more = {"xtc_probability": 0.5, "xtc_threshold": 0.2, "mirostat": 2, "mirostat_tau": 3.0, "mirostat_eta": 0.2}
    assert read_sampling(write_sampling(more)) == more
    order = "penalties;infill;typ_p;temperature"
    assert read_sampling({"general.sampling.sequence": order}) == {"samplers": ("penalties", "typ_p", "temperature")}
    assert read_sampling({"general.name": "x"}) == {}
    assert read_sampling({"general.sampling.penalty_repeat": 1.100000023841858}) == {"repeat_penalty": 1.1}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("temp", float("nan"), "general.sampling.temp"),
        ("temp", "hot", "general.sampling.temp"),
        ("temp", -1.0, "temperature"),
        ("top_k", 1.5, "general.sampling.top_k"),
        ("penalty_repeat", 0.0, "repeat_penalty"),
        ("mirostat", 3, "mirostat"),
        ("sequence", 3, "general.sampling.sequence"),
        ("penalty_last_n", 1 << 40, "repeat_last_n"),
    ],
)
def test_values_that_cannot_be_are_named(key: str, value: Any, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        read_sampling({f"general.sampling.{key}": value})


def test_what_is_asked_for_comes_first() -> None:
    own = {"temperature": 0.6, "repeat_penalty": 1.2}
    assert sampling_params({}, own).temperature == 0.6
    params = sampling_params({"temperature": 0.0, "stop": "x"}, own)
    assert (params.temperature, params.repeat_penalty, params.stop) == (0.0, 1.2, ("x",))


def test_completions_follow_the_file(tmp_path: Path) -> None:
    weights = fake_weights()
    plain = fake_gguf(tmp_path / "plain.gguf", weights)
    own = fake_gguf(tmp_path / "own.gguf", weights, general__sampling__penalty_repeat=5.0)
    with load(plain) as one, load(own) as other:
        assert one.sampling == {}
        assert other.sampling == {"repeat_penalty": 5.0}
        ids = [5, 6, 7]
        wanted = one.complete(ids, max_tokens=12, repeat_penalty=5.0).ids
        assert other.complete(ids, max_tokens=12).ids == wanted
        assert other.complete(ids, max_tokens=12, repeat_penalty=1.0).ids == one.complete(ids, max_tokens=12).ids
        assert one.complete(ids, max_tokens=12).ids != wanted
