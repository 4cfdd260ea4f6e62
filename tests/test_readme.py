"""Every command and every piece of Python in README.md does what it says, on a few drawn scenes.

What a block needs stands in the tables below; one that they do not know fails, so that nobody adds
an example that was never run.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from caffe_nets import blobs_of_file
from caffemodel import write_caffemodel
from films import film
from lively import lively

from fullconv.cli import run
from fullconv.data import drawn
from fullconv.model import save_model

TEXT = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
SHELL = [text for language, text in BLOCKS if language == "sh"]
PYTHON = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [line for text in SHELL for line in text.splitlines() if line.strip()]

NOT_RUN = {
    "make demo": "installs everything and trains for minutes; tests/test_demo.py runs a small one",
    "make test": "runs every test, and so this one",
    "make install": "installs everything, as was done for the tests",
    "source .venv/bin/activate": "the tests run in such an environment already",
    "fullconv train data --backbone paper:vgg16": "downloads 528 MB; tests/network/test_original.py"
    " trains a narrow one",
    "fullconv predict torchvision:fcn_resnet50 photos/": "downloads 135 MB; tests/test_foreign.py"
    " does it with a file",
    "fullconv export runs/<run> --to web --out page": "npm fetches what it runs in;"
    " tests/test_web.py has it already",
    "fullconv compare runs/<run> runs/<other>": "needs a second training;"
    " tests/test_compare_command.py has two",
    "fullconv completion": "writes into the home folder; tests/test_completion_command.py has one",
    "fullconv serve runs/<run>": "answers until it is stopped; tests/test_serve_command.py asks it",
}
# The command as in README.md -> what is added to it here, to be done in seconds.
RUN = {
    "fullconv doctor": "",
    "fullconv convert labelme/ converted": "",
    "fullconv check data --sheet check.png": "",
    "fullconv ceiling data": "",
    "fullconv train data": "--no-pretrained --epochs 1 --batch 2 --crop 33 33 --workers 0",
    "fullconv evaluate runs/<run> data --split val": "",
    "fullconv predict runs/<run> photos/ --out predictions": "",
    "fullconv export runs/<run>": "",
    "fullconv predict exported/model.onnx photos/": "",
    "fullconv predict runs/<run> photos/**/*.jpg --out predictions": "",
    "fullconv predict runs/<run> drive.mp4 --out predictions": "",
    "fullconv predict fcn8s-heavy-pascal.caffemodel photos/": "",
    "fullconv heatmap resnet18 street.jpg --class sports car": "--no-pretrained --scales 5,6",
}
# What a block of Python begins to do -> what is written otherwise here, for the same reason.
REPLACED = {
    'fc.check("data")': {
        "epochs=50": 'epochs=1, pretrained=False, batch=2, crop=(33, 33), workers=0, out="run"'
    },
    "net = fc.FCN(": {},
    "dense = fc.convolutionalize(": {},
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folder: data/, photos/, labelme/, street.jpg, drive.mp4, a .caffemodel; the work
    goes on inside it."""
    drawn.write(tmp_path / "data", train=4, val=2, test=2, size=(48, 64))
    photos = Path(shutil.copytree(tmp_path / "data/images/test", tmp_path / "photos"))
    shutil.copy(next(photos.iterdir()), tmp_path / "street.jpg")
    film(tmp_path / "drive.mp4")
    drawn_by_hand = Path(shutil.copytree(photos, tmp_path / "labelme"))
    for photo in sorted(drawn_by_hand.iterdir()):
        shape = {"label": "road", "points": [[0, 30], [64, 30], [64, 48]]}
        table = {"shapes": [shape], "imagePath": photo.name}
        photo.with_suffix(".json").write_text(json.dumps(table))
    write_caffemodel(tmp_path / "fcn8s-heavy-pascal.caffemodel", blobs_of_file("8s"))  # narrow
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words_of(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def known(line: str) -> bool:
    command = " ".join(words_of(line))
    return command in NOT_RUN or command in RUN


def test_every_block_is_of_a_known_kind() -> None:
    assert {language for language, _ in BLOCKS} <= {"sh", "python", "toml", ""}
    assert [line for line in COMMANDS if not known(line)] == []
    for text in PYTHON:
        assert sum(mark in text for mark in REPLACED) == 1, f"not known:\n{text}"


def test_the_tables_hold_nothing_that_is_gone() -> None:
    commands = {" ".join(words_of(line)) for line in COMMANDS}
    assert commands == {*NOT_RUN, *RUN}
    assert all(sum(mark in text for text in PYTHON) == 1 for mark in REPLACED)


def test_a_command_that_no_table_has_is_not_known() -> None:
    assert known("fullconv ceiling    data     # what can be reached")
    assert not known("fullconv check data --strict")
    assert not known("pip install fullconv")


@pytest.mark.parametrize("text", [text for text in SHELL if "fullconv " in text])
def test_the_commands_run_one_after_the_other(
    place: Path, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for line in text.splitlines():
        command = " ".join(words_of(line))
        if not command or command in NOT_RUN:
            continue
        words = [*words_of(line)[1:], *RUN[command].split()]
        if "runs/<run>" in words:
            if not (place / "runs").exists():  # a block that goes on after a training
                save_model(lively(), place / "runs/2026_data_8s/model")
            (folder,) = (place / "runs").iterdir()
            words = [w.replace("runs/<run>", str(folder.relative_to(place))) for w in words]
        assert run(words) == 0, f"{command}\n{capfd.readouterr().err}"
    if "fullconv heatmap" in text:
        assert (place / "heatmap.png").is_file()
        return
    if "fullconv predict" not in text:
        return
    if "runs/<run>" in text:
        assert [folder.name[-8:] for folder in (place / "runs").iterdir()] == ["_data_8s"]
    videos = ("drive_legend.png", "drive_mask.mkv", "drive_overlay.mp4")
    assert sorted(path.name for path in (place / "predictions").glob("[!.]*")) == [
        *(videos if "drive.mp4" in text else ()),
        *(f"street_000{number}_{kind}.png" for number in (0, 1) for kind in ("mask", "overlay")),
    ]


def executed(text: str) -> dict[str, Any]:
    """The names that a block leaves behind."""
    for mark, changes in REPLACED.items():
        for old, new in changes.items() if mark in text else ():
            assert old in text
            text = text.replace(old, new)
    names: dict[str, Any] = {}
    exec(compile(text, "README.md", "exec"), names)
    return names


def block(mark: str) -> str:
    (text,) = (text for text in PYTHON if mark in text)
    return text


def test_training_and_using_a_model_in_python(place: Path) -> None:
    names = executed(block('fc.check("data")'))
    assert names["seg"].mask.shape == (48, 64)
    assert (place / "street.png").is_file()


def test_the_network_alone() -> None:
    import fullconv as fc

    text = block("net = fc.FCN(")
    names = executed(text)
    assert names["loss"].ndim == 0
    assert names["mask"].shape == (1, 97, 131)
    (grid,) = (grid for grid in fc.geometry.trace("resnet18") if grid.stride == 8)
    assert f"[..., {grid}, ...]" in text


def test_a_classifier_made_dense() -> None:
    text = block("dense = fc.convolutionalize(")
    names = executed(text)
    dense = names["dense"]
    assert f"# {tuple(names['scores'].shape)}" in text
    assert f"dense.names[817]  # {dense.names[817]!r}" in text
    assert 0 < dense.difference < 1e-5
    assert "zeros" in dense.caveats()[0]
