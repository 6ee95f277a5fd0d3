"""Complete a text, streaming to the terminal as it is generated.

The prompt is an argument, -p TEXT, the file of -f, or else standard input. A lone argument that names a model is the
model. Ctrl-C ends the text; what was made until then
stays, and the exit code is 130.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ternrun.commands.inputs import given_text, typed
from ternrun.commands.line.parser import Parser
from ternrun.commands.models import add_model_and_text, load_model, model_path
from ternrun.commands.options import ENGINE, SAMPLING, add_flags, given
from ternrun.commands.terminal import DIM, paint, safe, shown, size
from ternrun.errors import UsageError
from ternrun.runtime.config import EngineConfig, SamplingParams

if TYPE_CHECKING:
    from ternrun.completion import Completion, Stream

EXAMPLES = """\
examples:
  ternrun complete "def fibonacci(n):"
  ternrun complete model.gguf "Once upon a time" -n 200
  ternrun complete -m model.gguf --chat -p "Why is the sky blue?" --temp 0.7 --top-p 0.9
  ternrun complete -m model.gguf --json --logprobs 5 -n 16 -f prompt.txt
"""


def add_arguments(parser: Parser) -> None:
    """Add this command's flags."""
    add_model_and_text(parser, "PROMPT")
    parser.add_argument("--chat", action="store_true", help="the prompt is a message: use the model's chat template")
    parser.add_argument("--system", metavar="TEXT", help="with --chat: a system message in front")
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of the text")
    parser.add_argument(
        "--no-display-prompt", action="store_true", help="print the completion only, on a terminal, too"
    )
    parser.add_argument("--stats", action="store_true", help="print times, speeds and memory to standard error")
    add_flags(parser, "what is generated", SamplingParams, SAMPLING)
    add_flags(parser, "how it runs", EngineConfig, ENGINE)


def run(args: argparse.Namespace) -> int:
    """Load the model, print the text as it comes."""
    model_path(args)
    engine, sampling = given(args, EngineConfig), given(args, SamplingParams)
    if "logprobs" in sampling and not args.json:
        raise UsageError("--logprobs is part of the JSON object: add --json")
    if args.system is not None and not args.chat:
        raise UsageError("--system needs --chat")
    system = [] if args.system is None else [{"role": "system", "content": typed(args.system, "--system")}]
    prompt = given_text(args, "prompt")
    with load_model(args, engine) as model:
        if args.chat:
            messages = [*system, {"role": "user", "content": prompt}]
            stream = model.chat_stream(messages, **sampling)
        else:
            stream = model.stream(prompt, **sampling)
        with stream:
            echo = "" if args.chat or args.no_display_prompt else prompt
            interrupted = consume(stream) if args.json else show(stream, echo)
            completion = stream.completion
    if args.json:
        print(json.dumps(dataclasses.asdict(completion)))
    if args.stats:
        own = {name: value for name, value in model.sampling.items() if name not in sampling}
        print(statistics(completion, own), file=sys.stderr)
    if interrupted:
        raise KeyboardInterrupt
    return 0


def consume(stream: Stream) -> bool:
    """Run to the end in silence; says whether Ctrl-C came first."""
    try:
        for _ in stream:
            pass
    except KeyboardInterrupt:
        return True
    return False


def show(stream: Stream, prompt: str) -> bool:
    """Print the text as it comes, on a terminal after the prompt; says whether Ctrl-C came first."""
    out = sys.stdout
    screen = out.isatty()
    if screen:
        out.write(paint(safe(prompt), DIM, out))
        out.flush()
    last = prompt if screen else ""
    interrupted = False
    try:
        for piece in stream:
            out.write(shown(piece, out))
            out.flush()
            last = piece
    except KeyboardInterrupt:
        interrupted = True
    if not last.endswith("\n"):
        out.write("\n")
    return interrupted


def statistics(done: Completion, own: Mapping[str, Any]) -> str:
    """What `--stats` prints; `own`: sampling that was the model's own choice."""
    times = done.timings
    lines = {
        "load": f"{times.load_s:.2f} s",
        "first token": f"{times.first_token_s:.3f} s after the call",
        "prompt": f"{times.prefill_tokens} tokens, {times.prefill_tokens_per_s:.1f} a second",
        "text": f"{len(done.ids)} tokens, {times.decode_tokens_per_s:.1f} a second after the first",
        "peak memory": size(done.peak_rss_bytes),
        "backend": safe(f"{done.backend}: {done.backend_reason}"),
    }
    if own:
        lines["sampling"] = ", ".join(f"{name} {value}" for name, value in own.items()) + ": the model's own"
    return "\n".join(f"{paint(f'{name:12}', DIM, sys.stderr)} {text}" for name, text in lines.items())
