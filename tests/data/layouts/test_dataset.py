"""Layouts: files by name, and the dataset that is read from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import IDS, TREES

from fullconv.core.errors import FullconvError
from fullconv.data.io.masks import read_mask
from fullconv.data.layouts.class_table import CAMVID, VOC
from fullconv.data.layouts.dataset import LAYOUTS, Dataset, load_dataset, match_layout

LISTS = "ImageSets/Segmentation"


def write(root: Path, names: str, values: object = ((0, 1), (2, 1)), **texts: str) -> Path:
    """Write JPEG images and PNG masks by name, "a{b,c}.jpg" for several, and texts."""
    for pattern in names.split():
        head, brace, rest = pattern.partition("{")
        choices, _, tail = rest.partition("}")
        for choice in choices.split(",") if brace else [""]:
            path = root / f"{head}{choice}{tail}"
            path.parent.mkdir(parents=True, exist_ok=True)
            mask = Image.fromarray(np.array(values, np.uint8))
            (mask if path.suffix == ".png" else Image.new("RGB", (2, 2), "red")).save(path)
    for name, text in texts.items():
        path = root / (f"{name}.toml" if name == "dataset" else f"{name.replace('__', '/')}.txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def names(data: Dataset) -> dict[str, str]:
    return {split: " ".join(pair.name for pair in pairs) for split, pairs in data.splits.items()}


def counts(data: Dataset) -> dict[str, int]:
    return {split: len(pairs) for split, pairs in data.splits.items()}


def voc(root: Path) -> Path:
    files = "JPEGImages/{a,b,c,d,e}.jpg SegmentationClass/{a,b,c}.png"
    lists = {f"ImageSets__Segmentation__{k}": v for k, v in (("train", "a"), ("val", "b\nc"))}
    return write(
        root, files, ((0, 20), (255, 1)), **lists, ImageSets__Segmentation__trainval="a\nb\nc"
    )


@pytest.mark.parametrize(
    ("files", "texts", "layout", "expected"),
    [
        ("images/train/a.jpg masks/train/a.png images/train/b.JPG masks/train/b_mask.png "
         "images/val/{c,.d}.jpg masks/val/{c,._c}.png", {}, "folders",
         {"train": "a b", "val": "c"}),
        *((f"training/imgs/a.jpg training/labels/a.png {val}/imgs/b.jpg {val}/labels/b.png "
           "testing/imgs/c.jpg testing/labels/c.png", {}, "folders",
           {"train": "a", "val": "b", "test": "c"}) for val in ("val", "valid", "Validation")),
        ("images/{a,b,c,d}.jpg gt/{a,b,c,d}.png", {"train": "c\na.jpg\n", "val": "b\n"}, "folders",
         {"train": "a c", "val": "b"}),
        ("train_img/a.jpg train_label/a.png val_img/b.jpg val_label/b.png", {}, "camvid",
         {"train": "a", "val": "b"}),
        ("x/a.jpg y/a.jpg xm/a.png ym/a.png",  # the same name in two folders
         {"train": "x/a.jpg xm/a.png\ny/a.jpg ym/a.png\n", "val": "x/a.jpg xm/a.png\n"}, "camvid",
         {"train": "a y_a", "val": "a"}),
    ],
)  # fmt: skip
def test_layouts_of_folders_and_lists(
    tmp_path: Path, files: str, texts: dict[str, str], layout: str, expected: dict[str, str]
) -> None:
    data = load_dataset(str(write(tmp_path, files, **texts)))
    assert (data.layout, data.root, names(data)) == (layout, tmp_path, expected)
    assert data.unpaired_images == data.unpaired_masks == ()
    assert (data.labels.names, data.named) == (("class 0", "class 1", "class 2"), False)
    if "{a,b,c,d}" in files:
        assert data.notes[0] == "left out 1 image that is on no list"


CLASSES = {
    "cityscapes": 19, "ade20k": 150, "coco-stuff": 182, "sbd": 21, "pascal-context": 459,
    "sift-flow": 33, "nyud": 40,
}  # fmt: skip


@pytest.mark.parametrize(("layout", "classes"), CLASSES.items(), ids=CLASSES)
def test_published_layouts_are_read_back(tmp_path: Path, layout: str, classes: int) -> None:
    TREES[layout].write(tmp_path)
    data = load_dataset(tmp_path)
    assert (data.layout, len(data.labels)) == (layout, classes)
    assert counts(data) == {"train": 3, "val": 1}
    for pair in (pair for pairs in data.splits.values() for pair in pairs):
        stem = pair.name.removeprefix("ulm_").removeprefix("img_")
        np.testing.assert_array_equal(read_mask(pair.mask, data.labels), IDS[stem])


@pytest.mark.parametrize(
    ("name", "layout", "labels", "expected"),
    [
        ("camvid", "camvid", CAMVID.names, {"train": 367, "val": 101, "test": 233}),
        ("voc2012_sample", "voc", VOC.names, {"train": 60, "val": 40}),
        ("fasseg_face", "camvid", None, {"train": 16, "val": 4, "test": 50}),
        ("ade20k_sample", "ade20k", None, {"train": 2, "val": 1}),
    ],
)
def test_real_datasets(
    shared: Path, name: str, layout: str, labels: tuple[str, ...] | None, expected: dict[str, int]
) -> None:
    data = load_dataset(shared / "data" / name)
    assert (data.layout, counts(data)) == (layout, expected)
    assert labels is None or data.labels.names == labels
    if name == "fasseg_face":
        assert data.labels.class_of((127, 0, 0)) == data.labels.index("hair")
    for pair in data.splits["train"] if name == "ade20k_sample" else ():
        raw = np.asarray(Image.open(pair.mask)).astype(int)
        wanted = np.where(raw == 0, 255, raw - 1)
        np.testing.assert_array_equal(read_mask(pair.mask, data.labels), wanted)


def test_a_missing_val_split_is_selected_by_a_hash_of_the_names(tmp_path: Path) -> None:
    stems = [f"p{i}" for i in range(50)]
    for folder, more in (("a", []), ("b", ["q1", "q2"])):
        joined = ",".join([*stems, *more])
        write(tmp_path / folder, f"images/{{{joined}}}.jpg masks/{{{joined}}}.png")
    first, second = load_dataset(tmp_path / "a"), load_dataset(tmp_path / "b")
    assert counts(first) == {"train": 40, "val": 10}
    assert sorted(" ".join(names(first).values()).split()) == sorted(stems)
    assert "10 of 50 train images (20%) are used for it" in first.notes[0]
    val = [set(names(data)["val"].split()) for data in (first, second)]
    assert len(val[0] - val[1]) <= 2
    assert val[0] != set(stems[:10])


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        (1, 0, {"train": 1}),
        (2, 0, {"train": 1, "val": 1}),
        (3, 0, {"train": 2, "val": 1}),
        (10, 3, {"train": 8, "val": 2, "test": 3}),
    ],
)
def test_val_takes_a_fifth_of_train_and_at_least_one(
    tmp_path: Path, train: int, test: int, expected: dict[str, int]
) -> None:
    for split, count in (("train", train), ("test", test)):
        for i in range(count):
            write(tmp_path, f"images/{split}/{i}.jpg masks/{split}/{i}.png")
    assert counts(load_dataset(tmp_path)) == expected


def test_files_without_a_partner_are_listed(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path, "images/{a,b}.jpg images/a.png masks/{a,c}.png"))
    assert [path.name for path in data.unpaired_images] == ["a.png", "b.jpg"]
    assert [path.name for path in data.unpaired_masks] == ["c.png"]
    assert data.name_of_masks == "masks"


def test_dataset_toml_names_the_folders_and_the_layout(tmp_path: Path) -> None:
    text = 'classes = ["x", "y", "z"]\nimages = "fotos"\nmasks = "wahrheit"'
    write(tmp_path / "a", "fotos/a.jpg wahrheit/a.png masks/a.png", dataset=text)
    for root in (tmp_path / "a", tmp_path / "a" / "dataset.toml"):
        data = load_dataset(root)
        assert data.splits["train"][0].mask == tmp_path / "a/wahrheit/a.png"
        assert (data.labels.names, data.named) == (("x", "y", "z"), True)
    root = voc(tmp_path / "b")
    write(root, "images/p.jpg masks/p.png")
    assert load_dataset(root).layout == "voc"
    assert names(load_dataset(root, layout="folders")) == {"train": "p"}
    write(root, "", dataset='layout = "folders"\nclasses = ["a", "b", "c"]\n')
    assert load_dataset(root).layout == "folders"
    assert load_dataset(root, layout="voc").layout == "voc"


def test_voc_from_its_parent_folders_and_without_lists(tmp_path: Path) -> None:
    home = voc(tmp_path / "VOCdevkit" / "VOC2012")
    for root in (home, home.parent, tmp_path):
        data = load_dataset(root)
        assert (data.layout, data.root, data.labels, data.named) == ("voc", home, VOC, True)
        assert names(data) == {"train": "a", "val": "b c"}
        assert data.unpaired_images == ()  # VOC has thousands of images for other tasks
    assert "found in the subfolder VOCdevkit/VOC2012" in data.notes
    assert match_layout(home)
    assert not match_layout(home.parent)
    assert {"voc", "camvid", "folders", "cityscapes", "nyud"} <= set(LAYOUTS)
    for name in ("train", "val"):
        (home / LISTS / f"{name}.txt").unlink()
    assert counts(load_dataset(home)) == {"train": 2, "val": 1}  # from trainval.txt
    files = "JPEGImages/{a,b}.jpg SegmentationClassPNG/a.png"
    data = load_dataset(write(tmp_path / "own", files, class_names="_background_\ncar\ntrack"))
    assert data.labels.names == ("_background_", "car", "track")
    assert [path.name for path in data.unpaired_images] == ["b.jpg"]


def test_camvid_by_folders_and_by_lists_with_the_paths_of_another_machine(tmp_path: Path) -> None:
    files = "train/a.jpg trainannot/a.png val/b.jpg valannot/b.png test/c.jpg testannot/c.png"
    data = load_dataset(write(tmp_path, files, ((0, 11), (10, 1))))
    assert (data.layout, data.labels, data.named) == ("camvid", CAMVID, True)
    assert names(data) == {"train": "a", "val": "b", "test": "c"}
    assert data.labels.class_of(11) == 255
    home = "/SegNet/CamVid/"
    rows = f"{home}train/a.png {home}trainannot/a.png\n{home}val/b.png {home}valannot/b.png\n"
    data = load_dataset(write(tmp_path, "", train=rows, val="test/c.jpg testannot/c.png\n"))
    assert names(data) == {"train": "a b", "val": "c"}
    assert data.splits["train"][0].image == tmp_path / "train" / "a.jpg"
    assert data.labels == CAMVID
    write(tmp_path, "", val="test/c.jpg testannot/z.png\ntest/y.jpg testannot/c.png\n")
    data = load_dataset(tmp_path)
    assert [path.name for path in data.unpaired_images] == ["c.jpg"]
    assert [path.name for path in data.unpaired_masks] == ["c.png"]


PAIR = "images/a.jpg masks/a.png"
# fmt: off
ERRORS = [
    (PAIR, {"val": "a\nz\n"}, None,
     "val.txt lists 1 name that belongs to neither an image nor a mask: z.",
     "remove them from val.txt"),
    (PAIR, {"dataset": 'images = "photos"'}, None, "names the folder ", 'images = "images"'),
    (PAIR, {}, "folder", "no layout 'folder'; expected one of cityscapes, ", "--layout folders"),
    (PAIR, {}, "camvid", "Searched for train.txt with 'image mask' lines", "fullconv check"),
    (PAIR, {"dataset": 'layout = "folder"'}, None, "dataset.toml: no layout", '"folders"'),
    (PAIR, {"dataset": 'layout = "voc"'}, None,
     "is not a dataset of the layout 'voc'. Searched for JPEGImages/",
     'layout = "folders"   # or remove this line'),
    (PAIR, {"dataset": "layout = 3"}, None, "layout is 3; expected the name of a layout", ""),
    ("images/a.jpg masks/b.png", {}, None,
     "no image has a mask: 1 image and 1 mask, such as a.jpg, b.png.", "rename the masks"),
    ("one/images/a.jpg one/masks/a.png two/images/a.jpg two/masks/a.png", {}, None,
     "contains 2 datasets: ", "/one"),
    (PAIR, {"train": "images/y.jpg masks/y.png"}, None,
     "train.txt, entry 1: neither images/y.jpg nor masks/y.png exists",
     "remove the line from train.txt"),
]
# fmt: on


@pytest.mark.parametrize(("files", "texts", "layout", "message", "hint"), ERRORS)
def test_errors(
    tmp_path: Path, files: str, texts: dict[str, str], layout: str | None, message: str, hint: str
) -> None:
    write(tmp_path, files, **texts)
    with pytest.raises(FullconvError) as caught:
        load_dataset(tmp_path, layout=layout)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_pairs_of_a_split_that_does_not_exist(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path, "images/{a,b}.jpg masks/{a,b}.png"))
    assert (data.held_out, len(data.pairs_of("val"))) == ("val", 1)
    message = "no images for the split 'test'; it has train, val"
    with pytest.raises(FullconvError, match=message) as caught:
        data.pairs_of("test")
    assert caught.value.hint == "--split val"
