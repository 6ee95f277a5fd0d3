from __future__ import annotations

import json
from pathlib import Path

from ternrun.loader import default_model
from ternrun.train.evaluate.model_card import CARD, render
from ternrun.train.loop.init_from_model import initial_model


def test_the_carried_model_s_card_is_made_of_its_figures_alone() -> None:
    record = json.loads(default_model.FILE.with_suffix(".json").read_text())
    assert (Path(default_model.FILE).parent / CARD).read_text() == render(record)
    first, _ = render(record).split("## Data")
    assert f"{record['training']['steps']:,} steps" in first
    assert f"{record['evaluation'][0]['bits_per_byte']:.4g}" in first


def test_the_card_says_what_was_learned_more_than_once() -> None:
    record = json.loads(default_model.FILE.with_suffix(".json").read_text())
    record["data"] |= {"functions": True, "documented": 1, "bare": 0, "repeated": {"algorithms": 4}}
    _, data = render(record).split("## Data")
    assert (
        "Each function of the training files is in them once more, by itself. Repeated: algorithms (4 times)." in data
    )
    record["data"] |= {"documented": 4}
    assert "once more, by itself, short ones with a docstring 4 times. Repeated" in render(record)
    record["data"] |= {"bare": 2}
    assert "a docstring 4 times, and 2 times without docstring and annotations. Repeated" in render(record)
    record["data"] |= {"functions": False, "repeated": {}}
    assert "Repeated" not in render(record)


def test_the_card_says_what_was_averaged() -> None:
    record = json.loads(default_model.FILE.with_suffix(".json").read_text())
    record["training"]["averaged"] = [{"steps": [1200, 2400], "share": 0.75}, {"steps": [2400, 3000], "share": 0.5}]
    wanted = (
        "After step 2,400 its weights were averaged with those it had at step 1,200, 75% and 25%. "
        "After step 3,000 its weights were averaged with those it had at step 2,400, 50% and 50%. "
    )
    assert wanted in render(record)
    record["training"]["averaged"] = []
    assert "averaged" not in render(record)


def test_the_card_says_what_the_run_began_with(tmp_path: Path) -> None:
    record = json.loads(default_model.FILE.with_suffix(".json").read_text())
    tokens, parameters = record["training"]["tokens"], record["evaluation"][0]["parameters"]
    record["training"]["begun"] = begun = initial_model(default_model.FILE)
    assert begun["tokens"] >= tokens
    assert begun["sha256"] == record["file"]["sha256"]
    text = render(record)
    assert (
        f"It began with the weights of `{default_model.FILE.name}` (sha256 `{begun['sha256']}`), which had seen" in text
    )
    assert f"That is {(tokens + begun['tokens']) / parameters:.1f} tokens a parameter" in text
    (tmp_path / "other.gguf").write_bytes(b"no card beside it")
    record["training"]["begun"] = initial_model(tmp_path / "other.gguf")
    assert "which had seen" not in render(record)


def test_the_card_says_what_was_mixed_in() -> None:
    record = json.loads(default_model.FILE.with_suffix(".json").read_text())
    folder = {"share": 0.25, "documents": 1200, "tokens": 3_610_000, "sources": {"algorithms": "MIT"}}
    record["training"]["mixed"] = [{"step": 4800, "folders": {"textbooks": folder}}, {"step": 5000, "folders": {}}]
    wanted = (
        "After step 4,800, 25% of the windows came from `textbooks` (1,200 documents, 3.61M tokens). "
        "After step 5,000, none of the windows came from elsewhere. "
    )
    assert wanted in render(record)
    record["training"]["mixed"] = []
    assert "of the windows came from" not in render(record)


def test_a_card_of_text_does_not_speak_of_code() -> None:
    record = json.loads(default_model.FILE.with_suffix(".json").read_text())
    record["data"] |= {"functions": False, "holdout": [], "repeated": {}}
    record["training"] |= {"validation_loss": None, "note": "Half of it at night."}
    text = render(record)
    assert "validation loss not measured" in text
    assert "\n\nHalf of it at night.\n\n" in text
    assert "Python" not in text.split("## Data")[0].split("## Evaluation")[0]
    assert "On the part of the text kept out of training." in text
