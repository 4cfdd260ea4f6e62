"""Images of a training run: which are chosen, and that they are those of the network."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import fullconv as fc
from fullconv.core.labels import Labels
from fullconv.data.check.check import check
from fullconv.data.layouts.file_names import Pair
from fullconv.data.synthetic.scenes import LABELS
from fullconv.training.auto_settings import inverse_sqrt_frequency
from fullconv.training.image_logger import choose_images


def report_of(counts):
    """Return the report of a split with (N, K) pixels of each class in each mask."""
    pairs = tuple(Pair(f"{n}", Path(f"{n}.jpg"), Path(f"{n}.png")) for n in range(len(counts)))
    labels = Labels(tuple(f"class {k}" for k in range(counts.shape[1])))
    pixels = {pair.mask: {} for pair in pairs}
    for n, k in np.argwhere(counts).tolist():
        pixels[pairs[n].mask][k] = int(counts[n, k])
    dataset = SimpleNamespace(splits={"val": pairs}, labels=labels)
    return SimpleNamespace(dataset=dataset, mask_class_pixels=pixels)


def choose(counts, **options):
    return choose_images([report_of(counts)], "val", **options)


@given(st.data(), st.integers(1, 7), st.integers(1, 6), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=80)
def test_a_choice_shows_nearly_as_much_as_the_best_one(given_data, images, classes, count, seed):
    """Greedy choices reach 1 - 1/e of the best one (Nemhauser, Wolsey & Fisher 1978)."""
    values = st.lists(st.sampled_from((0, 1, 40, 900)), min_size=classes, max_size=classes)
    rows = given_data.draw(st.lists(values, min_size=images, max_size=images))
    counts = np.array(rows, float)
    weights = np.array(inverse_sqrt_frequency(counts.sum(axis=0).astype(int).tolist()))

    def worth(chosen):
        total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        reach = np.minimum(counts / total / 0.005, 1)
        return float(reach[list(chosen)].max(axis=0) @ weights)

    chosen = choose(counts, seed=seed, count=count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, images)
    best = max(worth(choice) for choice in itertools.combinations(range(images), len(chosen)))
    assert worth(chosen) >= (1 - 1 / np.e) * best - 1e-9


def test_the_only_image_of_a_rare_class_is_among_them():
    counts = np.zeros((200, 5))
    counts[:, 0], counts[:, 1] = 9000, 900
    counts[17, 2] = counts[120, 3] = counts[121, 4] = 60
    chosen = choose(counts, seed=3)
    assert {17, 120, 121} < set(chosen)
    assert len(chosen) == 6
    assert chosen == choose(counts, seed=3)
    assert chosen != choose(counts, seed=4)  # the others are any
    assert {n % 3 for n in choose(counts, seed=0, stride=3)} == {0}


def test_the_counts_of_check_are_those_of_the_masks(data):
    report = check(data)
    for pair in report.dataset.splits["val"]:
        values = np.asarray(Image.open(pair.mask))
        own = {k: int((values == k).sum()) for k in range(len(LABELS)) if (values == k).any()}
        assert report.mask_class_pixels[pair.mask] == own


def test_the_first_batches_are_those_that_the_network_gets(trained):
    assert len(trained.crops) == 12  # three batches of four
    images, targets = (torch.cat([batch[k] for batch in trained.batches]) for k in (0, 1))
    for crop, image, target in zip(trained.crops, images, targets, strict=False):
        assert np.array_equal(crop.inputs[0], image.permute(1, 2, 0).numpy())
        assert np.array_equal(crop.targets[0], target.numpy())
        assert (target.numpy()[crop.outside] == 255).all()
    assert f"images: {trained.run.folder / 'images/batches.png'} ..." in trained.stderr


def test_sheets_show_the_predictions_of_the_model(trained, data):
    """A sheet after the first epoch, every second one, and the last."""
    images = trained.run.folder / "images"
    names = {f"epoch_000{n}.png" for n in (1, 2, 3)}
    assert {path.name for path in images.glob("*.png")} == {"batches.png", *names}
    pairs = {pair.name: pair for pair in check(data).dataset.splits["val"]}
    best = trained.sheets[trained.run.metrics["epoch"] - 1]
    model = fc.load(trained.run.model, device="cpu", precision="float32")
    assert len(best) == 3
    for image in best:
        pair = pairs[image.name]
        assert np.array_equal(image.photo, np.asarray(Image.open(pair.image)))
        assert np.array_equal(image.targets[0], np.asarray(Image.open(pair.mask)))
        assert (image.predictions[0] != model(pair.image).mask).mean() < 0.001


def test_no_sheets_if_none_are_requested(fit):
    run = fit(epochs=1, log_images_every=0)
    assert list((run.folder / "images").glob("*.png")) == []


def test_images_that_cannot_be_written_do_not_stop_a_run(fit, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "images").write_text("not a folder")
    run = fit(epochs=2, quiet=False)
    assert run.metrics["mean_iou"] is not None
    stderr = capsys.readouterr().err
    assert stderr.count(f"note: no images in {folder / 'images'}: ") == 1
    assert stderr.count(f"note: no report in {folder}: ") == 1
    assert "batches.png" not in stderr
