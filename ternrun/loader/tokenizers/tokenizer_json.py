"""Build a tokenizer from the contents of a tokenizer.json; its package does what plain merging cannot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ternrun.errors import LoadError
from ternrun.loader.gguf.strings import MAX_STRINGS
from ternrun.loader.tokenizers.byte_level_hf import is_plain, plain_encoder, plain_vocabulary, without_model
from ternrun.loader.tokenizers.special_tokens import around_special
from ternrun.loader.tokenizers.token_bytes import BYTE, CONTROL, NORMAL, SPACE, USER_DEFINED, token_bytes
from ternrun.loader.tokenizers.unigram import charsmaps
from ternrun.loader.tokenizers.vocabulary import files_by_name, fim_by_name, named

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library


def build_described(
    description: Mapping[str, Any], where: str, text: str | None = None
) -> tuple[dict[str, Any], dict[str, int], Library]:
    """Return the fields of a `Tokenizer` that the contents of a tokenizer.json decide, ids by text, and its library.

    `where` names the description in errors; `text` is the description as JSON where that is at hand. Raises LoadError.
    """
    plain, pieces = is_plain(description), is_wordpiece(description)
    byte_level = not pieces and _byte_level(description, where)
    list(charsmaps(description))  # checked before the package follows whatever indices they hold
    if plain or text is None:
        text = json.dumps(without_model(description) if plain else description)
    library = load_library(text, where)
    ids, added = plain_vocabulary(description) if plain else _vocabulary(library)
    tokens = _tokens(ids, where)
    if pieces:
        tokens = [_spaced(t, i in added) for i, t in enumerate(tokens)]
    types = np.full(len(tokens), NORMAL, np.int8)
    if not byte_level:
        types[list(named(ids, (f"<0x{b:02X}>" for b in range(256))))] = BYTE
    for i, control in added.items():
        types[i] = CONTROL if control else USER_DEFINED
    special, hidden = frozenset(added), frozenset(i for i, control in added.items() if control)
    fields = {
        "vocab_size": len(tokens),
        "fim": fim_by_name(ids),
        "files": files_by_name(ids),
        "space_prefix": pieces or (not byte_level and _prefixes(description)),
        "special_ids": special,
        "hidden_ids": hidden,
        "encode_text": around_special(tokens, special, hidden, plain_encoder(description, library), "")
        if plain
        else _encoder(library, lambda: load_library(text, where)),
        "bytes_of": (lambda i: tokens[i].encode()) if pieces else token_bytes(tokens, types, byte_level=byte_level),
    }
    return fields, ids, library


def _vocabulary(library: Library) -> tuple[dict[str, int], dict[int, bool]]:
    """Ids by text, and of each added token whether it is a control token."""
    added = library.get_added_tokens_decoder()
    return library.get_vocab(with_added_tokens=True), {i: token.special for i, token in added.items()}


def load_library(text: str, where: str) -> Library:
    """The tokenizers package's tokenizer, without cutting and padding. Raises LoadError."""
    from tokenizers import Tokenizer as Library

    try:
        library = Library.from_str(text)
    except BaseException as e:  # the package panics (a BaseException) on some damaged files
        if isinstance(e, (KeyboardInterrupt, SystemExit)):
            raise
        raise LoadError(f"{where} is not a tokenizer: {str(e)[:200]}") from e
    library.no_truncation()
    library.no_padding()
    return library


def _tokens(ids: Mapping[str, int], where: str) -> list[str]:
    size = max(ids.values(), default=-1) + 1
    if not 0 < size <= MAX_STRINGS:
        raise LoadError(f"{where} lists token ids up to {str(size - 1)[:20]}; there must be 1 to {MAX_STRINGS} tokens")
    tokens = [""] * size
    for token, i in ids.items():
        tokens[i] = token
    return tokens


def _encoder(library: Library, load: Callable[[], Library]) -> Callable[[str, bool], list[int]]:
    @cache
    def blind() -> Library:
        """A second one, which takes names of control tokens for plain text: the setting holds for all threads."""
        copy = load()
        copy.encode_special_tokens = True
        return copy

    def encode_text(text: str, special: bool) -> list[int]:
        ids: list[int] = (library if special else blind()).encode(text, add_special_tokens=False).ids
        return ids

    return encode_text


def _parts(node: Any) -> Iterator[Mapping[str, Any]]:
    """A step of the description, or those of a sequence of steps."""
    if isinstance(node, dict):
        yield node
        for name in ("normalizers", "pretokenizers", "decoders"):
            steps = node.get(name)
            for part in steps if isinstance(steps, list) else ():
                yield from _parts(part)


def _byte_level(description: Mapping[str, Any], where: str) -> bool:
    steps = [p for name in ("normalizer", "pre_tokenizer", "decoder") for p in _parts(description.get(name))]
    kinds = {str(p.get("type")) for p in steps}
    if "ByteLevel" in kinds:
        return True
    if kinds & {"Metaspace", "ByteFallback"} or any(SPACE in str(p.get("content")) for p in steps):
        return False
    raise LoadError(f"{where} is neither a byte-level nor a SentencePiece tokenizer, and no other kind is supported")


def is_wordpiece(description: Mapping[str, Any]) -> bool:
    """BERT's kind: words are cut into pieces, of which those that go on begin with ##."""
    model = description.get("model")
    return isinstance(model, dict) and model.get("type") == "WordPiece"


def _spaced(token: str, added: bool) -> str:
    """What a piece adds to the text: with a space before it, if it begins a word or stands for itself."""
    return token[2:] if token.startswith("##") and len(token) > 2 and not added else f" {token}"


def _prefixes(description: Mapping[str, Any]) -> bool:
    """Whether decoding takes away the space that encoding put before the text."""
    for part in _parts(description.get("decoder")):
        if part.get("type") == "Strip" and part.get("start"):
            return True
        if part.get("type") == "Metaspace":
            return part.get("prepend_scheme", "always") != "never" and part.get("add_prefix_space") is not False
    return False
