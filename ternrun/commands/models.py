"""The model that a command works on: how it is named, and how it is opened."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ternrun.commands.line import words
from ternrun.commands.line.parser import Parser
from ternrun.errors import LoadError, UsageError
from ternrun.loader.default_model import DEFAULT, NAME, located
from ternrun.loader.hub import reference
from ternrun.loader.user_path import from_home
from ternrun.progress import Progress

if TYPE_CHECKING:
    from ternrun.api import Model
    from ternrun.loader.tokenizers.tokenizer import Tokenizer

KINDS = "a GGUF or ONNX file, a folder with one or with safetensors, or OWNER/NAME of the Hugging Face hub"
USUAL = f"default: ${DEFAULT}, else {NAME}, which ternrun carries"


def add_model(parser: Parser, *, usual: str = USUAL, variant: bool = True) -> None:
    """The model, as the first word or as `-m MODEL`, and what may be overridden about it."""
    parser.add_argument("word", metavar="MODEL", nargs="?", help="the model; see -m")
    parser.add_argument("-m", "--model", metavar="MODEL", help=f"{KINDS} ({usual}); -hf downloads it first")
    if variant:
        _add_variant(parser)


def add_only_model(parser: Parser) -> None:
    """`add_model` for a command that takes no other words."""
    add_model(parser)
    parser.settle(words.one_model)


def add_models(parser: Parser) -> None:
    """`add_model` for a command that takes several, each with a name; see `named_models`."""
    parser.add_argument("words", metavar="MODEL", nargs="*", help="the model, or several; see -m")
    more = "; several as NAME=MODEL, or NAME,ALIAS=MODEL"
    parser.add_argument("-m", "--model", metavar="MODEL", action="append", help=f"{KINDS} ({USUAL}){more}")
    _add_variant(parser)


def add_model_and_text(parser: Parser, metavar: str) -> None:
    """`add_model` for a command that also takes a text, as the second word, as -p or as -f."""
    add_model(parser)
    parser.add_argument("text", metavar=metavar, nargs="?", help="the text; - or nothing: standard input")
    parser.add_argument("-p", "--prompt", metavar="TEXT", help="the same, also where it looks like a model's name")
    parser.add_argument("-f", "--file", metavar="FILE", help="the text is in this file")
    parser.settle(words.model_and_text)
    parser.surplus = "; text of several words goes in quotes"


def _add_variant(parser: Parser) -> None:
    parser.add_argument("--variant", metavar="NAME", help="which of several ONNX files of a folder, such as q4f16")
    parser.add_argument("--pre", metavar="NAME", help="the pre-tokenizer, where the file names none or an unknown one")


def add_template(parser: argparse.ArgumentParser) -> None:
    """What takes the place of the model's own chat template."""
    either = parser.add_mutually_exclusive_group()
    text = "a chat template in place of the model's own: Jinja, or a name such as chatml or llama3"
    either.add_argument("--chat-template", metavar="TEXT", help=text)
    either.add_argument("--chat-template-file", metavar="FILE", help="the same, read from a file")


def _template(args: argparse.Namespace) -> str | None:
    """Raises UsageError."""
    path: str | None = getattr(args, "chat_template_file", None)
    if path is None:
        return getattr(args, "chat_template", None)
    try:
        return Path(path).expanduser().read_text("utf-8")
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"the chat template in {path} cannot be read: {error}") from error


def model_path(args: argparse.Namespace) -> str:
    """The path of the model named, or of the default one; a model that -hf or an address names is downloaded.

    `args.model` is that path afterwards. Raises UsageError, LoadError where there is none, MissingExtra.
    """
    _name_warnings()
    path = reached((os.environ.get(DEFAULT) or None) if args.model is None else args.model)
    if getattr(args, "variant", None):
        from ternrun.loader.onnx.folder import model_file

        path = model_file(path, args.variant)
        args.variant = None
    args.model = str(path)
    return str(path)


def _name_warnings() -> None:
    """Let what the loader logs (`ternrun.loader`) appear on stderr as warnings of ternrun; `serve` has its own log."""
    import logging

    if logging.lastResort is not None:
        logging.lastResort.setFormatter(logging.Formatter("ternrun: warning: %(message)s"))


def reached(name: str | None) -> Path:
    """The model's path on this machine. Raises as `model_path`."""
    path = from_home(located(name))
    if path.exists():
        return path
    wanted = reference.parse(name or "")
    if wanted is None:
        raise LoadError(f"{path} does not exist{_beside(path)}")
    from ternrun.loader.hub.local_models import find, models_folder

    found = find(wanted)
    if found is not None:
        return found
    if not wanted.explicit:
        raise UsageError(
            f"{name} does not exist here: `ternrun pull {name}` downloads it from the hub, -hf {name} also runs it"
        )
    from ternrun.commands.download import downloaded

    return downloaded(wanted, models_folder() / wanted.repo)


def _beside(path: Path) -> str:
    """`; did you mean X?` where a model beside it has nearly that name."""
    from ternrun.commands.line.parser import near

    try:
        known = [p.name for p in path.parent.iterdir() if p.suffix in reference.MODELS]
    except OSError:
        known = []
    return near(path.name, known)


def named_models(args: argparse.Namespace, alias: str) -> dict[str, argparse.Namespace]:
    """Of a command that takes several: names -> the same arguments with that one model, checked to be there.

    `alias` is the name of one that has none; of several, each has its file's name. Raises UsageError.
    """
    if args.words and args.model:
        raise UsageError(f"models are named as words or by -m, not both: {args.words[0]} and {args.model[0]}")
    listed = args.words or args.model or [None]
    found: dict[str, argparse.Namespace] = {}
    for given in listed:
        names, _, path = (given or "").partition("=")
        if not path or Path(given).exists() or "://" in given:
            names, path = alias, given
        one = argparse.Namespace(**(vars(args) | {"model": path}))
        model_path(one)
        if len(listed) > 1 and not names:
            names = Path(one.model).stem
        if names in found:
            raise UsageError(f"two models are called {names}; give each a name: small=a.gguf large=b.gguf")
        found[names] = one
    return found


def open_tokenizer(args: argparse.Namespace) -> Tokenizer:
    """The model's tokenizer; a GGUF file needs no weights for it, a bare vocabulary will do. Raises LoadError."""
    from ternrun.loader.gguf.file import open_gguf
    from ternrun.loader.model import open_model
    from ternrun.loader.tokenizers.tokenizer import Tokenizer
    from ternrun.loader.unsupported.explain import explain_errors

    path = model_path(args)
    if path.endswith(".gguf"):
        with explain_errors(Path(path)):
            metadata = open_gguf(path).metadata
        return Tokenizer.from_gguf(metadata, pre=args.pre)
    with open_model(path, pre=args.pre) as model:
        return model.tokenizer


def check_model(args: argparse.Namespace) -> None:
    """Open the model's file, which reads no weights, so that one that is missing or damaged is refused before anything
    begins. Raises LoadError, UsageError."""
    from ternrun.loader.model import open_model

    _template(args)
    with open_model(model_path(args), pre=args.pre):
        pass


def compiling() -> str:
    """What happens while kernels are compiled, and whether it happens again next time."""
    from ternrun.runtime.cpu.compile.cache_files import cache_root, is_usable, is_writable

    root = cache_root()
    kept = is_usable(root) and is_writable(root)
    often = "this once" if kept else "each time, as none are kept: TERNRUN_CACHE names a folder"
    return f"compiling kernels for this CPU, {often}"


def load_model(args: argparse.Namespace, engine: dict[str, Any]) -> Model:
    """The model, ready to run; shows progress where kernels have to be compiled first. Raises as `api.load` does."""
    from ternrun.api import load

    path, template = model_path(args), _template(args)
    with Progress(compiling(), "kernels", told=True) as progress:
        return load(path, pre=args.pre, chat_template=template, progress=progress.update, **engine)
