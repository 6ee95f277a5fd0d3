"""Selecting documents and splitting them into training, validation and held-out parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from ternrun.errors import UsageError
from ternrun.train.data import dedup
from ternrun.train.data.document import Document
from ternrun.train.data.options import PrepareOptions
from ternrun.train.data.sources.functions import functions

_TAIL_CHARACTERS, _MAX_TAIL_SHARE = 20_000, 0.1  # for validation when there are too few documents to split by hash


def holdout_first(documents: Iterable[Document], options: PrepareOptions) -> list[Document]:
    """Sort held-out groups first, so that removing duplicates removes their copies from the training part."""
    kept = sorted(documents, key=lambda d: d.group not in options.holdout)
    groups = {d.group for d in kept}
    for flag, names in (("--holdout", options.holdout), ("--repeat", options.repeat)):
        if missing := set(names) - groups:
            raise UsageError(f"{flag}: {', '.join(sorted(missing))} not in the corpus")
    return kept


def split_documents(
    documents: Sequence[Document], options: PrepareOptions, report: Callable[[str], None]
) -> dict[str, list[Document]]:
    """The documents of each token file. Raises UsageError if the training or validation part would be empty."""
    limited = _limit_groups(documents, options)
    parts = _split(limited, options)
    if not _has_text(parts["train"] + parts["val"]):
        raise UsageError("the corpus is empty: there is no document to train on")
    few = not (_has_text(parts["train"]) and _has_text(parts["val"]))
    if few and not options.split and not options.holdout:
        size = sum(len(d.text) for d in limited)
        tail = min(_MAX_TAIL_SHARE, _TAIL_CHARACTERS / size)
        options = replace(options, split="tail", val_share=max(options.val_share, tail))
        report(f"too few documents to choose some for validation: using the last {options.val_share:.1%} of each text")
        parts = _split(limited, options)
    if not _has_text(parts["train"]):
        raise UsageError("the corpus is empty: there is no document to train on")
    if not _has_text(parts["val"]):
        remedy = "use --split tail, which validates on the end of each text, or a larger --val-share"
        raise UsageError(f"none of {len(documents)} documents is in the validation part; {remedy}")
    if options.functions:
        found = functions(parts["train"], options.documented, options.bare)
        report(f"{len(found)} functions added as separate documents")
        parts["train"] += found
    parts["train"] = _shuffled([d for d in parts["train"] for _ in range(options.repeat.get(d.group, 1))])
    return parts


def _has_text(documents: Iterable[Document]) -> bool:
    return any(d.text for d in documents)


def _shuffled(documents: Sequence[Document]) -> list[Document]:
    """The documents in a fixed random order. Copies of a document next to each other would only teach copying."""
    order = np.random.default_rng(0).permutation(len(documents))
    return [documents[i] for i in order]


def _limit_groups(documents: Sequence[Document], options: PrepareOptions) -> list[Document]:
    """At most `group_bytes` of each group, chosen by hash, so that no package outweighs the others."""
    if not options.group_bytes:
        return list(documents)
    used: Counter[str] = Counter()
    kept = []
    for document in sorted(documents, key=lambda d: dedup.digest(d.text)):
        if used[document.group] < options.group_bytes:
            used[document.group] += len(document.text)
            kept.append(document)
    return kept


def _split(documents: Sequence[Document], options: PrepareOptions) -> dict[str, list[Document]]:
    """The documents of each part. The part of a document depends on its text only."""
    parts: dict[str, list[Document]] = {"train": [], "val": []}
    if options.split == "tail":
        for d in documents:
            cut = int(len(d.text) * (1 - options.val_share))
            parts["train"].append(replace(d, text=d.text[:cut]))
            parts["val"].append(replace(d, text=d.text[cut:]))
        return parts
    if options.holdout:
        parts["holdout"] = []
    for d in documents:
        chosen = int.from_bytes(dedup.digest(d.text)[:8], "little") < options.val_share * 2**64
        parts["holdout" if d.group in options.holdout else "val" if chosen else "train"].append(d)
    return parts
