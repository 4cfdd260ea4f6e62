"""A GeoTIFF predicted in windows, against the same image predicted whole."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from photos import photo

from fullconv.core.errors import FullconvError, UnwrittenError
from fullconv.core.labels import Labels
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


def placed(path: Path, image: np.ndarray, **options: Any) -> Path:
    """(H, W, 3) as a GeoTIFF."""
    height, width = image.shape[:2]
    profile = {"driver": "GTiff", "count": 3, "height": height, "width": width, "dtype": "uint8"}
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(2, 0, 5e5, 0, -2, 5e6)}
    with rasterio.open(path, "w", **profile, **place, **options) as file:
        file.write(image.transpose(2, 0, 1))
    return path


@pytest.fixture(scope="module")
def model(make_model: MakeModel) -> Model:
    return make_model()


def test_the_mask_is_that_of_the_whole_image_and_lies_where_the_image_lies(
    model: Model, tmp_path: Path
) -> None:
    image = photo(301, 205)
    source = placed(tmp_path / "a.tif", image)
    told: list[tuple[int, int]] = []
    tiled = Predictor(model, device="cpu", tile=96)
    facts = predict_raster(
        tiled,
        source,
        tmp_path / "out" / "a",
        ["mask", "color", "overlay", "json"],
        progress=lambda done, of: told.append((done, of)),
    )
    whole = Predictor(model, device="cpu")(image)
    with rasterio.open(tmp_path / "out" / "a_mask.tif") as found, rasterio.open(source) as given:
        assert (found.crs, found.transform) == (given.crs, given.transform)
        ids = found.read(1)
    # Float32 rounds in another order in other shapes: a pixel on the edge may fall either way.
    assert (ids != whole.mask).mean() < 1e-4
    assert len(np.unique(ids)) == 3
    names = ["a_color.png", "a_mask.tif", "a_overlay.jpg", "a.json"]
    assert sorted(facts["files"]) == sorted(str(tmp_path / "out" / name) for name in names)
    assert (read_image(tmp_path / "out" / "a_color.png") == _colored(model, ids)).all()
    assert image_size(tmp_path / "out" / "a_overlay.jpg")[1] >= 205
    stored = json.loads((tmp_path / "out" / "a.json").read_text())
    assert stored == {k: v for k, v in facts.items() if k != "files"}
    assert (stored["height"], stored["width"]) == (301, 205)
    assert stored["area"]["sky"] == (ids == 0).mean()
    assert told == [(rows, 301) for rows in (96, 192, 288, 301) for _ in range(3)]
    assert all(map(is_own_output, (tmp_path / "out").glob("*_mask.tif")))
    assert [path for path, _ in find_images([tmp_path])] == [source]


def _colored(model: Model, ids: np.ndarray) -> np.ndarray:
    return np.array(model.labels.colors, np.uint8)[ids]


def test_pixels_without_data_get_no_class(model: Model, tmp_path: Path) -> None:
    image = photo(120, 140) // 2 + 1
    image[30:60, :70] = 0
    source = placed(tmp_path / "a.tif", image, nodata=0)
    facts = predict_raster(Predictor(model, device="cpu", tile=64), source, tmp_path / "a")
    with rasterio.open(tmp_path / "a_mask.tif") as found:
        ids = found.read(1)
        assert found.nodata == 255
    assert ((ids == 255) == (image[..., 0] == 0)).all()
    assert sum(facts["area"].values()) == pytest.approx(1)
    assert facts["area"]["road"] == (ids == 1).mean()
    assert facts["area"]["ignore"] == (ids == 255).mean() > 0.1
    whole = Predictor(model, device="cpu")(source).to_dict()  # the same facts
    assert {k: v for k, v in facts.items() if k not in ("files", "area")} == {
        k: v for k, v in whole.items() if k != "area"
    }
    assert whole["area"] == pytest.approx(facts["area"], abs=1e-3)


def test_a_large_image_has_small_previews(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fullconv.inference.geotiff.PREVIEW_SIDE", 50)
    source = placed(tmp_path / "a.tif", photo(200, 130))
    predict_raster(Predictor(model, device="cpu", tile=96), source, tmp_path / "a", ["color"])
    assert image_size(tmp_path / "a_color.png") == (50, 32)
    assert not (tmp_path / "a_mask.tif").exists()
    whole = _colored(model, Predictor(model, device="cpu")(photo(200, 130)).mask)
    shown = read_image(tmp_path / "a_color.png")
    rows, columns = ((np.arange(n) + 0.5) * m // n for n, m in ((50, 200), (32, 130)))
    assert (shown == whole[np.ix_(rows.astype(int), columns.astype(int))]).all(axis=2).mean() > 0.99


def test_additional_heads_have_files_of_their_own(make_model: MakeModel, tmp_path: Path) -> None:
    made = make_model(("a", "b", "c", "d", "e"))
    heads = {"wet": Labels(("dry", "wet"), ((0, 0, 0), (0, 0, 255)))}
    model = Model(made.network, Labels(("a", "b", "c")), made.card, head="kind", heads=heads)
    predictor = Predictor(model, device="cpu", tile=64)
    source = placed(tmp_path / "a.tif", photo(90, 100))
    facts = predict_raster(predictor, source, tmp_path / "a", ["mask"])
    whole = Predictor(model, device="cpu")(photo(90, 100))
    for name, mask in (("a_mask.tif", whole.mask), ("a_wet_mask.tif", whole.heads["wet"].mask)):
        with rasterio.open(tmp_path / name) as found:
            assert (found.read(1) != mask).mean() < 1e-3
    assert set(facts["heads"]["wet"]) <= {"dry", "wet"}


def test_a_model_that_wants_the_whole_image_resized(make_model: MakeModel, tmp_path: Path) -> None:
    made = make_model()
    model = Model(made.network, made.labels, made.card, short_side=64)
    source = placed(tmp_path / "a.tif", photo(90, 100))
    with pytest.raises(FullconvError, match="the model resizes whole images") as caught:
        predict_raster(Predictor(model, device="cpu"), source, tmp_path / "a")
    assert caught.value.hint == ("remove --tile if it is given; otherwise save the image as PNG")


def test_what_there_is_not_of_windows(make_model: MakeModel, tmp_path: Path) -> None:
    source = placed(tmp_path / "a.tif", photo(90, 100))
    predictor = Predictor(make_model(), device="cpu")
    with pytest.raises(FullconvError) as caught:
        predict_raster(predictor, source, tmp_path / "a", ["mask", "polygons"])
    assert caught.value.message == (
        f"{source} is a video or is read in windows, and polygons is not available for these; "
        "expected mask, "
        "color, overlay, json."
    )
    predictor.set_options(PredictOptions(flip=True, min_area=9))
    with pytest.raises(FullconvError, match="does not support --flip, --min-area"):
        predict_raster(predictor, source, tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_the_next_window_is_read_and_the_last_one_written_while_the_network_runs(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which thread does what; and at most one window is read ahead."""
    source = placed(tmp_path / "a.tif", photo(301, 205))
    predictor = Predictor(model, device="cpu", tile=96)
    seen: list[tuple[str, str]] = []

    def noted(what: str, run: Any) -> Any:
        def noting(*given: Any, **named: Any) -> Any:
            seen.append((what, threading.current_thread().name))
            return run(*given, **named)

        return noting

    monkeypatch.setattr(RasterReader, "read", noted("read", RasterReader.read))
    monkeypatch.setattr(GeoMaskWriter, "write", noted("write", GeoMaskWriter.write))
    monkeypatch.setattr(predictor.runtime, "scores", noted("network", predictor.runtime.scores))
    predict_raster(predictor, source, tmp_path / "a", ["mask"])
    names = {what: {name for other, name in seen if other == what} for what, _ in seen}
    assert all(name.startswith("prefetch") for name in names["read"])
    assert names["network"] == {threading.current_thread().name}
    assert all(name.startswith("worker") for name in names["write"])
    done = {"read": 0, "network": 0, "write": 0}
    for what, _ in seen:
        done[what] += 1
        assert done["read"] <= done["network"] + 2
        assert done["network"] <= done["write"] + 2
    assert set(done.values()) == {12}


def test_a_mask_that_cannot_be_written_to_the_end(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as on a full disk: said once, and nothing is left."""
    source = placed(tmp_path / "a.tif", photo(301, 205))
    write, rows_written = GeoMaskWriter.write, []

    def full(self: GeoMaskWriter, rows: Any, columns: Any, ids: np.ndarray) -> None:
        rows_written.append(rows)
        if len(rows_written) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, rows, columns, ids)

    monkeypatch.setattr(GeoMaskWriter, "write", full)
    before = threading.active_count()
    with pytest.raises(FullconvError) as caught:
        predict_raster(Predictor(model, device="cpu", tile=96), source, tmp_path / "out" / "a")
    target = tmp_path / "out" / "a_mask.tif"
    assert caught.value.message == (
        f"the result could not be written to {target}: No space left on device."
    )
    assert caught.value.hint == "--out ANOTHER_FOLDER   # or df -h, if the disk is full"
    assert list((tmp_path / "out").iterdir()) == []
    assert len(rows_written) == 5
    assert threading.active_count() == before


def test_a_image_that_cannot_be_read_to_the_end(model: Model, tmp_path: Path) -> None:
    source = placed(tmp_path / "a.tif", photo(301, 205), tiled=True, blockxsize=64, blockysize=64)
    source.write_bytes(source.read_bytes()[:-20_000])
    before = threading.active_count()
    with pytest.raises(FullconvError, match=r"a\.tif cannot be read at rows \d+ to 301") as caught:
        predict_raster(Predictor(model, device="cpu", tile=96), source, tmp_path / "out" / "a")
    assert caught.value.hint == "copy or download a.tif again"
    assert list((tmp_path / "out").iterdir()) == []
    assert threading.active_count() == before


def test_a_full_disk_ends_the_whole_job(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not hours of images that cannot be written either, each counted as one that is damaged."""
    tried: list[Path] = []

    def full(self: GeoMaskWriter, rows: Any, columns: Any, ids: np.ndarray) -> None:
        tried.append(self._file.name)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(GeoMaskWriter, "write", full)
    sources = [placed(tmp_path / f"{name}.tif", photo(90, 100)) for name in "abc"]
    images = [InputImage(path, Path(path.stem)) for path in sources]
    finished = Manifest(tmp_path / "out", "job", [one.stem for one in images])
    predictor = Predictor(model, device="cpu", tile=64)
    with pytest.raises(FullconvError, match="No space left on device") as caught:
        predict_many(predictor, images, finished, ["mask"])
    assert "or df -h" in caught.value.hint
    assert len(set(tried)) == 1


def test_areas_alone_make_their_folder(model: Model, tmp_path: Path) -> None:
    source = placed(tmp_path / "a.tif", photo(90, 100))
    facts = predict_raster(Predictor(model, device="cpu"), source, tmp_path / "new" / "a", ["json"])
    assert facts["files"] == [str(tmp_path / "new" / "a.json")]
    (tmp_path / "file").touch()
    for kind in ("json", "color"):
        with pytest.raises(UnwrittenError, match="could not be written to") as caught:
            predict_raster(Predictor(model, device="cpu"), source, tmp_path / "file" / "a", [kind])
        assert "--out ANOTHER_FOLDER" in caught.value.hint
