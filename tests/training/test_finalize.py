from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fullconv.core.labels import Labels
from fullconv.core.settings import Settings
from fullconv.data.layouts.dataset import load_dataset
from fullconv.evaluation.evaluate import evaluate
from fullconv.evaluation.per_image import SplitConfusions, weights_of
from fullconv.models.model import Model, load_model, save_model
from fullconv.network.fcn import FCN
from fullconv.training import finalize as finishing
from fullconv.training.finalize import finish

BEFORE: dict[str, Any] = {
    "mean_iou": 0.5,
    "pixel_accuracy": 0.5,
    "epoch": 3,
    "protocol": {"images": 2, "split": "val", "data_fingerprint": "0123"},
}
CPU = torch.device("cpu")


@pytest.fixture
def run(tmp_path: Path, scenes: Path, make_model: Callable[..., Model]) -> Path:
    """A run whose training has just ended."""
    labels = load_dataset(scenes).labels
    model = make_model(labels.names, colors=labels.colors, metrics=BEFORE)
    save_model(model, tmp_path / "run" / "model")
    return tmp_path / "run"


def test_the_metrics_are_those_of_evaluate(
    run: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "computes_in_bfloat16", lambda _: True)
    metrics = finish(run, load_dataset(scenes), "val", CPU, None, Settings())
    expected = evaluate(run, scenes, split="val").to_dict()
    assert metrics == {**expected, "epoch": 3}
    assert json.loads((run / "metrics.json").read_text()) == metrics
    model = load_model(run)
    assert model.metrics == metrics
    assert model.bfloat16_disagreement is not None
    assert 0 <= model.bfloat16_disagreement < 0.2
    counts = SplitConfusions.read(run / "counts_val.npz")
    assert counts.head().confusion().tolist() == metrics["confusion"]
    assert counts.weights == weights_of(run)  # of the model as it is now


def test_without_bfloat16_nothing_is_compared(
    run: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "computes_in_bfloat16", lambda _: False)
    finish(run, load_dataset(scenes), "val", CPU, None, Settings())
    assert load_model(run).bfloat16_disagreement is None


def test_values_of_the_mask_files_are_those_of_the_data(
    run: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model knows class ids, not what stood in the mask files of its data."""
    import shutil

    monkeypatch.setattr(finishing, "computes_in_bfloat16", lambda _: True)
    data = shutil.copytree(scenes, tmp_path / "data")
    table = (data / "dataset.toml").read_text()
    (data / "dataset.toml").write_text(table + '\n[map]\n255 = "ignore"\n')
    finish(run, load_dataset(data), "val", CPU, None, Settings())
    assert load_model(run).bfloat16_disagreement is not None


class Stubborn(nn.Module):
    """Makes a float32 tensor of its own: trains under autocast, does not run in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 8, 1)
        self.more = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.more(self.conv(x) + torch.ones(1, 8, 1, 1))]


def test_a_network_that_does_not_run_in_bfloat16_is_still_finished(
    tmp_path: Path,
    scenes: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(finishing, "computes_in_bfloat16", lambda _: True)
    labels = load_dataset(scenes).labels
    network = FCN(Stubborn(), len(labels), stride=8)
    model = Model(network, Labels(labels.names), network.backbone.card, metrics=BEFORE)
    save_model(model, tmp_path / "run" / "model")
    metrics = finish(tmp_path / "run", load_dataset(scenes), "val", CPU, Stubborn(), Settings())
    assert metrics["epoch"] == 3
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert "does not run in bfloat16" in capsys.readouterr().err
