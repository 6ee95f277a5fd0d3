"""Every error ternrun raises on purpose, as one tree.

* TernrunError
    * UsageError          the caller asked for something that cannot be (exit code 2)
        * ConfigError     an option has an unknown name or a value out of range
        * ContextError    a prompt or request does not fit the context window
        * MissingExtra    the feature needs an optional dependency that is not installed
    * LoadError           a file is damaged, hostile, or of a kind that is not supported (exit code 2)
        * TemplateError   a chat template is damaged, hostile or does not fit the messages
    * KernelError         machine code could not be built or loaded (exit code 1)

The message of each is one sentence that says what is wrong and, where there is one, the remedy.
Anything else that escapes is a fault of ours.
"""

from __future__ import annotations


class TernrunError(Exception):
    """Base of all errors raised on purpose."""


class UsageError(TernrunError):
    """The caller asked for something that cannot be."""


class ConfigError(UsageError):
    """An option has an unknown name or a value out of range."""


class ContextError(UsageError):
    """A prompt or request does not fit the context window. `tokens`: how many it has, where that is known."""

    def __init__(self, message: str, *, tokens: int = 0, context: int = 0) -> None:
        super().__init__(message)
        self.tokens, self.context = tokens, context


class MissingExtra(UsageError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: pip install 'ternrun[{extra}]'")
        self.extra = extra


class LoadError(TernrunError):
    """A file is damaged, hostile, or of a kind that is not supported."""


class TemplateError(LoadError):
    """A chat template is damaged, hostile or does not fit the messages."""


class KernelError(TernrunError):
    """Machine code could not be built or loaded."""
