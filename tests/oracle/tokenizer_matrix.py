"""Make tests/data/tokenizer_matrix.json.xz: small tokenizers of every family, and what transformers makes of texts.

    python -m tests.oracle.tokenizer_matrix          # needs transformers 5

Each family's folder is trained on the texts of tests/data with the tokenizers package, in the form in which the models
of that family are published. Kept are its files, the ids of every text (as a finished text, and without special tokens)
and the texts of those ids, control tokens shown or left out, without transformers' clean-up of spaces.
"""

from __future__ import annotations

import json
import lzma
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from ternrun.loader.tokenizers.pretokenizers import PRETOKENIZERS
from tests.texts import HERE, read

TARGET = HERE / "tokenizer_matrix.json.xz"
CORPUS = [read(HERE / "plain.txt"), read(HERE / "unicode.txt")[:2000], read(Path(__file__))]
BYTES = [f"<0x{b:02X}>" for b in range(256)]
Family = tuple[Tokenizer, dict[str, Any]]  # and tokenizer_config.json

TEXTS = [
    "", " ", "a", " a", "  a", "a ", "a  ", "\n", "\na b\n", "\ta\r\nb\r\n\r\nc",
    "Hello World, it's I'll DON'T we've been there.  Twice!",
    "def f(x):\n    if x > 1:\n\treturn x**2 + 1234567  # 3.14\n\n\nprint(f(1))",
    "cafe\u0301 caf\u00e9 A\u030angstro\u0308m \u1100\u1161\u11a8 \ufb01 \uff21\u3000\u212b \u00bd",
    "日本語のテキストと中文字符，한국어 русский العَرَبِيَّة हिन्दी ไทย",
    "🙂🙂 👩‍👩‍👧‍👦🇩🇪 x\u200dy\u200b\ufeff\u00a0z\u2003.",
    "1 12 123 1234 12345 123456789012 1,000.50 ٣٤٥",
    "BEGINHello END world",
    "BEGINuser\nHiEND\nBEGINassistant\n", " BEGIN  END ", "xBEGINy ENDz", "BEGINBEGIN\tEND\n\nEND a",
    "TOOL a TOOL b  TOOL\nTOOLc tool", "▁a ▁ b▁", "<unk> <s> </s> [UNK]", "!!!???...---===   ``quoted'' «a»",
    "snake_case camelCase HTTPServer ÀÉÎ Straße İ ǅ  \u0000\u0007",
]  # fmt: skip


def special(*texts: str, **flags: bool) -> list[AddedToken]:
    """Control tokens."""
    return [AddedToken(text, special=True, normalized=False, **flags) for text in texts]


def byte_level(name: str, size: int = 700, **model: Any) -> Tokenizer:
    """Byte-level merges behind the regexes of a row of the table."""
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PRETOKENIZERS[name].patterns]
    words = pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return trained(models.BPE(**model), words, decoders.ByteLevel(), size, pre_tokenizers.ByteLevel.alphabet())


def trained(model: Any, words: Any, decoder: Any, size: int, alphabet: list[str]) -> Tokenizer:
    """A byte-pair tokenizer of the corpus."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = words, decoder
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def sentencepiece(first: list[str], size: int = 900) -> Tokenizer:
    """Merges of characters with byte fallback, as converted from SentencePiece; `first` are the tokens before bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[*first, *BYTES], show_progress=False)
    text = (f"▁{line.replace(' ', '▁')}" for one in CORPUS for line in one.splitlines())
    tokenizer.train_from_iterator((word for line in text for word in line.replace("▁", " ▁").split()), trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] in first]  # bytes are ordinary tokens
    return Tokenizer.from_str(json.dumps(data))


def framed(tokenizer: Tokenizer, begin: str = "", end: str = "") -> None:
    """Let texts begin and end with these tokens."""
    named = [(t, tokenizer.token_to_id(t)) for t in (begin, end) if t]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{begin} $A {end}".strip(), special_tokens=named)


def llama3() -> Family:
    """Meta's Llama 3: words that are tokens stay whole; a begin token."""
    tokenizer = byte_level("llama-bpe", ignore_merges=True)
    tokenizer.add_special_tokens(special("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|eot_id|>"))
    framed(tokenizer, "<|begin_of_text|>")
    return tokenizer, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}


def qwen2() -> Family:
    """Qwen 2 and 3: composed letters, tokens that are not special beside those that are."""
    tokenizer = byte_level("qwen2")
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens(special("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False, special=False)])
    return tokenizer, {"eos_token": "<|im_end|>", "bos_token": None, "add_bos_token": False}


def gpt2() -> Family:
    """GPT-2: one token that begins and ends texts."""
    tokenizer = byte_level("gpt-2")
    tokenizer.add_special_tokens(special("<|endoftext|>"))
    return tokenizer, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "add_bos_token": False}


def falcon() -> Family:
    """Falcon: punctuation, then words, then digits in threes."""
    steps = [
        pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Digits(), pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
    ]  # fmt: skip
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = trained(models.BPE(), pre_tokenizers.Sequence(steps), decoders.ByteLevel(), 700, alphabet)
    tokenizer.add_special_tokens(special("<|endoftext|>", ">>QUESTION<<"))
    return tokenizer, {"eos_token": "<|endoftext|>"}


def llama2() -> Family:
    """Llama 2 as published: a space before every piece of text."""
    tokenizer = sentencepiece(["<unk>", "<s>", "</s>"])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    framed(tokenizer, "<s>")
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def mistral() -> Family:
    """Mistral 7B v0.3 and others with legacy false: a space before the first word alone."""
    tokenizer = sentencepiece(["<unk>", "<s>", "</s>", "[INST]", "[/INST]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    framed(tokenizer, "<s>")
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def gemma() -> Family:
    """Gemma: no space before the text."""
    tokenizer = sentencepiece(["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"])
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    framed(tokenizer, "<bos>")
    return tokenizer, {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}


def phi3() -> Family:
    """Phi 3: Llama 2's rules, and control tokens that swallow the spaces behind them."""
    tokenizer, config = llama2()
    tokenizer.add_special_tokens(special("<|endoftext|>"))
    tokenizer.add_special_tokens(special("<|assistant|>", "<|end|>", "<|user|>", rstrip=True))
    return tokenizer, config | {"eos_token": "<|endoftext|>", "add_bos_token": False, "add_eos_token": False}


def t5() -> Family:
    """T5: unigram pieces, an end token, and placeholders that swallow spaces."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=600, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(special("<extra_id_1>", "<extra_id_0>", lstrip=True, rstrip=True))
    framed(tokenizer, "", "</s>")
    return tokenizer, {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def bert() -> Family:
    """BERT: pieces of lower-case words, for encoders."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=700, special_tokens=names, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    framed(tokenizer, "[CLS]", "[SEP]")
    roles = dict(zip(("pad", "unk", "cls", "sep", "mask"), names, strict=True))
    return tokenizer, {f"{role}_token": name for role, name in roles.items()}


def tekken() -> Family:
    """Mistral Nemo: words end where lower case meets upper case; the control tokens come first."""
    tokenizer = byte_level("tekken", ignore_merges=True)
    tokenizer.add_special_tokens(special("<s>", "</s>", "[INST]", "[/INST]"))
    framed(tokenizer, "<s>")
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>"}


def deepseek() -> Family:
    """DeepSeek V3 and R1: full-width control tokens; flags that transformers ignores beside a post-processor."""
    tokenizer = byte_level("deepseek-v3")
    tokenizer.normalizer = normalizers.Sequence([])
    begin, end = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
    tokenizer.add_special_tokens(special(begin, end))
    tokenizer.add_tokens([AddedToken("<｜User｜>", normalized=False), AddedToken("<think>", normalized=False)])
    framed(tokenizer, begin)
    return tokenizer, {"bos_token": begin, "eos_token": end, "add_bos_token": False, "add_eos_token": True}


def smollm() -> Family:
    """SmolLM and StarCoder: single digits, then GPT-2's words; names of files and repositories."""
    words = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = trained(models.BPE(), words, decoders.ByteLevel(), 700, alphabet)
    tokenizer.add_special_tokens(special("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"))
    return tokenizer, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}


def olmo() -> Family:
    """OLMo and GPT-NeoX: composed letters, and runs of spaces that are tokens found in the normalized text."""
    tokenizer = byte_level("olmo")
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens(special("<|endoftext|>", "<|padding|>"))
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in (4, 3, 2)])
    return tokenizer, {"eos_token": "<|endoftext|>", "pad_token": "<|padding|>"}


def added_later() -> Family:
    """A fine-tune: tokens that only tokenizer_config.json states, with every flag."""
    tokenizer = byte_level("gpt-2", 500)
    tokenizer.add_special_tokens(special("<|endoftext|>"))
    size = tokenizer.get_vocab_size()
    flags = [{"lstrip": True}, {"rstrip": True}, {"single_word": True}, {"normalized": True}]
    names = ["<|im_start|>", "<|im_end|>", "TOOL", "<tool>"]
    usual = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    decoder = {
        str(size + i): usual | {"content": name, "special": i < 2} | flag
        for i, (name, flag) in enumerate(zip(names, flags, strict=True))
    }
    return tokenizer, {"eos_token": "<|im_end|>", "pad_token": "[PAD]", "added_tokens_decoder": decoder}


FAMILIES: tuple[Callable[[], Family], ...] = (
    llama3, qwen2, gpt2, falcon, llama2, mistral, gemma, phi3, t5, bert, tekken, deepseek, smollm, olmo, added_later,
)  # fmt: skip


def written(text: str, tokenizer: Any) -> str:
    """A text with this tokenizer's own control tokens in the places of BEGIN and END, and another added one of TOOL."""
    names = [t.content for t in tokenizer.added_tokens_decoder.values()]
    return text.replace("BEGIN", names[0]).replace("END", names[-1]).replace("TOOL", names[len(names) // 2])


def case(family: Callable[[], Family]) -> dict[str, Any]:
    """Files of one family, and what transformers makes of every text."""
    library, config = family()
    with tempfile.TemporaryDirectory() as folder:
        library.save(str(Path(folder) / "tokenizer.json"), pretty=False)
        stated = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False} | config
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(stated))
        files = {path.name: json.loads(path.read_text()) for path in sorted(Path(folder).iterdir())}
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in (written(text, tokenizer) for text in TEXTS):
        ids = tokenizer(text).input_ids
        shown, hidden = (tokenizer.decode(ids, skip_special_tokens=skip) for skip in (False, True))
        rows.append({"text": text, "ids": ids, "bare": tokenizer(text, add_special_tokens=False).input_ids,
                     "shown": shown, "hidden": hidden})  # fmt: skip
    return {"files": files, "rows": rows}


def main() -> None:
    """Write the file."""
    about = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__}
    content = {"about": about, "families": {family.__name__: case(family) for family in FAMILIES}}
    TARGET.write_bytes(lzma.compress(json.dumps(content, ensure_ascii=False).encode(), preset=9))
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
