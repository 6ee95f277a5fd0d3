"""llama-server's command line, as far as its tests use it, in ternrun's words: started by `llama_suite`.

Flags that are not here mean nothing to us (`--jinja`, `--slots`), or are what we do not have (`--lora`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence

from ternrun.cli import main

Words = list[str]

SAME = ("host", "port", "threads", "pooling", "alias", "api-key", "chat-template", "chat-template-file",
        "slot-save-path")  # fmt: skip
MEANS: dict[str, Callable[[str], Words]] = {
    "temp": lambda value: ["--default", f"temperature={value}"],
    "seed": lambda value: ["--default", f"seed={value}"],
    "n-predict": lambda value: ["--default", f"max_tokens={value}"],  # no limit: requests may ask for more
    "batch-size": lambda value: ["--prefill-chunk", value],
    "reasoning": lambda value: ["--default", f"chat_template_kwargs={json.dumps({'enable_thinking': value != 'off'})}"],
}
SWITCHES = {"context-shift": ["--context-shift"], "no-ui": ["--no-page"], "verbose": ["--default", "verbose=true"]}


def translated(model: str, given: Sequence[str]) -> Words:
    """The arguments of ternrun. llama-server divides the context among its slots, and lets every web page ask."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in (*SAME, *MEANS):
        parser.add_argument(f"--{name}", dest=name)
    for name in (*SWITCHES, "kv-unified"):
        parser.add_argument(f"--{name}", dest=name, action="store_true")
    parser.add_argument("--ctx-size", dest="context", type=int, default=4096)
    parser.add_argument("--parallel", dest="slots", type=int, default=4)
    parser.add_argument("--cors-origins", dest="cors", default="*")
    known = vars(parser.parse_known_args(given)[0])
    words = ["serve", "-m", model, "--max-batch", str(known["slots"]), "--kv-tokens", str(known["context"])]
    each = known["context"] if known["kv-unified"] else known["context"] // known["slots"]
    words += ["-c", str(each), "--cors", known["cors"]]
    for name in SAME:
        words += [f"--{name}", known[name]] if known[name] is not None else []
    for name, means in MEANS.items():
        words += means(known[name]) if known[name] is not None else []
    for name, means in SWITCHES.items():
        words += means if known[name] else []
    return words


if __name__ == "__main__":
    sys.argv[1:] = translated(sys.argv[1], sys.argv[2:])
    sys.exit(main())
