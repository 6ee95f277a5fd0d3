"""How ternrun and its template workers write to each other, through two pipes.

A message is its kind (one byte), the length of its content, and its content. A request is (key, source, names),
pickled: a source is compiled and kept under its key; names, themselves pickled, are rendered with the template of that
key. Either may be None. A reply holds text.
"""

from __future__ import annotations

import struct
from io import RawIOBase

REQUEST = b"q"
READY = b"r"  # the worker has started, or has compiled a source
TEXT = b"t"  # the rendered text
FAULT = b"f"  # what is wrong, to go on after "the chat template "
LAST_FAULT = b"l"  # the same; the worker ends after it
UNKNOWN = b"u"  # the worker does not have the template of this key

_HEAD = struct.Struct("<cQ")


def send(pipe: RawIOBase, kind: bytes, content: bytes = b"") -> None:
    """Write one message. Raises OSError if the other end is closed."""
    rest = memoryview(_HEAD.pack(kind, len(content)) + content)
    while rest:
        rest = rest[pipe.write(rest) :]


def receive(pipe: RawIOBase) -> tuple[bytes, bytes]:
    """The kind and content of the next message. Raises EOFError if the other end is closed."""
    kind, size = _HEAD.unpack(_read(pipe, _HEAD.size))
    return kind, _read(pipe, size)


def _read(pipe: RawIOBase, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = pipe.read(min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
