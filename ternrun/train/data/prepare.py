"""Documents to a data folder: hold out, remove duplicates, split, learn a tokenizer, tokenize."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ternrun.errors import UsageError
from ternrun.loader.default_model import located
from ternrun.train.data import dedup
from ternrun.train.data import tokenizer as tokenizers
from ternrun.train.data.document import Document
from ternrun.train.data.new_folder import check_free, made_whole
from ternrun.train.data.sources.functions import functions
from ternrun.train.data.sources.licences import joined
from ternrun.train.data.token_file import Manifest, write_tokens

_SAMPLE = 64_000_000  # characters a vocabulary is learned from
_TAIL = 20_000  # characters to validate on where documents are too few to be shared out, or
_TAIL_SHARE = 0.1  # of a small text


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a corpus is cut."""

    tokenizer: str = "bpe:4096"  # bpe:SIZE, char, gpt2:VOCAB,MERGES, a tokenizer.json, or a GGUF file
    val_share: float = 0.01
    split: str = ""  # hash: by document; tail: the end of each text (nanoGPT's split); empty: hash, else tail
    holdout: tuple[str, ...] = ()  # groups kept out of training as a whole
    group_bytes: int = 0  # most text taken of one group; 0: all
    duplicates: bool = False  # keep duplicates
    repeat: Mapping[str, int] = field(default_factory=dict)  # groups that are learned from several times over
    functions: bool = False  # learn from each function once more, as a document of its own
    documented: int = 1  # times, from short ones with a docstring
    bare: int = 0  # times, from those without it
    dtype: str = ""  # of token ids, u16 or u32; empty: the smaller that fits


def prepare(
    documents: Iterable[Document],
    folder: Path,
    plan: Plan,
    report: Callable[[str], None],
    skipped: Mapping[str, int] | None = None,
    *,
    force: bool = False,
) -> Manifest:
    """Write a data folder; `skipped` goes into its manifest. `force` lets it take another data folder's place.

    Raises UsageError where one is there already or a part would be empty, TernrunError where the disk refuses.
    """
    if plan.split == "tail" and plan.holdout:
        raise UsageError("--split tail learns from the beginning of every text and cannot hold any out (--holdout)")
    check_free(folder, force=force)  # before hours of reading
    kept = _held_out_first(documents, plan)
    if not plan.duplicates:
        before = len(kept)
        kept = list(dedup.distinct(kept))
        removed = _counted(before - len(kept), "duplicate")
        report(f"{removed} removed, {_counted(len(kept), 'document')} left")
    parts = _parts(kept, plan, report)
    learned = parts if plan.tokenizer == "char" else ("train",)  # a character never seen would have no token at all
    tokenizer = make_tokenizer(plan.tokenizer, [d.text for name in learned for d in parts[name]])
    vocabulary = tokenizer.to_str(pretty=True).encode()
    manifest = Manifest(
        dtype=_dtype(plan, tokenizer.get_vocab_size()),
        vocab_size=tokenizer.get_vocab_size(),
        tokenizer_sha256=hashlib.sha256(vocabulary).hexdigest(),
        groups=_licences(kept),
        holdout=sorted(plan.holdout),
        skipped=dict(skipped or {}),
        repeated=dict(plan.repeat),
        functions=plan.functions,
        documented=plan.documented,
        bare=plan.bare,
    )
    with made_whole(folder, force=force) as beside:
        (beside / "tokenizer.json").write_bytes(vocabulary)
        for name, listed in parts.items():
            part = write_tokens(beside / f"{name}.bin", [d.text for d in listed], tokenizer, manifest.dtype)
            manifest.parts[name] = part
            size = f"{part.text_bytes / 1e3:,.1f} kB of text, {part.tokens:,} tokens"
            report(f"{name}: {_counted(part.documents, 'document')}, {size}")
        manifest.save(beside)
    return manifest


def _parts(kept: Sequence[Document], plan: Plan, report: Callable[[str], None]) -> dict[str, list[Document]]:
    """What goes into each token file. Raises UsageError where nothing is left to train on, or to validate on."""
    capped = _capped(kept, plan)
    parts = _split(capped, plan)
    if not _filled(parts["train"] + parts["val"]):
        raise UsageError("the corpus is empty: no document is left to train on")
    few = not (_filled(parts["train"]) and _filled(parts["val"]))
    if few and not plan.split and not plan.holdout:
        size = sum(len(d.text) for d in capped)
        plan = replace(plan, split="tail", val_share=max(plan.val_share, min(_TAIL_SHARE, _TAIL / size)))
        report(f"too few documents to choose some for validation: the last {plan.val_share:.1%} of each text is taken")
        parts = _split(capped, plan)
    if not _filled(parts["train"]):
        raise UsageError("the corpus is empty: no document is left to train on")
    if not _filled(parts["val"]):
        remedy = "take --split tail, which keeps the end of each text, or a larger --val-share"
        raise UsageError(f"no document of {len(kept)} fell to the validation part; {remedy}")
    if plan.functions:
        found = functions(parts["train"], plan.documented, plan.bare)
        report(f"{len(found)} functions added as documents of their own")
        parts["train"] += found
    parts["train"] = _shuffled([d for d in parts["train"] for _ in range(plan.repeat.get(d.group, 1))])
    return parts


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _filled(documents: Iterable[Document]) -> bool:
    return any(d.text for d in documents)


def _licences(documents: Iterable[Document]) -> dict[str, str]:
    """The licences of each group's documents."""
    found: dict[str, dict[str, None]] = {}
    for d in documents:
        found.setdefault(d.group, {})[d.licence] = None
    return {group: joined(labels) for group, labels in found.items()}


def _dtype(plan: Plan, vocab_size: int) -> str:
    fits = "u16" if vocab_size <= 2**16 else "u32"
    if plan.dtype == "u16" and fits == "u32":
        raise UsageError(f"the tokenizer has {vocab_size} tokens, more than --dtype u16 has numbers for; take u32")
    return {"u16": "<u2", "u32": "<u4"}[plan.dtype or fits]


def make_tokenizer(spec: str, texts: Sequence[str]) -> Tokenizer:
    """The tokenizer that `Plan.tokenizer` describes. Raises UsageError, LoadError."""
    kind, _, rest = spec.partition(":")
    if kind == "bpe":
        if not rest.isdigit():
            raise UsageError(f"bpe:SIZE needs a number, not {rest!r}")
        return tokenizers.train_bpe(
            tokenizers.sample(texts[:: max(1, sum(map(len, texts)) // _SAMPLE)], _SAMPLE), int(rest)
        )
    if kind == "char":
        return tokenizers.char_level(texts)
    if kind == "gpt2":
        vocab, _, merges = rest.partition(",")
        return tokenizers.gpt2(Path(vocab), Path(merges))
    return tokenizers.load(located(spec))


def _held_out_first(documents: Iterable[Document], plan: Plan) -> list[Document]:
    """Held-out groups lead, so that training loses its copies of them and not the other way round."""
    kept = sorted(documents, key=lambda d: d.group not in plan.holdout)
    groups = {d.group for d in kept}
    for purpose, names in (("hold out of", plan.holdout), ("repeat of", plan.repeat)):
        if missing := set(names) - groups:
            raise UsageError(f"nothing to {purpose} {', '.join(sorted(missing))}: not in the corpus")
    return kept


def _shuffled(documents: Sequence[Document]) -> list[Document]:
    """In an order of chance, always the same: copies of a document side by side in a window teach copying alone."""
    order = np.random.default_rng(0).permutation(len(documents))
    return [documents[i] for i in order]


def _capped(documents: Sequence[Document], plan: Plan) -> list[Document]:
    """At most `group_bytes` of each group, chosen by hash, so that no one package outweighs the rest."""
    if not plan.group_bytes:
        return list(documents)
    used: Counter[str] = Counter()
    kept = []
    for document in sorted(documents, key=lambda d: dedup.digest(d.text)):
        if used[document.group] < plan.group_bytes:
            used[document.group] += len(document.text)
            kept.append(document)
    return kept


def _split(documents: Sequence[Document], plan: Plan) -> dict[str, list[Document]]:
    """The documents of each part; which part one goes to depends on its text alone."""
    parts: dict[str, list[Document]] = {"train": [], "val": []}
    if plan.split == "tail":
        for d in documents:
            cut = int(len(d.text) * (1 - plan.val_share))
            parts["train"].append(replace(d, text=d.text[:cut]))
            parts["val"].append(replace(d, text=d.text[cut:]))
        return parts
    if plan.holdout:
        parts["holdout"] = []
    for d in documents:
        chosen = int.from_bytes(dedup.digest(d.text)[:8], "little") < plan.val_share * 2**64
        parts["holdout" if d.group in plan.holdout else "val" if chosen else "train"].append(d)
    return parts
