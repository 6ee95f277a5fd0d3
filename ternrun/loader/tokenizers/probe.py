"""Texts by which two tokenizers are compared, and what in a tokenizer.json GGUF's keys have no word for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ternrun.loader.tokenizers.tokenizer import Tokenizer

_TEXTS = (
    "Hello World, it's I'll DON'T we've\n\n  def f(x):\n\treturn x**2 + 1234567 # 3.14 \r\n"
    "  spaces   end  \n \n naïve Ünïcödé日本語のテキスト 한국어 русский العربية हिन्दी ไทย 🚀🙂 x=[1,22,333,4444]; "
    "a_b camelCase HTTPServer "
    "'quoted' \"double\" (paren) $100 50% foo@bar.com http://x.y/z?q=1&r=2 ½²③ ---=== !!! ???",
    "", " ", "a", " a", "  a", "a ", "a  ", "\n", "\na", " \n a", "\ta", "a\r\nb\r\n", "▁a▁ b",
    "cafe\u0301 A\u030angstro\u0308m e\u0301\u0302 \u1100\u1161\u11a8 \u0ba8\u0bbf",  # decomposed letters
    "\ufb01 \uff21\uff22\u3000\u2126 \u212b \u00bd \u2460 \u2026 \u00a0x\u2003y",  # what NFKC changes
    "ÀÉÎ Straße İI ǅ ΑΣ ``quoted'' «a» \u2018b\u2019 \u201cc\u201d",  # letters with case and accents, quotes
    "x\u200dy\u200bz\ufeff \u0000\u0007\u007f\u0085 \ufffd 👩‍👩‍👧‍👦 🇩🇪",  # invisible characters
    "1 12 123 1234 12345678901234567890 ٣٤٥ १२३", "aaaaaaaaaaaaaaaa        bbbb--------====",
)  # fmt: skip
_MOST_SPECIAL = 48  # tokens that are tried in context
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized")


def probe_texts(tokenizer: Tokenizer) -> list[str]:
    """Return texts that show a tokenizer's rules: spaces, scripts, its own words, its special tokens in context."""
    return [*_TEXTS, _own_words(tokenizer), *_in_context(tokenizer)]


def behavior(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[int], str, str]:
    """Return what a tokenizer makes of a text: ids with and without special tokens, and the texts of the former."""
    ids = tokenizer.encode(text, eos=True)
    plain = tokenizer.encode(text, special=False, bos=False)
    return ids, plain, tokenizer.decode(ids, special=True), tokenizer.decode(ids)


def peculiarities(description: Mapping[str, Any]) -> str:
    """Name what in the contents of a tokenizer.json goes beyond GGUF's keys."""
    found = [f"the normalizer {name}" for name in _kinds(description.get("normalizer"))]
    pre = description.get("pre_tokenizer")
    if isinstance(pre, dict) and pre.get("prepend_scheme") == "first":
        found.append("a space before the first word alone (Metaspace, prepend_scheme first)")
    tokens = [token for token in description.get("added_tokens", ()) if isinstance(token, dict)]
    flags = [flag for flag in _FLAGS if any(token.get(flag) for token in tokens)]
    found += [f"{', '.join(flags)} of added tokens"] if flags else []
    return " and ".join(found) or "the way in which tokenizer.json splits text"


def _kinds(step: Any) -> Iterator[str]:
    if isinstance(step, dict):
        inner = step.get("normalizers")
        if isinstance(inner, list):
            for part in inner:
                yield from _kinds(part)
        else:
            yield str(step.get("type"))[:40]


def _own_words(tokenizer: Tokenizer) -> str:
    """Text of some thousand tokens, since only a vocabulary's own words show where its rules cut."""
    tokens = range(0, tokenizer.vocab_size, max(1, tokenizer.vocab_size // 4000))
    return b"".join(tokenizer.token_bytes(i) for i in tokens if i not in tokenizer.special_ids).decode(
        "utf-8", "ignore"
    )


def _in_context(tokenizer: Tokenizer) -> Iterator[str]:
    special = sorted(tokenizer.special_ids)
    for i in special[:: max(1, len(special) // _MOST_SPECIAL)]:
        t = tokenizer.token_bytes(i).decode("utf-8", "replace")
        yield f"{t}a {t} b\t{t}c\n{t}\n {t}{t} x{t}y {t}"
        yield f" {t} {t.upper()} {t.lower()}  {t}\u00e9"
