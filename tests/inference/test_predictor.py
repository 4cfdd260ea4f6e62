"""Images in, segmentations out: every kind of image, every size, and what is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from photos import photo, written
from PIL import Image

import fullconv as fc
from fullconv.inference.predictor import Predictor, load
from fullconv.inference.segmenter import as_array
from fullconv.models.model import Model

MakeModel = Callable[..., Model]
ROTATED = 6  # EXIF: the camera was held upright; what is stored lies on its side


@pytest.fixture(scope="module")
def predictor(make_model: MakeModel) -> Predictor:
    return Predictor(make_model(), device="cpu")


@pytest.fixture(scope="module")
def expected(predictor: Predictor) -> np.ndarray:
    """What the network says of `photo()`, from the scores at every pixel."""
    return by_hand(predictor, photo())


def by_hand(predictor: Predictor, image: np.ndarray) -> np.ndarray:
    card, network = predictor.model.card, predictor.model.network
    values = (image.astype(np.float32) / 255 - card.mean) / np.float32(card.std)
    images = torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)[None]
    with torch.no_grad():
        return network(images).full().argmax(dim=1)[0].numpy()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (50, 33), (64, 64), (65, 97)])
def test_every_size_gives_the_largest_score_at_every_pixel(
    predictor: Predictor, size: tuple[int, int]
) -> None:
    image = photo(*size)
    segmentation = predictor(image)
    assert segmentation.mask.shape == size
    assert segmentation.mask.dtype == np.uint8
    assert (segmentation.mask == by_hand(predictor, image)).all()
    assert (segmentation.image == image).all()
    assert segmentation.overlay().size[0] >= size[1]
    assert segmentation.overlay(legend=False).size == segmentation.color().size == size[::-1]
    assert sum(segmentation.area.values()) == pytest.approx(1)


def test_the_network_tells_classes_apart_in_these_tests(expected: np.ndarray) -> None:
    assert set(np.unique(expected)) == {0, 1, 2}


def test_every_way_to_hand_over_a_image_gives_the_same(
    predictor: Predictor, expected: np.ndarray, tmp_path: Path
) -> None:
    image = photo()
    path = written(tmp_path / "a.png", image)
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)
    ways = {
        "path": path,
        "text": str(path),
        "PIL": Image.fromarray(image),
        "array": image,
        "array not contiguous": np.ascontiguousarray(image[:, ::-1])[:, ::-1],
        "array with alpha": np.dstack([image, np.full(image.shape[:2], 9, np.uint8)]),
        "16 bit": image.astype(np.uint16) * 257,
        "tensor": tensor,
        "float tensor": tensor / 255,
        "double tensor": tensor.double() / 255,
        "tensor with gradient": (tensor / 255).requires_grad_(True),
    }
    for name, way in ways.items():
        assert (predictor(way).mask == expected).all(), name
    many = predictor(list(ways.values()))
    assert len(many) == len(ways)
    assert all((segmentation.mask == expected).all() for segmentation in many)
    assert [s.source for s in predictor((str(path), image))] == [path, None]
    assert predictor([]) == []


def test_grey_images_are_grey_in_all_three_channels(predictor: Predictor, tmp_path: Path) -> None:
    grey = photo()[..., 0]
    expected = predictor(np.repeat(grey[..., None], 3, 2)).mask
    path = written(tmp_path / "grey.png", grey)
    ways = [grey, grey[..., None], path, torch.from_numpy(grey[None].copy()), Image.open(path)]
    ways.append(written(tmp_path / "16.png", grey.astype(np.uint16) * 257))
    for way in ways:
        assert (predictor(way).mask == expected).all()


def test_alpha_is_dropped_and_a_palette_is_seen_as_its_colours(
    predictor: Predictor, expected: np.ndarray, tmp_path: Path
) -> None:
    with_alpha = np.dstack([photo(), np.arange(33, dtype=np.uint8)[None].repeat(50, 0)])
    assert (predictor(written(tmp_path / "alpha.png", with_alpha)).mask == expected).all()
    flat = Image.fromarray(photo()).quantize(16)
    flat.save(tmp_path / "palette.png")
    seen = np.asarray(flat.convert("RGB"))
    assert (predictor(tmp_path / "palette.png").mask == predictor(seen).mask).all()


def test_a_turned_photo_is_segmented_as_it_is_seen(
    predictor: Predictor, expected: np.ndarray, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    stored = np.ascontiguousarray(np.rot90(photo()))
    path = written(tmp_path / "turned.png", stored, exif=exif)
    assert stored.shape[:2] == (33, 50)
    segmentation = predictor(path)
    assert segmentation.mask.shape == (50, 33)
    assert (segmentation.mask == expected).all()
    assert (predictor(Image.open(path)).mask == expected).all()
    assert (segmentation.to_dict()["height"], segmentation.to_dict()["width"]) == (50, 33)


def test_a_little_overshoot_of_a_resized_float_image_is_cut() -> None:
    tensor = torch.tensor([-0.02, 0.5, 1.02]).view(3, 1, 1)
    assert as_array(tensor).tolist() == [[[0, 128, 255]]]


def test_the_loaded_model_is_the_public_way_in(model_folder: Path) -> None:
    model = fc.load(model_folder, device="cpu")
    segmentation = model(photo())
    assert isinstance(segmentation, fc.Segmentation)
    assert segmentation.labels.names[0] == "sky"
    assert model.device == torch.device("cpu")
    assert not model.model.network.training
    assert segmentation.area["sky"] == pytest.approx((segmentation.mask == 0).mean())
    assert (load(str(model_folder), device="cpu")(photo()).mask == segmentation.mask).all()


def test_a_prediction_depends_on_nothing_that_came_before(
    predictor: Predictor, expected: np.ndarray
) -> None:
    predictor(photo(40, 70, seed=1))
    assert (predictor(photo()).mask == expected).all()


def test_a_folder_gives_one_segmentation_per_image(predictor: Predictor, tmp_path: Path) -> None:
    for name, seed in (("b.png", 1), ("a.png", 2)):
        written(tmp_path / "photos" / name, photo(seed=seed))
    found = predictor(tmp_path / "photos")
    assert [s.source.name for s in found] == ["a.png", "b.png"]
    assert np.array_equal(found[1].mask, by_hand(predictor, photo(seed=1)))


@pytest.mark.parametrize("size", [(301, 205), (97, 400)])
def test_tiles_give_the_mask_of_the_whole_image(
    predictor: Predictor, size: tuple[int, int]
) -> None:
    tiled = Predictor(predictor.model, device="cpu", tile=96)
    image = photo(*size)
    mask = tiled.label_map(image)
    assert tiled.tiles is not None
    assert tiled.tiles.exact
    # Float32 rounds in another order in other shapes.
    assert (mask != predictor.label_map(image)).mean() < 1e-4
    small = Predictor(predictor.model, device="cpu", tile=400)
    assert (small.label_map(image) == predictor.label_map(image)).all()
    assert small.tiles is None


def test_large_images_are_cut_unasked(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = Predictor(predictor.model, device="cpu")
    fresh.label_map(photo(100, 100))
    assert fresh.tiles is None
    monkeypatch.setattr("fullconv.inference.predictor.MAX_WHOLE_PIXELS", 9_999)
    mask = fresh.label_map(photo(100, 100))
    assert fresh.tiles is not None
    assert (mask != predictor.label_map(photo(100, 100))).mean() < 1e-3


def test_images_that_are_resized_as_a_whole_are_not_cut(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = predictor.model
    model = Model(made.network, made.labels, made.card, short_side=64)
    monkeypatch.setattr("fullconv.inference.predictor.MAX_WHOLE_PIXELS", 1)
    fresh = Predictor(model, device="cpu")
    fresh.label_map(photo(100, 100))
    assert fresh.tiles is None
