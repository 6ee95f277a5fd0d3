"""Preparing a data folder from documents: hold out, remove duplicates, split, train a tokenizer, tokenize."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from ternrun.errors import UsageError
from ternrun.loader.default_model import located
from ternrun.train.data import dedup
from ternrun.train.data import tokenizer as tokenizers
from ternrun.train.data.document import Document
from ternrun.train.data.new_folder import atomic_folder, check_new_folder
from ternrun.train.data.options import PrepareOptions
from ternrun.train.data.sources.licenses import join_labels
from ternrun.train.data.split import holdout_first, split_documents
from ternrun.train.data.token_file import Manifest, write_tokens

_BPE_CHARACTERS = 64_000_000  # that a vocabulary is learned from


def prepare(
    documents: Iterable[Document],
    folder: Path,
    options: PrepareOptions,
    report: Callable[[str], None],
    skipped: Mapping[str, int] | None = None,
    *,
    force: bool = False,
) -> Manifest:
    """Write a data folder; `skipped` (reason -> files) goes into its manifest. `force` replaces another data folder.

    Raises UsageError if the folder exists or a part would be empty, TernrunError if the disk is full or not writable.
    """
    if options.split == "tail" and options.holdout:
        raise UsageError("--split tail trains on the beginning of every text, so it cannot be combined with --holdout")
    check_new_folder(folder, force=force)  # before hours of reading
    kept = holdout_first(documents, options)
    if not options.keep_duplicates:
        before = len(kept)
        kept = list(dedup.remove_duplicates(kept))
        removed = _count(before - len(kept), "duplicate")
        report(f"{removed} removed, {_count(len(kept), 'document')} left")
    parts = split_documents(kept, options, report)
    learned = parts if options.tokenizer == "char" else ("train",)  # a character of val alone would have no token
    tokenizer = make_tokenizer(options.tokenizer, [d.text for name in learned for d in parts[name]])
    vocabulary = tokenizer.to_str(pretty=True).encode()
    manifest = Manifest(
        dtype=_dtype(options, tokenizer.get_vocab_size()),
        vocab_size=tokenizer.get_vocab_size(),
        tokenizer_sha256=hashlib.sha256(vocabulary).hexdigest(),
        groups=_licenses(kept),
        holdout=sorted(options.holdout),
        skipped=dict(skipped or {}),
        repeated=dict(options.repeat),
        functions=options.functions,
        documented=options.documented,
        bare=options.bare,
    )
    with atomic_folder(folder, force=force) as hidden:
        (hidden / "tokenizer.json").write_bytes(vocabulary)
        for name, listed in parts.items():
            part = write_tokens(hidden / f"{name}.bin", [d.text for d in listed], tokenizer, manifest.dtype)
            manifest.parts[name] = part
            size = f"{part.text_bytes / 1e3:,.1f} kB of text, {part.tokens:,} tokens"
            report(f"{name}: {_count(part.documents, 'document')}, {size}")
        manifest.save(hidden)
    return manifest


def make_tokenizer(spec: str, texts: Sequence[str]) -> Tokenizer:
    """The tokenizer that `PrepareOptions.tokenizer` describes, trained on `texts` if needed.

    Raises UsageError, LoadError.
    """
    kind, _, rest = spec.partition(":")
    if kind == "bpe":
        if not rest.isdigit():
            raise UsageError(f"bpe:SIZE needs a number, not {rest!r}")
        step = max(1, sum(map(len, texts)) // _BPE_CHARACTERS)
        return tokenizers.train_bpe(tokenizers.limit_characters(texts[::step], _BPE_CHARACTERS), int(rest))
    if kind == "char":
        return tokenizers.char_level(texts)
    if kind == "gpt2":
        vocab, _, merges = rest.partition(",")
        return tokenizers.gpt2(Path(vocab), Path(merges))
    return tokenizers.load(located(spec))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _licenses(documents: Iterable[Document]) -> dict[str, str]:
    """The licenses of each group's documents."""
    found: dict[str, dict[str, None]] = {}
    for d in documents:
        found.setdefault(d.group, {})[d.license] = None
    return {group: join_labels(labels) for group, labels in found.items()}


def _dtype(options: PrepareOptions, vocab_size: int) -> str:
    fits = "u16" if vocab_size <= 2**16 else "u32"
    if options.dtype == "u16" and fits == "u32":
        raise UsageError(f"the tokenizer has {vocab_size} tokens, too many for --dtype u16; use u32")
    return {"u16": "<u2", "u32": "<u4"}[options.dtype or fits]
