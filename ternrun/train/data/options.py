"""The options of `ternrun train data`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareOptions:
    """How documents are selected, split and tokenized."""

    tokenizer: str = "bpe:4096"  # bpe:SIZE, char, gpt2:VOCAB,MERGES, a tokenizer.json, or a GGUF file
    val_share: float = 0.01
    split: str = ""  # hash: by document; tail: the end of each text (nanoGPT); empty: hash, or tail for few documents
    holdout: tuple[str, ...] = ()  # groups kept out of training as a whole
    group_bytes: int = 0  # limit of text from one group; 0: no limit
    keep_duplicates: bool = False
    repeat: Mapping[str, int] = field(default_factory=dict)  # group -> copies of it in the training part
    functions: bool = False  # add every Python function as a document of its own
    documented: int = 1  # times that short functions with a docstring are added
    bare: int = 0  # times that these are added without docstring and annotations
    dtype: str = ""  # of token ids, u16 or u32; empty: the smaller one that fits
