"""The model that a command works on: how it is named, and how it is opened."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ternrun.errors import UsageError
from ternrun.loader.embedded import NAME, located
from ternrun.loader.home import from_home
from ternrun.progress import Progress

if TYPE_CHECKING:
    from ternrun.api import Model
    from ternrun.loader.tokenizer import Tokenizer


def add_model(
    parser: argparse.ArgumentParser, *, positional: bool = False, needed: bool = False, several: bool = False
) -> None:
    """The model file, as `MODEL` or as `-m MODEL`, and what may be overridden about it.

    `needed` where other words follow: the model carried in the package must then be named, too. `several`: each with a
    name; see `named_models`.
    """
    text = f"a GGUF or ONNX file, or a folder with one or with safetensors; {NAME}: the one that ternrun carries"
    if needed:
        parser.add_argument("model", metavar="MODEL", help=text)
    elif positional:
        parser.add_argument("model", metavar="MODEL", nargs="?", help=f"{text} (default)")
    elif several:
        more = "; repeatable as NAME=MODEL, or NAME,ALIAS=MODEL"
        parser.add_argument("-m", "--model", metavar="MODEL", action="append", help=f"{text} (default){more}")
    else:
        parser.add_argument("-m", "--model", metavar="MODEL", help=f"{text} (default)")
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
    """The model named, or the one carried. Raises UsageError where there is none, or the name is a repository's."""
    path = from_home(located(args.model))
    if not path.exists() and not path.suffix and len(path.parts) == 2:
        raise UsageError(f"{path} does not exist; a repository is downloaded first: ternrun pull {path}")
    if getattr(args, "variant", None):
        from ternrun.loader.onnx.folder import model_file

        return str(model_file(path, args.variant))
    return str(path)


def named_models(args: argparse.Namespace, alias: str) -> dict[str, argparse.Namespace]:
    """Of a command that takes several: names -> the same arguments with that one model, checked to be there.

    `alias` is the name of one that has none. Raises UsageError.
    """
    found: dict[str, argparse.Namespace] = {}
    for given in args.model or [None]:
        names, _, path = (given or "").partition("=")
        if not path or Path(given).exists():
            names, path = alias, given
        if names in found or (not names and len(args.model or ()) > 1):
            raise UsageError("several models need a name each: -m small=a.gguf -m large=b.gguf")
        found[names] = argparse.Namespace(**(vars(args) | {"model": path}))
        model_path(found[names])
    return found


def open_tokenizer(args: argparse.Namespace) -> Tokenizer:
    """The model's tokenizer; a GGUF file needs no weights for it, a bare vocabulary will do. Raises LoadError."""
    from ternrun.loader.gguf import open_gguf
    from ternrun.loader.model import open_model
    from ternrun.loader.tokenizer import Tokenizer

    path = model_path(args)
    if path.endswith(".gguf"):
        return Tokenizer.from_gguf(open_gguf(path).metadata, pre=args.pre)
    with open_model(path, pre=args.pre) as model:
        return model.tokenizer


def check_model(args: argparse.Namespace) -> None:
    """Open the model's file, which reads no weights, so that one that is missing or damaged is refused before anything
    begins. Raises LoadError, UsageError."""
    from ternrun.loader.model import open_model

    _template(args)
    with open_model(model_path(args), pre=args.pre):
        pass


def load_model(args: argparse.Namespace, engine: dict[str, Any]) -> Model:
    """The model, ready to run; shows progress where kernels have to be compiled first. Raises as `api.load` does."""
    from ternrun.api import load

    path, template = model_path(args), _template(args)
    with Progress("compiling kernels for this CPU, this once", "kernels") as progress:
        return load(path, pre=args.pre, chat_template=template, progress=progress.update, **engine)
