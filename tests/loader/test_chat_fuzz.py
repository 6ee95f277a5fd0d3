"""Random templates end soon, in a text or a sentence; those that cost little write what jinja2 writes."""

from __future__ import annotations

import re

import pytest

from tests.loader.chat_fuzz import MESSAGES, TOOLS, outcome, random_template
from tests.loader.chat_reference import reference

COUNT = 60  # `python -m tests.loader.chat_fuzz` renders 2,000
ADDRESS = re.compile("0x[0-9a-f]+")


@pytest.mark.parametrize("seed", range(0, COUNT, 2))
def test_templates_with_huge_values_end(seed: int) -> None:
    _, seconds = outcome(random_template(seed))
    assert seconds < 2.0


def test_templates_with_small_values_are_those_of_jinja() -> None:
    texts = 0
    for seed in range(1, 4 * COUNT, 2):
        source = random_template(seed)
        found, _ = outcome(source)
        try:
            wanted = "text: " + reference(source, messages=MESSAGES, tools=TOOLS, bos_token="<s>", eos_token="</s>")
        except Exception:
            assert not found.startswith("text: "), source
        else:
            assert ADDRESS.sub("", found) == ADDRESS.sub("", wanted), source
            texts += 1
    assert texts > COUNT // 2
