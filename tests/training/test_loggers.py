"""What TensorBoard and Weights & Biases are told, read back from their own files."""

import csv
import importlib.util
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.data.synthetic.scenes import LABELS
from fullconv.training.callbacks import Checkpoints
from fullconv.training.train import train

# Of the packages themselves, as they are imported.
LOGGED = {"epochs": 2, "log_images_every": 1}
QUIET = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def log_of(folder):
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def read_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    return events.Reload()


@QUIET
def test_tensorboard_receives_the_log_and_the_images(fit):
    pytest.importorskip("tensorboard")
    run = fit(logger="tensorboard", **LOGGED)
    events = read_tensorboard(run.folder)
    rows = log_of(run.folder)
    for name in ("mean_iou", "pixel_accuracy"):
        values = [(event.step, round(event.value, 5)) for event in events.Scalars(name)]
        expected = [(int(row["step"]), float(row[name])) for row in rows]
        assert values == [(step, pytest.approx(value, abs=2e-5)) for step, value in expected]
    losses = [event.value for event in events.Scalars("loss")]
    assert losses == pytest.approx([float(row["loss"]) for row in rows], abs=1e-4)
    classes = {name for name in events.Tags()["scalars"] if name.startswith("iou/")}
    assert classes <= {f"iou/{name}" for name in LABELS.names}
    files = {"images/batches": ["batches"], "images/validation": ["epoch_0001", "epoch_0002"]}
    for name, stems in files.items():
        for event, stem in zip(events.Images(name), stems, strict=True):
            logged = pixels(io.BytesIO(event.encoded_image_string))
            assert np.array_equal(logged, pixels(run.folder / f"images/{stem}.png"))
    options = (run.folder / "tensorboard/hparams.yaml").read_text()
    assert "backbone: test_resnet" in options
    assert f"data_fingerprint: {run.metrics['protocol']['data_fingerprint']}" in options


@QUIET
def test_a_resumed_run_continues_its_log(fit, monkeypatch, tmp_path):
    pytest.importorskip("tensorboard")
    real = Checkpoints.on_train_epoch_end

    def interrupt(self, trainer, module):
        self.interrupted = trainer.current_epoch == 0
        real(self, trainer, module)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_epoch_end", interrupt)
        with pytest.raises(FullconvError, match="stopped in epoch 1 of 2"):
            fit(logger="tensorboard", **LOGGED)
    run = train(resume=tmp_path / "run", quiet=True)
    events = read_tensorboard(run.folder)
    steps = [int(row["step"]) for row in log_of(run.folder)]
    assert [event.step for event in events.Scalars("mean_iou")] == steps == [3, 6]


def records(path):
    """Read a .wandb file: blocks of 32 KiB with whole records or parts of them, each behind a
    checksum, its length and its kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, whole, part = path.read_bytes(), 7, [], b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        part += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            whole.append(Record.FromString(part))
            part = b""
    return whole


@pytest.fixture
def fresh_wandb(monkeypatch, tmp_path):
    """Make wandb read its settings again, which it does once in a process."""
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    wandb.teardown()
    yield
    wandb.teardown()


@QUIET
@pytest.mark.usefixtures("fresh_wandb")
def test_weights_and_biases_stores_the_same_offline(fit, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = fit(logger="wandb", **LOGGED)
    (file,) = (run.folder / "wandb").glob("offline-run-*/*.wandb")
    assert file.stem == f"run-{(run.folder / 'wandb/id.txt').read_text()}"
    values, about = {}, {}
    for record in records(file):
        for item in record.history.item:
            key = item.key or "/".join(item.nested_key)
            values.setdefault(key, []).append(json.loads(item.value_json))
        for item in (*record.config.update, *record.run.config.update):
            about[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    rows = log_of(run.folder)
    for name in ("mean_iou", "pixel_accuracy"):
        assert values[name] == pytest.approx([float(row[name]) for row in rows], abs=2e-5)
    assert values["loss"] == pytest.approx([float(row["loss"]) for row in rows], abs=1e-4)
    assert about["backbone"] == "test_resnet"
    shown = sorted((file.parent / "files/media/images/images").glob("*.png"))
    names = {re.sub(r"_\d+_.*", "", path.name) for path in shown}
    assert names == {"batches", "validation"}
    kept = [pixels(path) for path in (run.folder / "images").iterdir()]
    for path in shown:
        assert any(np.array_equal(pixels(path), image) for image in kept)


@QUIET
@pytest.mark.usefixtures("fresh_wandb")
def test_without_an_account_nothing_is_trained(fit, tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(FullconvError, match="Weights & Biases could not start: ") as caught:
        fit(logger="wandb", **LOGGED)
    assert caught.value.hint.startswith("wandb login   # or WANDB_MODE=offline")
    assert not (tmp_path / "run/log.csv").exists()


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_reported_first(name, tmp_path, monkeypatch):
    real = importlib.util.find_spec

    def find(wanted, package=None):
        return None if wanted == name else real(wanted, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(FullconvError) as caught:
        train(tmp_path / "there is no data", logger=name)
    assert f"--logger {name}: " in caught.value.message
    assert f"the package {name}, which is not installed" in caught.value.message
    assert caught.value.hint == f"pip install {name}"
