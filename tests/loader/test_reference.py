"""Names and addresses of models on the hub, as people write and paste them."""

from __future__ import annotations

import pytest

from ternrun.errors import UsageError
from ternrun.loader.hub.reference import Reference, parse, repository

REPO = "OWNER/NAME"
PAGE = "https://huggingface.co/OWNER/NAME"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("OWNER/NAME", Reference(REPO, explicit=False)),
        ("OWNER/NAME:Q4_K_M", Reference(REPO, "Q4_K_M", explicit=False)),
        ("hf:OWNER/NAME", Reference(REPO)),
        ("hf://OWNER/NAME", Reference(REPO)),
        ("HF:OWNER/NAME:q8_0", Reference(REPO, "q8_0")),
        ("hf:OWNER/NAME@v1", Reference(REPO, revision="v1")),
        ("hf:OWNER/NAME/model.gguf", Reference(REPO, file="model.gguf")),
        ("hf:OWNER/NAME/sub/model.gguf", Reference(REPO, file="sub/model.gguf")),
        ("hf.co/OWNER/NAME:Q8_0", Reference(REPO, "Q8_0")),
        ("huggingface.co/OWNER/NAME", Reference(REPO)),
        (PAGE, Reference(REPO)),
        (f"{PAGE}/", Reference(REPO)),
        (f"{PAGE}?library=transformers#files", Reference(REPO)),
        (f"{PAGE}/tree/main", Reference(REPO, revision="main")),
        (f"{PAGE}/tree/main/Q4_K_M", Reference(REPO, folder="Q4_K_M", revision="main")),
        (f"{PAGE}/blob/main/a%20b.gguf", Reference(REPO, file="a b.gguf", revision="main")),
        (f"{PAGE}/resolve/v2/sub/model.gguf?download=true", Reference(REPO, file="sub/model.gguf", revision="v2")),
        (f"{PAGE}/blob/main/config.json", Reference(REPO, revision="main")),
        (f"{PAGE}/discussions", Reference(REPO)),
        ("http://localhost:1/mirror/OWNER/NAME/blob/main/m.gguf", Reference(REPO, file="m.gguf", revision="main")),
    ],
)
def test_a_reference_is_understood(text: str, expected: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://localhost:1/mirror/")
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "model.gguf",
        "models/model.gguf",
        "a/b/c",
        "../b",
        "./a",
        "/a/b",
        "~/b",
        "a b/c",
        "code-9m",
        "llama3.2:1b",
        "a/",
    ],
)
def test_paths_and_texts_are_no_references(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hf:", "names no repository"),
        ("hf:NAME", "names no repository"),
        ("hf:OWNER/NAME:", "names no repository"),
        ("hf:../NAME", "names no repository"),
        ("https://huggingface.co/OWNER", "names no repository"),
        ("https://huggingface.co/datasets/OWNER/NAME", "is no model's page"),
        ("https://example.com/model.gguf", "is not on the hub"),
        ("https://[", "is no address"),
    ],
)
def test_a_wrong_reference_is_one_sentence(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_pull_takes_a_file_of_a_repository() -> None:
    assert repository("OWNER/NAME/sub/m.gguf") == Reference(REPO, file="sub/m.gguf")
    for text in ("llama3.2", "./a/b/c", "model.gguf"):
        with pytest.raises(UsageError, match="is named OWNER/NAME, not"):
            repository(text)
