"""Make tests/data/families.json.xz: llama.cpp's token ids for every vocabulary family, with vocabularies cut to size.

    python -m tests.oracle.families MODELS COMMIT        # MODELS: llama.cpp's folder of ggml-vocab-*.gguf files

A vocabulary is cut to the tokens and merges that are looked at while the texts below are encoded, in their old order,
so that it gives the same pieces; ids are llama.cpp's, renumbered. Every row of the pre-tokenizer table is also run on
llama-3's vocabulary, under that row's name. llama.cpp never sees the cut vocabularies.
"""

from __future__ import annotations

import json
import lzma
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ternrun.errors import LoadError
from ternrun.loader.gguf.file import open_gguf
from ternrun.loader.tokenizers.bpe import byte_level, sentencepiece
from ternrun.loader.tokenizers.from_gguf import pretokenizer_of
from ternrun.loader.tokenizers.pretokenizers import PRETOKENIZERS
from ternrun.loader.tokenizers.special_tokens import SpecialTokens
from ternrun.loader.tokenizers.token_bytes import ALPHABET, USER_DEFINED
from ternrun.loader.tokenizers.tokenizer import Tokenizer
from ternrun.loader.tokenizers.vocabulary import Vocabulary, read_vocabulary
from tests.oracle.llama import Oracle, oracle_version
from tests.texts import HERE, read

TARGET = HERE / "families.json.xz"
KEPT_KEYS = ("model", "pre", "add_space_prefix", "add_bos_token", "add_eos_token")
ID_KEYS = ("bos", "eos", "eot", "eom", "unknown")


def samples() -> dict[str, str]:
    """The texts that every family encodes."""
    return {"unicode": read(HERE / "unicode.txt")[:2000], "plain": read(HERE / "plain.txt")}


class Needed:
    """Tokens and merges that encoding looks at."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.merges: set[tuple[str, str]] = set()
        basis = [*ALPHABET.values(), *(f"<0x{b:02X}>" for b in range(256))]
        self.tokens = {t for t in basis if t in vocabulary.ids}
        self.tokens |= {vocabulary.tokens[i] for i in vocabulary.ends}
        for i in (vocabulary.bos, vocabulary.eos, vocabulary.unknown):
            self.tokens |= set() if i is None else {vocabulary.tokens[i]}

    def encode(self, metadata: Mapping[str, Any], pre: str | None, text: str) -> list[int]:
        """Ids by our own rules, noting what they take; user-defined tokens stay whole."""
        vocabulary = self.vocabulary
        gpt2 = vocabulary.model == "gpt2"
        encoder = (
            byte_level(vocabulary, pretokenizer_of(metadata, vocabulary, pre)) if gpt2 else sentencepiece(vocabulary)
        )
        rank = encoder.rank

        def noting(left: str, right: str) -> float | None:
            found = rank(left, right)
            if found is not None:
                self.merges.add((left, right))
                self.tokens |= {left, right, left + right}
            return found

        tokenizer = Tokenizer.from_gguf(metadata, pre)
        ids = tokenizer.encode(text, special=False, bos=False)
        whole = {vocabulary.tokens[i]: i for i in vocabulary.of_type(USER_DEFINED)}
        for piece in SpecialTokens(whole).split(text):
            if isinstance(piece, str):
                replace(encoder, rank=noting, cache={})(f" {piece}" if tokenizer.space_prefix else piece)
        self.tokens |= {vocabulary.tokens[i] for i in ids}
        return ids

    def cut(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The metadata of the smaller vocabulary."""
        vocabulary = self.vocabulary
        kept = sorted(vocabulary.ids[t] for t in self.tokens)
        small = {f"tokenizer.ggml.{k}": metadata.get(f"tokenizer.ggml.{k}") for k in KEPT_KEYS}
        for key in ID_KEYS:
            old = metadata.get(f"tokenizer.ggml.{key}_token_id")
            if old is not None and old in kept:
                small[f"tokenizer.ggml.{key}_token_id"] = kept.index(old)
        merges = [m for m in vocabulary.merges if tuple(m.split(" ", 1)) in self.merges]
        small |= {
            "tokenizer.ggml.tokens": [vocabulary.tokens[i] for i in kept],
            "tokenizer.ggml.token_type": [int(vocabulary.types[i]) for i in kept],
            "tokenizer.ggml.merges": merges or None,
            "tokenizer.ggml.scores": [float(vocabulary.scores[i]) for i in kept] if not merges else None,
        }
        return {k: v for k, v in small.items() if v is not None}


def family(path: Path, rows: Iterable[str | None]) -> dict[str, Any]:
    """A cut vocabulary and what llama.cpp makes of the texts with it, for each pre-tokenizer (None: the file's own)."""
    metadata = open_gguf(path).metadata
    needed = Needed(read_vocabulary(metadata))
    true: dict[str, dict[str, list[int]]] = {}
    for pre in rows:
        oracle = Oracle(path, pre=pre)
        true[pre or ""] = {n: oracle.encode(t, special=False, bos=False) for n, t in samples().items()}
        for text in samples().values():
            needed.encode(metadata, pre, text)
    small = needed.cut(metadata)
    new = {t: i for i, t in enumerate(small["tokenizer.ggml.tokens"])}
    tokens = needed.vocabulary.tokens
    missing = {tokens[i] for row in true.values() for ids in row.values() for i in ids} - set(new)
    if missing:
        print(f"{path.name}: llama.cpp uses {len(missing)} tokens that ours does not: {sorted(missing)[:5]}")
    expected = {pre: {n: [new.get(tokens[i], -1) for i in ids] for n, ids in row.items()} for pre, row in true.items()}
    return {"metadata": small, "expected": expected}


def main(models: Path, commit: str) -> None:
    """Write the file."""
    families: dict[str, Any] = {}
    for path in sorted(models.glob("ggml-vocab-*.gguf")):
        name = path.stem.removeprefix("ggml-vocab-")
        try:
            if read_vocabulary(open_gguf(path).metadata).model == "t5":
                print(f"{name}: left out: a unigram vocabulary is looked at as a whole")
                continue
            families[name] = family(path, [None])
        except LoadError as e:
            print(f"{name}: refused: {e}")
            continue
        print(f"{name}: {len(families[name]['metadata']['tokenizer.ggml.tokens'])} tokens")
    rows = {id(row): name for name, row in reversed(PRETOKENIZERS.items())}
    families["rows"] = family(models / "ggml-vocab-llama-bpe.gguf", rows.values())
    content = {"about": oracle_version() | {"llama.cpp": commit}, "families": families}
    TARGET.write_bytes(lzma.compress(json.dumps(content, ensure_ascii=False).encode()))
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
