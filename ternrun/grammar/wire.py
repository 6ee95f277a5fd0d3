"""How the server and its workers write to each other, through sockets.

A message is its length and kind, then its content. To a worker: s (a grammar's source, JSON); tokens that came are sent
without a head. From a worker: k (ready), m (a mask of tokens, one bit each), e (the text must end), x (a sentence that
says what is wrong).
"""

from __future__ import annotations

import struct

HEAD = struct.Struct("<Ic")  # bytes of the content, kind
TOKEN = struct.Struct("<I")
