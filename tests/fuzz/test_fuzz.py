"""A short coverage-guided run of every fuzz target, where atheris can be installed (Linux on x86-64)."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from random import Random

import pytest

from tests.fuzz.corpus import CORPORA
from tests.fuzz.mutate import mutate
from tests.fuzz.targets import TARGETS, accepts


@pytest.mark.parametrize("target", TARGETS)
def test_damage_is_refused_or_does_no_harm(target):
    samples = CORPORA[target]()
    outcomes = [accepts(target, sample) for sample in samples]
    assert any(outcomes)
    rng = Random(4)
    damaged = [accepts(target, mutate(samples[i % len(samples)], rng)) for i in range(400)]
    assert {True, False} == {*damaged}


if find_spec("atheris"):

    @pytest.mark.parametrize("target", TARGETS)
    def test_some_thousand_inputs_break_nothing(target, tmp_path):
        command = [sys.executable, "-m", "tests.fuzz.run", target, "-runs=2000", "-seed=1"]
        run = subprocess.run(
            [*command, f"-artifact_prefix={tmp_path}/"], capture_output=True, text=True, timeout=120, check=False
        )
        assert run.returncode == 0, run.stderr[-3000:]
        assert "Done 2000 runs" in run.stderr
        assert not list(tmp_path.iterdir())
