from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._inductor.config

from ternrun.errors import ConfigError, LoadError, TernrunError
from ternrun.train.config import TrainConfig
from ternrun.train.data.document import Document
from ternrun.train.data.options import PrepareOptions
from ternrun.train.data.prepare import prepare
from ternrun.train.data.token_file import read_manifest
from ternrun.train.export.checkpoint_loader import load_trained
from ternrun.train.loop import checkpoint
from ternrun.train.loop.run_log import RunLog
from ternrun.train.loop.sample import log_sample
from ternrun.train.loop.step import accumulate_gradients
from tests.train.runs import losses, new_trainer, train

Make = Callable[..., TrainConfig]


def keep_of_validation(data: Path, tokens: int) -> None:
    """Cut the validation part to its first tokens."""
    manifest = read_manifest(data)
    manifest.parts["val"].tokens = tokens
    manifest.save(data)
    path = data / "val.bin"
    path.write_bytes(path.read_bytes()[: tokens * np.dtype(manifest.dtype).itemsize])


def test_other_config_is_refused(config: Make, tmp_path: Path) -> None:
    train(config(optim__steps=1, optim__decay_steps=0), tmp_path)
    with pytest.raises(ConfigError, match=r"model.n_layers = 1, the config says 2"):
        train(config(model__n_layers=2), tmp_path, resume=True)
    with pytest.raises(ConfigError, match="data.batch"):
        train(config(data__batch=2), tmp_path, resume=True)
    with pytest.raises(ConfigError, match=r"optim.other = 'adamw', the config says 'lion'"):
        train(config(optim__other="lion"), tmp_path, resume=True)


def test_another_tokenizer_is_refused_and_the_checkpoint_survives(
    config: Make, data_folder: Path, tmp_path: Path
) -> None:
    data, folder = tmp_path / "data", tmp_path / "run"
    shutil.copytree(data_folder, data)
    train(config(optim__steps=1, optim__decay_steps=0), folder)
    before = (folder / "last.safetensors").read_bytes()
    changed = (data / "tokenizer.json").read_text() + " "
    (data / "tokenizer.json").write_text(changed)
    with pytest.raises(
        LoadError, match=r"tokenizer.json is not the tokenizer that the tokens beside it were made with"
    ):
        train(config(data__path=str(data)), folder, resume=True)
    manifest = read_manifest(data)
    manifest.tokenizer_sha256 = hashlib.sha256(changed.encode()).hexdigest()
    manifest.save(data)
    with pytest.raises(ConfigError, match="made with another tokenizer than the data's"):
        train(config(data__path=str(data)), folder, resume=True)
    with pytest.raises(ConfigError, match=r"last.safetensors was trained with another tokenizer"):
        load_trained(folder / "last.safetensors", data)
    assert (folder / "last.safetensors").read_bytes() == before


def test_damaged_checkpoints_are_named(config: Make, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="there is no checkpoint"):
        train(config(), tmp_path, resume=True)
    train(config(optim__steps=1, optim__decay_steps=0), tmp_path)
    path = tmp_path / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(LoadError, match="not a whole checkpoint"):
        train(config(), tmp_path, resume=True)
    path.write_bytes(b"")
    with pytest.raises(LoadError, match="not a whole checkpoint"):
        train(config(), tmp_path, resume=True)


def test_what_a_kill_left_of_a_save_is_swept(config: Make, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    dead = [tmp_path / f".{name}.safetensors.{gone.pid}" for name in ("last", "best")]
    others = [tmp_path / f".last.safetensors.{os.getppid()}", tmp_path / ".last.safetensors.old", tmp_path / "a.1"]
    own = tmp_path / f".last.safetensors.{os.getpid()}"  # in a container, every run has the same number
    for path in (*dead, *others, own):
        path.write_bytes(b"half")
    new_trainer(config(), tmp_path).run.log.close()
    assert sorted(p for p in tmp_path.iterdir() if p.is_file() and p.name != "log.jsonl") == sorted(others)


def test_full_disk_keeps_the_last_checkpoint(config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = train(config(optim__steps=1, optim__decay_steps=0), tmp_path)
    before = (tmp_path / "last.safetensors").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(TernrunError, match=r"No space left on device; the last good checkpoint .* is kept"):
        trainer.run.save("last.safetensors")
    assert (tmp_path / "last.safetensors").read_bytes() == before
    kept = ["best.safetensors", "last.safetensors", "log.jsonl", "tokenizer"]
    assert sorted(p.name for p in tmp_path.iterdir()) == kept


def test_spikes_are_skipped_and_divergence_ends_the_run(config: Make, tmp_path: Path) -> None:
    made = config(optim__steps=0, optim__decay_steps=0, run__save_every=100)
    trainer = new_trainer(made, tmp_path)
    with torch.no_grad():
        trainer.run.model.output_norm.weight.fill_(float("nan"))
    before = trainer.run.model.blk[0].ffn.ffn_up.weight.clone()
    with pytest.raises(TernrunError, match="diverged at step 20"):
        trainer.train()
    assert torch.equal(before, trainer.run.model.blk[0].ffn.ffn_up.weight)


def test_signal_saves_and_stops(config: Make, tmp_path: Path) -> None:
    trainer = new_trainer(config(optim__steps=0, optim__decay_steps=0), tmp_path)
    step = trainer.step

    def interrupted() -> None:
        step()
        if trainer.run.state.step == 3:
            signal.raise_signal(signal.SIGTERM)

    trainer.step = interrupted  # type: ignore[assignment]
    trainer.run.log.stream = io.StringIO()
    trainer.train()
    assert checkpoint.load(tmp_path / "last.safetensors").state.step == 3
    assert "stopped by SIGTERM after step 3; --resume continues" in trainer.run.log.stream.getvalue()


def test_micro_batches_add_up_to_the_batch_where_not_all_is_learned(config: Make, tmp_path: Path) -> None:
    """In full precision: ternary weights round other sums of activations to other gradients."""
    found = []
    for size in (0, 1, 3):
        made = config(data__stutter=1.0, data__micro_batch=size, model__ternary=False, run__precision="f32")
        trainer = new_trainer(made, tmp_path)
        loss = accumulate_gradients(trainer.run)
        found.append((loss, torch.cat([p.grad.flatten() for p in trainer.run.model.parameters()])))
        trainer.run.log.close()
    (loss, whole), *others = found
    for other, gradient in others:
        assert other == pytest.approx(loss, rel=1e-5)
        assert (gradient - whole).norm() < 1e-4 * whole.norm()


def test_loss_falls(config: Make, tmp_path: Path) -> None:
    train(config(optim__steps=30), tmp_path)
    found = losses(tmp_path)
    assert found[-1][1] < found[0][1] - 1


def test_a_prompt_without_known_characters_begins_a_text(config: Make, tmp_path: Path) -> None:
    data = tmp_path / "data"
    text = Document("a", "a", "MIT", "no line end, but every word is known " * 40)
    prepare([text], data, PrepareOptions(tokenizer="char", split="tail", val_share=0.1), lambda _: None)
    trainer = new_trainer(config(data__path=str(data), run__sample_prompt="ΑΒΓ"), tmp_path / "run")
    log_sample(trainer.run)
    trainer.run.log.close()
    (entry,) = RunLog.entries(tmp_path / "run" / "log.jsonl")
    assert len(entry["sample"]) > 10


def test_without_a_compiler_training_goes_on_uncompiled(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, str(tmp_path / "g++")))
    monkeypatch.setattr(RunLog, "say", lambda _, text: said.append(text))
    train(config(optim__steps=1, optim__decay_steps=0, run__compile=True), tmp_path)
    assert [text for text in said if "compiler" in text] == [
        "torch finds no C++ compiler: training goes on uncompiled, which is slower"
    ]


def test_a_validation_part_shorter_than_a_window_is_scored(config: Make, data_folder: Path, tmp_path: Path) -> None:
    made = config(optim__steps=1, optim__decay_steps=0, data__path=str(tmp_path / "data"), run__validate_windows=2)
    shutil.copytree(data_folder, tmp_path / "data")
    keep_of_validation(tmp_path / "data", 7)
    trainer = new_trainer(made, tmp_path / "run")
    assert trainer.validator.validate().tokens == 6
    trainer.run.log.close()
    keep_of_validation(tmp_path / "data", 1)
    with pytest.raises(LoadError, match="a part of 1 token has none to predict"):
        new_trainer(made, tmp_path / "new")


def test_weights_are_ternary_after_the_first_full_steps(config: Make, tmp_path: Path) -> None:
    ternary, twin = train(config(), tmp_path / "a"), train(config(model__ternary=False), tmp_path / "b")
    trainer = train(config(optim__full_steps=3), tmp_path / "c")
    of = {trainer.run.folder: dict(losses(trainer.run.folder)) for trainer in (ternary, twin, trainer)}
    for step in (1, 2, 3):
        assert of[tmp_path / "c"][step] == of[tmp_path / "b"][step] != of[tmp_path / "a"][step]
    assert of[tmp_path / "c"][4] != of[tmp_path / "b"][4]
    assert checkpoint.load(tmp_path / "c" / "best.safetensors").state.step == 6  # full precision is no candidate
    assert trainer.run.model.blk[0].ffn.ffn_up.ternary


def test_a_model_that_is_not_ternary_yet_is_not_handed_out(config: Make, tmp_path: Path) -> None:
    train(config(optim__steps=4, optim__full_steps=4), tmp_path)
    assert load_trained(tmp_path / "last.safetensors").step == 4
    trainer = new_trainer(config(optim__full_steps=5), tmp_path, resume=True)
    trainer.run.save("last.safetensors")
    trainer.run.log.close()
    with pytest.raises(ConfigError, match="at step 4; its weights become ternary from step 5 on"):
        load_trained(tmp_path / "last.safetensors")


def test_folders_are_mixed_and_the_checkpoint_tells(config: Make, data_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    documents = [Document(f"n{i}.py", "another", "Apache-2.0", f"x{i} = [{i}, 7]\n" * 50) for i in range(20)]
    same = str(data_folder / "tokenizer.json")
    prepare(documents, other, PrepareOptions(tokenizer=same, val_share=0.1, keep_duplicates=True), print)
    plain = train(config(optim__steps=3), tmp_path / "run")
    assert plain.run.state.mixed == []
    mixed = train(config(optim__steps=6, data__mix={str(other): 0.25}), tmp_path / "run", resume=True)
    train(config(optim__steps=6), tmp_path / "unmixed")
    assert losses(tmp_path / "run") != losses(tmp_path / "unmixed")
    (phase,) = checkpoint.load(tmp_path / "run" / "last.safetensors").state.mixed
    assert phase == mixed.run.state.mixed[0]
    assert (phase["step"], phase["folders"][str(other)]["share"]) == (3, 0.25)
    assert phase["folders"][str(other)]["sources"] == {"another": "Apache-2.0"}
    last = train(config(optim__steps=7), tmp_path / "run", resume=True)
    assert last.run.state.mixed == [phase, {"step": 6, "folders": {}}]


def test_a_folder_of_another_tokenizer_is_not_mixed_in(config: Make, tmp_path: Path) -> None:
    other = tmp_path / "other"
    documents = [Document(f"n{i}.py", "another", "MIT", f"y{i} = {i}\n" * 50) for i in range(20)]
    prepare(documents, other, PrepareOptions(tokenizer="bpe:310", val_share=0.1, keep_duplicates=True), print)
    with pytest.raises(ConfigError, match=r"other has another tokenizer than .*: make one of them with `--tokenizer"):
        train(config(data__mix={str(other): 0.5}), tmp_path / "run")


@pytest.mark.parametrize("full", [0, 3, 4])
def test_resumed_run_repeats_the_unbroken_one_bit_by_bit(config: Make, tmp_path: Path, full: int) -> None:
    made = config(optim__steps=6, optim__dropout=0.1, optim__other="lion", optim__full_steps=full)
    whole = train(made, tmp_path / "whole")
    first = new_trainer(made, tmp_path / "broken")
    for _ in range(3):
        first.step()
    first.run.save("last.safetensors")
    first.step()  # lost: not saved
    first.run.log.close()
    again = train(made, tmp_path / "broken", resume=True)
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")
    for name, tensor in whole.run.model.state_dict().items():
        assert torch.equal(tensor, again.run.model.state_dict()[name]), name
