"""What a training says: rows of the log, the time left, and the guard against collapse."""

import csv
import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fullconv.core.errors import FullconvError
from fullconv.evaluation.metrics import Metrics
from fullconv.training import callbacks
from fullconv.training.callbacks import COLUMNS, Reporter, TrainingGuards


def trainer(**facts):
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.001}])
    defaults = {
        "current_epoch": 0,
        "max_epochs": 5,
        "global_step": 10,
        "estimated_stepping_batches": 50,
        "optimizers": [optimizer],
        "is_global_zero": True,
        "sanity_checking": False,
        "num_training_batches": 10,
        "num_val_batches": [4],
        "loggers": [],
    }
    return SimpleNamespace(**{**defaults, **facts})


def module(confusion):
    metrics = Metrics(("sky", "road"), np.array(confusion))
    return SimpleNamespace(latest=[metrics], model=SimpleNamespace(heads={}))


def epoch(reporter, number, loss):
    batch = torch.zeros(2, 3, 1, 1), None
    reporter.on_train_batch_start(trainer(), None, batch, 0)
    reporter.on_train_batch_end(trainer(), None, {"loss": torch.tensor(loss)}, batch, 0)
    here = trainer(current_epoch=number, global_step=10 * (number + 1))
    reporter.on_train_epoch_end(here, module([[9, 1], [0, 10]]))


def test_every_epoch_becomes_a_row_and_a_repeated_one_replaces_it(tmp_path, capsys):
    reporter = Reporter(tmp_path / "log.csv")
    for number, loss in enumerate((2.0, 1.0, 0.5)):
        epoch(reporter, number, loss)
    again = Reporter(tmp_path / "log.csv")  # resumed at the end of epoch 1
    epoch(again, 1, 0.75)
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["epoch"], row["loss"]) for row in rows] == [("1", "2.0"), ("2", "0.75")]
    assert float(rows[0]["mean_iou"]) == pytest.approx((9 / 10 + 10 / 11) / 2, abs=1e-5)
    said = capsys.readouterr()
    assert said.out == ""
    assert "epoch 1/5  loss 2.000  mean IoU 90.5%  pixel accuracy 95.0%" in said.err


def test_quiet_says_nothing(tmp_path, capsys):
    epoch(Reporter(tmp_path / "log.csv", quiet=True), 0, 1.0)
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("kind", "moves"), [("xterm", True), ("dumb", False)])
def test_the_bar_moves_on_a_terminal_that_can_and_leaves_no_line(
    tmp_path, monkeypatch, kind, moves
):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", kind)
    reporter = Reporter(tmp_path / "log.csv")
    assert reporter.bar.live.transient
    reporter.on_train_start(trainer(), None)
    epoch(reporter, 0, 1.0)
    if moves:  # the bar has the numbers of the epoch that ended, its validation included
        (task,) = reporter.bar.tasks
        assert (task.completed, task.total) == (14, 5 * 14)
        assert "best mean IoU 90.5%" in task.fields["state"]
    reporter.teardown(trainer(), None, "fit")
    assert "epoch 1/5  loss 1.000" in stream.getvalue()
    assert ("\x1b[" in stream.getvalue()) == moves


def test_the_time_left_counts_validation(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: clock.now)
    reporter = Reporter(tmp_path / "log.csv", quiet=True)
    reporter.on_train_start(trainer(), None)
    batch = torch.zeros(2, 3, 1, 1), None
    for index in range(10):
        reporter.on_train_batch_start(trainer(), None, batch, index)
        clock.now += 6
        reporter.on_train_batch_end(trainer(), None, {"loss": torch.tensor(1.0)}, batch, index)
    # 40 batches of 6 s, and 20 images of a third of 6 s / 2 before any of them was measured.
    assert reporter._update_bar(trainer(), 10, 0, 1.0) == "4:20"
    reporter.on_validation_start(trainer(), None)
    for index in range(4):
        clock.now += 3
        reporter.on_validation_batch_end(trainer(), None, None, None, index)
    assert reporter._update_bar(trainer(), 10, 4, 1.0) == "4:48"


def test_the_loss_so_far_survives_a_stop(tmp_path):
    reporter = Reporter(tmp_path / "log.csv", quiet=True)
    reporter.on_train_batch_end(trainer(), None, {"loss": torch.tensor(3.0)}, None, 0)
    again = Reporter(tmp_path / "log.csv", quiet=True)
    again.load_state_dict(reporter.state_dict())
    epoch(again, 0, 1.0)
    with (tmp_path / "log.csv").open() as file:
        assert next(csv.DictReader(file))["loss"] == "2.0"


def test_collapse_is_said_once_after_three_epochs(capsys):
    guards = TrainingGuards(("sky", "road"))
    for _ in range(2):
        guards.on_validation_end(trainer(), module([[10, 0], [10, 0]]))
    assert capsys.readouterr().err == ""
    for _ in range(3):
        guards.on_validation_end(trainer(), module([[10, 0], [10, 0]]))
    said = capsys.readouterr().err
    assert said.count("for 3 epochs every pixel has been predicted as 'sky'") == 1
    assert "--class-weights auto" in said


def test_a_recovery_resets_the_guard_and_one_class_data_is_fine(capsys):
    guards = TrainingGuards(("sky", "road"))
    for confusion in ([[10, 0], [10, 0]], [[10, 0], [0, 10]], [[10, 0], [10, 0]]):
        guards.on_validation_end(trainer(), module(confusion))
    for _ in range(5):
        guards.on_validation_end(trainer(), module([[10, 0], [0, 0]]))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_step_and_rate(loss):
    with pytest.raises(FullconvError, match=r"at step 10 \(epoch 1, learning rate 0.001\)") as e:
        TrainingGuards(("a", "b")).on_train_batch_end(
            trainer(), None, {"loss": torch.tensor(loss)}, None, 0
        )
    assert e.value.hint.startswith("--lr 0.00025")
