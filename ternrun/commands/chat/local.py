"""A model in this process."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ternrun.commands.chat.partner import Message, Partner, Reply, Usage
from ternrun.commands.models import load_model
from ternrun.completion import Stream


class Local(AbstractContextManager[Partner]):
    """Leaving it closes the model. Raises as `load_model` does."""

    end = "the context ends: /clear begins anew, /undo makes room, and -c N at the start gives more of it"

    def __init__(self, args: argparse.Namespace, engine: dict[str, Any], defaults: Mapping[str, Any]) -> None:
        self._model = load_model(args, engine)
        self._defaults = {**defaults, **self._model.sampling}
        self.name = self._model.name
        try:
            self.can_chat = self._model.chat_template is not None
        except BaseException:
            self._model.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._model.close()

    def chat(self, messages: Sequence[Message], sampling: Mapping[str, Any]) -> Reply:
        """See Partner."""
        template, last = self._model.chat_template, messages[-1]
        if template is not None and last["role"] == "assistant":
            prompt = template.render(messages[:-1]) + last["content"]
            ids = self._model.tokenizer.encode(prompt, bos=self._model.chat_bos)
            return _Answer(self._model.stream(ids, **{**self._defaults, **sampling}))
        return _Answer(self._model.chat_stream(messages, **{**self._defaults, **sampling}))

    def go_on(self, text: str, sampling: Mapping[str, Any]) -> Reply:
        """See Partner."""
        return _Answer(self._model.stream(text, **{**self._defaults, **sampling}))


class _Answer:
    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.close = stream.close

    def __iter__(self) -> Iterator[str]:
        return self._stream

    @property
    def reason(self) -> str:
        reason = self._stream.completion.finish_reason
        return reason if reason in ("stop", "length") else ""

    @property
    def usage(self) -> Usage:
        done = self._stream.completion
        prompt = len(done.prompt_ids)
        return Usage(prompt, prompt - done.timings.prefill_tokens, len(done.ids))
