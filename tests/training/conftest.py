"""One small run that most of these tests use, with everything that it drew and printed."""

import io
from contextlib import redirect_stderr
from types import SimpleNamespace

import pytest

from fullconv.data.synthetic import scenes as synthetic
from fullconv.training import image_logger
from fullconv.training.lightning_module import TrainingModule
from fullconv.training.train import train

SMALL = {
    "backbone": "test_resnet",
    "pretrained": False,
    "epochs": 3,
    "batch_size": 4,
    "crop": (33, 65),
    "workers": 0,
    "precision": "float32",
    "device": "cpu",
    "quiet": True,
}


@pytest.fixture(scope="package")
def small():
    """Options of a run that takes a few seconds. Copy, do not change."""
    return SMALL


@pytest.fixture(scope="package")
def data(tmp_path_factory):
    """Synthetic scenes: 14 to train, 3 to validate, 2 to test. Read only."""
    root = tmp_path_factory.mktemp("scenes")
    return synthetic.write(root, train=14, val=3, test=2, size=(48, 64))


@pytest.fixture
def fit(data, tmp_path):
    """Train with the options of `small` and others; by default on `data`, in the folder "run"."""

    def call(root=data, folder="run", **options):
        return train(root, out=tmp_path / folder, **{**SMALL, **options})

    return call


@pytest.fixture(scope="package")
def trained(data, tmp_path_factory):
    """Three epochs of three steps each: the run, the batches of its steps, the arguments of its
    sheets, and its messages. Read only."""
    batches, crops, sheets = [], [], []
    step, batches_sheet = TrainingModule.training_step, image_logger.batches_sheet
    epoch_sheet = image_logger.epoch_sheet

    def training_step(self, batch, index):
        batches.append((batch[0].clone(), batch[1].clone()))
        return step(self, batch, index)

    def keep_crops(drawn, *rest):
        assert not batches  # drawn before the first step
        crops.extend(drawn)
        return batches_sheet(drawn, *rest)

    def keep_images(images, *rest):
        sheets.append(list(images))
        return epoch_sheet(images, *rest)

    stderr = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(stderr):
        patch.setattr(TrainingModule, "training_step", training_step)
        patch.setattr(image_logger, "batches_sheet", keep_crops)
        patch.setattr(image_logger, "epoch_sheet", keep_images)
        options = {**SMALL, "quiet": False, "log_images_every": 2}
        run = train(data, out=tmp_path_factory.mktemp("runs") / "whole", **options)
    stderr = stderr.getvalue()
    return SimpleNamespace(run=run, stderr=stderr, batches=batches, crops=crops, sheets=sheets)
