"""The command predict: its options, its output for many images, and how processes share them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Cli, damage_dataset
from films import cut, film, masks_of, pixels_of
from photos import photo, written
from PIL import Image

from fullconv.cli.main import run
from fullconv.core.labels import Labels
from fullconv.data.io.images import read_image
from fullconv.data.io.masks import read_values
from fullconv.inference import exported as deployed
from fullconv.inference.manifest import FOLDER
from fullconv.inference.options import PredictOptions
from fullconv.inference.predictor import Predictor, load
from fullconv.inference.result_files import FILES
from fullconv.inference.segmenter import Segmenter
from fullconv.models.model import Model, save_model
from fullconv.network.fcn import FCN


@pytest.fixture
def image(scenes: Path) -> Path:
    return scenes / "images/test/street_0000.jpg"


def test_every_kind_of_result_with_every_option(
    model_folder: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = "mask,color,overlay,confidence,probability,polygons,coco,json"
    argv = ["predict", str(model_folder), str(image), "--out", str(tmp_path), "--save", kinds]
    argv += ["--classes", "road, sky", "--min-confidence", "0.5", "--min-area", "12", "--flip"]
    assert run([*argv, "--scales", "0.5,1", "--json"]) == 0
    options = PredictOptions(True, (0.5, 1.0), ("road", "sky"), 0.5, 12)
    wanted = load(model_folder, options=options)(image)
    (result,) = json.loads(capsys.readouterr().out)["images"]
    assert result["area"] == wanted.to_dict()["area"]
    assert sorted(Path(path).name for path in result["files"]) == [
        "street_0000.geojson", "street_0000.json", "street_0000_coco.json",
        "street_0000_color.png", "street_0000_confidence.png", "street_0000_mask.png",
        "street_0000_overlay.jpg", "street_0000_probability.npz",
    ]  # fmt: skip
    assert (read_values(tmp_path / "street_0000_mask.png") == wanted.mask).all()
    with np.load(tmp_path / "street_0000_probability.npz") as found:
        np.testing.assert_allclose(
            found["probability"].transpose(2, 0, 1), wanted.probability, atol=1e-3
        )


@pytest.mark.parametrize(
    ("typed", "said", "hint"),
    [
        (["--classes", "rod"], "the model has no class 'rod'; the nearest are road", "road"),
        (["--scales", "half"], "scales 'half'; expected comma-separated numbers", "0.75,1,1.25"),
        (
            ["--min-confidence", "60"],
            "a minimum confidence of 60; expected a fraction",
            "--min-confidence 0.6",
        ),
        (["--min-area", "-3"], "a minimum area of -3 pixels", "--min-area 64"),
        (["--scales", "1,2", "--tile", "64"], "cannot be combined", "--tile 64"),
        (
            ["--save", "polygon"],
            "there is no output 'polygon'; --save accepts mask,",
            "--save mask,over",
        ),
    ],
)
def test_what_is_refused(
    model_folder: Path,
    image: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    typed: list[str],
    said: str,
    hint: str,
) -> None:
    argv: list[Any] = ["predict", str(model_folder), str(image), "--out", str(tmp_path / "out")]
    assert run([*argv, *typed]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert hint in error.split("try:")[1]
    assert not (tmp_path / "out").exists()


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose graph gives the image's own red and green as scores of two classes."""

    def onnx(path: Path, threads: int | None) -> tuple[deployed.Run, str]:
        about = {**Labels(("red", "green")).to_dict(), "grid": [1, 0], "labels_inside": False}
        return lambda planes: [planes[:, :2].astype(np.float32)], deployed.json.dumps(about)

    monkeypatch.setattr(deployed, "_start_onnxruntime", onnx)
    (tmp_path / "m.onnx").touch()
    return tmp_path / "m.onnx"


def test_an_exported_file_labels_images(exported: Path, tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, :2, 0], pixels[:, 2:, 1] = 200, 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert run(["predict", str(exported), str(tmp_path / "a.png"), "--out", str(tmp_path)]) == 0
    assert read_values(tmp_path / "a_mask.png").tolist() == [[0, 0, 1, 1, 1, 1]] * 4


def test_an_exported_file_labels_videos(exported: Path, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    source = film(tmp_path / "a.mkv")
    assert run(["predict", str(exported), str(source), "--out", str(tmp_path / "out")]) == 0
    for frame, mask in zip(pixels_of(source), masks_of(tmp_path / "out/a_mask.mkv"), strict=True):
        assert (mask == (frame[..., 1] > frame[..., 0])).all()


def test_a_geotiff_that_fits_into_memory_has_all_that_images_have(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And keeps its place, in the mask and in the polygons."""
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    size = {"count": 3, "height": 60, "width": 80, "dtype": "uint8", "nodata": 0}
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(2, 0, 5e5, 0, -2, 5e6)}
    pixels = photo(60, 80) // 2 + 1
    pixels[:10, :10] = 0
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **size, **place) as file:
        file.write(pixels.transpose(2, 0, 1))
    out, kinds = tmp_path / "out", "mask,color,overlay,confidence,probability,polygons,coco,json"
    words = [
        "--save",
        kinds,
        "--flip",
        "--min-area",
        "4",
        "--min-confidence",
        "0.4",
        "--out",
        str(out),
    ]
    assert run(["predict", str(model_folder), str(tmp_path / "a.tif"), *words]) == 0
    assert capsys.readouterr().err == ""
    names = {path.name for path in out.iterdir() if path.is_file()}
    assert names == {"a_mask.tif", *(f"a{FILES[k]}" for k in kinds.split(",")[1:])}
    with rasterio.open(out / "a_mask.tif") as file:
        assert {"crs": file.crs, "transform": file.transform} == place
        ids = file.read(1)
    assert (ids[:10, :10] == 255).all()
    options = PredictOptions(flip=True, min_area=4, min_confidence=0.4)
    wanted = load(model_folder, device="cpu", options=options)(pixels)
    outside = np.ones((60, 80), bool)
    outside[:10, :10] = False
    assert (ids == wanted.mask)[outside].all()
    assert json.loads((out / "a.json").read_text())["area"]["ignore"] == pytest.approx(100 / 4800)
    features = json.loads((out / "a.geojson").read_text())["features"]
    from rasterio.features import rasterize
    from rasterio.warp import transform_geom

    shapes = [
        (transform_geom("EPSG:4326", place["crs"], one["geometry"]), one["properties"]["class_id"])
        for one in features
    ]
    drawn = rasterize(shapes, (60, 80), fill=255, transform=place["transform"], dtype="uint8")
    assert (drawn == ids).all()


def test_an_exported_file_keeps_the_place_of_a_geotiff(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    size = {"count": 3, "height": 5, "width": 7, "dtype": "uint8"}
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(2, 0, 5e5, 0, -2, 5e6)}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **size, **place) as file:
        file.write(np.full((3, 5, 7), 9, np.uint8))
    assert run(["predict", str(exported), str(tmp_path / "a.tif"), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""
    with rasterio.open(tmp_path / "a_mask.tif") as file:
        assert {"crs": file.crs, "transform": file.transform} == place
        assert file.shape == (5, 7)


def test_what_cannot_be_labelled_comes_with_its_own_way_out(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the others are done."""
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    size = {"count": 3, "height": 40, "width": 50}
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(2, 0, 5e5, 0, -2, 5e6)}
    path = tmp_path / "photos" / "heights.tif"
    written(tmp_path / "photos" / "a.png", photo(20, 24))
    with rasterio.open(path, "w", driver="GTiff", dtype="float32", **size, **place) as file:
        file.write(np.zeros((3, 40, 50), np.float32))
    argv = ["predict", str(model_folder), str(path.parent), "--out", str(tmp_path / "out"), *ARGV]
    assert run(argv) == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[-1].startswith("1 of 2 images -> ")
    assert f"1 of 2 images could not be segmented:\n  {path}" in said.err
    assert f"try: gdal_translate -ot Byte -scale {path} heights_8bit.tif" in said.err
    (tmp_path / "photos" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    path.unlink()
    assert run(argv) == 1
    assert "try: copy or download them again, or leave them out" in capsys.readouterr().err


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """30 images in two folders; two are damaged."""
    for number in range(30):
        folder = "a" if number % 2 else "b"
        written(tmp_path / "photos" / folder / f"{number:02}.png", photo(20, 24, seed=number))
    for damaged in ("a/05.png", "b/06.png"):
        (tmp_path / "photos" / damaged).write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return tmp_path / "photos"


ARGV = ("--save", "mask")
KINDS = ("mask", "overlay")


def test_many_images_get_few_lines_and_json_has_them_all(
    photos: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["predict", str(model_folder), str(photos), "--out", str(tmp_path / "out"), *ARGV]
    assert run(argv) == 1
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert len(lines) == 22
    assert lines[0].startswith(f"{photos}/a/01.png: ")
    assert lines[20:] == ["... and 8 more", f"28 of 30 images -> {tmp_path / 'out'}"]
    assert said.err.startswith("error: 2 of 30 images could not be segmented:\n  image ")
    assert said.err.count("cannot be read") == 2
    assert run([*argv, "--json"]) == 1
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (len(found["images"]), len(found["failed"]), found["skipped"]) == (28, 2, 28)
    assert "process" not in found
    note, _, rest = said.err.partition("\n")
    assert note == ("note: skipped 28 images with results (--overwrite redoes them)")
    assert rest.startswith("error: 2 of 30")
    assert run([*argv, "--precision", "float32"]) == 1
    note = capsys.readouterr().err.partition("\n")[0]
    assert note == (
        f"note: redid 28 images whose results in {tmp_path / 'out'} are of another model or of "
        "other options"
    )
    assert run([*argv, "--precision", "float32", "--overwrite"]) == 1
    assert capsys.readouterr().err.startswith("error: 2 of 30")


def test_very_many_errors_are_counted(
    photos: Path,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("fullconv.cli.predict.LISTED_ERRORS", 1)
    assert run(["predict", str(model_folder), str(photos), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert said.count("cannot be read") == 1
    assert "\n  and 1 more; --json lists them all\n  try: " in said


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Of processes, without who shares a job."""
    odd = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS")
    kept = {name: value for name, value in os.environ.items() if name not in odd}
    return {**kept, "OMP_NUM_THREADS": "1"}


SLOW = """
import os, sys, time
from fullconv.inference import batch as many
from fullconv.cli.main import main
read = many.read_image
if os.environ["RANK"] == "1":
    many.read_image = lambda path: (time.sleep(0.2), read(path))[1]
main()
"""


def test_torchrun_shares_the_images(
    photos: Path, model_folder: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Results land among the images while others list them. Torchrun ends all when one fails:
    the one with the damaged images has to wait for the other, which is slow."""
    shutil.copytree(photos, tmp_path / "alone")
    one = load(model_folder, device="cpu")
    (tmp_path / "slow.py").write_text(SLOW)
    words = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", tmp_path / "slow.py"]
    argv = ["predict", model_folder, photos, "--out", photos, *ARGV, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", *map(str, [*words, *argv])],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 1
    assert "This is a bug" not in done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert sorted(part["process"]["rank"] for part in found) == [0, 1]
    assert [part["process"]["of"] for part in found] == [2, 2]
    assert [len(part["images"]) + len(part["failed"]) for part in found] == [15, 15]
    sources = [result["source"] for part in found for result in part["images"]]
    assert len(set(sources)) == len(sources) == 28
    assert {Path(s).relative_to(photos) for s in sources} == {
        path.relative_to(tmp_path / "alone")
        for path in (tmp_path / "alone").rglob("*.png")
        if path.name not in ("05.png", "06.png")
    }
    for part in found:
        for result in part["images"]:
            (file,) = result["files"]
            assert (read_values(Path(file)) == one(result["source"]).mask).all()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_srun_shares_them_too_and_each_tells_its_own(
    photos: Path,
    model_folder: Path,
    tmp_path: Path,
    rank: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Both damaged images fall to the same process."""
    monkeypatch.setenv("SLURM_PROCID", rank)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    out = tmp_path / "out"
    code = run(["predict", str(model_folder), str(photos), "--out", str(out), *ARGV])
    said = capsys.readouterr()
    order = sorted(photos.rglob("*.png"))[int(rank) :: 2]
    bad = sum(path.name in ("05.png", "06.png") for path in order)
    assert code == (1 if bad else 0)
    last = said.out.splitlines()[-1]
    assert last == f"process {int(rank) + 1} of 2: {15 - bad} of 15 images -> {out}"
    alone = "note: SLURM_NTASKS is 2: this is process 1 of 2 and does its share; start all "
    assert said.err.startswith(alone) == (rank == "0")
    assert (out / FOLDER / f"{rank}.jsonl").is_file()


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two images and three videos, one of which is none, and one damaged at its end."""
    pytest.importorskip("av", reason="PyAV is not installed")
    place = tmp_path / "mixed"
    film(place / "deep/clip.mp4")
    cut(film(place / "cut.mkv", tuple(range(0, 16 * 512, 512))), 0.6)
    for name in ("clip.png", "deep/clip.png"):
        written(place / name, photo(48, 64))
    (place / "bad.webm").write_text("no video")
    return place


def test_images_and_videos_together(
    mixed: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    argv = ["predict", str(model_folder), str(mixed), "--out", str(out), "--frame-step", "3"]
    assert run(argv) == 1
    said = capsys.readouterr()
    cut_off, bad = mixed / "cut.mkv", mixed / "bad.webm"
    assert said.out.splitlines()[-1] == f"4 of 5 files -> {out}"
    assert f"note: {cut_off}: " in said.err
    assert "frames could be read" in said.err
    assert f"1 of 5 files could not be segmented:\n  {bad} cannot be read as a video: " in said.err
    videos = ("cut_mask.mkv", "cut_overlay.mp4", "cut_legend.png")
    deep = ("deep/clip_mask.mkv", "deep/clip_overlay.mp4", "deep/clip_legend.png")
    images = [f"{name}{FILES[kind]}" for name in ("clip", "deep/clip_png") for kind in KINDS]
    results = [path for path in out.rglob("*") if path.is_file() and FOLDER not in path.parts]
    found = {path.relative_to(out).as_posix() for path in results}
    assert found == {*videos, *deep, *images}
    one = load(model_folder, device="cpu")
    masks = masks_of(out / "deep/clip_mask.mkv")
    for number, mask in enumerate(masks):
        frame = pixels_of(mixed / "deep/clip.mp4")[number // 3 * 3]
        assert (mask == one(frame).mask).all()
    assert len(masks) == 8
    before = {path: path.stat().st_mtime_ns for path in results}
    assert run([*argv, "--json"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("note: skipped 4 files with results")
    assert f"note: {cut_off}: " in said.err
    told = json.loads(said.out)
    assert [Path(one["source"]).name for one in told["images"]] == [
        "clip.png", "cut.mkv", "clip.mp4", "clip.png",
    ]  # fmt: skip
    assert told["images"][2]["labelled"] == 3
    assert {path: path.stat().st_mtime_ns for path in results} == before
    assert (
        run(["predict", str(model_folder), str(mixed), "--out", str(out), "--frame-step", "2"]) == 1
    )
    assert "note: redid 4 files whose results in " in capsys.readouterr().err


def test_what_videos_have_not_costs_the_images_nothing(
    mixed: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    argv = ["predict", str(model_folder), str(mixed), "--out", str(out), "--save", "polygons"]
    assert run(argv) == 1
    said = capsys.readouterr().err
    assert (
        f"{mixed / 'cut.mkv'} is a video or is read in windows, and polygons is not available"
        in said
    )
    assert sorted(path.name for path in out.rglob("*.geojson")) == [
        "clip.geojson", "clip_png.geojson",
    ]  # fmt: skip


@pytest.mark.parametrize("rank", ["0", "1"])
def test_processes_share_videos_too(
    mixed: Path,
    model_folder: Path,
    tmp_path: Path,
    rank: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    argv = ["predict", str(model_folder), str(mixed), "--out", str(tmp_path / "out"), "--json"]
    assert run(argv) == (1 if rank == "0" else 0)
    told = json.loads(capsys.readouterr().out)
    names = [Path(one["source"]).name for one in told["images"]]
    assert names == (["cut.mkv", "clip.png"] if rank == "0" else ["clip.png", "clip.mp4"])


def test_a_single_video(
    mixed: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["predict", str(model_folder), str(mixed / "deep/clip.mp4"), "--out", str(tmp_path)]
    assert run([*argv, "--save", "overlay"]) == 0
    *_, last, ahead = capsys.readouterr().out.splitlines()
    assert (last, ahead) == (f"1 of 1 video -> {tmp_path}", f"next: fullconv serve {model_folder}")
    assert (tmp_path / "clip_overlay.mp4").is_file()
    assert not list(tmp_path.glob("*mask*"))


def test_without_pyav_images_are_done(
    mixed: Path,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    argv = ["predict", str(model_folder), str(mixed), "--out", str(tmp_path / "out")]
    assert run(argv) == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[-1].startswith("2 of 5 files")
    assert said.err.rstrip().endswith("try: pip install av")


def test_standard_input_is_for_one_process(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(["predict", str(model_folder), "-"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(
        "error: standard input can be read by one process only, not by 2 processes."
    )
    assert said.endswith(" @list.txt\n")


def test_ctrl_c_ends_it_with_one_word(
    photos: Path,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    count = 0

    def segment(self: Predictor, *words: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        if count == 12:
            signal.raise_signal(signal.SIGINT)
        return Segmenter.segment(self, *words, **more)

    monkeypatch.setattr(Predictor, "segment", segment)
    out = tmp_path / "out"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests
    try:
        assert run(["predict", str(model_folder), str(photos), "--out", str(out), *ARGV]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr() == ("", "Stopped.\n")
    files = [path for path in out.rglob("*") if path.is_file() and FOLDER not in path.parts]
    assert 1 <= len(files) <= 11
    for path in files:
        assert path.name.endswith("_mask.png")
        assert read_values(path).shape == (20, 24)
    assert not list(out.rglob(".part*"))


# results and their folders


def test_images_of_the_same_stem_do_not_overwrite_each_other(
    cli: Cli, model_folder: Path, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    for number, name in enumerate(("in/a.jpg", "in/a.png", "in/deep/a.jpg", "in/deep/a.png")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (20 + number, 30, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    argv = ["predict", model_folder, tmp_path / "in", "--out", tmp_path / "out", "--save", "mask"]
    code, out, _ = cli(*argv, "--json")
    assert code == 0
    files = {r["source"]: r["files"][0] for r in json.loads(out)["images"]}
    assert len(set(files.values())) == 4
    for number, name in enumerate(("in/a.jpg", "in/a.png", "in/deep/a.jpg", "in/deep/a.png")):
        assert read_values(Path(files[str(tmp_path / name)])).shape == (20 + number, 30)
    assert Path(files[str(tmp_path / "in/deep/a.png")]).parent == tmp_path / "out" / "deep"


def test_predict_twice_into_the_same_folder_predicts_the_same_images(
    cli: Cli, model_folder: Path, data: Path
) -> None:
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


def test_predict_writes_over_no_image_of_ones_own(cli: Cli, model_folder: Path, data: Path) -> None:
    images = data / "images/test"
    own = shutil.copy(data / "masks/test/street_0000.png", images / "street_0000_mask.png")
    before = own.read_bytes()
    message = cli("predict", model_folder, images, "--out", images)[2]
    assert f"would overwrite {own}, which is one of the images" in message
    assert "\n  try: --out ANOTHER_FOLDER" in message
    assert own.read_bytes() == before
    assert len(list(images.iterdir())) == 3


def test_a_corrupt_image_does_not_cost_the_others(
    cli: Cli, model_folder: Path, data: Path, tmp_path: Path
) -> None:
    damage_dataset(data, "image")
    argv = ["predict", model_folder, data / "images/test", "--out", tmp_path / "out"]
    code, out, err = cli(*argv)
    assert code == 1
    assert out.endswith(f"1 of 2 images -> {tmp_path / 'out'}\n")
    assert sorted(p.name for p in (tmp_path / "out").glob("[!.]*")) == [
        "street_0001_mask.png",
        "street_0001_overlay.jpg",
    ]
    assert err.startswith("error: 1 of 2 images could not be segmented:\n  image ")
    assert str(data / "images/test/street_0000.jpg") in err
    assert "Traceback" not in err
    code, out, err = cli(*argv, "--json")
    found = json.loads(out)
    assert (code, len(found["images"]), len(found["failed"])) == (1, 1, 1)
    assert "street_0000.jpg" in found["failed"][0]


def test_predict_in_tiles_gives_the_same_mask(
    cli: Cli, model_folder: Path, scenes: Path, tmp_path: Path
) -> None:
    image = str(scenes / "images/test/street_0000.jpg")
    for name, more in (("whole", []), ("tiles", ["--tile", "32"])):
        argv = ["predict", str(model_folder), image, "--out", str(tmp_path / name), *more]
        code, _, err = cli(*argv)
        assert (code, err) == (0, "")
    masks = [read_values(tmp_path / name / "street_0000_mask.png") for name in ("whole", "tiles")]
    assert (masks[0] != masks[1]).mean() < 1e-3


def test_huge_lifts_the_limit_on_pixels(
    cli: Cli, model_folder: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1600)
    image = str(scenes / "images/test/street_0000.jpg")
    argv = ["predict", str(model_folder), image, "--out", str(tmp_path), "--save", "mask"]
    code, _, err = cli(*argv)
    assert code == 1
    assert "1600 " in err or "0 million are read" in err
    assert "try: --allow-huge" in err
    assert cli(*argv, "--allow-huge")[0] == 0
    assert Image.MAX_IMAGE_PIXELS == 1600


def test_a_geotiff_keeps_its_place(
    cli: Cli, model_folder: Path, scenes: Path, tmp_path: Path
) -> None:
    import rasterio

    pixels = np.asarray(read_image(scenes / "images/test/street_0000.jpg")).transpose(2, 0, 1)
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(2, 0, 5e5, 0, -2, 5e6)}
    size = {"count": 3, "height": pixels.shape[1], "width": pixels.shape[2], "dtype": "uint8"}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **size, **place) as file:
        file.write(pixels)
    argv = ["predict", str(model_folder), str(tmp_path / "a.tif"), "--out", str(tmp_path / "out")]
    code, out, err = cli(*argv, "--json")
    assert (code, err) == (0, "")
    files = json.loads(out)["images"][0]["files"]
    assert sorted(Path(f).name for f in files) == ["a_mask.tif", "a_overlay.jpg"]
    with rasterio.open(tmp_path / "out" / "a_mask.tif") as mask:
        assert {"crs": mask.crs, "transform": mask.transform} == place


def test_blended_seams_are_said(
    cli: Cli, make_model: Callable[..., Any], scenes: Path, tmp_path: Path
) -> None:
    network = FCN("test_efficientnet", 3)
    made = make_model()
    save_model(Model(network.eval(), made.labels, network.backbone.card), tmp_path / "model")
    image = str(scenes / "images/test/street_0000.jpg")
    argv = ["predict", str(tmp_path / "model"), image, "--out", str(tmp_path), "--tile", "32"]
    code, _, err = cli(*argv)
    assert code == 0
    assert err.startswith("note: large images were cut into tiles with blended seams, because of")
