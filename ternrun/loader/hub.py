"""Model files from the Hugging Face hub (extra `[hub]`): choose one, download it, resume where it broke off.

What the hub says about names and sizes is checked like any other input: a file never lands outside its folder, and
its size and sha256 must be those announced. A partial download is kept beside its place as `NAME.HASH.part`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ternrun.errors import LoadError, MissingExtra, UsageError

# What to take where several GGUF files are offered, best first: (types, why).
PREFERENCE = (
    (("TQ2_0", "I2_S", "Q2_0", "PQ2_0", "TQ1_0", "PTQ1_0", "IQ2_BN", "IQ2_BN_R4", "IQ1_BN", "Q1_0"), "ternary weights"),
    (("Q4_K_M", "Q4_K_S", "Q4_K", "Q4_0", "Q4_1", "IQ4_XS", "IQ4_NL"), "4 bits: the usual balance of size and quality"),
    (("Q5_K_M", "Q5_K_S", "Q5_K", "Q5_0", "Q5_1", "Q6_K", "Q8_0"), "the smallest type offered above 4 bits"),
    (("Q3_K_L", "Q3_K_M", "Q3_K_S", "Q3_K", "Q2_K", "Q2_K_S"), "nothing above 3 bits is offered"),
    (("BF16", "F16", "F32"), "nothing quantized is offered"),
)
RANK = {name: (rank, why) for rank, (name, why) in enumerate((n, why) for names, why in PREFERENCE for n in names)}
TYPE = re.compile(rf"(?<![A-Z0-9])(?:{'|'.join(sorted(RANK, key=len, reverse=True))})(?![A-Z0-9_])")
SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)")
FOLDER = re.compile(r"[^/]+\.(safetensors|safetensors\.index\.json|jinja)|[a-z_]*(config|tokenizer|tokens_map)\.json")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository; `digest` is its sha256 where the hub keeps it as a large file."""

    name: str
    size: int
    digest: str | None
    identity: str  # changes with the content


@dataclass(frozen=True, slots=True)
class Choice:
    """Files to download, `folder` where they belong together, and the reason for the choice."""

    files: tuple[RemoteFile, ...]
    reason: str
    folder: bool = False


def gguf_type(name: str) -> str | None:
    """The encoding that a GGUF file's name announces, None where it announces none that is known."""
    found = TYPE.findall(PurePosixPath(name).name.upper())
    return found[-1] if found else None


def choose(files: Sequence[RemoteFile], wanted: str | None = None) -> Choice:
    """The file named, else the best GGUF file, else a safetensors folder. Raises UsageError where there is none."""
    by_name = {f.name: f for f in files}
    if wanted is not None:
        if wanted not in by_name:
            offered = [f.name for f in files if f.name.endswith((".gguf", ".safetensors", ".onnx"))]
            listing = ", ".join(offered[:8]) + (", ..." if len(offered) > 8 else "")
            raise UsageError(f"the repository has no file {wanted!r}; it has {listing or 'no model file at all'}")
        return Choice(shards(by_name, wanted), "named")
    ggufs = [f for f in files if f.name.endswith(".gguf") and "mmproj" not in f.name]
    known = [(RANK[kind], f) for f in ggufs if (kind := gguf_type(f.name))]
    if known:
        (_, why), best = min(known, key=lambda pair: (pair[0][0], pair[1].name))
        return Choice(shards(by_name, best.name), f"{gguf_type(best.name)} of {len(ggufs)} GGUF files: {why}")
    if any(f.name.endswith(".safetensors") for f in files):
        return Choice(tuple(f for f in files if FOLDER.fullmatch(f.name)), "no GGUF file: the safetensors", folder=True)
    if len(ggufs) == 1:
        return Choice((ggufs[0],), "the only GGUF file")
    names = ", ".join(f.name for f in ggufs[:8])
    raise UsageError(
        f"name the file to pull, one of: {names}" if ggufs else "the repository has no GGUF or safetensors"
    )


def shards(by_name: dict[str, RemoteFile], name: str) -> tuple[RemoteFile, ...]:
    """The file, or all files of the split model that it belongs to, in order."""
    match = SHARD.search(name)
    if not match:
        return (by_name[name],)
    count = int(match[2])
    names = [SHARD.sub(f"-{i:05}-of-{count:05}", name) for i in range(1, min(count, 1000) + 1)]
    missing = [n for n in names if n not in by_name]
    if missing:
        raise UsageError(f"the repository lacks {missing[0]!r}, a part of {name!r}")
    return tuple(by_name[n] for n in names)


@contextmanager
def explained(repo: str, endpoint: str, remedy: str) -> Iterator[None]:
    """Turn what the hub and the network raise into one sentence."""
    from huggingface_hub import errors as hub

    sentences = {
        hub.GatedRepoError: f"{repo} is gated: accept its terms on {endpoint}/{repo} and set HF_TOKEN",
        hub.RepositoryNotFoundError: f"{endpoint} has no repository {repo!r} (a private one needs HF_TOKEN)",
        hub.RevisionNotFoundError: f"{repo} has no such revision",
        hub.HFValidationError: f"a repository is named OWNER/NAME, not {repo!r}",
        hub.OfflineModeIsEnabled: "HF_HUB_OFFLINE is set: nothing can be downloaded",
    }
    try:
        yield
    except Exception as error:
        for kind, sentence in sentences.items():
            if isinstance(error, kind):
                raise UsageError(sentence) from error
        if isinstance(error, hub.HfHubHTTPError):
            raise UsageError(f"{endpoint} answered {error.response.status_code} for {repo}: {remedy}") from error
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            raise  # the disk, not the network
        if not type(error).__module__.startswith(("http", "requests", "urllib3", "huggingface_hub", "builtins")):
            raise
        raise UsageError(f"the connection to {endpoint} failed ({type(error).__name__}): {remedy}") from error


def pull(
    repo: str, file: str | None = None, *, to: Path, revision: str | None = None, endpoint: str | None = None
) -> tuple[Path, Choice]:
    """Download a model into the folder `to`; returns the path to load and what was chosen, with the reason.

    A file that is already there with the right content is not downloaded again. `endpoint` defaults to the
    environment's HF_ENDPOINT, else https://huggingface.co. Raises UsageError (no such repository or file, no
    network), LoadError (content that differs from what was announced), MissingExtra, OSError (the disk).
    """
    try:
        from huggingface_hub import HfApi, constants
    except ImportError as error:
        raise MissingExtra("ternrun pull", "hub") from error
    endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
    with explained(repo, endpoint, "check the network, or set HF_ENDPOINT to another hub"):
        info = HfApi(endpoint=endpoint).model_info(repo, revision=revision, files_metadata=True)
    choice = choose([remote_file(s) for s in info.siblings or ()], file)
    base = to / PurePosixPath(repo).name if choice.folder else to
    places = [base / local_name(f.name) for f in choice.files]
    for remote, place in zip(choice.files, places, strict=True):
        with explained(repo, endpoint, "what has arrived is kept; run the same command again to resume"):
            fetch(repo, info.sha, remote, place, endpoint)
    return (base if choice.folder else places[0]), choice


def remote_file(sibling: Any) -> RemoteFile:
    """What the hub says of one file, as our record."""
    digest = sibling.lfs.sha256 if sibling.lfs else None
    return RemoteFile(sibling.rfilename, sibling.size or 0, digest, digest or sibling.blob_id or str(sibling.size))


def local_name(name: str) -> str:
    """The last part of a repository path, refused where it is no plain file name."""
    last = PurePosixPath(name).name
    if not re.fullmatch(r"[\w.+=@() -]+", last) or last.startswith("."):
        raise LoadError(f"the repository names a file {name!r}, which is not a safe file name")
    return last


def fetch(repo: str, revision: str | None, remote: RemoteFile, place: Path, endpoint: str) -> None:
    """Download one file to `place` through a `.part` file that a later call continues."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    if place.is_file() and place.stat().st_size == remote.size and intact(place, remote):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.{remote.identity[:12]}.part")
    done = part.stat().st_size if part.exists() else 0
    if done > remote.size:
        part.unlink()
        done = 0
    url = hf_hub_url(repo, remote.name, revision=revision, endpoint=endpoint)
    with part.open("ab") as out:
        http_get(
            url,
            out,
            resume_size=done,
            headers=build_hf_headers(),
            expected_size=remote.size,
            displayed_filename=place.name,
        )
    if not intact(part, remote):
        part.unlink()
        raise LoadError(
            f"{remote.name} arrived damaged (its sha256 differs from the hub's) and was deleted: pull again"
        )
    part.replace(place)


def intact(path: Path, remote: RemoteFile) -> bool:
    """Whether the file holds what the hub announced, as far as the hub tells."""
    if remote.digest is None:
        return path.stat().st_size == remote.size
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == remote.digest
