"""Results: their files, their names, and which images are found."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photos import photo, written
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.io.geotiff import GeoReference
from fullconv.data.io.masks import read_values
from fullconv.inference import segmentation as outputs
from fullconv.inference.input_files import find_images
from fullconv.inference.predictor import Predictor
from fullconv.inference.result_files import OUTPUTS, is_own_output
from fullconv.inference.segmentation import Segmentation
from fullconv.inference.writers import refuse_overwriting_inputs, save_outputs
from fullconv.models.model import Model

MakeModel = Callable[..., Model]
ROTATED = 6  # EXIF: the camera was held upright; what is stored lies on its side


@pytest.fixture(scope="module")
def predictor(make_model: MakeModel) -> Predictor:
    return Predictor(make_model(), device="cpu")


def test_the_area_has_every_class_and_the_dictionary_those_that_occur() -> None:
    mask = np.array([[0, 0, 2], [2, 2, 2]], np.uint8)
    labels = Labels(("sky", "road", "tree"))
    segmentation = Segmentation(mask, labels, np.zeros((2, 3, 3), np.uint8), Path("a/b.jpg"))
    assert segmentation.area == {"sky": 2 / 6, "road": 0.0, "tree": 4 / 6}
    table = segmentation.to_dict()
    assert table == {
        "source": str(Path("a/b.jpg")),
        "height": 2,
        "width": 3,
        "area": {"sky": 2 / 6, "tree": 4 / 6},
    }
    assert json.loads(json.dumps(table)) == table


def test_a_result_whose_image_lies_somewhere(tmp_path: Path) -> None:
    """No class where there is no data, in every head; each head has a GeoTIFF."""
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    ids, sure = np.array([[0, 1, 1], [1, 0, 1]], np.uint8), np.zeros((2, 3), bool)
    light = Segmentation(1 - ids, Labels(("dark", "light")), photo(2, 3))
    made = Segmentation(
        ids, Labels(("sky", "road")), photo(2, 3), heads={"light": light}, unsure=~sure
    )
    valid = np.array([[True, True, False], [True, False, True]])
    transform = rasterio.Affine(2, 0, 5e5, 0, -2, 5e6)
    profile = {"height": 2, "width": 3, "crs": "EPSG:32632", "transform": transform}
    found = made.with_source(Path("a.tif"), GeoReference(profile, ([], None), valid))
    assert (found.mask == np.where(valid, ids, 255)).all()
    assert found.mask.dtype == np.uint8
    assert found.unsure is not None
    assert (found.unsure == valid).all()
    assert (made.mask == ids).all()  # it is another one
    files = save_outputs(found, tmp_path / "a", ["mask", "overlay"])
    assert [path.name for path in files] == [
        *("a_mask.tif", "a_overlay.jpg", "a_light_mask.tif", "a_light_overlay.jpg")
    ]
    for name, wanted in (("a", ids), ("a_light", 1 - ids)):
        with rasterio.open(tmp_path / f"{name}_mask.tif") as file:
            assert file.transform == transform
            assert (file.read(1) == np.where(valid, wanted, 255)).all()
    found.save_mask(tmp_path / "plain.png")
    assert (read_values(tmp_path / "plain.png") == found.mask).all()


def test_an_overlay_longer_than_a_jpeg_can_be_is_made_smaller(monkeypatch: Any) -> None:
    monkeypatch.setattr(outputs, "_JPEG_SIDE", 300)
    made = Segmentation(np.zeros((90, 600), np.uint8), Labels(("sky", "road")), photo(90, 600))
    with Image.open(BytesIO(made.encoded("overlay"))) as image:
        assert image.width == 300
        assert image.format == "JPEG"


def test_an_output_that_is_not_known(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(FullconvError) as caught:
        save_outputs(predictor(photo(2, 2)), tmp_path / "a", ["heatmap"])
    assert caught.value.message == (
        "no output 'heatmap'; there are mask, color, overlay, confidence, probability, polygons, "
        "coco, json."
    )
    assert caught.value.hint == "--save mask,overlay"


@pytest.mark.parametrize("kind", OUTPUTS)
def test_a_result_that_cannot_be_written(predictor: Predictor, tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FullconvError) as caught:
        save_outputs(predictor(photo(2, 2)), tmp_path / "file" / "a", [kind])
    assert f"could not be written to {tmp_path / 'file' / 'a'}" in caught.value.message
    assert "--out" in caught.value.hint


def touched(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_files_and_folders_are_found_with_the_names_of_their_results(tmp_path: Path) -> None:
    touched(tmp_path, "in/b.JPG", "in/deep/er/a.png", "in/notes.txt", "in/c.d.tiff", "one.webp")
    found = list(find_images([tmp_path / "in", tmp_path / "one.webp"]))
    assert found == [
        (tmp_path / "in/b.JPG", Path("b")),
        (tmp_path / "in/c.d.tiff", Path("c.d")),
        (tmp_path / "in/deep/er/a.png", Path("deep/er/a")),
        (tmp_path / "one.webp", Path("one")),
    ]


def test_what_is_hidden_or_a_folder_is_no_image(tmp_path: Path) -> None:
    touched(tmp_path, "a.png", ".b.png", "._a.png", ".cache/c.png", "folder.png/notes.txt")
    assert [path.name for path, _ in find_images([tmp_path])] == ["a.png"]


def test_images_of_the_same_stem_get_names_of_their_own(tmp_path: Path) -> None:
    touched(tmp_path, "x/a.jpg", "x/a.png", "x/in/a.jpg", "x/in/a.png", "y/a.jpg", "y/a.png")
    touched(tmp_path, "z/a.png", "z/a_png.png")
    found = list(find_images([tmp_path / "x", tmp_path / "y", tmp_path / "z"]))
    names = [name.as_posix() for _, name in found]
    assert names == ["a", "a_png", "in/a", "in/a_png", "a_jpg", "a_png_2", "a_png_3", "a_png_png"]
    assert len(set(names)) == len(names) == 8


def test_many_images_are_found_in_little_time(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}" / "a.png" for number in range(400)]
    touched(tmp_path, *(str(file) for file in files))
    names = [name for _, name in find_images(files)]
    assert len(set(names)) == 400


def test_no_such_file_and_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(FullconvError) as caught:
        list(find_images([tmp_path / "gone.jpg"]))
    assert f"no image or folder {tmp_path / 'gone.jpg'}: there is nothing" in caught.value.message
    assert caught.value.hint == "fullconv predict MODEL photo.jpg"
    with pytest.raises(FullconvError) as caught:
        list(find_images([tmp_path]))
    assert f"no image in {tmp_path}; looked for .avif, .bmp, " in caught.value.message


def test_results_of_an_earlier_run_are_no_images(predictor: Predictor, tmp_path: Path) -> None:
    """By the mark inside: one's own photo of such a name stays an image."""
    own = written(tmp_path / "b_mask.png", photo())
    likewise = written(tmp_path / "b_overlay.jpg", photo())
    image = written(tmp_path / "a.png", photo())
    before = list(find_images([tmp_path]))
    for folder in (tmp_path, tmp_path / "deep"):
        save_outputs(predictor(image), folder / "a", ["mask", "color", "overlay", "json"])
    touched(tmp_path, "empty_mask.png")
    left_out: list[Path] = []
    after = list(find_images([tmp_path], skipped=left_out))
    assert after == [*before, (tmp_path / "empty_mask.png", Path("empty_mask"))]
    assert [path for path, _ in before] == [image, own, likewise]
    kinds = ("color.png", "mask.png", "overlay.jpg")
    results = [f / f"a_{kind}" for f in (tmp_path, tmp_path / "deep") for kind in kinds]
    assert left_out == results
    # What is named is taken, and so is a result under a name of its own.
    assert [path for path, _ in find_images([results[0]])] == [results[0]]
    renamed = results[0].rename(tmp_path / "deep" / "c.png")
    assert renamed in [path for path, _ in find_images([tmp_path])]
    renamed.unlink()
    with pytest.raises(FullconvError) as caught:
        list(find_images([tmp_path / "deep"]))
    assert f"no image in {tmp_path / 'deep'} but results of earlier" in caught.value.message


def test_masks_of_more_than_256_classes_are_marked_too(
    make_model: MakeModel, tmp_path: Path
) -> None:
    names = tuple(f"class {k}" for k in range(300))
    segmentation = Predictor(make_model(names), device="cpu")(photo())
    segmentation.save_mask(tmp_path / "a_mask.png")
    assert is_own_output(tmp_path / "a_mask.png")
    assert read_values(tmp_path / "a_mask.png").shape == (50, 33)


def test_no_result_is_written_over_a_image(tmp_path: Path) -> None:
    found = [(tmp_path / "a.jpg", Path("a")), (tmp_path / "a_mask.png", Path("a_mask"))]
    with pytest.raises(FullconvError) as caught:
        refuse_overwriting_inputs(found, tmp_path / "x" / "..", ["overlay", "mask"])
    assert caught.value.message == (
        f"the mask of {tmp_path / 'a.jpg'} would be written over {tmp_path / 'a_mask.png'}, "
        "which is one of the images; nothing was done."
    )
    assert caught.value.hint == "--out ANOTHER_FOLDER"
    refuse_overwriting_inputs(found, tmp_path, ["overlay", "json"])
    refuse_overwriting_inputs(found, tmp_path / "out", ["mask"])
