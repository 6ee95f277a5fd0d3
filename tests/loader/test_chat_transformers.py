"""Templates write what jinja2 writes when transformers configures it, for everything that Jinja offers a template.

`python -m tests.oracle.chat_templates` compares with transformers itself, on any templates.
"""

from __future__ import annotations

import re

import pytest
from jinja2.defaults import DEFAULT_FILTERS, DEFAULT_NAMESPACE, DEFAULT_TESTS

from ternrun.errors import TemplateError
from ternrun.loader.chat.template import ChatTemplate
from tests.loader.chat_corpus import CORPUS, FILTERS, GLOBALS, METHODS, NAMES, REFUSED, TESTS
from tests.loader.chat_reference import reference

_VARIABLES = {k: v for k, v in NAMES.items() if k not in ("messages", "tools")}


def ours(source: str) -> str:
    return ChatTemplate(source).render(NAMES["messages"], tools=NAMES["tools"], variables=_VARIABLES)


@pytest.mark.parametrize("name", CORPUS)
def test_whatever_jinja_offers_is_written_as_transformers_writes_it(name: str) -> None:
    for source in CORPUS[name]:
        assert ours(source) == reference(source, **NAMES), source


def test_the_corpus_uses_every_filter_test_and_global_of_jinja() -> None:
    assert {f for f in DEFAULT_FILTERS if not re.search(rf"\| {f}\b", FILTERS)} == set()
    assert {t for t in DEFAULT_TESTS if t[0].isalpha() and not re.search(rf"is {t}\b", TESTS)} == set()
    assert {g for g in DEFAULT_NAMESPACE if f"{g}(" not in GLOBALS} == set()
    methods = {m for kind in (str, dict, tuple) for m in dir(kind) if not m.startswith("_")}
    assert methods - set(re.findall(r"\.(\w+)\(", METHODS)) <= {
        # an immutable sandbox refuses these, and `maketrans` is a class's
        "clear", "pop", "popitem", "setdefault", "update", "fromkeys", "maketrans",
    }  # fmt: skip


@pytest.mark.parametrize("source", REFUSED)
def test_what_transformers_refuses_is_refused_in_one_line(source: str) -> None:
    if "9 ** " not in source and "namespace" not in source:  # jinja2 itself would go on for ever, and lets names pass
        with pytest.raises(Exception, match="."):
            reference(source, **NAMES)
    with pytest.raises(TemplateError, match="^the chat template ") as raised:
        ours(source)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 350
