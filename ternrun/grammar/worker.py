"""The processes in which grammars run. Started with `python -m`, without the rest of ternrun.

One holds the tokenizer. It forks one for each grammar, which compiles it; that forks one for each sequence, which says
after each token what may follow. Each is asked through a socket of its own and ends when the other end is closed.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper, grammar_from

from ternrun.grammar.wire import HEAD, TOKEN

STEP_S, TOTAL_S = 1.0, 60  # seconds of the processor, for a token and for all of a sequence
MEMORY = 1 << 30  # bytes beyond what the tokenizer takes
MAX_MESSAGE = 300  # characters
WHITESPACE = r"( |\n( {0,24}|\t{0,8}))"  # unbounded, a small model would go on with it for ever


class Vocabulary:
    """What llguidance wants to know of a tokenizer. It may cut texts as it likes: only masks are asked for."""

    def __init__(self, tokens: list[bytes], special: list[int], eos: list[int]) -> None:
        self.tokens, self.special_token_ids, self.eos_token_id = tokens, special, eos[0]
        self.bos_token_id = None
        self.cut: Callable[[str], list[int]] = lambda _: []

    def __call__(self, text: bytes) -> list[int]:
        """Token ids."""
        return self.cut(text.decode("utf-8", "replace"))


def main() -> None:
    """Serve grammars asked for on the socket whose number is the argument; the vocabulary comes on standard input."""
    control = socket.socket(fileno=int(sys.argv[1]))
    for number in (signal.SIGINT, signal.SIGTERM):  # the server decides when it ends, by closing the socket
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tokens, special, eos = pickle.load(sys.stdin.buffer)
    vocabulary = Vocabulary(tokens, special, eos)
    tokenizer = LLTokenizer(TokenizerWrapper(vocabulary), eos_token=eos)
    vocabulary.cut = tokenizer.greedy_tokenize
    ends = sum(1 << token for token in eos)
    send(control, b"k")
    fork_on_request(control, lambda asked: serve_grammar(tokenizer, ends, asked))


def fork_on_request(control: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    """For each socket that comes through `control`, a child that serves it."""
    while True:
        data, sockets, _, _ = socket.recv_fds(control, 1, 1)
        if not data:
            return
        if os.fork():
            os.close(sockets[0])
            continue
        control.close()
        leave_after(serve, socket.socket(fileno=sockets[0]))


def leave_after(serve: Callable[[socket.socket], None], asked: socket.socket) -> NoReturn:
    """A child never goes back to its parent's code."""
    try:
        serve(asked)
    except (OSError, EOFError):  # the other end is gone
        pass
    finally:
        os._exit(0)


def serve_grammar(tokenizer: LLTokenizer, ends: int, asked: socket.socket) -> None:
    """Compile the grammar that comes first, say how that went, then fork for each sequence."""
    limit_memory()
    resource.setrlimit(resource.RLIMIT_CPU, (TOTAL_S, TOTAL_S))
    source = json.loads(receive(asked))
    with_limit(source["seconds"])
    try:
        matcher = LLMatcher(
            tokenizer, grammar(source["kind"], source["text"]), log_level=0, limits=LLParserLimits(verbose_errors=False)
        )
        error = matcher.get_error()
        if not error:
            matcher.compute_bitmask()  # the most expensive one: done once for all sequences
            error = matcher.get_error()
    except (ValueError, RecursionError) as refused:
        error = "it is nested too deeply" if isinstance(refused, RecursionError) else str(refused)
    with_limit(0)
    if error:
        send(asked, b"x", sentence(error).encode())
        return
    send(asked, b"k")
    fork_on_request(asked, lambda sequence: serve_sequence(matcher, ends, sequence))


def serve_sequence(matcher: LLMatcher, ends: int, asked: socket.socket) -> None:
    """Say what may come; hear what came; and again."""
    while True:
        with_limit(STEP_S)
        mask = b"" if matcher.is_stopped() else matcher.compute_bitmask()
        allowed = int.from_bytes(mask, "little")
        error = matcher.get_error()
        with_limit(0)
        if error:
            return send(asked, b"x", sentence(error).encode())
        if not allowed & ~ends:
            return send(asked, b"e") if matcher.is_accepting() else send(asked, b"x", b"it leads nowhere")
        send(asked, b"m", mask)
        token = TOKEN.unpack(exactly(asked, TOKEN.size))[0]
        with_limit(STEP_S)
        matcher.consume_token(token)
    return None


def grammar(kind: str, text: str) -> str:
    """llguidance's form of a grammar."""
    if kind == "json_schema":
        return LLMatcher.grammar_from_json_schema(text, overrides={"whitespace_pattern": WHITESPACE, "lenient": False})
    return grammar_from(kind, text)  # type: ignore[arg-type]


def sentence(error: str) -> str:
    """The first line of what llguidance says, without where in its own notation that was."""
    return error.splitlines()[0].removesuffix("<non-verbose/>").strip()[:MAX_MESSAGE]


def with_limit(seconds: float) -> None:
    """End this process after that many seconds of work; 0: no more limit. It cannot be caught: C code does not look."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def limit_memory() -> None:
    """For this process and its children."""
    statm = Path("/proc/self/statm")
    if not statm.exists():  # not Linux: there, the limit on time has to do
        return
    taken = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))


def send(to: socket.socket, kind: bytes, content: bytes = b"") -> None:
    """One message."""
    to.sendall(HEAD.pack(len(content), kind) + content)


def receive(asked: socket.socket) -> bytes:
    """The content of one message. Raises EOFError where the other end is closed."""
    size, _ = HEAD.unpack(exactly(asked, HEAD.size))
    return exactly(asked, size)


def exactly(asked: socket.socket, size: int) -> bytes:
    """So many bytes. Raises EOFError."""
    data = asked.recv(size, socket.MSG_WAITALL) if size else b""
    if len(data) < size:
        raise EOFError
    return data


if __name__ == "__main__":
    main()
