import re
import tomllib

import numpy as np
import pytest
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.labels import parse_color
from fullconv.data.synthetic import objects
from fullconv.data.synthetic.scenes import LABELS, SIZE, scene, write

Scenes = list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def scenes():
    return [scene(seed) for seed in range(36)]


@pytest.mark.parametrize("size", [SIZE, (16, 16), (37, 61), (97, 41)])
def test_a_scene_has_the_requested_size(size):
    image, ids = scene(4, size=size)
    assert image.shape == (*size, 3)
    assert ids.shape == size
    assert image.dtype == ids.dtype == np.uint8


def test_the_seed_determines_a_scene():
    first, again, other = (scene(seed, size=(48, 64)) for seed in (11, 11, 12))
    for one, two in zip(first, again, strict=True):
        assert one.tobytes() == two.tobytes()
    assert (first[0] != other[0]).mean() > 0.8
    assert (first[1] != other[1]).mean() > 0.05


def test_the_global_random_state_is_not_used():
    np.random.seed(1)
    before = scene(3, size=(32, 32))[0]
    np.random.seed(2)
    state = np.random.get_state()[1].copy()
    assert (scene(3, size=(32, 32))[0] == before).all()
    assert (np.random.get_state()[1] == state).all()


def test_class_ids_have_the_names_of_the_labels():
    for k, name in enumerate(LABELS.names):
        assert getattr(objects, name.upper()) == k
    assert objects.IGNORE_INDEX == LABELS.ignore_index == 255
    assert len(set(LABELS.colors)) == len(LABELS) == 8


def test_masks_are_hard_and_every_class_occurs_in_most_scenes(scenes):
    counts = np.zeros(len(LABELS), dtype=int)
    ignored = 0
    for _, ids in scenes:
        values, sizes = np.unique(ids, return_counts=True)
        assert set(values.tolist()) <= {*range(len(LABELS)), 255}
        ignored += 255 in values
        for value, size in zip(values, sizes, strict=True):
            if value != 255 and size >= 20:
                counts[value] += 1
    assert (counts >= 0.75 * len(scenes)).all(), dict(zip(LABELS.names, counts, strict=True))
    assert 2 <= ignored <= len(scenes) // 2  # the hood of the car in some scenes, not in most


def test_the_street_is_right_side_up(scenes):
    rows = np.arange(SIZE[0])[:, None] * np.ones((1, SIZE[1]))
    mean = {
        k: np.mean([rows[ids == k].mean() for _, ids in scenes if (ids == k).any()])
        for k in range(8)
    }
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
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    stems = ["test/street_0000", "train/street_0000", "train/street_0001", "train/street_0002"]
    stems.append("val/street_0000")
    expected = [f"images/{s}.jpg" for s in stems] + [f"masks/{s}.png" for s in stems]
    assert files == sorted([*expected, "dataset.toml"])
    table = tomllib.loads((root / "dataset.toml").read_text(encoding="utf-8"))
    assert table["classes"] == list(LABELS.names)
    assert table["ignore_index"] == 255
    assert {n: parse_color(c) for n, c in table["colors"].items()} == dict(
        zip(LABELS.names, LABELS.colors, strict=True)
    )


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
    one = write(tmp_path / "one", train=2, val=1, test=0, size=(32, 40))
    two = write(tmp_path / "two", train=1, val=1, test=0, size=(32, 40))
    for name in ("images/train/street_0000.jpg", "masks/val/street_0000.png", "dataset.toml"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    write(
        two, train=2, val=1, test=0, size=(32, 40)
    )  # larger, in place: completes an interrupted call
    assert (two / "images/train/street_0001.jpg").read_bytes() == (
        one / "images/train/street_0001.jpg"
    ).read_bytes()


def test_write_refuses_a_folder_with_other_images(tmp_path):
    mine = tmp_path / "images" / "train" / "holiday.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(
        FullconvError, match=r"already contains 1 other file, .*holiday\.jpg.*empty folder"
    ):
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
