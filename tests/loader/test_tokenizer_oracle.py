"""Token ids equal llama.cpp's: whole texts with SmolLM2's vocabulary, every vocabulary family, every pre-tokenizer."""

from __future__ import annotations

import json
import lzma
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ternrun.loader.gguf.file import open_gguf
from ternrun.loader.tokenizers.pretokenizers import PRETOKENIZERS
from ternrun.loader.tokenizers.tokenizer import Tokenizer
from tests.oracle.vocab import check_family
from tests.smollm2 import smollm2
from tests.texts import HERE, read, texts

# Where the table follows the models' own tokenizer.json, from which llama.cpp departs: case of letters beyond ASCII
# (gpt-4o, tekken), and spaces beyond ASCII inside the range of ideographs (deepseek's first two).
OWN_WAY = {"gpt-4o", "tekken", "deepseek-llm", "deepseek-coder"}

SMOLLM2 = json.loads(read(HERE / "smollm2_tokens.json"))
FAMILIES: dict[str, Any] = json.loads(lzma.decompress((HERE / "families.json.xz").read_bytes()))["families"]
CASES = [(family, pre) for family, case in FAMILIES.items() for pre in case["expected"]]
SAMPLES = {"unicode": read(HERE / "unicode.txt")[:2000], "plain": read(HERE / "plain.txt")}


@pytest.fixture(scope="module")
def smol() -> Tokenizer:
    return Tokenizer.from_gguf(open_gguf(smollm2()).metadata)


@pytest.mark.parametrize("name", texts())
def test_smollm2_on_whole_texts(smol: Tokenizer, name: str) -> None:
    text, expected = texts()[name], SMOLLM2["texts"][name]
    ids = smol.encode(text, special=False, bos=False)
    assert smol.decode(ids) == text
    if sha256(text.encode()).hexdigest() != expected["text_sha256"]:
        assert name.endswith(".py")  # another version of Python holds another text; all others are fixed
        return
    assert ids[:: expected["stride"]] == expected["sample"]
    assert len(ids) == expected["count"]
    assert sha256(np.array(ids, "<i4").tobytes()).hexdigest() == expected["ids_sha256"]


def test_smollm2_ends(smol: Tokenizer) -> None:
    assert sorted(smol.eos_ids) == SMOLLM2["ends"]
    assert (smol.bos_id, smol.eos_id, smol.add_bos, smol.vocab_size) == (1, 2, False, 49152)


@pytest.mark.parametrize(("family", "pre"), CASES)
def test_families_and_pretokenizers(family: str, pre: str) -> None:
    case = FAMILIES[family]
    tokenizer = Tokenizer.from_gguf(case["metadata"], pre or None)
    for name, text in SAMPLES.items():
        ids = tokenizer.encode(text, special=False, bos=False)
        if name == "plain" or pre not in OWN_WAY:
            assert ids == case["expected"][pre][name]
        byte_level = case["metadata"]["tokenizer.ggml.model"] == "gpt2"
        assert tokenizer.decode(ids) == (text if byte_level else text.replace("▁", " "))


def test_every_row_of_the_table_is_compared() -> None:
    compared = {id(PRETOKENIZERS[name]) for name in FAMILIES["rows"]["expected"]}
    assert compared == {id(row) for row in PRETOKENIZERS.values()}


def test_llama_cpp_vocabulary_tests(capsys: pytest.CaptureFixture[str]) -> None:
    """All of llama.cpp's own tests where its models folder is at hand, else the cut ones above once more."""
    folder = os.environ.get("TERNRUN_LLAMA_CPP_MODELS")
    if folder is None:
        assert len(FAMILIES) >= 18
        return
    results = [check_family(path) for path in sorted(Path(folder).glob("ggml-vocab-*.gguf"))]
    with capsys.disabled():
        print(*results, sep="\n")
    assert len(results) >= 15
    assert not [r for r in results if r.failed]
