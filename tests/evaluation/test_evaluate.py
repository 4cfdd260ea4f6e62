"""The metrics of a split against their definition; classes by name; the protocol card."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from evaluated import by_definition, check_metrics
from lively import lively
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.check.check import check
from fullconv.data.check.training_overlap import training_split_fingerprint
from fullconv.data.layouts.dataset import load_dataset
from fullconv.data.synthetic.scenes import LABELS
from fullconv.evaluation.evaluate import class_mapping, evaluate
from fullconv.inference.options import PredictOptions
from fullconv.inference.predictor import Predictor, load
from fullconv.models.model import Model

MakeModel = Callable[..., Model]
K = len(LABELS)


def predict_by_color(image: np.ndarray) -> np.ndarray:
    """Predict a pixel by its color; never the last class."""
    return (image.astype(int).sum(axis=2) // 64 % (K - 1)).astype(np.uint8)


@pytest.fixture
def predictor(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """A model that predicts by color."""
    monkeypatch.setattr(
        Predictor,
        "predict_with_confidence",
        lambda self, image, extra_inputs: [(predict_by_color(image), None)],
    )
    return load(model_folder, device="cpu")


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def pairs_of(root: Path, split: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ground truth and prediction by color of each image."""
    return [
        (read(root / "masks" / split / f"{path.stem}.png"), predict_by_color(read(path)))
        for path in sorted((root / "images" / split).iterdir())
    ]


def copy_scenes(
    scenes: Path, to: Path, names: tuple[str, ...] = LABELS.names, ids: np.ndarray | None = None
) -> Path:
    """Copy the scenes with another class table; `ids` gives the new value of each old id."""
    shutil.copytree(scenes, to)
    for mask in to.glob("masks/*/*.png"):
        if ids is not None:
            values = read(mask)
            values = np.where(values == 255, 255, ids[np.minimum(values, len(ids) - 1)])
            Image.fromarray(values.astype(np.uint8)).save(mask)
    (to / "dataset.toml").write_text(f"classes = {json.dumps(list(names))}\n")
    return to


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_metrics_are_those_of_the_definition(
    predictor: Predictor, scenes: Path, split: str
) -> None:
    pairs = pairs_of(scenes, split)
    result = evaluate(predictor, scenes, split=split)
    check_metrics(result.metrics, pairs)
    assert result.metrics.confusion.sum() == sum((truth < K).sum() for truth, _ in pairs)
    assert result.protocol["ignored_pixels"] == sum((truth >= K).sum() for truth, _ in pairs)
    assert result.protocol["images"] == len(pairs)
    counts = result.counts
    assert counts is not None
    assert counts.protocol == result.protocol
    assert counts.data == str(scenes.resolve())
    assert (counts.head().confusion() == result.metrics.confusion).all()
    for k, (name, (truth, prediction)) in enumerate(zip(counts.images, pairs, strict=True)):
        assert name == f"street_{k:04}"
        expected = np.zeros((K, K), np.int64)
        np.add.at(expected, (truth[truth < K], prediction[truth < K]), 1)
        assert (counts.head().confusion(k) == expected).all()


def test_a_network_on_voc_images(shared: Path, tmp_path: Path, make_model: MakeModel) -> None:
    source, root = shared / "data" / "voc2012_sample", tmp_path / "voc"
    lists = Path("ImageSets") / "Segmentation"
    for folder in (lists, Path("JPEGImages"), Path("SegmentationClass")):
        (root / folder).mkdir(parents=True)
    for split, count in (("train", 1), ("val", 3)):
        names = (source / lists / f"{split}.txt").read_text().split()[:count]
        (root / lists / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            for file in (f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png"):
                shutil.copy(source / file, root / file)
    model = Predictor(make_model(load_dataset(root).labels.names), device="cpu")
    result = evaluate(model, root, split="val")
    pairs = [
        (read(root / f"SegmentationClass/{name}.png"), model(root / f"JPEGImages/{name}.jpg").mask)
        for name in names
    ]
    assert all(truth.shape == prediction.shape for truth, prediction in pairs)  # original size
    check_metrics(result.metrics, pairs)
    assert result.protocol["ignored_pixels"] == sum((t == 255).sum() for t, _ in pairs) > 0
    assert len(np.unique(pairs[0][1])) > 1


def test_classes_are_matched_by_name(predictor: Predictor, scenes: Path, tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(K)
    names = tuple(LABELS.names[k] for k in order)
    shuffled = copy_scenes(scenes, tmp_path / "shuffled", names, np.argsort(order))
    result, expected = evaluate(predictor, shuffled), evaluate(predictor, scenes)
    assert check(shuffled).dataset.labels.names == names != LABELS.names
    assert (result.metrics.confusion == expected.metrics.confusion).all()
    assert result.protocol["classes"] == list(LABELS.names)
    assert result.protocol["data_fingerprint"] != expected.protocol["data_fingerprint"]


def test_pixels_predicted_as_a_class_that_the_dataset_lacks_are_wrong(
    predictor: Predictor, scenes: Path, tmp_path: Path
) -> None:
    names = tuple(name for name in LABELS.names if name not in ("car", "pole"))
    values = np.array([0, 1, 2, 3, 4, 255, 5, 5])  # a car is ignored, a pole is a person
    few = copy_scenes(scenes, tmp_path / "few", names, values)
    ids = np.array([0, 1, 2, 3, 4, 255, 6, 6])
    pairs = [
        (np.where(truth < K, ids[np.minimum(truth, K - 1)], 255), prediction)
        for truth, prediction in pairs_of(scenes, "test")
    ]
    check_metrics(evaluate(predictor, few).metrics, pairs)


def paste(root: Path, hint: str, **classes: str) -> None:
    """Do what a hint says: the lines below its sentence become dataset.toml; `classes` replace
    ignore, by the value at the start of a line."""
    sentence, _, lines = hint.partition(":\n")
    assert str(root / "dataset.toml") in sentence
    for value, name in classes.items():
        lines = re.sub(f'(?m)^{value} = "ignore"', f'{value} = "{name}"', lines)
    (root / "dataset.toml").write_text(lines)


def test_an_unknown_class_is_an_error_whose_lines_fix_it(
    predictor: Predictor, scenes: Path, tmp_path: Path
) -> None:
    names = tuple({"car": "vehicle", "tree": "vegetation"}.get(n, n) for n in LABELS.names)
    root = copy_scenes(scenes, tmp_path / "data", names)
    with pytest.raises(FullconvError) as caught:
        evaluate(predictor, root)
    assert caught.value.message.startswith(
        f"the model does not know vegetation, vehicle, which test of {root} shows; it has sky, "
    )
    hint = caught.value.hint
    assert '4 = "ignore"   # vegetation' in hint.splitlines()
    assert "fullconv train" not in hint
    paste(root, hint)
    result = evaluate(predictor, root)
    truths = [read(path) for path in (scenes / "masks/test").iterdir()]
    assert result.protocol["ignored_pixels"] == sum(np.isin(t, (4, 5, 255)).sum() for t in truths)
    assert np.isnan(result.metrics.class_accuracy[5])
    paste(root, hint, **{"4": "tree", "5": "car"})
    whole = evaluate(predictor, scenes)
    assert (evaluate(predictor, root).metrics.confusion == whole.metrics.confusion).all()


def test_a_dataset_of_other_classes_needs_another_model(
    predictor: Predictor, tmp_path: Path
) -> None:
    """The hint keeps colors, the class table and the names of the folders."""
    root = tmp_path / "my data"
    colors = np.array([(9, 9, 9), (128, 64, 128)], np.uint8)
    masks = colors[np.indices((40, 50))[1] // 25]
    for folder, pixels in (("photos", np.zeros_like(masks)), ("truth", masks)):
        (root / folder).mkdir(parents=True)
        for name in "abc":
            Image.fromarray(pixels).save(root / folder / f"{name}.png")
    (root / "dataset.toml").write_text(
        'images = "photos"\nmasks = "truth"\nclasses = ["wall", "door"]\n'
        '[map]\n"#090909" = "wall"\n"#804080" = "door"\n'
    )
    with pytest.raises(FullconvError) as caught:
        evaluate(predictor, root, split="val")
    first, _, rest = caught.value.hint.partition("\n")
    assert first == f"fullconv train '{root}'   # to train a model with these classes; or"
    assert '"#804080" = "ignore"   # door' in rest
    paste(root, rest, **{'"#804080"': "building"})
    result = evaluate(predictor, root, split="val")
    assert result.metrics.confusion.sum(axis=1).tolist() == [0, 40 * 25, *[0] * (K - 2)]


def test_the_lookup_from_dataset_to_model() -> None:
    """Classes without a pixel need not be known, and ignored pixels stay ignored."""

    def mapping(labels: Labels, pixels: list[int], model: Labels) -> np.ndarray:
        dataset = SimpleNamespace(labels=labels)
        report: Any = SimpleNamespace(dataset=dataset, class_pixels={"val": pixels})
        return class_mapping(report, model, "val")

    model = Labels(("sun", "sky"))
    lookup = mapping(Labels(("sky", "moon", "sun")), [5, 0, 1], model)
    assert lookup[[0, 2]].tolist() == [1, 0]
    assert (lookup[[1, 255]] >= len(model)).all()
    assert lookup.shape == (256,)
    names = tuple(map(str, range(300)))
    model = Labels(names[::-1], ignore_index=65535)
    lookup = mapping(Labels(names, ignore_index=65535), [1] * 300, model)
    assert lookup[:300].tolist() == list(range(300))[::-1]
    assert lookup[65535] >= 300


def keep(root: Path) -> None:
    pass


def remove_split(root: Path) -> None:
    for part in ("images", "masks"):
        shutil.rmtree(root / part / "test")


def remove_masks(root: Path) -> None:
    for mask in (root / "masks/test").iterdir():
        mask.unlink()


def spoil_mask(root: Path) -> None:
    Image.fromarray(np.full((48, 64), 77, np.uint8)).save(root / "masks/train/street_0000.png")


def add_boat(root: Path) -> None:
    (root / "dataset.toml").write_text(f"classes = {json.dumps([*LABELS.names, 'boat'])}\n")
    mask = root / "masks/test/street_0001.png"
    ids = read(mask).copy()
    ids[:2] = K
    Image.fromarray(ids).save(mask)


HEADS = "--heads names 2 folders, but the model needs 0 (-)"
INPUTS = "--extra-inputs names 1 folder, but the model needs 0 (-)"


@pytest.mark.parametrize(
    ("change", "options", "message", "hint"),
    [
        (remove_split, {}, "no images for the split 'test'; it has train, val", "--split val"),
        (remove_masks, {}, "", "val"),
        (spoil_mask, {}, "unknown-value", "fullconv check"),
        (add_boat, {}, "does not know boat, which test of", "dataset.toml"),
        (keep, {"heads": "a,b"}, HEADS, "run the command again without --heads"),
        (keep, {"extra_inputs": "depth"}, INPUTS, "run the command again without --extra-inputs"),
    ],
)
def test_what_cannot_be_evaluated(
    predictor: Predictor,
    scenes: Path,
    tmp_path: Path,
    change: Callable[[Path], None],
    options: dict[str, Any],
    message: str,
    hint: str,
) -> None:
    root = copy_scenes(scenes, tmp_path / "data")
    change(root)
    with pytest.raises(FullconvError) as caught:
        evaluate(predictor, root, **options)
    assert message in caught.value.message
    assert hint in caught.value.hint
    if change is add_boat:  # it must be known only in the split where it occurs
        assert evaluate(predictor, root, split="val").protocol["images"] == 2


def test_a_model_with_heads_needs_a_folder_for_each(scenes: Path) -> None:
    model = Predictor(lively(stride=8, heads={"far": LABELS}, head="things"), device="cpu")
    with pytest.raises(FullconvError, match=r"names 2 folders, but the model needs 1 \(far\)") as e:
        evaluate(model, scenes, heads="a,b")
    assert e.value.hint == "--heads far"
    assert evaluate(model, scenes, split="val").left_out == ("far",)


def test_the_protocol_card(predictor: Predictor, make_model: MakeModel, scenes: Path) -> None:
    report = check(scenes)
    card = evaluate(predictor, scenes, split="val").protocol
    assert card == {
        "data_fingerprint": report.fingerprint,
        "split": "val",
        "images": 2,
        "image_size": "original, 48 x 64",
        "void": "pixels marked ignore in the truth are left out",
        "ignored_pixels": report.ignored_pixels["val"],
        "classes": list(LABELS.names),
        "pretrained_on": "nothing",
        "trained_on": "not stated",
        "test_time_augmentation": "none",
        "metric": "one confusion matrix over all pixels of the split",
    }
    training = {"trained_on": training_split_fingerprint(report, None)}
    trained = Predictor(make_model(LABELS.names, training=training), device="cpu")
    card = evaluate(trained, scenes, split="val").protocol
    assert card["trained_on"] == "train (3 images)"


def test_paths_datasets_checked_reports_and_progress(model_folder: Path, scenes: Path) -> None:
    steps: list[tuple[int, int]] = []
    result = evaluate(model_folder, str(scenes), progress=lambda *step: steps.append(step))
    assert steps == [(1, 2), (2, 2)]
    assert json.loads(json.dumps(result.to_dict())) == result.to_dict()
    dataset = load_dataset(scenes)
    assert evaluate(load(model_folder), dataset).to_dict() == result.to_dict()
    checked = evaluate(load(model_folder), dataset, checked=[check(scenes)])
    assert checked.to_dict() == result.to_dict()


def test_test_time_augmentation(model_folder: Path, scenes: Path) -> None:
    predictor = load(model_folder, device="cpu", precision="float32")
    plain = evaluate(predictor, scenes)
    assert plain.protocol["test_time_augmentation"] == "none"
    averaged = evaluate(predictor, scenes, flip=True, scales=(0.5, 1.0))
    assert averaged.protocol["test_time_augmentation"] == "flip, scales 0.5 1"
    assert predictor.options == PredictOptions()  # a model that was passed stays unchanged
    predictor.set_options(PredictOptions(flip=True, scales=(0.5, 1.0)))
    pairs = [
        (read(scenes / "masks/test" / f"{path.stem}.png"), predictor(path).mask)
        for path in sorted((scenes / "images/test").iterdir())
    ]
    check_metrics(averaged.metrics, pairs)
    assert averaged.metrics.mean_iou != plain.metrics.mean_iou
    assert evaluate(predictor, scenes).to_dict() == averaged.to_dict()


def test_the_error_analysis_can_be_left_out(model_folder: Path, scenes: Path) -> None:
    predictor = load(model_folder, device="cpu", precision="float32")
    whole = evaluate(predictor, scenes)
    (quality,) = whole.qualities
    facts = whole.to_dict()
    assert {**whole.metrics.to_dict(), **quality.to_dict(), "protocol": whole.protocol} == facts
    truths = [read(path) for path in (scenes / "masks/test").iterdir()]
    assert sum(facts["calibration"]["pixels"]) == sum(int((t < K).sum()) for t in truths)
    for pair, iou in zip(load_dataset(scenes).splits["test"], quality.image_iou, strict=True):
        images = [(read(pair.mask), predictor.label_map(read(pair.image)))]
        assert iou == pytest.approx(by_definition(images, K)["mean_iou"])
    plain = evaluate(predictor, scenes, quality=False)
    assert plain.qualities == ()
    assert plain.to_dict() == {**whole.metrics.to_dict(), "protocol": whole.protocol}
