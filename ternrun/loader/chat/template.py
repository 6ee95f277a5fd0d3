"""Chat templates: messages in, the prompt's text out. They come from model files, so they run in a separate process."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ternrun.errors import TemplateError
from ternrun.loader.chat.messages import pack_names, prepare_messages
from ternrun.loader.chat.pool import POOL

MAX_SOURCE = 1 << 16  # characters; the longest in use has about 25,000

# Microsoft's converter writes a made-up template into BitNet files; this is the one the model was trained on
# (tokenizer_config.json of bitnet-b1.58-2B-4T).
_BITNET_WRONG = "BITNETAssistant"
_BITNET_RIGHT = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)


def template_for(metadata: Mapping[str, Any]) -> str | None:
    """The template in a GGUF file's metadata, corrected where it is known to be wrong; None if there is none."""
    source = metadata.get("tokenizer.chat_template")
    if source is None:
        return None
    if not isinstance(source, str):
        raise TemplateError("metadata key tokenizer.chat_template must be text")
    return _BITNET_RIGHT if _BITNET_WRONG in source else source


class ChatTemplate:
    """A compiled template. Rendering is bounded in time, memory and output; safe to use from several threads.

    A template sees what transformers' `apply_chat_template` gives it and writes the same text. It runs in a process
    that ends if it takes too much (see `worker`). Raises TemplateError for a source that is damaged or too long.
    """

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "") -> None:
        if len(source) > MAX_SOURCE:
            raise TemplateError(f"the chat template has {len(source)} characters; {MAX_SOURCE} are the limit")
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._key = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
        POOL.compile(self._key, source)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt for these messages (`role`, `content`, ... as the template expects them), with its begin token.

        `variables` are further names that a template may know, such as `enable_thinking`. Templates that ask for the
        day by llama.cpp's names (Llama 3.1 to 3.3 by `date_string`) are told it, in place of a day long past.
        Raises TemplateError if the template does not accept the messages, or takes too much time or memory.
        """
        names: dict[str, Any] = {"documents": None, **_today(), **(variables or {}), **self._tokens}
        names |= {"messages": prepare_messages(messages), "tools": tools}
        names["add_generation_prompt"] = add_generation_prompt
        return POOL.render(self._key, self.source, pack_names(names))


def _today() -> dict[str, str]:
    now = datetime.now().astimezone()
    return {"date_string": now.strftime("%d %b %Y"), "datetime": now.strftime("%b %d %Y")}
