"""The server's end of the processes in which grammars run: start the first, have grammars compiled, begin sequences."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ternrun.errors import MissingExtra, UsageError
from ternrun.grammar.sequence import PATIENCE_S, TOO_COSTLY, Channel, SequenceConstraint

if TYPE_CHECKING:
    from ternrun.loader.tokenizers.tokenizer import Tokenizer

Kind = Literal["json_schema", "regex", "lark", "gbnf"]

MAX_SOURCE = 1 << 18  # characters


class Grammar:
    """A compiled grammar. `start` is what `Request.constraint` wants: one for each sequence."""

    def __init__(self, channel: Channel, sizes: tuple[int, int]) -> None:
        self._channel, self._sizes = channel, sizes
        weakref.finalize(self, channel.close)

    def start(self) -> SequenceConstraint:
        """For one sequence; its process begins when it is first asked."""
        return SequenceConstraint(self._open, *self._sizes)

    def _open(self) -> Channel:
        return self._channel.fork()


class Grammars:
    """Compiles grammars for one model's vocabulary. Safe to use from several threads.

    `vocab_size`: tokens the model's logits tell of, at least the tokenizer's. `seconds`: of the processor, that a
    grammar may take to be compiled. Nothing runs until the first grammar.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, seconds: float = 2.0) -> None:
        self._tokenizer, self._vocab_size, self._seconds = tokenizer, vocab_size, seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None

    def compile(self, kind: Kind, text: str) -> Grammar:
        """Raises UsageError, in one sentence, for a grammar that is wrong, unsupported or too costly; MissingExtra."""
        if len(text) > MAX_SOURCE:
            raise UsageError(f"the grammar has {len(text)} characters; {MAX_SOURCE} are the limit")
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._begin()
            assert self._channel is not None
            try:
                channel = self._channel.fork()
            except OSError as error:
                raise UsageError(f"no process for the grammar could be started: {error}") from error
        try:
            channel.send(json.dumps({"kind": kind, "text": text, "seconds": self._seconds}).encode())
            answer = channel.answer(PATIENCE_S)
        except OSError:
            answer = None
        if answer is None or answer[0] != b"k":
            channel.close()
            reason = answer[1].decode("utf-8", "replace") if answer else TOO_COSTLY
            raise UsageError(f"the grammar cannot be used: {reason}")
        return Grammar(channel, (self._tokenizer.vocab_size, self._vocab_size))

    def close(self) -> None:
        """End the processes; sequences under way end with an error. May be called twice."""
        with self._lock:
            if self._channel:
                self._channel.close()
            if self._process:
                self._process.wait()
            self._channel = self._process = None

    def _begin(self) -> None:
        """Start the process that holds the tokenizer, which takes most of a second for a large vocabulary."""
        if find_spec("llguidance") is None:
            raise MissingExtra("structured output (JSON schemas, grammars, regular expressions)", "grammar")
        if self._channel:
            self._channel.close()
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        package = str(Path(__file__).parents[2])  # where this ternrun is, whatever else is installed
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ternrun.grammar.worker", str(theirs.fileno())],
                stdin=subprocess.PIPE, pass_fds=[theirs.fileno()], env=os.environ | {"PYTHONPATH": path},
            )  # fmt: skip
        stdin = self._process.stdin
        assert stdin is not None
        with suppress(BrokenPipeError), stdin:
            pickle.dump(_vocabulary(self._tokenizer), stdin)
        if self._channel.answer(PATIENCE_S) != (b"k", b""):
            raise UsageError("the process for grammars did not start")


def _vocabulary(tokenizer: Tokenizer) -> tuple[list[bytes], list[int], list[int]]:
    """Bytes of each token, which of them are not text, and which end it; one is made up where there is none."""
    tokens = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
    special, ends = set(tokenizer.hidden_ids), sorted(tokenizer.eos_ids)
    if not ends:
        ends = [len(tokens)]
        tokens.append(b"<end>")
    special.update(ends)
    return tokens, sorted(special), ends
