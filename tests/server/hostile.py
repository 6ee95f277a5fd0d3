"""Requests that nobody should send: valid ones with something in them replaced, and bytes that are none at all."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

MESSAGES = [{"role": "user", "content": "hello"}]
VALID: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "hello", "max_tokens": 2, "temperature": 1, "stream": False, "logprobs": 1, "n": 1},
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 2, "seed": 1, "stop": ["x"], "logit_bias": {"1": 1}},
    "/completion": {"prompt": ["a", [1, "b"]], "n_predict": 2, "n_probs": 1, "logit_bias": [[1, False]]},
    "/v1/embeddings": {"input": ["hello", "b"], "encoding_format": "float"},
    "/embedding": {"content": "hello", "embd_normalize": 2},
    "/api/embed": {"input": "hello", "truncate": True},
    "/tokenize": {"content": "hello", "with_pieces": True},
    "/detokenize": {"tokens": [1, 2, 3]},
    "/apply-template": {"messages": MESSAGES, "chat_template_kwargs": {"shout": True}},
    "/api/generate": {"prompt": "hello", "options": {"num_predict": 2}, "stream": False},
    "/api/chat": {"messages": MESSAGES, "options": {"num_predict": 2, "stop": "x"}},
}
NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 2, 1.5, -0.0, 1e308, -1e308, 10**400, -(2**63), 2**64, "", "a", "\0", "\ud800",
    "\U0001f4a9" * 9, "a" * 5000, "{{ 1/0 }}", "<|im_start|>", [], [[]], [[[]]], {}, {"": {}}, [None], ["a", 1, None],
    [1] * 2000, ["a"] * 200, {"a": [1] * 50}, [{"role": "user"}], [{"role": [], "content": {}}],
    [{"role": "assistant", "content": [{"type": "image_url"}]}], {"include_usage": 1}, float("nan"), float("inf"),
]  # fmt: skip


def requests(seed: int) -> Iterator[tuple[str, bytes]]:
    """Endless pairs of a path and a body."""
    rng = random.Random(seed)
    while True:
        path = rng.choice(list(VALID))
        body = json.dumps(_changed(json.loads(json.dumps(VALID[path])), rng)).encode()
        yield path, _broken(body, rng) if rng.random() < 0.3 else body


def _changed(body: Any, rng: random.Random) -> Any:
    """With one to three values replaced, removed, or added under a name that may be another route's."""
    if rng.random() < 0.05:
        return copy.deepcopy(rng.choice(NASTY))
    names = sorted({name for valid in VALID.values() for name in valid} | {"top_k", "grammar", "tools", "\0"})
    for _ in range(rng.randint(1, 3)):
        name = rng.choice([*body, rng.choice(names)])
        if rng.random() < 0.2:
            body.pop(name, None)
        elif isinstance(body.get(name), (dict, list)) and body[name] and rng.random() < 0.5:
            _inside(body[name], rng)
        else:
            body[name] = copy.deepcopy(rng.choice(NASTY))
    return body


def _inside(value: Any, rng: random.Random) -> None:
    key: Any = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    if isinstance(value[key], (dict, list)) and value[key] and rng.random() < 0.5:
        _inside(value[key], rng)
    else:
        value[key] = copy.deepcopy(rng.choice(NASTY))


def _broken(body: bytes, rng: random.Random) -> bytes:
    """No longer JSON, or barely."""
    at = rng.randrange(len(body) + 1)
    return rng.choice(
        [
            body[:at],
            body[:at] + bytes(rng.randrange(256) for _ in range(3)) + body[at:],
            body[:at] + b"\xff\xfe\xc0\x80" + body[at:],
            body.replace(b"hello", b"\xed\xa0\x80\xff"),
            body.decode().encode("utf-16"),
            b"\xef\xbb\xbf" + body,
            b"[" * 100_000,
            b'{"prompt": ' * 10_000,
            b'{"prompt": "a", "prompt": ["b"], "content": "c", "max_tokens": 1}',
            b"",
        ]
    )
