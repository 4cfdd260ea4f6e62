from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.io import geotiff
from fullconv.data.io.geotiff import (
    open_mask_writer,
    open_raster,
    raster_size,
    read_georeferenced,
    tiff_software_tag,
    write_georeferenced_mask,
)
from fullconv.data.io.limits import TooLargeError, no_warnings

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
LABELS = Labels(("sky", "road"), ((1, 2, 3), (200, 100, 50)))
SIZE = (70, 90)  # H, W
WHOLE = ((0, 70), (0, 90))


def placed(path: Path, bands: np.ndarray, **options: Any) -> Path:
    """Write (C, H, W) as a GeoTIFF in the Alps, in meters."""
    count, height, width = bands.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width}
    profile |= {"dtype": bands.dtype, "crs": "EPSG:32632"}
    profile |= {"transform": rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_100_000), **options}
    with no_warnings, rasterio.open(path, "w", **profile) as file:
        file.write(bands)
    return path


def noise(count: int, dtype: Any = np.uint8) -> np.ndarray:
    end = np.iinfo(dtype).max + 1
    return np.random.default_rng(0).integers(0, end, (count, *SIZE), dtype)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_windows_are_parts_of_the_image(tmp_path: Path, count: int) -> None:
    bands = noise(count)
    colors = bands[:3] if count >= 3 else bands[[0, 0, 0]]
    with open_raster(placed(tmp_path / "a.tif", bands)) as raster:
        assert raster.size == SIZE
        window = raster.read((13, 60), (5, 90))
        assert window.dtype == np.uint8
        assert (window == colors[:, 13:60, 5:90].transpose(1, 2, 0)).all()
        assert (raster.preview(1000) == colors.transpose(1, 2, 0)).all()
        assert raster.preview(45).shape == (35, 45, 3)


def test_any_threads_may_read(tmp_path: Path) -> None:
    bands = np.random.default_rng(0).integers(0, 256, (3, 700, 900), np.uint8)
    path = placed(tmp_path / "a.tif", bands, compress="deflate", nodata=0)
    starts = np.random.default_rng(1).integers(0, 600, (200, 2)).tolist()

    def is_right(start: list[int]) -> bool:
        rows, columns = (start[0], start[0] + 90), (start[1], start[1] + 70)
        window = bands[:, slice(*rows), slice(*columns)]
        valid = raster.valid(rows, columns)
        assert valid is not None
        pixels = raster.read(rows, columns)
        return bool((pixels == window.transpose(1, 2, 0)).all() and (valid == window.any(0)).all())

    with open_raster(path) as raster, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(is_right, starts))


def test_16_bits_are_scaled_to_8(tmp_path: Path) -> None:
    bands = noise(3, np.uint16)
    with open_raster(placed(tmp_path / "a.tif", bands)) as raster:
        pixels = raster.read(*WHOLE).transpose(2, 0, 1)
    assert np.abs(pixels - bands / 257).max() <= 0.5


def test_a_palette_is_read_as_its_colors(tmp_path: Path) -> None:
    ids = noise(1) % 3
    path = placed(tmp_path / "a.tif", ids)
    colors = np.array([(9, 8, 7, 255), (0, 255, 0, 255), (255, 0, 4, 255)], np.uint8)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, dict(enumerate(map(tuple, colors.tolist()))))
    with open_raster(path) as raster:
        assert (raster.read(*WHOLE) == colors[ids[0], :3]).all()


def test_bands_in_another_order_are_found_by_their_names(tmp_path: Path) -> None:
    from rasterio.enums import ColorInterp as Color

    bands = noise(4)
    path = placed(tmp_path / "a.tif", bands)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = (Color.undefined, Color.blue, Color.green, Color.red)
    with open_raster(path) as raster:
        assert (raster.read(*WHOLE) == bands[[3, 2, 1]].transpose(1, 2, 0)).all()


def test_pixels_without_data(tmp_path: Path) -> None:
    bands = noise(3) // 2 + 1
    bands[:, 20:30, 40:] = 0
    spans = ((10, 70), (0, 90))
    with open_raster(placed(tmp_path / "a.tif", bands)) as raster:
        assert raster.valid(*spans) is None
    with open_raster(placed(tmp_path / "b.tif", bands, nodata=0)) as raster:
        valid = raster.valid(*spans)
        assert valid is not None
        assert (valid == (bands[0, 10:] > 0)).all()


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_numbers_of_unknown_range_are_refused(tmp_path: Path, dtype: str) -> None:
    path = placed(tmp_path / "a.tif", np.zeros((1, *SIZE), dtype))
    message = f"has pixels of type {dtype}, whose value range is unknown"
    with pytest.raises(FullconvError, match=message) as caught, open_raster(path):
        pass
    assert caught.value.hint.startswith("gdal_translate -ot Byte -scale ")


def test_which_files_are_read_in_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, png = tmp_path / "plain.tif", tmp_path / "a.png"
    for path in (plain, png):
        Image.fromarray(noise(3).transpose(1, 2, 0)).save(path)
    (tmp_path / "broken.tif").write_bytes(b"II*\0")
    georeferenced = placed(tmp_path / "a.tif", noise(3))
    files = [georeferenced, plain, png, tmp_path / "broken.tif", tmp_path / "gone.tif"]
    assert [raster_size(path) for path in files] == [SIZE, None, None, None, None]
    monkeypatch.setattr(geotiff, "_LARGE", 1000)
    assert raster_size(plain) == SIZE


def test_ids_are_written_in_windows_with_place_and_colors(tmp_path: Path) -> None:
    source, out = placed(tmp_path / "a.tif", noise(3)), tmp_path / "new" / "a_mask.tif"
    ids = noise(1)[0] % 2
    ids[:5] = 255
    with open_raster(source) as raster, open_mask_writer(out, raster, LABELS, "us") as file:
        for rows, columns in product(((0, 41), (41, 70)), ((0, 17), (17, 90))):
            file.write(rows, columns, ids[slice(*rows), slice(*columns)])
        assert not out.exists()
    with rasterio.open(out) as file, rasterio.open(source) as original:
        assert (file.read(1) == ids).all()
        assert (file.crs, file.transform) == (original.crs, original.transform)
        assert (file.dtypes, file.nodata, file.compression.name) == (("uint8",), 255, "deflate")
        assert file.profile["tiled"]
        assert file.block_shapes == [(256, 256)]
        assert file.colormap(1)[1] == (200, 100, 50, 255)
        assert file.colormap(1)[255][3] == 0
    assert tiff_software_tag(out) == "us"
    assert tiff_software_tag(source) == ""
    assert [path.name for path in out.parent.iterdir()] == ["a_mask.tif"]


def test_the_tag_of_another_format_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_text(
        '<VRTDataset rasterXSize="2" rasterYSize="2"><Metadata><MDI key="TIFFTAG_SOFTWARE">us</MDI>'
        '</Metadata><VRTRasterBand dataType="Byte" band="1"/></VRTDataset>'
    )
    with no_warnings, rasterio.open(path) as file:
        assert file.tags()["TIFFTAG_SOFTWARE"] == "us"
    assert tiff_software_tag(path) == ""


def test_an_unfinished_file_does_not_appear(tmp_path: Path) -> None:
    source = placed(tmp_path / "a.tif", noise(3))
    with open_raster(source) as raster:
        unfinished = open_mask_writer(tmp_path / "b.tif", raster, LABELS, "")
        with pytest.raises(KeyboardInterrupt), unfinished:
            raise KeyboardInterrupt
        (tmp_path / "file").touch()
        nowhere = open_mask_writer(tmp_path / "file" / "b.tif", raster, LABELS, "")
        with pytest.raises(FullconvError, match="could not be written to") as caught, nowhere:
            pass
    assert "--out" in caught.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "file"]


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = placed(tmp_path / "a.tif", noise(3), compress="deflate")
    path.write_bytes(path.read_bytes()[:-9000])
    message = r"image .*a\.tif cannot be read"
    with pytest.raises(FullconvError, match=message) as caught, open_raster(path) as raster:
        raster.read(*WHOLE)
    assert "again" in caught.value.hint


def test_a_whole_image_and_its_place(tmp_path: Path) -> None:
    bands = noise(3)
    bands[:, :9, :4] = 0
    path, out = placed(tmp_path / "a.tif", bands, nodata=0), tmp_path / "b.tif"
    pixels, place = read_georeferenced(path)
    assert (pixels == bands.transpose(1, 2, 0)).all()
    assert place.valid is not None
    assert (place.valid == bands.any(axis=0)).all()
    many = Labels(tuple(f"class {k}" for k in range(300)), ignore_index=65535)
    for labels, dtype in ((LABELS, "uint8"), (many, "uint16")):
        ids = np.where(place.valid, len(labels) - 1, labels.ignore_index).astype(dtype)
        write_georeferenced_mask(out, ids, place, labels, "someone")
        with rasterio.open(path) as original, rasterio.open(out) as file:
            assert (file.crs, file.transform) == (original.crs, original.transform)
            assert (file.read(1) == ids).all()
            assert (file.dtypes, file.nodata) == ((dtype,), labels.ignore_index)
        assert tiff_software_tag(out) == "someone"


def test_more_pixels_than_pillow_opens_are_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = placed(tmp_path / "a.tif", noise(3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)
    with pytest.raises(TooLargeError, match=r"a\.tif claims 70 x 90 pixels"):
        read_georeferenced(path)


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:3857", "EPSG:4326", None])
@pytest.mark.parametrize("north_up", [True, False])
def test_points_on_the_earth(tmp_path: Path, crs: str | None, north_up: bool) -> None:
    step = 1e-4 if crs == "EPSG:4326" else 2.0
    corner = {"EPSG:4326": (11.0, 46.0), None: (0.0, 0.0)}.get(crs, (650_000.0, 5_100_000.0))
    down = -step if north_up else step
    transform = rasterio.Affine(step, 0.1 * step, corner[0], 0, down, corner[1])
    path = placed(tmp_path / "a.tif", noise(3), crs=crs, transform=transform)
    _, place = read_georeferenced(path)
    ring = np.array([[3, 5], [40, 5], [40, 60], [3, 60], [3, 5]])  # from x to y
    corners = place.on_earth(ring)
    points = [transform @ (float(x), float(y)) for x, y in (ring[::-1] if north_up else ring)]
    if crs:
        east, north = rasterio.warp.transform(crs, "EPSG:4326", *zip(*points, strict=True))
        points = list(zip(east, north, strict=True))
        assert all(-180 <= x <= 180 and -90 <= y <= 90 for x, y in corners)
    assert np.allclose(corners, points, rtol=1e-12)
    # Rings are counter-clockwise, as RFC 7946 requires.
    x, y = np.array(corners).T
    assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0
