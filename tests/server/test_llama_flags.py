"""llama-server's flags, as its tests give them, are flags that `ternrun serve` takes, and mean the same."""

from __future__ import annotations

import shlex

from ternrun.cli import command_parser
from ternrun.commands.serve import settings
from tests.server.llama_flags import translated

GIVEN = shlex.split(
    "--port 8080 --temp 0.0 --seed 42 --host 127.0.0.1 --offline --hf-repo a/b --batch-size 32 --no-slots --verbose "
    "--alias tiny --context-shift --ctx-size 512 --parallel 2 --n-predict 64 --api-key sk-secret --no-ui --jinja "
    "--reasoning off"
)


def test_they_mean_the_same() -> None:
    args = command_parser("serve").parse(translated("x.gguf", GIVEN)[1:])
    assert (args.model, args.context, args.max_batch, args.kv_tokens, args.prefill_chunk) == (
        ["x.gguf"],
        256,
        2,
        512,
        32,
    )
    config = settings(args)
    assert (config.port, config.alias, config.api_keys, config.cors) == (8080, "tiny", ("sk-secret",), ("*",))
    assert not config.page
    assert config.context_shift
    assert dict(config.defaults) == {
        "temperature": 0, "seed": 42, "max_tokens": 64, "verbose": True,
        "chat_template_kwargs": {"enable_thinking": False},
    }  # fmt: skip


def test_a_unified_cache_gives_every_slot_the_whole_context() -> None:
    words = translated("x.gguf", [*GIVEN, "--kv-unified"])
    assert words[words.index("-c") + 1] == "512"
