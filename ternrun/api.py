"""The Python API: `load` a model file, then complete, stream, chat and score. Text in, text out."""

from __future__ import annotations

import json
import operator
import threading
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from ternrun.completion import Completion, Stream
from ternrun.errors import ConfigError, UsageError
from ternrun.loader.chat.named_templates import NAMED, named_or_given
from ternrun.loader.default_model import located
from ternrun.loader.model import ModelFile, open_model
from ternrun.loader.tokenizers.sequence_breakers import SequenceBreakers
from ternrun.options import EngineOptions, SamplingOptions, sampling_params
from ternrun.runtime.backend.protocol import ProgressCallback
from ternrun.runtime.backend.registry import select_backend
from ternrun.runtime.config import EngineConfig, ModelConfig, SamplingParams
from ternrun.runtime.engine.driver import Driver
from ternrun.runtime.engine.engine import Engine
from ternrun.runtime.engine.request import Request
from ternrun.runtime.ngram_proposer import NgramProposer
from ternrun.runtime.sampling.logprobs import TokenLogprobs

if TYPE_CHECKING:
    from ternrun.grammar.compiler import Grammar, Grammars, Kind
    from ternrun.loader.chat.template import ChatTemplate
    from ternrun.loader.tokenizers.tokenizer import Tokenizer
    from ternrun.perplexity import Perplexity

Message = Mapping[str, Any]  # {"role": "user", "content": "..."}


def load(
    path: str | Path | None = None,
    *,
    pre: str | None = None,
    chat_template: str | None = None,
    progress: ProgressCallback | None = None,
    **options: Unpack[EngineOptions],
) -> Model:
    """Open a model: a GGUF file (any part of a split one), an ONNX file, or a folder; the carried model without a path.

    `pre` overrides the pre-tokenizer that the file names. `chat_template` (Jinja, or a name such as chatml) replaces
    the file's template. `progress` is called with the number of compiled kernels and their total if some must be
    compiled, which happens once on a machine. `options` are the fields of `ternrun.runtime.config.EngineConfig`
    (threads, device, context, ...).

    Raises LoadError for a damaged or unsupported file, TemplateError for an invalid template, ConfigError and
    UsageError for invalid options.
    """
    called = time.perf_counter()
    engine = EngineConfig.from_dict(options)
    backend, why = select_backend(engine.device)
    with ExitStack() as undo:
        file = undo.enter_context(open_model(located(path), pre=pre))
        trained = file.weights.config.context_length
        if engine.context > trained:
            raise ConfigError(f"context {engine.context} is more than this model was made for ({trained} tokens)")
        tokenizer = threading.Thread(target=_build_tokenizer, args=[file], name="ternrun-tokenizer")
        try:
            if file.runner:
                model = file.runner(engine)
            else:
                model = backend.load(file.weights, engine, progress, tokenizer.start)
        finally:
            if tokenizer.ident:
                tokenizer.join()
        if chat_template is not None:
            file.template = named_or_given(chat_template)
            _ = file.chat_template  # a fault in it shows now
        undo.callback(model.close)
        guesses = engine.speculate and model.draft_tokens
        drafter = partial(NgramProposer, model.draft_tokens) if guesses else None
        driver = Driver(Engine(model, file.tokenizer.eos_ids, drafter, SequenceBreakers(file.tokenizer)))
        undo.callback(driver.close)
        name, _, reason = model.description.partition(": ")
        return Model(file, driver, (name, f"{why}; {reason}"), time.perf_counter() - called, undo.pop_all())


def _build_tokenizer(file: ModelFile) -> None:
    with suppress(Exception):  # told where the tokenizer is asked for again
        _ = file.tokenizer


class Model:
    """A loaded model, made by `load`. Any number of threads may use it at once; they share its batches.

    Close it, or use it as a context manager. `driver` takes requests of token ids.
    """

    def __init__(
        self, file: ModelFile, driver: Driver, backend: tuple[str, str], load_s: float, resources: ExitStack
    ) -> None:
        self._file = file
        self._resources = resources
        self.driver = driver
        self.name = file.name  # as the file states it
        self.id = file.id  # by its path, as it can be typed
        self.config: ModelConfig = file.weights.config
        self.size = file.size  # bytes on disk
        self.format = file.format
        self.parameters = file.parameters
        self.encoding = file.encoding
        self.context = driver.engine.context  # tokens a prompt and its answer may have together
        self.tokenizer: Tokenizer = file.tokenizer
        self.sampling = file.sampling  # fields of SamplingParams: the model's own defaults, where its file states any
        self.backend, self.backend_reason = backend  # what runs it, and why that
        self.load_s = load_s
        self._close = weakref.finalize(self, resources.close)  # also when it is forgotten, or at exit

    def grammar(self, kind: Kind, source: str | Mapping[str, Any]) -> Grammar:
        """Compile a grammar for the argument `grammar` of `complete` and the others. It can be used any number of
        times.

        `kind`: json_schema, regex, lark or gbnf (llama.cpp's). Raises UsageError for an invalid or too costly grammar,
        MissingExtra without the package llguidance.
        """
        if not self._close.alive:  # nobody would end the processes that compile it
            raise UsageError("the model is closed")
        try:
            text = source if isinstance(source, str) else json.dumps(source)
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"the grammar cannot be written as JSON: {error}") from error
        return self.grammars.compile(kind, text)

    def complete(
        self, prompt: str | Iterable[int], *, grammar: Grammar | None = None, **sampling: Unpack[SamplingOptions]
    ) -> Completion:
        """Continue a text or token ids. `sampling`: fields of `ternrun.runtime.config.SamplingParams`.

        Omitted fields are as the model's file recommends, or else greedy. Raises ContextError if the prompt is too
        long, ConfigError and UsageError for invalid options.
        """
        with self.stream(prompt, grammar=grammar, **sampling) as stream:
            for _ in stream:
                pass
            return stream.completion

    def stream(
        self, prompt: str | Iterable[int], *, grammar: Grammar | None = None, **sampling: Unpack[SamplingOptions]
    ) -> Stream:
        """As `complete`, but iterates over the text in pieces, which never split a character.

        The pieces joined are the text of `complete`. Closing the stream ends the request.
        """
        return self._stream(prompt, sampling, grammar)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Message] | None = None,
        grammar: Grammar | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Completion:
        """Answer a conversation, which the model's own chat template formats.

        `messages`: [{"role": "user", "content": "..."}, ...]. Raises TemplateError if the template fails or refuses the
        messages, UsageError if the model has no template, and what `complete` raises.
        """
        with self.chat_stream(messages, tools=tools, grammar=grammar, **sampling) as stream:
            for _ in stream:
                pass
            return stream.completion

    def chat_stream(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Message] | None = None,
        grammar: Grammar | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Stream:
        """As `chat`, in pieces; see `stream`."""
        if self.chat_template is None:
            raise UsageError(f"{self.name} has no chat template: it continues text, use complete")
        prompt = self.chat_template.render(messages, tools=tools)
        return self._stream(self.tokenizer.encode(prompt, bos=self.chat_bos), sampling, grammar)

    def score(self, ids: Iterable[int], top: int = 0) -> list[TokenLogprobs]:
        """The log-probabilities of given tokens: entry i is for ids[i + 1] after ids[: i + 1].

        Each entry holds the token, its natural-log probability, and the `top` likeliest tokens with theirs. Raises
        ContextError for more than `context` ids.
        """
        request = Request(_token_ids(ids), SamplingParams(max_tokens=0), prompt_logprobs=top)
        return [entry for output in self.driver.outputs(request) for entry in output.prompt_logprobs]

    def perplexity(self, text: str, window: int = 512, progress: ProgressCallback | None = None) -> Perplexity:
        """The perplexity of a text of any length, scored in overlapping windows of `window` tokens.

        Every token except those at the very beginning has at least half a window before it. `progress` is called with
        the scored tokens and their total.
        """
        from ternrun.perplexity import perplexity

        return perplexity(self, text, window, progress)

    @cached_property
    def chat_template(self) -> ChatTemplate | None:
        """The model's chat template, or None. Raises TemplateError if it is damaged or hostile."""
        return self._file.chat_template

    @cached_property
    def chat_bos(self) -> bool:
        """Whether the tokenizer puts the begin token before a chat prompt that does not have it.

        True for a GGUF file that asks for a begin token, as in llama.cpp. False for other models, whose own template
        writes it, as in transformers; True again where a named template, which never writes it, takes its place.
        """
        template, tokenizer = self.chat_template, self.tokenizer
        return tokenizer.chat_bos or (tokenizer.add_bos and template is not None and template.source in NAMED.values())

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that identify the weights; see `Weights.digest`."""
        return self._file.weights.digest()

    @cached_property
    def grammars(self) -> Grammars:
        """The compiler of grammars for this model's vocabulary. Its processes end with the model."""
        from ternrun.grammar.compiler import Grammars  # few need it, and it takes a while to import

        grammars = Grammars(self.tokenizer, self.config.vocab_size)
        self._resources.callback(grammars.close)
        return grammars

    def close(self) -> None:
        """End all requests, stop all threads and release the file. A second call does nothing."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stream(self, prompt: str | Iterable[int], sampling: SamplingOptions, grammar: Grammar | None) -> Stream:
        called, params = time.perf_counter(), sampling_params(sampling, self.sampling)
        if grammar is not None and not hasattr(grammar, "start"):
            raise UsageError(f"a grammar is what `grammar` gives, not {grammar!r}")
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else _token_ids(prompt)
        return Stream(self, Request(ids, params, constraint=grammar.start if grammar else None), called)


def _token_ids(ids: Iterable[int]) -> list[int]:
    """Token ids as a list of Python integers, from any kind of integers."""
    if isinstance(ids, (bytes, bytearray)):
        raise UsageError("a prompt is text, or a sequence of token ids: bytes would be taken for ids, decode them")
    try:
        return [operator.index(i) for i in ids]
    except TypeError:
        raise UsageError("a prompt is text, or a sequence of token ids") from None
