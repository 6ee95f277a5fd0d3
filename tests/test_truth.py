"""The model's numbers against llama.cpp's (tests/oracle/logits.py says how these were made, and from which weights)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ternrun import Model, load
from tests.oracle.cases import CASES, IDS, TARGET, write
from tests.smollm2 import smollm2
from tests.texts import HERE, read

WINDOW = 1024
TERNARY = json.loads(read(TARGET))["nll"]
TRUTH = np.load(HERE / "smollm2_logits.npz")
ABOUT = json.loads(str(TRUTH["about"]))


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with load(smollm2(), context=WINDOW) as opened:
        yield opened


def test_teacher_forcing(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    """32 prompts, 64 tokens after each: the same likeliest token at 99% of positions, log-probabilities within 0.02."""
    ids, start, prompt = TRUTH["ids"].astype(int), TRUTH["start"], TRUTH["prompt"]
    equal, off = [], []
    for s, (first, last) in enumerate(pairwise(start)):
        made = slice(prompt[s] - 1, None)  # rows that predict the tokens after the prompt
        rows = slice(first - s, last - s - 1)
        scores = model.score(ids[first:last], top=1)[made]
        assert len(scores) == 64
        equal += [score.top[0].id == top for score, top in zip(scores, TRUTH["top_ids"][rows][made, 0], strict=True)]
        off += [abs(score.logprob - true) for score, true in zip(scores, TRUTH["chosen"][rows][made], strict=True)]
    with capsys.disabled():
        print(f"\n  likeliest token equal at {np.mean(equal):.2%} of {len(equal)} positions, "
              f"mean |difference| of log-probability {np.mean(off):.4f}, largest {np.max(off):.4f}")  # fmt: skip
    assert len(equal) == 32 * 64
    assert np.mean(equal) >= 0.99
    assert np.mean(off) <= 0.02


def test_perplexity(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the first 16,384 tokens of tinyshakespeare: within 0.5%, and so each window."""
    windows = TRUTH["text_ids"].astype(int).reshape(-1, WINDOW)
    nll = np.array([-math.fsum(s.logprob for s in model.score(ids)) / (WINDOW - 1) for ids in windows])
    ours = math.exp(nll.mean())
    with capsys.disabled():
        print(f"\n  perplexity {ours:.4f}, llama.cpp {ABOUT['perplexity']:.4f} on the same weights in float32, "
              f"{ABOUT['noise']['perplexity']:.4f} with its 8-bit activations")  # fmt: skip
    assert ours == pytest.approx(ABOUT["perplexity"], rel=0.005)
    assert ours == pytest.approx(ABOUT["noise"]["perplexity"], rel=0.005)
    assert np.exp(nll) == pytest.approx(np.exp(TRUTH["window_nll"]), rel=0.005)


@pytest.mark.parametrize(("arch", "encoding"), CASES)
def test_ternary_files(arch: str, encoding: str, tmp_path: Path) -> None:
    """Perplexity of random text within 1% of what llama.cpp makes of the same file."""
    with load(write(tmp_path, arch, encoding)) as model:
        nll = -math.fsum(s.logprob for s in model.score(IDS)) / (len(IDS) - 1)
    assert math.exp(nll) == pytest.approx(math.exp(TERNARY[f"{arch} {encoding}"]), rel=0.01)
