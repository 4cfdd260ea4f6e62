"""Training end to end on drawn scenes: the run's files, resume to the bit, two processes."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from dataclasses import replace

import cards
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import fullconv as fc
from fullconv.core.errors import FullconvError, StoppedError
from fullconv.core.settings import Settings
from fullconv.data.check.check import check
from fullconv.data.io.masks import read_values, write_mask
from fullconv.data.layouts.extra_folders import with_channel_statistics, with_extra_inputs
from fullconv.data.loading.dataset import ResumableBatchSampler, SegmentationDataset
from fullconv.data.synthetic import scenes as drawn
from fullconv.evaluation.masking_probe import probe
from fullconv.models.model import Model, load_model, save_model
from fullconv.training import train as training
from fullconv.training.train import train

SMALL = {
    "backbone": "resnet10t",
    "pretrained": False,
    "epochs": 3,
    "batch": 4,
    "crop": (33, 65),
    "workers": 0,
    "quiet": True,
    "precision": "float32",
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    return drawn.write(root, train=14, val=3, test=2, size=(48, 64))


@pytest.fixture(scope="module")
def unstopped(scenes, tmp_path_factory):
    return train(scenes, out=tmp_path_factory.mktemp("runs") / "whole", **SMALL)


def rows_of(run):
    with (run.folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_holds_what_the_design_names(unstopped):
    folder = unstopped.folder
    assert {p.name for p in folder.iterdir()} >= {
        "model",
        "checkpoint",
        "config.toml",
        "metrics.json",
        "log.csv",
    }
    rows = rows_of(unstopped)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["step"] for row in rows] == ["3", "6", "9"]  # 14 images, batches of 4
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == unstopped.metrics
    assert max(float(row["mean_iou"]) for row in rows) == pytest.approx(
        metrics["mean_iou"], abs=1e-5
    )
    assert metrics["protocol"]["split"] == "val"
    assert metrics["protocol"]["images"] == 3


def test_training_learns(scenes, tmp_path):
    """From a fresh start in 24 steps: the loss falls to 0.72 - 0.76 of the first epoch's, and 1.7
    times as many pixels are right as if all were called by the commonest class (seeds 0 to 2)."""
    run = train(scenes, out=tmp_path / "run", **{**SMALL, "epochs": 8})
    rows = rows_of(run)
    assert float(rows[-1]["loss"]) < 0.82 * float(rows[0]["loss"])
    pixels = np.sum(run.metrics["confusion"], axis=1)
    assert run.metrics["pixel_accuracy"] > 1.4 * pixels.max() / pixels.sum()


def test_the_metrics_are_those_of_evaluate(scenes, unstopped):
    again = fc.evaluate(unstopped.model, scenes, split="val").to_dict()
    assert again["confusion"] == unstopped.metrics["confusion"]


def test_the_configuration_repeats_the_run(scenes, unstopped, tmp_path):
    table = tomllib.loads((unstopped.folder / "config.toml").read_text())
    assert table["data"]["root"] == str(scenes)
    settings = Settings.from_dict(table["train"])
    assert settings.lr == 0.002
    assert settings.crop == (33, 65)
    again = train(scenes, settings=settings, out=tmp_path / "again", quiet=True)
    assert again.metrics["confusion"] == unstopped.metrics["confusion"]


KILLED = """
import os, signal, sys
from fullconv.training.lightning_module import Checkpoints
from fullconv.training.train import train
real = Checkpoints.on_train_batch_end
def kill(self, trainer, *args):
    real(self, trainer, *args)
    if trainer.global_step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
Checkpoints.on_train_batch_end = kill
train(sys.argv[1], out=sys.argv[2], **{settings})
"""


def test_killed_in_an_epoch_and_resumed_gives_the_same_metrics(scenes, unstopped, tmp_path):
    folder = tmp_path / "killed"
    code = KILLED.replace("{settings}", repr(SMALL))
    done = subprocess.run([sys.executable, "-c", code, str(scenes), str(folder)], check=False)
    assert done.returncode == -signal.SIGKILL
    resumed = train(resume=folder, quiet=True)
    assert resumed.metrics == unstopped.metrics
    log, whole = (
        [{k: v for k, v in row.items() if k != "seconds"} for row in rows_of(run)]
        for run in (resumed, unstopped)
    )
    assert log == whole


def test_interrupted_saves_within_the_epoch_and_continues_there(
    scenes, unstopped, tmp_path, monkeypatch
):
    from fullconv.training.lightning_module import Training

    steps = []
    real = Training.on_train_batch_start

    def interrupt(self, batch, index):
        steps.append(self.global_step)
        if self.global_step == 4 and len(steps) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        real(self, batch, index)

    monkeypatch.setattr(Training, "on_train_batch_start", interrupt)
    folder = tmp_path / "interrupted"
    with pytest.raises(StoppedError, match="stopped in epoch 2 of 3; all is saved") as caught:
        train(scenes, out=folder, **SMALL)
    assert caught.value.hint == f"fullconv train --resume {folder}"
    resumed = train(resume=folder, quiet=True)
    assert steps == list(range(9))  # no step twice, none left out
    assert resumed.metrics == unstopped.metrics


def test_interrupted_at_the_end_of_an_epoch_continues_with_the_next(
    scenes, unstopped, tmp_path, monkeypatch
):
    """Where worker processes read ahead, which ask for batches early."""
    from fullconv.training.lightning_module import Training

    real = Training.on_validation_epoch_start

    def interrupt(self):
        if self.global_step == 6:  # behind the second epoch's last step
            os.kill(os.getpid(), signal.SIGINT)
        real(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "on_validation_epoch_start", interrupt)
        with pytest.raises(StoppedError, match="stopped in epoch 2 of 3; all is saved"):
            train(scenes, out=tmp_path / "run", **{**SMALL, "workers": 2})
    resumed = train(resume=tmp_path / "run", quiet=True)
    assert [row["step"] for row in rows_of(resumed)] == ["3", "6", "9"]
    assert resumed.metrics == unstopped.metrics


def test_resume_of_a_finished_run_changes_nothing(unstopped):
    assert train(resume=unstopped.folder, quiet=True).metrics == unstopped.metrics


def test_a_published_set_is_remembered_by_its_folder(scenes, tmp_path, monkeypatch):
    monkeypatch.setenv("FULLCONV_DATA", str(tmp_path / "sets"))
    folder = shutil.copytree(scenes, tmp_path / "sets" / "camvid")  # as if downloaded
    monkeypatch.chdir(tmp_path)
    run = train("CamVid", **SMALL | {"epochs": 1})
    config = tomllib.loads((run.folder / "config.toml").read_text())
    assert config["data"] == {"root": str(folder)}
    assert run.folder.name.endswith("_camvid_8s")
    assert train(resume=run.folder, quiet=True).metrics == run.metrics


def test_two_processes_see_what_one_with_twice_the_batch_sees(scenes, tmp_path):
    """Same images, chances and steps: the same weights but for the rounding of sums.

    Normalised per image and position, not over a batch; every pixel labelled, so that the mean of
    two processes' losses is the loss of both; and plain gradients, where Adam would divide those
    near zero by their own size.
    """
    data = shutil.copytree(scenes, tmp_path / "data")
    for mask in (data / "masks/train").iterdir():
        ids = read_values(mask)
        write_mask(mask, np.where(ids == 255, 0, ids), drawn.LABELS)
    options = {"backbone": "test_convnext", "epochs": 1, "optimizer": "sgd", "scale": (1.1, 1.5)}
    one = train(data, out=tmp_path / "one", **{**SMALL, **options})
    words = ["--no-pretrained", "--crop", "33", "65", "--workers", "0", "--precision", "float32"]
    words += ["--backbone", "test_convnext", "--epochs", "1", "--batch-size", "2", "--devices", "2"]
    words += ["--optimizer", "sgd", "--scale", "1.1", "1.5"]
    folder = tmp_path / "two"
    command = [sys.executable, "-m", "fullconv", "train", str(data), "--out", str(folder)]
    done = subprocess.run(
        [*command, *words, "--device", "cpu", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)  # one object: the second process prints nothing
    # Summed, not averaged: every labelled pixel of the split is counted once.
    assert (
        np.sum(two["confusion"], axis=1).tolist()
        == np.sum(one.metrics["confusion"], axis=1).tolist()
    )
    together, apart = (load_file(run / "model/model.safetensors") for run in (one.folder, folder))
    fresh = training.fresh_model(
        check(data), Settings(backbone="test_convnext", pretrained=False), None, quiet=True
    ).network.state_dict()
    start, one_run, two_halves = (
        torch.cat([state[name].flatten() for name in fresh]) for state in (fresh, together, apart)
    )
    assert (two_halves - one_run).norm() < 1e-4 * (one_run - start).norm()
    assert two["mean_iou"] == pytest.approx(one.metrics["mean_iou"], abs=0.005)
    # The first process draws, of what it labelled itself.
    sheets = {path.name for path in (folder / "images").glob("*.png")}
    assert sheets == {"batches.png", "epoch_0001.png"}  # the report's images are JPEG and SVG


def test_a_loss_that_is_not_finite_stops_with_a_sentence(scenes, tmp_path):
    with pytest.raises(FullconvError, match="the loss became nan at step") as caught:
        train(scenes, out=tmp_path / "run", **{**SMALL, "rate": 1e12, "optimizer": "sgd"})
    assert "best model so far is kept" in caught.value.message
    assert caught.value.hint.startswith("--lr ")


def test_faulty_data_stops_before_anything_is_written(tmp_path):
    data = drawn.write(tmp_path / "data", train=2, val=1, test=0, size=(32, 32))
    next((data / "masks/train").iterdir()).write_bytes(b"not an image")
    with pytest.raises(FullconvError, match="in the data set"):
        train(data, out=tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_not_overwritten(scenes, unstopped, monkeypatch):
    """That is said before the data are read."""
    monkeypatch.setattr(training, "check", lambda _: pytest.fail("read"))
    with pytest.raises(FullconvError, match="already holds a run") as caught:
        train(scenes, out=unstopped.folder, **SMALL)
    assert "--resume" in caught.value.hint


@pytest.mark.parametrize("staged", [False, True])
def test_a_run_that_cannot_begin_leaves_no_folder(scenes, tmp_path, monkeypatch, staged):
    """As where weights cannot be downloaded: the next try may have the same name."""

    def offline(*_, **__):
        raise FullconvError("there is no network.", "--no-pretrained")

    monkeypatch.setattr(training, "fresh_model", offline)
    options = {**SMALL, "epochs": 1, "stride": 16 if staged else 8, "staged": staged}
    folder = tmp_path / "runs" / "first"
    with pytest.raises(FullconvError, match="no network"):
        train(scenes, out=folder, **options)
    assert list((tmp_path / "runs").iterdir()) == []
    folder.mkdir()
    (folder / "mine.txt").touch()
    with pytest.raises(FullconvError, match="no network"):
        train(scenes, out=folder, **options)
    assert (folder / "mine.txt").is_file()


def test_a_staged_run_that_is_resumed_keeps_its_configuration(scenes, tmp_path, monkeypatch):
    """It was there before, whatever becomes of the next try."""
    config = tmp_path / "config.toml"
    (tmp_path / "checkpoint").mkdir()
    config.write_text(f'[data]\nroot = "{scenes}"\n[train]\nstaged = true\npretrained = false\n')

    def offline(*_, **__):
        raise FullconvError("there is no network.")

    monkeypatch.setattr(training, "fresh_model", offline)
    with pytest.raises(FullconvError, match="no network"):
        train(resume=tmp_path, quiet=True)
    assert config.is_file()
    assert not (tmp_path / "32s").exists()


def test_a_split_without_a_labelled_pixel_still_gives_a_model(scenes, tmp_path, capsys):
    copy = shutil.copytree(scenes, tmp_path / "data")
    for mask in (copy / "masks/val").iterdir():
        write_mask(mask, np.full((48, 64), 255, np.uint8), drawn.LABELS)
    run = train(copy, out=tmp_path / "run", **{**SMALL, "epochs": 1})
    assert run.metrics["mean_iou"] is None
    assert fc.load(run.model)(next((copy / "images/val").iterdir())).mask.shape == (48, 64)


def test_an_error_in_a_reading_process_arrives_as_a_sentence(scenes, tmp_path, monkeypatch):
    copy = shutil.copytree(scenes, tmp_path / "data")
    real = training._fit

    def damaged(*args):  # after the check, before the first step
        next((copy / "masks/train").iterdir()).write_bytes(b"not an image")
        return real(*args)

    monkeypatch.setattr(training, "_fit", damaged)
    with pytest.raises(FullconvError) as caught:
        train(copy, out=tmp_path / "run", **{**SMALL, "workers": 1, "epochs": 1})
    assert "masks/train" in caught.value.message
    assert "Traceback" not in str(caught.value)
    assert "DataLoader" not in str(caught.value)


def test_resume_without_a_checkpoint(tmp_path):
    (tmp_path / "config.toml").write_text('[data]\nroot = "x"\n[train]\nepochs = 3\n')
    with pytest.raises(FullconvError, match="has no checkpoint to resume from"):
        train(resume=tmp_path)
    (tmp_path / "config.toml").write_text("[train]\nepochs = 3\n")
    with pytest.raises(FullconvError, match="does not say where the data set lies") as caught:
        train(resume=tmp_path)
    assert caught.value.hint == '[data]\nroot = "DATA"'
    with pytest.raises(FullconvError, match="no configuration at"):
        train(resume=tmp_path / "nowhere")
    with pytest.raises(FullconvError, match="takes its data, folder and options from its own"):
        train(resume=tmp_path, epochs=4)


def test_a_module_of_ones_own(scenes, tmp_path):
    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 8, 3, stride=4, padding=1)
            self.b = nn.Conv2d(8, 16, 3, stride=2, padding=1)

        def forward(self, x):
            x = torch.relu(self.a(x))
            return [x, torch.relu(self.b(x))]

    run = train(scenes, module=Tiny(), out=tmp_path / "run", **{**SMALL, "epochs": 1})
    with pytest.raises(FullconvError, match="a model holds no code"):
        fc.load(run.model)
    predictor = fc.load(run.model, backbone=Tiny())
    image = next((scenes / "images/test").iterdir())
    assert predictor(image).mask.shape == (48, 64)


def test_early_stopping(scenes, tmp_path, monkeypatch):
    from fullconv.training.lightning_module import Training

    def perfect(self, batch, index):  # from the first epoch on: nothing can improve
        self.confusions[0].update(batch[1].clamp(max=7).long(), batch[1].clamp(max=7).long())
        return {"found": [batch[1]]}

    monkeypatch.setattr(Training, "validation_step", perfect)
    run = train(scenes, out=tmp_path / "run", **{**SMALL, "epochs": 9, "patience": 2})
    assert len(rows_of(run)) == 3


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("schedule", ["poly", "onecycle"])
def test_optimizers_and_schedules_end_low(scenes, tmp_path, name, schedule):
    options = {**SMALL, "epochs": 1, "optimizer": name, "schedule": schedule}
    run = train(scenes, out=tmp_path / "run", class_weights="balanced", **options)
    row = rows_of(run)[0]
    assert float(row["rate"]) < 1e-4


def test_errors_keep_a_training_from_starting_unless_they_are_named(tmp_path, capsys):
    """A mask of another size and an unknown value: each rule by name, and no other."""
    root = drawn.write(tmp_path / "scenes", train=6, val=2, test=1, size=(48, 64))
    masks = sorted((root / "masks" / "train").iterdir())
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(masks[0])
    strange = np.array(Image.open(masks[1]))
    strange[:8, :8] = 77
    Image.fromarray(strange).save(masks[1])
    options = {**SMALL, "epochs": 1, "quiet": False}
    for rules, left in (("", "2 errors"), ("size", "1 error"), ("unknown-value", "1 error")):
        with pytest.raises(FullconvError, match=f"{left} in the data set"):
            train(root, out=tmp_path / "none", ignore_rules=rules, **options)
    assert not (tmp_path / "none").exists()
    capsys.readouterr()
    run = train(root, out=tmp_path / "run", ignore_rules="size,unknown-value", **options)
    said = capsys.readouterr().err
    assert "ignored: size: 1 mask differs" in said
    assert "5 train" in said
    assert "crop" not in said
    assert "class weights none: " in said
    assert "--scale LOW HIGH" in said
    assert 0 <= run.metrics["mean_iou"] <= 1
    assert 'ignore_rules = "size,unknown-value"' in (run.folder / "config.toml").read_text()


def test_the_voc_tree_needs_nothing_but_its_folder(shared, tmp_path):
    """Every fifth image of the real sample: trains and evaluates from the tree alone."""
    source, copy = shared / "data/voc2012_sample", tmp_path / "voc"
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (copy / part).mkdir(parents=True)
    for split, count in (("train", 8), ("val", 3)):
        stems = (source / f"ImageSets/Segmentation/{split}.txt").read_text().split()[:count]
        (copy / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(stems))
        for stem in stems:
            for part, suffix in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png")):
                (copy / part / f"{stem}{suffix}").symlink_to(source / part / f"{stem}{suffix}")
    run = train(copy, out=tmp_path / "run", **{**SMALL, "epochs": 1, "crop": (65, 65)})
    assert list(run.metrics["per_class_iou"])[:3] == ["background", "aeroplane", "bicycle"]
    result = fc.evaluate(run.model, copy, split="val").to_dict()
    assert result["confusion"] == run.metrics["confusion"]


def test_a_step_of_several_passes_is_that_of_all_their_images(scenes, tmp_path):
    """Whole images, one to a pass, seven passes to a step, the backbone as it is: each of the two
    steps of an epoch must be the one that is computed here from the mean gradient."""
    options = {"frozen": True, "optimizer": "sgd", "momentum": 0.5, "rate": 0.5, "flip": False}
    options |= {"weight_decay": 0.01, "bias_rate": 2.0, "schedule": "fixed", "color": 0.0}
    options |= {"crop": (0, 0), "batch": 1, "accumulate": 7, "epochs": 1}
    earlier = train(scenes, out=tmp_path / "a", **{**SMALL, "epochs": 1, "stride": 32})
    run = train(
        scenes,
        out=tmp_path / "b",
        **{**SMALL, "stride": 32, "start": str(earlier.folder), **options},
    )
    model = load_model(earlier.model)
    score = model.network.score["stride32"]
    samples = SegmentationDataset(check(scenes).dataset.splits["train"], model.labels)
    order = [i for [(i, _)] in ResumableBatchSampler(14, 1, seed=0)]
    moved = {}
    for step in (order[:7], order[7:]):
        score.zero_grad()
        for index in step:
            image, target = samples[index, 0]
            full = model.network(model.normalize(image[None])).full()
            loss = torch.nn.functional.cross_entropy(full, target[None].long(), ignore_index=255)
            (loss / 7).backward()
        with torch.no_grad():
            for name, p in score.named_parameters():
                gradient = p.grad + (0.01 * p if name == "weight" else 0)
                moved[name] = 0.5 * moved.get(name, 0) + gradient
                p -= (1.0 if name == "bias" else 0.5) * moved[name]
    trained = load_model(run.model).network
    for name, p in score.named_parameters():
        found = dict(trained.score["stride32"].named_parameters())[name]
        torch.testing.assert_close(found, p, rtol=1e-4, atol=1e-6)
    before = load_model(earlier.model).network.backbone.state_dict()
    assert all(torch.equal(v, before[k]) for k, v in trained.backbone.state_dict().items())


@pytest.fixture(scope="module")
def both_kinds(tmp_path_factory):
    """Cards with materials, order and depth."""
    root = tmp_path_factory.mktemp("cards") / "cards"
    return cards.write(root, sized=True, train=8, val=3)


@pytest.fixture(scope="module", params=["early", "late"])
def fused(request, both_kinds, tmp_path_factory):
    out = tmp_path_factory.mktemp("fused") / "run"
    options = {"heads": "order", "extra_inputs": "depth", "fusion": request.param}
    return train(both_kinds, out=out, **{**SMALL, "epochs": 2, **options})


def test_heads_and_inputs_train_and_come_back(fused, both_kinds):
    assert set(fused.metrics["heads"]) == {"order"}
    assert fused.metrics["heads"]["order"]["per_class_iou"].keys() == {"wall", "far", "near"}
    model = fc.load(fused.model, device="cpu")
    assert model.model.heads["order"].names == cards.ORDER.names
    found = fc.evaluate(model, both_kinds, split="val").to_dict()
    assert found["confusion"] == fused.metrics["confusion"]
    assert found["heads"] == fused.metrics["heads"]
    assert found["protocol"] == fused.metrics["protocol"]
    assert fc.load(fused.model, device="cpu").model.config() == model.model.config()


def test_each_head_is_scored_against_its_own_masks(fused, both_kinds):
    """By the definition, from the predictions of single images."""
    model = fc.load(fused.model, device="cpu", precision="float32")  # as it was scored
    counts = np.zeros((3, 3), int)
    for k in range(3):
        _, _, order, _ = cards.scene(100_000 + k, sized=True)
        name = f"val/card_{k:03}.png"
        found = model(both_kinds / "images" / name, extra_inputs=[both_kinds / "depth" / name])
        np.add.at(counts, (order, found.heads["order"].mask), 1)
    assert counts.tolist() == fused.metrics["heads"]["order"]["confusion"]


def test_the_depth_is_seen(fused, both_kinds):
    model = fc.load(fused.model, device="cpu")
    image, _, _, depth = cards.scene(3, sized=True)
    near, far = (model.engine.scores(scene_of(image, z)).values for z in (depth, depth * 3))
    assert not torch.equal(near, far)
    shifted = model(image, extra_inputs=[depth.astype(np.float32)])
    assert (shifted.mask == model(image, extra_inputs=[depth]).mask).all()


def scene_of(image, depth):
    colors = torch.from_numpy(image).permute(2, 0, 1).float()
    return torch.cat([colors, torch.from_numpy(depth.astype(np.float32))[None]])[None]


def test_resumed_with_heads_and_inputs(fused):
    assert train(resume=fused.folder, quiet=True).metrics == fused.metrics


def test_the_depth_must_be_there(fused, both_kinds, tmp_path):
    model = fc.load(fused.model, device="cpu")
    photo = both_kinds / "images/val/card_000.png"
    with pytest.raises(FullconvError, match="takes depth beside each image; nothing was") as no:
        model(photo)
    assert no.value.hint.startswith("--extra-inputs depth ")
    with pytest.raises(FullconvError, match="96 pixels but the image is 128 x 96"):
        model(photo, extra_inputs=[np.zeros((96, 96), np.uint16)])
    with pytest.raises(FullconvError, match="have no names to find their inputs by"):
        model([np.zeros((9, 9, 3), np.uint8)], extra_inputs=[tmp_path])
    bare = shutil.copytree(both_kinds, tmp_path / "bare")
    shutil.rmtree(bare / "depth")
    with pytest.raises(FullconvError, match="no folder depth in"):
        fc.evaluate(model, bare, split="val")
    shutil.rmtree(bare / "order")
    shutil.copytree(both_kinds / "depth", bare / "d")
    found = fc.evaluate(model, bare, split="val", inputs="d")  # what has no masks is not scored
    assert found.heads == {}
    assert found.left_out == ("order",)
    assert found.to_dict()["confusion"] == fused.metrics["confusion"]
    with pytest.raises(FullconvError, match="2 folders of further inputs named; the model has"):
        fc.evaluate(model, bare, split="val", inputs="d,e")
    with pytest.raises(FullconvError, match="the model takes depth beside images, in which"):
        probe(model, both_kinds)


def test_a_model_of_images_is_where_depth_begins(both_kinds, tmp_path):
    plain = train(both_kinds, out=tmp_path / "plain", **{**SMALL, "epochs": 1})
    report = check(both_kinds)
    dataset = with_channel_statistics(with_extra_inputs(report.dataset, ["depth"]))
    settings = Settings.from_dict({**SETTLED, "start": str(plain.model), "fusion": "late"})
    late = training.fresh_model(
        replace(report, dataset=dataset), replace(settings, extra_inputs="depth"), None, quiet=True
    )
    earlier = load_model(plain.model)
    image, _, _, depth = cards.scene(0, sized=True)
    batch = scene_of(image, depth)
    scores = late.network.eval()(late.normalize(batch)).values
    grey = (late.normalize(batch)[:, 3:]).expand(-1, 3, -1, -1)
    wanted = (
        earlier.network(earlier.normalize(batch[:, :3])).values + earlier.network(grey).values
    ) / 2
    torch.testing.assert_close(scores, wanted, atol=1e-5, rtol=1e-5)


SETTLED = {key: value for key, value in SMALL.items() if key != "quiet"}


def test_a_model_of_more_than_images_starts_its_like_only(fused, both_kinds, tmp_path):
    fusion = load_model(fused.model).fusion
    options = {"heads": "order", "start": str(fused.model), "epochs": 1}
    with pytest.raises(FullconvError, match=f"takes depth beside images, by {fusion}") as caught:
        train(both_kinds, out=tmp_path / "no", **{**SMALL, **options})
    assert caught.value.hint == f"--extra-inputs depth --fusion {fusion}"
    options |= {"extra_inputs": "depth", "fusion": fusion, "stride": 4}
    train(both_kinds, out=tmp_path / "yes", **{**SMALL, **options})
    facts = load_model(tmp_path / "yes").training
    assert facts["unchanged_at_start"] > 0.95  # finer strides are padded less, at the border


@pytest.mark.parametrize("kept", [{"placement": "half_pixel"}, {"border": "zeros"}])
def test_where_the_cells_sit_is_kept_from_the_start(kept, both_kinds, tmp_path):
    torch.manual_seed(0)
    network = fc.FCN("resnet10t", len(cards.MATERIALS), stride=16, **kept).eval()
    torch.nn.init.normal_(network.score["stride16"].weight)
    earlier = Model(network, cards.MATERIALS, network.backbone.card)
    start = save_model(earlier, tmp_path / "model")
    settings = Settings.from_dict({**SETTLED, "stride": 16, "start": str(start)})
    fresh = training.fresh_model(check(both_kinds), settings, None, quiet=True)
    images = torch.randn(1, 3, 50, 70)
    with torch.no_grad():
        found, wanted = (net.eval()(images).full() for net in (fresh.network, network))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
