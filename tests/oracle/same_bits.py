"""Check that a change of the code changes no bit of any result.

    python -m tests.oracle.same_bits record before.json --ternrun OLD/bin/ternrun
    python -m tests.oracle.same_bits record after.json --ternrun NEW/bin/ternrun
    python -m tests.oracle.same_bits compare before.json after.json

The script drives the command line only, so it measures any version. It scores a text with SmolLM2 and the carried
model, with the carried model in six ternary encodings, and with the exported ONNX graphs of tests/data; it continues a
prompt greedily and with a seed; and it trains twenty steps. A row is the SHA-256 of the numbers as they are printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from tests.smollm2 import smollm2

DATA = Path(__file__).parents[1] / "data"
ENCODINGS = ("tq1_0", "tq2_0", "i2_s", "q2_0", "iq1_bn", "iq2_bn")
KV_TYPES = ("f32", "f16", "int8")
PROMPT = "def fibonacci(n):"
TRAINING = (
    "optim.steps=20", "optim.warmup_steps=2", "optim.decay_steps=4", "run.log_every=1", "run.compile=false",
    "run.threads=1", "run.validate_every=20", "run.sample_every=20", "model.context=64", "data.batch=4",
)  # fmt: skip


class Rows:
    """What one installed version prints, a digest a row."""

    def __init__(self, ternrun: str, folder: Path) -> None:
        self._ternrun, self._folder = ternrun, folder

    def all(self) -> Iterator[tuple[str, str]]:
        """Every row: (name, digest)."""
        yield from self._models()
        yield from self._encodings()
        yield from self._graphs()
        yield "training: losses of 20 steps", digest(self._losses())

    def _run(self, *words: str) -> str:
        done = subprocess.run([self._ternrun, *words], capture_output=True, text=True, cwd=self._folder, check=False)
        if done.returncode:
            raise SystemExit(f"{self._ternrun} {' '.join(words)}: {done.stderr}")
        return done.stdout

    def _scores(self, model: str, ids: list[list[int]], *flags: str) -> str:
        path = self._folder / "ids.json"
        path.write_text(json.dumps(ids))
        return digest(json.loads(self._run("eval", model, "--ids", str(path), "--json", *flags)))

    def _tokens(self, model: str) -> list[list[int]]:
        text = (DATA / "plain.txt").read_text()
        found = json.loads(self._run("tokenize", model, "--json", text[:700]))
        return [found["ids"] if isinstance(found, dict) else found]

    def _models(self) -> Iterator[tuple[str, str]]:
        for name, model in (("SmolLM2", str(smollm2())), ("carried", "code-9m")):
            ids = self._tokens(model)
            for kv in KV_TYPES:
                yield f"{name}: scores, keys and values {kv}", self._scores(model, ids, "--kv-type", kv)
            for threads in ("1", "2"):
                yield f"{name}: scores, {threads} threads", self._scores(model, ids, "--threads", threads)
            for flags in (("--temperature", "0"), ("--temperature", "0.8", "--seed", "3", "--top-p", "0.9")):
                done = json.loads(self._run("complete", "-m", model, PROMPT, "-n", "64", "--json", *flags))
                yield f"{name}: {' '.join(flags)}", digest([done["ids"], done["text"]])

    def _encodings(self) -> Iterator[tuple[str, str]]:
        ids = self._tokens("code-9m")
        for encoding in ENCODINGS:
            self._run("convert", "code-9m", f"{encoding}.gguf", "--type", encoding)
            yield f"encoding {encoding}: scores", self._scores(f"{encoding}.gguf", ids)

    def _graphs(self) -> Iterator[tuple[str, str]]:
        stored = np.load(DATA / "onnx" / "logits.npz")
        letters = sorted(ByteLevel.alphabet())[: stored["llama"].shape[-1]]
        tokenizer = Tokenizer(BPE({letter: i for i, letter in enumerate(letters)}, []))  # the graphs have none
        tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
        tokenizer.save(str(self._folder / "tokenizer.json"))
        ids = stored["ids"].tolist()
        for packed in sorted((DATA / "onnx").glob("*.xz")):
            path = self._folder / packed.name.removesuffix(".xz")
            path.write_bytes(lzma.decompress(packed.read_bytes()))
            yield f"graph {path.stem}: scores", self._scores(str(path), [ids])

    def _losses(self) -> list[float]:
        source = str(DATA / "plain.txt")
        (self._folder / "corpus.txt").write_text(Path(source).read_text() * 8)
        split = ("--tokenizer", "char", "--split", "tail", "--val-share", "0.1", "--keep-duplicates")
        self._run("train", "data", "text:corpus.txt", *split, "--out", "data")
        sets = [word for change in (*TRAINING, "data.path=data") for word in ("--set", change)]
        self._run("train", "run", "shakespeare-char", "--out", "run", *sets)
        entries = map(json.loads, (self._folder / "run" / "log.jsonl").read_text().splitlines())
        return [entry["loss"] for entry in entries if "loss" in entry]


def digest(value: object) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def record(target: Path, ternrun: str) -> None:
    """Write every row of one version."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, value in Rows(ternrun, Path(folder)).all():
            rows[name] = value
            print(f"{value}  {name}", flush=True)
    target.write_text(json.dumps(rows, indent=1) + "\n")


def compare(before: Path, after: Path) -> int:
    """Print the rows that differ; returns the exit code."""
    old, new = json.loads(before.read_text()), json.loads(after.read_text())
    names = sorted(old.keys() | new.keys())
    differing = [name for name in names if old.get(name) != new.get(name)]
    print(
        "\n".join([f"differs: {name}" for name in differing] + [f"{len(names) - len(differing)} of {len(names)} equal"])
    )
    return 1 if differing else 0


def main() -> int:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("record")
    one.add_argument("target", type=Path)
    one.add_argument("--ternrun", default=str(Path(sys.executable).parent / "ternrun"), type=os.path.abspath)
    two = commands.add_parser("compare")
    two.add_argument("before", type=Path)
    two.add_argument("after", type=Path)
    args = parser.parse_args()
    if args.command == "record":
        record(args.target, args.ternrun)
        return 0
    return compare(args.before, args.after)


if __name__ == "__main__":
    sys.exit(main())
