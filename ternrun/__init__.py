"""Inference-first runtime for ternary (1.58-bit) language models.

    import ternrun

    with ternrun.load("model.gguf") as model:
        print(model.complete("def fibonacci(n):").text)

Importing this package costs a few milliseconds: what `load` needs is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module

from ternrun.errors import (
    ConfigError,
    ContextError,
    KernelError,
    LoadError,
    MissingExtra,
    TemplateError,
    TernrunError,
    UsageError,
)

TYPE_CHECKING = False  # as typing has it, whose import would cost more than all the rest here
if TYPE_CHECKING:
    from ternrun.api import Model, load
    from ternrun.completion import Completion, Stream, Timings
    from ternrun.loader.onnx.encoder import Encoder

LAZY = {
    "load": "ternrun.api",
    "Model": "ternrun.api",
    "Completion": "ternrun.completion",
    "Encoder": "ternrun.loader.onnx.encoder",
    "Stream": "ternrun.completion",
    "Timings": "ternrun.completion",
}

__all__ = [
    "Completion",
    "ConfigError",
    "ContextError",
    "Encoder",
    "KernelError",
    "LoadError",
    "MissingExtra",
    "Model",
    "Stream",
    "TemplateError",
    "TernrunError",
    "Timings",
    "UsageError",
    "load",
]


def __getattr__(name: str) -> object:
    if name in LAZY:
        return getattr(import_module(LAZY[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("ternrun")
    raise AttributeError(f"module 'ternrun' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
