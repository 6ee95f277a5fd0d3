"""Make tests/data/smollm2_tokens.json: llama.cpp's token ids of whole texts with SmolLM2's vocabulary, as hashes.

    python -m tests.oracle.tokens COMMIT                 # COMMIT: llama.cpp's; texts are those of tests/texts.py

For each text: sha256 of its UTF-8 bytes (a machine may hold another version), number of ids, sha256 of the ids as
little-endian int32, and every `stride`-th id, to find the first difference by. `special` false, no begin token.
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256

import numpy as np

from tests.oracle.llama import Oracle, oracle_version
from tests.smollm2 import smollm2
from tests.texts import HERE, texts

SAMPLES = 64


def main(commit: str) -> None:
    """Write the file."""
    oracle = Oracle(smollm2())
    found = {}
    for name, text in texts().items():
        ids = oracle.encode(text, special=False, bos=False)
        stride = max(1, len(ids) // SAMPLES)
        found[name] = {
            "text_sha256": sha256(text.encode()).hexdigest(),
            "count": len(ids),
            "ids_sha256": sha256(np.array(ids, "<i4").tobytes()).hexdigest(),
            "stride": stride,
            "sample": ids[::stride],
        }
        print(f"{name}: {len(ids)} ids")
    about = oracle_version() | {"llama.cpp": commit}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in found.items())
    ends = json.dumps(oracle.end_ids())
    (HERE / "smollm2_tokens.json").write_text(
        f'{{"about": {json.dumps(about)},\n"ends": {ends},\n"texts": {{\n{lines}\n}}}}\n'
    )


if __name__ == "__main__":
    main(sys.argv[1])
