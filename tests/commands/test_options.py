"""Flags and the records they fill: the same names, the same defaults, the same refusals."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from ternrun.commands import models, options
from ternrun.commands.line.parser import Parser
from ternrun.errors import ConfigError, UsageError
from ternrun.loader import default_model
from ternrun.runtime.config import EngineConfig, SamplingParams


def parse(*argv: str) -> argparse.Namespace:
    parser = Parser()
    models.add_model(parser)
    options.add_flags(parser, "sampling", SamplingParams, options.SAMPLING)
    options.add_flags(parser, "running", EngineConfig, options.ENGINE)
    return parser.parse_args(argv)


def test_only_what_was_said_is_passed_on() -> None:
    args = parse("-n", "5", "--stop", "a", "--stop", "b", "--logit-bias", "7=-inf", "--ignore-eos", "--threads", "2")
    assert options.given(args, SamplingParams) == {
        "max_tokens": 5,
        "stop": ("a", "b"),
        "logit_bias": ((7, float("-inf")),),
        "ignore_eos": True,
    }
    assert options.given(args, EngineConfig) == {"threads": 2}
    assert options.given(parse(), SamplingParams) == {}


@pytest.mark.parametrize("argv", [["--temp", "-1"], ["--top-p", "1.5"], ["--seed", "-3"], ["--stop", ""]])
def test_values_out_of_range_are_refused_by_name(argv: list[str]) -> None:
    with pytest.raises(ConfigError):
        options.given(parse(*argv), SamplingParams)


def test_help_shows_the_defaults_of_the_records(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    out = " ".join(capsys.readouterr().out.split())
    assert f"to the context's end (default {SamplingParams().max_tokens})" in out
    assert f"one per physical core (default {EngineConfig().threads})" in out
    assert "same text; -1: any --stop" in out  # a seed has no default to show


def test_no_model_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of an installation that carries none; one that does runs it: see test_embedded.py."""
    monkeypatch.setattr(default_model, "FILE", tmp_path / "absent.gguf")
    with pytest.raises(UsageError, match="pass -m FILE .*, or download one with `ternrun pull"):
        models.model_path(parse())
