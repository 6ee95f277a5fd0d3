"""Make tests/data/ternary_nll.json: what llama.cpp makes of random text with our TQ1_0 and TQ2_0 files.

    python -m tests.oracle.ternary COMMIT                # COMMIT: llama.cpp's

The files are seeded fakes (tests/fakes.py), which a test makes again. llama.cpp rounds activations to 8 bits in blocks
of 256, ternrun a whole token at a time as BitNet defines it: they agree in perplexity, not in the last digit.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tests.oracle.cases import CASES, IDS, TARGET, write
from tests.oracle.llama import Oracle, oracle_version
from tests.oracle.perplexity import logprobs


def main(commit: str) -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        nll = {
            f"{arch} {encoding}": -float(
                logprobs(Oracle(write(Path(folder), arch, encoding), context=512), [IDS]).mean()
            )
            for arch, encoding in CASES
        }
    about = oracle_version() | {"llama.cpp": commit}
    TARGET.write_text(json.dumps({"about": about, "nll": nll}, indent=1) + "\n")
    print(nll)


if __name__ == "__main__":
    main(sys.argv[1])
