"""The commands, what other programs call them, and the parser of each.

A command's own body, with its flags, is imported when it runs.
"""

from __future__ import annotations

import argparse
from importlib import import_module

from ternrun.commands.line.parser import Parser

COMMANDS = {  # name: (module, summary)
    "complete": ("ternrun.commands.complete", "complete text, streaming to the terminal"),
    "chat": ("ternrun.commands.chat", "talk with a model in the terminal, or with a server's"),
    "run": ("ternrun.commands.run", "answer a prompt, or chat where there is none"),
    "serve": ("ternrun.commands.serve", "serve a model over HTTP: OpenAI's, llama.cpp's and Ollama's routes"),
    "list": ("ternrun.commands.list", "list the models on this machine"),
    "ps": ("ternrun.commands.ps", "list the models that a server has loaded"),
    "inspect": ("ternrun.commands.inspect", "show what is in a model file, and what of it cannot be run"),
    "eval": ("ternrun.commands.eval", "perplexity of a text, or log-probabilities of token ids"),
    "tokenize": ("ternrun.commands.tokenize", "turn text into a model's token ids"),
    "detokenize": ("ternrun.commands.detokenize", "turn token ids back into text"),
    "convert": ("ternrun.commands.convert", "write a GGUF file from another model file"),
    "pull": ("ternrun.commands.pull", "download a model from the Hugging Face hub"),
    "warm": ("ternrun.commands.warm", "compile kernels ahead, so that the first run starts at once"),
    "bench": ("ternrun.commands.bench", "measure speed: this machine, the kernels, a model"),
    "train": ("ternrun.train.cli", "train a ternary model from text and export it"),
    "completion": ("ternrun.commands.completion", "write a script that completes commands in bash, zsh or fish"),
}

SAME = {  # other programs' names of our commands
    "ls": "list",
    "models": "list",
    "show": "inspect",
    "info": "inspect",
    "generate": "complete",
    "server": "serve",
    "api": "serve",
    "perplexity": "eval",
    "download": "pull",
    "get": "pull",
    "benchmark": "bench",
    "encode": "tokenize",
    "decode": "detokenize",
}

ADVICE = {  # commands that ternrun does not have: what to do instead
    "quantize": "`ternrun convert MODEL OUT --type TYPE` writes a model in another encoding",
    "rm": "ternrun deletes no model; `ternrun list` shows the file to delete",
    "delete": "ternrun deletes no model; `ternrun list` shows the file to delete",
    "cp": "a model is a file: copy it",
    "create": "a model is a file: `ternrun complete -m FILE` runs it, `ternrun train` makes one",
    "push": "ternrun uploads nothing; huggingface_hub's `hf upload` does",
    "login": "the hub's token is read from the environment variable HF_TOKEN",
    "stop": "Ctrl-C or SIGTERM stops `ternrun serve`",
    "load": "`ternrun serve MODEL` loads a model and keeps it",
    "embed": "`ternrun serve MODEL` answers /v1/embeddings",
    "embedding": "`ternrun serve MODEL` answers /v1/embeddings",
    "finetune": "`ternrun train run CONFIG --from MODEL` goes on training a model",
    "update": "`pip install --upgrade ternrun` updates ternrun",
    "upgrade": "`pip install --upgrade ternrun` updates ternrun",
}


def command_parser(name: str) -> Parser:
    """The parser of one command: its module's docstring, flags and examples."""
    body = import_module(COMMANDS[name][0])
    parser = Parser(
        prog=f"ternrun {name}",
        description=paragraphs(body.__doc__ or ""),
        epilog=body.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    body.add_arguments(parser)
    parser.set_defaults(run=body.run)
    return parser


def paragraphs(text: str) -> str:
    """The text's paragraphs, filled to the terminal's width."""
    from shutil import get_terminal_size
    from textwrap import fill

    width = min(get_terminal_size().columns - 2, 110)
    return "\n\n".join(fill(paragraph, max(width, 40)) for paragraph in text.split("\n\n"))
