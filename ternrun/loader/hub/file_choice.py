"""Which files of a repository make the model to download, and which of them is the one to load."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ternrun.errors import UsageError

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
SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.(?:gguf|safetensors)$)")
WEIGHTS = re.compile(r"[^/]+\.safetensors(\.index\.json)?")
SETTINGS = re.compile(r"[^/]+\.jinja|[a-z_]*(config|tokenizer|tokens_map)\.json|modules\.json|\d+_Pooling/config\.json")
GRAPHS = ("model_q4", "model_q4f16", "decoder_model_merged_q4", "model", "decoder_model_merged")  # best first
MODELS = (".gguf", ".safetensors", ".onnx")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository; `digest` is its sha256 where the hub keeps it as a large file."""

    name: str
    size: int
    digest: str | None
    identity: str  # changes with the content


@dataclass(frozen=True, slots=True)
class Choice:
    """Files to download, and the reason for the choice.

    `folder`: they belong together in a folder, laid out as in the repository, of which `model` is to be loaded.
    """

    files: tuple[RemoteFile, ...]
    reason: str
    folder: bool = False
    model: str = "."


def choose(
    files: Sequence[RemoteFile], wanted: str | None = None, *, quant: str | None = None, folder: str | None = None
) -> Choice:
    """The model named, else the best GGUF file, else safetensors, else ONNX.

    `quant`: a GGUF file of that encoding, such as Q4_K_M. `folder`: only what lies in that folder of the repository.
    Raises UsageError where there is none.
    """
    if folder is not None:
        files = [f for f in files if f.name.startswith(f"{folder}/")]
    if wanted is not None:
        return _named(files, wanted)
    ggufs = [f for f in files if f.name.endswith(".gguf") and "mmproj" not in f.name]
    if quant is not None and quant != "latest":
        return _of_type(ggufs, quant)
    known = [(RANK[kind], f) for f in ggufs if (kind := gguf_type(f.name))]
    if known:
        (_, why), best = min(known, key=lambda pair: (pair[0][0], pair[1].name))
        return Choice(shards(files, best.name), f"{gguf_type(best.name)} of {len(ggufs)} GGUF files: {why}")
    graph = _best_graph(files)
    if graph and any(f.name == "modules.json" for f in files):
        return _with_graph(files, graph, "a sentence encoder in ONNX")
    weights = [f for f in _within(files, PurePosixPath("."), WEIGHTS) if not f.name.endswith(".json")]
    if weights:
        usual = [f for f in weights if f.name.startswith("model")]  # some keep the same weights once more, consolidated
        return _checkpoint(files, usual or weights, "no GGUF file: the safetensors")
    if len(ggufs) == 1:
        return Choice((ggufs[0],), "the only GGUF file")
    if graph and not ggufs:
        return _with_graph(files, graph, "no GGUF file and no safetensors: the ONNX graph")
    offered = _offered(files)
    raise UsageError(
        f"name the file to pull, one of: {offered}" if offered else "the repository has no GGUF, safetensors or ONNX"
    )


def gguf_type(name: str) -> str | None:
    """The encoding that a GGUF file's name announces, None where it announces none that is known."""
    found = TYPE.findall(PurePosixPath(name).name.upper())
    return found[-1] if found else None


def is_type(name: str, quant: str) -> bool:
    """Whether a GGUF file's name announces that encoding, in capitals or not."""
    bounded = rf"(?<![A-Z0-9]){re.escape(quant.upper())}(?![A-Z0-9_])"
    return re.search(bounded, PurePosixPath(name).name.upper()) is not None


def shards(files: Sequence[RemoteFile], name: str) -> tuple[RemoteFile, ...]:
    """The file, or all files of the split model that it belongs to, in order. Raises UsageError for a missing one."""
    by_name = {f.name: f for f in files}
    match = SHARD.search(name)
    if not match:
        return (by_name[name],)
    count = int(match[2])
    names = [SHARD.sub(f"-{i:05}-of-{count:05}", name) for i in range(1, min(count, 1000) + 1)]
    missing = [n for n in names if n not in by_name]
    if missing:
        raise UsageError(f"the repository lacks {missing[0]!r}, a part of {name!r}")
    return tuple(by_name[n] for n in names)


def _named(files: Sequence[RemoteFile], wanted: str) -> Choice:
    if all(f.name != wanted for f in files):
        raise UsageError(f"the repository has no file {wanted!r}; it has {_offered(files) or 'no model file at all'}")
    if wanted.endswith(".onnx"):
        return _with_graph(files, wanted, "named")
    parts = shards(files, wanted)
    beside = str(PurePosixPath(wanted).with_name("config.json"))
    if wanted.endswith(".safetensors") and any(f.name == beside for f in files):
        return _checkpoint(files, parts, "named")
    return Choice(parts, "named")


def _of_type(ggufs: Sequence[RemoteFile], quant: str) -> Choice:
    found = sorted((f for f in ggufs if is_type(f.name, quant)), key=lambda f: (len(f.name), f.name))
    if not found:
        types = ", ".join(sorted({kind for f in ggufs if (kind := gguf_type(f.name))}))
        raise UsageError(f"the repository has no GGUF file of type {quant}; it has {types or 'none of a known type'}")
    return Choice(shards(ggufs, found[0].name), f"of type {quant.upper()}, as asked")


def _offered(files: Sequence[RemoteFile]) -> str:
    models = [f.name for f in files if f.name.endswith(MODELS)]
    return ", ".join(models[:8]) + (", ..." if len(models) > 8 else "")


def _within(files: Sequence[RemoteFile], folder: PurePosixPath, names: re.Pattern[str]) -> list[RemoteFile]:
    """Files of a folder of the repository that have such names there."""
    prefix = "" if folder == PurePosixPath(".") else f"{folder}/"
    return [f for f in files if f.name.startswith(prefix) and names.fullmatch(f.name.removeprefix(prefix))]


def _checkpoint(files: Sequence[RemoteFile], weights: Sequence[RemoteFile], reason: str) -> Choice:
    """Safetensors, with what says how to run them."""
    folder = PurePosixPath(weights[0].name).parent
    split = any(SHARD.search(f.name) for f in weights)
    index = [f for f in _within(files, folder, WEIGHTS) if split and f.name.endswith(".json")]
    chosen = dict.fromkeys((*weights, *index, *_within(files, folder, SETTINGS)))
    return Choice(tuple(chosen), reason, folder=True, model=str(folder))


def _best_graph(files: Sequence[RemoteFile]) -> str | None:
    """The ONNX file to take unasked: of the usual names the first, or the only one."""
    graphs = [f.name for f in files if f.name.endswith(".onnx")]
    order = ("model", *GRAPHS) if any(f.name == "modules.json" for f in files) else GRAPHS
    usual = (f"{folder}{stem}.onnx" for stem in order for folder in ("onnx/", ""))
    return next((name for name in usual if name in graphs), graphs[0] if len(graphs) == 1 else None)


def _with_graph(files: Sequence[RemoteFile], graph: str, reason: str) -> Choice:
    """A graph, the weights that exporters keep beside it, and its tokenizer, which may lie above the folder `onnx`."""
    at = PurePosixPath(graph).parent
    data = re.compile(re.escape(PurePosixPath(graph).name) + r"([._]data(_\d+)?)?")
    found = [*_within(files, at, data), *_within(files, at, SETTINGS)]
    if at.name == "onnx":
        found += _within(files, at.parent, SETTINGS)
    return Choice(tuple(found), reason, folder=True, model=graph)
