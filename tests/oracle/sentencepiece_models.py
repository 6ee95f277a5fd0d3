"""Make tests/data/sentencepiece.json.xz: small tokenizer.model files, and what two other programs make of texts.

    python -m tests.oracle.sentencepiece_models      # needs sentencepiece and transformers 5

Of each model are kept its bytes, the files beside it, the ids and the decoded text of plain texts by the sentencepiece
package, and the ids of texts with special tokens by transformers.
"""

from __future__ import annotations

import base64
import io
import json
import lzma
import tempfile
from pathlib import Path
from typing import Any

import sentencepiece
import transformers

from tests.texts import HERE, read

TARGET = HERE / "sentencepiece.json.xz"
LINES = [
    line for name in ("plain.txt", "unicode.txt") for line in read(HERE / name)[:2500].splitlines() if line.strip()
]
RULES = "FB01\t66 69\nFF21\t41\nFF22\t42\n212B\tC5\n65 301\tE9\n9\t20\nA\t20\nD\t20\n200B\t\n"  # few: a small file
PLAIN = ["", " ", "  ", "a ", " a", "Hello  World",
         "\ufb01 \uff21\uff22C  x ", "日本🙂 日本", "cafe\u0301 \u212b\t\n x\u200by", "a <s> b</s>",
         read(HERE / "plain.txt"), read(HERE / "unicode.txt")[:3000]]  # fmt: skip
SPECIAL = ["<s>a</s>b", "a<s> b </s>c", "<s></s>", "x<tool>y <tool> z", "<s>user\nHi</s>\n"]
EXACT = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
Model = tuple[dict[str, Any], dict[str, Any]]  # options of the trainer, tokenizer_config.json

MODELS: dict[str, Model] = {
    "llama": (
        EXACT | {"model_type": "bpe", "byte_fallback": True, "user_defined_symbols": ["<tool>"], "split_digits": True,
                 "allow_whitespace_only_pieces": True},
        {"tokenizer_class": "PreTrainedTokenizerFast", "legacy": True, "add_bos_token": True},
    ),
    "llama_once": (
        EXACT | {"model_type": "bpe", "byte_fallback": True},
        {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True, "add_eos_token": False},
    ),
    "gemma": (
        EXACT | {"model_type": "bpe", "byte_fallback": True, "add_dummy_prefix": False, "pad_id": 0, "eos_id": 1,
                 "bos_id": 2, "unk_id": 3, "bos_piece": "<bos>", "eos_piece": "<eos>"},
        {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True},
    ),
    "t5": (
        {"model_type": "unigram", "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
        {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "additional_special_tokens": ["<tool>"]},
    ),
    "bpe": (
        {"model_type": "bpe", "control_symbols": ["<sep>"]},
        {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True, "add_eos_token": True},
    ),
    "unigram": (
        {"model_type": "unigram", "byte_fallback": True, "user_defined_symbols": ["<tool>"]},
        {"tokenizer_class": "PreTrainedTokenizerFast"},
    ),
}  # fmt: skip


def trained(options: dict[str, Any], rules: Path) -> bytes:
    """The bytes of a model."""
    out = io.BytesIO()
    usual = {"vocab_size": 900, "character_coverage": 0.98, "hard_vocab_limit": False, "minloglevel": 2}
    if "normalization_rule_name" not in options:
        usual["normalization_rule_tsv"] = str(rules)
    if options["model_type"] == "bpe":
        usual.pop("hard_vocab_limit")
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(LINES), model_writer=out, **usual, **options)
    return out.getvalue()


def case(model: Model) -> dict[str, Any]:
    """One model and what is made with it."""
    options, config = model
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rules.tsv").write_text(RULES)
        data = trained(options, folder / "rules.tsv")
        (folder / "tokenizer.model").write_bytes(data)
        (folder / "config.json").write_text('{"model_type": "llama"}')
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, **({"vocab_file": str(folder / "tokenizer.model")} if "T5" in config["tokenizer_class"] else {})
        )
    spm = sentencepiece.SentencePieceProcessor(model_proto=data)
    plain = [{"text": text, "ids": spm.encode(text), "decoded": spm.decode(spm.encode(text))} for text in PLAIN]
    bos, eos = tokenizer.bos_token or "<s>", tokenizer.eos_token
    texts = [text.replace("<s>", bos).replace("</s>", eos) for text in SPECIAL]
    special = [{"text": text, "ids": tokenizer(text).input_ids} for text in texts]
    return {"model": base64.b64encode(data).decode(), "config": config, "plain": plain, "special": special}


def main() -> None:
    """Write the file."""
    about = {"sentencepiece": sentencepiece.__version__, "transformers": transformers.__version__}
    content = {"about": about, "models": {name: case(model) for name, model in MODELS.items()}}
    TARGET.write_bytes(lzma.compress(json.dumps(content, ensure_ascii=False).encode(), preset=9))
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
