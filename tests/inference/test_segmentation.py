"""Segmentations: areas, result files and their encoding."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import rasterio
from photos import photo
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.io.geotiff import GeoReference
from fullconv.data.io.masks import read_mask, read_values
from fullconv.inference import result_files
from fullconv.inference.predictor import Predictor
from fullconv.inference.result_files import OUTPUTS, is_own_output
from fullconv.inference.segmentation import Segmentation
from fullconv.inference.writers import refuse_overwriting_inputs, save_outputs
from fullconv.models.model import Model

MakeModel = Callable[..., Model]
LABELS = Labels(("sky", "road", "tree"))


@pytest.fixture(scope="module")
def predictor(make_model: MakeModel) -> Predictor:
    return Predictor(make_model(), device="cpu")


def test_area_has_every_class_and_the_json_those_that_occur(tmp_path: Path) -> None:
    mask = np.array([[0, 0, 2], [2, 2, 2]], np.uint8)
    segmentation = Segmentation(mask, LABELS, np.zeros((2, 3, 3), np.uint8), Path("a/b.jpg"))
    assert segmentation.area == {"sky": 2 / 6, "road": 0.0, "tree": 4 / 6}
    area = {"sky": 2 / 6, "tree": 4 / 6}
    table = {"source": str(Path("a/b.jpg")), "height": 2, "width": 3, "area": area}
    assert segmentation.to_dict() == table
    (path,) = save_outputs(segmentation, tmp_path / "a", ["json"])
    assert path == tmp_path / "a.json"
    assert json.loads(path.read_text()) == table


def test_a_georeference_masks_pixels_without_data_and_is_saved(tmp_path: Path) -> None:
    ids, unsure = np.array([[0, 1, 1], [1, 0, 1]], np.uint8), np.ones((2, 3), bool)
    light = Segmentation(1 - ids, Labels(("dark", "light")), photo(2, 3))
    plain = Segmentation(
        ids, Labels(("sky", "road")), photo(2, 3), heads={"light": light}, unsure=unsure
    )
    valid = np.array([[True, True, False], [True, False, True]])
    transform = rasterio.Affine(2, 0, 5e5, 0, -2, 5e6)
    profile = {"height": 2, "width": 3, "crs": "EPSG:32632", "transform": transform}
    placed = plain.with_source(Path("a.tif"), GeoReference(profile, ([], None), valid))
    assert (placed.mask == np.where(valid, ids, 255)).all()
    assert placed.mask.dtype == np.uint8
    assert placed.unsure is not None
    assert (placed.unsure == valid).all()
    assert (plain.mask == ids).all()  # unchanged
    names = [path.name for path in save_outputs(placed, tmp_path / "a", ["mask", "overlay"])]
    assert names == ["a_mask.tif", "a_overlay.jpg", "a_light_mask.tif", "a_light_overlay.jpg"]
    for name, expected in (("a", ids), ("a_light", 1 - ids)):
        with rasterio.open(tmp_path / f"{name}_mask.tif") as file:
            assert file.transform == transform
            assert (file.read(1) == np.where(valid, expected, 255)).all()
    placed.save_mask(tmp_path / "plain.png")
    assert (read_values(tmp_path / "plain.png") == placed.mask).all()


def test_masks_and_color_images_read_back(predictor: Predictor, tmp_path: Path) -> None:
    segmentation = predictor(photo())
    files = save_outputs(segmentation, tmp_path / "new" / "a.b", ["mask", "color", "overlay"])
    assert [p.name for p in files] == ["a.b_mask.png", "a.b_color.png", "a.b_overlay.jpg"]
    mask, color, overlay = files
    assert (read_values(mask) == segmentation.mask).all()
    assert (read_mask(mask, predictor.labels) == segmentation.mask).all()
    colors = np.array(predictor.labels.colors, np.uint8)[segmentation.mask]
    with Image.open(mask) as image:
        assert image.mode == "P"
        assert (np.asarray(image.convert("RGB")) == colors).all()
    with Image.open(color) as image:
        assert (np.asarray(image) == colors).all()
    with Image.open(overlay) as image:
        assert (image.mode, image.width >= 33, image.height >= 50) == ("RGB", True, True)


def test_more_than_256_classes(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(tuple(f"class {k}" for k in range(300)))
    score = model.network.score["stride32"]
    score.bias.data[:] = 0  # type: ignore[union-attr,index]
    score.bias.data[290] = 1000.0  # type: ignore[union-attr,index]
    segmentation = Predictor(model, device="cpu")(photo())
    assert segmentation.mask.dtype == np.uint16
    segmentation.save_mask(tmp_path / "a_mask.png")
    assert (read_values(tmp_path / "a_mask.png") == 290).all()
    assert is_own_output(tmp_path / "a_mask.png")


def test_an_overlay_that_is_too_long_for_jpeg_is_reduced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(result_files, "_JPEG_MAX_SIDE", 300)
    segmentation = Segmentation(np.zeros((90, 600), np.uint8), LABELS, photo(90, 600))
    with Image.open(BytesIO(segmentation.encoded("overlay"))) as image:
        assert (image.width, image.format) == (300, "JPEG")


@pytest.mark.parametrize("kind", OUTPUTS)
def test_unwritable_results(predictor: Predictor, tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FullconvError) as caught:
        save_outputs(predictor(photo(2, 2)), tmp_path / "file" / "a", [kind])
    assert f"could not be written to {tmp_path / 'file' / 'a'}" in caught.value.message
    assert "--out" in caught.value.hint


def test_results_do_not_overwrite_images(tmp_path: Path) -> None:
    images = [(tmp_path / "a.jpg", Path("a")), (tmp_path / "a_mask.png", Path("a_mask"))]
    with pytest.raises(FullconvError) as caught:
        refuse_overwriting_inputs(images, tmp_path / "x" / "..", ["overlay", "mask"])
    assert caught.value.message == (
        f"the mask of {tmp_path / 'a.jpg'} would overwrite {tmp_path / 'a_mask.png'}, which is "
        "one of the images; nothing was written."
    )
    assert caught.value.hint == "--out ANOTHER_FOLDER"
    refuse_overwriting_inputs(images, tmp_path, ["overlay", "json"])
    refuse_overwriting_inputs(images, tmp_path / "out", ["mask"])
