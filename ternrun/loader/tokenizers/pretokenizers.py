"""How each `tokenizer.ggml.pre` cuts text into words before byte-pair merging: a table of regexes in Oniguruma syntax.

The patterns of a row are applied one after the other, each to every piece the one before left; what lies between
matches is a piece too. Names and patterns are those of the models' own tokenizer.json files, as collected in
llama.cpp's llama-vocab.cpp. Where that file approximates a pattern (upper- and lower-case classes of gpt-4o and
tekken), the model's own pattern stands here.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from ternrun.errors import LoadError


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """`ignore_merges`: a word that is a token stays whole. `add_bos`: the default where the file does not say."""

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False


_SPACES = r"\s+(?!\S)|\s+"
_SUFFIX = r"'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
_START = r"[^\r\n\p{L}\p{N}]?"
_SIGNS = r" ?[^\s\p{L}\p{N}]+"
_LINES = r"\s*[\r\n]+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _words(digits: str, letter: str = r"\p{L}", signs: str = _SIGNS + r"[\r\n]*", lines: str = _LINES) -> str:
    """llama-3 and its kin: English endings, words with one sign before them, digits, signs, line ends, spaces."""
    return rf"{_SUFFIX}|{_START}{letter}+|{digits}|{signs}|{lines}|{_SPACES}"


def _cased(digits: str, suffix: str = "") -> str:
    """o200k and its kin: as above, and words end where lower case meets upper case."""
    words = rf"{_START}{_UPPER}*{_LOWER}+{suffix}|{_START}{_UPPER}+{_LOWER}*{suffix}"
    return rf"{words}|{digits}|{_SIGNS}[\r\n/]*|{_LINES}|{_SPACES}"


_GPT2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+|{_SIGNS}|{_SPACES}"
_ASCII_SIGN_WORD = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
_DEEPSEEK = (
    rf"{_ASCII_SIGN_WORD}|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_LINES}|{_SPACES}"
)
_DEEPSEEK_LINES = _DEEPSEEK.replace(rf"[\r\n]*|{_LINES}", r"|[\r\n]")  # each line end is a word
_BESIDE_HAN = (  # kimi's: as gpt-4o's, but a word holds no Chinese characters
    _cased(r"\p{N}{1,3}", f"(?:{_SUFFIX})?")
    .replace(_UPPER, rf"[{_UPPER}&&[^\p{{Han}}]]").replace(_LOWER, rf"[{_LOWER}&&[^\p{{Han}}]]")
    .replace("[\\r\\n/]*", "[\\r\\n]*")
)  # fmt: skip
_SPACE_RUNS = "|".join(rf"\s{{{2**n}}}(?!\S)" for n in range(9, 1, -1)) + r"|\s{1,2}(?!\S)|\s"
_HANGUL_OR_KANA = (
    r"[\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+|[\x{FF01}\x{2026}\x{201C}\x{201D}\x{2018}\x{2019}\x{2014}\x{FF1A}\x{FF1B}"
    r"\x{FF0C}\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+|[\x{3105}-\x{312F}]+|[\x{4E00}-\x{9FA5}\x{3040}-\x{30FF}]+"
)
_KANA = r"[\x{4E00}-\x{9FA5}\x{3040}-\x{30FF}]+"
_CJK = r"[\x{800}-\x{9FA5}\x{AC00}-\x{D7FF}]+"

# letters that have case, but those that came after Unicode 8 and the mathematical alphabets
_CASED_LETTER = (
    r"[[\p{Lu}\p{Ll}\p{Lt}]&&[^\x{560}-\x{588}\x{10C7}-\x{10FF}\x{1C80}-\x{1C88}\x{2D00}-\x{2D2D}\x{A790}-\x{AB68}"
    r"\x{10570}-\x{105BC}\x{16E40}-\x{1DF1E}]]"
)
_WIDE_SIGN = r"[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]"

PRETOKENIZERS: dict[str, PreTokenizer] = {}


def _add(names: str, *patterns: str, ignore_merges: bool = False, add_bos: bool = False) -> None:
    PRETOKENIZERS.update(dict.fromkeys(names.split(), PreTokenizer(patterns, ignore_merges, add_bos)))


_add("default", r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")
_add("gpt-2 phi-2 mpt olmo jais gigachat a.x-4.0 mellum modern-bert exaone4 trillion granite-docling jina-es jina-de "
     "jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe", _GPT2)  # fmt: skip
_add("starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", r"\p{N}", _GPT2)
_add("falcon", r"[\p{P}$+<=>^~|`]+", _GPT2, "[0-9][0-9][0-9]")
_add("llama-bpe llama3 llama-v3 falcon3 falcon_e falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", _words(r"\p{N}{1,3}"),
     ignore_merges=True, add_bos=True)  # fmt: skip
_add("glm4 glm5", _words(r"\p{N}{1,3}"), ignore_merges=True)
_add("dbrx smaug-bpe chatglm-bpe", _words(r"\p{N}{1,3}"))
_add("qwen2 stablelm2 hunyuan deepseek-r1-qwen kormo f2llmv2 megrez solar-open grok-2", _words(r"\p{N}"))
_add("qwen35", _words(r"\p{N}", letter=r"[\p{L}\p{M}]", signs=r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"))
_add("seed-coder", _words(r"\p{N}", signs=r" ?[^\s\p{L}\p{N}\r\n]+"))
_add("bailingmoe bailingmoe2 llada-moe", _words(r"\p{N}", lines=r"\s*[\r\n]"))
_add("ufakzeka", _words(r"\p{N}").removeprefix(f"{_SUFFIX}|"))
_add("laguna", r"[^\n]+|\n+", _words(r"\p{N}"))
_add("jais-2", _words(r"\p{N}{1,3}").removesuffix(_SPACES) + _SPACE_RUNS)
_add(
    "exaone-moe",
    _words(
        r"\p{N}", letter=r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)", signs=r" ?[^\s\p{L}\p{N}]+[\r\n/]?", lines=r"\s*[\r\n]"
    ),
)
_add("minicpm5", r"\p{N}{1,3}", _words(r"\p{N}+"), ignore_merges=True)
_add("gpt-4o llama4 kanana2 talkie minimax-m2", _cased(r"\p{N}{1,3}", f"(?:{_SUFFIX})?"))
_add("granite-embed-multi-97m", _cased(r"\p{N}{1,3}", f"(?:{_SUFFIX})?"), ignore_merges=True)
_add("youtu", _HANGUL_OR_KANA, _cased(r"\p{N}", f"(?:{_SUFFIX})?"), ignore_merges=True)
_add("kimi-k2", rf"\p{{Han}}+|{_BESIDE_HAN}")
_add("tekken", _cased(r"\p{N}"), ignore_merges=True, add_bos=True)
# (?<!\s): else a run of spaces inside a text would be tried from each of them
_add("deepseek-llm", r"[\r\n]", rf"\s?{_CASED_LETTER}+", rf"\s?{_WIDE_SIGN}+", r"(?<!\s)\s+$", _CJK, r"\p{N}+")
_add("deepseek-coder", r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, r"\p{N}")
_add("deepseek-v3 hunyuan-dense joyai-llm hy_v4", r"\p{N}{1,3}", _KANA, _DEEPSEEK)
_add("spark2_5", r"\p{N}{1,3}", _KANA, _DEEPSEEK_LINES, r"\p{N}")
_add("chameleon", "<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", r"[\t\n]|    |  ", r"\p{N}", r"[\p{P}!-/:-@\[-`{-~]", _GPT2,
     add_bos=True)  # fmt: skip
_add("bloom poro-chat gpt3-finnish", r" ?[^(\s|.,!?…。，、।۔،)]+")
_add("viking", r" ?[^(\s|.,!?…。，、।۔،)]+", r"\p{N}")


# llama.cpp's names without a row, and the row that cuts most alike: the first four group digits from the right, which
# takes time quadratic in a run of digits; whitespace goes with a normalizer that GGUF files do not state
NEAREST = {
    "superbpe": "default", "afmoe": "deepseek-v3", "tiny_aya": "gpt-4o", "cohere2moe": "gpt-4o", "whitespace": "gpt-2",
}  # fmt: skip
RAW = ("gemma4", "granite-embed-multi-311m", "sarvam-moe")  # SentencePiece's spelling, ranked merges: model gemma4


def pretokenizer(name: str) -> PreTokenizer:
    """The row of that name. Raises LoadError that names it, the nearest known one and the override."""
    if name in PRETOKENIZERS:
        return PRETOKENIZERS[name]
    near = NEAREST.get(name) or (get_close_matches(name, PRETOKENIZERS, 1) or ["default"])[0]
    fault = "is not supported" if name in NEAREST else "is not known"
    raise LoadError(
        f"pre-tokenizer {name[:60]!r} {fault}; say which to use instead with --pre NAME (in Python: pre=NAME), "
        f"such as {near}, llama-bpe, qwen2, gpt-2"
    )
