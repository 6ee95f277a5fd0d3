"""From text to token ids and back, for a GGUF file's vocabulary or a Hugging Face folder's tokenizer.json."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ternrun.errors import UsageError

Encode = Callable[[str, bool], list[int]]  # text, whether control tokens spelled out in it count as such


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizer:
    """One model's vocabulary and the rules for using it. Safe to use from several threads."""

    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    eos_ids: frozenset[int]  # every token that ends generation
    fim: tuple[int, int, int] | None  # fill in the middle: prefix, suffix, middle
    files: tuple[int | None, int | None]  # tokens before a project's name and a file's, where holes are filled in
    add_bos: bool
    add_eos: bool
    chat_bos: bool  # whether a chat prompt begins with `bos_id` where the model's own template does not write it
    space_prefix: bool  # text that opens a sequence got a space before it
    special_ids: frozenset[int]  # tokens cut out of the text before it is split into words
    hidden_ids: frozenset[int]  # those of them that are not text: control tokens
    encode_text: Encode
    bytes_of: Callable[[int], bytes]

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], pre: str | None = None) -> Tokenizer:
        """Of a GGUF file's metadata; `pre` overrides the pre-tokenizer that the file names.

        Raises LoadError, which names what is damaged or not supported, UsageError for a `pre` that cannot apply.
        """
        from ternrun.loader.tokenizers.from_gguf import build

        return cls(**build(metadata, pre))

    @classmethod
    def from_hf(cls, folder: str | Path, rows: int | None = None) -> Tokenizer:
        """Return the tokenizer of a Hugging Face folder: tokenizer.json and what the files beside it add.

        `rows`: rows of the model's embedding; added tokens beyond them are left out. Raises LoadError.
        """
        from ternrun.loader.tokenizers.from_hf import build

        return cls(**build(Path(folder), rows))

    @property
    def bos_token(self) -> str:
        """How the first token of a sequence is written; empty if there is none."""
        return "" if self.bos_id is None else self.token_bytes(self.bos_id).decode("utf-8", "replace")

    @property
    def eos_token(self) -> str:
        """How the last token of a sequence is written; empty if there is none."""
        return "" if self.eos_id is None else self.token_bytes(self.eos_id).decode("utf-8", "replace")

    def encode(self, text: str, *, special: bool = True, bos: bool = True, eos: bool = False) -> list[int]:
        """Return the ids of a text that the model continues.

        `special`: names of control tokens in the text become these tokens; otherwise they are plain text.
        `bos`: put the begin token in front where the model's file asks for one (`add_bos`). `eos`: the text is
        finished, so put the end token behind it where the file asks for one (`add_eos`): embeddings and token counts
        need it, a prompt does not. A token that the text already has is not doubled.
        """
        ids = self.encode_text(well_formed(text), special)
        if bos and self.add_bos and self.bos_id is not None and ids[:1] != [self.bos_id]:
            ids.insert(0, self.bos_id)
        if eos and self.add_eos and self.eos_id is not None and ids[-1:] != [self.eos_id]:
            ids.append(self.eos_id)
        return ids

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """Return the text of a whole sequence. `special`: show control tokens by their names.

        `decode(encode(text)) == text` for a text without control tokens. The space that some vocabularies put before a
        text is taken away once, at the beginning, as transformers (without its clean-up of spaces) and llama.cpp do.
        Raises UsageError for an id outside the vocabulary.
        """
        stream = Stream(self, opens=True, special=special)
        return b"".join(map(stream.data, self._checked(ids))).decode("utf-8", "replace")

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Text of each token on its own, with U+FFFD for parts of characters."""
        return [self.bytes_of(i).decode("utf-8", "replace") for i in self._checked(ids)]

    def token_bytes(self, token_id: int) -> bytes:
        """What one token adds to the text."""
        return self.bytes_of(self._checked((token_id,))[0])

    def stream(self, after: Sequence[int] | None = None) -> Stream:
        """Decoder for tokens as they are generated. `after`: the prompt's ids, where the text must not begin with
        the space that this vocabulary puts after a special token."""
        return Stream(self, opens=after is not None and (not after or after[-1] in self.special_ids))

    def _checked(self, ids: Iterable[int]) -> list[int]:
        listed = list(ids)
        for i in listed:
            if not 0 <= i < self.vocab_size:
                raise UsageError(f"token id {i} is outside the vocabulary of {self.vocab_size}")
        return listed


class Stream:
    """Text of tokens one by one. What `push` returns never ends inside a character; `flush` gives what is left over.

    `opens`: the first token opens a text, so that its space prefix is dropped. `special`: show control tokens.
    """

    def __init__(self, tokenizer: Tokenizer, *, opens: bool = False, special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._strip = opens and tokenizer.space_prefix
        self._special = special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Characters that this token completes; none for control tokens and ids that stand for no token."""
        return self._decoder.decode(self.data(token_id))

    def data(self, token_id: int) -> bytes:
        """The same in bytes, at once."""
        known = self._tokenizer
        if (token_id in known.hidden_ids and not self._special) or not 0 <= token_id < known.vocab_size:
            return b""
        data = known.bytes_of(token_id)
        if self._strip and data:
            data, self._strip = data.removeprefix(b" "), False
        return data

    def flush(self) -> str:
        """The end of the text: U+FFFD for a character that was never completed."""
        return self._decoder.decode(b"", True)


def well_formed(text: str) -> str:
    """The text without half surrogates, which JSON can smuggle in and UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
