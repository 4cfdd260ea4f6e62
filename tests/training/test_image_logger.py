"""Images of a training: which are chosen, that they are what the network got, and that they cost
a training nothing that it would miss."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cards
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.check.check import check
from fullconv.data.layouts.pairing import Pair
from fullconv.data.synthetic import scenes as drawn
from fullconv.training import image_sheets as album
from fullconv.training.auto_settings import inverse_sqrt_frequency
from fullconv.training.callbacks import Checkpoints
from fullconv.training.image_logger import choose
from fullconv.training.lightning_module import Training
from fullconv.training.train import train

SMALL: dict[str, Any] = {
    "backbone": "test_resnet",
    "pretrained": False,
    "stride": 32,
    "epochs": 3,
    "batch": 4,
    "crop": (33, 65),
    "workers": 0,
    "precision": "float32",
    "accelerator": "cpu",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    return drawn.write(root, train=9, val=8, test=2, size=(48, 64))


def report_of(counts: np.ndarray) -> Any:
    """What `check` says of a split: (N, K) pixels of each class in each mask."""
    pairs = tuple(Pair(f"{n}", Path(f"{n}.jpg"), Path(f"{n}.png")) for n in range(len(counts)))
    labels = Labels(tuple(f"class {k}" for k in range(counts.shape[1])))
    shown = {
        pair.mask: {k: int(c) for k, c in enumerate(row) if c}
        for pair, row in zip(pairs, counts, strict=True)
    }
    return SimpleNamespace(
        dataset=SimpleNamespace(splits={"val": pairs}, labels=labels), shown=shown
    )


@given(st.data(), st.integers(1, 7), st.integers(1, 6), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=80)
def test_what_is_chosen_shows_nearly_as_much_as_any_choice_could(
    given_data: st.DataObject, images: int, classes: int, count: int, seed: int
) -> None:
    """Greedy choices reach 1 - 1/e of the best one (Nemhauser, Wolsey & Fisher 1978): here against
    all choices."""
    values = st.lists(st.sampled_from((0, 1, 40, 900)), min_size=classes, max_size=classes)
    rows = given_data.draw(st.lists(values, min_size=images, max_size=images))
    counts = np.array(rows, float)
    weights = np.array(inverse_sqrt_frequency(counts.sum(axis=0).astype(int).tolist()))

    def worth(chosen: Any) -> float:
        total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        reach = np.minimum(counts / total / 0.005, 1)
        return float(reach[list(chosen)].max(axis=0) @ weights)

    found = choose([report_of(counts)], "val", seed=seed, count=count)
    assert found == sorted(set(found))
    assert len(found) == min(count, images)
    best = max(worth(one) for one in itertools.combinations(range(images), len(found)))
    assert worth(found) >= (1 - 1 / np.e) * best - 1e-9


def test_the_only_image_of_a_rare_class_is_among_them() -> None:
    counts = np.zeros((200, 5))
    counts[:, 0], counts[:, 1] = 9000, 900
    counts[17, 2] = counts[120, 3] = counts[121, 4] = 60
    found = choose([report_of(counts)], "val", seed=3)
    assert {17, 120, 121} < set(found)
    assert len(found) == 6
    assert found == choose([report_of(counts)], "val", seed=3)
    assert found != choose([report_of(counts)], "val", seed=4)  # the others are any


def test_of_several_processes_only_images_that_the_first_one_reads() -> None:
    counts = np.random.default_rng(0).integers(0, 50, (31, 4)).astype(float)
    assert {n % 3 for n in choose([report_of(counts)], "val", seed=0, step=3)} == {0}


def test_what_check_counts_is_what_stands_in_the_masks(data: Path) -> None:
    report = check(data)
    for pair in report.dataset.splits["val"]:
        values = np.asarray(Image.open(pair.mask))
        own = {k: int((values == k).sum()) for k in range(len(drawn.LABELS)) if (values == k).any()}
        assert report.shown[pair.mask] == own


def names_in(folder: Path) -> list[str]:
    """Of the sheets; the report's images lie there, too."""
    names = sorted(path.name for path in (folder / "images").iterdir())
    return [name for name in names if not name.startswith("report")]


def test_the_sheet_of_batches_is_of_what_the_network_gets(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[tuple[torch.Tensor, torch.Tensor]] = []
    drawn_crops: list[album.Crop] = []
    step, sheet = Training.training_step, album.batches_sheet

    def keep(self: Training, batch: Any, index: int) -> Any:
        trained.append(tuple(part.clone() for part in batch))  # type: ignore[arg-type]
        return step(self, batch, index)

    def look(crops: Any, *rest: Any) -> Image.Image:
        assert not trained  # before the first step
        drawn_crops.extend(crops)
        return sheet(crops, *rest)

    monkeypatch.setattr(Training, "training_step", keep)
    monkeypatch.setattr(album, "batches_sheet", look)
    train(data, out=tmp_path / "run", **{**SMALL, "epochs": 1, "quiet": False})
    assert len(drawn_crops) == 8  # two batches of four; 9 images
    images, targets = (torch.cat([batch[k] for batch in trained]) for k in (0, 1))
    for crop, image, target in zip(drawn_crops, images, targets, strict=True):
        assert np.array_equal(crop.seen[0], image.permute(1, 2, 0).numpy())
        assert np.array_equal(crop.targets[0], target.numpy())
        assert (target.numpy()[crop.outside] == 255).all()
    assert f"images: {tmp_path / 'run/images/batches.png'} ..." in capsys.readouterr().err


def test_the_same_images_every_few_epochs_and_after_a_stop(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**SMALL, "epochs": 5, "images_every": 2, "quiet": True}
    whole = train(data, out=tmp_path / "whole", **options).folder
    epochs = [f"epoch_000{n}.png" for n in (1, 2, 4, 5)]
    assert names_in(whole) == ["batches.png", *epochs]
    real = Checkpoints.on_train_epoch_end

    def interrupt(self: Checkpoints, trainer: Any, module: Any) -> None:
        self.interrupted = trainer.current_epoch == 2
        real(self, trainer, module)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_epoch_end", interrupt)
        with pytest.raises(FullconvError, match="stopped in epoch 3 of 5"):
            train(data, out=tmp_path / "stopped", **options)
    assert names_in(tmp_path / "stopped") == ["batches.png", *epochs[:2]]
    before = (tmp_path / "stopped/images/batches.png").stat().st_mtime_ns
    train(resume=tmp_path / "stopped", quiet=True)
    assert (tmp_path / "stopped/images/batches.png").stat().st_mtime_ns == before
    for name in ("batches.png", *epochs):
        one, other = (folder / "images" / name for folder in (whole, tmp_path / "stopped"))
        assert one.read_bytes() == other.read_bytes(), name


def test_the_labels_drawn_are_those_of_the_model(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fullconv as fc

    sheets: list[list[album.Labelled]] = []
    real = album.epoch_sheet

    def look(images: Any, *rest: Any) -> Image.Image:
        sheets.append(list(images))
        return real(images, *rest)

    monkeypatch.setattr(album, "epoch_sheet", look)
    run = train(data, out=tmp_path / "run", **{**SMALL, "epochs": 1, "quiet": True})
    (images,) = sheets
    model = fc.load(run.model, device="cpu")
    splits = {pair.name: pair for pair in check(data).dataset.splits["val"]}
    assert len(images) == 6
    for one in images:
        pair = splits[one.name]
        assert np.array_equal(one.photo, np.asarray(Image.open(pair.image)))
        assert np.array_equal(one.truths[0], np.asarray(Image.open(pair.mask)))
        assert (one.found[0] != model(pair.image).mask).mean() < 0.001


def test_none_are_drawn_where_none_are_wanted(data: Path, tmp_path: Path) -> None:
    options = {**SMALL, "epochs": 1, "images_every": 0, "quiet": True}
    assert names_in(train(data, out=tmp_path / "run", **options).folder) == []


def test_a_image_that_cannot_be_written_ends_no_training(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/images").write_text("not a folder")
    run = train(data, out=tmp_path / "run", **{**SMALL, "epochs": 2})
    assert run.metrics["mean_iou"] is not None
    said = capsys.readouterr().err
    assert said.count(f"note: no images in {tmp_path / 'run/images'}: ") == 1
    assert said.count(f"note: no report in {tmp_path / 'run'}: ") == 1
    assert "images: " not in said


def test_heads_and_inputs_are_drawn_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    real = album.batches_sheet

    def look(crops: Any, tables: Any, inputs: Any, *rest: Any) -> Image.Image:
        seen.append((len(crops[0].seen), len(crops[0].targets), [t[0] for t in tables], inputs))
        return real(crops, tables, inputs, *rest)

    monkeypatch.setattr(album, "batches_sheet", look)
    root = cards.write(tmp_path / "cards", sized=True, train=4, val=2)
    further = {
        "heads": "order",
        "extra_inputs": "depth",
        "epochs": 1,
        "quiet": True,
        "crop": (65, 65),
    }
    run = train(root, out=tmp_path / "run", **{**SMALL, **further})
    ((images, maps, names, inputs),) = seen
    assert (images, maps, names) == (2, 2, ["masks", "order"])
    assert [one.name for one in inputs] == ["depth"]
    assert names_in(run.folder) == ["batches.png", "epoch_0001.png"]


def test_stages_have_images_each(data: Path, tmp_path: Path) -> None:
    options = {**SMALL, "stride": 16, "staged": True, "epochs": 1, "quiet": True}
    run = train(data, out=tmp_path / "run", **options)
    assert names_in(run.folder) == names_in(run.folder / "32s") == ["batches.png", "epoch_0001.png"]
