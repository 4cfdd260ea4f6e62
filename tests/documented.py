"""What README.md and the pages of docs/ show: their blocks, and a person's folder to run them in.

Every command of fullconv and every block of Python is run; those that are not stand in NOT_RUN with
the reason. Any other command fails, so that nobody adds an example that was never run.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from caffe_nets import blobs_of_file
from caffemodel import write_caffemodel
from films import film
from lively import lively
from PIL import Image

from fullconv.cli.main import run
from fullconv.data.io.extra_channels import ExtraInput
from fullconv.data.synthetic import scenes as drawn
from fullconv.models.model import save_model

ROOT = Path(__file__).parents[1]
# The notebooks that they are made of are run by tests/test_walkthrough.py.
WALKTHROUGH = {"docs/walkthrough.md", "docs/walkthrough.zh-CN.md"}
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in (*sorted(ROOT.glob("README*.md")), *sorted((ROOT / "docs").rglob("*.md")))
]
CHINESE = {page for page in PAGES if ".zh-CN." in page or page.startswith("docs/zh/")}

_SERVER = "answers until it is stopped; tests/test_serve_command.py asks it"
_LOADED = "downloads 135 MB; tests/test_foreign.py does it with a file"
_MANY = "wants several processes; tests/test_predict_command.py starts some"
_VGG = "has 134 million parameters; tests/network/test_original.py trains a narrow one"
_EXPORT = "takes half a minute; tests/test_export.py and tests/test_export_command.py do each kind"
_INSTALLS = "installs packages, as was done for the tests"
_NPM = "npm fetches what it runs in; tests/test_web.py has it already"
_TWO = "needs a second training; tests/test_compare_command.py has two"
FIRST, DEPTH = Path("runs/first"), Path("runs/depth")
FURNISHED = {"fullconv export runs/first"}  # run by `furnish`
NOT_RUN = {
    "make demo": "installs everything and trains for minutes; tests/test_demo.py runs a small one",
    "make test": "runs every test, and so this one",
    "make install": _INSTALLS,
    "source .venv/bin/activate": "the tests run in such an environment already",
    "pip install -e .[serve]": _INSTALLS,
    "pip install -e .[onnx]": _INSTALLS,
    "pip install --no-deps .": _INSTALLS,
    "pip install numpy scipy pillow cyclopts rich pyyaml onnxruntime": _INSTALLS,
    "fullconv compare runs/first runs/second": _TWO,
    "fullconv compare runs/first runs/second runs/third --split val": _TWO,
    "fullconv compare runs/first runs/second --out compare.html": _TWO,
    "fullconv compare runs/first runs/second --json": _TWO,
    "fullconv compare runs/first onnx.npz --split val": _TWO,
    "hf auth login": "needs an account",
    "fullconv push runs/first user/name": "needs an account; tests/test_publish_command.py has one",
    "fullconv push runs/first user/streets": "needs an account; tests/test_publish_command.py",
    "fullconv predict hf://user/name photos/": "needs a network; tests/test_hub.py has a hub",
    "fullconv predict hf://user/streets photos/": "needs a network; tests/test_hub.py has a hub",
    "fullconv demo": "trains for minutes; tests/test_demo.py runs a small one",
    "fullconv train data --backbone paper:vgg16 --stride 32": f"downloads 528 MB; {_VGG}",
    "fullconv train data --backbone paper:vgg16-aligned": _VGG,
    "fullconv train data --stride 16 --init-from fcn32s-heavy-pascal.caffemodel --backbone paper:vgg16":
    "is for weights of the full size; tests/test_start.py starts from others",
    "fullconv train sbd --config recipes/paper_vgg16.toml": "downloads 1.4 GB and trains for days;"
    " tests/test_settings.py reads the recipes",
    "fullconv train data --init-from torchvision:fcn_resnet50": _LOADED,
    "fullconv train data --seed 1 --out runs/seed1": "is as with --seed 0, which is run",
    "fullconv train data --seed 2 --out runs/seed2": "is as with --seed 0, which is run",
    "fullconv train data --devices 4 --out runs/first":
    "wants four devices; tests/test_training.py has two",
    "torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint first:29500"
    " -m fullconv train data --devices 4 --nodes 2 --out runs/large": "wants two machines",
    "fullconv predict torchvision:fcn_resnet50 photos/": _LOADED,
    "fullconv evaluate torchvision:fcn_resnet50 voc2012 --split val": _LOADED,
    "fullconv evaluate fcn8s_from_caffe.pth voc2012 --split val": "downloads 2 GB;"
    " tests/test_evaluation.py matches classes by name",
    "torchrun --nproc-per-node 4 -m fullconv predict runs/first photos/ --out predictions": _MANY,
    "srun --ntasks 16 fullconv predict runs/first photos/ --out /shared/predictions": _MANY,
    "srun fullconv predict runs/first photos/ --out /shared/predictions": _MANY,
    "find photos -name *.jpg | fullconv predict runs/first - --out predictions":
    "is two programs; tests/test_listed.py reads such a list",
    "fullconv predict runs/first photos/ --compile": "compiles for a minute; tests/test_engine.py",
    "fullconv export runs/first --precision int8 --calibrate photos/": _EXPORT,
    "fullconv export runs/first --format openvino": _EXPORT,
    "fullconv export runs/first --format torch": _EXPORT,
    "fullconv export runs/first --format web --out page": _NPM,
    "fullconv export runs/first --format web --out page --ort package": _NPM,
    "python -m http.server --directory page": "answers until it is stopped; tests/test_page.py",
    "fullconv completion": "writes into the home folder; tests/test_completion_command.py has one",
    "fullconv serve runs/first": _SERVER,
    "fullconv serve exported/model.onnx": _SERVER,
    "FULLCONV_KEY=... fullconv serve runs/first --host 0.0.0.0": _SERVER,
    "curl --data-binary @street.jpg -H Content-Type: image/jpeg localhost:8000/predict"
    " > street_mask.png": _SERVER,
    "curl -F image=@street.jpg localhost:8000/predict?output=json": _SERVER,
}  # fmt: skip
# A training of seconds: added to each that is documented, its backbone only where none is named.
SMALL = "--no-pretrained --epochs 1 --batch-size 2 --crop 33 33 --workers 0"
TINY = "--backbone test_resnet"
# What else is added to a command, to be done in seconds.
ADDED = {
    "fullconv heatmap resnet18 street.jpg --class sports car": "--no-pretrained --scales 5,6",
    "fullconv train --resume runs/first": "",
    "fullconv train --config runs/first/config.toml": "--epochs 1",
    "fullconv train data --init-from runs/first": SMALL,
    "fullconv train data --stride 16 --init-from runs/first": SMALL,
}
# In a block of Python, what is written otherwise here.
REPLACED = {
    'fc.train("data", backbone="resnet18"': 'fc.train("data", backbone="test_resnet"',
    "epochs=50": 'epochs=1, pretrained=False, batch=2, crop=(33, 33), workers=0, out="run"',
    'fc.load("torchvision:fcn_resnet50")': 'fc.load("fcn8s-heavy-pascal.caffemodel")',
    'fc.FCN("paper:vgg16", ': 'fc.FCN("resnet18", ',  # 134 million parameters
    'timm.create_model("resnet18", pretrained=True)': 'timm.create_model("resnet18")',
}  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, and what is in it."""

    page: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The lines of a block of sh as they are counted: without comments and double spaces."""
        return [" ".join(words) for words in map(words_of, self.text.splitlines()) if words]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(page: str) -> list[Block]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)
    return [Block(page, language, text) for language, text in found]


def words_of(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def known(command: str) -> bool:
    """Whether it is run here, or a table says why not."""
    return command in NOT_RUN or command.startswith("fullconv ")


def typed(line: str) -> list[str]:
    """The words of a command of fullconv as it is run here."""
    words = words_of(line)
    command = " ".join(words)
    if command in ADDED:
        words += ADDED[command].split()
    elif words[1] == "train":
        if "--epochs" in words:  # and how many, which SMALL says
            at = words.index("--epochs")
            del words[at : at + 2]
        words += SMALL.split() + TINY.split() * ("--backbone" not in words)
    return words[1:]


def python_of(text: str) -> str:
    """A block of Python as it is run here."""
    for old, new in REPLACED.items():
        text = text.replace(old, new)
    return text


def furnish(place: Path) -> Path:
    """Makes a person's folder, with everything that the documentation takes for granted."""
    _data(place)
    _others(place)
    trained = place / FIRST
    named = ["train", str(place / "data"), "--out", str(trained), "--quiet", "--stride", "32"]
    assert run([*named, *SMALL.split(), *TINY.split()]) == 0
    depth = ExtraInput("depth", 1, (0.5,), (0.3,))
    save_model(lively(extra_inputs=(depth,), fusion="early"), place / DEPTH / "model")
    # As `fullconv export runs/first` does it, which takes longest: once.
    assert run(["export", str(trained), "--out", str(place / "exported"), "--quiet"]) == 0
    shutil.copytree(trained, place / "demo/run")
    shutil.copytree(place / "data", place / "demo/scenes")
    made = ["predict", str(trained), "--out", str(place / "predictions")]
    shown = [str(place / "street.jpg"), "--save", "mask,overlay,probability", "--quiet"]
    assert run([*made, *shown]) == 0
    assert run([*made, str(place / "drive.mp4"), "--save", "mask,overlay", "--quiet"]) == 0
    return place


def _data(place: Path) -> None:
    data = drawn.write(place / "data", train=6, val=2, test=2, size=(48, 64))
    photos = Path(shutil.copytree(data / "images/test", place / "photos"))
    shutil.copy(sorted(photos.iterdir())[0], place / "street.jpg")
    film(place / "drive.mp4")
    shutil.copytree(data / "masks", data / "geometry")  # a head of the same classes
    shutil.copy(data / "dataset.toml", data / "geometry/dataset.toml")
    for photo in sorted((data / "images").rglob("*.jpg")):
        _depth(photo, data / "depth" / photo.parent.name)
    for photo in sorted(photos.iterdir()):
        _depth(photo, place / "depth-of-photos")
    card = next(block for block in blocks_of("docs/reference/files.md") if "source" in block.text)
    (place / "card.toml").write_text(card.text, encoding="utf-8")
    (place / "list.txt").write_text("".join(f"photos/{p.name}\n" for p in sorted(photos.iterdir())))
    street = Image.open(place / "street.jpg")
    for name in ("orthophoto.tif", "scan.png", "poster.png"):
        street.save(place / name)
    for kind in ("images", "masks"):
        shutil.copytree(data / kind / "train", place / "slides" / kind)


def _depth(photo: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    grey = np.asarray(Image.open(photo).convert("L"))
    Image.fromarray(grey).save(folder / f"{photo.stem}.png")


def _others(place: Path) -> None:
    """Files of other tools: annotations, and narrow networks with their names of layers."""
    for name in ("labelme", "labelled"):
        folder = Path(shutil.copytree(place / "photos", place / name))
        for photo in sorted(folder.iterdir()):
            shape = {"label": "road", "points": [[0, 30], [64, 30], [64, 48]]}
            table = {"shapes": [shape], "imagePath": photo.name}
            photo.with_suffix(".json").write_text(json.dumps(table))
    for split in ("train", "val"):
        folder = Path(shutil.copytree(place / "photos", place / "yolo/images" / split))
        labels = place / "yolo/labels" / split
        labels.mkdir(parents=True)
        for photo in sorted(folder.iterdir()):
            photo.rename(photo.with_stem(f"{split}_{photo.stem}"))
            text = "0 0.0 0.6 1.0 0.6 1.0 1.0 0.0 1.0\n"
            (labels / f"{split}_{photo.stem}.txt").write_text(text)
    names = "train: images/train\nval: images/val\nnames:\n  0: road\n"
    (place / "yolo/data.yaml").write_text(names)
    blobs = blobs_of_file("8s")
    write_caffemodel(place / "fcn8s-heavy-pascal.caffemodel", blobs)
    parts = ("weight", "bias")
    state = {
        f"{layer}.{part}": blob
        for layer, found in blobs.items()
        for part, blob in zip(parts, found, strict=False)
    }
    torch.save(state, place / "fcn8s_from_caffe.pth")
