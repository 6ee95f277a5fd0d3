"""Hugging Face folders: the same ids as the same vocabulary in a GGUF file, and damaged folders refused."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Library

from ternrun.errors import LoadError
from ternrun.loader.tokenizers.pretokenizers import PRETOKENIZERS
from ternrun.loader.tokenizers.token_bytes import CONTROL
from ternrun.loader.tokenizers.tokenizer import Tokenizer
from tests.texts import HERE, read

FAMILIES = json.loads(lzma.decompress((HERE / "families.json.xz").read_bytes()))["families"]
SAMPLES = {"unicode": read(HERE / "unicode.txt")[:2000], "plain": read(HERE / "plain.txt")}


def save(library: Library, folder: Path, config: dict[str, Any], generation: dict[str, Any] | None = None) -> Path:
    library.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def llama3(folder: Path) -> Path:
    """The cut llama-3 vocabulary as Meta ships it."""
    data = FAMILIES["llama-bpe"]["metadata"]
    tokens, types = data["tokenizer.ggml.tokens"], data["tokenizer.ggml.token_type"]
    merges = [tuple(m.split(" ", 1)) for m in data["tokenizer.ggml.merges"]]
    control = [i for i, kind in enumerate(types) if kind == CONTROL]
    library = Library(models.BPE({t: i for i, t in enumerate(tokens)}, merges, ignore_merges=True))
    split = pre_tokenizers.Split(Regex(PRETOKENIZERS["llama-bpe"].patterns[0]), "isolated")
    library.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, False, False)])
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([AddedToken(tokens[i], normalized=False) for i in control])
    library.add_tokens([AddedToken("<tool>", normalized=False)])
    begin, end = tokens[control[0]], tokens[control[-1]]
    library.post_processor = processors.TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, control[0])])
    library.enable_truncation(5)  # some files carry it; it must not cut a prompt short
    config = {"bos_token": begin, "eos_token": {"content": end}}
    return save(library, folder, config, {"eos_token_id": [control[-1], control[1]]})


def test_byte_level_equals_the_gguf_file(tmp_path: Path) -> None:
    ours = Tokenizer.from_hf(llama3(tmp_path))
    case = FAMILIES["llama-bpe"]
    for name, text in SAMPLES.items():
        assert ours.encode(text, special=False, bos=False) == case["expected"][""][name]
        assert ours.decode(ours.encode(text)) == text
    gguf = Tokenizer.from_gguf(case["metadata"] | {"tokenizer.ggml.add_bos_token": True})
    begin, end = gguf.bos_token, sorted(gguf.eos_ids)[-1]
    assert ours.bos_token == begin
    assert ours.add_bos
    assert not ours.add_eos
    assert ours.eos_ids >= gguf.eos_ids
    assert ours.vocab_size == gguf.vocab_size + 1
    asked = f"{begin}hello{gguf.token_bytes(end).decode()}\n"
    assert ours.encode(asked) == gguf.encode(asked)
    assert ours.encode(asked, special=False) == gguf.encode(asked, special=False)
    assert ours.pieces(ours.encode("a<tool>b", bos=False, special=False)) == ["a", "<tool>", "b"]


def test_sentencepiece_equals_the_gguf_file(tmp_path: Path) -> None:
    """Merges spelled out in the order of scores, as transformers' converter does it."""
    case = FAMILIES["llama-spm"]
    tokens, scores = case["metadata"]["tokenizer.ggml.tokens"], case["metadata"]["tokenizer.ggml.scores"]
    ids = {t: i for i, t in enumerate(tokens)}
    pairs = [(t[:i], t[i:]) for t in tokens[3:] for i in range(1, len(t)) if t[:i] in ids and t[i:] in ids]
    pairs.sort(key=lambda p: -scores[ids[p[0] + p[1]]])
    library = Library(models.BPE(ids, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    library.add_special_tokens([AddedToken(t, normalized=False) for t in ("<unk>", "<s>", "</s>") if t in ids])
    ours = Tokenizer.from_hf(save(library, tmp_path, {"bos_token": "<s>", "eos_token": "</s>"}))
    for name, text in SAMPLES.items():
        assert ours.encode(text, special=False, bos=False) == case["expected"][""][name]
        assert ours.decode(ours.encode(text)) == text.replace("▁", " ")
    assert ours.space_prefix
    assert ours.stream(after=[ours.bos_id or 0]).push(ours.encode("Hello", bos=False)[0]) == "Hello"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not sound JSON"),
        ("[]", "not a JSON object"),
        ("{}", "neither a byte-level nor"),
        ('{"decoder": {"type": "ByteLevel"}}', "not a tokenizer"),
        (
            '{"version": "1.0", "model": {"type": "BPE", "vocab": 7}, "decoder": {"type": "ByteLevel"}}',
            "not a tokenizer",
        ),
        ('{"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}', "neither a byte-level nor"),
        ('{"decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": {"a": 4294967295}, "merges": []}}', "."),
    ],
)
def test_damaged_folders_are_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(LoadError, match=message):
        Tokenizer.from_hf(tmp_path)


def test_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"tokenizer\.json"):
        Tokenizer.from_hf(tmp_path)
