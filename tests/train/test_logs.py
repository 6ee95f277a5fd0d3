"""What a run leaves to look at: its log, the curve drawn from it, TensorBoard's numbers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from ternrun.train.loop import metrics, run_log
from ternrun.train.loop.loss_curve import draw
from ternrun.train.loop.run_log import RunLog

BLUE, ORANGE = (31, 119, 180), (255, 127, 14)  # matplotlib's first two colours


def pixels(path: Path, colour: tuple[int, int, int]) -> int:
    """How many pixels of the plotting area, left of the legend, have this colour."""
    picture = (imread(path)[:, :, :3] * 255).round()[:, :780]
    return int((np.abs(picture - colour).max(-1) < 3).sum())


def test_the_curve_shows_training_and_a_single_validation(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    for step in range(1, 20):
        log.write(step, loss=8 - step / 4)
    log.close()
    draw(tmp_path, print)
    assert pixels(tmp_path / "loss.png", BLUE) > 300
    assert pixels(tmp_path / "loss.png", ORANGE) == 0
    again = RunLog(tmp_path, 20)
    again.write(10, val_loss=6.0)
    again.close()
    draw(tmp_path, print)
    assert pixels(tmp_path / "loss.png", ORANGE) > 10


def test_numbers_go_to_tensorboard_and_texts_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []

    class Board:
        def add_scalar(self, *point: Any) -> None:
            shown.append(point)

        def close(self) -> None:
            shown.append("closed")

    monkeypatch.setattr(run_log, "_tensorboard", lambda folder: Board())
    log = RunLog(tmp_path, 0)
    log.write(3, loss=1.5, sample="text")
    log.close()
    assert shown == [("loss", 1.5, 3), "closed"]


def test_a_resumed_log_forgets_what_is_done_again(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.write(step, loss=1.0)
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # a kill leaves half a line
    RunLog(tmp_path, 2).close()
    assert [e["step"] for e in RunLog.entries(tmp_path / "log.jsonl")] == [1, 2]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_in_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    log = RunLog(tmp_path, 0, Terminal())
    log.progress("step 5: loss 3.2000, and much that finds no room in it", 0.25)
    log.progress("step 10: loss 3.1000", 0.5)
    log.say("step 10: validation loss 3.0000")
    log.progress("step 15: loss 3.0000")  # of a run without an end
    log.close()
    first, second, said, last = log.stream.getvalue().split("\r\x1b[K")[1:]  # type: ignore[attr-defined]
    assert first == "█████··············· step 5: loss 3.2000, and much that finds no"[:59]
    assert second == "██████████·········· step 10: loss 3.1000"
    assert said == "step 10: validation loss 3.0000\n"
    assert last == "step 15: loss 3.0000\n"


def test_elsewhere_every_line_stays(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, io.StringIO())
    log.progress("step 5: loss 3.2000", 0.25)
    log.say("done")
    log.close()
    assert log.stream.getvalue() == "step 5: loss 3.2000\ndone\n"  # type: ignore[attr-defined]


def test_the_matmul_rate_is_measured_in_both_precisions() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert 1e7 < metrics._product_flops(torch.device("cpu"), dtype, 64, 0.01) < 1e14
