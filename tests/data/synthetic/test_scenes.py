import re
import tomllib

import numpy as np
import pytest
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.labels import parse_color
from fullconv.data.synthetic import objects
from fullconv.data.synthetic.scenes import LABELS, SIZE, scene, write


@pytest.fixture(scope="module")
def scenes():
    return [scene(seed) for seed in range(36)]


@pytest.mark.parametrize("size", [SIZE, (16, 16), (37, 61), (97, 41)])
def test_a_scene_has_the_requested_size(size):
    image, ids = scene(4, size=size)
    assert image.shape == (*size, 3)
    assert ids.shape == size
    assert image.dtype == ids.dtype == np.uint8


def test_only_the_seed_determines_a_scene():
    np.random.seed(1)
    first, other = scene(11, size=(48, 64)), scene(12, size=(48, 64))
    np.random.seed(2)
    state = np.random.get_state()[1].copy()
    assert all(map(np.array_equal, scene(11, size=(48, 64)), first))
    assert (np.random.get_state()[1] == state).all()
    assert (first[0] != other[0]).mean() > 0.8
    assert (first[1] != other[1]).mean() > 0.05


def test_class_ids_have_the_names_of_the_labels():
    for k, name in enumerate(LABELS.names):
        assert getattr(objects, name.upper()) == k
    assert objects.IGNORE_INDEX == LABELS.ignore_index == 255
    assert len(set(LABELS.colors)) == len(LABELS) == 8


def test_masks_are_hard_and_every_class_occurs_in_most_scenes(scenes):
    pixels = np.array([np.bincount(ids.ravel(), minlength=256) for _, ids in scenes])
    assert not pixels[:, len(LABELS) : 255].any()
    counts = (pixels[:, : len(LABELS)] >= 20).sum(axis=0)
    assert (counts >= 0.75 * len(scenes)).all(), dict(zip(LABELS.names, counts, strict=True))
    ignored = (pixels[:, 255] > 0).sum()
    assert 2 <= ignored <= len(scenes) // 2  # the hood of the car in some scenes, not in most


def test_the_street_is_right_side_up(scenes):
    rows = np.arange(SIZE[0])[:, None] * np.ones((1, SIZE[1]))
    mean = [np.mean([rows[ids == k].mean() for _, ids in scenes if k in ids]) for k in range(8)]
    assert mean[objects.SKY] < mean[objects.BUILDING] < mean[objects.CAR] < mean[objects.ROAD]
    assert mean[objects.PERSON] < mean[objects.ROAD]


def test_borders_of_the_mask_are_edges_in_the_photo(scenes):
    across, within = [], []
    for image, ids in scenes:
        step = np.abs(np.diff(image.astype(float), axis=1)).mean(axis=-1)
        border = ids[:, 1:] != ids[:, :-1]
        across.append(step[border].mean())
        within.append(step[~border].mean())
    assert np.mean(across) > 2 * np.mean(within)


def test_color_alone_does_not_determine_the_class(scenes):
    k, bins = len(LABELS), 16

    def cells(image):
        r, g, b = np.moveaxis(image.astype(int) * bins // 256, -1, 0)
        return (r * bins + g) * bins + b

    table = np.full((bins**3, k), 1e-6)
    for image, ids in scenes[:24]:
        valid = ids < k
        np.add.at(table, (cells(image)[valid], ids[valid]), 1)

    def mean_iou(pixels):
        matrix = np.zeros((k, k))
        for image, ids in scenes[24:]:
            valid = ids < k
            guess = pixels[cells(image)[valid]]
            np.add.at(matrix, (ids[valid], guess), 1)
        hit = np.diag(matrix)
        return float(np.mean(hit / (matrix.sum(0) + matrix.sum(1) - hit)))

    likely = mean_iou(table.argmax(axis=1))
    balanced = mean_iou((table / table.sum(axis=0)).argmax(axis=1))
    assert 0.05 < likely < 0.4  # better than nothing, far from solved
    assert 0.05 < balanced < 0.4


def test_write_a_dataset(tmp_path):
    root = write(tmp_path / "new" / "streets", train=3, val=1, test=1, size=(40, 56), seed=2)
    assert root == tmp_path / "new" / "streets"
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    names = ["train/street_0000", "train/street_0001", "train/street_0002"]
    names += ["val/street_0000", "test/street_0000"]
    expected = [path for name in names for path in (f"images/{name}.jpg", f"masks/{name}.png")]
    assert files == {*expected, "dataset.toml"}
    table = tomllib.loads((root / "dataset.toml").read_text(encoding="utf-8"))
    assert table["classes"] == list(LABELS.names)
    assert table["ignore_index"] == 255
    colors = {name: parse_color(color) for name, color in table["colors"].items()}
    assert colors == dict(zip(LABELS.names, LABELS.colors, strict=True))


def test_written_masks_are_exact_and_photos_similar(tmp_path):
    write(tmp_path, train=2, val=1, test=0, size=(40, 56), seed=3)
    assert not (tmp_path / "images/test").exists()
    masks = []
    for split, part in (("train", 0), ("val", 1)):
        image, ids = scene((3 * 3 + part) * 1_000_000, size=(40, 56))
        mask = Image.open(tmp_path / f"masks/{split}/street_0000.png")
        assert mask.mode == "P"
        assert (np.asarray(mask) == ids).all()
        assert mask.getpalette()[:24] == [c for color in LABELS.colors for c in color]
        photo = np.asarray(Image.open(tmp_path / f"images/{split}/street_0000.jpg"))
        assert np.abs(photo.astype(int) - image).mean() < 5
        masks.append(ids)
    assert (masks[0] != masks[1]).any()  # the splits have different scenes


def test_written_files_depend_only_on_seed_and_number(tmp_path):
    options = {"val": 1, "test": 0, "size": (32, 40)}
    large = write(tmp_path / "large", train=2, **options)
    small = write(tmp_path / "small", train=1, **options)
    for name in ("images/train/street_0000.jpg", "masks/val/street_0000.png", "dataset.toml"):
        assert (large / name).read_bytes() == (small / name).read_bytes()
    write(small, train=2, **options)  # in place: completes an interrupted call
    name = "images/train/street_0001.jpg"
    assert (large / name).read_bytes() == (small / name).read_bytes()


def test_write_refuses_a_folder_with_other_images(tmp_path):
    mine = tmp_path / "images" / "train" / "holiday.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    message = r"already contains 1 other file, .*holiday\.jpg.*empty folder"
    with pytest.raises(FullconvError, match=message):
        write(tmp_path, train=1, val=0, test=0, size=(32, 32))
    assert mine.read_bytes() == b"mine"
    assert not (tmp_path / "dataset.toml").exists()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: scene(-1), "the seed of a scene is -1; expected an integer of 0 or more"),
        (lambda _: scene(0.5), "the seed of a scene is 0.5"),
        (lambda _: scene(0, size=(8, 200)), "size (8, 200); expected (height, width) of 16 pixels"),
        (lambda root: write(root, train=-1), "train -1, val 40, test 40 scenes; expected no nega"),
        (lambda root: write(root, train=0, val=0, test=0), "no negative number and at least one"),
    ],
)
def test_errors(tmp_path, call, message):
    with pytest.raises(FullconvError, match=re.escape(message)):
        call(tmp_path)
    assert list(tmp_path.iterdir()) == []
