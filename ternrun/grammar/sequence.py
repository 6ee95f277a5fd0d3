"""One sequence's grammar as the engine sees it: a socket on which the set of allowed tokens arrives."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import UsageError
from ternrun.grammar.wire import HEAD, TOKEN

TOO_COSTLY = "it takes more time or memory than is allowed"
PATIENCE_S = 120.0  # by the clock; the processes bound their own time on the processor, which is far less

Message = tuple[bytes, bytes]  # kind, content


class Channel:
    """One end of a socket to a worker. `answer` is for who waits; it never blocks for longer than it is told to."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket = ours
        self._data = bytearray()

    def fork(self) -> Channel:
        """A channel to a new child of the process at the other end. Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._socket.settimeout(PATIENCE_S)
                socket.send_fds(self._socket, [b"f"], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        return Channel(ours)

    def send(self, content: bytes) -> None:
        """One message. Raises OSError."""
        self._socket.settimeout(PATIENCE_S)
        self._socket.sendall(HEAD.pack(len(content), b"s") + content)

    def tell(self, token: int) -> None:
        """A token; a socket has always room for one."""
        self._socket.settimeout(PATIENCE_S)
        self._socket.sendall(TOKEN.pack(token))

    def answer(self, wait: float) -> Message | None:
        """The next message, if it is whole within `wait` seconds. An end of the connection reads as an error."""
        end = time.monotonic() + wait
        while True:
            if len(self._data) >= HEAD.size:
                size, kind = HEAD.unpack_from(self._data)
                if len(self._data) >= HEAD.size + size:
                    content = bytes(self._data[HEAD.size : HEAD.size + size])
                    del self._data[: HEAD.size + size]
                    return kind, content
            try:
                self._socket.settimeout(max(0.0, end - time.monotonic()))
                data = self._socket.recv(1 << 16)
            except (BlockingIOError, TimeoutError):
                return None
            except OSError:
                data = b""
            if not data:
                return b"x", TOO_COSTLY.encode()
            self._data += data

    def close(self) -> None:
        """The process at the other end ends when it notices."""
        self._socket.close()


class SequenceConstraint:
    """A `runtime.constraint.Constraint`; made by `Grammar.start`."""

    def __init__(self, opened: Callable[[], Channel], tokens: int, vocab_size: int) -> None:
        self._opened = opened
        self._tokens, self._vocab_size = tokens, vocab_size  # the model may tell of more than there are
        self._channel: Channel | None = None
        self._answer: Message | None = None
        self._since = 0.0  # when the question was asked

    def ready(self, wait: float = 0.0) -> bool:
        """Whether it is known what may come next."""
        if self._answer is None and self._channel is None:
            self._since = time.monotonic()
            try:
                self._channel = self._opened()
            except OSError as error:
                self._answer = b"x", f"no process for it could be started: {error}".encode()
        if self._answer is None and self._channel:
            self._answer = self._channel.answer(wait)
            if self._answer is None and time.monotonic() - self._since > PATIENCE_S:
                self._answer = b"x", TOO_COSTLY.encode()
        return self._answer is not None

    def allowed(self) -> NDArray[np.bool_] | None:
        """See `Constraint`. Raises UsageError."""
        assert self._answer is not None
        kind, content = self._answer
        if kind == b"e":
            return None
        if kind != b"m":
            raise UsageError(f"the grammar cannot be used: {content.decode('utf-8', 'replace')}")
        out = np.zeros(self._vocab_size, np.bool_)
        packed = np.frombuffer(content, np.uint8)
        out[: self._tokens] = np.unpackbits(packed, count=self._tokens, bitorder="little")
        return out

    def accept(self, token: int) -> None:
        """See `Constraint`."""
        self._answer, self._since = None, time.monotonic()
        if self._channel:
            with suppress(OSError):  # read as an error when the answer is asked for
                self._channel.tell(token)

    def close(self) -> None:
        """See `Constraint`."""
        if self._channel:
            self._channel.close()
        self._answer = b"x", b"its sequence has ended"
