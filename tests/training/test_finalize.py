"""The best model of a run gets exact metrics, and is compared with itself in bfloat16."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fullconv.data.check.check import check
from fullconv.evaluation.evaluate import evaluate
from fullconv.evaluation.per_image import SplitConfusions, weights_of
from fullconv.models.model import Model, load_model
from fullconv.network.fcn import FCN
from fullconv.training import finalize
from fullconv.training.finalize import finish

PROTOCOL = {"images": 2, "split": "val", "data_fingerprint": "0123"}
BEFORE = {"mean_iou": 0.5, "pixel_accuracy": 0.5, "epoch": 3, "protocol": PROTOCOL}
CPU = torch.device("cpu")


@pytest.fixture
def report(scenes):
    return check(scenes)


@pytest.fixture(autouse=True)
def bfloat16(monkeypatch):
    """Make the device compute in bfloat16."""
    monkeypatch.setattr(finalize, "computes_in_bfloat16", lambda _: True)


def test_metrics_counts_and_bfloat16(report, scenes, make_model, tmp_path, monkeypatch):
    labels, run = report.dataset.labels, tmp_path / "run"
    model = make_model(labels.names, colors=labels.colors, metrics=BEFORE)
    metrics = finish(model, run, [report], "val", CPU)
    assert metrics == {**evaluate(run, scenes, split="val").to_dict(), "epoch": 3}
    assert json.loads((run / "metrics.json").read_text()) == metrics
    saved = load_model(run)
    assert saved.metrics == metrics
    assert saved.bfloat16_disagreement is not None
    assert 0 <= saved.bfloat16_disagreement < 0.2
    counts = SplitConfusions.read(run / "counts_val.npz")
    assert counts.head().confusion().tolist() == metrics["confusion"]
    assert counts.weights == weights_of(run)  # of the model as it is now
    monkeypatch.setattr(finalize, "computes_in_bfloat16", lambda _: False)
    finish(model, run, [report], "val", CPU)
    assert load_model(run).bfloat16_disagreement is None


def test_mask_values_are_those_of_the_dataset(scenes, make_model, tmp_path):
    """A model knows the ids of its classes, but not the values in the masks of its dataset."""
    data = shutil.copytree(scenes, tmp_path / "data")
    for path in (data / "masks").rglob("*.png"):
        ids = np.asarray(Image.open(path))
        Image.fromarray(np.where(ids == 255, ids, 10 * (ids + 1)).astype(np.uint8)).save(path)
    labels = check(scenes).dataset.labels
    values = "".join(f'{10 * (k + 1)} = "{name}"\n' for k, name in enumerate(labels.names))
    with (data / "dataset.toml").open("a") as table:
        table.write(f'\n[map]\n{values}255 = "ignore"\n')
    model = make_model(labels.names, colors=labels.colors, metrics=BEFORE)
    metrics = finish(model, tmp_path / "run", [check(data)], "val", CPU)
    plain = evaluate(tmp_path / "run", scenes, split="val").to_dict()
    assert metrics["confusion"] == plain["confusion"]
    assert load_model(tmp_path / "run").bfloat16_disagreement is not None


class Stubborn(nn.Module):
    """Creates a float32 tensor: trains under autocast, but does not run in bfloat16."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 8, 1)
        self.more = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return [self.more(self.conv(x) + torch.ones(1, 8, 1, 1))]


def test_a_network_that_does_not_run_in_bfloat16(report, tmp_path, capsys):
    labels = report.dataset.labels
    network = FCN(Stubborn(), len(labels), stride=8).eval()
    model = Model(network, labels, network.backbone.card, metrics=BEFORE)
    assert finish(model, tmp_path / "run", [report], "val", CPU)["epoch"] == 3
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert "does not run in bfloat16" in capsys.readouterr().err
