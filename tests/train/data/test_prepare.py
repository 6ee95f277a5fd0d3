"""From documents to token files and back to text; windows over them."""

from __future__ import annotations

import json
from itertools import count, pairwise
from pathlib import Path
from textwrap import indent

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from tokenizers import Tokenizer

from ternrun.errors import LoadError, UsageError
from ternrun.train.data import prepare as preparing
from ternrun.train.data import tokenizer as tokenizers
from ternrun.train.data.dedup import digest
from ternrun.train.data.document import Document
from ternrun.train.data.mixture import Mixture
from ternrun.train.data.options import PrepareOptions
from ternrun.train.data.prepare import prepare
from ternrun.train.data.sources.synthetic import synthetic
from ternrun.train.data.sources.text import jsonl_files, parquet_files, shakespeare, text_files
from ternrun.train.data.token_file import open_tokens, read_manifest
from ternrun.train.data.windows import Windows, consecutive
from ternrun.train.evaluate.model_file import read_texts


def documents(number: int = 40) -> list[Document]:
    return [
        Document(
            f"{i}",
            f"package{i % 4}",
            "MIT",
            f"def name_{i}(x):\n" + "".join(f"    y_{i}_{j} = x * {j}\n" for j in range(30)),
        )
        for i in range(number)
    ]


def validating(share: float) -> Document:
    """A document that falls to the validation part of that share."""
    texts = (f"# number {i}\n" for i in count())
    return Document("v", "v", "MIT", next(t for t in texts if int.from_bytes(digest(t)[:8], "little") < share * 2**64))


def build(folder: Path, plan: PrepareOptions, texts: list[Document] | None = None) -> None:
    texts = [*(texts or documents()), *([validating(plan.val_share)] if plan.split != "tail" else [])]
    prepare(texts, folder, plan, lambda _: None)


def test_documents_come_back_from_their_tokens(tmp_path: Path) -> None:
    build(tmp_path, PrepareOptions(tokenizer="bpe:320", val_share=0.2, holdout=("package3",)))
    parts = {name: read_texts(tmp_path, name) for name in ("train", "val", "holdout")}
    given = [*documents(), validating(0.2)]
    assert sorted(text for part in parts.values() for text in part) == sorted(d.text for d in given)
    assert set(parts["holdout"]) == {d.text for d in documents() if d.group == "package3"}
    manifest = read_manifest(tmp_path)
    assert manifest.groups == {"v": "MIT"} | {f"package{i}": "MIT" for i in range(4)}
    assert manifest.dtype == "<u2"
    flat = np.fromfile(tmp_path / "train.bin", "<u2")
    assert len(flat) == manifest.parts["train"].tokens


def test_a_text_that_names_special_tokens_stays_one(tmp_path: Path) -> None:
    naming = "".join(f"x = {token!r}\n" for token in (tokenizers.END, *tokenizers.FIM))
    build(
        tmp_path, PrepareOptions(tokenizer="bpe:320", val_share=0.2), [*documents(), Document("n", "n", "MIT", naming)]
    )
    train = read_manifest(tmp_path).parts["train"]
    assert naming in read_texts(tmp_path, "train")
    flat = open_tokens(tmp_path, "train", read_manifest(tmp_path))
    tokenizer = tokenizers.load(tmp_path / "tokenizer.json")
    marks = [int((flat == tokenizer.token_to_id(token)).sum()) for token in (tokenizers.END, *tokenizers.FIM)]
    assert marks == [train.documents, 0, 0, 0]


def test_split_depends_on_the_document_alone(tmp_path: Path) -> None:
    build(tmp_path / "a", PrepareOptions(tokenizer="bpe:320", val_share=0.2))
    build(tmp_path / "b", PrepareOptions(tokenizer="bpe:320", val_share=0.2), documents(80))
    assert set(read_texts(tmp_path / "a", "val")) <= set(read_texts(tmp_path / "b", "val"))


def test_a_copy_of_held_out_text_leaves_training(tmp_path: Path) -> None:
    copied = [*documents(), Document("copy", "package0", "MIT", documents()[3].text)]
    build(tmp_path, PrepareOptions(tokenizer="bpe:320", val_share=0.1, holdout=("package3",)), copied)
    assert documents()[3].text in read_texts(tmp_path, "holdout")
    assert documents()[3].text not in read_texts(tmp_path, "train")


def test_no_package_outweighs_the_cap(tmp_path: Path) -> None:
    size = len(documents()[0].text)
    build(tmp_path, PrepareOptions(tokenizer="bpe:320", group_bytes=2 * size, val_share=0.01))
    assert read_manifest(tmp_path).parts["train"].documents <= 4 * 4


def test_functions_are_documents_of_their_own(tmp_path: Path) -> None:
    method = 'def size(self):\n    "How large."\n    return (\n        self._size\n    )\n'
    silent = 'def empty(self):\n    "Says nothing."\n\n'
    short = "def short(self):\n    return 1\n"
    source = f"class Box:\n    @property\n{indent(method + silent + short, '    ')}"
    texts = [*documents(8), Document("box", "box", "MIT", source), Document("poem", "box", "MIT", "no Python at all")]
    build(tmp_path, PrepareOptions(tokenizer="bpe:320", val_share=0.001, functions=True, repeat={"box": 3}), texts)
    train = read_texts(tmp_path, "train")
    assert train.count(method) == train.count(source) == train.count("no Python at all") == 3
    assert len(train) == 3 * 3 + 8 + 8
    manifest = read_manifest(tmp_path)
    assert manifest.functions
    assert manifest.repeated == {"box": 3}


def test_functions_begin_where_the_parser_says(tmp_path: Path) -> None:
    """A form feed, as old sources have between parts, ends no line for it."""
    function = "def f(x):\n    y = x\n    return y\n"
    build(
        tmp_path,
        PrepareOptions(tokenizer="bpe:320", functions=True),
        [Document("a", "a", "x", f"x = 1\n\f\n{function}z = 2\n")],
    )
    assert function in read_texts(tmp_path, "train")


def test_short_documented_functions_are_learned_from_more_often(tmp_path: Path) -> None:
    said, silent = 'def said(x):\n    "What."\n    return x\n', "def silent(x):\n    y = x\n    return y\n"
    long = 'def long(x):\n    "What."\n' + "    x += 1\n" * 29
    apart = 'def apart(x):\n    "What."\n    y = """\nat the margin\n"""\n    return y\n'
    source = f"class A:\n{indent(said + silent + long, '    ')}\n{apart}"
    texts = [*documents(8), Document("a", "a", "MIT", source)]
    build(tmp_path, PrepareOptions(tokenizer="bpe:320", val_share=0.001, functions=True, documented=4, bare=2), texts)
    train = read_texts(tmp_path, "train")
    assert [train.count(text) for text in (said, silent, long, apart)] == [4, 1, 1, 4]
    assert train.count("def said(x):\n    return x\n") == 2
    assert not any(text.startswith("def long(x):\n    x") for text in train)
    assert (read_manifest(tmp_path).documented, read_manifest(tmp_path).bare) == (4, 2)


def test_copies_of_a_document_are_not_neighbours(tmp_path: Path) -> None:
    """A window full of copies of one document teaches copying, and nothing else after the first."""
    plan = PrepareOptions(tokenizer="bpe:320", val_share=0.001, repeat={f"package{i}": 4 for i in range(4)})
    build(tmp_path / "a", plan, documents(200))
    train = read_texts(tmp_path / "a", "train")
    assert len(train) > 600
    assert sum(a == b for a, b in pairwise(train)) < 20  # 600 where they follow each other, 3 by chance
    build(tmp_path / "b", plan, documents(200))
    assert read_texts(tmp_path / "b", "train") == train


def test_token_ids_are_as_wide_as_asked(tmp_path: Path) -> None:
    for name, wanted in (("", "<u2"), ("u16", "<u2"), ("u32", "<u4")):
        build(tmp_path / f"d{name}", PrepareOptions(tokenizer="bpe:320", val_share=0.2, dtype=name))
        assert read_manifest(tmp_path / f"d{name}").dtype == wanted
    wide, narrow = (np.fromfile(tmp_path / name / "train.bin", kind) for name, kind in (("du32", "<u4"), ("d", "<u2")))
    np.testing.assert_array_equal(wide, narrow)
    assert read_texts(tmp_path / "du32", "val") == read_texts(tmp_path / "d", "val")


def test_ids_too_large_for_their_width_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "make_tokenizer", lambda *_: large())
    with pytest.raises(UsageError, match="65537 tokens, too many for --dtype u16"):
        build(tmp_path / "d", PrepareOptions(dtype="u16", val_share=0.2))
    build(tmp_path / "d", PrepareOptions(val_share=0.2))
    assert read_manifest(tmp_path / "d").dtype == "<u4"


def large() -> Tokenizer:
    made = tokenizers.train_bpe(["text"], 300)
    made.add_special_tokens([f"<{i}>" for i in range(2**16 + 1 - made.get_vocab_size())])
    return made


def test_char_level_tail_split(tmp_path: Path) -> None:
    text = "".join(chr(97 + i % 26) for i in range(1000)) + "\n"
    build(tmp_path, PrepareOptions(tokenizer="char", split="tail", val_share=0.1), [Document("t", "t", "x", text)])
    tokenizer = tokenizers.load(tmp_path / "tokenizer.json")
    assert tokenizer.get_vocab_size() == 28
    assert read_manifest(tmp_path).parts["train"].tokens == int(1001 * 0.9) + 1


@pytest.mark.parametrize(
    ("plan", "texts", "message"),
    [
        (PrepareOptions(), [], "corpus is empty"),
        (PrepareOptions(holdout=("nothing",)), documents(4), "--holdout: nothing not in the corpus"),
        (PrepareOptions(repeat={"nothing": 2}), documents(4), "--repeat: nothing not in the corpus"),
        (
            PrepareOptions(split="tail", holdout=("package3",)),
            documents(4),
            "--split tail .* cannot be combined with --holdout",
        ),
        (
            PrepareOptions(split="hash", val_share=1e-9),
            documents(1),
            "none of 1 documents is in the validation part; use --split tail",
        ),
        (PrepareOptions(tokenizer="bpe:many", val_share=0.5), documents(40), "bpe:SIZE needs a number"),
        (PrepareOptions(tokenizer="bpe:3", val_share=0.5), documents(40), "300 to"),
    ],
)
def test_bad_plans_are_refused(plan: PrepareOptions, texts: list[Document], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        prepare(texts, tmp_path, plan, lambda _: None)


def test_damaged_token_files_are_named(tmp_path: Path) -> None:
    build(tmp_path, PrepareOptions(tokenizer="bpe:320", val_share=0.2))
    manifest = read_manifest(tmp_path)
    path = tmp_path / "train.bin"
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    with pytest.raises(LoadError, match=r"train.bin has \d+ bytes, but its manifest says"):
        open_tokens(tmp_path, "train", manifest)
    path.write_bytes(b"\xff\xff" + good[2:])
    with pytest.raises(LoadError, match="token id 65535, beyond the vocabulary of"):
        open_tokens(tmp_path, "train", manifest)
    with pytest.raises(LoadError, match="has no holdout tokens"):
        open_tokens(tmp_path, "holdout", manifest)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(LoadError, match="not a folder made by"):
        read_manifest(tmp_path)


def test_windows_visit_everything_once_an_epoch() -> None:
    windows = Windows(np.arange(1001, dtype=np.uint16), 10, seed=3)
    for epoch in range(2):
        first = [windows.window(epoch * windows.per_epoch + i)[0] for i in range(windows.per_epoch)]
        assert len(set(first)) == windows.per_epoch == 99
        assert first != sorted(first)
    again = Windows(np.arange(1001, dtype=np.uint16), 10, seed=3)
    np.testing.assert_array_equal(Mixture(again).batch(150, 4)[0], Mixture(windows).batch(150, 4)[0])
    x, y = Mixture(windows).batch(0, 4)
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])


def test_validation_covers_every_token() -> None:
    targets = np.concatenate([y.ravel() for _, y in consecutive(np.arange(95), 10, 3)])
    np.testing.assert_array_equal(targets, np.arange(1, 95))


def test_too_few_tokens_are_refused() -> None:
    with pytest.raises(LoadError, match="too few for one window"):
        Windows(np.arange(5), 10, seed=0)


def test_sources_read_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "one"}) + "\n" + json.dumps({"text": "two"}) + "\n")
    assert [d.text for d in jsonl_files(tmp_path)] == ["one", "two"]
    assert [d.text for d in text_files(tmp_path / "a.jsonl")] == [(tmp_path / "a.jsonl").read_text()]
    with pytest.raises(LoadError, match="line 1 is not a JSON object with the key 'body'"):
        list(jsonl_files(tmp_path, "body"))
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(LoadError, match="not UTF-8"):
        list(text_files(tmp_path / "b.txt"))
    with pytest.raises(LoadError, match="not tiny Shakespeare"):
        shakespeare(tmp_path / "a.jsonl")


def test_rows_of_json_may_hold_every_character(tmp_path: Path) -> None:
    texts = ["a\u2028b", "a\x85b", "page\fbreak", "half \ud800 a pair"]
    lines = [json.dumps({"text": text}, ensure_ascii="\ud800" in text) for text in texts]
    (tmp_path / "a.jsonl").write_text("\n" + "\r\n\n".join(lines) + "\n\n", newline="")
    found = list(jsonl_files(tmp_path))
    assert [d.text for d in found] == [*texts[:-1], "half \ufffd a pair"]
    assert [d.name for d in found] == [f"a.jsonl:{i}" for i in (2, 4, 6, 8)]
    (tmp_path / "a.jsonl").write_text('\n{"text": 1}\n')
    with pytest.raises(LoadError, match=r"a.jsonl:2 holds no text"):
        list(jsonl_files(tmp_path))


@pytest.mark.parametrize(("kind", "floor"), [("repeated", 0.0), ("sequential", 0.0), ("random", 4.1589)])
def test_made_up_corpora_say_their_lowest_loss(kind: str, floor: float) -> None:
    made, lowest = synthetic(kind, 3)
    assert lowest == pytest.approx(floor, abs=1e-4)
    assert len({d.text for d in made}) > 1


def test_tokenizers_keep_text_and_split_code_well() -> None:
    made = tokenizers.train_bpe([d.text for d in documents()], 330)
    text = "def f(x):\n        return 1234\n\té ✓\n"
    assert made.decode(made.encode(text).ids) == text
    assert [made.decode([i]) for i in made.encode("1234").ids] == list("1234")
    assert made.encode("\n    y").tokens[0] == "ĊĠĠĠ"


def test_parquet_rows_are_documents(tmp_path: Path) -> None:
    table = pyarrow.table({"content": ["one", "two"], "size": [3, 3]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert [(d.name, d.text) for d in parquet_files(tmp_path, "content")] == [
        ("a.parquet:1", "one"),
        ("a.parquet:2", "two"),
    ]
    with pytest.raises(LoadError, match=r"a.parquet:1 holds no text under 'size'"):
        list(parquet_files(tmp_path, "size"))
    with pytest.raises(LoadError, match="not a Parquet file with a column 'text'"):
        list(parquet_files(tmp_path))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(LoadError, match="a.parquet is not a Parquet file"):
        list(parquet_files(tmp_path, "content"))
