"""Words of a command line that may name a model, or be text: one rule for all commands.

A model is the first word or -m. A lone word that names a model, or looks like one, is never taken for text; -p gives
text that looks like a model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ternrun.errors import UsageError
from ternrun.loader.default_model import NAME
from ternrun.loader.hub.reference import MODELS, parse

INSIDE = ("*.gguf", "*.safetensors", "*.onnx", "onnx/*.onnx", "config.json")


def is_model(word: str) -> bool:
    """Whether a word names a model: a file or folder that is there, the hub's, or a name that only models have."""
    if word == NAME:
        return True
    if not word.strip() or "\n" in word or len(word) > 1000:
        return False
    path = Path(word)
    try:
        if path.is_dir():
            return "/" in word or any(any(path.glob(pattern)) for pattern in INSIDE)
        if path.is_file():
            return word.lower().endswith(MODELS) or _magic(path) == b"GGUF"
    except (OSError, ValueError):
        return False
    return not any(map(str.isspace, word)) and (word.lower().endswith(MODELS) or parse(word) is not None)


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def one_model(args: argparse.Namespace) -> None:
    """Of a command with no other words: the word is the model. Raises UsageError where two are named."""
    if args.word is not None:
        _name(args, args.word)


def model_and_text(args: argparse.Namespace) -> None:
    """Of a command with [MODEL] [TEXT]: sets `model` and `text`. Raises UsageError.

    The text may also come from -p (`prompt`), or from a file (`file`); it is given once.
    """
    first, second = args.word, args.text
    if first is not None and second is not None and args.model is None and not is_model(first):
        if not Path(first).exists():
            raise UsageError(
                f"{first!r} names no model; text of several words goes in quotes: {_quoted(first, second)}"
            )
        _name(args, first)
    elif first is not None and is_model(first):
        _name(args, first)
    elif second is not None:
        raise UsageError(f"text of several words goes in quotes: {_quoted(first, second)}")
    else:
        second = first
        _check_text(first)
    given = {"an argument": second, "-p": args.prompt, "-f": args.file}
    named = [name for name, text in given.items() if text is not None]
    if len(named) > 1:
        raise UsageError(f"the text is given twice, by {' and '.join(named)}")
    args.text = second if args.prompt is None else args.prompt


def model_and_ids(args: argparse.Namespace) -> None:
    """Of a command with [MODEL] [ID ...]: the first word is the model, unless it holds ids or -m names one."""
    words = [] if args.word is None else [args.word, *args.ids]
    if words and words[0] != "-" and words[0].strip("-0123456789[], ") and args.model is None:
        _name(args, words.pop(0))
    args.ids = words


def model_and_file(args: argparse.Namespace) -> None:
    """Of a command with [MODEL] OUT: the last word is the file to write. Raises UsageError."""
    words = [word for word in (args.word, args.out_word) if word is not None]
    out = args.out if args.out is not None else words.pop() if words else None
    if out is None:
        raise UsageError("the file to write is missing: ternrun convert MODEL OUT")
    if len(words) == 1:
        _name(args, words[0])
    elif words:
        raise UsageError(f"the file to write is named twice: {out} and {words[1]}")
    elif args.model is None:
        raise UsageError(f"only one file is named, {out}: ternrun convert MODEL OUT")
    args.out = Path(out)


def _name(args: argparse.Namespace, word: str) -> None:
    if args.model is not None:
        hint = "; -p gives text that looks like a model" if hasattr(args, "prompt") else ""
        raise UsageError(f"two models are named, {args.model} and {word}{hint}")
    args.model = word


def _check_text(word: str | None) -> None:
    """Raises UsageError for a lone word that is a file's name: it may be meant, or its content."""
    if word and word != "-" and len(word) < 256 and not any(map(str.isspace, word)) and Path(word).is_file():
        raise UsageError(
            f"{word} is a file: -f {_quoted(word)} takes the text in it, -p {_quoted(word)} takes the name as text"
        )


def _quoted(*words: str) -> str:
    """The words as one for a shell."""
    from shlex import quote

    return quote(" ".join(words))
