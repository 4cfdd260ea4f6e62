"""GeoTIFFs predicted in windows, against the same images predicted whole."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from photos import photo

from fullconv.core.errors import FullconvError, UnwrittenError
from fullconv.core.labels import Labels
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.data.io.geotiff import GeoMaskWriter, RasterReader
from fullconv.data.io.images import image_size, read_image
from fullconv.inference.batch import InputImage, predict_many
from fullconv.inference.geotiff import predict_raster
from fullconv.inference.input_files import find_images
from fullconv.inference.manifest import Manifest
from fullconv.inference.options import PredictOptions
from fullconv.inference.predictor import Predictor
from fullconv.inference.result_files import is_own_output
from fullconv.models.model import Model

MakeModel = Callable[..., Model]


def write_geotiff(path: Path, image: np.ndarray, **options: Any) -> Path:
    height, width = image.shape[:2]
    profile = {"driver": "GTiff", "count": 3, "height": height, "width": width, "dtype": "uint8"}
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(2, 0, 5e5, 0, -2, 5e6)}
    with rasterio.open(path, "w", **profile, **place, **options) as file:
        file.write(image.transpose(2, 0, 1))
    return path


@pytest.fixture(scope="module")
def model(make_model: MakeModel) -> Model:
    return make_model()


@pytest.fixture(scope="module")
def whole(model: Model) -> Predictor:
    return Predictor(model, device="cpu")


@pytest.fixture
def tiled(model: Model) -> Predictor:
    return Predictor(model, device="cpu", tile=96)


def read_ids(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


def colored(model: Model, ids: np.ndarray) -> np.ndarray:
    return np.array(model.labels.colors, np.uint8)[ids]


def test_the_mask_equals_that_of_the_whole_image(
    whole: Predictor, tiled: Predictor, tmp_path: Path
) -> None:
    source, out = write_geotiff(tmp_path / "a.tif", photo(301, 205)), tmp_path / "out"
    calls: list[tuple[int, int]] = []
    kinds = ["mask", "color", "overlay", "json"]
    table = predict_raster(
        tiled, source, out / "a", kinds, progress=lambda *done: calls.append(done)
    )
    with rasterio.open(out / "a_mask.tif") as mask, rasterio.open(source) as image:
        assert (mask.crs, mask.transform) == (image.crs, image.transform)
        ids = mask.read(1)
    # Float32 rounds in another order in other shapes: a pixel on the edge may fall either way.
    assert (ids != whole(photo(301, 205)).mask).mean() < 1e-4
    assert len(np.unique(ids)) == 3
    names = ["a_color.png", "a_mask.tif", "a_overlay.jpg", "a.json"]
    assert sorted(table["files"]) == sorted(str(out / name) for name in names)
    assert (read_image(out / "a_color.png") == colored(tiled.model, ids)).all()
    assert image_size(out / "a_overlay.jpg")[1] >= 205
    stored = json.loads((out / "a.json").read_text())
    assert stored == {k: v for k, v in table.items() if k != "files"}
    assert (stored["height"], stored["width"]) == (301, 205)
    assert stored["area"]["sky"] == (ids == 0).mean()
    assert calls == [(rows, 301) for rows in (96, 192, 288, 301) for _ in range(3)]
    assert all(map(is_own_output, out.glob("*_mask.tif")))
    assert [path for path, _ in find_images([tmp_path])] == [source]


def test_pixels_without_data_get_no_class(
    whole: Predictor, tiled: Predictor, tmp_path: Path
) -> None:
    image = photo(120, 140) // 2 + 1
    image[30:60, :70] = 0
    source = write_geotiff(tmp_path / "a.tif", image, nodata=0)
    table = predict_raster(tiled, source, tmp_path / "a")
    with rasterio.open(tmp_path / "a_mask.tif") as mask:
        ids = mask.read(1)
        assert mask.nodata == 255
    assert ((ids == 255) == (image[..., 0] == 0)).all()
    area, expected = table["area"], whole(source).to_dict()
    assert sum(area.values()) == pytest.approx(1)
    assert area["road"] == (ids == 1).mean()
    assert area["ignore"] == (ids == 255).mean() > 0.1
    assert {**table, "files": None, "area": None} == {**expected, "files": None, "area": None}
    assert expected["area"] == pytest.approx(area, abs=1e-3)


def test_previews_of_large_images_are_small(
    whole: Predictor, tiled: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fullconv.inference.geotiff.PREVIEW_SIDE", 50)
    source = write_geotiff(tmp_path / "a.tif", photo(200, 130))
    predict_raster(tiled, source, tmp_path / "a", ["color"])
    assert image_size(tmp_path / "a_color.png") == (50, 32)
    assert not (tmp_path / "a_mask.tif").exists()
    expected = colored(tiled.model, whole(photo(200, 130)).mask)
    preview = read_image(tmp_path / "a_color.png")
    rows, columns = ((np.arange(n) + 0.5) * m // n for n, m in ((50, 200), (32, 130)))
    sampled = expected[np.ix_(rows.astype(int), columns.astype(int))]
    assert (preview == sampled).all(axis=2).mean() > 0.99


def test_additional_heads_have_files_of_their_own(make_model: MakeModel, tmp_path: Path) -> None:
    five = make_model(("a", "b", "c", "d", "e"))
    heads = {"wet": Labels(("dry", "wet"), ((0, 0, 0), (0, 0, 255)))}
    model = replace(five, labels=Labels(("a", "b", "c")), head="kind", heads=heads)
    source = write_geotiff(tmp_path / "a.tif", photo(90, 100))
    predictor = Predictor(model, device="cpu", tile=64)
    table = predict_raster(predictor, source, tmp_path / "a", ["mask"])
    result = Predictor(model, device="cpu")(photo(90, 100))
    for name, mask in (("a_mask.tif", result.mask), ("a_wet_mask.tif", result.heads["wet"].mask)):
        assert (read_ids(tmp_path / name) != mask).mean() < 1e-3
    assert set(table["heads"]["wet"]) <= {"dry", "wet"}


@pytest.mark.parametrize(
    ("change", "options", "outputs", "message"),
    [
        ({"short_side": 64}, {}, ["mask"], "is read in windows, but the model resizes whole image"),
        (
            {"extra_inputs": (ExtraInput("depth", 1, (2000.0,), (700.0,)),)},
            {},
            ["mask"],
            "is read in windows, but the model takes extra inputs.",
        ),
        (
            {},
            {},
            ["mask", "polygons"],
            " is a video or is read in windows, and polygons is not available for these; expected "
            "mask, color, overlay, json.",
        ),
        ({}, {"flip": True, "min_area": 9}, ["mask"], "does not support --flip, --min-area"),
    ],
    ids=["short side", "extra inputs", "polygons", "options"],
)
def test_options_that_need_the_whole_image(
    model: Model, tmp_path: Path, change: Any, options: Any, outputs: list[str], message: str
) -> None:
    source = write_geotiff(tmp_path / "a.tif", photo(90, 100))
    predictor = Predictor(replace(model, **change), device="cpu")
    predictor.set_options(PredictOptions(**options))
    with pytest.raises(FullconvError) as caught:
        predict_raster(predictor, source, tmp_path / "a", outputs)
    assert caught.value.message.startswith(str(source))
    assert message in caught.value.message
    hint = "remove --tile if it is given; otherwise save the image as PNG"
    assert caught.value.hint == ("--save mask,overlay" if "polygons" in outputs else hint)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_reading_network_and_writing_overlap(
    tiled: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a thread of its own; at most one window is read ahead."""
    calls: list[tuple[str, str]] = []

    def spy(owner: Any, name: str, step: str) -> None:
        function = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            calls.append((step, threading.current_thread().name))
            return function(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    spy(RasterReader, "read", "read")
    spy(GeoMaskWriter, "write", "write")
    spy(tiled.runtime, "scores", "network")
    source = write_geotiff(tmp_path / "a.tif", photo(301, 205))
    predict_raster(tiled, source, tmp_path / "a", ["mask"])
    threads = {step: {name for other, name in calls if other == step} for step, _ in calls}
    assert all(name.startswith("prefetch") for name in threads["read"])
    assert threads["network"] == {threading.current_thread().name}
    assert all(name.startswith("worker") for name in threads["write"])
    counts = {"read": 0, "network": 0, "write": 0}
    for step, _ in calls:
        counts[step] += 1
        assert counts["read"] <= counts["network"] + 2
        assert counts["network"] <= counts["write"] + 2
    assert set(counts.values()) == {12}


def fill_disk(monkeypatch: pytest.MonkeyPatch, nth: int) -> list[str]:
    """Let the disk be full at the nth window; return the growing list of files written to."""
    write, files = GeoMaskWriter.write, []

    def fail(self: GeoMaskWriter, rows: Any, columns: Any, ids: np.ndarray) -> None:
        files.append(self._file.name)
        if len(files) == nth:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, rows, columns, ids)

    monkeypatch.setattr(GeoMaskWriter, "write", fail)
    return files


def test_nothing_is_left_if_a_mask_cannot_be_written_or_an_image_read(
    tiled: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    source, out = write_geotiff(tmp_path / "a.tif", photo(301, 205), **options), tmp_path / "out"
    before = threading.active_count()
    with monkeypatch.context() as patch:
        files = fill_disk(patch, 5)
        with pytest.raises(FullconvError) as caught:
            predict_raster(tiled, source, out / "a")
    assert caught.value.message == (
        f"the result could not be written to {out / 'a_mask.tif'}: No space left on device."
    )
    assert caught.value.hint == "--out ANOTHER_FOLDER   # or df -h, if the disk is full"
    assert len(files) == 5
    assert list(out.iterdir()) == []
    assert threading.active_count() == before
    source.write_bytes(source.read_bytes()[:-20_000])
    with pytest.raises(FullconvError, match=r"a\.tif cannot be read at rows \d+ to 301") as caught:
        predict_raster(tiled, source, out / "a")
    assert caught.value.hint == "copy or download a.tif again"
    assert list(out.iterdir()) == []
    assert threading.active_count() == before


def test_a_full_disk_ends_the_whole_job(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = fill_disk(monkeypatch, 1)
    sources = [write_geotiff(tmp_path / f"{name}.tif", photo(90, 100)) for name in "abc"]
    images = [InputImage(path, Path(path.stem)) for path in sources]
    manifest = Manifest(tmp_path / "out", "job", [image.stem for image in images])
    predictor = Predictor(model, device="cpu", tile=64)
    with pytest.raises(FullconvError, match="No space left on device") as caught:
        predict_many(predictor, images, manifest, ["mask"])
    assert "or df -h" in caught.value.hint
    assert len(set(files)) == 1


def test_output_folders_are_created(whole: Predictor, tmp_path: Path) -> None:
    source = write_geotiff(tmp_path / "a.tif", photo(90, 100))
    table = predict_raster(whole, source, tmp_path / "new" / "a", ["json"])
    assert table["files"] == [str(tmp_path / "new" / "a.json")]
    (tmp_path / "file").touch()
    for kind in ("json", "color"):
        with pytest.raises(UnwrittenError, match="could not be written to") as caught:
            predict_raster(whole, source, tmp_path / "file" / "a", [kind])
        assert "--out ANOTHER_FOLDER" in caught.value.hint
