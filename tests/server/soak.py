"""A server among enemies, for as long as you like: `python -m tests.server.soak --minutes 20 [-m model.gguf]`.

Clients vanish in the middle of streams, read slowly, connect and say nothing, lie about lengths, save and restore
slots, and send hostile requests, all at once; beside them one client asks the same question again and again and must
get the same answer each time. Prints what happened; exits with 1 where something was answered with 500, an answer
changed, a place in the batch or a block of the cache was lost, or memory grew by more than 5 % (and 20 MB) after the
first quarter.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from itertools import islice
from pathlib import Path

from ternrun.api import load
from ternrun.server.settings import ServerConfig
from tests.fakes import fake_gguf, fake_weights
from tests.server.clients import ask, crawl, head, send, vanish
from tests.server.hostile import requests
from tests.server.serving import TEMPLATE, Server, running

LONG = {"prompt": "a", "max_tokens": 400, "ignore_eos": True, "stream": True}
HONEST = {"prompt": "hello", "max_tokens": 20, "temperature": 0, "ignore_eos": True}
LIES = (head("/v1/completions", 999) + b"{}", b"\x16\x03\x01", b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n")


class Soak:
    """What happened so far."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server, self.port, self.rng = server, server.port, random.Random(seed)
        self.bodies = requests(seed)
        self.counts: Counter[str] = Counter()
        self.answers: set[str] = set()
        self.began = time.monotonic()
        self.honest: list[tuple[float, float]] = []  # (seconds an answer took, seconds since the start)

    async def round(self) -> None:
        """Everything at once, a second or so of it."""
        rng = self.rng
        enemies = [vanish(self.port, LONG, rng.randrange(3000), rng.random() < 0.5) for _ in range(40)]
        enemies += [crawl(self.port, LONG, 1) for _ in range(2)]
        enemies += [self._quiet(rng.choice(LIES)) for _ in range(5)] + [self._quiet(b"") for _ in range(5)]
        self.counts["vanished"] += 40
        self.counts["lied or said nothing"] += 10
        await asyncio.gather(*enemies, *(self._hostile() for _ in range(8)), self._slots(), self._honest())

    async def _quiet(self, data: bytes) -> None:
        with suppress(TimeoutError):
            await send(self.port, data, end=self.rng.random() < 0.5, seconds=1)

    async def _hostile(self) -> None:
        for path, body in islice(self.bodies, 5):
            status, _ = await ask(self.port, path, body, seconds=600)
            self.counts[f"hostile, {status}"] += 1

    async def _slots(self) -> None:
        slot, name = self.rng.randrange(16), str(self.rng.randrange(3))
        await ask(self.port, "/completion", {"prompt": name * 100, "n_predict": 1, "id_slot": slot}, seconds=600)
        for action in ("save", "restore", "erase"):
            status, _ = await ask(self.port, f"/slots/{slot}?action={action}", {"filename": name}, seconds=600)
            self.counts[f"{action}, {status}"] += 1

    async def _honest(self) -> None:
        for _ in range(5):
            began = time.monotonic()
            status, body = await ask(self.port, "/v1/completions", HONEST, seconds=600)
            if status == 429:
                self.counts["honest, told to wait"] += 1
                await asyncio.sleep(0.2)
                continue
            self.honest.append((time.monotonic() - began, began - self.began))
            self.counts[f"honest, {status}"] += 1
            self.answers.add(json.loads(body)["choices"][0]["text"] if status == 200 else f"status {status}")


def resident() -> int:
    """Bytes of memory this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("-m", "--model", help="a GGUF file; a tiny one is made if none is given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--share", type=float, default=4, help="of a core that all of it may use; it waits in between")
    args = parser.parse_args()
    logging.getLogger("ternrun.http").setLevel(logging.CRITICAL)  # lies are expected here
    with tempfile.TemporaryDirectory() as folder:
        made = {"tokenizer__chat_template": TEMPLATE}
        path = args.model or fake_gguf(Path(folder) / "tiny.gguf", fake_weights("llama"), **made)
        slots = Path(folder) / "slots"
        slots.mkdir()
        with running(ServerConfig(port=0, stall=5, slot_save_path=str(slots)), lambda: load(path)) as server:
            return soak(server, args.minutes * 60, args.seed, args.share)


def soak(server: Server, seconds: float, seed: int, share: float = 4) -> int:
    """All of it, and what came of it."""
    engine = server.model.driver.engine
    blocks, it = engine.cache.available, Soak(server, seed)
    began, worked, rounds = time.monotonic(), time.process_time(), 0
    memory: list[int] = []  # after the first round, then at each quarter
    while (spent := time.monotonic() - began) < seconds or not rounds:
        asyncio.run(it.round())
        rounds += 1
        time.sleep(max(0.0, (time.process_time() - worked) / share - (time.monotonic() - began)))
        if spent >= len(memory) * seconds / 4:
            memory.append(resident())
    end = time.monotonic() + 60
    while (engine.load != (0, 0) or server.service.sequences) and time.monotonic() < end:
        time.sleep(0.05)
    late = resident()
    early = memory[min(1, len(memory) - 1)]
    used = (time.process_time() - worked) / (time.monotonic() - began)
    print(f"{rounds} rounds in {time.monotonic() - began:.0f} s: {dict(sorted(it.counts.items()))}")
    slow = sorted(it.honest)
    slowest = ", ".join(f"{took:.2f} s (at {at:.0f} s)" for took, at in slow[-3:])
    print(f"honest answers: median {slow[len(slow) // 2][0]:.2f} s, slowest {slowest}")
    told = ", ".join(f"{size / 1e6:.0f}" for size in (*memory, late))
    print(f"memory in MB, first round, quarters, end: {told}; {used:.2f} of a core was used")
    free = engine.cache.available
    print(f"places taken {engine.load}, sequences {server.service.sequences}, blocks free {free} of {blocks}")
    faults = {
        "a request was answered with 500": any(name.endswith("500") for name in it.counts),
        "the honest client's answer changed": len(it.answers) != 1,
        "places were lost": engine.load != (0, 0) or bool(server.service.sequences or server.service.answers),
        "blocks were lost": engine.cache.available != blocks,
        "memory grew": late > early + max(20e6, 0.05 * early),
    }
    found = [fault for fault, seen in faults.items() if seen]
    print("FAULTS: " + "; ".join(found) if found else "no faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
