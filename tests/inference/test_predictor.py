"""Images of every type and size, and the masks of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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
    """The mask of `photo()`, from the scores at every pixel."""
    mask = by_hand(predictor, photo())
    assert set(np.unique(mask)) == {0, 1, 2}
    return mask


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


def test_every_type_of_image_gives_the_same_mask(
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


def test_gray_images_are_gray_in_all_three_channels(predictor: Predictor, tmp_path: Path) -> None:
    gray = photo()[..., 0]
    expected = predictor(np.repeat(gray[..., None], 3, 2)).mask
    path = written(tmp_path / "gray.png", gray)
    images = [gray, gray[..., None], path, torch.from_numpy(gray[None].copy()), Image.open(path)]
    images.append(written(tmp_path / "16.png", gray.astype(np.uint16) * 257))
    for image in images:
        assert (predictor(image).mask == expected).all()


def test_alpha_is_dropped_and_palettes_are_colors(
    predictor: Predictor, expected: np.ndarray, tmp_path: Path
) -> None:
    with_alpha = np.dstack([photo(), np.arange(33, dtype=np.uint8)[None].repeat(50, 0)])
    assert (predictor(written(tmp_path / "alpha.png", with_alpha)).mask == expected).all()
    flat = Image.fromarray(photo()).quantize(16)
    flat.save(tmp_path / "palette.png")
    seen = np.asarray(flat.convert("RGB"))
    assert (predictor(tmp_path / "palette.png").mask == predictor(seen).mask).all()


def test_photos_are_turned_by_their_exif_data(
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


def test_float_images_may_overshoot_a_little() -> None:
    tensor = torch.tensor([-0.02, 0.5, 1.02]).view(3, 1, 1)
    assert as_array(tensor).tolist() == [[[0, 128, 255]]]


def test_load(model_folder: Path) -> None:
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


def test_large_images_are_cut_automatically(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, model = photo(100, 100), predictor.model
    fresh = Predictor(model, device="cpu")
    fresh.label_map(image)
    assert fresh.tiles is None
    monkeypatch.setattr("fullconv.inference.predictor.MAX_WHOLE_PIXELS", 9_999)
    mask = fresh.label_map(image)
    assert fresh.tiles is not None
    assert (mask != predictor.label_map(image)).mean() < 1e-3
    resizing = Predictor(replace(model, short_side=64), device="cpu")  # images as a whole
    resizing.label_map(image)
    assert resizing.tiles is None
