"""The layout "folders": which files are pairs, in trees as people have them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.data.layouts.dataset import Dataset, load_dataset
from fullconv.data.layouts.file_names import mask_ending, pair_by_name


def write(root: Path, *names: str) -> Path:
    """Write an image or mask of 4 x 5 pixels for each name; other files get the text after =."""
    for number, name in enumerate(names):
        path, _, text = name.partition("=")
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if text:
            (root / path).write_text(text)
        else:
            pixels = np.random.default_rng(number).integers(0, 2, (4, 5), np.uint8)
            Image.fromarray(pixels).save(root / path, "JPEG" if ".j" in Path(path).suffix else None)
    return root


def pairs_of(data: Dataset) -> dict[str, list[tuple[str, str, str]]]:
    return {
        split: [
            (pair.name, *(p.relative_to(data.root).as_posix() for p in (pair.image, pair.mask)))
            for pair in pairs
        ]
        for split, pairs in data.splits.items()
    }


SITES = [f"{kind}/{site}/{k}.{end}" for kind, end in (("images", "jpg"), ("masks", "png"))
         for site in ("north", "south") for k in "ab"]  # fmt: skip
TREES: dict[str, tuple[list[str], dict[str, list[tuple[str, str, str]]]]] = {
    "the same names in two sites, a val list": (
        [*SITES, "train.txt=north/a\nsouth/a\nsouth/b", "val.txt=north/b"],
        {
            "train": [
                ("north_a", "images/north/a.jpg", "masks/north/a.png"),
                ("south_a", "images/south/a.jpg", "masks/south/a.png"),
                ("south_b", "images/south/b.jpg", "masks/south/b.png"),
            ],
            "val": [("north_b", "images/north/b.jpg", "masks/north/b.png")],
        },
    ),
    "splits above sites": (
        [f"{kind}/{split}/{site}/a.{end}" for kind, end in (("images", "jpg"), ("masks", "png"))
         for split in ("training", "val") for site in ("x", "y")],
        {
            split: [
                ("x_a", f"images/{folder}/x/a.jpg", f"masks/{folder}/x/a.png"),
                ("y_a", f"images/{folder}/y/a.jpg", f"masks/{folder}/y/a.png"),
            ]
            for split, folder in (("train", "training"), ("val", "val"))
        },
    ),
    "splits below sites": (
        [f"{kind}/x/{split}/{split}.{end}" for kind, end in (("images", "jpg"), ("masks", "png"))
         for split in ("train", "val")],
        {s: [(s, f"images/x/{s}/{s}.jpg", f"masks/x/{s}/{s}.png")] for s in ("train", "val")},
    ),
    "splits of the images alone": (
        ["images/train/a.jpg", "images/val/b.jpg", "masks/a.png", "masks/b.png"],
        {
            "train": [("a", "images/train/a.jpg", "masks/a.png")],
            "val": [("b", "images/val/b.jpg", "masks/b.png")],
        },
    ),
    "splits of the masks alone": (
        ["images/a.jpg", "images/b.jpg", "masks/train/a.png", "masks/val/b.png"],
        {
            "train": [("a", "images/a.jpg", "masks/train/a.png")],
            "val": [("b", "images/b.jpg", "masks/val/b.png")],
        },
    ),
    "masks among the images of each split": (
        ["train/a.jpg", "train/a_mask.png", "valid/b.jpg", "valid/b_mask.png"],
        {
            "train": [("a", "train/a.jpg", "train/a_mask.png")],
            "val": [("b", "valid/b.jpg", "valid/b_mask.png")],
        },
    ),
    "masks among the images, with lists": (
        ["a.jpg", "a_GT.png", "b.jpg", "b_GT.png", "train.txt=a", "val.txt=b"],
        {"train": [("a", "a.jpg", "a_GT.png")], "val": [("b", "b.jpg", "b_GT.png")]},
    ),
    "a folder of dataset.toml inside each split": (
        ["train/images/a.jpg", "train/mask/a.png", "train/vessels/a.png", "val/images/b.jpg",
         "val/mask/b.png", "val/vessels/b.png", 'dataset.toml=masks = "vessels"'],
        {
            "train": [("a", "train/images/a.jpg", "train/vessels/a.png")],
            "val": [("b", "val/images/b.jpg", "val/vessels/b.png")],
        },
    ),
    "other names inside each split": (
        ["train/sat/a.jpg", "train/map/a.png", "val/sat/b.jpg", "val/map/b.png",
         'dataset.toml=images = "sat"\nmasks = "map"'],
        {
            "train": [("a", "train/sat/a.jpg", "train/map/a.png")],
            "val": [("b", "val/sat/b.jpg", "val/map/b.png")],
        },
    ),
    "MMSegmentation": (
        ["img_dir/train/a.jpg", "ann_dir/train/a.png", "img_dir/val/b.jpg", "ann_dir/val/b.png"],
        {
            "train": [("a", "img_dir/train/a.jpg", "ann_dir/train/a.png")],
            "val": [("b", "img_dir/val/b.jpg", "ann_dir/val/b.png")],
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_trees(tmp_path: Path, name: str) -> None:
    files, expected = TREES[name]
    data = load_dataset(write(tmp_path, *files))
    assert pairs_of(data) == expected
    assert (data.unpaired_images, data.unpaired_masks) == ((), ())


def test_files_of_different_sites_are_no_pairs(tmp_path: Path) -> None:
    write(tmp_path, "images/north/a.jpg", "images/south/b.jpg", "masks/south/a.png")
    write(tmp_path, "images/c.jpg", "masks/c.png", "images/extra/d.jpg", "masks/extra/d_mask.png")
    data = load_dataset(tmp_path)
    assert sorted(p.name for pairs in data.splits.values() for p in pairs) == ["c", "d"]
    assert [path.name for path in data.unpaired_images] == ["a.jpg", "b.jpg"]
    assert data.unpaired_masks == (tmp_path / "masks/south/a.png",)


def test_a_mask_of_two_splits_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "images/train/a.jpg", "images/val/a.jpg", "masks/a.png")
    with pytest.raises(FullconvError) as caught:
        load_dataset(tmp_path)
    assert caught.value.message == (
        f"{tmp_path}/masks/a.png may be the mask of {tmp_path}/images/train/a.jpg and of "
        f"{tmp_path}/images/val/a.jpg; expected a mask for each."
    )


def test_a_list_means_the_exact_name_first(tmp_path: Path) -> None:
    write(tmp_path, "images/a.jpg", "images/a_L.jpg", "masks/a.png", "masks/a_L.png")
    write(tmp_path, "train.txt=a", "val.txt=a_L")
    data = load_dataset(tmp_path)
    assert {split: [pair.name for pair in pairs] for split, pairs in data.splits.items()} == {
        "train": ["a"],
        "val": ["a_L"],
    }


def test_a_listed_name_of_two_sites_needs_its_folder(tmp_path: Path) -> None:
    write(tmp_path, *SITES, "train.txt=a\n", "val.txt=north/b")
    with pytest.raises(FullconvError) as caught:
        load_dataset(tmp_path)
    assert caught.value.message == (
        f"{tmp_path}/train.txt lists 'a', but 2 images have that name: north/a, south/a. Expected "
        "the folder before the name."
    )
    assert caught.value.hint == "north/a"


def test_other_folders_with_a_file_for_each_image_are_named(tmp_path: Path) -> None:
    files = [f"{folder}/{k}.png" for folder in ("images", "masks", "depth", "few") for k in "abc"]
    write(tmp_path, *(name for name in files if name not in ("few/a.png", "few/b.png")))
    write(tmp_path, *(f"originals/{k}.jpg" for k in "abc"))
    notes = load_dataset(tmp_path).notes
    assert notes[0] == (
        'masks are read from masks; depth also has a file for each image (masks = "depth" in '
        "dataset.toml selects it)"
    )
    write(tmp_path, 'dataset.toml=masks = "depth"\n')
    assert {pair.mask.parent.name for pair in load_dataset(tmp_path).pairs_of("train")} == {"depth"}


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        *(("a.jpg", mask) for mask in ("a_segmentation.png", "a_GT.png", "a_Mask.png", "A.png")),
        *(("a.jpg", mask) for mask in ("a.jpg.png", "a.jpg_mask.png", "a.JPG.PNG", "a_target.tif")),
        ("IMG_1.jpg", "img_1.png"),
        ("case_007_0000.png", "case_007.png"),
        ("stra\u00dfe e\u0301.jpg", "stra\u00dfe \u00e9.png"),  # decomposed and composed
    ],
)
def test_names_of_a_mask(image: str, mask: str) -> None:
    named = pair_by_name([Path("z.jpg"), Path(image)], [Path(mask), Path("other.png")])
    assert [(pair.image.name, pair.mask.name) for pair in named.pairs] == [(image, mask)]
    assert (named.images, named.masks) == ([Path("z.jpg")], [Path("other.png")])


@pytest.mark.parametrize(
    ("images", "masks", "count"),
    [
        ("21_training.tif 22_training.tif", "21_manual1.gif 22_manual1.gif", 2),
        ("img7.jpg img12.jpg", "gt_012.png gt_007.png", 2),
        ("img1.jpg img2.jpg img3.jpg", "gt_2.png gt_3.png", 2),
        ("s1_2.jpg s2_3.jpg", "m_1_2.png m_2_3.png", 2),
        ("s1_2.jpg s2_1.jpg", "m_1_2.png m_2_1.png", 0),  # or is it m_2_1.png?
        ("img1.jpg img2.jpg", "gt_2.png gt_3.png", 0),  # no partner for one of each side
        ("img1.jpg", "gt_1.png", 0),  # a single file agrees with anything
        ("img1.jpg img01.jpg", "gt_1.png gt_2.png", 0),  # one number twice
        ("red1.jpg blue2.jpg", "gt_1.png gt_2.png", 0),  # letters differ, too
        ("a.jpg b.jpg", "c.png d.png", 0),
    ],
)
def test_pairs_by_number(images: str, masks: str, count: int) -> None:
    named = pair_by_name(map(Path, images.split()), map(Path, masks.split()))
    assert len(named.pairs) == count
    assert bool(named.note) == (count > 0)
    for pair in named.pairs:
        image, mask = (
            [int(n) for n in re.findall("[0-9]+", p.stem)] for p in (pair.image, pair.mask)
        )
        assert mask[: len(image)] == image


STEMS = st.lists(st.from_regex(r"[ab]{0,2}[0-9]{1,2}(_mask)?", fullmatch=True), unique=True)


@given(STEMS, STEMS)
def test_every_file_is_once_in_a_pair_or_alone(images: list[str], masks: list[str]) -> None:
    image_files = [Path(f"{stem}.jpg") for stem in images]
    mask_files = [Path(f"{stem}.png") for stem in masks]
    named = pair_by_name(image_files, mask_files)
    assert sorted([pair.image for pair in named.pairs] + named.images) == sorted(image_files)
    assert sorted([pair.mask for pair in named.pairs] + named.masks) == sorted(mask_files)
    exact = set(images) & set(masks)
    assert exact <= {pair.name for pair in named.pairs if pair.image.stem == pair.mask.stem}


def test_mask_ending() -> None:
    assert mask_ending(["a", "a_Mask", "b", "b_Mask", "c_gt", "c"]) == "_Mask"
    assert mask_ending(["a_mask", "b", "_mask"]) == ""


@pytest.mark.parametrize(
    ("files", "images", "masks", "count"),
    [
        # Photographs of the two sites agree as well as the masks do.
        (["photos/n/{k}.jpg", "photos/s/{k}.jpg", "truth/n/{k}.png", "truth/s/{k}.png"],
         "photos", "truth", 8),
        (["A/train/{k}.jpg", "A/val/v{k}.jpg", "B/train/{k}.png", "B/val/v{k}.png"], "A", "B", 8),
        (["train/sat/{k}.jpg", "train/map/{k}.png", "val/sat/{k}.jpg", "val/map/{k}.png"],
         "sat", "map", 8),
        (["{k}.jpg", "truth/{k}.png"], ".", "truth", 4),
    ],
)  # fmt: skip
def test_proposed_folders(
    tmp_path: Path, files: list[str], images: str, masks: str, count: int
) -> None:
    noise = np.random.default_rng(0)
    for template in files:
        for k in range(4):
            path = tmp_path / template.format(k=k)
            path.parent.mkdir(parents=True, exist_ok=True)
            levels = 256 if path.suffix == ".jpg" else 2
            Image.fromarray(noise.integers(0, levels, (8, 9), np.uint8)).save(path)
    with pytest.raises(FullconvError) as caught:
        load_dataset(tmp_path)
    assert f"{count} file names agree" in caught.value.message
    lines = caught.value.hint.splitlines()
    assert lines[1:] == [f"images = {json.dumps(images)}", f"masks = {json.dumps(masks)}"]
    (tmp_path / "dataset.toml").write_text("\n".join(lines[1:]))
    data = load_dataset(tmp_path)
    assert sum(map(len, data.splits.values())) == count
    assert all(pair.mask.suffix == ".png" for pairs in data.splits.values() for pair in pairs)
