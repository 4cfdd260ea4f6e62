"""The numbers of a split against their definition; classes by name; what a number means."""

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
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.check.check import check
from fullconv.data.check.training_overlap import training_split_fingerprint
from fullconv.data.layouts.dataset import load_dataset
from fullconv.data.synthetic.scenes import LABELS
from fullconv.evaluation.evaluate import Evaluation, class_mapping, evaluate
from fullconv.inference.options import PredictOptions
from fullconv.inference.predictor import Predictor, load
from fullconv.models.model import Model

MakeModel = Callable[..., Model]
K = len(LABELS)


def stub(_: Predictor, image: np.ndarray) -> np.ndarray:
    """Calls a pixel by its colour; the last class is never called."""
    return (image.astype(int).sum(axis=2) // 64 % (K - 1)).astype(np.uint8)


@pytest.fixture
def predictor(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """A model of known behaviour."""
    monkeypatch.setattr(
        Predictor,
        "predict_with_confidence",
        lambda self, image, extra_inputs: [(stub(self, image), None)],
    )
    return load(model_folder, device="cpu")


def ids_in(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def by_definition(pairs: list[tuple[np.ndarray, np.ndarray]], count: int) -> dict[str, Any]:
    """From sets of pixels, class by class."""
    truth = np.concatenate([t.ravel() for t, _ in pairs])
    called = np.concatenate([p.ravel() for _, p in pairs]).astype(int)
    called, truth = called[truth < count], truth[truth < count]
    ious, accuracies, shares = [], [], []
    for k in range(count):
        both = int(((truth == k) & (called == k)).sum())
        either = int(((truth == k) | (called == k)).sum())
        own = int((truth == k).sum())
        ious.append(both / either if either else None)
        accuracies.append(both / own if own else None)
        shares.append(own / truth.size)
    known = [iou for iou in ious if iou is not None]
    right = [accuracy for accuracy in accuracies if accuracy is not None]
    return {
        "mean_iou": sum(known) / len(known),
        "pixel_accuracy": float((truth == called).mean()),
        "mean_accuracy": sum(right) / len(right),
        "frequency_weighted_iou": sum(s * i for s, i in zip(shares, ious, strict=True) if s),
        "per_class_iou": ious,
    }


def agree(result: Evaluation, expected: dict[str, Any]) -> None:
    found = result.to_dict()
    for key in ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"):
        assert found[key] == pytest.approx(expected[key]), key
    assert list(found["per_class_iou"].values()) == pytest.approx(expected["per_class_iou"])


def copied(scenes: Path, to: Path, names: tuple[str, ...], ids: np.ndarray | None = None) -> Path:
    """The scenes with another class table: `ids` gives the new value of each old id."""
    shutil.copytree(scenes / "images", to / "images")
    for mask in sorted((scenes / "masks").rglob("*.png")):
        target = to / mask.relative_to(scenes)
        target.parent.mkdir(parents=True, exist_ok=True)
        values = ids_in(mask)
        if ids is not None:
            values = np.where(values == 255, 255, ids[np.minimum(values, len(ids) - 1)])
        Image.fromarray(values.astype(np.uint8)).save(target)
    (to / "dataset.toml").write_text(f"classes = {json.dumps(list(names))}\n")
    return to


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_numbers_are_those_of_the_definition(
    predictor: Predictor, scenes: Path, split: str
) -> None:
    pairs = [
        (ids_in(scenes / "masks" / split / f"{path.stem}.png"), stub(predictor, image_in(path)))
        for path in sorted((scenes / "images" / split).iterdir())
    ]
    result = evaluate(predictor, scenes, split=split)
    agree(result, by_definition(pairs, K))
    assert result.metrics.confusion.sum() == sum((truth < K).sum() for truth, _ in pairs)
    assert result.protocol["ignored_pixels"] == sum((truth >= K).sum() for truth, _ in pairs)
    assert result.protocol["images"] == len(pairs)


def image_in(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_the_real_thing_on_real_images(shared: Path, tmp_path: Path, make_model: MakeModel) -> None:
    source, root = shared / "data" / "voc2012_sample", tmp_path / "voc"
    lists = Path("ImageSets") / "Segmentation"
    chosen = {
        split: (source / lists / f"{split}.txt").read_text().split()[:count]
        for split, count in (("train", 1), ("val", 3))
    }
    for folder in (lists, Path("JPEGImages"), Path("SegmentationClass")):
        (root / folder).mkdir(parents=True)
    for split, stems in chosen.items():
        (root / lists / f"{split}.txt").write_text("\n".join(stems))
        for name in (f"JPEGImages/{s}.jpg" for s in stems):
            shutil.copy(source / name, root / name)
        for name in (f"SegmentationClass/{s}.png" for s in stems):
            shutil.copy(source / name, root / name)
    predictor = Predictor(make_model(load_dataset(root).labels.names), device="cpu")
    result = evaluate(predictor, root, split="val")
    pairs = []
    for stem in chosen["val"]:
        called = predictor(root / "JPEGImages" / f"{stem}.jpg").mask
        truth = ids_in(root / "SegmentationClass" / f"{stem}.png")
        assert called.shape == truth.shape  # the original size
        pairs.append((truth, called))
    agree(result, by_definition(pairs, 21))
    assert result.protocol["images"] == 3
    assert result.protocol["ignored_pixels"] == sum((t == 255).sum() for t, _ in pairs) > 0
    assert len(np.unique(pairs[0][1])) > 1


def test_classes_are_matched_by_name(predictor: Predictor, scenes: Path, tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(K)
    names = tuple(LABELS.names[k] for k in order)
    turned = copied(scenes, tmp_path / "turned", names, np.argsort(order))
    found, expected = evaluate(predictor, turned), evaluate(predictor, scenes)
    assert check(turned).dataset.labels.names == names != LABELS.names
    assert (found.metrics.confusion == expected.metrics.confusion).all()
    assert found.to_dict()["per_class_iou"] == expected.to_dict()["per_class_iou"]
    assert found.protocol["classes"] == list(LABELS.names)
    assert found.protocol["data_fingerprint"] != expected.protocol["data_fingerprint"]


def test_a_data_set_with_fewer_classes_than_the_model(
    predictor: Predictor, scenes: Path, tmp_path: Path
) -> None:
    """Pixels that the model calls by a class that the data set lacks are wrong."""
    ids = np.where(
        np.arange(K) == 5, 255, np.minimum(np.arange(K), 6)
    )  # no car; a pole is a person
    names = tuple(n for n in LABELS.names if n not in ("car", "pole"))
    values = np.array([0, 1, 2, 3, 4, 255, 5, 5])
    few = copied(scenes, tmp_path / "few", names, values)
    result = evaluate(predictor, few)
    pairs = [
        (ids[np.minimum(t, K - 1)] * (t < K) + 255 * (t >= K), stub(predictor, image_in(p)))
        for p in sorted((scenes / "images/test").iterdir())
        for t in [ids_in(scenes / "masks/test" / f"{p.stem}.png")]
    ]
    agree(result, by_definition(pairs, K))


def paste(root: Path, hint: str, **changes: str) -> None:
    """Do what a hint says: what stands below its sentence becomes dataset.toml; `changes` are of
    lines, by the value that they begin with."""
    sentence, _, lines = hint.partition(":\n")
    assert str(root / "dataset.toml") in sentence
    for value, name in changes.items():
        lines = re.sub(f'(?m)^{value} = "ignore"', f'{value} = "{name}"', lines)
    (root / "dataset.toml").write_text(lines)


def test_an_unknown_class_is_an_error_whose_lines_mend_it(
    predictor: Predictor, scenes: Path, tmp_path: Path
) -> None:
    """Also where a class of the model takes the place of ignore, as the lines say."""
    names = tuple({"car": "vehicle", "tree": "vegetation"}.get(n, n) for n in LABELS.names)
    root = copied(scenes, tmp_path / "data", names)
    with pytest.raises(FullconvError) as caught:
        evaluate(predictor, root)
    assert caught.value.message == (
        f"the model does not know vegetation, vehicle, which test of {root} shows; it has sky, "
        "building, road, pavement, tree, car, person, pole."
    )
    hint = caught.value.hint
    assert '4 = "ignore"   # vegetation' in hint.splitlines()
    assert "fullconv train" not in hint
    paste(root, hint)
    result = evaluate(predictor, root)
    truths = [ids_in(path) for path in (scenes / "masks/test").iterdir()]
    assert result.protocol["ignored_pixels"] == sum(np.isin(t, (4, 5, 255)).sum() for t in truths)
    assert result.metrics.class_accuracy[5:6].tolist() == pytest.approx([np.nan], nan_ok=True)
    paste(root, hint, **{"4": "tree", "5": "car"})
    whole = evaluate(predictor, scenes)
    assert (evaluate(predictor, root).metrics.confusion == whole.metrics.confusion).all()


def test_data_of_other_classes_altogether_are_for_another_model(
    predictor: Predictor, tmp_path: Path
) -> None:
    """Colours, a table beside them, and folders of other names: all of it stays readable."""
    root = tmp_path / "my data"
    colors = np.array([(9, 9, 9), (128, 64, 128)], np.uint8)
    for folder in ("photos", "truth"):
        (root / folder).mkdir(parents=True)
        for name in "abc":
            pixels = (
                colors[np.indices((40, 50))[1] // 25]
                if folder == "truth"
                else np.zeros((40, 50, 3), np.uint8)
            )
            Image.fromarray(pixels).save(root / folder / f"{name}.png")
    (root / "dataset.toml").write_text(
        'images = "photos"\nmasks = "truth"\nclasses = ["wall", "door"]\n'
        '[map]\n"#090909" = "wall"\n"#804080" = "door"\n'
    )
    with pytest.raises(FullconvError) as caught:
        evaluate(predictor, root, split="val")
    first, _, rest = caught.value.hint.partition("\n")
    assert first == f"fullconv train '{root}'   # a model of these classes; or"
    assert '"#804080" = "ignore"   # door' in rest
    paste(root, rest, **{'"#804080"': "building"})
    result = evaluate(predictor, root, split="val")
    assert result.metrics.confusion.sum(axis=1).tolist() == [0, 40 * 25, *[0] * (K - 2)]


def test_a_class_must_be_known_only_in_the_split_where_it_occurs(
    predictor: Predictor, scenes: Path, tmp_path: Path
) -> None:
    root = copied(scenes, tmp_path / "data", (*LABELS.names, "boat"))
    mask = root / "masks/test/street_0001.png"
    ids = ids_in(mask)
    ids[:2] = K
    Image.fromarray(ids.astype(np.uint8)).save(mask)
    assert evaluate(predictor, root, split="val").protocol["images"] == 2
    with pytest.raises(FullconvError, match=r"does not know boat, which test of .*; it has sky, "):
        evaluate(predictor, root, split="test")


def reported(labels: Labels, pixels: list[int]) -> Any:
    """As much of a report as classes are matched by."""
    return SimpleNamespace(dataset=SimpleNamespace(labels=labels), class_pixels={"val": pixels})


def test_a_class_without_a_pixel_need_not_be_known() -> None:
    data, model = Labels(("sky", "moon", "sun")), Labels(("sun", "sky"))
    lookup = class_mapping(reported(data, [5, 0, 1]), model, "val")
    assert lookup[[0, 2]].tolist() == [1, 0]
    assert lookup[1] >= len(model)
    assert lookup[255] >= len(model)
    assert lookup.shape == (256,)


def test_ignored_pixels_stay_ignored_with_more_classes_than_255() -> None:
    names = tuple(map(str, range(300)))
    data = Labels(names, ignore_index=65535)
    model = Labels(names[::-1], ignore_index=65535)
    lookup = class_mapping(reported(data, [1] * 300), model, "val")
    assert lookup[:300].tolist() == list(range(300))[::-1]
    assert lookup[65535] >= 300


def test_a_split_that_is_not_there(predictor: Predictor, scenes: Path, tmp_path: Path) -> None:
    root = copied(scenes, tmp_path / "data", LABELS.names)
    for part in ("images", "masks"):
        shutil.rmtree(root / part / "test")
    with pytest.raises(FullconvError) as caught:
        evaluate(predictor, root)
    assert caught.value.message == (
        f"{root} has no images for the split 'test'; it has train, val."
    )
    assert caught.value.hint == "--split val"
    assert evaluate(predictor, root, split="val").protocol["split"] == "val"


def test_a_split_without_a_pair_is_not_offered(
    predictor: Predictor, scenes: Path, tmp_path: Path
) -> None:
    root = copied(scenes, tmp_path / "data", LABELS.names)
    for mask in (root / "masks/test").iterdir():
        mask.unlink()
    with pytest.raises(FullconvError) as caught:
        evaluate(predictor, root)
    assert "test" not in caught.value.hint


def test_faulty_data_are_not_scored(predictor: Predictor, scenes: Path, tmp_path: Path) -> None:
    root = copied(scenes, tmp_path / "data", LABELS.names)
    Image.fromarray(np.full((48, 64), 77, np.uint8)).save(root / "masks/train/street_0000.png")
    with pytest.raises(FullconvError, match="unknown-value") as caught:
        evaluate(predictor, root)
    assert caught.value.hint == f"fullconv check {root}"


def test_the_protocol_card_is_complete(predictor: Predictor, scenes: Path) -> None:
    card = evaluate(predictor, scenes, split="val").protocol
    assert card == {
        "data_fingerprint": check(scenes).fingerprint,
        "split": "val",
        "images": 2,
        "image_size": "original, 48 x 64",
        "void": "pixels marked ignore in the truth are left out",
        "ignored_pixels": check(scenes).ignored_pixels["val"],
        "classes": list(LABELS.names),
        "pretrained_on": "nothing",
        "trained_on": "not stated",
        "test_time_augmentation": "none",
        "metric": "one confusion matrix over all pixels of the split",
    }


def test_the_card_says_which_images_the_model_was_trained_on(
    make_model: MakeModel, scenes: Path
) -> None:
    report = check(scenes)
    model = make_model(
        LABELS.names, training={"trained_on": training_split_fingerprint(report, None)}
    )
    card = evaluate(Predictor(model, device="cpu"), scenes, split="val").protocol
    assert card["trained_on"] == "train (3 images)"


def test_what_was_counted_in_every_image_is_there(predictor: Predictor, scenes: Path) -> None:
    result = evaluate(predictor, scenes, split="test")
    counts = result.counts
    assert counts is not None
    assert counts.images == ("street_0000", "street_0001")
    assert counts.protocol == result.protocol
    assert counts.data == str(scenes.resolve())
    for k, name in enumerate(counts.images):
        truth = ids_in(scenes / f"masks/test/{name}.png")
        called = stub(predictor, image_in(scenes / f"images/test/{name}.jpg"))
        expected = np.zeros((K, K), np.int64)
        np.add.at(expected, (truth[truth < K], called[truth < K]), 1)
        assert (counts.head().confusion(k) == expected).all()
    assert (counts.head().confusion() == result.metrics.confusion).all()


def test_paths_data_sets_and_progress(model_folder: Path, scenes: Path) -> None:
    told: list[tuple[int, int]] = []
    one = evaluate(
        model_folder, str(scenes), progress=lambda done, total: told.append((done, total))
    )
    assert told == [(1, 2), (2, 2)]
    other = evaluate(load(model_folder), load_dataset(scenes))
    assert one.to_dict() == other.to_dict()
    assert json.loads(json.dumps(one.to_dict())) == one.to_dict()


def test_several_views_are_evaluated_and_stand_in_the_card(
    model_folder: Path, scenes: Path
) -> None:
    predictor = load(model_folder, device="cpu", precision="float32")
    plain = evaluate(predictor, scenes)
    assert plain.protocol["test_time_augmentation"] == "none"
    found = evaluate(predictor, scenes, flip=True, scales=(0.5, 1.0))
    assert found.protocol["test_time_augmentation"] == "flip, scales 0.5 1"
    assert predictor.options == PredictOptions()  # a model that was handed over stays as it is
    predictor.set_options(PredictOptions(flip=True, scales=(0.5, 1.0)))
    pairs = [
        (ids_in(scenes / "masks/test" / f"{path.stem}.png"), predictor(path).mask)
        for path in sorted((scenes / "images/test").iterdir())
    ]
    agree(found, by_definition(pairs, K))
    assert found.metrics.mean_iou != plain.metrics.mean_iou
    assert evaluate(predictor, scenes).to_dict() == found.to_dict()


def test_qualities_stand_beside_the_metrics_and_can_be_left_out(
    model_folder: Path, scenes: Path
) -> None:
    predictor = load(model_folder, device="cpu", precision="float32")
    whole = evaluate(predictor, scenes)
    (quality,) = whole.qualities
    found = whole.to_dict()
    assert {**whole.metrics.to_dict(), **quality.to_dict(), "protocol": whole.protocol} == found
    sizes = [ids_in(path) for path in (scenes / "masks/test").iterdir()]
    assert sum(found["calibration"]["pixels"]) == sum(int((t < K).sum()) for t in sizes)
    for pair, iou in zip(load_dataset(scenes).splits["test"], quality.image_iou, strict=True):
        truth, called = ids_in(pair.mask), predictor.label_map(image_in(pair.image))
        assert iou == pytest.approx(by_definition([(truth, called)], K)["mean_iou"])
    plain = evaluate(predictor, scenes, quality=False)
    assert plain.qualities == ()
    assert plain.to_dict() == {**whole.metrics.to_dict(), "protocol": whole.protocol}
