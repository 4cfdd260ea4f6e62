"""Training end to end: the files of a run, resume to the bit, two processes, errors."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import fullconv as fc
from fullconv.core.errors import FullconvError, StoppedError
from fullconv.core.i18n import set_language
from fullconv.core.settings import Settings
from fullconv.data.check.check import check
from fullconv.data.io.limits import large_image_hint
from fullconv.data.io.masks import read_values, write_mask
from fullconv.data.loading.dataset import ResumableBatchSampler, SegmentationDataset
from fullconv.data.synthetic import scenes as synthetic
from fullconv.evaluation import evaluate
from fullconv.models.model import load_model
from fullconv.training import train as training
from fullconv.training.lightning_module import TrainingModule
from fullconv.training.train import train


def rows_of(run):
    """Return log.csv without the column that differs from run to run."""
    with (run.folder / "log.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_a_run_and_its_files(trained):
    run = trained.run
    files = {path.name for path in run.folder.iterdir()}
    assert files >= {"model", "checkpoint", "config.toml", "metrics.json", "log.csv", "images"}
    assert not [name for name in files if "unfinished" in name]
    rows = rows_of(run)
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "3"), ("2", "6"), ("3", "9")]
    assert list(rows[0]) == ["epoch", "step", "loss", "lr", "mean_iou", "pixel_accuracy"]
    assert json.loads((run.folder / "metrics.json").read_text()) == run.metrics
    best = max(float(row["mean_iou"]) for row in rows)
    assert best == pytest.approx(run.metrics["mean_iou"], abs=1e-5)
    assert (run.metrics["protocol"]["split"], run.metrics["protocol"]["images"]) == ("val", 3)
    for text in ("14 train, 3 val, 2 test; 8 classes", "epoch 3/3  loss ", "0:00 left"):
        assert text in trained.stderr
    again = fc.evaluate(run.model, run.data, split="val").to_dict()
    assert again == {name: value for name, value in run.metrics.items() if name != "epoch"}


def test_the_configuration_repeats_the_run(trained, data, tmp_path):
    config = trained.run.folder / "config.toml"
    table = tomllib.loads(config.read_text())
    assert table["data"]["root"] == str(data)
    settings = Settings.from_dict(table["train"])
    assert (settings.lr, settings.crop) == (0.002, (33, 65))
    again = train(data, settings=settings, out=tmp_path / "again", quiet=True)
    assert again.metrics == trained.run.metrics
    assert train(resume=trained.run.folder, quiet=True).metrics == trained.run.metrics


def test_training_learns(fit):
    rows = rows_of(fit(epochs=8, lr=0.01))
    assert float(rows[-1]["loss"]) < 0.85 * float(rows[0]["loss"])


def test_the_dataset_is_checked_once(fit, monkeypatch):
    checked = []
    monkeypatch.setattr(training, "check", lambda path: checked.append(path) or check(path))
    monkeypatch.setattr(evaluate, "check", lambda _: pytest.fail("checked again"))
    monkeypatch.setattr(training, "load_model", lambda *_, **__: pytest.fail("read from disk"))
    fit(epochs=1)
    assert len(checked) == 1


KILLED = """
import os, signal, sys
from fullconv.training.callbacks import Checkpoints
from fullconv.training.train import train
real = Checkpoints.on_train_batch_end
def kill(self, trainer, *args):
    real(self, trainer, *args)
    if trainer.global_step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
Checkpoints.on_train_batch_end = kill
train(sys.argv[1], out=sys.argv[2], **{settings})
"""


@pytest.mark.slow
def test_killed_in_an_epoch_and_resumed(trained, data, small, tmp_path):
    code = KILLED.replace("{settings}", repr({**small, "log_images_every": 2}))
    command = [sys.executable, "-c", code, str(data), str(tmp_path / "killed")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    resumed = train(resume=tmp_path / "killed", quiet=True)
    assert resumed.metrics == trained.run.metrics
    assert rows_of(resumed) == rows_of(trained.run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "hook", "at_step"),
    [(0, "on_train_batch_start", 4), (2, "on_validation_epoch_start", 6)],
    ids=["within an epoch", "at its end, while workers read ahead"],
)
def test_interrupted_and_resumed(trained, fit, tmp_path, monkeypatch, workers, hook, at_step):
    """No step is repeated or left out; sheets, log and metrics are those of an unstopped run."""
    real = getattr(TrainingModule, hook)
    interrupts = []

    def interrupt(self, *args):
        if self.global_step == at_step and not interrupts:
            interrupts.append(self.global_step)
            os.kill(os.getpid(), signal.SIGINT)
        real(self, *args)

    monkeypatch.setattr(TrainingModule, hook, interrupt)
    folder = tmp_path / "run"
    with pytest.raises(StoppedError, match="stopped in epoch 2 of 3; everything is saved") as stop:
        fit(workers=workers, log_images_every=2)
    assert stop.value.hint == f"fullconv train --resume {folder}"
    batches = folder / "images/batches.png"
    before = batches.stat().st_mtime_ns
    resumed = train(resume=folder, quiet=True)
    assert resumed.metrics == trained.run.metrics
    assert rows_of(resumed) == rows_of(trained.run)
    assert batches.stat().st_mtime_ns == before
    for path in (trained.run.folder / "images").glob("epoch_*.png"):
        assert path.read_bytes() == (folder / "images" / path.name).read_bytes(), path.name


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch_size(data, fit, tmp_path):
    """The weights differ only by the rounding of sums.

    Normalization is per image and position; every pixel is labeled, so that the mean of two losses
    is the loss of both; and gradients are plain (Adam would divide those near zero by their size).
    """
    copy = shutil.copytree(data, tmp_path / "data")
    for mask in (copy / "masks/train").iterdir():
        ids = read_values(mask)
        write_mask(mask, np.where(ids == 255, 0, ids), synthetic.LABELS)
    options = {"backbone": "test_convnext", "epochs": 1, "optimizer": "sgd", "scale": (1.1, 1.5)}
    one = fit(copy, "one", **options)
    words = "--no-pretrained --crop 33 65 --workers 0 --precision float32 --backbone test_convnext"
    words += " --epochs 1 --batch-size 2 --devices 2 --optimizer sgd --scale 1.1 1.5 --device cpu"
    folder = tmp_path / "two"
    command = [sys.executable, "-m", "fullconv", "train", str(copy), "--out", str(folder), "--json"]
    command += words.split()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)  # one object: the second process prints nothing
    # Summed, not averaged: every labeled pixel of the split is counted once.
    pixels = [np.sum(m["confusion"], axis=1).tolist() for m in (two, one.metrics)]
    assert pixels[0] == pixels[1]
    assert two["mean_iou"] == pytest.approx(one.metrics["mean_iou"], abs=0.005)
    settings = Settings(backbone="test_convnext", pretrained=False)
    start = training.build_initial_model(check(copy), settings).network.state_dict()
    states = [start, *(load_file(f / "model/model.safetensors") for f in (one.folder, folder))]
    weights, of_one, of_two = (torch.cat([s[name].flatten() for name in start]) for s in states)
    assert (of_two - of_one).norm() < 1e-4 * (of_one - weights).norm()
    # The first process draws its own predictions.
    sheets = {path.name for path in (folder / "images").glob("*.png")}
    assert sheets == {"batches.png", "epoch_0001.png"}


def test_accumulated_gradients_equal_those_of_one_large_batch(data, fit):
    """Whole images, one per pass, seven passes per step, a frozen backbone: both steps of the epoch
    are those that the test computes from the mean gradient."""
    options = {"epochs": 1, "stride": 32}
    earlier = fit(folder="a", **options)
    options |= {"freeze_backbone": True, "optimizer": "sgd", "momentum": 0.5, "lr": 0.5}
    options |= {"weight_decay": 0.01, "bias_lr_factor": 2.0, "schedule": "fixed", "flip": False}
    options |= {"crop": (0, 0), "batch_size": 1, "grad_accumulation": 7, "color_jitter": 0.0}
    run = fit(folder="b", init_from=str(earlier.folder), **options)
    model = load_model(earlier.model)
    score = model.network.score["stride32"]
    samples = SegmentationDataset(check(data).dataset.splits["train"], model.labels)
    order = [index for [(index, _)] in ResumableBatchSampler(14, 1, seed=0)]
    velocity = {}
    for step in (order[:7], order[7:]):
        score.zero_grad()
        for index in step:
            image, target = samples[index, 0]
            full = model.network(model.normalize(image[None])).full()
            loss = nn.functional.cross_entropy(full, target[None].long(), ignore_index=255)
            (loss / 7).backward()
        with torch.no_grad():
            for name, p in score.named_parameters():
                gradient = p.grad + (0.01 * p if name == "weight" else 0)
                velocity[name] = 0.5 * velocity.get(name, 0) + gradient
                p -= (1.0 if name == "bias" else 0.5) * velocity[name]
    network = load_model(run.model).network
    expected = dict(score.named_parameters())
    for name, p in network.score["stride32"].named_parameters():
        torch.testing.assert_close(p, expected[name], rtol=1e-4, atol=1e-6)
    before = load_model(earlier.model).network.backbone.state_dict()
    assert all(torch.equal(v, before[k]) for k, v in network.backbone.state_dict().items())


def offline(*_, **__):
    raise FullconvError("there is no network.", "--no-pretrained")


def test_a_dataset_without_images_to_train_on(data, tmp_path):
    root = shutil.copytree(data, tmp_path / "data")
    for folder in ("images", "masks"):
        shutil.rmtree(root / folder / "train")
    with pytest.raises(FullconvError, match="has no images to train on: all are in val") as caught:
        train(root, out=tmp_path / "run")
    assert caught.value.hint == f"fullconv check {root}"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("staged", [False, True])
def test_a_run_that_cannot_begin_leaves_no_folder(fit, tmp_path, monkeypatch, staged):
    """The next attempt may use the same name."""
    monkeypatch.setattr(training, "build_initial_model", offline)
    options = {"folder": "runs/first", "stride": 16 if staged else 8, "staged": staged}
    with pytest.raises(FullconvError, match="no network"):
        fit(**options)
    assert list((tmp_path / "runs").iterdir()) == []
    own_file = tmp_path / "runs/first/mine.txt"
    own_file.parent.mkdir()
    own_file.touch()
    with pytest.raises(FullconvError, match="no network"):
        fit(**options)
    assert own_file.is_file()


def test_a_staged_run_that_is_resumed_keeps_its_configuration(data, tmp_path, monkeypatch):
    config = tmp_path / "config.toml"
    (tmp_path / "checkpoint").mkdir()
    config.write_text(f'[data]\nroot = "{data}"\n[train]\nstaged = true\npretrained = false\n')
    monkeypatch.setattr(training, "build_initial_model", offline)
    with pytest.raises(FullconvError, match="no network"):
        train(resume=tmp_path, quiet=True)
    assert config.is_file()
    assert not (tmp_path / "32s").exists()


@pytest.fixture
def before_first_step(monkeypatch):
    """Call a function after the check of the dataset, before the first step."""
    real = training._fit

    def set_change(change):
        def fit(*args, **options):
            change()
            return real(*args, **options)

        monkeypatch.setattr(training, "_fit", fit)

    return set_change


def test_errors_in_worker_processes(data, fit, tmp_path, before_first_step):
    copy = shutil.copytree(data, tmp_path / "data")
    mask = next((copy / "masks/train").iterdir())
    before_first_step(lambda: mask.write_bytes(b"not an image"))
    with pytest.raises(FullconvError) as caught:
        fit(copy, workers=1, epochs=1)
    assert "masks/train" in caught.value.message
    assert not any(word in str(caught.value) for word in ("Traceback", "DataLoader"))


@pytest.mark.usefixtures("chinese")
def test_errors_in_worker_processes_are_translated(fit, before_first_step, monkeypatch):
    before_first_step(lambda: monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100))
    set_language("zh")
    with pytest.raises(FullconvError) as caught:
        fit(workers=1, epochs=1, log_images_every=0)
    expected = large_image_hint().in_language("zh")
    assert caught.value.hint == expected != large_image_hint()
    assert "的像素数超过 Pillow" in caught.value.message
    assert not any(word in str(caught.value) for word in ("Traceback", "DataLoader"))


def test_errors(trained, fit, tmp_path, monkeypatch):
    damaged = synthetic.write(tmp_path / "data", train=2, val=1, test=0, size=(32, 32))
    next((damaged / "masks/train").iterdir()).write_bytes(b"not an image")
    for folder, text in (
        ("bare", '[data]\nroot = "x"\n[train]\nepochs = 3\n'),
        ("rootless", "[train]\nepochs = 3\n"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.toml").write_text(text)
    (tmp_path / "file").touch()
    for make, message, hint in (
        (lambda: fit(lr=1e12, optimizer="sgd"), "the loss became nan at step", "--lr "),
        (lambda: fit(damaged, "none"), "in the data", "fullconv check"),
        (lambda: train(), "no dataset is given.", 'fullconv.train("DATA")'),
        (lambda: train(resume=tmp_path / "bare"), "has no checkpoint to resume from", "fullconv"),
        (lambda: train(resume=tmp_path / "rootless"), "does not name the dataset", "[data]\nroot"),
        (lambda: train(resume=tmp_path / "gone"), "", "fullconv"),
        (lambda: train(resume=tmp_path, epochs=4), "takes its data, folder and options from", ""),
        (lambda: fit(folder="file/run"), "could not be created: Not a directory.", "--out DIR"),
    ):
        with pytest.raises(FullconvError) as caught:
            make()
        assert message in caught.value.message
        assert caught.value.hint.startswith(hint)
    assert not (tmp_path / "none").exists()
    # An existing run is refused before the dataset is read.
    monkeypatch.setattr(training, "check", lambda _: pytest.fail("read"))
    with pytest.raises(FullconvError, match="already contains a run") as caught:
        fit(folder=trained.run.folder)
    assert "--resume" in caught.value.hint


def test_rules_whose_errors_are_ignored(fit, tmp_path, capsys):
    """A mask of another size and an unknown value: each rule by name, and no other."""
    root = synthetic.write(tmp_path / "scenes", train=6, val=2, test=1, size=(48, 64))
    masks = sorted((root / "masks" / "train").iterdir())
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(masks[0])
    strange = np.array(Image.open(masks[1]))
    strange[:8, :8] = 77
    Image.fromarray(strange).save(masks[1])
    for rules, count in (("", "2 errors"), ("size", "1 error"), ("unknown-value", "1 error")):
        with pytest.raises(FullconvError, match=f"{count} in the data"):
            fit(root, "none", ignore_rules=rules)
    assert not (tmp_path / "none").exists()
    capsys.readouterr()
    run = fit(root, ignore_rules="size,unknown-value", epochs=1, quiet=False)
    stderr = capsys.readouterr().err
    for text in ("ignored: size: ", "5 train", "class weights none: ", "--scale LOW HIGH"):
        assert text in stderr
    assert "crop" not in stderr
    assert 0 <= run.metrics["mean_iou"] <= 1
    assert 'ignore_rules = "size,unknown-value"' in (run.folder / "config.toml").read_text()


def test_the_configuration_has_the_folder_of_a_published_dataset(
    data, small, tmp_path, monkeypatch
):
    """Here without a labeled validation pixel: the run still has a model."""
    monkeypatch.setenv("FULLCONV_DATA", str(tmp_path / "sets"))
    folder = shutil.copytree(data, tmp_path / "sets" / "camvid")  # as if downloaded
    for mask in (folder / "masks/val").iterdir():
        write_mask(mask, np.full((48, 64), 255, np.uint8), synthetic.LABELS)
    monkeypatch.chdir(tmp_path)
    run = train("CamVid", **{**small, "epochs": 1})
    config = tomllib.loads((run.folder / "config.toml").read_text())
    assert config["data"] == {"root": str(folder)}
    assert run.folder.name.endswith("_camvid_8s")
    assert run.metrics["mean_iou"] is None
    image = next((folder / "images/val").iterdir())
    assert fc.load(run.model)(image).mask.shape == (48, 64)


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.b = nn.Conv2d(8, 16, 3, stride=2, padding=1)

    def forward(self, x):
        x = torch.relu(self.a(x))
        return [x, torch.relu(self.b(x))]


def test_your_own_backbone(data, fit):
    options = {"epochs": 1, "optimizer": "sgd", "schedule": "poly"}
    run = fit(module=Tiny(), class_weights="balanced", **options)
    assert float(rows_of(run)[0]["lr"]) < 1e-4
    with pytest.raises(FullconvError, match="no code"):
        fc.load(run.model)
    image = next((data / "images/test").iterdir())
    assert fc.load(run.model, backbone=Tiny())(image).mask.shape == (48, 64)


def test_early_stopping(fit, monkeypatch):
    def perfect(self, batch, index):  # nothing can improve
        ids = batch[1].clamp(max=7).long()
        self.confusions[0].update(ids, ids)
        return {"predictions": [batch[1]]}

    monkeypatch.setattr(TrainingModule, "validation_step", perfect)
    run = fit(epochs=9, patience=2)
    assert len(rows_of(run)) == 3
    assert run.metrics["epoch"] == 1  # read back from disk
