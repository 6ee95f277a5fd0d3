"""Make tests/data/unicode.txt: text that finds the edges of pre-tokenizers. `python -m tests.oracle.unicode_text`."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

TARGET = Path(__file__).parent.parent / "data" / "unicode.txt"
WORDS = 1600

SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\r", "\u00a0", "\u2003", "\u3000", "\u0085", " \n ", "\t\t "]
ENDINGS = ["'s", "'S", "'ll", "'LL", "'re", "'Ve", "'d", "'x", "’s", "I'm", "don't", "'", "''", "' t"]
WRITING = [
    "e\u0301", "नमस्ते", "ภาษาไทย", "العَرَبِيَّة", "한국어", "日本語のテキスト", "中文字符", "👩‍👩‍👧‍👦", "🇩🇪", "ﬁ", "Ǆ", "ẞ",
    "İ", "ı", "\u212a", "\u212b", "½", "²", "Ⅷ", "①", "٣", "߁", "\u200b", "\ufeff", "\u202e", "\ufffd", "\ue000",
    "Ελληνικά", "ПРИВЕТмир", "straße", "ÀÉÎ", "CamelCase", "HTTPServer", "snake_case", "iPhone", "ი", "𝐀𝑩", "𐐀", "ꙮ",
    "ᏣᎳᎩ",
]  # fmt: skip
PLAIN = ["hello", "the", "world", "def", "return", "    x", "import os", "Hello", "of", "and", "'", "_", "__init__"]
SIGNS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def letters() -> list[str]:
    """Assigned characters: all of the scripts in common use, a sample of the rest."""
    points = [*range(0x20, 0x3000, 3), *range(0x3000, 0x30000, 97)]
    return [chr(p) for p in points if unicodedata.category(chr(p)) not in ("Cn", "Cs", "Co")]


def make(seed: int = 0) -> str:
    """The text; the same seed and Unicode version give the same."""
    rng, alphabet = random.Random(seed), letters()
    makers = [
        lambda: "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 6))),
        lambda: rng.choice(SPACES),
        lambda: str(rng.randint(0, 10 ** rng.randint(1, 12))),
        lambda: rng.choice(ENDINGS),
        lambda: rng.choice(WRITING),
        lambda: rng.choice(PLAIN),
        lambda: "".join(rng.choice(SIGNS) for _ in range(rng.randint(1, 6))),
    ]
    return "".join(rng.choice(makers)() + " " * (rng.random() < 0.4) for _ in range(WORDS))


if __name__ == "__main__":
    TARGET.write_text(make(), encoding="utf-8", newline="")
    print(f"{TARGET}: {TARGET.stat().st_size} bytes, Unicode {unicodedata.unidata_version}")
