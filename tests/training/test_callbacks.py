"""Messages of a training run: rows of the log, the time left, and the guard against collapse."""

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

BATCH = torch.zeros(2, 3, 1, 1), None


def trainer(**facts):
    defaults = {"current_epoch": 0, "max_epochs": 5, "global_step": 10, "loggers": []}
    defaults |= {"num_training_batches": 10, "num_val_batches": [4]}
    defaults |= {"is_global_zero": True, "sanity_checking": False}
    defaults |= {"optimizers": [SimpleNamespace(param_groups=[{"lr": 0.001}])]}
    return SimpleNamespace(**{**defaults, **facts})


def module(confusion):
    metrics = Metrics(("sky", "road"), np.array(confusion))
    return SimpleNamespace(latest=[metrics], model=SimpleNamespace(heads={}))


def step(callback, loss, index=0):
    outputs = {"loss": torch.tensor(loss)}
    callback.on_train_batch_end(trainer(), None, outputs, BATCH, index)


def epoch(reporter, number, loss):
    reporter.on_train_batch_start(trainer(), None, BATCH, 0)
    step(reporter, loss)
    at_the_end = trainer(current_epoch=number, global_step=10 * (number + 1))
    reporter.on_train_epoch_end(at_the_end, module([[9, 1], [0, 10]]))


def rows_of(reporter):
    with reporter.log_file.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def make(tmp_path):
    return lambda **options: Reporter(tmp_path / "log.csv", **options)


def test_every_epoch_becomes_a_row_and_a_repeated_one_replaces_it(make, capsys):
    reporter = make()
    for number, loss in enumerate((2.0, 1.0, 0.5)):
        epoch(reporter, number, loss)
    epoch(make(), 1, 0.75)  # resumed at the end of epoch 1
    rows = rows_of(reporter)
    assert tuple(rows[0]) == COLUMNS
    assert [(row["epoch"], row["loss"]) for row in rows] == [("1", "2.0"), ("2", "0.75")]
    assert float(rows[0]["mean_iou"]) == pytest.approx((9 / 10 + 10 / 11) / 2, abs=1e-5)
    out, err = capsys.readouterr()
    assert out == ""
    assert "epoch 1/5  loss 2.000  mean IoU 90.5%  pixel accuracy 95.0%" in err
    epoch(make(quiet=True), 0, 1.0)
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("kind", "moves"), [("xterm", True), ("dumb", False)])
def test_the_bar_moves_on_a_capable_terminal_and_leaves_no_line(make, monkeypatch, kind, moves):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", kind)
    reporter = make()
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


def test_the_time_left_counts_validation(make, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: clock.now)
    reporter = make(quiet=True)
    reporter.on_train_start(trainer(), None)
    for index in range(10):
        reporter.on_train_batch_start(trainer(), None, BATCH, index)
        clock.now += 6
        step(reporter, 1.0, index)
    # 40 batches of 6 s, and 20 images of a third of 6 s / 2 before any of them was measured.
    assert reporter._update_bar(trainer(), 10, 0, 1.0) == "4:20"
    reporter.on_validation_start(trainer(), None)
    for index in range(4):
        clock.now += 3
        reporter.on_validation_batch_end(trainer(), None, None, None, index)
    assert reporter._update_bar(trainer(), 10, 4, 1.0) == "4:48"


def test_the_loss_so_far_survives_a_stop(make):
    reporter, resumed = make(quiet=True), make(quiet=True)
    step(reporter, 3.0)
    resumed.load_state_dict(reporter.state_dict())
    epoch(resumed, 0, 1.0)
    assert rows_of(resumed)[0]["loss"] == "2.0"


def test_collapse_is_reported_once_after_three_epochs(capsys):
    guards = TrainingGuards(("sky", "road"))
    for _ in range(2):
        guards.on_validation_end(trainer(), module([[10, 0], [10, 0]]))
    assert capsys.readouterr().err == ""
    for _ in range(3):
        guards.on_validation_end(trainer(), module([[10, 0], [10, 0]]))
    err = capsys.readouterr().err
    assert err.count("for 3 epochs every pixel has been predicted as 'sky'") == 1
    assert "--class-weights auto" in err


def test_a_recovery_resets_the_guard_and_one_class_data_is_fine(capsys):
    guards = TrainingGuards(("sky", "road"))
    for confusion in ([[10, 0], [10, 0]], [[10, 0], [0, 10]], [[10, 0], [10, 0]]):
        guards.on_validation_end(trainer(), module(confusion))
    for _ in range(5):
        guards.on_validation_end(trainer(), module([[10, 0], [0, 0]]))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_step_and_learning_rate(loss):
    message = r"at step 10 \(epoch 1, learning rate 0.001\)"
    with pytest.raises(FullconvError, match=message) as caught:
        step(TrainingGuards(("a", "b")), loss)
    assert caught.value.hint.startswith("--lr 0.00025")
