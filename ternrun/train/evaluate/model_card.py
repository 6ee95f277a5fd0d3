"""Model cards: a model's training, data, evaluation and limits, as Markdown and JSON next to the model file.

The JSON file holds all figures, collected from the checkpoint, the data folder and the output of `ternrun train eval`.
The card presents the same figures as prose and tables.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ternrun.errors import LoadError
from ternrun.train.data.token_file import read_manifest
from ternrun.train.evaluate.model_file import table
from ternrun.train.loop import checkpoint

CARD = "MODEL_CARD.md"
CODE_LIMITS = """\
This is a very small model. It continues Python as it is commonly written: names, indentation, calls and idioms near at
hand. It does not know what a program is for, invents names and interfaces, forgets what stood more than its context
before, and repeats itself. It knows no other language and follows no instructions. That a completion parses says
nothing of whether it is right. It may repeat passages of the packages it was trained on; their licenses are listed
below. Do not run what it writes without reading it."""
TEXT_LIMITS = """\
This model continues text like that it was trained on, below. It follows no instructions, forgets what stood more than
its context before, and may repeat passages of its sources; their licenses are listed below."""
Record = Mapping[str, Any]


def gather(
    saved: checkpoint.Checkpoint, data: Path, file: Path, evaluation: Sequence[Mapping[str, Any]], note: str = ""
) -> dict[str, Any]:
    """The figures of a card. The first result in `evaluation` must be the model's own; `note` is any text on training.

    Raises LoadError if the model file cannot be read or the evaluation is of another file.
    """
    manifest, state, config = read_manifest(data), saved.state, saved.config
    try:
        content = file.read_bytes()
    except OSError as error:
        raise LoadError(f"{file} cannot be read: {error}") from None
    if not evaluation or evaluation[0].get("file_bytes") != len(content):
        raise LoadError(f"the evaluation is not of {file}: measure it again with `ternrun train eval --json`")
    return {
        "file": {"name": file.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
        "model": {key: value for key, value in config.as_dict()["model"].items() if key != "vocab_size"}
        | {"vocab_size": manifest.vocab_size},
        "training": {
            "steps": state.step,
            "tokens": state.sample * config.model.context,
            "hours": round(state.seconds / 3600, 2),
            "begun": state.begun,
            "averaged": state.averaged,
            "mixed": state.mixed,
            "validation_loss": state.validation,
            "note": note,
            "optimisation": config.as_dict()["optim"],
        },
        "data": {
            "parts": {
                name: {"documents": p.documents, "tokens": p.tokens, "bytes": p.text_bytes}
                for name, p in manifest.parts.items()
            },
            "sources": dict(sorted((manifest.groups | _mixed_sources(state.mixed)).items())),
            "holdout": manifest.holdout,
            "functions": manifest.functions,
            "documented": manifest.documented,
            "bare": manifest.bare,
            "repeated": manifest.repeated,
        },
        "evaluation": list(evaluation),
    }  # fmt: skip


def card_files(file: Path) -> tuple[Path, Path]:
    """The paths of the card and the JSON file next to a model file."""
    return file.parent / CARD, file.with_suffix(".json")


def write(record: Record, file: Path) -> None:
    """Write the card and the JSON file next to the model file."""
    text, data = card_files(file)
    text.write_text(render(record), encoding="utf-8")
    data.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def render(record: Record) -> str:
    """The card as Markdown."""
    file, model, training, data = (record[key] for key in ("file", "model", "training", "data"))
    kind = "ternary weights, int8 activations" if model["ternary"] else "full-precision weights"
    licenses = Counter(data["sources"].values())
    names = [result["name"] for result in record["evaluation"]]
    rows = [["", *names], ["---"] * (len(names) + 1), *table(record["evaluation"])[1:]]
    parts = "; ".join(
        f"{name} {p['documents']:,} documents, {p['bytes'] / 1e6:.1f} MB, {p['tokens'] / 1e6:.2f}M tokens"
        for name, p in data["parts"].items()
    )
    code = bool(data["functions"] or data["holdout"])  # both are of Python packages alone
    loss = training["validation_loss"]
    sections = [
        f"# {Path(file['name']).stem}",
        f"A language model of {model['n_layers']} layers of width {model['dim']} ({kind}, context {model['context']}, "
        f"vocabulary {model['vocab_size']:,}){' for Python source code' if code else ''}, made by `ternrun train`. "
        f"{file['bytes']:,} bytes, sha256 `{file['sha256']}`.",
        "## Limits",
        CODE_LIMITS if code else TEXT_LIMITS,
        "## Training",
        f"{training['steps']:,} steps, {training['tokens'] / 1e6:.1f}M tokens, {training['hours']:g} hours; "
        f"{f'validation loss {loss:.4f} nats a token' if loss is not None else 'validation loss not measured'}. "
        f"{_begun(training['begun'])}"
        f"{_averaged(training['averaged'])}{_mixed(training['mixed'])}That is "
        f"{_tokens(training) / record['evaluation'][0]['parameters']:.1f} tokens a parameter, where some 20 are usual "
        "(arXiv 2203.15556).",
        *filter(None, [training["note"]]),
        "## Evaluation",
        f"On whole packages kept out of training, with every copy of their files: {', '.join(data['holdout'])}."
        if data["holdout"]
        else "On the part of the text kept out of training.",
        "\n".join(f"| {' | '.join(row)} |" for row in rows),
        "Accuracy counts tokens, and vocabularies differ: compare bits per byte. Functions are different headers with "
        "docstring, drawn at random; the greedy completion of 128 tokens, cut at the first dedent, must parse and do "
        "something. HumanEval is pass@1 of greedy completions. Speeds are those of the machine that evaluated, "
        "whatever else it did.",
        "## Data",
        f"{parts}. {_added(data)}Licenses, as the packages declare them: "
        + ", ".join(f"{name} ({count})" for name, count in sorted(licenses.items()))
        + ".",
        "\n".join(f"- {source}: {license_}" for source, license_ in data["sources"].items()),
    ]
    return "\n\n".join(sections) + "\n"


def _begun(begun: Record | None) -> str:
    """The sentence on the initial weights, empty for random ones."""
    if not begun:
        return ""
    seen = f", which had seen {begun['tokens'] / 1e6:.1f}M tokens before" if begun["tokens"] else ""
    return f"It began with the weights of `{begun['name']}` (sha256 `{begun['sha256']}`){seen}. "


def _averaged(mixes: Sequence[Record]) -> str:
    """One sentence for each averaging of checkpoints."""
    sentences = []
    for mix in mixes:
        first, second = mix["steps"]
        sentences.append(
            f"After step {second:,} its weights were averaged with those it had at step {first:,}, "
            f"{mix['share']:.0%} and {1 - mix['share']:.0%}. "
        )
    return "".join(sentences)


def _mixed(phases: Sequence[Record]) -> str:
    """One sentence for each change of the data mixture."""
    sentences = []
    for phase in phases:
        parts = [
            f"{f['share']:.0%} of the windows came from `{name}` "
            f"({f['documents']:,} documents, {f['tokens'] / 1e6:.2f}M tokens)"
            for name, f in phase["folders"].items()
        ]
        what = ", ".join(parts) or "none of the windows came from elsewhere"
        sentences.append(f"After step {phase['step']:,}, {what}. ")
    return "".join(sentences)


def _mixed_sources(phases: Sequence[Record]) -> dict[str, str]:
    return {name: label for p in phases for f in p["folders"].values() for name, label in f["sources"].items()}


def _tokens(training: Record) -> int:
    return int(training["tokens"]) + int((training["begun"] or {}).get("tokens") or 0)


def _added(data: Record) -> str:
    """Sentences on functions and repeated packages in the training part."""
    functions = "Each function of the training files is in them once more, by itself" if data["functions"] else ""
    if functions and (documented := data.get("documented", 1)) > 1:
        functions += f", short ones with a docstring {documented} times"
    if functions and (times := data.get("bare", 0)):
        functions += f", and {times} times without docstring and annotations"
    functions += ". " if functions else ""
    repeated = ", ".join(f"{name} ({times} times)" for name, times in data["repeated"].items())
    return functions + (f"Repeated: {repeated}. " if repeated else "")
