"""Chat templates: messages in, the prompt's text out. Templates come from model files, so they run in a sandbox."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NoReturn

from jinja2.utils import Namespace

from ternrun.errors import TemplateError
from ternrun.loader.chat.sandbox import Sandbox

MAX_SOURCE = 1 << 16  # characters; the longest in use has about 25,000
MAX_TIME_FORMAT = 100  # characters
MAX_RANGE = 100_000

# Microsoft's converter writes a made-up template into BitNet files; this is the one the model was trained on
# (tokenizer_config.json of bitnet-b1.58-2B-4T).
_BITNET_WRONG = "BITNETAssistant"
_BITNET_RIGHT = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
_TIME_FORMAT = re.compile(r"(?:[^%]|%[A-Za-z%])*")


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

    Raises TemplateError where the template is damaged or asks for what the sandbox refuses.
    """

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "") -> None:
        if len(source) > MAX_SOURCE:
            raise TemplateError(f"the chat template has {len(source)} characters; {MAX_SOURCE} are the limit")
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._lock = threading.Lock()  # a sandbox keeps account of one rendering at a time
        self._sandbox = Sandbox()
        self._sandbox.globals = {
            "namespace": Namespace,
            "range": _range,
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }
        with _refusing("is damaged"):
            self._template = self._sandbox.compile_source(source)

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
        Raises TemplateError where the template does not accept the messages.
        """
        names: dict[str, Any] = {"documents": None, **_today(), **(variables or {}), **self._tokens}
        names |= {"messages": messages, "tools": tools, "add_generation_prompt": add_generation_prompt}
        with self._lock, _refusing("does not fit these messages"):
            return self._sandbox.render(self._template, names)


@contextmanager
def _refusing(fault: str) -> Iterator[None]:
    """Whatever goes wrong in a template is the template's fault: it may raise anything that Python can."""
    try:
        yield
    except TemplateError:
        raise
    except RecursionError as e:
        raise TemplateError(f"the chat template {fault}: it is nested too deeply") from e
    except Exception as e:
        raise TemplateError(f"the chat template {fault}: {type(e).__name__}: {str(e)[:200]}") from e


def _raise_exception(message: object) -> NoReturn:
    raise TemplateError(f"the chat template refuses these messages: {str(message)[:200]}")


def _today() -> dict[str, str]:
    now = datetime.now().astimezone()
    return {"date_string": now.strftime("%d %b %Y"), "datetime": now.strftime("%b %d %Y")}


def _strftime_now(form: str) -> str:
    if len(form) > MAX_TIME_FORMAT or not _TIME_FORMAT.fullmatch(form):  # a width could ask for gigabytes
        raise TemplateError(f"the chat template asks for the time as {form[:40]!r}, which is not supported")
    return datetime.now().astimezone().strftime(form)


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > MAX_RANGE:
        raise TemplateError(f"the chat template counts to {len(numbers)}; {MAX_RANGE} is the limit")
    return numbers
