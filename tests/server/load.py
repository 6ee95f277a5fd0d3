"""Many clients that stream at once, and what each of them sees.

    python -m tests.server.load -m model.gguf
    python -m tests.server.load -m model.gguf --llama-server build/bin/llama-server

Starts the server (or takes one that runs: --url), and has 1, 4, 16 and 64 clients ask through llama.cpp's /completion,
which both servers know, one request after the other, each with a prompt of its own. Every stream must hold exactly the
tokens it asked for; some are asked for again in one piece, and must be the same. Prints, for each number of clients,
tokens a second, the time to the first token and between two tokens, and how late the server's event loop was.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.request import urlopen

from tests.server.clients import ask, connected, post

WORDS = tuple(f"{a} {b}" for a in ("old", "new", "big", "red") for b in ("time", "year", "house", "world", "school"))
PROMPT = 16  # pairs of words a prompt
CHECKED = 2  # streams of each level that are asked for again
LAG = re.compile(r'ternrun_event_loop_lag_seconds_bucket{le="([^"]+)"} (\S+)')


@dataclass(slots=True)
class Stream:
    """One answer: its tokens, and when they came (seconds since it was asked for)."""

    body: dict[str, Any]
    ids: list[int] = field(default_factory=list)
    came: list[tuple[float, int]] = field(default_factory=list)  # (when, how many)
    made: int = 0  # tokens, those included that a server holds back because they are half a character

    @property
    def gaps(self) -> list[float]:
        """Between two tokens; those that came together share the wait for them."""
        pairs = itertools.pairwise(self.came)
        return [(late - early) / count for (early, _), (late, count) in pairs for _ in range(count)]


async def stream(port: int, body: dict[str, Any]) -> Stream:
    """Ask, and take down what comes when."""
    told, began = Stream(body), time.perf_counter()
    async with connected(port) as (reader, writer):
        writer.write(post("/completion", body | {"stream": True}))
        while line := await reader.readline():
            if not line.startswith(b"data: "):
                continue
            event = json.loads(line[6:])
            assert "error" not in event, event
            if event["stop"]:
                told.made = event["tokens_predicted"]
                break
            if event["tokens"]:
                told.ids += event["tokens"]
                told.came.append((time.perf_counter() - began, len(event["tokens"])))
    return told


async def level(port: int, clients: int, tokens: int, seconds: float, rng: random.Random) -> tuple[list[Stream], float]:
    """So many clients, each asking again until the time is up; what they got, and how long it took in all."""
    began, streams = time.perf_counter(), []

    async def client() -> None:
        while time.perf_counter() - began < seconds:
            prompt = " ".join(rng.choices(WORDS, k=PROMPT))
            body = {
                "prompt": prompt,
                "n_predict": tokens,
                "temperature": 0,
                "repeat_penalty": 1.0,
                "ignore_eos": True,
                "seed": 1,
            }
            streams.append(await stream(port, body))

    await asyncio.gather(*(client() for _ in range(clients)))
    return streams, time.perf_counter() - began


async def same_in_one_piece(port: int, told: Stream) -> bool:
    """Whether the server says the same without streaming, and alone."""
    status, body = await ask(port, "/completion", told.body | {"stream": False, "return_tokens": True})
    return status == 200 and json.loads(body)["tokens"] == told.ids


def percentile(values: Sequence[float], share: float) -> float:
    """Of values in any order."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def lag(port: int) -> dict[str, float]:
    """How often the event loop was late by at most so much, since the server began; nothing where it does not tell."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            return {bound: float(count) for bound, count in LAG.findall(answer.read().decode())}
    except OSError:
        return {}


def lag_p99(before: dict[str, float], after: dict[str, float]) -> str:
    """The bound that 99 of 100 wake-ups in between kept."""
    counts = {bound: after[bound] - before.get(bound, 0) for bound in after}
    if not counts:
        return "-"
    return next(f"<{float(bound) * 1000:g}" for bound, n in counts.items() if n >= 0.99 * counts["+Inf"])


def measure(port: int, levels: Sequence[int], tokens: int, seconds: float, *, check: bool) -> bool:
    """Print a line a level; says whether every token came, once."""
    rng, whole = random.Random(1), True
    asyncio.run(level(port, max(levels), 4, 0.1, rng))  # everything has run once
    print("clients  tokens/s  first token p50  p99 ms  between tokens p50  p99 ms  event loop p99 ms  requests")
    for clients in levels:
        before = lag(port)
        streams, took = asyncio.run(level(port, clients, tokens, seconds, rng))
        late = lag_p99(before, lag(port))
        firsts = [s.came[0][0] * 1000 for s in streams if s.came] or [0.0]
        gaps = [g * 1000 for s in streams for g in s.gaps] or [0.0]
        if check:
            whole = whole and all(len(s.ids) == tokens for s in streams)
            whole = whole and all(asyncio.run(same_in_one_piece(port, s)) for s in rng.sample(streams, CHECKED))
        print(
            f"{clients:7}  {sum(s.made for s in streams) / took:8.1f}  {percentile(firsts, 0.5):15.0f}"
            f"  {percentile(firsts, 0.99):6.0f}  {percentile(gaps, 0.5):18.1f}  {percentile(gaps, 0.99):6.1f}"
            f"  {late:>17}  {len(streams):8}",
            flush=True,
        )
    if check:
        print("every token came, once" if whole else "TOKENS WERE LOST OR DOUBLED")
    return whole


@contextmanager
def started(command: list[str], port: int) -> Iterator[None]:
    """A server in a process of its own, once it is ready."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(1200):
            try:
                with urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except OSError:
                assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def main() -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", help="a GGUF file")
    parser.add_argument("--llama-server", metavar="PATH", help="llama.cpp's program, measured on the same file")
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("--url", help="a server that runs on this machine already: http://127.0.0.1:PORT")
    parser.add_argument("--clients", default="1,4,16,64")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5, help="of each level")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    levels = [int(n) for n in args.clients.split(",")]
    if args.url:
        return not measure(int(args.url.rpartition(":")[2]), levels, args.tokens, args.seconds, check=True)
    common = ["-m", args.model, "--port", str(args.port)]
    ours = [sys.executable, "-m", "ternrun", "serve", *common, "--threads", str(args.threads), "--queue", "256"]
    theirs = [args.llama_server, *common, "-t", str(args.threads), "-np", "16", "-c", "16384", "--no-webui"]
    print("ternrun")
    with started([*ours, "--kv-tokens", "16384"], args.port):
        good = measure(args.port, levels, args.tokens, args.seconds, check=True)
    if args.llama_server:
        print("llama.cpp")
        with started(theirs, args.port):
            measure(
                args.port, levels, args.tokens, args.seconds, check=False
            )  # it holds back tokens of half characters
    return not good


if __name__ == "__main__":
    sys.exit(main())
