from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.data.layouts.class_table import CAMVID, UNDETERMINED, VOC
from fullconv.data.layouts.dataset import LAYOUTS, Dataset, load_dataset, match_layout


def draw(root: Path, *names: str, values: object = ((0, 1), (2, 1))) -> Path:
    """Files by name: JPEG photos, and PNG masks with these values."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (2, 2), "red")
        if path.suffix == ".png":
            image = Image.fromarray(np.array(values, np.uint8))
        image.save(path)
    return root


def shape(data: Dataset) -> dict[str, list[str]]:
    return {split: [pair.name for pair in pairs] for split, pairs in data.splits.items()}


def test_split_folders_inside(tmp_path: Path) -> None:
    draw(tmp_path, "images/train/a.jpg", "masks/train/a.png")
    draw(tmp_path, "images/train/b.JPG", "masks/train/b_mask.png")
    draw(tmp_path, "images/val/c.jpg", "masks/val/c.png", "images/val/.d.jpg", "masks/val/._c.png")
    data = load_dataset(str(tmp_path))
    assert (data.layout, data.root) == ("folders", tmp_path)
    assert shape(data) == {"train": ["a", "b"], "val": ["c"]}
    pair = data.splits["train"][1]
    assert (pair.image.name, pair.mask.name) == ("b.JPG", "b_mask.png")
    assert data.reason == "images and masks with a folder per split"
    assert data.labels.names == ("class 0", "class 1", "class 2")
    assert not data.named
    assert data.unpaired_images == data.unpaired_masks == ()


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_split_folders_outside(tmp_path: Path, val: str) -> None:
    draw(tmp_path, "training/imgs/a.jpg", "training/labels/a.png")
    draw(tmp_path, f"{val}/imgs/b.jpg", f"{val}/labels/b.png")
    draw(tmp_path, "testing/imgs/c.jpg", "testing/labels/c.png")
    assert shape(load_dataset(tmp_path)) == {"train": ["a"], "val": ["b"], "test": ["c"]}


def test_lists_of_stems(tmp_path: Path) -> None:
    draw(tmp_path, *(f"images/{s}.jpg" for s in "abcd"), *(f"gt/{s}.png" for s in "abcd"))
    (tmp_path / "train.txt").write_text("c\na.jpg\n")
    (tmp_path / "val.txt").write_text("b\n")
    data = load_dataset(tmp_path)
    assert shape(data) == {"train": ["a", "c"], "val": ["b"]}
    assert data.notes[0] == "left out: 1 image on no list"
    assert data.unpaired_images == data.unpaired_masks == ()
    (tmp_path / "val.txt").write_text("b\nz\n")
    with pytest.raises(FullconvError, match=r"val.txt lists 1 name with neither .*: z\.") as e:
        load_dataset(tmp_path)
    assert "take them out of val.txt" in e.value.hint


def test_without_splits_a_fifth_is_taken_by_name(tmp_path: Path) -> None:
    stems = [f"p{i}" for i in range(50)]
    draw(tmp_path / "one", *(f"images/{s}.jpg" for s in stems), *(f"masks/{s}.png" for s in stems))
    first = load_dataset(tmp_path / "one")
    assert [len(first.splits[s]) for s in ("train", "val")] == [40, 10]
    assert sorted(name for names in shape(first).values() for name in names) == sorted(stems)
    assert "10 of 50 train images (20%) taken for it by a hash of their names" in first.notes[0]
    more = [*stems, "q1", "q2"]  # elsewhere, and with two images more
    draw(tmp_path / "two", *(f"images/{s}.jpg" for s in more), *(f"masks/{s}.png" for s in more))
    again = load_dataset(tmp_path / "two")
    moved = set(shape(first)["val"]) - set(shape(again)["val"])
    assert len(moved) <= 2
    assert shape(first)["val"] != stems[:10]


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (2, [1, 1]), (3, [2, 1])])
def test_val_is_never_empty_where_two_images_are(
    tmp_path: Path, count: int, sizes: list[int]
) -> None:
    for i in range(count):
        draw(tmp_path, f"images/{i}.jpg", f"masks/{i}.png")
    assert [len(pairs) for pairs in load_dataset(tmp_path).splits.values()] == sizes


def test_train_and_test_get_a_val_from_train(tmp_path: Path) -> None:
    for i in range(10):
        draw(tmp_path, f"images/train/{i}.jpg", f"masks/train/{i}.png")
        draw(tmp_path, f"images/test/{i}.jpg", f"masks/test/{i}.png")
    data = load_dataset(tmp_path)
    assert {split: len(pairs) for split, pairs in data.splits.items()} == {
        "train": 8,
        "val": 2,
        "test": 10,
    }
    assert "no val split found: 2 of 10" in data.notes[0]


def test_what_has_no_partner_is_listed(tmp_path: Path) -> None:
    draw(tmp_path, "images/a.jpg", "images/b.jpg", "images/a.png", "masks/a.png", "masks/c.png")
    data = load_dataset(tmp_path)
    assert [path.name for path in data.unpaired_images] == ["a.png", "b.jpg"]
    assert [path.name for path in data.unpaired_masks] == ["c.png"]


def test_dataset_toml_names_the_folders(tmp_path: Path) -> None:
    draw(tmp_path, "fotos/a.jpg", "wahrheit/a.png", "masks/a.png")
    (tmp_path / "dataset.toml").write_text(
        'classes = ["x", "y", "z"]\nimages = "fotos"\nmasks = "wahrheit"'
    )
    for root in (tmp_path, tmp_path / "dataset.toml"):
        data = load_dataset(root)
        assert data.splits["train"][0].mask == tmp_path / "wahrheit" / "a.png"
        assert (data.labels.names, data.named) == (("x", "y", "z"), True)
    (tmp_path / "dataset.toml").write_text('images = "photos"')
    with pytest.raises(FullconvError, match=r"images names the folder .*photos, which is not the"):
        load_dataset(tmp_path)


def voc(root: Path) -> Path:
    draw(root, *(f"JPEGImages/{s}.jpg" for s in "abcde"))
    draw(root, *(f"SegmentationClass/{s}.png" for s in "abc"), values=((0, 20), (255, 1)))
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name, stems in {"train": "a", "val": "bc", "trainval": "abc"}.items():
        (lists / f"{name}.txt").write_text("\n".join(stems))
    return root


def test_voc_also_from_its_parent_folders(tmp_path: Path) -> None:
    home = voc(tmp_path / "VOCdevkit" / "VOC2012")
    for root in (home, home.parent, tmp_path):
        data = load_dataset(root)
        assert (data.layout, data.root, data.labels) == ("voc", home, VOC)
        assert shape(data) == {"train": ["a"], "val": ["b", "c"]}
        assert data.unpaired_images == ()  # VOC has thousands that are for other tasks
        assert data.named
    assert "found in the sub-folder VOCdevkit/VOC2012" in data.notes


def test_voc_with_trainval_alone_gets_a_val(tmp_path: Path) -> None:
    lists = voc(tmp_path) / "ImageSets" / "Segmentation"
    (lists / "train.txt").unlink()
    (lists / "val.txt").unlink()
    assert [len(pairs) for pairs in load_dataset(tmp_path).splits.values()] == [2, 1]


def test_voc_without_lists_and_with_names_of_its_own(tmp_path: Path) -> None:
    draw(tmp_path, "JPEGImages/a.jpg", "SegmentationClassPNG/a.png", "JPEGImages/b.jpg")
    (tmp_path / "class_names.txt").write_text("_background_\ncar\ntrack")
    data = load_dataset(tmp_path)
    assert data.labels.names == ("_background_", "car", "track")
    assert [path.name for path in data.unpaired_images] == ["b.jpg"]


def camvid(root: Path) -> Path:
    for split, stem in (("train", "a"), ("val", "b"), ("test", "c")):
        draw(root, f"{split}/{stem}.jpg", f"{split}annot/{stem}.png", values=((0, 11), (10, 1)))
    return root


def test_camvid_by_folders(tmp_path: Path) -> None:
    data = load_dataset(camvid(tmp_path))
    assert (data.layout, data.labels, data.named) == ("camvid", CAMVID, True)
    assert shape(data) == {"train": ["a"], "val": ["b"], "test": ["c"]}
    assert data.labels.class_of(11) == 255


def test_camvid_by_lists_with_the_paths_of_another_machine(tmp_path: Path) -> None:
    camvid(tmp_path)
    home = "/SegNet/CamVid/"
    (tmp_path / "train.txt").write_text(
        f"{home}train/a.png {home}trainannot/a.png\n{home}val/b.png {home}valannot/b.png\n"
    )
    (tmp_path / "val.txt").write_text("test/c.jpg testannot/c.png\n")
    data = load_dataset(tmp_path)
    assert shape(data) == {"train": ["a", "b"], "val": ["c"]}
    assert data.splits["train"][0].image == tmp_path / "train" / "a.jpg"
    assert data.labels == CAMVID
    (tmp_path / "val.txt").write_text("test/c.jpg testannot/z.png\ntest/y.jpg testannot/c.png\n")
    data = load_dataset(tmp_path)
    assert [path.name for path in data.unpaired_images] == ["c.jpg"]
    assert [path.name for path in data.unpaired_masks] == ["c.png"]
    (tmp_path / "val.txt").write_text("test/y.jpg testannot/y.png\n")
    with pytest.raises(FullconvError, match=r"val.txt, entry 1: neither test/y.jpg nor testannot"):
        load_dataset(tmp_path)


def test_the_same_stem_in_two_folders_gets_two_names(tmp_path: Path) -> None:
    draw(tmp_path, "x/a.jpg", "y/a.jpg", "xm/a.png", "ym/a.png")
    (tmp_path / "train.txt").write_text("x/a.jpg xm/a.png\ny/a.jpg ym/a.png\n")
    (tmp_path / "val.txt").write_text("x/a.jpg xm/a.png\n")
    assert shape(load_dataset(tmp_path)) == {"train": ["a", "y_a"], "val": ["a"]}


def test_other_names_than_annot_are_not_camvid_classes(tmp_path: Path) -> None:
    draw(tmp_path, "train_img/a.jpg", "train_label/a.png", "val_img/b.jpg", "val_label/b.png")
    data = load_dataset(tmp_path)
    assert shape(data) == {"train": ["a"], "val": ["b"]}
    assert not data.named


def test_black_and_white_masks_are_not_guessed(tmp_path: Path) -> None:
    data = load_dataset(draw(tmp_path, "images/a.jpg", "masks/a.png", values=((0, 255), (0, 0))))
    assert data.labels is UNDETERMINED
    assert not data.named


def test_a_layout_can_be_asked_for(tmp_path: Path) -> None:
    voc(tmp_path)
    draw(tmp_path, "images/p.jpg", "masks/p.png")
    assert load_dataset(tmp_path).layout == "voc"
    assert shape(load_dataset(tmp_path, layout="folders")) == {"train": ["p"]}
    with pytest.raises(FullconvError, match="no layout 'folder'; there are cityscapes, ") as caught:
        load_dataset(tmp_path, layout="folder")
    assert caught.value.hint == "--layout folders"
    with pytest.raises(FullconvError, match=r"Looked for train.txt with .* Found Imag"):
        load_dataset(tmp_path, layout="camvid")


def test_names_that_do_not_agree_are_shown(tmp_path: Path) -> None:
    draw(tmp_path, "images/a.jpg", "masks/b.png")
    with pytest.raises(
        FullconvError, match=r"no image has a mask: 1 image and 1 mask, .* a\.jpg and b\.png\."
    ):
        load_dataset(tmp_path)


def test_two_data_sets_in_one_folder_are_not_mixed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        draw(tmp_path / name, "images/a.jpg", "masks/a.png")
    with pytest.raises(FullconvError, match=r"holds 2 data sets: .*one, .*two; expected one") as e:
        load_dataset(tmp_path)
    assert e.value.hint == f"fullconv check {tmp_path / 'one'}"


def test_whether_the_folder_itself_match_layout(tmp_path: Path) -> None:
    home = voc(tmp_path / "VOCdevkit" / "VOC2012")
    assert match_layout(home)
    assert not match_layout(home.parent)
    assert {"voc", "camvid", "folders", "cityscapes", "nyud"} <= set(LAYOUTS)


def test_camvid_itself(shared: Path) -> None:
    data = load_dataset(shared / "data" / "camvid")
    assert {split: len(pairs) for split, pairs in data.splits.items()} == {
        "train": 367,
        "val": 101,
        "test": 233,
    }
    assert (data.labels, data.layout) == (CAMVID, "camvid")


def test_the_voc_sample(shared: Path) -> None:
    data = load_dataset(shared / "data" / "voc2012_sample")
    assert {split: len(pairs) for split, pairs in data.splits.items()} == {"train": 60, "val": 40}
    assert data.labels.names == VOC.names


def test_the_face_sample(shared: Path) -> None:
    data = load_dataset(shared / "data" / "fasseg_face")
    assert {s: len(p) for s, p in data.splits.items()} == {"train": 16, "val": 4, "test": 50}
    assert data.labels.class_of((127, 0, 0)) == data.labels.index("hair")


def test_dataset_toml_can_name_the_layout_for_every_command(tmp_path: Path) -> None:
    """A folder that looks like VOC's and like plain folders: the file decides, until it is told
    otherwise."""
    for folder in ("JPEGImages", "SegmentationClass", "images", "masks"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            Image.new("L", (40, 40)).save(tmp_path / folder / f"{name}.png")
    toml = tmp_path / "dataset.toml"
    assert load_dataset(tmp_path).layout == "voc"
    toml.write_text('layout = "folders"\nclasses = ["sky", "road"]\n')
    assert load_dataset(tmp_path).layout == "folders"
    assert load_dataset(tmp_path, layout="voc").layout == "voc"
    toml.write_text('layout = "folder"\n')
    with pytest.raises(FullconvError, match="no layout 'folder'; there are ") as caught:
        load_dataset(tmp_path)
    assert caught.value.message.startswith(f"{toml}: no layout")
    assert caught.value.hint == 'layout = "folders"'
    toml.write_text('layout = "cityscapes"\n')
    with pytest.raises(FullconvError, match="is no data set of the layout 'cityscapes'") as caught:
        load_dataset(tmp_path)
    assert caught.value.message.startswith(f"{toml}: {tmp_path} is no data set")
    assert caught.value.hint == 'layout = "folders"   # there; without this line it is recognised'
    toml.write_text("layout = 3\n")
    with pytest.raises(FullconvError, match="layout is 3; expected the name of a layout"):
        load_dataset(tmp_path)
