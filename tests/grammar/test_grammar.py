"""Grammars through llguidance in processes of their own: what they allow, what they refuse, what they may cost."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ternrun.bench.vocabulary import byte_vocabulary
from ternrun.errors import MissingExtra, UsageError
from ternrun.grammar import compiler
from ternrun.grammar.compiler import Grammar, Grammars, Kind
from ternrun.loader.tokenizers.tokenizer import Tokenizer

TOKENIZER = Tokenizer.from_gguf(byte_vocabulary(320))
(EOS,) = TOKENIZER.eos_ids


@pytest.fixture(scope="module")
def grammars() -> Iterator[Grammars]:
    held = Grammars(TOKENIZER, 330)  # an embedding with more rows than there are tokens
    yield held
    held.close()


def follow(grammar: Grammar, text: str) -> str:
    """How much of the text it allows; a final $ says that it may end there, ! that it must."""
    rule, done = grammar.start(), list[int]()
    try:
        for token in TOKENIZER.encode(text, bos=False):
            assert rule.ready(30)
            allowed = rule.allowed()
            if allowed is None or not allowed[token]:
                break
            rule.accept(token)
            done.append(token)
        assert rule.ready(30)
        allowed = rule.allowed()
        if allowed is not None:
            assert allowed.shape == (330,)
            assert not allowed[320:].any()
        return TOKENIZER.decode(done) + ("!" if allowed is None else "$" if allowed[EOS] else "")
    finally:
        rule.close()


@pytest.mark.parametrize(
    ("kind", "source", "text", "followed"),
    [
        ("regex", "[ab]+c", "abac", "abac!"),
        ("regex", "[ab]+", "abad", "aba$"),
        ("gbnf", 'root ::= ("yes" | "no") [!?]*', "yes!?", "yes!?$"),
        ("gbnf", 'root ::= "yes" | "no"', "maybe", ""),
        ("lark", 'start: "a" x\nx: "b"*', "abbc", "abb$"),
        ("gbnf", 'start: "a" x\nx: "b"*', "abbc", "abb$"),  # Lark is known by its look
        ("json_schema", '{"type": "object"}', '{"a": [1, null, "x"]}', '{"a": [1, null, "x"]}!'),
        ("json_schema", '{"type": "integer", "minimum": 5}', "4", "4"),
        ("json_schema", '{"type": "boolean"}', "true", "true!"),
        ("json_schema", '{"enum": ["é", "b"]}', '"é"', '"é"!'),
    ],
)
def test_what_is_allowed(grammars: Grammars, kind: Kind, source: str, text: str, followed: str) -> None:
    assert follow(grammars.compile(kind, source), text) == followed


def test_white_space_comes_to_an_end(grammars: Grammars) -> None:
    grammar = grammars.compile("json_schema", '{"type": "object"}')
    assert follow(grammar, "{" + " " * 100) == "{ "
    assert follow(grammar, '{\n    "a": 1\n}') == '{\n    "a": 1\n}!'


def test_control_tokens_are_no_text(grammars: Grammars) -> None:
    rule = grammars.compile("regex", "(?s:.)*").start()
    assert rule.ready(30)
    allowed = rule.allowed()
    assert allowed is not None
    assert set(np.flatnonzero(~allowed[:320])) & set(TOKENIZER.hidden_ids) == set(TOKENIZER.hidden_ids) - {EOS}
    rule.close()


def test_sequences_of_one_grammar_do_not_know_each_other(grammars: Grammars) -> None:
    grammar = grammars.compile("regex", "ab|cd")
    first, second = grammar.start(), grammar.start()
    for rule, token in ((first, "a"), (second, "c")):
        assert rule.ready(30)
        rule.accept(ord(token) if token.isascii() else 0)
    a, b = (TOKENIZER.encode(x, bos=False)[0] for x in "bd")
    for rule, token in ((first, a), (second, b)):
        assert rule.ready(30)
        allowed = rule.allowed()
        assert allowed is not None
        assert np.flatnonzero(allowed).tolist() == [token]
        rule.close()


def nested(levels: int) -> str:
    return '{"type":"array","items":' * levels + "{}" + "}" * levels


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("json_schema", '{"type": "objekt"}'),
        ("json_schema", '{"$ref": "#/nowhere"}'),
        ("json_schema", '{"$ref": "#"}'),
        ("json_schema", nested(5000)),
        ("json_schema", "{"),
        ("json_schema", '{"not": {"type": "string"}}'),
        ("regex", "("),
        ("regex", "(" * 60_000 + "a" + ")" * 60_000),
        ("gbnf", "root ::= " + "(" * 60_000 + '"a"' + ")" * 60_000),
        ("lark", "start: " + "(" * 60_000 + '"a"' + ")" * 60_000),
        ("gbnf", "root ::= ["),
        ("gbnf", "root ::= root | root"),
        ("gbnf", "root ::= missing"),
        ("lark", "start: start"),
        ("regex", "x" * (1 << 19)),
    ],
)
def test_what_is_refused(grammars: Grammars, kind: Kind, source: str) -> None:
    started = time.process_time()
    with pytest.raises(UsageError) as refused:
        follow(grammars.compile(kind, source), "x")
    assert re.fullmatch(r"[^\n]{10,500}", str(refused.value))
    assert time.process_time() - started < 2


def test_what_costs_too_much_is_ended_and_harms_nobody() -> None:
    held = Grammars(TOKENIZER, 320, seconds=0.3)
    slow: dict[str, Any] = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(6_000)}}
    try:
        with pytest.raises(UsageError, match="it takes more time or memory than is allowed"):
            held.compile("json_schema", json.dumps(slow))
        assert follow(held.compile("regex", "a"), "a") == "a!"
    finally:
        held.close()


def test_a_process_that_dies_is_replaced() -> None:
    held = Grammars(TOKENIZER, 320)
    try:
        held.compile("regex", "a")
        assert held._process is not None
        held._process.kill()
        held._process.wait()
        assert follow(held.compile("regex", "a"), "a") == "a!"
    finally:
        held.close()
        held.close()


def test_a_vocabulary_without_an_end() -> None:
    keys = {key: value for key, value in byte_vocabulary(256).items() if not key.endswith("_id")}
    held = Grammars(Tokenizer.from_gguf(keys), 256)
    try:
        assert follow_bytes(held.compile("regex", "a?b"), b"b")
    finally:
        held.close()


def follow_bytes(grammar: Grammar, text: bytes) -> bool:
    rule = grammar.start()
    for byte in text:
        assert rule.ready(30)
        rule.accept(TOKENIZER.encode(chr(byte), bos=False)[0])
    assert rule.ready(30)
    ended = rule.allowed() is None
    rule.close()
    return ended


def test_without_llguidance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"ternrun\[grammar\]"):
        Grammars(TOKENIZER, 320).compile("regex", "a")
