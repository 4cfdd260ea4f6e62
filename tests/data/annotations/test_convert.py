from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from trees import IDS, NAMES, SPLITS, TREES, brush

from fullconv.core.errors import FullconvError
from fullconv.data.annotations.convert import ConvertResult, convert
from fullconv.data.check.check import check
from fullconv.data.io.masks import read_mask, read_values
from fullconv.data.layouts import dataset as layouts
from fullconv.data.layouts.file_names import Pair

ROAD = {"label": "road", "points": [[0, 3], [8, 3], [8, 6], [0, 6]]}


def fingerprint(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(path: Path, table: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(table if isinstance(table, str) else json.dumps(table), encoding="utf-8")
    return path


def random_image(path: Path, *, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def labelme(folder: Path, name: str, *shapes: Any, **more: Any) -> Path:
    path = random_image(folder / f"{name}.png", seed=len(name))
    table = {"shapes": list(shapes), "imagePath": path.name, **more}
    return write(path.with_suffix(".json"), table)


def coco(path: Path, names: list[str], *, images: Path, **more: Any) -> Path:
    """Write a COCO file with a road at the bottom of each of its images."""
    road = {"category_id": 7, "segmentation": [[0, 3, 8, 3, 8, 6, 0, 6]]}
    files = [{"id": k, "file_name": f"{name}.png"} for k, name in enumerate(names)]
    entries = [{"id": k, "image_id": k, **road} for k in range(len(names))]
    for name in names:
        random_image(images / f"{name}.png", seed=len(name))
    table = {"images": files, "annotations": entries, "categories": [{"id": 7, "name": "road"}]}
    return write(path, {**table, **more})


def label_studio(folder: Path) -> Path:
    """Write an image, and an export with a region of each kind on it."""
    random_image(folder / "d.png")
    values = [
        ("brushlabels", {"rle": brush(np.eye(6, 8, dtype=bool))}),
        ("polygonlabels", {"points": [[0, 0], [50, 0], [50, 50]]}),
        ("rectanglelabels", {"x": 1, "y": 2, "width": 30, "height": 40, "rotation": 5}),
        ("ellipselabels", {"x": 50, "y": 50, "radiusX": 9, "radiusY": 9, "rotation": 5}),
    ]
    results = [
        {"type": kind, "original_width": 8, "original_height": 6, "value": {**v, kind: ["road"]}}
        for kind, v in values
    ]
    entry = {"id": 1, "was_cancelled": False, "result": results}
    task = {"id": 1, "data": {"image": "/data/upload/1/01234567-d.png"}, "annotations": [entry]}
    return write(folder / "x.json", [task])


def converted(source: Path, out: Path) -> tuple[ConvertResult, layouts.Dataset, dict[str, Pair]]:
    """Convert a folder, and return also the new dataset and its pairs by name."""
    before = fingerprint(source)
    result = convert(source, out)
    assert fingerprint(source) == before
    dataset = layouts.load_dataset(out)
    assert (dataset.layout, dataset.labels.names) == ("folders", result.labels.names)
    assert dataset.named
    return result, dataset, {pair.name: pair for split in dataset.splits.values() for pair in split}


def refused(source: Path, out: Path, **options: Any) -> str:
    before, existed = fingerprint(source.parent), out.exists()
    with pytest.raises(FullconvError) as caught:
        convert(source, out, **options)
    assert fingerprint(source.parent) == before
    assert out.exists() == existed
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
@pytest.mark.parametrize("name", TREES)
def test_every_layout_and_every_tool_is_converted(tmp_path: Path, name: str) -> None:
    source, tree = tmp_path / "in", TREES[name]
    tree.write(source)
    result, dataset, pairs = converted(source, tmp_path / "out")
    labels = dataset.labels
    assert (result.layout, result.splits) == (tree.layout, {"train": 3, "val": 1})
    if not tree.shapes:
        original = layouts.load_dataset(source).labels
        assert labels.names == original.names  # also those that never occur
        assert labels.ignore_index == original.ignore_index
    stems = {key: key.removeprefix("ulm_").removeprefix("img_") for key in pairs}
    assert set(stems.values()) == set(IDS)
    for key, stem in stems.items():
        ids = read_mask(pairs[key].mask, labels)
        if tree.shapes:
            names = np.array(NAMES)[IDS[stem]]
            np.testing.assert_array_equal(np.array(labels.names)[ids], names)
        else:
            np.testing.assert_array_equal(ids, IDS[stem])
        assert name == "cvat" or pairs[key] in dataset.splits[SPLITS[stem]]


def test_masks_with_errors_are_not_converted(tmp_path: Path) -> None:
    source = tmp_path / "in"
    TREES["folders"].write(source)
    Image.fromarray(np.full((24, 32), 77, np.uint8)).save(source / "masks/train/0.png")
    message = refused(source, tmp_path / "out")
    assert "unknown-value" in message
    assert f"try: fullconv check {source}" in message


def test_ignored_pixels_colors_and_names_of_absent_classes_stay(tmp_path: Path) -> None:
    source = tmp_path / "in"
    values = np.zeros((6, 8), np.uint8)
    values[1], values[2:] = 1, 255
    for name in ("a", "b"):
        random_image(source / f"images/{name}.png", seed=len(name))
        (source / "masks").mkdir(exist_ok=True)
        Image.fromarray(values).save(source / f"masks/{name}.png")
    table = 'classes = ["sky", "road"]\n[map]\n255 = "ignore"\n[colors]\nroad = "#102030"\n'
    write(source / "dataset.toml", table)
    _, dataset, pairs = converted(source, tmp_path / "out")
    assert dataset.labels.names == ("sky", "road")
    assert dataset.labels.colors[1] == (16, 32, 48)
    for pair in pairs.values():
        np.testing.assert_array_equal(read_mask(pair.mask, dataset.labels), values)


def test_masks_in_a_folder_below_and_names_of_layouts(tmp_path: Path) -> None:
    source = tmp_path / "in"
    TREES["voc"].write(source / "VOCdevkit/VOC2012")
    result = convert(source, tmp_path / "out")
    assert (result.layout, result.splits) == ("voc", {"train": 3, "val": 1})
    assert "found in the subfolder VOCdevkit/VOC2012" in result.notes
    assert convert(source, tmp_path / "named", layout="voc").layout == "voc"
    assert "Searched for train.txt" in refused(source, tmp_path / "x", layout="camvid")
    labelme(source, "a", ROAD)  # a folder below that lies as masks do says less than this
    assert convert(source, tmp_path / "shapes").layout == "labelme"
    TREES["folders"].write(source)  # but the folder itself says more
    assert convert(source, tmp_path / "masks").layout == "folders"
    assert convert(source, tmp_path / "chosen", layout="labelme").layout == "labelme"


def test_a_published_dataset_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLCONV_DATA", str(tmp_path / "downloaded"))
    TREES["camvid, folders"].write(tmp_path / "downloaded/camvid")
    result = convert("camvid", tmp_path / "out")
    assert (result.layout, result.splits) == ("camvid", {"train": 3, "val": 1})


@pytest.mark.parametrize("folder", ["semantic_segmentation", "video_annotation"])
def test_the_examples_of_labelme(shared: Path, tmp_path: Path, folder: str) -> None:
    source, out = shared / "data/labelme_examples" / folder, tmp_path / "out"
    result, _, _ = converted(source, out)
    assert result.layout == "labelme"
    classes = (source / "labels.txt").read_text().split("\n")[2:]
    assert result.labels.names == ("background", *(name for name in classes if name))
    assert check(out).errors == ()
    (export,) = (source / "data_dataset_voc").glob("SegmentationClass*")
    for mask in sorted((out / "masks").iterdir()):
        # labelme's own export has the outlines too.
        differences = read_values(mask) != read_values(export / mask.name)
        assert differences.mean() < 0.01, mask.name


def test_labelme_and_coco_of_the_same_images_give_the_same_masks(
    shared: Path, tmp_path: Path
) -> None:
    source = shared / "data/labelme_examples/instance_segmentation"
    for layout in ("labelme", "coco"):
        convert(source, tmp_path / layout, layout=layout)
        assert check(tmp_path / layout).errors == ()
    ignored = 0
    for mask in sorted((tmp_path / "labelme/masks").iterdir()):
        polygons, runs = read_values(mask), read_values(tmp_path / "coco/masks" / mask.name)
        is_ignored = polygons == 255  # COCO knows no __ignore__
        np.testing.assert_array_equal(polygons[~is_ignored], runs[~is_ignored])
        ignored += int(is_ignored.sum())
    assert ignored > 0
    message = refused(source, tmp_path / "out")
    assert "annotations of 2 tools: labelme (3 files), coco (" in message
    assert "--layout labelme   # or --layout coco" in message


def test_names_with_spaces_and_slashes_and_images_inside(tmp_path: Path) -> None:
    source = tmp_path / "my files"
    labelme(source, "a b", {**ROAD, "label": "tv/monitor", "shape_type": "polygon"})
    image = random_image(tmp_path / "c.png", seed=9).read_bytes()
    table = {"shapes": [{**ROAD, "label": 'po"t'}], "imageData": base64.b64encode(image).decode()}
    write(source / "c d.json", table)
    labelme(source, "e", {**ROAD, "label": "__ignore__"})
    _, dataset, pairs = converted(source, tmp_path / "out")
    assert dataset.labels.names == ("background", 'po"t', "tv/monitor")
    masks = {name: read_mask(pair.mask, dataset.labels) for name, pair in sorted(pairs.items())}
    assert {name: int(ids[5, 5]) for name, ids in masks.items()} == {"a b": 2, "c d": 1, "e": 255}
    assert all(ids[0, 0] == 0 for ids in masks.values())
    assert pairs["c d"].image.read_bytes() == image
    assert pairs["a b"].image.read_bytes() == (source / "a b.png").read_bytes()


def test_splits_are_kept_and_names_are_unique(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ("train/a", "train/night/a", "val/a", "test/B"):
        labelme((source / name).parent, Path(name).name, ROAD)
    result, dataset, _ = converted(source, out)
    assert result.splits == {"train": 2, "val": 1, "test": 1}
    assert {split: len(pairs) for split, pairs in dataset.splits.items()} == result.splits
    masks = sorted(p.relative_to(out / "masks").as_posix() for p in out.glob("masks/**/*.png"))
    assert masks == ["test/B.png", "train/a.png", "train/train_night_a.png", "val/val_a.png"]


def test_coco_with_a_file_for_each_split(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for split in ("train", "val"):
        path = source / f"annotations/instances_{split}2017.json"
        coco(path, [f"{split} 1", f"{split}_2"], images=source / f"{split}2017")
    write(source / "annotations/captions.json", {"images": [], "annotations": []})
    result, dataset, _ = converted(source, tmp_path / "out")
    assert result.splits == {"train": 2, "val": 2}
    assert result.labels.names == ("background", "road")
    assert any("1 JSON file of another kind" in note for note in result.notes)
    assert [pair.name for pair in dataset.splits["train"]] == ["train 1", "train_2"]
    single = convert(source / "annotations/instances_val2017.json", tmp_path / "single")
    assert single.splits == {"all": 2}
    coco(source / "annotations/keypoints_val2017.json", ["k"], images=source / "k")
    message = refused(source, tmp_path / "again")
    assert "3 COCO files" in message
    assert "try: fullconv convert" in message


def test_the_report(tmp_path: Path) -> None:
    source = tmp_path / "in"
    labelme(source, "a", ROAD, {**ROAD, "shape_type": "line"})
    labelme(source, "bb", {**ROAD, "points": [[0.1, 0.1], [0.2, 0.1], [0.2, 0.2]]})
    random_image(source / "left.png")
    calls: list[tuple[int, int]] = []
    result = convert(source, tmp_path / "out", progress=lambda n, total: calls.append((n, total)))
    assert calls == [(1, 2), (2, 2)]
    assert result.notes == (
        "class names: the labels of the shapes, sorted by name (no labels.txt)",
        'class 0 is "background": pixels outside all shapes',
        "left out: 1 points or lines, which have no area",
        f"left out: 1 image without annotations, such as {source.resolve() / 'left.png'}",
        "left out: 1 shape that contains no pixel center",
    )
    assert json.loads(json.dumps(result.to_dict()))["classes"] == ["background", "road"]
    lines = result.text().splitlines()
    assert lines[0] == f'{source}: layout labelme, recognized by 2 JSON files with "shapes"'
    assert lines[-1] == f"next: fullconv check {tmp_path / 'out'}"


def test_all_bad_files_are_reported_at_once(tmp_path: Path) -> None:
    source = tmp_path / "in"
    labelme(source, "good", ROAD)
    labelme(source, "kind", {**ROAD, "shape_type": "cuboid"})
    labelme(source, "size", ROAD, imageWidth=9)
    labelme(source, "gone", ROAD)
    (source / "gone.png").unlink()
    write(source / "broken.json", '{"shapes": [\n  {"label": }]}')
    write(source / "empty.json", "")
    write(source / "deep.json", "[" * 100_000)
    (source / "latin.json").write_bytes(b'{"shapes": "\xe9"}')
    message = refused(source, tmp_path / "out")
    assert "7 files or images cannot be converted, and nothing was written" in message
    assert f"{source / 'broken.json'}, line 2, column 13" in message
    for name in ("kind", "size", "gone", "empty", "deep", "latin"):
        assert str(source / f"{name}.json") in message
    assert "good.json" not in message


def test_a_label_outside_the_class_list_is_named(tmp_path: Path) -> None:
    source = tmp_path / "in"
    labelme(source, "a", ROAD)
    write(source / "labels.txt", "__ignore__\n_background_\nraod\n")
    message = refused(source, tmp_path / "out")
    assert "a.json: labels that are not in " in message
    assert "expected one of ignore, background, raod" in message
    write(source / "more/labels.txt", "x\n")
    labelme(source / "more", "b", ROAD)
    assert "2 projects with different class lists" in refused(source, tmp_path / "out")


def test_places_that_are_refused(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    assert "there is no such file" in refused(source, out)
    source.mkdir()
    assert "contains no annotations that can be converted, and no masks" in refused(source, out)
    write(source / "x.json", {"key": 1})
    assert f"Found {source / 'x.json'} (key)" in refused(source, out)
    assert "contains no coco image to convert" in refused(source, out, layout="coco")
    labelme(source, "a", ROAD)
    assert "is inside" in refused(source, source / "out")
    message = refused(source, tmp_path / "new", layout="label_studio")
    tools = "labelme, coco, label-studio, ultralytics"
    assert f"no layout 'label_studio'; expected one of {tools}, " in message
    assert "try: --layout label-studio" in message
    assert "no order 'x'" in refused(source, tmp_path / "new", order="x")


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = labelme(tmp_path / "in", "a", ROAD).parent, tmp_path / "out"

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", fail)
    with pytest.raises(OSError, match="No space"):
        convert(source, out)
    assert not out.exists()
    out.mkdir()
    with pytest.raises(OSError, match="No space"):
        convert(source, out)
    assert list(out.iterdir()) == []


def test_damaged_files_never_become_a_traceback(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source = tmp_path / "in"
    paths = (
        labelme(source / "l", "a", ROAD, imageHeight=6, imageWidth=8),
        coco(source / "c/x.json", ["b", "c"], images=source / "c"),
        label_studio(source / "s"),
    )
    wrong = (None, -1, 1e300, "x", [], {}, [[]], True, [[1, 2]], {"size": [6, 8], "counts": "1"})
    converted_count = 0
    for number in range(300):
        path = paths[number % 3]
        text = path.read_text()
        table = json.loads(text)
        node, key = (table, rng.choice(list(table))) if isinstance(table, dict) else (table, 0)
        while isinstance(node[key], dict | list) and node[key] and rng.random() < 0.85:
            node = node[key]
            key = rng.choice(list(node)) if isinstance(node, dict) else rng.integers(len(node))
        node[key] = wrong[rng.integers(len(wrong))]
        write(path, table)
        try:
            convert(path.parent, tmp_path / f"out{number}")
            converted_count += 1
        except FullconvError:
            assert not (tmp_path / f"out{number}").exists()
        write(path, text)
    assert 0 < converted_count < 250
