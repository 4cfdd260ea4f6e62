"""The command predict: its options, its output for many images, and how processes share them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Cli
from films import cut, film, masks_of, pixels_of
from photos import photo, written
from PIL import Image

from fullconv.core.labels import Labels
from fullconv.data.io.masks import read_values
from fullconv.inference import exported as deployed
from fullconv.inference.manifest import FOLDER
from fullconv.inference.options import PredictOptions
from fullconv.inference.predictor import load
from fullconv.inference.result_files import FILES
from fullconv.models.model import Model, save_model
from fullconv.network.fcn import FCN

ALL_OUTPUTS = "mask,color,overlay,confidence,probability,polygons,coco,json"
ARGV = ("--save", "mask")


@pytest.fixture
def image(scenes: Path) -> Path:
    return scenes / "images/test/street_0000.jpg"


def results_in(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.is_file() and FOLDER not in path.parts]


def test_every_output_with_every_option(
    cli: Cli, model_folder: Path, image: Path, tmp_path: Path
) -> None:
    argv = ["predict", model_folder, image, "--out", tmp_path, "--save", ALL_OUTPUTS, "--flip"]
    argv += ["--classes", "road, sky", "--min-confidence", "0.5", "--min-area", "12"]
    code, out, _ = cli(*argv, "--scales", "0.5,1", "--json")
    assert code == 0
    options = PredictOptions(True, (0.5, 1.0), ("road", "sky"), 0.5, 12)
    expected = load(model_folder, options=options)(image)
    (result,) = json.loads(out)["images"]
    assert result["area"] == expected.to_dict()["area"]
    names = {Path(path).name for path in result["files"]}
    assert names == {f"street_0000{FILES[output]}" for output in ALL_OUTPUTS.split(",")}
    assert (read_values(tmp_path / "street_0000_mask.png") == expected.mask).all()
    with np.load(tmp_path / "street_0000_probability.npz") as arrays:
        probability = arrays["probability"].transpose(2, 0, 1)
    np.testing.assert_allclose(probability, expected.probability, atol=1e-3)


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose graph returns red and green of the image as scores of two classes."""

    def onnx(path: Path, threads: int | None) -> tuple[deployed.Run, str]:
        about = {**Labels(("red", "green")).to_dict(), "grid": [1, 0], "labels_inside": False}
        return lambda planes: [planes[:, :2].astype(np.float32)], deployed.json.dumps(about)

    monkeypatch.setattr(deployed, "_start_onnxruntime", onnx)
    (tmp_path / "m.onnx").touch()
    return tmp_path / "m.onnx"


def test_an_exported_file_segments_videos(cli: Cli, exported: Path, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    source = film(tmp_path / "a.mkv")
    assert cli("predict", exported, source, "--out", tmp_path / "out")[0] == 0
    for frame, mask in zip(pixels_of(source), masks_of(tmp_path / "out/a_mask.mkv"), strict=True):
        assert (mask == (frame[..., 1] > frame[..., 0])).all()


def geotiff(path: Path, pixels: np.ndarray, **options: Any) -> dict[str, Any]:
    """Write a GeoTIFF, and return where it is."""
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(2, 0, 5e5, 0, -2, 5e6)}
    height, width, count = pixels.shape
    size = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="GTiff", **size, **place, **options) as file:
        file.write(pixels.transpose(2, 0, 1))
    return place


def test_a_geotiff_that_fits_into_memory(cli: Cli, model_folder: Path, tmp_path: Path) -> None:
    """It has every output, and keeps its place in the mask and in the polygons."""
    pixels = photo(60, 80) // 2 + 1
    pixels[:10, :10] = 0
    place, out = geotiff(tmp_path / "a.tif", pixels, nodata=0), tmp_path / "out"
    words = ["--save", ALL_OUTPUTS, "--flip", "--min-area", "4", "--min-confidence", "0.4"]
    code, _, err = cli("predict", model_folder, tmp_path / "a.tif", *words, "--out", out)
    assert (code, err) == (0, "")
    names = {path.name for path in out.iterdir() if path.is_file()}
    assert names == {"a_mask.tif", *(f"a{FILES[k]}" for k in ALL_OUTPUTS.split(",")[1:])}
    import rasterio
    from rasterio.features import rasterize
    from rasterio.warp import transform_geom

    with rasterio.open(out / "a_mask.tif") as file:
        assert {"crs": file.crs, "transform": file.transform} == place
        ids = file.read(1)
    assert (ids[:10, :10] == 255).all()
    options = PredictOptions(flip=True, min_area=4, min_confidence=0.4)
    expected = load(model_folder, device="cpu", options=options)(pixels)
    outside = np.ones((60, 80), bool)
    outside[:10, :10] = False
    assert (ids == expected.mask)[outside].all()
    assert json.loads((out / "a.json").read_text())["area"]["ignore"] == pytest.approx(100 / 4800)
    shapes = []
    for feature in json.loads((out / "a.geojson").read_text())["features"]:
        geometry = transform_geom("EPSG:4326", place["crs"], feature["geometry"])
        shapes.append((geometry, feature["properties"]["class_id"]))
    burned = rasterize(shapes, (60, 80), fill=255, transform=place["transform"], dtype="uint8")
    assert (burned == ids).all()


def test_an_exported_file_keeps_the_place_of_a_geotiff(
    cli: Cli, exported: Path, tmp_path: Path
) -> None:
    place = geotiff(tmp_path / "a.tif", np.full((5, 7, 3), 9, np.uint8))
    code, _, err = cli("predict", exported, tmp_path / "a.tif", "--out", tmp_path)
    assert (code, err) == (0, "")
    import rasterio

    with rasterio.open(tmp_path / "a_mask.tif") as file:
        assert {"crs": file.crs, "transform": file.transform} == place
        assert file.shape == (5, 7)


def test_the_hint_of_what_cannot_be_segmented(cli: Cli, model_folder: Path, tmp_path: Path) -> None:
    """The other images are done."""
    path = tmp_path / "photos" / "heights.tif"
    written(tmp_path / "photos" / "a.png", photo(20, 24))
    geotiff(path, np.zeros((40, 50, 3), np.float32))
    argv = ["predict", model_folder, path.parent, "--out", tmp_path / "out", *ARGV]
    code, out, err = cli(*argv)
    assert (code, out.splitlines()[-1][:18]) == (1, "1 of 2 images -> /")
    assert f"1 of 2 images could not be segmented:\n  {path}" in err
    assert f"try: gdal_translate -ot Byte -scale {path} heights_8bit.tif" in err
    (tmp_path / "photos" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    path.unlink()
    code, _, err = cli(*argv)
    assert (code, "try: copy or download them again, or leave them out" in err) == (1, True)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """30 images in two folders; two are damaged."""
    for number in range(30):
        folder = "a" if number % 2 else "b"
        written(tmp_path / "photos" / folder / f"{number:02}.png", photo(20, 24, seed=number))
    for damaged in ("a/05.png", "b/06.png"):
        (tmp_path / "photos" / damaged).write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return tmp_path / "photos"


def test_many_images_have_few_lines_and_json_lists_all(
    cli: Cli, photos: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["predict", model_folder, photos, "--out", tmp_path / "out", *ARGV]
    code, out, err = cli(*argv)
    lines = out.splitlines()
    assert (code, len(lines), len(results_in(tmp_path / "out"))) == (1, 22, 28)
    assert lines[0].startswith(f"{photos}/a/01.png: ")
    assert lines[20:] == ["... and 8 more", f"28 of 30 images -> {tmp_path / 'out'}"]
    assert err.startswith("error: 2 of 30 images could not be segmented:\n  image ")
    assert (err.count("cannot be read"), str(photos / "a/05.png") in err) == (2, True)
    code, out, err = cli(*argv, "--json")
    facts = json.loads(out)
    assert (len(facts["images"]), facts["skipped"], "process" in facts) == (28, 28, False)
    assert (len(facts["failed"]), "05.png" in facts["failed"][0]) == (2, True)
    note, _, rest = err.partition("\n")
    assert note == "note: skipped 28 images with results (--overwrite redoes them)"
    assert rest.startswith("error: 2 of 30")
    code, _, err = cli(*argv, "--precision", "float32")
    assert err.partition("\n")[0] == (
        f"note: redid 28 images whose results in {tmp_path / 'out'} are of another model or of "
        "other options"
    )
    monkeypatch.setattr("fullconv.cli.predict.LISTED_ERRORS", 1)
    code, _, err = cli(*argv, "--precision", "float32", "--overwrite")
    assert (code, err[:14], err.count("cannot be read")) == (1, "error: 2 of 30", 1)
    assert "\n  and 1 more; --json lists them all\n  try: " in err


SLOW = """
import os, sys, time
from fullconv.inference import batch as many
from fullconv.cli.main import main
read = many.read_image
if os.environ["RANK"] == "1":
    many.read_image = lambda path: (time.sleep(0.2), read(path))[1]
main()
"""


def test_torchrun_shares_the_images(photos: Path, model_folder: Path, tmp_path: Path) -> None:
    """Results are written among the images while others list them. Torchrun ends all processes if
    one fails: the one with the damaged images has to wait for the other, which is slow."""
    names = {path.relative_to(photos) for path in photos.rglob("*.png")}
    predictor = load(model_folder, device="cpu")
    (tmp_path / "slow.py").write_text(SLOW)
    words = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", tmp_path / "slow.py"]
    words += ["predict", model_folder, photos, "--out", photos, *ARGV, "--json"]
    shared = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS")
    env = {name: value for name, value in os.environ.items() if name not in shared}
    argv, env["OMP_NUM_THREADS"] = [sys.executable, "-m", *map(str, words)], "1"
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 1
    assert "This is a bug" not in done.stderr
    parts = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert sorted(part["process"]["rank"] for part in parts) == [0, 1]
    assert [part["process"]["of"] for part in parts] == [2, 2]
    assert [len(part["images"]) + len(part["failed"]) for part in parts] == [15, 15]
    results = [result for part in parts for result in part["images"]]
    assert len(results) == 28
    segmented = {Path(result["source"]).relative_to(photos) for result in results}
    assert segmented == names - {Path("a/05.png"), Path("b/06.png")}
    for result in results:
        (file,) = result["files"]
        assert (read_values(Path(file)) == predictor(result["source"]).mask).all()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_processes_of_srun_share_the_images(
    cli: Cli,
    photos: Path,
    model_folder: Path,
    tmp_path: Path,
    rank: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both damaged images are in the same process."""
    monkeypatch.setenv("SLURM_PROCID", rank)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    out = tmp_path / "out"
    code, text, err = cli("predict", model_folder, photos, "--out", out, *ARGV)
    order = sorted(photos.rglob("*.png"))[int(rank) :: 2]
    bad = sum(path.name in ("05.png", "06.png") for path in order)
    assert code == (1 if bad else 0)
    last = text.splitlines()[-1]
    assert last == f"process {int(rank) + 1} of 2: {15 - bad} of 15 images -> {out}"
    alone = "note: SLURM_NTASKS is 2: this is process 1 of 2 and does its share; start all "
    assert err.startswith(alone) == (rank == "0")
    assert (out / FOLDER / f"{rank}.jsonl").is_file()


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two images and three videos: one is no video, one is damaged at its end."""
    pytest.importorskip("av", reason="PyAV is not installed")
    place = tmp_path / "mixed"
    film(place / "deep/clip.mp4")
    cut(film(place / "cut.mkv", tuple(range(0, 16 * 512, 512))), 0.6)
    for name in ("clip.png", "deep/clip.png"):
        written(place / name, photo(48, 64))
    (place / "bad.webm").write_text("no video")
    return place


def test_images_and_videos_together(
    cli: Cli, mixed: Path, model_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    argv = ["predict", model_folder, mixed, "--out", out, "--frame-step"]
    code, text, err = cli(*argv, 3)
    cut_off, bad = mixed / "cut.mkv", mixed / "bad.webm"
    assert (code, text.splitlines()[-1]) == (1, f"4 of 5 files -> {out}")
    assert f"note: {cut_off}: " in err
    assert "frames could be read" in err
    assert f"1 of 5 files could not be segmented:\n  {bad} cannot be read as a video: " in err
    results = results_in(out)
    ends = ("_mask.mkv", "_overlay.mp4", "_legend.png")
    videos = {f"{name}{end}" for name in ("cut", "deep/clip") for end in ends}
    images = {f"{n}{FILES[k]}" for n in ("clip", "deep/clip_png") for k in ("mask", "overlay")}
    assert {path.relative_to(out).as_posix() for path in results} == videos | images
    predictor = load(model_folder, device="cpu")
    masks = masks_of(out / "deep/clip_mask.mkv")
    for number, mask in enumerate(masks):
        frame = pixels_of(mixed / "deep/clip.mp4")[number // 3 * 3]
        assert (mask == predictor(frame).mask).all()
    assert len(masks) == 8
    before = {path: path.stat().st_mtime_ns for path in results}
    code, text, err = cli(*argv, 3, "--json")
    assert (code, err.startswith("note: skipped 4 files with results")) == (1, True)
    assert f"note: {cut_off}: " in err
    images = json.loads(text)["images"]
    names = [Path(result["source"]).name for result in images]
    assert names == ["clip.png", "cut.mkv", "clip.mp4", "clip.png"]
    assert images[2]["labelled"] == 3
    assert {path: path.stat().st_mtime_ns for path in results} == before
    code, _, err = cli(*argv, 2)
    assert (code, "note: redid 4 files whose results in " in err) == (1, True)


def test_outputs_that_videos_do_not_have(
    cli: Cli, mixed: Path, model_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, _, err = cli("predict", model_folder, mixed, "--out", out, "--save", "polygons")
    assert code == 1
    message = f"{mixed / 'cut.mkv'} is a video or is read in windows, and polygons is not available"
    assert message in err
    names = sorted(path.name for path in out.rglob("*.geojson"))
    assert names == ["clip.geojson", "clip_png.geojson"]


@pytest.mark.parametrize(
    ("rank", "code", "names"),
    [("0", 1, ["cut.mkv", "clip.png"]), ("1", 0, ["clip.png", "clip.mp4"])],
)
def test_processes_share_videos(
    cli: Cli,
    mixed: Path,
    model_folder: Path,
    tmp_path: Path,
    rank: str,
    code: int,
    names: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = cli("predict", model_folder, mixed, "--out", tmp_path / "out", "--json")
    images = json.loads(result[1])["images"]
    assert (result[0], [Path(image["source"]).name for image in images]) == (code, names)


def test_a_single_video(cli: Cli, mixed: Path, model_folder: Path, tmp_path: Path) -> None:
    argv = ["predict", model_folder, mixed / "deep/clip.mp4", "--out", tmp_path]
    code, out, _ = cli(*argv, "--save", "overlay")
    end = f"\n1 of 1 video -> {tmp_path}\nnext: fullconv serve {model_folder}\n"
    assert (code, out.endswith(end)) == (0, True)
    assert (tmp_path / "clip_overlay.mp4").is_file()
    assert not list(tmp_path.glob("*mask*"))


def test_images_are_segmented_without_pyav(
    cli: Cli, mixed: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    code, out, err = cli("predict", model_folder, mixed, "--out", tmp_path / "out")
    assert (code, out.splitlines()[-1][:12]) == (1, "2 of 5 files")
    assert err.rstrip().endswith("try: pip install av")


def test_results_among_the_images_are_left_out(cli: Cli, model_folder: Path, data: Path) -> None:
    images = data / "images/test"
    argv = ["predict", model_folder, images, "--out", images, "--save", "mask,color,overlay"]
    first = cli(*argv)
    assert (first[0], first[2]) == (0, "")
    files = sorted(path.name for path in images.iterdir())
    code, out, err = cli(*argv)
    assert (code, out) == first[:2]
    example = images / "street_0000_color.png"
    left_out, skipped = err.splitlines()
    assert left_out == f"note: left out 6 results of earlier runs, such as {example}"
    assert skipped.startswith("note: skipped 2 images with results")
    assert sorted(path.name for path in images.iterdir()) == files


def test_predict_overwrites_no_image_of_the_user(cli: Cli, model_folder: Path, data: Path) -> None:
    images = data / "images/test"
    own = shutil.copy(data / "masks/test/street_0000.png", images / "street_0000_mask.png")
    before = own.read_bytes()
    message = cli("predict", model_folder, images, "--out", images)[2]
    assert f"would overwrite {own}, which is one of the images" in message
    assert "\n  try: --out ANOTHER_FOLDER" in message
    assert own.read_bytes() == before
    assert len(list(images.iterdir())) == 3


def test_allow_huge_lifts_the_limit_on_pixels(
    cli: Cli, model_folder: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1600)
    argv = ["predict", model_folder, image, "--out", tmp_path, *ARGV]
    code, _, err = cli(*argv)
    assert code == 1
    assert "1600 " in err or "0 million are read" in err
    assert "try: --allow-huge" in err
    assert cli(*argv, "--allow-huge")[0] == 0
    assert Image.MAX_IMAGE_PIXELS == 1600


def test_blended_seams_are_noted(
    cli: Cli, make_model: Callable[..., Any], image: Path, tmp_path: Path
) -> None:
    network = FCN("test_efficientnet", 3)
    model = Model(network.eval(), make_model().labels, network.backbone.card)
    folder = save_model(model, tmp_path / "model")
    code, _, err = cli("predict", folder, image, "--out", tmp_path, "--tile", "32")
    note = "note: large images were cut into tiles with blended seams, because of"
    assert (code, err.startswith(note)) == (0, True)
