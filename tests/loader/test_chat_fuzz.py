"""Random templates end soon, in a text or a sentence; those that cost little write what jinja2 writes."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

from tests.loader.chat_fuzz import MESSAGES, TOOLS, outcome, random_template
from tests.loader.chat_reference import reference

COUNT = 60  # `python -m tests.loader.chat_fuzz` renders 2,000
ADDRESS = re.compile("0x[0-9a-f]+")


def test_templates_with_huge_values_end() -> None:
    with ThreadPoolExecutor(2) as threads:
        ended = list(threads.map(lambda seed: outcome(random_template(seed)), range(0, COUNT, 2)))
    assert max(seconds for _, seconds in ended) < 2.0
    assert len({text.split(":")[0] for text, _ in ended}) > 2  # texts, and refusals of several kinds


def test_templates_with_small_values_are_those_of_jinja() -> None:
    texts = 0
    for seed in range(1, 2 * COUNT, 2):
        source = random_template(seed)
        found, _ = outcome(source)
        try:
            wanted = "text: " + reference(source, messages=MESSAGES, tools=TOOLS, bos_token="<s>", eos_token="</s>")
        except Exception:
            assert not found.startswith("text: "), source
        else:
            assert ADDRESS.sub("", found) == ADDRESS.sub("", wanted), source
            texts += 1
    assert texts > COUNT // 4
