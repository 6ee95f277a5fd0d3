"""Thousands of damaged GGUF files: each is loaded or refused by a LoadError, quickly and in little memory."""

from __future__ import annotations

import struct
import time
import tracemalloc
from random import Random

import numpy as np
import pytest

from ternrun.errors import LoadError
from ternrun.loader.gguf.file import open_gguf, read_gguf
from ternrun.loader.gguf.header import MAX_TENSORS
from ternrun.loader.gguf.strings import MAX_STRINGS
from tests.fuzz.build import Array, Tensor, noise
from tests.fuzz.build import gguf as build
from tests.fuzz.corpus import gguf_files
from tests.fuzz.mutate import mutate
from tests.fuzz.targets import accepts

FILES = 6000
SECONDS = 1.0  # of this process, whatever else the machine does
MEMORY = 8  # bytes per byte of the file
FIXED = 50_000  # bytes, for files of any size


def test_the_samples_themselves_are_accepted():
    for name, sample in gguf_files().items():
        assert accepts("gguf", bytes(sample.data)) == (name != "refused"), name


def test_damaged_files_are_loaded_or_refused():
    rng = Random(1)
    files = list(gguf_files().values())
    accepted, slowest, hungriest = 0, 0.0, 0.0
    tracemalloc.start()
    try:
        for i in range(FILES):
            sample = files[i % len(files)]
            data = mutate(bytes(sample.data), rng, sample.numbers)
            tracemalloc.reset_peak()
            before, start = tracemalloc.get_traced_memory()[0], time.process_time()
            accepted += accepts("gguf", data)
            slowest = max(slowest, time.process_time() - start)
            used = tracemalloc.get_traced_memory()[1] - before
            hungriest = max(hungriest, used / (FIXED + MEMORY * len(data)))
    finally:
        tracemalloc.stop()
    print(f"{accepted} of {FILES} accepted, slowest {1e3 * slowest:.0f} ms, most memory {hungriest:.0%} of allowed")
    assert 0.02 * FILES < accepted < 0.6 * FILES  # damage that is all refused, or none, tests little
    assert slowest < SECONDS
    assert hungriest < 1


def test_damaged_files_on_disk(tmp_path):
    rng = Random(2)
    path = tmp_path / "m.gguf"
    faults = []
    for i, sample in enumerate(list(gguf_files().values()) * 40):
        path.write_bytes(mutate(bytes(sample.data), rng, sample.numbers if i % 2 else ()))
        try:
            open_gguf(path)
        except LoadError as e:
            faults.append(str(e))
    assert all(f.startswith(str(path)) for f in faults)
    assert 20 < len(faults) < 300


def no_strings(n: int) -> bytes:
    return bytes(8 * n)


def ever_longer(n: int) -> bytes:
    """Strings that the bulk guess never gets right."""
    return b"".join(struct.pack("<Q", i % 3 * 300) + bytes(i % 3 * 300) for i in range(n))


GIANTS = {
    "empty strings": (no_strings(MAX_STRINGS), MAX_STRINGS),
    "hard strings": (ever_longer(20_000), 20_000),
    "strings of one NUL": ((struct.pack("<Q", 1) + b"\0") * MAX_STRINGS, MAX_STRINGS),
}


@pytest.mark.parametrize("case", GIANTS)
def test_giant_vocabularies_are_read_in_time(case):
    strings, count = GIANTS[case]
    data = build({"k": ("string", Array("string", (), count))}, n_keys=1).data + strings
    start = time.process_time()
    model = read_gguf([("m", np.frombuffer(data, np.uint8))])
    assert time.process_time() - start < SECONDS
    assert len(model.metadata["k"]) == count


def test_more_than_the_limits_is_refused():
    strings = no_strings(MAX_STRINGS + 1)
    data = build({"k": ("string", Array("string", (), MAX_STRINGS + 1))}).data + strings
    with pytest.raises(LoadError, match=f"key 'k' announces {MAX_STRINGS + 1} strings; at most {MAX_STRINGS} are read"):
        read_gguf([("m", np.frombuffer(data, np.uint8))])


def test_the_most_tensors_are_read_in_time():
    data = build({}, [Tensor(f"t{i}", (8,), 0, noise(32)) for i in range(MAX_TENSORS)]).data
    start = time.process_time()
    model = read_gguf([("m", np.frombuffer(data, np.uint8))])
    assert time.process_time() - start < SECONDS
    assert len(model.tensors) == MAX_TENSORS
