"""The command line: what it prints where, its exit codes, and what a person's mistakes become."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cards
import numpy as np
import pytest
from PIL import Image

import fullconv
from fullconv.cli.app import app
from fullconv.cli.main import main, run
from fullconv.cli.train import _options_in
from fullconv.core.errors import StoppedError
from fullconv.core.settings import Settings, to_toml
from fullconv.data.io.images import read_image
from fullconv.data.io.masks import read_values
from fullconv.data.synthetic import scenes as drawn
from fullconv.data.synthetic.scenes import LABELS
from fullconv.models.model import Model, save_model
from fullconv.models.run import Stage
from fullconv.network.fcn import FCN

COMMANDS = ("demo", "check", "train", "evaluate", "predict", "inspect", "convert", "heatmap")
COMMANDS += ("doctor", "completion", "compare")
HEAVY = ("torch", "torchvision", "timm", "lightning", "numpy", "PIL", "matplotlib")

Out = Callable[[list[Any]], tuple[int, str, str]]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Out:
    """Runs a command: exit code, stdout, stderr. Of the file descriptors, so that nothing that a
    library prints is overlooked."""

    def call(argv: list[Any]) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run([str(word) for word in argv])
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def data(scenes: Path, tmp_path: Path) -> Path:
    """A copy of the drawn scenes to spoil."""
    return Path(shutil.copytree(scenes, tmp_path / "data"))


@pytest.fixture
def model(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the model to spoil."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def refused(result: tuple[int, str, str]) -> str:
    """The message of a command that the person can mend."""
    code, out, err = result
    assert code == 1
    assert out == ""
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return err.removeprefix("error: ")


# Starting up.


@pytest.mark.parametrize(
    "lines",
    [
        "import fullconv",
        "import fullconv.cli.main",
        "from fullconv.cli.main import run; assert run(['--help']) == 0",
        "from fullconv.cli.main import run; assert run(['train', '--help']) == 0",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(lines: str) -> None:
    code = f"import sys; {lines}; print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    assert ("Usage: fullconv" in done.stdout) == ("help" in lines)


def test_the_public_names_load_on_first_use() -> None:
    assert set(fullconv.__all__) <= {*fullconv._HOMES, "FullconvError", "Labels", "geometry"}
    for name in fullconv.__all__:
        if name != "train":  # is tested where it is trained
            assert getattr(fullconv, name).__name__.rpartition(".")[2].lower() == name.lower()
    with pytest.raises(AttributeError, match="module 'fullconv' has no attribute 'trian'"):
        fullconv.trian  # noqa: B018


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(cli: Out, argv: list[str]) -> None:
    code, out, err = cli(argv)
    assert (code, err) == (0, "")
    assert out.startswith("Usage: fullconv COMMAND")
    assert all(f" {command} " in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_its_options(cli: Out, command: str) -> None:
    code, out, err = cli([command, "--help"])
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: fullconv {command}")
    assert "given" not in out.lower().replace("--", "").split()
    if command not in ("demo",):
        assert "--json" in out


def test_training_explains_every_setting(cli: Out) -> None:
    text = cli(["train", "--help"])[1]
    for name in Settings.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in text, name
    assert "--no-flip" in text
    assert "--empty" not in text  # there is no empty crop


def test_the_version(cli: Out) -> None:
    assert cli(["--version"]) == (0, f"{fullconv.__version__}\n", "")


# convert


def test_convert_prints_what_it_made(cli: Out, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    Image.new("RGB", (40, 30)).save(source / "a.png")
    shape = {"label": "road", "points": [[0, 0], [9, 0], [9, 9]]}
    text = json.dumps({"shapes": [shape], "imagePath": "a.png"})
    (source / "a.json").write_text(text)
    code, out, err = cli(["convert", source, tmp_path / "out", "--json"])
    assert (code, err) == (0, "")
    assert json.loads(out)["classes"] == ["background", "road"]
    code, out, err = cli(["convert", source, tmp_path / "text", "--layout", "labelme"])
    assert (code, err) == (0, "")
    assert out.endswith(f"next: fullconv check {tmp_path / 'text'}\n")
    assert "is not empty" in refused(cli(["convert", source, tmp_path / "out"]))
    said = refused(cli(["convert", source, tmp_path / "new", "--layout", "voc"]))
    assert "holds annotations, not masks" in said
    assert (source / "a.json").read_text() == text


# check


def test_check_prints_the_report(cli: Out, scenes: Path) -> None:
    code, out, err = cli(["check", scenes])
    assert (code, err) == (0, "")
    assert "images: train 3, val 2, test 2" in out


@pytest.mark.parametrize("spoilt", ["image", "mask", "ids"])
def test_check_has_exit_code_1_where_there_are_errors(cli: Out, data: Path, spoilt: str) -> None:
    spoil(data, spoilt)
    code, out, err = cli(["check", data])
    assert (code, err) == (1, "")
    assert "ERROR " in out
    assert "street_0000" in out
    assert "fix: " in out
    code, out, err = cli(["check", data, "--json"])
    assert (code, err) == (1, "")
    assert json.loads(out)["errors"] >= 1


def spoil(data: Path, what: str) -> None:
    if what == "image":
        path = data / "images/test/street_0000.jpg"
        path.write_bytes(path.read_bytes()[:300])
    elif what == "mask":
        path = data / "masks/test/street_0000.png"
        path.write_bytes(path.read_bytes()[:100])
    else:
        ids = np.full((48, 64), 99, np.uint8)
        Image.fromarray(ids).save(data / "masks/test/street_0000.png")


def test_a_warning_is_no_error(cli: Out, data: Path) -> None:
    shutil.copy(data / "images/train/street_0000.jpg", data / "images/train/alone.jpg")
    code, out, _ = cli(["check", data, "--json"])
    report = json.loads(out)
    assert (code, report["errors"]) == (0, 0)
    assert report["warnings"] + len(report["findings"]) > 0


# evaluate


def test_evaluate_prints_the_table_and_what_it_is_of(
    cli: Out, model_folder: Path, scenes: Path
) -> None:
    code, out, err = cli(["evaluate", model_folder, scenes, "--split", "val"])
    assert (code, err) == (0, "")
    head, empty, first, *_ = out.splitlines()
    assert head == f"{model_folder} on {scenes}, split val, 2 images, original size"
    assert empty == ""
    assert first.startswith("mean IoU ")
    assert all(name in out for name in LABELS.names)
    assert out.endswith(f"\nnext: fullconv predict {model_folder} IMAGES\n")


def test_a_published_data_set_goes_by_its_name(
    cli: Out, model_folder: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FULLCONV_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path.parent)
    folder = shutil.copytree(scenes, tmp_path / "camvid")  # as if downloaded
    for words in (["evaluate", model_folder, "--split", "val"], ["inspect"], ["ceiling"]):
        named = cli([*words, "camvid"])
        assert named[0] == 0, named[2]
        assert named == tuple(
            text.replace(f" on {folder}, ", " on camvid, ") if isinstance(text, str) else text
            for text in cli([*words, folder])
        )


def test_evaluate_as_json_is_one_object_with_the_names_of_the_paper(
    cli: Out, model_folder: Path, scenes: Path
) -> None:
    code, out, err = cli(["evaluate", model_folder, scenes, "--json"])
    assert (code, err) == (0, "")
    found = json.loads(out)
    numbers = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")
    assert all(0 <= found[key] <= 1 for key in numbers)
    assert set(found["per_class_iou"]) == set(LABELS.names)
    assert found["protocol"]["split"] == "test"
    table = cli(["evaluate", model_folder, scenes])[1]
    assert f"{100 * found['mean_iou']:.2f}" in table


def test_evaluate_keeps_what_compare_needs(
    cli: Out, model: Path, scenes: Path, tmp_path: Path
) -> None:
    words = ["evaluate", model, scenes, "--split", "val"]
    assert cli(words)[0] == 0
    assert not list(tmp_path.glob("*.npz"))  # the model lies in no run
    (tmp_path / "config.toml").write_text("[train]\n")
    assert cli(words)[0] == 0
    assert cli([*words, "--counts", tmp_path / "new" / "other.npz"])[0] == 0
    files = [tmp_path / "counts_val.npz", tmp_path / "new" / "other.npz"]
    code, out, err = cli(["compare", *files, "--resamples", 100])
    assert (code, err) == (0, "")
    assert out.startswith("split val: 2 images, 48 x 64;")
    files[0].unlink()
    files[0].mkdir()
    code, out, err = cli(words)
    assert code == 0
    assert "mean IoU" in out
    assert err.startswith(f"note: the counts of single images could not be written to {files[0]}")
    message = refused(cli([*words, "--counts", "counts"]))
    assert message.endswith("try: --counts counts.npz\n")


@pytest.mark.parametrize("spoilt", ["image", "mask", "ids"])
def test_evaluate_refuses_faulty_data(
    cli: Out, model_folder: Path, data: Path, spoilt: str
) -> None:
    spoil(data, spoilt)
    message = refused(cli(["evaluate", model_folder, data, "--json"]))
    assert f"1 error in the data set {data}:" in message
    assert message.endswith(f"try: fullconv check {data}\n")


# predict


def test_predict_writes_masks_and_overlays_and_says_what_is_there(
    cli: Out, model_folder: Path, scenes: Path, tmp_path: Path
) -> None:
    out_folder = tmp_path / "new" / "out"
    images = scenes / "images/test"
    code, out, err = cli(["predict", model_folder, images, "--out", out_folder])
    assert (code, err) == (0, "")
    *lines, last, ahead = out.splitlines()
    assert last == f"2 of 2 images -> {out_folder}"
    assert ahead == f"next: fullconv serve {model_folder}"
    assert [line.split(":")[0] for line in lines] == [str(p) for p in sorted(images.iterdir())]
    assert all("%" in line for line in lines)
    assert sorted(p.name for p in out_folder.glob("[!.]*")) == [
        "street_0000_mask.png",
        "street_0000_overlay.jpg",
        "street_0001_mask.png",
        "street_0001_overlay.jpg",
    ]
    assert read_values(out_folder / "street_0000_mask.png").shape == (48, 64)


def test_predict_as_json_is_one_object_with_every_file(
    cli: Out, model_folder: Path, scenes: Path, tmp_path: Path
) -> None:
    image = scenes / "images/test/street_0000.jpg"
    argv = ["predict", model_folder, image, "--out", tmp_path, "--json"]
    code, out, err = cli([*argv, "--save", "mask, color,json"])
    assert (code, err) == (0, "")
    found = json.loads(out)
    (result,) = found["images"]
    assert found["failed"] == []
    assert (result["source"], result["height"], result["width"]) == (str(image), 48, 64)
    assert sum(result["area"].values()) == pytest.approx(1)
    ends = ("_mask.png", "_color.png", ".json")
    assert result["files"] == [str(tmp_path / f"street_0000{end}") for end in ends]
    assert all(Path(file).is_file() for file in result["files"])


def test_images_of_the_same_stem_do_not_overwrite_each_other(
    cli: Out, model_folder: Path, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    for number, name in enumerate(("in/a.jpg", "in/a.png", "in/deep/a.jpg", "in/deep/a.png")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (20 + number, 30, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    argv = ["predict", model_folder, tmp_path / "in", "--out", tmp_path / "out", "--save", "mask"]
    code, out, _ = cli([*argv, "--json"])
    assert code == 0
    files = {r["source"]: r["files"][0] for r in json.loads(out)["images"]}
    assert len(set(files.values())) == 4
    for number, name in enumerate(("in/a.jpg", "in/a.png", "in/deep/a.jpg", "in/deep/a.png")):
        assert read_values(Path(files[str(tmp_path / name)])).shape == (20 + number, 30)
    assert Path(files[str(tmp_path / "in/deep/a.png")]).parent == tmp_path / "out" / "deep"


def test_predict_twice_into_the_same_folder_predicts_the_same_images(
    cli: Out, model_folder: Path, data: Path
) -> None:
    images = data / "images/test"
    argv = ["predict", model_folder, images, "--out", images, "--save", "mask,color,overlay"]
    first = cli(argv)
    assert (first[0], first[2]) == (0, "")
    files = sorted(path.name for path in images.iterdir())
    code, out, err = cli(argv)
    assert (code, out) == first[:2]
    example = images / "street_0000_color.png"
    left_out, skipped = err.splitlines()
    assert left_out == f"note: results of earlier runs are left out: 6, such as {example}"
    assert skipped.startswith("note: 2 images were done before and left as found")
    assert sorted(path.name for path in images.iterdir()) == files


def test_predict_writes_over_no_image_of_ones_own(cli: Out, model_folder: Path, data: Path) -> None:
    images = data / "images/test"
    own = shutil.copy(data / "masks/test/street_0000.png", images / "street_0000_mask.png")
    before = own.read_bytes()
    message = refused(cli(["predict", model_folder, images, "--out", images]))
    assert f"would be written over {own}, which is one of the images" in message
    assert "\n  try: --out ANOTHER_FOLDER" in message
    assert own.read_bytes() == before
    assert len(list(images.iterdir())) == 3


def test_a_corrupt_image_does_not_cost_the_others(
    cli: Out, model_folder: Path, data: Path, tmp_path: Path
) -> None:
    spoil(data, "image")
    argv = ["predict", model_folder, data / "images/test", "--out", tmp_path / "out"]
    code, out, err = cli(argv)
    assert code == 1
    assert out.endswith(f"1 of 2 images -> {tmp_path / 'out'}\n")
    assert sorted(p.name for p in (tmp_path / "out").glob("[!.]*")) == [
        "street_0001_mask.png",
        "street_0001_overlay.jpg",
    ]
    assert err.startswith("error: 1 of 2 images could not be labelled:\n  image ")
    assert str(data / "images/test/street_0000.jpg") in err
    assert "Traceback" not in err
    code, out, err = cli([*argv, "--json"])
    found = json.loads(out)
    assert (code, len(found["images"]), len(found["failed"])) == (1, 1, 1)
    assert "street_0000.jpg" in found["failed"][0]


@pytest.mark.parametrize(
    ("argv", "said", "hint"),
    [
        (["MODEL"], "no image was named", "fullconv predict MODEL photo.jpg"),
        (["MODEL", "gone.jpg"], "no image or folder gone.jpg", "fullconv predict MODEL photo"),
        (["MODEL", "EMPTY"], "no image in EMPTY", "fullconv predict MODEL photo.jpg"),
        (["MODEL", "IMAGE", "--save", "heat"], "no output 'heat'", "--save mask,overlay"),
        (["MODEL", "IMAGE", "--save", ""], "no output ''", "--save mask,overlay"),
        (["MODEL", "IMAGE", "--out", "FILE"], "could not be written to FILE", "--out ANOTHER"),
        (["MODEL", "IMAGE", "--tile", "0"], "tiles of 0 pixels; expected 1", "--tile 1024"),
        (["gone", "IMAGE"], "no model at gone: nothing there", "fullconv train DATA"),
        (["EMPTY", "IMAGE"], "no model at EMPTY: the folder holds nothing", "fullconv train"),
        (["IMAGE", "IMAGE"], "is damaged or not a .safetensors file", "fullconv train"),
    ],
)
def test_what_predict_cannot_do_it_says(
    cli: Out,
    model_folder: Path,
    scenes: Path,
    tmp_path: Path,
    argv: list[str],
    said: str,
    hint: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    places = {
        "MODEL": str(model_folder),
        "EMPTY": str(tmp_path / "empty"),
        "FILE": str(tmp_path / "file"),
        "IMAGE": str(scenes / "images/test/street_0000.jpg"),
    }
    if "--out" not in argv:
        argv = [*argv, "--out", str(tmp_path / "out")]
    message = refused(cli(["predict", *(places.get(word, word) for word in argv)]))
    for name, place in places.items():
        message = message.replace(place, name)
    assert message.startswith(said) or said in message.splitlines()[0]
    assert f"\n  try: {hint}" in message


def test_predict_in_tiles_gives_the_same_mask(
    cli: Out, model_folder: Path, scenes: Path, tmp_path: Path
) -> None:
    image = str(scenes / "images/test/street_0000.jpg")
    for name, more in (("whole", []), ("tiles", ["--tile", "32"])):
        argv = ["predict", str(model_folder), image, "--out", str(tmp_path / name), *more]
        code, _, err = cli(argv)
        assert (code, err) == (0, "")
    masks = [read_values(tmp_path / name / "street_0000_mask.png") for name in ("whole", "tiles")]
    assert (masks[0] != masks[1]).mean() < 1e-3


def test_huge_lifts_the_limit_on_pixels(
    cli: Out, model_folder: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1600)
    image = str(scenes / "images/test/street_0000.jpg")
    argv = ["predict", str(model_folder), image, "--out", str(tmp_path), "--save", "mask"]
    code, _, err = cli(argv)
    assert code == 1
    assert "1600 " in err or "0 million are read" in err
    assert "try: --allow-huge" in err
    assert cli([*argv, "--allow-huge"])[0] == 0
    assert Image.MAX_IMAGE_PIXELS == 1600


def test_a_geotiff_keeps_its_place(
    cli: Out, model_folder: Path, scenes: Path, tmp_path: Path
) -> None:
    import rasterio

    pixels = np.asarray(read_image(scenes / "images/test/street_0000.jpg")).transpose(2, 0, 1)
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(2, 0, 5e5, 0, -2, 5e6)}
    size = {"count": 3, "height": pixels.shape[1], "width": pixels.shape[2], "dtype": "uint8"}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **size, **place) as file:
        file.write(pixels)
    argv = ["predict", str(model_folder), str(tmp_path / "a.tif"), "--out", str(tmp_path / "out")]
    code, out, err = cli([*argv, "--json"])
    assert (code, err) == (0, "")
    files = json.loads(out)["images"][0]["files"]
    assert sorted(Path(f).name for f in files) == ["a_mask.tif", "a_overlay.jpg"]
    with rasterio.open(tmp_path / "out" / "a_mask.tif") as mask:
        assert {"crs": mask.crs, "transform": mask.transform} == place


def test_blended_seams_are_said(
    cli: Out, make_model: Callable[..., Any], scenes: Path, tmp_path: Path
) -> None:
    network = FCN("test_efficientnet", 3)
    made = make_model()
    save_model(Model(network.eval(), made.labels, network.backbone.card), tmp_path / "model")
    image = str(scenes / "images/test/street_0000.jpg")
    argv = ["predict", str(tmp_path / "model"), image, "--out", str(tmp_path), "--tile", "32"]
    code, _, err = cli(argv)
    assert code == 0
    assert err.startswith("note: large images were cut into tiles with blended seams, because of")


# inspect


@pytest.mark.parametrize("thing", ["backbone", "model", "data"])
def test_inspect_tells_what_a_thing_is(
    cli: Out, model_folder: Path, scenes: Path, thing: str
) -> None:
    what = {"backbone": "test_resnet", "model": str(model_folder), "data": str(scenes)}[thing]
    code, text, err = cli(["inspect", what])
    assert (code, err) == (0, "")
    ahead = {
        "backbone": "fullconv train DATA --backbone test_resnet",
        "model": f"fullconv predict {model_folder} IMAGES",
        "data": f"fullconv check {scenes}",
    }[thing]
    assert text.endswith(f"\nnext: {ahead}\n")
    code, out, err = cli(["inspect", what, "--json"])
    assert (code, err) == (0, "")
    facts = json.loads(out)
    if thing == "data":
        assert facts["images"]["train"] == 3
    else:
        assert f"{facts['grids'][0]['channels']}" in text if thing == "backbone" else True
        assert [g["stride"] for g in facts["grids"]][-1] == 32


# train


class Recorder:
    """Stands in for `fullconv.training.train`, whose import is slow; notes what it is asked."""

    def __init__(self) -> None:
        self.data: Any = None
        self.options: dict[str, Any] = {}
        self.splits = ("train", "val", "test")
        self.stages: tuple[Stage, ...] = ()

    def train(self, data: Any, **options: Any) -> Any:
        self.data, self.options = data, options
        metrics = {"mean_iou": 0.5, "epoch": 3, "protocol": {"split": "val", "images": 4}}
        metrics |= {"per_class_iou": {"sky": 0.5}, "confusion": [[1]]}
        return SimpleNamespace(
            folder=Path("run"),
            model=Path("run/model"),
            metrics=metrics,
            data=Path("DATA"),
            splits=self.splits,
            stages=self.stages,
        )


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, "fullconv.training.train", recorder)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return recorder


def test_what_each_stage_came_to_is_printed(cli: Out, training: Recorder) -> None:
    training.stages = (
        Stage("FCN-32s", "run/32s/model", 0.5, 0.8, None, None, 2, 60.0),
        Stage("FCN-16s", "run/model", 0.54, 0.82, 0.04, 1.0, 2, 90.0),
    )
    code, out, _ = cli(["train", "DATA", "--staged", "--stride", 16])
    assert code == 0
    assert training.options == {"staged": True, "stride": 16, "out": None, "resume": None}
    assert out.splitlines()[2].split()[:3] == ["FCN-16s", "54.0%", "+4.0"]
    code, out, _ = cli(["train", "DATA", "--staged", "--json"])
    assert json.loads(out)["stages"][1]["gain"] == 0.04


def test_only_the_options_that_were_typed_are_handed_on(cli: Out, training: Recorder) -> None:
    code, out, err = cli(
        ["train", "DATA", "--stride=16", "--no-flip", "--scale", 1, 1.5, "--label-smoothing", 0]
    )
    assert (code, err) == (0, "")
    assert training.data == Path("DATA")
    assert training.options == {
        "out": None,
        "resume": None,
        "stride": 16,
        "flip": False,
        "scale": (1.0, 1.5),
        "label_smoothing": 0.0,
    }
    assert out.splitlines() == [
        "mean IoU 50.0% on val (4 images), epoch 3",
        f"model: {Path('run/model')}",
        f"report: {Path('run/report.html')}",
        "next: fullconv evaluate run DATA --split test",
    ]


def test_a_class_that_was_never_predicted_is_said_at_the_end(
    cli: Out, training: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: Any, **__: Any) -> Any:
        run = Recorder().train(Path("my data"))
        run.metrics["per_class_iou"] = {"ground": 0.98, "object": 0.0}
        run.metrics["confusion"] = [[98, 0], [2, 0]]
        run.folder = Path("my run")
        return run

    monkeypatch.setattr(training, "train", train)
    lines = cli(["train", "my data"])[1].splitlines()
    assert lines[1] == "never predicted: object"
    assert lines[-1] == "next: fullconv evaluate 'my run' 'my data' --split test"


def test_without_a_test_split_there_is_nothing_left_to_score(cli: Out, training: Recorder) -> None:
    training.splits = ("train", "val")
    out = cli(["train", "--resume", "run"])[1]
    assert out.endswith("\nnext: fullconv predict run IMAGES\n")


def test_options_change_single_ones_of_a_configuration(
    cli: Out, training: Recorder, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    train = Settings(epochs=7, flip=False, crop=(64, 96)).to_dict()
    config.write_text(to_toml({"data": {"root": "/there"}, "train": train}))
    # --epochs 50 is the default, but was typed.
    assert cli(["train", "--config", config, "--stride", "16", "--epochs", "50"])[0] == 0
    assert training.data == Path("/there")
    assert {k: v for k, v in training.options.items() if k not in ("out", "resume")} == {
        **train,
        "crop": [64, 96],
        "stride": 16,
        "epochs": 50,
    }
    assert cli(["train", "here", "--config", config])[0] == 0
    assert training.data == Path("here")


def test_a_configuration_without_a_data_set_does_not_mean_this_folder(
    cli: Out, training: Recorder, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[train]\nepochs = 3\n")
    assert cli(["train", "--config", config])[0] == 0
    assert training.data is None  # which the training refuses


def test_train_as_json_is_one_object(cli: Out, training: Recorder) -> None:
    code, out, err = cli(["train", "DATA", "--json"])
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["run"], found["mean_iou"]) == ("run", 0.5)
    assert found["model"] == str(Path("run/model"))


def test_the_other_processes_of_a_run_print_nothing(
    cli: Out, training: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert cli(["train", "DATA"]) == (0, "", "")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], set()),
        (["DATA", "--out", "x", "--json", "--resume", "y"], set()),
        (["--epochs", "3"], {"epochs"}),
        (["--stride=16"], {"stride"}),
        (["--no-flip", "--pretrained"], {"flip", "pretrained"}),
        (["--backbone-lr", "1", "--weight_decay=2"], {"backbone_rate", "weight_decay"}),
        (["epochs", "-e", "--epoch", "--no-epoch"], set()),
    ],
)
def test_which_options_were_typed(words: list[str], names: set[str]) -> None:
    assert _options_in(["train", *words]) == names


def test_every_flag_of_the_settings_can_be_denied(cli: Out, training: Recorder) -> None:
    assert cli(["train", "DATA", "--no-pretrained", "--flip"])[0] == 0
    assert training.options["pretrained"] is False
    assert training.options["flip"] is True


# ceiling


def test_ceiling_prints_a_table_of_classes_and_strides(cli: Out, scenes: Path) -> None:
    code, out, err = cli(["ceiling", scenes])
    assert (code, err) == (0, "")
    head, *lines, ahead = out.splitlines()
    assert head.startswith(f"{scenes}, split val, 2 images, original size")
    assert ahead == f"next: fullconv train {scenes} --stride 4"
    assert all(any(line.startswith(name) for line in lines) for name in LABELS.names)
    assert f"{'mean IoU':<24}" in out
    assert lines[-1].startswith("recommended: --stride 4: stride 8 can reach a mean IoU of about ")
    assert lines[-1].endswith(" (counted in 2 masks of val)")
    code, out, err = cli(["ceiling", scenes, "--json", "--split", "train"])
    found = json.loads(out)
    assert (code, err, found["split"], found["images"]) == (0, "", "train", 3)
    assert list(found["strides"]) == ["4", "8", "16", "32"]
    for numbers in found["strides"].values():
        assert 0 < numbers["mean_iou"] <= 1
        assert tuple(numbers["per_class_iou"]) == LABELS.names
    assert str(found["recommended_stride"]) in found["strides"]


def test_ceiling_refuses_a_split_that_is_not_there(cli: Out, data: Path) -> None:
    for kind in ("images", "masks"):
        shutil.rmtree(data / kind / "test")
    message = refused(cli(["ceiling", data, "--split", "test"]))
    assert "has no images for the split 'test'; it has train, val." in message
    assert message.endswith("\n  try: --split val\n")


@pytest.mark.parametrize("spoilt", ["image", "mask", "ids"])
def test_ceiling_refuses_faulty_data(cli: Out, data: Path, spoilt: str) -> None:
    spoil(data, spoilt)
    message = refused(cli(["ceiling", data, "--split", "test"]))
    assert f"1 error in the data set {data}:" in message
    assert message.endswith(f"try: fullconv check {data}\n")
    assert cli(["ceiling", data])[0] == 0  # the fault is in another split


# What a person gets wrong.


@pytest.mark.parametrize(
    ("argv", "said", "hint"),
    [
        (["bogus"], 'Unknown command "bogus". Available commands: ', "fullconv --help"),
        (["--bogus"], 'Unknown command "--bogus"', "fullconv --help"),
        (["check"], "DATA is missing.", "fullconv check DATA"),
        (["evaluate", "m"], "DATA is missing.", "fullconv evaluate MODEL DATA"),
        (["predict"], "MODEL is missing.", "fullconv predict MODEL IMAGES"),
        (["check", "DATA", "--fix"], "--fix requires an argument", "fullconv check --help"),
        (["check", "DATA", "more", "words"], "too many words: more words.", "fullconv check --he"),
        (["check", "DATA", "--jsn"], "Unknown option: --jsn. Did you mean --json", "check --help"),
        (["check", "DATA", "--json=maybe"], 'unable to convert "maybe"', "fullconv check --help"),
        (["evaluate", "m", "DATA", "--split", "all"], 'Choose from: "train"', "evaluate --help"),
        (["ceiling", "gone"], "there is no folder gone; expected the folder of a data set", "ls ."),
        (["train", "DATA", "--epoch", "3"], "Did you mean --epochs", "fullconv train --help"),
        (["train", "DATA", "--epochs", "x"], 'convert "x" into int', "fullconv train --help"),
        (["train", "DATA", "--crop", "3"], "--crop requires 2", "fullconv train --help"),
        (["train", "DATA", "--stride", "7"], "it must be one of 4, 8, 16, 32", "--stride 8"),
        (["train", "DATA", "--lr", "nan"], "it must be a number", "--lr 0.002"),
        (["train", "DATA", "--epochs", "0"], "it must be 1 or more", "--epochs 50"),
        (["train", "--config", "gone.toml"], "no configuration at gone.toml", "fullconv train D"),
        (["check", "gone"], "there is no folder gone; expected the folder of a data set", "ls ."),
        (["inspect", "gone/away"], "gone/away does not exist", "fullconv inspect resnet18"),
        (["inspect", "resnet1"], "timm has no network 'resnet1'", "--backbone resnet18"),
        (["evaluate", "gone", "DATA"], "no model at gone: nothing there", "fullconv train DATA"),
    ],
)
def test_a_mistake_is_a_message_and_exit_code_1(
    cli: Out, scenes: Path, argv: list[str], said: str, hint: str
) -> None:
    message = refused(cli([str(scenes) if word == "DATA" else word for word in argv]))
    assert said in message
    assert not hint or f"\n  try: {hint}" in message or hint in message.splitlines()[-1]


def test_options_on_a_resumed_run(cli: Out, tmp_path: Path) -> None:
    message = refused(cli(["train", "--resume", tmp_path, "--epochs", "3"]))
    assert message == (
        "a resumed run takes its data, folder and options from its own config.toml.\n"
        f"  try: fullconv train --resume {tmp_path}\n"
    )
    assert "no configuration at" in refused(cli(["train", "--resume", tmp_path]))
    assert "no data set was named" in refused(cli(["train"]))


@pytest.mark.parametrize("command", ["check", "evaluate", "inspect", "ceiling"])
def test_an_empty_folder_is_no_data_set(
    cli: Out, model_folder: Path, tmp_path: Path, command: str
) -> None:
    (tmp_path / "empty").mkdir()
    words = [model_folder] if command == "evaluate" else []
    message = refused(cli([command, *words, tmp_path / "empty"]))
    assert f"{tmp_path / 'empty'} holds no images: there is nothing in it." in message
    assert "DATA/images/train/a.jpg" in message


@pytest.mark.parametrize("command", ["evaluate", "predict", "inspect"])
@pytest.mark.parametrize("fault", ["no weights", "no config", "altered"])
def test_a_model_with_a_fault(
    cli: Out, model: Path, scenes: Path, tmp_path: Path, command: str, fault: str
) -> None:
    weights = model / "model.safetensors"
    if fault == "no weights":
        weights.unlink()
    elif fault == "no config":
        (model / "config.json").unlink()
    else:
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    words = {
        "evaluate": ["evaluate", model, scenes],
        "predict": ["predict", model, scenes / "images/test", "--out", tmp_path / "out"],
        "inspect": ["inspect", model],
    }[command]
    said = {
        "no weights": f"no model at {model}: the folder holds README.md, config.json; expected",
        "no config": f"{model} has no config.json; a model folder holds",
        "altered": f"{weights} was altered or does not belong to its config.json",
    }[fault]
    assert refused(cli(words)).startswith(said)
    assert not (tmp_path / "out").exists()


# --quiet


def test_quiet_leaves_results_alone(cli: Out, tmp_path: Path) -> None:
    data = drawn.write(tmp_path / "data", train=2, val=1, test=1, size=(48, 64))
    small = "--backbone resnet10t --no-pretrained --epochs 1 --workers 0 --crop 33 33"
    out = tmp_path / "run"
    code, said, err = cli(["--quiet", "train", data, *small.split(), "--out", out])
    assert (code, err) == (0, "")
    assert said.startswith("mean IoU ")
    assert said.endswith(f"\nreport: {out / 'report.html'}\n")  # and nothing to type next
    again = ["predict", out, data / "images/test", "--out", tmp_path / "out"]
    assert cli(again)[2] == ""
    code, heard, err = cli(again)
    assert err.startswith("note: 1 image was done before")
    assert cli([*again, "--quiet"]) == (0, heard[: heard.index("next: ")], "")


def test_quiet_leaves_errors_alone(cli: Out, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(cli(["--quiet", "check", "gone"])).startswith("there is no folder gone;")
    assert refused(cli(["check", "--quiet"])) == "DATA is missing.\n  try: fullconv check DATA\n"
    assert refused(cli(["--quiet", "check", scenes, "--fix"])).endswith("fullconv check --help\n")
    assert "Unknown option" in refused(cli(["check", scenes, "--no-quiet"]))

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the sky fell")

    monkeypatch.setattr("fullconv.data.check.check.check", fail)
    code, out, err = cli(["check", scenes, "--quiet"])
    assert (code, out) == (2, "")
    assert err.endswith("RuntimeError: the sky fell\n")


def test_every_command_has_quiet_in_its_help(cli: Out) -> None:
    for words in ([], *([name] for name in app if not name.startswith("-"))):
        shown = " ".join(cli([*words, "--help"])[1].split())
        assert "--quiet No progress and no notes" in shown, words


def test_the_demo_ends_with_its_result_and_the_next_command(
    cli: Out, model_folder: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_demo(*_: Any, say: Callable[[str], None], **__: Any) -> Any:
        say("drawing street scenes ...")
        return fullconv.evaluate(model_folder, scenes, split="test").to_dict()

    monkeypatch.setattr("fullconv.cli.demo.run_demo", run_demo)
    code, out, err = cli(["demo", "--out", "my demo"])
    assert (code, err) == (0, "drawing street scenes ...\n")
    assert out.startswith("on 2 scenes it never saw:\n\nmean IoU ")
    ahead = "fullconv predict 'my demo/run' 'my demo/scenes/images/test'"
    look = "look at my demo/predictions.png and my demo/report.html"
    assert out.endswith(f"\n{look}\nnext: {ahead}\n")
    assert cli(["demo", "--out", "my demo", "--quiet"]) == (0, out[: out.index("next: ")], "")


# What is ours.


def test_a_bug_asks_to_be_reported(cli: Out, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the sky fell")

    monkeypatch.setattr("fullconv.data.check.check.check", fail)
    code, out, err = cli(["check", scenes])
    assert (code, out) == (2, "")
    first, *rest = err.splitlines()
    assert first == f"This is a bug of fullconv {fullconv.__version__}; please report these lines:"
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[-1] == "RuntimeError: the sky fell"


def test_an_interrupt_is_no_bug(cli: Out, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fullconv.data.check.check.check", stop)
    assert cli(["check", scenes]) == (1, "", "stopped.\n")


def test_a_stop_that_saved_all_is_no_error(cli: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise StoppedError("stopped in epoch 2 of 3; all is saved.", "fullconv train --resume r")

    monkeypatch.setattr("fullconv.training.train.train", stop)
    told = "stopped in epoch 2 of 3; all is saved.\nnext: fullconv train --resume r\n"
    assert cli(["train", "data"]) == (1, "", told)


def test_main_exits_with_the_code(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bogus"])
    assert caught.value.code == 1
    monkeypatch.setattr(sys, "argv", ["fullconv", "--version"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    assert capfd.readouterr().out == f"{fullconv.__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["check", "DATA"],
        ["check", "DATA", "--json"],
        ["inspect", "DATA"],
        ["--help"],
        ["train", "--help"],
        ["--version"],
    ],
)
def test_a_reader_that_goes_away_is_no_bug(scenes: Path, words: list[str]) -> None:
    argv = [str(scenes) if word == "DATA" else word for word in words]
    done = unread(argv, stderr=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_goes_away_changes_no_exit_code(data: Path) -> None:
    spoil(data, "mask")
    done = unread(["check", str(data)], stderr=False)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize(
    ("words", "code"), [(["check", "gone"], 1), (["check"], 1), (["--help"], 0), (["train"], 1)]
)
def test_a_message_that_nobody_reads_changes_no_exit_code(words: list[str], code: int) -> None:
    assert unread(words, stderr=True).returncode == code


def test_work_whose_progress_nobody_reads_any_more_stops(tmp_path: Path) -> None:
    assert unread(["demo", "--out", str(tmp_path / "demo")], stderr=True).returncode == 1
    assert list(tmp_path.iterdir()) == []


def unread(words: list[str], *, stderr: bool) -> subprocess.CompletedProcess[bytes]:
    """A command whose stdout, and perhaps stderr, goes to a closed pipe: as `| true` does."""
    reader, writer = os.pipe()
    os.close(reader)
    argv = [sys.executable, "-m", "fullconv", *words]
    where = writer if stderr else subprocess.PIPE
    done = subprocess.run(argv, stdout=writer, stderr=where, check=False)
    os.close(writer)
    return done


def test_progress_is_a_line_on_a_terminal_that_is_wiped_afterwards(
    scenes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert run(["check", str(scenes), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["errors"] == 0
    assert "checked 7/7" in err
    assert err.endswith("\r\x1b[1A\x1b[2K")


def test_heads_and_inputs_from_folders_by_the_command_line(tmp_path, capsys):
    """The whole way, as a person with depth and two kinds of labels goes it."""
    data, out = cards.write(tmp_path / "cards", sized=True, train=4, val=2), tmp_path / "run"
    assert run(["check", str(data), "--heads", "order", "--extra-inputs", "depth"]) == 0
    said = capsys.readouterr().out
    assert "head order" in said
    assert "near" in said
    small = ["--no-pretrained", "--epochs", "1", "--batch-size", "2", "--workers", "0"]
    small += ["--crop", "33", "33"]
    more = [
        "--heads",
        "order",
        "--extra-inputs",
        "depth",
        "--backbone",
        "resnet10t",
        "--out",
        str(out),
    ]
    assert run(["train", str(data), *small, *more]) == 0
    said = capsys.readouterr()
    assert "head order: 3 classes, wall, far, near" in said.err
    assert "input depth: mean " in said.err
    assert ", order " in said.out
    assert run(["evaluate", str(out), str(data), "--split", "val"]) == 0
    said = capsys.readouterr()
    assert "head order" in said.out
    assert "not scored" not in said.err
    assert run(["inspect", str(out)]) == 0
    assert "takes depth beside each image: 1 channel, early fusion" in capsys.readouterr().out
    photos, results = str(data / "images/val"), tmp_path / "results"
    assert run(["predict", str(out), photos, "--out", str(results)]) == 1
    assert "--extra-inputs depth" in capsys.readouterr().err
    given = [
        "--extra-inputs",
        str(data / "depth/val"),
        "--out",
        str(results),
        "--save",
        "mask,json",
    ]
    assert run(["predict", str(out), photos, *given]) == 0
    names = {path.name for path in results.glob("[!.]*")}
    each = ("_mask.png", "_order_mask.png", ".json")
    assert names == {f"card_{k:03}{end}" for k in (0, 1) for end in each}
    assert set(json.loads((results / "card_000.json").read_text())["heads"]) == {"order"}
    shutil.rmtree(data / "order")
    assert run(["evaluate", str(out), str(data), "--split", "val"]) == 0
    assert "for order, not scored (--heads FOLDER)" in capsys.readouterr().err
