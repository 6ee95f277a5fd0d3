"""The text side of a Hugging Face folder as GGUF metadata: special tokens, chat template, vocabulary.

A vocabulary is carried over only if GGUF's rules then give the same token ids as tokenizer.json does on a probe text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ternrun.errors import LoadError
from ternrun.loader.hf.safetensors import read_json
from ternrun.loader.tokenizers.pretokenizers import PRETOKENIZERS
from ternrun.loader.tokenizers.token_bytes import BYTE, CONTROL, UNKNOWN, UNUSED, USER_DEFINED

if TYPE_CHECKING:
    from ternrun.loader.tokenizers.tokenizer import Tokenizer

MAX_TEMPLATE = 1 << 20
_PROBE = (
    "Hello World, it's I'll DON'T we've\n\n  def f(x):\n\treturn x**2 + 1234567 # 3.14 \r\n"
    "  spaces   end  \n \n naïve Ünïcödé日本語のテキスト 한국어 русский العربية हिन्दी ไทย 🚀🙂 x=[1,22,333,4444]; "
    "a_b camelCase HTTPServer "
    "'quoted' \"double\" (paren) $100 50% foo@bar.com http://x.y/z?q=1&r=2 ½²③ ---=== !!! ???"
)
_NORMAL = 1


def chat_metadata(folder: Path) -> dict[str, Any]:
    """The chat template, under GGUF's key. Raises LoadError for a damaged file."""
    template: Any = None
    if (folder / "chat_template.jinja").is_file():
        template = _read_text(folder / "chat_template.jinja")
    elif (folder / "tokenizer_config.json").is_file():
        template = read_json(folder / "tokenizer_config.json").get("chat_template")
        if isinstance(template, list):  # several, by name
            named = (t.get("template") for t in template if isinstance(t, dict) and t.get("name") == "default")
            template = next(named, None)
    return {"tokenizer.chat_template": template} if isinstance(template, str) else {}


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TEMPLATE:
            raise LoadError(f"{path} is larger than a chat template should be")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise LoadError(f"{path} cannot be read: {e}") from e


def vocabulary_metadata(folder: Path, vocab_size: int) -> dict[str, Any]:
    """tokenizer.json as `tokenizer.ggml.*` keys of `vocab_size` tokens.

    Raises LoadError for a tokenizer that is damaged or that GGUF cannot express.
    """
    from ternrun.loader.tokenizers.tokenizer import Tokenizer

    description = read_json(folder / "tokenizer.json")
    model = description.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE":
        raise LoadError(f"{folder / 'tokenizer.json'} is not a byte-pair tokenizer; a GGUF file cannot carry it over")
    byte_level = "ByteLevel" in str(description.get("pre_tokenizer")) + str(description.get("decoder"))
    true = Tokenizer.from_hf(folder)
    metadata = _tokens(folder, description, model, vocab_size) | {
        "tokenizer.ggml.add_bos_token": true.add_bos,
        "tokenizer.ggml.add_eos_token": true.add_eos,
    }
    for which, token in (("bos", true.bos_id), ("eos", true.eos_id)):
        if token is not None:
            metadata[f"tokenizer.ggml.{which}_token_id"] = token
    probe = _PROBE + _own_words(true)
    wanted = true.encode(probe)
    for candidate in _candidates(model, metadata["tokenizer.ggml.tokens"], byte_level):
        if Tokenizer.from_gguf(metadata | candidate).encode(probe) == wanted:
            return metadata | candidate
    raise LoadError(f"{folder / 'tokenizer.json'} splits text in a way that no pre-tokenizer known to GGUF does")


def _own_words(tokenizer: Tokenizer) -> str:
    """Text of some thousand tokens, since only a vocabulary's own words show where its rules cut."""
    tokens = range(0, tokenizer.vocab_size, max(1, tokenizer.vocab_size // 4000))
    return b"".join(tokenizer.token_bytes(i) for i in tokens if i not in tokenizer.special_ids).decode(
        "utf-8", "ignore"
    )


def _candidates(model: Mapping[str, Any], tokens: list[str], byte_level: bool) -> Iterator[dict[str, Any]]:
    """Ways in which GGUF could express the rules: one name per distinct row of pre-tokenizers, or SentencePiece's."""
    merges = [" ".join(m) if isinstance(m, list) else m for m in model.get("merges", ())]
    if byte_level:
        rows: dict[int, str] = {}
        for name, row in PRETOKENIZERS.items():
            rows.setdefault(id(row), name)
        for name in sorted(rows.values(), key=lambda n: n not in ("llama-bpe", "qwen2", "gpt-2")):
            yield {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": name, "tokenizer.ggml.merges": merges}
        return
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault(merge.replace(" ", ""), rank)
    scores = [-float(ranks.get(token, 0)) for token in tokens]
    for prefix in (True, False):
        yield {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.add_space_prefix": prefix,
            "tokenizer.ggml.scores": scores,
        }


def _tokens(folder: Path, description: Mapping[str, Any], model: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    """Texts and types of all tokens; rows of the embedding that no token stands for are padding."""
    vocab, added = model.get("vocab"), description.get("added_tokens", [])
    if not isinstance(vocab, dict) or not isinstance(added, list):
        raise LoadError(f"{folder / 'tokenizer.json'} has no usable vocabulary")
    texts = [f"[PAD{i}]" for i in range(vocab_size)]
    types = [UNUSED] * vocab_size

    def place(token: Any, text: Any, kind: int) -> None:
        if type(token) is not int or not 0 <= token < vocab_size or not isinstance(text, str):
            raise LoadError(f"{folder / 'tokenizer.json'}: token {str(text)[:40]!r} has id {token} of {vocab_size}")
        texts[token], types[token] = text, kind

    unknown = model.get("unk_token")
    for text, token in vocab.items():
        is_byte = model.get("byte_fallback") and len(text) == 6 and text.startswith("<0x") and text.endswith(">")
        place(token, text, BYTE if is_byte else UNKNOWN if text == unknown else _NORMAL)
    for entry in added:
        if isinstance(entry, dict) and entry.get("content") != unknown:
            place(entry.get("id"), entry.get("content"), CONTROL if entry.get("special") else USER_DEFINED)
    return {"tokenizer.ggml.tokens": texts, "tokenizer.ggml.token_type": types}
