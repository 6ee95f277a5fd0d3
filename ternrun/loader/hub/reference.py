"""Names of models on the Hugging Face hub, as people write and paste them.

OWNER/NAME, hf:OWNER/NAME, hf.co/OWNER/NAME and a page's address name a repository; `:QUANT`, `/FILE` or the address of
a file say which of its models is meant.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from ternrun.errors import UsageError

HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
PART = r"[A-Za-z0-9][\w.-]*"
PLAIN = re.compile(rf"({PART})/({PART})(?::([\w.-]+))?")
PAGES = ("blob", "resolve", "raw", "tree")
MODELS = (".gguf", ".safetensors", ".onnx")


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository, and the encoding, file or folder of it that is meant; None: the best one."""

    repo: str
    quant: str | None = None
    file: str | None = None
    folder: str | None = None
    revision: str | None = None
    explicit: bool = True  # it can be nothing else; OWNER/NAME could be a path

    def __str__(self) -> str:
        rest = f":{self.quant}" if self.quant else f"/{self.file or self.folder}" if self.file or self.folder else ""
        return f"hf:{self.repo}{rest}"


def parse(text: str) -> Reference | None:
    """The reference that a text is; None where it is none. Raises UsageError for a wrong or foreign address."""
    scheme, colon, rest = text.partition(":")
    if colon and scheme.lower() == "hf":
        return _inside(rest.lstrip("/"), text)
    if colon and scheme.lower() in ("http", "https") and rest.startswith("//"):
        return _address(text)
    host, slash, path = text.partition("/")
    if slash and host.lower() in HOSTS:
        return _address(f"https://{host}/{path}")
    if found := PLAIN.fullmatch(text):
        if text.lower().endswith(MODELS):
            return None
        return Reference(f"{found[1]}/{found[2]}", quant=found[3], explicit=False)
    return None


def repository(text: str) -> Reference:
    """The reference that a text is. Raises UsageError where it is none."""
    found = parse(text) or (parse(f"hf:{text}") if text.count("/") > 1 and text[0] not in "./~" else None)
    if found is None:
        raise UsageError(f"a repository of the hub is named OWNER/NAME, not {text!r}")
    return found


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, else https://huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _address(text: str) -> Reference:
    """The page of a repository or file. Raises UsageError."""
    from urllib.parse import unquote, urlsplit  # few models are named so: the others need not wait for it

    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise UsageError(f"{text} is no address: {error}") from error
    own = urlsplit(endpoint())
    if parts.hostname not in HOSTS and parts.netloc != own.netloc:
        raise UsageError(
            f"{text} is not on the hub {endpoint()}: download the file yourself, as by `curl -LO`, and name it"
        )
    path = unquote(parts.path)
    if parts.netloc == own.netloc:
        path = path.removeprefix(own.path)
    return _inside(path.strip("/"), text)


def _inside(path: str, text: str) -> Reference:
    """What follows the hub's name: OWNER/NAME[:QUANT], or with a file, or with a page's kind, revision and file."""
    owner, _, rest = path.partition("/")
    name, _, below = rest.partition("/")
    name, colon, quant = name.partition(":")
    name, _, revision = name.partition("@")
    if owner in ("datasets", "spaces", "api", "docs", "papers"):
        raise UsageError(f"{text} is no model's page: a model's address is {endpoint()}/OWNER/NAME")
    if not re.fullmatch(PART, owner) or not re.fullmatch(PART, name) or bool(colon) != bool(quant):
        raise UsageError(f"{text} names no repository: a model's address is {endpoint()}/OWNER/NAME")
    repo = f"{owner}/{name}"
    kind, _, at = below.partition("/")
    if kind in PAGES and at:
        revision, _, below = at.partition("/")
    elif "/" not in below and not below.lower().endswith(MODELS):
        below = ""  # `discussions`, `commits`: another page of the same repository
    suffix = PurePosixPath(below).suffix.lower()
    file = below if suffix in MODELS else None
    folder = below if below and suffix not in (*MODELS, ".json", ".md", ".jinja") else None
    return Reference(repo, quant or None, file, folder, revision or None)
