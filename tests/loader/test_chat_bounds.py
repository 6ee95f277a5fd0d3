"""A template that asks for too much ends in one sentence, soon, and harms no other."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from ternrun.errors import TemplateError
from ternrun.loader.chat.pool import MAX_FAULTS, POOL
from ternrun.loader.chat.template import ChatTemplate
from ternrun.loader.chat.worker import MAX_OUTPUT
from tests.loader.chat_fuzz import outcome
from tests.loader.chat_hostile import EITHER, HARMLESS, HOSTILE

HELLO = [{"role": "user", "content": "Hello"}]
SECONDS = 2.0  # by the clock, on a machine that may be busy; a template may take 0.3 of them on a processor


@pytest.fixture(scope="module")
def ended() -> dict[str, tuple[str, float]]:
    """How each hostile template ended, and after how many seconds; two at a time, as the pool has two workers."""
    with ThreadPoolExecutor(2) as threads:
        return dict(zip(HOSTILE, threads.map(outcome, HOSTILE.values()), strict=True))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_end_quickly(name: str, ended: dict[str, tuple[str, float]]) -> None:
    text, seconds = ended[name]
    assert seconds < SECONDS
    if name in HARMLESS:
        assert len(text) == len("text: ") + HARMLESS[name]
    elif name not in EITHER:
        assert text.startswith("the chat template "), text


def test_the_sentence_names_the_limit() -> None:
    for source, sentence in (
        ("{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3, "takes more time or memory than is allowed"),
        ("{{ messages[0].role * 10**10 }}", "takes too much memory"),
        ("{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}", f"writes more than {MAX_OUTPUT} characters"),
    ):
        with pytest.raises(TemplateError) as raised:
            ChatTemplate(source).render(HELLO)
        assert str(raised.value) == f"the chat template {sentence}"


def test_a_template_recovers_from_hostile_messages() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.content * m.n }}{% endfor %}")
    for _ in range(3):
        with pytest.raises(TemplateError, match="takes too much memory"):
            template.render([{"content": "a" * 1000, "n": 10**9}])
        assert template.render([{"content": "a", "n": 2}]) == "aa"


def test_messages_of_megabytes_get_more_time() -> None:
    long = [{"role": "user", "content": "word " * 400_000}] * 4
    assert len(ChatTemplate("{% for m in messages %}{{ m.content | trim }}{% endfor %}").render(long)) == 4 * 1_999_999


def test_garbage_of_one_template_does_not_count_against_the_next() -> None:
    cycles = "{% for i in range(20) %}{% set n = namespace(x='a' * 10**7) %}{% set n.n = n %}{% endfor %}"
    hungry = "{{ ('a' * 10**8) | length }}"
    done = 0
    for _ in range(12):  # on a busy machine a render may run out of time, which says nothing of memory
        with suppress(TemplateError):
            ChatTemplate(cycles).render(HELLO)
            done += ChatTemplate(hungry).render(HELLO) == "100000000"
    assert done >= 6


def test_a_source_that_takes_too_long_is_tried_once() -> None:
    source = "{{ 3 ** (3 ** (3 ** 3)) }}"
    for number in range(MAX_FAULTS):  # faults of other sources take nothing away from it
        with pytest.raises(TemplateError):
            ChatTemplate(f"{{% {number} %}}")
    for seconds in (SECONDS, 0.01):
        start = time.perf_counter()
        with pytest.raises(TemplateError, match="takes more time or memory than is allowed"):
            ChatTemplate(source)
        assert time.perf_counter() - start < seconds


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep no such limit")
def test_the_system_limits_the_memory_of_a_worker() -> None:
    import resource

    ChatTemplate("{{ 1 }}").render(HELLO)
    (worker, *_) = POOL._all
    limit, _ = resource.prlimit(worker._process.pid, resource.RLIMIT_AS)
    pages = Path(f"/proc/{worker._process.pid}/statm").read_text().split()[0]
    mapped = int(pages) * os.sysconf("SC_PAGE_SIZE")
    assert mapped < limit < mapped + (600 << 20)
