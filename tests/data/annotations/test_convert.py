"""Converting: every layout and every tool to a data set that `layouts.load_dataset` and `check`
accept, or all that is wrong at once, with nothing written and the source untouched."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from trees import IDS, NAMES, SPLITS, TREES, brush

from fullconv.core.errors import FullconvError
from fullconv.data.annotations.convert import convert
from fullconv.data.check.check import check
from fullconv.data.io.masks import read_mask, read_values
from fullconv.data.layouts import dataset as layouts

ROAD = {"label": "road", "points": [[0, 3], [8, 3], [8, 6], [0, 6]]}


def fingerprint(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


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
    """An image and its file of labelme."""
    path = random_image(folder / f"{name}.png", seed=len(name))
    return write(
        path.with_suffix(".json"), {"shapes": list(shapes), "imagePath": path.name, **more}
    )


def coco(path: Path, names: list[str], *, images: Path, **more: Any) -> Path:
    """A COCO file, with a road at the bottom of each of its images."""
    files = [{"id": i, "file_name": f"{name}.png"} for i, name in enumerate(names)]
    outline = [0, 3, 8, 3, 8, 6, 0, 6]
    entries = [
        {"id": i, "image_id": i, "category_id": 7, "segmentation": [outline]}
        for i in range(len(names))
    ]
    for name in names:
        random_image(images / f"{name}.png", seed=len(name))
    table = {"images": files, "annotations": entries, "categories": [{"id": 7, "name": "road"}]}
    return write(path, {**table, **more})


def label_studio(folder: Path) -> Path:
    """An image, and an export with a region of each kind on it."""
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


def refused(source: Path, out: Path, **options: Any) -> str:
    before, there = fingerprint(source.parent), out.exists()
    with pytest.raises(FullconvError) as caught:
        convert(source, out, **options)
    assert fingerprint(source.parent) == before
    assert out.exists() == there
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
@pytest.mark.parametrize("name", TREES)
def test_every_layout_and_every_tool_comes_back(tmp_path: Path, name: str) -> None:
    source, out, tree = tmp_path / "in", tmp_path / "out", TREES[name]
    tree.write(source)
    before = fingerprint(source)
    done = convert(source, out)
    assert fingerprint(source) == before
    assert (done.layout, done.splits) == (tree.layout, {"train": 3, "val": 1})
    data = layouts.load_dataset(out)
    assert (data.layout, data.named, data.labels.names) == ("folders", True, done.labels.names)
    if not tree.shapes:
        there = layouts.load_dataset(source)
        assert data.labels.names == there.labels.names  # those that never occur too
        assert data.labels.ignore_index == there.labels.ignore_index
    seen = set()
    for split, pairs in data.splits.items():
        for pair in pairs:
            stem = pair.name.removeprefix("ulm_").removeprefix("img_")
            seen.add(stem)
            ids = read_mask(pair.mask, data.labels)
            if tree.shapes:
                wanted = np.array(NAMES)[IDS[stem]]
                np.testing.assert_array_equal(np.array(data.labels.names)[ids], wanted)
            else:
                np.testing.assert_array_equal(ids, IDS[stem])
            assert name == "cvat" or split == SPLITS[stem]
    assert seen == set(IDS)


def test_masks_with_errors_are_not_converted(tmp_path: Path) -> None:
    source = tmp_path / "in"
    TREES["folders"].write(source)
    Image.fromarray(np.full((24, 32), 77, np.uint8)).save(source / "masks/train/0.png")
    said = refused(source, tmp_path / "out")
    assert "unknown-value" in said
    assert f"try: fullconv check {source}" in said


def test_ignored_pixels_colours_and_doubtful_names_stay(tmp_path: Path) -> None:
    """Of two classes only the first occurs, beside 255: no black-and-white mask."""
    source, out = tmp_path / "in", tmp_path / "out"
    values = np.zeros((6, 8), np.uint8)
    values[2:] = 255
    for name in ("a", "b"):
        random_image(source / f"images/{name}.png", seed=len(name))
        (source / "masks").mkdir(exist_ok=True)
        Image.fromarray(values).save(source / f"masks/{name}.png")
    table = 'classes = ["sky", "road"]\n[map]\n255 = "ignore"\n[colors]\nroad = "#102030"\n'
    write(source / "dataset.toml", table)
    done = convert(source, out)
    data = layouts.load_dataset(out)
    assert data.labels.names == done.labels.names == ("sky", "road")
    assert data.labels.colors[1] == (16, 32, 48)
    for pairs in data.splits.values():
        for pair in pairs:
            np.testing.assert_array_equal(read_mask(pair.mask, data.labels), values)


def test_masks_in_a_folder_below_and_names_of_layouts(tmp_path: Path) -> None:
    source = tmp_path / "in"
    TREES["voc"].write(source / "VOCdevkit/VOC2012")
    done = convert(source, tmp_path / "out")
    assert (done.layout, done.splits) == ("voc", {"train": 3, "val": 1})
    assert "found in the subfolder VOCdevkit/VOC2012" in done.notes
    assert convert(source, tmp_path / "named", layout="voc").layout == "voc"
    assert "Searched for train.txt" in refused(source, tmp_path / "x", layout="camvid")
    labelme(source, "a", ROAD)  # a folder below that lies as masks do says less than this
    assert convert(source, tmp_path / "shapes").layout == "labelme"
    TREES["folders"].write(source)  # but the folder itself says more
    assert convert(source, tmp_path / "masks").layout == "folders"
    assert convert(source, tmp_path / "chosen", layout="labelme").layout == "labelme"


def test_a_published_data_set_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLCONV_DATA", str(tmp_path / "downloaded"))
    TREES["camvid, folders"].write(tmp_path / "downloaded/camvid")
    done = convert("camvid", tmp_path / "out")
    assert (done.layout, done.splits) == ("camvid", {"train": 3, "val": 1})


@pytest.mark.parametrize("folder", ["semantic_segmentation", "video_annotation"])
def test_the_examples_of_labelme(shared: Path, tmp_path: Path, folder: str) -> None:
    source, out = shared / "data/labelme_examples" / folder, tmp_path / "out"
    before = fingerprint(source)
    done = convert(source, out)
    assert fingerprint(source) == before
    assert done.layout == "labelme"
    classes = (source / "labels.txt").read_text().split("\n")[2:]
    assert done.labels.names == ("background", *(name for name in classes if name))
    data = layouts.load_dataset(out)
    assert (data.labels.names, data.named) == (done.labels.names, True)
    assert check(out).errors == ()
    export = source / "data_dataset_voc"
    (theirs,) = (p for p in export.iterdir() if p.name.startswith("SegmentationClass"))
    for mask in sorted((out / "masks").iterdir()):
        # labelme's own export has the outlines too.
        differ = read_values(mask) != read_values(theirs / mask.name)
        assert differ.mean() < 0.01, mask.name


def test_labelme_and_coco_of_the_same_images_give_the_same_masks(
    shared: Path, tmp_path: Path
) -> None:
    source = shared / "data/labelme_examples/instance_segmentation"
    for layout in ("labelme", "coco"):
        convert(source, tmp_path / layout, layout=layout)
        assert check(tmp_path / layout).errors == ()
    ignored = 0
    for mask in sorted((tmp_path / "labelme/masks").iterdir()):
        drawn, runs = read_values(mask), read_values(tmp_path / "coco/masks" / mask.name)
        void = drawn == 255  # COCO knows no __ignore__
        np.testing.assert_array_equal(drawn[~void], runs[~void])
        ignored += int(void.sum())
    assert ignored > 0
    said = refused(source, tmp_path / "out")
    assert "annotations of 2 tools: labelme (3 files), coco (" in said
    assert "--layout labelme   # or --layout coco" in said


def test_names_with_spaces_and_slashes_and_images_inside(tmp_path: Path) -> None:
    source, out = tmp_path / "my files", tmp_path / "out"
    slash = {**ROAD, "label": "tv/monitor", "shape_type": "polygon"}
    labelme(source, "a b", slash)
    inside = base64.b64encode(random_image(tmp_path / "c.png", seed=9).read_bytes()).decode()
    write(source / "c d.json", {"shapes": [{**ROAD, "label": 'po"t'}], "imageData": inside})
    labelme(source, "e", {**ROAD, "label": "__ignore__"})
    done = convert(source, out)
    assert done.labels.names == ("background", 'po"t', "tv/monitor")
    data = layouts.load_dataset(out)
    assert data.labels.names == done.labels.names
    pairs = {pair.name: pair for pairs in data.splits.values() for pair in pairs}
    assert sorted(pairs) == ["a b", "c d", "e"]
    bottom = [int(read_mask(pairs[name].mask, data.labels)[5, 5]) for name in sorted(pairs)]
    assert bottom == [2, 1, 255]
    assert pairs["c d"].image.read_bytes() == (tmp_path / "c.png").read_bytes()
    assert pairs["a b"].image.read_bytes() == (source / "a b.png").read_bytes()
    assert all(read_mask(pair.mask, data.labels)[0, 0] == 0 for pair in pairs.values())


def test_splits_are_kept_and_equal_names_are_told_apart(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ("train/a", "train/night/a", "val/a", "test/B"):
        labelme((source / name).parent, Path(name).name, ROAD)
    done = convert(source, out)
    assert done.splits == {"train": 2, "val": 1, "test": 1}
    masks = sorted(p.relative_to(out).as_posix() for p in out.glob("masks/**/*.png"))
    assert masks == [
        "masks/test/B.png",
        "masks/train/a.png",
        "masks/train/train_night_a.png",
        "masks/val/val_a.png",
    ]
    assert {s: len(p) for s, p in layouts.load_dataset(out).splits.items()} == done.splits


def test_coco_with_a_file_for_each_split(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for split in ("train", "val"):
        path = source / f"annotations/instances_{split}2017.json"
        coco(path, [f"{split} 1", f"{split}_2"], images=source / f"{split}2017")
    write(source / "annotations/captions.json", {"images": [], "annotations": []})
    done = convert(source, out)
    assert done.splits == {"train": 2, "val": 2}
    assert done.labels.names == ("background", "road")
    assert any("1 JSON file of another kind" in note for note in done.notes)
    assert [pair.name for pair in layouts.load_dataset(out).splits["train"]] == [
        "train 1",
        "train_2",
    ]
    one = convert(source / "annotations/instances_val2017.json", tmp_path / "one")
    assert one.splits == {"all": 2}
    coco(source / "annotations/keypoints_val2017.json", ["k"], images=source / "k")
    said = refused(source, tmp_path / "again")
    assert "3 COCO files" in said
    assert "try: fullconv convert" in said


def test_the_report(tmp_path: Path) -> None:
    source = tmp_path / "in"
    labelme(source, "a", ROAD, {**ROAD, "shape_type": "line"})
    labelme(source, "bb", {**ROAD, "points": [[0.1, 0.1], [0.2, 0.1], [0.2, 0.2]]})
    random_image(source / "left.png")
    seen: list[tuple[int, int]] = []
    done = convert(source, tmp_path / "out", progress=lambda n, total: seen.append((n, total)))
    assert seen == [(1, 2), (2, 2)]
    assert done.notes == (
        "class names: the labels of the shapes, sorted by name (no labels.txt)",
        'class 0 is "background": pixels outside all shapes',
        "left out: 1 points or lines, which have no area",
        f"left out: 1 image without annotations, such as {source.resolve() / 'left.png'}",
        "left out: 1 shape that contains no pixel center",
    )
    assert json.loads(json.dumps(done.to_dict()))["classes"] == ["background", "road"]
    lines = done.text().splitlines()
    assert lines[0] == f'{source}: layout labelme, recognized by 2 JSON files with "shapes"'
    assert lines[-1] == f"next: fullconv check {tmp_path / 'out'}"


def test_all_bad_files_are_named_at_once(tmp_path: Path) -> None:
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
    said = refused(source, tmp_path / "out")
    assert "7 files or images cannot be converted, and nothing was written" in said
    assert f"{source / 'broken.json'}, line 2, column 13" in said
    for name in ("kind", "size", "gone", "empty", "deep", "latin"):
        assert str(source / f"{name}.json") in said
    assert "good.json" not in said


def test_a_label_outside_the_class_list_is_named(tmp_path: Path) -> None:
    source = tmp_path / "in"
    labelme(source, "a", ROAD)
    write(source / "labels.txt", "__ignore__\n_background_\nraod\n")
    said = refused(source, tmp_path / "out")
    assert "a.json: labels that are not in " in said
    assert "expected one of ignore, background, raod" in said
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
    assert "is not empty" in refused(source, source)
    write(out / "mine.txt", "mine")
    assert "is not empty" in refused(source, out)
    assert "is a file" in refused(source, out / "mine.txt")
    said = refused(source, tmp_path / "new", layout="label_studio")
    assert (
        "no layout 'label_studio'; expected one of labelme, coco, label-studio, ultralytics, "
        in said
    )
    assert "try: --layout label-studio" in said
    assert "no order 'x'" in refused(source, tmp_path / "new", order="x")


def test_what_breaks_while_writing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelme(tmp_path / "in", "a", ROAD)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OSError, match="No space"):
        convert(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="No space"):
        convert(tmp_path / "in", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_damaged_files_never_become_a_traceback(tmp_path: Path) -> None:
    """Values of the wrong kind at random places of files of each tool."""
    rng = np.random.default_rng(0)
    source = tmp_path / "in"
    paths = (
        labelme(source / "l", "a", ROAD, imageHeight=6, imageWidth=8),
        coco(source / "c/x.json", ["b", "c"], images=source / "c"),
        label_studio(source / "s"),
    )
    wrong = (None, -1, 1e300, "x", [], {}, [[]], True, [[1, 2]], {"size": [6, 8], "counts": "1"})
    done = 0
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
            done += 1
        except FullconvError:
            assert not (tmp_path / f"out{number}").exists()
        write(path, text)
    assert 0 < done < 250
